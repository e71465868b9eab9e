"""Calls about block devices: recursion, and disks in files end to end."""

import os
import shutil

import pytest

from ganeti import constants, errors, objects, pathutils, ssconf, storage
from ganeti.backend import blockdev, devcache, disklinks
from ganeti.storage.base import BlockDev

BASE = "/srv/ganeti/file-storage"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def node():
    directory = pathutils.LocalPath(BASE) + "/inst1"
    for path in (
        directory,
        pathutils.DATA_DIR,
        pathutils.LOCK_DIR,
        pathutils.BDEV_CACHE_DIR,
        pathutils.DISK_LINKS_DIR,
    ):
        os.makedirs(path, exist_ok=True)
    ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: BASE})
    yield directory
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


def _FileDisk(index=0, size=4):
    path = f"{BASE}/inst1/disk{index}"
    return objects.Disk(
        dev_type=constants.LD_FILE,
        logical_id=("loop", path),
        physical_id=("loop", path),
        size=size,
        iv_name=f"disk/{index}",
        mode="rw",
    )


class _World:
    """Devices that exist in memory only."""

    def __init__(self):
        self.existing = set()
        self.active = set()
        self.log = []
        self.broken = set()

    def Device(self, kind):
        world = self

        class _Device(BlockDev):
            def _Log(self, what, *args):
                name = self.unique_id[-1]
                world.log.append((what, name, *args))
                if (what, name) in world.broken:
                    raise errors.BlockDeviceError(f"{what} of {name} is broken")

            def Attach(self):
                self.attached = self.unique_id[-1] in world.active
                self.dev_path = f"/dev/fake/{self.unique_id[-1]}"
                return self.attached

            @classmethod
            def Create(cls, unique_id, children, size, rt=None, params=None):
                name = unique_id[-1]
                world.log.append(
                    ("Create", name, [child and child.unique_id[-1] for child in children])
                )
                if ("Create", name) in world.broken:
                    raise errors.BlockDeviceError(f"Create of {name} is broken")
                world.existing.add(name)
                world.active.add(name)
                return cls(unique_id, children, size)

            def Assemble(self):
                names = [child and child.unique_id[-1] for child in self.children]
                self._Log("Assemble", names)
                if self.unique_id[-1] not in world.existing:
                    raise errors.BlockDeviceError("no such device")
                world.active.add(self.unique_id[-1])

            def Shutdown(self):
                self._Log("Shutdown")
                world.active.discard(self.unique_id[-1])

            def Remove(self):
                self._Log("Remove")
                world.active.discard(self.unique_id[-1])
                world.existing.discard(self.unique_id[-1])

            def Open(self, force=False):
                self._Log("Open", force)

            def Close(self):
                self._Log("Close")

            def SetSyncSpeed(self, speed):
                self._Log("SetSyncSpeed", speed)
                return True

            def SetInfo(self, text):
                self._Log("SetInfo", text)

            def AddChildren(self, devices):
                self._Log("AddChildren", [device.unique_id[-1] for device in devices])

            def RemoveChildren(self, paths):
                self._Log("RemoveChildren", list(paths))

            def Snapshot(self, size):
                self._Log("Snapshot", size)
                return self.unique_id[-1] + ".snap"

        return _Device


@pytest.fixture
def world(monkeypatch):
    result = _World()
    monkeypatch.setattr(storage, "GetDeviceClass", result.Device)
    return result


def _Volume(name):
    return objects.Disk(
        dev_type=constants.LD_LV, logical_id=("vg", name), physical_id=("vg", name), size=10
    )


def _Mirror():
    return objects.Disk(
        dev_type=constants.LD_DRBD8,
        logical_id=("node1", "node2", 11000, 0, 0, "mirror"),
        physical_id=("192.0.2.1", 11000, "192.0.2.2", 11000, 0, "mirror"),
        children=[_Volume("data"), _Volume("meta")],
        size=10,
        iv_name="disk/0",
        mode="rw",
    )


