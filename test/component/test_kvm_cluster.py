"""Real guests on a virtual cluster (BASE2): they boot, have a console, and outlive their daemon."""

import os
import pty
import re
import select
import time

import psutil
import pytest

from vc import WaitFor

ONE = "guest1.example.com"

#: Seconds that a step of a guest may take without hardware help on a busy machine.
PATIENCE = 60


@pytest.fixture(scope="module")
def cluster(NewCluster):
    install = os.environ.get("GANETI_TEST_INSTALL") == "1"
    args = ["--hypervisor=kvm", "--nodes=2"] + (["--install"] if install else [])
    cluster = NewCluster(*args, timeout=600)
    cluster.Ok(
        "gnt-instance",
        "add",
        "--no-name-check",
        "--no-ip-check",
        "--no-nics",
        "--node=node2",
        "--disk-template=file",
        "--disk=0:size=16m",
        "--os-type=busybox-guest+default",
        "--backend-parameters=memory=128",
        ONE,
        timeout=120,
    )
    return cluster


class Console:
    """C{gnt-instance console} on a terminal."""

    def __init__(self, cluster):
        self.text = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execvpe("gnt-instance", ["gnt-instance", "console", ONE], cluster.env)

    def Send(self, text):
        os.write(self._fd, text.encode())

    def Expect(self, pattern, timeout=PATIENCE):
        """Read until the pattern was seen."""
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not seen in {self.text[-2000:]!r}"
            if select.select([self._fd], [], [], left)[0]:
                try:
                    data = os.read(self._fd, 4096)
                except OSError:
                    data = b""
                assert data, f"the console ended: {self.text[-2000:]!r}"
                self.text += data.decode("utf-8", "replace")
        return re.search(pattern, self.text)

    def Close(self):
        """Leave it with its escape character; its exit status."""
        self.Send("\x1d")
        deadline = time.monotonic() + 10
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, "the console does not end"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    os.read(self._fd, 4096)
                except OSError:
                    continue


def Status(cluster):
    return dict(cluster.Table("gnt-instance", "list", "-o", "name,status"))[ONE]


def QemuPid(cluster):
    path = cluster.Root("node2") / "var/run/ganeti/kvm-hypervisor/pid" / ONE
    return int(path.read_text().split()[0])


def IsGone(pid):
    """Has a process ended? Whether somebody asked for its exit status does not matter."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def Shell(cluster, command, pattern):
    """Run a command in the guest until its answer is seen."""
    console = Console(cluster)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            console.Send(f"\n{command}\n")
            try:
                return console.Expect(pattern, 3)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
    finally:
        console.Close()


class TestGuest:
    def test_it_boots_and_its_console_answers(self, cluster):
        assert Status(cluster) == "running"
        found = Shell(
            cluster, "echo $(hostname) is $((20 + 1)); uname -sr", r"(\S+) is 21\s+(\w+) \d"
        )
        assert found.group(1) == ONE
        assert found.group(2) == "Linux"

    def test_info(self, cluster):
        out = cluster.Ok("gnt-instance", "info", ONE)
        assert "State: configured to be up, actual state is up" in out
        assert "Hypervisor: kvm" in out
        assert "kernel_path: default (" in out
        assert "memory: 128MiB" in out
        assert "disk/0: file, size 16M" in out
        row = cluster.Rapi("GET", f"/2/instances/{ONE}")[1]
        assert (row["status"], row["oper_ram"], row["pnode"]) == (
            "running",
            128,
            "node2.example.com",
        )
        assert row["hvparams"]["serial_console"] is True
        assert cluster.Run("gnt-cluster", "verify").code == 0

    def test_start_of_what_runs_changes_nothing(self, cluster):
        pid = QemuPid(cluster)
        cluster.Ok("gnt-instance", "startup", ONE)
        assert QemuPid(cluster) == pid

    def test_it_outlives_the_node_daemon(self, cluster):
        pid = QemuPid(cluster)
        cluster.Vcluster("kill", "node2")
        assert Status(cluster) == "ERROR_nodedown"
        os.kill(pid, 0)
        cluster.Vcluster("start", "node2")
        WaitFor(lambda: Status(cluster) == "running", 15)
        assert QemuPid(cluster) == pid
        rows = cluster.Table("gnt-instance", "list", "-o", "name,oper_ram,oper_state")
        assert rows == [[ONE, "128", "running"]]

    def test_hard_reboot_starts_it_anew(self, cluster):
        before = QemuPid(cluster)
        cluster.Ok("gnt-instance", "reboot", "--type=hard", ONE, timeout=180)
        assert QemuPid(cluster) != before
        assert Status(cluster) == "running"

    def test_shutdown_by_the_power_button(self, cluster):
        # Up to its shell: from there on it hears the button.
        Shell(cluster, "echo ready $((40 + 2))", "ready 42")
        pid = QemuPid(cluster)
        start = time.monotonic()
        cluster.Ok("gnt-instance", "shutdown", ONE, timeout=180)
        assert time.monotonic() - start < 60
        assert Status(cluster) == "ADMIN_down"
        WaitFor(lambda: IsGone(pid), 10, "the end of QEMU")

    def test_remove(self, cluster):
        cluster.Ok("gnt-instance", "startup", ONE, timeout=60)
        pid = QemuPid(cluster)
        cluster.Ok("gnt-instance", "remove", "-f", "--shutdown-timeout=5", ONE, timeout=120)
        WaitFor(lambda: IsGone(pid), 10, "the end of QEMU")
        assert list((cluster.Root("node2") / "srv/ganeti/file-storage").iterdir()) == []

    def test_a_missing_kernel_is_refused(self, cluster):
        result = cluster.Run(
            "gnt-instance",
            "add",
            "--no-name-check",
            "--no-ip-check",
            "--no-nics",
            "--node=node2",
            "--disk-template=file",
            "--disk=0:size=16m",
            "--os-type=busybox-guest+default",
            "--hypervisor-parameters=kvm:kernel_path=/no/such/kernel",
            ONE,
        )
        assert result.code == 1
        assert "kernel_path" in result.err
        assert "/no/such/kernel" in result.err
        assert cluster.Table("gnt-instance", "list") == []
