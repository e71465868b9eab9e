"""The cluster, its nodes, and the configuration as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from .. import constants, errors
from .base import (
    SET,
    Codec,
    ConfigObject,
    DictOf,
    FillDict,
    ObjectOf,
    TaggableObject,
    UpgradeGroupedParams,
)
from .instance import NIC, Disk, Instance


class Node(TaggableObject):
    """A node; at most one of its three flags is set.

    @ivar secondary_ip: for disk replication; equals C{primary_ip} on single-homed nodes
    """

    name: str
    primary_ip: str
    secondary_ip: str
    master_candidate: bool
    offline: bool
    drained: bool
    serial_no: int
    ctime: float | None
    mtime: float | None
    uuid: str


class Cluster(TaggableObject):
    """What is true for the cluster as a whole, with the defaults of all parameters.

    @ivar serial_no: raised with every change that ssconf shows
    @ivar rsahostkeypub: public SSH host key of all nodes, the base64 part alone
    @ivar highest_used_port: last port given out
    @ivar tcpudp_port_pool: ports that were given back
    @ivar volume_group_name: None without LVM
    @ivar shared_file_storage_dir: base directory of file disks that all nodes share; empty or None
        if there is none
    @ivar enabled_hypervisors: the first one is the default
    @ivar hvparams: hypervisor -> its parameters, complete
    @ivar os_hvp: OS name (with variant) -> hypervisor -> parameters that differ
    @ivar beparams: profile -> parameters; likewise nicparams, diskparams
    @ivar uid_pool: list of [lowest, highest] user ids
    @ivar default_iallocator: allocator mode -> scripts to use when none is named, tried in order
    """

    serial_no: int
    cluster_name: str
    master_node: str
    master_ip: str
    master_netdev: str
    rsahostkeypub: str
    highest_used_port: int
    tcpudp_port_pool: set[int]
    mac_prefix: str
    volume_group_name: str | None
    file_storage_dir: str
    shared_file_storage_dir: str | None
    enabled_hypervisors: list[str]
    hvparams: dict[str, dict[str, Any]]
    os_hvp: dict[str, dict[str, dict[str, Any]]]
    beparams: dict[str, dict[str, Any]]
    nicparams: dict[str, dict[str, Any]]
    diskparams: dict[str, dict[str, Any]]
    candidate_pool_size: int
    modify_etc_hosts: bool
    modify_ssh_setup: bool
    maintain_node_health: bool
    uid_pool: list[Any]
    default_iallocator: dict[str, list[str]]
    default_bridge: str | None
    default_hypervisor: str | None
    ctime: float | None
    mtime: float | None
    uuid: str

    _CODECS: ClassVar[Mapping[str, Codec]] = {**TaggableObject._CODECS, "tcpudp_port_pool": SET}

    # Defaults overlaid with own values. The Simple... methods take the own values alone, for what
    # is no object yet.

    def GetHVDefaults(
        self, hypervisor: str, os_name: str | None = None, skip_keys: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """What an instance of a hypervisor and an OS gets unless it has a value of its own.

        @param os_name: full name, with the variant
        """
        defaults = self.hvparams.get(hypervisor, {})
        of_os: Mapping[str, Any] = {}
        if os_name is not None:
            of_os = (self.os_hvp or {}).get(os_name, {}).get(hypervisor, {})
        return FillDict(defaults, of_os, skip_keys)

    def SimpleFillHV(
        self,
        hypervisor: str,
        os_name: str | None,
        hvparams: Mapping[str, Any] | None,
        skip_globals: bool = False,
    ) -> dict[str, Any]:
        """Hypervisor parameters: those given, over those of the OS, over those of the cluster.

        @param skip_globals: without the parameters that only the cluster has
        """
        skip_keys = constants.HVC_GLOBALS if skip_globals else None
        defaults = self.GetHVDefaults(hypervisor, os_name, skip_keys)
        return FillDict(defaults, hvparams or {}, skip_keys)

    def FillHV(self, instance: Instance, skip_globals: bool = False) -> dict[str, Any]:
        """All hypervisor parameters of an instance; see L{SimpleFillHV}."""
        return self.SimpleFillHV(instance.hypervisor, instance.os, instance.hvparams, skip_globals)

    def SimpleFillBE(self, beparams: Mapping[str, Any] | None) -> dict[str, Any]:
        """Backend parameters: those given, over those of the cluster."""
        return FillDict(self.beparams.get(constants.PP_DEFAULT, {}), beparams or {})

    def FillBE(self, instance: Instance) -> dict[str, Any]:
        """All backend parameters of an instance."""
        return self.SimpleFillBE(instance.beparams)

    def SimpleFillNIC(self, nicparams: Mapping[str, Any] | None) -> dict[str, Any]:
        """NIC parameters: those given, over those of the cluster."""
        return FillDict(self.nicparams.get(constants.PP_DEFAULT, {}), nicparams or {})

    def FillNIC(self, nic: NIC) -> dict[str, Any]:
        """All parameters of a network card."""
        return self.SimpleFillNIC(nic.nicparams)

    def SimpleFillDisk(self, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """Disk parameters: those given, over those of the cluster."""
        return FillDict(self.diskparams.get(constants.PP_DEFAULT, {}), params or {})

    def FillDisk(self, disk: Disk) -> dict[str, Any]:
        """All parameters of a disk."""
        return self.SimpleFillDisk(disk.params)

    def _SetIfMissing(self, name: str, value: Any) -> None:
        if self.__dict__.get(name) is None:
            setattr(self, name, value)

    def UpgradeConfig(self) -> None:
        self.hvparams = self._UpgradedHVParams()
        self._SetIfMissing("os_hvp", {})
        self.beparams = UpgradeGroupedParams(self.beparams, constants.BEC_DEFAULTS)
        self.diskparams = UpgradeGroupedParams(self.diskparams, constants.DPC_DEFAULTS)

        had_nicparams = self.__dict__.get("nicparams") is not None
        self.nicparams = UpgradeGroupedParams(self.nicparams, constants.NICC_DEFAULTS)
        if not had_nicparams and self.default_bridge is not None:
            self.nicparams[constants.PP_DEFAULT][constants.NIC_LINK] = self.default_bridge
        self.default_bridge = None

        self._SetIfMissing("enabled_hypervisors", [])
        if self.default_hypervisor is not None:
            others = [kind for kind in self.enabled_hypervisors if kind != self.default_hypervisor]
            self.enabled_hypervisors = [self.default_hypervisor, *others]
            self.default_hypervisor = None

        self._SetIfMissing("modify_etc_hosts", True)
        self._SetIfMissing("modify_ssh_setup", True)
        self._SetIfMissing("maintain_node_health", False)
        self._SetIfMissing("candidate_pool_size", constants.MASTER_POOL_SIZE_DEFAULT)
        self._SetIfMissing("tcpudp_port_pool", set())
        self._SetIfMissing("uid_pool", [])
        self._UpgradeAllocators()

    def _UpgradedHVParams(self) -> dict[str, dict[str, Any]]:
        hvparams: dict[str, dict[str, Any]] | None = self.hvparams
        if hvparams is None:
            return {
                kind: FillDict(defaults, {}) for kind, defaults in constants.HVC_DEFAULTS.items()
            }
        # A hypervisor that this version does not know keeps what it has
        return {
            kind: FillDict(constants.HVC_DEFAULTS.get(kind, {}), params)
            for kind, params in hvparams.items()
        }

    def _UpgradeAllocators(self) -> None:
        # Relatives of this suite have one script for all modes
        scripts: object = self.default_iallocator
        if isinstance(scripts, str):
            modes = constants.VALID_IALLOCATOR_MODES if scripts else ()
            self.default_iallocator = {mode: [scripts] for mode in modes}
        self._SetIfMissing("default_iallocator", {})


class ConfigData(ConfigObject):
    """The configuration: all that config.data holds.

    @ivar serial_no: raised with every write of the file
    """

    version: int
    cluster: Cluster
    nodes: dict[str, Node]
    instances: dict[str, Instance]
    serial_no: int
    ctime: float | None
    mtime: float | None

    _CODECS: ClassVar[Mapping[str, Codec]] = {
        "cluster": ObjectOf(Cluster),
        "nodes": DictOf(Node),
        "instances": DictOf(Instance),
    }

    def IterIdentified(self) -> Iterator[Cluster | Node | Instance | NIC | Disk]:
        """Every object that has a UUID: cluster, nodes, instances, network cards, disks."""
        yield self.cluster
        yield from self.nodes.values()
        for instance in self.instances.values():
            yield instance
            yield from instance.nics or ()
            for disk in instance.disks or ():
                yield from disk.IterTree()

    def UpgradeConfig(self) -> None:
        if self.__dict__.get("cluster") is None:
            raise errors.ConfigurationError("The configuration has no entry 'cluster'")
        for name in ("nodes", "instances"):
            if self.__dict__.get(name) is None:
                setattr(self, name, {})
        self.cluster.UpgradeConfig()
        for node in self.nodes.values():
            node.UpgradeConfig()
        for instance in self.instances.values():
            instance.UpgradeConfig()
