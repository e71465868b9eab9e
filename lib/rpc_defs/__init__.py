"""The calls that the master makes to node daemons: one row each.

Everything about a call that both ends must agree on stands here: name, arguments in their order and
their types, what comes back, how long it may take. The client's methods (L{rpc}) and the node
daemon's dispatch and validation are derived from it.

On the wire a call is a JSON array of its arguments. Three calls have one list as their only
argument and send it unwrapped, as the array itself; L{DecodeArgs} takes both forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import errors, ht
from .base import (
    MULTI,
    SINGLE,
    TMO_1DAY,
    TMO_4HRS,
    TMO_FAST,
    TMO_NORMAL,
    TMO_SLOW,
    TMO_URGENT,
    Arg,
    Call,
)
from .calls import CALLS

__all__ = [
    "CALLS",
    "MULTI",
    "SINGLE",
    "TMO_1DAY",
    "TMO_4HRS",
    "TMO_FAST",
    "TMO_NORMAL",
    "TMO_SLOW",
    "TMO_URGENT",
    "Arg",
    "Call",
    "CheckArgs",
    "CheckResult",
    "DecodeArgs",
    "EncodeArgs",
]


def CheckArgs(name: str, args: Sequence[Any]) -> str | None:
    """What is wrong with the arguments of a call; None if nothing is.

    @param name: a name from L{CALLS}
    @param args: one element for each argument, also for an unwrapped call
    @return: a text that names the argument and the value
    """
    call = CALLS[name]
    if len(args) != len(call.args):
        names = ", ".join(arg.name for arg in call.args) or "none"
        return f"Call '{name}' takes {len(call.args)} arguments ({names}), not {len(args)}"
    for arg, value in zip(call.args, args, strict=True):
        problem = arg.type.Problem(value)
        if problem is not None:
            return f"Argument '{arg.name}' of call '{name}': {problem}"
    return None


def CheckResult(name: str, payload: object) -> str | None:
    """What is wrong with the payload of a successful call; None if nothing is."""
    problem = CALLS[name].result.Problem(payload)
    return None if problem is None else f"Result of call '{name}': {problem}"


def EncodeArgs(name: str, args: Sequence[Any]) -> list[Any]:
    """The array that goes over the wire."""
    return list(args[0] if CALLS[name].unwrapped else args)


def DecodeArgs(name: str, body: object) -> list[Any]:
    """The arguments of a call from the array that came over the wire, checked.

    @return: one element for each argument
    @raise errors.RPCFail: they are not what the call takes; names argument and value
    """
    # What sends no body at all means no arguments.
    args = [] if body is None else body
    if not isinstance(args, list):
        raise errors.RPCFail(
            f"The arguments of call '{name}' must be an array, not {ht.Show(body)}"
        )
    if CALLS[name].unwrapped:
        problem = CheckArgs(name, [args])
        if problem is None:
            return [args]
        if len(args) != 1 or CheckArgs(name, args) is not None:
            raise errors.RPCFail(problem)
        return args
    problem = CheckArgs(name, args)
    if problem is not None:
        raise errors.RPCFail(problem)
    return args
