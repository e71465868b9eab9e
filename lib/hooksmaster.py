"""Hooks around the work of a logical unit: environment, phases, what their results mean.

The environment and the node lists are computed once, after the prerequisites were checked, and
serve all phases: the values describe the state before the operation. Design: hooks interface,
version 2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from . import constants, errors, pathutils
from .utils import hooktime, text

if TYPE_CHECKING:
    from . import rpc
    from .cmdlib import base

#: Runs the hooks of a path in a phase on nodes: C{rpc.RpcRunner.call_hooks_runner}.
CallFn = Callable[[Sequence[str], str, str, Mapping[str, str]], "Mapping[str, rpc.RpcResult]"]

_PREFIX: Final = "GANETI_"
_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin"


class HooksMaster:
    """Runs the hooks of one logical unit whose prerequisites were checked.

    @param call_function: runs hooks on nodes
    @param lu: the unit; it is asked for its environment here and not again
    @param timeout_fn: seconds that a script may take; asked whenever hooks run
    """

    def __init__(
        self,
        call_function: CallFn,
        lu: base.LogicalUnit,
        timeout_fn: Callable[[], int] = hooktime.ReadTimeout,
    ) -> None:
        self._call = call_function
        self._timeout_fn = timeout_fn
        self._lu = lu
        env: Mapping[str, Any] = {}
        pre_nodes: Sequence[str] = ()
        post_nodes: Sequence[str] = ()
        if lu.HPATH is not None:
            env, pre_nodes, post_nodes = lu.BuildHooksEnv()
        self._env = self._BuildEnv(env)
        self._nodes = {
            constants.HOOKS_PHASE_PRE: frozenset(pre_nodes),
            constants.HOOKS_PHASE_POST: frozenset(post_nodes),
        }

    def GetNodes(self, phase: str) -> frozenset[str]:
        """The nodes that run the unit's hooks of a phase; none if it has no hooks."""
        return self._nodes[phase]

    def _BuildEnv(self, own: Mapping[str, Any]) -> dict[str, str]:
        """All that is the same for every phase; values are texts the Python way."""
        env = {
            "PATH": _PATH,
            f"{_PREFIX}HOOKS_VERSION": constants.HOOKS_VERSION,
            f"{_PREFIX}OP_CODE": self._lu.op.OP_ID,
            f"{_PREFIX}OBJECT_TYPE": self._lu.HTYPE,
            f"{_PREFIX}DATA_DIR": pathutils.DATA_DIR,
        }
        env.update((f"{_PREFIX}{key}", value) for key, value in own.items())
        return {key: str(value) for key, value in env.items()}

    def _Run(self, nodes: Collection[str], hpath: str, phase: str) -> Mapping[str, rpc.RpcResult]:
        env = dict(self._env)
        env[f"{_PREFIX}HOOKS_PHASE"] = phase
        env[f"{_PREFIX}HOOKS_PATH"] = hpath
        timeout = self._timeout_fn()
        env[hooktime.VARIABLE] = str(timeout)
        cfg = self._lu.cfg
        if cfg is not None:
            env[f"{_PREFIX}CLUSTER"] = cfg.GetClusterName()
            env[f"{_PREFIX}MASTER"] = cfg.GetMasterNode()
        names = text.NiceSort(nodes)
        report = self._lu.proc.ReportStep
        report(
            f"running {phase} hooks of {hpath} on {text.CommaJoin(names)}"
            f" (each script may take {timeout} s)"
        )
        try:
            return self._call(names, hpath, phase, env)
        finally:
            report(None)

    def RunPhase(
        self, phase: str, nodes: Collection[str] | None = None
    ) -> Mapping[str, rpc.RpcResult] | None:
        """Run the hooks of a phase on all its nodes.

        @param phase: C{constants.HOOKS_PHASE_PRE} or C{HOOKS_PHASE_POST}
        @param nodes: instead of the unit's own
        @return: the answers by node; None if there was no node to ask
        @raise errors.HooksFailure: pre phase: nobody could be asked at all
        @raise errors.HooksAbort: pre phase: scripts failed; its argument is the list of (node,
            script, output)
        """
        wanted = nodes if nodes is not None else self._nodes[phase]
        hpath = self._lu.HPATH
        if not wanted or hpath is None:
            return None
        pre = phase == constants.HOOKS_PHASE_PRE
        results = self._Run(wanted, hpath, phase)
        if not results:
            message = f"Communication Failure: no node ran the {phase} hooks of {hpath}"
            if pre:
                raise errors.HooksFailure(message)
            self._lu.LogWarning(message)
            return results
        refused = []
        for node in text.NiceSort(results):
            for script, output in self._CheckNode(node, results[node]):
                if pre:
                    refused.append((node, script, output))
                else:
                    self._WarnOfScript(node, script, output)
        if refused:
            raise errors.HooksAbort(refused)
        return results

    def _WarnOfScript(self, node: str, script: str, output: str) -> None:
        self._lu.LogWarning(
            "On %s script %s failed, output: %s", node, script, output or "(no output)"
        )

    def _CheckNode(self, node: str, result: rpc.RpcResult) -> list[tuple[str, str]]:
        """The scripts that failed on a node, with their output."""
        if result.offline:
            return []
        if result.fail_msg:
            self._lu.LogWarning("Communication failure to node %s: %s", node, result.fail_msg)
            return []
        return _FindFailed(result)

    def RunConfigUpdate(self) -> None:
        """Tell the scripts of the master that the configuration was written.

        What fails changes nothing, and is warned of: a script that hangs holds up every operation.
        """
        master = self._lu.cfg.GetMasterNode()
        hpath = constants.HOOKS_NAME_CFGUPDATE
        results = self._Run([master], hpath, constants.HOOKS_PHASE_POST)
        for node, result in results.items():
            if result.fail_msg:
                logging.warning("Hooks of %s on %s: %s", hpath, node, result.fail_msg)
                continue
            for script, output in _FindFailed(result):
                self._WarnOfScript(node, script, output)


def _FindFailed(result: rpc.RpcResult) -> list[tuple[str, str]]:
    """The scripts that failed, with their output, of the answer of a node; pure."""
    return [
        (script, output)
        for script, status, output in result.payload
        if status == constants.HKR_FAIL
    ]
