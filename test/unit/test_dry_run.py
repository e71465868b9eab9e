"""Dry runs: every unit says what it would do, does none of it, and does just that when asked to."""

import copy
import os
import re

import pytest

from ganeti import cmdlib, constants, errors, locking, opcodes, pathutils, rpc_defs
from ganeti.cmdlib import announce, base, dryrun, fake, fakedisks
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME, NEW_NAME = "inst1.example.com", "inst2.example.com"
NEW_NODE = "node4.example.com"


def Create(**values):
    return fake.NewCreate(NAME, NODE2, **values)


def Mirrored():
    return Create(disk_template="drbd", snode=NODE1)


def Failover(**values):
    return opcodes.OpInstanceFailover(instance_name=NAME, ignore_consistency=False, **values)


def Migrate(**values):
    defaults = {"live": True, "cleanup": False}
    return opcodes.OpInstanceMigrate(instance_name=NAME, **{**defaults, **values})


def Replace(mode, **values):
    return opcodes.OpInstanceReplaceDisks(instance_name=NAME, mode=mode, **{"disks": [], **values})


def _BreakSecondary(world):
    world.rpc.nodes[NODE1].faulty = True


def _ShareFiles(world):
    cluster = world.cfg.GetClusterInfo()
    cluster.shared_file_storage_dir = fakedisks.SHARED_DIR
    world.cfg.Update(cluster, None)


def _ShareNothing(world):
    cluster = world.cfg.GetClusterInfo()
    cluster.shared_file_storage_dir = None
    world.cfg.Update(cluster, None)


def _Misplace(world):
    """A migration of which nobody knows that it was over."""
    nodes = world.rpc.nodes
    nodes[NODE1].running[NAME] = nodes[NODE2].running.pop(NAME)


def Stop():
    return opcodes.OpInstanceShutdown(instance_name=NAME)


def Modify(**values):
    return opcodes.OpInstanceSetParams(instance_name=NAME, **values)


def Reboot(kind):
    return opcodes.OpInstanceReboot(
        instance_name=NAME, reboot_type=kind, ignore_secondaries=False, shutdown_timeout=7
    )


def SetNode(**values):
    return opcodes.OpNodeSetParams(node_name=NODE3, **values)


def Tags(op_class, kind, name):
    return op_class(kind=kind, name=name, tags=["a"])


def NewWorld(before=(), nodes=3):
    """Nodes, a hypervisor whose instances have a port, and what these operations leave."""
    world = fake.NewWorld(nodes)
    cluster = world.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["kvm", "fake"]
    cluster.modify_ssh_setup = cluster.modify_etc_hosts = False
    world.cfg.Update(cluster, None)
    world.runtime.files.write(pathutils.CONFD_HMAC_KEY, b"x")
    for prepare in before:
        if callable(prepare):
            prepare(world)
        else:
            world.Run(copy.deepcopy(prepare))
    return world


def _Offline(world):
    world.Run(SetNode(offline=True))


def _SmallPool(world):
    cluster = world.cfg.GetClusterInfo()
    cluster.candidate_pool_size = 2
    world.cfg.Update(cluster, None)
    world.Run(SetNode(master_candidate=False))


def _Allocator(world):
    world.runtime.files.write(f"{pathutils.IALLOCATOR_SEARCH_PATH[0]}/own", b"")


def _OtherSize(world):
    (path,) = [path for path in world.rpc.nodes[NODE2].sizes if path.endswith("disk0")]
    world.rpc.nodes[NODE2].sizes[path] = 20


