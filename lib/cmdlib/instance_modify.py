"""Changing the parameters of an instance; all but the disks takes effect at its next start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils.rollback import Rollback
from . import announce, base, create_plan, disk_ops, instance_checks, instance_env, nics


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def ApplyChanges(
    stored: Mapping[str, Any],
    changes: Mapping[str, Any],
    types: Mapping[str, str],
    what: str,
) -> dict[str, Any]:
    """Stored parameters of an instance with changes applied; pure.

    @param changes: C{default} (or None) drops the instance's own value
    @raise errors.OpPrereqError: an unknown parameter or a wrong value
    """
    drop = {
        key
        for key, value in changes.items()
        if value is None or (isinstance(value, str) and value.lower() == constants.VALUE_DEFAULT)
    }
    unknown = sorted(drop - set(types))
    if unknown:
        raise _Invalid(f"{what}: unknown parameter {unknown[0]!r}")
    kept = {key: value for key, value in changes.items() if key not in drop}
    merged = {**stored, **base.ForceTypes(what, kept, types)}
    return {key: value for key, value in merged.items() if key not in drop}


@dataclass
class _Plan:
    """What the checks decided, for the execution."""

    hvparams: dict[str, Any] | None = None
    beparams: dict[str, Any] | None = None
    #: All NICs as they will be, and the changes as (name, text).
    nics: list[objects.NIC] | None = None
    nic_changes: list[tuple[str, Any]] = field(default_factory=list)
    #: MACs that were generated.
    new_macs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class LUInstanceSetParams(base.LogicalUnit):
    """Change backend, hypervisor, NIC and disk parameters, or the recorded OS."""

    HPATH = "instance-modify"
    HTYPE = constants.HTYPE_INSTANCE

    def CheckArguments(self) -> None:
        op = self.op
        given = (op.nics, op.disks, op.hvparams, op.beparams, op.os_name, op.disk_template)
        if not any(given):
            raise _Invalid("Nothing to change was given")
        if op.disk_template is not None:
            raise _Invalid("Changing the disk template is not implemented yet")
        if op.remote_node is not None:
            raise _Invalid("remote_node goes with a change of the disk template only")
        global_names = sorted(set(op.hvparams) & constants.HVC_GLOBALS)
        if global_names:
            raise _Invalid(
                f"hvparams: {', '.join(global_names)} can only be set for the whole cluster"
            )
        self._CheckOneAddOrRemove("disks", op.disks)
        self._CheckOneAddOrRemove("nics", op.nics)
        self.disk_changes = [self._CheckDiskChange(*change) for change in op.disks]
        for which, settings in op.nics:
            if which != constants.DDM_REMOVE:
                nics.CheckNicSettings(f"nic/{which}", settings)

    @staticmethod
    def _CheckOneAddOrRemove(what: str, changes: list[tuple[Any, dict[str, Any]]]) -> None:
        if sum(which in constants.DDMS_VALUES for which, _ in changes) > 1:
            raise _Invalid(f"{what}: only one can be added or removed at a time")

    @staticmethod
    def _CheckDiskChange(which: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        where = f"disk/{which}"
        if which == constants.DDM_REMOVE:
            return which, {}
        if constants.IDISK_ADOPT in settings:
            raise _Invalid(f"{where}: adopt is for the disks of a new instance only")
        if which == constants.DDM_ADD:
            return which, create_plan.CheckDiskSettings([settings], first=which)[0]
        if constants.IDISK_SIZE in settings:
            raise _Invalid(f"{where}: the size can not be changed here; use grow-disk")
        mode = base.ForceTypes(where, settings, {constants.IDISK_MODE: constants.VTYPE_STRING}).get(
            constants.IDISK_MODE
        )
        if mode is None:
            raise _Invalid(f"{where}: the mode is missing")
        if mode not in constants.DISK_ACCESS_SET:
            raise _Invalid(
                f"{where}: mode must be one of {', '.join(sorted(constants.DISK_ACCESS_SET))}, not"
                f" {mode!r}"
            )
        return which, {constants.IDISK_MODE: mode}

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        self.needed_locks[locking.LEVEL_NODE] = []
        self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE
        # Only who makes or removes disks there needs a node for himself: many instances of one
        # node can be modified at once.
        self.share_locks[locking.LEVEL_NODE] = not any(
            which in constants.DDMS_VALUES for which, _ in self.op.disks
        )

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            self._LockInstancesNodes()

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = base.GetInstance(self, self.op.instance_name)
        cluster = self.cfg.GetClusterInfo()
        override: dict[str, Any] = {}
        if self.plan.beparams is not None:
            # INSTANCE_BE_* tell what is stored now.
            filled = cluster.SimpleFillBE(self.plan.beparams)
            override["memory"] = filled[constants.BE_MEMORY]
            override["vcpus"] = filled[constants.BE_VCPUS]
        if self.plan.nics is not None:
            override["nics"] = instance_env.FillNics(cluster, self.plan.nics)
        env = instance_env.BuildInstanceHookEnvByObject(self, instance, **override)
        nodes = sorted({self.cfg.GetMasterNode(), *instance.all_nodes})
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        op = self.op
        instance = base.GetInstance(self, op.instance_name)
        cluster = self.cfg.GetClusterInfo()
        self.plan = plan = _Plan()
        if op.hvparams:
            plan.hvparams = ApplyChanges(
                instance.hvparams or {}, op.hvparams, constants.HVS_PARAMETER_TYPES, "hvparams"
            )
            filled = objects.FillDict(
                cluster.GetHVDefaults(instance.hypervisor, op.os_name or instance.os),
                plan.hvparams,
            )
            instance_checks.CheckHvParamsSyntax(instance.hypervisor, filled)
            instance_checks.CheckHvParamsOnNodes(
                self, sorted(instance.all_nodes), instance.hypervisor, filled
            )
        if op.beparams:
            plan.beparams = ApplyChanges(
                instance.beparams or {}, op.beparams, constants.BES_PARAMETER_TYPES, "beparams"
            )
            instance_checks.CheckBeParams("beparams", cluster.SimpleFillBE(plan.beparams))
            if constants.BE_MEMORY in op.beparams and not op.force:
                self._CheckMemory(instance, cluster, plan)
        if op.nics:
            self._PlanNics(instance, cluster, plan)
        self._CheckDisks(instance)
        if op.os_name and not op.force:
            instance_checks.CheckNodeHasOs(
                self, instance.primary_node, op.os_name, op.force_variant
            )

    def _CheckMemory(
        self, instance: objects.Instance, cluster: objects.Cluster, plan: _Plan
    ) -> None:
        """Would the instance still start on its primary, and on its secondaries?"""
        filled = objects.FillDict(cluster.beparams[constants.PP_DEFAULT], plan.beparams or {})
        memory = filled[constants.BE_MEMORY]
        primary = instance.primary_node
        nodes = [primary]
        if filled[constants.BE_AUTO_BALANCE]:
            nodes += sorted(instance.secondary_nodes)
        info = self.rpc.call_instance_info(primary, instance.name, instance.hypervisor)
        answers = self.rpc.call_node_info(nodes, self.cfg.GetVGName(), instance.hypervisor)
        for node in nodes:
            result = answers[node]
            free = None if result.fail_msg else result.payload.get("memory_free")
            if not isinstance(free, int) or (node == primary and info.fail_msg):
                plan.warnings.append(f"Node {node} can not tell its free memory")
                continue
            used = int((info.payload or {}).get("memory", 0)) if node == primary else 0
            missing = memory - used - free
            if missing <= 0:
                continue
            if node == primary:
                raise errors.OpPrereqError(
                    f"This change would keep the instance from starting: {missing} MiB of memory"
                    f" are missing on its primary node {node} (--force changes it all the same)",
                    errors.ECODE_NORES,
                )
            plan.warnings.append(
                f"The instance could not be failed over to {node}: {missing} MiB of memory are"
                " missing there"
            )

    def _PlanNics(self, instance: objects.Instance, cluster: objects.Cluster, plan: _Plan) -> None:
        result = list(instance.nics)
        defaults = cluster.nicparams[constants.PP_DEFAULT]
        for which, settings in self.op.nics:
            if which == constants.DDM_REMOVE:
                if not result:
                    raise _Invalid("nics: the instance has none to remove")
                result.pop()
                plan.nic_changes.append((f"nic.{len(result)}", "remove"))
                continue
            if which == constants.DDM_ADD:
                if len(result) >= constants.MAX_NICS:
                    raise errors.OpPrereqError(
                        f"nics: at most {constants.MAX_NICS} are possible", errors.ECODE_STATE
                    )
                index = len(result)
                nic = objects.NIC(mac=constants.VALUE_AUTO, ip=None, nicparams={})
                result.append(nic)
            elif which < len(result):
                index = which
                nic = result[index]
            else:
                raise _Invalid(f"nics: the instance has no NIC {which}, only {len(result)}")
            changes = self._ChangeNic(instance, nic, index, which, settings, defaults, plan)
            plan.nic_changes.extend(changes)
        plan.nics = result

    def _ChangeNic(
        self,
        instance: objects.Instance,
        nic: objects.NIC,
        index: int,
        which: Any,
        settings: dict[str, Any],
        defaults: Mapping[str, Any],
        plan: _Plan,
    ) -> list[tuple[str, Any]]:
        """Change a NIC in place; returns the changes as (name, value)."""
        where = f"nic/{index}"
        given = nics.CheckNicSettings(where, settings)
        nic.nicparams = ApplyChanges(
            nic.nicparams or {},
            {key: given[key] for key in (constants.NIC_MODE, constants.NIC_LINK) if key in given},
            constants.NICS_PARAMETER_TYPES,
            where,
        )
        if constants.INIC_IP in given:
            nic.ip = nics.ParseIp(where, given[constants.INIC_IP], None)
        filled = objects.FillDict(defaults, nic.nicparams)
        nics.CheckBridgeMode(where, settings, filled)
        nics.CheckNic(where, nic.ip, filled)
        try:
            instance_checks.CheckNicBridges(self, [filled], instance.primary_node)
        except errors.OpPrereqError as err:
            if not self.op.force:
                raise
            plan.warnings.append(str(err.args[0]))
        if constants.INIC_MAC in given or which == constants.DDM_ADD:
            mac = nics.NormalizeMac(where, given.get(constants.INIC_MAC, constants.VALUE_AUTO))
            if mac == constants.VALUE_AUTO and which != constants.DDM_ADD:
                raise _Invalid(f"{where}: mac=auto is for new NICs; use mac=generate")
            if mac != nic.mac or which == constants.DDM_ADD:
                nic.mac = nics.ResolveMac(self, where, mac)
                if nic.mac != mac:
                    plan.new_macs.append(nic.mac)
        if which == constants.DDM_ADD:
            text = (
                f"add:mac={nic.mac},ip={nic.ip},mode={filled[constants.NIC_MODE]},"
                f"link={filled[constants.NIC_LINK]}"
            )
            return [(f"nic.{index}", text)]
        values = {**given, constants.INIC_MAC: nic.mac, constants.INIC_IP: nic.ip}
        return [(f"nic.{key}/{index}", values[key]) for key in given]

    def _CheckDisks(self, instance: objects.Instance) -> None:
        if not self.disk_changes:
            return
        if instance.disk_template == constants.DT_DISKLESS:
            raise _Invalid(f"disks: instance {instance.name} is diskless")
        # Each change finds what those before it leave.
        count = len(instance.disks)
        for which, settings in self.disk_changes:
            if which == constants.DDM_REMOVE:
                if count == 1:
                    raise _Invalid("disks: the last disk of an instance can not be removed")
                instance_checks.CheckInstanceDown(self, instance, "can not remove a disk")
                count -= 1
            elif which == constants.DDM_ADD:
                if count >= constants.MAX_DISKS:
                    raise errors.OpPrereqError(
                        f"disks: at most {constants.MAX_DISKS} are possible", errors.ECODE_STATE
                    )
                disk_ops.CheckDisksAbsent(
                    self, instance.primary_node, [self._MakeDisk(instance, settings)]
                )
                count += 1
            elif which >= count:
                raise _Invalid(f"disks: the instance has no disk {which}, only {count}")

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        new = instance.Copy()
        for warning in self.plan.warnings:
            self.LogWarning(warning)
        lines: list[announce.Change] = []
        for which, settings in self.disk_changes:
            lines += self._DescribeDiskChange(new, which, settings)
        self._ChangeParams(new)
        for name, value in self.plan.nic_changes:
            for mac in self.plan.new_macs:
                # The real run gets others.
                value = value.replace(mac, "(a new one)") if isinstance(value, str) else value
            lines.append(announce.OfInstance(instance.name, f"{name}: {value}"))
        # Told above, with less words than all their values.
        new.disks, new.nics = instance.disks, instance.nics
        lines += announce.Between(instance, new)
        return lines or [announce.OfInstance(instance.name, "has these values already")]

    def _DescribeDiskChange(
        self, instance: objects.Instance, which: Any, settings: dict[str, Any]
    ) -> list[announce.Change]:
        """What L{_ChangeDisk} would do; makes it in the object."""
        name = instance.name
        if which == constants.DDM_REMOVE:
            disk = instance.disks[-1]
            lines = disk_ops.DescribeForDisks(instance, "remove", [disk])
            instance.disks.pop()
            return [announce.OfInstance(name, f"{disk.iv_name}: removed"), *lines]
        if which == constants.DDM_ADD:
            disk = self._MakeDisk(instance, settings)
            instance.disks.append(disk)
            what = f"{disk.iv_name}: added with {announce.FormatValues(settings)}"
            lines = disk_ops.DescribeForDisks(instance, "create", [disk])
            return [announce.OfInstance(name, what), *lines]
        disk = instance.disks[which]
        before, disk.mode = disk.mode, settings["mode"]
        return [announce.OfInstance(name, f"{disk.iv_name}: mode {before} -> {disk.mode}")]

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[tuple[str, Any]]:
        op, plan = self.op, self.plan
        for warning in plan.warnings:
            feedback_fn(f"WARNING: {warning}")
        instance = base.GetInstance(self, op.instance_name)
        self._removed_disks: list[objects.Disk] = []
        with Rollback(feedback_fn) as self._undo:
            result = self._Change(instance)
            self.cfg.Update(instance, feedback_fn)
            self._undo.Commit()
        # Only now: as long as the configuration has a disk, its data stays.
        for disk in self._removed_disks:
            disk_ops.RemoveDisk(self, disk, instance.primary_node)
        return result

    def _Change(self, instance: objects.Instance) -> list[tuple[str, Any]]:
        """Make all changes in the object; returns them as (name, value)."""
        op, plan = self.op, self.plan
        result: list[tuple[str, Any]] = []
        for which, settings in self.disk_changes:
            result += self._ChangeDisk(instance, which, settings)
        self._ChangeParams(instance)
        if plan.nics is not None:
            result += plan.nic_changes
        if plan.hvparams is not None:
            result += [(f"hv/{key}", value) for key, value in op.hvparams.items()]
        if plan.beparams is not None:
            result += [(f"be/{key}", value) for key, value in op.beparams.items()]
        return result

    def _ChangeParams(self, instance: objects.Instance) -> None:
        """Make the changes that need nothing to be done on a node."""
        plan = self.plan
        if plan.nics is not None:
            instance.nics = plan.nics
        if plan.hvparams is not None:
            instance.hvparams = plan.hvparams
        if plan.beparams is not None:
            instance.beparams = plan.beparams
        if self.op.os_name:
            instance.os = self.op.os_name

    def _ChangeDisk(
        self, instance: objects.Instance, which: Any, settings: dict[str, Any]
    ) -> list[tuple[str, Any]]:
        if which == constants.DDM_REMOVE:
            self._removed_disks.append(instance.disks.pop())
            return [(f"disk/{len(instance.disks)}", "remove")]
        if which == constants.DDM_ADD:
            index = len(instance.disks)
            disk = self._MakeDisk(instance, settings)
            instance.disks.append(disk)
            self._undo.Add(
                f"remove {disk.iv_name}", disk_ops.RemoveDisk, self, disk, instance.primary_node
            )
            disk_ops.CreateDisks(self, instance, skip=range(index))
            return [(f"disk/{index}", f"add:size={settings['size']},mode={settings['mode']}")]
        instance.disks[which].mode = settings["mode"]
        return [(f"disk.mode/{which}", settings["mode"])]

    def _MakeDisk(self, instance: objects.Instance, settings: dict[str, Any]) -> objects.Disk:
        """The next disk of an instance, which has disks in files already."""
        driver, path = instance.disks[0].logical_id
        (disk,) = disk_ops.GenerateDiskTemplate(
            self,
            instance.disk_template,
            instance.name,
            instance.primary_node,
            sorted(instance.secondary_nodes),
            [settings],
            os.path.dirname(path),
            driver,
            base_index=len(instance.disks),
        )
        return disk


LOGICAL_UNITS: Final = {opcodes.OpInstanceSetParams: LUInstanceSetParams}
