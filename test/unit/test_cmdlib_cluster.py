"""Operations on the cluster: parameters, destruction, redistribution, what it tells of itself."""

import os
import types

import pytest

from ganeti import constants, errors, objects, opcodes, pathutils
from ganeti.cmdlib import ancillary, cluster_params, fake, query
from ganeti.config import fake as config_fake

NODE1, NODE2 = "node1.example.com", "node2.example.com"

#: Processes of instances under an account.
_USER = {"hvparams": {"kvm": {"security_model": "user", "security_domain": "vms"}}}


@pytest.fixture
def world():
    return fake.NewWorld(2)


def _Cut(world):
    """Calls about hypervisors do not reach the second node."""
    return lambda: world.rpc.Fail("node_verify", "timed out", nodes=[NODE2])


def SetParams(world, **values):
    world.Run(opcodes.OpClusterSetParams(**values))
    return world.cfg.GetClusterInfo()


class TestUidPool:
    """UP2: replace, add, remove; whole ranges only."""

    def test_operations(self):
        compute = cluster_params.ComputeUidPool
        assert compute([[1, 5]], None, [[10, 20]], None) == [[1, 5], [10, 20]]
        assert compute([[1, 5], [10, 20]], None, None, [[1, 5]]) == [[10, 20]]
        assert compute([[1, 5]], [], None, None) == []
        assert compute([[1, 5]], [[7, 7]], [[9, 9]], [[7, 7]]) == [[9, 9]]

    @pytest.mark.parametrize(
        ("add", "remove", "fragment"),
        [(None, [[1, 4]], "1-4"), ([[5, 9]], None, "overlap")],
    )
    def test_refused(self, add, remove, fragment):
        with pytest.raises(errors.OpPrereqError, match=fragment):
            cluster_params.ComputeUidPool([[1, 5]], None, add, remove)


