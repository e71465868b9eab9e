"""BASE3: hooks around a logical unit."""

from __future__ import annotations

import types

import pytest

from ganeti import constants, errors, hooksmaster, opcodes, rpc

PRE = constants.HOOKS_PHASE_PRE
POST = constants.HOOKS_PHASE_POST


class FakeConfig:
    def GetClusterName(self):
        return "cluster.example.com"

    def GetMasterNode(self):
        return "node1.example.com"


class FakeUnit:
    HPATH = "instance-start"
    HTYPE = constants.HTYPE_INSTANCE

    def __init__(self):
        self.op = opcodes.OpInstanceStartup(instance_name="inst1")
        self.cfg = FakeConfig()
        self.warnings = []
        self.asked = 0
        self.steps = []
        self.proc = types.SimpleNamespace(ReportStep=self.steps.append)

    def BuildHooksEnv(self):
        self.asked += 1
        return {"OP_TARGET": "inst1", "FORCE": False, "NODES": ["a"]}, ["n2", "n1", "n1"], ["n1"]

    def LogWarning(self, text, *args, hint=None):
        self.warnings.append(text % args if args else text)


class NoHooksUnit(FakeUnit):
    HPATH = None
    HTYPE = None

    def BuildHooksEnv(self):
        raise AssertionError


class Runner:
    """Answers by node; a text is a failure, None an offline node."""

    def __init__(self, answers=None, empty=False):
        self.answers = answers or {}
        self.empty = empty
        self.calls = []

    def __call__(self, nodes, hpath, phase, env):
        self.calls.append(types.SimpleNamespace(nodes=nodes, hpath=hpath, phase=phase, env=env))
        if self.empty:
            return {}
        return {node: self._Result(node) for node in nodes}

    def _Result(self, node):
        answer = self.answers.get(node, [])
        if answer is None:
            return rpc.RpcResult(offline=True, node=node)
        if isinstance(answer, str):
            return rpc.RpcResult(answer, failed=True, node=node)
        return rpc.RpcResult([True, answer], node=node)


FAIL = ("p/bad", constants.HKR_FAIL, "output")
OTHERS = [("p/good", constants.HKR_SUCCESS, "x"), ("p/no.sh", constants.HKR_SKIP, "")]


class TestEnvironment:
    def test_all(self):
        runner = Runner()
        unit = FakeUnit()
        master = hooksmaster.HooksMaster(runner, unit, lambda: 77)
        master.RunPhase(PRE)
        master.RunPhase(POST)
        pre, post = runner.calls
        assert pre.nodes == ["n1", "n2"]
        assert post.nodes == ["n1"]
        assert pre.env == {
            "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
            "GANETI_HOOKS_VERSION": "2",
            "GANETI_HOOKS_PHASE": "pre",
            "GANETI_HOOKS_PATH": "instance-start",
            "GANETI_HOOKS_TIMEOUT": "77",
            "GANETI_OP_CODE": "OP_INSTANCE_STARTUP",
            "GANETI_OBJECT_TYPE": "INSTANCE",
            "GANETI_DATA_DIR": pre.env["GANETI_DATA_DIR"],
            "GANETI_CLUSTER": "cluster.example.com",
            "GANETI_MASTER": "node1.example.com",
            "GANETI_OP_TARGET": "inst1",
            "GANETI_FORCE": "False",
            "GANETI_NODES": "['a']",
        }
        assert pre.env["GANETI_DATA_DIR"].endswith("/lib/ganeti")
        assert post.env["GANETI_HOOKS_PHASE"] == "post"
        # Asked once: the values are those from before the operation.
        assert unit.asked == 1

    def test_config_update(self):
        runner = Runner({"node1.example.com": "timeout"})
        hooksmaster.HooksMaster(runner, FakeUnit()).RunConfigUpdate()
        (call,) = runner.calls
        assert (call.nodes, call.hpath, call.phase) == (
            ["node1.example.com"],
            "config-update",
            "post",
        )
        assert call.env["GANETI_OP_TARGET"] == "inst1"

    def test_time_out_is_asked_for_at_each_use(self):
        runner = Runner()
        limits = iter([10, 20])
        master = hooksmaster.HooksMaster(runner, FakeUnit(), lambda: next(limits))
        master.RunPhase(PRE)
        master.RunPhase(POST)
        assert [call.env["GANETI_HOOKS_TIMEOUT"] for call in runner.calls] == ["10", "20"]

    def test_unit_without_hooks(self):
        runner = Runner()
        master = hooksmaster.HooksMaster(runner, NoHooksUnit())
        assert master.RunPhase(PRE) is None
        assert master.RunPhase(POST, nodes=["n1"]) is None
        assert runner.calls == []
        master.RunConfigUpdate()
        assert runner.calls[0].env["GANETI_OBJECT_TYPE"] == "None"


class TestResults:
    def _Run(self, phase, answers, **kwargs):
        unit = FakeUnit()
        master = hooksmaster.HooksMaster(Runner(answers, **kwargs), unit)
        return master.RunPhase(phase), unit.warnings

    def test_good(self):
        results, warnings = self._Run(PRE, {"n1": OTHERS})
        assert set(results) == {"n1", "n2"}
        assert warnings == []

    def test_pre_failure_aborts_after_all(self):
        with pytest.raises(errors.HooksAbort) as info:
            self._Run(PRE, {"n1": [*OTHERS, FAIL], "n2": [FAIL]})
        assert info.value.args == ([("n1", "p/bad", "output"), ("n2", "p/bad", "output")],)

    def test_post_failure_warns(self):
        _, warnings = self._Run(POST, {"n1": [FAIL, ("p/mute", constants.HKR_FAIL, "")]})
        assert warnings == [
            "On n1 script p/bad failed, output: output",
            "On n1 script p/mute failed, output: (no output)",
        ]

    def test_config_update_failure_warns(self):
        unit = FakeUnit()
        runner = Runner({"node1.example.com": [*OTHERS, FAIL]})
        hooksmaster.HooksMaster(runner, unit).RunConfigUpdate()
        assert unit.warnings == ["On node1.example.com script p/bad failed, output: output"]

    @pytest.mark.parametrize("phase", [PRE, POST])
    def test_unreachable_never_aborts(self, phase):
        _, warnings = self._Run(phase, {"n1": "timeout", "n2": None})
        assert warnings == ["Communication failure to node n1: timeout"]

    def test_no_answer_at_all(self):
        with pytest.raises(errors.HooksFailure):
            self._Run(PRE, {}, empty=True)
        _, warnings = self._Run(POST, {}, empty=True)
        assert len(warnings) == 1

    def test_other_nodes(self):
        runner = Runner()
        master = hooksmaster.HooksMaster(runner, FakeUnit())
        assert master.RunPhase(POST, nodes=[]) is None
        master.RunPhase(POST, nodes=["n9"])
        assert runner.calls[0].nodes == ["n9"]


class TestSteps:
    """A running job says that it is at its hooks, and where they run."""

    def test_step(self):
        unit = FakeUnit()
        seen = []

        def Call(*args):
            seen.extend(unit.steps)
            return Runner()(*args)

        hooksmaster.HooksMaster(Call, unit, lambda: 9).RunPhase(PRE)
        text = "running pre hooks of instance-start on n1, n2 (each script may take 9 s)"
        assert seen == [text]
        assert unit.steps == [text, None]

    def test_over_also_after_an_error(self):
        def Call(*args):
            raise errors.OpExecError("x")

        unit = FakeUnit()
        with pytest.raises(errors.OpExecError):
            hooksmaster.HooksMaster(Call, unit).RunPhase(PRE)
        assert unit.steps[-1] is None
