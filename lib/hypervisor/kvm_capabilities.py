"""What the installed QEMU can do, found out by asking it, once for each binary.

Decisions are made by capability; a distribution's version number says little about its patches.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .. import errors, pathutils, runtime

#: Machine type of new instances: what QEMU has given to guests without being asked since ever.
_MACHINE: Final = "pc"
#: Oldest QEMU whose command line is the one that we write.
MIN_VERSION: Final = (6, 0)
_PROBE_TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Capabilities:
    """Facts about one QEMU binary.

    @ivar path: the binary
    @ivar version: major, minor, micro
    @ivar machine: versioned name of the default machine: stays the same over QEMU's upgrades, which
      a migration needs
    @ivar devices: all values of C{-device}
    @ivar run_with: what C{-run-with} understands of "chroot" and "user"; the others are given by
      their own options
    @ivar sandbox: whether it has the seccomp filter
    """

    path: str
    version: tuple[int, ...]
    machine: str
    devices: frozenset[str]
    run_with: frozenset[str] = frozenset()
    sandbox: bool = False

    def RequireDevice(self, device: str, why: str) -> None:
        """Raise a HypervisorError if this QEMU lacks a device."""
        if device not in self.devices:
            raise errors.HypervisorError(
                f"{self.path} (version {'.'.join(map(str, self.version))}) has no device"
                f" {device}, which is needed for {why}"
            )


def ParseVersion(text: str) -> tuple[int, ...]:
    """Version out of C{--version}.

    @raise errors.HypervisorError: there is none in the text
    """
    match = re.search(r"\bversion (\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise errors.HypervisorError(f"Can't find the version of QEMU in {text[:200]!r}")
    return tuple(int(part or 0) for part in match.groups())


def ParseMachines(text: str, wanted: str = _MACHINE) -> str:
    """Versioned name of a machine out of C{-machine help}; the default one's if it is not there.

    @raise errors.HypervisorError: QEMU has neither
    """
    default = None
    for line in text.splitlines():
        name, _, description = line.partition(" ")
        alias = re.search(r"\(alias of ([^)\s]+)\)", description)
        if name == wanted:
            return alias.group(1) if alias else name
        if "(default)" in description:
            default = name
    if default is None:
        raise errors.HypervisorError(
            f"QEMU has neither a machine {wanted!r} nor a default machine: {text[:200]!r}"
        )
    return default


def ParseDevices(text: str) -> frozenset[str]:
    """Names out of C{-device help}."""
    return frozenset(re.findall(r'^name "([^"]+)"', text, re.MULTILINE))


def ParseHelp(text: str) -> tuple[frozenset[str], bool]:
    """(what C{-run-with} understands, whether there is C{-sandbox}) out of C{-help}."""
    run_with = re.search(r"^-run-with .*(?:\n[ \t]+.*)*", text, re.MULTILINE)
    words = frozenset(
        word for word in ("chroot", "user") if run_with and re.search(rf"\b{word}=", run_with[0])
    )
    return words, re.search(r"^-sandbox ", text, re.MULTILINE) is not None


def FindBinary(candidates: Sequence[str] = pathutils.QEMU_PATHS) -> str:
    """Path of the QEMU to use.

    @raise errors.HypervisorError: none is installed
    """
    for path in candidates:
        if os.access(path, os.X_OK) and not _IsWrapper(path):
            return path
    raise errors.HypervisorError(
        f"QEMU is not installed: there is no executable {' or '.join(candidates)}"
        " (Debian: package qemu-system-x86)"
    )


def _IsWrapper(path: str) -> bool:
    # A shell script named kvm adds -enable-kvm to whatever it gets, which excludes -accel.
    with open(path, "rb") as fobj:
        return fobj.read(2) == b"#!"


class _Cache:
    #: (path, mtime, inode) -> facts; a binary that was replaced is asked again.
    known: dict[tuple[str, float, int], Capabilities] = {}


def Probe(rt: runtime.Runtime = runtime.DEFAULT, path: str | None = None) -> Capabilities:
    """Ask the installed QEMU what it can do (0.2 s at first, then remembered).

    @param path: the binary; default: what L{FindBinary} finds
    @raise errors.HypervisorError: there is no QEMU, it does not run, or it is too old
    """
    if path is None:
        path = FindBinary()
    stat = os.stat(path)
    key = (path, stat.st_mtime, stat.st_ino)
    # No lock: two threads that ask at once get the same answer.
    found = _Cache.known.get(key)
    if found is None:
        found = _Ask(rt, path)
        _Cache.known[key] = found
    return found


def _Ask(rt: runtime.Runtime, path: str) -> Capabilities:
    def _Run(*args: str) -> str:
        result = rt.processes.run([path, *args], timeout=_PROBE_TIMEOUT)
        if result.failed:
            raise errors.HypervisorError(
                f"{result.cmd} failed ({result.fail_reason}): {result.output.strip()}"
            )
        return result.stdout

    version = ParseVersion(_Run("--version"))
    if version < MIN_VERSION:
        raise errors.HypervisorError(
            f"{path} is version {'.'.join(map(str, version))}, at least"
            f" {'.'.join(map(str, MIN_VERSION))} is needed"
        )
    run_with, sandbox = ParseHelp(_Run("-help"))
    machine = ParseMachines(_Run("-machine", "help"))
    # For this machine: devices differ.
    devices = ParseDevices(_Run("-machine", machine, "-device", "help"))
    return Capabilities(path, version, machine, devices, run_with, sandbox)
