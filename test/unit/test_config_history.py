"""The history of the configuration: records, differences, crashes, and the way back."""

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ganeti import config, constants, errors, objects, pathutils
from ganeti.config import claims, difference, fake, history, past
from ganeti.luxi.client import AssembleConfig
from ganeti.runtime import DEFAULT, Tail, simulation
from ganeti.runtime import fake as runtime_fake
from ganeti.serializer import Dump

_PATH = pathutils.CLUSTER_CONF_FILE
_LOG = pathutils.CONFIG_HISTORY_FILE
_OLDER = _LOG + history.OLDER_SUFFIX
_NODE1, _NODE2 = fake.NodeName(1), fake.NodeName(2)
_INST = "inst1.example.com"


@pytest.fixture
def rt():
    return runtime_fake.NewRuntime()


@pytest.fixture
def cfg(rt):
    return fake.NewWriter(rt, nodes=2)


def _Export(cfg, serial, page_size=past.PAGE_SIZE):
    """The file with that serial number, put together from its pages."""
    reader = past.History(cfg._engine, page_size)
    answer = reader.Export(serial)
    cursor = answer["cursor"]
    while cursor is not None:
        page = reader.Export(serial, cursor)
        assert page["header"] == answer["header"]
        answer["objects"] += page["objects"]
        cursor = page["cursor"]
    return Dump(AssembleConfig(json.loads(json.dumps(answer))), indent=True).encode()


def _Serials(cfg, **choice):
    return [entry["serial"] for entry in cfg.history.List(**choice)["entries"]]


class _Keeper:
    """Remembers every file that was written."""

    def __init__(self, rt, path=_PATH):
        self._rt = rt
        self._path = path
        self.files = {}
        self.Look()

    def Look(self):
        content = self._rt.files.read(self._path)
        self.files[json.loads(content)["serial_no"]] = content

    def Check(self, cfg):
        for serial, content in self.files.items():
            assert _Export(cfg, serial) == content, f"serial {serial}"


class TestWhatIsKept:
    """Who, when, what: of every change."""

    def test_job_and_opcode(self, cfg, rt):
        rt.clock.Advance(60)
        with cfg.ActingFor("17", "OP_INSTANCE_CREATE"):
            fake.AddInstance(cfg, _INST, _NODE1)
        cfg.MarkInstanceUp(_INST)
        cfg.RemoveInstance(_INST)
        entries = cfg.history.List()["entries"]
        assert [entry["serial"] for entry in entries] == [4, 3, 2]
        assert entries[2]["time"] == rt.clock.time()
        assert entries[2]["missing"] is None
        assert entries[2]["commits"] == [
            {
                "job": "17",
                "op": "OP_INSTANCE_CREATE",
                "changes": [["instance", _INST, "added"], ["cluster", "", "modified"]],
            }
        ]
        assert entries[1]["commits"] == [
            {"job": None, "op": None, "changes": [["instance", _INST, "modified"]]}
        ]
        assert ["instance", _INST, "removed"] in entries[0]["commits"][0]["changes"]

    def test_origins_nest_and_end(self, cfg):
        with cfg.ActingFor("1", "A"):
            with cfg.ActingFor("2", "B"):
                cfg.AllocatePort()
            cfg.AllocatePort()
        cfg.AllocatePort()
        jobs = [entry["commits"][0]["job"] for entry in cfg.history.List()["entries"]]
        assert jobs == [None, "1", "2"]

    def test_origin_ends_with_an_error(self, cfg):
        with pytest.raises(KeyError), cfg.ActingFor("1", "A"):
            raise KeyError
        cfg.AllocatePort()
        assert cfg.history.List()["entries"][0]["commits"][0]["job"] is None

    def test_minimal(self, cfg):
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.MarkInstanceUp(_INST)
        (commit,) = cfg.history.Show(3)["commits"]
        (change,) = commit["changes"]
        assert [edit["path"] for edit in change["edits"]] == [["admin_up"], ["serial_no"]]
        assert change["edits"][0] == {"path": ["admin_up"], "old": False, "new": True}

    @pytest.mark.parametrize("seed", range(5))
    def test_commits_that_share_a_write(self, seed):
        """Each is noted with its own job and its own part, and the way back leads through all."""
        sim = simulation.Simulation(seed)
        rt = sim.runtime

        def _Work():
            cfg = fake.NewWriter(rt, nodes=2)
            first = rt.files.read(_PATH)
            real_write = rt.files.write_logged

            def _SlowWrite(*args):
                rt.clock.sleep(0.01)
                return real_write(*args)

            rt.files.write_logged = _SlowWrite

            def _One(number):
                with cfg.ActingFor(str(number), "OP"):
                    fake.AddInstance(cfg, f"inst{number}", _NODE1)

            handles = [
                rt.threads.start(_One, args=[number], name=f"t{number}") for number in range(9)
            ]
            for handle in handles:
                handle.join()
            assert cfg.write_count < 9
            commits = [
                commit for entry in cfg.history.List()["entries"] for commit in entry["commits"]
            ]
            assert sorted(commit["job"] for commit in commits) == [str(i) for i in range(9)]
            for commit in commits:
                assert commit["changes"][0] == ["instance", f"inst{commit['job']}", "added"]
            assert _Export(cfg, 1) == first

        sim.Run(_Work)

    def test_rewrite_when_loading(self, rt):
        """Given ids are in every older version, too: nobody knows of any other."""
        document = fake.NewConfigData(rt)
        del document["nodes"][_NODE1]["uuid"]
        rt.files.write(_PATH, Dump(document, indent=True).encode())
        cfg = fake.OpenWriter(rt)
        cfg.AllocatePort()
        entries = cfg.history.List()["entries"]
        assert [(entry["serial"], len(entry["commits"])) for entry in entries] == [(3, 1), (2, 0)]
        old = json.loads(_Export(cfg, 1))
        uuid = old["nodes"][_NODE1].pop("uuid")
        assert uuid == cfg.GetNodeInfo(_NODE1).uuid
        assert old == document

    def test_only_the_clusters_own_file(self, rt, tmp_path):
        fake.NewWriter(rt)
        rt.files.write("/other", rt.files.read(_PATH))
        cfg = config.ConfigWriter("/other", offline=True, runtime=rt)
        cfg.AllocatePort()
        assert not rt.files.exists(_LOG)
        with pytest.raises(errors.OpPrereqError, match="No history is kept"):
            cfg.history.List()

    def test_mode(self, tmp_path):
        rt = runtime_fake.NewRuntime()
        path = str(tmp_path / "config.data")
        DEFAULT.files.write(path, Dump(fake.NewConfigData(rt), indent=True).encode())
        old_umask = os.umask(0)
        try:
            log = str(tmp_path / "log")
            cfg = config.ConfigWriter(path, offline=True, history_file=log)
            keeper = _Keeper(DEFAULT, path)
            for _ in range(3):
                cfg.AllocatePort()
                keeper.Look()
        finally:
            os.umask(old_umask)
        assert os.stat(log).st_mode & 0o777 == 0o600
        keeper.Check(cfg)


