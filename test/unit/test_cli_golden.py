"""The commands against what a cluster of release 2.1.8 printed.

Columns, streams and exit codes are facts; the wording of errors is not. Where this suite does
better on purpose, the test says so.
"""

import itertools
import json
import os
import pathlib
import re
import shlex
import time

import pytest

from ganeti import bootstrap, constants, errors, rpc, runtime, ssconf, ssh
from ganeti.client import (
    commandlog,
    console,
    fake,
    gnt_cluster,
    gnt_debug,
    gnt_job,
    gnt_node,
    gnt_os,
    jobs,
)
from ganeti.utils import process

_GOLDEN = pathlib.Path(__file__).parent.parent / "data" / "golden" / "cli"
_MODULES = {
    "gnt-cluster": gnt_cluster,
    "gnt-debug": gnt_debug,
    "gnt-job": gnt_job,
    "gnt-node": gnt_node,
    "gnt-os": gnt_os,
}
_NODE = "node1.example.com"


#: What the commands set on every opcode.
_COMMON = {"dry_run": False, "debug_level": 0}


class _Dialogue:
    def __init__(self, command, out, err, code):
        self.command = command
        self.out = out
        self.err = err
        self.code = code


def _Load(name):
    """Dialogues of a file: command -> list of them, as some are there twice."""
    found = {}
    text = (_GOLDEN / name).read_text(encoding="utf-8")
    for part in re.split(r"(?m)^==== ", text)[1:]:
        command, _, rest = part.partition("\n")
        body, _, end = rest.partition("---- exit status ")
        out, _, err = body.partition("---- standard error\n")
        found.setdefault(command, []).append(_Dialogue(command, out, err, int(end.split()[0])))
    return found


_CLUSTER = _Load("cluster.txt")
_NODES = _Load("node.txt")
_JOBS = _Load("job.txt")
_OSES = _Load("os-backup-debug.txt")


def _Time(text):
    """Seconds since the epoch, and microseconds, of a local time."""
    clock, _, micro = text.partition(".")
    seconds = int(time.mktime(time.strptime(clock, "%Y-%m-%d %H:%M:%S")))
    return [seconds, int(micro)] if micro else seconds


_CINFO = {
    "software_version": "2.1.8",
    "protocol_version": 30,
    "config_version": 2010000,
    "os_api_version": 15,
    "export_version": 0,
    "architecture": ["64bit", "x86_64"],
    "name": "cluster.example.com",
    "master": _NODE,
    "uuid": "b4333753-c056-4f85-9cd2-eef35d1733f6",
    "tags": ["eu"],
    "default_hypervisor": "fake",
    "enabled_hypervisors": ["fake"],
    "hvparams": {"fake": {}},
    "os_hvp": {},
    "beparams": {"default": {"auto_balance": True, "memory": 128, "vcpus": 1}},
    "nicparams": {"default": {"link": "lo", "mode": "bridged"}},
    "candidate_pool_size": 10,
    "master_netdev": "lo",
    "volume_group_name": None,
    "file_storage_dir": "/srv/ganeti/file-storage",
    "maintain_node_health": False,
    "uid_pool": [[1000, 1009], [2000, 2000]],
}

_NODE_ROW = {
    "name": _NODE,
    "pinst_cnt": 3,
    "sinst_cnt": 0,
    "pinst_list": ["inst1.example.com", "inst3.example.com", "inst2.example.com"],
    "sinst_list": [],
    "pip": "10.77.0.1",
    "sip": "10.77.0.1",
    "dtotal": None,
    "dfree": None,
    "mtotal": 24105,
    "mnode": 1095,
    "mfree": 23394,
    "bootid": "0ad73df4-3225-4676-9a3c-bf774f47397e",
    "ctotal": 2,
    "cnodes": 1,
    "csockets": 1,
    "tags": ["rack:a1"],
    "serial_no": 2,
    "ctime": None,
    "mtime": None,
    "uuid": "41ce4bcc-d536-4eae-a154-4764bf4fe3a2",
    "master_candidate": True,
    "master": True,
    "offline": False,
    "drained": False,
    "role": "M",
}


class _Shell:
    """Runs commands on a fake master daemon."""

    def __init__(self, monkeypatch, capsys, tmp_path):
        self.cl = fake.FakeClient()
        self.cl.info = {
            **_CINFO,
            "ctime": _Time("2026-11-22 08:36:01"),
            "mtime": _Time("2026-11-22 08:36:05"),
        }
        self.cl.nodes = [{**_NODE_ROW, "mtime": _Time("2026-11-22 08:36:05")}]
        self.cl.tags = {"cluster": ["eu"], _NODE: ["rack:a1"]}
        self.cl.config_values.update(cluster_name="cluster.example.com", master_node=_NODE)
        self.capsys = capsys
        self.asked = []
        monkeypatch.setattr(jobs, "GetClient", lambda: self.cl)
        monkeypatch.setattr(commandlog.CommandLog, "Start", lambda *_: None)
        monkeypatch.setattr(commandlog.CommandLog, "_Write", lambda *_: None)
        monkeypatch.setattr(console, "OpenTerminal", self._NoTerminal)
        monkeypatch.setattr(ssconf, "GetMasterAndMyself", lambda *_: (_NODE, _NODE))

    def _NoTerminal(self):
        self.asked.append(1)

    def Run(self, command):
        """(standard output, standard error, exit code)."""
        argv = shlex.split(command)
        module = _MODULES[argv[0]]
        from ganeti.client import main, tags

        kinds = {"gnt-cluster": constants.TAG_CLUSTER, "gnt-node": constants.TAG_NODE}
        override = {tags.TAG_TYPE: kinds.get(argv[0])}
        try:
            code = main.GenericMain(module.COMMANDS, override=override, argv=argv)
        except SystemExit as err:
            code = err.code
        captured = self.capsys.readouterr()
        return captured.out, captured.err, code

    def Check(self, dialogue, code=None):
        """Output is as it was, errors are on the same stream, the exit code is the same.

        @param code: where ours is another one on purpose
        """
        out, err, found = self.Run(dialogue.command)
        assert out == dialogue.out
        assert bool(err) == bool(dialogue.err), err
        assert found == (dialogue.code if code is None else code)
        return err

    def Submitted(self):
        """The opcodes submitted since the last time."""
        ops, self.cl.submitted = self.cl.submitted, []
        return [op for job in ops for op in job]


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    return _Shell(monkeypatch, capsys, tmp_path)


def _Prereq(code):
    return errors.OpPrereqError("refused", code)


