"""The Xen hypervisors with a scripted xl (BASE2): start, stop, reboot, information, migration."""

import logging
import os

import pytest

from ganeti import constants, errors, hvconsole, objects, pathutils, runtime
from ganeti.hypervisor import hv_xen, linux, xen_migration
from ganeti.runtime import fake
from ganeti.utils import process

NAME = "inst1.example.com"
CONFIG = f"/etc/xen/{NAME}"
PASSWORD_FILE = pathutils.VNC_PASSWORD_FILE


class Xl:
    """Programs of a node with Xen: domains come and go as xl is told.

    Its answers have the form of those in test/data.
    """

    def __init__(self, files):
        self.files = files
        self.domains = {}
        self.calls = []
        self.fails = {}
        self.obedient = True
        self.on_list = lambda: None
        self._next = 1

    def Add(self, name, memory=128, vcpus=1, state="-b----", time=1.0):
        self.domains[name] = [self._next, memory, vcpus, state, time]
        self._next += 1

    def run(self, argv, timeout=None, **_):
        assert timeout, "xl may hang"
        assert argv[0] == "xl"
        command, *args = argv[1:]
        self.calls.append([command, *args])
        if self.fails.get(command, 0) > 0:
            self.fails[command] -= 1
            return self._Result(argv, 1, stderr=f"libxl: error: {command} does not work")
        return self._Result(argv, *getattr(self, f"_{command.replace('-', '_').title()}")(*args))

    @staticmethod
    def _Result(argv, code=0, stdout="", stderr=""):
        return process.RunResult(" ".join(argv), code, stdout=stdout, stderr=stderr)

    def _List(self):
        self.on_list()
        rows = {
            "Domain-0": [0, 750, 4, "r-----", 11794.3],
            **self.domains,
            "(null)": [9, 0, 1, "--ps-d", 0.1],
        }
        lines = [f"{name:40} {' '.join(map(str, row))}" for name, row in rows.items()]
        return 0, "\n".join(["Name ID Mem VCPUs State Time(s)", *lines, ""])

    def _Info(self):
        return 0, "nr_cpus : 4\ntotal_memory : 6141\nfree_memory : 4274\nnr_nodes : 2\n"

    def _Create(self, path):
        content = self.files.read(path).decode()
        assert self.files.stat(path).mode & 0o777 == 0o600
        self.Add(content.split("name = '")[1].split("'")[0])
        return (0,)

    def _Gone(self, name):
        for key, row in list(self.domains.items()):
            if name in (key, str(row[0])):
                del self.domains[key]
                return (0,)
        return 1, "", f"{name} is an invalid domain identifier (rc=-6)"

    _Destroy = _Gone

    def _Shutdown(self, *args):
        if args[-1] in self.domains and not self.obedient:
            return (0,)
        return self._Gone(args[-1])

    def _Reboot(self, *args):
        return (0,)

    def _Rename(self, domid, name):
        (old,) = [key for key, row in self.domains.items() if str(row[0]) == domid]
        self.domains[name] = self.domains.pop(old)
        return (0,)

    def _Resume(self, domid):
        return (0,)


class Node:
    def __init__(self, cls):
        self.files = fake.MemoryFiles()
        for path in ("/etc/xen/auto", "/run/xen", "/etc/ganeti"):
            self.files.mkdir(path)
        self.files.write(PASSWORD_FILE, b"sEcReT\n")
        self.xl = Xl(self.files)
        self.rt = fake.NewRuntime(files=self.files, processes=self.xl)
        self.started = []
        self.killed = []
        self.processes = xen_migration.Processes(
            self._Start, lambda *args: self.killed.append(args)
        )
        self.hv = cls(self.rt, "/etc/xen", "/run/xen", "/cert.pem", self.processes)

    def _Start(self, argv, output):
        self.started.append(argv)
        return 4711

    def Instance(self, name=NAME, **hvparams):
        kind = self.hv.KIND
        return objects.Instance(
            name=name,
            hypervisor=kind,
            primary_node="node1.example.com",
            network_port=11000,
            hvparams={**constants.HVC_DEFAULTS[kind], **hvparams},
            beparams={"memory": 128, "vcpus": 1, "auto_balance": True},
            nics=[objects.NIC(mac="aa:0", ip=None, nicparams={"mode": "routed", "link": "x"})],
            disks=[],
        )

    def Start(self, instance=None, disks=()):
        self.hv.StartInstance(instance or self.Instance(), disks)


@pytest.fixture(params=[hv_xen.XenPvmHypervisor, hv_xen.XenHvmHypervisor])
def node(request):
    return Node(request.param)


