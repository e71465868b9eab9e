"""The process that keeps a testbed: whatever happens, all of it ends with this one.

It is the first process of a PID namespace in which all nodes' processes are, and it holds the
network namespace of the switch and the file system of the nodes' files. So the kernel ends every
process and removes every device and mount as soon as it dies. Until C{up} says that all is well it
also dies with the caller: a testbed that was half made is not left behind, not even by a KILL.

usage: holder.py DIRECTORY SIZE-OF-FILES
"""

import os
import select
import signal
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from bed import layout, namespaces  # noqa: E402

_DNS_A = 1
_DNS_NO_SUCH_NAME = 3
_MAX_PACKET = 512
#: How often to see whether the testbed is still wanted (seconds).
_LOOK_AROUND = 3


def Answer(query, names):
    """The answer to a query to a name server, None if it is no query; pure."""
    try:
        ident, flags, questions = struct.unpack_from("!HHH", query)
        if flags & 0x8000 or questions != 1:
            return None
        labels = []
        position = 12
        while query[position]:
            end = position + 1 + query[position]
            labels.append(query[position + 1 : end].decode("ascii").lower())
            position = end
        position += 5
        kind = struct.unpack_from("!HH", query, position - 4)[0]
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    name = ".".join(labels)
    # Authoritative; recursion as asked for and available.
    flags = 0x8480 | (flags & 0x0100)
    address = names.get(name)
    if address is None:
        flags |= _DNS_NO_SUCH_NAME
    found = address is not None and kind == _DNS_A
    answer = struct.pack("!HHHHHH", ident, flags, 1, int(found), 0, 0) + query[12:position]
    if found:
        answer += struct.pack("!HHHIH", 0xC00C, _DNS_A, 1, 60, 4)
        answer += bytes(map(int, address.split(".")))
    return answer


def _MakeSwitch():
    lines = ["link set lo up"]
    for number, network in enumerate((layout.PRIMARY, layout.SECONDARY)):
        lines += [
            f"link add lan{number} type bridge forward_delay 0",
            f"link set lan{number} up",
            f"addr add {network}.{layout.SWITCH}/24 dev lan{number}",
        ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _Reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _Hold(directory, size):
    import socket

    # Everything but the way to say something.
    namespaces.MakePrivate()
    namespaces.Mount("proc", "/proc", "proc")
    nodes = os.path.join(directory, layout.NODES_DIR)
    namespaces.Mount("testbed", nodes, "tmpfs", data=f"size={size},mode=0755")
    _MakeSwitch()
    names = layout.Names()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((f"{layout.PRIMARY}.{layout.SWITCH}", 53))
    signal.signal(signal.SIGCHLD, _Reap)
    os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    watched = [server.fileno(), 0]
    state_file = os.path.join(directory, layout.STATE_FILE)
    while True:
        if 0 not in watched and not os.path.exists(state_file):
            # Somebody has removed the directory: nobody could find us any more.
            return
        for fd in select.select(watched, [], [], _LOOK_AROUND)[0]:
            if fd == server.fileno():
                query, client = server.recvfrom(_MAX_PACKET)
                answer = Answer(query, names)
                if answer is not None:
                    try:
                        server.sendto(answer, client)
                    except OSError:
                        # The client's cable is cut.
                        continue
            elif os.read(0, 10) == b"keep\n":
                watched.remove(0)
                os.dup2(null, 0)
                os.dup2(null, 2)
            else:
                # Who makes the testbed has gone.
                return


def Main():
    directory, size = sys.argv[1:]
    namespaces.Unshare(namespaces.ALL)
    pid = os.fork()
    if pid:
        # Known to the caller by this number; the child's own is 1.
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _Hold(directory, size)


if __name__ == "__main__":
    Main()
