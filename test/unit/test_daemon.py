"""The frame of all daemons."""

import asyncio
import logging
import os
import resource
import signal
import stat
import sys
import threading

import pytest

from ganeti import constants, errors, pathutils
from ganeti.server import daemon
from ganeti.utils import io, process

CONFD = constants.CONFD
PID_FILE = pathutils.DaemonPidFile(CONFD)
LOG_FILE = pathutils.DAEMONS_LOGFILES[CONFD]


@pytest.fixture(autouse=True)
def _CleanProcess(monkeypatch):
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    monkeypatch.setenv("PATH", os.environ["PATH"])
    io.RemoveFile(LOG_FILE)
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def _Main(exec_fn, *argv, name=CONFD, check_fn=daemon.RefuseArguments, **kwargs):
    return daemon.GenericMain(
        name,
        daemon.BuildParser(name),
        daemon.DAEMON_DIRS[name],
        check_fn,
        exec_fn,
        argv=["--syslog=no", *argv],
        **kwargs,
    )


class TestParser:
    def _Parse(self, name, *argv):
        return vars(daemon.BuildParser(name).parse_args(argv))

    def testCommonDefaults(self):
        options = self._Parse(constants.MASTERD)
        assert options == {
            "foreground": False,
            "debug": False,
            "syslog": constants.SYSLOG_USAGE,
            "args": [],
        }

    @pytest.mark.parametrize(
        ("name", "port"), [(constants.NODED, 1811), (CONFD, 1814), (constants.RAPI, 5080)]
    )
    def testPorts(self, name, port):
        assert self._Parse(name)["port"] == port
        assert self._Parse(name)["bind"] == ""
        options = self._Parse(name, "-p", "7", "-b", "127.0.0.9", "-f", "-d", "--syslog", "only")
        assert (options["port"], options["bind"]) == (7, "127.0.0.9")
        assert (options["foreground"], options["debug"]) == (True, True)
        assert options["syslog"] == "only"

    def testTls(self):
        assert "ssl" not in self._Parse(CONFD)
        options = self._Parse(constants.NODED)
        assert options["ssl"] is True
        assert options["ssl_key"] == options["ssl_cert"] == pathutils.NODED_CERT_FILE
        assert self._Parse(constants.RAPI)["ssl_key"] == pathutils.RAPI_CERT_FILE
        options = self._Parse(constants.RAPI, "--no-ssl", "-K", "/k", "-C", "/c")
        assert (options["ssl"], options["ssl_key"], options["ssl_cert"]) == (False, "/k", "/c")

    def testMemoryLock(self):
        """NA1: the node daemon locks its memory by default."""
        assert self._Parse(constants.NODED)["mlock"] is True
        assert self._Parse(constants.NODED, "--no-mlock")["mlock"] is False
        assert "mlock" not in self._Parse(CONFD)

    @pytest.mark.parametrize(
        "argv", [["-p", "0"], ["-p", "65536"], ["-p", "x"], ["--syslog=maybe"], ["--no-such"]]
    )
    def testBadOptions(self, argv):
        with pytest.raises(SystemExit) as info:
            self._Parse(CONFD, *argv)
        assert info.value.code == 2

    @pytest.mark.parametrize(
        ("arguments", "shown"),
        [
            ((CONFD,), "ganeti-confd (ganeti) 2.1.8\n"),
            ((constants.RAPI, "", "2"), "ganeti-rapi (ganeti) 2\n"),
        ],
    )
    def testVersion(self, arguments, shown, capsys):
        with pytest.raises(SystemExit) as info:
            daemon.BuildParser(*arguments).parse_args(["--version"])
        assert info.value.code == 0
        assert capsys.readouterr().out == shown

    def testEveryDaemonHasDirectories(self):
        assert set(daemon.DAEMON_DIRS) == set(constants.DAEMONS)
        assert dict(daemon.DAEMON_DIRS[constants.NODED])[pathutils.LOCK_DIR] == 0o1777


class TestSslOptions:
    def _Options(self, *argv):
        return daemon.BuildParser(constants.RAPI).parse_args(argv)

    def testFiles(self, tmp_path):
        path = str(tmp_path / "x.pem")
        good = self._Options("-K", path, "-C", path)
        assert "key" in daemon.CheckSslOptions(good)
        io.WriteFile(path, data="")
        assert daemon.CheckSslOptions(good) is None
        missing = daemon.CheckSslOptions(self._Options("-K", path, "-C", "/missing/cert"))
        assert "/missing/cert" in missing
        assert "--ssl-cert" in missing
        assert "--no-ssl" in daemon.CheckSslOptions(self._Options("-K", ""))

    def testOff(self):
        assert daemon.CheckSslOptions(self._Options("--no-ssl", "-K", "/missing")) is None
        assert daemon.CheckSslOptions(daemon.BuildParser(CONFD).parse_args([])) is None

    def testRefusedBeforeAnythingElse(self, capsys):
        code = _Main(pytest.fail, "-f", "-C", "/missing/cert", name=constants.RAPI)
        assert code == 1
        assert "TLS" in capsys.readouterr().err