#: name -> operation, what comes before it, lines that its dry run must have.
CASES = {
    # Instances
    "create": (
        Create(hypervisor="kvm", hvparams={"kernel_path": ""}),
        [],
        [
            f"  locks: new instance {NAME} (exclusive), node {NODE2} (exclusive)",
            f"  hooks that ran: instance-add pre on {NODE1}, {NODE2} (no scripts)",
            f"  hooks that would run after it: instance-add post on {NODE1}, {NODE2};"
            f" config-update post on {NODE1}",
            f"    instance {NAME}: added with OS=noop+default, hypervisor=kvm, memory=128 MiB,"
            " vcpus=1, file disks=16 MiB, 32 MiB",
            f"    instance {NAME}: nic/0 with mac=(a new one), ip=none, mode=bridged, link=xen-br0",
            f"    on {NODE2}: create disk/0, disk/1",
            f"    on {NODE2}: run the create scripts of the OS noop+default",
            f"    on {NODE2}: start it",
        ],
    ),
    "create-diskless": (
        Create(disk_template="diskless", disks=[], hypervisor="fake", start=False, nics=[]),
        [],
        [],
    ),
    "remove": (
        opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False),
        [Create()],
        [
            f"    on {NODE2}: remove disk/0, disk/1",
            "    cluster: port 11000 becomes free",
            f"    instance {NAME}: removed",
        ],
    ),
    "rename": (
        opcodes.OpInstanceRename(instance_name=NAME, new_name=NEW_NAME, ignore_ip=True),
        [Create(), Stop()],
        [
            "  locks: the whole cluster (exclusive)",
            f"    instance {NAME}: renamed to {NEW_NAME}",
            f"    on {NODE2}: rename /srv/ganeti/file-storage/{NAME} to"
            f" /srv/ganeti/file-storage/{NEW_NAME}",
        ],
    ),
    "startup": (
        opcodes.OpInstanceStartup(instance_name=NAME, force=False, beparams={"memory": 256}),
        [Create(), Stop()],
        [
            f"  nodes asked while checking: {NODE2} (bridges_exist, instance_info, node_info)",
            f"    instance {NAME}: admin_up false -> true",
            f"    on {NODE2}: start it, this time with memory=256",
        ],
    ),
    "startup-running": (
        opcodes.OpInstanceStartup(instance_name=NAME, force=False),
        [Create()],
        [f"    on {NODE2}: start it (which does nothing: it runs already)"],
    ),
    "shutdown": (Stop(), [Create()], [f"    instance {NAME}: admin_up true -> false"]),
    "reboot-hard": (Reboot("hard"), [Create()], [f"    on {NODE2}: reboot it (hard)"]),
    "reboot-full": (
        Reboot("full"),
        [Create()],
        [f"    on {NODE2}: shut it down; what takes longer than 7 s is killed"],
    ),
    "reinstall": (
        opcodes.OpInstanceReinstall(instance_name=NAME, os_type="noop+other"),
        [Create(), Stop()],
        [
            f"    instance {NAME}: os noop+default -> noop+other",
            f"    on {NODE2}: run the create scripts of the OS noop+other, which overwrite its"
            " disks",
        ],
    ),
    "recreate": (
        opcodes.OpInstanceRecreateDisks(instance_name=NAME, disks=[1]),
        [
            Create(),
            Stop(),
            lambda world: world.rpc.nodes[NODE2].disks.clear(),
        ],
        [f"    on {NODE2}: create, without any content, disk/1"],
    ),
    "activate": (
        opcodes.OpInstanceActivateDisks(instance_name=NAME),
        [Create(), Stop()],
        [f"    on {NODE2}: assemble disk/0, disk/1"],
    ),
    "deactivate": (
        opcodes.OpInstanceDeactivateDisks(instance_name=NAME),
        [Create(), Stop()],
        ["  hooks: none"],
    ),
    "grow": (
        opcodes.OpInstanceGrowDisk(instance_name=NAME, disk=1, amount=64, wait_for_sync=True),
        [Create()],
        [
            f"    on {NODE2}: add 64 MiB to disk/1",
            f"    instance {NAME}: disks/1/size 32 -> 96",
        ],
    ),
    "modify": (
        Modify(
            beparams={"vcpus": 2},
            nics=[["add", {"mac": "aa:00:00:01:02:03"}]],
            disks=[["add", {"size": 8}]],
            os_name="noop+other",
        ),
        [Create()],
        [
            f"    instance {NAME}: disk/2: added with size=8, mode=rw",
            f"    on {NODE2}: create disk/2",
            f"    instance {NAME}: nic.1: add:mac=aa:00:00:01:02:03,ip=None,mode=bridged,"
            "link=xen-br0",
            f"    instance {NAME}: beparams/vcpus unset -> 2",
            f"    instance {NAME}: os noop+default -> noop+other",
        ],
    ),
    "modify-remove": (
        Modify(nics=[["remove", {}]], disks=[["remove", {}]]),
        [Create(), Stop()],
        [f"    instance {NAME}: disk/1: removed", f"    instance {NAME}: nic.0: remove"],
    ),
    "modify-mac": (
        Modify(nics=[[0, {"mac": "generate"}]], disks=[[0, {"mode": "ro"}]]),
        [Create()],
        [
            f"    instance {NAME}: disk/0: mode rw -> ro",
            f"    instance {NAME}: nic.mac/0: (a new one)",
        ],
    ),
    "console": (
        opcodes.OpInstanceConsole(instance_name=NAME),
        [Create(hypervisor="fake")],
        [
            f"  locks: instance {NAME} (shared)",
            "  would change: nothing: it only looks",
        ],
    ),
    "query-instances": (
        opcodes.OpInstanceQuery(output_fields=["name", "oper_ram"], names=[], use_locking=True),
        [Create()],
        [f"  locks: instance {NAME}, the only one (shared), node {NODE2} (shared)"],
    ),
    "query-data": (opcodes.OpInstanceQueryData(instances=[], static=False), [Create()], []),
    # The cluster
    "post-init": (
        opcodes.OpClusterPostInit(),
        [],
        [
            f"  hooks that would run after it: cluster-init post on {NODE1}",
            "  would change: nothing",
        ],
    ),
    "destroy": (
        opcodes.OpClusterDestroy(),
        [1],
        [f"    on {NODE1}: give up the master role and its address"],
    ),
    "query": (opcodes.OpClusterQuery(), [], ["  locks: none"]),
    "config-query": (opcodes.OpClusterConfigQuery(output_fields=["cluster_name"]), [], []),
    "verify": (
        opcodes.OpClusterVerify(
            verbose=False, error_codes=False, debug_simulate_errors=False, skip_checks=[]
        ),
        [],
        [
            "  locks: all 3 nodes (shared)",
            f"  hooks that would run after it: cluster-verify post on {NODE1}, {NODE2}, {NODE3}",
        ],
    ),
    "verify-disks": (opcodes.OpClusterVerifyDisks(), [], []),
    "sizes": (
        opcodes.OpClusterRepairDiskSizes(instances=[]),
        [Create(), _OtherSize],
        [f"    instance {NAME}: disk 0: size set to 20 MiB"],
    ),
    "set-cluster": (
        opcodes.OpClusterSetParams(beparams={"memory": 512}, uid_pool=[[1000, 2000]]),
        [],
        [
            "    cluster: beparams/default/memory 128 -> 512",
            "    cluster: uid_pool with [1000, 2000]",
        ],
    ),
    "smaller-pool": (
        opcodes.OpClusterSetParams(candidate_pool_size=2),
        [],
        ["    3 master candidates stay, more than the 2 wanted"],
    ),
    "set-pool-size": (
        opcodes.OpClusterSetParams(candidate_pool_size=10),
        [_SmallPool],
        [
            "    cluster: candidate_pool_size 2 -> 10",
            f"    node {NODE3}: master_candidate false -> true",
        ],
    ),
    "modify-cluster-shared-directory": (
        opcodes.OpClusterSetParams(shared_file_storage_dir=fakedisks.SHARED_DIR),
        [_ShareNothing],
        [
            f"    cluster: shared_file_storage_dir unset -> {fakedisks.SHARED_DIR}",
            f"    on {NODE1}, {NODE2}, {NODE3}: see whether it shares {fakedisks.SHARED_DIR}",
        ],
    ),
    "set-cluster-same": (
        opcodes.OpClusterSetParams(maintain_node_health=False),
        [],
        ["    cluster: has these values already, and is sent to all nodes again"],
    ),
    "os-parameters": (
        opcodes.OpClusterSetParams(
            os_hvp={"noop": {"kvm": {"acpi": "default", "boot_order": "network"}}, "other": None}
        ),
        [
            opcodes.OpClusterSetParams(
                os_hvp={
                    "noop": {"kvm": {"acpi": False}},
                    "other": {"kvm": {"acpi": False}},
                }
            )
        ],
        [
            "    cluster: os_hvp/noop/kvm/acpi false -> unset",
            "    cluster: os_hvp/noop/kvm/boot_order unset -> network",
        ],
    ),
    "allocators": (
        opcodes.OpClusterSetParams(default_iallocator={"allocate": ["own"]}),
        [_Allocator],
        ['    cluster: default_iallocator/allocate unset -> ["own"]'],
    ),
    "rename-cluster": (
        opcodes.OpClusterRename(name="other.example.com"),
        [],
        [
            "    cluster: cluster_name cluster.example.com -> other.example.com",
            "    cluster: master_ip 192.0.2.250 -> 192.0.2.99",
        ],
    ),
    "redist": (
        opcodes.OpClusterRedistConf(),
        [],
        [f"    on {NODE2}, {NODE3}: replace the shared files by the master's: hmac.key"],
    ),
    # Nodes
    "add-node": (
        opcodes.OpNodeAdd(node_name=NEW_NODE),
        [],
        [
            f"    node {NEW_NODE}: added as a regular node, with the address 192.0.2.4",
            f"  could not be checked: the version of node {NEW_NODE}, that it has its secondary"
            " IP, and that the nodes reach each other",
        ],
    ),
    "readd-node": (
        opcodes.OpNodeAdd(node_name=NODE3, readd=True),
        [_Offline],
        [f"    node {NODE3}: offline true -> false"],
    ),
    "remove-node": (opcodes.OpNodeRemove(node_name=NODE3), [], [f"    node {NODE3}: removed"]),
    "drain-node": (
        SetNode(drained=True, auto_promote=True),
        [],
        [
            "  locks: all 3 nodes (exclusive)",
            f"    node {NODE3}: drained false -> true",
            f"    node {NODE3}: master_candidate true -> false",
            f"    on {NODE3}: drop its copies of configuration and job queue",
        ],
    ),
    "online-node": (
        SetNode(offline=False),
        [_Offline],
        [f"    on {NODE3}: keep a copy of configuration and job queue"],
    ),
    "set-node-same": (
        SetNode(offline=False),
        [],
        [f"    node {NODE3}: has these flags already, and is stored again"],
    ),
    "powercycle": (
        opcodes.OpNodePowercycle(node_name=NODE3, force=False),
        [],
        [f"    on {NODE3}: reset it, a few seconds later"],
    ),
    "query-nodes": (
        opcodes.OpNodeQuery(output_fields=["name", "mfree"], names=[], use_locking=True),
        [],
        ["  nodes asked while checking: none"],
    ),
    "query-volumes": (opcodes.OpNodeQueryvols(nodes=[], output_fields=["node"]), [], []),
    "query-storage": (
        opcodes.OpNodeQueryStorage(
            nodes=[], storage_type="lvm-vg", output_fields=["node"], name=None
        ),
        [],
        [],
    ),
    "modify-storage": (
        opcodes.OpNodeModifyStorage(
            node_name=NODE3,
            storage_type="lvm-pv",
            name="/dev/sda",
            changes={"allocatable": False},
        ),
        [],
        [f"    on {NODE3}: change the storage unit /dev/sda (lvm-pv): allocatable = False"],
    ),
    "repair-storage": (
        opcodes.OpRepairNodeStorage(node_name=NODE3, storage_type="lvm-vg", name="xenvg"),
        [],
        [f"    on {NODE3}: repair the storage unit xenvg (lvm-vg)"],
    ),
    # The rest
    "diagnose": (opcodes.OpOsDiagnose(output_fields=["name"], names=[]), [], []),
    "exports": (opcodes.OpBackupQuery(nodes=[]), [], []),
    "export": (
        opcodes.OpBackupExport(instance_name=NAME, target_node=NODE3, shutdown=True),
        [
            Create(disk_template="diskless", disks=[], hypervisor="fake"),
            lambda world: world.rpc.nodes[NODE1].exports.append(NAME),
        ],
        [
            f"    on {NODE2}: shut it down while snapshots are taken",
            f"    on {NODE2}: start it",
            f"    on {NODE3}: write an export of {NAME}",
            f"    on {NODE1}: remove the older export of {NAME}",
        ],
    ),
    "remove-export": (
        opcodes.OpBackupRemove(instance_name=NAME),
        [Create(), lambda world: world.rpc.nodes[NODE3].exports.append(NAME)],
        [f"    on {NODE3}: remove the export of {NAME}"],
    ),
    "tags": (Tags(lambda tags, **kw: opcodes.OpTagsGet(**kw), "node", NODE2), [], []),
    "search-tags": (opcodes.OpTagsSearch(pattern="x"), [], []),
    "set-tags": (
        Tags(opcodes.OpTagsSet, "instance", NAME),
        [Create()],
        [f"    instance {NAME}: tags with a"],
    ),
    "set-tags-same": (
        Tags(opcodes.OpTagsSet, "cluster", "x"),
        [Tags(opcodes.OpTagsSet, "cluster", "x")],
        ["    cluster: has these tags already, and is stored again"],
    ),
    "del-tags": (
        Tags(opcodes.OpTagsDel, "node", NODE2),
        [Tags(opcodes.OpTagsSet, "node", NODE2)],
        [f"    node {NODE2}: tags without a"],
    ),
    "delay": (
        opcodes.OpTestDelay(duration=0.5, on_master=True, on_nodes=[NODE2]),
        [],
        ["    the master daemon: sleep for 0.5 seconds", f"    on {NODE2}: sleep for 0.5 seconds"],
    ),
    # Allocators only choose.
    "allocator": (
        opcodes.OpTestAllocator(
            direction="out",
            allocator="simple",
            mode="relocate",
            name="inst1",
        ),
        [Mirrored()],
        ["  would change: nothing: it only looks"],
    ),
    "evac-strategy": (
        opcodes.OpNodeEvacStrategy(nodes=[NODE1], iallocator="simple"),
        [Mirrored()],
        ["  would change: nothing: it only looks"],
    ),
    "evacuate": (
        opcodes.OpNodeEvacuate(node_name=NODE1, remote_node=NODE3),
        [Mirrored()],
        [f"    a job moves the secondary of {NAME} from {NODE1} to {NODE3}"],
    ),
    # Changing nodes
    "failover": (
        Failover(),
        [Mirrored()],
        [
            f"  locks: instance {NAME} (exclusive), node {NODE1}, {NODE2} (exclusive)",
            f"    on {NODE2}: shut it down, if it runs; what takes longer than 120 s is killed",
            f"    instance {NAME}: primary_node {NODE2} -> {NODE1}",
            f"    on {NODE1}: start it",
        ],
    ),
    "failover-down": (Failover(), [Mirrored(), Stop()], []),
    "failover-shared": (
        Failover(iallocator="simple"),
        [_ShareFiles, Create(disk_template="sharedfile")],
        [f"    instance {NAME}: primary_node {NODE2} -> {NODE1}"],
    ),
    "migrate": (
        Migrate(),
        [Mirrored()],
        [
            f"    on {NODE1}, {NODE2}: let both nodes use its disks",
            f"    on {NODE2}: send it to {NODE1}, while it runs",
            f"    on {NODE1}: take it over",
            f"    instance {NAME}: primary_node {NODE2} -> {NODE1}",
        ],
    ),
    "migrate-shared": (
        Migrate(live=False, target_node=NODE3),
        [_ShareFiles, Create(disk_template="sharedfile")],
        [f"    on {NODE2}: send it to {NODE3}, stopped meanwhile"],
    ),
    "migrate-cleanup": (
        Migrate(cleanup=True),
        [Mirrored(), _Misplace],
        [
            f"    instance {NAME}: primary_node {NODE2} -> {NODE1}",
            f"    on {NODE1}, {NODE2}: remove what is left where it does not run, close its disks"
            f" there (it runs on {NODE1} now)",
        ],
    ),
    "migrate-cleanup-nothing": (Migrate(cleanup=True), [Mirrored()], []),
    "migrate-node": (
        opcodes.OpNodeMigrate(node_name=NODE2, live=True),
        [Mirrored()],
        [
            f"  locks: instance {NAME} (shared), node {NODE1}, {NODE2} (shared)",
            f"    a job migrates {NAME} from {NODE2} to {NODE1}",
        ],
    ),
    "move": (
        opcodes.OpInstanceMove(instance_name=NAME, target_node=NODE3),
        [Create()],
        [
            f"    on {NODE3}: create disk/0, disk/1",
            f"    on {NODE2}: copy disk/0, disk/1 to {NODE3}",
            f"    instance {NAME}: primary_node {NODE2} -> {NODE3}",
            f"    on {NODE2}: remove disk/0, disk/1",
            f"    on {NODE3}: start it",
        ],
    ),
    "modify-drbd-disks": (
        Modify(disks=[["add", {"size": 8}], [0, {"mode": "ro"}]]),
        [Mirrored()],
        [
            f"    instance {NAME}: disk/2: added with size=8, mode=rw",
            f"    on {NODE1}, {NODE2}: create disk/2",
            "    cluster: a port is taken for it",
        ],
    ),
    "modify-drbd-remove-disk": (
        Modify(disks=[["remove", {}]]),
        [Mirrored(), Stop()],
        [
            f"    on {NODE1}, {NODE2}: remove disk/1",
            "    cluster: port 11002 becomes free",
        ],
    ),
    "modify-plain-disks": (
        Modify(disks=[["add", {"size": 8}]]),
        [Create(disk_template="plain")],
        [f"    on {NODE2}: create disk/2"],
    ),
    "convert-to-drbd": (
        Modify(disk_template="drbd", remote_node=NODE3),
        [Create(disk_template="plain"), Stop()],
        [
            f"  locks: instance {NAME} (exclusive), node {NODE2}, {NODE3} (exclusive)",
            f"    instance {NAME}: disk_template plain -> drbd",
            "    cluster: 2 ports are taken for it",
            f"    on {NODE3}: create disk/0, disk/1, and copy them from the primary",
        ],
    ),
    "convert-to-plain": (
        Modify(disk_template="plain"),
        [Mirrored(), Stop()],
        [
            f"    instance {NAME}: disk_template drbd -> plain",
            "    cluster: 2 ports become free",
            f"    on {NODE1}: remove disk/0, disk/1",
            f"    on {NODE2}: remove what mirrors disk/0, disk/1",
        ],
    ),
    "replace-on-primary": (
        Replace("replace_on_primary", disks=[1]),
        [Mirrored()],
        [
            f"    on {NODE2}: create new volumes for disk/1 and put them in place of the old",
            f"    the data of disk/1 is copied from {NODE1} to {NODE2}",
            f"    on {NODE2}: remove the old volumes of disk/1",
        ],
    ),
    "replace-on-secondary": (
        Replace("replace_on_secondary", early_release=True),
        [Mirrored(), Stop()],
        [
            f"    on {NODE1}, {NODE2}: assemble disk/0, disk/1",
            f"    on {NODE1}: create new volumes for disk/0, disk/1 and put them in place of the"
            " old",
            f"    on {NODE1}, {NODE2}: shut down disk/0, disk/1",
        ],
    ),
    "replace-secondary": (
        Replace("replace_new_secondary", remote_node=NODE3),
        [Mirrored()],
        [
            f"  locks: instance {NAME} (exclusive), node {NODE1}, {NODE2}, {NODE3} (exclusive)",
            f"  hooks that ran: mirrors-replace pre on {NODE1}, {NODE2}, {NODE3} (no scripts)",
            f"    on {NODE3}: create disk/0, disk/1",
            f"    instance {NAME}: disk/0, disk/1: mirrored to {NODE3} instead of {NODE1}",
            f"    on {NODE1}: remove disk/0, disk/1",
        ],
    ),
    "replace-secondary-allocated": (
        Replace("replace_new_secondary", iallocator="simple"),
        [Mirrored()],
        [f"    instance {NAME}: disk/0, disk/1: mirrored to {NODE3} instead of {NODE1}"],
    ),
    "replace-auto": (
        Replace("replace_auto"),
        [Mirrored(), _BreakSecondary],
        [f"    the data of disk/0, disk/1 is copied from {NODE2} to {NODE1}"],
    ),
    "replace-nothing": (Replace("replace_auto"), [Mirrored()], ["  would change: nothing"]),
}


