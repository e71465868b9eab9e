"""Files from the master, the job queue's copies, and directories of file disks."""

import errno
import json
import os
import shutil
import zlib
from concurrent import futures

import pytest

from ganeti import constants, errors, jstore, pathutils, rpc, runtime, ssconf
from ganeti.backend import cleaning, files, filestorage, jobqueue
from ganeti.utils import filelock, io

BASE = "/srv/ganeti/file-storage"


def _Name(value):
    """Names of tests must not depend on where this run has its root directory."""
    return repr(value).replace(pathutils.ROOTDIR, "") if isinstance(value, str) else None


@pytest.fixture(autouse=True)
def node():
    for path in (
        pathutils.DATA_DIR,
        pathutils.LOCK_DIR,
        pathutils.CONF_DIR,
        os.path.dirname(pathutils.ETC_HOSTS),
        pathutils.LocalPath(BASE),
    ):
        os.makedirs(path, exist_ok=True)
    ssconf.SimpleStore().WriteFiles({constants.SS_FILE_STORAGE_DIR: BASE})
    yield
    jobqueue.FinishQueue()
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


def _Upload(path, content=b"content", mode=0o600):
    files.UploadFile(path, rpc.EncodeData(content), mode, os.getuid(), os.getgid(), 1000, 2000)


def _Write(path, content):
    with open(path, "w", encoding="ascii") as fobj:
        fobj.write(content)


class TestUploadWhitelist:
    """Only known files, by their exact names."""

    @pytest.mark.parametrize(
        "path",
        [
            pathutils.CLUSTER_CONF_FILE,
            pathutils.ETC_HOSTS,
            pathutils.SSH_KNOWN_HOSTS_FILE,
            pathutils.VNC_PASSWORD_FILE,
            pathutils.RAPI_CERT_FILE,
            pathutils.RAPI_USERS_FILE,
            pathutils.CONFD_HMAC_KEY,
            pathutils.ANCILLARY_LIST_FILE,
            pathutils.KVM_NETWORK_SCRIPT,
            "/etc/xen/xend-config.sxp",
            "/etc/xen/scripts/vif-bridge",
            pathutils.CONF_DIR + "/vnc-inst1-password",
        ],
        ids=_Name,
    )
    def test_allowed(self, path):
        assert files.IsUploadAllowed(path)

    @pytest.mark.parametrize(
        "path",
        [
            pathutils.NODED_CERT_FILE,
            "/etc/passwd",
            "config.data",
            pathutils.CLUSTER_CONF_FILE + ".bak",
            pathutils.DATA_DIR + "/../ganeti/config.data",
            pathutils.DATA_DIR + "//config.data",
            pathutils.CONF_DIR + "/hooks/x",
            pathutils.CONF_DIR + "/sub/vnc-password",
            pathutils.CONF_DIR + "/vnc-../../passwd",
            "",
        ],
        ids=_Name,
    )
    def test_refused(self, path):
        assert not files.IsUploadAllowed(path)
        with pytest.raises(errors.RPCFail, match="may not be sent"):
            _Upload(path)

    def test_own_key_even_if_listed(self):
        assert not files.IsUploadAllowed(pathutils.NODED_CERT_FILE, [pathutils.NODED_CERT_FILE])

    def test_files_of_the_administrator(self):
        """RC1: what the admin's list names, as this node has the list."""
        path = pathutils.AddRoot("/etc/motd")
        with pytest.raises(errors.RPCFail):
            _Upload(path)
        _Write(pathutils.ANCILLARY_LIST_FILE, f"# list\n/etc/motd\nrelative\n{path}\n")
        _Upload(path)
        assert io.ReadFile(path) == "content"

    def test_parse_admin_list(self):
        assert files.ParseAdminList("#/a\n /b \n\nc\n/d/../e\n/f\n") == ["/b", "/f"]


