"""A master daemon for tests of commands: answers queries from tables, runs jobs as scripted.

It has the requests of L{luxi.Client} that commands use, and remembers all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from ..luxi.client import AssembleConfig
from ..utils import text

#: Answers of WaitForJobChangeOnce.
_NOCHANGE: Final = constants.JOB_NOTCHANGED


class FakeJob:
    """A job: what its opcodes result in, and what a client sees of it while it waits.

    @ivar steps: answers to waits: C{nochange}, or (status, log entries)
    @ivar row: values of fields for queries
    """

    def __init__(
        self,
        job_id: str,
        ops: Sequence[Mapping[str, Any]] = (),
        results: Sequence[Any] = (),
        log: Sequence[tuple[int, str]] = (),
        steps: Sequence[Any] = (),
        **row: Any,
    ) -> None:
        """@param results: for each opcode its result, or the exception it fails with
        @param log: (time in seconds, text)"""
        failed = [isinstance(result, BaseException) for result in results]
        status = constants.JOB_STATUS_ERROR if any(failed) else constants.JOB_STATUS_SUCCESS
        entries = [
            [serial + 1, [when, 0], "message", line] for serial, (when, line) in enumerate(log)
        ]
        self.steps = list(steps) or [*([(status, entries)] if entries else []), (status, [])]
        self.ops = [dict(op) for op in ops]
        self.row = {
            "id": job_id,
            "status": status,
            "lock_status": None,
            "summary": [str(op["OP_ID"])[3:] for op in ops],
            "ops": self.ops,
            "opstatus": ["error" if bad else "success" for bad in failed],
            "opresult": [
                errors.EncodeException(result) if isinstance(result, BaseException) else result
                for result in results
            ],
            "oplog": [entries],
            **row,
        }

    def NextStep(self) -> Any:
        """The next answer to a wait; the last one again and again."""
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return step if step == _NOCHANGE or step is None else [[step[0]], list(step[1])]


class FakeClient:
    """See the module.

    @ivar calls: (method, arguments) of all requests
    @ivar submitted: the opcodes of all submitted jobs, as dictionaries
    @ivar results: OP_ID -> result of such an opcode, or an exception that it fails with, or a
        function from its dictionary to that
    @ivar logs: OP_ID -> log entries of a job with it, as (time, text)
    @ivar refuse: raised, or for many jobs reported, at submission
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.submitted: list[list[dict[str, Any]]] = []
        self.results: dict[str, Any] = {}
        self.logs: dict[str, Sequence[tuple[int, str]]] = {}
        self.refuse: errors.GenericError | None = None
        self.jobs: dict[str, FakeJob] = {}
        self.nodes: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.info: dict[str, Any] = {}
        self.tags: dict[str, list[str]] = {}
        self.exports: dict[str, Any] = {}
        self.locks: list[dict[str, Any]] = []
        self.config_values: dict[str, Any] = {"drain_flag": False, "watcher_pause": None}
        #: L{config.past.History}, or what looks like it.
        self.config_history: Any = None
        self.next_id = 1

    # Jobs

    def _Run(self, ops: Sequence[Any]) -> str:
        states = [op if isinstance(op, dict) else op.__getstate__() for op in ops]
        self.submitted.append(states)
        if self.refuse is not None:
            raise self.refuse
        if self.config_values["drain_flag"]:
            raise errors.JobQueueDrainError()
        job_id = str(self.next_id)
        self.next_id += 1
        results = []
        log: list[tuple[int, str]] = []
        for state in states:
            result = self.results.get(state["OP_ID"])
            results.append(result(state) if callable(result) else result)
            log += self.logs.get(state["OP_ID"], ())
        self.jobs[job_id] = FakeJob(job_id, states, results, log)
        return job_id

    def SubmitJob(self, ops: Sequence[Any]) -> str:
        self.calls.append(("SubmitJob", ops))
        return self._Run(ops)

    def SubmitManyJobs(self, jobs: Sequence[Sequence[Any]]) -> list[Any]:
        self.calls.append(("SubmitManyJobs", jobs))
        answers = []
        for ops in jobs:
            try:
                answers.append([True, self._Run(ops)])
            except errors.GenericError as err:
                answers.append([False, errors.FormatError(err)])
        return answers

    def QueryJobs(self, job_ids: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        self.calls.append(("QueryJobs", (job_ids, fields)))
        rows: list[Any] = []
        for job_id in job_ids or text.NiceSort(self.jobs):
            job = self.jobs.get(job_id)
            for field in fields:
                if job is not None and field not in job.row:
                    raise errors.OpExecError(f"Invalid job query field '{field}'")
            rows.append(None if job is None else [job.row[field] for field in fields])
        return rows

    def WaitForJobChangeOnce(
        self,
        job_id: str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float = 0,
    ) -> Any:
        self.calls.append(
            ("WaitForJobChange", (job_id, fields, prev_job_info, prev_log_serial, timeout))
        )
        job = self.jobs.get(job_id)
        return None if job is None else job.NextStep()

    def CancelJob(self, job_id: str) -> list[Any]:
        self.calls.append(("CancelJob", job_id))
        job = self.jobs.get(job_id)
        if job is None:
            return [False, f"Job {job_id} not found"]
        if job.row["status"] != constants.JOB_STATUS_QUEUED:
            return [False, f"Job {job_id} is no longer waiting in the queue"]
        return [True, f"Job {job_id} canceled"]

    def ChangeJobPriority(self, job_id: str, priority: int) -> list[Any]:
        self.calls.append(("ChangeJobPriority", (job_id, priority)))
        return [job_id in self.jobs, f"Priority of job {job_id}"]

    def ArchiveJob(self, job_id: str) -> bool:
        self.calls.append(("ArchiveJob", job_id))
        return self.jobs.pop(job_id, None) is not None

    def AutoArchiveJobs(self, age: float) -> list[int]:
        self.calls.append(("AutoArchiveJobs", age))
        return [0, 0]

    # Objects

    def _Rows(
        self, kind: str, objects: list[dict[str, Any]], names: Sequence[str], fields: Sequence[str]
    ) -> list[Any]:
        by_name = {obj["name"]: obj for obj in objects}
        for field in fields:
            if objects and field not in objects[0]:
                raise errors.OpPrereqError(
                    f"Unknown output fields selected: {field}", errors.ECODE_INVAL
                )
        chosen = []
        for name in names or list(by_name):
            full = text.MatchNameComponent(name, by_name)
            if full is None:
                raise errors.OpPrereqError(f"{kind} '{name}' not known", errors.ECODE_NOENT)
            chosen.append(by_name[full])
        return [[obj[field] for field in fields] for obj in chosen]

    def QueryNodes(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        self.calls.append(("QueryNodes", (names, fields, use_locking)))
        return self._Rows("Node", self.nodes, names, fields)

    def QueryInstances(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        self.calls.append(("QueryInstances", (names, fields, use_locking)))
        return self._Rows("Instance", self.instances, names, fields)

    def QueryExports(self, nodes: Sequence[str], use_locking: bool) -> dict[str, Any]:
        self.calls.append(("QueryExports", (nodes, use_locking)))
        return self.exports

    def QueryClusterInfo(self) -> dict[str, Any]:
        self.calls.append(("QueryClusterInfo", None))
        return self.info

    def QueryConfigValues(self, fields: Sequence[str]) -> list[Any]:
        self.calls.append(("QueryConfigValues", fields))
        return [self.config_values[field] for field in fields]

    def QueryTags(self, kind: str, name: str) -> list[str]:
        self.calls.append(("QueryTags", (kind, name)))
        return self.tags[kind if kind == constants.TAG_CLUSTER else name]

    def QueryLocks(self, fields: Sequence[str]) -> list[Any]:
        self.calls.append(("QueryLocks", fields))
        return [[lock[field] for field in fields] for lock in self.locks]

    # The past of the configuration, of one page

    def QueryConfigHistory(
        self,
        name: str | None = None,
        since_serial: int | None = None,
        since_time: float | None = None,
    ) -> dict[str, Any]:
        self.calls.append(("QueryConfigHistory", (name, since_serial, since_time)))
        answer: dict[str, Any] = self.config_history.List(name, since_serial, since_time)
        return answer

    def QueryConfigChange(self, serial: int) -> dict[str, Any]:
        self.calls.append(("QueryConfigChange", serial))
        answer: dict[str, Any] = self.config_history.Show(serial)
        return answer

    def QueryConfigAt(self, serial: int) -> dict[str, Any]:
        self.calls.append(("QueryConfigAt", serial))
        return AssembleConfig(self.config_history.Export(serial))

    # The daemons

    def SetQueueDrainFlag(self, flag: bool) -> bool:
        self.calls.append(("SetQueueDrainFlag", flag))
        self.config_values["drain_flag"] = flag
        return True

    def SetWatcherPause(self, until: float | None) -> float | None:
        self.calls.append(("SetWatcherPause", until))
        self.config_values["watcher_pause"] = until
        return until
