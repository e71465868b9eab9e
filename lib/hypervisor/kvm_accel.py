"""Can this node run guests with hardware help? Found out by running one, once for each boot.

That C{/dev/kvm} can be opened, and that QEMU starts with it, is no proof: on hosts that are virtual
machines themselves, the first instructions of a guest may work and those of its kernel may not, or
take minutes. QEMU does not end then, and would not take the next accelerator either.

So the trial is a tiny guest that does what the kernel of every guest does in its first moment: go
to 64-bit mode, handle an exception, save the registers of the FPU, and run for a while. On a node
that can, it takes a tenth of a second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Final

from .. import constants, errors, pathutils, runtime, serializer
from ..utils import filelock, process
from .kvm_capabilities import Capabilities

KVM: Final = "kvm"
TCG: Final = "tcg"

_DEVICE: Final = "/dev/kvm"
#: A trial that does not end within the first time (seconds) gets the second one, as the node may
#: be busy; unless QEMU has said that it is stuck, or that is what it was given first.
_LIMITS: Final = (2.0, 15.0)
#: Seconds to wait for another thread's trial.
_LOCK_TIMEOUT: Final = 60.0
#: What QEMU says when the guest can not go on; it does not end, however.
_STUCK: Final = "KVM internal error"
#: (Value that the guest has written << 1) | 1.
_EXIT_FINE: Final = 33

#: The guest's BIOS; assembled from test/data/qemu/trial.S.
_CODE: Final = bytes.fromhex(
    "fa31c08ed88ec08ed0bc008066bf001000000f22df6631c0b90010fc66f3ab66c70600100320000066c70600"
    "200330000066c70600308300000066b8200600000f22e066b9800000c00f32660d000100000f302e660f0116"
    "10010f20c06625fbffff9f660d030000800f22c066ea74000f000800b8100000008ed88ec08ed0bc00800000"
    "0f011c2516010f00b8f1000f00668904253040000066c7042532400000080066c7042534400000008ec1e810"
    "668904253640000031dbcc83fb01752a0fae0425005100000fae0c250051000031c031d2f00fc70c25005000"
    "00b9002d3101ffc975fcb010e6f4b020e6f4f4ebfdffc348cf8d7400000000000000000000000000009b2000"
    "00000000009300001700f8000f003f000040"
)
_IMAGE_SIZE: Final = 0x10000
_RESET_VECTOR: Final = 0xFFF0


def TrialImage() -> bytes:
    """The BIOS of the guest that is tried."""
    start = bytes.fromhex("ea000000f0")
    image = _CODE.ljust(_RESET_VECTOR, b"\0") + start
    return image.ljust(_IMAGE_SIZE, b"\0")


def TrialCommand(caps: Capabilities, image: str) -> list[str]:
    """Command line that runs the trial; its exit code tells."""
    return [
        caps.path,
        *("-machine", caps.machine),
        *("-accel", KVM),
        *("-m", "16"),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        *("-display", "none"),
        *("-bios", image),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
    ]


def Judge(result: process.RunResult) -> tuple[bool | None, str]:
    """What the end of a trial says.

    @return: whether guests run with KVM, None if that is not certain, and why not
    """
    if result.exit_code == _EXIT_FINE and result.timeout is None:
        return True, ""
    if _STUCK in result.stderr:
        return False, "the processor can not run the code of a kernel"
    if result.timeout is not None:
        return None, f"a trial has not ended within {result.timeout:g} seconds"
    said = result.stderr.strip().splitlines()
    return False, said[-1] if said else f"the trial has {result.fail_reason or 'ended early'}"


def _Try(rt: runtime.Runtime, caps: Capabilities, image: str) -> tuple[bool, str]:
    """Run the trial; whether it went well, and why not."""
    reason = ""
    for limit in _LIMITS:
        works, reason = Judge(rt.processes.run(TrialCommand(caps, image), timeout=limit))
        if works is not None:
            return works, reason
    return False, reason


def _Facts(caps: Capabilities, device: str) -> dict[str, object]:
    """What the answer depends on; as it is written down beside it."""
    binary = os.stat(caps.path)
    with open(pathutils.BOOT_ID_FILE, encoding="ascii") as fobj:
        boot = fobj.read().strip()
    try:
        # A module that is loaded again makes it anew.
        found = os.stat(device)
        kvm = [found.st_ino, int(found.st_ctime), found.st_mode]
    except OSError:
        kvm = []
    return {"qemu": [caps.path, int(binary.st_mtime), binary.st_ino], "boot": boot, "kvm": kvm}


def KvmWorks(
    rt: runtime.Runtime, caps: Capabilities, directory: str, device: str = _DEVICE
) -> tuple[bool, str]:
    """Do guests run on this node with KVM?

    The answer is kept in a file; it is asked for anew after a boot of the node, with another QEMU,
    or when the device has been made anew. A trial takes a tenth of a second where it goes well, at
    most some seconds where it does not.

    @param directory: for the answer
    @return: whether, and why not
    @raise errors.HypervisorError: the answer can not be kept
    """
    path = f"{directory}/accelerator"
    try:
        facts = _Facts(caps, device)
        known = _ReadAnswer(path, facts)
        if known is not None:
            return known
        with filelock.FileLock.Open(f"{path}.lock", rt) as lock:
            # Many instances may be started at once.
            lock.Exclusive(timeout=_LOCK_TIMEOUT)
            known = _ReadAnswer(path, facts)
            if known is not None:
                return known
            image = f"{path}.bios"
            rt.files.write(image, TrialImage(), durable=False)
            try:
                works, reason = _Try(rt, caps, image)
            finally:
                rt.files.remove(image)
            answer = serializer.Dump({**facts, "works": works, "reason": reason})
            rt.files.write(path, answer.encode(), durable=False)
    except OSError as err:
        raise errors.HypervisorError(f"Can't find out whether KVM works here: {err}") from err
    if works:
        logging.info("Guests run with KVM on this node")
    else:
        logging.warning("Guests run without KVM on this node, much slower: %s", reason)
    return works, reason


def _ReadAnswer(path: str, facts: dict[str, object]) -> tuple[bool, str] | None:
    try:
        with open(path, encoding="utf-8") as fobj:
            kept = serializer.Load(fobj.read())
        if all(kept[name] == value for name, value in facts.items()):
            return bool(kept["works"]), str(kept["reason"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def Choose(flag: str, works: Callable[[], tuple[bool, str]]) -> str:
    """The accelerator for an instance.

    @param flag: hypervisor parameter C{kvm_flag}: "enabled", "disabled", or empty: what works
    @param works: asks L{KvmWorks}
    """
    if flag == constants.HT_KVM_ENABLED:
        return KVM
    if flag == constants.HT_KVM_DISABLED:
        return TCG
    return KVM if works()[0] else TCG
