"""Running programs, looking after processes, pid files.

Programs are always started from a list of arguments, never through a shell.

A pid file says who runs: its holder keeps an flock(2) on it for as long as it lives, so a left-over
file or a pid that was given to somebody else is never taken for a running daemon.
"""

import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

from .. import constants, errors, pathutils
from . import child, io, loglimit, text
from .detach import CloseFDs, Daemonize, ParseStartReport, StartReport
from .memory import Mlockall

__all__ = [
    "BuildCmdEnvironment",
    "CloseFDs",
    "Daemonize",
    "DisableFork",
    "EnsureDaemon",
    "GetPidFileHolder",
    "GetSocketCredentials",
    "IsExecutable",
    "IsProcessAlive",
    "KillProcess",
    "Mlockall",
    "ParseStartReport",
    "PartLimits",
    "PidFile",
    "ReadPidFile",
    "RunCmd",
    "RunInSeparateProcess",
    "RunInteractive",
    "RunParts",
    "RunResult",
    "StartDaemonProcess",
    "StartReport",
]

#: After KILL, the end of a process is waited for no longer than this (seconds).
_KILLED_GRACE: Final = 5.0

#: Exit code of a child of RunInSeparateProcess whose function raised.
_SEPARATE_PROCESS_ERROR: Final = 33


# Running programs


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a program ended.

    Exactly one of exit_code and signal is not None. C{timeout} is the limit in seconds that the
    program had run into, None if it ended by itself. C{lingering}: it had ended by then, but a
    process that it started held its output open.
    """

    cmd: str
    exit_code: int | None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    timeout: float | None = None
    lingering: bool = False

    @property
    def output(self) -> str:
        """Standard output followed by standard error."""
        return self.stdout + self.stderr

    @property
    def failed(self) -> bool:
        """Whether it did anything but end by itself with exit code 0."""
        return self.signal is not None or self.exit_code != 0 or self.timeout is not None

    @property
    def fail_reason(self) -> str:
        """Text that names the exit code or signal; empty for success."""
        if not self.failed:
            return ""
        if self.signal is not None:
            how = f"terminated by signal {self.signal}"
        else:
            how = f"exited with exit code {self.exit_code}"
        if self.lingering:
            how += ", but a process that it started kept its output open"
        return how if self.timeout is None else f"{how} (timeout of {self.timeout:g} s reached)"


class _ForkGuard:
    reason: str | None = None


def DisableFork(reason: str = "") -> None:
    """Forbid this process to run programs from now on: the master daemon asks a node daemon."""
    _ForkGuard.reason = reason or "this process may not run programs"


def _CheckForkAllowed(cmd: str) -> None:
    if _ForkGuard.reason is not None:
        raise errors.ProgrammerError(f"Can't run '{cmd}': {_ForkGuard.reason}")


def BuildCmdEnvironment(env: Mapping[str, str] | None, reset: bool) -> dict[str, str]:
    """Environment for a program: ours (or nothing), LC_ALL=C, then the given variables."""
    result = {} if reset else {**os.environ, "LC_ALL": "C"}
    if env is not None:
        result.update({name: str(value) for name, value in env.items()})
    return result


def RunCmd(
    cmd: Sequence[object],
    env: Mapping[str, str] | None = None,
    output: str | None = None,
    cwd: str = "/",
    reset_env: bool = False,
    timeout: float | None = None,
    input: str | bytes | None = None,  # noqa: A002
    interactive: bool = False,
    max_output: int | None = None,
) -> RunResult:
    """Run a program and wait for its end.

    The program runs in a session of its own, without our descriptors, and reads an empty standard
    input unless one is given.

    Arguments:
      - cmd: program and arguments; each is turned into text, there is no shell
      - env: variables added to our environment (LC_ALL is C in any case, unless given here)
      - output: file that standard output and error are appended to; the result's are then empty
      - reset_env: start from an empty environment
      - timeout: seconds, then TERM to the whole session, five seconds later KILL
      - input: what the program reads from its standard input
      - interactive: stay in our session, so that the program can ask the user on the terminal; it
        reads our standard input unless one is given
      - max_output: bytes of standard output, and of standard error, that are kept at most: the
        first and the last, with a note between them; of an output file what this program appends

    Raises: OpExecError if the program doesn't exist, other OSErrors as they are, ProgrammerError
    for a text as C{cmd} and where running programs is forbidden.
    """
    if isinstance(cmd, str | bytes):
        raise errors.ProgrammerError(f"Command must be a list of arguments: {cmd!r}")
    argv = [_ArgumentText(arg) for arg in cmd]
    cmd_text = text.ShellQuoteArgs(argv)
    _CheckForkAllowed(cmd_text)
    if output is None:
        logging.debug("RunCmd %s", cmd_text)
    else:
        logging.debug("RunCmd %s, output file '%s'", cmd_text, output)

    stdin_data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
    with _OutputTarget(output) as target:
        try:
            proc = subprocess.Popen(
                argv,
                stdin=_StdinTarget(stdin_data, interactive),
                stdout=target,
                stderr=target,
                cwd=cwd,
                env=BuildCmdEnvironment(env, reset_env),
                start_new_session=not interactive,
            )
        except FileNotFoundError as err:
            raise errors.OpExecError(
                f"Can't execute '{argv[0]}': not found ({err.filename or argv[0]})"
            ) from err
        log = None
        if max_output is not None and not isinstance(target, int):
            log = loglimit.LogLimit(target.fileno(), max_output)
        outcome = child.Communicate(
            proc,
            stdin_data,
            timeout,
            max_output,
            not interactive,
            watch=None if log is None else log.Check,
        )
        if log is not None:
            log.Check()

    code = outcome.code
    result = RunResult(
        cmd=cmd_text,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        stdout=_OutputText(outcome.stdout),
        stderr=_OutputText(outcome.stderr),
        timeout=timeout if outcome.timed_out else None,
        lingering=outcome.lingering,
    )
    if result.failed:
        logging.debug(
            "Command '%s' failed (%s); output: %s", cmd_text, result.fail_reason, result.output
        )
    return result


def RunInteractive(cmd: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a program on our terminal and standard streams, with our environment.

    Arguments: env = variables added to the environment.

    Returns: its exit code, 128 + number for a signal. Raises: as RunCmd.
    """
    cmd_text = text.ShellQuoteArgs(cmd)
    _CheckForkAllowed(cmd_text)
    logging.debug("RunInteractive %s", cmd_text)
    try:
        code = subprocess.call(list(cmd), env={**os.environ, **(env or {})})
    except FileNotFoundError as err:
        raise errors.OpExecError(f"Can't execute '{cmd[0]}': not found") from err
    return code if code >= 0 else 128 - code


