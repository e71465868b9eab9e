"""JQ1, JQ2: the files of the queue and their journal, on a machine that dies at any step.

On the master as well as on a candidate, where master daemons come, work and go while the node
daemon lives on, and on a disk that fails now and then. After each death: what was answered for is
there, what was refused is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import random
from unittest import mock

import pytest
from simdisk import KILLED, POWER_LOSS, TORN, Crash, MortalDisk

from ganeti import errors, jstore, pathutils
from ganeti.jstore import files, journal
from ganeti.jstore.journal import Rename, Update
from ganeti.runtime.fake import FakeRandom, MemoryFiles, NewRuntime
from ganeti.runtime.simulation import Simulation, SimulationError

JOURNAL = pathutils.JOB_QUEUE_JOURNAL_DIR
JOBS = range(4)
WAYS = (KILLED, POWER_LOSS, TORN)


class Book:
    """What a queue of a few jobs is to have.

    @ivar content: what was answered for: path -> content
    @ivar possible: what else may be there, as nobody was told
    """

    def __init__(self, rng):
        self._rng = rng
        self._count = 0
        self.content = {}
        self.possible = []

    def Draw(self):
        """A few changes, as the queue makes them: jobs are archived once."""
        changes = []
        now = dict(self.content)
        for _ in range(self._rng.randint(1, 3)):
            number = self._rng.choice(JOBS)
            path, archived = jstore.GetJobPath(number), jstore.GetArchivedJobPath(number)
            if path in now and self._rng.random() < 0.4:
                changes.append(Rename(path, archived))
            else:
                self._count += 1
                data = b"%d" % self._count * self._rng.choice([1, 1, 30])
                changes.append(Update(archived if archived in now else path, data))
            now = _Apply(now, changes[-1:])
        return changes

    def Make(self, queue_files, changes):
        """Let them be made; remember what may be found should that never end.

        @return: what could not be renamed, by its new name
        """
        self.possible = [_Apply(self.content, changes[:end]) for end in range(len(changes) + 1)]
        try:
            failed = queue_files.Change(changes)
        except OSError:
            # Refused: none of them.
            self.possible = []
            return {}
        self.content, self.possible = self.possible[-1], []
        return failed

    def IsRight(self, found):
        return found == self.content or found in self.possible


def _Apply(content, changes):
    content = dict(content)
    for change in changes:
        if isinstance(change, Update):
            content[change.path] = change.data
        elif change.path in content:
            content[change.new] = content.pop(change.path)
    return content


def _Content(disk):
    paths = [get(n) for n in JOBS for get in (jstore.GetJobPath, jstore.GetArchivedJobPath)]
    return {path: disk.read(path) for path in paths if disk.exists(path)}


class Story:
    """The files of one queue, until the machine dies.

    @param shared: on a candidate
    """

    def __init__(self, seed, shared, left):
        self.sim = Simulation(seed, preempt=FakeRandom(seed).choice([0.1, 1.0]))
        self.shared = shared
        self.rng = FakeRandom(seed + 1)
        self.disk = MortalDisk(self.sim.runtime.clock.time, left)
        self.rt = dataclasses.replace(self.sim.runtime, files=self.disk)
        self.book = Book(self.rng)
        self.taken = False
        for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR, JOURNAL):
            self.disk.mkdir(path)

    @contextlib.contextmanager
    def _Turn(self):
        if self.taken or random.Random(self.sim.now).random() < 0.2:
            self.rt.clock.sleep(10.0)
            raise errors.LockError("the master daemon has the queue, or another call")
        yield

    def Tell(self):
        """True if it was told to its end."""
        try:
            self.sim.Run(self._Run)
        except (Crash, SimulationError):
            if not self.disk.dead:
                raise
        return not self.disk.dead

    def _Run(self):
        queue_files = files.QueueFiles(self.rt, self._Turn if self.shared else None)
        for _ in range(6):
            self._Work(queue_files)
            if self.shared and self.rng.random() < 0.6:
                self._AnotherOwner()
        self.disk.Heal()
        self.rt.clock.sleep(40.0)
        queue_files.Shutdown()
        self.disk.left = -1
        if self.shared:
            # A master daemon that was killed may have come after it.
            journal.Recover(self.rt)
        assert journal._ListNumbers(self.rt) == []
        assert _Content(self.disk) == self.book.content

    def _Work(self, queue_files):
        for _ in range(self.rng.randint(0, 2)):
            if self.rng.random() < 0.5:
                self._Fail()
            changes = self.book.Draw()
            while failed := self.book.Make(queue_files, changes):
                # Tried again, with all that was to come of the same jobs.
                self.disk.Heal()
                paths = {c.path for c in changes if isinstance(c, Rename) and c.new in failed}
                changes = [change for change in changes if change.path in paths | failed.keys()]
            self.rt.clock.sleep(self.rng.choice([0.0, 0.0, 0.6, 2.0, 25.0]))

    def _Fail(self):
        operation, pattern = self.rng.choice(
            [
                ("sync", JOURNAL + "/*"),
                ("append", JOURNAL + "/*"),
                ("write", "*/job-*"),
                ("sync", pathutils.JOB_QUEUE_ARCHIVE_DIR + "*"),
                ("rename", "*/job-*"),
            ]
        )
        self.disk.Fail(operation, pattern, self.rng.choice([errno.EIO, errno.ENOSPC]), times=1)

    def _AnotherOwner(self):
        """A master daemon on this node: takes over, works, ends or is killed."""
        self.disk.Heal()
        self.taken = True
        journal.Recover(self.rt)
        master = files.QueueFiles(self.rt)
        self._Work(master)
        if self.rng.random() < 0.5:
            self.disk.Heal()
            master.Shutdown()
        else:
            master._ending = True
            master._WriteDirty = lambda: False
            master.Shutdown()
        self.taken = False


def Check(story, how):
    """Let somebody take over what is left."""
    left = MemoryFiles()
    for path, data in story.disk.Left(how, FakeRandom(story.disk.steps)).items():
        left.write(path, data)
    for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR, JOURNAL):
        left.mkdir(path)
    journal.Recover(NewRuntime(files=left))
    found = _Content(left)
    assert story.book.IsRight(found), (found, story.book.content, story.book.possible)


def RunAll(seeds, shared, part=0, parts=1):
    """Let the stories of these seeds die at each step of that part."""
    for seed in seeds:
        whole = Story(seed, shared, -1)
        assert whole.Tell()
        for left in range(part, whole.disk.steps, parts):
            RunOne(seed, shared, left)


def RunOne(seed, shared, left):
    story = Story(seed, shared, left)
    try:
        story.Tell()
        for how in WAYS:
            Check(story, how)
    except BaseException as err:
        err.add_note(f"Story({seed}, {shared}, {left})")
        raise


@pytest.fixture(autouse=True)
def _Quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class TestEveryStep:
    """JQ1, JQ2: nothing that was answered for is lost, nothing that was refused is found."""

    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("first", range(0, 40, 10))
    def test_stories(self, first, shared):
        RunAll(range(first, first + 10), shared)


# Planted bugs


@contextlib.contextmanager
def AnswersFirst():
    """A change is answered before it is appended, which is done a little later."""
    original = files.QueueFiles.Change

    def _Change(self, changes):
        self._rt.threads.start(original, (self, changes))
        return {}

    with mock.patch.object(files.QueueFiles, "Change", _Change):
        yield


@contextlib.contextmanager
def NewestFirst():
    """The newest file of the journal is removed first."""

    def _Remove(numbers, rt):
        for number in sorted(numbers, reverse=True):
            rt.files.remove(journal._GetPath(number))
            rt.files.sync(JOURNAL)

    with mock.patch.object(journal, "_Remove", _Remove):
        yield


@contextlib.contextmanager
def RemovedUnsynced():
    """Files of the journal are removed in order, but the disk may do it in another one."""

    def _Remove(numbers, rt):
        for number in sorted(numbers):
            rt.files.remove(journal._GetPath(number))

    with mock.patch.object(journal, "_Remove", _Remove):
        yield


@contextlib.contextmanager
def RenameForgotten():
    """Who recovers writes files and renames none."""
    with mock.patch.object(journal, "_RenameAgain", lambda change, contents, rt: None):
        yield


@contextlib.contextmanager
def LostWithoutTurn():
    """What was about to be written is forgotten if the turn can not be had."""
    original = files.QueueFiles._WriteDirty

    def _WriteDirty(self):
        try:
            return original(self)
        except errors.LockError:
            with self._mutex:
                self._taken.clear()
            return True

    with mock.patch.object(files.QueueFiles, "_WriteDirty", _WriteDirty):
        yield


@contextlib.contextmanager
def RefusedStays():
    """What a failed append has left is not taken back."""
    with mock.patch.object(journal.Journal, "_TakeBack", journal.Journal.Rotate):
        yield


@contextlib.contextmanager
def RenamesUnsynced():
    """The journal goes though renamings are not durable."""
    with mock.patch.object(journal, "GetDirectories", lambda change: set()):
        yield


@contextlib.contextmanager
def OwnersUnnoticed():
    """A node daemon does not look whether somebody else had the queue."""
    with mock.patch.object(journal.Journal, "IsAsLeft", lambda self: True):
        yield


@contextlib.contextmanager
def OwnNumbersTrusted():
    """A file of the journal that could not be made is ours, whoever has made it since."""

    def _IsAsLeft(self):
        there = set(journal._ListNumbers(self._rt)) - self._doubtful.keys()
        known = {**self._closed, **({self._number: self._stat} if self._end else {})}
        return there == known.keys() and all(
            self._Stat(number) == stat for number, stat in known.items()
        )

    with mock.patch.object(journal.Journal, "IsAsLeft", _IsAsLeft):
        yield


@contextlib.contextmanager
def OldNameComesBack():
    """A file that is renamed is still to be written under its old name."""

    def _Rename(self, change):
        with self._io:
            if self._rt.files.exists(change.path):
                with self._mutex:
                    self._touched |= journal.GetDirectories(change)
                self._rt.files.rename(change.path, change.new, mkdir=True, durable=False)

    with mock.patch.object(files.QueueFiles, "_Rename", _Rename):
        yield


@contextlib.contextmanager
def FailuresForgotten():
    """What could not be written is taken for written."""
    with mock.patch.object(files.QueueFiles, "_WriteOne", lambda self, path, data: True):
        yield


@contextlib.contextmanager
def RotatedTooLate():
    """The journal is rotated when the files were written: what came in between goes with it."""

    def _Work(self):
        if not self._WriteDirty():
            return False
        with self._turn(), self._order:
            if not self._IsLost():
                for directory in sorted(self._touched, reverse=True):
                    self._rt.files.sync(directory)
                self._journal.Drop(self._journal.Rotate())
        return True

    with mock.patch.object(files.QueueFiles, "_Work", _Work):
        yield


PLANTS = [
    AnswersFirst,
    NewestFirst,
    RemovedUnsynced,
    RenameForgotten,
    LostWithoutTurn,
    RefusedStays,
    RenamesUnsynced,
    OwnersUnnoticed,
    OwnNumbersTrusted,
    OldNameComesBack,
    FailuresForgotten,
    RotatedTooLate,
]
#: Deaths within which each is to be found.
LIMIT = 10000


def FindDeath(plant, limit=LIMIT):
    """After how many deaths a planted bug shows; None if it does not."""
    rng = random.Random(1)
    with plant():
        for count in range(limit):
            seed, shared = rng.randrange(1000), rng.random() < 0.6
            try:
                RunOne(seed, shared, rng.choice([-1, rng.randrange(60), rng.randrange(200)]))
            except Exception:  # noqa: BLE001 - in whatever way it shows
                return count
    return None


class TestPlanted:
    """JQ1, JQ2: a bug in the journal does not stay unseen."""

    @pytest.mark.parametrize("plant", PLANTS, ids=[plant.__name__ for plant in PLANTS])
    def test_is_found(self, plant):
        assert FindDeath(plant) is not None

    def test_nothing_planted(self):
        assert FindDeath(contextlib.nullcontext, 2000) is None
