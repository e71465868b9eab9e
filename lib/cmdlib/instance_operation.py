"""Logical units of an instance's life: startup, shutdown, reboot, reinstall, rename, remove."""

from __future__ import annotations

import os
from typing import Any, Final

from .. import constants, errors, hvconsole, locking, objects, opcodes
from ..utils import net
from ..utils.rollback import Rollback
from . import announce, base, disk_ops, instance_checks, instance_env


class _InstanceLU(base.LogicalUnit):
    """Locks the instance alone; hooks run on the master and on all nodes of the instance."""

    HTYPE = constants.HTYPE_INSTANCE

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()

    def _GetInstance(self) -> objects.Instance:
        return base.GetInstance(self, self.op.instance_name)

    def _ExtraEnv(self) -> dict[str, Any]:
        """Variables beyond those of every instance."""
        return {}

    def _DescribeStatus(self, admin_up: bool) -> list[announce.Change]:
        instance = self._GetInstance()
        new = instance.Copy()
        new.admin_up = admin_up
        return announce.Between(instance, new)

    def BuildHooksEnv(self) -> base.HooksEnv:
        instance = self._GetInstance()
        env = instance_env.BuildInstanceHookEnvByObject(self, instance)
        nodes = sorted({self.cfg.GetMasterNode(), *instance.all_nodes})
        return {**self._ExtraEnv(), **env}, nodes, nodes


