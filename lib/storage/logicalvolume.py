"""Disks that are logical volumes of LVM, also data and metadata of mirrors.

A volume is linear or striped over the physical volumes of its group, the ones with most free space
first. It is never deactivated: Shutdown, Open and Close do nothing.

What is decided (order of physical volumes, stripes, rounding, tags, what a report means) is in
functions of plain values at the end.
"""

from __future__ import annotations

import logging
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import constants, errors, objects, runtime
from ..utils import lvm
from .base import BlockDev, Fail

#: How LVM may place what a volume grows by; the best first.
GROW_POLICIES: Final = ("contiguous", "cling", "normal")
#: LVM's limit on the length of a tag.
MAX_TAG_LENGTH: Final = 128
_TAG_CHARS: Final = frozenset(string.ascii_letters + string.digits + "_+.-")

_ATTACH_FIELDS: Final = (
    "lv_attr", "lv_kernel_major", "lv_kernel_minor", "vg_extent_size", "stripes",
)  # fmt: skip


class LogicalVolume(BlockDev):
    """A volume; its identity is (volume group, name).

    It counts as attached as soon as it exists, active or not: what exists can be removed, renamed
    and activated.

    @ivar broken: has it lost data with a device?
    @ivar extent_size: MiB; None if it is not attached
    @ivar stripes: over how many devices its last part lies; None if it is not attached
    """

    def _CheckIdentity(self) -> None:
        self.broken = False
        self.extent_size: int | None = None
        self.stripes: int | None = None
        self._vg_name, self._lv_name = ParseIdentity(self.unique_id)
        self.dev_path = GetDevPath(self._vg_name, self._lv_name)

    @property
    def _path(self) -> str:
        return GetDevPath(self._vg_name, self._lv_name)

    @classmethod
    def Create(
        cls,
        unique_id: Sequence[Any],
        children: Sequence[BlockDev | None],
        size: int,
        rt: runtime.Runtime = runtime.DEFAULT,
        params: Mapping[str, Any] | None = None,
    ) -> LogicalVolume:
        """Make a volume of that many MiB, or up to one extent for each stripe more.

        Fewer stripes than asked for are better than none: if LVM can't find the space for them, it
        is asked again with one less.
        """
        if len(unique_id) != 2:
            raise errors.ProgrammerError(f"Invalid identity of a logical volume: {unique_id!r}")
        vg_name, lv_name = ParseIdentity(unique_id)
        pvs = _GetPhysicalVolumes(vg_name, rt)
        check = CheckSpace(pvs, size)
        if check is not None:
            Fail(f"Can't create logical volume {vg_name}/{lv_name}: {check}")
        names = [pv.pv_name for pv in pvs]
        problem = "no number of stripes"
        for stripes, stripe_options in GetStripeOptions(len(pvs), params or {}):
            argv = ["lvcreate", "--yes", "-Wn", f"-L{size}m", f"-n{lv_name}", f"-i{stripes}"]
            problem = _Try([*argv, *stripe_options, vg_name, *names], rt)
            if not problem:
                break
        if problem:
            Fail(f"Can't create logical volume {vg_name}/{lv_name}: {problem}")
        volume = cls(unique_id, children, size, rt)
        if not volume.attached:
            Fail(f"{volume} was created but is not there")
        return volume

    def Attach(self) -> bool:
        """Look whether it exists, by one command.

        @raise errors.BlockDeviceError: LVM can not be asked at all
        """
        self.attached = False
        try:
            result = lvm.RunReport("lvs", _ATTACH_FIELDS, [self._path], self._rt)
            if result.failed:
                logging.info("%s is not there: %s", self, lvm.DescribeFailure(result))
                return False
            records = lvm.ParseReport(result.stdout, _ATTACH_FIELDS)
        except errors.LVMError as err:
            Fail(f"Can't look for {self}: {err}")
        if not records:
            logging.info("%s is not there: LVM reports nothing", self)
            return False
        try:
            # One record for each segment; the last is where it grows.
            facts = ParseFacts(records[-1])
        except errors.LVMError as err:
            logging.error("Can't use %s: %s", self, err)
            return False
        self.major, self.minor = facts.major, facts.minor
        self.extent_size, self.stripes = facts.extent_size, facts.stripes
        self.broken = facts.broken
        self.attached = True
        return True

    def Assemble(self) -> None:
        """Activate it, also if it is active: that mends what is not quite."""
        self._RunOrFail(["lvchange", "--activate", "y", self._path], "activate")
        if not self.Attach():
            Fail(f"{self} was activated but is not there")

    def Shutdown(self) -> None:
        """Nothing: volumes stay active."""

    def Open(self, force: bool = False) -> None:
        """Nothing to do for a volume."""

    def Close(self) -> None:
        """Nothing to do for a volume."""

    def Remove(self) -> None:
        """Destroy it; a missing one is fine."""
        if not self.attached and not self.Attach():
            return
        self._RunOrFail(
            ["lvremove", "--force", "--yes", f"{self._vg_name}/{self._lv_name}"], "remove"
        )
        self.attached = False
        self.major = self.minor = None

    def Rename(self, new_id: Sequence[Any]) -> None:
        """Give it another name in its group."""
        new_vg, new_name = ParseIdentity(new_id)
        if new_vg != self._vg_name:
            raise errors.ProgrammerError(
                f"{self} can't be moved to volume group {new_vg} by renaming it"
            )
        self._RunOrFail(["lvrename", "--yes", self._vg_name, self._lv_name, new_name], "rename")
        self._lv_name = new_name
        self.unique_id = (new_vg, new_name)
        self.dev_path = self._path

    def Grow(self, amount: int) -> None:
        """Make it bigger by that many MiB, or up to one extent for each stripe more."""
        if amount <= 0:
            Fail(f"Can't grow {self} by {amount} MiB: the amount must be positive")
        if (self.extent_size is None or self.stripes is None) and not self.Attach():
            Fail(f"Can't grow {self}: it is not there")
        assert self.extent_size is not None
        assert self.stripes is not None
        rounded = RoundUp(amount, self.extent_size * self.stripes)
        problem = ""
        for policy in GROW_POLICIES:
            argv = ["lvextend", "--yes", "--alloc", policy, "-L", f"+{rounded}m", self._path]
            problem = _Try(argv, self._rt)
            if not problem:
                return
        Fail(f"Can't grow {self} by {rounded} MiB: {problem}")

    def Snapshot(self, size: int) -> str:
        """Freeze its content in a new volume beside it; one left by an earlier try is replaced.

        @param size: MiB of changes that the snapshot has space for
        @return: name of the new volume
        """
        name = self._lv_name + ".snap"
        leftover = LogicalVolume((self._vg_name, name), [], size, self._rt)
        try:
            leftover.Remove()
        except errors.BlockDeviceError as err:
            logging.warning("Going on with an old snapshot in the way: %s", err)
        check = CheckSpace(_GetPhysicalVolumes(self._vg_name, self._rt), size)
        if check is not None:
            Fail(f"Can't make a snapshot of {self}: {check}")
        argv = ["lvcreate", "--yes", f"-L{size}m", "-s", f"-n{name}", self._path]
        self._RunOrFail(argv, "make a snapshot of")
        return name

    def SetInfo(self, text: str) -> None:
        """Keep a text as a tag of the volume, without the characters that LVM does not take."""
        super().SetInfo(text)
        tag = MakeTag(text)
        if tag:
            self._RunOrFail(["lvchange", "--addtag", tag, self._path], "tag")

    def GetSyncStatus(self) -> objects.BlockDevStatus:
        """Faulty if it has lost data, else in order: there is nothing to synchronise."""
        status = super().GetSyncStatus()
        status.is_degraded = self.broken
        status.ldisk_status = constants.LDS_FAULTY if self.broken else constants.LDS_OKAY
        return status

    def _RunOrFail(self, argv: Sequence[str], verb: str) -> None:
        problem = _Try(argv, self._rt)
        if problem:
            Fail(f"Can't {verb} {self}: {problem}")


