"""gnt-instance and gnt-backup: what each option makes of the opcode, what is refused and how."""

import json
import subprocess
import sys

import pytest

from ganeti import constants, errors, opcodes
from ganeti.client import (
    console,
    gnt_backup,
    gnt_instance,
    instance_create,
    instance_info,
    instance_select,
    jobs,
    parser,
)
from ganeti.rapi import fake

INST = "web1.example.com"
NODE1 = "node1.example.com"
NODE2 = "node2.example.com"


class Client(fake.FakeClient):
    """What the commands need beyond what the remote API does."""

    def SubmitJob(self, ops):
        return super().SubmitJob([op.__getstate__() for op in ops])

    def SubmitManyJobs(self, all_ops):
        if self._master.info.get("refuse"):
            return [[False, "the queue is full"] for _ in all_ops]
        return [[True, self.SubmitJob(ops)] for ops in all_ops]

    def QueryJobs(self, job_ids, fields):
        rows = super().QueryJobs(job_ids, [f for f in fields if f != "opstatus"])
        if "opstatus" not in fields:
            return rows
        (row,) = rows
        return [[row[0], [row[0]] * len(row[1]), row[1]]]

    def QueryExports(self, nodes, use_locking):
        self._Record("QueryExports", (nodes, use_locking))
        return self._master.info["exports"]


class World:
    """The commands, a master in memory and a user at a terminal."""

    def __init__(self, monkeypatch, capsys):
        self.master = fake.FakeMaster()
        self.master.instances = [
            {"name": f"web{n}.example.com", "tags": tags}
            for n, tags in ((1, ["www"]), (2, ["www", "old"]), (10, ["old"]), (3, []))
        ]
        self.master.nodes = [
            {
                "name": NODE1,
                "pinst_list": ["web1.example.com", "web10.example.com"],
                "sinst_list": ["web2.example.com"],
                "tags": ["rack:a"],
            },
            {
                "name": NODE2,
                "pinst_list": ["web2.example.com"],
                "sinst_list": ["web1.example.com"],
                "tags": ["rack:b"],
            },
        ]
        self.answer = False
        self.questions = []
        self.capsys = capsys
        monkeypatch.setattr(jobs, "GetClient", lambda: Client(self.master))
        monkeypatch.setattr(console, "AskUser", self._Ask)

    def _Ask(self, text, choices=None, terminal=None):
        self.questions.append(text)
        return self.answer

    def Run(self, *argv):
        """Exit status, standard output, standard error."""
        module = gnt_backup if argv[0] in ("export", "import") else gnt_instance
        try:
            status = module.Main(["gnt-x", *argv])
        except SystemExit as err:
            status = err.code
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def Op(self, *argv):
        """The one opcode that a command submits, without what every opcode has."""
        before = len(self.master.submitted)
        status, _, err = self.Run(*argv)
        assert status == 0, err
        ((op,),) = self.master.submitted[before:]
        opcodes.OpCode.LoadOpCode(op)
        assert op.pop("debug_level") == 0
        assert op["dry_run"] == ("--dry-run" in argv)
        if not op["dry_run"]:
            del op["dry_run"]
        return op

    def Refused(self, *argv):
        """Standard error of a command that submits nothing."""
        status, out, err = self.Run(*argv)
        assert status == 1
        assert out == ""
        assert not self.master.submitted
        return err

    def Result(self, *results):
        """How coming jobs end."""
        self.master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, list(results))


@pytest.fixture
def world(monkeypatch, capsys):
    return World(monkeypatch, capsys)


def _With(op_id, **params):
    return {"OP_ID": op_id, "instance_name": INST, **params}


#: Command line -> its opcode.
_NO_CHOICE = {"target_node": None, "iallocator": None}