class TestSetParams:
    """PR1: cluster-wide defaults."""

    def test_parameters(self, world):
        obj = SetParams(
            world,
            beparams={"memory": "1g"},
            nicparams={"mode": "routed"},
            hvparams={"kvm": {"acpi": False}},
            os_hvp={"noop": {"kvm": {"acpi": True}}},
            uid_pool=[[100, 200]],
            maintain_node_health=True,
        )
        assert obj.beparams["default"]["memory"] == 1024
        assert obj.nicparams["default"]["mode"] == "routed"
        assert obj.hvparams["kvm"]["acpi"] is False
        assert obj.hvparams["kvm"]["boot_order"] == "disk"
        assert obj.os_hvp == {"noop": {"kvm": {"acpi": True}}}
        assert obj.uid_pool == [[100, 200]]
        assert obj.maintain_node_health is True

    def test_enabled_hypervisors(self, world):
        obj = SetParams(world, enabled_hypervisors=["fake", "chroot"])
        assert obj.enabled_hypervisors == ["fake", "chroot"]

    def test_smaller_pool_demotes_nobody(self, world):
        SetParams(world, candidate_pool_size="1")
        assert world.cfg.GetNodeInfo(NODE2).master_candidate
        assert any("more than" in line for line in world.log)

    @pytest.mark.parametrize(
        ("values", "fragment"),
        [
            ({"candidate_pool_size": 0}, "at least 1"),
            ({"candidate_pool_size": "x"}, "'x'"),
            ({"enabled_hypervisors": []}, "at least one"),
            ({"enabled_hypervisors": ["vmx"]}, "'vmx'"),
            ({"hvparams": {"vmx": {}}}, "'vmx'"),
            ({"hvparams": {"kvm": {"nosuch": 1}}}, "nosuch"),
            ({"hvparams": {"kvm": {"disk_cache": "x"}}}, "'x'"),
            ({"os_hvp": {"noop": {"vmx": {}}}}, "'vmx'"),
            ({"beparams": {"vcpus": "x"}}, "vcpus"),
            ({"beparams": {"vcpus": 0}}, "vcpus"),
            ({"nicparams": {"mode": "x"}}, "'x'"),
            ({"diskparams": {"stripe": 0}}, "stripe"),
            ({"diskparams": {"nosuch": 0}}, "nosuch"),
            ({"uid_pool": [[5, 1]]}, "5-1"),
            ({"remove_uids": [[1, 2]]}, "1-2"),
            ({"os_hvp": {"noop": {"kvm": {"migration_port": 9}}}}, "migration_port"),
            ({"os_hvp": {"noop": {"kvm": {"nosuch": "default"}}}}, "nosuch"),
            ({"os_hvp": {"noop": {"kvm": {"use_bootloader": True}}}}, "use_bootloader"),
            ({"os_hvp": {"noop": {"vmx": None}}}, "'vmx'"),
            ({"default_iallocator": "nosuch"}, "'nosuch'"),
            ({"default_iallocator": {"relocate": ["own", "../own"]}}, "'../own'"),
        ],
    )
    def test_bad_input_changes_nothing(self, world, values, fragment):
        before = world.cfg.GetClusterInfo().ToDict()
        op = opcodes.OpClusterSetParams(beparams={"memory": 256})
        for name, value in values.items():
            setattr(op, name, value)
        with pytest.raises(errors.OpPrereqError) as caught:
            world.Run(op)
        assert caught.value.args[1] == errors.ECODE_INVAL
        assert fragment in caught.value.args[0]
        assert world.cfg.GetClusterInfo().ToDict() == before

    def test_bigger_pool(self, world):
        """Nodes are promoted before the configuration is judged by the new size."""
        node = world.cfg.GetNodeInfo(NODE2)
        SetParams(world, candidate_pool_size=1)
        node = world.cfg.GetNodeInfo(NODE2)
        node.master_candidate = False
        world.cfg.Update(node, None)
        SetParams(world, candidate_pool_size=2)
        assert world.cfg.GetNodeInfo(NODE2).master_candidate
        assert not any("consistent" in line for line in world.log)

    def test_ranges_of_older_versions(self, world):
        """What is wrong already keeps nobody from changing something else, or from mending it."""
        obj = world.cfg.GetClusterInfo()
        obj.uid_pool = [[100, 200], [150, 300], [9, 5]]
        world.cfg.Update(obj, None)
        assert SetParams(world, beparams={"vcpus": 2}).uid_pool == obj.uid_pool
        changed = SetParams(world, remove_uids=[[9, 5], [150, 300]])
        assert changed.uid_pool == [[100, 200]]

    @pytest.mark.parametrize("of_os", [False, True])
    def test_hypervisor_that_is_not_enabled(self, world, monkeypatch, of_os):
        """Nodes validate its parameters all the same, the named ones and the others."""
        calls = []
        validate = world.rpc.call_hypervisor_validate_params

        def Validate(names, hypervisor, given):
            calls.append((sorted(names), hypervisor, given))
            return validate(names, hypervisor, given)

        monkeypatch.setattr(world.rpc, "call_hypervisor_validate_params", Validate)
        params = {"kvm": {"initrd_path": "/boot/initrd"}}
        values = {"os_hvp": {"noop": params}} if of_os else {"hvparams": params}
        SetParams(world, **values)
        filled = {**constants.HVC_DEFAULTS["kvm"], "initrd_path": "/boot/initrd"}
        assert calls == [([NODE1, NODE2], "kvm", filled)]
        before = world.cfg.GetClusterInfo().ToDict()
        world.rpc.Fail("hypervisor_validate_params", "no such file", nodes=[NODE2])
        with pytest.raises(errors.OpPrereqError, match=f"kvm: node {NODE2} refuses") as caught:
            SetParams(world, beparams={"memory": 512}, **values)
        assert caught.value.args[1] == errors.ECODE_ENVIRON
        assert world.cfg.GetClusterInfo().ToDict() == before

    def test_all_enabled_hypervisors_are_validated(self, world, monkeypatch):
        asked = []
        monkeypatch.setattr(
            world.rpc,
            "call_hypervisor_validate_params",
            lambda names, kind, given: asked.append((kind, given)) or {},
        )
        SetParams(world, enabled_hypervisors=["fake", "kvm"])
        assert [kind for kind, _ in asked] == ["fake", "kvm"]
        assert asked[1][1] == constants.HVC_DEFAULTS["kvm"]

    def test_os_parameters_are_taken_back(self, world):
        """By parameter, by hypervisor, and all of them."""
        given = {"kvm": {"acpi": False, "boot_order": "network"}, "xen-pvm": {"root_path": "/x"}}
        SetParams(world, os_hvp={"noop": given, "other": {"kvm": {"acpi": False}}})
        obj = SetParams(world, os_hvp={"noop": {"kvm": {"acpi": "default", "boot_order": "disk"}}})
        assert obj.os_hvp["noop"]["kvm"] == {"boot_order": "disk"}
        obj = SetParams(world, os_hvp={"noop": {"kvm": {"boot_order": None}}})
        assert obj.os_hvp["noop"] == {"xen-pvm": {"root_path": "/x"}}
        obj = SetParams(world, os_hvp={"noop": {"xen-pvm": None}})
        assert obj.os_hvp == {"other": {"kvm": {"acpi": False}}}
        # No node need have anything for that.
        world.rpc.Fail("hypervisor_validate_params", "no such file")
        assert SetParams(world, os_hvp={"other": {"kvm": {"acpi": None}}}).os_hvp == {}
        # What is not there is taken back without complaint.
        assert SetParams(world, os_hvp={"other": {"kvm": None}, "noop": None}).os_hvp == {}

    def test_what_would_break(self, world):
        """Own values of OSes and instances must go together with the cluster's new ones."""
        SetParams(world, os_hvp={"noop": {"kvm": {"security_domain": "vms"}}}, **_USER)
        instance = config_fake.NewInstance(
            "inst1.example.com", NODE1, hypervisor="kvm", hvparams={"security_model": "pool"}
        )
        world.cfg.AddInstance(instance, None)
        # This one is wrong as it is: that keeps nobody from anything.
        SetParams(world, hvparams={"kvm": {"acpi": False}})
        with pytest.raises(errors.OpPrereqError, match="OS noop: .*security_domain") as caught:
            SetParams(world, hvparams={"kvm": {"security_model": "none", "security_domain": ""}})
        assert "inst1" not in caught.value.args[0]
        SetParams(
            world,
            hvparams={"kvm": {"security_model": "none", "security_domain": ""}},
            os_hvp={"noop": None},
        )
        with pytest.raises(errors.OpPrereqError, match=r"instance inst1\.example\.com: .*domain"):
            SetParams(world, **_USER)

    def test_hypervisor_in_use(self, world):
        config_fake.AddInstance(world.cfg, "inst1.example.com", NODE1)
        with pytest.raises(errors.OpPrereqError, match=r"fake .*inst1\.example\.com") as caught:
            SetParams(world, enabled_hypervisors=["kvm"])
        assert caught.value.args[1] == errors.ECODE_STATE
        assert world.cfg.GetClusterInfo().enabled_hypervisors == ["fake"]

    def test_hypervisor_that_no_node_can_use(self, world):
        answer = {constants.NV_HYPERVISOR: {"chroot": "no such program"}}
        world.rpc.nodes[NODE1].answers = answer
        obj = SetParams(world, enabled_hypervisors=["fake", "chroot"])
        assert obj.enabled_hypervisors == ["fake", "chroot"]
        assert any(NODE1 in line and "no such program" in line for line in world.log)
        SetParams(world, enabled_hypervisors=["fake"])
        # One that does not answer can not say so.
        for wrong in (lambda: world.rpc.nodes[NODE2].answers.update(answer), _Cut(world)):
            world.rpc.nodes[NODE2].answers = {}
            wrong()
            with pytest.raises(errors.OpPrereqError, match="no node can use chroot") as caught:
                SetParams(world, enabled_hypervisors=["fake", "chroot"])
            assert caught.value.args[1] == errors.ECODE_ENVIRON
            # Those that are enabled already are not asked about.
            SetParams(world, enabled_hypervisors=["fake"])

    def test_default_allocators(self, world):
        """IA2: a list per mode; modes that are not named keep theirs."""
        (directory,) = pathutils.IALLOCATOR_SEARCH_PATH[:1]
        for name in ("own", "hail"):
            world.runtime.files.write(f"{directory}/{name}", b"")
        obj = SetParams(world, default_iallocator={"allocate": ["own", "hail"]})
        assert obj.default_iallocator == {"allocate": ["own", "hail"]}
        obj = SetParams(world, default_iallocator={"relocate": ["own"]})
        assert obj.default_iallocator == {"allocate": ["own", "hail"], "relocate": ["own"]}
        obj = SetParams(world, default_iallocator={"allocate": []})
        assert obj.default_iallocator == {"relocate": ["own"]}
        obj = SetParams(world, default_iallocator="hail")
        assert obj.default_iallocator == {
            mode: ["hail"] for mode in constants.VALID_IALLOCATOR_MODES
        }
        assert world.Run(opcodes.OpClusterQuery())["default_iallocator"] == obj.default_iallocator
        assert SetParams(world, default_iallocator="").default_iallocator == {}

    def test_routed_default_needs_addresses(self, world):
        world.Run(
            opcodes.OpInstanceCreate(
                instance_name="inst1.example.com",
                mode="create",
                disks=[],
                nics=[{}],
                start=False,
                wait_for_sync=True,
                ip_check=False,
                name_check=False,
                hvparams={},
                beparams={},
                os_type="noop+default",
                disk_template="diskless",
                pnode=NODE1,
            )
        )
        with pytest.raises(errors.OpPrereqError, match=r"inst1\.example\.com, nic/0"):
            SetParams(world, nicparams={"mode": "routed"})

    def test_volume_group_in_use(self, world):
        disk = objects.Disk(dev_type="lvm", logical_id=("xenvg", "a"), size=8, mode="rw")
        instance = config_fake.NewInstance("inst1.example.com", NODE1, disks=[disk])
        world.cfg.AddInstance(instance, None)
        with pytest.raises(errors.OpPrereqError, match=r"inst1\.example\.com") as caught:
            SetParams(world, vg_name="")
        assert caught.value.args[1] == errors.ECODE_INVAL
        assert world.cfg.GetVGName() == "xenvg"

    def test_volume_group_of_nodes_that_do_not_answer(self, world):
        world.rpc.Fail("vg_list", "no such program", nodes=[NODE2])
        assert SetParams(world, vg_name="xenvg").volume_group_name == "xenvg"
        assert any(NODE2 in line and "no such program" in line for line in world.log)
        assert any("already in desired state" in line for line in world.log)

    def test_volume_group_must_be_everywhere(self, world):
        with pytest.raises(errors.OpPrereqError, match="othervg") as caught:
            SetParams(world, vg_name="othervg")
        assert caught.value.args[1] == errors.ECODE_ENVIRON
        assert SetParams(world, vg_name="").volume_group_name is None

    def test_a_node_refuses(self, world):
        world.rpc.Fail("hypervisor_validate_params", "no such file")
        with pytest.raises(errors.OpPrereqError, match="no such file"):
            SetParams(world, enabled_hypervisors=["fake", "kvm"])


