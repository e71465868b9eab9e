"""Migration: an instance changes to another node while it runs.

The steps, what each node is asked for in which order, and what is made of it when one of them does
not answer. L{migration_rules} decides, L{migration_disks} does what concerns disks, and
L{migration_cleanup} is for what was left half way: C{gnt-instance migrate --cleanup}.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, NoReturn

from .. import constants, errors, mcpu, objects, opcodes
from ..utils.rollback import Rollback
from . import (
    announce,
    base,
    disk_ops,
    instance_checks,
    instance_target,
    migration_cleanup,
    migration_disks,
    migration_rules,
)
from .migration_rules import Place

#: So often a source is told to cancel a migration, and seconds in between.
_ABORT_TRIES: Final = 3
_ABORT_DELAY: Final = 1.0


class LUInstanceMigrate(instance_target.MobileInstanceLU):
    """Move an instance to another node while it runs; or tidy up after such an attempt.

    Tidying up needs no free memory on any node: the instance runs somewhere already.
    """

    HPATH = "instance-migrate"

    def CheckArguments(self) -> None:
        super().CheckArguments()
        if self.op.cleanup and self.op.iallocator is not None:
            raise errors.OpPrereqError(
                "To tidy up after a migration no allocator is needed, but if you know it the node"
                " that the instance was to go to (-n NODE)",
                errors.ECODE_INVAL,
            )

    def _ExtraEnv(self) -> dict[str, Any]:
        return {"MIGRATE_LIVE": self.op.live, "MIGRATE_CLEANUP": self.op.cleanup}

    def _HookTargets(self) -> Collection[str]:
        return self.targets

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        if self.op.cleanup:
            self.targets = migration_cleanup.GetCandidates(self, instance, self.op.target_node)
            return
        instance_target.CheckTemplate(instance)
        base.CheckNodeOnline(self, instance.primary_node)
        target = instance_target.ChooseTarget(self, instance)
        CheckMigratable(self, instance, target)
        self.targets = [target]

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        if self.op.cleanup:
            return migration_cleanup.DescribeChanges(self, instance, self.targets)
        return DescribeMigration(instance, self.targets[0], self.op.live)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = self._GetInstance()
        feedback_fn(f"Migrating instance {instance.name}")
        if self.op.cleanup:
            migration_cleanup.Cleanup(self, instance, self.targets, feedback_fn).Run()
        else:
            _Migration(self, instance, self.targets[0], self.op.live, feedback_fn).Run()


def CheckMigratable(
    lu: base.LogicalUnit, instance: objects.Instance, target: str, memory: bool = True
) -> None:
    """Check that an instance can be migrated to a node.

    @param memory: is there to be looked at the free memory of the target?
    @raise errors.OpPrereqError: it can not
    """
    why = f"migrating instance {instance.name}"
    instance_checks.CheckAtHome(lu, instance)
    instance_target.CheckTarget(lu, instance, target, why, memory)
    source = instance.primary_node
    for disk in instance.disks:
        lu.cfg.SetDiskID(disk, source)
    lu.rpc.call_instance_migratable(source, instance).Raise(
        f"Instance {instance.name} can not be migrated from node {source}; if it does not run,"
        f" 'gnt-instance startup {instance.name}' starts it there, 'gnt-instance failover"
        f" {instance.name}' on the other node",
        prereq=True,
        ecode=errors.ECODE_STATE,
    )


def DescribeMigration(instance: objects.Instance, target: str, live: bool) -> list[announce.Change]:
    """What a migration would do, for a dry run; pure."""
    new = instance.Copy()
    new.primary_node = target
    both = [instance.primary_node, target]
    way = "while it runs" if live else "stopped meanwhile"
    lines = announce.OnNodes(both, "let both nodes use its disks")
    return [
        *lines,
        *announce.OnNodes([instance.primary_node], f"send it to {target}, {way}"),
        *announce.OnNodes([target], "take it over"),
        *announce.Between(instance, new),
        *announce.OnNodes([instance.primary_node], "remove what is left of it, close its disks"),
    ]


class _Migration:
    """One attempt; see the module."""

    def __init__(
        self,
        lu: base.LogicalUnit,
        instance: objects.Instance,
        target: str,
        live: bool,
        feedback_fn: base.FeedbackFn,
    ) -> None:
        self._lu = lu
        self._rpc = lu.rpc
        self._clock = lu.context.runtime.clock
        self._instance = instance
        self._source = instance.primary_node
        self._target = target
        self._live = live
        self._feedback = feedback_fn
        self._info: Any = None
        self._disks = migration_disks.MigrationDisks(
            lu, instance, [self._source, target], feedback_fn
        )

    @property
    def _advice(self) -> str:
        """The command that goes on from wherever this ends."""
        mirrored = self._instance.disk_template in constants.DTS_NET_MIRROR
        where = "" if mirrored else f" -n {self._target}"
        return f"'gnt-instance migrate --cleanup{where} {self._instance.name}'"

    def _SetIds(self, node: str) -> objects.Instance:
        """The instance as a node has to see its disks."""
        for disk in self._instance.disks:
            self._lu.cfg.SetDiskID(disk, node)
        return self._instance

    def Run(self) -> None:
        """Migrate.

        @raise errors.OpExecError: the instance is at the source or the target, and works, as the
            text says; or else the text says what was found and what is to be done
        @raise mcpu.CancelJob: it goes on at the source
        """
        self._CheckDisks()
        result = self._rpc.call_migration_info(self._source, self._SetIds(self._source))
        result.Raise(
            f"Instance {self._instance.name} can not be migrated: node {self._source} can not"
            " prepare it"
        )
        self._info = result.payload
        with Rollback() as undo:
            undo.Add("close the disks on the target", self._CloseOnTarget)
            self._disks.OpenOnBoth(self._target)
            endpoint = self._Accept()
            problem = self._Send(endpoint)
            if problem is not None:
                place = self._Settle()
                if place == Place.SOURCE:
                    raise self._Explain(problem)
                undo.Commit()
                if place != Place.TARGET:
                    self._GiveUp(place, problem)
                self._feedback("* too late: all was sent already")
            undo.Commit()
        self._Arrive()

    def _CheckDisks(self) -> None:
        if self._instance.disk_template not in constants.DTS_NET_MIRROR:
            return
        self._feedback("* checking disk consistency between source and target")
        for disk in self._instance.disks:
            if not disk_ops.CheckDiskConsistency(self._lu, disk, self._target, False):
                raise errors.OpExecError(
                    f"Disk {disk.iv_name} is degraded or not active on node {self._target}:"
                    " nothing was migrated"
                )

    # The way there

    def _Accept(self) -> str:
        """Let the target wait for the guest; what the source has to know about it."""
        address = base.GetNode(self._lu, self._target).secondary_ip
        self._feedback(f"* preparing {self._target} to accept the instance")
        result = self._rpc.call_accept_instance(
            self._target, self._SetIds(self._target), self._info, address
        )
        if result.fail_msg:
            # It may wait all the same.
            self._EndAtTarget()
            raise errors.OpExecError(
                f"Instance {self._instance.name} was not migrated and goes on running on"
                f" {self._source}, as node {self._target} can not accept it: {result.fail_msg}"
            )
        return str(result.payload or address)

    def _Send(self, endpoint: str) -> Exception | None:
        """Start the migration and wait until it is over.

        @return: None: the guest has left; or why it shall stay, whatever happens to it now
        """
        self._feedback(f"* migrating instance to {self._target}")
        result = self._rpc.call_instance_migrate(
            self._source, self._SetIds(self._source), endpoint, self._live
        )
        if result.fail_msg:
            return errors.OpExecError(f"the migration could not be started: {result.fail_msg}")
        try:
            reason = self._Watch()
        except mcpu.CancelJob as err:
            return err
        finally:
            self._lu.proc.ReportStep(None)
        return None if reason is None else errors.OpExecError(reason)

    def _Watch(self) -> str | None:
        """Wait until the guest has left.

        @return: None: it has; or why it has not
        @raise mcpu.CancelJob: it shall not any more
        """
        started = reported = self._clock.monotonic()
        memory = self._lu.cfg.GetClusterInfo().FillBE(self._instance)[constants.BE_MEMORY]
        watchdog = migration_rules.Watchdog(started, memory)
        for delay in migration_rules.GetDelays():
            self._lu.CheckCancel()
            result = self._rpc.call_instance_get_migration_status(self._source, self._instance)
            now = self._clock.monotonic()
            if result.fail_msg:
                reason = watchdog.Silent(result.fail_msg, now)
            else:
                status = result.payload
                if status["status"] == constants.MIGRATION_COMPLETED:
                    self._feedback(f"* all was sent{_FormatDowntime(status)}")
                    return None
                if status["status"] != constants.MIGRATION_ACTIVE:
                    return status["message"] or f"the migration has {status['status']}"
                reason = watchdog.Heard(status, now)
                progress = migration_rules.DescribeProgress(status, now - started)
                self._lu.proc.ReportStep(f"migrating to {self._target}: {progress}")
                if now - reported >= migration_rules.REPORT_INTERVAL:
                    self._feedback(f"   - progress: {progress}")
                    reported = now
            if reason is not None:
                return reason
            self._clock.sleep(delay)
        raise AssertionError("unreachable")

    # The way back

    def _Settle(self) -> Place:
        """The guest shall stay at the source: see to that, unless it is too late."""
        self._feedback(f"* the migration is given up; the instance is to go on at {self._source}")
        status = self._Abort()
        ended = False
        if status is not None and status != constants.MIGRATION_COMPLETED:
            ended = self._EndAtTarget()
            if ended and status == constants.MIGRATION_ACTIVE:
                # Nobody listens any more: that fails.
                status = self._Abort()
        place = migration_rules.Locate(status, *self._AskBoth())
        if place == Place.SOURCE:
            self._GoOnAtSource(ended)
        return place

    def _Abort(self) -> str | None:
        """Cancel the migration; what the source says of it then, None: nothing."""
        for _ in range(_ABORT_TRIES):
            result = self._rpc.call_instance_abort_migration(self._source, self._instance)
            if result.fail_msg:
                self._lu.LogWarning(
                    "Node %s can not cancel the migration: %s", self._source, result.fail_msg
                )
            answer = self._rpc.call_instance_get_migration_status(self._source, self._instance)
            if not answer.fail_msg and answer.payload["status"] != constants.MIGRATION_ACTIVE:
                return str(answer.payload["status"])
            self._clock.sleep(_ABORT_DELAY)
        return None if answer.fail_msg else constants.MIGRATION_ACTIVE

    def _EndAtTarget(self) -> bool:
        """End what waits for the guest; is it certain now that it does not run there?"""
        result = self._rpc.call_finalize_migration(
            self._target, self._SetIds(self._target), self._info, False
        )
        if result.fail_msg:
            self._lu.LogWarning(
                "Node %s can not end what waits for the instance: %s",
                self._target,
                result.fail_msg,
                hint=f"Later on, {self._advice} tries it again",
            )
        return not result.fail_msg

    def _AskBoth(self) -> tuple[bool | None, bool | None]:
        """Do source and target list the instance as running? None: no answer."""
        nodes = [self._source, self._target]
        results = self._rpc.call_instance_list(nodes, [self._instance.hypervisor])
        source, target = (
            None if results[node].fail_msg else self._instance.name in results[node].payload
            for node in nodes
        )
        return source, target

    def _GoOnAtSource(self, ended: bool) -> None:
        """@param ended: is it certain that it does not run on the target?"""
        if ended:
            result = self._rpc.call_instance_finalize_migration_src(
                self._source, self._SetIds(self._source), False, self._live
            )
            if result.fail_msg:
                self._lu.LogWarning(
                    "Node %s can not let the instance go on: %s",
                    self._source,
                    result.fail_msg,
                    hint=f"{self._advice} tries it again",
                )
        if self._AskBoth()[0] is False:
            self._lu.LogWarning(
                "The instance does not run on node %s any more",
                self._source,
                hint=f"'gnt-instance startup {self._instance.name}' starts it again",
            )

    def _CloseOnTarget(self) -> None:
        problems = self._disks.CloseOn([self._target])
        if problems:
            self._lu.LogWarning(
                "The disks are not as they were: %s",
                "; ".join(problems),
                hint=f"{self._advice} puts them right",
            )

    def _Explain(self, problem: Exception) -> Exception:
        """What to raise if the instance is still at the source."""
        if isinstance(problem, mcpu.CancelJob):
            return problem
        return errors.OpExecError(
            f"Instance {self._instance.name} was not migrated and stays on node {self._source}:"
            f" {problem}"
        )

    def _GiveUp(self, place: Place, problem: Exception) -> NoReturn:
        name, source, target = self._instance.name, self._source, self._target
        why = str(problem) or "the job was cancelled"
        if place == Place.BOTH:
            raise errors.OpExecError(
                f"Instance {name} runs on both nodes, {source} and {target} ({why})! Stop one of"
                f" the two there, with the hypervisor's own tools, then run {self._advice}; check"
                " its disks"
            )
        raise errors.OpExecError(
            f"The migration of instance {name} broke off and it is not known whether it still runs"
            f" on node {source}: {why}. It does not run on {target} as far as that node says, and"
            f" the configuration says {source}. When node {source} answers again, run"
            f" {self._advice}. If that node is dead, see to it that it is switched off, mark it"
            f" ('gnt-node modify --offline=yes {source}'), and then use 'gnt-instance failover"
            f" --ignore-consistency'"
        )

    # After it

    def _Arrive(self) -> None:
        """The source has given the guest away: it is the target's from now on.

        Each step is done whatever became of those before.
        """
        problems = []
        try:
            instance_target.SetPrimary(self._lu, self._instance, self._target, self._feedback)
        except (errors.GenericError, OSError) as err:
            problems.append(f"the configuration could not be changed: {err}")
        problems += self._FinalizeOnTarget()
        result = self._rpc.call_instance_finalize_migration_src(
            self._source, self._SetIds(self._source), True, self._live
        )
        if result.fail_msg:
            problems.append(f"node {self._source} can not remove what it left: {result.fail_msg}")
        problems += self._disks.CloseOn([self._source], wait=True)
        if problems:
            raise errors.OpExecError(
                f"Instance {self._instance.name} has been migrated to node {self._target}, but:"
                f" {'; '.join(problems)}. {self._advice} finishes it"
            )
        self._feedback("* done")

    def _FinalizeOnTarget(self) -> list[str]:
        """Make sure that the guest runs there; what is wrong."""
        name, target = self._instance.name, self._target
        result = self._rpc.call_finalize_migration(target, self._SetIds(target), self._info, True)
        if not result.fail_msg:
            return []
        at_target = self._AskBoth()[1]
        if at_target:
            return [f"node {target}, where it runs, says: {result.fail_msg}"]
        if at_target is None:
            return [
                f"node {target} does not answer any more ({result.fail_msg}); if it is dead,"
                " nothing else helps than 'gnt-instance failover --ignore-consistency'"
            ]
        return [
            f"it does not run there ({result.fail_msg}); 'gnt-instance startup {name}' starts it"
        ]


def _FormatDowntime(status: dict[str, Any]) -> str:
    downtime = status["downtime"]
    return "" if downtime is None else f"; the instance stood still for {downtime:.0f} ms"


LOGICAL_UNITS: Final = {opcodes.OpInstanceMigrate: LUInstanceMigrate}
