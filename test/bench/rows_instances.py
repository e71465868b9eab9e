"""Instances: created by many jobs at once, and listed."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping

from ganeti import constants, opcodes

from . import floors
from .place import Place, Settle
from .rows_calls import START
from .rows_jobs import ONE, THREE, Ready, Submit, WaitAll
from .table import Beside, Row, Setting

#: Created at once.
COUNT = 100


def _Name(number: int) -> str:
    return f"new{number}.example.com"


def _Create(number: int, node: str) -> opcodes.OpCode:
    return opcodes.OpInstanceCreate(
        instance_name=_Name(number),
        pnode=node,
        mode=constants.INSTANCE_CREATE,
        disk_template=constants.DT_DISKLESS,
        disks=[],
        nics=[],
        os_type="noop+default",
        start=True,
        wait_for_sync=True,
        ip_check=False,
        name_check=False,
        hvparams={},
        beparams={"memory": 16},
    )


def CreateMany(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Diskless instances that are started: the rate, and what each costs all daemons."""
    found: list[dict[str, float]] = []
    with Ready(place, setting) as (cluster, client):
        nodes = [node.name for node in cluster.virtual.layout.nodes]
        numbers = range(place.Rounds(COUNT, 10))
        creates = [_Create(number, nodes[number % len(nodes)]) for number in numbers]
        removes = [
            opcodes.OpInstanceRemove(
                instance_name=_Name(number), ignore_failures=False, shutdown_timeout=0
            )
            for number in numbers
        ]
        for _ in range(place.Rounds(3, 1)):
            cpu = cluster.Cpu()
            start = time.perf_counter()
            elapsed = WaitAll(client, Submit(client, creates)) - start
            Settle(cluster)
            cpu = cluster.Cpu() - cpu
            size = len(floors.JOB_FILE)
            write = statistics.median(floors.WriteTimes(place.Fresh(), b"c" * size, 20))
            WaitAll(client, Submit(client, removes))
            found.append(
                {
                    "rate": len(numbers) / elapsed,
                    "cpu": cpu / len(numbers) * 1e3,
                    "write rate": 1 / write,
                }
            )
    start_cpu = time.process_time()
    floors.WriteTimes(place.Fresh(), floors.JOB_FILE, COUNT)
    own = (time.process_time() - start_cpu) / COUNT * 1e3
    return {
        **{key: statistics.median(each[key] for each in found) for key in found[0]},
        "write cpu": own,
    }


#: Fields of a listing that need no node.
STATIC = "name,hypervisor,os,pnode,snodes,admin_state,be/memory,be/vcpus,disk_template,ip,mac"


def Lists(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Milliseconds of the listing command, of the configuration alone and with live fields."""
    assert setting is not None
    cluster = place.Cluster(setting)
    Settle(cluster)

    def _Run(*argv: str) -> float:
        return 1e3 * floors.Median(
            lambda: subprocess.run(
                argv, env=cluster.environment, stdout=subprocess.DEVNULL, check=True
            ),
            place.Rounds(15, 2),
        )

    return {
        "static": _Run("gnt-instance", "list", "-o", STATIC),
        "live": _Run("gnt-instance", "list"),
    }


_RATE = Beside("durable writes of 1 kB", "write rate")
_CPU = Beside("processor time of a durable write of 1 kB", "write cpu")
_ADD = f"{COUNT} diskless instances added and started at once"

ROWS = [
    Row(f"{_ADD}, one node", "/s", 30, CreateMany, "rate", _RATE, ONE, True),
    Row(f"{_ADD}, one node: CPU of all daemons each", "ms", None, CreateMany, "cpu", _CPU, ONE),
    Row(f"{_ADD}, 3 candidates", "/s", 30, CreateMany, "rate", _RATE, THREE, True),
    *[
        Row(
            f"gnt-instance list, static fields, {count:,} instances",
            "ms",
            target,
            Lists,
            "static",
            START,
            Setting(instances=count) if count else ONE,
        )
        for count, target in ((0, 75), (200, 90), (2000, 250))
    ],
    Row(
        "gnt-instance list, live fields, 2,000 instances on 3 nodes",
        "ms",
        500,
        Lists,
        "live",
        START,
        Setting(3, instances=2000),
    ),
]
