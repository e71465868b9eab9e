"""From a command line to a command, its options and its arguments.

A program is a table: name of a command -> L{Command}, plus aliases. Parsing, help, completion and
manual pages come from the table alone.

optparse does the parsing since its rules are those that scripts rely on: long options can be
abbreviated while that is not ambiguous, options end at the first argument (C{gnt-cluster command}
hands everything after it on untouched), a bad option is exit code 2.
"""

from __future__ import annotations

import copy
import optparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from .. import constants, errors
from ..utils import text
from . import options, values

#: Options that were parsed.
Values = optparse.Values
#: A command's function: options and arguments -> exit code, None for success.
CommandFn = Callable[[Any, list[str]], int | None]

#: Columns of a terminal that help is made for.
_WIDTH: Final = 79
_MAX_NAME_WIDTH: Final = 60


# Arguments


class Arg:
    """A run of arguments of one kind.

    @ivar kind: what they are, for help and completion; values are checked by the command
    @ivar min: how many there must be
    @ivar max: how many there may be, None for any number
    @ivar choices: for the kinds choice and suggest
    """

    __slots__ = ("choices", "kind", "max", "min")

    def __init__(
        self,
        kind: str,
        min: int = 0,
        max: int | None = None,
        choices: Sequence[str] = (),  # noqa: A002
    ) -> None:
        self.kind = kind
        self.min = min
        self.max = max
        self.choices = tuple(choices)

    def __repr__(self) -> str:
        return f"<Arg {self.kind} {self.min}..{'*' if self.max is None else self.max}>"


