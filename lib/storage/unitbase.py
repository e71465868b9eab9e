"""The interface of all types of storage units.

Each type of unit can be listed, some can be modified or told to execute an operation. Units have
no relation to each other here. Rows keep the order of the fields that were asked for; the name of
the node and the type of the unit are added by the master.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import errors, runtime

Row = list[Any]


class StorageUnit:
    """A type of unit; each method has a default that refuses."""

    #: What it is called in requests.
    type_name: str = ""

    def __init__(self, *, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        self._rt = rt

    def List(self, name: str | None, fields: Sequence[str]) -> list[Row]:
        """One row for each unit, or for the one of that name.

        @raise errors.StorageError: a field or the unit is not known, or can not be read
        """
        raise NotImplementedError

    def Modify(self, name: str, changes: Mapping[str, Any]) -> None:
        """Change fields of a unit; no changes is fine.

        @raise errors.StorageError: a field can not be changed
        """
        if changes:
            raise errors.StorageError(
                f"Storage units of type {self.type_name!r} have no fields that can be changed,"
                f" but {', '.join(sorted(changes))} was to be"
            )

    def Execute(self, name: str, operation: str) -> None:
        """Carry out an operation on a unit.

        @raise errors.StorageError: this type does not have the operation, or it failed
        """
        raise errors.StorageError(
            f"Storage units of type {self.type_name!r} have no operation {operation!r}"
        )


def CheckFields(type_name: str, fields: Sequence[str], known: Mapping[str, object]) -> None:
    """Refuse fields that a type does not have.

    @raise errors.StorageError: names them
    """
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise errors.StorageError(
            f"Storage units of type {type_name!r} have no field {', '.join(map(repr, unknown))};"
            f" known are {', '.join(sorted(known))}"
        )
