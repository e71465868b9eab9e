"""BASE3: hook scripts on a cluster: where they run, what they are told, what their results do."""

import time

import psutil
import pytest

from vc import WaitFor

MASTER, PRIMARY, OTHER = NODES = ("node1", "node2", "node3")
INST = "inst1.example.com"


class Hooks:
    """Scripts in the hook directories of a cluster's nodes."""

    def __init__(self, cluster):
        self.cluster = cluster

    def Base(self, node):
        return self.cluster.Root(node) / "etc/ganeti/hooks"

    def _Log(self, node):
        return self.cluster.Root(node) / "hooks.log"

    def Put(self, directory, name, body, nodes=NODES, mode=0o755):
        """Install a shell script."""
        for node in nodes:
            path = self.Base(node) / directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(mode)

    def Record(self, directory, name="50-record", mode=0o755):
        """Install a script that notes its name and all that it is told, on every node."""
        for node in NODES:
            record = 'printf "%s\\0" "SCRIPT=$0" "DIR=$PWD" "ARGS=$*" "INPUT=$(cat)"; env -0; echo'
            self.Put(directory, name, f"{{ {record}; }} >> {self._Log(node)}", [node], mode)

    def Records(self, node):
        """What was recorded on a node, in order, as dictionaries."""
        try:
            text = self._Log(node).read_text()
        except FileNotFoundError:
            return []
        return [
            dict(item.split("=", 1) for item in line.split("\0") if item)
            for line in text.splitlines()
        ]

    def Ran(self, node):
        """What was recorded, in short: path, phase and name of the script."""
        return [
            (
                found["GANETI_HOOKS_PATH"],
                found["GANETI_HOOKS_PHASE"],
                found["SCRIPT"].split("/")[-1],
            )
            for found in self.Records(node)
        ]

    def SetTimeout(self, text):
        path = self.Base(MASTER) / "timeout"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def Clean(self):
        for node in NODES:
            self.cluster.Run("rm", "-rf", str(self.Base(node)), str(self._Log(node)))


@pytest.fixture(scope="module")
def instance(cluster):
    """A running instance on the second node."""
    cluster.Ok(
        *("gnt-instance", "add", "-t", "diskless", "-o", "noop+default", "-n", PRIMARY),
        *("--no-name-check", "--no-ip-check", INST),
    )
    return INST


@pytest.fixture
def hooks(cluster, instance):
    found = Hooks(cluster)
    yield found
    found.Clean()


def Reboot(cluster, *args, **kwargs):
    return cluster.Run("gnt-instance", "reboot", "-t", "hard", *args, INST, **kwargs)


def NewestJob(cluster):
    return cluster.Ok("gnt-job", "list", "--no-headers", "-o", "id").split()[-1]


def JobLog(cluster):
    """The log of the newest job, as texts."""
    _, job = cluster.Rapi("GET", f"/2/jobs/{NewestJob(cluster)}")
    return [entry[-1] for entry in job["oplog"][0]]


def Living(argument):
    """Processes with an argument of their own."""
    found = []
    for proc in psutil.process_iter():
        try:
            if argument in proc.cmdline():
                found.append(proc.pid)
        except psutil.Error:
            continue
    return found


