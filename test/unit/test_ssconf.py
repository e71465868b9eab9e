"""The small files of every node, and the plain reader of the configuration."""

import dataclasses
import fcntl
import json
import os
import pathlib

import pytest

from ganeti import constants, errors, objects, pathutils, serializer, ssconf
from ganeti.config import distribution
from ganeti.runtime import DEFAULT, Runtime, fake
from ganeti.utils import net

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / "state"


@pytest.fixture
def lock_file(tmp_path):
    return str(tmp_path / "ssconf.lock")


@pytest.fixture
def rt():
    return fake.NewRuntime()


@pytest.fixture
def store(rt, lock_file):
    return ssconf.SimpleStore("/data", lock_file, runtime=rt)


class TestFiles:
    def test_names(self, store):
        assert store.KeyToFilename("node_list") == "/data/ssconf_node_list"
        assert ssconf.SimpleStore().KeyToFilename("master_ip") == (
            f"{pathutils.DATA_DIR}/ssconf_master_ip"
        )

    @pytest.mark.parametrize("key", ["nosuch", "", "../x", "node_list\n", "NODE_LIST"])
    def test_unknown_key(self, store, rt, key):
        with pytest.raises(errors.ProgrammerError, match="Invalid key"):
            store.KeyToFilename(key)
        with pytest.raises(errors.ProgrammerError):
            store.WriteFiles({"master_ip": "192.0.2.1", key: "x"})
        assert not rt.files.writes

    def test_a_bad_key_of_the_table_is_refused_as_well(self, store, monkeypatch):
        monkeypatch.setattr(constants, "SS_ALL", frozenset(["../../etc/passwd"]))
        with pytest.raises(errors.ProgrammerError):
            store.KeyToFilename("../../etc/passwd")

    def test_list_has_them_all(self, store):
        assert len(store.GetFileList()) == len(constants.SS_ALL) == 19

    @pytest.mark.parametrize(
        ("value", "content"),
        [
            ("", b""),
            (None, b""),
            ("one", b"one\n"),
            ("one\n", b"one\n"),
            ("one\ntwo", b"one\ntwo\n"),
        ],
    )
    def test_newlines(self, store, rt, value, content):
        store.WriteFiles({"node_list": value})
        assert rt.files.read("/data/ssconf_node_list") == content
        assert rt.files.stat("/data/ssconf_node_list").mode == 0o444
        assert store.GetNodeList() == content.decode().split()

    def test_what_is_there_is_not_written_again(self, store, rt):
        values = {"node_list": "a\nb", "master_ip": "192.0.2.1"}
        store.WriteFiles(values)
        store.WriteFiles(values)
        assert len(rt.files.writes) == 2
        store.WriteFiles({**values, "node_list": "a"})
        assert len(rt.files.writes) == 3
        assert store.GetNodeList() == ["a"]

    def test_wrong_permissions_are_repaired(self, store, rt):
        rt.files.write("/data/ssconf_master_ip", b"192.0.2.1\n", mode=0o600)
        store.WriteFiles({"master_ip": "192.0.2.1"})
        assert rt.files.stat("/data/ssconf_master_ip").mode == 0o444

    def test_written_durably(self, store, rt):
        store.WriteFiles({"master_ip": "192.0.2.1"})
        rt.files.Crash()
        assert store.GetMasterIP() == "192.0.2.1"

    def test_missing(self, store):
        with pytest.raises(errors.ConfigurationError, match="Can't read from the ssconf file"):
            store.GetMasterNode()

    def test_long_lists_are_read_to_their_end(self, store):
        names = [f"node{number:05}.example.com" for number in range(10000)]
        store.WriteFiles({"node_list": "\n".join(names)})
        assert store.GetNodeList() == names

    @pytest.mark.parametrize(
        ("text", "value"), [("True", True), ("False", False), ("true", False), ("", False)]
    )
    def test_maintain_node_health(self, store, text, value):
        store.WriteFiles({"maintain_node_health": text})
        assert store.GetMaintainNodeHealth() is value

    def test_real_files(self, tmp_path, lock_file):
        store = ssconf.SimpleStore(str(tmp_path), lock_file)
        store.WriteFiles({"cluster_tags": "a\nb"})
        path = tmp_path / "ssconf_cluster_tags"
        assert path.read_bytes() == b"a\nb\n"
        assert path.stat().st_mode & 0o777 == 0o444
        assert store.GetClusterTags() == ["a", "b"]


