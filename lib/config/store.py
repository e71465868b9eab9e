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
from typing import Any, Final, cast

from .. import constants, errors, objects, serializer
from ..runtime import Runtime
from ..utils import text, uuid
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


#: Most members of a block of text.
BLOCK_SIZE: Final = 128


class Section:
    """The members of one JSON object as text, in the order of their names, joined in blocks.

    Ten thousand members are joined again for every write; so that only the few around a changed one
    are touched, each block keeps its joined text until a member of it changes.

    Invariant: names are sorted over all blocks; no block is empty, or larger than C{BLOCK_SIZE}.

    @param member: makes the text of a member from its name
    """

    def __init__(self, names: Iterable[str], member: Callable[[str], str]) -> None:
        self._member = member
        ordered = sorted(names)
        half = BLOCK_SIZE // 2
        self._blocks = [ordered[idx : idx + half] for idx in range(0, len(ordered), half)]
        self._texts: list[bytes | None] = [None] * len(self._blocks)

    def _CheckInvariants(self) -> None:
        names = [name for block in self._blocks for name in block]
        assert names == sorted(set(names))
        assert all(0 < len(block) <= BLOCK_SIZE for block in self._blocks)
        assert len(self._blocks) == len(self._texts)

    def _Find(self, name: str) -> int:
        """Index of the block that has the name, or is the one to have it."""
        idx = bisect.bisect_right(self._blocks, name, key=lambda block: block[0])
        return max(0, idx - 1)

    def Touch(self, name: str) -> None:
        """The text of this member is to be made anew."""
        self._texts[self._Find(name)] = None

    def Add(self, name: str) -> None:
        """Put in a member that is not there."""
        if not self._blocks:
            self._blocks.append([name])
            self._texts.append(None)
            return
        idx = self._Find(name)
        block = self._blocks[idx]
        bisect.insort(block, name)
        self._texts[idx] = None
        if len(block) > BLOCK_SIZE:
            half = len(block) // 2
            self._blocks[idx : idx + 1] = [block[:half], block[half:]]
            self._texts[idx : idx + 1] = [None, None]

    def Remove(self, name: str) -> None:
        """Take out a member that is there."""
        idx = self._Find(name)
        self._blocks[idx].remove(name)
        self._texts[idx] = None
        if not self._blocks[idx]:
            del self._blocks[idx], self._texts[idx]

    def GetTexts(self) -> list[bytes]:
        """The joined members of each block."""
        texts = []
        for idx, block in enumerate(self._blocks):
            joined = self._texts[idx]
            if joined is None:
                joined = ",\n    ".join(map(self._member, block)).encode("utf-8")
                self._texts[idx] = joined
            texts.append(joined)
        return texts


def _Fragment(value: Any, blanks: int) -> str:
    text_ = serializer.Dump(value, indent=True).rstrip("\n")
    # JSON texts have no newline inside of a string, so each one begins a line.
    return text_.replace("\n", "\n" + " " * blanks)


class Snapshot:
    """The parts of a document, to be joined without holding any lock.

    @param parts: key -> text
    @param sections: key -> joined members of a JSON object
    """

    def __init__(self, parts: Mapping[str, str], sections: Mapping[str, list[bytes]]) -> None:
        self._parts = parts
        self._sections = sections

    def GetPieces(self) -> list[bytes]:
        """The document: keys sorted, indented by two blanks, a newline at the end.

        Pieces with objects that did not change are the same as in the last snapshot.
        """
        pieces: list[bytes] = []
        for key in sorted([*self._parts, *self._sections]):
            pieces.append(b",\n  " if pieces else b"{\n  ")
            pieces.append(serializer.Dump(key).strip().encode("utf-8") + b": ")
            blocks = self._sections.get(key)
            if blocks is None:
                pieces.append(self._parts[key].encode("utf-8"))
            elif not blocks:
                pieces.append(b"{}")
            else:
                pieces.append(b"{\n    ")
                pieces.append(blocks[0])
                for block in blocks[1:]:
                    pieces.append(b",\n    ")
                    pieces.append(block)
                pieces.append(b"\n  }")
        pieces.append(b"\n}\n")
        return pieces

    def Render(self) -> bytes:
        """The document as one."""
        return b"".join(self.GetPieces())


