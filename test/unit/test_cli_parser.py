"""Command lines: commands, options, numbers of arguments, help."""

import pytest

from ganeti import constants, errors
from ganeti.client import gnt_cluster, gnt_debug, gnt_job, gnt_node, gnt_os, options, parser


def _Nothing(opts, args):
    return 0


def _Table(**extra):
    return {
        "list": parser.Command(
            _Nothing,
            parser.ARGS_MANY_NODES,
            (
                *options.LIST_OPTS,
                options.HVLIST_OPT,
                options.BACKEND_OPT,
                options.OS_SIZE_OPT,
                options.DISK_OPT.With(dest="disk"),
                options.DISKIDX_OPT,
                options.VERBOSE_OPT,
                options.FORCE_OPT,
            ),
            "[<node>...]",
            "Lists the nodes",
        ),
        "one": parser.Command(_Nothing, parser.ARGS_ONE_NODE, (), "<node>", "Takes a node"),
        **extra,
    }


def _Parse(*argv, table=None, aliases=None):
    return parser.ParseCommandLine("gnt-x", argv, table or _Table(), aliases or {})


class TestOptions:
    """The rules that scripts rely on."""

    def test_unambiguous_prefix(self):
        assert _Parse("list", "--no-head").options.no_headers is True

    def test_ambiguous_prefix(self, capsys):
        with pytest.raises(SystemExit) as info:
            _Parse("list", "--o")
        # --os-size and --output
        assert info.value.code == constants.EXIT_USAGE
        assert "ambiguous" in capsys.readouterr().err

    def test_exact_name_wins(self):
        assert _Parse("list", "--disk", "0:size=1").options.disk == [("0", {"size": "1"})]
        assert _Parse("list", "--disks", "0").options.disks == "0"

    def test_forms_of_values(self):
        for argv in (["-o", "a"], ["-oa"], ["--output=a"], ["--output", "a"]):
            assert _Parse("list", *argv).options.output == "a"

    def test_grouped_flags(self):
        opts = _Parse("list", "-vf").options
        assert (opts.verbose, opts.force) == (True, True)

    def test_options_end_at_the_first_argument(self):
        parsed = _Parse("list", "-f", "a", "-v")
        assert parsed.args == ["a", "-v"]
        assert parsed.options.verbose is False

    def test_double_dash_ends_options(self):
        assert _Parse("list", "--", "-v").args == ["-v"]

    def test_last_value_counts(self):
        assert _Parse("list", "-o", "a", "-o", "b").options.output == "b"

    def test_repeated_values_are_not_kept_for_the_next_command(self):
        first = _Parse("list", "-H", "kvm:acpi=true", "-H", "fake").options.hvparams
        assert first == [("kvm", {"acpi": "true"}), ("fake", {})]
        opts = _Parse("list").options
        assert opts.hvparams == []
        opts.beparams["memory"] = 1
        assert _Parse("list").options.beparams == {}

    def test_debug_counts(self):
        assert _Parse("list", "-dd").options.debug == 2

    @pytest.mark.parametrize("argv", [["--nosuch"], ["--format=xml"], ["-s", "abc"], ["-s"]])
    def test_bad_option_is_exit_code_two(self, argv, capsys):
        with pytest.raises(SystemExit) as info:
            _Parse("list", *argv)
        assert info.value.code == constants.EXIT_USAGE
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "gnt-x list [<node>...]" in captured.err
        assert "gnt-x: error: " in captured.err

    def test_bad_keyval_is_a_parameter_error(self):
        with pytest.raises(errors.ParameterError, match="-B"):
            _Parse("list", "-B", "a=1,a=2")

    def test_help_of_a_command(self, capsys):
        with pytest.raises(SystemExit) as info:
            _Parse("list", "--help")
        assert info.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith("Usage\n=====\n  gnt-x list [<node>...]\n")
        assert "\nOptions\n=======\n" in out
        for flag in ("--dry-run", "--debug", "-d", "--help", "--no-headers"):
            assert flag in out


