"""Asking confd: several candidates at once, the newest answer counts.

UDP may lose, repeat and reorder, and a candidate may be behind. So a request goes to several peers
under a salt of its own; an answer counts if it is signed with the cluster's key and carries a salt
that is still waited for; and callbacks stacked on each other decide which answers are news:

    store = StoreResultCallback()
    news = ConfdFilterCallback(store)
    client = GetConfdClient(news)
    request = ConfdClientRequest(type=constants.CONFD_REQ_CLUSTER_MASTER)
    client.SendRequest(request, coverage=-1, async_=False)
    client.WaitForReply(request.rsalt)
    found, reply = store.GetResponse(request.rsalt)

L{Ask} does this in one call (design: Ganeti Confd).
"""

from __future__ import annotations

import logging
import select
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .. import constants, errors, objects, pathutils, ssconf
from ..runtime import DEFAULT, Runtime
from ..utils import net, uuid
from . import protocol

#: An answer came.
UPCALL_REPLY: Final = 1
#: Nothing more is expected for a request; comes for every request, answered or not.
UPCALL_EXPIRE: Final = 2

#: Answers that L{StoreResultCallback} keeps.
MAX_STORED: Final = 1024


class Endpoint(Protocol):
    """Sends and receives datagrams."""

    def Send(self, payload: bytes, ip: str, port: int) -> None:
        """Send a datagram; OSError if the system refuses."""

    def Receive(self, timeout: float) -> tuple[bytes, str, int] | None:
        """Next datagram with its sender's address and port; None after that many seconds."""

    def Fileno(self) -> int:
        """What to poll for incoming datagrams."""

    def Close(self) -> None:
        """Give the socket back."""


class UdpEndpoint:
    """An IPv4 datagram socket on a port of the system's choice."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)

    def Send(self, payload: bytes, ip: str, port: int) -> None:
        self._sock.sendto(payload, (ip, port))

    def Receive(self, timeout: float) -> tuple[bytes, str, int] | None:
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            return None
        try:
            payload, (ip, port) = self._sock.recvfrom(constants.MAX_UDP_DATA_SIZE)
        except (BlockingIOError, ConnectionRefusedError):
            return None
        return payload, ip, port

    def Fileno(self) -> int:
        return self._sock.fileno()

    def Close(self) -> None:
        self._sock.close()


class ConfdClientRequest(objects.ConfdRequest):
    """A request with a salt of its own, unless it is given one.

    Raises: ConfdClientError for an unknown type.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self.rsalt:
            self.rsalt = uuid.NewUUID()
        if not self.protocol:
            self.protocol = constants.CONFD_PROTOCOL_VERSION
        if self.type not in constants.CONFD_REQS:
            raise errors.ConfdClientError(f"Invalid request type: {self.type!r}")


@dataclass
class ConfdUpcallPayload:
    """What a callback is told.

    @ivar salt: of the request
    @ivar type: UPCALL_REPLY or UPCALL_EXPIRE
    @ivar server_reply: protocol, status, answer, serial; None for UPCALL_EXPIRE, as the address
    @ivar extra_args: what was given to SendRequest
    """

    salt: str
    type: int
    orig_request: objects.ConfdRequest
    server_reply: objects.ConfdReply | None = None
    server_ip: str | None = None
    server_port: int | None = None
    extra_args: Any = None
    client: ConfdClient | None = None


Callback = Callable[[ConfdUpcallPayload], object]


def _CheckCallback(callback: Callback) -> None:
    if not callable(callback):
        raise errors.ProgrammerError(f"The callback {callback!r} can not be called")


@dataclass
class _Outstanding:
    request: objects.ConfdRequest
    args: Any
    expiry: float
    sent: set[str]
    received: set[str] = field(default_factory=set)


def NeededReplies(peers: int) -> int:
    """How many answers are enough when so many peers were asked."""
    if peers < 3:
        return peers
    if peers < 5:
        return peers - 1
    return peers // 2 + 1