class TestUploadFile:
    """Content, permissions and times are those of the master's file."""

    def test_upload(self):
        _Upload(pathutils.RAPI_USERS_FILE, b"x" * 1000, 0o100640)
        st = os.stat(pathutils.RAPI_USERS_FILE)
        assert io.ReadFile(pathutils.RAPI_USERS_FILE) == "x" * 1000
        assert st.st_mode & 0o7777 == 0o640
        assert (st.st_atime, st.st_mtime) == (1000, 2000)

    def test_owner_by_name(self):
        import grp
        import pwd

        user = pwd.getpwuid(os.getuid()).pw_name
        group = grp.getgrgid(os.getgid()).gr_name
        files.UploadFile(pathutils.RAPI_USERS_FILE, [0, "x"], 0o600, user, group, 1, 2)
        assert os.stat(pathutils.RAPI_USERS_FILE).st_uid == os.getuid()

    @pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
    def test_unknown_owner(self):
        with pytest.raises(errors.RPCFail, match="no user 'nobody-here'"):
            files.UploadFile(pathutils.RAPI_USERS_FILE, [0, "x"], 0o600, "nobody-here", 0, 1, 2)

    def test_broken_encoding(self):
        with pytest.raises(errors.RPCFail, match="can't be decoded"):
            files.UploadFile(pathutils.RAPI_USERS_FILE, [1, "%%%"], 0o600, 0, 0, 1, 2)
        assert not os.path.exists(pathutils.RAPI_USERS_FILE)


def _Config(serial, uuid="u", indent=2):
    data = {"cluster": {"uuid": uuid, "serial_no": 999}, "serial_no": serial, "version": 2010000}
    return json.dumps(data, sort_keys=True, indent=indent).encode()


class TestStaleMaster:
    """A lower serial of the same cluster is refused, never silently accepted."""

    @pytest.mark.parametrize(
        ("new", "current", "older"),
        [
            (_Config(5), _Config(6), True),
            (_Config(6), _Config(6), False),
            (_Config(7), _Config(6), False),
            (_Config(5, uuid="other"), _Config(6), False),
            (_Config(5, indent=None), _Config(6, indent=None), True),
            (b"garbage", _Config(6), False),
            (_Config(5), b"garbage", False),
            (_Config(5), b"[]", False),
        ],
    )
    def test_is_older(self, new, current, older):
        assert files.IsOlderConfig(new, current) is older

    def test_serial_is_the_top_one(self):
        assert files.ConfigSerial(_Config(5)) == 5

    def test_upload(self):
        _Upload(pathutils.CLUSTER_CONF_FILE, _Config(5))
        _Upload(pathutils.CLUSTER_CONF_FILE, _Config(8))
        with pytest.raises(errors.RPCFail, match="configuration 8 .* newer than configuration 7"):
            _Upload(pathutils.CLUSTER_CONF_FILE, _Config(7))
        assert files.ConfigSerial(io.ReadBinary(pathutils.CLUSTER_CONF_FILE)) == 8


class TestSsconf:
    """write_ssconf_files."""

    def test_write(self):
        files.WriteSsconfFiles({constants.SS_CLUSTER_NAME: "cluster.example.com"})
        path = pathutils.DATA_DIR + "/ssconf_cluster_name"
        assert io.ReadFile(path) == "cluster.example.com\n"
        assert os.stat(path).st_mode & 0o777 == 0o444

    def test_older(self):
        new, old = (
            {constants.SS_MASTER_NODE: f"node{serial}", ssconf.VERSION_KEY: f"{serial} 5.0 u"}
            for serial in (8, 7)
        )
        files.WriteSsconfFiles(new)
        with pytest.raises(errors.RPCFail, match="version 8 .* newer than version 7"):
            files.WriteSsconfFiles(old)
        assert ssconf.SimpleStore().GetMasterNode() == "node8"

    def test_full_disk(self):
        """The master's message says what is wrong where."""

        class Store:
            def WriteFiles(self, values):
                raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(errors.RPCFail, match=r"Can't write the ssconf_ files in .*: No space"):
            files.WriteSsconfFiles({constants.SS_CLUSTER_NAME: "c"}, Store())

    @pytest.mark.parametrize("key", ["no_such_key", "../x", ""])
    def test_unknown_key(self, key):
        with pytest.raises(errors.ProgrammerError, match="Invalid key"):
            files.WriteSsconfFiles({key: "x"})


