"""Real guests change nodes on a virtual cluster, and whatever dies or is cancelled meanwhile, there
is one guest in the end, where the cluster says that it is."""

import os
import re
import signal
import time

import pytest
from test_kvm_cluster import ONE, IsGone, Shell

from vc import WaitFor

#: MiB a second: slow enough to be disturbed.
SLOW, FAST = 2, 200


@pytest.fixture(scope="module")
def cluster(NewCluster):
    install = os.environ.get("GANETI_TEST_INSTALL") == "1"
    args = ["--hypervisor=kvm", "--nodes=2"] + (["--install"] if install else [])
    return NewCluster(*args, timeout=600)


@pytest.fixture
def guest(cluster):
    """A guest on the second node, which migrates slowly."""
    cluster.Ok(
        "gnt-instance", "add", "--no-name-check", "--no-ip-check", "--no-nics", "--node=node2",
        "--disk-template=sharedfile", "--disk=0:size=16m", "--os-type=busybox-guest+default",
        "--backend-parameters=memory=256", ONE, timeout=120,
    )  # fmt: skip
    SetSpeed(cluster, SLOW)
    yield cluster
    cluster.Ok("gnt-instance", "remove", "-f", "--shutdown-timeout=1", ONE)


def SetSpeed(cluster, speed):
    cluster.Ok("gnt-cluster", "modify", "-H", f"kvm:migration_bandwidth={speed}")


def BootId(cluster):
    """What a guest has from its start to its end."""
    return Shell(
        cluster,
        "cat /proc/sys/kernel/random/boot_id",
        r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}",
    ).group()


def Qemus(cluster):
    """Node -> the process that the guest has there."""
    found = {}
    for node in ("node1", "node2"):
        path = cluster.Root(node) / "var/run/ganeti/kvm-hypervisor/pid" / ONE
        if path.exists():
            pid = int(path.read_text().split()[0])
            if not IsGone(pid):
                found[node] = pid
    return found


def State(cluster):
    return cluster.Table("gnt-instance", "list", "-o", "pnode,status", ONE)[0]


def Begin(cluster):
    """Start a migration to the first node; its job, once it is under way."""
    result = cluster.Run("gnt-instance", "migrate", "-f", "--submit", "-n", "node1", ONE)
    job = re.search(r"\d+", result.out + result.err).group()
    WaitFor(
        lambda: "progress" in cluster.Ok("gnt-job", "info", job), what="progress of the migration"
    )
    assert set(Qemus(cluster)) == {"node1", "node2"}
    return job


def End(cluster, job):
    """How a job ended, and what it said."""

    def _Done():
        ((status,),) = cluster.Table("gnt-job", "list", "-o", "status", job)
        return status if status not in ("running", "canceling", "waiting", "queued") else None

    return WaitFor(_Done, timeout=90, what=f"the end of job {job}"), cluster.Ok(
        "gnt-job", "info", job
    )


def Stays(cluster):
    """It runs on the second node alone."""
    assert State(cluster) == ["node2.example.com", "running"]
    WaitFor(lambda: set(Qemus(cluster)) == {"node2"}, what="the end of the other process")


class TestMigration:
    @pytest.mark.parametrize("how", [[], ["--non-live"]])
    def test_it_is_the_same_guest(self, guest, how):
        before = BootId(guest)
        SetSpeed(guest, FAST)
        out = guest.Ok("gnt-instance", "migrate", "-f", *how, "-n", "node1", ONE, timeout=90)
        assert "the instance stood still for" in out
        assert State(guest) == ["node1.example.com", "running"]
        assert set(Qemus(guest)) == {"node1"}
        assert BootId(guest) == before

    def test_progress(self, guest):
        job = Begin(guest)
        SetSpeed(guest, FAST)
        status, text = End(guest, job)
        assert status == "success"
        assert "MiB, " in text
        assert "s to go" in text

    def test_cancelled(self, guest):
        before = BootId(guest)
        job = Begin(guest)
        started = time.monotonic()
        guest.Ok("gnt-job", "cancel", job)
        status, _ = End(guest, job)
        assert status == "canceled"
        assert time.monotonic() - started < 30
        Stays(guest)
        assert BootId(guest) == before

    def test_target_dies(self, guest):
        before = BootId(guest)
        job = Begin(guest)
        os.kill(Qemus(guest)["node1"], signal.SIGKILL)
        status, text = End(guest, job)
        assert status == "error"
        assert "stays on node node2.example.com" in text
        Stays(guest)
        assert BootId(guest) == before

    def test_source_dies(self, guest):
        """That is a crash of the guest, wherever it happens."""
        job = Begin(guest)
        os.kill(Qemus(guest)["node2"], signal.SIGKILL)
        status, text = End(guest, job)
        assert status == "error"
        assert "gnt-instance startup" in text
        assert Qemus(guest) == {}
        guest.Ok("gnt-instance", "startup", ONE)
        Stays(guest)

    def test_master_dies(self, guest):
        """Nobody watches it any more: it is put right afterwards."""
        before = BootId(guest)
        Begin(guest)
        pid = guest.Root() / "var/run/ganeti/ganeti-masterd.pid"
        os.kill(int(pid.read_text()), signal.SIGKILL)
        guest.Vcluster("start", "node1")
        out = guest.Ok("gnt-instance", "migrate", "-f", "--cleanup", "-n", "node1", ONE)
        assert "cancelling the migration that is under way" in out
        Stays(guest)
        assert BootId(guest) == before

    def test_master_dies_and_it_ends_by_itself(self, guest):
        """Then it is at the target, though the configuration does not say so."""
        before = BootId(guest)
        SetSpeed(guest, 10)
        Begin(guest)
        pid = guest.Root() / "var/run/ganeti/ganeti-masterd.pid"
        os.kill(int(pid.read_text()), signal.SIGKILL)
        time.sleep(20)
        guest.Vcluster("start", "node1")
        guest.Ok("gnt-instance", "migrate", "-f", "--cleanup", "-n", "node1", ONE, timeout=120)
        ((node, status),) = [State(guest)]
        assert status == "running"
        assert set(Qemus(guest)) == {node.split(".")[0]}
        assert BootId(guest) == before
