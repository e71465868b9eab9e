"""gnt-cluster renew-crypto: what is made, who gets it, and what an interruption leaves."""

import os
import signal
import subprocess

import pytest

from ganeti.utils import x509

FILES = ("server.pem", "rapi.pem", "hmac.key")
NODES = ("node1", "node2", "node3")


class Renewed:
    """A cluster whose secrets are watched."""

    def __init__(self, cluster):
        self.cluster = cluster

    def Run(self, *options, timeout=120):
        return self.cluster.Run("gnt-cluster", "renew-crypto", "-f", *options, timeout=timeout)

    def Read(self, node):
        return {name: self.cluster.Data(name, node).read_text() for name in FILES}

    def CheckWorks(self, nodes=NODES):
        """All nodes have the same, and everything works with it."""
        first = self.Read("node1")
        for node in nodes:
            assert self.Read(node) == first
            for name in FILES:
                mode = self.cluster.Data(name, node).stat().st_mode
                assert mode & 0o777 == 0o400
        self.cluster.Ok("gnt-cluster", "verify")
        assert self.cluster.Rapi("GET", "/2/info")[0] == 200
        staging = self.cluster.Data("renew-crypto")
        assert [path.name for path in staging.iterdir()] == ["lock"]
        return first

    def Pids(self, name, nodes=NODES):
        return [
            (self.cluster.Root(node) / f"var/run/ganeti/ganeti-{name}.pid").read_text()
            for node in nodes
        ]


@pytest.fixture(scope="module")
def renewed(cluster):
    cluster.Ok(
        *("gnt-instance", "add", "-t", "diskless", "-o", "noop+default", "-n", "node2.example.com"),
        *("--no-ip-check", "--no-name-check", "--net", "0:ip=none", "inst1.example.com"),
    )
    return Renewed(cluster)


def _Status(cluster):
    return cluster.Table("gnt-instance", "list", "-o", "name,status,oper_ram")


class TestWhat:
    """Exactly what is asked for is new, on all nodes; the instances run on."""

    @pytest.mark.parametrize(
        ("options", "changed"),
        [
            (["--new-cluster-certificate"], {"server.pem"}),
            (["--new-rapi-certificate", "--new-confd-hmac-key"], {"rapi.pem", "hmac.key"}),
        ],
    )
    def test_options(self, renewed, options, changed):
        before, status = renewed.Read("node1"), _Status(renewed.cluster)
        assert status[0][1] == "running"
        daemons = renewed.Pids("noded")
        result = renewed.Run(*options)
        assert result.code == 0, result.out + result.err
        after = renewed.CheckWorks()
        assert {name for name in FILES if after[name] != before[name]} == changed
        assert not set(daemons) & set(renewed.Pids("noded"))
        assert _Status(renewed.cluster) == status

    def test_certificates(self, renewed):
        """No DSA, MD5 or SHA-1; the old files are kept, for root alone."""
        pem = renewed.cluster.Data("server.pem").read_text()
        cert = x509.LoadCertificate(pem)
        assert cert.get_signature_algorithm() == b"ecdsa-with-SHA256"
        backups = list(renewed.cluster.Data("").glob("server.pem.backup-*"))
        assert backups
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in backups)

    def test_own_certificate(self, renewed, tmp_path):
        pem = x509.GenerateSelfSignedX509Cert(
            "rapi.example.com",
            key_type=x509.KEY_RSA,
            alt_names=[renewed.cluster.Address()],
        ).pem
        path = tmp_path / "mine.pem"
        path.write_text(pem)
        result = renewed.Run("--rapi-certificate", str(path))
        assert result.code == 0, result.out + result.err
        assert renewed.cluster.Data("rapi.pem", "node3").read_text() == pem


class TestRefusals:
    """Nothing is changed."""

    def test_no_certificate(self, renewed, tmp_path):
        one, other = (x509.GenerateSelfSignedX509Cert("x.example.com") for _ in range(2))
        path = tmp_path / "wrong.pem"
        for content, why in (
            ("x", "No private key"),
            (one.key_pem, "No certificate"),
            (one.key_pem + other.cert_pem, "does not belong"),
        ):
            path.write_text(content)
            result = renewed.Run("--rapi-certificate", str(path))
            assert (result.code, result.out) == (1, "")
            assert f"{path} can not be the certificate of RAPI: " in result.err
            assert why in result.err

    def test_asks(self, renewed):
        before = renewed.Read("node1")
        result = renewed.cluster.Run("gnt-cluster", "renew-crypto", "--new-confd-hmac-key")
        assert result.code == 1
        assert "all daemons on all nodes to be restarted" in result.err
        assert renewed.Read("node1") == before

    def test_not_on_the_master(self, renewed):
        result = renewed.cluster.Vcluster(
            "exec", "--node", "node2", "--", "gnt-cluster", "renew-crypto", "-f"
        )
        assert result.code == 1
        assert "on the master, which is node1.example.com" in result.err

    def test_no_votes(self, renewed):
        """The master daemon, once stopped, would not start again."""
        before, daemons = renewed.Read("node1"), renewed.Pids("masterd", ["node1"])
        for node in ("node2", "node3"):
            renewed.cluster.Vcluster("kill", node)
        result = renewed.Run("--new-cluster-certificate")
        for node in ("node2", "node3"):
            renewed.cluster.Vcluster("start", node)
        assert result.code == 1
        assert "would not find the votes" in result.err
        assert renewed.Read("node1") == before
        assert renewed.Pids("masterd", ["node1"]) == daemons


class TestNodeIsDown:
    """It is told, and brought back by the next run, while the master daemon goes on."""

    def test_missing_node(self, renewed):
        root = renewed.cluster.Root("node3")
        away = root.with_name("away")
        renewed.cluster.Vcluster("kill", "node3")
        root.rename(away)
        try:
            result = renewed.Run("--new-cluster-certificate")
        finally:
            away.rename(root)
        assert result.code == 1
        assert "Node node3.example.com can not be reached" in result.err
        assert "can not call node3.example.com" in result.out
        assert renewed.Read("node2") == renewed.Read("node1")
        assert renewed.Read("node3") != renewed.Read("node1")
        master = renewed.Pids("masterd", ["node1"])
        result = renewed.Run()
        assert result.code == 0, result.out + result.err
        assert renewed.Pids("masterd", ["node1"]) == master
        renewed.CheckWorks()


class TestInterrupted:
    """Killed at any point, the next run finishes what was begun, with the same files."""

    @pytest.mark.parametrize("line", ["Made", "Sending", "Putting", "Starting"])
    def test_killed(self, renewed, line):
        before = renewed.Read("node1")
        with subprocess.Popen(
            ["gnt-cluster", "renew-crypto", "-f", "--new-cluster-certificate"],
            env=renewed.cluster.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            bufsize=1,
            start_new_session=True,
        ) as run:
            for text in run.stdout:
                if text.startswith(line):
                    os.killpg(run.pid, signal.SIGKILL)
                    break
        staged = renewed.cluster.Data("renew-crypto/server.pem")
        wanted = staged.read_text() if staged.exists() else None
        if line == "Sending":
            result = renewed.Run("--new-confd-hmac-key")
            assert result.code == 1
            assert "An earlier renewal, of the certificate of the node daemons" in result.err
        result = renewed.Run()
        assert result.code == 0, result.out + result.err
        after = renewed.CheckWorks()
        assert after["server.pem"] != before["server.pem"]
        if wanted is not None:
            assert after["server.pem"] == wanted