#: Calls that may be made in a dry run; hooks of the pre phase do run.
LOOKS = {call.name for call in rpc_defs.CALLS.values() if call.read_only} | {"hooks_runner"}


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    """Names that resolve, and node daemons that answer, without a network."""
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.4\t{NEW_NODE}\n192.0.2.98\t{NEW_NAME}\n192.0.2.3\t{NODE3}\n")
        fobj.write("192.0.2.99\tother.example.com\n")
    monkeypatch.setattr(
        "ganeti.utils.net.TcpPing", lambda target, *args, **kwargs: target != "192.0.2.99"
    )


def WorldOf(name):
    op, before, _ = CASES[name]
    nodes = 1 if before == [1] else 3
    return copy.deepcopy(op), NewWorld([] if before == [1] else before, nodes)


def OnNodes(world):
    """Everything that the nodes have."""
    return copy.deepcopy(world.rpc.nodes), list(world.rpc.storage_calls), len(world.rpc.executed)


def Objects(world):
    """Target -> what the configuration has of it."""
    cfg = world.cfg
    return {
        "cluster": cfg.GetClusterInfo().ToDict(),
        **{f"node {name}": obj.ToDict() for name, obj in cfg.GetAllNodesInfo().items()},
        **{f"instance {name}": obj.ToDict() for name, obj in cfg.GetAllInstancesInfo().items()},
    }


