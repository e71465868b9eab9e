"""Migrations of real guests during which something goes wrong.

Whatever it is: afterwards the guest is in one QEMU at most of the whole cluster and does not stand
still there; the configuration says where, or the job has said which command goes on, and that one
does. One that its source was not lost with goes on as if nothing had happened.

Most of this is waiting, so two pairs of nodes go through it at the same time. (BASE2, TG1)
"""

import concurrent.futures
import contextlib

import pytest
from kvmbed import PATIENCE, MakeKvmCluster
from kvmguest import Guest, Watch

from realcluster import NODE2, Started
from vc import WaitFor

pytestmark = pytest.mark.timeout(900)

#: MiB/s: too little for a guest that changes its memory all the time, but enough to see that soon.
HOPELESS = 16
#: With that the other ones are on their way for half a minute.
SLOW = 2


def SetBandwidth(bed, mebibytes):
    """All nodes have to answer, and no migration to be under way."""
    bed.Ok("gnt-cluster", "modify", f"-Hkvm:migration_bandwidth={mebibytes}", timeout=300)


class Migration(Started):
    """A migration that has begun to send the guest."""

    SOON = 300

    def __init__(self, guest, target, *options):
        argv = ("gnt-instance", "migrate", "-f", "-n", target, *options, guest.short_name)
        super().__init__(guest.bed, *argv)
        self.Hear(" - progress: ")

    def Hear(self, text):
        for line in self._proc.stdout:
            self._said += line
            if text in line:
                return
        raise AssertionError(f"the operation did not say {text!r}:\n{self._said}")

    def Fails(self):
        code, said = self.Wait()
        assert code == 1, said
        return said

    def Succeeds(self):
        code, said = self.Wait()
        assert code == 0, said
        return said


def GoesOn(guest, node, boots, before):
    """It is where it was, alone, and has not been restarted."""
    assert guest.States() == {node: "running"}
    assert (guest.Primary(), guest.Status()) == (node, "running")
    assert guest.Wait()[0] > before[0]
    assert guest.Boots() == boots


def Start(bed, node):
    bed.Do("start", node)
    bed.WaitForDaemon("ganeti-noded", node)