class TestList:
    """By object, by serial number, by time, in pages."""

    @pytest.fixture
    def cfg(self, cfg, rt):
        for name in (_INST, "other.example.com"):
            rt.clock.Advance(10)
            fake.AddInstance(cfg, name, _NODE1)
        rt.clock.Advance(10)
        cfg.RenameInstance(_INST, "new.example.com")
        node = cfg.GetNodeInfo(_NODE2)
        node.AddTag("x")
        rt.clock.Advance(10)
        cfg.Update(node)
        rt.clock.Advance(10)
        cfg.MarkInstanceUp("new.example.com")
        return cfg

    @pytest.mark.parametrize(
        ("name", "serials"),
        [
            (None, [6, 5, 4, 3, 2]),
            (_INST, [4, 2]),
            ("inst1", [4, 2]),
            ("inst", []),
            ("new.example.com", [6, 4]),
            ("node2", [5]),
            (_NODE1, []),
            ("cluster", [5, 4, 3, 2]),
            ('x"\\', []),
        ],
    )
    def test_object(self, cfg, name, serials):
        assert _Serials(cfg, name=name) == serials

    def test_only_the_object(self, cfg):
        entries = cfg.history.List(name="node2")["entries"]
        assert entries[0]["commits"][0]["changes"] == [["node", _NODE2, "modified"]]

    def test_since(self, cfg, rt):
        assert _Serials(cfg, since_serial=5) == [6, 5]
        assert _Serials(cfg, since_serial=7) == []
        assert _Serials(cfg, since_time=rt.clock.time() - 20) == [6, 5, 4]
        assert _Serials(cfg, since_time=rt.clock.time() + 1) == []

    @pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
    @pytest.mark.parametrize("name", [None, "new.example.com"])
    def test_pages(self, cfg, size, name):
        reader = past.History(cfg._engine, size)
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = reader.List(name=name, cursor=json.loads(json.dumps(cursor)))
            assert len(page["entries"]) <= size
            found += page["entries"]
            cursor = page["cursor"]
            pages += 1
        assert found == cfg.history.List(name=name)["entries"]

    def test_pages_of_what_goes_on_changing(self, cfg):
        reader = past.History(cfg._engine, 2)
        first = reader.List()
        cfg.AllocatePort()
        second = reader.List(cursor=first["cursor"])
        assert [entry["serial"] for entry in first["entries"] + second["entries"]] == [6, 5, 4, 3]

    def test_nothing_yet(self, rt):
        cfg = fake.NewWriter(rt)
        answer = cfg.history.List()
        assert answer == {"entries": [], "cursor": None, "missing": None, "problem": None}

    def test_unreadable(self, cfg, rt):
        rt.files.Fail("read", _LOG)
        with pytest.raises(errors.OpExecError, match=_LOG):
            cfg.history.List()


class TestShow:
    """All of a change, but for secrets."""

    def _Disk(self, secret="topsecret"):
        return fake.NewDrbdDisk((_NODE1, _NODE2), 11000, (0, 0), secret, "i")

    def test_unknown(self, cfg):
        cfg.AllocatePort()
        for serial in (1, 3):
            with pytest.raises(errors.OpPrereqError, match=f"serial number {serial}"):
                cfg.history.Show(serial)

    def test_secrets_are_hidden(self, cfg, rt):
        """In whole instances, in whole disks, in ids, and in changes of the secret alone."""
        fake.AddInstance(cfg, _INST, _NODE1, disks=[self._Disk()])
        instance = cfg.GetInstanceInfo(_INST)
        disk = instance.disks[0]
        disk.logical_id = (*disk.logical_id[:5], "topsecret2")
        cfg.Update(instance)
        disk.physical_id = ("192.0.2.1", 11000, "192.0.2.2", 11000, 0, "topsecret3")
        cfg.Update(instance)
        instance.disks.append(self._Disk("topsecret4"))
        cfg.Update(instance)
        instance.disks = []
        cfg.Update(instance)
        cfg.RemoveInstance(_INST)
        text = ""
        for serial in range(2, 8):
            text += json.dumps(cfg.history.Show(serial))
        assert "topsecret" not in text
        assert text.count(difference.HIDDEN) == 8
        assert "192.0.2.2" in text
        # But an old configuration is one to go back to.
        assert b"topsecret3" in _Export(cfg, 5)


