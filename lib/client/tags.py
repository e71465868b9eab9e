"""The tag commands, which are the same for clusters, nodes and instances.

The kind of object comes to the options as C{tag_type}, by C{override} of L{main.GenericMain}.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from .. import constants, errors
from . import console, jobs, options, parser

#: What L{main.GenericMain} has to override in a program with these commands.
TAG_TYPE: Final = "tag_type"


def _GetTarget(opts: Any, args: list[str]) -> tuple[str, str, list[str]]:
    """Kind and name of the object, and the arguments that are left."""
    kind = opts.tag_type
    if kind == constants.TAG_CLUSTER:
        return kind, kind, args
    return kind, args[0], args[1:]


def ParseTagLines(content: str) -> list[str]:
    """Tags of a file: one a line; blank lines are no tags."""
    return [line.strip() for line in content.splitlines() if line.strip()]


def _ReadTags(source: str | None) -> list[str]:
    if source is None:
        return []
    if source == "-":
        return ParseTagLines(sys.stdin.read())
    try:
        with open(source, encoding="utf-8") as fobj:
            return ParseTagLines(fobj.read())
    except (OSError, ValueError) as err:
        raise errors.OpPrereqError(
            f"--from: tags can not be read from '{source}': {err}", errors.ECODE_INVAL
        ) from err


def ListTags(opts: Any, args: list[str]) -> int:
    """Print the tags of an object."""
    kind, name, _ = _GetTarget(opts, args)
    for tag in sorted(jobs.GetClient().QueryTags(kind, name)):
        console.ToStdout(tag)
    return constants.EXIT_SUCCESS


def _GetTags(opts: Any, args: list[str]) -> tuple[str, str, list[str]]:
    kind, name, given = _GetTarget(opts, args)
    tags = given + _ReadTags(opts.tags_source)
    if not tags:
        raise errors.OpPrereqError("No tags given: name them as arguments or in a file (--from)")
    return kind, name, tags


def AddTags(opts: Any, args: list[str]) -> int:
    """Add tags to an object."""
    from .. import opcodes

    kind, name, tags = _GetTags(opts, args)
    jobs.SubmitOrSend(opcodes.OpTagsSet(kind=kind, name=name, tags=tags), opts)
    return constants.EXIT_SUCCESS


def RemoveTags(opts: Any, args: list[str]) -> int:
    """Remove tags from an object."""
    from .. import opcodes

    kind, name, tags = _GetTags(opts, args)
    jobs.SubmitOrSend(opcodes.OpTagsDel(kind=kind, name=name, tags=tags), opts)
    return constants.EXIT_SUCCESS


def GetCommands(kind: str) -> dict[str, parser.Command]:
    """The three tag commands of a program."""
    owner: tuple[parser.Arg, ...] = {
        constants.TAG_CLUSTER: parser.ARGS_NONE,
        constants.TAG_NODE: parser.ARGS_ONE_NODE,
        constants.TAG_INSTANCE: parser.ARGS_ONE_INSTANCE,
    }[kind]
    usage = "" if kind == constants.TAG_CLUSTER else f"<{kind}_name> "
    opts = (options.TAG_SRC_OPT, *options.JOB_OPTS)
    many = (*owner, parser.ArgUnknown())
    return {
        "list-tags": parser.Command(
            ListTags, owner, (), usage.rstrip(), f"List the tags of the given {kind}"
        ),
        "add-tags": parser.Command(
            AddTags, many, opts, f"[--from FILE] {usage}<tag>...", f"Add tags to the given {kind}"
        ),
        "remove-tags": parser.Command(
            RemoveTags,
            many,
            opts,
            f"[--from FILE] {usage}<tag>...",
            f"Remove tags from the given {kind}",
        ),
    }
