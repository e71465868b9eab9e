"""Changing the disk template of an instance that is down: from plain to drbd, and back.

The data of the primary node stays where it is, under another name. Until the configuration has the
new disks, whatever fails is undone; from then on they are what counts.
"""

from __future__ import annotations

from typing import Final

from .. import constants, errors, objects
from ..utils.rollback import Rollback
from . import announce, base, disk_ops, instance_checks
from .disk_names import DeviceName, GetRemoval

#: What can become what.
CONVERSIONS: Final = frozenset(
    [
        (constants.DT_PLAIN, constants.DT_DRBD8),
        (constants.DT_DRBD8, constants.DT_PLAIN),
    ]
)


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def CheckArguments(template: str | None, remote_node: str | None, disks: bool) -> None:
    """Check what was asked for by itself; pure.

    @param disks: are there changes of disks, too?
    @raise errors.OpPrereqError: C{wrong_input}
    """
    if template is None:
        if remote_node is not None:
            raise _Invalid("remote_node goes with a change of the disk template only")
        return
    if disks:
        raise _Invalid("disks and disk_template can not be changed at the same time")
    if template not in {new for _, new in CONVERSIONS}:
        raise _Invalid(f"disk_template: instances can not be converted to {template}")
    if template == constants.DT_DRBD8 and remote_node is None:
        raise _Invalid("disk_template: drbd needs a secondary node, remote_node (-n NODE)")
    if template != constants.DT_DRBD8 and remote_node is not None:
        raise _Invalid(f"disk_template: {template} has no secondary, so remote_node is wrong")


def CheckConversion(
    lu: base.LogicalUnit, instance: objects.Instance, template: str, remote_node: str | None
) -> None:
    """Check a conversion against the instance and its nodes.

    @raise errors.OpPrereqError: it can not be made
    """
    if template == instance.disk_template:
        raise _Invalid(f"Instance {instance.name} has the disk template {template} already")
    if (instance.disk_template, template) not in CONVERSIONS:
        raise _Invalid(
            f"Instance {instance.name} has the disk template {instance.disk_template}, which can"
            f" not be converted to {template}"
        )
    primary = instance.primary_node
    base.CheckNodeOnline(lu, primary)
    instance_checks.CheckInstanceDown(lu, instance, "can not change its disk template")
    if remote_node is None:
        return
    if remote_node == primary:
        raise errors.OpPrereqError(
            f"Node {remote_node} is the primary node of instance {instance.name}: its secondary"
            " must be another one",
            errors.ECODE_STATE,
        )
    base.CheckNodeOnline(lu, remote_node)
    base.CheckNodeNotDrained(lu, remote_node)
    needed = disk_ops.ComputeDiskSize(template, [disk.size for disk in instance.disks])
    assert needed is not None
    instance_checks.CheckNodesFreeDisk(lu, [remote_node], needed)
    meta = len(instance.disks) * constants.DRBD_META_SIZE
    instance_checks.CheckNodesFreeDisk(lu, [primary], meta)


def DescribeChanges(
    instance: objects.Instance, template: str, remote_node: str | None
) -> list[announce.Change]:
    """What a conversion would do, for a dry run; pure."""
    name, primary = instance.name, [instance.primary_node]
    names = announce.FormatNames([str(disk.iv_name) for disk in instance.disks])
    ports = len(instance.disks)
    lines = [announce.OfInstance(name, f"disk_template {instance.disk_template} -> {template}")]
    if template == constants.DT_DRBD8:
        assert remote_node is not None
        what = "a port is" if ports == 1 else f"{ports} ports are"
        return [
            *lines,
            announce.OfCluster(f"{what} taken for it"),
            *announce.OnNodes(primary, f"rename the volumes of {names}, create what mirrors them"),
            *announce.OnNodes([remote_node], f"create {names}, and copy them from the primary"),
        ]
    what = "a port becomes" if ports == 1 else f"{ports} ports become"
    return [
        *lines,
        announce.OfCluster(f"{what} free"),
        *disk_ops.DescribeForDisks(instance, "assemble, look at and shut down"),
        *announce.OnNodes(instance.secondary_nodes, f"remove {names}"),
        *announce.OnNodes(primary, f"remove what mirrors {names}"),
    ]


def Convert(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    template: str,
    remote_node: str | None,
    undo: Rollback,
    feedback_fn: base.FeedbackFn,
) -> Conversion:
    """Make the new disks, in the object too; the caller stores it, and calls C{Finish()} then.

    @param undo: gets what undoes it
    @raise errors.OpExecError: it can not be done
    """
    make = ToDrbd if template == constants.DT_DRBD8 else ToPlain
    conversion = make(lu, instance, undo, feedback_fn)
    conversion.Make(remote_node)
    return conversion


