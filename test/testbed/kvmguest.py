"""A real guest on a testbed: what it says of itself, and what of it is where."""

import os
import re
import signal
import socket
import subprocess
import threading
import time

import migration_guest
from kvmbed import PATIENCE, Status

from bed import layout
from vc import WaitFor

DOMAIN = layout.DOMAIN
#: Of the guest's disk, see test/os/busybox-guest/README.
_SECTOR = 512
_BOOTS_AT = 8
_WRITES_AT = 100
_WRITES = 1000


class Guest:
    """An instance of the cluster with a shared disk, answering on the network."""

    def __init__(self, bed, number, variant="load"):
        self.bed = bed
        self.short_name = f"instance{number}"
        self.name = f"{self.short_name}.{DOMAIN}"
        self.address = f"{layout.PRIMARY}.{layout.FIRST_INSTANCE + number}"
        self.variant = variant

    def Add(self, *options, node="node2", hvparams=""):
        """Create it, let it start."""
        arguments = f"kernel_args=quiet panic=1 addr={self.address}/24"
        return self.bed.Ok(
            *("gnt-instance", "add", "--no-ip-check", f"--node={node}"),
            *("--disk-template=sharedfile", "--disk=0:size=16m", "--net=0:mode=bridged,link=br0"),
            *(f"--os-type=busybox-guest+{self.variant}", "--backend-parameters=memory=128"),
            *(f"--hypervisor-parameters=kvm:{arguments}{hvparams}", *options, self.short_name),
        )

    def AddCounting(self, node="node2", dirty=False):
        """Create one that is only a boot sector, with 16 MiB that say nothing; let it start.

        @param dirty: it changes its memory (then 64 MiB) faster than that can be sent
        """
        self.bed.Ok(
            *(
                "gnt-instance",
                "add",
                "--no-ip-check",
                "--no-name-check",
                f"--node={node}",
                "--no-install",
            ),
            *("--no-start", "--disk-template=sharedfile", "--disk=0:size=2m"),
            *("--os-type=busybox-guest+default", "--net=0:mode=bridged,link=br0"),
            f"--backend-parameters=memory={64 if dirty else 16}",
            *("--hypervisor-parameters=kvm:kernel_path=,initrd_path=", self.name),
        )
        with open(self._Disk(), "r+b") as fobj:
            fobj.write(migration_guest.BootSector(dirty))
        self.Do("startup")

    def Remove(self):
        self.Do("remove", "-f", "--shutdown-timeout=0")

    def Do(self, command, *options, **kwargs):
        """A command on the instance that must succeed; what it says."""
        return self.bed.Ok("gnt-instance", command, *options, self.short_name, **kwargs)

    # What the guest says

    def Ask(self, node="node1"):
        """(uptime in seconds, number of the last write); None: no answer."""
        got = self.bed.Run(
            "socat", "-T2", "-u", f"TCP:{self.address}:7,connect-timeout=1", "-", node=node
        )
        words = got.out.split()
        return (float(words[0]), int(words[1])) if len(words) == 2 else None

    def Wait(self, node="node1"):
        """Its first answer."""
        return WaitFor(lambda: self.Ask(node), PATIENCE, f"{self.name} on the network")

    def AskWithin(self, seconds, node="node1"):
        """The same, from one that may need some time; None: no answer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self.Ask(node)
            if answer is not None:
                return answer
        return None

    # What is on its disk

    def _Disk(self):
        (path,) = (self.bed.Root("node1") / f"srv/shared/{self.name}").glob("*")
        return path

    def _Read(self, sector, count=1):
        with open(self._Disk(), "rb") as fobj:
            fobj.seek(sector * _SECTOR)
            return fobj.read(count * _SECTOR)

    def Boots(self):
        return int(self._Read(_BOOTS_AT).rstrip(b"\0") or 0)

    def Writes(self):
        """What the load variant has written: {number: uptime}."""
        data = self._Read(_WRITES_AT, _WRITES)
        found = re.findall(rb"seq (\d+) up (\S+)", data)
        return {int(number): float(uptime) for number, uptime in found}

    # What is where

    def Status(self):
        return Status(self.bed, self.short_name)

    def Primary(self):
        """Short name of the node that the configuration says."""
        rows = dict(self.bed.Listing("gnt-instance", "name,pnode"))
        return rows[self.name].partition(".")[0]

    def Pids(self, node):
        """Its QEMUs on a node."""
        lines = self.bed.Ok("ps -e -o pid=,args= || :", node=node).splitlines()
        return [int(line.split()[0]) for line in lines if f" -name {self.name}," in line]

    def State(self, node):
        """What QEMU on a node says that the guest does; None: there is none."""
        return State(self.bed.Root(node) / MonitorPath(self.name))

    def Count(self, node):
        """How far one of L{AddCounting} has counted since its start, eighteen a second."""
        path = self.bed.Root(node) / MonitorPath(self.name)

        def _Read():
            return int(re.search(r"\b[ER]BX=(\w+)", Monitor(path, "info registers"))[1], 16)

        seen = [_Read()]

        def _Grown():
            # Before it counts there is something else; while it says the number it turns it round.
            seen.append(_Read())
            return seen[-1] if 0 < seen[-1] - seen[-2] < 50 else None

        return WaitFor(_Grown, PATIENCE, f"the count of {self.name}")

    def States(self):
        """{node: state} of all QEMUs that there are on nodes with power."""
        found = {}
        for node in self.bed.Powered():
            pids = self.Pids(node)
            assert len(pids) <= 1, f"{self.name} runs {len(pids)} times on {node}"
            if pids:
                found[node] = self.State(node)
        return found

    def Leftovers(self, node):
        """Whatever is left of it on a node."""
        return self.bed.Ok(
            f"find /run/ganeti/kvm-hypervisor /run/ganeti/instance-disks -name '{self.name}*'"
            " 2>/dev/null || :",
            node=node,
        ).split()


def MonitorPath(name):
    return f"run/ganeti/kvm-hypervisor/ctrl/{name}.monitor"


def Monitor(path, command, timeout=10):
    """What the monitor for people answers; None: nobody is there."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        text = ""
        try:
            sock.connect(str(path))
            sock.sendall(command.encode() + b"\n")
            while text.count("(qemu)") < 2:
                data = sock.recv(65536)
                if not data:
                    return None
                text += data.decode(errors="replace")
        except OSError:
            return None
    return text


