"""A testbed whose nodes run real guests."""

import os
import shutil
from pathlib import Path

import pytest

from bed import layout
from ganeti import errors
from ganeti.vcluster import guest
from realcluster import MakeCluster

OS_DIR = Path(__file__).resolve().parents[1] / "os" / "busybox-guest"
#: Of the guest, on every node.
DIRECTORY = "/var/lib/guest"
#: What is known about guests on their node.
STATE = "/var/run/ganeti/kvm-hypervisor"

INIT = (
    "gnt-cluster init --no-lvm-storage --master-netdev=br0 --enabled-hypervisors=kvm"
    f" --shared-file-storage-dir={layout.SHARED_PATH}"
    # What these nodes emulate each other on would not boot Linux.
    f" --hypervisor-parameters=kvm:kernel_path={DIRECTORY}/kernel,initrd_path={DIRECTORY}/initrd,"
    "kvm_flag=disabled"
)

#: Seconds that a guest may take for anything, emulated on a busy machine.
PATIENCE = 60


def MakeKvmCluster(NewTestbed, nodes, prepare=lambda bed: None):
    """A cluster of that many nodes, each with the guest's kernel and its OS definition.

    @param prepare: what else to do before they are a cluster
    """
    try:
        assets = guest.Prepare(install=os.environ.get("GANETI_TEST_INSTALL") == "1")
    except errors.OpPrereqError as err:
        pytest.skip(str(err))
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this machine lacks /dev/net/tun (CONFIG_TUN)")
    bed = NewTestbed(f"--nodes={nodes}")
    for node in bed.Nodes():
        directory = Path(f"{bed.Root(node)}{DIRECTORY}")
        directory.mkdir()
        for name in ("kernel", "initrd"):
            shutil.copyfile(getattr(assets, name), directory / name)
        (bed.Root(node) / f"usr/share/ganeti/os/{OS_DIR.name}").symlink_to(OS_DIR)
    prepare(bed)
    MakeCluster(bed, *bed.Nodes()[1:], init=INIT)
    return bed


def Status(bed, name):
    return dict(bed.Listing("gnt-instance", "name,status"))[f"{name}.example.com"]


def Pid(bed, name, node="node2"):
    return int(bed.Ok(f"cat {STATE}/pid/{name}.example.com", node=node))
