"""JQ1: the journal of the job queue, and the files that follow it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import errors, jstore, pathutils
from ganeti.jstore import files, journal
from ganeti.jstore.journal import Rename, Update
from ganeti.runtime import fake
from ganeti.runtime.simulation import Simulation
from ganeti.utils import checkedline

JOURNAL = pathutils.JOB_QUEUE_JOURNAL_DIR


def Runtime():
    rt = fake.NewRuntime()
    for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR, JOURNAL):
        rt.files.mkdir(path)
    return rt


def Path(number):
    return jstore.GetJobPath(number)


def Archived(number):
    return jstore.GetArchivedJobPath(number)


#: What happens to jobs: (job, new content; None = it is archived).
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.binary(max_size=5)),
    max_size=12,
)


def Changes(events, known=None, archived=None):
    """As a queue makes them: what exists is archived, once, and changed in the archive then."""
    known = set() if known is None else known
    archived = set() if archived is None else archived
    for number, data in events:
        if data is not None:
            known.add(number)
            yield Update((Archived if number in archived else Path)(number), data)
        elif number in known - archived:
            archived.add(number)
            yield Rename(Path(number), Archived(number))


def Apply(changes, content=None):
    """What a dictionary would do."""
    content = {} if content is None else content
    for change in changes:
        if isinstance(change, Update):
            content[change.path] = change.data
        elif change.path in content:
            content[change.new] = content.pop(change.path)
    return content


def Content(rt):
    paths = [Path(number) for number in range(4)] + [Archived(number) for number in range(4)]
    return {path: rt.files.read(path) for path in paths if rt.files.exists(path)}


class TestLines:
    @given(st.binary(), st.text().filter(lambda name: name and "\0" not in name))
    def test_any_content(self, data, name):
        path = pathutils.QUEUE_DIR + "/sub/" + name.replace("/", "_").strip(".")
        change = Update(path, data)
        line = journal.FormatChange(change)
        assert line.endswith(b"\n")
        assert b"\n" not in line[:-1]
        if "/../" not in path and not path.endswith("/"):
            assert journal.ParseChange(line[:-1]) == change

    def test_rename(self):
        change = Rename(Path(1), Archived(1))
        assert journal.ParseChange(journal.FormatChange(change)[:-1]) == change

    @given(st.integers(0, 60), st.integers(1, 255))
    def test_one_wrong_byte(self, index, delta):
        original = journal.FormatChange(Update(Path(1), b'{"id": "1"}'))[:-1]
        line = bytearray(original)
        index %= len(line)
        line[index] = (line[index] + delta) % 256
        # The case of the checksum's digits does not matter.
        if (
            bytes(line).lower()
            != journal.FormatChange(Update(Path(1), b'{"id": "1"}'))[:-1].lower()
        ):
            assert journal.ParseChange(bytes(line)) is None


class TestRecover:
    @settings(deadline=None)
    @given(EVENTS, st.integers(0, 12), st.integers(0, 12), st.data())
    def test_from_any_state_of_the_files(self, events, split, done, data):
        """However many of the changes are in the files: the same comes out."""
        rt = Runtime()
        changes = list(Changes(events))
        for path, content in Apply(changes[:done]).items():
            rt.files.write(path, content)
        writer = journal.Journal(rt)
        for part in (changes[:split], changes[split:]):
            if part:
                writer.Append(part)
            if data.draw(st.booleans()):
                writer.Rotate()
        assert journal.Recover(rt) == len(changes)
        assert Content(rt) == Apply(changes)
        assert rt.files.listdir(JOURNAL) == []
        rt.files.Crash()
        assert Content(rt) == Apply(changes)

    @given(st.integers(0, 200))
    def test_cut_anywhere(self, length):
        """What was never answered for does not count, nor does it harm what was."""
        rt = Runtime()
        journal.Journal(rt).Append([Update(Path(number), b"x") for number in range(4)])
        whole = rt.files.read(JOURNAL + "/1")
        rt.files.write(JOURNAL + "/1", whole[:length])
        # The last one is whole without its newline, too.
        count = whole[: length + 1].count(b"\n")
        assert journal.Recover(rt) == count
        assert sorted(Content(rt)) == [Path(number) for number in range(count)]

    def test_nothing_to_do(self):
        rt = fake.NewRuntime()
        assert journal.Recover(rt) == 0
        assert rt.files.writes == []

    def test_failure_keeps_the_journal(self):
        rt = Runtime()
        journal.Journal(rt).Append([Update(Path(1), b"x")])
        rt.files.Fail("write", Path(1), errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            journal.Recover(rt)
        rt.files.Heal()
        assert journal.Recover(rt) == 1
        assert rt.files.read(Path(1)) == b"x"


def _Unremovable(rt, call):
    """Call this while files of the journal can grow, but not be cut."""
    original = rt.files.append

    def _Append(tail):
        if not tail.data:
            raise OSError(errno.EIO, "Input/output error", tail.path)
        original(tail)

    rt.files.append = _Append
    try:
        call()
    finally:
        rt.files.append = original


class TestJournal:
    def test_failed_append_leaves_nothing(self):
        rt = Runtime()
        writer = journal.Journal(rt)
        writer.Append([Update(Path(1), b"first")])
        rt.files.Fail("sync", JOURNAL + "/*", errno.ENOSPC, times=1)
        with pytest.raises(OSError, match="No space"):
            writer.Append([Update(Path(2), b"refused")])
        writer.Append([Update(Path(3), b"later")])
        assert writer.IsAsLeft()
        journal.Recover(rt)
        assert sorted(Content(rt)) == [Path(1), Path(3)]

    def test_new_file_can_not_be_made(self):
        rt = Runtime()
        writer = journal.Journal(rt)
        rt.files.Fail("append", JOURNAL + "/*", errno.ENOSPC)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                writer.Append([Update(Path(2), b"refused")])
        rt.files.Heal()
        assert writer.IsAsLeft()
        writer.Drop(writer.Rotate())
        assert writer.empty
        writer.Append([Update(Path(1), b"x")])
        journal.Recover(rt)
        assert sorted(Content(rt)) == [Path(1)]

    def test_what_can_not_be_taken_back_is_void(self):
        """A refused change is not found later, though the disk keeps it and fails for a while."""
        rt = Runtime()
        writer = journal.Journal(rt)
        writer.Append([Update(Path(1), b"first")])
        # The data is there; neither it nor that it goes is confirmed.
        rt.files.Fail("sync", JOURNAL + "/*", times=1)
        with pytest.raises(OSError, match="error"):
            _Unremovable(rt, lambda: writer.Append([Update(Path(2), b"refused")]))
        rt.files.Fail("sync", JOURNAL + "/*", times=1)
        with pytest.raises(OSError, match="error"):
            _Unremovable(rt, lambda: writer.Append([Update(Path(3), b"refused, too")]))
        assert b"refused" in rt.files.read(JOURNAL + "/1")
        assert b"refused, too" in rt.files.read(JOURNAL + "/2")
        writer.Append([Update(Path(0), b"later")])
        writer.Append([Update(Path(1), b"second")])
        assert writer.IsAsLeft()
        journal.Recover(rt)
        assert Content(rt) == {Path(1): b"second", Path(0): b"later"}

    def test_the_number_of_another_owner(self):
        """JQ2: who begins with an empty journal uses the same names: also with the same size."""
        rt = Runtime()
        writer = journal.Journal(rt)
        writer.Append([Update(Path(1), b"x")])
        # The master daemon of the same node comes, works, and is killed.
        journal.Recover(rt)
        rt.clock.Advance(1.0)
        journal.Journal(rt).Append([Update(Path(1), b"y")])
        assert not writer.IsAsLeft()

    def test_the_number_of_a_file_that_could_not_be_made(self):
        """JQ2: it may be somebody else's by now."""
        rt = Runtime()
        writer = journal.Journal(rt)
        rt.files.Fail("append", JOURNAL + "/*", errno.ENOSPC, times=2)
        with pytest.raises(OSError, match="No space"):
            writer.Append([Update(Path(2), b"refused")])
        assert writer.IsAsLeft()
        journal.Journal(rt).Append([Update(Path(1), b"y")])
        assert not writer.IsAsLeft()

    def test_failing_drop(self):
        """A file whose end is not certain does not look like somebody else's work."""
        rt = Runtime()
        writer = journal.Journal(rt)
        writer.Append([Update(Path(1), b"x")])
        number = writer.Rotate()
        writer.Append([Update(Path(1), b"y")])
        for operation in ("sync", "remove"):
            rt.files.Fail(operation, JOURNAL + "*", times=1)
            with pytest.raises(OSError, match="error"):
                writer.Drop(number)
            assert writer.IsAsLeft()
            rt.files.Heal()
        writer.Drop(number)
        assert rt.files.listdir(JOURNAL) == ["2"]

    def test_another_owner_is_noticed(self):
        rt = Runtime()
        writer = journal.Journal(rt)
        assert writer.IsAsLeft()
        writer.Append([Update(Path(1), b"x")])
        assert writer.IsAsLeft()
        other = journal.Journal(rt)
        other.Append([Update(Path(1), b"y")])
        assert not writer.IsAsLeft()
        journal.Clear(rt)
        assert not writer.IsAsLeft()