SINGLE = [
    (
        ["remove", "-f", "--ignore-failures", "--shutdown-timeout=3", INST],
        _With("OP_INSTANCE_REMOVE", ignore_failures=True, shutdown_timeout=3),
    ),
    (
        ["rename", "--no-ip-check", INST, "new"],
        _With("OP_INSTANCE_RENAME", new_name="new", ignore_ip=True),
    ),
    (["rename", INST, "new"], _With("OP_INSTANCE_RENAME", new_name="new", ignore_ip=False)),
    (
        ["failover", "-f", "--ignore-consistency", INST],
        _With("OP_INSTANCE_FAILOVER", ignore_consistency=True, shutdown_timeout=120, **_NO_CHOICE),
    ),
    (
        ["failover", "-f", "-n", NODE2, INST],
        _With(
            "OP_INSTANCE_FAILOVER",
            ignore_consistency=False,
            shutdown_timeout=120,
            target_node=NODE2,
            iallocator=None,
        ),
    ),
    (
        ["migrate", "-f", INST],
        _With("OP_INSTANCE_MIGRATE", live=True, cleanup=False, **_NO_CHOICE),
    ),
    (
        ["migrate", "-f", "--non-live", "--cleanup", INST],
        _With("OP_INSTANCE_MIGRATE", live=False, cleanup=True, **_NO_CHOICE),
    ),
    (
        ["migrate", "-f", "-I", "hail", INST],
        _With("OP_INSTANCE_MIGRATE", live=True, cleanup=False, target_node=None, iallocator="hail"),
    ),
    (
        ["move", "-f", "-n", NODE2, "--ignore-consistency", INST],
        _With("OP_INSTANCE_MOVE", target_node=NODE2, shutdown_timeout=120, ignore_consistency=True),
    ),
    (
        ["activate-disks", "--ignore-size", INST],
        _With("OP_INSTANCE_ACTIVATE_DISKS", ignore_size=True),
    ),
    (["activate_block_devs", INST], _With("OP_INSTANCE_ACTIVATE_DISKS", ignore_size=False)),
    (["deactivate-disks", INST], _With("OP_INSTANCE_DEACTIVATE_DISKS")),
    (["recreate-disks", INST], _With("OP_INSTANCE_RECREATE_DISKS", disks=[])),
    (["recreate-disks", "--disks", "0,2", INST], _With("OP_INSTANCE_RECREATE_DISKS", disks=[0, 2])),
    (
        ["grow-disk", "--no-wait-for-sync", INST, "1", "1.5g"],
        _With("OP_INSTANCE_GROW_DISK", disk=1, amount=1536, wait_for_sync=False),
    ),
    (
        ["replace-disks", "-p", "--disks=1", "--early-release", INST],
        _With(
            "OP_INSTANCE_REPLACE_DISKS",
            mode="replace_on_primary",
            disks=[1],
            early_release=True,
            remote_node=None,
            iallocator=None,
        ),
    ),
    (
        ["replace_disks", "-n", NODE2, INST],
        _With(
            "OP_INSTANCE_REPLACE_DISKS",
            mode="replace_new_secondary",
            disks=[],
            early_release=False,
            remote_node=NODE2,
            iallocator=None,
        ),
    ),
    (
        ["replace-disks", "-I", "hail", INST],
        _With(
            "OP_INSTANCE_REPLACE_DISKS",
            mode="replace_new_secondary",
            disks=[],
            early_release=False,
            remote_node=None,
            iallocator="hail",
        ),
    ),
    (
        ["add-tags", INST, "a", "b"],
        {"OP_ID": "OP_TAGS_SET", "kind": "instance", "name": INST, "tags": ["a", "b"]},
    ),
    (
        ["export", "-n", NODE2, "--noshutdown", "--dry-run", INST],
        _With(
            "OP_BACKUP_EXPORT",
            target_node=NODE2,
            shutdown=False,
            shutdown_timeout=120,
            dry_run=True,
        ),
    ),
]


class TestSingle:
    """BASE1: commands on one instance."""

    @pytest.mark.parametrize(("argv", "op"), SINGLE)
    def test_opcode(self, world, argv, op):
        assert world.Op(*argv) == op

    @pytest.mark.parametrize("argv", [argv for argv, _ in SINGLE if argv[0] not in ("export",)])
    def test_submit_only(self, world, argv):
        status, out, err = world.Run(argv[0], "--submit", *argv[1:])
        assert (status, out, err) == (0, "", "JobID: 1\n")

    @pytest.mark.parametrize("argv", [argv for argv, _ in SINGLE if "--dry-run" not in argv])
    def test_dry_run(self, world, argv):
        """No command ignores --dry-run or stumbles over its empty result."""
        assert world.Op(argv[0], "--dry-run", *argv[1:])

    @pytest.mark.parametrize("name", ["remove", "failover", "migrate", "move"])
    def test_asks(self, world, name):
        more = ["-n", NODE2] if name == "move" else []
        assert world.Run(name, *more, INST)[0] == 1
        assert not world.master.submitted
        assert len(world.questions) == 1
        world.answer = True
        assert world.Run(name, *more, INST)[0] == 0
        assert len(world.master.submitted) == 1

    @pytest.mark.parametrize("name", ["remove", "failover", "migrate"])
    def test_no_question_about_what_is_not_there(self, world, name):
        assert "unknown_entity" in world.Refused(name, "nosuch")
        assert not world.questions

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["recreate-disks", "--disks=x", INST], ["Invalid disks value", "'x'"]),
            (["grow-disk", INST, "one", "1g"], ["'one'", "wrong_input"]),
            (["grow-disk", INST, "0", "much"], ["much", "wrong_input"]),
            (["replace-disks", INST], ["exactly one"]),
            (["replace-disks", "-p", "-s", INST], ["exactly one"]),
            (["replace-disks", "-n", "a", "-I", "b", INST], ["exactly one"]),
            (["replace-disks", "-a", "--disks=0", INST], ["--disks"]),
            (["replace-disks", "-p", "--disks=0,y", INST], ["0,y"]),
            (["move", "-f", INST], ["-n NODE"]),
            (["export", INST], ["-n NODE"]),
            (["info"], ["--all"]),
            (["info", "--all", INST], ["--all"]),
            (["rename", INST], ["expects 2 argument(s)"]),
            (["remove", INST, "-f"], ["expects 1 argument(s)"]),
        ],
    )
    def test_refused(self, world, argv, words):
        err = world.Refused(*argv)
        for word in words:
            assert word in err

    def test_activate_prints_where(self, world):
        world.Result([[NODE1, "disk/0", "/dev/drbd0"]])
        assert world.Run("activate-disks", INST)[1] == f"{NODE1}:disk/0:/dev/drbd0\n"

    def test_failure(self, world):
        world.master.results = lambda ops: (
            constants.JOB_STATUS_ERROR,
            [["OpExecError", ["it is not implemented yet"]]],
        )
        status, _, err = world.Run("deactivate-disks", INST)
        assert (status, err) == (
            1,
            "Failure: command execution error:\nit is not implemented yet\n",
        )


