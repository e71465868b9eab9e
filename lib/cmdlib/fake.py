"""Node daemons in memory for tests of logical units; shipped, as the other fakes are.

C{world = fake.NewWorld(nodes=3)} has a master whose calls go to L{FakeNodes}: they keep instances
and disk files as sets, answer as real ones would, and fail on demand. C{world.Run(op)} executes an
opcode as a job would.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import constants, errors, locking, mcpu, objects, opcodes, rpc, runtime
from ..config import fake as config_fake
from ..iallocator import fake as iallocator_fake
from ..jqueue import fake as jqueue_fake
from ..runtime import fake as runtime_fake
from ..utils import io, text
from . import fakedisks, fakemigration


@dataclass
class FakeNode(fakedisks.DiskStore, fakemigration.MigrationStore):
    """What a node has beside its disks.

    @ivar running: instance -> its memory in MiB
    @ivar oses: OS -> its variants
    @ivar units: names of its storage units of LVM, whatever the type
    @ivar scripts: OS scripts that were run: (script, instance)
    @ivar answers: C{constants.NV_*} -> what it says to C{node_verify} other than a healthy node
    @ivar descriptions: directory of an export -> its description
    @ivar imports: what was imported: (instance, node it came from, images)
    @ivar checksums: path -> checksum of its file, None: it has none; others are as the master's
    """

    running: dict[str, int] = field(default_factory=dict)
    oses: dict[str, list[str]] = field(default_factory=lambda: {"noop": ["default", "other"]})
    scripts: list[tuple[str, str]] = field(default_factory=list)
    bridges: set[str] = field(default_factory=lambda: {"xen-br0"})
    memory_free: int = 4096
    left: bool = False
    demoted: bool = False
    files: set[str] = field(default_factory=set)
    exports: list[str] = field(default_factory=list)
    images: set[tuple[str, str]] = field(default_factory=set)
    descriptions: dict[str, str] = field(default_factory=dict)
    imports: list[tuple[str, str, list[Any]]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    lvs: dict[str, tuple[str, bool, bool]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str | None] = field(default_factory=dict)


class FakeNodes(fakedisks.FakeDisks, fakemigration.FakeMigrations, jqueue_fake.FakeRpc):
    """All nodes of a cluster; see the module.

    @ivar nodes: name -> its state
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.nodes = {name: FakeNode() for name in names}
        self._failing: dict[str, tuple[str, bool, Container[str] | None]] = {}
        #: Calls about storage units: (call, node, arguments).
        self.storage_calls: list[tuple[Any, ...]] = []
        #: Allocator scripts of all nodes: name -> what it answers to its input.
        self.allocators: dict[str, Callable[[str], str]] = {"simple": iallocator_fake.Simple}
        #: Calls of allocators: (name, input).
        self.allocations: list[tuple[str, str]] = []
        #: Called with every call and node before it is made.
        self.before_call: Callable[[str, str], object] = lambda *_: None
        self.offline: Callable[[str], bool] = lambda _: False
        #: Seconds since the epoch, by the clocks of all nodes.
        self.now: Callable[[], float] = lambda: 0.0

    def Fail(
        self,
        call: str,
        message: str = "it broke",
        lost: bool = False,
        nodes: Container[str] | None = None,
    ) -> None:
        """Let every call of that name fail.

        @param lost: the node does what it is asked, but its answer is lost
        @param nodes: on these nodes alone
        """
        self._failing[call] = (message, lost, nodes)

    def Heal(self) -> None:
        """No call fails any more."""
        self._failing.clear()

    def _One(self, call: str, name: str, fn: Callable[[FakeNode], Any]) -> rpc.RpcResult:
        if self.offline(name):
            return rpc.RpcResult(offline=True, call=call, node=name)
        return self._OneStatic(call, name, fn)

    def _OneStatic(self, call: str, name: str, fn: Callable[[FakeNode], Any]) -> rpc.RpcResult:
        """As C{_One}, for calls that do not look whether the node is marked offline."""
        self.before_call(call, name)
        result = self._Answer(call, name)
        if result.fail_msg:
            return result
        message, lost, nodes = self._failing.get(call, (None, False, None))
        failed = rpc.RpcResult([False, message], call=call, node=name)
        fails = message is not None and (nodes is None or name in nodes)
        if fails and not lost:
            return failed
        node = self.nodes.setdefault(name, FakeNode())
        try:
            payload = fn(node)
        except LookupError as err:
            return rpc.RpcResult([False, str(err.args[0])], call=call, node=name)
        return failed if fails else rpc.RpcResult([True, payload], call=call, node=name)

    def _Many(
        self, call: str, names: Sequence[str], fn: Callable[[FakeNode], Any]
    ) -> dict[str, rpc.RpcResult]:
        return {name: self._One(call, name, fn) for name in names}

    # Nodes

    def call_version(
        self, node_list: Sequence[str], address_list: Sequence[str] | None = None
    ) -> dict[str, rpc.RpcResult]:
        return {
            name: self._OneStatic("version", name, lambda _: constants.PROTOCOL_VERSION)
            for name in node_list
        }

    def call_node_info(
        self, node_list: Sequence[str], vg_name: str | None, hypervisor: str
    ) -> dict[str, rpc.RpcResult]:
        return self._Many(
            "node_info",
            node_list,
            lambda node: {
                "memory_total": 8192,
                "memory_free": node.memory_free - sum(node.running.values()),
                "memory_dom0": 512,
                "vg_size": 100000,
                "vg_free": 50000,
                "bootid": "boot",
                "cpu_total": 4,
                "cpu_nodes": 1,
                "cpu_sockets": 1,
            },
        )

    def call_node_leave_cluster(
        self, node: str, modify_ssh_setup: bool, address_list: Sequence[str] | None = None
    ) -> rpc.RpcResult:
        return self._OneStatic("node_leave_cluster", node, lambda item: setattr(item, "left", True))

    def call_node_demote_from_mc(self, node: str) -> rpc.RpcResult:
        return self._One("node_demote_from_mc", node, lambda item: setattr(item, "demoted", True))

    def call_node_powercycle(self, node: str, hypervisor: str) -> rpc.RpcResult:
        return self._One("node_powercycle", node, lambda _: "Reboot scheduled in 5 seconds")

    def call_node_stop_master(self, node: str, stop_daemons: bool) -> rpc.RpcResult:
        return self._OneStatic("node_stop_master", node, lambda _: None)

    def call_node_start_master(
        self, node: str, start_daemons: bool, no_voting: bool
    ) -> rpc.RpcResult:
        return self._OneStatic("node_start_master", node, lambda _: None)

    def call_node_add(self, node: str, *keys: str) -> rpc.RpcResult:
        return self._One("node_add", node, lambda _: None)

    def call_node_has_ip_address(self, node: str, address: str) -> rpc.RpcResult:
        return self._One("node_has_ip_address", node, lambda _: True)

    def call_node_volumes(self, node_list: Sequence[str]) -> dict[str, rpc.RpcResult]:
        return self._Many("node_volumes", node_list, lambda node: node.volumes)

    def call_export_list(self, node_list: Sequence[str]) -> dict[str, rpc.RpcResult]:
        return self._Many("export_list", node_list, lambda node: node.exports)

    def call_export_remove(self, node: str, name: str) -> rpc.RpcResult:
        def Remove(item: FakeNode) -> None:
            if name in item.exports:
                item.exports.remove(name)

        return self._One("export_remove", node, Remove)

    def call_snapshot_export(
        self,
        node: str,
        snapshot: objects.Disk,
        dest_node: str,
        instance: objects.Instance,
        cluster_name: str,
        index: int,
        debug: int,
    ) -> rpc.RpcResult:
        def Export(item: FakeNode) -> None:
            self._RequireAll(item, [fakedisks.DeviceKey(snapshot)])
            self.nodes[dest_node].images.add((instance.name, snapshot.logical_id[1]))

        return self._One("snapshot_export", node, Export)

    def call_finalize_export(
        self,
        node: str,
        instance: objects.Instance,
        snapshots: Sequence[objects.Disk | bool],
    ) -> rpc.RpcResult:
        def Finish(item: FakeNode) -> None:
            for snapshot in snapshots:
                if isinstance(snapshot, objects.Disk):
                    image = (instance.name, snapshot.logical_id[1])
                    if image not in item.images:
                        raise LookupError(f"There is no image {image[1]}")
            if instance.name not in item.exports:
                item.exports.append(instance.name)

        return self._One("finalize_export", node, Finish)

    def call_export_info(self, node: str, path: str) -> rpc.RpcResult:
        def Info(item: FakeNode) -> str:
            if path not in item.descriptions:
                raise LookupError(f"No description of an export in {path}")
            return item.descriptions[path]

        return self._One("export_info", node, Info)

    def call_node_verify(
        self, node_list: Sequence[str], checks: Mapping[str, Any], cluster_name: str
    ) -> dict[str, rpc.RpcResult]:
        def Verify(node: FakeNode) -> dict[str, Any]:
            answers = {**self._HealthyAnswers(node, checks), **node.answers}
            return {key: answers[key] for key in checks if key in answers}

        return self._Many("node_verify", node_list, Verify)

    def _HealthyAnswers(self, node: FakeNode, checks: Mapping[str, Any]) -> dict[str, Any]:
        files = {**io.FingerprintFiles(checks.get(constants.NV_FILELIST, ())), **node.checksums}
        return {
            constants.NV_FILELIST: {path: value for path, value in files.items() if value},
            constants.NV_NODELIST: {},
            constants.NV_HYPERVISOR: dict.fromkeys(checks.get(constants.NV_HYPERVISOR, ())),
            constants.NV_NODENETTEST: {},
            constants.NV_INSTANCELIST: sorted(node.running),
            constants.NV_VERSION: [constants.PROTOCOL_VERSION, constants.RELEASE_VERSION],
            constants.NV_HVINFO: {"memory_free": node.memory_free - sum(node.running.values())},
            constants.NV_NODESETUP: [],
            constants.NV_TIME: text.SplitTime(self.now()),
            constants.NV_MASTERIP: True,
            constants.NV_VGLIST: {"xenvg": 100000.0},
            constants.NV_LVLIST: {name: list(state) for name, state in node.lvs.items()},
            constants.NV_PVLIST: [[50000.0, "/dev/sda3", "xenvg"]],
            constants.NV_DRBDLIST: [],
        }

    def call_upload_file(
        self, node_list: Sequence[str], path: str, address_list: Sequence[str] | None = None
    ) -> dict[str, rpc.RpcResult]:
        return {
            name: self._OneStatic("upload_file", name, lambda node: node.files.add(path))
            for name in node_list
        }

    def call_bridges_exist(self, node: str, bridges: Sequence[str]) -> rpc.RpcResult:
        def Check(item: FakeNode) -> None:
            missing = sorted(set(bridges) - item.bridges)
            if missing:
                raise LookupError(f"Bridges not found: {', '.join(missing)}")

        return self._One("bridges_exist", node, Check)

    def call_hypervisor_validate_params(
        self, node_list: Sequence[str], hypervisor: str, params: Mapping[str, Any]
    ) -> dict[str, rpc.RpcResult]:
        return self._Many("hypervisor_validate_params", node_list, lambda _: None)

    def call_vg_list(self, node_list: Sequence[str]) -> dict[str, rpc.RpcResult]:
        return self._Many("vg_list", node_list, lambda _: {"xenvg": 100000.0})

    def call_lv_list(self, node_list: Sequence[str], vg_name: str) -> dict[str, rpc.RpcResult]:
        def List(node: FakeNode) -> dict[str, tuple[str, bool, bool]]:
            used = {key for device in node.drbd.values() for key in device.children}
            prefix = f"{vg_name}/"
            found = {
                key.removeprefix(prefix): (
                    f"{node.sizes.get(key, 0):.2f}",
                    key not in node.active,
                    key in used,
                )
                for key in node.disks
                if key.startswith(prefix)
            }
            return {**found, **node.lvs}

        return self._Many("lv_list", node_list, List)

    def call_storage_list(
        self,
        node_list: Sequence[str],
        storage_type: str,
        args: Sequence[Any],
        name: str | None,
        fields: Sequence[str],
    ) -> dict[str, rpc.RpcResult]:
        def List(node: FakeNode) -> list[list[Any]]:
            values = {"size": 1000, "used": 10, "free": 990, "allocatable": True}
            known = args[0] if storage_type == constants.ST_FILE else node.units
            names = [name] if name else known
            return [[{**values, "name": unit}[field] for field in fields] for unit in names]

        return self._Many("storage_list", node_list, List)

    def call_storage_modify(
        self, node: str, storage_type: str, args: Sequence[Any], name: str, changes: Any
    ) -> rpc.RpcResult:
        call = ("storage_modify", node, storage_type, name, changes)
        return self._One("storage_modify", node, lambda _: self.storage_calls.append(call))

    def call_storage_execute(
        self, node: str, storage_type: str, args: Sequence[Any], name: str, operation: str
    ) -> rpc.RpcResult:
        call = ("storage_execute", node, storage_type, name, operation)
        return self._One("storage_execute", node, lambda _: self.storage_calls.append(call))

    def call_iallocator_runner(self, node: str, name: str, text: str) -> rpc.RpcResult:
        def Run(_: FakeNode) -> str:
            if name not in self.allocators:
                raise LookupError(f"iallocator module '{name}' not found")
            self.allocations.append((name, text))
            return self.allocators[name](text)

        return self._One("iallocator_runner", node, Run)

    # Instances

    def call_instance_list(
        self, node_list: Sequence[str], hypervisors: Sequence[str]
    ) -> dict[str, rpc.RpcResult]:
        return self._Many("instance_list", node_list, lambda node: sorted(node.running))

    def call_all_instances_info(
        self, node_list: Sequence[str], hypervisors: Sequence[str]
    ) -> dict[str, rpc.RpcResult]:
        return self._Many(
            "all_instances_info",
            node_list,
            lambda node: {
                name: {"memory": memory, "vcpus": 1, "state": "---b-", "time": 0}
                for name, memory in node.running.items()
            },
        )

    def call_instance_info(self, node: str, name: str, hypervisor: str) -> rpc.RpcResult:
        def Info(item: FakeNode) -> dict[str, Any]:
            if name not in item.running:
                return {}
            return {"memory": item.running[name], "state": "---b-", "time": 0}

        return self._One("instance_info", node, Info)

    def call_instance_start(
        self,
        node: str,
        instance: objects.Instance,
        hvp: Mapping[str, Any] | None = None,
        bep: Mapping[str, Any] | None = None,
    ) -> rpc.RpcResult:
        def Start(item: FakeNode) -> None:
            item.running.setdefault(instance.name, (bep or {}).get(constants.BE_MEMORY, 128))

        return self._One("instance_start", node, Start)

    def call_instance_shutdown(
        self, node: str, instance: objects.Instance, timeout: int
    ) -> rpc.RpcResult:
        return self._One(
            "instance_shutdown", node, lambda item: item.running.pop(instance.name, None) and None
        )

    def call_instance_reboot(
        self, node: str, instance: objects.Instance, reboot_type: str, timeout: int
    ) -> rpc.RpcResult:
        def Reboot(item: FakeNode) -> None:
            if instance.name not in item.running:
                raise LookupError("Cannot reboot instance that is not running")

        return self._One("instance_reboot", node, Reboot)

    def call_instance_os_add(
        self, node: str, instance: objects.Instance, reinstall: bool, debug: int
    ) -> rpc.RpcResult:
        script = "reinstall" if reinstall else "create"
        return self._One(
            "instance_os_add", node, lambda item: item.scripts.append((script, instance.name))
        )

    def call_instance_os_import(
        self,
        node: str,
        instance: objects.Instance,
        src_node: str,
        src_images: Sequence[Any],
        cluster_name: str,
        debug: int,
    ) -> rpc.RpcResult:
        entry = (instance.name, src_node, list(src_images))
        return self._One("instance_os_import", node, lambda item: item.imports.append(entry))

    def call_instance_run_rename(
        self, node: str, instance: objects.Instance, old_name: str, debug: int
    ) -> rpc.RpcResult:
        return self._One(
            "instance_run_rename",
            node,
            lambda item: item.scripts.append(("rename", instance.name)),
        )

    def call_os_get(self, node: str, name: str) -> rpc.RpcResult:
        base_name = name.partition("+")[0]

        def Get(item: FakeNode) -> objects.OS:
            if base_name not in item.oses:
                raise LookupError(f"Directory for OS {base_name} not found in search path")
            return objects.OS(name=base_name, supported_variants=item.oses[base_name])

        return self._One("os_get", node, Get)

    def call_os_diagnose(self, node_list: Sequence[str]) -> dict[str, rpc.RpcResult]:
        return self._Many(
            "os_diagnose",
            node_list,
            lambda node: [
                [name, f"/srv/ganeti/os/{name}", True, "", variants]
                for name, variants in node.oses.items()
            ],
        )


