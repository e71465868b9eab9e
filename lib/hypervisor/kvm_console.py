"""Connect a terminal to the serial console of an instance: kvm_console.py SOCKET.

For nodes without socat. Ctrl-] leaves the console, as with socat. Runs as a script by its path, so
it imports nothing but Python's own library.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator

#: Ctrl-]
ESCAPE = b"\x1d"
#: How long to wait for further output after the end of input (seconds), as socat does.
_LINGER = 0.5
_CHUNK = 4096


@contextlib.contextmanager
def _RawTerminal(fd: int) -> Iterator[None]:
    """Pass every key on as it is; the terminal's settings come back at the end."""
    if not os.isatty(fd):
        yield
        return
    saved = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)


def _WriteAll(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def Relay(console: socket.socket, stdin: int, stdout: int, escape: bytes = ESCAPE) -> None:
    """Copy both ways until the console closes, input ends or the escape character is typed."""
    inputs: list[int] = [console.fileno(), stdin]
    while True:
        timeout = None if stdin in inputs else _LINGER
        ready, _, _ = select.select(inputs, [], [], timeout)
        if not ready:
            return
        if console.fileno() in ready:
            data = console.recv(_CHUNK)
            if not data:
                return
            _WriteAll(stdout, data)
        if stdin in ready:
            data = os.read(stdin, _CHUNK)
            typed, found, _ = data.partition(escape)
            console.sendall(typed)
            if found:
                return
            if not data:
                inputs.remove(stdin)


def Main(argv: list[str]) -> int:
    """Run; the exit code is 1 if the console can not be reached."""
    if len(argv) != 2:
        sys.stderr.write("Usage: kvm_console.py SOCKET\n")
        return 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        try:
            console.connect(argv[1])
        except OSError as err:
            sys.stderr.write(f"Can't connect to the console {argv[1]}: {err}\n")
            return 1
        stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
        if os.isatty(stdin):
            sys.stderr.write("Connected; Ctrl-] leaves the console.\n")
        with _RawTerminal(stdin), contextlib.suppress(ConnectionError):
            Relay(console, stdin, stdout)
    if os.isatty(stdin):
        sys.stderr.write("\nDisconnected.\n")
    return 0


if __name__ == "__main__":
    sys.exit(Main(sys.argv))
