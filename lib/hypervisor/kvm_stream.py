"""The connection that a KVM guest migrates through: where it goes, and who can read it.

Ports: C{migration_port} is where the target listens; if that is busy it takes the first free one of
the L{PORTS} from there on, and its answer says which.

The node daemon connects to the target and gives the connection to QEMU. A QEMU that connects by
itself stands still, and the guest with it, as long as the other end is silent in the TLS handshake;
and it would wait for a node that has lost its power until TCP gives up after a quarter of an hour.

The stream is encrypted. QEMU could use the cluster's certificate for that, but then the key that
makes a node a node would be in the hands of every QEMU process, also of those that run as another
user for fear of their guests. It gets a key (TLS-PSK) derived from that one, for one instance and
of no other use: both ends still prove that they belong to the cluster.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import shutil
import socket
import struct
from dataclasses import dataclass
from typing import Final

from .. import errors, runtime
from . import kvm_files
from .kvm_qmp import QmpClient, QmpCommandError

#: So many ports from migration_port on are tried.
PORTS: Final = 64
#: The target answers within that many seconds, first and later on.
_CONNECT_TIMEOUT: Final = 10.0
_UNACKNOWLEDGED_LIMIT: Final = 30.0
#: QEMU is blocked that long at most when it reads what is not there yet.
_READ_TIMEOUT: Final = 0.5

_TLS_ID: Final = "migration-tls"
#: Name of the key in QEMU's file. Fixed by QEMU for those who do not choose one.
_TLS_USER: Final = "qemu"
_TLS_FILE: Final = "keys.psk"
#: The fastest cipher with the hardware of today; left alone, GnuTLS takes one that is half as fast.
_TLS_PRIORITY: Final = "NORMAL:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305:+ECDHE-PSK:+DHE-PSK:+PSK"
#: Without them QEMU looks for new ones, a third of a second long: those of RFC 7919 (ffdhe2048).
_TLS_DH_FILE: Final = "dh-params.pem"
_TLS_DH: Final = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
#: Where QEMU sees the directory of the key when it is locked into another one.
_TLS_CHROOT_DIR: Final = "/tls"


# Addresses


def FormatEndpoint(address: str, port: int) -> str:
    """An address with a port: C{192.0.2.1:8102}, C{[2001:db8::1]:8102}."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ParseEndpoint(text: str, port: int) -> tuple[str, int]:
    """(address, port) of what L{FormatEndpoint} made, or of a mere address.

    @param port: the one to use if there is none in the text
    """
    match = re.fullmatch(r"\[(.+)\]:(\d+)|([^:]+):(\d+)", text)
    if match is None:
        return text, port
    address, number = (part for part in match.groups() if part is not None)
    return address, int(number)


def ConnectTo(address: str, port: int) -> socket.socket:
    """A connection for the stream.

    @raise errors.HypervisorError: nobody listens there
    """
    try:
        sock = socket.create_connection((address, port), _CONNECT_TIMEOUT)
    except OSError as err:
        raise errors.HypervisorError(
            f"Can't connect to {FormatEndpoint(address, port)}: {err}"
        ) from err
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limit = int(_UNACKNOWLEDGED_LIMIT * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
    # Also while there is nothing to send: when QEMU waits for the last word of the target.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(_CONNECT_TIMEOUT))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, int(_CONNECT_TIMEOUT / 2))
    # After that long it goes on with other work and comes back when there is something.
    timeval = struct.pack("ll", 0, int(_READ_TIMEOUT * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    return sock


# The key


def DeriveKey(pem: str, instance_name: str) -> str:
    """Key for the migration of one instance (hexadecimal), out of the cluster's certificate file.

    @raise errors.HypervisorError: there is no private key in it
    """
    match = re.search(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----", pem, re.DOTALL)
    if match is None:
        raise errors.HypervisorError("The cluster's certificate file has no private key")
    secret = "".join(match.group(2).split()).encode()
    return hmac.new(secret, f"kvm-migration {instance_name}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class KeyPlace:
    """Where a QEMU finds its key.

    @ivar directory: on the node
    @ivar seen_as: by QEMU
    @ivar uid: user that QEMU runs as
    """

    directory: str
    seen_as: str
    uid: int
    gid: int

    @staticmethod
    def Of(paths: kvm_files.Paths, pid: int) -> KeyPlace:
        """For a running process.

        @raise errors.HypervisorError: it does not run
        """
        try:
            info = os.stat(f"/proc/{pid}")
            root = os.readlink(f"/proc/{pid}/root")
            own_root = os.readlink("/proc/self/root")
        except OSError as err:
            raise errors.HypervisorError(f"QEMU (process {pid}) has ended: {err}") from err
        if root != own_root:
            return KeyPlace(root + _TLS_CHROOT_DIR, _TLS_CHROOT_DIR, info.st_uid, info.st_gid)
        return KeyPlace(paths.tls, paths.tls, info.st_uid, info.st_gid)

    def Write(self, rt: runtime.Runtime, key: str) -> None:
        """Make the key readable for that process, and for nobody else.

        @raise errors.HypervisorError: that failed
        """
        try:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.mkdir(self.directory, 0o700)
            os.chown(self.directory, self.uid, self.gid)
            if self.directory != self.seen_as and self.uid != os.geteuid():
                # So that it may pass; there is nothing else in it.
                os.chmod(os.path.dirname(self.directory), 0o711)
            for name, content in (
                (_TLS_FILE, f"{_TLS_USER}:{key}\n"),
                (_TLS_DH_FILE, _TLS_DH),
            ):
                rt.files.write(
                    f"{self.directory}/{name}",
                    content.encode(),
                    mode=0o600,
                    uid=self.uid,
                    gid=self.gid,
                    durable=False,
                )
        except OSError as err:
            raise errors.HypervisorError(f"Can't write the key of a migration: {err}") from err


def RemoveKey(paths: kvm_files.Paths) -> None:
    """Forget the key of an instance, wherever it is."""
    for directory in (paths.tls, paths.chroot + _TLS_CHROOT_DIR):
        shutil.rmtree(directory, ignore_errors=True)


def UseKey(qmp: QmpClient, place: KeyPlace, endpoint: str) -> None:
    """Let a QEMU use its key for migrations.

    @param endpoint: C{server} or C{client}
    """
    DropKey(qmp)
    arguments = {
        "qom-type": "tls-creds-psk",
        "id": _TLS_ID,
        "dir": place.seen_as,
        "endpoint": endpoint,
        "priority": _TLS_PRIORITY,
    }
    qmp.Execute("object-add", arguments)
    qmp.Execute("migrate-set-parameters", {"tls-creds": _TLS_ID})


def DropKey(qmp: QmpClient) -> None:
    """Let a QEMU forget its key."""
    # That there is none is the usual case.
    with contextlib.suppress(QmpCommandError):
        qmp.Execute("object-del", {"id": _TLS_ID})
