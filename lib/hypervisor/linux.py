"""What hypervisors on a plain Linux host share: facts about the node, and restarting it at once."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

from .. import errors
from ..utils import process

NodeInfo = dict[str, int]

_SYSRQ_TRIGGER: Final = "/proc/sysrq-trigger"
#: C{RB_AUTOBOOT} of reboot(2) in the C library.
_RB_AUTOBOOT: Final = 0x01234567
#: C{PROC_PID_INIT_INO} of the kernel.
_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC


def ParseMemInfo(text: str) -> NodeInfo:
    """Memory of a node in MiB from the text of C{/proc/meminfo}.

    @return: memory_total, memory_free (what new programs could have), memory_dom0 (in active use)
    @raise errors.HypervisorError: a line that is needed is missing or no number of kB
    """
    kib: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields = value.split()
        if len(fields) == 2 and fields[1] == "kB" and fields[0].isdigit():
            kib[name] = int(fields[0])
    try:
        total, active = kib["MemTotal"] // 1024, kib["Active"] // 1024
        # Kernels before 3.14 do not say what is available; this sum is what came nearest.
        free = (
            kib["MemAvailable"] // 1024
            if "MemAvailable" in kib
            else sum(kib[name] // 1024 for name in ("MemFree", "Buffers", "Cached"))
        )
    except KeyError as err:
        raise errors.HypervisorError(f"Can't find {err} in /proc/meminfo") from None
    return {"memory_total": total, "memory_free": free, "memory_dom0": active}


def ParseCpuInfo(text: str, numa_nodes: int) -> NodeInfo:
    """Processors of a node from the text of C{/proc/cpuinfo}.

    @param numa_nodes: NUMA nodes as sysfs shows them; 0 if it shows none
    @return: cpu_total, cpu_nodes, cpu_sockets
    """
    total, sockets = 0, set()
    for line in text.splitlines():
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            continue
        if name == "processor" and value.isdigit():
            total += 1
        elif name == "physical id":
            sockets.add(value)
    return {
        "cpu_total": total,
        "cpu_nodes": max(numa_nodes, 1),
        "cpu_sockets": max(len(sockets), 1),
    }


def GetNodeInfo(proc: str = "/proc", sysfs: str = "/sys") -> NodeInfo:
    """Memory (MiB) and processors of this node.

    @raise errors.HypervisorError: /proc can not be read or is not as expected
    """
    try:
        with open(f"{proc}/meminfo", encoding="ascii", errors="replace") as fobj:
            info = ParseMemInfo(fobj.read())
        with open(f"{proc}/cpuinfo", encoding="ascii", errors="replace") as fobj:
            info.update(ParseCpuInfo(fobj.read(), _CountNumaNodes(sysfs)))
    except OSError as err:
        raise errors.HypervisorError(f"Can't read facts about this node: {err}") from err
    return info


def _CountNumaNodes(sysfs: str) -> int:
    try:
        names = os.listdir(f"{sysfs}/devices/system/node")
    except OSError:
        return 0
    return sum(1 for name in names if name.startswith("node") and name[4:].isdigit())


def ResidentMebibytes(pid: int, proc: str = "/proc") -> int:
    """Memory that a process has in RAM, in MiB; 0 if it has ended."""
    try:
        with open(f"{proc}/{pid}/statm", encoding="ascii") as fobj:
            pages = int(fobj.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


# Powercycle

RebootWay = tuple[str, Callable[[], None]]


def _TriggerSysrq() -> None:
    fd = os.open(_SYSRQ_TRIGGER, os.O_WRONLY)
    try:
        os.write(fd, b"b")
    finally:
        os.close(fd)


def _RunReboot() -> None:
    result = process.RunCmd(["reboot", "-n", "-f"])
    if result.failed:
        raise OSError(f"{result.fail_reason}: {result.output.strip()}")


def _CallReboot() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(_RB_AUTOBOOT) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_SYSRQ_WAY: Final[RebootWay] = (f"writing to {_SYSRQ_TRIGGER}", _TriggerSysrq)
_COMMAND_WAY: Final[RebootWay] = ("running reboot -n -f", _RunReboot)
#: Needs no disk at all.
_SYSCALL_WAY: Final[RebootWay] = ("calling reboot(2)", _CallReboot)


def RebootWays(pid_namespace: int | None = None) -> list[RebootWay]:
    """Ways to restart this node without a shutdown, in the order in which to try them.

    @param pid_namespace: inode of our PID namespace; default: look it up
    """
    if pid_namespace is None:
        try:
            pid_namespace = os.stat("/proc/self/ns/pid").st_ino
        except OSError:
            pid_namespace = _INITIAL_PID_NAMESPACE
    if pid_namespace == _INITIAL_PID_NAMESPACE:
        return [_SYSRQ_WAY, _COMMAND_WAY, _SYSCALL_WAY]
    # A node in a container: the others end the container, this would restart the host.
    return [_COMMAND_WAY, _SYSCALL_WAY]


def Powercycle(ways: Sequence[RebootWay] | None = None) -> None:
    """Restart this node at once, without shutdown; usually does not return.

    The first way reads no file system, so that it works when the system disk has failed.

    @param ways: (description, function that raises OSError if it fails); default: L{RebootWays}
    @raise errors.HypervisorError: none of the ways worked
    """
    failures = []
    for what, function in RebootWays() if ways is None else ways:
        try:
            function()
        except (OSError, errors.OpExecError) as err:
            logging.error("Powercycle by %s failed: %s", what, err)
            failures.append(f"{what}: {err}")
        else:
            return
    raise errors.HypervisorError(f"Can't powercycle this node: {'; '.join(failures)}")
