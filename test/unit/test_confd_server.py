"""confd, the answering side: datagrams in, datagrams out, no socket."""

import json
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, serializer
from ganeti.confd import protocol, querylib, reload, server
from ganeti.runtime import fake

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden"
_PATH = "/var/lib/ganeti/config.data"
_KEY = b"08da25eea14449030be38204ffeef70196b8dde6\n"

# Test vectors of the protocol
_K1 = b"testkey"
_K2 = b"0123456789abcdef0123456789abcdef01234567\n"
_R = "11111111-2222-3333-4444-555555555555"
_B_DATAGRAM = (
    b'plj0{"hmac": "ec41ef0fc00db3c0cc23932d4bc999dfd77fc6db", "msg": "{\\"protocol\\": 1,'
    b' \\"query\\": \\"node1.example.com\\",'
    b' \\"rsalt\\": \\"11111111-2222-3333-4444-555555555555\\",'
    b' \\"type\\": 1}\\n", "salt": "1700000000"}\n'
)
_B_REPLY = (
    b'plj0{"hmac": "2fa08dd3799b9ab8773526137047cf0f3584e08c", "msg": "{\\"answer\\": 1,'
    b' \\"protocol\\": 1, \\"serial\\": 42, \\"status\\": 0}\\n", "salt":'
    b' "11111111-2222-3333-4444-555555555555"}\n'
)


def _Config(serial=42, **cluster):
    nodes = {
        "master.example.com": {"primary_ip": "192.0.2.1", "master_candidate": True},
        "node1.example.com": {"primary_ip": "198.51.100.1", "master_candidate": True},
        "drained.example.com": {"primary_ip": "192.0.2.3", "drained": True},
        "offline.example.com": {"primary_ip": "192.0.2.4", "offline": True},
        "both.example.com": {"primary_ip": "192.0.2.5", "offline": True, "drained": True},
        "regular.example.com": {"primary_ip": "192.0.2.6"},
    }
    instances = {
        "inst1": {
            "primary_node": "node1.example.com",
            "nics": [
                {"ip": "192.0.2.10", "nicparams": {"link": "br0"}},
                {"ip": "192.0.2.20", "nicparams": {}},
                {"nicparams": {}},
            ],
        },
        "inst2": {
            "primary_node": "regular.example.com",
            "nics": [{"ip": "192.0.2.10", "nicparams": {"link": "br1"}}],
        },
        "lost": {"primary_node": "nosuch", "nics": [{"ip": "192.0.2.30"}]},
    }
    return {
        "version": constants.CONFIG_VERSION,
        "serial_no": serial,
        "cluster": {
            "serial_no": 7,
            "cluster_name": "cluster",
            "master_node": "master.example.com",
            "master_ip": "192.0.2.100",
            "nicparams": {"default": {"mode": "bridged", "link": "default-br"}},
            **cluster,
        },
        "nodes": nodes,
        "instances": instances,
    }


def _NewProcessor(config=None, key=_K2, now=1700000000.0):
    rt = fake.NewRuntime(clock=fake.FakeClock(epoch=now))
    document = config if isinstance(config, bytes) else json.dumps(config or _Config()).encode()
    rt.files.write(_PATH, document)
    processor = server.ConfdProcessor(key, _PATH, runtime=rt)
    processor.Enable()
    return processor, rt


def _Ask(processor, type_, key=_K2, salt="1700000000", **message):
    request = {"protocol": 1, "type": type_, "rsalt": _R, **message}
    reply = processor.ExecQuery(protocol.Pack(request, key, salt), "192.0.2.99", 4711)
    if reply is None:
        return None
    inner, salt = protocol.Unpack(reply, key)
    assert salt == _R
    return inner


def _Answer(type_, query=None, processor=None):
    processor = processor or _NewProcessor()[0]
    message = {} if query is None else {"query": query}
    reply = _Ask(processor, type_, **message)
    return reply["status"], reply.get("answer")


def _ReadDialogue():
    text = (_GOLDEN / "confd" / "dialogue.txt").read_text(encoding="utf-8")
    for entry in text.split("\n==== ")[1:]:
        title, rest = entry.split("\n", 1)
        request, answer = re.match(r">> (.*?)\n?<< (.*)", rest, re.DOTALL).groups()
        answer = answer.strip()
        yield pytest.param(
            request.encode(), None if answer == "(no answer)" else answer.encode(), id=title
        )


