"""OS definitions: finding, checking, and what the scripts are told."""

import errno
import os
import shutil

import pytest

from ganeti import constants, errors, objects, pathutils
from ganeti.backend import os_defs, os_scripts
from ganeti.runtime import fake

SCRIPTS = ("create", "import", "export", "rename")


def _MakeOS(search_dir, name="debian", versions="15\n", variants=None, scripts=SCRIPTS):
    path = search_dir / name
    path.mkdir(parents=True)
    (path / "ganeti_api_version").write_text(versions)
    for script in scripts:
        (path / script).write_text("#!/bin/sh\nexit 0\n")
        (path / script).chmod(0o755)
    if variants is not None:
        (path / "variants.list").write_text(variants)
    return path


def _Load(path):
    return os_defs.LoadOS(path.name, str(path))


def _Problem(path):
    with pytest.raises(os_defs.InvalidOS) as excinfo:
        _Load(path)
    return str(excinfo.value)


class TestValidation:
    """OS1: what makes a definition usable; each diagnosis names its cause."""

    def test_valid(self, tmp_path):
        path = _MakeOS(tmp_path, versions="15\n10\n", variants="lenny\netch\n")
        found = _Load(path)
        assert found.name == "debian"
        assert found.path == str(path)
        assert found.api_versions == [15, 10]
        assert found.supported_variants == ["lenny", "etch"]
        for script in SCRIPTS:
            assert getattr(found, f"{script}_script") == str(path / script)

    def test_2_0_definition(self, tmp_path):
        path = _MakeOS(tmp_path, versions="10", variants="ignored\n")
        assert _Load(path).supported_variants == []

    def test_linked_directory_and_files(self, tmp_path):
        real = _MakeOS(tmp_path, name="real")
        (tmp_path / "link").symlink_to(real)
        (real / "create").rename(real / "common")
        (real / "create").symlink_to("common")
        assert _Load(tmp_path / "link").name == "link"

    @pytest.mark.parametrize("name", ["a.b", "a+b", "", "../x", "a b"])
    def test_name(self, tmp_path, name):
        with pytest.raises(os_defs.InvalidOS, match="Invalid OS name"):
            os_defs.LoadOS(name, str(tmp_path))

    def test_not_a_directory(self, tmp_path):
        (tmp_path / "debian").write_text("")
        assert "not a directory" in _Problem(tmp_path / "debian")

    def test_no_api_file(self, tmp_path):
        path = _MakeOS(tmp_path)
        (path / "ganeti_api_version").unlink()
        text = _Problem(path)
        assert "ganeti_api_version" in text
        assert "ENOENT" in text
        assert str(path) in text

    def test_api_file_is_a_directory(self, tmp_path):
        path = _MakeOS(tmp_path)
        (path / "ganeti_api_version").unlink()
        (path / "ganeti_api_version").mkdir()
        assert "not a regular file" in _Problem(path)

    def test_unreadable_api_file(self, tmp_path, monkeypatch):
        path = _MakeOS(tmp_path)

        def Refuse(name):
            raise OSError(errno.EIO, "broken", name)

        monkeypatch.setattr(os_defs.io, "ReadFile", Refuse)
        assert "EIO" in _Problem(path)

    @pytest.mark.parametrize("versions", ["fifteen\n", "15\n\n10\n", "10.5\n"])
    def test_lines_must_be_numbers(self, tmp_path, versions):
        text = _Problem(_MakeOS(tmp_path, versions=versions))
        assert "can't be converted to integer" in text

    @pytest.mark.parametrize("versions", ["5\n", "21\n5\n", ""])
    def test_no_common_version(self, tmp_path, versions):
        text = _Problem(_MakeOS(tmp_path, versions=versions))
        assert "API version mismatch" in text
        assert "want 10, 15, 20" in text

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_missing_script(self, tmp_path, script):
        path = _MakeOS(tmp_path)
        (path / script).unlink()
        assert f"File '{script}'" in _Problem(path)

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_script_without_execute_bit(self, tmp_path, script):
        path = _MakeOS(tmp_path)
        (path / script).chmod(0o644)
        assert f"File '{script}' under path '{path}' is not executable" in _Problem(path)

    def test_script_is_a_directory(self, tmp_path):
        path = _MakeOS(tmp_path)
        (path / "create").unlink()
        (path / "create").mkdir()
        assert "not a regular file" in _Problem(path)

    def test_api_20_needs_more_files(self, tmp_path):
        path = _MakeOS(tmp_path, versions="20\n15\n10\n")
        assert "parameters.list" in _Problem(path)
        (path / "parameters.list").write_text("")
        assert "verify" in _Problem(path)
        (path / "verify").write_text("")
        (path / "verify").chmod(0o755)
        assert _Load(path).verify_script == str(path / "verify")


