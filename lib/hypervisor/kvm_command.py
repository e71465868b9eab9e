"""The command line of QEMU, built from values alone.

Three parts, because they live for different times. L{BuildMachine} is what the guest sees; it is
kept in the runtime file, and a restart or a migration gives it to the guest again. L{BuildNics} is
the network cards, whose ends on the node differ each time. L{BuildExecution} is how the process is
run.

Written for QEMU 6.0 and later; what changed between releases is decided by
L{kvm_capabilities.Capabilities}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors
from .kvm_capabilities import Capabilities
from .kvm_files import Paths

HvParams = Mapping[str, Any]

#: Displays of VNC are counted from this port.
VNC_BASE_PORT: Final = 5900

_NIC_MODELS: Final = {
    constants.HT_NIC_PARAVIRTUAL: "virtio-net-pci",
    **{
        name: name
        for name in constants.HT_KVM_VALID_NIC_TYPES
        if name != constants.HT_NIC_PARAVIRTUAL
    },
}
_DISK_MODELS: Final = {
    constants.HT_DISK_PARAVIRTUAL: "virtio-blk-pci",
    constants.HT_DISK_IDE: "ide-hd",
    constants.HT_DISK_SCSI: "scsi-hd",
}
#: Two cables with two devices each; AHCI has a cable for each device.
_IDE_SLOTS: Final = 4
_AHCI_SLOTS: Final = 6
#: disk_cache -> (bypass the page cache of the node, guest sees a write cache)
_CACHE_MODES: Final = {
    constants.HT_CACHE_NONE: (True, True),
    constants.HT_CACHE_WTHROUGH: (False, False),
    constants.HT_CACHE_WBACK: (False, True),
}


@dataclass(frozen=True)
class DiskSpec:
    """A disk (or CD image) as the node has it.

    @ivar is_block: a block device, not a file
    @ivar is_shared: another node may come to use the same data (DRBD, volumes), so that this node's
      page cache must not keep anything back
    """

    path: str
    is_block: bool
    is_shared: bool = False
    read_only: bool = False


@dataclass(frozen=True)
class GuestSpec:
    """What the guest is, apart from its hypervisor parameters.

    @ivar memory: in MiB
    @ivar network_port: TCP port that the cluster has given it for VNC
    """

    name: str
    uuid: str | None
    memory: int
    vcpus: int
    disks: tuple[DiskSpec, ...]
    cdrom: DiskSpec | None = None
    network_port: int | None = None


def EscapeValue(value: str) -> str:
    """A value for QEMU's comma-separated options."""
    return value.replace(",", ",,")


def _OnOff(value: object) -> str:
    return "on" if value else "off"


# The machine


