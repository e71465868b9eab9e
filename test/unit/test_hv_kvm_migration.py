"""Migration of KVM guests with a scripted QEMU (TG1): every status, every failure."""

import json
import os
import stat
from pathlib import Path

import pytest

from ganeti import constants, errors, objects
from ganeti.hypervisor import (
    hv_kvm,
    kvm_capabilities,
    kvm_command,
    kvm_files,
    kvm_migration,
    kvm_net,
    kvm_qmp,
    kvm_runtime,
    kvm_stream,
)
from ganeti.runtime import fake

NAME = "inst1.example.com"
HVP = {
    **constants.HVC_DEFAULTS[constants.HT_KVM],
    "migration_port": 8102,
    "migration_bandwidth": 7,
    "migration_downtime": 55,
}
CAPS = kvm_capabilities.Capabilities(
    "/usr/bin/qemu", (7, 2, 22), "pc-i440fx-7.2", frozenset(["virtio-net-pci"])
)
#: What the words below do to the machine.
_EFFECTS = {"stop": "paused", "cont": "running"}


class Qemu:
    """The other end of the control socket: speaks QMP and has the state of a machine."""

    def __init__(self, clock):
        self._clock = clock
        self.state = "running"
        #: Answers to query-migrate, the last one stays; or a state to go to at that time.
        self.migration = [{}]
        self.fail = set()
        self.silent = set()
        self.closed = False
        self.log = []
        self.files = {}
        self.incoming = {"socket-address": [{"type": "inet", "host": "x", "port": "8103"}]}
        self.on_cancel = "cancelled"

    def Connect(self, path, timeout):
        if self.closed:
            raise ConnectionRefusedError("nobody there")
        return Session(self)

    def Answer(self, command, arguments):
        if command in self.fail:
            return {"error": {"class": "GenericError", "desc": f"{command} is broken"}}
        return {"return": self._Do(command, arguments)}

    def _Do(self, command, arguments):
        if command == "query-status":
            if isinstance(self.state, list):
                return {"status": self.state.pop(0) if len(self.state) > 1 else self.state[0]}
            return {"status": self.state}
        if command == "query-migrate":
            if self.log and self.log[-1][0] == "migrate-incoming":
                return self.incoming
            return self.migration.pop(0) if len(self.migration) > 1 else self.migration[0]
        if command == "human-monitor-command":
            return r"nic0: x" + "\r\n" + r" \ net0: index=0,type=tap,ifname=tap9"
        if command != "qmp_capabilities":
            self.log.append((command, *arguments.values()))
        if command == "migrate_cancel":
            self.migration = [{"status": self.on_cancel}]
        self.state = _EFFECTS.get(command, self.state)
        return {}

    def Words(self, *without):
        return [words[0] for words in self.log if words[0] not in without]


class Session:
    """One connection to it."""

    def __init__(self, qemu):
        self._qemu = qemu
        self._out = json.dumps(
            {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}}}
        ).encode()
        self._out += b"\n"
        self._in = b""

    def settimeout(self, value):
        self._timeout = value

    def sendmsg(self, buffers, ancillary):
        ((_, _, rights),) = ancillary
        self._fd = rights
        self._in += buffers[0]
        return len(buffers[0])

    def sendall(self, data):
        self._in += data
        while b"\n" in self._in:
            line, _, self._in = self._in.partition(b"\n")
            request = json.loads(line)
            command = request["execute"]
            if command not in self._qemu.silent:
                answer = self._qemu.Answer(command, request.get("arguments", {}))
                self._out += json.dumps({"id": request["id"], **answer}).encode() + b"\n"

    def recv(self, size):
        if not self._out:
            self._qemu._clock.sleep(self._timeout)
            raise TimeoutError
        data, self._out = self._out[:size], self._out[size:]
        return data

    def close(self):
        pass


class Stream:
    closed = False

    def fileno(self):
        return 99

    def close(self):
        self.closed = True