def _Try(argv: Sequence[str], rt: runtime.Runtime) -> str:
    """Run a program of LVM; why it failed, empty if it did not."""
    try:
        result = lvm.Run(argv, rt)
    except errors.LVMError as err:
        return str(err)
    return lvm.DescribeFailure(result) if result.failed else ""


def _GetPhysicalVolumes(vg_name: str, rt: runtime.Runtime) -> list[lvm.PVInfo]:
    """Usable physical volumes of a group, the one with most free space first.

    @raise errors.BlockDeviceError: there are none, or they can not be given to LVM
    """
    try:
        pvs = sorted(lvm.GetPVInfo([vg_name], rt=rt), reverse=True)
    except errors.LVMError as err:
        Fail(f"Can't find the physical volumes of volume group {vg_name}: {err}")
    if not pvs:
        Fail(f"Volume group {vg_name} is not there, or has no physical volume with allocation on")
    odd = [pv.pv_name for pv in pvs if ":" in pv.pv_name]
    if odd:
        # LVM would take it for a range of extents.
        Fail(f"Physical volume names with a colon can't be used: {', '.join(odd)}")
    return pvs


# What is decided: plain values in, plain values out


class Facts(NamedTuple):
    """What a report says of a volume.

    @ivar major, minor: numbers of its device; None if it is not active
    @ivar extent_size: MiB, at least 1
    @ivar stripes: at least 1
    """

    broken: bool
    major: int | None
    minor: int | None
    extent_size: int
    stripes: int