@pytest.fixture
def pvm():
    return Node(hv_xen.XenPvmHypervisor)


@pytest.fixture
def hvm():
    return Node(hv_xen.XenHvmHypervisor)


class TestStart:
    """BASE2: an instance is started from a configuration that only root can read."""

    def test_start(self, node):
        node.files.write(f"/etc/xen/auto/{NAME}", b"")
        node.Start()
        assert node.hv.ListInstances() == [NAME]
        assert ["create", CONFIG] in node.xl.calls
        assert not node.files.exists(f"/etc/xen/auto/{NAME}")

    def test_disks_and_cards(self, pvm):
        instance = pvm.Instance()
        instance.nics.append(
            objects.NIC(mac="aa:1", ip="192.0.2.1", nicparams={"mode": "bridged", "link": "br0"})
        )
        disks = [
            (objects.Disk(dev_type=constants.LD_LV, logical_id=("vg", "lv"), mode="rw"), "/l:0"),
            (
                objects.Disk(dev_type=constants.LD_FILE, logical_id=("loop", "/f"), mode="ro"),
                "/l:1",
            ),
            (
                objects.Disk(dev_type=constants.LD_FILE, logical_id=("blktap", "/g"), mode="rw"),
                "/l:2",
            ),
        ]
        pvm.Start(instance, disks)
        text = pvm.files.read(CONFIG).decode()
        assert "vif = ['mac=aa:0', 'mac=aa:1, ip=192.0.2.1, bridge=br0']\n" in text
        assert (
            "disk = ['phy:/l:0,sda,w', 'file:/l:1,sdb,r',"
            " 'format=raw, vdev=sdc, access=w, target=/l:2']\n"
        ) in text

    def test_already_running(self, node):
        node.Start()
        before = node.files.read(CONFIG)
        with pytest.raises(errors.HypervisorError, match="already running .domain 1"):
            node.Start(node.Instance(kernel_path="/other"))
        assert node.files.read(CONFIG) == before

    def test_failure_leaves_nothing(self, node):
        node.xl.fails = {"create": 1}
        with pytest.raises(errors.HypervisorError, match="create does not work"):
            node.Start()
        assert not node.files.exists(CONFIG)

    def test_half_a_failure_keeps_what_is_needed_to_look_after_it(self, node):
        node.xl.fails = {"create": 1}
        node.xl.on_list = lambda: (
            node.files.exists(CONFIG) and node.xl.domains.setdefault(NAME, [5, 1, 1, "--p---", 0.0])
        )
        with pytest.raises(errors.HypervisorError):
            node.Start()
        assert node.files.exists(CONFIG)

    def test_full_disk(self, node):
        node.files.Fail("write", CONFIG)
        with pytest.raises(errors.HypervisorError, match="Can't write the configuration"):
            node.Start()
        assert [call for call in node.xl.calls if call[0] == "create"] == []

    @pytest.mark.parametrize(
        "name", ["../x", "5", "Domain-0", "a--incoming", "a--migratedaway", "(null)"]
    )
    def test_names_with_another_meaning(self, node, name):
        for act in (
            lambda: node.Start(node.Instance(name)),
            lambda: node.hv.StopInstance(None, force=True, name=name),
            lambda: node.hv.CleanupInstance(name),
            lambda: node.hv.GetMigrationStatus(node.Instance(name)),
        ):
            with pytest.raises(errors.HypervisorError, match="nstance name"):
                act()
        assert node.xl.calls == []

    def test_no_xl(self, node, monkeypatch):
        def Run(*_, **__):
            raise errors.OpExecError("Can't execute 'xl': not found")

        monkeypatch.setattr(node.xl, "run", Run)
        with pytest.raises(errors.HypervisorError, match="not found"):
            node.Start()
        assert "not found" in node.hv.Verify()


class TestPassword:
    """The VNC password is in one file, which is for root alone, and nowhere else."""

    def test_nowhere_else(self, hvm, caplog):
        caplog.set_level(logging.DEBUG)
        hvm.Start()
        assert "vncpasswd = 'sEcReT'\n" in hvm.files.read(CONFIG).decode()
        assert "sEcReT" not in str(hvm.xl.calls) + caplog.text
        assert hvm.files.stat(CONFIG).mode & 0o777 == 0o600

    @pytest.mark.parametrize("content", [None, b"\xffsEcReT\n", b"sEcReT\nmore\n"])
    def test_bad_file(self, hvm, content, caplog):
        if content is None:
            hvm.files.remove(PASSWORD_FILE)
        else:
            hvm.files.write(PASSWORD_FILE, content)
        with pytest.raises(errors.HypervisorError) as info:
            hvm.Start()
        assert "sEcReT" not in str(info.value) + caplog.text
        assert not hvm.files.exists(CONFIG)


