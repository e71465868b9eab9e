"""LVM for real: PVs on loop devices of this machine, seen by a virtual cluster (SU1 to SU3).

Most needs metadata only and runs without device-mapper; what activates volumes skips there.
"""

import json
import os
import subprocess
import sys
import textwrap

import loopvg
import pytest

from vc import TREE, CleanEnvironment

NODE1, NODE2 = "node1.example.com", "node2.example.com"
#: MiB; what the smallest usable group needs, and one extent more for the metadata.
SIZE = 12 * 1024

pytestmark = pytest.mark.skipif(loopvg.Problem() is not None, reason=str(loopvg.Problem()))


@pytest.fixture
def host(tmp_path):
    """Three loop devices that LVM sees."""
    with loopvg.LoopLvm(tmp_path / "lvm", count=3, size=256) as host:
        yield host


def _Node(host, tmp_path, code):
    """Run code as on a virtual node with those devices; what it prints, as JSON."""
    root = tmp_path / NODE1
    if not root.exists():
        host.Use(root)
    prelude = (
        "import json\nfrom ganeti import errors, storage\nfrom ganeti.backend import volumes\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        env={**CleanEnvironment(), "GANETI_ROOTDIR": str(root), "GANETI_HOSTNAME": NODE1},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout or "null")


class TestHelper:
    """What the tests stand on."""

    def test_only_its_own_devices(self, host):
        host.CreateGroup("xenvg", 0, 1)
        out = host.Lvm("pvs", "--noheadings", "-o", "pv_name")
        assert sorted(out.split()) == sorted(host.devices[:2])

    def test_losing_and_finding(self, host):
        host.CreateGroup("xenvg")
        host.Lose(1)
        assert host.devices[1] not in host.Lvm("pvs")
        assert "unknown" in host.Lvm("pvs")
        host.Find(1)
        assert "unknown" not in host.Lvm("pvs")

    def test_nothing_stays(self, tmp_path):
        with loopvg.LoopLvm(tmp_path / "a", count=1, size=64) as host:
            files = list((tmp_path / "a").glob("*.img"))
            assert len(files) == 1
        assert not files[0].exists()
        listed = subprocess.run(["losetup", "--list"], capture_output=True, text=True).stdout
        assert str(files[0]) not in listed
        assert host.devices

    def test_left_overs_of_killed_tests(self, tmp_path):
        code = f"""
import os, signal, sys
sys.path.insert(0, {str(TREE / "test/component")!r})
import loopvg
host = loopvg.LoopLvm({str(tmp_path / "b")!r}, count=1, size=64).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
        subprocess.run([sys.executable, "-c", code])
        mark = str(tmp_path / "b")

        def Listed():
            return mark in subprocess.run(["losetup", "-l"], capture_output=True, text=True).stdout

        assert Listed()
        loopvg.DetachLeftOvers()
        assert not Listed()


class TestMetadata:
    """Volumes without device-mapper: all that is written down of them."""

    def test_life_of_a_volume(self, host, tmp_path):
        host.CreateGroup("xenvg", 0, 1)
        found = _Node(
            host,
            tmp_path,
            """
            volume = storage.Create(
                "lvm", ("xenvg", "a.disk0"), [], 100, {"stripe": 2, "stripe_size": 128}
            )
            facts = [volume.attached, volume.stripes, volume.extent_size]
            volume.SetInfo("originstname+inst1.example.com")
            volume.Grow(10)
            volume.Rename(("xenvg", "b.disk0"))
            volume.Assemble()
            facts += [
                storage.FindDevice("lvm", ("xenvg", name), [], 100) is not None
                for name in ("a.disk0", "b.disk0")
            ]
            print(json.dumps([facts, volumes.GetVolumeList("xenvg"), volumes.NodeVolumes()]))
            """,
        )
        facts, listed, rows = found
        assert facts == [True, 2, 4, False, True]
        assert {name: row[0] for name, row in listed.items()} == {"b.disk0": "120.00"}
        assert sorted((row["name"], row["vg"], row["dev"], row["size"]) for row in rows) == [
            ("b.disk0", "xenvg", device, "120.00") for device in sorted(host.devices[:2])
        ]
        report = host.Lvm("lvs", "--noheadings", "-o", "lv_tags,stripe_size", "xenvg").split()
        assert report == ["originstname+inst1.example.com", "128.00k"]
        code = """
            for _ in range(2):
                storage.FindDevice("lvm", ("xenvg", "b.disk0"), [], 0)
                volume = storage.GetDeviceClass("lvm")(("xenvg", "b.disk0"), [], 0)
                volume.Remove()
            print(json.dumps(volumes.GetVolumeList("xenvg")))
            """
        assert _Node(host, tmp_path, code) == {}

    def test_refusals_name_what_and_why(self, host, tmp_path):
        host.CreateGroup("xenvg", 0)
        texts = _Node(
            host,
            tmp_path,
            """
            def Try(fn):
                try:
                    return str(fn())
                except errors.BlockDeviceError as err:
                    return str(err)

            Create = lambda name, size: storage.Create("lvm", ("xenvg", name), [], size)
            volume = Create("a", 100)
            print(json.dumps([
                Try(lambda: Create("a", 8)),
                Try(lambda: Create("b", 1000)),
                Try(lambda: storage.Create("lvm", ("nosuch", "b"), [], 8)),
                Try(lambda: volume.Grow(1000)),
            ]))
            """,
        )
        for text, wanted in zip(
            texts, ("already exists", "152 MiB are there", "nosuch", "Insufficient"), strict=True
        ):
            assert wanted in text

    def test_what_has_lost_a_device_is_faulty(self, host, tmp_path):
        host.CreateGroup("xenvg", 0, 1)
        host.CreateVolume("xenvg", "whole", 20)
        host.Lvm("lvcreate", "--yes", "-Wn", "-L20m", "-nlost", "xenvg", host.devices[1])
        host.Lose(1)
        found = _Node(
            host,
            tmp_path,
            """
            states = [
                storage.FindDevice("lvm", ("xenvg", name), [], 0).GetSyncStatus().ldisk_status
                for name in ("whole", "lost")
            ]
            print(json.dumps([states, sorted(volumes.GetVolumeList("xenvg"))]))
            """,
        )
        assert found == [[1, 3], ["whole"]]


@pytest.mark.skipif(not loopvg.HasDeviceMapper(), reason="this kernel has no device-mapper")
class TestActive:
    """Volumes that can be used."""

    def test_life_of_a_volume(self, host, tmp_path):
        host.CreateGroup("xenvg", 0, 1)
        found = _Node(
            host,
            tmp_path,
            """
            volume = storage.Create("lvm", ("xenvg", "a.disk0"), [], 100)
            volume.Assemble()
            with open(volume.dev_path, "wb") as fobj:
                fobj.write(b"x" * 1000)
                state = volumes.GetVolumeList("xenvg")["a.disk0"]
            sizes = [volume.GetActualSize()]
            volume.Grow(10)
            sizes.append(volume.GetActualSize())
            name = volume.Snapshot(20)
            again = volume.Snapshot(20)
            with open(volume.dev_path, "wb") as fobj:
                fobj.write(b"y" * 1000)
            snapshot = storage.FindDevice("lvm", ("xenvg", name), [], 0)
            with open(snapshot.dev_path, "rb") as fobj:
                kept = fobj.read(1).decode()
            status = volume.GetSyncStatus().ToDict()
            snapshot.Remove()
            volume.Rename(("xenvg", "b.disk0"))
            renamed = volume.GetActualSize()
            volume.Remove()
            print(json.dumps([
                state, sizes, name, again, kept, status["minor"] >= 0, status["major"] > 0,
                renamed, volumes.GetVolumeList("xenvg"),
            ]))
            """,
        )
        mib = 1024 * 1024
        assert found == [
            ["100.00", False, True], [100 * mib, 112 * mib], "a.disk0.snap", "a.disk0.snap", "x",
            True, True, 112 * mib, {},
        ]  # fmt: skip

    def test_in_use(self, host, tmp_path):
        host.CreateGroup("xenvg", 0)
        text = _Node(
            host,
            tmp_path,
            """
            volume = storage.Create("lvm", ("xenvg", "a"), [], 8)
            volume.Assemble()
            with open(volume.dev_path, "rb"):
                try:
                    volume.Remove()
                except errors.BlockDeviceError as err:
                    print(json.dumps(str(err)))
            volume.Remove()
            """,
        )
        assert "in use" in text


@pytest.fixture(scope="module")
def cluster(NewCluster, tmp_path_factory):
    """Two nodes, each with a group of two devices of its own; C{.hosts} are their devices."""
    cluster = NewCluster("--nodes=2")
    directory = tmp_path_factory.mktemp("lvm")
    with (
        loopvg.LoopLvm(directory / "node1", count=2, size=SIZE) as one,
        loopvg.LoopLvm(directory / "node2", count=2, size=SIZE) as two,
    ):
        cluster.hosts = [one, two]
        for number, host in enumerate(cluster.hosts, start=1):
            host.CreateGroup("xenvg")
            host.Use(cluster.Root(f"node{number}"))
        yield cluster


class TestCluster:
    """SU1-SU3 from the command line; one story, each test finds what those before it left."""

    def test_the_cluster_takes_the_group(self, cluster):
        cluster.Ok("gnt-cluster", "modify", "-g", "xenvg")
        refused = cluster.Run("gnt-cluster", "modify", "-g", "othervg")
        assert refused.code == 1
        assert "does not have it" in refused.err

    def test_space_of_the_nodes(self, cluster):
        total = str(2 * (SIZE - 4))
        assert cluster.Table("gnt-node", "list", "--units=m", "-o", "name,dtotal,dfree") == [
            [NODE1, total, total],
            [NODE2, total, total],
        ]

    def test_physical_volumes(self, cluster):
        rows = cluster.Table("gnt-node", "list-storage", "--units=m")
        assert rows == [
            [node, "lvm-pv", device, str(SIZE - 4), "0", str(SIZE - 4), "Y"]
            for node, host in zip((NODE1, NODE2), cluster.hosts, strict=True)
            for device in sorted(host.devices)
        ]

    def test_volume_groups(self, cluster):
        cluster.hosts[0].CreateVolume("xenvg", "a.disk0", 1024)
        rows = cluster.Table("gnt-node", "list-storage", "-t", "lvm-vg", "--units=m", NODE1)
        total = 2 * (SIZE - 4)
        assert rows == [[NODE1, "lvm-vg", "xenvg", str(total), "1024", str(total - 1024), "Y"]]

    def test_volumes(self, cluster):
        host = cluster.hosts[1]
        host.CreateVolume("xenvg", "b.disk0", 100, "-i2")
        rows = cluster.Table("gnt-node", "volumes", "--units=m")
        devices = sorted(host.devices)
        assert rows == [
            [NODE1, cluster.hosts[0].devices[0], "xenvg", "a.disk0", "1024", "-"],
            [NODE2, devices[0], "xenvg", "b.disk0", "104", "-"],
            [NODE2, devices[1], "xenvg", "b.disk0", "104", "-"],
        ]

    def test_unallocatable_and_back(self, cluster):
        device = cluster.hosts[0].devices[0]

        def Allocatable():
            rows = cluster.Table("gnt-node", "list-storage", "-o", "name,allocatable", NODE1)
            return dict(rows)[device]

        for value, shown in (("no", "N"), ("yes", "Y")):
            cluster.Ok(
                "gnt-node", "modify-storage", f"--allocatable={value}", NODE1, "lvm-pv", device
            )
            assert Allocatable() == shown

    @pytest.mark.parametrize("name", ["/dev/nosuch", "--help", "xenvg"])
    def test_no_such_physical_volume(self, cluster, name):
        command = ("gnt-node", "modify-storage", "--allocatable=no", "--", NODE1, "lvm-pv", name)
        result = cluster.Run(*command)
        assert result.code == 1
        assert name in result.err
        assert "Traceback" not in result.err

    def test_verify_knows_the_group(self, cluster):
        result = cluster.Run("gnt-cluster", "verify")
        assert "olume group" not in result.out + result.err
        # Nobody's: they are found, and said to be so.
        assert "a.disk0" in result.out + result.err

    def test_repair(self, cluster):
        one, two = cluster.hosts
        two.Lose(1)
        rows = cluster.Table("gnt-node", "list-storage", "-o", "name,allocatable", NODE2)
        assert ["[unknown]", "N"] in rows
        cluster.Ok("gnt-node", "repair-storage", "-f", NODE2, "lvm-vg", "xenvg")
        assert cluster.Table("gnt-node", "list-storage", "-o", "name", NODE2) == [[two.devices[0]]]
        # What lay on the lost device is gone; other nodes are as they were.
        assert cluster.Table("gnt-node", "volumes", "-o", "node,name") == [[NODE1, "a.disk0"]]
        assert len(one.devices) == 2
        # A group that is whole is left alone.
        cluster.Ok("gnt-node", "repair-storage", "-f", NODE2, "lvm-vg", "xenvg")

    def test_too_small_for_the_cluster_now(self, cluster):
        result = cluster.Run("gnt-cluster", "verify", "--error-codes")
        assert "ENODELVM" in result.out + result.err
        assert f"{SIZE - 4} MiB" in result.out + result.err

    def test_repair_of_what_is_not_there(self, cluster):
        result = cluster.Run("gnt-node", "repair-storage", "-f", NODE1, "lvm-vg", "nosuch")
        assert result.code == 1
        assert "nosuch" in result.err

    def test_the_hosts_of_a_node_without_lvm_are_not_seen(self, cluster):
        os.rename(cluster.Root("node1") / "etc/lvm", cluster.Root("node1") / "etc/lvm.away")
        try:
            assert cluster.Table("gnt-node", "list-storage", NODE1) == []
            assert cluster.Table("gnt-node", "volumes", NODE1) == []
        finally:
            os.rename(cluster.Root("node1") / "etc/lvm.away", cluster.Root("node1") / "etc/lvm")
