"""Configuration files of Xen's C{xl}, as text. Pure functions.

The order of the lines and what they are called is that of Ganeti 2.1, which wrote for C{xm}, where
C{xl} still understands it. Different are:

- C{type} instead of C{builder}; the boot firmware of a hardware virtual machine is
  C{firmware_override}, since C{xl} takes C{kernel} as one to boot directly; C{device_model} is
  C{device_model_override} with a version
- disks of the driver blktap: there is no C{tap:aio} any more
- the CD drive has a place that no disk has
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors

#: Disks are named by one letter.
MAX_DISKS: Final = 24
#: Prefix of disk names of hardware virtual machines.
_HVM_PREFIX: Final = "hd"
#: Where the CD drive may be: emulated IDE has four places, the first two are for disks to boot.
_CDROM_PLACES: Final = (2, 3)
_VNC_BASE_PORT: Final = 5900
_HEADER: Final = "# This file is made by Ganeti when the instance starts; changes will be lost.\n"

#: In values of the configuration that are put together from parts.
_SPECIAL: Final = re.compile(r"[,\s=]")


@dataclass(frozen=True)
class DiskSpec:
    """A disk.

    @ivar path: device or file on the node
    @ivar driver: None for a device, else the driver of a file (C{constants.FD_*})
    """

    path: str
    driver: str | None = None
    writable: bool = True


@dataclass(frozen=True)
class NicSpec:
    """A network card.

    @ivar bridge: None for one that is routed, which the vif script of the site sees to
    """

    mac: str
    ip: str | None = None
    bridge: str | None = None


@dataclass(frozen=True)
class GuestSpec:
    """What both kinds of virtual machines have; memory is in MiB."""

    name: str
    memory: int
    vcpus: int
    disks: Sequence[DiskSpec] = ()
    nics: Sequence[NicSpec] = ()
    network_port: int | None = None


def Quote(value: str) -> str:
    """A text in single quotes.

    @raise errors.HypervisorError: it has control characters, for which C{xl} has no way of writing
      that works; the value is not told, it may be secret
    """
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise errors.HypervisorError(
            "A parameter has control characters (such as line breaks), which the configuration of"
            " Xen can't hold"
        )
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _List(items: Sequence[str]) -> str:
    return "[" + ", ".join(Quote(item) for item in items) + "]"


def _Part(value: str, what: str) -> str:
    """A value to be put between commas.

    @raise errors.HypervisorError: it would not stay in its place
    """
    if not value or _SPECIAL.search(value):
        raise errors.HypervisorError(
            f"{what} {value!r} can't be written into the configuration of Xen: it is empty or has"
            " blanks, commas or equals signs"
        )
    return value


# Disks


def _DiskName(prefix: str, index: int) -> str:
    return prefix + string.ascii_lowercase[index]


def _Disk(disk: DiskSpec, vdev: str, emulation: str) -> str:
    access = "w" if disk.writable else "r"
    if disk.driver == constants.FD_BLKTAP:
        # The target takes all the rest, whatever is in it.
        return f"format=raw, vdev={vdev}, access={access}, target={disk.path}"
    kind = "phy" if disk.driver is None else "file"
    return f"{kind}:{_Part(disk.path, 'The path of a disk')},{emulation}{vdev},{access}"


def Disks(disks: Sequence[DiskSpec], prefix: str, emulation: str = "") -> list[str]:
    """Entries of the list C{disk}.

    @param emulation: C{ioemu:} for emulated ones. For C{xl} each disk of a hardware virtual machine
      is emulated and paravirtual at once, so it makes no difference, and the form with keys does
      not know it.

    @raise errors.HypervisorError: too many, or one that can't be written down
    """
    if len(disks) > MAX_DISKS:
        raise errors.HypervisorError(
            f"Xen instances can have {MAX_DISKS} disks at most, this one has {len(disks)}"
        )
    _Part(prefix, f"The parameter '{constants.HV_BLOCKDEV_PREFIX}'")
    return [_Disk(disk, _DiskName(prefix, index), emulation) for index, disk in enumerate(disks)]


def _Cdrom(path: str, disk_count: int) -> str:
    for place in _CDROM_PLACES:
        if place >= disk_count:
            vdev = _DiskName(_HVM_PREFIX, place)
            return f"format=raw, vdev={vdev}, access=ro, devtype=cdrom, target={path}"
    raise errors.HypervisorError(
        f"There is no place for a CD drive beside {disk_count} disks; remove the parameter"
        f" '{constants.HV_CDROM_IMAGE_PATH}', or have {_CDROM_PLACES[-1]} disks at most"
    )


# Network cards


def _Vif(nic: NicSpec, kind: str) -> str:
    text = f"mac={_Part(nic.mac, 'The MAC address')}{kind}"
    if nic.ip is not None:
        text += f", ip={_Part(nic.ip, 'The IP address of a network card')}"
    if nic.bridge is not None:
        text += f", bridge={_Part(nic.bridge, 'The bridge')}"
    return text


def _VifKind(nic_type: str | None) -> str:
    if not nic_type:
        return ", type=ioemu"
    if nic_type == constants.HT_NIC_PARAVIRTUAL:
        return ", type=vif"
    return f", model={nic_type}, type=ioemu"


def _Vifs(nics: Sequence[NicSpec], kind: str) -> str:
    return _List([_Vif(nic, kind) for nic in nics])


# The files


def _Text(lines: Sequence[tuple[str, str | int]]) -> str:
    return _HEADER + "".join(f"{name} = {value}\n" for name, value in lines)


def _Basics(guest: GuestSpec) -> list[tuple[str, str | int]]:
    return [("memory", guest.memory), ("vcpus", guest.vcpus), ("name", Quote(guest.name))]


_EVENTS: Final = (
    ("on_poweroff", Quote("destroy")),
    ("on_reboot", Quote("restart")),
    ("on_crash", Quote("restart")),
)


def PvmConfig(guest: GuestSpec, hvp: Mapping[str, Any]) -> str:
    """Configuration of a paravirtual machine.

    @param hvp: filled parameters of xen-pvm
    @raise errors.HypervisorError: something is missing or can't be written down
    """
    lines: list[tuple[str, str | int]] = [("type", Quote("pv"))]
    if hvp[constants.HV_USE_BOOTLOADER]:
        bootloader = hvp[constants.HV_BOOTLOADER_PATH]
        if not bootloader:
            raise errors.HypervisorError(
                f"The parameter '{constants.HV_USE_BOOTLOADER}' is set, so"
                f" '{constants.HV_BOOTLOADER_PATH}' must be set too"
            )
        lines.append(("bootloader", Quote(bootloader)))
        arguments = hvp[constants.HV_BOOTLOADER_ARGS]
        if arguments:
            lines.append(("bootloader_args", _List(arguments.split())))
    else:
        lines.append(("kernel", Quote(hvp[constants.HV_KERNEL_PATH])))
        if hvp[constants.HV_INITRD_PATH]:
            lines.append(("ramdisk", Quote(hvp[constants.HV_INITRD_PATH])))
    lines += _Basics(guest)
    lines += [
        ("vif", _Vifs(guest.nics, "")),
        ("disk", _List(Disks(guest.disks, hvp[constants.HV_BLOCKDEV_PREFIX]))),
        ("root", Quote(hvp[constants.HV_ROOT_PATH])),
        *_EVENTS,
        ("extra", Quote(hvp[constants.HV_KERNEL_ARGS])),
    ]
    return _Text(lines)


def HvmConfig(guest: GuestSpec, hvp: Mapping[str, Any], vnc_password: str) -> str:
    """Configuration of a hardware virtual machine; it contains the password.

    @param hvp: filled parameters of xen-hvm
    @raise errors.HypervisorError: something can't be written down
    """
    lines: list[tuple[str, str | int]] = [
        ("type", Quote("hvm")),
        ("firmware_override", Quote(hvp[constants.HV_KERNEL_PATH])),
        *_Basics(guest),
        ("pae", int(bool(hvp[constants.HV_PAE]))),
        ("acpi", int(bool(hvp[constants.HV_ACPI]))),
        ("apic", 1),
        ("device_model_version", Quote("qemu-xen")),
        ("device_model_override", Quote(hvp[constants.HV_DEVICE_MODEL])),
        ("boot", Quote(hvp[constants.HV_BOOT_ORDER])),
        ("sdl", 0),
        ("usb", 1),
        ("usbdevice", _List(["tablet"])),
        ("vnc", 1),
        ("vnclisten", Quote(hvp[constants.HV_VNC_BIND_ADDRESS] or constants.BIND_ADDRESS_GLOBAL)),
    ]
    port = guest.network_port
    if port is not None and port > _VNC_BASE_PORT:
        lines += [("vncdisplay", port - _VNC_BASE_PORT), ("vncunused", 0)]
    else:
        lines.append(("vncunused", 1))
    lines += [("vncpasswd", Quote(vnc_password)), ("serial", _List(["pty"]))]
    if hvp[constants.HV_USE_LOCALTIME]:
        lines.append(("localtime", 1))
    is_emulated = hvp[constants.HV_DISK_TYPE] != constants.HT_DISK_PARAVIRTUAL
    disks = Disks(guest.disks, _HVM_PREFIX, "ioemu:" if is_emulated else "")
    if hvp[constants.HV_CDROM_IMAGE_PATH]:
        disks.append(_Cdrom(hvp[constants.HV_CDROM_IMAGE_PATH], len(disks)))
    lines += [
        ("vif", _Vifs(guest.nics, _VifKind(hvp[constants.HV_NIC_TYPE]))),
        ("disk", _List(disks)),
        *_EVENTS,
    ]
    return _Text(lines)
