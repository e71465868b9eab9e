"""Objects of the configuration: their plain form, upgrades, defaults, tags and disks."""

import copy
import pathlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import constants, errors, objects, serializer

CONFIG = pathlib.Path(__file__).parent.parent / "data" / "golden" / "state" / "config.data"

N1, N2, N3 = "node1.example.com", "node2.example.com", "node3.example.com"
SECRET = "5ec237"


def LV(name="lv1", size=1024):
    return objects.Disk(
        dev_type=constants.LD_LV, logical_id=("xenvg", name), physical_id=("xenvg", name), size=size
    )


def Drbd(iv_name="disk/0", nodes=(N1, N2), size=1024):
    return objects.Disk(
        dev_type=constants.LD_DRBD8,
        logical_id=(*nodes, 11000, 0, 3, SECRET),
        children=[LV("data", size), LV("meta", 128)],
        iv_name=iv_name,
        size=size,
        mode="rw",
    )


def File():
    ids = ("loop", "/srv/f/inst/disk0")
    return objects.Disk(
        dev_type=constants.LD_FILE, logical_id=ids, physical_id=ids, iv_name="disk/0", size=20
    )


def Inst(**kwargs):
    values = {
        "name": "inst1.example.com",
        "primary_node": N1,
        "os": "debian+minimal",
        "hypervisor": constants.HT_KVM,
        "hvparams": {},
        "beparams": {},
        "nics": [],
        "disks": [],
        "admin_up": True,
        "disk_template": constants.DT_DISKLESS,
    }
    return objects.Instance(**(values | kwargs))


def UpgradedCluster(**kwargs):
    cluster = objects.Cluster(enabled_hypervisors=[constants.HT_KVM], **kwargs)
    cluster.UpgradeConfig()
    return cluster


class TestAttributes:
    def test_declared_but_unset_is_none(self):
        assert objects.Node(name=N1).primary_ip is None

    def test_undeclared_is_an_error(self):
        node = objects.Node()
        with pytest.raises(AttributeError, match="Node has no attribute 'color'"):
            _ = node.color
        with pytest.raises(AttributeError):
            node.color = "red"
        with pytest.raises(AttributeError):
            objects.Node(color="red")

    def test_attributes_of_the_parent_class_are_declared_too(self):
        assert "tags" in objects.Cluster.FIELDS
        assert "tags" not in objects.Disk.FIELDS

    def test_compared_by_identity(self):
        node = objects.Node(name=N1)
        assert node != node.Copy()
        assert node == node  # noqa: PLR0124

    def test_python_can_copy_them(self):
        inst = Inst(disks=[Drbd()])
        assert copy.deepcopy(inst).ToDict() == inst.ToDict()

    def test_repr_names_the_object(self):
        assert repr(objects.Node(name=N1)) == f"<Node {N1}>"


PLAIN = [
    objects.Node(name=N1, offline=False, tags={"b", "a"}, ctime=1.5),
    Inst(disks=[Drbd(), File()], nics=[objects.NIC(mac="aa:00:00:00:00:01", nicparams={})]),
    Drbd(),
    objects.NIC(mac="aa:00:00:00:00:01", ip="10.0.0.1", nicparams={"mode": "routed"}),
    objects.OS(name="debian", api_versions=[10, 15], supported_variants=["a"]),
    objects.BlockDevStatus(dev_path="/dev/drbd0", major=147, minor=0, is_degraded=False),
    objects.ConfdRequest(protocol=1, type=2, query={"0": "br0"}, rsalt="x"),
    objects.ConfdReply(protocol=1, status=0, answer=[1, "x"], serial=4),
    UpgradedCluster(tcpudp_port_pool={11002, 11001}, uid_pool=[[1, 2]], tags={"t"}),
    objects.ConfigData(version=2010000, nodes={N1: objects.Node(name=N1)}, instances={}),
]


