"""ganeti-rapi: the API over HTTPS, on the master node.

An asyncio loop reads requests and writes answers; what a request does runs in a bounded number of
threads, except waiting for jobs to change, which is a future and costs neither thread nor polling.
What an answer is gets decided in L{ganeti.rapi}.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import ssl
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from aiohttp import http_exceptions, web, web_protocol

from .. import constants, luxi, pathutils, runtime, ssconf
from ..rapi import auth, baserlib, dispatch
from . import daemon, httpserver, rpcserver

#: Threads for requests, and requests that wait for one; more are refused.
THREADS: Final = 32
BACKLOG: Final = 256
#: Waits for job changes at the same time; they cost a connection to the master daemon each.
MAX_WAITS: Final = 4096

#: Seconds for reading a request, and for an answer of the master daemon beyond the time it was
#: asked to wait.
READ_TIMEOUT: Final = 10.0
LUXI_TIMEOUT: Final = 60.0
#: Seconds that requests get to end when the daemon stops.
STOP_TIMEOUT: Final = 5.0
#: Seconds that a client gets to take its answer.
ANSWER_TIMEOUT: Final = 120.0
LIMITS: Final = httpserver.Limits(request_timeout=READ_TIMEOUT, answer_timeout=ANSWER_TIMEOUT)

#: Bytes of a body, of one from somebody who did not say who that is, of the request line, and of a
#: header.
MAX_BODY: Final = 16 * 2**20
MAX_ANONYMOUS_BODY: Final = 64 * 2**10
MAX_LINE: Final = 8192

#: Jobs that requests without a user may make: at once, and per second.
ANONYMOUS_BURST: Final = 20
ANONYMOUS_RATE: Final = 2.0

#: What ends a message on the master daemon's socket.
_END_OF_MESSAGE: Final = b"\3"

_SERVER: Final = f"Ganeti {constants.RELEASE_VERSION}"


def MakeSslContext(cert_file: str, key_file: str) -> ssl.SSLContext:
    """TLS 1.2 or newer; clients show no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file)
    return context


async def _CallLuxi(address: str, call: baserlib.LuxiCall) -> Any:
    """The result of a call to the master daemon, without blocking.

    Raises: what L{luxi.Client} raises.
    """
    request = luxi.EncodeFrame(luxi.FormatRequest(call.method, list(call.args)))
    try:
        reader, writer = await asyncio.open_unix_connection(address, limit=luxi.MAX_MESSAGE_SIZE)
    except (FileNotFoundError, ConnectionRefusedError) as err:
        raise luxi.NoMasterError(address) from err
    except PermissionError as err:
        raise luxi.PermissionError(address) from err
    try:
        writer.write(request)
        await writer.drain()
        answer = await reader.readuntil(_END_OF_MESSAGE)
    except (asyncio.IncompleteReadError, ConnectionError) as err:
        raise luxi.ConnectionClosedError("The master daemon closed the connection") from err
    except asyncio.LimitOverrunError as err:
        raise luxi.DecodingError("The answer of the master daemon is too long") from err
    finally:
        writer.close()
    return luxi.GetResult(answer.removesuffix(_END_OF_MESSAGE))


class _RequestHandler(web_protocol.RequestHandler):
    """One connection; says in JSON what is wrong with a request that can't even be read."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to such a request."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer was sent already")
        logging.info("%s: unreadable request: %s", _Peer(request), message or exc)
        return _MakeResponse(dispatch.MakeErrorResponse(_ErrorFromHttp(status, exc)))


def _ErrorFromHttp(status: int, exc: BaseException | None) -> baserlib.HttpError:
    """What to answer to a request that the HTTP library refused."""
    if isinstance(exc, http_exceptions.LineTooLong):
        line = exc.args[0]
        start = line.encode("utf-8", "replace") if isinstance(line, str) else bytes(line)
        # The target alone, or the whole line: the library has two parsers
        if start.split(b" ", 1)[-1].startswith(b"/"):
            return baserlib.HttpError(HTTPStatus.REQUEST_URI_TOO_LONG)
        return baserlib.HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    text = "The request can't be read" if status < 500 else ""
    return baserlib.HttpError(HTTPStatus(status), text)


class _HttpServer(httpserver.HttpServer):
    """Makes a L{_RequestHandler} for each connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handler_args = kwargs

    def __call__(self) -> web_protocol.RequestHandler:
        known = {"request_factory", "handler_cancellation"}
        kwargs = {name: self._handler_args[name] for name in self._handler_args.keys() - known}
        return _RequestHandler(self, loop=asyncio.get_running_loop(), **kwargs)


