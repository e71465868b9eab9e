"""What every gnt-* program does: understand, log, run, say how it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .. import constants, errors
from . import commandlog, console, failures, parser


def GenericMain(
    commands: parser.CommandTable,
    aliases: Mapping[str, str] | None = None,
    override: Mapping[str, Any] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run one command of a program.

    @param commands: the program's table
    @param aliases: other names of commands
    @param override: values set on the options of every command, e.g. C{tag_type}
    @param argv: program and arguments; by default those of this process
    @return: the exit code
    """
    argv = sys.argv if argv is None else argv
    program = commandlog.ProgramName(argv[0])
    aliases = aliases or {}
    parser.CheckTable(commands, aliases)
    try:
        parsed = parser.ParseCommandLine(program, argv[1:], commands, aliases)
    except errors.GenericError as err:
        return _Report(err, None)
    if isinstance(parsed, int):
        return parsed
    for name, value in (override or {}).items():
        setattr(parsed.options, name, value)
    log = commandlog.CommandLog(f"{program} {parsed.name}")
    log.Start(argv[2:], parsed.options.debug, parsed.command.local)
    try:
        code = parsed.command.fn(parsed.options, parsed.args)
    except failures.KNOWN as err:
        return _Report(err, log)
    except BrokenPipeError:
        # Whoever read our output has enough of it; what is left must not raise it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return constants.EXIT_FAILURE
    except Exception as err:
        log.Error("Unhandled exception", err)
        raise
    return constants.EXIT_SUCCESS if code is None else code


def _Report(err: BaseException, log: commandlog.CommandLog | None) -> int:
    code, message = failures.FormatError(err)
    console.ToStderr(message)
    if log is not None and code != constants.EXIT_SUCCESS:
        # Where the user interrupted us is of no interest to anybody
        cause = err if isinstance(err, errors.GenericError) else None
        log.Error(f"Error during command processing: {message}", cause)
    return code