class TestPlainForm:
    """Objects survive the way over disk and wire."""

    @pytest.mark.parametrize("obj", PLAIN, ids=repr)
    def test_round_trip(self, obj):
        plain = obj.ToDict()
        over_the_wire = serializer.Load(serializer.Dump(plain))
        assert over_the_wire == plain
        assert type(obj).FromDict(over_the_wire).ToDict() == plain

    @pytest.mark.parametrize("obj", PLAIN, ids=repr)
    def test_no_null_is_written(self, obj):
        assert None not in obj.ToDict().values()

    def test_types_in_memory(self):
        inst = objects.Instance.FromDict(Inst(disks=[Drbd()], tags={"x"}).ToDict())
        disk = inst.disks[0]
        assert isinstance(disk, objects.Disk)
        assert isinstance(disk.children[0], objects.Disk)
        assert disk.logical_id == (N1, N2, 11000, 0, 3, SECRET)
        assert isinstance(disk.children[0].logical_id, tuple)
        assert inst.tags == {"x"}
        cluster = objects.Cluster.FromDict({"tcpudp_port_pool": [3, 1]})
        assert cluster.tcpudp_port_pool == {1, 3}

    def test_sets_are_sorted(self):
        cluster = objects.Cluster(tcpudp_port_pool={11003, 11001}, tags={"b", "a", "c"})
        plain = cluster.ToDict()
        assert plain["tcpudp_port_pool"] == [11001, 11003]
        assert plain["tags"] == ["a", "b", "c"]

    def test_an_instance_always_has_lists(self):
        assert objects.Instance(name="x").ToDict() == {"name": "x", "nics": [], "disks": []}

    def test_nothing_is_shared(self):
        inst = Inst(hvparams={"acpi": True}, disks=[Drbd()])
        other = inst.Copy()
        other.hvparams["acpi"] = False
        other.disks[0].size = 1
        other.disks[0].children[0].size = 1
        assert inst.hvparams == {"acpi": True}
        assert (inst.disks[0].size, inst.disks[0].children[0].size) == (1024, 1024)
        plain = inst.ToDict()
        plain["hvparams"]["acpi"] = "changed"
        assert inst.hvparams == {"acpi": True}
        source = {"hvparams": {"a": {"b": 1}}}
        objects.Instance.FromDict(source).hvparams["a"]["b"] = 2
        assert source == {"hvparams": {"a": {"b": 1}}}

    def test_unknown_keys_are_kept_and_written_back(self):
        plain = {
            "name": N1,
            "group": "uuid-of-group",
            "ndparams": {"a": [None, 1]},
            "vm_capable": None,
        }
        node = objects.Node.FromDict(plain)
        assert node.ToDict() == plain
        assert node.Copy().ToDict() == plain
        assert node.UnknownKeys() == {key: plain[key] for key in plain if key != "name"}
        with pytest.raises(AttributeError):
            _ = node.group

    def test_unknown_keys_inside(self):
        plain = {"name": "x", "nics": [{"mac": "m", "network": "n"}], "disks": []}
        assert objects.Instance.FromDict(plain).ToDict() == plain

    @pytest.mark.parametrize(
        ("cls", "data"),
        [
            (objects.Node, None),
            (objects.Node, []),
            (objects.Node, "text"),
            (objects.Node, {"tags": "abc"}),
            (objects.Node, {"tags": [["a"]]}),
            (objects.Instance, {"disks": {}}),
            (objects.Instance, {"disks": [3]}),
            (objects.Instance, {"nics": "none"}),
            (objects.Disk, {"children": {}}),
            (objects.Disk, {"logical_id": "vg/lv"}),
            (objects.ConfigData, {"cluster": []}),
            (objects.ConfigData, {"nodes": []}),
            (objects.ConfigData, {"nodes": {"a": None}}),
        ],
    )
    def test_wrong_forms(self, cls, data):
        with pytest.raises(errors.ConfigurationError):
            cls.FromDict(data)

    @given(
        st.dictionaries(
            st.sampled_from(sorted(objects.Node.FIELDS - {"tags"})) | st.text(max_size=4),
            st.recursive(
                st.booleans() | st.integers() | st.text(max_size=4),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
                ),
                max_leaves=5,
            ),
        )
    )
    def test_any_dictionary_survives(self, plain):
        assert objects.Node.FromDict(plain).ToDict() == plain


