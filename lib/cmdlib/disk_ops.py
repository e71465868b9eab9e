"""What operations do with the disks of an instance: create, assemble, shut down, remove, wait.

Each function works through all disks and all nodes they have a part on. What is sent to a node is a
copy made by L{ForNode}: with the physical ids of that node and with all parameters, for a node
knows no defaults. The caller holds the locks of instance and nodes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, objects
from ..utils.rollback import Rollback
from . import announce, base, disk_names

#: Seconds between two looks at a mirror that can not be asked, and how often it may fail in a row.
_SYNC_RETRY_DELAY: Final = 6.0
_SYNC_MAX_FAILURES: Final = 10
#: How often a degraded mirror is looked at again, a second apart, before that is believed.
_DEGRADED_RETRIES: Final = 10
_SYNC_MAX_DELAY: Final = 60.0
#: Seconds that the sides of a mirror get to see each other before one of them becomes primary, and
#: between two looks.
_CONNECT_LIMIT: Final = 10.0
_CONNECT_INTERVAL: Final = 0.5


def ComputeDiskSize(template: str, sizes: Sequence[int]) -> int | None:
    """MiB of the volume group that disks need on each of their nodes; None if none; pure."""
    if template == constants.DT_PLAIN:
        return sum(sizes)
    if template == constants.DT_DRBD8:
        return sum(size + constants.DRBD_META_SIZE for size in sizes)
    return None


def GenerateDiskTemplate(
    lu: base.LogicalUnit,
    template: str,
    instance_name: str,
    primary_node: str,
    secondary_nodes: Sequence[str],
    disk_info: Sequence[dict[str, Any]],
    file_storage_dir: str,
    file_driver: str | None,
    base_index: int = 0,
) -> list[objects.Disk]:
    """The disk objects of a new instance, or of a new disk of one.

    Names and secrets are reserved until the job ends. Ports and minors of mirrors are taken: if the
    disks do not get into the configuration, L{AddReleaseSteps} has them given back.

    @param disk_info: per disk C{size} (MiB), C{mode} and its own disk parameters
    @param file_storage_dir: directory of the disk files, for templates with files
    @param base_index: index of the first disk in the instance
    @raise errors.ConfigurationError: there are no ports left; nothing is taken then
    """
    if template == constants.DT_DISKLESS:
        return []
    wanted = 1 if template == constants.DT_DRBD8 else 0
    if len(secondary_nodes) != wanted:
        raise errors.ProgrammerError(
            f"Disks of {instance_name}: the template {template} needs {wanted} secondaries, not"
            f" {len(secondary_nodes)}"
        )
    indexed = list(enumerate(disk_info, base_index))
    if template in constants.DTS_FILEBASED:
        driver = file_driver or constants.FD_LOOP
        return [
            _NewDisk(
                constants.LD_FILE,
                (driver, os.path.join(file_storage_dir, f"disk{index}")),
                index,
                info,
            )
            for index, info in indexed
        ]
    if template == constants.DT_PLAIN:
        return [
            _NewDisk(
                constants.LD_LV, (lu.cfg.GetVGName(), f"{_NewId(lu)}.disk{index}"), index, info
            )
            for index, info in indexed
        ]
    if template == constants.DT_DRBD8:
        return _GenerateMirrors(lu, instance_name, (primary_node, secondary_nodes[0]), indexed)
    raise errors.ProgrammerError(f"There is no disk template {template!r}")


def _NewId(lu: base.LogicalUnit) -> str:
    return lu.cfg.GenerateUniqueID(lu.proc.GetECId())


def _NewDisk(
    dev_type: str,
    logical_id: tuple[Any, ...],
    index: int,
    info: Mapping[str, Any],
    children: list[objects.Disk] | None = None,
) -> objects.Disk:
    return objects.Disk(
        dev_type=dev_type,
        size=info["size"],
        mode=info["mode"],
        iv_name=f"disk/{index}",
        logical_id=logical_id,
        children=children,
        params=GetOwnParams(info),
    )


def _GenerateMirrors(
    lu: base.LogicalUnit,
    instance_name: str,
    nodes: tuple[str, str],
    indexed: Sequence[tuple[int, Mapping[str, Any]]],
) -> list[objects.Disk]:
    vg_name, ec_id = lu.cfg.GetVGName(), lu.proc.GetECId()
    disks: list[objects.Disk] = []
    with Rollback() as undo:
        undo.Add("release the minors", lu.cfg.ReleaseDRBDMinors, instance_name)
        minors = lu.cfg.AllocateDRBDMinor(nodes * len(indexed), instance_name)
        for number, (index, info) in enumerate(indexed):
            port = lu.cfg.AllocatePort()
            undo.Add(f"give port {port} back", lu.cfg.AddTcpUdpPort, port)
            name = f"{_NewId(lu)}.disk{index}"
            parts = (("data", info["size"]), ("meta", constants.DRBD_META_SIZE))
            children = [
                objects.Disk(
                    dev_type=constants.LD_LV, size=size, logical_id=(vg_name, f"{name}_{part}")
                )
                for part, size in parts
            ]
            secret = lu.cfg.GenerateDRBDSecret(ec_id)
            logical_id = (*nodes, port, *minors[2 * number : 2 * number + 2], secret)
            disks.append(_NewDisk(constants.LD_DRBD8, logical_id, index, info, children))
    return disks


def AddReleaseSteps(
    lu: base.LogicalUnit, undo: Rollback, instance_name: str, disks: Sequence[objects.Disk]
) -> None:
    """Let what new disks have taken in the configuration be given back if the block fails."""
    mirrors = [disk for disk in disks if disk.dev_type in constants.LDS_DRBD]
    if mirrors:
        undo.Add("release the DRBD minors", lu.cfg.ReleaseDRBDMinors, instance_name)
    for disk in mirrors:
        port = disk.logical_id[2]
        undo.Add(f"give port {port} back", lu.cfg.AddTcpUdpPort, port)


def GetOwnParams(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The disk parameters among what was said of a disk; None if there are none; pure."""
    own = {key: settings[key] for key in settings if key in constants.DPS_PARAMETERS}
    return own or None


