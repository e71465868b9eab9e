"""What every program does: run a command, log it, end with the right exit code."""

import os
import re
import stat
import subprocess
import sys

import pytest

from ganeti import errors
from ganeti.client import commandlog, failures, main, parser


def _Program(fn, **kwargs):
    return {"act": parser.Command(fn, (parser.ArgUnknown(),), (), "", "Acts", **kwargs)}


@pytest.fixture
def log_file(tmp_path, monkeypatch):
    path = tmp_path / "commands.log"
    init = commandlog.CommandLog.__init__
    monkeypatch.setattr(
        commandlog.CommandLog, "__init__", lambda self, program: init(self, program, str(path))
    )
    return path


class TestMain:
    """Exit codes and streams."""

    def _Run(self, fn, *args):
        return main.GenericMain(_Program(fn), argv=["/usr/sbin/gnt-x", "act", *args])

    def test_nothing_returned_is_success(self, log_file):
        assert self._Run(lambda opts, args: None) == 0

    def test_code_of_the_command(self, log_file):
        assert self._Run(lambda opts, args: 13) == 13

    @pytest.mark.parametrize(
        ("err", "code"),
        [
            (errors.OpExecError("x"), 1),
            (errors.ConfigurationError("x"), 2),
            (failures.JobSubmittedException("5"), 0),
            (failures.JobsGoOn("5"), 1),
            (KeyboardInterrupt(), 1),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_errors(self, log_file, capsys, err, code):
        def Fail(opts, args):
            raise err

        assert self._Run(Fail) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == failures.FormatError(err)[1] + "\n"

    def test_a_mistake_of_the_program_is_logged_and_not_hidden(self, log_file):
        def Fail(opts, args):
            raise ZeroDivisionError("oops")

        with pytest.raises(ZeroDivisionError):
            self._Run(Fail)
        assert "ZeroDivisionError: oops" in log_file.read_text()

    def test_options_that_the_program_sets(self, log_file):
        seen = []
        main.GenericMain(
            _Program(lambda opts, args: seen.append((opts.tag_type, args))),
            override={"tag_type": "node"},
            argv=["gnt-x", "act", "a"],
        )
        assert seen == [("node", ["a"])]

    def test_wrong_parameter_before_the_command_runs(self, capsys):
        from ganeti.client import options

        table = {"act": parser.Command(lambda o, a: 0, (), (options.BACKEND_OPT,), "", "Acts")}
        assert main.GenericMain(table, argv=["gnt-x", "act", "-B", "a=1,a=2"]) == 1
        assert capsys.readouterr().err.startswith("Failure: unknown/wrong parameter name '")


class TestCommandLog:
    """Who ran what."""

    def test_first_record(self, log_file):
        main.GenericMain(_Program(lambda o, a: 0), argv=["/sbin/gnt-x", "act", "--", "a", "b c"])
        main.GenericMain(_Program(lambda o, a: 0), argv=["gnt-x", "act"])
        first, second = log_file.read_text().splitlines()
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: gnt-x act pid=\d+ INFO"
            r" run with arguments '-- a b c'",
            first,
        )
        assert second.endswith("INFO run with no arguments")

    def test_only_root_reads_it(self, log_file):
        main.GenericMain(_Program(lambda o, a: 0), argv=["gnt-x", "act"])
        assert stat.S_IMODE(log_file.stat().st_mode) == 0o600

    def test_errors_are_logged(self, log_file):
        def Fail(opts, args):
            raise errors.OpExecError("no way")

        main.GenericMain(_Program(Fail), argv=["gnt-x", "act"])
        text = log_file.read_text()
        assert "ERROR Error during command processing: Failure: command execution error:" in text
        assert "Traceback" in text

    def test_a_log_that_can_not_be_written_stops_nothing(self, monkeypatch):
        init = commandlog.CommandLog.__init__
        monkeypatch.setattr(
            commandlog.CommandLog, "__init__", lambda self, program: init(self, program, "/no/dir")
        )
        assert main.GenericMain(_Program(lambda o, a: 0), argv=["gnt-x", "act"]) == 0
        assert main.GenericMain(_Program(lambda o, a: 0), argv=["gnt-x", "act", "-d"]) == 0

    def test_debug_goes_to_standard_error_too(self, log_file, capsys):
        import logging

        def Act(opts, args):
            logging.debug("details")

        handlers = logging.getLogger().handlers[:]
        try:
            main.GenericMain(_Program(Act), argv=["gnt-x", "act", "-d"])
        finally:
            for handler in logging.getLogger().handlers:
                if handler not in handlers:
                    handler.close()
            logging.getLogger().handlers[:] = handlers
        err = capsys.readouterr().err
        assert "run with arguments '-d'" in err
        assert "DEBUG details" in err
        assert "DEBUG details" in log_file.read_text()

    def test_a_long_log_makes_room(self, log_file, monkeypatch):
        monkeypatch.setattr(commandlog, "_MAX_SIZE", 10)
        log_file.write_text("x" * 11)
        main.GenericMain(_Program(lambda o, a: 0), argv=["gnt-x", "act"])
        assert "x" * 11 not in log_file.read_text()
        assert log_file.with_name("commands.log.1").read_text() == "x" * 11

    @pytest.mark.parametrize(
        ("arg", "logged"),
        [
            ("kvm:vnc_password=geheim,acpi=true", "kvm:vnc_password=***,acpi=true"),
            ("vnc_password_file=/etc/x", "vnc_password_file=/etc/x"),
            ("--root-password=geheim", "--root-password=***"),
            ("secret_key=a", "secret_key=***"),
            ("name", "name"),
        ],
    )
    def test_secrets_are_not_logged(self, arg, logged):
        assert commandlog.HideSecrets([arg]) == [logged]


class TestStartUp:
    """What a command loads: a listing has to be there at once."""

    @pytest.mark.parametrize(
        "program", ["gnt_cluster", "gnt_node", "gnt_os", "gnt_job", "gnt_debug"]
    )
    def test_nothing_heavy_for_a_listing(self, program):
        heavy = ["opcodes", "rpc", "bootstrap", "ssh", "ssconf", "config", "runtime", "objects"]
        code = (
            f"import sys; from ganeti.client import {program}; print(' '.join(sorted(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ},
        )  # fmt: skip
        loaded = set(done.stdout.split())
        assert not loaded & {f"ganeti.{name}" for name in heavy}
        assert not loaded & {"argparse", "logging", "paramiko", "pycurl", "OpenSSL", "inspect"}
        assert "ganeti.luxi" in loaded
