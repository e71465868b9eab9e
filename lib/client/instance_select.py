"""Which instances a command is about that takes several: by name, node, tag, or all.

The options only say how to read the arguments; the last one counts. And what is asked before
something is done to an instance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from .. import errors
from ..utils import text
from . import console, options

MODE_INSTANCES: Final = "instances"
MODE_ALL: Final = "all"
MODE_NODES: Final = "nodes"
MODE_PRIMARY: Final = "primary"
MODE_SECONDARY: Final = "secondary"
MODE_TAGS: Final = "tags"
MODE_NODE_TAGS: Final = "node-tags"
MODE_PRIMARY_TAGS: Final = "pri-node-tags"
MODE_SECONDARY_TAGS: Final = "sec-node-tags"

_PRIMARY: Final = "pinst_list"
_SECONDARY: Final = "sinst_list"

#: Mode -> lists of a node that count; for nodes given by name and for those given by tag.
_NODE_MODES: Final = {
    MODE_NODES: (_PRIMARY, _SECONDARY),
    MODE_PRIMARY: (_PRIMARY,),
    MODE_SECONDARY: (_SECONDARY,),
}
_NODE_TAG_MODES: Final = {
    MODE_NODE_TAGS: (_PRIMARY, _SECONDARY),
    MODE_PRIMARY_TAGS: (_PRIMARY,),
    MODE_SECONDARY_TAGS: (_SECONDARY,),
}


def _Selector(flag: str, mode: str, about: str) -> options.Opt:
    return options.Opt(
        flag, dest="multi_mode", action="store_const", const=mode, help=f"Filter by {about}"
    )


SELECTORS: Final = (
    options.Opt(
        "--instance",
        dest="multi_mode",
        action="store_const",
        const=MODE_INSTANCES,
        default=MODE_INSTANCES,
        help="Filter by instance name [default]",
    ),
    _Selector("--node", MODE_NODES, "node: instances with one of the nodes as any of theirs"),
    _Selector("--primary", MODE_PRIMARY, "primary node"),
    _Selector("--secondary", MODE_SECONDARY, "secondary node"),
    options.Opt(
        "--all",
        dest="multi_mode",
        action="store_const",
        const=MODE_ALL,
        help="All instances of the cluster",
    ),
    _Selector("--tags", MODE_TAGS, "instance tag"),
    _Selector("--node-tags", MODE_NODE_TAGS, "tag of any node of the instance"),
    _Selector("--pri-node-tags", MODE_PRIMARY_TAGS, "tag of the primary node"),
    _Selector("--sec-node-tags", MODE_SECONDARY_TAGS, "tag of the secondary node"),
)
FORCE_MULTIPLE_OPT: Final = options.Flag(
    "--force-multiple",
    dest="force_multi",
    help="Do not ask for confirmation when more than one instance is affected",
)


class QueryClient(Protocol):
    """The requests of L{luxi.Client} that a selection needs."""

    def QueryInstances(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]: ...
    def QueryNodes(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]: ...


def _Refuse(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


def _Names(cl: QueryClient, names: Sequence[str]) -> list[str]:
    return [row[0] for row in cl.QueryInstances(names, ["name"], False)]


def _Tagged(rows: Sequence[Sequence[Any]], tags: Sequence[str]) -> list[Sequence[Any]]:
    """Rows whose last field has one of the tags."""
    wanted = frozenset(tags)
    return [row for row in rows if wanted.intersection(row[-1])]


def _Lists(rows: Sequence[Sequence[Any]], count: int) -> list[str]:
    return [name for row in rows for names in row[:count] for name in names]


def ExpandMultiNames(mode: str, args: Sequence[str], cl: QueryClient) -> list[str]:
    """Names of the selected instances, each once, in natural order.

    @param mode: C{MODE_*}
    @param args: names or tags
    @raise errors.OpPrereqError: C{wrong_input}, nothing to select by or nothing selected;
        C{unknown_entity} for a name that there is not
    """
    if mode == MODE_ALL:
        if args:
            raise _Refuse(f"--all takes no arguments, but there are some: {text.CommaJoin(args)}")
    elif not args:
        what = {MODE_INSTANCES: "instance names"}.get(
            mode, "node names" if mode in _NODE_MODES else "tags"
        )
        raise _Refuse(f"No {what} given: name at least one as argument")

    found: list[str]
    if mode in (MODE_ALL, MODE_INSTANCES):
        found = _Names(cl, args)
    elif mode == MODE_TAGS:
        rows = cl.QueryInstances([], ["name", "tags"], False)
        found = [row[0] for row in _Tagged(rows, args)]
    elif mode in _NODE_MODES:
        lists = _NODE_MODES[mode]
        found = _Lists(cl.QueryNodes(args, [*lists], False), len(lists))
    else:
        lists = _NODE_TAG_MODES[mode]
        found = _Lists(_Tagged(cl.QueryNodes([], [*lists, "tags"], False), args), len(lists))
    if not found:
        raise _Refuse("Selection filter does not match any instances")
    return text.NiceSort(set(found))


def IsMultiple(opts: Any, names: Sequence[str]) -> bool:
    """Is it more than one instance that was named, or a selection the user may not foresee?"""
    return bool(opts.multi_mode != MODE_INSTANCES or len(names) > 1)


def ConfirmMultiple(
    opts: Any,
    names: Sequence[str],
    operation: str,
    confirm: Callable[[Sequence[str], str], bool] = console.ConfirmOperation,
) -> bool:
    """May the operation go on? Asks if several instances are affected."""
    if opts.force_multi or opts.dry_run or not IsMultiple(opts, names):
        return True
    return confirm(names, operation)


def MayGoOn(opts: Any, cl: Any, name: str, question: str) -> bool:
    """May it be done? Asks unless C{-f} is given; an instance that there is not is no question.

    Nor is a dry run, which does nothing.

    @raise errors.OpPrereqError: C{unknown_entity}
    """
    if opts.force or opts.dry_run:
        return True
    cl.QueryInstances([name], ["name"], False)
    return console.Confirm(f"{question}\nContinue?")