class Machine:
    """An instance on this node, with a QEMU that is scripted."""

    def __init__(self, tmp_path):
        self.rt = fake.NewRuntime(files=hv_kvm.runtime.DEFAULT.files)
        self.paths = kvm_files.Paths(NAME, str(tmp_path / "R"), str(tmp_path / "L"))
        for path, _ in kvm_files.Directories(str(tmp_path / "R"), str(tmp_path / "L")):
            os.makedirs(path, exist_ok=True)
        self.qemu = Qemu(self.rt.clock)
        self.dialled = []
        self.stream = Stream()

    def Qmp(self):
        return kvm_qmp.QmpClient(self.paths.qmp, rt=self.rt, connect=self.qemu.Connect)

    def _Dial(self, address, port):
        self.dialled.append((address, port))
        return self.stream

    @property
    def source(self):
        """A new one each time, as after a restart of the daemon."""
        return kvm_migration.Source(self.paths, self.rt, self.Qmp, self._Dial)

    @property
    def target(self):
        return kvm_migration.Target(self.paths, self.rt, self.Qmp)

    def Start(self, target="192.0.2.2:8103", live=True):
        self.source.Start(os.getpid(), target, live, HVP, "abcd")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def _Note(**values):
    return kvm_migration.Outgoing(
        **{"target": "192.0.2.2:8102", "was_paused": False, "started": 0.0, "moved_at": 0.0}
        | values
    )


class TestEndpoint:
    """TG1: the target says which port it has got."""

    @pytest.mark.parametrize(
        ("address", "port", "text"),
        [
            ("192.0.2.1", 8102, "192.0.2.1:8102"),
            ("2001:db8::1", 8103, "[2001:db8::1]:8103"),
            ("node2.example.com", 1, "node2.example.com:1"),
        ],
    )
    def test_both_ways(self, address, port, text):
        assert kvm_stream.FormatEndpoint(address, port) == text
        assert kvm_stream.ParseEndpoint(text, 9) == (address, port)

    @pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "node2"])
    def test_an_address_alone(self, address):
        """As the master of another release sends it."""
        assert kvm_stream.ParseEndpoint(address, 8102) == (address, 8102)


class TestKey:
    """SEC: who does not know the cluster's key can not read the stream."""

    PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----\nrest\n"

    def test_derived(self):
        key = kvm_stream.DeriveKey(self.PEM, NAME)
        assert len(bytes.fromhex(key)) == 32
        assert key == kvm_stream.DeriveKey(self.PEM.replace("A\n", "A\r\n  "), NAME)
        others = (
            kvm_stream.DeriveKey(self.PEM, "inst2"),
            kvm_stream.DeriveKey(self.PEM.replace("BBBB", "BBBC"), NAME),
        )
        assert key not in others
        assert "AAAA" not in key

    @pytest.mark.parametrize(
        "pem", ["", "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"]
    )
    def test_no_key(self, pem):
        with pytest.raises(errors.HypervisorError, match="no private key"):
            kvm_stream.DeriveKey(pem, NAME)

    def test_private_file(self, machine):
        os.umask(0)
        try:
            place = kvm_stream.KeyPlace.Of(machine.paths, os.getpid())
            place.Write(machine.rt, "abcd")
            place.Write(machine.rt, "abcde")
        finally:
            os.umask(0o022)
        directory = Path(machine.paths.tls)
        assert (directory / "keys.psk").read_text() == "qemu:abcde\n"
        for path in directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        kvm_stream.RemoveKey(machine.paths)
        kvm_stream.RemoveKey(machine.paths)
        assert not os.path.exists(machine.paths.tls)

    def test_process_has_ended(self, machine):
        with pytest.raises(errors.HypervisorError, match="has ended"):
            kvm_stream.KeyPlace.Of(machine.paths, 2**22 + 1)


RAM = {"transferred": 1000, "total": 9000, "remaining": 5 * 2**20, "dirty-sync-count": 1}


