"""Creating instances of all kinds: what is decided, what nodes are asked, what is stored."""

import dataclasses
import os
import re

import createworld as cw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import cmdlib, constants, errors, mcpu, objects, opcodes, rpc_defs, serializer
from ganeti.cmdlib import create_import, create_plan, fakedisks
from ganeti.iallocator import fake as iallocator_fake


def Refused(world, op, code, *fragments):
    before = cw.Objects(world), cw.OnNodes(world)
    with pytest.raises(errors.OpPrereqError) as caught:
        world.Run(op)
    text, found = caught.value.args
    assert found == code, text
    for fragment in fragments:
        assert fragment in text
    assert (cw.Objects(world), cw.OnNodes(world)) == before
    cw.CheckNothingLeaks(world)


def Describe(world, **values):
    """Let the export be another one."""
    export = dataclasses.replace(cw.EXPORT, **values)
    world.rpc.nodes[cw.NODE3].descriptions[cw.EXPORT_DIR] = objects.FormatExport(export)


class TestTemplates:
    """BASE1: what instances of each disk template are made of."""

    def test_plain(self):
        world = cw.NewWorld()
        assert world.Run(cw.NewOp("plain")) == [cw.NODE2]
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        for index, disk in enumerate(instance.disks):
            vg_name, name = disk.logical_id
            assert (vg_name, disk.dev_type) == ("xenvg", constants.LD_LV)
            assert name.endswith(f".disk{index}")
            assert disk.iv_name == f"disk/{index}"
        assert [disk.size for disk in instance.disks] == [16, 32]
        assert instance.admin_up
        cw.CheckDisksFit(world)

    def test_drbd(self):
        world = cw.NewWorld()
        assert world.Run(cw.NewOp("drbd")) == [cw.NODE2, cw.NODE3]
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert instance.secondary_nodes == [cw.NODE3]
        assert instance.network_port == 11000
        ids = [disk.logical_id for disk in instance.disks]
        assert [one[:5] for one in ids] == [
            (cw.NODE2, cw.NODE3, 11001, 0, 0),
            (cw.NODE2, cw.NODE3, 11002, 1, 1),
        ]
        assert len({one[5] for one in ids}) == 2
        for index, disk in enumerate(instance.disks):
            data, meta = disk.children
            stem = data.logical_id[1].removesuffix("_data")
            assert stem.endswith(f".disk{index}")
            assert meta.logical_id[1] == f"{stem}_meta"
            assert (data.size, meta.size) == (disk.size, constants.DRBD_META_SIZE)
            assert data.iv_name is None
        assert (
            instance.disks[0].children[0].logical_id[1].split(".")[0]
            != (instance.disks[1].children[0].logical_id[1].split(".")[0])
        )
        node = world.rpc.nodes[cw.NODE2]
        assert node.running == {cw.NAME: 128}
        assert all(device.primary for device in node.drbd.values())
        assert not any(device.primary for device in world.rpc.nodes[cw.NODE3].drbd.values())

    def test_minors_are_the_lowest_free_ones(self):
        world = cw.NewWorld(cw.Create(disk_template="drbd", snode=cw.NODE3))
        other = cw.Create(
            instance_name="other.example.com",
            primary=cw.NODE1,
            disk_template="drbd",
            snode=cw.NODE2,
            disks=[{"size": 8}],
        )
        world.Run(other)
        (disk,) = world.cfg.GetInstanceInfo("other.example.com").disks
        assert disk.logical_id[:5] == (cw.NODE1, cw.NODE2, 11004, 0, 2)

    def test_sharedfile(self):
        world = cw.NewWorld()
        world.Run(cw.Create(disk_template="sharedfile", file_storage_dir="web"))
        disk = world.cfg.GetInstanceInfo(cw.NAME).disks[0]
        assert disk.logical_id[1] == f"{fakedisks.SHARED_DIR}/web/{cw.NAME}/disk0"
        assert disk.logical_id[1] in world.rpc.shared.disks

    def test_without_volume_group(self):
        world = cw.NewWorld()
        world.cfg.SetVGName(None)
        Refused(world, cw.NewOp("plain"), errors.ECODE_STATE, "volume group", "'plain'")

    def test_no_space(self):
        """A mirror takes its metadata, too."""
        world = cw.NewWorld()
        needed = 50000 - constants.DRBD_META_SIZE
        op = cw.Create(disk_template="drbd", snode=cw.NODE3, disks=[{"size": needed + 4}])
        Refused(world, op, errors.ECODE_NORES, "50004", "50000")
        world.Run(cw.Create(disk_template="drbd", snode=cw.NODE3, disks=[{"size": needed}]))

    def test_not_started_means_no_active_mirrors(self):
        world = cw.NewWorld(cw.NewOp("stopped"))
        for node in (cw.NODE2, cw.NODE3):
            assert world.rpc.nodes[node].active == set()
            assert all(device.network is None for device in world.rpc.nodes[node].drbd.values())

    def test_hasty(self):
        """Nobody waits for the end of the synchronisation, but it has to begin."""
        world = cw.NewWorld()
        start = world.runtime.clock.monotonic()

        def Sync(call, node):
            for device in world.rpc.nodes[cw.NODE2].drbd.values():
                device.sync_percent, device.degraded = 12.5, True

        world.rpc.before_call = Sync
        world.Run(cw.NewOp("hasty"))
        assert 15 <= world.runtime.clock.monotonic() - start < 60
        assert "* checking mirrors status" in world.log
        assert any("12.50% done" in line for line in world.log)
        assert world.cfg.GetInstanceInfo(cw.NAME).admin_up

    def test_waits_for_the_mirrors(self):
        world = cw.NewWorld()
        asked = []

        def Sync(call, node):
            if call == "blockdev_getmirrorstatus":
                asked.append(call)
            percent = 25.0 * len(asked) if len(asked) < 4 else None
            for device in world.rpc.nodes[cw.NODE2].drbd.values():
                device.sync_percent = percent

        world.rpc.before_call = Sync
        world.Run(cw.NewOp("drbd"))
        shown = [line for line in world.log if "% done" in line and "disk/1" in line]
        assert [line.split("% done")[0].split()[-1] for line in shown] == [
            "25.00",
            "50.00",
            "75.00",
        ]
        assert any("disks are in sync" in line for line in world.log)


