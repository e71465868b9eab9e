"""The OS definitions of a virtual cluster's nodes, and the guest that the kvm hypervisor boots."""

from __future__ import annotations

import os

from .. import pathutils
from .guest import Guest

#: OS for instances without an operating system, for the fake hypervisor.
NOOP_OS = "noop"
#: OS that writes a guest of a kernel and busybox, for kvm; comes with the source tree.
GUEST_OS = "busybox-guest"


def Sources() -> dict[str, str]:
    """The OS definitions at hand: name -> directory."""
    places = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "definitions")]
    if pathutils.SOURCE_TREE:
        places.append(os.path.join(pathutils.SOURCE_TREE, "test", "os"))
    found: dict[str, str] = {}
    for place in places:
        if not os.path.isdir(place):
            continue
        for name in sorted(os.listdir(place)):
            path = os.path.join(place, name)
            if os.path.exists(os.path.join(path, "ganeti_api_version")):
                found[name] = path
    return found


def Install(directory: str) -> None:
    """Link all OS definitions into the OS directory of a node."""
    os.makedirs(directory)
    for name, path in Sources().items():
        os.symlink(path, os.path.join(directory, name))


def KvmParameters(guest: Guest) -> str:
    """For C{gnt-cluster init}: the cluster's parameters of kvm, with which guests boot anywhere.

    That there is a /dev/kvm is no promise that it boots Linux, so the guests are emulated.
    """
    return (
        f"kvm:kernel_path={guest.kernel},initrd_path={guest.initrd},root_path=/dev/ram0,"
        "kernel_args=quiet panic=1,kvm_flag=disabled"
    )


def DefaultOs(hypervisor: str) -> str:
    """The OS, with its variant, that instances of the demonstration get."""
    return f"{NOOP_OS}+default" if hypervisor == "fake" else f"{GUEST_OS}+default"
