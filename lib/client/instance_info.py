"""The long description of an instance, from what the master daemon tells to lines of text.

Pure. A description is a tree of lines (L{Block}): pairs of key and text, aligned with each other,
and lines that head a deeper block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants
from ..utils import text

#: A line, a pair of key and text, or a deeper block.
Block = list[Any]

_INDENT: Final = "  "
#: VNC displays are numbered from this port on.
_VNC_BASE_PORT: Final = 5900
_ALL_ADDRESSES: Final = ("0.0.0.0", "::")


def FormatBlock(block: Block, depth: int = 0) -> list[str]:
    """The lines of a block."""
    prefix = _INDENT * depth
    width = max((len(item[0]) for item in block if isinstance(item, tuple)), default=0) + 1
    lines = []
    for item in block:
        if isinstance(item, tuple):
            key, value = item
            lines.append(f"{prefix}{key + ':':<{width}} {value}")
        elif isinstance(item, list):
            lines += FormatBlock(item, depth + 1)
        else:
            lines.append(f"{prefix}{item}")
    return lines


# Disks


def _FormatLogicalId(dev_type: str, logical_id: Sequence[Any], roman: bool) -> Block:
    """The pairs that say what a disk is made of. Secrets are left out."""
    if dev_type == constants.LD_DRBD8:
        first, second, port, first_minor, second_minor = logical_id[:5]
        return [
            ("nodeA", f"{first}, minor={text.TryToRoman(first_minor, roman)}"),
            ("nodeB", f"{second}, minor={text.TryToRoman(second_minor, roman)}"),
            ("port", text.TryToRoman(port, roman)),
        ]
    if dev_type == constants.LD_LV:
        return [("logical_id", "/".join(str(part) for part in logical_id))]
    return [("logical_id", str(list(logical_id)))]


def _FormatNumber(value: Any, roman: bool) -> Any:
    return "N/A" if value is None else text.TryToRoman(value, roman)


def FormatDiskStatus(dev_type: str, status: Sequence[Any] | None, roman: bool = False) -> str:
    """The state of a disk on one node.

    @param status: path, major, minor, sync percent, estimated time, degraded, local disk status
    """
    if not status:
        return "not active"
    path, major, minor, percent, eta, degraded, local = status
    result = f"{path} ({_FormatNumber(major, roman)}:{_FormatNumber(minor, roman)})"
    if dev_type == constants.LD_LV:
        failed = local == constants.LDS_FAULTY
        return result + (" *FAILED* (failed drive?)" if failed else "")
    if dev_type != constants.LD_DRBD8:
        return result
    if percent is None:
        result += " in sync"
    else:
        rest = "unknown" if eta is None else f"{eta:.0f}s"
        result += f" *RECOVERING* {percent:5.2f}%, ETA {rest}"
    result += ", status *DEGRADED*" if degraded else ", status ok"
    if local == constants.LDS_FAULTY:
        result += " *MISSING DISK*"
    elif local == constants.LDS_UNKNOWN:
        result += " *UNCERTAIN STATE*"
    return result


def _DescribeDisk(title: str, disk: Mapping[str, Any], static: bool, roman: bool) -> Block:
    dev_type = disk["dev_type"]
    size = text.FormatUnit(disk["size"], "h") if isinstance(disk["size"], int) else disk["size"]
    inner: Block = [("access mode", disk["mode"])]
    inner += _FormatLogicalId(dev_type, disk["logical_id"], roman)
    if not static:
        inner.append(("on primary", FormatDiskStatus(dev_type, disk["pstatus"], roman)))
    if disk["sstatus"]:
        inner.append(("on secondary", FormatDiskStatus(dev_type, disk["sstatus"], roman)))
    if disk["children"]:
        inner.append("child devices:")
        children: Block = []
        for index, child in enumerate(disk["children"]):
            children += _DescribeDisk(f"child {index}", child, static, roman)
        inner.append(children)
    return [f"- {title}: {dev_type}, size {size}", inner]


# Consoles


def FormatVncConsole(node: str, address: str, port: int | None) -> str | None:
    """Where the VNC console is; None without one."""
    if not address:
        return None
    if address.startswith("/"):
        return f"vnc to {node}:{address}"
    if port is None:
        return "vnc, but no port is allocated"
    display = f"(display {port - _VNC_BASE_PORT})"
    if address in _ALL_ADDRESSES:
        return f"vnc to {node}:{port} {display}"
    return f"vnc to {address}:{port} (node {node}) {display}"


# All of it


def _FormatParam(name: str, own: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    if name in own:
        return f"- {name}: {own[name]}"
    return f"- {name}: default ({actual[name]})"


def _DescribeParams(own: Mapping[str, Any], actual: Mapping[str, Any]) -> Block:
    return [_FormatParam(name, own, actual) for name in sorted(actual)]


def _DescribeOtherParams(info: Mapping[str, Any]) -> Block:
    """All parameters beside those of the hypervisor: which are its own, which are inherited.

    A master of release 2.1 tells only of the backend's; then there is nothing, as there was.
    """
    if "nics_actual" not in info:
        return []
    block: Block = [
        "- backend:",
        _DescribeParams(info["be_instance"], info["be_actual"]),
    ]
    for index, (own, actual) in enumerate(
        zip(info["nics_instance"], info["nics_actual"], strict=True)
    ):
        block += [f"- nic/{index}:", _DescribeParams(own, actual)]
    for disk in info["disks"]:
        block += [
            f"- {disk['iv_name']}:",
            _DescribeParams(disk["params_instance"], disk["params_actual"]),
        ]
    return ["Parameters:", block]


def DescribeInstance(info: Mapping[str, Any], static: bool, roman: bool = False) -> list[str]:
    """The lines that describe an instance.

    @param info: from C{OP_INSTANCE_QUERY_DATA}
    @param static: leave out what was not asked of nodes
    """
    be_actual, hv_actual = info["be_actual"], info["hv_actual"]
    state = f"State: configured to be {info['config_state']}"
    if not static:
        run_state = info["run_state"]
        state += f", actual state is {'unknown' if run_state is None else run_state}"
    port = info["network_port"]

    hypervisor: Block = []
    address = hv_actual.get(constants.HV_VNC_BIND_ADDRESS)
    console = FormatVncConsole(info["pnode"], address, port) if address else None
    if console is not None:
        hypervisor.append(f"- console connection: {console}")
    hypervisor += _DescribeParams(info["hv_instance"], hv_actual)

    nics = [
        f"- nic/{index}: MAC: {mac}, IP: {ip}, mode: {mode}, link: {link}"
        for index, (ip, mac, mode, link) in enumerate(info["nics"])
    ]
    disks: Block = []
    for disk in info["disks"]:
        disks += _DescribeDisk(disk["iv_name"], disk, static, roman)
    return [
        f"Instance name: {info['name']}",
        f"UUID: {info['uuid']}",
        f"Serial number: {text.TryToRoman(info['serial_no'], roman)}",
        f"Creation time: {text.FormatTime(info['ctime'])}",
        f"Modification time: {text.FormatTime(info['mtime'])}",
        state,
        *FormatBlock(
            [
                "Nodes:",
                [
                    f"- primary: {info['pnode']}",
                    f"- secondaries: {text.CommaJoin(info['snodes'])}",
                ],
                f"Operating system: {info['os']}",
                f"Allocated network port: {text.TryToRoman(port, roman)}",
                f"Hypervisor: {info['hypervisor']}",
                hypervisor,
                "Hardware:",
                [
                    f"- VCPUs: {text.TryToRoman(be_actual[constants.BE_VCPUS], roman)}",
                    f"- memory: {text.TryToRoman(be_actual[constants.BE_MEMORY], roman)}MiB",
                    "- NICs:",
                    nics,
                ],
                "Disks:",
                disks,
                *_DescribeOtherParams(info),
            ],
            1,
        ),
    ]
