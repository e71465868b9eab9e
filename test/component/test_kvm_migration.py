"""Real guests that migrate between two KVM hypervisors of one machine (TG1, BASE2)."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import migration_guest
import pytest

from ganeti import constants, errors, objects
from ganeti.hypervisor import hv_kvm, kvm_files, kvm_migration, kvm_qmp, kvm_stream
from ganeti.utils import x509
from ganeti.vcluster import guest

OS_DIR = Path(__file__).resolve().parents[1] / "os" / "busybox-guest"
NAME = "inst1.example.com"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("cert") / "server.pem"
    x509.WritePemFile(str(path), x509.GenerateSelfSignedX509Cert().pem)
    return str(path)


class Node:
    """A node: a hypervisor with directories of its own."""

    def __init__(self, directory, name, address, certificate):
        self.address = address
        self._root = f"{directory}/{name}"
        self._certificate = certificate
        self.lines = []

    @property
    def hv(self):
        """A new one each time, as after a restart of the daemon: nothing is kept in memory."""
        return hv_kvm.KVMHypervisor(
            root_dir=self._root, log_dir=self._root + "/log", cert_file=self._certificate
        )

    @property
    def paths(self):
        return kvm_files.Paths(NAME, self._root, self._root + "/log")

    @property
    def pid(self):
        return kvm_files.FindProcess(self.paths).pid

    def State(self):
        with kvm_qmp.QmpClient(self.paths.qmp) as qmp:
            return qmp.Execute("query-status")["status"]

    def Line(self):
        line = migration_guest.Line(self.paths.serial)
        self.lines.append(line)
        return line

    def Files(self):
        return [str(path) for path in Path(self._root).rglob("inst1*") if "/log/" not in str(path)]

    def Close(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(self.paths.pid).read_text()), signal.SIGCONT)
        self.hv.StopInstance(None, force=True, name=NAME)
        for line in self.lines:
            line.Close()


class Lab:
    """Two nodes that share a directory, and one instance."""

    def __init__(self, directory, certificate):
        self.directory = directory
        self.source = Node(directory, "a", "127.0.0.1", certificate)
        self.target = Node(directory, "b", "127.0.0.1", certificate)
        self.disk = f"{directory}/disk"
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = min(sock.getsockname()[1], 60000)

    def Instance(self, **hvparams):
        return objects.Instance(
            name=NAME,
            uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
            primary_node="node1.example.com",
            hypervisor=constants.HT_KVM,
            disk_template=constants.DT_SHARED_FILE,
            network_port=11001,
            hvparams={
                **constants.HVC_DEFAULTS[constants.HT_KVM],
                "kernel_path": "",
                "kvm_flag": "disabled",
                # Their defaults bypass the page cache, which file systems in memory do not know.
                "disk_cache": "writeback",
                "migration_port": self.port,
                "migration_bandwidth": 200,
                **hvparams,
            },
            beparams={"memory": 96, "vcpus": 1, "auto_balance": True},
            nics=[],
            disks=[
                objects.Disk(
                    dev_type=constants.LD_FILE,
                    size=32,
                    mode="rw",
                    iv_name="disk/0",
                    logical_id=("loop", self.disk),
                    physical_id=("loop", self.disk),
                    children=[],
                )
            ],
            tags=set(),
        )

    def Start(self, instance, dirty=False):
        """A guest that counts."""
        migration_guest.MakeDisk(self.disk, dirty)
        return self.Boot(instance)

    def Boot(self, instance):
        self.source.hv.StartInstance(instance, [(instance.disks[0], self.disk)])
        return self.source.Line()

    def Accept(self, instance):
        """Let the target wait: (what to migrate to, what the guest says there)."""
        info = self.source.hv.MigrationInfo(instance)
        endpoint = self.target.hv.AcceptInstance(instance, info, self.target.address)
        return endpoint, self.target.Line()

    def Wait(self, instance, patience=migration_guest.PATIENCE):
        """Poll until it is over, as the master does."""
        deadline = time.monotonic() + patience
        while True:
            status = self.source.hv.GetMigrationStatus(instance)
            if status.status != constants.MIGRATION_ACTIVE:
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)

    def WaitUntilMoving(self, instance, sent=2**16):
        def _Moves():
            status = self.source.hv.GetMigrationStatus(instance)
            assert status.status == constants.MIGRATION_ACTIVE, status
            return (status.transferred_ram or 0) > sent

        migration_guest.WaitUntil(_Moves, lambda: "nothing is sent")

    def Finish(self, instance, live=True):
        self.target.hv.FinalizeMigration(instance, "", True)
        self.source.hv.FinalizeMigrationSource(instance, True, live)

    def GiveUp(self, instance, live=True):
        """As the master does it after a failure; twice, since it may lose an answer."""
        for _ in range(2):
            self.target.hv.FinalizeMigration(instance, "", False)
            self.source.hv.FinalizeMigrationSource(instance, False, live)

    def AssertRuns(self, line):
        """It goes on at the source."""
        assert self.source.State() == "running"
        line.WaitForCounts(len(line.Counts()) + 5)
        counts = line.Counts()
        assert counts == list(range(counts[0], counts[0] + len(counts)))

    def AssertOnlyHere(self, line):
        """It goes on at the source, and nothing is left on the target."""
        assert (self.source.hv.ListInstances(), self.target.hv.ListInstances()) == ([NAME], [])
        assert self.target.Files() == []
        self.AssertRuns(line)
        assert not any(
            os.path.exists(path) for path in (self.source.paths.outgoing, self.source.paths.tls)
        )

    def Close(self):
        self.source.Close()
        self.target.Close()


@pytest.fixture
def lab(certificate):
    # Short: paths of sockets have a limit.
    with tempfile.TemporaryDirectory(prefix="mig-") as directory:
        lab = Lab(directory, certificate)
        yield lab
        lab.Close()


def _AssertNoGap(before, after):
    """Numbers of the source, then of the target: none is missing and none is there twice."""
    counts = [*before.Counts(), *after.Counts()]
    assert after.Counts()
    assert counts == list(range(counts[0], counts[0] + len(counts)))


class TestSuccess:
    """TG1: a guest goes on counting on another node as if nothing had happened."""

    def test_live_and_back(self, lab):
        instance = lab.Instance()
        before = lab.Start(instance)
        before.WaitForCounts(5)
        endpoint, after = lab.Accept(instance)
        assert endpoint == f"127.0.0.1:{lab.port}"
        # It waits there, but is no instance yet.
        assert (lab.source.hv.ListInstances(), lab.target.hv.ListInstances()) == ([NAME], [])
        assert lab.target.hv.GetInstanceInfo(NAME) is None
        assert lab.target.hv.GetAllInstancesInfo() == []

        source_pid = lab.source.pid
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_COMPLETED, status
        assert 0 < status.transferred_ram < status.total_ram
        assert status.downtime < 1000
        # Both QEMUs are there, the guest in one of them only.
        migration_guest.WaitUntil(
            lambda: lab.target.hv.ListInstances() == [NAME], lab.target.hv.ListInstances
        )
        assert lab.source.hv.ListInstances() == []
        assert kvm_files.FindProcess(lab.source.paths).pid == source_pid

        for _ in range(2):
            lab.Finish(instance)
        after.WaitForCounts(5)
        assert (lab.source.hv.ListInstances(), lab.target.hv.ListInstances()) == ([], [NAME])
        assert not migration_guest.ProcessExists(source_pid)
        assert lab.source.Files() == []
        assert not any(
            os.path.exists(path) for path in (lab.target.paths.incoming, lab.target.paths.tls)
        )
        _AssertNoGap(before, after)
        # Too late to say that it failed.
        with pytest.raises(errors.HypervisorError, match="has arrived and runs here"):
            lab.target.hv.FinalizeMigration(instance, "", False)
        with pytest.raises(errors.HypervisorError, match="has ended here"):
            lab.source.hv.FinalizeMigrationSource(instance, False, True)

        # And back, which needs all that the target has written down.
        lab.source, lab.target = lab.target, lab.source
        lab.source.hv.MigrateInstance(instance, lab.Accept(instance)[0], True)
        assert lab.Wait(instance).status == constants.MIGRATION_COMPLETED
        lab.Finish(instance)
        home = lab.target.lines[-1]
        home.WaitForCounts(3)
        _AssertNoGap(after, home)

    def test_not_live(self, lab):
        """The guest stands still from the start, so that however busy it is it gets there."""
        instance = lab.Instance(migration_bandwidth=40, migration_downtime=1)
        before = lab.Start(instance, dirty=True)
        before.WaitForCounts(5)
        endpoint, after = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, False)
        assert lab.source.State() in ("paused", "finish-migrate", "postmigrate")
        assert lab.Wait(instance).status == constants.MIGRATION_COMPLETED
        lab.Finish(instance, False)
        assert lab.target.State() == "running"
        after.WaitForCounts(5)
        _AssertNoGap(before, after)

    def test_bandwidth_and_downtime_are_those_of_the_parameters(self, lab):
        instance = lab.Instance(migration_bandwidth=3, migration_downtime=77)
        lab.Start(instance)
        lab.source.hv.MigrateInstance(instance, lab.Accept(instance)[0], True)
        with kvm_qmp.QmpClient(lab.source.paths.qmp) as qmp:
            parameters = qmp.Execute("query-migrate-parameters")
        assert parameters["max-bandwidth"] == 3 * 2**20
        assert parameters["downtime-limit"] == 77
        assert parameters["tls-creds"] == "migration-tls"

    def test_port_is_taken(self, lab):
        """Two instances may come at the same time: the next free port is used."""
        instance = lab.Instance()
        lab.Start(instance)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", lab.port))
            sock.listen()
            endpoint, after = lab.Accept(instance)
        assert kvm_stream.ParseEndpoint(endpoint, 0)[1] in range(lab.port + 1, lab.port + 64)
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        assert lab.Wait(instance).status == constants.MIGRATION_COMPLETED
        lab.Finish(instance)
        after.WaitForCounts(3)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
    def test_other_user_in_a_chroot(self, lab):
        os.chmod(lab.directory, 0o755)
        instance = lab.Instance(use_chroot=True, security_model="user", security_domain="nobody")
        migration_guest.MakeDisk(lab.disk)
        os.chmod(lab.disk, 0o666)
        before = lab.Boot(instance)
        before.WaitForCounts(3)
        endpoint, after = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_COMPLETED, status
        lab.Finish(instance)
        after.WaitForCounts(3)
        _AssertNoGap(before, after)
        assert os.listdir(lab.target.paths.chroot) == []
        assert lab.source.Files() == []


class TestFailure:
    """TG1: after any failure the guest goes on at the source, and only there."""

    @pytest.fixture
    def impatient(self, monkeypatch):
        """Whoever is silent is given up soon."""
        monkeypatch.setattr(kvm_migration, "STALL_LIMIT", 2.0)
        monkeypatch.setattr(kvm_migration, "SWITCH_LIMIT", 1.0)
        monkeypatch.setattr(kvm_migration, "SILENCE_LIMIT", 2.0)
        monkeypatch.setattr(
            hv_kvm.KVMHypervisor, "_Qmp", lambda _, paths: kvm_qmp.QmpClient(paths.qmp, 1.0)
        )

    def _UnderWay(self, lab, bandwidth=1):
        """A migration that will not end soon: the guest changes memory too fast."""
        instance = lab.Instance(migration_bandwidth=bandwidth, migration_downtime=1)
        line = lab.Start(instance, dirty=True)
        line.WaitForCounts(3)
        endpoint, _ = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        lab.WaitUntilMoving(instance)
        return instance, line

    def test_cancelled_then_again(self, lab):
        instance, line = self._UnderWay(lab)
        with pytest.raises(errors.HypervisorError, match="another migration is under way"):
            lab.source.hv.MigrateInstance(instance, "127.0.0.1", True)
        for _ in range(2):
            lab.source.hv.AbortMigration(instance)
            status = lab.source.hv.GetMigrationStatus(instance)
            assert status.status == constants.MIGRATION_CANCELLED
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

        instance = lab.Instance(migration_bandwidth=500, migration_downtime=500)
        endpoint, after = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        assert lab.Wait(instance).status == constants.MIGRATION_COMPLETED
        lab.Finish(instance)
        after.WaitForCounts(3)
        _AssertNoGap(line, after)

    def test_given_up_while_it_is_under_way(self, lab):
        """The master died and its successor knows nothing: it needs no cancelling before."""
        instance, line = self._UnderWay(lab)
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    def test_does_not_converge(self, lab, monkeypatch):
        monkeypatch.setattr(kvm_migration, "CONVERGENCE_TIME", 1.0)
        monkeypatch.setattr(kvm_migration, "CONVERGENCE_BYTES", 2**20)
        monkeypatch.setattr(kvm_migration, "CONVERGENCE_FACTOR", 0.25)
        instance, line = self._UnderWay(lab, bandwidth=32)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_FAILED
        assert "does not converge" in status.message
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    @pytest.mark.parametrize("live", [True, False])
    def test_target_is_killed(self, lab, live):
        instance = lab.Instance(migration_bandwidth=1, migration_downtime=1)
        line = lab.Start(instance, dirty=True)
        # What it fills takes half a minute.
        line.WaitForCounts(3)
        endpoint, _ = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, live)
        lab.WaitUntilMoving(instance, 2**14)
        os.kill(lab.target.pid, signal.SIGKILL)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_FAILED
        assert re.search("(?i)pipe|reset|TLS|socket|channel", status.message), status
        lab.GiveUp(instance, live)
        lab.AssertOnlyHere(line)

    def test_target_hangs_at_the_end(self, lab, impatient):
        """All is sent and the guest stands still, but nobody says that it has arrived."""
        instance = lab.Instance(migration_bandwidth=1)
        line = lab.Start(instance)
        line.WaitForCounts(3)
        lab.source.hv.MigrateInstance(instance, lab.Accept(instance)[0], True)
        lab.WaitUntilMoving(instance)
        os.kill(lab.target.pid, signal.SIGSTOP)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_FAILED
        lab.source.hv.AbortMigration(instance)
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    @pytest.mark.parametrize("live", [True, False])
    def test_target_never_answers(self, lab, impatient, live):
        instance = lab.Instance()
        line = lab.Start(instance)
        endpoint, _ = lab.Accept(instance)
        os.kill(lab.target.pid, signal.SIGSTOP)
        lab.source.hv.MigrateInstance(instance, endpoint, live)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_FAILED
        assert "status setup" in status.message
        # If it shall run it runs, even now.
        if live:
            lab.AssertRuns(line)
        lab.source.hv.AbortMigration(instance)
        lab.AssertRuns(line)
        lab.GiveUp(instance, live)
        lab.AssertOnlyHere(line)

    def test_target_hangs(self, lab, impatient):
        instance, line = self._UnderWay(lab, bandwidth=16)
        os.kill(lab.target.pid, signal.SIGSTOP)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_FAILED
        assert "nothing was sent to 127.0.0.1" in status.message
        lab.source.hv.AbortMigration(instance)
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    def test_source_is_killed(self, lab):
        instance, _ = self._UnderWay(lab)
        os.kill(lab.source.pid, signal.SIGKILL)
        migration_guest.WaitUntil(
            lambda: kvm_files.FindProcess(lab.source.paths) is None, lambda: "source lives"
        )
        status = lab.source.hv.GetMigrationStatus(instance)
        assert status.status == constants.MIGRATION_FAILED
        assert "has ended on the source" in status.message
        lab.target.hv.FinalizeMigration(instance, "", False)
        with pytest.raises(errors.HypervisorError, match="has ended here"):
            lab.source.hv.FinalizeMigrationSource(instance, False, True)
        assert lab.source.hv.ListInstances() == lab.target.hv.ListInstances() == []
        assert lab.target.Files() == lab.source.Files() == []
        # It can be started again, wherever that is.
        lab.source, lab.target = lab.target, lab.source
        lab.Start(lab.Instance()).WaitForCounts(2)

    @pytest.mark.parametrize("live", [True, False])
    def test_wrong_port(self, lab, live):
        instance = lab.Instance()
        line = lab.Start(instance)
        lab.Accept(instance)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{sock.getsockname()[1]}"
            with pytest.raises(errors.HypervisorError, match=f"{endpoint}.*refused"):
                lab.source.hv.MigrateInstance(instance, endpoint, live)
        assert lab.source.hv.GetMigrationStatus(instance).status == constants.MIGRATION_FAILED
        lab.AssertRuns(line)
        lab.GiveUp(instance, live)
        lab.AssertOnlyHere(line)

    def test_target_of_another_cluster(self, lab, tmp_path):
        """Who does not have the cluster's key gets no memory."""
        instance = lab.Instance()
        line = lab.Start(instance)
        other = tmp_path / "other.pem"
        x509.WritePemFile(str(other), x509.GenerateSelfSignedX509Cert().pem)
        lab.target = Node(lab.directory, "b", "127.0.0.1", str(other))
        lab.source.hv.MigrateInstance(instance, lab.Accept(instance)[0], True)
        status = lab.Wait(instance)
        assert (status.status, "TLS" in status.message) == (constants.MIGRATION_FAILED, True)
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    def test_address_of_another_node(self, lab):
        instance = lab.Instance()
        line = lab.Start(instance)
        info = lab.source.hv.MigrationInfo(instance)
        with pytest.raises(errors.HypervisorError, match=r"192\.0\.2\.1|assign"):
            lab.target.hv.AcceptInstance(instance, info, "192.0.2.1")
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)


