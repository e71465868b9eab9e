"""The parameters of the cluster: what a request makes of them, and the unit that changes them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, hvparams, locking, objects, opcodes, pathutils, uidpool
from ..utils import io, text
from . import announce, base, candidates, cluster, instance_checks


def _Invalid(text: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(text, errors.ECODE_INVAL)


def CheckUidRanges(name: str, ranges: Sequence[Sequence[int]] | None) -> None:
    """Check user-id ranges by themselves; pure.

    @raise errors.OpPrereqError: C{wrong_input}, naming parameter and range
    """
    try:
        uidpool.CheckUidPool(ranges or ())
    except errors.OpPrereqError as err:
        raise _Invalid(f"{name}: {err.args[0]}") from err


def ComputeUidPool(
    current: Sequence[Sequence[int]],
    uid_pool: Sequence[Sequence[int]] | None,
    add: Sequence[Sequence[int]] | None,
    remove: Sequence[Sequence[int]] | None,
) -> list[list[int]]:
    """The new user-id pool: replaced, then extended, then reduced; pure.

    @raise errors.OpPrereqError: a range to remove is not there, or two ranges overlap
    """
    pool = sorted({tuple(pair) for pair in (current if uid_pool is None else uid_pool)})
    pool = sorted({*pool, *(tuple(pair) for pair in add or ())})
    for pair in remove or ():
        if tuple(pair) not in pool:
            shown = uidpool.FormatUidPool([pair])
            raise _Invalid(f"remove_uids: the range {shown} is not in the pool")
        pool.remove(tuple(pair))
    uidpool.CheckUidOverlap(pool)
    return [list(pair) for pair in pool]


def MergeTyped(
    current: Mapping[str, Any], changes: Mapping[str, Any], types: Mapping[str, str], what: str
) -> dict[str, Any]:
    """Parameters with changes laid over, of their declared types; pure.

    @param what: for the message
    @raise errors.OpPrereqError: unknown parameter or wrong value
    """
    return objects.FillDict(current, base.ForceTypes(what, changes, types))


@dataclass(frozen=True)
class ClusterChanges:
    """What a request makes of the parameters of a cluster; None = no change."""

    beparams: dict[str, Any] | None
    nicparams: dict[str, Any] | None
    diskparams: dict[str, Any] | None
    hvparams: dict[str, dict[str, Any]] | None
    os_hvp: dict[str, dict[str, dict[str, Any]]] | None
    enabled_hypervisors: list[str] | None
    uid_pool: list[list[int]] | None
    maintain_node_health: bool | None
    candidate_pool_size: int | None
    shared_file_storage_dir: str | None
    default_iallocator: dict[str, list[str]] | None

    def Apply(self, obj: objects.Cluster) -> None:
        """Make the changes in an object of the cluster."""
        for name in ("beparams", "nicparams", "diskparams"):
            values = getattr(self, name)
            if values is not None:
                getattr(obj, name)[constants.PP_DEFAULT] = values
        for name in (
            "hvparams",
            "os_hvp",
            "enabled_hypervisors",
            "uid_pool",
            "maintain_node_health",
            "candidate_pool_size",
            "shared_file_storage_dir",
            "default_iallocator",
        ):
            value = getattr(self, name)
            if value is not None:
                setattr(obj, name, value)


def ComputeClusterChanges(obj: objects.Cluster, op: Any) -> ClusterChanges:
    """What a request makes of a cluster as it is; pure.

    @param obj: the cluster
    @param op: C{OpClusterSetParams} whose arguments were checked
    @raise errors.OpPrereqError: C{wrong_input}, naming parameter and value
    """
    new_be = new_nic = new_disk = uid_pool = None
    default = constants.PP_DEFAULT
    if op.beparams:
        new_be = MergeTyped(
            obj.beparams[default], op.beparams, constants.BES_PARAMETER_TYPES, "beparams"
        )
        instance_checks.CheckBeParams("beparams", new_be)
    if op.nicparams:
        new_nic = MergeTyped(
            obj.nicparams[default], op.nicparams, constants.NICS_PARAMETER_TYPES, "nicparams"
        )
    if op.diskparams:
        new_disk = MergeTyped(
            obj.diskparams[default], op.diskparams, constants.DPS_PARAMETER_TYPES, "diskparams"
        )
        try:
            objects.Disk.CheckParameterSyntax(new_disk)
        except errors.ConfigurationError as err:
            raise _Invalid(f"diskparams: {err}") from err
    if not (op.uid_pool is None and op.add_uids is None and op.remove_uids is None):
        # Else it stays as it is, whatever older versions let it be.
        uid_pool = ComputeUidPool(obj.uid_pool or [], op.uid_pool, op.add_uids, op.remove_uids)
    return ClusterChanges(
        beparams=new_be,
        nicparams=new_nic,
        diskparams=new_disk,
        hvparams=_ComputeHvParams(obj, op),
        os_hvp=_ComputeOsHvp(obj, op),
        enabled_hypervisors=op.enabled_hypervisors,
        uid_pool=uid_pool,
        maintain_node_health=op.maintain_node_health,
        candidate_pool_size=op.candidate_pool_size,
        shared_file_storage_dir=op.shared_file_storage_dir,
        default_iallocator=ComputeAllocators(obj.default_iallocator, op.default_iallocator),
    )


def ComputeAllocators(
    current: Mapping[str, Sequence[str]] | None, given: Mapping[str, Sequence[str]] | str | None
) -> dict[str, list[str]] | None:
    """The default allocators with what was given laid over; pure.

    @param given: mode -> scripts, an empty list for none any more; or one script for all modes, an
        empty text for none at all
    @return: None: no change
    """
    if given is None:
        return None
    if isinstance(given, str):
        return {mode: [given] for mode in constants.VALID_IALLOCATOR_MODES} if given else {}
    merged = {**(current or {}), **given}
    return {mode: list(scripts) for mode, scripts in merged.items() if scripts}


def _CheckHypervisorName(what: str, kind: str) -> None:
    if kind not in constants.HYPER_TYPES:
        raise _Invalid(
            f"{what}: unknown hypervisor {kind!r}; there are"
            f" {', '.join(sorted(constants.HYPER_TYPES))}"
        )


def _GetTouched(op: Any) -> set[str]:
    """The hypervisors whose parameters are to be checked."""
    return {*(op.hvparams or {}), *(op.enabled_hypervisors or ())}


def _ComputeHvParams(obj: objects.Cluster, op: Any) -> dict[str, dict[str, Any]] | None:
    changes: Mapping[str, Mapping[str, Any]] = op.hvparams or {}
    touched = _GetTouched(op)
    for kind in touched:
        _CheckHypervisorName("hvparams", kind)
    if not touched:
        return None
    new = copy.deepcopy(dict(obj.hvparams))
    for kind in sorted(touched):
        current = objects.FillDict(constants.HVC_DEFAULTS[kind], new.get(kind, {}))
        new[kind] = MergeTyped(
            current, changes.get(kind, {}), constants.HVS_PARAMETER_TYPES, f"hvparams {kind}"
        )
    return new


def _ComputeOsHvp(obj: objects.Cluster, op: Any) -> dict[str, dict[str, dict[str, Any]]] | None:
    if not op.os_hvp:
        return None
    new = copy.deepcopy(dict(obj.os_hvp))
    for os_name, per_hv in op.os_hvp.items():
        if per_hv is None:
            new.pop(os_name, None)
            continue
        for kind, changes in per_hv.items():
            what = f"os_hvp {os_name} {kind}"
            _CheckHypervisorName(f"os_hvp {os_name}", kind)
            hvparams.CheckNoGlobals(changes or {}, "an operating system", what)
            params = new.setdefault(os_name, {})
            values = {} if changes is None else MergeReset(params.get(kind, {}), changes, what)
            params[kind] = values
            if not values:
                del params[kind]
        if not new[os_name]:
            del new[os_name]
    return new


def _IsReset(value: object) -> bool:
    return value is None or value == constants.VALUE_DEFAULT


def MergeReset(current: Mapping[str, Any], changes: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Hypervisor parameters with changes laid over, of which some take a value away; pure.

    @param changes: C{default} and None: no value of its own any more
    @raise errors.OpPrereqError: unknown parameter or wrong value
    """
    types = constants.HVS_PARAMETER_TYPES
    reset = {name for name, value in changes.items() if _IsReset(value)}
    unknown = sorted(reset - types.keys())
    if unknown:
        raise _Invalid(f"{what}: Unknown parameter '{unknown[0]}', which can not be reset")
    values = {name: value for name, value in changes.items() if name not in reset}
    merged = MergeTyped(current, values, types, what)
    return {name: value for name, value in merged.items() if name not in reset}


