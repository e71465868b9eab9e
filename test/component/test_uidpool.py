"""The user-id pool with many processes, and on a cluster (UP1-UP3).

C{GANETI_TEST_UIDPOOL_SECONDS} says how long the processes contend for ids, default 5.
"""

import collections
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from vc import CleanEnvironment

#: Seconds that processes contend.
SECONDS = float(os.environ.get("GANETI_TEST_UIDPOOL_SECONDS", "5"))
WORKERS = 50
#: Ids that nobody has.
FIRST = 4_000_000_000
POOL = range(FIRST, FIRST + 20)

#: Takes ids and gives them back until it is killed. Whoever runs under an id also locks a file of
#: that name in another directory, which the pool knows nothing of: the referee. As root, ids are
#: held by a child that runs under the id, which may outlive its parent; else by the worker itself.
#:
#: The referee's descriptors are opened first and so closed first when a process dies.
WORKER = """
import fcntl, os, random, sys, time

directory, seed = sys.argv[1], int(sys.argv[2])
POOL = range(FIRST, FIRST + 20)
referee = {
    uid: os.open(f"{directory}/held/{uid}", os.O_RDWR | os.O_CREAT, 0o666) for uid in POOL
}
log = os.open(f"{directory}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

from ganeti import errors, uidpool

rnd = random.Random(seed)


def Say(text):
    os.write(log, f"{text}\\n".encode())


def Hold(uid):
    try:
        fcntl.flock(referee[uid], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        Say(f"SHARED {uid}")


def Child(uid, ready):
    # The lock must be of this process, not of all who inherited the descriptor.
    referee[uid] = os.open(f"{directory}/held/{uid}", os.O_RDWR)
    os.setresuid(uid, uid, uid)
    Hold(uid)
    locked.Unlock()
    os.write(ready, b"x")
    time.sleep(rnd.random() * 0.05)
    os._exit(0)


def Start(uid):
    # A process under the id; returns once it runs.
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(readable)
            Child(uid, writable)
        finally:
            os._exit(1)
    os.close(writable)
    assert os.read(readable, 1) == b"x"
    os.close(readable)
    return pid


while True:
    try:
        locked = uidpool.RequestUnusedUid(POOL)
    except errors.LockError:
        Say("none")
        time.sleep(rnd.random() * 0.05)
        continue
    uid = locked.GetUid()
    if os.geteuid() == 0:
        pid = Start(uid)
        if rnd.random() < 0.5:
            locked.Unlock()
        os.waitpid(pid, 0)
    else:
        Hold(uid)
        time.sleep(rnd.random() * 0.02)
        fcntl.flock(referee[uid], fcntl.LOCK_UN)
    Say(f"had {uid}")
    if rnd.random() < 0.2:
        locked.Unlock()
        uidpool.ReleaseUid(uid)
    else:
        uidpool.ReleaseUid(locked)
""".replace("FIRST", str(FIRST))


