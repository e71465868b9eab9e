"""Directories of older versions: BASE4 (with UU1 and PR3, for what older configurations lack)."""

import copy
import fcntl
import json
import logging
import os
import pathlib
import stat
import subprocess

import pytest

from ganeti import config, constants, errors, pathutils, ssconf
from ganeti.config import upgrade
from ganeti.runtime import DEFAULT
from ganeti.tools import cfgupgrade
from ganeti.utils import process, x509

_DATA = pathlib.Path(__file__).parent.parent / "data"
_OLD = json.loads((_DATA / "old" / "config-2.0.data").read_text())
_GOLDEN = _DATA / "golden" / "state"


@pytest.fixture(autouse=True)
def _Logging():
    """What the program sets up is not for the tests after these."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def _Upgrade(document):
    return upgrade.Upgrade(json.dumps(document).encode(), "config.data", DEFAULT)


def _Changed(**values):
    document = copy.deepcopy(_OLD)
    document.update(values)
    return document


class TestDocument20:
    """BASE4: what a configuration of 2.0 becomes."""

    @pytest.fixture
    def data(self):
        return _Upgrade(_OLD).data.ToDict()

    def test_version(self, data):
        assert data["version"] == 2010000

    def test_parameters_of_the_cluster(self, data):
        cluster = data["cluster"]
        assert cluster["nicparams"] == {"default": {"mode": "bridged", "link": "xen-br7"}}
        assert cluster["enabled_hypervisors"] == ["fake", "kvm"]
        assert not {"default_bridge", "default_hypervisor"} & cluster.keys()
        assert cluster["hvparams"]["kvm"]["root_path"] == "/dev/vda"
        assert cluster["hvparams"]["kvm"]["migration_port"] == 8102
        assert cluster["beparams"]["default"]["memory"] == 256
        assert (cluster["os_hvp"], cluster["uid_pool"]) == ({}, [])

    def test_network_cards(self, data):
        nics = data["instances"]["web.example.com"]["nics"]
        assert [nic["nicparams"] for nic in nics] == [
            {"mode": "bridged", "link": "br-dmz"},
            {"mode": "bridged", "link": "xen-br7"},
        ]
        assert data["instances"]["db.example.com"]["nics"][0]["nicparams"] == {}
        assert not any("bridge" in nic for nic in nics)

    def test_global_parameters_of_instances_go(self, data):
        """PR3"""
        assert data["instances"]["web.example.com"]["hvparams"] == {"acpi": False}

    def test_uuids(self, data):
        """UU1"""
        web = data["instances"]["web.example.com"]
        found = [data["cluster"], *data["nodes"].values(), *data["instances"].values()]
        found += [*web["nics"], *web["disks"], *web["disks"][0]["children"]]
        uuids = [obj["uuid"] for obj in found]
        assert len(set(uuids)) == len(uuids) == 1 + 2 + 2 + 2 + 3

    def test_everything_else_stays(self, data):
        web = data["instances"]["web.example.com"]
        disk = web["disks"][0]
        assert disk["logical_id"] == _OLD["instances"]["web.example.com"]["disks"][0]["logical_id"]
        assert (web["serial_no"], web["tags"]) == (3, ["a", "b"])
        assert data["cluster"]["serial_no"] == 17

    def test_keys_that_nobody_knows_stay(self):
        document = _Changed(own="x")
        document["cluster"]["mine"] = {"a": [1]}
        data = _Upgrade(document).data.ToDict()
        assert (data["own"], data["cluster"]["mine"]) == ("x", {"a": [1]})

    def test_what_the_first_releases_lacked(self):
        document = copy.deepcopy(_OLD)
        for node in document["nodes"].values():
            del node["drained"], node["serial_no"]
        data = _Upgrade(document).data
        assert [(node.drained, node.serial_no) for node in data.nodes.values()] == [(False, 1)] * 2

    def test_render(self):
        """The write counts as one: a new serial number and time."""
        document = json.loads(_Upgrade(_OLD).Render(5.5))
        assert (document["serial_no"], document["mtime"]) == (1235, 5.5)
        assert document["nodes"].keys() == _OLD["nodes"].keys()

    def test_words(self):
        changes = _Upgrade(_OLD).changes
        assert changes[0] == "version 2.0.0 to 2.1.0"
        assert changes[1].startswith("the cluster gets ")
        assert "loses default_bridge, default_hypervisor" in changes[1]
        assert "2 nodes: each gets uuid" in changes

    def test_sound(self):
        assert _Upgrade(_OLD).problems == []

    def test_problems_are_told(self):
        document = copy.deepcopy(_OLD)
        document["instances"]["db.example.com"]["primary_node"] = "nosuch"
        assert "nosuch" in "".join(_Upgrade(document).problems)


class TestDocument21:
    """BASE4: 2.1 is this version; only what this suite adds is new."""

    def test_golden(self):
        before = json.loads((_GOLDEN / "config.data").read_text())
        result = _Upgrade(before)
        after = result.data.ToDict()
        assert result.version == constants.CONFIG_VERSION
        assert after["cluster"]["uuid"] == before["cluster"]["uuid"]
        gained = after["cluster"].keys() - before["cluster"].keys()
        assert gained == {"default_iallocator", "diskparams"}
        assert not any("tags" in change for change in result.changes)

    def test_twice(self):
        once = json.loads(_Upgrade(_OLD).Render(1.0))
        assert _Upgrade(once).changes == []


class TestRefusedVersions:
    """Unknown and newer versions, with what to do; nothing is guessed."""

    @pytest.mark.parametrize(
        ("version", "words"),
        [
            (2020000, "2.2.0.*use the newer release"),
            (2010001, "2.1.1.*use the newer release"),
            (3000000, "3.0.0.*restore the backup"),
            (1020000, "1.2.0.*release in between"),
            (0, "0.0.0.*release in between"),
            (-1, "damaged"),
            (True, "damaged"),
            ("2000000", "damaged"),
            (None, "damaged"),
            (2000000.0, "damaged"),
        ],
    )
    def test_version(self, version, words):
        with pytest.raises(errors.ConfigurationError, match=words):
            _Upgrade(_Changed(version=version))

    def test_revisions_of_20(self):
        assert _Upgrade(_Changed(version=2000003)).data.version == constants.CONFIG_VERSION

    def test_of_12(self):
        document = copy.deepcopy(_OLD)
        document["cluster"]["config_version"] = 3
        with pytest.raises(errors.ConfigurationError, match="cfgupgrade12"):
            _Upgrade(document)

    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"{}", b'{"version": 2000000}', b'{"version": 2000000, "cluster": 1}'],
    )
    def test_no_configuration(self, content):
        with pytest.raises(errors.ConfigurationError, match="config.data"):
            upgrade.Upgrade(content, "config.data", DEFAULT)

    @pytest.mark.parametrize(
        ("kind", "value"),
        [("nodes", {"n": 1}), ("nodes", []), ("instances", {"i": {"nics": 5}}), ("cluster", {})],
    )
    def test_broken_parts(self, kind, value):
        with pytest.raises(errors.ConfigurationError):
            _Upgrade(_Changed(**{kind: value}))


@pytest.fixture(scope="module")
def small_pem(tmp_path_factory):
    """Key and certificate as 2.1 made them: RSA with 1024 bits."""
    path = tmp_path_factory.mktemp("pem") / "old.pem"
    key, cert = f"{path}.key", f"{path}.cert"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:1024", "-sha1", "-days", "1825", "-nodes"]
        + ["-x509", "-keyout", key, "-out", cert, "-batch"],
        check=True,
        capture_output=True,
    )
    path.write_text(pathlib.Path(key).read_text() + pathlib.Path(cert).read_text())
    return path.read_text()


@pytest.fixture(scope="module")
def good_pem():
    return x509.GenerateSelfSignedX509Cert().pem


@pytest.fixture
def old(tmp_path, good_pem):
    """A copy of the data directory of a 2.0 master."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "config.data").write_text(json.dumps(_OLD))
    (path / "server.pem").write_text(good_pem)
    (path / "known_hosts").write_text("cluster.example.com ssh-rsa A\n")
    for name in ("server.pem", "config.data"):
        (path / name).chmod(0o600)
    (path / "ssconf_master_node").write_text("node1.example.com\n")
    return path


