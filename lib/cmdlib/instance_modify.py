"""Changing the parameters of an instance; all but the disks takes effect at its next start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils.rollback import Rollback
from . import (
    announce,
    base,
    instance_checks,
    instance_env,
    modify_disks,
    nics,
    template_conversion,
)


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
        template_conversion.CheckArguments(op.disk_template, op.remote_node, bool(op.disks))
        global_names = sorted(set(op.hvparams) & constants.HVC_GLOBALS)
        if global_names:
            raise _Invalid(
                f"hvparams: {', '.join(global_names)} can only be set for the whole cluster"
            )
        self._CheckOneAddOrRemove("disks", op.disks)
        self._CheckOneAddOrRemove("nics", op.nics)
        self.disk_changes = [modify_disks.CheckChange(*change) for change in op.disks]
        for which, settings in op.nics:
            if which != constants.DDM_REMOVE:
                nics.CheckNicSettings(f"nic/{which}", settings)

    @staticmethod
    def _CheckOneAddOrRemove(what: str, changes: list[tuple[Any, dict[str, Any]]]) -> None:
        if sum(which in constants.DDMS_VALUES for which, _ in changes) > 1:
            raise _Invalid(f"{what}: only one can be added or removed at a time")

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        op = self.op
        if op.remote_node is not None:
            op.remote_node = base.ExpandNodeName(self.cfg, op.remote_node)
        self.needed_locks[locking.LEVEL_NODE] = []
        # Only who makes or removes disks there needs a node for himself: many instances of one
        # node can be modified at once.
        self.share_locks[locking.LEVEL_NODE] = op.disk_template is None and not any(
            which in constants.DDMS_VALUES for which, _ in op.disks
        )

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            assert self.needed_locks is not None
            # Anew: the same unit may be asked more than once.
            remote = self.op.remote_node
            self.needed_locks[locking.LEVEL_NODE] = [] if remote is None else [remote]
            self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_APPEND
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
        if self.op.disk_template is not None:
            env["NEW_DISK_TEMPLATE"] = self.op.disk_template
        nodes = sorted({self.cfg.GetMasterNode(), *instance.all_nodes})
        return env, nodes, nodes

    def CheckPrereq(self) -> None:
        op = self.op
        instance = base.GetInstance(self, op.instance_name)
        cluster = self.cfg.GetClusterInfo()
        self.plan = plan = _Plan()
        if op.disk_template is not None:
            template_conversion.CheckConversion(self, instance, op.disk_template, op.remote_node)
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
        modify_disks.CheckChanges(self, instance, self.disk_changes)
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

    def DescribeChanges(self) -> list[announce.Change]:
        instance = base.GetInstance(self, self.op.instance_name)
        new = instance.Copy()
        for warning in self.plan.warnings:
            self.LogWarning(warning)
        lines: list[announce.Change] = []
        for which, settings in self.disk_changes:
            lines += modify_disks.DescribeChange(new, which, settings)
        if self.op.disk_template is not None:
            lines += template_conversion.DescribeChanges(
                instance, self.op.disk_template, self.op.remote_node
            )
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

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[tuple[str, Any]]:
        op, plan = self.op, self.plan
        for warning in plan.warnings:
            feedback_fn(f"WARNING: {warning}")
        instance = base.GetInstance(self, op.instance_name)
        with Rollback(feedback_fn) as undo:
            disks = modify_disks.DiskChanges(self, instance, undo)
            result: list[tuple[str, Any]] = []
            for which, settings in self.disk_changes:
                result += disks.Make(which, settings)
            conversion = None
            if op.disk_template is not None:
                conversion = template_conversion.Convert(
                    self, instance, op.disk_template, op.remote_node, undo, feedback_fn
                )
                result.append(("disk_template", op.disk_template))
            self._ChangeParams(instance)
            self.cfg.Update(instance, feedback_fn)
            undo.Commit()
        disks.Finish()
        if conversion is not None:
            conversion.Finish()
        return result + self._GetParamChanges()

    def _GetParamChanges(self) -> list[tuple[str, Any]]:
        """What L{_ChangeParams} changes, as (name, value)."""
        op, plan = self.op, self.plan
        result: list[tuple[str, Any]] = []
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


LOGICAL_UNITS: Final = {opcodes.OpInstanceSetParams: LUInstanceSetParams}
