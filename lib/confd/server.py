"""From a request to an answer, without a socket.

Silence is part of the protocol: whoever can not prove to have the key, or to ask now, gets no
answer at all, so that the daemon neither helps a scan nor amplifies a flood.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from .. import constants, errors, objects, ssconf
from ..runtime import DEFAULT, Runtime
from . import protocol, querylib

_REQUIRED_TYPES: Final = {"protocol": int, "type": int, "rsalt": str}


class ConfdProcessor:
    """Answers requests while there is a configuration; says nothing while there is none.

    One thread only.

    @param hmac_key: whole content of the key file, its final newline included
    @param cfg_file: the configuration; None = the usual place
    @ivar reader: the configuration; None while disabled
    """

    def __init__(
        self, hmac_key: bytes, cfg_file: str | None = None, runtime: Runtime = DEFAULT
    ) -> None:
        self._rt = runtime
        self._hmac_key = hmac_key
        self._new_reader: Callable[[], ssconf.SimpleConfigReader] = lambda: (
            ssconf.SimpleConfigReader(cfg_file, runtime=runtime)
        )
        self.reader: ssconf.SimpleConfigReader | None = None
        self._answered = 0
        self._refused = 0

    @property
    def enabled(self) -> bool:
        """Is there a configuration to answer from?"""
        return self.reader is not None

    def Enable(self) -> None:
        """Read the configuration and answer from now on.

        Raises: ConfigurationError, and stays as it was, if it can not be read.
        """
        self.reader = self._new_reader()

    def Disable(self) -> None:
        """Answer nothing from now on: better no answer than a stale one."""
        self.reader = None

    def Reload(self) -> bool:
        """Read the configuration again if its file changed.

        @return: whether it was read
        Raises: ConfigurationError if it can not be read.
        """
        if self.reader is None:
            raise errors.ProgrammerError("Reload of a confd that is disabled")
        return self.reader.Reload()

    def GetStatistics(self) -> dict[str, int]:
        """Requests answered and refused so far, and the serial number answers carry now."""
        return {
            "answered": self._answered,
            "refused": self._refused,
            "serial": self.reader.GetConfigSerialNo() if self.reader else 0,
        }

    def ExecQuery(self, payload_in: bytes, ip: str, port: int) -> bytes | None:
        """The datagram that answers a datagram, None if it deserves none.

        @param ip: sender's address, for the log
        """
        reader = self.reader
        if reader is None:
            self._refused += 1
            return None
        try:
            request = self._ExtractRequest(payload_in)
        except (
            errors.ConfdMagicError,
            errors.SignatureError,
            errors.ConfdRequestError,
        ) as err:
            self._refused += 1
            logging.debug("Ignoring a datagram from %s:%d: %s", ip, port, errors.FormatError(err))
            return None
        self._answered += 1
        return self._PackReply(self._ProcessRequest(reader, request), request.rsalt, ip)

    def _ExtractRequest(self, payload: bytes) -> objects.ConfdRequest:
        message, salt = protocol.Unpack(payload, self._hmac_key)
        if not protocol.IsRecent(salt, self._rt.clock.time()):
            raise errors.ConfdRequestError(f"The salt {salt!r} is no time near ours")
        return ParseRequest(message)

    @staticmethod
    def _ProcessRequest(
        reader: ssconf.SimpleConfigReader, request: objects.ConfdRequest
    ) -> dict[str, Any]:
        result = querylib.QUERIES[request.type](reader).Exec(request.query)
        return objects.ConfdReply(
            protocol=constants.CONFD_PROTOCOL_VERSION,
            status=result.status,
            answer=result.answer,
            serial=reader.GetConfigSerialNo(),
        ).ToDict()

    def _PackReply(self, reply: dict[str, Any], rsalt: str, ip: str) -> bytes:
        datagram = protocol.Pack(reply, self._hmac_key, rsalt)
        if len(datagram) <= constants.MAX_UDP_DATA_SIZE:
            return datagram
        logging.error(
            "The answer to %s has %d bytes, more than the %d a datagram may have; sending an error",
            ip,
            len(datagram),
            constants.MAX_UDP_DATA_SIZE,
        )
        reply.update(
            status=constants.CONFD_REPL_STATUS_ERROR, answer=constants.CONFD_ERROR_INTERNAL
        )
        return protocol.Pack(reply, self._hmac_key, rsalt)


def ParseRequest(message: dict[str, Any]) -> objects.ConfdRequest:
    """The request an inner message stands for; keys of newer clients are ignored.

    Raises: ConfdRequestError if it is none of this protocol, or of no known type.
    """
    for key, kind in _REQUIRED_TYPES.items():
        value = message.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise errors.ConfdRequestError(f"Request with {key}={value!r}")
    if message["protocol"] != constants.CONFD_PROTOCOL_VERSION:
        raise errors.ConfdRequestError(f"Request of protocol {message['protocol']}")
    if message["type"] not in querylib.QUERIES:
        raise errors.ConfdRequestError(f"Request of unknown type {message['type']}")
    if not message["rsalt"]:
        raise errors.ConfdRequestError("Request without a salt for the answer")
    return objects.ConfdRequest(
        protocol=message["protocol"],
        type=message["type"],
        query=message.get("query"),
        rsalt=message["rsalt"],
    )
