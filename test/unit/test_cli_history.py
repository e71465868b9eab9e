"""gnt-cluster history, on the history of a configuration in memory."""

import json
import re
import time

import pytest

from ganeti import errors, objects, pathutils
from ganeti.client import confighistory, gnt_cluster, jobs, main
from ganeti.client import fake as client_fake
from ganeti.config import fake
from ganeti.runtime import fake as runtime_fake
from ganeti.utils import text

_NODE1, _NODE2 = fake.NodeName(1), fake.NodeName(2)


class _World:
    """A configuration, and the command."""

    def __init__(self, monkeypatch, capsys):
        self.rt = runtime_fake.NewRuntime()
        self.cfg = fake.NewWriter(self.rt, nodes=2)
        self.master = client_fake.FakeClient()
        self.master.config_history = self.cfg.history
        self._capsys = capsys
        monkeypatch.setattr(jobs, "GetClient", lambda *args: self.master)

    def Run(self, *argv):
        """Exit status, standard output, standard error."""
        try:
            status = main.GenericMain(gnt_cluster.COMMANDS, argv=["gnt-cluster", "history", *argv])
        except SystemExit as err:
            status = err.code
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def Show(self, serial):
        status, out, err = self.Run("--show", str(serial))
        assert (status, err) == (0, "")
        return out


@pytest.fixture
def empty(monkeypatch, capsys):
    return _World(monkeypatch, capsys)


@pytest.fixture
def world(empty):
    with empty.cfg.ActingFor("5", "OP_INSTANCE_CREATE"):
        disk = fake.NewDrbdDisk((_NODE1, _NODE2), 10998, (0, 0), "topsecret", "web")
        fake.AddInstance(empty.cfg, "web", _NODE1, disks=[disk])
    with empty.cfg.ActingFor("6", "OP_TAGS_SET"):
        node = empty.cfg.GetNodeInfo(_NODE2)
        node.AddTag("fast")
        empty.cfg.Update(node)
    empty.cfg.AllocatePort()
    with empty.cfg.ActingFor("7", "OP_INSTANCE_REMOVE"):
        empty.cfg.RemoveInstance("web")
    return empty


class TestList:
    """Who changed what, the oldest first."""

    def test_table(self, world):
        status, out, err = world.Run()
        when = text.FormatTime(world.rt.clock.time())
        assert (status, err) == (0, "")
        assert [re.sub(" +", " ", line).strip() for line in out.splitlines()] == [
            "Serial Time Job OpCode Changed",
            f"2 {when} 5 INSTANCE_CREATE instance web (added), cluster",
            f"3 {when} 6 TAGS_SET node {_NODE2}, cluster",
            f"4 {when} - - cluster",
            f"5 {when} 7 INSTANCE_REMOVE instance web (removed), cluster",
        ]

    def test_choice(self, world):
        plain = ("--no-headers", "--separator=|", "-o", "serial,changes")
        assert world.Run(*plain, "--object=web", "--since=3") == (
            0,
            "5|instance web (removed)\n",
            "",
        )
        assert world.master.calls == [("QueryConfigHistory", ("web", 3, None))]

    def test_json(self, world):
        status, out, _ = world.Run("--format=json", "-o", "job,opcode,changes", "--since=5")
        assert status == 0
        assert json.loads(out) == [
            {
                "job": "7",
                "opcode": "OP_INSTANCE_REMOVE",
                "changes": [["instance", "web", "removed"], ["cluster", "", "modified"]],
            }
        ]

    @pytest.mark.parametrize(
        ("argv", "note"),
        [
            ([], "Note: the history has no change\n"),
            (["--since=9"], "Note: the history has no change since 9\n"),
            (["--object=wbe"], "Note: the history has no change of 'wbe'. Give the name of a "),
        ],
    )
    def test_nothing(self, empty, argv, note):
        status, out, err = empty.Run("--no-headers", *argv)
        assert (status, out) == (0, "")
        assert err.startswith(note)

    def test_file_written_again(self, empty):
        empty.cfg._engine.Rewrite()
        assert "(file written again)" in empty.Run()[1]
        assert "without a change of an object" in empty.Show(2)

    @pytest.mark.parametrize(("serial", "missing"), [(2, "change 2 is"), (4, "changes 2 to 4 are")])
    def test_missing_changes(self, empty, serial, missing):
        document = json.loads(empty.rt.files.read(pathutils.CLUSTER_CONF_FILE))
        document["serial_no"] = serial
        empty.rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(document).encode())
        empty.rt.files.write(
            pathutils.CONFIG_HISTORY_FILE, _LogOfOneChange(empty.rt, document["mtime"])
        )
        empty.master.config_history = fake.OpenWriter(empty.rt).history
        status, out, err = empty.Run("--no-headers", "--separator=|", "-o", "serial")
        assert (status, out) == (0, "1\n")
        assert err.startswith(f"Note: {missing} missing: another node was the master")

    def test_log_can_not_be_written(self, world):
        world.rt.files.Fail("append", pathutils.CONFIG_HISTORY_FILE)
        world.cfg.AllocatePort()
        status, out, err = world.Run()
        assert status == 0
        assert "INSTANCE_REMOVE" in out
        assert "Warning: Can't write the configuration's history " in err


