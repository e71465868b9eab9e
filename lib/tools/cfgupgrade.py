"""cfgupgrade: bring the data directory of an older version up to this one.

Everything is looked at before anything is written. What is to be done follows from what is there,
so an upgrade that was interrupted is finished by the next run, and one that is done does nothing.
Each file is replaced whole, and no file is lost: the configuration and certificates that are
replaced are kept beside the new ones. Nothing is written while the cluster's daemons run.

Files of the data directory, in the order in which they are written:

  - C{server.pem}, C{rapi.pem}, C{hmac.key}, C{known_hosts}: made where they are missing; a
    certificate that the TLS library of today refuses (keys of 1024 bits were usual once) is
    replaced, as no daemon could be started with it
  - C{config.data}: upgraded
  - C{ssconf_*}: as they follow from the configuration
"""

from __future__ import annotations

import contextlib
import functools
import logging
import optparse
import os
import ssl
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from .. import (
    bootstrap,
    constants,
    errors,
    jstore,
    objects,
    pathutils,
    runtime,
    serializer,
    ssconf,
    ssh,
)
from ..client import console
from ..config import distribution, upgrade
from ..utils import io, net, process, text, x509
from ..utils.filelock import FileLock

_CONFIG: Final = os.path.basename(pathutils.CLUSTER_CONF_FILE)
_NODED_CERT: Final = os.path.basename(pathutils.NODED_CERT_FILE)
_RAPI_CERT: Final = os.path.basename(pathutils.RAPI_CERT_FILE)
_HMAC_KEY: Final = os.path.basename(pathutils.CONFD_HMAC_KEY)
_KNOWN_HOSTS: Final = os.path.basename(pathutils.SSH_KNOWN_HOSTS_FILE)
_WATCHER_STATE: Final = os.path.basename(pathutils.WATCHER_STATEFILE)

#: Only their owner may read these.
_SECRETS: Final = (_NODED_CERT, _RAPI_CERT, _HMAC_KEY)

_QUESTION: Final = (
    "Please make sure that this is the master node, that the daemons are stopped on all nodes and"
    " that all instances are down. Continue with the upgrade?"
)


@dataclass(frozen=True)
class Step:
    """Something to do.

    @ivar text: what, as the rest of a sentence that begins with "would"
    @ivar run: does it
    """

    text: str
    run: Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """What is to be done in a directory.

    @ivar version: of the configuration that is there
    @ivar warnings: what is wrong, but prevents nothing
    @ivar after: what remains to be done by the administrator
    """

    version: int
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


# Looking


def CheckDirectory(path: str, rt: runtime.Runtime) -> None:
    """Is this the data directory of a cluster?

    @raise errors.OpPrereqError: it is not
    """

    def _Has(name: str) -> bool:
        return rt.files.exists(os.path.join(path, name))

    if not _Has(_CONFIG):
        raise errors.OpPrereqError(
            f"{path} has no {_CONFIG}: this is not the data directory of a master (name it with"
            " --path)",
            errors.ECODE_NOENT,
        )
    if not (_Has(_NODED_CERT) or _Has(_KNOWN_HOSTS)):
        raise errors.OpPrereqError(
            f"{path} has neither {_NODED_CERT} nor {_KNOWN_HOSTS}: this does not look like the data"
            " directory of a cluster (name it with --path)",
            errors.ECODE_STATE,
        )


def IsLive(path: str) -> bool:
    """Is it the directory that this host's daemons use, and no copy?"""
    return os.path.realpath(path) == os.path.realpath(pathutils.DATA_DIR)


def FindRunningDaemons() -> dict[str, int]:
    """Daemons of the cluster, of this or an older version, that run here: name -> process id."""
    found = {}
    for name in constants.DAEMONS:
        path = pathutils.DaemonPidFile(name)
        pid = process.GetPidFileHolder(path)
        if not pid:
            # Daemons of old versions do not lock their pid files.
            pid = process.ReadPidFile(path)
            if not (pid and _IsProgram(pid, name)):
                continue
        found[name] = pid
    return found


def _IsProgram(pid: int, name: str) -> bool:
    try:
        words = io.ReadBinary(f"/proc/{pid}/cmdline").split(b"\0")
    except OSError:
        return False
    return any(os.path.basename(word) == name.encode() for word in words[:3])