class TestUpdateConfig:
    """Only what changed of the configuration is sent, to nodes that have the rest."""

    OLD = b'{\n  "cluster": {\n    "uuid": "u"\n  },\n  "name": "a",\n  "serial_no": 7\n}\n'
    NEW = OLD.replace(b"7", b"8").replace(b'"a"', b'"b"')

    def _Update(self, base, serial, new):
        start = self.OLD.index(b'"a"')
        text = new[start:].decode()
        files.UpdateConfig([base, serial], [[0, start], text], zlib.crc32(new))

    def _Read(self):
        return io.ReadBinary(pathutils.CLUSTER_CONF_FILE)

    def test_update(self):
        io.WriteFile(pathutils.CLUSTER_CONF_FILE, data=self.OLD, mode=0o640)
        self._Update(7, 8, self.NEW)
        assert self._Read() == self.NEW
        assert os.stat(pathutils.CLUSTER_CONF_FILE).st_mode & 0o777 == 0o640

    def test_none_there(self):
        with pytest.raises(errors.RPCFail, match="There is no"):
            self._Update(7, 8, self.NEW)

    def test_another_version(self):
        io.WriteFile(pathutils.CLUSTER_CONF_FILE, data=self.OLD)
        with pytest.raises(errors.RPCFail, match="is not configuration 6"):
            self._Update(6, 8, self.NEW)
        with pytest.raises(errors.RPCFail, match="is not the configuration 7"):
            self._Update(7, 9, self.NEW)
        with pytest.raises(errors.RPCFail, match="newer"):
            # CF2: nor does this way lead back.
            self._Update(7, 5, self.NEW.replace(b"8", b"5"))
        assert self._Read() == self.OLD

    def test_changed_by_hand(self):
        io.WriteFile(pathutils.CLUSTER_CONF_FILE, data=self.OLD.replace(b'"u"', b'"v"'))
        with pytest.raises(errors.RPCFail, match="is not the configuration 7"):
            self._Update(7, 8, self.NEW)


JOB = pathutils.QUEUE_DIR + "/job-1"
ARCHIVED = pathutils.JOB_QUEUE_ARCHIVE_DIR + "/0/job-1"


class TestQueuePaths:
    """Component-wise, whatever the path says."""

    @pytest.mark.parametrize("path", [JOB, ARCHIVED, pathutils.JOB_QUEUE_SERIAL_FILE], ids=_Name)
    def test_good(self, path):
        assert jobqueue.IsQueueFile(path)

    @pytest.mark.parametrize(
        "path",
        [
            pathutils.QUEUE_DIR,
            pathutils.JOB_QUEUE_JOURNAL_DIR,
            pathutils.JOB_QUEUE_JOURNAL_DIR + "/1",
            pathutils.QUEUE_DIR + "-evil/job-1",
            pathutils.QUEUE_DIR + "/../config.data",
            pathutils.QUEUE_DIR + "/a/../../config.data",
            pathutils.CLUSTER_CONF_FILE,
            "job-1",
            "",
            JOB + "\0",
        ],
        ids=_Name,
    )
    def test_bad(self, path):
        assert not jobqueue.IsQueueFile(path)
        with pytest.raises(errors.RPCFail, match="not in the queue directory"):
            jobqueue.JobQueueUpdate(path, [0, "x"])
        with pytest.raises(errors.RPCFail, match="not in the queue directory"):
            jobqueue.JobQueueRename([(JOB, path)])

    def test_links_do_not_lead_out(self, tmp_path):
        jobqueue.InitQueue()
        os.symlink(tmp_path, pathutils.QUEUE_DIR + "/link")
        assert not jobqueue.IsQueueFile(pathutils.QUEUE_DIR + "/link/job-1")


