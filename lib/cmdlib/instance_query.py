"""Listing instances and telling all about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, locking, objects, opcodes
from ..config import difference
from ..utils import text
from . import base, disk_ops


@dataclass(frozen=True)
class InstanceFacts:
    """What a field of an instance may look at; parameters are filled.

    @ivar primary_offline: is its primary node marked offline?
    @ivar primary_up: did its primary node answer? (only if nodes were asked)
    @ivar live: what that node reported of the instance; None if it does not run there
    @ivar elsewhere: does another node say that it runs there?
    """

    instance: objects.Instance
    hvparams: Mapping[str, Any]
    beparams: Mapping[str, Any]
    nicparams: list[dict[str, Any]]
    primary_offline: bool = False
    primary_up: bool = False
    live: Mapping[str, Any] | None = None
    elsewhere: bool = False


def GetStatus(facts: InstanceFacts) -> str:
    """What a list shows of wanted and real state together."""
    if facts.primary_offline:
        return constants.INSTST_NODEOFFLINE
    if not facts.primary_up:
        return constants.INSTST_NODEDOWN
    if facts.live is not None:
        return constants.INSTST_RUNNING if facts.instance.admin_up else constants.INSTST_ERRORUP
    if facts.elsewhere:
        return constants.INSTST_WRONGNODE
    return constants.INSTST_ERRORDOWN if facts.instance.admin_up else constants.INSTST_ADMINDOWN


def _GetOperState(facts: InstanceFacts) -> bool | None:
    return facts.live is not None if facts.primary_up else None


def _GetOperRam(facts: InstanceFacts) -> Any:
    if not facts.primary_up:
        return None
    return "-" if facts.live is None else facts.live.get("memory", "?")


def _GetDiskUsage(facts: InstanceFacts) -> int | None:
    return disk_ops.ComputeDiskSize(
        facts.instance.disk_template, [disk.size for disk in facts.instance.disks]
    )


_InstanceFn = Callable[[InstanceFacts], Any]


def _Attribute(name: str) -> _InstanceFn:
    return lambda facts: getattr(facts.instance, name)


def _DiskSize(index: int) -> _InstanceFn:
    def Get(facts: InstanceFacts) -> int | None:
        disks = facts.instance.disks
        return disks[index].size if index < len(disks) else None

    return Get


def _OfNic(facts: InstanceFacts, index: int, what: str) -> Any:
    nic, params = facts.instance.nics[index], facts.nicparams[index]
    if what in ("mac", "ip"):
        return getattr(nic, what)
    if what == "bridge":
        bridged = params[constants.NIC_MODE] == constants.NIC_MODE_BRIDGED
        return params[constants.NIC_LINK] if bridged else None
    return params[what]


def _NicField(index: int, what: str) -> _InstanceFn:
    return lambda facts: _OfNic(facts, index, what) if index < len(facts.instance.nics) else None


def _NicList(what: str) -> _InstanceFn:
    return lambda facts: [_OfNic(facts, i, what) for i in range(len(facts.instance.nics))]


#: Need the configuration only.
STATIC_FIELDS: Final[dict[str, _InstanceFn]] = {
    "name": _Attribute("name"),
    "os": _Attribute("os"),
    "pnode": _Attribute("primary_node"),
    "snodes": lambda facts: text.NiceSort(facts.instance.secondary_nodes),
    "admin_state": lambda facts: bool(facts.instance.admin_up),
    "disk_template": _Attribute("disk_template"),
    "ip": _NicField(0, "ip"),
    "mac": _NicField(0, "mac"),
    "bridge": _NicField(0, "bridge"),
    "nic_mode": _NicField(0, "mode"),
    "nic_link": _NicField(0, "link"),
    "sda_size": _DiskSize(0),
    "sdb_size": _DiskSize(1),
    "vcpus": lambda facts: facts.beparams[constants.BE_VCPUS],
    "tags": lambda facts: sorted(facts.instance.GetTags()),
    "network_port": _Attribute("network_port"),
    "hypervisor": _Attribute("hypervisor"),
    "serial_no": _Attribute("serial_no"),
    "ctime": _Attribute("ctime"),
    "mtime": _Attribute("mtime"),
    "uuid": _Attribute("uuid"),
    "beparams": lambda facts: dict(facts.beparams),
    "hvparams": lambda facts: dict(facts.hvparams),
    "disk_usage": _GetDiskUsage,
    "disk.count": lambda facts: len(facts.instance.disks),
    "disk.sizes": lambda facts: [disk.size for disk in facts.instance.disks],
    "nic.count": lambda facts: len(facts.instance.nics),
    "nic.macs": _NicList("mac"),
    "nic.ips": _NicList("ip"),
    "nic.modes": _NicList("mode"),
    "nic.links": _NicList("link"),
    "nic.bridges": _NicList("bridge"),
}

#: Need an answer of the primary node.
LIVE_FIELDS: Final[dict[str, _InstanceFn]] = {
    "oper_state": _GetOperState,
    "oper_ram": _GetOperRam,
    "status": GetStatus,
}

_HV_NAMES: Final = sorted(set(constants.HVS_PARAMETER_TYPES) - constants.HVC_GLOBALS)
_INDEXED: Final = (r"disk\.size/([0-9]+)", r"nic\.(mac|ip|mode|link|bridge)/([0-9]+)")
_STATIC: Final = text.FieldSet(
    *(name.replace(".", r"\.") for name in STATIC_FIELDS),
    *_INDEXED,
    *(f"hv/{name}" for name in _HV_NAMES),
    *(f"be/{name}" for name in constants.BES_PARAMETERS),
)
_LIVE: Final = text.FieldSet(*LIVE_FIELDS)


def GetField(name: str) -> _InstanceFn:
    """The function of a field whose name was checked."""
    found = STATIC_FIELDS.get(name) or LIVE_FIELDS.get(name)
    if found is not None:
        return found
    kind, _, argument = name.partition("/")
    if kind == "hv":
        return lambda facts: facts.hvparams.get(argument)
    if kind == "be":
        return lambda facts: facts.beparams.get(argument)
    if kind == "disk.size":
        return _DiskSize(int(argument))
    return _NicField(int(argument), kind.removeprefix("nic."))


class LUInstanceQuery(base.NoHooksLU):
    """List instances; one call to each primary node at the most, and only if a field needs it."""

    LOOKS_ONLY = True

    def CheckArguments(self) -> None:
        base.CheckOutputFields(_STATIC, _LIVE, self.op.output_fields)

    def ExpandNames(self) -> None:
        self.wanted = base.GetWantedInstances(self, self.op.names) if self.op.names else None
        self.live = any(name in LIVE_FIELDS for name in self.op.output_fields)
        self.needed_locks = {}
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)
        if self.live and self.op.use_locking:
            names = locking.ALL_SET if self.wanted is None else self.wanted
            self.needed_locks[locking.LEVEL_INSTANCE] = names
            self.needed_locks[locking.LEVEL_NODE] = []
            self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            self._LockInstancesNodes()

    def CheckPrereq(self) -> None:
        """Nothing to check: an instance that went meanwhile is reported by L{Exec}."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> list[list[Any]]:
        instances = self.cfg.GetAllInstancesInfo()
        names = base.CheckStillThere("instance", self.wanted, instances)
        chosen = [instances[name] for name in names]
        cluster = self.cfg.GetClusterInfo()
        offline: set[str] = set()
        answers: dict[str, Mapping[str, Any]] = {}
        if self.live:
            nodes = text.NiceSort({instance.primary_node for instance in chosen})
            kinds = sorted({instance.hypervisor for instance in chosen})
            for node, result in self.rpc.call_all_instances_info(nodes, kinds).items():
                if result.offline:
                    offline.add(node)
                elif not result.fail_msg:
                    answers[node] = result.payload
        getters = [GetField(name) for name in self.op.output_fields]
        defaults = cluster.nicparams[constants.PP_DEFAULT]
        rows = []
        for instance in chosen:
            primary = instance.primary_node
            facts = InstanceFacts(
                instance,
                cluster.FillHV(instance, skip_globals=True),
                cluster.FillBE(instance),
                [objects.FillDict(defaults, nic.nicparams or {}) for nic in instance.nics],
                primary in offline,
                primary in answers,
                # Its own primary alone: what runs elsewhere is not this instance as it should be.
                answers.get(primary, {}).get(instance.name),
                any(
                    instance.name in running for node, running in answers.items() if node != primary
                ),
            )
            rows.append([getter(facts) for getter in getters])
        return rows


