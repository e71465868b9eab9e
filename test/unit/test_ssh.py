"""SSH: the command line for real nodes, and its stand-in for virtual ones."""

import os
import stat

import pytest

from ganeti import errors, pathutils, ssh
from ganeti.runtime import fake
from ganeti.utils import io, process

COMMON = [
    "ssh",
    "-oEscapeChar=none",
    "-oHashKnownHosts=no",
    f"-oGlobalKnownHostsFile={pathutils.SSH_KNOWN_HOSTS_FILE}",
    "-oUserKnownHostsFile=/dev/null",
    "-oCheckHostIp=no",
]


class TestBuildCmd:
    """BASE1: C{gnt-instance console --show-cmd} prints this command."""

    runner = ssh.SshRunner("cluster.example.com")

    def testAsTheConsoleShowsIt(self):
        argv = self.runner.BuildCmd("node1.example.com", "root", "echo 'a b'", tty=True)
        assert argv == [
            *COMMON,
            "-oHostKeyAlias=cluster.example.com",
            "-q",
            "-oBatchMode=yes",
            "-oStrictHostKeyChecking=yes",
            "-t",
            "-t",
            "root@node1.example.com",
            "echo 'a b'",
        ]

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, ["-oBatchMode=yes", "-oStrictHostKeyChecking=yes"]),
            ({"strict_host_check": False}, ["-oBatchMode=yes", "-oStrictHostKeyChecking=no"]),
            ({"batch": False}, ["-oStrictHostKeyChecking=yes"]),
            ({"batch": False, "strict_host_check": False}, ["-oStrictHostKeyChecking=no"]),
            ({"batch": False, "ask_key": True}, ["-oStrictHostKeyChecking=ask"]),
            (
                {"batch": False, "ask_key": True, "strict_host_check": False},
                ["-oStrictHostKeyChecking=ask"],
            ),
        ],
    )
    def testHostKeyChecks(self, options, expected):
        argv = self.runner.BuildCmd("n", "u", "c", use_cluster_key=False, quiet=False, **options)
        assert argv == [*COMMON, *expected, "u@n", "c"]

    @pytest.mark.parametrize("cls", [ssh.SshRunner, ssh.VirtualRunner])
    def testBatchCantAsk(self, cls):
        with pytest.raises(errors.ProgrammerError):
            cls("c").BuildCmd("n", "u", "c", batch=True, ask_key=True)

    def testPrivateKeyAndTimeout(self):
        argv = self.runner.BuildCmd("n", "u", "c", private_key="/the/key", connect_timeout=7)
        assert "-i/the/key" in argv
        assert "-oIdentitiesOnly=yes" in argv
        assert "-oConnectTimeout=7" in argv

    def testCopy(self):
        argv = self.runner.BuildCopyCmd("node2.example.com", "/etc/x")
        assert argv[:2] == ["scp", "-p"]
        assert argv[-2:] == ["/etc/x", "node2.example.com:/etc/x"]
        assert "-oBatchMode=yes" in argv
        assert "-oHostKeyAlias=cluster.example.com" in argv
        assert "-oConnectTimeout=10" in argv
        assert self.runner.BuildCopyCmd("2001:db8::1", "/x")[-1] == "[2001:db8::1]:/x"


class TestRun:
    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []

        def RunCmd(argv, **kwargs):
            calls.append((argv, kwargs))
            return process.RunResult(cmd="ssh", exit_code=0, stdout="node1.example.com\n")

        monkeypatch.setattr(ssh.process, "RunCmd", RunCmd)
        return calls

    def testBatch(self, calls):
        ssh.SshRunner("c").Run("n", "root", "x", input="data", timeout=5)
        ((argv, kwargs),) = calls
        assert "-oBatchMode=yes" in argv
        for option in ("ConnectTimeout=10", "ServerAliveInterval=10", "ServerAliveCountMax=3"):
            assert f"-o{option}" in argv
        # Why a host can not be reached is said.
        assert "-q" not in argv
        assert "-oLogLevel=ERROR" in argv
        assert kwargs == {"input": "data", "timeout": 5, "interactive": False}

    def testPasswordsMayBeAskedFor(self, calls):
        ssh.SshRunner("c").Run("n", "root", "x", batch=False, ask_key=True, input="data")
        ((_, kwargs),) = calls
        assert kwargs["interactive"] is True

    def testVerify(self, calls):
        assert ssh.SshRunner("c").VerifyNodeHostname("node1.example.com") == (True, None)
        ((argv, _),) = calls
        assert argv[-2:] == ["root@node1.example.com", "hostname --fqdn"]
        assert "-q" not in argv

    def testCopyRefuses(self, calls, tmp_path):
        runner = ssh.SshRunner("c")
        assert "absolute" in runner.CopyFileToNode("n", "relative")
        assert "does not exist" in runner.CopyFileToNode("n", str(tmp_path / "missing"))
        assert calls == []

    def testCopyFailure(self, monkeypatch, tmp_path, caplog):
        failed = process.RunResult(cmd="scp", exit_code=1, stderr="lost connection\n")
        monkeypatch.setattr(ssh.process, "RunCmd", lambda argv: failed)
        io.WriteFile(str(tmp_path / "f"), data="")
        problem = ssh.SshRunner("c").CopyFileToNode("n", str(tmp_path / "f"))
        assert problem == "lost connection"
        assert "lost connection" in caplog.text


