"""Listening for HTTP(S) within bounds: strangers can neither fill the memory nor keep others out.

A connection costs memory from its first byte on, long before anybody has said who it is from. So
there are limits of connections and of handshakes under way, for each source and for all; whoever
takes too long, for the handshake or for the first request, is cut off. Of handshakes the oldest
makes room for a new one: an honest one is over in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
import ssl
from asyncio import sslproto
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web, web_protocol

#: Connections that the kernel keeps until they are accepted.
BACKLOG: Final = 1024
#: Seconds until the next try to accept where that failed, for too many open files, say.
_ACCEPT_PAUSE: Final = 1.0
#: Seconds between two lines in the log about connections that were refused.
_LOG_INTERVAL: Final = 60.0
#: Bytes that asyncio reads from a TLS connection at a time, and so allocates for each of them,
#: busy or not. Its own 256 KiB are most of what a thousand connections cost.
TLS_BUFFER: Final = 32 * 1024

sslproto.SSLProtocol.max_size = TLS_BUFFER

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Limits:
    """What a server puts up with.

    @ivar connections, per_source: connections at once, handshakes included
    @ivar handshakes, handshakes_per_source: TLS handshakes under way at once
    @ivar handshake_timeout: seconds for a handshake
    @ivar request_timeout: seconds from the handshake to the end of the first request's header
    @ivar answer_timeout: seconds for a client to take the answer, of servers that answer one
        request for each connection; None = there is no limit
    """

    connections: int = 4096
    per_source: int = 1024
    handshakes: int = 256
    handshakes_per_source: int = 64
    handshake_timeout: float = 10.0
    request_timeout: float = 60.0
    answer_timeout: float | None = None


class _Connection:
    """A connection that counts. @ivar source: address of the client"""

    __slots__ = ("counted", "handler", "source", "timer")

    def __init__(self, source: str) -> None:
        self.source = source
        self.counted = True
        self.handler: web_protocol.RequestHandler | None = None
        self.timer: asyncio.TimerHandle | None = None


class HttpServer(web.Server):
    """Serves HTTP on sockets of its own; for one loop.

    Invariant: C{_sources} holds for each address how many connections of it there are, and
    C{_handshakes} those of them that are not done with TLS, the oldest first.
    """

    def __init__(
        self,
        handler: Handler,
        ssl_context: ssl.SSLContext | None,
        limits: Limits,
        **kwargs: Any,
    ) -> None:
        """Prepare to serve.

        @param handler: answers requests
        @param ssl_context: None = no TLS
        @param kwargs: see C{web.Server}
        """
        super().__init__(self._OnRequest, **kwargs)
        self._answer = handler
        self._ssl = ssl_context
        self._limits = limits
        self._sockets: list[socket.socket] = []
        self._sources: Counter[str] = Counter()
        self._handshakes: dict[asyncio.Task[None], _Connection] = {}
        self._by_handler: dict[web_protocol.RequestHandler, _Connection] = {}
        self._refused = 0
        self._dropped = 0
        self._logged_at = float("-inf")

    async def Start(self, address: str, port: int) -> int:
        """Listen; the port that is served (interesting if 0 was asked for).

        @param address: empty = all of this host, IPv4 and IPv6
        @raise OSError: the address can not be served
        """
        self._sockets = Bind(address, port)
        for sock in self._sockets:
            self._Listen(sock)
        return int(self._sockets[0].getsockname()[1])

    async def Stop(self, timeout: float) -> None:
        """Take no more connections; requests under way get so many seconds to end."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        tasks = list(self._handshakes)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        # Idle connections need no time
        self.pre_shutdown()
        await self.shutdown(timeout)

    def GetStatistics(self) -> dict[str, int]:
        """Connections and handshakes now; connections refused, and cut off for others, so far."""
        return {
            "connections": sum(self._sources.values()),
            "handshakes": len(self._handshakes),
            "refused": self._refused,
            "dropped": self._dropped,
        }

    # Connections

    def _Listen(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(sock, self._Accept, sock)

    def _Accept(self, sock: socket.socket) -> None:
        """Take one connection: however many come, those that are there have their turn."""
        try:
            conn, peer = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as err:
            logging.error("Can't accept a connection: %s", err)
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.call_later(_ACCEPT_PAUSE, self._Listen, sock)
            return
        self._Admit(conn, str(peer[0]))

    def _Admit(self, conn: socket.socket, source: str) -> None:
        limits = self._limits
        if (
            self._sources.total() >= limits.connections
            or self._sources[source] >= limits.per_source
        ):
            self._refused += 1
            self._LogRefusal(source)
            conn.close()
            return
        of_source = [task for task, item in self._handshakes.items() if item.source == source]
        if len(of_source) >= limits.handshakes_per_source:
            self._Drop(of_source[0])
        elif len(self._handshakes) >= limits.handshakes:
            self._Drop(next(iter(self._handshakes)))
        connection = _Connection(source)
        self._sources[source] += 1
        task = asyncio.get_running_loop().create_task(self._Handshake(conn, connection))
        self._handshakes[task] = connection
        # Not at the task's own end: it may be cancelled before it has begun.
        task.add_done_callback(functools.partial(self._EndHandshake, conn, connection))

    def _Drop(self, task: asyncio.Task[None]) -> None:
        self._dropped += 1
        del self._handshakes[task]
        task.cancel()

    def _LogRefusal(self, source: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_INTERVAL:
            self._logged_at = now
            logging.warning(
                "Refused a connection from %s: there are %d, %d of them from there; refused %d"
                " so far",
                source,
                self._sources.total(),
                self._sources[source],
                self._refused,
            )

    async def _Handshake(self, conn: socket.socket, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()

        def _MakeHandler() -> web_protocol.RequestHandler:
            handler = self()
            connection.handler = handler
            self._by_handler[handler] = connection
            return handler

        conn.setblocking(False)
        await loop.connect_accepted_socket(
            _MakeHandler,
            conn,
            ssl=self._ssl,
            ssl_handshake_timeout=self._limits.handshake_timeout if self._ssl else None,
        )

    def _EndHandshake(
        self, conn: socket.socket, connection: _Connection, task: asyncio.Task[None]
    ) -> None:
        self._handshakes.pop(task, None)
        err = asyncio.CancelledError() if task.cancelled() else task.exception()
        if err is not None:
            logging.debug("No connection from %s: %r", connection.source, err)
            conn.close()
            self._Release(connection)

    def _Release(self, connection: _Connection) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        if connection.handler is not None:
            self._by_handler.pop(connection.handler, None)
        if connection.counted:
            connection.counted = False
            self._sources[connection.source] -= 1
            if not self._sources[connection.source]:
                del self._sources[connection.source]

    def connection_made(
        self, handler: web_protocol.RequestHandler, transport: asyncio.Transport
    ) -> None:
        """The handshake is done."""
        super().connection_made(handler, transport)
        self._StartTimer(handler, self._limits.request_timeout)

    def connection_lost(
        self, handler: web_protocol.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """The connection is gone."""
        super().connection_lost(handler, exc)
        connection = self._by_handler.get(handler)
        if connection is not None:
            self._Release(connection)

    def _StartTimer(self, handler: web_protocol.RequestHandler, timeout: float | None) -> None:
        connection = self._by_handler.get(handler)
        if connection is None:
            return
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        if timeout is not None:
            loop = asyncio.get_running_loop()
            connection.timer = loop.call_later(timeout, self._CutOff, handler)

    @staticmethod
    def _CutOff(handler: web_protocol.RequestHandler) -> None:
        # Closing alone would wait for what was not sent yet.
        if handler.transport is not None:
            handler.transport.abort()

    async def _OnRequest(self, request: web.BaseRequest) -> web.StreamResponse:
        self._StartTimer(request.protocol, None)
        try:
            return await self._answer(request)
        finally:
            self._StartTimer(request.protocol, self._limits.answer_timeout)


def Bind(address: str, port: int) -> list[socket.socket]:
    """Sockets that listen at an address.

    @param address: empty = all of this host, in every family that it has
    @param port: 0 = any, the same for all
    @raise OSError: one can not be had
    """
    infos = socket.getaddrinfo(
        address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as undo:
        for family, kind, proto, _, sockaddr in dict.fromkeys(infos):
            where = (sockaddr[0], port, *sockaddr[2:])
            try:
                sock = socket.socket(family, kind, proto)
                undo.callback(sock.close)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(where)
                sock.listen(BACKLOG)
                sock.setblocking(False)
            except OSError as err:
                if not address and err.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    # A host without IPv6
                    continue
                text = f"can't listen on {sockaddr[0]} port {port}: {err.strerror}"
                raise OSError(err.errno, text) from err
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "there is no address to listen on")
        undo.pop_all()
    return sockets