def _Content(path):
    return {item.name: (item.read_bytes(), item.stat().st_mode) for item in path.iterdir()}


def _Run(path, *options):
    return cfgupgrade.Main(["--path", str(path), *options])


class TestDirectory:
    """BASE4: a directory of 2.0 is upgraded, with a copy of what was there."""

    def test_files(self, old):
        assert _Run(old, "-f") == 0
        for name in ("server.pem", "rapi.pem"):
            x509.CheckPem((old / name).read_text())
        key = (old / "hmac.key").read_text()
        assert len(key) == 41 and int(key, 16) >= 0
        modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in old.iterdir()}
        assert modes["config.data"] == 0o600
        assert (modes["rapi.pem"], modes["hmac.key"]) == (0o400, 0o400)
        assert {modes[name] for name in modes if name.startswith("ssconf_")} == {0o444}
        assert not [name for name in modes if name.endswith(".new")]

    def test_backup(self, old):
        _Run(old, "-f")
        (backup,) = old.glob("config.data.backup-*")
        assert json.loads(backup.read_text()) == _OLD
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600

    def test_what_is_there_is_kept(self, old):
        before = _Content(old)
        _Run(old, "-f")
        after = _Content(old)
        assert (after["server.pem"], after["known_hosts"]) == (
            before["server.pem"],
            before["known_hosts"],
        )

    def test_ssconf(self, old):
        _Run(old, "-f")
        store = ssconf.SimpleStore(str(old))
        assert store.GetHypervisorList() == ["fake", "kvm"]
        assert store.GetNodePrimaryIPList() == [
            "node1.example.com 192.0.2.11",
            "node2.example.com 192.0.2.12",
        ]
        assert store.GetMaintainNodeHealth() is False

    def test_readable(self, old):
        """The configuration is one that the master daemon takes as it is."""
        _Run(old, "-f")
        content = (old / "config.data").read_bytes()
        cfg = config.ConfigWriter(str(old / "config.data"), offline=True)
        assert cfg.write_count == 0
        assert (old / "config.data").read_bytes() == content
        assert cfg.VerifyConfig() == []

    def test_known_hosts(self, old):
        (old / "known_hosts").unlink()
        _Run(old, "-f")
        key = _OLD["cluster"]["rsahostkeypub"]
        assert (old / "known_hosts").read_text() == f"cluster.example.com ssh-rsa {key}\n"
        assert stat.S_IMODE((old / "known_hosts").stat().st_mode) == 0o600

    def test_golden_21(self, tmp_path, good_pem):
        for item in _GOLDEN.glob("*"):
            if item.is_file():
                (tmp_path / item.name).write_bytes(item.read_bytes())
        (tmp_path / "server.pem").write_text(good_pem)
        assert _Run(tmp_path, "-f") == 0
        document = json.loads((tmp_path / "config.data").read_text())
        nics = document["instances"]["inst1.example.com"]["nics"]
        assert all(nic["uuid"] for nic in nics)
        assert len(list(tmp_path.glob("config.data.backup-*"))) == 1

    def test_secrets_for_all_to_read(self, old):
        (old / "server.pem").chmod(0o644)
        _Run(old, "-f")
        assert stat.S_IMODE((old / "server.pem").stat().st_mode) == 0o400


