"""LK1-LK4: whatever threads do with locks, in any order, some things always hold.

The threads run in the simulation; what they do and in which order is drawn by hypothesis, and
an example that fails is shrunk and replayed. While they run,

- every change of a L{SharedLock} is checked against L{Model}, a second and much simpler description
  of the queue that knows nothing of conditions and notifications;
- L{Observer} looks at the lock whenever everybody sleeps: if the first in the queue could run then,
  a wake-up was lost. (A deadlock would show only those lost for ever.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ganeti import errors
from ganeti.locking import ALL_SET, LockSet, SharedLock
from ganeti.runtime.simulation import Simulation

#: Everything in the scripts happens at multiples of this (seconds), the observer looks in between.
TICK = 0.01

SETTINGS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass
class Group:
    """Acquires that are served together: any number of sharers, or one exclusive."""

    shared: bool
    members: list[int]
    #: It could run at some moment: nobody may join it any more.
    closed: bool = False


@dataclass
class Model:
    """What the lock must look like, from the sequence of events alone."""

    exclusive: int | None = None
    sharers: set[int] = field(default_factory=set)
    queues: dict[int, list[Group]] = field(default_factory=dict)
    #: The most shared groups that were in a queue of one priority at once.
    most_shared: int = 0
    overtaken: int = 0

    def _Compatible(self, shared):
        return self.exclusive is None and (shared or not self.sharers)

    def _First(self):
        return self.queues[min(self.queues)][0] if self.queues else None

    def _Close(self):
        first = self._First()
        if first is not None and self._Compatible(first.shared):
            first.closed = True

    def _GroupOf(self, who):
        for priority, groups in self.queues.items():
            for group in groups:
                if who in group.members:
                    return priority, group
        return None

    def Arrive(self, who, shared, priority, only_try):
        """Somebody wants the lock; True if it must get it at once."""
        if self._Compatible(shared) and (not self.queues or priority < min(self.queues)):
            return True
        if only_try:
            return False
        groups = self.queues.setdefault(priority, [])
        open_groups = [group for group in groups if group.shared and not group.closed]
        if shared and open_groups:
            assert len(open_groups) == 1
            later = groups[groups.index(open_groups[0]) :]
            self.overtaken += any(not group.shared for group in later)
            open_groups[0].members.append(who)
        else:
            groups.append(Group(shared, [who]))
        shared_groups = sum(group.shared for group in groups)
        self.most_shared = max(self.most_shared, shared_groups)
        self._Close()
        return False

    def Leave(self, who):
        priority, group = self._GroupOf(who)
        group.members.remove(who)
        if not group.members:
            self.queues[priority].remove(group)
            if not self.queues[priority]:
                del self.queues[priority]
        self._Close()

    def Take(self, who, shared):
        assert self._Compatible(shared), f"{who} took the lock beside {self}"
        found = self._GroupOf(who)
        if found is not None:
            first = self._First()
            assert found[1] is first, f"{who} took the lock out of turn: {self}"
        if shared:
            self.sharers.add(who)
        else:
            self.exclusive = who
        if found is not None:
            self.Leave(who)

    def Release(self, who):
        if self.exclusive == who:
            self.exclusive = None
        else:
            self.sharers.remove(who)
        self._Close()

    def Downgrade(self, who):
        assert self.exclusive == who
        self.exclusive = None
        self.sharers.add(who)
        if self.queues:
            self.queues[min(self.queues)].sort(key=lambda group: not group.shared)
        self._Close()


class CheckedLock(SharedLock):
    """Tells a L{Model} of each event, under the mutex, and compares."""

    def __init__(self, rt):
        super().__init__("checked", runtime=rt)
        self.model = Model()

    def _Compare(self):
        self._CheckInvariants()
        if self._deleted:
            return
        model = self.model
        assert self._exclusive == model.exclusive
        assert set(self._sharers) == model.sharers
        assert {
            priority: [(entry.shared, sorted(entry.waiters)) for entry in queue.entries]
            for priority, queue in self._queues.items()
        } == {
            priority: [(group.shared, sorted(group.members)) for group in groups]
            for priority, groups in model.queues.items()
        }

    def _Acquire(self, ident, shared, timeout, priority):
        if self._deleted or self._IsHolder(ident):
            return super()._Acquire(ident, shared, timeout, priority)
        only_try = timeout is not None and timeout < 0.001
        at_once = self.model.Arrive(ident, shared, priority, only_try)
        start = self._rt.clock.monotonic()
        got = super()._Acquire(ident, shared, timeout, priority)
        if at_once:
            assert got
            assert self._rt.clock.monotonic() == start
        if not got and not only_try:
            assert self._rt.clock.monotonic() == pytest.approx(start + timeout)
        self._Reconcile()
        self._Compare()
        return got

    def _Take(self, ident, label, shared):
        assert not self._deleted
        self.model.Take(ident, shared)
        super()._Take(ident, label, shared)

    def _RemoveEntry(self, entry, priority):
        # The model hears of a waiter that gives up before anybody is woken because of it.
        self._Reconcile()
        super()._RemoveEntry(entry, priority)

    def _Reconcile(self):
        waiting = {
            who
            for queue in self._queues.values()
            for entry in queue.entries
            for who in entry.waiters
        }
        for groups in list(self.model.queues.values()):
            for group in list(groups):
                for who in list(group.members):
                    if who not in waiting:
                        self.model.Leave(who)

    def _NotifyHead(self):
        self._Reconcile()
        model = self.model
        for who in [*model.sharers, model.exclusive]:
            if who is not None and not self._IsHolder(who):
                model.Release(who)
        if model.exclusive is not None and model.exclusive in self._sharers:
            model.Downgrade(model.exclusive)
        super()._NotifyHead()
        self._Compare()


def Observer(sim, lock, ticks):
    """Body of a thread: look between the ticks, when all other threads sleep."""
    sim.runtime.clock.sleep(TICK / 2)
    for _ in range(ticks):
        assert not lock._mutex.locked()
        first = lock._FirstQueue()
        if first is not None:
            assert not lock._Compatible(first.entries[0].shared), "a wake-up was lost"
        for queue in lock._queues.values():
            for entry in queue.entries:
                for waiter in entry.waiters.values():
                    assert sim.runtime.clock.time() - waiter.since < ticks * TICK
        sim.runtime.clock.sleep(TICK)


ticks = st.integers(0, 4).map(lambda n: n * TICK)

acquires = st.fixed_dictionaries(
    {
        "shared": st.booleans(),
        "timeout": st.one_of(st.none(), ticks),
        "priority": st.sampled_from([0, 0, 0, -1]),
        "hold": ticks,
        "downgrade": st.booleans(),
        "pause": ticks,
    }
)

scripts = st.lists(st.lists(acquires, min_size=1, max_size=5), min_size=2, max_size=7)


def RunScripts(seed, scripts, deleter=None):
    """Let threads follow their scripts; returns the lock when all are done."""
    sim = Simulation(seed)
    lock = CheckedLock(sim.runtime)
    holders: dict[str, set[int]] = {"x": set(), "s": set()}

    def Body(number, script):
        for step in script:
            try:
                got = lock.acquire(
                    shared=step["shared"], timeout=step["timeout"], priority=step["priority"]
                )
            except errors.LockError:
                assert deleter is not None
                return
            if got:
                mode = "s" if step["shared"] else "x"
                # Written down between acquire and release: seen from outside, like a caller would.
                assert not holders["x"]
                assert step["shared"] or not holders["s"]
                holders[mode].add(number)
                if step["hold"]:
                    sim.runtime.clock.sleep(step["hold"])
                if step["downgrade"] and not step["shared"]:
                    holders["x"].remove(number)
                    holders["s"].add(number)
                    lock.downgrade()
                    mode = "s"
                    sim.runtime.clock.sleep(step["hold"])
                holders[mode].remove(number)
                lock.release()
            sim.runtime.clock.sleep(step["pause"])

    def Deleter():
        sim.runtime.clock.sleep(deleter["pause"])
        if lock.delete(timeout=deleter["timeout"]):
            holders["deleted"] = {1}

    def Main():
        steps = sum(len(script) for script in scripts)
        limit = 20 * (steps + 1)
        threads = [
            sim.runtime.threads.start(Body, item, name=f"T{item[0]}") for item in enumerate(scripts)
        ]
        if deleter is not None:
            threads.append(sim.runtime.threads.start(Deleter, name="deleter"))
        sim.runtime.threads.start(Observer, (sim, lock, limit), name="observer")
        for thread in threads:
            thread.join()
        assert sim.runtime.clock.monotonic() < limit * TICK, "waited longer than all holds together"
        info = lock.GetInfo()
        assert (info["mode"], info["owners"], info["pending"]) == (None, [], [])
        assert lock._count_pending() == 0
        assert lock._deleted == ("deleted" in holders)

    sim.Run(Main)
    return lock


class TestSharedLock:
    """LK1-LK3 behaviour 10: invariants under any sequence of operations."""

    @given(seed=st.integers(0, 2**32), scripts=scripts)
    @SETTINGS
    def testAnyOrder(self, seed, scripts):
        RunScripts(seed, scripts)

    @given(
        seed=st.integers(0, 2**32),
        scripts=scripts,
        deleter=st.fixed_dictionaries(
            {"pause": st.integers(0, 10).map(lambda n: n * TICK), "timeout": st.none() | ticks}
        ),
    )
    @SETTINGS
    def testAnyOrderWithDeletion(self, seed, scripts, deleter):
        """LK4: after the deletion nobody waits and nobody gets the lock."""
        RunScripts(seed, scripts, deleter)

    def testInterestingThingsHappen(self):
        """The scripts reach what they are about: both shared groups queued, sharers overtaking."""

        def _Step(shared, hold, pause):
            return {
                "shared": shared,
                "timeout": None,
                "priority": 0,
                "hold": hold * TICK,
                "downgrade": False,
                "pause": pause * TICK,
            }

        script = [[_Step((i + j) % 3 > 0, 1, j % 2) for j in range(5)] for i in range(7)]
        models = [RunScripts(seed, script).model for seed in range(20)]
        assert {model.most_shared for model in models} == {2}
        assert all(model.overtaken > 0 for model in models)


MEMBERS = ["a", "b", "c"]

set_steps = st.one_of(
    st.fixed_dictionaries(
        {
            "do": st.just("acquire"),
            "names": st.one_of(st.just(ALL_SET), st.lists(st.sampled_from([*MEMBERS, "new"]))),
            "shared": st.booleans(),
            "timeout": st.none() | ticks,
            "opportunistic": st.sampled_from([False, False, True]),
            "keep": st.lists(st.sampled_from(MEMBERS), max_size=2),
            "hold": ticks,
        }
    ),
    st.fixed_dictionaries(
        {
            "do": st.sampled_from(["add", "remove"]),
            "names": st.lists(st.sampled_from([*MEMBERS, "new"]), min_size=1, max_size=2),
            "acquired": st.booleans(),
            "hold": ticks,
        }
    ),
)

set_scripts = st.lists(st.lists(set_steps, min_size=1, max_size=4), min_size=2, max_size=6)


class TestLockSet:
    """LK2, LK4, LK7: a set never deadlocks, never keeps parts, never shares what is exclusive."""

    @given(seed=st.integers(0, 2**32), scripts=set_scripts)
    @SETTINGS
    def testAnyOrder(self, seed, scripts):
        sim = Simulation(seed)
        clock = sim.runtime.clock
        locks = LockSet(MEMBERS, name="set", runtime=sim.runtime)
        holders: dict[str, list[tuple[int, bool]]] = {}

        def _Hold(number, names, shared, seconds):
            for name in names:
                others = holders.setdefault(name, [])
                assert not others or (shared and all(mode for _, mode in others))
                others.append((number, shared))
            if seconds:
                clock.sleep(seconds)

        def _Forget(number, names, shared):
            for name in names:
                holders[name].remove((number, shared))

        def _Acquire(number, step):
            start = clock.monotonic()
            got = locks.acquire(
                step["names"],
                shared=step["shared"],
                timeout=step["timeout"],
                opportunistic=step["opportunistic"],
            )
            if got is None:
                assert clock.monotonic() - start == pytest.approx(step["timeout"])
                assert not locks._is_owned()
                return
            assert locks._list_owned() == got
            if step["names"] is not None and not step["opportunistic"]:
                assert got == set(step["names"])
            _Hold(number, got, step["shared"], step["hold"])
            gone = got - set(step["keep"])
            if gone:
                _Forget(number, gone, step["shared"])
                locks.release(gone)
            assert locks._list_owned() == got - gone
            if locks._is_owned():
                clock.sleep(step["hold"])
                _Forget(number, got - gone, step["shared"])
                locks.release()

        def _Add(number, step):
            names = set(step["names"])
            locks.add(names, acquired=step["acquired"])
            assert locks._list_owned() == (names if step["acquired"] else set())
            if step["acquired"]:
                _Hold(number, names, False, step["hold"])
                _Forget(number, names, False)
                assert sorted(locks.remove(names)) == sorted(names)

        def _Remove(number, step):
            assert set(locks.remove(step["names"])) <= set(step["names"])

        actions = {"acquire": _Acquire, "add": _Add, "remove": _Remove}

        def Body(number, script):
            for step in script:
                try:
                    actions[step["do"]](number, step)
                except errors.LockError as err:
                    assert "duplicate add" in str(err) or "Non-existing lock" in str(err)
                assert not locks._is_owned()

        def Main():
            threads = [sim.runtime.threads.start(Body, item) for item in enumerate(scripts)]
            for thread in threads:
                thread.join()
            # The table of a finished process is empty.
            assert locks._owned == {}
            for info in locks.GetLockInfo():
                assert (info["mode"], info["owners"], info["pending"]) == (None, [], [])
            assert locks.acquire(ALL_SET, timeout=0) == locks._names()

        sim.Run(Main)
