#!/usr/bin/env python3
"""How fast are jobs? A real queue and LUXI server on a real disk, no-op jobs, no other nodes.

Prints a table: each figure, and its ratio to the floor (one durable write of a small file, which is
what the disk asks for each promise). Figures depend on the machine; nothing is asserted.

Usage: bench_jobs.py [directory]
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

ROUNDS = 200
CLIENTS = 16
WAITERS = 2000


def _Prepare(directory):
    root = os.path.join(directory, "node1.example.com")
    os.makedirs(root, exist_ok=True)
    os.environ["GANETI_ROOTDIR"] = root
    os.environ["GANETI_HOSTNAME"] = "node1.example.com"


def _Floor(files, directory):
    """Median milliseconds of one durable write."""
    times = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        files.write(os.path.join(directory, f"floor-{number % 5}"), b"x" * 1000)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


class Served:
    """Master and server of this process, in a loop in a thread of its own."""

    def __init__(self, path):
        from ganeti import jstore, pathutils, runtime
        from ganeti.config import fake as config_fake
        from ganeti.jqueue import fake

        rt = runtime.DEFAULT
        os.makedirs(pathutils.DATA_DIR, exist_ok=True)
        cfg = config_fake.NewWriter(rt, 1)
        # A real queue in a real directory.
        self.master = fake.FakeMaster(rt, cfg, fake.FakeRpc(), 25, jstore.OpenQueueLock)
        self.master.jobqueue.Start()
        self.loop = asyncio.new_event_loop()
        self.executor = ThreadPoolExecutor(16)
        self.path = path
        started = threading.Event()
        self.thread = threading.Thread(target=self._Run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _Run(self, started):
        from ganeti.server import clientops, luxiserver

        async def _Start():
            ops = clientops.ClientOps(self.master, self.executor)
            self.server = luxiserver.LuxiServer(ops.Call, self.executor)
            await self.server.Start(luxiserver.Listen(self.path))
            started.set()

        self.loop.create_task(_Start())
        self.loop.run_forever()


def _Op():
    from ganeti import opcodes

    return opcodes.OpTestDelay(duration=0, on_master=True, on_nodes=[])


def _WaitFinal(client, job_id):
    info = None
    while True:
        info = client.WaitForJobChange(job_id, ["status"], info, None)[0]
        if info[0] in ("success", "error"):
            return


def _Latency(path):
    """Milliseconds from submit to success as a client sees them: all of them."""
    from ganeti import luxi

    times = []
    with luxi.Client(path) as client:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            _WaitFinal(client, client.SubmitJob([_Op()]))
            times.append((time.perf_counter() - start) * 1000)
    return times


def _SubmitRate(path):
    """Submissions a second, with several clients at once."""
    from ganeti import luxi

    def _Work():
        with luxi.Client(path) as client:
            for _ in range(ROUNDS // 4):
                client.SubmitJob([_Op()])

    threads = [threading.Thread(target=_Work) for _ in range(CLIENTS)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return CLIENTS * (ROUNDS // 4) / (time.perf_counter() - start)


def _SubmitMany(path, count):
    """Jobs a second in one SubmitManyJobs."""
    from ganeti import luxi

    with luxi.Client(path) as client:
        start = time.perf_counter()
        client.SubmitManyJobs([[_Op()]] * count)
        return count / (time.perf_counter() - start)


def _Drain(master):
    while True:
        counts = master.jobqueue.GetStatistics()["jobs"]
        if set(counts) <= {"success", "error"}:
            break
        time.sleep(0.05)
    master.jobqueue.AutoArchiveJobs(-1, 60)


def _Feedback(served, waiters):
    """Milliseconds until a log line has reached that many waiting clients (in one process)."""
    queue = served.master.jobqueue
    job_id = queue.SubmitJob([_Op()])
    time.sleep(0.2)
    job = queue._jobs[int(job_id)]
    seen = threading.Semaphore(0)
    fns = [seen.release] * waiters
    for fn in fns:
        queue.AddChangeListener(job_id, fn)
    start = time.perf_counter()
    queue.NotifyChange(job)
    for _ in fns:
        seen.acquire()
    return (time.perf_counter() - start) * 1000


def Main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        _Prepare(directory)
        from ganeti import runtime

        floor = _Floor(runtime.DEFAULT.files, directory)
        served = Served(os.path.join(directory, "socket"))
        latencies = _Latency(served.path)
        _Drain(served.master)
        rate = _SubmitRate(served.path)
        _Drain(served.master)
        many = _SubmitMany(served.path, 1000)
        _Drain(served.master)
        feedback = _Feedback(served, WAITERS)
        median = statistics.median(latencies)
        late = sorted(latencies)[int(len(latencies) * 0.95)]
        rows = [
            ("durable write of a small file (floor)", f"{floor:.2f} ms", 1.0),
            ("no-op job, submit to success, median", f"{median:.2f} ms", median / floor),
            ("no-op job, submit to success, 95 %", f"{late:.2f} ms", late / floor),
            (f"submissions, {CLIENTS} clients", f"{rate:.0f} / s", 1000 / rate / floor),
            ("submissions, 1000 in one request", f"{many:.0f} / s", 1000 / many / floor),
            (f"waking {WAITERS} waiting clients", f"{feedback:.2f} ms", feedback / floor),
        ]
        for name, value, ratio in rows:
            print(f"{name:45} {value:>14}   {ratio:8.2f} x floor")
        served.master.jobqueue.Shutdown()


if __name__ == "__main__":
    Main()
