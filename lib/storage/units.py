"""Storage units: one small interface (L{unitbase}) over the places of a node that give space.

Here are the directories of file disks, and the table that finds the class of a type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from .. import constants, errors, pathutils, runtime
from ..utils import io
from . import filepaths
from .lvmunits import PhysicalVolumeUnit, VolumeGroupUnit
from .unitbase import CheckFields, Row, StorageUnit

__all__ = ["FileStorageUnit", "GetStorage", "Row", "StorageUnit"]


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

    def __init__(self, paths: Sequence[str], *, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        super().__init__(rt=rt)
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
        CheckFields(self.type_name, fields, self._FIELDS)
        if name is not None and name not in self.paths:
            raise errors.StorageError(f"There is no storage unit {name!r} of type 'file'")
        try:
            return [
                [self._FIELDS[field](path) for field in fields]
                for path in ([name] if name is not None else self.paths)
            ]
        except OSError as err:
            raise errors.StorageError(f"Can't read file storage: {err}") from err


#: Type -> class.
_TYPES: Final[dict[str, Callable[..., StorageUnit]]] = {
    constants.ST_FILE: FileStorageUnit,
    constants.ST_LVM_PV: PhysicalVolumeUnit,
    constants.ST_LVM_VG: VolumeGroupUnit,
}


def GetStorage(
    type_name: str, args: Sequence[Any], rt: runtime.Runtime = runtime.DEFAULT
) -> StorageUnit:
    """The units of a type.

    @param args: what its class wants to know; for C{file} the list of directories, else nothing
    @raise errors.StorageError: there is no such type, or the arguments are not its own
    """
    if type_name not in _TYPES:
        raise errors.StorageError(
            f"Unknown storage type {type_name!r}; known are {', '.join(sorted(_TYPES))}"
        )
    try:
        return _TYPES[type_name](*args, rt=rt)
    except TypeError as err:
        raise errors.StorageError(f"Wrong arguments for storage type {type_name!r}: {err}") from err
