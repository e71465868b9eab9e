"""Users of the API: the users file, passwords, HTTP Basic authentication.

One user a line: name, password, options with commas between. A password is one of

- plain text that does not start with C{{}, or C{{CLEARTEXT}text};
- C{{HA1}hex}: MD5 of C{name:Ganeti Remote API:password}, as web servers' digest files have it;
- C{{SCRYPT}n$r$p$salt$hash}: salt and hash in base64; such a line is made by
  C{python3 -m ganeti.rapi.auth NAME}.

The file is read again whenever it changed. One that everybody may read is refused as a whole: it
is better that nobody can log in than that everybody could.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .. import pathutils, runtime

#: What a browser shows when it asks for a password; part of C{HA1} hashes.
REALM: Final = "Ganeti Remote API"
#: Where later versions keep their users.
LATER_USERS_FILE: Final = pathutils.DATA_DIR + "/rapi/users"

_SCHEME_CLEARTEXT: Final = "{CLEARTEXT}"
_SCHEME_HA1: Final = "{HA1}"
_SCHEME_SCRYPT: Final = "{SCRYPT}"

# Costs of new scrypt hashes: about 50 ms and 16 MiB.
_SCRYPT_N: Final = 2**14
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
#: Bytes that checking one password may take at the most.
_SCRYPT_MAX_MEMORY: Final = 256 * 2**20
_HASH_BYTES: Final = 32


@dataclass(frozen=True)
class User:
    """One line of the users file."""

    name: str
    password: str
    options: frozenset[str]


def ParseUsers(text: str) -> dict[str, User]:
    """The users of a file by name; lines without a password are left out, a later line counts."""
    users = {}
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        parts = line.split(None, 2)
        if len(parts) < 2:
            continue
        options = parts[2].split(",") if len(parts) > 2 else []
        words = frozenset(word.strip() for word in options if word.strip())
        users[parts[0]] = User(parts[0], parts[1], words)
    return users


def _SplitScheme(password: str) -> tuple[str, str]:
    """Scheme in capitals and value; the scheme is empty for plain text, C{?} if it is broken."""
    if not password.startswith("{"):
        return "", password
    scheme, brace, value = password.partition("}")
    if not brace:
        return "?", ""
    return scheme.upper() + "}", value


def _Equal(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode("utf-8"), second.encode("utf-8"))


def _Scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=_SCRYPT_MAX_MEMORY,
        dklen=_HASH_BYTES,
    )


def HashPassword(password: str, rt: runtime.Runtime = runtime.DEFAULT) -> str:
    """A password as the users file should have it."""
    salt = bytes.fromhex(rt.random.token_hex(16))
    digest = _Scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    values = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return f"{_SCHEME_SCRYPT}{_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${'$'.join(values)}"


def _CheckScrypt(value: str, password: str) -> bool:
    try:
        n, r, p, salt, expected = value.split("$")
        digest = _Scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        return hmac.compare_digest(digest, base64.b64decode(expected))
    except (ValueError, binascii.Error):
        return False


def VerifyPassword(user: User, password: str) -> bool:
    """Is this the user's password? In the same time for every wrong one of a scheme."""
    scheme, value = _SplitScheme(user.password)
    if scheme in ("", _SCHEME_CLEARTEXT):
        return _Equal(value, password)
    if scheme == _SCHEME_HA1:
        text = f"{user.name}:{REALM}:{password}".encode()
        digest = hashlib.md5(text, usedforsecurity=False).hexdigest()
        return _Equal(value.lower(), digest)
    if scheme == _SCHEME_SCRYPT:
        return _CheckScrypt(value, password)
    logging.warning(
        "User %s can't log in: the scheme of the password in the users file is unknown", user.name
    )
    return False


class BadAuthorization(Exception):  # noqa: N818 - says what the header is
    """An Authorization header that is not even wrong."""


def ParseBasic(header: str) -> tuple[str, str] | None:
    """User and password of an Authorization header; None if they can't be read from it.

    @raise BadAuthorization: scheme Basic without a value
    """
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() != "basic":
        return None
    if not value:
        raise BadAuthorization("The Authorization header has no credentials")
    try:
        text = base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


class UsersFile:
    """The users, as of now.

    C{_lock} guards all fields. Expensive checks that succeeded are remembered, by a keyed hash of
    name, password and line, until the file changes.
    """

    def __init__(
        self,
        paths: Sequence[str] = (pathutils.RAPI_USERS_FILE, LATER_USERS_FILE),
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        """Nothing is read yet.

        @param paths: the first one that exists counts
        """
        self._paths = paths
        self._rt = rt
        self._lock = rt.threads.Lock()
        self._users: Mapping[str, User] = {}
        self._version: object = None
        self._remembered: set[bytes] = set()
        self._key = bytes.fromhex(rt.random.token_hex(32))

    def _Load(self) -> Mapping[str, User]:
        """The users, read again if the file is another one than last time."""
        for path in self._paths:
            try:
                found = self._rt.files.stat(path)
            except OSError:
                continue
            version = (path, found)
            if version != self._version:
                self._users = self._Read(path, found.mode)
                self._version = version
                self._remembered.clear()
            return self._users
        self._users, self._version = {}, None
        self._remembered.clear()
        return self._users

    def _Read(self, path: str, mode: int) -> Mapping[str, User]:
        if mode & stat.S_IROTH:
            logging.error(
                "Everybody may read the users file %s: nobody can log in until 'chmod 600 %s'",
                path,
                path,
            )
            return {}
        try:
            users = ParseUsers(self._rt.files.read(path).decode("utf-8"))
        except (OSError, UnicodeDecodeError) as err:
            logging.error("The users file %s can't be read, nobody can log in: %s", path, err)
            return {}
        logging.info("Read %d users from %s", len(users), path)
        return users

    def Authenticate(self, name: str, password: str) -> User | None:
        """The user of that name if the password is right."""
        with self._lock:
            user = self._Load().get(name)
            if user is None:
                return None
            text = f"{name}\0{password}\0{user.password}".encode()
            mark = hmac.digest(self._key, text, "sha256")
            if mark in self._remembered:
                return user
        # Not under the lock: it may take its time
        if not VerifyPassword(user, password):
            return None
        with self._lock:
            # The file may have changed meanwhile
            if self._users.get(name) == user:
                self._remembered.add(mark)
        return user


def Main(argv: Sequence[str] | None = None) -> int:
    """Ask for a password, print the line of the users file."""
    import argparse
    import getpass

    parser = argparse.ArgumentParser(description="Print a line for the RAPI users file.")
    parser.add_argument("name", help="name of the user")
    parser.add_argument(
        "options", nargs="?", default="", help="what the user may: read, write or read,write"
    )
    options = parser.parse_args(argv)
    password = getpass.getpass(f"Password of {options.name}: ")
    print(f"{options.name} {HashPassword(password)} {options.options}".rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(Main())
