"""Running the scripts of a guest operating system: what they are told and where they write.

Design: OS API. What a script gets is its environment: exactly the variables below, nothing of the
daemon's own. Which ones depends on the version of the interface that the definition is run with:
one of version 10 is from Ganeti 2.0 and gets no new ones, but the parameters that 2.1 gave all.

A script has a limit of time, L{ReadTimeout}, after which all that it started is ended, and one of
what it writes to its log file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, objects, pathutils, rpc_defs, runtime
from ..storage.base import BlockDev
from ..utils import hooktime, io, text
from . import blockdev, os_defs
from .base import Fail

#: Where scripts find programs.
SCRIPT_PATH: Final = "/sbin:/bin:/usr/sbin:/usr/bin"
#: Lines of a failed script's output that the answer shows.
_SHOWN_LINES: Final = 20
_LOG_MODE: Final = 0o600
#: Bytes that one script may leave in its log file.
_MAX_LOG: Final = 16 * 2**20
#: Seconds that a script may take if the administrator says nothing else.
_DEFAULT_TIMEOUT: Final = 4 * 3600
#: Seconds that a node needs to end a script and to answer before the master gives up.
_MARGIN: Final = 60


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
    version = int(env["OS_API_VERSION"])
    env["INSTANCE_NAME"] = instance.name
    env["INSTANCE_OS"] = instance.os
    env["HYPERVISOR"] = instance.hypervisor
    env["DISK_COUNT"] = str(len(instance.disks))
    env["NIC_COUNT"] = str(len(instance.nics))
    for index, disk in enumerate(instance.disks):
        device = devices[index] if devices is not None else blockdev.OpenRealBD(disk)
        env.update(_DiskEnvironment(instance, index, disk, device, version))
    for index, nic in enumerate(instance.nics):
        env.update(_NicEnvironment(instance, index, nic, version))
    for name, value in instance.beparams.items():
        env[f"INSTANCE_BE_{name}"] = str(value)
    for name, value in instance.hvparams.items():
        env[f"INSTANCE_HV_{name}"] = str(value)
    if version >= constants.OS_API_V15:
        env["INSTANCE_HYPERVISOR"] = instance.hypervisor
    if version >= constants.OS_API_V20:
        env["INSTANCE_PRIMARY_NODE"] = instance.primary_node
        env["INSTANCE_SECONDARY_NODES"] = " ".join(instance.secondary_nodes)
        # An instance that is being created has not all of them yet.
        for attribute in ("uuid", "ctime", "mtime"):
            value = getattr(instance, attribute)
            if value is not None:
                env[f"INSTANCE_{attribute.upper()}"] = str(value)
    return env


def _DiskEnvironment(
    instance: objects.Instance, index: int, disk: objects.Disk, device: BlockDev, version: int
) -> dict[str, str]:
    prefix = f"DISK_{index}"
    env = {
        f"{prefix}_PATH": str(device.dev_path),
        f"{prefix}_ACCESS": disk.mode or constants.DISK_RDWR,
        f"{prefix}_BACKEND_TYPE": _BackendType(disk),
    }
    if constants.HV_DISK_TYPE in instance.hvparams:
        env[f"{prefix}_FRONTEND_TYPE"] = str(instance.hvparams[constants.HV_DISK_TYPE])
    if version >= constants.OS_API_V15:
        env[f"{prefix}_SIZE"] = str(disk.size)
    if version >= constants.OS_API_V20 and disk.uuid:
        env[f"{prefix}_UUID"] = disk.uuid
    return env


def _BackendType(disk: objects.Disk) -> str:
    if disk.dev_type == constants.LD_FILE:
        driver = (disk.physical_id or disk.logical_id)[0]
        return f"file:{driver}"
    return "block"


def _NicEnvironment(
    instance: objects.Instance, index: int, nic: objects.NIC, version: int
) -> dict[str, str]:
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
    if version >= constants.OS_API_V20 and nic.uuid:
        env[f"{prefix}_UUID"] = nic.uuid
    return env


def ImportEnvironment(env: Mapping[str, str], index: int) -> dict[str, str]:
    """Environment of the import script for a disk: its device is the disk itself."""
    return _WithDevice(env, "IMPORT", env[f"DISK_{index}_PATH"], index)


def ExportEnvironment(env: Mapping[str, str], index: int, snapshot_path: str) -> dict[str, str]:
    """Environment of the export script for a disk: it reads a snapshot of it."""
    return _WithDevice(env, "EXPORT", snapshot_path, index)


def _WithDevice(env: Mapping[str, str], kind: str, path: str, index: int) -> dict[str, str]:
    result = {**env, f"{kind}_DEVICE": path, f"{kind}_INDEX": str(index)}
    if int(env["OS_API_VERSION"]) >= constants.OS_API_V20:
        # The name that definitions of later releases look for.
        result[f"{kind}_DISK_PATH"] = path
    return result


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


def ReadTimeout(path: str = pathutils.OS_TIMEOUT_FILE) -> int:
    """Seconds that a script may take, as the administrator of this node wants it.

    What can't be used is logged, and the default counts.
    """
    try:
        return hooktime.ParseTimeout(io.ReadFile(path))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as err:
        logging.warning("Time-out of OS scripts in %s: %s; using %s s", path, err, _DEFAULT_TIMEOUT)
    return _DEFAULT_TIMEOUT


def _GetTimeout(call: str) -> float:
    """Seconds for the script of a call: never so many that its master no longer waits."""
    return min(ReadTimeout(), rpc_defs.CALLS[call].GetTimeout([]) - _MARGIN)


def _RunScript(
    what: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    os_obj: objects.OS,
    log_file: str,
    timeout: float,
    rt: runtime.Runtime,
) -> None:
    """Run a script in its definition's directory.

    @param timeout: seconds until it is ended with all that it started
    @raise RPCFail: it failed; with the end of its output
    """
    try:
        # Scripts print passwords that they set.
        os.close(os.open(log_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, _LOG_MODE))
        result = rt.processes.run(
            argv,
            env=dict(env),
            cwd=os_obj.path,
            output=log_file,
            reset_env=True,
            timeout=timeout,
            max_output=_MAX_LOG,
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
    timeout = _GetTimeout("instance_os_add")
    if os_obj.verify_script is not None:
        _Verify(instance.os, os_obj, debug, log_file, timeout, rt)
    _RunScript("OS create script", [os_obj.create_script], env, os_obj, log_file, timeout, rt)


def _Verify(
    os_name: str,
    os_obj: objects.OS,
    debug: int,
    log_file: str,
    timeout: float,
    rt: runtime.Runtime,
) -> None:
    """Let a definition of version 20 judge what it is asked for, the variant for instance.

    Instances have no parameters for their OS yet, so those have the values that it gives them.
    """
    assert os_obj.verify_script is not None
    env = BasicEnvironment(os_name, os_obj, debug)
    argv = [os_obj.verify_script, constants.OS_VALIDATE_PARAMETERS]
    _RunScript("OS verify script", argv, env, os_obj, log_file, timeout, rt)


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
    timeout = _GetTimeout("instance_run_rename")
    _RunScript("OS rename script", [os_obj.rename_script], env, os_obj, log_file, timeout, rt)