def _ArgumentText(arg: object) -> str:
    return os.fsdecode(arg) if isinstance(arg, bytes) else str(arg)


def _OutputText(data: bytes) -> str:
    # Not surrogateescape: results end in logs and messages, which must be valid text.
    return data.decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _OutputTarget(output: str | None) -> Iterator[int | IO[bytes]]:
    if output is not None:
        # Also for reading: who limits it has to.
        with open(output, "a+b", buffering=0) as fobj:
            yield fobj
    else:
        yield subprocess.PIPE


def _StdinTarget(stdin_data: bytes | None, interactive: bool) -> int | None:
    if stdin_data is not None:
        return subprocess.PIPE
    return None if interactive else subprocess.DEVNULL


@dataclass(frozen=True, slots=True)
class PartLimits:
    """What the scripts of a directory may take.

    @ivar timeout: seconds of each; None = any time
    @ivar total: seconds of all together: later ones get what is left, or do not run; None = any
    @ivar max_output: bytes of each stream of a script that are kept; None = all
    @ivar variable: of the environment, that tells a script the whole seconds it has
    """

    timeout: float | None = None
    total: float | None = None
    max_output: int | None = None
    variable: str | None = None

    def Get(self, elapsed: float) -> float | None:
        """Seconds for a script if those before it took C{elapsed}; None = any, <= 0 = none left."""
        given = [self.timeout, None if self.total is None else self.total - elapsed]
        return min((limit for limit in given if limit is not None), default=None)


_NO_LIMITS: Final = PartLimits()


