"""Migrations between fake nodes, as a hypervisor does them that takes its time.

The guest is at the source until that says C{completed}; in that moment it is at the target, if
something waits for it there. A migration for which nobody waits any more fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, objects, rpc
from . import fakedisks

#: MiB that a guest has.
_MEMORY: Final = 128
_PORT: Final = 8102


@dataclass
class FakeOutgoing:
    """A migration away from a node.

    @ivar script: what is still to be said of it
    @ivar target: what the target had answered that the source needs to know
    @ivar status: what was said last
    """

    script: list[Any]
    live: bool
    target: str = ""
    status: str = constants.MIGRATION_ACTIVE


@dataclass
class MigrationStore:
    """What one node knows of migrations.

    @ivar incoming: instances that something waits for
    @ivar outgoing: instance -> how it leaves, until somebody has said how it went
    @ivar paused: instances that stand still
    """

    incoming: set[str] = field(default_factory=set)
    outgoing: dict[str, FakeOutgoing] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)


class FakeMigrations:
    """The calls about migrations; L{cmdlib.fake.FakeNodes} has the rest."""

    nodes: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        #: What each migration says, look by look: a status, or a whole answer. The last one stays.
        self.migration_script: list[str | Mapping[str, Any]] = [
            constants.MIGRATION_ACTIVE,
            constants.MIGRATION_COMPLETED,
        ]

    def _One(self, call: str, name: str, fn: Callable[[Any], Any]) -> rpc.RpcResult:
        raise NotImplementedError

    def call_instance_migratable(self, node: str, instance: objects.Instance) -> rpc.RpcResult:
        return self._One(
            "instance_migratable", node, lambda item: self._RequireRunning(item, instance.name)
        )

    def call_migration_info(self, node: str, instance: objects.Instance) -> rpc.RpcResult:
        def Info(item: Any) -> str:
            self._RequireRunning(item, instance.name)
            return f"info of {instance.name}"

        return self._One("migration_info", node, Info)

    @staticmethod
    def _RequireRunning(item: Any, name: str) -> None:
        if name not in item.running:
            raise LookupError(f"Instance {name} is not running")

    def call_accept_instance(
        self, node: str, instance: objects.Instance, info: Any, target: str
    ) -> rpc.RpcResult:
        def Accept(item: Any) -> str:
            if instance.name in item.running:
                raise LookupError(f"Instance {instance.name} runs here already")
            self._RequireOpen(item, instance)
            item.incoming.add(instance.name)
            return f"[{target}]:{_PORT}"

        return self._One("accept_instance", node, Accept)

    @staticmethod
    def _RequireOpen(item: Any, instance: objects.Instance) -> None:
        for disk in instance.disks:
            if disk.dev_type != constants.LD_DRBD8:
                continue
            device = item.drbd.get(fakedisks.DeviceKey(disk))
            if device is None or not device.primary:
                raise LookupError(f"Disk {disk.iv_name} is not open for writing")

    def call_instance_migrate(
        self, node: str, instance: objects.Instance, target: str, live: bool
    ) -> rpc.RpcResult:
        def Start(item: Any) -> None:
            self._RequireRunning(item, instance.name)
            item.outgoing[instance.name] = FakeOutgoing(list(self.migration_script), live, target)
            if not live:
                item.paused.add(instance.name)

        return self._One("instance_migrate", node, Start)

    def call_instance_get_migration_status(
        self, node: str, instance: objects.Instance
    ) -> rpc.RpcResult:
        return self._One(
            "instance_get_migration_status", node, lambda item: self._Look(item, instance.name)
        )

    def _Look(self, item: Any, name: str) -> dict[str, Any]:
        leaving = item.outgoing.get(name)
        if leaving is None:
            return _Answer(constants.MIGRATION_FAILED, "no migration was started")
        if leaving.status != constants.MIGRATION_ACTIVE:
            return _Answer(leaving.status, "it was over already")
        if name not in item.running:
            leaving.status = constants.MIGRATION_FAILED
            return _Answer(leaving.status, "the instance does not run any more")
        said = self._NextWord(leaving)
        answer = _Answer(said) if isinstance(said, str) else {**_Answer("active"), **said}
        waiting = self._FindWaiting(name, leaving)
        if not waiting:
            leaving.status = constants.MIGRATION_FAILED
            return _Answer(leaving.status, "the connection was closed")
        leaving.status = answer["status"]
        if leaving.status == constants.MIGRATION_COMPLETED:
            (target,) = waiting
            target.running[name] = item.running.pop(name)
            if name in item.paused:
                item.paused.remove(name)
                target.paused.add(name)
        return answer

    def _NextWord(self, leaving: FakeOutgoing) -> str | Mapping[str, Any]:
        """What a migration that is under way says next."""
        word: str | Mapping[str, Any] = leaving.script[0]
        if len(leaving.script) > 1:
            del leaving.script[0]
        return word

    def _FindWaiting(self, name: str, leaving: FakeOutgoing) -> list[Any]:
        """The node on which something waits for the instance, if there is one."""
        return [other for other in self.nodes.values() if name in other.incoming]

    def call_instance_abort_migration(self, node: str, instance: objects.Instance) -> rpc.RpcResult:
        def Abort(item: Any) -> None:
            leaving = item.outgoing.get(instance.name)
            if leaving is None or leaving.status == constants.MIGRATION_COMPLETED:
                return
            leaving.status = constants.MIGRATION_CANCELLED
            item.paused.discard(instance.name)

        return self._One("instance_abort_migration", node, Abort)

    def call_instance_finalize_migration_src(
        self, node: str, instance: objects.Instance, success: bool, live: bool
    ) -> rpc.RpcResult:
        name = instance.name

        def Finalize(item: Any) -> None:
            leaving = item.outgoing.pop(name, None)
            if success:
                if name in item.running:
                    raise LookupError(f"Instance {name} still runs here")
                return
            item.paused.discard(name)
            if leaving is not None and leaving.status == constants.MIGRATION_COMPLETED:
                # As a hypervisor that believes what it is told.
                item.running[name] = _MEMORY
            elif name not in item.running:
                raise LookupError(f"Instance {name} has ended here")

        return self._One("instance_finalize_migration_src", node, Finalize)

    def call_finalize_migration(
        self, node: str, instance: objects.Instance, info: Any, success: bool
    ) -> rpc.RpcResult:
        name = instance.name

        def Finalize(item: Any) -> None:
            if success:
                self._RequireRunning(item, name)
                item.paused.discard(name)
            elif name in item.running:
                raise LookupError(f"Instance {name} has arrived and runs here")
            item.incoming.discard(name)

        return self._One("finalize_migration", node, Finalize)


def _Answer(status: str, message: str = "") -> dict[str, Any]:
    return {
        "status": status,
        "transferred_ram": None,
        "total_ram": None,
        "downtime": None,
        "message": message,
    }


def NewProgress(sent: int, total: int) -> dict[str, Any]:
    """What a source says that has sent so many MiB of so many."""
    return {
        "status": constants.MIGRATION_ACTIVE,
        "transferred_ram": sent << 20,
        "total_ram": total << 20,
        "message": "active",
    }


def FindRunning(nodes: Mapping[str, Any], name: str) -> Sequence[str]:
    """Nodes on which an instance runs."""
    return [node for node, item in nodes.items() if name in item.running]
