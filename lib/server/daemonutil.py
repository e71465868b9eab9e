"""daemon-util: the only way in which the suite itself starts and stops its daemons.

Three ways to run a daemon stand behind the same actions: on a node of a virtual cluster it is
started from the tree we run from, serving the node's own address; where systemd knows our units,
through these; elsewhere as a plain process.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .. import constants, errors, pathutils
from ..utils import io, net, process, text

#: Seconds that a daemon gets to end by itself.
_STOP_TIMEOUT: Final = 30
_SYSTEMD_TARGET: Final = "ganeti.target"
#: There if systemd is the init system.
_SYSTEMD_RUN_DIR: Final = "/run/systemd/system"
#: Arguments for one start of a unit, read by it as an environment file.
ONETIME_DIR: Final = os.path.join(pathutils.RUN_GANETI_DIR, "systemd")
_ONETIME_VARIABLE: Final = "ONETIME_ARGS"

_MASTER_DAEMONS: Final = (constants.MASTERD, constants.RAPI)
#: These exit codes are no reason not to start the next daemon.
_START_OK: Final = frozenset([constants.EXIT_SUCCESS, constants.EXIT_NOTMASTER])

_ASSIGNMENT: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


# Arguments


def ParseDefaults(content: str) -> dict[str, str]:
    """Variables of a defaults file: lines NAME=value, quoted as for a shell; no expansions."""
    values = {}
    for line in content.splitlines():
        match = _ASSIGNMENT.match(line.strip())
        if match:
            name, value = match.groups()
            try:
                values[name] = "".join(shlex.split(value, comments=True)[:1])
            except ValueError as err:
                raise errors.GenericError(f"{name}={value}: {err}") from err
    return values


def _ReadDefaults() -> dict[str, str]:
    path = pathutils.DAEMONS_DEFAULTS_FILE
    try:
        return ParseDefaults(io.ReadFile(path))
    except FileNotFoundError:
        return {}
    except errors.GenericError as err:
        raise errors.GenericError(f"Can't understand {path}: {errors.FormatError(err)}") from err


def DaemonArguments(
    name: str,
    given: Sequence[str],
    defaults: Mapping[str, str],
    environment: Mapping[str, str],
    bind_address: str | None = None,
) -> list[str]:
    """Arguments for a start of a daemon; pure.

    Those of the defaults file (or, without an entry there, of the environment) come first, then
    those of C{EXTRA_<NAME>_ARGS} in the environment, then the given ones; so the last word is the
    caller's.

    Arguments: bind_address = own address of a virtual node, for daemons with a port.
    """
    variable = name.removeprefix("ganeti-").upper() + "_ARGS"
    result = []
    if bind_address is not None and name in constants.DAEMONS_PORTS:
        result += ["-b", bind_address]
    result += shlex.split(defaults.get(variable, environment.get(variable, "")))
    result += shlex.split(environment.get("EXTRA_" + variable, ""))
    return [*result, *given]


# Ways to run a daemon


@dataclass(frozen=True)
class ProcessRunner:
    """Daemons as processes of their own.

    Attributes: interpreter = what runs their executables, None for their own choice; bind_address
    see DaemonArguments.
    """

    interpreter: str | None = None
    bind_address: str | None = None

    def Start(self, name: str, args: Sequence[str]) -> int:
        """Start a daemon; its own exit code, which it has once it serves or has failed."""
        argv = [os.path.join(pathutils.DAEMONDIR, name)]
        if self.interpreter is not None:
            argv.insert(0, self.interpreter)
        argv += DaemonArguments(name, args, _ReadDefaults(), os.environ, self.bind_address)
        return process.RunInteractive(argv)

    def Stop(self, name: str) -> int:
        """Stop a daemon: TERM, after 30 seconds KILL."""
        path = pathutils.DaemonPidFile(name)
        pid = process.GetPidFileHolder(path)
        if pid:
            process.KillProcess(pid, timeout=_STOP_TIMEOUT)
        if process.GetPidFileHolder(path):
            sys.stderr.write(f"{name} (process {pid}) does not end\n")
            return constants.EXIT_FAILURE
        return constants.EXIT_SUCCESS


class SystemdRunner:
    """Daemons as services of systemd, one unit each, named like the daemon."""

    def Start(self, name: str, args: Sequence[str]) -> int:
        """Start a unit.

        The unit has the arguments of the defaults file by itself; the others are for this one start
        and are handed over in a file that is removed afterwards.
        """
        onetime = DaemonArguments(name, args, {}, _OnlyExtra(os.environ))
        path = os.path.join(ONETIME_DIR, f"{name}.onetime")
        if onetime:
            io.Makedirs(ONETIME_DIR, mode=0o755)
            value = text.ShellQuote(text.ShellQuoteArgs(onetime))
            io.WriteFile(path, data=f"{_ONETIME_VARIABLE}={value}\n", mode=0o644)
        try:
            return _Systemctl("start", name)
        finally:
            if onetime:
                io.RemoveFile(path)

    def Stop(self, name: str) -> int:
        """Stop a unit."""
        return _Systemctl("stop", name)


def _OnlyExtra(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("EXTRA_")}


def _Systemctl(action: str, name: str) -> int:
    return process.RunInteractive(["systemctl", action, f"{name}.service"])


def _SystemdRuns() -> bool:
    return os.path.isdir(_SYSTEMD_RUN_DIR)


def _SystemdKnowsUs() -> bool:
    if not _SystemdRuns():
        return False
    try:
        return not process.RunCmd(["systemctl", "cat", _SYSTEMD_TARGET]).failed
    except errors.OpExecError:
        return False


def GetRunner() -> ProcessRunner | SystemdRunner:
    """The way to run daemons on this node."""
    if pathutils.IsVirtual():
        return ProcessRunner(interpreter=sys.executable, bind_address=net.HostInfo().ip)
    if _SystemdKnowsUs():
        return SystemdRunner()
    return ProcessRunner(interpreter=sys.executable if pathutils.SOURCE_TREE else None)


# Actions


def _RequireDaemonName(name: str) -> None:
    if name not in constants.DAEMONS:
        raise errors.GenericError(
            f"Unknown daemon '{name}': use one of {text.CommaJoin(constants.DAEMONS)}"
        )


def CheckConfig() -> int:
    """Whether this host belongs to a cluster."""
    if os.path.exists(pathutils.NODED_CERT_FILE):
        return constants.EXIT_SUCCESS
    print(f"Cluster not initialized: {pathutils.NODED_CERT_FILE} is missing")
    return constants.EXIT_FAILURE


def CheckExitcode(code: str) -> int:
    """Whether an exit code of a daemon is all right, for init scripts."""
    if code == str(constants.EXIT_SUCCESS):
        return constants.EXIT_SUCCESS
    if code == str(constants.EXIT_NOTMASTER):
        print("not master")
        return constants.EXIT_SUCCESS
    print(code)
    return constants.EXIT_FAILURE


def ListStartDaemons() -> int:
    """Print the daemons in the order in which they start."""
    print("\n".join(constants.DAEMONS))
    return constants.EXIT_SUCCESS


def ListStopDaemons() -> int:
    """Print the daemons in the order in which they stop."""
    print("\n".join(reversed(constants.DAEMONS)))
    return constants.EXIT_SUCCESS


def IsDaemonName(name: str) -> int:
    """Whether a daemon has that name."""
    return constants.EXIT_SUCCESS if name in constants.DAEMONS else constants.EXIT_FAILURE


def IsRunning(name: str) -> bool:
    """Whether a daemon runs."""
    return process.GetPidFileHolder(pathutils.DaemonPidFile(name)) != 0


def Check(name: str) -> int:
    """Whether a daemon runs."""
    _RequireDaemonName(name)
    return constants.EXIT_SUCCESS if IsRunning(name) else constants.EXIT_FAILURE


def Start(name: str, *args: str) -> int:
    """Start a daemon unless it runs; its own exit code."""
    _RequireDaemonName(name)
    if IsRunning(name):
        return constants.EXIT_SUCCESS
    code = GetRunner().Start(name, args)
    if code == constants.EXIT_FAILURE and IsRunning(name):
        # Somebody else was faster; what was asked for is there.
        return constants.EXIT_SUCCESS
    return code


def Stop(name: str) -> int:
    """Stop a daemon if it runs."""
    _RequireDaemonName(name)
    return GetRunner().Stop(name)


def StartMaster() -> int:
    """Start the daemons of the master role; the first failure ends it."""
    for name in _MASTER_DAEMONS:
        code = Start(name)
        if code:
            return code
    return constants.EXIT_SUCCESS


def StopMaster() -> int:
    """Stop the daemons of the master role."""
    return _StopSeveral(tuple(reversed(_MASTER_DAEMONS)))


def StartAll() -> int:
    """Start all daemons; it is all right if those of the master refuse for not being master."""
    for name in constants.DAEMONS:
        if Start(name) not in _START_OK:
            return constants.EXIT_FAILURE
    return constants.EXIT_SUCCESS


def StopAll() -> int:
    """Stop all daemons."""
    return _StopSeveral(tuple(reversed(constants.DAEMONS)))


def _StopSeveral(names: Sequence[str]) -> int:
    # All of them, also after one that does not end.
    codes = [Stop(name) for name in names]
    return max(codes, default=constants.EXIT_SUCCESS)


def ReloadSshKeys() -> int:
    """Let the SSH daemon of this host read its host keys again."""
    if pathutils.IsVirtual():
        return constants.EXIT_SUCCESS
    if not _SystemdRuns():
        return process.RunInteractive([pathutils.SSH_INITD_SCRIPT, "restart"])
    code = constants.EXIT_FAILURE
    for unit in ("ssh", "sshd"):
        code = process.RunInteractive(["systemctl", "reload", f"{unit}.service"])
        if code == constants.EXIT_SUCCESS:
            break
    return code


@dataclass(frozen=True)
class _Action:
    fn: Callable[..., int]
    #: Names of the arguments that are needed.
    arguments: tuple[str, ...] = ()
    #: Takes any number of further ones.
    more: bool = False

    def Usage(self, name: str) -> str:
        words = [name, *(f"<{argument}>" for argument in self.arguments)]
        return " ".join([*words, "[arguments...]"] if self.more else words)


ACTIONS: Final[dict[str, _Action]] = {
    "check": _Action(Check, ("daemon",)),
    "check-and-start": _Action(Start, ("daemon",), more=True),
    "check-config": _Action(CheckConfig),
    "check-exitcode": _Action(CheckExitcode, ("code",)),
    "is-daemon-name": _Action(IsDaemonName, ("daemon",)),
    "list-start-daemons": _Action(ListStartDaemons),
    "list-stop-daemons": _Action(ListStopDaemons),
    "reload-ssh-keys": _Action(ReloadSshKeys),
    "start": _Action(Start, ("daemon",), more=True),
    "start-all": _Action(StartAll),
    "start-master": _Action(StartMaster),
    "stop": _Action(Stop, ("daemon",)),
    "stop-all": _Action(StopAll),
    "stop-master": _Action(StopMaster),
}


def _UsageText() -> str:
    lines = [f"  {action.Usage(name)}" for name, action in sorted(ACTIONS.items())]
    return "\n".join(["Usage: daemon-util <action> [arguments...]", "", "Actions:", *lines, ""])


def Main(argv: Sequence[str] | None = None) -> int:
    """Run one action; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_UsageText())
        return constants.EXIT_SUCCESS
    if not words:
        sys.stderr.write(_UsageText())
        return constants.EXIT_FAILURE
    name, *args = words
    action = ACTIONS.get(name)
    if action is None:
        hint = " (actions are written with dashes)" if "_" in name else ""
        sys.stderr.write(f"Unknown action '{name}'{hint}, see daemon-util --help\n")
        return constants.EXIT_FAILURE
    needed = len(action.arguments)
    if len(args) < needed or (len(args) > needed and not action.more):
        sys.stderr.write(f"Usage: daemon-util {action.Usage(name)}\n")
        return constants.EXIT_FAILURE
    try:
        return action.fn(*args)
    except (errors.GenericError, OSError) as err:
        sys.stderr.write(f"daemon-util {name}: {errors.FormatError(err)}\n")
        return constants.EXIT_FAILURE