class TestVariants:
    """OS2: variants.list."""

    def test_missing_file_is_no_variants(self, tmp_path):
        assert _Load(_MakeOS(tmp_path)).supported_variants == []

    def test_judged_by_the_chosen_version(self, tmp_path):
        """A definition that lists a version that we do not speak is run as what we do."""
        assert _Load(_MakeOS(tmp_path, versions="99\n10\n")).supported_variants == []

    @pytest.mark.parametrize("content", ["", "\n\n", "# none\n"])
    def test_empty_file(self, tmp_path, content):
        assert "declares no variant" in _Problem(_MakeOS(tmp_path, variants=content))

    def test_dangling_link(self, tmp_path):
        path = _MakeOS(tmp_path)
        (path / "variants.list").symlink_to("nowhere")
        assert "ENOENT" in _Problem(path)

    def test_comments_and_blanks(self, tmp_path):
        content = "# first\n  lenny \n\netch\nlenny\n"
        assert _Load(_MakeOS(tmp_path, variants=content)).supported_variants == ["lenny", "etch"]

    def test_bad_name(self, tmp_path):
        assert "Invalid variant name" in _Problem(_MakeOS(tmp_path, variants="a b\n"))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("debian", ("debian", "")),
            ("debian+lenny", ("debian", "lenny")),
            ("debian+a+b", ("debian", "a+b")),
        ],
    )
    def test_split(self, name, expected):
        assert os_defs.SplitName(name) == expected


class TestSearchPath:
    """Finding along several directories."""

    def test_diagnose(self, tmp_path):
        first, second = tmp_path / "1", tmp_path / "2"
        _MakeOS(first, "lenny", variants="a\n")
        broken = _MakeOS(first, "broken")
        (broken / "export").unlink()
        _MakeOS(second, "lenny")
        (first / ".hidden").mkdir()
        (first / "README.txt").write_text("")
        missing = str(tmp_path / "missing")
        # A directory that can't be listed does not end the scan
        result = os_defs.DiagnoseOS([missing, str(first), str(second)])
        assert [(entry[0], entry[2]) for entry in result] == [
            ("README.txt", False),
            ("broken", False),
            ("lenny", True),
            ("lenny", True),
        ]
        assert result[2] == ("lenny", str(first / "lenny"), True, "", ["a"])
        assert "export" in result[1][3]

    def test_first_one_wins(self, tmp_path):
        first, second = tmp_path / "1", tmp_path / "2"
        path = _MakeOS(first)
        _MakeOS(second)
        found = os_defs.OSFromDisk("debian+any", [str(first), str(second)])
        assert found.path == str(path)

    def test_missing(self, tmp_path):
        with pytest.raises(errors.RPCFail, match="no OS 'gentoo'"):
            os_defs.OSFromDisk("gentoo", [str(tmp_path)])


def _Instance(os_name="debian", **kwargs):
    values = {
        "name": "inst1.example.com",
        "uuid": "some-uuid",
        "primary_node": "node1",
        "os": os_name,
        "hypervisor": "kvm",
        "hvparams": {"kernel_path": "/k", "acpi": True, "disk_type": "scsi", "nic_type": "e1000"},
        "beparams": {"memory": 128, "vcpus": 1, "auto_balance": False},
        "nics": [
            objects.NIC(
                mac="aa:00:00:00:00:01",
                ip=None,
                nicparams={"mode": "bridged", "link": "br0"},
            ),
            objects.NIC(
                mac="aa:00:00:00:00:02",
                ip="192.0.2.77",
                nicparams={"mode": "routed", "link": ""},
            ),
        ],
        "disks": [
            objects.Disk(
                dev_type="file",
                logical_id=("loop", "/srv/d0"),
                size=100,
                mode="rw",
                uuid="disk-uuid",
            ),
            objects.Disk(dev_type="lvm", logical_id=("vg", "lv"), size=200, mode="ro"),
        ],
        "disk_template": "file",
    }
    values.update(kwargs)
    return objects.Instance(**values)