class TestStop:
    """The configuration stays until the instance has stopped."""

    def test_clean(self, node):
        node.Start()
        node.hv.StopInstance(node.Instance())
        options = ["-F"] if node.hv.KIND == constants.HT_XEN_HVM else []
        assert ["shutdown", *options, NAME] in node.xl.calls
        assert node.files.exists(CONFIG)
        node.hv.CleanupInstance(NAME)
        assert not node.files.exists(CONFIG)

    def test_it_does_not_want_to(self, node):
        node.Start()
        node.xl.obedient = False
        node.hv.StopInstance(node.Instance())
        assert node.hv.ListInstances() == [NAME]
        with pytest.raises(errors.HypervisorError, match="still runs .domain 1"):
            node.hv.CleanupInstance(NAME)
        assert node.files.exists(CONFIG)
        node.hv.StopInstance(node.Instance(), force=True, retry=True)
        assert node.hv.ListInstances() == []

    def test_by_name(self, node):
        node.Start()
        node.hv.StopInstance(None, force=True, name=NAME)
        assert node.hv.ListInstances() == []

    def test_it_has_ended(self, node):
        node.hv.StopInstance(node.Instance())
        node.hv.StopInstance(node.Instance(), force=True)

    @pytest.mark.parametrize("force", [False, True])
    def test_failure(self, node, force):
        node.Start()
        node.xl.fails = {"shutdown": 1, "destroy": 1}
        with pytest.raises(errors.HypervisorError, match="does not work"):
            node.hv.StopInstance(node.Instance(), force=force)
        assert node.files.exists(CONFIG)


class TestReboot:
    """A reboot is over when the domain is another one."""

    @pytest.mark.parametrize("how", ["id", "time"])
    def test_reboot(self, node, how):
        node.Start()
        looks = []

        def OnList():
            looks.append(1)
            if len(looks) == 3:
                gone.append(node.xl.domains.pop(NAME))
            if len(looks) == 5:
                row = gone.pop()
                node.xl.domains[NAME] = [
                    row[0] + (how == "id"),
                    *row[1:4],
                    1.0 if how == "id" else 0.5,
                ]

        gone = []
        node.xl.on_list = OnList
        node.hv.RebootInstance(node.Instance())
        assert len(looks) == 5

    def test_it_does_not_reboot(self, node):
        node.Start()
        start = node.rt.clock.monotonic()
        with pytest.raises(errors.HypervisorError, match="did not within 600 seconds"):
            node.hv.RebootInstance(node.Instance())
        assert 599 < node.rt.clock.monotonic() - start < 620

    def test_not_running(self, node):
        with pytest.raises(errors.HypervisorError, match="not running"):
            node.hv.RebootInstance(node.Instance())

    def test_refused(self, node):
        node.Start()
        node.xl.fails = {"reboot": 1}
        with pytest.raises(errors.HypervisorError, match="reboot does not work"):
            node.hv.RebootInstance(node.Instance())


class TestFacts:
    def test_instances(self, node):
        node.Start()
        node.xl.Add("inst2.example.com--incoming")
        assert node.hv.GetAllInstancesInfo() == [(NAME, 1, 128, 1, "-b----", 1.0)]
        assert node.hv.GetInstanceInfo(NAME) == (NAME, 1, 128, 1, "-b----", 1.0)
        assert node.hv.GetInstanceInfo("inst2.example.com") is None
        assert node.hv.GetInstanceInfo("Domain-0")[2] == 750

    def test_xl_fails_for_a_while(self, node):
        node.xl.fails = {"list": 3}
        assert node.hv.ListInstances() == []
        node.xl.fails = {"list": 99}
        with pytest.raises(errors.HypervisorError, match="list does not work"):
            node.hv.ListInstances()

    def test_node(self, node):
        assert node.hv.GetNodeInfo() == {
            "memory_total": 6141,
            "memory_free": 4274,
            "memory_dom0": 750,
            "cpu_total": 4,
            "cpu_nodes": 2,
        }
        assert node.hv.Verify() is None
        node.xl.fails = {"info": 2}
        assert "info does not work" in node.hv.Verify()
        with pytest.raises(errors.HypervisorError, match="info does not work"):
            node.hv.GetNodeInfo()

    def test_console(self, node):
        instance = node.Instance()
        serial = "-t serial " if node.hv.KIND == constants.HT_XEN_HVM else ""
        assert node.hv.GetShellCommandForConsole(instance, instance.hvparams, {}) == (
            f"xl console {serial}{NAME}"
        )
        assert hvconsole.GetShellCommand(node.hv.KIND, instance, {}).startswith("xl console")

    def test_powercycle(self, node, monkeypatch):
        """The hypervisor is told even if Linux can't restart the node."""
        told = []

        def Fail():
            told.append("linux")
            raise errors.HypervisorError("no way")

        monkeypatch.setattr(linux, "Powercycle", Fail)
        monkeypatch.setattr(hv_xen.pathutils, "IsVirtual", lambda: False)
        monkeypatch.setattr(
            type(node.hv), "_Xl", lambda self, *args, **_: told.append(args) or Xl._Result(["xl"])
        )
        type(node.hv).PowercycleNode()
        assert told == ["linux", ("debug-keys", "R")]

    def test_a_virtual_node_is_left_alone(self, node, monkeypatch):
        monkeypatch.setattr(type(node.hv), "_Xl", lambda *_, **__: pytest.fail("ran xl"))
        type(node.hv).PowercycleNode()


