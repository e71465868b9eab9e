"""The first contact with a host: keys, passwords, what is asked, what is refused, what breaks.

The server is Paramiko's, at the other end of a socket pair.
"""

import base64
import contextlib
import hashlib
import hmac
import logging
import socket
import threading

import paramiko
import pytest

from ganeti import errors, firstcontact
from ganeti.utils import knownhosts

HOST, ADDRESS, PASSWORD = "node2.example.com", "192.0.2.2", "secret"
HOST_KEY = paramiko.ECDSAKey.generate()
OTHER_KEY = paramiko.ECDSAKey.generate()
ROOT_KEY, FOREIGN_KEY = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
SHOWN = knownhosts.Fingerprint(HOST_KEY.asbytes())


def Line(key=HOST_KEY, names=HOST, marker=""):
    return f"{marker}{names} {key.get_name()} {key.get_base64()}\n"


def Hashed(host, salt=b"saltsaltsaltsaltsalt"):
    digest = hmac.digest(salt, host.encode(), hashlib.sha1)
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


class TestFindKeys:
    """Files of the OpenSSH client are read as it reads them."""

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (HOST, True),
            (f"other,{HOST},192.0.2.2", True),
            ("NODE2.Example.com", True),
            ("*.example.com", True),
            ("node?.example.com", True),
            ("*", True),
            (Hashed(HOST), True),
            (Hashed("node3.example.com"), False),
            ("|1|no|base64", False),
            ("|2|a|b", False),
            ("node2", False),
            (f"*.example.com,!{HOST}", False),
            ("node[2].example.com", False),
            (f"[{HOST}]:2222", False),
            ("@cert-authority *.example.com", False),
        ],
    )
    def test_names(self, names, found):
        keys = list(knownhosts.FindKeys(Line(names=names), HOST, "/f"))
        assert [(key.blob, key.revoked) for key in keys] == [(HOST_KEY.asbytes(), False)] * found

    def test_file(self):
        content = f"# comment\n\n{HOST}\n{HOST} ssh-rsa n@t\n" + Line() + Line(marker="@revoked ")
        keys = list(knownhosts.FindKeys(content, HOST, "/f"))
        assert [(key.line, key.revoked, key.file_name) for key in keys] == [
            (5, False, "/f"),
            (6, True, "/f"),
        ]


def Known(key_type, blob, revoked=False):
    return knownhosts.KnownKey(key_type, blob, revoked, "/f", 1)


class TestJudge:
    @pytest.mark.parametrize(
        ("known", "verdict"),
        [
            ([], "UNKNOWN"),
            ([Known("ssh-rsa", b"x")], "OTHER_TYPES"),
            ([Known("ssh-ed25519", b"x")], "CHANGED"),
            ([Known("ssh-ed25519", b"x"), Known("ssh-ed25519", b"key")], "KNOWN"),
            ([Known("ssh-ed25519", b"key"), Known("ssh-ed25519", b"key", True)], "REVOKED"),
            ([Known("ssh-ed25519", b"x", True)], "UNKNOWN"),
        ],
    )
    def test_table(self, known, verdict):
        assert knownhosts.Judge(known, "ssh-ed25519", b"key")[0].name == verdict

    def test_fingerprint(self):
        """As ssh-keygen -l prints it."""
        assert knownhosts.Fingerprint(b"") == "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

    @pytest.mark.parametrize(
        ("key_type", "short"),
        [("ssh-ed25519", "ED25519"), ("ecdsa-sha2-nistp256", "ECDSA"), ("ssh-rsa", "RSA")],
    )
    def test_short_type(self, key_type, short):
        assert knownhosts.ShortType(key_type) == short