class _Recorder(mcpu.OpExecCbBase):
    def __init__(self) -> None:
        self.log: list[str] = []
        self.submitted: list[list[opcodes.OpCode]] = []

    def Feedback(self, *args: Any) -> None:
        self.log.append(str(args[-1]))

    def SubmitManyJobs(self, jobs: list[list[opcodes.OpCode]]) -> list[Any]:
        first = len(self.submitted)
        self.submitted += jobs
        return [[True, str(first + number)] for number in range(len(jobs))]


#: Those whose threads have not been ended.
_open_worlds: list[World] = []


def CloseWorlds() -> None:
    """End the threads of all masters that there are: thousands of them would slow every test."""
    while _open_worlds:
        _open_worlds.pop().Close()


class World:
    """A cluster in memory; see the module.

    @ivar master: context of the master daemon
    @ivar rpc: the nodes
    @ivar log: messages of the opcode that was run last
    @ivar submitted: jobs that it wants to be run, which are not
    """

    def __init__(self, nodes: int = 3, rt: runtime.Runtime | None = None) -> None:
        names = [config_fake.NodeName(number) for number in range(1, nodes + 1)]
        self.rpc = FakeNodes(names)
        self.runtime = rt or runtime_fake.NewRuntime()
        self.master = jqueue_fake.NewMaster(
            self.runtime, nodes=nodes, rpc_=self.rpc, num_workers=1, start=False
        )
        self.rpc.offline = self._IsOffline
        self.rpc.now = self.runtime.clock.time
        self.log: list[str] = []
        self.submitted: list[list[opcodes.OpCode]] = []
        self._jobs = 0
        _open_worlds.append(self)

    def Close(self) -> None:
        """End the threads of the master; nothing can be done with it afterwards."""
        self.master.jobqueue.Shutdown()

    def _IsOffline(self, name: str) -> bool:
        node = self.master.cfg.GetNodeInfo(name)
        return node is not None and bool(node.offline)

    def AddInstance(self, name: str, primary: str, **values: Any) -> objects.Instance:
        """Have an instance that no operation created, with its disks; it runs if it shall."""
        config_fake.AddInstance(self.cfg, name, primary, **values)
        glm = self.master.glm
        glm.acquire(locking.LEVEL_CLUSTER, [locking.BGL])
        try:
            glm.add(locking.LEVEL_INSTANCE, name)
        finally:
            glm.release(locking.LEVEL_CLUSTER)
        instance: objects.Instance = self.cfg.GetInstanceInfo(name)
        self.PutDisks(instance)
        if instance.admin_up:
            self.rpc.nodes[primary].running[name] = 128
        return instance

    def PutDisks(self, instance: objects.Instance) -> None:
        """Let the nodes have the disks of an instance that no operation created, all active."""
        for disk in instance.disks:
            for name in disk.GetNodes(instance.primary_node):
                self.cfg.SetDiskID(disk, name)
                self.rpc.nodes[name].Put(disk)

    @property
    def cfg(self) -> Any:
        """The configuration."""
        return self.master.cfg

    def Run(self, op: opcodes.OpCode) -> Any:
        """Execute an opcode with a job's reservations; what it raises comes through."""
        self._jobs += 1
        recorder = _Recorder()
        op.Validate(True)
        try:
            return mcpu.Processor(self.master, str(self._jobs)).ExecOpCode(op, recorder)
        finally:
            self.log, self.submitted = recorder.log, recorder.submitted


