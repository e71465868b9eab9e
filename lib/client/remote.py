"""Commands and files on all nodes, by SSH from the master."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from . import console

if TYPE_CHECKING:
    from ..utils import process

_NODE_FIELDS = ("name", "offline", "sip", "master")


class NodeClient(Protocol):
    """What is asked of the master daemon here."""

    def QueryNodes(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]: ...


def GetOnlineNodes(
    names: Sequence[str],
    cl: NodeClient,
    secondary_ips: bool = False,
    without_master: bool = False,
) -> list[str]:
    """Nodes that can be reached, in natural order; those left out are named on standard error.

    @param names: only these; none = all
    @param secondary_ips: their addresses for replication instead of their names
    """
    rows = cl.QueryNodes(list(names), list(_NODE_FIELDS), False)
    offline = [name for name, is_offline, _, _ in rows if is_offline]
    if offline:
        console.ToStderr(f"Note: skipping offline node(s): {', '.join(offline)}")
    return [
        sip if secondary_ips else name
        for name, is_offline, sip, is_master in rows
        if not is_offline and not (without_master and is_master)
    ]


def RunOnNodes(
    run: Callable[[str], process.RunResult], names: Sequence[str], parallel: int = 1
) -> Iterator[tuple[str, process.RunResult]]:
    """Run something for each node; results in the order of the nodes, each as soon as it is there.

    @param run: gets the node
    @param parallel: how many at a time
    """
    if parallel <= 1:
        for name in names:
            yield name, run(name)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(parallel) as pool:
        yield from zip(names, pool.map(run, names), strict=True)


def RunMasterLast(
    run: Callable[[str], process.RunResult], names: Sequence[str], master: str, parallel: int = 1
) -> Iterator[tuple[str, process.RunResult]]:
    """As L{RunOnNodes}, but the master when all others are done: it may end this process."""
    yield from RunOnNodes(run, [name for name in names if name != master], parallel)
    yield from RunOnNodes(run, [name for name in names if name == master])


def FormatResult(name: str, result: process.RunResult, prefix: bool = False) -> list[str]:
    """The lines that show how a command ended on a node.

    @param prefix: the node's name in front of each line instead of a heading
    """
    code = f"return code = {result.exit_code}"
    if result.exit_code is None:
        code = result.fail_reason
    lines = [*result.output.splitlines(), code]
    if prefix:
        return [f"{name}: {line}" for line in lines]
    return ["-" * 48, f"node: {name}", *lines]
