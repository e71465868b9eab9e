"""Waiting for one file descriptor."""

import select

from .. import runtime


def SingleWaitForFdCondition(fd: int, event: int, timeout: float | None) -> int | None:
    """Poll once for an event (POLLIN, ...); errors of the descriptor count as well.

    Arguments: timeout in seconds, None = for ever.

    Returns: the condition bits that are true, None if the time was over.
    """
    poller = select.poll()
    poller.register(fd, event)
    found = poller.poll(None if timeout is None else max(0.0, timeout) * 1000)
    return _Relevant(found, event)


def _Relevant(found: list[tuple[int, int]], event: int) -> int | None:
    if not found:
        return None
    _, bits = found[0]
    relevant = bits & (event | select.POLLPRI | select.POLLERR | select.POLLHUP | select.POLLNVAL)
    return relevant or None


def WaitForFdCondition(
    fd: int, event: int, timeout: float | None, runtime: runtime.Runtime = runtime.DEFAULT
) -> int | None:
    """As SingleWaitForFdCondition, but returns None only when the time is really over."""
    if timeout is None:
        while True:
            found = SingleWaitForFdCondition(fd, event, None)
            if found is not None:
                return found
    end = runtime.clock.monotonic() + timeout
    while True:
        remaining = end - runtime.clock.monotonic()
        found = SingleWaitForFdCondition(fd, event, remaining)
        if found is not None or remaining <= 0:
            return found
