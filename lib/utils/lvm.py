"""LVM of this host: the one place that runs its programs and reads what they report.

Reports are asked for as JSON with all sizes in bytes (lvm2 2.02.158 and later), so there is nothing
to split and no unit to guess; L{ParseReport} is the only parser. One command lists everything there
is: nothing here is called once an object.

The programs read no standard input, never ask, and are told not to complain of descriptors. A
virtual node must not touch the volumes of its host: it has LVM only where somebody has put a
configuration of its own below its root (L{pathutils.LVM_SYSTEM_DIR}), which says what devices it
may see. Without one it has no volumes at all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from .. import errors, pathutils, runtime, serializer

if TYPE_CHECKING:
    from . import process

MEBIBYTE: Final = 1024 * 1024

#: Types of logical volumes that survive the loss of a device: mirrors and RAID.
_REDUNDANT: Final = frozenset("mMrR")

#: Seconds that a report may take. A device that does not answer blocks LVM for ever, and with it a
#: thread of the node daemon for each question.
_REPORT_TIMEOUT: Final = 120.0

#: A row of a report: name of the field -> its value as text.
Record = dict[str, str]


# Running


def HasConfiguration() -> bool:
    """May this node use LVM: always on a real node, on a virtual one if it was configured."""
    return not pathutils.IsVirtual() or os.path.isdir(pathutils.LVM_SYSTEM_DIR)


def Run(
    argv: Sequence[str],
    rt: runtime.Runtime = runtime.DEFAULT,
    timeout: float | None = None,
) -> process.RunResult:
    """Run a program of LVM to its end, whatever that is.

    @param timeout: seconds after which it is ended; only for one that changes nothing
    @raise errors.LVMError: it can not be run at all
    """
    env = {"LVM_SUPPRESS_FD_WARNINGS": "1"}
    if pathutils.IsVirtual():
        if not HasConfiguration():
            raise errors.LVMError(
                f"Can't run {argv[0]}: this virtual node has no LVM (there is no configuration of"
                f" its own in {pathutils.LVM_SYSTEM_DIR})"
            )
        env["LVM_SYSTEM_DIR"] = pathutils.LVM_SYSTEM_DIR
    try:
        return rt.processes.run(list(argv), env=env, timeout=timeout)
    except (errors.OpExecError, OSError) as err:
        raise errors.LVMError(f"{err} (is lvm2 installed?)") from err


def RunOrFail(
    argv: Sequence[str], what: str, rt: runtime.Runtime = runtime.DEFAULT
) -> process.RunResult:
    """Run a program of LVM that must succeed.

    @param what: what it was to do, as the subject of a sentence that ends in C{failed}
    @raise errors.LVMError: it did not; with its output
    """
    result = Run(argv, rt)
    if result.failed:
        raise errors.LVMError(f"{what} failed: {DescribeFailure(result)}")
    return result


def DescribeFailure(result: process.RunResult) -> str:
    """How a program of LVM failed: command, exit status and what it complained of."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    # Warnings are of the host as a whole, and in every answer.
    errors_only = [line for line in lines if not line.startswith("WARNING:")]
    complaints = "; ".join(errors_only or lines) or "it said nothing"
    return f"'{result.cmd}' {result.fail_reason}: {complaints}"


# Reports


def RunReport(
    command: str,
    fields: Sequence[str],
    names: Iterable[str] = (),
    rt: runtime.Runtime = runtime.DEFAULT,
    options: Sequence[str] = (),
) -> process.RunResult:
    """Ask C{pvs}, C{vgs} or C{lvs} for a report; for who wants to know how it fails.

    The arguments are those of L{Report}.

    @raise errors.LVMError: it can not be run at all
    """
    names = list(names)
    for name in names:
        if name.startswith("-"):
            raise errors.LVMError(f"{name!r} can't be the name of anything in LVM")
    argv = [command, "--reportformat", "json", "--units", "b", "--nosuffix", *options]
    return Run([*argv, "-o", ",".join(fields), *names], rt, _REPORT_TIMEOUT)


def Report(
    command: str,
    fields: Sequence[str],
    names: Iterable[str] = (),
    rt: runtime.Runtime = runtime.DEFAULT,
    options: Sequence[str] = (),
) -> list[Record]:
    """What C{pvs}, C{vgs} or C{lvs} reports.

    @param fields: fields of LVM, each once
    @param names: only these objects; all of them if there is none
    @param options: further options of the program
    @return: a record for each object; for fields of segments, one for each segment
    @raise errors.LVMError: it failed, also if a name is not known, or is not understood
    """
    if not HasConfiguration():
        return []
    result = RunReport(command, fields, names, rt, options)
    if result.failed:
        raise errors.LVMError(f"Listing with {command} failed: {DescribeFailure(result)}")
    return ParseReport(result.stdout, fields)