class TestConsole:
    def test_becomes_the_command(self, world, monkeypatch):
        ran = []

        def _Exec(path, argv):
            ran.append((path, argv))
            raise OSError("not here")

        monkeypatch.setattr(gnt_instance.os, "execvp", _Exec)
        world.Result(["ssh", "-t", "a b"])
        status, out, err = world.Run("console", INST)
        assert ran == [("ssh", ["ssh", "-t", "a b"])]
        assert (status, out) == (1, "")
        assert "ssh -t 'a b'" in err and "not here" in err


def _Create(*argv):
    """Parse the options of add, build the opcode."""
    command = gnt_instance.COMMANDS["add"]
    parsed = parser.ParseCommandLine("gnt-instance", ["add", *argv, "new"], {"add": command}, {})
    return instance_create.BuildCreateOp(parsed.options, parsed.args[0], "create")


def _Import(*argv):
    command = gnt_backup.COMMANDS["import"]
    parsed = parser.ParseCommandLine(
        "gnt-backup", ["import", *argv, "new"], {"import": command}, {}
    )
    return instance_create.BuildCreateOp(parsed.options, parsed.args[0], "import")


class TestCreate:
    """BASE1: from the options to the opcode that creates an instance."""

    def test_everything(self):
        op = _Create(
            *[
                "-t",
                "drbd",
                "-n",
                "a:b",
                "-o",
                "os+x",
                "-s",
                "10g",
                "--no-start",
                "--no-ip-check",
                "--no-name-check",
            ],
            *["--no-wait-for-sync", "--force-variant", "--no-install", "--file-storage-dir=d"],
            *["--file-driver=blktap", "-B", "memory=1g,no_auto_balance", "-H", "kvm:no_acpi"],
            "--net=1:ip=10.0.0.1,link=br0",
        )
        assert op.__getstate__() == {
            "OP_ID": "OP_INSTANCE_CREATE",
            "instance_name": "new",
            "mode": "create",
            "disk_template": "drbd",
            "disks": [{"size": 10240}],
            "nics": [{}, {"ip": "10.0.0.1", "link": "br0"}],
            "pnode": "a",
            "snode": "b",
            "iallocator": None,
            "os_type": "os+x",
            "start": False,
            "ip_check": False,
            "name_check": False,
            "wait_for_sync": False,
            "force_variant": True,
            "no_install": True,
            "file_storage_dir": "d",
            "file_driver": "blktap",
            "beparams": {"memory": 1024, "auto_balance": False},
            "hypervisor": "kvm",
            "hvparams": {"acpi": False},
            "src_node": None,
            "src_path": None,
            "identify_defaults": False,
        }
        op.Validate()

    @pytest.mark.parametrize(
        ("argv", "nics"),
        [
            ([], [{}]),
            (["--no-nics"], []),
            (["--net=0:mac=auto"], [{"mac": "auto"}]),
            (["--no-nics", "--net=0"], [{}]),
            (["--net=2:ip=x", "--net=0"], [{}, {}, {"ip": "x"}]),
        ],
    )
    def test_nics(self, argv, nics):
        assert _Create("-t", "diskless", *argv).nics == nics

    @pytest.mark.parametrize(
        ("argv", "disks"),
        [
            (["--disk=0:size=1g"], [{"size": 1024}]),
            (
                ["--disk=1:size=1,mode=ro", "--disk=0:size=5"],
                [{"size": 8}, {"size": 4, "mode": "ro"}],
            ),
            (["--disk=0:adopt=vol"], [{"adopt": "vol", "size": 0}]),
            (["-t", "diskless"], []),
        ],
    )
    def test_disks(self, argv, disks):
        assert _Create(*argv).disks == disks

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            ([], ["--disk 0:size"]),
            (["-s", "1g", "--disk=0:size=1"], ["-s"]),
            (["-t", "diskless", "-s", "1g"], ["diskless"]),
            (["-t", "diskless", "--disk=0:size=1"], ["diskless"]),
            (["--disk=x:size=1"], ["--disk", "'x'"]),
            (["--disk=no_0"], ["--disk", "'0'"]),
            (["--disk=0"], ["--disk 0"]),
            (["--disk=1:size=1"], ["--disk 0"]),
            (["--disk=0:size=1,adopt=v"], ["--disk 0", "'v'"]),
            (["--disk=0:size=huge"], ["--disk 0", "huge"]),
            (["--disk=0:size=1.2.3"], ["--disk 0", "1.2.3"]),
            (["-s", "1", "--net=eth0"], ["--net", "'eth0'"]),
            (["-s", "1", "-H", "no_kvm"], ["-H", "'kvm'"]),
        ],
    )
    def test_refused_without_an_error_type(self, argv, words):
        with pytest.raises(errors.OpPrereqError) as caught:
            _Create(*argv)
        assert len(caught.value.args) == 1
        for word in words:
            assert word in caught.value.args[0]

    @pytest.mark.parametrize(
        "argv", [["-B", "mem=1"], ["-B", "memory=x"], ["-H", "kvm:colour=red"], ["-B", "memory"]]
    )
    def test_parameter_types(self, argv):
        with pytest.raises(errors.TypeEnforcementError):
            _Create("-t", "diskless", *argv)

    def test_import(self):
        op = _Import("-n", "a", "--src-node=b", "--src-dir=/d", "--identify-defaults")
        assert (op.mode, op.start, op.os_type) == ("import", False, None)
        assert (op.src_node, op.src_path, op.identify_defaults) == ("b", "/d", True)
        assert (op.nics, op.disks, op.disk_template) == ([], [], None)
        op.Validate()

    def test_import_adopts_nothing(self):
        with pytest.raises(errors.OpPrereqError, match="adopt"):
            _Import("--disk=0:adopt=v")


