"""The way of a Xen guest between nodes (MG), with the real socat and a stand-in for xl.

The stand-in keeps its domains as files, and speaks like xl where the hypervisor listens: its exit
codes, names of domains while they migrate, and that the sender goes on when its connection breaks.
That xl itself does so is what its manual page and its strings say; there is no Xen here.
"""

import os
import shutil
import socket
import sys

import pytest

from ganeti import constants, errors, objects, pathutils
from ganeti.hypervisor import hv_xen
from ganeti.utils import x509
from vc import WaitFor

NAME = "inst1.example.com"
pytestmark = pytest.mark.skipif(
    not os.path.exists(pathutils.SOCAT_PATH), reason=f"no {pathutils.SOCAT_PATH}"
)

XL = """#!{python} -I
import os, subprocess, sys, time
state = os.environ["XL_STATE"]
path = lambda name: os.path.join(state, name)
command, args = sys.argv[1], sys.argv[2:]
if command == "list":
    print("Name ID Mem VCPUs State Time(s)")
    for number, name in enumerate(["Domain-0", *sorted(os.listdir(state))]):
        print(name, number, 128, 1, "-b----", 1.0)
elif command == "destroy":
    for number, name in enumerate(["Domain-0", *sorted(os.listdir(state))]):
        if args[0] in (name, str(number)):
            os.unlink(path(name))
elif command == "migrate":
    assert args[:3] == ["-s", "", "-C"], args
    config, name, rune = args[3:]
    pipe = subprocess.Popen(["sh", "-c", rune], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print("migration target: Ready to receive domain.", flush=True)
    try:
        pipe.stdin.write(f"{{name}}\\n{{open(config).read()!r}}\\n".encode())
        for step in range(int(os.environ.get("XL_STEPS", "3"))):
            pipe.stdin.write(b"x" * 4096 + b"\\n")
            pipe.stdin.flush()
            time.sleep(0.05)
        pipe.stdin.write(b"end\\n")
        pipe.stdin.flush()
        assert pipe.stdout.readline() == b"done\\n", "no answer"
    except (OSError, AssertionError) as err:
        print(f"Migration failed, resuming at sender. ({{err}})", flush=True)
        sys.exit(1)
    os.unlink(path(name))
elif command == "migrate-receive":
    name = sys.stdin.readline().strip()
    open(path(name + "--incoming"), "w").write(sys.stdin.readline())
    while True:
        line = sys.stdin.readline()
        if not line:
            os.unlink(path(name + "--incoming"))
            sys.exit(1)
        if line == "end\\n":
            break
    os.rename(path(name + "--incoming"), path(name))
    print("done", flush=True)
"""


class Side:
    """A node."""

    def __init__(self, directory, cert, monkeypatch):
        self._patch = monkeypatch
        self.state, self.config = directory / "state", directory / "xen"
        for path in (self.state, self.config):
            path.mkdir(parents=True)
        self.run = directory / "run"
        self.hv = hv_xen.XenPvmHypervisor(
            config_dir=str(self.config), run_dir=str(self.run), cert_file=str(cert)
        )
        self.instance = objects.Instance(
            name=NAME,
            hypervisor="xen-pvm",
            hvparams={**constants.HVC_DEFAULTS["xen-pvm"], "migration_port": FreePort()},
        )

    def Do(self, method, *args):
        self._patch.setenv("XL_STATE", str(self.state))
        return getattr(self.hv, method)(self.instance, *args)

    def Status(self):
        return self.Do("GetMigrationStatus").status

    def Domains(self):
        return sorted(os.listdir(self.state))


def FreePort():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def sides(tmp_path, monkeypatch):
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "xl").write_text(XL.format(python=sys.executable))
    (bin_dir / "xl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:{os.environ['PATH']}")
    cert = tmp_path / "server.pem"
    x509.GenerateSelfSignedSslCert(str(cert))
    source, target = (Side(tmp_path / name, cert, monkeypatch) for name in ("source", "target"))
    (source.state / NAME).touch()
    (source.config / NAME).write_text("the configuration")
    yield source, target
    source.Do("FinalizeMigrationSource", True, True)
    shutil.rmtree(target.state)
    target.state.mkdir()
    target.Do("FinalizeMigration", "", False)


