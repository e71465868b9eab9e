"""The watcher's rules, state, runs and exit codes (BASE3)."""

import fcntl
import json
import logging
import os
import pathlib

import pytest

from ganeti import constants, errors, luxi, masterfailover, objects, pathutils
from ganeti.client import fake as client_fake
from ganeti.confd import client as confd_client
from ganeti.runtime import fake as runtime_fake
from ganeti.utils import process
from ganeti.watcher import decide, main, master, node, state

_TOOLS = pathlib.Path(__file__).parent.parent / "data" / "golden" / "tools"

NOW = 1_800_000_000.0


def _Attempts(count, when=NOW):
    return state.Attempts(count, when)


class TestDecideInstance:
    """Attempts 0 to 6 in every status."""

    @pytest.mark.parametrize(
        ("count", "action"),
        [
            (0, decide.Action.START),
            (1, decide.Action.START),
            (4, decide.Action.START),
            (5, decide.Action.GIVE_UP),
            (6, decide.Action.NOTHING),
            (7, decide.Action.NOTHING),
        ],
    )
    def test_down(self, count, action):
        record = _Attempts(count) if count else None
        assert decide.DecideInstance("ERROR_down", record) is action

    @pytest.mark.parametrize("status", ["ERROR_nodedown", "ERROR_nodeoffline"])
    def test_unknown(self, status):
        assert decide.DecideInstance(status, _Attempts(2)) is decide.Action.FORGET
        assert decide.DecideInstance(status, None) is decide.Action.NOTHING

    @pytest.mark.parametrize("status", ["running", "ADMIN_down", "ERROR_up"])
    def test_others(self, status):
        assert decide.DecideInstance(status, _Attempts(6)) is decide.Action.RECOVERED
        assert decide.DecideInstance(status, None) is decide.Action.NOTHING


class TestRecords:
    def test_outdated(self):
        attempts = {
            "young": _Attempts(1, NOW - 8 * 3600 + 1),
            "old": _Attempts(6, NOW - 8 * 3600),
            "gone": _Attempts(1),
            "future": _Attempts(1, NOW + 9 * 3600),
        }
        existing = {"young", "old", "future", "other"}
        assert decide.FindOutdated(attempts, existing, NOW) == ["old", "gone", "future"]

    def test_rebooted(self):
        nodes = [
            decide.NodeFacts("same", "a"),
            decide.NodeFacts("other", "b"),
            decide.NodeFacts("first", "c"),
            decide.NodeFacts("silent", None),
        ]
        known = state.State(boot_ids={"same": "a", "other": "a", "silent": "d", "removed": "e"})
        assert decide.FindRebooted(nodes, known) == ["other", "first"]
        assert decide.UpdateBootIds(nodes, known.boot_ids) == {
            "same": "a",
            "other": "b",
            "first": "c",
            "silent": "d",
        }

    def test_mirrors(self):
        def _Facts(name, secondaries, should_run=True):
            return decide.InstanceFacts(name, "running", should_run, secondaries)

        instances = [
            _Facts("concerned", ["n1"]),
            _Facts("elsewhere", ["n2"]),
            _Facts("alone", []),
            _Facts("stopped", ["n1"], should_run=False),
            _Facts("started", ["n1"]),
        ]
        assert decide.FindDisklessMirrors(instances, ["n1"], {"started"}) == ["concerned"]
        assert decide.FindDisklessMirrors(instances, [], ()) == []

    def test_inactive(self):
        assert decide.FindInactive(["a", "b"], {"b": [["node", "lv"]]}) == ["a"]


class TestFailover:
    """A master daemon that may have been stopped for a failover is left alone for a while."""

    @pytest.mark.parametrize(
        ("begun", "stopped", "waits"),
        [
            (None, None, False),
            (None, NOW - 1, True),
            (None, NOW - 299, True),
            (None, NOW - 300, False),
            (NOW - 10, None, True),
            (NOW - 1000, None, False),
            (NOW - 1000, NOW - 5, True),
            (None, NOW + 1000, False),
        ],
    )
    def test_wait(self, begun, stopped, waits):
        assert (decide.FindReasonToWait(NOW, begun, stopped) is not None) is waits