def _AsList(value: Sequence[Any] | None) -> list[Any] | None:
    return None if value is None else list(value)


class LUInstanceQueryData(base.NoHooksLU):
    """Everything about instances, with the state of their disks."""

    LOOKS_ONLY = True

    def ExpandNames(self) -> None:
        self.wanted = base.GetWantedInstances(self, self.op.instances)
        self.needed_locks = {}
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)
        if not self.op.static:
            names = self.wanted if self.op.instances else locking.ALL_SET
            self.needed_locks = {locking.LEVEL_INSTANCE: names, locking.LEVEL_NODE: []}
            self.recalculate_locks[locking.LEVEL_NODE] = base.LOCKS_REPLACE

    def DeclareLocks(self, level: int) -> None:
        if level == locking.LEVEL_NODE:
            self._LockInstancesNodes()

    def CheckPrereq(self) -> None:
        """Nothing to check."""

    def Exec(self, feedback_fn: base.FeedbackFn) -> dict[str, Any]:
        result = {}
        # All are those there are by now, with the locks held.
        names = self.wanted if self.op.instances else text.NiceSort(self.cfg.GetInstanceList())
        for name in names:
            instance = self.cfg.GetInstanceInfo(name)
            if instance is not None:
                result[name] = self._Describe(instance)
        return result

    def _Describe(self, instance: objects.Instance) -> dict[str, Any]:
        cluster = self.cfg.GetClusterInfo()
        defaults = cluster.nicparams[constants.PP_DEFAULT]
        nics, nics_actual = [], []
        for nic in instance.nics:
            filled = objects.FillDict(defaults, nic.nicparams or {})
            nics.append([nic.ip, nic.mac, filled[constants.NIC_MODE], filled[constants.NIC_LINK]])
            nics_actual.append(filled)
        return {
            "name": instance.name,
            "config_state": "up" if instance.admin_up else "down",
            "run_state": self._GetRunState(instance),
            "pnode": instance.primary_node,
            "snodes": text.NiceSort(instance.secondary_nodes),
            "os": instance.os,
            "nics": nics,
            "nics_instance": [nic.nicparams or {} for nic in instance.nics],
            "nics_actual": nics_actual,
            "disk_template": instance.disk_template,
            "disks": [
                {
                    **self._DescribeDisk(instance, None, disk),
                    "params_instance": disk.params or {},
                    "params_actual": cluster.FillDisk(disk),
                }
                for disk in instance.disks
            ],
            "hypervisor": instance.hypervisor,
            "network_port": instance.network_port,
            "hv_instance": instance.hvparams,
            "hv_actual": cluster.FillHV(instance, skip_globals=True),
            "be_instance": instance.beparams,
            "be_actual": cluster.FillBE(instance),
            "serial_no": instance.serial_no,
            "mtime": instance.mtime,
            "ctime": instance.ctime,
            "uuid": instance.uuid,
        }

    def _GetRunState(self, instance: objects.Instance) -> str | None:
        if self.op.static:
            return None
        result = self.rpc.call_instance_info(
            instance.primary_node, instance.name, instance.hypervisor
        )
        if result.offline:
            return None
        result.Raise(f"Node {instance.primary_node} can not tell whether {instance.name} runs")
        return "up" if result.payload and "state" in result.payload else "down"

    def _DescribeDisk(
        self, instance: objects.Instance, peer: str | None, disk: objects.Disk
    ) -> dict[str, Any]:
        if disk.dev_type in constants.LDS_DRBD:
            first, second = disk.logical_id[:2]
            peer = second if first == instance.primary_node else first
        # Of this, the secret of a mirror is nobody's business.
        ids = difference.HideSecrets(
            {"logical_id": _AsList(disk.logical_id), "physical_id": _AsList(disk.physical_id)}
        )
        return {
            "iv_name": disk.iv_name,
            "dev_type": disk.dev_type,
            **ids,
            "pstatus": self._GetDiskStatus(instance.primary_node, disk),
            "sstatus": self._GetDiskStatus(peer, disk) if peer else None,
            "children": [
                self._DescribeDisk(instance, peer, child) for child in disk.children or []
            ],
            "mode": disk.mode,
            "size": disk.size,
            "uuid": disk.uuid,
        }

    def _GetDiskStatus(self, node: str, disk: objects.Disk) -> list[Any] | None:
        if self.op.static:
            return None
        result = self.rpc.call_blockdev_find(node, disk_ops.ForNode(self, disk, node))
        if result.offline:
            return None
        result.Raise(f"Node {node} can not tell the state of {disk.iv_name}")
        status = result.payload
        if status is None:
            return None
        return [
            status.dev_path,
            status.major,
            status.minor,
            status.sync_percent,
            status.estimated_time,
            status.is_degraded,
            status.ldisk_status,
        ]


LOGICAL_UNITS: Final = {
    opcodes.OpInstanceQuery: LUInstanceQuery,
    opcodes.OpInstanceQueryData: LUInstanceQueryData,
}