class TestNodes:
    def test_secondary(self):
        world = cw.NewWorld()
        drbd = {"disk_template": "drbd"}
        Refused(world, cw.Create(**drbd, snode=cw.NODE2), errors.ECODE_INVAL, cw.NODE2)
        Refused(world, cw.Create(**drbd, snode="node9"), errors.ECODE_NOENT, "node9")
        for flag in ("offline", "drained"):
            world = cw.NewWorld()
            node = world.cfg.GetNodeInfo(cw.NODE3)
            setattr(node, flag, True)
            node.master_candidate = False
            world.cfg.Update(node, None)
            Refused(world, cw.NewOp("drbd"), errors.ECODE_INVAL, cw.NODE3, flag, "secondary")

    def test_secondary_that_is_of_no_use(self):
        world = cw.NewWorld()
        assert world.Run(cw.Create(snode=cw.NODE3)) == [cw.NODE2]
        assert [line for line in world.log if "ignored" in line and cw.NODE3 in line]

    def test_hypervisor_is_asked_on_both(self):
        world = cw.NewWorld()
        world.rpc.Fail("hypervisor_validate_params", "no kvm here", nodes=[cw.NODE3])
        Refused(world, cw.NewOp("drbd"), errors.ECODE_ENVIRON, cw.NODE3, "no kvm here")

    def test_names_of_operating_systems(self):
        Refused(cw.NewWorld(), cw.Create(os_type="../x"), errors.ECODE_INVAL, "os_type", "../x")


