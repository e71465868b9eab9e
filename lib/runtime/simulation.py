"""A scheduler that runs the real code with one thread at a time, in virtual time, from a seed.

The threads are threads of the operating system, but only the one that holds the baton runs: every
operation of a L{runtime} primitive is a place where the baton may go to another thread, drawn from
the seed. When every thread waits, the clock jumps to the next deadline; when there is none, it is
a deadlock and ends the simulation with a picture of who waits for what. The same seed gives the
same order, so a failure is replayed by its seed::

    sim = Simulation(seed)
    sim.Run(lambda: code_under_test(sim.runtime))

Why not monkey-patching or tracing every line: the code under test already asks its runtime for all
that can block, and switching between those points is what a mutex makes visible to others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import Runtime
from .fake import EPOCH, FakeProcesses, FakeRandom, MemoryFiles

if TYPE_CHECKING:
    from types import TracebackType


class SimulationError(AssertionError):
    """The simulated program went wrong; the text names the seed that replays it."""


class Deadlock(SimulationError):
    """Every thread waits and no time-out is pending."""


class _Abandoned(BaseException):
    """Unwinds the threads that are left when a simulation ends."""


class _Thread:
    """A simulated thread: runnable, or blocked until woken or until its deadline."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        #: The baton: free when it was given, and taken along.
        self.go = threading.Lock()
        self.go.acquire()
        self.blocked_on: str | None = None
        self.deadline: float | None = None
        self.woken = False
        self.done = False
        self.joiners: list[_Thread] = []
        self.real: threading.Thread | None = None

    def __str__(self) -> str:
        if self.done:
            return f"{self.name}: ended"
        if self.blocked_on is None:
            return f"{self.name}: runnable"
        return f"{self.name}: waits for {self.blocked_on}"


class _Handle:
    """What C{threads.start} returns."""

    def __init__(self, simulation: Simulation, thread: _Thread) -> None:
        self._simulation = simulation
        self._thread = thread

    @property
    def name(self) -> str:
        return self._thread.name

    @property
    def ident(self) -> int | None:
        return self._thread.number

    def is_alive(self) -> bool:
        return not self._thread.done

    def join(self, timeout: float | None = None) -> None:
        if not self._thread.done:
            self._simulation._Wait(self._thread.joiners, f"the end of {self._thread.name}", timeout)


class _Lock:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._owner: _Thread | None = None
        self._waiters: list[_Thread] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        sim = self._simulation
        sim.Preempt()
        deadline = None if timeout < 0 else sim.now + timeout
        while self._owner is not None:
            if not blocking:
                return False
            remaining = None if deadline is None else max(0.0, deadline - sim.now)
            if not sim._Wait(self._waiters, f"a mutex of {self._owner.name}", remaining):
                return False
        self._owner = sim.current
        return True

    def release(self) -> None:
        if self._owner is None and not self._simulation.ending:
            raise RuntimeError("release unlocked lock")
        self._owner = None
        # All of them: who gets it next is the scheduler's draw.
        self._simulation._WakeAll(self._waiters)
        self._simulation.Preempt()

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.release()


class _Condition:
    def __init__(self, simulation: Simulation, lock: Any = None) -> None:
        self._simulation = simulation
        self._lock = lock if lock is not None else _Lock(simulation)
        self._waiters: list[_Thread] = []
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def _CheckOwned(self) -> None:
        if not self._lock.locked() and not self._simulation.ending:
            raise RuntimeError("the mutex of the condition is not held")

    def wait(self, timeout: float | None = None) -> bool:
        self._CheckOwned()
        sim = self._simulation
        # Joining the waiters and giving the mutex back are one step, as for any condition.
        me = sim.current
        self._waiters.append(me)
        me.woken = False
        try:
            self._lock.release()
            notified = me.woken or sim._Block(self._waiters, "a condition", timeout)
        finally:
            if me in self._waiters:
                self._waiters.remove(me)
            self._lock.acquire()
        return notified

    def notify(self, n: int = 1) -> None:
        self._CheckOwned()
        for _ in range(min(n, len(self._waiters))):
            self._simulation._Wake(self._waiters.pop(0))

    def notify_all(self) -> None:
        self.notify(len(self._waiters))

    def __enter__(self) -> bool:
        return bool(self._lock.acquire())

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._lock.release()