def _LogOfOneChange(rt, mtime):
    from ganeti.config import history

    return history.FormatRecord(history.Version(1, mtime), history.Version(0, None), [])


class TestShow:
    """A change for people to read, a line for each value, and no secrets."""

    def test_added_and_removed(self, world):
        when = text.FormatTime(world.rt.clock.time())
        added, removed = world.Show(2), world.Show(5)
        assert added.startswith(
            f"Change 2, {when}\nBy job 5, INSTANCE_CREATE:\n  instance web added:"
        )
        assert removed.startswith(
            f"Change 5, {when}\nBy job 7, INSTANCE_REMOVE:\n  instance web remo"
        )
        for out in (added, removed):
            assert f"\n    ctime: {when}\n" in out
            assert "\n    disks/0/children/1/size: 128\n" in out
            assert (
                f'\n    disks/0/logical_id: ["{_NODE1}", "{_NODE2}", 10998, 0, 0, "(hidden)"]\n'
                in out
            )
            assert "\n    beparams: {}\n" in out
            assert "topsecret" not in out

    def test_modified(self, world):
        out = world.Show(3)
        assert "By job 6, TAGS_SET:\n" in out
        assert f"\n  node {_NODE2}:\n" in out
        assert '\n    tags: (unset) -> ["fast"]\n' in out
        assert "\n    serial_no: 1 -> 2\n" in out

    def test_no_job(self, world):
        assert "By no job:\n  cluster:\n    highest_used_port: " in world.Show(4)

    def test_parts_of_lists(self, empty):
        disk = objects.Disk(dev_type="file", logical_id=("loop", "/x"), size=5)
        fake.AddInstance(empty.cfg, "web", _NODE1, disks=[disk])
        instance = empty.cfg.GetInstanceInfo("web")
        old, instance.disks = instance.disks, []
        empty.cfg.Update(instance)
        assert "\n    disks/0 removed:\n      " in empty.Show(3)
        instance.disks = old
        instance.disks[0].size = 77
        empty.cfg.Update(instance)
        assert "\n    disks/0 added:\n" in empty.Show(4)
        assert "\n      size: 77\n" in empty.Show(4)
        instance.disks[0].size = 78
        empty.cfg.Update(instance)
        assert "\n    disks/0/size: 77 -> 78\n" in empty.Show(5)

    def test_parts_of_values(self, empty):
        fake.AddInstance(empty.cfg, "web", _NODE1, beparams={}, tags={"a", "c"})
        instance = empty.cfg.GetInstanceInfo("web")
        instance.beparams["memory"] = 5
        instance.AddTag("b")
        empty.cfg.Update(instance)
        assert "\n    beparams/memory: (unset) -> 5\n" in empty.Show(3)
        assert '\n    tags[1]: +"b"\n' in empty.Show(3)
        del instance.beparams["memory"]
        instance.RemoveTag("c")
        empty.cfg.Update(instance)
        assert "\n    beparams/memory: 5 -> (unset)\n" in empty.Show(4)
        assert '\n    tags[2]: -"c"\n' in empty.Show(4)

    def test_json(self, world):
        status, out, _ = world.Run("--show=2", "--format=json")
        assert status == 0
        assert json.loads(out) == world.cfg.history.Show(2)
        assert "topsecret" not in out

    @pytest.mark.parametrize(
        ("serial", "why"),
        [("1", "; the oldest one is 2"), ("6", " yet; the newest one is 5")],
    )
    def test_unknown(self, world, serial, why):
        status, out, err = world.Run("--show", serial)
        assert (status, out) == (1, "")
        assert err.rstrip().endswith(f"no change with the serial number {serial}{why}")


