"""Nodes as machines of their own, on the testbed (as root): joined over SSH, listed, cut off."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ganeti.rpc import client, transport

from . import floors
from .place import Place
from .rows_calls import START
from .table import Floor, Row, Setting

_TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def Nodes(place: Place, _: Setting | None) -> Mapping[str, float]:
    """Seconds of commands on a cluster of three machines."""
    if os.geteuid() != 0:
        raise RuntimeError("the testbed needs root")
    for name in ("component", "testbed"):
        path = os.path.join(_TESTS, name)
        if path not in sys.path:
            sys.path.append(path)
    import realcluster

    bed = realcluster.RealCluster(os.path.join(place.Fresh(), "bed"))

    def _Time(*argv: str, rounds: int = 1, codes: tuple[int, ...] = (0,)) -> float:
        def _Once() -> None:
            result = bed.Run(*argv)
            if result.code not in codes:
                raise RuntimeError(f"{argv} ended with {result.code}: {result.err or result.out}")

        return floors.Median(_Once, rounds)

    bed.Up("--nodes", "3")
    try:
        realcluster.MakeCluster(bed)
        adds = [
            _Time("gnt-node", "add", "-f", f"--secondary-ip=198.51.100.1{number}", f"node{number}")
            for number in (2, 3)
        ]
        verify = _Time("gnt-cluster", "verify", rounds=place.Rounds(5, 1), codes=(0, 1))
        listing = _Time("gnt-node", "list", rounds=place.Rounds(9, 1))
        bed.Do("cut", "node3")
        # The first one finds a connection that seems to be alive, the second one makes its own.
        cut, again = (_Time("gnt-node", "list") for _ in range(2))
    finally:
        bed.Do("down")
    return {"add": min(adds), "verify": verify, "list": listing, "cut": cut, "again": again}


_START = Floor("a bare interpreter's life", lambda place, found: START.measure(place, found) / 1e3)
_SILENCE = Floor("the silence that breaks a connection", lambda *_: float(transport.PEER_TIMEOUT))
_CONNECT = Floor("the time-out of a new connection", lambda *_: float(client.CONNECT_TIMEOUT))

ROWS = [
    Row("gnt-node add on the testbed, from nothing to usable", "s", None, Nodes, "add", _START),
    Row("gnt-cluster verify, 3 nodes of the testbed", "s", None, Nodes, "verify", _START),
    Row("gnt-node list, 3 nodes of the testbed", "s", None, Nodes, "list", _START),
    Row("gnt-node list, one of 3 nodes cut off", "s", None, Nodes, "cut", _SILENCE),
    Row("gnt-node list, one of 3 nodes cut off, again", "s", None, Nodes, "again", _CONNECT),
]