class TestCluster:
    """gnt-cluster."""

    @pytest.mark.parametrize(
        "command",
        [
            "gnt-cluster info",
            "gnt-cluster version",
            "gnt-cluster list-tags",
            "gnt-cluster queue drain",
            "gnt-cluster watcher info",
            "gnt-cluster watcher continue",
            "gnt-cluster modify",
            "gnt-cluster destroy",
            "gnt-cluster masterfailover",
            "gnt-cluster redist-conf",
            "gnt-cluster --version",
        ],
    )
    def test_as_it_was(self, shell, command):
        shell.Check(_CLUSTER[command][0])

    def test_info_roman(self, shell):
        shell.cl.info["diskparams"] = {"default": {"stripe": 2}}
        out, _, code = shell.Run("gnt-cluster info --roman")
        assert code == 0
        assert "candidate pool size: X\n" in out
        assert "uid pool: M-MIX, MM\n" in out
        assert "      memory: CXXVIII\n" in out
        assert out.endswith("Default disk parameters:\n  - default:\n      stripe: II\n")

    def test_getmaster_needs_no_daemon(self, shell, monkeypatch):
        monkeypatch.setattr(jobs, "GetClient", None)
        monkeypatch.setattr(ssconf.SimpleStore, "GetMasterNode", lambda self: _NODE)
        shell.Check(_CLUSTER["gnt-cluster getmaster"][0])

    def test_getmaster_outside_of_a_cluster(self, shell):
        out, err, code = shell.Run("gnt-cluster getmaster")
        assert (out, code) == ("", constants.EXIT_USAGE)
        assert err.startswith("Corrupt configuration file: ")

    def test_verify_says_by_its_exit_code_what_was_found(self, shell):
        dialogue = _CLUSTER["gnt-cluster verify"][0]
        when = _Time("2026-11-22 08:37:13")
        shell.cl.results["OP_CLUSTER_VERIFY"] = False
        shell.cl.logs["OP_CLUSTER_VERIFY"] = [
            (when, line[25:]) for line in dialogue.out.splitlines()
        ]
        shell.Check(dialogue)
        shell.cl.results["OP_CLUSTER_VERIFY"] = True
        assert shell.Run("gnt-cluster verify -v --error-codes --no-nplus1-mem")[2] == 0
        op = shell.Submitted()[-1]
        assert op["skip_checks"] == ["nplusone_mem"]
        assert (op["verbose"], op["error_codes"], op["debug_simulate_errors"]) == (
            True,
            True,
            False,
        )
        shell.cl.results["OP_CLUSTER_VERIFY"] = None
        assert shell.Run("gnt-cluster verify --dry-run")[2] == 0

    def test_verify_as_json(self, shell):
        """What is printed is data: findings with all their parts, and the exit code is the same."""
        lines = [
            "* Verifying global settings",
            "  - ERROR:ECLUSTERCERT:cluster:None:While verifying a.pem: expired",
            "* Verifying node node1.example.com (master)",
            "  - WARNING:ENODEVERSION:node:node1.example.com:odd: very",
            "* Other Notes",
            "  - NOTICE: 2 offline node(s) found.",
            "* Hooks Results",
            "  - ERROR:ENODEHOOKS:node:node1.example.com:Script 10x failed, output:",
            "      one: two",
            "        three",
        ]
        shell.cl.logs["OP_CLUSTER_VERIFY"] = [(0, line) for line in lines]
        shell.cl.results["OP_CLUSTER_VERIFY"] = False
        out, err, code = shell.Run("gnt-cluster verify --json")
        assert (err, code) == ("", 1)
        assert shell.Submitted()[0]["error_codes"] is True
        expected = [
            ("ERROR", "ECLUSTERCERT", "cluster", None, "While verifying a.pem: expired", []),
            ("WARNING", "ENODEVERSION", "node", "node1.example.com", "odd: very", []),
            (
                "ERROR",
                "ENODEHOOKS",
                "node",
                "node1.example.com",
                "Script 10x failed, output:",
                ["one: two", "  three"],
            ),
        ]
        names = ("severity", "code", "type", "item", "message", "output")
        assert json.loads(out) == {
            "good": False,
            "problems": [dict(zip(names, row, strict=True)) for row in expected],
            "notes": ["2 offline node(s) found."],
        }
        shell.cl.results["OP_CLUSTER_VERIFY"] = True
        shell.cl.logs.clear()
        out, _, code = shell.Run("gnt-cluster verify --json")
        assert (json.loads(out), code) == ({"good": True, "problems": [], "notes": []}, 0)

    def test_info_as_json(self, shell):
        out, err, code = shell.Run("gnt-cluster info --json")
        assert (json.loads(out), err, code) == (shell.cl.info, "", 0)

    def test_what_info_shows_modify_takes(self, shell):
        """UP2, and for all else that can be changed: the text of each value is a value."""
        shell.cl.info.update(
            hvparams={"kvm": constants.HVC_DEFAULTS["kvm"], "fake": {}},
            enabled_hypervisors=["kvm", "fake"],
            uid_pool=[[1000, 1009], [2000, 2000]],
            diskparams={"default": constants.DPC_DEFAULTS},
            default_iallocator={"allocate": ["own", "hail"], "relocate": ["own"]},
            volume_group_name="xenvg",
        )
        lines = shell.Run("gnt-cluster info")[0].splitlines()

        def Value(name):
            (found,) = [line for line in lines if line.lstrip(" -").startswith(f"{name}: ")]
            return shlex.quote(found.split(": ", 1)[1])

        def Group(title, name="default"):
            start = lines.index(f"  - {name}:", lines.index(f"{title}:")) + 1
            rows = itertools.takewhile(lambda line: line.startswith("      "), lines[start:])
            return ",".join("{}={}".format(*row.strip().split(":", 1)) for row in rows)

        command = (
            f"gnt-cluster modify --enabled-hypervisors {Value('Enabled hypervisors')}"
            f" -C {Value('candidate pool size')} -g {Value('lvm volume group')}"
            f" --maintain-node-health {Value('maintenance of node health')}"
            f" --uid-pool {Value('uid pool')}"
            f" --default-iallocator {Value('default instance allocator')}"
            f" -H 'kvm:{Group('Hypervisor parameters', 'kvm').replace('= ', '=')}'"
            f" -B '{Group('Default instance parameters').replace('= ', '=')}'"
            f" -N '{Group('Default nic parameters').replace('= ', '=')}'"
            f" -D '{Group('Default disk parameters').replace('= ', '=')}'"
        )
        assert shell.Run(command) == ("", "", 0)
        (op,) = shell.Submitted()
        info = shell.cl.info
        for name in (
            "enabled_hypervisors",
            "candidate_pool_size",
            "maintain_node_health",
            "uid_pool",
            "default_iallocator",
        ):
            assert op[name] == info[name], name
        assert op["vg_name"] == info["volume_group_name"]
        assert op["hvparams"] == {"kvm": info["hvparams"]["kvm"]}
        for name in ("beparams", "nicparams", "diskparams"):
            assert op[name] == info[name]["default"], name
        shell.cl.info["default_iallocator"] = {}
        lines = shell.Run("gnt-cluster info")[0].splitlines()
        shown = Value("default instance allocator")
        assert shell.Run(f"gnt-cluster modify --default-iallocator {shown}")[2] == 0
        assert shell.Submitted()[0]["default_iallocator"] == ""

    def test_search_tags(self, shell):
        shell.cl.results["OP_TAGS_SEARCH"] = [
            ["/nodes/node1.example.com", "rack:a1"],
            ["/cluster", "eu"],
            ["/instances/inst1.example.com", "web"],
        ]
        shell.Check(_CLUSTER["gnt-cluster search-tags ."][0])
        shell.cl.results["OP_TAGS_SEARCH"] = []
        assert shell.Run("gnt-cluster search-tags nosuch") == ("", "", 1)

    def test_drained_queue(self, shell):
        before, drained = _CLUSTER["gnt-cluster queue info"]
        shell.Check(before)
        shell.Check(_CLUSTER["gnt-cluster queue drain"][0])
        shell.Check(drained)
        dialogue = _CLUSTER["gnt-debug delay 0"][0]
        assert shell.Check(dialogue) == dialogue.err
        shell.Check(_CLUSTER["gnt-cluster queue undrain"][0])
        assert shell.cl.config_values["drain_flag"] is False
        assert shell.Run("gnt-cluster queue nosuch")[2] == 1

    def test_watcher_pause(self, shell, monkeypatch):
        now = _Time("2026-11-22 08:37:14")
        monkeypatch.setattr(runtime.DEFAULT.clock, "time", lambda: float(now))
        shell.Check(_CLUSTER["gnt-cluster watcher pause 1h"][0])
        assert shell.cl.config_values["watcher_pause"] == now + 3600
        assert shell.Run("gnt-cluster watcher info")[0] == (
            "The watcher is paused until Sun Nov 22 09:37:14 2026.\n"
        )
        for wrong in (
            "pause",
            "pause x",
            "pause -5",
            "pause 0",
            "nosuch",
            "info 1h",
            "continue 1h",
        ):
            out, err, code = shell.Run(f"gnt-cluster watcher {wrong}")
            assert (out, code) == ("", 1)
            assert "error type: wrong_input" in err

    @pytest.mark.parametrize(
        "command",
        [
            "gnt-cluster modify --uid-pool 5-1",
            "gnt-cluster modify --remove-uids 1005",
            "gnt-cluster modify -C 0",
            "gnt-cluster modify --enabled-hypervisors=nosuch",
        ],
    )
    def test_what_the_master_refuses(self, shell, command):
        shell.cl.results["OP_CLUSTER_SET_PARAMS"] = _Prereq(errors.ECODE_INVAL)
        err = shell.Check(_CLUSTER[command][0])
        assert err.splitlines()[:2] == _CLUSTER[command][0].err.splitlines()[:2]
        assert len(shell.Submitted()) == 1

    def test_what_the_client_refuses(self, shell):
        for command in (
            "gnt-cluster modify -B memory=abc",
            "gnt-cluster modify -B nosuch=1",
            "gnt-cluster modify -N mode",
            "gnt-cluster modify -H kvm:nosuch=1",
            "gnt-cluster modify -H no_kvm",
            "gnt-cluster modify --no-lvm-storage -g xenvg",
            "gnt-cluster modify --default-iallocator nosuch:hail",
            "gnt-cluster modify -g ''",
            "gnt-os modify noop",
            "gnt-os modify -H no_kvm noop",
        ):
            out, err, code = shell.Run(command)
            assert (out, code) == ("", 1), command
            assert err, command
        shell.Check(_CLUSTER["gnt-cluster modify -B memory=abc"][0])
        assert shell.Submitted() == []

    def test_modify(self, shell):
        command = (
            "gnt-cluster modify -B memory=1g,vcpus=default -N link=br1"
            " -H kvm:acpi=false,-boot_order --add-uids 3000-3005,4000 --no-lvm-storage"
            " --maintain-node-health yes -C 3"
            " --enabled-hypervisors=kvm,fake"
        )
        assert shell.Run(command) == ("", "", 0)
        (op,) = shell.Submitted()
        assert op["beparams"] == {"memory": 1024, "vcpus": constants.BEC_DEFAULTS["vcpus"]}
        assert op["nicparams"] == {"link": "br1"}
        boot_order = constants.HVC_DEFAULTS["kvm"]["boot_order"]
        assert op["hvparams"] == {"kvm": {"acpi": False, "boot_order": boot_order}}
        assert op["add_uids"] == [[3000, 3005], [4000, 4000]]
        assert op["uid_pool"] is None
        assert (op["vg_name"], op["candidate_pool_size"]) == ("", 3)
        assert op["maintain_node_health"] is True
        assert op["enabled_hypervisors"] == ["kvm", "fake"]

    def test_an_empty_pool_can_be_asked_for(self, shell):
        assert shell.Run("gnt-cluster modify --uid-pool ''")[2] == 0
        assert shell.Submitted()[0]["uid_pool"] == []

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("--default-iallocator hail", "hail"),
            ("--default-iallocator ''", ""),
            (
                "--default-iallocator allocate:a,b --default-iallocator relocate:c",
                {"allocate": ["a", "b"], "relocate": ["c"]},
            ),
            (
                "--default-iallocator a,b",
                {mode: ["a", "b"] for mode in constants.VALID_IALLOCATOR_MODES},
            ),
        ],
    )
    def test_default_allocators(self, shell, given, expected):
        """IA2: a list per mode."""
        assert shell.Run(f"gnt-cluster modify {given}")[2] == 0
        assert shell.Submitted()[0]["default_iallocator"] == expected

    def test_repair_disk_sizes_tells_what_it_changed(self, shell):
        shell.cl.results["OP_CLUSTER_REPAIR_DISK_SIZES"] = [["i1", 0, 128]]
        assert shell.Run("gnt-cluster repair-disk-sizes i1")[0] == (
            "i1: size of disk 0 is now 128 MiB\n"
        )

    def test_rename_asks(self, shell):
        out, err, code = shell.Run("gnt-cluster rename new.example.com")
        assert (out, code) == ("", 1)
        assert "no terminal" in err
        assert shell.asked
        assert shell.Submitted() == []
        assert shell.Run("gnt-cluster rename -f new.example.com")[2] == 0
        assert shell.Submitted()[0]["name"] == "new.example.com"

    def test_one_certificate_of_rapi(self, shell):
        out, err, code = shell.Run(
            "gnt-cluster renew-crypto --new-rapi-certificate --rapi-certificate x"
        )
        assert (out, code) == ("", 1)
        assert "Only one of" in err


