"""OS definitions on nodes that differ: what is listed, what is installed, what goes wrong.

OS1, OS2.
"""

import shutil
import subprocess
import time

import psutil
import pytest

INST = "inst1.example.com"


@pytest.fixture(scope="module")
def cluster(NewCluster):
    return NewCluster("--nodes=2")


def Define(cluster, name, variants=None, create="exit 0", nodes=("node1", "node2"), api="15"):
    """Install a definition on nodes."""
    for node in nodes:
        path = cluster.Root(node) / "srv/ganeti/os" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        (path / "ganeti_api_version").write_text(f"{api}\n")
        for script in ("create", "import", "export", "rename"):
            body = create if script == "create" else "exit 0"
            (path / script).write_text(f"#!/bin/bash\n{body}\n")
            (path / script).chmod(0o755)
        if variants is not None:
            (path / "variants.list").write_text("".join(f"{one}\n" for one in variants))
    return path


def Add(cluster, os_type, *args, node="node1"):
    return cluster.Run(
        *("gnt-instance", "add", "-t", "file", "--disk=0:size=16m", "-n", node, "-o", os_type),
        *("--no-name-check", "--no-ip-check", *args, INST),
    )


def Remove(cluster):
    cluster.Ok("gnt-instance", "remove", "-f", INST)


def Listed(cluster):
    return cluster.Ok("gnt-os", "list", "--no-headers").split()


class TestVariants:
    """OS2: the product of what is valid on all nodes; others only by force."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def two(cls, cluster):
        # Shows what it got.
        create = 'echo "api $OS_API_VERSION variant $OS_VARIANT" > "$DISK_0_PATH"'
        Define(cluster, "two", ["a", "b", "c"], create, ["node1"])
        Define(cluster, "two", ["c", "b", "d"], create, ["node2"])
        Define(cluster, "old", ["ignored"], create, api="10")
        Define(cluster, "lonely", ["x"], create, ["node2"])

    def test_list(self, cluster):
        names = Listed(cluster)
        assert [name for name in names if "two" in name] == ["two+b", "two+c"]
        assert "old" in names
        assert not [name for name in names if "lonely" in name]

    def test_diagnose(self, cluster):
        result = cluster.Run("gnt-os", "diagnose")
        assert result.code == 1
        place = cluster.Root("node2") / "srv/ganeti/os/lonely"
        assert "OS: two [global status: valid]\n  Variants: [b, c]\n" in result.out
        assert (
            "OS: lonely [global status: partial valid]\n"
            f"  Node: node2.example.com, status: valid (path: {place}) [variants: x]\n"
            "  Node: node1.example.com, status: OS not found\n"
        ) in result.out

    @pytest.mark.parametrize(
        ("os_type", "args", "got"),
        [
            ("two+c", [], "api 15 variant c"),
            ("two+a", [], "api 15 variant a"),
            ("two+zz", ["--force-variant"], "api 15 variant zz"),
            ("two", ["--force-variant"], "api 15 variant a"),
            ("old", [], "api 10 variant "),
        ],
    )
    def test_installed(self, cluster, os_type, args, got):
        result = Add(cluster, os_type, *args)
        assert result.code == 0, result.err
        (disk,) = (cluster.Root() / f"srv/ganeti/file-storage/{INST}").iterdir()
        assert disk.read_bytes().partition(b"\n")[0].decode() == got
        Remove(cluster)

    @pytest.mark.parametrize(
        "os_type", ["two", "two+d", "two+zz", "lonely+x", "nothing", "old+x+y"]
    )
    def test_refused(self, cluster, os_type):
        """The node of the instance judges, before anything is done; without variants all goes."""
        result = Add(cluster, os_type)
        if os_type.startswith("old"):
            assert result.code == 0, result.err
            Remove(cluster)
            return
        assert result.code == 1
        assert os_type.partition("+")[0] in result.err
        assert cluster.Table("gnt-instance", "list", "-o", "name") == []


class TestScriptsThatFail:
    """OS1: the end of what the script wrote is shown, its exit code, and where the rest is."""

    def test_exit_code(self, cluster):
        Define(cluster, "fails", create="seq 1 30; echo 'no mirror answers' >&2; exit 42")
        result = Add(cluster, "fails", node="node2")
        assert result.code == 1
        (log,) = (cluster.Root("node2") / "var/log/ganeti/os").glob(f"add-fails-{INST}-*.log")
        for text in ("exit code 42", str(log), "\n12\n13\n", "no mirror answers"):
            assert text in result.err
        assert "\n11\n" not in result.err
        # The instance is there, to be reinstalled or removed.
        assert cluster.Table("gnt-instance", "list", "-o", "name,status") == [[INST, "ADMIN_down"]]
        Define(cluster, "fails", create="echo again $INSTANCE_REINSTALL; exit 0")
        cluster.Ok("gnt-instance", "reinstall", "-f", INST)
        Remove(cluster)

    def test_hanging(self, cluster):
        """It is ended with all that it started; the limit is the node's."""
        limit = cluster.Root("node2") / "etc/ganeti/os-timeout"
        limit.parent.mkdir(parents=True, exist_ok=True)
        limit.write_text("1\n")
        # Ignores what it is asked, and has children in groups of their own.
        body = (
            "trap '' TERM; timeout 86404.5 sleep 86404.5 & echo hangs; sleep 86404.5; sleep 86404.5"
        )
        Define(cluster, "hangs", create=body)
        start = time.monotonic()
        result = Add(cluster, "hangs", node="node2")
        assert time.monotonic() - start < 30
        assert result.code == 1
        assert "timeout of 1 s reached" in result.err
        assert "\nhangs" in result.err
        assert not [
            p for p in psutil.process_iter(["cmdline"]) if "86404.5" in (p.info["cmdline"] or [])
        ]
        limit.unlink()
        Remove(cluster)

    def test_background_process(self, cluster):
        """What a script leaves behind is its business, and holds up nobody."""
        Define(cluster, "leaves", create="sleep 86405.5 & exit 0")
        start = time.monotonic()
        result = Add(cluster, "leaves")
        assert result.code == 0, result.err
        assert time.monotonic() - start < 30
        for proc in psutil.process_iter(["cmdline"]):
            if "86405.5" in (proc.info["cmdline"] or []):
                proc.kill()
        Remove(cluster)

    def test_endless_output(self, cluster):
        limit = cluster.Root() / "etc/ganeti/os-timeout"
        limit.parent.mkdir(parents=True, exist_ok=True)
        limit.write_text("2\n")
        Define(cluster, "endless", create="echo begin; yes")
        result = Add(cluster, "endless")
        assert result.code == 1
        (log,) = (cluster.Root() / "var/log/ganeti/os").glob(f"add-endless-{INST}-*.log")
        assert log.stat().st_size < 17 * 2**20
        assert log.read_bytes().startswith(b"begin\ny\n")
        found = subprocess.run(
            ["grep", "-c", "bytes left out", log], capture_output=True, text=True
        )
        assert found.stdout == "1\n"
        limit.unlink()
        Remove(cluster)
