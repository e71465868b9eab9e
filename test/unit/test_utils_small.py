"""Identities, polling, signals as flags, descriptors."""

import os
import re
import select
import signal
import subprocess
import sys

import pytest

from ganeti.runtime import fake
from ganeti.utils import poll, signals, uuid


class TestUuid:
    """UU1: identities are random UUIDs."""

    def testForm(self):
        form = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
        made = {uuid.NewUUID() for _ in range(20)}
        assert len(made) == 20
        assert all(re.fullmatch(form, text) for text in made)

    def testSecret(self):
        assert re.fullmatch("[0-9a-f]{40}", uuid.GenerateSecret())
        assert len(uuid.GenerateSecret(32)) == 64
        assert uuid.GenerateSecret() != uuid.GenerateSecret()


class TestPoll:
    @pytest.fixture
    def pipe(self):
        read_fd, write_fd = os.pipe()
        yield read_fd, write_fd
        for fd in (read_fd, write_fd):
            try:
                os.close(fd)
            except OSError:
                continue

    @pytest.mark.parametrize("fn", [poll.SingleWaitForFdCondition, poll.WaitForFdCondition])
    def testConditions(self, pipe, fn):
        read_fd, write_fd = pipe
        assert fn(read_fd, select.POLLIN, 0) is None
        assert fn(read_fd, select.POLLIN, -1) is None
        assert fn(write_fd, select.POLLOUT, None) == select.POLLOUT
        os.write(write_fd, b"x")
        assert fn(read_fd, select.POLLIN, 10) == select.POLLIN
        os.read(read_fd, 1)
        os.close(write_fd)
        assert fn(read_fd, select.POLLIN, None) & select.POLLHUP

    def testRepeatsUntilTheTimeIsReallyOver(self, pipe, monkeypatch):
        clock = fake.FakeClock()
        waits = []

        def TooEarly(fd, event, timeout):
            waits.append(timeout)
            clock.Advance(2)

        monkeypatch.setattr(poll, "SingleWaitForFdCondition", TooEarly)
        rt = fake.NewRuntime(clock=clock)
        assert poll.WaitForFdCondition(pipe[0], select.POLLIN, 5, runtime=rt) is None
        assert waits == [5, 3, 1, -1]


class TestSignalHandler:
    def testCalledClearReset(self):
        before = signal.getsignal(signal.SIGUSR1)
        handler = signals.SignalHandler([signal.SIGUSR1, signal.SIGUSR2])
        try:
            assert not handler.called
            signal.raise_signal(signal.SIGUSR1)
            assert handler.called
            handler.Clear()
            assert not handler.called
            signal.raise_signal(signal.SIGUSR2)
            assert handler.called
        finally:
            handler.Reset()
        assert signal.getsignal(signal.SIGUSR1) is before

    def testImpossibleSignalLeavesNothingBehind(self):
        before = signal.getsignal(signal.SIGHUP)
        with pytest.raises(OSError, match="Invalid argument"):
            signals.SignalHandler([signal.SIGHUP, signal.SIGKILL])
        assert signal.getsignal(signal.SIGHUP) is before

    def testDecoratorIsStackable(self):
        before = signal.getsignal(signal.SIGUSR1)

        @signals.SignalHandled([signal.SIGUSR1])
        @signals.SignalHandled([signal.SIGUSR2])
        def Fn(value, signal_handlers=None):
            signal.raise_signal(signal.SIGUSR1)
            return value, {num: handler.called for num, handler in signal_handlers.items()}

        assert Fn(5) == (5, {signal.SIGUSR1: True, signal.SIGUSR2: False})
        assert signal.getsignal(signal.SIGUSR1) is before


class TestCloseFds:
    def testKeepsWhatIsAskedFor(self):
        script = (
            "import os; from ganeti.utils import process\n"
            "fds = [os.open('/dev/null', os.O_RDONLY) for _ in range(4)]\n"
            "process.CloseFDs(keep=[1, fds[1], fds[3]])\n"
            "def alive(fd):\n"
            "  try: os.fstat(fd); return True\n"
            "  except OSError: return False\n"
            "print([alive(fd) for fd in [0, 1, 2, *fds]])"
        )
        shown = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        assert shown == "[True, True, True, False, True, False, True]\n"
