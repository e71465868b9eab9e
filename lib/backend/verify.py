"""What cluster verify asks a node: each check on its own, under the key it is asked with."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, Final

from .. import constants, errors, hypervisor, pathutils, runtime, ssh
from ..utils import io, lvm, net, text
from . import instance, volumes
from .base import RPCFail

#: Other nodes that are tried at once: dead ones cost one time-out together.
_PARALLEL: Final = 16

_SYSFS_DIRS: Final = ("/sys/block", "/sys/class/net")
_PROCFS_DIR: Final = "/proc/sys"
_PROCFS_FILE: Final = "/proc/sysrq-trigger"


class _Context:
    """What the checks need besides their parameter."""

    def __init__(self, cluster_name: str, rt: runtime.Runtime, my_name: str) -> None:
        self.cluster_name = cluster_name
        self.rt = rt
        self.my_name = my_name
        self.port = net.GetDaemonPort(constants.NODED)


Check = Callable[[Any, _Context], Any]


def VerifyNode(
    what: Mapping[str, Any],
    cluster_name: str,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> dict[str, Any]:
    """Results of the checks that are asked for.

    @param what: C{constants.NV_*} -> parameter of the check; unknown keys are left out
    """
    context = _Context(cluster_name, rt, net.HostInfo().name)
    return {key: _CHECKS[key](what[key], context) for key in what if key in _CHECKS}


def _InParallel(
    fn: Callable[[Any], str | None], items: Sequence[Any], name_of: Callable[[Any], str]
) -> dict[str, str]:
    """Texts of the items that have one, by name."""
    if not items:
        return {}
    with futures.ThreadPoolExecutor(min(_PARALLEL, len(items)), "Verify") as pool:
        texts = list(pool.map(fn, items))
    return {
        name_of(item): problem
        for item, problem in zip(items, texts, strict=True)
        if problem is not None
    }


# The checks


def _Hypervisors(kinds: Sequence[str], context: _Context) -> dict[str, str | None]:
    def One(kind: str) -> str | None:
        try:
            return hypervisor.GetHypervisor(kind).Verify()
        except errors.HypervisorError as err:
            return f"Error while checking hypervisor: {err}"

    return {kind: One(kind) for kind in kinds}


def _Files(paths: Sequence[str], context: _Context) -> dict[str, str]:
    return io.FingerprintFiles(paths)


def _Nodes(names: Sequence[str], context: _Context) -> dict[str, str]:
    """Can the nodes be reached by SSH, and are they who they should be?"""
    shuffled = list(names)
    # Not all nodes of a cluster should ask the same one at the same time.
    context.rt.random.shuffle(shuffled)
    runner = ssh.GetRunner(context.cluster_name)

    def One(name: str) -> str | None:
        good, problem = runner.VerifyNodeHostname(name)
        return None if good else problem or "SSH check failed"

    return _InParallel(One, shuffled, lambda name: str(name))


def _NodeNet(nodes: Sequence[Sequence[str]], context: _Context) -> dict[str, str]:
    """Do the node daemons answer at all addresses, from this node's own ones?"""
    mine = [entry for entry in nodes if entry[0] == context.my_name]
    if not mine:
        return {context.my_name: "Can't find my own primary/secondary IP in the node list"}
    _, my_primary, my_secondary = mine[0]

    def One(entry: Sequence[str]) -> str | None:
        _, primary, secondary = entry
        failed = []
        if not net.TcpPing(primary, context.port, source=my_primary):
            failed.append("primary")
        if secondary != primary and not net.TcpPing(secondary, context.port, source=my_secondary):
            failed.append("secondary")
        if not failed:
            return None
        return f"failure using the {' and '.join(failed)} interface(s)"

    return _InParallel(One, nodes, lambda entry: str(entry[0]))


def _MasterIp(parameter: Sequence[str], context: _Context) -> bool:
    """Can the cluster address be reached; on the master: is it really this node's?"""
    master, address = parameter
    source = constants.LOCALHOST_IP_ADDRESS if master == context.my_name else None
    return net.TcpPing(address, context.port, source=source)


def _Instances(kinds: Sequence[str], context: _Context) -> list[str] | str:
    try:
        return instance.GetInstanceList(kinds)
    except RPCFail as err:
        return str(err)


def _Version(_: object, context: _Context) -> tuple[int, str]:
    return constants.PROTOCOL_VERSION, constants.RELEASE_VERSION


def _HypervisorInfo(kind: str, context: _Context) -> dict[str, Any]:
    try:
        return dict(hypervisor.GetHypervisor(kind).GetNodeInfo() or {})
    except errors.HypervisorError as err:
        logging.error("Can't get facts about this node from hypervisor %s: %s", kind, err)
        return {}


def _NodeSetup(_: object, context: _Context) -> list[str]:
    # A virtual node is never reset through the kernel: that would take its host with it.
    return FindSetupProblems(os.path.isdir, os.path.isfile, not pathutils.IsVirtual())


def FindSetupProblems(
    is_dir: Callable[[str], bool], is_file: Callable[[str], bool], resettable: bool = True
) -> list[str]:
    """What is missing on a host for it to be a node; texts.

    @param resettable: must the kernel be able to reset it at once?
    """
    problems = []
    if not all(is_dir(path) for path in _SYSFS_DIRS):
        wanted = text.CommaJoin(_SYSFS_DIRS)
        problems.append(
            f"The sysfs filesystem doesn't seem to be mounted under /sys, missing required"
            f" directories {wanted}"
        )
    if not (is_dir(_PROCFS_DIR) and (is_file(_PROCFS_FILE) or not resettable)):
        problems.append(
            f"The procfs filesystem doesn't seem to be mounted under /proc, missing required"
            f" directory {_PROCFS_DIR} or file {_PROCFS_FILE}"
        )
    return problems


def _Time(_: object, context: _Context) -> tuple[int, int]:
    return text.SplitTime(context.rt.clock.time())


def _VolumeGroups(_: object, context: _Context) -> dict[str, int]:
    return volumes.ListVolumeGroups(context.rt)


def _Volumes(vg_name: str, context: _Context) -> dict[str, volumes.VolumeState] | str:
    try:
        return volumes.GetVolumeList(vg_name, context.rt)
    except RPCFail as err:
        return str(err)


def _PhysicalVolumes(vg_names: Sequence[str], context: _Context) -> list[lvm.PVInfo] | None:
    return volumes.ListPhysicalVolumes(vg_names, context.rt)


def _DrbdMinors(_: object, context: _Context) -> list[int] | str:
    return "Listing DRBD devices is not implemented on this node"


_CHECKS: Final[Mapping[str, Check]] = {
    constants.NV_HYPERVISOR: _Hypervisors,
    constants.NV_FILELIST: _Files,
    constants.NV_NODELIST: _Nodes,
    constants.NV_NODENETTEST: _NodeNet,
    constants.NV_MASTERIP: _MasterIp,
    constants.NV_INSTANCELIST: _Instances,
    constants.NV_VERSION: _Version,
    constants.NV_HVINFO: _HypervisorInfo,
    constants.NV_NODESETUP: _NodeSetup,
    constants.NV_TIME: _Time,
    constants.NV_VGLIST: _VolumeGroups,
    constants.NV_LVLIST: _Volumes,
    constants.NV_PVLIST: _PhysicalVolumes,
    constants.NV_DRBDLIST: _DrbdMinors,
}
