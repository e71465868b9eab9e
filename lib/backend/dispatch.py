"""From the name of a call and its arguments as they came over the wire to the answer.

One table says which function carries out which call; arguments are checked against L{rpc_defs} and
turned into objects before it is called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .. import errors, objects, pathutils, rpc_defs
from ..objects.base import ToPlain
from . import (
    backup,
    blockcopy,
    blockdev,
    files,
    filestorage,
    hooks,
    iallocator,
    instance,
    jobqueue,
    master,
    node,
    os_defs,
    os_scripts,
    units,
    verify,
    volumes,
)
from .base import Fail, NotImplementedCall

Handler = Callable[..., Any]


def _BlockdevCreate(disk: objects.Disk, size: int, owner: str, on_primary: bool, info: str) -> Any:
    # The size is that of the disk, the argument a relic.
    return blockdev.BlockdevCreate(disk, owner, on_primary, info)


def _HooksRunner(hooks_path: str, phase: str, env: Mapping[str, str]) -> Any:
    return hooks.HooksRunner().RunHooks(hooks_path, phase, env)


#: Call -> function. A call of L{rpc_defs} that is missing here is not implemented.
HANDLERS: Final[Mapping[str, Handler]] = {
    # Node
    "version": node.GetProtocolVersion,
    "master_info": master.AnswerMasterInfo,
    "node_info": node.GetNodeInfo,
    "node_volumes": volumes.NodeVolumes,
    "node_verify": verify.VerifyNode,
    "node_add": node.AddNode,
    "node_leave_cluster": node.LeaveCluster,
    "node_start_master": master.StartMaster,
    "node_stop_master": master.StopMaster,
    "node_demote_from_mc": master.DemoteFromMC,
    "node_powercycle": node.PowercycleNode,
    "node_tcp_ping": node.TcpPing,
    "node_has_ip_address": node.HasIpAddress,
    "bridges_exist": node.BridgesExist,
    "upload_file": files.UploadFile,
    "config_update": files.UpdateConfig,
    "write_ssconf_files": files.WriteSsconfFiles,
    "hooks_runner": _HooksRunner,
    "iallocator_runner": iallocator.IAllocatorRunner,
    "hypervisor_validate_params": node.ValidateHVParams,
    "test_delay": node.TestDelay,
    # Instances
    "instance_info": instance.GetInstanceInfo,
    "all_instances_info": instance.GetAllInstancesInfo,
    "instance_list": instance.GetInstanceList,
    "instance_start": instance.StartInstance,
    "instance_shutdown": instance.InstanceShutdown,
    "instance_reboot": instance.InstanceReboot,
    "instance_os_add": os_scripts.InstanceOsAdd,
    "instance_run_rename": os_scripts.RunRenameInstance,
    "instance_migratable": instance.GetInstanceMigratable,
    "migration_info": instance.MigrationInfo,
    "accept_instance": instance.AcceptInstance,
    "finalize_migration": instance.FinalizeMigration,
    "instance_migrate": instance.MigrateInstance,
    "instance_get_migration_status": instance.GetMigrationStatus,
    "instance_abort_migration": instance.AbortMigration,
    "instance_finalize_migration_src": instance.FinalizeMigrationSource,
    # Block devices
    "blockdev_create": _BlockdevCreate,
    "blockdev_remove": blockdev.BlockdevRemove,
    "blockdev_rename": blockdev.BlockdevRename,
    "blockdev_assemble": blockdev.BlockdevAssemble,
    "blockdev_shutdown": blockdev.BlockdevShutdown,
    "blockdev_addchildren": blockdev.BlockdevAddchildren,
    "blockdev_removechildren": blockdev.BlockdevRemovechildren,
    "blockdev_getmirrorstatus": blockdev.BlockdevGetmirrorstatus,
    "blockdev_find": blockdev.BlockdevFind,
    "blockdev_close": blockdev.BlockdevClose,
    "blockdev_getsize": blockdev.BlockdevGetsize,
    "blockdev_grow": blockdev.BlockdevGrow,
    "blockdev_snapshot": blockdev.BlockdevSnapshot,
    "blockdev_export": blockcopy.BlockdevExport,
    # Storage
    "vg_list": volumes.ListVolumeGroups,
    "lv_list": volumes.GetVolumeList,
    "storage_list": units.StorageList,
    "storage_modify": units.StorageModify,
    "storage_execute": units.StorageExecute,
    "file_storage_dir_create": filestorage.CreateFileStorageDir,
    "file_storage_dir_remove": filestorage.RemoveFileStorageDir,
    "file_storage_dir_rename": filestorage.RenameFileStorageDir,
    # Operating systems
    "os_diagnose": os_defs.DiagnoseOS,
    "os_get": os_defs.OSFromDisk,
    "instance_os_import": backup.InstanceOsImport,
    # Exports
    "snapshot_export": backup.SnapshotExport,
    "finalize_export": backup.FinalizeExport,
    "export_info": backup.ExportInfo,
    "export_list": backup.ExportList,
    "export_remove": backup.RemoveExport,
    # Job queue
    "jobqueue_update": jobqueue.JobQueueUpdate,
    "jobqueue_update_many": jobqueue.JobQueueUpdateMany,
    "jobqueue_rename": jobqueue.JobQueueRename,
    "jobqueue_purge": jobqueue.JobQueuePurge,
    "jobqueue_set_drain": jobqueue.JobQueueSetDrainFlag,
}


def _Disks(value: Sequence[Mapping[str, Any]]) -> list[objects.Disk]:
    return [objects.Disk.FromDict(item) for item in value]


def _Renames(value: Sequence[Sequence[Any]]) -> list[blockdev.Rename]:
    return [(objects.Disk.FromDict(disk), tuple(new_id)) for disk, new_id in value]


#: Name of an argument -> what makes objects of it.
_CONVERTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "instance": objects.Instance.FromDict,
    "disk": objects.Disk.FromDict,
    "disks": _Disks,
    "devices": _Renames,
}


def _ToObjects(call: rpc_defs.Call, args: Sequence[Any]) -> list[Any]:
    result = []
    for arg, value in zip(call.args, args, strict=True):
        convert = _CONVERTERS.get(arg.name)
        try:
            result.append(value if convert is None else convert(value))
        except errors.ConfigurationError as err:
            Fail(f"Argument '{arg.name}' of call '{call.name}' is not usable: {err}")
    return result


def Execute(name: str, body: Any, handlers: Mapping[str, Handler] = HANDLERS) -> Any:
    """Carry out a call.

    @param name: one of L{rpc_defs.CALLS}
    @param body: what came over the wire: the array of arguments
    @return: the payload of the answer, as plain data
    @raise RPCFail: it failed; anything else that is raised is a mistake of ours
    @raise errors.QuitGanetiException: the daemon must end after answering
    """
    try:
        args = rpc_defs.DecodeArgs(name, pathutils.FromWire(body))
    except RecursionError:
        Fail(f"The arguments of call '{name}' are nested too deeply")
    handler = handlers.get(name)
    if handler is None:
        NotImplementedCall(name)
    payload = handler(*_ToObjects(rpc_defs.CALLS[name], args))
    return pathutils.ToWire(ToPlain(payload))


def Answer(name: str, body: Any, handlers: Mapping[str, Handler] = HANDLERS) -> tuple[Any, Any]:
    """The pair that answers a call, whatever happens: (success, payload or text).

    @raise errors.QuitGanetiException: the daemon must end after answering with its arguments
    """
    try:
        return True, Execute(name, body, handlers)
    except errors.RPCFail as err:
        return False, errors.FormatError(err)
    except errors.QuitGanetiException:
        raise
    except Exception as err:  # noqa: BLE001 - the boundary of a request
        logging.exception("Error in call %s", name)
        return False, f"Error while executing backend function: {errors.FormatError(err)}"
