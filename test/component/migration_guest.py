"""Guests for tests of migration that boot from one sector and count on the serial line."""

import contextlib
import re
import socket
import threading
import time
from pathlib import Path

#: Real time that a step may take under TCG on a busy machine (seconds).
PATIENCE = 60

# In 16-bit mode: count in EBX, at each tick of the timer (18 a second).
_START = bytes.fromhex("31c0 8ed8 8ed0 bc007c 6631db".replace(" ", ""))
_COUNT = bytes.fromhex("6643")
#: Fill 32 MiB with the number, so that memory changes faster than it is sent. In 16-bit mode that
#: far only without KVM, which has limits of segments.
_DIRTY = bytes.fromhex("31c0 8ec0 66bf00002000 66b900008000 6689d8 f36766ab".replace(" ", ""))
#: Eight letters from A to P for its digits.
_DIGIT = bytes.fromhex("66c1c304 88d8 240f 0441".replace(" ", ""))
_PUT = bytes.fromhex("88c4 bafd03 ec a820 74f8 88e0 baf803 ee c3".replace(" ", ""))


def BootSector(dirty=False, idle=True):
    """A sector that makes the machine count.

    @param idle: wait for the timer's next tick; else a letter comes each millisecond
    """
    code = bytearray(_START)
    loop = len(code)
    code += _COUNT
    if dirty:
        code += _DIRTY
    code += bytes.fromhex("b90800")  # mov cx,8
    digit = len(code)
    code += _DIGIT
    calls = [len(code)]
    code += bytes(3)
    code += bytes([0xE2, (digit - len(code) - 2) & 0xFF])  # loop digit
    code += bytes([0xB0, 0x0A])  # mov al,10
    calls.append(len(code))
    code += bytes(3)
    if idle and not dirty:
        code += bytes([0xFB, 0xF4])  # sti; hlt
    code += bytes([0xEB, (loop - len(code) - 2) & 0xFF])  # jmp loop
    put = len(code)
    code += _PUT
    for position in calls:
        code[position] = 0xE8
        code[position + 1 : position + 3] = ((put - position - 3) & 0xFFFF).to_bytes(2, "little")
    return bytes(code).ljust(510, b"\0") + b"\x55\xaa"


def ParseCount(line):
    """The number out of a line of the guest."""
    value = 0
    for letter in line:
        value = value * 16 + "ABCDEFGHIJKLMNOP".index(letter)
    return value


class Line:
    """The serial line of a guest, read in the background from the moment of connecting."""

    def __init__(self, path):
        self._sock = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._sock.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._text = b""
        #: When each piece came.
        self.times = []
        self.ended = False
        self._thread = threading.Thread(target=self._Read, daemon=True)
        self._thread.start()

    def _Read(self):
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self.ended = True
                return
            self.times.append(time.monotonic())
            self._text += data

    @property
    def text(self):
        return self._text.decode("utf-8", "replace")

    def Counts(self):
        """The numbers so far, of whole lines."""
        lines = self.text.split("\n")[:-1]
        return [ParseCount(line) for line in lines if len(line) == 8 and line.isupper()]

    def WaitForCounts(self, number):
        WaitUntil(lambda: len(self.Counts()) >= number, lambda: f"counts: {self.text[-200:]!r}")
        return self.Counts()

    def WaitFor(self, marker):
        """Wait for a text; the rest of its line."""
        WaitUntil(
            lambda: "\n" in self.text.partition(marker)[2],
            lambda: f"{marker!r} in {self.text[-500:]!r}",
        )
        return self.text.partition(marker)[2].splitlines()[0]

    def WaitForMatch(self, pattern):
        """Wait for text that matches; the match."""
        WaitUntil(
            lambda: re.search(pattern, self.text),
            lambda: f"{pattern!r} in {self.text[-500:]!r}",
        )
        return re.search(pattern, self.text)

    def Send(self, text):
        self._sock.sendall(text.encode())

    def Close(self):
        # A thread that waits in recv keeps the socket open.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()


def WaitUntil(condition, describe, patience=PATIENCE):
    """Wait until something is true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience} seconds: {describe()}")
        time.sleep(0.02)


def MakeDisk(path, dirty=False, size=2**20, idle=True):
    """A disk that counts."""
    with open(path, "wb") as fobj:
        fobj.write(BootSector(dirty, idle))
        fobj.truncate(size)
    return str(path)


def ProcessExists(pid):
    """Does a process live? One that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
