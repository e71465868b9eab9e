"""Running LVM and reading its reports (SU1: parsed once, one command for all)."""

import json
import os
from pathlib import Path

import pytest

from ganeti import errors, pathutils, runtime
from ganeti.runtime import fake
from ganeti.utils import lvm

#: What lvm2 2.03.16 reported: test/data/lvm/README.
CAPTURED = Path(__file__).resolve().parents[1] / "data/lvm"

PV_FIELDS = ("pv_name", "vg_name", "pv_free", "pv_attr")


@pytest.fixture
def rt():
    """A node with a configuration of LVM and programs that answer as scripted."""
    os.makedirs(pathutils.LVM_SYSTEM_DIR)
    return fake.NewRuntime(processes=fake.FakeProcesses())


class TestRun:
    """How programs are run: without questions, on the right devices."""

    def test_environment_of_a_virtual_node(self, rt):
        rt.processes.Answer("vgs")
        lvm.Run(["vgs"], rt)
        (call,) = rt.processes.calls
        assert call.env == {
            "LVM_SUPPRESS_FD_WARNINGS": "1",
            "LVM_SYSTEM_DIR": pathutils.LVM_SYSTEM_DIR,
        }
        assert call.input is None

    def test_environment_of_a_real_node(self, rt, monkeypatch):
        monkeypatch.setattr(pathutils, "ROOTDIR", "")
        rt.processes.Answer("vgs")
        lvm.Run(["vgs"], rt)
        assert rt.processes.calls[0].env == {"LVM_SUPPRESS_FD_WARNINGS": "1"}

    def test_the_host_of_a_virtual_node_is_left_alone(self):
        rt = fake.NewRuntime(processes=fake.FakeProcesses())
        with pytest.raises(errors.LVMError, match=pathutils.LVM_SYSTEM_DIR):
            lvm.Run(["pvchange", "/dev/sda"], rt)
        assert lvm.Report("pvs", PV_FIELDS, rt=rt) == []
        assert rt.processes.calls == []

    def test_not_installed(self, rt, monkeypatch):
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(errors.LVMError, match=r"lvs.*is lvm2 installed"):
            lvm.Run(["lvs"], runtime.DEFAULT)

    @pytest.mark.parametrize(
        ("stderr", "said"),
        [
            ("  WARNING: noise.\n  Cannot use /dev/x: device not found\n", ": Cannot use /dev/x"),
            ("  WARNING: Inconsistent metadata\n", ": WARNING: Inconsistent"),
            ("", ": it said nothing"),
        ],
    )
    def test_failure(self, rt, stderr, said):
        rt.processes.Answer("vgck *", code=5, stderr=stderr)
        with pytest.raises(errors.LVMError, match="^Checking x failed: 'vgck x' exited.*5") as info:
            lvm.RunOrFail(["vgck", "x"], "Checking x", rt)
        assert said in str(info.value)


class TestReport:
    """SU1: one command, in JSON and bytes."""

    def test_command(self, rt):
        rt.processes.Answer("*", '{"report": [{"vg": []}]}')
        assert lvm.Report("vgs", ("vg_name", "vg_size"), ["xenvg"], rt, ["--all"]) == []
        assert rt.processes.calls[0].argv == [
            "vgs", "--reportformat", "json", "--units", "b", "--nosuffix", "--all",
            "-o", "vg_name,vg_size", "xenvg",
        ]  # fmt: skip

    def test_devices_that_do_not_answer(self, rt, monkeypatch):
        """What only looks is given up some day; what changes something never."""
        timeouts = []
        run = rt.processes.run

        def Run(argv, timeout=None, **kwargs):
            timeouts.append(timeout)
            return run(argv, timeout=timeout, **kwargs)

        monkeypatch.setattr(rt.processes, "run", Run)
        rt.processes.Answer("*", '{"report": []}')
        lvm.Report("vgs", ("vg_name",), rt=rt)
        lvm.Run(["lvextend", "x"], rt)
        lvm.RunOrFail(["pvchange", "x"], "x", rt)
        assert timeouts == [120, None, None]

    def test_names_are_never_options(self, rt):
        with pytest.raises(errors.LVMError, match="--config"):
            lvm.Report("vgs", ("vg_name",), ["--config=x"], rt)
        assert rt.processes.calls == []

    def test_failure(self, rt):
        rt.processes.Answer("lvs *", '{"report": [{"lv": []}]}', 5, "  Volume group not found\n")
        with pytest.raises(errors.LVMError, match="Listing with lvs failed.*group not found"):
            lvm.Report("lvs", ("lv_name",), ["x"], rt)

    @pytest.mark.parametrize(
        "output",
        [
            "",
            "x",
            "[]",
            "{}",
            '{"report": 5}',
            '{"report": [{"lv": 5}]}',
            '{"report": [{"lv": [5]}]}',
        ],
    )
    def test_not_understood(self, output):
        with pytest.raises(errors.LVMError, match="understand"):
            lvm.ParseReport(output, ("lv_name",))

    def test_lacks_a_field(self):
        output = json.dumps({"report": [{"lv": [{"lv_name": "a"}, {"lv_size": "5"}]}]})
        with pytest.raises(errors.LVMError, match="did not report lv_name, only lv_size"):
            lvm.ParseReport(output, ("lv_name",))

    def test_numbers_and_nulls_of_strict_json(self):
        """As lvm2 reports with --reportformat json_std, or may one day."""
        output = json.dumps({"report": [{"lv": [{"lv_size": 5, "lv_tags": None}]}], "log": []})
        assert lvm.ParseReport(output, ("lv_size",)) == [{"lv_size": "5", "lv_tags": ""}]

    @pytest.mark.parametrize(
        ("size", "mebibytes"), [("1048576", 1), ("0", 0), ("", 0), ("524288", 0.5)]
    )
    def test_size(self, size, mebibytes):
        assert lvm.ToMebibytes(size) == mebibytes

    @pytest.mark.parametrize("size", ["4.00m", "x", "1.5"])
    def test_wrong_size(self, size):
        with pytest.raises(errors.LVMError, match=size):
            lvm.ToMebibytes(size)


