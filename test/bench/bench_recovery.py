"""How fast does a master daemon start with a full queue? Real job files on a real disk.

Opens a queue of 5000 jobs, the most there can be: once as it is after a while (nearly all have
ended), once as a crash under load leaves it (a tenth was waiting or running).
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
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


def Recover(share, rounds=ROUNDS):
    """Seconds from opening a queue until it takes jobs; and of only reading and parsing its files.

    @param share: one in so many jobs has not ended
    """
    from ganeti import jqueue, jstore, locking, pathutils, runtime
    from ganeti.config import fake as config_fake
    from ganeti.jqueue import fake

    times, floor = [], []
    for _ in range(rounds):
        rt = dataclasses.replace(runtime.DEFAULT)
        os.makedirs(pathutils.QUEUE_DIR, exist_ok=True)
        _WriteJobs(rt, share)
        start = time.perf_counter()
        for job_id in range(1, JOBS + 1):
            with open(jstore.GetJobPath(job_id), "rb") as fobj:
                json.loads(fobj.read())
        floor.append(time.perf_counter() - start)
        cfg = config_fake.NewWriter(rt, 3)
        master = fake.FakeMaster.__new__(fake.FakeMaster)
        master.runtime, master.cfg, master.rpc = rt, cfg, fake.FakeRpc()
        master.glm = locking.GanetiLockManager(cfg.GetNodeList(), [], runtime=rt)
        start = time.perf_counter()
        master.jobqueue = jqueue.JobQueue(master, 25, jstore.OpenQueueLock)
        times.append(time.perf_counter() - start)
        master.jobqueue.Shutdown()
    return {
        "seconds": statistics.median(times),
        "slowest": max(times),
        "floor": statistics.median(floor),
    }