def RunParts(
    dir_name: str,
    env: Mapping[str, str] | None = None,
    reset_env: bool = False,
    limits: PartLimits = _NO_LIMITS,
    _time_fn: Callable[[], float] = time.monotonic,
) -> list[tuple[str, int, RunResult | str | None]]:
    """Run the executables of a directory, sorted by name.

    Returns: (name, status, result) for each visible entry. Status RUNPARTS_SKIP (result None): not
    a regular file, not executable, or a name with other characters than letters, digits, C{_} and
    C{-}; RUNPARTS_RUN: a RunResult; RUNPARTS_ERR: text why it could not be run. Empty if the
    directory can't be read.
    """
    try:
        names = io.ListVisibleFiles(dir_name)
    except OSError as err:
        logging.warning("Skipping %s: can't list its content: %s", dir_name, err)
        return []
    start = _time_fn()
    results: list[tuple[str, int, RunResult | str | None]] = []
    for name in names:
        path = os.path.join(dir_name, name)
        results.append((name, *_RunPart(path, env, reset_env, limits, _time_fn() - start)))
    return results


def _RunPart(
    path: str,
    env: Mapping[str, str] | None,
    reset_env: bool,
    limits: PartLimits,
    elapsed: float,
) -> tuple[int, RunResult | str | None]:
    if not (text.IsPluginName(os.path.basename(path)) and IsExecutable(path)):
        return constants.RUNPARTS_SKIP, None
    timeout = limits.Get(elapsed)
    if timeout is not None:
        if timeout <= 0:
            return constants.RUNPARTS_ERR, (
                f"not run: the scripts before it took {elapsed:.0f} s, all of"
                f" {os.path.basename(os.path.dirname(path))} together may take {limits.total:g} s"
            )
        if limits.variable is not None:
            env = {**(env or {}), limits.variable: str(max(1, int(timeout)))}
    try:
        result = RunCmd(
            [path], env=env, reset_env=reset_env, timeout=timeout, max_output=limits.max_output
        )
    except (OSError, errors.OpExecError, ValueError) as err:
        # ValueError: no process can have this environment (a zero byte, half a surrogate pair).
        return constants.RUNPARTS_ERR, str(err)
    return constants.RUNPARTS_RUN, result


def IsExecutable(path: str) -> bool:
    """Whether the path is a regular file that we may execute."""
    return os.path.isfile(path) and os.access(path, os.X_OK)


def EnsureDaemon(name: str) -> bool:
    """Start a daemon of the suite unless it runs; whether it runs then."""
    result = RunCmd([pathutils.DAEMON_UTIL, "check-and-start", name])
    if result.failed:
        logging.error(
            "Can't start daemon '%s', failure %s, output: %s",
            name,
            result.fail_reason,
            result.output,
        )
    return not result.failed


def StartDaemonProcess(
    cmd: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    output: str | None = None,
    pidfile: str | None = None,
) -> int:
    """Start a program that goes on without us, in a session of its own.

    Arguments: output = file that it appends its output to (default: none is kept); pidfile = file
    to write its pid to. The environment is built as by RunCmd.

    Returns: its pid. Raises: as RunCmd.
    """
    cmd_text = text.ShellQuoteArgs(cmd)
    _CheckForkAllowed(cmd_text)
    with contextlib.ExitStack() as stack:
        target: int | IO[bytes] = subprocess.DEVNULL
        if output is not None:
            target = stack.enter_context(open(output, "ab"))
        try:
            proc = subprocess.Popen(
                list(cmd),
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=target,
                cwd=cwd,
                env=BuildCmdEnvironment(env, False),
                start_new_session=True,
            )
        except FileNotFoundError as err:
            raise errors.OpExecError(
                f"Can't execute '{cmd[0]}': not found ({err.filename or cmd[0]})"
            ) from err
    logging.debug("Started %s, pid %s", cmd_text, proc.pid)
    # Somebody must take its exit status as long as we live, or it would stay as a zombie.
    child.StartReaper(proc)
    if pidfile is not None:
        io.WriteFile(pidfile, data=f"{proc.pid}\n", mode=0o644)
    return proc.pid