class TestDaemonDies:
    """TG1: whatever the daemon was doing when it died, what is left can be ended or used."""

    def test_left_waiting(self, lab):
        """A start on the node where it still waits for the guest ends what waits."""
        instance = lab.Instance()
        lab.Start(instance)
        lab.Accept(instance)
        waiting = lab.target.pid
        lab.source.hv.StopInstance(instance, force=True)
        lab.target.hv.StartInstance(instance, [(instance.disks[0], lab.disk)])
        assert lab.target.pid != waiting
        assert lab.target.hv.ListInstances() == [NAME]
        assert not os.path.exists(lab.target.paths.incoming)

    def test_half_accepted(self, lab):
        instance = lab.Instance()
        line = lab.Start(instance)
        lab.Accept(instance)
        dead = subprocess.Popen(["true"])
        dead.wait()
        Path(lab.target.paths.starting).write_text(f"{dead.pid}\n")
        assert lab.target.hv.ListInstances() == []
        # Another attempt takes its place.
        lab.Accept(instance)
        lab.GiveUp(instance)
        lab.AssertOnlyHere(line)

    def test_nobody_has_finished_it(self, lab):
        """The guest has moved and nobody said so: it is seen where it is, and can be stopped."""
        instance = lab.Instance()
        lab.Start(instance)
        lab.source.hv.MigrateInstance(instance, lab.Accept(instance)[0], True)
        assert lab.Wait(instance).status == constants.MIGRATION_COMPLETED
        with pytest.raises(errors.HypervisorError, match="has arrived"):
            lab.target.hv.FinalizeMigration(instance, "", False)
        assert (lab.source.hv.ListInstances(), lab.target.hv.ListInstances()) == ([], [NAME])
        with pytest.raises(errors.HypervisorError, match="already running"):
            lab.target.hv.StartInstance(instance, [(instance.disks[0], lab.disk)])
        with pytest.raises(errors.HypervisorError, match="not running"):
            lab.source.hv.MigrationInfo(instance)


