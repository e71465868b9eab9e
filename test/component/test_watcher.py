"""The watcher and the cleaner on a virtual cluster (BASE3)."""

import fcntl
import json
import os
import signal
import threading
import time

import pytest

from vc import WaitFor

INSTANCE = "inst1.example.com"
OTHER = "inst2.example.com"


@pytest.fixture(scope="module")
def cluster(NewCluster):
    cluster = NewCluster("--nodes=2")
    for name, node in ((INSTANCE, "node2"), (OTHER, "node1")):
        cluster.Ok(
            *("gnt-instance", "add", "--no-name-check", "--no-ip-check", "-n", node),
            *("-t", "file", "--disk=0:size=4m", "-o", "noop+default", "-B", "memory=32", name),
        )
    return cluster


def Pid(cluster, daemon, node="node1"):
    path = cluster.Root(node) / f"var/run/ganeti/ganeti-{daemon}.pid"
    try:
        pid = int(path.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid


def Kill(cluster, daemon, node="node1"):
    pid = Pid(cluster, daemon, node)
    os.kill(pid, signal.SIGKILL)
    WaitFor(lambda: Pid(cluster, daemon, node) is None, 10, f"the end of {daemon}")


def Watch(cluster, *options, node="node1", code=0):
    result = cluster.Vcluster("exec", "--node", node, "--", "ganeti-watcher", *options)
    assert (result.code, result.out, result.err) == (code, "", ""), Log(cluster, node)


def Log(cluster, node="node1"):
    return (cluster.Root(node) / "var/log/ganeti/watcher.log").read_text()


def State(cluster):
    return json.loads(cluster.Data("watcher.data").read_text())


def Crash(cluster, name=INSTANCE, node="node2"):
    """End an instance behind the master's back."""
    (cluster.Root(node) / "var/run/ganeti/fake-hypervisor" / name).unlink()
    assert Status(cluster, name) == "ERROR_down"


def Status(cluster, name=INSTANCE):
    return cluster.Table("gnt-instance", "list", "-o", "status", name)[0][0]


def Jobs(cluster):
    return cluster.Table("gnt-job", "list", "-o", "id,summary")


class TestQuiet:
    """Nothing is wrong: nothing is done, and nothing said."""

    def test_run(self, cluster):
        Watch(cluster)
        before = [job for job in Jobs(cluster) if "STARTUP" in job[1]]
        Watch(cluster)
        assert [job for job in Jobs(cluster) if "STARTUP" in job[1]] == before
        assert " ERROR " not in Log(cluster)
        assert not [job for job in Jobs(cluster) if "QUERY" in job[1]], "they are archived"

    def test_instance_status(self, cluster):
        text = (cluster.Root() / "var/run/ganeti/instance-status").read_text()
        assert text == f"{INSTANCE} running\n{OTHER} running\n"

    def test_state(self, cluster):
        state = State(cluster)
        assert state["instance"] == {}
        assert set(state["node"]) == {"node1.example.com", "node2.example.com"}

    def test_options(self, cluster):
        for words, code in ((["x"], 1), (["--nosuch"], 2), (["-A", "soon"], 2)):
            assert cluster.Run("ganeti-watcher", *words).code == code
        assert cluster.Run("ganeti-watcher", "--version").out.startswith("ganeti-watcher (ganeti)")


class TestInstances:
    def test_comes_back(self, cluster):
        Crash(cluster)
        Watch(cluster)
        assert Status(cluster) == "running"
        assert State(cluster)["instance"][INSTANCE]["restart_count"] == 1
        assert f"Restarting {INSTANCE} (Attempt #1)" in Log(cluster)

    def test_is_forgotten_when_it_runs(self, cluster):
        Watch(cluster)
        assert State(cluster)["instance"] == {}

    def test_not_meant_to_run(self, cluster):
        cluster.Ok("gnt-instance", "shutdown", INSTANCE)
        Watch(cluster)
        assert Status(cluster) == "ADMIN_down"
        cluster.Ok("gnt-instance", "startup", INSTANCE)

    def test_giving_up(self, cluster):
        """Five attempts, a word, then silence; a start by hand ends that."""
        Crash(cluster)
        (disk,) = (cluster.Root("node2") / "srv/ganeti/file-storage" / INSTANCE).iterdir()
        disk.rename(disk.with_name("away"))
        for count in range(1, 8):
            Watch(cluster)
            assert State(cluster)["instance"][INSTANCE]["restart_count"] == min(count, 6)
        disk.with_name("away").rename(disk)
        assert Log(cluster).count(f"Giving up on {INSTANCE}") == 1
        assert Log(cluster).count(f"Can't restart {INSTANCE}") == 5
        cluster.Ok("gnt-instance", "startup", INSTANCE)
        Watch(cluster)
        assert State(cluster)["instance"] == {}

    def test_node_that_is_offline(self, cluster):
        cluster.Ok("gnt-node", "modify", "--offline=yes", "node2")
        before = Jobs(cluster)
        Watch(cluster)
        assert [job for job in Jobs(cluster) if job not in before] == []
        cluster.Ok("gnt-node", "modify", "--offline=no", "node2")


class TestDaemons:
    @pytest.mark.parametrize("node", ["node1", "node2"])
    @pytest.mark.parametrize("daemon", ["noded", "confd"])
    def test_of_every_node(self, cluster, daemon, node):
        Kill(cluster, daemon, node)
        Watch(cluster, node=node)
        assert Pid(cluster, daemon, node)

    @pytest.mark.parametrize("daemon", ["rapi", "masterd"])
    def test_of_the_master(self, cluster, daemon):
        Kill(cluster, daemon)
        Watch(cluster)
        assert Pid(cluster, daemon)

    def test_all_at_once(self, cluster):
        """As after a crash of the master, with an instance that is down."""
        Crash(cluster, OTHER, "node1")
        for daemon in ("rapi", "masterd", "confd", "noded"):
            Kill(cluster, daemon)
        Watch(cluster)
        assert Status(cluster, OTHER) == "running"
        assert all(Pid(cluster, daemon) for daemon in ("rapi", "masterd", "confd", "noded"))

    def test_master_daemons_are_left_alone_elsewhere(self, cluster):
        Watch(cluster, node="node2")
        assert Pid(cluster, "masterd", "node2") is None
        assert Pid(cluster, "rapi", "node2") is None

    def test_stopped_in_good_order(self, cluster):
        """It may be a failover: a master daemon that was stopped is not started at once."""
        cluster.Ok("daemon-util", "stop-master")
        Watch(cluster)
        assert Pid(cluster, "masterd") is None
        assert "maybe for a failover" in Log(cluster)
        socket_dir = cluster.Root() / "var/run/ganeti/socket"
        past = time.time() - 301
        os.utime(socket_dir, (past, past))
        Watch(cluster)
        assert Pid(cluster, "masterd") and Pid(cluster, "rapi")


class TestPause:
    def test_nothing_is_done(self, cluster):
        cluster.Ok("gnt-cluster", "watcher", "pause", "1h")
        Crash(cluster)
        Kill(cluster, "confd")
        log = Log(cluster)
        Watch(cluster)
        assert Status(cluster) == "ERROR_down"
        assert Pid(cluster, "confd") is None
        assert Log(cluster) == log
        cluster.Ok("gnt-cluster", "watcher", "continue")
        Watch(cluster)
        assert Status(cluster) == "running"
        assert Pid(cluster, "confd")

    def test_ignored(self, cluster):
        cluster.Ok("gnt-cluster", "watcher", "pause", "1h")
        Crash(cluster)
        Watch(cluster, "--ignore-pause")
        assert Status(cluster) == "running"
        cluster.Ok("gnt-cluster", "watcher", "continue")


class TestOneAtATime:
    def test_locked(self, cluster):
        Crash(cluster)
        with open(cluster.Data("watcher.data")) as fobj:
            fcntl.flock(fobj, fcntl.LOCK_EX)
            Watch(cluster, code=1)
            assert Status(cluster) == "ERROR_down"
        Watch(cluster)
        assert Status(cluster) == "running"


class TestHooks:
    def _Script(self, cluster, name, text, node="node1"):
        directory = cluster.Root(node) / "etc/ganeti/hooks/watcher"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def test_order_and_failures(self, cluster):
        out = cluster.Root() / "hooks.out"
        self._Script(cluster, "20-b", f"echo b $LC_ALL >> {out}")
        self._Script(cluster, "10-a", f"echo a >> {out}; echo so what; exit 3")
        self._Script(cluster, "30.no", f"echo no >> {out}")
        Watch(cluster)
        assert out.read_text() == "a\nb C\n"
        assert "Watcher hook 10-a failed (exited with exit code 3), output: so what" in Log(cluster)

    def test_one_that_hangs(self, cluster):
        """It is ended, and everything else is done."""
        (cluster.Root() / "etc/ganeti/hooks/timeout").write_text("1\n")
        self._Script(cluster, "10-a", "sleep 60")
        Crash(cluster)
        start = time.monotonic()
        Watch(cluster)
        assert time.monotonic() - start < 30
        assert Status(cluster) == "running"
        assert "Watcher hook 10-a failed" in Log(cluster)
        (cluster.Root() / "etc/ganeti/hooks/watcher/10-a").unlink()


class TestQueue:
    def test_old_jobs_are_archived(self, cluster):
        Watch(cluster, "-A", "0")
        assert Jobs(cluster) == []

    def test_drained(self, cluster):
        cluster.Ok("gnt-cluster", "queue", "drain")
        Crash(cluster)
        Watch(cluster)
        assert "No jobs can be submitted" in Log(cluster)
        cluster.Ok("gnt-cluster", "queue", "undrain")
        Watch(cluster)
        assert Status(cluster) == "running"


class TestHealth:
    def test_offline_node_ends_its_instances(self, cluster):
        """The candidates say that the node is offline: what still runs there is ended."""
        cluster.Ok("gnt-cluster", "modify", "--maintain-node-health=yes")
        Watch(cluster, node="node2")
        assert Status(cluster) == "running"
        cluster.Ok("gnt-node", "modify", "--offline=yes", "node2")
        path = cluster.Root("node2") / "var/run/ganeti/fake-hypervisor" / INSTANCE
        assert path.exists()
        WaitFor(
            lambda: cluster.Run("confd-client", "node-role", "node2.example.com").out == "offline\n"
        )
        Watch(cluster, node="node2")
        assert not path.exists()
        cluster.Ok("gnt-node", "modify", "--offline=no", "node2")
        Watch(cluster)
        assert Status(cluster) == "running"
        cluster.Ok("gnt-cluster", "modify", "--maintain-node-health=no")


class TestCleaner:
    """Archived jobs of more than 21 days, and all but 50 of its own logs."""

    def test_run(self, cluster):
        jobs = cluster.Data("queue/archive/0")
        old, young = sorted(jobs.iterdir())[:2]
        for path, days in ((old, 22), (young, 21.9)):
            past = time.time() - days * 86400
            os.utime(path, (past, past))
        logs = cluster.Root() / "var/log/ganeti/cleaner"
        logs.mkdir(exist_ok=True)
        for day in range(60):
            (logs / f"cleaner-2026-01-{day:02}T01_45.7.log").write_text("")
        result = cluster.Run("ganeti-cleaner")
        assert (result.code, result.out, result.err) == (0, "", "")
        assert (old.exists(), young.exists()) == (False, True)
        names = sorted(path.name for path in logs.iterdir())
        assert len(names) == 50
        text = (logs / names[-1]).read_text()
        assert text.startswith("Cleaner started at ")
        assert f"Removed {old}" in text


class TestFailover:
    """The last test: the cluster has another master afterwards."""

    def test_watchers_keep_out_of_it(self, cluster):
        """Watchers that run all the time on both nodes leave one master."""
        before = len(Log(cluster))
        result = []
        failover = threading.Thread(
            target=lambda: result.append(
                cluster.Vcluster("exec", "--node", "node2", "--", "gnt-cluster", "masterfailover")
            )
        )
        failover.start()
        while failover.is_alive():
            for node in ("node1", "node2"):
                cluster.Vcluster("exec", "--node", node, "--", "ganeti-watcher")
        assert result[0].code == 0, result[0].err
        for node in ("node1", "node2"):
            Watch(cluster, node=node)
        assert [bool(Pid(cluster, "masterd", node)) for node in ("node1", "node2")] == [False, True]
        assert "starting it" not in Log(cluster)[before:]

    def test_new_master_watches(self, cluster):
        path = cluster.Root("node2") / "var/run/ganeti/fake-hypervisor" / INSTANCE
        path.unlink()
        Watch(cluster)
        assert not path.exists()
        Watch(cluster, node="node2")
        assert path.exists()
