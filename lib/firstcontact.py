"""The first contact with a host: SSH before anything is shared with it.

Unlike the OpenSSH client, whose questions and messages are its own, this tells what went wrong and
what to do about it, has a limit of time for each step, and runs several commands over one
connection that was logged into once. It takes host keys that this host or its root knows, and asks
the user about others; it logs in with root's keys, those of the agent first, and then with a
password. Once a host is a node, L{ssh} is the way to it.

Paramiko is imported on the first connection: nobody else shall pay for it. Root's C{ssh_config} is
not read.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import constants, errors, pathutils, runtime
from .utils import io, knownhosts, process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_PORT: Final = 22
#: A silent host is asked for a sign of life so often (seconds), and given up after so many in vain.
_ALIVE_INTERVAL: Final = 3
_ALIVE_COUNT: Final = 4
#: How often a password may be typed.
_PASSWORD_TRIES: Final = 3
#: Kinds of root's private keys, in the order in which they are offered.
_IDENTITIES: Final = ("ed25519", "ecdsa", "rsa")
_PASSWORD_METHODS: Final = frozenset({"password", "keyboard-interactive"})
#: The one type of keys for which there are several algorithms.
_RSA: Final = "ssh-rsa"
_RSA_PREFIX: Final = "rsa-sha2-"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a step may take.

    @ivar connect: until the host takes the connection
    @ivar handshake: until there is an encrypted connection
    @ivar login: an answer to a key or password, which PAM may delay
    @ivar command: from the start to the end of a command
    """

    connect: float = 10
    handshake: float = 20
    login: float = 30
    command: float = 180


class User(Protocol):
    """Somebody who can be asked."""

    def Confirm(self, question: str) -> bool | None:
        """Yes or no; None = there is nobody."""

    def AskPassword(self, prompt: str) -> str | None:
        """A password; None = there is nobody, or none was given."""


class Nobody:
    """No user."""

    def Confirm(self, question: str) -> bool | None:  # noqa: ARG002
        """Nobody answers."""
        return None

    def AskPassword(self, prompt: str) -> str | None:  # noqa: ARG002
        """Nobody answers."""
        return None