class TestRecursion:
    """Children first; a mirror does without them, nothing else does."""

    def _Names(self, world, what):
        return [entry[1] for entry in world.log if entry[0] == what]

    def test_assemble_order(self, world):
        world.existing = {"data", "meta", "mirror"}
        assert blockdev.BlockdevAssemble(_Mirror(), "inst1", True) == "/dev/fake/mirror"
        assert self._Names(world, "Assemble") == ["data", "meta", "mirror"]
        assert ("Assemble", "mirror", ["data", "meta"]) in world.log

    @pytest.mark.parametrize("missing", [{"data"}, {"meta"}, {"data", "meta"}])
    def test_mirror_comes_up_without_children(self, world, missing):
        world.existing = {"data", "meta", "mirror"} - missing
        blockdev.BlockdevAssemble(_Mirror(), "inst1", True)
        expected = [None if name in missing else name for name in ("data", "meta")]
        assert ("Assemble", "mirror", expected) in world.log

    def test_volume_must_come_up(self, world):
        with pytest.raises(errors.RPCFail, match="no such device"):
            blockdev.BlockdevAssemble(_Volume("data"), "inst1", True)

    def test_secondary_does_not_open_a_mirror(self, world):
        world.existing = {"data", "meta", "mirror"}
        blockdev.BlockdevAssemble(_Mirror(), "inst1", False)
        assert self._Names(world, "Open") == ["data", "meta"]
        assert self._Names(world, "Assemble") == ["data", "meta", "mirror"]

    def test_secondary_has_nothing_to_do_for_a_file(self, world):
        assert blockdev.BlockdevAssemble(_FileDisk(), "inst1", False) is True
        assert world.log == []

    def test_create(self, world):
        world.existing = {"data", "meta"}
        result = blockdev.BlockdevCreate(_Mirror(), "inst1", True, "originstname+inst1")
        assert result[-1] == "mirror"
        assert ("Create", "mirror", ["data", "meta"]) in world.log
        assert ("SetInfo", "mirror", "originstname+inst1") in world.log
        # Forced: the peer of a new mirror is not known yet
        assert ("Open", "mirror", True) in world.log

    def test_create_on_secondary_does_not_open(self, world):
        world.existing = {"data", "meta"}
        blockdev.BlockdevCreate(_Mirror(), "inst1", False, "")
        assert ("Open", "mirror", True) not in world.log
        assert "mirror" in self._Names(world, "Assemble")

    def test_create_fails(self, world):
        world.broken = {("Create", "data")}
        with pytest.raises(errors.RPCFail, match="Create of data is broken"):
            blockdev.BlockdevCreate(_Volume("data"), "inst1", True, "")

    def test_shutdown_tries_everything(self, world):
        world.existing = world.active = {"data", "meta", "mirror"}
        world.broken = {("Shutdown", "mirror"), ("Shutdown", "data")}
        with pytest.raises(errors.RPCFail) as excinfo:
            blockdev.BlockdevShutdown(_Mirror())
        assert self._Names(world, "Shutdown") == ["mirror", "data", "meta"]
        text = str(excinfo.value)
        assert "Shutdown of mirror" in text
        assert "Shutdown of data" in text
        assert "Shutdown of meta" not in text

    def test_shutdown_of_what_is_down(self, world):
        blockdev.BlockdevShutdown(_Mirror())
        assert self._Names(world, "Shutdown") == []

    def test_remove_goes_on(self, world):
        world.existing = world.active = {"data", "meta", "mirror"}
        world.broken = {("Remove", "mirror")}
        with pytest.raises(errors.RPCFail, match="Remove of mirror is broken"):
            blockdev.BlockdevRemove(_Mirror())
        assert self._Names(world, "Remove") == ["mirror", "data", "meta"]

    def test_children_of_mirrors(self, world):
        world.active = {"mirror", "new"}
        blockdev.BlockdevAddchildren(_Mirror(), [_Volume("new")])
        assert ("AddChildren", "mirror", ["new"]) in world.log
        # Volumes have fixed paths, so they may be gone
        blockdev.BlockdevRemovechildren(_Mirror(), [_Volume("gone")])
        assert ("RemoveChildren", "mirror", ["/dev/vg/gone"]) in world.log
        with pytest.raises(errors.RPCFail, match="gone"):
            blockdev.BlockdevAddchildren(_Mirror(), [_Volume("gone")])

    def test_snapshot_of_a_mirror_is_that_of_its_data(self, world):
        world.active = {"data", "meta", "mirror"}
        assert blockdev.BlockdevSnapshot(_Mirror()) == "data.snap"
        disk = _Mirror()
        disk.children = None
        with pytest.raises(errors.RPCFail, match="no local data"):
            blockdev.BlockdevSnapshot(disk)

    def test_close(self, world):
        world.active = {"data", "meta"}
        disks = [_Volume("data"), _Volume("meta")]
        for index, disk in enumerate(disks):
            disklinks.CreateLink("inst1", index, f"/dev/vg/{disk.logical_id[1]}")
        blockdev.BlockdevClose("", disks)
        assert len(os.listdir(pathutils.DISK_LINKS_DIR)) == 2
        blockdev.BlockdevClose("inst1", disks)
        assert os.listdir(pathutils.DISK_LINKS_DIR) == []
        with pytest.raises(errors.RPCFail, match="gone"):
            blockdev.BlockdevClose("", [_Volume("gone")])

    def test_mirror_status_needs_all(self, world):
        world.active = {"data"}
        (status,) = blockdev.BlockdevGetmirrorstatus([_Volume("data")])
        assert status.dev_path == "/dev/fake/data"
        with pytest.raises(errors.RPCFail, match="Can't find block device"):
            blockdev.BlockdevGetmirrorstatus([_Volume("data"), _Volume("gone")])