class TestBatch:
    SPEC = {"os": "noop", "template": "plain", "primary_node": NODE1}

    def _Run(self, world, tmp_path, specs):
        path = tmp_path / "specs.json"
        path.write_text(specs if isinstance(specs, str) else json.dumps(specs))
        return world.Run("batch-create", str(path))

    def test_defaults(self, world, tmp_path):
        specs = {"web10": self.SPEC, "web2": self.SPEC}
        assert self._Run(world, tmp_path, specs) == (0, "1: web2\n2: web10\n", "")
        ((op,), _) = world.master.submitted
        assert op["instance_name"] == "web2"
        assert op["disks"] == [{"size": 20480}]
        assert op["nics"] == [{}]
        assert (op["start"], op["ip_check"], op["wait_for_sync"]) == (True, True, True)

    def test_fields(self):
        op = instance_create.BuildBatchOp(
            "a",
            {
                **self.SPEC,
                "template": "drbd",
                "secondary_node": NODE2,
                "disk_size": [512, "1g"],
                "backend": {"memory": "1g"},
                "hypervisor": "kvm",
                "hvparams": {"acpi": "true"},
                "ip": "10.0.0.1",
                "start": False,
            },
        )
        assert op.disks == [{"size": 512}, {"size": 1024}]
        assert op.beparams == {"memory": 1024}
        assert op.hvparams == {"acpi": True}
        assert op.nics == [{"ip": "10.0.0.1"}]
        assert (op.hypervisor, op.snode, op.start) == ("kvm", NODE2, False)

    def test_nodes_are_left_to_the_cluster(self):
        """Its default allocator chooses them, if there is one."""
        op = instance_create.BuildBatchOp("a", {**self.SPEC, "primary_node": None})
        assert (op.pnode, op.iallocator) == (None, None)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"os": None}, '"os"'),
            ({"template": None}, '"template"'),
            ({"template": "nosuch"}, "nosuch"),
            ({"iallocator": "hail"}, "primary_node"),
            ({"template": "drbd"}, "secondary_node"),
            ({"disk_size": 10}, "disk_size"),
            ({"disk_size": ["x"]}, "disk_size"),
            ({"backend": []}, "backend"),
            ({"backend": {"mem": 1}}, "mem"),
            ({"hvparams": "acpi"}, "hvparams"),
            ({"hypervisor": {"kvm": {}}}, "hypervisor"),
            ({"nics": {}}, "nics"),
            ({"nics": [{}], "ip": "x"}, "ip"),
            ({"start": "yes"}, "start"),
        ],
    )
    def test_one_wrong_entry_stops_all(self, world, tmp_path, changes, word):
        specs = {"a": self.SPEC, "b": {**self.SPEC, **changes}}
        status, _, err = self._Run(world, tmp_path, specs)
        assert status == 1
        assert "Instance 'b'" in err and word in err
        assert not world.master.submitted

    @pytest.mark.parametrize("content", ["{", "[]", '"x"'])
    def test_no_specifications(self, world, tmp_path, content):
        status, out, err = self._Run(world, tmp_path, content)
        assert (status, out) == (1, "")
        assert "instance definition file" in err

    def test_missing_file(self, world):
        assert "Can't parse" in world.Refused("batch-create", "/nosuch/file")

    def test_unknown_fields_are_told(self, world, tmp_path):
        _, _, err = self._Run(world, tmp_path, {"a": {**self.SPEC, "disk_sise": [1]}})
        assert "disk_sise" in err

    def test_refused_submission(self, world, tmp_path):
        world.master.info["refuse"] = True
        status, out, err = self._Run(world, tmp_path, {"a": self.SPEC})
        assert (status, out) == (1, "")
        assert err == "Failure for a: the queue is full\n"


