"""LVM on loop devices for tests: real metadata, real commands, and nothing of the host is touched.

C{with loopvg.LoopLvm(directory) as host:} makes sparse files, loop devices on them and a
configuration by which LVM sees these alone; C{host.Use(root)} gives it to a virtual node. Needs
root rights, lvm2 and loop devices, but no device-mapper: without it volumes have all their
metadata and are never active. C{Problem} says what is missing on this machine.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

#: In the name of each file under a loop device, before the process that made it.
MARK = "ganeti-test-lvm"

_CONFIG = """\
devices {{
  filter = [ {accept}"r|.*|" ]
  use_devicesfile = 0
  obtain_device_list_from_udev = 0
  hints = "none"
}}
global {{
  activation = {dm}
  locking_dir = "{directory}/lock"
  use_lvmpolld = 0
}}
activation {{
  udev_sync = 0
  udev_rules = 0
  monitoring = 0
}}
backup {{
  backup = 0
  archive = 0
}}
"""


def Problem():
    """Why there can be no LVM on loop devices here; None if there can."""
    if os.geteuid() != 0:
        return "LVM needs root rights"
    missing = [name for name in ("lvm", "losetup") if shutil.which(name, path=_Path()) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: lvm2, mount)"
    if not os.path.exists("/dev/loop-control"):
        return "this kernel has no loop devices"
    return None


def HasDeviceMapper():
    """Can volumes be active here?"""
    return "device-mapper" in Path("/proc/misc").read_text()


def _Path():
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _Run(*argv, env=None):
    environment = {**os.environ, "PATH": _Path(), "LC_ALL": "C", **(env or {})}
    result = subprocess.run(
        argv, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, f"{argv}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def DetachLeftOvers():
    """Detach loop devices that killed tests have left behind."""
    for line in _Run(
        "losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"
    ).splitlines():
        device, _, path = line.strip().partition(" ")
        match = re.search(rf"/{MARK}-(\d+)-\d+\.img", path)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            with contextlib.suppress(AssertionError):
                _Run("losetup", "--detach", device)


class LoopLvm:
    """Loop devices that LVM may use.

    @ivar devices: their paths; all of one size (MiB), taking no space
    @ivar system_dir: what C{LVM_SYSTEM_DIR} must be for a program of LVM to see them
    """

    def __init__(self, directory, count=2, size=12 * 1024):
        self._directory = Path(directory)
        self._count = count
        self._size = size
        self._lost = set()
        self.devices = []
        self.system_dir = self._directory / "etc-lvm"

    def __enter__(self):
        self._directory.mkdir(parents=True, exist_ok=True)
        self.system_dir.mkdir()
        DetachLeftOvers()
        try:
            for index in range(self._count):
                path = self._directory / f"{MARK}-{os.getpid()}-{index}.img"
                with open(path, "wb") as fobj:
                    fobj.truncate(self._size * 1024 * 1024)
                self.devices.append(self._Attach(path))
            self._Configure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if HasDeviceMapper() and self.devices:
            with contextlib.suppress(AssertionError):
                self._lost.clear()
                self._Configure()
                self.Lvm("vgchange", "-an")
        for device in self.devices:
            _Run("losetup", "--detach", device)
        for path in self._directory.glob(f"{MARK}-*.img"):
            path.unlink()

    @staticmethod
    def _Attach(path):
        # Finding a free device and taking it are two steps of losetup.
        with open("/dev/loop-control", "rb") as fobj:
            fcntl.flock(fobj, fcntl.LOCK_EX)
            return _Run("losetup", "--find", "--show", str(path)).strip()

    def _Configure(self):
        visible = [device for device in self.devices if device not in self._lost]
        accept = "".join(f'"a|^{device}$|", ' for device in visible)
        text = _CONFIG.format(accept=accept, dm=int(HasDeviceMapper()), directory=self._directory)
        (self.system_dir / "lvm.conf").write_text(text)

    @property
    def env(self):
        """What to add to the environment of a program of LVM."""
        return {"LVM_SYSTEM_DIR": str(self.system_dir), "LVM_SUPPRESS_FD_WARNINGS": "1"}

    def Lvm(self, *argv):
        """Run a program of LVM that must succeed; its standard output."""
        return _Run(*argv, env=self.env)

    def CreateGroup(self, name, *indices):
        """Make a volume group of devices, by their indices; of all if there is none."""
        devices = [self.devices[index] for index in indices] or self.devices
        self.Lvm("pvcreate", "--yes", *devices)
        self.Lvm("vgcreate", name, *devices)

    def CreateVolume(self, group, name, size, *options):
        """Make a logical volume of that many MiB."""
        self.Lvm("lvcreate", "--yes", "-Wn", f"-L{size}m", f"-n{name}", *options, group)

    def Lose(self, index):
        """LVM does not find a device any more; it stays ours."""
        self._lost.add(self.devices[index])
        self._Configure()

    def Find(self, index):
        """LVM finds a device again."""
        self._lost.discard(self.devices[index])
        self._Configure()

    def Use(self, root):
        """Give these devices to the virtual node with that root directory."""
        path = Path(root) / "etc/lvm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self.system_dir)
