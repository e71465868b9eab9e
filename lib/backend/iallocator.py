"""Running an allocator script for the master."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence

from .. import constants, errors, pathutils
from ..utils import io, process, text
from .base import Fail


def IAllocatorRunner(
    name: str,
    idata: str,
    search_path: Sequence[str] = tuple(pathutils.IALLOCATOR_SEARCH_PATH),
    timeout: float = constants.IALLOCATOR_TIMEOUT,
) -> str:
    """What an allocator script prints to its standard output.

    The script gets the path of a temporary file with its input, which only its own user can read,
    as its only argument. What it prints to its standard error is logged. If it takes too long, it
    is ended with all that it started.

    @param name: of the script
    @param idata: its input, JSON
    @param timeout: seconds
    @raise RPCFail: it is missing, can not be executed, failed, took too long, or printed too much
    """
    script = _Find(name, search_path)
    fd, path = tempfile.mkstemp(prefix="ganeti-iallocator.")
    try:
        try:
            io.WriteAll(fd, idata)
        finally:
            os.close(fd)
        result = process.RunCmd(
            [script, path], timeout=timeout, max_output=constants.IALLOCATOR_MAX_OUTPUT + 1
        )
    except (errors.OpExecError, OSError) as err:
        Fail(f"iallocator module '{name}' could not be run: {err}")
    finally:
        io.RemoveFile(path)
    if result.failed:
        # The end says most: there a script tells what it died of.
        output = text.SafeEncode(result.output.strip())[-constants.HOOKS_MAX_OUTPUT :]
        Fail(f"iallocator module '{name}' failed: {result.fail_reason}, output '{output}'")
    if len(result.stdout.encode("utf-8", "surrogateescape")) > constants.IALLOCATOR_MAX_OUTPUT:
        Fail(
            f"iallocator module '{name}' printed more than the"
            f" {constants.IALLOCATOR_MAX_OUTPUT >> 20} MiB that an answer may have"
        )
    if result.stderr.strip():
        said = text.SafeEncode(result.stderr.strip())[: constants.HOOKS_MAX_OUTPUT]
        logging.warning("iallocator module %s says: %s", name, said)
    return result.stdout


def _Find(name: str, search_path: Sequence[str]) -> str:
    """Path of a script: of the first one that can be executed."""
    script = io.FindFile(name, search_path, process.IsExecutable)
    if script is None:
        where = io.FindFile(name, search_path, os.path.isfile)
        if where is not None:
            Fail(f"iallocator module '{name}' can not be executed: see the mode of {where}")
        Fail(f"iallocator module '{name}' not found in {', '.join(search_path)}")
    return script
