"""A small client of VNC (RFB 3.8): enough to see who is let in."""

import socket
import ssl
import struct

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

NONE, PASSWORD, VENCRYPT = 1, 2, 19
#: Kinds of VeNCrypt: who is the server, then who is the client.
TLS_NONE, TLS_PASSWORD, X509_NONE, X509_PASSWORD = 257, 258, 260, 261


def DesAnswer(challenge, password):
    """The challenge encrypted with the first eight characters, whose bits RFB turns round."""
    key = password.encode()[:8].ljust(8, b"\0")
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in key)
    # Three times the same key is plain DES.
    encryptor = Cipher(TripleDES(key * 3), modes.ECB()).encryptor()
    return encryptor.update(challenge) + encryptor.finalize()


class Refused(Exception):
    """The server does not let this client in."""


class Client:
    """A session up to the server's word whether it lets us in."""

    def __init__(self, address):
        """Connect to (host, port) or to the path of a socket."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._sock = socket.socket(family)
        self._sock.settimeout(20)
        self._sock.connect(address)
        assert self._Read(12) == b"RFB 003.008\n"
        self._sock.sendall(b"RFB 003.008\n")
        #: What the server offers.
        self.types = list(self._Read(self._Read(1)[0]))

    def _Read(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self._sock.recv(count - len(data))
            except (ConnectionError, ssl.SSLError) as err:
                raise Refused(str(err)) from err
            if not more:
                raise Refused("the connection was closed")
            data += more
        return data

    def Plain(self, password=None):
        """Log in without encryption."""
        self._sock.sendall(bytes([NONE if password is None else PASSWORD]))
        return self._Finish(password)

    def VeNCrypt(self, kind, context, host=None, password=None):
        """Log in through TLS.

        @return: what L{Plain} does; C{kinds} are what the server offers
        """
        self._sock.sendall(bytes([VENCRYPT]))
        assert self._Read(2) == b"\0\2"
        self._sock.sendall(b"\0\2")
        assert self._Read(1) == b"\0"
        count = self._Read(1)[0]
        self.kinds = list(struct.unpack(f">{count}I", self._Read(4 * count)))
        self._sock.sendall(struct.pack(">I", kind))
        if self._Read(1) != b"\1":
            raise Refused(f"kind {kind}")
        try:
            self._sock = context.wrap_socket(self._sock, server_hostname=host)
        except (OSError, ssl.SSLError) as err:
            raise Refused(f"TLS: {err}") from err
        return self._Finish(password)

    def _Finish(self, password):
        """The name of the screen: we are in."""
        if password is not None:
            self._sock.sendall(DesAnswer(self._Read(16), password))
        if self._Read(4) != b"\0\0\0\0":
            (length,) = struct.unpack(">I", self._Read(4))
            raise Refused(self._Read(length).decode())
        self._sock.sendall(b"\1")
        (length,) = struct.unpack(">I", self._Read(24)[20:])
        return self._Read(length).decode()

    def Close(self):
        self._sock.close()