class TestPhysicalVolumes:
    """SU2: physical volumes and what may be put there."""

    @pytest.mark.parametrize(
        ("attr", "allocatable"),
        [
            ("a--", True), ("u--", False), ("---", False), ("d--", False), ("", False),
            ("a-m", False), ("u-m", False), ("ax-", True), ("a", True),
        ],
    )  # fmt: skip
    def test_allocatable(self, attr, allocatable):
        assert lvm.IsAllocatable(attr) is allocatable

    def _Pvs(self, rt, situation, *args):
        rt.processes.Answer("pvs *", (CAPTURED / situation / "pvs.json").read_text())
        found = [(pv.free, pv.pv_name, pv.vg_name) for pv in lvm.GetPVInfo(*args, rt=rt)]
        assert len(rt.processes.calls) == 1
        return found

    def test_of_a_group(self, rt):
        assert self._Pvs(rt, "host/volumes", ["xenvg"]) == [
            (0, "/dev/loop0", "xenvg"),
            (168, "/dev/loop1", "xenvg"),
        ]

    def test_all(self, rt):
        found = self._Pvs(rt, "host/volumes", [], False)
        assert found[2] == (256, "/dev/loop2", "")
        assert len(found) == 3

    def test_unallocatable(self, rt):
        assert [name for _, name, _ in self._Pvs(rt, "host/unallocatable", ["xenvg"])] == [
            "/dev/loop1"
        ]

    def test_missing(self, rt):
        assert "[unknown]" not in [name for _, name, _ in self._Pvs(rt, "host/missing", ["xenvg"])]

    def test_missing_but_asked_for(self, rt):
        assert "[unknown]" in [
            name for _, name, _ in self._Pvs(rt, "host/missing", ["xenvg"], False)
        ]

    def test_other_group(self, rt):
        assert self._Pvs(rt, "host/volumes", ["other"]) == []


class TestVolumeGroups:
    def test_list(self, rt):
        rt.processes.Answer("vgs *", (CAPTURED / "host/missing/vgs.json").read_text())
        assert lvm.ListVolumeGroups(rt) == {"xenvg": 756}

    def test_rounded_down(self, rt):
        rt.processes.Answer("vgs *", '{"report":[{"vg":[{"vg_name":"x","vg_size":"2097151"}]}]}')
        assert lvm.ListVolumeGroups(rt) == {"x": 1}

    def test_nothing_can_be_told(self, rt, caplog):
        rt.processes.Answer("vgs *", code=5, stderr="  no lock\n")
        assert lvm.ListVolumeGroups(rt) == {}
        assert "no lock" in caplog.text

    @pytest.mark.parametrize(
        ("name", "minsize", "expected"),
        [
            ("xenvg", 20480, None),
            (
                "xenvg",
                20481,
                "volume group 'xenvg' too small (20481 MiB required, 20480 MiB found)",
            ),
            ("other", 1, "volume group 'other' missing"),
        ],
    )
    def test_size(self, name, minsize, expected):
        assert lvm.CheckVolumeGroupSize({"xenvg": 20480}, name, minsize) == expected


class TestVolumes:
    @pytest.mark.parametrize(
        ("attr", "broken"),
        [
            ("-wi-a-----", False), ("-wi-a-", False), ("-wi-XX--p-", True), ("vwi-a-", True),
            ("Vwi-a-tz--", False), ("rwi-a-r-p-", False), ("mwi-a-m-p-", False),
            ("Cwi-a-C---", False), ("swi-a-s---", False), ("swi-a-s-p-", True), ("", False),
        ],
    )  # fmt: skip
    def test_broken(self, attr, broken):
        assert lvm.IsBroken(attr) is broken

    @pytest.mark.parametrize("name", ["xenvg", "a.disk0_data", "x+y-Z_9", "9"])
    def test_good_names(self, name):
        assert lvm.CheckVolumeName(name) is None

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("", "empty"), ("--force", "option"), ("a/b", "/"), ("a b", "characters"),
            ("ä", "ä"), ("..", "reserved"), (".", "reserved"), ("snapshot", "reserved"),
            ("pvmove", "reserved"), ("a_mlog", "_mlog"), ("x_mimage_0", "_mimage"),
            ("a@b", "@"), ("a\n", "characters"),
        ],
    )  # fmt: skip
    def test_bad_names(self, name, why):
        assert why in lvm.CheckVolumeName(name)