WEB1, WEB2, WEB3, WEB10 = (f"web{n}.example.com" for n in (1, 2, 3, 10))


class TestSelection:
    """BASE1: which instances a command is about."""

    @pytest.mark.parametrize(
        ("argv", "names"),
        [
            ([WEB2, WEB1, WEB2], [WEB1, WEB2]),
            (["--all"], [WEB1, WEB2, WEB3, WEB10]),
            (["--node", NODE1], [WEB1, WEB2, WEB10]),
            (["--primary", NODE1], [WEB1, WEB10]),
            (["--secondary", NODE1, NODE2], [WEB1, WEB2]),
            (["--tags", "old", "x"], [WEB2, WEB10]),
            (["--node-tags", "rack:b"], [WEB1, WEB2]),
            (["--pri-node-tags", "rack:b"], [WEB2]),
            (["--sec-node-tags", "rack:b"], [WEB1]),
            # The last one counts
            (["--all", "--tags", "--instance", WEB3], [WEB3]),
            (["--instance", "--primary", NODE2], [WEB2]),
        ],
    )
    @pytest.mark.parametrize("command", ["startup", "stop", "reboot", "reinstall"])
    def test_selected(self, world, command, argv, names):
        force = ["-f"] if command in ("startup", "reinstall") else []
        status, out, err = world.Run(command, *force, "--force-multiple", "--submit", *argv)
        assert (status, err) == (0, "")
        assert out == "".join(f"{number}: {name}\n" for number, name in enumerate(names, 1))
        assert [op["instance_name"] for (op,) in world.master.submitted] == names
        assert not world.questions

    @pytest.mark.parametrize(
        ("argv", "word"),
        [
            ([], "No instance names"),
            (["--node"], "No node names"),
            (["--tags"], "No tags"),
            (["--all", "x"], "--all"),
            (["--tags", "nosuch"], "does not match any"),
            (["--sec-node-tags", "nosuch"], "does not match any"),
        ],
    )
    def test_nothing_selected(self, world, argv, word):
        err = world.Refused("shutdown", *argv)
        assert word in err and "wrong_input" in err

    @pytest.mark.parametrize(
        ("argv", "asks"),
        [
            ([WEB1], False),
            ([WEB1, WEB2], True),
            (["--pri-node-tags", "rack:b"], True),
            (["--force-multiple", "--all"], False),
        ],
    )
    def test_question(self, world, argv, asks):
        status, _, _ = world.Run("shutdown", *argv)
        assert len(world.questions) == int(asks)
        assert status == int(asks)
        assert bool(world.master.submitted) is not asks

    def test_failed_jobs_fail_the_command(self, world):
        """JobExecutor: usable in scripts."""
        world.master.results = lambda ops: (
            (constants.JOB_STATUS_ERROR, [["OpExecError", ["broken"]]])
            if ops[0]["instance_name"] == WEB2
            else (constants.JOB_STATUS_SUCCESS, [None])
        )
        status, out, err = world.Run("startup", "--force-multiple", WEB1, WEB2)
        assert status == 1
        assert out.splitlines()[0] == "Submitted jobs 1, 2"
        assert err.startswith(f"Job 2 for {WEB2} has failed: ")

    def test_fields(self, world):
        assert world.Op("startup", "-f", "-H", "acpi=true", "-B", "memory=64", WEB1) == _With(
            "OP_INSTANCE_STARTUP",
            force=True,
            hvparams={"acpi": "true"},
            beparams={"memory": "64"},
        )
        assert world.Op("start", WEB1) == _With("OP_INSTANCE_STARTUP", force=False)
        assert world.Op("shutdown", "--timeout=7", WEB1) == _With("OP_INSTANCE_SHUTDOWN", timeout=7)
        assert world.Op("reboot", "-t", "full", "--ignore-secondaries", WEB1) == _With(
            "OP_INSTANCE_REBOOT",
            reboot_type="full",
            ignore_secondaries=True,
            shutdown_timeout=120,
        )

    def test_several_with_another_client(self, world):
        names = instance_select.ExpandMultiNames("all", [], Client(world.master))
        assert names == [WEB1, WEB2, WEB3, WEB10]


