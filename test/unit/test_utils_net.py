"""Host names, addresses and hosts files."""

import socket
import stat

import pytest

from ganeti import constants, errors, pathutils
from ganeti.utils import hosts, io, net

SAMPLE = """\
# This is a test file for /etc/hosts
127.0.0.1\tlocalhost
192.0.2.1 router gw
"""


@pytest.fixture
def hostsFile(tmp_path):
    path = str(tmp_path / "hosts")
    io.WriteFile(path, data=SAMPLE)
    return path


class TestHostsFile:
    def testNewAddress(self, hostsFile):
        hosts.SetEtcHostsEntry(hostsFile, "192.0.2.9", "myhost.example.com", ["myhost"])
        assert io.ReadFile(hostsFile) == SAMPLE + "192.0.2.9\tmyhost.example.com myhost\n"
        assert stat.S_IMODE(io.os.stat(hostsFile).st_mode) == 0o644

    def testExistingAddressIsReplaced(self, hostsFile):
        hosts.SetEtcHostsEntry(hostsFile, "192.0.2.1", "myhost", ["myhost", "a", "a"])
        assert io.ReadFile(hostsFile) == (
            "# This is a test file for /etc/hosts\n127.0.0.1\tlocalhost\n192.0.2.1\tmyhost a\n"
        )

    def testRemoveAlias(self, hostsFile):
        hosts.RemoveEtcHostsEntry(hostsFile, "gw")
        assert io.ReadFile(hostsFile) == SAMPLE.replace(" gw", "")

    def testRemoveFirstName(self, hostsFile):
        hosts.RemoveEtcHostsEntry(hostsFile, "router")
        assert io.ReadFile(hostsFile) == SAMPLE.replace("router ", "")

    def testRemoveSingleName(self, hostsFile):
        hosts.RemoveEtcHostsEntry(hostsFile, "localhost")
        assert io.ReadFile(hostsFile) == SAMPLE.replace("127.0.0.1\tlocalhost\n", "")

    def testRemoveUnknownName(self, hostsFile):
        for name in ("unknown", "test", "192.0.2.1"):
            hosts.RemoveEtcHostsEntry(hostsFile, name)
        assert io.ReadFile(hostsFile) == SAMPLE

    def testParse(self):
        content = SAMPLE + "10.0.0.1 a b # c\n10.0.0.2\n\n"
        assert list(hosts.ParseHosts(content)) == [
            ("127.0.0.1", ["localhost"]),
            ("192.0.2.1", ["router", "gw"]),
            ("10.0.0.1", ["a", "b"]),
        ]


class TestNormalizeName:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("a_b", "a_b"),
            ("a-b.c", "a-b.c"),
            ("A.Example.COM", "a.example.com"),
            ("a.example.com.", "a.example.com"),
            ("x" * 255, "x" * 255),
        ],
    )
    def testGood(self, name, expected):
        assert net.HostInfo.NormalizeName(name) == expected

    @pytest.mark.parametrize(
        "name", ["", "a b", "a/b", ".a.b", "a..b", "-x", "x" * 256, "a\n", "ä"]
    )
    def testBad(self, name):
        with pytest.raises(errors.OpPrereqError) as info:
            net.HostInfo.NormalizeName(name)
        assert info.value.args[1] == errors.ECODE_INVAL


class TestHostInfo:
    """BASE6: names in a virtual cluster."""

    @pytest.fixture(autouse=True)
    def _Hosts(self, tmp_path, monkeypatch):
        path = str(tmp_path / "hosts")
        content = "127.1.0.1 Node1.example.com node1 web\n127.1.0.2 node2.example.com node2\n"
        io.WriteFile(path, data=content + "127.1.0.3 node2.example.com\n")
        monkeypatch.setattr(pathutils, "ETC_HOSTS", path)
        monkeypatch.setattr(net.socket, "gethostbyname_ex", self._Resolver)

    @staticmethod
    def _Resolver(name):
        if name == "real.example.com":
            return name, ["real"], ["192.0.2.7"]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def testOwnName(self):
        assert net.GetSystemHostName() == "node1.example.com"
        host = net.HostInfo()
        assert host.query == "node1.example.com"
        assert (host.name, host.ip) == ("node1.example.com", "127.1.0.1")
        assert host.ShortName() == "node1"
        assert host.aliases == ["node1", "web"]

    def testSeveralAddresses(self):
        assert net.HostInfo("NODE2.example.com").ipaddrs == ["127.1.0.2", "127.1.0.3"]

    @pytest.mark.parametrize("query", ["node2", "127.1.0.2", "node2.example.com."])
    def testByAliasAndAddress(self, query):
        assert net.HostInfo(query).name == "node2.example.com"

    def testSystemResolverIsAskedNext(self):
        assert net.HostInfo("real.example.com").ip == "192.0.2.7"

    def testNoHostsFileInARealCluster(self, monkeypatch):
        monkeypatch.setattr(pathutils, "IsVirtual", lambda: False)
        with pytest.raises(errors.ResolverError):
            net.HostInfo("node2.example.com")

    def testFailure(self):
        with pytest.raises(errors.ResolverError) as info:
            net.HostInfo("missing.example.com")
        assert info.value.args == (
            "missing.example.com",
            socket.EAI_NONAME,
            "Name or service not known",
        )

    def testGetHostInfo(self):
        assert net.GetHostInfo("node1").name == "node1.example.com"
        with pytest.raises(errors.OpPrereqError, match="missing") as info:
            net.GetHostInfo("missing.example.com")
        assert info.value.args[1] == errors.ECODE_RESOLVER

    def testAddAndRemove(self, tmp_path):
        path = str(tmp_path / "etchosts")
        io.WriteFile(path, data="127.0.0.1 localhost\n")
        net.AddHostToEtcHosts("node1", path)
        added = "127.1.0.1\tnode1.example.com node1\n"
        assert io.ReadFile(path) == "127.0.0.1 localhost\n" + added
        net.RemoveHostFromEtcHosts("node1", path)
        assert io.ReadFile(path) == "127.0.0.1 localhost\n"


