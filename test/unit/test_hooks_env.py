"""BASE3: what the hooks of each operation are told, and where they run: one row an operation."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from ganeti import cmdlib, constants, objects, opcodes, pathutils
from ganeti.cmdlib import fake
from ganeti.config import fake as config_fake

MASTER, PRIMARY, OTHER = (config_fake.NodeName(number) for number in (1, 2, 3))
ALL = [MASTER, PRIMARY, OTHER]
NEW_NODE = "node4.example.com"
NAME = "inst1.example.com"
DIR = f"/srv/ganeti/file-storage/{NAME}"

COMMON = {
    "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
    "GANETI_HOOKS_VERSION": "2",
    "GANETI_HOOKS_TIMEOUT": "300",
    "GANETI_DATA_DIR": pathutils.DATA_DIR,
    "GANETI_CLUSTER": config_fake.CLUSTER_NAME,
    "GANETI_MASTER": MASTER,
}

#: What every hook of the instance gets.
STD = {
    "OP_TARGET": NAME,
    "INSTANCE_NAME": NAME,
    "INSTANCE_PRIMARY": PRIMARY,
    "INSTANCE_SECONDARIES": "",
    "INSTANCE_OS_TYPE": "noop+default",
    "INSTANCE_STATUS": "up",
    "INSTANCE_MEMORY": "132",
    "INSTANCE_VCPUS": "1",
    "INSTANCE_DISK_TEMPLATE": "file",
    "INSTANCE_HYPERVISOR": "fake",
    "INSTANCE_NIC_COUNT": "2",
    "INSTANCE_NIC0_IP": "",
    "INSTANCE_NIC0_MAC": "aa:00:00:00:00:01",
    "INSTANCE_NIC0_MODE": "bridged",
    "INSTANCE_NIC0_LINK": "xen-br0",
    "INSTANCE_NIC0_BRIDGE": "xen-br0",
    "INSTANCE_NIC1_IP": "192.0.2.77",
    "INSTANCE_NIC1_MAC": "aa:00:00:00:00:02",
    "INSTANCE_NIC1_MODE": "routed",
    "INSTANCE_NIC1_LINK": "100",
    "INSTANCE_DISK_COUNT": "2",
    "INSTANCE_DISK0_SIZE": "16",
    "INSTANCE_DISK0_MODE": "rw",
    "INSTANCE_DISK1_SIZE": "1024",
    "INSTANCE_DISK1_MODE": "ro",
    "INSTANCE_BE_memory": "132",
    "INSTANCE_BE_vcpus": "1",
    "INSTANCE_BE_auto_balance": "True",
    # The fake hypervisor has no parameters; see test_hypervisor_parameters.
}
DOWN = {**STD, "INSTANCE_STATUS": "down"}


class Row(NamedTuple):
    """What the hooks of an operation are."""

    op: opcodes.OpCode
    path: str
    kind: str
    pre: list[str]
    post: list[str]
    env: Mapping[str, Any]
    #: Operations that come first.
    before: tuple[opcodes.OpCode, ...] = ()


def Create(**values):
    return opcodes.OpInstanceCreate(
        **{
            "instance_name": NAME,
            "mode": "create",
            "disks": [{"size": 16}, {"size": "1g", "mode": "ro"}],
            "nics": [
                {"mac": "aa:00:00:00:00:01"},
                {
                    "mac": "aa:00:00:00:00:02",
                    "mode": "routed",
                    "link": "100",
                    "ip": "192.0.2.77",
                },
            ],
            "start": True,
            "wait_for_sync": True,
            "ip_check": False,
            "name_check": False,
            "hvparams": {},
            "beparams": {"memory": 129},
            "os_type": "noop+default",
            "disk_template": "file",
            "pnode": PRIMARY,
            **values,
        }
    )


def Stop():
    return opcodes.OpInstanceShutdown(instance_name=NAME)


def OfInstance(path, op, env, before=(), pre=None, std=STD):
    nodes = [MASTER, PRIMARY]
    return Row(op, path, "INSTANCE", pre or nodes, nodes, {**std, **env}, (Create(), *before))


#: What is different if the disks are mirrors, from the first node to the second.
MIRRORED = {"INSTANCE_DISK_TEMPLATE": "drbd", "INSTANCE_SECONDARIES": OTHER}
WITH_VOLUMES = opcodes.OpClusterSetParams(vg_name="xenvg")


def CreateMirrored(**values):
    return Create(disk_template="drbd", snode=OTHER, **values)


def ToMirror(path, op, env, pre):
    """Of an instance with mirrors, that goes to where they are."""
    nodes = {
        "OLD_PRIMARY": PRIMARY,
        "OLD_SECONDARY": OTHER,
        "NEW_PRIMARY": OTHER,
        "NEW_SECONDARY": PRIMARY,
    }
    env = {**STD, **MIRRORED, **env, **nodes}
    return Row(op, path, "INSTANCE", pre, ALL, env, (WITH_VOLUMES, CreateMirrored()))


def Replace(mode, new):
    """Of mirrored disks; new: the new secondary node."""
    remote = {} if new == "None" else {"remote_node": new}
    return Row(
        opcodes.OpInstanceReplaceDisks(instance_name="inst1", mode=mode, disks=[], **remote),
        "mirrors-replace",
        "INSTANCE",
        [MASTER, PRIMARY],
        [MASTER, PRIMARY],
        {**STD, **MIRRORED, "MODE": mode, "NEW_SECONDARY": new, "OLD_SECONDARY": OTHER},
        (WITH_VOLUMES, CreateMirrored()),
    )


CLUSTER_TARGET = {"OP_TARGET": config_fake.CLUSTER_NAME}

ROWS = {
    "post-init": Row(
        opcodes.OpClusterPostInit(), "cluster-init", "CLUSTER", [], [MASTER], CLUSTER_TARGET
    ),
    "verify": Row(
        opcodes.OpClusterVerify(
            verbose=False, error_codes=False, debug_simulate_errors=False, skip_checks=[]
        ),
        "cluster-verify",
        "CLUSTER",
        [],
        ALL,
        {
            "CLUSTER_TAGS": "a b",
            f"NODE_TAGS_{MASTER}": "",
            f"NODE_TAGS_{PRIMARY}": "rack7",
            f"NODE_TAGS_{OTHER}": "",
        },
        (
            opcodes.OpTagsSet(kind="cluster", name="", tags=["b", "a"]),
            opcodes.OpTagsSet(kind="node", name=PRIMARY, tags=["rack7"]),
        ),
    ),
    "rename-cluster": Row(
        opcodes.OpClusterRename(name="other.example.com"),
        "cluster-rename",
        "CLUSTER",
        [MASTER],
        ALL,
        {**CLUSTER_TARGET, "NEW_NAME": "other.example.com"},
    ),
    "set-cluster": Row(
        opcodes.OpClusterSetParams(maintain_node_health=True),
        "cluster-modify",
        "CLUSTER",
        [MASTER],
        [MASTER],
        {**CLUSTER_TARGET, "NEW_VG_NAME": "None"},
    ),
    "set-cluster-vg": Row(
        opcodes.OpClusterSetParams(vg_name="xenvg"),
        "cluster-modify",
        "CLUSTER",
        [MASTER],
        [MASTER],
        {**CLUSTER_TARGET, "NEW_VG_NAME": "xenvg"},
    ),
    "add-node": Row(
        opcodes.OpNodeAdd(node_name=NEW_NODE),
        "node-add",
        "NODE",
        ALL,
        [*ALL, NEW_NODE],
        {
            "OP_TARGET": NEW_NODE,
            "NODE_NAME": NEW_NODE,
            "NODE_PIP": "192.0.2.4",
            "NODE_SIP": "192.0.2.4",
        },
    ),
    "set-node": Row(
        opcodes.OpNodeSetParams(node_name="node2", drained=True, auto_promote=True),
        "node-modify",
        "NODE",
        [MASTER, PRIMARY],
        [MASTER, PRIMARY],
        {
            "OP_TARGET": PRIMARY,
            "MASTER_CANDIDATE": "None",
            "OFFLINE": "None",
            "DRAINED": "True",
        },
    ),
    "evacuate": Row(
        opcodes.OpNodeEvacuate(node_name="node3", remote_node="node2"),
        "node-evacuate",
        "NODE",
        [MASTER, PRIMARY],
        [MASTER, PRIMARY],
        {"NODE_NAME": "node3.example.com", "NEW_SECONDARY": PRIMARY},
    ),
    "create": Row(
        Create(),
        "instance-add",
        "INSTANCE",
        [MASTER, PRIMARY],
        [MASTER, PRIMARY],
        {**STD, "ADD_MODE": "create"},
    ),
    "create-down": Row(
        Create(start=False),
        "instance-add",
        "INSTANCE",
        [MASTER, PRIMARY],
        [MASTER, PRIMARY],
        {**DOWN, "ADD_MODE": "create"},
    ),
    "reinstall": OfInstance(
        "instance-reinstall",
        opcodes.OpInstanceReinstall(instance_name="inst1", os_type="noop+other"),
        {},
        [Stop()],
        std=DOWN,
    ),
    "remove": OfInstance(
        "instance-remove",
        opcodes.OpInstanceRemove(instance_name="inst1", ignore_failures=False, shutdown_timeout=7),
        {"SHUTDOWN_TIMEOUT": "7"},
        pre=[MASTER],
    ),
    "rename": OfInstance(
        "instance-rename",
        opcodes.OpInstanceRename(
            instance_name="inst1", new_name="other.example.com", ignore_ip=True
        ),
        {"INSTANCE_NEW_NAME": "other.example.com"},
        [Stop()],
        std=DOWN,
    ),
    "startup": OfInstance(
        "instance-start",
        opcodes.OpInstanceStartup(instance_name="inst1", force=True),
        {"FORCE": "True"},
        [Stop()],
        std=DOWN,
    ),
    "shutdown": OfInstance("instance-stop", Stop(), {"TIMEOUT": "120"}),
    "reboot": OfInstance(
        "instance-reboot",
        opcodes.OpInstanceReboot(
            instance_name="inst1", reboot_type="hard", ignore_secondaries=False
        ),
        {"IGNORE_SECONDARIES": "False", "REBOOT_TYPE": "hard", "SHUTDOWN_TIMEOUT": "120"},
    ),
    # INSTANCE_BE_* and disks are what they were.
    "set-instance": OfInstance(
        "instance-modify",
        opcodes.OpInstanceSetParams(
            instance_name="inst1",
            beparams={"memory": 256, "vcpus": 3},
            nics=[["remove", {}]],
            disks=[["add", {"size": 8}]],
        ),
        {"INSTANCE_MEMORY": "256", "INSTANCE_VCPUS": "3", "INSTANCE_NIC_COUNT": "1"},
        std={key: value for key, value in STD.items() if not key.startswith("INSTANCE_NIC1")},
    ),
    "grow": OfInstance(
        "disk-grow",
        opcodes.OpInstanceGrowDisk(instance_name="inst1", disk=1, amount=64, wait_for_sync=True),
        {"DISK": "1", "AMOUNT": "64"},
    ),
    "recreate": OfInstance(
        "instance-recreate-disks",
        opcodes.OpInstanceRecreateDisks(instance_name="inst1", disks=[]),
        {},
        [Stop()],
        std=DOWN,
    ),
    "failover": ToMirror(
        "instance-failover",
        opcodes.OpInstanceFailover(
            instance_name="inst1", ignore_consistency=True, shutdown_timeout=7
        ),
        {"IGNORE_CONSISTENCY": "True", "SHUTDOWN_TIMEOUT": "7"},
        [MASTER, OTHER],
    ),
    "migrate": ToMirror(
        "instance-migrate",
        opcodes.OpInstanceMigrate(instance_name="inst1", live=True, cleanup=False),
        {"MIGRATE_LIVE": "True", "MIGRATE_CLEANUP": "False"},
        [MASTER, OTHER],
    ),
    "cleanup": ToMirror(
        "instance-migrate",
        opcodes.OpInstanceMigrate(instance_name="inst1", live=False, cleanup=True),
        {"MIGRATE_LIVE": "False", "MIGRATE_CLEANUP": "True"},
        [MASTER, OTHER],
    ),
    "move": Row(
        opcodes.OpInstanceMove(instance_name="inst1", target_node="node3", shutdown_timeout=7),
        "instance-move",
        "INSTANCE",
        ALL,
        ALL,
        {**STD, "TARGET_NODE": OTHER, "SHUTDOWN_TIMEOUT": "7"},
        (Create(),),
    ),
    "export": Row(
        opcodes.OpBackupExport(instance_name="inst1", target_node="node3", shutdown=False),
        "instance-export",
        "INSTANCE",
        ALL,
        ALL,
        {
            **STD,
            "INSTANCE_DISK_TEMPLATE": "plain",
            "EXPORT_NODE": OTHER,
            "EXPORT_DO_SHUTDOWN": "False",
            "SHUTDOWN_TIMEOUT": "120",
        },
        (WITH_VOLUMES, Create(disk_template="plain")),
    ),
    "replace": Replace(constants.REPLACE_DISK_SEC, "None"),
    "replace-secondary": Replace(constants.REPLACE_DISK_CHG, MASTER),
    "migrate-node": Row(
        opcodes.OpNodeMigrate(node_name="node2", live=True),
        "node-migrate",
        "NODE",
        [MASTER],
        [MASTER],
        {"NODE_NAME": PRIMARY},
        (WITH_VOLUMES, CreateMirrored()),
    ),
}

#: The operations whose hooks run on all nodes of the instance, whichever disks it has.
OF_INSTANCE = {
    name
    for name, row in ROWS.items()
    if row.kind == "INSTANCE" and row.post == [MASTER, PRIMARY] and WITH_VOLUMES not in row.before
}

#: Their hooks run within the execution, or in more places: they have tests of their own below.
SPECIAL = {opcodes.OpNodeRemove, opcodes.OpClusterDestroy}

#: Operations that are known to have no hooks.
WITHOUT = {
    "OP_BACKUP_QUERY",
    "OP_BACKUP_REMOVE",
    "OP_CLUSTER_CONFIG_QUERY",
    "OP_CLUSTER_QUERY",
    "OP_CLUSTER_REDIST_CONF",
    "OP_CLUSTER_REPAIR_DISK_SIZES",
    "OP_CLUSTER_VERIFY_DISKS",
    "OP_INSTANCE_ACTIVATE_DISKS",
    "OP_INSTANCE_CONSOLE",
    "OP_INSTANCE_DEACTIVATE_DISKS",
    "OP_INSTANCE_QUERY",
    "OP_INSTANCE_QUERY_DATA",
    "OP_NODE_EVAC_STRATEGY",
    "OP_NODE_MODIFY_STORAGE",
    "OP_NODE_POWERCYCLE",
    "OP_NODE_QUERY",
    "OP_NODE_QUERYVOLS",
    "OP_NODE_QUERY_STORAGE",
    "OP_OS_DIAGNOSE",
    "OP_REPAIR_NODE_STORAGE",
    "OP_TAGS_DEL",
    "OP_TAGS_GET",
    "OP_TAGS_SEARCH",
    "OP_TAGS_SET",
    "OP_TEST_ALLOCATOR",
    "OP_TEST_DELAY",
}


@pytest.fixture
def world(monkeypatch):
    """Names that resolve, and node daemons that answer, without a network."""
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.4\t{NEW_NODE}\n192.0.2.99\tother.example.com\n")
    monkeypatch.setattr(
        "ganeti.utils.net.TcpPing",
        lambda target, *args, **kwargs: target != "192.0.2.99",
    )
    world = fake.NewWorld(3)
    cluster = world.cfg.GetClusterInfo()
    cluster.modify_ssh_setup = cluster.modify_etc_hosts = False
    cluster.rsahostkeypub = ""
    world.cfg.Update(cluster, None)
    return world


def HooksOf(world, op):
    world.rpc.hooks.clear()
    # A copy, as names are completed in it.
    world.Run(opcodes.OpCode.LoadOpCode(op.__getstate__()))
    return list(world.rpc.hooks)


class TestTable:
    @pytest.mark.parametrize("name", ROWS)
    def test_operation(self, world, name):
        if type(ROWS[name].op) not in cmdlib.LOGICAL_UNITS:
            pytest.skip(f"there is no {ROWS[name].op.OP_ID} yet")
        self.Check(world, name, ROWS[name])

    @pytest.mark.parametrize("name", sorted(OF_INSTANCE))
    def test_with_secondary(self, world, name):
        """The secondary node is told as well."""
        row = ROWS[name]
        env = {**row.env, **MIRRORED}
        if name in ("create", "create-down"):
            before = (WITH_VOLUMES,)
            op = CreateMirrored(start=row.op.start)
        elif name == "set-instance":
            # Disks of other kinds are added in other ways, of which hooks are told nothing.
            before = (WITH_VOLUMES, CreateMirrored())
            op = opcodes.OpCode.LoadOpCode({**row.op.__getstate__(), "disks": []})
        else:
            before, op = (WITH_VOLUMES, CreateMirrored(), *row.before[1:]), row.op
        pre = row.pre if row.pre == [MASTER] else ALL
        self.Check(world, name, row._replace(op=op, before=before, env=env, pre=pre, post=ALL))

    def Check(self, world, name, row):
        for op in row.before:
            HooksOf(world, op)
        if name == "recreate":
            for node in world.rpc.nodes.values():
                for found in (node.disks, node.drbd, node.active):
                    found.clear()
        hooks = HooksOf(world, row.op)
        by_phase = {phase: (nodes, env) for nodes, path, phase, env in hooks if path == row.path}
        assert {phase: nodes for phase, (nodes, _) in by_phase.items()} == {
            phase: nodes for phase, nodes in (("pre", row.pre), ("post", row.post)) if nodes
        }
        for phase, (_, env) in by_phase.items():
            expected = {
                **COMMON,
                "GANETI_OP_CODE": row.op.OP_ID,
                "GANETI_OBJECT_TYPE": row.kind,
                "GANETI_HOOKS_PATH": row.path,
                "GANETI_HOOKS_PHASE": phase,
                **{f"GANETI_{key}": value for key, value in row.env.items()},
            }
            if name == "rename-cluster" and phase == "post":
                expected["GANETI_CLUSTER"] = "other.example.com"
            assert env == expected

    @pytest.mark.parametrize(("answers", "nodes"), [(True, [MASTER, PRIMARY]), (False, [MASTER])])
    def test_offline(self, world, monkeypatch, answers, nodes):
        """A dead node, and that is what most are, is not waited for."""
        monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *_, **__: answers)
        op = opcodes.OpNodeSetParams(node_name="node2", offline=True, auto_promote=True)
        phases = {phase: where for where, path, phase, _ in HooksOf(world, op) if "node" in path}
        assert phases["pre"] == nodes

    def test_config_update(self, world):
        """It has the environment of what changed the configuration, and runs on the master."""
        hooks = HooksOf(world, Create())
        nodes, path, phase, env = hooks[-1]
        assert (nodes, path, phase) == ([MASTER], "config-update", "post")
        assert env["GANETI_INSTANCE_NAME"] == NAME
        assert env["GANETI_HOOKS_PATH"] == "config-update"
        op = opcodes.OpTagsSet(kind="cluster", name="", tags=["a"])
        ((nodes, path, _, env),) = HooksOf(world, op)
        assert (nodes, path, env["GANETI_OBJECT_TYPE"]) == ([MASTER], "config-update", "None")

    def test_hypervisor_parameters(self, world):
        """All of them, the global ones included."""
        cluster = world.cfg.GetClusterInfo()
        cluster.enabled_hypervisors = ["kvm"]
        world.cfg.Update(cluster, None)
        op = Create(hypervisor="kvm", hvparams={"acpi": False}, dry_run=True)
        ((_, _, _, env),) = HooksOf(world, op)
        prefix = "GANETI_INSTANCE_HV_"
        found = {key.removeprefix(prefix) for key in env if key.startswith(prefix)}
        assert found == set(constants.HVC_DEFAULTS["kvm"])
        assert env[prefix + "acpi"] == "False"
        assert "migration_port" in found


class TestImport:
    """It is told where the export is, and its images by disk: false for what it does not have."""

    @pytest.fixture
    def where(self, world):
        path = os.path.join(pathutils.EXPORT_DIR, NAME)
        export = objects.Export(
            os="noop+default",
            name=NAME,
            disks=(objects.ExportedDisk(16, "a.snap"), objects.ExportedDisk(1024, "b.snap")),
        )
        world.rpc.nodes[OTHER].exports.append(NAME)
        world.rpc.nodes[OTHER].descriptions[path] = "".join(
            line
            for line in objects.FormatExport(export).splitlines(keepends=True)
            if "disk1_dump" not in line
        )
        return path

    # The one who does not say where it is has it found.
    @pytest.mark.parametrize("src_node", ["node3", None])
    def test_environment(self, world, where, src_node):
        op = Create(mode="import", src_node=src_node, os_type=None)
        env = {
            **STD,
            "ADD_MODE": "import",
            "SRC_NODE": OTHER,
            "SRC_PATH": where,
            "SRC_IMAGES": f"['{where}/a.snap', False]",
        }
        nodes = [MASTER, PRIMARY]
        TestTable().Check(world, "import", Row(op, "instance-add", "INSTANCE", nodes, nodes, env))


class TestWithinTheExecution:
    def test_node_remove(self, world):
        hooks = HooksOf(world, opcodes.OpNodeRemove(node_name="node3"))
        assert [(nodes, phase) for nodes, path, phase, _ in hooks if path == "node-remove"] == [
            ([MASTER, PRIMARY], "pre"),
            # After it left the configuration, and before it is told to leave.
            ([OTHER], "post"),
            ([MASTER, PRIMARY], "post"),
        ]
        for _, path, phase, env in hooks:
            if path == "node-remove":
                assert env == {
                    **COMMON,
                    "GANETI_OP_CODE": "OP_NODE_REMOVE",
                    "GANETI_OBJECT_TYPE": "NODE",
                    "GANETI_HOOKS_PATH": "node-remove",
                    "GANETI_HOOKS_PHASE": phase,
                    "GANETI_OP_TARGET": OTHER,
                    "GANETI_NODE_NAME": OTHER,
                }
        order = [call for call, name in world.rpc.calls if name == OTHER]
        assert order.index("hooks_runner") < order.index("node_leave_cluster")

    def test_cluster_destroy(self):
        world = fake.NewWorld(1)
        cluster = world.cfg.GetClusterInfo()
        cluster.modify_ssh_setup = False
        world.cfg.Update(cluster, None)
        ((nodes, path, phase, env),) = HooksOf(world, opcodes.OpClusterDestroy())
        assert (nodes, path, phase) == ([MASTER], "cluster-destroy", "post")
        assert env["GANETI_OP_TARGET"] == config_fake.CLUSTER_NAME
        order = [call for call, _ in world.rpc.calls]
        assert order.index("hooks_runner") < order.index("node_stop_master")


def test_every_operation_is_known():
    """A new unit needs a row here, or a place among those without hooks."""
    with_rows = {row.op.__class__ for row in ROWS.values()} | SPECIAL
    for op_class, unit in cmdlib.LOGICAL_UNITS.items():
        if unit.HPATH is None:
            assert op_class.OP_ID in WITHOUT, op_class
        else:
            assert op_class in with_rows, op_class
