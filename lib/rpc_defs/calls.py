"""The table of node calls, by subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import constants, ht
from ..utils import hooktime
from .base import (
    MULTI,
    SINGLE,
    TMO_1DAY,
    TMO_FAST,
    TMO_NORMAL,
    TMO_SLOW,
    TMO_URGENT,
    Arg,
    Call,
)

#: Seconds that a delay test may take beyond the delay.
_DELAY_GRACE: Final = 5
#: Seconds that a node may take to end a hook script that takes too long, and to answer.
_HOOKS_GRACE: Final = 60

# Types

_STRINGS: Final = ht.TListOf(ht.TString)


def _OrEmpty(inner: ht.Type) -> ht.Type:
    """An empty text stands for none."""
    return ht.TOr(ht.TRegex("", "empty string"), inner)


#: Disks and instances are dictionaries of their objects; what is in them is the objects' matter,
#: but for the names that the node makes paths of.
_DISK: Final = ht.TObject({"dev_type": ht.TNonEmptyString}, others=True)
_INSTANCE_DICT: Final = ht.TObject(
    {"name": ht.TInstanceName}, {"os": ht.TMaybe(_OrEmpty(ht.TOsName))}, others=True
)
_DISKS: Final = ht.TListOf(_DISK)
_SETTINGS: Final = ht.TDictOf(ht.TString, ht.TAny)
#: File content: [encoding, text].
_ENCODED: Final = ht.TTuple(
    ht.TElemOf(constants.RPC_ENCODING_NONE, constants.RPC_ENCODING_ZLIB_BASE64), ht.TString
)
#: A numeric id, or a name as later versions send it.
_OWNER: Final = ht.TOr(ht.TInt, ht.TNonEmptyString)
_STATUS: Final = ht.TMaybe(ht.TDict)
_MIGRATION_STATUS: Final = ht.TObject(
    {
        "status": ht.TElemOf(*constants.MIGRATION_STATUSES),
        # Bytes
        "transferred_ram": ht.TMaybe(ht.TNonNegativeInt),
        "total_ram": ht.TMaybe(ht.TNonNegativeInt),
        # Milliseconds
        "downtime": ht.TMaybe(ht.TNonNegativeNumber),
        # Text for people; says why, after a failure
        "message": ht.TString,
    },
    others=True,
)
#: Text for people.
_TEXT: Final = ht.TString
_NOTHING: Final = ht.TNone

# Arguments

_INSTANCE_NAME: Final = Arg("name", ht.TInstanceName)
#: What units of storage are called depends on their kind.
_UNIT_NAME: Final = Arg("name", ht.TNonEmptyString)
_INSTANCE: Final = Arg("instance", _INSTANCE_DICT)
_ONE_DISK: Final = Arg("disk", _DISK)
_SOME_DISKS: Final = Arg("disks", _DISKS)
_HYPERVISOR: Final = Arg("hypervisor", ht.TNonEmptyString)
_HYPERVISORS: Final = Arg("hypervisors", _STRINGS)
_VG_NAME: Final = Arg("vg_name", ht.TVolumeGroupName)
_CLUSTER_NAME: Final = Arg("cluster_name", ht.THostName)
_DEBUG: Final = Arg("debug_level", ht.TInt)
_TARGET: Final = Arg("target", ht.TAddress)
_NODES_IP: Final = Arg("nodes_ip", ht.TDictOf(ht.THostName, ht.TAddress))
_SHUTDOWN_TIMEOUT: Final = Arg("shutdown_timeout", ht.TNonNegativeNumber)
_PATH: Final = Arg("path", ht.TNonEmptyString)
_STORAGE_TYPE: Final = Arg("storage_type", ht.TElemOf(constants.VALID_STORAGE_TYPES))
_STORAGE_ARGS: Final = Arg("storage_args", ht.TList)
#: Opaque: made by the hypervisor of one node for that of another.
_MIGRATION_INFO: Final = Arg("info", ht.TAny)
#: Where an instance migrates to: an address, or what the node there answered to accept_instance.
_ENDPOINT: Final = Arg(
    "target", ht.TOr(ht.TAddress, ht.TRegex(r"\[[0-9a-fA-F:.%a-z]+\]:[0-9]+", "[address]:port"))
)


def _DelayTimeout(args: Sequence[Any]) -> float:
    (duration,) = args
    return float(duration) + _DELAY_GRACE


def _HooksTimeout(args: Sequence[Any]) -> float:
    env = args[2]
    return hooktime.GetDirectoryTimeout(hooktime.GetTimeout(env)) + _HOOKS_GRACE


def _ShutdownTimeout(args: Sequence[Any]) -> float:
    # The time for the guest is the user's; what remains is for us.
    return TMO_NORMAL + float(args[-1])


_NODE_CALLS: Final = (
    Call(
        "version",
        MULTI,
        TMO_URGENT,
        [],
        ht.TInt,
        "Protocol version of the node",
        static=True,
        read_only=True,
    ),
    Call(
        "master_info",
        MULTI,
        TMO_URGENT,
        [],
        # Later versions append to it
        ht.TNonEmptyListOf(ht.TMaybe(ht.TString)),
        "Who the node thinks is the master: [network device, address, node], and how new its copies"
        " of the configuration and of the ssconf files are",
        static=True,
        read_only=True,
    ),
    Call(
        "node_info",
        MULTI,
        TMO_URGENT,
        # Without LVM there is no volume group to ask for
        [Arg("vg_name", ht.TMaybe(_OrEmpty(ht.TVolumeGroupName))), _HYPERVISOR],
        ht.TDict,
        "Memory, disk, CPUs and boot id of the node",
        read_only=True,
    ),
    Call(
        "node_verify",
        MULTI,
        TMO_NORMAL,
        [Arg("checks", ht.TDictOf(ht.TNonEmptyString, ht.TAny)), _CLUSTER_NAME],
        ht.TDict,
        "Results of the checks asked for, under the same keys",
        read_only=True,
    ),
    Call(
        "node_volumes",
        MULTI,
        TMO_FAST,
        [],
        ht.TListOf(ht.TDict),
        "Logical volumes of the node, one entry for each volume and device",
        read_only=True,
    ),
    Call(
        "node_add",
        SINGLE,
        TMO_NORMAL,
        [
            Arg("dsa", ht.TString),
            Arg("dsa_pub", ht.TString),
            Arg("rsa", ht.TString),
            Arg("rsa_pub", ht.TString),
            Arg("ssh_key", ht.TString),
            Arg("ssh_pub", ht.TString),
        ],
        _NOTHING,
        "Install the SSH keys of the cluster; an empty text means there is no such key",
    ),
    Call(
        "node_leave_cluster",
        SINGLE,
        TMO_NORMAL,
        [Arg("modify_ssh_setup", ht.TBool)],
        _TEXT,
        "Remove everything of the cluster from the node and end its daemon",
        static=True,
    ),
    Call(
        "node_start_master",
        SINGLE,
        TMO_FAST,
        [Arg("start_daemons", ht.TBool), Arg("no_voting", ht.TBool)],
        _NOTHING,
        "Bring up the master's address, and its daemons if asked",
        static=True,
    ),
    Call(
        "node_stop_master",
        SINGLE,
        TMO_FAST,
        [Arg("stop_daemons", ht.TBool)],
        _NOTHING,
        "Take down the master's address, and its daemons if asked",
        static=True,
    ),
    Call(
        "node_demote_from_mc",
        SINGLE,
        TMO_FAST,
        [],
        _NOTHING,
        "Give up the copy of the configuration",
    ),
    Call(
        "node_powercycle",
        SINGLE,
        TMO_NORMAL,
        [_HYPERVISOR],
        _TEXT,
        "Reset the node, in a few seconds",
    ),
    Call(
        "node_tcp_ping",
        SINGLE,
        TMO_URGENT,
        [
            Arg("source", ht.TMaybe(_OrEmpty(ht.TAddress))),
            _TARGET,
            Arg("port", ht.TPositiveInt),
            Arg("timeout", ht.TNonNegativeNumber),
            Arg("live_port_needed", ht.TBool),
        ],
        ht.TBool,
        "Can the node connect from source to target",
        read_only=True,
    ),
    Call(
        "node_has_ip_address",
        SINGLE,
        TMO_FAST,
        [Arg("address", ht.TNonEmptyString)],
        ht.TBool,
        "Is it an address of the node",
        read_only=True,
    ),
    Call(
        "bridges_exist",
        SINGLE,
        TMO_URGENT,
        [Arg("bridges", ht.TListOf(ht.TDeviceName))],
        _NOTHING,
        "Fail, naming them, if bridges are missing",
        read_only=True,
    ),
    Call(
        "upload_file",
        MULTI,
        TMO_NORMAL,
        [
            _PATH,
            Arg("data", _ENCODED),
            Arg("mode", ht.TNonNegativeInt),
            Arg("uid", _OWNER),
            Arg("gid", _OWNER),
            Arg("atime", ht.TNumber),
            Arg("mtime", ht.TNumber),
        ],
        _NOTHING,
        "Replace one of the files that the cluster keeps alike on its nodes",
        static=True,
    ),
    Call(
        "config_update",
        MULTI,
        TMO_FAST,
        [
            # Serial numbers: of the configuration that the node must have, and of the new one
            Arg("serials", ht.TTuple(ht.TNonNegativeInt, ht.TNonNegativeInt)),
            Arg(
                "instructions",
                ht.TListOf(ht.TOr(ht.TString, ht.TTuple(ht.TNonNegativeInt, ht.TNonNegativeInt))),
            ),
            Arg("checksum", ht.TNonNegativeInt),
        ],
        _NOTHING,
        "Change the copy of the configuration: parts [offset, length] of the old one, and new text",
        static=True,
    ),
    Call(
        "write_ssconf_files",
        MULTI,
        TMO_NORMAL,
        [Arg("values", ht.TDictOf(ht.TNonEmptyString, ht.TString))],
        _NOTHING,
        "Write the simple configuration files",
        static=True,
    ),
    Call(
        "hooks_runner",
        MULTI,
        _HooksTimeout,
        [
            Arg("hooks_path", ht.TPluginName),
            Arg("phase", ht.TElemOf(constants.HOOKS_PHASE_PRE, constants.HOOKS_PHASE_POST)),
            Arg("env", ht.TDictOf(ht.TString, ht.TString)),
        ],
        ht.TListOf(ht.TTuple(ht.TString, ht.TInt, ht.TString)),
        "Run hooks: [script, 0 skipped, 1 failed or 2 done, output] for each",
    ),
    Call(
        "iallocator_runner",
        SINGLE,
        TMO_NORMAL,
        [Arg("name", ht.TPluginName), Arg("input", ht.TString)],
        ht.TString,
        "What the allocator script answers to the input",
        read_only=True,
    ),
    Call(
        "hypervisor_validate_params",
        MULTI,
        TMO_NORMAL,
        [_HYPERVISOR, Arg("params", _SETTINGS)],
        _NOTHING,
        "Fail if the parameters do not fit the node",
        read_only=True,
    ),
    Call(
        "test_delay",
        MULTI,
        _DelayTimeout,
        [Arg("duration", ht.TNumber)],
        _NOTHING,
        "Sleep; a negative duration fails",
    ),
)

_INSTANCE_CALLS: Final = (
    Call(
        "instance_info",
        SINGLE,
        TMO_URGENT,
        [_INSTANCE_NAME, _HYPERVISOR],
        ht.TDict,
        "Memory, state and time of a running instance; empty if it does not run",
        read_only=True,
    ),
    Call(
        "all_instances_info",
        MULTI,
        TMO_URGENT,
        [_HYPERVISORS],
        ht.TDictOf(ht.TString, ht.TDict),
        "Memory, CPUs, state and time of each running instance",
        read_only=True,
    ),
    Call(
        "instance_list",
        MULTI,
        TMO_URGENT,
        [_HYPERVISORS],
        _STRINGS,
        "Names of the running instances",
        read_only=True,
    ),
    Call(
        "instance_start",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE],
        _NOTHING,
        "Start an instance; a running one is fine",
    ),
    Call(
        "instance_shutdown",
        SINGLE,
        _ShutdownTimeout,
        [_INSTANCE, Arg("timeout", ht.TNonNegativeNumber)],
        _NOTHING,
        "Ask the guest to shut down, after the time-out kill it",
    ),
    Call(
        "instance_reboot",
        SINGLE,
        _ShutdownTimeout,
        [
            _INSTANCE,
            Arg(
                "reboot_type",
                ht.TElemOf(constants.INSTANCE_REBOOT_SOFT, constants.INSTANCE_REBOOT_HARD),
            ),
            _SHUTDOWN_TIMEOUT,
        ],
        _NOTHING,
        "Reboot a running instance",
    ),
    Call(
        "instance_os_add",
        SINGLE,
        TMO_1DAY,
        [_INSTANCE, Arg("reinstall", ht.TBool), _DEBUG],
        _NOTHING,
        "Run the create script of the OS",
    ),
    Call(
        "instance_run_rename",
        SINGLE,
        TMO_SLOW,
        [_INSTANCE, Arg("old_name", ht.TInstanceName), _DEBUG],
        _NOTHING,
        "Run the rename script of the OS",
    ),
    Call(
        "instance_os_import",
        SINGLE,
        TMO_1DAY,
        [
            _INSTANCE,
            Arg("src_node", ht.THostName),
            # None, false or an empty text: no image for that disk
            Arg("src_images", ht.TListOf(ht.TOr(ht.TNone, ht.TElemOf(False), ht.TString))),
            _CLUSTER_NAME,
            _DEBUG,
        ],
        # Older daemons tell which images were imported
        ht.TAny,
        "Run the import script of the OS for each image",
    ),
    Call(
        "instance_migratable",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE],
        _NOTHING,
        "Fail if the instance is not in a state to be migrated",
        read_only=True,
    ),
    Call(
        "migration_info",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE],
        ht.TAny,
        "What the target's hypervisor must know",
        read_only=True,
    ),
    Call(
        "accept_instance",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE, _MIGRATION_INFO, _TARGET],
        # None: the target's address alone is enough
        ht.TMaybe(ht.TNonEmptyString),
        "Prepare the target of a migration: what instance_migrate gets as its target",
    ),
    Call(
        "finalize_migration",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE, _MIGRATION_INFO, Arg("success", ht.TBool)],
        _NOTHING,
        "On the target: wait until the guest runs there, or end it after a migration that failed",
    ),
    Call(
        "instance_migrate",
        SINGLE,
        TMO_SLOW,
        [_INSTANCE, _ENDPOINT, Arg("live", ht.TBool)],
        _NOTHING,
        "Start to migrate the instance away",
    ),
    Call(
        "instance_get_migration_status",
        SINGLE,
        TMO_URGENT,
        [_INSTANCE],
        _MIGRATION_STATUS,
        "On the source: how far the migration is",
        read_only=True,
    ),
    Call(
        "instance_abort_migration",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE],
        _NOTHING,
        "On the source: cancel the migration, unless it is over; the guest goes on running there",
    ),
    Call(
        "instance_finalize_migration_src",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE, Arg("success", ht.TBool), Arg("live", ht.TBool)],
        _NOTHING,
        "On the source: remove the instance that has gone, or let it go on after a failure",
    ),
)

_BLOCKDEV_CALLS: Final = (
    Call(
        "blockdev_create",
        SINGLE,
        TMO_NORMAL,
        [
            _ONE_DISK,
            Arg("size", ht.TNonNegativeInt),
            Arg("owner", _OrEmpty(ht.TInstanceName)),
            Arg("on_primary", ht.TBool),
            Arg("info", ht.TString),
        ],
        # The unique id: whatever the kind of device has
        ht.TAny,
        "Create a device with its children; size is in MiB",
    ),
    Call("blockdev_remove", SINGLE, TMO_NORMAL, [_ONE_DISK], _NOTHING, "Remove a device"),
    Call(
        "blockdev_rename",
        SINGLE,
        TMO_NORMAL,
        [Arg("devices", ht.TListOf(ht.TTuple(_DISK, ht.TList)))],
        _NOTHING,
        "Rename devices: list of [disk, new unique id]",
        unwrapped=True,
    ),
    Call(
        "blockdev_assemble",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK, Arg("owner", _OrEmpty(ht.TInstanceName)), Arg("as_primary", ht.TBool)],
        ht.TOr(ht.TBool, ht.TString),
        "Activate a device: its path, or true where there is nothing to do",
    ),
    Call("blockdev_shutdown", SINGLE, TMO_NORMAL, [_ONE_DISK], _NOTHING, "Deactivate a device"),
    Call(
        "blockdev_addchildren",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK, _SOME_DISKS],
        _NOTHING,
        "Add components to a mirrored device",
    ),
    Call(
        "blockdev_removechildren",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK, _SOME_DISKS],
        _NOTHING,
        "Take components off a mirrored device",
    ),
    Call(
        "blockdev_getmirrorstatus",
        SINGLE,
        TMO_NORMAL,
        [_SOME_DISKS],
        ht.TListOf(ht.TDict),
        "Synchronisation status of each disk",
        unwrapped=True,
        read_only=True,
    ),
    Call(
        "blockdev_find",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK],
        _STATUS,
        "Status of a device; None if there is no such device",
        read_only=True,
    ),
    Call(
        "blockdev_close",
        SINGLE,
        TMO_NORMAL,
        [Arg("instance_name", _OrEmpty(ht.TInstanceName)), _SOME_DISKS],
        _NOTHING,
        "Close devices; with an instance's name also remove its disk links",
    ),
    Call(
        "blockdev_getsize",
        SINGLE,
        TMO_NORMAL,
        [_SOME_DISKS],
        ht.TListOf(ht.TMaybe(ht.TNonNegativeInt)),
        "Size of each disk in bytes; None for a missing one",
        method="call_blockdev_getsizes",
        read_only=True,
    ),
    Call(
        "blockdev_grow",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK, Arg("amount", ht.TNonNegativeInt)],
        _NOTHING,
        "Make a device bigger by that many MiB; a mirror by 0: what is below it has grown, and the"
        " disk says to which size",
    ),
    Call(
        "blockdev_snapshot",
        SINGLE,
        TMO_NORMAL,
        [_ONE_DISK],
        ht.TNonEmptyString,
        "Take a snapshot: the name of its volume",
    ),
    Call(
        "blockdev_export",
        SINGLE,
        TMO_1DAY,
        [
            _ONE_DISK,
            Arg("dest_node", ht.THostName),
            Arg("dest_path", ht.TNonEmptyString),
            _CLUSTER_NAME,
        ],
        _NOTHING,
        "Copy a device to one of another node",
    ),
    Call(
        "drbd_disconnect_net",
        MULTI,
        TMO_NORMAL,
        [_NODES_IP, _SOME_DISKS],
        _NOTHING,
        "Cut the network connection of DRBD devices",
    ),
    Call(
        "drbd_attach_net",
        MULTI,
        TMO_NORMAL,
        [
            _NODES_IP,
            _SOME_DISKS,
            Arg("instance_name", _OrEmpty(ht.TInstanceName)),
            Arg("multimaster", ht.TBool),
        ],
        _NOTHING,
        "Connect DRBD devices, with one or two masters",
    ),
    Call(
        "drbd_wait_sync",
        MULTI,
        TMO_SLOW,
        [_NODES_IP, _SOME_DISKS],
        ht.TTuple(ht.TBool, ht.TMaybe(ht.TNumber)),
        "Are DRBD devices in sync: [all done, lowest percentage]",
        read_only=True,
    ),
)

_STORAGE_CALLS: Final = (
    Call(
        "lv_list",
        MULTI,
        TMO_URGENT,
        [_VG_NAME],
        ht.TDictOf(ht.TString, ht.TTuple(ht.TString, ht.TBool, ht.TBool)),
        "Logical volumes: {name: [size in MiB as text, inactive, in use]}",
        read_only=True,
    ),
    Call(
        "vg_list",
        MULTI,
        TMO_URGENT,
        [],
        ht.TDictOf(ht.TString, ht.TNumber),
        "Volume groups: {name: size in MiB}",
        read_only=True,
    ),
    Call(
        "storage_list",
        MULTI,
        TMO_NORMAL,
        [_STORAGE_TYPE, _STORAGE_ARGS, Arg("name", ht.TMaybe(ht.TString)), Arg("fields", _STRINGS)],
        ht.TListOf(ht.TList),
        "Storage units: rows in the order of the fields",
        read_only=True,
    ),
    Call(
        "storage_modify",
        SINGLE,
        TMO_NORMAL,
        [_STORAGE_TYPE, _STORAGE_ARGS, _UNIT_NAME, Arg("changes", _SETTINGS)],
        _NOTHING,
        "Change a storage unit",
    ),
    Call(
        "storage_execute",
        SINGLE,
        TMO_NORMAL,
        [_STORAGE_TYPE, _STORAGE_ARGS, _UNIT_NAME, Arg("operation", ht.TNonEmptyString)],
        _NOTHING,
        "Run an operation on a storage unit",
    ),
    Call(
        "file_storage_dir_create",
        SINGLE,
        TMO_FAST,
        [_PATH],
        _NOTHING,
        "Create a directory for disks in files",
    ),
    Call(
        "file_storage_dir_remove",
        SINGLE,
        TMO_FAST,
        [_PATH],
        _NOTHING,
        "Remove an empty directory for disks in files",
    ),
    Call(
        "file_storage_dir_rename",
        SINGLE,
        TMO_FAST,
        [Arg("old_path", ht.TNonEmptyString), Arg("new_path", ht.TNonEmptyString)],
        _NOTHING,
        "Rename a directory for disks in files",
    ),
)

_OS_CALLS: Final = (
    Call(
        "os_diagnose",
        MULTI,
        TMO_FAST,
        [],
        # Later API versions have more to tell about each
        ht.TListOf(ht.TNonEmptyList),
        "OS definitions: list of [name, path, valid, message, variants]",
        read_only=True,
    ),
    Call(
        "os_get",
        SINGLE,
        TMO_FAST,
        [Arg("name", ht.TOsName)],
        ht.TDict,
        "One OS definition",
        read_only=True,
    ),
    Call(
        "snapshot_export",
        SINGLE,
        TMO_1DAY,
        [
            _ONE_DISK,
            Arg("dest_node", ht.THostName),
            _INSTANCE,
            _CLUSTER_NAME,
            Arg("index", ht.TNonNegativeInt),
            _DEBUG,
        ],
        _NOTHING,
        "Run the export script of the OS on a snapshot",
    ),
    Call(
        "finalize_export",
        SINGLE,
        TMO_NORMAL,
        [_INSTANCE, Arg("snapshots", ht.TListOf(ht.TOr(_DISK, ht.TElemOf(False))))],
        _NOTHING,
        "Write the description of an export and put it in its place",
    ),
    Call(
        "export_info",
        SINGLE,
        TMO_FAST,
        [_PATH],
        ht.TString,
        "Description of an export (INI)",
        read_only=True,
    ),
    Call(
        "export_list",
        MULTI,
        TMO_FAST,
        [],
        _STRINGS,
        "Names of the exports on the node",
        read_only=True,
    ),
    Call("export_remove", SINGLE, TMO_FAST, [_INSTANCE_NAME], _NOTHING, "Remove an export"),
)

_QUEUE_CALLS: Final = (
    Call(
        "jobqueue_update",
        MULTI,
        TMO_URGENT,
        [_PATH, Arg("data", _ENCODED)],
        _NOTHING,
        "Write a file of the job queue",
        static=True,
    ),
    Call(
        "jobqueue_update_many",
        MULTI,
        TMO_URGENT,
        [Arg("files", ht.TListOf(ht.TTuple(ht.TNonEmptyString, _ENCODED)))],
        _NOTHING,
        "Write files of the job queue: list of [path, data]",
        static=True,
    ),
    Call(
        "jobqueue_purge",
        SINGLE,
        TMO_NORMAL,
        [],
        _NOTHING,
        "Remove the files of the job queue",
        static=True,
    ),
    Call(
        "jobqueue_rename",
        MULTI,
        TMO_URGENT,
        [Arg("renames", ht.TListOf(ht.TTuple(ht.TNonEmptyString, ht.TNonEmptyString)))],
        ht.TMaybe(ht.TListOf(ht.TNone)),
        "Rename files of the job queue: list of [old path, new path]",
        static=True,
        unwrapped=True,
    ),
    Call(
        "jobqueue_set_drain",
        MULTI,
        TMO_URGENT,
        [Arg("flag", ht.TBool)],
        _NOTHING,
        "Mark the job queue as drained, or not",
        static=True,
    ),
)

#: All calls by name.
CALLS: Final[dict[str, Call]] = {
    call.name: call
    for call in (
        *_NODE_CALLS,
        *_INSTANCE_CALLS,
        *_BLOCKDEV_CALLS,
        *_STORAGE_CALLS,
        *_OS_CALLS,
        *_QUEUE_CALLS,
    )
}