class TestAllocator:
    """Allocators choose the nodes; the cluster has some for when none is named."""

    def test_named(self):
        world = cw.NewWorld()
        assert world.Run(cw.NewOp("allocated")) == [cw.NODE1, cw.NODE2]
        (name, text), *rest = world.rpc.allocations
        assert (name, rest) == ("simple", [])
        request = serializer.Load(text)["request"]
        assert request["name"] == cw.NAME
        assert request["required_nodes"] == 2
        assert request["disks"] == [{"size": 16, "mode": "rw"}, {"size": 32, "mode": "rw"}]
        assert request["hypervisor"] == "kvm"
        # Allocators and hooks see the address that it gets.
        mac = world.cfg.GetInstanceInfo(cw.NAME).nics[0].mac
        assert request["nics"][0]["mac"] == mac
        env = world.rpc.hooks[0][3]
        assert env["GANETI_INSTANCE_NIC0_MAC"] == mac
        assert env["GANETI_INSTANCE_PRIMARY"] == cw.NODE1
        assert env["GANETI_INSTANCE_SECONDARIES"] == cw.NODE2

    def test_default(self):
        world = cw.NewWorld()
        cluster = world.cfg.GetClusterInfo()
        cluster.default_iallocator = {"allocate": ["broken", "simple"]}
        world.cfg.Update(cluster, None)
        world.rpc.allocators["broken"] = iallocator_fake.Fail("no such thing")
        op = cw.Create(pnode=None, disk_template="diskless", disks=[])
        assert world.Run(op) == [cw.NODE1]
        assert any("no such thing" in line for line in world.log)

    def test_all_nodes_are_locked(self):
        world = cw.NewWorld()
        op = cw.NewOp("allocated")
        op.dry_run = True
        world.Run(op)
        assert any("all 3 nodes (exclusive)" in line for line in world.log)

    @pytest.mark.parametrize(
        ("answer", "error", "fragment"),
        [
            (iallocator_fake.Refuse("all full"), errors.OpPrereqError, "all full"),
            (iallocator_fake.Answer([cw.NODE1]), errors.OpPrereqError, "needs 2"),
            (iallocator_fake.Answer([cw.NODE1] * 2), errors.OpExecError, "twice"),
            (iallocator_fake.Answer([cw.NODE1, "x"]), errors.OpExecError, "'x'"),
            (iallocator_fake.Fail("crashed"), errors.OpExecError, "crashed"),
        ],
    )
    def test_bad_answers(self, answer, error, fragment):
        world = cw.NewWorld()
        before = cw.Objects(world), cw.OnNodes(world)
        world.rpc.allocators["simple"] = answer
        with pytest.raises(error, match=fragment):
            world.Run(cw.NewOp("allocated"))
        assert (cw.Objects(world), cw.OnNodes(world)) == before
        cw.CheckNothingLeaks(world)