def NewCreate(name: str, primary: str, **values: Any) -> opcodes.OpInstanceCreate:
    """An opcode that creates an instance with two file disks and a NIC, and starts it."""
    defaults: dict[str, Any] = {
        "mode": constants.INSTANCE_CREATE,
        "disks": [{"size": 16}, {"size": 32}],
        "nics": [{}],
        "start": True,
        "wait_for_sync": True,
        "ip_check": False,
        "name_check": False,
        "hvparams": {},
        "beparams": {},
        "os_type": "noop+default",
        "disk_template": constants.DT_FILE,
    }
    return opcodes.OpInstanceCreate(
        **{**defaults, "instance_name": name, "pnode": primary, **values}
    )


def RunTogether(world: World, ops: Sequence[opcodes.OpCode]) -> list[errors.GenericError]:
    """Execute opcodes at the same time, each as a job of its own; what those that failed raised."""
    failed: list[errors.GenericError] = []

    def _One(number: int, op: opcodes.OpCode) -> None:
        op.Validate(True)
        try:
            mcpu.Processor(world.master, str(number)).ExecOpCode(op)
        except errors.GenericError as err:
            failed.append(err)

    threads = world.runtime.threads
    handles = [threads.start(_One, args=(number, op)) for number, op in enumerate(ops)]
    for handle in handles:
        handle.join()
    return failed


def NewWorld(nodes: int = 3) -> World:
    """A cluster of that many nodes, all of them candidates, the first one its master."""
    return World(nodes)
