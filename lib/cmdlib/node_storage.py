"""Storage of nodes: logical volumes, storage units, and what can be done with these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .. import constants, errors, locking, objects, opcodes, pathutils
from ..utils import text
from . import announce, base, disk_ops


class _NodesLU(base.NoHooksLU):
    """Looks at the nodes given, or all, with shared locks."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        names = base.GetWantedNodes(self, self.op.nodes) if self.op.nodes else locking.ALL_SET
        self.needed_locks = {locking.LEVEL_NODE: names}
        self.share_locks[locking.LEVEL_NODE] = 1

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def _GetNodes(self) -> list[str]:
        return text.NiceSort(self.acquired_locks[locking.LEVEL_NODE])

    def _GetPayload(self, node: str, result: Any) -> Any:
        """What a node answered; nothing, with a warning, if it did not."""
        if result.offline:
            return []
        if result.fail_msg:
            self.LogWarning("Node %s can not tell of its storage: %s", node, result.fail_msg)
            return []
        return result.payload


# Logical volumes


def MapVolumeOwners(
    instances: Iterable[objects.Instance],
) -> dict[str, dict[str, str]]:
    """Whose each logical volume is: node -> volume -> instance; pure."""
    owners: dict[str, dict[str, str]] = {}
    for instance in instances:
        for node, volumes in instance.MapLVsByNode().items():
            owners.setdefault(node, {}).update(dict.fromkeys(volumes, instance.name))
    return owners


class LUNodeQueryvols(_NodesLU):
    """List logical volumes: a row for each volume and physical device, of texts."""

    _STATIC = text.FieldSet("node")
    _LIVE = text.FieldSet("phys", "vg", "name", "size", "instance")

    def CheckArguments(self) -> None:
        base.CheckOutputFields(self._STATIC, self._LIVE, self.op.output_fields)

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[str]]:
        nodes = self._GetNodes()
        results = self.rpc.call_node_volumes(nodes)
        owners = MapVolumeOwners(self.cfg.GetAllInstancesInfo().values())
        rows = []
        for node in nodes:
            volumes = self._GetPayload(node, results[node])
            for volume in sorted(volumes, key=lambda item: str(item["dev"])):
                values = {
                    "node": node,
                    "phys": volume["dev"],
                    "vg": volume["vg"],
                    "name": volume["name"],
                    "size": int(float(volume["size"])),
                    "instance": owners.get(node, {}).get(volume["name"], "-"),
                }
                rows.append([str(values[field]) for field in self.op.output_fields])
        return rows


# Storage units


def _GetStorageArgs(lu: base.LogicalUnit, storage_type: str) -> list[Any]:
    """What nodes must know to find the units of a type."""
    if storage_type == constants.ST_FILE:
        return [[lu.cfg.GetFileStorageDir()]]
    return []


class LUNodeQueryStorage(_NodesLU):
    """List the storage units of a type."""

    #: What the nodes are not asked for.
    _OWN = (constants.SF_NODE, constants.SF_TYPE)
    _STATIC = text.FieldSet(constants.SF_NODE)
    _LIVE = text.FieldSet(*constants.VALID_STORAGE_FIELDS)

    def CheckArguments(self) -> None:
        base.CheckOutputFields(self._STATIC, self._LIVE, self.op.output_fields)

    def CheckPrereq(self) -> None:
        if self.op.storage_type == constants.ST_FILE and not (
            pathutils.ENABLE_FILE_STORAGE and self.cfg.GetFileStorageDir()
        ):
            raise errors.OpPrereqError(
                "storage_type: file storage is disabled in this cluster", errors.ECODE_INVAL
            )

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[Any]]:
        op = self.op
        nodes = self._GetNodes()
        # The name is what the rows are sorted by.
        asked = text.UniqueSequence(
            [
                constants.SF_NAME,
                *(field for field in op.output_fields if field not in self._OWN),
            ]
        )
        args = _GetStorageArgs(self, op.storage_type)
        results = self.rpc.call_storage_list(nodes, op.storage_type, args, op.name, asked)
        rows = []
        for node in nodes:
            units = {row[0]: row for row in self._GetPayload(node, results[node])}
            for name in text.NiceSort(units):
                values = {
                    constants.SF_NODE: node,
                    constants.SF_TYPE: op.storage_type,
                    **dict(zip(asked, units[name], strict=True)),
                }
                rows.append([values[field] for field in op.output_fields])
        return rows