def ParseFacts(record: lvm.Record) -> Facts:
    """Facts from a record with the fields that volumes are looked for by.

    @raise errors.LVMError: a field is not what it should be
    """
    attr = record["lv_attr"]
    if len(attr) < 6:
        raise errors.LVMError(f"its attributes are odd: {attr!r}")
    try:
        major, minor = int(record["lv_kernel_major"]), int(record["lv_kernel_minor"])
        stripes = int(record["stripes"])
    except ValueError as err:
        raise errors.LVMError(f"a number is none: {err}") from err
    active = major >= 0 and minor >= 0
    return Facts(
        broken=lvm.IsBroken(attr),
        major=major if active else None,
        minor=minor if active else None,
        # Extents can be smaller than the unit of sizes here.
        extent_size=max(1, int(lvm.ToMebibytes(record["vg_extent_size"]))),
        stripes=max(1, stripes),
    )


def ParseIdentity(unique_id: Sequence[Any]) -> tuple[str, str]:
    """Volume group and name.

    @raise ValueError: it is not the identity of a logical volume
    @raise errors.BlockDeviceError: LVM allows no such names
    """
    if len(unique_id) != 2 or not all(isinstance(part, str) for part in unique_id):
        raise ValueError(f"Invalid identity of a logical volume: {unique_id!r}")
    vg_name, lv_name = unique_id
    for name in (vg_name, lv_name):
        problem = lvm.CheckVolumeName(name)
        if problem is not None:
            Fail(f"Logical volume {vg_name}/{lv_name}: {problem}")
    return vg_name, lv_name


def GetDevPath(vg_name: str, lv_name: str) -> str:
    """Path of the device; of names that were checked."""
    return f"/dev/{vg_name}/{lv_name}"


def CheckSpace(pvs: Sequence[lvm.PVInfo], size: int) -> str | None:
    """Why so many MiB do not fit; None if they do."""
    free = sum(pv.free for pv in pvs)
    if free >= size:
        return None
    return f"not enough free space: {size} MiB are needed, {free:.0f} MiB are there"


def GetStripeOptions(pv_count: int, params: Mapping[str, Any]) -> list[tuple[int, list[str]]]:
    """Numbers of stripes to try in turn, each with its options.

    @param pv_count: physical volumes that can be used
    @param params: parameters of the disk
    """
    wanted: int = params.get(constants.DP_STRIPE, constants.LVM_STRIPECOUNT)
    stripe_size: int = params.get(constants.DP_STRIPE_SIZE, 0)
    options = [f"-I{stripe_size}k"] if stripe_size else []
    # A linear volume has no size of a stripe.
    return [
        (stripes, options if stripes > 1 else [])
        for stripes in range(max(1, min(pv_count, wanted)), 0, -1)
    ]


def RoundUp(amount: int, step: int) -> int:
    """The least multiple of the step that is not below the amount."""
    return -(-amount // step) * step


def MakeTag(text: str) -> str:
    """The text as a tag of LVM, which allows few characters."""
    tag = "".join(char if char in _TAG_CHARS else "_" for char in text)
    if tag.startswith("-"):
        tag = "_" + tag[1:]
    return tag[:MAX_TAG_LENGTH]
