"""Logical units on the cluster as a whole: init, destroy, parameters, redistribution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, hvparams, locking, objects, opcodes, pathutils, ssh, uidpool
from ..utils import io, net
from . import ancillary, announce, base, candidates, hooks, instance_checks

#: How often a change of the cluster's object is tried while others change it, too.
_UPDATE_ATTEMPTS: Final = 10


def UpdateCluster(
    lu: base.LogicalUnit,
    change: Callable[[objects.Cluster], None],
    feedback_fn: base.FeedbackFn,
) -> None:
    """Change the object of the cluster, which no lock protects.

    Who comes second starts again from what there is then.

    @param change: makes the change in the object it is given; may be called several times
    """
    for attempt in range(1, _UPDATE_ATTEMPTS + 1):
        cluster = lu.cfg.GetClusterInfo()
        change(cluster)
        try:
            lu.cfg.Update(cluster, feedback_fn)
            return
        except errors.ConfigurationError:
            unchanged = lu.cfg.GetClusterInfo().serial_no == cluster.serial_no
            if unchanged or attempt == _UPDATE_ATTEMPTS:
                # It is not that: the configuration can not be written.
                raise


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

    def DescribeChanges(self) -> list[announce.Change]:
        """Nothing: its hooks are all there is."""
        return []

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

    def DescribeChanges(self) -> list[announce.Change]:
        master = [self.cfg.GetMasterNode()]
        lines = announce.OnNodes(master, f"run the {self.HPATH} post hooks, at the beginning")
        lines += announce.OnNodes(master, "give up the master role and its address")
        if self.cfg.GetClusterInfo().modify_ssh_setup:
            lines += announce.OnNodes(master, "keep a copy of root's SSH key")
        what = "then the command stops the daemons and removes everything of the cluster"
        return lines + announce.OnNodes(master, what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> str:
        master = self.cfg.GetMasterNode()
        hooks.RunPostHooks(self, [master])
        self.rpc.call_node_stop_master(master, False).Raise("Could not give up the master role")
        if self.cfg.GetClusterInfo().modify_ssh_setup:
            private, public, _ = ssh.GetUserFiles(constants.GANETI_RUNAS)
            for path in (private, public):
                self._BackUp(path)
        return master

    def _BackUp(self, path: str) -> None:
        if not self.context.runtime.files.exists(path):
            return
        try:
            io.CreateBackup(path)
        except OSError as err:
            # The master role is given up: there is no way back, and the key itself stays.
            self.LogWarning("No backup of %s was made: %s", path, err)


class LUClusterRedistConf(base.NoHooksLU):
    """Send configuration, ssconf and ancillary files to all nodes again (RC1)."""

    def ExpandNames(self) -> None:
        self.needed_locks = {locking.LEVEL_NODE: locking.ALL_SET}
        self.share_locks[locking.LEVEL_NODE] = 1

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def DescribeChanges(self) -> list[announce.Change]:
        return [
            announce.OfCluster("sent to all nodes again, with a new serial number"),
            *ancillary.DescribeRedistribution(self),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        UpdateCluster(self, lambda _: None, feedback_fn)
        ancillary.RedistributeAncillaryFiles(self)


# Parameters


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

    def Apply(self, cluster: objects.Cluster) -> None:
        """Make the changes in an object of the cluster."""
        for name in ("beparams", "nicparams", "diskparams"):
            values = getattr(self, name)
            if values is not None:
                getattr(cluster, name)[constants.PP_DEFAULT] = values
        for name in (
            "hvparams",
            "os_hvp",
            "enabled_hypervisors",
            "uid_pool",
            "maintain_node_health",
            "candidate_pool_size",
        ):
            value = getattr(self, name)
            if value is not None:
                setattr(cluster, name, value)


def ComputeClusterChanges(cluster: objects.Cluster, op: Any) -> ClusterChanges:
    """What a request makes of a cluster as it is; pure.

    @param op: C{OpClusterSetParams} whose arguments were checked
    @raise errors.OpPrereqError: C{wrong_input}, naming parameter and value
    """
    new_be = new_nic = new_disk = uid_pool = None
    default = constants.PP_DEFAULT
    if op.beparams:
        new_be = MergeTyped(
            cluster.beparams[default], op.beparams, constants.BES_PARAMETER_TYPES, "beparams"
        )
        instance_checks.CheckBeParams("beparams", new_be)
    if op.nicparams:
        new_nic = MergeTyped(
            cluster.nicparams[default], op.nicparams, constants.NICS_PARAMETER_TYPES, "nicparams"
        )
    if op.diskparams:
        new_disk = MergeTyped(
            cluster.diskparams[default], op.diskparams, constants.DPS_PARAMETER_TYPES, "diskparams"
        )
        try:
            objects.Disk.CheckParameterSyntax(new_disk)
        except errors.ConfigurationError as err:
            raise _Invalid(f"diskparams: {err}") from err
    if not (op.uid_pool is None and op.add_uids is None and op.remove_uids is None):
        # Else it stays as it is, whatever older versions let it be.
        uid_pool = ComputeUidPool(cluster.uid_pool or [], op.uid_pool, op.add_uids, op.remove_uids)
    return ClusterChanges(
        beparams=new_be,
        nicparams=new_nic,
        diskparams=new_disk,
        hvparams=_ComputeHvParams(cluster, op),
        os_hvp=_ComputeOsHvp(cluster, op),
        enabled_hypervisors=op.enabled_hypervisors,
        uid_pool=uid_pool,
        maintain_node_health=op.maintain_node_health,
        candidate_pool_size=op.candidate_pool_size,
    )


def _CheckHypervisorName(what: str, kind: str) -> None:
    if kind not in constants.HYPER_TYPES:
        raise _Invalid(
            f"{what}: unknown hypervisor {kind!r}; there are"
            f" {', '.join(sorted(constants.HYPER_TYPES))}"
        )


def _GetTouched(op: Any) -> set[str]:
    """The hypervisors whose parameters are to be checked."""
    return {*(op.hvparams or {}), *(op.enabled_hypervisors or ())}


def _ComputeHvParams(cluster: objects.Cluster, op: Any) -> dict[str, dict[str, Any]] | None:
    changes: Mapping[str, Mapping[str, Any]] = op.hvparams or {}
    touched = _GetTouched(op)
    for kind in touched:
        _CheckHypervisorName("hvparams", kind)
    if not touched:
        return None
    new = copy.deepcopy(dict(cluster.hvparams))
    for kind in sorted(touched):
        current = objects.FillDict(constants.HVC_DEFAULTS[kind], new.get(kind, {}))
        new[kind] = MergeTyped(
            current, changes.get(kind, {}), constants.HVS_PARAMETER_TYPES, f"hvparams {kind}"
        )
    return new


def _ComputeOsHvp(cluster: objects.Cluster, op: Any) -> dict[str, dict[str, dict[str, Any]]] | None:
    if not op.os_hvp:
        return None
    new = copy.deepcopy(dict(cluster.os_hvp))
    for os_name, per_hv in op.os_hvp.items():
        for kind, changes in per_hv.items():
            _CheckHypervisorName(f"os_hvp of {os_name}", kind)
            new.setdefault(os_name, {})[kind] = MergeTyped(
                new.get(os_name, {}).get(kind, {}),
                changes,
                constants.HVS_PARAMETER_TYPES,
                f"os_hvp {os_name} {kind}",
            )
    return new


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
        changes = ComputeClusterChanges(cluster, self.op)
        if changes.nicparams is not None:
            self._CheckNics(changes.nicparams)
        self._CheckHypervisors(cluster, changes)

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

    def _CheckHypervisors(self, cluster: objects.Cluster, changes: ClusterChanges) -> None:
        new_hv = cluster.hvparams if changes.hvparams is None else changes.hvparams
        # What is not enabled need not be installed on any node.
        enabled = self.op.enabled_hypervisors or cluster.enabled_hypervisors
        for kind in sorted(_GetTouched(self.op)):
            self._CheckHypervisor(kind, new_hv[kind], "hvparams", remote=kind in enabled)
        for os_name, per_hv in (self.op.os_hvp or {}).items():
            assert changes.os_hvp is not None
            for kind in per_hv:
                defaults = objects.FillDict(constants.HVC_DEFAULTS[kind], new_hv.get(kind, {}))
                filled = objects.FillDict(defaults, changes.os_hvp[os_name][kind])
                self._CheckHypervisor(kind, filled, f"os_hvp {os_name}", remote=kind in enabled)

    def _CheckHypervisor(
        self, kind: str, filled: Mapping[str, Any], what: str, remote: bool
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

    def DescribeChanges(self) -> list[announce.Change]:
        cluster = self.cfg.GetClusterInfo()
        new = cluster.Copy()
        self._Change(new)
        lines = announce.Between(cluster, new) or [
            announce.OfCluster("has these values already, and is sent to all nodes again")
        ]
        pool_size = self.op.candidate_pool_size
        if pool_size is not None:
            lines += candidates.DescribeAdjustment(self, pool_size=pool_size)
        return lines

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

        UpdateCluster(self, self._Change, feedback_fn)

    def _Change(self, cluster: objects.Cluster) -> None:
        # From the cluster as it is now: others may have changed it since the checks.
        ComputeClusterChanges(cluster, self.op).Apply(cluster)
        if self.op.vg_name is not None:
            cluster.volume_group_name = self.op.vg_name or None


class LUClusterRename(base.LogicalUnit):
    """Give the cluster another name and the address that this name has."""

    HPATH = "cluster-rename"
    HTYPE = constants.HTYPE_CLUSTER
    REQ_BGL = True

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"OP_TARGET": self.cfg.GetClusterName(), "NEW_NAME": self.op.name}
        return env, [self.cfg.GetMasterNode()], self.cfg.GetNodeList()

    def CheckPrereq(self) -> None:
        host = net.GetHostInfo(self.op.name)
        self.op.name, self.ip = host.name, host.ip
        old_ip = self.cfg.GetMasterIP()
        if (host.name, host.ip) == (self.cfg.GetClusterName(), old_ip):
            raise _Invalid(
                f"name: the cluster is called {host.name}, with the address {host.ip}, already"
            )
        if host.ip != old_ip and net.TcpPing(
            host.ip, constants.DEFAULT_NODED_PORT, live_port_needed=pathutils.IsVirtual()
        ):
            raise errors.OpPrereqError(
                f"name: the address {host.ip} of {host.name} answers, so it is in use",
                errors.ECODE_NOTUNIQUE,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        cluster = self.cfg.GetClusterInfo()
        new = cluster.Copy()
        self._Change(new)
        lines = announce.Between(cluster, new)
        what = f"take down the master's address {cluster.master_ip}, bring up {self.ip}"
        lines += announce.OnNodes([cluster.master_node], what)
        if self.cfg.GetHostKey():
            known_hosts = pathutils.SSH_KNOWN_HOSTS_FILE
            lines += announce.OnNodes(
                [cluster.master_node], f"write {known_hosts} with the new name"
            )
            lines += ancillary.DescribeRedistribution(self, paths=[known_hosts])
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        master = self.cfg.GetMasterNode()
        try:
            result = self.rpc.call_node_stop_master(master, False)
            result.Raise("Could not take down the master's address")
            UpdateCluster(self, self._Change, feedback_fn)
            self._RewriteKnownHosts()
        finally:
            # With the old address or the new one: the cluster must be reachable.
            result = self.rpc.call_node_start_master(master, False, False)
            if result.fail_msg:
                self.LogWarning(
                    "The master's address could not be brought up on %s: %s",
                    master,
                    result.fail_msg,
                    hint="Restart the master daemon on it, which brings the address up",
                )

    def _Change(self, cluster: objects.Cluster) -> None:
        cluster.cluster_name = self.op.name
        cluster.master_ip = self.ip

    def _RewriteKnownHosts(self) -> None:
        """The name in the file is what all connections between nodes ask for."""
        if not self.cfg.GetHostKey():
            return
        path = pathutils.SSH_KNOWN_HOSTS_FILE
        try:
            ssh.WriteKnownHostsFile(self.cfg, path, self.context.runtime)
        except OSError as err:
            self.LogWarning("%s could not be written: %s", path, err)
            return
        ancillary.RedistributeAncillaryFiles(self, paths=[path])


LOGICAL_UNITS: Final = {
    opcodes.OpClusterPostInit: LUClusterPostInit,
    opcodes.OpClusterDestroy: LUClusterDestroy,
    opcodes.OpClusterRedistConf: LUClusterRedistConf,
    opcodes.OpClusterRename: LUClusterRename,
    opcodes.OpClusterSetParams: LUClusterSetParams,
}
