"""What C{gnt-cluster info} prints: pure text from the cluster's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import uidpool
from ..utils import text
from . import clusterparams


def FormatGroupedParams(
    params: Mapping[str, Any], level: int = 1, roman: bool = False
) -> list[str]:
    """Lines for parameters in groups of any depth, by name.

    @param level: depth of the outermost names, 1 for the first one
    """
    indent = "  " * level
    lines = []
    for key in sorted(params):
        value = params[key]
        if isinstance(value, Mapping):
            lines.append(f"{indent}- {key}:")
            lines += FormatGroupedParams(value, level + 1, roman)
        else:
            lines.append(f"{indent}  {key}: {text.TryToRoman(value, roman)}")
    return lines


def _FormatTags(tags: Sequence[str]) -> str:
    return text.CommaJoin(text.NiceSort(tags)) if tags else "(none)"


def FormatAllocators(allocators: Any) -> str:
    """The default allocators in the form that C{--default-iallocator} takes."""
    if not allocators:
        return clusterparams.NO_ALLOCATORS
    if isinstance(allocators, str):
        return allocators
    return " ".join(f"{mode}:{','.join(allocators[mode])}" for mode in sorted(allocators))


def FormatClusterInfo(info: Mapping[str, Any], roman: bool = False) -> list[str]:
    """The lines of C{gnt-cluster info}.

    @param info: from LUXI's QueryClusterInfo
    @param roman: numbers as Roman numerals, where that is customary
    """
    bits, machine = info["architecture"]
    pool_size = text.TryToRoman(info["candidate_pool_size"], roman)
    lines = [
        f"Cluster name: {info['name']}",
        f"Cluster UUID: {info['uuid']}",
        f"Creation time: {text.FormatTime(info['ctime'])}",
        f"Modification time: {text.FormatTime(info['mtime'])}",
        f"Master node: {info['master']}",
        f"Architecture (this node): {bits} ({machine})",
        f"Tags: {_FormatTags(info['tags'])}",
        f"Default hypervisor: {info['default_hypervisor']}",
        f"Enabled hypervisors: {text.CommaJoin(info['enabled_hypervisors'])}",
        "Hypervisor parameters:",
        *FormatGroupedParams(info["hvparams"]),
        "OS specific hypervisor parameters:",
        *FormatGroupedParams(info["os_hvp"]),
        "Cluster parameters:",
        f"  - candidate pool size: {pool_size}",
        f"  - master netdev: {info['master_netdev']}",
        f"  - lvm volume group: {info['volume_group_name']}",
        f"  - file storage path: {info['file_storage_dir']}",
        *(
            [f"  - shared file storage path: {info['shared_file_storage_dir']}"]
            if info.get("shared_file_storage_dir")
            else []
        ),
        f"  - maintenance of node health: {info['maintain_node_health']}",
        f"  - uid pool: {uidpool.FormatUidPool(info['uid_pool'], roman=roman)}",
    ]
    if "default_iallocator" in info:
        lines.append(
            f"  - default instance allocator: {FormatAllocators(info['default_iallocator'])}"
        )
    lines += [
        "Default instance parameters:",
        *FormatGroupedParams(info["beparams"], roman=roman),
        "Default nic parameters:",
        *FormatGroupedParams(info["nicparams"], roman=roman),
    ]
    if "diskparams" in info:
        lines += ["Default disk parameters:", *FormatGroupedParams(info["diskparams"], roman=roman)]
    return lines