class TestDestroy:
    def test_other_nodes_keep_it(self, world):
        with pytest.raises(errors.OpPrereqError, match=r"node2\.example\.com"):
            world.Run(opcodes.OpClusterDestroy())

    def test_instances_keep_it(self):
        world = fake.NewWorld(1)
        config_fake.AddInstance(world.cfg, "inst1.example.com", NODE1)
        with pytest.raises(errors.OpPrereqError, match=r"inst1\.example\.com"):
            world.Run(opcodes.OpClusterDestroy())

    def test_destroy(self):
        world = fake.NewWorld(1)
        obj = world.cfg.GetClusterInfo()
        obj.modify_ssh_setup = False
        world.cfg.Update(obj, None)
        assert world.Run(opcodes.OpClusterDestroy()) == NODE1
        assert ("node_stop_master", NODE1) in world.rpc.calls
        assert [path for _, path, _, _ in world.rpc.hooks][0] == "cluster-destroy"


class TestRename:
    @pytest.fixture
    def named(self, world, monkeypatch):
        os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
        with open(pathutils.ETC_HOSTS, "w") as fobj:
            fobj.write(f"192.0.2.99\tnew.example.com\n{config_fake.CLUSTER_IP}\t")
            fobj.write(f"{config_fake.CLUSTER_NAME}\n")
        monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: False)
        return world

    def test_rename(self, named):
        world = named
        world.Run(opcodes.OpClusterRename(name="new.example.com"))
        obj = world.cfg.GetClusterInfo()
        assert (obj.cluster_name, obj.master_ip) == ("new.example.com", "192.0.2.99")
        path = pathutils.SSH_KNOWN_HOSTS_FILE
        assert world.runtime.files.read(path) == b"new.example.com ssh-rsa AAAA\n"
        assert world.rpc.nodes[NODE2].files == {path}
        calls = [call for call, name in world.rpc.calls if "master" in call]
        assert calls == ["node_stop_master", "node_start_master"]

    def test_address_comes_back_whatever_happens(self, named):
        world = named
        world.runtime.files.Fail("write", pathutils.CLUSTER_CONF_FILE)
        with pytest.raises(errors.ConfigurationError):
            world.Run(opcodes.OpClusterRename(name="new.example.com"))
        world.rpc.Fail("node_stop_master", "lost", lost=True)
        with pytest.raises(errors.OpExecError):
            world.Run(opcodes.OpClusterRename(name="new.example.com"))
        calls = [call for call, name in world.rpc.calls if "master" in call]
        assert calls == ["node_stop_master", "node_start_master"] * 2

    def test_refused(self, named, monkeypatch):
        world = named
        for name, code in (
            ("nosuch.invalid", errors.ECODE_RESOLVER),
            (config_fake.CLUSTER_NAME, errors.ECODE_INVAL),
        ):
            with pytest.raises(errors.OpPrereqError) as caught:
                world.Run(opcodes.OpClusterRename(name=name))
            assert caught.value.args[1] == code
        with monkeypatch.context() as patch:
            patch.setattr("ganeti.pathutils.IsVirtual", lambda: False)
            found = types.SimpleNamespace(name="new.example.com", ip="127.0.1.1")
            patch.setattr("ganeti.utils.net.GetHostInfo", lambda name: found)
            with pytest.raises(errors.OpPrereqError, match="not reachable") as caught:
                world.Run(opcodes.OpClusterRename(name="new.example.com"))
            assert caught.value.args[1] == errors.ECODE_ENVIRON
        node = world.cfg.GetNodeInfo(NODE2)
        node.secondary_ip = "192.0.2.99"
        world.cfg.Update(node, None)
        with pytest.raises(errors.OpPrereqError, match=f"address of node {NODE2}") as caught:
            world.Run(opcodes.OpClusterRename(name="new.example.com"))
        assert caught.value.args[1] == errors.ECODE_NOTUNIQUE
        node.secondary_ip = node.primary_ip
        world.cfg.Update(node, None)
        monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: True)
        with pytest.raises(errors.OpPrereqError, match=r"192\.0\.2\.99") as caught:
            world.Run(opcodes.OpClusterRename(name="new.example.com"))
        assert caught.value.args[1] == errors.ECODE_NOTUNIQUE