class _Event:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._flag = False
        self._waiters: list[_Thread] = []

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True
        self._simulation._WakeAll(self._waiters)
        self._simulation.Preempt()

    def clear(self) -> None:
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        self._simulation.Preempt()
        if not self._flag:
            self._simulation._Wait(self._waiters, "an event", timeout)
        return self._flag


class _Threads:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def Lock(self) -> _Lock:
        return _Lock(self._simulation)

    def Condition(self, lock: Any = None) -> _Condition:
        return _Condition(self._simulation, lock)

    def Event(self) -> _Event:
        return _Event(self._simulation)

    def start(
        self,
        target: Callable[..., object],
        args: Sequence[Any] = (),
        name: str | None = None,
        daemon: bool = True,
    ) -> _Handle:
        return self._simulation._Start(target, args, name)

    def get_ident(self) -> int:
        return self._simulation.current.number

    def current_name(self) -> str:
        return self._simulation.current.name


class _Clock:
    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def time(self) -> float:
        return EPOCH + self._simulation.now

    def monotonic(self) -> float:
        return self._simulation.now

    def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            self._simulation.Preempt()
        else:
            self._simulation._Wait([], "time to pass", seconds)


class Simulation:
    """One run of a program; see the module.

    Invariant: between two calls into the scheduler exactly one thread runs, C{current}; all others
    wait for their own baton. The scheduler's state is touched only by the running thread and so
    needs no mutex; the batons order the memory accesses.

    @ivar runtime: the world to hand to the code under test
    @ivar now: virtual seconds since the start
    @ivar switches: how often the baton went to another thread
    """

    def __init__(self, seed: int, max_switches: int = 1_000_000, preempt: float = 1.0) -> None:
        """@param preempt: how often a thread that could go on gives others the chance, from 0 to 1.
        Rare changes are cheaper, and lead to other orders than frequent ones: use several
        """
        self.seed = seed
        self.now = 0.0
        self.switches = 0
        self.ending = False
        self._max_switches = max_switches
        self._preempt = preempt
        self._chance = FakeRandom(seed)
        self._threads: list[_Thread] = []
        #: Those that have not ended.
        self._alive: list[_Thread] = []
        self._failure: BaseException | None = None
        self.current = self._NewThread("main")
        clock = _Clock(self)
        self.runtime = Runtime(
            clock=clock,
            random=FakeRandom(seed + 1),
            threads=_Threads(self),
            files=MemoryFiles(clock.time),
            processes=FakeProcesses(),
        )

    def Run(self, fn: Callable[[], object]) -> object:
        """Run a function as the first simulated thread, and all that it starts.

        The simulation ends when the function returns; threads that are still there are unwound.

        @return: what the function returned
        @raise Deadlock: everybody waits for ever
        @raise SimulationError: a thread died of an exception (its cause)
        """
        try:
            result = fn()
        except _Abandoned:
            result = None
        except BaseException as err:
            if self._failure is None:
                err.add_note(f"simulation seed: {self.seed}")
                self._End()
                raise
            result = None
        self._End()
        if self._failure is not None:
            if isinstance(self._failure, Deadlock):
                raise self._failure
            raise SimulationError(
                f"seed {self.seed}: a thread died: {self._failure!r}"
            ) from self._failure
        return result

    def Describe(self) -> str:
        """What every thread does just now, one a line."""
        return "\n".join(str(thread) for thread in self._threads)

    def Preempt(self) -> None:
        """A place where any other runnable thread may go first."""
        # Threads being unwound run their cleanup code; only a wait ends them.
        if not self.ending and (self._preempt >= 1.0 or self._chance.random() < self._preempt):
            self._Switch()

    # Scheduler

    def _NewThread(self, name: str | None) -> _Thread:
        number = len(self._threads) + 1
        thread = _Thread(number, name or f"thread-{number}")
        self._threads.append(thread)
        self._alive.append(thread)
        return thread

    def _Start(
        self, target: Callable[..., object], args: Sequence[Any], name: str | None
    ) -> _Handle:
        thread = self._NewThread(name)

        def Body() -> None:
            thread.go.acquire()
            try:
                if not self.ending:
                    target(*args)
            except _Abandoned:
                pass
            except BaseException as err:  # noqa: BLE001 - the boundary of a thread
                if self._failure is None:
                    self._failure = err
            thread.done = True
            self._alive.remove(thread)
            self._WakeAll(thread.joiners)
            self._PassOn()

        thread.real = threading.Thread(target=Body, name=thread.name, daemon=True)
        thread.real.start()
        self.Preempt()
        return _Handle(self, thread)

    def _PassOn(self) -> None:
        """The current thread has ended: who holds the baton now?"""
        if self.ending:
            self._threads[0].go.release()
        elif self._failure is not None:
            self._Abort()
        else:
            try:
                chosen = self._Next()
            except Deadlock as err:
                self._failure = err
                self._Abort()
            else:
                self._Give(chosen)

    def _Abort(self) -> None:
        """End the run from another thread than the main one: main finds C{_failure}."""
        self.ending = True
        main = self._threads[0]
        self.current = main
        main.go.release()

    def _Next(self) -> _Thread:
        """Who runs now: drawn among the runnable, after the clock has moved if there are none."""
        runnable = [t for t in self._alive if t.blocked_on is None]
        if not runnable:
            deadlines = [t.deadline for t in self._alive if t.deadline is not None]
            if not deadlines:
                raise Deadlock(f"seed {self.seed}: all threads wait:\n{self.Describe()}")
            self.now = max(self.now, min(deadlines))
            for thread in self._alive:
                if thread.deadline is not None and thread.deadline <= self.now:
                    thread.blocked_on = None
                    thread.deadline = None
                    runnable.append(thread)
        if len(runnable) == 1:
            return runnable[0]
        return runnable[int(self._chance.random() * len(runnable))]

    def _Give(self, thread: _Thread) -> None:
        self.current = thread
        thread.go.release()

    def _Switch(self) -> None:
        """Hand the baton on and wait until it comes back."""
        me = self.current
        try:
            chosen = self._Next()
        except Deadlock as err:
            self._failure = self._failure or err
            if me is not self._threads[0]:
                self._Abort()
                me.go.acquire()
            self.ending = True
            raise _Abandoned from None
        if chosen is me:
            return
        self.switches += 1
        if self.switches > self._max_switches:
            raise SimulationError(f"seed {self.seed}: no end after {self.switches} switches")
        self._Give(chosen)
        me.go.acquire()
        if self.ending:
            raise _Abandoned

    def _Block(self, waiters: list[_Thread], what: str, timeout: float | None) -> bool:
        """Wait until woken (True) or until the time-out (False)."""
        me = self.current
        if self.ending:
            raise _Abandoned
        me.blocked_on = what
        me.deadline = None if timeout is None else self.now + max(0.0, timeout)
        self._Switch()
        me.blocked_on = None
        me.deadline = None
        if not me.woken and me in waiters:
            waiters.remove(me)
        return me.woken

    def _Wait(self, waiters: list[_Thread], what: str, timeout: float | None) -> bool:
        self.current.woken = False
        waiters.append(self.current)
        return self._Block(waiters, what, timeout)

    def _Wake(self, thread: _Thread) -> None:
        thread.woken = True
        thread.blocked_on = None
        thread.deadline = None

    def _WakeAll(self, waiters: list[_Thread]) -> None:
        for thread in waiters:
            self._Wake(thread)
        waiters.clear()

    def _End(self) -> None:
        """Unwind the threads that are left, one after the other."""
        self.ending = True
        main = self._threads[0]
        for thread in self._threads[1:]:
            while not thread.done:
                self.current = thread
                thread.go.release()
                main.go.acquire()
        self.current = main
        for thread in self._threads[1:]:
            if thread.real is not None:
                thread.real.join()
