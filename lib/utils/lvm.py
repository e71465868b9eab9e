"""Volume groups of this host: what cluster set-up and verification ask for."""

from collections.abc import Mapping

from .. import runtime
from . import text


def ListVolumeGroups(runtime: runtime.Runtime = runtime.DEFAULT) -> dict[str, int]:
    """Size in MiB of each volume group; empty if LVM can't be asked."""
    result = runtime.processes.run(
        ["vgs", "--noheadings", "--units=m", "--nosuffix", "-o", "name,size"]
    )
    if result.failed:
        return {}
    return ParseVolumeGroups(result.stdout)


def ParseVolumeGroups(output: str) -> dict[str, int]:
    """Volume groups from the output of C{vgs -o name,size} in MiB."""
    groups = {}
    for line in output.splitlines():
        name, _, size = line.strip().rpartition(" ")
        size_value = text.TryConvert(float, size)
        if name and isinstance(size_value, float):
            groups[name.strip()] = int(size_value)
    return groups


def CheckVolumeGroupSize(groups: Mapping[str, int], name: str, minsize: int) -> str | None:
    """Why a volume group can't be used (missing, smaller than minsize MiB); None if it can."""
    if name not in groups:
        return f"volume group '{name}' missing"
    if groups[name] < minsize:
        return f"volume group '{name}' too small ({minsize} MiB required, {groups[name]} MiB found)"
    return None