class TestAdoption:
    """Volumes that exist become the disks of an instance, with all that is on them."""

    def test_adopted(self):
        world = cw.NewWorld()
        world.Run(cw.NewOp("adoption"))
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert [disk.size for disk in instance.disks] == [512, 1024]
        assert [disk.mode for disk in instance.disks] == ["rw", "ro"]
        made = [call for call, _ in world.rpc.calls]
        assert "blockdev_create" not in made
        assert "instance_os_add" not in made
        node = world.rpc.nodes[cw.NODE2]
        assert node.disks == {f"xenvg/{disk.logical_id[1]}" for disk in instance.disks}
        assert node.running == {cw.NAME: 128}

    @pytest.mark.parametrize(
        ("disks", "code", "fragments"),
        [
            ([{"adopt": "old0", "size": 0}] * 2, errors.ECODE_INVAL, ["old0", "once"]),
            ([{"adopt": "nosuch", "size": 0}], errors.ECODE_INVAL, ["nosuch", "xenvg"]),
            ([{"adopt": "../old0", "size": 0}], errors.ECODE_INVAL, ["../old0"]),
            ([{"adopt": "old0"}], errors.ECODE_INVAL, ["disk/0", "size"]),
            ([{"adopt": "old0", "size": -4}], errors.ECODE_INVAL, ["disk/0", "size"]),
        ],
    )
    def test_refused(self, disks, code, fragments):
        op = cw.Create(disk_template="plain", disks=disks)
        Refused(cw.NewWorld(), op, code, *fragments)

    def test_volume_of_an_instance(self):
        world = cw.NewWorld(cw.NewOp("plain"))
        name = world.cfg.GetInstanceInfo(cw.NAME).disks[0].logical_id[1]
        op = cw.Create(
            instance_name="other.example.com",
            disk_template="plain",
            disks=[{"adopt": name, "size": 0}],
        )
        Refused(world, op, errors.ECODE_NOTUNIQUE, name, cw.NAME)

    def test_volume_in_use(self):
        world = cw.NewWorld()
        world.rpc.nodes[cw.NODE2].drbd["drbd7"] = fakedisks.FakeDrbd(["xenvg/old1"])
        Refused(world, cw.NewOp("adoption"), errors.ECODE_STATE, "old1", cw.NODE2)

    def test_dry_run(self):
        world = cw.NewWorld()
        op = cw.NewOp("adoption")
        op.dry_run = True
        world.Run(op)
        assert f"    on {cw.NODE2}: take over old0, old1 as disk/0, disk/1" in world.log


