"""A master without a cluster, for tests of the queue and of what runs in it; shipped.

C{master = fake.NewMaster(sim.runtime, nodes=3)} has a configuration, locks and a queue whose copies
go to nodes in memory. Which delays were executed is in C{master.rpc.executed}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import config, locking, objects, pathutils, rpc
from ..config import fake as config_fake
from ..jstore import journal
from ..runtime import Runtime, Tail
from ..runtime.fake import MemoryFiles
from .queue import JobQueue

#: Calls of the threads that copy the queue.
_COPIES: Final = frozenset(("jobqueue_update_many", "jobqueue_rename"))


class FakeRpc:
    """Node daemons in memory.

    @ivar files: node -> path -> content of its copy of the queue
    @ivar executed: duration of every C{test_delay} call so far: with durations that are all
        different this says which opcode was executed how often
    @ivar hooks: every call of C{hooks_runner}: nodes, path, phase, environment
    @ivar hook_results: node -> payload of its answers to C{hooks_runner}
    @ivar calls: every call and node, in order, but those that follow
    @ivar copies: calls that bring the queue's files to nodes, which come at any time
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.executed: list[float] = []
        self.hooks: list[tuple[list[str], str, str, dict[str, str]]] = []
        self.hook_results: dict[str, list[tuple[str, int, str]]] = {}
        self.calls: list[tuple[str, str]] = []
        self.copies: list[tuple[str, str]] = []
        self._cut: set[str] = set()

    def Cut(self, name: str) -> None:
        """This node does not answer any more."""
        self._cut.add(name)

    def Mend(self, name: str) -> None:
        """This node answers again."""
        self._cut.discard(name)

    def _Answer(self, call: str, name: str, payload: Any = None) -> rpc.RpcResult:
        (self.copies if call in _COPIES else self.calls).append((call, name))
        if name in self._cut:
            return rpc.RpcResult("Connection timed out", failed=True, call=call, node=name)
        return rpc.RpcResult([True, payload], call=call, node=name)

    def call_jobqueue_update_many(
        self,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        files: Sequence[tuple[str, bytes]],
    ) -> dict[str, rpc.RpcResult]:
        results = {name: self._Answer("jobqueue_update_many", name) for name in node_list}
        for name, result in results.items():
            if not result.fail_msg:
                self.files.setdefault(name, {}).update(files)
        return results

    def call_jobqueue_rename(
        self,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        rename: Sequence[tuple[str, str]],
    ) -> dict[str, rpc.RpcResult]:
        results = {name: self._Answer("jobqueue_rename", name) for name in node_list}
        for name, result in results.items():
            files = self.files.setdefault(name, {})
            for old, new in rename:
                if not result.fail_msg and old in files:
                    files[new] = files.pop(old)
        return results

    def call_jobqueue_purge(
        self, node: str, address_list: Sequence[str] | None = None
    ) -> rpc.RpcResult:
        result = self._Answer("jobqueue_purge", node)
        if not result.fail_msg:
            self.files[node] = {}
        return result

    def call_test_delay(
        self, node_list: Sequence[str], duration: float
    ) -> dict[str, rpc.RpcResult]:
        self.executed.append(duration)
        return {name: self._Answer("test_delay", name) for name in node_list}

    def call_hooks_runner(
        self, node_list: Sequence[str], hpath: str, phase: str, env: Mapping[str, str]
    ) -> dict[str, rpc.RpcResult]:
        self.hooks.append((list(node_list), hpath, phase, dict(env)))
        return {
            name: self._Answer("hooks_runner", name, self.hook_results.get(name, []))
            for name in node_list
        }


class FakeLock:
    """The lock file of a queue that nobody else wants."""

    filename = "lock"

    def Exclusive(self, blocking: bool = False, timeout: float | None = None) -> None:
        """Lock it."""

    def Unlock(self, blocking: bool = True, timeout: float | None = None) -> None:
        """Unlock it."""

    def Close(self) -> None:
        """Close it."""


