"""The columns of instance listings."""

from __future__ import annotations

from typing import Any, Final

from . import output
from .output import Column

#: Text of what only the primary node could tell.
_NODE_DOWN: Final = "(node down)"
_NOT_THERE: Final = "N/A"

DEFAULT_FIELDS: Final = ("name", "hypervisor", "os", "pnode", "status", "oper_ram")

#: Headers of hypervisor parameters that have one of their own.
_HV_HEADERS: Final = {
    "kernel_path": "Kernel_path",
    "initrd_path": "Initrd_path",
    "boot_order": "Boot_order",
    "acpi": "ACPI",
    "pae": "PAE",
    "cdrom_image_path": "CDROM_image_path",
    "nic_type": "NIC_type",
    "disk_type": "Disk_type",
    "vnc_bind_address": "VNC_bind_address",
}


def _FormatYesNo(value: Any) -> Any:
    return "yes" if value else "no"


def _FormatRunning(value: Any) -> Any:
    if value is None:
        return _NODE_DOWN
    return "running" if value else "stopped"


def _FormatMemory(value: Any) -> Any:
    return _NODE_DOWN if value is None else value


def _FormatSize(value: Any) -> Any:
    return _NOT_THERE if value is None else value


def _FormatNames(value: Any) -> Any:
    return output.FormatList(value) or output.NOTHING


_DASH: Final = output.FormatDash
_LIST: Final = output.FormatList

COLUMNS: Final = output.Columns(
    {
        "name": Column("Instance"),
        "os": Column("OS"),
        "pnode": Column("Primary_node"),
        "snodes": Column("Secondary_Nodes", _FormatNames),
        "admin_state": Column("Autostart", _FormatYesNo),
        "oper_state": Column("Running", _FormatRunning),
        "status": Column("Status"),
        "oper_ram": Column("Memory", _FormatMemory, unit=True),
        "disk_template": Column("Disk_template"),
        "hypervisor": Column("Hypervisor"),
        "ip": Column("IP_address", _DASH),
        "mac": Column("MAC_address", _DASH),
        "nic_mode": Column("NIC_Mode", _DASH),
        "nic_link": Column("NIC_Link", _DASH),
        "bridge": Column("Bridge", _DASH),
        "sda_size": Column("Disk/0", _FormatSize, unit=True),
        "sdb_size": Column("Disk/1", _FormatSize, unit=True),
        "disk_usage": Column("DiskUsage", _DASH),
        "vcpus": Column("VCPUs"),
        "tags": Column("Tags", _LIST),
        "serial_no": Column("SerialNo", numeric=True),
        "network_port": Column("Network_port", _DASH),
        "ctime": Column("CTime", output.FormatTime),
        "mtime": Column("MTime", output.FormatTime),
        "uuid": Column("UUID"),
        "hvparams": Column("Hypervisor_parameters"),
        "beparams": Column(),
        **{f"hv/{name}": Column(header, _DASH) for name, header in _HV_HEADERS.items()},
        "be/memory": Column("Configured_memory", unit=True),
        "be/vcpus": Column("VCPUs", numeric=True),
        "be/auto_balance": Column("Auto_balance"),
        "disk.count": Column("Disks", numeric=True),
        "disk.sizes": Column("Disk_sizes", _LIST),
        "nic.count": Column("NICs", numeric=True),
        "nic.macs": Column("NIC_MACs", _LIST),
        "nic.ips": Column("NIC_IPs", _LIST),
        "nic.modes": Column("NIC_modes", _LIST),
        "nic.links": Column("NIC_links", _LIST),
        "nic.bridges": Column("NIC_bridges", _LIST),
    },
    [
        (r"hv/.*", Column(None, _DASH)),
        (r"disk\.size/[0-9]+", Column(None, _DASH, unit=True)),
        (r"nic\.(mac|ip|mode|link|bridge)/[0-9]+", Column(None, _DASH)),
    ],
)

#: For descriptions: fields whose last part is a name or a number.
_PATTERN_FIELDS: Final = (
    "hv/NAME",
    "disk.size/N",
    "nic.mac/N",
    "nic.ip/N",
    "nic.mode/N",
    "nic.link/N",
    "nic.bridge/N",
)


def DescribeFields() -> str:
    """The sentences of the listing's description that name its fields."""
    plain = [name for name in COLUMNS.columns if not name.startswith("hv/")]
    return (
        f"The available fields are: {', '.join([*plain, *_PATTERN_FIELDS])}."
        f" The default field list is (in order): {', '.join(DEFAULT_FIELDS)}."
    )