class TestVerifyDisks:
    """gnt-cluster verify-disks."""

    def test_nothing_wrong(self, shell):
        shell.cl.results["OP_CLUSTER_VERIFY_DISKS"] = [{}, [], {}]
        shell.Check(_CLUSTER["gnt-cluster verify-disks"][0])

    def test_everything_wrong(self, shell):
        shell.cl.info["volume_group_name"] = "myvg"
        shell.cl.results["OP_CLUSTER_VERIFY_DISKS"] = [
            {"bad": "x" * 500 + "end"},
            ["i1", "i2", "i3"],
            {"i3": [["n1", "lv1"], ["bad", "lv2"]], "i4": [["bad", "lv3"]]},
        ]
        shell.cl.results["OP_INSTANCE_ACTIVATE_DISKS"] = lambda op: (
            errors.OpExecError("broken") if op["instance_name"] == "i2" else []
        )
        out, err, code = shell.Run("gnt-cluster verify-disks")
        lines = out.splitlines()
        assert lines[0].endswith("x" * 397 + "end")
        assert len(lines[0]) < 450
        assert "Activating disks for instance 'i1'" in lines
        assert "Activating disks for instance 'i3'" not in lines
        assert "Instance i3 has missing logical volumes:" in lines
        assert "\tn1 /dev/myvg/lv1" in lines
        assert "\tbroken node bad /dev/myvg/lv2" in lines
        assert "Instance i4 cannot be verified as it lives on broken nodes" in lines
        assert err.startswith("Error activating disks for instance i2: Failure: command execution")
        assert code == 1

    def test_dry_run_activates_nothing(self, shell):
        shell.cl.results["OP_CLUSTER_VERIFY_DISKS"] = [{}, ["i1"], {}]
        assert shell.Run("gnt-cluster verify-disks --dry-run")[2] == 0
        assert [op["OP_ID"] for op in shell.Submitted()] == ["OP_CLUSTER_VERIFY_DISKS"]


