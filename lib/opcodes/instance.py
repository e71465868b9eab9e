"""Opcodes on instances."""

from __future__ import annotations

from typing import Final

from .. import constants, ht
from . import common
from .base import REQUIRED, OpCode, Param

_DEVICE_CHANGES: Final = ht.TListOf(
    ht.TTuple(
        ht.TOr(ht.TElemOf(constants.DDM_ADD, constants.DDM_REMOVE), ht.TNonNegativeInt),
        common.SETTINGS,
    )
)


class OpInstanceCreate(OpCode):
    """Create an instance, or import one from an export.

    Result: the nodes of the instance; of a dry run: the nodes it would get.
    """

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "mode",
            ht.TElemOf(constants.INSTANCE_CREATE_MODES),
            REQUIRED,
            "Create a new instance or import one",
        ),
        Param(
            "disks",
            ht.TListOf(common.SETTINGS),
            REQUIRED,
            "Per disk: size (MiB or text with unit), mode (rw or ro), adopt (name of an existing"
            " volume), disk parameters",
        ),
        Param(
            "nics",
            ht.TListOf(common.SETTINGS),
            REQUIRED,
            "Per network interface: mac, ip, mode, link, bridge (all texts)",
        ),
        Param("start", ht.TBool, REQUIRED, "Start it afterwards"),
        common.P_WAIT_FOR_SYNC,
        Param("ip_check", ht.TBool, REQUIRED, "Refuse if the address of the name answers"),
        Param("hvparams", common.SETTINGS, REQUIRED, "Hypervisor parameters of the instance"),
        Param("beparams", common.SETTINGS, REQUIRED, "Backend parameters of the instance"),
        Param("os_type", common.MAYBE_NAME, None, "OS, or OS+variant; needed to create"),
        common.P_FORCE_VARIANT,
        Param("no_install", ht.TBool, False, "Leave the disks empty; also means no start"),
        Param(
            "disk_template", ht.TMaybe(common.DISK_TEMPLATE), None, "Disk layout; needed to create"
        ),
        Param(
            "pnode",
            common.MAYBE_NAME,
            None,
            "Primary node; without it, and without an allocator, one of the cluster chooses",
        ),
        Param("snode", common.MAYBE_NAME, None, "Secondary node"),
        common.P_IALLOCATOR,
        Param("hypervisor", common.MAYBE_NAME, None, "Hypervisor; None for the default one"),
        Param("name_check", ht.TBool, True, "Resolve the name"),
        Param(
            "identify_defaults",
            common.MAYBE_BOOL,
            None,
            "Do not store parameters that equal the defaults of the cluster",
        ),
        Param(
            "file_storage_dir",
            ht.TMaybe(ht.TString),
            None,
            "Directory of the disk files, relative to that of the cluster",
        ),
        Param(
            "file_driver",
            ht.TMaybe(ht.TElemOf(constants.FILE_DRIVER)),
            None,
            "Driver for disks in files",
        ),
        Param("src_node", common.MAYBE_NAME, None, "Import: node that has the export"),
        Param(
            "src_path",
            common.MAYBE_NAME,
            None,
            "Import: directory of the export, absolute or below the export directory",
        ),
    )
    OP_RESULT = ht.TListOf(ht.TNonEmptyString)


class OpInstanceReinstall(OpCode):
    """Install the OS of an instance again, or another one."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("os_type", common.MAYBE_NAME, None, "New OS; None keeps the present one"),
        common.P_FORCE_VARIANT,
    )
    OP_RESULT = common.NOTHING


class OpInstanceRemove(OpCode):
    """Shut an instance down and remove it with its disks."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("ignore_failures", ht.TBool, REQUIRED, "Go on when a step fails"),
        common.P_SHUTDOWN_TIMEOUT,
    )
    OP_RESULT = common.NOTHING


class OpInstanceRename(OpCode):
    """Give a stopped instance another name."""

    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("new_name", common.NAME, REQUIRED, "New name"),
        Param("ignore_ip", ht.TBool, False, "Go on though the address of the new name answers"),
    )
    OP_RESULT = ht.TOr(ht.TNone, ht.TString)


class OpInstanceStartup(OpCode):
    """Start an instance."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("force", ht.TBool, REQUIRED, "Start though a secondary's disks fail"),
        Param("hvparams", common.SETTINGS, {}, "Hypervisor parameters for this run only"),
        Param("beparams", common.SETTINGS, {}, "Backend parameters for this run only"),
    )
    OP_RESULT = common.NOTHING


class OpInstanceShutdown(OpCode):
    """Shut an instance down."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "timeout",
            ht.TNonNegativeInt,
            constants.DEFAULT_SHUTDOWN_TIMEOUT,
            "Seconds that the guest has before it is killed",
        ),
    )
    OP_RESULT = common.NOTHING