class TestExport:
    """Any old configuration, to the byte; or a clear text why not."""

    def test_versions_that_there_are_not(self, cfg):
        cfg.AllocatePort()
        with pytest.raises(errors.OpPrereqError, match="there is no 3 yet"):
            cfg.history.Export(3)
        with pytest.raises(errors.OpPrereqError, match="does not reach back.*only to 1"):
            cfg.history.Export(0)

    def test_number_that_was_left_out(self, cfg, rt):
        rt.files.Fail("write", _PATH, times=1)
        with pytest.raises(errors.ConfigurationError):
            cfg.AllocatePort()
        cfg.AllocatePort()
        assert cfg.GetConfigSerialNo() == 3
        with pytest.raises(errors.OpPrereqError, match="no configuration with .* 2"):
            cfg.history.Export(2)
        assert json.loads(_Export(cfg, 1))["serial_no"] == 1

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_pages(self, cfg, rt, size):
        keeper = _Keeper(rt)
        for number in range(4):
            fake.AddInstance(cfg, f"inst{number}", _NODE1)
            keeper.Look()
        cfg.RemoveInstance("inst0")
        for serial, content in keeper.files.items():
            assert _Export(cfg, serial, size) == content

    def test_pages_are_one_walk(self, cfg, rt):
        """The way back is gone once, and what it led to is forgotten with the last page."""
        keeper = _Keeper(rt)
        for number in range(4):
            fake.AddInstance(cfg, f"inst{number}", _NODE1)
            keeper.Look()
        reader = past.History(cfg._engine, 3)
        first, other = reader.Export(3), reader.Export(2)
        # Another one has come in between, and the configuration is changed further.
        cfg.RemoveInstance("inst0")
        answers = {}
        for serial, page in ((2, other), (3, first)):
            answers[serial] = page
            while page["cursor"] is not None:
                page = reader.Export(serial, page["cursor"])
                page["objects"] = answers[serial]["objects"] + page["objects"]
                answers[serial] = page
        for serial, answer in answers.items():
            document = AssembleConfig({key: answer[key] for key in ("header", "objects")})
            assert Dump(document, indent=True).encode() == keeper.files[serial]
        assert reader._kept is None
        page = reader.Export(2)
        rt.files.Fail("read", _LOG)
        while page["cursor"] is not None:
            page = reader.Export(2, page["cursor"])
        with pytest.raises(errors.OpExecError):
            reader.Export(2)

    def test_what_is_not_written_yet_is_none_of_it(self, cfg, rt):
        """Between a change in memory and its write, the past begins with what is on disk."""
        fake.AddInstance(cfg, _INST, _NODE1)
        content = rt.files.read(_PATH)
        seen = []
        real = rt.files.write_logged

        def _Look(*args):
            seen.append(_Export(cfg, 2))
            return real(*args)

        rt.files.write_logged = _Look
        cfg.RemoveInstance(_INST)
        assert seen == [content]

    def test_changed_by_other_means(self, cfg, rt):
        cfg.AllocatePort()
        cfg.SetVGName("one")
        document = json.loads(rt.files.read(_PATH))
        document["cluster"]["volume_group_name"] = "two"
        rt.files.write(_PATH, Dump(document, indent=True).encode())
        cfg = fake.OpenWriter(rt)
        cfg.AllocatePort()
        assert json.loads(_Export(cfg, 3))["cluster"]["volume_group_name"] == "two"
        with pytest.raises(errors.OpPrereqError, match="changed by other means"):
            cfg.history.Export(2)

    def test_restored_file(self, cfg, rt):
        """What was given up with it is passed by, though the numbers are used again."""
        keeper = _Keeper(rt)
        for _ in range(3):
            cfg.AllocatePort()
        keeper.Look()
        backup = rt.files.read(_PATH)
        for _ in range(3):
            cfg.AllocatePort()
        rt.clock.Advance(5)
        rt.files.write(_PATH, backup)
        cfg = fake.OpenWriter(rt)
        cfg.SetVGName("x")
        keeper.Look()
        keeper.Check(cfg)
        assert _Serials(cfg) == [5, 4, 3, 2]
        assert cfg.history.List()["entries"][0]["commits"][0]["changes"][0][0] == "cluster"

    def test_other_master_in_between(self, cfg, rt):
        cfg.AllocatePort()
        document = json.loads(rt.files.read(_PATH))
        document["serial_no"] = 10
        document["mtime"] += 77
        rt.files.write(_PATH, Dump(document, indent=True).encode())
        cfg = fake.OpenWriter(rt)
        cfg.AllocatePort()
        cfg.AllocatePort()
        entries = cfg.history.List()["entries"]
        assert [(entry["serial"], entry["missing"]) for entry in entries] == [
            (12, None),
            (11, None),
            (2, [3, 10]),
        ]
        assert json.loads(_Export(cfg, 10)) == document
        for serial in (1, 2, 9):
            with pytest.raises(errors.OpPrereqError, match=f"{serial}, only to 10 of 20"):
                cfg.history.Export(serial)
        # What is known of that change is known.
        assert cfg.history.Show(2)["serial"] == 2

    def test_gap_between_objects_that_are_not_asked_for(self, cfg, rt):
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.AllocatePort()
        document = json.loads(rt.files.read(_PATH))
        document["serial_no"] = 10
        rt.files.write(_PATH, Dump(document, indent=True).encode())
        cfg = fake.OpenWriter(rt)
        cfg.MarkInstanceUp(_INST)
        entries = cfg.history.List(name=_INST)["entries"]
        assert [(entry["serial"], entry["missing"]) for entry in entries] == [
            (11, None),
            (2, [4, 10]),
        ]

    @pytest.mark.parametrize(
        ("choice", "missing"),
        [
            ({"since_serial": 12}, None),
            ({"since_serial": 11}, None),
            ({"since_serial": 10}, [10, 10]),
            ({"since_serial": 5}, [5, 10]),
            ({"since_serial": 3}, [3, 10]),
            ({"since_time": 2e9}, [3, 10]),
            ({"name": _INST}, [3, 10]),
        ],
    )
    def test_gap_behind_the_last_entry(self, cfg, rt, choice, missing):
        """What is missing of what was asked for is said, though nothing older is listed."""
        cfg.AllocatePort()
        document = json.loads(rt.files.read(_PATH))
        document["serial_no"] = 10
        rt.files.write(_PATH, Dump(document, indent=True).encode())
        rt.clock.Advance(2e9 - rt.clock.time())
        cfg = fake.OpenWriter(rt)
        fake.AddInstance(cfg, _INST, _NODE1)
        answer = cfg.history.List(**choice)
        listed = [] if choice.get("since_serial") == 12 else [11]
        assert [entry["serial"] for entry in answer["entries"]] == listed
        assert answer["missing"] == missing


