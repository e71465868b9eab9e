"""From C{gnt-instance add} to the first sign of life of a guest in QEMU."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from component import migration_guest
from ganeti import pathutils
from ganeti.hypervisor import kvm_files

from .place import Place, Settle
from .rows_jobs import ONE
from .table import Beside, Row, Setting

_NAME: Final = "guest.example.com"
_OS: Final = "bootsector"
_CREATE: Final = '#!/bin/sh\nexec dd if="$PWD/sector" of="$DISK_0_PATH" conv=notrunc status=none\n'
_PATIENCE: Final = 30.0


def _MakeOs(directory: str) -> None:
    os.makedirs(directory, exist_ok=True)
    scripts = {name: "#!/bin/sh\nexit 0\n" for name in ("import", "export", "rename")}
    files = {**scripts, "create": _CREATE, "ganeti_api_version": "15\n"}
    for name, content in {**files, "variants.list": "default\n"}.items():
        path = os.path.join(directory, name)
        with open(path, "w", encoding="ascii") as fobj:
            fobj.write(content)
        os.chmod(path, 0o755)
    with open(os.path.join(directory, "sector"), "wb") as fobj:
        fobj.write(migration_guest.BootSector())


def _WaitForLine(path: str) -> None:
    """Return once the guest said something on its serial line, however soon that line is there."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as line:
            try:
                line.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.002)
                continue
            line.settimeout(_PATIENCE)
            if line.recv(1):
                return
    raise RuntimeError(f"the guest said nothing on {path}")


def _ByHand(directory: str) -> float:
    disk, serial = (os.path.join(directory, name) for name in ("disk", "serial"))
    start = time.perf_counter()
    with open(disk, "wb") as fobj:
        fobj.write(migration_guest.BootSector())
        fobj.truncate(16 << 20)
    argv = [
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-drive", f"file={disk},format=raw,if=virtio"),
        *("-chardev", f"socket,id=s,path={serial},server=on,wait=off", "-serial", "chardev:s"),
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as qemu:
        try:
            _WaitForLine(serial)
            return time.perf_counter() - start
        finally:
            qemu.send_signal(signal.SIGKILL)


def AddGuest(place: Place, setting: Setting | None) -> Mapping[str, float]:
    """Seconds, and those of QEMU started by hand in turn with it."""
    assert setting is not None
    cluster = place.Cluster(setting)
    root = cluster.virtual.layout.Root(cluster.virtual.layout.nodes[0])
    _MakeOs(root + os.path.join(pathutils.OS_SEARCH_PATH[0], _OS))
    paths = kvm_files.Paths(_NAME, root + kvm_files.ROOT_DIR, root + kvm_files.LOG_DIR)

    def _Run(*argv: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, env=cluster.environment, stdout=subprocess.DEVNULL)

    def _RunToTheEnd(*argv: str) -> None:
        with _Run(*argv) as proc:
            if proc.wait() != 0:
                raise RuntimeError(f"{' '.join(argv)} failed")

    def _Add() -> float:
        Settle(cluster)
        start = time.perf_counter()
        with _Run(
            *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "--no-nics"),
            *("-t", "file", "--disk=0:size=16m", "-B", "memory=16", "-n", "node1"),
            *("-o", f"{_OS}+default", "-H", "kvm", _NAME),
        ) as proc:
            _WaitForLine(paths.serial)
            elapsed = time.perf_counter() - start
            if proc.wait() != 0:
                raise RuntimeError("gnt-instance add failed")
        _RunToTheEnd("gnt-instance", "remove", "-f", "--shutdown-timeout=0", _NAME)
        return elapsed

    _RunToTheEnd(
        *("gnt-cluster", "modify", "--enabled-hypervisors=fake,kvm"),
        *("-H", "kvm:kernel_path=,kvm_flag=disabled"),
    )
    try:
        found = [(_Add(), _ByHand(place.Fresh())) for _ in range(place.Rounds(5, 1))]
    finally:
        _RunToTheEnd("gnt-cluster", "modify", "--enabled-hypervisors=fake")
    add, hand = (statistics.median(each) for each in zip(*found, strict=True))
    return {"more": add - hand, "by hand": hand}


ROWS = [
    Row(
        "gnt-instance add to the guest's first sign, file disk, above QEMU by hand",
        "s",
        0.5,
        AddGuest,
        "more",
        Beside("QEMU by hand", "by hand"),
        ONE,
    ),
]