class OpInstanceReboot(OpCode):
    """Reboot an instance."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "reboot_type",
            ht.TElemOf(constants.REBOOT_TYPES),
            REQUIRED,
            "In the guest (soft), by the hypervisor (hard), or shutdown and start (full)",
        ),
        Param("ignore_secondaries", ht.TBool, REQUIRED, "Full: start though a secondary fails"),
        common.P_SHUTDOWN_TIMEOUT,
    )
    OP_RESULT = common.NOTHING


class OpInstanceReplaceDisks(OpCode):
    """Replace the storage of mirrored disks."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "mode",
            ht.TElemOf(constants.REPLACE_MODES),
            REQUIRED,
            "On the primary, on the secondary, on a new secondary, or wherever disks are faulty",
        ),
        Param("disks", common.INDEXES, REQUIRED, "Indexes of disks; an empty list means all"),
        common.P_REMOTE_NODE,
        common.P_IALLOCATOR,
        common.P_EARLY_RELEASE,
    )
    OP_RESULT = common.NOTHING


class OpInstanceFailover(OpCode):
    """Stop an instance on its primary node and start it on its secondary, or on any other node."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "ignore_consistency",
            ht.TBool,
            REQUIRED,
            "Go on though the disks on the secondary are behind or the primary does not answer",
        ),
        common.P_SHUTDOWN_TIMEOUT,
        common.P_MOVE_TARGET,
        common.P_IALLOCATOR,
    )
    OP_RESULT = common.NOTHING


class OpInstanceMigrate(OpCode):
    """Move a running instance to its secondary node, or to any other node."""

    OP_DSC_FIELD = "instance_name"
    #: Until all is sent, it can be cancelled while it runs.
    interruptible = True
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("live", ht.TBool, REQUIRED, "Keep it running meanwhile"),
        Param("cleanup", ht.TBool, REQUIRED, "Tidy up after a migration that broke off"),
        common.P_MOVE_TARGET,
        common.P_IALLOCATOR,
    )
    OP_RESULT = common.NOTHING


class OpInstanceMove(OpCode):
    """Copy an instance without mirrored disks to another node."""

    OP_DSC_FIELD = "instance_name"
    #: Between two disks, it can be cancelled while it runs.
    interruptible = True
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("target_node", common.NAME, REQUIRED, "Where it goes"),
        common.P_SHUTDOWN_TIMEOUT,
        common.P_IGNORE_CONSISTENCY,
    )
    OP_RESULT = common.NOTHING


class OpInstanceConsole(OpCode):
    """Say how to reach the console; result: argv of a command to run on the master."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (common.P_INSTANCE_NAME,)
    OP_RESULT = ht.TListOf(ht.TString)


class OpInstanceActivateDisks(OpCode):
    """Make the disks of an instance accessible.

    Result: list of [primary node, name of the disk, device path or None].
    """

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("ignore_size", ht.TBool, False, "Do not compare sizes with the recorded ones"),
    )
    OP_RESULT = ht.TListOf(ht.TTuple(ht.TString, ht.TString, ht.TMaybe(ht.TString)))


class OpInstanceDeactivateDisks(OpCode):
    """Shut down the disks of a stopped instance."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (common.P_INSTANCE_NAME,)
    OP_RESULT = common.NOTHING


class OpInstanceRecreateDisks(OpCode):
    """Make the lost disks of an instance again, empty."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("disks", common.INDEXES, REQUIRED, "Indexes of disks; an empty list means all"),
    )
    OP_RESULT = common.NOTHING


class OpInstanceQuery(OpCode):
    """List instances; result: rows in the order of the fields."""

    OP_PARAMS = (common.P_OUTPUT_FIELDS, common.P_NAMES, common.P_USE_LOCKING)
    OP_RESULT = common.ROWS


class OpInstanceQueryData(OpCode):
    """Tell all about instances; result: {instance: {...}}."""

    OP_PARAMS = (
        Param("instances", common.NAMES, REQUIRED, "Instances; an empty list means all"),
        Param("static", ht.TBool, REQUIRED, "Only what the configuration knows; ask no node"),
    )
    OP_RESULT = ht.TDictOf(ht.TNonEmptyString, ht.TDict)


class OpInstanceSetParams(OpCode):
    """Change an instance; result: list of [parameter, new value]."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param(
            "nics",
            _DEVICE_CHANGES,
            [],
            "List of [add, remove or an index, {mac, ip, mode, link, bridge}]",
        ),
        Param(
            "disks",
            _DEVICE_CHANGES,
            [],
            "List of [add, remove or an index, {size (only to add), mode, disk parameters}]",
        ),
        Param("disk_template", ht.TMaybe(common.DISK_TEMPLATE), None, "Convert to this layout"),
        common.P_REMOTE_NODE,
        Param(
            "hvparams",
            common.SETTINGS,
            {},
            "Hypervisor parameters; the value 'default' removes the instance's own",
        ),
        Param(
            "beparams",
            common.SETTINGS,
            {},
            "Backend parameters; the value 'default' removes the instance's own",
        ),
        Param("os_name", common.MAYBE_NAME, None, "OS to record; nothing is installed"),
        common.P_FORCE_VARIANT,
        Param("force", ht.TBool, False, "Skip the checks of memory, bridges and OS"),
    )
    OP_RESULT = common.CHANGES


class OpInstanceGrowDisk(OpCode):
    """Make a disk bigger."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("disk", ht.TNonNegativeInt, REQUIRED, "Index of the disk"),
        Param("amount", ht.TInt, REQUIRED, "MiB to add"),
        common.P_WAIT_FOR_SYNC,
    )
    OP_RESULT = common.NOTHING
