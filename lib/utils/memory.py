"""Locking the memory of a process, so that it works on when the disk is gone.

Design: "Node daemon availability" of 2.1.
"""

import logging
import os
import resource
from typing import Final

from .. import errors
from . import io

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
#: Bit number of the capability to lock any amount of memory.
_CAP_IPC_LOCK: Final = 14


def Mlockall(onfault: bool = False) -> bool:
    """Lock the memory of this process, now and in future (not that of its children).

    Arguments: onfault = lock pages when they are first used instead of all at once.

    Returns: whether it worked; failure is logged, since the process works without, only less
    surely when the disk is gone.

    Raises: NoCtypesError if the C library can't be called.
    """
    try:
        import ctypes

        libc = ctypes.CDLL("libc.so.6", use_errno=True)
    except (ImportError, OSError) as err:
        raise errors.NoCtypesError(
            f"Can't lock memory, the C library can't be called: {err}"
        ) from err
    if not _LiftMemlockLimit():
        # Under a limit the lock might succeed, and later allocations fail.
        logging.warning("Not locking memory: the limit (ulimit -l) is finite and can't be lifted")
        return False
    flags = MCL_CURRENT | MCL_FUTURE | (MCL_ONFAULT if onfault else 0)
    if libc.mlockall(flags) != 0:
        logging.error("Can't lock memory (mlockall): %s", os.strerror(ctypes.get_errno()))
        return False
    logging.debug("Memory is locked (mlockall flags %s)", flags)
    return True


def _LiftMemlockLimit() -> bool:
    """Whether there is no limit for locked memory (any more)."""
    # The capability comes with root's rights and makes the kernel ignore the limit.
    if GetEffectiveCapabilities() & 1 << _CAP_IPC_LOCK:
        return True
    infinity = resource.RLIM_INFINITY
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == infinity:
        return True
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (infinity, infinity))
    except (OSError, ValueError):
        return False
    return True


def GetEffectiveCapabilities() -> int:
    """Bit mask of this process's capabilities (capabilities(7)); 0 if it can't be found out."""
    try:
        status = io.ReadFile("/proc/self/status")
    except OSError:
        return 0
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0