class TestDamage:
    """What a disk may do to a journal that was answered for."""

    def test_in_the_middle(self, caplog):
        """Told, and kept for whoever wants to look."""
        rt = Runtime()
        for number in range(2):
            writer = journal.Journal(rt)
            writer.Append([Update(Path(number * 3 + index), b"x" * 50) for index in range(3)])
        data = bytearray(rt.files.read(JOURNAL + "/1"))
        data[len(data) // 2] ^= 1
        rt.files.write(JOURNAL + "/1", bytes(data))
        assert journal.Recover(rt) == 4
        assert rt.files.listdir(JOURNAL) == ["1.damaged"]
        assert rt.files.read(JOURNAL + "/1.damaged") == bytes(data)
        assert "1.damaged" in caplog.text
        assert journal.Recover(rt) == 0

    def test_newer_release(self):
        rt = Runtime()
        rt.files.write(JOURNAL + "/1", checkedline.Format(b'["teleport", "job-1", "job-2"]'))
        with pytest.raises(errors.JobQueueError, match="teleport"):
            journal.Recover(rt)
        assert rt.files.listdir(JOURNAL) == ["1"]


class Turns:
    """Who may change the queue; the master daemon on the same node keeps it."""

    def __init__(self):
        self.taken = False

    @contextlib.contextmanager
    def __call__(self):
        if self.taken:
            raise errors.LockError("the master daemon has it")
        yield


def _Simulate(seed, fn, turn=None):
    sim = Simulation(seed)
    for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR, JOURNAL):
        sim.runtime.files.mkdir(path)
    sim.Run(lambda: fn(sim.runtime, files.QueueFiles(sim.runtime, turn)))


