"""Making this node the master, in the place of one that is to be relieved or that died.

Runs in the client on the new master and needs no master daemon. What can be refused is refused
before anything is changed: the votes of the other nodes, and how new their copies of the
configuration are, come with one round of node calls. From then on a note on disk
(L{FAILOVER_FILE}) says that the failover was begun, so that the next run finishes it.

Serial numbers keep the old master from doing harm should it still run somewhere out of reach: the
new one counts on from above everything that the nodes have, so what the old one sends is the older,
and is refused. It finds out by itself that it is deposed (L{voting.FindSuccessor}).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import config, constants, errors, pathutils, rpc, runtime, serializer, ssconf, ssh, voting
from .utils import net, process, retry, text

FeedbackFn = Callable[[str], object]

#: Says that a failover to this node was begun.
FAILOVER_FILE: Final = pathutils.DATA_DIR + "/masterfailover.json"
_KIND: Final = "masterfailover"

#: A master that can not be asked may have made that many changes that nobody else knows of.
UNSEEN_SERIALS: Final = 1000

#: Seconds; see L{retry.Delay}.
_IP_DELAY: Final = (1.0, 1.5, 5.0)
_IP_TIMEOUT: Final = 30.0
#: Seconds for the reading of another node's configuration.
_READ_TIMEOUT: Final = 20.0
#: Objects that are named when changes would be lost.
_MAX_NAMED: Final = 20


# Decisions


@dataclass(frozen=True)
class Answer:
    """What a node says of the cluster.

    @ivar problem: why it says nothing, None if it does
    @ivar master: who it thinks is the master
    @ivar config, ssconf: versions of its copies, None for those that it does not have
    """

    node: str
    problem: str | None
    master: str | None = None
    config: ssconf.Version | None = None
    ssconf: ssconf.Version | None = None


def ParseAnswer(node: str, result: Any) -> Answer:
    """What a node answered to C{master_info}."""
    if result.fail_msg:
        return Answer(node, str(result.fail_msg))
    master = voting.ParseAnswer(result)
    if master is None:
        return Answer(node, f"its answer makes no sense: {result.payload!r}")
    versions = [
        ssconf.ParseVersion(value) if isinstance(value, str) else None
        for value in [*result.payload, None, None][3:5]
    ]
    return Answer(node, None, master, *versions)


def CheckVotes(answers: Iterable[Answer], old_master: str, myself: str) -> None:
    """Do the other nodes agree with this one about the master that it is to follow?

    @raise errors.OpPrereqError: most do not answer, or name another master
    """
    # Who names this node was told by an earlier run that did not come to its end.
    votes = voting.CountVotes(
        old_master if answer.master == myself else answer.master
        for answer in answers
        if answer.node != myself
    )
    if not votes:
        return
    others = sum(count for _, count in votes)
    top, count = votes[0]
    hint = "if they are down for good, see --no-voting in gnt-cluster(8)"
    if top is None:
        raise errors.OpPrereqError(
            f"{count} of {others} other nodes do not answer, so it is not known who is the master;"
            f" {hint}",
            errors.ECODE_ENVIRON,
        )
    if top != old_master:
        raise errors.OpPrereqError(
            f"{count} of {others} other nodes say that {top} is the master, while this node says"
            f" {old_master}: what it knows of the cluster is out of date, choose another node",
            errors.ECODE_STATE,
        )
    if count < others - count:
        raise errors.OpPrereqError(
            f"Only {count} of {others} other nodes say that {old_master} is the master; half of"
            f" them must agree, or the new master would not start; {hint}",
            errors.ECODE_ENVIRON,
        )


def FindNewer(answers: Iterable[Answer], own: ssconf.Version) -> list[Answer]:
    """Those with a newer configuration of the same cluster than this node's, newest first."""
    newer = [
        answer
        for answer in answers
        if answer.config is not None
        and answer.config.uuid == own.uuid
        and answer.config.serial_no > own.serial_no
    ]
    return sorted(newer, key=_ConfigSerial, reverse=True)


