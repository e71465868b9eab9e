"""What a confd datagram looks like: four bytes of magic, then a signed JSON envelope.

The envelope holds the inner message as text, a salt and an HMAC over both (see L{serializer}). The
salt of a request is the client's clock, that of an answer the one the request asked for.
"""

from __future__ import annotations

import re
from typing import Any, Final

from .. import constants, errors, serializer

MAGIC: Final = constants.CONFD_MAGIC_FOURCC.encode("ascii")
_SALT_RE: Final = re.compile(r"-?[0-9]{1,20}\Z")


def PackMagic(payload: str | bytes) -> bytes:
    """The datagram of a payload."""
    return MAGIC + (payload.encode("utf-8") if isinstance(payload, str) else payload)


def UnpackMagic(datagram: bytes) -> bytes:
    """The payload of a datagram.

    Raises: ConfdMagicError if it does not start with the magic.
    """
    if not datagram.startswith(MAGIC):
        raise errors.ConfdMagicError(
            f"A datagram that starts with {datagram[: len(MAGIC)]!r} is none of confd's"
        )
    return datagram[len(MAGIC) :]


def Pack(message: dict[str, Any], key: bytes, salt: str) -> bytes:
    """The signed datagram of an inner message.

    @param key: whole content of the key file, its final newline included
    """
    return PackMagic(serializer.DumpSignedJson(message, key, salt))


def Unpack(datagram: bytes, key: bytes) -> tuple[dict[str, Any], str]:
    """Inner message and salt of a datagram whose signature is right.

    Raises: ConfdMagicError or SignatureError for anything else, whatever it is.
    """
    payload = UnpackMagic(datagram)
    try:
        message, salt = serializer.LoadSignedJson(payload, key)
    except ValueError as err:
        # Half a surrogate pair: JSON, but no text that could be signed.
        raise errors.SignatureError(f"Signed message with an impossible text: {err}") from err
    if not isinstance(message, dict):
        raise errors.SignatureError("The inner message is no dictionary")
    return message, salt


def IsRecent(salt: str, now: float) -> bool:
    """Is the salt of a request a time not too far from ours, in either direction?"""
    return (
        _SALT_RE.match(salt) is not None and abs(now - int(salt)) <= constants.CONFD_MAX_CLOCK_SKEW
    )
