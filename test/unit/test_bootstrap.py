"""Bringing up clusters and nodes: the checks that need no host, and the secrets."""

import os
import stat

import pytest

from ganeti import bootstrap, constants, errors, objects, pathutils, serializer
from ganeti.runtime import fake as runtime_fake
from ganeti.tools import node_setup
from ganeti.utils import process

NODE = "node1.example.com"


def Params(**values):
    return bootstrap.InitParams(
        **{"cluster_name": "cluster.example.com", "enabled_hypervisors": ["fake"], **values}
    )


class TestCheckInitSyntax:
    """BASE1: the syntactic checks of cluster init, each naming what is wrong."""

    def test_all_parameters_are_filled(self):
        checked = bootstrap.CheckInitSyntax(
            Params(
                beparams={"memory": "1g"},
                hvparams={"kvm": {"kernel_path": ""}},
                mac_prefix="AA:00:11",
            )
        )
        assert set(checked.hvparams) == set(constants.HYPER_TYPES)
        assert checked.hvparams["kvm"]["kernel_path"] == ""
        assert checked.hvparams["xen-pvm"]["root_path"] == "/dev/sda1"
        assert checked.beparams == {"memory": 1024, "vcpus": 1, "auto_balance": True}
        assert checked.nicparams["mode"] == "bridged"
        assert checked.mac_prefix == "aa:00:11"

    @pytest.mark.parametrize(
        ("values", "fragment"),
        [
            ({"enabled_hypervisors": []}, "--enabled-hypervisors"),
            ({"enabled_hypervisors": ["vmx"]}, "'vmx'"),
            ({"enabled_hypervisors": ["fake", "fake"]}, "none twice"),
            ({"mac_prefix": "zz:00:00"}, "'zz:00:00'"),
            ({"mac_prefix": "01:00:00"}, "unicast"),
            ({"candidate_pool_size": 0}, "at least 1"),
            ({"secondary_ip": "1.2.3"}, "'1.2.3'"),
            ({"uid_pool": [(5, 1)]}, "5-1"),
            ({"uid_pool": [(1, 2**32)]}, "above the maximum"),
            ({"master_netdev": ".."}, "'..'"),
            ({"master_netdev": "a/b"}, "'a/b'"),
            ({"master_netdev": ""}, "''"),
            ({"file_storage_dir": "relative"}, "'relative'"),
            ({"file_storage_dir": "/a/../b"}, "normalized"),
            ({"hvparams": {"vmx": {}}}, "'vmx'"),
            ({"hvparams": {"kvm": {"nosuch": 1}}}, "nosuch"),
            ({"hvparams": {"kvm": {"disk_cache": "lots"}}}, "lots"),
            ({"beparams": {"memory": "lots"}}, "lots"),
            ({"beparams": {"nosuch": 1}}, "nosuch"),
            ({"beparams": {"vcpus": 0}}, "vcpus"),
            ({"nicparams": {"mode": "x"}}, "'x'"),
            ({"nicparams": {"link": ""}}, "link"),
        ],
    )
    def test_refused(self, values, fragment):
        with pytest.raises(errors.OpPrereqError) as caught:
            bootstrap.CheckInitSyntax(Params(**values))
        text, code = caught.value.args
        assert code == errors.ECODE_INVAL
        assert fragment in text


class TestConfiguration:
    """UU1: cluster and first node have UUIDs and times from the beginning."""

    def test_new(self):
        ip = bootstrap.CheckInitSyntax(Params(uid_pool=[(10, 20)]))
        place = bootstrap._Place(NODE, "192.0.2.1", "192.0.2.1", ip.cluster_name, "192.0.2.9")
        data = bootstrap.BuildConfiguration(ip, place, "AAAA", 1234.5)
        node = data.nodes[NODE]
        assert data.cluster.uuid != node.uuid
        assert (node.ctime, node.mtime, data.cluster.ctime) == (1234.5, 1234.5, 1234.5)
        assert node.master_candidate
        assert data.cluster.highest_used_port == 10999
        again = objects.ConfigData.FromDict(data.ToDict())
        assert again.cluster.uid_pool == [[10, 20]]
        assert again.serial_no == 1