def WithoutVersion(obj):
    return None if obj is None else {**obj, "serial_no": None, "mtime": None}


def CheckNothingLeaks(world):
    """Locks are free and fit the configuration, nothing is reserved."""
    glm, cfg = world.master.glm, world.cfg
    assert sorted(glm._names(locking.LEVEL_INSTANCE)) == sorted(cfg.GetInstanceList())
    assert sorted(glm._names(locking.LEVEL_NODE)) == sorted(cfg.GetNodeList())
    for info in glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    reserved = {key: value for key, value in cfg.GetStatistics().items() if "reserved_" in key}
    assert not any(reserved.values()), reserved


def DryRun(world, op):
    """Run an opcode dry; its result and the lines of its report."""
    op = copy.deepcopy(op)
    op.dry_run = True
    result = world.Run(op)
    start = next(i for i, line in enumerate(world.log) if line.startswith("Dry run of"))
    return result, world.log[start:]


def Announced(report):
    """What a report announces: (target or None, nodes, text) for each line."""
    found = []
    for line in report:
        if not line.startswith("    "):
            continue
        match = re.fullmatch(r"    (?:(cluster|(?:node|instance) \S+)|on ([^:]+)): (.*)", line)
        target, nodes, text = match.groups() if match else (None, None, line.strip())
        found.append((target, set(nodes.split(", ")) if nodes else set(), text))
    return found