class TestWhereAndWhat:
    def test_nodes_phases_and_environment(self, cluster, hooks):
        hooks.Record("instance-reboot-pre.d")
        hooks.Record("instance-reboot-post.d")
        assert Reboot(cluster).code == 0
        both = [("instance-reboot", phase, "50-record") for phase in ("pre", "post")]
        assert hooks.Ran(MASTER) == hooks.Ran(PRIMARY) == both
        assert hooks.Ran(OTHER) == []
        for node in (MASTER, PRIMARY):
            pre, post = hooks.Records(node)
            assert (pre["DIR"], pre["ARGS"], pre["INPUT"]) == ("/", "", "")
            assert pre["GANETI_OP_CODE"] == "OP_INSTANCE_REBOOT"
            assert pre["GANETI_INSTANCE_NAME"] == INST
            assert pre["GANETI_INSTANCE_PRIMARY"] == f"{PRIMARY}.example.com"
            assert pre["GANETI_MASTER"] == f"{MASTER}.example.com"
            assert pre["GANETI_HOOKS_TIMEOUT"] == "300"
            # A node's own place, not the master's.
            assert pre["GANETI_DATA_DIR"] == str(cluster.Data("x", node).parent)
            # Nothing of the node daemon's environment, but what the shell itself adds.
            given = {key for key in pre if not key.startswith("GANETI_")}
            assert given <= {
                "SCRIPT",
                "DIR",
                "ARGS",
                "INPUT",
                "PATH",
                "PWD",
                "SHLVL",
                "_",
                "OLDPWD",
            }
            assert "GANETI_ROOTDIR" not in pre
            for key in set(pre) - {"SCRIPT", "GANETI_HOOKS_PHASE"}:
                assert post[key] == pre[key], key

    def test_which_names_run_and_in_which_order(self, cluster, hooks):
        directory = "instance-reboot-pre.d"
        for name in ("20-b", "10_A", "Z", "a"):
            hooks.Record(directory, name)
        for name in ("30.sh", ".hidden", "40~", "50 x", "60-old.bak"):
            hooks.Record(directory, name)
        hooks.Record(directory, "70-not-executable", mode=0o644)
        (hooks.Base(PRIMARY) / directory / "80-dir").mkdir()
        assert Reboot(cluster).code == 0
        assert [name for _, _, name in hooks.Ran(PRIMARY)] == ["10_A", "20-b", "Z", "a"]

    def test_config_update(self, cluster, hooks):
        """On the master only, after the post hooks, told what changed; only after a change."""
        hooks.Record("config-update-post.d")
        hooks.Record("instance-modify-post.d")
        cluster.Ok("gnt-instance", "modify", "-B", "memory=256", INST)
        assert [ran[:2] for ran in hooks.Ran(MASTER)] == [
            ("instance-modify", "post"),
            ("config-update", "post"),
        ]
        assert [ran[0] for ran in hooks.Ran(PRIMARY)] == ["instance-modify"]
        assert hooks.Records(MASTER)[1]["GANETI_INSTANCE_MEMORY"] == "256"
        before = hooks.Ran(MASTER)
        assert Reboot(cluster).code == 0
        cluster.Run("gnt-instance", "modify", "--dry-run", "-B", "memory=512", INST)
        assert hooks.Ran(MASTER) == before


class TestOperations:
    """What happens to an instance, from its beginning to its end: who is told, and of what."""

    NAME = "life.example.com"
    #: Command, hook path, nodes before, nodes afterwards, some of what they are told.
    LIFE = (
        (
            f"add -t sharedfile --disk=0:size=16m -o noop+default -n {PRIMARY} --no-name-check"
            f" --no-ip-check {NAME}",
            "instance-add",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"ADD_MODE": "create", "INSTANCE_DISK_TEMPLATE": "sharedfile"},
        ),
        (
            f"grow-disk {NAME} 0 16m",
            "disk-grow",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"DISK": "0", "AMOUNT": "16", "INSTANCE_DISK0_SIZE": "16"},
        ),
        (
            f"migrate -f -n {OTHER} {NAME}",
            "instance-migrate",
            (MASTER, OTHER),
            NODES,
            {"OLD_PRIMARY": f"{PRIMARY}.example.com", "NEW_PRIMARY": f"{OTHER}.example.com"},
        ),
        (
            f"failover -f -n {PRIMARY} {NAME}",
            "instance-failover",
            (MASTER, PRIMARY),
            NODES,
            {"OLD_PRIMARY": f"{OTHER}.example.com", "NEW_PRIMARY": f"{PRIMARY}.example.com"},
        ),
        (
            f"stop {NAME}",
            "instance-stop",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"TIMEOUT": "120", "INSTANCE_STATUS": "up"},
        ),
        (
            f"reinstall -f {NAME}",
            "instance-reinstall",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"INSTANCE_OS_TYPE": "noop+default", "INSTANCE_STATUS": "down"},
        ),
        (
            f"modify -B memory=256 {NAME}",
            "instance-modify",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"INSTANCE_MEMORY": "256", "INSTANCE_BE_memory": "128"},
        ),
        (
            f"rename --no-ip-check {NAME} new.example.com",
            "instance-rename",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"INSTANCE_NAME": NAME, "INSTANCE_NEW_NAME": "new.example.com"},
        ),
        (
            "start new.example.com",
            "instance-start",
            (MASTER, PRIMARY),
            (MASTER, PRIMARY),
            {"FORCE": "False"},
        ),
        (
            "remove -f --shutdown-timeout=0 new.example.com",
            "instance-remove",
            (MASTER,),
            (MASTER, PRIMARY),
            {"SHUTDOWN_TIMEOUT": "0"},
        ),
    )

    def test_life(self, cluster, hooks):
        for node in NODES:
            with (cluster.Root(node) / "etc/hosts").open("a") as hosts:
                hosts.write("127.1.2.3\tnew.example.com\n")
        for _, path, *_ in self.LIFE:
            for phase in ("pre", "post"):
                hooks.Record(f"{path}-{phase}.d")
        done = dict.fromkeys(NODES, 0)
        for command, path, before, afterwards, told in self.LIFE:
            cluster.Ok("gnt-instance", *command.split())
            for node in NODES:
                new = hooks.Records(node)[done[node] :]
                done[node] += len(new)
                phases = [
                    p for p, where in (("pre", before), ("post", afterwards)) if node in where
                ]
                assert [
                    (found["GANETI_HOOKS_PATH"], found["GANETI_HOOKS_PHASE"]) for found in new
                ] == [(path, phase) for phase in phases], (command, node)
                for found in new:
                    assert {key: found[f"GANETI_{key}"] for key in told} == told, (command, node)


