"""QEMU Machine Protocol: one JSON object a line over a UNIX socket.

QEMU greets, expects C{qmp_capabilities}, then answers one command after the other; events come in
between at any time. It talks to one client at a time: a second one waits for its greeting until the
first has gone. So sessions are short, every wait has a limit, and of the threads of this process
one at a time has a session with a machine.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol

from .. import errors, runtime, serializer

#: Limit for each answer, in seconds.
DEFAULT_TIMEOUT: Final = 5.0
#: An answer longer than this is none (bytes).
_MAX_LINE: Final = 16 * 1024 * 1024
#: What the kernel allows for the path of a UNIX socket (bytes).
MAX_SOCKET_PATH: Final = 107


class QmpError(errors.HypervisorError):
    """QEMU could not be talked to, or did not keep to the protocol."""


class QmpCommandError(QmpError):
    """QEMU refused a command.

    @ivar error_class: QEMU's name for the kind of error, e.g. C{GenericError}, C{CommandNotFound}
    @ivar description: its text for people
    """

    def __init__(self, command: str, error_class: str, description: str) -> None:
        super().__init__(f"QEMU refused the command {command}: {description} ({error_class})")
        self.command = command
        self.error_class = error_class
        self.description = description


class Stream(Protocol):
    """The part of a connected socket that is used here."""

    def settimeout(self, value: float | None, /) -> None: ...

    def sendall(self, data: bytes, /) -> None: ...

    def sendmsg(
        self, buffers: Sequence[bytes], ancillary: Sequence[tuple[int, int, bytes]], /
    ) -> int: ...

    def recv(self, bufsize: int, /) -> bytes: ...

    def close(self) -> None: ...


def ConnectUnix(path: str, timeout: float) -> Stream:
    """Connect to a UNIX socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


#: Control socket -> who has a session there holds it.
_SESSIONS: Final[dict[str, runtime.Lock]] = {}
#: So long does one wait for the session of another (seconds): several answers may be due in it.
_TURN_TIMEOUT: Final = 30.0


