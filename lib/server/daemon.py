"""What all daemons have in common: options, detaching, pid file, logging, signals, start and end.

A daemon is a check function, which may still refuse on the user's terminal, and an exec function,
which starts serving, says so (L{DaemonControl.Started}) and returns when it is told to stop.
Whoever started the daemon waits for that word: errors of a start are shown to the starter and are
in its exit code, not only in a log.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from .. import constants, errors, pathutils
from ..utils import io, log, net, process, text

#: options, arguments -> exit code; None and 0 = go on.
CheckFn = Callable[[argparse.Namespace, list[str]], int | None]
#: options, arguments, control -> exit code; None = 0.
ExecFn = Callable[[argparse.Namespace, list[str], "DaemonControl"], int | None]

_RUN_DIRS: Final = (
    (pathutils.RUN_GANETI_DIR, 0o755),
    (pathutils.BDEV_CACHE_DIR, 0o755),
    (pathutils.DISK_LINKS_DIR, 0o755),
    (pathutils.LOCK_DIR, 0o1777),
)
_OS_LOG_DIR: Final = (pathutils.LOG_OS_DIR, 0o750)

#: Directories that each daemon needs, with their modes.
DAEMON_DIRS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    constants.NODED: (*_RUN_DIRS, _OS_LOG_DIR),
    constants.CONFD: _RUN_DIRS,
    constants.RAPI: (*_RUN_DIRS, _OS_LOG_DIR),
    constants.MASTERD: ((pathutils.RUN_GANETI_DIR, 0o755), (pathutils.SOCKET_DIR, 0o700)),
}
#: Certificate (with its key) that a daemon with TLS uses unless told otherwise.
_DEFAULT_CERTIFICATES: Final = {
    constants.NODED: pathutils.NODED_CERT_FILE,
    constants.RAPI: pathutils.RAPI_CERT_FILE,
}
#: Daemons that stay in memory, to work when the disk is gone.
_LOCKED_DAEMONS: Final = frozenset([constants.NODED])

_SIGNALS_TO_STOP: Final = (signal.SIGTERM, signal.SIGINT)


class DaemonControl:
    """What an exec function gets: a way to say that the start is done, and the main loop.

    Stopping is sticky: once asked for it can't be taken back. Started and RequestStop may be called
    from any thread, the rest is for the main one.
    """

    def __init__(
        self,
        report: process.StartReport | None = None,
        reopen_log: Callable[[], object] = lambda: None,
    ) -> None:
        self._report = report or process.StartReport()
        self._reopen_log = reopen_log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stop_requested = False
        self.started = False

    def Started(self) -> None:
        """Tell the starter that the daemon serves now."""
        if not self.started:
            self.started = True
            _NotifyServiceManager("READY=1")
            self._report.Ok()

    @property
    def stopping(self) -> bool:
        """Whether the daemon was asked to stop."""
        return self._stop_requested

    def RequestStop(self) -> None:
        """Let the daemon end, as SIGTERM does."""
        self._stop_requested = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            # the loop may have ended meanwhile: then there is nothing to stop
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

    async def WaitForStop(self) -> None:
        """Return when the daemon was asked to stop."""
        assert self._stop is not None, "only inside of RunAsync"
        await self._stop.wait()

    def RunAsync(
        self,
        main: Callable[["DaemonControl"], Awaitable[int | None]],
        on_hup: Callable[[], object] | None = None,
    ) -> int:
        """Run a coroutine as main loop of the daemon.

        SIGTERM and SIGINT make WaitForStop return, SIGHUP reopens the log file and calls on_hup (in
        the loop). The daemon ends when C{main} returns.

        Returns: what the coroutine returned, 0 for None.
        """
        return asyncio.run(self._Supervise(main, on_hup))

    async def _Supervise(
        self,
        main: Callable[["DaemonControl"], Awaitable[int | None]],
        on_hup: Callable[[], object] | None,
    ) -> int:
        loop = asyncio.get_running_loop()
        self._loop, self._stop = loop, asyncio.Event()
        if self._stop_requested:
            self._stop.set()
        for signum in _SIGNALS_TO_STOP:
            loop.add_signal_handler(signum, self._OnStopSignal, signum)
        loop.add_signal_handler(signal.SIGHUP, self._OnHup, on_hup)
        try:
            return await main(self) or 0
        finally:
            for signum in (*_SIGNALS_TO_STOP, signal.SIGHUP):
                loop.remove_signal_handler(signum)
            self._loop = self._stop = None

    def _OnStopSignal(self, signum: int) -> None:
        logging.info("Received %s, stopping", signal.Signals(signum).name)
        self.RequestStop()

    def _OnHup(self, on_hup: Callable[[], object] | None) -> None:
        self._reopen_log()
        logging.info("Received SIGHUP, log file reopened")
        if on_hup is not None:
            on_hup()


def RunAsync(
    main: Callable[[DaemonControl], Awaitable[int | None]],
    on_hup: Callable[[], object] | None = None,
) -> int:
    """DaemonControl.RunAsync for a program that is no daemon."""
    return DaemonControl().RunAsync(main, on_hup)


def _NotifyServiceManager(message: str) -> None:
    """Tell systemd, if it started us, how we are (sd_notify)."""
    address = os.environ.pop("NOTIFY_SOCKET", None)
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode("ascii"), address)
        except OSError as err:
            logging.warning("Can't notify the service manager: %s", err)


# Options


def BuildParser(
    daemon_name: str, description: str = "", version: str = constants.RELEASE_VERSION
) -> argparse.ArgumentParser:
    """Parser with the options that this daemon shares with others; add its own ones to it.

    Arguments: version = what --version shows.
    """
    parser = argparse.ArgumentParser(prog=daemon_name, description=description or None)
    parser.add_argument(
        "-f",
        "--foreground",
        action="store_true",
        help="do not detach from the terminal",
    )
    parser.add_argument("-d", "--debug", action="store_true", help="log debug messages")
    parser.add_argument(
        "--syslog",
        choices=constants.SYSLOG_VALUES,
        default=constants.SYSLOG_USAGE,
        help="log to syslog also, or only (default: %(default)s)",
    )
    if daemon_name in constants.DAEMONS_PORTS:
        parser.add_argument(
            "-p",
            "--port",
            type=_Port,
            default=net.GetDaemonPort(daemon_name),
            help="network port (default: %(default)s)",
        )
        parser.add_argument(
            "-b",
            "--bind",
            metavar="ADDRESS",
            default="",
            help="address to serve (default: all of this host)",
        )
    if daemon_name in constants.DAEMONS_SSL:
        certificate = _DEFAULT_CERTIFICATES[daemon_name]
        parser.add_argument(
            "--no-ssl", dest="ssl", action="store_false", help="do not use TLS: for tests only"
        )
        parser.add_argument(
            "-K",
            "--ssl-key",
            metavar="FILE",
            default=certificate,
            help="private key, PEM (default: %(default)s)",
        )
        parser.add_argument(
            "-C",
            "--ssl-cert",
            metavar="FILE",
            default=certificate,
            help="certificate, PEM (default: %(default)s)",
        )
    if daemon_name in _LOCKED_DAEMONS:
        parser.add_argument(
            "--no-mlock",
            dest="mlock",
            action="store_false",
            help="do not lock the daemon's memory",
        )
    parser.add_argument("--version", action="version", version=f"%(prog)s (ganeti) {version}")
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    return parser


def _Port(value: str) -> int:
    port = int(value)
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{value} is no port: must be between 1 and 65535")
    return port


def CheckSslOptions(options: argparse.Namespace) -> str | None:
    """What is wrong with the TLS options; None if nothing is."""
    if not getattr(options, "ssl", False):
        return None
    for option, what, path in (
        ("--ssl-key", "key", options.ssl_key),
        ("--ssl-cert", "certificate", options.ssl_cert),
    ):
        if not path:
            return f"No TLS {what} given: name a file with {option}, or use --no-ssl"
        if not os.path.isfile(path):
            return (
                f"TLS {what} file '{path}' does not exist: this host is no node of a cluster yet,"
                f" or {option} is wrong"
            )
    return None


def RefuseArguments(options: argparse.Namespace, args: list[str]) -> int | None:
    """Check function of a daemon that takes no arguments."""
    if args:
        sys.stderr.write("Too many arguments: this daemon takes options only\n")
        return constants.EXIT_FAILURE
    return None


# Life


def GenericMain(
    daemon_name: str,
    parser: argparse.ArgumentParser,
    dirs: Sequence[tuple[str, int]],
    check_fn: CheckFn,
    exec_fn: ExecFn,
    console_logging: bool = False,
    argv: Sequence[str] | None = None,
) -> int:
    """Be a daemon.

    Arguments:
      - parser: from BuildParser, perhaps with more options
      - dirs: directories to make, with their modes (DAEMON_DIRS[daemon_name] for ours)
      - check_fn: looks at options and arguments while there is still a terminal
      - exec_fn: serves until it is told to stop
      - console_logging: log to the console what can't be written to the log file

    Returns: exit code for the process. In the process that a user started, the one that the daemon
    reported; that process never returns from here unless in the foreground.
    """
    multithreaded = daemon_name in constants.MULTITHREADED_DAEMONS
    if multithreaded:
        process.DisableFork(f"{daemon_name} runs several threads and leaves this to node daemons")
    options = parser.parse_args(argv)
    args: list[str] = options.args

    problem = CheckSslOptions(options)
    if problem is not None:
        sys.stderr.write(problem + "\n")
        return constants.EXIT_FAILURE
    code = check_fn(options, args)
    if code:
        return code

    logfile = pathutils.DAEMONS_LOGFILES[daemon_name]
    try:
        _EnsureDirectories(dirs, logfile)
        report = _Detach(options, logfile)
    except (OSError, errors.GenericError) as err:
        sys.stderr.write(f"{daemon_name} can't be started: {errors.FormatError(err)}\n")
        return constants.EXIT_FAILURE
    if pathutils.IsVirtual():
        _PreferOwnInterpreter()

    _RaiseFileLimit()
    pid_file = process.PidFile(pathutils.DaemonPidFile(daemon_name))
    try:
        pid_file.Acquire()
        reopen_log = log.SetupLogging(
            logfile,
            debug=options.debug,
            stderr_logging=options.foreground,
            program=daemon_name,
            multithreaded=multithreaded,
            syslog=options.syslog,
            console_logging=console_logging,
        )
    except (OSError, errors.GenericError) as err:
        pid_file.Release()
        return _FailStart(report, f"{daemon_name} can't be started: {errors.FormatError(err)}")
    control = DaemonControl(report, reopen_log)
    try:
        code, message = _Serve(daemon_name, options, args, exec_fn, control)
    finally:
        pid_file.Release()
    if control.started:
        return code
    # Only now: whoever hears of the failure must not find the daemon running by its pid file.
    return _FailStart(report, message, code)


def _EnsureDirectories(dirs: Sequence[tuple[str, int]], logfile: str) -> None:
    for path in (*(path for path, _ in dirs), pathutils.RUN_GANETI_DIR, logfile):
        # What lies above is the system's or of our package, but may be on a fresh tmpfs.
        io.Makedirs(os.path.dirname(path), mode=0o755)
    io.EnsureDirs(dirs)
    if not os.path.isdir(pathutils.RUN_GANETI_DIR):
        io.EnsureDirs([(pathutils.RUN_GANETI_DIR, 0o755)])


def _Detach(options: argparse.Namespace, logfile: str) -> process.StartReport:
    if options.foreground:
        return process.StartReport()
    process.CloseFDs()
    return process.Daemonize(logfile)


def _RaiseFileLimit() -> None:
    """Have as many files open as the administrator lets us: a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def RemoveUnfinishedFiles() -> None:
    """Remove what a process of ours left behind when it was killed while it wrote a file."""
    for directory in (pathutils.DATA_DIR, pathutils.QUEUE_DIR):
        if os.path.isdir(directory):
            io.RemoveUnfinished(directory)