class ConfdClient:
    """Sends requests to some of its peers and tells a callback what comes of it.

    One thread only. In an event loop, poll L{Fileno} and call C{ReceiveReply(timeout=0)}.

    @param hmac_key: whole content of the key file, its final newline included
    @param peers: IP addresses to ask
    @param callback: called with a L{ConfdUpcallPayload}
    @param port: None = what the services database says, else the default
    """

    def __init__(
        self,
        hmac_key: bytes | str,
        peers: list[str],
        callback: Callback,
        port: int | None = None,
        logger: logging.Logger | None = None,
        endpoint: Endpoint | None = None,
        runtime: Runtime = DEFAULT,
    ) -> None:
        _CheckCallback(callback)
        self._rt = runtime
        self._hmac_key = hmac_key.encode("utf-8") if isinstance(hmac_key, str) else hmac_key
        self._callback = callback
        self._port = port if port is not None else net.GetDaemonPort(constants.CONFD)
        self._logger = logger if logger is not None else logging.getLogger()
        self._requests: dict[str, _Outstanding] = {}
        self._queue: deque[tuple[bytes, str]] = deque()
        self._peers: list[str] = []
        self.UpdatePeerList(peers)
        self._endpoint = endpoint if endpoint is not None else UdpEndpoint()

    def Close(self) -> None:
        """Give the socket back; the client can not be used any more."""
        self._endpoint.Close()

    def UpdatePeerList(self, peers: list[str]) -> None:
        """Ask these from now on. Raises ProgrammerError if it is no list."""
        if not isinstance(peers, list):
            raise errors.ProgrammerError("The peers of a confd client must be a list")
        self._peers = list(peers)

    def Fileno(self) -> int:
        """What to poll for answers."""
        return self._endpoint.Fileno()

    def SendRequest(
        self,
        request: objects.ConfdRequest,
        args: Any = None,
        coverage: int = 0,
        async_: bool = True,
    ) -> None:
        """Send a request to some peers, chosen at random.

        @param args: handed to the callback with each answer
        @param coverage: how many peers; 0 = at most 6, -1 = all
        @param async_: False = send at once; else with the next L{FlushSendQueue} or when waiting

        Raises: ConfdClientError if that many peers are not known, or the request has no salt, one
        that is waited for already, an unknown type, or does not fit into a datagram.
        """
        chosen = self._ChoosePeers(coverage)
        self._CheckRequest(request)
        self.ExpireRequests()
        datagram = protocol.Pack(request.ToDict(), self._hmac_key, str(int(self._rt.clock.time())))
        if len(datagram) > constants.MAX_UDP_DATA_SIZE:
            raise errors.ConfdClientError(
                f"The request has {len(datagram)} bytes, a datagram may have"
                f" {constants.MAX_UDP_DATA_SIZE}: ask for less at once"
            )
        self._requests[request.rsalt] = _Outstanding(
            request=request,
            args=args,
            expiry=self._rt.clock.monotonic() + constants.CONFD_CLIENT_EXPIRE_TIMEOUT,
            sent=set(chosen),
        )
        self._queue.extend((datagram, peer) for peer in chosen)
        if not async_:
            self.FlushSendQueue()

    def _ChoosePeers(self, coverage: int) -> list[str]:
        known = len(self._peers)
        if coverage == 0:
            coverage = min(known, constants.CONFD_DEFAULT_REQ_COVERAGE)
        elif coverage == -1:
            coverage = known
        if not 0 <= coverage <= known:
            raise errors.ConfdClientError(f"Can not ask {coverage} peers, {known} are known")
        peers = list(self._peers)
        self._rt.random.shuffle(peers)
        return peers[:coverage]

    def _CheckRequest(self, request: objects.ConfdRequest) -> None:
        if not request.rsalt:
            raise errors.ConfdClientError("The request has no rsalt")
        if request.rsalt in self._requests:
            raise errors.ConfdClientError(
                f"A request with the rsalt {request.rsalt!r} is outstanding already"
            )
        if request.type not in constants.CONFD_REQS:
            raise errors.ConfdClientError(f"Invalid request type: {request.type!r}")

    def FlushSendQueue(self) -> None:
        """Send what is waiting to be sent."""
        while self._queue:
            datagram, peer = self._queue.popleft()
            try:
                self._endpoint.Send(datagram, peer, self._port)
            except OSError as err:
                # As if the datagram had been lost: the others may answer.
                self._logger.warning("Can't send a confd request to %s: %s", peer, err)

    def ExpireRequests(self) -> None:
        """Forget requests that are too old, each with an upcall."""
        now = self._rt.clock.monotonic()
        expired = [salt for salt, item in self._requests.items() if item.expiry < now]
        for salt in expired:
            item = self._requests.pop(salt)
            self._callback(
                ConfdUpcallPayload(
                    salt=salt,
                    type=UPCALL_EXPIRE,
                    orig_request=item.request,
                    extra_args=item.args,
                    client=self,
                )
            )

    def HandleResponse(self, payload: bytes, ip: str, port: int) -> None:
        """Take a datagram; what is no answer to an outstanding request is dropped."""
        try:
            message, salt = protocol.Unpack(payload, self._hmac_key)
            reply = _ParseReply(message)
        except (errors.ConfdMagicError, errors.SignatureError, errors.ConfdClientError) as err:
            self._logger.debug(
                "Dropping a datagram from %s:%d: %s", ip, port, errors.FormatError(err)
            )
        else:
            item = self._requests.get(salt)
            if item is None:
                self._logger.debug("Dropping an answer from %s: nobody waits for %s", ip, salt)
            elif item.expiry >= self._rt.clock.monotonic():
                item.received.add(ip)
                self._callback(
                    ConfdUpcallPayload(
                        salt=salt,
                        type=UPCALL_REPLY,
                        orig_request=item.request,
                        server_reply=reply,
                        server_ip=ip,
                        server_port=port,
                        extra_args=item.args,
                        client=self,
                    )
                )
        self.ExpireRequests()

    def ReceiveReply(self, timeout: float = 1) -> bool:
        """Take one datagram.

        @param timeout: seconds to wait for it
        @return: whether one came
        """
        self.FlushSendQueue()
        got = self._endpoint.Receive(timeout)
        if got is None:
            return False
        self.HandleResponse(*got)
        return True

    def WaitForReply(self, salt: str, timeout: float = 10) -> tuple[bool, int, int]:
        """Take answers until enough peers answered a request.

        @param timeout: seconds; the request lives as much longer
        @return: whether the time ended first, how many were asked, how many answered; an unknown
            salt gives (True, 0, 0)
        """
        item = self._requests.get(salt)
        if item is None:
            return True, 0, 0
        item.expiry += timeout
        deadline = self._rt.clock.monotonic() + timeout
        needed = NeededReplies(len(item.sent))
        while len(item.received) < needed:
            left = deadline - self._rt.clock.monotonic()
            if left <= 0:
                return True, len(item.sent), len(item.received)
            self.ReceiveReply(timeout=left)
        return False, len(item.sent), len(item.received)


