"""Disks in files, where they may lie, and storage units of type file."""

import os
import shutil

import pytest

from ganeti import constants, errors, objects, pathutils, ssconf, storage
from ganeti.storage import base, filepaths, filestorage, units

MIB = 1024 * 1024
#: As the configuration has it: without the root of this (virtual) node.
BASE = "/srv/ganeti/file-storage"


@pytest.fixture
def cluster():
    """A node that knows its cluster's file storage directory; its path on this node."""
    local = pathutils.LocalPath(BASE)
    for path in (local, pathutils.DATA_DIR, pathutils.LOCK_DIR, pathutils.CONF_DIR):
        os.makedirs(path, exist_ok=True)
    ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: BASE})
    yield local
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


@pytest.fixture
def disk_dir(cluster):
    path = os.path.join(cluster, "inst1")
    os.mkdir(path)
    return path


def _Id(name="disk0", driver="loop"):
    return (driver, f"{BASE}/inst1/{name}")


class TestPaths:
    """Only what is really below an allowed directory."""

    @pytest.mark.parametrize(
        ("path", "directory", "expected"),
        [
            ("/a/b", "/a", True),
            ("/a/b/c", "/a", True),
            ("/a", "/a", False),
            ("/ab", "/a", False),
            ("/", "/a", False),
            ("/a", "/", True),
        ],
    )
    def test_is_below(self, path, directory, expected):
        assert filepaths.IsBelow(path, directory) is expected

    @pytest.mark.parametrize(
        ("path", "good"),
        [
            (f"{BASE}/inst1", True),
            (f"{BASE}/inst1/disk0", True),
            (BASE, False),
            (f"{BASE}-evil/inst1", False),
            (f"{BASE}/../x", False),
            (f"{BASE}/a/../../x", False),
            ("inst1/disk0", False),
            ("/etc/passwd", False),
            (f"{BASE}/a\0b", False),
        ],
    )
    def test_text(self, path, good):
        assert (filepaths.PathProblem(path, [BASE]) is None) is good

    def test_links_do_not_lead_out(self, cluster, tmp_path):
        os.symlink(tmp_path, os.path.join(cluster, "way-out"))
        with pytest.raises(errors.BlockDeviceError, match="not below an allowed"):
            filepaths.CheckPath(f"{BASE}/way-out/disk0", filepaths.GetAllowedDirs())

    def test_linked_base_is_fine(self, tmp_path):
        os.mkdir(tmp_path / "real")
        os.symlink(tmp_path / "real", tmp_path / "link")
        directory = str(tmp_path / "link")
        assert filepaths.PathProblem(f"{directory}/x", [directory]) is None

    def test_no_directory_no_path(self):
        assert "no file storage directory" in filepaths.PathProblem("/a/b", [])

    @pytest.mark.parametrize(
        ("path", "rootdir", "expected"),
        [
            ("/etc", "", True),
            ("/etc/ganeti", "", True),
            ("/usr/share/x", "", True),
            ("/", "", True),
            ("/srv/x", "", False),
            ("/etcetera", "", False),
            ("/vc/node1", "/vc/node1", True),
            ("/vc/node1/etc/x", "/vc/node1", True),
            ("/home/me/vc/node1/srv/x", "/home/me/vc/node1", False),
        ],
    )
    def test_forbidden(self, path, rootdir, expected):
        assert filepaths.IsForbidden(path, rootdir) is expected

    def test_more_directories_by_the_administrator(self, cluster):
        with open(filepaths.FILE_STORAGE_PATHS_FILE, "w", encoding="ascii") as fobj:
            fobj.write("# more\n/srv/more  # yes\nrelative\n\n/etc/no\n/srv/x/../y\n")
        allowed = filepaths.GetAllowedDirs()
        local = [pathutils.LocalPath(path) for path in (BASE, "/srv/more", "/srv/y")]
        assert allowed == local

    def test_cluster_without_file_storage(self, cluster):
        ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: ""})
        assert filepaths.GetAllowedDirs() == []


