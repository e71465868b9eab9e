"""New certificates and keys for a running cluster.

All nodes hold the same three secrets; a node with another node certificate can not be called. So
the new ones are made in a directory of their own (L{STAGING_DIR}) with a plan beside them, and from
the moment that the plan is on disk they are what every node is to get: a run that was interrupted,
at whatever point, is finished by the next one with the same files. They are brought to the nodes by
SSH, which needs none of them, and by the program that also sets up new nodes (L{tools.node_setup}).

The order: the master daemons stop, so that nothing is called; the other nodes get the files, all at
once, and restart their daemons; then the master node does; its daemons start, and all nodes are
called. A node that could not be reached stays in the plan, and the next run without options brings
it back; so does C{gnt-node add --readd}. Instances are nothing to any of these daemons' restarts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Final

from . import (
    config,
    constants,
    errors,
    luxi,
    objects,
    pathutils,
    rpc,
    runtime,
    serializer,
    ssconf,
    ssh,
    voting,
)
from .tools import node_setup
from .utils import filelock, io, process, retry, text, x509
from .utils.uuid import GenerateSecret

FeedbackFn = Callable[[str], object]

STAGING_DIR: Final = pathutils.DATA_DIR + "/renew-crypto"
PLAN_FILE: Final = STAGING_DIR + "/plan.json"
_LOCK_FILE: Final = STAGING_DIR + "/lock"

#: Names of the files, as L{node_setup.FILES} has them.
SERVER_CERT: Final = "server.pem"
RAPI_CERT: Final = "rapi.pem"
CONFD_KEY: Final = "hmac.key"

#: What they are to people.
_TITLES: Final = {
    SERVER_CERT: "the certificate of the node daemons",
    RAPI_CERT: "the certificate of RAPI",
    CONFD_KEY: "the key of confd",
}

#: Nodes that are served at once.
_PARALLEL: Final = 16
#: Seconds: for finding out whether a node can be reached, for serving it, for its daemon to answer.
_PROBE_TIMEOUT: Final = 20.0
_SETUP_TIMEOUT: Final = 120.0
_ANSWER_TIMEOUT: Final = 10.0
_ANSWER_DELAY: Final = 0.2
#: Seconds to wait for a watcher that is at work.
_WATCHER_TIMEOUT: Final = 60.0


# Decisions


@dataclass(frozen=True)
class Wishes:
    """What is to be made anew.

    @ivar rapi_cert_pem: use this key and certificate for RAPI
    """

    cluster_cert: bool = False
    rapi_cert: bool = False
    confd_hmac_key: bool = False
    rapi_cert_pem: str | None = None

    def GetNames(self) -> set[str]:
        """Names of the files."""
        wanted = {
            SERVER_CERT: self.cluster_cert,
            RAPI_CERT: self.rapi_cert or self.rapi_cert_pem is not None,
            CONFD_KEY: self.confd_hmac_key,
        }
        return {name for name, value in wanted.items() if value}


@dataclass(frozen=True)
class Plan:
    """A renewal on its way.

    @ivar changed: names of the files that are new
    @ivar installed: do the daemons of the master node have them?
    @ivar pending: names of the nodes that may not have them
    """

    changed: frozenset[str]
    pending: frozenset[str]
    installed: bool = False

    def Dump(self) -> str:
        """For L{ParsePlan}."""
        plain = {
            "changed": sorted(self.changed),
            "pending": sorted(self.pending),
            "installed": self.installed,
        }
        return serializer.Dump(plain)


def ParsePlan(content: str | bytes) -> Plan | None:
    """The plan in a file; None if there is none in it."""
    try:
        plain = serializer.Load(content)
        return Plan(
            frozenset(plain["changed"]), frozenset(plain["pending"]), plain["installed"] is True
        )
    except (ValueError, TypeError, KeyError):
        return None


def DescribeFiles(names: Collection[str]) -> str:
    """For people."""
    return text.CommaJoin([_TITLES[name] for name in _TITLES if name in names]) or "nothing new"


def IsResumed(plan: Plan | None, wishes: Wishes, staged_rapi_cert: str | None) -> bool:
    """Does this run finish an earlier one?

    @param plan: that of the earlier one
    @param staged_rapi_cert: what that one is to install for RAPI
    @raise errors.OpPrereqError: it has to be finished, but something else is wanted
    """
    names = wishes.GetNames()
    if plan is None or (plan.installed and names):
        return False
    pem = wishes.rapi_cert_pem
    other_cert = pem is not None and pem.rstrip() != (staged_rapi_cert or "").rstrip()
    if names - plan.changed or other_cert:
        raise errors.OpPrereqError(
            f"An earlier renewal, of {DescribeFiles(plan.changed)}, was interrupted; finish it"
            " first, with 'gnt-cluster renew-crypto' without options",
            errors.ECODE_STATE,
        )
    return True


def CheckRapiPem(pem: str, path: str) -> None:
    """Can this be the certificate of RAPI?

    @raise errors.OpPrereqError: no
    """
    try:
        x509.CheckPem(pem)
    except errors.GenericError as err:
        raise errors.OpPrereqError(
            f"{path} can not be the certificate of RAPI: {errors.FormatError(err)}",
            errors.ECODE_INVAL,
        ) from err


@dataclass(frozen=True)
class Preview:
    """What a run is about to do, for the question whether it should.

    @ivar plan: of an earlier run, which this one finishes
    @ivar nodes: the online nodes besides the master
    @ivar unreachable: those of them that can not be reached, and why
    @ivar offline: nodes marked offline, which are left alone
    @ivar jobs: ids of the running jobs
    """

    plan: Plan | None
    nodes: Sequence[str]
    unreachable: Mapping[str, str] = field(default_factory=dict)
    offline: Sequence[str] = ()
    jobs: Sequence[str] = ()

    def Describe(self) -> list[str]:
        """Lines for people, who have not seen the plan."""
        lines = []
        if self.plan is not None:
            lines.append(
                f"An earlier renewal of {DescribeFiles(self.plan.changed)} is finished by this run."
            )
        for name, problem in sorted(self.unreachable.items()):
            lines.append(
                f"Node {name} can not be reached ({problem}). It gets the files when this command"
                " is run again, without options, once it is back."
            )
        if self.offline:
            lines.append(
                f"Offline nodes get the files when they are re-added: {', '.join(self.offline)}."
            )
        if self.jobs:
            lines.append(
                f"Running jobs end with an error unless they are done within half a minute:"
                f" {', '.join(self.jobs)}."
            )
        return lines


# Effects


def _Map(fn: Callable[[str], str | None], names: Iterable[str]) -> dict[str, str]:
    """Call a function for all names at once: name -> what went wrong, if anything."""
    listed = list(names)
    if not listed:
        return {}
    with futures.ThreadPoolExecutor(min(_PARALLEL, len(listed)), "Renew") as pool:
        problems = dict(zip(listed, pool.map(fn, listed), strict=True))
    return {name: problem for name, problem in problems.items() if problem is not None}


class Renewal:
    """One run, on the master node. L{rpc.Init} must have been called.

    @ivar plan: None until there is one on disk
    """

    def __init__(
        self,
        wishes: Wishes,
        feedback_fn: FeedbackFn = logging.info,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self._wishes = wishes
        self._feedback = feedback_fn
        self._rt = rt
        master, self._myself = ssconf.GetMasterAndMyself()
        if master != self._myself:
            raise errors.OpPrereqError(
                f"This command must be run on the master, which is {master}", errors.ECODE_STATE
            )
        cfg = config.ConfigWriter(offline=True)
        self._cluster: objects.Cluster = cfg.GetClusterInfo()
        infos = [cfg.GetNodeInfo(name) for name in cfg.GetNodeList()]
        nodes = [node for node in infos if node is not None and node.name != self._myself]
        self._all = {node.name for node in nodes}
        self._online = [node.name for node in nodes if not node.offline]
        self._offline = [node.name for node in nodes if node.offline]
        self._address = next(n.primary_ip for n in infos if n is not None and n not in nodes)
        self._ssh = ssh.GetRunner(self._cluster.cluster_name)
        self.plan = self._ReadPlan()
        self._resumed = IsResumed(self.plan, wishes, self._ReadStaged(RAPI_CERT))

    # Files

    def _ReadPlan(self) -> Plan | None:
        try:
            return ParsePlan(self._rt.files.read(PLAN_FILE))
        except FileNotFoundError:
            return None

    def _WritePlan(self, plan: Plan) -> None:
        self._rt.files.write(PLAN_FILE, plan.Dump().encode(), mode=0o600)
        self.plan = plan

    def _ReadStaged(self, name: str) -> str | None:
        try:
            return self._rt.files.read(f"{STAGING_DIR}/{name}").decode()
        except FileNotFoundError:
            return None

    def _Stage(self) -> None:
        """Make the new files, and the plan, which is what makes them count."""
        names = self._wishes.GetNames()
        changed = set(names)
        self._rt.files.remove(PLAN_FILE)
        for name, path in sorted(node_setup.FILES.items()):
            content = None
            if name not in names and self._rt.files.exists(path):
                content = self._rt.files.read(path).decode()
            else:
                changed.add(name)
                content = self._Make(name)
            if not content.endswith("\n"):
                content += "\n"
            self._rt.files.write(f"{STAGING_DIR}/{name}", content.encode(), mode=0o400)
        self._WritePlan(Plan(frozenset(changed), frozenset(self._online)))
        self._feedback(f"Made {DescribeFiles(changed)}")

    def _Make(self, name: str) -> str:
        if name == CONFD_KEY:
            return GenerateSecret() + "\n"
        if name == RAPI_CERT and self._wishes.rapi_cert_pem is not None:
            return self._wishes.rapi_cert_pem
        names = (self._cluster.master_ip, self._myself, self._address)
        return x509.GenerateSelfSignedX509Cert(
            self._cluster.cluster_name, alt_names=[item for item in names if item]
        ).pem

    # Looking

    def Look(self) -> Preview:
        """What this run would do; changes nothing.

        @raise errors.OpPrereqError: the master daemon would not find the votes to start again
        """
        nodes = self._GetTargets()
        jobs = self._GetRunningJobs()
        if not self._resumed:
            # Else the nodes have different certificates, and most can not be asked.
            votes = voting.GatherMasterVotes([self._myself, *self._all], self._myself)
            decision = voting.Decide(votes, self._myself)
            if decision.outcome is not voting.Outcome.ELECTED:
                raise errors.OpPrereqError(
                    "The master daemon has to be restarted, and would not find the votes to start"
                    f" again: {decision.reason}. Start the daemons of the other nodes first",
                    errors.ECODE_ENVIRON,
                )
        return Preview(
            self.plan if self._resumed else None,
            nodes,
            _Map(self._Probe, nodes),
            self._offline,
            jobs,
        )

    def _GetTargets(self) -> list[str]:
        plan = self.plan
        if self._resumed and plan is not None and plan.installed:
            return [name for name in self._online if name in plan.pending]
        return self._online

    def _Probe(self, name: str) -> str | None:
        result = self._ssh.Run(name, constants.GANETI_RUNAS, "true", timeout=_PROBE_TIMEOUT)
        return _Problem(result)

    def _GetRunningJobs(self) -> list[str]:
        if self.plan is not None and self._resumed and self.plan.installed:
            # The master daemon goes on.
            return []
        try:
            found = luxi.Client().QueryJobs(None, ["id", "status"])
        except luxi.NoMasterError:
            # Stopped by the run that this one finishes, or by somebody else; it is started below.
            return []
        return [str(job_id) for job_id, status in found if status == constants.JOB_STATUS_RUNNING]

    # Acting

    def Run(self, preview: Preview) -> bool:
        """Do it, or finish it.

        @return: do all online nodes have the files now?
        @raise errors.OpPrereqError: another run is at work
        @raise errors.OpExecError: not finished; the next run finishes it
        """
        self._rt.files.mkdir(STAGING_DIR, 0o700)
        with self._Locked():
            if not self._resumed:
                self._Stage()
            assert self.plan is not None
            if self.plan.installed:
                missing = self._Serve(preview)
                self._StartMaster()
            else:
                with self._WatcherBlocked():
                    missing = self._Switch(preview)
            return self._Finish(missing)

    @contextlib.contextmanager
    def _Locked(self) -> Iterator[None]:
        with filelock.FileLock.Open(_LOCK_FILE, runtime=self._rt) as lock:
            try:
                lock.Exclusive()
            except BlockingIOError as err:
                raise errors.OpPrereqError(
                    "Another 'gnt-cluster renew-crypto' is at work", errors.ECODE_STATE
                ) from err
            yield

    @contextlib.contextmanager
    def _WatcherBlocked(self) -> Iterator[None]:
        """Keep the watcher from starting daemons that are to be down."""
        self._feedback("Blocking the watcher")
        with filelock.FileLock.OpenExclusive(
            # The watcher replaces the file while it has its lock.
            *(pathutils.WATCHER_STATEFILE, _WATCHER_TIMEOUT, self._rt)
        ):
            yield

    def _Switch(self, preview: Preview) -> dict[str, str]:
        """Bring the files to all nodes; what went wrong with which."""
        assert self.plan is not None
        self._feedback("Stopping the master daemons")
        self._DaemonUtil("stop-master")
        missing = self._Serve(preview)
        self._feedback(f"Putting the files in place on {self._myself}")
        for name, path in sorted(node_setup.FILES.items()):
            self._Install(name, path)
        for name in (constants.NODED, constants.CONFD):
            self._DaemonUtil("stop", name)
            self._DaemonUtil("start", name)
        self._WritePlan(Plan(self.plan.changed, frozenset(missing), installed=True))
        self._StartMaster()
        return missing

    def _Serve(self, preview: Preview) -> dict[str, str]:
        problems = dict(preview.unreachable)
        names = [name for name in preview.nodes if name not in problems]
        if names:
            self._feedback(f"Sending the files to {', '.join(names)}, and restarting their daemons")
        contents = {name: self._ReadStaged(name) for name in node_setup.FILES}

        def _One(name: str) -> str | None:
            request = {
                "cluster_name": self._cluster.cluster_name,
                "node_name": name,
                "protocol": constants.PROTOCOL_VERSION,
                "files": contents,
            }
            result = self._ssh.Run(
                *(name, constants.GANETI_RUNAS, pathutils.NODE_SETUP),
                input=serializer.Dump(request),
                timeout=_SETUP_TIMEOUT,
            )
            return _Problem(result)

        return {**problems, **_Map(_One, names)}

    def _Install(self, name: str, path: str) -> None:
        content = self._rt.files.read(f"{STAGING_DIR}/{name}")
        if self._rt.files.exists(path):
            if self._rt.files.read(path) == content:
                return
            io.CreateBackup(path)
        self._rt.files.write(path, content, mode=0o400)

    def _StartMaster(self) -> None:
        self._feedback("Starting the master daemons")
        self._DaemonUtil("start-master")

    def _DaemonUtil(self, *words: str) -> None:
        result = process.RunCmd([pathutils.DAEMON_UTIL, *words])
        if result.failed:
            raise errors.OpExecError(
                f"'daemon-util {' '.join(words)}' failed: {_Problem(result)}\nThe renewal is not"
                " finished: run 'gnt-cluster renew-crypto' again, without options, to finish it"
            )

    def _Finish(self, missing: Mapping[str, str]) -> bool:
        """Call all nodes that got the files, and report."""
        assert self.plan is not None
        missing = {**missing, **self._Call([n for n in self._online if n not in missing])}
        for name, problem in sorted(missing.items()):
            self._feedback(f"Warning: node {name} may not have the new files: {problem}")
        if missing:
            self._WritePlan(Plan(self.plan.changed, frozenset(missing), installed=True))
            self._feedback(
                f"The cluster works with {DescribeFiles(self.plan.changed)}, but can not call"
                f" {', '.join(sorted(missing))}. Once that is back, run 'gnt-cluster renew-crypto'"
                " again, without options; or mark it offline, and re-add it later"
            )
            return False
        self._rt.files.remove(PLAN_FILE)
        for name in node_setup.FILES:
            self._rt.files.remove(f"{STAGING_DIR}/{name}")
        self._feedback(
            f"All online nodes have {DescribeFiles(self.plan.changed)}. Check the cluster with"
            " 'gnt-cluster verify'"
        )
        return True

    def _Call(self, names: Sequence[str]) -> dict[str, str]:
        """Which nodes do not answer, and why."""
        problems: dict[str, str] = {}

        def _Ask() -> None:
            problems.clear()
            results = rpc.RpcRunner.call_version(list(names))
            problems.update({n: r.fail_msg for n, r in results.items() if r.fail_msg})
            if problems:
                raise retry.RetryAgain

        with contextlib.suppress(retry.RetryTimeout):
            retry.Retry(
                _Ask,
                _ANSWER_DELAY,
                _ANSWER_TIMEOUT,
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        return problems


def _Problem(result: process.RunResult) -> str | None:
    if not result.failed:
        return None
    return " ".join(result.output.split()) or result.fail_reason