class TestJobQueue:
    """JQ2: copies on candidates."""

    def test_init(self):
        jobqueue.InitQueue()
        assert jstore.ReadVersion() == constants.JOB_QUEUE_VERSION
        assert jstore.ReadSerial() == 0

    def test_update(self):
        jobqueue.JobQueueUpdate(JOB, rpc.EncodeData("x" * 600))
        jobqueue.FinishQueue()
        assert io.ReadFile(JOB) == "x" * 600
        assert os.stat(JOB).st_mode & 0o777 == 0o600

    def test_update_is_durable(self):
        """JQ1: on the disk when the call returns, for whoever opens the queue next."""
        jobqueue.JobQueueUpdate(JOB, [0, "x"])
        assert not os.path.exists(JOB)
        jobqueue.InitQueue()
        assert io.ReadFile(JOB) == "x"

    def test_many(self):
        """JQ2: one call for many files: all of them or, if one is not for us, none."""
        jobqueue.JobQueueUpdateMany([(JOB + str(number), [0, "x"]) for number in range(3)])
        with pytest.raises(errors.RPCFail, match="evil"):
            jobqueue.JobQueueUpdateMany(
                [(JOB, [0, "x"]), (pathutils.QUEUE_DIR + "-evil/x", [0, ""])]
            )
        jobqueue.FinishQueue()
        assert jstore.ListJobIds() == [10, 11, 12]

    def test_another_owner(self):
        """JQ1: a node that was the master meanwhile does not bring back what it had before."""
        jobqueue.JobQueueUpdate(JOB, [0, "old"])
        lock = jstore.InitAndVerifyQueue(must_lock=True)
        assert io.ReadFile(JOB) == "old"
        io.WriteFile(JOB, data="new")
        lock.Close()
        jobqueue.FinishQueue()
        assert io.ReadFile(JOB) == "new"
        jobqueue.JobQueueUpdate(JOB + "9", [0, "x"])
        jobqueue.FinishQueue()
        assert io.ReadFile(JOB) == "new"

    def test_rename_makes_directories(self):
        jobqueue.JobQueueUpdate(JOB, [0, "x"])
        for _ in range(2):
            # The master may ask again
            assert jobqueue.JobQueueRename([[JOB, ARCHIVED]]) == [None]
        assert io.ReadFile(ARCHIVED) == "x"
        assert not os.path.exists(JOB)
        assert os.stat(os.path.dirname(ARCHIVED)).st_mode & 0o777 == 0o750

    def test_rename_of_nothing(self):
        """A copy that never came here does not keep the others from being archived."""
        jobqueue.JobQueueUpdate(JOB, [0, "x"])
        renames = [[JOB + "9", ARCHIVED + "9"], [JOB, ARCHIVED]]
        assert jobqueue.JobQueueRename(renames) == [None, None]
        assert io.ReadFile(ARCHIVED) == "x"

    def test_update_of_an_archived_job(self):
        jobqueue.JobQueueUpdate(ARCHIVED, [0, "x"])
        jobqueue.FinishQueue()
        assert io.ReadFile(ARCHIVED) == "x"

    def test_purge(self):
        jobqueue.InitQueue()
        for path in (JOB, pathutils.JOB_QUEUE_ARCHIVE_DIR + "/job-2"):
            jobqueue.JobQueueUpdate(path, [0, "x"])
        os.mkdir(pathutils.JOB_QUEUE_ARCHIVE_DIR + "/0")
        jobqueue.JobQueuePurge()
        assert sorted(os.listdir(pathutils.QUEUE_DIR)) == ["archive", "journal", "lock"]
        assert os.listdir(pathutils.JOB_QUEUE_JOURNAL_DIR) == []
        # Sub-directories stay
        assert os.listdir(pathutils.JOB_QUEUE_ARCHIVE_DIR) == ["0"]

    def test_purge_without_queue(self):
        jobqueue.JobQueuePurge()

    def test_drain(self):
        jobqueue.InitQueue()
        jobqueue.JobQueueSetDrainFlag(True)
        assert jstore.IsQueueDrained()
        jobqueue.JobQueueSetDrainFlag(False)
        jobqueue.JobQueueSetDrainFlag(False)
        assert not jstore.IsQueueDrained()

    def test_busy(self, monkeypatch):
        """On the master the master daemon owns the lock."""
        monkeypatch.setattr(jobqueue, "LOCK_TIMEOUT", 0.0)
        jobqueue.InitQueue()
        with filelock.FileLock.Open(pathutils.JOB_QUEUE_LOCK_FILE) as lock:
            lock.Exclusive()
            for call in (
                lambda: jobqueue.JobQueueUpdate(JOB, [0, "x"]),
                lambda: jobqueue.JobQueueRename([(JOB, ARCHIVED)]),
                jobqueue.JobQueuePurge,
            ):
                with pytest.raises(errors.LockError, match="Failed to lock"):
                    call()
        jobqueue.JobQueueUpdate(JOB, [0, "x"])

    def test_calls_at_once_do_not_poll(self, monkeypatch):
        """JQ2: a hundred updates that arrive together wait for each other, not for a clock."""

        def Sleep(seconds):
            raise AssertionError(f"slept for {seconds}")

        jobqueue.InitQueue()
        monkeypatch.setattr(runtime.DEFAULT.clock, "sleep", Sleep, raising=False)
        paths = [f"{pathutils.QUEUE_DIR}/job-{number}" for number in range(100)]
        with futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda path: jobqueue.JobQueueUpdate(path, [0, "x"]), paths))
        jobqueue.InitQueue()
        assert jstore.ListJobIds() == list(range(100))

    def test_busy_in_this_process(self, monkeypatch):
        monkeypatch.setattr(jobqueue, "LOCK_TIMEOUT", 0.0)
        with (
            jobqueue._QueueLock(0.0),
            pytest.raises(errors.LockError, match="another call has it"),
        ):
            jobqueue.JobQueueUpdate(JOB, [0, "x"])

    def test_broken_queue(self):
        _Write(pathutils.QUEUE_DIR, "a file where the directory should be")
        with pytest.raises(errors.JobQueueError, match="Job queue failed initialization"):
            jobqueue.JobQueueUpdate(JOB, [0, "x"])
        os.unlink(pathutils.QUEUE_DIR)
        # Each call tries again
        jobqueue.JobQueueUpdate(JOB, [0, "x"])