class TestReinstall:
    @pytest.mark.parametrize(
        ("argv", "asks"),
        [
            ([WEB1], True),
            (["-f", WEB1], False),
            (["-f", WEB1, WEB2], True),
            (["--force-multiple", WEB1, WEB2], True),
            (["-f", "--force-multiple", WEB1, WEB2], False),
        ],
    )
    def test_question(self, world, argv, asks):
        status, _, _ = world.Run("reinstall", *argv)
        assert (status, len(world.questions)) == (int(asks), int(asks))
        if asks:
            assert "REMOVE all data" in world.questions[0]
            assert not world.master.submitted

    def test_other_os(self, world):
        op = world.Op("reinstall", "-f", "-o", "noop+x", "--force-variant", WEB1)
        assert (op["os_type"], op["force_variant"]) == ("noop+x", True)

    def test_select(self, world):
        rows = [["zeta", True, []], ["deb", True, ["b", "a"]], ["bad", False, []]]
        world.Result(rows)
        world.answer = "deb+a"
        status, out, _ = world.Run("reinstall", "-f", "--select-os", "-o", "ignored", WEB1)
        assert status == 0
        assert out.splitlines()[:4] == [
            "Available OS templates:",
            "  0: deb+a",
            "  1: deb+b",
            "  2: zeta",
        ]
        assert world.master.submitted[-1][0]["os_type"] == "deb+a"

    def test_select_nothing(self, world):
        world.Result([["zeta", True, []]])
        world.answer = None
        status, _, err = world.Run("reinstall", "-f", "--select-os", WEB1)
        assert status == 1
        assert "aborted" in err
        world.Result([])
        status, out, err = world.Run("reinstall", "-f", "--select-os", WEB1)
        assert (status, err) == (1, "")
        assert "operating systems" in out


class TestModify:
    def test_everything(self, world):
        op = world.Op(
            *[
                "modify",
                "-B",
                "memory=default,vcpus=2",
                "-H",
                "acpi=Default,-pae,kernel_path=/k",
                "-f",
            ],
            *[
                "-o",
                "noop",
                "--force-variant",
                "--net",
                "add:ip=1",
                "--net",
                "0:ip=none,mac=generate",
            ],
            *["--disk", "add:size=1g,mode=ro", "--disk", "1:mode=rw", "--disk", "remove", INST],
        )
        assert op == _With(
            "OP_INSTANCE_SET_PARAMS",
            beparams={"memory": "default", "vcpus": 2},
            hvparams={"acpi": "default", "pae": "default", "kernel_path": "/k"},
            nics=[["add", {"ip": "1"}], [0, {"ip": "none", "mac": "generate"}]],
            disks=[["add", {"size": 1024, "mode": "ro"}], [1, {"mode": "rw"}], ["remove", {}]],
            disk_template=None,
            remote_node=None,
            os_name="noop",
            force_variant=True,
            force=True,
        )

    def test_convert(self, world):
        op = world.Op("modify", "-t", "drbd", "-n", NODE2, INST)
        assert (op["disk_template"], op["remote_node"]) == ("drbd", NODE2)
        assert world.Op("modify", "-t", "plain", INST)["disk_template"] == "plain"

    def test_result(self, world):
        world.Result([["be/memory", 256], ["nic.ip/0", None]])
        _, out, _ = world.Run("modify", "-B", "memory=256", "web1")
        lines = out.splitlines()
        assert lines[:3] == [
            "Modified instance web1",
            " - be/memory -> 256",
            " - nic.ip/0 -> None",
        ]
        assert "next start" in lines[3]
        world.Result([])
        assert world.Run("modify", "-o", "noop", "web1")[1] == ""

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            ([], ["at least one"]),
            (["-f"], ["at least one"]),
            (["-t", "drbd"], ["-n NODE"]),
            (["-B", "mem=1"], ["Parameter Error", "mem"]),
            (["-H", "acpi=maybe"], ["Parameter Error", "maybe"]),
            (["--disk", "add"], ["--disk add", "size"]),
            (["--disk", "add:size=x"], ["--disk add", "wrong_input"]),
            (["--disk", "first:mode=ro"], ["'first'", "wrong_input"]),
            (["--net", "no_0"], ["--net", "'0'"]),
            (["--net", "eth0:ip=1"], ["--net", "'eth0'"]),
            (["--net", "0:link=none"], ["link", "wrong_input"]),
        ],
    )
    def test_refused(self, world, argv, words):
        err = world.Refused("modify", *argv, INST)
        for word in words:
            assert word in err


