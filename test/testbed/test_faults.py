"""Faults around a cluster: a new node dies, names lead elsewhere, clocks and disks fail.

Each operation says which node it was, what is wrong and what was done; when the fault has gone, a
second run completes it.
"""

from contextlib import contextmanager

import pytest

from realcluster import (
    NODE3,
    NODE4,
    AcceptKey,
    Config,
    HasNothing,
    KeyOfHost,
    MakeCluster,
    SameFiles,
    Started,
)
from vc import WaitFor

DATA = "/var/lib/ganeti"

ADD4 = ("gnt-node", "add", "-f", "--secondary-ip=198.51.100.14", "node4")


def Add4(bed):
    """Begin to add the machine, once its name resolves: an answer of the server may be lost."""
    WaitFor(lambda: bed.Run("getent hosts node4").code == 0, what="the name of node4")
    return Started(bed, *ADD4)


@pytest.fixture(scope="module")
def bed(NewTestbed):
    """A cluster of three nodes, and a machine that can become one."""
    bed = NewTestbed("--nodes=4")
    MakeCluster(bed, "node2", "node3")
    return bed


class TestNewNodeDies:
    """A machine loses its power in the middle of gnt-node add."""

    def test_in_the_ssh_phase(self, bed):
        """While the node daemon is started there."""
        # What stands there now is read to find out whether it runs already.
        bed.Ok("mkdir -p /run/ganeti && mkfifo /run/ganeti/ganeti-noded.pid", node="node4")
        operation = Add4(bed)
        WaitFor(lambda: bed.Data("server.pem", "node4").exists(), what="the secrets on node4")
        bed.Do("kill", "node4")
        code, said = operation.Wait()
        assert code == 1
        assert f"The connection to {NODE4} broke" in said
        assert "then try again" in said
        assert NODE4 not in Config(bed)["nodes"]
        bed.Do("start", "node4")

    def test_in_the_job(self, bed):
        """While hooks run, before anything else is done."""
        hook = bed.Root("node1") / "etc/ganeti/hooks/node-add-pre.d/wait"
        hook.parent.mkdir(parents=True)
        # The first time is that of the check before anything is done to the host.
        first = "mkdir /tmp/first 2>/dev/null && exit"
        wait = "touch /tmp/w; while test -e /tmp/w; do sleep 0.1; done"
        hook.write_text(f"#!/bin/sh\n{first}\n{wait}\n")
        hook.chmod(0o755)
        operation = Add4(bed)
        WaitFor((bed.Root("node1") / "tmp/w").exists, what="the hook")
        bed.Do("kill", "node4")
        bed.Ok("rm /tmp/w")
        code, said = operation.Wait()
        hook.unlink()
        assert code == 1
        assert f"Could not take back what {NODE4} got" in said
        assert "has no /var/lib/ganeti/server.pem" in said
        assert NODE4 not in Config(bed)["nodes"]
        bed.Do("start", "node4")

    def test_again(self, bed):
        """The second run completes it."""
        code, said = Add4(bed).Wait()
        assert code == 0, said
        assert bed.Problems() == []
        bed.Ok("gnt-node", "remove", "node4")
        assert HasNothing(bed, "node4")
        AcceptKey(bed, "node4")


class TestAddresses:
    def test_name_of_another_host(self, bed):
        """A name that leads to the wrong machine: it says that it is another one."""
        hosts = bed.Root("node1") / "etc/hosts"
        before = hosts.read_bytes()
        known = bed.Root("node1") / "root/.ssh/known_hosts"
        with known.open("a") as stream:
            stream.write(f"wrong.example.com {KeyOfHost(bed, 'node4')}\n")
        hosts.write_bytes(before + b"192.0.2.14 wrong.example.com wrong\n")
        try:
            said = bed.Fails("gnt-node add -f -s 198.51.100.14 wrong")
        finally:
            hosts.write_bytes(before)
        assert "This host calls itself 'node4.example.com', not 'wrong.example.com'" in said
        assert HasNothing(bed, "node4")

    def test_address_of_a_node(self, bed):
        hosts = bed.Root("node1") / "etc/hosts"
        before = hosts.read_bytes()
        hosts.write_bytes(before + b"192.0.2.13 wrong.example.com wrong\n")
        try:
            said = bed.Fails("gnt-node add -f -s 198.51.100.14 wrong")
        finally:
            hosts.write_bytes(before)
        assert NODE3 in said


class TestClock:
    def test_ten_minutes_ahead(self, bed):
        """Time namespaces have no wall clock, so the node daemon alone has a wrong one."""
        place = "/srv/clock"
        code = "import time as t; f = t.time; t.time = lambda: f() + 600\n"
        bed.Ok(f"mkdir -p {place}", node="node3")
        (bed.Root("node3") / "srv/clock/sitecustomize.py").write_text(code)
        restart = "daemon-util stop ganeti-noded; {} daemon-util start ganeti-noded"
        bed.Ok(restart.format(f"PYTHONPATH={place}"), node="node3")
        try:
            found = bed.Problems()
        finally:
            bed.Ok(restart.format(""), node="node3")
        (problem,) = found
        assert ":ENODETIME:" in problem
        assert NODE3 in problem
        assert "off by at least 59" in problem or "off by at least 60" in problem
        assert bed.Problems() == []


@contextmanager
def FullDisk(bed, node):
    """The data directory is on a small disk that is full; later there is room again."""
    copy = f"mount -t tmpfs -o size=8m,mode=755 none /mnt && cp -a {DATA}/. /mnt"
    move = f"{copy} && mount --bind /mnt {DATA} && umount /mnt"
    if node == "node1":
        # A master daemon works with the files that it opened.
        move = f"daemon-util stop-master && {move} && daemon-util start-master"
    bed.Ok(f"{move}; cat /dev/zero > {DATA}/fill 2>/dev/null; true", node=node)
    try:
        yield
    finally:
        bed.Ok(f"rm {DATA}/fill", node=node)


@contextmanager
def ReadOnly(bed, node):
    bed.Ok(f"mount --bind {DATA} {DATA} && mount -o remount,bind,ro {DATA}", node=node)
    try:
        yield
    finally:
        bed.Ok(f"umount -l {DATA}", node=node)


@pytest.mark.parametrize(
    ("fault", "text"), [(FullDisk, "No space left"), (ReadOnly, "Read-only file system")]
)
class TestDisk:
    """A data directory that is full, or that nobody can write to."""

    def test_of_a_candidate(self, bed, fault, text):
        """The operation goes on, and says which node did not take what."""
        with fault(bed, "node3"):
            said = bed.Ok("gnt-cluster", "add-tags", f"tag-{fault.__name__}")
        assert f"Node {NODE3} did not get the configuration: Can't write {DATA}/config" in said
        assert text in said
        bed.Ok("gnt-cluster", "redist-conf")
        assert SameFiles(bed, "node3", "config.data")
        assert bed.Problems() == []

    def test_of_the_master(self, bed, fault, text):
        """Nothing is done, and the master daemon lives."""
        with fault(bed, "node1"):
            before = bed.Data("config.data").read_bytes()
            pid = bed.Ok("cat /run/ganeti/ganeti-masterd.pid")
            said = bed.Fails("gnt-cluster", "add-tags", "another")
            # It still tells what it knows.
            assert len(bed.Listing("gnt-node", "name")) == 3
        assert text in said
        assert DATA in said
        assert bed.Data("config.data").read_bytes() == before
        bed.Ok("gnt-cluster", "add-tags", f"after-{fault.__name__}")
        assert bed.Ok("cat /run/ganeti/ganeti-masterd.pid") == pid
        assert bed.Problems() == []
