"""The checks of cluster verify: pure functions from what is known of a cluster to problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .. import constants, ht, objects
from ..utils import text
from .verify_state import Problem, State

# What lists in the answers of nodes must be like.
_STRINGS: Final = ht.TListOf(ht.TString)
_NUMBERS: Final = ht.TListOf(ht.TInt)
_PVS: Final = ht.TListOf(ht.TTuple(ht.TNumber, ht.TString, ht.TString))

# Nodes


def CheckNode(state: State, name: str) -> Iterator[Problem]:
    """All checks of one node that is not marked offline."""
    if name in state.failures:
        yield Problem(
            constants.CV_ENODERPC,
            name,
            f"The node can not be asked: {state.failures[name]}",
            advice="start its node daemon, or say that it is away with"
            f" 'gnt-node modify --offline yes {name}'",
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


#: Where a node tells more.
_SEE_LOG: Final = "node-daemon.log on the node tells why"
#: For a node that does not answer as this version does.
_SAME_VERSION: Final = "install the master's version on it and restart its node daemon"


def _CheckBasics(name: str, answer: Any) -> Problem | None:
    message = code = None
    if not answer or not isinstance(answer, dict):
        code, message = constants.CV_ENODERPC, "The node answered nothing usable"
    else:
        version = answer.get(constants.NV_VERSION)
        if not isinstance(version, (list, tuple)) or len(version) != 2:
            code, message = constants.CV_ENODERPC, "The node did not tell its version"
        elif version[0] != constants.PROTOCOL_VERSION:
            code = constants.CV_ENODEVERSION
            message = (
                f"Protocol {version[0]} differs from the master's {constants.PROTOCOL_VERSION}"
            )
    if code is None or message is None:
        return None
    return Problem(code, name, message, advice=_SAME_VERSION)


def _CheckRelease(name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    release = answer[constants.NV_VERSION][1]
    if release != constants.RELEASE_VERSION:
        yield Problem(
            constants.CV_ENODEVERSION,
            name,
            f"Release {release} differs from the master's {constants.RELEASE_VERSION}",
            constants.CV_WARNING,
            _SAME_VERSION,
        )


def _CheckHypervisors(name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    verified = answer.get(constants.NV_HYPERVISOR)
    if not isinstance(verified, dict):
        verified = {"(all)": f"the node did not check it, but said {verified!r}"}
    for kind, message in sorted(verified.items()):
        if message is not None:
            yield Problem(
                constants.CV_ENODEHV,
                name,
                f"Hypervisor {kind}: {message}",
                advice="repair it on the node, or leave it out with 'gnt-cluster modify"
                " --enabled-hypervisors'",
            )
    setup = answer.get(constants.NV_NODESETUP)
    if not isinstance(setup, list):
        setup = ["the node did not check it"]
    if setup:
        yield Problem(
            constants.CV_ENODESETUP,
            name,
            f"Node setup: {'; '.join(map(str, setup))}",
            advice="mount what is missing, also at boot",
        )


def _CheckNetwork(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    reached = answer.get(constants.NV_NODELIST)
    if not isinstance(reached, dict):
        yield Problem(
            constants.CV_ENODESSH,
            name,
            "The node did not check the way to the others",
            advice=_SAME_VERSION,
        )
    else:
        for other in text.NiceSort(reached):
            yield Problem(
                constants.CV_ENODESSH,
                name,
                f"No way to node {other}: {reached[other]}",
                advice=f"check the SSH server of {other}; 'gnt-cluster redist-conf' sends the known"
                f" hosts again, 'gnt-node add --readd {other}' the keys",
            )
    tested = answer.get(constants.NV_NODENETTEST)
    if not isinstance(tested, dict):
        yield Problem(
            constants.CV_ENODENET, name, "The node did not test its network", advice=_SAME_VERSION
        )
    else:
        for other in text.NiceSort(tested):
            yield Problem(
                constants.CV_ENODENET,
                name,
                f"No TCP connection to node {other}: {tested[other]}",
                advice=f"check the node daemon of {other}, and addresses, routes and firewalls"
                " between the two",
            )
    yield from _CheckMasterIp(state, name, answer.get(constants.NV_MASTERIP))


def _CheckMasterIp(state: State, name: str, reachable: Any) -> Iterator[Problem]:
    if reachable:
        return
    if reachable is None:
        message, advice = "The node did not test the master IP", _SAME_VERSION
    elif name == state.master:
        message = "The master IP is not reachable from the master itself"
        advice = "restart the master daemon, which brings the address up"
    else:
        message = "The master IP is not reachable"
        advice = f"check that {state.master} has it, and the routes to it"
    yield Problem(constants.CV_ENODENET, name, message, advice=advice)


def _CheckVolumeGroup(vg_name: str, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    groups = answer.get(constants.NV_VGLIST)
    code, message = constants.CV_ENODELVM, None
    advice = (
        "make or enlarge it (vgcreate, vgextend), or do without LVM (gnt-cluster modify"
        " --no-lvm-storage)"
    )
    if not groups or not isinstance(groups, dict):
        message = "The node can not list its volume groups"
    elif vg_name not in groups:
        message = f"Volume group {vg_name} is missing"
    elif not isinstance(groups[vg_name], (int, float)):
        code = constants.CV_ENODERPC
        message = f"Volume group {vg_name} has no size: {groups[vg_name]!r}"
        advice = _SAME_VERSION
    elif groups[vg_name] < constants.MIN_VG_SIZE:
        message = (
            f"Volume group {vg_name} has {groups[vg_name]:.0f} MiB, at least"
            f" {constants.MIN_VG_SIZE} are needed"
        )
    if message is not None:
        yield Problem(code, name, message, advice=advice)
    volumes = answer.get(constants.NV_PVLIST)
    if not _PVS(volumes):
        yield Problem(
            constants.CV_ENODELVM,
            name,
            "The node can not list its physical volumes",
            advice="see what 'pvs' says on it",
        )
        return
    assert isinstance(volumes, list)
    for _, pv_name, owner in volumes:
        if ":" in pv_name:
            yield Problem(
                constants.CV_ENODELVM,
                name,
                f"The physical volume {pv_name} of {owner} has a colon in its name, which lvcreate"
                " can not take",
                advice="give the device another name, such as one of /dev/disk/by-id",
            )


def _CheckFiles(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    found = answer.get(constants.NV_FILELIST)
    if not isinstance(found, dict):
        yield Problem(
            constants.CV_ENODEFILECHECK,
            name,
            "The node returned no file checksums",
            advice=_SAME_VERSION,
        )
        return
    candidate = bool(state.nodes[name].master_candidate)
    for path, candidates_only in state.files.items():
        problem = _CheckFile(
            state, name, path, found.get(path), required=candidate or not candidates_only
        )
        if problem is not None:
            yield problem


def _CheckFile(
    state: State, name: str, path: str, have: str | None, required: bool
) -> Problem | None:
    """One file of one node.

    @param have: its checksum
    @param required: shall the node have it?
    """
    code = constants.CV_ENODEFILECHECK
    wanted = state.checksums.get(path)
    if wanted is None:
        if have is None or not required:
            return None
        return Problem(
            code,
            state.master,
            f"File {path} is missing on the master, but node {name} has it",
            advice=f"copy it from there, or remove it on {name}",
        )
    if required and have != wanted:
        what = "is missing" if have is None else "differs from the master's"
        advice = f"'gnt-cluster redist-conf' sends the master's, unless {name} is the one to trust"
        if path in state.secret:
            # Nobody is sent it who lacks it: it is what tells nodes from others.
            advice = f"'gnt-node add --readd {name}' sends the master's"
        return Problem(code, name, f"File {path} {what}", advice=advice)
    if have is not None and not required:
        which = "an identical copy" if have == wanted else "an outdated copy"
        return Problem(
            code,
            name,
            f"File {path} should not be here, where there is {which}: the node is no master"
            " candidate",
            advice=f"remove it, or make the node one with 'gnt-node modify -C yes {name}'",
        )
    return None


def _CheckDrbd(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    expected = state.drbd_map.get(name, {})
    for minor, owner in sorted(expected.items()):
        if owner not in state.instances:
            yield Problem(
                constants.CV_ECLUSTERCFG,
                None,
                f"DRBD minor {minor} on {name} belongs to the unknown instance {owner}",
                advice="restart the master daemon, which counts the minors again",
            )
    used = answer.get(constants.NV_DRBDLIST)
    if not _NUMBERS(used):
        yield Problem(
            constants.CV_ENODEDRBD,
            name,
            f"The DRBD status can not be read: {used}",
            advice="see that its module is loaded and /proc/drbd is there",
        )
        return
    assert isinstance(used, list)
    for minor, owner in sorted(expected.items()):
        instance = state.instances.get(owner)
        if instance is not None and instance.admin_up and minor not in used:
            yield Problem(
                constants.CV_ENODEDRBD,
                name,
                f"DRBD minor {minor} of {owner} is not active",
                advice=f"'gnt-instance activate-disks {owner}' brings it up",
            )
    for minor in sorted(set(used) - set(expected)):
        yield Problem(
            constants.CV_ENODEDRBD,
            name,
            f"DRBD minor {minor} in use belongs to nobody",
            advice="take it down with drbdsetup, if no other cluster or program uses it",
        )


def _CheckTime(
    window: tuple[float, float], name: str, answer: Mapping[str, Any]
) -> Iterator[Problem]:
    try:
        now = text.MergeTime(answer[constants.NV_TIME])
    except (KeyError, TypeError, ValueError, AssertionError):
        yield Problem(
            constants.CV_ENODETIME, name, "The node told no valid time", advice=_SAME_VERSION
        )
        return
    before, after = window
    skew = max(before - now, now - after)
    if skew > constants.NODE_MAX_CLOCK_SKEW:
        yield Problem(
            constants.CV_ENODETIME,
            name,
            f"The clock is off by at least {skew:.1f} seconds",
            advice="set it, and have all nodes keep it by NTP",
        )


def _CheckInventory(state: State, name: str, answer: Mapping[str, Any]) -> Iterator[Problem]:
    if state.vg_name is not None:
        volumes = answer.get(constants.NV_LVLIST)
        if not isinstance(volumes, dict):
            yield Problem(
                constants.CV_ENODELVM,
                name,
                f"The node can not list its logical volumes: {volumes}",
                advice=f"see what 'lvs {state.vg_name}' says on it",
            )
    running = answer.get(constants.NV_INSTANCELIST)
    if not _STRINGS(running):
        yield Problem(
            constants.CV_ENODEHV,
            name,
            f"The node can not list its instances: {running}",
            advice=_SEE_LOG,
        )
    info = answer.get(constants.NV_HVINFO)
    if not isinstance(info, dict) or "memory_free" not in info:
        yield Problem(
            constants.CV_ENODEHV,
            name,
            "The hypervisor told nothing of the node",
            advice=_SEE_LOG,
        )
    elif not isinstance(info["memory_free"], int):
        yield Problem(
            constants.CV_ENODERPC,
            name,
            f"The free memory is no number: {info['memory_free']!r}",
            advice=_SAME_VERSION,
        )


# Instances


def FindRunning(state: State) -> dict[str, list[str]]:
    """What runs where: instance -> its nodes, in natural order."""
    found: dict[str, list[str]] = {}
    for node in text.NiceSort(state.nodes):
        for name in dict.fromkeys(state.RunningOn(node)):
            found.setdefault(name, []).append(node)
    return found


def CheckInstance(
    state: State, name: str, running: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Problem]:
    """All checks of one instance.

    @param running: from L{FindRunning}, for whoever checks many
    """
    running_on = (FindRunning(state) if running is None else running).get(name, ())
    instance = state.instances[name]
    yield from _CheckVolumes(state, instance)
    primary = instance.primary_node
    node = state.nodes.get(primary)
    offline = node is not None and bool(node.offline)
    elsewhere = [other for other in running_on if other != primary]
    if instance.admin_up and primary not in running_on and not offline:
        yield Problem(
            constants.CV_EINSTANCEDOWN,
            name,
            f"Should run on its primary node {primary}, but does not",
            advice="do not start it there, for it runs elsewhere"
            if elsewhere
            else f"'gnt-instance startup {name}' starts it; if it shall not run, say so with"
            f" 'gnt-instance shutdown {name}'",
        )
    broken_off = primary not in running_on and instance.disk_template in constants.DTS_MIRRORED
    for other in elsewhere:
        yield Problem(
            constants.CV_EINSTANCEWRONGNODE,
            name,
            f"Runs on {other}, its primary node is {primary}",
            advice=f"after a migration that broke off, 'gnt-instance migrate --cleanup {name}'"
            " takes over where it runs"
            if broken_off and len(elsewhere) == 1
            else "stop it there with the hypervisor's own command; if it ran on both, compare its"
            " disks",
        )
    secondaries = text.NiceSort(instance.secondary_nodes)
    if len(secondaries) > 1:
        yield Problem(
            constants.CV_EINSTANCELAYOUT,
            name,
            f"Has more than one secondary node: {', '.join(secondaries)}",
            constants.CV_WARNING,
            f"give all disks the same one with 'gnt-instance replace-disks -n NODE {name}'",
        )
    for role, other in [("primary", primary)] + [("secondary", item) for item in secondaries]:
        known = state.nodes.get(other)
        if known is None:
            yield Problem(
                constants.CV_EINSTANCEBADNODE,
                name,
                f"Its {role} node {other} does not exist",
                advice=_LeaveNode(name, role),
            )
        elif known.offline:
            yield Problem(
                constants.CV_EINSTANCEBADNODE,
                name,
                f"Its {role} node {other} is marked offline",
                advice=_LeaveNode(name, role),
            )
        elif not state.IsUp(other):
            yield Problem(
                constants.CV_ENODERPC,
                other,
                f"Instance {name}: its {role} node does not answer",
                advice=f"bring the node back, or {_LeaveNode(name, role)}",
            )


def _LeaveNode(name: str, role: str) -> str:
    """How an instance leaves a node that is not there any more."""
    if role == "primary":
        return (
            f"'gnt-instance failover --ignore-consistency {name}' starts it on its secondary node,"
            " if it has one"
        )
    return f"'gnt-instance replace-disks -n NODE {name}' gives it another one"


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
                    advice=_MakeAgain(instance, node),
                )


def _MakeAgain(instance: objects.Instance, node: str) -> str:
    """How a volume that is gone comes back: from the mirror, if there is one."""
    if instance.disk_template == constants.DT_DRBD8:
        side = "-p" if node == instance.primary_node else "-s"
        return (
            f"'gnt-instance replace-disks {side} {instance.name}' makes it again from the other"
            " node's"
        )
    return (
        f"'gnt-instance recreate-disks {instance.name}' makes it again, empty, and 'gnt-backup"
        " import' takes the content from an export"
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
                    constants.CV_ENODEORPHANLV,
                    node,
                    f"Logical volume {volume} belongs to nobody",
                    advice=f"if nobody needs it, 'lvremove {state.vg_name}/{volume}' on the node"
                    " removes it",
                )


def CheckOrphanInstances(state: State) -> Iterator[Problem]:
    """Instances that run but are not in the configuration."""
    for node in text.NiceSort(state.nodes):
        for name in text.NiceSort(state.RunningOn(node)):
            if name not in state.instances:
                yield Problem(
                    constants.CV_ENODEORPHANINSTANCE,
                    node,
                    f"Runs the unknown instance {name}",
                    advice="stop it there with the hypervisor's own command, unless somebody runs"
                    " it on purpose",
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
                advice="move instances away from it, or give some another secondary node",
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
