"""The LUXI front end: connections on a UNIX socket, frames, requests, answers.

One task a connection, none of which ever blocks: thousands of clients may be connected. Requests of
a connection are answered one after another, and nothing is read from it meanwhile. Whatever a
client sends, it harms nobody but itself: what is no request is answered with an error and ends the
connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import select
import socket
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from .. import errors, luxi
from ..utils import process

#: Connections that may wait to be accepted; early clients wait here while the daemon starts.
_BACKLOG: Final = 1024
_READ_SIZE: Final = 65536
_SOCKET_MODE: Final = 0o600
#: Answers of at least that many items are formatted in a thread.
_LARGE_RESULT: Final = 50
#: Requests of at least that many bytes are read in a thread.
_LARGE_REQUEST: Final = 256 * 1024
#: Requests that only wait: nobody misses them when their client is gone.
_WAITS: Final = frozenset([luxi.REQ_WAIT_FOR_JOB_CHANGE])
#: Seconds between two looks whether a client that sends no more is still there.
_LOOK_INTERVAL: Final = 5.0
#: Seconds that clients get to take their last answers when the daemon ends.
_END_TIMEOUT: Final = 2.0

#: Executes a request: name and checked arguments.
CallFn = Callable[[str, Sequence[Any]], Awaitable[Any]]


def Listen(path: str) -> socket.socket:
    """Make the socket of the master daemon; clients can connect from now on, and wait.

    Only this user may: the mode is right from the first moment.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        old_umask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            sock.bind(path)
        finally:
            os.umask(old_umask)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


class _ClientGone(Exception):  # noqa: N818 - a finding
    """The client closed its connection while its request was being served."""


class _Reader(asyncio.StreamReader):
    """Says when nothing more will come, also while there is something to be read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        """The client sends no more, or is gone."""
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self.ended.set()


def IsGone(sock: Any) -> bool:
    """Did the other side of a UNIX socket close it? To send no more alone is not that."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0))


def _FromOSError(request: luxi.Request, err: OSError) -> errors.GenericError:
    """What the system refused, a full disk, say: for a client, which knows only our errors."""
    where = f"{err.filename}: " if err.filename else ""
    return errors.GenericError(f"{request.method} failed: {where}{err.strerror or err}")


