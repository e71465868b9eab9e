"""The configuration in memory: objects, their JSON text, and what was changed since the last write.

C{config.data} stays one readable document, written whole; but each object's text is kept, so that a
write serialises what changed and joins the rest. Stored objects are never modified: a change puts
another object in the place of the old one. So a snapshot is a list of references, and undoing a
change is putting the old object back.
"""

from __future__ import annotations

import bisect
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .. import constants, errors, objects, serializer
from ..utils import text
from . import claims

AnyObject = objects.Cluster | objects.Node | objects.Instance

#: Object (None: there was none) that was stored under a key before the first change since a write.
Changes = dict[claims.Key, AnyObject | None]


class SortedNames:
    """Names in some order, kept sorted while they come and go."""

    def __init__(self, names: Iterable[str], key: Callable[[str], Any]) -> None:
        self._key = key
        self._names = sorted(names, key=key)

    def Add(self, name: str) -> None:
        """Put in a name that is not there."""
        bisect.insort(self._names, name, key=self._key)

    def Remove(self, name: str) -> None:
        """Take out a name that is there."""
        idx = bisect.bisect_left(self._names, self._key(name), key=self._key)
        assert self._names[idx] == name
        del self._names[idx]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)


def _Indent(fragment: str, blanks: int) -> str:
    # JSON texts have no newline inside of a string, so each one begins a line.
    return fragment.replace("\n", "\n" + " " * blanks)


def _Fragment(value: Any, blanks: int) -> str:
    return _Indent(serializer.Dump(value, indent=True).rstrip("\n"), blanks)


class Snapshot:
    """The parts of a document, to be joined without holding any lock."""

    def __init__(self, parts: Mapping[str, str], members: Mapping[str, list[str]]) -> None:
        self._parts = parts
        self._members = members

    def Render(self) -> bytes:
        """The document: keys sorted, indented by two blanks, a newline at the end."""
        parts = dict(self._parts)
        for name, members in self._members.items():
            parts[name] = "{\n    " + ",\n    ".join(members) + "\n  }" if members else "{}"
        lines = [f"  {serializer.Dump(key).strip()}: {parts[key]}" for key in sorted(parts)]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf-8")


@dataclass(frozen=True)
class View:
    """All objects at one moment; not to be modified."""

    cluster: objects.Cluster
    nodes: Mapping[str, objects.Node]
    instances: Mapping[str, objects.Instance]