def ArgInstance(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Names of instances."""
    return Arg("instance", min, max)


def ArgNode(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Names of nodes."""
    return Arg("node", min, max)


def ArgJobId(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Job ids."""
    return Arg("job_id", min, max)


def ArgOs(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Operating systems."""
    return Arg("os", min, max)


def ArgHost(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Host names that are to be resolved."""
    return Arg("host", min, max)


def ArgFile(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Files."""
    return Arg("file", min, max)


def ArgCommand(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Words of a command of the operating system."""
    return Arg("command", min, max)


def ArgUnknown(min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Anything."""
    return Arg("argument", min, max)


def ArgChoice(choices: Sequence[str], min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """One of some words; the command checks that."""
    return Arg("choice", min, max, choices)


def ArgSuggest(choices: Sequence[str], min: int = 0, max: int | None = None) -> Arg:  # noqa: A002
    """Anything; some words are offered."""
    return Arg("suggest", min, max, choices)


ARGS_NONE: Final[tuple[Arg, ...]] = ()
ARGS_ONE_INSTANCE: Final = (ArgInstance(1, 1),)
ARGS_MANY_INSTANCES: Final = (ArgInstance(),)
ARGS_ONE_NODE: Final = (ArgNode(1, 1),)
ARGS_MANY_NODES: Final = (ArgNode(),)
ARGS_ONE_OS: Final = (ArgOs(1, 1),)


def CheckArgCount(command: str, declared: Sequence[Arg], count: int) -> str | None:
    """What is wrong with the number of arguments, None if nothing is."""
    least = sum(arg.min for arg in declared)
    most: int | None = 0
    for arg in declared:
        most = None if most is None or arg.max is None else most + arg.max
    if most == 0 and count:
        return f"Error: Command {command} expects no arguments"
    if least == most and count != least:
        return f"Error: Command {command} expects {least} argument(s)"
    if most is not None and count > most:
        return f"Error: Command {command} expects only {most} argument(s)"
    if count < least:
        return f"Error: Command {command} expects at least {least} argument(s)"
    return None


# Commands


class Command:
    """One command of a program.

    @ivar fn: what it does
    @ivar args: the arguments it takes; only the last run may be without limit
    @ivar opts: its options; C{--debug} and C{--dry-run} come to all of them
    @ivar usage: what follows the command's name in the usage line
    @ivar description: what it does, in one sentence
    @ivar dry_run: is C{--dry-run} of any use: False refuses it, since what the command does takes
        effect at once and has no check to stop after
    @ivar local: does work in this process, whose log messages are wanted; then and with C{-d} only
        is the logging module loaded
    """

    __slots__ = ("args", "description", "dry_run", "fn", "local", "opts", "usage")

    def __init__(
        self,
        fn: CommandFn,
        args: Sequence[Arg],
        opts: Sequence[options.Opt],
        usage: str,
        description: str,
        *,
        dry_run: bool = True,
        local: bool = False,
    ) -> None:
        for arg in args[:-1]:
            if arg.max is None:
                raise errors.ProgrammerError("Only the last argument may have no limit")
        self.fn = fn
        self.args = tuple(args)
        self.opts = tuple(opts)
        self.usage = usage
        self.description = description
        self.dry_run = dry_run
        self.local = local

    def AllOpts(self) -> list[options.Opt]:
        """Its options and those of all commands."""
        return [*self.opts, options.DRY_RUN_OPT, options.DEBUG_OPT]


CommandTable = Mapping[str, Command]


def CheckTable(commands: CommandTable, aliases: Mapping[str, str]) -> None:
    """Refuse aliases that hide a command or lead nowhere.

    @raise errors.ProgrammerError: there are such
    """
    for alias, name in aliases.items():
        if alias in commands:
            raise errors.ProgrammerError(f"Alias '{alias}' overrides an existing command")
        if name not in commands:
            raise errors.ProgrammerError(f"Alias '{alias}' maps to '{name}', which is no command")


# Options


def _CheckUnit(option: optparse.Option, opt: str, value: str) -> int:
    try:
        return text.ParseUnit(value)
    except errors.UnitParseError as err:
        raise optparse.OptionValueError(f"option {opt}: {err}") from err


def _CheckBool(option: optparse.Option, opt: str, value: str) -> bool:
    return values.ParseBool(opt, value)


def _CheckKeyVal(option: optparse.Option, opt: str, value: str) -> dict[str, Any]:
    return values.ParseKeyVal(opt, value)


def _CheckIdentKeyVal(option: optparse.Option, opt: str, value: str) -> tuple[str, Any]:
    return values.ParseIdentKeyVal(opt, value)


class _Option(optparse.Option):
    TYPES = (
        *optparse.Option.TYPES,
        options.TYPE_UNIT,
        options.TYPE_BOOL,
        options.TYPE_KEYVAL,
        options.TYPE_IDENTKEYVAL,
    )
    TYPE_CHECKER = {
        **optparse.Option.TYPE_CHECKER,
        options.TYPE_UNIT: _CheckUnit,
        options.TYPE_BOOL: _CheckBool,
        options.TYPE_KEYVAL: _CheckKeyVal,
        options.TYPE_IDENTKEYVAL: _CheckIdentKeyVal,
    }


class _Parser(optparse.OptionParser):
    def get_default_values(self) -> optparse.Values:
        # The declared lists and dictionaries are shared by everybody; optparse appends to them.
        return copy.deepcopy(super().get_default_values())

    def error(self, msg: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(constants.EXIT_USAGE, f"{self.get_prog_name()}: error: {msg}\n")


def BuildParser(program: str, name: str, command: Command) -> optparse.OptionParser:
    """The parser of one command's options."""
    parser = _Parser(
        option_class=_Option,
        prog=program,
        usage=f"%prog {name} {command.usage}".rstrip(),
        description=command.description,
        formatter=optparse.TitledHelpFormatter(width=_WIDTH),
    )
    parser.disable_interspersed_args()
    for opt in command.AllOpts():
        parser.add_option(*opt.flags, **opt.settings)
    return parser


# Programs


def FormatVersion(program: str) -> str:
    """What C{--version} prints."""
    return f"{program} (ganeti) {constants.RELEASE_VERSION}"


def FormatUsage(program: str, commands: CommandTable) -> str:
    """The list of a program's commands."""
    import textwrap

    lines = [
        f"Usage: {program} {{command}} [options...] [argument...]",
        f"{program} <command> --help to see details, or man {program}",
        "",
        "Commands:",
    ]
    width = min(_MAX_NAME_WIDTH, max(len(name) for name in commands))
    for name in sorted(commands):
        described = textwrap.wrap(commands[name].description, _WIDTH - 4 - width) or [""]
        lines.append(f" {name:<{width}} - {described[0]}")
        lines += [" " * (width + 4) + more for more in described[1:]]
    lines.append("")
    return "\n".join(lines)


def SuggestCommand(program: str, name: str | None, known: Iterable[str]) -> str | None:
    """What to say of a mistyped command; None if none looks like it; pure."""
    import difflib

    alike = difflib.get_close_matches(name or "", known, cutoff=0.7)
    if not alike:
        return None
    return f"Error: {program} has no command '{name}'; did you mean {' or '.join(alike)}?"


class Parsed:
    """A command line that was understood.

    @ivar name: the command, with no alias any more
    """

    __slots__ = ("args", "command", "name", "options")

    def __init__(self, name: str, command: Command, options_: Values, args: list[str]) -> None:
        self.name = name
        self.command = command
        self.options = options_
        self.args = args


def ParseCommandLine(
    program: str, argv: Sequence[str], commands: CommandTable, aliases: Mapping[str, str]
) -> Parsed | int:
    """Understand a command line, or say why not and return the exit code.

    @param argv: without the program
    @raise SystemExit: a bad option (2) or C{--help} of a command (0), after printing
    @raise errors.ParameterError: a wrong value of an option
    """
    first = argv[0] if argv else None
    if first == "--version":
        print(FormatVersion(program))
        return constants.EXIT_SUCCESS
    name = aliases.get(first, first) if first is not None else None
    if name is None or name not in commands:
        print(FormatUsage(program, commands))
        asked = first in ("--help", "-h", "help")
        suggestion = None if asked else SuggestCommand(program, first, [*commands, *aliases])
        if suggestion is not None:
            print(suggestion, file=sys.stderr)
        return constants.EXIT_SUCCESS if asked else constants.EXIT_FAILURE
    command = commands[name]
    opts, args = BuildParser(program, name, command).parse_args(list(argv[1:]))
    problem = CheckArgCount(name, command.args, len(args))
    late = next((arg for arg in args if arg.startswith("-") and arg != "-"), None)
    if problem is not None and late is not None:
        problem += f"\nOptions go before all arguments, so {late} was taken for one of these"
    if problem is None and opts.dry_run and not command.dry_run:
        problem = f"Error: Command {name} has no dry run: what it does takes effect at once"
    if problem is not None:
        sys.stderr.write(problem + "\n")
        return constants.EXIT_FAILURE
    return Parsed(name, command, opts, args)
