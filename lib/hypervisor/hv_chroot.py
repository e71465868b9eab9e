"""Instances that are process trees in a changed root directory.

Parameters, console and checks are there; what runs instances is not, and says so.
"""

from __future__ import annotations

from .. import constants
from . import hv_base


class ChrootManager(hv_base.BaseHypervisor):
    """Hypervisor of chroots."""

    KIND = constants.HT_CHROOT
