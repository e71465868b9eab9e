"""Jobs, as a client of the master daemon sees them."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ganeti import constants, luxi, opcodes

from . import floors
from .place import InstanceName, Place, Settle
from .table import Floor, Row, Setting

ONE = Setting(nodes=1)
THREE = Setting(nodes=3)
WORKERS = 25


def NoOp(duration: float = 0) -> opcodes.OpCode:
    """A job's opcode that sleeps on the master."""
    return opcodes.OpTestDelay(duration=duration, on_master=True, on_nodes=[])


def Modify(number: int, vcpus: int) -> opcodes.OpCode:
    """A change of one instance."""
    return opcodes.OpInstanceSetParams(
        instance_name=InstanceName(number), beparams={"vcpus": vcpus}
    )


def WaitFinal(client: luxi.Client, job_id: str) -> str:
    """Wait for the end of a job; its status."""
    known = None
    while True:
        known = client.WaitForJobChange(job_id, ["status"], known, None)[0]
        if known[0] in constants.JOBS_FINALIZED:
            status: str = known[0]
            return status


def Submit(client: luxi.Client, ops: Sequence[opcodes.OpCode]) -> list[str]:
    """Submit a job for each opcode in one call; their ids."""
    results = client.SubmitManyJobs([[op] for op in ops])
    for good, value in results:
        if not good:
            raise RuntimeError(f"A job was refused: {value}")
    return [job_id for _, job_id in results]


def WaitAll(client: luxi.Client, job_ids: Sequence[str]) -> float:
    """Wait for the end of all jobs, at little cost to the daemon; the moment of the last end.

    Waits for the last one: when that has ended hardly any other one has not.
    """
    WaitFinal(client, job_ids[-1])
    end = time.perf_counter()
    while True:
        rows = client.QueryJobs(job_ids, ["id", "status"])
        left = [str(row[0]) for row in rows if row[1] not in constants.JOBS_FINALIZED]
        if not left:
            break
        for job_id in left:
            WaitFinal(client, job_id)
        end = time.perf_counter()
    bad = [row for row in rows if row[1] != constants.JOB_STATUS_SUCCESS]
    if bad:
        result = client.QueryJobs([str(bad[0][0])], ["opresult"])
        raise RuntimeError(f"{len(bad)} jobs failed, job {bad[0][0]} with {result}")
    return end


@contextlib.contextmanager
def Ready(place: Place, setting: Setting | None, warm: int = 20) -> Iterator[tuple[Any, Any]]:
    """The cluster and a client of it, after some jobs and once all is quiet; clean afterwards."""
    assert setting is not None
    cluster = place.Cluster(setting)
    with cluster.Client() as client:
        if warm:
            WaitAll(client, Submit(client, [NoOp()] * warm))
        Settle(cluster)
        yield cluster, client
        client.AutoArchiveJobs(-1)