class TestRunAsync:
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    def testSignalsStop(self, signum):
        async def Main(control):
            assert not control.stopping
            signal.raise_signal(signum)
            await control.WaitForStop()
            assert control.stopping
            return 3

        before = signal.getsignal(signum)
        assert daemon.RunAsync(Main) == 3
        assert signal.getsignal(signum) in (before, signal.SIG_DFL)

    def testHupReopensTheLogAndGoesOn(self):
        calls = []
        control = daemon.DaemonControl(reopen_log=lambda: calls.append("reopen"))

        async def Main(control):
            signal.raise_signal(signal.SIGHUP)
            while len(calls) < 2:
                await asyncio.sleep(0)
            assert not control.stopping

        assert control.RunAsync(Main, on_hup=lambda: calls.append("hook")) == 0
        assert calls == ["reopen", "hook"]

    def testStoppingIsSticky(self):
        async def Main(control):
            for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(signum)
            await control.WaitForStop()
            await control.WaitForStop()
            return 5

        assert daemon.RunAsync(Main) == 5

    def testStopFromAThread(self):
        async def Main(control):
            thread = threading.Thread(target=control.RequestStop)
            thread.start()
            await control.WaitForStop()
            thread.join()

        assert daemon.RunAsync(Main) == 0

    def testStopBeforeAndAfter(self):
        control = daemon.DaemonControl()
        control.RequestStop()

        async def Main(control):
            await control.WaitForStop()
            return 4

        assert control.RunAsync(Main) == 4
        control.RequestStop()

    def testErrorsPass(self):
        async def Main(control):
            raise errors.ConfigurationError("broken")

        with pytest.raises(errors.ConfigurationError):
            daemon.RunAsync(Main)