class TestVersion:
    """The higher serial number wins: a master that was cut off overwrites nothing newer."""

    def _Write(self, store, serial, mtime, name, uuid="u"):
        version = ssconf.Version(serial, mtime, uuid).Format()
        store.WriteFiles({"master_node": name, ssconf.VERSION_KEY: version})

    @pytest.mark.parametrize(
        ("serial", "mtime", "uuid", "older"),
        [
            (6, 90.0, "u", True),
            (6, 100.0, "u", True),
            (7, 90.0, "u", False),
            (8, 90.0, "u", False),
            (8, 110.0, "u", False),
            # Another cluster.
            (1, 1.0, "v", False),
        ],
    )
    def test_order(self, store, serial, mtime, uuid, older):
        self._Write(store, 7, 100.0, "node1")
        assert ssconf.Version(serial, mtime, uuid).IsOlder(store.GetVersion()) is older
        if older:
            with pytest.raises(errors.ConfigurationError, match="version 7 .* version 6 .* remove"):
                self._Write(store, serial, mtime, "node2", uuid)
            assert store.GetMasterNode() == "node1"
            assert store.GetVersion() == ssconf.Version(7, 100.0, "u")
        else:
            self._Write(store, serial, mtime, "node2", uuid)
            assert store.GetMasterNode() == "node2"
            assert store.GetVersion() == ssconf.Version(serial, mtime, uuid)

    def test_restored_on_purpose(self, store):
        """The same master with an old copy, which it was started with later."""
        self._Write(store, 7, 100.0, "node1")
        self._Write(store, 6, 110.0, "node1")
        assert store.GetVersion().serial_no == 6

    def test_deposed_master(self, store):
        """It went on changing things, later than its successor took over."""
        self._Write(store, 7, 100.0, "node1")
        with pytest.raises(
            errors.ConfigurationError, match="node1 is the master .* node2, .*not any more"
        ):
            self._Write(store, 6, 110.0, "node2")
        assert store.GetMasterNode() == "node1"

    def test_without(self, store):
        """What names no version is written, and the version stays."""
        self._Write(store, 7, 100.0, "node1")
        store.WriteFiles({"master_node": "node3"})
        assert store.GetMasterNode() == "node3"
        assert store.GetVersion().serial_no == 7

    @pytest.mark.parametrize("text", ["", "x", "1 2", "x 1.0 u", "1 x u", "1 2 3 4"])
    def test_unreadable(self, store, rt, text):
        """As after a power failure: taken as none."""
        rt.files.write("/data/ssconf_config_version", text.encode())
        assert store.GetVersion() is None
        self._Write(store, 1, 1.0, "node2")
        assert store.GetMasterNode() == "node2"

    def test_exact(self):
        version = ssconf.Version(12, 1795000000.1234567, "8f0c")
        assert ssconf.ParseVersion(version.Format()) == version


class TestRoundTrip:
    """UP2 among others: what the master computes is what every node reads."""

    def _Values(self):
        data = objects.ConfigData.FromDict(serializer.Load((_GOLDEN / "config.data").read_bytes()))
        written = distribution.Written(
            config_serial=data.serial_no,
            cluster=data.cluster,
            nodes=data.nodes,
            node_names=sorted(data.nodes),
            instance_names=sorted(data.instances),
        )
        return distribution.SsconfValues(written)

    def test_golden_files(self, store, rt):
        """The values for a real configuration, against the files of that cluster."""
        store.WriteFiles(self._Values())
        for key in constants.SS_ALL - {constants.SS_SHARED_FILE_STORAGE_DIR}:
            expected = (_GOLDEN / f"ssconf_{key}").read_bytes()
            if key == constants.SS_CLUSTER_TAGS:
                expected = b"".join(sorted(expected.splitlines(keepends=True)))
            assert rt.files.read(f"/data/ssconf_{key}") == expected, key

    def test_every_getter(self, store):
        store.WriteFiles(self._Values())
        assert store.GetClusterName() == "cluster.example.com"
        assert store.GetClusterTags() == ["b", "eu"]
        assert store.GetFileStorageDir() == "/srv/ganeti/file-storage"
        assert store.GetHypervisorList() == ["fake"]
        assert store.GetMasterCandidates() == ["node1.example.com"]
        assert store.GetMasterCandidatesIPList() == ["10.77.0.1"]
        assert store.GetMasterIP() == "10.77.0.2"
        assert store.GetMasterNetdev() == "lo"
        assert store.GetMasterNode() == "node1.example.com"
        assert store.GetNodeList() == ["node1.example.com"]
        assert store.GetNodePrimaryIPList() == ["node1.example.com 10.77.0.1"]
        assert store.GetNodeSecondaryIPList() == ["node1.example.com 10.77.0.1"]
        assert store.GetUidPool() == "1000-1009\n2000\n3000-3005"
        assert store.GetMaintainNodeHealth() is False


