"""A cluster of an older version is upgraded and goes on (BASE4)."""

import json
import os
import stat

import pytest

from vc import TREE, WaitFor

DAEMON_UTIL = str(TREE / "daemons" / "daemon-util")
CFGUPGRADE = str(TREE / "tools" / "cfgupgrade")
INSTANCE = "inst1.example.com"

#: What 2.1 and later brought to the cluster object.
NEW_IN_CLUSTER = (
    *("ctime", "mtime", "uuid", "nicparams", "os_hvp", "uid_pool", "diskparams"),
    *("default_iallocator", "maintain_node_health", "modify_ssh_setup"),
)
NEW_FILES = (
    *("hmac.key", "rapi.pem", "config.history", "ssconf_config_version", "ssconf_uid_pool"),
    *("ssconf_hypervisor_list", "ssconf_maintain_node_health", "ssconf_node_primary_ips"),
    *("ssconf_node_secondary_ips", "ssconf_master_candidates_ips"),
)


def Without(obj, *names):
    for name in names:
        obj.pop(name, None)


def MakeVersion20(document):
    """The same cluster as 2.0 would have written it."""
    document["version"] = 2000000
    Without(document, "ctime", "mtime")
    cluster = document["cluster"]
    cluster["default_bridge"] = cluster["nicparams"]["default"]["link"]
    cluster["default_hypervisor"] = cluster["enabled_hypervisors"][0]
    Without(cluster, *NEW_IN_CLUSTER)
    Without(cluster["hvparams"], "chroot")
    for node in document["nodes"].values():
        Without(node, "ctime", "mtime", "uuid")
    for instance in document["instances"].values():
        Without(instance, "ctime", "mtime", "uuid")
        for disk in instance["disks"]:
            Without(disk, "uuid", "params")
        for nic in instance["nics"]:
            Without(nic, "uuid")
            nic["bridge"] = nic.pop("nicparams").get("link", cluster["default_bridge"])
    return document


def OnNode(cluster, node, *argv):
    return cluster.Vcluster("exec", "--node", node, "--", *argv)


@pytest.fixture(scope="module")
def cluster(NewCluster):
    cluster = NewCluster("--nodes=2")
    cluster.Ok(
        *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "-n", "node2"),
        *("-t", "file", "--disk=0:size=4m", "-o", "noop+default", "-B", "memory=32", INSTANCE),
    )
    return cluster


class TestUpgrade:
    """One cluster; each test goes on where the one before ended."""

    def test_refused_while_daemons_run(self, cluster):
        before = cluster.Data("config.data").read_bytes()
        result = cluster.Run(CFGUPGRADE, "-f")
        assert (result.code, "ganeti-masterd (process " in result.err) == (1, True)
        for node in ("node1", "node2"):
            assert OnNode(cluster, node, DAEMON_UTIL, "stop-all").code == 0
        assert cluster.Data("config.data").read_bytes() == before

    def test_dry_run(self, cluster):
        document = MakeVersion20(cluster.Config())
        for node in ("node1", "node2"):
            cluster.Data("config.data", node).write_text(json.dumps(document))
            for name in NEW_FILES:
                cluster.Data(name, node).unlink(missing_ok=True)
        start = OnNode(cluster, "node1", DAEMON_UTIL, "start", "ganeti-masterd")
        assert (start.code, "cfgupgrade" in start.err) == (1, True), start.err
        before = sorted(os.listdir(cluster.Data("")))
        result = cluster.Run(CFGUPGRADE, "--dry-run")
        assert result.code == 0, result.err
        assert "version 2.0.0 to 2.1.0" in result.err
        assert sorted(os.listdir(cluster.Data(""))) == before
        assert cluster.Config() == document

    def test_only_on_the_master(self, cluster):
        result = OnNode(cluster, "node2", CFGUPGRADE, "-f")
        assert (result.code, "node1.example.com" in result.err) == (1, True)

    def test_upgrade(self, cluster):
        old = cluster.Config()
        assert cluster.Run(CFGUPGRADE).code == 1, "there is nobody to say yes"
        result = cluster.Run(CFGUPGRADE, "-f")
        assert result.code == 0, result.err
        assert cluster.Config()["version"] == 2010000
        (backup,) = cluster.Data("").glob("config.data.backup-*")
        assert json.loads(backup.read_text()) == old
        for name in ("hmac.key", "rapi.pem"):
            assert stat.S_IMODE(cluster.Data(name).stat().st_mode) == 0o400

    def test_cluster_goes_on(self, cluster):
        """As the end of cfgupgrade says."""
        upgraded = cluster.Config()
        for node in ("node1", "node2"):
            assert OnNode(cluster, node, DAEMON_UTIL, "start", "ganeti-noded").code == 0
        assert OnNode(cluster, "node1", DAEMON_UTIL, "start-all").code == 0
        assert cluster.Config() == upgraded, "nothing was left for the master daemon to upgrade"
        cluster.Ok("gnt-cluster", "redist-conf")
        assert OnNode(cluster, "node2", DAEMON_UTIL, "start-all").code == 0
        cluster.Ok("gnt-cluster", "verify")
        assert cluster.Table("gnt-instance", "list", "-o", "name,status,be/memory,bridge") == [
            [INSTANCE, "running", "32", "xen-br0"]
        ]
        assert cluster.Data("hmac.key", "node2").read_text() == cluster.Data("hmac.key").read_text()
        assert cluster.Config("node2") == cluster.Config()

    def test_jobs_and_doors(self, cluster):
        cluster.Ok("gnt-instance", "reboot", INSTANCE)
        assert cluster.Rapi("GET", f"/2/instances/{INSTANCE}")[1]["uuid"]
        WaitFor(
            lambda: cluster.Run("confd-client", "master").out.strip() == "node1.example.com",
            what="the answer of confd",
        )

    def test_again(self, cluster):
        """There is nothing left to do, but not while the cluster runs."""
        assert cluster.Run(CFGUPGRADE, "-f").code == 1
        assert OnNode(cluster, "node1", DAEMON_UTIL, "stop-all").code == 0
        result = cluster.Run(CFGUPGRADE, "-f")
        assert (result.code, "nothing to upgrade" in result.err) == (0, True), result.err
