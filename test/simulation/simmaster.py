"""A master daemon that looks over its own shoulder.

The real locks, configuration and processor, with second books beside them that know nothing of how
those work: who holds what, who changed what under which lock, what was begun how often.
"""

from __future__ import annotations

import contextlib

from ganeti import config, jqueue, locking, mcpu, objects, pathutils, serializer
from ganeti.config import fake as config_fake
from ganeti.jqueue import fake as jqueue_fake


class Violation(AssertionError):
    """Something that must never happen did; what it is about is in the text."""


class CheckedLockManager(locking.GanetiLockManager):
    """Keeps a second list of the holders of each lock.

    @ivar holders: (level, name) -> thread -> is it shared?
    """

    def __init__(self, nodes, instances, runtime):
        super().__init__(nodes, instances, runtime=runtime)
        self.holders = {}

    def _Ident(self):
        return self._rt.threads.get_ident()

    def _Note(self, level, names, shared):
        me = self._Ident()
        for name in names:
            others = self.holders.setdefault((level, name), {})
            if me in others:
                raise Violation(f"{name}: acquired twice by the same thread")
            if others and not (shared and all(others.values())):
                raise Violation(
                    f"lock {name}: got {'shared' if shared else 'exclusively'} beside"
                    f" others: {others}"
                )
            others[me] = bool(shared)

    def _Forget(self, level, names):
        for name in names:
            del self.holders[level, name][self._Ident()]

    def acquire(self, level, names, timeout=None, shared=0, **kwargs):
        got = super().acquire(level, names, timeout=timeout, shared=shared, **kwargs)
        if got is not None:
            self._Note(level, got, shared)
        return got

    def release(self, level, names=None):
        if names is None:
            gone = self.list_owned(level)
        else:
            gone = {names} if isinstance(names, str) else set(names)
        self._Forget(level, gone & self.list_owned(level))
        super().release(level, names)

    def add(self, level, names, acquired=0, shared=0):
        result = super().add(level, names, acquired=acquired, shared=shared)
        if acquired and result:
            self._Note(level, {names} if isinstance(names, str) else names, shared)
        return result

    def remove(self, level, names):
        owned = self.list_owned(level)
        gone = {names} if isinstance(names, str) else set(names)
        self._Forget(level, gone & owned)
        return super().remove(level, names)

    def downgrade(self, level, names=None):
        result = super().downgrade(level, names)
        for name in self.list_owned(level):
            if names is None or name in names:
                self.holders[level, name][self._Ident()] = True
        return result

    def Exclusive(self, level, name):
        """Does the current thread have that lock to itself, or all of them?"""
        me = self._Ident()
        if self.holders.get((locking.LEVEL_CLUSTER, locking.BGL), {}).get(me) is False:
            return True
        return self.holders.get((level, name), {}).get(me) is False

    def CheckSettled(self):
        """To be called while every thread sleeps: was somebody not woken?"""
        for level in locking.LEVELS:
            lockset = self._sets[level]
            for lock in [lockset._set_lock, *lockset._locks.values()]:
                if lock._mutex.locked():
                    raise Violation(f"{lock!r}: somebody sleeps with the mutex")
                lock._CheckInvariants()
                first = lock._FirstQueue()
                if first is not None and lock._Compatible(first.entries[0].shared):
                    raise Violation(f"{lock!r}: a wake-up was lost")

    def CheckFree(self):
        """Nobody holds or waits for anything."""
        left = {key: who for key, who in self.holders.items() if who}
        if left:
            raise Violation(f"locks still held: {left}")
        for info in self.GetLockInfo():
            if info["mode"] or info["pending"]:
                raise Violation(f"lock still in use: {info}")
        for lockset in self._sets.values():
            if lockset._owned:
                raise Violation(f"{lockset!r} still has owners: {lockset._owned}")


