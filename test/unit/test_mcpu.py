"""LK5 and the way of an opcode through the processor."""

from __future__ import annotations

import pytest

from ganeti import cmdlib, constants, errors, locking, mcpu, opcodes
from ganeti.cmdlib import base
from ganeti.jqueue import fake
from ganeti.runtime.simulation import Simulation

NODE1 = "node1.example.com"
NODE2 = "node2.example.com"
INST1 = "inst1.example.com"
INST4 = "inst4.example.com"
INSTANCES = [INST1, "inst2.example.com", "inst3.example.com", INST4]

#: Attempts of the interface description.
TIMEOUTS = [1.0, 1.063, 1.147, 1.262, 1.421, 1.65, 1.987, 2.508, 3.354, 4.824, 7.599] + [10.0] * 13


class TestTimeouts:
    """LK5: the table of time-outs."""

    def test_table(self):
        assert list(mcpu.CalculateLockAttemptTimeouts()) == pytest.approx(TIMEOUTS, abs=0.0006)

    def test_strategy(self):
        strategy = mcpu.LockAttemptTimeoutStrategy(0, lambda: 0.0, lambda: 0.5)
        previous = 0.0
        count = 0
        while (timeout := strategy.CalcRemainingTimeout()) is not None:
            assert previous <= timeout <= 10.0
            previous = timeout
            count += 1
            strategy = strategy.NextAttempt()
        assert count == 24
        for _ in range(10):
            assert strategy.CalcRemainingTimeout() is None
            strategy = strategy.NextAttempt()

    @pytest.mark.parametrize(("chance", "factor"), [(0.0, 0.95), (0.5, 1.0), (1.0, 1.05)])
    def test_variation(self, chance, factor):
        strategy = mcpu.LockAttemptTimeoutStrategy(0, lambda: 0.0, lambda: chance)
        assert strategy.CalcRemainingTimeout() == pytest.approx(factor)

    def test_one_budget(self):
        now = [100.0]
        strategy = mcpu.LockAttemptTimeoutStrategy(0, lambda: now[0], lambda: 0.5)
        # It runs from the first question on.
        now[0] = 500.0
        assert strategy.CalcRemainingTimeout() == 1.0
        now[0] = 500.75
        assert strategy.CalcRemainingTimeout() == 0.25
        now[0] = 502.0
        assert strategy.CalcRemainingTimeout() == 0.0

    def test_look(self):
        """It does not wait, and counts as none of the attempts."""
        strategy = mcpu.LockAttemptTimeoutStrategy(0, lambda: 7.0, lambda: 1.0).Look()
        assert strategy.attempt == 0
        assert strategy.CalcRemainingTimeout() == 0.0
        strategy = strategy.NextAttempt()
        assert strategy.attempt == 0
        assert strategy.CalcRemainingTimeout() == pytest.approx(1.05)
        assert strategy.NextAttempt().attempt == 1

    def test_negative(self):
        with pytest.raises(ValueError, match="-1"):
            mcpu.LockAttemptTimeoutStrategy(-1)

    def test_limited(self):
        strategy = mcpu.LockAttemptTimeoutStrategy(99, lambda: 0.0, lambda: 0.5)
        limited = strategy.LimitedAttempt()
        assert limited.CalcRemainingTimeout() == 10.0
        assert limited.NextAttempt().CalcRemainingTimeout() is None


class TestFormatLocks:
    @pytest.mark.parametrize(
        ("args", "text"),
        [
            (
                (locking.LEVEL_NODE, ["node2", "node1"], 0, "waiting/timeout=1.034211s"),
                "waiting/timeout=1.034211s/node/node1,node2/exclusive",
            ),
            ((locking.LEVEL_INSTANCE, None, 1, "acquired"), "acquired/instance/ALL/shared"),
            (
                (locking.LEVEL_CLUSTER, "BGL", True, "waiting/blocking"),
                "waiting/blocking/cluster/BGL/shared",
            ),
        ],
    )
    def test_text(self, args, text):
        assert mcpu.FormatLocks(*args) == text