def _Disk(**changes):
    disk = {
        "iv_name": "disk/0",
        "dev_type": "drbd8",
        "logical_id": [NODE1, NODE2, 11000, 0, 1, "very secret"],
        "physical_id": None,
        "pstatus": ["/dev/drbd0", 147, 0, 12.5, 3, True, 1],
        "sstatus": ["/dev/drbd1", 147, 1, None, None, False, 1],
        "mode": "rw",
        "size": 1024,
        "children": [
            {
                "iv_name": None,
                "dev_type": "lvm",
                "logical_id": ["xenvg", "data"],
                "physical_id": None,
                "pstatus": ["/dev/xenvg/data", 253, 0, None, None, False, 1],
                "sstatus": ["/dev/xenvg/data", 253, 1, None, None, True, 3],
                "mode": "rw",
                "size": 1024,
                "children": [],
            }
        ],
    }
    disk.update(changes)
    return disk


def _Info(**changes):
    info = {
        "name": INST,
        "uuid": "u",
        "serial_no": 4,
        "ctime": None,
        "mtime": None,
        "config_state": "up",
        "run_state": "down",
        "pnode": NODE1,
        "snodes": [NODE2],
        "os": "noop",
        "network_port": 11001,
        "hypervisor": "kvm",
        "hv_instance": {"acpi": False},
        "hv_actual": {"vnc_bind_address": "0.0.0.0", "acpi": False, "kernel_path": "/k"},
        "be_instance": {},
        "be_actual": {"memory": 128, "vcpus": 1},
        "nics": [[None, "aa:00", "bridged", "br0"]],
        "disk_template": "drbd",
        "disks": [_Disk()],
    }
    info.update(changes)
    return info


class TestInfo:
    """BASE1: the long description."""

    def test_drbd(self):
        lines = instance_info.DescribeInstance(_Info(), static=False)
        assert lines == [
            "Instance name: web1.example.com",
            "UUID: u",
            "Serial number: 4",
            "Creation time: N/A",
            "Modification time: N/A",
            "State: configured to be up, actual state is down",
            "  Nodes:",
            "    - primary: node1.example.com",
            "    - secondaries: node2.example.com",
            "  Operating system: noop",
            "  Allocated network port: 11001",
            "  Hypervisor: kvm",
            "    - console connection: vnc to node1.example.com:11001 (display 5101)",
            "    - acpi: False",
            "    - kernel_path: default (/k)",
            "    - vnc_bind_address: default (0.0.0.0)",
            "  Hardware:",
            "    - VCPUs: 1",
            "    - memory: 128MiB",
            "    - NICs:",
            "      - nic/0: MAC: aa:00, IP: None, mode: bridged, link: br0",
            "  Disks:",
            "    - disk/0: drbd8, size 1.0G",
            "      access mode:  rw",
            "      nodeA:        node1.example.com, minor=0",
            "      nodeB:        node2.example.com, minor=1",
            "      port:         11000",
            "      on primary:   /dev/drbd0 (147:0) *RECOVERING* 12.50%, ETA 3s, status *DEGRADED*",
            "      on secondary: /dev/drbd1 (147:1) in sync, status ok",
            "      child devices:",
            "        - child 0: lvm, size 1.0G",
            "          access mode:  rw",
            "          logical_id:   xenvg/data",
            "          on primary:   /dev/xenvg/data (253:0)",
            "          on secondary: /dev/xenvg/data (253:1) *FAILED* (failed drive?)",
        ]

    def test_inherited_parameters(self):
        """PR1: of every kind of parameter, what is inherited is marked."""
        disk = _Disk(params_instance={"stripe": 2}, params_actual={"stripe": 2, "stripe_size": 0})
        info = _Info(
            disks=[disk],
            nics_instance=[{"link": "br0"}],
            nics_actual=[{"mode": "bridged", "link": "br0"}],
            be_instance={"vcpus": 1},
            be_actual={"vcpus": 1, "memory": 128, "auto_balance": True},
        )
        lines = instance_info.DescribeInstance(info, static=False)
        assert lines[:-11] == instance_info.DescribeInstance(_Info(disks=[disk]), static=False)
        assert lines[-11:] == [
            "  Parameters:",
            "    - backend:",
            "      - auto_balance: default (True)",
            "      - memory: default (128)",
            "      - vcpus: 1",
            "    - nic/0:",
            "      - link: br0",
            "      - mode: default (bridged)",
            "    - disk/0:",
            "      - stripe: 2",
            "      - stripe_size: default (0)",
        ]

    def test_no_secrets(self):
        for static in (True, False):
            assert "secret" not in "\n".join(instance_info.DescribeInstance(_Info(), static))

    def test_static(self):
        disk = _Disk(pstatus=None, sstatus=None, children=[])
        text = "\n".join(instance_info.DescribeInstance(_Info(disks=[disk]), static=True))
        assert "actual state" not in text
        assert "on primary" not in text

    def test_roman(self):
        lines = instance_info.DescribeInstance(_Info(), static=False, roman=True)
        assert "Serial number: IV" in lines
        assert "    - VCPUs: I" in lines

    @pytest.mark.parametrize(
        ("status", "text"),
        [
            (None, "not active"),
            (["/d", None, None, None, None, False, 1], "/d (N/A:N/A) in sync, status ok"),
            (
                ["/d", 1, 2, 5, None, True, 3],
                "/d (1:2) *RECOVERING*  5.00%, ETA unknown, status *DEGRADED* *MISSING DISK*",
            ),
            (
                ["/d", 1, 2, None, None, True, 2],
                "/d (1:2) in sync, status *DEGRADED* *UNCERTAIN STATE*",
            ),
        ],
    )
    def test_disk_status(self, status, text):
        assert instance_info.FormatDiskStatus("drbd8", status) == text

    @pytest.mark.parametrize(
        ("address", "port", "text"),
        [
            ("0.0.0.0", 11000, "vnc to n:11000 (display 5100)"),
            ("127.0.0.1", 11000, "vnc to 127.0.0.1:11000 (node n) (display 5100)"),
            ("/run/vnc", 11000, "vnc to n:/run/vnc"),
            ("", 11000, None),
        ],
    )
    def test_vnc(self, address, port, text):
        assert instance_info.FormatVncConsole("n", address, port) == text

    def test_command(self, world):
        world.Result({name: _Info(name=name) for name in (WEB10, WEB2)})
        status, out, _ = world.Run("info", "--all")
        names = [line for line in out.splitlines() if line.startswith("Instance name")]
        assert (status, names) == (0, [f"Instance name: {WEB2}", f"Instance name: {WEB10}"])
        world.Result({})
        assert world.Run("info", "--all")[:2] == (1, "No instances.\n")
        world.Result(None)
        assert world.Run("info", "--dry-run", "--all")[:2] == (0, "")


