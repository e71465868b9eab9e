"""What a live migration costs the guest and whoever waits for it."""

from __future__ import annotations

from collections.abc import Mapping

from .place import Place
from .table import Beside, Row, Setting


def MeasureQuiet(place: Place, _: Setting | None) -> Mapping[str, float]:
    """See C{bench_migration}."""
    found: Mapping[str, float] = place.Child(
        "bench_migration", "Migrate", place.Rounds(9, 1), False
    )
    return found


def MeasureBusy(place: Place, _: Setting | None) -> Mapping[str, float]:
    """See C{bench_migration}."""
    found: Mapping[str, float] = place.Child("bench_migration", "Migrate", place.Rounds(9, 1), True)
    return found


_STANDSTILL = Beside("QEMU driven by hand, in clear", "standstill by hand")
_TOTAL = Beside("QEMU driven by hand, in clear", "total by hand")

ROWS = [
    Row(
        "migration of a quiet guest: it stands still",
        "ms",
        60,
        MeasureQuiet,
        "standstill",
        _STANDSTILL,
    ),
    Row("migration of a quiet guest: in all", "s", 2, MeasureQuiet, "total", _TOTAL),
    Row(
        "migration of a busy guest: it stands still",
        "ms",
        None,
        MeasureBusy,
        "standstill",
        _STANDSTILL,
    ),
    Row("migration of a busy guest: in all", "s", None, MeasureBusy, "total", _TOTAL),
]
