"""HTTPS for node calls: who may connect, how a call travels, where it runs.

An asyncio loop reads requests and writes answers and does nothing that could block; calls run in
bounded pools of threads by what may block them, so that those which hang never keep others waiting.
Whoever connects must prove to have the cluster's key; nobody else gets as far as a request.

Bounds can not lead to a deadlock: calls that wait for calls to other nodes (of DRBD, migrations,
hooks that submit jobs) are all of one pool, which has more threads than the job queue has workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import html
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web

from .. import constants, errors, rpc_defs, runtime, serializer
from ..utils import io, x509
from . import httpserver

#: Name of a pool -> its threads.
POOLS: Final[Mapping[str, int]] = {"vital": 2, "quick": 16, "facts": 16, "slow": 64}
#: Calls that wait for a thread; more are refused.
BACKLOG: Final = 512

#: Only who has the key gets past the handshake.
LIMITS: Final = httpserver.Limits()
#: Seconds for reading the body of a request.
READ_TIMEOUT: Final = 60.0
#: Seconds that an idle connection is kept; longer than clients do, see L{rpc.transport}.
KEEPALIVE_TIMEOUT: Final = 600.0
#: Seconds that calls get to end when the daemon stops, and again to be given up: together less
#: than daemon-util waits.
STOP_TIMEOUT: Final = 12.0
#: Bytes of a request; a configuration of ten thousand instances has a tenth of it.
MAX_BODY: Final = 256 * 1024 * 1024

#: C{X509_V_FLAG_NO_CHECK_TIME} of OpenSSL.
_NO_CHECK_TIME: Final = 0x200000

#: Calls that must get through whatever else the node does, and hangs in: they touch no disk, start
#: no program, and their threads are there before they are needed (NA3).
_VITAL: Final = frozenset(["node_powercycle", "version"])
#: Those that ask LVM, hypervisors or foreign file systems: soon over unless these hang.
_FACTS: Final = frozenset(
    [
        "all_instances_info",
        "export_info",
        "export_list",
        "export_remove",
        "file_storage_dir_create",
        "file_storage_dir_remove",
        "file_storage_dir_rename",
        "instance_info",
        "instance_list",
        "lv_list",
        "node_info",
        "node_volumes",
        "os_diagnose",
        "os_get",
        "vg_list",
    ]
)

#: Name of a call, its arguments -> (success, payload).
AnswerFn = Callable[[str, Any], tuple[Any, Any]]
#: Why a call is not carried out for who claims to be the master: call, its name, its version.
CheckMasterFn = Callable[[str, str, str], str | None]


def GetPool(call: rpc_defs.Call) -> str:
    """Which of L{POOLS} carries out a call."""
    if call.name in _VITAL:
        return "vital"
    if call.name in _FACTS:
        return "facts"
    soon_over = not callable(call.timeout) and call.timeout <= rpc_defs.TMO_FAST
    return "quick" if soon_over else "slow"


def MakeSslContext(cert_file: str, key_file: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, with peers that have the key of this very certificate.

    Dates are not looked at: an expired certificate must not take away the means to replace it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    context.load_verify_locations(cafile=cert_file)
    context.verify_mode = ssl.CERT_REQUIRED
    # Plain numbers: the enumeration drops a flag that it does not know. Certificates of older
    # releases lack what a strict check demands.
    flags = int(context.verify_flags) & ~int(ssl.VerifyFlags.VERIFY_X509_STRICT)
    flags |= int(ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN) | _NO_CHECK_TIME
    context.verify_flags = cast(ssl.VerifyFlags, flags)
    return context


class Busy(Exception):  # noqa: N818 - an answer, not an error
    """Too many calls wait already."""


class CallThreads:
    """Threads that carry out calls; started when needed, up to a limit.

    C{_condition} guards all fields. Invariant: there are no more than C{limit} threads, and a task
    waits only if none of them is idle or one was notified of it.
    """

    def __init__(
        self, name: str, limit: int, backlog: int, rt: runtime.Runtime = runtime.DEFAULT
    ) -> None:
        self._name = name
        self._limit = limit
        self._backlog = backlog
        self._rt = rt
        self._condition = rt.threads.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0

    def Submit(self, loop: asyncio.AbstractEventLoop, fn: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a function in a thread; its result or error comes through the future.

        @raise Busy: too many tasks are waiting
        """
        future: asyncio.Future[Any] = loop.create_future()

        def Task() -> None:
            try:
                result, error = fn(), None
            except Exception as err:  # noqa: BLE001 - handed on to who waits
                result, error = None, err
            # The loop is gone if the daemon has stopped meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_Resolve, future, result, error)

        with self._condition:
            if len(self._tasks) >= self._backlog:
                raise Busy
            self._tasks.append(Task)
            if self._idle >= len(self._tasks):
                self._condition.notify()
            elif self._threads < self._limit and not self._StartThread() and not self._threads:
                self._tasks.pop()
                raise Busy
        return future

    def StartAll(self) -> None:
        """Start all threads now, for when that may not be possible any more."""
        with self._condition:
            while self._threads < self._limit and self._StartThread():
                pass

    def _StartThread(self) -> bool:
        """With the lock held; False if the system lets us have no more."""
        try:
            self._rt.threads.start(self._Run, name=f"{self._name}{self._threads + 1}")
        except RuntimeError as err:
            logging.error("No thread more than the %d for %s: %s", self._threads, self._name, err)
            return False
        self._threads += 1
        return True

    def _Run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                while not self._tasks:
                    self._condition.wait()
                self._idle -= 1
                task = self._tasks.popleft()
            task()

    def GetStatistics(self) -> dict[str, int]:
        """Threads there are, those without work, tasks waiting."""
        with self._condition:
            return {"threads": self._threads, "idle": self._idle, "waiting": len(self._tasks)}