class Log(mcpu.OpExecCbBase):
    """Callbacks that remember."""

    def __init__(self, cancel_at=None):
        self.events = []
        self.locks = []
        self.steps = []
        self.cancel_at = cancel_at

    def NotifyStart(self):
        self.events.append("start")

    def Feedback(self, *args):
        self.events.append(args)

    def ReportLocks(self, text):
        self.locks.append(text)

    def ReportStep(self, text):
        self.steps.append(text.split(" (")[0] if text else None)

    def CheckCancel(self):
        if self.cancel_at is not None and len(self.locks) >= self.cancel_at:
            raise mcpu.CancelJob

    def SubmitManyJobs(self, jobs):
        return [[True, str(number)] for number, _ in enumerate(jobs, 1)]


class LUProbe(base.LogicalUnit):
    """Does what the test wants; C{probe} is the test's."""

    probe = None
    HPATH = "probe"
    HTYPE = constants.HTYPE_CLUSTER

    def CheckArguments(self):
        self.probe.Note("args", self)

    def ExpandNames(self):
        self.needed_locks = {}
        self.probe.Note("expand", self)

    def DeclareLocks(self, level):
        self.probe.Note(f"declare {level}", self)

    def CheckPrereq(self):
        self.probe.Note("prereq", self)

    def BuildHooksEnv(self):
        self.probe.Note("env", self)
        return {"OP_TARGET": "x"}, [NODE1], [NODE1]

    def Exec(self, feedback_fn):
        feedback_fn("working")
        return self.probe.Note("exec", self)

    def HooksCallBack(self, phase, hook_results, feedback_fn, lu_result):
        self.probe.Note(f"callback {phase}", self)
        return lu_result


class LUAlone(LUProbe):
    REQ_BGL = True


class Probe:
    """What happens in the steps of a unit: step -> function of the unit."""

    def __init__(self, **steps):
        self.steps = steps
        self.log = []

    def Note(self, step, unit):
        self.log.append(step)
        fn = self.steps.get(step.replace(" ", "_"))
        return None if fn is None else fn(unit)


@pytest.fixture
def run(monkeypatch):
    """Run a function with a master in a simulation, with a unit under observation."""

    def _Run(fn, probe=None, unit=LUProbe, seed=1, **kwargs):
        monkeypatch.setattr(unit, "probe", probe or Probe())
        real = cmdlib.GetLogicalUnit
        monkeypatch.setattr(
            cmdlib,
            "GetLogicalUnit",
            lambda cls: unit if cls is opcodes.OpClusterRedistConf else real(cls),
        )
        sim = Simulation(seed)

        def _Work():
            kwargs.setdefault("nodes", 2)
            kwargs.setdefault("instances", INSTANCES)
            master = fake.NewMaster(sim.runtime, **kwargs)
            result = fn(master)
            _CheckNothingHeld(master)
            master.jobqueue.Shutdown()
            return result

        return sim.Run(_Work)

    return _Run


def _CheckNothingHeld(master):
    held = [info["name"] for info in master.glm.GetLockInfo() if info["mode"] is not None]
    assert held == []


def Op(**kwargs):
    return opcodes.OpClusterRedistConf(**kwargs)


def Exec(master, callbacks=None, op=None, ec_id="7"):
    return mcpu.Processor(master, ec_id).ExecOpCode(op or Op(), callbacks)


def Set(name, value):
    return lambda unit: setattr(unit, name, value)


