"""A node dies in the middle of an operation that needs it.

The operation says which node it was and what was done; once the node is back, a second run
completes it.
"""

import time

import pytest

from realcluster import NODE1, NODE2, NODE3, MakeCluster, SameFiles, Started
from vc import WaitFor


@pytest.fixture(scope="module")
def bed(NewTestbed):
    bed = NewTestbed("--nodes=3")
    MakeCluster(bed, "node2", "node3")
    return bed


def DieInTheMiddle(bed, victim, *argv, node="node1", power=False):
    """Run an operation during which a node takes a call and never answers.

    Then it loses its power, or, which is noticed at once, its daemon is killed.
    """
    pid = bed.Ok("cat /run/ganeti/ganeti-noded.pid", node=victim).strip()
    bed.Ok(f"kill -STOP {pid}", node=victim)
    operation = Started(bed, *argv, node=node)
    time.sleep(1.5)
    assert operation.Runs()
    if power:
        bed.Do("kill", victim)
    else:
        bed.Ok(f"pkill -KILL -P {pid}; kill -KILL {pid}", node=victim)
    return operation.Wait()


def Start(bed, node):
    bed.Do("start", node)
    bed.WaitForDaemon("ganeti-noded", node)


def StartDaemon(bed, node):
    bed.Ok("daemon-util start ganeti-noded", node=node)


class TestNodeDies:
    """A node dies in the middle of an operation."""

    def test_redist_conf(self, bed):
        code, said = DieInTheMiddle(bed, "node3", "gnt-cluster", "redist-conf", power=True)
        assert code == 0
        assert f"Node {NODE3} did not get the configuration" in said
        assert f"known_hosts to {NODE3} failed" in said
        assert NODE2 not in said
        Start(bed, "node3")
        assert bed.Ok("gnt-cluster", "redist-conf") == ""
        assert SameFiles(bed, "node3", "config.data", "known_hosts")
        assert bed.Problems() == []

    def test_modify(self, bed):
        """What it could not do itself is said, with the command that does it."""
        argv = ("gnt-node", "modify", "-C", "no", "-f", "node3")
        code, said = DieInTheMiddle(bed, "node3", *argv)
        assert code == 0
        assert " - master_candidate -> False" in said
        assert f"Node {NODE3} could not drop its configuration" in said
        assert f"When it can: gnt-node modify -C no {NODE3}" in said
        StartDaemon(bed, "node3")
        assert bed.Data("config.data", "node3").exists()
        bed.Ok(*argv)
        assert not bed.Data("config.data", "node3").exists()
        bed.Ok("gnt-node", "modify", "-C", "yes", "node3")
        assert bed.Problems() == []

    def test_renew_crypto(self, bed):
        argv = ("gnt-cluster", "renew-crypto", "-f", "--new-confd-hmac-key")
        before = bed.Data("hmac.key").read_bytes()
        # While it waits for the watcher, which holds its lock here until told otherwise.
        wait = "touch /tmp/w; while test -e /tmp/w; do sleep 0.1; done"
        watcher = Started(bed, "flock", "/var/lib/ganeti/watcher.data", "sh", "-c", wait)
        WaitFor((bed.Root("node1") / "tmp/w").exists, what="the lock")
        operation = Started(bed, *argv)
        operation.Expect("Blocking the watcher")
        bed.Do("kill", "node3")
        bed.Ok("rm /tmp/w")
        assert watcher.Wait() == (0, "")
        code, said = operation.Wait()
        assert code == 1
        assert f"Warning: node {NODE3} may not have the new files" in said
        assert "run 'gnt-cluster renew-crypto' again" in said
        assert bed.Data("hmac.key").read_bytes() != before
        assert SameFiles(bed, "node2", "hmac.key")
        Start(bed, "node3")
        assert not SameFiles(bed, "node3", "hmac.key")
        bed.Ok("gnt-cluster", "renew-crypto", "-f")
        assert SameFiles(bed, "node3", "hmac.key")
        assert bed.Problems() == []


class TestNewMaster:
    """The last one, as it leaves another master."""

    def test_node_dies(self, bed):
        """A node that dies in the middle of a failover is told afterwards who the master is."""
        code, said = DieInTheMiddle(bed, "node3", "gnt-cluster", "masterfailover", node="node2")
        assert code == 0
        assert f"Warning: Node {NODE3} did not get the configuration" in said
        assert f"{NODE2} is the master" in said
        assert bed.Data("ssconf_master_node", "node3").read_text() == f"{NODE1}\n"
        StartDaemon(bed, "node3")
        WaitFor(
            lambda: bed.Data("ssconf_master_node", "node3").read_text() == f"{NODE2}\n",
            what="the news on node3",
        )