class TestGolden:
    """CF1, CF2: the dialogue with a daemon of the 2.1 generation, byte by byte."""

    @pytest.mark.parametrize(("request_", "answer"), list(_ReadDialogue()))
    def test_dialogue(self, request_, answer):
        config = (_GOLDEN / "state" / "config.data").read_bytes()
        processor, _ = _NewProcessor(config, _KEY, now=1795336727.0)
        got = processor.ExecQuery(request_, "127.0.0.1", 1)
        assert (got is None) == (answer is None)
        if answer is not None:
            assert got.rstrip(b"\n") == answer

    def test_dialogue_is_complete(self):
        assert len(list(_ReadDialogue())) == 23


class TestProtocol:
    """CF1: magic, signature, time window."""

    def test_magic(self):
        assert protocol.PackMagic("x") == b"plj0x"
        assert protocol.UnpackMagic(b"plj0x") == b"x"
        for bad in (b"", b"plj", b"plj1x", b"xplj0"):
            with pytest.raises(errors.ConfdMagicError):
                protocol.UnpackMagic(bad)

    def test_vector_request(self):
        message, salt = protocol.Unpack(_B_DATAGRAM, _K2)
        assert message == {"protocol": 1, "query": "node1.example.com", "rsalt": _R, "type": 1}
        assert salt == "1700000000"
        assert len(_B_DATAGRAM) == 209
        assert protocol.Pack(message, _K2, salt) == _B_DATAGRAM

    def test_vector_reply(self):
        assert len(_B_REPLY) == 181
        processor, _ = _NewProcessor()
        assert processor.ExecQuery(_B_DATAGRAM, "192.0.2.9", 1) == _B_REPLY

    @pytest.mark.parametrize(
        ("key", "digest"),
        [
            (_K1, "462a32889660008a47057b998766fa2f215b752f"),
            (_K2, "7cb556918305f31dac21a329a974c1e6afc94603"),
            (_K2.rstrip(b"\n"), "575129a3a774b3db8f8440b8c22d0d8ad13d58cc"),
        ],
    )
    def test_vector_keys(self, key, digest):
        datagram = protocol.Pack({"protocol": 1, "type": 0, "rsalt": _R}, key, "1700000000")
        assert json.loads(datagram[4:])["hmac"] == digest

    def test_key_without_its_newline_is_another_key(self):
        processor, _ = _NewProcessor()
        assert _Ask(processor, 0, key=_K2) is not None
        datagram = protocol.Pack(
            {"protocol": 1, "type": 0, "rsalt": _R}, _K2.rstrip(b"\n"), "1700000000"
        )
        assert processor.ExecQuery(datagram, "192.0.2.9", 1) is None

    def test_compact_message_of_later_versions(self):
        msg = '{"protocol":1,"status":0,"answer":4,"serial":7}'
        envelope = {"msg": msg, "salt": _R, "hmac": "90e04e92895dfacf90f972a5425f22170fd07bf2"}
        message, salt = protocol.Unpack(b"plj0" + json.dumps(envelope).encode(), _K2)
        assert (message["answer"], salt) == (4, _R)

    def test_key_selector_is_not_honoured(self):
        msg = '{"protocol": 1, "rsalt": "' + _R + '", "type": 0}\n'
        envelope = {
            "msg": msg,
            "salt": "1700000000",
            "key_selector": "cluster2",
            "hmac": "e7439b6d96c6b2c9662aa71d309cdba5ece9317b",
        }
        processor, _ = _NewProcessor(key=_K1)
        assert processor.ExecQuery(b"plj0" + json.dumps(envelope).encode(), "192.0.2.9", 1) is None

    @pytest.mark.parametrize(
        ("salt", "now", "recent"),
        [
            ("1700000000", 1700000000.0, True),
            ("1700000000", 1700000300.0, True),
            ("1700000000", 1700000300.5, False),
            ("1700000000", 1700000301.0, False),
            ("1700000300", 1700000000.0, True),
            ("1700000301", 1700000000.0, False),
            ("abc", 1700000000.0, False),
            ("", 1700000000.0, False),
            ("1_7", 17.0, False),
            (" 17", 17.0, False),
            ("17\n", 17.0, False),
            ("1e3", 1000.0, False),
            ("9" * 5000, 1700000000.0, False),
        ],
    )
    def test_window(self, salt, now, recent):
        assert protocol.IsRecent(salt, now) == recent


