"""Every rule of a sound configuration, each broken on purpose."""

import pytest

from ganeti import constants, objects
from ganeti.config import claims, fake, store, verify
from ganeti.runtime import fake as runtime_fake

_NODE1, _NODE2, _NODE3 = (fake.NodeName(number) for number in (1, 2, 3))


@pytest.fixture
def view():
    """A sound configuration with three nodes, an instance on DRBD and one with network cards."""
    document = fake.NewConfigData(runtime_fake.NewRuntime(), nodes=3, candidates=2)
    data = objects.ConfigData.FromDict(document)
    data.cluster.highest_used_port = 11005
    data.cluster.tcpudp_port_pool = {11001}
    data.instances = {
        "inst1": fake.NewInstance(
            "inst1",
            _NODE1,
            uuid="u1",
            disks=[fake.NewDrbdDisk((_NODE1, _NODE2), 11000, (0, 0), "s1", "d1")],
            network_port=11002,
        ),
        "inst2": fake.NewInstance(
            "inst2",
            _NODE2,
            uuid="u2",
            nics=[
                objects.NIC(mac="aa:00:00:00:00:01", ip="10.0.0.1", nicparams={}),
                objects.NIC(mac="aa:00:00:00:00:02", ip="10.0.0.1", nicparams={"link": "br1"}),
                objects.NIC(mac="aa:00:00:00:00:03", nicparams={}),
                objects.NIC(
                    mac="aa:00:00:00:00:04",
                    ip="10.0.0.1",
                    nicparams={"mode": constants.NIC_MODE_ROUTED},
                ),
            ],
        ),
    }
    return store.ConfigStore(data)


def _Nic(**values):
    return objects.NIC(**{"mac": "aa:00:00:00:00:99", "nicparams": {}, **values})


def _BreakFlags(view):
    view.nodes[_NODE3].drained = view.nodes[_NODE3].offline = True


def _AddNic(view, **values):
    view.instances["inst1"].nics.append(_Nic(**values))


def _AddDisk(view, **values):
    disk = fake.NewDrbdDisk((_NODE2, _NODE3), 11003, (1, 1), "s2", "d2")
    for name, value in values.items():
        setattr(disk, name, value)
    view.instances["inst2"].disks.append(disk)


# What is broken how; words that the message must have
_BREAKAGES = [
    (lambda v: setattr(v.cluster, "enabled_hypervisors", []), ["No hypervisor"]),
    (lambda v: setattr(v.cluster, "enabled_hypervisors", ["hal"]), ["'hal' is unknown"]),
    (lambda v: v.cluster.hvparams.pop("fake"), ["'fake' has no parameters"]),
    (lambda v: setattr(v.cluster, "master_node", "nosuch"), ["'nosuch' is not among"]),
    (
        lambda v: setattr(v.nodes[_NODE1], "master_candidate", False),
        ["not a master candidate", "1 master candidates, there should be 2"],
    ),
    (lambda v: setattr(v.nodes[_NODE2], "name", "other"), [f"'{_NODE2}' has the name 'other'"]),
    (_BreakFlags, ["exclude each other: drained, offline"]),
    (lambda v: setattr(v.instances["inst1"], "name", "x"), ["'inst1' has the name 'x'"]),
    (
        lambda v: setattr(v.instances["inst2"], "primary_node", "gone"),
        ["unknown primary node 'gone'"],
    ),
    (
        lambda v: _AddDisk(v, logical_id=(_NODE2, "gone", 11003, 1, 1, "s2")),
        ["unknown secondary node 'gone'"],
    ),
    (lambda v: _AddDisk(v, mode="x"), ["Disk 0 of instance 'inst2'", "mode"]),
    (lambda v: _AddNic(v, mac="aa:00:00:00:00:01"), ["MAC address aa:00:00:00:00:01", "inst2"]),
    (lambda v: _AddDisk(v, logical_id=(_NODE2, _NODE3, 11000, 1, 1, "s2")), ["port 11000"]),
    (lambda v: setattr(v.instances["inst2"], "network_port", 11002), ["port 11002"]),
    (lambda v: setattr(v.instances["inst2"], "network_port", 11001), ["port 11001", "free ports"]),
    (lambda v: setattr(v.instances["inst2"], "network_port", 11006), ["Port 11006", "11005"]),
    (
        lambda v: _AddDisk(v, logical_id=(_NODE2, _NODE3, 11003, 0, 1, "s2")),
        [f"DRBD minor 0 of node {_NODE2}"],
    ),
    (
        lambda v: _AddDisk(v, children=v.instances["inst1"].disks[0].children),
        ["logical id", "physical id"],
    ),
    (lambda v: setattr(v.nodes[_NODE3], "primary_ip", fake.CLUSTER_IP), ["cluster IP"]),
    (lambda v: setattr(v.nodes[_NODE3], "primary_ip", "192.0.2.1"), ["IP address 192.0.2.1"]),
    (lambda v: setattr(v.nodes[_NODE3], "secondary_ip", "192.0.2.1"), ["secondary IP"]),
    (lambda v: _AddNic(v, ip="10.0.0.1"), ["IP address bridge:xen-br0/10.0.0.1"]),
    (
        lambda v: _AddNic(v, ip="10.0.0.1", nicparams={"mode": "routed"}),
        ["IP address route:xen-br0/10.0.0.1"],
    ),
    (lambda v: setattr(v.instances["inst1"], "uuid", v.nodes[_NODE1].uuid), ["UUID"]),
]


