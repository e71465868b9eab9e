"""Resources of jobs."""

from __future__ import annotations

from typing import Any, Final

from .. import constants, ht, luxi, serializer
from . import baserlib

#: Keys of a job.
J_FIELDS: Final = (
    "id",
    "ops",
    "status",
    "summary",
    "opstatus",
    "opresult",
    "oplog",
    "received_ts",
    "start_ts",
    "end_ts",
)
#: Keys of a job in a list of all of them.
J_FIELDS_BULK: Final = (
    "id",
    "ops",
    "status",
    "summary",
    "opstatus",
    "received_ts",
    "start_ts",
    "end_ts",
)
#: Seconds that a wait for a change takes at the most.
WAIT_TIMEOUT: Final = 10.0

#: What C{/2/jobs/[id]/wait} takes, in the body or as query arguments.
_WAIT_PARAMS: Final[dict[str, ht.Type]] = {
    "fields": ht.TNonEmptyListOf(ht.TElemOf(luxi.JOB_FIELDS)),
    "previous_job_info": ht.TMaybe(ht.TList),
    "previous_log_serial": ht.TMaybe(ht.TInt),
}


class R_2_jobs(baserlib.ResourceBase):  # noqa: N801
    """C{/2/jobs}"""

    def GET(self) -> Any:
        """All jobs that are not archived."""
        if self.UseBulk():
            rows = self.client.QueryJobs(None, J_FIELDS_BULK)
            return baserlib.MapBulkFields(rows, J_FIELDS_BULK)
        ids = sorted((row[0] for row in self.client.QueryJobs(None, ["id"])), key=str)
        return baserlib.BuildUriList(ids, "/2/jobs/%s", ("id", "uri"))


class R_2_jobs_id(baserlib.ResourceBase):  # noqa: N801
    """C{/2/jobs/[id]}"""

    def GET(self) -> Any:
        """All about a job."""
        job_id = self.request.items[0]
        rows = self.client.QueryJobs([job_id], J_FIELDS)
        if not rows or rows[0] is None:
            raise baserlib.NotFound(f"There is no job {job_id}")
        return baserlib.MapFields(J_FIELDS, rows[0])

    def DELETE(self) -> Any:
        """Cancel a job; [was or will it be cancelled, text]."""
        self.RefuseDryRun("a job is cancelled or it is not")
        return self.client.CancelJob(self.request.items[0])


class R_2_jobs_id_wait(baserlib.ResourceBase):  # noqa: N801
    """C{/2/jobs/[id]/wait}"""

    GET_ACCESS = (baserlib.ACCESS_WRITE, baserlib.ACCESS_READ)
    POST_ACCESS = GET_ACCESS

    def GET(self) -> Any:
        """Wait until a job changes."""
        job_id = self.request.items[0]
        params = self._GetParams()

        def _Finish(change: Any) -> Any:
            if change is None:
                raise baserlib.NotFound(f"There is no job {job_id}")
            if change == constants.JOB_NOTCHANGED:
                return None
            job_info, log_entries = change
            return {"job_info": job_info, "log_entries": log_entries}

        args = [
            job_id,
            params["fields"],
            params.get("previous_job_info"),
            params.get("previous_log_serial"),
            WAIT_TIMEOUT,
        ]
        return baserlib.LuxiCall(luxi.REQ_WAIT_FOR_JOB_CHANGE, args, _Finish)

    def POST(self) -> Any:
        """The same, for HTTP libraries that send no body with a GET."""
        return self.GET()

    def _GetParams(self) -> dict[str, Any]:
        params = dict(self.GetBodyObject()) or self._GetQueryParams()
        for name, value in params.items():
            inner = _WAIT_PARAMS.get(name)
            if inner is None:
                raise baserlib.BadRequest(
                    f"Unknown field {ht.Show(name)} (value {ht.Show(value)}) in the body; it takes"
                    f" {', '.join(_WAIT_PARAMS)}"
                )
            problem = inner.Problem(value)
            if problem is not None:
                raise baserlib.BadRequest(f"Field '{name}' must be {inner}: {problem}")
        if "fields" not in params:
            raise baserlib.BadRequest(
                "Missing the required 'fields': send an object with the fields of the job to watch"
                ' as body, e.g. {"fields": ["status"]}'
            )
        return params

    def _GetQueryParams(self) -> dict[str, Any]:
        params: dict[str, Any] = {}
        fields = self.GetArg("fields")
        if fields is not None:
            params["fields"] = fields.split(",")
        info = self.GetArg("previous_job_info")
        if info is not None:
            try:
                params["previous_job_info"] = serializer.Load(info)
            except ValueError as err:
                raise baserlib.BadRequest(f"'previous_job_info' is not JSON: {err}") from None
        serial = self.GetArg("previous_log_serial")
        if serial is not None:
            params["previous_log_serial"] = baserlib.ParseInt("previous_log_serial", serial)
        return params