class TestLifeOfACluster:
    """gnt-cluster init and destroy: what happens before and after the master daemon is there."""

    def test_init(self, shell, monkeypatch):
        made = []
        monkeypatch.setattr(bootstrap, "InitCluster", made.append)
        command = (
            "gnt-cluster init --no-lvm-storage --no-ssh-init --no-etc-hosts --master-netdev lo"
            " --enabled-hypervisors fake,kvm -B memory=256 -H kvm:acpi=false -s 10.0.0.1"
            " --uid-pool 1000-1009 -m AA:00:01 --maintain-node-health yes c.example.com"
        )
        assert shell.Run(command) == ("", "", 0)
        (params,) = made
        assert params.cluster_name == "c.example.com"
        assert params.vg_name is None
        assert list(params.enabled_hypervisors) == ["fake", "kvm"]
        assert params.beparams == {"memory": 256}
        assert params.hvparams == {"kvm": {"acpi": False}}
        assert list(params.uid_pool) == [(1000, 1009)]
        assert (params.modify_etc_hosts, params.modify_ssh_setup) == (False, False)
        assert params.candidate_pool_size == constants.MASTER_POOL_SIZE_DEFAULT
        assert params.maintain_node_health is True
        assert [op["OP_ID"] for op in shell.Submitted()] == ["OP_CLUSTER_POST_INIT"]

    def test_init_defaults(self, shell, monkeypatch):
        made = []
        monkeypatch.setattr(bootstrap, "InitCluster", made.append)
        assert shell.Run("gnt-cluster init c.example.com")[2] == 0
        assert (made[0].vg_name, made[0].master_netdev) == ("xenvg", "xen-br0")
        assert list(made[0].enabled_hypervisors) == ["xen-pvm"]

    def test_init_refused(self, shell, monkeypatch):
        def Refuse(params):
            raise _Prereq(errors.ECODE_STATE)

        monkeypatch.setattr(bootstrap, "InitCluster", Refuse)
        err = shell.Check(_CLUSTER["gnt-cluster init x"][0])
        assert err.splitlines()[1] == "error type: wrong_state, error details:"
        assert shell.Submitted() == []
        assert shell.Run("gnt-cluster init --no-lvm-storage -g xenvg x")[2] == 1
        assert shell.Run("gnt-cluster init --dry-run x")[2] == 1

    def test_destroy(self, shell, monkeypatch):
        ended = []
        monkeypatch.setattr(rpc, "Init", lambda: ended.append("init"))
        monkeypatch.setattr(rpc, "Shutdown", lambda: ended.append("shutdown"))
        monkeypatch.setattr(
            bootstrap, "FinalizeClusterDestroy", lambda master: ended.append(master) or ["oops"]
        )
        shell.cl.results["OP_CLUSTER_DESTROY"] = _NODE
        out, err, code = shell.Run("gnt-cluster destroy --yes-do-it")
        assert (out, err, code) == ("", "Warning: oops\n", 0)
        assert ended == ["init", _NODE, "shutdown"]

    def test_destroy_dry_run_ends_nothing(self, shell, monkeypatch):
        monkeypatch.setattr(bootstrap, "FinalizeClusterDestroy", None)
        assert shell.Run("gnt-cluster destroy --yes-do-it --dry-run") == ("", "", 0)
        assert shell.Submitted()[0]["dry_run"] is True


class _Runner:
    def __init__(self, failing=()):
        self.ran = []
        self.failing = failing

    def Run(self, node, user, command, timeout=None):
        self.ran.append((node, user, command))
        return process.RunResult(command, 3 if node in self.failing else 0, stdout=f"on {node}\n")

    def CopyFileToNode(self, node, filename):
        self.ran.append((node, filename))
        return "the reason" if node in self.failing else None


class TestAllNodes:
    """gnt-cluster command and copyfile."""

    @pytest.fixture
    def runner(self, shell, monkeypatch):
        def Row(name, **changes):
            return {**_NODE_ROW, "name": name, "master": False, **changes}

        shell.cl.nodes = [
            Row(_NODE, master=True),
            Row("node2", sip="10.0.0.2"),
            Row("node3", offline=True),
            Row("node10", sip="10.0.0.10"),
        ]
        runner = _Runner()
        monkeypatch.setattr(ssh, "GetRunner", lambda name: runner)
        return runner

    def test_command(self, shell, runner):
        out, err, code = shell.Run("gnt-cluster command ls -l --dry-run")
        line = "-" * 48
        assert code == 0
        assert err == "Note: skipping offline node(s): node3\n"
        assert out == "".join(
            f"{line}\nnode: {name}\non {name}\nreturn code = 0\n"
            for name in ("node2", "node10", _NODE)
        )
        assert runner.ran[0] == ("node2", "root", "ls -l --dry-run")

    def test_command_fails(self, shell, runner):
        runner.failing = ["node10"]
        out, _, code = shell.Run("gnt-cluster command -M --failure-only --parallel 4 ls")
        assert (out, code) == ("node10: on node10\nnode10: return code = 3\n", 1)

    def test_command_on_the_master_comes_last(self, shell, runner, monkeypatch):
        """However many at a time: it may end this very command."""
        done = []
        run = runner.Run

        def Run(node, *args, **kwargs):
            if node == _NODE:
                done.append(sorted(name for name, *_ in runner.ran))
            return run(node, *args, **kwargs)

        monkeypatch.setattr(runner, "Run", Run)
        assert shell.Run("gnt-cluster command --parallel 9 ls")[2] == 0
        assert done == [["node10", "node2"]]

    def test_refused(self, shell, runner, tmp_path):
        for command, fragment in (
            ("command --parallel 0 ls", "--parallel: 0"),
            ("command --timeout -1 ls", "--timeout: -1"),
            (f"copyfile {os.path.relpath(__file__)}", __file__),
            (f"copyfile {tmp_path}", "no regular file"),
        ):
            out, err, code = shell.Run(f"gnt-cluster {command}")
            assert (out, code) == ("", 1), command
            assert "wrong_input" in err, command
            assert fragment in err, command
        assert runner.ran == []

    def test_copyfile(self, shell, runner):
        assert shell.Run(f"gnt-cluster copyfile --use-replication-network {__file__}")[2] == 0
        assert runner.ran == [("10.0.0.2", __file__), ("10.0.0.10", __file__)]
        runner.failing = ["node2"]
        out, err, code = shell.Run(f"gnt-cluster copyfile -n node2 {__file__}")
        said = f"Copy of file {__file__} to node node2 failed\n  the reason\n"
        assert (out, err, code) == ("", said, 1)
        assert shell.Run("gnt-cluster copyfile /nosuch")[2] == 1


class TestTags:
    """Tags of clusters and nodes."""

    def test_from_arguments_and_file(self, shell, tmp_path):
        path = tmp_path / "tags"
        path.write_text("  b\n\nc:1\n")
        assert shell.Run(f"gnt-node add-tags --from {path} node1 a") == ("", "", 0)
        (op,) = shell.Submitted()
        assert op == {
            **_COMMON,
            "OP_ID": "OP_TAGS_SET",
            "kind": "node",
            "name": "node1",
            "tags": ["a", "b", "c:1"],
        }

    def test_none(self, shell):
        for command in ("gnt-cluster add-tags", "gnt-node remove-tags node1"):
            out, err, code = shell.Run(command)
            assert (out, code) == ("", 1)
            assert err.startswith("Failure: prerequisites not met for this operation:\nNo tags")
        assert shell.Run("gnt-cluster add-tags --from /nosuch")[2] == 1
        assert shell.Run("gnt-node list-tags")[1] == (
            "Error: Command list-tags expects 1 argument(s)\n"
        )

    def test_dry_run_is_handed_on(self, shell):
        assert shell.Run("gnt-cluster remove-tags --dry-run a")[2] == 0
        assert shell.Submitted()[0]["dry_run"] is True


