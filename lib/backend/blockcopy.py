"""Copying a disk to another node, for instances that move there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from .. import errors, objects, pathutils, rpc_defs, runtime, ssh
from ..utils import pipeline, text
from . import blockdev
from .base import Fail

#: Seconds that a copy may take: a little less than what its call waits for the answer.
_TIMEOUT: Final = rpc_defs.TMO_1DAY - 60
_BLOCK: Final = 2**20

SshFactory = Callable[[str], ssh.SshRunner]


def BuildWriteCommand(path: str, size: int) -> str:
    """Shell command that writes its standard input to a device or file that must exist; pure.

    What is written to a file stays sparse; a volume may hold what was there before, so there zeros
    have to be written, too. It ends once all is on disk, and tells how many bytes that were.

    @param size: bytes that have to fit
    """
    where = text.ShellQuote(path)
    measure = f'if [ -b {where} ]; then have=$(blockdev --getsize64 {where}) sparse=""'
    measure += f"; else have=$(stat -Lc %s -- {where}) sparse=sparse,; fi"
    complaint = text.ShellQuote(f"{path} is too small for {size} bytes")
    return (
        f"set -e; {measure};"
        f' if [ "$have" -lt {size} ]; then echo {complaint} >&2; exit 1; fi;'
        f" LC_ALL=C exec dd of={where} bs={_BLOCK} iflag=fullblock"
        ' conv="$sparse"notrunc,nocreat,fsync'
    )


def ParseCopied(said: str) -> int | None:
    """Bytes that a C{dd} says it has written; None if it does not say; pure."""
    match = re.search(r"^(\d+) bytes?\b.*\bcopied", said, re.MULTILINE)
    return int(match.group(1)) if match else None


def BlockdevExport(
    disk: objects.Disk,
    dest_node: str,
    dest_path: str,
    cluster_name: str,
    rt: runtime.Runtime = runtime.DEFAULT,
    get_ssh: SshFactory = ssh.GetRunner,
) -> None:
    """Copy the content of a disk to a device or file of another node, which must exist.

    The instance must not run. What is there after a failure is of no use.

    @param dest_path: as that node calls it
    @param cluster_name: whose key opens the other node
    @raise RPCFail: it was not copied, or not all of it
    """
    try:
        device = blockdev.OpenRealBD(disk)
        size = device.GetActualSize()
    except errors.BlockDeviceError as err:
        Fail(f"Can't copy disk {disk.iv_name}: {err}", exc_info=True)
    runner = get_ssh(cluster_name)
    # What comes from another virtual node names that node's root, unless it went through ours.
    own = pathutils.IsVirtual() and dest_path.startswith(pathutils.ROOTDIR + "/")
    target = runner.PathOnNode(dest_node, dest_path) if own else dest_path
    command = BuildWriteCommand(target, size)
    stages = [
        pipeline.Stage(
            f"reading disk {disk.iv_name}",
            [
                "dd",
                f"if={device.dev_path}",
                f"bs={_BLOCK}",
                "iflag=fullblock",
                "status=none",
            ],
        ),
        pipeline.Stage(
            f"writing on node {dest_node}",
            runner.BuildStreamCmd(dest_node, command),
        ),
    ]
    try:
        results = rt.processes.pipeline(stages, timeout=_TIMEOUT)
    except errors.OpExecError as err:
        Fail(f"Can't copy disk {disk.iv_name} to node {dest_node}: {err}")
    problem = pipeline.DescribeFailure(results)
    if problem:
        Fail(f"Can't copy disk {disk.iv_name} to node {dest_node}: {problem}")
    copied = ParseCopied(results[-1].said)
    if copied != size:
        Fail(
            f"Disk {disk.iv_name} was not copied completely to node {dest_node}: {copied} of"
            f" {size} bytes"
        )
