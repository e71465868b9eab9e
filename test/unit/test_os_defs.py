"""OS definitions: finding, checking, and what the scripts are told."""

import errno
import os
import shutil
import signal
import stat

import pytest

from ganeti import constants, errors, objects, pathutils
from ganeti.backend import os_defs, os_scripts
from ganeti.runtime import fake
from ganeti.utils import child

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
        # What others may is not the question.
        for mode in (0o644, 0o655):
            (path / script).chmod(mode)
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
        "ctime": 1.5,
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


#: What scripts are told, and since which version of the interface: the names with N and M stand for
#: all disks and NICs. INSTANCE_HYPERVISOR and the sizes are new in 15, more comes with 20.
VARIABLES = {
    10: {
        "PATH": "/sbin:/bin:/usr/sbin:/usr/bin",
        "LC_ALL": "C",
        "OS_API_VERSION": "10",
        "INSTANCE_NAME": "inst1.example.com",
        "INSTANCE_OS": "debian+etch",
        "HYPERVISOR": "kvm",
        "DEBUG_LEVEL": "3",
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
        "INSTANCE_HV_kernel_path": "/k",
        "INSTANCE_HV_acpi": "True",
        "INSTANCE_HV_disk_type": "scsi",
        "INSTANCE_HV_nic_type": "e1000",
    },
    15: {
        "OS_API_VERSION": "15",
        "OS_NAME": "debian",
        "OS_VARIANT": "etch",
        "INSTANCE_HYPERVISOR": "kvm",
        "DISK_0_SIZE": "100",
        "DISK_1_SIZE": "200",
    },
    20: {
        "OS_API_VERSION": "20",
        "INSTANCE_UUID": "some-uuid",
        "INSTANCE_CTIME": "1.5",
        "INSTANCE_PRIMARY_NODE": "node1",
        "INSTANCE_SECONDARY_NODES": "",
        "DISK_0_UUID": "disk-uuid",
    },
}


def _Expected(version):
    """All variables of a version."""
    return {
        key: value
        for since in (10, 15, 20)
        if since <= version
        for key, value in VARIABLES[since].items()
    }


