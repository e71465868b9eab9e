"""The LUXI protocol without its connections: errors, frames, messages.

A message is a JSON text followed by one byte 0x03. A request is C{{"method": name, "args": any but
null}}, an answer C{{"success": bool, "result": any}}. Requests on one connection are answered one
after another. Later versions add a key C{version} to requests, and expect job ids as integers then.

Nothing here does I/O; the client and the server's event loop both use it.
"""

from __future__ import annotations

from typing import Any, Final

from .. import constants, errors, ht, serializer

KEY_METHOD: Final = "method"
KEY_ARGS: Final = "args"
KEY_SUCCESS: Final = "success"
KEY_RESULT: Final = "result"
KEY_VERSION: Final = "version"

#: Bytes; no message of a cluster that works comes near.
MAX_MESSAGE_SIZE: Final = 256 * 1024 * 1024


class ProtocolError(errors.GenericError):
    """Something about the conversation with the master daemon went wrong."""


class ConnectionClosedError(ProtocolError):
    """The other side closed the connection."""


class TimeoutError(ProtocolError):  # noqa: A001 - the name is part of the interface
    """The other side did not answer, or take what it was sent, in time."""


class EncodingError(ProtocolError):
    """A message can not be sent as it is."""


class DecodingError(ProtocolError):
    """A message that came is not what it has to be."""


class RequestError(ProtocolError):
    """The request as such failed; the argument is what the server told instead of an error."""


class NoMasterError(ProtocolError):
    """There is no master daemon at the address (the argument)."""


class PermissionError(ProtocolError):  # noqa: A001 - as later versions have it
    """The user may not talk to the master daemon; the argument is the address."""


def EncodeFrame(text: str) -> bytes:
    """The bytes of one message.

    @raise EncodingError: the text holds the byte that ends a message
    """
    data = text.encode("utf-8")
    if constants.LUXI_EOM in data:
        raise EncodingError("A message must not hold the byte 0x03, which ends it")
    return data + constants.LUXI_EOM


class FrameBuffer:
    """Cuts what arrives into messages.

    Invariant: what is kept holds no end of a message, so the cost of a message is proportional to
    its length however it is cut into reads.
    """

    def __init__(self, max_size: int = MAX_MESSAGE_SIZE) -> None:
        """@param max_size: most bytes of one message"""
        self._max_size = max_size
        self._parts: list[bytes] = []
        self._size = 0

    def Feed(self, data: bytes) -> list[bytes]:
        """Take what was read; the messages that are complete now, in order.

        @raise DecodingError: a message is longer than allowed; the connection is of no use any more
        """
        *complete, rest = data.split(constants.LUXI_EOM)
        messages = []
        for piece in complete:
            self._Keep(piece)
            messages.append(b"".join(self._parts))
            self._parts = []
            self._size = 0
        self._Keep(rest)
        return messages

    def _Keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_size:
            raise DecodingError(f"A message has more than {self._max_size} bytes")
        if piece:
            self._parts.append(piece)

    def IsEmpty(self) -> bool:
        """Is there no part of a message waiting for its rest?"""
        return not self._parts


def FormatRequest(method: str, args: object, version: int | None = None) -> str:
    """The text of a request.

    @param args: anything but None; see L{methods} for what each method takes
    @param version: what clients of later versions name
    """
    request = {KEY_METHOD: method, KEY_ARGS: args}
    if version is not None:
        request[KEY_VERSION] = version
    return serializer.Dump(request)


class Request:
    """A request as it came.

    @ivar method: the name; of any type, as nobody checked it yet
    @ivar args: the arguments in any of the forms that clients use
    @ivar version: the version a client of a later version names, else None
    """

    __slots__ = ("args", "method", "version")

    def __init__(self, method: Any, args: Any, version: Any = None) -> None:
        self.method = method
        self.args = args
        self.version = version


def _LoadObject(text: str | bytes, what: str) -> dict[str, Any]:
    try:
        data = serializer.Load(text)
    except ValueError as err:
        raise ProtocolError(f"{what} is no JSON: {err}") from err
    if not isinstance(data, dict):
        raise DecodingError(f"{what} is no object but {ht.Show(data)}")
    return data


def ParseRequest(text: str | bytes) -> Request:
    """Take a request apart.

    @raise ProtocolError: it is no JSON
    @raise DecodingError: it is no object with method and arguments
    """
    data = _LoadObject(text, "The request")
    for key in (KEY_METHOD, KEY_ARGS):
        if data.get(key) is None:
            raise DecodingError(f"The request has no '{key}', which must be there and not null")
    return Request(data[KEY_METHOD], data[KEY_ARGS], data.get(KEY_VERSION))


def FormatResponse(success: bool, result: object) -> str:
    """The text of an answer."""
    return serializer.Dump({KEY_SUCCESS: success, KEY_RESULT: result}, indent=True)


def ParseResponse(text: str | bytes) -> tuple[bool, Any]:
    """Take an answer apart into success and result.

    @raise ProtocolError: it is no JSON
    @raise DecodingError: it is no object with both keys
    """
    data = _LoadObject(text, "The answer")
    if KEY_SUCCESS not in data or KEY_RESULT not in data:
        raise DecodingError(f"The answer lacks '{KEY_SUCCESS}' or '{KEY_RESULT}': {ht.Show(data)}")
    return bool(data[KEY_SUCCESS]), data[KEY_RESULT]


def EncodeError(err: BaseException) -> Any:
    """What an answer without success holds: class and arguments of an error that clients know by
    its name, a text for anything else."""
    if isinstance(err, ProtocolError):
        return errors.FormatError(err)
    if errors.GetErrorClass(err.__class__.__name__) is err.__class__:
        return errors.EncodeException(err)
    return f"Caught exception: {errors.FormatError(err)}"


def GetResult(text: str | bytes) -> Any:
    """The result that an answer holds.

    @raise errors.GenericError: the error, of its own class, that the server met
    @raise RequestError: the server says something else is wrong
    @raise ProtocolError: it is no answer
    """
    success, result = ParseResponse(text)
    if not success:
        errors.MaybeRaise(result)
        raise RequestError(result)
    return result
