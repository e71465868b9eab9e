"""The rules of a sound configuration, as pure functions: objects in, texts of problems out.

A rule looks at one object, or at few that belong together; what no two objects may share is the
business of L{claims}. L{Verify} applies all of them, L{VerifyChanged} those that a change can have
broken. Problems never prevent a commit: what is wrong already must stay repairable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from .. import constants, objects
from . import claims


class View(Protocol):
    """The configuration as the rules see it."""

    @property
    def cluster(self) -> objects.Cluster:
        """The cluster object."""

    @property
    def nodes(self) -> Mapping[str, objects.Node]:
        """All nodes by name."""

    @property
    def instances(self) -> Mapping[str, objects.Instance]:
        """All instances by name."""


class CandidateStats(NamedTuple):
    """How many nodes are master candidates, should be, and could be."""

    now: int
    should: int
    possible: int


def GetCandidateStats(
    nodes: Iterable[objects.Node], pool_size: int, exceptions: Iterable[str] = ()
) -> CandidateStats:
    """Count the master candidates, leaving out the nodes with the excepted names."""
    excepted = frozenset(exceptions)
    now = possible = 0
    for node in nodes:
        if node.name in excepted:
            continue
        if not (node.offline or node.drained):
            possible += 1
        if node.master_candidate:
            now += 1
    return CandidateStats(now, min(possible, pool_size), possible)


def CheckHypervisors(cluster: objects.Cluster) -> list[str]:
    """At least one hypervisor is enabled, all are known and have parameters."""
    enabled = cluster.enabled_hypervisors or []
    if not enabled:
        return ["No hypervisor is enabled (cluster attribute enabled_hypervisors)"]
    problems = []
    for name in enabled:
        if name not in constants.HYPER_TYPES:
            problems.append(f"The enabled hypervisor '{name}' is unknown")
        if name not in (cluster.hvparams or {}):
            problems.append(f"The enabled hypervisor '{name}' has no parameters in hvparams")
    return problems


def CheckMaster(cluster: objects.Cluster, nodes: Mapping[str, objects.Node]) -> list[str]:
    """The master is one of the nodes, and a master candidate."""
    master = nodes.get(cluster.master_node)
    if master is None:
        return [f"The cluster's master node '{cluster.master_node}' is not among its nodes"]
    if not master.master_candidate:
        return [f"The master node '{cluster.master_node}' is not a master candidate"]
    return []


def CheckCandidatePool(cluster: objects.Cluster, nodes: Iterable[objects.Node]) -> list[str]:
    """There are as many master candidates as wanted and possible."""
    stats = GetCandidateStats(nodes, cluster.candidate_pool_size)
    if stats.now >= stats.should:
        return []
    return [f"There are {stats.now} master candidates, there should be {stats.should}"]


def CheckNode(name: str, node: objects.Node) -> list[str]:
    """A node has the name it is filed under, and one role at most."""
    problems = []
    if node.name != name:
        problems.append(f"The node filed as '{name}' has the name '{node.name}'")
    flags = [
        flag for flag in ("master_candidate", "drained", "offline") if getattr(node, flag, False)
    ]
    if len(flags) > 1:
        problems.append(f"Node '{name}' has flags that exclude each other: {', '.join(flags)}")
    return problems


def CheckInstance(
    name: str, instance: objects.Instance, nodes: Mapping[str, objects.Node]
) -> list[str]:
    """An instance has the name it is filed under, nodes that exist, and sound disks."""
    problems = []
    if instance.name != name:
        problems.append(f"The instance filed as '{name}' has the name '{instance.name}'")
    if instance.primary_node not in nodes:
        problems.append(f"Instance '{name}' has the unknown primary node '{instance.primary_node}'")
    problems.extend(
        f"Instance '{name}' has the unknown secondary node '{node}'"
        for node in instance.secondary_nodes
        if node not in nodes
    )
    for idx, disk in enumerate(instance.disks or ()):
        problems.extend(f"Disk {idx} of instance '{name}': {problem}" for problem in disk.Verify())
    return problems


def CheckHighestPort(cluster: objects.Cluster, ports: Iterable[int]) -> list[str]:
    """No port is greater than the greatest that was ever given out."""
    highest = max(ports, default=0)
    if highest <= cluster.highest_used_port:
        return []
    return [
        f"Port {highest} is in use, but highest_used_port says that none above"
        f" {cluster.highest_used_port} was given out"
    ]


def FormatConflict(kind: str, value: object, owners: Iterable[claims.Owner]) -> str:
    """The text of something claimed more often than it may be."""
    if kind == claims.MINOR and isinstance(value, tuple):
        value = f"{value[1]} of node {value[0]}"
    return f"The {kind} {value} is used more than once: {', '.join(sorted(map(str, owners)))}"


def BuildIndex(view: View) -> claims.ClaimIndex:
    """The claims of a whole configuration."""
    index = claims.ClaimIndex()
    index.Set(claims.CLUSTER_KEY, claims.ClusterClaims(view.cluster))
    for name, node in view.nodes.items():
        index.Set(claims.Key(claims.NODE, name), claims.NodeClaims(node))
    nicparams = claims.DefaultNicParams(view.cluster)
    for name, instance in view.instances.items():
        index.Set(claims.Key(claims.INSTANCE, name), claims.InstanceClaims(instance, nicparams))
    return index


def Verify(view: View, index: claims.ClaimIndex | None = None) -> list[str]:
    """All problems of a configuration, looking at every object.

    @param index: its claims; None = collect them anew
    """
    if index is None:
        index = BuildIndex(view)
    problems = _CheckClusterWide(view)
    for name, node in sorted(view.nodes.items()):
        problems.extend(CheckNode(name, node))
    for name, instance in sorted(view.instances.items()):
        problems.extend(CheckInstance(name, instance, view.nodes))
    problems.extend(CheckHighestPort(view.cluster, index.Values(claims.PORT)))
    problems.extend(FormatConflict(*conflict) for conflict in index.GetConflicts())
    return problems


def _CheckClusterWide(view: View) -> list[str]:
    return [
        *CheckHypervisors(view.cluster),
        *CheckMaster(view.cluster, view.nodes),
        *CheckCandidatePool(view.cluster, view.nodes.values()),
    ]


def VerifyChanged(view: View, index: claims.ClaimIndex, changed: Iterable[claims.Key]) -> list[str]:
    """The problems that changed objects are part of.

    @param index: claims of the whole configuration as it is now
    @param changed: objects that were put, or are no more
    """
    keys = sorted(set(changed))
    problems: list[str] = []
    if any(key.kind != claims.INSTANCE for key in keys):
        problems.extend(_CheckClusterWide(view))
    removed_nodes = []
    ports: list[int] = []
    for key in keys:
        if key.kind == claims.NODE:
            node = view.nodes.get(key.name)
            if node is None:
                removed_nodes.append(key.name)
            else:
                problems.extend(CheckNode(key.name, node))
        elif key.kind == claims.INSTANCE:
            instance = view.instances.get(key.name)
            if instance is not None:
                problems.extend(CheckInstance(key.name, instance, view.nodes))
        ports.extend(claim.value for claim in index.GetClaims(key) if claim.kind == claims.PORT)
    if removed_nodes:
        # Rare, and the only change of one object that can break the rules of all instances.
        for name, instance in sorted(view.instances.items()):
            if not set(removed_nodes).isdisjoint(instance.all_nodes):
                problems.extend(CheckInstance(name, instance, view.nodes))
    problems.extend(CheckHighestPort(view.cluster, ports))
    problems.extend(FormatConflict(*conflict) for conflict in index.GetConflicts(keys))
    return problems