class TestEnvironment:
    """OS1: the right variables for each version of the interface, and not one more."""

    @pytest.mark.parametrize("version", [10, 15, 20])
    def test_all_of_it(self, version):
        env = _Environment([version], ["lenny", "etch"], os_name="debian+etch", debug=3)
        assert env == _Expected(version)

    @pytest.mark.parametrize("version", [10, 15, 20])
    def test_verify_script_knows_no_instance(self, version):
        names = {"PATH", "LC_ALL", "OS_API_VERSION", "DEBUG_LEVEL", "OS_NAME", "OS_VARIANT"}
        env = os_scripts.BasicEnvironment("debian+etch", _OS([version]), 3)
        expected = _Expected(version)
        assert env == {key: expected[key] for key in names if key in expected}

    def test_unusual_instance(self):
        """No hypervisor with types of disks, no NICs, nothing but what is there."""
        instance = _Instance(hvparams={}, beparams={}, nics=[], disks=[], hypervisor="fake")
        env = os_scripts.OSEnvironment(instance, _OS([10]))
        counts = {"DISK_COUNT": "0", "NIC_COUNT": "0", "HYPERVISOR": "fake"}
        gone = ("DISK_", "NIC_", "INSTANCE_BE_", "INSTANCE_HV_")
        expected = {k: v for k, v in _Expected(10).items() if not k.startswith(gone)}
        assert env == {**expected, **counts, "DEBUG_LEVEL": "0", "INSTANCE_OS": "debian"}

    def test_blktap(self):
        instance = _Instance(
            disks=[objects.Disk(dev_type="file", logical_id=("blktap", "/x"), size=1, mode="ro")]
        )
        env = os_scripts.OSEnvironment(instance, _OS([10]), devices={0: _Device("/x")})
        assert (env["DISK_0_BACKEND_TYPE"], env["DISK_0_ACCESS"]) == ("file:blktap", "ro")

    def test_highest_common_version_is_chosen(self):
        assert _Environment([10, 20, 15, 99])["OS_API_VERSION"] == "20"

    def test_first_variant_by_default(self):
        assert _Environment([15], ["lenny", "etch"])["OS_VARIANT"] == "lenny"

    def test_undeclared_variant_is_passed_on(self):
        env = _Environment([15], ["lenny"], os_name="debian+sid")
        assert env["OS_VARIANT"] == "sid"

    def test_os_without_variants(self):
        assert _Environment([15])["OS_VARIANT"] == ""

    @pytest.mark.parametrize("version", [10, 15, 20])
    def test_import_and_export(self, version):
        env = _Environment([version], ["etch"], os_name="debian+etch", debug=3)
        own = {"IMPORT_DEVICE": "/dev/vg/lv", "IMPORT_INDEX": "1"}
        if version == 20:
            own["IMPORT_DISK_PATH"] = "/dev/vg/lv"
        assert os_scripts.ImportEnvironment(env, 1) == {**_Expected(version), **own}
        # The disk itself is named, too, and is not what is to be exported.
        own = {"EXPORT_DEVICE": "/dev/vg/lv.snap", "EXPORT_INDEX": "0"}
        if version == 20:
            own["EXPORT_DISK_PATH"] = "/dev/vg/lv.snap"
        snapshot = os_scripts.ExportEnvironment(env, 0, "/dev/vg/lv.snap")
        assert snapshot == {**_Expected(version), **own}
        assert env == _Expected(version)

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
        body = 'pwd; echo "arguments $#"; cat; echo oops >&2; ps -o sid= -p $$'
        self._Script(definition, "create", body)
        os_scripts.InstanceOsAdd(instance, False, 2)
        name, log = self._Log()
        assert name.startswith("add-debian+lenny-inst1.example.com-2")
        # In its own directory and session, with nothing to read
        directory, arguments, problem, session = log.splitlines()
        assert (directory, arguments, problem) == (str(definition), "arguments 0", "oops")
        assert int(session) != os.getsid(0)
        # It may show a password.
        mode = os.stat(os.path.join(pathutils.LOG_OS_DIR, name)).st_mode
        assert stat.S_IMODE(mode) == 0o600

    #: Prints exactly what it is given, and itself.
    SHOWS_ENVIRONMENT = "#!/bin/cat /proc/self/environ\n"

    @pytest.mark.parametrize(
        ("script", "own"),
        [
            ("create", {}),
            ("reinstall", {"INSTANCE_REINSTALL": "1"}),
            ("rename", {"OLD_INSTANCE_NAME": "old.example.com"}),
        ],
    )
    @pytest.mark.parametrize("version", [10, 15])
    def test_environment(self, definition, instance, monkeypatch, version, script, own):
        """Nothing of the daemon's own."""
        monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
        (definition / "ganeti_api_version").write_text(f"{version}\n")
        if script == "rename":
            (definition / "rename").write_text(self.SHOWS_ENVIRONMENT)
            os_scripts.RunRenameInstance(instance, "old.example.com", 3)
        else:
            (definition / "create").write_text(self.SHOWS_ENVIRONMENT)
            os_scripts.InstanceOsAdd(instance, script == "reinstall", 3)
        log = self._Log()[1].removesuffix(self.SHOWS_ENVIRONMENT)
        found = dict(item.split("=", 1) for item in log.split("\0") if item)
        expected = os_scripts.OSEnvironment(instance, os_defs.FindOS("debian"), 3)
        assert found == {**expected, **own}

    def test_verify_judges_first(self, definition, instance):
        """Version 20: with an argument, and nothing of the instance."""
        (definition / "ganeti_api_version").write_text("20\n")
        (definition / "parameters.list").write_text("")
        self._Script(definition, "create", "echo created")
        self._Script(definition, "verify", 'echo "judging $*"; env | grep INSTANCE; exit 0')
        (definition / "verify").chmod(0o755)
        os_scripts.InstanceOsAdd(instance, False, 0)
        assert self._Log()[1] == "judging parameters\ncreated\n"
        self._Script(definition, "verify", 'echo "no variant $OS_VARIANT" >&2; exit 1')
        with pytest.raises(errors.RPCFail, match=r"OS verify script failed") as excinfo:
            os_scripts.InstanceOsAdd(instance, False, 0)
        assert str(excinfo.value).endswith("no variant lenny")

    def test_hanging_script(self, definition, instance, monkeypatch):
        """It is ended with all of its session when its time is over."""
        monkeypatch.setattr(os_scripts, "ReadTimeout", lambda: 0.3)
        body = "timeout 86399 sleep 86401 & echo $$ waits; sleep 86402"
        self._Script(definition, "create", body)
        with pytest.raises(errors.RPCFail, match=r"timeout of 0\.3 s reached") as excinfo:
            os_scripts.InstanceOsAdd(instance, False, 0)
        (session,) = [line.split()[0] for line in self._Log()[1].splitlines() if "waits" in line]
        assert f"{session} waits" in str(excinfo.value)
        assert child.FindSessionMembers(int(session)) == []

    def test_background_process_is_not_waited_for(self, definition, instance):
        self._Script(definition, "create", "sleep 86403 & echo $$ $!")
        os_scripts.InstanceOsAdd(instance, False, 0)
        os.kill(int(self._Log()[1].split()[1]), signal.SIGKILL)

    def test_chatty_script(self, definition, instance, monkeypatch):
        monkeypatch.setattr(os_scripts, "_MAX_LOG", 2000)
        self._Script(definition, "create", "seq 1 30000; exit 3")
        with pytest.raises(errors.RPCFail) as excinfo:
            os_scripts.InstanceOsAdd(instance, False, 0)
        log = self._Log()[1]
        assert len(log) < 2100
        assert log.startswith("1\n2\n")
        assert " bytes left out ...]\n" in log
        assert log.endswith("\n30000\n")
        assert str(excinfo.value).splitlines()[-20:] == [str(n) for n in range(29981, 30001)]

    @pytest.mark.parametrize(
        ("content", "create", "rename"),
        [
            (None, 4 * 3600, 3540),
            ("600\n", 600, 600),
            ("86400", 86340, 3540),
            ("soon", 4 * 3600, 3540),
            ("-1", 4 * 3600, 3540),
        ],
    )
    def test_time_limit(self, definition, instance, content, create, rename):
        """The administrator's; but a node answers before its master gives up."""
        if content is not None:
            os.makedirs(os.path.dirname(pathutils.OS_TIMEOUT_FILE), exist_ok=True)
            with open(pathutils.OS_TIMEOUT_FILE, "w", encoding="ascii") as fobj:
                fobj.write(content)
        assert os_scripts._GetTimeout("instance_os_add") == create
        assert os_scripts._GetTimeout("instance_run_rename") == rename

    def test_failure_shows_the_end_of_the_log(self, definition, instance):
        self._Script(definition, "create", "seq 1 100; exit 3")
        with pytest.raises(errors.RPCFail) as excinfo:
            os_scripts.InstanceOsAdd(instance, False, 0)
        text = str(excinfo.value)
        name, _ = self._Log()
        assert f"exit code 3), last lines in the log file {pathutils.LOG_OS_DIR}/{name}:" in text
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