class TestClockIsSet:
    """A clock that jumps, by an hour, say, hides no change."""

    @pytest.mark.parametrize("jump", [-3600.0, -0.001, 0.001, 3600.0])
    def test_reload(self, rt, jump):
        config = serializer.Load((_GOLDEN / "config.data").read_bytes())
        rt.files.write("/cfg", serializer.Dump(config).encode())
        reader = ssconf.SimpleConfigReader("/cfg", runtime=rt)
        assert not reader.Reload()
        before = rt.files.stat("/cfg")
        config["serial_no"] += 1
        rt.files.write("/cfg", serializer.Dump(config).encode())
        # The file system gave the number of the first file to the third.
        stat = dataclasses.replace(before, mtime=before.mtime + jump)
        rt.files.stat = lambda path: stat
        assert reader.Reload()
        assert reader.GetConfigSerialNo() == config["serial_no"]
        assert not reader.Reload()

    @pytest.mark.parametrize("jump", [-3600.0, 3600.0])
    def test_versions_go_on(self, store, jump):
        """The master's clock is set: its next write is a newer one all the same."""
        for serial, mtime in ((7, 10000.0), (8, 10000.0 + jump), (9, 10001.0 + jump)):
            version = ssconf.Version(serial, mtime, "u").Format()
            store.WriteFiles({"master_node": f"node{serial}", ssconf.VERSION_KEY: version})
            assert store.GetMasterNode() == f"node{serial}"