class TestFailingDisk:
    """JQ1: what was answered for is not given up when the disk fails on the way to the files."""

    @pytest.mark.parametrize("seed", range(3))
    def test_renames_are_synced_before_the_journal_goes(self, seed):
        def _Run(rt, queue_files):
            queue_files.Change([Update(Path(1), b"x")])
            rt.clock.sleep(5.0)
            rt.files.Fail("sync", pathutils.JOB_QUEUE_ARCHIVE_DIR + "*", times=1)
            queue_files.Change([Rename(Path(1), Archived(1))])
            for _ in range(8):
                rt.clock.sleep(2.0)
                other = fake.NewRuntime(files=rt.files.AfterCrash())
                journal.Recover(other)
                assert Content(other) == {Archived(1): b"x"}
            assert rt.files.listdir(JOURNAL) == []

        _Simulate(seed, _Run)

    def test_directory_of_a_copy_that_was_archived_first(self):
        """Its name is synced, too, before the journal goes."""
        synced = []

        def _Run(rt, queue_files):
            original = rt.files.sync
            rt.files.sync = lambda path: (synced.append(path), original(path))
            queue_files.Change([Update(Archived(1), b"x")])
            queue_files.Shutdown()

        _Simulate(0, _Run, Turns())
        assert pathutils.JOB_QUEUE_ARCHIVE_DIR in synced

    @pytest.mark.parametrize("operation", ["write", "sync", "remove", "rename", "stat", "listdir"])
    @pytest.mark.parametrize("shared", [False, True])
    @pytest.mark.parametrize("seed", range(3))
    def test_any_operation_fails_for_a_while(self, seed, shared, operation):
        """Whatever can not be done at times: what was answered for is there, at any moment."""
        content, known, archived = {}, set(), set()

        def _Run(rt, queue_files):
            for index in range(24):
                rt.files.Heal()
                for _ in range(rt.random.randint(0, 2)):
                    code = rt.random.choice([errno.EIO, errno.ENOSPC])
                    rt.files.Fail(operation, code=code, times=rt.random.randint(1, 3))
                number = rt.random.randint(0, 3)
                data = None if rt.random.random() < 0.4 else b"%d" % index
                changes = list(Changes([(number, data)], set(known), set(archived)))
                try:
                    failed = queue_files.Change(changes) if changes else {}
                except OSError:
                    # Refused.
                    failed = None
                if failed is not None:
                    Apply(changes, content)
                    list(Changes([(number, data)], known, archived))
                if failed:
                    assert list(failed) == [Archived(number)]
                    rt.files.Heal()
                    assert queue_files.Change(changes) == {}
                left = fake.NewRuntime(files=rt.files.AfterCrash())
                journal.Recover(left)
                assert Content(left) == content
                rt.clock.sleep(rt.random.choice([0.0, 0.6, 3.0, 7.0]))
            rt.files.Heal()
            rt.clock.sleep(30.0)
            queue_files.Change([Update(Path(9), b"last")])
            queue_files.Shutdown()
            assert journal._ListNumbers(rt) == []

        _Simulate(seed, _Run, Turns() if shared else None)

    def test_no_thread_to_be_had(self, monkeypatch):
        """What is refused for that is not in the journal either."""
        rt = Runtime()
        queue_files = files.QueueFiles(rt)
        threads = type("Threads", (), dict(vars(type(rt.threads)).items()))()
        threads.start = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no new thread"))
        queue_files._rt = dataclasses.replace(rt, threads=threads)
        with pytest.raises(RuntimeError, match="no new thread"):
            queue_files.Change([Update(Path(1), b"x")])
        assert rt.files.listdir(JOURNAL) == []


