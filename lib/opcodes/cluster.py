"""Opcodes on the cluster as a whole."""

from __future__ import annotations

from typing import Final

from .. import constants, ht
from . import common
from .base import REQUIRED, OpCode, Param

_UIDS: Final = ht.TMaybe(ht.TListOf(ht.TTuple(ht.TInt, ht.TInt)))
_SETTINGS_TO_REMOVE: Final = ht.TDictOf(ht.TNonEmptyString, ht.TMaybe(common.SETTINGS))
_ALLOCATORS_BY_MODE: Final = ht.TDictOf(ht.TElemOf(constants.VALID_IALLOCATOR_MODES), common.NAMES)


class OpClusterPostInit(OpCode):
    """Run the post hooks of cluster init."""

    OP_RESULT = ht.TBool


class OpClusterDestroy(OpCode):
    """Destroy the cluster; it must have no other nodes and no instances.

    Result: name of the master node.
    """

    OP_RESULT = ht.TNonEmptyString


class OpClusterQuery(OpCode):
    """Tell the parameters of the cluster."""

    OP_RESULT = ht.TDict


class OpClusterVerify(OpCode):
    """Check configuration, nodes, instances and disks of the cluster.

    Result: true if no error was found.
    """

    OP_PARAMS = (
        Param(
            "skip_checks",
            ht.TListOf(ht.TElemOf(constants.VERIFY_OPTIONAL_CHECKS)),
            REQUIRED,
            "Optional checks to leave out",
        ),
        Param("verbose", ht.TBool, REQUIRED, "Tell more about the progress"),
        Param("error_codes", ht.TBool, REQUIRED, "Report in a form that programs can read"),
        Param(
            "debug_simulate_errors",
            ht.TBool,
            REQUIRED,
            "Report every check as failed, to see the messages",
        ),
    )
    # The sum of hook results may make it a number.
    OP_RESULT = ht.TOr(ht.TBool, ht.TInt)


class OpClusterVerifyDisks(OpCode):
    """Find disks that are not active or missing.

    Result: [{node: error text}, [instances whose disks need activation], {instance: [[node,
    volume], ...] of missing volumes}].
    """

    OP_RESULT = ht.TTuple(
        ht.TDictOf(ht.TString, ht.TString),
        ht.TListOf(ht.TString),
        ht.TDictOf(ht.TString, ht.TListOf(ht.TTuple(ht.TString, ht.TString))),
    )


class OpClusterRepairDiskSizes(OpCode):
    """Correct the disk sizes in the configuration by the real ones.

    Result: list of [instance, disk index, new size in MiB].
    """

    OP_PARAMS = (Param("instances", common.NAMES, REQUIRED, "Instances; an empty list means all"),)
    OP_RESULT = ht.TListOf(ht.TTuple(ht.TString, ht.TInt, ht.TInt))


class OpClusterConfigQuery(OpCode):
    """Tell single values of the configuration, in the order of the fields."""

    OP_PARAMS = (common.P_OUTPUT_FIELDS,)
    OP_RESULT = ht.TList


class OpClusterRename(OpCode):
    """Give the cluster another name and the address that this name has."""

    OP_DSC_FIELD = "name"
    OP_PARAMS = (Param("name", common.NAME, REQUIRED, "New name of the cluster"),)
    OP_RESULT = ht.TOr(ht.TNone, ht.TString)


class OpClusterSetParams(OpCode):
    """Change parameters of the cluster; what is absent or None stays as it is."""

    OP_PARAMS = (
        Param(
            "vg_name",
            ht.TMaybe(ht.TString),
            None,
            "Volume group of instance disks; an empty text switches LVM off",
        ),
        Param(
            "enabled_hypervisors",
            ht.TMaybe(common.NAMES),
            None,
            "All enabled hypervisors; the first one is the default",
        ),
        Param(
            "hvparams",
            ht.TMaybe(common.SETTINGS_BY_NAME),
            None,
            "Hypervisor parameters to change: {hypervisor: {parameter: value}}",
        ),
        Param(
            "os_hvp",
            ht.TMaybe(ht.TDictOf(ht.TOsName, ht.TMaybe(_SETTINGS_TO_REMOVE))),
            None,
            "Hypervisor parameters for one OS: {OS: {hypervisor: {parameter: value}}}; the value"
            " 'default' takes a parameter away, None instead of a dictionary all of them",
        ),
        Param("beparams", ht.TMaybe(common.SETTINGS), None, "Backend parameters to change"),
        Param("nicparams", ht.TMaybe(common.SETTINGS), None, "NIC parameters to change"),
        Param("diskparams", ht.TMaybe(common.SETTINGS), None, "Disk parameters to change"),
        Param(
            "candidate_pool_size",
            ht.TMaybe(ht.TOr(ht.TInt, ht.TNonEmptyString)),
            None,
            "Wanted number of master candidates, at least 1",
        ),
        Param(
            "maintain_node_health",
            common.MAYBE_BOOL,
            None,
            "May the watcher remove instances and disks that no node should have",
        ),
        Param(
            "shared_file_storage_dir",
            ht.TMaybe(ht.TString),
            None,
            "Directory that all nodes share, for the disks of 'sharedfile' instances; an empty text"
            " for none",
        ),
        Param("uid_pool", _UIDS, None, "New user-id pool: list of [lowest, highest]"),
        Param("add_uids", _UIDS, None, "Ranges to add to the user-id pool"),
        Param("remove_uids", _UIDS, None, "Ranges to remove from the user-id pool"),
        Param(
            "default_iallocator",
            ht.TMaybe(ht.TOr(_ALLOCATORS_BY_MODE, ht.TString)),
            None,
            "Allocators to use when neither nodes nor an allocator are named: {mode: [scripts, in"
            " the order in which to try them]}, or one script for all modes; empty for none",
        ),
    )
    OP_RESULT = common.NOTHING


class OpClusterRedistConf(OpCode):
    """Send configuration and shared files to all nodes again."""

    OP_RESULT = common.NOTHING
