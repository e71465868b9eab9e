"""The pool of master candidates: who joins it, and when."""

from __future__ import annotations

from collections.abc import Sequence

from . import base


def AdjustCandidatePool(lu: base.LogicalUnit, exceptions: Sequence[str] = ()) -> None:
    """Promote nodes until the pool has its size; nobody is demoted.

    Needs the locks of all nodes.

    @param exceptions: nodes to leave out
    """
    promoted = lu.cfg.MaintainCandidatePool(list(exceptions))
    if promoted:
        names = ", ".join(node.name for node in promoted)
        lu.LogInfo("Promoted to master candidates: %s", names)
        for node in promoted:
            lu.context.ReaddNode(node)
    now, should, _ = lu.cfg.GetMasterCandidateStats(list(exceptions))
    if now > should:
        lu.LogInfo("There are %d master candidates, more than the %d wanted", now, should)


def DecideSelfPromotion(lu: base.LogicalUnit, exceptions: Sequence[str] = ()) -> bool:
    """Shall a node that joins become a master candidate?

    @param exceptions: nodes not to count, such as the node itself
    """
    pool_size = lu.cfg.GetClusterInfo().candidate_pool_size
    now, should, _ = lu.cfg.GetMasterCandidateStats(list(exceptions))
    # The one that joins can be a candidate too.
    return now < min(should + 1, pool_size)