def _ConfigSerial(answer: Answer) -> int:
    return 0 if answer.config is None else answer.config.serial_no


def FindSerials(answers: Iterable[Answer]) -> tuple[int, int]:
    """Serial numbers of configuration and cluster that some node may have, but none above."""
    known = list(answers)
    configs = [answer.config.serial_no for answer in known if answer.config]
    clusters = [answer.ssconf.serial_no for answer in known if answer.ssconf]
    unseen = UNSEEN_SERIALS if any(answer.problem for answer in known) else 0
    return max(configs, default=0) + unseen, max(clusters, default=0) + unseen


def DescribeVersion(version: ssconf.Version) -> str:
    """For people."""
    return f"{version.serial_no} of {text.FormatTime(version.mtime)}"


def DescribeLoss(own: Mapping[str, Any], newer: Mapping[str, Any]) -> list[str]:
    """Which objects a newer configuration has that, or as, this one has not; a line each.

    @param own, newer: plain documents
    """
    lines = []
    for kind, section in (("node", "nodes"), ("instance", "instances")):
        mine, theirs = own.get(section) or {}, newer.get(section) or {}
        for name in text.NiceSort({*mine, *theirs}):
            if name not in mine:
                lines.append(f"{kind} {name}, which was added")
            elif name not in theirs:
                lines.append(f"{kind} {name}, which was removed")
            elif mine[name] != theirs[name]:
                lines.append(f"{kind} {name}, which was modified")
    if _WithoutSerial(own.get("cluster")) != _WithoutSerial(newer.get("cluster")):
        lines.append("the cluster's parameters, which were modified")
    if len(lines) > _MAX_NAMED:
        more = len(lines) - _MAX_NAMED
        lines[_MAX_NAMED:] = [f"and {more} more"]
    return lines


def _WithoutSerial(cluster: Any) -> Any:
    if not isinstance(cluster, Mapping):
        return cluster
    return {key: value for key, value in cluster.items() if key not in ("serial_no", "mtime")}


# Effects


