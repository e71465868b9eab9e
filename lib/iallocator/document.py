"""What an instance allocator is told: the cluster as it is, and a request; pure functions.

The document is that of Ganeti 2.1 (version 2 of the protocol), with what C{hail} of Ganeti 3.0
wants in addition; either side ignores the keys that it does not know. 2.1 left these open or had
them otherwise:

  - drained nodes have live data, too: without them their instances seem to need no memory;
  - a node that does not answer is shown as offline, so that nothing is put there;
  - without a volume group there is no disk space, rather than no answer;
  - C{disk_space_total} is a number in any case: what is not in the volume group counts as nothing
    for diskless instances, and with its size for files;
  - network cards look the same in a request and in the list of instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, errors, objects
from ..cmdlib import disk_ops

#: The only group of nodes, and what may be in it: 2.1 knows neither groups nor policies.
GROUP_UUID: Final = "00000000-0000-4000-8000-000000000001"
_MIN_SPEC: Final = dict.fromkeys(
    ("memory-size", "cpu-count", "disk-count", "disk-size", "nic-count", "spindle-use"), 0
)
_MAX_SPEC: Final = {
    "memory-size": 2**30,
    "cpu-count": 2**20,
    "disk-count": 1024,
    "disk-size": 2**40,
    "nic-count": 1024,
    "spindle-use": 2**20,
}
_STANDARD_SPEC: Final = {
    "memory-size": 128,
    "cpu-count": 1,
    "disk-count": 1,
    "disk-size": 1024,
    "nic-count": 1,
    "spindle-use": 1,
}
_NO_RATIO: Final = 1000.0

#: Answer of a node -> key of the document.
_MEMORY_KEYS: Final = {
    "memory_total": "total_memory",
    "memory_dom0": "reserved_memory",
    "memory_free": "free_memory",
    "cpu_total": "total_cpus",
}
_DISK_KEYS: Final = {"vg_size": "total_disk", "vg_free": "free_disk"}


@dataclass(frozen=True)
class NodeAnswers:
    """What nodes said of themselves.

    @ivar info: node -> its answer to C{node_info}
    @ivar running: node -> instance -> MiB of memory it has now
    @ivar unusable: node -> why nothing can be put there, though it is not marked offline
    """

    info: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    running: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


def IsNumber(value: object) -> bool:
    """Is it a number of MiB or of CPUs?"""
    return isinstance(value, int) and not isinstance(value, bool)


def CheckNodeInfo(info: Mapping[str, Any]) -> str | None:
    """What is missing in the answer of a node, so that it can not be used; None = nothing."""
    bad = [key for key in _MEMORY_KEYS if not IsNumber(info.get(key))]
    return f"it does not tell its {', '.join(bad)}" if bad else None


def GetRequiredNodes(disk_template: str) -> int:
    """How many nodes an instance is on."""
    return 2 if disk_template in constants.DTS_NET_MIRROR else 1


def ComputeDiskSpace(disk_template: str, sizes: Sequence[int]) -> int:
    """MiB that the disks of an instance take on each of its nodes."""
    in_vg = disk_ops.ComputeDiskSize(disk_template, sizes)
    if in_vg is not None:
        return in_vg
    return 0 if disk_template == constants.DT_DISKLESS else sum(sizes)


def BuildNic(cluster: objects.Cluster, nic: objects.NIC) -> dict[str, Any]:
    """A network card, with the cluster's defaults."""
    filled = cluster.FillNIC(nic)
    mode, link = filled[constants.NIC_MODE], filled[constants.NIC_LINK]
    result = {"mac": nic.mac, "ip": nic.ip, "mode": mode, "link": link}
    if mode == constants.NIC_MODE_BRIDGED:
        result["bridge"] = link
    return result