class TestSize:
    """Two files of whole records; the older goes when the newer is full."""

    def test_rotation(self, cfg, rt):
        cfg._engine.log._file_limit = 3000
        keeper = _Keeper(rt)
        for _ in range(100):
            cfg.AllocatePort()
            keeper.Look()
            for path in (_LOG, _OLDER):
                if rt.files.exists(path):
                    content = rt.files.read(path)
                    assert len(content) <= 3000
                    assert history.FindEnd(content) == len(content)
        oldest = min(_Serials(cfg))
        assert 50 < oldest < 95
        assert rt.files.exists(_OLDER)
        with pytest.raises(errors.OpPrereqError, match=f"only to {oldest - 1}"):
            cfg.history.Export(oldest - 2)
        for serial in range(1, oldest - 1):
            del keeper.files[serial]
        keeper.Check(cfg)
        keeper.Check(fake.OpenWriter(rt))

    def test_one_record_is_never_too_large(self, cfg, rt):
        cfg._engine.log._file_limit = 10
        keeper = _Keeper(rt)
        cfg.AllocatePort()
        keeper.Look()
        keeper.Check(cfg)
        cfg.AllocatePort()
        assert len(rt.files.read(_OLDER).splitlines()) == 1
        assert len(rt.files.read(_LOG).splitlines()) == 1

    def test_files_change_places_while_reading(self, cfg, rt):
        for _ in range(3):
            cfg.AllocatePort()
        records = cfg._engine.log.IterRecords()
        first = next(records)
        rt.files.rename(_LOG, _OLDER)
        steps = history.Walk([first, *records], first.version)
        assert [step.record.version.serial_no for step in steps] == [4, 3, 2]

    def test_default_limit(self, rt):
        log = history.HistoryLog(_LOG, rt)
        assert log._file_limit * 2 == history.SIZE_LIMIT == 32 * 1024 * 1024