class LUInstanceStartup(_InstanceLU):
    """Start an instance."""

    HPATH = "instance-start"

    def _ExtraEnv(self) -> dict[str, Any]:
        return {"FORCE": self.op.force}

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        cluster = self.cfg.GetClusterInfo()
        beparams = base.ForceTypes("beparams", self.op.beparams, constants.BES_PARAMETER_TYPES)
        hvparams = base.ForceTypes("hvparams", self.op.hvparams, constants.HVS_PARAMETER_TYPES)
        if hvparams:
            filled = objects.FillDict(cluster.FillHV(instance), hvparams)
            instance_checks.CheckHvParamsSyntax(instance.hypervisor, filled)
            instance_checks.CheckHvParamsOnNodes(
                self, sorted(instance.all_nodes), instance.hypervisor, filled
            )
        be_filled = objects.FillDict(cluster.FillBE(instance), beparams)
        instance_checks.CheckBeParams("beparams", be_filled)
        base.CheckNodeOnline(self, instance.primary_node)
        instance_checks.CheckAtHome(self, instance)
        instance_checks.CheckInstanceBridges(self, instance, instance.primary_node)
        node = instance.primary_node
        result = self.rpc.call_instance_info(node, instance.name, instance.hypervisor)
        result.Raise(
            f"Node {node} can not tell whether {instance.name} runs",
            prereq=True,
            ecode=errors.ECODE_ENVIRON,
        )
        if not result.payload:
            memory = be_filled[constants.BE_MEMORY]
            instance_checks.CheckNodeFreeMemory(
                self, node, f"starting instance {instance.name}", memory, instance.hypervisor
            )
        self.one_shot = hvparams, beparams
        self.runs = bool(result.payload)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        lines = self._DescribeStatus(True)
        lines += disk_ops.DescribeForDisks(instance, "assemble")
        values = {key: value for part in self.one_shot for key, value in part.items()}
        what = "start it (which does nothing: it runs already)" if self.runs else "start it"
        if values and not self.runs:
            what += f", this time with {announce.FormatValues(values)}"
        return lines + announce.OnNodes([instance.primary_node], what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        self.cfg.MarkInstanceUp(self.op.instance_name)
        instance = self._GetInstance()
        StartInstance(self, instance, self.op.force, *self.one_shot)


def StartInstance(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    force: bool | None,
    hvp: dict[str, Any] | None = None,
    bep: dict[str, Any] | None = None,
) -> None:
    """Activate the disks of an instance and start it on its primary node.

    @param force: failures on secondaries do not count
    @param hvp: hypervisor parameters for this start only
    @param bep: backend parameters for this start only
    @raise errors.OpExecError: it did not start; its disks are down again
    """
    disk_ops.StartDisks(lu, instance, force)
    result = lu.rpc.call_instance_start(instance.primary_node, instance, hvp, bep)
    if result.fail_msg:
        disk_ops.ShutdownDisks(lu, instance)
        raise errors.OpExecError(
            f"Instance {instance.name} could not be started on {instance.primary_node}:"
            f" {result.fail_msg}"
        )


class LUInstanceShutdown(_InstanceLU):
    """Stop an instance."""

    HPATH = "instance-stop"

    def _ExtraEnv(self) -> dict[str, Any]:
        return {"TIMEOUT": self.op.timeout}

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        base.CheckNodeOnline(self, instance.primary_node)
        instance_checks.CheckAtHome(self, instance)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        what = f"shut it down, if it runs; what takes longer than {self.op.timeout} s is killed"
        return [
            *self._DescribeStatus(False),
            *announce.OnNodes([instance.primary_node], what),
            *disk_ops.DescribeForDisks(instance, "shut down"),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        self.cfg.MarkInstanceDown(self.op.instance_name)
        instance = self._GetInstance()
        result = self.rpc.call_instance_shutdown(instance.primary_node, instance, self.op.timeout)
        if result.fail_msg:
            self.LogWarning("Instance could not be shut down: %s", result.fail_msg)
        disk_ops.ShutdownDisks(self, instance)


class LUInstanceReboot(_InstanceLU):
    """Reboot an instance: by the guest, by its hypervisor, or with its disks."""

    HPATH = "instance-reboot"

    def _ExtraEnv(self) -> dict[str, Any]:
        return {
            "IGNORE_SECONDARIES": self.op.ignore_secondaries,
            "REBOOT_TYPE": self.op.reboot_type,
            "SHUTDOWN_TIMEOUT": self.op.shutdown_timeout,
        }

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        base.CheckNodeOnline(self, instance.primary_node)
        instance_checks.CheckAtHome(self, instance)
        instance_checks.CheckInstanceBridges(self, instance, instance.primary_node)

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        lines = self._DescribeStatus(True)
        node = [instance.primary_node]
        if self.op.reboot_type != constants.INSTANCE_REBOOT_FULL:
            return lines + announce.OnNodes(node, f"reboot it ({self.op.reboot_type})")
        limit = f"what takes longer than {self.op.shutdown_timeout} s is killed"
        return [
            *announce.OnNodes(node, f"shut it down; {limit}"),
            *disk_ops.DescribeForDisks(instance, "shut down and assemble"),
            *announce.OnNodes(node, "start it"),
            *lines,
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = self._GetInstance()
        node = instance.primary_node
        if self.op.reboot_type in (
            constants.INSTANCE_REBOOT_SOFT,
            constants.INSTANCE_REBOOT_HARD,
        ):
            for disk in instance.disks:
                self.cfg.SetDiskID(disk, node)
            self.rpc.call_instance_reboot(
                node, instance, self.op.reboot_type, self.op.shutdown_timeout
            ).Raise("Instance could not be rebooted")
        else:
            self.rpc.call_instance_shutdown(node, instance, self.op.shutdown_timeout).Raise(
                "Instance could not be shut down for a full reboot"
            )
            disk_ops.ShutdownDisks(self, instance)
            StartInstance(self, instance, self.op.ignore_secondaries)
        self.cfg.MarkInstanceUp(instance.name)


class LUInstanceReinstall(_InstanceLU):
    """Install the OS of a stopped instance again, or another one."""

    HPATH = "instance-reinstall"

    def CheckPrereq(self) -> None:
        instance = self._GetInstance()
        base.CheckNodeOnline(self, instance.primary_node)
        if instance.disk_template == constants.DT_DISKLESS:
            raise errors.OpPrereqError(
                f"Instance {instance.name} has no disks to install an OS on", errors.ECODE_INVAL
            )
        instance_checks.CheckInstanceDown(self, instance, "can not reinstall")
        if self.op.os_type is not None:
            instance_checks.CheckNodeHasOs(
                self, instance.primary_node, self.op.os_type, self.op.force_variant
            )

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        new = instance.Copy()
        if self.op.os_type is not None:
            new.os = self.op.os_type
        what = f"run the create scripts of the OS {new.os}, which overwrite its disks"
        return [
            *announce.Between(instance, new),
            *disk_ops.DescribeForDisks(instance, "assemble"),
            *announce.OnNodes([instance.primary_node], what),
            *disk_ops.DescribeForDisks(instance, "shut down"),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = self._GetInstance()
        if self.op.os_type is not None:
            feedback_fn(f"Changing OS to {self.op.os_type}")
            instance.os = self.op.os_type
            self.cfg.Update(instance, feedback_fn)
        disk_ops.StartDisks(self, instance, None)
        try:
            feedback_fn("Running the instance OS create scripts...")
            self.rpc.call_instance_os_add(
                instance.primary_node, instance, True, self.op.debug_level
            ).Raise(
                f"OS {instance.os} could not be installed for instance {instance.name} on node"
                f" {instance.primary_node}"
            )
        finally:
            disk_ops.ShutdownDisks(self, instance)


class LUInstanceRename(_InstanceLU):
    """Give a stopped instance another name."""

    HPATH = "instance-rename"
    REQ_BGL = True

    def ExpandNames(self) -> None:
        # Alone: the lock of the new name must not exist yet, that of the old one goes.
        self.needed_locks = {}

    def _ExtraEnv(self) -> dict[str, Any]:
        return {"INSTANCE_NEW_NAME": self.op.new_name}

    def CheckPrereq(self) -> None:
        self.op.instance_name = base.ExpandInstanceName(self.cfg, self.op.instance_name)
        instance = self._GetInstance()
        base.CheckNodeOnline(self, instance.primary_node)
        instance_checks.CheckInstanceDown(self, instance, "can not rename it")
        host = net.GetHostInfo(self.op.new_name)
        self.op.new_name = host.name
        if host.name in self.cfg.GetInstanceList():
            raise errors.OpPrereqError(
                f"Instance {host.name} is in the cluster already", errors.ECODE_EXISTS
            )
        if not self.op.ignore_ip:
            instance_checks.CheckAddressFree(
                host.ip, host.name, "--no-ip-check renames all the same"
            )

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        node = [instance.primary_node]
        lines = [
            announce.OfInstance(instance.name, f"renamed to {self.op.new_name}"),
            announce.OfInstance(self.op.new_name, "takes over all of it but the name"),
        ]
        if instance.disk_template in constants.DTS_FILEBASED and instance.disks:
            old_dir, new_dir = self._GetDirectories(instance)
            lines += announce.OnNodes(node, f"rename {old_dir} to {new_dir}")
        return [
            *lines,
            *disk_ops.DescribeForDisks(instance, "assemble"),
            *announce.OnNodes(node, f"run the rename script of the OS {instance.os}"),
            *disk_ops.DescribeForDisks(instance, "shut down"),
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        old_name = self.op.instance_name
        with Rollback(feedback_fn) as undo:
            self._MoveDirectory(undo)
            self.cfg.RenameInstance(old_name, self.op.new_name)
            undo.Commit()
        self.context.glm.remove(locking.LEVEL_INSTANCE, old_name)
        self.context.glm.add(locking.LEVEL_INSTANCE, self.op.new_name)
        self.op.instance_name = self.op.new_name
        instance = self._GetInstance()
        node = instance.primary_node
        try:
            disk_ops.StartDisks(self, instance, None)
        except errors.OpExecError as err:
            raise errors.OpExecError(
                f"Instance {old_name} is {instance.name} now, but the rename script of its OS was"
                f" not run, so that its inside may have the old name: {err}"
            ) from err
        try:
            result = self.rpc.call_instance_run_rename(
                node, instance, old_name, self.op.debug_level
            )
            if result.fail_msg:
                self.LogWarning(
                    "The OS rename script of %s on %s failed (the instance has been renamed in the"
                    " cluster): %s",
                    instance.name,
                    node,
                    result.fail_msg,
                )
        finally:
            disk_ops.ShutdownDisks(self, instance)

    def _MoveDirectory(self, undo: Rollback) -> None:
        """Move the disk files to where the configuration will look for them.

        Before the configuration is changed: whatever fails then, the same command finishes it, for
        a directory that was moved already is fine.
        """
        instance = self._GetInstance()
        if instance.disk_template not in constants.DTS_FILEBASED or not instance.disks:
            return
        node = instance.primary_node
        old_dir, new_dir = self._GetDirectories(instance)
        # Before: it may be done without an answer.
        undo.Add("move the disk files back", self._MoveBack, node, new_dir, old_dir)
        self.rpc.call_file_storage_dir_rename(node, old_dir, new_dir).Raise(
            f"Directory {old_dir} on node {node} can not be renamed to {new_dir}; the instance has"
            " kept its name"
        )

    def _GetDirectories(self, instance: objects.Instance) -> tuple[str, str]:
        """Where the disk files are, and where they shall be."""
        old_dir = os.path.dirname(instance.disks[0].logical_id[1])
        return old_dir, os.path.join(os.path.dirname(old_dir), self.op.new_name)

    def _MoveBack(self, node: str, new_dir: str, old_dir: str) -> None:
        self.rpc.call_file_storage_dir_rename(node, new_dir, old_dir).Raise(
            f"Directory {new_dir} on node {node} can not be renamed back to {old_dir}"
        )


class LUInstanceRemove(_InstanceLU):
    """Shut an instance down and remove it with its disks."""

    HPATH = "instance-remove"

    def ExpandNames(self) -> None:
        self._ExpandAndLockInstance()
        assert self.needed_locks is not None
        self.needed_locks[locking.LEVEL_NODE] = []
        self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            self._LockInstancesNodes()

    def _ExtraEnv(self) -> dict[str, Any]:
        return {"SHUTDOWN_TIMEOUT": self.op.shutdown_timeout}

    def BuildHooksEnv(self) -> base.HooksEnv:
        env, _, post = super().BuildHooksEnv()
        return env, [self.cfg.GetMasterNode()], post

    def CheckPrereq(self) -> None:
        instance_checks.CheckAtHome(self, self._GetInstance())

    def DescribeChanges(self) -> list[announce.Change]:
        instance = self._GetInstance()
        limit = f"what takes longer than {self.op.shutdown_timeout} s is killed"
        lines = announce.OnNodes([instance.primary_node], f"shut it down, if it runs; {limit}")
        lines += disk_ops.DescribeForDisks(instance, "remove")
        if instance.network_port:
            lines.append(announce.OfCluster(f"port {instance.network_port} becomes free"))
        return [*lines, announce.OfInstance(instance.name, "removed")]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        instance = self._GetInstance()
        result = self.rpc.call_instance_shutdown(
            instance.primary_node, instance, self.op.shutdown_timeout
        )
        if result.fail_msg:
            if not self.op.ignore_failures:
                raise errors.OpExecError(
                    f"Instance {instance.name} could not be shut down on node"
                    f" {instance.primary_node}: {result.fail_msg} (--ignore-failures removes it all"
                    " the same)"
                )
            feedback_fn(f"Warning: the instance could not be shut down: {result.fail_msg}")
        RemoveInstance(self, feedback_fn, instance, self.op.ignore_failures)


def RemoveInstance(
    lu: base.LogicalUnit,
    feedback_fn: base.FeedbackFn,
    instance: objects.Instance,
    ignore_failures: bool,
) -> None:
    """Remove the disks of a stopped instance, then the instance.

    @raise errors.OpExecError: a disk could not be removed; the instance is still there
    """
    if not disk_ops.RemoveDisks(lu, instance):
        if not ignore_failures:
            # Nobody shall start it again with what is left of its disks.
            lu.cfg.MarkInstanceDown(instance.name)
            raise errors.OpExecError(
                f"Not all disks of {instance.name} could be removed; it is stopped, and the same"
                " command goes on from here (--ignore-failures removes the instance all the same)"
            )
        feedback_fn("Warning: not all disks could be removed")
    lu.cfg.RemoveInstance(instance.name)
    lu.remove_locks[locking.LEVEL_INSTANCE] = instance.name


class LUInstanceConsole(base.NoHooksLU):
    """Tell the command that connects to the console of a running instance."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        # Only looks: an operation on the instance need not keep its console away.
        self._ExpandAndLockInstance()
        self.share_locks[locking.LEVEL_INSTANCE] = 1

    def CheckPrereq(self) -> None:
        instance = base.GetInstance(self, self.op.instance_name)
        base.CheckNodeOnline(self, instance.primary_node)

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[str]:
        instance = base.GetInstance(self, self.op.instance_name)
        node = instance.primary_node
        result = self.rpc.call_instance_list([node], [instance.hypervisor])[node]
        result.Raise(f"Node {node} can not list its instances")
        if instance.name not in result.payload:
            raise errors.OpExecError(
                f"Instance {instance.name} does not run, so it has no console; start it with"
                f" 'gnt-instance startup {instance.name}'"
            )
        cluster = self.cfg.GetClusterInfo()
        command = hvconsole.GetShellCommand(instance.hypervisor, instance, cluster.FillHV(instance))
        return self.ssh.BuildCmd(node, constants.GANETI_RUNAS, command, batch=True, tty=True)


LOGICAL_UNITS: Final = {
    opcodes.OpInstanceStartup: LUInstanceStartup,
    opcodes.OpInstanceShutdown: LUInstanceShutdown,
    opcodes.OpInstanceReboot: LUInstanceReboot,
    opcodes.OpInstanceReinstall: LUInstanceReinstall,
    opcodes.OpInstanceRename: LUInstanceRename,
    opcodes.OpInstanceRemove: LUInstanceRemove,
    opcodes.OpInstanceConsole: LUInstanceConsole,
}
