"""The life of a cluster of real nodes, from the first command to the last, over real SSH.

The tests run in the order of this file: the cluster gets nodes, loses and finds them, and ends.
"""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bed import layout
from realcluster import (
    NODE1,
    NODE2,
    NODE3,
    SECRETS,
    AcceptKey,
    AddNode,
    HasNothing,
    InitCluster,
    KeyOfHost,
    KnowHost,
)
from vc import WaitFor


@pytest.fixture(scope="module")
def cluster(NewTestbed):
    """A cluster with a network for replication.

    node2 was added with a password, and node3 with a key.
    """
    cluster = NewTestbed("--nodes=3")
    InitCluster(cluster)
    cluster.said = {"node2": AddNode(cluster, "node2", "--secondary-ip=198.51.100.12")}
    AcceptKey(cluster, "node3")
    KnowHost(cluster, "node3", KeyOfHost(cluster, "node3"))
    options = ("--secondary-ip=198.51.100.13",)
    cluster.said["node3"] = AddNode(cluster, "node3", *options, known=True, password=None)
    return cluster


class TestAdded:
    """gnt-node add over SSH (BASE1), with a password and with a key."""

    def test_questions(self, cluster):
        assert "authenticity of host 'node2.example.com (192.0.2.12)'" in cluster.said["node2"]
        assert "password" in cluster.said["node2"]
        # Its key was known, and root's accepted: nothing to ask.
        assert "authenticity" not in cluster.said["node3"]
        assert "password" not in cluster.said["node3"]

    def test_listed(self, cluster):
        assert cluster.Listing("gnt-node", "name,pip,sip,role") == [
            [NODE1, "192.0.2.11", "198.51.100.11", "M"],
            [NODE2, "192.0.2.12", "198.51.100.12", "C"],
            [NODE3, "192.0.2.13", "198.51.100.13", "C"],
        ]

    def test_verified(self, cluster):
        """SSH, both networks, files, times and versions of all nodes are in order."""
        assert cluster.Problems() == []

    @pytest.mark.parametrize("node", ["node2", "node3"])
    def test_secrets(self, cluster, node):
        for name in SECRETS:
            path = cluster.Data(name, node)
            assert path.stat().st_mode & 0o777 == 0o400
            assert path.read_bytes() == cluster.Data(name).read_bytes()

    @pytest.mark.parametrize("node", ["node2", "node3"])
    def test_files(self, cluster, node):
        """RC1: a new node gets what all nodes have; JQ2: and the copies of a candidate."""
        for name in ("known_hosts", "config.data"):
            assert cluster.Data(name, node).read_bytes() == cluster.Data(name).read_bytes()
        hosts = (cluster.Root(node) / "etc/hosts").read_text()
        assert hosts == (cluster.Root("node1") / "etc/hosts").read_text()
        for other in (NODE1, NODE2, NODE3):
            assert f"{other} " in hosts
        assert cluster.Data("ssconf_master_node", node).read_text() == f"{NODE1}\n"

    def test_host_keys(self, cluster):
        """All nodes have one RSA host key, and have loaded it."""
        for node in ("node2", "node3"):
            scan = cluster.Ok(f"ssh-keyscan -t rsa {node} 2>/dev/null")
            assert scan.split(None, 1)[1].strip() == KeyOfHost(cluster, "node1", "rsa")

    def test_every_node_reaches_every_other(self, cluster):
        for node in ("node1", "node2", "node3"):
            ssh = (
                "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes"
                " -o HostKeyAlias=$(cat /var/lib/ganeti/ssconf_cluster_name)"
                " -o UserKnownHostsFile=/var/lib/ganeti/known_hosts"
            )
            loop = f"for n in 1 2 3; do {ssh} node$n hostname --fqdn </dev/null; done"
            assert cluster.Ok(loop, node=node).split() == [NODE1, NODE2, NODE3]

    def test_again(self, cluster):
        said = cluster.Fails("gnt-node add -f -s 198.51.100.12 node2")
        assert "already in the cluster - please retry with '--readd'" in said

    def test_readd(self, cluster):
        """Its role is kept, and its daemons are new ones."""
        before = cluster.Ok("cat /var/run/ganeti/ganeti-noded.pid", node="node3")
        AddNode(cluster, "node3", "--readd", known=True, password=None)
        assert cluster.Ok("cat /var/run/ganeti/ganeti-noded.pid", node="node3") != before
        assert [row for row in cluster.Listing("gnt-node", "name,role") if NODE3 in row] == [
            [NODE3, "C"]
        ]
        assert cluster.Problems() == []

    def test_master_can_not_be_readded(self, cluster):
        assert "is the master" in cluster.Fails("gnt-node add --readd node1")


