"""Calls of the master to a node daemon, and a command's way to the master."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from . import floors
from .place import Place
from .rows_jobs import ONE
from .table import Beside, Floor, Row, Setting


def Calls(place: Place, _: Setting | None) -> Mapping[str, float]:
    """Node calls; see C{bench_rpc}."""
    found: Mapping[str, float] = place.Child("bench_rpc", "Calls", place.Rounds(200, 20))
    return found


def Commands(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Milliseconds of commands that ask the master daemon something."""
    assert setting is not None
    cluster = place.Cluster(setting)

    def _Run(*argv: str) -> float:
        return floors.Median(
            lambda: subprocess.run(
                argv, env=cluster.environment, stdout=subprocess.DEVNULL, check=True
            ),
            place.Rounds(15, 2),
        )

    return {
        "list": _Run("gnt-instance", "list") * 1e3,
        "version": _Run("gnt-cluster", "version") * 1e3,
    }


START = Floor(
    "a bare interpreter's life",
    lambda place, _: floors.InterpreterStart(place.Rounds(15, 3)) * 1e3,
)
TRIP = Beside("round trip over TLS", "floor")
TRIP_AND_WRITE = Beside("round trip over TLS, durable write", "write")
TRIPS = Beside("as many round trips over TLS", "floor many")
TRIP_RATE = Beside("round trips over TLS", "floor rate")

ROWS = [
    Row("node call", "ms", None, Calls, "version", TRIP),
    Row("node call that stores a job file", "ms", None, Calls, "update", TRIP_AND_WRITE),
    Row("node call to 30 nodes at once", "ms", None, Calls, "many", TRIPS),
    Row("node calls of 25 threads", "/s", None, Calls, "rate", TRIP_RATE, at_least=True),
    Row("gnt-instance list", "ms", None, Commands, "list", START, ONE),
    Row("gnt-cluster version", "ms", None, Commands, "version", START, ONE),
]
