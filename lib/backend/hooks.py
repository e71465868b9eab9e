"""Running hook scripts on this node."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import constants, pathutils
from ..utils import process, text
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
        directory; all run even if one fails.

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
        results: list[HookResult] = []
        for name, status, result in process.RunParts(directory, env=env, reset_env=True):
            script = f"{subdir}/{name}"
            if status == constants.RUNPARTS_SKIP:
                results.append((script, constants.HKR_SKIP, ""))
            elif isinstance(result, process.RunResult):
                code = constants.HKR_FAIL if result.failed else constants.HKR_SUCCESS
                results.append((script, code, text.SafeEncode(result.output.strip())))
            else:
                results.append((script, constants.HKR_FAIL, text.SafeEncode(str(result))))
        return results