def ForNode(lu: base.LogicalUnit, disk: objects.Disk, node: str) -> objects.Disk:
    """A disk as a node gets it: a copy with its physical ids and all its parameters.

    What is below a disk has the disk's parameters. The disk itself gets the physical ids, too: it
    travels within its instance.
    """
    lu.cfg.SetDiskID(disk, node)
    cluster = lu.cfg.GetClusterInfo()
    copy = disk.Copy()
    for part in copy.IterTree():
        part.params = cluster.SimpleFillDisk({**(disk.params or {}), **(part.params or {})})
    return copy


def _SelectDisks(
    instance: objects.Instance, disks: Sequence[objects.Disk] | None
) -> list[objects.Disk]:
    if disks is None:
        return list(instance.disks)
    own = [id(disk) for disk in instance.disks]
    if any(id(disk) not in own for disk in disks):
        raise errors.ProgrammerError(f"Disks that are not of instance {instance.name}")
    return list(disks)


def DescribeForDisks(
    instance: objects.Instance, what: str, disks: Sequence[objects.Disk] | None = None
) -> list[announce.Change]:
    """What would be done with disks on all their nodes, for a dry run; pure.

    @param what: e.g. "assemble"
    @param disks: some of the instance's disks; default all
    """
    chosen = _SelectDisks(instance, disks)
    if not chosen:
        return []
    names = announce.FormatNames([str(disk.iv_name) for disk in chosen])
    return announce.OnNodes(instance.all_nodes, f"{what} {names}")


def _FileDirectory(instance: objects.Instance) -> str:
    path: str = instance.disks[0].logical_id[1]
    return os.path.dirname(path)


# Creation and removal


def CheckDisksAbsent(lu: base.LogicalUnit, node: str, disks: Sequence[objects.Disk]) -> None:
    """Check that a node has none of these disks: what is there is somebody's data.

    Without this look, undoing a creation that was refused would remove what it was refused for.

    @raise errors.OpPrereqError: C{already_exists}, or C{environment_error} if it can not tell
    """
    parts = [part for disk in disks for part in ForNode(lu, disk, node).IterTree()]
    for part in parts:
        if part.children:
            # Known by what is below it.
            continue
        result = lu.rpc.call_blockdev_find(node, part)
        where = "/".join(str(step) for step in part.logical_id[-2:])
        if part.dev_type == constants.LD_FILE:
            where = part.logical_id[1]
        result.Raise(
            f"Node {node} can not tell whether there is {where}",
            prereq=True,
            ecode=errors.ECODE_ENVIRON,
        )
        if result.payload is not None:
            name = part.iv_name or "a part of a disk"
            raise errors.OpPrereqError(
                f"Node {node} has {where} already, where {name} would be: if nobody needs its"
                " data, remove it there first",
                errors.ECODE_EXISTS,
            )


