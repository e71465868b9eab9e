"""Running the scripts of a guest operating system: what they are told and where they write.

Design: OS API. What a script gets is its environment: exactly the variables below, nothing of the
daemon's own. Which ones depends on the version of the interface that the definition is run with:
one of version 10 is from Ganeti 2.0 and gets what it got there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from .. import constants, errors, objects, pathutils, runtime
from ..storage.base import BlockDev
from ..utils import io, text
from . import blockdev, os_defs
from .base import Fail

#: Where scripts find programs.
SCRIPT_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin"
#: Lines of a failed script's output that the answer shows.
_SHOWN_LINES: Final = 20


# Environment


def BasicEnvironment(os_name: str, os_obj: objects.OS, debug: int) -> dict[str, str]:
    """What every script of a definition is told, instance or not.

    @param os_name: as the instance has it, maybe with a variant
    """
    version = os_defs.ChosenApiVersion(os_obj.api_versions)
    assert version is not None, "only valid definitions are run"
    env = {
        "PATH": SCRIPT_PATH,
        "LC_ALL": "C",
        "OS_API_VERSION": str(version),
        "DEBUG_LEVEL": str(debug),
    }
    if version >= constants.OS_API_V15:
        base, variant = os_defs.SplitName(os_name)
        declared = os_obj.supported_variants or []
        env["OS_NAME"] = base
        env["OS_VARIANT"] = variant or (declared[0] if declared else "")
    return env


def OSEnvironment(
    instance: objects.Instance,
    os_obj: objects.OS,
    debug: int = 0,
    devices: Mapping[int, BlockDev] | None = None,
) -> dict[str, str]:
    """What the scripts are told about an instance whose parameters are filled.

    @param devices: the opened devices of its disks by index; default: open them
    @raise errors.BlockDeviceError: a disk is not there
    """
    env = BasicEnvironment(instance.os, os_obj, debug)
    new = int(env["OS_API_VERSION"]) >= constants.OS_API_V15
    env["INSTANCE_NAME"] = instance.name
    env["INSTANCE_OS"] = instance.os
    env["HYPERVISOR"] = instance.hypervisor
    env["DISK_COUNT"] = str(len(instance.disks))
    env["NIC_COUNT"] = str(len(instance.nics))
    for index, disk in enumerate(instance.disks):
        device = devices[index] if devices is not None else blockdev.OpenRealBD(disk)
        env.update(_DiskEnvironment(instance, index, disk, device, new))
    for index, nic in enumerate(instance.nics):
        env.update(_NicEnvironment(instance, index, nic))
    for name, value in instance.beparams.items():
        env[f"INSTANCE_BE_{name}"] = str(value)
    if new:
        env["INSTANCE_HYPERVISOR"] = instance.hypervisor
        env["INSTANCE_PRIMARY_NODE"] = instance.primary_node
        env["INSTANCE_SECONDARY_NODES"] = " ".join(instance.secondary_nodes)
        if instance.uuid:
            env["INSTANCE_UUID"] = instance.uuid
        for name, value in instance.hvparams.items():
            env[f"INSTANCE_HV_{name}"] = str(value)
    return env


def _DiskEnvironment(
    instance: objects.Instance, index: int, disk: objects.Disk, device: BlockDev, new: bool
) -> dict[str, str]:
    prefix = f"DISK_{index}"
    env = {
        f"{prefix}_PATH": str(device.dev_path),
        f"{prefix}_ACCESS": disk.mode or constants.DISK_RDWR,
        f"{prefix}_BACKEND_TYPE": _BackendType(disk),
    }
    if constants.HV_DISK_TYPE in instance.hvparams:
        env[f"{prefix}_FRONTEND_TYPE"] = str(instance.hvparams[constants.HV_DISK_TYPE])
    if new:
        env[f"{prefix}_SIZE"] = str(disk.size)
        if disk.uuid:
            env[f"{prefix}_UUID"] = disk.uuid
    return env


def _BackendType(disk: objects.Disk) -> str:
    if disk.dev_type == constants.LD_FILE:
        driver = (disk.physical_id or disk.logical_id)[0]
        return f"file:{driver}"
    return "block"


def _NicEnvironment(instance: objects.Instance, index: int, nic: objects.NIC) -> dict[str, str]:
    prefix = f"NIC_{index}"
    params: Mapping[str, Any] = nic.nicparams or {}
    env = {f"{prefix}_MAC": str(nic.mac)}
    if nic.ip:
        env[f"{prefix}_IP"] = nic.ip
    mode = params.get(constants.NIC_MODE)
    link = params.get(constants.NIC_LINK)
    if mode:
        env[f"{prefix}_MODE"] = str(mode)
    if link:
        env[f"{prefix}_LINK"] = str(link)
        if mode == constants.NIC_MODE_BRIDGED:
            env[f"{prefix}_BRIDGE"] = str(link)
    if constants.HV_NIC_TYPE in instance.hvparams:
        env[f"{prefix}_FRONTEND_TYPE"] = str(instance.hvparams[constants.HV_NIC_TYPE])
    return env


def ImportEnvironment(env: Mapping[str, str], index: int) -> dict[str, str]:
    """Environment of the import script for a disk: its device is the disk itself."""
    return {
        **env,
        "IMPORT_DEVICE": env[f"DISK_{index}_PATH"],
        "IMPORT_INDEX": str(index),
    }


def ExportEnvironment(env: Mapping[str, str], index: int, snapshot_path: str) -> dict[str, str]:
    """Environment of the export script for a disk: it reads a snapshot of it."""
    return {**env, "EXPORT_DEVICE": snapshot_path, "EXPORT_INDEX": str(index)}


# Log files


def LogFileName(kind: str, os_name: str, instance: str, now: float | None = None) -> str:
    """File that a script writes to.

    @param kind: C{add}, C{rename}, C{import} or C{export}
    @param os_name: name of the OS, for exports without its variant
    @param instance: its name; for a rename both names with a dash between them
    @param now: seconds since the epoch; default: the present
    """
    stamp = io.TimestampForFilename(now)
    base = f"{kind}-{os_name}-{instance}-{stamp}.log"
    return os.path.join(pathutils.LOG_OS_DIR, base.replace("/", "_"))


# Running


def _RunScript(
    what: str,
    script: str,
    env: Mapping[str, str],
    os_obj: objects.OS,
    log_file: str,
    rt: runtime.Runtime,
) -> None:
    """Run a script in its definition's directory.

    @raise RPCFail: it failed; with the end of its output
    """
    try:
        result = rt.processes.run(
            [script], env=dict(env), cwd=os_obj.path, output=log_file, reset_env=True
        )
    except (errors.OpExecError, OSError) as err:
        Fail(f"{what} could not be run: {err}")
    if result.failed:
        Fail(WithTail(f"{what} failed ({result.fail_reason})", log_file))


def WithTail(problem: str, log_file: str) -> str:
    """A problem with the end of what the script wrote about it."""
    lines = "\n".join(text.SafeEncode(line) for line in _Tail(log_file))
    return f"{problem}, last lines in the log file {log_file}:\n{lines}"


def _Tail(log_file: str) -> list[str]:
    try:
        return io.TailFile(log_file, lines=_SHOWN_LINES)
    except OSError as err:
        return [f"(can't read it: {err})"]


def _Environment(instance: objects.Instance, os_obj: objects.OS, debug: int) -> dict[str, str]:
    try:
        return OSEnvironment(instance, os_obj, debug)
    except errors.BlockDeviceError as err:
        Fail(f"The disks of {instance.name} are not usable: {err}")


def InstanceOsAdd(
    instance: objects.Instance,
    reinstall: bool,
    debug: int,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Install the OS of an instance on its disks, which are active.

    @raise RPCFail: there is no such OS, or its create script failed
    """
    os_obj = os_defs.OSFromDisk(instance.os)
    env = _Environment(instance, os_obj, debug)
    if reinstall:
        env["INSTANCE_REINSTALL"] = "1"
    log_file = LogFileName("add", instance.os, instance.name, rt.clock.time())
    _RunScript("OS create script", os_obj.create_script, env, os_obj, log_file, rt)


def RunRenameInstance(
    instance: objects.Instance,
    old_name: str,
    debug: int,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Tell the OS of an instance its new name.

    @param instance: with the new name
    @raise RPCFail: there is no such OS, or its rename script failed
    """
    os_obj = os_defs.OSFromDisk(instance.os)
    env = _Environment(instance, os_obj, debug)
    env["OLD_INSTANCE_NAME"] = old_name
    names = f"{old_name}-{instance.name}"
    log_file = LogFileName("rename", instance.os, names, rt.clock.time())
    _RunScript("OS rename script", os_obj.rename_script, env, os_obj, log_file, rt)
