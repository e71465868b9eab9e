"""Replacing the storage of mirrored disks: what is to be done; pure.

A mirror has two sides. One of them, the I{target}, gets other storage, or leaves the mirror for a
node that takes its place; the I{other} one has the data, and is only read from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import constants, errors, objects
from . import announce


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    @ivar target: the node whose storage is replaced, or which leaves the mirrors
    @ivar other: the node that has the data
    @ivar new: the node that takes the target's place; None: new storage on the target itself
    @ivar disks: indices; none: there is nothing to do
    @ivar early_release: is the old storage removed, and are other jobs let at the nodes, before the
        new one has all data?
    """

    target: str
    other: str
    new: str | None = None
    disks: tuple[int, ...] = ()
    early_release: bool = False

    @property
    def nodes(self) -> list[str]:
        """All nodes that take part, each once."""
        return [self.target, self.other, *([self.new] if self.new else [])]

    @property
    def builds_on(self) -> str:
        """The node that gets new storage."""
        return self.new or self.target


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def CheckTarget(mode: str, remote_node: str | None, iallocator: str | None) -> None:
    """Check that a new secondary is given, or how to find one, exactly if there is to be one.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    given = [
        name
        for name, value in (("remote_node", remote_node), ("iallocator", iallocator))
        if value is not None
    ]
    if mode == constants.REPLACE_DISK_CHG:
        if len(given) != 1:
            raise _Invalid(
                f"To change the secondary node give exactly one of remote_node (-n) and iallocator"
                f" (-I); given are: {', '.join(given) or 'none of them'}"
            )
    elif given:
        raise _Invalid(
            f"{given[0]} goes with mode {constants.REPLACE_DISK_CHG} only, not with {mode}"
        )


def GetSecondary(instance: objects.Instance) -> str:
    """The one secondary node of a mirrored instance.

    @raise errors.OpPrereqError: C{wrong_input}: it is not mirrored; C{internal_error}: it has not
        one
    """
    if instance.disk_template not in constants.DTS_NET_MIRROR:
        raise _Invalid(
            f"Instance {instance.name} has the disk template {instance.disk_template}; only"
            f" {', '.join(sorted(constants.DTS_NET_MIRROR))} has disks that can be replaced"
        )
    nodes = sorted(instance.secondary_nodes)
    if len(nodes) != 1:
        raise errors.OpPrereqError(
            f"Instance {instance.name} should have one secondary node, but has"
            f" {', '.join(nodes) or 'none'}",
            errors.ECODE_FAULT,
        )
    return nodes[0]


def ChooseDisks(instance: objects.Instance, wanted: Sequence[int]) -> tuple[int, ...]:
    """Indices in their order, each once; all if none are given.

    @raise errors.OpPrereqError: C{wrong_input}: there is no such disk
    """
    for index in wanted:
        instance.FindDisk(index)
    return tuple(sorted(set(wanted))) or tuple(range(len(instance.disks)))


def MakePlan(
    instance: objects.Instance,
    mode: str,
    wanted: Sequence[int],
    new: str | None,
    early_release: bool,
) -> Plan:
    """What is to be done, in all modes but C{replace_auto}.

    @param wanted: indices of disks; empty: all
    @param new: the new secondary, for the mode that has one
    @raise errors.OpPrereqError: C{wrong_input}
    """
    primary, secondary = instance.primary_node, GetSecondary(instance)
    if mode == constants.REPLACE_DISK_PRI:
        disks = ChooseDisks(instance, wanted)
        return Plan(primary, secondary, None, disks, early_release)
    if mode == constants.REPLACE_DISK_SEC:
        disks = ChooseDisks(instance, wanted)
        return Plan(secondary, primary, None, disks, early_release)
    assert new is not None, mode
    if new in (primary, secondary):
        role = "primary" if new == primary else "secondary"
        raise _Invalid(
            f"Node {new} is the {role} node of instance {instance.name} already; name another one"
        )
    if wanted:
        raise _Invalid(
            "disks: all disks of an instance have the same secondary, so that it can not be changed"
            " for some of them"
        )
    return Plan(secondary, primary, new, ChooseDisks(instance, ()), early_release)


def MakeAutoPlan(
    instance: objects.Instance,
    wanted: Sequence[int],
    faulty: Mapping[str, Sequence[int]],
    early_release: bool,
) -> Plan:
    """What is to be done in mode C{replace_auto}.

    @param faulty: node -> indices of its bad disks, of both nodes
    @raise errors.OpPrereqError: C{wrong_input}: disks were named; C{wrong_state}: both sides have
        bad ones
    """
    primary, secondary = instance.primary_node, GetSecondary(instance)
    if wanted:
        raise _Invalid("disks: with replace_auto those that are faulty are replaced; name none")
    bad = [node for node in (primary, secondary) if faulty[node]]
    if len(bad) > 1:
        found = "; ".join(
            f"{node}: {announce.FormatNames([f'disk/{index}' for index in faulty[node]])}"
            for node in bad
        )
        raise errors.OpPrereqError(
            f"Instance {instance.name} has faulty disks on both nodes ({found}); replace those on"
            " one node by -p or -s, and --disks, if the other node has good ones",
            errors.ECODE_STATE,
        )
    if bad == [primary]:
        return Plan(primary, secondary, None, tuple(faulty[primary]), early_release)
    return Plan(secondary, primary, None, tuple(faulty[secondary]), early_release)


def DescribeChanges(instance: objects.Instance, plan: Plan) -> list[announce.Change]:
    """What a replacement would do, for a dry run."""
    if not plan.disks:
        return []
    names = announce.FormatNames([f"disk/{index}" for index in plan.disks])
    if plan.new is None:
        return [
            *announce.OnNodes(
                [plan.target], f"create new volumes for {names} and put them in place of the old"
            ),
            # What the mirrors do by themselves.
            announce.Change(f"the data of {names} is copied from {plan.other} to {plan.target}"),
            *announce.OnNodes([plan.target], f"remove the old volumes of {names}"),
        ]
    return [
        *announce.OnNodes([plan.new], f"create {names}"),
        *announce.OnNodes([plan.target], f"shut down {names}"),
        *announce.OnNodes([plan.other], f"mirror {names} to {plan.new}"),
        announce.OfInstance(
            instance.name, f"{names}: mirrored to {plan.new} instead of {plan.target}"
        ),
        *announce.OnNodes([plan.target], f"remove {names}"),
    ]


def GetSizes(instance: objects.Instance, plan: Plan) -> list[int]:
    """Sizes of the disks that are replaced, in MiB."""
    return [instance.disks[index].size for index in plan.disks]
