"""Dry runs: what a unit is given while it only checks, and the report of what it would do.

A unit in a dry run gets a context through which nothing can be changed: calls to nodes that do more
than look, changes of the configuration and of the set of locks are mistakes in the unit, and fail
it. Reservations are let through, as they end with the job. Whom it asked is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from .. import constants, errors, locking, rpc_defs
from ..config.reader import ConfigReader
from ..utils import text
from . import announce

if TYPE_CHECKING:
    from .. import config, hooksmaster, objects, rpc, runtime
    from . import base

_CALLS: Final = {call.method: call for call in rpc_defs.CALLS.values()}

#: What may be used of a configuration: all that only reads, and reservations, which the job drops
#: whatever happens. Not those of ports and of DRBD minors: nobody would give these back.
_OF_CONFIG: Final = frozenset(
    [
        *(name for name in vars(ConfigReader) if not name.startswith("_")),
        "ComputeDRBDMap",
        "GenerateDRBDSecret",
        "GenerateMAC",
        "GenerateUniqueID",
        "GetStatistics",
        "ReserveLV",
        "ReserveMAC",
        "history",
        "write_count",
    ]
)
#: What may be used of the lock manager; the processor does the rest.
_OF_LOCKS: Final = frozenset(["GetLockInfo", "is_owned", "release"])

#: Lines of changes that are shown.
_MAX_CHANGES: Final = 30


def _Refuse(unit: str, what: str) -> NoReturn:
    raise errors.ProgrammerError(f"{unit} wants {what} in a dry run, which must change nothing")


class _View:
    """An object of which only some attributes can be reached."""

    def __init__(self, target: Any, what: str, unit: str, allowed: Container[str]) -> None:
        self._target = target
        self._what = what
        self._unit = unit
        self._allowed = allowed

    def __getattr__(self, name: str) -> Any:
        if name not in self._allowed:
            _Refuse(self._unit, f"{self._what}.{name}")
        return getattr(self._target, name)


class RecordingRpc:
    """A runner that makes only calls that look, and knows whom it asked for what.

    @ivar asked: node -> names of calls, in order; not of nodes that are marked offline
    """

    def __init__(self, runner: rpc.RpcRunner, unit: str) -> None:
        self._runner = runner
        self._unit = unit
        self.asked: dict[str, list[str]] = {}

    def __getattr__(self, name: str) -> Any:
        call = _CALLS.get(name)
        if call is None:
            return getattr(self._runner, name)
        if not call.read_only:
            _Refuse(self._unit, f"the node call '{call.name}'")
        return self._Record(call, getattr(self._runner, name))

    def _Record(self, call: rpc_defs.Call, method: Callable[..., Any]) -> Callable[..., Any]:
        def Ask(where: Any, *args: Any, **kwargs: Any) -> Any:
            answer = method(where, *args, **kwargs)
            results = answer if call.kind == rpc_defs.MULTI else {where: answer}
            for node, result in results.items():
                calls = self.asked.setdefault(node, []) if not result.offline else []
                if call.name not in calls:
                    calls.append(call.name)
            return answer

        return Ask


class CheckingContext:
    """The context of a unit that only checks; see the module.

    @ivar recorder: makes the unit's calls
    """

    def __init__(self, context: base.Context, unit: str) -> None:
        """@param unit: name of the unit, for messages"""
        self._unit = unit
        self._cfg = _View(context.cfg, "the configuration's", unit, _OF_CONFIG)
        self._glm = _View(context.glm, "the lock manager's", unit, _OF_LOCKS)
        self._runtime = context.runtime
        self.recorder = RecordingRpc(context.rpc, unit)

    @property
    def cfg(self) -> config.ConfigWriter:
        """The configuration, to look at."""
        return cast("config.ConfigWriter", self._cfg)

    @property
    def glm(self) -> locking.GanetiLockManager:
        """The locks, to look at and to give back."""
        return cast("locking.GanetiLockManager", self._glm)

    @property
    def jobqueue(self) -> Any:
        """Nothing of it is of any use to a check."""
        _Refuse(self._unit, "the job queue")

    @property
    def rpc(self) -> rpc.RpcRunner:
        """Calls that look."""
        return cast("rpc.RpcRunner", self.recorder)

    @property
    def runtime(self) -> runtime.Runtime:
        """The outside world."""
        return self._runtime

    def AddNode(self, node: objects.Node, ec_id: str | None) -> None:
        """Refused."""
        _Refuse(self._unit, "AddNode()")

    def ReaddNode(self, node: objects.Node) -> None:
        """Refused."""
        _Refuse(self._unit, "ReaddNode()")

    def RemoveNode(self, name: str) -> None:
        """Refused."""
        _Refuse(self._unit, "RemoveNode()")


# The report


def DescribeLocks(lu: base.LogicalUnit) -> str:
    """The locks that a unit holds, as it has told the processor that it needs them; pure."""
    found = ["the whole cluster (exclusive)"] if lu.REQ_BGL else []
    for level in (locking.LEVEL_INSTANCE, locking.LEVEL_NODE):
        names = lu.acquired_locks.get(level)
        if not names:
            continue
        kind = locking.LEVEL_NAMES[level]
        if level in lu.add_locks:
            what = f"new {kind} {announce.FormatNames(names)}"
        elif (lu.needed_locks or {}).get(level, ()) is locking.ALL_SET:
            only = f"{kind} {announce.FormatNames(names)}, the only one"
            what = only if len(names) == 1 else f"all {len(names)} {kind}s"
        else:
            what = f"{kind} {announce.FormatNames(names)}"
        found.append(f"{what} ({'shared' if lu.share_locks[level] else 'exclusive'})")
    return ", ".join(found) or "none"


def DescribeAsked(asked: Mapping[str, Collection[str]]) -> str:
    """Which nodes were asked for what; those asked for the same stand together; pure."""
    groups: dict[str, list[str]] = {}
    for node, calls in asked.items():
        groups.setdefault(", ".join(calls), []).append(node)
    return (
        "; ".join(f"{announce.FormatNames(nodes)} ({calls})" for calls, nodes in groups.items())
        or "none"
    )


def DescribeHooksRun(hpath: str | None, results: Mapping[str, rpc.RpcResult] | None) -> str:
    """Where the pre hooks ran, and how many scripts there were; empty if they did not; pure.

    @param results: answers of the nodes; None if none was asked
    """
    if hpath is None or not results:
        return ""
    scripts = 0
    ran, silent = [], []
    for node, result in results.items():
        if result.fail_msg is None:
            ran.append(node)
            scripts += sum(status != constants.HKR_SKIP for _, status, _ in result.payload)
        elif not result.offline:
            silent.append(node)
    found = []
    if ran:
        number = "no scripts" if not scripts else f"{scripts} script{'s' * (scripts > 1)}"
        found.append(f"{hpath} pre on {announce.FormatNames(ran)} ({number})")
    if silent:
        found.append(f"not on {announce.FormatNames(silent)}, which did not answer")
    return "; ".join(found)


def DescribeHooksToCome(
    hpath: str | None, post_nodes: Collection[str], master: str, writes: bool
) -> str:
    """Which hooks a real run would run after its work; empty if there are none; pure.

    @param writes: would the configuration be changed?
    """
    found = []
    if hpath is not None and post_nodes:
        found.append(f"{hpath} post on {announce.FormatNames(post_nodes)}")
    if writes:
        found.append(f"{constants.HOOKS_NAME_CFGUPDATE} post on {master}")
    return "; ".join(found)


def FindSilent(context: base.Context, nodes: Collection[str]) -> dict[str, str]:
    """Which of these nodes do not answer now, and why; those not in the configuration are left out.

    Many checks ask nobody. Who wants to know what would happen wants to know this.
    """
    known = context.cfg.GetAllNodesInfo()
    silent = {name: "marked offline" for name in nodes if name in known and known[name].offline}
    online = text.NiceSort(name for name in nodes if name in known and name not in silent)
    if online:
        addresses = [known[name].primary_ip for name in online]
        results = context.rpc.call_version(online, address_list=addresses)
        silent.update((name, res.fail_msg) for name, res in results.items() if res.fail_msg)
    return silent


def FormatReport(
    lu: base.LogicalUnit,
    hooks: hooksmaster.HooksMaster,
    pre_results: Mapping[str, rpc.RpcResult] | None,
) -> list[str]:
    """The report of a dry run whose checks passed and whose pre hooks agreed."""
    context = lu.context
    announced = lu.DescribeChanges()
    writes = any(change.target is not None for change in announced)
    asked = context.recorder.asked if isinstance(context, CheckingContext) else {}
    post_nodes = hooks.GetNodes(constants.HOOKS_PHASE_POST)
    ran = DescribeHooksRun(lu.HPATH, pre_results)
    to_come = DescribeHooksToCome(lu.HPATH, post_nodes, lu.cfg.GetMasterNode(), writes)
    lines = [
        f"Dry run of OP_{lu.op.Summary()}: all checks passed, nothing was changed",
        f"  locks: {DescribeLocks(lu)}",
        f"  nodes asked while checking: {DescribeAsked(asked)}",
    ]
    if not ran and not to_come:
        lines.append("  hooks: none")
    else:
        lines.append(f"  hooks that ran: {ran or 'none'}")
        lines.append(f"  hooks that would run after it: {to_come or 'none'}")
    lines += [f"  could not be checked: {what}" for what in lu.unchecked]
    silent = FindSilent(context, {node for change in announced for node in change.nodes})
    lines += [f"  does not answer now: {node} ({why})" for node, why in silent.items()]
    if not announced:
        why = ": it only looks" if lu.LOOKS_ONLY else ""
        return [*lines, f"  would change: nothing{why}"]
    shown = announced if len(announced) <= _MAX_CHANGES else announced[: _MAX_CHANGES - 1]
    lines += ["  would change:", *(f"    {change}" for change in shown)]
    if len(shown) < len(announced):
        lines.append(f"    and {len(announced) - len(shown)} more")
    return lines
