"""daemon-util: actions, order of daemons, exit codes."""

import os
import sys

import pytest

from ganeti import constants, errors, pathutils
from ganeti.server import daemonutil
from ganeti.utils import io, process

NODED, MASTERD, RAPI, CONFD = (
    "ganeti-noded",
    "ganeti-masterd",
    "ganeti-rapi",
    "ganeti-confd",
)


class FakeRunner:
    """Daemons that only exist as a list of names."""

    def __init__(self):
        self.running = []
        self.calls = []
        #: name -> exit code of its start
        self.start_codes = {}
        self.stop_codes = {}

    def Start(self, name, args):
        self.calls.append(("start", name, *args))
        code = self.start_codes.get(name, 0)
        if code == 0:
            self.running.append(name)
        return code

    def Stop(self, name):
        self.calls.append(("stop", name))
        if name in self.running:
            self.running.remove(name)
        return self.stop_codes.get(name, 0)

    def Names(self, what):
        return [call[1] for call in self.calls if call[0] == what]


@pytest.fixture
def runner(monkeypatch):
    fake = FakeRunner()
    monkeypatch.setattr(daemonutil, "GetRunner", lambda: fake)
    monkeypatch.setattr(daemonutil, "IsRunning", lambda name: name in fake.running)
    return fake


class TestUsage:
    def testNoAction(self, capsys):
        assert daemonutil.Main([]) == 1
        shown = capsys.readouterr().err
        assert shown.startswith("Usage: daemon-util")
        assert "check-and-start <daemon> [arguments...]" in shown

    def testHelp(self, capsys):
        assert daemonutil.Main(["--help"]) == 0
        assert "reload-ssh-keys" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "argv",
        [
            ["unknown"],
            ["start_all"],
            ["check_exitcode", "0"],
            ["check"],
            ["check", NODED, "more"],
            ["start"],
            ["start-all", NODED],
            ["start", "sshd"],
            ["stop", "noded"],
            ["check", "ganeti-nld"],
        ],
    )
    def testRefused(self, argv, runner, capsys):
        assert daemonutil.Main(argv) == 1
        assert runner.calls == []
        assert capsys.readouterr().err != ""

    def testUnderscoreIsExplained(self, capsys):
        daemonutil.Main(["list_start_daemons"])
        assert "dashes" in capsys.readouterr().err

    def testExactlyTheActionsOfTheInterface(self):
        names = (
            "check-config check-exitcode list-start-daemons list-stop-daemons is-daemon-name check"
            " start stop check-and-start start-master stop-master start-all stop-all"
            " reload-ssh-keys"
        )
        assert " ".join(sorted(daemonutil.ACTIONS)) == " ".join(sorted(names.split(" ")))


class TestQuestions:
    @pytest.mark.parametrize(
        ("code", "expected", "shown"),
        [("0", 0, ""), ("11", 0, "not master\n"), ("1", 1, "1\n"), ("12", 1, "12\n")],
    )
    def testCheckExitcode(self, code, expected, shown, capsys):
        assert daemonutil.Main(["check-exitcode", code]) == expected
        assert capsys.readouterr().out == shown

    def testLists(self, capsys):
        assert daemonutil.Main(["list-start-daemons"]) == 0
        assert capsys.readouterr().out.split() == [NODED, MASTERD, RAPI, CONFD]
        assert daemonutil.Main(["list-stop-daemons"]) == 0
        assert capsys.readouterr().out.split() == [CONFD, RAPI, MASTERD, NODED]

    @pytest.mark.parametrize(
        ("name", "expected"), [(NODED, 0), (CONFD, 0), ("noded", 1), ("ganeti-nld", 1), ("", 1)]
    )
    def testIsDaemonName(self, name, expected):
        assert daemonutil.Main(["is-daemon-name", name]) == expected

    def testCheckConfig(self, tmp_path, monkeypatch, capsys):
        path = str(tmp_path / "server.pem")
        monkeypatch.setattr(pathutils, "NODED_CERT_FILE", path)
        assert daemonutil.Main(["check-config"]) == 1
        assert path in capsys.readouterr().out
        io.WriteFile(path, data="")
        assert daemonutil.Main(["check-config"]) == 0

    def testCheckLooksAtTheHolderOfThePidFile(self, tmp_path, monkeypatch):
        path = str(tmp_path / "pid")
        monkeypatch.setattr(pathutils, "DaemonPidFile", lambda name: path)
        assert daemonutil.Main(["check", NODED]) == 1
        io.WriteFile(path, data=f"{os.getpid()}\n")
        assert daemonutil.Main(["check", NODED]) == 1
        with process.PidFile(path):
            assert daemonutil.Main(["check", NODED]) == 0


