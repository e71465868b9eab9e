"""The suites find what they are for: bugs that are planted here, each within a few worlds.

A plant takes something out of the program that looks as if it could be missing. The crash suite's
own plants are in C{test_crash}.
"""

from __future__ import annotations

import contextlib
import logging
from unittest import mock

import pytest
from simworld import World

from ganeti import constants, locking, opcodes
from ganeti.cmdlib import instance_modify, instance_operation, modify_disks
from ganeti.config import fake as config_fake
from ganeti.config import writer
from ganeti.config.commit import Batcher
from ganeti.jqueue import executor, job, queue, replication
from ganeti.locking import manager, sharedlock


@contextlib.contextmanager
def LostWakeUp():
    """Who gives up waiting does not wake the next in the queue."""

    def _RemoveEntry(self, entry, priority):
        entries = self._queues[priority]
        entries.entries.remove(entry)
        if not entries.entries:
            del self._queues[priority]

    with mock.patch.object(sharedlock.SharedLock, "_RemoveEntry", _RemoveEntry):
        yield


@contextlib.contextmanager
def SharersPass():
    """A lock that somebody has alone is given to sharers."""

    def _Compatible(self, shared):
        return shared or (self._exclusive is None and not self._sharers)

    with mock.patch.object(sharedlock.SharedLock, "_Compatible", _Compatible):
        yield


@contextlib.contextmanager
def LeftBehind():
    """A set that was not to be had in time keeps the members that were."""

    class _Set(locking.LockSet):
        def acquire(self, names, *args, **kwargs):
            got = super().acquire(names, *args, **kwargs)
            if got is None and names is not None and not isinstance(names, str):
                self._Snapshot()[sorted(names)[0]].acquire(timeout=0)
            return got

    with mock.patch.object(manager, "LockSet", _Set):
        yield


@contextlib.contextmanager
def OrderInversion():
    """A unit takes its node before its instance, another one the usual way, and nobody checks."""

    class _Modify(instance_modify.LUInstanceSetParams):
        def ExpandNames(self):
            super().ExpandNames()
            glm = self.context.glm
            instance = self.cfg.GetInstanceInfo(self.op.instance_name)
            del self.needed_locks[locking.LEVEL_NODE]
            self.recalculate_locks.clear()
            glm.acquire(locking.LEVEL_NODE, [instance.primary_node])

        def Exec(self, feedback_fn):
            try:
                return super().Exec(feedback_fn)
            finally:
                self.context.glm.release(locking.LEVEL_NODE)

    with (
        mock.patch.dict(instance_modify.LOGICAL_UNITS, {opcodes.OpInstanceSetParams: _Modify}),
        _Registry(opcodes.OpInstanceSetParams, _Modify),
        mock.patch.object(manager.GanetiLockManager, "_CheckOrder", lambda *_: None),
    ):
        yield


@contextlib.contextmanager
def CheckedOrderInversion():
    """The same, but the lock manager looks."""

    class _Remove(instance_operation.LUInstanceRemove):
        def ExpandNames(self):
            super().ExpandNames()
            node = self.cfg.GetInstanceInfo(self.op.instance_name).primary_node
            del self.needed_locks[locking.LEVEL_NODE]
            self.recalculate_locks.clear()
            self.context.glm.acquire(locking.LEVEL_NODE, [node], timeout=1)

    with _Registry(opcodes.OpInstanceRemove, _Remove):
        yield


@contextlib.contextmanager
def _Registry(op_class, unit):
    from ganeti import cmdlib

    with mock.patch.dict(cmdlib._LoadModules(), {op_class: unit}):
        yield


@contextlib.contextmanager
def SharedInsteadOfExclusive():
    """A unit that changes an instance asks for its lock in shared mode."""

    class _Startup(instance_operation.LUInstanceStartup):
        def ExpandNames(self):
            super().ExpandNames()
            self.share_locks[locking.LEVEL_INSTANCE] = 1

    with _Registry(opcodes.OpInstanceStartup, _Startup):
        yield


@contextlib.contextmanager
def LeakedReservation():
    """A job that was refused keeps the MAC addresses it had reserved."""
    original = writer.ConfigWriter.DropECReservations
    with mock.patch.object(
        writer.ConfigWriter,
        "DropECReservations",
        lambda self, ec_id: original(self, ec_id) if int(ec_id) % 2 else None,
    ):
        yield


@contextlib.contextmanager
def LeakedPort():
    """A creation that fails does not give its port back."""
    with mock.patch.object(writer.ConfigWriter, "AddTcpUdpPort", lambda self, port: None):
        yield