class TestAt:
    """The file as it was."""

    def test_to_the_byte(self, world):
        content = world.rt.files.read(pathutils.CLUSTER_CONF_FILE).decode()
        assert world.Run("--at=5") == (0, content, "")
        status, out, err = world.Run("--at=2")
        assert (status, err) == (0, "")
        assert list(json.loads(out)["instances"]) == ["web"]
        assert json.loads(out)["serial_no"] == 2

    @pytest.mark.parametrize(
        ("serial", "why"), [("6", "there is no 6 yet"), ("0", "only to 1 of ")]
    )
    def test_unknown(self, world, serial, why):
        status, out, err = world.Run("--at", serial)
        assert (status, out) == (1, "")
        assert why in err


class TestFaults:
    """What is asked wrongly is refused before the master is asked."""

    @pytest.mark.parametrize(
        ("argv", "status", "said"),
        [
            (["--show=2", "--at=2"], 1, "either --show or --at"),
            (["--show=2", "--object=web"], 1, "give them without --show and --at"),
            (["--at=2", "--since=1"], 1, "give them without --show and --at"),
            (["--show=-1"], 1, "--show takes a serial number, not -1"),
            (["--at=-1"], 1, "--at takes a serial number, not -1"),
            (["--at=x"], 2, "invalid integer value: 'x'"),
            (["--since=yesterday"], 1, "Invalid value 'yesterday' of --since"),
            (["-o", "who"], 1, "Unknown output fields selected: who. The available fields are: "),
            (["web"], 1, "expects no arguments"),
        ],
    )
    def test_refused(self, world, argv, status, said):
        code, out, err = world.Run(*argv)
        assert (code, world.master.calls) == (status, [])
        assert said in err


class TestSince:
    """A serial number, a time, or how long ago."""

    @pytest.mark.parametrize(
        ("value", "seconds"), [("30", None), ("30s", 30), ("2h", 7200), ("1d", 86400)]
    )
    def test_ago(self, value, seconds):
        expected = (30, None) if seconds is None else (None, 1e9 - seconds)
        assert confighistory.ParseSince(value, 1e9) == expected

    @pytest.mark.parametrize(
        ("value", "time_of_day"),
        [
            ("2026-01-31", (0, 0, 0)),
            ("2026-01-31 12:30", (12, 30, 0)),
            ("2026-01-31 01:02:03", (1, 2, 3)),
        ],
    )
    def test_time(self, value, time_of_day):
        serial, when = confighistory.ParseSince(value, 0)
        assert serial is None
        assert time.localtime(when)[:6] == (2026, 1, 31, *time_of_day)

    @pytest.mark.parametrize("value", ["", "-1", "-1h", "2026-13-01", "1.5h", "h", "2026-01-31T12"])
    def test_refused(self, value):
        with pytest.raises(errors.OpPrereqError, match="give a serial number, a time such as"):
            confighistory.ParseSince(value, 1e9)