class CheckedWriter(config.ConfigWriter):
    """Refuses changes by who has not the lock, and remembers what it has answered.

    @ivar answered: serial number that the file has at least, as callers were told
    @ivar promised: (kind, name) -> serial number of the object at least, or None: it may be gone
    """

    glm = None

    def __init__(self, *args, **kwargs):
        #: Look at the file after every answer.
        self.look_at_file = False
        self.answered = 0
        self.promised = {}
        #: Raises once nobody can be told anything any more.
        self.alive = lambda: None
        super().__init__(*args, **kwargs)

    def _Need(self, level, name, what):
        if self.glm is not None and not self.glm.Exclusive(level, name):
            raise Violation(f"{what} {name} without holding its lock alone")

    @contextlib.contextmanager
    def _Noted(self, kind=None, name=None):
        """Remember what who asked for a change may rely on once it has its answer."""
        before = self._engine.store.serial_no
        yield
        self.alive()
        # Others may have written more since, which is not answered yet.
        self.answered = max(self.answered, before + 1)
        if self.look_at_file:
            stored = serializer.Load(self._rt.files.read(pathutils.CLUSTER_CONF_FILE))
            if stored["serial_no"] < self.answered:
                raise Violation(f"change {self.answered} was answered, the file is {stored}")
        store = self._engine.store
        obj = (store.nodes if kind == "node" else store.instances).get(name)
        if obj is not None:
            # Under its lock: nobody else can have changed it meanwhile.
            self.promised[kind, name] = obj.serial_no

    def Update(self, target, feedback_fn=None):
        if isinstance(target, objects.Instance):
            self._Need(locking.LEVEL_INSTANCE, target.name, "changed instance")
            kind = "instance"
        elif isinstance(target, objects.Node):
            self._Need(locking.LEVEL_NODE, target.name, "changed node")
            kind = "node"
        else:
            kind = None
        with self._Noted(kind, getattr(target, "name", None)):
            super().Update(target, feedback_fn)

    def MaintainCandidatePool(self, *args, **kwargs):
        for name in self.GetNodeList():
            self._Need(locking.LEVEL_NODE, name, "judged node")
        return super().MaintainCandidatePool(*args, **kwargs)

    def _SetInstanceStatus(self, instance_name, status):
        self._Need(locking.LEVEL_INSTANCE, instance_name, "marked instance")
        before = self._store.instances.get(instance_name)
        if before is not None and before.admin_up == status:
            # Nothing to be written, and so nothing that is answered.
            super()._SetInstanceStatus(instance_name, status)
            return
        with self._Noted("instance", instance_name):
            super()._SetInstanceStatus(instance_name, status)

    def AddInstance(self, instance, ec_id):
        self._Need(locking.LEVEL_INSTANCE, instance.name, "added instance")
        with self._Noted("instance", instance.name):
            super().AddInstance(instance, ec_id)

    def RemoveInstance(self, instance_name):
        self._Need(locking.LEVEL_INSTANCE, instance_name, "removed instance")
        # May be gone from now on, whether this is ever answered or not.
        self.promised.pop(("instance", instance_name), None)
        with self._Noted():
            super().RemoveInstance(instance_name)


class CountingProcessor(mcpu.Processor):
    """Counts what really began, by the comment that each opcode has for itself."""

    def _ExecLU(self, lu):
        self.context.world.NoteRun(lu.op)
        return super()._ExecLU(lu)


class SimMaster(jqueue_fake.FakeMaster):
    """The context of a master daemon over what is in C{rt.files}; see the module."""

    def __init__(self, rt, nodes, world, num_workers):
        self.runtime = rt
        self.rpc = nodes
        self.world = world
        self.cfg = CheckedWriter(runtime=rt, distributor=nodes, my_hostname=config_fake.NodeName(1))
        self.glm = CheckedLockManager(
            self.cfg.GetNodeList(), self.cfg.GetInstanceList(), runtime=rt
        )
        self.cfg.glm = self.glm
        nodes.offline = self._IsOffline
        self.jobqueue = jqueue.JobQueue(self, num_workers, jqueue_fake.FakeLock)

    def _IsOffline(self, name):
        node = self.cfg.GetNodeInfo(name)
        return node is not None and bool(node.offline)


def WriteCluster(rt, nodes, pool_size, hypervisors):
    """The files of a new cluster: configuration, empty queue."""
    document = config_fake.NewConfigData(rt, nodes)
    document["cluster"]["enabled_hypervisors"] = list(hypervisors)
    document["cluster"]["candidate_pool_size"] = pool_size
    data = serializer.Dump(document, indent=True).encode("utf-8")
    rt.files.write(pathutils.CLUSTER_CONF_FILE, data)
    rt.files.mkdir(pathutils.QUEUE_DIR)
    rt.files.mkdir(pathutils.JOB_QUEUE_ARCHIVE_DIR)