class TestAllUnits:
    """Nobody forgets the dry run of a unit."""

    @pytest.mark.parametrize("op_class", cmdlib.LOGICAL_UNITS, ids=lambda cls: cls.OP_ID)
    def test_says_what_it_would_do(self, op_class):
        unit = cmdlib.LOGICAL_UNITS[op_class]
        own = unit.DescribeChanges is not base.LogicalUnit.DescribeChanges
        assert own != unit.LOOKS_ONLY, (
            f"{unit.__name__} needs a DescribeChanges(), or LOOKS_ONLY = True, and not both"
        )

    def test_has_a_case(self):
        tested = {op.OP_ID for op, _, _ in CASES.values()}
        assert tested == {op_class.OP_ID for op_class in cmdlib.LOGICAL_UNITS}


@pytest.mark.parametrize("name", CASES)
class TestAllCases:
    def test_changes_nothing(self, name):
        op, world = WorldOf(name)
        files = world.runtime.files
        before = files.read(pathutils.CLUSTER_CONF_FILE), files.read(pathutils.CONFIG_HISTORY_FILE)
        nodes = OnNodes(world)
        world.rpc.calls.clear()
        world.rpc.hooks.clear()
        result, _ = DryRun(world, op)
        assert result == ([NODE2] if name.startswith("create") else None)
        assert {call for call, _ in world.rpc.calls} <= LOOKS
        after = files.read(pathutils.CLUSTER_CONF_FILE), files.read(pathutils.CONFIG_HISTORY_FILE)
        assert after == before
        assert OnNodes(world) == nodes
        assert {phase for _, _, phase, _ in world.rpc.hooks} <= {"pre"}
        CheckNothingLeaks(world)

    def test_report(self, name):
        op, world = WorldOf(name)
        _, report = DryRun(world, op)
        assert (
            " - INFO: dry-run mode requested, not actually executing the operation"
            in world.log[: -len(report)]
        )
        assert report[0].startswith(f"Dry run of {op.OP_ID}")
        assert report[0].endswith(": all checks passed, nothing was changed")
        for line in CASES[name][2]:
            assert line in report
        asked = {node for call, node in world.rpc.calls if call in LOOKS - {"hooks_runner"}}
        if "create" in name or name == "startup":
            assert all(node in report[2] for node in (NODE2,))
            assert NODE2 in asked

    def test_does_what_was_announced(self, name):
        """Exactly the objects and nodes that were announced change, and those alone."""
        op, world = WorldOf(name)
        _, report = DryRun(world, op)
        announced = Announced(report)
        before = Objects(world)
        world.rpc.calls.clear()
        world.Run(op)
        after = Objects(world)
        changed = {
            target
            for target in before.keys() | after.keys()
            if WithoutVersion(before.get(target)) != WithoutVersion(after.get(target))
        }
        again = {target for target, _, text in announced if target and "again" in text}
        assert {target for target, _, _ in announced if target} - again == changed - again
        for target in again:
            assert after[target]["serial_no"] > before[target]["serial_no"]
        worked = {node for call, node in world.rpc.calls if call not in LOOKS}
        on_nodes = set()
        for _, nodes, text in announced:
            if "the command" not in text and "keep a copy" not in text:
                on_nodes |= nodes
        assert worked == on_nodes
        CheckNothingLeaks(world)


