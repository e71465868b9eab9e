"""Logical volumes and storage units of LVM, on captured reports and recorded commands (SU1-SU3)."""

import fnmatch
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, pathutils, storage
from ganeti.runtime import fake
from ganeti.storage import logicalvolume, units
from ganeti.storage.logicalvolume import LogicalVolume
from ganeti.utils import lvm

CAPTURED = Path(__file__).resolve().parents[1] / "data/lvm"
EVERY = ["name", "size", "used", "free", "allocatable"]
ID = ("xenvg", "inst1.disk0")


def _Captured(name):
    return (CAPTURED / f"{name}.json").read_text()


class _Lvm(fake.FakeProcesses):
    """Programs of LVM: answers by the name of the program, and what was done with them."""

    def Lists(self, situation):
        for kind in ("pvs", "vgs", "lvs"):
            path = CAPTURED / situation / f"{kind}.json"
            if path.exists():
                self.Answer(f"{kind} *", path.read_text())

    def Volume(self, name):
        """The volume that is looked for is there."""
        self.Answer("lvs * /dev/*", _Captured(name))

    @property
    def done(self):
        """Commands that change something."""
        argvs = [" ".join(call.argv) for call in self.calls]
        return [argv for argv in argvs if argv.split()[0] not in ("pvs", "vgs", "lvs")]

    def Count(self, pattern):
        return sum(fnmatch.fnmatchcase(" ".join(call.argv), pattern) for call in self.calls)


@pytest.fixture
def world():
    os.makedirs(pathutils.LVM_SYSTEM_DIR)
    return _Lvm()


@pytest.fixture
def rt(world):
    return fake.NewRuntime(processes=world)


def _Volume(rt, name="host/volumes/lv-inst1.disk0", unique_id=ID):
    rt.processes.Volume(name)
    volume = LogicalVolume(unique_id, [], 100, rt)
    assert volume.attached
    return volume


NOT_THERE = dict(code=5, stderr='  Failed to find logical volume "xenvg/inst1.disk0"\n')