def CheckDaemons(running: dict[str, int]) -> None:
    """@raise errors.OpPrereqError: daemons run"""
    if running:
        shown = text.CommaJoin(f"{name} (process {pid})" for name, pid in running.items())
        raise errors.OpPrereqError(
            f"Daemons of the cluster run on this host: {shown}; stop them on all nodes first, with:"
            f" {pathutils.DAEMON_UTIL} stop-all",
            errors.ECODE_STATE,
        )


def CheckMaster(data: objects.ConfigData, own_name: str | None) -> None:
    """@raise errors.OpPrereqError: another host is the master, so has the last word"""
    master = data.cluster.master_node
    if own_name is not None and own_name != master:
        raise errors.OpPrereqError(
            f"The master of this cluster is {master}, but this is {own_name}: run cfgupgrade there"
            " (or, for a copy of its data directory, name that with --path)",
            errors.ECODE_STATE,
        )


def FindTlsProblem(path: str, now: float) -> str | None:
    """Why no daemon can use a file with key and certificate; None if one can.

    @param now: seconds since the epoch
    """
    pem = io.ReadBinary(path)
    try:
        x509.CheckPem(pem)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
    except ssl.SSLError as err:
        return str(err.reason or err).replace("_", " ").lower()
    except errors.GenericError as err:
        return errors.FormatError(err)
    validity = x509.GetX509CertValidity(x509.LoadCertificate(pem))
    _, message = x509.CheckValidity(*validity, now=now, warn_days=None, error_days=None)
    return message


# Planning


class Planner:
    """Finds out what is to be done in a data directory; changes nothing."""

    def __init__(self, path: str, rt: runtime.Runtime) -> None:
        self._path = path
        self._rt = rt

    def _File(self, name: str) -> str:
        return os.path.join(self._path, name)

    def Make(self) -> Plan:
        """The plan.

        @raise errors.ConfigurationError: the configuration can not be upgraded
        """
        path = self._File(_CONFIG)
        result = upgrade.Upgrade(self._rt.files.read(path), path, self._rt)
        self._data = result.data
        plan = Plan(result.version, warnings=[*result.problems, *self._FindUnfinishedJobs()])
        self._PlanCertificates(plan)
        self._PlanKeys(plan)
        self._PlanModes(plan)
        if result.changes:
            plan.steps.append(self._ConfigStep(result))
        self._PlanSsconf(plan)
        return plan

    def _FindUnfinishedJobs(self) -> list[str]:
        """What the new master daemon would go on with, as a warning."""
        directory = self._File(os.path.basename(pathutils.QUEUE_DIR))
        if not self._rt.files.exists(directory):
            return []
        numbers = {jstore.ParseJobFileName(name) for name in self._rt.files.listdir(directory)}
        unfinished = [
            str(number)
            for number in sorted(number for number in numbers if number is not None)
            if not _IsFinished(self._rt.files.read(f"{directory}/job-{number}"))
        ]
        if not unfinished:
            return []
        return [
            f"The job queue has jobs that were not finished ({text.CommaJoin(unfinished)}): the"
            " master daemon will run those that were not begun, and end the others with an error"
        ]

    @property
    def data(self) -> objects.ConfigData:
        """The upgraded configuration, once the plan was made."""
        return self._data

    def _MakeCertificate(self, path: str) -> None:
        cluster = self._data.cluster
        master = self._data.nodes.get(cluster.master_node)
        names = [cluster.master_ip, cluster.master_node, master and master.primary_ip]
        x509.GenerateSelfSignedSslCert(
            path,
            common_name=cluster.cluster_name,
            alt_names=[name for name in names if name],
            backup=True,
        )

    def _PlanCertificates(self, plan: Plan) -> None:
        for name in (_NODED_CERT, _RAPI_CERT):
            path = self._File(name)
            what = f"make {path}"
            if self._rt.files.exists(path):
                problem = FindTlsProblem(path, self._rt.clock.time())
                if problem is None:
                    continue
                what = f"replace {path} and keep a copy, as it can not be used: {problem}"
            plan.steps.append(Step(what, functools.partial(self._MakeCertificate, path)))
            if name == _NODED_CERT:
                plan.after.append(
                    f"copy {path} to the same place on all other nodes (mode 0400): their node"
                    " daemons talk to nobody who has another one"
                )

    def _PlanKeys(self, plan: Plan) -> None:
        path = self._File(_HMAC_KEY)
        if not self._rt.files.exists(path):
            plan.steps.append(
                Step(f"make {path}", lambda: bootstrap.GenerateHmacKey(path, self._rt))
            )
        known_hosts = self._File(_KNOWN_HOSTS)
        cluster = self._data.cluster
        if cluster.rsahostkeypub and not self._rt.files.exists(known_hosts):
            content = ssh.FormatKnownHosts(
                cluster.cluster_name, [("ssh-rsa", cluster.rsahostkeypub)]
            ).encode()
            plan.steps.append(
                Step(
                    f"make {known_hosts}",
                    lambda: self._rt.files.write(known_hosts, content, mode=0o600),
                )
            )

    def _PlanModes(self, plan: Plan) -> None:
        for name in _SECRETS:
            path = self._File(name)
            if not self._rt.files.exists(path):
                continue
            mode = stat.S_IMODE(self._rt.files.stat(path).mode)
            if mode & 0o077:
                plan.steps.append(
                    Step(
                        f"let nobody but its owner read {path} (its mode is 0{mode:o})",
                        functools.partial(os.chmod, path, 0o400),
                    )
                )

    def _ConfigStep(self, result: upgrade.Upgraded) -> Step:
        path = self._File(_CONFIG)

        def _Write() -> None:
            io.WriteFile(path, data=result.Render(self._rt.clock.time()), mode=0o600, backup=True)

        changes = "".join(f"\n    {change}" for change in result.changes)
        return Step(f"upgrade {path} and keep a copy of it as it is:{changes}", _Write)

    def _PlanSsconf(self, plan: Plan) -> None:
        values = distribution.SsconfValues(_Written(self._data))
        # The lock of a file that nobody else can want now; the usual one may be another cluster's.
        store = ssconf.SimpleStore(self._path, self._File(_CONFIG), self._rt)
        stale = [
            key
            for key, value in values.items()
            if key != ssconf.VERSION_KEY
            and self._ReadOrNone(store.KeyToFilename(key)) != ssconf.FormatValue(value)
        ]
        if stale:
            names = text.CommaJoin(pathutils.SSCONF_PREFIX + key for key in sorted(stale))
            plan.steps.append(
                Step(f"write {names} in {self._path}", lambda: store.WriteFiles(values))
            )

    def _ReadOrNone(self, path: str) -> bytes | None:
        try:
            return self._rt.files.read(path)
        except FileNotFoundError:
            return None