class TestDetails:
    def test_values(self):
        """What is announced of values is what they are afterwards."""
        op, world = WorldOf("grow")
        DryRun(world, op)
        world.Run(op)
        assert world.cfg.GetInstanceInfo(NAME).disks[1].size == 96

    def test_some_of_many_are_promoted(self):
        world = fake.NewWorld(4)
        cluster = world.cfg.GetClusterInfo()
        cluster.candidate_pool_size = 2
        world.cfg.Update(cluster, None)
        for name in (NODE3, NEW_NODE):
            world.Run(opcodes.OpNodeSetParams(node_name=name, master_candidate=False))
        op = opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True)
        _, report = DryRun(world, op)
        assert (
            f"    1 of {NODE3}, {NEW_NODE} (chosen by chance): master_candidate false -> true,"
            " with a copy of configuration and job queue"
        ) in report

    def test_pre_hooks_run(self):
        op, world = WorldOf("shutdown")
        world.rpc.hook_results = {
            NODE1: [("instance-stop-pre.d/a", constants.HKR_SUCCESS, "")],
            NODE2: [("instance-stop-pre.d/b", constants.HKR_SKIP, "")],
        }
        _, report = DryRun(world, op)
        assert f"  hooks that ran: instance-stop pre on {NODE1}, {NODE2} (1 script)" in report

    def test_pre_hooks_refuse(self):
        op, world = WorldOf("shutdown")
        world.rpc.hook_results = {NODE1: [("x", constants.HKR_FAIL, "no")]}
        with pytest.raises(errors.HooksAbort):
            DryRun(world, op)

    def test_a_dead_node(self):
        """Who does not answer is named, where it does not matter for the checks."""
        op, world = WorldOf("shutdown")
        world.rpc.Cut(NODE2)
        _, report = DryRun(world, op)
        assert (
            f"  hooks that ran: instance-stop pre on {NODE1} (no scripts); not on {NODE2}, which"
            " did not answer"
        ) in report

    @pytest.mark.parametrize("offline", [False, True])
    def test_a_node_that_would_be_needed(self, offline):
        """Checks that ask nobody pass; who would be asked by the work is told all the same."""
        op, world = WorldOf("remove")
        if offline:
            world.Run(opcodes.OpNodeSetParams(node_name=NODE2, offline=True, auto_promote=True))
        else:
            world.rpc.Cut(NODE2)
        _, report = DryRun(world, op)
        why = "marked offline" if offline else "Connection timed out"
        assert f"  does not answer now: {NODE2} ({why})" in report
        assert "  nodes asked while checking: none" in report

    def test_warnings(self):
        """What the work would warn of is told, too."""
        op, world = WorldOf("modify")
        op.beparams = {"memory": 256}
        world.rpc.Fail("node_info")
        DryRun(world, op)
        assert f" - WARNING: Node {NODE2} can not tell its free memory" in world.log

    def test_a_check_fails(self):
        op, world = WorldOf("startup")
        world.rpc.Cut(NODE2)
        op.dry_run = True
        with pytest.raises(errors.OpPrereqError, match=NODE2):
            world.Run(op)
        assert not any("Dry run of" in line for line in world.log)
        CheckNothingLeaks(world)

    def test_offline_nodes_are_not_asked(self):
        world = NewWorld([_Offline])
        runner = dryrun.RecordingRpc(world.rpc, "LUX")
        runner.call_vg_list([NODE2, NODE3])
        runner.call_vg_list([NODE2])
        runner.call_os_get(NODE2, "noop")
        assert runner.asked == {NODE2: ["vg_list", "os_get"]}

    def test_new_node_without_daemon(self, monkeypatch):
        """The command that adds a node starts the daemon there, which a dry run does not."""
        monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: False)
        op, world = WorldOf("add-node")
        _, report = DryRun(world, op)
        assert any(
            line.startswith(f"  could not be checked: node {NEW_NODE} at all") for line in report
        )
        with pytest.raises(errors.OpPrereqError, match="does not answer"):
            world.Run(op)

    def test_many_lines(self, monkeypatch):
        op, world = WorldOf("delay")
        lines = [announce.Change(str(number)) for number in range(50)]
        unit = cmdlib.LOGICAL_UNITS[opcodes.OpTestDelay]
        monkeypatch.setattr(unit, "DescribeChanges", lambda self: lines)
        _, report = DryRun(world, op)
        assert report[-1] == "    and 21 more"
        assert len(report) == 5 + 30

    def test_default(self):
        """A unit that tells nothing is at least known by what it holds for itself."""

        class LUForgotten(base.NoHooksLU):
            def ExpandNames(self):
                self.needed_locks = {}

        world = fake.NewWorld(1)
        unit = LUForgotten(None, opcodes.OpClusterQuery(), world.master, world.rpc)
        unit.acquired_locks = {locking.LEVEL_INSTANCE: {NAME}, locking.LEVEL_NODE: {NODE1}}
        unit.share_locks[locking.LEVEL_NODE] = 1
        assert [str(line) for line in unit.DescribeChanges()] == [
            f"instance {NAME}: may be changed"
        ]

    def test_tasklets(self):
        class One(base.Tasklet):
            def DescribeChanges(self):
                return announce.OnNodes([NODE1], "work")

        class LUTasks(base.NoHooksLU):
            def ExpandNames(self):
                self.needed_locks = {}

        world = fake.NewWorld(1)
        unit = LUTasks(None, opcodes.OpClusterQuery(), world.master, world.rpc)
        unit.tasklets = [One(unit), One(unit)]
        assert [str(line) for line in unit.DescribeChanges()] == [f"on {NODE1}: work"] * 2


