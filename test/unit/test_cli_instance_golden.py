"""What a 2.1 cluster printed for gnt-instance and gnt-backup, against a master in memory."""

import re
import shlex
import time
from pathlib import Path

import pytest

from ganeti import constants, errors, opcodes
from ganeti.client import console, gnt_backup, gnt_instance, jobs
from ganeti.rapi import fake

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "cli"
NODE = "node1.example.com"

#: Commands whose exit status is another one on purpose: they said success though a job had failed.
DIFFERENT_STATUS = {"gnt-instance reinstall -f inst3.example.com": 1}


class Golden:
    """One command, with what it printed."""

    def __init__(self, text):
        command, _, rest = text.partition("\n")
        self.command = command
        output, status = rest.rsplit("---- exit status ", 1)
        self.status = int(status)
        self.stdout, _, self.stderr = output.partition("---- standard error\n")
        self.argv = shlex.split(command)

    def __repr__(self):
        return self.command

    @property
    def error_type(self):
        found = re.search(r"^error type: (\w+)", self.stderr, re.MULTILINE)
        return found[1] if found else None


def _Read(name, program):
    parts = (GOLDEN / f"{name}.txt").read_text().split("==== ")[1:]
    found = [Golden(part) for part in parts]
    return [golden for golden in found if golden.argv[0] == program]


LIST = _Read("instance-list", "gnt-instance")
ERRORS = _Read("instance-errors", "gnt-instance")
LIFECYCLE = _Read("instance-lifecycle", "gnt-instance")
INFO = _Read("instance-info", "gnt-instance")
BACKUP = _Read("os-backup-debug", "gnt-backup")


def _Nic(index, ip, mac):
    return {
        f"nic.mac/{index}": mac,
        f"nic.ip/{index}": ip,
        f"nic.mode/{index}": "routed",
        f"nic.link/{index}": "lo",
        f"nic.bridge/{index}": None,
    }


def _Instance(number, *, up, running=None, memory=128, vcpus=1, nics=(), disks=(), tags=()):
    running = up if running is None else running
    row = {
        "name": f"inst{number}.example.com",
        "os": "noop",
        "pnode": NODE,
        "snodes": [],
        "admin_state": up,
        "oper_state": running,
        "status": ("running" if running else "ERROR_down") if up else "ADMIN_down",
        "oper_ram": (64 if number == 1 else 128) if running else "-",
        "disk_template": "file" if disks else "diskless",
        "hypervisor": "fake",
        "vcpus": vcpus,
        "tags": list(tags),
        "serial_no": 2 if number == 2 else {1: 4, 3: 1}[number],
        "network_port": None,
        "beparams": {"auto_balance": True, "vcpus": vcpus, "memory": memory},
        "hvparams": {},
        "disk_usage": None,
        "disk.count": len(disks),
        "disk.sizes": list(disks),
        "nic.count": len(nics),
        "nic.macs": [mac for _, mac in nics],
        "nic.ips": [ip for ip, _ in nics],
        "nic.modes": ["routed" for _ in nics],
        "nic.links": ["lo" for _ in nics],
        "nic.bridges": [None for _ in nics],
        "be/memory": memory,
        "be/vcpus": vcpus,
        "be/auto_balance": True,
    }
    for index in range(2):
        row |= _Nic(index, *nics[index]) if index < len(nics) else {}
        row[f"disk.size/{index}"] = disks[index] if index < len(disks) else None
        row.setdefault(f"nic.mac/{index}", None)
        row.setdefault(f"nic.ip/{index}", None)
    row["sda_size"], row["sdb_size"] = row["disk.size/0"], row["disk.size/1"]
    first = nics[0] if nics else None
    row["ip"], row["mac"] = first or (None, None)
    row["nic_mode"], row["nic_link"] = ("routed", "lo") if first else (None, None)
    row["bridge"] = None
    return row


def _Instances(inst1_up=True):
    return [
        _Instance(
            1,
            up=inst1_up,
            memory=96,
            vcpus=2,
            nics=[("10.77.20.5", "aa:00:00:ff:f9:c8")],
            tags=["web", "prod:1"],
        ),
        _Instance(
            2,
            up=True,
            nics=[("10.77.20.6", "aa:00:00:77:fb:ff"), ("10.77.20.7", "aa:00:00:11:22:33")],
            disks=[16, 20],
        ),
        _Instance(3, up=False),
    ]


class Client(fake.FakeClient):
    """What the commands need beyond what the remote API does."""

    def SubmitJob(self, ops):
        return super().SubmitJob([op.__getstate__() for op in ops])

    def SubmitManyJobs(self, all_ops):
        return [[True, self.SubmitJob(ops)] for ops in all_ops]

    def QueryJobs(self, job_ids, fields):
        rows = super().QueryJobs(job_ids, [f for f in fields if f != "opstatus"])
        if "opstatus" not in fields:
            return rows
        (row,) = rows
        return [[row[0], [row[0]] * len(row[1]), row[1]]]

    def QueryInstances(self, names, fields, use_locking):
        unknown = [name for name in fields if name not in self._master.instances[0]]
        if unknown:
            text = f"Unknown output fields selected: {','.join(unknown)}"
            raise errors.OpPrereqError(text, errors.ECODE_INVAL)
        return super().QueryInstances(names, fields, use_locking)

    def QueryExports(self, nodes, use_locking):
        return self._master.info["exports"]