class TestCheckHostnameResult:
    @pytest.mark.parametrize(
        ("result", "text"),
        [
            ({"exit_code": 0, "stdout": "node1.example.com\n"}, None),
            ({"exit_code": 255}, "ssh problem: exited with exit code 255 (no output)"),
            ({"exit_code": 1, "stderr": "denied\n"}, "ssh problem: denied"),
            (
                {"exit_code": 0, "stdout": "node1\n"},
                "hostname not FQDN: expected node1.example.com but got node1",
            ),
            (
                {"exit_code": 0, "stdout": "node2\n"},
                "hostname mismatch: expected node1.example.com but got node2",
            ),
            ({"exit_code": 0}, "hostname mismatch: expected node1.example.com but got "),
        ],
    )
    def testTexts(self, result, text):
        found = ssh.CheckHostnameResult("node1.example.com", process.RunResult(cmd="ssh", **result))
        assert found == (text is None, text)


class TestVirtualRunner:
    """BASE6: the nodes of a virtual cluster reach each other without sshd."""

    @pytest.fixture
    def runner(self, tmp_path, monkeypatch):
        for name in ("node1.example.com", "node2.example.com"):
            (tmp_path / name / "etc").mkdir(parents=True)
        root = str(tmp_path / "node1.example.com")
        hosts = os.path.join(root, "etc", "hosts")
        io.WriteFile(
            hosts,
            data="127.1.0.1 node1.example.com node1\n127.1.0.2 node2.example.com node2\n"
            "127.1.0.3 node3.example.com\n",
        )
        monkeypatch.setattr(pathutils, "ROOTDIR", root)
        monkeypatch.setattr(pathutils, "ETC_HOSTS", hosts)
        runner = ssh.GetRunner("cluster.example.com")
        assert isinstance(runner, ssh.VirtualRunner)
        return runner

    @pytest.mark.parametrize("name", ["node2.example.com", "node2", "127.1.0.2"])
    def testRunsAsThatNode(self, runner, tmp_path, name):
        result = runner.Run(name, "root", 'echo "$GANETI_HOSTNAME $GANETI_ROOTDIR" | cat; exit 3')
        assert result.stdout == f"node2.example.com {tmp_path}/node2.example.com\n"
        assert result.exit_code == 3

    def testInput(self, runner):
        assert runner.Run("node2", "root", "cat", batch=False, input="secret").stdout == "secret"

    def testOurInterpreterComesFirst(self, runner):
        import sys

        shown = runner.Run("node2", "root", "command -v python3").stdout
        assert os.path.dirname(shown) == os.path.dirname(sys.executable)

    def testNodeWithoutRootIsUnreachable(self, runner):
        result = runner.Run("node3.example.com", "root", "true")
        assert result.exit_code == 255
        assert "node3.example.com" in result.stderr
        ok, text = runner.VerifyNodeHostname("node3.example.com")
        assert not ok
        assert text.startswith("ssh problem: ")

    def testVerify(self, runner):
        assert runner.VerifyNodeHostname("node2.example.com") == (True, None)
        assert not runner.VerifyNodeHostname("node2")[0]

    def testCopy(self, runner, tmp_path):
        source = str(tmp_path / "node1.example.com" / "etc" / "file")
        target = str(tmp_path / "node2.example.com" / "etc" / "file")
        io.WriteFile(source, data="content", mode=0o400, atime=5, mtime=5)
        for _ in range(2):
            assert runner.CopyFileToNode("node2", source) is None
            assert io.ReadFile(target) == "content"
            assert stat.S_IMODE(os.stat(target).st_mode) == 0o400
            assert os.stat(target).st_mtime == 5

    def testCopyToItself(self, runner, tmp_path):
        source = str(tmp_path / "node1.example.com" / "etc" / "hosts")
        assert runner.CopyFileToNode("node1", source) is None
        assert "node1" in io.ReadFile(source)

    def testCopyOfAFileOutside(self, runner, tmp_path):
        source = tmp_path / "outside"
        source.write_text("x")
        os.makedirs(str(tmp_path / "node2.example.com") + str(tmp_path))
        assert runner.CopyFileToNode("node2", str(source)) is None
        assert io.ReadFile(str(tmp_path / "node2.example.com") + str(source)) == "x"

    def testCopyWithoutDirectory(self, runner, tmp_path):
        source = str(tmp_path / "node1.example.com" / "new" / "file")
        os.mkdir(os.path.dirname(source))
        io.WriteFile(source, data="")
        assert "No such file" in runner.CopyFileToNode("node2", source)

    def testRealCluster(self, monkeypatch):
        monkeypatch.setattr(pathutils, "ROOTDIR", "")
        assert type(ssh.GetRunner("c")) is ssh.SshRunner