class TestForeground:
    def testPidFileLivesAsLongAsTheDaemon(self):
        def Exec(options, args, control):
            assert process.GetPidFileHolder(PID_FILE) == os.getpid()
            assert options.foreground
            control.Started()
            logging.info("serving")
            return 7

        assert _Main(Exec, "-f") == 7
        assert not os.path.exists(PID_FILE)
        shown = io.ReadFile(LOG_FILE)
        assert f"ganeti-confd pid={os.getpid()} INFO ganeti-confd daemon startup" in shown
        assert "INFO serving" in shown
        assert "INFO ganeti-confd daemon shutdown" in shown

    def testDirectories(self):
        def Exec(options, args, control):
            for path, mode in daemon.DAEMON_DIRS[CONFD]:
                assert stat.S_IMODE(os.stat(path).st_mode) == mode

        os.makedirs(pathutils.RUN_GANETI_DIR, 0o700)
        assert _Main(Exec, "-f") == 0

    def testAsManyFilesAsAllowed(self):
        """Thousands of clients are served where the system's default is a thousand files."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
        seen = []

        def Exec(options, args, control):
            seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))

        try:
            assert _Main(Exec, "-f") == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert seen == [(hard, hard)]

    def testCheckRefuses(self, capsys):
        assert _Main(pytest.fail, "-f", "argument") == 1
        assert "arguments" in capsys.readouterr().err
        assert _Main(pytest.fail, "-f", check_fn=lambda options, args: 11) == 11
        assert not os.path.exists(PID_FILE)

    def testOnlyOne(self, capsys):
        def Outer(options, args, control):
            assert _Main(pytest.fail, "-f") == 1
            assert process.GetPidFileHolder(PID_FILE) == os.getpid()

        assert _Main(Outer, "-f") == 0
        err = capsys.readouterr().err
        assert "ganeti-confd can't be started" in err
        assert str(os.getpid()) in err

    @pytest.mark.parametrize("started", [False, True])
    def testError(self, capsys, started):
        def Exec(options, args, control):
            if started:
                control.Started()
            raise OSError("address in use")

        assert _Main(Exec, "-f") == 1
        shown = "ganeti-confd can't be started: address in use" in capsys.readouterr().err
        assert shown is not started
        assert "Traceback" in io.ReadFile(LOG_FILE)
        assert not os.path.exists(PID_FILE)

    @pytest.mark.parametrize(("code", "expected"), [(12, 12), (None, 0), ("why", 1)])
    def testExit(self, code, expected, capsys):
        assert _Main(lambda *_: sys.exit(code), "-f") == expected
        if code == "why":
            assert "why" in capsys.readouterr().err

    def testUnusableDirectory(self, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        code = daemon.GenericMain(
            CONFD,
            daemon.BuildParser(CONFD),
            [(str(tmp_path / "file"), 0o755)],
            daemon.RefuseArguments,
            pytest.fail,
            argv=["-f"],
        )
        assert code == 1
        assert str(tmp_path / "file") in capsys.readouterr().err

    def testMasterDaemonMayNotRunPrograms(self, monkeypatch):
        reasons = []
        monkeypatch.setattr(daemon.process, "DisableFork", reasons.append)
        assert _Main(lambda *_: 0, "-f", name=constants.MASTERD) == 0
        assert len(reasons) == 1
        _Main(lambda *_: 0, "-f")
        assert len(reasons) == 1

    @pytest.mark.parametrize(("argv", "expected"), [([], 1), (["--no-mlock"], 0)])
    def testMemoryLock(self, monkeypatch, argv, expected):
        """NA1: locked before the daemon serves."""
        calls = []
        monkeypatch.setattr(daemon.process, "Mlockall", lambda: calls.append(1))
        seen = []

        def Exec(options, args, control):
            seen.append(len(calls))

        _Main(Exec, "-f", "--no-ssl", *argv, name=constants.NODED)
        assert seen == [expected]

    def testMemoryLockImpossible(self, monkeypatch):
        def Fail():
            raise errors.NoCtypesError("no ctypes")

        monkeypatch.setattr(daemon.process, "Mlockall", Fail)
        assert _Main(lambda *_: 9, "-f", "--no-ssl", name=constants.NODED) == 9

    def testConsole(self, monkeypatch):
        """NA2: asked for by the node daemon."""
        seen = {}
        monkeypatch.setattr(daemon.log, "SetupLogging", lambda *_, **kwargs: seen.update(kwargs))
        _Main(lambda *_: 0, "-f", console_logging=True)
        assert seen["console_logging"] is True

    def testOwnInterpreterIsFound(self, monkeypatch):
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        _Main(lambda *_: 0, "-f")
        assert os.environ["PATH"].split(":")[0] == os.path.dirname(sys.executable)


class TestServiceManager:
    def testNotified(self, tmp_path, monkeypatch):
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path / "notify"))
            sock.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
            control = daemon.DaemonControl()
            control.Started()
            control.Started()
            assert sock.recv(100) == b"READY=1"
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(100)

    def testManagerHasGone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
        daemon.DaemonControl().Started()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestDetached:
    """The starter waits for the daemon's word; real processes that live for a moment."""

    def _Start(self, exec_fn, *argv):
        """Exit code of the starter, and what it showed on standard error."""
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.dup2(write_fd, 2)
                sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
                code = _Main(exec_fn, *argv)
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(write_fd)
        with open(read_fd) as fobj:
            shown = fobj.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown

    def testStart(self, tmp_path):
        facts = tmp_path / "facts"

        def Exec(options, args, control):
            async def Serve(control):
                streams = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
                umask = os.umask(0o077)
                facts.write_text(f"{os.getcwd()} {umask:o} {os.getppid()} {streams}")
                control.Started()
                await control.WaitForStop()

            return control.RunAsync(Serve)

        starter_pid = os.getpid()
        assert self._Start(Exec) == (0, "")
        pid = process.GetPidFileHolder(PID_FILE)
        try:
            assert pid not in (0, starter_pid)
            assert os.getsid(pid) not in (pid, os.getsid(0))
            cwd, umask, parent, streams = facts.read_text().split(" ", 3)
            assert (cwd, umask) == ("/", "77")
            assert int(parent) != starter_pid
            assert streams == str([os.devnull, LOG_FILE, LOG_FILE])
            assert os.stat(LOG_FILE).st_mode & 0o777 == 0o600
            code, shown = self._Start(pytest.fail)
            assert code == 1
            assert f"held by process {pid}" in shown
        finally:
            process.KillProcess(pid)
        assert process.GetPidFileHolder(PID_FILE) == 0
        assert "Received SIGTERM, stopping" in io.ReadFile(LOG_FILE)

    def testErrorReachesTheStarter(self):
        def Exec(options, args, control):
            raise OSError("address in use")

        assert self._Start(Exec) == (1, "ganeti-confd can't be started: address in use\n")

    def testFailureIsToldWhenNoPidFileSaysThatItRuns(self, monkeypatch):
        """Else daemon-util takes it for one that somebody else has started."""
        holders = []
        monkeypatch.setattr(
            process.StartReport,
            "Failed",
            lambda *_: holders.append(process.GetPidFileHolder(PID_FILE)),
        )

        def Exec(options, args, control):
            assert process.GetPidFileHolder(PID_FILE) == os.getpid()
            raise OSError("address in use")

        assert _Main(Exec, "-f") == 1
        assert _Main(lambda *_: 11, "-f") == 11
        assert holders == [0, 0]

    def testExitCodeReachesTheStarter(self):
        assert self._Start(lambda *_: sys.exit(12)) == (12, "")
        assert self._Start(lambda *_: 11) == (11, "")

    def testDeathIsNoticed(self):
        code, shown = self._Start(lambda *_: os._exit(0))
        assert code == 1
        assert LOG_FILE in shown

    def testLogDirectoryCantBeUsed(self, monkeypatch):
        monkeypatch.setitem(pathutils.DAEMONS_LOGFILES, CONFD, "/dev/null/log")
        code, shown = self._Start(pytest.fail)
        assert code == 1
        assert "can't be started" in shown