class TestAddresses:
    @pytest.mark.parametrize("ip", ["0.0.0.0", "127.0.0.1", "255.255.255.255"])
    def testValid(self, ip):
        assert net.IsValidIP(ip)

    @pytest.mark.parametrize(
        "ip", ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "a.b.c.d", "::1", "1.2.3.4\n"]
    )
    def testInvalid(self, ip):
        assert not net.IsValidIP(ip)
        assert not net.IsLoopback(ip)

    def testOwn(self):
        assert net.OwnIpAddress("127.0.0.1")
        assert net.OwnIpAddress("127.7.8.9")
        assert not net.OwnIpAddress("192.0.2.1")
        assert not net.OwnIpAddress("node1")

    def testBridge(self, tmp_path, monkeypatch):
        (tmp_path / "xen-br0" / "bridge").mkdir(parents=True)
        (tmp_path / "eth0").mkdir()
        monkeypatch.setattr(net, "_SYS_CLASS_NET", str(tmp_path))
        assert net.BridgeExists("xen-br0")
        assert not net.BridgeExists("eth0")
        assert not net.BridgeExists("missing")


class TestDaemonPort:
    def testDefaults(self, monkeypatch):
        def Nothing(name, protocol):
            raise OSError("service/proto not found")

        monkeypatch.setattr(net.socket, "getservbyname", Nothing)
        assert net.GetDaemonPort(constants.NODED) == 1811
        assert net.GetDaemonPort(constants.CONFD) == 1814
        assert net.GetDaemonPort(constants.RAPI) == 5080

    def testServicesDatabase(self, monkeypatch):
        table = {("ganeti-confd", "udp"): 1234}
        monkeypatch.setattr(net.socket, "getservbyname", lambda *key: table[key])
        assert net.GetDaemonPort(constants.CONFD) == 1234

    @pytest.mark.parametrize("name", ["ganeti-masterd", "sshd"])
    def testWithoutPort(self, name):
        with pytest.raises(errors.ProgrammerError):
            net.GetDaemonPort(name)


class TestTcpPing:
    @pytest.fixture
    def listening(self):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            yield sock.getsockname()[1]

    @pytest.fixture
    def refusing(self):
        # bound, so that nobody else gets the port, but not listening
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            yield sock.getsockname()[1]

    def testListening(self, listening):
        for needed in (False, True):
            for source in (None, "127.0.0.1", "127.0.0.2"):
                assert net.TcpPing(
                    "127.0.0.1", listening, timeout=5, live_port_needed=needed, source=source
                )

    def testRefused(self, refusing):
        assert net.TcpPing("127.0.0.1", refusing, timeout=5)
        assert not net.TcpPing("127.0.0.1", refusing, timeout=5, live_port_needed=True)

    def testForeignSource(self, listening):
        assert not net.TcpPing("127.0.0.1", listening, timeout=5, source="192.0.2.1")

    def testDeaf(self):
        # a full backlog: further connections are neither taken nor refused
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen(0)
            port = sock.getsockname()[1]
            waiting = []
            try:
                for _ in range(3):
                    client = socket.socket()
                    client.setblocking(False)
                    client.connect_ex(("127.0.0.1", port))
                    waiting.append(client)
                assert not net.TcpPing("127.0.0.1", port, timeout=0.02)
            finally:
                for client in waiting:
                    client.close()

    def testUnknownName(self, monkeypatch):
        def Fail(name):
            raise socket.gaierror(socket.EAI_NONAME, "no")

        monkeypatch.setattr(net.socket, "gethostbyname_ex", Fail)
        assert not net.TcpPing("missing.example.com", 1, timeout=1)
