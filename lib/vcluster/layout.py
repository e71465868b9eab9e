"""Names, addresses and directories of a virtual cluster: values only, no effects."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import constants, errors

DOMAIN = "example.com"

#: What makes a process one of a virtual node: its root directory and its name.
ENVIRONMENT = ("GANETI_ROOTDIR", "GANETI_HOSTNAME")
STATE_FILE = "vcluster.json"
LOCK_FILE = "vcluster.lock"
STATE_VERSION = 1

#: Of the last byte of an address: the cluster's own, and that of the first node less one.
CLUSTER_HOST = 1
FIRST_NODE_HOST = 10
MAX_NODES = 100

#: What a UNIX socket may be called, and the longest tail that is put behind a node's root.
_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "/var/run/ganeti/kvm-hypervisor/ctrl/instance1.example.com.monitor"


@dataclass(frozen=True)
class VirtualNode:
    """One node."""

    name: str
    address: str


@dataclass(frozen=True)
class Layout:
    """A virtual cluster: everything else follows from these.

    @ivar directory: absolute path that holds all
    @ivar network: first three bytes of its addresses, e.g. C{127.12.7}
    @ivar node_count: how many nodes
    @ivar hypervisor: the enabled hypervisor
    """

    directory: str
    network: str
    node_count: int
    hypervisor: str

    @property
    def cluster_name(self) -> str:
        return f"cluster.{DOMAIN}"

    @property
    def cluster_address(self) -> str:
        return f"{self.network}.{CLUSTER_HOST}"

    @property
    def nodes(self) -> list[VirtualNode]:
        """All nodes; the first one is the master of a new cluster."""
        return [
            VirtualNode(f"node{i}.{DOMAIN}", f"{self.network}.{FIRST_NODE_HOST + i}")
            for i in range(1, self.node_count + 1)
        ]

    @property
    def state_file(self) -> str:
        return os.path.join(self.directory, STATE_FILE)

    @property
    def shared_dir(self) -> str:
        """What each node has as its directory of shared disk files."""
        return os.path.join(self.directory, "shared")

    def Root(self, node: VirtualNode) -> str:
        """Root directory of a node."""
        return os.path.join(self.directory, node.name)

    def FindNode(self, name: str) -> VirtualNode:
        """A node by its full or short name.

        @raise errors.OpPrereqError: C{unknown_entity}
        """
        for node in self.nodes:
            if name in (node.name, node.name.split(".")[0]):
                return node
        raise errors.OpPrereqError(
            f"There is no node {name!r} in {self.directory}; its nodes are"
            f" {', '.join(node.name for node in self.nodes)}",
            errors.ECODE_NOENT,
        )

    def Environment(self, node: VirtualNode) -> dict[str, str]:
        """What makes a process one of this node."""
        return dict(zip(ENVIRONMENT, (self.Root(node), node.name), strict=True))

    def HostsFile(self) -> str:
        """Content of every node's C{/etc/hosts}."""
        lines = [("127.0.0.1", "localhost"), (self.cluster_address, self.cluster_name)]
        lines += [(node.address, node.name) for node in self.nodes]
        return "".join(
            f"{address}\t{name}" + (f" {name.split('.')[0]}" if "." in name else "") + "\n"
            for address, name in lines
        )

    def ToDict(self) -> dict[str, Any]:
        """For the state file."""
        return {
            "version": STATE_VERSION,
            "network": self.network,
            "node_count": self.node_count,
            "hypervisor": self.hypervisor,
        }


def FromDict(directory: str, data: object) -> Layout:
    """The inverse of L{Layout.ToDict}.

    @raise errors.OpPrereqError: the state file is none of ours
    """
    if not isinstance(data, dict) or data.get("version") != STATE_VERSION:
        raise errors.OpPrereqError(
            f"{os.path.join(directory, STATE_FILE)} was not written by this program",
            errors.ECODE_STATE,
        )
    return Layout(directory, data["network"], data["node_count"], data["hypervisor"])


def CheckLayout(directory: str, node_count: int, hypervisor: str) -> None:
    """Can there be a virtual cluster like this?

    @raise errors.OpPrereqError: C{wrong_input}, naming option and value
    """
    if not 1 <= node_count <= MAX_NODES:
        raise errors.OpPrereqError(
            f"--nodes must be between 1 and {MAX_NODES}, not {node_count}", errors.ECODE_INVAL
        )
    if hypervisor not in (constants.HT_FAKE, constants.HT_KVM):
        raise errors.OpPrereqError(
            f"--hypervisor must be {constants.HT_FAKE} or {constants.HT_KVM}, not {hypervisor!r}",
            errors.ECODE_INVAL,
        )
    root = os.path.join(directory, f"node{node_count}.{DOMAIN}")
    too_long = len(root) + len(_LONGEST_SOCKET) - _MAX_SOCKET_PATH
    if too_long > 0:
        raise errors.OpPrereqError(
            f"The directory {directory} is {too_long} characters too long for the UNIX sockets"
            " below it: choose a shorter one with --dir",
            errors.ECODE_INVAL,
        )


def ChooseNetwork(directory: str, is_free: Callable[[str], bool]) -> str:
    """A network of 127.0.0.0/8 for a cluster in this directory.

    The directory's name decides where the search starts, so that a cluster that is made again gets
    its old addresses.

    @param is_free: tells whether nobody uses an address
    @raise errors.OpExecError: none is free
    """
    start = zlib.crc32(directory.encode())
    for i in range(1000):
        number = start + i * 7919
        network = f"127.{1 + number % 254}.{number // 254 % 255}"
        if is_free(f"{network}.{CLUSTER_HOST}") and is_free(f"{network}.{FIRST_NODE_HOST + 1}"):
            return network
    raise errors.OpExecError("No free network was found in 127.0.0.0/8")
