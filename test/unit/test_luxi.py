"""LUXI: frames, messages, both generations of arguments, the client."""

import errno
import json
import pathlib
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import constants, errors, luxi, opcodes, pathutils, serializer
from ganeti.luxi import client
from ganeti.runtime import fake

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden"
_NAMES = json.loads((_GOLDEN / "surface.json").read_text(encoding="utf-8"))["luxi"]


def _ReadDialogue():
    """(title, request text, answer text) of each exchange with a daemon of release 2.1.8."""
    text = (_GOLDEN / "luxi" / "dialogue.txt").read_text(encoding="utf-8")
    found = []
    for part in text.split("==== ")[1:]:
        title, rest = part.split("\n", 1)
        request, answer = rest.split("\n<< ", 1)
        found.append((title, request.removeprefix(">> "), answer.rstrip("\n") + "\n"))
    return found


_DIALOGUE = _ReadDialogue()
_ANSWERED = [entry for entry in _DIALOGUE if not entry[2].startswith("(connection closed")]
_CLOSED = [entry for entry in _DIALOGUE if entry not in _ANSWERED]
_OP = {"OP_ID": "OP_TEST_DELAY", "duration": 0.0, "on_master": True, "on_nodes": []}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def _Titles(entry):
    return entry[0] if isinstance(entry, tuple) else None


class TestFrames:
    """A message is a text and one byte 0x03, however it is cut into reads."""

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\3", b"")), max_size=6),
        st.lists(st.integers(1, 25), min_size=1, max_size=20),
        st.binary(max_size=5).map(lambda data: data.replace(b"\3", b"")),
    )
    def test_any_cut_gives_the_same_messages(self, messages, cuts, rest):
        stream = b"".join(message + b"\3" for message in messages) + rest
        buffer = luxi.FrameBuffer()
        found = []
        pos = 0
        turn = 0
        while pos < len(stream):
            size = cuts[turn % len(cuts)]
            found += buffer.Feed(stream[pos : pos + size])
            pos += size
            turn += 1
        assert found == messages
        assert buffer.IsEmpty() == (not rest)
        assert buffer.Feed(b"\3") == [rest]

    def test_size_limit(self):
        buffer = luxi.FrameBuffer(max_size=4)
        assert buffer.Feed(b"1234\0031234\003") == [b"1234", b"1234"]
        assert buffer.Feed(b"12") == []
        with pytest.raises(luxi.DecodingError, match="more than 4 bytes"):
            buffer.Feed(b"345")

    def test_size_limit_holds_for_complete_messages(self):
        with pytest.raises(luxi.DecodingError):
            luxi.FrameBuffer(max_size=4).Feed(b"12345\003")

    def test_encode(self):
        assert luxi.EncodeFrame('"ü"\n') == b'"\xc3\xbc"\n\3'
        with pytest.raises(luxi.EncodingError):
            luxi.EncodeFrame('"\3"')

    @settings(max_examples=100, deadline=None)
    @given(_JSON)
    def test_json_never_holds_the_end(self, data):
        """So every message can be sent."""
        frame = luxi.EncodeFrame(luxi.FormatRequest("x", [data]))
        (message,) = luxi.FrameBuffer().Feed(frame)
        assert luxi.ParseRequest(message).args == [data]