class Server(paramiko.ServerInterface):
    """A host that may be no good: how = what it does wrong."""

    def __init__(self, how):
        self.how = how
        self.tries = []
        self.input = b""
        self.transports = []
        self.released = threading.Event()

    def Accept(self, *_):
        """A new connection; our end of it."""
        ours, theirs = socket.socketpair()
        if self.how == "silent":
            self.transports.append(theirs)
            return ours
        if self.how == "closes":
            theirs.close()
            return ours
        if self.how == "no ssh":
            # A stream socket takes this much at once.
            theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n" * 200)
            theirs.shutdown(socket.SHUT_WR)
            self.transports.append(theirs)
            return ours
        transport = paramiko.Transport(theirs)
        changed = self.how == "changes" and self.transports
        transport.add_server_key(OTHER_KEY if changed else HOST_KEY)
        self.transports.append(transport)
        transport.start_server(server=self, event=threading.Event())
        return ours

    def Close(self):
        self.released.set()
        for transport in self.transports:
            transport.close()

    def get_allowed_auths(self, username):
        return "publickey" if self.how == "keys only" else "publickey,password"

    def _Refuse(self):
        if self.how in ("few tries", "changes"):
            self.transports[-1].close()
        return paramiko.AUTH_FAILED

    def check_auth_none(self, username):
        return paramiko.AUTH_SUCCESSFUL if self.how == "open" else paramiko.AUTH_FAILED

    def check_auth_publickey(self, username, key):
        self.tries.append((username, key.get_base64()))
        return paramiko.AUTH_SUCCESSFUL if key == ROOT_KEY else self._Refuse()

    def check_auth_password(self, username, password):
        self.tries.append((username, password))
        if self.how == "login hangs":
            self.released.wait(30)
        return paramiko.AUTH_SUCCESSFUL if password == PASSWORD else self._Refuse()

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        if self.how == "refuses commands":
            return False
        threading.Thread(target=self._Command, args=(channel, command), daemon=True).start()
        return True

    def _Command(self, channel, command):
        # The client may have gone before our last word.
        with contextlib.suppress(EOFError, OSError):
            self._Answer(channel, command)

    def _Answer(self, channel, command):
        if self.how == "does not read":
            # Its start has been told by then.
            channel.recv(1)
            channel.send_exit_status(127)
            channel.close()
            return
        while data := channel.recv(4096):
            self.input += data
        if self.how == "dies":
            self.transports[-1].close()
        elif self.how == "hangs":
            self.released.wait(30)
        elif self.how == "killed":
            channel.close()
        else:
            channel.sendall(b"out of " + command)
            channel.sendall_stderr(b"error \xff\n" * 3)
            channel.send_exit_status(3 if self.how == "fails" else 0)
            channel.close()


class Person:
    """Answers what it was told to; None = is not there."""

    def __init__(self, confirms=None, passwords=()):
        self.confirms = confirms
        self.passwords = list(passwords)
        self.heard = []

    def Confirm(self, question):
        self.heard.append(question)
        return self.confirms

    def AskPassword(self, prompt):
        self.heard.append(prompt)
        return self.passwords.pop(0) if self.passwords else None


class Contact:
    """A host, what is known of it, and somebody at a terminal."""

    def __init__(self, how="", known=None, keys=(), unusable=(), person=None, **limits):
        self.server = Server(how)
        self.person = person or Person()
        content = Line() if known is None else known
        self._environment = firstcontact.Environment(
            self.server.Accept,
            lambda host: list(knownhosts.FindKeys(content, host, "/root/.ssh/known_hosts")),
            lambda: (keys, unusable),
            firstcontact.Limits(**limits),
        )

    def Connect(self, check=True):
        target = firstcontact.Target(HOST, ADDRESS)
        return firstcontact.Connect(target, self.person, check, self._environment)


@pytest.fixture
def New():
    made = []

    def Make(*args, **kwargs):
        made.append(Contact(*args, **kwargs))
        return made[-1]

    yield Make
    for contact in made:
        contact.server.Close()


def Refused(contact, check=True):
    with pytest.raises(errors.OpExecError) as caught:
        contact.Connect(check)
    text = str(caught.value)
    assert text.startswith(f"No way to {HOST} by SSH as root: ")
    return text


