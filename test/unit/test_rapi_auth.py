"""Users of the API: the file, the forms of passwords, who may do what."""

import base64
import hashlib

import pytest

from ganeti.rapi import auth, baserlib, dispatch, fake
from ganeti.runtime import fake as fake_runtime

#: From another implementation: user alice, password s3cret.
ALICE_HA1 = "{HA1}ca99c7d5df5f6cc24ef6c1df11911761"


@pytest.fixture
def rt():
    return fake_runtime.NewRuntime()


def _Users(rt, text, mode=0o600, path="/users"):
    rt.files.write(path, text.encode(), mode=mode)
    return auth.UsersFile(["/users", "/later"], rt)


class TestParseUsers:
    def test_lines(self):
        users = auth.ParseUsers(
            "# a comment\n\nalice  secret write\nbob x read , write\nlonely\nbob y\n  # more\n"
        )
        assert users == {
            "alice": auth.User("alice", "secret", frozenset(["write"])),
            # The later line counts
            "bob": auth.User("bob", "y", frozenset()),
        }

    def test_blanks_round_options_do_not_matter(self):
        assert auth.ParseUsers("bob x read , write")["bob"].options == {"read", "write"}


class TestVerifyPassword:
    @pytest.mark.parametrize(
        "stored",
        [
            "s3cret",
            "{CLEARTEXT}s3cret",
            "{cleartext}s3cret",
            ALICE_HA1,
            ALICE_HA1.replace("HA1", "ha1"),
            "{HA1}" + ALICE_HA1[5:].upper(),
        ],
    )
    def test_forms(self, stored):
        user = auth.User("alice", stored, frozenset())
        assert auth.VerifyPassword(user, "s3cret")
        for wrong in ("", "s3cre", "S3cret", stored[1:], "s\u00e9"):
            assert not auth.VerifyPassword(user, wrong)

    @pytest.mark.parametrize("stored", ["{}x", "{SSHA}x", "{x", "{SCRYPT}nonsense", "{SCRYPT}"])
    def test_unknown_forms_never_fit(self, stored):
        user = auth.User("alice", stored, frozenset())
        for password in ("", "x", stored):
            assert not auth.VerifyPassword(user, password)

    def test_ha1_is_of_the_user(self):
        assert not auth.VerifyPassword(auth.User("bob", ALICE_HA1, frozenset()), "s3cret")

    def test_hashed(self, rt):
        stored = auth.HashPassword("s3cret", rt)
        assert stored.startswith("{SCRYPT}16384$8$1$")
        assert stored != auth.HashPassword("s3cret", rt)
        assert len(stored.split()) == 1
        user = auth.User("alice", stored, frozenset())
        assert auth.VerifyPassword(user, "s3cret")
        assert not auth.VerifyPassword(user, "s3crets")


class TestParseBasic:
    @pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
    def test_good(self, scheme):
        value = base64.b64encode(b"alice:a:b").decode()
        assert auth.ParseBasic(f"{scheme} {value}") == ("alice", "a:b")

    @pytest.mark.parametrize(
        "header",
        ["Digest abc", "Basic !!!", "Basic " + base64.b64encode(b"nocolon").decode(), "Bearer"],
    )
    def test_unreadable(self, header):
        assert auth.ParseBasic(header) is None

    @pytest.mark.parametrize("header", ["Basic", "Basic ", "basic   "])
    def test_nothing_in_it(self, header):
        with pytest.raises(auth.BadAuthorization):
            auth.ParseBasic(header)


