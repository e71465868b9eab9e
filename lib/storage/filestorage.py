"""Disks that are files: raw and sparse, below the file storage directories only."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, pathutils, runtime
from ..utils import io
from . import filepaths
from .base import BlockDev, Fail

_MEBIBYTE: Final = 1024 * 1024
#: Permissions of a new disk file.
FILE_MODE: Final = 0o600


class FileStorage(BlockDev):
    """A disk in a file.

    Its identity is (driver, path), the path being that of the configuration. The driver says how
    the hypervisor gets at it and is of no interest here. A file is active as soon as it exists:
    nothing has to be assembled or opened.
    """

    def _CheckIdentity(self) -> None:
        if self._children:
            raise errors.BlockDeviceError("A file disk has no children")
        self.driver, path = _ParseIdentity(self.unique_id)
        self._path = self.dev_path = pathutils.LocalPath(path)

    def Attach(self) -> bool:
        """Look whether the file exists."""
        self.attached = os.path.exists(self._path)
        return self.attached

    def Assemble(self) -> None:
        """Make sure that it exists, is a file and lies where disks may lie."""
        _Check(self._path)
        self._Stat()
        self.attached = True

    def Shutdown(self) -> None:
        """Nothing to do for a file."""

    def Open(self, force: bool = False) -> None:
        """Nothing to do for a file."""

    def Close(self) -> None:
        """Nothing to do for a file."""

    def Remove(self) -> None:
        """Delete the file; a missing one is fine."""
        _Check(self._path)
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as err:
            Fail(f"Can't remove file disk {self._path}: {err.strerror}")
        self.attached = False

    def Rename(self, new_id: Sequence[Any]) -> None:
        """Move the file to another path that must be free; the driver stays."""
        driver, new_path = _ParseIdentity(new_id)
        path = pathutils.LocalPath(new_path)
        if driver != self.driver:
            Fail(f"Can't change the driver of {self._path} from {self.driver} to {driver}")
        _Check(self._path)
        _Check(path)
        if os.path.lexists(path):
            Fail(f"Can't rename file disk {self._path}: {path} exists already")
        try:
            os.rename(self._path, path)
            for directory in {os.path.dirname(self._path), os.path.dirname(path)}:
                io.SyncDirectory(directory)
        except OSError as err:
            Fail(f"Can't rename file disk {self._path} to {path}: {err.strerror}")
        self.unique_id = (driver, new_path)
        self._path = self.dev_path = path

    def Grow(self, amount: int) -> None:
        """Make the file longer by that many MiB; what is added takes no space yet."""
        if amount <= 0:
            Fail(f"Can't grow file disk {self._path} by {amount} MiB: the amount must be positive")
        _Check(self._path)
        new_size = self._Stat().st_size + amount * _MEBIBYTE
        try:
            os.truncate(self._path, new_size)
        except (OSError, OverflowError) as err:
            Fail(f"Can't grow file disk {self._path} to {new_size} bytes: {err}")

    def GetActualSize(self) -> int:
        """Length of the file in bytes."""
        return self._Stat().st_size

    def _Stat(self) -> os.stat_result:
        try:
            result = os.stat(self._path)
        except OSError as err:
            Fail(f"File disk {self._path} is not usable: {err.strerror}")
        if not stat.S_ISREG(result.st_mode):
            Fail(f"File disk {self._path} is not a regular file")
        return result

    @classmethod
    def Create(
        cls,
        unique_id: Sequence[Any],
        children: Sequence[BlockDev | None],
        size: int,
        rt: runtime.Runtime = runtime.DEFAULT,
        params: Mapping[str, Any] | None = None,
    ) -> FileStorage:
        """Make a sparse file of that many MiB; one that exists is never touched."""
        if children:
            Fail("A file disk has no children")
        path = pathutils.LocalPath(_ParseIdentity(unique_id)[1])
        _Check(path)
        try:
            fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
            )
        except OSError as err:
            Fail(f"Can't create file disk {path}: {err.strerror}")
        try:
            os.ftruncate(fd, size * _MEBIBYTE)
            os.fsync(fd)
            io.SyncDirectory(os.path.dirname(path))
        except (OSError, OverflowError) as err:
            os.unlink(path)
            Fail(f"Can't create file disk {path} of {size} MiB: {err}")
        finally:
            os.close(fd)
        return cls(unique_id, children, size, rt)


def _Check(path: str) -> None:
    try:
        filepaths.CheckPath(path, filepaths.GetAllowedDirs())
    except errors.ConfigurationError as err:
        Fail(f"File disk {path} can't be checked: {err}")


def _ParseIdentity(unique_id: Sequence[Any]) -> tuple[str, str]:
    """Driver and path.

    @raise ValueError: it is not the identity of a file disk
    """
    if len(unique_id) != 2:
        raise ValueError(f"Invalid identity of a file disk: {unique_id!r}")
    driver, path = unique_id
    if driver not in constants.FILE_DRIVER:
        raise ValueError(f"Invalid driver of a file disk: {driver!r}")
    if not isinstance(path, str):
        raise ValueError(f"Invalid path of a file disk: {path!r}")
    return driver, path
