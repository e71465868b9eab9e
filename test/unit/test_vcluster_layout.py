"""BASE6: names, addresses and directories of virtual clusters."""

import pytest

from ganeti import errors
from ganeti.vcluster import layout


class TestLayout:
    def test_names_and_addresses(self):
        cluster = layout.Layout("/tmp/vc", "127.12.7", 3, "fake")
        assert [(node.name, node.address) for node in cluster.nodes] == [
            ("node1.example.com", "127.12.7.11"),
            ("node2.example.com", "127.12.7.12"),
            ("node3.example.com", "127.12.7.13"),
        ]
        node = cluster.FindNode("node2")
        assert node == cluster.FindNode("node2.example.com")
        assert cluster.Environment(node) == {
            "GANETI_ROOTDIR": "/tmp/vc/node2.example.com",
            "GANETI_HOSTNAME": "node2.example.com",
        }
        assert "127.12.7.1\tcluster.example.com cluster\n" in cluster.HostsFile()
        assert "127.12.7.13\tnode3.example.com node3\n" in cluster.HostsFile()

    def test_state_round_trip(self):
        cluster = layout.Layout("/tmp/vc", "127.12.7", 2, "kvm")
        assert layout.FromDict("/tmp/vc", cluster.ToDict()) == cluster

    @pytest.mark.parametrize("data", [[], {}, {"version": 99}])
    def test_foreign_state(self, data):
        with pytest.raises(errors.OpPrereqError, match=r"vcluster\.json"):
            layout.FromDict("/tmp/vc", data)

    def test_unknown_node(self):
        with pytest.raises(errors.OpPrereqError, match=r"node1\.example\.com"):
            layout.Layout("/tmp/vc", "127.1.1", 1, "fake").FindNode("node9")

    @pytest.mark.parametrize(
        ("args", "fragment"),
        [
            (("/tmp/vc", 0, "fake"), "--nodes"),
            (("/tmp/vc", 101, "fake"), "101"),
            (("/tmp/vc", 3, "vmx"), "'vmx'"),
            (("/tmp/" + "x" * 60, 3, "fake"), "--dir"),
        ],
    )
    def test_bad_wishes(self, args, fragment):
        with pytest.raises(errors.OpPrereqError) as caught:
            layout.CheckLayout(*args)
        assert fragment in caught.value.args[0]

    def test_good_wish(self):
        layout.CheckLayout("/tmp/vc", 3, "kvm")


class TestChooseNetwork:
    def test_stable_and_distinct(self):
        def Free(_):
            return True

        first = layout.ChooseNetwork("/tmp/one", Free)
        assert first == layout.ChooseNetwork("/tmp/one", Free)
        assert first != layout.ChooseNetwork("/tmp/two", Free)
        assert first.startswith("127.")

    def test_used_ones_are_passed_over(self):
        first = layout.ChooseNetwork("/tmp/one", lambda _: True)
        other = layout.ChooseNetwork("/tmp/one", lambda address: not address.startswith(first))
        assert other != first

    def test_never_the_first_network(self):
        # 127.0 is where everybody else's services are.
        for i in range(300):
            assert not layout.ChooseNetwork(f"/d{i}", lambda _: True).startswith("127.0.")

    def test_none_free(self):
        with pytest.raises(errors.OpExecError):
            layout.ChooseNetwork("/tmp/one", lambda _: False)