@contextlib.contextmanager
def LeakedLock():
    """The lock of a removed instance stays."""
    original = instance_operation.RemoveInstance

    def _Remove(lu, *args):
        original(lu, *args)
        lu.remove_locks.clear()

    with mock.patch.object(instance_operation, "RemoveInstance", _Remove):
        yield


@contextlib.contextmanager
def LeakedDisk():
    """A disk that is taken from an instance stays on its node."""
    original = modify_disks.DiskChanges.Finish

    def _Finish(self):
        self._removed.clear()
        original(self)

    with mock.patch.object(modify_disks.DiskChanges, "Finish", _Finish):
        yield


@contextlib.contextmanager
def ForgottenDependents():
    """Jobs that wait for one which is cancelled are not told."""
    original = queue.JobQueue.JobEnded

    def _Ended(self, ended):
        if ended.CalcStatus() == constants.JOB_STATUS_CANCELED:
            with self.mutex:
                self._dependents.pop(ended.id, None)
        return original(self, ended)

    with mock.patch.object(queue.JobQueue, "JobEnded", _Ended):
        yield


@contextlib.contextmanager
def DoubleRun():
    """A worker does not look whether another one has the job already."""

    def _Run(self, claimed, ticket):
        with self._queue.mutex:
            if claimed.final or self._queue.ending:
                return
            claimed.claimed = ticket
            claimed.worker = self._queue.context.runtime.threads.get_ident()
        try:
            self._RunClaimed(claimed)
        finally:
            with self._queue.mutex:
                claimed.claimed = None

    with mock.patch.object(executor.JobExecutor, "Run", _Run):
        yield


@contextlib.contextmanager
def CancelComesTooLate():
    """A job is cancelled though it runs already."""

    def _Request(self, now):
        for op in self.ops:
            if not op.final:
                op.status = constants.OP_STATUS_CANCELED
                op.end_timestamp = job.MakeTimestamp(now)
        self.Finish(now)
        return True, "canceled"

    with mock.patch.object(job.QueuedJob, "RequestCancel", _Request):
        yield


@contextlib.contextmanager
def ResurrectedByWrite():
    """A write that comes after a job was archived brings its file back."""
    from ganeti import jstore

    with mock.patch.object(
        queue.JobQueue, "_PathUnlocked", staticmethod(lambda item: jstore.GetJobPath(item.id))
    ):
        yield


@contextlib.contextmanager
def GoneWhileArchived():
    """A job that is about to be archived is in neither place for a moment."""

    def _Known(self, job_id):
        return self._jobs.get(job_id) or self._arriving.get(job_id)

    with mock.patch.object(queue.JobQueue, "_KnownUnlocked", _Known):
        yield


@contextlib.contextmanager
def OldPicture():
    """A new candidate gets a picture of the queue from before it is told of changes."""

    def _AddNode(self, node):
        self._replicator.RemoveTarget(node.name)
        self.context.rpc.call_jobqueue_purge(node.name, address_list=[node.primary_ip])
        if node.master_candidate:
            picture = self._GetUpdates(True)
            self._rt.clock.sleep(0.3)
            self._replicator.AddTarget(node.name, node.primary_ip, picture)

    with mock.patch.object(queue.JobQueue, "AddNode", _AddNode):
        yield


@contextlib.contextmanager
def LostForCandidate():
    """What a candidate did not take is not sent again."""
    with mock.patch.object(replication._Candidate, "PutBack", lambda self, unsent: None):
        yield


@contextlib.contextmanager
def LostUpdate():
    """The configuration takes objects that were changed since they were read."""

    def _Successor(self, key, target):
        new = target.Copy()
        new.serial_no = self._engine.NextSerial(key, self._store.Get(key).serial_no)
        return new

    with mock.patch.object(writer.ConfigWriter, "_Successor", _Successor):
        yield


@contextlib.contextmanager
def NobodyWaits():
    """Changes of the configuration are answered before they are written."""
    original = Batcher.Wait

    def _Wait(self, batch):
        if self._running is not None and self._on_error is not None:
            return None
        return original(self, batch)

    with mock.patch.object(Batcher, "Wait", _Wait):
        yield


class Tags(World):
    """Many tags of few objects, many workers."""

    OPS = (opcodes.OpTagsSet, opcodes.OpTagsDel, opcodes.OpNodeSetParams)
    FAULTS: bool | None = None

    def __init__(self, seed):
        super().__init__(seed, faults=self.FAULTS, jobs=9)
        self.maker.Only(*self.OPS)
        self.workers, self.pace = 6, 0.1


class NewTags(Tags):
    """Each job gives the cluster another tag; all of them at once."""

    FAULTS = False

    def __init__(self, seed):
        super().__init__(seed)
        self.maker.Use(self._Draw)
        self.jobs, self.pace = 14, 0.0

    def _Draw(self):
        tag = f"tag{len(self.maker.made)}"
        return opcodes.OpTagsSet(kind=constants.TAG_CLUSTER, name="", tags=[tag])


