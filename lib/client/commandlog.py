"""The log of commands: who ran what, and how it failed.

Most commands write one line, and load nothing for it; those that do work themselves, and those with
C{-d}, log in full through the logging module, to the same file and in the same form.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Final

from .. import pathutils

_MODE: Final = 0o600
#: Values of parameters with such names are no business of a log.
_SECRET: Final = re.compile(
    r"(?i)((?:^|[,:])[^=,:]*(?:password|passwd|secret)(?!_file)[^=,:]*=)[^,]*"
)
_SECRET_OPTION: Final = re.compile(r"(?i)(--?[a-z-]*(?:password|secret)(?!-file)[a-z-]*=).*")
#: Rotated once, when it has become that long: 8 MiB.
_MAX_SIZE: Final = 8 * 1024 * 1024


def HideSecrets(args: Sequence[str]) -> list[str]:
    """The arguments with the values of secret parameters left out."""
    return [_SECRET_OPTION.sub(r"\1***", _SECRET.sub(r"\1***", arg)) for arg in args]


def FormatArguments(args: Sequence[str]) -> str:
    """The first record of a command."""
    if not args:
        return "run with no arguments"
    return f"run with arguments '{' '.join(HideSecrets(args))}'"


def FormatRecord(now: float, pid: int, program: str, level: str, message: str) -> str:
    """A line in the form of L{utils.log.FileFormat}."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    return f"{clock},{int(now * 1000) % 1000:03d}: {program} pid={pid} {level} {message}\n"


class CommandLog:
    """The log of one command. A log that can not be written never stops a command."""

    def __init__(self, program: str, path: str = pathutils.LOG_COMMANDS) -> None:
        """@param program: program and command, named in each line"""
        self._program = program
        self._path = path
        self._full = False

    def Start(self, args: Sequence[str], debug: int = 0, full: bool = False) -> None:
        """Write the first record.

        @param debug: also log to standard error
        @param full: what other modules log is wanted
        """
        self._Rotate()
        if full or debug:
            self._SetupLogging(debug)
        self._Write("INFO", FormatArguments(args))

    def Error(self, message: str, exc: BaseException | None = None) -> None:
        """Write how the command failed.

        @param exc: its traceback is added
        """
        if exc is not None:
            import traceback

            message = f"{message}\n{''.join(traceback.format_exception(exc))}".rstrip("\n")
        self._Write("ERROR", message)

    def _SetupLogging(self, debug: int) -> None:
        from ..utils import log

        with contextlib.suppress(OSError):
            log.SetupLogging(self._path, debug=debug, stderr_logging=True, program=self._program)
            self._full = True

    def _Write(self, level: str, message: str) -> None:
        if self._full:
            import logging

            logging.log(getattr(logging, level), "%s", message)
            return
        record = FormatRecord(time.time(), os.getpid(), self._program, level, message)
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
            try:
                os.write(fd, record.encode("utf-8", "backslashreplace"))
            finally:
                os.close(fd)

    def _Rotate(self) -> None:
        with contextlib.suppress(OSError):
            if os.stat(self._path).st_size > _MAX_SIZE:
                os.rename(self._path, f"{self._path}.1")


def ProgramName(argv0: str) -> str:
    """Name of a program from the path it was started by."""
    return os.path.basename(argv0) or os.path.basename(sys.executable)
