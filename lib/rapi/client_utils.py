"""Waiting for jobs over the remote API the way commands do on the master."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import constants
from ..client import jobs
from . import client as rapi_client


class RapiJobPollCb:
    """A client of the API as what follows jobs: the requests of L{jobs.JobClient} for one job."""

    def __init__(self, cl: rapi_client.GanetiRapiClient) -> None:
        self.cl = cl

    def WaitForJobChangeOnce(
        self,
        job_id: Any,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float = 0,
    ) -> Any:
        """Wait for a change, as long as the server likes.

        @return: [values of the fields, new log entries]; C{constants.JOB_NOTCHANGED}; None if there
            is no such job
        """
        try:
            result = self.cl.WaitForJobChange(job_id, fields, prev_job_info, prev_log_serial)
        except rapi_client.GanetiApiError as err:
            if err.code == rapi_client.HTTP_NOT_FOUND:
                return None
            raise
        if result is None:
            return constants.JOB_NOTCHANGED
        return [result["job_info"], result["log_entries"]]

    def QueryJobs(self, job_ids: Sequence[Any] | None, fields: Sequence[str]) -> list[Any]:
        """The row of exactly one job, None in its place if it is unknown.

        @raise NotImplementedError: for another number of jobs
        """
        if job_ids is None or len(job_ids) != 1:
            raise NotImplementedError("The API tells of one job at a time")
        try:
            job = self.cl.GetJobStatus(job_ids[0])
        except rapi_client.GanetiApiError as err:
            if err.code == rapi_client.HTTP_NOT_FOUND:
                return [None]
            raise
        return [[job[field] for field in fields]]

    def SubmitJob(self, ops: Sequence[Any]) -> str:
        """Not by this way. Raises NotImplementedError."""
        raise NotImplementedError("The API has a method for each kind of job")

    def SubmitManyJobs(self, all_ops: Sequence[Sequence[Any]]) -> list[Any]:
        """Not by this way. Raises NotImplementedError."""
        raise NotImplementedError("The API has a method for each kind of job")


def PollJob(
    cl: rapi_client.GanetiRapiClient,
    job_id: Any,
    reporter: jobs.FeedbackFn | None = None,
) -> list[Any]:
    """Wait for the end of a job.

    @param reporter: gets the log entries (serial, time, type, message); they are printed if there
        is none
    @return: the results of its opcodes
    @raise errors.JobLost: there is no such job
    @raise errors.GenericError: what the job raised
    """
    return jobs.PollJob(str(job_id), RapiJobPollCb(cl), reporter)