class TestImport:
    """Instances of exports, with what is not said taken from their descriptions."""

    def test_all_from_the_export(self):
        world = cw.NewWorld()
        op = cw.NewOp("import")
        op.start = True
        assert world.Run(op) == [cw.NODE2, cw.NODE3]
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        # Also a variant that the node does not list.
        assert (instance.os, instance.disk_template) == ("noop+gone", "drbd")
        assert [disk.size for disk in instance.disks] == [16, 32]
        assert instance.beparams == {"memory": 256, "vcpus": 2, "auto_balance": True}
        assert instance.hvparams == {"kernel_path": "", "kernel_args": "rate=50%"}
        assert instance.nics[0].mac == "aa:00:00:01:02:03"
        assert instance.nics[0].nicparams == {"mode": "bridged", "link": "xen-br0"}
        assert instance.nics[1].ip == "192.0.2.77"
        assert instance.nics[1].mac.startswith("aa:00:00:")
        images = [f"{cw.EXPORT_DIR}/a.snap", f"{cw.EXPORT_DIR}/b.snap"]
        assert world.rpc.nodes[cw.NODE2].imports == [(cw.NAME, cw.NODE3, images)]
        assert world.rpc.nodes[cw.NODE2].scripts == []
        assert instance.admin_up
        env = world.rpc.hooks[0][3]
        assert env["GANETI_ADD_MODE"] == "import"
        assert env["GANETI_SRC_NODE"] == cw.NODE3
        assert env["GANETI_SRC_PATH"] == cw.EXPORT_DIR
        assert "a.snap" in env["GANETI_SRC_IMAGES"]

    def test_what_is_said_wins(self):
        world = cw.NewWorld()
        op = cw.Import(
            disk_template="plain",
            snode=None,
            disks=[{"size": 64}, {"size": 64}, {"size": 8}],
            nics=[{"mac": "aa:00:00:09:09:09"}, {}],
            beparams={"memory": 512},
        )
        world.Run(op)
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert instance.disk_template == "plain"
        assert [disk.size for disk in instance.disks] == [64, 64, 8]
        assert instance.beparams["memory"] == 512
        assert instance.beparams["vcpus"] == 2
        assert instance.nics[0].mac == "aa:00:00:09:09:09"
        # The export has none for its second one.
        assert instance.nics[1].mac != "aa:00:00:01:02:03"
        assert len(world.rpc.nodes[cw.NODE2].imports[0][2]) == 2

    def test_macs_are_kept_by_the_same_name_only(self):
        world = cw.NewWorld()
        world.Run(cw.Import(nics=[{}, {}, {}]))
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert instance.nics[0].mac == "aa:00:00:01:02:03"
        assert len({nic.mac for nic in instance.nics}) == 3
        copy = cw.Import(instance_name="copy.example.com", src_path=cw.NAME, nics=[{}])
        world.Run(copy)
        assert world.cfg.GetInstanceInfo("copy.example.com").nics[0].mac != "aa:00:00:01:02:03"

    def test_copy_beside_the_original(self):
        world = cw.NewWorld(cw.NewOp("import"))
        copy = cw.Import(instance_name="copy.example.com", src_path=cw.NAME)
        Refused(world, copy, errors.ECODE_NOTUNIQUE, "aa:00:00:01:02:03")

    def test_identify_defaults(self):
        world = cw.NewWorld()
        Describe(world, beparams={"memory": "128", "vcpus": "2"})
        world.Run(cw.Import(identify_defaults=True))
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert instance.beparams == {"vcpus": 2}
        assert instance.nics[0].nicparams == {}

    def test_other_hypervisor(self):
        world = cw.NewWorld()
        world.Run(cw.Import(hypervisor="fake", hvparams={}))
        instance = world.cfg.GetInstanceInfo(cw.NAME)
        assert instance.hypervisor == "fake"
        assert "kernel_args" not in instance.hvparams
        assert any("not taken over" in line for line in world.log)

    def test_parameters_of_other_versions(self):
        world = cw.NewWorld()
        Describe(world, hvparams={"of_later": "1", "migration_port": "8102"})
        world.Run(cw.NewOp("import"))
        assert world.cfg.GetInstanceInfo(cw.NAME).hvparams == {"kernel_path": ""}
        assert any("of_later" in line for line in world.log)

    def test_found(self):
        world = cw.NewWorld()
        world.Run(cw.NewOp("import-found"))
        assert world.rpc.nodes[cw.NODE2].imports[0][1] == cw.NODE3

    def test_failed_import_is_not_started(self):
        world = cw.NewWorld()
        world.rpc.Fail("instance_os_import", "gzip: unexpected end")
        op = cw.NewOp("import")
        op.start = True
        world.Run(op)
        assert world.cfg.GetInstanceInfo(cw.NAME).admin_up is False
        assert world.rpc.nodes[cw.NODE2].active == set()
        assert any("unexpected end" in line for line in world.log)

    def test_secondary_of_the_exports_template(self):
        """Whether there is one is known only when the export was read."""
        world = cw.NewWorld()
        Refused(world, cw.Import(snode=None), errors.ECODE_INVAL, "snode", "drbd")
        Describe(world, disk_template="plain")
        assert world.Run(cw.Import()) == [cw.NODE2]
        assert any("ignored" in line for line in world.log)

    @pytest.mark.parametrize(
        ("values", "code", "fragments"),
        [
            ({"disk_template": None}, errors.ECODE_INVAL, ["disk_template"]),
            ({"disks": None}, errors.ECODE_INVAL, ["disks"]),
            ({"os": "../x"}, errors.ECODE_INVAL, ["../x"]),
            ({"hypervisor": "xen-pvm"}, errors.ECODE_STATE, ["xen-pvm"]),
            ({"hvparams": {"acpi": "maybe"}}, errors.ECODE_INVAL, ["maybe"]),
            ({"beparams": {"memory": "lots"}}, errors.ECODE_INVAL, ["lots"]),
            ({"nics": ({"mac": "zz"},)}, errors.ECODE_INVAL, ["nic/0", "zz"]),
            ({"disk_template": "tape"}, errors.ECODE_INVAL, ["'tape'"]),
        ],
    )
    def test_bad_exports(self, values, code, fragments):
        world = cw.NewWorld()
        Describe(world, **values)
        Refused(world, cw.NewOp("import"), code, *fragments)

    @pytest.mark.parametrize(
        ("values", "code", "fragments"),
        [
            ({"disks": [{"size": 8}]}, errors.ECODE_INVAL, ["2", "1"]),
            ({"src_path": "/abs", "src_node": None}, errors.ECODE_INVAL, ["/abs", "src_node"]),
            ({"src_path": "../../etc"}, errors.ECODE_INVAL, ["../../etc"]),
            ({"src_path": "nosuch", "src_node": None}, errors.ECODE_INVAL, ["'nosuch'"]),
            ({"src_node": "node9"}, errors.ECODE_NOENT, ["node9"]),
            (
                {"disks": [{"size": 8, "adopt": "old0"}], "disk_template": "plain"},
                errors.ECODE_INVAL,
                ["import"],
            ),
        ],
    )
    def test_bad_requests(self, values, code, fragments):
        op = cw.Import(**{"src_node": cw.NODE3, **values})
        Refused(cw.NewWorld(), op, code, *fragments)

    def test_node_without_the_export(self):
        world = cw.NewWorld()
        with pytest.raises(errors.OpExecError, match="No description"):
            world.Run(cw.Import(src_node=cw.NODE1))
        cw.CheckNothingLeaks(world)

    def test_dry_run(self):
        world = cw.NewWorld()
        op = cw.NewOp("import")
        op.dry_run = True
        world.Run(op)
        for line in (
            "    cluster: 3 ports are taken for it",
            f"    instance {cw.NAME}: nic/0 with mac=aa:00:00:01:02:03, ip=none, mode=bridged,"
            " link=xen-br0",
            f"    on {cw.NODE2}, {cw.NODE3}: create disk/0, disk/1",
            f"    on {cw.NODE2}: import disk/0, disk/1 from {cw.EXPORT_DIR} on {cw.NODE3}",
        ):
            assert line in world.log

    def test_only_the_node_of_the_export_stays_locked(self):
        world = cw.NewWorld()
        held = []

        def Look(call, _):
            if call == "instance_os_import":
                held.extend(
                    info["name"] for info in world.master.glm.GetLockInfo() if info["owners"]
                )

        world.rpc.before_call = Look
        world.Run(cw.NewOp("import-found"))
        assert any(cw.NODE3 in name for name in held)
        assert not any(cw.NODE2 in name for name in held)