class TestJudge:
    """TG1: what QEMU says becomes one of four words, and a stuck migration has failed."""

    @pytest.mark.parametrize(
        ("answer", "status", "message"),
        [
            ({}, "failed", "no migration was started"),
            ({"status": "none"}, "failed", "no migration was started"),
            ({"status": "failed"}, "failed", "does not say why"),
            ({"status": "failed", "error-desc": "broken pipe"}, "failed", "broken pipe"),
            ({"status": "cancelled"}, "cancelled", "was cancelled"),
            ({"status": "cancelling"}, "cancelled", "was cancelled"),
            ({"status": "completed"}, "completed", ""),
            *(
                ({"status": word}, "active", word)
                for word in ("setup", "active", "pre-switchover", "device", "wait-unplug", "later")
            ),
        ],
    )
    @pytest.mark.parametrize("ram", [{}, {"ram": RAM}, {"ram": None}])
    def test_status(self, answer, status, message, ram):
        found, note = kvm_migration.Judge({**answer, **ram}, _Note(), 59.9)
        assert found.status == status
        assert message in found.message
        assert found.status in constants.MIGRATION_STATUSES
        assert note.complete == (status == "completed")

    def test_numbers(self):
        answer = {"status": "active", "expected-downtime": 300, "ram": RAM}
        found, note = kvm_migration.Judge(answer, _Note(), 1.0)
        assert found.ToDict() == {
            "status": "active",
            "transferred_ram": 1000,
            "total_ram": 9000,
            "downtime": 300,
            "message": "active, 5 MiB left",
        }
        assert (note.transferred, note.moved_at) == (1000, 1.0)
        answer = {"status": "completed", "expected-downtime": 300, "downtime": 12, "ram": RAM}
        assert kvm_migration.Judge(answer, note, 2.0)[0].downtime == 12

    @pytest.mark.parametrize("word", ["setup", "active", "device", "later"])
    def test_stuck(self, word):
        answer = {"status": word, "ram": RAM}
        note = kvm_migration.Judge(answer, _Note(), 100.0)[1]
        assert kvm_migration.Judge(answer, note, 159.9)[0].status == "active"
        found, _ = kvm_migration.Judge(answer, note, 160.0)
        assert found.status == "failed"
        assert "nothing was sent to 192.0.2.2:8102 for 60 seconds" in found.message
        assert word in found.message
        more = {"status": word, "ram": {**RAM, "transferred": 1001}}
        assert kvm_migration.Judge(more, note, 160.0)[0].status == "active"

    def test_stuck_while_the_guest_stands_still(self):
        answer = {"status": "active", "ram": RAM}
        note = kvm_migration.Judge(answer, _Note(), 100.0)[1]
        assert kvm_migration.Judge(answer, note, 114.9, "finish-migrate")[0].status == "active"
        assert kvm_migration.Judge(answer, note, 115.0, "finish-migrate")[0].status == "failed"

    def test_does_not_converge(self):
        def _Round(transferred, rounds, now, note):
            ram = {**RAM, "transferred": transferred * 2**20, "dirty-sync-count": rounds}
            return kvm_migration.Judge({"status": "active", "ram": ram}, note, now)

        _, note = _Round(400, 1, 10.0, _Note())
        assert note.first_pass is None
        _, note = _Round(500, 2, 12.0, note)
        assert note.first_pass == 500 * 2**20
        # Three times the first pass on top of it, but not for long yet.
        assert _Round(2000, 9, 59.0, note)[0].status == "active"
        assert _Round(1999, 9, 61.0, note)[0].status == "active"
        found, _ = _Round(2000, 9, 61.0, note)
        assert found.status == "failed"
        assert "does not converge" in found.message
        assert "1500 MiB were sent and 5 MiB are left" in found.message

    def test_small_guests_get_their_time(self):
        ram = {**RAM, "transferred": 700 * 2**20, "dirty-sync-count": 50}
        found, _ = kvm_migration.Judge(
            {"status": "active", "ram": ram}, _Note(first_pass=2**20), 1e3
        )
        assert found.status == "active"

    def test_silence(self):
        found, note = kvm_migration.JudgeSilence("no answer", _Note(transferred=5), 100.0)
        assert (found.status, found.message, found.transferred_ram) == ("active", "no answer", 5)
        assert kvm_migration.JudgeSilence("no answer", note, 129.9)[0].status == "active"
        assert kvm_migration.JudgeSilence("no answer", note, 130.0)[0].status == "failed"
        # An answer in between makes it begin anew.
        _, note = kvm_migration.Judge({"status": "active"}, note, 129.0)
        assert note.silent_since is None

    @pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"x": 1}'])
    def test_notes_that_are_none(self, text):
        assert kvm_migration.Outgoing.Decode(text) is None
        note = _Note(first_pass=3, silent_since=1.5, complete=True)
        assert kvm_migration.Outgoing.Decode(note.Encode()) == note


#: Of a start, each of which can fail.
_STEPS = ("migrate-set-capabilities", "object-add", "migrate-set-parameters", "getfd", "migrate")