class TestGoldenFile:
    """BASE4: a file of release 2.1 is read and written in its own format."""

    def _Text(self):
        return CONFIG.read_text(encoding="utf-8")

    def test_byte_for_byte(self):
        """All bytes come back; only the tags, which 2.1 wrote in no order, are sorted."""
        text = self._Text()
        data = objects.ConfigData.FromDict(serializer.Load(text))
        turned = text.replace('"eu",\n      "b"\n', '"b",\n      "eu"\n')
        assert turned != text
        assert serializer.Dump(data.ToDict(), indent=True) == turned

    def test_content(self):
        data = objects.ConfigData.FromDict(serializer.Load(self._Text()))
        assert data.version == constants.CONFIG_VERSION
        assert sorted(data.instances) == [f"inst{i}.example.com" for i in (1, 2, 3)]
        inst = data.instances["inst2.example.com"]
        assert [disk.iv_name for disk in inst.disks] == ["disk/0", "disk/1"]
        assert inst.disks[1].logical_id[0] == "loop"
        assert data.nodes[N1].ctime is None
        assert not data.cluster.UnknownKeys()

    def test_upgrade_changes_nothing_but_what_2_1_lacked(self):
        data = objects.ConfigData.FromDict(serializer.Load(self._Text()))
        before = data.ToDict()
        data.UpgradeConfig()
        after = data.ToDict()
        assert after["cluster"].pop("diskparams") == {"default": dict(constants.DPC_DEFAULTS)}
        assert after["cluster"].pop("default_iallocator") == {}
        assert after["cluster"]["hvparams"]["xen-pvm"].pop("blockdev_prefix") == "sd"
        assert after == before

    def test_defaults_of_a_new_cluster_are_those_of_the_file(self):
        hvparams = serializer.Load(self._Text())["cluster"]["hvparams"]
        ours = {kind: dict(params) for kind, params in constants.HVC_DEFAULTS.items()}
        # The one default that is a path below the root of a virtual node
        assert (
            ours["xen-hvm"]
            .pop("vnc_password_file")
            .endswith(hvparams["xen-hvm"].pop("vnc_password_file"))
        )
        # And one that 2.1 has not
        assert ours["xen-pvm"].pop("blockdev_prefix") == "sd"
        assert ours == hvparams

    def test_what_has_a_uuid(self):
        data = objects.ConfigData.FromDict(serializer.Load(self._Text()))
        found = list(data.IterIdentified())
        kinds = {}
        for obj in found:
            kinds[type(obj).__name__] = kinds.get(type(obj).__name__, 0) + 1
        assert kinds == {"Cluster": 1, "Node": 1, "Instance": 3, "NIC": 3, "Disk": 2}


OLD = {
    "version": 2000000,
    "cluster": {
        "serial_no": 3,
        "cluster_name": "cluster.example.com",
        "default_bridge": "br7",
        "default_hypervisor": "kvm",
        "enabled_hypervisors": ["xen-pvm", "kvm"],
        "hvparams": {"kvm": {"kernel_path": "/boot/mine"}, "xen-pvm": {}},
        "beparams": {"default": {"memory": 512}},
        "candidate_pool_size": 3,
        "tcpudp_port_pool": [11004],
        "highest_used_port": 11010,
    },
    "nodes": {N1: {"name": N1, "primary_ip": "10.0.0.1", "secondary_ip": "10.0.0.1"}},
    "instances": {
        "i1": {
            "name": "i1",
            "primary_node": N1,
            "os": "debian",
            "hypervisor": "kvm",
            "admin_up": True,
            "hvparams": {"migration_port": 8200, "migration_bandwidth": 5, "acpi": False},
            "beparams": {},
            "disk_template": "drbd",
            "nics": [
                {"mac": "aa:00:00:00:00:01", "ip": None, "bridge": "br1"},
                {"mac": "aa:00:00:00:00:02"},
                {"mac": "aa:00:00:00:00:03", "nicparams": {"link": "br3"}, "bridge": "br1"},
            ],
            "disks": [
                {
                    "dev_type": "drbd8",
                    "logical_id": [N1, N2, 11000],
                    "size": 10,
                    "children": [{"dev_type": "lvm", "logical_id": ["vg", "a"], "size": 10}],
                }
            ],
        }
    },
    "serial_no": 9,
}