class TestHostKey:
    """Whom do we talk to?"""

    def test_known(self, New):
        contact = New(keys=[ROOT_KEY])
        with contact.Connect():
            assert contact.person.heard == []

    def test_confirmed(self, New):
        contact = New(known="", keys=[ROOT_KEY], person=Person(confirms=True))
        with contact.Connect():
            (question,) = contact.person.heard
        assert f"authenticity of host '{HOST} ({ADDRESS})'" in question
        assert f"Its key: ECDSA {SHOWN}\n" in question

    def test_not_confirmed(self, New):
        contact = New(known="", keys=[ROOT_KEY], person=Person(confirms=False))
        assert "was not confirmed" in Refused(contact)
        assert contact.server.tries == []

    def test_nobody_there(self, New):
        said = Refused(New(known="", keys=[ROOT_KEY]))
        assert f"ECDSA {SHOWN}" in said
        assert "no terminal" in said
        assert "--no-ssh-key-check" in said

    def test_changed(self, New):
        contact = New(known="\n" + Line(OTHER_KEY), person=Person(confirms=True))
        said = Refused(contact)
        assert "HAS CHANGED" in said
        assert SHOWN in said
        assert "line 2 of /root/.ssh/known_hosts" in said
        assert f"ssh-keygen -R {HOST} -f /root/.ssh/known_hosts, then try again" in said
        assert contact.person.heard == []
        assert contact.server.tries == []

    def test_revoked(self, New):
        contact = New(known=Line() + Line(marker="@revoked "), person=Person(confirms=True))
        assert "revoked by line 2 of" in Refused(contact)

    def test_other_type_is_known(self, New):
        """It is said, and the user's word counts."""
        known = f"{HOST} ssh-ed25519 {base64.b64encode(b'x').decode()}\n"
        contact = New(known=known, keys=[ROOT_KEY], person=Person(confirms=True))
        with contact.Connect():
            assert "Keys of other types are known" in contact.person.heard[0]

    def test_no_check(self, New):
        contact = New(known=Line(OTHER_KEY), keys=[ROOT_KEY])
        with contact.Connect(check=False):
            assert contact.person.heard == []

    def test_changes_meanwhile(self, New):
        contact = New("changes", keys=[FOREIGN_KEY, ROOT_KEY], known="", person=Person(True))
        assert "another host key at the second connection" in Refused(contact)

    def test_known_types_are_asked_for_first(self):
        algorithms = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
        assert firstcontact._PreferKnown(algorithms, []) == algorithms
        assert firstcontact._PreferKnown(algorithms, [Known("ssh-rsa", b"")]) == [
            "rsa-sha2-512",
            "rsa-sha2-256",
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
        ]
        assert firstcontact._PreferKnown(algorithms, [Known("ssh-rsa", b"", True)]) == algorithms


class TestLogIn:
    """With a key of root's, or with a password that is typed."""

    def test_key(self, New):
        contact = New(keys=[FOREIGN_KEY, ROOT_KEY], person=Person(passwords=[PASSWORD]))
        with contact.Connect():
            assert contact.person.heard == []
            assert contact.server.tries[-1] == ("root", ROOT_KEY.get_base64())

    def test_nothing_asked_for(self, New):
        with New("open").Connect() as host:
            assert host.Run("x").exit_code == 0

    def test_password(self, New):
        contact = New(keys=[FOREIGN_KEY], person=Person(passwords=["wrong", PASSWORD]))
        with contact.Connect():
            first, second = contact.person.heard
        assert first == f"root@{HOST}'s password: "
        assert second == f"Permission denied, please try again.\n{first}"

    def test_wrong_passwords(self, New):
        contact = New(person=Person(passwords=["wrong"] * 9), unusable=["/k has a passphrase"])
        said = Refused(contact)
        assert "Permission denied" in said
        assert "none of 3 passwords; /k has a passphrase" in said
        assert "PermitRootLogin" in said
        assert len(contact.person.heard) == 3

    def test_nobody_there(self, New):
        said = Refused(New(keys=[FOREIGN_KEY]))
        assert "nobody gave a password: run this from a terminal, or let a key" in said

    def test_keys_only(self, New):
        contact = New("keys only", keys=[FOREIGN_KEY], person=Person(passwords=[PASSWORD]))
        assert "and no passwords" in Refused(contact)
        assert contact.person.heard == []

    def test_server_ends_the_connection(self, New):
        """After some tries: those that are left come over another one, with no new question."""
        person = Person(confirms=True, passwords=["wrong", PASSWORD])
        contact = New("few tries", known="", keys=[FOREIGN_KEY], person=person)
        with contact.Connect() as host:
            assert host.Run("x").exit_code == 0
        assert len(contact.server.transports) == 3
        assert len([text for text in person.heard if "authenticity" in text]) == 1