def BuildInstance(cluster: objects.Cluster, instance: objects.Instance) -> dict[str, Any]:
    """What is told of an instance."""
    filled = cluster.FillBE(instance)
    sizes = [disk.size for disk in instance.disks]
    return {
        "tags": sorted(instance.GetTags()),
        "admin_up": instance.admin_up,
        "admin_state": "up" if instance.admin_up else "down",
        "vcpus": filled[constants.BE_VCPUS],
        "memory": filled[constants.BE_MEMORY],
        "spindle_use": 1,
        "os": instance.os,
        "nodes": [instance.primary_node, *instance.secondary_nodes],
        "nics": [BuildNic(cluster, nic) for nic in instance.nics],
        "disks": [{"size": disk.size, "mode": disk.mode} for disk in instance.disks],
        "disk_template": instance.disk_template,
        "hypervisor": instance.hypervisor,
        "disk_space_total": ComputeDiskSpace(instance.disk_template, sizes),
    }


def BuildNode(
    cluster: objects.Cluster,
    node: objects.Node,
    primaries: Sequence[objects.Instance],
    answers: NodeAnswers,
) -> dict[str, Any]:
    """What is told of a node.

    @param primaries: the instances that have it as their primary node
    """
    unusable = node.name in answers.unusable
    result: dict[str, Any] = {
        "tags": sorted(node.GetTags()),
        "primary_ip": node.primary_ip,
        "secondary_ip": node.secondary_ip,
        "offline": node.offline or unusable,
        "drained": node.drained,
        "master_candidate": node.master_candidate,
        "vm_capable": True,
        "group": GROUP_UUID,
        "ndparams": {"exclusive_storage": False, "spindle_count": 1},
    }
    info = answers.info.get(node.name)
    if node.offline or unusable or info is None:
        return result
    running = answers.running.get(node.name, {})
    memory = {
        instance.name: cluster.FillBE(instance)[constants.BE_MEMORY] for instance in primaries
    }
    # A stopped or shrunken instance keeps what it may have again.
    reserved = sum(max(0, size - running.get(name, 0)) for name, size in memory.items())
    result.update({key: info[of_node] for of_node, key in _MEMORY_KEYS.items()})
    result["free_memory"] -= reserved
    for of_node, key in _DISK_KEYS.items():
        value = info.get(of_node)
        result[key] = value if IsNumber(value) else 0
    result.update(
        i_pri_memory=sum(memory.values()),
        i_pri_up_memory=sum(memory[one.name] for one in primaries if one.admin_up),
        reserved_cpus=min(1, info["cpu_total"]),
        total_spindles=0,
        free_spindles=0,
    )
    return result


def _BuildGroup() -> dict[str, Any]:
    return {
        "name": "default",
        "alloc_policy": "preferred",
        "networks": [],
        "tags": [],
        "ipolicy": {
            "minmax": [{"min": _MIN_SPEC, "max": _MAX_SPEC}],
            "std": _STANDARD_SPEC,
            "disk-templates": sorted(constants.DISK_TEMPLATES),
            "vcpu-ratio": _NO_RATIO,
            "spindle-ratio": _NO_RATIO,
        },
    }


def BuildCluster(
    cluster: objects.Cluster,
    nodes: Iterable[objects.Node],
    instances: Iterable[objects.Instance],
    answers: NodeAnswers,
) -> dict[str, Any]:
    """The whole document but for the request."""
    by_primary: dict[str, list[objects.Instance]] = {}
    described = {}
    for instance in instances:
        by_primary.setdefault(instance.primary_node, []).append(instance)
        described[instance.name] = BuildInstance(cluster, instance)
    return {
        "version": constants.IALLOCATOR_VERSION,
        "cluster_name": cluster.cluster_name,
        "cluster_tags": sorted(cluster.GetTags()),
        "enabled_hypervisors": list(cluster.enabled_hypervisors),
        "nodegroups": {GROUP_UUID: _BuildGroup()},
        "nodes": {
            node.name: BuildNode(cluster, node, by_primary.get(node.name, []), answers)
            for node in nodes
        },
        "instances": described,
    }