class _Device:
    def __init__(self, path):
        self.dev_path = path


DEVICES = {0: _Device("/srv/d0"), 1: _Device("/dev/vg/lv")}


def _OS(versions, variants=()):
    return objects.OS(
        name="debian",
        path="/srv/os/debian",
        api_versions=list(versions),
        supported_variants=list(variants),
        create_script="/srv/os/debian/create",
        rename_script="/srv/os/debian/rename",
    )


def _Environment(versions, variants=(), os_name="debian", debug=0):
    return os_scripts.OSEnvironment(
        _Instance(os_name), _OS(versions, variants), debug, devices=DEVICES
    )


class TestEnvironment:
    """OS1: the right variables for each version of the interface."""

    COMMON = {
        "INSTANCE_NAME": "inst1.example.com",
        "HYPERVISOR": "kvm",
        "DISK_COUNT": "2",
        "DISK_0_PATH": "/srv/d0",
        "DISK_0_ACCESS": "rw",
        "DISK_0_FRONTEND_TYPE": "scsi",
        "DISK_0_BACKEND_TYPE": "file:loop",
        "DISK_1_PATH": "/dev/vg/lv",
        "DISK_1_ACCESS": "ro",
        "DISK_1_FRONTEND_TYPE": "scsi",
        "DISK_1_BACKEND_TYPE": "block",
        "NIC_COUNT": "2",
        "NIC_0_MAC": "aa:00:00:00:00:01",
        "NIC_0_MODE": "bridged",
        "NIC_0_LINK": "br0",
        "NIC_0_BRIDGE": "br0",
        "NIC_0_FRONTEND_TYPE": "e1000",
        "NIC_1_MAC": "aa:00:00:00:00:02",
        "NIC_1_IP": "192.0.2.77",
        "NIC_1_MODE": "routed",
        "NIC_1_FRONTEND_TYPE": "e1000",
        "INSTANCE_BE_memory": "128",
        "INSTANCE_BE_vcpus": "1",
        "INSTANCE_BE_auto_balance": "False",
        "LC_ALL": "C",
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
    }

    def test_api_10_gets_what_2_0_gave(self):
        env = _Environment([10], os_name="debian", debug=3)
        assert env == {
            **self.COMMON,
            "OS_API_VERSION": "10",
            "INSTANCE_OS": "debian",
            "DEBUG_LEVEL": "3",
        }

    def test_api_15(self):
        env = _Environment([10, 15], ["lenny", "etch"], os_name="debian+etch")
        assert env == {
            **self.COMMON,
            "OS_API_VERSION": "15",
            "INSTANCE_OS": "debian+etch",
            "OS_NAME": "debian",
            "OS_VARIANT": "etch",
            "DEBUG_LEVEL": "0",
            "INSTANCE_HYPERVISOR": "kvm",
            "INSTANCE_HV_kernel_path": "/k",
            "INSTANCE_HV_acpi": "True",
            "INSTANCE_HV_disk_type": "scsi",
            "INSTANCE_HV_nic_type": "e1000",
            "INSTANCE_UUID": "some-uuid",
            "INSTANCE_PRIMARY_NODE": "node1",
            "INSTANCE_SECONDARY_NODES": "",
            "DISK_0_SIZE": "100",
            "DISK_0_UUID": "disk-uuid",
            "DISK_1_SIZE": "200",
        }

    def test_api_20_is_chosen_if_there(self):
        assert _Environment([10, 15, 20])["OS_API_VERSION"] == "20"

    def test_first_variant_by_default(self):
        assert _Environment([15], ["lenny", "etch"])["OS_VARIANT"] == "lenny"

    def test_undeclared_variant_is_passed_on(self):
        env = _Environment([15], ["lenny"], os_name="debian+sid")
        assert env["OS_VARIANT"] == "sid"

    def test_os_without_variants(self):
        assert _Environment([15])["OS_VARIANT"] == ""

    def test_import_and_export(self):
        env = _Environment([15])
        imported = os_scripts.ImportEnvironment(env, 1)
        assert imported["IMPORT_DEVICE"] == "/dev/vg/lv"
        assert imported["IMPORT_INDEX"] == "1"
        exported = os_scripts.ExportEnvironment(env, 0, "/dev/vg/lv.snap")
        assert exported["EXPORT_DEVICE"] == "/dev/vg/lv.snap"
        assert exported["EXPORT_INDEX"] == "0"
        assert "IMPORT_DEVICE" not in env
        assert exported["DISK_0_PATH"] == "/srv/d0"

    def test_diskless(self):
        instance = _Instance(disks=[])
        env = os_scripts.OSEnvironment(instance, _OS([15]))
        assert env["DISK_COUNT"] == "0"