class TestStartAndStop:
    def testStart(self, runner):
        assert daemonutil.Main(["start", MASTERD, "--no-voting", "--yes-do-it"]) == 0
        assert runner.calls == [("start", MASTERD, "--no-voting", "--yes-do-it")]

    @pytest.mark.parametrize("action", ["start", "check-and-start"])
    def testRunningIsFine(self, runner, action):
        runner.running = [NODED]
        assert daemonutil.Main([action, NODED]) == 0
        assert runner.calls == []

    @pytest.mark.parametrize("code", [1, 11, 12])
    def testOwnExitCodeOfTheDaemon(self, runner, code):
        runner.start_codes = {MASTERD: code}
        assert daemonutil.Main(["start", MASTERD]) == code

    def testSomebodyElseWasFaster(self, runner, monkeypatch):
        answers = iter([False, True])
        monkeypatch.setattr(daemonutil, "IsRunning", lambda name: next(answers))
        runner.start_codes = {NODED: 1}
        assert daemonutil.Main(["start", NODED]) == 0

    def testStartMaster(self, runner):
        assert daemonutil.Main(["start-master"]) == 0
        assert runner.Names("start") == [MASTERD, RAPI]

    def testStartMasterStopsAtAFailure(self, runner):
        runner.start_codes = {MASTERD: 11}
        assert daemonutil.Main(["start-master"]) == 11
        assert runner.Names("start") == [MASTERD]

    def testStopMaster(self, runner):
        assert daemonutil.Main(["stop-master"]) == 0
        assert runner.Names("stop") == [RAPI, MASTERD]

    def testStartAll(self, runner):
        runner.start_codes = {MASTERD: 11, RAPI: 11}
        assert daemonutil.Main(["start-all"]) == 0
        assert runner.Names("start") == [NODED, MASTERD, RAPI, CONFD]

    @pytest.mark.parametrize("code", [1, 12])
    def testStartAllStopsAtAFailure(self, runner, code):
        runner.start_codes = {MASTERD: code}
        assert daemonutil.Main(["start-all"]) == 1
        assert runner.Names("start") == [NODED, MASTERD]

    def testStopAllGoesOnAfterAFailure(self, runner):
        runner.stop_codes = {RAPI: 1}
        assert daemonutil.Main(["stop-all"]) == 1
        assert runner.Names("stop") == [CONFD, RAPI, MASTERD, NODED]

    def testErrorsAreTexts(self, runner, monkeypatch, capsys):
        def Fail(name, args):
            raise errors.OpExecError("not found")

        monkeypatch.setattr(runner, "Start", Fail)
        assert daemonutil.Main(["start", NODED]) == 1
        assert capsys.readouterr().err == "daemon-util start: not found\n"


