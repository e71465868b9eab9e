"""What gives instances space on this node: block devices, file disks and storage units.

A device climbs a ladder: not existing -> (Create) existing -> (Assemble) active -> (Open) ready
for I/O, and back by Close, Shutdown and Remove. One class a kind of device; this module is the
table that finds the class.

All sizes are MiB unless a function says bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from .base import BlockDev

#: Kind of device -> (module, class); None: known, but this release has no code for it.
_CLASSES: Final[dict[str, tuple[str, str] | None]] = {
    constants.LD_FILE: ("filestorage", "FileStorage"),
    constants.LD_LV: ("logicalvolume", "LogicalVolume"),
    constants.LD_DRBD8: None,
}

__all__ = ["Assemble", "BlockDev", "Create", "FindDevice", "GetDeviceClass", "Preload"]


def GetDeviceClass(dev_type: str) -> type[BlockDev]:
    """Class of a kind of device.

    @raise errors.ProgrammerError: there is no such kind
    @raise errors.BlockDeviceError: it is not available on this node
    """
    if dev_type not in _CLASSES:
        raise errors.ProgrammerError(
            f"Invalid block device type {dev_type!r}; known are {', '.join(sorted(_CLASSES))}"
        )
    entry = _CLASSES[dev_type]
    if entry is None:
        raise errors.BlockDeviceError(f"Block devices of type {dev_type!r} are not implemented")
    if dev_type == constants.LD_FILE and not constants.ENABLE_FILE_STORAGE:
        raise errors.BlockDeviceError("File storage was disabled when this suite was built")
    module_name, class_name = entry
    module = importlib.import_module("." + module_name, __name__)
    cls: type[BlockDev] = getattr(module, class_name)
    return cls


def FindDevice(
    dev_type: str,
    unique_id: Sequence[Any],
    children: Sequence[BlockDev | None],
    size: int,
) -> BlockDev | None:
    """The device if it is there and active, else None; never changes anything."""
    device = GetDeviceClass(dev_type)(unique_id, children, size)
    return device if device.attached else None


def Assemble(
    dev_type: str,
    unique_id: Sequence[Any],
    children: Sequence[BlockDev | None],
    size: int,
) -> BlockDev:
    """Bring a device up from its children.

    @raise errors.BlockDeviceError: it can not be brought up
    """
    device = GetDeviceClass(dev_type)(unique_id, children, size)
    device.Assemble()
    return device


def Create(
    dev_type: str,
    unique_id: Sequence[Any],
    children: Sequence[BlockDev | None],
    size: int,
    params: Mapping[str, Any] | None = None,
) -> BlockDev:
    """Make a new device.

    @param params: parameters of the disk (C{constants.DPS_PARAMETERS}); the kinds that have no use
        for one ignore it
    @raise errors.BlockDeviceError: it exists already, or can not be made
    """
    return GetDeviceClass(dev_type).Create(unique_id, children, size, params=params)


def Preload() -> None:
    """Import every kind now: nothing can be imported once the system disk has failed."""
    for entry in _CLASSES.values():
        if entry is not None:
            importlib.import_module("." + entry[0], __name__)
