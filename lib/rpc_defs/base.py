"""What a row of the table of node calls says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from .. import ht

#: To one node; the answer is one result.
SINGLE: Final = "single"
#: To many nodes at once; the answer is a result for each.
MULTI: Final = "multi"

# Classes of calls by the seconds after which no answer can be expected any more
TMO_URGENT: Final = 60
TMO_FAST: Final = 5 * 60
TMO_NORMAL: Final = 15 * 60
TMO_SLOW: Final = 3600
TMO_4HRS: Final = 4 * 3600
TMO_1DAY: Final = 86400


class Arg:
    """One argument of a call.

    @ivar name: what messages call it
    @ivar type: predicate from L{ht}
    """

    __slots__ = ("name", "type")

    def __init__(self, name: str, type_: ht.Type) -> None:
        self.name = name
        self.type = type_

    def __repr__(self) -> str:
        return f"<Arg {self.name}: {self.type}>"


class Call:
    """One call.

    @ivar name: path on the wire
    @ivar kind: L{SINGLE} or L{MULTI}
    @ivar static: needs no configuration, and is made to offline nodes as well
    @ivar timeout: seconds, or a function from the arguments to seconds
    @ivar args: the arguments, in order
    @ivar result: predicate of the payload of a success
    @ivar doc: one sentence
    @ivar unwrapped: the only argument is a list and is sent as the array of arguments
    @ivar method: name of the client's method
    @ivar read_only: only looks: the node is the same afterwards. The calls of a dry run
    """

    __slots__ = (
        "args",
        "doc",
        "kind",
        "method",
        "name",
        "read_only",
        "result",
        "static",
        "timeout",
        "unwrapped",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        timeout: float | Callable[[Sequence[Any]], float],
        args: Sequence[Arg],
        result: ht.Type,
        doc: str,
        *,
        static: bool = False,
        unwrapped: bool = False,
        method: str | None = None,
        read_only: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.static = static
        self.timeout = timeout
        self.args = tuple(args)
        self.result = result
        self.doc = doc
        self.unwrapped = unwrapped
        self.method = method or f"call_{name}"
        self.read_only = read_only

    def GetTimeout(self, args: Sequence[Any]) -> float:
        """Seconds that the call with these arguments may take."""
        return self.timeout(args) if callable(self.timeout) else self.timeout

    def __repr__(self) -> str:
        return f"<Call {self.name}({', '.join(arg.name for arg in self.args)})>"