def BuildMachine(
    caps: Capabilities, paths: Paths, guest: GuestSpec, hvp: HvParams, accelerator: str
) -> list[str]:
    """The part of the command line that makes the guest what it is.

    @param accelerator: what L{kvm_accel.Choose} has chosen
    @raise errors.HypervisorError: a parameter can not be honoured; it is named
    """
    return [
        caps.path,
        # The first words are what others find a QEMU by in the process list.
        *("-name", f"{guest.name},debug-threads=on"),
        *("-m", str(guest.memory)),
        *("-smp", str(guest.vcpus)),
        *("-pidfile", paths.pid),
        "-daemonize",
        *("-machine", f"{caps.machine},acpi={_OnOff(hvp[constants.HV_ACPI])}"),
        *("-accel", accelerator),
        # Nothing that was not asked for.
        "-nodefaults",
        "-no-user-config",
        *(("-uuid", guest.uuid) if guest.uuid else ()),
        *("-rtc", f"base={'localtime' if hvp[constants.HV_USE_LOCALTIME] else 'utc'}"),
        *_Disks(caps, guest, hvp),
        *_Kernel(hvp),
        *_Display(caps, guest, hvp),
        *("-chardev", f"socket,id=monitor,path={EscapeValue(paths.monitor)},server=on,wait=off"),
        *("-mon", "chardev=monitor,mode=readline"),
        *("-chardev", f"socket,id=qmp,path={EscapeValue(paths.qmp)},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *_Serial(paths, hvp),
        # A daemon has no standard error, so that QEMU's last words would be lost; with some log
        # switched on they go there. This one never says anything: what a guest could make QEMU
        # say as often as it likes would fill the node's disk.
        *("-d", "page"),
        *("-D", paths.log),
    ]


def _Disks(caps: Capabilities, guest: GuestSpec, hvp: HvParams) -> list[str]:
    words: list[str] = []
    disk_type = hvp[constants.HV_DISK_TYPE]
    boot_order = hvp[constants.HV_BOOT_ORDER]
    if disk_type == constants.HT_DISK_SCSI and (guest.disks or guest.cdrom):
        caps.RequireDevice("virtio-scsi-pci", "disk type scsi")
        words += ["-device", "virtio-scsi-pci,id=scsi0"]

    if guest.disks and disk_type not in _DISK_MODELS:
        raise errors.HypervisorError(
            f"Hypervisor parameter {constants.HV_DISK_TYPE}={disk_type}: QEMU has no such disks for"
            f" this machine; use one of {', '.join(_DISK_MODELS)}"
        )
    for index, disk in enumerate(guest.disks):
        if disk.read_only:
            raise errors.HypervisorError(
                f"Disk {index} of instance {guest.name} is read-only, which KVM can not offer"
            )
        model = _DISK_MODELS[disk_type]
        caps.RequireDevice(model, f"disk type {disk_type}")
        direct, write_cache = _CacheMode(disk, hvp[constants.HV_DISK_CACHE])
        blockdev = [
            "driver=raw",
            f"node-name=blk{index}",
            *((f"cache.direct={_OnOff(direct)}",) if direct is not None else ()),
            # Or the lack of rights (with a security model) would silently make it read-only.
            "auto-read-only=off",
            *_File(disk),
        ]
        device = [model, f"drive=blk{index}", f"id=disk{index}"]
        if disk_type == constants.HT_DISK_IDE:
            device.append(_IdeSlot(caps, guest, index))
        if write_cache is not None:
            device.append(f"write-cache={_OnOff(write_cache)}")
        if index == 0:
            # From the other devices it falls through to the first disk.
            device.append(f"bootindex={1 if boot_order == constants.HT_BO_DISK else 2}")
        words += ["-blockdev", ",".join(blockdev), "-device", ",".join(device)]

    if guest.cdrom is not None:
        model = "scsi-cd" if disk_type == constants.HT_DISK_SCSI else "ide-cd"
        device = [model, "drive=blkcd0", "id=cdrom0"]
        if model == "ide-cd":
            # Behind the disks, which keep their names whether there is a CD or not.
            used = len(guest.disks) if disk_type == constants.HT_DISK_IDE else 0
            device.append(_IdeSlot(caps, guest, used))
        if boot_order == constants.HT_BO_CDROM:
            device.append("bootindex=1")
        blockdev = ["driver=raw", "node-name=blkcd0", "read-only=on", *_File(guest.cdrom)]
        words += ["-blockdev", ",".join(blockdev), "-device", ",".join(device)]
    return words


def _IdeSlot(caps: Capabilities, guest: GuestSpec, number: int) -> str:
    """Where an IDE device is plugged in; QEMU would not look beyond the first cable."""
    is_ahci = "q35" in caps.machine
    slots = _AHCI_SLOTS if is_ahci else _IDE_SLOTS
    if number >= slots:
        raise errors.HypervisorError(
            f"Instance {guest.name} has more IDE devices than the {slots} that are possible; use"
            f" {constants.HV_DISK_TYPE}={constants.HT_DISK_PARAVIRTUAL}"
        )
    return f"bus=ide.{number}" if is_ahci else f"bus=ide.{number // 2},unit={number % 2}"


def _CacheMode(disk: DiskSpec, mode: str) -> tuple[bool | None, bool | None]:
    """(bypass the node's page cache, guest sees a write cache); None: leave it to QEMU."""
    if mode != constants.HT_CACHE_DEFAULT:
        return _CACHE_MODES[mode]
    return (True, None) if disk.is_shared else (None, None)


def _File(disk: DiskSpec) -> list[str]:
    return [
        f"file.driver={'host_device' if disk.is_block else 'file'}",
        f"file.filename={EscapeValue(disk.path)}",
    ]


def _Kernel(hvp: HvParams) -> list[str]:
    kernel = hvp[constants.HV_KERNEL_PATH]
    if not kernel:
        return []
    words = ["-kernel", kernel]
    if hvp[constants.HV_INITRD_PATH]:
        words += ["-initrd", hvp[constants.HV_INITRD_PATH]]
    append = [f"root={hvp[constants.HV_ROOT_PATH]}", hvp[constants.HV_KERNEL_ARGS]]
    if hvp[constants.HV_SERIAL_CONSOLE]:
        append.append("console=ttyS0,38400")
    return [*words, "-append", " ".join(part for part in append if part)]


def _Serial(paths: Paths, hvp: HvParams) -> list[str]:
    if not hvp[constants.HV_SERIAL_CONSOLE]:
        return ["-serial", "none"]
    return [
        *("-chardev", f"socket,id=serial0,path={EscapeValue(paths.serial)},server=on,wait=off"),
        *("-serial", "chardev:serial0"),
    ]


def _Display(caps: Capabilities, guest: GuestSpec, hvp: HvParams) -> list[str]:
    words: list[str] = []
    mouse = hvp[constants.HV_USB_MOUSE]
    vnc = BuildVnc(guest, hvp)
    if vnc and not mouse:
        # With any other pointer a VNC client's and the guest's go different ways.
        mouse = constants.HT_MOUSE_TABLET
    if mouse:
        caps.RequireDevice("qemu-xhci", "a USB pointer")
        words += ["-device", "qemu-xhci", "-device", f"usb-{mouse}"]
    if not vnc:
        return [*words, "-display", "none"]
    return [*words, "-device", "VGA", *_VncCredentials(hvp), "-vnc", vnc]


def _HasVncTls(hvp: HvParams) -> bool:
    address = hvp[constants.HV_VNC_BIND_ADDRESS]
    return bool(hvp[constants.HV_VNC_TLS]) and not address.startswith("/")


def _VncCredentials(hvp: HvParams) -> list[str]:
    if not _HasVncTls(hvp):
        return []
    directory = hvp[constants.HV_VNC_X509]
    if not directory:
        return ["-object", "tls-creds-anon,id=vnctls0,endpoint=server"]
    verify = _OnOff(hvp[constants.HV_VNC_X509_VERIFY])
    return [
        "-object",
        f"tls-creds-x509,id=vnctls0,endpoint=server,dir={EscapeValue(directory)},"
        f"verify-peer={verify}",
    ]


def BuildVnc(guest: GuestSpec, hvp: HvParams) -> str:
    """Value of C{-vnc}; empty if the instance has no VNC.

    @raise errors.HypervisorError: VNC on an address needs a port of the cluster's pool
    """
    address = hvp[constants.HV_VNC_BIND_ADDRESS]
    if not address:
        return ""
    password = ["password=on"] if hvp[constants.HV_VNC_PASSWORD_FILE] else []
    if address.startswith("/"):
        return ",".join([f"unix:{EscapeValue(f'{address}/{guest.name}.vnc')}", *password])
    if guest.network_port is None or guest.network_port <= VNC_BASE_PORT:
        raise errors.HypervisorError(
            f"Instance {guest.name} has {constants.HV_VNC_BIND_ADDRESS}={address} but its network"
            f" port {guest.network_port} is not above {VNC_BASE_PORT}"
        )
    display = guest.network_port - VNC_BASE_PORT
    options = [f":{display}" if address == "0.0.0.0" else f"{address}:{display}"]
    if _HasVncTls(hvp):
        options.append("tls-creds=vnctls0")
    return ",".join([*options, *password])


# Network cards

#: How a card is connected on the node.
NET_TAP: Final = "tap"
#: By a small IP stack inside of QEMU: works without rights, cannot be reached from outside.
NET_USER: Final = "user"


def BuildNics(
    caps: Capabilities, macs: Sequence[str], hvp: HvParams, backend: str = NET_TAP
) -> list[str]:
    """Network cards.

    @param hvp: the parameters that the guest was first started with
    @param backend: L{NET_TAP}: QEMU opens a new tap each, to be set up afterwards; or L{NET_USER}
    """
    model = _NIC_MODELS[hvp[constants.HV_NIC_TYPE]]
    if macs:
        caps.RequireDevice(model, f"NIC type {hvp[constants.HV_NIC_TYPE]}")
    from_network = hvp[constants.HV_BOOT_ORDER] == constants.HT_BO_NETWORK
    words: list[str] = []
    for index, mac in enumerate(macs):
        netdev = [backend, f"id=net{index}"]
        if backend == NET_TAP:
            netdev += ["script=no", "downscript=no"]
            if hvp[constants.HV_VHOST_NET] and model == "virtio-net-pci":
                netdev.append("vhost=on")
        device = [model, f"netdev=net{index}", f"id=nic{index}", f"mac={mac}"]
        if from_network and index == 0:
            device.append("bootindex=1")
        elif not from_network and model != constants.HT_NIC_NE2K_ISA:
            # No boot code: faster, and a process in a chroot could not load it.
            device.append("romfile=")
        words += ["-netdev", ",".join(netdev), "-device", ",".join(device)]
    return words


# The process


def BuildExecution(
    caps: Capabilities,
    user: str | None = None,
    chroot: str | None = None,
    incoming: str | None = None,
) -> list[str]:
    """How the process is run: with the guest paused until all is set up around it.

    @param user: account that the process changes to
    @param chroot: directory that it is locked into
    @param incoming: wait for a migration to this URI instead of booting
    """
    # A guest that comes in is not running yet either, and must go on by itself when it is there.
    words = ["-S"] if incoming is None else ["-incoming", incoming]
    wanted = {"chroot": (chroot, "-chroot"), "user": (user, "-runas")}
    run_with = []
    for word, (value, option) in wanted.items():
        if value is None:
            continue
        if word in caps.run_with:
            run_with.append(f"{word}={EscapeValue(value)}")
        else:
            words += [option, value]
    if run_with:
        words += ["-run-with", ",".join(run_with)]
    if caps.sandbox:
        words += ["-sandbox", "on"]
    return words