class TestCommands:
    """Names of commands, version, help."""

    def test_version(self, capsys):
        assert _Parse("--version") == 0
        assert capsys.readouterr().out == "gnt-x (ganeti) 2.1.8\n"

    @pytest.mark.parametrize(
        ("argv", "code"), [([], 1), (["nosuch"], 1), (["li"], 1), (["--help"], 0), (["-h"], 0)]
    )
    def test_list_of_commands(self, argv, code, capsys):
        assert _Parse(*argv) == code
        captured = capsys.readouterr()
        assert captured.err == ""
        assert captured.out == (
            "Usage: gnt-x {command} [options...] [argument...]\n"
            "gnt-x <command> --help to see details, or man gnt-x\n\n"
            "Commands:\n list - Lists the nodes\n one  - Takes a node\n\n"
        )

    def test_mistyped(self, capsys):
        assert _Parse("lsit") == constants.EXIT_FAILURE
        printed = capsys.readouterr()
        assert printed.out.startswith("Usage: gnt-x")
        assert printed.err == "Error: gnt-x has no command 'lsit'; did you mean list?\n"

    def test_long_descriptions_are_wrapped(self):
        table = _Table(x=parser.Command(_Nothing, (), (), "", "many words " * 20))
        lines = parser.FormatUsage("gnt-x", table).splitlines()
        assert max(map(len, lines)) <= 79
        assert [line[:8] for line in lines if "many" in line][1] == " " * 8

    def test_alias(self, capsys):
        parsed = _Parse("first", aliases={"first": "one"})
        assert parsed == 1
        assert capsys.readouterr().err == "Error: Command one expects 1 argument(s)\n"
        assert _Parse("first", "n", aliases={"first": "one"}).name == "one"

    def test_bad_aliases(self):
        with pytest.raises(errors.ProgrammerError):
            parser.CheckTable(_Table(), {"list": "one"})
        with pytest.raises(errors.ProgrammerError):
            parser.CheckTable(_Table(), {"x": "nosuch"})

    def test_no_dry_run_where_nothing_stops_it(self, capsys):
        ran = []
        command = parser.Command(
            lambda opts, args: ran.append(1), (), (), "", "Acts at once", dry_run=False
        )
        assert _Parse("act", "--dry-run", table={"act": command}) == 1
        assert "no dry run" in capsys.readouterr().err
        assert ran == []


class TestArgCount:
    """How many arguments a command takes."""

    @pytest.mark.parametrize(
        ("declared", "count", "problem"),
        [
            ((), 0, None),
            ((), 1, "expects no arguments"),
            ((parser.ArgNode(1, 1),), 1, None),
            ((parser.ArgNode(1, 1),), 2, "expects 1 argument(s)"),
            ((parser.ArgNode(1, 1), parser.ArgFile(1, 1)), 1, "expects 2 argument(s)"),
            ((parser.ArgNode(1, 1), parser.ArgFile(0, 1)), 3, "expects only 2 argument(s)"),
            ((parser.ArgNode(1, 1), parser.ArgFile(0, 1)), 0, "expects at least 1 argument(s)"),
            ((parser.ArgNode(1),), 0, "expects at least 1 argument(s)"),
            ((parser.ArgNode(1),), 99, None),
        ],
    )
    def test_counts(self, declared, count, problem):
        found = parser.CheckArgCount("cmd", declared, count)
        assert found == (None if problem is None else f"Error: Command cmd {problem}")

    def test_option_after_an_argument(self, capsys):
        argv = ["modify", "node1", "-O", "yes"]
        parsed = parser.ParseCommandLine("gnt-node", argv, gnt_node.COMMANDS, {})
        assert parsed == constants.EXIT_FAILURE
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Error: Command modify expects 1 argument(s)"
        assert "Options go before all arguments" in lines[1]
        assert "-O" in lines[1]

    def test_only_the_last_may_be_unlimited(self):
        with pytest.raises(errors.ProgrammerError):
            parser.Command(_Nothing, (parser.ArgNode(), parser.ArgFile()), (), "", "")


class TestTables:
    """The tables of the programs hold together."""

    @pytest.mark.parametrize(
        "module", [gnt_cluster, gnt_node, gnt_os, gnt_job, gnt_debug], ids=lambda m: m.__name__
    )
    def test_every_command_parses_and_describes_itself(self, module):
        for name, command in module.COMMANDS.items():
            built = parser.BuildParser("gnt-x", name, command)
            assert name in built.format_help()
            assert command.description
            dests = [opt.dest for opt in command.AllOpts()]
            assert len(dests) == len(set(dests)), f"{name}: two options share an attribute"
            defaults = vars(built.get_default_values())
            assert set(dests) == set(defaults)
