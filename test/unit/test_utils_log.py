"""Log files, their format, and the console when the disk is gone."""

import contextlib
import errno
import logging
import os
import re
import socket
import threading
import time

import pytest

from ganeti import constants
from ganeti.utils import io, log


@pytest.fixture(autouse=True)
def _RestoreLogging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers = []
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def logfile(tmp_path):
    return str(tmp_path / "daemon.log")


def _Setup(logfile, **kwargs):
    kwargs.setdefault("program", "ganeti-test")
    kwargs.setdefault("syslog", constants.SYSLOG_NO)
    return log.SetupLogging(logfile, **kwargs)


class TestFormat:
    STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"

    def testPlain(self, logfile):
        _Setup(logfile)
        logging.info("hello %s", "world")
        logging.debug("not this")
        expected = rf"{self.STAMP}: ganeti-test pid={os.getpid()} INFO hello world\n"
        assert re.fullmatch(expected, io.ReadFile(logfile))

    def testThreadsAndDebug(self, logfile):
        _Setup(logfile, debug=1, multithreaded=True)
        logging.debug("x")
        expected = (
            rf"{self.STAMP}: ganeti-test pid={os.getpid()}/MainThread test_utils_log:\d+ DEBUG x\n"
        )
        assert re.fullmatch(expected, io.ReadFile(logfile))

    def testControlCharacters(self, logfile):
        """A log stays a text, whatever somebody called a thing; lines are left alone."""
        _Setup(logfile)
        logging.info("name %s", "a\0b\x1b[2J\x9b\x7f\tc\nd\ud800\u00e4")
        assert io.ReadFile(logfile).endswith("name a\\x00b\\x1b[2J\\x9b\\x7f\tc\nd\\ud800\u00e4\n")

    def testPercentInProgramName(self, logfile):
        _Setup(logfile, program="100%d")
        logging.info("x")
        assert ": 100%d pid=" in io.ReadFile(logfile)

    def testModeAndAppending(self, logfile):
        _Setup(logfile)
        logging.info("one")
        _Setup(logfile)
        logging.info("two")
        assert len(io.ReadFile(logfile).splitlines()) == 2
        assert os.stat(logfile).st_mode & 0o777 == 0o600
        assert len(logging.getLogger().handlers) == 1

    def testBadRecordDoesNotStopTheProgram(self, logfile, capfd):
        _Setup(logfile)
        logging.info("%d", "no number")
        logging.info("surrogate \udcff")
        assert "surrogate \\udcff" in io.ReadFile(logfile)


class TestStandardError:
    def testOnlyCritical(self, logfile, capfd):
        _Setup(logfile, stderr_logging=True)
        logging.error("quiet")
        logging.critical("loud")
        assert "CRITICAL loud" in capfd.readouterr().err
        assert "ERROR quiet" in io.ReadFile(logfile)

    def testEverythingInDebugMode(self, logfile, capfd):
        _Setup(logfile, stderr_logging=True, debug=True)
        logging.debug("detail")
        assert "DEBUG detail" in capfd.readouterr().err


class TestSyslog:
    @pytest.fixture
    def server(self, tmp_path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path / "log"))
            sock.settimeout(5)
            yield sock

    def testYes(self, logfile, server):
        _Setup(logfile, debug=True, syslog=constants.SYSLOG_YES, syslog_socket=server.getsockname())
        logging.debug("never debug")
        logging.warning("oops")
        # facility daemon is 3, severity warning is 4
        expected = f"<{3 * 8 + 4}>ganeti-test[{os.getpid()}]: WARNING oops\0"
        assert server.recv(1000).decode() == expected
        assert "oops" in io.ReadFile(logfile)

    def testOnlyAndThreads(self, logfile, server):
        _Setup(
            logfile,
            syslog=constants.SYSLOG_ONLY,
            syslog_socket=server.getsockname(),
            multithreaded=True,
        )
        logging.info("x")
        assert f"ganeti-test[{os.getpid()}]: (MainThread) INFO x" in server.recv(1000).decode()
        assert not os.path.exists(logfile)

    def testOnlyButMissing(self, logfile, tmp_path):
        with pytest.raises(OSError, match="No such file"):
            _Setup(logfile, syslog=constants.SYSLOG_ONLY, syslog_socket=str(tmp_path / "none"))


