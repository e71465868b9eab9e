"""What the watcher does on the master: instances and disks are brought back, jobs archived."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .. import constants, errors, luxi, opcodes, pathutils, runtime
from ..client import jobs
from . import decide
from .state import Attempts, State

#: Instances that are brought back at the same time: others want their node, too.
MAX_PARALLEL: Final = 10

_INSTANCE_FIELDS: Final = ("name", "status", "admin_state", "snodes")
_NODE_FIELDS: Final = ("name", "bootid")


def FollowJob(cl: Any, job_id: str) -> list[Any]:
    """Wait for the end of a job, without a word; the results of its opcodes.

    @raise errors.GenericError: what it failed with
    """
    info: Sequence[Any] | None = None
    serial: int | None = None
    while info is None or info[0] not in constants.JOBS_FINALIZED:
        answer = cl.WaitForJobChangeOnce(job_id, ["status"], info, serial)
        if not answer:
            raise errors.JobLost(f"Job {job_id} was lost")
        if answer != constants.JOB_NOTCHANGED:
            info, entries = answer
            serial = max([serial or 0, *(entry[0] for entry in entries or ())])
    rows = cl.QueryJobs([job_id], ["status", "opstatus", "opresult"])
    if not rows or rows[0] is None:
        raise errors.JobLost(f"Job {job_id} was lost")
    return jobs.GetJobResults(job_id, *rows[0])


class MasterDuty:
    """One run on the master.

    @param cl: connection to the master daemon
    @param state: what is kept from run to run; changed in place
    """

    def __init__(self, cl: Any, state: State, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        self._cl = cl
        self._state = state
        self._rt = rt
        #: Instances that this run has started.
        self._started: set[str] = set()

    def Run(self, job_age: int) -> None:
        """Everything, in order.

        @param job_age: seconds after which finished jobs are archived
        @raise errors.JobQueueFull: no more jobs can be submitted; likewise JobQueueDrainError
        @raise errors.GenericError: the master daemon does not serve
        """
        archived, left = self._cl.AutoArchiveJobs(job_age)
        logging.debug("Archived %s jobs, left %s", archived, left)
        instances, nodes = self._Query()
        self._WriteStatus(instances)
        self._Forget(instances)
        self._RestartInstances(instances)
        self._ActivateAfterReboot(instances, nodes)
        self._VerifyDisks()

    # What there is

    def _Query(self) -> tuple[list[decide.InstanceFacts], list[decide.NodeFacts]]:
        """Ask with locks: nobody is just about to change what they say."""
        job_id = self._cl.SubmitJob(
            [
                opcodes.OpInstanceQuery(
                    output_fields=list(_INSTANCE_FIELDS), names=[], use_locking=True
                ),
                opcodes.OpNodeQuery(output_fields=list(_NODE_FIELDS), names=[], use_locking=True),
            ]
        )
        instance_rows, node_rows = FollowJob(self._cl, job_id)
        self._cl.ArchiveJob(job_id)
        instances = [
            decide.InstanceFacts(name, status, bool(should_run), tuple(secondaries or ()))
            for name, status, should_run, secondaries in instance_rows
        ]
        nodes = [decide.NodeFacts(name, boot_id or None) for name, boot_id in node_rows]
        return instances, nodes

    def _WriteStatus(self, instances: Sequence[decide.InstanceFacts]) -> None:
        """Tell everybody on this node how the instances are."""
        lines = [f"{instance.name} {instance.status}\n" for instance in instances]
        self._rt.files.write(
            pathutils.INSTANCE_UPFILE, "".join(lines).encode(), mode=0o644, durable=False
        )

    # Instances

    def _Forget(self, instances: Sequence[decide.InstanceFacts]) -> None:
        attempts = self._state.attempts
        existing = {instance.name for instance in instances}
        for name in decide.FindOutdated(attempts, existing, self._rt.clock.time()):
            logging.info("Forgetting the attempts to start %s", name)
            del attempts[name]

    def _RestartInstances(self, instances: Sequence[decide.InstanceFacts]) -> None:
        attempts = self._state.attempts
        to_start = []
        for instance in instances:
            name = instance.name
            action = decide.DecideInstance(instance.status, attempts.get(name))
            if action is decide.Action.START:
                to_start.append(name)
            elif action is decide.Action.GIVE_UP:
                logging.error(
                    "Giving up on %s: %s attempts to start it failed", name, decide.MAX_ATTEMPTS
                )
                self._Record(name)
            elif action is decide.Action.FORGET:
                del attempts[name]
            elif action is decide.Action.RECOVERED:
                logging.info("%s is %s; it had been restarted", name, instance.status)
                del attempts[name]
        for names in _Batches(to_start):
            self._Start(names)

    def _Record(self, name: str) -> None:
        known = self._state.attempts.get(name)
        count = 1 if known is None else known.count + 1
        self._state.attempts[name] = Attempts(count, self._rt.clock.time())

    def _Start(self, names: Sequence[str]) -> None:
        # They may have been waiting for those before them, and their owner may have shut them down.
        statuses = self._QueryStatuses(names)
        names = [name for name in names if statuses.get(name) == decide.ERROR_DOWN]
        ops = [opcodes.OpInstanceStartup(instance_name=name, force=False) for name in names]
        for name in names:
            known = self._state.attempts.get(name)
            attempt = 1 if known is None else known.count + 1
            logging.info("Restarting %s (Attempt #%s)", name, attempt)
        for name, error in self._RunAll(names, [[op] for op in ops]):
            self._Record(name)
            if error is None:
                self._started.add(name)
            else:
                logging.error("Can't restart %s: %s", name, error)

    def _QueryStatuses(self, names: Sequence[str]) -> dict[str, str]:
        fields = ["name", "status"]
        try:
            rows = self._cl.QueryInstances(names, fields, False)
        except errors.OpPrereqError:
            # One of them is gone.
            rows = self._cl.QueryInstances([], fields, False)
        return dict(rows)

    def _RunAll(
        self, names: Sequence[str], submitted: Sequence[Sequence[opcodes.OpCode]]
    ) -> Iterator[tuple[str, str | None]]:
        """Run jobs at the same time; for each that could be submitted what it was about, and its
        error.

        @raise errors.JobQueueDrainError: the queue takes none
        """
        if not names:
            return
        answers = self._cl.SubmitManyJobs(submitted)
        for name, (accepted, value) in zip(names, answers, strict=True):
            if not accepted:
                # It was not even tried, and counts as no attempt.
                logging.error("No job for %s can be submitted: %s", name, value)
                continue
            try:
                FollowJob(self._cl, str(value))
            except luxi.ProtocolError:
                # Not how the job ended, but how our conversation with the master daemon did.
                raise
            except errors.GenericError as err:
                yield name, errors.FormatError(err)
            else:
                yield name, None

    # Disks

    def _ActivateAfterReboot(
        self, instances: Sequence[decide.InstanceFacts], nodes: Sequence[decide.NodeFacts]
    ) -> None:
        rebooted = decide.FindRebooted(nodes, self._state)
        if rebooted:
            logging.debug("Nodes that were booted: %s", ", ".join(rebooted))
        concerned = decide.FindDisklessMirrors(instances, rebooted, self._started)
        for names in _Batches(concerned):
            for name in names:
                logging.info("Activating the disks of %s, as a node of it was booted", name)
            self._Activate(names)
        self._state.boot_ids = decide.UpdateBootIds(nodes, self._state.boot_ids)

    def _Activate(self, names: Sequence[str]) -> None:
        ops = [opcodes.OpInstanceActivateDisks(instance_name=name) for name in names]
        for name, error in self._RunAll(names, [[op] for op in ops]):
            if error is not None:
                logging.error("Can't activate the disks of %s: %s", name, error)

    def _VerifyDisks(self) -> None:
        job_id = self._cl.SubmitJob([opcodes.OpClusterVerifyDisks()])
        ((bad_nodes, inactive, missing),) = FollowJob(self._cl, job_id)
        self._cl.ArchiveJob(job_id)
        for node, error in bad_nodes.items():
            logging.error("Node %s can't tell the state of its disks: %s", node, error)
        for name in missing:
            logging.error("%s lacks volumes: %s", name, missing[name])
        names = decide.FindInactive(inactive, missing)
        for batch in _Batches(names):
            logging.info("Activating the disks of %s", ", ".join(batch))
            self._Activate(batch)


def _Batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), MAX_PARALLEL):
        yield names[start : start + MAX_PARALLEL]