def _IsFinished(content: bytes) -> bool:
    """Was every opcode of this job brought to an end? What is no job file counts as that, too."""
    try:
        ops = serializer.Load(content)["ops"]
        return all(op["status"] in constants.OPS_FINALIZED for op in ops)
    except (KeyError, TypeError, ValueError):
        return True


def _Written(data: objects.ConfigData) -> distribution.Written:
    """The configuration as the distribution of ssconf values knows it."""
    return distribution.Written(
        config_serial=data.serial_no,
        cluster=data.cluster,
        nodes=data.nodes,
        node_names=text.NiceSort(data.nodes),
        instance_names=text.NiceSort(data.instances),
    )


# Doing


@contextlib.contextmanager
def _Alone(path: str, live: bool) -> Iterator[None]:
    """Neither another cfgupgrade nor the watcher, which starts daemons, work here meanwhile.

    @raise errors.OpPrereqError: one of them does
    """
    with contextlib.ExitStack() as stack:
        directory = FileLock(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path)
        stack.enter_context(directory)
        try:
            directory.Exclusive()
        except BlockingIOError as err:
            raise _Locked(path, "another cfgupgrade works in it") from err
        state_file = os.path.join(path, _WATCHER_STATE)
        if live and os.path.exists(state_file):
            try:
                stack.enter_context(FileLock.OpenExclusive(state_file))
            except BlockingIOError as err:
                raise _Locked(state_file, "the watcher, or what keeps it waiting, works") from err
        yield


