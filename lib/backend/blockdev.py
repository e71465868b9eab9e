"""Calls about block devices: recursion over the tree of a disk, children first.

What a single device does is in L{storage}; nothing here knows kinds of devices, except by the rules
of L{objects.Disk}.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from .. import constants, errors, objects, storage
from ..storage.base import BlockDev
from ..utils import io
from . import disklinks
from .base import Fail
from .devcache import DevCacheManager

#: Disk and new identity.
Rename = tuple[objects.Disk, Sequence[Any]]


def RecursiveFindBD(disk: objects.Disk) -> BlockDev | None:
    """The device of a disk if it is there, with its children; nothing is activated.

    @raise errors.BlockDeviceError: it can't be looked for
    """
    children = [RecursiveFindBD(child) for child in disk.children or []]
    return storage.FindDevice(disk.dev_type, _Identity(disk), children, disk.size)


def OpenRealBD(disk: objects.Disk) -> BlockDev:
    """The device of a disk, which must be there, opened for writing.

    @raise errors.BlockDeviceError: it is not
    """
    device = RecursiveFindBD(disk)
    if device is None:
        raise errors.BlockDeviceError(f"Block device {_Show(disk)} is not set up")
    device.Open()
    return device


def _Identity(disk: objects.Disk) -> Sequence[Any]:
    # Kinds that are named alike on all nodes may come without the node's own form.
    return disk.physical_id if disk.physical_id is not None else disk.logical_id


def _Show(disk: objects.Disk) -> str:
    name = f"{disk.iv_name} " if disk.iv_name else ""
    return f"{name}({'/'.join(map(str, _Identity(disk)))})"


def _Find(disk: objects.Disk) -> BlockDev:
    """The device of a disk.

    @raise RPCFail: it is missing, or can't be looked for
    """
    try:
        device = RecursiveFindBD(disk)
    except errors.BlockDeviceError as err:
        Fail(f"Can't find block device {_Show(disk)}: {err}", exc_info=True)
    if device is None:
        Fail(f"Can't find block device {_Show(disk)}")
    return device


# Making and activating


def BlockdevCreate(disk: objects.Disk, owner: str, on_primary: bool, info: str) -> Any:
    """Make a device on top of its children, which must exist.

    @param owner: name of the instance
    @param info: text for the device's metadata
    @return: its identity on this node
    @raise RPCFail: that failed
    """
    try:
        device = _Create(disk, owner, on_primary)
        device.SetInfo(info)
    except errors.BlockDeviceError as err:
        Fail(f"Can't create block device {_Show(disk)}: {err}", exc_info=True)
    return device.unique_id


def _Create(disk: objects.Disk, owner: str, on_primary: bool) -> BlockDev:
    active = on_primary or disk.AssembleOnSecondary()
    children: list[BlockDev | None] = []
    for child in disk.children or []:
        device = RecursiveAssembleBD(child, owner, on_primary)
        if isinstance(device, BlockDev):
            if active:
                # Must be writable for its parent's metadata.
                device.Open()
            children.append(device)
    device = storage.Create(disk.dev_type, _Identity(disk), children, disk.size, disk.params)
    if active:
        device.Assemble()
        device.SetSyncSpeed(constants.SYNC_SPEED)
        if on_primary or disk.OpenOnSecondary():
            device.Open(force=True)
        DevCacheManager().UpdateCache(device.dev_path, owner, on_primary, disk.iv_name)
    return device


def RecursiveAssembleBD(disk: objects.Disk, owner: str, as_primary: bool) -> BlockDev | bool:
    """Activate a device, its children first.

    Children that fail are done without as long as the disk needs no more of them.

    @return: the device; True if there is nothing to activate on a secondary node
    @raise errors.BlockDeviceError: that failed
    """
    wanted = disk.children or []
    needed = disk.ChildrenNeeded()
    allowed_missing = 0 if needed == -1 else len(wanted) - needed
    children: list[BlockDev | None] = []
    for child in wanted:
        try:
            device = RecursiveAssembleBD(child, owner, as_primary)
        except errors.BlockDeviceError as err:
            if children.count(None) >= allowed_missing:
                raise
            logging.error("Going on without child %s of %s: %s", _Show(child), _Show(disk), err)
            children.append(None)
        else:
            children.append(device if isinstance(device, BlockDev) else None)
    if not (as_primary or disk.AssembleOnSecondary()):
        return True
    device = storage.Assemble(disk.dev_type, _Identity(disk), children, disk.size)
    device.SetSyncSpeed(constants.SYNC_SPEED)
    if as_primary or disk.OpenOnSecondary():
        device.Open()
    DevCacheManager().UpdateCache(device.dev_path, owner, as_primary, disk.iv_name)
    return device


def BlockdevAssemble(disk: objects.Disk, owner: str, as_primary: bool) -> str | bool | None:
    """Activate a device.

    @return: its path; True if there is nothing to activate on a secondary node
    @raise RPCFail: that failed
    """
    try:
        device = RecursiveAssembleBD(disk, owner, as_primary)
    except errors.BlockDeviceError as err:
        Fail(f"Can't assemble block device {_Show(disk)}: {err}", exc_info=True)
    return device.dev_path if isinstance(device, BlockDev) else device


# Deactivating and removing


def BlockdevShutdown(disk: objects.Disk) -> None:
    """Deactivate a device and then its children.

    @raise RPCFail: with everything that failed
    """
    problems = _ShutdownTree(disk)
    if problems:
        Fail("; ".join(problems))


def _ShutdownTree(disk: objects.Disk) -> list[str]:
    problems = []
    try:
        device = RecursiveFindBD(disk)
        if device is not None:
            path = device.dev_path
            device.Shutdown()
            DevCacheManager().RemoveCache(path)
    except errors.BlockDeviceError as err:
        problems.append(f"Can't shut down block device {_Show(disk)}: {err}")
    for child in disk.children or []:
        problems.extend(_ShutdownTree(child))
    return problems


def BlockdevRemove(disk: objects.Disk) -> None:
    """Destroy a device and then its children; missing ones are fine.

    @raise RPCFail: with everything that failed
    """
    problems = _RemoveTree(disk)
    if problems:
        Fail("; ".join(problems))


def _RemoveTree(disk: objects.Disk) -> list[str]:
    problems = []
    try:
        device = RecursiveFindBD(disk)
    except errors.BlockDeviceError as err:
        logging.info("Can't look for block device %s, taken as removed: %s", _Show(disk), err)
        device = None
    if device is not None:
        path = device.dev_path
        try:
            device.Remove()
        except errors.BlockDeviceError as err:
            problems.append(f"Can't remove block device {_Show(disk)}: {err}")
        else:
            DevCacheManager().RemoveCache(path)
    for child in disk.children or []:
        problems.extend(_RemoveTree(child))
    return problems


def BlockdevClose(instance_name: str, disks: Sequence[objects.Disk]) -> None:
    """Close devices; with the name of an instance also remove its disk links.

    @raise RPCFail: a device is missing, or with everything that failed
    """
    devices = [_Find(disk) for disk in disks]
    problems = []
    for device in devices:
        try:
            device.Close()
        except errors.BlockDeviceError as err:
            problems.append(str(err))
    if problems:
        Fail(f"Can't close devices: {'; '.join(problems)}")
    if instance_name:
        disklinks.RemoveLinks(instance_name, disks)


# Changing


def BlockdevRename(devices: Sequence[Rename]) -> None:
    """Give devices new identities.

    @raise RPCFail: with everything that failed
    """
    problems = []
    for disk, new_id in devices:
        try:
            device = RecursiveFindBD(disk)
            if device is None:
                problems.append(f"Can't find block device {_Show(disk)}")
                continue
            old_path = device.dev_path
            device.Rename(new_id)
            if device.dev_path != old_path:
                DevCacheManager().RemoveCache(old_path)
        except errors.BlockDeviceError as err:
            problems.append(f"Can't rename block device {_Show(disk)}: {err}")
    if problems:
        Fail("; ".join(problems))


def BlockdevGrow(disk: objects.Disk, amount: int) -> None:
    """Make a device bigger by that many MiB.

    @raise RPCFail: it is missing, or can't grow
    """
    device = _Find(disk)
    try:
        device.Grow(amount)
    except errors.BlockDeviceError as err:
        Fail(f"Can't grow block device {_Show(disk)}: {err}", exc_info=True)


def BlockdevAddchildren(parent: objects.Disk, new_disks: Sequence[objects.Disk]) -> None:
    """Add components to a mirrored device.

    @raise RPCFail: a device is missing, or refuses
    """
    device = _Find(parent)
    new_devices = [_Find(disk) for disk in new_disks]
    try:
        device.AddChildren(new_devices)
    except errors.BlockDeviceError as err:
        Fail(f"Can't add to block device {_Show(parent)}: {err}", exc_info=True)


def BlockdevRemovechildren(parent: objects.Disk, disks: Sequence[objects.Disk]) -> None:
    """Take components off a mirrored device; where their paths are fixed, they may be gone.

    @raise RPCFail: a device is missing, or refuses
    """
    device = _Find(parent)
    try:
        device.RemoveChildren([_ChildPath(disk) for disk in disks])
    except errors.BlockDeviceError as err:
        Fail(f"Can't remove from block device {_Show(parent)}: {err}", exc_info=True)


def _ChildPath(disk: objects.Disk) -> str:
    path = disk.StaticDevPath()
    if path is None:
        path = _Find(disk).dev_path
    if path is None or not io.IsNormAbsPath(path):
        Fail(f"Block device {_Show(disk)} has no usable path: {path!r}")
    return path


def BlockdevSnapshot(disk: objects.Disk) -> str:
    """Freeze the content of a disk in a new volume; for a mirror that of its local data.

    @return: name of the volume
    @raise RPCFail: there is nothing that can be frozen
    """
    if disk.dev_type == constants.LD_DRBD8:
        if not disk.children:
            Fail(f"DRBD device {_Show(disk)} has no local data to make a snapshot of")
        return BlockdevSnapshot(disk.children[0])
    device = _Find(disk)
    try:
        return device.Snapshot(disk.size)
    except errors.BlockDeviceError as err:
        Fail(f"Can't make a snapshot of {_Show(disk)}: {err}", exc_info=True)


# Looking


def BlockdevFind(disk: objects.Disk) -> objects.BlockDevStatus | None:
    """Condition of a device; None if it is not there.

    @raise RPCFail: it can't be looked for
    """
    try:
        device = RecursiveFindBD(disk)
        return None if device is None else device.GetSyncStatus()
    except errors.BlockDeviceError as err:
        Fail(f"Can't find block device {_Show(disk)}: {err}", exc_info=True)


def BlockdevGetmirrorstatus(disks: Sequence[objects.Disk]) -> list[objects.BlockDevStatus]:
    """Condition of each disk, merged with that of its children.

    @raise RPCFail: one is missing, or can't be read
    """
    devices = [_Find(disk) for disk in disks]
    try:
        return [device.CombinedSyncStatus() for device in devices]
    except errors.BlockDeviceError as err:
        Fail(f"Can't get the status of block devices: {err}", exc_info=True)


def BlockdevGetsize(disks: Sequence[objects.Disk]) -> list[int | None]:
    """Size of each disk in bytes; None for one that is missing or can't be measured."""
    sizes: list[int | None] = []
    for disk in disks:
        try:
            device = RecursiveFindBD(disk)
            sizes.append(None if device is None else device.GetActualSize())
        except errors.BlockDeviceError as err:
            logging.error("Can't get the size of %s: %s", _Show(disk), err)
            sizes.append(None)
    return sizes