class TestUnusableFile:
    def testRaisedWithoutAnotherPlace(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            _Setup(str(tmp_path / "missing" / "log"))

    def testLoggedElsewhere(self, tmp_path, capfd):
        _Setup(str(tmp_path / "missing" / "log"), stderr_logging=True, debug=True)
        assert "Failed to enable logging to file" in capfd.readouterr().err


class TestConsole:
    """NA2: lines that can't be written to the log file go to the console; the program goes on."""

    def testFullDisk(self, tmp_path):
        console = tmp_path / "console"
        console.write_text("")
        _Setup("/dev/full", console_logging=True, console=str(console))
        logging.error("disk %s", "gone")
        logging.error("still here")
        shown = console.read_text()
        assert os.strerror(errno.ENOSPC) in shown
        assert "ERROR disk gone\n" in shown
        assert "ERROR still here\n" in shown

    def testInputOutputErrors(self, logfile, tmp_path, monkeypatch):
        console = tmp_path / "console"
        console.write_text("")
        _Setup(logfile, console_logging=True, console=str(console))
        real_write, log_fd = os.write, logging.getLogger().handlers[0].fileno()

        def Write(fd, data):
            if fd == log_fd:
                raise OSError(errno.EIO, "Input/output error")
            return real_write(fd, data)

        monkeypatch.setattr(os, "write", Write)
        logging.info("powercycle requested")
        monkeypatch.undo()
        logging.info("back again")
        assert "INFO powercycle requested" in console.read_text()
        assert "back again" not in console.read_text()
        assert "back again" in io.ReadFile(logfile)

    @pytest.mark.parametrize("console", ["/dev/full", "/nonexistent/console"])
    def testNeitherWorks(self, console):
        _Setup("/dev/full", console_logging=True, console=console)
        logging.error("nobody hears")

    def testNoConsoleUnlessAskedFor(self, tmp_path):
        console = tmp_path / "console"
        console.write_text("")
        _Setup("/dev/full", console=str(console))
        logging.error("x")
        assert console.read_text() == ""


class TestHangingFile:
    """NA2: a log file that does not even fail stops nobody."""

    @pytest.fixture
    def pipe(self, tmp_path, monkeypatch):
        """A log file that is full until somebody reads from it."""
        monkeypatch.setattr(log.logwriter, "PATIENCE", 0.05)
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(fd, b"x" * 4096)
        yield path, fd
        _Drain(fd)
        os.close(fd)

    def testEverybodyGoesOn(self, pipe, tmp_path):
        path, fd = pipe
        console = tmp_path / "console"
        console.write_text("")
        _Setup(path, console_logging=True, console=str(console))
        for number in range(20):
            logging.error("line %d", number)
        shown = console.read_text()
        assert f"Cannot log message to {path} yet: it hangs" in shown
        assert [f"ERROR line {number}\n" in shown for number in range(20)] == [True] * 20
        # What came meanwhile is not lost, and the console is left in peace again.
        text = ""
        for _ in range(1000):
            text += _Drain(fd)
            if "line 19" in text:
                break
            time.sleep(0.01)
        numbers = [int(number) for number in re.findall("ERROR line ([0-9]+)\n", text)]
        assert numbers == list(range(20))
        logging.error("back again")
        assert "back again" in _Drain(fd)
        assert "back again" not in console.read_text()

    def testTheEnd(self, pipe, tmp_path):
        """Closing the log does not wait for ever."""
        path, _ = pipe
        _Setup(path, console_logging=True, console=str(tmp_path / "console"))
        logging.error("x")
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
            handler.close()

    def testManyThreads(self, logfile, tmp_path):
        _Setup(logfile, console_logging=True, console=str(tmp_path / "console"))

        def Work(name):
            for number in range(50):
                logging.info("%s %d", name, number)

        threads = [threading.Thread(target=Work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = re.findall("INFO ([a-d]) ([0-9]+)\n", io.ReadFile(logfile))
        for name in "abcd":
            assert [int(number) for key, number in found if key == name] == list(range(50))


def _Drain(fd):
    parts = []
    with contextlib.suppress(BlockingIOError):
        while True:
            parts.append(os.read(fd, 65536))
    return b"".join(parts).decode()


class TestReopen:
    def testAfterRotation(self, logfile):
        reopen = _Setup(logfile)
        logging.info("one")
        os.rename(logfile, logfile + ".1")
        logging.info("two")
        reopen()
        logging.info("three")
        assert len(io.ReadFile(logfile + ".1").splitlines()) == 2
        assert "three" in io.ReadFile(logfile)

    def testStandardStreamsFollow(self, logfile):
        reopen = _Setup(logfile)
        saved = os.dup(2)
        try:
            os.dup2(logging.getLogger().handlers[0].fileno(), 2)
            os.rename(logfile, logfile + ".1")
            reopen()
            os.write(2, b"traceback\n")
        finally:
            os.dup2(saved, 2)
            os.close(saved)
        assert io.ReadFile(logfile) == "traceback\n"

    def testFailureKeepsTheOldFile(self, logfile, tmp_path):
        reopen = _Setup(logfile)
        moved = str(tmp_path / "moved")
        os.rename(logfile, moved)
        os.mkdir(logfile)
        reopen()
        logging.info("still")
        assert "Can't reopen" in io.ReadFile(moved)
        assert "INFO still" in io.ReadFile(moved)

    def testWithoutFile(self):
        reopen = _Setup(None, stderr_logging=True)
        reopen()