class TestFailingLog:
    """The change is made all the same, whoever asks is told, and the log goes on later."""

    @pytest.mark.parametrize("operation", ["append", "sync", "read"])
    def test_reported_and_made_up_for(self, cfg, rt, caplog, operation):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        keeper = _Keeper(rt)
        cfg._engine.log._end = None
        rt.files.Fail(operation, _LOG, errno.ENOSPC)
        told = []
        instance.admin_up = True
        with cfg.ActingFor("5", "OP"):
            cfg.Update(instance, told.append)
        keeper.Look()
        assert json.loads(rt.files.read(_PATH))["instances"][_INST]["admin_up"] is True
        (text,) = told
        assert _LOG in text and "No space left" in text and "itself is written" in text
        assert text in caplog.text
        cfg.AllocatePort()
        keeper.Look()
        rt.files.Heal()
        assert "No space" in cfg.history.List()["problem"]
        cfg.AllocatePort()
        keeper.Look()
        assert cfg.history.List()["problem"] is None
        keeper.Check(cfg)
        assert cfg.history.Show(3)["commits"][0]["job"] == "5"
        assert _Serials(cfg) == [5, 4, 3, 2]

    def test_rotation_fails(self, cfg, rt):
        cfg.AllocatePort()
        cfg._engine.log._file_limit = 10
        rt.files.Fail("rename", _LOG)
        keeper = _Keeper(rt)
        cfg.AllocatePort()
        assert "Can't write" in cfg.history.List()["problem"]
        rt.files.Heal()
        cfg.AllocatePort()
        keeper.Look()
        keeper.Check(cfg)

    def test_not_for_ever(self, cfg, rt, monkeypatch):
        """What can not be written is not kept without limit: the gap is said then."""
        monkeypatch.setattr(history, "_BACKLOG_LIMIT", 1000)
        cfg.AllocatePort()
        rt.files.Fail("append", _LOG)
        for _ in range(20):
            cfg.AllocatePort()
        assert len(cfg._engine.log._backlog) <= 1000
        rt.files.Heal()
        cfg.AllocatePort()
        entries = cfg.history.List()["entries"]
        assert entries[-1]["missing"] is not None
        with pytest.raises(errors.OpPrereqError, match="does not reach back"):
            cfg.history.Export(1)

    def test_cut_by_somebody_else(self, cfg, rt):
        for _ in range(3):
            cfg.AllocatePort()
        rt.files.write(_LOG, rt.files.read(_LOG)[:-30])
        cfg.AllocatePort()
        assert "cut" in cfg.history.List()["problem"]
        cfg.AllocatePort()
        entries = cfg.history.List()["entries"]
        assert [(entry["serial"], entry["missing"]) for entry in entries] == [
            (6, None),
            (5, None),
            (3, [4, 4]),
            (2, None),
        ]

    def test_failed_commit_leaves_nothing(self, cfg, rt):
        keeper = _Keeper(rt)
        rt.files.Fail("write", _PATH, times=1)
        with pytest.raises(errors.ConfigurationError), cfg.ActingFor("1", "OP"):
            fake.AddInstance(cfg, _INST, _NODE1)
        cfg.AllocatePort()
        keeper.Look()
        assert b'"1"' not in rt.files.read(_LOG)
        assert _Serials(cfg) == [3]
        keeper.Check(cfg)


class _Death(BaseException):
    """The machine is dead."""


class _MortalFiles(runtime_fake.MemoryFiles):
    """Dies in the middle of a write: with so many bytes of the record on disk."""

    def __init__(self, clock):
        super().__init__(clock)
        #: None: goes on living.
        self.bytes_left = None
        self.before_config = False

    def _PutTail(self, path, kept, data):
        if self.bytes_left is None:
            super()._PutTail(path, kept, data)
            return
        part = data[: self.bytes_left]
        super()._PutTail(path, kept, part)
        self._durable[path] = self._live[path]
        if not self.before_config:
            raise _Death

    def write(self, path, *args, **kwargs):
        if self.before_config:
            raise _Death
        super().write(path, *args, **kwargs)


class TestCrash:
    """Whatever is left of a record, the history that was stays, and goes on."""

    def _Start(self):
        clock = runtime_fake.FakeClock()
        rt = runtime_fake.NewRuntime(clock=clock, files=_MortalFiles(clock.time))
        return rt, fake.NewWriter(rt, nodes=2)

    def _Die(self, rt, cfg, left, before_config=False):
        rt.files.bytes_left = left
        rt.files.before_config = before_config
        with pytest.raises(_Death):
            fake.AddInstance(cfg, _INST, _NODE1)
        rt.files.Crash()
        rt.files.bytes_left = None
        rt.files.before_config = False

    def test_every_part_of_a_record(self):
        rt, cfg = self._Start()
        fake.AddInstance(cfg, _INST, _NODE1)
        length = len(rt.files.read(_LOG))
        for left in [*range(0, length, 7), length - 2, length - 1, length]:
            rt, cfg = self._Start()
            keeper = _Keeper(rt)
            cfg.AllocatePort()
            keeper.Look()
            before = rt.files.read(_LOG)
            self._Die(rt, cfg, left)
            assert rt.files.read(_LOG).startswith(before)
            cfg = fake.OpenWriter(rt)
            assert cfg.GetInstanceList() == []
            keeper.Check(cfg)
            assert _Serials(cfg) == [2]
            rt.clock.Advance(1)
            cfg.SetVGName("other")
            keeper.Look()
            keeper.Check(cfg)
            assert _Serials(cfg) == [3, 2]
            changes = cfg.history.List()["entries"][0]["commits"][0]["changes"]
            assert changes == [["cluster", "", "modified"]]

    def test_whole_record_without_its_configuration(self):
        """Even if the next write has the same number, and the same time of a coarse clock."""
        rt, cfg = self._Start()
        keeper = _Keeper(rt)
        self._Die(rt, cfg, 10**6, before_config=True)
        assert _INST.encode() in rt.files.read(_LOG)
        cfg = fake.OpenWriter(rt)
        assert _Serials(cfg) == []
        cfg.SetVGName("other")
        keeper.Look()
        keeper.Check(cfg)
        assert _Serials(cfg, name=_INST) == []

    def test_everything_that_was_said_is_durable(self):
        rt, cfg = self._Start()
        keeper = _Keeper(rt)
        for _ in range(5):
            cfg.AllocatePort()
            keeper.Look()
            rt.files.Crash()
            keeper.Check(fake.OpenWriter(rt))

    def test_killed_while_the_files_change_places(self):
        rt, cfg = self._Start()
        keeper = _Keeper(rt)
        for _ in range(3):
            cfg.AllocatePort()
            keeper.Look()
        cfg._engine.log._file_limit = 10
        self._Die(rt, cfg, 20)
        cfg = fake.OpenWriter(rt)
        keeper.Check(cfg)
        cfg.AllocatePort()
        keeper.Look()
        keeper.Check(cfg)

    @pytest.mark.parametrize("junk", [b"x", b"junk\n", b"\0" * 4096, b"00000000 \n", b"\n\n"])
    def test_junk_at_the_end(self, junk):
        rt, cfg = self._Start()
        keeper = _Keeper(rt)
        cfg.AllocatePort()
        keeper.Look()
        good = rt.files.read(_LOG)
        rt.files.write(_LOG, good + junk)
        cfg = fake.OpenWriter(rt)
        assert _Serials(cfg) == [2]
        cfg.AllocatePort()
        keeper.Look()
        assert rt.files.read(_LOG).startswith(good)
        assert junk not in rt.files.read(_LOG)[len(good) :] or junk == b"x"
        keeper.Check(cfg)

    def test_broken_in_the_middle(self):
        rt, cfg = self._Start()
        for _ in range(4):
            cfg.AllocatePort()
        lines = rt.files.read(_LOG).splitlines(keepends=True)
        lines[1] = lines[1].replace(b"cluster", b"clusteR")
        rt.files.write(_LOG, b"".join(lines))
        entries = cfg.history.List()["entries"]
        assert [(entry["serial"], entry["missing"]) for entry in entries] == [
            (5, None),
            (4, None),
            (2, [3, 3]),
        ]

    def test_log_of_a_former_cluster(self):
        rt, cfg = self._Start()
        for _ in range(4):
            cfg.AllocatePort()
        rt.clock.Advance(100)
        cfg = fake.NewWriter(rt, nodes=2)
        assert _Serials(cfg) == []
        cfg.AllocatePort()
        assert _Serials(cfg) == [2]
        assert json.loads(_Export(cfg, 1))["serial_no"] == 1


