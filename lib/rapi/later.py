"""What clients of later generations look for beyond the 2.1 keys and resources.

Clusters of this generation have neither node groups nor instance policies nor networks: one group
with everything in it, a policy that allows everything, and empty lists say so.

The keys are added to the old ones, none is changed: a client of the 2.1 generation ignores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import constants

#: The group that all nodes are in; this is what programs assume for a node that names none.
DEFAULT_GROUP_UUID: Final = "00000000-0000-0000-0000-000000000000"
DEFAULT_GROUP_NAME: Final = "default"


def _Spec(memory: int, cpus: int, disks: int, disk_size: int, nics: int, spindles: int) -> Any:
    return {
        "memory-size": memory,
        "cpu-count": cpus,
        "disk-count": disks,
        "disk-size": disk_size,
        "nic-count": nics,
        "spindle-use": spindles,
    }


def MakeInstancePolicy() -> dict[str, Any]:
    """A policy that forbids nothing."""
    return {
        "minmax": [
            {
                "min": _Spec(0, 0, 0, 0, 0, 0),
                "max": _Spec(2**30, 2**20, 1024, 2**40, 1024, 2**20),
            }
        ],
        "std": _Spec(128, 1, 1, 1024, 1, 1),
        "disk-templates": [
            constants.DT_DISKLESS,
            constants.DT_FILE,
            constants.DT_PLAIN,
            constants.DT_DRBD8,
        ],
        "vcpu-ratio": 1000.0,
        "spindle-ratio": 1000.0,
    }


def AddClusterKeys(info: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the cluster."""
    return {"ipolicy": MakeInstancePolicy(), **info}


def AddNodeKeys(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node."""
    return {
        "cnos": None if node["ctotal"] is None else 1,
        "group.uuid": DEFAULT_GROUP_UUID,
        "master_capable": True,
        "ndparams": {"exclusive_storage": False, "spindle_count": 1},
        "spfree": 0,
        "sptotal": 0,
        "vm_capable": True,
        **node,
    }


def AddInstanceKeys(instance: Mapping[str, Any]) -> dict[str, Any]:
    """An instance."""
    beparams = instance["beparams"]
    memory = beparams.get(constants.BE_MEMORY)
    no_disks: list[None] = [None] * len(instance["disk.sizes"])
    no_nics: list[None] = [None] * len(instance["nic.macs"])
    running = instance["oper_state"]
    return {
        "disk.names": no_disks,
        "disk.spindles": no_disks,
        "nic.names": no_nics,
        "nic.networks": no_nics,
        "nic.networks.names": no_nics,
        "oper_vcpus": beparams.get(constants.BE_VCPUS) if running else None,
        **instance,
        "beparams": {
            "always_failover": False,
            "maxmem": memory,
            "minmem": memory,
            "spindle_use": 1,
            **beparams,
        },
    }


def MakeGroup(nodes: list[str], ctime: float | None, mtime: float | None) -> dict[str, Any]:
    """The one group."""
    return {
        "alloc_policy": "preferred",
        "ctime": ctime,
        "custom_diskparams": {},
        "custom_ipolicy": {},
        "custom_ndparams": {},
        "diskparams": {},
        "ipolicy": MakeInstancePolicy(),
        "mtime": mtime,
        "name": DEFAULT_GROUP_NAME,
        "ndparams": {},
        "node_cnt": len(nodes),
        "node_list": nodes,
        "serial_no": 1,
        "tags": [],
        "uuid": DEFAULT_GROUP_UUID,
    }


def MakeConsole(instance: str, node: str, command: list[str]) -> dict[str, Any]:
    """How to reach a console."""
    return {
        "command": command,
        "display": None,
        "host": node,
        "instance": instance,
        "kind": "ssh",
        "message": None,
        "port": None,
        "user": "root",
    }
