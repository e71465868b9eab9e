"""Opcodes: the units of work that make up jobs, one class each.

The classes are declared by subject in the modules of this package, with every parameter as a row
of its name, type, default and meaning; what follows from the rows is in L{base}, what other
versions call things in L{later}. Class names are the noun-first ones of release 2.4; those of 2.1
work as well, through L{later.CLASS_ALIASES}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import (
    COMMON_PARAMS,
    OP_MAPPING,
    REQUIRED,
    OpCode,
    Param,
)
from .cluster import (
    OpClusterConfigQuery,
    OpClusterDestroy,
    OpClusterPostInit,
    OpClusterQuery,
    OpClusterRedistConf,
    OpClusterRename,
    OpClusterRepairDiskSizes,
    OpClusterSetParams,
    OpClusterVerify,
    OpClusterVerifyDisks,
)
from .instance import (
    OpInstanceActivateDisks,
    OpInstanceConsole,
    OpInstanceCreate,
    OpInstanceDeactivateDisks,
    OpInstanceFailover,
    OpInstanceGrowDisk,
    OpInstanceMigrate,
    OpInstanceMove,
    OpInstanceQuery,
    OpInstanceQueryData,
    OpInstanceReboot,
    OpInstanceRecreateDisks,
    OpInstanceReinstall,
    OpInstanceRemove,
    OpInstanceRename,
    OpInstanceReplaceDisks,
    OpInstanceSetParams,
    OpInstanceShutdown,
    OpInstanceStartup,
)
from .later import CLASS_ALIASES, ID_ALIASES, LATER_IDS
from .node import (
    OpNodeAdd,
    OpNodeEvacStrategy,
    OpNodeEvacuate,
    OpNodeMigrate,
    OpNodeModifyStorage,
    OpNodePowercycle,
    OpNodeQuery,
    OpNodeQueryStorage,
    OpNodeQueryvols,
    OpNodeRemove,
    OpNodeSetParams,
    OpRepairNodeStorage,
)
from .other import (
    OpBackupExport,
    OpBackupQuery,
    OpBackupRemove,
    OpOsDiagnose,
    OpTagsDel,
    OpTagsGet,
    OpTagsSearch,
    OpTagsSet,
    OpTestAllocator,
    OpTestDelay,
)

__all__ = [
    "CLASS_ALIASES",
    "COMMON_PARAMS",
    "ID_ALIASES",
    "LATER_IDS",
    "OP_MAPPING",
    "REQUIRED",
    "OpBackupExport",
    "OpBackupQuery",
    "OpBackupRemove",
    "OpClusterConfigQuery",
    "OpClusterDestroy",
    "OpClusterPostInit",
    "OpClusterQuery",
    "OpClusterRedistConf",
    "OpClusterRename",
    "OpClusterRepairDiskSizes",
    "OpClusterSetParams",
    "OpClusterVerify",
    "OpClusterVerifyDisks",
    "OpCode",
    "OpInstanceActivateDisks",
    "OpInstanceConsole",
    "OpInstanceCreate",
    "OpInstanceDeactivateDisks",
    "OpInstanceFailover",
    "OpInstanceGrowDisk",
    "OpInstanceMigrate",
    "OpInstanceMove",
    "OpInstanceQuery",
    "OpInstanceQueryData",
    "OpInstanceReboot",
    "OpInstanceRecreateDisks",
    "OpInstanceReinstall",
    "OpInstanceRemove",
    "OpInstanceRename",
    "OpInstanceReplaceDisks",
    "OpInstanceSetParams",
    "OpInstanceShutdown",
    "OpInstanceStartup",
    "OpNodeAdd",
    "OpNodeEvacStrategy",
    "OpNodeEvacuate",
    "OpNodeMigrate",
    "OpNodeModifyStorage",
    "OpNodePowercycle",
    "OpNodeQuery",
    "OpNodeQueryStorage",
    "OpNodeQueryvols",
    "OpNodeRemove",
    "OpNodeSetParams",
    "OpOsDiagnose",
    "OpRepairNodeStorage",
    "OpTagsDel",
    "OpTagsGet",
    "OpTagsSearch",
    "OpTagsSet",
    "OpTestAllocator",
    "OpTestDelay",
    "Param",
]

if not TYPE_CHECKING:
    # Hidden from the type checker, which would take every misspelt name for an alias.

    def __getattr__(name: str) -> type[OpCode]:
        """The class that the 2.1 generation calls C{name}."""
        current = CLASS_ALIASES.get(name)
        if current is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[current]