class TestResults:
    def test_pre_hook_refuses(self, cluster, hooks):
        hooks.Record("instance-shutdown-post.d")
        hooks.Record("instance-stop-pre.d", "90-last")
        hooks.Put("instance-stop-pre.d", "10-no", "echo 'not on Mondays'; exit 1", [PRIMARY])
        result = cluster.Run("gnt-instance", "stop", INST)
        assert result.code == 1
        assert (
            f"node: {PRIMARY}.example.com, script: instance-stop-pre.d/10-no,"
            " output: not on Mondays" in result.err
        )
        # All scripts run even so; the operation did nothing.
        assert hooks.Ran(PRIMARY) == [("instance-stop", "pre", "90-last")]
        assert cluster.Table("gnt-instance", "list", "-o", "name,status") == [[INST, "running"]]

    def test_post_hook_failure_is_a_warning(self, cluster, hooks):
        hooks.Put("instance-reboot-post.d", "10-bad", "echo too late; exit 3", [PRIMARY])
        hooks.Put("instance-reboot-post.d", "20-mute", "kill -9 $$", [MASTER])
        assert Reboot(cluster).code == 0
        warnings = [line for line in JobLog(cluster) if "WARNING" in line]
        assert warnings == [
            f" - WARNING: On {MASTER}.example.com script instance-reboot-post.d/20-mute failed,"
            " output: (no output)",
            f" - WARNING: On {PRIMARY}.example.com script instance-reboot-post.d/10-bad failed,"
            " output: too late",
        ]

    def test_config_update_failure_is_a_warning(self, cluster, hooks):
        hooks.Put("config-update-post.d", "10-bad", "echo no backup; exit 1", [MASTER])
        cluster.Ok("gnt-instance", "modify", "-B", "memory=128", INST)
        (warning,) = [line for line in JobLog(cluster) if "WARNING" in line]
        assert "config-update-post.d/10-bad failed, output: no backup" in warning

    def test_verify(self, cluster, hooks):
        hooks.Put("cluster-verify-post.d", "10-bad", "echo disk is hot; exit 1", [OTHER])
        result = cluster.Run("gnt-cluster", "verify")
        assert result.code != 0
        assert "Script cluster-verify-post.d/10-bad failed" in result.out
        assert "      disk is hot" in result.out

    def test_node_without_daemon(self, cluster, hooks):
        """It is warned of, and keeps nobody from working; unless it is marked offline."""
        hooks.Record("cluster-verify-post.d")
        cluster.Vcluster("kill", OTHER)
        try:
            result = cluster.Run("gnt-cluster", "verify")
            assert "Communication failure in hooks execution" in result.out
            assert [ran[0] for ran in hooks.Ran(PRIMARY)] == ["cluster-verify"]
        finally:
            cluster.Vcluster("start", OTHER)