class TestMigrationJudgement:
    """MG: what is said of a migration, from what is left of it."""

    @pytest.mark.parametrize(
        ("status", "alive", "started", "cancelled", "log", "expected", "message"),
        [
            (None, False, False, False, "", "failed", "no migration was started"),
            (None, True, True, False, "", "active", "has started"),
            (None, True, True, False, "a\rFrames 1/2 50%\r", "active", "Frames 1/2 50%"),
            (None, True, True, True, "", "active", ""),
            ("0\n", False, True, False, "x", "completed", ""),
            # It was too late.
            ("0\n", False, True, True, "x", "completed", ""),
            ("1\n", False, True, False, "resuming at sender", "failed", "resuming at sender"),
            ("7\n", False, True, False, "", "failed", "ended with 7"),
            ("1\n", True, True, True, "cut", "cancelled", "cut"),
            (None, False, True, False, "boom", "failed", "without a result: boom"),
        ],
    )
    def test_judge(self, status, alive, started, cancelled, log, expected, message):
        found = xen_migration.Judge(status, alive, started, cancelled, log)
        assert found.status == expected
        assert message in found.message

    @pytest.mark.parametrize(
        ("endpoint", "parsed"),
        [("192.0.2.1:8010", ("192.0.2.1", 8010)), ("192.0.2.1", ("192.0.2.1", 8002))],
    )
    def test_endpoint(self, endpoint, parsed):
        assert xen_migration.ParseEndpoint(endpoint, 8002) == parsed

    def test_a_process_is_known_by_when_it_began(self):
        """Ids are used again; and one that had ended before it was looked at has ended."""
        own = xen_migration.Identify(os.getpid())
        assert xen_migration.Processes.IsAlive(own)
        pid, began = own.split()
        assert not xen_migration.Processes.IsAlive(f"{pid} {int(began) - 1}")
        for pid in ("0", "4194304"):
            assert not xen_migration.Processes.IsAlive(xen_migration.Identify(int(pid)))
        assert not xen_migration.Processes.IsAlive("")

    def test_commands(self):
        """The stream is encrypted and both ends must show the cluster's certificate."""
        assert xen_migration.ListenCommand("192.0.2.1", 8002, "/c.pem")[1:] == [
            "-d",
            "-d",
            "OPENSSL-LISTEN:8002,bind=192.0.2.1,reuseaddr,fork,cert=/c.pem,cafile=/c.pem,verify=1",
            "EXEC:xl migrate-receive",
        ]
        assert xen_migration.Transport("192.0.2.1", 8002, "/c.pem", "/p").startswith(
            "echo $$ >/p; exec "
        )
        assert "verify=1" in xen_migration.Transport("192.0.2.1", 8002, "/c.pem", "/p")