def CreateDisks(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    skip: Sequence[int] = (),
    target_node: str | None = None,
) -> None:
    """Create all disks of an instance on all its nodes; nothing is undone on failure.

    @param skip: indices of disks to leave out
    @param target_node: create there alone, as on the primary
    @raise errors.OpExecError: a device could not be created
    """
    primary = target_node or instance.primary_node
    nodes = [target_node] if target_node else [primary, *sorted(instance.secondary_nodes)]
    if instance.disk_template in constants.DTS_FILEBASED and instance.disks:
        directory = _FileDirectory(instance)
        result = lu.rpc.call_file_storage_dir_create(primary, directory)
        result.Raise(f"Directory {directory} can not be created on node {primary}")
    info = f"originstname+{instance.name}"
    for index, disk in enumerate(instance.disks):
        if index in skip:
            continue
        for node in nodes:
            on_primary = node == primary
            device = ForNode(lu, disk, node)
            _CreateBlockDev(lu, node, instance, device, on_primary, info, on_primary)


def _CreateBlockDev(
    lu: base.LogicalUnit,
    node: str,
    instance: objects.Instance,
    device: objects.Disk,
    force_create: bool,
    info: str,
    force_open: bool,
) -> None:
    """Create a device, as the node gets it, with its children first, if it is to exist there."""
    force_create = force_create or device.CreateOnSecondary()
    for child in device.children or []:
        _CreateBlockDev(lu, node, instance, child, force_create, info, force_open)
    if not force_create:
        return
    result = lu.rpc.call_blockdev_create(node, device, device.size, instance.name, force_open, info)
    result.Raise(
        f"Disk {device.iv_name or device.logical_id} of instance {instance.name} can not be"
        f" created on node {node}"
    )


def RemoveDisks(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    target_node: str | None = None,
    skip: Sequence[int] = (),
) -> bool:
    """Remove all disks of an instance, going on over failures, which are warned of.

    @param target_node: remove them there alone
    @param skip: indices of disks to leave alone
    @return: was everything removed?
    """
    ok = True
    for index, disk in enumerate(instance.disks):
        if index not in skip:
            ok = RemoveDisk(lu, disk, instance.primary_node, target_node) and ok
    if instance.disk_template in constants.DTS_FILEBASED and instance.disks and not skip:
        node = target_node or instance.primary_node
        directory = _FileDirectory(instance)
        result = lu.rpc.call_file_storage_dir_remove(node, directory)
        if result.fail_msg:
            lu.LogWarning(
                "Directory %s could not be removed on node %s: %s", directory, node, result.fail_msg
            )
            ok = False
    return ok


def RemoveDisk(
    lu: base.LogicalUnit, disk: objects.Disk, primary_node: str, target_node: str | None = None
) -> bool:
    """Remove one disk on all its nodes, going on over failures, which are warned of.

    @return: was everything removed?
    """
    ok = True
    tree = [(target_node, disk)] if target_node else disk.ComputeNodeTree(primary_node)
    for node, device in tree:
        result = lu.rpc.call_blockdev_remove(node, ForNode(lu, device, node))
        if result.fail_msg:
            lu.LogWarning(
                "Disk %s could not be removed on node %s: %s",
                disk.iv_name,
                node,
                result.fail_msg,
                hint=f"If it stays there, remove it by hand: {disk_names.GetRemoval(device)}",
            )
            ok = False
    return ok


# Activation