class TestStart:
    """TG1: a migration that can not be started leaves the guest as it was."""

    def test_live(self, machine):
        machine.Start()
        assert machine.dialled == [("192.0.2.2", 8103)]
        priority = kvm_stream._TLS_PRIORITY
        assert machine.qemu.log == [
            ("migrate-set-capabilities", [{"capability": "return-path", "state": True}]),
            ("object-del", "migration-tls"),
            ("object-add", machine.paths.tls, "client", "migration-tls", priority, "tls-creds-psk"),
            ("migrate-set-parameters", "migration-tls"),
            ("migrate-set-parameters", 55, 7 * 2**20, "192.0.2.2"),
            ("getfd", "migration"),
            ("migrate", "fd:migration"),
        ]
        assert machine.stream.closed
        assert not os.path.exists(machine.paths.tls)
        assert machine.source.IsLeaving()

    def test_not_live_is_stopped_just_before(self, machine):
        machine.Start(live=False)
        assert machine.qemu.Words()[-3:] == ["stop", "getfd", "migrate"]

    def test_address_alone(self, machine):
        machine.Start("192.0.2.9")
        assert machine.dialled == [("192.0.2.9", 8102)]

    @pytest.mark.parametrize(
        ("word", "live"),
        [
            ("stop", False),
            *((word, True) for word in _STEPS),
            *((word, False) for word in _STEPS),
        ],
    )
    @pytest.mark.parametrize("how", ["fail", "silent"])
    def test_failure(self, machine, word, live, how):
        getattr(machine.qemu, how).add(word)
        with pytest.raises(kvm_qmp.QmpError, match=word):
            machine.Start(live=live)
        assert machine.qemu.state == "running"
        assert machine.stream.closed
        # Without an answer it may yet do what it was told: then there is more to undo.
        assert machine.source.IsLeaving() == (how == "silent")
        assert not os.path.exists(machine.paths.tls)
        machine.source.GoOn()
        assert not machine.source.IsLeaving()

    def test_guest_that_was_paused_stays_so(self, machine):
        machine.qemu.state = "paused"
        machine.qemu.fail.add("migrate")
        with pytest.raises(kvm_qmp.QmpError):
            machine.Start()
        assert machine.qemu.state == "paused"

    def test_no_answer_to_the_undoing(self, machine, caplog):
        """What is needed to try again stays."""
        machine.qemu.fail |= {"migrate", "cont"}
        with pytest.raises(kvm_qmp.QmpError, match="migrate is broken"):
            machine.Start(live=False)
        assert "may stand still" in caplog.text
        machine.qemu.fail.clear()
        machine.source.GoOn()
        assert machine.qemu.state == "running"

    @pytest.mark.parametrize("state", ["inmigrate", "postmigrate", "finish-migrate"])
    def test_guest_is_not_here(self, machine, state):
        machine.qemu.state = state
        with pytest.raises(errors.HypervisorError, match=state):
            machine.Start()
        assert machine.qemu.log == []

    def test_another_one_is_under_way(self, machine):
        machine.qemu.migration = [{"status": "active"}]
        with pytest.raises(errors.HypervisorError, match="under way"):
            machine.Start()


class TestStatus:
    """TG1: the source always says how it is, whatever has become of its QEMU."""

    def test_over_several_daemons(self, machine):
        machine.Start()
        machine.qemu.migration = [
            {"status": "setup"},
            {"status": "active", "ram": RAM},
            {"status": "active", "ram": RAM},
            {"status": "active", "ram": RAM},
        ]
        seen = []
        for _ in range(4):
            seen.append(machine.source.Status(True).status)
            machine.rt.clock.sleep(30)
        assert seen == ["active", "active", "active", "failed"]

    def test_completed_stays_completed(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "completed", "downtime": 5}]
        assert machine.source.Status(True).downtime == 5
        machine.qemu.closed = True
        assert machine.source.Status(False).status == "completed"

    def test_process_has_ended(self, machine):
        machine.Start()
        Path(machine.paths.log).write_text("out of memory\n")
        found = machine.source.Status(False)
        assert found.status == "failed"
        assert "ended on the source: out of memory" in found.message

    @pytest.mark.parametrize("how", ["silent", "closed", "garbage"])
    def test_no_answer(self, machine, how, monkeypatch):
        machine.Start()
        if how == "silent":
            machine.qemu.silent.add("query-migrate")
        elif how == "closed":
            machine.qemu.closed = True
        else:
            monkeypatch.setattr(Session, "recv", lambda *_: b"what?\n")
        assert machine.source.Status(True).status == "active"
        machine.rt.clock.sleep(31)
        assert machine.source.Status(True).status == "failed"

    def test_nothing_was_started(self, machine):
        found = machine.source.Status(True)
        assert (found.status, found.message) == ("failed", "no migration was started")
        assert not machine.source.IsLeaving()


