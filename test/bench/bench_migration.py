"""Live migration between two KVM hypervisors of this machine, and the same driven by hand.

A quiet guest with the limits that instances have if nobody chooses, and one that changes 32 MiB of
its memory all the time, without limits. Both ways in turn, with the same command lines and limits;
by hand there is no encryption, and nothing is written down.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from component import migration_guest
from ganeti import constants, objects
from ganeti.hypervisor import hv_kvm, kvm_files, kvm_qmp
from ganeti.utils import x509

NAME = "bench.example.com"
PORT = 18102
#: As a master daemon would ask.
_POLL = 0.05
#: MiB a second and milliseconds, for a busy guest.
_BUSY_LIMITS = (1024, 300)
_DEFAULTS = constants.HVC_DEFAULTS[constants.HT_KVM]
_QUIET_LIMITS = (
    _DEFAULTS[constants.HV_MIGRATION_BANDWIDTH],
    _DEFAULTS[constants.HV_MIGRATION_DOWNTIME],
)


def _Instance(disk: str, limits: tuple[int, int]) -> objects.Instance:
    return objects.Instance(
        name=NAME,
        uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
        primary_node="node1.example.com",
        hypervisor=constants.HT_KVM,
        disk_template=constants.DT_SHARED_FILE,
        network_port=None,
        hvparams={
            **_DEFAULTS,
            "kernel_path": "",
            # On every machine the same, and the guest relies on it.
            "kvm_flag": constants.HT_KVM_DISABLED,
            "disk_cache": "writeback",
            "migration_port": PORT,
            "migration_bandwidth": limits[0],
            "migration_downtime": limits[1],
        },
        beparams={"memory": 96, "vcpus": 1, "auto_balance": True},
        nics=[],
        disks=[objects.Disk(dev_type=constants.LD_FILE, mode="rw", physical_id=("loop", disk))],
        tags=set(),
    )


class _Lab:
    """Two nodes; on the first the guest runs."""

    def __init__(self, directory: str, busy: bool) -> None:
        self.disk = migration_guest.MakeDisk(f"{directory}/disk", dirty=busy, idle=False)
        self.limits = _BUSY_LIMITS if busy else _QUIET_LIMITS
        certificate = f"{directory}/server.pem"
        x509.WritePemFile(certificate, x509.GenerateSelfSignedX509Cert().pem)
        self.roots = [f"{directory}/a", f"{directory}/b"]
        self.nodes = [
            hv_kvm.KVMHypervisor(root_dir=root, log_dir=f"{root}/log", cert_file=certificate)
            for root in self.roots
        ]
        self.paths = [kvm_files.Paths(NAME, root, f"{root}/log") for root in self.roots]
        self.instance = _Instance(self.disk, self.limits)
        self.lines: list[migration_guest.Line] = []

    def Boot(self) -> None:
        self.nodes[0].StartInstance(self.instance, [(self.instance.disks[0], self.disk)])
        self.Listen(0)
        self.lines[0].WaitForCounts(5)

    def Listen(self, node: int) -> None:
        self.lines.append(migration_guest.Line(self.paths[node].serial))

    def Standstill(self) -> float:
        """Milliseconds from the last that the guest said here to the first that it said there."""
        self.lines[1].WaitForCounts(2)
        return (self.lines[1].times[0] - self.lines[0].times[-1]) * 1e3

    def Qmp(self, node: int) -> kvm_qmp.QmpClient:
        return kvm_qmp.QmpClient(self.paths[node].qmp)

    def Close(self) -> None:
        for line in self.lines:
            line.Close()
        for node, paths in zip(self.nodes, self.paths, strict=True):
            found = kvm_files.FindProcess(paths)
            if found is not None:
                os.kill(found.pid, signal.SIGKILL)
                while kvm_files.FindProcess(paths) is not None:
                    time.sleep(0.01)
            node.CleanupInstance(NAME)


@contextlib.contextmanager
def _NewLab(busy: bool) -> Iterator[_Lab]:
    # Short: paths of sockets have a limit.
    directory = tempfile.mkdtemp(prefix="mb-", dir="/var/tmp")
    lab = _Lab(directory, busy)
    try:
        lab.Boot()
        yield lab
    finally:
        lab.Close()
        shutil.rmtree(directory)


def _Ours(busy: bool) -> tuple[float, float]:
    with _NewLab(busy) as lab:
        source, target = lab.nodes
        began = time.monotonic()
        info = source.MigrationInfo(lab.instance)
        endpoint = target.AcceptInstance(lab.instance, info, "127.0.0.1")
        lab.Listen(1)
        source.MigrateInstance(lab.instance, str(endpoint), True)
        while True:
            status = source.GetMigrationStatus(lab.instance)
            if status.status != constants.MIGRATION_ACTIVE:
                break
            time.sleep(_POLL)
        if status.status != constants.MIGRATION_COMPLETED:
            raise RuntimeError(f"migration {status.status}: {status.message}")
        target.FinalizeMigration(lab.instance, info, True)
        source.FinalizeMigrationSource(lab.instance, True, True)
        total = time.monotonic() - began
        return lab.Standstill(), total


def _ByHand(busy: bool) -> tuple[float, float]:
    with _NewLab(busy) as lab:
        pid = int(Path(lab.paths[0].pid).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        began = time.monotonic()
        argv = [word.replace(lab.roots[0], lab.roots[1]) for word in words if word != "-S"]
        subprocess.run([*argv, "-incoming", f"tcp:127.0.0.1:{PORT}"], check=True)
        lab.Listen(1)
        with lab.Qmp(0) as qmp:
            bandwidth, downtime = lab.limits
            limits = {"max-bandwidth": bandwidth * 2**20, "downtime-limit": downtime}
            qmp.Execute("migrate-set-parameters", limits)
            qmp.Execute("migrate", {"uri": f"tcp:127.0.0.1:{PORT}"})
            while True:
                answer = qmp.Execute("query-migrate")
                if answer["status"] in ("completed", "failed"):
                    break
                time.sleep(_POLL)
            if answer["status"] != "completed":
                raise RuntimeError(f"migration by hand: {answer}")
            with lab.Qmp(1) as other:
                while other.Execute("query-status")["status"] != "running":
                    time.sleep(0.01)
            qmp.Execute("quit")
        while kvm_files.FindProcess(lab.paths[0]) is not None:
            time.sleep(0.005)
        total = time.monotonic() - began
        return lab.Standstill(), total


def Migrate(rounds: int, busy: bool) -> dict[str, float]:
    """Medians: milliseconds that the guest stood still, seconds in all; for L{Place.Child}."""
    ours, hand = [], []
    for _ in range(rounds):
        ours.append(_Ours(busy))
        hand.append(_ByHand(busy))
    return {
        "standstill": median(item[0] for item in ours),
        "total": median(item[1] for item in ours),
        "standstill by hand": median(item[0] for item in hand),
        "total by hand": median(item[1] for item in hand),
    }