def Begin(source, target):
    info = source.Do("MigrationInfo")
    endpoint = target.Do("AcceptInstance", info, "127.0.0.1")
    source.Do("MigrateInstance", endpoint, True)
    return info


def Over(source):
    return WaitFor(
        lambda: (status := source.Status()) != "active" and status, what="the end of the migration"
    )


class TestMigration:
    def test_it_arrives(self, sides):
        source, target = sides
        info = Begin(source, target)
        assert Over(source) == "completed"
        target.Do("FinalizeMigration", info, True)
        source.Do("FinalizeMigrationSource", True, True)
        assert (source.Domains(), target.Domains()) == ([], [NAME])
        assert (target.config / NAME).read_text() == "the configuration"
        assert not (source.config / NAME).exists()
        assert os.listdir(source.run) == os.listdir(target.run) == []

    def test_cancelled(self, sides, monkeypatch):
        source, target = sides
        monkeypatch.setenv("XL_STEPS", "2000")
        Begin(source, target)
        WaitFor(lambda: target.Domains() == [NAME + "--incoming"], what="the first bytes")
        assert source.Status() == "active"
        with pytest.raises(errors.HypervisorError, match="migrating already"):
            source.Do("MigrateInstance", "127.0.0.1:1", True)
        source.Do("AbortMigration")
        status = source.Do("GetMigrationStatus")
        assert (status.status, "resuming at sender" in status.message) == ("cancelled", True)
        target.Do("FinalizeMigration", "", False)
        source.Do("FinalizeMigrationSource", False, True)
        assert (source.Domains(), target.Domains()) == ([NAME], [])
        assert (source.config / NAME).exists()
        # Once more, and now to the end.
        monkeypatch.setenv("XL_STEPS", "1")
        Begin(source, target)
        assert Over(source) == "completed"

    def test_target_gives_up(self, sides, monkeypatch):
        source, target = sides
        monkeypatch.setenv("XL_STEPS", "2000")
        Begin(source, target)
        WaitFor(lambda: target.Domains() == [NAME + "--incoming"], what="the first bytes")
        target.Do("FinalizeMigration", "", False)
        assert Over(source) == "failed"
        assert (source.Domains(), target.Domains()) == ([NAME], [])

    def test_nobody_waits(self, sides):
        source, _ = sides
        source.Do("MigrateInstance", f"127.0.0.1:{FreePort()}", True)
        assert Over(source) == "failed"
        assert "refused" in source.Do("GetMigrationStatus").message
        assert source.Domains() == [NAME]


class TestWay:
    def test_only_who_has_the_certificate(self, sides, tmp_path):
        """A stranger gets nothing, and does not use the listener up."""
        source, target = sides
        endpoint = target.Do("AcceptInstance", "", "127.0.0.1")
        address, _, port = endpoint.partition(":")
        socket.create_connection((address, int(port))).close()
        good = source.hv._cert_file
        other = tmp_path / "other.pem"
        x509.GenerateSelfSignedSslCert(str(other))
        source.hv._cert_file = str(other)
        source.Do("MigrateInstance", endpoint, True)
        assert Over(source) == "failed"
        assert target.Domains() == []
        source.Do("FinalizeMigrationSource", False, True)
        source.hv._cert_file = good
        source.Do("MigrateInstance", endpoint, True)
        assert Over(source) == "completed", (
            source.Do("GetMigrationStatus").message,
            (target.run / f"{NAME}.listen-log").read_text(),
        )

    def test_busy_port(self, sides):
        _, target = sides
        port = target.instance.hvparams["migration_port"]
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            sock.listen()
            endpoint = target.Do("AcceptInstance", "", "127.0.0.1")
        assert int(endpoint.partition(":")[2]) > port

    def test_no_address(self, sides):
        _, target = sides
        with pytest.raises(errors.HypervisorError, match=r"at 192\.0\.2\.1.*assign"):
            target.Do("AcceptInstance", "", "192.0.2.1")
        assert os.listdir(target.run) == []