class TestUpgrade:
    """BASE4: a configuration of 2.0 gets what it lacks when it is loaded."""

    def setup_method(self):
        self.data = objects.ConfigData.FromDict(OLD)
        self.data.UpgradeConfig()
        self.cluster = self.data.cluster
        self.inst = self.data.instances["i1"]

    def test_hypervisor_parameters(self):
        assert set(self.cluster.hvparams) == {"kvm", "xen-pvm"}
        assert self.cluster.hvparams["kvm"] == {
            **constants.HVC_DEFAULTS["kvm"],
            "kernel_path": "/boot/mine",
        }
        assert self.cluster.hvparams["xen-pvm"] == constants.HVC_DEFAULTS["xen-pvm"]
        assert self.cluster.os_hvp == {}

    def test_missing_hypervisor_parameters(self):
        assert UpgradedCluster().hvparams == constants.HVC_DEFAULTS

    def test_a_hypervisor_of_the_future_keeps_its_parameters(self):
        cluster = UpgradedCluster(hvparams={"lxc": {"cpu_mask": ""}})
        assert cluster.hvparams == {"lxc": {"cpu_mask": ""}}

    def test_backend_parameters(self):
        assert self.cluster.beparams == {
            "default": {"memory": 512, "vcpus": 1, "auto_balance": True}
        }

    def test_bridge_becomes_the_link(self):
        assert self.cluster.nicparams == {"default": {"mode": "bridged", "link": "br7"}}
        assert self.cluster.default_bridge is None

    def test_bridge_does_not_beat_nic_parameters(self):
        cluster = UpgradedCluster(default_bridge="br7", nicparams={"default": {"link": "br8"}})
        assert cluster.nicparams == {"default": {"mode": "bridged", "link": "br8"}}
        assert cluster.default_bridge is None

    def test_no_bridge_at_all(self):
        assert UpgradedCluster().nicparams == {"default": dict(constants.NICC_DEFAULTS)}

    def test_disk_parameters(self):
        """PR1"""
        assert self.cluster.diskparams == {"default": dict(constants.DPC_DEFAULTS)}

    def test_default_hypervisor_comes_first(self):
        assert self.cluster.enabled_hypervisors == ["kvm", "xen-pvm"]
        assert self.cluster.default_hypervisor is None

    def test_switches(self):
        assert self.cluster.modify_etc_hosts is True
        assert self.cluster.modify_ssh_setup is True
        assert self.cluster.maintain_node_health is False
        assert self.cluster.uid_pool == []
        assert self.cluster.candidate_pool_size == 3
        cluster = UpgradedCluster(modify_etc_hosts=False, modify_ssh_setup=False)
        assert (cluster.modify_etc_hosts, cluster.modify_ssh_setup) == (False, False)

    def test_nics(self):
        assert [nic.ToDict() for nic in self.inst.nics] == [
            {"mac": "aa:00:00:00:00:01", "nicparams": {"mode": "bridged", "link": "br1"}},
            {"mac": "aa:00:00:00:00:02", "nicparams": {}},
            {"mac": "aa:00:00:00:00:03", "nicparams": {"link": "br3"}},
        ]

    def test_globals_are_dropped_from_instances(self):
        """PR3"""
        assert self.inst.hvparams == {"acpi": False}

    def test_short_drbd_ids_are_padded(self):
        assert self.inst.disks[0].logical_id == (N1, N2, 11000, None, None, None)

    def test_an_allocator_of_a_relative_serves_all_modes(self):
        cluster = UpgradedCluster(default_iallocator="hail")
        assert cluster.default_iallocator["relocate"] == ["hail"]
        assert set(cluster.default_iallocator) == constants.VALID_IALLOCATOR_MODES
        assert UpgradedCluster(default_iallocator="").default_iallocator == {}

    def test_twice_is_once(self):
        once = self.data.ToDict()
        self.data.UpgradeConfig()
        assert self.data.ToDict() == once

    def test_the_built_in_defaults_are_not_touched(self):
        cluster = UpgradedCluster()
        cluster.hvparams["kvm"]["acpi"] = "changed"
        cluster.beparams["default"]["memory"] = "changed"
        assert constants.HVC_DEFAULTS["kvm"]["acpi"] is True
        assert constants.BEC_DEFAULTS["memory"] == 128

    def test_no_cluster(self):
        with pytest.raises(errors.ConfigurationError, match="cluster"):
            objects.ConfigData.FromDict({"version": 1}).UpgradeConfig()


