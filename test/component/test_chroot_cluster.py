"""Chroots as instances of a virtual cluster (BASE2), from gnt-instance add to remove."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import chroot_guest
import pytest
from test_chroot import REASON, MountNamespace

from vc import Cluster, WaitFor

NAME = "inst1.example.com"
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

CREATE = """#!/bin/sh
set -e
[ "$HYPERVISOR" = chroot ]
mkfs.ext4 -q -F -d {tree} "$DISK_0_PATH"
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node, whose daemons live in a mount namespace of their own."""
    namespace = MountNamespace()
    directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
    cluster = Cluster(directory, prefix=namespace.prefix)
    try:
        result = cluster.Vcluster("up", "--nodes=1", timeout=180)
        assert result.code == 0, f"{result.out}\n{result.err}\n{cluster.Logs()}"
        cluster.Ok("gnt-cluster", "modify", "--enabled-hypervisors=chroot")
        InstallOs(cluster)
        yield cluster
    finally:
        cluster.Vcluster("down")
        namespace.Close()
        shutil.rmtree(directory, ignore_errors=True)


def InstallOs(cluster):
    tree = Path(cluster.directory) / "tree"
    chroot_guest.MakeTree(tree, "plain")
    definition = cluster.Root() / "srv/ganeti/os/chroot-guest"
    definition.mkdir()
    (definition / "ganeti_api_version").write_text("15\n10\n")
    (definition / "variants.list").write_text("default\n")
    for name in ("create", "import", "export", "rename"):
        text = CREATE.format(tree=tree) if name == "create" else "#!/bin/sh\n"
        (definition / name).write_text(text)
        (definition / name).chmod(0o755)


def Status(cluster):
    return cluster.Table("gnt-instance", "list", "-o", "name,hypervisor,status")


def test_life(cluster):
    cluster.Ok(
        "gnt-instance", "add", "--no-name-check", "--no-ip-check", "--no-nics", "--node=node1",
        "--disk-template=file", "--disk=0:size=16m", "--os-type=chroot-guest+default", NAME,
    )  # fmt: skip
    assert Status(cluster) == [[NAME, "chroot", "running"]]
    mount = cluster.Root() / "var/run/ganeti/chroot-hypervisor" / NAME
    # Only there: the machine does not see it.
    assert not os.path.ismount(mount)

    pid = int(Path(cluster.Root() / "var/run/ganeti/ganeti-noded.pid").read_text())
    cluster.Ok("daemon-util", "stop", "ganeti-noded")
    cluster.Ok("daemon-util", "start", "ganeti-noded")
    assert int(Path(cluster.Root() / "var/run/ganeti/ganeti-noded.pid").read_text()) != pid
    WaitFor(lambda: Status(cluster) == [[NAME, "chroot", "running"]], what="the listing")

    console = cluster.Run("gnt-instance", "console", NAME, stdin="cat /mode; exit\n")
    assert "plain" in console.out, console.err

    cluster.Ok("gnt-instance", "reboot", "--type=hard", NAME)
    assert Status(cluster) == [[NAME, "chroot", "running"]]
    soft = cluster.Run("gnt-instance", "reboot", "--type=soft", NAME)
    assert soft.code == 1
    assert "no reboot of its own" in soft.err

    cluster.Ok("gnt-instance", "shutdown", NAME)
    assert Status(cluster) == [[NAME, "chroot", "ADMIN_down"]]
    cluster.Ok("gnt-instance", "startup", NAME)
    assert Status(cluster) == [[NAME, "chroot", "running"]]
    cluster.Ok("gnt-cluster", "verify")

    cluster.Ok("gnt-instance", "remove", "--force", NAME)
    assert Status(cluster) == []
    mounts = subprocess.run(
        [*cluster.prefix, "cat", "/proc/self/mounts"], capture_output=True, text=True
    ).stdout
    assert cluster.directory not in mounts