class TestArguments:
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("", {}),
            ("# NODED_ARGS=x\n\nMASTERD_ARGS='-d  --syslog=yes' # why\n", {
                "MASTERD_ARGS": "-d  --syslog=yes"
            }),
            ('export RAPI_ARGS="-b 127.0.0.1"', {"RAPI_ARGS": "-b 127.0.0.1"}),
            ("CONFD_ARGS=\nNODED_ARGS=-d\n", {"CONFD_ARGS": "", "NODED_ARGS": "-d"}),
            ("if true; then\n", {}),
        ],
    )  # fmt: skip
    def testDefaultsFile(self, content, expected):
        assert daemonutil.ParseDefaults(content) == expected

    def testDefaultsFileWithOpenQuote(self):
        with pytest.raises(errors.GenericError, match="NODED_ARGS"):
            daemonutil.ParseDefaults("NODED_ARGS='-d\n")

    @pytest.mark.parametrize(
        ("defaults", "environment", "expected"),
        [
            ({}, {}, ["given"]),
            ({"MASTERD_ARGS": "-d"}, {"MASTERD_ARGS": "ignored"}, ["-d", "given"]),
            ({}, {"MASTERD_ARGS": "'a b' c"}, ["a b", "c", "given"]),
            (
                {"MASTERD_ARGS": "-d", "RAPI_ARGS": "other"},
                {"EXTRA_MASTERD_ARGS": "--no-voting --yes-do-it"},
                ["-d", "--no-voting", "--yes-do-it", "given"],
            ),
        ],
    )
    def testOrder(self, defaults, environment, expected):
        assert daemonutil.DaemonArguments(MASTERD, ["given"], defaults, environment) == expected

    @pytest.mark.parametrize(
        ("name", "expected"),
        [(NODED, ["-b", "127.1.0.1"]), (CONFD, ["-b", "127.1.0.1"]), (MASTERD, [])],
    )
    def testOwnAddressOfAVirtualNode(self, name, expected):
        assert daemonutil.DaemonArguments(name, [], {}, {}, "127.1.0.1") == expected