class TestTimeOut:
    #: Arguments of sleep(1) that nobody else has.
    HANGS = "sleep 86407.25 & echo asking the inventory; timeout 86407.5 sleep 86407.75"

    @pytest.fixture(autouse=True)
    def no_process_is_left(self):
        yield
        for argument in ("86407.25", "86407.5", "86407.75"):
            assert Living(argument) == []

    def test_hanging_pre_hook(self, cluster, hooks):
        """Ended with all that it started, reported as any other refusal; the job says it waits."""
        hooks.SetTimeout("3\n")
        hooks.Put("instance-stop-pre.d", "10-hangs", self.HANGS, [PRIMARY])
        start = time.monotonic()
        cluster.Ok("gnt-instance", "stop", "--submit", INST)
        job_id = NewestJob(cluster)
        step = "running pre hooks of instance-stop on node1.example.com, node2.example.com"
        WaitFor(lambda: step in cluster.Ok("gnt-job", "why", job_id), 3, "the step")
        assert Living("86407.75")
        assert f"Now: {step} (each script may take 3 s)" in cluster.Ok("gnt-job", "info", job_id)
        result = cluster.Run("gnt-job", "watch", job_id)
        assert result.code == 1
        assert 2.5 < time.monotonic() - start < 20
        assert "10-hangs, output: asking the inventory\\nended after 3 s (time-out)" in result.err
        assert cluster.Table("gnt-instance", "list", "-o", "status") == [["running"]]
        assert "Now:" not in cluster.Ok("gnt-job", "info", job_id)
        log = (cluster.Root(PRIMARY) / "var/log/ganeti/node-daemon.log").read_text()
        assert "Hook script instance-stop-pre.d/10-hangs failed" in log

    def test_hanging_post_hook(self, cluster, hooks):
        hooks.SetTimeout("1")
        hooks.Put("instance-reboot-post.d", "10-hangs", self.HANGS, [MASTER])
        assert Reboot(cluster).code == 0
        (warning,) = [line for line in JobLog(cluster) if "WARNING" in line]
        assert warning.endswith("asking the inventory\\nended after 1 s (time-out)")

    def test_child_that_keeps_the_output_open(self, cluster, hooks):
        hooks.SetTimeout("1")
        hooks.Put("instance-reboot-post.d", "10-daemon", "sleep 86407.25 & exit 0", [MASTER])
        assert Reboot(cluster).code == 0
        (warning,) = [line for line in JobLog(cluster) if "WARNING" in line]
        assert "the script was over (exit code 0), but a process that it started" in warning

    def test_whole_directory(self, cluster, hooks):
        """Three times that of one script; who is not begun by then has failed."""
        hooks.SetTimeout("1")
        for number in range(5):
            hooks.Put("instance-stop-pre.d", f"{number}", self.HANGS, [PRIMARY])
        result = cluster.Run("gnt-instance", "stop", INST)
        assert result.code == 1
        lines = [line for line in result.err.splitlines() if "script: " in line]
        assert len(lines) == 5
        assert "ended after 1 s (time-out)" in lines[0]
        assert "not run: the scripts before it took 3 s" in lines[4]
        assert "all of instance-stop-pre.d together may take 3 s" in lines[4]

    def test_endless_output(self, cluster, hooks):
        """It costs the node daemon no memory, and the job only beginning and end."""
        pid = (cluster.Root(PRIMARY) / "var/run/ganeti/ganeti-noded.pid").read_text()
        daemon = psutil.Process(int(pid))
        before = daemon.memory_info().rss
        hooks.SetTimeout("2")
        hooks.Put("instance-reboot-post.d", "10-endless", "echo begin; yes", [PRIMARY])
        assert Reboot(cluster).code == 0
        (warning,) = [line for line in JobLog(cluster) if "WARNING" in line]
        assert "output: begin\\ny\\n" in warning
        assert " bytes left out ...]" in warning
        assert warning.endswith("ended after 2 s (time-out)")
        assert len(warning) < 300000
        assert daemon.memory_info().rss - before < 32 * 2**20

    @pytest.mark.parametrize(("text", "limit"), [("7\n", "7"), ("5 minutes\n", "300")])
    def test_file(self, cluster, hooks, text, limit):
        """Read at each use; nonsense is told to the log."""
        hooks.SetTimeout(text)
        hooks.Record("instance-reboot-pre.d")
        assert Reboot(cluster).code == 0
        assert hooks.Records(PRIMARY)[0]["GANETI_HOOKS_TIMEOUT"] == limit
        log = (cluster.Root() / "var/log/ganeti/master-daemon.log").read_text()
        assert ("not '5 minutes'; using 300 s" in log) == (limit == "300")
