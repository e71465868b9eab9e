"""Logical units on the cluster as a whole: init, destroy, parameters, redistribution."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, hvparams, locking, objects, opcodes
from ..utils import io, params
from . import ancillary, base, candidates, hooks


class LUClusterPostInit(base.LogicalUnit):
    """Runs the post hooks of cluster init, nothing else."""

    HPATH = "cluster-init"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName()}
        return env, [], [self.cfg.GetMasterNode()]

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> bool:
        return True


class LUClusterDestroy(base.LogicalUnit):
    """Give up the master role; the client removes the rest when this job has ended."""

    HPATH = "cluster-destroy"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        # Run by Exec, before there is nobody to run them any more.
        return {"OP_TARGET": self.cfg.GetClusterName()}, [], []

    def CheckPrereq(self) -> None:
        master = self.cfg.GetMasterNode()
        others = sorted(set(self.cfg.GetNodeList()) - {master})
        if others:
            raise errors.OpPrereqError(
                f"There are {len(others)} more nodes in the cluster ({', '.join(others)}): remove"
                " them first",
                errors.ECODE_INVAL,
            )
        instances = self.cfg.GetInstanceList()
        if instances:
            raise errors.OpPrereqError(
                f"There are {len(instances)} instances in the cluster"
                f" ({', '.join(sorted(instances))}): remove them first",
                errors.ECODE_INVAL,
            )

    def Exec(self, feedback_fn: base.FeedbackFn) -> str:
        master = self.cfg.GetMasterNode()
        hooks.RunPostHooks(self, [master])
        self.rpc.call_node_stop_master(master, False).Raise("Could not give up the master role")
        if self.cfg.GetClusterInfo().modify_ssh_setup:
            from .. import ssh

            private, public, _ = ssh.GetUserFiles(constants.GANETI_RUNAS)
            for path in (private, public):
                if self.context.runtime.files.exists(path):
                    io.CreateBackup(path)
        return master


class LUClusterRedistConf(base.NoHooksLU):
    """Send configuration, ssconf and ancillary files to all nodes again (RC1)."""

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}
        self.share_locks[locking.LEVEL_NODE] = 1

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        self.cfg.Update(self.cfg.GetClusterInfo(), feedback_fn)
        ancillary.RedistributeAncillaryFiles(self)


# Parameters


def _Invalid(text: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(text, errors.ECODE_INVAL)


def CheckUidRanges(name: str, ranges: Sequence[Sequence[int]] | None) -> None:
    """Check user-id ranges by themselves; pure.

    @raise errors.OpPrereqError: C{wrong_input}, naming parameter and range
    """
    for low, high in ranges or ():
        if not constants.UIDPOOL_UID_MIN <= low <= high <= constants.UIDPOOL_UID_MAX:
            raise _Invalid(
                f"{name}: {low}-{high} is no range of user ids between"
                f" {constants.UIDPOOL_UID_MIN} and {constants.UIDPOOL_UID_MAX}"
            )


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
            raise _Invalid(f"remove_uids: the range {pair[0]}-{pair[1]} is not in the pool")
        pool.remove(tuple(pair))
    for (low, high), (next_low, next_high) in zip(pool, pool[1:], strict=False):
        if next_low <= high:
            raise _Invalid(f"The user-id ranges {low}-{high} and {next_low}-{next_high} overlap")
    return [list(pair) for pair in pool]


def MergeTyped(
    current: Mapping[str, Any], changes: Mapping[str, Any], types: Mapping[str, str], what: str
) -> dict[str, Any]:
    """Parameters with changes laid over, of their declared types; pure.

    @param what: for the message
    @raise errors.OpPrereqError: unknown parameter or wrong value
    """
    typed = dict(changes)
    try:
        params.ForceDictType(typed, types)
    except errors.TypeEnforcementError as err:
        raise _Invalid(f"{what}: {err}") from err
    return objects.FillDict(current, typed)


@dataclass(frozen=True)
class _Plan:
    """What the checks decided; None = no change."""

    beparams: dict[str, Any] | None
    nicparams: dict[str, Any] | None
    diskparams: dict[str, Any] | None
    hvparams: dict[str, dict[str, Any]] | None
    os_hvp: dict[str, dict[str, dict[str, Any]]] | None
    enabled_hypervisors: list[str] | None
    candidate_pool_size: int | None
    uid_pool: list[list[int]]


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
        for name in ("uid_pool", "add_uids", "remove_uids"):
            CheckUidRanges(name, getattr(self.op, name))
        enabled = self.op.enabled_hypervisors
        if enabled is not None:
            unknown = sorted(set(enabled) - set(constants.HYPER_TYPES))
            if not enabled or unknown or len(set(enabled)) != len(enabled):
                raise _Invalid(
                    f"enabled_hypervisors: {','.join(enabled)!r} must name at least one of"
                    f" {', '.join(sorted(constants.HYPER_TYPES))}, and none twice"
                )
        if self.op.default_iallocator is not None:
            raise _Invalid("default_iallocator can not be set yet: allocators are not implemented")

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}
        self.share_locks[locking.LEVEL_NODE] = 1

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName(), "NEW_VG_NAME": self.op.vg_name}
        master = [self.cfg.GetMasterNode()]
        return env, master, master

    def CheckPrereq(self) -> None:
        cluster = self.cfg.GetClusterInfo()
        self._CheckVolumeGroup()
        default = constants.PP_DEFAULT
        new_be = new_nic = new_disk = None
        if self.op.beparams:
            new_be = MergeTyped(
                cluster.beparams[default],
                self.op.beparams,
                constants.BES_PARAMETER_TYPES,
                "beparams",
            )
        if self.op.nicparams:
            new_nic = MergeTyped(
                cluster.nicparams[default],
                self.op.nicparams,
                constants.NICS_PARAMETER_TYPES,
                "nicparams",
            )
            self._CheckNics(new_nic)
        if self.op.diskparams:
            new_disk = MergeTyped(
                cluster.diskparams[default],
                self.op.diskparams,
                constants.DPS_PARAMETER_TYPES,
                "diskparams",
            )
        new_hv, touched = self._ComputeHvParams(cluster)
        new_os_hvp = self._ComputeOsHvp(cluster, new_hv or cluster.hvparams)
        self._Validate(new_hv or cluster.hvparams, touched)
        self.plan = _Plan(
            beparams=new_be,
            nicparams=new_nic,
            diskparams=new_disk,
            hvparams=new_hv,
            os_hvp=new_os_hvp,
            enabled_hypervisors=self.op.enabled_hypervisors,
            candidate_pool_size=self.op.candidate_pool_size,
            uid_pool=ComputeUidPool(
                cluster.uid_pool or [], self.op.uid_pool, self.op.add_uids, self.op.remove_uids
            ),
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

    def _ComputeHvParams(
        self, cluster: objects.Cluster
    ) -> tuple[dict[str, dict[str, Any]] | None, set[str]]:
        """New parameters of all hypervisors, None if unchanged; and the hypervisors to check."""
        changes: Mapping[str, Mapping[str, Any]] = self.op.hvparams or {}
        for kind in changes:
            if kind not in constants.HYPER_TYPES:
                raise _Invalid(f"hvparams: unknown hypervisor {kind!r}")
        touched = {*changes, *(self.op.enabled_hypervisors or ())}
        if not touched:
            return None, touched
        new = copy.deepcopy(dict(cluster.hvparams))
        for kind in touched:
            current = objects.FillDict(constants.HVC_DEFAULTS[kind], new.get(kind, {}))
            new[kind] = MergeTyped(
                current, changes.get(kind, {}), constants.HVS_PARAMETER_TYPES, f"hvparams {kind}"
            )
        return new, touched

    def _ComputeOsHvp(
        self, cluster: objects.Cluster, new_hv: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, dict[str, Any]]] | None:
        if not self.op.os_hvp:
            return None
        new = copy.deepcopy(dict(cluster.os_hvp))
        for os_name, per_hv in self.op.os_hvp.items():
            for kind, changes in per_hv.items():
                if kind not in constants.HYPER_TYPES:
                    raise _Invalid(f"os_hvp of {os_name}: unknown hypervisor {kind!r}")
                merged = MergeTyped(
                    new.get(os_name, {}).get(kind, {}),
                    changes,
                    constants.HVS_PARAMETER_TYPES,
                    f"os_hvp {os_name} {kind}",
                )
                new.setdefault(os_name, {})[kind] = merged
                filled = objects.FillDict(new_hv.get(kind, {}), merged)
                self._CheckHypervisor(kind, filled, f"os_hvp {os_name}")
        return new

    def _Validate(self, new_hv: Mapping[str, Mapping[str, Any]], touched: set[str]) -> None:
        enabled = self.op.enabled_hypervisors or self.cfg.GetClusterInfo().enabled_hypervisors
        for kind in sorted(touched):
            # What is not enabled need not be installed on any node.
            self._CheckHypervisor(kind, new_hv[kind], "hvparams", remote=kind in enabled)

    def _CheckHypervisor(
        self, kind: str, filled: Mapping[str, Any], what: str, remote: bool = True
    ) -> None:
        try:
            hvparams.CheckParameterSyntax(kind, filled)
        except errors.HypervisorError as err:
            raise _Invalid(f"{what} {kind}: {err}") from err
        if not remote:
            return
        nodes = sorted(self.acquired_locks[locking.LEVEL_NODE])
        results = self.rpc.call_hypervisor_validate_params(nodes, kind, dict(filled))
        for node, result in results.items():
            if not result.offline:
                result.Raise(
                    f"{what} {kind}: node {node} refuses them",
                    prereq=True,
                    ecode=errors.ECODE_ENVIRON,
                )

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        cluster = self.cfg.GetClusterInfo()
        if self.op.vg_name is not None:
            new_name = self.op.vg_name or None
            if new_name == cluster.volume_group_name:
                feedback_fn("Cluster LVM configuration already in desired state, not changing")
            cluster.volume_group_name = new_name
        plan = self.plan
        if plan.hvparams is not None:
            cluster.hvparams = plan.hvparams
        if plan.os_hvp is not None:
            cluster.os_hvp = plan.os_hvp
        if plan.enabled_hypervisors is not None:
            cluster.enabled_hypervisors = plan.enabled_hypervisors
        for name in ("beparams", "nicparams", "diskparams"):
            values = getattr(plan, name)
            if values is not None:
                getattr(cluster, name)[constants.PP_DEFAULT] = values
        if self.op.maintain_node_health is not None:
            cluster.maintain_node_health = self.op.maintain_node_health
        cluster.uid_pool = plan.uid_pool
        if plan.candidate_pool_size is not None:
            cluster.candidate_pool_size = plan.candidate_pool_size
        self.cfg.Update(cluster, feedback_fn)
        if plan.candidate_pool_size is not None:
            candidates.AdjustCandidatePool(self)


LOGICAL_UNITS: Final = {
    opcodes.OpClusterPostInit: LUClusterPostInit,
    opcodes.OpClusterDestroy: LUClusterDestroy,
    opcodes.OpClusterRedistConf: LUClusterRedistConf,
    opcodes.OpClusterSetParams: LUClusterSetParams,
}
