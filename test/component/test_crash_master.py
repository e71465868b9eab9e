"""JQ1, JQ2: real daemons are killed again and again while they work.

The same promises as in the simulation, on a real disk and with real node daemons: no accepted job
is lost, none runs twice, the configuration is valid and has what was answered. The master daemon is
killed in every round; in some of them the node daemon of a candidate is, too, or the disk of either
fails every read and write for a moment.

C{CRASH_KILLS=100 test/run component -k test_crash_master} kills that often, however long it takes.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent import futures
from pathlib import Path

import pytest

from ganeti import constants, errors, luxi, opcodes
from vc import WaitFor

#: Kills that were asked for; 0 = as many as there is time for.
KILLS = int(os.environ.get("CRASH_KILLS", "0"))
#: Seconds that they may take then, in all clusters at once.
SECONDS = 45.0
CLUSTERS = 2
#: So few would show nothing.
FEWEST = 15

HOOK = """#!/bin/sh
echo "$GANETI_INSTANCE_NAME" >> {path}
"""


class Daemon:
    """A daemon of a node: killed, started again as it was, and its disk.

    @param preload: library that makes the disk fail as long as there is a 1 in C{switch}
    """

    def __init__(self, root, name, preload, switch):
        self._pid_file = root / f"var/run/ganeti/{name}.pid"
        environ, self._argv = self._Read("environ"), self._Read("cmdline")
        self._env = dict(item.split("=", 1) for item in environ)
        self._switch = switch
        switch.write_bytes(b"\0")
        if preload is not None:
            self._env |= {"LD_PRELOAD": str(preload), "FAILING_DISK_SWITCH": str(switch)}

    def _Read(self, what):
        data = Path(f"/proc/{self.Pid()}/{what}").read_text()
        return [item for item in data.split("\0") if item]

    def Pid(self):
        return int(self._pid_file.read_text())

    def IsAlive(self):
        return os.path.exists(f"/proc/{self.Pid()}/exe")

    def Start(self):
        """Start it; wait until it answers."""
        subprocess.run(self._argv, env=self._env, check=True, timeout=60, stdin=subprocess.DEVNULL)

    def Kill(self):
        pid = self.Pid()
        os.kill(pid, signal.SIGKILL)
        WaitFor(lambda: not os.path.exists(f"/proc/{pid}/exe"), what="the end of the daemon")

    def BreakDisk(self, broken):
        # In place: the daemon has it mapped.
        with open(self._switch, "r+b") as fobj:
            fobj.write(b"\1" if broken else b"\0")


class Killed:
    """A cluster whose daemons are killed, and what its clients were told.

    @ivar accepted: job id -> name of the instance that it creates, or the tag that it sets
    @ivar disturbed: those of them that a failing disk may have made fail
    """

    def __init__(self, cluster, seed, preload):
        self._cluster = cluster
        self._random = random.Random(seed)
        self._count = 0
        self.accepted = {}
        self.disturbed = set()
        self.events = Counter()
        self.log = os.path.join(cluster.directory, "created")
        root = cluster.Root()
        self.socket = str(root / "var/run/ganeti/socket/ganeti-master")
        hooks = root / "etc/ganeti/hooks/instance-add-pre.d"
        hooks.mkdir(parents=True)
        script = hooks / "log"
        script.write_text(HOOK.format(path=self.log))
        script.chmod(0o755)
        where = Path(cluster.directory)
        self.master = Daemon(root, "ganeti-masterd", preload, where / "switch1")
        self.candidates = [
            Daemon(cluster.Root(node), "ganeti-noded", preload, where / f"switch-{node}")
            for node in ("node2", "node3")
        ]
        # From now on they have the disks that can fail.
        for daemon in [*self.candidates, self.master]:
            daemon.Kill()
            daemon.Start()

    def _NewJob(self):
        self._count += 1
        if self._random.random() < 0.3:
            tag = f"tag{self._count}"
            return tag, [opcodes.OpTagsSet(kind=constants.TAG_CLUSTER, name="", tags=[tag])]
        name = f"crash{self._count}.example.com"
        op = opcodes.OpInstanceCreate(
            instance_name=name,
            mode=constants.INSTANCE_CREATE,
            disks=[],
            nics=[{}],
            start=False,
            wait_for_sync=False,
            ip_check=False,
            name_check=False,
            hvparams={},
            beparams={},
            os_type="noop+default",
            disk_template=constants.DT_DISKLESS,
            pnode=f"node{self._random.randint(1, 3)}.example.com",
        )
        return name, [op]

    def SubmitSome(self):
        """Submit a few jobs; only those with an answer count."""
        jobs = [self._NewJob() for _ in range(self._random.randint(1, 4))]
        with luxi.Client(self.socket) as client:
            for what, ops in jobs:
                self.accepted[client.SubmitJob(ops)] = what

    def Round(self):
        """Clients work; the master daemon dies in the middle of it, and comes back."""
        chance = self._random.random()
        victim = self._random.choice(self.candidates)
        delay = self._random.uniform(0.05, 0.6)
        script = []
        if chance < 0.2:
            self.events["node daemon killed"] += 1
            script = [(delay * self._random.random(), victim.Kill)]
        elif chance < 0.45:
            daemon = self.master if chance < 0.3 else victim
            self.events["disk of the master" if daemon is self.master else "disk of a node"] += 1
            start = delay * self._random.random()
            script = [
                (start, lambda: daemon.BreakDisk(True)),
                (start + self._random.uniform(0.02, 0.2), lambda: daemon.BreakDisk(False)),
            ]
        script.append((delay, self.master.Kill))
        plan = threading.Thread(target=_Play, args=[script])
        plan.start()
        while self.master.IsAlive():
            # It dies, or says no; those without an answer may be there or not.
            with contextlib.suppress(luxi.ProtocolError, errors.GenericError, OSError):
                self.SubmitSome()
            time.sleep(self._random.choice([0.0, 0.02, 0.1]))
        plan.join(timeout=60)
        for daemon in [self.master, *self.candidates]:
            daemon.BreakDisk(False)
        if not victim.IsAlive():
            victim.Start()
        self.master.Start()
        if chance < 0.45:
            # What ran meanwhile may have been refused what it needs; also of earlier rounds.
            self.disturbed |= self.accepted.keys()
        self.events["kills"] += 1

    def Statuses(self):
        with luxi.Client(self.socket) as client:
            rows = client.QueryJobs(None, ["id", "status", "opresult", "summary"])
        return {row[0]: row[1:] for row in rows}

    def Created(self):
        """How often the creation of which instance began."""
        if not os.path.exists(self.log):
            return Counter()
        with open(self.log) as fobj:
            return Counter(fobj.read().split())

    def Check(self):
        """What must hold once all jobs have ended."""
        WaitFor(
            lambda: all(row[0] in constants.JOBS_FINALIZED for row in self.Statuses().values()),
            timeout=60,
            what="the end of all jobs",
        )
        statuses = self.Statuses()
        created = self.Created()
        twice = {name: count for name, count in created.items() if count > 1}
        assert not twice, f"created more than once: {twice}"

        config = self._cluster.Config()
        tags = set(config["cluster"]["tags"])
        ended = Counter()
        for job_id, what in self.accepted.items():
            assert job_id in statuses, f"job {job_id} ({what}) is lost"
            status, results, summary = statuses[job_id]
            ended[status] += 1
            if status == constants.JOB_STATUS_SUCCESS:
                assert what in tags or (created[what] == 1 and what in config["instances"])
            elif results != ["Unclean master daemon shutdown"]:
                # A node that was away, or a disk: also long after the job was submitted.
                assert job_id in self.disturbed, (summary, results)
                assert "ProgrammerError" not in str(results), (summary, results)
        print(f"{dict(self.events)}, {len(self.accepted)} jobs accepted, ended: {dict(ended)}")
        kills = self.events["kills"]
        # Both did happen, and in many rounds something was accepted.
        assert ended[constants.JOB_STATUS_SUCCESS] > kills / 4
        assert len(self.accepted) > kills / 2
        assert "Error" not in self._cluster.Ok("gnt-cluster", "verify")
        self._CheckHistory(config)
        self._CheckFiles()

    def _CheckHistory(self, config):
        """All versions are there, the last one is what there is.

        What a failing disk did not take is a gap.
        """
        self._cluster.Ok("gnt-cluster", "add-tags", "last")
        last = self._cluster.Config()["serial_no"]
        assert last > config["serial_no"]
        out = self._cluster.Ok(
            "gnt-cluster", "history", "--no-headers", "--separator=|", "--output=serial"
        )
        serials = [int(line) for line in out.split()]
        assert serials == sorted(serials)
        assert serials[-1] == last
        if not self.events["disk of the master"]:
            assert set(serials) == set(range(serials[0], last + 1))
        # A number comes again if the daemon died between the history and the file.
        assert len(serials) - len(set(serials)) <= self.events["kills"]

    def _CheckFiles(self):
        config = self._cluster.Config()
        # Nothing is left of writes that were cut off, but what the last one left.
        leftovers = list(self._cluster.Data("queue").glob("*.new*"))
        assert len(leftovers) < 30, leftovers
        # Whoever has to has the same, once it was told.
        for node in ("node2", "node3"):
            WaitFor(
                lambda node=node: self._cluster.Config(node) == config,
                timeout=60,
                what=f"the configuration of {node}",
            )
            WaitFor(
                lambda node=node: (
                    _Jobs(self._cluster.Data("queue", node)) == _Jobs(self._cluster.Data("queue"))
                ),
                timeout=90,
                what=f"the copy of the queue on {node}",
            )


def _Play(script):
    """Do these things, each so many seconds after the start."""
    start = time.monotonic()
    for moment, action in sorted(script, key=lambda item: item[0]):
        time.sleep(max(0.0, start + moment - time.monotonic()))
        action()


def _Jobs(directory):
    """The job files there: name -> content."""
    names = [name for name in os.listdir(directory) if name.removeprefix("job-").isdigit()]
    return {name: json.loads((directory / name).read_bytes()) for name in names}


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """The library that makes disks fail; None where none can be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = tmp_path_factory.mktemp("lib") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-O1", "-fPIC", "-shared", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.timeout(400 + KILLS * 5)
class TestKill:
    """JQ1: kill -9 at any point."""

    def test_hundred_times(self, NewCluster, preload):
        with futures.ThreadPoolExecutor(CLUSTERS) as pool:
            clusters = list(pool.map(lambda _: NewCluster("--nodes=3"), range(CLUSTERS)))
            killed = [Killed(cluster, seed, preload) for seed, cluster in enumerate(clusters)]
            end = time.monotonic() + SECONDS

            def _Work(item):
                while item.events["kills"] < KILLS / CLUSTERS if KILLS else time.monotonic() < end:
                    item.Round()
                item.Check()

            list(pool.map(_Work, killed))
        assert sum(item.events["kills"] for item in killed) >= max(KILLS, FEWEST)