@pytest.fixture
def master(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    found = fake.FakeMaster()
    found.instances = _Instances()
    found.nodes = [
        {"name": NODE, "pinst_list": ["inst1.example.com"], "sinst_list": [], "tags": []}
    ]
    found.info["exports"] = {NODE: False}
    monkeypatch.setattr(jobs, "GetClient", lambda: Client(found))
    monkeypatch.setattr(console, "OpenTerminal", lambda: None)
    yield found
    monkeypatch.undo()
    time.tzset()


def _Run(golden, master, capsys):
    """Exit status, standard output, standard error."""
    waiting = re.search(r"Waiting for job (\d+)|^(\d+): ", golden.stdout, re.MULTILINE)
    if waiting:
        master.next_job_id = int(waiting[1] or waiting[2])
    if golden.status or golden.command in DIFFERENT_STATUS:
        text = golden.stderr.rstrip("\n").rpartition("\n")[2]
        args = [text, golden.error_type] if golden.error_type else [text]
        master.results = lambda ops: (constants.JOB_STATUS_ERROR, [["OpPrereqError", args]])
    module = {"gnt-instance": gnt_instance, "gnt-backup": gnt_backup}[golden.argv[0]]
    try:
        status = module.Main(golden.argv)
    except SystemExit as err:
        status = err.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def _Check(golden, master, capsys):
    status, out, err = _Run(golden, master, capsys)
    assert status == DIFFERENT_STATUS.get(golden.command, golden.status), err
    assert out == golden.stdout
    # The wording may be another one, not where it is said and how serious it is
    assert bool(err) == bool(golden.stderr)
    found = re.search(r"^error type: (\w+)", err, re.MULTILINE)
    assert (found[1] if found else None) == golden.error_type
    return err


class TestListing:
    """BASE1: tables to the letter."""

    @pytest.mark.parametrize("golden", LIST, ids=repr)
    def test_list(self, golden, master, capsys):
        _Check(golden, master, capsys)

    def test_nothing_is_submitted(self, master, capsys):
        _Check(LIST[0], master, capsys)
        assert not master.submitted
        assert len(master.calls) == 1


USAGE = [golden for golden in ERRORS if golden.stdout.startswith("Usage: ")]
SPECIAL = {
    # Said to be a mistake of the program then, with no word about which disk
    "gnt-instance add -t file --disk 0:size=abc -o noop -n node1.example.com inst9.example.com",
    "gnt-instance grow-disk inst2.example.com 0 16m",
}


class TestErrors:
    """BASE1: kind of error and exit status."""

    @pytest.mark.parametrize("golden", USAGE, ids=repr)
    def test_usage(self, golden, master, capsys):
        status, out, err = _Run(golden, master, capsys)
        assert (status, err) == (golden.status, "")
        commands = r"(?m)^ ([a-z-]+) +- "
        assert re.findall(commands, out) == re.findall(commands, golden.stdout)
        assert out.splitlines()[:4] == golden.stdout.splitlines()[:4]

    @pytest.mark.parametrize(
        "golden",
        [
            golden
            for golden in ERRORS
            if golden not in USAGE
            and golden.command not in SPECIAL
            and "--show-cmd" not in golden.command
        ],
        ids=repr,
    )
    def test_error(self, golden, master, capsys):
        if golden.argv[1] == "startup":
            _Check(golden, master, capsys)
            return
        err = _Check(golden, master, capsys)
        # The first line says what kind of failure it is
        assert err.splitlines()[0].split(":")[0] == golden.stderr.splitlines()[0].split(":")[0] or (
            "Please" in err
        )

    def test_bad_size_names_the_disk(self, master, capsys):
        argv = "gnt-instance add -t file --disk 0:size=abc -o noop -n node1 inst9"
        golden = Golden(f"{argv}\n---- standard error\nFailure\n---- exit status 1\n")
        err = _Check(golden, master, capsys)
        assert "--disk 0" in err and "abc" in err

    def test_log_lines(self, master, capsys):
        (golden,) = [golden for golden in ERRORS if "grow-disk" in golden.command]
        when = [1795336613, 5]
        texts = [line.split("  - ", 1)[1] for line in golden.stdout.splitlines()]
        entries = [[n, when, "message", f" - {text}"] for n, text in enumerate(texts, 1)]
        master.changes = [[["running"], entries], [["success"], []]]
        _Check(golden, master, capsys)
        assert master.submitted[0][0]["amount"] == 16

    def test_console_command(self, master, capsys):
        (golden,) = [golden for golden in ERRORS if "--show-cmd" in golden.command]
        argv = shlex.split(golden.stdout)
        master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [argv])
        assert _Run(golden, master, capsys) == (0, golden.stdout, "")


