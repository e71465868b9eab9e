"""Exports of instances: images of their disks and a description, in a directory of a node.

An image goes from the node of the instance to where it is kept, and back, through the script of the
OS, C{gzip} and SSH. The directory of an export that is being made has C{.new} at its end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from .. import constants, errors, objects, pathutils, rpc_defs, runtime, ssh
from ..utils import io, pipeline, text
from . import blockdev, os_defs, os_scripts
from .base import Fail

_NEW: Final = ".new"
#: Not visible: what an export replaces, until it is gone.
_OLD_PREFIX: Final = ".old-"
_DIR_MODE: Final = 0o700
#: Bytes that a description may have.
_MAX_DESCRIPTION: Final = 1 << 20
#: Seconds for one image, in either direction: a little less than what a call waits for the answer.
_TIMEOUT: Final = rpc_defs.TMO_1DAY - 60

SshFactory = Callable[[str], ssh.SshRunner]


def _Directory(instance_name: str, suffix: str = "") -> str:
    """Directory of an export on this node.

    @raise RPCFail: the name would lead elsewhere
    """
    if not instance_name or "/" in instance_name or instance_name.startswith("."):
        Fail(f"{instance_name!r} is no name of an export")
    return os.path.join(pathutils.EXPORT_DIR, instance_name + suffix)


# Images


def SnapshotExport(
    disk: objects.Disk,
    dest_node: str,
    instance: objects.Instance,
    cluster_name: str,
    index: int,
    debug: int,
    rt: runtime.Runtime = runtime.DEFAULT,
    get_ssh: SshFactory = ssh.GetRunner,
) -> None:
    """Send what the export script of the OS makes of a snapshot to another node.

    @param disk: the snapshot
    @param index: of the disk it was taken of
    @raise RPCFail: the script, the way or the other node failed
    """
    os_obj = os_defs.OSFromDisk(instance.os)
    try:
        env = os_scripts.OSEnvironment(instance, os_obj, debug)
        device = blockdev.OpenRealBD(disk)
    except errors.BlockDeviceError as err:
        Fail(f"The snapshot of disk {index} of {instance.name} is not usable: {err}")
    runner = get_ssh(cluster_name)
    directory = runner.PathOnNode(dest_node, _Directory(instance.name, _NEW))
    image = os.path.join(directory, _ImageName(disk))
    command = (
        f"umask 077 && mkdir -p {text.ShellQuote(directory)}"
        f" && exec dd of={text.ShellQuote(image)} bs=1M conv=fsync status=none"
    )
    log = os_scripts.LogFileName(
        "export", os_defs.SplitName(instance.os)[0], instance.name, rt.clock.time()
    )
    stages = [
        pipeline.Stage(
            "the export script",
            [os_obj.export_script],
            env=os_scripts.ExportEnvironment(env, index, str(device.dev_path)),
            reset_env=True,
            cwd=os_obj.path,
            log=log,
        ),
        pipeline.Stage("gzip", ["gzip"]),
        pipeline.Stage(f"writing on node {dest_node}", runner.BuildStreamCmd(dest_node, command)),
    ]
    _RunStages(f"Disk {index} of {instance.name} can't be exported", stages, log, rt)


def InstanceOsImport(
    instance: objects.Instance,
    src_node: str,
    src_images: Sequence[str | bool | None],
    cluster_name: str,
    debug: int,
    rt: runtime.Runtime = runtime.DEFAULT,
    get_ssh: SshFactory = ssh.GetRunner,
) -> None:
    """Let the import script of the OS put images on the disks of an instance, which are active.

    @param src_images: path on the other node for each disk; nothing for one without an image
    @raise RPCFail: one or more of them failed; the others were imported
    """
    os_obj = os_defs.OSFromDisk(instance.os)
    try:
        env = os_scripts.OSEnvironment(instance, os_obj, debug)
    except errors.BlockDeviceError as err:
        Fail(f"The disks of {instance.name} are not usable: {err}")
    runner = get_ssh(cluster_name)
    log = os_scripts.LogFileName("import", instance.os, instance.name, rt.clock.time())
    problems = []
    for index, image in enumerate(src_images):
        if not isinstance(image, str) or not image:
            continue
        if index >= len(instance.disks):
            problems.append(f"there is an image {image}, but no disk {index}")
            continue
        path = text.ShellQuote(runner.PathOnNode(src_node, pathutils.LocalPath(image)))
        stages = [
            pipeline.Stage(
                f"reading {image} on node {src_node}",
                runner.BuildStreamCmd(src_node, f"exec cat -- {path}"),
            ),
            pipeline.Stage("gunzip", ["gunzip"]),
            pipeline.Stage(
                "the import script",
                [os_obj.import_script],
                env=os_scripts.ImportEnvironment(env, index),
                reset_env=True,
                cwd=os_obj.path,
                log=log,
            ),
        ]
        try:
            _RunStages(f"disk {index}", stages, log, rt)
        except errors.RPCFail as err:
            problems.append(str(err))
    if problems:
        Fail(f"Import of {instance.name}: " + "; ".join(problems))


def _RunStages(what: str, stages: Sequence[pipeline.Stage], log: str, rt: runtime.Runtime) -> None:
    try:
        failure = pipeline.DescribeFailure(rt.processes.pipeline(stages, timeout=_TIMEOUT))
    except (errors.OpExecError, OSError) as err:
        Fail(f"{what}: {err}")
    if failure is not None:
        Fail(os_scripts.WithTail(f"{what}: {failure}", log))


def _ImageName(disk: objects.Disk) -> str:
    """Name of the file for a snapshot; a part of what is written in the description."""
    name = str((disk.physical_id or disk.logical_id)[1])
    if "/" in name or name.startswith("."):
        Fail(f"The snapshot has the name {name!r}, which can't be that of a file")
    return name


# The directory


def FinalizeExport(
    instance: objects.Instance,
    snapshots: Sequence[Mapping[str, Any] | bool],
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Describe an export, all of whose images are here, and let it take the place of the last one.

    @param instance: with its parameters filled
    @param snapshots: for each disk its snapshot, or false if it could not be exported
    @raise RPCFail: an image is missing, or that can't be written; the last export is still there
    """
    new, final = _Directory(instance.name, _NEW), _Directory(instance.name)
    old = os.path.join(pathutils.EXPORT_DIR, _OLD_PREFIX + instance.name)
    disks = [_DescribeDisk(snapshot) for snapshot in snapshots]
    images = {disk.image for disk in disks if disk.image is not None}
    description = objects.Export(
        os=instance.os,
        name=instance.name,
        disk_template=instance.disk_template,
        hypervisor=instance.hypervisor,
        nics=tuple(_DescribeNic(nic) for nic in instance.nics),
        disks=tuple(disks),
        hvparams={
            key: value
            for key, value in instance.hvparams.items()
            if key not in constants.HVC_GLOBALS
        },
        beparams=instance.beparams,
        timestamp=int(rt.clock.time()),
        source=instance.primary_node,
    )
    with _Failing(f"The export of {instance.name} can't be finished"):
        os.makedirs(new, _DIR_MODE, exist_ok=True)
        present = set(os.listdir(new))
        missing = sorted(images - present)
        if missing:
            Fail(f"The export of {instance.name} has no image {', '.join(missing)} in {new}")
        for leftover in present - images:
            _RemoveTree(os.path.join(new, leftover))
        rt.files.write(
            os.path.join(new, pathutils.EXPORT_CONF_FILE),
            objects.FormatExport(description).encode(),
        )
        if os.path.lexists(old):
            _RemoveTree(old)
        if os.path.lexists(final):
            os.rename(final, old)
        os.rename(new, final)
        io.SyncDirectory(pathutils.EXPORT_DIR)
        if os.path.lexists(old):
            _RemoveTree(old)


