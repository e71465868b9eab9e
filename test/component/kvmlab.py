"""Real guests under the KVM hypervisor class, for tests without daemons."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ganeti import constants, errors, objects
from ganeti.hypervisor import hv_kvm, kvm_files
from ganeti.vcluster import guest

OS_DIR = Path(__file__).resolve().parents[1] / "os" / "busybox-guest"

#: Real time that a step of a guest may take under TCG on a busy machine (seconds).
PATIENCE = 90


@pytest.fixture(scope="session", name="assets")
def GuestAssets():
    try:
        return guest.Prepare(install=os.environ.get("GANETI_TEST_INSTALL") == "1")
    except errors.OpPrereqError as err:
        pytest.skip(str(err))


class Serial:
    """The guest's serial console, read from the moment of connecting."""

    def __init__(self, path):
        self.text = ""
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(path)
        self._sock.settimeout(PATIENCE)

    def WaitFor(self, marker):
        deadline = time.monotonic() + PATIENCE
        while marker not in self.text:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {marker!r} on the console: {self.text!r}")
            data = self._sock.recv(4096)
            if not data:
                raise AssertionError(f"console ended without {marker!r}: {self.text!r}")
            self.text += data.decode("utf-8", "replace")
        # To the end of the line.
        while not self.text.partition(marker)[2].count("\n"):
            self.text += self._sock.recv(4096).decode("utf-8", "replace")
        return marker + self.text.partition(marker)[2].splitlines()[0]

    def Send(self, text):
        self._sock.sendall(text.encode())

    def Close(self):
        self._sock.close()


class Lab:
    """Instances of one node, all ended at the end."""

    def __init__(self, assets, directory):
        self.assets = assets
        self.directory = directory
        self.hv = hv_kvm.KVMHypervisor()
        self._names = set()
        self._serials = []

    def Instance(self, name, disks=1, nics=0, **hvparams):
        self._names.add(name)
        return objects.Instance(
            name=name,
            uuid="7d3a1a5c-51e1-4f0c-b1a7-2c1f7a9f3e11",
            primary_node="node1.example.com",
            hypervisor=constants.HT_KVM,
            network_port=11001,
            hvparams={
                **constants.HVC_DEFAULTS[constants.HT_KVM],
                "kernel_path": self.assets.kernel,
                "initrd_path": self.assets.initrd,
                "kernel_args": "quiet panic=1",
                # That /dev/kvm can be opened is no promise that guests run on it.
                "kvm_flag": "disabled",
                **hvparams,
            },
            beparams={"memory": 96, "vcpus": 1, "auto_balance": True},
            nics=[
                objects.NIC(
                    mac=f"aa:00:00:00:01:{index:02x}",
                    ip=None,
                    nicparams={"mode": "bridged", "link": "no-such-bridge"},
                )
                for index in range(nics)
            ],
            disks=[
                objects.Disk(
                    dev_type=constants.LD_FILE,
                    size=32,
                    mode="rw",
                    iv_name=f"disk/{index}",
                    logical_id=("loop", self.DiskPath(name, index)),
                    physical_id=("loop", self.DiskPath(name, index)),
                    children=[],
                )
                for index in range(disks)
            ],
            tags={"web", "blue"},
        )

    def DiskPath(self, name, index=0):
        path = self.directory / f"{name}.disk{index}"
        if not path.exists():
            with open(path, "wb") as fobj:
                fobj.truncate(32 * 2**20)
        return str(path)

    def Script(self, script, name, variant="default", **env):
        """Run a script of the guest's OS definition."""
        return subprocess.run(
            [OS_DIR / script],
            cwd=OS_DIR,
            check=False,
            capture_output=True,
            stdin=env.pop("stdin", subprocess.DEVNULL),
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "INSTANCE_NAME": name,
                "OS_VARIANT": variant,
                "DISK_COUNT": "1",
                "DISK_0_PATH": self.DiskPath(name),
                **env,
            },
        )

    def Install(self, name, variant="default"):
        result = self.Script("create", name, variant)
        assert result.returncode == 0, result.stderr

    def Start(self, instance):
        devices = [(disk, disk.physical_id[1]) for disk in instance.disks]
        self.hv.StartInstance(instance, devices)
        return self.Console(instance.name)

    def Console(self, name):
        serial = Serial(kvm_files.Paths(name).serial)
        self._serials.append(serial)
        return serial

    def WaitUntilGone(self, name):
        deadline = time.monotonic() + PATIENCE
        while name in self.hv.ListInstances():
            assert time.monotonic() < deadline, f"{name} still runs"
            time.sleep(0.05)

    def Close(self):
        for serial in self._serials:
            serial.Close()
        for name in self._names:
            self.hv.StopInstance(None, force=True, name=name)
            self.hv.CleanupInstance(name)


@pytest.fixture(name="lab")
def NewLab(assets, tmp_path):
    lab = Lab(assets, tmp_path)
    yield lab
    lab.Close()


def FilesAbout(name):
    return [
        str(path)
        for path in Path(kvm_files.ROOT_DIR).rglob(f"{name}*")
        if "quarantine" not in str(path)
    ]