NOBODY: Final[User] = Nobody()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to.

    @ivar name: of the host, as known_hosts files have it
    @ivar address: to connect to
    @ivar login: the user there
    """

    name: str
    address: str
    login: str = constants.GANETI_RUNAS

    def Problem(self, text: object) -> errors.OpExecError:
        """An error that says that there is no way to the host."""
        return errors.OpExecError(f"No way to {self.name} by SSH as {self.login}: {text}")


@dataclass(frozen=True, slots=True)
class Environment:
    """What a connection uses of this host; tests have others.

    @ivar open_fn: makes a connected socket from (address, seconds), or raises OSError
    @ivar known_fn: the known keys of a host, by its name
    @ivar keys_fn: the private keys to offer (paramiko's), and what can not be used, in words
    """

    open_fn: Callable[[str, float], socket.socket]
    known_fn: Callable[[str], Sequence[knownhosts.KnownKey]]
    keys_fn: Callable[[], tuple[Sequence[Any], Sequence[str]]]
    limits: Limits = Limits()
    rt: runtime.Runtime = runtime.DEFAULT


def Connect(
    target: Target,
    user: User,
    check_host_key: bool = True,
    environment: Environment | None = None,
) -> Host:
    """Connect to a host and log in.

    @param user: who is asked about an unknown host key, and for a password
    @param check_host_key: False = take any host key
    @raise errors.OpExecError: why there is no way, and what to do
    """
    environment = environment or Environment(_OpenSocket, KnownKeys, _Identities)
    connection = _Connection(target, user, check_host_key, environment)
    try:
        connection.Open()
        connection.LogIn()
    except BaseException:
        connection.Close()
        raise
    return Host(connection)


class Host:
    """A host that we are logged in on; a context manager that ends the connection."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._connection.Close()

    def Run(self, command: str, input: str = "") -> process.RunResult:  # noqa: A002
        """Run a shell command.

        @param input: its standard input
        @raise errors.OpExecError: it did not end in time, or the connection broke; how far it got
            is not known
        """
        return self._connection.Run(command, input)


class _Connection:
    """A connection and, if the server closes it between two tries to log in, those after it."""

    def __init__(
        self, target: Target, user: User, check_host_key: bool, environment: Environment
    ) -> None:
        self._target = target
        self._user = user
        self._check_host_key = check_host_key
        self._env = environment
        self._transport: Any = None
        #: (type, blob) of the host key that was accepted.
        self._host_key: tuple[str, bytes] | None = None

    def Close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Reaching the host

    def Open(self) -> None:
        """Connect, and be sure of whom to."""
        import paramiko

        # What it has to say is in its exceptions.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        self.Close()
        target, limits = self._target, self._env.limits
        where = f"{target.address}, port {_PORT}"
        try:
            sock = self._env.open_fn(target.address, limits.connect)
        except OSError as err:
            raise target.Problem(
                f"{where}: {err.strerror or err}; is it up, and does an SSH server run there?"
            ) from err
        known = list(self._env.known_fn(target.name)) if self._check_host_key else []
        transport = self._transport = paramiko.Transport(sock)
        options = transport.get_security_options()
        options.key_types = _PreferKnown(options.key_types, known)
        event = self._env.rt.threads.Event()
        late = target.Problem(f"{where}: no SSH server answers (for {limits.handshake:g} seconds)")
        with self._Watch(limits.handshake, late):
            try:
                transport.start_client(event)
                # Closing it does not set the event.
                while transport.is_active() and not event.wait(0.1):
                    pass
                if not transport.is_active():
                    raise transport.get_exception() or EOFError
            except EOFError as err:
                raise target.Problem(f"{where}: the connection was closed at once") from err
            except (OSError, paramiko.SSHException) as err:
                raise target.Problem(f"{where}: {err}") from err
        key = transport.get_remote_server_key()
        self._CheckHostKey(known, key.get_name(), key.asbytes())

    def _CheckHostKey(
        self, known: Sequence[knownhosts.KnownKey], key_type: str, blob: bytes
    ) -> None:
        target = self._target
        if self._host_key is not None:
            if self._host_key != (key_type, blob):
                raise target.Problem("it showed another host key at the second connection")
            return
        if self._check_host_key:
            verdict, other = knownhosts.Judge(known, key_type, blob)
            shown = f"{knownhosts.ShortType(key_type)} {knownhosts.Fingerprint(blob)}"
            problem = DescribeHostKey(target.name, shown, verdict, other)
            if problem is not None:
                raise target.Problem(problem)
            if verdict is not knownhosts.Verdict.KNOWN:
                self._AskAboutHostKey(key_type, blob, verdict)
        self._host_key = (key_type, blob)

    def _AskAboutHostKey(self, key_type: str, blob: bytes, verdict: knownhosts.Verdict) -> None:
        target = self._target
        kind, fingerprint = knownhosts.ShortType(key_type), knownhosts.Fingerprint(blob)
        more = ""
        if verdict is knownhosts.Verdict.OTHER_TYPES:
            more = "\nKeys of other types are known for it, which it does not have (any more)."
        answer = self._user.Confirm(
            f"The authenticity of host '{target.name} ({target.address})' can not be told: its key"
            f" is not known here.{more}\n"
            f"Its key: {kind} {fingerprint}\n"
            f"On that host, 'ssh-keygen -lf {pathutils.SSH_CONFIG_DIR}/ssh_host_{kind.lower()}"
            "_key.pub' shows it. Is it the right one?"
        )
        if answer is None:
            raise target.Problem(
                f"its host key ({kind} {fingerprint}) is not known here, and there is no terminal"
                " to ask whether it is the right one: put it into root's known_hosts file, or use"
                " --no-ssh-key-check"
            )
        if not answer:
            raise target.Problem(f"its host key ({kind} {fingerprint}) was not confirmed")

    # Logging in

    def LogIn(self) -> None:
        """Log in with what the server takes, without a question if there is a way."""
        target = self._target
        allowed = self._Methods()
        if allowed is None:
            return
        unusable: Sequence[str] = ()
        if "publickey" in allowed:
            keys, unusable = self._env.keys_fn()
            for key in keys:
                if self._Try("auth_publickey", key):
                    return
        reasons = "".join(f"; {text}" for text in unusable)
        advice = (
            f"let a key of root of this host in ({target.login}'s authorized_keys file there, e.g."
            " with ssh-copy-id)"
        )
        if not _PASSWORD_METHODS & allowed:
            raise target.Problem(
                f"Permission denied: it takes none of root's keys, and no passwords{reasons};"
                f" {advice}"
            )
        prompt = f"{target.login}@{target.name}'s password: "
        for attempt in range(_PASSWORD_TRIES):
            password = self._user.AskPassword(
                prompt if attempt == 0 else f"Permission denied, please try again.\n{prompt}"
            )
            if password is None:
                raise target.Problem(
                    f"Permission denied: it takes none of root's keys{reasons}, and nobody gave a"
                    f" password: run this from a terminal, or {advice}"
                )
            if self._Try("auth_password", password):
                return
        raise target.Problem(
            f"Permission denied: it took none of root's keys, and none of {_PASSWORD_TRIES}"
            f" passwords{reasons}. If they were right, it lets {target.login} not in with one"
            f" (PermitRootLogin in its sshd_config): {advice}"
        )

    def _Methods(self) -> frozenset[str] | None:
        """The ways to log in that the server has; None = it asks for nothing."""
        import paramiko

        try:
            late = self._target.Problem("it does not say how to log in")
            with self._Watch(self._env.limits.login, late):
                self._transport.auth_none(self._target.login)
        except paramiko.BadAuthenticationType as err:
            return frozenset(err.allowed_types)
        except (EOFError, OSError, paramiko.SSHException) as err:
            raise self._target.Problem(f"it does not say how to log in: {err}") from err
        return None

    def _Try(self, method: str, secret: Any) -> bool:
        """Whether one way to log in works: a method of the transport, with a key or password.

        A server closes the connection after some tries, and when the user takes long to type.
        """
        import paramiko

        if not self._transport.is_active():
            self.Open()
        seconds = self._env.limits.login
        late = self._target.Problem(
            f"it does not answer to a try to log in for {seconds:g} seconds"
        )
        with self._Watch(seconds, late):
            try:
                # What is returned is what the server wants in addition.
                return not getattr(self._transport, method)(self._target.login, secret)
            except (EOFError, OSError, paramiko.SSHException) as err:
                logging.debug("Logging in on %s: %s", self._target.name, err)
        return False

    # Working

    def Run(self, command: str, stdin: str) -> process.RunResult:
        """See L{Host.Run}."""
        import paramiko

        name, seconds = self._target.name, self._env.limits.command
        unknown = f"; how far '{command}' got on {name} is not known"
        late = errors.OpExecError(f"No end of it within {seconds:g} seconds{unknown}")
        with self._Watch(seconds, late):
            try:
                with self._transport.open_session() as channel:
                    channel.exec_command(command)
                    try:
                        channel.sendall(stdin.encode("utf-8", "surrogateescape"))
                        channel.shutdown_write()
                    except OSError:
                        # It does not want to read all; what it says tells why.
                        logging.debug("'%s' on %s did not read its input", command, name)
                    out = _ReadAll(channel.recv)
                    err = _ReadAll(channel.recv_stderr)
                    code = channel.recv_exit_status()
            except (EOFError, OSError, paramiko.SSHException) as problem:
                raise errors.OpExecError(
                    f"The connection to {name} broke ({problem or 'it was closed'}){unknown}; make"
                    " sure that the host is up, then try again"
                ) from problem
        if code < 0:
            if self._transport.is_active():
                raise errors.OpExecError(f"'{command}' on {name} was killed; try again")
            raise errors.OpExecError(
                f"The connection to {name} broke{unknown}; make sure that the host is up, then try"
                " again"
            )
        return process.RunResult(cmd=command, exit_code=code, stdout=out, stderr=err)

    @contextmanager
    def _Watch(self, seconds: float, late: errors.OpExecError) -> Iterator[None]:
        """End the connection if the block takes too long; then it raises C{late}.

        Paramiko has limits of its own for some steps and none for others.
        """
        transport, threads = self._transport, self._env.rt.threads
        done, expired = threads.Event(), threads.Event()

        def Wait() -> None:
            if not done.wait(seconds):
                expired.set()
                transport.close()

        threads.start(Wait, name="ssh-watch", daemon=True)
        try:
            yield
        except BaseException as err:
            if expired.is_set() and isinstance(err, Exception):
                raise late from err
            raise
        finally:
            done.set()
        if expired.is_set():
            raise late


def _ReadAll(read_fn: Callable[[int], bytes]) -> str:
    parts = []
    while data := read_fn(2**16):
        parts.append(data)
    return b"".join(parts).decode("utf-8", "replace")


def DescribeHostKey(
    host: str, shown: str, verdict: knownhosts.Verdict, other: knownhosts.KnownKey | None
) -> str | None:
    """Why a host key is refused without a question; None if it is not; pure.

    @param shown: type and fingerprint of the key
    @param other: the key that it was compared with
    """
    if other is None or verdict not in (knownhosts.Verdict.CHANGED, knownhosts.Verdict.REVOKED):
        return None
    where = f"line {other.line} of {other.file_name}"
    if verdict is knownhosts.Verdict.REVOKED:
        return f"its host key ({shown}) is revoked by {where}"
    return (
        f"ITS HOST KEY HAS CHANGED: it is {shown}, and {where} knows"
        f" {knownhosts.Fingerprint(other.blob)}. Somebody else may answer at its address. If you"
        " know why it is another one (was the host installed anew?): ssh-keygen -R"
        f" {host} -f {other.file_name}, then try again"
    )


def _PreferKnown(algorithms: Iterable[str], known: Iterable[knownhosts.KnownKey]) -> list[str]:
    """Host key algorithms in the order to ask for them: those of the known keys first; pure."""
    types = {key.key_type for key in known if not key.revoked}

    def Unknown(algorithm: str) -> bool:
        return (_RSA if algorithm.startswith(_RSA_PREFIX) else algorithm) not in types

    return sorted(algorithms, key=Unknown)


# What this host has


def _OpenSocket(address: str, timeout: float) -> socket.socket:
    sock = socket.create_connection((address, _PORT), timeout=timeout)
    # A host whose power goes says nothing; without this its silence looks like work.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _ALIVE_INTERVAL),
        (socket.TCP_KEEPINTVL, _ALIVE_INTERVAL),
        (socket.TCP_KEEPCNT, _ALIVE_COUNT),
        (socket.TCP_USER_TIMEOUT, 1000 * _ALIVE_INTERVAL * (_ALIVE_COUNT + 1)),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def _SshDirectory() -> str | None:
    home = io.GetHomeDir(constants.GANETI_RUNAS)
    return os.path.join(pathutils.AddRoot(home), ".ssh") if home else None


def KnownKeys(host: str) -> list[knownhosts.KnownKey]:
    """The keys that the cluster, this host and its root know a host by."""
    files = [
        pathutils.SSH_KNOWN_HOSTS_FILE,
        os.path.join(pathutils.SSH_CONFIG_DIR, "ssh_known_hosts"),
    ]
    directory = _SshDirectory()
    if directory is not None:
        files += [os.path.join(directory, name) for name in ("known_hosts", "known_hosts2")]
    found: list[knownhosts.KnownKey] = []
    for path in files:
        try:
            content = io.ReadBinary(path).decode("utf-8", "replace")
        except OSError:
            continue
        found += knownhosts.FindKeys(content, host.lower(), path)
    return found


def _Identities() -> tuple[list[Any], list[str]]:
    """The keys of the agent and of root's files, and why some can not be used."""
    import paramiko

    keys: list[Any] = []
    try:
        keys += paramiko.Agent().get_keys()
    except (OSError, paramiko.SSHException) as err:
        logging.debug("No SSH agent: %s", err)
    unusable = []
    directory = _SshDirectory()
    for kind in _IDENTITIES if directory is not None else ():
        path = os.path.join(str(directory), f"id_{kind}")
        if not os.path.exists(path):
            continue
        try:
            key = _LoadKey(kind, path)
        except paramiko.PasswordRequiredException:
            unusable.append(f"{path} has a passphrase (ssh-agent can hold it)")
        except (OSError, ValueError, paramiko.SSHException) as err:
            unusable.append(f"{path} can not be read: {err}")
        else:
            if key not in keys:
                keys.append(key)
    return keys, unusable


def _LoadKey(kind: str, path: str) -> Any:
    import paramiko

    classes = {"ed25519": paramiko.Ed25519Key, "ecdsa": paramiko.ECDSAKey, "rsa": paramiko.RSAKey}
    return classes[kind].from_private_key_file(path)
