"""Names that other versions use: older class names, later parameters.

Clients of later versions send parameters that this version does not have. Each is one of these:

- another name, or another form, of something this version has: it is translated;
- a wish for nothing (a feature switched off, None): it is dropped;
- a wish for a feature that is not there: it stays, and a strict load refuses it by name.

So nothing that a client asked for is ever ignored silently.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, Final

#: Class names of the 2.1 generation -> names used here (those of 2.4 and later).
CLASS_ALIASES: Final[Mapping[str, str]] = {
    "OpPostInitCluster": "OpClusterPostInit",
    "OpDestroyCluster": "OpClusterDestroy",
    "OpQueryClusterInfo": "OpClusterQuery",
    "OpVerifyCluster": "OpClusterVerify",
    "OpVerifyDisks": "OpClusterVerifyDisks",
    "OpRepairDiskSizes": "OpClusterRepairDiskSizes",
    "OpQueryConfigValues": "OpClusterConfigQuery",
    "OpRenameCluster": "OpClusterRename",
    "OpSetClusterParams": "OpClusterSetParams",
    "OpRedistributeConfig": "OpClusterRedistConf",
    "OpRemoveNode": "OpNodeRemove",
    "OpAddNode": "OpNodeAdd",
    "OpQueryNodes": "OpNodeQuery",
    "OpQueryNodeVolumes": "OpNodeQueryvols",
    "OpQueryNodeStorage": "OpNodeQueryStorage",
    "OpModifyNodeStorage": "OpNodeModifyStorage",
    "OpSetNodeParams": "OpNodeSetParams",
    "OpPowercycleNode": "OpNodePowercycle",
    "OpEvacuateNode": "OpNodeEvacuate",
    "OpMigrateNode": "OpNodeMigrate",
    "OpNodeEvacuationStrategy": "OpNodeEvacStrategy",
    "OpCreateInstance": "OpInstanceCreate",
    "OpReinstallInstance": "OpInstanceReinstall",
    "OpRemoveInstance": "OpInstanceRemove",
    "OpRenameInstance": "OpInstanceRename",
    "OpStartupInstance": "OpInstanceStartup",
    "OpShutdownInstance": "OpInstanceShutdown",
    "OpRebootInstance": "OpInstanceReboot",
    "OpReplaceDisks": "OpInstanceReplaceDisks",
    "OpFailoverInstance": "OpInstanceFailover",
    "OpMigrateInstance": "OpInstanceMigrate",
    "OpMoveInstance": "OpInstanceMove",
    "OpConnectConsole": "OpInstanceConsole",
    "OpActivateInstanceDisks": "OpInstanceActivateDisks",
    "OpDeactivateInstanceDisks": "OpInstanceDeactivateDisks",
    "OpRecreateInstanceDisks": "OpInstanceRecreateDisks",
    "OpQueryInstances": "OpInstanceQuery",
    "OpQueryInstanceData": "OpInstanceQueryData",
    "OpSetInstanceParams": "OpInstanceSetParams",
    "OpGrowDisk": "OpInstanceGrowDisk",
    "OpDiagnoseOS": "OpOsDiagnose",
    "OpQueryExports": "OpBackupQuery",
    "OpExportInstance": "OpBackupExport",
    "OpRemoveExport": "OpBackupRemove",
    "OpGetTags": "OpTagsGet",
    "OpSearchTags": "OpTagsSearch",
    "OpAddTags": "OpTagsSet",
    "OpDelTags": "OpTagsDel",
}

#: Ids that people expect beside the real ones.
ID_ALIASES: Final[Mapping[str, str]] = {
    "OP_ADD_NODE": "OP_NODE_ADD",
    "OP_REMOVE_NODE": "OP_NODE_REMOVE",
    "OP_NODE_REPAIR_STORAGE": "OP_REPAIR_NODE_STORAGE",
    "OP_CLUSTER_MODIFY": "OP_CLUSTER_SET_PARAMS",
}

#: Ids of later versions, never to be used for anything else.
LATER_IDS: Final = frozenset(
    [
        "OP_BACKUP_PREPARE",
        "OP_TEST_JQUEUE",
        "OP_TEST_DUMMY",
        "OP_QUERY",
        "OP_QUERY_FIELDS",
        "OP_OOB_COMMAND",
        "OP_GROUP_ADD",
        "OP_GROUP_ASSIGN_NODES",
        "OP_GROUP_QUERY",
        "OP_GROUP_SET_PARAMS",
        "OP_GROUP_REMOVE",
        "OP_GROUP_RENAME",
        "OP_CLUSTER_VERIFY_CONFIG",
        "OP_CLUSTER_VERIFY_GROUP",
        "OP_GROUP_VERIFY_DISKS",
        "OP_INSTANCE_CHANGE_GROUP",
        "OP_GROUP_EVACUATE",
        "OP_CLUSTER_ACTIVATE_MASTER_IP",
        "OP_CLUSTER_DEACTIVATE_MASTER_IP",
        "OP_CLUSTER_RENEW_CRYPTO",
        "OP_RESTRICTED_COMMAND",
        "OP_INSTANCE_MULTI_ALLOC",
        "OP_EXT_STORAGE_DIAGNOSE",
        "OP_NETWORK_ADD",
        "OP_NETWORK_REMOVE",
        "OP_NETWORK_RENAME",
        "OP_NETWORK_SET_PARAMS",
        "OP_NETWORK_CONNECT",
        "OP_NETWORK_DISCONNECT",
        "OP_NETWORK_QUERY",
        "OP_TEST_OS_PARAMS",
    ]
)

#: A UUID beside, or instead of, a name; every name may be a UUID here.
_UUID_PARAMS: Final = {
    "instance_uuid": "instance_name",
    "node_uuid": "node_name",
    "pnode_uuid": "pnode",
    "snode_uuid": "snode",
    "src_node_uuid": "src_node",
    "remote_node_uuid": "remote_node",
    "target_node_uuid": "target_node",
    "node_uuids": "nodes",
    "on_node_uuids": "on_nodes",
}

#: Another name for the same thing.
_RENAMED: Final[Mapping[str, Mapping[str, str]]] = {
    "OP_TEST_ALLOCATOR": {"memory": "mem_size", "iallocator": "allocator"},
}

#: Later parameters and the values that ask for nothing this version would not do anyway; None
#: always is one of those.
_Neutral = Mapping[str, Container[Any]]

_OFF: Final = (False,)
_ON: Final = (True,)
_EITHER: Final = (False, True)
_EMPTY: Final[tuple[Any, ...]] = ({}, [], (), "")
_NONE: Final = ()


class _Anything:
    """Every value is in it: the parameter has no meaning without the feature it steers."""

    def __contains__(self, value: object) -> bool:
        return True


_ANY: Final = _Anything()

_OSPARAMS: Final[_Neutral] = {
    "osparams": _EMPTY,
    "osparams_private": _EMPTY,
    "osparams_secret": _EMPTY,
}
_MOVING: Final[_Neutral] = {
    # There are no instance policies and no memory ballooning.
    "ignore_ipolicy": _EITHER,
    "allow_runtime_changes": _EITHER,
    "ignore_hvversions": _EITHER,
}

LATER_PARAMS: Final[Mapping[str, _Neutral]] = {
    "OP_CLUSTER_SET_PARAMS": {
        **_OSPARAMS,
        "osparams_private_cluster": _EMPTY,
        "blacklisted_os": _EMPTY,
        "hidden_os": _EMPTY,
        "force": _EITHER,
        "prealloc_wipe_disks": _OFF,
        "use_external_mip_script": _OFF,
        "enabled_user_shutdown": _OFF,
        "modify_etc_hosts": _NONE,
        "reserved_lvs": _NONE,
        "ndparams": _EMPTY,
        "ipolicy": _EMPTY,
        "hv_state": _EMPTY,
        "disk_state": _EMPTY,
        "default_iallocator_params": _EMPTY,
        "drbd_helper": _NONE,
        "master_netdev": _NONE,
        "master_netmask": _NONE,
        "file_storage_dir": _NONE,
        "gluster_storage_dir": _NONE,
        "enabled_disk_templates": _NONE,
        "enabled_data_collectors": _EMPTY,
        "data_collector_interval": _EMPTY,
        "diagnose_data_collector_filename": _NONE,
        "instance_communication_network": _EMPTY,
        "install_image": _EMPTY,
        "zeroing_image": _EMPTY,
        "compression_tools": _NONE,
        "mac_prefix": _NONE,
        "max_running_jobs": _NONE,
        "max_tracked_jobs": _NONE,
    },
    "OP_CLUSTER_VERIFY": {
        "group_name": _NONE,
        "ignore_errors": _EMPTY,
        "verify_clutter": _OFF,
    },
    "OP_NODE_ADD": {
        "group": ("default",),
        "master_capable": _ON,
        "vm_capable": _ON,
        "ndparams": _EMPTY,
        "hv_state": _EMPTY,
        "disk_state": _EMPTY,
        "node_setup": _OFF,
    },
    "OP_NODE_SET_PARAMS": {
        "master_capable": _ON,
        "vm_capable": _ON,
        "secondary_ip": _NONE,
        "ndparams": _EMPTY,
        "hv_state": _EMPTY,
        "disk_state": _EMPTY,
        "powered": _NONE,
    },
    # Only secondaries are moved, whatever else can go wrong ends the job.
    "OP_NODE_EVACUATE": {"mode": ("secondary-only",), "ignore_soft_errors": _OFF},
    "OP_NODE_MIGRATE": _MOVING,
    "OP_INSTANCE_CREATE": {
        **_OSPARAMS,
        "source_handshake": _NONE,
        "source_x509_ca": _NONE,
        "source_instance_name": _NONE,
        "source_shutdown_timeout": _ANY,
        "tags": _EMPTY,
        "group_name": ("default",),
        "ignore_ipolicy": _EITHER,
        "conflicts_check": _EITHER,
        "opportunistic_locking": _EITHER,
        "compress": ("none",),
        "instance_communication": _OFF,
        "helper_startup_timeout": _ANY,
        "helper_shutdown_timeout": _ANY,
        "forthcoming": _OFF,
        "commit": _OFF,
    },
    "OP_INSTANCE_REINSTALL": {
        **_OSPARAMS,
        "clear_osparams": _OFF,
        "clear_osparams_private": _OFF,
        "remove_osparams": _EMPTY,
        "remove_osparams_private": _EMPTY,
    },
    "OP_INSTANCE_RENAME": {"name_check": _ON},
    "OP_INSTANCE_STARTUP": {
        "ignore_offline_nodes": _OFF,
        "no_remember": _OFF,
        "startup_paused": _OFF,
        "shutdown_timeout": _ANY,
    },
    "OP_INSTANCE_SHUTDOWN": {
        "force": _OFF,
        "ignore_offline_nodes": _OFF,
        "no_remember": _OFF,
        "admin_state_source": _NONE,
    },
    "OP_INSTANCE_REPLACE_DISKS": {"ignore_ipolicy": _EITHER},
    "OP_INSTANCE_FAILOVER": {**_MOVING, "cleanup": _OFF},
    "OP_INSTANCE_MIGRATE": {**_MOVING, "allow_failover": _OFF},
    "OP_INSTANCE_MOVE": {"ignore_ipolicy": _EITHER, "compress": ("none",)},
    "OP_INSTANCE_ACTIVATE_DISKS": {"wait_for_sync": _OFF},
    "OP_INSTANCE_DEACTIVATE_DISKS": {"force": _OFF},
    "OP_INSTANCE_RECREATE_DISKS": {"nodes": _EMPTY, "iallocator": _NONE},
    # Locks are stricter than without, the answer is the same.
    "OP_INSTANCE_QUERY_DATA": {"use_locking": _EITHER},
    "OP_TAGS_GET": {"use_locking": _EITHER},
    "OP_INSTANCE_SET_PARAMS": {
        **_OSPARAMS,
        "clear_osparams": _OFF,
        "clear_osparams_private": _OFF,
        "remove_osparams": _EMPTY,
        "remove_osparams_private": _EMPTY,
        "wait_for_sync": _ON,
        "offline": _NONE,
        "runtime_mem": _NONE,
        "pnode": _NONE,
        "hotplug": _OFF,
        "hotplug_if_possible": _EITHER,
        "instance_communication": _OFF,
        "conflicts_check": _EITHER,
        "ignore_ipolicy": _EITHER,
        "ext_params": _EMPTY,
        "file_driver": _NONE,
        "file_storage_dir": _NONE,
    },
    "OP_INSTANCE_GROW_DISK": {"absolute": _OFF, "ignore_ipolicy": _EITHER},
    "OP_BACKUP_EXPORT": {
        "compress": ("none", "gzip"),
        "mode": ("local",),
        "x509_key_name": _EMPTY,
        "destination_x509_ca": _EMPTY,
        "remove_instance": _OFF,
        "ignore_remove_failures": _EITHER,
        "zero_free_space": _OFF,
        "zeroing_timeout_fixed": _ANY,
        "zeroing_timeout_per_mib": _ANY,
        "long_sleep": _OFF,
    },
    "OP_TEST_ALLOCATOR": {
        "instances": _EMPTY,
        "evac_mode": _NONE,
        "target_groups": _EMPTY,
        "spindle_use": _ANY,
        "count": (1,),
        "group_name": _NONE,
    },
    "OP_TEST_DELAY": {"repeat": (0,), "no_locks": _OFF},
}


def IsLaterParam(op_id: str, name: str) -> bool:
    """Is this a parameter that later versions have for the opcode and this one has not?"""
    return (
        name in LATER_PARAMS.get(op_id, {})
        or name in _TRANSLATED_NAMES.get(op_id, ())
        or name in _UUID_PARAMS
    )


def _TranslateIpCheck(params: dict[str, Any]) -> None:
    """Rename: C{ip_check} is the opposite of C{ignore_ip}."""
    if isinstance(params.get("ip_check"), bool):
        ip_check = params.pop("ip_check")
        params.setdefault("ignore_ip", not ip_check)
    elif "ip_check" in params and params["ip_check"] is None:
        del params["ip_check"]


def _TranslateMigrationMode(params: dict[str, Any]) -> None:
    """Migration: C{mode} says what C{live} says; None leaves it to the cluster, which is live."""
    if "mode" not in params:
        return
    known = {"live": True, "non-live": False, None: True}
    mode = params["mode"]
    if mode is not None and not isinstance(mode, str) or mode not in known:
        return
    del params["mode"]
    if params.get("live") is None or mode is not None:
        params["live"] = known[mode]


def _TranslateDeviceChanges(params: dict[str, Any]) -> None:
    """Modify: changes of NICs and disks as C{[operation, index, settings]}.

    Adding at the end and removing the last one are what the pairs of this version can say; other
    triples stay as they are and are refused.
    """
    for name in ("nics", "disks"):
        changes = params.get(name)
        if isinstance(changes, (list, tuple)):
            params[name] = [_PairFromTriple(change) for change in changes]


def _PairFromTriple(change: Any) -> Any:
    if not (isinstance(change, (list, tuple)) and len(change) == 3):
        return change
    operation, index, settings = change
    if isinstance(index, bool):
        return change
    if isinstance(index, str) and (index == "-1" or index.isdecimal()):
        index = int(index)
    if operation in ("add", "remove") and index == -1:
        return [operation, settings]
    if operation == "modify" and isinstance(index, int) and index >= 0:
        return [index, settings]
    return change


_TRANSLATIONS: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    "OP_INSTANCE_RENAME": _TranslateIpCheck,
    "OP_INSTANCE_MIGRATE": _TranslateMigrationMode,
    "OP_NODE_MIGRATE": _TranslateMigrationMode,
    "OP_INSTANCE_SET_PARAMS": _TranslateDeviceChanges,
}
_TRANSLATED_NAMES: Final[Mapping[str, Container[str]]] = {
    "OP_INSTANCE_RENAME": ("ip_check",),
    "OP_INSTANCE_MIGRATE": ("mode",),
    "OP_NODE_MIGRATE": ("mode",),
}


def Translate(op_id: str, data: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """The parameters in this version's words.

    @param data: as they came; not changed
    @param known: names that the opcode declares
    @return: a copy; what can not be said in this version's words is still in it, under its own name
    """
    params = dict(data)
    foreign = [name for name in params if name not in known]
    translation = _TRANSLATIONS.get(op_id)
    if translation is not None:
        translation(params)
    if not foreign:
        return params
    renamed = _RENAMED.get(op_id, {})
    neutral = LATER_PARAMS.get(op_id, {})
    for name in foreign:
        if name not in params:
            continue
        value = params[name]
        target = renamed.get(name) or _UUID_PARAMS.get(name)
        if target is not None and (value is None or target in known):
            del params[name]
            if value is not None:
                params[target] = value
        elif name in neutral and (value is None or value in neutral[name]):
            del params[name]
    return params