class TestRedistribution:
    """RC1: what is shipped to all nodes."""

    def test_files(self, world):
        files = world.runtime.files
        for path in (pathutils.RAPI_CERT_FILE, pathutils.CONFD_HMAC_KEY, pathutils.ETC_HOSTS):
            files.write(path, b"x")
        motd = pathutils.LocalPath("/etc/motd")
        listed = [
            "# ours",
            "/etc/motd",
            "relative",
            "/etc/gone",
            "/etc/../etc/motd",
            # These are sent by other ways, and to others.
            pathutils.CLUSTER_CONF_FILE,
            pathutils.NODED_CERT_FILE,
        ]
        files.write(pathutils.ANCILLARY_LIST_FILE, "\n".join(listed).encode())
        files.write(motd, b"x")
        files.write(pathutils.NODED_CERT_FILE, b"x")
        obj = world.cfg.GetClusterInfo()
        obj.modify_etc_hosts = True
        # The list comes first: nodes take nothing that is not in their copy of it.
        assert ancillary.GetAncillaryFiles(obj, [], world.runtime) == [
            pathutils.ANCILLARY_LIST_FILE,
            *sorted(
                [pathutils.RAPI_CERT_FILE, pathutils.CONFD_HMAC_KEY, pathutils.ETC_HOSTS, motd]
            ),
        ]
        obj.modify_etc_hosts = False
        assert pathutils.ETC_HOSTS not in ancillary.GetAncillaryFiles(obj, [], world.runtime)

    def test_vnc_password_files(self, world):
        """PR2: those of the cluster, of an OS and of every instance."""
        obj = world.cfg.GetClusterInfo()
        obj.enabled_hypervisors = ["kvm"]
        obj.hvparams["kvm"]["vnc_password_file"] = "/etc/ganeti/vnc-all"
        obj.os_hvp = {"noop": {"kvm": {"vnc_password_file": "/etc/ganeti/vnc-noop"}}}
        instance = config_fake.NewInstance(
            "inst1.example.com",
            NODE1,
            hypervisor="kvm",
            hvparams={"vnc_password_file": "/etc/ganeti/vnc-inst1"},
        )
        names = ("all", "inst1", "noop")
        paths = [pathutils.LocalPath(f"/etc/ganeti/vnc-{name}") for name in names]
        for path in paths:
            world.runtime.files.write(path, b"x")
        assert ancillary.GetAncillaryFiles(obj, [instance], world.runtime) == paths

    def test_unreadable_file(self, world, monkeypatch):
        def Upload(names, path, address_list=None):
            raise IsADirectoryError(21, "Is a directory", path)

        world.runtime.files.write(pathutils.CONFD_HMAC_KEY, b"x")
        monkeypatch.setattr(world.rpc, "call_upload_file", Upload)
        world.Run(opcodes.OpClusterRedistConf())
        assert any("Is a directory" in line for line in world.log)

    def test_redistribute(self, world):
        world.runtime.files.write(pathutils.CONFD_HMAC_KEY, b"x")
        world.rpc.Fail("upload_file", "disk full")
        world.Run(opcodes.OpClusterRedistConf())
        assert ("upload_file", NODE2) in world.rpc.calls
        assert ("upload_file", NODE1) not in world.rpc.calls
        assert any("disk full" in line for line in world.log)


