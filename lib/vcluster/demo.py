"""The main job on a virtual cluster: instances, and every door shown with what to try next."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from .. import constants
from . import guest, manager, osdefs
from .manager import RAPI_USER, VirtualCluster

_CONFD_QUERY = ["confd-client", "candidate-ips"]
#: How often confd is asked, a second each at the most, until it knows all candidates.
_CONFD_TRIES = 50

INSTANCES = ("instance1.example.com", "instance2.example.com", "instance3.example.com")


def CreateInstances(
    cluster: VirtualCluster, progress: Callable[[str], object], count: int = len(INSTANCES)
) -> list[str]:
    """Create and start instances, one on each node in turn.

    @return: their names
    """
    nodes = cluster.layout.nodes
    hypervisor = cluster.layout.hypervisor
    names = list(INSTANCES[:count])
    for i, name in enumerate(names):
        node = nodes[i % len(nodes)]
        progress(f"gnt-instance add {name} on {node.name}")
        argv = ["gnt-instance", "add", f"--node={node.name}", "--no-name-check", "--no-ip-check"]
        argv.append(f"--os-type={osdefs.DefaultOs(hypervisor)}")
        if hypervisor == constants.HT_KVM:
            argv += ["--disk-template=file", f"--disk=0:size={guest.DISK_SIZE}", "--no-nics"]
            argv.append(f"--backend-parameters=memory={guest.MEMORY}")
        else:
            argv += ["--disk-template=diskless", f"--net=0:ip=192.0.2.{i + 1}"]
        cluster.RunOrFail([*argv, name])
    return names


def _Show(cluster: VirtualCluster, argv: list[str]) -> list[str]:
    """A command and what it prints, indented."""
    output = cluster.RunOrFail(argv)
    return [f"  $ {shlex.join(argv)}"] + [f"  {line}" for line in output.splitlines()] + [""]


def WaitForConfd(cluster: VirtualCluster, progress: Callable[[str], object]) -> None:
    """Return once confd knows all candidates: it looks at a changed configuration every 2 s."""
    progress("Waiting until confd has seen the last change")
    wanted = {node.address for node in cluster.layout.nodes[: constants.MASTER_POOL_SIZE_DEFAULT]}
    for _ in range(_CONFD_TRIES):
        result = cluster.Run([*_CONFD_QUERY[:1], "--timeout=1", *_CONFD_QUERY[1:]])
        if set(result.stdout.split()) >= wanted:
            return


def Describe(cluster: VirtualCluster) -> list[str]:
    """What there is and how to go on, as lines to print."""
    layout = cluster.layout
    first = layout.nodes[0]
    curl = (
        f"curl -s --cacert {shlex.quote(layout.Root(first))}/var/lib/ganeti/rapi.pem"
        f" -u {RAPI_USER}:{cluster.RapiPassword()} {RapiUrl(cluster)}/2/instances?bulk=1"
    )
    lines = [
        "",
        f"The cluster {layout.cluster_name} runs in {layout.directory}:",
        "",
        *_Show(cluster, ["gnt-node", "list"]),
        *_Show(cluster, ["gnt-instance", "list"]),
        "confd, asked for the primary address of the master candidates:",
        "",
        *_Show(cluster, _CONFD_QUERY),
        "To go on:",
        "",
        "  The gnt-* commands of this cluster in your shell:",
        f'    eval "$({manager.PROGRAM} env --dir {shlex.quote(layout.directory)})"',
        "    gnt-instance list",
        "",
        f"  RAPI, user {RAPI_USER}:",
        f"    {curl}",
        "",
        "  Kill a node, look, start it again, and end it all:",
        f"    {manager.PROGRAM} kill node2 --dir {shlex.quote(layout.directory)}",
        "    gnt-node list",
        f"    {manager.PROGRAM} start node2 --dir {shlex.quote(layout.directory)}",
        f"    {manager.PROGRAM} down --dir {shlex.quote(layout.directory)}",
    ]
    if layout.hypervisor == constants.HT_KVM:
        lines += [
            "",
            "  The serial console of a guest:",
            f"    gnt-instance console {INSTANCES[0]}",
        ]
    return lines


def RapiUrl(cluster: VirtualCluster) -> str:
    """Where RAPI listens."""
    return f"https://{cluster.layout.nodes[0].address}:{constants.DEFAULT_RAPI_PORT}"
