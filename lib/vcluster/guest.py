"""Kernel and initial RAM disk of the guest that virtual clusters boot, and whether QEMU is there.

Debian's cloud kernel and static busybox are fetched with apt-get (no rights needed) into a cache
outside of the tree: C{$GANETI_GUEST_CACHE}, else C{~/.cache/ganeti-guest}. The guest itself is
described in test/os/busybox-guest/README.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import errors
from ..utils import process

#: MiB of memory and of disk that the guest needs.
MEMORY: Final = 128
DISK_SIZE: Final = 16

#: Modules the guest needs, and ones that it takes if the kernel has them as modules.
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev")
OPTIONAL_MODULES: Final = ("virtio_scsi", "sd_mod", "virtio_rng")

#: What is needed to run the guest and to build its RAM disk.
_PACKAGES: Final = ("qemu-system-x86", "lz4")

INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo 1 > /proc/sys/kernel/printk
for m in /mod/*; do insmod $m 2>/dev/null; done
opt() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
DISK=
for d in /dev/vda /dev/sda; do [ -b $d ] && DISK=$d && break; done
VARIANT=none HOW=none
hostname "$(opt host)"
if [ -n "$DISK" ]; then
  dd if=$DISK bs=1M skip=1 count=1 2>/dev/null | tar -xf - -C / 2>/dev/null
  [ -s /etc/hostname ] && hostname "$(cat /etc/hostname)"
  [ -s /etc/guest ] && . /etc/guest
  # How often this disk was booted: tells a restart from a move.
  n=$(dd if=$DISK bs=512 skip=8 count=1 2>/dev/null | tr -d '\0'); case $n in *[!0-9]*) n=0;; esac
  n=$((${n:-0}+1)); echo $n | dd of=$DISK bs=512 seek=8 conv=notrunc,sync,fsync 2>/dev/null
fi
ip link set lo up
for i in 1 2 3 4 5; do [ -e /sys/class/net/eth0 ] && break; usleep 50000; done
A=$(opt addr); [ -n "$A" ] && ip link set eth0 up && ip addr add $A dev eth0
G=$(opt gw); [ -n "$G" ] && ip route add default via $G
if [ "$VARIANT" != nopower ]; then acpid -f -l /dev/null & fi
echo 0 > /tmp/seq
nc -ll -p 7 -e sh -c 'echo $(cut -d" " -f1 /proc/uptime) $(cat /tmp/seq)' &
if [ "$VARIANT" = load ] && [ -n "$DISK" ]; then
  ( n=0; while :; do n=$((n+1)); echo "seq $n up $(cut -d' ' -f1 /proc/uptime)" |
    dd of=$DISK bs=512 seek=$((100+n%1000)) conv=notrunc,sync,fsync 2>/dev/null &&
    echo $n > /tmp/seq; usleep 20000; done ) &
fi
NICS=$(ls /sys/class/net | grep -c ^eth)
echo "MARK up $(cut -d' ' -f1 /proc/uptime) host=$(hostname) variant=$VARIANT how=$HOW" \
  "kernel=$(uname -r) mem=$(awk '/MemTotal/{print $2}' /proc/meminfo) cpus=$(nproc) nics=$NICS" \
  "disk=${DISK:-none}:$(cat /sys/block/${DISK#/dev/}/size 2>/dev/null) boots=${n:--}"
while :; do setsid cttyhack sh </dev/console >/dev/console 2>&1; sleep 1; done
"""

POWER_BUTTON = "#!/bin/sh\necho MARK powerbutton >/dev/console\nsync\npoweroff -f\n"


def Unavailable(text: str) -> errors.OpPrereqError:
    """The error for a machine that can not run the guest."""
    return errors.OpPrereqError(f"No guest can run here: {text}", errors.ECODE_ENVIRON)


@dataclass(frozen=True)
class Guest:
    """What a guest is started with: paths on this machine."""

    qemu: str
    kernel: str
    initrd: str


def Prepare(install: bool, progress: Callable[[str], object] = lambda _: None) -> Guest:
    """Make everything ready; at once if it was done before.

    @param install: install Debian packages that lack (as root)
    @raise errors.OpPrereqError: C{environment_error}: this machine can not run the guest
    """
    if platform.machine() != "x86_64":
        raise Unavailable(f"it is for x86_64, this machine is {platform.machine()}")
    if install:
        _Install(progress)
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise Unavailable(
            "QEMU is not installed; --install does it as root (Debian: apt-get install"
            " qemu-system-x86)"
        )
    directory = _CacheDirectory() / f"guest-{_RecipeHash()}"
    if not directory.exists():
        with _Locked(directory.parent):
            if not directory.exists():
                progress("Fetching a kernel and busybox for the guests")
                try:
                    _Build(directory)
                except errors.OpPrereqError:
                    if not install or os.geteuid() != 0:
                        raise
                    # The index is missing, as in most containers, or out of date.
                    progress("Updating the index of packages")
                    _Run(["apt-get", "update"])
                    _Build(directory)
    return Guest(qemu, str(directory / "kernel"), str(directory / "initrd"))


