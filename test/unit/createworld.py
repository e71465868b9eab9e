"""A cluster in memory where instances of all kinds can be created, for tests of just that."""

import functools
import os

from ganeti import constants, locking, objects, opcodes, pathutils
from ganeti.cmdlib import fake, fakedisks
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME = "inst1.example.com"
EXPORT_DIR = os.path.join(pathutils.EXPORT_DIR, NAME)

EXPORT = objects.Export(
    os="noop+gone",
    name=NAME,
    disk_template="drbd",
    hypervisor="kvm",
    nics=(
        {"mac": "aa:00:00:01:02:03", "ip": None, "mode": "bridged", "link": "xen-br0"},
        {"mac": None, "ip": "192.0.2.77", "mode": None, "link": None},
    ),
    disks=(objects.ExportedDisk(16, "a.snap"), objects.ExportedDisk(32, "b.snap")),
    hvparams={"kernel_path": "", "kernel_args": "rate=50%"},
    beparams={"memory": "256", "vcpus": "2", "auto_balance": "True"},
)


def NewWorld(*before):
    """Three nodes with kvm, volumes to adopt on the second and an export on the third."""
    world = fake.NewWorld(3)
    cluster = world.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["kvm", "fake"]
    cluster.shared_file_storage_dir = fakedisks.SHARED_DIR
    world.cfg.Update(cluster, None)
    for name in ("old0", "old1"):
        world.rpc.nodes[NODE2].disks.add(f"xenvg/{name}")
    world.rpc.nodes[NODE2].sizes.update({"xenvg/old0": 512, "xenvg/old1": 1024})
    world.rpc.nodes[NODE3].exports.append(NAME)
    world.rpc.nodes[NODE3].descriptions[EXPORT_DIR] = objects.FormatExport(EXPORT)
    for op in before:
        world.Run(op)
    return world


def Create(**values):
    return fake.NewCreate(NAME, **{"primary": NODE2, "hvparams": {"kernel_path": ""}, **values})


def Import(**values):
    given = {
        "mode": constants.INSTANCE_IMPORT,
        "disks": [],
        "nics": [],
        "os_type": None,
        "disk_template": None,
        "snode": NODE3,
    }
    return Create(**{**given, **values})


def Remove():
    return opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False)


#: One creation of each kind.
KINDS = {
    "diskless": functools.partial(Create, disk_template="diskless", disks=[]),
    "file": functools.partial(Create, disk_template="file"),
    "sharedfile": functools.partial(Create, disk_template="sharedfile"),
    "plain": functools.partial(Create, disk_template="plain"),
    "drbd": functools.partial(Create, disk_template="drbd", snode=NODE3),
    "stopped": functools.partial(Create, disk_template="drbd", snode=NODE3, start=False),
    "hasty": functools.partial(Create, disk_template="drbd", snode=NODE3, wait_for_sync=False),
    "empty": functools.partial(Create, disk_template="plain", no_install=True),
    "adoption": functools.partial(
        Create,
        disk_template="plain",
        disks=[{"adopt": "old0", "size": 0}, {"adopt": "old1", "size": 0, "mode": "ro"}],
    ),
    "import": functools.partial(Import, src_node=NODE3, start=False),
    "import-found": functools.partial(Import, disk_template="file", snode=None),
    "allocated": functools.partial(Create, disk_template="drbd", pnode=None, iallocator="simple"),
}


def NewOp(kind):
    return KINDS[kind]()


def Objects(world):
    """What the configuration has."""
    return (
        {name: obj.ToDict() for name, obj in world.cfg.GetAllInstancesInfo().items()},
        {name: obj.ToDict() for name, obj in world.cfg.GetAllNodesInfo().items()},
    )


def OnNodes(world):
    """What there is on nodes, and on the storage that they share."""
    found = {
        name: (
            sorted(node.disks),
            sorted(node.directories),
            sorted(node.running),
            sorted(node.drbd),
        )
        for name, node in world.rpc.nodes.items()
    }
    found["shared"] = (sorted(world.rpc.shared.disks), sorted(world.rpc.shared.directories))
    return found


def PortsOf(instance):
    ports = {instance.network_port} - {None}
    for disk in instance.disks:
        if disk.dev_type == constants.LD_DRBD8:
            ports.add(disk.logical_id[2])
    return ports


def CheckNothingLeaks(world):
    """Locks are free and fit the configuration, nothing is reserved, no port is lost."""
    glm, cfg = world.master.glm, world.cfg
    assert sorted(glm._names(locking.LEVEL_INSTANCE)) == sorted(cfg.GetInstanceList())
    for info in glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    reserved = {
        key: value
        for key, value in cfg.GetStatistics().items()
        if key.startswith("reserved_") and value
    }
    assert not reserved
    cluster = cfg.GetClusterInfo()
    used = [port for obj in cfg.GetAllInstancesInfo().values() for port in PortsOf(obj)]
    assert len(used) == len(set(used))
    assert set(used) | set(cluster.tcpudp_port_pool) == set(
        range(11000, cluster.highest_used_port + 1)
    )
    assert cfg.VerifyConfig() == []


def CheckDisksFit(world, but=("xenvg/old0", "xenvg/old1")):
    """Every device belongs to an instance, which has all of its.

    @param but: volumes that belong to none, if they are there
    """
    expected = {name: set() for name in world.rpc.nodes}
    shared = set()
    for instance in world.cfg.GetAllInstancesInfo().values():
        for disk in instance.disks:
            for node in disk.GetNodes(instance.primary_node):
                world.cfg.SetDiskID(disk, node)
                keys = {fakedisks.DeviceKey(part) for part in disk.IterTree()}
                where = instance.disk_template == constants.DT_SHARED_FILE
                (shared if where else expected[node]).update(keys)
    assert {name: node.disks - set(but) for name, node in world.rpc.nodes.items()} == expected
    assert world.rpc.shared.disks == shared
