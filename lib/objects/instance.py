"""Instances with their network cards and disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from .. import constants, errors
from .base import TUPLE, Codec, ConfigObject, ListOf, TaggableObject


class NIC(ConfigObject):
    """A network card.

    C{nicparams} holds only what differs from the cluster's defaults. C{bridge} is what 2.0 had in
    its place.
    """

    mac: str
    ip: str | None
    nicparams: dict[str, Any]
    bridge: str | None
    uuid: str | None

    @classmethod
    def CheckParameterSyntax(cls, nicparams: Mapping[str, Any]) -> None:
        """Check filled NIC parameters.

        @raise errors.ConfigurationError: unknown mode, or bridged without a bridge
        """
        mode = nicparams.get(constants.NIC_MODE)
        if mode not in constants.NIC_VALID_MODES:
            valid = ", ".join(constants.NIC_VALID_MODES)
            raise errors.ConfigurationError(f"NIC mode is {mode!r} but must be one of: {valid}")
        if mode == constants.NIC_MODE_BRIDGED and not nicparams.get(constants.NIC_LINK):
            raise errors.ConfigurationError("NIC mode is bridged, so the link must name a bridge")

    def UpgradeConfig(self) -> None:
        nicparams: dict[str, Any] | None = self.nicparams
        if nicparams is None:
            self.nicparams = {}
            if self.bridge is not None:
                self.nicparams = {
                    constants.NIC_MODE: constants.NIC_MODE_BRIDGED,
                    constants.NIC_LINK: self.bridge,
                }
        self.bridge = None


class Disk(ConfigObject):
    """A disk, or a part of one.

    Logical ids: lvm (vg, lv); file (driver, path); drbd8 (node A, node B, port, minor A, minor B,
    secret). Physical ids are the same for lvm and file; drbd8: (local ip, port, remote ip, port,
    local minor, secret) as one node sees it.

    @ivar children: drbd8: data volume and metadata volume
    @ivar iv_name: C{disk/0} ...; top level only
    @ivar size: MiB
    @ivar params: disk parameters where they differ from the cluster's defaults
    """

    dev_type: str
    logical_id: tuple[Any, ...]
    physical_id: tuple[Any, ...] | None
    children: list[Disk] | None
    iv_name: str | None
    size: int
    mode: str | None
    params: dict[str, Any] | None
    uuid: str | None

    _CODECS: ClassVar[Mapping[str, Codec]] = {"logical_id": TUPLE, "physical_id": TUPLE}

    @classmethod
    def FromDict(cls, data: Mapping[str, Any]) -> Disk:
        disk = super().FromDict(data)
        ids: tuple[Any, ...] | None = disk.logical_id
        # 1.2 knew no ports, minors and secrets
        if disk.dev_type in constants.LDS_DRBD and ids is not None and len(ids) < 6:
            disk.logical_id = ids + (None,) * (6 - len(ids))
        return disk

    @classmethod
    def CheckParameterSyntax(cls, params: Mapping[str, Any]) -> None:
        """Check disk parameters of the right types; a part of them will do.

        @raise errors.ConfigurationError: unknown, or out of range
        """
        unknown = sorted(set(params) - constants.DPS_PARAMETERS)
        if unknown:
            known = ", ".join(sorted(constants.DPS_PARAMETERS))
            raise errors.ConfigurationError(
                f"Unknown disk parameters {', '.join(unknown)}; there are: {known}"
            )
        stripes = params.get(constants.DP_STRIPE, 1)
        if not 1 <= stripes <= constants.DP_STRIPE_MAX:
            raise errors.ConfigurationError(
                f"Disk parameter '{constants.DP_STRIPE}' is {stripes}"
                f" but must be from 1 to {constants.DP_STRIPE_MAX}"
            )
        size = params.get(constants.DP_STRIPE_SIZE, 0)
        if size != 0 and (size < constants.DP_STRIPE_SIZE_MIN or size & (size - 1)):
            raise errors.ConfigurationError(
                f"Disk parameter '{constants.DP_STRIPE_SIZE}' is {size} but must be a power of two"
                f" from {constants.DP_STRIPE_SIZE_MIN} (KiB) on, or 0 for LVM's choice"
            )

    # What the kinds of disks are like

    def CreateOnSecondary(self) -> bool:
        """Does this device exist on the secondary node too?"""
        return self.dev_type in constants.LDS_BLOCK

    def AssembleOnSecondary(self) -> bool:
        """Must this device be assembled on the secondary node?"""
        return self.dev_type in constants.LDS_BLOCK

    def OpenOnSecondary(self) -> bool:
        """Must this device be opened for writing on the secondary node?"""
        return self.dev_type == constants.LD_LV

    def StaticDevPath(self) -> str | None:
        """The path of the device where it does not change from one assembly to the next."""
        if self.dev_type == constants.LD_LV:
            return f"/dev/{self.logical_id[0]}/{self.logical_id[1]}"
        return None

    def ChildrenNeeded(self) -> int:
        """How many children are needed for activation; -1 for all of them."""
        return 0 if self.dev_type in constants.LDS_DRBD else -1

    def IterTree(self) -> Iterator[Disk]:
        """This disk and all below it, the top one first."""
        yield self
        for child in self.children or ():
            yield from child.IterTree()

    # Where a disk is

    def GetNodes(self, node: str) -> list[str]:
        """The nodes this device is on.

        @param node: node that the owner of the device is on
        @raise errors.ConfigurationError: a DRBD device that is on other nodes, or an unknown kind
        """
        if self.dev_type in (constants.LD_LV, constants.LD_FILE):
            return [node]
        if self.dev_type in constants.LDS_DRBD:
            nodes = [self.logical_id[0], self.logical_id[1]]
            if node not in nodes:
                raise errors.ConfigurationError(
                    f"DRBD device {self.iv_name} is on {nodes[0]} and {nodes[1]}, not on {node}"
                )
            return nodes
        raise errors.ConfigurationError(f"Unknown kind of disk {self.dev_type!r}")

    def ComputeNodeTree(self, parent_node: str) -> list[tuple[str, Disk]]:
        """The shortest list of (node, disk) that covers this disk and all below it.

        A child that is only where its parent is needs no entry.
        """
        nodes = self.GetNodes(parent_node)
        result: list[tuple[str, Disk]] = [(node, self) for node in nodes]
        for node in nodes:
            for child in self.children or ():
                tree = child.ComputeNodeTree(node)
                if len(tree) > 1:
                    result.extend(pair for pair in tree if pair[0] not in nodes)
        return result

    def SetPhysicalID(self, target_node: str, nodes_ip: Mapping[str, str]) -> None:
        """Set the physical ids of this disk and all below it as a node sees them.

        @param nodes_ip: node -> secondary IP
        @raise errors.ConfigurationError: a DRBD device that is not on the node, or an address is
          missing
        """
        for child in self.children or ():
            child.SetPhysicalID(target_node, nodes_ip)
        if self.dev_type not in constants.LDS_DRBD:
            self.physical_id = self.logical_id
            return
        node_a, node_b, port, minor_a, minor_b, secret = self.logical_id
        if target_node not in (node_a, node_b):
            raise errors.ConfigurationError(
                f"DRBD device {self.iv_name} is on {node_a} and {node_b}, not on {target_node}"
            )
        for node in (node_a, node_b):
            if nodes_ip.get(node) is None:
                raise errors.ConfigurationError(
                    f"DRBD device {self.iv_name}: the address of node {node} is not known"
                )
        side_a = (nodes_ip[node_a], port)
        side_b = (nodes_ip[node_b], port)
        if target_node == node_a:
            self.physical_id = (*side_a, *side_b, minor_a, secret)
        else:
            self.physical_id = (*side_b, *side_a, minor_b, secret)

    # Changes

    def RecordGrow(self, amount: int) -> None:
        """Note that the disk has grown.

        @param amount: MiB
        @raise errors.ProgrammerError: this kind can not grow
        """
        if self.dev_type in constants.LDS_DRBD:
            if self.children:
                self.children[0].RecordGrow(amount)
        elif self.dev_type not in (constants.LD_LV, constants.LD_FILE):
            raise errors.ProgrammerError(f"A disk of the kind {self.dev_type!r} can not grow")
        self.size += amount

    def UnsetSize(self) -> None:
        """Set all sizes to zero, so that nodes do not check them."""
        for disk in self.IterTree():
            disk.size = 0

    def Verify(self) -> list[str]:
        """What is wrong with the disk by itself; an empty list if nothing is."""
        if self.mode not in constants.DISK_ACCESS_SET:
            valid = ", ".join(sorted(constants.DISK_ACCESS_SET))
            return [f"Disk access mode is {self.mode!r} but must be one of: {valid}"]
        return []

    def UpgradeConfig(self) -> None:
        for child in self.children or ():
            child.UpgradeConfig()


# A disk holds disks: this is the first line where the class exists.
Disk._CODECS = {**Disk._CODECS, "children": ListOf(Disk)}


class Instance(TaggableObject):
    """An instance.

    C{hvparams} and C{beparams} hold only what was set for this instance.

    @ivar admin_up: shall it run?
    @ivar network_port: for VNC; None without
    """

    name: str
    primary_node: str
    os: str
    hypervisor: str
    hvparams: dict[str, Any]
    beparams: dict[str, Any]
    admin_up: bool
    nics: list[NIC]
    disks: list[Disk]
    disk_template: str
    network_port: int | None
    serial_no: int
    ctime: float | None
    mtime: float | None
    uuid: str

    _CODECS: ClassVar[Mapping[str, Codec]] = {
        **TaggableObject._CODECS,
        "nics": ListOf(NIC),
        "disks": ListOf(Disk),
    }

    @property
    def all_nodes(self) -> list[str]:
        """Primary node first, then all others that hold a disk of it."""
        nodes = [self.primary_node]
        for top in self.disks or ():
            for disk in top.IterTree():
                if disk.dev_type in constants.LDS_DRBD:
                    nodes.extend(disk.logical_id[:2])
        return list(dict.fromkeys(nodes))

    @property
    def secondary_nodes(self) -> list[str]:
        """All nodes of the instance but its primary."""
        return [node for node in self.all_nodes if node != self.primary_node]

    def MapLVsByNode(
        self,
        lvmap: dict[str, list[str]] | None = None,
        devs: Iterable[Disk] | None = None,
        node: str | None = None,
    ) -> dict[str, list[str]]:
        """The logical volumes of the instance: node -> list of names.

        @param lvmap: add to this map, which is also the result
        @param devs: only these disks
        @param node: node that the disks are on, unless they say so; default is the primary
        """
        if node is None:
            node = self.primary_node
        if lvmap is None:
            lvmap = {node: []}
        lvmap.setdefault(node, [])
        if devs is None:
            devs = self.disks or ()
        for disk in devs:
            if disk.dev_type == constants.LD_LV:
                lvmap[node].append(disk.logical_id[1])
            elif disk.dev_type in constants.LDS_DRBD:
                for side in disk.logical_id[:2]:
                    self.MapLVsByNode(lvmap, disk.children or (), side)
            else:
                self.MapLVsByNode(lvmap, disk.children or (), node)
        return lvmap

    def FindDisk(self, idx: int | str) -> Disk:
        """The disk with an index, which may be a numeric text.

        @raise errors.OpPrereqError: no number, or there is no such disk
        """
        try:
            index = int(idx)
        except (TypeError, ValueError):
            raise errors.OpPrereqError(
                f"Invalid disk index {idx!r}: must be a number", errors.ECODE_INVAL
            ) from None
        disks = self.disks or []
        if not 0 <= index < len(disks):
            have = f"it has disks 0 to {len(disks) - 1}" if disks else "it has no disks"
            raise errors.OpPrereqError(
                f"Instance {self.name} has no disk {index}: {have}", errors.ECODE_INVAL
            )
        return disks[index]

    def ToDict(self) -> dict[str, Any]:
        plain = super().ToDict()
        plain.setdefault("nics", [])
        plain.setdefault("disks", [])
        return plain

    def UpgradeConfig(self) -> None:
        for name in ("nics", "disks"):
            if self.__dict__.get(name) is None:
                setattr(self, name, [])
        for name in ("hvparams", "beparams"):
            if self.__dict__.get(name) is None:
                setattr(self, name, {})
        for nic in self.nics:
            nic.UpgradeConfig()
        for disk in self.disks:
            disk.UpgradeConfig()
        for name in constants.HVC_GLOBALS:
            self.hvparams.pop(name, None)
