"""Opcodes on nodes and their storage."""

from __future__ import annotations

from .. import ht
from . import common
from .base import REQUIRED, OpCode, Param


class OpNodeRemove(OpCode):
    """Take a node out of the cluster."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (common.P_NODE_NAME,)
    OP_RESULT = common.NOTHING


class OpNodeAdd(OpCode):
    """Make a prepared machine a node of the cluster, or a known node a fresh one."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        Param(
            "primary_ip",
            ht.TMaybe(ht.TString),
            None,
            "Address the name resolved to; told, not asked: a value given is overwritten",
        ),
        Param(
            "secondary_ip",
            common.MAYBE_NAME,
            None,
            "Address for replication; the primary one unless the cluster is dual-homed",
        ),
        Param("readd", common.MAYBE_BOOL, False, "Set up again a node that is known already"),
    )
    OP_RESULT = common.NOTHING


class OpNodeQuery(OpCode):
    """List nodes; result: rows in the order of the fields."""

    OP_PARAMS = (common.P_OUTPUT_FIELDS, common.P_NAMES, common.P_USE_LOCKING)
    OP_RESULT = common.ROWS


class OpNodeQueryvols(OpCode):
    """List the logical volumes on nodes; result: rows of texts in the order of the fields."""

    OP_PARAMS = (common.P_NODES, common.P_OUTPUT_FIELDS)
    OP_RESULT = common.ROWS


class OpNodeQueryStorage(OpCode):
    """List storage units on nodes; result: rows in the order of the fields."""

    OP_PARAMS = (
        common.P_NODES,
        common.P_STORAGE_TYPE,
        common.P_OUTPUT_FIELDS,
        Param("name", common.MAYBE_NAME, None, "Only the unit of this name"),
    )
    OP_RESULT = common.ROWS


class OpNodeModifyStorage(OpCode):
    """Change a storage unit, e.g. make a physical volume unallocatable."""

    OP_PARAMS = (
        common.P_NODE_NAME,
        common.P_STORAGE_TYPE,
        Param("name", common.NAME, REQUIRED, "The storage unit"),
        Param("changes", common.SETTINGS, REQUIRED, "{field: new value}"),
    )
    OP_RESULT = common.NOTHING


class OpRepairNodeStorage(OpCode):
    """Repair a volume group whose disks every instance has good copies of elsewhere."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        common.P_STORAGE_TYPE,
        Param("name", common.NAME, REQUIRED, "The storage unit"),
        common.P_IGNORE_CONSISTENCY,
    )
    OP_RESULT = common.NOTHING


class OpNodeSetParams(OpCode):
    """Change the role of a node; result: list of [parameter, text]."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        Param("master_candidate", common.MAYBE_BOOL, None, "Is it a master candidate"),
        Param("offline", common.MAYBE_BOOL, None, "Is it offline: nobody talks to it"),
        Param("drained", common.MAYBE_BOOL, None, "Is it drained: nothing new is put on it"),
        Param(
            "auto_promote",
            common.MAYBE_BOOL,
            None,
            "Make other nodes master candidates if too few are left",
        ),
        Param("force", ht.TBool, False, "Accepted for the command line; without effect"),
    )
    OP_RESULT = common.CHANGES


class OpNodePowercycle(OpCode):
    """Reset a node, whatever state it is in; result: text from the node."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        Param("force", ht.TBool, REQUIRED, "Do it to the master, too"),
    )
    OP_RESULT = ht.TString


class OpNodeEvacuate(OpCode):
    """Move all secondaries away from a node; result: C{jobs}, one for each instance.

    With neither a node nor an allocator, the cluster's default allocator is asked.
    """

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        common.P_REMOTE_NODE,
        common.P_IALLOCATOR,
        common.P_EARLY_RELEASE,
    )
    OP_RESULT = common.JOBS


class OpNodeMigrate(OpCode):
    """Migrate all primary instances of a node away; result: C{jobs}, one for each instance."""

    OP_DSC_FIELD = "node_name"
    OP_PARAMS = (
        common.P_NODE_NAME,
        Param("live", ht.TBool, REQUIRED, "Keep the instances running meanwhile"),
        common.P_MOVE_TARGET,
        common.P_IALLOCATOR,
    )
    OP_RESULT = common.JOBS


class OpNodeEvacStrategy(OpCode):
    """Say where the secondaries of some nodes can go; result: list of [instance, new node].

    With neither a node nor an allocator, the cluster's default allocator is asked.
    """

    OP_DSC_FIELD = "nodes"
    OP_PARAMS = (
        Param("nodes", ht.TNonEmptyListOf(common.NAME), REQUIRED, "Nodes to empty"),
        common.P_IALLOCATOR,
        common.P_REMOTE_NODE,
    )
    OP_RESULT = ht.TListOf(ht.TTuple(ht.TString, ht.TString))