def FindBrokenBy(
    old: objects.Cluster, new: objects.Cluster, instances: Iterable[objects.Instance]
) -> list[str]:
    """What was right with the old hypervisor parameters and would not be with new ones; pure.

    @return: texts, one for each OS or instance with parameters of its own
    """

    def _Check(obj: objects.Cluster, kind: str, os_name: str | None, own: Any) -> str | None:
        defaults = constants.HVC_DEFAULTS.get(kind, {})
        filled = objects.FillDict(defaults, obj.SimpleFillHV(kind, os_name, own))
        try:
            hvparams.CheckParameterSyntax(kind, filled)
        except errors.HypervisorError as err:
            return str(err)
        return None

    owners: list[tuple[str, str, str | None, Any]] = [
        (f"OS {os_name}", kind, os_name, None)
        for os_name, per_hv in sorted((new.os_hvp or {}).items())
        for kind in sorted(per_hv)
    ]
    owners += [
        (f"instance {item.name}", item.hypervisor, item.os, item.hvparams) for item in instances
    ]
    problems = []
    for owner, kind, os_name, own in owners:
        problem = _Check(new, kind, os_name, own)
        if problem is not None and _Check(old, kind, os_name, own) is None:
            problems.append(f"{owner}: {problem}")
    return problems


class LUClusterSetParams(base.LogicalUnit):
    """Change parameters of the cluster: everything is checked before anything is stored."""

    HPATH = "cluster-modify"
    HTYPE = constants.HTYPE_CLUSTER

    def CheckArguments(self) -> None:
        size = self.op.candidate_pool_size
        if size is not None:
            try:
                self.op.candidate_pool_size = int(size)
            except ValueError as err:
                raise _Invalid(f"candidate_pool_size: {size!r} is no number") from err
            if self.op.candidate_pool_size < 1:
                raise _Invalid(f"candidate_pool_size must be at least 1, not {size}")
        # What is to be removed need only be there: older versions checked nothing.
        for name in ("uid_pool", "add_uids"):
            CheckUidRanges(name, getattr(self.op, name))
        enabled = self.op.enabled_hypervisors
        if enabled is not None:
            unknown = sorted(set(enabled) - set(constants.HYPER_TYPES))
            if not enabled or unknown or len(set(enabled)) != len(enabled):
                raise _Invalid(
                    f"enabled_hypervisors: {','.join(enabled)!r} must name at least one of"
                    f" {', '.join(sorted(constants.HYPER_TYPES))}, and none twice"
                )

        shared_dir = self.op.shared_file_storage_dir
        if shared_dir and not io.IsNormAbsPath(shared_dir):
            raise _Invalid(
                f"shared_file_storage_dir {shared_dir!r} must be an absolute, normalized path"
            )

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}
        self.share_locks[locking.LEVEL_NODE] = 1

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName(), "NEW_VG_NAME": self.op.vg_name}
        master = [self.cfg.GetMasterNode()]
        return env, master, master

    def CheckPrereq(self) -> None:
        obj = self.cfg.GetClusterInfo()
        self._CheckVolumeGroup()
        changes = ComputeClusterChanges(obj, self.op)
        if changes.nicparams is not None:
            self._CheckNics(changes.nicparams)
        self._CheckHypervisorsInUse(obj)
        self._CheckHypervisors(obj, changes)
        self._CheckNewHypervisors(obj)
        self._CheckAllocators()
        self._CheckSharedDirInUse()

    def _CheckSharedDirInUse(self) -> None:
        """Nodes touch no disk outside of it: those that there are must stay inside."""
        new = self.op.shared_file_storage_dir
        if new is None:
            return
        outside = [
            item.name
            for item in self.cfg.GetAllInstancesInfo().values()
            if item.disk_template == constants.DT_SHARED_FILE
            # None at all has no place for any.
            and not (new and all(disk.logical_id[1].startswith(f"{new}/") for disk in item.disks))
        ]
        if outside:
            raise errors.OpPrereqError(
                f"shared_file_storage_dir: disks of {announce.FormatNames(outside)} are not below"
                f" {new!r}",
                errors.ECODE_STATE,
            )

    def _CheckHypervisorsInUse(self, obj: objects.Cluster) -> None:
        """Nobody looks after instances whose hypervisor is not enabled."""
        if self.op.enabled_hypervisors is None:
            return
        left_out = set(obj.enabled_hypervisors) - set(self.op.enabled_hypervisors)
        using = {
            item.name: item.hypervisor
            for item in self.cfg.GetAllInstancesInfo().values()
            if item.hypervisor in left_out
        }
        if using:
            raise errors.OpPrereqError(
                f"enabled_hypervisors: {', '.join(sorted(set(using.values())))} can not be left"
                f" out while instances use it ({announce.FormatNames(using)}); remove them first",
                errors.ECODE_STATE,
            )

    def _CheckNewHypervisors(self, obj: objects.Cluster) -> None:
        """Some node must be able to use what is switched on.

        One that can use it nowhere would do harm: nodes could not list their instances any more.
        """
        added = sorted(set(self.op.enabled_hypervisors or ()) - set(obj.enabled_hypervisors))
        if not added:
            return
        nodes = text.NiceSort(self.acquired_locks[locking.LEVEL_NODE])
        request = {constants.NV_HYPERVISOR: added}
        results = self.rpc.call_node_verify(nodes, request, obj.cluster_name)
        for kind in added:
            problems = {
                node: result.payload.get(constants.NV_HYPERVISOR, {}).get(kind)
                for node, result in results.items()
                if not result.fail_msg
            }
            bad = {node: problem for node, problem in problems.items() if problem is not None}
            if bad and len(bad) == len(problems):
                node, problem = next(iter(bad.items()))
                raise errors.OpPrereqError(
                    f"enabled_hypervisors: no node can use {kind}; {node} says: {problem}",
                    errors.ECODE_ENVIRON,
                )
            for node, problem in bad.items():
                self.LogWarning("Node %s can not use hypervisor %s: %s", node, kind, problem)

    def _CheckAllocators(self) -> None:
        """Scripts run on the master: there they must be."""
        if self.op.default_iallocator is None:
            return
        given = ComputeAllocators({}, self.op.default_iallocator) or {}
        exists = self.context.runtime.files.exists
        for name in sorted({name for scripts in given.values() for name in scripts}):
            if io.FindFile(name, pathutils.IALLOCATOR_SEARCH_PATH, exists) is None:
                raise _Invalid(
                    f"default_iallocator: there is no script {name!r} in"
                    f" {', '.join(pathutils.IALLOCATOR_SEARCH_PATH)} on the master"
                )

    def _CheckVolumeGroup(self) -> None:
        if self.op.vg_name is None:
            return
        if not self.op.vg_name:
            using = [
                instance.name
                for instance in self.cfg.GetAllInstancesInfo().values()
                if any(names for names in instance.MapLVsByNode().values())
            ]
            if using:
                raise _Invalid(
                    "LVM can not be switched off: the disks of"
                    f" {', '.join(sorted(using))} are logical volumes"
                )
            return
        nodes = sorted(self.acquired_locks[locking.LEVEL_NODE])
        for node, result in self.rpc.call_vg_list(nodes).items():
            if result.offline:
                continue
            if result.fail_msg:
                self.LogWarning("Node %s can not list its volume groups: %s", node, result.fail_msg)
                continue
            size = result.payload.get(self.op.vg_name)
            if size is None or size < constants.MIN_VG_SIZE:
                have = "does not have it" if size is None else f"has {size:.0f} MiB of it"
                raise errors.OpPrereqError(
                    f"vg_name: node {node} {have}; {self.op.vg_name!r} must be on each node, with"
                    f" at least {constants.MIN_VG_SIZE} MiB",
                    errors.ECODE_ENVIRON,
                )

    def _CheckNics(self, defaults: Mapping[str, Any]) -> None:
        """Would every NIC still be right with new cluster defaults?"""
        problems = []
        try:
            objects.NIC.CheckParameterSyntax(defaults)
        except errors.ConfigurationError as err:
            raise _Invalid(f"nicparams: {err}") from err
        for instance in self.cfg.GetAllInstancesInfo().values():
            for index, nic in enumerate(instance.nics):
                filled = objects.FillDict(defaults, nic.nicparams or {})
                where = f"instance {instance.name}, nic/{index}"
                try:
                    objects.NIC.CheckParameterSyntax(filled)
                except errors.ConfigurationError as err:
                    problems.append(f"{where}: {err}")
                if filled[constants.NIC_MODE] == constants.NIC_MODE_ROUTED and not nic.ip:
                    problems.append(f"{where}: a routed NIC needs an IP")
        if problems:
            raise _Invalid("nicparams: with these, " + "; ".join(problems))

    def _CheckHypervisors(self, obj: objects.Cluster, changes: ClusterChanges) -> None:
        new = obj.Copy()
        changes.Apply(new)
        for kind in sorted(_GetTouched(self.op)):
            self._CheckHypervisor(kind, new.hvparams[kind], "hvparams")
        for os_name, per_hv in (self.op.os_hvp or {}).items():
            for kind, given in (per_hv or {}).items():
                # What is only taken away needs nothing on any node.
                if any(not _IsReset(value) for value in (given or {}).values()):
                    filled = objects.FillDict(
                        constants.HVC_DEFAULTS[kind], new.SimpleFillHV(kind, os_name, None)
                    )
                    self._CheckHypervisor(kind, filled, f"os_hvp {os_name}")
        if changes.hvparams is not None or changes.os_hvp is not None:
            broken = FindBrokenBy(obj, new, self.cfg.GetAllInstancesInfo().values())
            if broken:
                raise _Invalid("hvparams: with these, " + "; ".join(broken))

    def _CheckHypervisor(self, kind: str, filled: Mapping[str, Any], what: str) -> None:
        """Check all parameters of a hypervisor here and on all nodes, be it enabled or not."""
        try:
            hvparams.CheckParameterSyntax(kind, filled)
        except errors.HypervisorError as err:
            raise _Invalid(f"{what} {kind}: {err}") from err
        nodes = sorted(self.acquired_locks[locking.LEVEL_NODE])
        results = self.rpc.call_hypervisor_validate_params(nodes, kind, dict(filled))
        for node, result in results.items():
            if not result.offline:
                result.Raise(
                    f"{what} {kind}: node {node} refuses them",
                    prereq=True,
                    ecode=errors.ECODE_ENVIRON,
                )

    def DescribeChanges(self) -> list[announce.Change]:
        obj = self.cfg.GetClusterInfo()
        new = obj.Copy()
        self._Change(new)
        lines = announce.Between(obj, new) or [
            announce.OfCluster("has these values already, and is sent to all nodes again")
        ]
        pool_size = self.op.candidate_pool_size
        if pool_size is not None:
            lines += candidates.DescribeAdjustment(self, pool_size=pool_size)
        if self.op.shared_file_storage_dir:
            what = f"see whether it shares {self.op.shared_file_storage_dir}"
            lines += announce.OnNodes(self._GetOnlineNodes(), what)
        return lines

    def _GetOnlineNodes(self) -> list[str]:
        return [node.name for node in self.cfg.GetAllNodesInfo().values() if not node.offline]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        vg_name = self.op.vg_name
        if vg_name is not None and (vg_name or None) == self.cfg.GetVGName():
            feedback_fn("Cluster LVM configuration already in desired state, not changing")
        for risk in uidpool.DescribeUidPoolRisks(
            [*(self.op.uid_pool or ()), *(self.op.add_uids or ())]
        ):
            self.LogWarning("%s", risk)
        if self.op.candidate_pool_size is not None:
            # Before saving, which checks the size of the pool.
            candidates.AdjustCandidatePool(self, pool_size=self.op.candidate_pool_size)

        cluster.UpdateCluster(self, self._Change, feedback_fn)
        if self.op.shared_file_storage_dir:
            self._ProbeSharedDir(self.op.shared_file_storage_dir)

    def _ProbeSharedDir(self, top: str) -> None:
        """Do all nodes share it? One makes a directory there, which each other one renames."""
        nodes = self._GetOnlineNodes()
        master = self.cfg.GetMasterNode()
        prefix = f"{top}/probe-{self.context.runtime.random.token_hex(8)}-"
        result = self.rpc.call_file_storage_dir_create(master, f"{prefix}0")
        if result.fail_msg:
            self.LogWarning("Node %s can not use %s: %s", master, top, result.fail_msg)
            return
        renamed = 0
        for node in text.NiceSort(set(nodes) - {master}):
            old, new = f"{prefix}{renamed}", f"{prefix}{renamed + 1}"
            result = self.rpc.call_file_storage_dir_rename(node, old, new)
            if result.fail_msg:
                self.LogWarning("Node %s does not share %s: %s", node, top, result.fail_msg)
            else:
                renamed += 1
        result = self.rpc.call_file_storage_dir_remove(master, f"{prefix}{renamed}")
        if result.fail_msg:
            self.LogWarning(
                "Node %s can not remove %s%d: %s", master, prefix, renamed, result.fail_msg
            )

    def _Change(self, obj: objects.Cluster) -> None:
        # From the cluster as it is now: others may have changed it since the checks.
        ComputeClusterChanges(obj, self.op).Apply(obj)
        if self.op.vg_name is not None:
            obj.volume_group_name = self.op.vg_name or None


LOGICAL_UNITS: Final = {opcodes.OpClusterSetParams: LUClusterSetParams}
