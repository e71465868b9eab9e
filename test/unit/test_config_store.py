"""The configuration in memory and its text."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ganeti import constants, errors, objects, serializer
from ganeti.config import claims, fake, store, verify
from ganeti.runtime import fake as runtime_fake

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / "state" / "config.data"


def _Golden():
    """The configuration of a real cluster; its tags in the order in which they are written now."""
    content = _GOLDEN.read_bytes()
    unsorted = b'"tags": [\n      "eu",\n      "b"\n    ]'
    assert unsorted in content
    return content.replace(unsorted, b'"tags": [\n      "b",\n      "eu"\n    ]')


def _NewStore(**kwargs):
    document = fake.NewConfigData(runtime_fake.NewRuntime(), **kwargs)
    data = objects.ConfigData.FromDict(document)
    data.UpgradeConfig()
    return store.ConfigStore(data)


def _Render(built, serial_no=None, mtime=None):
    return built.MakeSnapshot(
        built.serial_no if serial_no is None else serial_no,
        built.mtime if mtime is None else mtime,
    ).Render()


def _Full(built):
    """The same document, made from nothing but the objects."""
    document = {
        "version": built.version,
        "cluster": built.cluster.ToDict(),
        "nodes": {name: node.ToDict() for name, node in built.nodes.items()},
        "instances": {name: instance.ToDict() for name, instance in built.instances.items()},
        "serial_no": built.serial_no,
        "mtime": built.mtime,
        "ctime": runtime_fake.EPOCH,
    }
    return serializer.Dump(document, indent=True).encode()


class TestFile:
    """BASE4, UU1: the file is that of the 2.1 generation, to the byte."""

    def test_golden_round_trip(self):
        content = _Golden()
        data = objects.ConfigData.FromDict(serializer.Load(content))
        assert _Render(store.ConfigStore(data)) == content

    def test_golden_upgraded_only_gains(self):
        data = store.ParseConfig(_GOLDEN.read_bytes(), "config.data")
        ours = json.loads(_Render(store.ConfigStore(data)))
        theirs = json.loads(_Golden())
        for key in ("diskparams", "default_iallocator"):
            assert key not in theirs["cluster"]
            ours["cluster"].pop(key, None)
        assert ours["cluster"]["hvparams"]["xen-pvm"].pop("blockdev_prefix") == "sd"
        assert ours == theirs

    def test_no_blanks_at_line_ends_and_a_newline_at_the_end(self):
        content = _Render(_NewStore(nodes=2))
        assert content.endswith(b"}\n")
        assert not content.endswith(b"\n\n")
        assert all(not line.endswith(b" ") for line in content.split(b"\n"))

    def test_empty(self):
        built = _NewStore(nodes=1)
        assert b'"instances": {},' in _Render(built)
        assert _Render(built) == _Full(built)

    def test_keys_of_newer_versions_are_written_back(self):
        document = json.loads(_Golden())
        document["zzz"] = {"new": [1, {"deep": None}]}
        document["cluster"]["new"] = "c"
        document["nodes"]["node1.example.com"]["new"] = [1]
        document["instances"]["inst2.example.com"]["disks"][0]["new"] = {"d": 1}
        content = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
        data = objects.ConfigData.FromDict(serializer.Load(content))
        assert _Render(store.ConfigStore(data)) == content

    def test_text_is_kept_and_made_anew_when_changed(self, monkeypatch):
        built = _NewStore(nodes=3)
        _Render(built)
        dumped = []
        to_dict = objects.Node.ToDict
        monkeypatch.setattr(
            objects.Node, "ToDict", lambda self: dumped.append(self.name) or to_dict(self)
        )
        _Render(built)
        assert dumped == []
        built.Put(claims.Key(claims.NODE, "node2.example.com"), fake.NewNode(2, offline=True))
        _Render(built)
        assert dumped == ["node2.example.com"]
        assert _Render(built) == _Full(built)

    @given(st.text(max_size=8), st.text(max_size=8))
    def test_any_text(self, name, value):
        built = _NewStore(nodes=1)
        instance = fake.NewInstance(name, value, os=value)
        built.Put(claims.Key(claims.INSTANCE, name), instance)
        assert _Render(built) == _Full(built)

    def test_equal_sets_give_equal_bytes(self):
        built = _NewStore()
        cluster = built.cluster.Copy()
        cluster.tcpudp_port_pool = {11009, 11001, 11005}
        cluster.tags = {"b", "a"}
        built.Put(claims.CLUSTER_KEY, cluster)
        document = json.loads(_Render(built))
        assert document["cluster"]["tcpudp_port_pool"] == [11001, 11005, 11009]
        assert document["cluster"]["tags"] == ["a", "b"]


class TestParse:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[]", "incomplete"),
            (b'{"version": 2010000}', "incomplete"),
        ],
    )
    def test_no_configuration(self, content, text):
        with pytest.raises(errors.ConfigurationError, match=text):
            store.ParseConfig(content, "config.data")

    @pytest.mark.parametrize("version", [2000000, 2010001, None, "2010000"])
    def test_other_version(self, version):
        document = json.loads(_Golden())
        document["version"] = version
        with pytest.raises(errors.ConfigurationError, match="version mismatch.*cfgupgrade"):
            store.ParseConfig(json.dumps(document).encode(), "config.data")

    @pytest.mark.parametrize(
        "path",
        [
            ("cluster",),
            ("nodes",),
            ("instances",),
            ("nodes", "node1.example.com"),
            ("instances", "inst2.example.com", "disks"),
            ("cluster", "hvparams"),
        ],
        ids=str,
    )
    def test_wrong_form(self, path):
        document = json.loads(_Golden())
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = 17
        with pytest.raises(errors.ConfigurationError):
            store.ParseConfig(json.dumps(document).encode(), "config.data")

    @pytest.mark.parametrize(
        "path",
        [(), ("cluster",), ("nodes", "node1.example.com"), ("instances", "inst2.example.com")],
        ids=str,
    )
    @pytest.mark.parametrize("serial", ["7", None, -1, 1.5])
    def test_serial_numbers(self, path, serial):
        """With any other than a number every change would fail, and stay half made."""
        document = json.loads(_Golden())
        place = document
        for key in path:
            place = place[key]
        place["serial_no"] = serial
        with pytest.raises(errors.ConfigurationError, match="serial_no of"):
            store.ParseConfig(json.dumps(document).encode(), "config.data")

    def test_global_parameters_are_dropped(self):
        """PR3: global hypervisor parameters can't be those of an instance."""
        document = json.loads(_Golden())
        instance = document["instances"]["inst1.example.com"]
        instance["hvparams"] = {"migration_port": 1234, "acpi": False}
        data = store.ParseConfig(json.dumps(document).encode(), "config.data")
        assert data.instances["inst1.example.com"].hvparams == {"acpi": False}


