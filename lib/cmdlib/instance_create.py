"""Creating instances."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes, pathutils
from ..utils import net
from ..utils.rollback import Rollback
from . import announce, base, disk_ops, instance_checks, instance_env, instance_operation, nics


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


#: What this suite can create by now; the others are known but refused.
_TEMPLATES_AT_HAND: Final = constants.DTS_NOT_LVM


def CheckDiskSettings(disks: list[dict[str, Any]], first: int | str = 0) -> list[dict[str, Any]]:
    """Check names, types and values of what was said of each disk; pure.

    @param first: what the first of them is called in messages: its index, or C{add}
    @return: copies with size (MiB), mode, and the disk's own parameters
    @raise errors.OpPrereqError: C{wrong_input}, naming the disk
    """
    types = {**constants.IDISK_PARAMS_TYPES, **constants.DPS_PARAMETER_TYPES}
    result = []
    for index, settings in enumerate(disks):
        where = f"disk/{first if index == 0 else index}"
        disk = base.ForceTypes(where, settings, types)
        disk.setdefault(constants.IDISK_MODE, constants.DISK_RDWR)
        if disk[constants.IDISK_MODE] not in constants.DISK_ACCESS_SET:
            raise _Invalid(
                f"{where}: mode must be one of {', '.join(sorted(constants.DISK_ACCESS_SET))}, not"
                f" {disk[constants.IDISK_MODE]!r}"
            )
        if constants.IDISK_SIZE not in disk:
            raise _Invalid(f"{where}: the size is missing")
        if not disk[constants.IDISK_SIZE]:
            raise _Invalid(f"{where}: the size must be more than 0")
        instance_checks.CheckDiskParams(where, disk_ops.GetOwnParams(disk))
        result.append(disk)
    if len(result) > constants.MAX_DISKS:
        raise _Invalid(f"disks: at most {constants.MAX_DISKS} are possible, not {len(result)}")
    return result


def DropDefaults(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Those values that differ from their defaults; pure."""
    return {
        key: value for key, value in values.items() if key not in defaults or defaults[key] != value
    }


@dataclass(frozen=True)
class _Plan:
    """What the checks decided, for the execution."""

    hypervisor: str
    hvparams: dict[str, Any]
    beparams: dict[str, Any]
    hv_filled: dict[str, Any]
    be_filled: dict[str, Any]
    nics: list[objects.NIC] = field(default_factory=list)
    nics_filled: list[dict[str, Any]] = field(default_factory=list)
    disks: list[dict[str, Any]] = field(default_factory=list)


