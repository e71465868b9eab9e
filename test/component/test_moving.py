"""Instances change nodes, on a virtual cluster with the fake hypervisor: with shared disk files and
by copies, alone and all of a node, also away from nodes that are dead."""

import json
import os
import re
import threading

import pytest

from vc import WaitFor

NAME = "moving1.example.com"
NODES = ["node1", "node2", "node3"]
SHARED = "srv/ganeti/shared-file-storage"


@pytest.fixture
def ready(cluster):
    """The cluster without instances, all nodes alive and online."""
    yield cluster
    for node in NODES[1:]:
        cluster.Vcluster("start", node)
        cluster.Run("gnt-node", "modify", "-f", "--offline=no", f"{node}.example.com")
    for (name,) in cluster.Table("gnt-instance", "list", "-o", "name"):
        cluster.Run("gnt-instance", "remove", "-f", "--ignore-failures", name)


def Add(cluster, node="node2", template="sharedfile", name=NAME):
    cluster.Ok(
        "gnt-instance", "add", "-t", template, "-s", "16", "-o", "noop+default", "--no-name-check",
        "--no-ip-check", "-n", f"{node}.example.com", name,
    )  # fmt: skip


def Primary(cluster, name=NAME):
    ((node,),) = cluster.Table("gnt-instance", "list", "-o", "pnode", name)
    return node.split(".")[0]


def RunsOn(cluster, name=NAME):
    """Where the fake hypervisors have it."""
    return [
        node
        for node in NODES
        if (cluster.Root(node) / "var/run/ganeti/fake-hypervisor" / name).exists()
    ]


def Disk(cluster, node, name=NAME, directory=SHARED):
    return cluster.Root(node) / directory / name / "disk0"


