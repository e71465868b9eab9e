"""JQ5: the master daemon starts only where half of the other nodes say so."""

from __future__ import annotations

import pytest

from ganeti import errors, rpc, ssconf, voting
from ganeti.runtime import fake

ME = "node1"
OTHER = "node2"
ELECTED = voting.Outcome.ELECTED
REFUSED = voting.Outcome.REFUSED
UNDECIDED = voting.Outcome.UNDECIDED


class TestDecide:
    @pytest.mark.parametrize(
        ("answers", "outcome"),
        [
            ([], ELECTED),
            # Two nodes: the other one is needed.
            ([ME], ELECTED),
            ([OTHER], REFUSED),
            ([None], UNDECIDED),
            # Half of the others will do.
            ([ME, OTHER], REFUSED),  # The name that sorts last wins a tie.
            ([ME, None], ELECTED),
            ([ME, None, None], UNDECIDED),
            ([ME, ME, None, None], ELECTED),
            ([ME, ME, OTHER], ELECTED),
            ([OTHER, OTHER, ME], REFUSED),
            # First, but with less than half.
            ([ME, ME, OTHER, "node3", None], REFUSED),
            ([None, None, None, ME, OTHER], UNDECIDED),
        ],
    )
    def test_table(self, answers, outcome):
        decision = voting.Decide(voting.CountVotes(answers), ME)
        assert decision.outcome is outcome, decision.reason

    def test_order(self):
        """Most votes first; nobody last among equals."""
        assert voting.CountVotes([None, "a", "b", "b", None]) == [("b", 2), (None, 2), ("a", 1)]

    def test_reason_names_the_other(self):
        decision = voting.Decide([(OTHER, 3)], ME)
        assert "3 of 3" in decision.reason
        assert OTHER in decision.reason


def Result(payload=None, failed=None):
    if failed is not None:
        return rpc.RpcResult(failed, failed=True)
    return rpc.RpcResult([True, payload])


class TestGather:
    def _Gather(self, results, nodes=(ME, "a", "b", "c", "d")):
        return voting.GatherMasterVotes(nodes, ME, lambda names: results)

    def test_malformed_answers_count_for_nobody(self):
        results = {
            "a": Result(["eth0", "192.0.2.1", ME]),
            "b": Result(["eth0", "192.0.2.1"]),
            "c": Result(failed="timeout"),
            "d": Result(["eth0", "192.0.2.1", 5]),
        }
        assert self._Gather(results) == [(None, 3), (ME, 1)]

    def test_later_answers_are_longer(self):
        results = {name: Result(["eth0", "192.0.2.1", ME, "more"]) for name in "abcd"}
        assert self._Gather(results) == [(ME, 4)]

    def test_alone(self):
        def _Never(names):
            raise AssertionError

        assert voting.GatherMasterVotes([ME], ME, _Never) == []

    def test_broken_rpc(self):
        def _Broken(names):
            raise errors.ResolverError("x")

        assert voting.GatherMasterVotes([ME, "a", "b"], ME, _Broken) == [(None, 2)]


class TestAgreement:
    def _Check(self, rounds):
        """rounds: the answers of one other node, last one repeated."""
        rt = fake.NewRuntime()
        answers = list(rounds)

        def _Ask(names):
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            return {
                name: Result(failed="dead") if answer is None else Result([0, 0, answer])
                for name in names
            }

        return voting.CheckAgreement([ME, OTHER], ME, _Ask, rt), rt.clock.sleeps

    def test_at_once(self):
        decision, sleeps = self._Check([ME])
        assert decision.outcome is ELECTED
        assert sleeps == []

    def test_refused_at_once(self):
        decision, sleeps = self._Check([OTHER])
        assert decision.outcome is REFUSED
        assert sleeps == []

    def test_the_other_comes_up(self):
        decision, sleeps = self._Check([None, None, ME])
        assert decision.outcome is ELECTED
        assert sleeps == [10.0, 10.0]

    def test_gives_up(self):
        decision, sleeps = self._Check([None])
        assert decision.outcome is REFUSED
        assert sleeps == [10.0] * 5


class TestSuccessor:
    """A master that was replaced finds out; one that others have not heard of goes on."""

    @pytest.mark.parametrize(
        ("answers", "successor"),
        [
            ([], None),
            ([[ME, "5 100.0 u"]], None),
            ([[OTHER, "6 100.0 u"]], OTHER),
            ([[ME, "5 100.0 u"], [OTHER, "6 90.0 u"]], OTHER),
            ([[OTHER, "6 100.0 u"], ["node3", "7 100.0 u"]], "node3"),
            # It was down while this node was made the master.
            ([[OTHER, "4 100.0 u"]], None),
            ([[OTHER, "5 100.0 u"]], None),
            ([[OTHER, "6 100.0 v"]], None),
            ([[OTHER, None]], None),
            ([[OTHER, "x"]], None),
            ([[OTHER]], None),
            ([None], None),
        ],
    )
    def test_table(self, answers, successor):
        results = {}
        for number, answer in enumerate(answers):
            name = f"n{number}"
            if answer is None:
                results[name] = rpc.RpcResult(data="down", failed=True, node=name)
                continue
            master, *version = answer
            payload = ["eth0", "192.0.2.1", master, None, *version]
            results[name] = rpc.RpcResult([True, payload], call="master_info", node=name)
        own = ssconf.Version(5, 100.0, "u")
        assert voting.FindSuccessor(results, ME, own) == successor
        assert voting.FindSuccessor(results, ME, None) is None
