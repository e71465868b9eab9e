"""JQ1: the journal of the job queue, and the files that follow it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeti import jstore, pathutils
from ganeti.jstore import files, journal
from ganeti.jstore.journal import Rename, Update
from ganeti.runtime import fake
from ganeti.runtime.simulation import Simulation

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
        assert writer.empty
        assert writer.IsAsLeft()
        writer.Append([Update(Path(1), b"x")])
        journal.Recover(rt)
        assert sorted(Content(rt)) == [Path(1)]

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
