"""Names, addresses and paths of a testbed: values only, no effects."""

import os
from dataclasses import dataclass

#: The source tree that this file belongs to.
TREE = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
)

DOMAIN = "example.com"
MAX_NODES = 20

#: Networks for documentation: no machine's own traffic can be meant. Every testbed has the same
#: addresses, its network being a namespace of its own.
PRIMARY = "192.0.2"
SECONDARY = "198.51.100"
#: Last bytes of addresses: the clusters' own, a host that exists in the name server alone, the
#: switch (and name server), the first node less one, the first instance less one.
CLUSTERS = {"cluster": 1, "cluster2": 2}
GHOST = ("ghost", 99)
SWITCH = 254
FIRST_NODE = 10
FIRST_INSTANCE = 100
INSTANCES = 9

#: Password of root on every node.
PASSWORD = "root of the testbed"

STATE_FILE = "testbed.json"
LOCK_FILE = "testbed.lock"
#: Holds a file system that only the testbed's own processes see.
NODES_DIR = "nodes"
#: What all nodes see as the same directory, and where.
SHARED_DIR = "shared"
SHARED_PATH = "/srv/shared"
#: For the sockets of nodes on their way up.
BOOT_DIR = "boot"
STATE_VERSION = 1

#: What a process on a node finds programs with; the last ones are those of the tree.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Node:
    """One node."""

    number: int

    @property
    def short_name(self):
        return f"node{self.number}"

    @property
    def name(self):
        return f"{self.short_name}.{DOMAIN}"

    @property
    def address(self):
        return f"{PRIMARY}.{FIRST_NODE + self.number}"

    @property
    def secondary_address(self):
        return f"{SECONDARY}.{FIRST_NODE + self.number}"

    def Port(self, network):
        """The switch's end of the cable to a network (0 = primary, 1 = secondary)."""
        return f"port{self.number}-{network}"

    def HardwareAddress(self, network):
        """Fixed, so that nobody has to forget an old one when a node comes back."""
        return f"02:7b:00:00:{network:02x}:{self.number:02x}"


@dataclass(frozen=True)
class Layout:
    """A testbed in a directory; everything else follows from these."""

    directory: str
    node_count: int

    @property
    def nodes(self):
        return [Node(number) for number in range(1, self.node_count + 1)]

    def FindNode(self, name):
        """A node by its full or short name; LookupError says which there are."""
        for node in self.nodes:
            if name in (node.name, node.short_name):
                return node
        known = ", ".join(node.short_name for node in self.nodes)
        raise LookupError(f"There is no node {name!r} in {self.directory}; its nodes are {known}")

    def Path(self, *names):
        return os.path.join(self.directory, *names)


def Names():
    """What the name server knows: full name -> address."""
    hosts = [*CLUSTERS.items(), GHOST]
    hosts += [(f"instance{i}", FIRST_INSTANCE + i) for i in range(1, INSTANCES + 1)]
    names = {f"{name}.{DOMAIN}": f"{PRIMARY}.{host}" for name, host in hosts}
    return names | {node.name: node.address for node in Layout("", MAX_NODES).nodes}