class TestMessages:
    """Requests and answers as a daemon of release 2.1.8 took and gave them."""

    def test_dialogue_was_read(self):
        assert len(_DIALOGUE) > 40
        assert len(_CLOSED) == 3

    @pytest.mark.parametrize("entry", _ANSWERED, ids=_Titles)
    def test_request(self, entry):
        request = luxi.ParseRequest(entry[1])
        data = json.loads(entry[1])
        assert (request.method, request.args) == (data["method"], data["args"])
        assert request.version is None

    @pytest.mark.parametrize("entry", _CLOSED, ids=_Titles)
    def test_what_is_no_request(self, entry):
        with pytest.raises(luxi.ProtocolError):
            luxi.ParseRequest(entry[1])

    @pytest.mark.parametrize("entry", _ANSWERED, ids=_Titles)
    def test_answer_is_written_byte_for_byte(self, entry):
        success, result = luxi.ParseResponse(entry[2])
        assert luxi.FormatResponse(success, result) == entry[2]

    @pytest.mark.parametrize("entry", _ANSWERED, ids=_Titles)
    def test_answer_is_a_result_or_an_error(self, entry):
        data = json.loads(entry[2])
        if data["success"]:
            assert luxi.GetResult(entry[2]) == data["result"]
        elif isinstance(data["result"], str):
            with pytest.raises(luxi.RequestError) as info:
                luxi.GetResult(entry[2])
            assert info.value.args == (data["result"],)
        else:
            with pytest.raises(errors.GetErrorClass(data["result"][0])) as info:
                luxi.GetResult(entry[2])
            assert list(info.value.args) == data["result"][1]

    def test_request_as_clients_send_it(self):
        assert luxi.FormatRequest("ArchiveJob", "12") == '{"args": "12", "method": "ArchiveJob"}\n'

    def test_version_of_later_clients(self):
        text = luxi.FormatRequest("QueryClusterInfo", [], version=3000000)
        assert luxi.ParseRequest(text).version == 3000000

    @pytest.mark.parametrize(
        "text",
        [
            '{"method": "x"}',
            '{"args": []}',
            '{"method": null, "args": []}',
            '{"method":"x","args":null}',
        ],
    )
    def test_request_lacks_something(self, text):
        with pytest.raises(luxi.DecodingError, match="must be there and not null"):
            luxi.ParseRequest(text)

    def test_false_and_empty_arguments_are_arguments(self):
        assert luxi.ParseRequest('{"method": "SetDrainFlag", "args": false}').args is False
        assert luxi.ParseRequest('{"method": "QueryClusterInfo", "args": []}').args == []

    @pytest.mark.parametrize("text", ["[]", '"x"', '{"success": true}', '{"result": 1}'])
    def test_no_answer(self, text):
        with pytest.raises(luxi.DecodingError):
            luxi.ParseResponse(text)

    @pytest.mark.parametrize("text", ["", "{", b"\xff"])
    def test_no_json(self, text):
        with pytest.raises(luxi.ProtocolError) as info:
            luxi.ParseResponse(text)
        assert type(info.value) is luxi.ProtocolError


class TestErrors:
    """Errors of the suite come back as themselves, everything else as a text."""

    @pytest.mark.parametrize(
        "err",
        [
            errors.OpPrereqError("no such instance", errors.ECODE_NOENT),
            errors.JobQueueDrainError("drained"),
            errors.HooksAbort([["n1", "x", "output"]]),
            errors.JobQueueFull(),
        ],
    )
    def test_round_trip(self, err):
        answer = luxi.FormatResponse(False, luxi.EncodeError(err))
        with pytest.raises(type(err)) as info:
            luxi.GetResult(answer)
        assert type(info.value) is type(err)
        assert info.value.args == err.args

    @pytest.mark.parametrize(
        ("err", "says"),
        [
            (luxi.RequestError("SetDrainFlag takes flag"), "SetDrainFlag takes flag"),
            (ValueError("bad"), "Caught exception: bad"),
            (KeyError("x"), "Caught exception: x"),
            (errors.QuitGanetiException(True, "x"), "Caught exception: "),
        ],
    )
    def test_texts(self, err, says):
        answer = luxi.FormatResponse(False, luxi.EncodeError(err))
        with pytest.raises(luxi.RequestError) as info:
            luxi.GetResult(answer)
        assert says in info.value.args[0]

    @pytest.mark.parametrize("name", ["ValueError", "SystemExit", "object", "RequestError"])
    def test_only_errors_of_the_suite_are_made_by_name(self, name):
        with pytest.raises(luxi.RequestError) as info:
            luxi.GetResult(luxi.FormatResponse(False, [name, ["x"]]))
        assert info.value.args == ([name, ["x"]],)