class Lane:
    """Things that happen one after the other between two nodes."""

    def __init__(self, bed, number, source, target):
        self.bed = bed
        self.source, self.target = source, target
        self.guest = Guest(bed, number, "default")
        self._number = number
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self.results = {}

    def Plan(self, *names):
        for name in ("Begin", *names):
            self.results[name] = self._thread.submit(getattr(self, name))

    def Close(self):
        self._thread.shutdown(cancel_futures=True)

    def Begin(self):
        self.guest.Add(node=self.source)
        self.guest.Wait()

    def _Send(self, *options):
        return Migration(self.guest, self.target, *options)

    def _Stays(self, spoil, mend):
        """Something happens to the target, and the guest stays; what the job said."""
        before = self.guest.Wait()
        boots = self.guest.Boots()
        migration = self._Send()
        spoil()
        said = migration.Fails()
        assert f"was not migrated and stays on node {self.source}.example.com" in said
        # Also before anybody has repaired anything.
        assert self.guest.States()[self.source] == "running"
        assert self.guest.Wait()[0] > before[0]
        mend()
        self.guest.Do("migrate", "-f", "--cleanup", "-n", self.target, timeout=3 * PATIENCE)
        GoesOn(self.guest, self.source, boots, before)
        assert self.guest.Leftovers(self.target) == []
        return said

    def TargetWithoutReplication(self):
        self._Stays(
            lambda: self.bed.Do("cut", self.target, "--network=secondary"),
            lambda: self.bed.Do("mend", self.target),
        )

    def TargetCutOff(self):
        def _Mend():
            self.bed.Do("mend", self.target)
            self.bed.WaitForDaemon("ganeti-noded", self.target)

        said = self._Stays(lambda: self.bed.Do("cut", self.target), _Mend)
        assert f"migrate --cleanup -n {self.target}.example.com" in said

    def TargetDies(self):
        self._Stays(lambda: self.bed.Do("kill", self.target), lambda: Start(self.bed, self.target))

    def SourceDies(self):
        """What the job has said to do is done."""
        boots = self.guest.Boots()
        migration = self._Send()
        self.bed.Do("kill", self.source)
        said = migration.Fails()
        assert f"it is not known whether it still runs on node {self.source}" in said
        assert f"gnt-node modify --offline=yes {self.source}" in said
        assert "'gnt-instance failover --ignore-consistency'" in said
        assert set(self.guest.States().values()) <= {"inmigrate"}
        self.bed.Ok("gnt-node", "modify", "-f", "--offline=yes", self.source, timeout=180)
        self.guest.Do(
            "failover", "-f", "--ignore-consistency", "-n", self.target, timeout=3 * PATIENCE
        )
        self.guest.Wait()
        assert self.guest.Boots() == boots + 1
        assert self.guest.States() == {self.target: "running"}
        assert self.guest.Primary() == self.target
        Start(self.bed, self.source)
        self.bed.Ok("gnt-node", "modify", "-f", "--offline=no", self.source, timeout=180)
        assert self.guest.States() == {self.target: "running"}

    def StartBusyOne(self):
        """Send a guest that changes its memory all the time."""
        self._busy = Guest(self.bed, self._number + 4)
        self._busy.AddCounting(self.source, dirty=True)
        SetBandwidth(self.bed, HOPELESS)
        self._hopeless = Migration(self._busy, self.target)

    def NotConverging(self):
        busy = self._busy
        said = self._hopeless.Fails()
        assert "it does not converge" in said
        assert busy.States() == {self.source: "running"}
        assert (busy.Primary(), busy.Status()) == (self.source, "running")
        assert busy.Leftovers(self.target) == []
        busy.Remove()

    def Cancelled(self):
        before = self.guest.Wait()
        boots = self.guest.Boots()
        migration = self._Send()
        rows = self.bed.Listing("gnt-job", "id,status,summary")
        (job,) = [
            number
            for number, status, summary in rows
            if status == "running" and self.guest.name in summary
        ]
        self.bed.Ok("gnt-job", "cancel", job)
        code, said = migration.Wait()
        assert code != 0
        assert "cancel" in said
        # The command does not wait for the end.
        WaitFor(
            lambda: dict(self.bed.Listing("gnt-job", "id,status"))[job] == "canceled",
            PATIENCE,
            "the end of the job",
        )
        GoesOn(self.guest, self.source, boots, before)
        assert self.guest.Leftovers(self.target) == []

    def NotLive(self):
        """It stands still, but is not restarted."""
        before = self.guest.Wait()
        boots = self.guest.Boots()
        watch = Watch(self.guest, self.source, self.target)
        migration = self._Send("--non-live")
        migration.Succeeds()
        seen = watch.Stop()
        assert ("inmigrate", "paused") in seen
        assert ("running", "running") not in seen
        GoesOn(self.guest, self.target, boots, before)
        self.source, self.target = self.target, self.source

    def DaemonRestarted(self):
        """The source's node daemon, while the guest is on its way."""
        migration = self._Send("--non-live")
        pid = self.bed.Ok("cat /run/ganeti/ganeti-noded.pid", node=self.source).strip()
        self.bed.Ok(f"pkill -KILL -P {pid}; kill -KILL {pid}", node=self.source)
        self.bed.Ok("daemon-util start ganeti-noded", node=self.source)
        before = (0.0, 0)
        boots = self.guest.Boots()
        migration.Succeeds()
        GoesOn(self.guest, self.target, boots, before)
        assert self.guest.Leftovers(self.source) == []
        self.source, self.target = self.target, self.source

    def PortTaken(self):
        counting = Guest(self.bed, self._number + 4)
        counting.AddCounting(self.source)
        count = counting.Count(self.source)
        other = Started(self.bed, "socat", "TCP-LISTEN:8102,fork", "PIPE", node=self.target)
        try:
            taken = "ss -Hltn sport = 8102"
            WaitFor(lambda: self.bed.Ok(taken, node=self.target), what="the port's taking")
            counting.Do("migrate", "-f", "-n", self.target, timeout=3 * PATIENCE)
            assert counting.States() == {self.target: "running"}
            assert counting.Count(self.target) >= count
        finally:
            self.bed.Ok("pkill -x socat", node=self.target)
            other.Wait()
            counting.Remove()


LANES = {
    "first": ("TargetWithoutReplication", "TargetCutOff", "SourceDies"),
    "second": (
        *("NotConverging", "TargetDies", "Cancelled", "PortTaken", "NotLive", "DaemonRestarted"),
    ),
}


@pytest.fixture(scope="module")
def bed(NewTestbed):
    return MakeKvmCluster(NewTestbed, 5)


@pytest.fixture(scope="module")
def lanes(bed):
    lanes = {"first": Lane(bed, 1, "node2", "node3"), "second": Lane(bed, 2, "node4", "node5")}
    lanes["second"].StartBusyOne()
    SetBandwidth(bed, SLOW)
    for name, lane in lanes.items():
        lane.Plan(*LANES[name])
    with contextlib.ExitStack() as stack:
        for lane in lanes.values():
            stack.callback(lane.Close)
        yield lanes


@pytest.mark.parametrize(
    ("lane", "name"), [(lane, name) for lane, names in LANES.items() for name in names]
)
def test_migration(bed, lanes, lane, name):
    lanes[lane].results[name].result()


def test_cluster_is_clean(bed, lanes):
    assert NODE2 in dict(bed.Listing("gnt-node", "name,offline"))
    assert bed.Problems() == []