class TestSequence:
    def test_order(self, run):
        log = Log()
        probe = Probe(
            expand=Set("needed_locks", {locking.LEVEL_INSTANCE: INST1, locking.LEVEL_NODE: []}),
            declare_2=lambda unit: unit.needed_locks.update({locking.LEVEL_NODE: [NODE2, NODE1]}),
            exec=lambda unit: None,
        )
        assert run(lambda master: Exec(master, log), probe) is None
        assert probe.log == [
            "args",
            "expand",
            "declare 1",
            "declare 2",
            "prereq",
            "env",
            "callback pre",
            "exec",
            "callback post",
        ]
        assert log.events == ["start", ("working",)]
        assert log.steps == [
            f"running pre hooks of probe on {NODE1}",
            None,
            f"running post hooks of probe on {NODE1}",
            None,
        ]
        assert [text.split("/")[0] for text in log.locks] == ["waiting", "acquired"] * 3
        assert log.locks[1] == "acquired/cluster/BGL/shared"
        assert log.locks[3] == f"acquired/instance/{INST1}/exclusive"
        assert log.locks[5] == f"acquired/node/{NODE1},{NODE2}/exclusive"

    def test_dry_run(self, run):
        log = Log()
        probe = Probe(prereq=Set("dry_run_result", [NODE1]))

        def _Work(master):
            result = Exec(master, log, Op(dry_run=True))
            assert [phase for _, _, phase, _ in master.rpc.hooks] == ["pre"]
            return result

        assert run(_Work, probe) == [NODE1]
        assert "exec" not in probe.log
        assert any("dry-run" in event[0] for event in log.events if event != "start")

    def test_pre_hooks_refuse(self, run):
        probe = Probe()

        def _Work(master):
            master.rpc.hook_results[NODE1] = [("probe-pre.d/no", constants.HKR_FAIL, "no")]
            with pytest.raises(errors.HooksAbort):
                Exec(master)

        run(_Work, probe)
        assert "exec" not in probe.log

    def test_config_update_hook(self, run):
        """Also when the work failed, and only if something was written."""

        def _Fail(unit):
            unit.cfg.Update(unit.cfg.GetClusterInfo(), lambda text: None)
            raise errors.OpExecError("no")

        def _Work(master):
            with pytest.raises(errors.OpExecError):
                Exec(master)
            return [(hpath, phase) for _, hpath, phase, _ in master.rpc.hooks]

        hooks = run(_Work, Probe(exec=_Fail))
        assert hooks == [("probe", "pre"), ("config-update", "post")]
        hooks = run(
            lambda master: Exec(master) or [hpath for _, hpath, _, _ in master.rpc.hooks],
            Probe(),
        )
        assert hooks == ["probe", "probe"]

    def test_jobs_as_result(self, run):
        probe = Probe(exec=lambda unit: base.ResultWithJobs([[Op()], [Op()]], other=1))
        assert run(lambda master: Exec(master, Log()), probe) == {
            "jobs": [[True, "1"], [True, "2"]],
            "other": 1,
        }

    def test_reservations_end_with_the_opcode(self, run):
        def _Work(master):
            Exec(master)
            # Free again, or this would fail.
            Exec(master)

        mac = "aa:00:00:11:22:33"
        run(_Work, Probe(exec=lambda unit: unit.cfg.ReserveMAC(mac, unit.proc.GetECId())))

    def test_context_id_of_a_query(self, run):
        probe = Probe(exec=lambda unit: unit.proc.GetECId())

        def _Work(master):
            with pytest.raises(errors.ProgrammerError):
                Exec(master, ec_id=None)

        run(_Work, probe)

    def test_wrong_uses(self, run):
        def _Work(master):
            processor = mcpu.Processor(master, None)
            with pytest.raises(errors.ProgrammerError):
                processor.ExecOpCode("OP_TEST_DELAY")
            with pytest.raises(errors.OpCodeUnknown):
                processor.ExecOpCode(opcodes.OpCode())
            with pytest.raises(errors.ProgrammerError, match="needed_locks"):
                LUProbe.probe = Probe(expand=Set("needed_locks", None))
                Exec(master)
            with pytest.raises(NotImplementedError):
                LUProbe.probe = Probe(
                    expand=lambda unit: (
                        unit.needed_locks.update({1: INST1}),
                        unit.add_locks.update({1: "new"}),
                    )
                )
                Exec(master)
            # What comes from a file was not checked before.
            op = opcodes.OpCode.LoadOpCode({"OP_ID": "OP_TEST_DELAY"}, strict=False)
            with pytest.raises(errors.OpPrereqError, match="duration"):
                processor.ExecOpCode(op)

        run(_Work)


