"""Directories of instances whose disks are files."""

from __future__ import annotations

import os

from .. import constants, errors
from ..storage import filepaths
from ..utils import io
from .base import Fail

_DIR_MODE = 0o750


def _Check(path: str) -> str:
    """The path on this node, if disks may lie there.

    @raise RPCFail: they may not
    """
    if not constants.ENABLE_FILE_STORAGE:
        Fail("File storage was disabled when this suite was built")
    try:
        return filepaths.CheckPath(path, filepaths.GetAllowedDirs())
    except (errors.BlockDeviceError, errors.ConfigurationError) as err:
        Fail(str(err))


def CreateFileStorageDir(path: str) -> None:
    """Make a directory; one that exists is fine.

    @raise RPCFail: the path is not allowed, taken by something else, or can not be made
    """
    directory = _Check(path)
    if os.path.isdir(directory):
        return
    if os.path.lexists(directory):
        Fail(f"Can't create directory {directory}: there is something else of that name")
    try:
        os.makedirs(directory, _DIR_MODE, exist_ok=True)
        io.SyncDirectory(os.path.dirname(directory))
    except OSError as err:
        Fail(f"Can't create directory {directory}: {err.strerror}")


def RemoveFileStorageDir(path: str) -> None:
    """Remove an empty directory; a missing one is fine.

    @raise RPCFail: the path is not allowed, or is not that of an empty directory
    """
    directory = _Check(path)
    if not os.path.lexists(directory):
        return
    if not os.path.isdir(directory):
        Fail(f"Can't remove directory {directory}: it is not a directory")
    try:
        os.rmdir(directory)
    except OSError as err:
        Fail(f"Can't remove directory {directory}: {err.strerror}")


def RenameFileStorageDir(old_path: str, new_path: str) -> None:
    """Rename a directory; fine if that was done already.

    @raise RPCFail: a path is not allowed, there is no such directory, or the target exists
    """
    old = _Check(old_path)
    new = _Check(new_path)
    if os.path.lexists(new):
        if os.path.lexists(old):
            Fail(f"Can't rename directory {old} to {new}: both exist")
        return
    if not os.path.isdir(old):
        Fail(f"Can't rename directory {old}: it is not a directory")
    try:
        os.rename(old, new)
        io.SyncDirectory(os.path.dirname(new))
    except OSError as err:
        Fail(f"Can't rename directory {old} to {new}: {err.strerror}")