class TestCancel:
    """TG1: after cancelling the guest runs at the source."""

    def test_live(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "active"}]
        machine.source.Cancel()
        assert machine.qemu.Words()[-1] == "migrate_cancel"
        assert machine.source.Status(True).status == "cancelled"

    def test_not_live(self, machine):
        machine.Start(live=False)
        machine.qemu.migration = [{"status": "active"}]
        machine.source.Cancel()
        assert machine.qemu.state == "running"

    def test_too_late(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "completed"}]
        machine.qemu.state = "postmigrate"
        machine.source.Cancel()
        assert machine.qemu.state == "postmigrate"
        assert "migrate_cancel" not in machine.qemu.Words()

    def test_just_too_late(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "active"}]
        machine.qemu.on_cancel = "completed"
        machine.qemu.state = "postmigrate"
        machine.source.Cancel()
        assert machine.qemu.state == "postmigrate"

    def test_other_end_is_silent(self, machine):
        machine.Start(live=False)
        machine.qemu.migration = [{"status": "setup"}]
        machine.qemu.on_cancel = "cancelling"
        machine.source.Cancel()
        assert machine.qemu.state == "running"

    def test_not_possible(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "device"}]
        machine.qemu.on_cancel = "device"
        with pytest.raises(errors.HypervisorError, match=r"device.*15 seconds"):
            machine.source.Cancel()

    def test_guest_does_not_go_on(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "active"}]
        machine.qemu.state = "finish-migrate"
        with pytest.raises(errors.HypervisorError, match="does not go on"):
            machine.source.Cancel()


class TestGoOn:
    """TG1: after a failure the guest runs at the source, as often as that is asked for."""

    @pytest.mark.parametrize("state", ["running", "paused", "postmigrate"])
    @pytest.mark.parametrize("status", ["failed", "cancelled", "completed", "active"])
    def test_runs(self, machine, state, status):
        machine.Start()
        machine.qemu.state = state
        machine.qemu.migration = [{"status": status}]
        for _ in range(2):
            machine.source.GoOn()
            assert machine.qemu.state == "running"
            assert not machine.source.IsLeaving()

    def test_switching(self, machine):
        machine.Start()
        machine.qemu.migration = [{"status": "failed"}]
        machine.qemu.state = ["finish-migrate", "finish-migrate", "postmigrate", "running"]
        machine.source.GoOn()
        assert "cont" in machine.qemu.Words()

    def test_paused_by_somebody_else(self, machine):
        machine.qemu.state = "paused"
        machine.Start()
        machine.qemu.migration = [{"status": "failed"}]
        machine.source.GoOn()
        assert machine.qemu.state == "paused"

    def test_nothing_known(self, machine):
        """Without a migration a guest that is paused was paused by somebody."""
        machine.qemu.state = "paused"
        machine.source.GoOn()
        assert machine.qemu.state == "paused"

    def test_no_answer(self, machine):
        machine.Start()
        machine.qemu.closed = True
        with pytest.raises(kvm_qmp.QmpError, match="nobody there"):
            machine.source.GoOn()
        assert machine.source.IsLeaving()


