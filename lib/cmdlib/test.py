"""Units that do nothing useful but show that something works: delays, allocators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import errors, locking, opcodes
from . import announce, base

#: Seconds between looks whether a sleep shall go on.
_SLICE: Final = 0.5


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

    def CheckPrereq(self) -> None:
        raise errors.OpPrereqError(
            "Testing instance allocators is not implemented yet", errors.ECODE_ENVIRON
        )

    def Exec(self, feedback_fn: base.FeedbackFn) -> Any:
        raise errors.ProgrammerError("CheckPrereq refuses")


LOGICAL_UNITS: Final[Mapping[type[opcodes.OpCode], type[base.LogicalUnit]]] = {
    opcodes.OpTestDelay: LUTestDelay,
    opcodes.OpTestAllocator: LUTestAllocator,
}