class TestCommands:
    """gnt-cluster command and copyfile (BASE1)."""

    def test_command(self, cluster):
        out = cluster.Ok("gnt-cluster command 'hostname; echo $SSH_CONNECTION | cut -d\" \" -f3'")
        names = [line.split()[1] for line in out.splitlines() if line.startswith("node: ")]
        # The master comes last.
        assert names == [NODE2, NODE3, NODE1]
        for number in (1, 2, 3):
            assert f"node{number}\n192.0.2.1{number}\nreturn code = 0" in out

    def test_command_fails(self, cluster):
        result = cluster.Run("gnt-cluster command -n node2 'exit 3'")
        assert "return code = 3" in result.out
        assert result.code == 1

    @pytest.mark.parametrize("option", ["", "--use-replication-network"])
    def test_copyfile(self, cluster, option):
        content = f"what all need {option}\n"
        path = cluster.Root("node1") / "etc/ganeti/some-file"
        path.write_text(content)
        path.chmod(0o640)
        cluster.Ok(f"gnt-cluster copyfile {option} /etc/ganeti/some-file")
        for node in ("node2", "node3"):
            copy = cluster.Root(node) / "etc/ganeti/some-file"
            assert copy.read_text() == content
            assert copy.stat().st_mode & 0o777 == 0o640

    def test_copyfile_fails(self, cluster):
        cluster.Ok("mkdir -p /srv/here && touch /srv/here/file")
        said = cluster.Fails("gnt-cluster copyfile -n node2 /srv/here/file")
        assert "Copy of file /srv/here/file to node node2.example.com failed" in said
        assert "No such file or directory" in said


class TestWholeCluster:
    """What changes on all nodes at once."""

    def test_redist_conf(self, cluster):
        """RC1: the files that the administrator lists, and the list itself, are on all nodes."""
        etc = cluster.Root("node1") / "etc/ganeti"
        (etc / "ancillary-files").write_text("/etc/ganeti/for-all\n")
        (etc / "for-all").write_text("content\n")
        cluster.Ok("gnt-cluster redist-conf")
        for node in ("node2", "node3"):
            for name in ("ancillary-files", "for-all"):
                copy = cluster.Root(node) / "etc/ganeti" / name
                assert copy.read_bytes() == (etc / name).read_bytes()
        assert cluster.Problems() == []

    def test_instance(self, cluster):
        """An instance on another node: its disk and its OS scripts are there, and only there."""
        instance = "instance1.example.com"
        options = "-t file -s 16 -o noop+default -n node2 --net 0:link=br0"
        cluster.Ok(f"gnt-instance add {options} instance1")
        assert cluster.Listing("gnt-instance", "name,pnode,status") == [
            [instance, NODE2, "running"]
        ]
        disk = f"srv/ganeti/file-storage/{instance}/disk0"
        assert (cluster.Root("node2") / disk).stat().st_size == 16 * 2**20
        assert not (cluster.Root("node1") / disk).exists()
        assert cluster.Problems() == []
        assert instance in cluster.Fails("gnt-node remove node2")
        cluster.Ok("gnt-instance remove -f instance1")
        assert not (cluster.Root("node2") / disk).exists()

    def test_rename(self, cluster):
        """Another name and address; the nodes know each other by it, over SSH too."""
        cluster.Ok("gnt-cluster rename -f cluster2")
        addresses = cluster.Ok("ip -o addr show dev br0")
        assert "192.0.2.2/32" in addresses
        assert "192.0.2.1/32" not in addresses
        assert cluster.Ok("gnt-cluster command hostname").count("return code = 0") == 3
        for node in ("node1", "node2", "node3"):
            assert cluster.Data("known_hosts", node).read_text().startswith("cluster2.example.com ")
        assert cluster.Problems() == []