class TestNode:
    """gnt-node."""

    @pytest.mark.parametrize(
        "command",
        ["gnt-node list", "gnt-node info", f"gnt-node list-tags {_NODE}", "gnt-node list nosuch"]
        + [command for command in _NODES if "--no-headers" in command],
    )
    def test_as_it_was(self, shell, command):
        shell.Check(_NODES[command][0])

    def test_volumes(self, shell):
        shell.cl.results["OP_NODE_QUERYVOLS"] = []
        shell.Check(_NODES["gnt-node volumes"][0])
        shell.cl.results["OP_NODE_QUERYVOLS"] = [["/dev/sda", "2048", "-"]]
        out, _, _ = shell.Run("gnt-node volumes -o phys,size,instance --no-headers node1")
        assert out == "/dev/sda 2.0G -\n"
        assert shell.Submitted()[-1] == {
            "OP_ID": "OP_NODE_QUERYVOLS",
            "nodes": ["node1"],
            "output_fields": ["phys", "size", "instance"],
        }

    def test_storage(self, shell):
        shell.cl.results["OP_NODE_QUERY_STORAGE"] = []
        shell.Check(_NODES["gnt-node list-storage"][0])
        shell.cl.results["OP_NODE_QUERY_STORAGE"] = [
            [_NODE, "file", "/srv/ganeti/file-storage", 258048, 52, 77517, True]
        ]
        for command in _NODES:
            if "storage-type=file" in command:
                # A path in it was replaced by a shorter one when it was recorded
                out, err, code = shell.Run(command)
                assert (err, code) == ("", 0)
                assert out.split() == _NODES[command][0].out.split()
        assert shell.Submitted()[-1]["storage_type"] == "file"
        shell.Check(_NODES["gnt-node list-storage --storage-type=nosuch"][0])

    @pytest.mark.parametrize(
        "command",
        [
            f"gnt-node modify -O yes {_NODE}",
            f"gnt-node modify -C no {_NODE}",
            f"gnt-node remove {_NODE}",
            f"gnt-node migrate -f {_NODE}",
        ],
    )
    def test_what_the_master_refuses(self, shell, command):
        dialogue = _NODES[command][0]
        code = dialogue.err.splitlines()[1].split()[2].rstrip(",")
        for op_id in ("OP_NODE_SET_PARAMS", "OP_NODE_REMOVE", "OP_NODE_MIGRATE"):
            shell.cl.results[op_id] = _Prereq(code)
        err = shell.Check(dialogue)
        assert err.splitlines()[:2] == dialogue.err.splitlines()[:2]

    def test_modify(self, shell):
        shell.cl.results["OP_NODE_SET_PARAMS"] = [["offline", "True"], ["master_candidate", "x"]]
        out, err, code = shell.Run("gnt-node modify -O YES -C no --auto-promote node1")
        assert (err, code) == ("", 0)
        assert out == ("Modified node node1\n - offline -> True\n - master_candidate -> x\n")
        (op,) = shell.Submitted()
        assert (op["offline"], op["master_candidate"], op["drained"]) == (True, False, None)
        assert op["auto_promote"] is True
        assert shell.Run("gnt-node modify node1")[2] == 1
        assert shell.Run("gnt-node modify -O maybe node1")[2] == 1
        assert shell.Submitted() == []

    def test_failover(self, shell):
        """The errors of 2.1 were no failure; they are one here."""
        dialogue = _NODES[f"gnt-node failover -f {_NODE}"][0]
        shell.cl.next_id = 41
        shell.cl.results["OP_INSTANCE_FAILOVER"] = errors.OpPrereqError(
            "Instance's disk layout is not network mirrored, cannot failover.", errors.ECODE_STATE
        )
        assert shell.Check(dialogue, code=1) == dialogue.err
        shell.cl.results["OP_INSTANCE_FAILOVER"] = None
        out, _, code = shell.Run("gnt-node failover -f --ignore-consistency node1")
        assert out.splitlines()[-1] == "All 3 instance(s) failed over successfully."
        assert code == 0
        assert shell.Submitted()[-1]["ignore_consistency"] is True

    def test_migrate(self, shell):
        """One job an instance: each is followed."""
        shell.cl.results["OP_NODE_MIGRATE"] = {"jobs": []}
        out, err, code = shell.Run("gnt-node migrate -f -I hail --non-live node1")
        assert (err, code) == ("", 0)
        assert out.splitlines()[-1] == "All 0 instance(s) migrated successfully."
        (op,) = shell.Submitted()
        assert (op["live"], op["iallocator"], op["target_node"]) == (False, "hail", None)
        shell.cl.results["OP_NODE_MIGRATE"] = {"jobs": [[False, "the queue is full"]]}
        out, err, code = shell.Run("gnt-node migrate -f node1")
        assert (err, code) == ("Failed to submit job for instance 1: the queue is full\n", 1)
        assert out.splitlines()[-1] == "1 error(s) out of 1 instance(s)."
        out, err, code = shell.Run("gnt-node migrate -f -I hail -n node2 node1")
        assert (out, code) == ("", 1)
        assert "wrong_input" in err

    def test_evacuate(self, shell):
        shell.cl.results["OP_NODE_EVAC_STRATEGY"] = []
        shell.Check(_NODES[f"gnt-node evacuate -n {_NODE} -f {_NODE}"][0])
        out, err, code = shell.Run("gnt-node evacuate -I hail -n node2 node1")
        assert (out, code) == ("", 1)
        assert "wrong_input" in err
        shell.Submitted()
        # IA2: the cluster's own allocator
        assert shell.Run("gnt-node evacuate node1")[2] == 0
        (op,) = shell.Submitted()
        assert (op["iallocator"], op["remote_node"]) == (None, None)
        shell.cl.results["OP_NODE_EVAC_STRATEGY"] = [["i1", "node3"], ["i2", "node4"]]
        out, _, code = shell.Run("gnt-node evacuate -I hail --early-release -f node1")
        assert code == 0
        assert out.splitlines()[:2] == [
            "Will relocate instance i1 to node node3",
            "Will relocate instance i2 to node node4",
        ]
        moves = shell.Submitted()[1:]
        assert [(op["instance_name"], op["remote_node"], op["mode"]) for op in moves] == [
            ("i1", "node3", "replace_new_secondary"),
            ("i2", "node4", "replace_new_secondary"),
        ]
        assert all(op["early_release"] and op["disks"] == [] for op in moves)

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            ("evacuate -n node2 node1", constants.EXIT_CONFIRMATION),
            ("failover node1", 2),
            ("migrate node1", 2),
            ("powercycle node1", 2),
            ("powercycle -f node1", 2),
            ("repair-storage node1 lvm-vg xenvg", 1),
        ],
    )
    def test_refused_by_the_user(self, shell, command, code):
        shell.cl.results["OP_NODE_EVAC_STRATEGY"] = [["i1", "node3"]]
        out, err, found = shell.Run(f"gnt-node {command}")
        assert (out, found) == ("", code)
        assert "no terminal" in err
        assert shell.asked
        assert [
            op["OP_ID"] for op in shell.Submitted() if op["OP_ID"] != "OP_NODE_EVAC_STRATEGY"
        ] == []

    def test_no_instances(self, shell):
        shell.cl.nodes[0]["pinst_list"] = []
        out, err, code = shell.Run("gnt-node failover node1")
        assert (out, bool(err), code) == ("", True, 0)
        out, err, code = shell.Run("gnt-node migrate node1")
        assert (bool(out), err, code) == (True, "", 0)

    def test_powercycle(self, shell):
        shell.cl.results["OP_NODE_POWERCYCLE"] = "Reboot scheduled in 5 seconds"
        assert shell.Run("gnt-node powercycle --yes -f node1") == (
            "",
            "Reboot scheduled in 5 seconds\n",
            0,
        )
        assert shell.Submitted()[0]["force"] is True

    def test_storage_units(self, shell):
        """SU2, SU3: the operations are asked for with what they need."""
        assert shell.Run("gnt-node modify-storage --allocatable no node1 lvm-pv /dev/sda")[2] == 0
        assert shell.Submitted()[0]["changes"] == {"allocatable": False}
        out, err, code = shell.Run("gnt-node modify-storage node1 lvm-pv /dev/sda")
        assert (out, bool(err), code) == ("", True, 0)
        assert shell.Run("gnt-node modify-storage --allocatable no node1 zfs x")[2] == 1
        command = "gnt-node repair-storage -f --ignore-consistency node1 lvm-vg xenvg"
        assert shell.Run(command)[2] == 0
        assert shell.Submitted()[0]["ignore_consistency"] is True

    def test_sync_is_of_no_effect(self, shell):
        out, err, code = shell.Run("gnt-node list --sync -o name --no-headers")
        assert (out, bool(err), code) == (f"{_NODE}\n", True, 0)
        assert shell.cl.calls[-1] == ("QueryNodes", ([], ["name"], False))


