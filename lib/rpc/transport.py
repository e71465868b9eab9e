"""Carrying requests to node daemons: one thread around one libcurl multi handle.

All callers of the process share the thread, its connections and its TLS sessions: a second call to
a node costs one round trip, not a handshake. Each caller hands over all its requests at once and
sleeps until each has an answer, so a call to many nodes takes as long as the slowest node, and dead
nodes cost one connect time-out together.

The peer is pinned: both ends hold the same C{server.pem}, and a connection is given up in the
handshake, before anything is sent, unless the other side proves that it owns that key. Names and
dates of the certificate play no part: an expired certificate must not take away the means to
replace it (cluster verify warns in time).

libcurl repeats a request when a connection that it used again turns out to be dead before the first
byte of an answer. That is right for a node daemon that was restarted meanwhile, but if it died at
work, the call would be made twice. Where that does harm, libcurl gets the body in a way that it can
read only once, and so gives up what it could not send as a whole. It does not notice each idle
connection that the other side has closed; therefore those are looked at here before, and if there
is one, a request gets a new one.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import logging
import os
import select
import socket
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import pycurl
from OpenSSL import crypto

from .. import constants, errors, pathutils, runtime

#: Requests under way at once, over all nodes. They cost a socket each, not a thread.
MAX_ACTIVE: Final = 256
#: Requests under way at once to one node, so that a hanging one can't take all places.
MAX_PER_HOST: Final = 32
#: Connections kept open while idle.
MAX_IDLE: Final = 256
#: Idle connections are closed after so many seconds, well before the node daemon does it: the
#: two never race.
MAX_IDLE_AGE: Final = 240

#: Seconds for which the other side's kernel may be silent, be it busy with a call of hours or not:
#: a node that lost its power or its network fails the calls on it after this time. Longer than a
#: network takes to find another way.
PEER_TIMEOUT: Final = 20
#: When to ask for a sign of life, and how often from then on (seconds).
KEEPALIVE_IDLE: Final = 10
KEEPALIVE_INTERVAL: Final = 5

#: A connection broke; the last of these: and what was sent on it can't be sent again.
_BROKEN: Final = frozenset(
    [
        pycurl.E_GOT_NOTHING,
        pycurl.E_RECV_ERROR,
        pycurl.E_SEND_ERROR,
        pycurl.E_SEND_FAIL_REWIND,
    ]
)

_CURL_TO_EPOLL: Final = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


@dataclass
class _Batch:
    """The requests of one caller; C{done} is set when the last one has its answer."""

    open: int
    done: runtime.Event


@dataclass
class _Work:
    """One request on its way; owned by the loop thread once it was handed over."""

    request: runtime.HttpRequest
    batch: _Batch
    deadline: float | None
    pin: str
    answer: io.BytesIO = field(default_factory=io.BytesIO)


class CurlTransport:
    """The real L{runtime.Transport}.

    C{_lock} guards C{_incoming}, C{_stopping} and C{_thread}; everything else belongs to the loop
    thread alone, which is started by the first request (a daemon may fork until then).

    @ivar cert_file: the cluster's certificate and key, in one PEM file; it is read again when it
      was replaced
    """

    def __init__(
        self,
        cert_file: str = pathutils.NODED_CERT_FILE,
        use_ssl: bool = True,
        rt: runtime.Runtime = runtime.DEFAULT,
        max_active: int = MAX_ACTIVE,
        max_per_host: int = MAX_PER_HOST,
    ) -> None:
        self._rt = rt
        self._use_ssl = use_ssl
        self._pinned = PinnedCertificate(cert_file)
        self._max_active = max_active
        self._max_per_host = max_per_host

        self._lock = rt.threads.Lock()
        self._incoming: deque[_Work] = deque()
        self._stopping = False
        self._thread: runtime.ThreadHandle | None = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

        self._epoll = select.epoll()
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._sockets: set[int] = set()
        self._timer: float | None = None
        self._queued: deque[_Work] = deque()
        self._active: dict[Any, _Work] = {}
        self._per_host: Counter[str] = Counter()
        #: Sockets by host; libcurl may have closed them since.
        self._kept: defaultdict[str, set[int]] = defaultdict(set)
        #: By whether they are for requests that may be repeated.
        self._idle_handles: dict[bool, list[Any]] = {False: [], True: []}
        self._multi = self._NewMulti()

        self._requests = 0
        self._connects = 0

    # Callers' side

    def Perform(self, requests: Sequence[runtime.HttpRequest]) -> None:
        """Send all requests in parallel; return when each has an answer or an error.

        May be called from any number of threads at once.
        """
        if not requests:
            return
        try:
            pin = self._pinned.Pin() if self._use_ssl else ""
        except errors.ConfigurationError as err:
            for request in requests:
                request.error = str(err)
            return
        now = self._rt.clock.monotonic()
        batch = _Batch(open=len(requests), done=self._rt.threads.Event())
        works = [
            _Work(
                request=request,
                batch=batch,
                deadline=None if request.timeout is None else now + request.timeout,
                pin=pin,
            )
            for request in requests
        ]
        with self._lock:
            if self._stopping:
                raise errors.ProgrammerError("The RPC client was shut down")
            if self._thread is None:
                self._thread = self._rt.threads.start(self._Loop, name="RpcClient")
            self._incoming.extend(works)
        os.eventfd_write(self._wake_fd, 1)
        batch.done.wait()

    def Shutdown(self) -> None:
        """Close all connections; requests under way end with an error."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            thread = self._thread
        if thread is not None:
            os.eventfd_write(self._wake_fd, 1)
            thread.join()
        else:
            self._Close()

    def GetStatistics(self) -> dict[str, int]:
        """Counters: requests done, connections opened, requests under way and waiting."""
        return {
            "requests": self._requests,
            "connects": self._connects,
            "active": len(self._active),
            "waiting": len(self._queued) + len(self._incoming),
        }

    # The loop thread

    def _Loop(self) -> None:
        while True:
            try:
                if not self._Iterate():
                    break
            except Exception:  # noqa: BLE001 - boundary of a thread that all callers depend on
                logging.exception("Error in the RPC client; giving up all requests under way")
                self._StartOver()
        self._FailAll("The RPC client was shut down")
        self._Close()

    def _Iterate(self) -> bool:
        """One round: take new requests, move bytes, hand out answers; False = stop."""
        with self._lock:
            if self._stopping:
                return False
            self._queued.extend(self._incoming)
            self._incoming.clear()
        self._StartQueued()
        for fd, event in self._epoll.poll(self._PollTimeout()):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd in self._sockets:
                self._multi.socket_action(fd, _EpollToCurl(event))
        if self._timer is not None and self._timer <= self._rt.clock.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._CollectFinished()
        return True

    def _PollTimeout(self) -> float:
        """Seconds until libcurl or the deadline of a waiting request needs attention."""
        moments = [work.deadline for work in self._queued if work.deadline is not None]
        if self._timer is not None:
            moments.append(self._timer)
        if not moments:
            return -1
        return max(0.0, min(moments) - self._rt.clock.monotonic())

    def _StartQueued(self) -> None:
        """Start what there is room for, in order, but past what waits for a busy node."""
        if not self._queued:
            return
        now = self._rt.clock.monotonic()
        waiting: deque[_Work] = deque()
        while self._queued:
            work = self._queued.popleft()
            host = work.request.host
            if work.deadline is not None and work.deadline <= now:
                self._Finish(
                    work,
                    f"No free connection to {host}:{work.request.port} within"
                    f" {work.request.timeout:g} seconds: too many calls are under way",
                )
            elif len(self._active) >= self._max_active:
                waiting.append(work)
                waiting.extend(self._queued)
                self._queued.clear()
            elif self._per_host[host] >= self._max_per_host:
                waiting.append(work)
            else:
                self._Start(work, now)
        self._queued = waiting

    def _Start(self, work: _Work, now: float) -> None:
        request = work.request
        # What is set for one kind of body is never taken back.
        idle = self._idle_handles[request.repeatable]
        handle = idle.pop() if idle else self._NewHandle()
        scheme = "https" if self._use_ssl else "http"
        host = f"[{request.host}]" if ":" in request.host else request.host
        handle.setopt(pycurl.URL, f"{scheme}://{host}:{request.port}{request.path}")
        handle.setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.repeatable:
            handle.setopt(pycurl.POSTFIELDS, request.body)
        else:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDSIZE, len(request.body))
            handle.setopt(pycurl.READFUNCTION, io.BytesIO(request.body).read)
        fresh = self._HasDeadConnection(request.host)
        handle.setopt(pycurl.FRESH_CONNECT, 1 if fresh else 0)
        handle.setopt(
            pycurl.SOCKOPTFUNCTION, functools.partial(_NewSocket, self._kept[request.host])
        )
        handle.setopt(pycurl.WRITEDATA, work.answer)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(request.connect_timeout * 1000)))
        left = 0 if work.deadline is None else max(1, int((work.deadline - now) * 1000))
        handle.setopt(pycurl.TIMEOUT_MS, left)
        if self._use_ssl:
            handle.setopt(pycurl.PINNEDPUBLICKEY, work.pin)
        self._active[handle] = work
        self._per_host[request.host] += 1
        self._multi.add_handle(handle)

    def _HasDeadConnection(self, host: str) -> bool:
        """May libcurl have a connection to this host that was closed there?

        One that is idle, so that libcurl does not watch it, has nothing to read. A number that is
        somebody else's socket by now costs no more than a new connection.
        """
        poll = select.poll()
        for fd in self._kept[host] - self._sockets:
            poll.register(fd, select.POLLIN)
        dead = False
        for fd, event in poll.poll(0):
            if event & select.POLLNVAL:
                self._kept[host].discard(fd)
            else:
                dead = True
        return dead

    def _CollectFinished(self) -> None:
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for handle in good:
                work = self._Release(handle)
                work.request.response = work.answer.getvalue()
                status = handle.getinfo(pycurl.RESPONSE_CODE)
                work.request.status = status
                work.request.reason = _Reason(status)
                self._Finish(work, None)
                self._idle_handles[work.request.repeatable].append(handle)
            for handle, code, text in bad:
                work = self._Release(handle)
                self._Finish(work, _ErrorText(work.request, code, text))
                handle.close()

    def _Release(self, handle: Any) -> _Work:
        self._multi.remove_handle(handle)
        self._connects += handle.getinfo(pycurl.NUM_CONNECTS)
        work = self._active.pop(handle)
        host = work.request.host
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]
        return work

    def _Finish(self, work: _Work, error: str | None) -> None:
        work.request.error = error
        self._requests += 1
        work.batch.open -= 1
        if not work.batch.open:
            work.batch.done.set()

    def _FailAll(self, text: str) -> None:
        with self._lock:
            self._queued.extend(self._incoming)
            self._incoming.clear()
        works = [*self._active.values(), *self._queued]
        self._active.clear()
        self._queued.clear()
        self._per_host.clear()
        for work in works:
            self._Finish(work, text)

    def _StartOver(self) -> None:
        """After a mistake in this module: nobody waits for ever, and the next call works."""
        self._FailAll("Internal error in the RPC client, see the log")
        for fd in self._sockets:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
        self._sockets.clear()
        self._timer = None
        self._kept.clear()
        self._DropHandles()
        self._multi = self._NewMulti()

    def _DropHandles(self) -> None:
        for handles in self._idle_handles.values():
            for handle in handles:
                handle.close()
            handles.clear()

    def _Close(self) -> None:
        self._DropHandles()
        self._multi.close()
        self._epoll.close()
        os.close(self._wake_fd)

    # libcurl

    def _NewMulti(self) -> Any:
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._OnSocket)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._OnTimer)
        multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE)
        return multi

    def _OnSocket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        """libcurl says what to watch a socket for."""
        if what == pycurl.POLL_REMOVE:
            if fd in self._sockets:
                self._sockets.discard(fd)
                # Already closed by then in some error paths; epoll has forgotten it.
                with contextlib.suppress(OSError):
                    self._epoll.unregister(fd)
            return
        mask = _CURL_TO_EPOLL.get(what, 0)
        if fd in self._sockets:
            try:
                self._epoll.modify(fd, mask)
                return
            except FileNotFoundError:
                pass  # closed and opened again under the same number
        self._epoll.register(fd, mask)
        self._sockets.add(fd)

    def _OnTimer(self, timeout_ms: int) -> None:
        """libcurl says when it wants to be called even if no socket moves."""
        if timeout_ms < 0:
            self._timer = None
        else:
            self._timer = self._rt.clock.monotonic() + timeout_ms / 1000.0

    def _NewHandle(self) -> Any:
        handle = pycurl.Curl()
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.PROXY, "")
        handle.setopt(pycurl.NOPROXY, "*")
        handle.setopt(pycurl.FOLLOWLOCATION, 0)
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.TCP_NODELAY, 1)
        handle.setopt(pycurl.TCP_KEEPALIVE, 1)
        handle.setopt(pycurl.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        handle.setopt(pycurl.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        handle.setopt(pycurl.MAXAGE_CONN, MAX_IDLE_AGE)
        handle.setopt(pycurl.USERAGENT, f"Ganeti {constants.RELEASE_VERSION}")
        handle.setopt(pycurl.HTTPHEADER, ["Expect:", "Accept:", "Content-Type: application/json"])
        if self._use_ssl:
            cert_file = self._pinned.file_name
            handle.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
            handle.setopt(pycurl.SSLCERT, cert_file)
            handle.setopt(pycurl.SSLKEY, cert_file)
            handle.setopt(pycurl.CAINFO, cert_file)
            # The pin below is all the verification there is, see above; it covers the whole
            # public key, and the handshake proves that the peer has the private one.
            handle.setopt(pycurl.SSL_VERIFYPEER, 0)
            handle.setopt(pycurl.SSL_VERIFYHOST, 0)
        return handle


class PinnedCertificate:
    """The certificate that the peer must have, as libcurl wants to be told."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._version: tuple[int, int, int] | None = None
        self._pin = ""

    def Pin(self) -> str:
        """SHA-256 of the public key, in libcurl's form; read again if the file was replaced.

        Raises: ConfigurationError if there is no usable certificate.
        """
        try:
            st = os.stat(self.file_name)
            version = (st.st_ino, st.st_size, st.st_mtime_ns)
            if version != self._version:
                with open(self.file_name, "rb") as fobj:
                    self._pin = ComputePin(fobj.read())
                self._version = version
        except (OSError, crypto.Error) as err:
            raise errors.ConfigurationError(
                f"Can't call node daemons: the cluster certificate {self.file_name} is not"
                f" usable: {err}"
            ) from err
        return self._pin


def ComputePin(pem: bytes) -> str:
    """The pin of a certificate: C{sha256//} and the base64 of the hash of its public key."""
    cert = crypto.load_certificate(crypto.FILETYPE_PEM, pem)
    key = crypto.dump_publickey(crypto.FILETYPE_ASN1, cert.get_pubkey())
    return "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")


def _NewSocket(kept: set[int], fd: int, _purpose: int) -> int:
    """Limit the wait for a peer whose kernel does not even acknowledge.

    @param kept: where to note the socket
    """
    kept.add(fd)
    sock = socket.socket(fileno=fd)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT * 1000)
    finally:
        # It is libcurl's.
        sock.detach()
    return 0


def _EpollToCurl(event: int) -> int:
    mask = 0
    if event & (select.EPOLLIN | select.EPOLLHUP):
        mask |= pycurl.CSELECT_IN
    if event & select.EPOLLOUT:
        mask |= pycurl.CSELECT_OUT
    if event & select.EPOLLERR:
        mask |= pycurl.CSELECT_ERR
    return mask


def _Reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown status"


def _ErrorText(request: runtime.HttpRequest, code: int, text: str) -> str:
    """What a failed exchange means to the reader of a job log."""
    peer = f"{request.host}:{request.port}"
    if code == pycurl.E_COULDNT_CONNECT:
        return f"Can't connect to {peer}: {text or 'connection refused'}"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return f"Time-out talking to {peer}: {text}"
    if code == pycurl.E_SSL_PINNEDPUBKEYNOTMATCH:
        return f"The node daemon at {peer} has another certificate than this cluster's"
    if code in _BROKEN:
        return (
            f"The connection to {peer} broke while the call was under way; whether it was"
            f" carried out is not known: {text}"
        )
    return f"Error talking to {peer}: {text} (libcurl error {code})"