class TestSharedQueue:
    """JQ2: a candidate becomes the master, while its node daemon lives on."""

    @pytest.mark.parametrize("seed", range(5))
    def test_master_and_back(self, seed):
        turns = Turns()

        def _Run(rt, queue_files):
            content, known, archived = {}, set(), set()

            def _Draw():
                events = [
                    (rt.random.randint(0, 3), rt.random.choice([None, b"1", b"22"]))
                    for _ in range(rt.random.randint(0, 3))
                ]
                changes = list(Changes(events, known, archived))
                Apply(changes, content)
                return changes

            for _ in range(12):
                for _ in range(rt.random.randint(0, 3)):
                    queue_files.Change(_Draw())
                    rt.clock.sleep(rt.random.choice([0.0, 0.3, 1.5]))
                turns.taken = True
                journal.Recover(rt)
                assert Content(rt) == content
                master = files.QueueFiles(rt)
                for _ in range(rt.random.randint(0, 3)):
                    master.Change(_Draw())
                    rt.clock.sleep(rt.random.choice([0.0, 0.3, 1.5, 30.0]))
                # Ended, or as if killed: this one does nothing more.
                if rt.random.random() < 0.5:
                    master.Shutdown()
                else:
                    master._ending = True
                    master._WriteDirty = lambda: False
                turns.taken = False
            queue_files.Change(_Draw())
            queue_files.Shutdown()
            assert Content(rt) == content
            assert journal._ListNumbers(rt) == []

        _Simulate(seed, _Run, turns)

    def test_gives_up_what_another_has_taken_over(self, caplog):
        """The node daemon of the master does not ask for ever, and ends at once."""
        turns = Turns()

        def _Run(rt, queue_files):
            queue_files.Change([Update(Path(1), b"x")])
            turns.taken = True
            journal.Recover(rt)
            rt.clock.sleep(600.0)
            assert caplog.text.count("behind its journal") <= 1
            before = rt.clock.monotonic()
            queue_files.Shutdown()
            assert rt.clock.monotonic() - before < 1.0

        _Simulate(1, _Run, turns)

    def test_recovery_that_fails_is_done_again(self):
        turns = Turns()

        def _Run(rt, queue_files):
            queue_files.Change([Update(Path(1), b"x")])
            rt.clock.sleep(30.0)
            journal.Journal(rt).Append([Update(Path(1), b"y")])
            rt.files.Fail("write", Path(1), times=1)
            with pytest.raises(OSError, match="error"):
                queue_files.Change([Update(Path(2), b"x")])
            rt.clock.sleep(30.0)
            queue_files.Change([Update(Path(2), b"z")])
            queue_files.Shutdown()
            assert Content(rt) == {Path(1): b"y", Path(2): b"z"}

        _Simulate(2, _Run, turns)