class TestAttach:
    """One command tells whether a volume is there and all that is needed of it."""

    def test_inactive(self, rt):
        volume = _Volume(rt)
        assert (volume.major, volume.minor) == (None, None)
        assert (volume.extent_size, volume.stripes) == (4, 1)
        assert volume.dev_path == "/dev/xenvg/inst1.disk0"
        assert len(rt.processes.calls) == 1
        assert rt.processes.calls[0].argv[-1] == "/dev/xenvg/inst1.disk0"

    def test_striped(self, rt):
        assert _Volume(rt, "host/volumes/lv-inst2.disk0").stripes == 2

    def test_active(self, rt):
        volume = _Volume(rt, "guest/active/lv-inst1.disk0")
        # What "lvs" said of it; dm has a dynamic major number.
        assert volume.major > 0
        assert volume.minor >= 0
        status = volume.GetSyncStatus()
        assert (status.major, status.minor) == (volume.major, volume.minor)
        assert status.ldisk_status == constants.LDS_OKAY
        assert status.is_degraded is False
        assert status.sync_percent is None

    @pytest.mark.parametrize("kind", ["inst3.disk0", "inst3.disk0.snap", "raid"])
    def test_origins_snapshots_and_raid_are_in_order(self, rt, kind):
        volume = _Volume(rt, f"guest/active/lv-{kind}")
        assert volume.GetSyncStatus().ldisk_status == constants.LDS_OKAY

    @pytest.mark.parametrize(
        "name",
        [
            "host/missing/lv-inst1.disk0",
            "host/missing/lv-inst3.disk0",
            "guest/missing/lv-inst1.disk0",
        ],
    )
    def test_with_a_lost_device_it_is_faulty(self, rt, name):
        status = _Volume(rt, name).CombinedSyncStatus()
        assert status.ldisk_status == constants.LDS_FAULTY
        assert status.is_degraded is True

    def test_raid_survives_a_lost_device(self, rt):
        status = _Volume(rt, "guest/missing/lv-raid").GetSyncStatus()
        assert status.ldisk_status == constants.LDS_OKAY

    def test_missing(self, rt):
        rt.processes.Answer("lvs *", _Captured("host/empty/lvs-all"), **NOT_THERE)
        volume = LogicalVolume(ID, [], 100, rt)
        assert not volume.attached
        assert volume.dev_path == "/dev/xenvg/inst1.disk0"
        with pytest.raises(errors.BlockDeviceError, match="not there"):
            volume.Grow(5)

    def test_last_segment_counts(self, rt):
        rows = [
            {"lv_attr": "-wi-a-----", "lv_kernel_major": "253", "lv_kernel_minor": "0",
             "vg_extent_size": "4194304", "stripes": stripes}
            for stripes in ("1", "2")
        ]  # fmt: skip
        rt.processes.Answer("lvs *", str({"report": [{"lv": rows}]}).replace("'", '"'))
        assert LogicalVolume(ID, [], 100, rt).stripes == 2

    @pytest.mark.parametrize(
        ("field", "value"),
        [("lv_attr", "-wi-a"), ("lv_attr", ""), ("lv_kernel_minor", "x"), ("stripes", ""),
         ("vg_extent_size", "4m")],
    )  # fmt: skip
    def test_odd_values(self, rt, caplog, field, value):
        record = {
            "lv_attr": "-wi-a-----", "lv_kernel_major": "253", "lv_kernel_minor": "0",
            "vg_extent_size": "4194304", "stripes": "1", field: value,
        }  # fmt: skip
        rt.processes.Answer("lvs *", str({"report": [{"lv": [record]}]}).replace("'", '"'))
        assert not LogicalVolume(ID, [], 100, rt).attached
        assert "Can't use LogicalVolume xenvg/inst1.disk0" in caplog.text

    def test_old_attributes(self):
        facts = logicalvolume.ParseFacts(
            {"lv_attr": "vwi-ao", "lv_kernel_major": "254", "lv_kernel_minor": "0",
             "vg_extent_size": "33554432", "stripes": "1"}
        )  # fmt: skip
        assert facts == (True, 254, 0, 32, 1)

    def test_lvm_can_not_be_asked(self, rt):
        """A volume that can't be looked for is not the same as one that is not there."""
        rt.processes.Answer("lvs *", "no JSON")
        with pytest.raises(errors.BlockDeviceError, match="look for"):
            LogicalVolume(ID, [], 100, rt)

    @pytest.mark.parametrize("unique_id", [(), ("a",), ("a", "b", "c"), ("a", 5)])
    def test_no_identity(self, rt, unique_id):
        with pytest.raises(ValueError, match="identity"):
            LogicalVolume(unique_id, [], 100, rt)

    @pytest.mark.parametrize(
        "unique_id", [("..", "b"), ("a", "-f"), ("a", "b/../../sda"), ("a", "")]
    )
    def test_names_that_lead_elsewhere(self, rt, unique_id):
        with pytest.raises(errors.BlockDeviceError, match="Logical volume"):
            LogicalVolume(unique_id, [], 100, rt)
        assert rt.processes.calls == []


