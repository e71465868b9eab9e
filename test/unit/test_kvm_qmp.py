"""The QMP client, held against a dialogue that was recorded from QEMU 7.2 (BASE2)."""

import json
import threading
from pathlib import Path

import pytest

from ganeti import errors, runtime
from ganeti.hypervisor import kvm_net, kvm_qmp
from ganeti.runtime import fake

RECORD = (Path(__file__).parents[1] / "data/qemu/qmp-7.2.txt").read_text()


def _Record():
    """(request or None, lines that QEMU sent then)."""
    exchanges = [(None, [])]
    for line in RECORD.splitlines():
        if line.startswith(">> "):
            exchanges.append((line[3:], []))
        else:
            exchanges[-1][1].append(line[3:])
    return exchanges


class ScriptedQemu:
    """The other end of a connection: answers as recorded, byte by byte if wanted.

    Answers are taken by the command's name, their ids from the request.
    """

    def __init__(self, answers, clock=None, chunk=65536, greeting=None):
        self._answers = answers
        self._clock = clock
        self._chunk = chunk
        self._out = b"".join(line.encode() + b"\r\n" for line in greeting or _Record()[0][1])
        self.requests = []
        self.closed = False
        self.timeout = None

    def settimeout(self, value):
        self.timeout = value

    def sendall(self, data):
        request = json.loads(data)
        self.requests.append(request)
        for line in self._answers[request["execute"]]:
            answer = json.loads(line)
            if "id" in answer:
                answer["id"] += request["id"]
            self._out += json.dumps(answer).encode() + b"\r\n"

    def recv(self, size):
        if not self._out:
            if self._clock is None:
                return b""
            self._clock.Advance(self.timeout)
            raise TimeoutError
        size = min(size, self._chunk)
        data, self._out = self._out[:size], self._out[size:]
        return data

    def close(self):
        self.closed = True


def _Recorded():
    """Recorded answers by command; ids relative to the request's."""
    answers = {}
    for request, lines in _Record()[1:]:
        try:
            command = json.loads(request)["execute"]
        except ValueError:
            continue
        relative = []
        for line in lines:
            if line:
                message = json.loads(line)
                if "id" in message:
                    message["id"] = 0
                relative.append(json.dumps(message))
        answers[command] = relative
    return answers


def _Client(qemu, rt=None, **kwargs):
    return kvm_qmp.QmpClient(
        "/ctrl/inst.qmp", rt=rt or fake.NewRuntime(), connect=lambda *_: qemu, **kwargs
    )


class TestDialogue:
    """BASE2: commands are answered, whatever events come in between."""

    @pytest.mark.parametrize("chunk", [1, 7, 65536])
    def test_recorded_dialogue(self, chunk):
        qemu = ScriptedQemu(_Recorded(), chunk=chunk)
        with _Client(qemu) as qmp:
            assert qmp.version == (7, 2, 22)
            assert qmp.Execute("query-status")["status"] == "running"
            assert qmp.Execute("stop") == {}
            assert qmp.Execute("cont") == {}
            assert qmp.Execute("query-migrate") == {}
            assert qmp.Execute("query-cpus-fast")[0]["cpu-index"] == 0
            assert qmp.Execute("system_powerdown") == {}
            assert qmp.Execute("quit") == {}
        assert [event["event"] for event in qmp.events] == [
            "STOP",
            "RESUME",
            "POWERDOWN",
            "SHUTDOWN",
        ]
        assert qemu.closed

    def test_requests(self):
        qemu = ScriptedQemu({"qmp_capabilities": ['{"return": {}, "id": 0}'], **_Recorded()})
        with _Client(qemu) as qmp:
            qmp.ExecuteHmp("info network")
        assert qemu.requests == [
            {"execute": "qmp_capabilities", "id": 1},
            {
                "execute": "human-monitor-command",
                "id": 2,
                "arguments": {"command-line": "info network"},
            },
        ]

    def test_interfaces_of_network_cards(self):
        with _Client(ScriptedQemu(_Recorded())) as qmp:
            text = qmp.ExecuteHmp("info network")
        assert kvm_net.ParseHmpNetwork(text) == {0: "tap0", 1: "tap1"}

    @pytest.mark.parametrize(
        ("command", "error_class"),
        [("set_password", "GenericError"), ("no-such-command", "CommandNotFound")],
    )
    def test_refused_commands(self, command, error_class):
        with _Client(ScriptedQemu(_Recorded())) as qmp:
            with pytest.raises(kvm_qmp.QmpCommandError, match=command) as info:
                qmp.Execute(command)
            assert info.value.error_class == error_class
            # The session goes on.
            assert qmp.Execute("cont") == {}

    def test_late_answer_to_an_earlier_command_is_no_answer(self):
        answers = {**_Recorded(), "stop": ['{"return": "old", "id": -1}', '{"return": 1, "id": 0}']}
        with _Client(ScriptedQemu(answers)) as qmp:
            assert qmp.Execute("stop") == 1

    def test_unreadable_request(self):
        (line,) = next(lines for request, lines in _Record() if request == '{"execute": }')
        with (
            _Client(ScriptedQemu({**_Recorded(), "stop": [line]})) as qmp,
            pytest.raises(kvm_qmp.QmpCommandError, match="JSON parse error"),
        ):
            qmp.Execute("stop")