class TestRealFiles:
    """The same on a file system."""

    def test_end_of_a_log(self, tmp_path):
        files = DEFAULT.files
        log, path = str(tmp_path / "log"), str(tmp_path / "file")
        assert files.write_logged(path, b"1", Tail(log, 0, b"aaaa")) is None
        assert files.write_logged(path, b"2", Tail(log, 4, b"bb")) is None
        assert files.read(log) == b"aaaabb"
        assert files.write_logged(path, b"3", Tail(log, 2, b"c")) is None
        assert files.read(log) == b"aac"
        problem = files.write_logged(path, b"4", Tail(log, 5, b"d"))
        assert problem.errno == errno.ESTALE
        assert (files.read(path), files.read(log)) == (b"4", b"aac")
        assert os.stat(log).st_mode & 0o777 == 0o600

    def test_log_that_can_not_be_written(self, tmp_path):
        path = str(tmp_path / "file")
        (tmp_path / "log").mkdir()
        problem = DEFAULT.files.write_logged(path, b"1", Tail(str(tmp_path / "log"), 0, b"a"))
        assert isinstance(problem, OSError)
        assert DEFAULT.files.read(path) == b"1"

    def test_log_that_can_not_be_synced(self, tmp_path, monkeypatch):
        real = os.fdatasync
        log = str(tmp_path / "log")

        def _Fail(fd):
            if os.path.samestat(os.fstat(fd), os.stat(log)):
                raise OSError(errno.EIO, "broken")
            real(fd)

        monkeypatch.setattr(os, "fdatasync", _Fail)
        problem = DEFAULT.files.write_logged(str(tmp_path / "file"), b"1", Tail(log, 0, b"a"))
        assert problem.errno == errno.EIO
        assert DEFAULT.files.read(str(tmp_path / "file")) == b"1"

    def test_log_is_durable_before_the_file_is_there(self, tmp_path, monkeypatch):
        done = []
        real_sync, real_rename = os.fdatasync, os.rename
        path, log = str(tmp_path / "file"), str(tmp_path / "log")

        def _Sync(fd):
            done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).split(".")[0])
            real_sync(fd)

        def _Rename(old, new):
            done.append("rename")
            real_rename(old, new)

        monkeypatch.setattr(os, "fdatasync", _Sync)
        monkeypatch.setattr(os, "rename", _Rename)
        assert DEFAULT.files.write_logged(path, b"1", Tail(log, 0, b"a")) is None
        assert done == ["file", "log", "rename"]

    def test_file_that_can_not_be_written(self, tmp_path):
        log = str(tmp_path / "log")
        with pytest.raises(OSError):
            DEFAULT.files.write_logged(str(tmp_path / "no" / "file"), b"1", Tail(log, 0, b"a"))


