"""Storage units: one small interface over the places of a node that give space.

Each type of unit can be listed, some can be modified or told to execute an operation. Units have
no relation to each other here. Rows keep the order of the fields that were asked for; the name of
the node and the type of the unit are added by the master.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, pathutils
from ..utils import io
from . import filepaths

Row = list[Any]


class StorageUnit:
    """A type of unit; each method has a default that refuses."""

    #: What it is called in requests.
    type_name: str = ""

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


class FileStorageUnit(StorageUnit):
    """Directories that hold file disks.

    @ivar paths: the directories this unit type consists of
    """

    type_name = constants.ST_FILE

    #: Field -> function of the path.
    _FIELDS: Final[dict[str, Callable[[str], Any]]] = {
        constants.SF_NAME: lambda path: path,
        constants.SF_SIZE: lambda path: io.GetFilesystemStats(pathutils.LocalPath(path))[0],
        constants.SF_FREE: lambda path: io.GetFilesystemStats(pathutils.LocalPath(path))[1],
        constants.SF_USED: lambda path: io.CalculateDirectorySize(pathutils.LocalPath(path)),
        constants.SF_ALLOCATABLE: lambda _: True,
    }

    def __init__(self, paths: Sequence[str]) -> None:
        allowed = filepaths.GetAllowedDirs()
        for path in paths:
            local = pathutils.LocalPath(path)
            if local not in allowed and filepaths.PathProblem(local, allowed) is not None:
                raise errors.StorageError(
                    f"{path!r} is not a file storage directory of this node"
                    f" ({', '.join(allowed) or 'there is none'})"
                )
        self.paths = list(paths)

    def List(self, name: str | None, fields: Sequence[str]) -> list[Row]:
        """One row for each directory."""
        _CheckFields(self.type_name, fields, self._FIELDS)
        if name is not None and name not in self.paths:
            raise errors.StorageError(f"There is no storage unit {name!r} of type 'file'")
        try:
            return [
                [self._FIELDS[field](path) for field in fields]
                for path in ([name] if name is not None else self.paths)
            ]
        except OSError as err:
            raise errors.StorageError(f"Can't read file storage: {err}") from err


def _CheckFields(type_name: str, fields: Sequence[str], known: Mapping[str, object]) -> None:
    unknown = [field for field in fields if field not in known]
    if unknown:
        raise errors.StorageError(
            f"Storage units of type {type_name!r} have no field {', '.join(map(repr, unknown))};"
            f" known are {', '.join(sorted(known))}"
        )


#: Type -> class; None: known, but this release has no code for it.
_TYPES: Final[dict[str, type[StorageUnit] | None]] = {
    constants.ST_FILE: FileStorageUnit,
    constants.ST_LVM_PV: None,
    constants.ST_LVM_VG: None,
}


def GetStorage(type_name: str, args: Sequence[Any]) -> StorageUnit:
    """The units of a type.

    @param args: what its class wants to know; for C{file} the list of directories, else nothing
    @raise errors.StorageError: there is no such type, or the arguments are not its own
    """
    if type_name not in _TYPES:
        raise errors.StorageError(
            f"Unknown storage type {type_name!r}; known are {', '.join(sorted(_TYPES))}"
        )
    cls = _TYPES[type_name]
    if cls is None:
        raise errors.StorageError(f"Storage units of type {type_name!r} are not implemented")
    try:
        return cls(*args)
    except TypeError as err:
        raise errors.StorageError(f"Wrong arguments for storage type {type_name!r}: {err}") from err
