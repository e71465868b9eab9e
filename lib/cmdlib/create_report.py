"""What a creation would do, in lines for the report of a dry run; all pure."""

from __future__ import annotations

from collections.abc import Sequence

from .. import constants
from . import announce, create_plan


def FormatDiskNames(plan: create_plan.Plan) -> str:
    """Names of the disks that there will be."""
    return announce.FormatNames([f"disk/{index}" for index in range(len(plan.disks))])


def DescribeObjects(
    name: str, plan: create_plan.Plan, new_macs: Sequence[bool]
) -> list[announce.Change]:
    """What would be in the configuration.

    @param new_macs: for each NIC, is its MAC a generated one?
    """
    lines = []
    ports = int(plan.hypervisor in constants.HTS_REQ_PORT)
    if plan.disk_template in constants.DTS_NET_MIRROR:
        ports += len(plan.disks)
    if ports:
        what = "a port is" if ports == 1 else f"{ports} ports are"
        lines.append(announce.OfCluster(f"{what} taken for it"))
    sizes = ", ".join(f"{disk['size']} MiB" for disk in plan.disks)
    values = {
        "OS": plan.os_type,
        "hypervisor": plan.hypervisor,
        "memory": f"{plan.be_filled[constants.BE_MEMORY]} MiB",
        "vcpus": plan.be_filled[constants.BE_VCPUS],
        f"{plan.disk_template} disks": sizes or "none",
    }
    lines.append(announce.OfInstance(name, f"added with {announce.FormatValues(values)}"))
    for index, (nic, filled, new_mac) in enumerate(
        zip(plan.nics, plan.nics_filled, new_macs, strict=True)
    ):
        # The real run gets another one.
        mac = "(a new one)" if new_mac else nic.mac
        shown = {"mac": mac, "ip": nic.ip or constants.VALUE_NONE, **filled}
        what = f"nic/{index} with {announce.FormatValues(shown)}"
        lines.append(announce.OfInstance(name, what))
    return lines


def DescribeAdoption(node: str, plan: create_plan.Plan) -> list[announce.Change]:
    """What would be done with volumes that are adopted."""
    volumes = ", ".join(disk[constants.IDISK_ADOPT] for disk in plan.disks)
    return announce.OnNodes([node], f"take over {volumes} as {FormatDiskNames(plan)}")


def DescribeCreation(nodes: Sequence[str], plan: create_plan.Plan) -> list[announce.Change]:
    """What would be created."""
    if not plan.disks:
        return []
    return announce.OnNodes(nodes, f"create {FormatDiskNames(plan)}")