class TestLock:
    def test_busy(self, rt, lock_file):
        """Somebody holds the lock for longer than 10 s."""
        store = ssconf.SimpleStore("/data", lock_file, runtime=rt)
        fd = os.open(lock_file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with pytest.raises(errors.LockError, match="Failed to lock .* in exclusive mode"):
                store.WriteFiles({"master_ip": "192.0.2.1"})
        finally:
            os.close(fd)
        assert not rt.files.writes
        assert 10 <= rt.clock.monotonic() < 12

    def test_short_wait(self, rt, lock_file):
        store = ssconf.SimpleStore("/data", lock_file, runtime=rt)
        fd = os.open(lock_file, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)

        class _Clock(fake.FakeClock):
            def sleep(self, seconds):
                super().sleep(seconds)
                if self.now > 3 and not self.closed:
                    self.closed = True
                    os.close(fd)

        clock = _Clock()
        clock.closed = False
        store = ssconf.SimpleStore("/data", lock_file, runtime=fake.NewRuntime(clock=clock))
        store.WriteFiles({"master_ip": "192.0.2.1"})
        assert clock.sleeps[0] == pytest.approx(0.1)
        assert store.GetMasterIP() == "192.0.2.1"

    def test_released_after_an_error(self, rt, lock_file):
        store = ssconf.SimpleStore("/data", lock_file, runtime=rt)
        rt.files.Fail("write", times=1)
        with pytest.raises(OSError, match="Input/output"):
            store.WriteFiles({"master_ip": "192.0.2.1"})
        store.WriteFiles({"master_ip": "192.0.2.1"})
        assert rt.clock.monotonic() == 0


class _Master:
    def __init__(self, name="node1.example.com", error=None):
        self._name = name
        self._error = error

    def GetMasterNode(self):
        if self._error:
            raise self._error
        return self._name


class TestCheckMaster:
    """The three ends, and the one way on."""

    @pytest.fixture(autouse=True)
    def _own_name(self, monkeypatch):
        self.resolver_error = None

        class _HostInfo:
            def __init__(this):
                if self.resolver_error:
                    raise self.resolver_error
                this.name = "node1.example.com"

        monkeypatch.setattr(net, "HostInfo", _HostInfo)

    def test_master(self):
        ssconf.CheckMaster(False, ss=_Master())
        assert ssconf.GetMasterAndMyself(_Master("x")) == ("x", "node1.example.com")

    @pytest.mark.parametrize(("debug", "text"), [(False, ""), (True, "Not master, exiting.\n")])
    def test_not_master(self, debug, text, capsys):
        with pytest.raises(SystemExit) as err:
            ssconf.CheckMaster(debug, ss=_Master("node2.example.com"))
        assert err.value.code == constants.EXIT_NOTMASTER == 11
        assert capsys.readouterr() == ("", text)

    def test_no_ssconf(self, capsys):
        with pytest.raises(SystemExit) as err:
            ssconf.CheckMaster(False, ss=_Master(error=errors.ConfigurationError("no file")))
        assert err.value.code == constants.EXIT_NODESETUP_ERROR == 12
        assert capsys.readouterr() == ("Cluster configuration incomplete: no file\n", "")

    def test_no_name(self, capsys):
        self.resolver_error = errors.ResolverError("host", 1, "unknown")
        with pytest.raises(SystemExit) as err:
            ssconf.CheckMaster(False, ss=_Master())
        assert err.value.code == 12
        assert capsys.readouterr() == ("", "Cannot resolve my own name (host)\n")

    def test_default_store(self, capsys):
        with pytest.raises(SystemExit) as err:
            ssconf.CheckMaster(False)
        assert err.value.code == 12
        assert "ssconf_master_node" in capsys.readouterr().out


_PATH = "/config.data"


def _Config(**changes):
    return {
        "serial_no": 42,
        "cluster": {
            "serial_no": 7,
            "cluster_name": "cluster",
            "master_node": "n1",
            "master_ip": "192.0.2.100",
            "master_netdev": "eth0",
            "rsahostkeypub": "AAAA",
            "file_storage_dir": "/srv",
            "nicparams": {"default": {"mode": "bridged", "link": "br0"}},
        },
        "nodes": {
            "n1": {"primary_ip": "192.0.2.1", "master_candidate": True},
            "n2": {"primary_ip": "192.0.2.2", "offline": True, "drained": False},
        },
        "instances": {
            "a": {
                "primary_node": "n1",
                "nics": [
                    {"ip": "10.0.0.1", "nicparams": {}},
                    {"ip": "10.0.0.2", "nicparams": {"link": "br1"}},
                    {"nicparams": {}},
                ],
            },
            "b": {"primary_node": "n2", "nics": [{"ip": "10.0.0.1", "nicparams": {"link": "br1"}}]},
            "c": {"primary_node": "n2"},
        },
        **changes,
    }


def _NewReader(rt, config=None):
    rt.files.write(_PATH, json.dumps(config or _Config()).encode())
    return ssconf.SimpleConfigReader(_PATH, runtime=rt)


class TestReader:
    """CF2: what confd answers from."""

    def test_cluster(self, rt):
        reader = _NewReader(rt)
        assert reader.GetClusterName() == "cluster"
        assert reader.GetHostKey() == "AAAA"
        assert reader.GetMasterNode() == "n1"
        assert reader.GetMasterIP() == "192.0.2.100"
        assert reader.GetMasterNetdev() == "eth0"
        assert reader.GetFileStorageDir() == "/srv"
        assert reader.GetConfigSerialNo() == 42
        assert reader.GetClusterSerialNo() == 7
        assert reader.GetDefaultNicLink() == "br0"
        assert reader.GetDefaultNicParams() == {"mode": "bridged", "link": "br0"}

    def test_nodes(self, rt):
        reader = _NewReader(rt)
        assert sorted(reader.GetNodeList()) == ["n1", "n2"]
        assert reader.GetNodeStatusFlags("n1") == (True, False, False)
        assert reader.GetNodeStatusFlags("n2") == (False, False, True)
        assert reader.GetNodeStatusFlags("n") is None
        assert reader.GetNodePrimaryIp("n2") == "192.0.2.2"
        assert reader.GetNodePrimaryIp("nosuch") is None
        assert reader.GetNodesPrimaryIps() == ["192.0.2.1", "192.0.2.2"]
        assert reader.GetMasterCandidatesPrimaryIps() == ["192.0.2.1"]

    def test_instances(self, rt):
        reader = _NewReader(rt)
        assert reader.GetInstancePrimaryNode("b") == "n2"
        assert reader.GetInstancePrimaryNode("nosuch") is None
        assert reader.GetInstanceByLinkIp("10.0.0.1", "br0") == "a"
        assert reader.GetInstanceByLinkIp("10.0.0.1", None) == "a"
        assert reader.GetInstanceByLinkIp("10.0.0.1", "") == "a"
        assert reader.GetInstanceByLinkIp("10.0.0.1", "br1") == "b"
        assert reader.GetInstanceByLinkIp("10.0.0.2", "br0") is None
        assert reader.GetInstancesIps("br1") == ["10.0.0.2", "10.0.0.1"]
        assert reader.GetInstancesIps(None) == ["10.0.0.1"]
        assert reader.GetInstancesIps("nosuch") == []

    def test_same_ip_twice_on_a_link(self, rt):
        config = _Config()
        config["instances"]["b"]["nics"][0]["nicparams"] = {}
        reader = _NewReader(rt, config)
        assert reader.GetInstanceByLinkIp("10.0.0.1", "br0") == "b"
        assert reader.GetInstancesIps("br0") == ["10.0.0.1", "10.0.0.1"]

    def test_answers_are_copies(self, rt):
        reader = _NewReader(rt)
        reader.GetNodesPrimaryIps().clear()
        reader.GetInstancesIps("br0").clear()
        assert reader.GetNodesPrimaryIps()
        assert reader.GetInstancesIps("br0")

    def test_older_file(self, rt):
        config = _Config(cluster={"master_node": "n1"}, nodes={"n1": {"primary_ip": "192.0.2.1"}})
        reader = _NewReader(rt, config)
        assert reader.GetNodeStatusFlags("n1") == (False, False, False)
        assert reader.GetDefaultNicLink() == constants.NICC_DEFAULTS["link"]
        assert reader.GetClusterName() == ""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff",
            b"[]",
            b"null",
            b"{}",
            json.dumps(_Config(nodes=[])).encode(),
            json.dumps(_Config(nodes={"n": {}})).encode(),
            json.dumps(_Config(instances=None)).encode(),
            json.dumps(_Config(serial_no="x")).encode(),
            json.dumps(_Config(cluster={})).encode(),
            json.dumps(_Config(instances={"a": {"nics": 5}})).encode(),
        ],
    )
    def test_broken(self, rt, content):
        rt.files.write(_PATH, content)
        with pytest.raises(errors.ConfigurationError):
            ssconf.SimpleConfigReader(_PATH, runtime=rt)

    def test_missing(self, rt):
        with pytest.raises(errors.ConfigurationError, match="Cannot stat"):
            ssconf.SimpleConfigReader(_PATH, runtime=rt)
        rt.files.write(_PATH, b"x")
        rt.files.Fail("read")
        with pytest.raises(errors.ConfigurationError, match="Cannot read"):
            ssconf.SimpleConfigReader(_PATH, runtime=rt)

    def test_failed_reload_keeps_what_there_was(self, rt):
        reader = _NewReader(rt)
        rt.files.write(_PATH, b"{")
        for _ in range(2):
            with pytest.raises(errors.ConfigurationError):
                reader.Reload()
            assert reader.GetConfigSerialNo() == 42
        rt.files.write(_PATH, json.dumps(_Config(serial_no=43)).encode())
        assert reader.Reload()
        assert reader.GetConfigSerialNo() == 43

    def test_usual_place(self, rt):
        rt.files.write(pathutils.CLUSTER_CONF_FILE, json.dumps(_Config()).encode())
        assert ssconf.SimpleConfigReader(runtime=rt).GetConfigSerialNo() == 42


