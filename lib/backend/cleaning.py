"""Emptying the directories of a cluster's data."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from .. import pathutils
from ..utils import io
from .base import Fail

#: Directories that may be emptied, and no others.
_CLEANABLE: Final = frozenset(
    [pathutils.DATA_DIR, pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR]
)


def CleanDirectory(path: str, exclude: Sequence[str] = ()) -> None:
    """Delete the visible regular files directly in a directory of the cluster's data.

    @param exclude: full paths of files to keep
    @raise RPCFail: the directory is not one that may be emptied
    """
    if path not in _CLEANABLE:
        Fail(f"Directory {path!r} may not be emptied")
    if not os.path.isdir(path):
        return
    for name in io.ListVisibleFiles(path):
        full_name = io.PathJoin(path, name)
        if full_name not in exclude and stat.S_ISREG(os.lstat(full_name).st_mode):
            io.RemoveFile(full_name)
