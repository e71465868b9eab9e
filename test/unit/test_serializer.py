"""JSON as it stands on disk and on the wire, and signed messages."""

import collections
import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import errors, serializer

GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden"

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=15,
)


class TestForm:
    """The bytes of config.data and of the job files are those of release 2.1."""

    def test_config_file_survives_byte_for_byte(self):
        text = (GOLDEN / "state" / "config.data").read_text(encoding="utf-8")
        assert serializer.Dump(serializer.Load(text), indent=True) == text

    @pytest.mark.parametrize("job", [2, 3, 9, 15, 41])
    def test_job_files_survive_byte_for_byte(self, job):
        text = (GOLDEN / "state" / "queue" / f"job-{job}").read_text(encoding="utf-8")
        assert serializer.Dump(serializer.Load(text)) == text

    def test_compact(self):
        assert serializer.Dump({"b": [1, None], "a": "ä"}) == '{"a": "\\u00e4", "b": [1, null]}\n'

    def test_indented(self):
        expected = '{\n  "a": [],\n  "b": [\n    1\n  ],\n  "c": {}\n}\n'
        assert serializer.Dump({"b": [1], "a": [], "c": {}}, indent=True) == expected

    def test_sets_are_sorted_lists(self):
        assert serializer.Dump({3, 1, 2}) == "[1, 2, 3]\n"
        assert serializer.Dump(frozenset(["b", "a"])) == '["a", "b"]\n'

    def test_tuples_are_lists_even_with_names(self):
        point = collections.namedtuple("point", "x y")
        assert serializer.Dump([(1, 2), point(3, 4)]) == "[[1, 2], [3, 4]]\n"

    @pytest.mark.parametrize("value", [object(), b"bytes", 1j, {"x": object()}])
    def test_what_json_does_not_have_is_refused(self, value):
        with pytest.raises(TypeError):
            serializer.Dump(value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
    def test_numbers_that_json_does_not_have_are_refused(self, value):
        with pytest.raises(ValueError):
            serializer.Dump(value)

    @pytest.mark.parametrize(
        "text", ["", "{", "NaN", "[1,]", "{'a': 1}", b"\xff", '"' + "\\ud8", "[" * 200000]
    )
    def test_broken_text_is_a_value_error(self, text):
        with pytest.raises(ValueError):
            serializer.Load(text)

    @pytest.mark.parametrize("text", ["1e999", '{"a": [-1e400]}', b"1e309", "9" * 5000])
    def test_numbers_that_could_never_be_written_are_not_read(self, text):
        """An opcode with such a one was a job that no file could hold."""
        with pytest.raises(ValueError, match="too large|limit"):
            serializer.Load(text)

    def test_bytes_and_text_are_the_same(self):
        assert serializer.Load(b'{"a": "\xc3\xa4"}') == {"a": "ä"}

    @given(JSON)
    def test_round_trip(self, value):
        for indent in (False, True):
            text = serializer.Dump(value, indent=indent)
            assert serializer.Load(text) == value
            assert text.endswith("\n")
            assert not re.search(r"[ \t]$", text, re.M)
            assert text.isascii()
            assert indent or text.count("\n") == 1

    @given(st.dictionaries(st.text(), st.integers()))
    def test_equal_content_gives_equal_bytes(self, value):
        turned = dict(reversed(value.items()))
        assert serializer.Dump(value) == serializer.Dump(turned)


K1 = b"testkey"
K2 = b"0123456789abcdef0123456789abcdef01234567\n"
RSALT = "11111111-2222-3333-4444-555555555555"
SALT = "1700000000"
PING = {"protocol": 1, "type": 0, "rsalt": RSALT}
ROLE = {**PING, "type": 1, "query": "node1.example.com"}
IPS = {**PING, "type": 2, "query": {"0": "br0", "2": ["192.0.2.10", "192.0.2.11"]}}
MASTER = {**PING, "type": 3, "query": {"3": ["0", "1", "2"]}}
OK = {"protocol": 1, "serial": 42, "status": 0}


class TestSigned:
    """CF1: HMAC over salt + message with the cluster key, newline of the key file included."""

    VECTORS = [
        (K1, SALT, PING, "462a32889660008a47057b998766fa2f215b752f"),
        (K2, SALT, PING, "7cb556918305f31dac21a329a974c1e6afc94603"),
        (K2[:-1], SALT, PING, "575129a3a774b3db8f8440b8c22d0d8ad13d58cc"),
        (K2, SALT, ROLE, "ec41ef0fc00db3c0cc23932d4bc999dfd77fc6db"),
        (K2, RSALT, {**OK, "answer": 1}, "2fa08dd3799b9ab8773526137047cf0f3584e08c"),
        (K2, SALT, IPS, "c1cba780def3521b4a08466592d687eb820b497b"),
        (
            K2,
            RSALT,
            {**OK, "answer": [[0, "198.51.100.1"], [1, 1]]},
            "43904860f6e62fcede540c935a91a43015ccaea4",
        ),
        (K2, SALT, MASTER, "a850120265bb16f05fb53cf7c0eae6b0d39218a2"),
        (
            K2,
            RSALT,
            {**OK, "answer": ["node1.example.com", "192.0.2.100", "192.0.2.1"]},
            "d620cf491101b7f1e03036e4137cb4a6150e1ff9",
        ),
        (
            K2,
            RSALT,
            {**OK, "answer": 1, "status": 1},
            "61c9927fc3e454bbb7a8872647ca3557c5873820",
        ),
        (K2, RSALT, {**OK, "answer": "ok"}, "b599d75d3e7774a7ffeb5102675745db4e679b52"),
    ]

    @pytest.mark.parametrize(("key", "salt", "data", "digest"), VECTORS)
    def test_vectors(self, key, salt, data, digest):
        text = serializer.DumpSigned(data, key, salt=salt)
        assert serializer.Load(text)["hmac"] == digest
        assert serializer.LoadSigned(text, key) == (data, salt)

    def test_datagram(self):
        assert serializer.DumpSigned(ROLE, K2, salt=SALT) == (
            '{"hmac": "ec41ef0fc00db3c0cc23932d4bc999dfd77fc6db", "msg": "{\\"protocol\\": 1, '
            '\\"query\\": \\"node1.example.com\\", \\"rsalt\\": '
            '\\"11111111-2222-3333-4444-555555555555\\", \\"type\\": 1}\\n", '
            '"salt": "1700000000"}\n'
        )

    def test_text_and_bytes_keys_are_the_same(self):
        assert serializer.DumpSigned(ROLE, K2) == serializer.DumpSigned(ROLE, K2.decode())

    def test_compact_messages_of_others_are_taken_as_they_stand(self):
        text = serializer.Dump(
            {
                "msg": '{"protocol":1,"status":0,"answer":4,"serial":7}',
                "salt": RSALT,
                "hmac": "90e04e92895dfacf90f972a5425f22170fd07bf2",
            }
        )
        assert serializer.LoadSigned(text, K2)[0]["answer"] == 4

    def test_dialogue_of_a_real_cluster(self):
        lines = (GOLDEN / "confd" / "dialogue.txt").read_text(encoding="utf-8").splitlines()
        key = "08da25eea14449030be38204ffeef70196b8dde6\n"
        assert repr(key) in lines[0]
        datagrams = [line[7:] for line in lines if re.match(r"(>>|<<) plj0\{", line)]
        assert len(datagrams) > 20
        verified = 0
        for text in datagrams:
            try:
                serializer.LoadSigned(text, key)
            except errors.SignatureError:
                continue
            verified += 1
        # The rest are the deliberately bad ones of the dialogue
        assert verified >= len(datagrams) - 3

    def test_key_selector(self):
        text = serializer.DumpSigned(PING, K1, salt=SALT, key_selector="cluster2")
        assert serializer.Load(text)["hmac"] == "e7439b6d96c6b2c9662aa71d309cdba5ece9317b"
        assert serializer.LoadSigned(text, {"cluster2": K1}.get) == (PING, SALT)
        with pytest.raises(errors.SignatureError):
            serializer.LoadSigned(text, K1)
        with pytest.raises(errors.SignatureError, match="no key with the name 'cluster2'"):
            serializer.LoadSigned(text, {}.get)

    def test_salt_verifier(self):
        text = serializer.DumpSigned(PING, K1, salt=SALT)
        assert serializer.LoadSigned(text, K1, [SALT])[1] == SALT
        assert serializer.LoadSigned(text, K1, lambda salt: salt == SALT)[1] == SALT
        with pytest.raises(errors.SignatureError, match=SALT):
            serializer.LoadSigned(text, K1, ["other"])
        with pytest.raises(errors.SignatureError):
            serializer.LoadSigned(text, K1, lambda _: False)

    @pytest.mark.parametrize(
        "change",
        [
            {"hmac": "0" * 40},
            {"hmac": ""},
            {"hmac": "\ud800"},
            {"hmac": None},
            {"salt": "1700000001"},
            {"salt": "\ud800"},
            {"salt": 1700000000},
            {"msg": "{}\n"},
            {"msg": None},
            {"key_selector": 1, "msg": ""},
        ],
    )
    def test_any_change_is_noticed(self, change):
        envelope = serializer.Load(serializer.DumpSigned(PING, K1, salt=SALT))
        envelope.update(change)
        with pytest.raises(errors.SignatureError):
            serializer.LoadSigned(serializer.Dump(envelope), K1)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", b"\xff\xfe", '{"msg": "x"}'])
    def test_broken_envelopes(self, text):
        with pytest.raises(errors.SignatureError):
            serializer.LoadSigned(text, K1)

    def test_rightly_signed_but_no_json_inside(self):
        text = serializer.Dump({"msg": "{", "salt": "", "hmac": serializer.Sha1Hmac(K1, "{")})
        with pytest.raises(errors.SignatureError, match="Content"):
            serializer.LoadSigned(text, K1)

    @given(JSON, st.binary(), st.text())
    def test_round_trip(self, data, key, salt):
        text = serializer.DumpSigned(data, key, salt=salt)
        assert serializer.LoadSigned(text, key) == (data, salt)

    @given(st.binary(max_size=60) | st.text(max_size=60))
    def test_junk_is_refused_quietly(self, junk):
        with pytest.raises(errors.SignatureError):
            serializer.LoadSigned(junk, K1)
