"""Dry runs as an operator sees them: what is printed, and that nothing has changed afterwards."""

import re
import subprocess

import pytest

from vc import WaitFor

NODE1, NODE2, NODE3 = (f"node{number}.example.com" for number in (1, 2, 3))
NAME = "inst1.example.com"
_ADD = (
    "gnt-instance", "add", "-t", "file", "--disk", "0:size=16m", "-o", "noop+default",
    "-n", NODE2, "--no-name-check", "--no-ip-check",
)  # fmt: skip


@pytest.fixture(scope="module")
def ready(cluster):
    cluster.Ok(*_ADD, NAME)
    return cluster


def Report(out):
    """The lines of a report, without their times."""
    lines = [re.sub(r"^\w{3} \w{3} [ \d]\d [\d:]{8} \d{4} ", "", line) for line in out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("Dry run of"))
    return lines[start:]


def State(cluster):
    """What a dry run must not touch."""
    nodes = [cluster.Root(node) / "srv/ganeti/file-storage" for node in ("node1", "node2", "node3")]
    return (
        [cluster.Data("config.data", node).read_bytes() for node in ("node1", "node2", "node3")],
        [sorted(str(path) for path in root.rglob("*")) for root in nodes],
        cluster.Table("gnt-instance", "list", "-o", "name,oper_state,status,tags"),
        cluster.Table("gnt-node", "list", "-o", "name,role,tags"),
    )


#: Commands, and lines that they must print.
COMMANDS = {
    "add": (
        [*_ADD[:2], "--dry-run", *_ADD[2:], "inst2.example.com"],
        [
            f"  locks: new instance inst2.example.com (exclusive), node {NODE2} (exclusive)",
            f"    on {NODE2}: create disk/0",
        ],
    ),
    "startup": (
        ["gnt-instance", "startup", "--dry-run", NAME],
        [f"    on {NODE2}: start it (which does nothing: it runs already)"],
    ),
    "shutdown": (
        ["gnt-instance", "shutdown", "--dry-run", NAME],
        [f"    instance {NAME}: admin_up true -> false"],
    ),
    "reboot": (
        ["gnt-instance", "reboot", "--dry-run", NAME],
        [f"    on {NODE2}: reboot it (hard)"],
    ),
    # Without a question.
    "remove": (
        ["gnt-instance", "remove", "--dry-run", NAME],
        [f"    on {NODE2}: remove disk/0", f"    instance {NAME}: removed"],
    ),
    "modify": (
        ["gnt-instance", "modify", "--dry-run", "-B", "memory=256", NAME],
        [f"    instance {NAME}: beparams/memory unset -> 256"],
    ),
    "grow": (
        ["gnt-instance", "grow-disk", "--dry-run", NAME, "0", "16m"],
        [f"    on {NODE2}: add 16 MiB to disk/0", f"    instance {NAME}: disks/0/size 16 -> 32"],
    ),
    "move": (
        ["gnt-instance", "move", "--dry-run", "-n", NODE3, NAME],
        [
            f"    on {NODE2}: copy disk/0 to {NODE3}",
            f"    instance {NAME}: primary_node {NODE2} -> {NODE3}",
        ],
    ),
    "info": (
        ["gnt-instance", "info", "--dry-run", NAME],
        ["  hooks: none", "  would change: nothing: it only looks"],
    ),
    "console": (
        ["gnt-instance", "console", "--dry-run", NAME],
        [f"  locks: instance {NAME} (shared)"],
    ),
    "drain": (
        ["gnt-node", "modify", "--dry-run", "--drained=yes", "--auto-promote", NODE3],
        ["  locks: all 3 nodes (exclusive)", f"    node {NODE3}: drained false -> true"],
    ),
    "remove-node": (
        ["gnt-node", "remove", "--dry-run", NODE3],
        [
            f"  hooks that ran: node-remove pre on {NODE1}, {NODE2} (no scripts)",
            f"    node {NODE3}: removed",
        ],
    ),
    "powercycle": (
        ["gnt-node", "powercycle", "--dry-run", NODE3],
        [f"    on {NODE3}: reset it, a few seconds later"],
    ),
    "tags": (
        ["gnt-node", "add-tags", "--dry-run", NODE2, "a", "b"],
        [f"    node {NODE2}: tags with a, b"],
    ),
    "cluster": (
        ["gnt-cluster", "modify", "--dry-run", "-B", "memory=256"],
        [
            f"  hooks that would run after it: cluster-modify post on {NODE1}; config-update post"
            f" on {NODE1}",
            "    cluster: beparams/default/memory 128 -> 256",
        ],
    ),
    "redist": (
        ["gnt-cluster", "redist-conf", "--dry-run"],
        [
            f"    on {NODE2}, {NODE3}: replace the shared files by the master's: hmac.key,"
            " rapi.pem, rapi_users"
        ],
    ),
    "sizes": (["gnt-cluster", "repair-disk-sizes", "--dry-run"], ["  would change: nothing"]),
    "verify": (["gnt-cluster", "verify", "--dry-run"], ["  would change: nothing: it only looks"]),
}


