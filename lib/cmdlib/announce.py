"""What a unit would change, in lines for people: the announcement of a dry run.

A line is about one object of the configuration, or about nodes on which something is done. It keeps
apart what it is about from what it says, so that tests can hold it against what a real run changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .. import objects, serializer
from ..config import difference
from ..utils import text

#: Names of one list that are shown.
_MAX_NAMES: Final = 6
#: Longest value shown, in characters.
_MAX_VALUE: Final = 60
#: What every version of an object has of its own.
_VERSION_FIELDS: Final = frozenset(["serial_no", "mtime"])


@dataclass(frozen=True)
class Change:
    """One line.

    @ivar text: what would be done, e.g. "start it"
    @ivar target: the object of the configuration that would be changed: "cluster", "node NAME" or
        "instance NAME"; None if it is none
    @ivar nodes: nodes on which something would be done
    """

    text: str
    target: str | None = None
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.target is not None:
            return f"{self.target}: {self.text}"
        if self.nodes:
            return f"on {FormatNames(self.nodes)}: {self.text}"
        return self.text


def FormatNames(names: Collection[str], limit: int = _MAX_NAMES) -> str:
    """Names, naturally sorted; of too many only the first ones and how many there are more."""
    ordered = text.NiceSort(names)
    if len(ordered) <= limit:
        return ", ".join(ordered)
    shown = ordered[: limit - 1]
    return f"{', '.join(shown)} and {len(ordered) - len(shown)} more"


def OnNodes(nodes: Iterable[str], what: str) -> list[Change]:
    """Something that would be done on these nodes; nothing if there are none."""
    names = tuple(text.NiceSort(set(nodes)))
    return [Change(what, nodes=names)] if names else []


def OfCluster(what: str) -> Change:
    """A change of the cluster's object."""
    return Change(what, "cluster")


def OfNode(name: str, what: str) -> Change:
    """A change of a node's object."""
    return Change(what, f"node {name}")


def OfInstance(name: str, what: str) -> Change:
    """A change of an instance's object."""
    return Change(what, f"instance {name}")


def Between(
    old: objects.Cluster | objects.Node | objects.Instance,
    new: objects.Cluster | objects.Node | objects.Instance,
) -> list[Change]:
    """What differs in the new version of an object, a line for each value; pure."""
    if isinstance(old, objects.Cluster):
        target = "cluster"
    else:
        target = f"{'node' if isinstance(old, objects.Node) else 'instance'} {old.name}"
    edits = [difference.HideSecretsOfEdit(edit) for edit in difference.Between(old, new)]
    return [
        Change(f"{difference.FormatPath(edit[difference.PATH])} {_FormatEdit(edit)}", target)
        for edit in edits
        if edit[difference.PATH][0] not in _VERSION_FIELDS
    ]


def FormatValues(values: Mapping[str, Any]) -> str:
    """Settings as C{memory=128, vcpus=2}."""
    return ", ".join(f"{key}={_FormatValue(value)}" for key, value in values.items())


def _FormatEdit(edit: difference.Edit) -> str:
    if difference.AT in edit:
        # Elements of a list.
        gone, come = (
            ", ".join(map(_FormatValue, edit[side])) for side in (difference.OLD, difference.NEW)
        )
        if gone and come:
            return f"{gone} -> {come}"
        return f"without {gone}" if gone else f"with {come}"
    old, new = (
        _FormatValue(edit[side]) if side in edit else "unset"
        for side in (difference.OLD, difference.NEW)
    )
    return f"{old} -> {new}"


def _FormatValue(value: Any) -> str:
    shown = value if isinstance(value, str) and value else serializer.Dump(value).strip()
    return shown if len(shown) <= _MAX_VALUE else f"{shown[: _MAX_VALUE - 3]}..."