class LUInstanceCreate(base.LogicalUnit):
    """Create an instance, install its OS and start it."""

    HPATH = "instance-add"
    HTYPE = constants.HTYPE_INSTANCE

    def CheckArguments(self) -> None:
        op = self.op
        if op.no_install and op.start:
            self.LogInfo("No-installation mode selected, disabling startup")
            op.start = False
        op.instance_name = net.HostInfo.NormalizeName(op.instance_name)
        if op.ip_check and not op.name_check:
            raise _Invalid("ip_check needs name_check: without it there is no address to check")
        self._CheckImplemented()
        if op.file_storage_dir and os.path.isabs(op.file_storage_dir):
            raise _Invalid(
                f"file_storage_dir must be relative to that of the cluster, not"
                f" {op.file_storage_dir!r}"
            )
        if op.pnode is None:
            raise _Invalid("Exactly one of a primary node and an allocator must be given")
        if op.snode is not None:
            self.LogWarning("The secondary node is ignored: only mirrored disks have one")
            op.snode = None
        if op.os_type is None:
            raise _Invalid("os_type is missing: the OS to install")
        if op.disk_template is None:
            raise _Invalid("disk_template is missing")
        self.disks = CheckDiskSettings(op.disks)
        if len(op.nics) > constants.MAX_NICS:
            raise _Invalid(f"nics: at most {constants.MAX_NICS} are possible, not {len(op.nics)}")
        for index, settings in enumerate(op.nics):
            nics.CheckNicSettings(f"nic/{index}", settings)
        self.name_ip: str | None = None
        if op.name_check:
            host = net.GetHostInfo(op.instance_name)
            op.instance_name, self.name_ip = host.name, host.ip

    def _CheckImplemented(self) -> None:
        """Refuse what is known but can not be done yet; nothing is silently ignored."""
        op = self.op
        if op.iallocator is not None:
            if op.pnode is not None:
                raise _Invalid("Exactly one of a primary node and an allocator must be given")
            raise _Invalid(
                f"Allocators ({op.iallocator!r}) are not implemented yet: name the primary node"
            )
        if op.mode != constants.INSTANCE_CREATE:
            raise _Invalid(f"Creation mode {op.mode!r} is not implemented yet")
        if op.disk_template not in (None, *_TEMPLATES_AT_HAND):
            raise _Invalid(
                f"Disk template {op.disk_template!r} is not implemented yet, only"
                f" {', '.join(sorted(_TEMPLATES_AT_HAND))}"
            )
        for index, disk in enumerate(op.disks):
            if constants.IDISK_ADOPT in disk:
                raise _Invalid(
                    f"disk/{index}: only logical volumes can be adopted, not disks of the template"
                    f" {op.disk_template}"
                )

    def ExpandNames(self) -> None:
        name = self.op.instance_name
        if name in self.cfg.GetInstanceList():
            raise errors.OpPrereqError(
                f"Instance '{name}' is already in the cluster", errors.ECODE_EXISTS
            )
        self.add_locks[locking.LEVEL_INSTANCE] = name
        self.op.pnode = base.ExpandNodeName(self.cfg, self.op.pnode)
        self.needed_locks = {locking.LEVEL_NODE: [self.op.pnode]}

    def BuildHooksEnv(self) -> base.HooksEnv:
        op, plan = self.op, self.plan
        env = instance_env.BuildInstanceHookEnv(
            name=op.instance_name,
            primary_node=op.pnode,
            secondary_nodes=[],
            os_type=op.os_type,
            admin_up=op.start,
            disk_template=op.disk_template,
            nics=[
                (nic.ip, nic.mac, filled)
                for nic, filled in zip(plan.nics, plan.nics_filled, strict=True)
            ],
            disks=[(disk["size"], disk["mode"]) for disk in plan.disks],
            beparams=plan.be_filled,
            hvparams=plan.hv_filled,
            hypervisor=plan.hypervisor,
        )
        nodes = sorted({self.cfg.GetMasterNode(), op.pnode})
        return {"ADD_MODE": op.mode, **env}, nodes, nodes

    def CheckPrereq(self) -> None:
        op = self.op
        cluster = self.cfg.GetClusterInfo()
        if op.disk_template in constants.DTS_FILEBASED:
            self._CheckFileStorage()
        if op.disk_template == constants.DT_DISKLESS and op.disks:
            raise _Invalid("disks: given, but the disk template is 'diskless'")
        self.plan = self._MakePlan(cluster)
        if op.ip_check and self.name_ip is not None:
            instance_checks.CheckAddressFree(
                self.name_ip, op.instance_name, "--no-ip-check creates the instance all the same"
            )
        self._CheckNode()
        # Last, so that nothing is reserved for an instance that is refused.
        for index, nic in enumerate(self.plan.nics):
            nic.mac = nics.ResolveMac(self, f"nic/{index}", nic.mac)
        self.dry_run_result = [op.pnode]

    def _GetStorageDir(self) -> str:
        """Base directory of the files of the disk template; empty if there is none."""
        if self.op.disk_template == constants.DT_SHARED_FILE:
            return self.cfg.GetSharedFileStorageDir()
        return self.cfg.GetFileStorageDir() or ""

    def _CheckFileStorage(self) -> None:
        op, top = self.op, self._GetStorageDir()
        if not pathutils.ENABLE_FILE_STORAGE or not top:
            advice = ""
            if op.disk_template == constants.DT_SHARED_FILE:
                advice = (
                    ": 'gnt-cluster modify --shared-file-storage-dir' names the directory that all"
                    " nodes share"
                )
            raise _Invalid(
                f"Disk template {op.disk_template!r} is disabled in this cluster{advice}"
            )
        if not op.disks:
            raise _Invalid(f"disks: none given for the disk template {op.disk_template!r}")
        relative = op.file_storage_dir or ""
        if not (os.path.normpath(os.path.join(top, relative)) + "/").startswith(top + "/"):
            raise _Invalid(f"file_storage_dir {relative!r} leads out of {top}")

    def _MakePlan(self, cluster: objects.Cluster) -> _Plan:
        op = self.op
        hypervisor = op.hypervisor or cluster.enabled_hypervisors[0]
        if hypervisor not in cluster.enabled_hypervisors:
            raise errors.OpPrereqError(
                f"Hypervisor {hypervisor!r} is not enabled in the cluster, only"
                f" {', '.join(cluster.enabled_hypervisors)}",
                errors.ECODE_STATE,
            )
        global_names = sorted(set(op.hvparams) & constants.HVC_GLOBALS)
        if global_names:
            raise _Invalid(
                f"hvparams: {', '.join(global_names)} can only be set for the whole cluster"
            )
        hvparams = base.ForceTypes("hvparams", op.hvparams, constants.HVS_PARAMETER_TYPES)
        hv_defaults = cluster.GetHVDefaults(hypervisor, op.os_type)
        hv_filled = objects.FillDict(hv_defaults, hvparams)
        instance_checks.CheckHvParamsSyntax(hypervisor, hv_filled)
        beparams = base.ForceTypes("beparams", op.beparams, constants.BES_PARAMETER_TYPES)
        be_defaults = cluster.beparams[constants.PP_DEFAULT]
        be_filled = objects.FillDict(be_defaults, beparams)
        instance_checks.CheckBeParams("beparams", be_filled)
        nic_defaults = cluster.nicparams[constants.PP_DEFAULT]
        new_nics, filled_nics = [], []
        for index, settings in enumerate(op.nics):
            nic, filled = nics.BuildNewNic(
                f"nic/{index}", settings, nic_defaults, self.name_ip, first=index == 0
            )
            new_nics.append(nic)
            filled_nics.append(filled)
        disks = self.disks
        if op.identify_defaults:
            hvparams = DropDefaults(hvparams, hv_defaults)
            beparams = DropDefaults(beparams, be_defaults)
            for nic in new_nics:
                nic.nicparams = DropDefaults(nic.nicparams, nic_defaults)
            disk_defaults = cluster.SimpleFillDisk(None)
            disks = [DropDefaults(disk, disk_defaults) for disk in self.disks]
        return _Plan(
            hypervisor, hvparams, beparams, hv_filled, be_filled, new_nics, filled_nics, disks
        )

    def _CheckNode(self) -> None:
        op, plan = self.op, self.plan
        node = base.GetNode(self, op.pnode)
        for flag in ("offline", "drained"):
            if getattr(node, flag):
                raise errors.OpPrereqError(
                    f"The primary node {op.pnode} is {flag}: choose another one",
                    errors.ECODE_STATE,
                )
        instance_checks.CheckHvParamsOnNodes(self, [op.pnode], plan.hypervisor, plan.hv_filled)
        instance_checks.CheckNodeHasOs(self, op.pnode, op.os_type, op.force_variant)
        instance_checks.CheckNicBridges(self, plan.nics_filled, op.pnode)
        disk_ops.CheckDisksAbsent(self, op.pnode, self._MakeDisks())
        if op.start:
            instance_checks.CheckNodeFreeMemory(
                self,
                op.pnode,
                f"creating instance {op.instance_name}",
                plan.be_filled[constants.BE_MEMORY],
                plan.hypervisor,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        op, plan = self.op, self.plan
        sizes = ", ".join(f"{disk['size']} MiB" for disk in plan.disks)
        values = {
            "OS": op.os_type,
            "hypervisor": plan.hypervisor,
            "memory": f"{plan.be_filled[constants.BE_MEMORY]} MiB",
            "vcpus": plan.be_filled[constants.BE_VCPUS],
            f"{op.disk_template} disks": sizes or "none",
        }
        lines = []
        if plan.hypervisor in constants.HTS_REQ_PORT:
            lines.append(announce.OfCluster("a port is taken for it"))
        name = op.instance_name
        lines.append(announce.OfInstance(name, f"added with {announce.FormatValues(values)}"))
        for index, filled in enumerate(plan.nics_filled):
            given = op.nics[index].get(constants.INIC_MAC, constants.VALUE_AUTO).lower()
            generated = given in (constants.VALUE_AUTO, constants.VALUE_GENERATE)
            nic = {
                "mac": "(a new one)" if generated else plan.nics[index].mac,
                "ip": plan.nics[index].ip or constants.VALUE_NONE,
                **filled,
            }
            what = f"nic/{index} with {announce.FormatValues(nic)}"
            lines.append(announce.OfInstance(name, what))
        instance = self._MakeInstance(None)
        lines += disk_ops.DescribeForDisks(instance, "create")
        if instance.disks and not op.no_install:
            what = f"run the create scripts of the OS {op.os_type}"
            lines += announce.OnNodes([op.pnode], what)
        if op.start:
            lines += announce.OnNodes([op.pnode], "start it")
        return lines

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[str]:
        op, plan = self.op, self.plan
        with Rollback(feedback_fn) as undo:
            port = None
            if plan.hypervisor in constants.HTS_REQ_PORT:
                port = self.cfg.AllocatePort()
                undo.Add(f"give port {port} back", self.cfg.AddTcpUdpPort, port)
            instance = self._MakeInstance(port)
            # From its first try on: a device that failed half way is removed as well.
            undo.Add("remove the disks", disk_ops.RemoveDisks, self, instance)
            feedback_fn("* creating instance disks...")
            disk_ops.CreateDisks(self, instance)
            feedback_fn(f"adding instance {op.instance_name} to cluster config")
            self.cfg.AddInstance(instance, self.proc.GetECId())
            undo.Commit()
        # It is in the configuration: the lock of its name stays, and its nodes are for others.
        del self.remove_locks[locking.LEVEL_INSTANCE]
        base.ReleaseLocks(self, locking.LEVEL_NODE)
        self._WaitForDisks(instance, feedback_fn)
        with Rollback(feedback_fn) as undo:
            undo.Add("shut down the disks", disk_ops.ShutdownDisks, self, instance)
            self._InstallOs(instance, feedback_fn)
        if not op.start:
            disk_ops.ShutdownDisks(self, instance)
        else:
            self.cfg.MarkInstanceUp(op.instance_name)
            feedback_fn("* starting instance...")
            instance = base.GetInstance(self, op.instance_name)
            instance_operation.StartInstance(self, instance, None)
        return [op.pnode]

    def _MakeDisks(self) -> list[objects.Disk]:
        op = self.op
        top = self._GetStorageDir()
        directory = os.path.normpath(os.path.join(top, op.file_storage_dir or "", op.instance_name))
        return disk_ops.GenerateDiskTemplate(
            self,
            op.disk_template,
            op.instance_name,
            op.pnode,
            [],
            self.plan.disks,
            directory,
            op.file_driver,
        )

    def _MakeInstance(self, port: int | None) -> objects.Instance:
        op, plan = self.op, self.plan
        return objects.Instance(
            tags=set(),
            name=op.instance_name,
            os=op.os_type,
            primary_node=op.pnode,
            nics=plan.nics,
            disks=self._MakeDisks(),
            disk_template=op.disk_template,
            admin_up=False,
            network_port=port,
            beparams=plan.beparams,
            hvparams=plan.hvparams,
            hypervisor=plan.hypervisor,
        )

    def _WaitForDisks(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> None:
        if not self.op.wait_for_sync:
            return
        with Rollback(feedback_fn) as undo:
            # Whatever ends the wait, a user who does not want to wait any more included.
            undo.Add(
                "remove the instance",
                instance_operation.RemoveInstance,
                self,
                feedback_fn,
                instance,
                True,
            )
            if not disk_ops.WaitForSync(self, instance):
                raise errors.OpExecError(
                    f"There are degraded disks, so {instance.name} is removed again"
                )
            undo.Commit()

    def _InstallOs(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> None:
        op = self.op
        if instance.disk_template == constants.DT_DISKLESS or op.no_install:
            return
        feedback_fn("* running the instance OS create scripts...")
        self.rpc.call_instance_os_add(op.pnode, instance, False, op.debug_level).Raise(
            f"OS {op.os_type} could not be installed for instance {op.instance_name} on node"
            f" {op.pnode}; the instance is there, but without it"
        )


LOGICAL_UNITS: Final = {opcodes.OpInstanceCreate: LUInstanceCreate}