class ConfigStore:
    """All objects of a configuration; see the module for how they are kept.

    Has no lock of its own. What it hands out must not be modified.

    @ivar cluster, nodes, instances: the objects
    @ivar index: what they claim for themselves alone
    @ivar serial_no, mtime: of the last write
    """

    def __init__(self, data: objects.ConfigData) -> None:
        """Take over a configuration that was upgraded; it is the store's from now on."""
        self.serial_no: int = data.serial_no
        self.mtime: float | None = data.mtime
        self.version: int = data.version
        self.cluster: objects.Cluster = data.cluster
        self.nodes: dict[str, objects.Node] = dict(data.nodes)
        self.instances: dict[str, objects.Instance] = dict(data.instances)
        self.index = claims.ClaimIndex()
        self.node_names = SortedNames(self.nodes, text.NiceSortKey)
        self.instance_names = SortedNames(self.instances, text.NiceSortKey)
        self._file_order = {
            claims.NODE: SortedNames(self.nodes, str),
            claims.INSTANCE: SortedNames(self.instances, str),
        }
        #: What no change ever touches, with the keys of newer versions.
        constant = {**data.UnknownKeys(), "version": data.version, "ctime": data.ctime}
        self._constant = {
            key: _Fragment(value, 2) for key, value in constant.items() if value is not None
        }
        #: Text of each object, without its name; missing = to be made.
        self._fragments: dict[claims.Key, str] = {}
        #: Pickled objects: the fastest way to a copy, by a factor of four.
        self._pickles: dict[claims.Key, bytes] = {}
        self._changes: Changes = {}
        self._default_nicparams = claims.DefaultNicParams(self.cluster)
        self._IndexAll()

    def _IndexAll(self) -> None:
        self._IndexOne(claims.CLUSTER_KEY, self.cluster)
        for name, node in self.nodes.items():
            self._IndexOne(claims.Key(claims.NODE, name), node)
        self._IndexInstances()

    def _IndexInstances(self) -> None:
        for name, instance in self.instances.items():
            self._IndexOne(claims.Key(claims.INSTANCE, name), instance)

    def _IndexOne(self, key: claims.Key, obj: AnyObject | None) -> None:
        if isinstance(obj, objects.Cluster):
            self.index.Set(key, claims.ClusterClaims(obj))
        elif isinstance(obj, objects.Node):
            self.index.Set(key, claims.NodeClaims(obj))
        elif isinstance(obj, objects.Instance):
            self.index.Set(key, claims.InstanceClaims(obj, self._default_nicparams))
        else:
            self.index.Set(key, [])

    def Get(self, key: claims.Key) -> AnyObject | None:
        """The object stored under a key."""
        if key.kind == claims.CLUSTER:
            return self.cluster
        return self._Container(key.kind).get(key.name)

    def _Container(self, kind: str) -> dict[str, AnyObject]:
        return cast("dict[str, AnyObject]", self.nodes if kind == claims.NODE else self.instances)

    def Copy(self, key: claims.Key) -> AnyObject | None:
        """An independent copy of the object stored under a key."""
        blob = self._pickles.get(key)
        if blob is None:
            obj = self.Get(key)
            if obj is None:
                return None
            blob = self._pickles[key] = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        return cast("AnyObject", pickle.loads(blob))  # noqa: S301 - made here

    def Put(self, key: claims.Key, obj: AnyObject | None) -> None:
        """Store an object, which is the store's from now on; None removes what is there."""
        self._changes.setdefault(key, self.Get(key))
        self._Replace(key, obj)

    def _Replace(self, key: claims.Key, obj: AnyObject | None) -> None:
        self._fragments.pop(key, None)
        self._pickles.pop(key, None)
        if key.kind == claims.CLUSTER:
            assert isinstance(obj, objects.Cluster)
            self._ReplaceCluster(obj)
            return
        container = self._Container(key.kind)
        known = key.name in container
        if obj is None:
            container.pop(key.name, None)
        else:
            container[key.name] = obj
        if known != (obj is not None):
            nice = self.node_names if key.kind == claims.NODE else self.instance_names
            for names in (nice, self._file_order[key.kind]):
                if known:
                    names.Remove(key.name)
                else:
                    names.Add(key.name)
        self._IndexOne(key, obj)

    def _ReplaceCluster(self, cluster: objects.Cluster) -> None:
        self.cluster = cluster
        self._IndexOne(claims.CLUSTER_KEY, cluster)
        nicparams = claims.DefaultNicParams(cluster)
        if nicparams != self._default_nicparams:
            # On which link an address counts may depend on the cluster's defaults.
            self._default_nicparams = nicparams
            self._IndexInstances()

    def MakeView(self) -> View:
        """The objects as they are now, whatever is put later."""
        return View(self.cluster, dict(self.nodes), dict(self.instances))

    def HasChanges(self) -> bool:
        """Was anything put since L{TakeChanges}?"""
        return bool(self._changes)

    def PeekChanges(self) -> Changes:
        """What was changed since L{TakeChanges}, with the objects of before."""
        return dict(self._changes)

    def TakeChanges(self) -> Changes:
        """What was changed since the last call, with the objects of before; starts anew."""
        changes, self._changes = self._changes, {}
        return changes

    def Restore(self, taken: Changes) -> None:
        """Undo all changes: those since L{TakeChanges}, and those which that call returned."""
        for key, obj in {**self.TakeChanges(), **taken}.items():
            self._Replace(key, obj)

    def MakeSnapshot(self, serial_no: int, mtime: float) -> Snapshot:
        """The document as it is to be written now, with this serial number and time."""
        parts = {
            **self._constant,
            "serial_no": str(serial_no),
            "mtime": _Fragment(mtime, 2),
            "cluster": self._Text(claims.CLUSTER_KEY, self.cluster, 2),
        }
        members = {
            "nodes": [
                self._Member(claims.Key(claims.NODE, name), self.nodes[name])
                for name in self._file_order[claims.NODE]
            ],
            "instances": [
                self._Member(claims.Key(claims.INSTANCE, name), self.instances[name])
                for name in self._file_order[claims.INSTANCE]
            ],
        }
        return Snapshot(parts, members)

    def _Text(self, key: claims.Key, obj: AnyObject, blanks: int) -> str:
        found = self._fragments.get(key)
        if found is None:
            found = self._fragments[key] = _Fragment(obj.ToDict(), blanks)
        return found

    def _Member(self, key: claims.Key, obj: AnyObject) -> str:
        found = self._fragments.get(key)
        if found is None:
            name = serializer.Dump(key.name).strip()
            found = self._fragments[key] = f"{name}: {_Fragment(obj.ToDict(), 4)}"
        return found


def ParseConfig(content: bytes, path: str) -> objects.ConfigData:
    """The objects of a configuration file, upgraded to this version.

    Raises: ConfigurationError if it is no configuration, or one of another version.
    """
    try:
        raw = serializer.Load(content)
    except ValueError as err:
        raise errors.ConfigurationError(f"The configuration {path} is not JSON: {err}") from err
    if not isinstance(raw, dict) or not {"version", "cluster", "nodes", "instances"} <= raw.keys():
        raise errors.ConfigurationError(
            f"The configuration {path} is incomplete: version, cluster, nodes or instances is"
            " missing"
        )
    if raw["version"] != constants.CONFIG_VERSION:
        raise errors.ConfigurationError(
            f"Cluster configuration version mismatch: {path} has version {raw['version']}, this"
            f" program needs {constants.CONFIG_VERSION}; upgrade it with cfgupgrade"
        )
    try:
        data = objects.ConfigData.FromDict(raw)
        data.UpgradeConfig()
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise errors.ConfigurationError(
            f"The configuration {path} has not the expected form: {err.__class__.__name__}: {err}"
        ) from err
    return data