class TestTells:
    def test_cluster_query(self, world):
        info = world.Run(opcodes.OpClusterQuery())
        assert info["name"] == config_fake.CLUSTER_NAME
        assert info["protocol_version"] == constants.PROTOCOL_VERSION
        assert info["default_hypervisor"] == "fake"
        assert list(info["hvparams"]) == ["fake"]

    def test_config_values(self, world):
        op = opcodes.OpClusterConfigQuery(output_fields=["master_node", "drain_flag"])
        assert world.Run(op) == [NODE1, False]
        with pytest.raises(errors.OpPrereqError, match="nosuch"):
            world.Run(opcodes.OpClusterConfigQuery(output_fields=["nosuch"]))

    def test_oses(self, world):
        world.rpc.nodes[NODE2].oses = {"noop": ["other"], "extra": []}
        op = opcodes.OpOsDiagnose(output_fields=["name", "valid", "variants"], names=[])
        assert world.Run(op) == [["extra", False, []], ["noop", True, ["other"]]]
        world.rpc.Cut(NODE1)
        op = opcodes.OpOsDiagnose(output_fields=["name", "valid"], names=[])
        assert world.Run(op) == [["extra", True], ["noop", True]]
        with pytest.raises(errors.OpPrereqError):
            world.Run(opcodes.OpOsDiagnose(output_fields=["name"], names=["noop"]))

    def test_os_map(self):
        found = query.MapOses(
            {"n1": [["a", "/x/a", True, "", ["v"]], ["a", "/y/a", False, "bad", []]], "n2": []}
        )
        assert found == {
            "a": {"n1": [["/x/a", True, "", ["v"]], ["/y/a", False, "bad", []]], "n2": []}
        }
        assert not query.IsValidOs(found["a"])
