"""A master daemon in memory, as resources see it: for tests of the API and of its clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import constants, errors, luxi

Dict = dict[str, Any]


class FakeMaster:
    """What a L{FakeClient} talks to: objects as dictionaries, and the jobs that were submitted.

    @ivar submitted: the opcodes of each submitted job
    @ivar results: called with the opcodes of a job, returns (status, opcode results) it ends with
    @ivar error: raised by every call while it is set
    @ivar changes: answers of the coming waits for job changes
    """

    def __init__(self) -> None:
        self.info: Dict = {}
        self.instances: list[Dict] = []
        self.nodes: list[Dict] = []
        self.jobs: list[Dict] = []
        self.submitted: list[list[Dict]] = []
        self.calls: list[tuple[str, Any]] = []
        self.next_job_id = 1
        self.results: Callable[[Sequence[Dict]], tuple[str, list[Any]]] = _AllNone
        self.error: Exception | None = None
        self.changes: list[Any] = []
        self.open_clients = 0

    def Connect(self) -> FakeClient:
        """A new connection."""
        return FakeClient(self)


def _AllNone(ops: Sequence[Dict]) -> tuple[str, list[Any]]:
    return constants.JOB_STATUS_SUCCESS, [None] * len(ops)


def _Rows(items: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[list[Any]]:
    return [[item.get(field) for field in fields] for item in items]


class FakeClient:
    """The part of L{luxi.Client} that resources use."""

    def __init__(self, master: FakeMaster) -> None:
        if isinstance(master.error, luxi.NoMasterError):
            raise master.error
        self._master = master
        master.open_clients += 1

    def Close(self) -> None:
        """Hang up."""
        self._master.open_clients -= 1

    def _Record(self, method: str, args: Any) -> None:
        self._master.calls.append((method, args))
        if self._master.error is not None:
            raise self._master.error

    def CallMethod(self, method: str, args: Sequence[Any]) -> Any:
        """Wait for a job change: there is nothing else that is called by its name."""
        assert method == luxi.REQ_WAIT_FOR_JOB_CHANGE
        return self.WaitForJobChangeOnce(*args)

    def SubmitJob(self, ops: Sequence[Dict]) -> str:
        """Note a job; it is over at once."""
        self._Record("SubmitJob", ops)
        master = self._master
        job_id, master.next_job_id = str(master.next_job_id), master.next_job_id + 1
        master.submitted.append(list(ops))
        status, results = master.results(ops)
        master.jobs.append({"id": job_id, "ops": ops, "status": status, "opresult": results})
        return job_id

    def CancelJob(self, job_id: str) -> list[Any]:
        """It always is too late."""
        self._Record("CancelJob", job_id)
        return [False, f"Job {job_id} is no longer waiting in the queue"]

    def _FindJob(self, job_id: Any) -> Dict | None:
        found = [job for job in self._master.jobs if job["id"] == str(job_id)]
        return found[0] if found else None

    def QueryJobs(self, job_ids: Sequence[Any] | None, fields: Sequence[str]) -> list[Any]:
        """Rows, None for unknown ids."""
        self._Record("QueryJobs", (job_ids, fields))
        if job_ids is None:
            return _Rows(self._master.jobs, fields)
        jobs = [self._FindJob(job_id) for job_id in job_ids]
        return [None if job is None else [job.get(field) for field in fields] for job in jobs]

    def WaitForJobChangeOnce(
        self,
        job_id: Any,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float = 0,
    ) -> Any:
        """The next of the prepared changes, else the job as it is."""
        self._Record("WaitForJobChange", [job_id, fields, prev_job_info, prev_log_serial, timeout])
        if self._master.changes:
            return self._master.changes.pop(0)
        job = self._FindJob(job_id)
        return None if job is None else [[job.get(field) for field in fields], []]

    def _Select(
        self, kind: str, items: Sequence[Dict], names: Sequence[str], use_locking: bool
    ) -> list[Dict]:
        if use_locking:
            raise errors.OpPrereqError("Sync queries are not allowed", errors.ECODE_INVAL)
        if not names:
            return list(items)
        selected = []
        for name in names:
            found = [item for item in items if name in (item["name"], item.get("uuid"))]
            if not found:
                raise errors.OpPrereqError(f"{kind} '{name}' not known", errors.ECODE_NOENT)
            selected += found
        return selected

    def QueryInstances(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        """Rows."""
        self._Record("QueryInstances", (names, fields, use_locking))
        return _Rows(self._Select("Instance", self._master.instances, names, use_locking), fields)

    def QueryNodes(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        """Rows."""
        self._Record("QueryNodes", (names, fields, use_locking))
        return _Rows(self._Select("Node", self._master.nodes, names, use_locking), fields)

    def QueryClusterInfo(self) -> Dict:
        """Parameters of the cluster."""
        self._Record("QueryClusterInfo", [])
        return self._master.info

    def QueryTags(self, kind: str, name: str) -> list[str]:
        """Tags of a node or an instance."""
        self._Record("QueryTags", (kind, name))
        is_node = kind == constants.TAG_NODE
        items = self._master.nodes if is_node else self._master.instances
        (item,) = self._Select("Node" if is_node else "Instance", items, [name], False)
        return list(item["tags"])

    def Query(self, what: str, fields: Sequence[str], qfilter: Any = None) -> Dict:
        """Nothing of the right form."""
        self._Record("Query", (what, fields, qfilter))
        return {"fields": [], "data": []}

    def QueryFields(self, what: str, fields: Sequence[str] | None = None) -> Dict:
        """Nothing of the right form."""
        self._Record("QueryFields", (what, fields))
        return {"fields": []}