class TestFileStorage:
    """Life of a disk file."""

    def test_create_is_sparse_and_private(self, disk_dir):
        device = storage.Create(constants.LD_FILE, _Id(), [], 100)
        path = os.path.join(disk_dir, "disk0")
        st = os.stat(path)
        assert device.attached
        assert device.dev_path == path
        assert device.unique_id == _Id()
        assert st.st_size == 100 * MIB
        assert st.st_blocks * 512 < MIB
        assert st.st_mode & 0o777 == 0o600

    def test_create_never_takes_an_existing_file(self, disk_dir):
        path = os.path.join(disk_dir, "disk0")
        with open(path, "wb") as fobj:
            fobj.write(b"precious")
        with pytest.raises(errors.BlockDeviceError, match="exists"):
            storage.Create(constants.LD_FILE, _Id(), [], 1)
        with open(path, "rb") as fobj:
            assert fobj.read() == b"precious"

    def test_create_through_a_dangling_link(self, disk_dir, tmp_path):
        os.symlink(tmp_path / "target", os.path.join(disk_dir, "disk0"))
        with pytest.raises(errors.BlockDeviceError):
            storage.Create(constants.LD_FILE, _Id(), [], 1)
        assert not os.path.exists(tmp_path / "target")

    @pytest.mark.parametrize("size", [2**42, 2**60])
    def test_impossible_size_leaves_nothing(self, disk_dir, size):
        with pytest.raises(errors.BlockDeviceError, match="Can't create"):
            storage.Create(constants.LD_FILE, _Id(), [], size)
        assert os.listdir(disk_dir) == []

    @pytest.mark.parametrize("operation", ["Remove", "Assemble", "Grow", "Rename", "Create"])
    def test_every_operation_checks_the_path(self, disk_dir, tmp_path, operation, monkeypatch):
        victim = tmp_path / "victim"
        victim.write_bytes(b"x")
        monkeypatch.setattr(pathutils, "LocalPath", lambda path: path)
        unique_id = ("loop", str(victim))
        device = filestorage.FileStorage(unique_id, [], 1)
        calls = {
            "Remove": device.Remove,
            "Assemble": device.Assemble,
            "Grow": lambda: device.Grow(1),
            "Rename": lambda: device.Rename(("loop", str(tmp_path / "other"))),
            "Create": lambda: filestorage.FileStorage.Create(
                ("loop", str(tmp_path / "new")), [], 1
            ),
        }
        with pytest.raises(errors.BlockDeviceError, match="not below an allowed"):
            calls[operation]()
        assert [path.name for path in tmp_path.iterdir()] == ["victim"]
        assert victim.read_bytes() == b"x"

    def test_find(self, disk_dir):
        assert storage.FindDevice(constants.LD_FILE, _Id(), [], 1) is None
        storage.Create(constants.LD_FILE, _Id(), [], 1)
        device = storage.FindDevice(constants.LD_FILE, _Id(), [], 1)
        assert device.GetActualSize() == MIB

    def test_assemble(self, disk_dir):
        with pytest.raises(errors.BlockDeviceError, match="No such file"):
            storage.Assemble(constants.LD_FILE, _Id(), [], 1)
        storage.Create(constants.LD_FILE, _Id(), [], 1)
        device = storage.Assemble(constants.LD_FILE, _Id(), [], 1)
        device.Open()
        device.Close()
        device.Shutdown()
        assert os.path.exists(device.dev_path)

    def test_a_directory_is_no_disk(self, disk_dir):
        os.mkdir(os.path.join(disk_dir, "disk0"))
        with pytest.raises(errors.BlockDeviceError, match="not a regular file"):
            storage.Assemble(constants.LD_FILE, _Id(), [], 1)

    def test_remove(self, disk_dir):
        device = storage.Create(constants.LD_FILE, _Id(), [], 1)
        device.Remove()
        assert os.listdir(disk_dir) == []
        assert not device.attached
        device.Remove()

    def test_grow(self, disk_dir):
        device = storage.Create(constants.LD_FILE, _Id(), [], 1)
        device.Grow(3)
        assert device.GetActualSize() == 4 * MIB
        for amount in (0, -1):
            with pytest.raises(errors.BlockDeviceError, match="must be positive"):
                device.Grow(amount)
        assert device.GetActualSize() == 4 * MIB

    def test_rename(self, disk_dir):
        device = storage.Create(constants.LD_FILE, _Id(), [], 1)
        device.Rename(_Id("disk9"))
        assert os.listdir(disk_dir) == ["disk9"]
        assert device.unique_id == _Id("disk9")
        storage.Create(constants.LD_FILE, _Id(), [], 1)
        with pytest.raises(errors.BlockDeviceError, match="exists already"):
            device.Rename(_Id())
        with pytest.raises(errors.BlockDeviceError, match="driver"):
            device.Rename(_Id("disk5", driver="blktap"))

    @pytest.mark.parametrize(
        "unique_id", [(), ("loop",), ("nbd", "/x"), ("loop", 5), ("loop", "/x", 1)]
    )
    def test_identity(self, unique_id):
        with pytest.raises(ValueError, match="Invalid"):
            filestorage.FileStorage(unique_id, [], 1)

    def test_no_children(self, disk_dir):
        child = storage.Create(constants.LD_FILE, _Id(), [], 1)
        with pytest.raises(errors.BlockDeviceError):
            filestorage.FileStorage(_Id(), [child], 1)

    def test_status(self, disk_dir):
        status = storage.Create(constants.LD_FILE, _Id(), [], 1).CombinedSyncStatus()
        assert status.sync_percent is None
        assert status.is_degraded is False
        assert status.ldisk_status == constants.LDS_OKAY

    def test_kinds(self):
        with pytest.raises(errors.ProgrammerError, match="nbd"):
            storage.GetDeviceClass("nbd")