#: Method, arguments as the first generation sends them, as the later one does, what they mean.
_SHAPES = [
    ("SubmitJob", [_OP, _OP], [[_OP, _OP]], [[_OP, _OP]]),
    ("SubmitManyJobs", [[_OP], [_OP, _OP]], [[[_OP], [_OP, _OP]]], [[[_OP], [_OP, _OP]]]),
    ("SubmitManyJobs", [[_OP]], [[[_OP]]], [[[_OP]]]),
    ("CancelJob", "12", [12], ["12", False]),
    ("CancelJob", 12, [12, False], ["12", False]),
    ("ArchiveJob", "12", [12], ["12"]),
    ("QueryConfigValues", ["cluster_name"], [["cluster_name"]], [["cluster_name"]]),
    ("SetDrainFlag", True, [True], [True]),
    ("SetDrainFlag", False, [False], [False]),
    ("AutoArchiveJobs", [-1, 29], [-1, 29], [-1, 29]),
    (
        "WaitForJobChange",
        ["14", ["status"], None, None, 10],
        [14, ["status"], None, None, 10],
        ["14", ["status"], None, None, 10],
    ),
    ("QueryJobs", [["9", "10"], ["id"]], [[9, 10], ["id"]], [["9", "10"], ["id"]]),
    ("QueryJobs", [None, ["id"]], [None, ["id"]], [None, ["id"]]),
    ("QueryClusterInfo", [], [], []),
    ("QueryTags", ["cluster", ""], ["cluster", ""], ["cluster", ""]),
    ("SetWatcherPause", [None], [None], [None]),
    ("SetWatcherPause", [1795337673], [1795337673], [1795337673]),
    ("ChangeJobPriority", ["12", -10], [12, -10], ["12", -10]),
    ("Query", ["node", ["name"]], ["node", ["name"], None], ["node", ["name"], None]),
    ("QueryFields", ["node"], ["node", None], ["node", None]),
    ("QueryLocks", [], [list(luxi.LOCK_FIELDS)], [list(luxi.LOCK_FIELDS)]),
]


