"""The checks of cluster verify: pure functions from what is known of a cluster to problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .. import constants, ht, objects
from ..utils import text

# What lists in the answers of nodes must be like.
_STRINGS: Final = ht.TListOf(ht.TString)
_NUMBERS: Final = ht.TListOf(ht.TInt)
_PVS: Final = ht.TListOf(ht.TTuple(ht.TNumber, ht.TString, ht.TString))

#: (type of the item, name of the code)
Code = tuple[str, str]


class Problem(NamedTuple):
    """One thing that is wrong."""

    code: Code
    #: Name of the node or instance; None for the cluster.
    item: str | None
    message: str
    severity: str = constants.CV_ERROR


def FormatProblem(problem: Problem, error_codes: bool) -> str:
    """A problem as one line, for people or (with codes) for programs."""
    item_type, code = problem.code
    if error_codes:
        return f"{problem.severity}:{code}:{item_type}:{problem.item}:{problem.message}"
    item = f" {problem.item}" if problem.item else ""
    return f"{problem.severity}: {item_type}{item}: {problem.message}"


def SimulatedProblems() -> Iterator[Problem]:
    """One problem of every kind, to see how they look."""
    for name in sorted(vars(constants)):
        if name.startswith("CV_E") and name != "CV_ERROR":
            code = getattr(constants, name)
            item = None if code[0] == constants.CV_TCLUSTER else f"simulated-{code[0]}"
            yield Problem(code, item, "Simulated error")


@dataclass
class State:
    """What was gathered.

    @ivar answers: node -> its answer to C{node_verify}, of those that answered
    @ivar failures: node -> why it did not; without those marked offline
    @ivar files: path -> is it a file that only master candidates have?
    @ivar checksums: path -> checksum on the master, of those it has
    @ivar drbd_map: node -> {minor: instance}
    @ivar window: wall clock before and after asking
    @ivar backend: instance -> its filled backend parameters
    """

    nodes: Mapping[str, objects.Node]
    instances: Mapping[str, objects.Instance]
    master: str
    vg_name: str | None
    answers: Mapping[str, Any]
    failures: Mapping[str, str]
    files: Mapping[str, bool]
    checksums: Mapping[str, str]
    drbd_map: Mapping[str, Mapping[int, str]]
    window: tuple[float, float]
    backend: Mapping[str, Mapping[str, Any]]
    #: Nodes whose answer can not be used for what comes after.
    unusable: set[str] = field(default_factory=set)

    def IsUp(self, name: str) -> bool:
        """Did the node answer something usable?"""
        return name in self.answers and name not in self.unusable

    def RunningOn(self, name: str) -> list[str]:
        """Instances that run on a node; none if it can not tell."""
        if not self.IsUp(name):
            return []
        found = self.answers[name].get(constants.NV_INSTANCELIST)
        return found if _STRINGS(found) else []

    def FreeMemoryOf(self, name: str) -> int | None:
        """MiB of memory free on a node; None if it can not tell, which is a problem of its own."""
        info = self.answers[name].get(constants.NV_HVINFO) if self.IsUp(name) else None
        free = info.get("memory_free") if isinstance(info, dict) else None
        return free if isinstance(free, int) else None

    def VolumesOn(self, name: str) -> Mapping[str, Any] | None:
        """Logical volumes on a node; None if it can not tell."""
        if not self.IsUp(name):
            return None
        found = self.answers[name].get(constants.NV_LVLIST)
        return found if isinstance(found, dict) else None


# Nodes


def CheckNode(state: State, name: str) -> Iterator[Problem]:
    """All checks of one node that is not marked offline."""
    if name in state.failures:
        yield Problem(
            constants.CV_ENODERPC, name, f"The node can not be asked: {state.failures[name]}"
        )
        return
    answer = state.answers.get(name)
    basic = _CheckBasics(name, answer)
    if basic is not None:
        # Nothing else it says can be relied on.
        state.unusable.add(name)
        yield basic
        return
    assert isinstance(answer, dict)
    yield from _CheckRelease(name, answer)
    yield from _CheckHypervisors(name, answer)
    yield from _CheckNetwork(state, name, answer)
    if state.vg_name is not None:
        yield from _CheckVolumeGroup(state.vg_name, name, answer)
    yield from _CheckFiles(state, name, answer)
    if state.vg_name is not None:
        yield from _CheckDrbd(state, name, answer)
    yield from _CheckTime(state.window, name, answer)
    yield from _CheckInventory(state, name, answer)


def _CheckBasics(name: str, answer: Any) -> Problem | None:
    if not answer or not isinstance(answer, dict):
        return Problem(constants.CV_ENODERPC, name, "The node answered nothing usable")
    version = answer.get(constants.NV_VERSION)
    if not isinstance(version, (list, tuple)) or len(version) != 2:
        return Problem(constants.CV_ENODERPC, name, "The node did not tell its version")
    if version[0] != constants.PROTOCOL_VERSION:
        return Problem(
            constants.CV_ENODEVERSION,
            name,
            f"Protocol {version[0]} differs from the master's {constants.PROTOCOL_VERSION}",
        )
    return None


def _CheckRelease(name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    release = answer[constants.NV_VERSION][1]
    if release != constants.RELEASE_VERSION:
        yield Problem(
            constants.CV_ENODEVERSION,
            name,
            f"Release {release} differs from the master's {constants.RELEASE_VERSION}",
            constants.CV_WARNING,
        )


def _CheckHypervisors(name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    verified = answer.get(constants.NV_HYPERVISOR)
    if not isinstance(verified, dict):
        verified = {"(all)": f"the node did not check it, but said {verified!r}"}
    for kind, message in sorted(verified.items()):
        if message is not None:
            yield Problem(constants.CV_ENODEHV, name, f"Hypervisor {kind}: {message}")
    setup = answer.get(constants.NV_NODESETUP)
    if not isinstance(setup, list):
        setup = ["the node did not check it"]
    if setup:
        yield Problem(constants.CV_ENODESETUP, name, f"Node setup: {'; '.join(map(str, setup))}")


def _CheckNetwork(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    reached = answer.get(constants.NV_NODELIST)
    if not isinstance(reached, dict):
        yield Problem(constants.CV_ENODESSH, name, "The node did not check the way to the others")
    else:
        for other in text.NiceSort(reached):
            yield Problem(constants.CV_ENODESSH, name, f"No way to node {other}: {reached[other]}")
    tested = answer.get(constants.NV_NODENETTEST)
    if not isinstance(tested, dict):
        yield Problem(constants.CV_ENODENET, name, "The node did not test its network")
    else:
        for other in text.NiceSort(tested):
            yield Problem(
                constants.CV_ENODENET, name, f"No TCP connection to node {other}: {tested[other]}"
            )
    master_ip = answer.get(constants.NV_MASTERIP)
    if master_ip is None:
        yield Problem(constants.CV_ENODENET, name, "The node did not test the master IP")
    elif not master_ip:
        why = (
            "The master IP is not reachable from the master itself (is it configured?)"
            if name == state.master
            else "The master IP is not reachable"
        )
        yield Problem(constants.CV_ENODENET, name, why)


def _CheckVolumeGroup(vg_name: str, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    groups = answer.get(constants.NV_VGLIST)
    if not groups or not isinstance(groups, dict):
        yield Problem(constants.CV_ENODELVM, name, "The node can not list its volume groups")
    elif vg_name not in groups:
        yield Problem(constants.CV_ENODELVM, name, f"Volume group {vg_name} is missing")
    elif not isinstance(groups[vg_name], (int, float)):
        yield Problem(
            constants.CV_ENODERPC, name, f"Volume group {vg_name} has no size: {groups[vg_name]!r}"
        )
    elif groups[vg_name] < constants.MIN_VG_SIZE:
        yield Problem(
            constants.CV_ENODELVM,
            name,
            f"Volume group {vg_name} has {groups[vg_name]:.0f} MiB, at least"
            f" {constants.MIN_VG_SIZE} are needed",
        )
    volumes = answer.get(constants.NV_PVLIST)
    if not _PVS(volumes):
        yield Problem(constants.CV_ENODELVM, name, "The node can not list its physical volumes")
        return
    assert isinstance(volumes, list)
    for _, pv_name, owner in volumes:
        if ":" in pv_name:
            yield Problem(
                constants.CV_ENODELVM,
                name,
                f"The physical volume {pv_name} of {owner} has a colon in its name, which lvcreate"
                " can not take",
            )


def _CheckFiles(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    found = answer.get(constants.NV_FILELIST)
    if not isinstance(found, dict):
        yield Problem(constants.CV_ENODEFILECHECK, name, "The node returned no file checksums")
        return
    candidate = bool(state.nodes[name].master_candidate)
    for path, candidates_only in state.files.items():
        required = candidate or not candidates_only
        wanted = state.checksums.get(path)
        have = found.get(path)
        if wanted is None:
            if have is not None and required:
                yield Problem(
                    constants.CV_ENODEFILECHECK,
                    state.master,
                    f"File {path} is missing on the master, but node {name} has it",
                )
        elif have is None:
            if required:
                yield Problem(constants.CV_ENODEFILECHECK, name, f"File {path} is missing")
        elif not required:
            which = "an identical copy" if have == wanted else "an outdated copy"
            yield Problem(
                constants.CV_ENODEFILECHECK,
                name,
                f"File {path} should not be here, where there is {which}: the node is no master"
                " candidate",
            )
        elif have != wanted:
            yield Problem(
                constants.CV_ENODEFILECHECK, name, f"File {path} differs from the master's"
            )


def _CheckDrbd(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    expected = state.drbd_map.get(name, {})
    for minor, owner in sorted(expected.items()):
        if owner not in state.instances:
            yield Problem(
                constants.CV_ECLUSTERCFG,
                None,
                f"DRBD minor {minor} on {name} belongs to the unknown instance {owner}",
            )
    used = answer.get(constants.NV_DRBDLIST)
    if not _NUMBERS(used):
        yield Problem(constants.CV_ENODEDRBD, name, f"The DRBD status can not be read: {used}")
        return
    assert isinstance(used, list)
    for minor, owner in sorted(expected.items()):
        instance = state.instances.get(owner)
        if instance is not None and instance.admin_up and minor not in used:
            yield Problem(
                constants.CV_ENODEDRBD, name, f"DRBD minor {minor} of {owner} is not active"
            )
    for minor in sorted(set(used) - set(expected)):
        yield Problem(constants.CV_ENODEDRBD, name, f"DRBD minor {minor} in use belongs to nobody")


def _CheckTime(
    window: tuple[float, float], name: str, answer: Mapping[str, Any]
) -> Iterator[Problem]:
    try:
        now = text.MergeTime(answer[constants.NV_TIME])
    except (KeyError, TypeError, ValueError, AssertionError):
        yield Problem(constants.CV_ENODETIME, name, "The node told no valid time")
        return
    before, after = window
    skew = max(before - now, now - after)
    if skew > constants.NODE_MAX_CLOCK_SKEW:
        yield Problem(
            constants.CV_ENODETIME, name, f"The clock is off by at least {skew:.1f} seconds"
        )


def _CheckInventory(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    if state.vg_name is not None:
        volumes = answer.get(constants.NV_LVLIST)
        if not isinstance(volumes, dict):
            yield Problem(
                constants.CV_ENODELVM, name, f"The node can not list its logical volumes: {volumes}"
            )
    running = answer.get(constants.NV_INSTANCELIST)
    if not _STRINGS(running):
        yield Problem(constants.CV_ENODEHV, name, f"The node can not list its instances: {running}")
    info = answer.get(constants.NV_HVINFO)
    if not isinstance(info, dict) or "memory_free" not in info:
        yield Problem(constants.CV_ENODEHV, name, "The hypervisor told nothing of the node")
    elif not isinstance(info["memory_free"], int):
        yield Problem(
            constants.CV_ENODERPC,
            name,
            f"The free memory is no number: {info['memory_free']!r}",
        )


# Instances


def CheckInstance(state: State, name: str) -> Iterator[Problem]:
    """All checks of one instance."""
    instance = state.instances[name]
    yield from _CheckVolumes(state, instance)
    primary = instance.primary_node
    node = state.nodes.get(primary)
    offline = node is not None and bool(node.offline)
    if instance.admin_up and name not in state.RunningOn(primary) and not offline:
        yield Problem(
            constants.CV_EINSTANCEDOWN,
            name,
            f"Should run on its primary node {primary}, but does not",
        )
    for other in text.NiceSort(state.nodes):
        if other != primary and name in state.RunningOn(other):
            yield Problem(
                constants.CV_EINSTANCEWRONGNODE,
                name,
                f"Runs on {other}, its primary node is {primary}",
            )
    secondaries = text.NiceSort(instance.secondary_nodes)
    if len(secondaries) > 1:
        yield Problem(
            constants.CV_EINSTANCELAYOUT,
            name,
            f"Has more than one secondary node: {', '.join(secondaries)}",
            constants.CV_WARNING,
        )
    for role, other in [("primary", primary)] + [("secondary", item) for item in secondaries]:
        known = state.nodes.get(other)
        if known is None:
            yield Problem(
                constants.CV_EINSTANCEBADNODE, name, f"Its {role} node {other} does not exist"
            )
        elif known.offline:
            yield Problem(
                constants.CV_EINSTANCEBADNODE, name, f"Its {role} node {other} is marked offline"
            )
        elif not state.IsUp(other):
            yield Problem(
                constants.CV_ENODERPC, other, f"Instance {name}: its {role} node does not answer"
            )


def _CheckVolumes(state: State, instance: objects.Instance) -> Iterator[Problem]:
    for node, volumes in sorted(instance.MapLVsByNode().items()):
        have = state.VolumesOn(node)
        if have is None:
            continue
        for volume in volumes:
            if volume not in have:
                yield Problem(
                    constants.CV_EINSTANCEMISSINGDISK,
                    instance.name,
                    f"Logical volume {volume} is missing on node {node}",
                )


def CheckOrphanVolumes(state: State) -> Iterator[Problem]:
    """Logical volumes that belong to no instance."""
    expected: dict[str, set[str]] = {}
    for instance in state.instances.values():
        for node, volumes in instance.MapLVsByNode().items():
            expected.setdefault(node, set()).update(volumes)
    for node in text.NiceSort(state.nodes):
        for volume in text.NiceSort(state.VolumesOn(node) or {}):
            if volume not in expected.get(node, ()):
                yield Problem(
                    constants.CV_ENODEORPHANLV, node, f"Logical volume {volume} belongs to nobody"
                )


def CheckOrphanInstances(state: State) -> Iterator[Problem]:
    """Instances that run but are not in the configuration."""
    for node in text.NiceSort(state.nodes):
        for name in text.NiceSort(state.RunningOn(node)):
            if name not in state.instances:
                yield Problem(
                    constants.CV_ENODEORPHANINSTANCE, node, f"Runs the unknown instance {name}"
                )


def CheckNPlusOne(state: State) -> Iterator[Problem]:
    """Nodes that could not take over the instances of a peer, were it to fail."""
    needed: dict[tuple[str, str], int] = {}
    for instance in state.instances.values():
        backend = state.backend[instance.name]
        if not backend[constants.BE_AUTO_BALANCE]:
            continue
        for secondary in instance.secondary_nodes:
            pair = (secondary, instance.primary_node)
            needed[pair] = needed.get(pair, 0) + backend[constants.BE_MEMORY]
    for (node, peer), memory in sorted(needed.items()):
        free = state.FreeMemoryOf(node)
        if free is not None and memory > free:
            yield Problem(
                constants.CV_ENODEN1,
                node,
                f"Has {free} MiB of memory free, but would need {memory} if {peer} failed",
            )


def GetNotes(state: State) -> list[str]:
    """What is no problem, but good to know."""
    counts: Final = (
        (
            sum(not instance.secondary_nodes for instance in state.instances.values()),
            "non-redundant instance(s) found.",
        ),
        (
            sum(not state.backend[name][constants.BE_AUTO_BALANCE] for name in state.instances),
            "non-auto-balanced instance(s) found.",
        ),
        (sum(bool(node.offline) for node in state.nodes.values()), "offline node(s) found."),
        (sum(bool(node.drained) for node in state.nodes.values()), "drained node(s) found."),
    )
    return [f"{count} {what}" for count, what in counts if count]