def Latency(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """One job after the other on an idle cluster."""
    with Ready(place, setting) as (_, client):
        times = floors.Times(
            lambda: WaitFinal(client, client.SubmitJob([NoOp()])), place.Rounds(300, 20)
        )
    return {name: floors.Percentile(times, share) * 1e3 for name, share in _SHARES.items()}


_SHARES = {"p50": 0.5, "p99": 0.99}


def Burst(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Many jobs at once: the call, the rate, and what they cost all daemons."""
    count = place.Rounds(1000, 100)
    rounds = place.Rounds(3, 1)
    calls, rates, costs = [], [], []
    size = 0
    for _ in range(rounds):
        with Ready(place, setting) as (cluster, client):
            ops = [NoOp()] * count
            size = len(json.dumps([[[op.__getstate__()]] for op in ops]))
            cpu = cluster.Cpu()
            start = time.perf_counter()
            job_ids = Submit(client, ops)
            calls.append(time.perf_counter() - start)
            rates.append(count / (WaitAll(client, job_ids) - start))
            costs.append((cluster.Cpu() - cpu) / count)
    return {
        "call": statistics.median(calls) * 1e3,
        "rate": statistics.median(rates),
        "cpu": statistics.median(costs) * 1e3,
        "size": size,
        "count": count,
    }


def Delays(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Jobs that only wait: how well the workers are kept busy."""
    count = place.Rounds(1000, 100)
    duration = 0.1
    with Ready(place, setting) as (_, client):
        start = time.perf_counter()
        job_ids = Submit(client, [NoOp(duration)] * count)
        elapsed = WaitAll(client, job_ids) - start
    return {"elapsed": elapsed, "least": count * duration / WORKERS}


def ModifyMany(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Different instances are changed at once: 50 for the rate."""
    elapsed, size = _ModifyAtOnce(place, setting, 50)
    return {"rate": 50 / elapsed, "size": size}


def ModifySome(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Different instances are changed at once: 8, until the last one has its new value."""
    elapsed, size = _ModifyAtOnce(place, setting, 8)
    return {"slowest": elapsed, "size": size}


def _ModifyAtOnce(place: Place, setting: Setting | None, count: int) -> tuple[float, int]:
    times = []
    with Ready(place, setting) as (cluster, client):
        for turn in range(place.Rounds(4, 2)):
            ops = [Modify(number, 2 + turn) for number in range(count)]
            start = time.perf_counter()
            times.append(WaitAll(client, Submit(client, ops)) - start)
        size: int = cluster.config_size
    # The first round writes every object for the first time.
    return statistics.median(times[1:]), size


# Floors


def _WriteTime(share: float) -> Floor:
    def _Measure(place: Place, _: Mapping[str, float]) -> float:
        times = floors.WriteTimes(place.Fresh(), floors.JOB_FILE, place.Rounds(300, 20))
        return floors.Percentile(times, share) * 1e3

    return Floor(f"durable write of 1 kB, p{share * 100:.0f}", _Measure)


def _WriteRate(place: Place, found: Mapping[str, float]) -> float:
    count = int(found["count"])
    times = [floors.WriteManyDurably(place.Fresh(), floors.JOB_FILE, count) for _ in range(3)]
    return count / statistics.median(times)


def _RoundTripAndFiles(place: Place, found: Mapping[str, float]) -> float:
    with floors.Echo(int(found["size"])) as call:
        trip = floors.Median(call, 20)
    return (trip + found["count"] / _WriteRate(place, found)) * 1e3


def _WriteCpu(place: Place, _: Mapping[str, float]) -> float:
    return floors.WriteCpu(place.Fresh(), floors.JOB_FILE, place.Rounds(500, 50)) * 1e3


def _ConfigWrite(place: Place, found: Mapping[str, float]) -> float:
    data = b"c" * int(found["size"])
    return statistics.median(floors.WriteTimes(place.Fresh(), data, 10))


WRITE_RATE = Floor("files of 1 kB written and synced together", _WriteRate)
SUBMIT = Floor("the request over a socket, its files synced together", _RoundTripAndFiles)
WRITE_CPU = Floor("processor time of a durable write of 1 kB", _WriteCpu)
ALL_BUSY = Floor("all workers always busy", lambda place, found: found["least"])
CONFIG_RATE = Floor(
    "durable writes of that configuration", lambda place, found: 1 / _ConfigWrite(place, found)
)
CONFIG_WRITE = Floor("durable write of that configuration", _ConfigWrite)


_BY_INSTANCES = [(f"{count:,}", Setting(instances=count)) for count in (200, 2000, 10000)]
_BY_SIZE = [(f"{size}", Setting(megabytes=size)) for size in (1, 3, 5)]


def _PerPlace(place: str, setting: Setting, p50: float, p99: float, rate: float) -> list[Row]:
    jobs = "1,000 no-op jobs at once"
    return [
        Row(f"no-op job, {place}, p50", "ms", p50, Latency, "p50", _WriteTime(0.5), setting),
        Row(f"no-op job, {place}, p99", "ms", p99, Latency, "p99", _WriteTime(0.99), setting),
        Row(f"{jobs}, {place}", "/s", rate, Burst, "rate", WRITE_RATE, setting, True),
        Row(f"{jobs}, {place}: CPU of all daemons each", "ms", 2, Burst, "cpu", WRITE_CPU, setting),
        Row(f"{jobs}, {place}: the submit call", "ms", 150, Burst, "call", SUBMIT, setting),
    ]


ROWS = [
    *_PerPlace("one node", ONE, 4, 25, 600),
    *_PerPlace("3 candidates", THREE, 10, 40, 400),
    Row("1,000 jobs of 0.1 s, 25 workers", "s", 4.4, Delays, "elapsed", ALL_BUSY, ONE),
    *[
        Row(
            f"50 modify jobs at once, {count} instances",
            "/s",
            200,
            ModifyMany,
            "rate",
            CONFIG_RATE,
            setting,
            True,
        )
        for count, setting in _BY_INSTANCES
    ],
    *[
        Row(
            f"8 modify jobs at once, the last of them, {size} MB of configuration",
            "s",
            0.3,
            ModifySome,
            "slowest",
            CONFIG_WRITE,
            setting,
        )
        for size, setting in _BY_SIZE
    ],
]