class TestSharedFile:
    """Failover and migration around three nodes, one of which is killed."""

    def test_around(self, ready):
        Add(ready)
        Disk(ready, "node2").write_bytes(b"what the guest has written")
        assert (Primary(ready), RunsOn(ready)) == ("node2", ["node2"])

        out = ready.Ok("gnt-instance", "migrate", "-f", "-n", "node3.example.com", NAME)
        assert "* done" in out
        assert (Primary(ready), RunsOn(ready)) == ("node3", ["node3"])
        assert not (ready.Root("node2") / f"var/run/ganeti/instance-disks/{NAME}:0").exists()

        ready.Ok("gnt-instance", "failover", "-f", "-n", "node1.example.com", NAME)
        assert (Primary(ready), RunsOn(ready)) == ("node1", ["node1"])

        ready.Ok("gnt-instance", "migrate", "-f", "--non-live", "-n", "node2.example.com", NAME)
        assert (Primary(ready), RunsOn(ready)) == ("node2", ["node2"])
        assert Disk(ready, "node3").read_bytes() == b"what the guest has written"
        ready.Ok("gnt-cluster", "verify")

    def test_killed_node(self, ready):
        Add(ready)
        ready.Vcluster("kill", "node2")
        result = ready.Run("gnt-instance", "failover", "-f", "-n", "node3.example.com", NAME)
        assert result.code == 1
        assert "--ignore-consistency" in result.err
        assert Primary(ready) == "node2"
        # It is switched off, so nothing runs there any more.
        os.unlink(ready.Root("node2") / "var/run/ganeti/fake-hypervisor" / NAME)
        ready.Ok("gnt-node", "modify", "-f", "--offline=yes", "node2.example.com")
        out = ready.Ok("gnt-node", "failover", "-f", "-n", "node3.example.com", "node2")
        assert "All 1 instance(s) failed over successfully." in out
        assert (Primary(ready), RunsOn(ready)) == ("node3", ["node3"])

    def test_target_dies_after_the_checks(self, ready):
        Add(ready)
        pid = ready.Root("node3") / "var/run/ganeti/ganeti-noded.pid"
        hooks = ready.Root("node1") / "etc/ganeti/hooks/instance-migrate-pre.d"
        os.makedirs(hooks, exist_ok=True)
        script = hooks / "10die"
        script.write_text(f"#!/bin/sh\nkill -9 $(cat {pid})\n")
        script.chmod(0o755)
        try:
            result = ready.Run(
                "gnt-instance", "migrate", "-f", "-n", "node3.example.com", NAME, timeout=150
            )
        finally:
            script.unlink()
        assert result.code == 1
        assert "node3.example.com" in result.err
        assert (Primary(ready), RunsOn(ready)) == ("node2", ["node2"])
        assert "--cleanup" in result.out
        ready.Vcluster("start", "node3")
        ready.Ok("gnt-instance", "migrate", "-f", "--cleanup", "-n", "node3.example.com", NAME)
        ready.Ok("gnt-instance", "migrate", "-f", "-n", "node3.example.com", NAME)
        assert (Primary(ready), RunsOn(ready)) == ("node3", ["node3"])

    def test_cleanup(self, ready):
        """It is on another node than the cluster believes."""
        Add(ready)
        source, target = (
            ready.Root(node) / "var/run/ganeti/fake-hypervisor" / NAME
            for node in ("node2", "node3")
        )
        os.rename(source, target)
        out = ready.Ok("gnt-instance", "migrate", "-f", "--cleanup", NAME)
        assert "instance running on node3.example.com" in out
        assert (Primary(ready), RunsOn(ready)) == ("node3", ["node3"])

    def test_a_node_that_does_not_share(self, ready):
        Add(ready)
        link = ready.Root("node3") / SHARED
        place = os.readlink(link)
        os.unlink(link)
        os.makedirs(link)
        try:
            result = ready.Run("gnt-instance", "migrate", "-f", "-n", "node3.example.com", NAME)
        finally:
            os.rmdir(link)
            os.symlink(place, link)
        assert result.code == 1
        assert "which all nodes should share" in result.err
        assert (Primary(ready), RunsOn(ready)) == ("node2", ["node2"])

    def test_renamed(self, ready):
        Add(ready)
        Disk(ready, "node2").write_bytes(b"data")
        ready.Ok("gnt-instance", "shutdown", NAME)
        new = "moving2.example.com"
        hosts = ready.Root() / "etc/hosts"
        before = hosts.read_text()
        hosts.write_text(f"{before}\n127.99.99.99\t{new}\n")
        try:
            ready.Ok("gnt-instance", "rename", "--no-ip-check", NAME, new)
        finally:
            hosts.write_text(before)
        assert Disk(ready, "node3", new).read_bytes() == b"data"
        ready.Ok("gnt-instance", "failover", "-f", "-n", "node1.example.com", new)
        ready.Ok("gnt-instance", "startup", new)
        assert RunsOn(ready, new) == ["node1"]
        ready.Ok("gnt-instance", "remove", "-f", new)
        assert not Disk(ready, "node1", new).parent.exists()