class TestNames:
    def test_many(self):
        names = [f"node{number}" for number in range(1, 41)]
        assert announce.FormatNames(names) == "node1, node2, node3, node4, node5 and 35 more"
        assert announce.FormatNames(names[:6]) == "node1, node2, node3, node4, node5, node6"

    def test_grouped(self):
        asked = {"n1": ["a", "b"], "n2": ["a"], "n3": ["a", "b"]}
        assert dryrun.DescribeAsked(asked) == "n1, n3 (a, b); n2 (a)"


class TestBetween:
    def test_edits(self):
        world = NewWorld([Create()])
        old = world.cfg.GetClusterInfo()
        new = old.Copy()
        new.serial_no = 99
        new.candidate_pool_size = 1
        new.volume_group_name = None
        new.enabled_hypervisors = ["fake", "xen-pvm"]
        assert [str(line) for line in announce.Between(old, new)] == [
            "cluster: candidate_pool_size 3 -> 1",
            "cluster: enabled_hypervisors kvm, fake -> fake, xen-pvm",
            "cluster: volume_group_name xenvg -> unset",
        ]


#: What a unit might wrongly do while it checks.
CRIMES = {
    "node call": lambda lu: lu.rpc.call_instance_shutdown(NODE1, None, 1),
    "hooks": lambda lu: lu.rpc.call_hooks_runner([NODE1], "x", "post", {}),
    "update": lambda lu: lu.cfg.Update(lu.cfg.GetClusterInfo(), None),
    "port": lambda lu: lu.cfg.AllocatePort(),
    "minor": lambda lu: lu.cfg.AllocateDRBDMinor([NODE1], NAME),
    "status": lambda lu: lu.context.cfg.MarkInstanceUp(NAME),
    "call of the context": lambda lu: lu.context.rpc.call_node_demote_from_mc(NODE1),
    "lock": lambda lu: lu.context.glm.add(locking.LEVEL_NODE, "new"),
    "queue": lambda lu: lu.context.jobqueue.SetDrainFlag(True),
    "add": lambda lu: lu.context.AddNode(None, "1"),
    "readd": lambda lu: lu.context.ReaddNode(None),
    "remove": lambda lu: lu.context.RemoveNode(NODE2),
}


