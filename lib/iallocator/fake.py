"""Allocators for tests; shipped, as the other fakes are.

Each takes the input of a script and gives its output. Raised LookupErrors are scripts that fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from .. import constants, serializer


def Simple(text: str) -> str:
    """An allocator for all modes of 2.1: where most memory is free, by name if it is the same."""
    data = serializer.Load(text)
    request = data["request"]
    free = {
        name: node["free_memory"]
        for name, node in data["nodes"].items()
        if not node["offline"] and not node["drained"]
    }
    if request["type"] == constants.IALLOCATOR_MODE_MEVAC:
        return _Evacuate(data, free)
    if request["type"] == constants.IALLOCATOR_MODE_ALLOC:
        chosen = _Best(free, request["memory"], ())[: request["required_nodes"]]
    else:
        instance = data["instances"][request["name"]]
        chosen = _Best(free, instance["memory"], instance["nodes"])[:1]
    if len(chosen) < request["required_nodes"]:
        return Refuse("not enough nodes with so much memory")(text)
    return Answer(chosen)(text)


def _Evacuate(data: dict[str, Any], free: dict[str, int]) -> str:
    leaving = data["request"]["evac_nodes"]
    moves = []
    for name, instance in sorted(data["instances"].items()):
        if not set(instance["nodes"][1:]) & set(leaving):
            continue
        best = _Best(free, instance["memory"], [*leaving, *instance["nodes"]])
        if not best:
            return Refuse(f"no node for {name}")("")
        free[best[0]] -= instance["memory"]
        moves.append([name, best[0]])
    return Answer(moves)("")


def _Best(free: dict[str, int], memory: int, barred: Collection[str]) -> list[str]:
    able = [name for name, size in free.items() if size >= memory and name not in barred]
    return sorted(able, key=lambda name: (-free[name], name))


def Answer(result: list[Any]) -> Callable[[str], str]:
    """An allocator that always answers the same."""
    return lambda _: serializer.Dump({"success": True, "info": "chosen", "result": result})


def Refuse(info: str) -> Callable[[str], str]:
    """An allocator that has no solution."""
    return lambda _: serializer.Dump({"success": False, "info": info, "result": []})


def Fail(message: str) -> Callable[[str], str]:
    """An allocator that ends with an error."""

    def Raise(_: str) -> str:
        raise LookupError(message)

    return Raise
