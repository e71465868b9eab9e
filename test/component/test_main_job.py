"""The whole way: a cluster, instances, seen through every door, with a node killed in between.

The tests of a class are one story, told in order on one cluster.
"""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from vc import WaitFor

NODES = ["node1.example.com", "node2.example.com", "node3.example.com"]
ONE, TWO, THREE = (f"inst{number}.example.com" for number in (1, 2, 3))


def Add(cluster, name, node, *args):
    return cluster.Run(
        "gnt-instance",
        "add",
        "--no-name-check",
        "--no-ip-check",
        f"--node={node}",
        "--os-type=noop+default",
        *args,
        name,
    )


def Statuses(cluster):
    return dict(cluster.Table("gnt-instance", "list", "-o", "name,status"))


def Quick(cluster, *argv):
    """A listing, which must not take longer than a person likes to wait.

    A busy machine gets a second chance; what waits for a dead node would wait again.
    """
    for _ in range(3):
        start = time.monotonic()
        rows = cluster.Table(*argv)
        taken = time.monotonic() - start
        if taken < 2:
            return rows
    raise AssertionError(f"{argv} took {taken:.1f} s")


class TestInstances:
    """BASE1: the life of instances through commands, RAPI and confd."""

    def test_nodes(self, cluster):
        rows = cluster.Table("gnt-node", "list", "-o", "name,role,pip,mtotal")
        assert [row[:3] for row in rows] == [
            [name, "M" if name == NODES[0] else "C", cluster.Address(name.split(".")[0])]
            for name in NODES
        ]
        assert all(row[3] not in ("?", "") for row in rows)

    def test_add(self, cluster):
        result = Add(cluster, ONE, "node1", "-t", "diskless", "--net=0:ip=192.0.2.11")
        assert result.code == 0, result.err
        result = Add(cluster, TWO, "node2", "-t", "file", "--disk=0:size=16m", "-B", "memory=64")
        assert result.code == 0, result.err
        result = Add(cluster, THREE, "node3", "-t", "diskless", "--no-start")
        assert result.code == 0, result.err
        assert cluster.Table("gnt-instance", "list") == [
            [ONE, "fake", "noop+default", NODES[0], "running", "128"],
            [TWO, "fake", "noop+default", NODES[1], "running", "64"],
            [THREE, "fake", "noop+default", NODES[2], "ADMIN_down", "-"],
        ]

    def test_disk_file_is_on_its_node(self, cluster):
        path = f"srv/ganeti/file-storage/{TWO}/disk0"
        found = cluster.Root("node2") / path
        assert found.stat().st_size == 16 * 1024 * 1024
        # Sparse: it takes no space before it is written.
        assert found.stat().st_blocks * 512 < 1024 * 1024
        assert not (cluster.Root("node1") / path).exists()

    def test_os_log_is_on_its_node(self, cluster):
        logs = list((cluster.Root("node2") / "var/log/ganeti/os").iterdir())
        assert any(TWO in path.name and "noop" in path.read_text() for path in logs)

    def test_rapi(self, cluster):
        status, document = cluster.Rapi("GET", "/2/instances?bulk=1")
        assert status == 200
        found = {item["name"]: item for item in document}
        assert found[TWO]["status"] == "running"
        assert found[TWO]["oper_ram"] == 64
        assert found[TWO]["disk.sizes"] == [16]
        assert found[THREE]["admin_state"] is False
        status, document = cluster.Rapi("GET", f"/2/instances/{ONE}")
        assert (status, document["pnode"]) == (200, NODES[0])
        status, document = cluster.Rapi("GET", "/2/nodes")
        assert [item["id"] for item in document] == NODES
        status, document = cluster.Rapi("GET", "/2/info")
        assert document["name"] == "cluster.example.com"

    def test_confd(self, cluster):
        def Answer():
            return cluster.Run("confd-client", "instance-node", "192.0.2.11").out.split()

        WaitFor(lambda: Answer() == ["192.0.2.11", cluster.Address()], 10, "confd's answer")
        assert cluster.Ok("confd-client", "master").strip() == NODES[0]
        assert cluster.Ok("confd-client", "node-role", "node2.example.com").split()[-1] == (
            "candidate"
        )

    def test_info(self, cluster):
        out = cluster.Ok("gnt-instance", "info", "inst2")
        assert "State: configured to be up, actual state is up" in out
        assert "disk/0: file, size 16M" in out

    def test_by_uuid(self, cluster):
        """UU2: every command takes a UUID where it takes a name."""
        uuid = cluster.Config()["instances"][TWO]["uuid"]
        assert cluster.Table("gnt-instance", "list", "-o", "name", uuid) == [[TWO]]

    def test_shutdown_startup_reboot(self, cluster):
        cluster.Ok("gnt-instance", "shutdown", ONE)
        assert Statuses(cluster)[ONE] == "ADMIN_down"
        status, job = cluster.Rapi("PUT", f"/2/instances/{ONE}/startup")
        assert status == 200
        WaitFor(lambda: Statuses(cluster)[ONE] == "running", 10)
        status, job = cluster.Rapi("POST", f"/2/instances/{ONE}/reboot?type=hard")
        assert status == 200
        WaitFor(lambda: cluster.Rapi("GET", f"/2/jobs/{job}")[1]["status"] == "success", 10)

    def test_modify_and_tags(self, cluster):
        out = cluster.Ok("gnt-instance", "modify", "-B", "memory=256,vcpus=2", ONE)
        assert "be/memory -> 256" in out
        cluster.Ok("gnt-instance", "add-tags", ONE, "web", "blue")
        assert cluster.Ok("gnt-instance", "list-tags", ONE).split() == ["blue", "web"]
        assert cluster.Rapi("GET", f"/2/instances/{ONE}/tags") == (200, ["blue", "web"])
        cluster.Ok("gnt-instance", "remove-tags", ONE, "blue")
        assert cluster.Ok("gnt-cluster", "search-tags", "^w").split() == [
            f"/instances/{ONE}",
            "web",
        ]

    def test_reinstall_and_rename(self, cluster):
        cluster.Ok("gnt-instance", "shutdown", TWO)
        cluster.Ok("gnt-instance", "reinstall", "-f", TWO)
        with open(cluster.Root() / "etc/hosts", "a") as fobj:
            fobj.write("192.0.2.50\trenamed.example.com\n")
        cluster.Ok("gnt-instance", "rename", "--no-ip-check", TWO, "renamed.example.com")
        base = cluster.Root("node2") / "srv/ganeti/file-storage"
        assert (base / "renamed.example.com/disk0").exists()
        assert not (base / TWO).exists()
        cluster.Ok("gnt-instance", "startup", "renamed")
        assert Statuses(cluster)["renamed.example.com"] == "running"

    def test_create_and_delete_over_rapi(self, cluster):
        body = {
            "__version__": 1,
            "mode": "create",
            "name": "rapi.example.com",
            "disk_template": "diskless",
            "disks": [],
            "nics": [{}],
            "os": "noop+default",
            "pnode": "node1",
            "ip_check": False,
            "name_check": False,
        }
        status, job = cluster.Rapi("POST", "/2/instances", body)
        assert status == 200, job
        state = WaitFor(
            lambda: cluster.Rapi("GET", f"/2/jobs/{job}")[1]["status"] in ("success", "error"), 10
        )
        assert state
        assert Statuses(cluster)["rapi.example.com"] == "running"
        status, job = cluster.Rapi("DELETE", "/2/instances/rapi.example.com")
        assert status == 200
        WaitFor(lambda: "rapi.example.com" not in Statuses(cluster), 10)

    def test_verify(self, cluster):
        result = cluster.Run("gnt-cluster", "verify")
        assert result.code == 0, result.out

    def test_remove(self, cluster):
        for name in (ONE, "renamed.example.com", THREE):
            cluster.Ok("gnt-instance", "remove", "-f", name)
        assert cluster.Table("gnt-instance", "list") == []
        assert cluster.Rapi("GET", "/2/instances") == (200, [])
        assert cluster.Config()["instances"] == {}
        base = cluster.Root("node2") / "srv/ganeti/file-storage"
        assert list(base.iterdir()) == []