class TestRules:
    """Each rule finds its fault, names it, and nothing else."""

    def test_sound(self, view):
        assert verify.Verify(view) == []
        assert verify.VerifyChanged(view, view.index, _AllKeys(view)) == []

    @pytest.mark.parametrize(("break_it", "words"), _BREAKAGES)
    def test_rule(self, view, break_it, words):
        break_it(view)
        problems = verify.Verify(view)
        assert problems
        text = "\n".join(problems)
        assert all(word in text for word in words), text

    @pytest.mark.parametrize(("break_it", "words"), _BREAKAGES)
    def test_looking_at_changes_finds_the_same(self, view, break_it, words):
        break_it(view)
        index = verify.BuildIndex(view)
        found = verify.VerifyChanged(view, index, _AllKeys(view))
        assert sorted(found) == sorted(verify.Verify(view))

    def test_master_unknown_does_not_crash(self, view):
        del view.nodes[_NODE1]
        problems = verify.Verify(view)
        assert any("not among its nodes" in problem for problem in problems)
        assert any("unknown primary node" in problem for problem in problems)

    def test_same_address_on_other_links_is_fine(self, view):
        _AddNic(view, ip="10.0.0.1", nicparams={"link": "br7"})
        assert verify.Verify(view) == []

    def test_secondary_equal_to_primary_is_fine(self, view):
        view.nodes[_NODE3].secondary_ip = view.nodes[_NODE3].primary_ip
        assert verify.Verify(view) == []


def _AllKeys(view):
    return [
        claims.CLUSTER_KEY,
        *(claims.Key(claims.NODE, name) for name in view.nodes),
        *(claims.Key(claims.INSTANCE, name) for name in view.instances),
    ]


class TestChanged:
    """Only what a change can have broken is looked at."""

    def test_other_problems_are_not_repeated(self, view):
        view.instances["inst1"].disks[0].mode = "broken before"
        key = claims.Key(claims.INSTANCE, "inst2")
        view.Put(key, view.instances["inst2"].Copy())
        assert verify.VerifyChanged(view, view.index, [key]) == []

    def test_conflict_with_an_unchanged_object(self, view):
        key = claims.Key(claims.INSTANCE, "inst2")
        changed = view.instances["inst2"].Copy()
        changed.network_port = 11000
        view.Put(key, changed)
        (problem,) = verify.VerifyChanged(view, view.index, [key])
        assert "instance inst1 (disk 0)" in problem
        assert "instance inst2 (network port)" in problem

    def test_removing_a_node_concerns_its_instances(self, view):
        key = claims.Key(claims.NODE, _NODE2)
        view.Put(key, None)
        problems = verify.VerifyChanged(view, view.index, [key])
        assert [problem for problem in problems if "inst1" in problem and _NODE2 in problem]
        assert [problem for problem in problems if "inst2" in problem and _NODE2 in problem]

    def test_removed_instance_is_no_problem(self, view):
        key = claims.Key(claims.INSTANCE, "inst2")
        view.Put(key, None)
        assert verify.VerifyChanged(view, view.index, [key]) == []


class TestCandidates:
    @pytest.mark.parametrize(
        ("flags", "pool", "exceptions", "stats"),
        [
            (["candidate", "", ""], 10, [], (1, 3, 3)),
            (["candidate", "", ""], 2, [], (1, 2, 3)),
            (["candidate", "offline", "drained"], 10, [], (1, 1, 1)),
            (["candidate", "candidate", ""], 10, [_NODE2], (1, 2, 2)),
            ([], 10, [], (0, 0, 0)),
        ],
        ids=str,
    )
    def test_stats(self, flags, pool, exceptions, stats):
        nodes = [
            fake.NewNode(
                number,
                master_candidate=flag == "candidate",
                offline=flag == "offline",
                drained=flag == "drained",
            )
            for number, flag in enumerate(flags, 1)
        ]
        assert verify.GetCandidateStats(nodes, pool, exceptions) == stats