class TestGuard:
    """What changes something during the checks of a dry run is a mistake that is found out."""

    @pytest.mark.parametrize("crime", CRIMES)
    def test_refused(self, crime, monkeypatch):
        world = NewWorld()
        unit = cmdlib.LOGICAL_UNITS[opcodes.OpTestDelay]
        monkeypatch.setattr(unit, "CheckPrereq", lambda lu: CRIMES[crime](lu))
        before, nodes = Objects(world), OnNodes(world)
        world.rpc.calls.clear()
        op = opcodes.OpTestDelay(duration=0, on_master=True, on_nodes=[], dry_run=True)
        with pytest.raises(errors.ProgrammerError, match="LUTestDelay wants .* in a dry run"):
            world.Run(op)
        assert world.rpc.calls == []
        assert (Objects(world), OnNodes(world)) == (before, nodes)
        CheckNothingLeaks(world)

    def test_real_runs_may(self, monkeypatch):
        world = NewWorld()
        unit = cmdlib.LOGICAL_UNITS[opcodes.OpTestDelay]
        monkeypatch.setattr(unit, "Exec", lambda lu, _: lu.cfg.AllocatePort())
        op = opcodes.OpTestDelay(duration=0, on_master=True, on_nodes=[])
        assert world.Run(op) == 11000

    def test_reservations_end_with_the_job(self, monkeypatch):
        world = NewWorld()
        unit = cmdlib.LOGICAL_UNITS[opcodes.OpTestDelay]

        def Reserve(lu):
            ec_id = lu.proc.GetECId()
            for fn in (lu.cfg.GenerateMAC, lu.cfg.GenerateUniqueID, lu.cfg.GenerateDRBDSecret):
                fn(ec_id)
            lu.cfg.ReserveLV("xenvg/new", ec_id)
            assert lu.cfg.GetStatistics()["reserved_macs"] == 1

        monkeypatch.setattr(unit, "CheckPrereq", Reserve)
        DryRun(world, opcodes.OpTestDelay(duration=0, on_master=True, on_nodes=[]))
        CheckNothingLeaks(world)


class TestLocksOfModify:
    """LK: instances of one node are modified at once, but for who makes or removes disks there."""

    @pytest.mark.parametrize(
        ("values", "mode"),
        [
            ({"beparams": {"memory": 256}}, "shared"),
            ({"nics": [("add", {})]}, "shared"),
            ({"disks": [(0, {"mode": "ro"})]}, "shared"),
            ({"disks": [("add", {"size": 16})]}, "exclusive"),
            ({"disks": [("remove", {})]}, "exclusive"),
        ],
    )
    def test_node(self, values, mode):
        world = fake.NewWorld()
        world.Run(Create(start=False))
        world.Run(Modify(dry_run=True, **values))
        (locks,) = [line for line in world.log if "locks:" in line]
        assert locks.endswith(f"instance {NAME} (exclusive), node {NODE2} ({mode})")