class TestNodeDaemon:
    """The node daemon of a real node, as root."""

    def test_memory_is_locked(self, cluster):
        """NA1: all of it, and that of the processes that serve calls."""
        for node in ("node1", "node2", "node3"):
            pid = cluster.Ok("cat /run/ganeti/ganeti-noded.pid", node=node).strip()
            status = cluster.Ok(f"cat /proc/{pid}/status", node=node)
            values = {
                line.split()[0]: int(line.split()[1])
                for line in status.splitlines()
                if line.startswith(("VmLck:", "VmRSS:"))
            }
            assert values["VmLck:"] >= values["VmRSS:"] * 0.9, status

    def test_log_goes_to_the_console(self, cluster):
        """NA2: what the full disk does not take is on the console of that node; calls go on."""
        restart = "daemon-util stop ganeti-noded; daemon-util start ganeti-noded"
        logs = "/var/log/ganeti"
        cluster.Ok(f"mount -t tmpfs -o size=16k none {logs}", node="node3")
        cluster.Ok(f"cat /dev/zero > {logs}/fill 2>/dev/null; {restart}", node="node3")
        try:
            assert [NODE3, "?"] not in cluster.Listing("gnt-node", "name,mtotal")
            assert "PUT /node_info" in cluster.Do("console", "node3")
            assert cluster.Do("console", "node2") == ""
        finally:
            cluster.Ok(f"umount -l {logs}; {restart}", node="node3")
        assert cluster.Problems() == []

    def test_storage(self, cluster):
        """SU1: the file storage of every node, in one listing."""
        fields = "node,type,name,allocatable"
        rows = cluster.Listing("gnt-node", fields, "-storage -t file")
        place = "/srv/ganeti/file-storage"
        assert rows == [[node, "file", place, "Y"] for node in (NODE1, NODE2, NODE3)]


class TestLost:
    """Nodes that are cut off or dead fail what needs them in seconds, and nothing else."""

    def test_two_nodes(self, cluster):
        """One is cut off in the middle of a long call, then one loses its power (JQ2)."""
        boot_ids = dict(cluster.Listing("gnt-node", "name,bootid"))
        argv = cluster.Command("gnt-debug", "delay", "--no-master", "-n", "node3", "25")
        proc = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        running = "gnt-job list --no-headers -o status,summary"
        WaitFor(
            lambda: "running TEST_DELAY(25" in " ".join(cluster.Ok(running).split()),
            what="the job",
        )
        # The call is under way a moment later.
        time.sleep(0.5)
        cluster.Do("cut", "node3")
        start = time.monotonic()
        # All at the same time, so that one wait is enough.
        with ThreadPoolExecutor() as pool:
            listing = pool.submit(cluster.Listing, "gnt-node", "name,mtotal")
            # Jobs on other nodes do not notice.
            cluster.Ok("gnt-debug delay --no-master -n node2 0.1")
            assert time.monotonic() - start < 15
            cluster.Do("kill", "node2")
            # Changes of the configuration go on without both.
            cluster.Ok("gnt-cluster add-tags while-nodes-were-lost")
            cluster.Do("start", "node2")
            # A call that may take hours does not wait for a node that has gone.
            said = proc.communicate(timeout=40)[0]
            assert proc.returncode == 1
            assert [row[0] for row in listing.result() if row[1] == "?"] == [NODE3]
        assert time.monotonic() - start < 45
        assert "node3.example.com" in said
        assert "whether it was carried out is not known" in said

        # What node2 missed comes by itself.
        for name in ("ganeti-noded", "ganeti-confd"):
            cluster.WaitForDaemon(name, "node2")
        WaitFor(
            lambda: (
                cluster.Data("config.data", "node2").read_bytes()
                == cluster.Data("config.data").read_bytes()
            ),
            timeout=40,
            what="the configuration on node2",
        )
        tags = cluster.Data("ssconf_cluster_tags", "node2")
        WaitFor(lambda: tags.read_text() == "while-nodes-were-lost\n", what="the tags on node2")
        after = dict(cluster.Listing("gnt-node", "name,bootid"))
        assert [after[name] == boot_ids[name] for name in (NODE1, NODE2)] == [True, False]
        assert after[NODE3] == "?"

    def test_reported(self, cluster):
        """So is a node that is cut off from the network for replication alone."""
        cluster.Do("cut", "node2", "--network=secondary")
        try:
            found = cluster.Problems()
        finally:
            cluster.Do("mend", "node2")
        for code in ("ENODERPC", "ENODESSH", "ENODENET"):
            assert [line for line in found if f":{code}:" in line and NODE3 in line], found
        said = cluster.Run("gnt-cluster command -n node3 hostname")
        assert said.code == 1
        assert "No route to host" in said.out
        of_node2 = [line for line in found if NODE2 in line and NODE3 not in line]
        assert of_node2
        assert all(":ENODENET:" in line and "secondary" in line for line in of_node2), found

    def test_offline(self, cluster):
        """What is marked offline is not asked, and costs no time; nor does the marking."""
        start = time.monotonic()
        cluster.Ok("gnt-node modify --offline=yes node3")
        assert time.monotonic() - start < 10
        start = time.monotonic()
        assert cluster.Problems() == []
        said = cluster.Run("gnt-cluster command hostname")
        assert "skipping offline node(s): node3.example.com" in said.err
        assert time.monotonic() - start < 10

    def test_readd(self, cluster):
        cluster.Do("mend", "node3")
        AddNode(cluster, "node3", "--readd", known=True, password=None)
        assert cluster.Problems() == []
        for name in ("config.data", "ssconf_offline_nodes"):
            assert cluster.Data(name, "node3").read_bytes() == cluster.Data(name).read_bytes()