@pytest.fixture(scope="module")
def assets():
    try:
        return guest.Prepare(install=os.environ.get("GANETI_TEST_INSTALL") == "1")
    except errors.OpPrereqError as err:
        pytest.skip(str(err))


class TestLinux:
    """TG1: a guest that writes all the time loses nothing that it was told is written."""

    def test_no_lost_write(self, lab, assets):
        instance = lab.Instance(
            kernel_path=assets.kernel, initrd_path=assets.initrd, kernel_args="quiet panic=1"
        )
        with open(lab.disk, "wb") as fobj:
            fobj.truncate(16 * 2**20)
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "INSTANCE_NAME": NAME,
            "OS_VARIANT": "load",
            "DISK_COUNT": "1",
            "DISK_0_PATH": lab.disk,
        }
        subprocess.run([OS_DIR / "create"], cwd=OS_DIR, env=env, check=True, capture_output=True)
        before = lab.Boot(instance)
        assert "variant=load" in before.WaitFor("MARK up")
        before.Send("\necho A-$(cat /tmp/seq)-$((40+2))\n")
        first = int(before.WaitForMatch(r"A-(\d+)-42").group(1))

        endpoint, after = lab.Accept(instance)
        lab.source.hv.MigrateInstance(instance, endpoint, True)
        status = lab.Wait(instance)
        assert status.status == constants.MIGRATION_COMPLETED, status
        lab.Finish(instance)
        time.sleep(0.5)
        after.Send("\nsync; echo B-$(cat /tmp/seq)-$((40+2))\n")
        last = int(after.WaitForMatch(r"B-(\d+)-42").group(1))
        assert last > first
        lab.target.hv.StopInstance(None, force=True, name=NAME)
        content = Path(lab.disk).read_bytes()
        for number in range(max(1, last - 900), last + 1):
            at = (100 + number % 1000) * 512
            assert content[at : at + 512].startswith(f"seq {number} up".encode()), number