class TestArguments:
    """The arguments of both generations of clients, checked before anything is done."""

    @pytest.mark.parametrize("name", _NAMES)
    def test_method_is_declared(self, name):
        """BASE1: every request of the 2.1 generation."""
        assert luxi.METHODS[name].name == name
        assert name in luxi.REQ_ALL
        assert luxi.METHODS[name].result

    def test_every_constant_is_a_method(self):
        names = {getattr(luxi, name) for name in luxi.__all__ if name.startswith("REQ_")}
        assert names - {luxi.REQ_ALL} == luxi.REQ_ALL

    @pytest.mark.parametrize("entry", _ANSWERED, ids=_Titles)
    def test_what_2_1_8_took_is_taken(self, entry):
        request = luxi.ParseRequest(entry[1])
        if request.method in luxi.REQ_ALL:
            values = luxi.ParseArgs(request.method, request.args)
            assert len(values) == len(luxi.METHODS[request.method].args)

    @pytest.mark.parametrize(("name", "old", "new", "means"), _SHAPES)
    def test_both_generations(self, name, old, new, means):
        assert luxi.ParseArgs(name, old) == means
        for modern in (False, True):
            assert luxi.ParseArgs(name, new, modern) == means

    def test_empty_inner_list_is_read_by_generation(self):
        assert luxi.ParseArgs("SubmitManyJobs", [[]]) == [[[]]]
        assert luxi.ParseArgs("SubmitManyJobs", [[]], modern=True) == [[]]
        assert luxi.ParseArgs("SubmitManyJobs", [[[]]]) == [[[]]]
        assert luxi.ParseArgs("SubmitJob", []) == [[]]
        assert luxi.ParseArgs("SubmitJob", [[]]) == [[]]

    def test_false_in_a_list_does_not_drain(self):
        """A daemon of 2.1 took the non-empty list for true."""
        assert luxi.ParseArgs("SetDrainFlag", [False]) == [False]

    @pytest.mark.parametrize(
        ("given", "means"),
        [("007", "7"), (0, "0"), ("nosuch", "nosuch"), ("", ""), ("-1", "-1"), ("٣", "٣")],
    )
    def test_job_ids_become_texts(self, given, means):
        assert luxi.ParseArgs("QueryJobs", [[given], ["id"]])[0] == [means]

    @pytest.mark.parametrize(
        ("name", "args", "says"),
        [
            ("QueryNodes", [None, ["name"], False], "'names' of QueryNodes: None"),
            ("QueryNodes", [[], ["name"], 0], "'use_locking'"),
            ("QueryTags", ["node", None], "'name' of QueryTags: None"),
            ("SubmitJob", ["x"], "'ops' of SubmitJob: item 0: 'x'"),
            ("SubmitJob", {"OP_ID": "x"}, "'ops' of SubmitJob"),
            ("SubmitJob", [[[_OP]]], "'ops'"),
            ("CancelJob", [[12]], "'job_id'"),
            ("CancelJob", ["12", True], "'kill' of CancelJob: True"),
            ("CancelJob", -1, "'job_id'"),
            ("SetDrainFlag", "yes", "'flag' of SetDrainFlag: 'yes'"),
            ("SetWatcherPause", ["soon"], "'until'"),
            ("WaitForJobChange", ["1", ["status"], None, None, -1], "'timeout'"),
            ("ChangeJobPriority", ["1", 100], "'priority'"),
            ("QueryLocks", [["nosuch"]], "'nosuch'"),
        ],
    )
    def test_wrong_values(self, name, args, says):
        with pytest.raises(errors.OpPrereqError) as info:
            luxi.ParseArgs(name, args)
        assert info.value.args[1] == errors.ECODE_INVAL
        assert says in info.value.args[0]

    @pytest.mark.parametrize(
        ("name", "args", "says"),
        [
            ("QueryNodes", "x", "takes a list (names, fields, use_locking), not 'x'"),
            ("QueryNodes", [[], []], "given 2 arguments"),
            ("QueryClusterInfo", [1], "takes nothing; it was given 1"),
            ("CancelJob", [], "takes job_id, kill; it was given 0"),
            ("ArchiveJob", ["1", "2"], "given 2"),
            ("SetWatcherPause", 5, "takes a list (until)"),
        ],
    )
    def test_wrong_shapes(self, name, args, says):
        with pytest.raises(luxi.RequestError) as info:
            luxi.ParseArgs(name, args)
        assert says in info.value.args[0]

    @settings(max_examples=400, deadline=None)
    @given(st.sampled_from(sorted(luxi.REQ_ALL)), _JSON, st.booleans())
    def test_whatever_comes_is_read_or_refused(self, name, args, modern):
        try:
            values = luxi.ParseArgs(name, args, modern)
        except (luxi.RequestError, errors.OpPrereqError):
            return
        assert len(values) == len(luxi.METHODS[name].args)
        assert luxi.ParseArgs(name, values, modern=True) == values


class TestJobIds:
    """Later clients get job ids as integers."""

    @pytest.mark.parametrize(
        ("name", "values", "result", "becomes"),
        [
            ("SubmitJob", [[]], "12", 12),
            (
                "SubmitManyJobs",
                [[]],
                [[True, "12"], [False, "13 is wrong"]],
                [[True, 12], [False, "13 is wrong"]],
            ),
            (
                "QueryJobs",
                [["9", "x"], ["status", "id"]],
                [["success", "9"], None],
                [["success", 9], None],
            ),
            ("WaitForJobChange", ["9", ["id"], None, None, 1], [["9"], [[1]]], [[9], [[1]]]),
            ("WaitForJobChange", ["9", ["id"], None, None, 1], "nochange", "nochange"),
            ("WaitForJobChange", ["9", ["id"], None, None, 1], None, None),
            ("QueryTags", ["node", "9"], ["9"], ["9"]),
        ],
    )
    def test_adapt(self, name, values, result, becomes):
        assert luxi.AdaptJobIds(name, values, result) == becomes