class TestSilence:
    """CF1: whoever can't prove the key or the time gets nothing, whatever is sent."""

    @pytest.mark.parametrize(
        "datagram",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"plj", id="short"),
            pytest.param(b"plj1" + _B_DATAGRAM[4:], id="magic"),
            pytest.param(_B_DATAGRAM.replace(b"ec41", b"ec42"), id="hmac"),
            pytest.param(_B_DATAGRAM[:100], id="truncated"),
            pytest.param(b"plj0[]", id="list"),
            pytest.param(b"plj0null", id="null"),
            pytest.param(b"plj0\xff\xfe", id="no text"),
            pytest.param(b"plj0" + b"[" * 60000, id="nested"),
            pytest.param(b'plj0{"msg": 1, "salt": 2, "hmac": 3}', id="numbers"),
            pytest.param(
                b'plj0{"msg": "\\ud800", "salt": "1700000000", "hmac": "x"}', id="half a pair"
            ),
            pytest.param(
                b'plj0{"msg": "x", "salt": "1700000000", "hmac": "\\ud800"}', id="half a digest"
            ),
            pytest.param(protocol.Pack([1], _K2, "1700000000"), id="inner list"),
        ],
    )
    def test_garbage(self, datagram):
        processor, _ = _NewProcessor()
        assert processor.ExecQuery(datagram, "192.0.2.9", 1) is None
        assert processor.GetStatistics() == {"answered": 0, "refused": 1, "serial": 42}
        assert processor.ExecQuery(_B_DATAGRAM, "192.0.2.9", 1) == _B_REPLY

    @pytest.mark.parametrize(
        "message",
        [
            {"protocol": 2},
            {"protocol": "1"},
            {"protocol": True},
            {"type": 99},
            {"type": "x"},
            {"type": True},
            {"rsalt": ""},
            {"rsalt": None},
            {"rsalt": 5},
        ],
        ids=str,
    )
    def test_wrong_request(self, message):
        processor, _ = _NewProcessor()
        assert _Ask(processor, 0) is not None
        assert _Ask(processor, message.pop("type", 0), **message) is None

    def test_out_of_time(self):
        processor, rt = _NewProcessor()
        rt.clock.Advance(300)
        assert processor.ExecQuery(_B_DATAGRAM, "192.0.2.9", 1) == _B_REPLY
        rt.clock.Advance(1)
        assert processor.ExecQuery(_B_DATAGRAM, "192.0.2.9", 1) is None

    def test_disabled(self):
        processor, _ = _NewProcessor()
        processor.Disable()
        assert processor.ExecQuery(_B_DATAGRAM, "192.0.2.9", 1) is None

    def test_unknown_keys_are_ignored(self):
        processor, _ = _NewProcessor()
        assert _Ask(processor, 0, flavour="new")["answer"] == "ok"

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data):
        processor, _ = _NewProcessor()
        assert processor.ExecQuery(b"plj0" + data, "192.0.2.9", 1) is None

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from("0123x"), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        st.sampled_from(sorted(constants.CONFD_REQS)),
    )
    def test_any_query_has_an_answer(self, query, type_):
        processor, _ = _NewProcessor()
        reply = _Ask(processor, type_, query=query)
        assert reply["status"] in constants.CONFD_REPL_STATUSES
        assert reply["serial"] == 42


