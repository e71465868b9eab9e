"""The one table of every hypervisor, backend, NIC and disk parameter.

A row says everything there is to know about a parameter: name, type, built-in default, check,
whether it may be set per object or only for the whole cluster, and what it means. All else is
derived: L{constants} takes types and defaults from here (and offers the names of this module as its
own), L{hvparams} turns the checks into code, the command line and RAPI describe parameters from it.

These are the tweakable values of "Disk/Net parameters" and "Global hypervisor parameters" of the
2.1 design. A name has one type and one meaning wherever it appears.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any as _Any
from typing import Final, NamedTuple

from . import pathutils as _pathutils

# Types of parameter values; utils.params converts user input to them.
VTYPE_STRING: Final = "string"
VTYPE_BOOL: Final = "bool"
#: Size in MiB; accepts units.
VTYPE_SIZE: Final = "size"
VTYPE_INT: Final = "int"
ENFORCEABLE_TYPES: Final = frozenset([VTYPE_STRING, VTYPE_BOOL, VTYPE_SIZE, VTYPE_INT])

# Kinds of hypervisors
HT_XEN_PVM: Final = "xen-pvm"
HT_FAKE: Final = "fake"
HT_XEN_HVM: Final = "xen-hvm"
HT_KVM: Final = "kvm"
HT_CHROOT: Final = "chroot"
HYPER_TYPES: Final = frozenset([HT_XEN_PVM, HT_FAKE, HT_XEN_HVM, HT_KVM, HT_CHROOT])

# Names of hypervisor parameters
HV_ACPI: Final = "acpi"
HV_BLOCKDEV_PREFIX: Final = "blockdev_prefix"
HV_BOOTLOADER_ARGS: Final = "bootloader_args"
HV_BOOTLOADER_PATH: Final = "bootloader_path"
HV_BOOT_ORDER: Final = "boot_order"
HV_CDROM_IMAGE_PATH: Final = "cdrom_image_path"
HV_DEVICE_MODEL: Final = "device_model"
HV_DISK_CACHE: Final = "disk_cache"
HV_DISK_TYPE: Final = "disk_type"
HV_INITRD_PATH: Final = "initrd_path"
HV_INIT_SCRIPT: Final = "init_script"
HV_KERNEL_ARGS: Final = "kernel_args"
HV_KERNEL_PATH: Final = "kernel_path"
HV_KVM_FLAG: Final = "kvm_flag"
HV_MIGRATION_BANDWIDTH: Final = "migration_bandwidth"
HV_MIGRATION_DOWNTIME: Final = "migration_downtime"
HV_MIGRATION_PORT: Final = "migration_port"
HV_NIC_TYPE: Final = "nic_type"
HV_PAE: Final = "pae"
HV_ROOT_PATH: Final = "root_path"
HV_SECURITY_DOMAIN: Final = "security_domain"
HV_SECURITY_MODEL: Final = "security_model"
HV_SERIAL_CONSOLE: Final = "serial_console"
HV_USB_MOUSE: Final = "usb_mouse"
HV_USE_BOOTLOADER: Final = "use_bootloader"
HV_USE_CHROOT: Final = "use_chroot"
HV_USE_LOCALTIME: Final = "use_localtime"
HV_VHOST_NET: Final = "vhost_net"
HV_VNC_BIND_ADDRESS: Final = "vnc_bind_address"
HV_VNC_PASSWORD_FILE: Final = "vnc_password_file"
HV_VNC_TLS: Final = "vnc_tls"
HV_VNC_X509: Final = "vnc_x509_path"
HV_VNC_X509_VERIFY: Final = "vnc_x509_verify"

# Values of hypervisor parameters
HT_NIC_RTL8139: Final = "rtl8139"
HT_NIC_NE2K_PCI: Final = "ne2k_pci"
HT_NIC_NE2K_ISA: Final = "ne2k_isa"
HT_NIC_I82551: Final = "i82551"
HT_NIC_I85557B: Final = "i82557b"
HT_NIC_I8259ER: Final = "i82559er"
HT_NIC_PCNET: Final = "pcnet"
HT_NIC_E1000: Final = "e1000"
HT_NIC_PARAVIRTUAL: Final = "paravirtual"
HT_HVM_VALID_NIC_TYPES: Final = (
    HT_NIC_RTL8139,
    HT_NIC_NE2K_PCI,
    HT_NIC_NE2K_ISA,
    HT_NIC_PARAVIRTUAL,
)
HT_KVM_VALID_NIC_TYPES: Final = (
    *HT_HVM_VALID_NIC_TYPES,
    HT_NIC_I82551,
    HT_NIC_I85557B,
    HT_NIC_I8259ER,
    HT_NIC_PCNET,
    HT_NIC_E1000,
)

HT_DISK_PARAVIRTUAL: Final = "paravirtual"
HT_DISK_IOEMU: Final = "ioemu"
HT_DISK_IDE: Final = "ide"
HT_DISK_SCSI: Final = "scsi"
HT_DISK_SD: Final = "sd"
HT_DISK_MTD: Final = "mtd"
HT_DISK_PFLASH: Final = "pflash"
HT_HVM_VALID_DISK_TYPES: Final = (HT_DISK_PARAVIRTUAL, HT_DISK_IOEMU)
HT_KVM_VALID_DISK_TYPES: Final = (
    HT_DISK_PARAVIRTUAL,
    HT_DISK_IDE,
    HT_DISK_SCSI,
    HT_DISK_SD,
    HT_DISK_MTD,
    HT_DISK_PFLASH,
)

HT_BLOCKDEV_PREFIX_SD: Final = "sd"
HT_BLOCKDEV_PREFIX_XVD: Final = "xvd"
HT_XEN_VALID_BLOCKDEV_PREFIXES: Final = (HT_BLOCKDEV_PREFIX_SD, HT_BLOCKDEV_PREFIX_XVD)

HT_CACHE_DEFAULT: Final = "default"
HT_CACHE_NONE: Final = "none"
HT_CACHE_WTHROUGH: Final = "writethrough"
HT_CACHE_WBACK: Final = "writeback"
HT_VALID_CACHE_TYPES: Final = (
    HT_CACHE_DEFAULT,
    HT_CACHE_NONE,
    HT_CACHE_WTHROUGH,
    HT_CACHE_WBACK,
)

HT_MOUSE_MOUSE: Final = "mouse"
HT_MOUSE_TABLET: Final = "tablet"
HT_KVM_VALID_MOUSE_TYPES: Final = (HT_MOUSE_MOUSE, HT_MOUSE_TABLET)

HT_BO_CDROM: Final = "cdrom"
HT_BO_DISK: Final = "disk"
HT_BO_NETWORK: Final = "network"
HT_KVM_VALID_BO_TYPES: Final = (HT_BO_CDROM, HT_BO_DISK, HT_BO_NETWORK)
#: Letters of the xen-hvm boot order: floppy, disk, CD, network.
HT_HVM_BOOT_LETTERS: Final = "acdn"

HT_SM_NONE: Final = "none"
HT_SM_USER: Final = "user"
HT_SM_POOL: Final = "pool"
HT_KVM_VALID_SM_TYPES: Final = (HT_SM_NONE, HT_SM_USER, HT_SM_POOL)

HT_KVM_ENABLED: Final = "enabled"
HT_KVM_DISABLED: Final = "disabled"
HT_KVM_FLAG_VALUES: Final = (HT_KVM_ENABLED, HT_KVM_DISABLED)

# Names and values of backend, NIC and disk parameters
BE_MEMORY: Final = "memory"
BE_VCPUS: Final = "vcpus"
BE_AUTO_BALANCE: Final = "auto_balance"

NIC_MODE: Final = "mode"
NIC_LINK: Final = "link"
NIC_MODE_BRIDGED: Final = "bridged"
NIC_MODE_ROUTED: Final = "routed"
NIC_VALID_MODES: Final = (NIC_MODE_BRIDGED, NIC_MODE_ROUTED)
DEFAULT_BRIDGE: Final = "xen-br0"

DP_STRIPE: Final = "stripe"
DP_STRIPE_SIZE: Final = "stripe_size"
DP_META_FLUSHES: Final = "meta_flushes"
DP_DATA_FLUSHES: Final = "data_flushes"
#: Most stripes LVM can have.
DP_STRIPE_MAX: Final = 128
#: Smallest stripe of LVM in KiB; sizes are powers of two.
DP_STRIPE_SIZE_MIN: Final = 4

# Kinds of checks; hvparams holds their code.
CHECK_NONE: Final = "none"
#: Absolute normalized path; on the node: of an existing file.
CHECK_FILE: Final = "file"
#: Absolute normalized path; on the node: of an existing directory.
CHECK_DIR: Final = "directory"
#: Absolute normalized path that is not looked at (it is inside of a guest).
CHECK_PATH: Final = "path"
#: 0 < p < 65535.
CHECK_PORT: Final = "port"
#: One of C{choices}.
CHECK_CHOICE: Final = "choice"
#: Text of letters out of C{choices}.
CHECK_LETTERS: Final = "letters"
#: An IPv4 address.
CHECK_IP: Final = "ip"
#: An IPv4 address or an absolute normalized path.
CHECK_IP_OR_PATH: Final = "ip or path"
CHECK_KINDS: Final = frozenset(
    [
        CHECK_NONE,
        CHECK_FILE,
        CHECK_DIR,
        CHECK_PATH,
        CHECK_PORT,
        CHECK_CHOICE,
        CHECK_LETTERS,
        CHECK_IP,
        CHECK_IP_OR_PATH,
    ]
)


class Param(NamedTuple):
    """One parameter.

    A C{required} one must not be empty; therefore it can not be a bool, whose false would look
    unset. One with C{is_global} exists for the whole cluster only.
    """

    name: str
    vtype: str
    default: _Any
    doc: str
    check: str = CHECK_NONE
    required: bool = False
    choices: tuple[str, ...] = ()
    is_global: bool = False


def _String(
    name: str, default: str, doc: str, check: str = CHECK_NONE, required: bool = False
) -> Param:
    return Param(name, VTYPE_STRING, default, doc, check, required)


def _Choice(
    name: str, default: str, choices: tuple[str, ...], doc: str, required: bool = True
) -> Param:
    return Param(name, VTYPE_STRING, default, doc, CHECK_CHOICE, required, choices)


def _Bool(name: str, default: bool, doc: str) -> Param:
    return Param(name, VTYPE_BOOL, default, doc)


def _Int(name: str, default: int, doc: str, is_global: bool = False) -> Param:
    return Param(name, VTYPE_INT, default, doc, is_global=is_global)


def _MigrationPort(default: int) -> Param:
    return Param(
        HV_MIGRATION_PORT,
        VTYPE_INT,
        default,
        "TCP port on which a node waits for an incoming migration",
        CHECK_PORT,
        required=True,
        is_global=True,
    )


_LOCALTIME: Final = _Bool(
    HV_USE_LOCALTIME, False, "the clock of the instance shows local time instead of UTC"
)
_CDROM: Final = _String(
    HV_CDROM_IMAGE_PATH, "", "ISO image in the CD drive of the instance", CHECK_FILE
)
_ACPI: Final = _Bool(HV_ACPI, True, "the instance has ACPI (needed for a clean shutdown)")

_XEN_PVM: Final = (
    _Bool(HV_USE_BOOTLOADER, False, "let a boot loader find the kernel inside of the instance"),
    _String(
        HV_BOOTLOADER_PATH, _pathutils.XEN_BOOTLOADER, "boot loader to run on the node", CHECK_FILE
    ),
    _String(HV_BOOTLOADER_ARGS, "", "arguments of the boot loader"),
    _String(HV_KERNEL_PATH, _pathutils.XEN_KERNEL, "kernel on the node", CHECK_FILE, required=True),
    _String(HV_INITRD_PATH, "", "initial RAM disk on the node", CHECK_FILE),
    _String(HV_ROOT_PATH, "/dev/sda1", "root device as the instance sees it", required=True),
    _String(HV_KERNEL_ARGS, "ro", "further arguments of the kernel"),
    _Choice(
        HV_BLOCKDEV_PREFIX,
        HT_BLOCKDEV_PREFIX_SD,
        HT_XEN_VALID_BLOCKDEV_PREFIXES,
        "what the names of the disks begin with, as the instance sees them",
    ),
    _MigrationPort(8002),
)

_XEN_HVM: Final = (
    Param(
        HV_BOOT_ORDER,
        VTYPE_STRING,
        "cd",
        "order of boot devices: letters a (floppy), c (disk), d (CD), n (network)",
        CHECK_LETTERS,
        required=True,
        choices=tuple(HT_HVM_BOOT_LETTERS),
    ),
    _CDROM,
    _Choice(HV_NIC_TYPE, HT_NIC_RTL8139, HT_HVM_VALID_NIC_TYPES, "emulated network card"),
    _Choice(HV_DISK_TYPE, HT_DISK_PARAVIRTUAL, HT_HVM_VALID_DISK_TYPES, "kind of disks"),
    _String(HV_VNC_BIND_ADDRESS, "0.0.0.0", "address of the node on which VNC listens", CHECK_IP),
    _String(
        HV_VNC_PASSWORD_FILE,
        _pathutils.VNC_PASSWORD_FILE,
        "file on the nodes with the VNC password",
        CHECK_FILE,
        required=True,
    ),
    _ACPI,
    _Bool(HV_PAE, True, "the instance has PAE"),
    _String(
        HV_KERNEL_PATH,
        "/usr/lib/xen/boot/hvmloader",
        "boot firmware on the node",
        CHECK_FILE,
        required=True,
    ),
    _String(
        HV_DEVICE_MODEL,
        "/usr/lib/xen/bin/qemu-dm",
        "device emulator on the node",
        CHECK_FILE,
        required=True,
    ),
    _MigrationPort(8002),
    _LOCALTIME,
)

_KVM: Final = (
    _String(
        HV_KERNEL_PATH,
        "/boot/vmlinuz-2.6-kvmU",
        "kernel on the node; empty: boot from a device of the instance",
        CHECK_FILE,
    ),
    _String(HV_INITRD_PATH, "", "initial RAM disk on the node", CHECK_FILE),
    _String(HV_ROOT_PATH, "/dev/vda1", "root device as the instance sees it; needed with a kernel"),
    _String(HV_KERNEL_ARGS, "ro", "further arguments of the kernel"),
    _ACPI,
    _Bool(HV_SERIAL_CONSOLE, True, "the console is a serial line, reachable from the node"),
    _String(
        HV_VNC_BIND_ADDRESS,
        "",
        "address on which VNC listens, or directory for a VNC socket; empty: no VNC",
        CHECK_IP_OR_PATH,
    ),
    _Bool(HV_VNC_TLS, False, "VNC uses TLS"),
    _String(HV_VNC_X509, "", "directory on the nodes with the TLS files of VNC", CHECK_DIR),
    _Bool(HV_VNC_X509_VERIFY, False, "VNC clients must show a certificate"),
    _String(HV_VNC_PASSWORD_FILE, "", "file on the nodes with the VNC password", CHECK_FILE),
    _CDROM,
    _Choice(HV_BOOT_ORDER, HT_BO_DISK, HT_KVM_VALID_BO_TYPES, "boot device"),
    _Choice(HV_NIC_TYPE, HT_NIC_PARAVIRTUAL, HT_KVM_VALID_NIC_TYPES, "network card"),
    _Choice(HV_DISK_TYPE, HT_DISK_PARAVIRTUAL, HT_KVM_VALID_DISK_TYPES, "kind of disks"),
    _Choice(HV_USB_MOUSE, "", HT_KVM_VALID_MOUSE_TYPES, "emulated USB pointer", required=False),
    _MigrationPort(8102),
    _Int(HV_MIGRATION_BANDWIDTH, 32, "most MiB/s that a migration may use", is_global=True),
    _Int(HV_MIGRATION_DOWNTIME, 30, "longest pause in milliseconds at the end of a migration"),
    _LOCALTIME,
    _Choice(HV_DISK_CACHE, HT_CACHE_DEFAULT, HT_VALID_CACHE_TYPES, "cache mode of the disks"),
    _Choice(
        HV_SECURITY_MODEL,
        HT_SM_NONE,
        HT_KVM_VALID_SM_TYPES,
        "user the process runs as: root, the one named by security_domain, or one of the pool",
    ),
    _String(HV_SECURITY_DOMAIN, "", "user name for the security model 'user'"),
    _Choice(
        HV_KVM_FLAG,
        "",
        HT_KVM_FLAG_VALUES,
        "force hardware virtualization on or off; empty: as available",
        required=False,
    ),
    _Bool(HV_VHOST_NET, False, "network packets go through the kernel's vhost"),
    _Bool(HV_USE_CHROOT, False, "the process is locked into an empty directory"),
)

_CHROOT: Final = (
    _String(
        HV_INIT_SCRIPT,
        "/ganeti-chroot",
        "program inside of the instance that is called with start and stop",
        CHECK_PATH,
        required=True,
    ),
)

HV_PARAMS: Final[Mapping[str, tuple[Param, ...]]] = {
    HT_XEN_PVM: _XEN_PVM,
    HT_XEN_HVM: _XEN_HVM,
    HT_KVM: _KVM,
    HT_FAKE: (),
    HT_CHROOT: _CHROOT,
}

BE_PARAMS: Final = (
    Param(BE_MEMORY, VTYPE_SIZE, 128, "memory of the instance in MiB"),
    Param(BE_VCPUS, VTYPE_INT, 1, "virtual processors"),
    Param(BE_AUTO_BALANCE, VTYPE_BOOL, True, "counts in the N+1 memory check"),
)

NIC_PARAMS: Final = (
    _Choice(NIC_MODE, NIC_MODE_BRIDGED, NIC_VALID_MODES, "how the card is connected"),
    _String(NIC_LINK, DEFAULT_BRIDGE, "bridge (bridged), or routing table or device (routed)"),
)

#: Chosen by configure: what disks do where nobody asked for something else.
DRBD_BARRIERS: Final[bool] = _pathutils.BuildValue("DRBD_BARRIERS", True)
LVM_STRIPECOUNT: Final[int] = _pathutils.BuildValue("LVM_STRIPECOUNT", 1)

DISK_PARAMS: Final = (
    Param(
        DP_STRIPE,
        VTYPE_INT,
        LVM_STRIPECOUNT,
        "physical volumes over which a logical volume is striped",
    ),
    Param(DP_STRIPE_SIZE, VTYPE_INT, 0, "size of a stripe in KiB, a power of two; 0: LVM chooses"),
    Param(DP_META_FLUSHES, VTYPE_BOOL, DRBD_BARRIERS, "DRBD flushes (barriers) for its metadata"),
    Param(DP_DATA_FLUSHES, VTYPE_BOOL, DRBD_BARRIERS, "DRBD flushes (barriers) for the data"),
)


def _Types(params: Iterable[Param]) -> dict[str, str]:
    return {param.name: param.vtype for param in params}


def _Defaults(params: Iterable[Param]) -> dict[str, _Any]:
    return {param.name: param.default for param in params}


#: Value types by parameter name; a name has one type for all hypervisors.
HVS_PARAMETER_TYPES: Final[Mapping[str, str]] = _Types(
    param for table in HV_PARAMS.values() for param in table
)
HVS_PARAMETERS: Final = frozenset(HVS_PARAMETER_TYPES)
BES_PARAMETER_TYPES: Final[Mapping[str, str]] = _Types(BE_PARAMS)
BES_PARAMETERS: Final = frozenset(BES_PARAMETER_TYPES)
NICS_PARAMETER_TYPES: Final[Mapping[str, str]] = _Types(NIC_PARAMS)
NICS_PARAMETERS: Final = frozenset(NICS_PARAMETER_TYPES)
DPS_PARAMETER_TYPES: Final[Mapping[str, str]] = _Types(DISK_PARAMS)
DPS_PARAMETERS: Final = frozenset(DPS_PARAMETER_TYPES)

#: Built-in defaults, copied into the cluster when it is made. Never changed: copy before you fill.
HVC_DEFAULTS: Final[Mapping[str, Mapping[str, _Any]]] = {
    kind: _Defaults(table) for kind, table in HV_PARAMS.items()
}
BEC_DEFAULTS: Final[Mapping[str, _Any]] = _Defaults(BE_PARAMS)
NICC_DEFAULTS: Final[Mapping[str, _Any]] = _Defaults(NIC_PARAMS)
DPC_DEFAULTS: Final[Mapping[str, _Any]] = _Defaults(DISK_PARAMS)

#: Parameters that exist for the whole cluster only.
HVC_GLOBALS: Final = frozenset(
    param.name for table in HV_PARAMS.values() for param in table if param.is_global
)
