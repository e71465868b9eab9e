"""Hypervisors: what a node does to start, stop, list and move virtual machines.

One module a kind, imported when it is first asked for. Parameters (names, types, checks) are in
L{hvparams}, which is all that the master needs besides the class methods here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from .. import constants, errors

if TYPE_CHECKING:
    from .hv_base import BaseHypervisor

#: Kind -> (module, class).
_CLASSES: Final = {
    constants.HT_XEN_PVM: ("hv_xen", "XenPvmHypervisor"),
    constants.HT_XEN_HVM: ("hv_xen", "XenHvmHypervisor"),
    constants.HT_KVM: ("hv_kvm", "KVMHypervisor"),
    constants.HT_FAKE: ("hv_fake", "FakeHypervisor"),
    constants.HT_CHROOT: ("hv_chroot", "ChrootManager"),
}


def GetHypervisorClass(kind: str) -> type[BaseHypervisor]:
    """Class of a kind of hypervisor; asking has no side effect.

    @raise errors.HypervisorError: there is no such kind
    """
    try:
        module_name, class_name = _CLASSES[kind]
    except KeyError:
        raise errors.HypervisorError(
            f"Unknown hypervisor type {kind!r}; known are {', '.join(sorted(_CLASSES))}"
        ) from None
    module = importlib.import_module("." + module_name, __name__)
    cls: type[BaseHypervisor] = getattr(module, class_name)
    return cls


def GetHypervisor(kind: str) -> BaseHypervisor:
    """A new instance of a hypervisor; makes the directories it keeps its state in.

    @raise errors.HypervisorError: there is no such kind, or the directories can not be made
    """
    return GetHypervisorClass(kind)()


def Preload() -> None:
    """Import every kind now.

    For the node daemon: when the system disk has failed, nothing can be imported any more, and a
    powercycle must still work.
    """
    for kind in _CLASSES:
        GetHypervisorClass(kind)
