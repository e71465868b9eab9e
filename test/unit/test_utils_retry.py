"""Retrying in the time of a fake clock."""

import pytest

from ganeti import errors
from ganeti.runtime import fake
from ganeti.utils import retry


@pytest.fixture
def clock():
    return fake.FakeClock()


class Attempts:
    """Raises RetryAgain a number of times, then returns."""

    def __init__(self, failures, *args):
        self.left = failures
        self.count = 0
        self.args = args

    def __call__(self):
        self.count += 1
        if self.left:
            self.left -= 1
            raise retry.RetryAgain(*self.args)
        return "done"


def _Retry(clock, fn, delay, timeout, **kwargs):
    return retry.Retry(fn, delay, timeout, wait_fn=clock.sleep, time_fn=clock.monotonic, **kwargs)


class TestRetry:
    def testAtOnce(self, clock):
        assert _Retry(clock, lambda: 5, 0.01, 0.3) == 5
        assert clock.sleeps == []

    def testArguments(self, clock):
        assert _Retry(clock, lambda a, b: (a, b), 1, 1, args=(1, 2)) == (1, 2)

    def testCompletesAfterSome(self, clock):
        fn = Attempts(3)
        assert _Retry(clock, fn, 2, 100) == "done"
        assert clock.sleeps == [2, 2, 2]

    def testTimeout(self, clock):
        fn = Attempts(1000)
        with pytest.raises(retry.RetryTimeout):
            _Retry(clock, fn, 1, 3)
        # the time is looked at after a failed call, so the last wait goes beyond
        assert clock.sleeps == [1, 1, 1, 1]

    @pytest.mark.parametrize("timeout", [0, -1])
    def testTriedOnceInAnyCase(self, clock, timeout):
        assert _Retry(clock, lambda: "x", 1, timeout) == "x"

    @pytest.mark.parametrize(
        ("delay", "expected"),
        [
            ((1, 2, None), [1, 2, 4, 8, 16, 32]),
            ((1, 2, 5), [1, 2, 4, 5, 5, 5]),
            ((1, 1, None), [1] * 6),
            ((10, 1.5, 5), [5] * 6),
        ],
    )
    def testGrowingDelay(self, clock, delay, expected):
        _Retry(clock, Attempts(6), delay, 1000)
        assert clock.sleeps == expected

    @pytest.mark.parametrize("delay", [(0, 2, 1), (-1, 2, 1), (1, 0.9, 1), (1, 2, -1)])
    def testSenselessDelay(self, clock, delay):
        with pytest.raises(AssertionError):
            _Retry(clock, Attempts(1), delay, 10)

    def testCallableDelay(self, clock):
        delays = iter([3, 1, 0, 4])
        _Retry(clock, Attempts(4), lambda: next(delays), 1000)
        assert clock.sleeps == [3, 1, 4]

    def testRemainingTimeIsOneWait(self, clock):
        fn = Attempts(1000)
        with pytest.raises(retry.RetryTimeout):
            _Retry(clock, fn, retry.RETRY_REMAINING_TIME, 7)
        assert clock.sleeps == [7]
        assert fn.count == 2

    def testOtherExceptionsPass(self, clock):
        with pytest.raises(ZeroDivisionError):
            _Retry(clock, lambda: 1 / 0, 1, 10)

    def testNested(self, clock):
        def Outer():
            _Retry(clock, Attempts(1000), 1, 3)

        with pytest.raises(errors.ProgrammerError, match="[Nn]ested"):
            _Retry(clock, Outer, 1, 10)


class TestRetryTimeout:
    def _Timeout(self, clock, *args):
        with pytest.raises(retry.RetryTimeout) as info:
            _Retry(clock, Attempts(1000, *args), 1, 0)
        return info.value

    def testCarriesArguments(self, clock):
        assert self._Timeout(clock, "error", 3).args == ("error", 3)

    def testRaiseInnerException(self, clock):
        inner = errors.OpExecError("inner")
        with pytest.raises(errors.OpExecError) as info:
            self._Timeout(clock, inner, "more").RaiseInner()
        assert info.value is inner

    @pytest.mark.parametrize("args", [(), ("text", 1)])
    def testRaiseInnerWithoutException(self, clock, args):
        with pytest.raises(retry.RetryTimeout) as info:
            self._Timeout(clock, *args).RaiseInner()
        assert info.value.args == args
