"""gnt-cluster on a running cluster: what it changes, finds, sends, refuses and ends.

The tests are one story: each finds what those before it left.
"""

import json

import pytest

from vc import WaitFor

NODES = [f"node{number}.example.com" for number in (1, 2, 3)]
NEW_NAME, NEW_ADDRESS = "other.example.com", "127.199.0.77"


def Problems(cluster, code=1):
    """What verify finds: (code, item, text)."""
    result = cluster.Run("gnt-cluster", "verify", "--json")
    assert result.code == code, result.out
    report = json.loads(result.out)
    assert report["good"] is (code == 0)
    return [(item["code"], item["item"], item["message"]) for item in report["problems"]]


def Info(cluster):
    return json.loads(cluster.Ok("gnt-cluster", "info", "--json"))


class TestModify:
    """PR1, UP2: parameters of the whole cluster."""

    @pytest.mark.parametrize(
        ("args", "fragment"),
        [
            (["-B", "memroy=128"], "memroy"),
            (["-B", "memory=lots"], "lots"),
            (["-N", "mode=tunneled"], "tunneled"),
            (["-D", "stripe=0"], "stripe"),
            (["-H", "kvm:disk_cache=warm"], "warm"),
            (["-H", "kvn:acpi=false"], "kvn"),
            (["-H", "kvm:kernel_path=/nosuch/kernel"], "/nosuch/kernel"),
            (["--enabled-hypervisors", "fake,kvn"], "kvn"),
            (["--enabled-hypervisors", "fake,fake"], "fake,fake"),
            (["--enabled-hypervisors", ""], "at least one"),
            (["-g", "xenvg"], "xenvg"),
            (["-g", ""], "--no-lvm-storage"),
            (["-g", "xenvg", "--no-lvm-storage"], "conflict"),
            (["-C", "0"], "at least 1"),
            (["--maintain-node-health", "maybe"], "maybe"),
            (["--uid-pool", "2000-1000"], "2000-1000"),
            (["--uid-pool", "1000-2000", "--add-uids", "1500-1600"], "overlap"),
            (["--remove-uids", "77"], "77"),
            (["--default-iallocator", "hail"], "hail"),
            (["--default-iallocator", "alocate:hail"], "alocate"),
            ([], "at least one"),
        ],
    )
    def test_refused(self, cluster, args, fragment):
        before = Info(cluster)
        # The good part of a request is not done either.
        more = ["-B", "vcpus=3"] if args and args[0] != "-B" else []
        result = cluster.Run("gnt-cluster", "modify", *args, *more)
        assert result.code == 1
        assert fragment in result.err
        assert "Traceback" not in result.err
        assert Info(cluster) == before

    def test_changed(self, cluster):
        cluster.Ok(
            "gnt-cluster", "modify", "-B", "memory=256", "-C", "2", "--maintain-node-health=yes",
            "--uid-pool", "1000-1009, 1020", "-D", "meta_flushes=false", "-H", "kvm:kernel_path=",
        )  # fmt: skip
        info = Info(cluster)
        assert info["beparams"]["default"]["memory"] == 256
        assert info["candidate_pool_size"] == 2
        assert info["maintain_node_health"] is True
        assert info["uid_pool"] == [[1000, 1009], [1020, 1020]]
        assert info["diskparams"]["default"]["meta_flushes"] is False
        for node in ("node1", "node3"):
            content = cluster.Data("ssconf_uid_pool", node).read_text()
            assert content == "1000-1009\n1020\n"
            assert cluster.Data("ssconf_maintain_node_health", node).read_text() == "True\n"
        cluster.Ok("gnt-cluster", "modify", "-B", "memory=default", "--remove-uids", "1020")
        info = Info(cluster)
        assert info["beparams"]["default"]["memory"] == 128
        assert info["uid_pool"] == [[1000, 1009]]

    def test_parameters_of_an_os(self, cluster):
        def Stored():
            return cluster.Config()["cluster"]["os_hvp"]

        cluster.Ok("gnt-os", "modify", "-H", "kvm:acpi=false,boot_order=network", "noop")
        assert Stored() == {"noop": {"kvm": {"acpi": False, "boot_order": "network"}}}
        for wrong in ("kvm:migration_port=9000", "kvm:acip=false", "kvn:acpi=false"):
            result = cluster.Run("gnt-os", "modify", "-H", wrong, "noop")
            assert result.code == 1
            assert "wrong_input" in result.err
        cluster.Ok("gnt-os", "modify", "-H", "kvm:-acpi", "noop")
        assert Stored() == {"noop": {"kvm": {"boot_order": "network"}}}
        cluster.Ok("gnt-os", "modify", "-H", "-kvm", "noop")
        assert Stored() == {}


