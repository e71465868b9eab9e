"""Running programs, pid files, ending processes: with real ones, that live for a moment."""

import os
import signal
import socket
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st

from ganeti import constants, errors, pathutils
from ganeti.utils import child, io, memory, process


def _Sh(script, **kwargs):
    return process.RunCmd(["sh", "-c", script], **kwargs)


def _IsGone(pid_file):
    """Whether the process whose id is in a file has ended; one that nobody reaped has."""
    try:
        return not io.ReadFile(f"/proc/{int(pid_file.read_text())}/cmdline")
    except FileNotFoundError:
        return True


class TestRunCmd:
    def testSuccess(self):
        result = process.RunCmd(["echo", "a b", 3])
        assert (result.exit_code, result.signal, result.timeout) == (0, None, None)
        assert result.stdout == result.output == "a b 3\n"
        assert not result.failed
        assert result.fail_reason == ""
        assert result.cmd == "echo 'a b' 3"

    def testExitCodeAndBothOutputs(self):
        result = _Sh("echo out; echo err >&2; exit 42")
        assert (result.exit_code, result.signal) == (42, None)
        assert (result.stdout, result.stderr, result.output) == ("out\n", "err\n", "out\nerr\n")
        assert result.failed
        assert result.fail_reason == "exited with exit code 42"

    def testSignal(self):
        result = _Sh("kill -KILL $$")
        assert (result.exit_code, result.signal) == (None, 9)
        assert result.failed
        assert result.fail_reason == "terminated by signal 9"

    def testNoShell(self):
        assert process.RunCmd(["echo", "$HOME;x"]).stdout == "$HOME;x\n"

    @pytest.mark.parametrize("cmd", ["echo a", b"echo a"])
    def testTextIsNoCommand(self, cmd):
        with pytest.raises(errors.ProgrammerError):
            process.RunCmd(cmd)

    def testMissingProgram(self):
        with pytest.raises(errors.OpExecError, match="/nonexistent/program"):
            process.RunCmd(["/nonexistent/program"])

    def testOtherErrorsPass(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(PermissionError):
            process.RunCmd([str(tmp_path / "file")])

    def testOutputFileIsAppendedTo(self, tmp_path):
        path = tmp_path / "out"
        path.write_text("before\n")
        result = _Sh("echo out; echo err >&2", output=str(path))
        assert (result.stdout, result.stderr) == ("", "")
        assert path.read_text() == "before\nout\nerr\n"

    def testEnvironment(self, monkeypatch):
        monkeypatch.setenv("LC_ALL", "xx_YY")
        monkeypatch.setenv("TEST_VARIABLE", "ours")
        show = "echo ${LC_ALL-unset} ${TEST_VARIABLE-unset} ${NEW-unset}"
        assert _Sh(show).stdout == "C ours unset\n"
        assert _Sh(show, env={"NEW": "1", "LC_ALL": "de_DE"}).stdout == "de_DE ours 1\n"
        assert os.environ["LC_ALL"] == "xx_YY"

    def testResetEnvironment(self):
        env = process.RunCmd(["/usr/bin/env"], reset_env=True, env={"A": "1"}).stdout
        assert env == "A=1\n"

    def testDirectory(self, tmp_path):
        assert process.RunCmd(["pwd"]).stdout == "/\n"
        assert process.RunCmd(["pwd"], cwd=str(tmp_path)).stdout == f"{tmp_path}\n"

    def testInput(self):
        assert process.RunCmd(["cat"]).stdout == ""
        assert process.RunCmd(["cat"], input="hé").stdout == "hé"
        assert process.RunCmd(["cat"], input=b"x" * 200000).stdout == "x" * 200000

    def testBytesThatAreNoTextAreEscaped(self):
        assert process.RunCmd(["printf", r"a\377"]).stdout == "a\\xff"

    def testMuchOutputOnBothPipes(self):
        script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero"
        result = _Sh(script)
        assert (len(result.stdout), len(result.stderr)) == (300000, 300000)

    def testNoDescriptorsAreInherited(self, tmp_path):
        with open(tmp_path / "file", "w") as fobj:
            os.set_inheritable(fobj.fileno(), True)
            listed = process.RunCmd(["ls", "-l", "/proc/self/fd"]).stdout
        assert str(tmp_path) not in listed

    def testTimeoutEndsTheWholeSession(self):
        result = _Sh("echo before; sleep 60 & sleep 60", timeout=0.05)
        assert result.failed
        assert (result.signal, result.timeout) == (signal.SIGTERM, 0.05)
        assert result.stdout == "before\n"
        assert "0.05 s" in result.fail_reason

    def testTermIgnoredThenKilled(self, monkeypatch, tmp_path):
        monkeypatch.setattr(child, "TERM_GRACE", 0.02)
        pid_file = tmp_path / "pid"
        script = f"trap '' TERM; echo $$ > {pid_file}; echo trapped; exec sleep 60"
        result = _Sh(script, timeout=0.3)
        assert (result.signal, result.stdout) == (signal.SIGKILL, "trapped\n")
        assert _IsGone(pid_file)

    def testEndsAfterKillThoughAnEscapedChildHoldsThePipe(self, monkeypatch, tmp_path):
        monkeypatch.setattr(child, "TERM_GRACE", 0.02)
        monkeypatch.setattr(child, "KILL_GRACE", 0.02)
        pid_file = tmp_path / "pid"
        script = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 60' & echo a; wait"
        result = _Sh(script, timeout=0.08)
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        assert result.timeout == 0.08
        assert result.stdout == "a\n"

    def testTimeoutReachesOtherProcessGroups(self, tmp_path):
        """A shell with job control, timeout(1): in the session, but not in the group."""
        pid_file = tmp_path / "pid"
        script = f"set -m; sh -c 'echo $$ > {pid_file}; exec sleep 60' >/dev/null 2>&1 & wait"
        result = process.RunCmd(["bash", "-c", script], timeout=0.3)
        assert result.timeout == 0.3
        assert _IsGone(pid_file)

    def testWhatIgnoresTermIsKilledThoughItsOutputIsClosed(self, monkeypatch, tmp_path):
        monkeypatch.setattr(child, "TERM_GRACE", 0.1)
        pid_file = tmp_path / "pid"
        stubborn = tmp_path / "stubborn"
        stubborn.write_text(f"trap '' TERM; echo $$ > {pid_file}; exec sleep 60")
        result = _Sh(f"sh {stubborn} >/dev/null 2>&1 & sleep 60", timeout=0.3)
        assert result.signal == signal.SIGTERM
        assert _IsGone(pid_file)

    def testTimeoutOfWhoClosedItsOutput(self):
        result = _Sh("echo a; exec >&- 2>&-; sleep 60", timeout=0.1)
        assert (result.timeout, result.stdout, result.lingering) == (0.1, "a\n", False)

    def testEndedButChildHoldsTheOutput(self):
        result = _Sh("echo a; sleep 60 & exit 0", timeout=0.1)
        assert (result.exit_code, result.timeout, result.lingering) == (0, 0.1, True)
        assert result.failed
        assert "kept its output open" in result.fail_reason
        assert result.stdout == "a\n"

    def testWhatCanNotBeKilledIsLeft(self, monkeypatch):
        """As behind a dead file server: the caller goes on, somebody reaps it later."""
        monkeypatch.setattr(child, "TERM_GRACE", 0.02)
        monkeypatch.setattr(child, "KILL_GRACE", 0.02)
        monkeypatch.setattr(child, "_Signal", lambda *args: None)
        result = _Sh("exec sleep 1", timeout=0.02)
        assert (result.signal, result.timeout) == (signal.SIGKILL, 0.02)

    def testEndlessOutputKeepsBeginningAndEnd(self):
        result = _Sh("seq 1 200000; seq 1 3 >&2", max_output=100)
        assert result.stdout.startswith("1\n2\n3\n")
        assert result.stdout.endswith("199999\n200000\n")
        size = sum(len(str(i)) + 1 for i in range(1, 200001))
        assert f"\n[... {size - 100} bytes left out ...]\n" in result.stdout
        assert len(result.stdout) < 150
        assert result.stderr == "1\n2\n3\n"

    def testInputThatIsNotRead(self):
        assert process.RunCmd(["true"], input=b"x" * 1000000).exit_code == 0

    def testSuccessWithinTimeout(self):
        result = process.RunCmd(["true"], timeout=30)
        assert not result.failed
        assert result.timeout is None

    def testForbidden(self, monkeypatch):
        monkeypatch.setattr(process._ForkGuard, "reason", None)
        process.DisableFork("masterd has threads")
        for run in (process.RunCmd, process.RunInteractive, process.StartDaemonProcess):
            with pytest.raises(errors.ProgrammerError, match="masterd has threads"):
                run(["true"])

    def testSessions(self):
        show = [sys.executable, "-c", "import os; print(os.getsid(0))"]
        assert int(process.RunCmd(show).stdout) != os.getsid(0)
        assert int(process.RunCmd(show, interactive=True, input="").stdout) == os.getsid(0)


class TestRunInteractive:
    def testExitCodes(self):
        assert process.RunInteractive(["true"]) == 0
        assert process.RunInteractive(["sh", "-c", 'exit "$CODE"'], env={"CODE": "11"}) == 11
        assert process.RunInteractive(["sh", "-c", "kill -TERM $$"]) == 128 + signal.SIGTERM

    def testStreamsAreOurs(self, capfd):
        process.RunInteractive(["echo", "to the user"])
        assert capfd.readouterr().out == "to the user\n"

    def testMissing(self):
        with pytest.raises(errors.OpExecError):
            process.RunInteractive(["/nonexistent"])


class TestRunParts:
    """BASE3: scripts of a directory."""

    def _Script(self, tmp_path, name, content="#!/bin/sh\necho ran\n", mode=0o755):
        path = tmp_path / name
        path.write_text(content)
        path.chmod(mode)

    def testEmptyAndMissing(self, tmp_path):
        assert process.RunParts(str(tmp_path)) == []
        assert process.RunParts(str(tmp_path / "missing")) == []

    @pytest.mark.parametrize("name", ["00test.dot", "a b", "a~"])
    def testSkipsWrongNames(self, tmp_path, name):
        self._Script(tmp_path, name)
        assert process.RunParts(str(tmp_path)) == [(name, constants.RUNPARTS_SKIP, None)]

    def testSkipsWhatIsNotExecutable(self, tmp_path):
        self._Script(tmp_path, "script", mode=0o644)
        (tmp_path / "dir").mkdir()
        (tmp_path / "broken").symlink_to("nowhere")
        assert process.RunParts(str(tmp_path)) == [
            ("broken", constants.RUNPARTS_SKIP, None),
            ("dir", constants.RUNPARTS_SKIP, None),
            ("script", constants.RUNPARTS_SKIP, None),
        ]

    def testHiddenOnesAreNotListed(self, tmp_path):
        self._Script(tmp_path, ".script")
        assert process.RunParts(str(tmp_path)) == []

    def testError(self, tmp_path):
        self._Script(tmp_path, "bad", content="#!/nonexistent/interpreter\n")
        ((name, status, result),) = process.RunParts(str(tmp_path))
        assert (name, status) == ("bad", constants.RUNPARTS_ERR)
        assert isinstance(result, str)

    def testMixIsSorted(self, tmp_path):
        self._Script(tmp_path, "10ok")
        self._Script(tmp_path, "05fails", content="#!/bin/sh\nexit 5\n")
        self._Script(tmp_path, "20env", content="#!/bin/sh\necho $VAR-$HOME\n")
        results = process.RunParts(str(tmp_path), env={"VAR": "x"}, reset_env=True)
        assert [(name, status) for name, status, _ in results] == [
            ("05fails", constants.RUNPARTS_RUN),
            ("10ok", constants.RUNPARTS_RUN),
            ("20env", constants.RUNPARTS_RUN),
        ]
        assert [result.exit_code for _, _, result in results] == [5, 0, 0]
        assert [result.stdout for _, _, result in results] == ["", "ran\n", "x-\n"]


class TestCapture:
    """What is kept of a stream."""

    @hypothesis.given(st.lists(st.binary(max_size=40)), st.integers(0, 60))
    def testBeginningAndEnd(self, chunks, limit):
        data = b"".join(chunks)
        everything, some = child.Capture(), child.Capture(limit)
        for chunk in chunks:
            everything.Add(chunk)
            some.Add(chunk)
        assert everything.Get() == data
        if len(data) <= limit:
            assert some.Get() == data
        else:
            head, tail = data[: limit // 2], data[len(data) - (limit - limit // 2) :]
            note = b"\n[... %d bytes left out ...]\n" % (len(data) - limit)
            assert some.Get() == head + note + tail

    def testMemoryIsBounded(self):
        capture = child.Capture(1000)
        for _ in range(100):
            capture.Add(bytes(65536))
            assert len(capture._tail) <= 4 * 65536
        assert len(capture.Get()) < 1100


class TestPartLimits:
    """BASE3: time-outs of the scripts of a directory."""

    def _Script(self, tmp_path, name, body):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def _Run(self, tmp_path, times=(), **limits):
        # The first moment is that of the start.
        clock = iter([0, *times])
        return process.RunParts(
            str(tmp_path), {"A": "1"}, True, process.PartLimits(**limits), lambda: next(clock)
        )

    def testHangingOneIsEndedAndOthersRun(self, tmp_path):
        self._Script(tmp_path, "10hangs", "echo begun; sleep 60")
        self._Script(tmp_path, "20runs", "echo ran")
        (_, _, hangs), (_, _, runs) = self._Run(tmp_path, [0, 0], timeout=0.3)
        assert (hangs.timeout, hangs.stdout) == (0.3, "begun\n")
        assert (runs.failed, runs.stdout) == (False, "ran\n")

    def testTotal(self, tmp_path):
        """Later ones get what is left, or do not run; what is skipped anyhow stays so."""
        for name in ("10", "20", "30", "40"):
            self._Script(tmp_path, name, "echo $LIMIT")
        (tmp_path / "50.no").write_text("")
        results = self._Run(
            tmp_path, [0, 70, 299.5, 300, 300], timeout=100, total=300, variable="LIMIT"
        )
        assert [(name, status) for name, status, _ in results] == [
            ("10", constants.RUNPARTS_RUN),
            ("20", constants.RUNPARTS_RUN),
            ("30", constants.RUNPARTS_RUN),
            ("40", constants.RUNPARTS_ERR),
            ("50.no", constants.RUNPARTS_SKIP),
        ]
        assert [result.stdout for _, _, result in results[:3]] == ["100\n", "100\n", "1\n"]
        text = results[3][2]
        assert text.startswith("not run: the scripts before it took 300 s")
        assert text.endswith(f"{tmp_path.name} together may take 300 s")

    def testOutput(self, tmp_path):
        self._Script(tmp_path, "10", "seq 1 100000")
        ((_, _, result),) = self._Run(tmp_path, [0], max_output=1000)
        assert len(result.stdout) < 1100


class TestStartDaemonProcess:
    def testOutputPidFileAndSession(self, tmp_path):
        out, pid_file = tmp_path / "out", tmp_path / "pid"
        pid = process.StartDaemonProcess(
            ["sh", "-c", "echo $VAR; exec sleep 60"],
            env={"VAR": "value"},
            output=str(out),
            pidfile=str(pid_file),
        )
        try:
            assert process.ReadPidFile(str(pid_file)) == pid
            assert os.getsid(pid) == pid
        finally:
            process.KillProcess(pid)

    def testMissing(self):
        with pytest.raises(errors.OpExecError):
            process.StartDaemonProcess(["/nonexistent"])


class TestProcesses:
    def testAlive(self):
        assert process.IsProcessAlive(os.getpid())
        assert not process.IsProcessAlive(0)
        assert not process.IsProcessAlive(-1)
        with pytest.raises(AssertionError):
            process.IsProcessAlive("1")

    def testZombieIsAlive(self):
        with subprocess.Popen(["true"]) as proc:
            os.waitid(os.P_PID, proc.pid, os.WEXITED | os.WNOWAIT)
            assert process.IsProcessAlive(proc.pid)
        assert not process.IsProcessAlive(proc.pid)

    @pytest.mark.parametrize("pid", [0, -1])
    def testKillNobody(self, pid):
        with pytest.raises(errors.ProgrammerError):
            process.KillProcess(pid)

    def testKillOwnChild(self):
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        process.KillProcess(pid, waitpid=True)
        assert not process.IsProcessAlive(pid)
        process.KillProcess(pid)

    def testKillOneThatIgnoresTerm(self):
        script = "trap '' TERM; echo ready; exec sleep 60"
        with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as proc:
            proc.stdout.readline()
            process.KillProcess(proc.pid, timeout=0.02)
            assert proc.wait() == -signal.SIGKILL

    def testSignalOnly(self):
        script = "trap 'echo got; exit 3' USR1; echo ready; read x"
        with subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as proc:
            proc.stdout.readline()
            process.KillProcess(proc.pid, signal_=signal.SIGUSR1, timeout=0)
            proc.stdin.close()
            assert proc.wait() == 3

    def testZombieCountsAsEnded(self):
        with subprocess.Popen(["sleep", "60"]) as proc:
            # not reaped by KillProcess, and it must not wait for that
            process.KillProcess(proc.pid, timeout=20)
            assert proc.poll() == -signal.SIGTERM

    def testSocketCredentials(self):
        left, right = socket.socketpair()
        with left, right:
            assert process.GetSocketCredentials(left) == (os.getpid(), os.getuid(), os.getgid())

    def testEnsureDaemon(self, tmp_path, monkeypatch):
        util = tmp_path / "daemon-util"
        util.write_text('#!/bin/sh\n[ "$*" = "check-and-start ganeti-good" ]\n')
        util.chmod(0o755)
        monkeypatch.setattr(pathutils, "DAEMON_UTIL", str(util))
        assert process.EnsureDaemon("ganeti-good")
        assert not process.EnsureDaemon("ganeti-bad")


class TestRunInSeparateProcess:
    def testResult(self):
        assert process.RunInSeparateProcess(lambda: True) is True
        assert process.RunInSeparateProcess(lambda value: value, "") is False
        assert process.RunInSeparateProcess(lambda *args: args == (1, 2), 1, 2) is True

    def testRunsElsewhere(self):
        parent = os.getpid()
        assert process.RunInSeparateProcess(lambda: os.getpid() != parent)

    @pytest.mark.parametrize(
        "fn",
        [
            lambda: 1 / 0,
            lambda: os._exit(7),
            lambda: sys.exit(0),
            lambda: os.kill(os.getpid(), signal.SIGKILL),
        ],
    )
    def testAnyOtherEnd(self, fn):
        with pytest.raises(errors.GenericError, match="Child process"):
            process.RunInSeparateProcess(fn)


class TestPidFile:
    def testContentAndRemoval(self, tmp_path):
        path = str(tmp_path / "x.pid")
        with process.PidFile(path):
            assert io.ReadFile(path) == f"{os.getpid()}\n"
            assert process.ReadPidFile(path) == os.getpid()
            assert process.GetPidFileHolder(path) == os.getpid()
        assert not os.path.exists(path)
        assert process.GetPidFileHolder(path) == 0

    def testHeldByALiveProcess(self, tmp_path):
        path = str(tmp_path / "x.pid")
        with process.PidFile(path):
            with pytest.raises(errors.GenericError, match=str(os.getpid())):
                process.PidFile(path).Acquire()
            assert process.GetPidFileHolder(path) == os.getpid()

    def testLeftOverFileOfALiveProcessIsNoHolder(self, tmp_path):
        """The pid in the file belongs to somebody, but not to the daemon that wrote it."""
        path = str(tmp_path / "x.pid")
        io.WriteFile(path, data=f"{os.getppid()}\n1234567890\n")
        assert process.GetPidFileHolder(path) == 0
        with process.PidFile(path):
            assert io.ReadFile(path) == f"{os.getpid()}\n"

    def testFileThatWasReplacedWhileLockingIsNotTaken(self, tmp_path, monkeypatch):
        path = str(tmp_path / "x.pid")
        pid_file = process.PidFile(path)
        real_lock = process.PidFile._Lock
        calls = []

        def Lock(self, fd):
            if not calls:
                os.unlink(path)
            calls.append(fd)
            real_lock(self, fd)

        monkeypatch.setattr(process.PidFile, "_Lock", Lock)
        with pid_file:
            assert len(calls) == 2
            assert process.GetPidFileHolder(path) == os.getpid()

    def testLockEndsWithTheProcess(self, tmp_path):
        path = str(tmp_path / "x.pid")
        script = (
            "import os, sys; from ganeti.utils import process;"
            "process.PidFile(sys.argv[1]).Acquire(); os.write(1, b'.'); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as proc:
            proc.stdout.read(1)
            assert process.GetPidFileHolder(path) == proc.pid
            proc.kill()
            proc.wait()
            assert process.GetPidFileHolder(path) == 0
        assert os.path.exists(path)

    @pytest.mark.parametrize("content", ["", "abc\n", "12x\n"])
    def testUnreadable(self, tmp_path, content):
        path = tmp_path / "x.pid"
        path.write_text(content)
        assert process.ReadPidFile(str(path)) == 0

    def testMissing(self, tmp_path):
        assert process.ReadPidFile(str(tmp_path / "x.pid")) == 0


class TestStartReport:
    def _Report(self, fn):
        read_fd, write_fd = os.pipe()
        fn(process.StartReport(write_fd))
        with open(read_fd, "rb") as fobj:
            return process.ParseStartReport(fobj.read(), "/the/log")

    def testOk(self):
        assert self._Report(lambda report: report.Ok()) == (0, "")

    def testFailed(self):
        assert self._Report(lambda report: report.Failed("two\nlines", 11)) == (11, "two\nlines")

    def testOnlyTheFirstCounts(self):
        def Say(report):
            report.Ok()
            report.Failed("too late")

        assert self._Report(Say) == (0, "")

    def testDeathWithoutAWord(self):
        code, message = process.ParseStartReport(b"", "/the/log")
        assert code == 1
        assert "/the/log" in message

    def testForeground(self):
        report = process.StartReport()
        assert not report.detached
        report.Ok()
        report.Failed("nobody listens")

    def testStarterHasGone(self):
        read_fd, write_fd = os.pipe()
        os.close(read_fd)
        process.StartReport(write_fd).Ok()


class TestMlockall:
    """NA1: memory of the node daemon is locked."""

    SCRIPT = (
        "from ganeti.utils import process; print(process.Mlockall());"
        "print([l for l in open('/proc/self/status') if l.startswith('VmLck')][0].split()[1])"
    )

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to lift the limit")
    def testLocksCurrentAndFuture(self):
        result = process.RunCmd([sys.executable, "-c", self.SCRIPT])
        assert not result.failed, result.output
        done, locked = result.stdout.split()
        if done == "False":
            pytest.skip("this machine does not let root lock memory")
        assert int(locked) > 1000

    def testFiniteLimitIsNotRisked(self, monkeypatch):
        monkeypatch.setattr(memory, "_LiftMemlockLimit", lambda: False)
        assert process.Mlockall() is False