@dataclass(frozen=True)
class View:
    """All objects at one moment; not to be modified."""

    cluster: objects.Cluster
    nodes: Mapping[str, objects.Node]
    instances: Mapping[str, objects.Instance]

    def With(self, changes: Changes) -> View:
        """The objects with some replaced or, where there is None, left out."""
        cluster = changes.get(claims.CLUSTER_KEY) or self.cluster
        nodes: dict[str, Any] = dict(self.nodes)
        instances: dict[str, Any] = dict(self.instances)
        containers = {claims.NODE: nodes, claims.INSTANCE: instances}
        for key, obj in changes.items():
            if key.kind not in containers:
                continue
            if obj is None:
                containers[key.kind].pop(key.name, None)
            else:
                containers[key.kind][key.name] = obj
        return View(cast("objects.Cluster", cluster), nodes, instances)


class ConfigStore:
    """All objects of a configuration; see the module for how they are kept.

    Has no lock of its own. What it hands out must not be modified.

    @ivar cluster, nodes, instances: the objects
    @ivar index: what they claim for themselves alone
    @ivar serial_no, mtime: of the last write
    @ivar constant: what else is in the file, in JSON's own types
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
        self._sections = {
            claims.NODE: Section(self.nodes, self._NodeText),
            claims.INSTANCE: Section(self.instances, self._InstanceText),
        }
        constant = {**data.UnknownKeys(), "version": data.version, "ctime": data.ctime}
        #: What no change ever touches, with the keys of newer versions.
        self.constant = {key: value for key, value in constant.items() if value is not None}
        self._constant = {key: _Fragment(value, 2) for key, value in self.constant.items()}
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
        section = self._sections[key.kind]
        names = self.node_names if key.kind == claims.NODE else self.instance_names
        if obj is None and known:
            section.Remove(key.name)
            names.Remove(key.name)
        elif obj is not None and not known:
            section.Add(key.name)
            names.Add(key.name)
        elif known:
            section.Touch(key.name)
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
        cluster = self._fragments.get(claims.CLUSTER_KEY)
        if cluster is None:
            cluster = _Fragment(self.cluster.ToDict(), 2)
            self._fragments[claims.CLUSTER_KEY] = cluster
        parts = {
            **self._constant,
            "serial_no": str(serial_no),
            "mtime": _Fragment(mtime, 2),
            "cluster": cluster,
        }
        sections = {
            "nodes": self._sections[claims.NODE].GetTexts(),
            "instances": self._sections[claims.INSTANCE].GetTexts(),
        }
        return Snapshot(parts, sections)

    def _NodeText(self, name: str) -> str:
        return self._MemberText(claims.Key(claims.NODE, name), self.nodes[name])

    def _InstanceText(self, name: str) -> str:
        return self._MemberText(claims.Key(claims.INSTANCE, name), self.instances[name])

    def _MemberText(self, key: claims.Key, obj: AnyObject) -> str:
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
    _CheckSerials(data, path)
    return data


def AddMissingUuids(data: objects.ConfigData, runtime: Runtime) -> bool:
    """Give a UUID to every object that has none; were there any?"""
    missing = [obj for obj in data.IterIdentified() if not obj.uuid]
    for obj in missing:
        obj.uuid = uuid.NewUUID(runtime)
    return bool(missing)


def _CheckSerials(data: objects.ConfigData, path: str) -> None:
    """Every change counts on these: better no start than changes that all fail."""
    numbers: dict[str, object] = {
        "the configuration": data.serial_no,
        "the cluster": data.cluster.serial_no,
        **{f"node '{name}'": node.serial_no for name, node in data.nodes.items()},
        **{f"instance '{name}'": instance.serial_no for name, instance in data.instances.items()},
    }
    for what, serial_no in numbers.items():
        if not isinstance(serial_no, int) or serial_no < 0:
            raise errors.ConfigurationError(
                f"In the configuration {path} the serial_no of {what} must be a number, not"
                f" {serial_no!r}"
            )
