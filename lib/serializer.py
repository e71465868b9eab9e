"""JSON as the suite writes it, and signed messages.

The only module that knows the JSON library. Two forms are written: compact (one line, C{", "} and
C{": "} between things) and indented by two blanks; both with sorted keys, without blanks at line
ends, and with a newline at the end. Equal content gives equal bytes.

Signed messages (confd) carry an inner message as text, a salt and an HMAC over both. The signature
is taken over the text as it stands; a receiver never serialises anything again to verify it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import simplejson

from . import errors

#: Keys of the envelope of a signed message.
_MSG: Final = "msg"
_SALT: Final = "salt"
_HMAC: Final = "hmac"
_KEY_SELECTOR: Final = "key_selector"

#: The key, or what finds it by the selector in the envelope (None: there is none such).
Key = bytes | str | Callable[[str], bytes | str | None]


def _EncodeOther(obj: object) -> Any:
    # Sets have no order of their own; without one equal content would differ in bytes.
    if isinstance(obj, (set, frozenset)):
        return sorted(obj, key=lambda item: (str(type(item)), item))
    raise TypeError(f"{type(obj).__name__} is nothing that JSON has")


# Made once, since making one costs more than a small message. What JSON does not have is refused:
# NaN would be a text that no other reader takes, bytes would be guessed at. A named tuple is a list
# like every tuple.
_STRICT: Final[dict[str, Any]] = {
    "sort_keys": True,
    "default": _EncodeOther,
    "allow_nan": False,
    "encoding": None,
    "namedtuple_as_object": False,
}
_COMPACT: Final = simplejson.JSONEncoder(**_STRICT)
_INDENTED: Final = simplejson.JSONEncoder(**_STRICT, indent="  ", separators=(",", ": "))


def _ParseFloat(text: str) -> float:
    value = float(text)
    if value in (_INFINITY, -_INFINITY):
        # Else it would be an infinity, which could be written nowhere any more
        raise ValueError(f"The number {text[:_SHOWN_DIGITS]} is too large")
    return value


_INFINITY: Final = float("inf")
#: Of a number that is too large.
_SHOWN_DIGITS: Final = 20
_DECODER: Final = simplejson.JSONDecoder(parse_float=_ParseFloat)


def Dump(obj: object, indent: bool = False) -> str:
    """The JSON text of an object, with a newline at the end.

    @param indent: over many lines, by two blanks, instead of on one line
    @raise TypeError: there is something in it that JSON does not have
    @raise ValueError: there is a number in it that JSON does not have
    """
    text: str = (_INDENTED if indent else _COMPACT).encode(obj)
    return text + "\n"


def Load(text: str | bytes) -> Any:
    """The object of a JSON text.

    @raise ValueError: it is no JSON, or not UTF-8, or holds a number beyond all that is written
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("The JSON text is nested too deeply") from None


def _KeyBytes(key: bytes | str) -> bytes:
    return key.encode("utf-8") if isinstance(key, str) else key


def Sha1Hmac(key: bytes | str, text: str, salt: str = "") -> str:
    """Lower-case hex HMAC-SHA1 over salt and text."""
    # A message from outside may hold half a surrogate pair; it has a digest like any other.
    data = (salt + text).encode("utf-8", "surrogatepass")
    # Imported late, here and below: a listing signs nothing.
    import hashlib
    import hmac

    return hmac.new(_KeyBytes(key), data, hashlib.sha1).hexdigest()


def VerifySha1Hmac(key: bytes | str, text: str, digest: str, salt: str = "") -> bool:
    """Is that the HMAC of salt and text? Takes the same time for every wrong answer."""
    expected = Sha1Hmac(key, text, salt)
    import hmac

    return hmac.compare_digest(expected.encode("ascii"), digest.lower().encode("utf-8", "replace"))


def DumpSigned(data: object, key: bytes | str, salt: str = "", key_selector: str = "") -> str:
    """A signed message.

    @param data: inner message, anything that JSON has
    @param key: the whole content of the key file, its final newline included
    @param salt: request: Unix time in decimal; answer: the salt that the request asked for
    @param key_selector: name of the key, for receivers that have several; confd has one
    """
    msg = Dump(data)
    envelope = {_MSG: msg, _SALT: salt, _HMAC: Sha1Hmac(key, msg, salt + key_selector)}
    if key_selector:
        envelope[_KEY_SELECTOR] = key_selector
    return Dump(envelope)


def _EnvelopeText(envelope: dict[str, Any], name: str, default: str | None = None) -> str:
    value = envelope.get(name, default)
    if not isinstance(value, str):
        raise errors.SignatureError(f"Signed message without a text '{name}'")
    return value


def LoadSigned(
    text: str | bytes,
    key: Key,
    salt_verifier: Callable[[str], bool] | Collection[str] | None = None,
) -> tuple[Any, str]:
    """Take a signed message apart if its signature is right.

    @param key: one key, which honours no selector, or a function from selector to key
    @param salt_verifier: if given, the salts that are accepted, or a function that says so
    @return: inner message and salt
    @raise errors.SignatureError: broken, wrongly signed, or with a salt that is not accepted
    """
    try:
        envelope = Load(text)
    except ValueError as err:
        raise errors.SignatureError(f"Signed message is no JSON: {err}") from err
    if not isinstance(envelope, dict):
        raise errors.SignatureError("Signed message is no dictionary")
    msg = _EnvelopeText(envelope, _MSG)
    salt = _EnvelopeText(envelope, _SALT)
    digest = _EnvelopeText(envelope, _HMAC)

    selector = ""
    found: bytes | str | None
    if callable(key):
        selector = _EnvelopeText(envelope, _KEY_SELECTOR, "")
        found = key(selector)
        if found is None:
            raise errors.SignatureError(f"There is no key with the name {selector!r}")
    else:
        found = key
    if not VerifySha1Hmac(found, msg, digest, salt + selector):
        raise errors.SignatureError("Signed message has a wrong signature")

    if salt_verifier is not None:
        accepted = salt_verifier(salt) if callable(salt_verifier) else salt in salt_verifier
        if not accepted:
            raise errors.SignatureError(f"Signed message has the salt {salt!r}, which is not valid")
    try:
        return Load(msg), salt
    except ValueError as err:
        raise errors.SignatureError(f"Content of the signed message is no JSON: {err}") from err


# The longer names are those of the 2.1 interface.
DumpJson: Final = Dump
LoadJson: Final = Load
DumpSignedJson: Final = DumpSigned
LoadSignedJson: Final = LoadSigned
