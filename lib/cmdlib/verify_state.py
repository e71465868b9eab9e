"""What cluster verify knows of a cluster, and what it says is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .. import constants, ht, objects

_STRINGS: Final = ht.TListOf(ht.TString)

#: (type of the item, name of the code)
Code = tuple[str, str]


class Problem(NamedTuple):
    """One thing that is wrong."""

    code: Code
    #: Name of the node or instance; None for the cluster.
    item: str | None
    message: str
    severity: str = constants.CV_ERROR
    #: What to do about it.
    advice: str = ""

    @property
    def text(self) -> str:
        """What is wrong, and what to do about it."""
        return f"{self.message}; {self.advice}" if self.advice else self.message


def FormatProblem(problem: Problem, error_codes: bool) -> str:
    """A problem as one line, for people or (with codes) for programs."""
    item_type, code = problem.code
    if error_codes:
        return f"{problem.severity}:{code}:{item_type}:{problem.item}:{problem.text}"
    item = f" {problem.item}" if problem.item else ""
    return f"{problem.severity}: {item_type}{item}: {problem.text}"


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
    #: Paths of files that only nodes which join are sent.
    secret: frozenset[str] = frozenset()
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