class TestQueries:
    """CF2: every type of query, every argument it may get."""

    def test_table_is_complete(self):
        assert set(querylib.QUERIES) == constants.CONFD_REQS

    @pytest.mark.parametrize(
        ("node", "role"),
        [
            ("master.example.com", constants.CONFD_NODE_ROLE_MASTER),
            ("node1.example.com", constants.CONFD_NODE_ROLE_CANDIDATE),
            ("drained.example.com", constants.CONFD_NODE_ROLE_DRAINED),
            ("offline.example.com", constants.CONFD_NODE_ROLE_OFFLINE),
            ("both.example.com", constants.CONFD_NODE_ROLE_DRAINED),
            ("regular.example.com", constants.CONFD_NODE_ROLE_REGULAR),
        ],
    )
    def test_node_role(self, node, role):
        assert _Answer(1, node) == (0, role)

    @pytest.mark.parametrize(
        ("query", "result"),
        [
            (None, (1, constants.CONFD_ERROR_UNKNOWN_ENTRY)),
            ("node1", (1, constants.CONFD_ERROR_UNKNOWN_ENTRY)),
            (["node1.example.com"], (1, constants.CONFD_ERROR_ARGUMENT)),
            ({}, (1, constants.CONFD_ERROR_ARGUMENT)),
        ],
    )
    def test_node_role_errors(self, query, result):
        assert _Answer(1, query) == result

    @pytest.mark.parametrize("type_", [0, 4, 5])
    def test_no_argument_wanted(self, type_):
        status, answer = _Answer(type_, "x")
        assert status == constants.CONFD_REPL_STATUS_ERROR
        assert isinstance(answer, str)

    def test_lists(self):
        assert _Answer(0) == (0, "ok")
        assert sorted(_Answer(4)[1]) == sorted(
            node["primary_ip"] for node in _Config()["nodes"].values()
        )
        assert sorted(_Answer(5)[1]) == ["192.0.2.1", "198.51.100.1"]

    @pytest.mark.parametrize(
        ("query", "result"),
        [
            ({"1": "192.0.2.10", "0": "br0"}, (0, "198.51.100.1")),
            ({"1": "192.0.2.10", "0": "br1"}, (0, "192.0.2.6")),
            ({"1": "192.0.2.10"}, (1, constants.CONFD_ERROR_UNKNOWN_ENTRY)),
            ({"1": "192.0.2.20"}, (0, "198.51.100.1")),
            ({"1": "192.0.2.20", "0": ""}, (0, "198.51.100.1")),
            ({"1": "192.0.2.20", "0": None}, (0, "198.51.100.1")),
            ("192.0.2.20", (0, "198.51.100.1")),
            ("192.0.2.30", (1, constants.CONFD_ERROR_INTERNAL)),
            (
                {"0": "br0", "2": ["192.0.2.10", "192.0.2.11"]},
                (0, [[0, "198.51.100.1"], [1, constants.CONFD_ERROR_UNKNOWN_ENTRY]]),
            ),
            ({"2": []}, (0, [])),
            ({"1": "192.0.2.20", "2": "ignored"}, (0, "198.51.100.1")),
            (None, (1, constants.CONFD_ERROR_ARGUMENT)),
            ({}, (1, constants.CONFD_ERROR_ARGUMENT)),
            (7, (1, constants.CONFD_ERROR_ARGUMENT)),
            (["192.0.2.20"], (1, constants.CONFD_ERROR_ARGUMENT)),
            ({"1": 7}, (1, constants.CONFD_ERROR_ARGUMENT)),
            ({"1": "192.0.2.20", "0": 7}, (1, constants.CONFD_ERROR_ARGUMENT)),
            ({"2": "192.0.2.20"}, (1, constants.CONFD_ERROR_ARGUMENT)),
            ({"2": ["192.0.2.20", 7]}, (1, constants.CONFD_ERROR_ARGUMENT)),
        ],
        ids=str,
    )
    def test_node_by_instance_ip(self, query, result):
        assert _Answer(2, query) == result

    @pytest.mark.parametrize(
        ("query", "result"),
        [
            (None, (0, "master.example.com")),
            ("", (0, "master.example.com")),
            ([], (0, "master.example.com")),
            (0, (0, "master.example.com")),
            ({"3": ["0", "1", "2"]}, (0, ["master.example.com", "192.0.2.100", "192.0.2.1"])),
            ({"3": [2, 0]}, (0, ["192.0.2.1", "master.example.com"])),
            ({"3": ["9", "0", True]}, (0, [None, "master.example.com", None])),
            ({"3": []}, (0, [])),
            ({"3": "0"}, (1, constants.CONFD_ERROR_ARGUMENT)),
            ({}, (1, constants.CONFD_ERROR_ARGUMENT)),
            ("x", (1, constants.CONFD_ERROR_ARGUMENT)),
            (["0"], (1, constants.CONFD_ERROR_ARGUMENT)),
        ],
        ids=str,
    )
    def test_cluster_master(self, query, result):
        assert _Answer(3, query) == result

    @pytest.mark.parametrize(
        ("query", "result"),
        [
            (None, (0, ["192.0.2.20", "192.0.2.30"])),
            ("", (0, ["192.0.2.20", "192.0.2.30"])),
            ("br0", (0, ["192.0.2.10"])),
            ("nosuch", (0, [])),
            (["br0"], (1, constants.CONFD_ERROR_ARGUMENT)),
            ({}, (1, constants.CONFD_ERROR_ARGUMENT)),
        ],
        ids=str,
    )
    def test_instances_ips(self, query, result):
        assert _Answer(6, query) == result

    def test_too_big_an_answer_becomes_an_error(self, caplog):
        config = _Config()
        config["nodes"] = {
            f"n{number}": {"primary_ip": f"10.{number // 250}.{number % 250}.1"}
            for number in range(5000)
        }
        config["cluster"]["master_node"] = "n0"
        processor, _ = _NewProcessor(config)
        reply = _Ask(processor, 4)
        assert (reply["status"], reply["answer"]) == (1, constants.CONFD_ERROR_INTERNAL)
        assert "61440" in caplog.text

    def test_answers_carry_the_serial_of_the_file(self):
        processor, rt = _NewProcessor()
        assert _Ask(processor, 0)["serial"] == 42
        rt.files.write(_PATH, json.dumps(_Config(serial=43)).encode())
        assert processor.Reload()
        assert _Ask(processor, 0)["serial"] == 43


