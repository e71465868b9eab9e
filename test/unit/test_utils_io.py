"""Files and directories, on a real file system in a temporary directory."""

import errno
import fcntl
import hashlib
import os
import re
import stat

import pytest

from ganeti import errors, runtime
from ganeti.utils import io


def _Mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


class TestReading:
    def testReadFile(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes("hé\r\n\n".encode() + b"\xff")
        assert io.ReadFile(str(path)) == "hé\r\n\n\udcff"
        assert io.ReadFile(str(path), size=1) == "h"
        assert io.ReadBinary(str(path))[-1:] == b"\xff"

    def testBytesSurviveARoundTrip(self, tmp_path):
        path = str(tmp_path / "file")
        data = bytes(range(256))
        io.WriteFile(path, data=data)
        io.WriteFile(path, data=io.ReadFile(path))
        assert io.ReadBinary(path) == data

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("myline", "myline"),
            ("myline\n", "myline"),
            ("\n\nmyline\r\n\n", "myline"),
            ("  my line \nother\n", "  my line "),
            ("a\x0cb\n", "a\x0cb"),
        ],
    )
    def testOneLine(self, tmp_path, content, expected):
        path = tmp_path / "file"
        path.write_text(content, newline="")
        assert io.ReadOneLineFile(str(path)) == expected

    @pytest.mark.parametrize("content", ["", "\n", "\n\r\n"])
    def testOneLineWithoutData(self, tmp_path, content):
        path = tmp_path / "file"
        path.write_text(content, newline="")
        with pytest.raises(errors.GenericError, match=re.escape(str(path))):
            io.ReadOneLineFile(str(path))

    def testOneLineStrict(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("\na\n\n")
        assert io.ReadOneLineFile(str(path), strict=True) == "a"
        path.write_text("a\nb\n")
        with pytest.raises(errors.GenericError):
            io.ReadOneLineFile(str(path), strict=True)

    def testTail(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("")
        assert io.TailFile(str(path)) == []
        lines = [f"line {number}" for number in range(30)]
        path.write_text("\n".join(lines) + "\n")
        assert io.TailFile(str(path)) == lines[-20:]
        assert io.TailFile(str(path), lines=3) == lines[-3:]

    def testTailLooksAtTheLast4096BytesOnly(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("x" * 5000 + "\nend\n")
        first, last = io.TailFile(str(path))
        assert len(first) == 4096 - len("\nend\n")
        assert last == "end"


class TestUnfinished:
    """What a killed daemon left of the files that it wrote does not stay for ever."""

    def test_names(self):
        path = "/nonexistent/config.data"
        assert io.UnfinishedBy(os.path.basename(runtime.RealFiles._TemporaryName(path))) == (
            os.getpid()
        )
        for name in ("config.data", "web.new", "job-7.new", "a.1-b.new.", "a.1-.new", ".1-b.new"):
            assert io.UnfinishedBy(name) == 0, name
        assert io.UnfinishedBy("job-7.12-34.new.5") == 12

    def test_of_dead_processes_only(self, tmp_path):
        for name in ("config.data", f"a.{os.getpid()}-1.new", "a.999999999-1.new", "a.new"):
            (tmp_path / name).write_text("x")

        def _Look(_fd):
            (name,) = (item for item in os.listdir(tmp_path) if item.startswith("b"))
            assert io.UnfinishedBy(name) == os.getpid()

        io.WriteFile(str(tmp_path / "b"), data="x", postwrite=_Look)
        io.RemoveUnfinished(str(tmp_path))
        assert sorted(os.listdir(tmp_path)) == [
            f"a.{os.getpid()}-1.new",
            "a.new",
            "b",
            "config.data",
        ]
        io.RemoveUnfinished(str(tmp_path / "missing"))


class TestWriteFile:
    def testContentAndMode(self, tmp_path):
        path = str(tmp_path / "file")
        assert io.WriteFile(path, data="abc") is None
        assert io.ReadFile(path) == "abc"
        assert _Mode(path) == 0o600
        io.WriteFile(path, data=b"def", mode=0o644)
        assert io.ReadFile(path) == "def"
        assert _Mode(path) == 0o644
        io.WriteFile(path, data="")
        assert _Mode(path) == 0o600
        assert os.listdir(tmp_path) == ["file"]

    def testModeIsInForceBeforeTheFirstByte(self, tmp_path):
        seen = []
        io.WriteFile(
            str(tmp_path / "file"),
            data="secret",
            mode=0o400,
            prewrite=lambda fd: seen.append(os.fstat(fd)),
        )
        assert (stat.S_IMODE(seen[0].st_mode), seen[0].st_size) == (0o400, 0)

    def testErrorKeepsTarget(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="old")

        def Fail(fd):
            os.write(fd, b"new")
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            io.WriteFile(path, fn=Fail)
        assert io.ReadFile(path) == "old"
        assert os.listdir(tmp_path) == ["file"]

    def testFunctionsSeeTheDescriptor(self, tmp_path):
        path = str(tmp_path / "file")
        order = []

        def Note(what):
            return lambda fd: order.append((what, os.fstat(fd).st_size))

        io.WriteFile(
            path,
            fn=lambda fd: os.write(fd, b"abc"),
            prewrite=Note("pre"),
            postwrite=Note("post"),
        )
        assert order == [("pre", 0), ("post", 3)]

    def testDryRun(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="old")
        io.WriteFile(path, data="new", dry_run=True, backup=True)
        assert io.ReadFile(path) == "old"
        assert os.listdir(tmp_path) == ["file"]

    def testBackup(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="old", backup=True)
        assert os.listdir(tmp_path) == ["file"]
        io.WriteFile(path, data="new", backup=True)
        (backup,) = set(os.listdir(tmp_path)) - {"file"}
        assert re.fullmatch(r"file\.backup-\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d\..+", backup)
        assert io.ReadFile(str(tmp_path / backup)) == "old"

    def testTimes(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="x", atime=1000, mtime=2000)
        assert (os.stat(path).st_atime, os.stat(path).st_mtime) == (1000, 2000)

    def testLockTravelsWithTheDescriptor(self, tmp_path):
        path = str(tmp_path / "file")
        fd = io.WriteFile(
            path,
            data="x",
            close=False,
            prewrite=lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        )
        try:
            with open(path) as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.write(fd, b"y")
        finally:
            os.close(fd)
        assert io.ReadFile(path) == "xy"

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"data": "", "fn": lambda fd: None},
            {"data": "", "atime": 0},
            {"data": "", "mtime": 0},
        ],
    )
    def testWrongArguments(self, tmp_path, arguments):
        with pytest.raises(errors.ProgrammerError):
            io.WriteFile(str(tmp_path / "file"), **arguments)

    def testRelativePath(self):
        with pytest.raises(errors.ProgrammerError):
            io.WriteFile("file", data="")

    def testShortWritesAreContinued(self, monkeypatch):
        written = []

        def Write(fd, data):
            written.append(bytes(data[:2]))
            return len(written[-1])

        monkeypatch.setattr(os, "write", Write)
        io.WriteAll(99, "abcde")
        assert written == [b"ab", b"cd", b"e"]

    def testSyncsFileBeforeAndDirectoryAfterTheRename(self, tmp_path, monkeypatch):
        order = []
        path = str(tmp_path / "file")
        real_fsync, real_rename = os.fsync, os.rename

        def Fsync(fd):
            order.append("dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            real_fsync(fd)

        def Rename(old, new):
            order.append("rename")
            real_rename(old, new)

        monkeypatch.setattr(os, "fsync", Fsync)
        monkeypatch.setattr(os, "rename", Rename)
        io.WriteFile(path, data="x")
        assert order == ["file", "rename", "dir"]


class TestRemovingAndMaking:
    def testRemoveFile(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="")
        io.RemoveFile(path)
        io.RemoveFile(path)
        io.RemoveFile(str(tmp_path))
        assert os.listdir(tmp_path) == []

    def testRemoveDir(self, tmp_path):
        path = tmp_path / "dir"
        (path / "sub").mkdir(parents=True)
        with pytest.raises(OSError, match="not empty"):
            io.RemoveDir(str(path))
        io.RemoveDir(str(path / "sub"))
        io.RemoveDir(str(path))
        io.RemoveDir(str(path))
        assert not path.exists()

    def testRename(self, tmp_path):
        old, new = str(tmp_path / "a"), str(tmp_path / "x" / "y" / "b")
        io.WriteFile(old, data="1")
        with pytest.raises(FileNotFoundError):
            io.RenameFile(old, new)
        io.RenameFile(old, new, mkdir=True, mkdir_mode=0o700)
        assert io.ReadFile(new) == "1"
        assert _Mode(tmp_path / "x" / "y") == 0o700

    def testRenameMissingSource(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            io.RenameFile(str(tmp_path / "a"), str(tmp_path / "d" / "b"), mkdir=True)

    def testEnsureDirs(self, tmp_path):
        path = tmp_path / "dir"
        io.EnsureDirs([(str(path), 0o777)])
        assert _Mode(path) == 0o777
        io.EnsureDirs([(str(path), 0o1750)])
        assert _Mode(path) == 0o1750

    def testEnsureDirsFailures(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in ("file", "missing/dir"):
            with pytest.raises(errors.GenericError, match=path):
                io.EnsureDirs([(str(tmp_path / path), 0o755)])

    def testBackupOfNoFile(self, tmp_path):
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(errors.ProgrammerError):
                io.CreateBackup(str(path))

    def testBackupOnAFullDisk(self, tmp_path, monkeypatch):
        """No half a copy is left."""
        path = tmp_path / "file"
        path.write_bytes(b"abc")

        def Fail(fd):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", Fail)
        with pytest.raises(OSError, match="No space"):
            io.CreateBackup(str(path))
        assert os.listdir(tmp_path) == ["file"]

    def testMoveToBackup(self, tmp_path):
        path = tmp_path / "file"
        assert io.MoveToBackup(str(path)) is None
        found = []
        for content in (b"abc", b"def"):
            path.write_bytes(content)
            found.append(io.MoveToBackup(str(path)))
            assert found[-1].startswith(f"{path}.backup-")
            assert io.ReadBinary(found[-1]) == content
            assert not path.exists()
        assert len(set(found)) == 2

    def testBackupMode(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"\0abc")
        backup = io.CreateBackup(str(path))
        assert io.ReadBinary(backup) == b"\0abc"
        assert _Mode(backup) == 0o600


class TestLooking:
    def testListVisibleFiles(self, tmp_path):
        for name in ("b", ".hidden", "a", "c.d"):
            (tmp_path / name).write_text("")
        assert io.ListVisibleFiles(str(tmp_path)) == ["a", "b", "c.d"]

    @pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "/a/"])
    def testListVisibleFilesRefuses(self, path):
        with pytest.raises(errors.ProgrammerError):
            io.ListVisibleFiles(path)

    def testFindFile(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        (tmp_path / "two" / "script").write_text("")
        path = [str(tmp_path / "one"), str(tmp_path / "two")]
        assert io.FindFile("script", path) == str(tmp_path / "two" / "script")
        assert io.FindFile("script", path, test=os.path.isdir) is None
        assert io.FindFile("../two/script", path) is None
        assert io.FindFile("missing", path) is None

    def testFingerprints(self, tmp_path):
        path = str(tmp_path / "file")
        io.WriteFile(path, data="abc")
        missing, directory = str(tmp_path / "missing"), str(tmp_path)
        assert io.FingerprintFiles([path, missing, directory]) == {
            path: "a9993e364706816aba3e25717850c26c9cd0d89d"
        }
        sha256 = hashlib.sha256(b"abc").hexdigest()
        assert io.FingerprintFiles([path], "sha256") == {path: sha256}

    def testFingerprintOfAPipeDoesNotHang(self, tmp_path):
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
        assert io.FingerprintFiles([path]) == {}

    def testDirectorySize(self, tmp_path):
        mebibyte = 1024 * 1024
        (tmp_path / "sub").mkdir()
        for name in ("a", "sub/b"):
            with open(tmp_path / name, "wb") as fobj:
                fobj.truncate(5 * mebibyte)
        (tmp_path / "link").symlink_to("a")
        assert io.CalculateDirectorySize(str(tmp_path)) == 10

    def testFilesystemStats(self, tmp_path):
        total, free = io.GetFilesystemStats(str(tmp_path))
        assert 0 <= free <= total
        assert total > 0

    def testHomeDir(self):
        assert io.GetHomeDir(0) == io.GetHomeDir("root") == "/root"
        assert io.GetHomeDir("no such user") is None
        assert io.GetHomeDir("no such user", default="/x") == "/x"


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/etc", True),
            ("/", True),
            ("/srv/a.b", True),
            ("/srv/", False),
            ("/srv//a", False),
            ("/etc/../root", False),
            ("/./x", False),
            ("etc/hosts", False),
            ("", False),
        ],
    )
    def testIsNormAbsPath(self, path, expected):
        assert io.IsNormAbsPath(path) is expected

    def testJoin(self):
        assert io.PathJoin("/a", "b", "c") == "/a/b/c"
        assert io.PathJoin("/", "b") == "/b"
        assert io.PathJoin("/a") == "/a"

    @pytest.mark.parametrize(
        "parts",
        [
            ("a", "b"),
            ("/a", "..", "b"),
            ("/a", "../b"),
            ("/a", "/etc/passwd"),
            ("/a", "/ab"),
            ("/a", "."),
            ("/a", ""),
            ("/a/", "b"),
        ],
    )
    def testJoinRefuses(self, parts):
        with pytest.raises(ValueError, match="PathJoin"):
            io.PathJoin(*parts)


class TestWatcherPauseFile:
    NOW = 10000

    def _Read(self, path):
        return io.ReadWatcherPauseFile(str(path), now=self.NOW, remove_after=3600)

    def testMissing(self, tmp_path):
        assert self._Read(tmp_path / "pause") is None

    @pytest.mark.parametrize(
        ("content", "expected", "kept"),
        [
            ("10001\n", 10001, True),
            ("10000", 10000, True),
            ("9999", None, True),
            ("6400", None, True),
            ("6399", None, False),
            ("", None, False),
            ("soon", None, False),
        ],
    )
    def testTimes(self, tmp_path, content, expected, kept):
        path = tmp_path / "pause"
        path.write_text(content)
        assert self._Read(path) == expected
        assert path.exists() is kept