def _Environment(tmp_path):
    return {
        **CleanEnvironment(),
        "GANETI_ROOTDIR": str(tmp_path / "node1.example.com"),
        "GANETI_HOSTNAME": "node1.example.com",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.timeout(120 + 2 * SECONDS)
class TestContention:
    """UP1, UP3: no id is ever held twice, none is lost, also where processes are killed."""

    def _Start(self, tmp_path, seed):
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(seed)],
            env=_Environment(tmp_path),
            stdin=subprocess.DEVNULL,
        )

    def test_many_processes_some_killed(self, tmp_path):
        (tmp_path / "held").mkdir()
        seed = int(time.time())
        print(f"seed {seed}")
        rnd = random.Random(seed)
        workers = [self._Start(tmp_path, seed + number) for number in range(WORKERS)]
        log = tmp_path / "log"
        killed = 0
        try:
            # The clock runs from the first id on: starting interpreters takes its time.
            while not log.exists() or b"had" not in log.read_bytes():
                time.sleep(0.05)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(rnd.random() * 0.2)
                index = rnd.randrange(WORKERS)
                assert workers[index].poll() is None, "a worker failed"
                workers[index].send_signal(signal.SIGKILL)
                workers[index].wait()
                killed += 1
                workers[index] = self._Start(tmp_path, seed + WORKERS + killed)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        lines = log.read_text().splitlines()
        counts = collections.Counter(line.split()[0] for line in lines)
        print(f"{killed} killed; {dict(counts)}")
        assert [line for line in lines if line.startswith("SHARED")] == []
        assert counts["had"] > 2 * len(POOL)
        assert killed >= 3
        used = {int(line.split()[1]) for line in lines if line.startswith("had")}
        assert used <= set(POOL)
        assert len(used) > len(POOL) / 2
        self._CheckNoneIsLost(tmp_path)

    def _CheckNoneIsLost(self, tmp_path):
        """Every id can be had, once the children that were left alone have ended."""
        code = f"""
            import time
            from ganeti import errors, uidpool
            pool = range({FIRST}, {FIRST} + 20)
            held = []
            deadline = time.monotonic() + 10
            while len(held) < 20 and time.monotonic() < deadline:
                try:
                    held.append(uidpool.RequestUnusedUid(pool))
                except errors.LockError:
                    time.sleep(0.1)
            print(*sorted(uid.GetUid() for uid in held))
        """
        out = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=_Environment(tmp_path),
            capture_output=True,
            text=True,
        ).stdout
        assert [int(word) for word in out.split()] == list(POOL)

    def test_the_referee_sees_what_is_shared(self, tmp_path):
        """The test above can fail: with a lock that excludes nobody, it does."""
        (tmp_path / "held").mkdir()
        broken = WORKER.replace(
            "rnd = random.Random(seed)",
            "rnd = random.Random(seed)\nuidpool._UidsInUse = lambda: set()\n"
            "uidpool.fcntl.flock = lambda *_: None",
        ).replace("fcntl.flock(referee", "_Flock(referee")
        broken = broken.replace("import fcntl,", "from fcntl import flock as _Flock\nimport fcntl,")
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", broken, str(tmp_path), str(number)],
                env=_Environment(tmp_path),
            )
            for number in range(10)
        ]
        log = tmp_path / "log"
        try:
            deadline = time.monotonic() + 30
            while not log.exists() or b"SHARED" not in log.read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


#: The examples of the design, which leaves in angle brackets what is not its business; but for
#: "except ..., err", which Python 3 does not have, they are as printed.
REQUEST_EXAMPLE = r"""
  from ganeti import ssconf
  from ganeti import uidpool

  # Get list of all user-ids in the uid-pool from ssconf
  ss = ssconf.SimpleStore()
  uid_pool = uidpool.ParseUidPool(ss.GetUidPool(), separator="\n")
  all_uids = set(uidpool.ExpandUidPool(uid_pool))

  uid = uidpool.RequestUnusedUid(all_uids)
  try:
    <start a process with the UID>
    # Once the process is started, we can release the file lock
    uid.Unlock()
  except ... as err:
    # Return the UID to the pool
    uidpool.ReleaseUid(uid)
"""

RELEASE_EXAMPLE = """
  from ganeti import uidpool

  uid = <get the UID the process is running under>
  <stop the process>
  uidpool.ReleaseUid(uid)
"""

#: What is in the angle brackets, and the class of the error.
FILLED = {
    "<start a process with the UID>": "process = Start(uid.GetUid())",
    "<get the UID the process is running under>": "UidOf(process)",
    "<stop the process>": "Stop(process)",
    "...": "OSError",
}


def _Fill(example):
    text = textwrap.dedent(example)
    for old, new in FILLED.items():
        text = text.replace(old, new)
    assert "<" not in text
    return text