class Witness(Tags):
    """After each answer it is looked whether the file of the configuration has it."""

    def StartMaster(self):
        super().StartMaster()
        self.master.cfg.look_at_file = True


class Failures(Tags):
    """Instances of which no disk can be made."""

    OPS = (opcodes.OpInstanceCreate,)
    FAULTS = False

    def __init__(self, seed):
        super().__init__(seed)
        self.nodes.Fail("blockdev_create")


class Roles(Tags):
    """Nodes become candidates, or are none any more, while jobs end."""

    FAULTS = False

    def __init__(self, seed):
        super().__init__(seed)
        self.maker.Use(self._Draw)
        self.pace = 1.0

    def _Draw(self):
        if self.rng.random() < 0.3:
            return opcodes.OpTestDelay(
                duration=self.rng.choice([0.1, 1.0]), on_master=True, on_nodes=[]
            )
        return opcodes.OpNodeSetParams(
            node_name=config_fake.NodeName(self.rng.randint(1, self.NODES)),
            force=False,
            auto_promote=False,
            master_candidate=self.rng.choice([True, False]),
        )


class Priorities(World):
    """Clients change the priorities of jobs again and again."""

    def __init__(self, seed):
        super().__init__(seed, faults=False, jobs=10)
        self.maker.Only(opcodes.OpTestDelay)
        self.workers = 3

    def _Client(self, number):
        for _ in range(self.jobs):
            self._Submit()
            for _ in range(3):
                priority = self.rng.choice([-15, 0, 15])
                self.master.jobqueue.ChangeJobPriority(self._AnyJob(), priority)
                self.rt.clock.sleep(self.rng.choice([0.0, 0.0, 0.3]))


class Archivers(World):
    """Jobs are cancelled and archived as soon as they are there."""

    def __init__(self, seed):
        super().__init__(seed, faults=False, jobs=10)
        self.maker.Only(opcodes.OpTestDelay)
        self.workers = 3

    def StartMaster(self):
        super().StartMaster()
        self.rt.threads.start(self._KeepArchiving, name="archiver")

    def _KeepArchiving(self):
        while not self.done:
            self.master.jobqueue.AutoArchiveJobs(-1, 20)
            self.rt.clock.sleep(self.rng.choice([0.0, 0.01, 0.1]))

    def _Client(self, number):
        for _ in range(self.jobs):
            self._Submit()
            if self.rng.random() < 0.7:
                self.master.jobqueue.CancelJob(self._AnyJob())
            self.rt.clock.sleep(self.rng.choice([0.0, 0.0, 0.1]))


#: Plant, within how many worlds it is to be found, and in what kind of them.
PLANTS = [
    (LostWakeUp, 1000, World),
    (SharersPass, 200, World),
    (LeftBehind, 1000, World),
    (OrderInversion, 100, World),
    (CheckedOrderInversion, 100, World),
    (SharedInsteadOfExclusive, 100, World),
    (LeakedReservation, 200, World),
    (LeakedPort, 100, Failures),
    (LeakedLock, 100, World),
    (LeakedDisk, 200, World),
    (ForgottenDependents, 1000, World),
    (DoubleRun, 100, Priorities),
    (CancelComesTooLate, 500, World),
    (ResurrectedByWrite, 500, Archivers),
    (GoneWhileArchived, 1000, World),
    (OldPicture, 1000, Roles),
    (LostForCandidate, 100, World),
    (LostUpdate, 200, NewTags),
    (NobodyWaits, 100, Witness),
]


def FindSeed(plant, limit, world=World):
    """The first world that the planted bug breaks; None if it survives all of them."""
    logging.disable(logging.CRITICAL)
    try:
        with plant():
            for seed in range(limit):
                try:
                    world(seed).Run()
                except Exception as err:  # noqa: BLE001 - in whatever way it shows
                    assert f"World({seed})" in err.__notes__
                    return seed
    finally:
        logging.disable(logging.NOTSET)
    return None


@pytest.mark.timeout(180)
class TestPlanted:
    """LK1-LK4, LK7, JQ1-JQ3: a bug in any of these does not stay unseen."""

    @pytest.mark.parametrize(
        ("plant", "limit", "world"), PLANTS, ids=[item[0].__name__ for item in PLANTS]
    )
    def test_is_found(self, plant, limit, world):
        assert FindSeed(plant, limit, world) is not None

    def test_nothing_planted(self):
        """It is the plant that breaks them."""
        for world in (World, *sorted({item[2] for item in PLANTS} - {World}, key=str)):
            assert FindSeed(contextlib.nullcontext, 15, world) is None