class TestCertificates:
    """What no daemon of today can be started with is replaced; a copy is kept."""

    def test_small_key(self, old, small_pem, capsys):
        (old / "server.pem").write_text(small_pem)
        assert _Run(old, "-f") == 0
        (backup,) = old.glob("server.pem.backup-*")
        assert backup.read_text() == small_pem
        new = (old / "server.pem").read_text()
        assert cfgupgrade.FindTlsProblem(str(old / "server.pem"), DEFAULT.clock.time()) is None
        cert = x509.LoadCertificate(new)
        assert b"cluster.example.com" in cert.to_cryptography().subject.public_bytes()
        assert f"copy {old}/server.pem to the same place" in capsys.readouterr().err

    def test_expired(self, old):
        later = DEFAULT.clock.time() + 10 * 365 * 86400
        assert "expired" in cfgupgrade.FindTlsProblem(str(old / "server.pem"), later)

    def test_damaged(self, old):
        (old / "server.pem").write_text("x")
        assert "none found" in cfgupgrade.FindTlsProblem(str(old / "server.pem"), 0)

    def test_not_told_without_need(self, old, capsys):
        _Run(old, "-f")
        assert "to the same place" not in capsys.readouterr().err


class TestDryRun:
    def test_nothing_is_changed(self, old, capsys):
        before = _Content(old)
        assert _Run(old, "--dry-run") == 0
        assert _Content(old) == before
        out, err = capsys.readouterr()
        assert out == ""
        for word in ("config.data", "rapi.pem", "hmac.key", "ssconf_uid_pool", "2.0.0 to 2.1.0"):
            assert word in err

    def test_of_what_would_be_refused(self, old):
        (old / "config.data").write_text(json.dumps(_Changed(version=9000000)))
        assert _Run(old, "--dry-run") == 1


