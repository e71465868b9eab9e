"""JQ1, JQ2: the real master daemon is killed again and again while it works.

The same promises as in the simulation, on a real disk and with real node daemons: no accepted job
is lost, none runs twice, the configuration is valid and has what was answered.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from ganeti import constants, errors, luxi, opcodes
from vc import TREE, WaitFor

#: Kills, and seconds that they may take: whatever is reached first ends it.
KILLS = int(os.environ.get("CRASH_KILLS", "100"))
SECONDS = 120.0
#: So few would show nothing.
FEWEST = 15

HOOK = """#!/bin/sh
echo "$GANETI_INSTANCE_NAME" >> {path}
"""


class Killed:
    """A cluster whose master daemon is killed, and what its clients were told.

    @ivar accepted: job id -> name of the instance that it creates, or the tag that it sets
    """

    def __init__(self, cluster):
        self._cluster = cluster
        self._random = random.Random(7)
        self._count = 0
        self.accepted = {}
        self.log = os.path.join(cluster.directory, "created")
        self.socket = str(cluster.Root() / "var/run/ganeti/socket/ganeti-master")
        hooks = cluster.Root() / "etc/ganeti/hooks/instance-add-pre.d"
        hooks.mkdir(parents=True)
        script = hooks / "log"
        script.write_text(HOOK.format(path=self.log))
        script.chmod(0o755)

    def Pid(self):
        path = self._cluster.Root() / "var/run/ganeti/ganeti-masterd.pid"
        return int(path.read_text())

    def Start(self):
        """Start the master daemon; wait until it answers."""
        subprocess.run(
            [str(TREE / "daemons" / "ganeti-masterd")],
            env=self._cluster.env,
            check=True,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )

    def Kill(self):
        """Kill it, at any moment."""
        pid = self.Pid()
        os.kill(pid, signal.SIGKILL)
        WaitFor(lambda: not os.path.exists(f"/proc/{pid}/exe"), what="the end of the daemon")

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

    def WorkUntilKilled(self):
        """Clients work; the daemon dies in the middle of it."""
        deadline = time.monotonic() + self._random.uniform(0.05, 0.6)
        killer = subprocess.Popen(
            ["sh", "-c", 'sleep "$1"; kill -9 "$2"', "-", f"{deadline - time.monotonic():.3f}"]
            + [str(self.Pid())]
        )
        pid = self.Pid()
        try:
            while os.path.exists(f"/proc/{pid}/exe"):
                self.SubmitSome()
                time.sleep(self._random.choice([0.0, 0.02, 0.1]))
        except (luxi.ProtocolError, errors.GenericError, OSError):
            # It died; those without an answer may be there or not.
            pass
        killer.wait(timeout=10)
        WaitFor(lambda: not os.path.exists(f"/proc/{pid}/exe"), what="the end of the daemon")

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


@pytest.mark.timeout(400)
class TestKill:
    """JQ1: kill -9 at any point."""

    def test_hundred_times(self, NewCluster):
        cluster = NewCluster("--nodes=3")
        killed = Killed(cluster)
        end = time.monotonic() + SECONDS
        kills = 0
        while kills < KILLS and time.monotonic() < end:
            killed.WorkUntilKilled()
            kills += 1
            killed.Start()
        assert kills >= min(KILLS, FEWEST)
        WaitFor(
            lambda: all(row[0] in constants.JOBS_FINALIZED for row in killed.Statuses().values()),
            timeout=60,
            what="the end of all jobs",
        )
        statuses = killed.Statuses()
        created = killed.Created()
        twice = {name: count for name, count in created.items() if count > 1}
        assert not twice, f"created more than once: {twice}"

        config = cluster.Config()
        tags = set(config["cluster"]["tags"])
        ended = Counter()
        for job_id, what in killed.accepted.items():
            assert job_id in statuses, f"job {job_id} ({what}) is lost"
            status, results, summary = statuses[job_id]
            ended[status] += 1
            if status == constants.JOB_STATUS_SUCCESS:
                assert what in tags or (created[what] == 1 and what in config["instances"])
            else:
                assert results == ["Unclean master daemon shutdown"], (summary, results)
        print(f"{kills} kills, {len(killed.accepted)} jobs accepted, ended: {dict(ended)}")
        # Both did happen, and in many rounds something was accepted.
        assert ended[constants.JOB_STATUS_SUCCESS] > kills / 4
        assert len(killed.accepted) > kills / 2
        assert "Error" not in cluster.Ok("gnt-cluster", "verify")
        # Nothing is left of writes that were cut off, but what the last one left.
        leftovers = list(cluster.Data("queue").glob("*.new"))
        assert len(leftovers) < 30, leftovers
        # Whoever has to has the same, once it was told.
        for node in ("node2", "node3"):
            WaitFor(
                lambda node=node: cluster.Config(node) == config,
                timeout=60,
                what=f"the configuration of {node}",
            )
            WaitFor(
                lambda node=node: (
                    _Jobs(cluster.Data("queue", node)) == _Jobs(cluster.Data("queue"))
                ),
                timeout=60,
                what=f"the copy of the queue on {node}",
            )


def _Jobs(directory):
    """The job files there: name -> content."""
    names = [name for name in os.listdir(directory) if name.removeprefix("job-").isdigit()]
    return {name: (directory / name).read_bytes() for name in names}
