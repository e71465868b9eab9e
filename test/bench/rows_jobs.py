"""Jobs, as a client of the master daemon sees them."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ganeti import constants, luxi, opcodes

from . import floors
from .place import InstanceName, Place, Settle
from .table import Beside, Floor, Row, Setting

ONE = Setting(nodes=1)
THREE = Setting(nodes=3)
WORKERS = 25
CLIENTS = 16


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
    directory = place.Fresh()
    jobs, writes = [], []
    with Ready(place, setting) as (_, client):
        for _ in range(place.Rounds(300, 20)):
            jobs += floors.Times(lambda: WaitFinal(client, client.SubmitJob([NoOp()])), 1)
            writes += floors.WriteTimes(directory, floors.JOB_FILE, 1)
    jobs.sort()
    writes.sort()
    found = {name: floors.Percentile(jobs, share) * 1e3 for name, share in _SHARES.items()}
    for name, share in _SHARES.items():
        found[f"write {name}"] = floors.Percentile(writes, share) * 1e3
    return found


_SHARES = {"p50": 0.5, "p99": 0.99}


def Burst(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Many jobs at once: the call, the rate, and what they cost all daemons."""
    count = place.Rounds(1000, 100)
    ops = [NoOp()] * count
    request = len(json.dumps([[op.__getstate__()] for op in ops]))
    found: list[dict[str, float]] = []
    for _ in range(place.Rounds(3, 1)):
        with Ready(place, setting) as (cluster, client):
            cpu = cluster.Cpu()
            start = time.perf_counter()
            job_ids = Submit(client, ops)
            call = time.perf_counter() - start
            elapsed = WaitAll(client, job_ids) - start
            # With what is left to do after the answers.
            Settle(cluster)
            cpu = cluster.Cpu() - cpu
        own_cpu = time.process_time()
        write = floors.WriteManyDurably(place.Fresh(), floors.JOB_FILE, count)
        own_cpu = time.process_time() - own_cpu
        with floors.Echo(request) as trip:
            trip_time = floors.Median(trip, 5)
        found.append(
            {
                "call": call * 1e3,
                "rate": count / elapsed,
                "cpu": cpu / count * 1e3,
                "write rate": count / write,
                "write cpu": own_cpu / count * 1e3,
                "request": (write + trip_time) * 1e3,
            }
        )
    return {key: statistics.median(each[key] for each in found) for key in found[0]}


def Submissions(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Clients that submit jobs one by one, all at once: until the last job has ended."""
    count = place.Rounds(50, 5)

    def _Work() -> list[str]:
        with cluster.Client() as own:
            return [own.SubmitJob([NoOp()]) for _ in range(count)]

    with Ready(place, setting) as (cluster, client), ThreadPoolExecutor(CLIENTS) as pool:
        start = time.perf_counter()
        works = [pool.submit(_Work) for _ in range(CLIENTS)]
        job_ids = sorted((job_id for work in works for job_id in work.result()), key=int)
        elapsed = WaitAll(client, job_ids) - start
    times = floors.WriteTimes(place.Fresh(), floors.JOB_FILE, 100)
    return {"rate": CLIENTS * count / elapsed, "write rate": 1 / statistics.median(times)}


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
    elapsed, write = _ModifyAtOnce(place, setting, 50)
    return {"rate": 50 / elapsed, "write rate": 1 / write}


def ModifySome(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Different instances are changed at once: 8, until the last one has its new value."""
    elapsed, write = _ModifyAtOnce(place, setting, 8)
    return {"slowest": elapsed, "write": write}


def _ModifyAtOnce(place: Place, setting: Setting | None, count: int) -> tuple[float, float]:
    """Seconds until all are changed, and of a write of the configuration."""
    times = []
    writes = []
    directory = place.Fresh()
    with Ready(place, setting) as (cluster, client):
        for turn in range(place.Rounds(4, 2)):
            ops = [Modify(number, 2 + turn) for number in range(count)]
            start = time.perf_counter()
            times.append(WaitAll(client, Submit(client, ops)) - start)
            writes += floors.WriteTimes(directory, b"c" * cluster.config_size, 3)
    # The first round writes every object for the first time.
    return statistics.median(times[1:]), statistics.median(writes)


WRITE_RATE = Beside("files of 1 kB written and synced together", "write rate")
SUBMIT = Beside("the request over a socket, its files synced together", "request")
WRITE_CPU = Beside("processor time of writing 1 kB", "write cpu")
ALL_BUSY = Beside("all workers always busy", "least")
CONFIG_RATE = Beside("durable writes of that configuration", "write rate")
CONFIG_WRITE = Beside("durable write of that configuration", "write")


_BY_INSTANCES = [(f"{count:,}", Setting(instances=count)) for count in (200, 2000, 10000)]
_BY_SIZE = [(f"{size}", Setting(megabytes=size)) for size in (1, 3, 5)]


def _WriteOne(share: str) -> Floor:
    return Beside(f"durable write of 1 kB, {share}", f"write {share}")


def _PerPlace(place: str, setting: Setting, p50: float, p99: float, rate: float) -> list[Row]:
    jobs = "1,000 no-op jobs at once"
    return [
        Row(f"no-op job, {place}, p50", "ms", p50, Latency, "p50", _WriteOne("p50"), setting),
        Row(f"no-op job, {place}, p99", "ms", p99, Latency, "p99", _WriteOne("p99"), setting),
        Row(f"{jobs}, {place}", "/s", rate, Burst, "rate", WRITE_RATE, setting, True),
        Row(f"{jobs}, {place}: CPU of all daemons each", "ms", 2, Burst, "cpu", WRITE_CPU, setting),
        Row(f"{jobs}, {place}: the submit call", "ms", 150, Burst, "call", SUBMIT, setting),
    ]


ROWS = [
    *_PerPlace("one node", ONE, 4, 25, 600),
    *_PerPlace("3 candidates", THREE, 10, 40, 400),
    Row(
        f"no-op jobs of {CLIENTS} clients, one by one each, one node",
        "/s",
        None,
        Submissions,
        "rate",
        Beside("durable writes of 1 kB", "write rate"),
        ONE,
        True,
    ),
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
            f"50 modify jobs at once, {setting.instances:,} instances, 3 candidates",
            "/s",
            None,
            ModifyMany,
            "rate",
            CONFIG_RATE,
            setting,
            True,
        )
        for setting in (Setting(3, instances=2000), Setting(3, instances=10000))
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