def Announced(report):
    """What the report of a dry run announces: objects, and nodes on which something is done."""
    targets, nodes = set(), set()
    for line in report:
        match = re.fullmatch(r"    (?:(cluster|(?:node|instance) \S+)|on ([^:]+)): .*", line)
        if match and match[1]:
            targets.add(match[1])
        elif match:
            nodes |= set(match[2].split(", "))
    return targets, nodes


class TestDryRun:
    """What is announced is done: to these objects, on these nodes, and to no others."""

    @pytest.mark.parametrize("kind", cw.KINDS)
    def test_does_what_was_announced(self, kind):
        world = cw.NewWorld()
        before = cw.Objects(world), cw.OnNodes(world)
        op = cw.NewOp(kind)
        op.dry_run = True
        ports = world.cfg.GetClusterInfo().highest_used_port
        expected = world.Run(op)
        assert (cw.Objects(world), cw.OnNodes(world)) == before
        cw.CheckNothingLeaks(world)
        targets, nodes = Announced(world.log)
        looks = {call.name for call in rpc_defs.CALLS.values() if call.read_only}
        world.rpc.calls.clear()
        assert world.Run(cw.NewOp(kind)) == expected
        assert targets == {"cluster", f"instance {cw.NAME}"}
        assert world.cfg.GetClusterInfo().highest_used_port > ports
        worked = {node for call, node in world.rpc.calls if call not in {*looks, "hooks_runner"}}
        assert worked == nodes


