"""A configuration without a cluster, for tests: shipped, as the fakes of L{runtime} are.

writer = fake.NewWriter(rt, nodes=3)
fake.AddInstance(writer, "inst1.example.com", primary="node1.example.com")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .. import constants, objects, pathutils, serializer
from ..runtime import Runtime
from ..utils import filedelta
from .distribution import Results
from .writer import ConfigWriter

CLUSTER_NAME: Final = "cluster.example.com"
CLUSTER_IP: Final = "192.0.2.250"


class FakeDistributor:
    """Nodes that take everything, unless they were cut off.

    @ivar uploads: path and nodes of every upload so far, of the whole file or of what changed
    @ivar changes: what changed, of every upload that was not of the whole file
    @ivar ssconf: node -> the values it was sent last
    """

    def __init__(self) -> None:
        self.uploads: list[tuple[str, list[str]]] = []
        self.changes: list[filedelta.Delta] = []
        self.ssconf_rounds: list[list[str]] = []
        self.ssconf: dict[str, dict[str, str]] = {}
        self._cut: set[str] = set()
        #: Called at the beginning of each upload.
        self.before_upload: Callable[[], object] | None = None

    def Cut(self, name: str) -> None:
        """This node does not answer any more."""
        self._cut.add(name)

    def Mend(self, name: str) -> None:
        """This node answers again."""
        self._cut.discard(name)

    def _Answer(self, names: Mapping[str, str], timeout: float) -> Results:
        # For subclasses whose nodes take their time.
        return {name: "Connection timed out" if name in self._cut else None for name in names}

    def UploadConfig(self, path: str, addresses: Mapping[str, str], timeout: float) -> Results:
        if self.before_upload is not None:
            self.before_upload()
        self.uploads.append((path, sorted(addresses)))
        return self._Answer(addresses, timeout)

    def UpdateConfig(
        self, change: filedelta.Delta, addresses: Mapping[str, str], timeout: float
    ) -> tuple[Results, set[str]]:
        self.changes.append(change)
        return self.UploadConfig(pathutils.CLUSTER_CONF_FILE, addresses, timeout), set()

    def WriteSsconf(
        self, values: Mapping[str, str], addresses: Mapping[str, str], timeout: float
    ) -> Results:
        self.ssconf_rounds.append(sorted(addresses))
        results = self._Answer(addresses, timeout)
        for name, problem in results.items():
            if problem is None:
                self.ssconf[name] = dict(values)
        return results


def NodeName(number: int) -> str:
    """Name of the node with that number, from 1."""
    return f"node{number}.example.com"


def NewNode(number: int, **values: Any) -> objects.Node:
    """A node that is not in any configuration yet."""
    return objects.Node(
        **{
            "name": NodeName(number),
            "primary_ip": f"192.0.2.{number}",
            "secondary_ip": f"192.0.2.{number}",
            "master_candidate": False,
            "offline": False,
            "drained": False,
            **values,
        }
    )


def NewInstance(name: str, primary: str, **values: Any) -> objects.Instance:
    """A diskless instance that is not in any configuration yet."""
    return objects.Instance(
        **{
            "name": name,
            "primary_node": primary,
            "os": "noop",
            "hypervisor": constants.HT_FAKE,
            "hvparams": {},
            "beparams": {},
            "admin_up": False,
            "nics": [],
            "disks": [],
            "disk_template": constants.DT_DISKLESS,
            **values,
        }
    )


def NewDrbdDisk(
    nodes: tuple[str, str], port: int, minors: tuple[int, int], secret: str, name: str
) -> objects.Disk:
    """A DRBD disk over volumes whose names begin like that."""
    children = [
        objects.Disk(
            dev_type=constants.LD_LV,
            logical_id=("xenvg", f"{name}.{part}"),
            physical_id=("xenvg", f"{name}.{part}"),
            size=size,
            mode=constants.DISK_RDWR,
        )
        for part, size in (("data", 1024), ("meta", 128))
    ]
    return objects.Disk(
        dev_type=constants.LD_DRBD8,
        logical_id=(*nodes, port, *minors, secret),
        children=children,
        iv_name="disk/0",
        size=1024,
        mode=constants.DISK_RDWR,
    )


def NewConfigData(
    runtime: Runtime, nodes: int = 1, candidates: int | None = None
) -> dict[str, Any]:
    """The document of a new cluster whose first node is the master.

    @param candidates: how many of the nodes are master candidates; None = all
    """
    now = runtime.clock.time()
    if candidates is None:
        candidates = nodes
    cluster = objects.Cluster(
        serial_no=1,
        cluster_name=CLUSTER_NAME,
        master_node=NodeName(1),
        master_ip=CLUSTER_IP,
        master_netdev="lo",
        rsahostkeypub="AAAA",
        highest_used_port=constants.FIRST_DRBD_PORT - 1,
        tcpudp_port_pool=set(),
        mac_prefix="aa:00:00",
        volume_group_name="xenvg",
        file_storage_dir="/srv/ganeti/file-storage",
        shared_file_storage_dir="/srv/ganeti/shared-file-storage",
        enabled_hypervisors=[constants.HT_FAKE],
        candidate_pool_size=candidates,
        ctime=now,
        mtime=now,
        uuid="00000000-0000-4000-8000-000000000000",
    )
    cluster.UpgradeConfig()
    return objects.ConfigData(
        version=constants.CONFIG_VERSION,
        cluster=cluster,
        nodes={
            NodeName(number): NewNode(
                number,
                master_candidate=number <= candidates,
                serial_no=1,
                ctime=now,
                mtime=now,
                uuid=f"00000000-0000-4000-8000-{number:012}",
            )
            for number in range(1, nodes + 1)
        },
        instances={},
        serial_no=1,
        ctime=now,
        mtime=now,
    ).ToDict()


def NewWriter(
    runtime: Runtime,
    nodes: int = 1,
    candidates: int | None = None,
    distributor: FakeDistributor | None = None,
) -> ConfigWriter:
    """Write the configuration of a new cluster to the usual place and open it there."""
    document = serializer.Dump(NewConfigData(runtime, nodes, candidates), indent=True)
    runtime.files.write(pathutils.CLUSTER_CONF_FILE, document.encode("utf-8"))
    return OpenWriter(runtime, distributor)


def OpenWriter(runtime: Runtime, distributor: FakeDistributor | None = None) -> ConfigWriter:
    """Open the configuration at the usual place, on the first node."""
    return ConfigWriter(
        runtime=runtime,
        distributor=distributor or FakeDistributor(),
        my_hostname=NodeName(1),
    )


def AddInstance(
    writer: ConfigWriter, name: str, primary: str, ec_id: str = "test", **values: Any
) -> objects.Instance:
    """Add an instance and return it as it is stored."""
    instance = NewInstance(name, primary, **values)
    writer.AddInstance(instance, ec_id)
    return instance
