"""Where things are measured: a directory on a disk, and virtual clusters of real daemons in it.

Nothing outlives it: the daemons, children and files are gone at its end, however that came.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from ganeti import luxi, objects, pathutils, serializer
from ganeti.config import fake as config_fake
from ganeti.vcluster import layout as vlayout
from ganeti.vcluster import manager

from .table import Setting

MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.py")

#: File systems that keep nothing, where a sync costs nothing.
_NO_DISK = ("tmpfs", "ramfs", "overlay")

Progress = Callable[[str], object]


def NewInstance(number: int, node: str) -> dict[str, Any]:
    """An instance as it stands in the configuration; it has a NIC and no disks."""
    mac = f"aa:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return config_fake.NewInstance(
        InstanceName(number),
        node,
        uuid=f"uuid-{number}",
        serial_no=1,
        nics=[objects.NIC(mac=mac, nicparams={}, uuid=f"nic-{number}")],
    ).ToDict()


def InstanceName(number: int) -> str:
    """Name of an instance of L{Fill}, from 0."""
    return f"inst{number}.example.com"


def Dump(document: Mapping[str, Any]) -> bytes:
    """As the configuration is written."""
    return serializer.Dump(document, indent=True).encode("utf-8")


def Fill(document: dict[str, Any], setting: Setting) -> bytes:
    """The content of a configuration with the instances that a setting asks for."""
    nodes = sorted(document["nodes"])
    document["instances"] = {}
    count = setting.instances
    if setting.megabytes:
        base = len(Dump(document))
        document["instances"] = {InstanceName(i): NewInstance(i, nodes[0]) for i in range(100)}
        each = (len(Dump(document)) - base) / 100
        count = int((setting.megabytes * 1e6 - base) / each)
    document["instances"] = {
        InstanceName(i): NewInstance(i, nodes[i % len(nodes)]) for i in range(count)
    }
    return Dump(document)


def CheckConfig(path: str) -> list[str]:
    """What is wrong with a configuration; for L{Place.Child}."""
    from ganeti import config

    return config.ConfigWriter(path, offline=True).VerifyConfig()


class Cluster:
    """A virtual cluster whose daemons run."""

    def __init__(self, place: Place, setting: Setting) -> None:
        self._place = place
        self.setting = Setting(setting.nodes)
        self.directory = os.path.join(place.directory, "c")
        network = vlayout.ChooseNetwork(self.directory, manager.IsAddressFree)
        self.virtual = manager.VirtualCluster(
            vlayout.Layout(self.directory, network, setting.nodes, "fake")
        )
        self.config_size = 0
        self._environments: dict[str, dict[str, str]] = {}

    def Up(self) -> None:
        """Make it."""
        os.makedirs(self.directory, exist_ok=True)
        self.virtual.Up()

    def Arrange(self, setting: Setting) -> None:
        """Restart it with other instances: a warm start, of daemons that have not done anything."""
        first = self.virtual.layout.nodes[0]
        for node in self.virtual.layout.nodes:
            self.virtual.RunOrFail([pathutils.DAEMON_UTIL, "stop-all"], node)
        path = self.virtual.layout.Root(first) + pathutils.CLUSTER_CONF_FILE
        with open(path, "rb") as fobj:
            document = json.load(fobj)
        if setting != self.setting:
            content = Fill(document, setting)
            with open(path, "wb") as fobj:
                fobj.write(content)
        problems = self._place.Child("place", "CheckConfig", path)
        if problems:
            raise RuntimeError(f"{path} is not valid: {problems[0]}")
        self.config_size = os.path.getsize(path)
        for node in reversed(self.virtual.layout.nodes):
            self.virtual.Start(node)
        self.setting = setting

    @property
    def socket(self) -> str:
        """Where the master daemon is asked."""
        return self.virtual.layout.Root(self.virtual.layout.nodes[0]) + pathutils.MASTER_SOCKET

    def Client(self) -> luxi.Client:
        """A connection to the master daemon."""
        return luxi.Client(self.socket)

    @property
    def environment(self) -> dict[str, str]:
        """Of a command on the master."""
        return {**os.environ, **self.virtual.Environment()}

    def Daemons(self) -> dict[str, psutil.Process]:
        """All daemons of all nodes: node/name -> process."""
        return {
            f"{node.name.split('.')[0]}/{name}": psutil.Process(pid)
            for node in self.virtual.layout.nodes
            for name, pid in self.virtual.DaemonPids(node).items()
        }

    def Master(self) -> psutil.Process:
        """The master daemon."""
        return self.Daemons()["node1/ganeti-masterd"]

    def Cpu(self) -> float:
        """Processor seconds that all daemons have used so far, user and system."""
        return sum(sum(proc.cpu_times()[:4]) for proc in self.Daemons().values())


class Place:
    """A directory and what lives in it.

    @ivar quick: a few rounds will do
    """

    def __init__(self, parent: str, quick: bool = False) -> None:
        self.quick = quick
        self.progress: Progress = lambda _: None
        self._cluster: Cluster | None = None
        self.directory = tempfile.mkdtemp(prefix="bench-", dir=parent)
        self.scratch = os.path.join(self.directory, "scratch")
        os.mkdir(self.scratch)

    def Rounds(self, full: int, quick: int) -> int:
        """How often to do something."""
        return quick if self.quick else full

    def Cluster(self, setting: Setting) -> Cluster:
        """A cluster as that setting wants it; the one before is gone."""
        if self._cluster is not None and self._cluster.setting.nodes != setting.nodes:
            self.Leave()
        try:
            if self._cluster is None:
                self.progress(f"making a cluster of {setting.nodes}")
                self._cluster = Cluster(self, setting)
                self._cluster.Up()
                self._cluster.Arrange(setting)
            elif self._cluster.setting != setting:
                size = f"{setting.megabytes:g} MB of" if setting.megabytes else setting.instances
                self.progress(f"restarting it with {size} instances")
                self._cluster.Arrange(setting)
        except Exception:
            self.Leave()
            raise
        return self._cluster

    def Leave(self) -> None:
        """Remove the cluster, if there is one."""
        if self._cluster is not None:
            cluster, self._cluster = self._cluster, None
            cluster.virtual.Down()

    def Fresh(self) -> str:
        """A new directory that L{Sweep} removes."""
        return tempfile.mkdtemp(dir=self.scratch)

    def Sweep(self) -> None:
        """Remove what measurements left; what is written back meanwhile disturbs the next one."""
        shutil.rmtree(self.scratch)
        os.mkdir(self.scratch)

    def Child(self, module: str, function: str, *args: Any) -> Any:
        """Call a function of this package in a process of its own, on a virtual node of its own.

        Arguments and result go through JSON.
        """
        root = os.path.join(self.Fresh(), "node1.example.com")
        os.makedirs(root + pathutils.DATA_DIR)
        env = {**os.environ, "GANETI_ROOTDIR": root, "GANETI_HOSTNAME": "node1.example.com"}
        argv = [sys.executable, MAIN, "--child", module, function, json.dumps(args)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise RuntimeError(f"{module}.{function}: {lines[-1]}")
        return json.loads(done.stdout.splitlines()[-1])

    def Close(self) -> None:
        """End and remove everything."""
        try:
            self.Leave()
        finally:
            for child in psutil.Process().children(recursive=True):
                try:
                    child.kill()
                except psutil.NoSuchProcess:
                    continue
            shutil.rmtree(self.directory, ignore_errors=True)


def IsDisk(file_system: str) -> bool:
    """Does a file system of that description keep what is synced?"""
    return file_system.split()[0] not in _NO_DISK


def Settle(cluster: Cluster, limit: float = 3.0) -> None:
    """Wait until the daemons have next to nothing to do."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = cluster.Cpu()
        time.sleep(0.3)
        if cluster.Cpu() - before <= 0.01:
            return