class TestMergeSyncStatus:
    """The worst of several conditions, nulls left out."""

    @staticmethod
    def _Status(percent=None, time=None, degraded=False, ldisk=constants.LDS_OKAY, path="/c"):
        return objects.BlockDevStatus(
            dev_path=path,
            major=1,
            minor=2,
            sync_percent=percent,
            estimated_time=time,
            is_degraded=degraded,
            ldisk_status=ldisk,
        )

    def test_merge(self):
        merged = base.MergeSyncStatus(
            self._Status(percent=50.0, path="/p"),
            [
                self._Status(time=7),
                self._Status(percent=20.5, time=3, degraded=True),
                self._Status(ldisk=constants.LDS_FAULTY),
            ],
        )
        assert merged.dev_path == "/p"
        assert merged.sync_percent == 20.5
        assert merged.estimated_time == 7
        assert merged.is_degraded is True
        assert merged.ldisk_status == constants.LDS_FAULTY

    def test_nothing_known(self):
        merged = base.MergeSyncStatus(self._Status(), [])
        assert (merged.sync_percent, merged.estimated_time) == (None, None)


class TestUnits:
    """SU1: units of type file in the one framework."""

    ALL = ("allocatable", "free", "name", "size", "used")

    def test_list(self, disk_dir):
        with open(os.path.join(disk_dir, "data"), "wb") as fobj:
            fobj.truncate(3 * MIB)
        (row,) = units.GetStorage("file", [[BASE]]).List(None, self.ALL)
        values = dict(zip(self.ALL, row, strict=True))
        assert values["name"] == BASE
        assert values["allocatable"] is True
        assert values["used"] == 3
        assert 0 < values["free"] <= values["size"]

    def test_order_of_fields(self, cluster):
        (row,) = units.GetStorage("file", [[BASE]]).List(BASE, ["used", "name", "used"])
        assert row == [0, BASE, 0]

    def test_unknown_field(self, cluster):
        with pytest.raises(errors.StorageError, match="no field 'colour'"):
            units.GetStorage("file", [[BASE]]).List(None, ["name", "colour"])

    def test_name_must_be_one_of_the_units(self, cluster):
        with pytest.raises(errors.StorageError, match="/etc"):
            units.GetStorage("file", [[BASE]]).List("/etc", ["name"])

    def test_directories_must_be_the_clusters(self, cluster):
        with pytest.raises(errors.StorageError, match="not a file storage directory"):
            units.GetStorage("file", [["/etc"]])

    def test_modify(self, cluster):
        unit = units.GetStorage("file", [[BASE]])
        unit.Modify(BASE, {})
        with pytest.raises(errors.StorageError, match="allocatable"):
            unit.Modify(BASE, {"allocatable": False})

    def test_execute(self, cluster):
        with pytest.raises(errors.StorageError, match="fix-consistency"):
            units.GetStorage("file", [[BASE]]).Execute(BASE, constants.SO_FIX_CONSISTENCY)

    def test_types(self, cluster):
        with pytest.raises(errors.StorageError, match="Unknown storage type 'tape'"):
            units.GetStorage("tape", [])
        with pytest.raises(errors.StorageError, match="Wrong arguments"):
            units.GetStorage("file", [])
