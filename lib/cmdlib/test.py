"""Units that do nothing useful but show that something works: delays, allocators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import constants, errors, iallocator, locking, opcodes
from . import announce, base

#: Seconds between looks whether a sleep shall go on.
_SLICE: Final = 0.5
#: Of a new instance, as allocators are tested with it.
_NIC_KEYS: Final = ("mac", "ip", "bridge")
_DISK_MODES: Final = ("r", "w")


class LUTestDelay(base.NoHooksLU):
    """Sleep on the master and on nodes, which are locked meanwhile."""

    def ExpandNames(self) -> None:
        self.needed_locks = {}
        if self.op.on_nodes:
            self.op.on_nodes = base.GetWantedNodes(self, self.op.on_nodes)
            self.needed_locks[locking.LEVEL_NODE] = self.op.on_nodes

    def CheckPrereq(self) -> None:
        """Nothing: also a duration that can not be is for the units and nodes to refuse."""

    def DescribeChanges(self) -> list[announce.Change]:
        what = f"sleep for {self.op.duration} seconds"
        lines = [announce.Change(f"the master daemon: {what}")] if self.op.on_master else []
        return lines + announce.OnNodes(self.op.on_nodes, what)

    def Exec(self, feedback_fn: base.FeedbackFn) -> None:
        if self.op.on_master:
            self._SleepHere()
        if self.op.on_nodes:
            results = self.rpc.call_test_delay(self.op.on_nodes, self.op.duration)
            for node in self.op.on_nodes:
                results[node].Raise(f"Failure during the delay on node {node}")

    def _SleepHere(self) -> None:
        duration = self.op.duration
        if duration < 0:
            raise errors.OpExecError(f"Can not sleep for {duration} seconds: must not be negative")
        clock = self.context.runtime.clock
        # In slices, as a cancel takes effect between them.
        end = clock.monotonic() + duration
        while (left := end - clock.monotonic()) > 0:
            self.CheckCancel()
            clock.sleep(min(left, _SLICE))


class LUTestAllocator(base.NoHooksLU):
    """Show what an instance allocator is asked or answers."""

    LOOKS_ONLY = True

    REQ_BGL = True

    def CheckArguments(self) -> None:
        op = self.op
        if op.mode not in iallocator.MODES:
            raise _Invalid(f"mode: allocators are not implemented yet for '{op.mode}'")
        if op.name is None:
            raise _Invalid("name is missing")
        if op.direction == constants.IALLOCATOR_DIR_OUT and op.allocator is None:
            raise _Invalid("allocator is missing: the script to run")
        if op.mode == constants.IALLOCATOR_MODE_ALLOC:
            CheckNewInstance(op)
        elif op.mode == constants.IALLOCATOR_MODE_MEVAC and op.evac_nodes is None:
            raise _Invalid("evac_nodes is missing: the nodes to empty")

    def CheckPrereq(self) -> None:
        op = self.op
        self.question = iallocator.IAllocator(self.cfg, self.rpc, op.mode, **self._GetRequest())
        for node, problem in sorted(self.question.unusable.items()):
            self.LogWarning("Node %s is shown as offline to allocators: %s", node, problem)

    def _GetRequest(self) -> dict[str, Any]:
        op = self.op
        if op.mode == constants.IALLOCATOR_MODE_MEVAC:
            return {"evac_nodes": op.evac_nodes}
        if op.mode == constants.IALLOCATOR_MODE_RELOC:
            op.name = base.ExpandInstanceName(self.cfg, op.name)
            return {"name": op.name}
        known = self.cfg.ExpandInstanceName(op.name)
        if known is not None:
            raise errors.OpPrereqError(
                f"Instance '{known}' is already in the cluster", errors.ECODE_EXISTS
            )
        enabled = self.cfg.GetClusterInfo().enabled_hypervisors
        if op.hypervisor is not None and op.hypervisor not in enabled:
            raise _Invalid(f"hypervisor {op.hypervisor!r} is none of {', '.join(enabled)}")
        return {
            "name": op.name,
            "disk_template": op.disk_template,
            "disks": op.disks,
            "nics": [{key: nic[key] for key in _NIC_KEYS} for nic in op.nics],
            "os": op.os,
            "memory": op.mem_size,
            "vcpus": op.vcpus,
            "tags": op.tags,
            "hypervisor": op.hypervisor,
        }

    def Exec(self, feedback_fn: base.FeedbackFn) -> str:
        if self.op.direction == constants.IALLOCATOR_DIR_IN:
            return self.question.in_text
        self.question.Run(self.op.allocator, validate=False)
        return self.question.out_text or ""


def CheckNewInstance(op: Any) -> None:
    """Check what the test of an allocator says of a new instance; pure.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    for name in ("mem_size", "disks", "disk_template", "tags", "nics", "vcpus"):
        if getattr(op, name) is None:
            raise _Invalid(f"{name} is missing: mode '{op.mode}' needs it")
    if op.disk_template not in constants.DISK_TEMPLATES:
        known = ", ".join(sorted(constants.DISK_TEMPLATES))
        raise _Invalid(f"disk_template {op.disk_template!r} is none of {known}")
    for index, nic in enumerate(op.nics):
        missing = [key for key in _NIC_KEYS if key not in nic]
        if missing:
            raise _Invalid(f"nics: number {index} has no {', '.join(missing)}")
    for index, disk in enumerate(op.disks):
        size = disk.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise _Invalid(f"disks: the size of number {index} must be MiB, not {size!r}")
        if disk.get("mode") not in _DISK_MODES:
            raise _Invalid(
                f"disks: the mode of number {index} must be one of {', '.join(_DISK_MODES)}, not"
                f" {disk.get('mode')!r}"
            )


def _Invalid(message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(message, errors.ECODE_INVAL)


LOGICAL_UNITS: Final[Mapping[type[opcodes.OpCode], type[base.LogicalUnit]]] = {
    opcodes.OpTestDelay: LUTestDelay,
    opcodes.OpTestAllocator: LUTestAllocator,
}
