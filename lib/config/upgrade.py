"""Configurations of older versions as one of this version: documents in, objects out, no effects.

Each older version that is understood has one step, from it to the next one; a document goes through
those that are ahead of it. What files of the current version may lack is filled in by the objects
themselves (C{UpgradeConfig}), as it is whenever one is loaded.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, objects, serializer
from ..runtime import Runtime
from . import store, verify

_Document = dict[str, Any]


@dataclass(frozen=True)
class Upgraded:
    """What became of a configuration.

    @ivar version: of the file, before
    @ivar data: the objects, of the current version
    @ivar changes: what is different from the file, in words; empty if nothing is
    @ivar problems: rules of a sound configuration that it breaks
    """

    version: int
    data: objects.ConfigData
    changes: list[str]
    problems: list[str]

    def Render(self, now: float) -> bytes:
        """The content of the new file: another write, with its serial number and time."""
        cfg = store.ConfigStore(self.data)
        return cfg.MakeSnapshot(cfg.serial_no + 1, now).Render()


def FormatVersion(version: int) -> str:
    """A version number as people write it."""
    return ".".join(str(part) for part in constants.SplitVersion(version))


# Steps


def _FromVersion20(document: _Document) -> _Document:
    """The form of 2.1; what 2.1 added is filled in by the objects."""
    for node in document["nodes"].values():
        for flag in ("master_candidate", "offline", "drained"):
            node.setdefault(flag, False)
    # Every change counts on these; the first releases did not have all of them
    for obj in (
        document,
        document["cluster"],
        *document["nodes"].values(),
        *document["instances"].values(),
    ):
        obj.setdefault("serial_no", 1)
    document["version"] = constants.BuildVersion(2, 1, 0)
    return document


#: (major, minor) -> step to the next version.
_STEPS: Final[Mapping[tuple[int, int], Callable[[_Document], _Document]]] = {
    (2, 0): _FromVersion20,
}


def _CheckVersion(document: _Document, path: str) -> int:
    """The version of a document that can be upgraded.

    Raises: ConfigurationError for any other one, with what to do.
    """
    this = FormatVersion(constants.CONFIG_VERSION)
    cluster = document.get("cluster")
    if isinstance(cluster, dict) and "config_version" in cluster:
        raise errors.ConfigurationError(
            f"{path} is of version 1.2 (it has a 'config_version' in 'cluster'): upgrade it with"
            " the cfgupgrade12 of a release 2.0 or 2.1 first"
        )
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise errors.ConfigurationError(
            f"{path} has the version {version!r}, which is no version number: this is no"
            " configuration of a cluster, or it is damaged; restore a backup of it"
        )
    if version > constants.CONFIG_VERSION:
        raise errors.ConfigurationError(
            f"{path} has version {FormatVersion(version)}, but this release goes up to {this}: use"
            " the newer release that wrote it, or restore the backup that was made before its"
            " upgrade"
        )
    if version != constants.CONFIG_VERSION and constants.SplitVersion(version)[:2] not in _STEPS:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(_STEPS))
        raise errors.ConfigurationError(
            f"{path} has version {FormatVersion(version)}, which can not be upgraded to {this}"
            f" (only {known} can): upgrade it to one of these with the release in between"
        )
    return version


def _CheckParts(document: _Document, path: str) -> None:
    for name in ("cluster", "nodes", "instances"):
        part = document.get(name)
        if not isinstance(part, dict):
            raise errors.ConfigurationError(f"{path}: '{name}' must be an object, not {part!r}")
        for key, member in part.items():
            if name != "cluster" and not isinstance(member, dict):
                raise errors.ConfigurationError(
                    f"{path}: '{key}' in '{name}' must be an object, not {member!r}"
                )


def Upgrade(content: bytes, path: str, runtime: Runtime) -> Upgraded:
    """A configuration of this or an older version as one of this version.

    @param content: of the file
    @param path: of the file, for messages
    @raise errors.ConfigurationError: it can not be upgraded, with what to do
    """
    try:
        raw = serializer.Load(content)
    except ValueError as err:
        raise errors.ConfigurationError(
            f"{path} is not JSON: {err}; restore a backup of it"
        ) from err
    if not isinstance(raw, dict):
        raise errors.ConfigurationError(
            f"{path} holds no JSON object but {type(raw).__name__}: this is no configuration"
        )
    version = _CheckVersion(raw, path)
    _CheckParts(raw, path)
    document = copy.deepcopy(raw)
    while document["version"] != constants.CONFIG_VERSION:
        document = _STEPS[constants.SplitVersion(document["version"])[:2]](document)
    # As the master daemon will read it, so what it would refuse is refused here, before any change
    data = store.ParseConfig(serializer.Dump(document).encode("utf-8"), path)
    store.AddMissingUuids(data, runtime)
    try:
        problems = verify.Verify(store.ConfigStore(data))
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise errors.ConfigurationError(
            f"{path} has not the expected form: {type(err).__name__}: {err}"
        ) from err
    # The order of what has none is no difference
    before = objects.ConfigData.FromDict(raw).ToDict()
    return Upgraded(version, data, list(_Describe(before, data.ToDict())), problems)


# What was changed, in words


def _DescribeObject(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    parts = (
        ("gets", sorted(after.keys() - before.keys())),
        ("loses", sorted(before.keys() - after.keys())),
        (
            "changes",
            sorted(key for key in before.keys() & after.keys() if before[key] != after[key]),
        ),
    )
    return "; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)


def _Describe(before: _Document, after: _Document) -> Iterator[str]:
    if before["version"] != after["version"]:
        yield f"version {FormatVersion(before['version'])} to {FormatVersion(after['version'])}"
    text = _DescribeObject(before["cluster"], after["cluster"])
    if text:
        yield f"the cluster {text}"
    for kind, noun in (("nodes", "node"), ("instances", "instance")):
        texts = Counter(
            _DescribeObject(before[kind][name], member) for name, member in after[kind].items()
        )
        for text, count in sorted(texts.items()):
            if text:
                yield f"{count} {noun if count == 1 else kind}: each {text}"
    rest = (
        {key: value for key, value in document.items() if key not in _DESCRIBED}
        for document in (before, after)
    )
    text = _DescribeObject(*rest)
    if text:
        yield f"the configuration itself {text}"


_DESCRIBED: Final = frozenset(["version", "cluster", "nodes", "instances"])
