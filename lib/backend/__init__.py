"""What the node daemon does for each call: one module a topic, L{dispatch} knows them all."""

from __future__ import annotations

from .backup import (
    ExportInfo,
    ExportList,
    FinalizeExport,
    InstanceOsImport,
    RemoveExport,
    SnapshotExport,
)
from .base import RPCFail
from .blockcopy import BlockdevExport
from .blockdev import (
    BlockdevAddchildren,
    BlockdevAssemble,
    BlockdevClose,
    BlockdevCreate,
    BlockdevFind,
    BlockdevGetmirrorstatus,
    BlockdevGetsize,
    BlockdevGrow,
    BlockdevRemove,
    BlockdevRemovechildren,
    BlockdevRename,
    BlockdevShutdown,
    BlockdevSnapshot,
)
from .cleaning import CleanDirectory
from .devcache import DevCacheManager
from .dispatch import HANDLERS, Answer, Execute
from .files import UploadFile, WriteSsconfFiles
from .filestorage import CreateFileStorageDir, RemoveFileStorageDir, RenameFileStorageDir
from .hooks import HooksRunner
from .iallocator import IAllocatorRunner
from .instance import (
    AbortMigration,
    AcceptInstance,
    FinalizeMigration,
    FinalizeMigrationSource,
    GetAllInstancesInfo,
    GetInstanceInfo,
    GetInstanceList,
    GetInstanceMigratable,
    GetMigrationStatus,
    InstanceReboot,
    InstanceShutdown,
    MigrateInstance,
    MigrationInfo,
    StartInstance,
)
from .jobqueue import (
    FinishQueue,
    InitQueue,
    JobQueuePurge,
    JobQueueRename,
    JobQueueSetDrainFlag,
    JobQueueUpdate,
    JobQueueUpdateMany,
)
from .master import DemoteFromMC, GetMasterInfo, RefuseDeposed, StartMaster, StopMaster
from .node import (
    AddNode,
    BridgesExist,
    GetNodeInfo,
    LeaveCluster,
    PowercycleNode,
    TcpPing,
    TestDelay,
    ValidateHVParams,
)
from .os_defs import DiagnoseOS, OSFromDisk
from .os_scripts import InstanceOsAdd, OSEnvironment, RunRenameInstance
from .units import StorageExecute, StorageList, StorageModify
from .verify import VerifyNode
from .volumes import GetVolumeList, ListVolumeGroups, NodeVolumes

__all__ = [
    "GetVolumeList",
    "HANDLERS",
    "AbortMigration",
    "AcceptInstance",
    "AddNode",
    "Answer",
    "BlockdevAddchildren",
    "BlockdevAssemble",
    "BlockdevClose",
    "BlockdevCreate",
    "BlockdevExport",
    "BlockdevFind",
    "BlockdevGetmirrorstatus",
    "BlockdevGetsize",
    "BlockdevGrow",
    "BlockdevRemove",
    "BlockdevRemovechildren",
    "BlockdevRename",
    "BlockdevShutdown",
    "BlockdevSnapshot",
    "BridgesExist",
    "CleanDirectory",
    "CreateFileStorageDir",
    "DemoteFromMC",
    "DevCacheManager",
    "DiagnoseOS",
    "Execute",
    "ExportInfo",
    "ExportList",
    "FinalizeExport",
    "FinalizeMigration",
    "FinalizeMigrationSource",
    "GetAllInstancesInfo",
    "GetInstanceInfo",
    "GetInstanceList",
    "GetInstanceMigratable",
    "GetMasterInfo",
    "GetMigrationStatus",
    "RefuseDeposed",
    "GetNodeInfo",
    "HooksRunner",
    "IAllocatorRunner",
    "FinishQueue",
    "InitQueue",
    "InstanceOsAdd",
    "InstanceOsImport",
    "InstanceReboot",
    "InstanceShutdown",
    "JobQueuePurge",
    "JobQueueRename",
    "JobQueueSetDrainFlag",
    "JobQueueUpdate",
    "JobQueueUpdateMany",
    "LeaveCluster",
    "ListVolumeGroups",
    "MigrateInstance",
    "MigrationInfo",
    "NodeVolumes",
    "OSEnvironment",
    "OSFromDisk",
    "PowercycleNode",
    "Preload",
    "RPCFail",
    "RemoveExport",
    "RemoveFileStorageDir",
    "RenameFileStorageDir",
    "RunRenameInstance",
    "SnapshotExport",
    "StartInstance",
    "StartMaster",
    "StopMaster",
    "StorageExecute",
    "StorageList",
    "StorageModify",
    "TcpPing",
    "TestDelay",
    "UploadFile",
    "ValidateHVParams",
    "VerifyNode",
    "WriteSsconfFiles",
]


def Preload() -> None:
    """Import now what is otherwise imported when it is first needed.

    NA3: once the system disk has failed, nothing can be imported any more.
    """
    import grp
    import pwd

    import psutil

    from .. import hypervisor, storage

    hypervisor.Preload()
    storage.Preload()
    # Opens the name service's libraries
    pwd.getpwuid(0)
    grp.getgrgid(0)
    psutil.net_if_addrs()
