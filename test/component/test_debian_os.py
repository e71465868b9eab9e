"""OS definitions of Debian packages, as they are (OS1, OS2): black boxes that are run, not read."""

import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

INST, NEW_NAME = "inst1.example.com", "other.example.com"
PACKAGES = ("ganeti-os-noop", "ganeti-instance-debootstrap")


@pytest.fixture(scope="module")
def packages():
    """The unpacked packages."""
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get to fetch the packages with")
    directory = tempfile.mkdtemp()
    # apt gives up its rights to download.
    os.chmod(directory, 0o777)
    try:
        for name in PACKAGES:
            found = subprocess.run(
                ["apt-get", "download", name], cwd=directory, capture_output=True, text=True
            )
            if found.returncode != 0:
                pytest.skip(f"the package {name} can not be had: {found.stderr.strip()}")
        for path in Path(directory).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", path, f"{directory}/root"], check=True)
        yield Path(directory) / "root"
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def cluster(NewCluster, packages):
    cluster = NewCluster("--nodes=1")
    target = cluster.Root() / "srv/ganeti/os"
    _CopyDefinition(packages, "noop", target / "debian-noop")
    _CopyDefinition(packages, "debootstrap", target / "debootstrap")
    with (cluster.Root() / "etc/hosts").open("a") as hosts:
        hosts.write(f"127.1.2.3\t{NEW_NAME}\n")
    return cluster


def _CopyDefinition(root, name, target):
    """Copy a definition; absolute links in it lead to where the package would be installed."""
    target.mkdir()
    for item in (root / "usr/share/ganeti/os" / name).iterdir():
        source = item
        if item.is_symlink() and os.path.isabs(os.readlink(item)):
            source = Path(str(root) + os.readlink(item))
        if source.exists():
            shutil.copy(source, target / item.name)


class TestDebianPackages:
    def test_diagnose(self, cluster):
        out = cluster.Ok("gnt-os", "diagnose")
        assert "OS: debian-noop [global status: valid]" in out
        assert "OS: debootstrap [global status: valid]" in out

    def test_list(self, cluster):
        names = cluster.Ok("gnt-os", "list", "--no-headers").split()
        assert "debootstrap+default" in names
        assert any(name.startswith("debian-noop") for name in names)

    # Mirrors and volumes need device-mapper, which not every machine has; disks of any kind are one
    # device or file each to the script. Without disks there is nothing to install on.
    @pytest.mark.parametrize("template", ["file", "sharedfile"])
    def test_noop_installs(self, cluster, template):
        names = cluster.Ok("gnt-os", "list", "--no-headers").split()
        (name, *_) = [item for item in names if item.startswith("debian-noop")]
        cluster.Ok(
            "gnt-instance",
            "add",
            "--no-name-check",
            "--no-ip-check",
            "--node=node1",
            f"--disk-template={template}",
            "--disk=0:size=16m",
            f"--os-type={name}",
            INST,
        )
        rows = cluster.Table("gnt-instance", "list", "-o", "os,status,disk_template")
        assert rows == [[name, "running", template]]
        cluster.Ok("gnt-instance", "shutdown", INST)
        cluster.Ok("gnt-instance", "reinstall", "-f", INST)
        assert len(self.Logs(cluster, "add", name)) in (1, 2)  # the same, if in the same second
        cluster.Ok("gnt-instance", "rename", "--no-ip-check", INST, NEW_NAME)
        assert self.Logs(cluster, "rename", name)
        cluster.Ok("gnt-instance", "remove", "-f", NEW_NAME)
        for log in self.Logs(cluster, "*", name):
            assert stat.S_IMODE(log.stat().st_mode) == 0o600
            log.unlink()

    def Logs(self, cluster, kind, name):
        return sorted((cluster.Root() / "var/log/ganeti/os").glob(f"{kind}-{name}-*.log"))