KEY_A = "ssh-dss AAAAB3NzaC1w5256closdj32mZaQU root@key-a"
KEY_B = 'command="/usr/bin/fooserver -t --verbose",from="198.51.100.4" ssh-dss AAAAB3 root@key-b'


class TestAuthorizedKeys:
    @pytest.fixture
    def keys(self, tmp_path):
        path = str(tmp_path / "authorized_keys")
        io.WriteFile(path, data=f"{KEY_A}\n{KEY_B}\n")
        return path

    def testAddNew(self, keys):
        ssh.AddAuthorizedKey(keys, "ssh-dss AAAAB3NzaC1kc3MAAACB root@test\n")
        assert io.ReadFile(keys) == f"{KEY_A}\n{KEY_B}\nssh-dss AAAAB3NzaC1kc3MAAACB root@test\n"

    @pytest.mark.parametrize("key", [KEY_A, KEY_A.replace(" ", "   ") + "\n", KEY_B])
    def testAddExisting(self, keys, key):
        before = os.stat(keys).st_ino
        ssh.AddAuthorizedKey(keys, key)
        assert os.stat(keys).st_ino == before

    def testAddRepairsMissingNewline(self, keys):
        io.WriteFile(keys, data=KEY_A)
        ssh.AddAuthorizedKey(keys, KEY_B)
        assert io.ReadFile(keys) == f"{KEY_A}\n{KEY_B}\n"

    def testAddCreates(self, tmp_path):
        path = str(tmp_path / "new")
        ssh.AddAuthorizedKey(path, KEY_A)
        assert io.ReadFile(path) == f"{KEY_A}\n"
        assert os.stat(path).st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("key", [KEY_A, KEY_A.replace(" ", "\t ")])
    def testRemove(self, keys, key):
        ssh.RemoveAuthorizedKey(keys, key)
        assert io.ReadFile(keys) == f"{KEY_B}\n"

    def testRemoveMissing(self, keys, tmp_path):
        ssh.RemoveAuthorizedKey(keys, KEY_A[:20])
        assert io.ReadFile(keys) == f"{KEY_A}\n{KEY_B}\n"
        ssh.RemoveAuthorizedKey(str(tmp_path / "none"), KEY_A)
        assert not os.path.exists(tmp_path / "none")


class TestUserFiles:
    @pytest.fixture(autouse=True)
    def _Home(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pathutils, "ROOTDIR", str(tmp_path))

    def testNames(self, tmp_path):
        directory = f"{tmp_path}/root/.ssh"
        assert ssh.GetUserFiles("root", mkdir=True) == (
            f"{directory}/id_ed25519",
            f"{directory}/id_ed25519.pub",
            f"{directory}/authorized_keys",
        )
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        assert ssh.GetUserFiles("root", key_type="dsa")[0] == f"{directory}/id_dsa"

    def testMissingDirectory(self):
        with pytest.raises(errors.OpExecError, match="not a directory"):
            ssh.GetUserFiles("root")

    def testFileInTheWay(self, tmp_path):
        (tmp_path / "root").mkdir()
        (tmp_path / "root" / ".ssh").write_text("")
        with pytest.raises(errors.OpExecError, match="not a directory"):
            ssh.GetUserFiles("root", mkdir=True)

    def testUnknownUser(self):
        with pytest.raises(errors.OpExecError, match="nosuchuser"):
            ssh.GetUserFiles("nosuchuser")


class TestKnownHosts:
    def testWrite(self):
        class Config:
            def GetClusterName(self):
                return "cluster.example.com"

            def GetHostKey(self):
                return "AAAA="

        rt = fake.NewRuntime()
        rt.files.mkdir("/d")
        ssh.WriteKnownHostsFile(Config(), "/d/known_hosts", runtime=rt)
        assert rt.files.read("/d/known_hosts") == b"cluster.example.com ssh-rsa AAAA=\n"
        assert rt.files.stat("/d/known_hosts").mode & 0o777 == 0o600

    def testSeveralTypes(self):
        keys = [("ssh-rsa", "A="), ("ssh-ed25519", "B=")]
        assert ssh.FormatKnownHosts("c", keys) == "c ssh-rsa A=\nc ssh-ed25519 B=\n"