class TestTarget:
    """TG1: the target says where it waits, and that the guest runs only once it does."""

    def test_listen(self, machine):
        with machine.Qmp() as qmp:
            found = machine.target.Listen(qmp, os.getpid(), "192.0.2.2", 8102, "abcd")
        assert found == "192.0.2.2:8103"
        assert machine.qemu.log[-1] == ("migrate-incoming", "tcp:192.0.2.2:8102,to=8165")
        assert "object-add" in machine.qemu.Words()
        # QEMU reads it when the source comes.
        assert os.path.exists(f"{machine.paths.tls}/keys.psk")
        machine.target.Forget()
        assert not os.path.exists(machine.paths.tls)

    def test_listen_ipv6_and_last_port(self, machine):
        with machine.Qmp() as qmp:
            found = machine.target.Listen(qmp, os.getpid(), "2001:db8::2", 65530, "abcd")
        assert found == "[2001:db8::2]:8103"
        assert machine.qemu.log[-1] == ("migrate-incoming", "tcp:[2001:db8::2]:65530,to=65535")

    @pytest.mark.parametrize("answer", [{}, {"socket-address": []}, {"socket-address": [{}]}])
    def test_port_is_not_said(self, machine, answer):
        machine.qemu.incoming = answer
        with machine.Qmp() as qmp, pytest.raises(kvm_qmp.QmpError, match="where it listens"):
            machine.target.Listen(qmp, os.getpid(), "192.0.2.2", 8102, "abcd")

    def test_busy(self, machine):
        machine.qemu.fail.add("migrate-incoming")
        with machine.Qmp() as qmp, pytest.raises(kvm_qmp.QmpError, match="migrate-incoming"):
            machine.target.Listen(qmp, os.getpid(), "192.0.2.2", 8102, "abcd")

    def test_expected(self, machine):
        assert not machine.target.Expected()
        machine.target.Announce()
        assert machine.target.Expected()
        machine.target.Forget()
        assert not machine.target.Expected()

    @pytest.mark.parametrize(
        ("state", "arrived"),
        [
            ("inmigrate", False),
            ("prelaunch", False),
            ("paused", False),
            ("running", True),
            ("io-error", True),
        ],
    )
    def test_has_arrived(self, machine, state, arrived):
        machine.qemu.state = state
        assert machine.target.HasArrived() == arrived

    def test_wait(self, machine):
        machine.qemu.state = ["inmigrate", "inmigrate", "running"]
        machine.target.WaitUntilRunning(lambda: True)
        assert machine.rt.clock.monotonic() < 1

    def test_wait_for_a_stopped_one(self, machine):
        machine.qemu.state = "paused"
        machine.target.WaitUntilRunning(lambda: True)
        assert machine.qemu.state == "running"

    def test_wait_in_vain(self, machine):
        machine.qemu.state = "inmigrate"
        with pytest.raises(errors.HypervisorError, match="60 seconds.*inmigrate"):
            machine.target.WaitUntilRunning(lambda: True)

    def test_wait_for_a_silent_one(self, machine):
        machine.qemu.closed = True
        with pytest.raises(errors.HypervisorError, match="60 seconds.*nobody there"):
            machine.target.WaitUntilRunning(lambda: True)

    def test_ended(self, machine):
        Path(machine.paths.log).write_text("load of migration failed\n")
        alive = [True, False]
        machine.qemu.state = "inmigrate"
        with pytest.raises(errors.HypervisorError, match="load of migration failed"):
            machine.target.WaitUntilRunning(lambda: alive.pop(0))


@pytest.fixture
def node(machine, monkeypatch):
    return Node(machine, monkeypatch)


class Node:
    """The hypervisor of a node where a process of that instance may be."""

    def __init__(self, machine, monkeypatch):
        self.machine = machine
        self.alive = True
        self.killed = []
        monkeypatch.setattr(kvm_files, "FindProcess", self._Find)
        monkeypatch.setattr(hv_kvm.KVMHypervisor, "_Qmp", lambda _, paths: machine.Qmp())
        Path(machine.paths.pid).write_text("77\n")

    @property
    def hv(self):
        """A new one each time, as after a restart of the daemon."""
        return hv_kvm.KVMHypervisor(
            self.machine.rt,
            self.machine.paths.root,
            self.machine.paths.log_dir,
            kill=self._Kill,
            cert_file="/no/server.pem",
        )

    def _Find(self, paths):
        words = f"qemu\0-name\0{paths.name}\0-m\0128\0-smp\0001"
        return kvm_files.ParseCommandLine(77, words.encode()) if self.alive else None

    def _Kill(self, pid, timeout):
        self.killed.append(pid)
        self.alive = False

    def Instance(self):
        return objects.Instance(
            name=NAME,
            hypervisor="kvm",
            hvparams=HVP,
            beparams={"memory": 128, "vcpus": 1},
            nics=[],
            disks=[],
            disk_template="diskless",
        )


