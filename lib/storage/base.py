"""What all block devices have in common, and the rules that need no device at all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from .. import constants, errors, objects, runtime


def Fail(text: str) -> NoReturn:
    """Log and raise a BlockDeviceError."""
    logging.error("%s", text)
    raise errors.BlockDeviceError(text)


class BlockDev:
    """A device of this node.

    Constructing one looks for it (L{Attach}) and changes nothing.

    @ivar unique_id: what names it on this node; the form depends on the kind
    @ivar size: MiB according to the configuration; 0 if that is not known
    @ivar dev_path: path of its node in the file system; None if it has none (yet)
    @ivar major, minor: numbers of the device; None if not known
    @ivar attached: was it found?
    @ivar children: devices below it; None in the place of one that is missing
    """

    def __init__(
        self,
        unique_id: Sequence[Any],
        children: Sequence[BlockDev | None],
        size: int,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self._rt = rt
        self._children = list(children)
        self.unique_id = tuple(unique_id)
        self.size = size
        self.dev_path: str | None = None
        self.major: int | None = None
        self.minor: int | None = None
        self.attached = False
        self._CheckIdentity()
        self.Attach()

    def _CheckIdentity(self) -> None:
        """Refuse an identity or children that can't be of this kind."""

    @property
    def children(self) -> list[BlockDev | None]:
        """The devices below this one."""
        return list(self._children)

    @classmethod
    def Create(
        cls,
        unique_id: Sequence[Any],
        children: Sequence[BlockDev | None],
        size: int,
        rt: runtime.Runtime = runtime.DEFAULT,
        params: Mapping[str, Any] | None = None,
    ) -> BlockDev:
        """Make the device; the result is attached.

        @param params: parameters of the disk, of which each kind uses its own
        @raise errors.BlockDeviceError: it exists already, or can not be made
        """
        raise NotImplementedError

    def Attach(self) -> bool:
        """Look for an active device that matches, and remember where it is."""
        raise NotImplementedError

    def Assemble(self) -> None:
        """Bring it up from its children; done already is fine.

        @raise errors.BlockDeviceError: that is not possible
        """
        raise NotImplementedError

    def Shutdown(self) -> None:
        """Undo L{Assemble}; the children stay as they are."""
        raise NotImplementedError

    def Remove(self) -> None:
        """Destroy it and what is stored in it; a missing one is fine."""
        raise NotImplementedError

    def Rename(self, new_id: Sequence[Any]) -> None:
        """Give it another identity.

        @raise errors.BlockDeviceError: that is not possible
        """
        raise NotImplementedError

    def Open(self, force: bool = False) -> None:
        """Make it ready for writing; C{force} only for one that was just made."""
        raise NotImplementedError

    def Close(self) -> None:
        """Undo L{Open}."""
        raise NotImplementedError

    def Grow(self, amount: int) -> None:
        """Make it bigger by that many MiB."""
        raise NotImplementedError

    def Snapshot(self, size: int) -> str:
        """Freeze its content in a new device; the name of that.

        @raise errors.BlockDeviceError: this kind has no snapshots
        """
        Fail(f"{self} has no snapshots: only logical volumes have")

    def AddChildren(self, devices: Sequence[BlockDev]) -> None:
        """Put devices below it."""
        Fail(f"Nothing can be added below {self}: only mirrors have changing children")

    def RemoveChildren(self, paths: Sequence[str]) -> None:
        """Take the devices with these paths away from below it."""
        Fail(f"Nothing can be removed from below {self}: only mirrors have changing children")

    def SetSyncSpeed(self, speed: int) -> bool:
        """Limit resynchronisation to that many KiB/s; could all children do it?"""
        results = [child.SetSyncSpeed(speed) for child in self._children if child is not None]
        return all(results)

    def SetInfo(self, text: str) -> None:
        """Remember a text in the device's own metadata, if the kind has a place for it."""
        for child in self._children:
            if child is not None:
                child.SetInfo(text)

    def GetSyncStatus(self) -> objects.BlockDevStatus:
        """Condition of this device alone; the default is that of one without a mirror."""
        return objects.BlockDevStatus(
            dev_path=self.dev_path,
            major=self.major,
            minor=self.minor,
            sync_percent=None,
            estimated_time=None,
            is_degraded=False,
            ldisk_status=constants.LDS_OKAY,
        )

    def CombinedSyncStatus(self) -> objects.BlockDevStatus:
        """Condition of this device and its direct children, merged."""
        children = [child.GetSyncStatus() for child in self._children if child is not None]
        return MergeSyncStatus(self.GetSyncStatus(), children)

    def GetActualSize(self) -> int:
        """Size in bytes.

        @raise errors.BlockDeviceError: it can not be found out
        """
        if self.dev_path is None:
            Fail(f"The size of {self} is not known: it is not active")
        command = ["blockdev", "--getsize64", self.dev_path]
        result = self._rt.processes.run(command)
        if result.failed:
            Fail(f"Can't get the size of {self}: {result.fail_reason}, {result.output.strip()}")
        try:
            return int(result.stdout.strip())
        except ValueError:
            Fail(f"Can't get the size of {self}: {result.stdout!r} is no number")

    def __str__(self) -> str:
        return f"{self.__class__.__name__} {'/'.join(map(str, self.unique_id))}"


def MergeSyncStatus(
    own: objects.BlockDevStatus, children: Iterable[objects.BlockDevStatus]
) -> objects.BlockDevStatus:
    """The worst of several conditions: lowest percentage, longest time, degraded if any is."""
    every = [own, *children]
    percents = [item.sync_percent for item in every if item.sync_percent is not None]
    times = [item.estimated_time for item in every if item.estimated_time is not None]
    return objects.BlockDevStatus(
        dev_path=own.dev_path,
        major=own.major,
        minor=own.minor,
        sync_percent=min(percents, default=None),
        estimated_time=max(times, default=None),
        is_degraded=any(item.is_degraded for item in every),
        ldisk_status=max(item.ldisk_status for item in every),
    )