def RunInSeparateProcess(fn: Callable[..., object], *args: Any) -> bool:
    """Truth of fn(*args), found in a forked child: whatever it starts or changes ends there.

    Only for processes without threads.

    Raises: GenericError if the child ended in any other way.
    """
    pid = os.fork()
    if pid == 0:
        _RunAsChild(fn, args)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        reason = f"died from signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise errors.GenericError(f"Child process {reason}, see the log for its error")
    return code == 1


def _RunAsChild(fn: Callable[..., object], args: Sequence[Any]) -> NoReturn:
    code = _SEPARATE_PROCESS_ERROR
    try:
        code = 1 if fn(*args) else 0
    except BaseException:  # noqa: BLE001 - the end of a process
        logging.exception("Error while calling function in separate process")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# Other processes


def IsProcessAlive(pid: int) -> bool:
    """Whether there is a process of that id; zombies count, ids <= 0 don't exist."""
    assert isinstance(pid, int)
    return pid > 0 and os.path.exists(f"/proc/{pid}/status")


def KillProcess(
    pid: int, signal_: int = signal.SIGTERM, timeout: float = 30, waitpid: bool = False
) -> None:
    """End a process: the signal, then after C{timeout} seconds KILL.

    With timeout <= 0 the signal is sent and nothing else. A process that has ended but was not
    reaped by its parent counts as ended. Waiting is for exactly this process, a later one of the
    same id is safe.

    Arguments: waitpid = take its exit status, it is our child.

    Raises: ProgrammerError for a pid <= 0; PermissionError.
    """
    if pid <= 0:
        raise errors.ProgrammerError(f"Invalid pid {pid} to kill")
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        _SendSignal(pidfd, signal_)
        if timeout <= 0:
            return
        if not _WaitForExit(pidfd, timeout):
            logging.debug("Process %s did not end within %s s, killing it", pid, timeout)
            _SendSignal(pidfd, signal.SIGKILL)
            _WaitForExit(pidfd, _KILLED_GRACE)
        if waitpid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(pidfd)


def _SendSignal(pidfd: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signum)


def _WaitForExit(pidfd: int, timeout: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def GetSocketCredentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process at the other end of a UNIX socket."""
    form = "iII"
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    pid, uid, gid = struct.unpack(form, data)
    return pid, uid, gid


# Pid files


def ReadPidFile(path: str) -> int:
    """Process id in a file; 0 if the file is missing or no number can be read from it."""
    try:
        content = io.ReadOneLineFile(path)
        return int(content)
    except FileNotFoundError:
        return 0
    except (OSError, errors.GenericError, ValueError) as err:
        logging.warning("Can't read pid file %s: %s", path, err)
        return 0


def GetPidFileHolder(path: str) -> int:
    """Id of the live process that holds a flocked pid file; 0 if nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    except OSError as err:
        logging.warning("Can't read pid file %s: %s", path, err)
        return 0
    try:
        # Shared, so that two who look at the same time do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return 0
    except BlockingIOError:
        pid = ReadPidFile(path)
        return pid if IsProcessAlive(pid) else 0
    finally:
        os.close(fd)


class PidFile:
    """A pid file that is locked for as long as its process lives.

    Invariant: while it is held, the path names the very file that is locked, and it contains the
    id of the process that called Acquire, in decimal, with a newline.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def Acquire(self) -> None:
        """Lock the file and write our id to it.

        Raises: GenericError, naming the process, if another one holds it; OSError.
        """
        assert self._fd is None, "pid file is held already"
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._Lock(fd)
                if self._IsCurrent(fd):
                    # One short write: a reader sees the old content or the new.
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                    os.fsync(fd)
                    self._fd, fd = fd, -1
                    return
            finally:
                if fd >= 0:
                    os.close(fd)

    def _Lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = ReadPidFile(self.path)
            raise errors.GenericError(
                f"Pid file {self.path} is held by process {holder}: it is already running"
            ) from err

    def _IsCurrent(self, fd: int) -> bool:
        # The former holder may have removed the file between our opening and locking it.
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def Release(self) -> None:
        """Remove the file and give up the lock; errors are ignored."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._fd)
        self._fd = None

    def __enter__(self) -> "PidFile":
        self.Acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.Release()