class TestRefusals:
    """Nothing is written unless everything is right."""

    @pytest.fixture(autouse=True)
    def _Unchanged(self, old):
        yield
        names = {item.name for item in old.iterdir()}
        assert not names & {"hmac.key", "rapi.pem", "ssconf_uid_pool"}

    def test_newer(self, old, capsys):
        (old / "config.data").write_text(json.dumps(_Changed(version=2020000)))
        assert _Run(old, "-f") == 1
        assert "2.2.0" in capsys.readouterr().err

    def test_no_configuration(self, old, capsys):
        (old / "config.data").unlink()
        assert _Run(old, "-f") == 1
        assert "--path" in capsys.readouterr().err

    def test_other_directory(self, old, capsys):
        for name in ("server.pem", "known_hosts"):
            (old / name).unlink()
        assert _Run(old, "-f") == 1
        assert "known_hosts" in capsys.readouterr().err

    def test_known_hosts_is_enough(self, old, capsys):
        (old / "server.pem").unlink()
        assert _Run(old, "--dry-run") == 0

    def test_refused_by_the_user(self, old):
        assert cfgupgrade.Run(str(old), confirm=lambda: False) == 1

    def test_without_a_terminal(self, old, monkeypatch):
        monkeypatch.setattr(cfgupgrade.console, "OpenTerminal", lambda: None)
        assert _Run(old) == 1

    def test_arguments(self, old):
        assert _Run(old, "-f", "more") == 1

    def test_locked(self, old, capsys):
        fd = os.open(old, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            assert _Run(old, "-f") == 1
        finally:
            os.close(fd)
        assert "another cfgupgrade" in capsys.readouterr().err


class TestLive:
    """The directory that the host's own daemons use."""

    @pytest.fixture
    def live(self, old):
        os.makedirs(os.path.dirname(pathutils.DATA_DIR))
        old.rename(pathutils.DATA_DIR)
        os.makedirs(pathutils.RUN_GANETI_DIR)
        etc = pathlib.Path(pathutils.ETC_HOSTS)
        etc.parent.mkdir(parents=True)
        etc.write_text("127.0.0.1 node1.example.com\n")
        return pathlib.Path(pathutils.DATA_DIR)

    def test_default(self, live):
        assert cfgupgrade.Main(["-f"]) == 0
        assert json.loads((live / "config.data").read_text())["version"] == 2010000

    @pytest.mark.parametrize("name", constants.DAEMONS)
    def test_daemon_runs(self, live, name, capsys):
        with process.PidFile(pathutils.DaemonPidFile(name)):
            assert cfgupgrade.Main(["-f"]) == 1
        err = capsys.readouterr().err
        assert f"{name} (process {os.getpid()})" in err
        assert "stop-all" in err
        assert json.loads((live / "config.data").read_text()) == _OLD

    def test_daemon_of_an_old_version_runs(self, live, tmp_path):
        """Its pid file is not locked."""
        script = tmp_path / "ganeti-masterd"
        script.write_text("#!/bin/sh\necho up\nread x\n")
        script.chmod(0o755)
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/sh", str(script)], stdin=pipe, stdout=pipe) as proc:
            proc.stdout.readline()
            path = pathlib.Path(pathutils.DaemonPidFile("ganeti-masterd"))
            path.write_text(f"{proc.pid}\n")
            found = cfgupgrade.FindRunningDaemons()
            proc.stdin.close()
        assert found == {"ganeti-masterd": proc.pid}

    def test_stale_pid_file(self, live):
        """The number is another program's by now."""
        path = pathlib.Path(pathutils.DaemonPidFile("ganeti-masterd"))
        path.write_text(f"{os.getpid()}\n")
        assert cfgupgrade.FindRunningDaemons() == {}

    def test_other_directory_with_daemons(self, live, tmp_path):
        """A copy can be upgraded at any time."""
        copied = tmp_path / "copy"
        copied.mkdir()
        for item in live.iterdir():
            (copied / item.name).write_bytes(item.read_bytes())
        with process.PidFile(pathutils.DaemonPidFile("ganeti-masterd")):
            assert _Run(copied, "-f") == 0

    def test_not_the_master(self, live, monkeypatch, capsys):
        document = copy.deepcopy(_OLD)
        document["cluster"]["master_node"] = "node2.example.com"
        (live / "config.data").write_text(json.dumps(document))
        assert cfgupgrade.Main(["-f"]) == 1
        assert "node2.example.com" in capsys.readouterr().err
        assert json.loads((live / "config.data").read_text()) == document

    def test_watcher_at_work(self, live, capsys):
        (live / "watcher.data").write_text("{}")
        with open(live / "watcher.data") as fobj:
            fcntl.flock(fobj, fcntl.LOCK_EX)
            assert cfgupgrade.Main(["-f"]) == 1
        assert "watcher" in capsys.readouterr().err


class TestInterrupted:
    """What was begun is finished by the next run, wherever it ended."""

    def _Steps(self, path):
        return cfgupgrade.Planner(str(path), DEFAULT).Make().steps

    @pytest.mark.parametrize("done", range(5))
    def test_after_each_step(self, old, done):
        (old / "known_hosts").unlink()
        steps = self._Steps(old)
        assert len(steps) == 5
        for step in steps[:done]:
            step.run()
        (old / f"config.data.{2**22 + 1}-abcd.new").write_text("{")
        assert _Run(old, "-f") == 0
        assert self._Steps(old) == []
        assert len(list(old.glob("config.data.backup-*"))) == 1
        assert not list(old.glob("*.new"))

    def test_second_run(self, old, capsys):
        _Run(old, "-f")
        before = _Content(old)
        capsys.readouterr()
        assert _Run(old, "-f") == 0
        assert "nothing to upgrade" in capsys.readouterr().err
        assert _Content(old) == before

    def test_failing_step(self, old, monkeypatch, capsys):
        """Said, with the exit status; nothing is broken."""

        def _Fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(cfgupgrade.io, "WriteFile", _Fail)
            assert _Run(old, "-f") == 1
        assert "No space left" in capsys.readouterr().err
        assert json.loads((old / "config.data").read_text()) == _OLD
        assert _Run(old, "-f") == 0


class TestJobs:
    """Jobs that were not finished are told of."""

    def test_warning(self, old, capsys):
        queue = old / "queue"
        queue.mkdir()
        for number, status in ((3, "success"), (4, "queued"), (10, "running")):
            (queue / f"job-{number}").write_text(json.dumps({"ops": [{"status": status}]}))
        (queue / "job-11").write_text("{")
        (queue / "serial").write_text("11\n")
        assert _Run(old, "--dry-run") == 0
        assert "not finished (4, 10)" in capsys.readouterr().err
