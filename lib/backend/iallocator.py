"""Running an allocator script for the master."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from .. import errors, pathutils, runtime
from ..utils import io
from .base import Fail


def IAllocatorRunner(
    name: str,
    idata: str,
    search_path: Sequence[str] = tuple(pathutils.IALLOCATOR_SEARCH_PATH),
    rt: runtime.Runtime = runtime.DEFAULT,
) -> str:
    """What an allocator script answers.

    The script gets the path of a temporary file with its input as its only argument.

    @param name: of the script
    @param idata: its input, JSON
    @raise RPCFail: it is missing, or failed
    """
    script = io.FindFile(name, search_path, os.path.isfile)
    if script is None:
        Fail(f"iallocator module '{name}' not found in {', '.join(search_path)}")
    fd, path = tempfile.mkstemp(prefix="ganeti-iallocator.")
    try:
        try:
            io.WriteAll(fd, idata)
        finally:
            os.close(fd)
        result = rt.processes.run([script, path])
    except (errors.OpExecError, OSError) as err:
        Fail(f"iallocator module '{name}' could not be run: {err}")
    finally:
        io.RemoveFile(path)
    if result.failed:
        Fail(
            f"iallocator module '{name}' failed: {result.fail_reason},"
            f" output '{result.output.strip()}'"
        )
    return result.stdout