class TestCreate:
    """Volumes go where most space is, over as many stripes as can be had."""

    @pytest.fixture(autouse=True)
    def _Group(self, world):
        world.Lists("host/volumes")
        world.Answer("lvcreate *")
        world.Volume("host/volumes/lv-inst1.disk0")

    def _Create(self, rt, size=100, **params):
        return LogicalVolume.Create(ID, [], size, rt, params)

    def test_command(self, rt):
        volume = self._Create(rt)
        assert volume.attached
        assert rt.processes.done == [
            "lvcreate --yes -Wn -L100m -ninst1.disk0 -i1 xenvg /dev/loop1 /dev/loop0"
        ]
        assert rt.processes.Count("pvs *") == 1

    def test_stripes(self, rt):
        self._Create(rt, stripe=2, stripe_size=64)
        assert rt.processes.done[0].startswith("lvcreate --yes -Wn -L100m -ninst1.disk0 -i2 -I64k ")

    def test_fewer_stripes_if_need_be(self, rt):
        rt.processes.Answer("lvcreate * -i2 *", code=5, stderr="  too few\n")
        assert self._Create(rt, stripe=8, stripe_size=64).attached
        words = [word for argv in rt.processes.done for word in argv.split()]
        assert [word for word in words if word[:2] in ("-i", "-I")] == ["-i2", "-I64k", "-i1"]

    def test_the_last_failure_is_told(self, rt):
        rt.processes.Answer("lvcreate * -i2 *", code=5, stderr="  first\n")
        rt.processes.Answer("lvcreate * -i1 *", code=5, stderr="  second\n")
        with pytest.raises(errors.BlockDeviceError, match="xenvg/inst1.disk0.*second"):
            self._Create(rt, stripe=2)

    def test_space_is_the_sum_of_all(self, rt):
        self._Create(rt, 168)
        with pytest.raises(errors.BlockDeviceError, match="169 MiB are needed, 168 MiB are there"):
            self._Create(rt, 169)
        assert len(rt.processes.done) == 1

    def test_only_where_allocation_is_on(self, rt, world):
        world.Answer("pvs *", _Captured("host/unallocatable/pvs"))
        self._Create(rt)
        assert rt.processes.done[0].endswith(" xenvg /dev/loop1")

    def test_no_group(self, rt):
        with pytest.raises(errors.BlockDeviceError, match="othervg is not there"):
            LogicalVolume.Create(("othervg", "x"), [], 100, rt)

    def test_pvs_fails(self, rt):
        rt.processes.Answer("pvs *", code=5, stderr="  no lock\n")
        with pytest.raises(errors.BlockDeviceError, match="no lock"):
            self._Create(rt)

    def test_colon_in_a_device_name(self, rt):
        rt.processes.Answer(
            "pvs *", _Captured("host/volumes/pvs").replace("/dev/loop1", "/dev/a:1")
        )
        with pytest.raises(errors.BlockDeviceError, match="colon.*/dev/a:1"):
            self._Create(rt)
        assert rt.processes.done == []

    def test_created_but_not_there(self, rt):
        rt.processes.Answer("lvs *", _Captured("host/empty/lvs-all"), **NOT_THERE)
        with pytest.raises(errors.BlockDeviceError, match="created but is not there"):
            self._Create(rt)

    def test_no_identity(self, rt):
        with pytest.raises(errors.ProgrammerError):
            LogicalVolume.Create(("a",), [], 100, rt)

    def test_through_the_table_of_kinds(self):
        assert storage.GetDeviceClass("lvm") is LogicalVolume

    @pytest.mark.parametrize(
        ("pvs", "wanted", "counts"),
        [(1, 1, [1]), (4, 1, [1]), (2, 4, [2, 1]), (4, 3, [3, 2, 1]), (1, 128, [1])],
    )
    def test_stripe_numbers(self, pvs, wanted, counts):
        options = logicalvolume.GetStripeOptions(pvs, {"stripe": wanted})
        assert [count for count, _ in options] == counts

    def test_default_of_stripes(self):
        assert logicalvolume.GetStripeOptions(1, {}) == [(1, [])]