def AssembleDisks(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    disks: Sequence[objects.Disk] | None = None,
    ignore_secondaries: bool = False,
    ignore_size: bool = False,
) -> tuple[bool, list[tuple[str, str | None, Any]]]:
    """Make the disks usable on the primary node.

    First everywhere as on a secondary, then on the primary: the sides of a mirror see each other
    before one of them becomes primary, or have had some time for it.

    @param disks: some of the instance's disks; default all
    @param ignore_secondaries: failures of the first pass do not count
    @param ignore_size: let the nodes accept devices of another size
    @return: success, and (node, iv_name, device path or None) for each disk
    """
    chosen = _SelectDisks(instance, disks)
    ok = True
    device_info = []
    primary = instance.primary_node
    halves: list[objects.Disk] = []

    def Assemble(node: str, device: objects.Disk, on_primary: bool) -> Any:
        device = ForNode(lu, device, node)
        if ignore_size:
            device.UnsetSize()
        return lu.rpc.call_blockdev_assemble(node, device, instance.name, on_primary)

    for disk in chosen:
        for node, device in disk.ComputeNodeTree(primary):
            result = Assemble(node, device, False)
            if result.fail_msg:
                lu.LogWarning(
                    "Disk %s could not be prepared on node %s: %s",
                    disk.iv_name,
                    node,
                    result.fail_msg,
                )
                ok = ok and ignore_secondaries
                halves.append(disk)
    whole = [disk for disk in chosen if not any(disk is half for half in halves)]
    _WaitForConnection(lu, primary, whole)
    for disk in chosen:
        path = None
        for node, device in disk.ComputeNodeTree(primary):
            if node != primary:
                continue
            result = Assemble(node, device, True)
            if result.fail_msg:
                lu.LogWarning(
                    "Disk %s could not be activated on its primary node %s: %s",
                    disk.iv_name,
                    node,
                    result.fail_msg,
                )
                ok = False
            else:
                path = result.payload
        device_info.append((primary, disk.iv_name, path))
    for disk in chosen:
        # What is stored, and used by the next call, is the view of the primary.
        lu.cfg.SetDiskID(disk, primary)
    return ok, device_info


def _WaitForConnection(lu: base.LogicalUnit, primary: str, disks: Sequence[objects.Disk]) -> None:
    """Give the sides of mirrors time to see each other, but go on without, too."""
    mirrors = [disk for disk in disks if disk.dev_type in constants.LDS_DRBD]
    if not mirrors:
        return
    devices = [ForNode(lu, disk, primary) for disk in mirrors]
    clock = lu.context.runtime.clock
    deadline = clock.monotonic() + _CONNECT_LIMIT
    while True:
        result = lu.rpc.call_blockdev_getmirrorstatus(primary, devices)
        if result.fail_msg:
            # Whether the disks can be used will be seen without it.
            return
        alone = [
            str(disk.iv_name)
            for disk, status in zip(mirrors, result.payload, strict=False)
            if status is not None and status.is_degraded and status.sync_percent is None
        ]
        if not alone:
            return
        if clock.monotonic() >= deadline:
            lu.LogInfo("Going on without a mirror in sync for %s", ", ".join(alone))
            return
        clock.sleep(_CONNECT_INTERVAL)


def StartDisks(lu: base.LogicalUnit, instance: objects.Instance, force: bool | None) -> None:
    """Assemble all disks of an instance, or shut them down again.

    @param force: failures on secondaries do not count; None = they do, and no hint is given
    @raise errors.OpExecError: they could not be assembled
    """
    ok, _ = AssembleDisks(lu, instance, ignore_secondaries=bool(force))
    if ok:
        return
    ShutdownDisks(lu, instance)
    if force is False:
        lu.LogWarning("", hint="If the failure is on a secondary node, --force starts all the same")
    raise errors.OpExecError(f"The disks of instance {instance.name} can not be assembled")


def ShutdownDisks(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    disks: Sequence[objects.Disk] | None = None,
    ignore_primary: bool = False,
) -> bool:
    """Shut the disks down on all nodes, going on over failures, which are warned of.

    @param ignore_primary: failures on the primary node do not count
    @return: was everything that counts shut down?
    """
    ok = True
    for disk in _SelectDisks(instance, disks):
        for node, device in disk.ComputeNodeTree(instance.primary_node):
            result = lu.rpc.call_blockdev_shutdown(node, ForNode(lu, device, node))
            if result.fail_msg:
                lu.LogWarning(
                    "Disk %s could not be shut down on node %s: %s",
                    disk.iv_name,
                    node,
                    result.fail_msg,
                )
                if not (ignore_primary and node == instance.primary_node):
                    ok = False
    return ok


# Mirrors


def FindFaultyDisks(lu: base.LogicalUnit, instance: objects.Instance, node: str) -> list[int]:
    """Indices of the disks of an instance whose data on a node is bad.

    @raise errors.OpExecError: the node can not tell
    """
    devices = [ForNode(lu, disk, node) for disk in instance.disks]
    result = lu.rpc.call_blockdev_getmirrorstatus(node, devices)
    result.Raise(f"Node {node} can not tell the state of the disks of instance {instance.name}")
    return [
        index
        for index, status in enumerate(result.payload)
        if status is None or status.ldisk_status == constants.LDS_FAULTY
    ]