class TestRunners:
    @pytest.fixture
    def hosts(self, tmp_path, monkeypatch):
        path = str(tmp_path / "hosts")
        io.WriteFile(path, data="127.1.0.1 node1.example.com\n")
        monkeypatch.setattr(pathutils, "ETC_HOSTS", path)

    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []

        def Run(argv, env=None):
            calls.append(list(argv))
            return 0

        monkeypatch.setattr(daemonutil.process, "RunInteractive", Run)
        return calls

    def testVirtualNode(self, hosts, calls, monkeypatch):
        """BASE6: daemons of a virtual node serve its own address, from the tree we run from."""
        for name in list(os.environ):
            if name.endswith("_ARGS"):
                monkeypatch.delenv(name)
        runner = daemonutil.GetRunner()
        assert runner.Start(NODED, ["--no-mlock"]) == 0
        executable = os.path.join(pathutils.DAEMONDIR, NODED)
        assert calls == [[sys.executable, executable, "-b", "127.1.0.1", "--no-mlock"]]

    @pytest.mark.parametrize(
        ("systemd", "known", "expected"),
        [
            (False, True, daemonutil.ProcessRunner),
            (True, False, daemonutil.ProcessRunner),
            (True, True, daemonutil.SystemdRunner),
        ],
    )
    def testChoice(self, monkeypatch, tmp_path, systemd, known, expected):
        monkeypatch.setattr(pathutils, "ROOTDIR", "")
        monkeypatch.setattr(
            daemonutil, "_SYSTEMD_RUN_DIR", str(tmp_path if systemd else tmp_path / "missing")
        )
        result = process.RunResult(cmd="systemctl", exit_code=0 if known else 1)
        asked = []

        def RunCmd(argv):
            asked.append(argv)
            return result

        monkeypatch.setattr(daemonutil.process, "RunCmd", RunCmd)
        assert type(daemonutil.GetRunner()) is expected
        assert asked == ([["systemctl", "cat", "ganeti.target"]] if systemd else [])

    def testDefaultsFileIsRead(self, hosts, calls, tmp_path, monkeypatch):
        path = str(tmp_path / "defaults")
        io.WriteFile(path, data='MASTERD_ARGS="-d"\n')
        monkeypatch.setattr(pathutils, "DAEMONS_DEFAULTS_FILE", path)
        monkeypatch.setenv("EXTRA_MASTERD_ARGS", "--no-voting")
        daemonutil.ProcessRunner().Start(MASTERD, [])
        assert calls == [[os.path.join(pathutils.DAEMONDIR, MASTERD), "-d", "--no-voting"]]

    def testSystemd(self, calls, tmp_path, monkeypatch):
        monkeypatch.setattr(daemonutil, "ONETIME_DIR", str(tmp_path / "systemd"))
        monkeypatch.setenv("EXTRA_MASTERD_ARGS", "--no-voting")
        monkeypatch.setenv("MASTERD_ARGS", "never")
        seen = []

        def Run(argv, env=None):
            path = tmp_path / "systemd" / "ganeti-masterd.onetime"
            seen.append((argv, path.read_text() if path.exists() else None))
            return 0

        monkeypatch.setattr(daemonutil.process, "RunInteractive", Run)
        runner = daemonutil.SystemdRunner()
        runner.Start(MASTERD, ["--yes-do-it"])
        assert seen == [
            (
                ["systemctl", "start", "ganeti-masterd.service"],
                "ONETIME_ARGS='--no-voting --yes-do-it'\n",
            )
        ]
        assert os.listdir(tmp_path / "systemd") == []
        runner.Start(NODED, [])
        runner.Stop(NODED)
        assert seen[1:] == [
            (["systemctl", "start", "ganeti-noded.service"], None),
            (["systemctl", "stop", "ganeti-noded.service"], None),
        ]

    def testReloadSshKeys(self, calls, monkeypatch, tmp_path):
        assert daemonutil.ReloadSshKeys() == 0
        assert calls == []
        monkeypatch.setattr(pathutils, "ROOTDIR", "")
        monkeypatch.setattr(daemonutil, "_SYSTEMD_RUN_DIR", str(tmp_path))
        daemonutil.ReloadSshKeys()
        monkeypatch.setattr(daemonutil, "_SYSTEMD_RUN_DIR", str(tmp_path / "missing"))
        daemonutil.ReloadSshKeys()
        assert calls == [
            ["systemctl", "reload", "ssh.service"],
            [pathutils.SSH_INITD_SCRIPT, "restart"],
        ]


class TestStopOfAProcess:
    @pytest.fixture
    def pidFile(self, tmp_path, monkeypatch):
        path = str(tmp_path / "x.pid")
        monkeypatch.setattr(pathutils, "DaemonPidFile", lambda name: path)
        return path

    def testNotRunning(self, pidFile, monkeypatch):
        monkeypatch.setattr(daemonutil.process, "KillProcess", pytest.fail)
        assert daemonutil.ProcessRunner().Stop(NODED) == 0
        # a pid that was given to somebody else is left alone
        io.WriteFile(pidFile, data=f"{os.getppid()}\n")
        assert daemonutil.ProcessRunner().Stop(NODED) == 0

    def testRunning(self, pidFile, monkeypatch):
        holder = process.PidFile(pidFile)
        holder.Acquire()
        killed = []

        def Kill(pid, timeout):
            killed.append((pid, timeout))
            holder.Release()

        monkeypatch.setattr(daemonutil.process, "KillProcess", Kill)
        assert daemonutil.ProcessRunner().Stop(NODED) == 0
        assert killed == [(os.getpid(), 30)]

    def testDoesNotEnd(self, pidFile, monkeypatch, capsys):
        monkeypatch.setattr(daemonutil.process, "KillProcess", lambda pid, timeout: None)
        with process.PidFile(pidFile):
            assert daemonutil.ProcessRunner().Stop(NODED) == 1
        assert NODED in capsys.readouterr().err


def testConstantsAreTheDaemonsOfTheSuite():
    assert constants.DAEMONS == (NODED, MASTERD, RAPI, CONFD)
