"""tools/vcluster as a newcomer meets it (BASE6)."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psutil
import pytest

from ganeti.vcluster import layout, manager
from vc import VCLUSTER, CleanEnvironment, Cluster


def Processes(directory):
    """Processes that belong to a cluster in a directory."""
    found = []
    for proc in psutil.process_iter():
        try:
            if proc.environ().get("GANETI_ROOTDIR", "").startswith(directory + "/"):
                found.append(proc.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def demo():
    """The demonstration: (cluster, result, seconds)."""
    directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
    found = Cluster(directory)
    start = time.monotonic()
    result = found.Vcluster("demo")
    yield found, result, time.monotonic() - start
    found.Vcluster("down")
    shutil.rmtree(directory, ignore_errors=True)


class TestDemo:
    """The main job in one command, with what to try next."""

    def test_it_works_and_says_so(self, demo):
        cluster, result, seconds = demo
        assert result.code == 0, result.err
        assert seconds < 60
        for step in ("gnt-cluster init", "gnt-node add node3", "gnt-instance add instance1"):
            assert re.search(rf"\[ *[0-9.]+s\] {step}", result.out), step
        assert re.search(r"instance1\.example\.com +fake .* running", result.out)
        for node in ("node1", "node2", "node3"):
            assert cluster.Address(node) in result.out

    def test_the_env_line_brings_the_commands(self, demo):
        _, result, _ = demo
        line = re.search(r'eval "\$\((tools/vcluster env --dir (\S+))\)"', result.out)
        shell = f'eval "$({shlex.quote(VCLUSTER)} env --dir {line.group(2)})"; gnt-instance list'
        out = subprocess.run(
            ["sh", "-c", shell], env=CleanEnvironment(), capture_output=True, text=True
        ).stdout
        assert "instance3.example.com" in out

    def test_the_curl_line_works(self, demo):
        _, result, _ = demo
        line = re.search(r"^ *(curl .*)$", result.out, re.MULTILINE).group(1)
        found = subprocess.run(shlex.split(line), capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert '"instance2.example.com"' in found.stdout

    def test_confd_was_asked_and_answers_again(self, demo):
        cluster, result, _ = demo
        line = re.search(r"^ *\$ (confd-client .*)\n((?: *[0-9.]+\n)+)", result.out, re.MULTILINE)
        addresses = {cluster.Address(f"node{number}") for number in (1, 2, 3)}
        assert set(line.group(2).split()) == addresses
        assert set(cluster.Ok(*shlex.split(line.group(1))).split()) == addresses

    def test_rapi_needs_its_password(self, demo):
        cluster, result, _ = demo
        line = re.search(r"^ *(curl .*)$", result.out, re.MULTILINE).group(1)
        url = shlex.split(line)[-1]
        assert url.startswith(f"https://{cluster.Address()}:5080/2/")
        assert cluster.Rapi("DELETE", "/2/tags?tag=x", password="wrong")[0] == 401

    def test_a_cluster_is_not_made_twice(self, demo):
        cluster, _, _ = demo
        result = cluster.Vcluster("up")
        assert result.code == 1
        assert cluster.directory in result.err
        assert "vcluster down" in result.err
        assert cluster.Ok("gnt-node", "list")

    def test_commands_from_within_a_shell_of_the_cluster(self, demo):
        cluster, _, _ = demo
        result = cluster.Run(VCLUSTER, "status", "--dir", cluster.directory)
        assert result.code == 0, result.err
        assert result.out.count("ganeti-noded (") == 3
        assert result.out.count("ganeti-masterd (") == 1

    def test_exec(self, demo):
        cluster, _, _ = demo
        assert "node2.example.com" in cluster.Vcluster("exec", "--", "gnt-node", "list").out
        assert cluster.Vcluster("exec", "--", "printf", "%s|", "a b", "$c", "'").out == "a b|$c|'|"
        out = cluster.Vcluster("exec", "--node", "node2", "--", "sh", "-c", "echo $GANETI_HOSTNAME")
        assert out.out == "node2.example.com\n"
        assert cluster.Vcluster("exec", "--", "sh", "-c", "exit 7").code == 7
        result = cluster.Vcluster("exec", "--", "no-such-command")
        assert (result.code, "no-such-command" in result.err) == (1, True)

    def test_kill_and_start(self, demo):
        cluster, _, _ = demo
        result = cluster.Vcluster("kill", "node3")
        assert "ganeti-noded" in result.out
        assert "no daemon runs" in cluster.Vcluster("status").out
        assert "ganeti-noded" in cluster.Vcluster("start", "node3").out
        result = cluster.Vcluster("kill", "node9")
        assert (result.code, "node1.example.com" in result.err) == (1, True)

    def test_down_leaves_nothing(self, demo):
        cluster, _, _ = demo
        assert Processes(cluster.directory)
        result = cluster.Vcluster("down")
        assert result.code == 0, result.err
        assert Processes(cluster.directory) == []
        assert not os.path.exists(cluster.directory)
        assert cluster.Vcluster("down").code == 1


class TestSideBySide:
    def test_two_clusters(self, NewCluster):
        one, two = NewCluster("--nodes=1"), NewCluster("--nodes=2")
        assert one.Address() != two.Address()
        assert len(one.Table("gnt-node", "list")) == 1
        assert len(two.Table("gnt-node", "list")) == 2
        one.Vcluster("down")
        assert len(two.Table("gnt-node", "list")) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("args", "fragment"),
        [
            (("--nodes=0",), "--nodes"),
            (("--hypervisor=vmx",), "'vmx'"),
        ],
    )
    def test_bad_wishes(self, args, fragment, tmp_path):
        cluster = Cluster(str(tmp_path / "vc"))
        result = cluster.Vcluster("up", *args)
        assert result.code == 1
        assert fragment in result.err
        assert not os.path.exists(cluster.directory)

    def test_a_directory_of_somebody_else(self):
        with tempfile.TemporaryDirectory(prefix="vc", dir="/tmp") as name:
            precious = os.path.join(name, "precious")
            open(precious, "w").close()
            result = Cluster(name).Vcluster("up")
            assert result.code == 1
            assert "precious" in result.err
            assert os.path.exists(precious)

    def test_a_directory_too_deep_for_sockets(self, tmp_path):
        result = Cluster(str(tmp_path / ("x" * 60))).Vcluster("up")
        assert (result.code, "--dir" in result.err) == (1, True)

    def test_no_cluster(self, tmp_path):
        for command in ("down", "status", "env"):
            result = Cluster(str(tmp_path)).Vcluster(command)
            assert result.code == 1
            assert str(tmp_path) in result.err

    def test_a_failed_start_is_undone(self):
        """A node daemon that can not start: what was made is removed, the logs stay and say why."""
        directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
        cluster = Cluster(directory)
        network = layout.ChooseNetwork(directory, manager.IsAddressFree)
        try:
            with socket.socket() as taken:
                # The second node's daemon finds its port in use
                taken.bind((f"{network}.{layout.FIRST_NODE_HOST + 2}", 1811))
                taken.listen()
                result = cluster.Vcluster("up", "--nodes=3")
            assert result.code == 1
            assert "gnt-node add" in result.err
            assert "node2.example.com" in result.err
            assert "keeping the logs" in result.out
            assert Processes(directory) == []
            assert os.listdir(directory) == ["logs"]
            logs = sorted(os.listdir(os.path.join(directory, "logs")))
            assert logs[:2] == ["node1.example.com", "node2.example.com"]
            with open(os.path.join(directory, "logs", logs[1], "node-daemon.log")) as fobj:
                assert "in use" in fobj.read()
            # Nothing is in the way of the next try
            result = cluster.Vcluster("up", "--nodes=1")
            assert result.code == 0, result.err
        finally:
            cluster.Vcluster("down")
            shutil.rmtree(directory, ignore_errors=True)

    def test_interrupted(self):
        """Control-C in the middle leaves no process."""
        directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
        try:
            with subprocess.Popen(
                [VCLUSTER, "up", "--dir", directory],
                env=CleanEnvironment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # A shell's background jobs, and so their children, ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            ) as making:
                for line in making.stdout:
                    if "gnt-node add node2" in line:
                        break
                making.send_signal(signal.SIGINT)
                _, err = making.communicate(timeout=60)
            assert making.returncode == 1
            assert "interrupted" in err
            assert Processes(directory) == []
            assert not os.path.exists(os.path.join(directory, "vcluster.json"))
        finally:
            Cluster(directory).Vcluster("down")
            shutil.rmtree(directory, ignore_errors=True)


class TestOddDirectory:
    """A directory whose name needs quotes, and logs that shall stay."""

    def test_names_that_a_shell_would_take_apart(self):
        parent = tempfile.mkdtemp(prefix="vc", dir="/tmp")
        directory = os.path.join(parent, "a b's $x")
        cluster = Cluster(directory)
        try:
            result = cluster.Vcluster("up", "--nodes=1")
            assert result.code == 0, result.err
            hint = re.search(r'eval "\$\((.*)\)"', result.out).group(1)
            assert shlex.split(hint)[-1] == directory
            assert cluster.env["GANETI_ROOTDIR"] == f"{directory}/node1.example.com"
            assert len(cluster.Table("gnt-node", "list")) == 1
            result = cluster.Vcluster("down", "--keep-logs")
            assert result.code == 0, result.err
            kept = re.search(r"Kept: (.*)", result.out).group(1)
            assert "master-daemon.log" in os.listdir(kept)
            assert Processes(directory) == []
        finally:
            cluster.Vcluster("down")
            shutil.rmtree(parent)
