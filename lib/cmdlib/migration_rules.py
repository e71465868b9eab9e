"""What to make of a migration that is under way: pure decisions, times as arguments.

The one that all others rest on: once the source says C{completed} it has given the guest away for
good, and whatever the target says then, it must never go on at the source. Until then it is the
source's, and must not go on there before it is certain that the target does not have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final

from .. import constants

#: Seconds between two looks at a migration: a small guest is gone in 20 ms.
_FIRST_DELAY: Final = 0.02
_DELAY_FACTOR: Final = 1.5
_MAX_DELAY: Final = 2.0
#: Seconds between two reports of how far it is.
REPORT_INTERVAL: Final = 2.0
#: Seconds that the source may be silent, and that a migration may stand still.
SILENCE_LIMIT: Final = 60.0
STALL_LIMIT: Final = 300.0
#: Where a hypervisor can not tell how much it has sent: seconds for each MiB of memory, and more.
_SLOWEST: Final = 1.0
_BLIND_EXTRA: Final = 600.0

_MIB: Final = 2**20


def GetDelays() -> Iterator[float]:
    """Seconds to wait before each look."""
    delay = _FIRST_DELAY
    while True:
        yield delay
        delay = min(delay * _DELAY_FACTOR, _MAX_DELAY)


def DescribeProgress(status: Mapping[str, Any], elapsed: float) -> str:
    """How far a migration is, for people.

    @param status: as C{instance_get_migration_status} answers
    @param elapsed: seconds since it was started
    """
    sent, total = status["transferred_ram"], status["total_ram"]
    if not sent or not total:
        return status["message"] or f"under way since {elapsed:.0f} s"
    if sent >= total:
        return (
            f"{sent / _MIB:.0f} MiB sent of a memory of {total / _MIB:.0f} MiB: what changes"
            " meanwhile is sent again"
        )
    text = f"{100 * sent / total:.1f}%, {sent / _MIB:.0f} of {total / _MIB:.0f} MiB"
    if elapsed <= 0:
        return text
    return f"{text}, {(total - sent) * elapsed / sent:.0f} s to go"


class Watchdog:
    """Says when to give a migration up. All times are of the monotonic clock, in seconds."""

    def __init__(self, now: float, memory: int) -> None:
        """@param memory: MiB that the guest has"""
        self._started = self._moved = self._heard = now
        self._blind_limit = memory * _SLOWEST + _BLIND_EXTRA
        self._seen: Any = None

    def Heard(self, status: Mapping[str, Any], now: float) -> str | None:
        """The source has answered; why to give up, None: go on."""
        self._heard = now
        if status["transferred_ram"] is None:
            if now - self._started >= self._blind_limit:
                return f"it is not over after {now - self._started:.0f} seconds"
            return None
        seen = status["transferred_ram"], status["message"]
        if seen != self._seen:
            self._seen, self._moved = seen, now
        if now - self._moved >= STALL_LIMIT:
            return f"it has stood still for {now - self._moved:.0f} seconds"
        return None

    def Silent(self, problem: str, now: float) -> str | None:
        """The source could not be asked; why to give up, None: go on."""
        if now - self._heard < SILENCE_LIMIT:
            return None
        return f"the source has not answered for {now - self._heard:.0f} seconds: {problem}"


class Place(Enum):
    """Where the guest is."""

    SOURCE = "source"
    TARGET = "target"
    BOTH = "both"
    UNKNOWN = "unknown"


def Locate(status: str | None, at_source: bool | None, at_target: bool | None) -> Place:
    """Where the guest of a migration is that was given up.

    @param status: what the source says of the migration after it was told to cancel it; None: it
        does not answer
    @param at_source: does it say that the guest runs there? None: it does not say
    @param at_target: likewise
    """
    if status == constants.MIGRATION_COMPLETED:
        return Place.TARGET
    if at_target:
        return Place.BOTH if at_source else Place.TARGET
    if status in (None, constants.MIGRATION_ACTIVE):
        # Still sending: what it says of itself may be out of date at any moment.
        return Place.UNKNOWN
    return Place.SOURCE
