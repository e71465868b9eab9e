"""Where log records go: a file, syslog, standard error, and the console when the disk is gone.

Design: "Node daemon availability" of 2.1. A daemon whose disk fails must go on and be able to say
why, so writing a record never raises, and what the file does not take goes to the console.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from typing import Final

from .. import constants, pathutils
from . import io, logwriter

#: Names that came from outside may hold anything: a log stays a text. Lines are left alone.
_CONTROLS: Final = {
    code: f"\\x{code:02x}"
    for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))
    if code not in b"\t\n"
}


class LogFileHandler(logging.Handler):
    """Appends each record to a file by one write, unbuffered.

    With a console, a record that the file refuses is written there, and so is one that the file
    does not take in time: then a thread of its own does the writing, for a disk may also hang. The
    console is opened beforehand, since nothing may be possible any more when it is needed.
    """

    def __init__(self, file_name: str, console: str | None = None) -> None:
        """Open the log file (made with mode 0600).

        Arguments: console = device for records that can't be written, None for none.

        Raises: OSError for the log file; a console that can't be opened is done without.
        """
        super().__init__()
        self.file_name = file_name
        self._fd = _OpenForAppending(file_name)
        self._console_fd: int | None = None
        self._writer: logwriter.PatientWriter | None = None
        if console is not None:
            self._writer = logwriter.PatientWriter(self._WriteLine, logwriter.PATIENCE)
            with contextlib.suppress(OSError):
                self._console_fd = os.open(console, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record).translate(_CONTROLS) + "\n"
        except Exception:  # noqa: BLE001 - a bad format must not stop who logs
            self.handleError(record)
            return
        if self._writer is None:
            self._WriteLine(line)
        elif not self._writer.Write(line):
            self._WriteToConsole(f"Cannot log message to {self.file_name} yet: it hangs:\n{line}")

    def _WriteLine(self, line: str) -> None:
        try:
            io.WriteAll(self._fd, line.encode("utf-8", "backslashreplace"))
        except OSError as err:
            self._WriteToConsole(f"Cannot log message to {self.file_name}: {err}:\n{line}")

    def _WriteToConsole(self, message: str) -> None:
        if self._console_fd is not None:
            with contextlib.suppress(OSError):
                io.WriteAll(self._console_fd, message.encode("utf-8", "backslashreplace"))

    def fileno(self) -> int:
        """Descriptor of the log file."""
        return self._fd

    def Reopen(self) -> None:
        """Go on in a new file of the same name, after the old one was renamed by log rotation.

        Descriptors 1 and 2 follow if they wrote to the old file. If the new one can't be opened,
        logging goes on in the old one.
        """
        try:
            new_fd = _OpenForAppending(self.file_name)
        except OSError:
            logging.exception("Can't reopen log file %s", self.file_name)
            return
        with self.lock or contextlib.nullcontext():
            old = os.fstat(self._fd)
            for stream in (1, 2):
                with contextlib.suppress(OSError):
                    if os.path.samestat(os.fstat(stream), old):
                        os.dup2(new_fd, stream)
            os.dup2(new_fd, self._fd, inheritable=False)
            os.close(new_fd)

    def close(self) -> None:
        """Close file and console."""
        if self._writer is not None and not self._writer.Close():
            # Still in use.
            self._fd = -1
        for fd in (self._fd, self._console_fd):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = -1
        self._console_fd = None
        super().close()


class _SyslogHandler(logging.handlers.SysLogHandler):
    """Sends to syslog; what it does not take, for it is being restarted, is lost."""

    def __init__(self, path: str) -> None:
        os.stat(path)  # the library would not complain before the first record
        super().__init__(path, logging.handlers.SysLogHandler.LOG_DAEMON)

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: standard error is the log file, which has the record already."""


def _OpenForAppending(file_name: str) -> int:
    return os.open(file_name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def FileFormat(program: str, multithreaded: bool, debug: bool) -> str:
    """Format of lines in log files and on standard error."""
    return "".join(
        [
            f"%(asctime)s: {_Escape(program)} pid=%(process)d",
            "/%(threadName)s" if multithreaded else "",
            " %(module)s:%(lineno)s" if debug else "",
            " %(levelname)s %(message)s",
        ]
    )


def SyslogFormat(program: str, multithreaded: bool) -> str:
    """Format of what is sent to syslog."""
    thread = " (%(threadName)s)" if multithreaded else ""
    return f"{_Escape(program)}[%(process)d]:{thread} %(levelname)s %(message)s"


def _Escape(program: str) -> str:
    return program.replace("%", "%%")


def SetupLogging(
    logfile: str | None,
    debug: int | bool = 0,
    stderr_logging: bool = False,
    program: str = "",
    multithreaded: bool = False,
    syslog: str = constants.SYSLOG_USAGE,
    console_logging: bool = False,
    console: str = pathutils.DEV_CONSOLE,
    syslog_socket: str = pathutils.SYSLOG_SOCKET,
) -> Callable[[], None]:
    """Send log records where they belong; all handlers that were there are removed.

    Arguments:
      - logfile: path, None for no file
      - debug: log debug messages (not to syslog)
      - stderr_logging: also to standard error: everything in debug mode, else only critical ones
      - program: name in each line
      - multithreaded: name the thread in each line
      - syslog: SYSLOG_NO, SYSLOG_YES, or SYSLOG_ONLY (then there is no file)
      - console_logging: records that can't be written to the file go to the console

    Returns: function that reopens the log file (does nothing without one).

    Raises: OSError if the log file or syslog can't be opened and there is nowhere else to log to.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    formatter = logging.Formatter(FileFormat(program, multithreaded, bool(debug)))

    if stderr_logging:
        stderr_handler = logging.StreamHandler(sys.stderr)
        stderr_handler.setFormatter(formatter)
        stderr_handler.setLevel(logging.NOTSET if debug else logging.CRITICAL)
        root.addHandler(stderr_handler)

    if syslog in (constants.SYSLOG_YES, constants.SYSLOG_ONLY):
        try:
            syslog_handler = _SyslogHandler(syslog_socket)
        except OSError:
            if syslog == constants.SYSLOG_ONLY and not stderr_logging:
                raise
            logging.exception("Can't open syslog socket %s", syslog_socket)
        else:
            syslog_handler.setFormatter(logging.Formatter(SyslogFormat(program, multithreaded)))
            syslog_handler.setLevel(logging.INFO)
            root.addHandler(syslog_handler)

    if logfile is None or syslog == constants.SYSLOG_ONLY:
        return _NothingToReopen
    try:
        file_handler = LogFileHandler(logfile, console if console_logging else None)
    except OSError:
        if not root.handlers:
            raise
        logging.exception("Failed to enable logging to file '%s'", logfile)
        return _NothingToReopen
    file_handler.setFormatter(formatter)
    file_handler.setLevel(logging.DEBUG if debug else logging.INFO)
    root.addHandler(file_handler)
    return file_handler.Reopen


def _NothingToReopen() -> None:
    return