class TestWhereItRuns:
    """TG1: a guest that migrates runs on one node, also for a daemon that was just started."""

    @pytest.mark.parametrize(
        ("state", "runs"),
        [("inmigrate", False), ("paused", False), ("running", True), (None, False)],
    )
    def test_target(self, node, state, runs):
        node.machine.target.Announce()
        self._Check(node, state, runs)

    @pytest.mark.parametrize(
        ("state", "runs"),
        [
            ("running", True),
            ("paused", True),
            ("finish-migrate", True),
            ("postmigrate", False),
            (None, True),
        ],
    )
    def test_source(self, node, state, runs):
        Path(node.machine.paths.outgoing).write_text(_Note().Encode())
        self._Check(node, state, runs)

    @pytest.mark.parametrize("state", ["running", "postmigrate", None])
    def test_no_migration(self, node, state):
        """Then nothing is asked."""
        self._Check(node, state, True)

    def _Check(self, node, state, runs):
        if state is None:
            node.machine.qemu.silent.add("query-status")
        else:
            node.machine.qemu.state = state
        assert node.hv.ListInstances() == ([NAME] if runs else [])
        assert (node.hv.GetInstanceInfo(NAME) is not None) == runs
        assert len(node.hv.GetAllInstancesInfo()) == runs


class TestOnlyCame:
    """TG1: where nothing was sent away from, nothing is under way or unfinished.

    QEMU calls also a migration to here active, and completed for as long as it runs.
    """

    @pytest.mark.parametrize("status", ["active", "completed", "failed"])
    @pytest.mark.parametrize("expected", [True, False])
    def test_nothing_was_sent_away(self, node, status, expected):
        if expected:
            node.machine.target.Announce()
        node.machine.qemu.migration = [{"status": status}]
        found = node.hv.GetMigrationStatus(node.Instance())
        assert found.status == constants.MIGRATION_FAILED
        assert found.message == "no migration away from here was started"
        node.hv.AbortMigration(node.Instance())
        assert node.machine.qemu.Words() == []

    def test_one_that_came_is_sent_on(self, node):
        """Though nobody has said yet that it has arrived."""
        node.machine.target.Announce()
        Path(node.machine.paths.outgoing).write_text(_Note().Encode())
        node.machine.qemu.migration = [{"status": "active"}]
        found = node.hv.GetMigrationStatus(node.Instance())
        assert found.status == constants.MIGRATION_ACTIVE
        node.hv.AbortMigration(node.Instance())
        assert "migrate_cancel" in node.machine.qemu.Words()


class TestAccept:
    """TG1: all around the guest is there before it may come; a failure leaves nothing."""

    @pytest.fixture
    def accept(self, node, monkeypatch, tmp_path):
        machine = node.machine
        node.alive = False
        certificate = tmp_path / "server.pem"
        certificate.write_text(TestKey.PEM)
        place = kvm_stream.KeyPlace(machine.paths.tls, machine.paths.tls, os.getuid(), os.getgid())
        monkeypatch.setattr(kvm_stream.KeyPlace, "Of", lambda *_: place)
        monkeypatch.setattr(kvm_capabilities, "Probe", lambda rt: CAPS)
        monkeypatch.setattr(kvm_net, "UserNetworkReason", lambda nics: None)
        monkeypatch.setattr(kvm_net, "Setup", lambda *args: machine.qemu.log.append(("net", *args)))
        monkeypatch.setattr(kvm_net, "CleanUp", lambda *args: None)
        machine.rt.processes.Answer("*")
        run = machine.rt.processes.run

        def _Run(argv, **kwargs):
            node.alive = True
            node.argv = argv
            return run(argv, **kwargs)

        monkeypatch.setattr(machine.rt.processes, "run", _Run)
        nic = objects.NIC(mac="aa:0", nicparams={"mode": "bridged", "link": "br0"}).ToDict()
        guest = kvm_command.GuestSpec(NAME, None, 128, 1, ())
        hvparams = {**HVP, "kvm_flag": "disabled", "kernel_path": ""}
        data = kvm_runtime.RuntimeData(guest, [nic], hvparams, "pc-i440fx-6.1", (6, 1, 0))
        instance = node.Instance()
        instance.hvparams = hvparams
        instance.tags = set()

        def _Accept(info=None):
            hv = node.hv
            hv._cert_file = str(certificate)
            text = data.EncodeForNode() if info is None else info
            return hv.AcceptInstance(instance, text, "192.0.2.2")

        return _Accept

    def test_order(self, node, accept):
        assert accept() == "192.0.2.2:8103"
        words = node.machine.qemu.Words()
        assert words.index("net") < words.index("migrate-incoming")
        assert "cont" not in words
        argv = node.argv
        assert argv[argv.index("-incoming") + 1] == "defer"
        # Of this node's QEMU the machine that the guest was started on.
        assert argv[0] == CAPS.path
        assert argv[argv.index("-machine") + 1].startswith("pc-i440fx-6.1,")
        assert node.machine.target.Expected()

    @pytest.mark.parametrize("word", ["object-add", "migrate-incoming"])
    def test_failure(self, node, accept, word):
        node.machine.qemu.fail.add(word)
        with pytest.raises(errors.HypervisorError, match=word):
            accept()
        assert not node.alive
        assert [path for path in Path(node.machine.paths.root).rglob("inst1*")] == []

    @pytest.mark.parametrize("info", ["", "{}", "[]", "null"])
    def test_nonsense(self, node, accept, info):
        with pytest.raises(errors.HypervisorError, match="start-up data"):
            accept(info)
        assert not node.alive

    def test_about_another_one(self, node, accept):
        guest = kvm_command.GuestSpec("inst2", None, 128, 1, ())
        with pytest.raises(errors.HypervisorError, match="about inst2, not inst1"):
            accept(kvm_runtime.RuntimeData(guest, [], {}).EncodeForNode())

    def test_runs_here(self, node, accept):
        node.alive = True
        with pytest.raises(errors.HypervisorError, match="already running"):
            accept()
        assert node.alive