class Conversion:
    """A conversion under way; see the module."""

    def __init__(
        self,
        lu: base.LogicalUnit,
        instance: objects.Instance,
        undo: Rollback,
        feedback_fn: base.FeedbackFn,
    ) -> None:
        self._lu = lu
        self._rpc = lu.rpc
        self._instance = instance
        self._undo = undo
        self._feedback = feedback_fn

    def Make(self, remote_node: str | None) -> None:
        """Make what can be undone."""
        raise NotImplementedError

    def Finish(self) -> None:
        """Make the rest, once the configuration has the new disks."""
        raise NotImplementedError

    def _IsThere(self, volume: objects.Disk, node: str) -> bool:
        result = self._rpc.call_blockdev_find(node, disk_ops.ForNode(self._lu, volume, node))
        result.Raise(f"Node {node} can not tell whether it has {DeviceName(volume)}")
        return result.payload is not None

    def _Call(self, node: str, method: str, disk: objects.Disk) -> str | None:
        device = disk_ops.ForNode(self._lu, disk, node)
        problem: str | None = getattr(self._rpc, f"call_{method}")(node, device).fail_msg
        return problem


class ToDrbd(Conversion):
    """From plain to drbd: the volumes become the data of mirrors."""

    def Make(self, remote_node: str | None) -> None:
        lu, instance = self._lu, self._instance
        assert remote_node is not None
        if not disk_ops.ShutdownDisks(lu, instance):
            raise errors.OpExecError(
                f"The disks of instance {instance.name} can not be shut down, so that they can not"
                " be converted"
            )
        primary, old_disks = instance.primary_node, instance.disks
        self._feedback("Converting template to drbd")
        new_disks = disk_ops.GenerateDiskTemplate(
            lu,
            constants.DT_DRBD8,
            instance.name,
            primary,
            [remote_node],
            [{"size": d.size, "mode": d.mode, **(d.params or {})} for d in old_disks],
            "",
            None,
        )
        disk_ops.AddReleaseSteps(lu, self._undo, instance.name, new_disks)
        pairs = []
        for old, new in zip(old_disks, new_disks, strict=True):
            assert new.children is not None
            data = new.children[0]
            # Renaming does not move anything to another volume group.
            data.logical_id = (old.logical_id[0], data.logical_id[1])
            new.uuid = old.uuid
            pairs.append((old, data))
        self._feedback("Creating additional volumes...")
        for new in new_disks:
            assert new.children is not None
            data, meta = new.children
            for node, volume in ((primary, meta), (remote_node, data), (remote_node, meta)):
                self._undo.Add(f"remove {DeviceName(volume)}", self._Remove, volume, node)
                self._Create(volume, node, False)
        self._feedback("Renaming original volumes...")
        self._undo.Add("give the volumes their names back", self._RenameBack, pairs)
        self._Rename(pairs)
        self._feedback("Initializing DRBD devices...")
        for new in new_disks:
            for node in (primary, remote_node):
                self._undo.Add(f"shut down {new.iv_name} on {node}", self._Shutdown, new, node)
                self._Create(new, node, node == primary)
        for new in new_disks:
            lu.cfg.SetDiskID(new, primary)
        instance.disk_template = constants.DT_DRBD8
        instance.disks = new_disks

    def Finish(self) -> None:
        lu, instance = self._lu, self._instance
        try:
            if not disk_ops.WaitForSync(lu, instance):
                raise errors.OpExecError(
                    f"Instance {instance.name} has mirrored disks now, but they are degraded: look"
                    f" at them with 'gnt-instance activate-disks' and 'gnt-instance info"
                    f" {instance.name}'; 'gnt-instance replace-disks -s {instance.name}' makes the"
                    " secondary's again"
                )
        finally:
            disk_ops.ShutdownDisks(lu, instance)

    def _Create(self, device: objects.Disk, node: str, on_primary: bool) -> None:
        sent = disk_ops.ForNode(self._lu, device, node)
        name = self._instance.name
        info = f"originstname+{name}"
        self._rpc.call_blockdev_create(node, sent, sent.size, name, on_primary, info).Raise(
            f"{DeviceName(device)} can not be created on node {node}"
        )

    def _Rename(self, pairs: list[tuple[objects.Disk, objects.Disk]]) -> None:
        lu, node = self._lu, self._instance.primary_node
        result = self._rpc.call_blockdev_rename(
            node, [(disk_ops.ForNode(lu, old, node), new.logical_id) for old, new in pairs]
        )
        if not result.fail_msg:
            return
        if any(self._IsThere(old, node) or not self._IsThere(new, node) for old, new in pairs):
            result.Raise(f"The volumes of {self._instance.name} can not be renamed on node {node}")
        lu.LogWarning(
            "The volumes could not be renamed on node %s (%s), but they have their new names",
            node,
            result.fail_msg,
        )

    # The way back

    def _RenameBack(self, pairs: list[tuple[objects.Disk, objects.Disk]]) -> None:
        node = self._instance.primary_node
        problems = []
        for old, new in pairs:
            try:
                if not self._IsThere(old, node):
                    self._Rename([(new, old)])
            except errors.OpExecError as err:
                names = f"{DeviceName(new)} {DeviceName(old).rpartition('/')[2]}"
                problems.append(f"{err}; if it has the new name: lvrename {names}")
        if problems:
            raise errors.OpExecError("; ".join(problems))

    def _Shutdown(self, disk: objects.Disk, node: str) -> None:
        problem = self._Call(node, "blockdev_shutdown", disk)
        if problem:
            raise errors.OpExecError(
                f"/dev/drbd{_GetMinor(disk, node)} can not be shut down on node {node}: {problem}"
            )

    def _Remove(self, volume: objects.Disk, node: str) -> None:
        problem = self._Call(node, "blockdev_remove", volume)
        if problem:
            raise errors.OpExecError(
                f"{problem}; remove it on node {node} by hand: {GetRemoval(volume)}"
            )


