"""Images of disks through scripts of an OS, and the directory of an export."""

import gzip
import os
import shutil

import pytest

from ganeti import errors, objects, pathutils, ssh
from ganeti.backend import backup, blockdev, os_defs, os_scripts

NAME = "inst1.example.com"
DIRECTORY = os.path.join(pathutils.EXPORT_DIR, NAME)
CONTENT = os.urandom(1 << 16)


class _Here(ssh.SshRunner):
    """Every node is this one."""

    def BuildCmd(self, hostname, user, command, **options):
        return ["sh", "-c", command]


class _NoWay(ssh.SshRunner):
    def BuildCmd(self, hostname, user, command, **options):
        return ["sh", "-c", "cat >/dev/null; echo no route to host >&2; exit 255"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An OS whose scripts copy, a snapshot and a disk; an empty directory of exports."""
    shutil.rmtree(pathutils.EXPORT_DIR, ignore_errors=True)
    os.makedirs(pathutils.EXPORT_DIR)
    os.makedirs(pathutils.LOG_OS_DIR, exist_ok=True)
    definition = tmp_path / "os"
    definition.mkdir()
    for name, script in (("export", 'cat "$EXPORT_DEVICE"'), ("import", 'cat > "$IMPORT_DEVICE"')):
        (definition / name).write_text(f"#!/bin/sh\necho {name} $PWD >&2\n{script}\n")
        (definition / name).chmod(0o755)
    os_obj = objects.OS(
        name="copy",
        path=str(definition),
        api_versions=[15],
        export_script=str(definition / "export"),
        import_script=str(definition / "import"),
        supported_variants=["default"],
    )
    monkeypatch.setattr(os_defs, "OSFromDisk", lambda name: os_obj)
    (tmp_path / "snap").write_bytes(CONTENT)
    (tmp_path / "disk0").write_bytes(b"")

    class _Device:
        def __init__(self, disk):
            self.dev_path = str(tmp_path / disk.logical_id[1])

    monkeypatch.setattr(blockdev, "OpenRealBD", _Device)
    return tmp_path


def Disk(name, size=64):
    return objects.Disk(
        dev_type="lvm",
        size=size,
        logical_id=("xenvg", name),
        physical_id=("xenvg", name),
        iv_name="disk/0",
        mode="rw",
    )


def Instance(**values):
    return objects.Instance(
        name=NAME,
        os="copy+default",
        primary_node="node1.example.com",
        hypervisor="fake",
        hvparams={"kernel_args": "ro 100%", "migration_port": 8102},
        beparams={"memory": 128, "vcpus": 1, "auto_balance": True},
        disk_template="plain",
        disks=[Disk("disk0")],
        nics=[objects.NIC(mac="aa:00:00:00:00:01", nicparams={"mode": "bridged", "link": "br0"})],
        **values,
    )


def Export(runner=_Here, snapshot="snap"):
    backup.SnapshotExport(
        Disk(snapshot), "node2", Instance(), "cluster", 0, 0, get_ssh=lambda name: runner(name)
    )


def Import(images, runner=_Here):
    backup.InstanceOsImport(
        Instance(), "node2", images, "cluster", 0, get_ssh=lambda name: runner(name)
    )


def Logs(kind):
    found = [name for name in os.listdir(pathutils.LOG_OS_DIR) if name.startswith(kind)]
    return [os.path.join(pathutils.LOG_OS_DIR, name) for name in found]


class TestImages:
    """BASE1: what the export script writes comes out of the import script on the other side."""

    def test_there_and_back(self, place):
        Export()
        image = f"{DIRECTORY}.new/snap"
        with gzip.open(image) as fobj:
            assert fobj.read() == CONTENT
        assert os.stat(image).st_mode & 0o777 == 0o600
        Import([image])
        assert (place / "disk0").read_bytes() == CONTENT

    def test_scripts_run_in_their_directory_and_have_a_log(self, place):
        Export()
        (log,) = Logs("export-copy-")
        with open(log) as fobj:
            assert fobj.read() == f"export {place}/os\n"
        for log in Logs("export-copy-"):
            os.unlink(log)

    def test_a_failed_script(self, place):
        (place / "os" / "export").write_text("#!/bin/sh\necho half\necho broken >&2\nexit 1\n")
        with pytest.raises(errors.RPCFail) as info:
            Export()
        assert "Disk 0 of inst1.example.com" in str(info.value)
        assert "the export script ended with exit code 1" in str(info.value)
        assert "broken" in str(info.value)

    def test_a_node_that_can_not_be_reached(self, place):
        with pytest.raises(errors.RPCFail, match="node node2 ended with exit code 255.*no route"):
            Export(_NoWay)

    def test_a_missing_image(self, place):
        with pytest.raises(errors.RPCFail, match="reading /nosuch on node node2 ended"):
            Import(["/nosuch"])

    def test_a_broken_image(self, place):
        Export()
        image = f"{DIRECTORY}.new/snap"
        with open(image, "r+b") as fobj:
            fobj.truncate(1000)
        with pytest.raises(errors.RPCFail, match="gunzip ended with exit code 1"):
            Import([image])

    def test_disks_without_an_image_are_left_alone(self, place):
        Import([None])
        Import([False])
        Import([""])
        assert (place / "disk0").read_bytes() == b""

    def test_more_images_than_disks(self, place):
        with pytest.raises(errors.RPCFail, match="no disk 1"):
            Import([None, "/srv/image"])

    def test_a_name_that_leads_elsewhere(self, place):
        with pytest.raises(errors.RPCFail, match="'../snap'"):
            Export(snapshot="../snap")


def Finish(*snapshots, **values):
    backup.FinalizeExport(Instance(**values), [s and Disk(s).ToDict() for s in snapshots])


class TestDirectory:
    def test_description(self, place):
        Export()
        Finish("snap", False)
        found = objects.ParseExport(backup.ExportInfo(DIRECTORY))
        assert found.name == NAME
        assert [disk.image for disk in found.disks] == ["snap"]
        assert found.hvparams == {"kernel_args": "ro 100%"}
        assert found.source == "node1.example.com"
        assert os.stat(f"{DIRECTORY}/config.ini").st_mode & 0o777 == 0o600

    def test_without_disks(self, place):
        Finish()
        assert backup.ExportList() == [NAME]

    def test_replaces_the_last_one(self, place):
        os.makedirs(f"{DIRECTORY}/sub")
        Export()
        Finish("snap")
        assert sorted(os.listdir(DIRECTORY)) == ["config.ini", "snap"]
        assert os.listdir(pathutils.EXPORT_DIR) == [NAME]

    def test_leftovers_do_not_become_part_of_it(self, place):
        os.makedirs(f"{DIRECTORY}.new/other")
        Export()
        Finish("snap")
        assert sorted(os.listdir(DIRECTORY)) == ["config.ini", "snap"]

    def test_a_missing_image_keeps_the_last_one(self, place):
        os.makedirs(DIRECTORY)
        with pytest.raises(errors.RPCFail, match="no image snap"):
            Finish("snap")
        assert os.path.isdir(DIRECTORY)

    def test_after_a_crash_between_the_two_renames(self, place):
        Export()
        os.makedirs(os.path.join(pathutils.EXPORT_DIR, f".old-{NAME}"))
        Finish("snap")
        assert os.listdir(pathutils.EXPORT_DIR) == [NAME]

    def test_list_needs_the_directory(self, place):
        os.rmdir(pathutils.EXPORT_DIR)
        with pytest.raises(errors.RPCFail, match="can't be listed"):
            backup.ExportList()

    def test_remove(self, place):
        Finish()
        backup.RemoveExport(NAME)
        backup.RemoveExport(NAME)
        assert backup.ExportList() == []

    def test_remove_does_not_follow_links(self, place):
        os.symlink(place / "os", DIRECTORY)
        backup.RemoveExport(NAME)
        assert (place / "os" / "export").exists()
        assert not os.path.lexists(DIRECTORY)

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".old-x"])
    def test_names_that_are_none(self, place, name):
        with pytest.raises(errors.RPCFail, match="no name of an export"):
            backup.RemoveExport(name)

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (None, "no description"),
            ("[export]\n", "no section \\[instance\\]"),
            ("[instance]\n", "no section \\[export\\]"),
            ("what", "config.ini"),
            ("#" * (1 << 20) + "x", "no description"),
        ],
    )
    def test_no_export(self, place, content, problem):
        os.makedirs(DIRECTORY)
        if content is not None:
            with open(f"{DIRECTORY}/config.ini", "w") as fobj:
                fobj.write(content)
        with pytest.raises(errors.RPCFail, match=problem):
            backup.ExportInfo(DIRECTORY)


def test_log_names_have_no_variant():
    assert "/export-copy-inst1" in os_scripts.LogFileName("export", "copy", "inst1", 0)