class TestFill:
    """PR1: instance over OS over cluster."""

    def setup_method(self):
        self.cluster = objects.Cluster(
            hvparams={"kvm": {"a": "cluster", "b": "cluster", "c": "cluster", "migration_port": 1}},
            os_hvp={
                "debian+minimal": {"kvm": {"b": "os", "c": "os", "migration_port": 2}},
                "debian": {"kvm": {"a": "other os"}},
            },
            beparams={"default": {"memory": 128, "vcpus": 1}},
            nicparams={"default": {"mode": "bridged", "link": "br0"}},
            diskparams={"default": dict(constants.DPC_DEFAULTS)},
        )

    def test_precedence(self):
        filled = self.cluster.FillHV(Inst(hvparams={"c": "instance"}))
        assert filled == {"a": "cluster", "b": "os", "c": "instance", "migration_port": 2}

    def test_globals_can_be_left_out_even_where_an_instance_has_them(self):
        """PR3"""
        inst = Inst(hvparams={"migration_port": 3, "c": "instance"})
        filled = self.cluster.FillHV(inst, skip_globals=True)
        assert filled == {"a": "cluster", "b": "os", "c": "instance"}

    def test_the_variant_belongs_to_the_name_of_the_os(self):
        assert self.cluster.FillHV(Inst(os="debian"))["a"] == "other os"
        assert self.cluster.FillHV(Inst(os="debian+big"))["a"] == "cluster"

    def test_defaults(self):
        assert self.cluster.GetHVDefaults("kvm") == self.cluster.hvparams["kvm"]
        assert self.cluster.GetHVDefaults("kvm", "debian", ["a", "b", "none"]) == {
            "c": "cluster",
            "migration_port": 1,
        }
        assert self.cluster.GetHVDefaults("fake", "debian") == {}

    def test_without_os_parameters(self):
        del self.cluster.__dict__["os_hvp"]
        assert self.cluster.FillHV(Inst())["b"] == "cluster"

    def test_backend(self):
        assert self.cluster.FillBE(Inst(beparams={"memory": 5})) == {"memory": 5, "vcpus": 1}
        assert self.cluster.SimpleFillBE(None) == {"memory": 128, "vcpus": 1}

    def test_nic(self):
        """PR4"""
        nic = objects.NIC(nicparams={"mode": "routed"})
        assert self.cluster.FillNIC(nic) == {"mode": "routed", "link": "br0"}
        assert self.cluster.FillNIC(objects.NIC()) == {"mode": "bridged", "link": "br0"}

    def test_disk(self):
        disk = LV()
        assert self.cluster.FillDisk(disk) == constants.DPC_DEFAULTS
        disk.params = {"stripe": 3}
        assert self.cluster.FillDisk(disk) == {**constants.DPC_DEFAULTS, "stripe": 3}

    def test_the_answer_is_the_callers_own(self):
        self.cluster.hvparams["kvm"]["list"] = [1]
        self.cluster.FillHV(Inst())["list"].append(2)
        self.cluster.FillBE(Inst())["memory"] = 0
        assert self.cluster.hvparams["kvm"]["list"] == [1]
        assert self.cluster.beparams["default"]["memory"] == 128

    @given(
        *[st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)) for _ in range(2)],
        st.sets(st.sampled_from("abcde")),
    )
    def test_fill_dict(self, defaults, custom, skip):
        filled = objects.FillDict(defaults, custom, skip)
        assert set(filled) == (set(defaults) | set(custom)) - skip
        for key, value in filled.items():
            assert value == custom.get(key, defaults.get(key))

    def test_groups(self):
        assert objects.UpgradeGroupedParams(None, {"a": 1}) == {"default": {"a": 1}}
        groups = {"x": {"a": 2}, "y": {"b": 3}}
        assert objects.UpgradeGroupedParams(groups, {"a": 1}) == {
            "x": {"a": 2},
            "y": {"a": 1, "b": 3},
        }
        assert groups == {"x": {"a": 2}, "y": {"b": 3}}


