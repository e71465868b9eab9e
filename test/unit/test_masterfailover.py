"""The failover of the master: its decisions. How it goes is in the component tests."""

from __future__ import annotations

import pytest

from ganeti import errors, masterfailover, rpc, ssconf
from ganeti.masterfailover import Answer

OLD, ME, THIRD, FOURTH = (f"node{i}" for i in (1, 2, 3, 4))


def _Version(serial, mtime=100.0, uuid="u"):
    return ssconf.Version(serial, mtime, uuid)


def _Says(node, master):
    return Answer(node, "no answer" if master is None else None, master)


class TestParseAnswer:
    def test_versions(self):
        payload = ["eth0", "192.0.2.1", OLD, "7 100.0 u", None]
        result = rpc.RpcResult([True, payload], call="master_info", node=THIRD)
        assert masterfailover.ParseAnswer(THIRD, result) == Answer(THIRD, None, OLD, _Version(7))

    def test_node_of_an_earlier_release(self):
        result = rpc.RpcResult([True, ["eth0", "192.0.2.1", OLD]], call="master_info", node=THIRD)
        assert masterfailover.ParseAnswer(THIRD, result) == Answer(THIRD, None, OLD)

    @pytest.mark.parametrize("payload", [["eth0"], ["eth0", "192.0.2.1", 5], "x"])
    def test_nonsense(self, payload):
        result = rpc.RpcResult([True, payload], call="master_info", node=THIRD)
        assert "makes no sense" in masterfailover.ParseAnswer(THIRD, result).problem


class TestVotes:
    """JQ5: half of the others agree with this node about the master, or it can't go on as that."""

    @pytest.mark.parametrize(
        ("masters", "code"),
        [
            ([], None),
            ([OLD], None),
            ([None], errors.ECODE_ENVIRON),
            ([OLD, None], None),
            ([THIRD], errors.ECODE_STATE),
            ([THIRD, THIRD, OLD], errors.ECODE_STATE),
            ([None, None, OLD], errors.ECODE_ENVIRON),
            ([OLD, OLD, None, None, THIRD], errors.ECODE_ENVIRON),
            # Told by an earlier run.
            ([ME, OLD, None], None),
            ([ME, ME], None),
        ],
    )
    def test_table(self, masters, code):
        answers = [_Says(f"n{i}", master) for i, master in enumerate(masters)]
        # Its own vote does not count.
        answers.append(_Says(ME, THIRD))
        if code is None:
            masterfailover.CheckVotes(answers, OLD, ME)
            return
        with pytest.raises(errors.OpPrereqError) as caught:
            masterfailover.CheckVotes(answers, OLD, ME)
        assert caught.value.args[1] == code


class TestCopies:
    def test_newer_ones(self):
        answers = [
            Answer(ME, None, OLD, _Version(5)),
            Answer(OLD, "no answer"),
            Answer(THIRD, None, OLD, _Version(7)),
            Answer(FOURTH, None, OLD, _Version(8)),
            Answer("none", None, OLD, None),
            Answer("stranger", None, OLD, _Version(9, uuid="v")),
            Answer("older", None, OLD, _Version(4, 200.0)),
        ]
        newer = masterfailover.FindNewer(answers, _Version(5))
        assert [answer.node for answer in newer] == [FOURTH, THIRD]

    def test_serials_go_on_from_the_highest(self):
        answers = [
            Answer(ME, None, OLD, _Version(5), _Version(3)),
            Answer(THIRD, None, OLD, None, _Version(9)),
        ]
        assert masterfailover.FindSerials(answers) == (5, 9)

    def test_room_for_what_nobody_knows_of(self):
        answers = [Answer(ME, None, OLD, _Version(5), _Version(3)), Answer(OLD, "no answer")]
        room = masterfailover.UNSEEN_SERIALS
        assert masterfailover.FindSerials(answers) == (5 + room, 3 + room)


class TestLoss:
    """What an older configuration lacks is named."""

    def test_all(self):
        own = {
            "cluster": {"serial_no": 1, "mtime": 1, "x": 1},
            "nodes": {"n1": {"a": 1}, "n10": {}},
            "instances": {"i1": {}},
        }
        newer = {
            "cluster": {"serial_no": 2, "mtime": 2, "x": 2},
            "nodes": {"n1": {"a": 2}, "n2": {}},
            "instances": {"i1": {}},
        }
        assert masterfailover.DescribeLoss(own, newer) == [
            "node n1, which was modified",
            "node n2, which was added",
            "node n10, which was removed",
            "the cluster's parameters, which were modified",
        ]

    def test_numbers_alone(self):
        own, newer = ({"cluster": {"serial_no": i, "mtime": i}} for i in (1, 2))
        assert masterfailover.DescribeLoss(own, newer) == []

    def test_many(self):
        lines = masterfailover.DescribeLoss(
            {"cluster": {}}, {"cluster": {}, "instances": {f"i{i}": {} for i in range(100)}}
        )
        assert lines[0] == "instance i0, which was added"
        assert lines[-1] == "and 80 more"
        assert len(lines) == 21
