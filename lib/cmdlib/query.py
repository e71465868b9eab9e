"""What the cluster tells of itself: parameters, single values, exports, operating systems."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .. import constants, errors, opcodes, pathutils
from ..utils import io, text
from . import base


class LUClusterQuery(base.NoHooksLU):
    """All parameters of the cluster."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        self.needed_locks = {}

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> dict[str, Any]:
        cluster = self.cfg.GetClusterInfo()
        enabled = cluster.enabled_hypervisors
        return {
            "software_version": constants.RELEASE_VERSION,
            "protocol_version": constants.PROTOCOL_VERSION,
            "config_version": constants.CONFIG_VERSION,
            "os_api_version": max(constants.OS_API_VERSIONS),
            "export_version": constants.EXPORT_VERSION,
            "architecture": [platform.architecture()[0], platform.machine()],
            "name": cluster.cluster_name,
            "master": cluster.master_node,
            "default_hypervisor": enabled[0],
            "enabled_hypervisors": enabled,
            "hvparams": {name: cluster.hvparams[name] for name in enabled},
            "os_hvp": {
                os_name: {name: values for name, values in per_hv.items() if name in enabled}
                for os_name, per_hv in cluster.os_hvp.items()
            },
            "beparams": cluster.beparams,
            "nicparams": cluster.nicparams,
            "diskparams": cluster.diskparams,
            "default_iallocator": cluster.default_iallocator,
            "candidate_pool_size": cluster.candidate_pool_size,
            "master_netdev": cluster.master_netdev,
            "volume_group_name": cluster.volume_group_name,
            "file_storage_dir": cluster.file_storage_dir,
            "shared_file_storage_dir": cluster.shared_file_storage_dir or "",
            "maintain_node_health": cluster.maintain_node_health,
            "ctime": cluster.ctime,
            "mtime": cluster.mtime,
            "uuid": cluster.uuid,
            "tags": sorted(cluster.GetTags()),
            "uid_pool": cluster.uid_pool,
        }


class LUClusterConfigQuery(base.NoHooksLU):
    """Single values that programs ask for often."""

    LOOKS_ONLY = True
    _FIELDS = text.FieldSet("cluster_name", "master_node", "drain_flag", "watcher_pause")

    def CheckArguments(self) -> None:
        base.CheckOutputFields(self._FIELDS, text.FieldSet(), self.op.output_fields)

    def ExpandNames(self) -> None:
        self.needed_locks = {}

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def _Get(self, name: str) -> Any:
        rt = self.context.runtime
        if name == "cluster_name":
            return self.cfg.GetClusterName()
        if name == "master_node":
            return self.cfg.GetMasterNode()
        if name == "drain_flag":
            return rt.files.exists(pathutils.JOB_QUEUE_DRAIN_FILE)
        return io.ReadWatcherPauseFile(pathutils.WATCHER_PAUSEFILE, rt.clock.time())

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[Any]:
        return [self._Get(name) for name in self.op.output_fields]


# Operating systems

#: One OS on one node: path, is it valid, why not, variants.
_OsEntry = Sequence[Any]


def MapOses(
    payloads: Mapping[str, Iterable[Sequence[Any]]],
) -> dict[str, dict[str, list[_OsEntry]]]:
    """Turn what the nodes reported around; pure.

    @param payloads: node -> its list of (name, path, valid, text, variants), in search order
    @return: OS -> node -> list of (path, valid, text, variants), with an entry for each node
    """
    found: dict[str, dict[str, list[_OsEntry]]] = {}
    for node, entries in payloads.items():
        for name, *entry in entries:
            per_node = found.setdefault(name, {other: [] for other in payloads})
            per_node[node].append(entry)
    return found


def IsValidOs(per_node: Mapping[str, Sequence[_OsEntry]]) -> bool:
    """Is what each node would use, its first entry, there and valid?"""
    return all(entries and entries[0][1] for entries in per_node.values())


def GetCommonVariants(per_node: Mapping[str, Sequence[_OsEntry]]) -> list[str]:
    """The variants that every node has, in the order of the first node; none of an invalid OS."""
    if not IsValidOs(per_node):
        return []
    lists = [list(entries[0][3]) for entries in per_node.values()]
    return [name for name in lists[0] if all(name in other for other in lists)]


class LUOsDiagnose(base.NoHooksLU):
    """The operating systems, as each node sees them."""

    LOOKS_ONLY = True
    _FIELDS = text.FieldSet("name", "valid", "node_status", "variants")

    def CheckArguments(self) -> None:
        if self.op.names:
            raise errors.OpPrereqError(
                f"Selecting operating systems by name is not supported: {self.op.names!r}",
                errors.ECODE_INVAL,
            )
        base.CheckOutputFields(self._FIELDS, text.FieldSet(), self.op.output_fields)

    def ExpandNames(self) -> None:
        self.needed_locks = {}

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[Any]]:
        results = self.rpc.call_os_diagnose(text.NiceSort(self.cfg.GetOnlineNodeList()))
        payloads = {}
        for name, result in results.items():
            if result.fail_msg:
                self.LogWarning("Node %s can not be asked for its OSes: %s", name, result.fail_msg)
            else:
                payloads[name] = result.payload
        oses = MapOses(payloads)
        rows = []
        for name in text.NiceSort(oses):
            per_node = oses[name]
            values = {
                "name": name,
                "valid": IsValidOs(per_node),
                "variants": GetCommonVariants(per_node),
                "node_status": per_node,
            }
            rows.append([values[field] for field in self.op.output_fields])
        return rows


LOGICAL_UNITS: Final = {
    opcodes.OpClusterQuery: LUClusterQuery,
    opcodes.OpClusterConfigQuery: LUClusterConfigQuery,
    opcodes.OpOsDiagnose: LUOsDiagnose,
}