class TestCrypto:
    """CF1: secrets are private from their first byte; made when asked for or missing."""

    def Make(self, tmp_path, *flags, **kwargs):
        return [
            os.path.basename(path)
            for path in bootstrap.GenerateClusterCrypto(
                *flags,
                nodecert_file=str(tmp_path / "server.pem"),
                rapicert_file=str(tmp_path / "rapi.pem"),
                hmackey_file=str(tmp_path / "hmac.key"),
                **kwargs,
            )
        ]

    def test_missing_ones_are_made(self, tmp_path):
        assert self.Make(tmp_path, False, False, False) == ["server.pem", "hmac.key", "rapi.pem"]
        for name in ("server.pem", "hmac.key", "rapi.pem"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o400
        key = (tmp_path / "hmac.key").read_text()
        assert len(key) == 41
        assert int(key, 16)
        assert self.Make(tmp_path, False, False, False) == []

    def test_asked_ones_are_replaced_and_kept(self, tmp_path):
        self.Make(tmp_path, True, False, False)
        before = (tmp_path / "hmac.key").read_text()
        assert self.Make(tmp_path, False, False, True) == ["hmac.key"]
        assert (tmp_path / "hmac.key").read_text() != before
        backups = [name for name in os.listdir(tmp_path) if name.startswith("hmac.key.backup-")]
        assert len(backups) == 1
        assert (tmp_path / backups[0]).read_text() == before

    def test_supplied_certificate(self, tmp_path):
        self.Make(tmp_path, False, False, False)
        pem = (tmp_path / "server.pem").read_text()
        assert self.Make(tmp_path, False, False, False, rapi_cert_pem=pem) == ["rapi.pem"]
        assert (tmp_path / "rapi.pem").read_text() == pem


def Request(**values):
    return {
        "cluster_name": "cluster.example.com",
        "node_name": NODE,
        "protocol": constants.PROTOCOL_VERSION,
        "files": {"server.pem": "a\n", "rapi.pem": "b\n", "hmac.key": "c\n"},
        **values,
    }


class TestNodeSetup:
    """What a new node is told is checked before anything is written."""

    def test_good(self):
        files = node_setup.CheckRequest(Request(), NODE, None)
        assert files == {
            pathutils.NODED_CERT_FILE: "a\n",
            pathutils.RAPI_CERT_FILE: "b\n",
            pathutils.CONFD_HMAC_KEY: "c\n",
        }
        assert node_setup.CheckRequest(Request(), NODE, "cluster.example.com")

    @pytest.mark.parametrize(
        ("request_", "fragment"),
        [
            ([], "JSON object"),
            (Request(cluster_name=1), "'cluster_name'"),
            (Request(protocol="30"), "'protocol'"),
            (Request(protocol=29), "protocol 29"),
            (Request(node_name="node2.example.com"), "node2.example.com"),
            (Request(files=None), "'files'"),
            (Request(files={"server.pem": "a\n"}), "hmac.key"),
            (Request(files={**Request()["files"], "/etc/passwd": "x\n"}), "exactly"),
            (Request(files={**Request()["files"], "hmac.key": "no newline"}), "hmac.key"),
            (Request(files={**Request()["files"], "rapi.pem": 5}), "rapi.pem"),
        ],
    )
    def test_refused(self, request_, fragment):
        with pytest.raises(errors.OpPrereqError) as caught:
            node_setup.CheckRequest(request_, NODE, None)
        assert fragment in caught.value.args[0]

    def test_node_of_another_cluster(self):
        with pytest.raises(errors.OpPrereqError, match=r"other\.example\.com"):
            node_setup.CheckRequest(Request(), NODE, "other.example.com")


class FakeRunner:
    """A way to a new node on which everything succeeds but, maybe, taking it back."""

    def __init__(self, *_):
        self.requests = []
        self.undone = 0
        self.undo_result = process.RunResult("undo", 0)

    def Run(self, hostname, user, command, input=None, **kwargs):
        if command.endswith(f" {node_setup.UNDO}"):
            self.undone += 1
            return self.undo_result
        request = serializer.Load(input)
        self.requests.append(request)
        # What the node makes of it.
        node_setup.CheckRequest(request, hostname, None)
        return process.RunResult("node-setup", 0)


class TestSetupNodeDaemon:
    @pytest.fixture
    def rt(self):
        rt = runtime_fake.NewRuntime()
        for path in node_setup.FILES.values():
            rt.files.write(path, b"secret\n")
        return rt

    @pytest.fixture
    def runner(self, monkeypatch):
        runner = FakeRunner()
        monkeypatch.setattr("ganeti.ssh.GetRunner", lambda _: runner)
        monkeypatch.setattr(bootstrap, "WaitForNodeDaemon", lambda *args, **kwargs: None)
        return runner

    def test_certificate_without_a_last_newline(self, rt, runner):
        """One that a user supplied is fine all the same."""
        rt.files.write(pathutils.RAPI_CERT_FILE, b"supplied")
        bootstrap.SetupNodeDaemon("cluster.example.com", NODE, rt=rt)
        (request,) = runner.requests
        assert request["files"]["rapi.pem"] == "supplied\n"

    def test_missing_secret(self, rt, runner):
        rt.files.remove(pathutils.CONFD_HMAC_KEY)
        with pytest.raises(errors.OpExecError, match=r"hmac\.key is missing"):
            bootstrap.SetupNodeDaemon("cluster.example.com", NODE, rt=rt)
        assert runner.requests == []

    def test_right(self, rt, runner):
        bootstrap.SetupNodeDaemon("cluster.example.com", NODE, rt=rt)
        assert runner.undone == 0

    @pytest.mark.parametrize(
        ("result", "text"),
        [
            (process.RunResult("undo", 0), f"{NODE} keeps nothing of the set-up"),
            (
                process.RunResult("undo", 1, stderr="no\n"),
                "could not be taken back (no): make sure",
            ),
        ],
    )
    def test_daemon_does_not_answer(self, rt, runner, monkeypatch, result, text):
        """Behind a firewall: what nobody could take back by a call goes the way it came."""

        def Fail(*_, **__):
            raise errors.OpExecError("did not answer")

        monkeypatch.setattr(bootstrap, "WaitForNodeDaemon", Fail)
        runner.undo_result = result
        with pytest.raises(errors.OpExecError) as caught:
            bootstrap.SetupNodeDaemon("cluster.example.com", NODE, rt=rt)
        assert str(caught.value).startswith("did not answer; ")
        assert text in str(caught.value)
        assert runner.undone == 1


class TestDescribeSetupFailure:
    """gnt-node add says why a host could not be set up, and what to do."""

    @pytest.mark.parametrize(
        ("code", "stderr", "expected"),
        [
            (
                127,
                "sh: 1: /x/node-setup: not found\n",
                "Could not set up n: sh: 1: /x/node-setup: not found; is the suite installed there,"
                " at the same place as here?",
            ),
            (1, "This host is no good\n", "Could not set up n: This host is no good"),
            (3, "", "Could not set up n: exited with exit code 3"),
        ],
    )
    def test_texts(self, code, stderr, expected):
        result = process.RunResult("ssh", code, stderr=stderr)
        assert bootstrap.DescribeSetupFailure("n", result) == expected


class TestKnownHosts:
    """Nodes know each other by the host key, whoever made root's key."""

    @pytest.mark.parametrize("needed", [False, True])
    def test_key(self, needed):
        rt = runtime_fake.NewRuntime()
        rt.files.write(pathutils.SSH_HOST_RSA_PUB, b"ssh-rsa AAAA root@node1\n")
        assert bootstrap._SetupKnownHosts("c.example.com", needed, rt) == "AAAA"
        content = rt.files.read(pathutils.SSH_KNOWN_HOSTS_FILE)
        assert content == b"c.example.com ssh-rsa AAAA\n"

    def test_no_key(self):
        rt = runtime_fake.NewRuntime()
        assert bootstrap._SetupKnownHosts("c.example.com", False, rt) == ""
        with pytest.raises(errors.OpPrereqError, match="--no-ssh-init"):
            bootstrap._SetupKnownHosts("c.example.com", True, rt)


class TestDryInit:
    """A dry run of init makes all checks, says what would be made, and makes none of it."""

    DIRECTORY = "/srv/ganeti/file-storage"

    @pytest.fixture(autouse=True)
    def _host(self, monkeypatch):
        os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
        with open(pathutils.ETC_HOSTS, "w") as fobj:
            fobj.write(f"127.0.0.1 {NODE}\n127.99.0.9 cluster.example.com\n")
        self.answering = set()
        monkeypatch.setattr(
            "ganeti.utils.net.TcpPing", lambda target, *args, **kwargs: target in self.answering
        )
        self.rt = runtime_fake.NewRuntime()
        self.rt.files.write(pathutils.SSH_HOST_RSA_PUB, b"ssh-rsa AAAA root@node1\n")

    def Dry(self, **values):
        return bootstrap.DryInitCluster(
            Params(**{"master_netdev": "lo", "file_storage_dir": self.DIRECTORY, **values}),
            self.rt,
        )

    def test_report(self):
        def Files():
            return [name for _, _, names in os.walk(pathutils.ROOTDIR) for name in names]

        before, in_memory = Files(), dict(self.rt.files._live)
        local = pathutils.LocalPath(self.DIRECTORY)
        assert self.Dry(modify_etc_hosts=False) == [
            "Dry run of the init of cluster cluster.example.com: all checks passed, nothing was"
            " changed",
            f"  master and only node: {NODE} with the address 127.0.0.1",
            "  address of the cluster: 127.99.0.9 on lo",
            f"  hooks that would run after it: cluster-init post on {NODE}",
            "  could not be checked: that the daemons start, and that the address comes up",
            "  would make:",
            f"    the directory {local}",
            f"    {pathutils.NODED_CERT_FILE}",
            f"    {pathutils.CONFD_HMAC_KEY}",
            f"    {pathutils.RAPI_CERT_FILE}",
            "    a new SSH key of root that all nodes accept, with a copy of the one before",
            f"    {pathutils.SSH_KNOWN_HOSTS_FILE} with the key of this host",
            f"    {pathutils.CLUSTER_CONF_FILE}: hypervisors fake, no LVM, up to 10 master"
            " candidates",
            "  would start, after stopping what runs of them: ganeti-noded, ganeti-confd,"
            " ganeti-masterd, ganeti-rapi",
        ]
        assert Files() == before
        assert self.rt.files._live == in_memory

    def test_what_is_there(self):
        for path in (pathutils.NODED_CERT_FILE, pathutils.CONFD_HMAC_KEY):
            self.rt.files.write(path, b"x")
        os.makedirs(pathutils.LocalPath(self.DIRECTORY))
        made = self.Dry(modify_ssh_setup=False)[6:-1]
        assert made[:3] == [
            f"    {pathutils.NODED_CERT_FILE} again, with a copy of the one that is there",
            f"    {pathutils.RAPI_CERT_FILE}",
            f"    an entry for {NODE} in {pathutils.ETC_HOSTS}",
        ]

    def test_refused(self):
        with pytest.raises(errors.OpPrereqError, match="nosuchdev"):
            self.Dry(master_netdev="nosuchdev")
        self.answering.add("127.99.0.9")
        with pytest.raises(errors.OpPrereqError, match="answers already"):
            self.Dry()
        self.answering.clear()
        self.rt.files.remove(pathutils.SSH_HOST_RSA_PUB)
        with pytest.raises(errors.OpPrereqError, match="--no-ssh-init"):
            self.Dry()
        self.rt.files.write(pathutils.CLUSTER_CONF_FILE, b"{}")
        with pytest.raises(errors.OpPrereqError, match="part of a cluster already"):
            self.Dry()

    def test_storage_directory(self):
        local = pathutils.LocalPath(self.DIRECTORY)
        os.makedirs(os.path.dirname(local))
        with open(local, "w"):
            pass
        with pytest.raises(errors.OpPrereqError, match="is no directory"):
            self.Dry()
        os.remove(local)
        os.symlink("/nowhere", local)
        with pytest.raises(errors.OpPrereqError, match="is no directory"):
            self.Dry()
