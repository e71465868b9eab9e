"""Calls about volumes of LVM: one command a call, whatever there is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from .. import errors, runtime
from ..utils import lvm, text
from .base import Fail

#: Size in MiB as text, inactive, in use.
VolumeState = tuple[str, bool, bool]


def ListVolumeGroups(rt: runtime.Runtime = runtime.DEFAULT) -> dict[str, int]:
    """Volume groups of this node and their sizes in MiB; empty if LVM can't be asked."""
    return lvm.ListVolumeGroups(rt)


def GetVolumeGroupInfo(
    vg_name: str | None, rt: runtime.Runtime = runtime.DEFAULT
) -> dict[str, int | None]:
    """C{vg_size} and C{vg_free} in MiB; both None if there is no such volume group."""
    unknown: dict[str, int | None] = {"vg_size": None, "vg_free": None}
    if not vg_name:
        return unknown
    try:
        for record in lvm.Report("vgs", ("vg_name", "vg_size", "vg_free"), [vg_name], rt):
            return {name: round(lvm.ToMebibytes(record[name])) for name in unknown}
    except errors.LVMError as err:
        logging.error("Can't tell of volume group %s: %s", vg_name, err)
    return unknown


def ListPhysicalVolumes(
    vg_names: Sequence[str], rt: runtime.Runtime = runtime.DEFAULT
) -> list[lvm.PVInfo] | None:
    """(free MiB, name, group) of the physical volumes of groups; None if LVM can't be asked.

    Those where nothing can be put are told of, too.
    """
    try:
        return lvm.GetPVInfo(vg_names, filter_allocatable=False, rt=rt)
    except errors.LVMError as err:
        logging.error("Can't list physical volumes: %s", err)
        return None


def GetVolumeList(vg_name: str, rt: runtime.Runtime = runtime.DEFAULT) -> dict[str, VolumeState]:
    """Logical volumes of a group and their states; those that have lost data are not there.

    @raise RPCFail: they can not be listed
    """
    try:
        return ParseVolumeList(lvm.Report("lvs", ("lv_name", "lv_size", "lv_attr"), [vg_name], rt))
    except errors.LVMError as err:
        Fail(f"Can't list the logical volumes of {vg_name}: {err}")


def ParseVolumeList(records: Iterable[lvm.Record]) -> dict[str, VolumeState]:
    """States of logical volumes from a report; pure."""
    volumes = {}
    for record in records:
        attr = record["lv_attr"]
        if len(attr) < 6:
            logging.error("Logical volume %s has odd attributes: %r", record["lv_name"], attr)
            continue
        if lvm.IsBroken(attr):
            # Whoever looks for it must find out that it has to be made anew.
            continue
        size = f"{lvm.ToMebibytes(record['lv_size']):.2f}"
        volumes[record["lv_name"]] = (size, attr[4] == "-", attr[5] == "o")
    return volumes


def NodeVolumes(rt: runtime.Runtime = runtime.DEFAULT) -> list[dict[str, Any]]:
    """All logical volumes of this node: a dict for each volume and device that it lies on.

    Its C{name}, C{size} (MiB), C{dev} and C{vg} are texts.

    @raise RPCFail: they can not be listed
    """
    fields = ("lv_name", "lv_size", "devices", "vg_name")
    try:
        # The parts of mirrors and the like are needed to know their devices.
        return ParseNodeVolumes(lvm.Report("lvs", fields, rt=rt, options=["--all"]))
    except errors.LVMError as err:
        Fail(f"Can't list logical volumes: {err}")


def ParseNodeVolumes(records: Sequence[lvm.Record]) -> list[dict[str, str]]:
    """Logical volumes and their devices from a report with a record for each segment; pure.

    A volume that consists of other, hidden ones lies on the devices of these.
    """
    below: dict[tuple[str, str], list[str]] = {}
    for record in records:
        key = (record["vg_name"], record["lv_name"].strip("[]"))
        below.setdefault(key, []).extend(_SplitDevices(record["devices"]))

    def Devices(vg_name: str, name: str, above: tuple[str, ...] = ()) -> list[str]:
        if (vg_name, name) not in below or name in above:
            return [name]
        parts = below[vg_name, name]
        found = [device for part in parts for device in Devices(vg_name, part, (*above, name))]
        return list(text.UniqueSequence(found))

    volumes = {
        (record["vg_name"], record["lv_name"]): f"{lvm.ToMebibytes(record['lv_size']):.2f}"
        for record in records
        # Hidden ones, that no one can use by themselves, are in brackets.
        if not record["lv_name"].startswith("[")
    }
    return [
        {"name": name, "size": size, "dev": device, "vg": vg_name}
        for (vg_name, name), size in volumes.items()
        for device in Devices(vg_name, name)
    ]


def _SplitDevices(devices: str) -> list[str]:
    """Names out of C{/dev/sda1(0),part_of_mirror(0)}; the numbers are the first extents."""
    return [device.rpartition("(")[0] or device for device in devices.split(",") if device]