class TestReloadDetection:
    """CF3: inode, size, or a newer time; on real files."""

    def _Open(self, tmp_path):
        path = tmp_path / "config.data"
        path.write_text(json.dumps(_Config()), encoding="utf-8")
        os.utime(path, (1000, 1000))
        reader = ssconf.SimpleConfigReader(str(path), runtime=Runtime(**vars(DEFAULT)))
        assert not reader.Reload()
        return path, reader

    def test_unchanged_but_forced(self, tmp_path):
        _, reader = self._Open(tmp_path)
        assert reader.Reload(force=True)
        assert not reader.Reload()

    def test_size(self, tmp_path):
        path, reader = self._Open(tmp_path)
        path.write_text(json.dumps(_Config()) + " ", encoding="utf-8")
        os.utime(path, (1000, 1000))
        assert reader.Reload()

    def test_inode(self, tmp_path):
        path, reader = self._Open(tmp_path)
        other = tmp_path / "other"
        other.write_text(json.dumps(_Config()), encoding="utf-8")
        os.utime(other, (1000, 1000))
        other.rename(path)
        assert reader.Reload()

    @pytest.mark.parametrize(("mtime", "reloaded"), [(1001, True), (1000, False), (999, True)])
    def test_time(self, tmp_path, mtime, reloaded):
        path, reader = self._Open(tmp_path)
        os.utime(path, (mtime, mtime))
        assert reader.Reload() is reloaded