class TestTrouble:
    """BASE2: whatever the other end does, a call ends in time with an error that says what."""

    def test_nobody_there(self):
        def _Refuse(path, timeout):
            raise ConnectionRefusedError("nobody")

        client = kvm_qmp.QmpClient("/ctrl/inst.qmp", rt=fake.NewRuntime(), connect=_Refuse)
        with pytest.raises(errors.HypervisorError, match=r"/ctrl/inst\.qmp.*nobody"):
            client.Connect()

    @pytest.mark.parametrize(
        "greeting", [['{"hello": 1}'], ["SSH-2.0"], ["[]"], ['{"QMP": {"version": 3}}']]
    )
    def test_no_qmp(self, greeting):
        qemu = ScriptedQemu({}, greeting=greeting)
        with pytest.raises(kvm_qmp.QmpError):
            _Client(qemu).Connect()
        assert qemu.closed

    def test_silence(self):
        rt = fake.NewRuntime()
        qemu = ScriptedQemu({**_Recorded(), "stop": []}, clock=rt.clock)
        with (
            _Client(qemu, rt, timeout=5.0) as qmp,
            pytest.raises(kvm_qmp.QmpError, match="answer to stop within 5 s"),
        ):
            qmp.Execute("stop")
        assert rt.clock.monotonic() == 5.0

    def test_events_do_not_prolong_the_wait(self):
        rt = fake.NewRuntime()
        event = '{"event": "BLOCK_JOB_READY"}'

        class Chatty(ScriptedQemu):
            def recv(self, size):
                if not self._out:
                    self._clock.Advance(1.0)
                    self._out = event.encode() + b"\n"
                return super().recv(size)

        qemu = Chatty({**_Recorded(), "stop": []}, clock=rt.clock)
        with _Client(qemu, rt, timeout=5.0) as qmp, pytest.raises(kvm_qmp.QmpError, match="within"):
            qmp.Execute("stop")
        assert rt.clock.monotonic() == 5.0

    def test_end_of_connection(self):
        qemu = ScriptedQemu({**_Recorded(), "stop": []})
        with _Client(qemu) as qmp, pytest.raises(kvm_qmp.QmpError, match="closed"):
            qmp.Execute("stop")

    @pytest.mark.parametrize("answer", ['{"id": 0}', '{"id": 0, "result": 1}'])
    def test_neither_result_nor_error(self, answer):
        qemu = ScriptedQemu({**_Recorded(), "stop": [answer]})
        with _Client(qemu) as qmp, pytest.raises(kvm_qmp.QmpError, match="neither"):
            qmp.Execute("stop")

    def test_use_without_connection(self):
        with pytest.raises(errors.ProgrammerError):
            _Client(ScriptedQemu({})).Execute("stop")


class TestTurns:
    """BASE2: QEMU serves one at a time; threads of the daemon wait for each other."""

    def test_second_waits(self):
        seen = []
        first = _Client(ScriptedQemu(_Recorded()), runtime.DEFAULT)

        def _Second():
            with _Client(ScriptedQemu(_Recorded()), runtime.DEFAULT) as qmp:
                seen.append(qmp.Execute("query-status")["status"])

        kvm_qmp._SESSIONS.clear()
        with first:
            thread = threading.Thread(target=_Second)
            thread.start()
            thread.join(0.05)
            assert seen == []
        thread.join(10)
        assert seen == ["running"]

    def test_failure_gives_the_turn_back(self):
        kvm_qmp._SESSIONS.clear()

        def _Refuse(*_):
            raise ConnectionRefusedError("nobody")

        client = kvm_qmp.QmpClient("/ctrl/inst.qmp", rt=fake.NewRuntime(), connect=_Refuse)
        for _ in range(2):
            with pytest.raises(kvm_qmp.QmpError, match="nobody"):
                client.Connect()
        assert not kvm_qmp._SESSIONS["/ctrl/inst.qmp"].locked()
        with pytest.raises(kvm_qmp.QmpError, match="greet"):
            _Client(ScriptedQemu({}, greeting=["{}"])).Connect()
        assert not kvm_qmp._SESSIONS["/ctrl/inst.qmp"].locked()

    def test_waits_not_for_ever(self, monkeypatch):
        kvm_qmp._SESSIONS.clear()
        monkeypatch.setattr(kvm_qmp, "_TURN_TIMEOUT", 0.01)
        with _Client(ScriptedQemu(_Recorded())), pytest.raises(kvm_qmp.QmpError, match="Others"):
            _Client(ScriptedQemu(_Recorded())).Connect()


class TestSocketPath:
    """BASE2: a path that is too long for a socket is refused in words that help."""

    def test_limit(self):
        kvm_qmp.CheckSocketPath("/" + 106 * "x")
        with pytest.raises(errors.HypervisorError, match="108 bytes"):
            kvm_qmp.CheckSocketPath("/" + 107 * "x")