def _PreferOwnInterpreter() -> None:
    """Let the suite's executables, started by us, run with the interpreter that runs us."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    own = os.path.dirname(sys.executable)
    os.environ["PATH"] = os.pathsep.join(text.UniqueSequence([own, *path]))


def _FailStart(
    report: process.StartReport, message: str, code: int = constants.EXIT_FAILURE
) -> int:
    if not report.detached and message:
        sys.stderr.write(message + "\n")
    report.Failed(message, code)
    return code


def _Serve(
    daemon_name: str,
    options: argparse.Namespace,
    args: list[str],
    exec_fn: ExecFn,
    control: DaemonControl,
) -> tuple[int, str]:
    """Exit code, and what to tell the starter if the daemon never served."""
    logging.info("%s daemon startup", daemon_name)
    message = ""
    try:
        if getattr(options, "mlock", False):
            _LockMemory()
        code = exec_fn(options, args, control) or 0
    except SystemExit as err:
        code = _ExitCode(err)
        message = err.code if isinstance(err.code, str) else ""
    except Exception as err:  # noqa: BLE001 - the boundary of the process
        logging.exception("%s ends because of an error", daemon_name)
        code = constants.EXIT_FAILURE
        message = f"{daemon_name} can't be started: {errors.FormatError(err)}"
    logging.info("%s daemon shutdown", daemon_name)
    return code, message


def _LockMemory() -> None:
    try:
        process.Mlockall()
    except errors.NoCtypesError as err:
        logging.warning("%s", errors.FormatError(err))


def _ExitCode(err: SystemExit) -> int:
    code: Any = err.code
    if code is None:
        return constants.EXIT_SUCCESS
    return code if isinstance(code, int) else constants.EXIT_FAILURE