class TestCleanDirectory:
    """Only the cluster's own directories, only files in them."""

    def test_other_directories(self, tmp_path):
        for path in (str(tmp_path), "/", pathutils.DATA_DIR + "/", pathutils.CONF_DIR):
            with pytest.raises(errors.RPCFail, match="may not be emptied"):
                cleaning.CleanDirectory(path)

    def test_what_goes_and_what_stays(self):
        directory = pathutils.DATA_DIR
        for name in ("a", "b", ".hidden", "kept"):
            _Write(os.path.join(directory, name), "")
        os.mkdir(os.path.join(directory, "dir"))
        os.symlink("a", os.path.join(directory, "link"))
        cleaning.CleanDirectory(directory, exclude=[os.path.join(directory, "kept")])
        assert sorted(os.listdir(directory)) == [".hidden", "dir", "kept", "link"]


class TestFileStorageDirs:
    """Directories of instances whose disks are files."""

    PATH = f"{BASE}/inst1"
    OTHER = f"{BASE}/inst2"

    def _Local(self, path):
        return pathutils.LocalPath(path)

    def test_create(self):
        for _ in range(2):
            filestorage.CreateFileStorageDir(self.PATH)
        assert os.stat(self._Local(self.PATH)).st_mode & 0o7777 & ~0o750 == 0
        assert os.path.isdir(self._Local(self.PATH))

    def test_create_where_a_file_is(self):
        _Write(self._Local(self.PATH), "")
        with pytest.raises(errors.RPCFail, match="something else"):
            filestorage.CreateFileStorageDir(self.PATH)

    def test_remove(self):
        filestorage.RemoveFileStorageDir(self.PATH)
        filestorage.CreateFileStorageDir(self.PATH)
        _Write(self._Local(self.PATH) + "/disk0", "")
        with pytest.raises(errors.RPCFail, match="not empty"):
            filestorage.RemoveFileStorageDir(self.PATH)
        os.unlink(self._Local(self.PATH) + "/disk0")
        filestorage.RemoveFileStorageDir(self.PATH)
        assert not os.path.exists(self._Local(self.PATH))
        _Write(self._Local(self.PATH), "")
        with pytest.raises(errors.RPCFail, match="not a directory"):
            filestorage.RemoveFileStorageDir(self.PATH)

    def test_rename(self):
        filestorage.CreateFileStorageDir(self.PATH)
        for _ in range(2):
            # Done already is fine
            filestorage.RenameFileStorageDir(self.PATH, self.OTHER)
        assert os.listdir(self._Local(BASE)) == ["inst2"]
        filestorage.CreateFileStorageDir(self.PATH)
        with pytest.raises(errors.RPCFail, match="both exist"):
            filestorage.RenameFileStorageDir(self.PATH, self.OTHER)

    def test_rename_of_nothing(self):
        with pytest.raises(errors.RPCFail, match="not a directory"):
            filestorage.RenameFileStorageDir(self.PATH, self.OTHER)

    @pytest.mark.parametrize(
        "path",
        [BASE, f"{BASE}-evil/x", f"{BASE}/../x", "/etc/x", "x", f"{BASE}/x/../../y"],
        ids=_Name,
    )
    def test_refused(self, path):
        for call in (
            lambda: filestorage.CreateFileStorageDir(path),
            lambda: filestorage.RemoveFileStorageDir(path),
            lambda: filestorage.RenameFileStorageDir(path, self.PATH),
            lambda: filestorage.RenameFileStorageDir(self.PATH, path),
        ):
            with pytest.raises(errors.RPCFail, match="File storage path"):
                call()
        assert os.listdir(self._Local(BASE)) == []