class ToPlain(Conversion):
    """From drbd to plain: of the mirrors, only the data on the primary node stays."""

    def Make(self, remote_node: str | None) -> None:
        instance = self._instance
        self._feedback("Converting template to plain")
        self._CheckData()
        self._old = instance.disks
        instance.disks = [_GetPlain(disk) for disk in self._old]
        instance.disk_template = constants.DT_PLAIN

    def _CheckData(self) -> None:
        """Is the data of the primary good? That of the other node will be gone.

        @raise errors.OpExecError: not as far as can be seen
        """
        lu, instance = self._lu, self._instance
        primary = instance.primary_node
        try:
            disk_ops.AssembleDisks(lu, instance, ignore_secondaries=True)
            for disk in instance.disks:
                if not disk_ops.CheckDiskConsistency(lu, disk, primary, True, ldisk=True):
                    raise errors.OpExecError(
                        f"The data of disk {disk.iv_name} on the primary node {primary} is not"
                        " known to be good, and it is what would be kept; nothing was changed. If"
                        f" that on {', '.join(instance.secondary_nodes)} is, use"
                        " 'gnt-instance failover' first"
                    )
        finally:
            down = disk_ops.ShutdownDisks(lu, instance)
        if not down and not self._IsDownOnPrimary():
            raise errors.OpExecError(
                f"The disks of instance {instance.name} can not be shut down on node {primary};"
                " nothing was changed"
            )

    def _IsDownOnPrimary(self) -> bool:
        """Failures on the other node do not matter: its part is removed."""
        node = self._instance.primary_node
        return not any(self._IsThere(disk, node) for disk in self._instance.disks)

    def Finish(self) -> None:
        lu, instance = self._lu, self._instance
        primary = instance.primary_node
        self._feedback("Removing volumes on the secondary node...")
        for disk in self._old:
            for node in disk.GetNodes(primary):
                if node != primary:
                    self._Remove(disk, node)
        self._feedback("Removing unneeded volumes on the primary node...")
        for disk in self._old:
            assert disk.children is not None
            self._Remove(disk.children[1], primary)
        for disk in self._old:
            lu.cfg.AddTcpUdpPort(disk.logical_id[2])

    def _Remove(self, disk: objects.Disk, node: str) -> None:
        device = disk_ops.ForNode(self._lu, disk, node)
        result = self._rpc.call_blockdev_remove(node, device)
        if result.fail_msg:
            self._lu.LogWarning(
                "Could not remove %s on node %s: %s",
                DeviceName(disk),
                node,
                result.fail_msg,
                hint=f"Remove it there by hand: {GetRemoval(device)}",
            )


def _GetPlain(disk: objects.Disk) -> objects.Disk:
    """The volume that has the data of a mirror, as a disk of its own."""
    assert disk.children is not None
    plain = disk.children[0].Copy()
    plain.iv_name, plain.mode, plain.size = disk.iv_name, disk.mode, disk.size
    plain.uuid = disk.uuid
    plain.params = {**(disk.params or {}), **(plain.params or {})} or None
    return plain


def _GetMinor(disk: objects.Disk, node: str) -> int:
    return int(disk.logical_id[3 if disk.logical_id[0] == node else 4])
