"""The chroot hypervisor with real mounts and processes (BASE2), in a mount namespace of its own.

Each call is a process of its own, so that nothing but what is on the node can be remembered.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import chroot_guest
import psutil
import pytest

from vc import WaitFor

DRIVER = Path(__file__).with_name("chroot_driver.py")
NAME = "inst1.example.com"


def WhyNot():
    if os.geteuid() != 0:
        return "only root may mount"
    if missing := chroot_guest.Missing():
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"no mount namespaces here: {tried.stderr.strip()}"
    if subprocess.run(["losetup", "-f"], capture_output=True).returncode != 0:
        return "no loop devices here"
    return None


REASON = WhyNot()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class Refused(Exception):
    """What a HypervisorError of a call said."""


class MountNamespace:
    """What is mounted in it is seen by nobody else, and goes with it.

    @ivar prefix: words before a command that is to run in it
    """

    def __init__(self):
        self._holder = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sleep", "600"]
        )
        own = os.readlink("/proc/self/ns/mnt")
        WaitFor(
            lambda: os.readlink(f"/proc/{self._holder.pid}/ns/mnt") != own,
            what="the mount namespace",
        )
        self.prefix = ("nsenter", "-t", str(self._holder.pid), "-m", "--")

    def Close(self):
        self._holder.kill()
        self._holder.wait()


class Node:
    """A mount namespace in which instances run."""

    def __init__(self, directory):
        self.directory = directory
        self.root = directory / "mounts"
        self.namespace = MountNamespace()
        self._images = 0

    def In(self, *argv, **kwargs):
        """Run a program in the namespace."""
        return subprocess.run(
            [*self.namespace.prefix, *argv],
            capture_output=True,
            text=True,
            timeout=60,
            **kwargs,
        )

    def Call(self, method, *args, **kwargs):
        done = self.In(
            sys.executable,
            str(DRIVER),
            str(self.root),
            str(self.directory / "logs"),
            method,
            json.dumps(args),
            json.dumps(kwargs),
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def Image(self, mode="plain"):
        self._images += 1
        tree, image = self.directory / f"tree{self._images}", self.directory / f"{self._images}.img"
        chroot_guest.MakeTree(tree, mode)
        chroot_guest.MakeImage(image, tree)
        return str(image)

    def Mounts(self):
        text = self.In("cat", "/proc/self/mounts").stdout
        return [line.split()[1] for line in text.splitlines() if str(self.directory) in line]

    def Processes(self, name=NAME):
        """Ids of the processes with that root directory, looked at in another way."""
        found = []
        for proc in psutil.process_iter():
            try:
                if os.readlink(f"/proc/{proc.pid}/root") == f"{self.root}/{name}":
                    found.append(proc.pid)
            except OSError:
                continue
        return found

    def Start(self, image, name=NAME):
        self.Call("StartInstance", {"name": name}, [image])

    def Gone(self, name=NAME):
        """Force it, as the node daemon does in the end."""
        self.Call("StopInstance", {"name": name}, force=True)
        self.Call("CleanupInstance", name)

    def Close(self):
        for pid in [pid for name in os.listdir(self.root) for pid in self.Processes(name)]:
            psutil.Process(pid).kill()
        self.namespace.Close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path.resolve())
    node.root.mkdir()
    yield node
    node.Close()


class TestLife:
    def test_start_stop_start(self, node):
        image = node.Image()
        assert node.Call("ListInstances") == []
        node.Start(image)
        assert node.Call("ListInstances") == [NAME]
        assert node.Call("GetInstanceInfo", NAME) == [NAME, 0, 0, 0, "---b-", 0.0]
        assert node.Call("GetAllInstancesInfo") == [[NAME, 0, 0, 0, "---b-", 0.0]]
        (first,) = node.Processes()
        with pytest.raises(Refused, match="already running"):
            node.Start(image)
        with pytest.raises(Refused, match="there are processes in it"):
            node.Call("CleanupInstance", NAME)
        assert node.Processes() == [first]

        node.Call("StopInstance", {"name": NAME})
        WaitFor(lambda: node.Call("ListInstances") == [], what="the end of the instance")
        assert node.Call("GetInstanceInfo", NAME) is None
        assert node.Processes() == []
        node.Call("StopInstance", {"name": NAME})
        node.Call("CleanupInstance", NAME)
        node.Call("CleanupInstance", NAME)
        assert node.Mounts() == []
        assert not (node.root / NAME).exists()

        node.Start(image)
        assert len(node.Processes()) == 1
        # What the instance wrote is on its disk.
        assert node.In("cat", f"{node.root}/{NAME}/stops").stdout == "stopped\n"
        node.Gone()
        assert node.Mounts() == []

    def test_one_that_ignores_it(self, node):
        node.Start(node.Image("stubborn"))
        node.Call("StopInstance", {"name": NAME})
        time.sleep(0.2)
        node.Call("StopInstance", {"name": NAME}, retry=True)
        time.sleep(0.2)
        assert node.Call("ListInstances") == [NAME]
        with pytest.raises(Refused, match="use force"):
            node.Call("StopInstance", None, name=NAME)
        node.Call("StopInstance", None, force=True, name=NAME)
        assert node.Call("ListInstances") == []
        assert node.Processes() == []
        node.Call("CleanupInstance", NAME)
        assert node.Mounts() == []
        with pytest.raises(Refused, match="reboot"):
            node.Call("RebootInstance", {"name": NAME})

    def test_what_is_mounted_in_it(self, node):
        node.Start(node.Image("nested"))
        assert len(node.Mounts()) == 3
        node.Gone()
        assert node.Mounts() == []

    def test_its_program_refuses_to_stop(self, node):
        node.Start(node.Image("nostop"))
        with pytest.raises(Refused, match="/ganeti-chroot failed .*exit code 1.*I will not"):
            node.Call("StopInstance", {"name": NAME})
        assert len(node.Processes()) == 1

    def test_console(self, node):
        from ganeti import objects
        from ganeti.hypervisor import hv_chroot

        node.Start(node.Image())
        instance = objects.Instance(name=NAME, primary_node="node1.example.com")
        command = hv_chroot.ChrootManager.GetShellCommandForConsole(instance, {}, {})
        words = command.split(" ", 2)
        assert words[0] == "chroot"
        assert words[1].endswith(f"/run/ganeti/chroot-hypervisor/{NAME}")
        done = node.In(
            "sh", "-c", f"chroot {node.root}/{NAME} {words[2]}", input="cat /mode; exit 7\n"
        )
        assert (done.stdout, done.returncode) == ("plain", 7)


class TestOthers:
    """Nobody but what lives in the instance is ended, and neighbours do not matter."""

    def test_neighbour_whose_name_begins_alike(self, node):
        node.Start(node.Image("stubborn"), "inst1.example.co")
        node.Start(node.Image("stubborn"))
        node.Gone("inst1.example.co")
        assert node.Call("ListInstances") == [NAME]
        assert node.Mounts() == [f"{node.root}/{NAME}"]
        assert node.Processes() != []

    def test_who_looks_from_outside_is_left_alone(self, node):
        node.Start(node.Image())
        command = f"cd {node.root}/{NAME} && exec sleep 600"
        watcher = subprocess.Popen([*node.namespace.prefix, "sh", "-c", command])
        try:
            WaitFor(
                lambda: os.readlink(f"/proc/{watcher.pid}/cwd") == f"{node.root}/{NAME}",
                what="the watcher",
            )
            node.Call("StopInstance", {"name": NAME}, force=True)
            assert node.Call("ListInstances") == []
            with pytest.raises(Refused, match=f"Can't unmount .*process {watcher.pid} "):
                node.Call("CleanupInstance", NAME)
            assert watcher.poll() is None
        finally:
            watcher.kill()
            watcher.wait()
        node.Call("CleanupInstance", NAME)
        assert node.Mounts() == []


class TestFailures:
    """A start that fails leaves nothing behind, and says why."""

    def test_program_fails(self, node):
        with pytest.raises(Refused) as info:
            node.Start(node.Image("fail"))
        text = str(info.value)
        assert "exit code 3" in text
        assert "no 21\n" in text and text.endswith("no 40")
        assert "no 20\n" not in text
        assert node.Processes() == []
        assert node.Mounts() == []

    def test_program_starts_nothing(self, node):
        with pytest.raises(Refused, match="left no process"):
            node.Start(node.Image("empty"))
        assert node.Mounts() == []

    def test_no_program(self, node):
        with pytest.raises(Refused, match="/missing"):
            node.Call(
                "StartInstance",
                {"name": NAME, "hvparams": {"init_script": "/missing"}},
                [node.Image()],
            )
        assert node.Mounts() == []

    def test_disks(self, node):
        with pytest.raises(Refused, match="needs a disk"):
            node.Call("StartInstance", {"name": NAME}, [])
        with pytest.raises(Refused, match=r"/no/disk can not be mounted \(.*/no/disk"):
            node.Start("/no/disk")
        blank = node.directory / "blank"
        blank.write_bytes(bytes(2**20))
        with pytest.raises(Refused, match="blank can not be mounted"):
            node.Start(str(blank))
        assert node.Mounts() == []
        assert os.listdir(node.root) == []

    def test_left_mounted_by_a_daemon_that_died(self, node):
        (node.root / NAME).mkdir()
        image = node.Image()
        assert node.In("mount", image, f"{node.root}/{NAME}").returncode == 0
        assert node.Call("ListInstances") == []
        node.Start(image)
        assert node.Mounts() == [f"{node.root}/{NAME}"]
        node.Gone()
        assert node.Mounts() == []
