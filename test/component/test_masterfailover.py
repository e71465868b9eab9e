"""Another node becomes the master: what is refused, what goes on, what an old master may do."""

import json
import os
import signal
import subprocess

import pytest

from ganeti import constants, errors, luxi, opcodes
from vc import WaitFor

NODE1, NODE2, NODE3 = (f"node{i}.example.com" for i in (1, 2, 3))


class Nodes:
    """Commands on any node of a cluster."""

    def __init__(self, cluster):
        self.cluster = cluster
        self._clients = []

    def Run(self, node, *argv, timeout=90):
        return self.cluster.Vcluster("exec", "--node", node, "--", *argv, timeout=timeout)

    def Ok(self, node, *argv, **kwargs):
        result = self.Run(node, *argv, **kwargs)
        assert result.code == 0, f"{node} {argv}: {result.code}\n{result.out}\n{result.err}"
        return result.out

    def Kill(self, node):
        assert self.cluster.Vcluster("kill", node).code == 0

    def Daemon(self, node, action, name):
        util = os.path.join(os.path.dirname(self.cluster.Ok("which", "ganeti-noded").strip()), "")
        return self.Run(node, f"{util}daemon-util", action, name)

    def Pid(self, node, name):
        path = self.cluster.Root(node) / f"var/run/ganeti/{name}.pid"
        try:
            pid = int(path.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if os.path.exists(f"/proc/{pid}/exe") else None

    def Masters(self):
        """Nodes with a master daemon."""
        return [i for i in ("node1", "node2", "node3") if self.Pid(i, "ganeti-masterd")]

    def MakeMaster(self, node):
        """Begin a test with this one, whatever those before have left."""
        if self.Masters() != [node]:
            self.Ok(node, "gnt-cluster", "masterfailover")
        assert self.Masters() == [node]

    def Client(self, node):
        address = self.cluster.Root(node) / "var/run/ganeti/socket/ganeti-master"
        self._clients.append(luxi.Client(str(address)))
        return self._clients[-1]

    def Close(self):
        while self._clients:
            self._clients.pop().Close()

    def Named(self, node):
        return self.cluster.Data("ssconf_master_node", node).read_text().strip()

    def Serial(self, node):
        return self.cluster.Config(node)["serial_no"]


@pytest.fixture(scope="module")
def shared(cluster):
    return Nodes(cluster)


@pytest.fixture
def nodes(shared):
    yield shared
    shared.Close()


def _Tag(name):
    return [opcodes.OpTagsSet(kind=constants.TAG_CLUSTER, name="", tags=[name])]


class TestRefusals:
    """Nothing is changed where it must not be."""

    def test_on_the_master(self, nodes):
        result = nodes.Run("node1", "gnt-cluster", "masterfailover", "--no-voting")
        assert result.code == 1
        assert "error type: wrong_input" in result.err
        assert f"{NODE1} is the master already" in result.err

    def test_without_an_answer(self, nodes):
        """--no-voting asks, and no terminal is no yes."""
        result = nodes.Run("node2", "gnt-cluster", "masterfailover", "--no-voting")
        assert result.code == 1
        assert "two masters" in result.err
        assert nodes.Masters() == ["node1"]

    def test_not_a_candidate(self, nodes):
        nodes.Ok("node1", "gnt-cluster", "modify", "-C", "2")
        nodes.Ok("node1", "gnt-node", "modify", "--master-candidate", "no", "--force", NODE3)
        result = nodes.Run("node3", "gnt-cluster", "masterfailover")
        nodes.Ok("node1", "gnt-cluster", "modify", "-C", "10")
        nodes.Ok("node1", "gnt-node", "modify", "--master-candidate", "yes", NODE3)
        assert result.code == 1
        assert "error type: wrong_state" in result.err
        assert result.err.strip().endswith(NODE2)

    def test_most_do_not_answer(self, nodes):
        for node in ("node1", "node3"):
            assert nodes.Daemon(node, "stop", "ganeti-noded").code == 0
        result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        for node in ("node1", "node3"):
            assert nodes.Daemon(node, "start", "ganeti-noded").code == 0
        assert result.code == 1
        assert "error type: environment_error" in result.err
        assert "2 of 2 other nodes do not answer" in result.err
        assert nodes.Named("node2") == NODE1

    def test_own_daemon_is_down(self, nodes):
        assert nodes.Daemon("node2", "stop", "ganeti-noded").code == 0
        result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        assert nodes.Daemon("node2", "start", "ganeti-noded").code == 0
        assert result.code == 1
        assert "This node's daemon does not answer" in result.err


class TestPlanned:
    """The old master is there, and is stopped first: nothing is lost, no serial number skipped."""

    def test_there_and_back(self, nodes):
        before = nodes.Serial("node1")
        out = nodes.Ok("node2", "gnt-cluster", "masterfailover")
        assert f"{NODE2} is the master" in out
        assert "Warning" not in out
        assert nodes.Masters() == ["node2"]
        assert [nodes.Named(node) for node in ("node1", "node2", "node3")] == [NODE2] * 3
        assert nodes.Serial("node1") == nodes.Serial("node2") == before + 1
        nodes.Ok("node2", "gnt-cluster", "verify")
        nodes.Ok("node1", "gnt-cluster", "masterfailover")
        assert nodes.Masters() == ["node1"]


class TestInterrupted:
    """A failover that ended half-way is finished by the next run."""

    def test_daemons_do_not_start(self, nodes):
        """The last step fails: the node is the master already, and its master daemon is down."""
        nodes.MakeMaster("node1")
        socket = nodes.cluster.Root("node2") / "var/run/ganeti/socket/ganeti-master"
        socket.mkdir(parents=True)
        try:
            result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        finally:
            socket.rmdir()
        assert result.code == 1
        assert "to finish" in result.err
        assert nodes.Named("node3") == NODE2
        assert nodes.Masters() == []
        nodes.Ok("node2", "gnt-cluster", "masterfailover")
        assert nodes.Masters() == ["node2"]
        result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        assert "is the master already" in result.err

    @pytest.mark.parametrize("line", ["Stopping", "Telling", "Starting"])
    def test_killed(self, nodes, line):
        """After it has said that it does this."""
        new = "node1" if nodes.Masters() == ["node2"] else "node2"
        env = dict(nodes.cluster.env)
        env["GANETI_ROOTDIR"] = str(nodes.cluster.Root(new))
        env["GANETI_HOSTNAME"] = f"{new}.example.com"
        with subprocess.Popen(
            ["gnt-cluster", "masterfailover"],
            env=env,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        ) as run:
            for text in run.stdout:
                if text.startswith(line):
                    run.send_signal(signal.SIGKILL)
                    break
        assert run.returncode == -signal.SIGKILL
        result = nodes.Run(new, "gnt-cluster", "masterfailover")
        # What was asked of the node daemon before may have been done meanwhile.
        assert result.code == 0 or "is the master already" in result.err
        WaitFor(lambda: nodes.Masters() == [new], what="the new master")
        nodes.Ok(new, "gnt-cluster", "info")


class TestDeadMaster:
    """JQ1, JQ5: the master dies with jobs; its candidate goes on with them."""

    def test_all(self, nodes):
        nodes.MakeMaster("node1")
        client = nodes.Client("node1")
        done = client.SubmitJob(_Tag("done"))
        WaitFor(lambda: client.QueryJobs([done], ["status"]) == [["success"]])
        running = client.SubmitJob([opcodes.OpTestDelay(duration=60, on_master=True, on_nodes=[])])
        WaitFor(lambda: client.QueryJobs([running], ["status"]) == [["running"]])
        waiting = client.SubmitJob(
            [
                opcodes.OpTagsSet(
                    kind=constants.TAG_CLUSTER,
                    name="",
                    tags=["waited"],
                    depends=[[int(running), ["success", "error"]]],
                )
            ]
        )
        nodes.Kill("node1")
        out = nodes.Ok("node2", "gnt-cluster", "masterfailover")
        assert f"{NODE1} does not answer" in out
        assert nodes.Masters() == ["node2"]
        client = nodes.Client("node2")
        wanted = [["success"], ["error"], ["success"]]
        WaitFor(lambda: client.QueryJobs([done, running, waiting], ["status"]) == wanted)
        tags = nodes.cluster.Config("node2")["cluster"]["tags"]
        assert {"done", "waited"} <= set(tags)
        assert int(client.SubmitJob(_Tag("new"))) > int(waiting)

        # The old master comes back.
        result = nodes.cluster.Vcluster("start", "node1")
        assert f"{NODE2} is the master, not {NODE1}" in result.err
        assert nodes.Masters() == ["node2"]
        WaitFor(lambda: nodes.Named("node1") == NODE2, what="the news on the old master")
        WaitFor(lambda: nodes.Serial("node1") == nodes.Serial("node2"))
        nodes.cluster.Vcluster("start", "node1")


class TestOldCopy:
    """A candidate that was down while things were changed."""

    def test_refused_and_forced(self, nodes):
        nodes.MakeMaster("node1")
        nodes.Kill("node2")
        nodes.Ok("node1", "gnt-cluster", "add-tags", "precious")
        nodes.Ok("node1", "gnt-node", "add-tags", NODE3, "gold")
        newest = nodes.Serial("node1")
        nodes.Kill("node1")
        nodes.cluster.Vcluster("start", "node2")
        result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        assert result.code == 1
        assert "error type: wrong_state" in result.err
        assert f"{NODE3} has {newest} of 20" in result.err
        assert f"node {NODE3}, which was modified" in result.err
        assert "the cluster's parameters" in result.err
        assert f"run the command on {NODE3} instead" in result.err
        assert nodes.Named("node3") == NODE1

        out = nodes.Ok("node2", "gnt-cluster", "masterfailover", "--force")
        assert "Warning: This would be lost:" in out
        assert nodes.Serial("node3") == nodes.Serial("node2") > newest
        assert "precious" not in nodes.cluster.Config("node3")["cluster"]["tags"]
        # It must not come back with the old master, which has it.
        nodes.cluster.Vcluster("start", "node1")
        WaitFor(lambda: nodes.Serial("node1") == nodes.Serial("node2"))
        assert "precious" not in nodes.cluster.Config("node1")["cluster"]["tags"]
        nodes.cluster.Vcluster("start", "node1")


class TestCutOff:
    """The old master runs on where nobody hears of it, and comes back."""

    def test_it_changes_nothing_and_ends(self, nodes):
        nodes.MakeMaster("node1")
        client = nodes.Client("node1")
        # A stopped process is one that the network does not reach.
        frozen = [nodes.Pid("node1", f"ganeti-{name}") for name in ("masterd", "noded")]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            nodes.Ok("node2", "gnt-cluster", "masterfailover", timeout=150)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
        # At once, before it knows.
        try:
            job = client.SubmitJob(_Tag("stale"))
        except errors.GenericError:
            job = None
        WaitFor(lambda: nodes.Masters() == ["node2"], what="the end of the old master")
        assert nodes.Named("node3") == NODE2
        config = nodes.cluster.Config("node3")
        assert config["cluster"]["master_node"] == NODE2
        assert "stale" not in config["cluster"]["tags"]
        if job is not None:
            queue = nodes.cluster.Data("queue", "node3")
            path = queue / f"job-{job}"
            assert not path.exists() or "stale" not in path.read_text()
        WaitFor(lambda: nodes.Named("node1") == NODE2)
        assert "stale" not in json.dumps(nodes.cluster.Config("node2"))


class TestTwoNodes:
    """Half of the others is all of them: the dead node's vote is missed."""

    def test_no_voting(self, NewCluster):
        nodes = Nodes(NewCluster("--nodes=2"))
        nodes.Kill("node1")
        result = nodes.Run("node2", "gnt-cluster", "masterfailover")
        assert result.code == 1
        assert "--no-voting" in result.err
        nodes.Ok("node2", "gnt-cluster", "masterfailover", "--no-voting", "--yes-do-it")
        assert nodes.Masters() == ["node2"]
        nodes.Ok("node2", "gnt-cluster", "add-tags", "two")
        result = nodes.cluster.Vcluster("start", "node1")
        assert f"{NODE2} is the master" in result.err
        WaitFor(lambda: nodes.Named("node1") == NODE2)
        # With the other node back, no vote is missed.
        nodes.Ok("node1", "gnt-cluster", "masterfailover")
        assert nodes.Masters() == ["node1"]