class TestTags:
    """BASE3"""

    @pytest.mark.parametrize("tag", ["a", "rack:a1", "A_z.+*/:@-9", "x" * 128])
    def test_good(self, tag):
        node = objects.Node(name=N1)
        node.AddTag(tag)
        assert node.GetTags() == {tag}
        node.RemoveTag(tag)
        assert node.GetTags() == set()

    @pytest.mark.parametrize(
        ("tag", "text"),
        [
            (None, "Invalid tag type"),
            (3, "Invalid tag type"),
            (b"x", "Invalid tag type"),
            ("", "Tags cannot be empty"),
            ("x" * 129, "Tag too long"),
            ("a b", "invalid characters"),
            ("a\n", "invalid characters"),
            ("é", "invalid characters"),
            ("a,b", "invalid characters"),
            ("१", "invalid characters"),
        ],
    )
    def test_bad(self, tag, text):
        node = objects.Node(name=N1)
        for method in (node.ValidateTag, node.AddTag, node.RemoveTag):
            with pytest.raises(errors.TagError, match=text):
                method(tag)
        assert node.GetTags() == set()

    def test_not_there(self):
        with pytest.raises(errors.TagError, match="Tag not found"):
            objects.Node(name=N1).RemoveTag("x")

    def test_too_many(self):
        node = objects.Node(name=N1, tags={str(i) for i in range(constants.MAX_TAGS_PER_OBJ)})
        node.AddTag("0")
        with pytest.raises(errors.TagError, match="Too many tags"):
            node.AddTag("one-more")
        assert len(node.GetTags()) == constants.MAX_TAGS_PER_OBJ

    def test_the_set_is_the_live_one(self):
        node = objects.Node(name=N1)
        node.GetTags().add("x")
        assert node.ToDict()["tags"] == ["x"]

    @given(st.text(max_size=4))
    def test_validation_is_the_documented_rule(self, tag):
        valid = re.fullmatch(r"[A-Za-z0-9_.+*/:@-]{1,128}", tag) is not None
        try:
            objects.Node.ValidateTag(tag)
        except errors.TagError:
            assert not valid
        else:
            assert valid


class TestNic:
    """PR4"""

    @pytest.mark.parametrize(
        "params",
        [
            dict(constants.NICC_DEFAULTS),
            {"mode": "bridged", "link": "br0"},
            {"mode": "routed", "link": ""},
            {"mode": "routed"},
        ],
    )
    def test_good(self, params):
        objects.NIC.CheckParameterSyntax(params)

    @pytest.mark.parametrize(
        "params",
        [
            {},
            {"mode": "bridge", "link": "br0"},
            {"mode": None},
            {"mode": "bridged"},
            {"mode": "bridged", "link": ""},
            {"mode": "bridged", "link": None},
        ],
    )
    def test_bad(self, params):
        with pytest.raises(errors.ConfigurationError):
            objects.NIC.CheckParameterSyntax(params)


class TestDiskParameters:
    """PR1: stripes, stripe size, DRBD meta and data flushes."""

    @pytest.mark.parametrize(
        "params",
        [
            {},
            dict(constants.DPC_DEFAULTS),
            {"stripe": 128},
            {"stripe_size": 4},
            {"stripe_size": 64, "meta_flushes": False},
        ],
    )
    def test_good(self, params):
        objects.Disk.CheckParameterSyntax(params)

    @pytest.mark.parametrize(
        ("params", "named"),
        [
            ({"stripes": 2}, "stripes"),
            ({"stripe": 0}, "'stripe' is 0"),
            ({"stripe": 129}, "128"),
            ({"stripe_size": 3}, "'stripe_size' is 3"),
            ({"stripe_size": 48}, "power of two"),
            ({"stripe_size": -4}, "'stripe_size' is -4"),
        ],
    )
    def test_bad(self, params, named):
        with pytest.raises(errors.ConfigurationError, match=named):
            objects.Disk.CheckParameterSyntax(params)


