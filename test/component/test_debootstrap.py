"""Debian, installed by Debian's own OS definition and started: OS1, BASE2.

The package ganeti-instance-debootstrap is a black box: it is configured by its documented file and
run, not read. Takes minutes and a mirror of Debian, so only with DEBOOTSTRAP=1, as root.

What the package needs, it finds in a mount namespace of the node daemons, where /usr, /etc and /var
are copies on write: nothing is installed on this machine. It can not make partitions without
device-mapper (kpartx), which this test does without: PARTITION_STYLE=none, and the kernel of the
installed system is taken out of its disk.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

from terminal import Terminal
from vc import VCLUSTER, CleanEnvironment, Cluster

pytestmark = [
    pytest.mark.skipif(os.environ.get("DEBOOTSTRAP") != "1", reason="only with DEBOOTSTRAP=1"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
    pytest.mark.timeout(2400),
]

DEBIAN = "debian1.example.com"
PACKAGES = ("ganeti-instance-debootstrap", "debootstrap", "dump", "kpartx", "fdisk")
CONFIGURATION = """
SUITE=bookworm
EXTRA_PKGS=linux-image-cloud-amd64
PARTITION_STYLE=none
GENERATE_CACHE=no
"""
#: Seconds, emulated on a busy machine.
INSTALL, BOOT = 1500, 600

#: Runs a command where the package is installed.
PLACE = """
set -e
for name in usr etc var; do
  mkdir -p "$0/$name" "$0/$name.work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$0/$name,workdir=$0/$name.work" "/$name"
done
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends $PACKAGES
printf '%s' "$CONFIGURATION" > /etc/default/ganeti-instance-debootstrap
exec "$@"
"""


class ClusterElsewhere(Cluster):
    """A virtual cluster whose daemons are in a mount namespace."""

    def Up(self, upper):
        command = ["unshare", "--mount", "sh", "-c", PLACE, str(upper)]
        command += [VCLUSTER, "up", "--dir", self.directory, "--hypervisor=kvm", "--nodes=1"]
        env = {**CleanEnvironment(), "PACKAGES": " ".join(PACKAGES), "CONFIGURATION": CONFIGURATION}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # Short, as sockets are below it.
    directory = Path("/tmp") / f"debootstrap{os.getpid()}"
    directory.mkdir()
    cluster = ClusterElsewhere(str(directory / "vc"))
    try:
        done = cluster.Up(tmp_path_factory.mktemp("upper"))
        if "No guest can run here" in done.stderr:
            pytest.skip(done.stderr.strip())
        assert done.returncode == 0, done.stdout + done.stderr
        osdir = cluster.Root() / "srv/ganeti/os"
        (osdir / "debootstrap").symlink_to("/usr/share/ganeti/os/debootstrap")
        yield cluster
    finally:
        cluster.Vcluster("down")
        subprocess.run(["rm", "-rf", str(directory)], check=False)


def _TakeOut(image, name, target):
    """Copy a file out of an ext4 image; links are followed."""
    found = subprocess.run(
        ["debugfs", "-R", f"stat {name}", image], capture_output=True, text=True, check=True
    )
    for line in found.stdout.splitlines():
        if line.startswith("Fast link dest:"):
            name = "/" + line.split('"')[1].lstrip("/")
    subprocess.run(["debugfs", "-R", f"dump {name} {target}", image], check=True)
    assert os.path.getsize(target) > 2**20, name


def test_debian_is_installed_and_boots(cluster, record_property):
    start = time.monotonic()
    names = cluster.Ok("gnt-os", "list", "--no-headers").split()
    assert "debootstrap+default" in names, cluster.Run("gnt-os", "diagnose").out
    cluster.Ok(
        *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "--no-nics", "--no-start"),
        *("--node=node1", "--disk-template=file", "--disk=0:size=2g"),
        *("--os-type=debootstrap+default", "--backend-parameters=memory=512", DEBIAN),
        timeout=INSTALL,
    )
    record_property("install_seconds", installed := round(time.monotonic() - start))
    (image,) = (cluster.Root() / f"srv/ganeti/file-storage/{DEBIAN}").iterdir()
    boot = cluster.Root() / "srv/debian"
    boot.mkdir()
    for name in ("vmlinuz", "initrd.img"):
        _TakeOut(str(image), f"/{name}", str(boot / name))
    parameters = f"kernel_path={boot}/vmlinuz,initrd_path={boot}/initrd.img,root_path=/dev/vda"
    cluster.Ok(
        *("gnt-instance", "modify", "-H", f"{parameters},kernel_args=ro", DEBIAN),
    )
    start = time.monotonic()
    cluster.Ok("gnt-instance", "start", DEBIAN, timeout=120)
    env = [f"{key}={value}" for key, value in cluster.env.items()]
    console = Terminal(["env", *env, "gnt-instance", "console", DEBIAN])
    try:
        match = console.Expect(r"Debian GNU/Linux (\d+) (\S+) ttyS0[\s\S]*login: ", BOOT)
        record_property("boot_seconds", booted := round(time.monotonic() - start))
        print(f"\ninstalled in {installed} s, login prompt after {booted} s: {match.group()!r}")
        assert match.group(2) == DEBIAN.partition(".")[0] or match.group(2) == DEBIAN
    finally:
        console.Close()
    cluster.Ok("gnt-instance", "shutdown", "--timeout=60", DEBIAN, timeout=120)
    cluster.Ok("gnt-instance", "remove", "-f", DEBIAN)