class TestDeadNode:
    """CF5, JQ2: a node is killed; everything else goes on, and it comes back."""

    def test_the_dead_node_is_shown_as_such(self, cluster):
        for number, name in enumerate((ONE, TWO), start=1):
            assert Add(cluster, name, f"node{number}", "-t", "diskless").code == 0
        cluster.Vcluster("kill", "node2")
        fields = "mtotal,mnode,mfree,ctotal,bootid"
        rows = {row[0]: row[1:] for row in Quick(cluster, "gnt-node", "list", f"-oname,{fields}")}
        assert rows[NODES[1]] == ["?"] * 5
        assert "?" not in rows[NODES[0]] + rows[NODES[2]]
        rows = Quick(cluster, "gnt-instance", "list", "-o", "name,status,oper_state,oper_ram")
        assert rows == [
            [ONE, "running", "running", "128"],
            [TWO, "ERROR_nodedown", "(node down)", "(node down)"],
        ]
        # What is asked of the configuration alone needs no node
        rows = dict(Quick(cluster, "gnt-instance", "list", "-o", "name,pnode"))
        assert rows[TWO] == NODES[1]
        rows = dict(Quick(cluster, "gnt-node", "list", "-o", "name,role"))
        assert rows[NODES[1]] == "C"

    def test_the_other_doors_say_the_same(self, cluster):
        _, nodes = cluster.Rapi("GET", "/2/nodes?bulk=1")
        assert [item["mfree"] is None for item in nodes] == [False, True, False]
        assert cluster.Rapi("GET", f"/2/instances/{TWO}")[1]["status"] == "ERROR_nodedown"
        # CF5: the candidates that are left answer
        assert cluster.Ok("confd-client", "master").strip() == NODES[0]

    def test_work_elsewhere_goes_on(self, cluster):
        start = time.monotonic()
        cluster.Ok("gnt-instance", "shutdown", ONE)
        cluster.Ok("gnt-instance", "startup", ONE)
        cluster.Ok("gnt-instance", "reboot", ONE)
        assert Add(cluster, THREE, "node3", "-t", "file", "--disk=0:size=16m").code == 0
        cluster.Ok("gnt-instance", "remove", "-f", THREE)
        assert time.monotonic() - start < 20
        assert Statuses(cluster) == {ONE: "running", TWO: "ERROR_nodedown"}

    def test_work_on_it_fails_clearly(self, cluster):
        for argv in (["reboot", TWO], ["startup", TWO], ["console", TWO], ["info", TWO]):
            result = cluster.Run("gnt-instance", *argv)
            assert result.code == 1, argv
            assert NODES[1] in result.err
            assert "Traceback" not in result.err
        result = Add(cluster, THREE, "node2", "-t", "diskless")
        assert result.code == 1
        assert NODES[1] in result.err
        assert THREE not in cluster.Config()["instances"]
        result = cluster.Run("gnt-cluster", "verify")
        assert result.code == 1
        assert f"ERROR: node {NODES[1]}" in result.out

    def test_it_comes_back(self, cluster):
        cluster.Ok("gnt-cluster", "add-tags", "while-it-was-away")
        cluster.Vcluster("start", "node2")
        WaitFor(lambda: Statuses(cluster)[TWO] == "running", 15, "node2's instance")

        def IsCurrent():
            tags = cluster.Data("ssconf_cluster_tags", "node2").read_text()
            same = cluster.Config("node2")["serial_no"] == cluster.Config()["serial_no"]
            return same and "while-it-was-away" in tags

        WaitFor(IsCurrent, 60, "node2's configuration and ssconf files")
        assert cluster.Run("gnt-cluster", "verify").code == 0