class TestChanges:
    def test_copies_are_independent(self):
        built = _NewStore(nodes=1)
        key = claims.Key(claims.NODE, "node1.example.com")
        first, second = built.Copy(key), built.Copy(key)
        first.AddTag("x")
        first.primary_ip = "changed"
        assert second.primary_ip == built.nodes["node1.example.com"].primary_ip == "192.0.2.1"
        assert not built.Copy(key).GetTags()
        assert type(first) is objects.Node
        assert built.Copy(claims.Key(claims.NODE, "nosuch")) is None

    def test_copy_keeps_what_this_version_does_not_know(self):
        node = objects.Node.FromDict({"name": "x", "new": {"deep": [1]}})
        built = _NewStore()
        built.Put(claims.Key(claims.NODE, "x"), node)
        copy = built.Copy(claims.Key(claims.NODE, "x"))
        assert copy.ToDict() == {"name": "x", "new": {"deep": [1]}}

    def test_copy_follows_changes(self):
        built = _NewStore()
        key = claims.Key(claims.NODE, "node1.example.com")
        built.Copy(key)
        built.Put(key, fake.NewNode(1, offline=True))
        assert built.Copy(key).offline

    def test_first_of_several_changes_counts_for_undo(self):
        built = _NewStore()
        key = claims.Key(claims.NODE, "node1.example.com")
        before = built.nodes["node1.example.com"]
        built.Put(key, fake.NewNode(1, offline=True))
        built.Put(key, None)
        built.Restore({})
        assert built.nodes["node1.example.com"] is before
        assert not built.HasChanges()