class QmpClient:
    """One session with a QEMU; use it as a context manager.

    Not for several threads at once.
    """

    def __init__(
        self,
        path: str,
        timeout: float = DEFAULT_TIMEOUT,
        rt: runtime.Runtime = runtime.DEFAULT,
        connect: Callable[[str, float], Stream] = ConnectUnix,
    ) -> None:
        """Remember how to connect.

        @param path: the control socket
        @param timeout: limit for connecting and for each answer, in seconds
        """
        self._path = path
        self._timeout = timeout
        self._rt = rt
        self._connect = connect
        self._stream: Stream | None = None
        self._turn: runtime.Lock | None = None
        self._buffer = b""
        self._last_id = 0
        #: QEMU's version out of its greeting: (major, minor, micro).
        self.version: tuple[int, ...] = ()
        #: Events that came so far, oldest first, as QEMU sent them.
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> QmpClient:
        self.Connect()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.Close()

    def Connect(self) -> None:
        """Connect and agree on capabilities.

        @raise QmpError: nobody listens there, or it is no QMP socket
        """
        self._TakeTurn()
        try:
            self._stream = self._connect(self._path, self._timeout)
        except OSError as err:
            self.Close()
            raise QmpError(f"Can't connect to QEMU's control socket {self._path}: {err}") from err
        except BaseException:
            self.Close()
            raise
        try:
            greeting = self._Receive(self._Deadline(), "its greeting")
            try:
                version = greeting["QMP"]["version"]["qemu"]
                self.version = (version["major"], version["minor"], version["micro"])
            except (KeyError, TypeError):
                raise QmpError(
                    f"{self._path} is no QMP socket: it greeted with {greeting!r}"
                ) from None
            self.Execute("qmp_capabilities")
        except BaseException:
            self.Close()
            raise

    def Close(self) -> None:
        """End the session."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._buffer = b""
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    def _TakeTurn(self) -> None:
        turn = _SESSIONS.setdefault(self._path, self._rt.threads.Lock())
        if not turn.acquire(timeout=_TURN_TIMEOUT):
            raise QmpError(
                f"Others have used QEMU's control socket {self._path} for {_TURN_TIMEOUT:g} seconds"
            )
        self._turn = turn

    def GiveFile(self, name: str, fd: int) -> None:
        """Give QEMU an open file, which commands then know by that name."""
        self.Execute("getfd", {"fdname": name}, fd)

    def Execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, fd: int | None = None
    ) -> Any:
        """Run a command.

        @param fd: an open file that goes with it
        @return: its C{return} value
        @raise QmpCommandError: QEMU refuses the command
        @raise QmpError: no connection, or no answer in time
        """
        if self._stream is None:
            raise errors.ProgrammerError("QMP session is not connected")
        self._last_id += 1
        request: dict[str, Any] = {"execute": command, "id": self._last_id}
        if arguments:
            request["arguments"] = dict(arguments)
        deadline = self._Deadline()
        try:
            self._stream.settimeout(self._timeout)
            data = serializer.Dump(request).encode()
            if fd is not None:
                # It goes with the first byte.
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes())
                self._stream.sendmsg([data[:1]], [rights])
                data = data[1:]
            self._stream.sendall(data)
        except OSError as err:
            raise QmpError(f"Can't send the command {command} to QEMU: {err}") from err

        while True:
            answer = self._Receive(deadline, f"the answer to {command}")
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id") == self._last_id:
                break
            elif "error" in answer and "id" not in answer:
                # QEMU could not even read the request.
                break
            # else: a late answer to a command that was given up
        if "error" in answer:
            error = answer["error"]
            raise QmpCommandError(
                command, str(error.get("class", "?")), str(error.get("desc", error))
            )
        if "return" not in answer:
            raise QmpError(f"QEMU's answer to {command} is neither result nor error: {answer!r}")
        return answer["return"]

    def ExecuteHmp(self, line: str) -> str:
        """Run a command of the human monitor; its output, which has no promised form."""
        return str(self.Execute("human-monitor-command", {"command-line": line}))

    def _Deadline(self) -> float:
        return self._rt.clock.monotonic() + self._timeout

    def _Receive(self, deadline: float, what: str) -> dict[str, Any]:
        line = self._ReadLine(deadline, what)
        try:
            message = serializer.Load(line)
        except ValueError as err:
            raise QmpError(f"QEMU sent no JSON instead of {what}: {line[:200]!r}") from err
        if not isinstance(message, dict):
            raise QmpError(f"QEMU sent no object instead of {what}: {line[:200]!r}")
        return message

    def _ReadLine(self, deadline: float, what: str) -> bytes:
        assert self._stream is not None
        while b"\n" not in self._buffer:
            remaining = deadline - self._rt.clock.monotonic()
            if remaining <= 0:
                raise QmpError(f"QEMU did not send {what} within {self._timeout:g} seconds")
            try:
                self._stream.settimeout(remaining)
                data = self._stream.recv(65536)
            except TimeoutError:
                raise QmpError(
                    f"QEMU did not send {what} within {self._timeout:g} seconds"
                ) from None
            except OSError as err:
                raise QmpError(f"Can't receive {what} from QEMU: {err}") from err
            if not data:
                raise QmpError(f"QEMU closed the connection instead of sending {what}")
            self._buffer += data
            if len(self._buffer) > _MAX_LINE:
                raise QmpError(f"QEMU sent more than {_MAX_LINE} bytes instead of {what}")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def CheckSocketPath(path: str) -> None:
    """Refuse paths that are too long for a UNIX socket, before QEMU does so in its own words.

    @raise errors.HypervisorError: says how long the path is and may be
    """
    length = len(path.encode())
    if length > MAX_SOCKET_PATH:
        raise errors.HypervisorError(
            f"The socket path {path} has {length} bytes, the system allows {MAX_SOCKET_PATH};"
            " use a shorter instance name, or a shorter root directory for a virtual cluster"
        )
