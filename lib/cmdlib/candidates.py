"""The pool of master candidates: who joins it, and when."""

from __future__ import annotations

from collections.abc import Sequence

from . import ancillary, announce, base


def AdjustCandidatePool(
    lu: base.LogicalUnit, exceptions: Sequence[str] = (), pool_size: int | None = None
) -> None:
    """Promote nodes until the pool has its size; nobody is demoted.

    The new candidates get the job queue, and the shared files again (RC1). Needs the locks of all
    nodes.

    @param exceptions: nodes to leave out
    @param pool_size: size that the pool is about to have; default: the one it has
    """
    if pool_size is None:
        pool_size = lu.cfg.GetClusterInfo().candidate_pool_size
    promoted = lu.cfg.MaintainCandidatePool(list(exceptions), pool_size)
    if promoted:
        names = [node.name for node in promoted]
        lu.LogInfo("Promoted to master candidates: %s", ", ".join(names))
        for node in promoted:
            lu.context.ReaddNode(node)
        ancillary.RedistributeAncillaryFiles(lu, only=names)
    now, _, possible = lu.cfg.GetMasterCandidateStats(list(exceptions))
    should = min(possible, pool_size)
    if now > should:
        lu.LogInfo("There are %d master candidates, more than the %d wanted", now, should)


def DescribeAdjustment(
    lu: base.LogicalUnit, exceptions: Sequence[str] = (), pool_size: int | None = None
) -> list[announce.Change]:
    """What L{AdjustCandidatePool} would do, for a dry run."""
    if pool_size is None:
        pool_size = lu.cfg.GetClusterInfo().candidate_pool_size
    now, _, possible = lu.cfg.GetMasterCandidateStats(list(exceptions))
    missing = min(possible, pool_size) - now
    if missing < 0:
        return [announce.Change(f"{now} master candidates stay, more than the {pool_size} wanted")]
    if not missing:
        return []
    able = [
        node.name
        for node in lu.cfg.GetAllNodesInfo().values()
        if not (node.master_candidate or node.offline or node.drained)
        and node.name not in exceptions
    ]
    if len(able) > missing:
        what = f"{missing} of {announce.FormatNames(able)} (chosen by chance): master_candidate"
        return [
            announce.Change(f"{what} false -> true, with a copy of configuration and job queue")
        ]
    return [
        *(announce.OfNode(name, "master_candidate false -> true") for name in able),
        *announce.OnNodes(able, "keep a copy of configuration and job queue"),
        *ancillary.DescribeRedistribution(lu, only=able),
    ]


def DecideSelfPromotion(lu: base.LogicalUnit, exceptions: Sequence[str] = ()) -> bool:
    """Shall a node that joins become a master candidate?

    @param exceptions: nodes not to count, such as the node itself
    """
    pool_size = lu.cfg.GetClusterInfo().candidate_pool_size
    now, should, _ = lu.cfg.GetMasterCandidateStats(list(exceptions))
    # The one that joins can be a candidate too.
    return now < min(should + 1, pool_size)
