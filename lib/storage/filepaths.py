"""Which paths may hold file disks.

Everything that makes, changes or removes a file disk or its directory asks here first. Allowed is
what lies below one of the cluster's file storage directories, the nodes' own or the one they share,
or below a directory that the administrator of this node lists in
C{<sysconfdir>/ganeti/file-storage-paths} (one absolute path a line, C{#} begins a comment). Places
of the operating system are refused even then.

Paths are compared by their parts, after symbolic links were followed: neither C{..}, nor a
neighbour whose name merely begins alike, nor a link leads out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from .. import errors, pathutils, ssconf
from ..utils import io

FILE_STORAGE_PATHS_FILE: Final = pathutils.CONF_DIR + "/file-storage-paths"

#: Never used for disks, whoever asks; relative to the root directory of the node.
_FORBIDDEN: Final = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)


def IsBelow(path: str, directory: str) -> bool:
    """Does the path lie in the directory, at any depth? Both absolute; text only."""
    return path != directory and os.path.commonpath([path, directory]) == directory


def IsForbidden(directory: str, rootdir: str = pathutils.ROOTDIR) -> bool:
    """May this directory hold no disks at all? The root of a virtual node counts as C{/}."""
    if rootdir:
        directory = (
            "/" + os.path.relpath(directory, rootdir)
            if (directory == rootdir or IsBelow(directory, rootdir))
            else directory
        )
        directory = os.path.normpath(directory)
    return directory == "/" or any(
        directory == bad or IsBelow(directory, bad) for bad in _FORBIDDEN
    )


def ParsePaths(text: str) -> list[str]:
    """Directories listed in a file: absolute ones, one a line; the rest is ignored."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [os.path.normpath(line) for line in lines if os.path.isabs(line)]


def GetAllowedDirs(store: ssconf.SimpleStore | None = None) -> list[str]:
    """Directories below which disks may lie, the cluster's own first.

    @raise errors.ConfigurationError: this node does not know its cluster's directory
    """
    store = store or ssconf.SimpleStore()
    bases = (store.GetFileStorageDir(), store.GetSharedFileStorageDir())
    allowed = [path for path in bases if path]
    with contextlib.suppress(FileNotFoundError):
        allowed.extend(ParsePaths(io.ReadFile(FILE_STORAGE_PATHS_FILE)))
    rootdir = os.path.realpath(pathutils.ROOTDIR) if pathutils.ROOTDIR else ""
    local = [os.path.normpath(pathutils.LocalPath(path)) for path in allowed]
    return [path for path in local if not IsForbidden(os.path.realpath(path), rootdir)]


def CheckPath(path: str, allowed: Sequence[str]) -> str:
    """The path on this node in its normal form, if it may be used.

    @param path: as the configuration has it, see L{pathutils.LocalPath}
    @param allowed: see L{GetAllowedDirs}
    @raise errors.BlockDeviceError: it lies elsewhere
    """
    local = pathutils.LocalPath(path)
    problem = PathProblem(local, allowed)
    if problem is not None:
        raise errors.BlockDeviceError(problem)
    return os.path.normpath(local)


def PathProblem(path: str, allowed: Sequence[str]) -> str | None:
    """Why a path of this node must not be used for file storage; None if it may."""
    if "\0" in path or not os.path.isabs(path):
        return f"File storage path {path!r} is not an absolute path"
    if not allowed:
        return f"File storage path {path!r} is refused: this cluster has no file storage directory"
    normal = os.path.normpath(path)
    real = os.path.realpath(normal)
    for directory in allowed:
        # The text first: a link inside must not lead from one allowed directory to another by
        # accident, so both the name and the place have to be right.
        if IsBelow(normal, directory) and IsBelow(real, os.path.realpath(directory)):
            return None
    return (
        f"File storage path {path!r} is not below an allowed directory"
        f" ({', '.join(allowed)}); others can be allowed in {FILE_STORAGE_PATHS_FILE}"
    )