def _ParseReply(message: dict[str, Any]) -> objects.ConfdReply:
    status = message.get("status")
    serial = message.get("serial")
    if not (isinstance(status, int) and isinstance(serial, int)):
        raise errors.ConfdClientError("An answer without status or serial")
    return objects.ConfdReply(
        protocol=message.get("protocol"),
        status=status,
        answer=message.get("answer"),
        serial=serial,
    )


def GetConfdClient(callback: Callback, runtime: Runtime = DEFAULT) -> ConfdClient:
    """A client that asks this node's cluster.

    Raises: ConfigurationError or OSError if this host is no node of a cluster.
    """
    peers = ssconf.SimpleStore(runtime=runtime).GetMasterCandidatesIPList()
    hmac_key = runtime.files.read(pathutils.CONFD_HMAC_KEY)
    return ConfdClient(hmac_key, peers, callback, runtime=runtime)


class ConfdFilterCallback:
    """Passes on only what is news: the first answer of a request, and other ones of newer serials.

    @ivar consistent: salt -> False once two answers of the same serial differed
    """

    def __init__(self, callback: Callback, logger: logging.Logger | None = None) -> None:
        _CheckCallback(callback)
        self._callback = callback
        self._logger = logger if logger is not None else logging.getLogger()
        self._best: dict[str, ConfdUpcallPayload] = {}
        self._agreeing: dict[str, set[str | None]] = {}
        self.consistent: dict[str, bool] = {}

    def GetBest(self, salt: str) -> ConfdUpcallPayload | None:
        """The answer with the highest serial so far, be it news or not."""
        return self._best.get(salt)

    def CountAgreeing(self, salt: str) -> int:
        """How many servers gave the best answer at the highest serial so far."""
        return len(self._agreeing.get(salt, ()))

    def __call__(self, up: ConfdUpcallPayload) -> None:
        """Take an upcall, and pass it on or not."""
        if up.type == UPCALL_EXPIRE:
            self._best.pop(up.salt, None)
            self._agreeing.pop(up.salt, None)
            self.consistent.pop(up.salt, None)
        elif not self._IsNews(up):
            return
        self._callback(up)

    def _IsNews(self, up: ConfdUpcallPayload) -> bool:
        new = up.server_reply
        assert new is not None
        best = self._best.get(up.salt)
        old = best.server_reply if best is not None else None
        # The codes of errors are small numbers, as are the roles of nodes: an answer is the same
        # only with the same status.
        same = old is not None and (old.status, old.answer) == (new.status, new.answer)
        if old is None or new.serial > old.serial:
            self._best[up.salt] = up
            self._agreeing[up.salt] = {up.server_ip}
            self.consistent.setdefault(up.salt, True)
            return not same
        if new.serial == old.serial:
            if same:
                self._agreeing[up.salt].add(up.server_ip)
            else:
                self.consistent[up.salt] = False
                self._logger.warning(
                    "confd on %s answers differently from another one with the same serial %d",
                    up.server_ip,
                    new.serial,
                )
        return False