# Differences

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, 2.5])
    | st.text("ab"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(st.text("abcd", min_size=1), _JSON, max_size=5)


class TestDifference:
    """The smallest edits that say it, and back again."""

    @pytest.mark.parametrize(
        ("old", "new", "edits"),
        [
            ({"a": 1}, {"a": 1}, []),
            ({"a": 1}, {"a": 2}, [{"path": ["a"], "old": 1, "new": 2}]),
            ({"a": 1}, {"a": True}, [{"path": ["a"], "old": 1, "new": True}]),
            ({"a": 1}, {"a": 1.0}, [{"path": ["a"], "old": 1, "new": 1.0}]),
            ({"a": 0.0}, {"a": -0.0}, [{"path": ["a"], "old": 0.0, "new": -0.0}]),
            ({}, {"a": None}, [{"path": ["a"], "new": None}]),
            ({"a": {}}, {}, [{"path": ["a"], "old": {}}]),
            ({"a": {"b": 1}}, {"a": {"b": 2}}, [{"path": ["a", "b"], "old": 1, "new": 2}]),
            ({"a": [1, 2]}, {"a": [1, 3, 2]}, [{"path": ["a"], "at": 1, "old": [], "new": [3]}]),
            ({"a": [1, 1]}, {"a": [1]}, [{"path": ["a"], "at": 1, "old": [1], "new": []}]),
            (
                {"a": [{"b": 1}, {"b": 2}]},
                {"a": [{"b": 1}, {"b": 3}]},
                [{"path": ["a", 1, "b"], "old": 2, "new": 3}],
            ),
            (
                {"a": [{"b": 1}]},
                {"a": [{"b": 1}, {"b": 3}]},
                [{"path": ["a"], "at": 1, "old": [], "new": [{"b": 3}]}],
            ),
            ({"a": {}}, {"a": []}, [{"path": ["a"], "old": {}, "new": []}]),
        ],
    )
    def test_minimal(self, old, new, edits):
        assert json.dumps(difference.OfValues(old, new)) == json.dumps(edits)

    @given(_DOCUMENTS, _DOCUMENTS)
    @settings(max_examples=300, deadline=None)
    def test_back_again(self, old, new):
        edits = json.loads(json.dumps(difference.OfValues(old, new)))
        back = json.loads(json.dumps(new))
        difference.Undo(back, edits)
        assert difference.IsSame(back, json.loads(json.dumps(old)))
        assert bool(edits) != difference.IsSame(old, new)

    @given(_DOCUMENTS, _DOCUMENTS, _DOCUMENTS)
    @settings(max_examples=200, deadline=None)
    def test_foreign_content_is_noticed_or_untouched(self, old, new, other):
        edits = difference.OfValues(old, new)
        back = json.loads(json.dumps(other))
        try:
            difference.Undo(back, edits)
        except difference.DoesNotFit:
            assert not difference.IsSame(other, new)

    def test_every_attribute_with_objects_is_known(self):
        """The shortcut by the texts of attributes must not be taken for those."""
        found = set()
        for cls in (objects.Cluster, objects.Node, objects.Instance, objects.NIC, objects.Disk):
            for name, codec in cls._CODECS.items():
                if codec.make not in (set, tuple):
                    found.add(name)
        assert found == difference._WITH_OBJECTS

    def test_objects_like_their_plain_forms(self):
        rt = runtime_fake.NewRuntime()
        cluster = fake.NewWriter(rt).GetClusterInfo()
        other = cluster.Copy()
        other.tcpudp_port_pool = {1, 2}
        other.hvparams["kvm"]["acpi"] = 1
        other.volume_group_name = None
        other.AddTag("x")
        assert difference.Between(cluster, other) == difference.OfValues(
            cluster.ToDict(), other.ToDict()
        )
        assert len(difference.Between(cluster, other)) == 4

    def test_lists_that_were_never_set(self):
        bare = objects.Instance(name="a")
        full = objects.Instance(name="a", nics=[], disks=[])
        assert difference.Between(bare, full) == []
        full.nics = [objects.NIC(mac="m", nicparams={})]
        assert difference.Between(bare, full) == [
            {"path": ["nics"], "at": 0, "old": [], "new": [{"mac": "m", "nicparams": {}}]}
        ]

    def test_keys_of_newer_versions(self):
        one = objects.Node.FromDict({"name": "a", "later": {"x": 1}})
        two = objects.Node.FromDict({"name": "a", "later": {"x": 2}})
        assert difference.Between(one, two) == [{"path": ["later", "x"], "old": 1, "new": 2}]

    @given(_JSON)
    def test_hiding_copies(self, value):
        assert difference.IsSame(difference.HideSecrets(value), value)


class TestRecord:
    """Lines that are whole are taken, others are not."""

    _LINE = history.FormatRecord(
        history.Version(5, 1.5),
        history.Version(4, None),
        [history.Commit(history.Origin("1", "OP"))],
    )

    def test_round_trip(self):
        record = history.ParseRecord(self._LINE[:-1])
        assert record.version == (5, 1.5)
        assert record.base == (4, None)
        assert record.GetCommits() == [{"changes": [], "job": "1", "op": "OP"}]

    @given(st.data())
    def test_broken(self, data):
        line = bytearray(self._LINE[:-1])
        position = data.draw(st.integers(0, len(line) - 1))
        byte = data.draw(st.integers(0, 255))
        if bytes([byte]).lower() == bytes([line[position]]).lower():
            return
        line[position] = byte
        assert history.ParseRecord(bytes(line)) is None

    @given(st.lists(st.sampled_from([b"", b"junk", _LINE[:-1]]), max_size=6), st.binary(max_size=3))
    def test_end(self, lines, rest):
        content = b"".join(line + b"\n" for line in lines) + rest.replace(b"\n", b"")
        good = [idx for idx, line in enumerate(lines) if line == self._LINE[:-1]]
        expected = sum(len(line) + 1 for line in lines[: good[-1] + 1]) if good else 0
        assert history.FindEnd(content) == expected
        assert len(list(history.IterBackwards(content))) == len(good)

    def test_walk(self):
        def _Record(serial, base, mtime=1.0):
            return history.Record(history.Version(serial, mtime), history.Version(base, 1.0), b"")

        records = [_Record(9, 8), _Record(7, 5), _Record(6, 5), _Record(5, 4, 2.0), _Record(3, 2)]
        steps = list(history.Walk(records, history.Version(7, 1.0)))
        assert [(s.record.version.serial_no, s.wanted.serial_no, s.is_gap) for s in steps] == [
            (7, 7, False),
            (3, 5, True),
        ]


class _Machine(RuleBasedStateMachine):
    """Any changes, restarts, power failures and a log that fails now and then: the way back leads
    to every file that there was, to the byte."""

    names = st.sampled_from("abc")

    @initialize()
    def Begin(self):
        self.rt = runtime_fake.NewRuntime()
        self.cfg = fake.NewWriter(self.rt, nodes=2)
        self.keeper = _Keeper(self.rt)

    def _Change(self, name):
        if name in self.cfg.GetInstanceList():
            return self.cfg.GetInstanceInfo(name)
        return None

    @rule(name=names, disks=st.integers(0, 2))
    def Add(self, name, disks):
        if self._Change(name) is None:
            made = []
            for number in range(disks):
                minors = self.cfg.AllocateDRBDMinor([_NODE1, _NODE2], name)
                port = self.cfg.AllocatePort()
                made.append(
                    fake.NewDrbdDisk((_NODE1, _NODE2), port, tuple(minors), f"s{port}", f"{port}")
                )
                made[-1].iv_name = f"disk/{number}"
            fake.AddInstance(self.cfg, name, _NODE1, disks=made)

    @rule(name=names)
    def Remove(self, name):
        if self._Change(name) is not None:
            self.cfg.RemoveInstance(name)

    @rule(name=names, new=names)
    def Rename(self, name, new):
        if self._Change(name) is not None and (name == new or self._Change(new) is None):
            self.cfg.RenameInstance(name, new)

    @rule(
        name=names,
        tags=st.sets(st.sampled_from(["x", "y", "z"])),
        memory=st.sampled_from([None, 1, 1.0, True, 128]),
        nics=st.lists(st.sampled_from(["1", "2", "3"]), max_size=3, unique=True),
        grow=st.booleans(),
        unset=st.booleans(),
    )
    def Modify(self, name, tags, memory, nics, grow, unset):
        instance = self._Change(name)
        if instance is None:
            return
        instance.tags = tags
        instance.beparams = {} if memory is None else {"memory": memory}
        instance.nics = [
            objects.NIC(
                mac=f"aa:00:00:00:{name.encode().hex()}:0{digit}", nicparams={"link": digit}
            )
            for digit in nics
        ]
        if instance.disks and grow:
            instance.disks[-1].size += 1
            instance.disks[-1].children[0].size += 1
        elif instance.disks and unset:
            instance.disks.pop(0)
        if unset:
            instance.network_port = None
            instance.hvparams = {"a": {"b": []}}
        self.cfg.Update(instance)

    @rule(value=st.sampled_from([None, "x", 'a"b', "\N{SNOWMAN}"]))
    def ModifyCluster(self, value):
        cluster = self.cfg.GetClusterInfo()
        cluster.volume_group_name = value
        cluster.uid_pool = [(1, 2)] if value is None else []
        self.cfg.Update(cluster)

    @rule()
    def Port(self):
        self.cfg.AddTcpUdpPort(self.cfg.AllocatePort())

    @rule(power=st.booleans(), seconds=st.integers(0, 1))
    def Restart(self, power, seconds):
        if power:
            self.rt.files.Crash()
        self.rt.clock.Advance(seconds)
        if self.cfg._engine.log._backlog:
            # What was not written down is lost with the process.
            return
        self.cfg = fake.OpenWriter(self.rt)

    @rule(where=st.sampled_from([("append", _LOG), ("sync", _LOG), ("write", _PATH)]))
    def Fail(self, where):
        self.rt.files.Fail(*where, times=1)
        try:
            self.cfg.SetVGName("failed")
        except errors.ConfigurationError:
            assert where[1] == _PATH
        self.rt.files.Heal()

    @rule()
    def Rotate(self):
        # At the next turn of the files the oldest records would be gone.
        if not self.rt.files.exists(_OLDER):
            self.cfg._engine.log._file_limit = 1
            self.cfg.AllocatePort()
            self.cfg._engine.log._file_limit = history.SIZE_LIMIT

    @invariant()
    def Look(self):
        if not hasattr(self, "cfg"):
            return
        self.keeper.Look()

    def teardown(self):
        if not hasattr(self, "cfg"):
            return
        # Whatever waits to be written down.
        self.cfg.AllocatePort()
        self.keeper.Look()
        for serial, content in self.keeper.files.items():
            try:
                found = _Export(self.cfg, serial)
            except errors.OpPrereqError as err:
                raise AssertionError(f"serial {serial}: {err}") from err
            assert found == content, f"serial {serial}"
        entries = self.cfg.history.List()["entries"]
        assert all(entry["missing"] is None for entry in entries)
        for entry in entries:
            self.cfg.history.Show(entry["serial"])


TestAnyChanges = _Machine.TestCase
TestAnyChanges.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_names_of_kinds():
    """The client puts a document together by these."""
    assert (claims.CLUSTER, claims.NODE, claims.INSTANCE) == ("cluster", "node", "instance")
    assert constants.CONFIG_VERSION