#: Pairs of mistakes: the first one is told. In the order in which arguments are checked.
MISTAKES = [
    ({"instance_name": "a/b"}, "a/b"),
    ({"ip_check": True, "name_check": False}, "ip_check"),
    ({"nics": [{"speed": "1"}]}, "speed"),
    ({"disks": [{"adopt": "x", "size": 1}, {"size": 1}], "disk_template": "plain"}, "adopted"),
    ({"file_storage_dir": "/abs"}, "/abs"),
    ({"iallocator": "hail"}, "not both"),
    ({"os_type": None}, "os_type"),
]


class TestArguments:
    @pytest.mark.parametrize("first", range(len(MISTAKES)))
    def test_order(self, first):
        """The earliest of several mistakes is the one that is told."""
        values = {}
        for mistake, _ in reversed(MISTAKES[first:]):
            values.update(mistake)
        op = cw.Create(**values)
        Refused(cw.NewWorld(), op, errors.ECODE_INVAL, MISTAKES[first][1])

    def test_neither_node_nor_allocator(self):
        Refused(cw.NewWorld(), cw.Create(pnode=None), errors.ECODE_INVAL, "primary node")
        adopting = cw.NewOp("adoption")
        adopting.pnode = None
        Refused(cw.NewWorld(), adopting, errors.ECODE_INVAL, "pnode")

    @pytest.mark.parametrize(
        ("disks", "template", "allocator", "mode", "fragment"),
        [
            ([{"adopt": "a"}, {}], "plain", None, "create", "some"),
            ([{"adopt": "a"}], "drbd", None, "create", "drbd"),
            ([{"adopt": "a"}], None, None, "create", "None"),
            ([{"adopt": "a"}], "plain", "hail", "create", "allocator"),
            ([{"adopt": "a"}], "plain", None, "import", "import"),
        ],
    )
    def test_adoption(self, disks, template, allocator, mode, fragment):
        with pytest.raises(errors.OpPrereqError, match=fragment):
            create_plan.CheckAdoption(disks, template, allocator, mode)

    def test_is_checked_again(self):
        """A unit is made anew for each attempt to get its locks."""
        world = cw.NewWorld()
        for kind in cw.KINDS:
            op = cw.NewOp(kind)
            op.Validate(True)
            states = []
            for _ in range(2):
                unit = MakeUnit(world, op)
                unit.ExpandNames()
                states.append((op.__getstate__(), unit.needed_locks, unit.add_locks))
            assert states[0] == states[1]


def MakeUnit(world, op):
    processor = mcpu.Processor(world.master, "1")
    processor._cbs = mcpu.OpExecCbBase()
    return cmdlib.LOGICAL_UNITS[opcodes.OpInstanceCreate](processor, op, world.master, world.rpc)


VALUES = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2))