class TestCommands:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_says_what_it_would_do(self, ready, name):
        argv, expected = COMMANDS[name]
        before = State(ready)
        report = Report(ready.Ok(*argv))
        assert report[0].endswith("all checks passed, nothing was changed")
        for line in expected:
            assert line in report
        assert State(ready) == before

    def test_wrong_instance(self, ready):
        result = ready.Run("gnt-instance", "shutdown", "--dry-run", "nosuch")
        assert result.code == 1
        assert "Instance 'nosuch' not known" in result.err
        assert "Dry run of" not in result.out

    def test_refused(self, ready):
        result = ready.Run("gnt-cluster", "destroy", "--dry-run", "--yes-do-it")
        assert result.code == 1
        assert "remove them first" in result.err

    def test_remote_api(self, ready):
        status, job = ready.Rapi("PUT", f"/2/instances/{NAME}/shutdown?dry-run=1")
        assert status == 200

        def Ended():
            document = ready.Rapi("GET", f"/2/jobs/{job}")[1]
            return document if document["status"] in ("success", "error") else None

        document = WaitFor(Ended)
        assert document["status"] == "success"
        messages = [entry[-1] for entry in document["oplog"][0]]
        assert f"    instance {NAME}: admin_up true -> false" in messages


class TestDeadNode:
    def test_checks_fail_or_tell(self, ready):
        before = State(ready)
        assert ready.Vcluster("kill", "node2").code == 0
        try:
            result = ready.Run("gnt-instance", "startup", "--dry-run", NAME)
            assert result.code == 1
            assert NODE2 in result.out + result.err
            report = Report(ready.Ok("gnt-instance", "remove", "--dry-run", NAME))
            assert any(line.startswith(f"  does not answer now: {NODE2} (") for line in report)
            report = Report(ready.Ok("gnt-instance", "shutdown", "--dry-run", NAME))
            assert (
                f"  hooks that ran: instance-stop pre on {NODE1} (no scripts); not on {NODE2},"
                " which did not answer"
            ) in report
        finally:
            ready.Vcluster("start", "node2")
        WaitFor(lambda: State(ready) == before, what="the state of before")


class TestInit:
    """The init of a cluster, on a virtual node that is in none."""

    def Run(self, cluster, node, *args):
        argv = ["gnt-cluster", "init", "--dry-run", "--no-lvm-storage", "--no-ssh-init"]
        argv += ["--master-netdev=lo", "--enabled-hypervisors=fake", *args, "new.example.com"]
        env = {
            **cluster.env,
            "GANETI_ROOTDIR": str(cluster.Root(node)),
            "GANETI_HOSTNAME": f"{node}.example.com",
        }
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)

    def test_says_what_it_would_make(self, ready):
        root = ready.Root("node8")
        (root / "etc").mkdir(parents=True)
        (root / "etc/hosts").write_text(
            "127.99.1.8\tnode8.example.com\n127.99.1.9\tnew.example.com\n"
        )
        before = sorted(path for path in root.rglob("*") if "/log/" not in f"{path}/")
        result = self.Run(ready, "node8")
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        assert lines[0] == (
            "Dry run of the init of cluster new.example.com: all checks passed, nothing was changed"
        )
        assert f"    {root}/var/lib/ganeti/server.pem" in lines
        assert "  address of the cluster: 127.99.1.9 on lo" in lines
        after = sorted(path for path in root.rglob("*") if path.is_file())
        assert [path for path in after if "log" not in path.parts] == [
            path for path in before if path.is_file()
        ]
        result = self.Run(ready, "node8", "--master-netdev=nosuchdev")
        assert result.returncode == 1
        assert "'nosuchdev'" in result.stderr

    def test_refused_on_a_node(self, ready):
        result = self.Run(ready, "node1")
        assert result.returncode == 1
        assert "part of a cluster already" in result.stderr