def State(path):
    """What QEMU says that the guest does; None: it does not say."""
    match = re.search(r"VM status: (\w+)(?: \((\S+)\))?", Monitor(path, "info status") or "")
    return match and (match[2] or match[1])


def Taps(bed, node):
    return set(re.findall(r"^\d+: (tap\w+):", bed.Ok("ip -o link", node=node), re.MULTILINE))


class Pings:
    """Packets to a guest, every 20 ms, and when its answers came."""

    INTERVAL = 0.02

    def __init__(self, guest, node=None):
        """@param node: where from; None: a machine that is no node"""
        argv = ["ping", "-D", "-n", "-i", str(self.INTERVAL), guest.address]
        bed = guest.bed
        self._proc = subprocess.Popen(
            bed.OutsideCommand(*argv) if node is None else bed.Command(*argv, node=node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._times = []
        self._thread = threading.Thread(target=self._Read, daemon=True)
        self._thread.start()
        self.WaitForAnswer(PATIENCE)

    def _Read(self):
        for line in self._proc.stdout:
            match = re.match(r"\[([\d.]+)\] \d+ bytes", line)
            if match:
                self._times.append(float(match[1]))

    def WaitForAnswer(self, timeout):
        known = len(self._times)
        WaitFor(lambda: len(self._times) > known, timeout, "the answer to a ping")

    def Stop(self):
        """Seconds between one answer and the next one, the longest of all."""
        os.killpg(self._proc.pid, signal.SIGINT)
        self._thread.join(PATIENCE)
        self._proc.wait(PATIENCE)
        self._proc.stdout.close()
        times = self._times
        return max(after - before for before, after in zip(times, times[1:], strict=False))


class Watch:
    """Looks all the time whether a guest runs on two nodes at once."""

    def __init__(self, guest, source, target):
        self._paths = [guest.bed.Root(node) / MonitorPath(guest.name) for node in (target, source)]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._Run, daemon=True)
        self.seen = []
        self._thread.start()

    def _Run(self):
        while not self._end.is_set():
            # In this order: one that runs at the target has stopped at the source before.
            states = tuple(State(path) for path in self._paths)
            if states not in self.seen:
                self.seen.append(states)
            self._end.wait(0.01)

    def Stop(self):
        """All that was seen: (state at the target, state at the source)."""
        self._end.set()
        self._thread.join(PATIENCE)
        return self.seen