class TestProperties:
    @given(VALUES, VALUES)
    def test_dropped_defaults_change_nothing(self, values, defaults):
        kept = create_plan.DropDefaults(values, defaults)
        assert objects.FillDict(defaults, kept) == objects.FillDict(defaults, values)
        assert all(kept[key] != defaults.get(key) for key in kept)

    @given(st.none() | st.text(st.sampled_from("a/.~ "), max_size=12), st.booleans())
    def test_exports_are_below_their_directory(self, path, known):
        node, top = ("node", "/srv/export") if known else (None, "/srv/export")
        try:
            found = create_import.CheckSourcePath(path, node, "name", top)
        except errors.OpPrereqError:
            assert path
            return
        whole = os.path.normpath(os.path.join(top, found))
        assert found == whole or not os.path.isabs(found)
        if not (path or "").startswith("/"):
            assert whole.startswith(top + "/")
            assert os.path.isabs(found) is known
        else:
            assert known

    @given(
        st.dictionaries(
            st.sampled_from(["n1", "n2", "n3"]),
            st.none() | st.lists(st.sampled_from(["x", "y"])),
        )
    )
    def test_an_export_is_found_where_one_is(self, listed):
        having = sorted(node for node, names in listed.items() if names and "x" in names)
        if having:
            assert create_import.FindExport(listed, "x") == having[0]
        else:
            with pytest.raises(errors.OpPrereqError) as caught:
                create_import.FindExport(listed, "x")
            for node, names in listed.items():
                assert (node in caught.value.args[0]) is (names is None)

    @given(st.lists(st.integers(-8, 2000), max_size=20), st.booleans())
    def test_disk_sizes(self, sizes, adopting):
        low = 0 if adopting else 1
        try:
            disks = create_plan.CheckDiskSettings(
                [{"size": size} for size in sizes], adopting=adopting
            )
        except errors.OpPrereqError:
            assert len(sizes) > constants.MAX_DISKS or any(size < low for size in sizes)
            return
        for disk, size in zip(disks, sizes, strict=True):
            assert size >= low
            assert disk["size"] % 4 == 0
            assert size <= disk["size"] < size + 4
            assert disk["mode"] == "rw"

    def test_images(self):
        export = objects.Export(
            os="x", disks=(objects.ExportedDisk(8, None), objects.ExportedDisk(8, "b"))
        )
        assert create_import.ListImages(export, "/e/x") == [False, "/e/x/b"]
        request = create_import.FillRequest(cw.Import(disk_template="plain"), export)[0]
        assert [disk["size"] for disk in request.disks] == [8, 8]

    def test_unknown_size(self):
        export = objects.Export(
            os="x", disks=(objects.ExportedDisk(None, None), objects.ExportedDisk(8, "b"))
        )
        with pytest.raises(errors.OpPrereqError, match="disk/0"):
            create_import.FillRequest(cw.Import(disk_template="plain"), export)


class TestEffort:
    """What a creation costs: many of them are made at once."""

    def Count(self, **values):
        world = cw.NewWorld()
        op = cw.Create(disk_template="diskless", disks=[], hypervisor="fake", hvparams={}, **values)
        world.rpc.calls.clear()
        writes = world.cfg.write_count
        world.Run(op)
        calls = [call for call, _ in world.rpc.calls if call != "hooks_runner"]
        return calls, world.cfg.write_count - writes

    def test_diskless(self):
        calls, writes = self.Count(nics=[])
        assert calls == ["hypervisor_validate_params", "os_get", "node_info", "instance_start"]
        assert writes == 1

    def test_with_nic(self):
        calls, _ = self.Count()
        assert calls.count("bridges_exist") == 1
        assert len(calls) == 5

    def test_not_started(self):
        calls, writes = self.Count(nics=[], start=False)
        assert calls == ["hypervisor_validate_params", "os_get"]
        assert writes == 1

    @pytest.mark.parametrize(("kind", "mode"), [("diskless", "shared"), ("file", "exclusive")])
    def test_locks(self, kind, mode):
        """Diskless instances take nothing of their node, and are made there at the same time."""
        world = cw.NewWorld()
        op = cw.NewOp(kind)
        op.dry_run = True
        world.Run(op)
        assert any(f"node {cw.NODE2} ({mode})" in line for line in world.log)

    @pytest.mark.parametrize("kind", ["diskless", "file"])
    def test_serial_number(self, kind):
        """Added, then marked to be up: it shows, even if that was a single write."""
        world = cw.NewWorld(cw.NewOp(kind))
        assert world.cfg.GetInstanceInfo(cw.NAME).serial_no == 2
        world.Run(opcodes.OpInstanceShutdown(instance_name=cw.NAME))
        assert world.cfg.GetInstanceInfo(cw.NAME).serial_no == 3

    def test_fails_to_start(self):
        """It is marked up from the beginning, as the user wants it to run."""
        world = cw.NewWorld()
        world.rpc.Fail("instance_start", "no kernel")
        with pytest.raises(errors.OpExecError, match="no kernel"):
            world.Run(cw.NewOp("diskless"))
        assert world.cfg.GetInstanceInfo(cw.NAME).admin_up is True