class TestNodeAdd:
    """gnt-node add: the machine is set up before the job."""

    @pytest.fixture
    def steps(self, shell, monkeypatch):
        steps = []
        monkeypatch.setattr(rpc, "Init", lambda: None)
        monkeypatch.setattr(rpc, "Shutdown", lambda: None)
        monkeypatch.setattr(
            bootstrap,
            "SetupNodeDaemon",
            lambda cluster, node, ssh_key_check, user: steps.append((cluster, node, ssh_key_check)),
        )
        from ganeti.utils import net

        class _Host:
            def __init__(self, name):
                self.name = f"{name.split('.')[0]}.example.com"
                self.ip = "192.0.2.5"

        monkeypatch.setattr(net, "GetHostInfo", _Host)
        return steps

    def test_new(self, shell, steps):
        assert shell.Run("gnt-node add --no-ssh-key-check -s 10.0.0.5 node5")[2] == 0
        assert steps == [("cluster.example.com", "node5.example.com", False)]
        # Nothing is done to a machine that can not be a node
        check, op = shell.Submitted()
        assert (check["dry_run"], op["dry_run"]) == (True, False)
        for submitted in (check, op):
            fields = [submitted[name] for name in ("node_name", "secondary_ip", "readd")]
            assert fields == ["node5", "10.0.0.5", False]

    @pytest.mark.parametrize(("option", "undone"), [("", ["node5.example.com"]), ("--readd", [])])
    def test_secrets_are_taken_back(self, shell, steps, monkeypatch, option, undone):
        """A machine whose job fails keeps nothing, unless it was a node before."""
        if option:
            shell.cl.nodes[0]["name"] = "node5.example.com"
        monkeypatch.setattr(
            bootstrap, "UndoNodeSetup", lambda name, address: steps.append((name, address))
        )

        def Fail(*_):
            raise errors.OpExecError("no")

        monkeypatch.setattr(gnt_node.jobs, "SubmitOrSend", Fail)
        assert shell.Run(f"gnt-node add {option} node5")[2] == 1
        assert steps[1:] == [(name, "192.0.2.5") for name in undone]

    @pytest.mark.parametrize(
        "error", [errors.HooksAbort([("node1", "50x", "no")]), errors.ConfigurationError("no")]
    )
    def test_whatever_failed(self, shell, steps, monkeypatch, error):
        monkeypatch.setattr(
            bootstrap, "UndoNodeSetup", lambda name, address: steps.append((name, address))
        )

        def Fail(*_):
            raise error

        monkeypatch.setattr(gnt_node.jobs, "SubmitOrSend", Fail)
        assert shell.Run("gnt-node add node5")[2] != 0
        assert steps[1:] == [("node5.example.com", "192.0.2.5")]

    def test_somebody_else_was_faster(self, shell, steps, monkeypatch):
        """The node of another command that adds it at the same time is left alone."""
        monkeypatch.setattr(
            bootstrap, "UndoNodeSetup", lambda name, address: steps.append((name, address))
        )

        def Fail(*_):
            shell.cl.nodes.append({**shell.cl.nodes[0], "name": "node5.example.com"})
            raise errors.OpPrereqError("is in the cluster already", errors.ECODE_EXISTS)

        monkeypatch.setattr(gnt_node.jobs, "SubmitOrSend", Fail)
        assert shell.Run("gnt-node add node5")[2] == 1
        assert steps[1:] == []

    def test_by_uuid(self, shell, steps):
        """UU2"""
        assert shell.Run(f"gnt-node add --readd {shell.cl.nodes[0]['uuid']}")[2] == 0
        assert steps[0][1] == "node1.example.com"

    def test_again(self, shell, steps):
        assert shell.Run("gnt-node add node1")[2] == 1
        assert shell.Run("gnt-node add --readd node5")[2] == 1
        assert steps == []
        assert shell.Run("gnt-node add --readd -s 10.0.0.9 node1")[2] == 0
        # Its address is what is known already
        assert shell.Submitted()[0]["secondary_ip"] == "10.77.0.1"

    def test_dry_run_touches_nothing(self, shell, steps):
        assert shell.Run("gnt-node add --dry-run node5")[2] == 0
        assert steps == []
        assert shell.Submitted()[0]["dry_run"] is True

    def test_a_real_machine_is_asked_about(self, shell, steps, monkeypatch):
        monkeypatch.setattr(gnt_node.pathutils, "IsVirtual", lambda: False)
        out, err, code = shell.Run("gnt-node add node5")
        assert (out, code) == ("", 1)
        assert err.startswith("-- WARNING --")
        assert steps == []
        assert shell.Run("gnt-node add -f node5")[2] == 0

    def test_unknown_name(self, shell, monkeypatch):
        from ganeti.utils import net

        def Unknown(name):
            raise _Prereq(errors.ECODE_RESOLVER)

        monkeypatch.setattr(net, "GetHostInfo", Unknown)
        shell.Check(_NODES["gnt-node add nosuch.example.com"][0])


def _GoldenJobs():
    """The jobs of the golden listing."""
    dialogue = _JOBS["gnt-job list"][0]
    for line in dialogue.out.splitlines()[1:]:
        job_id, status, summary = line.split(None, 2)
        yield fake.FakeJob(job_id, status=status, summary=summary.split(","))


_JOB2_LOG = [
    [1, _Time("2026-11-22 08:36:03.772854"), "message", "* creating instance disks..."],
    [
        2,
        _Time("2026-11-22 08:36:03.772880"),
        "message",
        "adding instance inst1.example.com to cluster config",
    ],
    [3, _Time("2026-11-22 08:36:03.811538"), "message", "* starting instance..."],
]


