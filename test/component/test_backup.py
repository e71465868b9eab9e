"""Exports on a virtual cluster (BASE1): made, listed, imported and removed by commands.

Disks can only be exported from snapshots of logical volumes, which virtual nodes have not: images
are put where an export of another cluster would have them.
"""

import gzip
import os

import pytest

CONTENT = os.urandom(1 << 20)
#: As Ganeti 2.1 writes it.
DESCRIPTION = """\
[export]
version = 0
timestamp = 1290000000
source = node7.example.org
os = copy+default
compression = gzip

[instance]
name = old.example.org
memory = 64
vcpus = 1
disk_template = plain
hypervisor = fake
nic0_mac = aa:00:00:12:34:56
nic0_ip = None
nic0_mode = bridged
nic0_link = xen-br0
nic_count = 1
disk0_ivname = disk/0
disk0_dump = 0f5b.disk0.snap
disk0_size = 16
disk_count = 1

[hypervisor]

[backend]
memory = 64
vcpus = 1
auto_balance = True
"""

CREATE = ["gnt-instance", "add", "--no-name-check", "--no-ip-check", "-n", "node2"]
IMPORT = ["gnt-backup", "import", "--no-name-check", "--no-ip-check", "-n", "node2"]


@pytest.fixture(scope="module")
def cluster(NewCluster):
    cluster = NewCluster("--nodes=3")
    for node in ("node1", "node2", "node3"):
        root = cluster.Root(node)
        definition = root / "srv/ganeti/os/copy"
        definition.mkdir()
        for name in ("create", "rename", "export"):
            (definition / name).write_text("#!/bin/sh\nexit 0\n")
        (definition / "import").write_text(
            '#!/bin/sh\necho "disk $IMPORT_INDEX"\nexec dd of="$IMPORT_DEVICE" conv=notrunc\n'
        )
        for name in ("create", "rename", "export", "import"):
            (definition / name).chmod(0o755)
        (definition / "ganeti_api_version").write_text("15\n")
        (definition / "variants.list").write_text("default\n")
    return cluster


@pytest.fixture(scope="module")
def exported(cluster):
    """On node3: an export of a cluster that is no more."""
    directory = cluster.Root("node3") / "srv/ganeti/export/old.example.org"
    directory.mkdir(parents=True)
    (directory / "config.ini").write_text(DESCRIPTION)
    (directory / "0f5b.disk0.snap").write_bytes(gzip.compress(CONTENT))
    return directory


def Fails(cluster, *argv):
    result = cluster.Run(*argv)
    assert result.code == 1, f"{argv}: {result.code}\n{result.out}\n{result.err}"
    return result


def Exports(cluster):
    """Node -> what the listing has below it."""
    found = {}
    for line in cluster.Run("gnt-backup", "list").out.splitlines():
        if line.startswith("Node: "):
            found[line.removeprefix("Node: ").partition(".")[0]] = names = []
        elif line != "Exports:":
            names.append(line.strip())
    return found


class TestImport:
    def test_found_by_its_name(self, cluster, exported):
        cluster.Ok(*IMPORT, "-t", "file", "--src-dir=old.example.org", "new1.example.com")
        (row,) = cluster.Table(
            "gnt-instance",
            "list",
            *("-o", "os,mac,be/memory,disk.sizes,status", "new1.example.com"),
        )
        assert row == ["copy+default", "aa:00:00:12:34:56", "64", "16", "ADMIN_down"]
        disk = cluster.Root("node2") / "srv/ganeti/file-storage/new1.example.com/disk0"
        assert disk.read_bytes()[: len(CONTENT)] == CONTENT
        (log,) = (cluster.Root("node2") / "var/log/ganeti/os").glob("import-copy*new1*.log")
        assert log.read_text().startswith("disk 0\n")

    def test_from_a_node_and_a_directory(self, cluster, exported):
        cluster.Ok(
            *(
                *IMPORT,
                "-t",
                "file",
                "--src-node=node3",
                "--src-dir=/srv/ganeti/export/old.example.org",
            ),
            *("--net=0:mac=auto", "new2.example.com"),
        )
        (row,) = cluster.Table("gnt-instance", "list", "-o", "mac", "new2.example.com")
        assert row != ["aa:00:00:12:34:56"]

    def test_address_in_use(self, cluster, exported):
        result = Fails(
            cluster, *IMPORT, "-t", "file", "--src-dir=old.example.org", "new3.example.com"
        )
        assert "resource_not_unique" in result.err
        assert "aa:00:00:12:34:56" in result.err

    def test_broken_image_is_told_and_the_instance_stays(self, cluster, exported):
        directory = exported.parent / "broken.example.org"
        directory.mkdir()
        (directory / "config.ini").write_text(DESCRIPTION)
        (directory / "0f5b.disk0.snap").write_bytes(gzip.compress(CONTENT)[:1000])
        out = cluster.Ok(
            *(*IMPORT, "-t", "file", "--src-dir=broken.example.org", "--net=0:mac=auto"),
            "new4.example.com",
        )
        assert "gunzip" in out
        assert ["new4.example.com"] in cluster.Table("gnt-instance", "list", "-o", "name")

    def test_no_export(self, cluster):
        result = Fails(cluster, *IMPORT, "-t", "file", "--src-dir=nosuch", "new5.example.com")
        assert "wrong_input" in result.err


class TestExport:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def diskless(cls, cluster):
        cluster.Ok(*CREATE, "-t", "diskless", "-o", "copy+default", "empty.example.com")

    def test_of_an_instance_without_disks(self, cluster, exported):
        cluster.Ok("gnt-backup", "export", "-n", "node1", "empty.example.com")
        assert Exports(cluster)["node1"] == ["empty.example.com"]
        assert ["empty.example.com", "running"] in cluster.Table(
            "gnt-instance", "list", "-o", "name,status"
        )

    def test_a_newer_one_replaces_it(self, cluster):
        cluster.Ok("gnt-backup", "export", "--noshutdown", "-n", "node3", "empty.example.com")
        found = Exports(cluster)
        assert found["node1"] == []
        assert "empty.example.com" in found["node3"]

    def test_and_back(self, cluster):
        cluster.Ok("gnt-instance", "remove", "-f", "empty.example.com")
        cluster.Ok(*IMPORT, "-t", "diskless", "empty.example.com")
        assert ["empty.example.com", "copy+default"] in cluster.Table(
            "gnt-instance", "list", "-o", "name,os"
        )

    def test_files_have_no_snapshots(self, cluster):
        result = Fails(cluster, "gnt-backup", "export", "-n", "node1", "new1.example.com")
        assert "wrong_input" in result.err

    def test_remove(self, cluster):
        cluster.Ok("gnt-backup", "remove", "empty.example.com")
        cluster.Ok("gnt-backup", "remove", "old.example.org")
        assert Exports(cluster)["node3"] == ["broken.example.org"]

    def test_a_node_that_is_dead(self, cluster):
        assert cluster.Vcluster("kill", "node3").code == 0
        try:
            out = cluster.Ok("gnt-backup", "remove", "empty.example.com")
            assert "node3.example.com" in out
            result = Fails(cluster, "gnt-backup", "list")
            assert "Could not get exports list" in result.out
        finally:
            assert cluster.Vcluster("start", "node3").code == 0
