"""Xen, paravirtual and hardware virtual machines.

Parameters, console and checks are there; what runs instances is not, and says so.
"""

from __future__ import annotations

from .. import constants
from . import hv_base, linux


class _XenHypervisor(hv_base.BaseHypervisor):
    CAN_MIGRATE = True

    def GetNodeInfo(self) -> linux.NodeInfo:
        # /proc of dom0 knows dom0 only: numbers from there would be wrong.
        self._NotImplemented("asking for node information")


class XenPvmHypervisor(_XenHypervisor):
    """Xen with paravirtual instances."""

    KIND = constants.HT_XEN_PVM


class XenHvmHypervisor(_XenHypervisor):
    """Xen with hardware virtual instances."""

    KIND = constants.HT_XEN_HVM
