"""Signals as flags, for programs without an event loop (commands, watcher, tools)."""

import functools
import signal
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any


class SignalHandler:
    """Notes that one of some signals came, until Reset; main thread only.

    Attribute: called (whether a signal came since the last Clear).
    """

    def __init__(self, signum: int | Iterable[int]) -> None:
        self.signum = {signum} if isinstance(signum, int) else set(signum)
        self.called = False
        self._previous: dict[int, Any] = {}
        try:
            for number in sorted(self.signum):
                self._previous[number] = signal.signal(number, self._HandleSignal)
        except BaseException:
            self.Reset()
            raise

    def _HandleSignal(self, signum: int, frame: FrameType | None) -> None:
        self.called = True

    def Clear(self) -> None:
        """Forget signals that came."""
        self.called = False

    def Reset(self) -> None:
        """Put the former handlers back."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def __enter__(self) -> "SignalHandler":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.Reset()


def SignalHandled(signums: Iterable[int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function gets C{signal_handlers}, a dict from signal to SignalHandler.

    Decorators may be stacked; handlers are taken away when the function ends.
    """
    numbers = tuple(signums)

    def Decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def Wrapped(*args: Any, **kwargs: Any) -> Any:
            handlers = kwargs.setdefault("signal_handlers", {})
            with SignalHandler(numbers) as handler:
                handlers.update(dict.fromkeys(numbers, handler))
                return fn(*args, **kwargs)

        return Wrapped

    return Decorate