class _UnitLU(base.NoHooksLU):
    """Does something with a storage unit of a node, whose lock it holds."""

    def ExpandNames(self) -> None:
        self.op.node_name = base.ExpandNodeName(self.cfg, self.op.node_name)
        self.needed_locks = {locking.LEVEL_NODE: [self.op.node_name]}


class LUNodeModifyStorage(_UnitLU):
    """Change a storage unit, e.g. make a physical volume unallocatable (SU2)."""

    def CheckPrereq(self) -> None:
        storage_type = self.op.storage_type
        fields = constants.MODIFIABLE_STORAGE_FIELDS.get(storage_type)
        if fields is None:
            raise errors.OpPrereqError(
                f"storage_type: nothing of units of the type {storage_type!r} can be changed, only"
                f" of {', '.join(sorted(constants.MODIFIABLE_STORAGE_FIELDS))}",
                errors.ECODE_INVAL,
            )
        unknown = sorted(set(self.op.changes) - fields)
        if unknown:
            raise errors.OpPrereqError(
                f"changes: {', '.join(unknown)} of a {storage_type} can not be changed, only"
                f" {', '.join(sorted(fields))}",
                errors.ECODE_INVAL,
            )

    def DescribeChanges(self) -> list[announce.Change]:
        op = self.op
        values = ", ".join(f"{key} = {value}" for key, value in sorted(op.changes.items()))
        what = f"change the storage unit {op.name} ({op.storage_type}): {values}"
        return announce.OnNodes([op.node_name], what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        op = self.op
        args = _GetStorageArgs(self, op.storage_type)
        self.rpc.call_storage_modify(
            op.node_name, op.storage_type, args, op.name, op.changes
        ).Raise(f"Storage unit {op.name} on node {op.node_name} can not be changed")


class LURepairNodeStorage(_UnitLU):
    """Repair a volume group, if every instance on it has a good copy elsewhere (SU3)."""

    def CheckPrereq(self) -> None:
        storage_type = self.op.storage_type
        operations: Mapping[str, frozenset[str]] = constants.VALID_STORAGE_OPERATIONS
        if constants.SO_FIX_CONSISTENCY not in operations.get(storage_type, ()):
            raise errors.OpPrereqError(
                f"storage_type: units of the type {storage_type!r} can not be repaired",
                errors.ECODE_INVAL,
            )
        problems: list[str] = []
        code = errors.ECODE_STATE
        for name in text.NiceSort(self.cfg.GetInstanceList()):
            instance = base.GetInstance(self, name)
            if not instance.MapLVsByNode().get(self.op.node_name):
                continue
            try:
                problems += self._CheckInstance(instance)
            except errors.OpExecError as err:
                problems.append(str(err.args[0]))
                code = errors.ECODE_ENVIRON
        if not problems:
            return
        if not self.op.ignore_consistency:
            raise errors.OpPrereqError(
                f"Repairing {self.op.name} on node {self.op.node_name} could lose data:"
                f" {'; '.join(problems)} (--ignore-consistency repairs it all the same)",
                code,
            )
        for problem in problems:
            self.LogWarning("%s", problem)

    def _CheckInstance(self, instance: objects.Instance) -> list[str]:
        """Why the instance needs what is on the node."""
        others = [node for node in instance.all_nodes if node != self.op.node_name]
        if not others:
            return [f"instance {instance.name} has no copy of its disks on another node"]
        problems = []
        for node in others:
            faulty = disk_ops.FindFaultyDisks(self, instance, node)
            if faulty:
                indices = ", ".join(map(str, faulty))
                problems.append(f"instance {instance.name} has faulty disks on {node}: {indices}")
        return problems

    def DescribeChanges(self) -> list[announce.Change]:
        what = f"repair the storage unit {self.op.name} ({self.op.storage_type})"
        return announce.OnNodes([self.op.node_name], what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        op = self.op
        feedback_fn(f"Repairing storage unit '{op.name}' on {op.node_name} ...")
        args = _GetStorageArgs(self, op.storage_type)
        self.rpc.call_storage_execute(
            op.node_name, op.storage_type, args, op.name, constants.SO_FIX_CONSISTENCY
        ).Raise(f"Storage unit {op.name} on node {op.node_name} can not be repaired")


LOGICAL_UNITS: Final = {
    opcodes.OpNodeQueryvols: LUNodeQueryvols,
    opcodes.OpNodeQueryStorage: LUNodeQueryStorage,
    opcodes.OpNodeModifyStorage: LUNodeModifyStorage,
    opcodes.OpRepairNodeStorage: LURepairNodeStorage,
}
