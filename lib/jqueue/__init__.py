"""The job queue of the master daemon.

- L{job}: jobs and opcodes as data, their states and file form
- L{depends}: jobs that wait for jobs
- L{store}: job files on disk, with group commit
- L{replication}: their copies on other master candidates
- L{executor}: what a worker does with a job
- L{submission}: jobs on their way in
- L{watch}: who waits for changes of which job
- L{queue}: the queue that ties these together

Requirements JQ1 to JQ4.
"""

from __future__ import annotations

from .job import CalcJobStatus, QueuedJob, QueuedOpCode
from .queue import JobQueue
from .submission import Submission

__all__ = ["CalcJobStatus", "JobQueue", "QueuedJob", "QueuedOpCode", "Submission"]