class TestPower:
    """A node restarts itself; the master's power goes."""

    def test_powercycle(self, cluster):
        """NA3: gnt-node powercycle ends the node for real, and that node alone."""
        boot_id = dict(cluster.Listing("gnt-node", "name,bootid"))[NODE3]
        # The fake hypervisor does it for tests alone.
        restart = "daemon-util stop ganeti-noded && daemon-util start ganeti-noded"
        cluster.Ok(f"export GANETI_FAKE_POWERCYCLE=1; {restart}", node="node3")
        cluster.Ok("gnt-node powercycle --yes node3")
        down = f"{NODE3} 192.0.2.13 198.51.100.13 down"
        WaitFor(lambda: down in cluster.Do("status"), timeout=20, what="the restart of node3")
        assert cluster.Do("status").count(" up ") == 2
        cluster.Do("start", "node3")
        cluster.WaitForDaemon("ganeti-noded", "node3")
        assert dict(cluster.Listing("gnt-node", "name,bootid"))[NODE3] != boot_id

    def test_master(self, cluster):
        """CF5: with the master's power gone the candidates' confd answers; JQ1, JQ5: when it
        comes back it finds its jobs, asks the others and is the master again."""
        jobs = len(cluster.Listing("gnt-job", "id"))
        cluster.Do("kill", "node1")
        try:
            out = cluster.Ok(f"{layout.TREE}/tools/confd-client master", node="node2")
        finally:
            cluster.Do("start", "node1")
        assert NODE1 in out
        WaitFor(lambda: cluster.Run("gnt-cluster version").code == 0, timeout=60, what="a master")
        WaitFor(lambda: cluster.Run("gnt-node list").code == 0, timeout=60, what="the master")
        assert len(cluster.Listing("gnt-job", "id")) == jobs
        assert "192.0.2.2/32" in cluster.Ok("ip -o addr show dev br0")
        assert cluster.Problems() == []


class TestEnd:
    """gnt-node remove and gnt-cluster destroy leave clean machines (BASE1)."""

    def test_remove(self, cluster):
        cluster.Ok("gnt-node remove node2")
        assert HasNothing(cluster, "node2")
        assert sorted(path.name for path in cluster.Data("", "node2").iterdir()) == ["queue"]
        assert NODE2 not in (cluster.Root("node1") / "etc/hosts").read_text()
        assert NODE2 not in (cluster.Root("node3") / "etc/hosts").read_text()
        ssh = cluster.Run("ssh -o BatchMode=yes -o StrictHostKeyChecking=no node2 hostname")
        assert "Permission denied" in ssh.err
        assert cluster.Problems() == []

    def test_removed_node_can_join_again(self, cluster):
        AddNode(cluster, "node2", "--secondary-ip=198.51.100.12", "--no-ssh-key-check", known=True)
        assert cluster.Problems() == []

    def test_remove_a_dead_node(self, cluster):
        cluster.Do("kill", "node2")
        said = cluster.Ok("gnt-node remove node2")
        assert "Node node2.example.com could not clean itself" in said
        assert [row[0] for row in cluster.Listing("gnt-node", "name")] == [NODE1, NODE3]
        cluster.Do("start", "node2")

    def test_destroy(self, cluster):
        said = cluster.Fails("gnt-cluster destroy --yes-do-it")
        assert "node3.example.com" in said
        cluster.Ok("gnt-node remove node3")
        assert "--yes-do-it" in cluster.Fails("gnt-cluster destroy")
        key = (cluster.Root("node1") / "root/.ssh/id_ed25519.pub").read_text()
        cluster.Ok("gnt-cluster destroy --yes-do-it")
        WaitFor(
            lambda: "ganeti-" not in cluster.Ok("ps -e -o args="), what="the end of all daemons"
        )
        assert not [name for name in SECRETS if cluster.Data(name).exists()]
        assert "192.0.2.2/32" not in cluster.Ok("ip -o addr show dev br0")
        assert key not in (cluster.Root("node1") / "root/.ssh/authorized_keys").read_text()
        assert (
            layout.PASSWORD
            not in subprocess.run(
                cluster.Command("ls /var/log/ganeti; grep -rl 'root of the' /var/log || true"),
                capture_output=True,
                text=True,
            ).stdout
        )