class TestFileDisks:
    """BASE2: disk template file."""

    def test_life(self, node):
        disk = _FileDisk()
        path = os.path.join(node, "disk0")
        assert blockdev.BlockdevFind(disk) is None
        assert blockdev.BlockdevGetsize([disk]) == [None]
        assert blockdev.BlockdevCreate(disk, "inst1", True, "") == disk.physical_id
        assert blockdev.BlockdevAssemble(disk, "inst1", True) == path
        assert blockdev.BlockdevFind(disk).dev_path == path
        blockdev.BlockdevGrow(disk, 2)
        assert blockdev.BlockdevGetsize([disk, _FileDisk(1)]) == [6 * MIB, None]
        blockdev.BlockdevRename([(disk, ("loop", f"{BASE}/inst1/disk7"))])
        assert os.listdir(node) == ["disk7"]
        renamed = _FileDisk(7)
        blockdev.BlockdevShutdown(renamed)
        blockdev.BlockdevRemove(renamed)
        assert os.listdir(node) == []
        blockdev.BlockdevRemove(renamed)

    def test_notes_about_devices(self, node):
        disk = _FileDisk()
        blockdev.BlockdevCreate(disk, "inst1", True, "")
        (name,) = os.listdir(pathutils.BDEV_CACHE_DIR)
        with open(os.path.join(pathutils.BDEV_CACHE_DIR, name), encoding="ascii") as fobj:
            assert fobj.read() == "inst1 primary disk/0\n"
        blockdev.BlockdevRemove(disk)
        assert os.listdir(pathutils.BDEV_CACHE_DIR) == []

    def test_rename_reports_all(self, node):
        blockdev.BlockdevCreate(_FileDisk(), "inst1", True, "")
        pairs = [
            (_FileDisk(5), ("loop", f"{BASE}/inst1/disk6")),
            (_FileDisk(0), ("loop", "/etc/passwd")),
        ]
        with pytest.raises(errors.RPCFail) as excinfo:
            blockdev.BlockdevRename(pairs)
        assert "disk5" in str(excinfo.value)
        assert "/etc/passwd" in str(excinfo.value)
        assert os.listdir(node) == ["disk0"]

    def test_missing_disks_fail(self):
        for call in (
            lambda: blockdev.BlockdevGrow(_FileDisk(), 1),
            lambda: blockdev.BlockdevAssemble(_FileDisk(), "inst1", True),
        ):
            with pytest.raises(errors.RPCFail, match="disk0"):
                call()

    def test_without_physical_id(self, node):
        """Kinds that are named alike on all nodes need no form of their own for one."""
        disk = _FileDisk()
        disk.physical_id = None
        blockdev.BlockdevCreate(disk, "inst1", True, "")
        assert os.listdir(node) == ["disk0"]


class TestDiskLinks:
    """Links of instances' disks."""

    def _Target(self):
        return os.readlink(os.path.join(pathutils.DISK_LINKS_DIR, "inst1:0"))

    def test_create(self):
        path = disklinks.CreateLink("inst1", 0, "/dev/a")
        assert path == os.path.join(pathutils.DISK_LINKS_DIR, "inst1:0")
        assert self._Target() == "/dev/a"
        disklinks.CreateLink("inst1", 0, "/dev/a")
        assert self._Target() == "/dev/a"

    def test_replaces_what_was_there(self):
        disklinks.CreateLink("inst1", 0, "/dev/a")
        disklinks.CreateLink("inst1", 0, "/dev/b")
        assert self._Target() == "/dev/b"
        path = os.path.join(pathutils.DISK_LINKS_DIR, "inst1:0")
        os.unlink(path)
        with open(path, "w", encoding="ascii"):
            pass
        disklinks.CreateLink("inst1", 0, "/dev/c")
        assert self._Target() == "/dev/c"
        assert os.listdir(pathutils.DISK_LINKS_DIR) == ["inst1:0"]

    def test_names_do_not_lead_out(self):
        with pytest.raises(errors.BlockDeviceError):
            disklinks.CreateLink("../../inst1", 0, "/dev/a")

    def test_remove_leaves_files_alone(self):
        disklinks.CreateLink("inst1", 0, "/dev/a")
        other = os.path.join(pathutils.DISK_LINKS_DIR, "inst1:1")
        with open(other, "w", encoding="ascii"):
            pass
        disklinks.RemoveLinks("inst1", [_FileDisk(), _FileDisk(1), _FileDisk(2)])
        assert os.listdir(pathutils.DISK_LINKS_DIR) == ["inst1:1"]


class TestDevCache:
    """Names and errors of the notes."""

    def test_name(self):
        cache = devcache.DevCacheManager("/cache")
        assert cache.PathFor("/dev/xenvg/a.disk0") == "/cache/bdev_xenvg_a.disk0"

    def test_errors_are_not_raised(self, tmp_path):
        cache = devcache.DevCacheManager(str(tmp_path / "missing"))
        cache.UpdateCache("/dev/a", "inst1", False, None)
        cache.UpdateCache(None, "inst1", False, None)
        cache.RemoveCache("/dev/a")
        cache.RemoveCache(None)

    def test_secondary_without_name(self, tmp_path):
        cache = devcache.DevCacheManager(str(tmp_path))
        cache.UpdateCache("/dev/a", "inst1", False, None)
        assert (tmp_path / "bdev_a").read_text() == "inst1 secondary not_visible\n"