def _Locked(path: str, why: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(f"{path} is locked: {why}; try again later", errors.ECODE_STATE)


def _OwnName() -> str | None:
    try:
        return net.HostInfo().name
    except errors.ResolverError as err:
        logging.warning("Can't check that this is the master: %s", errors.FormatError(err))
        return None


def _ShowPlan(plan: Plan, path: str) -> None:
    lines = [f"Configuration in {path}, version {upgrade.FormatVersion(plan.version)}"]
    lines += [f"Warning: {warning}" for warning in plan.warnings]
    lines += [f"  would {step.text}" for step in plan.steps]
    lines += [f"  afterwards: {hint}" for hint in plan.after]
    lines.append("Dry run: nothing was changed" if plan.steps else "There is nothing to upgrade")
    console.ToStderr("\n".join(lines))


def _ShowEnd(plan: Plan, path: str) -> None:
    lines = [f"The configuration in {path} is upgraded. What remains to be done:"]
    lines += [f"  - {hint}" for hint in plan.after]
    lines += [
        # The master daemon asks the other nodes who the master is.
        f"  - start the node daemon on all nodes ({pathutils.DAEMON_UTIL} start {constants.NODED}),"
        f" then the other daemons here ({pathutils.DAEMON_UTIL} start-all)",
        "  - gnt-cluster redist-conf, which brings the other nodes what they do not have",
        f"  - start the other daemons on the other nodes, too ({pathutils.DAEMON_UTIL} start-all)",
        "  - gnt-cluster verify",
    ]
    console.ToStderr("\n".join(lines))


def _CheckResult(path: str, rt: runtime.Runtime) -> None:
    """Read what was written, as the master daemon will."""
    file_name = os.path.join(path, _CONFIG)
    left = upgrade.Upgrade(rt.files.read(file_name), file_name, rt).changes
    if left:
        raise errors.ProgrammerError(f"{file_name} is not upgraded: {'; '.join(left)}")


def Run(
    path: str,
    dry_run: bool = False,
    confirm: Callable[[], bool] = lambda: True,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> int:
    """Upgrade a directory.

    @param path: absolute
    @param confirm: asked before anything is written
    @return: the exit code
    @raise errors.OpPrereqError: refused, nothing was changed
    @raise errors.ConfigurationError: likewise
    """
    CheckDirectory(path, rt)
    live = IsLive(path)
    with _Alone(path, live):
        if live:
            CheckDaemons(FindRunningDaemons())
        planner = Planner(path, rt)
        plan = planner.Make()
        if live:
            CheckMaster(planner.data, _OwnName())
        if dry_run or not plan.steps:
            _ShowPlan(plan, path)
            return constants.EXIT_SUCCESS
        for warning in plan.warnings:
            console.ToStderr(f"Warning: {warning}")
        if not confirm():
            return constants.EXIT_FAILURE
        if live:
            # They may have been started while the user was thinking.
            CheckDaemons(FindRunningDaemons())
        io.RemoveUnfinished(path)
        for step in plan.steps:
            logging.info("Now to %s", step.text)
            step.run()
        _CheckResult(path, rt)
    _ShowEnd(plan, path)
    return constants.EXIT_SUCCESS


def BuildParser() -> optparse.OptionParser:
    """The command's options."""
    parser = optparse.OptionParser(
        usage="%prog [options]",
        version=f"%prog (ganeti) {constants.RELEASE_VERSION}",
        description="Brings the configuration of an older version up to this one.",
        prog="cfgupgrade",
    )
    parser.add_option(
        "--dry-run", action="store_true", help="only say what would be done, and change nothing"
    )
    parser.add_option("-f", "--force", action="store_true", help="do not ask for confirmation")
    parser.add_option("-d", "--debug", action="store_true", help="say very much")
    parser.add_option("-v", "--verbose", action="store_true", help="say what is done")
    parser.add_option(
        "--path",
        metavar="DIR",
        default=pathutils.DATA_DIR,
        help="data directory to upgrade (default: %default)",
    )
    return parser


def _SetupLogging(options: optparse.Values) -> None:
    level = logging.CRITICAL
    if options.debug:
        level = logging.DEBUG
    elif options.verbose:
        level = logging.INFO
    logging.basicConfig(level=level, format="%(message)s", force=True)


def Main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    parser = BuildParser()
    options, args = parser.parse_args(list(sys.argv[1:] if argv is None else argv))
    if args:
        parser.print_usage(sys.stderr)
        console.ToStderr(f"No arguments are expected, but there is '{args[0]}'")
        return constants.EXIT_FAILURE
    _SetupLogging(options)
    try:
        return Run(
            os.path.abspath(options.path),
            dry_run=bool(options.dry_run),
            confirm=lambda: bool(options.force) or console.Confirm(_QUESTION),
        )
    except (errors.GenericError, OSError) as err:
        logging.debug("Where it came from:", exc_info=True)
        console.ToStderr(f"cfgupgrade: {errors.FormatError(err)}")
        return constants.EXIT_FAILURE