class ConfdCountingCallback:
    """Counts answers of registered requests, and passes everything on."""

    def __init__(self, callback: Callback, logger: logging.Logger | None = None) -> None:
        _CheckCallback(callback)
        self._callback = callback
        self._logger = logger if logger is not None else logging.getLogger()
        self._answers: dict[str, int] = {}

    def RegisterQuery(self, salt: str) -> None:
        """Count the answers of this request. Raises ProgrammerError if that is done already."""
        if salt in self._answers:
            raise errors.ProgrammerError(f"The request {salt!r} is registered already")
        self._answers[salt] = 0

    def AllAnswered(self) -> bool:
        """Does every registered request that did not expire have an answer?"""
        return all(self._answers.values())

    def __call__(self, up: ConfdUpcallPayload) -> None:
        """Take an upcall, and pass it on."""
        if up.type == UPCALL_EXPIRE:
            self._answers.pop(up.salt, None)
        elif up.salt in self._answers:
            self._answers[up.salt] += 1
        self._callback(up)


class StoreResultCallback:
    """The end of a chain: keeps the last answer of each of the last requests."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, ConfdUpcallPayload] = OrderedDict()

    def GetResponse(self, salt: str) -> tuple[bool, ConfdUpcallPayload | None]:
        """(True, upcall) if there was an answer, else (False, None)."""
        found = self._answers.get(salt)
        return found is not None, found

    def __call__(self, up: ConfdUpcallPayload) -> None:
        """Take an upcall."""
        if up.type != UPCALL_REPLY:
            return
        self._answers[up.salt] = up
        self._answers.move_to_end(up.salt)
        while len(self._answers) > MAX_STORED:
            self._answers.popitem(last=False)


@dataclass(frozen=True)
class Answer:
    """What several candidates said to one request.

    @ivar reply: the newest answer; None if there was none
    @ivar server_ip: who gave it
    @ivar consistent: no two candidates contradicted each other at the same serial
    @ivar agreeing: how many gave the newest answer
    @ivar timed_out: fewer than enough answered
    """

    reply: objects.ConfdReply | None
    server_ip: str | None
    consistent: bool
    agreeing: int
    sent: int
    received: int
    timed_out: bool


def Ask(
    new_client: Callable[[Callback], ConfdClient],
    request: ConfdClientRequest,
    coverage: int = 0,
    timeout: float = 10,
    observers: Sequence[Callback] = (),
) -> Answer:
    """Ask and wait: the whole life of one request.

    @param new_client: makes the client for a callback, such as L{GetConfdClient}
    @param coverage: see SendRequest
    @param timeout: seconds to wait for enough answers
    @param observers: called with every upcall before it is filtered

    Raises: ConfdClientError; what C{new_client} raises.
    """
    news = ConfdFilterCallback(lambda up: None)

    def _Observe(up: ConfdUpcallPayload) -> None:
        for observer in observers:
            observer(up)
        news(up)

    client = new_client(_Observe)
    try:
        client.SendRequest(request, coverage=coverage, async_=False)
        timed_out, sent, received = client.WaitForReply(request.rsalt, timeout=timeout)
    finally:
        client.Close()
    best = news.GetBest(request.rsalt)
    return Answer(
        reply=best.server_reply if best else None,
        server_ip=best.server_ip if best else None,
        consistent=news.consistent.get(request.rsalt, True),
        agreeing=news.CountAgreeing(request.rsalt),
        sent=sent,
        received=received,
        timed_out=timed_out,
    )