class _FakeWatcher:
    def __init__(self):
        self.enabled = False
        self.broken = False

    def Enable(self):
        if self.broken:
            raise errors.InotifyError("no inotify here")
        self.enabled = True

    def Disable(self):
        self.enabled = False


class _World:
    """A controller with everything around it."""

    def __init__(self, config=True):
        self.rt = fake.NewRuntime()
        self.serial = 0
        if config:
            self.Write()
        self.processor = server.ConfdProcessor(_K2, _PATH, runtime=self.rt)
        self.watcher = _FakeWatcher()
        self.controller = reload.ReloadController(self.processor, self.watcher, self.rt.clock)

    def Write(self):
        self.serial += 1
        self.rt.files.write(_PATH, json.dumps(_Config(serial=self.serial)).encode())

    def Seen(self):
        return self.processor.GetStatistics()["serial"]

    def Quiet(self):
        """Start, and let time pass until events are waited for."""
        assert self.controller.Start() == 2
        self.rt.clock.Advance(2)
        assert self.controller.OnTimer() == 60
        self.rt.clock.Advance(10)
        return self


class TestReload:
    """CF3: when the configuration is read again."""

    def test_start(self):
        world = _World()
        assert world.controller.Start() == 2
        assert world.processor.enabled
        assert world.controller.polling
        assert not world.watcher.enabled

    def test_quiet_polling_becomes_watching(self):
        world = _World().Quiet()
        assert world.watcher.enabled
        assert not world.controller.polling

    def test_change_while_polling_keeps_polling(self):
        world = _World()
        world.controller.Start()
        world.Write()
        assert world.controller.OnTimer() == 2
        assert world.Seen() == 2
        assert world.controller.polling
        assert world.controller.OnTimer() == 60

    def test_change_just_before_the_watch_is_not_missed(self):
        world = _World()
        world.controller.Start()
        enable = world.watcher.Enable
        world.watcher.Enable = lambda: (enable(), world.Write())
        assert world.controller.OnTimer() == 60
        assert world.Seen() == 2

    def test_event(self):
        world = _World().Quiet()
        world.Write()
        assert world.controller.OnEvent() == 60
        assert world.Seen() == 2
        assert world.watcher.enabled

    def test_burst_is_polled(self):
        world = _World().Quiet()
        world.Write()
        world.controller.OnEvent()
        world.rt.clock.Advance(1.9)
        world.Write()
        assert world.controller.OnEvent() == 2
        assert world.Seen() == 3
        assert world.controller.polling
        assert not world.watcher.enabled
        # And after a quiet interval events count again.
        assert world.controller.OnTimer() == 60
        assert world.watcher.enabled

    def test_events_two_seconds_apart_are_no_burst(self):
        world = _World().Quiet()
        world.controller.OnEvent()
        world.rt.clock.Advance(2)
        assert world.controller.OnEvent() == 60
        assert not world.controller.polling

    def test_missed_event_is_found_and_named(self, caplog):
        world = _World().Quiet()
        world.Write()
        assert world.controller.OnTimer() == 60
        assert world.Seen() == 2
        assert "inotify" in caplog.text

    def test_no_warning_without_a_change(self, caplog):
        world = _World().Quiet()
        assert world.controller.OnTimer() == 60
        assert not caplog.records

    def test_lost_watch_is_renewed(self):
        world = _World().Quiet()
        world.watcher.enabled = False
        assert world.controller.OnEvent(still_enabled=False) == 60
        assert world.watcher.enabled

    def test_without_inotify_it_polls(self):
        world = _World()
        world.watcher.broken = True
        world.controller.Start()
        assert world.controller.OnTimer() == 2
        world.Write()
        assert world.controller.OnTimer() == 2
        assert world.Seen() == 2

    def test_lost_watch_that_can_not_be_renewed(self):
        world = _World().Quiet()
        world.watcher.broken = True
        assert world.controller.OnEvent(still_enabled=False) == 2
        assert world.controller.polling

    @pytest.mark.parametrize("content", [b"{", b"[]", b'{"serial_no": 1}', b"\xff"])
    @pytest.mark.parametrize("how", ["OnTimer", "OnEvent"])
    def test_broken_configuration_silences(self, content, how, caplog):
        world = _World().Quiet()
        world.rt.files.write(_PATH, content)
        assert getattr(world.controller, how)() == 60
        assert not world.processor.enabled
        assert world.watcher.enabled, "a repair must be seen at once"
        assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
        world.rt.clock.Advance(5)
        world.Write()
        assert world.controller.OnEvent() == 60
        assert world.Seen() == 2

    def test_removed_configuration_silences_rather_than_lies(self):
        world = _World().Quiet()
        world.rt.files.remove(_PATH)
        world.controller.OnEvent()
        assert not world.processor.enabled

    def test_node_without_configuration(self, caplog):
        world = _World(config=False)
        assert world.controller.Start() == 2
        assert "disabled" in caplog.text
        assert world.controller.OnTimer() == 60
        assert not world.processor.enabled
        world.Write()
        world.controller.OnEvent()
        assert world.processor.enabled, "promoted: answers at once"

    def test_node_without_configuration_and_inotify(self):
        world = _World(config=False)
        world.watcher.broken = True
        world.controller.Start()
        assert world.controller.OnTimer() == 60
        world.Write()
        assert world.controller.OnTimer() == 2
        assert world.processor.enabled

    @given(
        st.lists(
            st.sampled_from(["write", "break", "remove", "event", "lost", "timer", "wait"]),
            max_size=40,
        )
    )
    def test_any_order_ends_up_to_date(self, steps):
        """Whatever happened, the last state of the file is served after the next timer or two."""
        world = _World()
        interval = world.controller.Start()
        for step in steps:
            if step == "write":
                world.Write()
            elif step == "break":
                world.rt.files.write(_PATH, b"broken")
            elif step == "remove":
                world.rt.files.remove(_PATH)
            elif step == "event":
                interval = world.controller.OnEvent()
            elif step == "lost":
                world.watcher.enabled = False
                interval = world.controller.OnEvent(still_enabled=False)
            elif step == "timer":
                interval = world.controller.OnTimer()
            else:
                world.rt.clock.Advance(3)
            assert interval in (2, 60)
            assert interval == (2 if world.controller.polling else 60)
        world.rt.clock.Advance(100)
        world.Write()
        world.controller.OnTimer()
        assert world.Seen() == world.serial


def test_serializer_and_protocol_agree():
    text = serializer.DumpSigned({"a": 1}, _K2, "17")
    assert protocol.Unpack(protocol.PackMagic(text), _K2) == ({"a": 1}, "17")
