"""Creating instances: new ones, and those of an export.

What is decided without asking anybody is in L{create_plan} and L{create_import}, what is special
about the disks of a new instance in L{create_disks}, what a dry run tells in L{create_report}.
"""

from __future__ import annotations

import os
from typing import Any, Final

from .. import constants, errors, iallocator, locking, objects, opcodes, pathutils
from ..utils import net
from ..utils.rollback import Rollback
from . import (
    announce,
    base,
    create_disks,
    create_import,
    create_plan,
    create_report,
    disk_ops,
    instance_checks,
    instance_env,
    instance_operation,
    nics,
)

#: Seconds that mirrors get to begin with their synchronisation, if nobody waits for its end.
_SYNC_START: Final = 15.0


class LUInstanceCreate(base.LogicalUnit):
    """Create an instance, install its OS or import its disks, and start it.

    Once it is in the configuration it stays, whatever happens, unless its disks get no redundancy.
    """

    HPATH = "instance-add"
    HTYPE = constants.HTYPE_INSTANCE

    # Arguments and locks

    def CheckArguments(self) -> None:
        op = self.op
        self.importing = op.mode == constants.INSTANCE_IMPORT
        if op.no_install and op.start:
            self.LogInfo("No-installation mode selected, disabling startup")
            op.start = False
        op.instance_name = net.HostInfo.NormalizeName(op.instance_name)
        if op.ip_check and not op.name_check:
            raise create_plan.Invalid(
                "ip_check needs name_check: without it there is no address to check"
            )
        create_plan.CheckSettingTypes(op.disks, op.nics)
        self.adopting = create_plan.CheckAdoption(
            op.disks, op.disk_template, op.iallocator, op.mode
        )
        self.name_ip: str | None = None
        if op.name_check:
            host = net.GetHostInfo(op.instance_name)
            op.instance_name, self.name_ip = host.name, host.ip
        if op.file_storage_dir and os.path.isabs(op.file_storage_dir):
            raise create_plan.Invalid(
                f"file_storage_dir must be relative to that of the cluster, not"
                f" {op.file_storage_dir!r}"
            )
        if op.pnode is not None and op.iallocator is not None:
            raise create_plan.Invalid(
                "Exactly one of a primary node and an allocator must be given, not both"
            )
        if not self.importing or op.disk_template is not None:
            op.snode = self._CheckSecondary(op.disk_template, op.snode)
        if self.importing:
            if op.no_install:
                self.LogInfo("No-installation mode has no effect during an import")
        elif op.os_type is None:
            raise create_plan.Invalid("os_type is missing: the OS to install")
        elif op.disk_template is None:
            raise create_plan.Invalid("disk_template is missing")
        else:
            create_plan.CheckOsName(op.os_type)
        create_plan.CheckDiskSettings(op.disks, adopting=self.adopting)
        create_plan.CheckNicSettings(op.nics)

    def _CheckSecondary(self, template: str | None, snode: str | None) -> str | None:
        """The secondary node that was named, if there is to be one."""
        if create_plan.NeedsSecondary(template, self.op.pnode, snode):
            if snode is None or self.op.pnode is not None:
                return snode
            why = "the allocator chooses it"
        else:
            why = "only mirrored disks have one"
        if snode is not None:
            self.LogWarning("The secondary node %s is ignored: %s", snode, why)
        return None

    def ExpandNames(self) -> None:
        op, name = self.op, self.op.instance_name
        if self.cfg.GetInstanceInfo(name) is not None:
            raise errors.OpPrereqError(
                f"Instance '{name}' is already in the cluster", errors.ECODE_EXISTS
            )
        self.add_locks[locking.LEVEL_INSTANCE] = name
        self.allocating = self._IsToAllocate()
        self.src_node: str | None = None
        wanted: Any = []
        if self.allocating:
            wanted = locking.ALL_SET
        else:
            op.pnode = base.ExpandNodeName(self.cfg, op.pnode)
            wanted.append(op.pnode)
            if op.snode is not None:
                op.snode = base.ExpandNodeName(self.cfg, op.snode)
                wanted.append(op.snode)
        self.pnode, self.snode = op.pnode, op.snode
        if self.importing:
            if op.src_node is not None:
                op.src_node = self.src_node = base.ExpandNodeName(self.cfg, op.src_node)
            self.src_path = create_import.CheckSourcePath(
                op.src_path, op.src_node, name, pathutils.EXPORT_DIR
            )
            if self.src_node is None:
                wanted = locking.ALL_SET
            elif wanted is not locking.ALL_SET:
                wanted.append(self.src_node)
        elif op.disk_template == constants.DT_DISKLESS and not self.allocating:
            # It takes nothing of its node that others, at the same time, could take as well.
            self.share_locks[locking.LEVEL_NODE] = 1
        self.needed_locks = {locking.LEVEL_NODE: wanted}

    def _IsToAllocate(self) -> bool:
        """Is an allocator asked for the nodes?"""
        if self.op.pnode is not None:
            return False
        if self.op.iallocator is not None:
            return True
        if self.adopting:
            raise create_plan.Invalid("pnode is missing: the node that has the volumes to adopt")
        try:
            iallocator.GetScripts(self.cfg, None, constants.IALLOCATOR_MODE_ALLOC)
        except errors.OpPrereqError as err:
            raise create_plan.Invalid(
                f"Exactly one of a primary node and an allocator must be given: {err.args[0]}"
            ) from err
        return True

    # Checks

    def CheckPrereq(self) -> None:
        op = self.op
        request = self._ImportRequest() if self.importing else self._GetRequest()
        create_disks.CheckTemplate(
            self, request.disk_template, len(request.disks), op.file_storage_dir
        )
        self.plan = create_plan.MakePlan(
            request, self.cfg.GetClusterInfo(), self.name_ip, bool(op.identify_defaults)
        )
        if self.importing:
            for index, mac in create_import.TakeMacs(self.plan.nics, self.export, op.instance_name):
                self.plan.nics[index].mac = nics.NormalizeMac(f"nic/{index}", mac)
        if op.ip_check and self.name_ip is not None:
            instance_checks.CheckAddressFree(
                self.name_ip, op.instance_name, "--no-ip-check creates the instance all the same"
            )
        self.new_macs = [
            nic.mac in (constants.VALUE_AUTO, constants.VALUE_GENERATE) for nic in self.plan.nics
        ]
        # Given back when the job ends, as all that is reserved here.
        for index, nic in enumerate(self.plan.nics):
            nic.mac = nics.ResolveMac(self, f"nic/{index}", nic.mac)
        if self.allocating:
            self._Allocate()
        self.nodes = [self.pnode] + ([self.snode] if self.snode is not None else [])
        self._CheckNodes()
        self.dry_run_result = self.nodes

    def _GetRequest(self) -> create_plan.Request:
        op = self.op
        return create_plan.Request(
            os_type=op.os_type,
            disk_template=op.disk_template,
            disks=create_plan.CheckDiskSettings(op.disks, adopting=self.adopting),
            nics=op.nics,
            hypervisor=op.hypervisor,
            hvparams=op.hvparams,
            beparams=op.beparams,
        )

    def _ImportRequest(self) -> create_plan.Request:
        """What is wanted, with what the export says where the user does not."""
        if self.src_node is None:
            answers = self.rpc.call_export_list(sorted(self.acquired_locks[locking.LEVEL_NODE]))
            listed = {
                node: None if result.fail_msg else result.payload
                for node, result in answers.items()
            }
            self.src_node = create_import.FindExport(listed, self.src_path)
            self.src_path = os.path.join(pathutils.EXPORT_DIR, self.src_path)
        base.CheckNodeOnline(self, self.src_node)
        result = self.rpc.call_export_info(self.src_node, self.src_path)
        result.Raise(f"No export in {self.src_path} on node {self.src_node}")
        self.export = objects.ParseExport(result.payload)
        self.src_images = create_import.ListImages(self.export, self.src_path)
        request, notes = create_import.FillRequest(self.op, self.export)
        for note in notes:
            self.LogWarning("%s", note)
        create_plan.CheckOsName(request.os_type)
        create_plan.CheckNicSettings(request.nics)
        if self.op.disk_template is None:
            self.snode = self._CheckSecondary(request.disk_template, self.snode)
        return request

    def _Allocate(self) -> None:
        """Let an allocator choose the nodes."""
        op, plan = self.op, self.plan
        chosen = iallocator.Choose(
            self,
            op.iallocator,
            constants.IALLOCATOR_MODE_ALLOC,
            name=op.instance_name,
            disk_template=plan.disk_template,
            disks=plan.disks,
            nics=plan.nics,
            os=plan.os_type,
            memory=plan.be_filled[constants.BE_MEMORY],
            vcpus=plan.be_filled[constants.BE_VCPUS],
            tags=[],
            hypervisor=plan.hypervisor,
        )
        self.pnode = chosen[0]
        self.snode = chosen[1] if len(chosen) > 1 else None

    def _CheckNodes(self) -> None:
        """Check that the nodes can have the instance."""
        op, plan, pnode = self.op, self.plan, self.pnode
        self._CheckNodeRole("primary", pnode, errors.ECODE_STATE)
        if self.snode is not None:
            if self.snode == pnode:
                raise create_plan.Invalid(
                    f"The secondary node must be another one than the primary, {pnode}"
                )
            self._CheckNodeRole("secondary", self.snode, errors.ECODE_INVAL)
        if self.adopting:
            names = [disk[constants.IDISK_ADOPT] for disk in plan.disks]
            sizes = create_disks.CheckVolumes(self, pnode, names)
            for disk, size in zip(plan.disks, sizes, strict=True):
                disk[constants.IDISK_SIZE] = size
        else:
            needed = disk_ops.ComputeDiskSize(
                plan.disk_template, [disk[constants.IDISK_SIZE] for disk in plan.disks]
            )
            if needed:
                instance_checks.CheckNodesFreeDisk(self, self.nodes, needed)
        instance_checks.CheckHvParamsOnNodes(self, self.nodes, plan.hypervisor, plan.hv_filled)
        force_variant = op.force_variant or self.importing
        instance_checks.CheckNodeHasOs(self, pnode, plan.os_type, force_variant)
        instance_checks.CheckNicBridges(self, plan.nics_filled, pnode)
        if plan.disk_template in constants.DTS_FILEBASED:
            # Others have names that nobody else can have.
            disk_ops.CheckDisksAbsent(self, pnode, self._NewDisks())
        if op.start:
            instance_checks.CheckNodeFreeMemory(
                self,
                pnode,
                f"creating instance {op.instance_name}",
                plan.be_filled[constants.BE_MEMORY],
                plan.hypervisor,
            )

    def _CheckNodeRole(self, role: str, name: str, ecode: str) -> None:
        node = base.GetNode(self, name)
        for flag in ("offline", "drained"):
            if getattr(node, flag):
                raise errors.OpPrereqError(
                    f"The {role} node {name} is {flag}: choose another one", ecode
                )

    # What is told of it

    def BuildHooksEnv(self) -> base.HooksEnv:
        op, plan = self.op, self.plan
        env = instance_env.BuildInstanceHookEnv(
            name=op.instance_name,
            primary_node=self.pnode,
            secondary_nodes=self.nodes[1:],
            os_type=plan.os_type,
            admin_up=op.start,
            disk_template=plan.disk_template,
            nics=[
                (nic.ip, nic.mac, filled)
                for nic, filled in zip(plan.nics, plan.nics_filled, strict=True)
            ],
            disks=[(disk["size"], disk["mode"]) for disk in plan.disks],
            beparams=plan.be_filled,
            hvparams=plan.hv_filled,
            hypervisor=plan.hypervisor,
        )
        if self.importing:
            env["SRC_NODE"] = self.src_node
            env["SRC_PATH"] = self.src_path
            env["SRC_IMAGES"] = self.src_images
        nodes = sorted({self.cfg.GetMasterNode(), *self.nodes})
        return {"ADD_MODE": op.mode, **env}, nodes, nodes

    def DescribeChanges(self) -> list[announce.Change]:
        op, plan = self.op, self.plan
        lines = create_report.DescribeObjects(op.instance_name, plan, self.new_macs)
        if self.adopting:
            lines += create_report.DescribeAdoption(self.pnode, plan)
        else:
            lines += create_report.DescribeCreation(self.nodes, plan)
        if self._HasDisksToFill():
            names = create_report.FormatDiskNames(plan)
            if self.importing:
                what = f"import {names} from {self.src_path} on {self.src_node}"
            else:
                what = f"run the create scripts of the OS {plan.os_type}"
            lines += announce.OnNodes([self.pnode], what)
        if op.start:
            lines += announce.OnNodes([self.pnode], "start it")
        return lines

    # Execution

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[str]:
        op = self.op
        with Rollback(feedback_fn) as undo:
            instance = self._MakeInstance(undo)
            self._MakeDisks(instance, undo, feedback_fn)
            feedback_fn(f"adding instance {op.instance_name} to cluster config")
            self.cfg.AddInstance(instance, self.proc.GetECId())
            undo.Commit()
        # It is in the configuration: the lock of its name stays, and its nodes are for others.
        del self.remove_locks[locking.LEVEL_INSTANCE]
        keep = [self.src_node] if self.src_node is not None else []
        base.ReleaseLocks(self, locking.LEVEL_NODE, keep=keep)
        self._WaitForDisks(instance, feedback_fn)
        start = op.start
        with Rollback(feedback_fn) as undo:
            undo.Add("shut down the disks", disk_ops.ShutdownDisks, self, instance)
            if not self._FillDisks(instance, feedback_fn) and start:
                self.LogWarning(
                    "Instance %s is not started, as its import failed", op.instance_name
                )
                start = False
        if not start:
            disk_ops.ShutdownDisks(self, instance)
        else:
            if not instance.admin_up:
                self.cfg.MarkInstanceUp(op.instance_name)
            feedback_fn("* starting instance...")
            instance = base.GetInstance(self, op.instance_name)
            instance_operation.StartInstance(self, instance, None)
        return self.nodes

    def _NewDisks(self) -> list[objects.Disk]:
        op, plan = self.op, self.plan
        return disk_ops.GenerateDiskTemplate(
            self,
            plan.disk_template,
            op.instance_name,
            self.pnode,
            self.nodes[1:],
            plan.disks,
            create_disks.GetDirectory(
                self, plan.disk_template, op.file_storage_dir, op.instance_name
            ),
            op.file_driver,
        )

    def _MakeInstance(self, undo: Rollback) -> objects.Instance:
        """The object, with all that it takes in the configuration."""
        op, plan = self.op, self.plan
        port = None
        if plan.hypervisor in constants.HTS_REQ_PORT:
            port = self.cfg.AllocatePort()
            undo.Add(f"give port {port} back", self.cfg.AddTcpUdpPort, port)
        disks = self._NewDisks()
        disk_ops.AddReleaseSteps(self, undo, op.instance_name, disks)
        return objects.Instance(
            tags=set(),
            name=op.instance_name,
            os=plan.os_type,
            primary_node=self.pnode,
            nics=plan.nics,
            disks=disks,
            disk_template=plan.disk_template,
            # Without disks there is nothing between here and its start.
            admin_up=op.start and not disks,
            network_port=port,
            beparams=plan.beparams,
            hvparams=plan.hvparams,
            hypervisor=plan.hypervisor,
        )

    def _MakeDisks(
        self, instance: objects.Instance, undo: Rollback, feedback_fn: base.FeedbackFn
    ) -> None:
        if self.adopting:
            names = self._GetAdopted()
            undo.Add("give the volumes back", create_disks.ReturnVolumes, self, instance, names)
            feedback_fn("* adopting volumes...")
            create_disks.AdoptVolumes(self, instance, names)
            return
        # From its first try on: a device that failed half way is removed as well.
        undo.Add("remove the disks", disk_ops.RemoveDisks, self, instance)
        feedback_fn("* creating instance disks...")
        disk_ops.CreateDisks(self, instance)

    def _GetAdopted(self) -> list[str]:
        return [disk[constants.IDISK_ADOPT] for disk in self.plan.disks]

    def _WaitForDisks(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> None:
        """Wait until mirrors are in sync, or at least on their way; else remove the instance."""
        wait = self.op.wait_for_sync
        if not wait and instance.disk_template not in constants.DTS_NET_MIRROR:
            return
        with Rollback(feedback_fn) as undo:
            # Whatever ends the wait, a user who does not want to wait any more included.
            undo.Add("remove the instance", self._RemoveAgain, instance, feedback_fn)
            if not wait:
                self.context.runtime.clock.sleep(_SYNC_START)
                feedback_fn("* checking mirrors status")
            if not disk_ops.WaitForSync(self, instance, oneshot=not wait):
                raise errors.OpExecError(
                    f"There are degraded disks, so {instance.name} is removed again"
                )
            undo.Commit()

    def _RemoveAgain(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> None:
        if not self.adopting:
            instance_operation.RemoveInstance(self, feedback_fn, instance, True)
            return
        # What is on adopted volumes was there before.
        try:
            create_disks.ReturnVolumes(self, instance, self._GetAdopted())
        finally:
            self.cfg.RemoveInstance(instance.name)
            self.remove_locks[locking.LEVEL_INSTANCE] = instance.name

    def _HasDisksToFill(self) -> bool:
        if not self.plan.disks or self.adopting:
            return False
        return self.importing or not self.op.no_install

    def _FillDisks(self, instance: objects.Instance, feedback_fn: base.FeedbackFn) -> bool:
        """Install the OS, or import the disks.

        @return: false if an import failed, of which the job is warned
        """
        op, plan = self.op, self.plan
        if not self._HasDisksToFill():
            return True
        if not self.importing:
            feedback_fn("* running the instance OS create scripts...")
            self.rpc.call_instance_os_add(self.pnode, instance, False, op.debug_level).Raise(
                f"OS {plan.os_type} could not be installed for instance {instance.name} on node"
                f" {self.pnode}; the instance is there, but without it ('gnt-instance reinstall"
                f" {instance.name}' tries again)"
            )
            return True
        feedback_fn("* running the instance OS import scripts...")
        result = self.rpc.call_instance_os_import(
            self.pnode,
            instance,
            self.src_node,
            self.src_images,
            self.cfg.GetClusterName(),
            op.debug_level,
        )
        if result.fail_msg:
            self.LogWarning(
                "The disks of instance %s could not be imported on node %s: %s",
                instance.name,
                self.pnode,
                result.fail_msg,
                hint="the instance is there, but without what was exported",
            )
        return not result.fail_msg


LOGICAL_UNITS: Final = {opcodes.OpInstanceCreate: LUInstanceCreate}