def CheckDiskConsistency(
    lu: base.LogicalUnit, disk: objects.Disk, node: str, on_primary: bool, ldisk: bool = False
) -> bool:
    """Is a disk, with all below it, in good condition on a node? If not, the job is told why.

    @param on_primary: is the node the primary? If not, what is on primaries only is not looked at
    @param ldisk: of a mirror only the data on this node has to be good, not that of its peer; all
        below has to be good altogether in any case
    """
    return _CheckDeviceConsistency(lu, ForNode(lu, disk, node), node, on_primary, ldisk)


def _CheckDeviceConsistency(
    lu: base.LogicalUnit, device: objects.Disk, node: str, on_primary: bool, ldisk: bool
) -> bool:
    """As L{CheckDiskConsistency}, for a device as the node gets it."""
    consistent = True
    if on_primary or device.AssembleOnSecondary():
        name = device.iv_name or device.logical_id
        result = lu.rpc.call_blockdev_find(node, device)
        status = result.payload
        if result.fail_msg:
            lu.LogWarning(
                "Node %s can not tell the state of disk %s: %s", node, name, result.fail_msg
            )
            consistent = False
        elif status is None:
            lu.LogWarning("Node %s has no disk %s, or it is not active", node, name)
            consistent = False
        elif ldisk:
            consistent = status.ldisk_status == constants.LDS_OKAY
        else:
            consistent = not status.is_degraded
    for child in device.children or ():
        consistent = _CheckDeviceConsistency(lu, child, node, on_primary, False) and consistent
    return consistent


def WaitForSync(
    lu: base.LogicalUnit,
    instance: objects.Instance,
    disks: Sequence[objects.Disk] | None = None,
    oneshot: bool = False,
) -> bool:
    """Wait until the mirrors of an instance are in sync; a job that waits here can be cancelled.

    @param oneshot: look once and do not wait for a running synchronisation
    @return: is no disk degraded?
    @raise errors.RemoteError: the node could not be asked for too long
    """
    chosen = _SelectDisks(instance, disks)
    if not chosen:
        return True
    if not oneshot:
        lu.LogInfo("Waiting for instance %s to sync disks", instance.name)
    node = instance.primary_node
    devices = [ForNode(lu, disk, node) for disk in chosen]
    clock = lu.context.runtime.clock
    failures = 0
    degraded_retries = _DEGRADED_RETRIES
    while True:
        lu.CheckCancel()
        result = lu.rpc.call_blockdev_getmirrorstatus(node, devices)
        problem = result.fail_msg
        if not problem and len(result.payload) != len(devices):
            problem = f"it answered for {len(result.payload)} disks instead of {len(devices)}"
        if problem:
            failures += 1
            lu.LogWarning("Node %s can not tell the state of the disks: %s", node, problem)
            if failures >= _SYNC_MAX_FAILURES:
                raise errors.RemoteError(f"Node {node} can not be asked for the state of the disks")
            clock.sleep(_SYNC_RETRY_DELAY)
            continue
        failures = 0
        done, degraded, estimate = _ReportSync(lu, node, chosen, result.payload)
        if (done or oneshot) and degraded and degraded_retries > 0:
            degraded_retries -= 1
            clock.sleep(1)
            continue
        if done or oneshot:
            break
        clock.sleep(min(_SYNC_MAX_DELAY, max(1.0, estimate)))
    if done:
        lu.LogInfo("Instance %s's disks are in sync", instance.name)
    return not degraded


def _ReportSync(
    lu: base.LogicalUnit,
    node: str,
    disks: Sequence[objects.Disk],
    statuses: Sequence[objects.BlockDevStatus | None],
) -> tuple[bool, bool, float]:
    """Tell how far the disks are.

    @return: is none syncing, is one degraded without syncing, seconds until the last one is done
    """
    done, degraded, estimate = True, False, 0.0
    for disk, status in zip(disks, statuses, strict=True):
        if status is None:
            lu.LogWarning("Node %s can not tell the state of disk %s", node, disk.iv_name)
            continue
        if status.sync_percent is None:
            degraded = degraded or bool(status.is_degraded)
            continue
        done = False
        if status.estimated_time is None:
            remaining = "no time estimate"
        else:
            remaining = f"{status.estimated_time} estimated seconds remaining"
            estimate = max(estimate, status.estimated_time)
        lu.LogInfo("- device %s: %5.2f%% done, %s", disk.iv_name, status.sync_percent, remaining)
    return done, degraded, estimate