class TestFaults:
    """Servers that are none, hang or die: an error in time that says what to do."""

    def test_unreachable(self, New):
        contact = New()

        def Fail(*_):
            raise OSError(113, "No route to host")

        contact.server.Accept = Fail
        environment = firstcontact.Environment(Fail, lambda _: [], lambda: ([], []))
        with pytest.raises(
            errors.OpExecError, match=r"192\.0\.2\.2, port 22: No route to host; is"
        ):
            firstcontact.Connect(firstcontact.Target(HOST, ADDRESS), Person(), True, environment)

    @pytest.mark.parametrize(
        ("how", "text"),
        [
            ("silent", "no SSH server answers (for 0.3 seconds)"),
            ("closes", "port 22: "),
            ("no ssh", "port 22: "),
        ],
    )
    def test_no_server(self, New, how, text):
        assert text in Refused(New(how, handshake=0.3))

    def test_login_hangs(self, New):
        contact = New("login hangs", person=Person(passwords=["x"]), login=0.3)
        assert "does not answer to a try to log in for 0.3 seconds" in Refused(contact)

    @pytest.mark.parametrize(
        ("how", "texts"),
        [
            ("hangs", ["No end of it within 0.5 seconds", f"how far 'x' got on {HOST} is not"]),
            ("dies", [f"The connection to {HOST} broke; how far 'x' got", "then try again"]),
            ("killed", [f"'x' on {HOST} was killed"]),
            ("refuses commands", [f"The connection to {HOST} broke"]),
        ],
    )
    def test_command(self, New, how, texts):
        contact = New(how, keys=[ROOT_KEY], command=0.5 if how == "hangs" else 30)
        with contact.Connect() as host, pytest.raises(errors.OpExecError) as caught:
            host.Run("x")
        for text in texts:
            assert text in str(caught.value)


class TestCommand:
    def test_output(self, New):
        contact = New("fails", keys=[ROOT_KEY])
        with contact.Connect() as host:
            result = host.Run("the command", "input ü\n" * 1000)
            assert (result.exit_code, result.failed) == (3, True)
            assert result.stdout == "out of the command"
            assert result.stderr == "error \ufffd\n" * 3
            assert contact.server.input.decode() == "input ü\n" * 1000
            # The same connection serves for more.
            assert host.Run("another").stdout == "out of another"
        assert len(contact.server.transports) == 1

    def test_input_is_not_read(self, New):
        with New("does not read", keys=[ROOT_KEY]).Connect() as host:
            assert host.Run("x", "much" * 100000).exit_code == 127


class TestThisHost:
    """What root has."""

    @pytest.fixture
    def ssh_dir(self, tmp_path, monkeypatch):
        monkeypatch.setattr(firstcontact, "_SshDirectory", lambda: str(tmp_path))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        return tmp_path

    def test_keys(self, ssh_dir):
        ROOT_KEY.write_private_key_file(str(ssh_dir / "id_ecdsa"))
        paramiko.RSAKey.generate(2048).write_private_key_file(str(ssh_dir / "id_rsa"), "locked")
        (ssh_dir / "id_ed25519").write_text("rubbish")
        keys, unusable = firstcontact._Identities()
        assert keys == [ROOT_KEY]
        assert [text.split()[:2] for text in unusable] == [
            [f"{ssh_dir}/id_ed25519", "can"],
            [f"{ssh_dir}/id_rsa", "has"],
        ]

    def test_known_hosts(self, ssh_dir):
        (ssh_dir / "known_hosts").write_text(Line())
        (ssh_dir / "known_hosts2").write_bytes(b"\xff\n" + Line(OTHER_KEY).encode())
        assert [key.blob for key in firstcontact.KnownKeys(HOST.upper())] == [
            HOST_KEY.asbytes(),
            OTHER_KEY.asbytes(),
        ]


def test_nothing_of_paramiko_is_logged():
    """Its exceptions say it all."""
    assert logging.getLogger("paramiko").getEffectiveLevel() == logging.CRITICAL
