"""The system calls that Python 3.11 has no functions for."""

import ctypes
import os

NEWNS = 0x00020000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWPID = 0x20000000
NEWNET = 0x40000000
ALL = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _Check(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _Bytes(text):
    return None if text is None else os.fsencode(text)


def Unshare(flags):
    """Leave namespaces for new ones; a new PID namespace is that of the children to come."""
    _Check(_libc.unshare(flags), "unshare")


def Enter(pid, *kinds):
    """Enter namespaces of a process (as the names in /proc/PID/ns); of "pid" the children."""
    fds = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
    for kind, fd in zip(kinds, fds, strict=True):
        _Check(_libc.setns(fd, 0), f"setns {kind}")
        os.close(fd)


def Mount(source, target, kind=None, flags=0, data=None):
    """mount(2)."""
    result = _libc.mount(
        _Bytes(source), _Bytes(target), _Bytes(kind), ctypes.c_ulong(flags), _Bytes(data)
    )
    _Check(result, f"mount {source or kind} on {target}")


def Bind(source, target, read_only=False):
    """Show a file or directory in another place too, without what is mounted below it."""
    Mount(source, target, flags=MS_BIND)
    if read_only:
        Mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def MakePrivate():
    """What is mounted from here on stays in this mount namespace."""
    Mount(None, "/", flags=MS_REC | MS_PRIVATE)


def Detach(target):
    """Unmount a tree as soon as nobody uses it."""
    _Check(_libc.umount2(_Bytes(target), MNT_DETACH), f"umount {target}")
