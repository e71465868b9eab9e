"""Roles of nodes: master candidate, regular, drained, offline, and the changes between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .. import constants, errors, locking, objects, opcodes
from ..utils import net
from . import ancillary, announce, base, candidates


def Demote(lu: base.LogicalUnit, name: str) -> None:
    """Let a node that is no master candidate drop its copy of the configuration."""
    result = lu.rpc.call_node_demote_from_mc(name)
    if result.fail_msg:
        lu.LogWarning(
            "Node %s could not drop its configuration: %s",
            name,
            result.fail_msg,
            hint=f"When it can: gnt-node modify -C no {name}",
        )


#: Seconds that a node which is to be offline has to show that it can run hooks.
_ALIVE_TIMEOUT: Final = 2


@dataclass(frozen=True)
class RoleChange:
    """What a request makes of a node's flags.

    @ivar demote: the node must drop its copy of the configuration
    @ivar result: the changes as (name, text)
    """

    master_candidate: bool
    offline: bool
    drained: bool
    demote: bool
    result: tuple[tuple[str, str], ...]

    def Apply(self, node: objects.Node) -> None:
        """Set the flags of a node."""
        node.master_candidate = self.master_candidate
        node.offline = self.offline
        node.drained = self.drained


def ComputeRoleChange(
    node: objects.Node,
    master_candidate: bool | None,
    offline: bool | None,
    drained: bool | None,
    room: bool,
) -> RoleChange:
    """Apply a request to a node's flags, of which at most one is true afterwards; pure.

    A node that stops being offline or drained joins the candidate pool if that has room.

    @param room: would the pool take the node?
    @raise errors.OpPrereqError: the request asks for a candidate that stays offline or drained
    """
    for name, now, new in (("offline", node.offline, offline), ("drained", node.drained, drained)):
        if master_candidate and now and new is not False:
            raise errors.OpPrereqError(
                f"Node {node.name} is {name} and can not be a master candidate; say --{name}=no"
                " as well",
                errors.ECODE_INVAL,
            )
    changes: list[tuple[str, str]] = []
    now_offline, now_drained = bool(node.offline), bool(node.drained)
    candidate = bool(node.master_candidate)
    if offline is not None:
        changes.append(("offline", str(offline)))
        now_offline = offline
    if drained is not None:
        changes.append(("drained", str(drained)))
        now_drained = drained
    if offline and now_drained:
        now_drained = False
        changes.append(("drained", "clear drained status due to offline"))
    elif drained and now_offline:
        now_offline = False
        changes.append(("offline", "clear offline status due to drain"))
    demote = False
    if master_candidate is not None:
        candidate = master_candidate
        demote = not master_candidate
        changes.append(("master_candidate", str(master_candidate)))
    elif (offline or drained) and candidate:
        candidate = False
        demote = bool(drained)
        changes.append(
            ("master_candidate", f"auto-demotion due to {'offline' if offline else 'drain'}")
        )
    elif (
        not candidate
        and (offline is False or drained is False)
        and not (now_offline or now_drained)
    ):
        # Judged by what the node will be: never a candidate that stays offline or drained.
        candidate = room
        demote = not room
        changes.append(("master_candidate", str(room)))
    if node.offline and not now_offline and not candidate:
        # It may have what it had before it went away.
        demote = True
    return RoleChange(candidate, now_offline, now_drained, demote, tuple(changes))


class LUNodeSetParams(base.LogicalUnit):
    """Change the role of a node."""

    HPATH = "node-modify"
    HTYPE = constants.HTYPE_NODE

    def CheckArguments(self) -> None:
        flags = {
            name: getattr(self.op, name) for name in ("master_candidate", "offline", "drained")
        }
        if all(value is None for value in flags.values()):
            raise errors.OpPrereqError(
                f"Nothing to change: give one of {', '.join(flags)}", errors.ECODE_INVAL
            )
        wanted = [name for name, value in flags.items() if value]
        if len(wanted) > 1:
            raise errors.OpPrereqError(
                f"A node can have only one role, not {' and '.join(wanted)}", errors.ECODE_INVAL
            )
        self.might_demote = (
            self.op.master_candidate is False or bool(self.op.offline) or bool(self.op.drained)
        )

    def ExpandNames(self) -> None:
        self.op.node_name = base.ExpandNodeName(self.cfg, self.op.node_name)
        self.lock_all = bool(self.op.auto_promote) and self.might_demote
        names = locking.ALL_SET if self.lock_all else [self.op.node_name]
        self.needed_locks = {locking.LEVEL_NODE: names}

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {
            "OP_TARGET": self.op.node_name,
            "MASTER_CANDIDATE": self.op.master_candidate,
            "OFFLINE": self.op.offline,
            "DRAINED": self.op.drained,
        }
        nodes = {self.cfg.GetMasterNode(), self.op.node_name}
        if self.op.offline and not self._Answers():
            # Most nodes are set offline because they are dead already: a call would only find that
            # out in the time that a node gets which may come back.
            nodes.discard(self.op.node_name)
        return env, sorted(nodes), sorted(nodes)

    def _Answers(self) -> bool:
        node = self.cfg.GetNodeInfo(self.op.node_name)
        return (
            node is None
            or node.name == self.cfg.GetMasterNode()
            or net.TcpPing(
                node.primary_ip,
                net.GetDaemonPort(constants.NODED),
                timeout=_ALIVE_TIMEOUT,
                live_port_needed=True,
            )
        )

    def CheckPrereq(self) -> None:
        name = self.op.node_name
        node = base.GetNode(self, name)
        if name == self.cfg.GetMasterNode():
            raise errors.OpPrereqError(
                f"Node {name} is the master, whose role can not be changed: make another node the"
                " master first",
                errors.ECODE_INVAL,
            )
        if node.master_candidate and self.might_demote and not self.lock_all:
            self._CheckEnoughCandidates()
        room = candidates.DecideSelfPromotion(self, [name])
        self.change = ComputeRoleChange(
            node, self.op.master_candidate, self.op.offline, self.op.drained, room
        )

    def _CheckEnoughCandidates(self) -> None:
        name = self.op.node_name
        now, should, _ = self.cfg.GetMasterCandidateStats([name])
        if now < should:
            raise errors.OpPrereqError(
                f"Without {name} there would be {now} master candidates, {should} are wanted;"
                " --auto-promote makes another node one",
                errors.ECODE_INVAL,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        name, change = self.op.node_name, self.change
        node = base.GetNode(self, name)
        new = node.Copy()
        change.Apply(new)
        lines = announce.Between(node, new) or [
            announce.OfNode(name, "has these flags already, and is stored again")
        ]
        if self.lock_all:
            lines += candidates.DescribeAdjustment(self, [name])
        if change.master_candidate and not node.master_candidate:
            lines += announce.OnNodes([name], "keep a copy of configuration and job queue")
        elif change.demote and not change.offline:
            lines += announce.OnNodes([name], "drop its copies of configuration and job queue")
        if (node.offline and not change.offline) or (
            change.master_candidate and not node.master_candidate
        ):
            lines += ancillary.DescribeRedistribution(self, {name: node.primary_ip}, only=[name])
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[tuple[str, str]]:
        name = self.op.node_name
        node = base.GetNode(self, name)
        change = self.change
        was_candidate, was_offline = bool(node.master_candidate), bool(node.offline)
        if self.lock_all:
            # Before saving, which checks the size of the pool.
            candidates.AdjustCandidatePool(self, [name])
        # Before the calls: what is stored as offline is not asked.
        before = node.Copy()
        change.Apply(node)
        self.cfg.Update(node, feedback_fn)
        self._CheckPool(node, before)
        if change.demote and not change.offline:
            Demote(self, name)
        if change.demote or change.master_candidate != was_candidate:
            self.context.ReaddNode(node)
        back = was_offline and not change.offline
        if back or (change.master_candidate and not was_candidate):
            # RC1; who was away has missed what was sent meanwhile.
            ancillary.RedistributeAncillaryFiles(self, only=[name])
        return list(change.result)

    def _CheckPool(self, node: objects.Node, before: objects.Node) -> None:
        """Another candidate may have left the pool since it was looked at: then this one stays."""
        if self.lock_all or not before.master_candidate or node.master_candidate:
            return
        try:
            self._CheckEnoughCandidates()
        except errors.OpPrereqError:
            for name in ("master_candidate", "offline", "drained"):
                setattr(node, name, getattr(before, name))
            self.cfg.Update(node)
            raise


LOGICAL_UNITS: Final = {opcodes.OpNodeSetParams: LUNodeSetParams}
