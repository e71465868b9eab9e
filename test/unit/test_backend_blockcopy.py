"""Copies of disks on other nodes: with the programs that do it, but without a network."""

import os
import shutil

import pytest

from ganeti import constants, objects, pathutils, ssconf, ssh
from ganeti.backend import base, blockcopy, blockdev

BASE = "/srv/ganeti/file-storage"
TARGET = "node2.example.com"
MIB = 2**20


class _HereRunner(ssh.SshRunner):
    """Runs what is for another node on this one, below another directory.

    @ivar before: shell command that goes before it; likewise C{after}
    """

    def __init__(self, root, before=""):
        super().__init__("cluster")
        self.root = root
        self.before = before
        self.after = ""
        self.asked = []

    def PathOnNode(self, node, path):
        return path.replace(pathutils.ROOTDIR, self.root, 1)

    def BuildCmd(self, node, user, command, **options):
        self.asked.append((node, user, command))
        return ["sh", "-c", self.before + command + self.after]


@pytest.fixture
def other(tmp_path):
    """Root directory of the other node; this one has a directory for disks."""
    os.makedirs(pathutils.LocalPath(BASE) + "/inst1", exist_ok=True)
    os.makedirs(pathutils.DATA_DIR, exist_ok=True)
    os.makedirs(pathutils.LOCK_DIR, exist_ok=True)
    os.makedirs(pathutils.BDEV_CACHE_DIR, exist_ok=True)
    ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: BASE})
    root = tmp_path / "other"
    (root / BASE.lstrip("/") / "inst1").mkdir(parents=True)
    yield str(root)
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


def _NewDisk(content=b"", size=4):
    path = f"{BASE}/inst1/disk0"
    disk = objects.Disk(
        dev_type=constants.LD_FILE,
        logical_id=("loop", path),
        physical_id=("loop", path),
        size=size,
        iv_name="disk/0",
        mode="rw",
    )
    blockdev.BlockdevCreate(disk, "inst1", True, "")
    with open(pathutils.LocalPath(path), "r+b") as fobj:
        fobj.seek(MIB)
        fobj.write(content)
    return disk, pathutils.LocalPath(path)


def _MakeTarget(runner, path, size):
    target = runner.PathOnNode(TARGET, path)
    with open(target, "wb") as fobj:
        fobj.truncate(size)
    return target


def _Copy(disk, path, runner):
    blockcopy.BlockdevExport(disk, TARGET, path, "cluster", get_ssh=lambda name: runner)


class TestBlockdevExport:
    def test_same_bytes(self, other):
        disk, path = _NewDisk(os.urandom(3 * 4096 + 17))
        runner = _HereRunner(other)
        target = _MakeTarget(runner, path, 4 * MIB)
        _Copy(disk, path, runner)
        with open(path, "rb") as left, open(target, "rb") as right:
            assert left.read() == right.read()
        assert os.stat(target).st_blocks * 512 < 2 * MIB, "it is not sparse any more"
        ((node, user, _),) = runner.asked
        assert (node, user) == (TARGET, constants.GANETI_RUNAS)

    def test_what_is_too_small_stays_as_it_is(self, other):
        disk, path = _NewDisk(b"x")
        runner = _HereRunner(other)
        target = _MakeTarget(runner, path, 4 * MIB - 1)
        with pytest.raises(base.RPCFail, match=r"writing on node node2.*too small for 4194304"):
            _Copy(disk, path, runner)
        with open(target, "rb") as fobj:
            assert not fobj.read().strip(b"\0")

    def test_nothing_is_made(self, other):
        """What has vanished is not replaced by a file that only looks like it."""
        disk, path = _NewDisk(b"x")
        runner = _HereRunner(other)
        with pytest.raises(base.RPCFail, match="writing on node node2"):
            _Copy(disk, path, runner)
        assert not os.path.exists(runner.PathOnNode(TARGET, path))

    def test_the_source_is_missing(self, other):
        disk, path = _NewDisk()
        os.unlink(path)
        runner = _HereRunner(other)
        with pytest.raises(base.RPCFail, match="disk/0"):
            _Copy(disk, path, runner)
        assert not runner.asked

    def test_the_connection_breaks(self, other):
        disk, path = _NewDisk(os.urandom(2 * MIB))
        runner = _HereRunner(other, before="head -c 1000 >/dev/null; exit 255; ")
        _MakeTarget(runner, path, 4 * MIB)
        with pytest.raises(base.RPCFail, match="exit code 255"):
            _Copy(disk, path, runner)

    def test_not_all_arrived(self, other):
        """Though every program says that it did well."""
        disk, path = _NewDisk(b"x")
        runner = _HereRunner(other, before="(head -c 1048576; cat >/dev/null) | (")
        runner.after = ")"
        _MakeTarget(runner, path, 4 * MIB)
        with pytest.raises(base.RPCFail, match="not copied completely.*1048576 of 4194304"):
            _Copy(disk, path, runner)


class TestWriteCommand:
    def test_quoted(self):
        command = blockcopy.BuildWriteCommand("/dev/vg/a b'c", 512)
        assert "of='/dev/vg/a b'\"'\"'c'" in command

    @pytest.mark.parametrize(
        ("said", "copied"),
        [
            ("1+0 records in\n1+0 records out\n17 bytes copied, 0.1 s, 1 kB/s", 17),
            ("4194304 bytes (4.2 MB, 4.0 MiB) copied, 0.004 s, 1.0 GB/s", 4194304),
            ("1 byte copied, 0 s", 1),
            ("", None),
            ("dd: error writing: No space left on device\n0 bytes read", None),
        ],
    )
    def test_copied(self, said, copied):
        assert blockcopy.ParseCopied(said) == copied
