"""JQ1, JQ2: the master dies at any step of any write, and another one takes over what is left.

Each story is one world. It is told once for every step of its disk, and dies there; then a new
master daemon starts on what a kill leaves, on what a power failure leaves, and on the copy of the
other candidate. What clients were told must still hold, and everything else as in any world.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import random
from unittest import mock

import pytest
from simdisk import KILLED, POWER_LOSS, TORN, Crash, MortalDisk
from simmaster import Violation
from simworld import World

from ganeti import constants, opcodes, pathutils
from ganeti.config import fake as config_fake
from ganeti.jqueue import executor, job, queue
from ganeti.jstore import files, journal
from ganeti.runtime.fake import FakeRandom, MemoryFiles
from ganeti.runtime.simulation import SimulationError

OTHER = config_fake.NodeName(2)
FAILOVER = "failover"


class Story(World):
    """A world whose master dies at a certain step.

    @ivar answered, promised: what the configuration must still have
    """

    NODES = 2

    def __init__(self, seed, left):
        super().__init__(seed, faults=False, jobs=5)
        self.disk = MortalDisk(self.rt.clock.time)
        self.left = left
        self.rt = dataclasses.replace(self.rt, files=self.disk)
        self.pace = 1.0
        self.workers = 3
        self.maker.instances = self.maker.instances[:2]
        # The other node stays a candidate, to take over.
        self.maker.Forbid(opcodes.OpNodeSetParams)
        self.nodes.Attach(self.rt, self.disk)
        # So fast that nobody gives up waiting for it: what was answered is there.
        self.nodes.latencies = [0.002, 0.05]

    def StartMaster(self):
        self.pool_size = self.NODES
        self.disk.left = -1 if self.left < 0 else self.disk.steps + self.left
        self.start = self.disk.steps
        super().StartMaster()
        self.master.cfg.alive = self.disk.CheckAlive

    def Accept(self, job_id, comments):
        self.disk.CheckAlive()
        super().Accept(job_id, comments)

    def NoteRun(self, op):
        self.disk.CheckAlive()
        super().NoteRun(op)

    def Settle(self):
        """The end of the story, alive: it ends in good order."""
        self.WaitForJobs()
        self.done = True
        self.master.jobqueue.Shutdown()
        self.disk.left = -1

    def Tell(self):
        """True if it was told to its end."""
        try:
            self.Run()
        except (Crash, SimulationError):
            if not self.disk.dead:
                raise
        return not self.disk.dead


class Heir(World):
    """The master daemon that takes over.

    @param how: what is left
    """

    NODES = Story.NODES

    def __init__(self, story, how):
        super().__init__(story.left + 1000, faults=False)
        # It comes later.
        self.sim.now = story.sim.now + 1.0
        self.story = story
        self.how = how
        self.maker, self.accepted = story.maker, dict(story.accepted)
        self.runs = story.runs.copy()
        self.nodes = _CopyNodes(story.nodes)
        files = MemoryFiles(self.rt.clock.time)
        for path, data in self._Left().items():
            files.write(path, data)
        files.mkdir(pathutils.QUEUE_DIR)
        files.mkdir(pathutils.JOB_QUEUE_ARCHIVE_DIR)
        self.rt = dataclasses.replace(self.rt, files=files)
        self.nodes.Attach(self.rt, MortalDisk(None))
        self.ports_may_be_lost = True

    def _Left(self):
        if self.how != FAILOVER:
            return self.story.disk.Left(self.how, FakeRandom(self.story.left))
        found = dict(self.story.nodes.files.get(OTHER, {}))
        config = self.story.nodes.config.get(OTHER)
        if config is None:
            # It has not been offered any change since it was made.
            config = self.story.first_config
        return {**found, pathutils.CLUSTER_CONF_FILE: config}

    def _Main(self):
        self.StartMaster()
        self._CheckPromises()
        self.rt.threads.start(self._Monitor, name="monitor")
        # It may have been drained when it died.
        self.master.jobqueue.SetDrainFlag(False)
        new = opcodes.OpTestDelay(duration=0.1, on_master=True, on_nodes=[])
        self.maker.Finish(new)
        new.dry_run = False
        job_id = self.master.jobqueue.SubmitJob([new])
        if job_id in self.accepted:
            raise Violation(f"job id {job_id} was given out twice")
        self.accepted[job_id] = [new.comment]
        self.Settle()

    def _CheckPromises(self):
        if self.story.master is None:
            return
        cfg, before = self.master.cfg, self.story.master.cfg
        if cfg.GetConfigSerialNo() < before.answered:
            raise Violation(
                f"configuration {cfg.GetConfigSerialNo()}, {before.answered} was answered"
            )
        for (kind, name), serial in before.promised.items():
            info = cfg.GetInstanceInfo(name) if kind == "instance" else cfg.GetNodeInfo(name)
            if info is None or info.serial_no < serial:
                raise Violation(f"{kind} {name} was promised to have serial {serial}: {info}")

    def _TaintedInstances(self):
        names = super()._TaintedInstances()
        for left in self.master.jobqueue._jobs.values():
            for op in left.ops:
                # Interrupted, or perhaps only written before anybody was told.
                if op.result == job.UNCLEAN_TEXT:
                    names |= {getattr(item.input, "instance_name", None) for item in left.ops}
        return names - {None}

    def CheckFailureText(self, failed, op):
        if op.result != job.UNCLEAN_TEXT:
            super().CheckFailureText(failed, op)


def _CopyNodes(nodes):
    result = copy.copy(nodes)
    result.nodes = copy.deepcopy(nodes.nodes)
    result.files = copy.deepcopy(nodes.files)
    result.config = dict(nodes.config)
    result.disturbed = set(nodes.disturbed)
    return result


def CountSteps(seed):
    """How many places there are to die in that story."""
    story = Story(seed, -1)
    if not story.Tell():
        raise AssertionError("It died though it should not")
    return story.disk.steps - story.start


def RunStory(seed, left, ways):
    """Let a story die at that step, and heirs take over.

    @param ways: what is left to them
    """
    story = Story(seed, left)
    story.Tell()
    for how in ways:
        try:
            Heir(story, how).Run()
        except BaseException as err:
            err.add_note(f"Story({seed}, {left}), {how}")
            raise


@contextlib.contextmanager
def _Quiet():
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


SEEDS = (1, 2, 6, 13)
PARTS = 4
WAYS = (KILLED, POWER_LOSS, TORN, FAILOVER)


class TestEveryStep:
    """JQ1, JQ2: no accepted job is lost, none runs twice, the configuration is valid and has what
    was answered.
    """

    @pytest.mark.parametrize("part", range(PARTS))
    @pytest.mark.parametrize("seed", SEEDS)
    def test_story(self, seed, part):
        with _Quiet():
            steps = CountSteps(seed)
            assert steps > 30
            for left in range(part, steps, PARTS):
                RunStory(seed, left, WAYS)


# Planted bugs


@contextlib.contextmanager
def MissingSync():
    """The files are not synced when the journal goes."""

    def _Write(self, items):
        for path, data in items:
            self.write(path, data, durable=False)

    with mock.patch.object(MortalDisk, "write_many", _Write):
        yield


@contextlib.contextmanager
def RunsAgain():
    """After a restart what ran runs again."""

    def _Recover(self, now):
        for op in self.ops:
            if not op.final:
                op.status = constants.OP_STATUS_QUEUED
        return True

    with mock.patch.object(job.QueuedJob, "Recover", _Recover):
        yield


@contextlib.contextmanager
def StartsUnwritten():
    """That an opcode runs is written some time, not before it does."""

    def _Start(self):
        with self._queue.mutex:
            self._CheckCancelUnlocked()
            self._op.Apply(constants.OP_EVENT_START, self._queue.Now())
        self._queue.PersistLazily(self._job)

    with mock.patch.object(executor._Callbacks, "NotifyStart", _Start):
        yield


@contextlib.contextmanager
def AnsweredEarly():
    """The id of a job is returned before its file is written."""
    original = queue.JobQueue.SubmitJob

    def _Submit(self, ops):
        submission = self.BeginSubmit([ops])
        if submission.results[0] == [False, ""] and submission.errors[0] is None:
            return str(self._last_id)
        return original(self, ops)

    with mock.patch.object(queue.JobQueue, "SubmitJob", _Submit):
        yield


@contextlib.contextmanager
def TellsNoEnds():
    """A new master does not tell the candidate of jobs that have ended."""
    with mock.patch.object(queue.JobQueue, "_GetEnded", lambda self: {}):
        yield


@contextlib.contextmanager
def JournalUnsynced():
    """What is appended to the journal is answered before it is on the disk."""
    original = MortalDisk.append

    def _Append(self, log):
        before = self._durable.get(log.path)
        original(self, log)
        if before is None:
            del self._durable[log.path]
        else:
            self._durable[log.path] = before

    with mock.patch.object(MortalDisk, "append", _Append):
        yield


@contextlib.contextmanager
def JournalDroppedEarly():
    """The journal goes before the files have what it says."""

    def _Work(self):
        with self._order:
            self._journal.Drop(self._journal.Rotate())
        return self._WriteDirty()

    with mock.patch.object(files.QueueFiles, "_Work", _Work):
        yield


@contextlib.contextmanager
def JournalIgnored():
    """Who opens the queue does not look into its journal."""
    with mock.patch.object(journal, "Recover", lambda rt: 0):
        yield


@contextlib.contextmanager
def LooseConfig():
    """The configuration is written without a sync."""
    original = MortalDisk.write

    def _Write(self, path, data, mode=0o600, uid=-1, gid=-1, durable=True):
        durable = durable and (path != pathutils.CLUSTER_CONF_FILE or path not in self._durable)
        original(self, path, data, mode, uid, gid, durable)

    with mock.patch.object(MortalDisk, "write", _Write):
        yield


PLANTS = [
    MissingSync,
    RunsAgain,
    StartsUnwritten,
    AnsweredEarly,
    TellsNoEnds,
    JournalUnsynced,
    JournalDroppedEarly,
    JournalIgnored,
    LooseConfig,
]


def FindStep(plant, seeds=SEEDS):
    """A death that the planted bug does not survive."""
    with plant(), _Quiet():
        deaths = [(seed, left) for seed in seeds for left in range(CountSteps(seed))]
        # Neighbours are much alike.
        random.Random(1).shuffle(deaths)
        for seed, left in deaths:
            try:
                RunStory(seed, left, WAYS)
            except Exception as err:  # noqa: BLE001 - in whatever way it shows
                return seed, left, err
    return None


class TestPlanted:
    """JQ1, JQ2: a bug in durability does not stay unseen."""

    @pytest.mark.parametrize("plant", PLANTS, ids=[plant.__name__ for plant in PLANTS])
    def test_is_found(self, plant):
        assert FindStep(plant) is not None
