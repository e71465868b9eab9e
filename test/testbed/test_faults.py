"""Faults in the middle: a node dies while an operation needs it, disks are full, clocks are wrong.

Each operation says which node it was, what is wrong and what was done; when the fault has gone, a
second run completes it.
"""

import subprocess
import time
from contextlib import contextmanager

import pytest

from realcluster import (
    NODE1,
    NODE2,
    NODE3,
    NODE4,
    AcceptKey,
    Config,
    HasNothing,
    InitCluster,
    KeyOfHost,
)
from vc import WaitFor

DATA = "/var/lib/ganeti"
#: Seconds in which an operation ends after a node that it needs died.
SOON = 45

ADD4 = ("gnt-node", "add", "-f", "--secondary-ip=198.51.100.14", "node4")


@pytest.fixture(scope="module")
def bed(NewTestbed):
    """A cluster of three nodes, and a machine that root can log in on by key."""
    bed = NewTestbed("--nodes=4")
    InitCluster(bed)
    known = ""
    for number in (2, 3, 4):
        AcceptKey(bed, f"node{number}")
        known += f"node{number}.example.com {KeyOfHost(bed, f'node{number}')}\n"
    (bed.Root("node1") / "root/.ssh/known_hosts").write_text(known)
    for number in (2, 3):
        bed.Ok("gnt-node", "add", "-f", f"--secondary-ip=198.51.100.1{number}", f"node{number}")
    return bed


class Started:
    """An operation that runs."""

    def __init__(self, bed, *argv, node="node1"):
        self._said = ""
        self._proc = subprocess.Popen(
            bed.Command(*argv, node=node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def Expect(self, beginning):
        """Return once it says a line that begins so."""
        for line in self._proc.stdout:
            self._said += line
            if line.startswith(beginning):
                return
        raise AssertionError(f"the operation did not say {beginning!r}:\n{self._said}")

    def Wait(self):
        """Its end, which comes soon; (exit code, what it said)."""
        self._said += self._proc.communicate(timeout=SOON)[0]
        return self._proc.returncode, self._said

    def Runs(self):
        return self._proc.poll() is None


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


def SameFiles(bed, node, *names):
    return all(bed.Data(name, node).read_bytes() == bed.Data(name).read_bytes() for name in names)


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
        operation = Started(bed, *argv)
        operation.Expect("Stopping the master daemons")
        bed.Do("kill", "node3")
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

    def test_add_in_the_ssh_phase(self, bed):
        """While the node daemon is started there."""
        # What stands there now is read to find out whether it runs already.
        bed.Ok("mkdir -p /run/ganeti && mkfifo /run/ganeti/ganeti-noded.pid", node="node4")
        operation = Started(bed, *ADD4)
        WaitFor(lambda: bed.Data("server.pem", "node4").exists(), what="the secrets on node4")
        bed.Do("kill", "node4")
        code, said = operation.Wait()
        assert code == 1
        assert f"The connection to {NODE4} broke" in said
        assert "then try again" in said
        assert NODE4 not in Config(bed)["nodes"]
        bed.Do("start", "node4")

    def test_add_in_the_job(self, bed):
        """While hooks run, before anything else is done."""
        hook = bed.Root("node1") / "etc/ganeti/hooks/node-add-pre.d/wait"
        hook.parent.mkdir(parents=True)
        # The first time is that of the check before anything is done to the host.
        first = "mkdir /tmp/first 2>/dev/null && exit"
        wait = "touch /tmp/w; while test -e /tmp/w; do sleep 0.1; done"
        hook.write_text(f"#!/bin/sh\n{first}\n{wait}\n")
        hook.chmod(0o755)
        operation = Started(bed, *ADD4)
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

    def test_add_again(self, bed):
        """The second run completes it."""
        bed.Ok(*ADD4)
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
