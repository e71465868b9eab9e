"""What the watcher does about what it sees: pure functions from facts to decisions."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .state import Attempts, State

#: Status of an instance that should run but does not.
ERROR_DOWN: Final = "ERROR_down"
#: Status of instances of which nothing is known, as their node can not be asked.
UNKNOWN_STATUSES: Final = frozenset(["ERROR_nodedown", "ERROR_nodeoffline"])

#: An instance is started that many times in vain.
MAX_ATTEMPTS: Final = 5
#: Seconds after the last attempt that the record of an instance is forgotten.
ATTEMPTS_EXPIRE: Final = 8 * 3600

#: Seconds that a master daemon that was stopped in good order is left alone: a failover that
#: stopped it may not have told this node yet who the new master is.
GRACE: Final = 300


@dataclass(frozen=True)
class InstanceFacts:
    """An instance.

    @ivar should_run: is it meant to?
    """

    name: str
    status: str
    should_run: bool
    secondaries: Sequence[str]


@dataclass(frozen=True)
class NodeFacts:
    """A node; boot_id: None if it can not be asked."""

    name: str
    boot_id: str | None


class Action(enum.Enum):
    """What is done about an instance."""

    NOTHING = "nothing"
    #: One more attempt.
    START = "start"
    #: Say that there will be no more attempts.
    GIVE_UP = "give up"
    #: The record is of no use any more.
    FORGET = "forget"
    #: It runs again, or is not meant to run: the record goes, and that is said.
    RECOVERED = "recovered"


def DecideInstance(status: str, attempts: Attempts | None) -> Action:
    """What to do about an instance in this status, with what was tried before."""
    count = 0 if attempts is None else attempts.count
    if status == ERROR_DOWN:
        if count < MAX_ATTEMPTS:
            return Action.START
        return Action.GIVE_UP if count == MAX_ATTEMPTS else Action.NOTHING
    if attempts is None:
        return Action.NOTHING
    return Action.FORGET if status in UNKNOWN_STATUSES else Action.RECOVERED


def FindOutdated(
    attempts: Mapping[str, Attempts], existing: Collection[str], now: float
) -> list[str]:
    """Names of the records that are old, or whose instance is gone.

    @param now: seconds since the epoch
    """
    return [
        name
        for name, record in attempts.items()
        # A time in the future is that of a clock which was put back.
        if name not in existing or abs(now - record.when) >= ATTEMPTS_EXPIRE
    ]


def FindRebooted(nodes: Iterable[NodeFacts], state: State) -> list[str]:
    """Nodes that were booted since they were last seen, and those never seen before."""
    return [
        node.name
        for node in nodes
        if node.boot_id is not None and state.boot_ids.get(node.name) != node.boot_id
    ]


def UpdateBootIds(nodes: Iterable[NodeFacts], known: Mapping[str, str]) -> dict[str, str]:
    """The boots that are known after this run: nodes that can not be asked keep what they had."""
    updated = {}
    for node in nodes:
        boot_id = node.boot_id if node.boot_id is not None else known.get(node.name)
        if boot_id is not None:
            updated[node.name] = boot_id
    return updated


def FindDisklessMirrors(
    instances: Iterable[InstanceFacts], rebooted: Collection[str], started: Collection[str]
) -> list[str]:
    """Instances with a secondary among the rebooted nodes, which may lack its half of their disks.

    @param started: those whose start has activated their disks
    """
    return [
        instance.name
        for instance in instances
        if instance.should_run
        and instance.name not in started
        and not set(rebooted).isdisjoint(instance.secondaries)
    ]


def FindInactive(inactive: Iterable[str], missing: Collection[str]) -> list[str]:
    """Instances whose disks can be activated: nothing can help those with missing volumes."""
    return [name for name in inactive if name not in missing]


def FindReasonToWait(now: float, begun: float | None, stopped: float | None) -> str | None:
    """Why a master daemon that does not serve is to be left alone for now; None if it is not.

    @param now: seconds since the epoch
    @param begun: when a failover to this node was begun, None if none is known
    @param stopped: when the master daemon ended in good order, None if it did not
    """

    def _IsRecent(time: float | None) -> bool:
        return time is not None and abs(now - time) < GRACE

    if _IsRecent(begun):
        return "a failover to this node is under way"
    if _IsRecent(stopped):
        assert stopped is not None
        return (
            f"it was stopped in good order {max(0, now - stopped):.0f} s ago, maybe for a failover;"
            f" it is started if it is still down {GRACE} s after that"
        )
    return None