class TestMigration:
    """MG: each end can be told the outcome at any time and again."""

    def test_only_live(self, node):
        node.Start()
        with pytest.raises(errors.HypervisorError, match="only migrate it while it runs"):
            node.hv.MigrateInstance(node.Instance(), "192.0.2.1:8002", False)

    def test_must_run(self, node):
        with pytest.raises(errors.HypervisorError, match="not running"):
            node.hv.MigrateInstance(node.Instance(), "192.0.2.1:8002", True)

    def test_source_starts_it(self, node, monkeypatch):
        monkeypatch.setattr(hv_xen.hv_base, "MakeDirectories", lambda *_: None)
        node.Start()
        node.hv.MigrateInstance(node.Instance(), "192.0.2.1:8005", True)
        ((shell, option, script, _, config, name, transport, *_),) = node.started
        assert (shell, option, config, name) == ("sh", "-c", CONFIG, NAME)
        assert 'xl migrate -s "" -C "$1" "$2" "$3"' in script
        assert "OPENSSL:192.0.2.1:8005," in transport
        monkeypatch.setattr(xen_migration.Processes, "IsAlive", lambda *_: True)
        assert node.hv.GetMigrationStatus(node.Instance()).status == "active"
        with pytest.raises(errors.HypervisorError, match="migrating already"):
            node.hv.MigrateInstance(node.Instance(), "192.0.2.1:8005", True)

    def test_info_is_the_configuration(self, node):
        node.Start()
        info = node.hv.MigrationInfo(node.Instance())
        assert info == node.files.read(CONFIG).decode()
        node.files.remove(CONFIG)
        with pytest.raises(errors.HypervisorError, match="Can't read the Xen configuration"):
            node.hv.MigrationInfo(node.Instance())

    def test_target_success(self, node):
        node.xl.Add(NAME + "--incoming")
        looks = []

        def OnList():
            looks.append(1)
            if len(looks) == 3:
                node.xl.domains[NAME] = node.xl.domains.pop(NAME + "--incoming")

        node.xl.on_list = OnList
        for _ in range(2):
            node.hv.FinalizeMigration(node.Instance(), "the text", True)
            assert node.files.read(CONFIG) == b"the text"
        assert node.files.stat(CONFIG).mode & 0o777 == 0o600

    def test_target_it_never_comes(self, node):
        with pytest.raises(errors.HypervisorError, match="does not run here"):
            node.hv.FinalizeMigration(node.Instance(), "the text", True)
        assert not node.files.exists(CONFIG)

    def test_target_failure(self, node):
        node.xl.Add(NAME + "--incoming")
        for _ in range(2):
            node.hv.FinalizeMigration(node.Instance(), "", False)
        assert node.xl.domains == {}

    def test_target_failure_but_it_has_arrived(self, node):
        node.xl.Add(NAME)
        with pytest.raises(errors.HypervisorError, match="arrived here all the same"):
            node.hv.FinalizeMigration(node.Instance(), "", False)
        assert NAME in node.xl.domains

    def test_target_refuses_what_runs(self, node):
        node.Start()
        with pytest.raises(errors.HypervisorError, match="running here"):
            node.hv.AcceptInstance(node.Instance(), "", "192.0.2.1")

    @pytest.mark.parametrize("left", [(), (NAME,), (NAME + "--migratedaway",)])
    def test_source_success(self, node, left):
        node.files.write(CONFIG, b"x")
        for name in left:
            node.xl.Add(name)
        for _ in range(2):
            node.hv.FinalizeMigrationSource(node.Instance(), True, True)
        assert node.xl.domains == {}
        assert not node.files.exists(CONFIG)

    def test_source_failure(self, node):
        node.Start()
        node.hv.FinalizeMigrationSource(node.Instance(), False, True)
        assert node.hv.ListInstances() == [NAME]
        assert node.files.exists(CONFIG)

    def test_source_failure_at_the_last_moment(self, node):
        node.files.write(CONFIG, b"x")
        node.xl.Add(NAME + "--migratedaway")
        node.hv.FinalizeMigrationSource(node.Instance(), False, True)
        assert node.xl.calls[-2:] == [["rename", "1", NAME], ["resume", "1"]]
        assert node.hv.ListInstances() == [NAME]
        node.hv.FinalizeMigrationSource(node.Instance(), False, True)
        assert node.hv.ListInstances() == [NAME]

    def test_source_failure_and_old_xl(self, node):
        node.xl.Add(NAME + "--migratedaway", state="---s--")
        node.xl.fails = {"resume": 2}
        for _ in range(2):
            with pytest.raises(errors.HypervisorError, match="reboot it with type hard"):
                node.hv.FinalizeMigrationSource(node.Instance(), False, True)

    def test_source_failure_and_it_is_gone(self, node):
        with pytest.raises(errors.HypervisorError, match="start it again"):
            node.hv.FinalizeMigrationSource(node.Instance(), False, True)


def test_real_files_have_their_mode_from_the_first_byte(tmp_path, monkeypatch):
    """What is written is never readable for others, not even while it is written."""
    modes = []
    real = runtime.DEFAULT.files.write

    node = Node(hv_xen.XenHvmHypervisor)
    monkeypatch.setattr(
        node.files,
        "write",
        lambda path, data, mode=0o600, **kwargs: (
            modes.append(mode) or real(str(tmp_path / "config"), data, mode, **kwargs)
        ),
    )
    node.hv._WriteConfig(NAME, "x")
    assert modes == [0o600]
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
