"""Calls about storage units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .. import errors, runtime
from ..storage import units
from .base import Fail

_T = TypeVar("_T")


def _OrFail(fn: Callable[[], _T]) -> _T:
    try:
        return fn()
    except (errors.StorageError, errors.ConfigurationError) as err:
        Fail(str(err))


def StorageList(
    storage_type: str,
    storage_args: Sequence[Any],
    name: str | None,
    fields: Sequence[str],
    rt: runtime.Runtime = runtime.DEFAULT,
) -> list[units.Row]:
    """Units of a type: rows in the order of the fields.

    @raise RPCFail: type, unit or field is not known, or can't be read
    """
    return _OrFail(lambda: units.GetStorage(storage_type, storage_args, rt).List(name, fields))


def StorageModify(
    storage_type: str,
    storage_args: Sequence[Any],
    name: str,
    changes: Mapping[str, Any],
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Change fields of a unit.

    @raise RPCFail: that is not possible
    """
    _OrFail(lambda: units.GetStorage(storage_type, storage_args, rt).Modify(name, changes))


def StorageExecute(
    storage_type: str,
    storage_args: Sequence[Any],
    name: str,
    operation: str,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Carry out an operation on a unit.

    @raise RPCFail: that is not possible, or failed
    """
    _OrFail(lambda: units.GetStorage(storage_type, storage_args, rt).Execute(name, operation))