class TestDisk:
    """BASE2: the kinds of disks, alone and stacked."""

    def test_kinds(self):
        rows = [
            # disk, create, assemble, open on secondary, static path, children needed
            (LV(), True, True, True, "/dev/xenvg/lv1", -1),
            (Drbd(), True, True, False, None, 0),
            (File(), False, False, False, None, -1),
        ]
        for disk, create, assemble, opened, path, needed in rows:
            assert disk.CreateOnSecondary() is create
            assert disk.AssembleOnSecondary() is assemble
            assert disk.OpenOnSecondary() is opened
            assert disk.StaticDevPath() == path
            assert disk.ChildrenNeeded() == needed

    def test_nodes(self):
        assert LV().GetNodes(N3) == [N3]
        assert File().GetNodes(N3) == [N3]
        assert Drbd().GetNodes(N2) == [N1, N2]
        with pytest.raises(errors.ConfigurationError, match=N3):
            Drbd().GetNodes(N3)
        with pytest.raises(errors.ConfigurationError, match="rbd"):
            objects.Disk(dev_type="rbd").GetNodes(N1)

    def test_tree_of_drbd_over_lvm_is_the_two_tops(self):
        disk = Drbd()
        assert disk.ComputeNodeTree(N1) == [(N1, disk), (N2, disk)]
        assert LV().ComputeNodeTree(N1)[0][0] == N1

    def test_tree_of_drbd_over_drbd_has_the_third_node(self):
        inner = Drbd(nodes=(N1, N3))
        outer = objects.Disk(
            dev_type="drbd8", logical_id=(N1, N1, 11001, 0, 1, SECRET), children=[inner]
        )
        tree = outer.ComputeNodeTree(N1)
        assert (N3, inner) in tree
        assert (N1, inner) not in tree

    def test_grow(self):
        disk = Drbd()
        disk.RecordGrow(100)
        assert (disk.size, disk.children[0].size, disk.children[1].size) == (1124, 1124, 128)
        for plain in (LV(), File()):
            size = plain.size
            plain.RecordGrow(4)
            assert plain.size == size + 4
        with pytest.raises(errors.ProgrammerError):
            objects.Disk(dev_type="rbd", size=1).RecordGrow(1)

    def test_unset_size(self):
        disk = Drbd()
        disk.UnsetSize()
        assert [part.size for part in disk.IterTree()] == [0, 0, 0]

    def test_physical_ids(self):
        ips = {N1: "10.1.1.1", N2: "10.1.1.2"}
        disk = Drbd()
        disk.SetPhysicalID(N1, ips)
        assert disk.physical_id == ("10.1.1.1", 11000, "10.1.1.2", 11000, 0, SECRET)
        disk.children[0].physical_id = None
        disk.SetPhysicalID(N2, ips)
        assert disk.physical_id == ("10.1.1.2", 11000, "10.1.1.1", 11000, 3, SECRET)
        assert disk.children[0].physical_id == ("xenvg", "data")

    def test_physical_ids_of_others(self):
        with pytest.raises(errors.ConfigurationError, match=N3):
            Drbd().SetPhysicalID(N3, {N1: "a", N2: "b", N3: "c"})
        with pytest.raises(errors.ConfigurationError, match=f"address of node {N2}"):
            Drbd().SetPhysicalID(N1, {N1: "a"})

    def test_verify(self):
        disk = Drbd()
        for mode in ("ro", "rw"):
            disk.mode = mode
            assert disk.Verify() == []
        disk.mode = "w"
        assert "'w'" in disk.Verify()[0]
        assert LV().Verify()


