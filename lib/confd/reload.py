"""When confd reads its configuration again: a state machine without clock or inotify of its own.

Two questions decide everything. Is there a configuration (the processor is enabled)? And how are
changes seen: by events of the watched directory (with a look every minute, in case events fail), or
by looking every two seconds (I{polling})? Polling is for bursts: a file replaced many times a
second is read once in two seconds; once it was quiet for that long, events count again.

The directory is watched, not the file: a replaced file takes its watch along, and between that and
a new watch the next change would be missed. For the same reason a node that has no configuration
keeps its watch: it answers as soon as it becomes a candidate.
"""

from __future__ import annotations

import logging
from typing import Protocol

from .. import constants, errors
from ..runtime import Clock
from .server import ConfdProcessor


class Watcher(Protocol):
    """Calls L{ReloadController.OnEvent} when the configuration was written."""

    def Enable(self) -> None:
        """Watch from now on; enabling twice is fine. Raises InotifyError."""

    def Disable(self) -> None:
        """Watch no longer; disabling twice is fine."""


class ReloadController:
    """Keeps a L{ConfdProcessor} up to date.

    All methods that return seconds want L{OnTimer} to be called after as many, counted from now and
    in place of the last such wish.

    @ivar polling: changes are looked for every 2 s; else events tell of them
    """

    def __init__(self, processor: ConfdProcessor, watcher: Watcher, clock: Clock) -> None:
        self._processor = processor
        self._watcher = watcher
        self._clock = clock
        self.polling = True
        self._last_event = float("-inf")

    def Start(self) -> float:
        """First look at the configuration; there may be none."""
        try:
            self._processor.Enable()
        except errors.ConfigurationError as err:
            logging.warning("Starting without a configuration, in disabled mode: %s", err)
        return self._Interval()

    def OnTimer(self) -> float:
        """The time that was wished for is over."""
        if not self._processor.enabled:
            self.polling = self._TryEnable()
            if not self.polling:
                self._Watch()
        elif self._Reload():
            if not self.polling:
                logging.warning("The configuration changed, but no event of inotify said so")
        elif self._processor.enabled and self.polling and self._Watch():
            self.polling = False
            # What changed before the watch stood made no event.
            self._Reload()
        return self._Interval()

    def OnEvent(self, still_enabled: bool = True) -> float:
        """The configuration was written, or the watch ended.

        @param still_enabled: False if there is no watch any more
        """
        now = self._clock.monotonic()
        burst = now - self._last_event < constants.CONFD_CONFIG_RELOAD_RATELIMIT
        self._last_event = now
        if burst:
            self.polling = True
            self._watcher.Disable()
        elif not still_enabled and not self.polling:
            self.polling = not self._Watch()
        if self._processor.enabled:
            self._Reload()
        else:
            self._TryEnable()
        return self._Interval()

    def _Interval(self) -> float:
        if self.polling:
            return constants.CONFD_CONFIG_RELOAD_RATELIMIT
        return constants.CONFD_CONFIG_RELOAD_TIMEOUT

    def _TryEnable(self) -> bool:
        try:
            self._processor.Enable()
        except errors.ConfigurationError as err:
            logging.debug("Still without a configuration: %s", err)
            return False
        logging.info("There is a configuration now, answering")
        return True

    def _Reload(self) -> bool:
        try:
            changed = self._processor.Reload()
        except errors.ConfigurationError as err:
            logging.warning("No usable configuration any more, answering nothing: %s", err)
            self._processor.Disable()
            self.polling = not self._Watch()
            return False
        if changed:
            logging.debug("Read the configuration again")
        return changed

    def _Watch(self) -> bool:
        try:
            self._watcher.Enable()
        except errors.InotifyError as err:
            logging.warning("Can't watch the configuration: %s", errors.FormatError(err))
            return False
        return True