class TestFiles:
    """RC1: what is to be alike on all nodes is found out if it is not, and sent."""

    def test_verify_and_redist_conf(self, cluster):
        assert Problems(cluster, code=0) == []
        for name in ("hmac.key", "rapi_users"):
            path = cluster.Data(name, "node2")
            path.write_bytes(path.read_bytes() + b"\n# changed\n")
        found = Problems(cluster)
        assert [(code, item) for code, item, _ in found] == [("ENODEFILECHECK", NODES[1])] * 2
        assert all("'gnt-cluster redist-conf' sends the master's" in text for *_, text in found)
        cluster.Ok("gnt-cluster", "redist-conf")
        assert Problems(cluster, code=0) == []

    def test_files_of_the_administrator(self, cluster):
        listed = cluster.Root() / "etc/ganeti/ancillary-files"
        motd = cluster.Root() / "etc/motd"
        motd.write_text("hello\n")
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("/etc/motd\n")
        codes = {code for code, *_ in Problems(cluster)}
        assert codes == {"ENODEFILECHECK"}
        cluster.Ok("gnt-cluster", "redist-conf")
        assert (cluster.Root("node3") / "etc/motd").read_text() == "hello\n"
        assert Problems(cluster, code=0) == []

    def test_copyfile(self, cluster):
        path = cluster.Root() / "etc/issue"
        path.write_text("copied\n")
        cluster.Ok("gnt-cluster", "copyfile", "-n", "node3", str(path))
        assert (cluster.Root("node3") / "etc/issue").read_text() == "copied\n"
        assert not (cluster.Root("node2") / "etc/issue").exists()
        for wrong in ("etc/issue", str(path.parent), "/nosuch"):
            assert cluster.Run("gnt-cluster", "copyfile", wrong).code == 1

    def test_command(self, cluster):
        result = cluster.Run("gnt-cluster", "command", "--parallel=3", "echo $GANETI_HOSTNAME")
        nodes = [line for line in result.out.splitlines() if line.startswith("node: ")]
        # The master is the last one.
        assert nodes == [f"node: {name}" for name in (NODES[1], NODES[2], NODES[0])]
        result = cluster.Run("gnt-cluster", "command", "-n", "node3", "exit 7")
        assert result.code == 1
        assert "return code = 7" in result.out


class TestVerify:
    """BASE1: what is wrong with a node is found."""

    def test_dead_node_and_offline_node(self, cluster):
        assert cluster.Vcluster("kill", "node3").code == 0
        found = Problems(cluster)
        assert [(code, item) for code, item, _ in found] == [
            ("ENODERPC", NODES[2]),
            ("ENODEHOOKS", NODES[2]),
        ]
        assert f"'gnt-node modify --offline yes {NODES[2]}'" in found[0][2]
        cluster.Ok("gnt-node", "modify", "--offline", "yes", NODES[2])
        assert Problems(cluster, code=0) == []
        result = cluster.Run("gnt-cluster", "verify", "-v")
        assert f"* Skipping offline node {NODES[2]}" in result.out
        assert "NOTICE: 1 offline node(s) found." in result.out

    def test_lines(self, cluster):
        result = cluster.Run("gnt-cluster", "verify", "--error-codes", "--debug-simulate-errors")
        assert result.code == 1
        lines = [line[25:].split(":") for line in result.out.splitlines() if "ERROR" in line]
        codes = {line[1] for line in lines}
        assert {"EINSTANCEDOWN", "ENODELVM", "ECLUSTERCFG"} <= codes
        assert all(len(line) >= 5 for line in lines)


class TestRename:
    def test_refused(self, cluster):
        for name, fragment in (
            ("nosuch.example.com", "resolve"),
            ("cluster.example.com", "already"),
            # It does not answer, but it is somebody's.
            (NODES[2], f"address of node {NODES[2]}"),
        ):
            result = cluster.Run("gnt-cluster", "rename", "-f", name)
            assert result.code == 1
            assert fragment in result.err
        # Nobody is there to say yes.
        assert cluster.Run("gnt-cluster", "rename", NEW_NAME).code == 1
        assert Info(cluster)["name"] == "cluster.example.com"

    def test_renamed(self, cluster):
        for number in (1, 2, 3):
            hosts = cluster.Root(f"node{number}") / "etc/hosts"
            hosts.write_text(f"{hosts.read_text()}{NEW_ADDRESS}\t{NEW_NAME}\n")
        cluster.Ok("gnt-cluster", "rename", "-f", NEW_NAME)
        assert Info(cluster)["name"] == NEW_NAME

        def Sent():
            return [
                cluster.Data(f"ssconf_{key}", node).read_text().strip()
                for node in ("node1", "node2")
                for key in ("cluster_name", "master_ip")
            ]

        WaitFor(lambda: Sent() == [NEW_NAME, NEW_ADDRESS] * 2)
        assert Problems(cluster, code=0) == []


class TestEnd:
    def test_not_by_accident(self, cluster):
        result = cluster.Run("gnt-cluster", "destroy")
        assert result.code == 1
        assert "--yes-do-it" in result.err
        result = cluster.Run("gnt-cluster", "destroy", "--yes-do-it")
        assert result.code == 1
        assert NODES[1] in result.err

    def test_destroyed(self, cluster):
        for node in NODES[1:]:
            cluster.Ok("gnt-node", "remove", node)
        cluster.Ok("gnt-cluster", "destroy", "--yes-do-it")
        result = cluster.Run("gnt-cluster", "info")
        assert result.code == 1
        assert "not initialised" in result.err
        assert not cluster.Data("config.data").exists()