class _Failover:
    """One run.

    @ivar old_master: whom this node follows
    """

    def __init__(
        self, old_master: str, myself: str, feedback_fn: FeedbackFn, rt: runtime.Runtime
    ) -> None:
        self.old_master = old_master
        self.myself = myself
        self._feedback = feedback_fn
        self._rt = rt
        self._store = ssconf.SimpleStore(runtime=rt)

    def Ask(self) -> list[Answer]:
        """What all nodes say, this one first.

        @raise errors.OpPrereqError: this one's daemon does not answer
        """
        names = [self.myself, *(n for n in self._store.GetNodeList() if n != self.myself)]
        results = rpc.RpcRunner.call_master_info(names)
        answers = [ParseAnswer(name, results[name]) for name in names]
        if answers[0].problem is not None:
            raise errors.OpPrereqError(
                f"This node's daemon does not answer: {answers[0].problem}; it is started with"
                f" '{pathutils.DAEMON_UTIL} start {constants.NODED}'",
                errors.ECODE_ENVIRON,
            )
        for answer in answers:
            if answer.problem is not None:
                logging.warning("Node %s does not answer: %s", answer.node, answer.problem)
        return answers

    def CheckCopies(self, answers: Sequence[Answer], force: bool) -> None:
        """Has this node the newest configuration?

        @raise errors.OpPrereqError: it has none, or an older one, saying what would be lost
        """
        own = answers[0].config
        if own is None:
            raise errors.OpPrereqError(
                f"This node has no usable {pathutils.CLUSTER_CONF_FILE}, so it can not become the"
                " master; choose another master candidate",
                errors.ECODE_STATE,
            )
        newer = FindNewer(answers, own)
        if not newer:
            return
        best = newer[0]
        assert best.config is not None
        lines = [
            f"This node has configuration {DescribeVersion(own)}, but {best.node} has"
            f" {DescribeVersion(best.config)}.",
            *self._DescribeLoss(best.node),
        ]
        if force:
            for line in lines:
                self._feedback(f"Warning: {line}")
            return
        candidates = [
            answer.node
            for answer in newer
            if answer.node in self._store.GetMasterCandidates() and answer.node != self.old_master
        ]
        way = (
            f"run the command on {candidates[0]} instead"
            if candidates
            else f"start the daemons of {best.node}, from which this node gets the newer one"
        )
        raise errors.OpPrereqError(
            "\n".join([*lines, f"To keep it, {way}; to give it up, use --force."]),
            errors.ECODE_STATE,
        )

    def _DescribeLoss(self, node: str) -> list[str]:
        try:
            lines = DescribeLoss(self._ReadOwn(), self._ReadFrom(node))
        except (OSError, ValueError, errors.GenericError) as err:
            return [f"What would be lost can not be told: {errors.FormatError(err)}"]
        if not lines:
            return ["As far as nodes, instances and parameters go, they say the same."]
        return ["This would be lost:", *(f"  {line}" for line in lines)]

    def _ReadOwn(self) -> dict[str, Any]:
        return _LoadDocument(self._rt.files.read(pathutils.CLUSTER_CONF_FILE))

    def _ReadFrom(self, node: str) -> dict[str, Any]:
        path = pathutils.CLUSTER_CONF_FILE.removeprefix(pathutils.ROOTDIR)
        result = ssh.GetRunner(self._store.GetClusterName()).Run(
            # The variable is that of a virtual node, and nothing elsewhere.
            *(node, constants.GANETI_RUNAS, f'cat "${{GANETI_ROOTDIR:-}}"{text.ShellQuote(path)}'),
            timeout=_READ_TIMEOUT,
        )
        if result.failed:
            reason = result.output.strip() or result.fail_reason
            raise errors.OpExecError(f"{node} can not be asked by SSH: {reason}")
        return _LoadDocument(result.stdout.encode("utf-8", "surrogateescape"))

    def Note(self) -> None:
        """From now on this failover is to be finished."""
        note = {"kind": _KIND, "old_master": self.old_master, "new_master": self.myself}
        self._rt.files.write(FAILOVER_FILE, serializer.Dump(note).encode(), mode=0o600)

    def StopOldMaster(self) -> bool:
        """Stop the old master's daemons and take its address down; did it answer?"""
        self._feedback(f"Stopping the master daemons on {self.old_master}")
        result = rpc.RpcRunner.call_node_stop_master(self.old_master, True)
        if result.fail_msg:
            self._feedback(
                f"Warning: {self.old_master} does not answer ({result.fail_msg}). Should it still"
                " run, cut off from the network, it stops being the master when it comes back; what"
                " it did meanwhile is lost"
            )
            return False
        return True

    def StartOldMaster(self) -> None:
        """Take back L{StopOldMaster}."""
        result = rpc.RpcRunner.call_node_start_master(self.old_master, True, False)
        if result.fail_msg:
            self._feedback(
                f"Warning: could not start the master again on {self.old_master}: {result.fail_msg}"
            )

    def WaitForAddress(self) -> None:
        """Wait until nobody has the cluster's address."""
        address = self._store.GetMasterIP()
        if net.IsLoopback(address):
            # That of a virtual cluster is everybody's.
            return

        def _Ask() -> None:
            if net.TcpPing(address, constants.DEFAULT_NODED_PORT):
                raise retry.RetryAgain

        try:
            retry.Retry(
                _Ask,
                _IP_DELAY,
                _IP_TIMEOUT,
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        except retry.RetryTimeout:
            self._feedback(
                f"Warning: somebody still has the cluster's address {address}; going on all the"
                " same"
            )

    def TakeOver(self, answers: Sequence[Answer]) -> None:
        """Write down, and tell all nodes, that this one is the master."""
        self._feedback(f"Telling all nodes that {self.myself} is the master")
        cfg = config.ConfigWriter()
        cfg.TakeOver(
            self.myself,
            *FindSerials(answers),
            lambda problem: self._feedback(f"Warning: {problem}"),
        )

    def Start(self, no_voting: bool) -> None:
        """Start the daemons of the master here.

        @raise errors.OpExecError: they do not start
        """
        self._feedback(f"Starting the master daemons on {self.myself}")
        result = rpc.RpcRunner.call_node_start_master(self.myself, True, no_voting)
        if result.fail_msg:
            log = pathutils.DAEMONS_LOGFILES[constants.MASTERD]
            raise errors.OpExecError(
                f"{self.myself} is the master now, but its daemons could not be started:"
                f" {result.fail_msg}\nThe log is {log}; run 'gnt-cluster masterfailover' again to"
                " finish"
            )


def _LoadDocument(content: bytes) -> dict[str, Any]:
    document = serializer.Load(content)
    if not isinstance(document, dict):
        raise ValueError("the configuration is no JSON object")
    return document


def _ReadNote(rt: runtime.Runtime) -> dict[str, Any]:
    try:
        note = serializer.Load(rt.files.read(FAILOVER_FILE))
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("kind") == _KIND else {}


def FindOldMaster(rt: runtime.Runtime = runtime.DEFAULT) -> tuple[str, str]:
    """Whom this node would follow as the master, and its own name.

    @raise errors.OpPrereqError: this node is the master, or can not become it
    """
    store = ssconf.SimpleStore(runtime=rt)
    master, myself = ssconf.GetMasterAndMyself(store)
    runs = process.GetPidFileHolder(pathutils.DaemonPidFile(constants.MASTERD)) != 0
    if master == myself:
        note = _ReadNote(rt)
        if runs or note.get("new_master") != myself or not isinstance(note.get("old_master"), str):
            raise errors.OpPrereqError(
                "This command must be run on the node that shall become the new master;"
                f" {myself} is the master already",
                errors.ECODE_INVAL,
            )
        master = note["old_master"]
    elif runs:
        raise errors.OpPrereqError(
            f"The master daemon runs on this node, though {master} is the master; stop it with"
            f" '{pathutils.DAEMON_UTIL} stop-master'",
            errors.ECODE_STATE,
        )
    candidates = store.GetMasterCandidates()
    if myself not in candidates:
        others = [name for name in candidates if name != master]
        listed = "\n".join(others) or "(none)"
        raise errors.OpPrereqError(
            f"This node, {myself}, is no master candidate, so it has no copy of the configuration"
            f" and of the job queue. Candidates besides {master} are:\n{listed}",
            errors.ECODE_STATE,
        )
    return master, myself


def MasterFailover(
    no_voting: bool = False,
    force: bool = False,
    feedback_fn: FeedbackFn = logging.info,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Make this node the master. L{rpc.Init} must have been called.

    @param no_voting: do not ask for the agreement of the other nodes
    @param force: even if another node has a newer configuration
    @param feedback_fn: gets what is done, and what went wrong, in lines for people
    @raise errors.OpPrereqError: refused; nothing was changed
    @raise errors.OpExecError: not finished; the next run finishes it
    """
    run = _Failover(*FindOldMaster(rt), feedback_fn, rt)
    answers = run.Ask()
    if not no_voting:
        CheckVotes(answers, run.old_master, run.myself)
    run.CheckCopies(answers, force)
    run.Note()
    stopped = run.StopOldMaster()
    if stopped:
        # It may have changed something since it was asked.
        answers = run.Ask()
        try:
            run.CheckCopies(answers, force)
        except errors.OpPrereqError:
            rt.files.remove(FAILOVER_FILE)
            run.StartOldMaster()
            raise
    run.WaitForAddress()
    run.TakeOver(answers)
    run.Start(no_voting)
    rt.files.remove(FAILOVER_FILE)
    feedback_fn(
        f"{run.myself} is the master. Jobs that {run.old_master} was running end with an error;"
        " those that waited are run"
    )
    if not stopped:
        feedback_fn(
            f"If {run.old_master} is down for longer: gnt-node modify --offline yes"
            f" {run.old_master}"
        )