class _Machine(RuleBasedStateMachine):
    """However objects come and go: text, names and claims are as if made anew; undo undoes all."""

    @initialize()
    def Begin(self):
        self.built = _NewStore(nodes=2)
        self.in_flight = {}
        self.safe = self._Objects()
        self.counter = 0

    def _Objects(self):
        return {
            claims.CLUSTER_KEY: self.built.cluster,
            **{claims.Key(claims.NODE, name): obj for name, obj in self.built.nodes.items()},
            **{
                claims.Key(claims.INSTANCE, name): obj for name, obj in self.built.instances.items()
            },
        }

    @rule(number=st.integers(1, 12), offline=st.booleans(), ip=st.integers(1, 5))
    def PutNode(self, number, offline, ip):
        node = fake.NewNode(number, offline=offline, primary_ip=f"192.0.2.{ip}")
        self.built.Put(claims.Key(claims.NODE, node.name), node)

    @rule(number=st.integers(1, 12))
    def RemoveNode(self, number):
        self.built.Put(claims.Key(claims.NODE, fake.NodeName(number)), None)

    @rule(
        name=st.sampled_from(["a10", "a9", "b"]),
        mac=st.sampled_from(["m1", "m2"]),
        ip=st.sampled_from([None, "10.0.0.1", "10.0.0.2"]),
        params=st.sampled_from([{}, {"link": "br1"}, {"mode": "routed"}]),
        port=st.integers(11000, 11002),
        minors=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    )
    def PutInstance(self, name, mac, ip, params, port, minors):
        nodes = (fake.NodeName(1), fake.NodeName(2))
        disk = fake.NewDrbdDisk(nodes, port, minors, f"secret{port}", name)
        instance = fake.NewInstance(
            name, nodes[0], nics=[objects.NIC(mac=mac, ip=ip, nicparams=params)], disks=[disk]
        )
        self.built.Put(claims.Key(claims.INSTANCE, name), instance)

    @rule(name=st.sampled_from(["a10", "a9", "b"]))
    def RemoveInstance(self, name):
        self.built.Put(claims.Key(claims.INSTANCE, name), None)

    @rule(link=st.sampled_from(["br0", "br1"]), mode=st.sampled_from(["bridged", "routed"]))
    def ChangeDefaults(self, link, mode):
        cluster = self.built.cluster.Copy()
        cluster.nicparams = {constants.PP_DEFAULT: {"link": link, "mode": mode}}
        self.built.Put(claims.CLUSTER_KEY, cluster)

    @rule()
    def BeginWrite(self):
        if not self.in_flight:
            self.in_flight = self.built.TakeChanges()

    @rule()
    def WriteSucceeds(self):
        self.in_flight = {}
        self.built.TakeChanges()
        self.safe = self._Objects()

    @rule()
    def WriteFails(self):
        self.built.Restore(self.in_flight)
        self.in_flight = {}
        assert self._Objects() == self.safe

    @invariant()
    def Agree(self):
        if not hasattr(self, "built"):
            return
        assert _Render(self.built) == _Full(self.built)
        assert self.built.index.GetState() == verify.BuildIndex(self.built).GetState()
        assert sorted(self.built.nodes) == sorted(self.built.node_names)
        assert sorted(self.built.instances) == sorted(self.built.instance_names)


TestAgainstModel = _Machine.TestCase


@given(st.sets(st.sampled_from([f"node{number}" for number in range(25)])))
def test_names_in_natural_order(names):
    sorted_names = store.SortedNames([], store.text.NiceSortKey)
    for name in names:
        sorted_names.Add(name)
    assert list(sorted_names) == store.text.NiceSort(names)
    for name in list(names)[::2]:
        sorted_names.Remove(name)
    assert list(sorted_names) == store.text.NiceSort(list(names)[1::2])


class _SectionMachine(RuleBasedStateMachine):
    """Members come, go and change: the joined text is that of all members in order."""

    @initialize(names=st.sets(st.integers(0, 60)))
    def Begin(self, names):
        self.values = {f"n{number}": 0 for number in names}
        self.section = store.Section(self.values, lambda name: f"{name}={self.values[name]}")

    @rule(number=st.integers(0, 60))
    def Put(self, number):
        name = f"n{number}"
        if name in self.values:
            self.values[name] += 1
            self.section.Touch(name)
        else:
            self.values[name] = 0
            self.section.Add(name)

    @rule(number=st.integers(0, 60))
    def Remove(self, number):
        if f"n{number}" in self.values:
            del self.values[f"n{number}"]
            self.section.Remove(f"n{number}")

    @invariant()
    def Agree(self):
        if hasattr(self, "section"):
            self.section._CheckInvariants()
            joined = b",\n    ".join(self.section.GetTexts())
            expected = [f"{name}={value}" for name, value in sorted(self.values.items())]
            assert joined.decode() == ",\n    ".join(expected)


TestSection = _SectionMachine.TestCase


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks so small that a handful of objects splits them."""
    monkeypatch.setattr(store, "BLOCK_SIZE", 4)