class TestExport:
    @pytest.mark.parametrize(
        ("result", "status", "word"),
        [
            ([True, []], 0, None),
            ([True, [True, True]], 0, None),
            ([True, [True, False]], 2, "1 disks backed up, 1 disks failed"),
            ([True, [False]], 1, "No disks"),
            ([False, [True]], 1, "could not be finished"),
            ([False, [True, False]], 1, "Partial"),
            (None, 1, "None"),
            ([True], 1, "[True]"),
            ([True, [None]], 1, "None"),
        ],
    )
    def test_exit_status(self, world, result, status, word):
        world.Result(result)
        found, out, err = world.Run("export", "-n", NODE1, INST)
        assert (found, out) == (status, "")
        assert (word in err) if word else (err == "")

    def test_list(self, world, capsys):
        world.master.info["exports"] = {"node10": ["b10", "b2"], "node2": False}
        assert gnt_backup.Main(["gnt-backup", "list", "-n", "node10", "-n", "node2"]) == 1
        assert capsys.readouterr().out == (
            "Node: node2\nExports:\n  Could not get exports list\n"
            "Node: node10\nExports:\n\tb2\n\tb10\n"
        )
        assert world.master.calls == [("QueryExports", (["node10", "node2"], False))]


#: Modules that a listing has no use for.
HEAVY = [
    "ganeti.opcodes",
    "ganeti.rpc",
    "ganeti.ssh",
    "ganeti.config",
    "ganeti.objects",
    "ganeti.runtime",
    "ganeti.rapi",
    "ganeti.utils.process",
    "asyncio",
    "ssl",
    "pycurl",
    "OpenSSL",
    "logging",
    "subprocess",
    "tempfile",
]

LISTING = """
import sys
from ganeti.client import gnt_instance, jobs
class Client:
    def QueryInstances(self, names, fields, use_locking):
        return [["a", "fake", "noop", "n", "running", 128]]
jobs.GetClient = Client
code = gnt_instance.Main(["gnt-instance", "list"])
print(code, ",".join(sorted(sys.modules)))
"""


def test_a_listing_imports_little():
    """Speed that people feel: a listing has to be there at once."""
    result = subprocess.run(
        [sys.executable, "-c", LISTING], capture_output=True, text=True, check=True
    )
    *table, last = result.stdout.splitlines()
    assert table[1].split() == ["a", "fake", "noop", "n", "running", "128M"]
    code, _, modules = last.partition(" ")
    assert code == "0"
    assert not set(HEAVY).intersection(modules.split(","))
