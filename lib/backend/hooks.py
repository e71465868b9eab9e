"""Running hook scripts on this node."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from .. import constants, pathutils
from ..utils import hooktime, process, text
from .base import Fail

HookResult = tuple[str, int, str]


class HooksRunner:
    """Runs the scripts of a hook directory.

    @ivar base_dir: where the directories are
    """

    def __init__(self, base_dir: str = pathutils.HOOKS_BASE_DIR) -> None:
        self.base_dir = base_dir

    def RunHooks(self, hpath: str, phase: str, env: Mapping[str, str]) -> list[HookResult]:
        """Run the scripts of a hook path and phase, in the order of their names.

        The scripts have exactly the given environment, an empty standard input and C{/} as their
        directory; all run even if one fails. One that takes longer than C{hooktime} allows is
        ended with all that it started, and has failed; so have those whose turn does not come
        before the time of the whole directory is over. Of endless output beginning and end are
        kept.

        @return: (script, status, printable output) each; C{constants.HKR_*}
        @raise RPCFail: the phase is unknown, or the path no name
        """
        if phase not in (constants.HOOKS_PHASE_PRE, constants.HOOKS_PHASE_POST):
            Fail(f"Unknown hooks phase {phase!r}")
        if not text.IsPluginName(hpath):
            Fail(f"Invalid hooks path {hpath!r}")
        subdir = f"{hpath}-{phase}.d"
        directory = os.path.join(self.base_dir, subdir)
        if not os.path.isdir(directory):
            # Most hook paths have no directory: nothing to say about it.
            return []
        timeout = hooktime.GetTimeout(env)
        limits = process.PartLimits(
            timeout=timeout,
            total=hooktime.GetDirectoryTimeout(timeout),
            max_output=constants.HOOKS_MAX_OUTPUT,
            variable=hooktime.VARIABLE if hooktime.VARIABLE in env else None,
        )
        results = []
        for name, status, result in process.RunParts(
            directory, env=env, reset_env=True, limits=limits
        ):
            script = f"{subdir}/{name}"
            code, output = _Judge(status, result, limits, subdir)
            if code == constants.HKR_FAIL:
                logging.warning("Hook script %s failed: %s", script, output or "(no output)")
            results.append((script, code, output))
        return results


def _Judge(
    status: int, result: process.RunResult | str | None, limits: process.PartLimits, subdir: str
) -> tuple[int, str]:
    """Status and printable output of a script; pure."""
    if status == constants.RUNPARTS_SKIP:
        return constants.HKR_SKIP, ""
    if not isinstance(result, process.RunResult):
        return constants.HKR_FAIL, text.SafeEncode(str(result))
    lines = [result.output.strip()]
    if result.timeout is not None:
        lines.append(_DescribeTimeout(result, limits, subdir))
    output = text.SafeEncode("\n".join(line for line in lines if line))
    return constants.HKR_FAIL if result.failed else constants.HKR_SUCCESS, output


def _DescribeTimeout(result: process.RunResult, limits: process.PartLimits, subdir: str) -> str:
    assert result.timeout is not None
    why = "time-out"
    if limits.timeout is not None and result.timeout < limits.timeout:
        why += f": all scripts of {subdir} together may take {limits.total:g} s"
    if result.lingering:
        return (
            f"the script was over (exit code {result.exit_code}), but a process that it started"
            f" kept its output open and was ended after {result.timeout:.0f} s ({why})"
        )
    return f"ended after {result.timeout:.0f} s ({why})"