def _DescribeDisk(snapshot: Mapping[str, Any] | bool) -> objects.ExportedDisk:
    if isinstance(snapshot, bool):
        return objects.ExportedDisk(None, None)
    disk = objects.Disk.FromDict(snapshot)
    return objects.ExportedDisk(disk.size, _ImageName(disk))


def _DescribeNic(nic: objects.NIC) -> dict[str, str | None]:
    params: Mapping[str, Any] = nic.nicparams or {}
    return {
        "mac": nic.mac,
        "ip": nic.ip,
        "mode": params.get(constants.NIC_MODE),
        "link": params.get(constants.NIC_LINK),
    }


def ExportInfo(path: str) -> str:
    """The description of an export.

    @param path: directory of the export
    @raise RPCFail: there is none, or it is none of an export
    """
    name = os.path.join(pathutils.LocalPath(path), pathutils.EXPORT_CONF_FILE)
    with _Failing(f"The description {name} can't be read"):
        if not os.path.isfile(name) or os.path.getsize(name) > _MAX_DESCRIPTION:
            Fail(f"There is no description of an export in {name}")
        content = io.ReadFile(name)
    try:
        parser = objects.SerializableConfigParser.Loads(content)
    except errors.ConfigurationError as err:
        Fail(f"{name}: {err}")
    missing = [part for part in ("export", "instance") if not parser.has_section(part)]
    if missing:
        Fail(f"{name} has no section [{missing[0]}]")
    return content


def ExportList() -> list[str]:
    """Names of the exports on this node.

    @raise RPCFail: it has no directory for them
    """
    with _Failing("Exports can't be listed"):
        return sorted(io.ListVisibleFiles(pathutils.EXPORT_DIR))


def RemoveExport(name: str) -> None:
    """Remove an export; a missing one is fine.

    @raise RPCFail: that is not possible
    """
    path = _Directory(name)
    with _Failing(f"Export {name} can't be removed"):
        if os.path.lexists(path):
            _RemoveTree(path)


def _RemoveTree(path: str) -> None:
    """Remove a directory with all in it, or a file; links are not followed."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


@contextmanager
def _Failing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, errors.ConfigurationError) as err:
        Fail(f"{what}: {err}")
