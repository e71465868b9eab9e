"""Logical units: the code behind each opcode, one module a subject.

L{GetLogicalUnit} finds the unit of an opcode class. The modules are imported at the first question,
so that importing one of them does not pay for all.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..opcodes import OpCode
    from .base import LogicalUnit

#: Every module with units; each has its own C{LOGICAL_UNITS}: opcode class -> unit class.
MODULES: Final = (
    "cluster",
    "cluster_params",
    "cluster_disks",
    "cluster_verify",
    "query",
    "backup",
    "node",
    "node_evacuate",
    "node_query",
    "node_roles",
    "node_storage",
    "os",
    "tags",
    "test",
    "instance_create",
    "instance_operation",
    "instance_modify",
    "instance_disks",
    "instance_query",
    "instance_failover",
    "instance_migration",
    "instance_move",
    "instance_replace",
    "node_migrate",
)


@functools.cache
def _LoadModules() -> dict[type[OpCode], type[LogicalUnit]]:
    units: dict[type[OpCode], type[LogicalUnit]] = {}
    for name in MODULES:
        qualified = f"{__name__}.{name}"
        try:
            module = importlib.import_module(qualified)
        except ModuleNotFoundError as err:
            if err.name != qualified:
                raise
            continue
        for op_class, unit in module.LOGICAL_UNITS.items():
            if op_class in units:
                raise TypeError(
                    f"{op_class.__name__} has two logical units: {units[op_class].__name__} and"
                    f" {unit.__name__} of {qualified}"
                )
            units[op_class] = unit
    return units


def GetLogicalUnit(op_class: type[OpCode]) -> type[LogicalUnit] | None:
    """The unit of an opcode class; None if there is none."""
    return _LoadModules().get(op_class)


def __getattr__(name: str) -> dict[type[OpCode], type[LogicalUnit]]:
    if name == "LOGICAL_UNITS":
        return _LoadModules()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