class TestNode:
    """SU6: all instances of a node."""

    def test_migrate(self, ready):
        names = [f"moving{number}.example.com" for number in (1, 2, 3)]
        for name in names:
            Add(ready, name=name)
        out = ready.Ok("gnt-node", "migrate", "-f", "-n", "node3.example.com", "node2")
        assert out.splitlines()[-1] == "All 3 instance(s) migrated successfully."
        for name in names:
            assert f"for {name}" in out
            assert (Primary(ready, name), RunsOn(ready, name)) == ("node3", ["node3"])

    def test_remote_api(self, ready):
        Add(ready)
        status, features = ready.Rapi("GET", "/2/features")
        assert (status, "node-migrate-reqv1" in features) == (200, True)
        body = {"mode": "live", "target_node": "node1.example.com"}
        status, job = ready.Rapi("POST", "/2/nodes/node2.example.com/migrate", body)
        assert status == 200
        (moves,) = self._Wait(ready, job)
        (((ok, move),),) = [moves["jobs"]]
        assert ok
        self._Wait(ready, move)
        assert (Primary(ready), RunsOn(ready)) == ("node1", ["node1"])
        for what, node in (("migrate", "node3"), ("failover", "node2")):
            status, job = ready.Rapi(
                "PUT", f"/2/instances/{NAME}/{what}", {"target_node": f"{node}.example.com"}
            )
            assert status == 200
            self._Wait(ready, job)
            assert (Primary(ready), RunsOn(ready)) == (node, [node])

    def _Wait(self, cluster, job):
        """The results of a job that must succeed."""

        def _Done():
            _, found = cluster.Rapi("GET", f"/2/jobs/{job}")
            return found if found["status"] in ("success", "error", "canceled") else None

        found = WaitFor(_Done, what=f"the end of job {job}")
        assert found["status"] == "success", json.dumps(found["opresult"])
        return found["opresult"]

    def test_refused(self, ready):
        Add(ready, template="file")
        result = ready.Run("gnt-node", "migrate", "-f", "node2")
        assert result.code == 1
        assert "wrong_state" in result.err
        result = ready.Run("gnt-node", "failover", "-f", "node2")
        assert result.code == 1
        assert "1 error(s) out of 1 instance(s)." in result.out


class TestMove:
    def test_moved(self, ready):
        Add(ready, template="file")
        directory = "srv/ganeti/file-storage"
        content = os.urandom(100000)
        with open(Disk(ready, "node2", directory=directory), "r+b") as fobj:
            fobj.seek(5 * 2**20)
            fobj.write(content)
        out = ready.Ok("gnt-instance", "move", "-f", "-n", "node3.example.com", NAME)
        assert "Copying disk 0" in out
        assert (Primary(ready), RunsOn(ready)) == ("node3", ["node3"])
        moved = Disk(ready, "node3", directory=directory).read_bytes()
        assert len(moved) == 16 * 2**20
        assert moved.strip(b"\0") == content.strip(b"\0")
        assert not Disk(ready, "node2", directory=directory).parent.exists()
        # To the master, whose paths its daemon knows by another name.
        ready.Ok("gnt-instance", "move", "-f", "-n", "node1.example.com", NAME)
        assert Disk(ready, "node1", directory=directory).read_bytes() == moved
        assert RunsOn(ready) == ["node1"]
        ready.Ok("gnt-instance", "move", "-f", "-n", "node2.example.com", NAME)
        assert Disk(ready, "node2", directory=directory).read_bytes() == moved
        ready.Ok("gnt-cluster", "verify")

    def test_no_room(self, ready):
        """The target refuses: nothing is left there, and it runs where it was."""
        Add(ready, template="file")
        place = ready.Root("node3") / "srv/ganeti/file-storage" / NAME
        place.write_text("in the way")
        try:
            result = ready.Run("gnt-instance", "move", "-f", "-n", "node3.example.com", NAME)
        finally:
            place.unlink()
        assert result.code == 1
        assert (Primary(ready), RunsOn(ready)) == ("node2", ["node2"])


class TestTogether:
    def test_there_and_back_while_others_look(self, ready):
        """Commands that only look are not held up, and each sees it on one node."""
        Add(ready)
        seen, problems = [], []

        def _Look():
            while not done.is_set():
                result = ready.Run("gnt-instance", "list", "--no-headers", "-o", "pnode", NAME)
                (seen if result.code == 0 else problems).append(result.out + result.err)

        done = threading.Event()
        looker = threading.Thread(target=_Look)
        looker.start()
        try:
            for node in ("node3", "node1", "node2"):
                ready.Ok("gnt-instance", "migrate", "-f", "-n", f"{node}.example.com", NAME)
        finally:
            done.set()
            looker.join()
        assert not problems
        assert all(re.fullmatch(r"node[123]\.example\.com\n", text) for text in seen)
        assert RunsOn(ready) == ["node2"]
