"""gnt-node failover and migrate: all primary instances of a node go to other nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors
from ..utils import text
from . import console, jobs

#: Exit code if the user does not want to go on.
REFUSED: Final = constants.EXIT_USAGE


def QuoteNames(names: Sequence[str]) -> str:
    """Names for a question, naturally sorted."""
    return text.CommaJoin(f"'{name}'" for name in text.NiceSort(names))


def GetPrimaryInstances(cl: Any, node: str) -> tuple[str, list[str]]:
    """Full name of a node and its primary instances."""
    name, instances = cl.QueryNodes([node], ["name", "pinst_list"], False)[0]
    return name, text.NiceSort(instances)


def ReportMoves(results: Sequence[jobs.JobResult], opts: Any, what: str = "failed over") -> int:
    """Say how the jobs that move instances ended; the exit code.

    @param what: they were done, e.g. "migrated"
    """
    bad = sum(not result.success for result in results)
    noun = "migration" if what == "migrated" else "failover"
    if opts.dry_run:
        console.ToStdout(f"{len(results) - bad} of {len(results)} instance(s) could be moved.")
    elif bad:
        console.ToStdout(
            f"There were errors during the {noun}:\n{bad} error(s) out of {len(results)}"
            " instance(s)."
        )
    else:
        console.ToStdout(f"All {len(results)} instance(s) {what} successfully.")
    return jobs.GetExitCode(results)


def _CheckChoice(opts: Any) -> None:
    if opts.node is not None and opts.iallocator is not None:
        raise errors.OpPrereqError(
            "Only one of a target node (-n) and an allocator (-I) can be given",
            errors.ECODE_INVAL,
        )


def FailoverNode(opts: Any, args: list[str]) -> int:
    """Fail over all primary instances of a node."""
    _CheckChoice(opts)
    cl = jobs.GetClient()
    node, instances = GetPrimaryInstances(cl, args[0])
    if not instances:
        console.ToStderr(f"No primary instances on node {node}, exiting.")
        return constants.EXIT_SUCCESS
    if not (opts.force or opts.dry_run) and not console.Confirm(
        f"Fail over instance(s) {QuoteNames(instances)}?"
    ):
        return REFUSED
    from .. import opcodes

    free = _FindFree(cl, instances) if opts.node or opts.iallocator else set()
    executor = jobs.JobExecutor(cl, opts=opts)
    for name in instances:
        choice = {"target_node": opts.node, "iallocator": opts.iallocator} if name in free else {}
        executor.QueueJob(
            name,
            opcodes.OpInstanceFailover(
                instance_name=name,
                ignore_consistency=opts.ignore_consistency,
                shutdown_timeout=opts.shutdown_timeout,
                **choice,
            ),
        )
    return ReportMoves(executor.GetResults(), opts)


def _FindFree(cl: Any, instances: Sequence[str]) -> set[str]:
    """Those instances that can go to any node; the others have a secondary."""
    rows = cl.QueryInstances(instances, ["name", "disk_template"], False)
    return {name for name, template in rows if template in constants.DTS_EXT_MIRROR}


def MigrateNode(opts: Any, args: list[str]) -> int:
    """Migrate all primary instances of a node."""
    _CheckChoice(opts)
    cl = jobs.GetClient()
    node, instances = GetPrimaryInstances(cl, args[0])
    if not instances:
        console.ToStdout(f"No primary instances on node {node}, exiting.")
        return constants.EXIT_SUCCESS
    if not (opts.force or opts.dry_run) and not console.Confirm(
        f"Migrate instance(s) {QuoteNames(instances)}?"
    ):
        return REFUSED
    from .. import opcodes

    op = opcodes.OpNodeMigrate(
        node_name=node, live=opts.live, target_node=opts.node, iallocator=opts.iallocator
    )
    result = jobs.SubmitOrSend(op, opts, cl)
    if not result:
        # A dry run.
        return constants.EXIT_SUCCESS
    executor = jobs.JobExecutor(cl, opts=opts)
    # One that was stopped or moved since has no job.
    for number, (ok, value) in enumerate(result["jobs"]):
        executor.AddJob(_NameOf(cl, ok, value) or f"instance {number + 1}", ok, value)
    return ReportMoves(executor.GetResults(), opts, "migrated")


def _NameOf(cl: Any, ok: bool, job_id: Any) -> str | None:
    """The instance that a job is about, as far as that can be told."""
    row = cl.QueryJobs([job_id], ["summary"])[0] if ok else None
    if not row or not row[0]:
        return None
    _, _, rest = row[0][0].partition("(")
    return rest.rstrip(")") or None