class TestLocks:
    def test_modes(self, run):
        log = Log()
        probe = Probe(
            expand=lambda unit: (
                unit.needed_locks.update({1: locking.ALL_SET}),
                unit.share_locks.update({1: 1}),
            ),
            exec=lambda unit: sorted(unit.acquired_locks[1]),
        )
        assert run(lambda master: Exec(master, log), probe) == sorted(INSTANCES)
        assert log.locks[-1] == "acquired/instance/ALL/shared"

    def test_alone(self, run):
        log = Log()
        run(lambda master: Exec(master, log), Probe(), LUAlone)
        assert log.locks[-1] == "acquired/cluster/BGL/exclusive"

    def test_new_locks_vanish_unless_kept(self, run):
        def _Adding(keep):
            return Probe(
                expand=Set("add_locks", {1: "new.example.com"}),
                exec=lambda unit: unit.remove_locks.clear() if keep else None,
            )

        def _Work(master):
            Exec(master)
            first = "new.example.com" in master.glm._names(1)
            LUProbe.probe = _Adding(True)
            Exec(master)
            second = "new.example.com" in master.glm._names(1)
            # Now somebody has it.
            with pytest.raises(errors.OpPrereqError) as info:
                Exec(master)
            assert info.value.args[1] == errors.ECODE_FAULT
            return first, second, "new.example.com" in master.glm._names(1)

        assert run(_Work, _Adding(False)) == (False, True, True)

    def test_failure_drops_new_locks(self, run):
        def _Fail(unit):
            raise errors.OpExecError("no")

        def _Work(master):
            with pytest.raises(errors.OpExecError):
                Exec(master)
            return master.glm._names(1)

        probe = Probe(expand=Set("add_locks", {1: ["new.example.com"]}), exec=_Fail)
        assert "new.example.com" not in run(_Work, probe)

    def test_vanished_object(self, run):
        def _Work(master):
            with pytest.raises(errors.OpPrereqError) as info:
                Exec(master)
            assert info.value.args[1] == errors.ECODE_NOENT

        run(_Work, Probe(expand=Set("needed_locks", {1: "gone.example.com"})))

    def test_retry_starts_from_nothing(self, run):
        """LK5: everything that was got is dropped, also the BGL, and a new unit is made."""
        probe = Probe(expand=Set("needed_locks", {1: INST1, 2: NODE1}))
        log = Log()

        def _Hold(master):
            master.glm.acquire(0, "BGL", shared=1)
            master.glm.acquire(2, [NODE1])
            master.runtime.clock.sleep(3.0)
            for level in (2, 0):
                master.glm.release(level)

        def _Work(master):
            thread = master.runtime.threads.start(_Hold, (master,))
            master.runtime.clock.sleep(0.1)
            Exec(master, log)
            thread.join()

        run(_Work, probe)
        assert probe.log.count("expand") == 3
        kinds = [text.split("/")[0] for text in log.locks]
        assert kinds.count("timeout") == 2
        assert log.events.count("start") == 1

    def test_one_attempt(self, run):
        def _Work(master):
            master.glm.acquire(0, "BGL", shared=1)
            master.glm.acquire(1, [INST1])
            outcomes = []

            def _Try():
                processor = mcpu.Processor(master, "8")
                try:
                    processor.TryOpCode(Op(), None, processor.NewStrategy())
                except mcpu.LockAcquireTimeout:
                    outcomes.append(master.runtime.clock.monotonic())

            thread = master.runtime.threads.start(_Try)
            thread.join()
            master.glm.release(1)
            master.glm.release(0)
            return outcomes

        (when,) = run(_Work, Probe(expand=Set("needed_locks", {1: INST1})))
        assert 0.94 < when < 1.06

    @pytest.mark.parametrize("cancel_at", [0, 2, 4, 6])
    def test_cancel(self, run, cancel_at):
        probe = Probe(expand=Set("needed_locks", {1: INST1, 2: NODE1}))
        log = Log(cancel_at)

        def _Work(master):
            with pytest.raises(mcpu.CancelJob):
                Exec(master, log)

        run(_Work, probe)
        assert "start" not in log.events
        assert "exec" not in probe.log