class TestJob:
    """gnt-job."""

    def test_list(self, shell):
        # As no request for all jobs of the same length: ids are natural numbers
        for job in _GoldenJobs():
            shell.cl.jobs[job.row["id"]] = job
        shell.Check(_JOBS["gnt-job list"][0])
        assert shell.Run("gnt-job list --error --no-headers -o id")[0].split()[0] == "9"

    def test_list_of_an_unknown_job(self, shell):
        dialogue = _JOBS["gnt-job list abc"][0]
        assert shell.Check(dialogue) == dialogue.err

    def test_unknown_field(self, shell):
        shell.cl.jobs["1"] = fake.FakeJob("1", status="success")
        out, err, code = shell.Run("gnt-job list -o id,nosuch")
        assert (out, code) == ("", 1)
        assert err == "Failure: command execution error:\nInvalid job query field 'nosuch'\n"

    def test_list_of_raw_fields(self, shell):
        error = errors.OpPrereqError("Node 'nosuch.example.com' not known", "unknown_entity")
        op = {"OP_ID": "OP_INSTANCE_CREATE"}
        shell.cl.jobs["2"] = fake.FakeJob(
            "2",
            [op],
            [[_NODE]],
            summary=["INSTANCE_CREATE(inst1.example.com)"],
            oplog=[
                [
                    [1, [1795336563, 772854], "message", _JOB2_LOG[0][3]],
                    [2, [1795336563, 772880], "message", _JOB2_LOG[1][3]],
                    [3, [1795336563, 811538], "message", _JOB2_LOG[2][3]],
                ]
            ],
        )
        shell.cl.jobs["9"] = fake.FakeJob(
            "9", [op], [error], summary=["INSTANCE_CREATE(inst9.example.com)"], oplog=[[]]
        )
        shell.Check(_JOBS["gnt-job list -o id,status,summary,opstatus,oplog,opresult 2 9"][0])

    def test_info(self, shell):
        shell.cl.jobs["2"] = fake.FakeJob(
            "2",
            [{"OP_ID": "OP_INSTANCE_CREATE", "start": True, "disks": [], "nics": [{"ip": "x"}]}],
            [[_NODE]],
            received_ts=_Time("2026-11-22 08:36:03.626911"),
            start_ts=_Time("2026-11-22 08:36:03.628100"),
            end_ts=_Time("2026-11-22 08:36:03.885260"),
            opstart=[_Time("2026-11-22 08:36:03.628100")],
            opexec=[_Time("2026-11-22 08:36:03.629690")],
            opend=[_Time("2026-11-22 08:36:03.883484")],
            oplog=[_JOB2_LOG],
        )
        out, err, code = shell.Run("gnt-job info 2")
        assert (err, code) == ("", 0)
        golden = _JOBS["gnt-job info 2"][0].out
        # All but the parameters, of which this opcode has fewer; they are in order here
        before, after = golden.split("      Input fields:\n")
        after = after[after.index("      Result:\n") :]
        fields = "        disks: \n        nics: {'ip': 'x'}\n        start: True\n"
        assert out == f"{before}      Input fields:\n{fields}{after}"

    def test_info_and_why_of_a_job_at_its_hooks(self, shell):
        step = "running pre hooks of node-add on node1, node2 (each script may take 9 s)"
        shell.cl.jobs["5"] = fake.FakeJob(
            "5",
            [{"OP_ID": "OP_NODE_ADD"}],
            [None],
            status="running",
            lock_status=step,
            wait_reason={"text": step, "locks": []},
            received_ts=None,
            start_ts=None,
            end_ts=None,
            opstart=[None],
            opexec=[None],
            opend=[None],
        )
        assert f"  Status: running\n  Now: {step}\n" in shell.Run("gnt-job info 5")[0]
        assert shell.Run("gnt-job why 5") == (f"Job 5 is {step}\n", "", 0)

    def test_info_of_a_failed_job_and_of_none(self, shell):
        error = errors.OpPrereqError("Node 'nosuch.example.com' not known", "unknown_entity")
        shell.cl.jobs["9"] = fake.FakeJob(
            "9",
            [{"OP_ID": "OP_INSTANCE_CREATE"}],
            [error],
            received_ts=None,
            start_ts=None,
            end_ts=None,
            opstart=[None],
            opexec=[None],
            opend=[None],
        )
        out, _, code = shell.Run("gnt-job info 9 99999")
        assert code == 0
        lines = out.splitlines()
        golden = _JOBS["gnt-job info 9"][0].out.splitlines()
        at = golden.index("      Result:")
        assert lines[lines.index("      Result:") :][:4] == golden[at : at + 4]
        assert "      No execution start time" in lines
        assert "  Processing start: unknown (None)" in lines
        assert "  Total processing time: N/A" in lines
        assert lines[-2:] == ["", "Job ID 99999 not found"]
        shell.Check(_JOBS["gnt-job info 99999"][0])

    @pytest.mark.parametrize(
        ("result", "lines"),
        [
            (None, ["No output data"]),
            ([], ["Result: empty sequence"]),
            ({}, ["Result: empty dictionary"]),
            ({"b": [1, 2], "a": "x"}, ["  a: x", "  b: [1, 2]"]),
            (True, ["Result: True"]),
            (["a", ["b", ["c"]]], ["Result:", "  a", "  [b, [c]]"]),
        ],
    )
    def test_results(self, result, lines):
        assert gnt_job.FormatResult(result) == lines

    def test_watch(self, shell):
        dialogue = _JOBS["gnt-job watch 3"][0]
        when = _Time("2026-11-22 08:36:04")
        log = [(when, line[25:]) for line in dialogue.out.splitlines()[2:]]
        shell.cl.jobs["3"] = fake.FakeJob("3", [{"OP_ID": "OP_X"}], [None], log=log)
        shell.Check(dialogue)

    def test_watch_of_a_failed_job(self, shell):
        dialogue = _JOBS["gnt-job watch 9"][0]
        error = errors.OpPrereqError("Node 'nosuch.example.com' not known", "unknown_entity")
        shell.cl.jobs["9"] = fake.FakeJob("9", [{"OP_ID": "OP_X"}], [error])
        assert shell.Check(dialogue) == dialogue.err

    def test_cancel(self, shell):
        """What could not be cancelled is a failure here."""
        shell.cl.jobs["3"] = fake.FakeJob("3", [{"OP_ID": "OP_X"}], [None])
        shell.Check(_JOBS["gnt-job cancel 3"][0], code=1)
        shell.cl.jobs["4"] = fake.FakeJob("4", status="queued")
        assert shell.Run("gnt-job cancel 4") == ("Job 4 canceled\n", "", 0)
        assert shell.Run("gnt-job cancel --dry-run 4")[2] == 1

    def test_archive(self, shell):
        """What could not be archived is told here."""
        shell.cl.jobs["0"] = fake.FakeJob("0")
        shell.Check(_JOBS["gnt-job archive 0"][0])
        out, err, code = shell.Run("gnt-job archive 0")
        assert (out, bool(err), code) == ("", True, 0)

    def test_autoarchive(self, shell):
        shell.Check(_JOBS["gnt-job autoarchive 1d"][0])
        assert shell.cl.calls[-1] == ("AutoArchiveJobs", 86400)
        assert shell.Run("gnt-job autoarchive all")[2] == 0
        assert shell.cl.calls[-1] == ("AutoArchiveJobs", -1)
        assert shell.Run("gnt-job autoarchive soon")[2] == 1

    def test_change_priority(self, shell):
        shell.cl.jobs["1"] = fake.FakeJob("1")
        assert shell.Run("gnt-job change-priority --priority low 1")[2] == 0
        assert shell.cl.calls[-1] == ("ChangeJobPriority", ("1", constants.OP_PRIO_LOW))
        assert shell.Run("gnt-job change-priority --priority low 1 2")[2] == 1
        assert shell.Run("gnt-job change-priority 1")[2] == 1

    def test_why(self, shell, monkeypatch):
        """LK8: who holds what a job waits for."""
        monkeypatch.setattr(runtime.DEFAULT.clock, "time", lambda: 1010.0)
        shell.cl.jobs["5"] = fake.FakeJob(
            "5",
            status="waiting",
            wait_reason={
                "text": "waiting/blocking/node/node1/exclusive",
                "locks": [
                    {
                        "name": "node/node1",
                        "mode": "exclusive",
                        "held": "shared",
                        "holders": ["Job 3/OP_A", "Job 4/OP_B"],
                        "held_since": [990.0, None],
                        "ahead": ["Job 2/OP_C"],
                        "since": 1000.0,
                    },
                    {
                        "name": "node/node2",
                        "mode": "shared",
                        "held": None,
                        "holders": [],
                        "held_since": [],
                        "ahead": [],
                        "since": None,
                    },
                ],
            },
            opexec=[None],
        )
        ops = [{"OP_ID": "OP_A"}, {"OP_ID": "OP_TEST_DELAY"}]
        shell.cl.jobs["6"] = fake.FakeJob(
            "6",
            ops,
            status="running",
            wait_reason=None,
            opstatus=["success", "running"],
            opexec=[[900, 0], [1003, 0]],
            oplog=[[], [[1, [1004, 0], "message", "half of it"]]],
        )
        shell.cl.jobs["8"] = fake.FakeJob("8", ops, wait_reason=None, opexec=[None, None])
        out, err, code = shell.Run("gnt-job why 5 6 8 7")
        assert out == (
            "Job 5 is waiting: waiting/blocking/node/node1/exclusive\n"
            "  node/node1: wanted exclusive for 10 s, held by Job 3/OP_A for 20 s, Job 4/OP_B"
            " (shared)\n"
            "    ahead of it: Job 2/OP_C\n"
            "  node/node2: wanted shared, held by nobody (any more)\n"
            "Job 6 is running: TEST_DELAY (opcode 2 of 2) for 7 s\n"
            "  its last message: half of it\n"
            "Job 8 does not wait: its status is success\n"
        )
        assert (err, code) == ("No such job: 7\n", 1)


