"""What devices are called in messages, so that an operator finds them on a node; pure."""

from __future__ import annotations

from .. import constants, objects


def DeviceName(disk: objects.Disk) -> str:
    """C{vg/lv}, the path of a file, or C{disk/N}."""
    if disk.dev_type == constants.LD_LV:
        return "/".join(disk.logical_id)
    if disk.dev_type == constants.LD_FILE:
        return str(disk.logical_id[1])
    return str(disk.iv_name)


def StoreNames(disk: objects.Disk) -> list[str]:
    """Names of the volumes or files that a disk consists of."""
    return [DeviceName(part) for part in disk.IterTree() if not part.children]


def GetRemoval(disk: objects.Disk) -> str:
    """What removes a disk by hand on a node.

    @param disk: with the physical ids of that node
    """
    command = "rm" if disk.dev_type == constants.LD_FILE else "lvremove"
    removal = " ".join([command, *StoreNames(disk)])
    if disk.dev_type in constants.LDS_DRBD and disk.physical_id is not None:
        return f"if /dev/drbd{disk.physical_id[4]} is in use shut it down, then {removal}"
    return removal