class TestDesignExample:
    """LK5: A holds inst4, B wants all, C wants inst1: C ends before A."""

    @pytest.mark.parametrize("seed", range(5))
    def test_four_operations(self, run, seed):
        ended = []

        def _Operation(master, name, locks, seconds):
            def _Sleep(unit):
                unit.context.runtime.clock.sleep(seconds)

            class LUOperation(LUProbe):
                HPATH = None
                probe = Probe(expand=Set("needed_locks", {1: locks}), exec=_Sleep)

            processor = mcpu.Processor(master, name)
            processor._FindUnit = lambda op: LUOperation
            processor.ExecOpCode(Op())
            ended.append(name)

        def _Work(master):
            start = master.runtime.threads.start
            clock = master.runtime.clock
            threads = [start(_Operation, (master, "A", [INST4], 60.0))]
            clock.sleep(0.5)
            threads.append(start(_Operation, (master, "B", locking.ALL_SET, 1.0)))
            clock.sleep(0.5)
            threads.append(start(_Operation, (master, "C", [INST1], 1.0)))
            threads.append(start(_Operation, (master, "D", [INST4], 1.0)))
            for thread in threads:
                thread.join()

        run(_Work, seed=seed)
        assert ended[0] == "C"
        assert ended[1] == "A"
        assert sorted(ended) == ["A", "B", "C", "D"]

    @pytest.mark.parametrize("seed", range(3))
    def test_with_jobs(self, run, seed):
        """The same with real jobs, on nodes."""

        def _Work(master):
            queue = master.jobqueue

            def _Submit(duration, nodes):
                return queue.SubmitJob(
                    [opcodes.OpTestDelay(duration=duration, on_master=True, on_nodes=nodes)]
                )

            a = _Submit(60.0, [NODE2])
            master.runtime.clock.sleep(0.5)
            b = _Submit(1.0, [NODE1, NODE2])
            master.runtime.clock.sleep(0.5)
            c = _Submit(1.5, [NODE1])
            master.runtime.clock.sleep(400.0)
            rows = queue.QueryJobs([a, b, c], ["status", "end_ts"])
            assert [row[0] for row in rows] == ["success"] * 3
            assert rows[2][1] < rows[0][1] < rows[1][1]

        run(_Work, seed=seed)


class TestQueries:
    def test_no_locks(self, run):
        """A query waits for nobody, not even for an exclusive operation."""
        probe = Probe(
            expand=Set("needed_locks", {1: locking.ALL_SET, 2: []}),
            declare_2=lambda unit: unit.needed_locks.update({2: [NODE1]}),
            exec=lambda unit: [sorted(unit.acquired_locks[1]), sorted(unit.acquired_locks[2])],
        )

        def _Work(master):
            held = master.runtime.threads.Event()

            def _Hold():
                master.glm.acquire(0, "BGL")
                held.set()
                master.runtime.clock.sleep(100.0)
                master.glm.release(0)

            thread = master.runtime.threads.start(_Hold)
            held.wait()
            result = mcpu.Processor(master, None).QueryOpCode(Op())
            assert master.runtime.clock.monotonic() == 0.0
            thread.join()
            return result

        assert run(_Work, probe) == [sorted(INSTANCES), [NODE1]]


class TestMessages:
    def test_all(self, run):
        log = Log()

        def _Talk(unit):
            unit.LogStep(1, 3, "begin")
            unit.LogWarning("bad %s", "x", hint="do y")
            unit.LogWarning("50%")
            unit.LogWarning("", hint="only this")
            unit.LogInfo("node %s", "n")

        run(lambda master: Exec(master, log), Probe(exec=_Talk))
        assert [event[0] for event in log.events[2:]] == [
            "STEP 1/3 begin",
            " - WARNING: bad x",
            "      Hint: do y",
            " - WARNING: 50%",
            "      Hint: only this",
            " - INFO: node n",
        ]


