"""Post hooks that a unit runs itself, because of when or where they have to run."""

from __future__ import annotations

from collections.abc import Iterable

from .. import constants, errors, hooksmaster
from . import base


def RunPostHooks(lu: base.LogicalUnit, nodes: Iterable[str]) -> None:
    """Run the unit's post hooks now, on these nodes; what fails is warned of."""
    try:
        master = hooksmaster.HooksMaster(lu.rpc.call_hooks_runner, lu)
        master.RunPhase(constants.HOOKS_PHASE_POST, list(nodes))
    except errors.GenericError as err:
        lu.LogWarning("Post hooks failed: %s", err)
