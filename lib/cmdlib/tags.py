"""Tags of the cluster, of nodes and of instances."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors, locking, objects, opcodes
from ..utils import text
from . import announce, base

if TYPE_CHECKING:
    from .. import config

#: How often a change of the cluster's tags is tried that others come between.
_CLUSTER_ATTEMPTS: Final = 10
#: Longest search pattern, in characters.
_MAX_PATTERN: Final = 1024


class _TagsUnit(base.NoHooksLU):
    """A unit about the tags of one object."""

    _SHARED = 0

    def ExpandNames(self) -> None:
        self.needed_locks = {}
        kind = self.op.kind
        if kind == constants.TAG_NODE:
            self.op.name = base.ExpandNodeName(self.cfg, self.op.name)
            self.needed_locks[locking.LEVEL_NODE] = self.op.name
        elif kind == constants.TAG_INSTANCE:
            self.op.name = base.ExpandInstanceName(self.cfg, self.op.name)
            self.needed_locks[locking.LEVEL_INSTANCE] = self.op.name
        elif kind != constants.TAG_CLUSTER:
            raise errors.OpPrereqError(
                f"Wrong tag type requested ({kind}), must be one of"
                f" {text.CommaJoin(sorted(constants.VALID_TAG_TYPES))}",
                errors.ECODE_INVAL,
            )
        self.share_locks = dict.fromkeys(locking.LEVELS, self._SHARED)

    def _GetTarget(self) -> objects.Cluster | objects.Node | objects.Instance:
        target: objects.Cluster | objects.Node | objects.Instance | None
        if self.op.kind == constants.TAG_CLUSTER:
            return self.cfg.GetClusterInfo()
        if self.op.kind == constants.TAG_NODE:
            target = self.cfg.GetNodeInfo(self.op.name)
        else:
            target = self.cfg.GetInstanceInfo(self.op.name)
        if target is None:
            # Only without locks: it went since its name was looked up.
            raise errors.OpPrereqError(
                f"{self.op.kind.capitalize()} '{self.op.name}' not known", errors.ECODE_NOENT
            )
        return target

    def CheckPrereq(self) -> None:
        self._GetTarget()


class LUTagsGet(_TagsUnit):
    """The tags of an object."""

    LOOKS_ONLY = True
    _SHARED = 1

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[str]:
        return sorted(self._GetTarget().GetTags())


class _TagsChange(_TagsUnit):
    """A change of the tags of an object."""

    def CheckPrereq(self) -> None:
        for tag in self.op.tags:
            objects.TaggableObject.ValidateTag(tag)
        self._GetTarget()

    def _Change(self, target: objects.TaggableObject) -> None:
        raise NotImplementedError

    def _ChangeOrFail(self, target: objects.TaggableObject) -> None:
        try:
            self._Change(target)
        except errors.TagError as err:
            raise errors.OpExecError(f"Can not change the tags: {errors.FormatError(err)}") from err

    def DescribeChanges(self) -> list[announce.Change]:
        target = self._GetTarget()
        new = target.Copy()
        self._ChangeOrFail(new)
        name = "" if self.op.kind == constants.TAG_CLUSTER else f" {self.op.name}"
        what = f"{self.op.kind}{name}"
        return announce.Between(target, new) or [
            announce.Change("has these tags already, and is stored again", what)
        ]

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        # Nodes and instances are locked. The cluster is not: its object changes with every node,
        # and who comes second starts again from what there is then.
        attempts = _CLUSTER_ATTEMPTS if self.op.kind == constants.TAG_CLUSTER else 1
        for attempt in range(1, attempts + 1):
            target = self._GetTarget()
            self._ChangeOrFail(target)
            try:
                self.cfg.Update(target, feedback_fn)
                return
            except errors.ConfigurationError:
                if attempt == attempts:
                    raise


class LUTagsSet(_TagsChange):
    """Add tags to an object; those it has already are no error."""

    def _Change(self, target: objects.TaggableObject) -> None:
        for tag in self.op.tags:
            target.AddTag(tag)


class LUTagsDel(_TagsChange):
    """Remove tags, all of which must be there."""

    def CheckPrereq(self) -> None:
        super().CheckPrereq()
        missing = sorted(set(self.op.tags) - self._GetTarget().GetTags())
        if missing:
            raise errors.OpPrereqError(
                f"Tag(s) {text.CommaJoin(repr(tag) for tag in missing)} not found",
                errors.ECODE_NOENT,
            )

    def _Change(self, target: objects.TaggableObject) -> None:
        for tag in self.op.tags:
            if tag in target.GetTags():
                target.RemoveTag(tag)


def IsCostlyPattern(pattern: str) -> bool:
    """Could matching this regular expression take for ever?

    A repeated group that itself repeats something or has alternatives can be matched in
    exponentially many ways. Matching holds up the whole daemon, and can not be interrupted.
    """
    if len(pattern) > _MAX_PATTERN:
        return True
    # Escapes and character classes mean nothing here.
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
    open_groups = [False]
    closed = False
    for index, char in enumerate(bare):
        repeats = char in "*+" or (char == "{" and re.match(r"\{\d*,?\d*\}", bare[index:]))
        if char == "(":
            open_groups.append(False)
        elif char == ")" and len(open_groups) > 1:
            closed = open_groups.pop()
            # What holds such a group varies as well.
            open_groups[-1] |= closed
            continue
        elif repeats:
            if closed:
                return True
            open_groups[-1] = True
        elif char == "|":
            open_groups[-1] = True
        closed = False
    return False


class LUTagsSearch(base.NoHooksLU):
    """Tags that hold a pattern somewhere, with the paths of their objects."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        self.needed_locks = {}

    def CheckPrereq(self) -> None:
        self._Compile()

    def _Compile(self) -> re.Pattern[str]:
        pattern = self.op.pattern
        try:
            compiled = re.compile(pattern)
        except re.error as err:
            raise errors.OpPrereqError(
                f"Invalid search pattern '{pattern}': {err}", errors.ECODE_INVAL
            ) from err
        if IsCostlyPattern(pattern):
            raise errors.OpPrereqError(
                f"Search pattern '{pattern}' is too long, or repeats a group that can be matched in"
                " many ways; searching could take for ever",
                errors.ECODE_INVAL,
            )
        return compiled

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[str]]:
        pattern = self._Compile()
        return [
            [path, tag]
            for path, target in _AllTargets(self.cfg)
            for tag in sorted(target.GetTags())
            if pattern.search(tag)
        ]


def _AllTargets(cfg: config.ConfigWriter) -> Iterable[tuple[str, objects.TaggableObject]]:
    yield "/cluster", cfg.GetClusterInfo()
    kinds: list[tuple[str, Mapping[str, Any]]] = [
        ("instances", cfg.GetAllInstancesInfo()),
        ("nodes", cfg.GetAllNodesInfo()),
    ]
    for kind, found in kinds:
        for name in text.NiceSort(found):
            yield f"/{kind}/{name}", found[name]


LOGICAL_UNITS: Final[Mapping[type[opcodes.OpCode], type[base.LogicalUnit]]] = {
    opcodes.OpTagsGet: LUTagsGet,
    opcodes.OpTagsSearch: LUTagsSearch,
    opcodes.OpTagsSet: LUTagsSet,
    opcodes.OpTagsDel: LUTagsDel,
}