def _Resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class RpcServer:
    """Serves the calls of L{rpc_defs}.

    @ivar on_quit: called after the answer to a call that ends the daemon
    """

    def __init__(
        self,
        answer: AnswerFn,
        on_quit: Callable[[], object],
        cert_file: str | None = None,
        key_file: str | None = None,
        rt: runtime.Runtime = runtime.DEFAULT,
        check_master: CheckMasterFn = lambda name, master, version: None,
    ) -> None:
        """Prepare to serve.

        @param answer: carries out a call; may block
        @param cert_file, key_file: PEM; None = no TLS, and everybody may call
        @param check_master: asked about calls that come with L{rpc.ClaimMaster}; may block
        """
        self._answer = answer
        self._check_master = check_master
        self.on_quit = on_quit
        self._ssl: ssl.SSLContext | None = None
        self._own_der = b""
        if cert_file is not None:
            self._ssl = MakeSslContext(cert_file, key_file or cert_file)
            self._own_der = x509.GetCertificateDer(io.ReadFile(cert_file))
        self._pools = {
            name: CallThreads(name.capitalize(), limit, BACKLOG, rt)
            for name, limit in POOLS.items()
        }
        self._pools["vital"].StartAll()
        self._server: httpserver.HttpServer | None = None

    async def Start(self, address: str, port: int) -> int:
        """Listen; the port that is served (interesting if 0 was asked for).

        @raise OSError: the address can not be served
        """
        self._server = httpserver.HttpServer(
            self._Handle,
            self._ssl,
            LIMITS,
            request_factory=_MakeRequest,
            access_log=None,
            logger=logging.getLogger(__name__),
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            tcp_keepalive=True,
            handler_cancellation=False,
            auto_decompress=False,
        )
        return await self._server.Start(address or constants.BIND_ADDRESS_GLOBAL, port)

    async def Stop(self) -> None:
        """Take no more calls; those under way get some time to end."""
        if self._server is not None:
            await self._server.Stop(STOP_TIMEOUT)

    def GetStatistics(self) -> Mapping[str, dict[str, int]]:
        """Threads and waiting calls of each pool, and connections."""
        return {
            **{name: pool.GetStatistics() for name, pool in self._pools.items()},
            "connections": self._server.GetStatistics() if self._server is not None else {},
        }

    # One request

    async def _Handle(self, request: web.BaseRequest) -> web.StreamResponse:
        quit_after = False
        try:
            response, quit_after = await self._Respond(request)
        except _HttpError as err:
            response = _ErrorPage(err.status, err.text)
        except Exception as err:  # noqa: BLE001 - the boundary of a request
            logging.exception("Error while handling %s %s", request.method, request.path)
            response = _ErrorPage(HTTPStatus.INTERNAL_SERVER_ERROR, str(err))
        response.headers["Server"] = f"Ganeti {constants.RELEASE_VERSION}"
        logging.info(
            "%s %s %s HTTP/%d.%d %d",
            _Peer(request),
            request.method,
            request.path,
            *request.version,
            response.status,
        )
        if quit_after:
            await response.prepare(request)
            await response.write_eof()
            self.on_quit()
        return response

    async def _Respond(self, request: web.BaseRequest) -> tuple[web.Response, bool]:
        self._CheckPeer(request)
        if request.method not in ("PUT", "POST"):
            raise _HttpError(HTTPStatus.BAD_REQUEST, "Only PUT and POST are supported")
        name = request.path.removeprefix("/")
        call = rpc_defs.CALLS.get(name)
        if call is None:
            raise _HttpError(HTTPStatus.NOT_FOUND, "There is no such procedure")
        body = await _ReadBody(request)
        pool = self._pools[GetPool(call)]
        loop = asyncio.get_running_loop()
        try:
            claim = request.query.get("master"), request.query.get("version", "")
            data, quit_after = await pool.Submit(loop, lambda: self._Work(name, body, claim))
        except Busy:
            raise _HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too many calls are under way on this node"
            ) from None
        return web.Response(body=data, content_type="application/json"), quit_after

    def _CheckPeer(self, request: web.BaseRequest) -> None:
        """The handshake let only our own certificate pass; make sure of it."""
        if self._ssl is None:
            return
        transport = request.transport
        ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
        peer_der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
        if not IsSameCertificate(peer_der, self._own_der):
            raise _HttpError(HTTPStatus.FORBIDDEN, "The certificate is not this cluster's")

    def _Work(self, name: str, body: bytes, claim: tuple[str | None, str]) -> tuple[bytes, bool]:
        """In a thread: from the bytes of the request to those of the answer."""
        master, version = claim
        problem = None if master is None else self._check_master(name, master, version)
        if problem is not None:
            return serializer.Dump((False, problem)).encode("utf-8"), False
        try:
            args = serializer.Load(body) if body else None
        except ValueError as err:
            raise _HttpError(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {err}") from err
        try:
            answer, quit_after = self._answer(name, args), False
        except errors.QuitGanetiException as err:
            status, payload = err.args
            answer, quit_after = (status, payload), True
        return serializer.Dump(answer).encode("utf-8"), quit_after


class _HttpError(Exception):
    """A request that gets a page instead of an answer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def IsSameCertificate(peer_der: bytes | None, own_der: bytes) -> bool:
    """Does the peer have our own certificate? Takes the same time for every wrong one."""
    return peer_der is not None and hmac.compare_digest(peer_der, own_der)


def _MakeRequest(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


async def _ReadBody(request: web.BaseRequest) -> bytes:
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            return await request.read()
    except TimeoutError:
        raise _HttpError(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time") from None
    except web.HTTPRequestEntityTooLarge:
        raise _HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {MAX_BODY} bytes"
        ) from None


def _Peer(request: web.BaseRequest) -> str:
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    return f"{peer[0]}:{peer[1]}" if peer else "?"


def _ErrorPage(status: HTTPStatus, text: str) -> web.Response:
    page = (
        f"<html><head><title>{status.value} {status.phrase}</title></head>"
        f"<body><h1>{status.phrase}</h1><p>{html.escape(text)}</p></body></html>\n"
    )
    response = web.Response(status=status.value, reason=status.phrase, text=page)
    response.content_type = "text/html"
    if status == HTTPStatus.FORBIDDEN:
        response.force_close()
    return response
