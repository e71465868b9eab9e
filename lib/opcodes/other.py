"""Opcodes on operating systems, exports, tags, and for tests."""

from __future__ import annotations

from .. import constants, ht
from . import common
from .base import REQUIRED, OpCode, Param


class OpOsDiagnose(OpCode):
    """List the operating systems of all nodes; result: rows in the order of the fields."""

    OP_PARAMS = (
        common.P_OUTPUT_FIELDS,
        Param("names", common.NAMES, REQUIRED, "Must be empty: all of them"),
    )
    OP_RESULT = common.ROWS


class OpBackupQuery(OpCode):
    """List the exports on nodes; result: {node: [names], or false if the node failed}."""

    OP_PARAMS = (
        common.P_NODES,
        Param("use_locking", ht.TBool, False, "Accepted; nodes are always locked, shared"),
    )
    OP_RESULT = ht.TDictOf(ht.TString, ht.TOr(ht.TBool, ht.TListOf(ht.TString)))


class OpBackupExport(OpCode):
    """Export an instance; result: [was the export finished, [was the disk exported, ...]]."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (
        common.P_INSTANCE_NAME,
        Param("target_node", common.NAME, REQUIRED, "Node that keeps the export"),
        Param("shutdown", ht.TBool, REQUIRED, "Shut the instance down while snapshots are taken"),
        common.P_SHUTDOWN_TIMEOUT,
    )
    OP_RESULT = ht.TTuple(ht.TBool, ht.TListOf(ht.TBool))


class OpBackupRemove(OpCode):
    """Remove the export of an instance from all nodes."""

    OP_DSC_FIELD = "instance_name"
    OP_PARAMS = (common.P_INSTANCE_NAME,)
    OP_RESULT = common.NOTHING


class OpTagsGet(OpCode):
    """List the tags of an object."""

    OP_DSC_FIELD = "name"
    OP_PARAMS = (common.P_TAG_KIND, common.P_TAG_NAME)
    OP_RESULT = common.TAGS


class OpTagsSearch(OpCode):
    """Find tags; result: list of [path of the object, tag]."""

    OP_DSC_FIELD = "pattern"
    OP_PARAMS = (Param("pattern", ht.TString, REQUIRED, "Regular expression"),)
    OP_RESULT = ht.TListOf(ht.TTuple(ht.TString, ht.TString))


class OpTagsSet(OpCode):
    """Add tags to an object."""

    OP_PARAMS = (common.P_TAG_KIND, common.P_TAG_NAME, common.P_TAGS)
    OP_RESULT = common.NOTHING


class OpTagsDel(OpCode):
    """Remove tags from an object."""

    OP_PARAMS = (common.P_TAG_KIND, common.P_TAG_NAME, common.P_TAGS)
    OP_RESULT = common.NOTHING


class OpTestDelay(OpCode):
    """Sleep on the master and on nodes."""

    OP_DSC_FIELD = "duration"
    OP_PARAMS = (
        Param("duration", ht.TNumber, REQUIRED, "Seconds"),
        Param("on_master", ht.TBool, REQUIRED, "Sleep on the master"),
        Param("on_nodes", common.NAMES, REQUIRED, "Nodes to sleep on"),
        Param("interruptible", ht.TBool, False, "The sleep on the master can be cancelled"),
    )
    OP_RESULT = common.NOTHING


class OpTestAllocator(OpCode):
    """Show the input of an allocator (direction C{in}) or what it answers (C{out}).

    Result: the text.
    """

    OP_DSC_FIELD = "allocator"
    OP_PARAMS = (
        Param(
            "direction",
            ht.TElemOf(constants.VALID_IALLOCATOR_DIRECTIONS),
            REQUIRED,
            "What to show",
        ),
        Param(
            "mode",
            ht.TElemOf(constants.VALID_IALLOCATOR_MODES),
            REQUIRED,
            "What to ask for",
        ),
        Param(
            "name",
            common.MAYBE_NAME,
            None,
            "Instance; needed in the modes allocate, relocate, multi-evacuate",
        ),
        Param("allocator", common.MAYBE_NAME, None, "Script; needed for direction out"),
        Param("mem_size", ht.TMaybe(ht.TNonNegativeInt), None, "New instance: memory, MiB"),
        Param(
            "disks",
            ht.TMaybe(ht.TListOf(common.SETTINGS)),
            None,
            "New instance: per disk size (MiB) and mode (r or w)",
        ),
        Param("disk_template", common.MAYBE_NAME, None, "New instance: disk layout"),
        Param("os", common.MAYBE_NAME, None, "New instance: OS"),
        Param("tags", ht.TMaybe(common.TAGS), None, "New instance: tags"),
        Param(
            "nics",
            ht.TMaybe(ht.TListOf(common.SETTINGS)),
            None,
            "New instance: per network interface mac, ip, bridge",
        ),
        Param("vcpus", ht.TMaybe(ht.TNonNegativeInt), None, "New instance: virtual CPUs"),
        Param("hypervisor", common.MAYBE_NAME, None, "New instance: hypervisor"),
        Param("evac_nodes", ht.TMaybe(common.NAMES), None, "Evacuation: nodes to empty"),
        Param("max_moves", ht.TMaybe(ht.TNonNegativeInt), None, "Balancing: most moves allowed"),
    )
    OP_RESULT = ht.TString
