"""After a migration that broke off: find out where the instance runs, and make the rest fit.

Also what ends a migration that is still under way but that nobody watches any more, because the
master daemon was killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import constants, errors, objects
from ..utils import text
from . import announce, base, instance_target, migration_disks

#: So often a migration is told to end, and seconds in between.
_ABORT_TRIES: Final = 10
_ABORT_DELAY: Final = 1.0


def GetCandidates(
    lu: base.LogicalUnit, instance: objects.Instance, target_node: str | None
) -> list[str]:
    """The nodes beside its primary on which an instance may be.

    @param target_node: what the user named, expanded
    @raise errors.OpPrereqError: it can not be migrated at all, or not to there
    """
    if target_node == instance.primary_node:
        # It arrived where the user wanted it, and the configuration says so already.
        target_node = None
    target = instance_target.CheckChoice(instance, target_node, None)
    if target is not None:
        return [target]
    others = set(lu.cfg.GetNodeList()) - {instance.primary_node}
    return [name for name in text.NiceSort(others) if not base.GetNode(lu, name).offline]


def DescribeChanges(
    lu: base.LogicalUnit, instance: objects.Instance, others: Sequence[str]
) -> list[announce.Change]:
    """What L{Cleanup} would do, for a dry run."""
    nodes = [
        name for name in [instance.primary_node, *others] if not base.GetNode(lu, name).offline
    ]
    lines = announce.OnNodes(nodes, "end a migration that is under way")
    results = lu.rpc.call_instance_list(nodes, [instance.hypervisor])
    running = [
        node
        for node, result in results.items()
        if not result.fail_msg and instance.name in result.payload
    ]
    if len(running) == 1 and running[0] != instance.primary_node:
        new = instance.Copy()
        new.primary_node = running[0]
        lines += announce.Between(instance, new)
    where = announce.FormatNames(running) if running else "none of them"
    return [
        *lines,
        *announce.OnNodes(
            nodes,
            f"remove what is left where it does not run, close its disks there (it runs on {where}"
            " now)",
        ),
    ]


class Cleanup:
    """Tidies up after a migration; see the module.

    What runs stays where it runs. An instance that runs nowhere, though its source has sent it
    completely, is let run where it arrived, if it did.
    """

    def __init__(
        self,
        lu: base.LogicalUnit,
        instance: objects.Instance,
        others: Sequence[str],
        feedback_fn: base.FeedbackFn,
    ) -> None:
        self._lu = lu
        self._rpc = lu.rpc
        self._instance = instance
        self._feedback = feedback_fn
        nodes = [instance.primary_node, *others]
        self._offline = [name for name in nodes if base.GetNode(lu, name).offline]
        self._nodes = [name for name in nodes if name not in self._offline]
        # A mirror has the sides it has, whether they are there or not.
        self._disks = migration_disks.MigrationDisks(lu, instance, self._nodes, feedback_fn)

    def _SetIds(self, node: str) -> objects.Instance:
        for disk in self._instance.disks:
            self._lu.cfg.SetDiskID(disk, node)
        return self._instance

    def Run(self) -> None:
        """Tidy up.

        @raise errors.OpExecError: it can not be told where the instance runs, it runs twice, or it
            does not run, or not all could be done
        """
        for node in self._offline:
            self._lu.LogWarning(
                "Node %s is marked offline: taken as switched off, nothing runs there", node
            )
        if not self._nodes:
            raise errors.OpExecError("All nodes of the instance are marked offline")
        left = self._EndMigrations()
        self._feedback("* checking where the instance actually runs")
        running = self._FindRunning()
        if not running and left:
            running = self._LetArrive(left)
        if len(running) > 1:
            raise errors.OpExecError(
                f"Instance {self._instance.name} runs on several nodes: {', '.join(running)}! Stop"
                " all but one there, with the hypervisor's own tools, then do this again; check"
                " its disks"
            )
        if not running:
            self._RemoveLeftovers(self._nodes, [])
            self._disks.CloseOn(self._nodes)
            raise errors.OpExecError(
                f"Instance {self._instance.name} runs on none of {', '.join(self._nodes)}, so there"
                f" is no migration to tidy up after; {self._DescribeStart()}"
            )
        self._TidyUp(running[0])

    def _DescribeStart(self) -> str:
        name, primary = self._instance.name, self._instance.primary_node
        if primary in self._offline:
            return f"its node {primary} is offline: use 'gnt-instance failover'"
        return (
            f"'gnt-instance shutdown {name}' and 'gnt-instance startup {name}' start it on"
            f" {primary}"
        )

    def _EndMigrations(self) -> list[str]:
        """Cancel what is under way.

        @return: nodes that have sent the instance away completely
        @raise errors.OpExecError: it goes on; or a node does not tell
        """
        clock = self._lu.context.runtime.clock
        left = []
        for node in self._nodes:
            for attempt in range(_ABORT_TRIES):
                status = self._AskStatus(node)
                if status != constants.MIGRATION_ACTIVE:
                    break
                if attempt:
                    clock.sleep(_ABORT_DELAY)
                self._feedback(f"* cancelling the migration that is under way on {node}")
                result = self._rpc.call_instance_abort_migration(node, self._SetIds(node))
                if result.fail_msg:
                    self._lu.LogWarning(
                        "Node %s can not cancel the migration: %s", node, result.fail_msg
                    )
            else:
                raise errors.OpExecError(
                    f"A migration of instance {self._instance.name} is under way on node {node} and"
                    " can not be cancelled; try again later"
                )
            if status == constants.MIGRATION_COMPLETED:
                left.append(node)
        return left

    def _AskStatus(self, node: str) -> str:
        result = self._rpc.call_instance_get_migration_status(node, self._SetIds(node))
        result.Raise(
            f"Node {node} does not tell whether a migration is under way (if it is dead, see to it"
            f" that it is switched off, and mark it: 'gnt-node modify --offline=yes {node}')"
        )
        return str(result.payload["status"])

    def _FindRunning(self) -> list[str]:
        results = self._rpc.call_instance_list(self._nodes, [self._instance.hypervisor])
        for node, result in results.items():
            result.Raise(
                f"Node {node} does not tell what runs there (if it is dead, see to it that it is"
                f" switched off, and mark it: 'gnt-node modify --offline=yes {node}')"
            )
        return [node for node in self._nodes if self._instance.name in results[node].payload]

    def _LetArrive(self, left: Sequence[str]) -> list[str]:
        """It runs nowhere, but was sent away: let it run where it went, if that is known.

        @return: where it runs
        """
        primary = self._instance.primary_node
        arrived = [node for node in self._nodes if node not in left]
        if primary in arrived:
            arrived = [primary]
        if len(arrived) != 1:
            if arrived:
                self._lu.LogWarning(
                    "Node %s has sent the instance away, but it is not known where to",
                    ", ".join(left),
                    hint="If you know it, say so: -n NODE",
                )
            return []
        (node,) = arrived
        self._feedback(f"* {', '.join(left)} has sent the instance away; finishing it on {node}")
        result = self._rpc.call_finalize_migration(node, self._SetIds(node), "", True)
        if result.fail_msg:
            self._lu.LogWarning("It did not arrive on node %s: %s", node, result.fail_msg)
        return self._FindRunning()

    def _TidyUp(self, runs_on: str) -> None:
        if runs_on != self._instance.primary_node:
            self._feedback(
                f"* instance running on {runs_on}, not on its primary"
                f" {self._instance.primary_node}, updating config"
            )
            instance_target.SetPrimary(self._lu, self._instance, runs_on, self._feedback)
        else:
            self._feedback(f"* instance confirmed to be running on its primary node {runs_on}")
        others = [node for node in self._nodes if node != runs_on]
        problems = self._RemoveLeftovers(others, [runs_on])
        open_still = self._disks.CloseOn(others)
        if self._instance.disk_template in constants.DTS_NET_MIRROR:
            problems += open_still
        elif open_still:
            # Nodes that it was never on, and that may not even have the directory.
            self._lu.LogInfo("Disks that were not closed: %s", "; ".join(open_still))
        if problems:
            raise errors.OpExecError(
                f"Instance {self._instance.name} runs on node {runs_on}, as the configuration says,"
                f" but: {'; '.join(problems)}. The same command tries it again"
            )
        self._feedback("* done")

    def _RemoveLeftovers(self, others: Sequence[str], here: Sequence[str]) -> list[str]:
        """Let the nodes forget the migration.

        @param others: where the instance does not run
        @param here: where it does
        @return: what went wrong
        """
        problems = []

        def _Note(node: str, fail_msg: str | None) -> None:
            if fail_msg:
                problems.append(f"node {node} can not tidy up: {fail_msg}")

        for node in others:
            result = self._rpc.call_finalize_migration(node, self._SetIds(node), "", False)
            _Note(node, result.fail_msg)
            result = self._rpc.call_instance_finalize_migration_src(
                node, self._SetIds(node), True, True
            )
            _Note(node, result.fail_msg)
        for node in here:
            result = self._rpc.call_finalize_migration(node, self._SetIds(node), "", True)
            _Note(node, result.fail_msg)
            result = self._rpc.call_instance_finalize_migration_src(
                node, self._SetIds(node), False, True
            )
            _Note(node, result.fail_msg)
        return problems