class TestOs:
    """gnt-os."""

    _ROWS = [
        ["noop", True, [], {_NODE: [["/usr/share/ganeti/os/noop", True, "", []]]}],
        [
            "debootstrap",
            True,
            ["default"],
            {_NODE: [["/usr/share/ganeti/os/debootstrap", True, "", ["default"]]]},
        ],
    ]

    def _Answer(self, shell, rows):
        all_fields = ["name", "valid", "variants", "node_status"]
        shell.cl.results["OP_OS_DIAGNOSE"] = lambda op: [
            [row[all_fields.index(field)] for field in op["output_fields"]] for row in rows
        ]

    def test_list_and_diagnose_in_natural_order(self, shell):
        """The order of 2.1 was arbitrary."""
        self._Answer(shell, self._ROWS)
        for command in ("gnt-os list", "gnt-os list --no-headers"):
            out, err, code = shell.Run(command)
            golden = _OSES[command][0]
            assert (err, code) == ("", golden.code)
            assert sorted(out.splitlines()) == sorted(golden.out.splitlines())
        out, err, code = shell.Run("gnt-os diagnose")
        golden = _OSES["gnt-os diagnose"][0]
        assert (err, code) == ("", golden.code)
        assert sorted(out.split("\n\n")) == sorted(golden.out.split("\n\n"))
        assert out.startswith("OS: debootstrap ")

    def test_problems(self, shell):
        self._Answer(
            shell,
            [
                ["none", False, [], {"n1": [["/a", False, "no create script", []]], "n2": []}],
                [
                    "some",
                    False,
                    [],
                    {"n10": [], "n2": [["/a", True, "", []], ["/b", False, "x", []]], "n1": []},
                ],
            ],
        )
        out, err, code = shell.Run("gnt-os diagnose")
        assert (err, code) == ("", 1)
        assert out == (
            "OS: none [global status: invalid]\n"
            "  Node: n1, status: invalid - no create script (path: /a) [variants: ]\n"
            "  Node: n2, status: OS not found\n"
            "\n"
            "OS: some [global status: partial valid]\n"
            "  Node: n2, status: valid (path: /a) [variants: ]\n"
            "    [hidden] path: /b, status: invalid - x\n"
            "  Node: n1, status: OS not found\n"
            "  Node: n10, status: OS not found\n"
            "\n"
        )

    def test_none(self, shell):
        self._Answer(shell, [])
        for command in ("gnt-os list", "gnt-os diagnose"):
            out, err, code = shell.Run(command)
            assert (out, bool(err), code) == ("", True, 1)

    def test_modify(self, shell):
        assert shell.Run("gnt-os modify -H kvm:acpi=false -H fake noop")[2] == 0
        (op,) = shell.Submitted()
        assert op == {
            **_COMMON,
            "OP_ID": "OP_CLUSTER_SET_PARAMS",
            "os_hvp": {"noop": {"kvm": {"acpi": "false"}, "fake": {}}},
        }
        assert shell.Run("gnt-os modify -H kvm:acpi=default,-boot_order -H -xen-pvm noop")[2] == 0
        assert shell.Submitted()[0]["os_hvp"] == {
            "noop": {"kvm": {"acpi": "default", "boot_order": None}, "xen-pvm": None}
        }
        shell.cl.results["OP_CLUSTER_SET_PARAMS"] = errors.OpExecError("no kernel")
        shell.Check(_OSES["gnt-os modify -H kvm:acpi=false noop"][0])
        assert shell.Run("gnt-os modify --dry-run -H kvm:acpi=false noop")[2] == 1
        assert shell.Submitted()[-1]["dry_run"] is True


class TestDebug:
    """gnt-debug."""

    def test_delay(self, shell):
        for command in ("gnt-debug delay 0.1", f"gnt-debug delay --no-master -n {_NODE} 0"):
            shell.Check(_OSES[command][0])
        first, second = shell.Submitted()
        assert (first["duration"], first["on_master"], first["on_nodes"]) == (0.1, True, [])
        assert (second["on_master"], second["on_nodes"]) == (False, [_NODE])
        assert shell.Run("gnt-debug delay soon")[2] == 1

    def test_submit_job(self, shell, tmp_path):
        path = tmp_path / "ops.json"
        path.write_text(
            '[{"OP_ID": "OP_TEST_DELAY", "duration": 1, "on_master": true, "on_nodes": []}]'
        )
        command = f"gnt-debug submit-job -v --timing-stats --op-repeat 3 --job-repeat 2 {path}"
        out, err, code = shell.Run(command)
        assert (err, code) == ("", 0)
        assert [len(job) for job in shell.cl.submitted] == [3, 3]
        lines = out.splitlines()
        assert lines[:4] == ["Loading...", "Submitting...", "Executing...", "Submitted jobs 1, 2"]
        assert lines[4] == f"Waiting for job 1 for file {path}/0..."
        assert lines[6:8] == ["C:op       6", "C:job      2"]
        assert all(re.fullmatch(r"T:(submit|exec|total) +[0-9]+\.[0-9]{4}", x) for x in lines[8:])

    @pytest.mark.parametrize(
        "content",
        ["{", "{}", "[]", "[1]", '[{"OP_ID": "OP_NOSUCH"}]', '[{"OP_ID": "OP_NODE_ADD"}]'],
    )
    def test_a_bad_file_is_named(self, shell, tmp_path, content):
        path = tmp_path / "ops.json"
        path.write_text(content)
        out, err, code = shell.Run(f"gnt-debug submit-job {path}")
        assert (out, code) == ("", 1)
        assert str(path) in err
        assert shell.Submitted() == []
        shell.Check(_OSES["gnt-debug submit-job /nosuch.json"][0])

    def test_allocator(self, shell):
        shell.cl.results["OP_TEST_ALLOCATOR"] = "{...}\n"
        command = (
            "gnt-debug allocator --dir out -I hail -m allocate --mem 1g --disks 1g,100 -t drbd"
            " --nics 00:11:22:33:44:55//br0,/10.0.0.1 -o noop -p 2 --tags a,b inst1"
        )
        assert shell.Run(command) == ("{...}\n", "", 0)
        (op,) = shell.Submitted()
        assert op["disks"] == [{"size": 1024, "mode": "w"}, {"size": 100, "mode": "w"}]
        assert op["nics"] == [
            {"mac": "00:11:22:33:44:55", "ip": None, "bridge": "br0"},
            {"mac": None, "ip": "10.0.0.1", "bridge": None},
        ]
        assert (op["name"], op["mem_size"], op["vcpus"], op["tags"]) == (
            "inst1",
            1024,
            2,
            ["a", "b"],
        )
        assert (op["direction"], op["allocator"], op["os"]) == ("out", "hail", "noop")
        assert shell.Run("gnt-debug allocator --disks x inst1")[2] == 1
        assert shell.Run("gnt-debug allocator")[2] == 1
        assert shell.Run("gnt-debug allocator -m balance --max-moves 3")[2] == 0
        assert shell.Submitted()[0]["max_moves"] == 3

    def test_locks(self, shell):
        """LK8: who holds and who waits for each lock."""
        shell.cl.locks = [
            {
                "name": "cluster/BGL",
                "mode": "shared",
                "owner": ["Job 1/X", "Job 2/Y"],
                "pending": [],
            },
            {
                "name": "node/n1",
                "mode": "exclusive",
                "owner": ["Job 1/X"],
                "pending": [["exclusive", ["Job 2/Y"]], ["shared", ["Job 3/Z", "Job 4/Z"]]],
            },
            {"name": "node/n2", "mode": None, "owner": None, "pending": []},
        ]
        out, _, code = shell.Run("gnt-debug locks --used --separator=|")
        assert code == 0
        assert out == (
            "Name|Mode|Owner|Pending\n"
            "cluster/BGL|shared|Job 1/X,Job 2/Y|-\n"
            "node/n1|exclusive|Job 1/X|exclusive:Job 2/Y shared:Job 3/Z,Job 4/Z\n"
        )
        out, _, _ = shell.Run("gnt-debug locks --no-headers -o name,mode")
        assert out.splitlines()[-1] == "node/n2     -"
        assert shell.Run("gnt-debug locks -o nosuch")[2] == 1

    def test_watching_locks_ends_with_an_interrupt(self, shell, monkeypatch):
        slept = []

        def Sleep(seconds):
            slept.append(seconds)
            if len(slept) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(runtime.DEFAULT.clock, "sleep", Sleep)
        out, err, code = shell.Run("gnt-debug locks --watch --interval 0.5 -o name")
        assert (out, err, code) == ("Name\n\nName\n", "", 0)
        assert slept == [0.5, 0.5]