class RapiServer:
    """Serves a dispatcher's answers over HTTP(S), within one loop."""

    def __init__(
        self,
        dispatcher: dispatch.Dispatcher,
        ssl_context: ssl.SSLContext | None,
        luxi_address: str = pathutils.MASTER_SOCKET,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        """Prepare to serve.

        @param ssl_context: None = no TLS
        @param luxi_address: socket of the master daemon, for waits
        """
        self._dispatcher = dispatcher
        self._ssl = ssl_context
        self._luxi_address = luxi_address
        self._threads = rpcserver.CallThreads("Request", THREADS, BACKLOG, rt)
        self._waits = 0
        self._server: _HttpServer | None = None

    async def Start(self, address: str, port: int) -> int:
        """Listen; the port that is served (interesting if 0 was asked for).

        @param address: empty = all of this host, IPv4 and IPv6
        @raise OSError: the address can't be served
        """
        self._server = _HttpServer(
            self._Handle,
            self._ssl,
            LIMITS,
            request_factory=_MakeRequest,
            handler_cancellation=True,
            access_log=None,
            logger=logging.getLogger(__name__),
            keepalive_timeout=READ_TIMEOUT,
            auto_decompress=False,
            lingering_time=1.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )
        return await self._server.Start(address, port)

    async def Stop(self) -> None:
        """Take no more requests; those under way get some time to end."""
        if self._server is not None:
            await self._server.Stop(STOP_TIMEOUT)

    def GetStatistics(self) -> dict[str, int]:
        """Threads, idle ones, requests waiting for one, and waits for jobs."""
        return {**self._threads.GetStatistics(), "waits": self._waits}

    # One request

    async def _Handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._Answer(request)
        except baserlib.HttpError as err:
            answer = dispatch.MakeErrorResponse(err)
        logging.info(
            "%s %s %s HTTP/%d.%d %d",
            _Peer(request),
            request.method,
            request.raw_path,
            *request.version,
            answer.status,
        )
        return _MakeResponse(answer)

    async def _Answer(self, request: web.BaseRequest) -> dispatch.Response:
        if request.version >= (2, 0):
            raise baserlib.HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        raw = dispatch.RawRequest(
            request.method, request.raw_path, request.headers.get("Authorization")
        )
        # A length that is not known counts as a long one
        length = MAX_BODY if request.content_length is None else request.content_length
        if length > MAX_BODY:
            raise _TooLarge(MAX_BODY)
        limit = MAX_BODY
        if request.body_exists and length > MAX_ANONYMOUS_BODY:
            # Some thousand of these at once would fill the memory
            user = await self._InThread(lambda: self._dispatcher.Identify(raw))
            if isinstance(user, dispatch.Response):
                return user
            if user is None:
                limit = MAX_ANONYMOUS_BODY
        raw = dataclasses.replace(raw, body=await _ReadBody(request, limit))
        outcome = await self._InThread(lambda: self._dispatcher.Begin(raw))
        if isinstance(outcome, baserlib.LuxiCall):
            return await self._Wait(raw, outcome)
        assert isinstance(outcome, dispatch.Response)
        return outcome

    async def _InThread(self, fn: Callable[[], Any]) -> Any:
        try:
            return await self._threads.Submit(asyncio.get_running_loop(), fn)
        except rpcserver.Busy:
            raise _TooBusy() from None

    async def _Wait(self, raw: dispatch.RawRequest, call: baserlib.LuxiCall) -> dispatch.Response:
        if self._waits >= MAX_WAITS:
            raise _TooBusy()
        self._waits += 1
        call_result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            coro = _CallLuxi(self._luxi_address, call)
            call_result.set_result(await asyncio.wait_for(coro, LUXI_TIMEOUT))
        except TimeoutError:
            text = f"No answer from the master daemon for {LUXI_TIMEOUT:.0f} seconds"
            call_result.set_exception(luxi.TimeoutError(text))
        except Exception as err:  # noqa: BLE001 - turned into an answer
            call_result.set_exception(err)
        finally:
            self._waits -= 1
        return self._dispatcher.Finish(raw, call, call_result.result)


def _TooBusy() -> baserlib.HttpError:
    return baserlib.HttpError(
        HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are under way", {"Retry-After": "1"}
    )


def _MakeRequest(
    message: Any, payload: Any, protocol: Any, writer: Any, task: Any
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY)


def _TooLarge(limit: int) -> baserlib.HttpError:
    text = f"The body is longer than {limit} bytes"
    if limit == MAX_ANONYMOUS_BODY:
        text += ", which is all that may be sent without a user name and a password"
    return baserlib.HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)


