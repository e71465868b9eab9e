"""The questions that can be asked of the configuration; answers are copies.

What a getter returns belongs to the caller: changing it changes nothing until it is given to
C{Update}. So nobody sees a change that is half made, and nobody makes one by accident.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from .. import errors, objects, pathutils
from ..runtime import DEFAULT
from ..utils import text
from . import claims, verify

if TYPE_CHECKING:
    from .engine import CommitEngine
    from .store import ConfigStore


class ConfigReader:
    """The read-only half of L{writer.ConfigWriter}. All methods take the lock shortly."""

    _engine: CommitEngine

    @property
    def _store(self) -> ConfigStore:
        # To be used with the lock held.
        return self._engine.store

    @staticmethod
    def IsCluster() -> bool:
        """Does this host have a cluster configuration?"""
        return DEFAULT.files.exists(pathutils.CLUSTER_CONF_FILE)

    # The cluster

    def GetConfigVersion(self) -> int:
        """Version of the file's format."""
        with self._engine.lock:
            return self._store.version

    def GetConfigSerialNo(self) -> int:
        """Serial number of the last write."""
        with self._engine.lock:
            return self._store.serial_no

    def GetClusterInfo(self) -> objects.Cluster:
        """The cluster object."""
        with self._engine.lock:
            return cast("objects.Cluster", self._store.Copy(claims.CLUSTER_KEY))

    def GetClusterName(self) -> str:
        """FQDN of the cluster."""
        with self._engine.lock:
            return self._store.cluster.cluster_name

    def GetMasterNode(self) -> str:
        """FQDN of the master."""
        with self._engine.lock:
            return self._store.cluster.master_node

    def GetMasterIP(self) -> str:
        """The cluster's IP address."""
        with self._engine.lock:
            return self._store.cluster.master_ip

    def GetMasterNetdev(self) -> str:
        """Network device of the cluster IP."""
        with self._engine.lock:
            return self._store.cluster.master_netdev

    def GetFileStorageDir(self) -> str:
        """Base directory of file disks."""
        with self._engine.lock:
            return self._store.cluster.file_storage_dir

    def GetSharedFileStorageDir(self) -> str:
        """Base directory of the file disks that all nodes share; empty if there is none."""
        with self._engine.lock:
            return self._store.cluster.shared_file_storage_dir or ""

    def GetVGName(self) -> str | None:
        """Name of the volume group; None without LVM."""
        with self._engine.lock:
            return self._store.cluster.volume_group_name

    def GetMACPrefix(self) -> str:
        """First three bytes of generated MAC addresses."""
        with self._engine.lock:
            return self._store.cluster.mac_prefix

    def GetHostKey(self) -> str:
        """The cluster's public SSH host key, base64."""
        with self._engine.lock:
            return self._store.cluster.rsahostkeypub

    def GetHypervisorType(self) -> str:
        """The default hypervisor: the first that is enabled."""
        with self._engine.lock:
            return self._store.cluster.enabled_hypervisors[0]

    def GetPortList(self) -> set[int]:
        """Ports that were given back and are free."""
        with self._engine.lock:
            return set(self._store.cluster.tcpudp_port_pool or ())

    # Nodes

    def GetNodeList(self) -> list[str]:
        """Names of all nodes."""
        with self._engine.lock:
            return list(self._store.nodes)

    def GetOnlineNodeList(self) -> list[str]:
        """Names of the nodes that are not offline."""
        with self._engine.lock:
            return [name for name, node in self._store.nodes.items() if not node.offline]

    def GetNodeInfo(self, node_name: str) -> objects.Node | None:
        """The node of that full name; None if there is none."""
        with self._engine.lock:
            return cast("objects.Node | None", self._store.Copy(claims.Key(claims.NODE, node_name)))

    def GetAllNodesInfo(self) -> dict[str, objects.Node]:
        """All nodes by name."""
        with self._engine.lock:
            return {
                name: cast("objects.Node", self._store.Copy(claims.Key(claims.NODE, name)))
                for name in self._store.nodes
            }

    def ExpandNodeName(self, short_name: str) -> str | None:
        """Full name of the node that is meant.

        An exact name wins, then a UUID, then the only name that is equal but for case, then the
        only one that begins with the whole labels given; None if there is none or no single one.
        """
        return self._ExpandName(claims.NODE, short_name)

    # Instances

    def GetInstanceList(self) -> list[str]:
        """Names of all instances."""
        with self._engine.lock:
            return list(self._store.instances)

    def GetInstanceInfo(self, instance_name: str) -> objects.Instance | None:
        """The instance of that full name; None if there is none."""
        with self._engine.lock:
            return cast(
                "objects.Instance | None",
                self._store.Copy(claims.Key(claims.INSTANCE, instance_name)),
            )

    def GetAllInstancesInfo(self) -> dict[str, objects.Instance]:
        """All instances by name."""
        with self._engine.lock:
            return {
                name: cast("objects.Instance", self._store.Copy(claims.Key(claims.INSTANCE, name)))
                for name in self._store.instances
            }

    def ExpandInstanceName(self, short_name: str) -> str | None:
        """Full name of the instance that is meant; see L{ExpandNodeName}."""
        return self._ExpandName(claims.INSTANCE, short_name)

    def _ExpandName(self, kind: str, short_name: str) -> str | None:
        with self._engine.lock:
            names = self._store.nodes if kind == claims.NODE else self._store.instances
            if short_name in names:
                return short_name
            for owner in self._store.index.Values(claims.UUID).get(short_name, ()):
                # NICs and disks have a UUID too; only that of the object itself is its name.
                if owner.key.kind == kind and not owner.detail:
                    return owner.key.name
            candidates = list(names)
        return text.MatchNameComponent(short_name, candidates, case_sensitive=False)

    # Many objects at once

    def GetMasterCandidateStats(
        self, exceptions: Iterable[str] | None = None
    ) -> verify.CandidateStats:
        """How many master candidates there are, should be and could be.

        @param exceptions: names of nodes to leave out
        """
        with self._engine.lock:
            return verify.GetCandidateStats(
                self._store.nodes.values(),
                self._store.cluster.candidate_pool_size,
                exceptions or (),
            )

    def VerifyConfig(self) -> list[str]:
        """All problems of the configuration, as texts."""
        with self._engine.lock:
            view = self._store.MakeView()
        # Objects in the store are never modified: no lock for the long part.
        return verify.Verify(view)

    def SetDiskID(self, disk: objects.Disk, node_name: str) -> None:
        """Set the physical ids of a disk and its children as a node sees them.

        The disk is the caller's; nothing is written.

        Raises: ConfigurationError for a DRBD disk that is not on that node, or a node of it that is
        not known.
        """
        with self._engine.lock:
            addresses = {name: node.secondary_ip for name, node in self._store.nodes.items()}
        if disk.dev_type and not disk.logical_id:
            raise errors.ConfigurationError(f"Disk {disk.iv_name} has no logical id")
        disk.SetPhysicalID(node_name, addresses)
