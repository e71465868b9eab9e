"""Listing nodes: one table of fields, each a function of what is known of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import locking, objects, opcodes
from ..utils import text
from . import base


@dataclass(frozen=True)
class NodeFacts:
    """What a field of a node may look at.

    @ivar live: what the node itself reported; empty if it was not asked or did not answer
    """

    node: objects.Node
    is_master: bool
    primaries: Sequence[str] = ()
    secondaries: Sequence[str] = ()
    live: Mapping[str, Any] = field(default_factory=dict)


def GetRole(facts: NodeFacts) -> str:
    """One letter: M(aster), (master) C(andidate), D(rained), O(ffline), R(egular)."""
    node = facts.node
    for letter, applies in (
        ("M", facts.is_master),
        ("C", node.master_candidate),
        ("D", node.drained),
        ("O", node.offline),
    ):
        if applies:
            return letter
    return "R"


_NodeFn = Callable[[NodeFacts], Any]


def _Attribute(name: str) -> _NodeFn:
    return lambda facts: getattr(facts.node, name)


def _Flag(name: str) -> _NodeFn:
    return lambda facts: bool(getattr(facts.node, name))


def _Live(key: str) -> _NodeFn:
    return lambda facts: text.TryConvert(int, facts.live.get(key))


#: Need the configuration only.
STATIC_FIELDS: Final[dict[str, _NodeFn]] = {
    "name": _Attribute("name"),
    "pinst_cnt": lambda facts: len(facts.primaries),
    "sinst_cnt": lambda facts: len(facts.secondaries),
    "pinst_list": lambda facts: list(facts.primaries),
    "sinst_list": lambda facts: list(facts.secondaries),
    "pip": _Attribute("primary_ip"),
    "sip": _Attribute("secondary_ip"),
    "tags": lambda facts: sorted(facts.node.GetTags()),
    "serial_no": _Attribute("serial_no"),
    "ctime": _Attribute("ctime"),
    "mtime": _Attribute("mtime"),
    "uuid": _Attribute("uuid"),
    "master_candidate": _Flag("master_candidate"),
    "offline": _Flag("offline"),
    "drained": _Flag("drained"),
    "master": lambda facts: facts.is_master,
    "role": GetRole,
}

#: Need an answer of the node; None without one.
LIVE_FIELDS: Final[dict[str, _NodeFn]] = {
    "dtotal": _Live("vg_size"),
    "dfree": _Live("vg_free"),
    "mtotal": _Live("memory_total"),
    "mnode": _Live("memory_dom0"),
    "mfree": _Live("memory_free"),
    "bootid": lambda facts: facts.live.get("bootid"),
    "ctotal": _Live("cpu_total"),
    "cnodes": _Live("cpu_nodes"),
    "csockets": _Live("cpu_sockets"),
}

_STATIC: Final = text.FieldSet(*STATIC_FIELDS)
_LIVE: Final = text.FieldSet(*LIVE_FIELDS)

#: These need a look at all instances.
_INSTANCE_FIELDS: Final = frozenset(["pinst_cnt", "sinst_cnt", "pinst_list", "sinst_list"])


def MapInstances(
    instances: Mapping[str, objects.Instance],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Which instances each node is primary, and secondary, for; names in natural order."""
    primaries: dict[str, list[str]] = {}
    secondaries: dict[str, list[str]] = {}
    for name in text.NiceSort(instances):
        primaries.setdefault(instances[name].primary_node, []).append(name)
        for node in instances[name].secondary_nodes:
            secondaries.setdefault(node, []).append(name)
    return primaries, secondaries


class LUNodeQuery(base.NoHooksLU):
    """List nodes; one call to each node at the most, and only if a field needs it."""

    LOOKS_ONLY = True

    def CheckArguments(self) -> None:
        base.CheckOutputFields(_STATIC, _LIVE, self.op.output_fields)

    def ExpandNames(self) -> None:
        self.wanted = base.GetWantedNodes(self, self.op.names) if self.op.names else None
        self.live = any(name in LIVE_FIELDS for name in self.op.output_fields)
        self.needed_locks = {}
        self.share_locks[locking.LEVEL_NODE] = 1
        if self.live and self.op.use_locking:
            names = locking.ALL_SET if self.wanted is None else self.wanted
            self.needed_locks[locking.LEVEL_NODE] = names

    def CheckPrereq(self) -> None:
        """Nothing to check: a node that went meanwhile is reported by L{Exec}."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[Any]]:
        nodes = self.cfg.GetAllNodesInfo()
        names = base.CheckStillThere("node", self.wanted, nodes)
        live: dict[str, Mapping[str, Any]] = {}
        if self.live:
            results = self.rpc.call_node_info(
                names, self.cfg.GetVGName(), self.cfg.GetHypervisorType()
            )
            live = {
                name: result.payload
                for name, result in results.items()
                if not result.fail_msg and isinstance(result.payload, dict)
            }
        primaries: dict[str, list[str]] = {}
        secondaries: dict[str, list[str]] = {}
        if _INSTANCE_FIELDS.intersection(self.op.output_fields):
            primaries, secondaries = MapInstances(self.cfg.GetAllInstancesInfo())
        master = self.cfg.GetMasterNode()
        getters = [STATIC_FIELDS.get(name) or LIVE_FIELDS[name] for name in self.op.output_fields]
        rows = []
        for name in names:
            facts = NodeFacts(
                nodes[name],
                name == master,
                primaries.get(name, ()),
                secondaries.get(name, ()),
                live.get(name, {}),
            )
            rows.append([getter(facts) for getter in getters])
        return rows


LOGICAL_UNITS: Final = {opcodes.OpNodeQuery: LUNodeQuery}
