"""Decisions of the chroot hypervisor (BASE2); what it does is in test/component/test_chroot.py."""

import os

import pytest

from ganeti import errors, objects, runtime
from ganeti.hypervisor import hv_chroot
from ganeti.runtime import fake

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
/dev/loop0 /run/chroot/inst1.x ext4 rw 0 0
/dev/loop1 /run/chroot/inst1.xy ext4 rw 0 0
none /run/chroot/inst1.x/run tmpfs rw 0 0
none /run/chroot/inst1.x/run/a\\040b\\134c tmpfs rw 0 0
"""


class TestMounts:
    def test_parse(self):
        assert hv_chroot.ParseMounts(MOUNTS)[-1] == "/run/chroot/inst1.x/run/a b\\c"
        assert len(hv_chroot.ParseMounts(MOUNTS)) == 6

    def test_below_deepest_first(self):
        """A neighbour whose name begins alike is not below."""
        mounts = hv_chroot.ParseMounts(MOUNTS)
        assert hv_chroot.MountsBelow(mounts, "/run/chroot/inst1.x") == [
            "/run/chroot/inst1.x/run/a b\\c",
            "/run/chroot/inst1.x/run",
            "/run/chroot/inst1.x",
        ]
        assert hv_chroot.MountsBelow(mounts, "/run/chroot/inst1") == []

    @pytest.mark.parametrize(
        ("path", "directory", "below"),
        [
            ("/a", "/a", True),
            ("/a/b", "/a", True),
            ("/a/b", "/a/", True),
            ("/ab", "/a", False),
            ("/", "/a", False),
        ],
    )
    def test_is_below(self, path, directory, below):
        assert hv_chroot.IsBelow(path, directory) is below

    def test_last_lines(self):
        text = "".join(f"{number}\n" for number in range(50))
        assert hv_chroot.LastLines(text).splitlines() == [str(number) for number in range(30, 50)]


class TestProcesses:
    """No process is ended but those that have their root directory on the mount."""

    def test_who_works_there_does_not_live_there(self, tmp_path):
        """This process has a file of the directory open; that is not enough."""
        with open(tmp_path / "file", "w"):
            assert not hv_chroot.LivesIn(os.getpid(), str(tmp_path))
            assert hv_chroot.ProcessesIn(str(tmp_path)) == []
            assert f"process {os.getpid()} ({tmp_path}/file)" in hv_chroot.DescribeUsers(
                str(tmp_path)
            )

    def test_signal_goes_only_to_who_lives_there(self, tmp_path, monkeypatch):
        sent = []
        monkeypatch.setattr(
            hv_chroot.signal, "pidfd_send_signal", lambda fd, number: sent.append(number)
        )
        hv_chroot.SendSignal(os.getpid(), str(tmp_path), 9)
        assert sent == []
        monkeypatch.setattr(hv_chroot, "LivesIn", lambda pid, directory: True)
        hv_chroot.SendSignal(os.getpid(), str(tmp_path), 15)
        assert sent == [15]

    def test_a_directory_of_the_same_name_elsewhere(self, monkeypatch, tmp_path):
        """In a container: the kernel shows the same path, but it is another directory."""
        monkeypatch.setattr(hv_chroot.os, "readlink", lambda path: str(tmp_path))
        assert not hv_chroot.LivesIn(os.getpid(), str(tmp_path))
        monkeypatch.setattr(hv_chroot.os, "readlink", lambda path: "/")
        assert hv_chroot.LivesIn(os.getpid(), "/")


class TestRefusals:
    """Names are parts of paths; nothing is done for one that leads elsewhere."""

    @pytest.fixture
    def manager(self, tmp_path):
        rt = fake.NewRuntime(files=runtime.DEFAULT.files)
        return hv_chroot.ChrootManager(rt, str(tmp_path / "mounts"), str(tmp_path / "logs"))

    @pytest.mark.parametrize("name", ["../x", "..", "", "a/b", "a\0b"])
    def test_names(self, manager, name):
        instance = objects.Instance(name=name, hvparams={"init_script": "/x"})
        for act in (
            lambda: manager.StartInstance(instance, [(objects.Disk(mode="rw"), "/dev/x")]),
            lambda: manager.StopInstance(instance),
            lambda: manager.StopInstance(None, force=True, name=name),
            lambda: manager.CleanupInstance(name),
            lambda: manager.GetInstanceInfo(name),
        ):
            with pytest.raises(errors.HypervisorError, match="no instance name"):
                act()

    def test_read_only_disk(self, manager, monkeypatch, tmp_path):
        manager._rt.processes.Answer("mount *", code=32, stderr="mount: bad disk")
        instance = objects.Instance(name="inst1", hvparams={"init_script": "/x"})
        with pytest.raises(errors.HypervisorError, match=r"/dev/x can not be mounted.*bad disk"):
            manager.StartInstance(instance, [(objects.Disk(mode="ro"), "/dev/x")])
        (call,) = manager._rt.processes.calls
        assert call.argv == ["mount", "-o", "ro", "--", "/dev/x", f"{tmp_path}/mounts/inst1"]
        assert os.listdir(tmp_path / "mounts") == []

    def test_verify(self, manager, tmp_path):
        assert manager.Verify() is None
        os.rmdir(tmp_path / "mounts")
        assert "does not exist" in manager.Verify()
