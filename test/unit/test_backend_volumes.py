"""Calls about volumes of LVM, on captured reports."""

import os
from pathlib import Path

import pytest

from ganeti import constants, errors, pathutils, rpc_defs
from ganeti.backend import dispatch, verify, volumes
from ganeti.runtime import fake
from ganeti.utils import lvm

CAPTURED = Path(__file__).resolve().parents[1] / "data/lvm"


@pytest.fixture
def rt():
    os.makedirs(pathutils.LVM_SYSTEM_DIR)
    return fake.NewRuntime(processes=fake.FakeProcesses())


def _Answer(rt, situation, kind, program=None):
    rt.processes.Answer(f"{program or kind} *", (CAPTURED / situation / f"{kind}.json").read_text())


def _Records(situation, kind):
    return lvm.ParseReport((CAPTURED / situation / f"{kind}.json").read_text(), ())


class TestGroups:
    """What node_info, vg_list and the verification tell of volume groups."""

    UNKNOWN = {"vg_size": None, "vg_free": None}

    def test_info(self, rt):
        _Answer(rt, "host/volumes", "vgs")
        assert volumes.GetVolumeGroupInfo("xenvg", rt) == {"vg_size": 504, "vg_free": 168}
        assert rt.processes.calls[0].argv[-1] == "xenvg"

    @pytest.mark.parametrize(
        "stdout", ["", "x", '{"report":[{"vg":[{"vg_name":"x","vg_size":"1m"}]}]}']
    )
    def test_not_understood(self, rt, stdout):
        rt.processes.Answer("vgs *", stdout)
        assert volumes.GetVolumeGroupInfo("xenvg", rt) == self.UNKNOWN

    def test_missing(self, rt, caplog):
        rt.processes.Answer("vgs *", code=5, stderr="  not found\n")
        assert volumes.GetVolumeGroupInfo("xenvg", rt) == self.UNKNOWN
        assert "xenvg" in caplog.text
        assert "not found" in caplog.text

    @pytest.mark.parametrize("name", [None, ""])
    def test_cluster_without_lvm(self, rt, name):
        assert volumes.GetVolumeGroupInfo(name, rt) == self.UNKNOWN
        assert rt.processes.calls == []

    def test_list(self, rt):
        _Answer(rt, "host/volumes", "vgs")
        assert volumes.ListVolumeGroups(rt) == {"xenvg": 504}

    def test_physical_volumes(self, rt):
        _Answer(rt, "host/unallocatable", "pvs")
        assert volumes.ListPhysicalVolumes(["xenvg"], rt) == [
            (0, "/dev/loop0", "xenvg"),
            (168, "/dev/loop1", "xenvg"),
        ]

    def test_physical_volumes_can_not_be_listed(self, rt):
        rt.processes.Answer("pvs *", code=5)
        assert volumes.ListPhysicalVolumes(["xenvg"], rt) is None


class TestVolumeList:
    """lv_list: size, inactive, in use; what is lost is not there."""

    def test_of_a_guest(self, rt):
        _Answer(rt, "guest/active", "lvs")
        found = volumes.GetVolumeList("xenvg", rt)
        assert found["inst1.disk0"] == ("252.00", False, True)
        assert found["inst2.disk0"] == ("24.00", True, False)
        assert found["inst3.disk0"] == ("60.00", False, False)
        assert found["raid"][1:] == (False, False)
        assert len(rt.processes.calls) == 1

    def test_lost(self, rt):
        _Answer(rt, "guest/missing", "lvs")
        found = volumes.GetVolumeList("xenvg", rt)
        assert "inst1.disk0" not in found
        assert "raid" in found

    @pytest.mark.parametrize("attr", ["-wi-XX----", "-wi-sX----", "-wi-d-----"])
    def test_neither_inactive_nor_in_use(self, attr):
        """What the kernel could not be asked of, or is in between, is neither."""
        records = [{"lv_name": "a", "lv_size": "0", "lv_attr": attr}]
        assert volumes.ParseVolumeList(records) == {"a": ("0.00", False, False)}

    def test_attributes(self, caplog):
        records = [
            {"lv_name": name, "lv_size": "4194304", "lv_attr": attr}
            for name, attr in (
                ("old", "-wi-ao"),
                ("gone", "vwi-a-"),
                ("odd", "-wi"),
                ("off", "-wi---"),
            )
        ]
        assert volumes.ParseVolumeList(records) == {
            "old": ("4.00", False, True),
            "off": ("4.00", True, False),
        }
        assert "odd" in caplog.text

    def test_fails(self, rt):
        rt.processes.Answer("lvs *", code=5, stderr='  Volume group "x" not found\n')
        with pytest.raises(errors.RPCFail, match="logical volumes of x: .*not found"):
            volumes.GetVolumeList("x", rt)

    def test_name_is_no_option(self, rt):
        with pytest.raises(errors.RPCFail, match="--config"):
            volumes.GetVolumeList("--config=x", rt)
        assert rt.processes.calls == []


