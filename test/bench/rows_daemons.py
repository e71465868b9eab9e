"""What daemons use while they have little to do, and how the master daemon stands a crowd."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import psutil

from ganeti import constants
from ganeti.luxi import client as luxi_client
from ganeti.luxi import methods, protocol

from . import floors
from .place import Cluster, Place, Settle
from .rows_jobs import ONE, NoOp, Ready
from .table import Beside, Floor, Row, Setting

WAITERS = 2000


def Idle(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Percent of one processor that all daemons of a node use while nobody asks for anything."""
    assert setting is not None
    cluster = place.Cluster(setting)
    Settle(cluster)
    seconds = place.Rounds(25, 1)
    cpu, start = cluster.Cpu(), time.perf_counter()
    time.sleep(seconds)
    return {"cpu": (cluster.Cpu() - cpu) / (time.perf_counter() - start) * 100}


def Pss(pid: int) -> float:
    """A process's proportional share of memory in MiB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as fobj:
        for line in fobj:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"The kernel does not tell the memory of process {pid}")


def Memory(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Memory of all daemons after their start, some jobs and listings."""
    with Ready(place, setting) as (cluster, client):
        client.QueryInstances([], ["name", "admin_state"], False)
        daemons = cluster.Daemons()
        each = {name: Pss(process.pid) for name, process in daemons.items()}
    return {"memory": sum(each.values()), "daemons": len(each), **each}


def ManyClients(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Clients that wait for a job: what they cost while they do, and when they hear of its end."""
    count = place.Rounds(WAITERS, 50)
    with Ready(place, setting) as (cluster, client):
        master = cluster.Master()
        memory, threads = Pss(master.pid), master.num_threads()
        # Long enough for all to be connected and quiet.
        job_id = client.SubmitJob([NoOp(place.Rounds(10, 2))])
        known = client.QueryJobs([job_id], ["status"])[0]
        while known != [constants.JOB_STATUS_RUNNING]:
            known = client.WaitForJobChange(job_id, ["status"], known, None)[0]
        waiters: list[luxi_client.Transport] = []
        try:
            while len(waiters) < count:
                waiters.append(_Wait(cluster, job_id, known))
            Settle(cluster, limit=2)
            more_memory = Pss(master.pid) - memory
            more_threads = master.num_threads() - threads
            if client.QueryJobs([job_id], ["status"])[0] != known:
                raise RuntimeError(f"{count} clients could not connect while the job ran")
            for waiter in waiters:
                waiter.Recv()
            now = time.time()
        finally:
            for waiter in waiters:
                waiter.Close()
        seconds, microseconds = client.QueryJobs([job_id], ["end_ts"])[0][0]
    return {
        "memory": more_memory,
        "memory before": memory,
        "threads": more_threads,
        "threads before": threads,
        "woken": (now - seconds - microseconds / 1e6) * 1e3,
        "count": count,
    }


def _Wait(cluster: Cluster, job_id: str, known: Any) -> luxi_client.Transport:
    """A connection on which that question was asked; the answer is still to come."""
    transport = luxi_client.Transport(cluster.socket)
    args = [job_id, ["status"], known, None, luxi_client.WFJC_TIMEOUT]
    transport.Send(protocol.FormatRequest(methods.REQ_WAIT_FOR_JOB_CHANGE, args))
    return transport


def Recovery(place: Place, _: Setting | None) -> Mapping[str, float]:
    """The start of a queue as a crash under load leaves it."""
    found: Mapping[str, float] = place.Child("bench_recovery", "Recover", 10, place.Rounds(3, 1))
    return found


# Floors


def _IdleInterpreter(place: Place, _: Mapping[str, float]) -> float:
    with floors.SleepingInterpreter() as pid:
        process = psutil.Process(pid)
        before: float = sum(process.cpu_times()[:2])
        time.sleep(1)
        after: float = sum(process.cpu_times()[:2])
        return (after - before) * 100


def _Interpreter(place: Place, _: Mapping[str, float]) -> float:
    with floors.SleepingInterpreter() as pid:
        return Pss(pid)


def _Interpreters(place: Place, found: Mapping[str, float]) -> float:
    return found["daemons"] * _Interpreter(place, found)


def _RoundTrips(place: Place, found: Mapping[str, float]) -> float:
    with floors.Echo(200) as call:
        return floors.Median(call, 500) * found["count"] * 1e3


IDLE = Floor("a bare interpreter that sleeps", _IdleInterpreter)
INTERPRETERS = Floor("as many bare interpreters", _Interpreters)
SOCKETS = Floor("memory of a bare interpreter", _Interpreter)
NO_THREAD = Beside("threads before", "threads before")
ROUND_TRIPS = Floor("as many round trips over a UNIX socket", _RoundTrips)
READ = Beside("reading and parsing those files", "floor")


def _Memory(instances: int, target: float) -> Row:
    return Row(
        f"memory of all daemons of one node, {instances:,} instances",
        "MiB",
        target,
        Memory,
        "memory",
        INTERPRETERS,
        Setting(instances=instances),
        fresh=True,
    )


_MANY = f"{WAITERS:,} clients wait over LUXI"

ROWS = [
    Row("CPU of all daemons of one idle node", "%", 0.5, Idle, "cpu", IDLE, ONE),
    *[_Memory(*pair) for pair in ((0, 120), (200, 130), (2000, 200))],
    Row("recovery of 5,000 job files", "s", 2, Recovery, "seconds", READ),
    Row(f"{_MANY}: more memory", "MiB", None, ManyClients, "memory", SOCKETS, ONE),
    Row(f"{_MANY}: more threads", "", None, ManyClients, "threads", NO_THREAD, ONE),
    Row(f"{_MANY}: all know the end", "ms", None, ManyClients, "woken", ROUND_TRIPS, ONE),
]