# Requests


def BuildAllocate(
    cluster: objects.Cluster,
    *,
    name: str,
    disk_template: str,
    disks: Sequence[Mapping[str, Any]],
    nics: Sequence[objects.NIC | Mapping[str, Any]],
    os: str | None,
    memory: int,
    vcpus: int,
    tags: Sequence[str] = (),
    hypervisor: str | None = None,
) -> dict[str, Any]:
    """Where shall a new instance go?

    @param disks: per disk C{size} (MiB) and C{mode}
    @param nics: objects as they will be stored, or what is sent as it is
    @param memory: MiB
    """
    sizes = [disk["size"] for disk in disks]
    return {
        "type": constants.IALLOCATOR_MODE_ALLOC,
        "name": name,
        "disk_template": disk_template,
        "tags": list(tags),
        "os": os,
        "vcpus": vcpus,
        "memory": memory,
        "spindle_use": 1,
        "disks": [{"size": disk["size"], "mode": disk["mode"]} for disk in disks],
        "disk_space_total": ComputeDiskSpace(disk_template, sizes),
        "nics": [
            {**BuildNic(cluster, nic), "nicparams": dict(nic.nicparams or {})}
            if isinstance(nic, objects.NIC)
            else dict(nic)
            for nic in nics
        ],
        "required_nodes": GetRequiredNodes(disk_template),
        "hypervisor": hypervisor or cluster.enabled_hypervisors[0],
    }


def BuildRelocate(
    instance: objects.Instance, relocate_from: Sequence[str] | None = None
) -> dict[str, Any]:
    """Where else can the secondary of a mirrored instance go?

    An instance on storage that all nodes share has no secondary: asked is for another primary.

    @param relocate_from: default: the node to leave
    @raise errors.OpPrereqError: C{wrong_input}: it is not mirrored; C{wrong_state}: it has not
        exactly one secondary
    """
    template = instance.disk_template
    if template in constants.DTS_EXT_MIRROR:
        current = [instance.primary_node]
    elif template in constants.DTS_NET_MIRROR:
        current = list(instance.secondary_nodes)
        if len(current) != 1:
            raise errors.OpPrereqError(
                f"Instance {instance.name} has not exactly one secondary node, but"
                f" {', '.join(current) or 'none'}",
                errors.ECODE_STATE,
            )
    else:
        raise errors.OpPrereqError(
            f"Instance {instance.name} can not be relocated: its disk template '{template}' is not"
            " mirrored",
            errors.ECODE_INVAL,
        )
    return {
        "type": constants.IALLOCATOR_MODE_RELOC,
        "name": instance.name,
        "disk_space_total": ComputeDiskSpace(template, [disk.size for disk in instance.disks]),
        "required_nodes": 1,
        "relocate_from": list(relocate_from or current),
    }


def BuildEvacuate(evac_nodes: Sequence[str]) -> dict[str, Any]:
    """Where can all secondaries of some nodes go?"""
    return {"type": constants.IALLOCATOR_MODE_MEVAC, "evac_nodes": list(evac_nodes)}


def BuildEvacuateOfLater(
    document: Mapping[str, Any], evac_nodes: Sequence[str], instances: Sequence[str]
) -> dict[str, Any]:
    """The document with the same question as L{BuildEvacuate}, in the form of Ganeti 2.5 and later.

    @param document: with a request to evacuate
    @param instances: all that have their secondary on one of the nodes
    """
    nodes = {
        # Else what leaves one of them might go to another one.
        name: {**node, "drained": node["drained"] or name in evac_nodes}
        for name, node in document["nodes"].items()
    }
    request = {
        "type": "node-evacuate",
        "evac_mode": "secondary-only",
        "instances": list(instances),
    }
    return {**document, "nodes": nodes, "request": request}
