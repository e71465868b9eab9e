"""What an instance allocator answers: taken for hostile until it was checked; pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, serializer

#: Characters of the script's own words that are shown.
_MAX_INFO: Final = 2000
_MAX_SHOWN: Final = 100


@dataclass(frozen=True)
class Answer:
    """A checked answer.

    @ivar result: empty unless it succeeded
    """

    success: bool
    info: str
    result: list[Any]


def _Wrong(name: str, what: str) -> errors.OpExecError:
    return errors.OpExecError(f"The answer of iallocator '{name}' is wrong: {what}")


def _Show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


def _CleanInfo(info: str) -> str:
    """Words for people, without what moves the cursor of their terminal."""
    clean = "".join(char if char.isprintable() else " " for char in info).strip()
    return clean if len(clean) <= _MAX_INFO else f"{clean[:_MAX_INFO]}..."


def Parse(name: str, text: str) -> Answer:
    """Check the form of an answer, whatever was asked.

    @param name: of the script, for messages
    @raise errors.OpExecError: says what is wrong
    """
    if len(text) > constants.IALLOCATOR_MAX_OUTPUT:
        raise _Wrong(
            name, f"it has {len(text)} characters, more than {constants.IALLOCATOR_MAX_OUTPUT}"
        )
    try:
        answer = serializer.Load(text)
    except ValueError as err:
        raise _Wrong(name, f"it is no JSON ({err}): {_Show(text)}") from err
    if not isinstance(answer, dict):
        raise _Wrong(name, f"it must be a JSON object, not {_Show(answer)}")
    if "result" not in answer and "nodes" in answer:
        answer["result"] = answer["nodes"]  # As of 2.0
    for key, type_, what in (
        ("success", bool, "true or false"),
        ("info", str, "a text"),
        ("result", list, "a list"),
    ):
        if key not in answer:
            raise _Wrong(name, f"'{key}' is missing")
        if not isinstance(answer[key], type_):
            raise _Wrong(name, f"'{key}' must be {what}, not {_Show(answer[key])}")
    success = answer["success"]
    return Answer(success, _CleanInfo(answer["info"]), answer["result"] if success else [])


def _CheckNode(name: str, node: object, nodes: Mapping[str, Any], barred: Collection[str]) -> str:
    if not isinstance(node, str) or node not in nodes:
        raise _Wrong(name, f"{_Show(node)} is no node of this cluster")
    for flag in ("offline", "drained"):
        if nodes[node][flag]:
            raise _Wrong(name, f"the node {node} is {flag}")
    if node in barred:
        raise _Wrong(name, f"it chose {node}, which the instance is on, or is to leave")
    return node


def CheckNodes(
    name: str, result: Sequence[object], nodes: Mapping[str, Any], barred: Collection[str] = ()
) -> list[str]:
    """Check a result that names nodes: known, usable, each once.

    @param nodes: the nodes in the document
    @param barred: nodes that must not be chosen
    @raise errors.OpExecError: says what is wrong
    """
    names = [_CheckNode(name, node, nodes, barred) for node in result]
    if len(set(names)) != len(names):
        raise _Wrong(name, f"the same node twice: {', '.join(names)}")
    return names


def CheckMoves(
    name: str, result: Sequence[object], document: Mapping[str, Any], evac_nodes: Collection[str]
) -> list[list[str]]:
    """Check a result with rows of an instance and its new secondary.

    @param document: what was asked
    @param evac_nodes: the nodes to leave
    @raise errors.OpExecError: says what is wrong
    """
    leaving = GetEvacuees(document, evac_nodes)
    moves: dict[str, str] = {}
    for row in result:
        if not isinstance(row, list) or len(row) != 2:
            raise _Wrong(name, f"{_Show(row)} is no pair of an instance and a node")
        instance, node = row
        if not isinstance(instance, str) or instance not in document["instances"]:
            raise _Wrong(name, f"{_Show(instance)} is no instance of this cluster")
        if instance not in leaving:
            raise _Wrong(name, f"instance {instance} has no secondary on the nodes to leave")
        if instance in moves:
            raise _Wrong(name, f"instance {instance} is there twice")
        barred = {*evac_nodes, *document["instances"][instance]["nodes"]}
        moves[instance] = _CheckNode(name, node, document["nodes"], barred)
    missing = [instance for instance in leaving if instance not in moves]
    if missing:
        raise _Wrong(name, f"it leaves out the instances {', '.join(missing)}")
    return [[instance, node] for instance, node in moves.items()]


def GetEvacuees(document: Mapping[str, Any], evac_nodes: Collection[str]) -> list[str]:
    """The instances that have their secondary on one of the nodes."""
    return [
        instance
        for instance, values in sorted(document["instances"].items())
        if set(values["nodes"][1:]) & set(evac_nodes)
    ]


def TranslateEvacuation(name: str, found: Answer) -> Answer:
    """The answer to C{node-evacuate} of later versions, in the form of C{multi-evacuate}.

    @raise errors.OpExecError: it has another form
    """
    if not found.success:
        return found
    if len(found.result) != 3 or not all(isinstance(part, list) for part in found.result):
        raise _Wrong(name, f"not moved, failed and jobs, but {_Show(found.result)}")
    moved, failed, _ = found.result
    if failed:
        reasons = [
            ": ".join(map(str, row)) if isinstance(row, list) else str(row) for row in failed
        ]
        return Answer(False, _CleanInfo("; ".join(reasons)), [])
    rows = []
    for row in moved:
        if not isinstance(row, list) or len(row) != 3 or not isinstance(row[2], list) or not row[2]:
            raise _Wrong(name, f"{_Show(row)} is no instance, group and list of nodes")
        rows.append([row[0], row[2][-1]])
    return Answer(True, found.info, rows)


def Check(
    name: str, found: Answer, document: Mapping[str, Any], instance_nodes: Collection[str] = ()
) -> Answer:
    """Check the result of an answer against the request.

    Not the number of nodes: whoever asked says how many it wants.

    @param document: what was asked
    @param instance_nodes: the nodes that the instance is on already
    @raise errors.OpExecError: says what is wrong
    """
    if not found.success:
        return found
    request = document["request"]
    result: list[Any]
    if request["type"] == constants.IALLOCATOR_MODE_MEVAC:
        result = CheckMoves(name, found.result, document, request["evac_nodes"])
    else:
        barred = {*instance_nodes, *request.get("relocate_from", ())}
        result = CheckNodes(name, found.result, document["nodes"], barred)
    return Answer(True, found.info, result)