class TestNodeVolumes:
    """node_volumes: a row for each volume and device."""

    def test_linear_striped_and_many_segments(self, rt):
        _Answer(rt, "host/volumes", "lvs-all", "lvs")
        rows = volumes.NodeVolumes(rt)
        assert [(row["name"], row["dev"]) for row in rows] == [
            ("inst1.disk0", "/dev/loop0"),
            ("inst1.disk0", "/dev/loop1"),
            ("inst2.disk0", "/dev/loop0"),
            ("inst2.disk0", "/dev/loop1"),
            ("inst3.disk0", "/dev/loop1"),
        ]
        assert "--all" in rt.processes.calls[0].argv
        assert rows[2] == {
            "name": "inst2.disk0",
            "size": "24.00",
            "dev": "/dev/loop0",
            "vg": "xenvg",
        }
        assert len(rt.processes.calls) == 1

    def test_lost_device(self):
        rows = volumes.ParseNodeVolumes(_Records("host/missing", "lvs-all"))
        assert {row["dev"] for row in rows} == {"/dev/loop0", "[unknown]"}

    @pytest.mark.parametrize("name", ["raid", "mirror"])
    def test_mirrors_lie_on_the_devices_of_their_parts(self, name):
        rows = volumes.ParseNodeVolumes(_Records("guest/active", "lvs-all"))
        devices = [row["dev"] for row in rows if row["name"] == name]
        assert len(devices) == len(set(devices)) >= 2
        assert all(device.startswith("/dev/vd") for device in devices)
        assert not any("_rimage_" in row["name"] or "[" in row["name"] for row in rows)

    def test_volume_that_is_its_own_part(self):
        """No LVM reports that; if one does, the call still ends."""
        record = {"vg_name": "x", "lv_name": "a", "lv_size": "0", "devices": "a(0)"}
        assert [row["dev"] for row in volumes.ParseNodeVolumes([record])] == ["a"]

    def test_same_name_in_two_groups(self):
        records = [
            {"vg_name": vg, "lv_name": "a", "lv_size": "1048576", "devices": f"/dev/{vg}(0)"}
            for vg in ("x", "y")
        ]
        assert [(row["vg"], row["dev"]) for row in volumes.ParseNodeVolumes(records)] == [
            ("x", "/dev/x"),
            ("y", "/dev/y"),
        ]

    def test_volume_without_devices(self):
        """A snapshot of a thin volume, or one of zeros."""
        record = {"vg_name": "x", "lv_name": "a", "lv_size": "0", "devices": ""}
        assert volumes.ParseNodeVolumes([record]) == []

    def test_parentheses_in_a_device_name(self):
        record = {"vg_name": "x", "lv_name": "a", "lv_size": "0", "devices": "/dev/a(b)(17)"}
        assert [row["dev"] for row in volumes.ParseNodeVolumes([record])] == ["/dev/a(b)"]

    def test_fails(self, rt):
        rt.processes.Answer("lvs *", code=5, stderr="  no lock\n")
        with pytest.raises(errors.RPCFail, match="no lock"):
            volumes.NodeVolumes(rt)


class TestVerify:
    """What the verification asks for, under its own keys."""

    def _Verify(self, rt, key, parameter):
        with open(pathutils.ETC_HOSTS, "w", encoding="ascii") as fobj:
            fobj.write("127.0.0.1 node1.example.com\n")
        return verify.VerifyNode({key: parameter}, "cluster", rt)[key]

    def test_groups(self, rt):
        _Answer(rt, "host/volumes", "vgs")
        assert self._Verify(rt, constants.NV_VGLIST, None) == {"xenvg": 504}

    def test_volumes(self, rt):
        _Answer(rt, "host/volumes", "lvs")
        assert set(self._Verify(rt, constants.NV_LVLIST, "xenvg")) == {
            f"inst{number}.disk0" for number in (1, 2, 3)
        }

    def test_volumes_can_not_be_listed(self, rt):
        rt.processes.Answer("lvs *", code=5, stderr="  no lock\n")
        assert "no lock" in self._Verify(rt, constants.NV_LVLIST, "xenvg")

    def test_physical_volumes(self, rt):
        _Answer(rt, "host/volumes", "pvs")
        assert len(self._Verify(rt, constants.NV_PVLIST, ["xenvg"])) == 2

    def test_physical_volumes_can_not_be_listed(self, rt):
        rt.processes.Answer("pvs *", code=5)
        assert self._Verify(rt, constants.NV_PVLIST, ["xenvg"]) is None


class TestNodeWithoutLvm:
    """A virtual node without a configuration of its own: it has none, and sees no other's."""

    @pytest.mark.parametrize(
        ("call", "args", "payload"),
        [
            ("vg_list", [], {}),
            ("lv_list", ["xenvg"], {}),
            ("node_volumes", [], []),
            ("storage_list", ["lvm-pv", [], None, ["name"]], []),
            ("storage_list", ["lvm-vg", [], None, ["name"]], []),
        ],
    )
    def test_lists_are_empty(self, call, args, payload):
        assert dispatch.Answer(call, args) == (True, payload)
        assert rpc_defs.CALLS[call].result(payload)

    @pytest.mark.parametrize(
        ("call", "args"),
        [
            ("storage_modify", ["lvm-pv", [], "/dev/sda", {"allocatable": False}]),
            ("storage_execute", ["lvm-vg", [], "xenvg", "fix-consistency"]),
        ],
    )
    def test_changes_are_refused(self, call, args):
        success, text = dispatch.Answer(call, args)
        assert not success
        assert "no LVM" in text
