"""OS definitions of Debian packages, as they are (OS1, OS2): black boxes that are run, not read."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

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

    def test_noop_installs(self, cluster):
        names = cluster.Ok("gnt-os", "list", "--no-headers").split()
        (name, *_) = [item for item in names if item.startswith("debian-noop")]
        cluster.Ok(
            "gnt-instance",
            "add",
            "--no-name-check",
            "--no-ip-check",
            "--node=node1",
            "--disk-template=file",
            "--disk=0:size=16m",
            f"--os-type={name}",
            "inst1.example.com",
        )
        rows = cluster.Table("gnt-instance", "list", "-o", "os,status")
        assert rows == [[name, "running"]]