async def _ReadBody(request: web.BaseRequest, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise _TooLarge(limit)
    encoding = request.headers.get("Content-Encoding", "identity")
    if request.body_exists and encoding.lower() != "identity":
        # Some bytes could become any number of them
        raise baserlib.HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must come without Content-Encoding"
        )
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Else the answer proper is taken for a second one
        request.writer.output_size = 0
    body = bytearray()
    try:
        async with asyncio.timeout(READ_TIMEOUT):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _TooLarge(limit)
    except TimeoutError:
        raise baserlib.HttpError(
            HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time"
        ) from None
    return bytes(body)


def _MakeResponse(answer: dispatch.Response) -> web.Response:
    status = HTTPStatus(answer.status)
    response = web.Response(
        status=status.value,
        reason=status.phrase,
        body=answer.body,
        content_type=dispatch.JSON_TYPE,
        headers={**answer.headers, "Server": _SERVER, "Connection": "close"},
    )
    response.force_close()
    return response


def _Peer(request: web.BaseRequest) -> str:
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport is not None else None
    return f"{peer[0]}:{peer[1]}" if peer else "?"


# The daemon


def MakeDispatcher(options: argparse.Namespace) -> dispatch.Dispatcher:
    """Answers from this node's master daemon."""
    context = baserlib.Context(
        client_factory=luxi.Client,
        cluster_tags=lambda: ssconf.SimpleStore().GetClusterTags(),
        anonymous_jobs=baserlib.TokenBucket(ANONYMOUS_BURST, ANONYMOUS_RATE),
    )
    return dispatch.Dispatcher(context, auth.UsersFile(), options.require_authentication)


async def _Serve(options: argparse.Namespace, control: daemon.DaemonControl) -> int:
    context = MakeSslContext(options.ssl_cert, options.ssl_key) if options.ssl else None
    server = RapiServer(MakeDispatcher(options), context)
    try:
        port = await server.Start(options.bind, options.port)
        logging.info("Listening on port %d", port)
        control.Started()
        await control.WaitForStop()
    finally:
        await server.Stop()
    return constants.EXIT_SUCCESS


def CheckRapi(options: argparse.Namespace, args: list[str]) -> int | None:
    """No arguments, and only on the master node (exit codes 11 and 12)."""
    code = daemon.RefuseArguments(options, args)
    if code:
        return code
    ssconf.CheckMaster(options.debug)
    return None


def ExecRapi(
    options: argparse.Namespace, args: list[str], control: daemon.DaemonControl
) -> int | None:
    """Serve until told to stop."""
    return control.RunAsync(lambda ctl: _Serve(options, ctl))


_DESCRIPTION: Final = "Serves the remote API over HTTPS, on the master node."


def BuildParser() -> argparse.ArgumentParser:
    """The options of the daemon."""
    parser = daemon.BuildParser(constants.RAPI, _DESCRIPTION, version=str(constants.RAPI_VERSION))
    parser.add_argument(
        "--require-authentication",
        action="store_true",
        help="answer only to users of the users file, even where others may read",
    )
    return parser


def Main(argv: Sequence[str] | None = None) -> int:
    """The daemon."""
    return daemon.GenericMain(
        constants.RAPI,
        BuildParser(),
        daemon.DAEMON_DIRS[constants.RAPI],
        CheckRapi,
        ExecRapi,
        argv=argv,
    )
