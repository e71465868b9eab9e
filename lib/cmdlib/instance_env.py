"""What hook scripts are told of an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import constants, objects
from . import base


def BuildInstanceHookEnv(
    *,
    name: str,
    primary_node: str,
    secondary_nodes: Sequence[str],
    os_type: str,
    admin_up: bool,
    disk_template: str,
    nics: Sequence[tuple[str | None, str | None, Mapping[str, Any]]],
    disks: Sequence[tuple[int, str]],
    beparams: Mapping[str, Any],
    hvparams: Mapping[str, Any],
    hypervisor: str,
    memory: int | None = None,
    vcpus: int | None = None,
) -> dict[str, Any]:
    """The environment that all hooks of an instance have in common; pure.

    @param nics: (IP, MAC, filled parameters) each
    @param disks: (size in MiB, mode) each
    @param beparams: filled
    @param hvparams: filled, with the global ones
    @param memory: MiB, if they are about to be other than C{beparams} says; so C{vcpus}
    """
    env: dict[str, Any] = {
        "OP_TARGET": name,
        "INSTANCE_NAME": name,
        "INSTANCE_PRIMARY": primary_node,
        "INSTANCE_SECONDARIES": " ".join(secondary_nodes),
        "INSTANCE_OS_TYPE": os_type,
        "INSTANCE_STATUS": "up" if admin_up else "down",
        "INSTANCE_MEMORY": beparams[constants.BE_MEMORY] if memory is None else memory,
        "INSTANCE_VCPUS": beparams[constants.BE_VCPUS] if vcpus is None else vcpus,
        "INSTANCE_DISK_TEMPLATE": disk_template,
        "INSTANCE_HYPERVISOR": hypervisor,
        "INSTANCE_NIC_COUNT": len(nics),
        "INSTANCE_DISK_COUNT": len(disks),
    }
    for i, (ip, mac, nicparams) in enumerate(nics):
        mode, link = nicparams[constants.NIC_MODE], nicparams[constants.NIC_LINK]
        env[f"INSTANCE_NIC{i}_IP"] = ip or ""
        env[f"INSTANCE_NIC{i}_MAC"] = mac
        env[f"INSTANCE_NIC{i}_MODE"] = mode
        env[f"INSTANCE_NIC{i}_LINK"] = link
        if mode == constants.NIC_MODE_BRIDGED:
            env[f"INSTANCE_NIC{i}_BRIDGE"] = link
    for i, (size, mode) in enumerate(disks):
        env[f"INSTANCE_DISK{i}_SIZE"] = size
        env[f"INSTANCE_DISK{i}_MODE"] = mode
    for kind, values in (("BE", beparams), ("HV", hvparams)):
        for key, value in values.items():
            env[f"INSTANCE_{kind}_{key}"] = value
    return env


def FillNics(
    cluster: objects.Cluster, nics: Sequence[objects.NIC]
) -> list[tuple[str | None, str | None, dict[str, Any]]]:
    """NICs as hooks want them: (IP, MAC, filled parameters)."""
    defaults = cluster.nicparams[constants.PP_DEFAULT]
    return [(nic.ip, nic.mac, objects.FillDict(defaults, nic.nicparams or {})) for nic in nics]


def BuildInstanceHookEnvByObject(
    lu: base.LogicalUnit, instance: objects.Instance, **override: Any
) -> dict[str, Any]:
    """The common environment of an instance in the configuration.

    @param override: arguments of L{BuildInstanceHookEnv} that shall be other than stored
    """
    cluster = lu.cfg.GetClusterInfo()
    args: dict[str, Any] = {
        "name": instance.name,
        "primary_node": instance.primary_node,
        "secondary_nodes": sorted(instance.secondary_nodes),
        "os_type": instance.os,
        "admin_up": bool(instance.admin_up),
        "disk_template": instance.disk_template,
        "nics": FillNics(cluster, instance.nics),
        "disks": [(disk.size, disk.mode) for disk in instance.disks],
        "beparams": cluster.FillBE(instance),
        "hvparams": cluster.FillHV(instance),
        "hypervisor": instance.hypervisor,
    }
    return BuildInstanceHookEnv(**{**args, **override})
