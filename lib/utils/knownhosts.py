"""What known_hosts files say of a host's key; pure.

Names, patterns, hashed names and revoked keys mean what they mean to the OpenSSH client.
Authorities are passed over: a host key that only a certificate vouches for is an unknown one.
"""

from __future__ import annotations

import base64
import binascii
import enum
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_REVOKED: Final = "@revoked"


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A host key that somebody wrote down.

    @ivar key_type: as in the files, e.g. C{ssh-ed25519}
    @ivar blob: the public key as it goes over the wire
    @ivar file_name: where it is written
    @ivar line: the number of its line there
    """

    key_type: str
    blob: bytes
    revoked: bool
    file_name: str
    line: int


class Verdict(enum.Enum):
    """What a host key is in the light of those that are known for the host."""

    KNOWN = "known"
    #: Nothing is known of the host.
    UNKNOWN = "unknown"
    #: Keys of other types are known, none of this one.
    OTHER_TYPES = "other types"
    #: Another key of the same type is known.
    CHANGED = "changed"
    REVOKED = "revoked"


def FindKeys(content: str, host: str, file_name: str) -> Iterator[KnownKey]:
    """The keys that a known_hosts file has for a host.

    Lines that make no sense are passed over, as the SSH client does.

    @param host: name or address, in lower case
    @param file_name: where the content is from
    """
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else None
        if marker not in (None, _REVOKED) or len(words) < 3 or not _Matches(words[0], host):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue
        yield KnownKey(words[1], blob, marker == _REVOKED, file_name, number)


def _Matches(names: str, host: str) -> bool:
    if names.startswith("|"):
        return _MatchesHash(names, host)
    found = False
    for pattern in names.lower().split(","):
        # Brackets stand for themselves there.
        if fnmatch.fnmatchcase(host, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _MatchesHash(name: str, host: str) -> bool:
    try:
        empty, kind, salt, digest = name.split("|")
        if (empty, kind) != ("", "1"):
            return False
        expected = base64.b64decode(digest, validate=True)
        found = hmac.digest(base64.b64decode(salt, validate=True), host.encode(), hashlib.sha1)
    except ValueError:
        return False
    return hmac.compare_digest(found, expected)


def Judge(known: Iterable[KnownKey], key_type: str, blob: bytes) -> tuple[Verdict, KnownKey | None]:
    """Judge the key that a host shows.

    @param known: what is known for this host
    @return: the verdict, and the known key that it rests on, if any
    """
    known = list(known)
    for key in known:
        if key.revoked and key.blob == blob:
            return Verdict.REVOKED, key
    trusted = [key for key in known if not key.revoked]
    for key in trusted:
        if key.blob == blob:
            return Verdict.KNOWN, key
    for key in trusted:
        if key.key_type == key_type:
            return Verdict.CHANGED, key
    return (Verdict.OTHER_TYPES, trusted[0]) if trusted else (Verdict.UNKNOWN, None)


def Fingerprint(blob: bytes) -> str:
    """A key's fingerprint as OpenSSH shows it: C{SHA256:...}."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    return f"SHA256:{digest.rstrip('=')}"


def ShortType(key_type: str) -> str:
    """What people call a type of keys: C{ED25519}, C{ECDSA}, C{RSA}."""
    words = key_type.removeprefix("sk-").split("@")[0].upper().split("-")
    return words[1] if words[0] == "SSH" and len(words) > 1 else words[0]