class TestUsersFile:
    def test_read_again_when_changed(self, rt):
        users = _Users(rt, "alice one write\n")
        assert users.Authenticate("alice", "one").options == {"write"}
        rt.files.write("/users", b"alice two\n")
        assert users.Authenticate("alice", "one") is None
        assert users.Authenticate("alice", "two").options == frozenset()
        rt.files.remove("/users")
        assert users.Authenticate("alice", "two") is None

    def test_missing(self, rt):
        assert auth.UsersFile(["/users"], rt).Authenticate("alice", "x") is None

    def test_later_location(self, rt):
        users = _Users(rt, "alice one\n", path="/later")
        assert users.Authenticate("alice", "one") is not None
        rt.files.write("/users", b"bob two\n")
        assert users.Authenticate("alice", "one") is None
        assert users.Authenticate("bob", "two") is not None

    def test_refused_if_everybody_may_read_it(self, rt, caplog):
        users = _Users(rt, "alice one\n", mode=0o644)
        assert users.Authenticate("alice", "one") is None
        assert "chmod 600 /users" in caplog.text
        rt.files.write("/users", b"alice one\n", mode=0o640)
        assert users.Authenticate("alice", "one") is not None

    def test_unreadable(self, rt, caplog):
        users = _Users(rt, "alice one\n")
        rt.files.Fail("read", "/users")
        assert users.Authenticate("alice", "one") is None
        assert "can't be read" in caplog.text

    def test_expensive_checks_are_remembered_until_the_file_changes(self, rt, monkeypatch):
        checks = []
        scrypt = hashlib.scrypt

        def _Counting(*args, **kwargs):
            checks.append(1)
            return scrypt(*args, **kwargs)

        stored = auth.HashPassword("one", rt)
        monkeypatch.setattr(hashlib, "scrypt", _Counting)
        users = _Users(rt, f"alice {stored}\n")
        for _ in range(3):
            assert users.Authenticate("alice", "one")
        assert len(checks) == 1
        # Wrong ones are never remembered, in neither direction
        assert users.Authenticate("alice", "two") is None
        assert users.Authenticate("alice", "two") is None
        assert len(checks) == 3
        rt.files.write("/users", f"alice {stored} write\n".encode())
        assert users.Authenticate("alice", "one").options == {"write"}
        assert len(checks) == 4


def _Basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class TestAccess:
    """The order of the checks, and who may do what."""

    @pytest.fixture
    def make(self, rt):
        def _Make(**kwargs):
            master = fake.FakeMaster()
            master.nodes = [{"name": "node1", "tags": [], "role": "M"}]
            master.info = {}
            context = baserlib.Context(master.Connect, list, baserlib.TokenBucket(100, 1.0, rt), rt)
            users = _Users(rt, "w one write\nr two read\nnone three\n")
            return dispatch.Dispatcher(context, users, **kwargs)

        return _Make

    @pytest.mark.parametrize(
        ("method", "target", "header", "status"),
        [
            # Unknown things need no user
            ("GET", "/nosuch", None, 404),
            ("GET", "/2/nodes/", None, 404),
            ("GET", "/2/no%64es", None, 404),
            ("POST", "/2/info", None, 501),
            ("HEAD", "/2/info", None, 501),
            ("OPTIONS", "/2", None, 501),
            ("get", "/2/info", None, 200),
            # Reading needs no user, a wrong one is none
            ("GET", "/2/info", None, 200),
            ("GET", "/2/info", _Basic("w", "one"), 200),
            ("GET", "/2/info", _Basic("none", "three"), 200),
            ("GET", "/2/info", _Basic("w", "two"), 401),
            ("GET", "/2/info", _Basic("x", "one"), 401),
            ("GET", "/2/info", "Digest x", 401),
            ("GET", "/2/info", "Basic", 400),
            # Writing
            ("PUT", "/2/tags?tag=a", None, 401),
            ("PUT", "/2/tags?tag=a", _Basic("none", "three"), 403),
            ("PUT", "/2/tags?tag=a", _Basic("r", "two"), 403),
            ("PUT", "/2/tags?tag=a", _Basic("w", "one"), 200),
            # Access before arguments
            ("PUT", "/2/tags", None, 401),
            ("PUT", "/2/tags", _Basic("w", "one"), 400),
            # Reading that is not for everybody
            ("GET", "/2/jobs/1/wait?fields=id", None, 401),
            ("GET", "/2/jobs/1/wait?fields=id", _Basic("r", "two"), 404),
            ("GET", "/2/nodes/node1/storage", None, 401),
            ("GET", "/2/nodes/node1/storage", _Basic("r", "two"), 403),
            ("GET", "/2/nodes/node1/storage", _Basic("w", "one"), 400),
        ],
    )
    def test_table(self, make, method, target, header, status):
        answer = make().Handle(dispatch.RawRequest(method, target, header))
        assert answer.status == status
        challenge = answer.headers.get("WWW-Authenticate")
        assert challenge == ('Basic realm="Ganeti Remote API"' if status == 401 else None)

    def test_nothing_without_a_user(self, make):
        dispatcher = make(require_authentication=True)
        assert dispatcher.Handle(dispatch.RawRequest("GET", "/2/info")).status == 401
        header = _Basic("none", "three")
        assert dispatcher.Handle(dispatch.RawRequest("GET", "/2/info", header)).status == 200