class FakeMaster:
    """The context of a master daemon; see the module."""

    cfg: Any
    glm: locking.GanetiLockManager
    jobqueue: JobQueue
    rpc: Any
    runtime: Runtime

    def __init__(
        self,
        rt: Runtime,
        cfg: config.ConfigWriter,
        rpc_: Any,
        num_workers: int,
        open_lock: Any = FakeLock,
    ) -> None:
        self.runtime = rt
        self.cfg = cfg
        self.rpc = rpc_
        self.glm = locking.GanetiLockManager(cfg.GetNodeList(), cfg.GetInstanceList(), runtime=rt)
        self.jobqueue = JobQueue(self, num_workers, open_lock)

    def AddNode(self, node: objects.Node, ec_id: str | None) -> None:
        self.cfg.AddNode(node, ec_id)
        self.glm.add(locking.LEVEL_NODE, node.name)
        self.jobqueue.AddNode(node)

    def ReaddNode(self, node: objects.Node) -> None:
        self.jobqueue.AddNode(node)

    def RemoveNode(self, name: str) -> None:
        self.cfg.RemoveNode(name)
        self.jobqueue.RemoveNode(name)
        self.glm.remove(locking.LEVEL_NODE, name)


def NewMaster(
    rt: Runtime,
    nodes: int = 1,
    instances: Sequence[str] = (),
    num_workers: int = 3,
    rpc_: Any = None,
    start: bool = True,
) -> FakeMaster:
    """A master of a new cluster, all of whose nodes are candidates.

    What is in C{rt.files} of a queue is taken over.

    @param start: let the workers run
    """
    cfg = config_fake.NewWriter(rt, nodes)
    for name in instances:
        config_fake.AddInstance(cfg, name, config_fake.NodeName(1))
    rt.files.mkdir(pathutils.QUEUE_DIR)
    rt.files.mkdir(pathutils.JOB_QUEUE_ARCHIVE_DIR)
    rt.files.mkdir(pathutils.JOB_QUEUE_JOURNAL_DIR)
    master = FakeMaster(rt, cfg, rpc_ or FakeRpc(), num_workers)
    if start:
        master.jobqueue.Start()
    return master


def AfterPowerFailure(rt: Runtime) -> MemoryFiles:
    """What files a queue would be opened with after a power failure now; nothing really happens."""
    assert isinstance(rt.files, MemoryFiles)
    files = rt.files.AfterCrash()
    journal.Recover(dataclasses.replace(rt, files=files))
    return files


class Crash(BaseException):
    """The machine is dead."""


class CrashingFiles(MemoryFiles):
    """Files of a machine that dies at a certain change of a file.

    @ivar left: how many changes it survives
    @ivar dead: has it died?
    """

    def __init__(self, clock: Any, left: int) -> None:
        super().__init__(clock)
        self.left = left
        self.dead = False

    def _Count(self) -> None:
        if self.left == 0:
            self.dead = True
        if self.dead:
            raise Crash
        self.left -= 1

    def write(
        self,
        path: str,
        data: bytes,
        mode: int = 0o600,
        uid: int = -1,
        gid: int = -1,
        durable: bool = True,
    ) -> None:
        self._Count()
        super().write(path, data, mode, uid, gid, durable)

    def write_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        for path, data in items:
            self.write(path, data, durable=False)
        self._Count()
        for path, _ in items:
            self.MakeDurable(path)

    def append(self, log: Tail) -> None:
        self._Count()
        super().append(log)

    def rename(self, old: str, new: str, mkdir: bool = False, durable: bool = True) -> None:
        self._Count()
        super().rename(old, new, mkdir, durable)

    def remove(self, path: str) -> None:
        self._Count()
        super().remove(path)

    def sync(self, path: str) -> None:
        if self.dead:
            raise Crash
        super().sync(path)

    def MakeDurable(self, path: str) -> None:
        """This file survives a power failure as it is now."""
        self._durable[path] = self._live[path]

    def Restart(self, power_failure: bool) -> None:
        """The machine lives again, with what it has left; it does not die any more.

        @param power_failure: lose what was not synced; else only the process had died
        """
        if power_failure:
            self.Crash()
        self.dead = False
        self.left = -1