class _Server:
    """Stands for the connection: answers with what it was given, keeps what was sent."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.opened = 0
        self.closed = 0
        self.addresses = []

    def __call__(self, address, timeouts=None):
        self.opened += 1
        self.addresses.append((address, timeouts))
        return self

    def Call(self, text):
        self.requests.append(luxi.ParseRequest(text))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer.encode("utf-8")

    def Close(self):
        self.closed += 1


def _Ok(result):
    return luxi.FormatResponse(True, result)


#: Method of the client, its arguments, the request it makes, what that means to the server.
_CLIENT_CALLS = [
    ("SubmitJob", ([opcodes.OpCode.LoadOpCode(_OP), _OP],), "SubmitJob", [[_OP, _OP]]),
    ("SubmitManyJobs", ([[_OP], [_OP]],), "SubmitManyJobs", [[[_OP], [_OP]]]),
    ("CancelJob", ("12",), "CancelJob", ["12", False]),
    ("ArchiveJob", ("12",), "ArchiveJob", ["12"]),
    ("AutoArchiveJobs", (-1,), "AutoArchiveJobs", [-1, 29]),
    ("ChangeJobPriority", ("12", 10), "ChangeJobPriority", ["12", 10]),
    (
        "WaitForJobChangeOnce",
        ("12", ["status"], ["queued"], 4),
        "WaitForJobChange",
        ["12", ["status"], ["queued"], 4, 29],
    ),
    (
        "WaitForJobChange",
        ("12", ["status"], None, None),
        "WaitForJobChange",
        ["12", ["status"], None, None, 29],
    ),
    ("QueryJobs", (None, ["id"]), "QueryJobs", [None, ["id"]]),
    ("QueryInstances", ([], ["name"], False), "QueryInstances", [[], ["name"], False]),
    ("QueryNodes", (["n1"], ["name"], False), "QueryNodes", [["n1"], ["name"], False]),
    ("QueryExports", ([], False), "QueryExports", [[], False]),
    ("QueryClusterInfo", (), "QueryClusterInfo", []),
    ("QueryConfigValues", (["cluster_name"],), "QueryConfigValues", [["cluster_name"]]),
    ("QueryConfigChange", (12,), "QueryConfigChange", [12]),
    ("QueryTags", ("cluster", ""), "QueryTags", ["cluster", ""]),
    ("QueryLocks", (), "QueryLocks", [["name", "mode", "owner", "pending"]]),
    ("Query", ("node", ["name"]), "Query", ["node", ["name"], None]),
    ("QueryFields", ("node",), "QueryFields", ["node", None]),
    ("SetQueueDrainFlag", (False,), "SetDrainFlag", [False]),
    ("SetWatcherPause", (None,), "SetWatcherPause", [None]),
]


class TestClient:
    """A method for each request; a broken connection is replaced, a request never repeated."""

    @pytest.mark.parametrize(("method", "args", "name", "means"), _CLIENT_CALLS)
    def test_requests(self, method, args, name, means):
        server = _Server(_Ok(["the result"]))
        result = getattr(luxi.Client(transport=server), method)(*args)
        assert result == ["the result"]
        (request,) = server.requests
        assert request.method == name
        assert luxi.ParseArgs(name, request.args) == means

    def test_every_request_has_a_method(self):
        in_pages = {"QueryConfigHistory", "QueryConfigAt"}
        assert {entry[2] for entry in _CLIENT_CALLS} | in_pages == luxi.REQ_ALL

    def test_history_in_pages(self):
        pages = [
            {"entries": [1, 2], "cursor": [7, 1.5], "problem": None},
            {"entries": [3], "cursor": None, "problem": "p"},
        ]
        server = _Server(*map(_Ok, pages))
        answer = luxi.Client(transport=server).QueryConfigHistory("inst1", 3)
        assert answer == {"entries": [1, 2, 3], "problem": "p"}
        assert [luxi.ParseArgs("QueryConfigHistory", r.args) for r in server.requests] == [
            ["inst1", 3, None, None],
            ["inst1", 3, None, [7, 1.5]],
        ]

    def test_old_configuration_in_pages(self):
        header = {"serial_no": 5, "version": 1}
        node, instance = ["node", "n", {"name": "n"}], ["instance", "i", {"name": "i"}]
        pages = [
            {"header": header, "objects": [["cluster", "", {}], instance], "cursor": instance[:2]},
            {"header": header, "objects": [node], "cursor": None},
        ]
        server = _Server(*map(_Ok, pages))
        assert luxi.Client(transport=server).QueryConfigAt(5) == {
            **header,
            "cluster": {},
            "nodes": {"n": {"name": "n"}},
            "instances": {"i": {"name": "i"}},
        }
        assert luxi.ParseArgs("QueryConfigAt", server.requests[1].args) == [5, ["instance", "i"]]

    @pytest.mark.parametrize(
        ("name", "args"),
        [
            ("QueryConfigHistory", [["x"]]),
            ("QueryConfigHistory", [None, -1]),
            ("QueryConfigHistory", [None, None, "now"]),
            ("QueryConfigHistory", [None, None, None, [1]]),
            ("QueryConfigChange", [None]),
            ("QueryConfigAt", [1, ["x"]]),
        ],
    )
    def test_wrong_arguments_of_the_history(self, name, args):
        with pytest.raises(errors.OpPrereqError, match=name):
            luxi.ParseArgs(name, args)

    def test_connects_when_made(self):
        server = _Server()
        luxi.Client(transport=server)
        assert server.addresses == [(pathutils.MASTER_SOCKET, None)]
        luxi.Client(address="/x", timeouts=(1, 2), transport=server)
        assert server.addresses[1] == ("/x", (1, 2))

    def test_connection_is_kept(self):
        server = _Server(_Ok({}), _Ok({}))
        with luxi.Client(transport=server) as cl:
            cl.QueryClusterInfo()
            cl.QueryClusterInfo()
            assert (server.opened, server.closed) == (1, 0)
        assert (server.opened, server.closed) == (1, 1)

    @pytest.mark.parametrize("err", [luxi.TimeoutError("x"), luxi.ConnectionClosedError("x")])
    def test_new_connection_after_an_error(self, err):
        server = _Server(err, _Ok({"name": "c"}))
        cl = luxi.Client(transport=server)
        with pytest.raises(type(err)):
            cl.QueryClusterInfo()
        assert (server.opened, server.closed, len(server.requests)) == (1, 1, 1)
        assert cl.QueryClusterInfo() == {"name": "c"}
        assert (server.opened, server.closed, len(server.requests)) == (2, 1, 2)

    def test_connection_is_kept_after_an_error_of_the_request(self):
        refused = luxi.FormatResponse(False, ["JobQueueDrainError", ["drained"]])
        server = _Server(refused, _Ok("1"))
        cl = luxi.Client(transport=server)
        with pytest.raises(errors.JobQueueDrainError, match="drained"):
            cl.SubmitJob([_OP])
        assert cl.SubmitJob([_OP]) == "1"
        assert server.opened == 1

    def test_waiting_repeats_until_something_changed(self):
        change = [["success"], []]
        server = _Server(_Ok("nochange"), _Ok("nochange"), _Ok(change))
        cl = luxi.Client(transport=server)
        assert cl.WaitForJobChange("1", ["status"], ["running"], 0) == change
        assert len({str(request.args) for request in server.requests}) == 1
        assert len(server.requests) == 3

    def test_waiting_for_an_unknown_job_ends(self):
        assert luxi.Client(transport=_Server(_Ok(None))).WaitForJobChange("1", [], None, 0) is None

    def test_one_wait_stays_below_the_time_out_of_a_read(self):
        server = _Server(_Ok("nochange"))
        cl = luxi.Client(transport=server)
        assert cl.WaitForJobChangeOnce("1", [], None, None, timeout=1000) == "nochange"
        assert server.requests[0].args[4] == luxi.WFJC_TIMEOUT < luxi.DEF_RWTO / 2


class _Socket:
    """A socket whose other side answers as scripted; time passes as the script says."""

    def __init__(self, clock, reads=(), send_error=None):
        self._clock = clock
        self._reads = list(reads)
        self._send_error = send_error
        self.sent = b""
        self.timeouts = []
        self.closed = False

    def settimeout(self, seconds):
        self.timeouts.append(seconds)

    def sendall(self, data):
        if self._send_error is not None:
            raise self._send_error
        self.sent += data

    def recv(self, size):
        read = self._reads.pop(0)
        if isinstance(read, BaseException):
            raise read
        seconds, data = read
        self._clock.Advance(seconds)
        assert len(data) <= size
        return data

    def close(self):
        self.closed = True


def _Transport(reads=(), send_error=None, timeouts=(10, 60)):
    clock = fake.FakeClock()
    sock = _Socket(clock, reads, send_error)
    transport = luxi.Transport("/s", timeouts, clock=clock, connect=lambda *_: sock)
    return transport, sock


class TestTransport:
    """One connection: what can go wrong has a name each."""

    def test_call(self):
        transport, sock = _Transport([(0, b'{"a"'), (1, b": 1}\n\3")])
        assert transport.Call("request\n") == b'{"a": 1}\n'
        assert sock.sent == b"request\n\3"
        assert sock.timeouts[-1] == 60

    def test_several_messages_in_one_read(self):
        transport, _ = _Transport([(0, b"1\0032\0033"), (0, b"3\3")])
        assert [transport.Recv() for _ in range(3)] == [b"1", b"2", b"33"]

    @pytest.mark.parametrize("code", [errno.ENOENT, errno.ECONNREFUSED])
    def test_no_master(self, code):
        def _Fail(*_):
            raise OSError(code, "no")

        with pytest.raises(luxi.NoMasterError) as info:
            luxi.Transport("/s", clock=fake.FakeClock(), connect=_Fail)
        assert info.value.args == ("/s",)

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
    def test_no_permission(self, code):
        def _Fail(*_):
            raise OSError(code, "no")

        with pytest.raises(luxi.PermissionError):
            luxi.Transport("/s", clock=fake.FakeClock(), connect=_Fail)

    def test_other_errors_stay_what_they_are(self):
        def _Fail(*_):
            raise OSError(errno.EMFILE, "no")

        with pytest.raises(OSError, match="no") as info:
            luxi.Transport("/s", clock=fake.FakeClock(), connect=_Fail)
        assert info.value.errno == errno.EMFILE

    def test_full_backlog_is_waited_for(self):
        clock = fake.FakeClock()
        tries = []

        def _Busy(address, timeout):
            tries.append((address, timeout))
            if len(tries) < 4:
                raise OSError(errno.EAGAIN, "busy")
            return _Socket(clock)

        luxi.Transport("/s", (10, 60), clock=clock, connect=_Busy)
        assert clock.sleeps == [1.0, 1.0, 1.0]
        assert tries == [("/s", 10)] * 4

    def test_full_backlog_ends_at_the_time_out(self):
        clock = fake.FakeClock()

        def _Busy(*_):
            raise OSError(errno.EAGAIN, "busy")

        with pytest.raises(luxi.TimeoutError, match="no connection for 3 seconds"):
            luxi.Transport("/s", (3, 60), clock=clock, connect=_Busy)
        assert clock.now <= 3

    def test_connection_in_no_time(self):
        def _Slow(*_):
            raise TimeoutError

        with pytest.raises(luxi.TimeoutError, match="/s within 10 seconds"):
            luxi.Transport("/s", clock=fake.FakeClock(), connect=_Slow)

    def test_no_answer(self):
        transport, _ = _Transport([TimeoutError()])
        with pytest.raises(luxi.TimeoutError, match="No answer"):
            transport.Call("x")

    def test_answer_that_never_ends(self):
        """Each read is in time, the whole is not."""
        transport, _ = _Transport([(50, b"."), (50, b"."), (50, b"."), (50, b".\3")])
        with pytest.raises(luxi.TimeoutError, match="not complete within 120 seconds"):
            transport.Recv()

    def test_slow_answer_within_the_extended_time(self):
        transport, _ = _Transport([(50, b"."), (50, b"."), (50, b".\3")])
        assert transport.Recv() == b"..."

    @pytest.mark.parametrize("read", [(0, b""), ConnectionResetError()])
    def test_closed_while_waiting(self, read):
        transport, _ = _Transport([(0, b"half"), read])
        with pytest.raises(luxi.ConnectionClosedError):
            transport.Recv()

    @pytest.mark.parametrize(
        ("err", "becomes"),
        [
            (BrokenPipeError(), luxi.ConnectionClosedError),
            (ConnectionResetError(), luxi.ConnectionClosedError),
            (TimeoutError(), luxi.TimeoutError),
        ],
    )
    def test_errors_of_sending(self, err, becomes):
        transport, _ = _Transport(send_error=err)
        with pytest.raises(becomes):
            transport.Send("x")

    def test_byte_that_ends_a_message_is_not_sent(self):
        transport, sock = _Transport()
        with pytest.raises(luxi.EncodingError):
            transport.Send("a\3b")
        assert sock.sent == b""

    def test_close(self):
        transport, sock = _Transport()
        transport.Close()
        transport.Close()
        assert sock.closed
        with pytest.raises(luxi.ProtocolError, match="closed"):
            transport.Send("x")

    def test_default_time_outs(self):
        assert (luxi.DEF_CTMO, luxi.DEF_RWTO, luxi.WFJC_TIMEOUT) == (10, 60, 29)
        assert constants.LUXI_EOM == b"\3"

    def test_real_sockets(self, tmp_path):
        """The connection that the other tests replace."""
        address = str(tmp_path / "s")
        with pytest.raises(luxi.NoMasterError):
            luxi.Transport(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address)
            with pytest.raises(luxi.NoMasterError):
                luxi.Transport(address)
            listener.listen(1)
            transport = luxi.Transport(address, (1, 1))
            server, _ = listener.accept()
            with server:
                transport.Send("ping")
                assert server.recv(100) == b"ping\3"
                server.sendall(b"pong\3")
                assert transport.Recv() == b"pong"
            with pytest.raises(luxi.ConnectionClosedError):
                transport.Recv()
            transport.Close()


class TestImport:
    """A command pays for what it uses."""

    def test_no_heavy_imports(self):
        code = (
            "import sys, ganeti.luxi;"
            "print([name for name in ('dataclasses', 'inspect', 'asyncio', 'subprocess', 'ssl',"
            " 'logging', 'ganeti.opcodes', 'ganeti.runtime') if name in sys.modules])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        assert result.stdout == "[]\n"

    def test_clock_is_the_real_one_by_default(self):
        assert client._RealClock.monotonic() > 0

    def test_messages_are_the_serializers(self):
        assert luxi.FormatRequest("x", [1]) == serializer.Dump({"method": "x", "args": [1]})