class TestLifecycle:
    @pytest.mark.parametrize("golden", LIFECYCLE, ids=repr)
    def test_command(self, golden, master, capsys):
        if golden.argv[1] == "list":
            master.instances = _Instances(inst1_up=False)
        elif golden.argv[1] == "list-tags":
            # Printed sorted
            master.instances[0]["tags"] = ["web", "prod:1"]
        elif golden.argv[1] == "activate-disks":
            rows = [line.split(":") for line in golden.stdout.splitlines()]
            master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [rows])
        _Check(golden, master, capsys)

    def test_every_recorded_command_makes_its_job(self, master, capsys):
        for golden in LIFECYCLE:
            if golden.argv[1] not in ("list", "list-tags") and golden.status == 0:
                before = len(master.submitted)
                _Run(golden, master, capsys)
                assert len(master.submitted) > before, golden


def _InfoRow(number, **kwargs):
    row = _Instances()[number - 1]
    paths = f"/srv/ganeti/file-storage/{row['name']}/disk"
    uuids = {
        1: "5002d389-94b5-47b8-8823-2a2d5fa98804",
        2: "9dd7a7e7-0b37-4b91-b74e-be2244330fae",
        3: "05d02141-8299-45ad-9f8c-71e39ef7f723",
    }
    ctimes = {1: 1795336563.7, 2: 1795336564.2, 3: 1795336564.6}
    return {
        "name": row["name"],
        "uuid": uuids[number],
        "serial_no": row["serial_no"],
        "ctime": ctimes[number],
        "mtime": 1795336565.9 if number == 1 else ctimes[number],
        "config_state": "up" if row["admin_state"] else "down",
        "run_state": "up",
        "pnode": NODE,
        "snodes": [],
        "os": "noop",
        "network_port": None,
        "hypervisor": "fake",
        "hv_instance": {},
        "hv_actual": {},
        "be_instance": {},
        "be_actual": row["beparams"],
        "nics": [
            [ip, mac, "routed", "lo"]
            for ip, mac in zip(row["nic.ips"], row["nic.macs"], strict=True)
        ],
        "disk_template": row["disk_template"],
        "disks": [
            {
                "iv_name": f"disk/{index}",
                "dev_type": "file",
                "logical_id": ["loop", f"{paths}{index}"],
                "physical_id": ["loop", f"{paths}{index}"],
                "pstatus": [f"{paths}{index}", None, None, None, None, False, 1],
                "sstatus": None,
                "children": [],
                "mode": ["rw", "ro"][index],
                "size": size,
            }
            for index, size in enumerate(row["disk.sizes"])
        ],
        **kwargs,
    }


class TestInfo:
    @pytest.mark.parametrize("golden", INFO, ids=repr)
    def test_info(self, golden, master, capsys):
        numbers = [int(number) for number in re.findall(r" inst(\d)", golden.command)]
        rows = [_InfoRow(number) for number in numbers]
        # In no order
        result = {row["name"]: row for row in reversed(rows)}
        master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [result])
        _Check(golden, master, capsys)
        assert master.submitted[0][0]["static"] is ("-s" in golden.argv)


class TestBackup:
    @pytest.mark.parametrize("golden", BACKUP, ids=repr)
    def test_command(self, golden, master, capsys):
        def _Entries():
            when = [1795336639, 5]
            lines = golden.stdout.splitlines()
            return [
                [number, when, "message", line.split(" 2026 ", 1)[1]]
                for number, line in enumerate(lines, 1)
            ]

        if golden.argv[1] == "remove":
            when = [1795336638, 5]
            entries = [[number, when, *rest] for number, _, *rest in _Entries()]
            master.changes = [[["running"], entries], [["success"], []]]
        elif golden.argv[1] == "export":
            # Finalizing failed, and there was no disk
            entries = _Entries()
            entries[0][1] = [1795336638, 5]
            master.changes = [[["running"], entries], [["success"], []]]
            result = [False, []]
            master.results = lambda ops: (constants.JOB_STATUS_SUCCESS, [result])
            status = gnt_backup.Main(golden.argv)
            assert (status, capsys.readouterr().out) == (golden.status, golden.stdout)
            return
        _Check(golden, master, capsys)


def test_opcodes_of_jobs_are_valid(master, capsys):
    """What the commands submit, the master daemon takes."""
    for golden in [*ERRORS, *LIFECYCLE, *BACKUP]:
        _Run(golden, master, capsys)
    assert len(master.submitted) > 20
    for ops in master.submitted:
        for op in ops:
            opcodes.OpCode.LoadOpCode(op)
