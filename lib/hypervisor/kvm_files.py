"""What is kept on the node about KVM instances, so that a restarted node daemon finds them again.

pid/NAME           pid file, written by QEMU
uid/NAME           user-id of the pool that the process runs with, decimal
ctrl/NAME.monitor  socket: human monitor
ctrl/NAME.qmp      socket: machine protocol
ctrl/NAME.serial   socket: serial console
conf/NAME.runtime  what it was started as, see L{kvm_runtime}
conf/NAME.starting pid of the node daemon that is starting it; gone once the guest runs
conf/NAME.incoming it comes here by a migration that nobody has declared over
conf/NAME.outgoing it migrates away, see L{kvm_migration}
conf/NAME.tls      key of the migration, for QEMU; with a chroot it is in there
nic/NAME/I         network interface of the node for card I
chroot/NAME        empty directory that the process is locked into
chroot-quarantine  chroots that turned out not to be empty
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Final

from .. import errors, hvconsole, pathutils

ROOT_DIR: Final = pathutils.RUN_GANETI_DIR + "/kvm-hypervisor"
LOG_DIR: Final = pathutils.LOG_DIR + "/kvm"
#: What the protocol of VNC takes of a password.
_VNC_PASSWORD_BYTES: Final = 8


@dataclass(frozen=True)
class Paths:
    """Files of one instance."""

    name: str
    root: str = ROOT_DIR
    log_dir: str = LOG_DIR

    @property
    def pid(self) -> str:
        return f"{self.root}/pid/{self.name}"

    @property
    def uid(self) -> str:
        return f"{self.root}/uid/{self.name}"

    @property
    def monitor(self) -> str:
        return f"{self.root}/ctrl/{self.name}.monitor"

    @property
    def qmp(self) -> str:
        return f"{self.root}/ctrl/{self.name}.qmp"

    @property
    def serial(self) -> str:
        # The master computes it too.
        if self.root == ROOT_DIR:
            return hvconsole.KvmSerialSocket(self.name)
        return f"{self.root}/ctrl/{self.name}.serial"

    @property
    def runtime(self) -> str:
        return f"{self.root}/conf/{self.name}.runtime"

    @property
    def starting(self) -> str:
        return f"{self.root}/conf/{self.name}.starting"

    @property
    def incoming(self) -> str:
        return f"{self.root}/conf/{self.name}.incoming"

    @property
    def outgoing(self) -> str:
        return f"{self.root}/conf/{self.name}.outgoing"

    @property
    def tls(self) -> str:
        return f"{self.root}/conf/{self.name}.tls"

    @property
    def nics(self) -> str:
        return f"{self.root}/nic/{self.name}"

    @property
    def chroot(self) -> str:
        return f"{self.root}/chroot/{self.name}"

    @property
    def log(self) -> str:
        return f"{self.log_dir}/{self.name}.log"


def PidDir(root: str = ROOT_DIR) -> str:
    """Directory whose entries are named like the instances."""
    return f"{root}/pid"


def QuarantineDir(root: str = ROOT_DIR) -> str:
    """Where chroots go that can not be removed."""
    return f"{root}/chroot-quarantine"


def Directories(root: str = ROOT_DIR, log_dir: str = LOG_DIR) -> list[tuple[str, int]]:
    """All directories with their modes."""
    public = ("", "/pid", "/uid", "/conf", "/nic", "/chroot", "/chroot-quarantine")
    # The sockets are for root only: who can write to them owns the instance.
    return [*((root + name, 0o755) for name in public), (root + "/ctrl", 0o750), (log_dir, 0o750)]


# Processes


@dataclass(frozen=True)
class QemuProcess:
    """What the command line of a running QEMU says.

    @ivar memory: in MiB
    """

    pid: int
    name: str
    memory: int
    vcpus: int
    pidfile: str


def ParseCommandLine(pid: int, cmdline: bytes) -> QemuProcess | None:
    """Facts from C{/proc/<pid>/cmdline}; None if that is no QEMU of ours."""
    words = cmdline.decode("utf-8", "surrogateescape").split("\0")
    values: dict[str, str] = {}
    for option, value in zip(words, words[1:], strict=False):
        if option in ("-name", "-m", "-smp", "-pidfile"):
            values.setdefault(option, value)
    name = values.get("-name", "").partition(",")[0].removeprefix("guest=")
    if not name:
        return None
    return QemuProcess(
        pid=pid,
        name=name,
        memory=_LeadingNumber(values.get("-m", "")),
        vcpus=_LeadingNumber(values.get("-smp", "")),
        pidfile=values.get("-pidfile", ""),
    )


def _LeadingNumber(value: str) -> int:
    # "-smp 2,sockets=2", "-m size=512"
    match = re.match(r"(?:size=|cpus=)?(\d+)", value)
    return int(match.group(1)) if match else 0


def FindProcess(paths: Paths, proc: str = "/proc") -> QemuProcess | None:
    """The running QEMU of an instance; None if there is none.

    The pid file alone says nothing: its number may belong to another process by now.
    """
    try:
        with open(paths.pid, encoding="ascii", errors="replace") as fobj:
            pid = int(fobj.read())
        with open(f"{proc}/{pid}/cmdline", "rb") as binary:
            cmdline = binary.read()
    except (OSError, ValueError):
        return None
    found = ParseCommandLine(pid, cmdline)
    if found is None or found.name != paths.name:
        return None
    # Virtual nodes share the process table: the instance may run on our neighbour.
    if found.pidfile and found.pidfile != paths.pid:
        return None
    return found


# Small files


def ReadPassword(path: str) -> str:
    """VNC password: the only non-empty line of a file.

    @raise errors.HypervisorError: unreadable, or no or several lines
    """
    try:
        with open(path, encoding="utf-8") as fobj:
            lines = [line.rstrip("\r\n") for line in fobj if line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise errors.HypervisorError(f"Can't read the VNC password file {path}: {err}") from err
    if len(lines) != 1:
        raise errors.HypervisorError(
            f"The VNC password file {path} must have one line, it has {len(lines)}"
        )
    if len(lines[0].encode()) > _VNC_PASSWORD_BYTES:
        logging.warning(
            "Only the first %d characters of the VNC password in %s count",
            _VNC_PASSWORD_BYTES,
            path,
        )
    return lines[0]


def LogTail(path: str, lines: int = 10) -> str:
    """The last lines of an instance's QEMU log, for messages."""
    try:
        with open(path, encoding="utf-8", errors="replace") as fobj:
            fobj.seek(max(os.fstat(fobj.fileno()).st_size - 4096, 0))
            return "".join(fobj.readlines()[-lines:]).strip()
    except OSError:
        return ""