class TestDesignExamples:
    """UP1: the code examples of the design, on a node of a cluster and with a real process."""

    @pytest.fixture
    def Run(self, cluster):
        cluster.Ok("gnt-cluster", "modify", f"--uid-pool={FIRST}-{FIRST + 3},{FIRST + 10}")

        def Run(*parts):
            prelude = """
                import os, subprocess, sys
                def Start(uid):
                    # Only root can run as somebody else
                    user = {"user": uid} if os.geteuid() == 0 else {}
                    return subprocess.Popen(["sleep", "60"], **user)
                def UidOf(process):
                    return os.stat(f"/proc/{process.pid}").st_uid
                def Stop(process):
                    process.kill()
                    process.wait()
            """
            code = "\n".join(map(textwrap.dedent, (prelude, *parts)))
            return cluster.Ok(sys.executable, "-c", code).split()

        yield Run
        cluster.Ok("gnt-cluster", "modify", "--uid-pool=")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as others")
    def test_both(self, Run):
        found = Run(
            _Fill(REQUEST_EXAMPLE),
            """
            print(uid.GetUid(), UidOf(process))
            others = []
            try:
                while True:
                    others.append(uidpool.RequestUnusedUid(all_uids))
            except Exception as err:
                print(type(err).__name__, len(others), uid.GetUid() in [x.GetUid() for x in others])
            """,
            _Fill(RELEASE_EXAMPLE),
            "print(uidpool.RequestUnusedUid(all_uids).GetUid())",
        )
        assert int(found[0]) in {*range(FIRST, FIRST + 4), FIRST + 10}
        # All others were to be had, not the one that is in use; that one again in the end.
        assert found == [found[0], found[0], "LockError", "4", "False", found[0]]

    def test_a_process_that_does_not_start(self, Run):
        broken = "\ndef Start(uid):\n    raise OSError\n"
        code = "print(os.path.exists(f'{pathutils.UIDPOOL_LOCKDIR}/{uid.GetUid()}'))"
        found = Run(broken, _Fill(REQUEST_EXAMPLE), "from ganeti import pathutils", code)
        assert found == ["False"]


class TestCluster:
    """UP2: changing and showing the pool; what is shown is taken back."""

    def _Shown(self, cluster):
        return re.search(r"uid pool: *(.*)", cluster.Ok("gnt-cluster", "info"))[1].strip()

    def _Modify(self, cluster, *args):
        return cluster.Run("gnt-cluster", "modify", *args)

    def test_story(self, cluster):
        assert self._Modify(cluster, "--uid-pool=3000-3009, 2000,").code == 0
        assert self._Shown(cluster) == "2000, 3000-3009"
        assert self._Modify(cluster, "--add-uids=4000-4005").code == 0
        shown = self._Shown(cluster)
        assert shown == "2000, 3000-3009, 4000-4005"
        assert self._Modify(cluster, "--remove-uids", "2000,3000-3009").code == 0
        assert self._Shown(cluster) == "4000-4005"
        assert self._Modify(cluster, "--uid-pool", shown).code == 0
        assert self._Shown(cluster) == shown
        for node in ("node1", "node2", "node3"):
            assert cluster.Data("ssconf_uid_pool", node).read_text() == (
                "2000\n3000-3009\n4000-4005\n"
            )
        assert cluster.Config()["cluster"]["uid_pool"] == [[2000, 2000], [3000, 3009], [4000, 4005]]
        # Nothing is shown in a form that is taken back, too.
        assert self._Modify(cluster, "--uid-pool", "").code == 0
        assert self._Shown(cluster) == ""

    @pytest.mark.parametrize(
        ("option", "value", "names"),
        [
            ("--uid-pool", "200-100", "200-100"),
            ("--uid-pool", "3000-3010,3005-3020", "3000-3010 and 3005-3020 overlap"),
            ("--add-uids", "3999-4001", "3999-4001"),
            ("--uid-pool", "-5", "'-5'"),
            ("--uid-pool", "7,x-9", "'x' in 'x-9'"),
            ("--uid-pool", "1-2-3", "'1-2-3'"),
            ("--add-uids", "4294967295", "4294967295"),
            ("--add-uids", "0", "0"),
            ("--add-uids", "5 6", "'5 6'"),
            ("--remove-uids", "4001", "4001 is not in the pool"),
        ],
    )
    def test_refused_by_name(self, cluster, option, value, names):
        assert self._Modify(cluster, "--uid-pool=4000-4005").code == 0
        result = self._Modify(cluster, f"{option}={value}")
        assert result.code == 1
        assert names in result.err
        assert "wrong_input" in result.err
        assert self._Shown(cluster) == "4000-4005"
        cluster.Ok("gnt-cluster", "modify", "--uid-pool=")

    def test_ids_of_the_system(self, cluster):
        result = self._Modify(cluster, "--uid-pool=100-200")
        assert result.code == 0
        assert "100-200 has ids below 1000" in result.out + result.err
        cluster.Ok("gnt-cluster", "modify", "--uid-pool=")