class TestFailures:
    @pytest.mark.parametrize(
        ("err", "encoded"),
        [
            (
                errors.OpPrereqError("t", errors.ECODE_INVAL),
                ["OpPrereqError", ["t", "wrong_input"]],
            ),
            (errors.OpExecError("t"), ["OpExecError", ["t"]]),
            (KeyError("k"), "KeyError: 'k'"),
            (AssertionError(), "AssertionError"),
        ],
    )
    def test_encode(self, err, encoded):
        assert mcpu.EncodeFailure(err) == encoded


class TestBase:
    """The base class of units and its helpers."""

    def test_a_unit_that_declares_no_locks_does_not_load(self):
        with pytest.raises(TypeError, match="LUCareless"):

            class LUCareless(base.NoHooksLU):
                pass

        # Bases in between are free.
        class _Between(base.NoHooksLU):
            pass

        class LUFine(_Between):
            REQ_BGL = True

    def test_names(self, run):
        def _Work(master):
            cfg = master.cfg
            assert base.ExpandNodeName(cfg, "node1") == NODE1
            assert base.ExpandInstanceName(cfg, "inst1") == INST1
            for fn, text in (
                (base.ExpandNodeName, "Node 'x' not known"),
                (base.ExpandInstanceName, "Instance 'x' not known"),
            ):
                with pytest.raises(errors.OpPrereqError) as info:
                    fn(cfg, "x")
                assert info.value.args == (text, errors.ECODE_NOENT)
            processor = mcpu.Processor(master, None)
            unit = LUProbe(processor, Op(), master, master.rpc)
            assert base.GetWantedNodes(unit, ["node2", "node1"]) == [NODE1, NODE2]
            assert base.GetWantedInstances(unit, []) == sorted(INSTANCES)
            assert base.GetWantedInstances(unit, ["inst4", "inst1"]) == [INST4, INST1]
            for fn in (base.GetWantedNodes, base.GetWantedInstances):
                with pytest.raises(errors.OpPrereqError):
                    fn(unit, "inst1")
            with pytest.raises(errors.ProgrammerError):
                base.GetWantedNodes(unit, [])

        run(_Work)

    def test_nodes_of_locked_instances(self, run):
        found = []

        def _Declare(how):
            def _Fn(unit):
                unit.recalculate_locks[2] = how
                unit._LockInstancesNodes()
                found.append(sorted(unit.needed_locks[2]))
                assert 2 not in unit.recalculate_locks

            return _Fn

        for how, expected in ((base.LOCKS_REPLACE, [NODE1]), (base.LOCKS_APPEND, [NODE1, NODE2])):
            probe = Probe(
                expand=Set("needed_locks", {1: [INST1, INST4], 2: [NODE2]}),
                declare_2=_Declare(how),
            )
            run(Exec, probe)
            assert found.pop() == expected
        probe = Probe(
            expand=Set("needed_locks", {1: INST1, 2: []}),
            declare_2=lambda unit: unit._LockInstancesNodes(),
        )
        with pytest.raises(errors.ProgrammerError):
            run(Exec, probe)

    def test_release_early(self, run):
        def _Release(unit):
            base.ReleaseLocks(unit, 2, keep=[NODE1])
            assert unit.acquired_locks[2] == {NODE1}
            assert unit.context.glm.list_owned(2) == {NODE1}
            base.ReleaseLocks(unit, 2)
            assert unit.context.glm.list_owned(2) == set()
            base.ReleaseLocks(unit, 2, names=[NODE1])

        run(Exec, Probe(expand=Set("needed_locks", {2: [NODE1, NODE2]}), exec=_Release))

    def test_tasklets(self, run):
        log = []

        class Task(base.Tasklet):
            def __init__(self, lu, name):
                super().__init__(lu)
                self.name = name

            def CheckPrereq(self):
                log.append(f"check {self.name}")

            def Exec(self, feedback_fn):
                log.append(f"exec {self.name}")

        class LUTasks(base.NoHooksLU):
            probe = None

            def ExpandNames(self):
                self.needed_locks = {}
                self.tasklets = [Task(self, "a"), Task(self, "b")]

        assert run(Exec, unit=LUTasks) is None
        assert log == ["check a", "check b", "exec a", "exec b"]