class TestFinalize:
    """TG1: each end can be told again how it went, and refuses what would make two of one guest."""

    def test_target_success_again(self, node):
        node.machine.target.Announce()
        node.machine.qemu.state = ["inmigrate", "running"]
        for _ in range(2):
            node.hv.FinalizeMigration(node.Instance(), "", True)
        assert node.hv.ListInstances() == [NAME]
        assert node.killed == []

    def test_target_success_but_gone(self, node):
        node.alive = False
        with pytest.raises(errors.HypervisorError, match="has ended"):
            node.hv.FinalizeMigration(node.Instance(), "", True)

    @pytest.mark.parametrize("state", ["inmigrate", "paused", None])
    def test_target_failure_again(self, node, state):
        node.machine.target.Announce()
        node.machine.qemu.state = state
        if state is None:
            node.machine.qemu.silent.add("query-status")
        for _ in range(2):
            node.hv.FinalizeMigration(node.Instance(), "", False)
        assert node.killed == [77]
        assert not node.machine.target.Expected()
        assert not os.path.exists(node.machine.paths.pid)

    @pytest.mark.parametrize("expected", [True, False])
    def test_target_failure_but_it_runs(self, node, expected):
        if expected:
            node.machine.target.Announce()
        with pytest.raises(errors.HypervisorError, match="has arrived"):
            node.hv.FinalizeMigration(node.Instance(), "", False)
        assert node.killed == []

    def test_source_success_again(self, node):
        Path(node.machine.paths.outgoing).write_text(_Note().Encode())
        node.machine.qemu.state = "postmigrate"
        for _ in range(2):
            node.hv.FinalizeMigrationSource(node.Instance(), True, True)
        assert node.killed == [77]
        assert not node.machine.source.IsLeaving()

    @pytest.mark.parametrize("leaving", [True, False])
    def test_source_success_but_it_runs(self, node, leaving):
        if leaving:
            Path(node.machine.paths.outgoing).write_text(_Note().Encode())
        with pytest.raises(errors.HypervisorError, match="still runs here"):
            node.hv.FinalizeMigrationSource(node.Instance(), True, True)
        assert node.killed == []

    def test_source_success_but_silent(self, node):
        """It runs on the target: what says nothing here must not come to itself again."""
        node.machine.qemu.closed = True
        with pytest.raises(errors.HypervisorError, match="still runs here"):
            node.hv.FinalizeMigrationSource(node.Instance(), True, True)
        Path(node.machine.paths.outgoing).write_text(_Note().Encode())
        node.hv.FinalizeMigrationSource(node.Instance(), True, True)
        assert node.killed == [77]

    def test_source_failure_and_gone(self, node):
        node.alive = False
        with pytest.raises(errors.HypervisorError, match="has ended here"):
            node.hv.FinalizeMigrationSource(node.Instance(), False, True)

    def test_no_key_no_migration(self, node):
        """It is not sent in clear if the key is missing."""
        with pytest.raises(errors.HypervisorError, match=r"/no/server\.pem"):
            node.hv.MigrateInstance(node.Instance(), "192.0.2.2", True)
        with pytest.raises(errors.HypervisorError, match=r"/no/server\.pem"):
            node.hv.AcceptInstance(node.Instance(), "{}", "192.0.2.2")
        assert node.machine.qemu.log == []
