"""Calling a function again and again until it is done or the time is over."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from .. import errors, runtime


class _RemainingTime:
    """Type of RETRY_REMAINING_TIME."""


#: As delay: wait once, for all the time that is left.
RETRY_REMAINING_TIME: Final = _RemainingTime()

#: Seconds; (start, factor, limit or None); a function; or RETRY_REMAINING_TIME.
Delay = float | tuple[float, float, float | None] | Callable[[], float] | _RemainingTime


class RetryAgain(Exception):  # noqa: N818 - not an error
    """Raised by a function to be called again; its arguments end up in RetryTimeout."""


class RetryTimeout(Exception):  # noqa: N818 - the name is part of the interface
    """The time was over before the function was done; arguments are those of its RetryAgain."""

    def RaiseInner(self) -> NoReturn:
        """Raise the exception that the function handed to RetryAgain, or a like RetryTimeout."""
        if self.args and isinstance(self.args[0], BaseException):
            raise self.args[0]
        raise RetryTimeout(*self.args)


class _GrowingDelay:
    """Delays that start small and grow by a factor up to a limit."""

    def __init__(self, start: float, factor: float, limit: float | None) -> None:
        assert start > 0.0, "the first delay must be positive"
        assert factor >= 1.0, "delays must not shrink"
        assert limit is None or limit >= 0.0, "the limit must not be negative"
        self._factor = factor
        self._limit = limit
        self._next = start

    def __call__(self) -> float:
        current = self._next
        if self._limit is not None:
            current = min(current, self._limit)
        self._next = current * self._factor
        return current


def Retry(
    fn: Callable[..., Any],
    delay: Delay,
    timeout: float,
    args: Sequence[Any] = (),
    wait_fn: Callable[[float], object] = runtime.DEFAULT.clock.sleep,
    time_fn: Callable[[], float] = runtime.DEFAULT.clock.monotonic,
) -> Any:
    """Call fn(*args) until it does something else than raise RetryAgain.

    It is called at least once. The time is looked at after a failed call only, so the last wait
    may go beyond the time-out.

    Arguments: delay, timeout in seconds (see Delay); wait_fn and time_fn are the clock.

    Returns: what the function returned; other exceptions of it pass.

    Raises: RetryTimeout; ProgrammerError if the function lets a RetryTimeout of its own escape.
    """
    next_delay = _DelayFunction(delay)
    end_time = time_fn() + timeout
    while True:
        try:
            return fn(*args)
        except RetryAgain as err:
            retry_args = err.args
        except RetryTimeout as err:
            raise errors.ProgrammerError(
                "Nested retry loop detected that didn't handle RetryTimeout"
            ) from err

        remaining = end_time - time_fn()
        if remaining < 0.0 or (next_delay is None and remaining == 0.0):
            raise RetryTimeout(*retry_args)
        wait = remaining if next_delay is None else next_delay()
        if wait > 0.0:
            wait_fn(wait)


def _DelayFunction(delay: Delay) -> Callable[[], float] | None:
    if isinstance(delay, _RemainingTime):
        return None
    if isinstance(delay, tuple):
        return _GrowingDelay(*delay)
    if callable(delay):
        return delay
    seconds = delay
    return lambda: seconds
