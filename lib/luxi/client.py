"""The client's side of LUXI: a connection to the master daemon and a method for each request."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from .. import constants, pathutils
from . import methods, protocol

if TYPE_CHECKING:
    from types import TracebackType

    from ..opcodes import OpCode

#: Seconds for the connection to stand.
DEF_CTMO: Final = constants.LUXI_DEF_CTMO
#: Seconds for each read and write.
DEF_RWTO: Final = constants.LUXI_DEF_RWTO
#: Longest single wait for a job change, in seconds: below the time-out of a read.
WFJC_TIMEOUT: Final = constants.LUXI_WFJC_TIMEOUT

#: Seconds between tries while the server has more connections waiting than it can hold.
_CONNECT_RETRY: Final = 1.0
#: A whole answer may take that many read time-outs.
_EXTENDED_FACTOR: Final = 2
_READ_SIZE: Final = 65536


class Clock(Protocol):
    """The part of a runtime's clock that a connection needs."""

    def monotonic(self) -> float:
        """Seconds since some fixed point."""

    def sleep(self, seconds: float) -> None:
        """Return after that many seconds."""


class _RealClock:
    # Not the runtime's: importing that costs a listing more than all the rest of this package.
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


def _Connect(address: str, timeout: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Transport:
    """One connection to the master daemon; it carries requests one after another.

    Once something went wrong in L{Send} or L{Recv}, what is on the way is unknown and the
    connection must not be used any more.
    """

    def __init__(
        self,
        address: str,
        timeouts: tuple[float, float] | None = None,
        *,
        clock: Clock | None = None,
        connect: Any = _Connect,
    ) -> None:
        """Connect.

        @param address: path of the socket
        @param timeouts: seconds for the connection to stand, and for each read or write
        @param connect: how to get a socket for (address, seconds)
        @raise protocol.NoMasterError: there is no master daemon
        @raise protocol.PermissionError: this user may not talk to it
        @raise protocol.TimeoutError: it does not accept connections
        """
        ctmo, rwto = timeouts or (DEF_CTMO, DEF_RWTO)
        self._rwto: float = rwto
        self.address = address
        self._clock: Clock = clock or _RealClock()
        self._buffer = protocol.FrameBuffer()
        self._messages: list[bytes] = []
        self._sock: socket.socket | None = self._ConnectInTime(connect, ctmo)
        self._sock.settimeout(self._rwto)

    def _ConnectInTime(self, connect: Any, ctmo: float) -> socket.socket:
        deadline = self._clock.monotonic() + ctmo
        while True:
            try:
                sock: socket.socket = connect(self.address, ctmo)
                return sock
            except TimeoutError as err:
                raise protocol.TimeoutError(
                    f"No connection to {self.address} within {ctmo} seconds"
                ) from err
            except OSError as err:
                if err.errno in (errno.ENOENT, errno.ECONNREFUSED):
                    raise protocol.NoMasterError(self.address) from err
                if err.errno in (errno.EPERM, errno.EACCES):
                    raise protocol.PermissionError(self.address) from err
                # The server's queue of connections is full
                if err.errno != errno.EAGAIN:
                    raise
                if self._clock.monotonic() + _CONNECT_RETRY > deadline:
                    raise protocol.TimeoutError(
                        f"The master daemon accepted no connection for {ctmo} seconds"
                    ) from err
            self._clock.sleep(_CONNECT_RETRY)

    def _Socket(self) -> socket.socket:
        if self._sock is None:
            raise protocol.ProtocolError("The connection to the master daemon is closed")
        return self._sock

    def Send(self, text: str) -> None:
        """Send one message.

        @raise protocol.EncodingError: it can not be sent
        @raise protocol.TimeoutError: nobody takes it
        @raise protocol.ConnectionClosedError: the other side went away
        """
        data = protocol.EncodeFrame(text)
        try:
            self._Socket().sendall(data)
        except TimeoutError as err:
            raise protocol.TimeoutError(
                f"The master daemon took no request for {self._rwto} seconds"
            ) from err
        except (BrokenPipeError, ConnectionResetError) as err:
            raise protocol.ConnectionClosedError(
                "The master daemon closed the connection while a request was sent"
            ) from err

    def Recv(self) -> bytes:
        """The next message.

        @raise protocol.TimeoutError: it did not come, or not all of it
        @raise protocol.ConnectionClosedError: the other side went away
        """
        deadline = self._clock.monotonic() + _EXTENDED_FACTOR * self._rwto
        while not self._messages:
            if self._clock.monotonic() > deadline:
                raise protocol.TimeoutError(
                    f"The answer was not complete within {_EXTENDED_FACTOR * self._rwto} seconds"
                )
            try:
                data = self._Socket().recv(_READ_SIZE)
            except TimeoutError as err:
                raise protocol.TimeoutError(
                    f"No answer from the master daemon for {self._rwto} seconds"
                ) from err
            except ConnectionResetError as err:
                raise protocol.ConnectionClosedError(
                    "The master daemon reset the connection"
                ) from err
            if not data:
                raise protocol.ConnectionClosedError("The master daemon closed the connection")
            self._messages += self._buffer.Feed(data)
        return self._messages.pop(0)

    def Call(self, text: str) -> bytes:
        """Send a request, wait for the answer."""
        self.Send(text)
        return self.Recv()

    def Close(self) -> None:
        """Close the connection; closing twice is fine."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _StateOf(op: OpCode | dict[str, Any]) -> dict[str, Any]:
    return op if isinstance(op, dict) else op.__getstate__()


def AssembleConfig(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The document of C{config.data} from the header and the objects of an answer."""
    document: dict[str, Any] = {**answer["header"], "nodes": {}, "instances": {}}
    for kind, name, plain in answer["objects"]:
        if kind == "cluster":
            document["cluster"] = plain
        else:
            document[f"{kind}s"][name] = plain
    return document


class Client:
    """The requests of the master daemon as methods.

    Connects when it is made. After an error on the connection the next request opens a new one; a
    request is never sent twice, as it may have had its effect. Not for use by several threads.
    """

    def __init__(
        self,
        address: str | None = None,
        timeouts: tuple[float, float] | None = None,
        transport: Any = Transport,
    ) -> None:
        """Connect; see L{Transport} for timeouts and errors.

        @param address: path of the socket; None for that of this node's master daemon
        @param transport: what makes a connection out of address and C{timeouts}
        """
        self.address = pathutils.MASTER_SOCKET if address is None else address
        self.timeouts = timeouts
        self._transport_class = transport
        self._transport: Any = None
        self._Connection()

    def _Connection(self) -> Any:
        if self._transport is None:
            self._transport = self._transport_class(self.address, timeouts=self.timeouts)
        return self._transport

    def Close(self) -> None:
        """Close the connection; the next request opens a new one."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.Close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.Close()

    def CallMethod(self, method: str, args: object) -> Any:
        """Send a request and return its result.

        @raise protocol.ProtocolError: the conversation failed; its subclasses say how
        @raise errors.GenericError: what the master daemon raised, with its own class
        """
        request = protocol.FormatRequest(method, args)
        try:
            answer = self._Connection().Call(request)
        except BaseException:
            self.Close()
            raise
        return protocol.GetResult(answer)

    # Jobs

    def SubmitJob(self, ops: Sequence[OpCode | dict[str, Any]]) -> str:
        """Submit one job; its id."""
        job_id: str = self.CallMethod(methods.REQ_SUBMIT_JOB, [_StateOf(op) for op in ops])
        return job_id

    def SubmitManyJobs(self, jobs: Sequence[Sequence[OpCode | dict[str, Any]]]) -> list[Any]:
        """Submit several jobs; for each [True, id] or [False, error text]."""
        states = [[_StateOf(op) for op in ops] for ops in jobs]
        results: list[Any] = self.CallMethod(methods.REQ_SUBMIT_MANY_JOBS, states)
        return results

    def CancelJob(self, job_id: str) -> list[Any]:
        """Cancel a job that waits; [was or will it be cancelled, text]."""
        result: list[Any] = self.CallMethod(methods.REQ_CANCEL_JOB, job_id)
        return result

    def ArchiveJob(self, job_id: str) -> bool:
        """Archive a finished job; was it archived?"""
        archived: bool = self.CallMethod(methods.REQ_ARCHIVE_JOB, job_id)
        return archived

    def AutoArchiveJobs(self, age: float) -> list[int]:
        """Archive finished jobs.

        @param age: seconds that they must have been finished for; -1 for all
        @return: [jobs archived, jobs not looked at for want of time]
        """
        result: list[int] = self.CallMethod(methods.REQ_AUTOARCHIVE_JOBS, [age, WFJC_TIMEOUT])
        return result

    def ChangeJobPriority(self, job_id: str, priority: int) -> list[Any]:
        """Change the place of a waiting job in the queue; [was it changed, text]."""
        result: list[Any] = self.CallMethod(methods.REQ_CHANGE_JOB_PRIORITY, [job_id, priority])
        return result

    def WaitForJobChangeOnce(
        self,
        job_id: str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
        timeout: float = WFJC_TIMEOUT,
    ) -> Any:
        """Wait until a job changes or the time is over.

        @param prev_job_info: the values of the fields that the caller knows, None for none
        @param prev_log_serial: the last log entry that the caller knows, None for none
        @param timeout: seconds; more than L{WFJC_TIMEOUT} is shortened
        @return: [values of the fields, new log entries]; C{constants.JOB_NOTCHANGED} if the time is
            over; None if there is no such job
        """
        args = [job_id, fields, prev_job_info, prev_log_serial, min(timeout, WFJC_TIMEOUT)]
        return self.CallMethod(methods.REQ_WAIT_FOR_JOB_CHANGE, args)

    def WaitForJobChange(
        self,
        job_id: str,
        fields: Sequence[str],
        prev_job_info: Sequence[Any] | None,
        prev_log_serial: int | None,
    ) -> Any:
        """Wait until a job changes, however long that takes; see L{WaitForJobChangeOnce}."""
        while True:
            result = self.WaitForJobChangeOnce(job_id, fields, prev_job_info, prev_log_serial)
            if result != constants.JOB_NOTCHANGED:
                return result

    def QueryJobs(self, job_ids: Sequence[str] | None, fields: Sequence[str]) -> list[Any]:
        """Rows for jobs, None in the place of an unknown one; no ids: all jobs."""
        rows: list[Any] = self.CallMethod(methods.REQ_QUERY_JOBS, [job_ids, fields])
        return rows

    # The cluster's objects

    def QueryInstances(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        """Rows for instances; no names: all."""
        args = [names, fields, use_locking]
        rows: list[Any] = self.CallMethod(methods.REQ_QUERY_INSTANCES, args)
        return rows

    def QueryNodes(
        self, names: Sequence[str], fields: Sequence[str], use_locking: bool
    ) -> list[Any]:
        """Rows for nodes; no names: all."""
        args = [names, fields, use_locking]
        rows: list[Any] = self.CallMethod(methods.REQ_QUERY_NODES, args)
        return rows

    def QueryExports(self, nodes: Sequence[str], use_locking: bool) -> dict[str, Any]:
        """{node: names of its exports, or False if it failed}; no nodes: all."""
        args = [nodes, use_locking]
        exports: dict[str, Any] = self.CallMethod(methods.REQ_QUERY_EXPORTS, args)
        return exports

    def QueryClusterInfo(self) -> dict[str, Any]:
        """The parameters of the cluster."""
        info: dict[str, Any] = self.CallMethod(methods.REQ_QUERY_CLUSTER_INFO, [])
        return info

    def QueryConfigValues(self, fields: Sequence[str]) -> list[Any]:
        """Single values of the configuration."""
        values: list[Any] = self.CallMethod(methods.REQ_QUERY_CONFIG_VALUES, fields)
        return values

    def QueryConfigHistory(
        self,
        name: str | None = None,
        since_serial: int | None = None,
        since_time: float | None = None,
    ) -> dict[str, Any]:
        """Who changed what in the configuration, the last first; see L{config.past.History.List}.

        All pages are fetched.

        @param name: of an object, or its first labels, or C{cluster}; None for all
        @param since_serial: no older ones than this
        @param since_time: no older ones than this (seconds since the epoch)
        """
        args = [name, since_serial, since_time]
        return self._QueryPages(methods.REQ_QUERY_CONFIG_HISTORY, args, "entries")

    def _QueryPages(self, method: str, args: list[Any], key: str) -> dict[str, Any]:
        """All pages of an answer, with what is in the lists under a key put together."""
        answer: dict[str, Any] = self.CallMethod(method, [*args, None])
        cursor = answer.pop("cursor")
        while cursor is not None:
            page = self.CallMethod(method, [*args, cursor])
            answer = {**page, key: answer[key] + page[key]}
            cursor = answer.pop("cursor")
        return answer

    def QueryConfigChange(self, serial: int) -> dict[str, Any]:
        """What a write of the configuration changed: C{serial}, C{time}, C{commits}."""
        change: dict[str, Any] = self.CallMethod(methods.REQ_QUERY_CONFIG_CHANGE, [serial])
        return change

    def QueryConfigAt(self, serial: int) -> dict[str, Any]:
        """The configuration with that serial number, as it was in its file.

        All pages are fetched.
        """
        return AssembleConfig(self._QueryPages(methods.REQ_QUERY_CONFIG_AT, [serial], "objects"))

    def QueryTags(self, kind: str, name: str) -> list[str]:
        """The tags of an object; of the cluster with any name."""
        tags: list[str] = self.CallMethod(methods.REQ_QUERY_TAGS, [kind, name])
        return tags

    def QueryLocks(self, fields: Sequence[str] = methods.LOCK_FIELDS) -> list[Any]:
        """Rows for locks: who holds each and who waits for it."""
        rows: list[Any] = self.CallMethod(methods.REQ_QUERY_LOCKS, [fields])
        return rows

    def Query(self, what: str, fields: Sequence[str], qfilter: Any = None) -> dict[str, Any]:
        """A query in the form of later versions: {fields: definitions, data: rows of pairs}."""
        args = [what, fields, qfilter]
        answer: dict[str, Any] = self.CallMethod(methods.REQ_QUERY, args)
        return answer

    def QueryFields(self, what: str, fields: Sequence[str] | None = None) -> dict[str, Any]:
        """Definitions of fields; no names: all of them."""
        answer: dict[str, Any] = self.CallMethod(methods.REQ_QUERY_FIELDS, [what, fields])
        return answer

    # The daemons

    def SetQueueDrainFlag(self, flag: bool) -> bool:
        """Refuse new jobs, or take them again."""
        result: bool = self.CallMethod(methods.REQ_QUEUE_SET_DRAIN_FLAG, flag)
        return result

    def SetWatcherPause(self, until: float | None) -> float | None:
        """Keep the watcher from acting until then (seconds since the epoch); None: let it act."""
        result: float | None = self.CallMethod(methods.REQ_SET_WATCHER_PAUSE, [until])
        return result