class TestScripts:
    """Running create and rename."""

    @pytest.fixture
    def definition(self):
        search_dir = pathutils.OS_SEARCH_PATH[0]
        os.makedirs(search_dir)
        os.makedirs(pathutils.LOG_OS_DIR)
        from pathlib import Path

        yield _MakeOS(Path(search_dir), versions="15\n", variants="lenny\n")
        shutil.rmtree(pathutils.ROOTDIR)
        os.mkdir(pathutils.ROOTDIR)

    def _Script(self, definition, name, body):
        (definition / name).write_text(f"#!/bin/sh\n{body}\n")

    def _Log(self):
        (name,) = os.listdir(pathutils.LOG_OS_DIR)
        with open(os.path.join(pathutils.LOG_OS_DIR, name), encoding="ascii") as fobj:
            return name, fobj.read()

    @pytest.fixture
    def instance(self):
        return _Instance("debian+lenny", disks=[])

    def test_create(self, definition, instance, monkeypatch):
        monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
        self._Script(definition, "create", "pwd; env | sort; echo oops >&2; cat")
        os_scripts.InstanceOsAdd(instance, False, 2)
        name, log = self._Log()
        assert name.startswith("add-debian+lenny-inst1.example.com-2")
        lines = log.splitlines()
        # In its own directory, without anything of ours, with nothing to read
        assert lines[0] == str(definition)
        assert "oops" in lines
        assert "DEBUG_LEVEL=2" in lines
        assert "OS_VARIANT=lenny" in lines
        assert not [line for line in lines if "SECRET" in line or "REINSTALL" in line]

    def test_reinstall(self, definition, instance):
        self._Script(definition, "create", "env")
        os_scripts.InstanceOsAdd(instance, True, 0)
        assert "INSTANCE_REINSTALL=1" in self._Log()[1].splitlines()

    def test_failure_shows_the_end_of_the_log(self, definition, instance):
        self._Script(definition, "create", "seq 1 100; exit 3")
        with pytest.raises(errors.RPCFail) as excinfo:
            os_scripts.InstanceOsAdd(instance, False, 0)
        text = str(excinfo.value)
        assert "exit code 3" in text
        assert text.splitlines()[-20:] == [str(number) for number in range(81, 101)]

    def test_rename(self, definition, instance):
        self._Script(definition, "rename", "env")
        os_scripts.RunRenameInstance(instance, "old.example.com", 0)
        name, log = self._Log()
        assert name.startswith("rename-debian+lenny-old.example.com-inst1.example.com-")
        assert "OLD_INSTANCE_NAME=old.example.com" in log.splitlines()
        assert "INSTANCE_NAME=inst1.example.com" in log.splitlines()

    def test_missing_interpreter(self, definition, instance):
        (definition / "create").write_text("#!/no/such/interpreter\n")
        with pytest.raises(errors.RPCFail, match="could not be run"):
            os_scripts.InstanceOsAdd(instance, False, 0)

    def test_disks_must_be_there(self, definition):
        with pytest.raises(errors.RPCFail, match="not usable"):
            os_scripts.InstanceOsAdd(_Instance(), False, 0)

    def test_log_file_name(self):
        name = os_scripts.LogFileName("export", "debian", "inst1", fake.EPOCH)
        assert os.path.dirname(name) == pathutils.LOG_OS_DIR
        base = os.path.basename(name)
        assert base.startswith("export-debian-inst1-202")
        assert base.endswith(".log")
        assert "/" not in os.path.basename(os_scripts.LogFileName("add", "a/b", "../x", 0))


def test_supported_versions():
    """OS1: 10, 15 and 20."""
    assert sorted(constants.OS_API_VERSIONS) == [10, 15, 20]
    assert os_defs.ChosenApiVersion([10, 20, 99]) == 20
    assert os_defs.ChosenApiVersion([5]) is None