class TestInstance:
    def test_nodes(self):
        inst = Inst(disks=[Drbd(), Drbd(nodes=(N3, N1)), LV()])
        assert inst.all_nodes == [N1, N2, N3]
        assert inst.secondary_nodes == [N2, N3]
        assert Inst().all_nodes == [N1]
        assert Inst().secondary_nodes == []
        assert Inst(primary_node=N2, disks=[Drbd()]).all_nodes == [N2, N1]

    def test_nodes_at_any_depth(self):
        outer = objects.Disk(dev_type="lvm", logical_id=("a", "b"), children=[Drbd()])
        assert Inst(disks=[outer]).all_nodes == [N1, N2]

    def test_volumes(self):
        inst = Inst(disks=[Drbd(), LV("plain")])
        assert inst.MapLVsByNode() == {N1: ["data", "meta", "plain"], N2: ["data", "meta"]}
        assert inst.MapLVsByNode(devs=[LV("x")], node=N3) == {N3: ["x"]}
        mine = {N1: ["old"]}
        assert inst.MapLVsByNode(mine) is mine
        assert mine[N1] == ["old", "data", "meta", "plain"]
        assert Inst(disks=[File()]).MapLVsByNode() == {N1: []}

    @pytest.mark.parametrize("index", [0, 1, "1", True])
    def test_find_disk(self, index):
        inst = Inst(disks=[Drbd("disk/0"), Drbd("disk/1")])
        assert inst.FindDisk(index).iv_name == f"disk/{int(index)}"

    @pytest.mark.parametrize("index", [-1, "-1", 2, "x", None, "1.5", []])
    def test_find_no_disk(self, index):
        with pytest.raises(errors.OpPrereqError) as info:
            Inst(disks=[Drbd(), Drbd()]).FindDisk(index)
        assert info.value.args[1] == errors.ECODE_INVAL

    def test_find_disk_of_none(self):
        with pytest.raises(errors.OpPrereqError, match="it has no disks"):
            Inst().FindDisk(0)


# Property: whatever nesting of disks, the derived facts agree with each other.
_LVS = st.builds(LV, st.text("abc", min_size=1, max_size=3), st.integers(0, 100))
_NODES = st.lists(st.sampled_from([N1, N2, N3]), min_size=2, max_size=2, unique=True)
_DRBDS = _NODES.map(lambda nodes: Drbd(nodes=tuple(nodes)))


@settings(max_examples=50)
@given(st.lists(_LVS | _DRBDS | st.builds(File), max_size=5))
def test_an_instances_facts_agree(disks):
    inst = Inst(disks=disks)
    again = objects.Instance.FromDict(serializer.Load(serializer.Dump(inst.ToDict())))
    assert again.ToDict() == inst.ToDict()
    assert again.all_nodes == inst.all_nodes
    assert set(inst.all_nodes) == {N1, *inst.secondary_nodes}
    assert N1 not in inst.secondary_nodes
    assert set(inst.MapLVsByNode()) <= set(inst.all_nodes)
    volumes = sum(map(len, inst.MapLVsByNode().values()))
    single = sum(disk.dev_type == "lvm" for disk in disks)
    double = sum(disk.dev_type == "drbd8" for disk in disks)
    assert volumes == single + 4 * double


class TestIniFile:
    """BASE3: the description of an export."""

    def test_round_trip(self):
        parser = objects.SerializableConfigParser()
        parser.add_section("export")
        parser.set("export", "version", "0")
        parser.add_section("instance")
        parser.set("instance", "nic0_ip", "None")
        parser.set("instance", "kernel_args", "ro 100% %(x)s")
        parser.set("instance", "Mixed_Case", "kept")
        text = parser.Dumps()
        assert "[export]\nversion = 0\n" in text
        again = objects.SerializableConfigParser.Loads(text)
        assert again.get("instance", "kernel_args") == "ro 100% %(x)s"
        assert again.get("instance", "Mixed_Case") == "kept"
        assert again.Dumps() == text

    @pytest.mark.parametrize("text", ["a = 1\n", "[x\n", "[x]\nnonsense\n", "[a]\n[a]\n"])
    def test_broken(self, text):
        with pytest.raises(errors.ConfigurationError, match="INI"):
            objects.SerializableConfigParser.Loads(text)