class LuxiServer:
    """Serves LUXI on a listening socket.

    @param call: executes requests
    @param executor: formats large answers
    @param allowed_uids: users whose processes may connect; default: root and our own
    @param max_connections: at once; default: what leaves enough files for everything else that the
        daemon does, for with none left not even a job could be written
    """

    def __init__(
        self,
        call: CallFn,
        executor: Executor,
        allowed_uids: Collection[int] | None = None,
        max_message_size: int = luxi.MAX_MESSAGE_SIZE,
        max_connections: int | None = None,
    ) -> None:
        self._call = call
        self._executor = executor
        self._allowed_uids = frozenset(
            allowed_uids if allowed_uids is not None else (0, os.geteuid())
        )
        self._max_message_size = max_message_size
        if max_connections is None:
            max_connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * 3 // 4
        self._max_connections = max_connections
        self._server: asyncio.AbstractServer | None = None
        #: The task of each connection.
        self._connections: set[asyncio.Task[None]] = set()
        #: Those of them that have a request to answer.
        self._busy: set[asyncio.Task[None]] = set()
        self._stat_requests = 0
        self._stat_refused = 0

    async def Start(self, sock: socket.socket) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()

        def _Connect() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(loop), self._OnConnection, loop=loop)

        self._server = await loop.create_unix_server(_Connect, sock=sock, backlog=_BACKLOG)

    async def Stop(self) -> None:
        """Accept no more connections; give those at work a moment, and close all."""
        if self._server is not None:
            self._server.close()
        for task in self._connections - self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy, timeout=_END_TIMEOUT)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_END_TIMEOUT)

    def GetStatistics(self) -> dict[str, int]:
        """Connections open now; requests answered and connections refused so far."""
        return {
            "connections": len(self._connections),
            "busy": len(self._busy),
            "requests": self._stat_requests,
            "refused": self._stat_refused,
        }

    async def _OnConnection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) > self._max_connections:
                await self._RefuseOverflow(writer)
            elif self._IsAllowed(writer):
                await self._Serve(reader, writer, task)
        except (ConnectionError, asyncio.CancelledError):
            # It went away, or we do.
            pass
        except Exception:  # noqa: BLE001 - the boundary of a connection
            logging.exception("Error on a client's connection")
        finally:
            self._connections.discard(task)
            self._busy.discard(task)
            writer.close()

    async def _RefuseOverflow(self, writer: asyncio.StreamWriter) -> None:
        self._stat_refused += 1
        text = f"The master daemon serves {self._max_connections} clients already, try again later"
        logging.warning("Refused a client: there are %d already", self._max_connections)
        await self._Send(writer, luxi.FormatResponse(False, text))

    def _IsAllowed(self, writer: asyncio.StreamWriter) -> bool:
        sock = writer.get_extra_info("socket")
        pid, uid, gid = process.GetSocketCredentials(sock)
        logging.debug("Client connected: pid %d, uid %d, gid %d", pid, uid, gid)
        if uid in self._allowed_uids:
            return True
        self._stat_refused += 1
        logging.warning("Refused a client: pid %d, uid %d, gid %d", pid, uid, gid)
        return False

    async def _Serve(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        buffer = luxi.FrameBuffer(self._max_message_size)
        while data := await reader.read(_READ_SIZE):
            self._busy.add(task)
            try:
                messages = buffer.Feed(data)
            except luxi.ProtocolError as err:
                logging.warning("Closing a client's connection: %s", err)
                await self._Send(writer, luxi.FormatResponse(False, luxi.EncodeError(err)))
                return
            for message in messages:
                if not await self._Answer(message, reader, writer):
                    return
            self._busy.discard(task)

    async def _Answer(
        self, message: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one message.

        @return: whether the connection is of further use
        """
        try:
            request = await self._Parse(message)
        except (errors.GenericError, ValueError, RecursionError) as err:
            logging.warning("Closing a client's connection, no request: %s", err)
            await self._Send(writer, luxi.FormatResponse(False, luxi.EncodeError(err)))
            return False
        self._stat_requests += 1
        try:
            result = await self._WhileThere(self._Execute(request), request, reader, writer)
            text = await self._Format(result)
        except _ClientGone:
            return False
        except OSError as err:
            logging.error("%s failed: %s", request.method, err)
            text = luxi.FormatResponse(False, luxi.EncodeError(_FromOSError(request, err)))
        except Exception as err:  # noqa: BLE001 - the boundary of a request
            if not isinstance(err, errors.GenericError):
                logging.exception("Error while serving %s", request.method)
            text = luxi.FormatResponse(False, luxi.EncodeError(err))
        await self._Send(writer, text)
        return True

    async def _Parse(self, message: bytes) -> luxi.Request:
        if len(message) < _LARGE_REQUEST:
            return luxi.ParseRequest(message)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, luxi.ParseRequest, message)

    @staticmethod
    async def _WhileThere(
        execution: Coroutine[Any, Any, Any],
        request: luxi.Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Any:
        """The result of a request; one that only waits is given up when its client goes.

        @raise _ClientGone: it did
        """
        if not (isinstance(request.method, str) and request.method in _WAITS):
            return await execution
        assert isinstance(reader, _Reader)
        result = asyncio.ensure_future(execution)
        ended = asyncio.ensure_future(reader.ended.wait())
        try:
            await asyncio.wait([result, ended], return_when=asyncio.FIRST_COMPLETED)
            while not result.done():
                if IsGone(writer.get_extra_info("socket")):
                    raise _ClientGone
                await asyncio.wait([result], timeout=_LOOK_INTERVAL)
            return result.result()
        finally:
            ended.cancel()
            if not result.done():
                result.cancel()
                await asyncio.wait([result])

    async def _Execute(self, request: luxi.Request) -> Any:
        name = request.method
        if not isinstance(name, str) or name not in luxi.METHODS:
            raise luxi.RequestError(f"Invalid operation '{name}'")
        modern = request.version is not None
        args = luxi.ParseArgs(name, request.args, modern)
        result = await self._call(name, args)
        return luxi.AdaptJobIds(name, args, result) if modern else result

    async def _Format(self, result: Any) -> str:
        if isinstance(result, (list, dict)) and len(result) >= _LARGE_RESULT:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, luxi.FormatResponse, True, result)
        return luxi.FormatResponse(True, result)

    @staticmethod
    async def _Send(writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(luxi.EncodeFrame(text))
        await writer.drain()