class TestQueueFiles:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(EVENTS, st.floats(0.0, 2.0)), max_size=6), st.integers(0, 1000))
    def test_files_and_journal_agree(self, steps, seed):
        """At any moment: what is read after a power failure is all that was answered."""
        sim = Simulation(seed)
        rt = sim.runtime
        for path in (pathutils.QUEUE_DIR, pathutils.JOB_QUEUE_ARCHIVE_DIR, JOURNAL):
            rt.files.mkdir(path)
        content = {}
        known, archived = set(), set()

        def _Work():
            queue_files = files.QueueFiles(rt)
            for events, pause in steps:
                changes = list(Changes(events, known, archived))
                if changes:
                    assert queue_files.Change(changes) == {}
                Apply(changes, content)
                left = rt.files.AfterCrash()
                other = fake.NewRuntime(files=left)
                journal.Recover(other)
                assert Content(other) == content
                rt.clock.sleep(pause)
            queue_files.Shutdown()
            assert Content(rt) == content
            assert not journal._ListNumbers(rt)

        sim.Run(_Work)

    def test_size_limit(self, monkeypatch):
        """A journal that is never left in peace is emptied all the same."""
        monkeypatch.setattr(files, "_SIZE_LIMIT", 5000)
        sim = Simulation(3)
        sizes = []

        def _Work():
            sim.runtime.files.mkdir(pathutils.QUEUE_DIR)
            queue_files = files.QueueFiles(sim.runtime)
            for number in range(200):
                queue_files.Change([Update(Path(number % 7), b"x" * 100)])
                sim.runtime.clock.sleep(0.1)
                names = journal._ListNumbers(sim.runtime)
                sizes.append(
                    sum(len(sim.runtime.files.read(f"{JOURNAL}/{name}")) for name in names)
                )
            queue_files.Shutdown()

        sim.Run(_Work)
        assert max(sizes) < 7000
