#!/usr/bin/env python3
"""How fast does a master daemon start with a full queue? Real job files on a real disk.

Opens a queue of 5000 jobs, the most there can be: once as it is after a while (nearly all have
ended), once as a crash under load leaves it (a tenth was waiting or running). Prints milliseconds;
nothing is asserted. The requirement is 2 s.

Usage: bench_recovery.py [directory]
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import tempfile
import time

JOBS = 5000
ROUNDS = 5


def _WriteJobs(rt, share):
    """Write the files; one in C{share} jobs has not ended."""
    from ganeti import jstore, opcodes
    from ganeti.jqueue import QueuedJob

    for job_id in range(1, JOBS + 1):
        ops = [
            opcodes.OpInstanceStartup(
                instance_name=f"inst{job_id}.example.com", force=False, debug_level=0
            )
        ]
        job = QueuedJob(job_id, ops, 1767225600.0 + job_id)
        op = job.ops[0]
        if job_id % share:
            op.Apply("take", 1767225600.0 + job_id)
            op.Apply("start", 1767225600.0 + job_id)
            job.AddLogEntry(op, "message", " - INFO: something happened", 1767225600.0 + job_id)
            op.Apply("succeed", 1767225600.0 + job_id)
            job.Finish(1767225600.0 + job_id)
        elif job_id % (2 * share):
            op.Apply("take", 1767225600.0 + job_id)
            op.Apply("start", 1767225600.0 + job_id)
        rt.files.write(jstore.GetJobPath(job_id), job.Serialize(), durable=False)


def _Measure(share):
    from ganeti import jqueue, jstore, locking, pathutils, runtime
    from ganeti.config import fake as config_fake
    from ganeti.jqueue import fake

    times = []
    for _ in range(ROUNDS):
        rt = dataclasses.replace(runtime.DEFAULT)
        os.makedirs(pathutils.QUEUE_DIR, exist_ok=True)
        _WriteJobs(rt, share)
        cfg = config_fake.NewWriter(rt, 3)
        master = fake.FakeMaster.__new__(fake.FakeMaster)
        master.runtime, master.cfg, master.rpc = rt, cfg, fake.FakeRpc()
        master.glm = locking.GanetiLockManager(cfg.GetNodeList(), [], runtime=rt)
        start = time.perf_counter()
        master.jobqueue = jqueue.JobQueue(master, 25, jstore.OpenQueueLock)
        times.append(time.perf_counter() - start)
        master.jobqueue.Shutdown()
    return statistics.median(times) * 1000, max(times) * 1000


def Main():
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        root = os.path.join(directory, "node1.example.com")
        os.makedirs(root)
        os.environ["GANETI_ROOTDIR"] = root
        os.environ["GANETI_HOSTNAME"] = "node1.example.com"
        from ganeti import pathutils

        os.makedirs(pathutils.DATA_DIR)
        print(f"{JOBS} jobs{'':28} median        max")
        for title, share in (("all but 5 have ended", 1000), ("a tenth did not end", 10)):
            median, most = _Measure(share)
            print(f"{title:<36} {median:7.0f} ms {most:7.0f} ms")


if __name__ == "__main__":
    Main()