class TestChanges:
    def test_assemble(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvchange *")
        rt.processes.Volume("guest/active/lv-inst1.disk0")
        volume.Assemble()
        # Also if it is active: that mends what is not quite.
        volume.Assemble()
        assert rt.processes.done == ["lvchange --activate y /dev/xenvg/inst1.disk0"] * 2
        assert volume.minor is not None

    def test_assemble_fails(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvchange *", code=5, stderr="  device-mapper: failed\n")
        with pytest.raises(errors.BlockDeviceError, match="activate.*inst1.disk0.*device-mapper"):
            volume.Assemble()

    def test_never_deactivated(self, rt):
        volume = _Volume(rt)
        volume.Open()
        volume.Open(force=True)
        volume.Close()
        volume.Shutdown()
        assert rt.processes.done == []

    def test_remove(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvremove *")
        volume.Remove()
        assert rt.processes.done == ["lvremove --force --yes xenvg/inst1.disk0"]
        assert not volume.attached

    def test_remove_missing(self, rt):
        rt.processes.Answer("lvs *", _Captured("host/empty/lvs-all"), **NOT_THERE)
        LogicalVolume(ID, [], 100, rt).Remove()
        assert rt.processes.done == []

    def test_remove_with_minor_zero(self, rt):
        volume = _Volume(rt)
        volume.minor = 0
        rt.processes.Answer("lvremove *", code=5, stderr="  in use\n")
        with pytest.raises(errors.BlockDeviceError, match="in use"):
            volume.Remove()
        assert rt.processes.Count("lvs *") == 1

    def test_rename(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvrename *")
        volume.Rename(["xenvg", "other"])
        assert rt.processes.done == ["lvrename --yes xenvg inst1.disk0 other"]
        assert (volume.unique_id, volume.dev_path) == (("xenvg", "other"), "/dev/xenvg/other")

    def test_rename_fails(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvrename *", code=5, stderr="  exists\n")
        with pytest.raises(errors.BlockDeviceError, match="exists"):
            volume.Rename(("xenvg", "other"))
        assert volume.unique_id == ID

    def test_rename_into_another_group(self, rt):
        with pytest.raises(errors.ProgrammerError, match="othervg"):
            _Volume(rt).Rename(("othervg", "inst1.disk0"))

    def test_size(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("blockdev --getsize64 /dev/xenvg/inst1.disk0", "104857600\n")
        assert volume.GetActualSize() == 104857600


class TestGrow:
    def _Grow(self, rt, amount, *failing, name="host/volumes/lv-inst1.disk0"):
        volume = _Volume(rt, name)
        rt.processes.Answer("lvextend *")
        for policy in failing:
            rt.processes.Answer(f"lvextend * {policy} *", code=5, stderr=f"  {policy} refused\n")
        volume.Grow(amount)
        return rt.processes.done

    def test_best_policy_first(self, rt):
        assert self._Grow(rt, 8) == [
            "lvextend --yes --alloc contiguous -L +8m /dev/xenvg/inst1.disk0"
        ]

    def test_policies_in_turn(self, rt):
        done = self._Grow(rt, 8, "contiguous", "cling")
        assert [argv.split()[3] for argv in done] == ["contiguous", "cling", "normal"]

    def test_none_works(self, rt):
        with pytest.raises(errors.BlockDeviceError, match="by 8 MiB.*normal refused"):
            self._Grow(rt, 8, "contiguous", "cling", "normal")

    @pytest.mark.parametrize(
        ("name", "amount", "rounded"),
        [
            ("host/volumes/lv-inst1.disk0", 1, 4),
            ("host/volumes/lv-inst1.disk0", 4, 4),
            ("host/volumes/lv-inst2.disk0", 10, 16),
            ("host/volumes/lv-inst2.disk0", 16, 16),
        ],
    )
    def test_whole_extents_of_each_stripe(self, rt, name, amount, rounded):
        assert f" +{rounded}m " in self._Grow(rt, amount, name=name)[0]

    @pytest.mark.parametrize("amount", [0, -8])
    def test_never_smaller(self, rt, amount):
        with pytest.raises(errors.BlockDeviceError, match="positive"):
            self._Grow(rt, amount)

    @given(st.integers(1, 10**6), st.integers(1, 10**4))
    def test_rounding(self, amount, step):
        result = logicalvolume.RoundUp(amount, step)
        assert amount <= result < amount + step
        assert result % step == 0


class TestSnapshot:
    @pytest.fixture(autouse=True)
    def _Group(self, world):
        world.Lists("host/volumes")
        world.Answer("lvcreate *")

    def _NoOldOne(self, world):
        world.Answer("lvs *.snap", _Captured("host/empty/lvs-all"), **NOT_THERE)

    def test_command(self, rt, world):
        volume = _Volume(rt)
        self._NoOldOne(world)
        assert volume.Snapshot(100) == "inst1.disk0.snap"
        assert rt.processes.done == [
            "lvcreate --yes -L100m -s -ninst1.disk0.snap /dev/xenvg/inst1.disk0"
        ]

    def test_an_old_one_is_replaced(self, rt, world):
        volume = _Volume(rt)
        world.Answer("lvremove *")
        volume.Snapshot(100)
        assert [argv.split()[0] for argv in world.done] == ["lvremove", "lvcreate"]
        assert world.done[0].endswith(" xenvg/inst1.disk0.snap")

    def test_an_old_one_that_stays(self, rt, world):
        volume = _Volume(rt)
        world.Answer("lvremove *", code=5, stderr="  in use\n")
        world.Answer("lvcreate *", code=5, stderr="  exists\n")
        with pytest.raises(errors.BlockDeviceError, match="snapshot of .*exists"):
            volume.Snapshot(100)

    def test_space(self, rt, world):
        volume = _Volume(rt)
        self._NoOldOne(world)
        with pytest.raises(errors.BlockDeviceError, match="169 MiB are needed"):
            volume.Snapshot(169)
        assert world.done == []


class TestInfo:
    def test_command(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvchange *")
        volume.SetInfo("originstname+inst1.example.com")
        assert rt.processes.done == [
            "lvchange --addtag originstname+inst1.example.com /dev/xenvg/inst1.disk0"
        ]

    def test_nothing_to_keep(self, rt):
        _Volume(rt).SetInfo("")
        assert rt.processes.done == []

    def test_fails(self, rt):
        volume = _Volume(rt)
        rt.processes.Answer("lvchange *", code=5, stderr="  read only\n")
        with pytest.raises(errors.BlockDeviceError, match="tag .*read only"):
            volume.SetInfo("x")

    @pytest.mark.parametrize(
        ("text", "tag"),
        [
            ("originstname+a.b", "originstname+a.b"), ("-x-y", "_x-y"), ("@x", "_x"),
            ("a b/c", "a_b_c"), ("äö", "__"), ("", ""), ("x" * 200, "x" * 128), ("_a", "_a"),
        ],
    )  # fmt: skip
    def test_characters(self, text, tag):
        assert logicalvolume.MakeTag(text) == tag


class TestUnits:
    """SU1, SU2: listing is one command; changes are few and named."""

    def _List(self, world, rt, type_name, situation, name=None, fields=EVERY):
        world.Lists(situation)
        rows = units.GetStorage(type_name, [], rt).List(name, fields)
        assert len(world.calls) == 1
        return rows

    def test_physical_volumes(self, world, rt):
        assert self._List(world, rt, "lvm-pv", "host/volumes") == [
            ["/dev/loop0", 252, 252, 0, True],
            ["/dev/loop1", 252, 84, 168, True],
            ["/dev/loop2", 256, 0, 256, False],
        ]

    def test_unallocatable(self, world, rt):
        rows = self._List(world, rt, "lvm-pv", "host/unallocatable", None, ["allocatable", "name"])
        assert rows[:2] == [[False, "/dev/loop0"], [True, "/dev/loop1"]]

    def test_missing_device(self, world, rt):
        rows = self._List(world, rt, "lvm-pv", "host/missing")
        assert rows[-1] == ["[unknown]", 252, 84, 168, False]

    def test_volume_groups(self, world, rt):
        assert self._List(world, rt, "lvm-vg", "host/volumes") == [["xenvg", 504, 336, 168, True]]

    def test_columns_add_up(self, world, rt):
        """Each size is rounded; what is used is the difference of what is shown."""
        world.Answer(
            "vgs *",
            '{"report":[{"vg":[{"vg_name":"x","vg_size":"1572864","vg_free":"1048575"}]}]}',
        )
        ((_, size, used, free, _),) = units.GetStorage("lvm-vg", [], rt).List(None, EVERY)
        assert (size, used, free) == (2, 1, 1)

    def test_fields_are_asked_for_once(self, world, rt):
        rows = self._List(
            world, rt, "lvm-vg", "host/volumes", None, ["free", "used", "size", "free", "name"]
        )
        assert rows == [[168, 336, 504, 168, "xenvg"]]
        argv = world.calls[0].argv
        assert argv[argv.index("-o") + 1] == "vg_free,vg_size,vg_name"

    @pytest.mark.parametrize("name", [None, "xenvg"])
    def test_nothing_lvm_knows(self, world, rt, name):
        assert self._List(world, rt, "lvm-vg", "host/volumes", name, ["allocatable"]) == [[True]]

    def test_by_name(self, world, rt):
        self._List(world, rt, "lvm-pv", "host/volumes", "/dev/loop1")
        assert world.calls[0].argv[-1] == "/dev/loop1"

    def test_no_such_unit(self, world, rt):
        world.Answer("vgs *", code=5, stderr='  Volume group "nosuch" not found\n')
        with pytest.raises(errors.StorageError, match="lvm-vg.*nosuch.*not found"):
            units.GetStorage("lvm-vg", [], rt).List("nosuch", ["name"])

    @pytest.mark.parametrize("type_name", ["lvm-pv", "lvm-vg"])
    @pytest.mark.parametrize("name", ["--config=x", "", "-a"])
    def test_names_are_never_options(self, world, rt, type_name, name):
        unit = units.GetStorage(type_name, [], rt)
        with pytest.raises(errors.StorageError, match="no storage unit"):
            unit.List(name, ["name"])
        with pytest.raises(errors.StorageError, match="no storage unit"):
            if type_name == "lvm-pv":
                unit.Modify(name, {"allocatable": True})
            else:
                unit.Execute(name, constants.SO_FIX_CONSISTENCY)
        assert world.calls == []

    @pytest.mark.parametrize("type_name", ["lvm-pv", "lvm-vg"])
    def test_unknown_field(self, world, rt, type_name):
        with pytest.raises(errors.StorageError, match=r"'colour'; known are allocatable, free"):
            units.GetStorage(type_name, [], rt).List(None, ["name", "colour"])

    def test_empty_attributes(self, world, rt, caplog):
        world.Answer("pvs *", '{"report":[{"pv":[{"pv_attr":""}]}]}')
        assert units.GetStorage("lvm-pv", [], rt).List(None, ["allocatable"]) == [[False]]
        assert "no attributes" in caplog.text

    def test_arguments(self, rt):
        for type_name in ("lvm-pv", "lvm-vg"):
            with pytest.raises(errors.StorageError, match="arguments"):
                units.GetStorage(type_name, [["/srv"]], rt)

    @pytest.mark.parametrize(("value", "letter"), [(True, "y"), (False, "n")])
    def test_modify(self, world, rt, value, letter):
        world.Answer("pvchange *")
        units.GetStorage("lvm-pv", [], rt).Modify("/dev/loop0", {"allocatable": value})
        assert world.done == [f"pvchange --allocatable {letter} /dev/loop0"]

    def test_modify_nothing(self, world, rt):
        units.GetStorage("lvm-pv", [], rt).Modify("/dev/loop0", {})
        units.GetStorage("lvm-vg", [], rt).Modify("xenvg", {})
        assert world.calls == []

    @pytest.mark.parametrize(
        ("type_name", "changes", "text"),
        [
            ("lvm-pv", {"allocatable": True, "size": 5}, "size"),
            ("lvm-pv", {"allocatable": "yes"}, "true or false"),
            ("lvm-vg", {"allocatable": True}, "allocatable"),
        ],
    )
    def test_modify_refuses(self, world, rt, type_name, changes, text):
        with pytest.raises(errors.StorageError, match=text):
            units.GetStorage(type_name, [], rt).Modify("/dev/loop0", changes)
        assert world.calls == []

    def test_modify_fails(self, world, rt):
        world.Answer("pvchange *", code=5, stderr="  Cannot use /dev/x: device not found\n")
        with pytest.raises(
            errors.StorageError, match="Making /dev/x unallocatable failed.*not found"
        ):
            units.GetStorage("lvm-pv", [], rt).Modify("/dev/x", {"allocatable": False})


class TestRepair:
    """SU3: what is missing is forgotten; what lay there goes only if nothing less helps."""

    FORCED = "vgreduce --removemissing --force --yes xenvg"

    def _Repair(self, rt, name="xenvg"):
        units.GetStorage("lvm-vg", [], rt).Execute(name, constants.SO_FIX_CONSISTENCY)

    def test_whole_group(self, world, rt):
        world.Answer("vgreduce *")
        world.Answer("vgs *", _Captured("host/volumes/vgs"))
        self._Repair(rt)
        assert world.done == ["vgreduce --removemissing xenvg"]

    def test_exit_code_of_the_first_try_does_not_matter(self, world, rt):
        world.Answer("vgreduce *", code=5, stderr="  is already consistent\n")
        world.Answer("vgs *", _Captured("host/volumes/vgs"))
        self._Repair(rt)

    def test_partial_volumes(self, world, rt):
        missing, repaired = (_Captured(f"host/{when}/vgs") for when in ("missing", "repaired"))
        run = world.run

        def Run(argv, **kwargs):
            if argv[0] == "vgreduce":
                world.Answer("vgs *", repaired if "--force" in argv else missing)
            return run(argv, **kwargs)

        world.Answer("vgreduce *", code=5)
        world.run = Run
        self._Repair(rt)
        assert world.done == ["vgreduce --removemissing xenvg", self.FORCED]

    def test_does_not_help(self, world, rt):
        world.Answer("vgreduce *", code=5, stderr="  still no\n")
        world.Answer("vgs *", _Captured("host/missing/vgs"))
        with pytest.raises(errors.StorageError, match=r"still misses 1 physical.*still no"):
            self._Repair(rt)
        assert world.done[-1] == self.FORCED

    def test_group_is_gone(self, world, rt):
        world.Answer("vgreduce *", code=5, stderr="  nothing to reduce\n")
        world.Answer("vgs *", code=5, stderr='  Volume group "xenvg" not found\n')
        with pytest.raises(errors.StorageError, match=r"not found.*nothing to reduce"):
            self._Repair(rt)
        assert len(world.done) == 1

    @pytest.mark.parametrize(
        ("type_name", "operation"), [("lvm-vg", "format"), ("lvm-pv", "fix-consistency")]
    )
    def test_no_such_operation(self, world, rt, type_name, operation):
        with pytest.raises(errors.StorageError, match=operation):
            units.GetStorage(type_name, [], rt).Execute("/dev/x", operation)
        assert world.calls == []


class TestReal:
    """The reports that everything here stands on are of the version that they say."""

    @pytest.mark.parametrize("place", ["host", "guest"])
    def test_version(self, place):
        assert (CAPTURED / place / "version").read_text().startswith("2.03.")

    def test_every_report_is_understood(self):
        for path in CAPTURED.glob("*/*/*.json"):
            lvm.ParseReport(path.read_text(), ())