def _CacheDirectory() -> Path:
    chosen = os.environ.get("GANETI_GUEST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(chosen) if chosen else Path(base) / "ganeti-guest"


def _RecipeHash() -> str:
    recipe = repr((INIT, POWER_BUTTON, MODULES, OPTIONAL_MODULES))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


@contextlib.contextmanager
def _Locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w", encoding="ascii") as fobj:
        fcntl.flock(fobj, fcntl.LOCK_EX)
        yield


def _Run(argv: Sequence[str], cwd: Path = Path("/")) -> str:
    if shutil.which(argv[0]) is None:
        raise Unavailable(f"{argv[0]} is not installed")
    result = process.RunCmd(list(argv), env={"DEBIAN_FRONTEND": "noninteractive"}, cwd=str(cwd))
    if result.failed:
        raise Unavailable(f"{' '.join(argv)}: {result.fail_reason}: {result.stderr.strip()[-500:]}")
    return result.stdout


def _Install(progress: Callable[[str], object]) -> None:
    if all(shutil.which(program) for program in ("qemu-system-x86_64", "lz4")):
        return
    if os.geteuid() != 0:
        raise Unavailable("only root can install QEMU")
    progress(f"Installing {' and '.join(_PACKAGES)}")
    _Run(["apt-get", "update"])
    _Run(["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES])


def _Build(directory: Path) -> None:
    """Fetch the packages and make kernel and RAM disk of them."""
    cache = directory.parent
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as name:
        work = Path(name)
        kernel_package = _KernelPackage()
        for package, target in ((kernel_package, "kernel"), ("busybox-static", "busybox")):
            downloads = work / f"{target}-deb"
            downloads.mkdir()
            # Root's apt gives its rights up to download; it may not into a private directory.
            downloads.chmod(0o777)
            _Run(["apt-get", "download", package], cwd=downloads)
            (archive,) = downloads.glob("*.deb")
            _Run(["dpkg-deb", "-x", str(archive), str(work / target)])
        (image,) = (work / "kernel/boot").glob("vmlinuz-*")
        out = work / "out"
        out.mkdir()
        (out / "kernel").write_bytes(Unpack(image.read_bytes()))
        (out / "initrd").write_bytes(
            gzip.compress(_Initrd(work / "kernel", work / "busybox"), compresslevel=1, mtime=0)
        )
        out.rename(directory)


def _KernelPackage() -> str:
    depends = _Run(["apt-cache", "depends", "linux-image-cloud-amd64"])
    match = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", depends, re.MULTILINE)
    if match is None:
        raise Unavailable("apt-cache knows no linux-image-cloud-amd64 (apt-get update?)")
    return match.group(1)


def Unpack(image: bytes) -> bytes:
    """The uncompressed kernel out of a bzImage: boots half a second faster under TCG.

    Returned as it is if it can not be unpacked, which works as well.
    """
    for magic, decompress in ((b"\x02!L\x18", _Lz4), (b"\xfd7zXZ\x00", _Xz)):
        position = image.find(magic)
        while position >= 0:
            unpacked = decompress(image[position:])
            if unpacked.startswith(b"\x7fELF"):
                return unpacked
            position = image.find(magic, position + 1)
    return image


def _Lz4(data: bytes) -> bytes:
    if shutil.which("lz4") is None:
        return b""
    with tempfile.TemporaryDirectory() as name:
        packed, unpacked = os.path.join(name, "kernel.lz4"), os.path.join(name, "kernel")
        Path(packed).write_bytes(data)
        # Trailing data is an error to lz4, but the kernel has been written by then.
        process.RunCmd(["lz4", "-dc", packed], output=unpacked)
        return Path(unpacked).read_bytes()


def _Xz(data: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor().decompress(data)
    except lzma.LZMAError:
        return b""


def _Initrd(kernel: Path, busybox: Path) -> bytes:
    """A cpio archive with busybox, modules and the guest's programs."""
    (program,) = [path for path in busybox.rglob("bin/busybox") if path.is_file()]
    entries: list[tuple[str, int, bytes]] = [
        (name, 0o040755, b"")
        for name in (
            *("bin", "dev", "proc", "sys", "tmp", "mod", "root"),
            *("etc", "etc/acpi", "etc/acpi/PWRF"),
        )
    ]
    entries.append(("bin/busybox", 0o100755, program.read_bytes()))
    entries.append(("init", 0o100755, INIT.encode()))
    entries.append(("etc/acpi/PWRF/00000080", 0o100755, POWER_BUTTON.encode()))
    for index, (name, content) in enumerate(_Modules(kernel)):
        entries.append((f"mod/{index:02}-{name}.ko", 0o100644, content))
    return Cpio(entries)


def _Modules(kernel: Path) -> list[tuple[str, bytes]]:
    """Modules in the order in which they can be loaded."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in kernel.rglob("*.ko*")}
    done: dict[str, bytes] = {}

    def _Add(name: str) -> None:
        if name in done:
            return
        path = files[name]
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        match = re.search(rb"\0depends=([^\0]*)\0", content)
        for needed in (match.group(1).decode() if match else "").split(","):
            if needed:
                _Add(needed.replace("-", "_"))
        done[name] = content

    for module in MODULES:
        if module not in files:
            raise Unavailable(f"the kernel package has no module {module}")
        _Add(module)
    for module in OPTIONAL_MODULES:
        if module in files:
            _Add(module)
    return list(done.items())


def Cpio(entries: list[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive ("newc") of (name, mode, content), all owned by root."""
    archive = bytearray()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += b"\0" * (-len(archive) % 4)
        archive += content
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)