def ParseReport(output: str, fields: Sequence[str]) -> list[Record]:
    """Records of a report in JSON.

    @raise errors.LVMError: it is none, or a record lacks one of the fields
    """
    try:
        data = serializer.Load(output)
        records = [
            {str(name): "" if value is None else str(value) for name, value in record.items()}
            for report in data["report"]
            for rows in report.values()
            for record in rows
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise errors.LVMError(f"Can't understand what LVM reports: {output!r}") from err
    for record in records:
        missing = [field for field in fields if field not in record]
        if missing:
            raise errors.LVMError(
                f"LVM did not report {', '.join(missing)}, only {', '.join(sorted(record))}"
            )
    return records


def ToMebibytes(size: str) -> float:
    """A size of a report in MiB; what has no size has 0.

    @raise errors.LVMError: it is no number
    """
    try:
        return int(size or "0") / MEBIBYTE
    except ValueError:
        raise errors.LVMError(f"LVM reports the size {size!r}, which is no number") from None


# Physical volumes


class PVInfo(NamedTuple):
    """A physical volume, in the order of importance for who looks for space.

    @ivar free: MiB
    """

    free: float
    pv_name: str
    vg_name: str


def IsAllocatable(pv_attr: str) -> bool:
    """Would LVM put new extents on a physical volume, by its attributes?

    One whose device is missing keeps its permission, but nothing can be put there.
    """
    return pv_attr[:1] == "a" and pv_attr[2:3] != "m"


def GetPVInfo(
    vg_names: Iterable[str],
    filter_allocatable: bool = True,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> list[PVInfo]:
    """Physical volumes that belong to volume groups.

    @param vg_names: only of these groups; of all if there is none
    @param filter_allocatable: leave out those where nothing can be put
    @raise errors.LVMError: they can not be listed
    """
    wanted = set(vg_names)
    records = Report("pvs", ("pv_name", "vg_name", "pv_free", "pv_attr"), rt=rt)
    return [
        PVInfo(ToMebibytes(record["pv_free"]), record["pv_name"], record["vg_name"])
        for record in records
        if (not wanted or record["vg_name"] in wanted)
        and (not filter_allocatable or IsAllocatable(record["pv_attr"]))
    ]


# Volume groups


def ListVolumeGroups(rt: runtime.Runtime = runtime.DEFAULT) -> dict[str, int]:
    """Size in MiB of each volume group, rounded down; empty if LVM can't be asked."""
    try:
        records = Report("vgs", ("vg_name", "vg_size"), rt=rt)
        return {record["vg_name"]: int(ToMebibytes(record["vg_size"])) for record in records}
    except errors.LVMError as err:
        logging.error("Can't list volume groups: %s", err)
        return {}


def CheckVolumeGroupSize(groups: Mapping[str, int], name: str, minsize: int) -> str | None:
    """Why a volume group can't be used (missing, smaller than minsize MiB); None if it can."""
    if name not in groups:
        return f"volume group '{name}' missing"
    if groups[name] < minsize:
        return f"volume group '{name}' too small ({minsize} MiB required, {groups[name]} MiB found)"
    return None


# Logical volumes


def IsBroken(lv_attr: str) -> bool:
    """Has a logical volume lost data, by its attributes (6 or more characters)?

    Either it is one of old LVM whose lost parts were replaced by errors (C{v}), or a device of it
    is missing (health C{p}) and its type has no other copy.
    """
    if lv_attr[:1] == "v":
        return True
    return lv_attr[8:9] == "p" and lv_attr[0] not in _REDUNDANT


def CheckVolumeName(name: str) -> str | None:
    """Why something can't be the name of a volume group or logical volume; None if it can."""
    if not name or name.startswith("-"):
        return f"volume name {name!r} is empty or looks like an option"
    wrong = sorted(
        {char for char in name if not (char.isascii() and char.isalnum() or char in "+_.-")}
    )
    if wrong:
        return f"volume name {name!r} has characters that LVM does not allow: {' '.join(wrong)}"
    if name in (".", "..", "snapshot", "pvmove"):
        return f"volume name {name!r} is reserved by LVM"
    for part in ("_mlog", "_mimage"):
        if part in name:
            return f"volume name {name!r} has {part!r}, which LVM reserves for parts of mirrors"
    return None