class TestState:
    def test_round_trip(self):
        kept = state.State({"inst": _Attempts(3, 12.5)}, {"node": "id"})
        text = state.Format(kept)
        assert json.loads(text) == {
            "instance": {"inst": {"restart_count": 3, "restart_when": 12.5}},
            "node": {"node": {"bootid": "id"}},
        }
        assert state.Parse(text) == kept

    @pytest.mark.parametrize(
        "text",
        ["{", "[]", "1", '{"instance": []}', '{"instance": {"i": {}}}', '{"node": {"n": 1}}']
        + ['{"instance": {"i": {"restart_count": 1e400, "restart_when": 1}}}'],
    )
    def test_broken(self, text):
        with pytest.raises(ValueError):
            state.Parse(text)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "watcher.data"


class TestStateFile:
    def _IsLocked(self, path):
        with open(path) as fobj:
            try:
                fcntl.flock(fobj, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def test_new(self, path):
        with state.StateFile.Open(str(path)) as found:
            assert found.Load() == state.State()
            assert path.stat().st_mode & 0o777 == 0o600
            assert self._IsLocked(path)
        assert not self._IsLocked(path)

    def test_busy(self, path):
        with state.StateFile.Open(str(path)), pytest.raises(BlockingIOError):
            state.StateFile.Open(str(path))

    def test_saving_keeps_the_lock(self, path):
        with state.StateFile.Open(str(path)) as found:
            inode = path.stat().st_ino
            found.Save(state.State(boot_ids={"n": "1"}))
            assert path.stat().st_ino != inode
            assert self._IsLocked(path)
            assert found.Load().boot_ids == {"n": "1"}
        with state.StateFile.Open(str(path)) as found:
            assert found.Load().boot_ids == {"n": "1"}

    def test_unchanged_is_touched(self, path):
        with state.StateFile.Open(str(path)) as found:
            found.Save(state.State(boot_ids={"n": "1"}))
            inode = path.stat().st_ino
            os.utime(path, (1, 1))
            found.Save(state.State(boot_ids={"n": "1"}))
            assert (path.stat().st_ino, path.stat().st_mtime > 1) == (inode, True)

    def test_broken_is_empty(self, path, caplog):
        path.write_text("{")
        with state.StateFile.Open(str(path)) as found:
            assert found.Load() == state.State()
        assert "Starting without the state" in caplog.text

    def test_replaced_while_it_was_opened(self, path, monkeypatch):
        """The lock of a file that is not there any more is worth nothing."""
        flock = fcntl.flock
        replaced = []

        def _Flock(fd, operation):
            if not replaced:
                replaced.append(fd)
                other = path.with_name("other")
                other.write_text(state.Format(state.State(boot_ids={"n": "2"})))
                other.rename(path)
            flock(fd, operation)

        monkeypatch.setattr(state.fcntl, "flock", _Flock)
        with state.StateFile.Open(str(path)) as found:
            assert self._IsLocked(path)
            assert found.Load().boot_ids == {"n": "2"}


class _Duty:
    """A run on the master against a fake one.

    @ivar instances: name -> [status, should it run, secondaries]
    @ivar nodes: name -> boot id
    """

    def __init__(self):
        self.cl = client_fake.FakeClient()
        self.rt = runtime_fake.NewRuntime()
        self.rt.clock.Advance(NOW - self.rt.clock.time())
        self.state = state.State()
        self.instances = {}
        self.nodes = {}
        self.cl.results.update(
            OP_INSTANCE_QUERY=lambda op: [[name, *row] for name, row in self.instances.items()],
            OP_NODE_QUERY=lambda op: [[name, boot_id] for name, boot_id in self.nodes.items()],
            OP_CLUSTER_VERIFY_DISKS=[{}, [], {}],
        )

    def Run(self):
        self.cl.instances = [
            {"name": name, "status": row[0]} for name, row in self.instances.items()
        ]
        self.cl.submitted.clear()
        master.MasterDuty(self.cl, self.state, self.rt).Run(3600)

    def Submitted(self, op_id):
        """Instances of the jobs with this opcode."""
        return [ops[0]["instance_name"] for ops in self.cl.submitted if ops[0]["OP_ID"] == op_id]


@pytest.fixture
def duty():
    return _Duty()


START = "OP_INSTANCE_STARTUP"
ACTIVATE = "OP_INSTANCE_ACTIVATE_DISKS"


class TestMaster:
    def test_order(self, duty):
        duty.Run()
        ops = [[op["OP_ID"] for op in job] for job in duty.cl.submitted]
        assert ops == [["OP_INSTANCE_QUERY", "OP_NODE_QUERY"], ["OP_CLUSTER_VERIFY_DISKS"]]
        assert duty.cl.submitted[0][0]["use_locking"] is True
        assert ("AutoArchiveJobs", 3600) in duty.cl.calls
        assert duty.cl.jobs == {}, "both are archived"

    def test_status_file(self, duty):
        duty.instances = {"a": ["running", True, []], "b": ["ADMIN_down", False, []]}
        duty.Run()
        content = duty.rt.files.read(pathutils.INSTANCE_UPFILE)
        assert content == b"a running\nb ADMIN_down\n"

    def test_start(self, duty):
        duty.instances = {"a": ["ERROR_down", True, []], "b": ["running", True, []]}
        duty.Run()
        assert duty.Submitted(START) == ["a"]
        assert duty.state.attempts == {"a": _Attempts(1)}

    def test_failed_start_counts(self, duty, caplog):
        duty.cl.results[START] = errors.OpExecError("no memory")
        duty.instances = {"a": ["ERROR_down", True, []]}
        for count in (1, 2):
            duty.Run()
            assert duty.state.attempts["a"].count == count
        assert "Can't restart a: no memory" in caplog.text

    def test_giving_up_and_trying_again(self, duty, caplog):
        """After eight hours the attempts begin again."""
        duty.cl.results[START] = errors.OpExecError("no memory")
        duty.instances = {"a": ["ERROR_down", True, []]}
        tried = []
        for _ in range(10):
            duty.Run()
            tried += duty.Submitted(START)
            duty.rt.clock.Advance(300)
        assert tried == ["a"] * 5
        assert caplog.text.count("Giving up on a") == 1
        duty.rt.clock.Advance(8 * 3600)
        duty.Run()
        assert duty.Submitted(START) == ["a"]

    def test_many(self, duty):
        """No more than a few at the same time."""
        duty.instances = {f"i{number}": ["ERROR_down", True, []] for number in range(25)}
        duty.Run()
        batches = [len(jobs) for name, jobs in duty.cl.calls if name == "SubmitManyJobs"]
        assert batches == [10, 10, 5]
        assert len(duty.Submitted(START)) == 25

    def test_shut_down_meanwhile(self, duty):
        """Its owner was faster."""
        duty.instances = {"a": ["ERROR_down", True, []]}
        duty.cl.results["OP_INSTANCE_QUERY"] = [
            [name, "ERROR_down", True, []] for name in ("a", "b", "removed")
        ]
        duty.instances["b"] = ["ADMIN_down", False, []]
        duty.Run()
        assert duty.Submitted(START) == ["a"]
        assert set(duty.state.attempts) == {"a"}

    def test_full_queue(self, duty, monkeypatch):
        """What was not even tried is no attempt."""
        duty.instances = {"a": ["ERROR_down", True, []]}
        monkeypatch.setattr(
            duty.cl, "SubmitManyJobs", lambda jobs: [[False, "queue is full"] for _ in jobs]
        )
        duty.Run()
        assert duty.state.attempts == {}

    def test_lost_master(self, duty, monkeypatch):
        """An error of the conversation is none of the instance."""

        def _Fail(*args, **kwargs):
            raise luxi.ConnectionClosedError("gone")

        duty.instances = {"a": ["ERROR_down", True, []]}
        monkeypatch.setattr(duty.cl, "SubmitManyJobs", _Fail)
        with pytest.raises(luxi.ConnectionClosedError):
            duty.Run()

    def test_records_of_others_go(self, duty):
        duty.state.attempts = {"gone": _Attempts(3), "back": _Attempts(2), "lost": _Attempts(2)}
        duty.instances = {"back": ["running", True, []], "lost": ["ERROR_nodedown", True, []]}
        duty.Run()
        assert duty.state.attempts == {}

    def test_reboot(self, duty):
        duty.instances = {
            "mirrored": ["running", True, ["n2"]],
            "stopped": ["ADMIN_down", False, ["n2"]],
            "down": ["ERROR_down", True, ["n2"]],
        }
        duty.nodes = {"n1": "a", "n2": "b"}
        duty.state.boot_ids = {"n1": "a", "n2": "a"}
        duty.Run()
        assert duty.Submitted(ACTIVATE) == ["mirrored"]
        assert duty.state.boot_ids == {"n1": "a", "n2": "b"}
        duty.Run()
        assert duty.Submitted(ACTIVATE) == []

    def test_failed_start_needs_its_disks(self, duty):
        duty.cl.results[START] = errors.OpExecError("no memory")
        duty.instances = {"down": ["ERROR_down", True, ["n2"]]}
        duty.nodes = {"n2": "b"}
        duty.Run()
        assert duty.Submitted(ACTIVATE) == ["down"]

    def test_failed_activation(self, duty, caplog):
        """It is said, and the boot is known all the same."""
        duty.cl.results[ACTIVATE] = errors.OpExecError("no device")
        duty.instances = {"a": ["running", True, ["n2"]]}
        duty.nodes = {"n2": "b", "n3": None}
        duty.Run()
        assert "Can't activate the disks of a: no device" in caplog.text
        assert duty.state.boot_ids == {"n2": "b"}

    def test_inactive_disks(self, duty, caplog):
        """Those with missing volumes can not be helped, but are told of; as are nodes."""
        duty.cl.results["OP_CLUSTER_VERIFY_DISKS"] = [
            {"n3": "no answer"},
            ["a", "b"],
            {"b": [["n1", "lv1"]]},
        ]
        duty.instances = {name: ["running", True, []] for name in ("a", "b")}
        duty.Run()
        assert duty.Submitted(ACTIVATE) == ["a"]
        assert "Node n3" in caplog.text and "b lacks volumes" in caplog.text


class TestFollowJob:
    def test_until_the_end(self):
        cl = client_fake.FakeClient()
        job = client_fake.FakeJob("7", [{"OP_ID": "OP_X"}], ["result"], [])
        job.steps = [("queued", []), "nochange", ("running", [[1, [1, 0], "m", "x"]])]
        job.steps += [("canceling", []), ("success", [])]
        cl.jobs["7"] = job
        assert master.FollowJob(cl, "7") == ["result"]
        waits = [args[2:4] for name, args in cl.calls if name == "WaitForJobChange"]
        assert waits[0] == (None, None)
        assert waits[-1] == (["canceling"], 1)

    def test_unknown(self):
        with pytest.raises(errors.JobLost):
            master.FollowJob(client_fake.FakeClient(), "8")


def _Answer(status=0, answer=2, **values):
    reply = objects.ConfdReply(protocol=1, status=status, answer=answer, serial=7)
    known = {
        "reply": reply,
        "server_ip": "192.0.2.1",
        "consistent": True,
        "agreeing": 2,
        "sent": 2,
        "received": 2,
        "timed_out": False,
    }
    return confd_client.Answer(**{**known, **values})


class TestRole:
    """Nothing is ended unless enough candidates agree that the node is offline."""

    def test_offline(self):
        assert node.DescribeRole(_Answer())[0] == constants.CONFD_NODE_ROLE_OFFLINE

    def test_other(self):
        assert node.DescribeRole(_Answer(answer=4))[0] == constants.CONFD_NODE_ROLE_REGULAR

    @pytest.mark.parametrize(
        "values",
        [
            {"timed_out": True},
            {"reply": None},
            {"consistent": False},
            {"status": constants.CONFD_REPL_STATUS_ERROR},
            {"agreeing": 1},
            {"agreeing": 3, "sent": 7, "received": 7},
        ],
        ids=str,
    )
    def test_unclear(self, values):
        role, why = node.DescribeRole(_Answer(**values))
        assert role is None
        assert why


class TestDrbd:
    @pytest.mark.parametrize(
        ("name", "version", "minors"),
        [
            ("proc_drbd8.txt", (8, 0), [0, 1, 4, 5, 6, 7, 8]),
            ("proc_drbd83.txt", (8, 3), [0, 1, 4, 5, 6, 7, 8]),
            ("proc_drbd84.txt", (8, 4), [0, 1, 4, 6, 8]),
            ("proc_drbd80-emptyversion.txt", (8, 0), [0]),
        ],
    )
    def test_devices(self, name, version, minors):
        assert node.FindDrbdDevices((_TOOLS / name).read_text()) == (version, minors)

    @pytest.mark.parametrize(
        ("version", "argv"),
        [
            ((8, 3), ["drbdsetup", "/dev/drbd5", "down"]),
            ((8, 4), ["drbdsetup", "down", "resource5"]),
            ((9, 2), ["drbdsetup", "down", "resource5"]),
        ],
    )
    def test_commands(self, version, argv):
        processes = runtime_fake.FakeProcesses()
        resources = [{"name": "resource5"}, {"name": "of-others"}]
        processes.Answer("drbdsetup status --json", json.dumps(resources))
        rt = runtime_fake.NewRuntime(processes=processes)
        assert list(node._DownCommands(version, [5], rt)) == [argv]


class _Connection(client_fake.FakeClient):
    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


class TestMain:
    """Exit codes."""

    @pytest.fixture(autouse=True)
    def _Node(self, monkeypatch):
        for directory in (pathutils.DATA_DIR, pathutils.LOG_DIR, pathutils.SOCKET_DIR):
            os.makedirs(directory)
        for path, content in (
            (pathutils.ETC_HOSTS, "127.0.0.1 node1.example.com\n"),
            (pathutils.NODED_CERT_FILE, ""),
            (f"{pathutils.DATA_DIR}/ssconf_master_node", "node1.example.com\n"),
        ):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            pathlib.Path(path).write_text(content)
        self.ensured = []
        self.running = True
        monkeypatch.setattr(process, "EnsureDaemon", self._Ensure)
        yield
        logging.getLogger().handlers.clear()

    def _Ensure(self, name):
        self.ensured.append(name)
        return self.running

    def _Log(self):
        return pathlib.Path(pathutils.LOG_WATCHER).read_text()

    @pytest.fixture
    def cl(self, monkeypatch):
        cl = _Connection()
        cl.config_values["master_node"] = "node1.example.com"
        cl.results.update(
            OP_INSTANCE_QUERY=[], OP_NODE_QUERY=[["n", "b"]], OP_CLUSTER_VERIFY_DISKS=[{}, [], {}]
        )
        os.makedirs(pathutils.RUN_GANETI_DIR, exist_ok=True)
        monkeypatch.setattr(main.luxi, "Client", lambda: cl)
        return cl

    def _State(self):
        return json.loads(pathlib.Path(pathutils.WATCHER_STATEFILE).read_text())

    def test_fine(self, cl):
        assert main.Main([]) == 0
        assert self._State()["node"] == {"n": {"bootid": "b"}}
        assert self.ensured == ["ganeti-noded", "ganeti-confd", "ganeti-rapi"]

    def test_no_cluster(self):
        os.unlink(pathutils.NODED_CERT_FILE)
        assert main.Main([]) == 0
        assert self.ensured == []
        assert not os.path.exists(pathutils.LOG_WATCHER)

    def test_incomplete(self):
        os.unlink(f"{pathutils.DATA_DIR}/ssconf_master_node")
        assert main.Main([]) == 0

    def test_own_name_unknown(self):
        os.unlink(pathutils.ETC_HOSTS)
        assert main.Main([]) == constants.EXIT_NODESETUP_ERROR

    def test_not_the_master(self):
        path = pathlib.Path(f"{pathutils.DATA_DIR}/ssconf_master_node")
        path.write_text("node2.example.com\n")
        state_file = pathlib.Path(pathutils.WATCHER_STATEFILE)
        state_file.write_text("kept")
        os.utime(state_file, (1, 1))
        assert main.Main([]) == 0
        assert self.ensured == ["ganeti-noded", "ganeti-confd"]
        assert (state_file.read_text(), state_file.stat().st_mtime > 1) == ("kept", True)

    def test_not_the_configured_master(self, cl):
        cl.config_values["master_node"] = "node2.example.com"
        assert main.Main([]) == constants.EXIT_NOTMASTER
        assert cl.submitted == []

    def test_locked(self):
        with state.StateFile.Open():
            assert main.Main([]) == 1
        assert self.ensured == []

    def test_master_can_not_be_started(self):
        os.rmdir(pathutils.SOCKET_DIR)
        self.running = False
        assert main.Main([]) == 1
        assert self.ensured[-1] == "ganeti-masterd"

    def test_failover_under_way(self):
        """Neither the stopped daemon of the old master nor that of the new one are touched."""
        assert main.Main([]) == 0, "the directory of the socket is new"
        past = 1
        os.utime(pathutils.SOCKET_DIR, (past, past))
        pathlib.Path(masterfailover.FAILOVER_FILE).write_text("{}")
        assert main.Main([]) == 0
        assert "ganeti-masterd" not in self.ensured
        os.utime(masterfailover.FAILOVER_FILE, (past, past))
        self.running = False
        assert main.Main([]) == 1
        assert self.ensured[-1] == "ganeti-masterd"

    def test_killed_master(self):
        """It left its socket: nobody meant that."""
        pathlib.Path(pathutils.MASTER_SOCKET).write_text("")
        self.running = False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(main.luxi, "Client", _Raise(luxi.NoMasterError("x")))
            assert main.Main([]) == 1
        assert self.ensured[-1] == "ganeti-masterd"

    def test_drained(self, cl):
        """What was done before counts."""
        cl.config_values["drain_flag"] = True
        assert main.Main([]) == 0
        assert self._State() == {"instance": {}, "node": {}}

    def test_unexpected(self, cl):
        cl.results["OP_INSTANCE_QUERY"] = [["too", "few"]]
        pathlib.Path(pathutils.WATCHER_STATEFILE).write_text("before")
        assert main.Main([]) == 1
        assert "Unexpected error" in self._Log()
        assert pathlib.Path(pathutils.WATCHER_STATEFILE).read_text() == "before"

    def test_paused(self, cl):
        pathlib.Path(pathutils.WATCHER_PAUSEFILE).write_text("99999999999\n")
        with state.StateFile.Open():
            assert main.Main([]) == 0, "not even the lock is looked at"
        assert (self.ensured, cl.calls) == ([], [])
        assert main.Main(["--ignore-pause"]) == 0
        assert self.ensured

    @pytest.mark.parametrize("content", ["x\n", "1\n"])
    def test_pause_that_is_none(self, cl, content):
        pathlib.Path(pathutils.WATCHER_PAUSEFILE).write_text(content)
        assert main.Main([]) == 0
        assert self.ensured
        assert not os.path.exists(pathutils.WATCHER_PAUSEFILE)

    @pytest.mark.parametrize(
        ("words", "age"), [([], 6 * 3600), (["-A", "2d"], 2 * 86400), (["--job-age=90"], 90)]
    )
    def test_job_age(self, cl, words, age):
        assert main.Main(words) == 0
        assert ("AutoArchiveJobs", age) in cl.calls


class _Raise:
    def __init__(self, err):
        self._err = err

    def __call__(self, *args, **kwargs):
        raise self._err
