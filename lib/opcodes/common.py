"""Rows and predicates that several opcodes share."""

from __future__ import annotations

from typing import Final

from .. import constants, ht
from .base import REQUIRED, Param

# Predicates

#: A name or a UUID.
NAME: Final = ht.TNonEmptyString
MAYBE_NAME: Final = ht.TMaybe(NAME)
NAMES: Final = ht.TListOf(NAME)
MAYBE_BOOL: Final = ht.TMaybe(ht.TBool)
#: Settings of one kind; keys and values are checked against their table where they are used.
SETTINGS: Final = ht.TDictOf(ht.TNonEmptyString, ht.TAny)
SETTINGS_BY_NAME: Final = ht.TDictOf(ht.TNonEmptyString, SETTINGS)
TAGS: Final = ht.TListOf(ht.TString)
INDEXES: Final = ht.TListOf(ht.TNonNegativeInt)
STORAGE_TYPE: Final = ht.TElemOf(constants.VALID_STORAGE_TYPES)
DISK_TEMPLATE: Final = ht.TElemOf(constants.DISK_TEMPLATES)
ROWS: Final = ht.TListOf(ht.TList)
#: What changed: list of [parameter, new value].
CHANGES: Final = ht.TListOf(ht.TTuple(ht.TString, ht.TAny))
NOTHING: Final = ht.TNone
#: Other jobs do the rest: for each [True, job id] or [False, why it was not submitted].
JOBS: Final = ht.TObject(
    {"jobs": ht.TListOf(ht.TTuple(ht.TBool, ht.TOr(ht.TJobId, ht.TString)))}, others=True
)

# Rows

P_INSTANCE_NAME: Final = Param("instance_name", NAME, REQUIRED, "Instance")
P_NODE_NAME: Final = Param("node_name", NAME, REQUIRED, "Node")
P_OUTPUT_FIELDS: Final = Param("output_fields", NAMES, REQUIRED, "Fields of each row, in order")
P_NAMES: Final = Param("names", NAMES, REQUIRED, "Which ones; an empty list means all")
P_NODES: Final = Param("nodes", NAMES, REQUIRED, "Nodes to look at; an empty list means all")
P_USE_LOCKING: Final = Param(
    "use_locking", ht.TBool, REQUIRED, "Hold locks while asking nodes, so that nothing vanishes"
)
P_SHUTDOWN_TIMEOUT: Final = Param(
    "shutdown_timeout",
    ht.TNonNegativeInt,
    constants.DEFAULT_SHUTDOWN_TIMEOUT,
    "Seconds that the guest has to shut down before it is killed",
)
P_IGNORE_CONSISTENCY: Final = Param(
    "ignore_consistency", ht.TBool, False, "Go on with disks that have no good copy elsewhere"
)
P_FORCE_VARIANT: Final = Param(
    "force_variant", ht.TBool, False, "Accept an OS variant that the OS does not declare"
)
P_IALLOCATOR: Final = Param("iallocator", MAYBE_NAME, None, "Allocator script that chooses nodes")
P_MOVE_TARGET: Final = Param(
    "target_node", MAYBE_NAME, None, "Where it goes, if its disks are such that it has a choice"
)
P_REMOTE_NODE: Final = Param("remote_node", MAYBE_NAME, None, "New secondary node")
P_EARLY_RELEASE: Final = Param(
    "early_release", ht.TBool, False, "Give up the old storage and the locks before the resync"
)
P_STORAGE_TYPE: Final = Param("storage_type", STORAGE_TYPE, REQUIRED, "Kind of storage unit")
P_WAIT_FOR_SYNC: Final = Param(
    "wait_for_sync", ht.TBool, REQUIRED, "Return only when the mirrors are in sync"
)
P_TAG_KIND: Final = Param(
    "kind", ht.TElemOf(constants.VALID_TAG_TYPES), REQUIRED, "Kind of tagged object"
)
P_TAG_NAME: Final = Param(
    "name", ht.TString, REQUIRED, "Name of the tagged object; any text for the cluster"
)
P_TAGS: Final = Param("tags", TAGS, REQUIRED, "Tags")