def Ended(cluster, jobs):
    """The states of jobs, none of which may be lost, once all have ended."""
    rows = dict(cluster.Table("gnt-job", "list", "-o", "id,status"))
    assert set(jobs) <= set(rows)
    states = {job: rows[job] for job in jobs}
    return states if set(states.values()) <= {"success", "error"} else None


class TestMasterDies:
    """JQ1: an accepted job survives the death of the master daemon."""

    def test_kill_while_instances_are_made(self, cluster, tmp_path):
        """Every accepted creation ends one way or the other, and the cluster agrees with it."""
        specs = {
            f"many{number}.example.com": {
                "template": "file",
                "os": "noop+default",
                "disk_size": [4],
                "primary_node": f"node{number % 3 + 1}",
                "ip_check": False,
                "name_check": False,
            }
            for number in range(9)
        }
        (tmp_path / "specs").write_text(json.dumps(specs))
        out = cluster.Ok("gnt-instance", "batch-create", str(tmp_path / "specs"))
        pid = int((cluster.Root() / "var/run/ganeti/ganeti-masterd.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        jobs = {name: job for job, name in re.findall(r"(?m)^(\d+): (\S+)$", out)}
        assert set(jobs) == set(specs)
        cluster.Vcluster("start", "node1")
        statuses = WaitFor(lambda: Ended(cluster, jobs.values()), 60, "the end of all jobs")
        config = cluster.Config()["instances"]
        made = {name for name, job in jobs.items() if statuses[job] == "success"}
        assert made
        assert made <= set(config)
        rows = dict(cluster.Table("gnt-instance", "list", "-o", "name,status"))
        assert {rows[name] for name in made} == {"running"}
        # What was cut off in the middle can be cleared away like the rest
        for name in set(config) & set(jobs):
            assert cluster.Rapi("DELETE", f"/2/instances/{name}")[0] == 200
        WaitFor(lambda: not set(Statuses(cluster)) & set(jobs), 30, "the end of the instances")
        result = cluster.Run("gnt-cluster", "verify")
        assert result.code == 0, result.out

    def test_kill_with_jobs_in_the_queue(self, cluster):
        code = (
            "from ganeti import luxi, opcodes\n"
            "op = opcodes.OpTestDelay(duration=0.05, on_master=True, on_nodes=[])\n"
            "results = luxi.Client().SubmitManyJobs([[op] for _ in range(60)])\n"
            "print(' '.join(str(job) for ok, job in results if ok))\n"
        )
        python = os.path.join(cluster.env["PATH"].split(":")[3], "python")
        jobs = cluster.Ok(python, "-c", code).split()
        assert len(jobs) == 60
        pid = int((cluster.Root() / "var/run/ganeti/ganeti-masterd.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        result = cluster.Run("gnt-job", "list")
        assert result.code == 1
        assert "Traceback" not in result.err
        cluster.Vcluster("start", "node1")

        states = WaitFor(lambda: Ended(cluster, jobs), 60, "the end of all jobs")
        assert "success" in states.values()


class TestDestroy:
    def test_destroy(self, NewCluster):
        cluster = NewCluster("--nodes=2")
        result = cluster.Run("gnt-cluster", "destroy", "--yes-do-it")
        assert result.code == 1
        assert "node2.example.com" in result.err
        cluster.Ok("gnt-node", "remove", "node2")
        assert not cluster.Data("hmac.key", "node2").exists()
        assert cluster.Run("gnt-cluster", "destroy").code == 1
        cluster.Ok("gnt-cluster", "destroy", "--yes-do-it")
        WaitFor(lambda: not cluster.Data("config.data").exists(), 10)
        assert not cluster.Data("server.pem").exists()
        result = cluster.Run("gnt-node", "list")
        assert result.code == 1
        assert "Traceback" not in result.err


@pytest.mark.parametrize("secret", ["hmac.key", "rapi_users", "server.pem", "rapi.pem"])
def test_secrets_are_private(cluster, secret):
    for node in ("node1", "node2"):
        path = cluster.Data(secret, node)
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0
            words = path.read_text().split()
            value = words[1] if secret == "rapi_users" else words[0]
            if secret in ("hmac.key", "rapi_users"):
                found = subprocess.run(
                    ["grep", "-rlF", value, str(cluster.Root(node) / "var/log")],
                    capture_output=True,
                    text=True,
                )
                assert found.stdout == ""


def test_files_on_disk(cluster):
    """The configuration and the job files are readable JSON of the 2.1 form."""
    text = cluster.Data("config.data").read_text()
    document = json.loads(text)
    assert json.dumps(document, indent=2, sort_keys=True) + "\n" == text
    assert document["version"] == 2010000
    job = json.loads(cluster.Data("queue/job-1").read_text())
    assert {"id", "ops", "received_timestamp", "start_timestamp", "end_timestamp"} <= set(job)
    assert job["id"] == "1"
    assert job["ops"][0]["input"]["OP_ID"] == "OP_CLUSTER_POST_INIT"
    assert int(cluster.Data("queue/serial").read_text()) >= 1
    assert cluster.Data("queue/version").read_text() == "1\n"
    assert cluster.Data("ssconf_node_list").read_text() == "".join(f"{name}\n" for name in NODES)
