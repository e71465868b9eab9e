"""Allocator scripts on a virtual cluster: a small one of ours, bad ones, and hail of Ganeti 3.0."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from ganeti import errors, iallocator
from ganeti.cmdlib import fake

NODES = [f"node{number}.example.com" for number in (1, 2, 3)]

#: Takes the nodes with most free memory; writes down what it was asked.
GOOD = """\
#!/usr/bin/env python3
import json, os, stat, sys

(path,) = sys.argv[1:]
assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
with open(path) as fobj:
    data = json.load(fobj)
with open("%(seen)s", "w") as fobj:
    json.dump(data, fobj)
request = data["request"]
barred = data["instances"].get(request.get("name"), {"nodes": []})["nodes"]
nodes = sorted(
    (-node["free_memory"], name)
    for name, node in data["nodes"].items()
    if not node["offline"] and not node["drained"] and name not in barred
)
print("a word on stderr", file=sys.stderr)
chosen = [name for _, name in nodes][: request.get("required_nodes", 0)]
print(json.dumps({"success": True, "info": "fine", "result": chosen}))
"""
SCRIPTS = {
    "good": GOOD,
    "refuses": """#!/bin/sh\necho '{"success": false, "info": "no room at all", "result": []}'\n""",
    "garbage": "#!/bin/sh\necho 'Hello, world'\n",
    "fails": "#!/bin/sh\necho 'my last words' >&2\nexit 3\n",
    "strangers": """#!/bin/sh\necho '{"success": true, "info": "", "result": ["nosuch"]}'\n""",
    "floods": "#!/bin/sh\nyes '{' | head -c 20000000\n",
    "plain-file": "#!/bin/sh\n",
}
HAIL = [os.environ.get("GANETI_TEST_HAIL"), "/usr/lib/ganeti/iallocators/hail"]

MIRRORED = "drbd"
_NIC = {"mac": "aa:00:00:00:00:01", "ip": None, "mode": "bridged", "link": "b", "bridge": "b"}


@pytest.fixture(scope="module")
def ready(cluster):
    """The cluster with allocators on its master."""
    directory = Path(
        cluster.Ok(
            "python3",
            "-c",
            "from ganeti import pathutils; print(pathutils.IALLOCATOR_SEARCH_PATH[0])",
        ).strip()
    )
    assert directory.is_relative_to(cluster.directory)
    directory.mkdir(parents=True, exist_ok=True)
    cluster.seen = directory / "seen.json"
    for name, text in SCRIPTS.items():
        path = directory / name
        path.write_text(text.replace("%(seen)s", str(cluster.seen)))
        path.chmod(0o644 if name == "plain-file" else 0o755)
    hail = next((path for path in HAIL if path and os.path.exists(path)), None)
    if hail is not None:
        for name, options in (("hail", ""), ("hail-nocap", "--no-capacity-checks ")):
            path = directory / name
            path.write_text(f'#!/bin/sh\nexec {hail} {options}"$@"\n')
            path.chmod(0o755)
    cluster.hail = hail
    return cluster


def Test(cluster, *args, direction="out", mode="allocate"):
    return cluster.Run("gnt-debug", "allocator", "--dir", direction, "-m", mode, *args)


class TestScripts:
    """IA1: scripts through the command for tests."""

    def test_what_it_is_asked(self, ready):
        options = ("-t", MIRRORED, "--disks", "1g,512m", "-o", "noop", "--tags", "a,b")
        shown = Test(ready, *options, "new.example.com", direction="in")
        assert shown.code == 0, shown.err
        answered = Test(ready, "-I", "good", *options, "new.example.com")
        assert answered.code == 0, answered.err
        assert len(set(json.loads(answered.out)["result"]) & set(NODES)) == 2
        data, seen = json.loads(shown.out), json.loads(ready.seen.read_text())
        for document in (data, seen):  # Free memory changes
            for node in document["nodes"].values():
                assert node.pop("free_memory") > 0
                assert node["total_memory"] > 0
        assert seen == data
        assert data["request"]["disk_space_total"] == 1024 + 512 + 2 * 128
        assert data["request"]["tags"] == ["a", "b"]

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("fails", ["exit code 3", "my last words"]),
            ("floods", ["printed more than the 8 MiB"]),
            ("plain-file", ["can not be executed", "iallocators/plain-file"]),
            ("missing", ["not found", "/iallocators"]),
        ],
    )
    def test_failures(self, ready, name, words):
        result = Test(ready, "-I", name, "-t", "plain", "new.example.com")
        assert (result.code, result.out) == (1, "")
        for word in words:
            assert word in result.err
        assert "Traceback" not in result.err

    def test_nothing_is_left_behind(self, ready):
        before = set(Path("/tmp").glob("ganeti-iallocator.*"))
        Test(ready, "-I", "fails", "-t", "plain", "new.example.com")
        assert set(Path("/tmp").glob("ganeti-iallocator.*")) <= before

    def test_what_it_says_aside_is_logged(self, ready):
        Test(ready, "-I", "good", "-t", "plain", "new.example.com")
        assert "a word on stderr" in (ready.Root() / "var/log/ganeti/node-daemon.log").read_text()


def Add(cluster, script, name, *args):
    return cluster.Run(
        "gnt-instance", "add", "-t", "diskless", "-I", script, "-o", "noop+default",
        "--no-name-check", "--no-ip-check", *args, name,
    )  # fmt: skip


class TestOperations:
    """IA1, IA2, IA3: what uses allocators."""

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("refuses", ["insufficient_resources", "no room at all"]),
            ("garbage", ["no JSON", "Hello, world"]),
            ("strangers", ["nosuch"]),
            ("fails", ["my last words"]),
            ("missing", ["not found"]),
        ],
    )
    def test_creation_is_refused(self, ready, name, words):
        result = Add(ready, name, "i0.example.com")
        assert result.code == 1
        for word in words:
            assert word in result.err
        assert "i0.example.com" not in ready.Ok("gnt-instance", "list")

    def test_dry_run(self, ready):
        result = Add(ready, "good", "i1.example.com", "--dry-run")
        assert result.code == 0, result.err
        assert "via iallocator good" in result.err + result.out
        assert "i1.example.com" not in ready.Ok("gnt-instance", "list")

    def test_creation(self, ready):
        result = Add(ready, "good", "i1.example.com")
        assert result.code == 0, result.err
        ((node,),) = ready.Table("gnt-instance", "list", "-o", "pnode", "i1.example.com")
        assert node in NODES

    def test_default(self, ready):
        ready.Ok("gnt-cluster", "modify", "--default-iallocator", "allocate:refuses,good")
        argv = ("gnt-instance", "add", "-t", "diskless", "-o", "noop+default")
        result = ready.Run(*argv, "--no-name-check", "--no-ip-check", "i2.example.com")
        assert result.code == 0, result.err
        assert "no room at all" in result.err + result.out
        ready.Ok("gnt-cluster", "modify", "--default-iallocator", "")

    def test_evacuation_of_nothing(self, ready):
        result = ready.Run("gnt-node", "evacuate", "-f", "-I", "good", NODES[1])
        assert (result.code, result.out) == (0, "")
        assert "No secondary instances" in result.err
        result = ready.Run("gnt-node", "evacuate", "-f", NODES[1])
        assert result.code == 1
        assert "no default one" in result.err
        status, job = ready.Rapi("POST", f"/2/nodes/{NODES[1]}/evacuate?iallocator=good")
        assert status == 200
        ready.Run("gnt-job", "watch", str(job))
        (row,) = ready.Table("gnt-job", "list", "-o", "status,opresult", str(job))
        assert row[0] == "success"
        assert "jobs" in row[1]


@pytest.fixture
def hail(ready):
    if ready.hail is None:
        pytest.skip("no hail: install ganeti-htools, or set GANETI_TEST_HAIL to its path")
    return ready


class TestHail:
    """IA1: the document is what hail of Ganeti 3.0 wants."""

    @pytest.mark.parametrize(
        ("template", "number"),
        [("diskless", 1), ("file", 1), ("sharedfile", 1)],
    )
    @pytest.mark.parametrize("script", ["hail", "hail-nocap"])
    def test_allocate(self, hail, script, template, number):
        result = Test(hail, "-I", script, "-t", template, "--disks", "16m", "new.example.com")
        assert result.code == 0, result.err
        answer = json.loads(result.out)
        assert answer["success"], answer["info"]
        assert len(set(answer["result"]) & set(NODES)) == number

    def test_creation(self, hail):
        result = Add(hail, "hail", "i3.example.com")
        assert result.code == 0, result.err
        assert "via iallocator hail" in result.err + result.out

    def test_too_big(self, hail):
        result = Add(hail, "hail", "i4.example.com", "-B", "memory=100000000")
        assert result.code == 1
        assert "insufficient_resources" in result.err
        assert "Request failed" in result.err


class _Unit:
    """As much of a logical unit as choosing needs."""

    def __init__(self, world):
        self.cfg, self.rpc, self.log = world.cfg, world.rpc, []

    def LogInfo(self, message, *args):
        self.log.append(message % args)

    def LogWarning(self, message, *args, hint=None):
        self.log.append(message % args)


@pytest.fixture
def unit():
    """Four nodes in memory with volume groups and mirrored instances, and the real hail."""
    path = next((path for path in HAIL if path and os.path.exists(path)), None)
    if path is None:
        pytest.skip("no hail: install ganeti-htools, or set GANETI_TEST_HAIL to its path")
    world = fake.NewWorld(4)
    for number, (primary, secondary) in enumerate([(1, 2), (3, 2), (4, 1)], 1):
        world.Run(
            fake.NewCreate(
                f"i{number}.example.com",
                f"node{primary}.example.com",
                snode=f"node{secondary}.example.com",
                disk_template="drbd",
                start=False,
            )
        )

    def Run(text):
        with tempfile.NamedTemporaryFile("w") as fobj:
            fobj.write(text)
            fobj.flush()
            done = subprocess.run([path, fobj.name], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise LookupError(done.stderr)
        return done.stdout

    world.rpc.allocators["hail"] = Run
    found = _Unit(world)
    found.world = world
    return found


def _Request(**values):
    return {
        "name": "new.example.com",
        "disk_template": "drbd",
        "disks": [{"size": 1024, "mode": "rw"}],
        "nics": [_NIC],
        "os": "noop+default",
        "memory": 256,
        "vcpus": 1,
        **values,
    }


class TestHailOnVolumes:
    """IA1: the same with nodes that have volume groups, in every mode."""

    @pytest.mark.parametrize(("template", "number"), [("plain", 1), ("drbd", 2)])
    def test_allocate(self, unit, template, number):
        found = iallocator.Choose(unit, "hail", "allocate", **_Request(disk_template=template))
        assert len(found) == number

    def test_a_drained_node_is_not_chosen(self, unit):
        for name in ("node1.example.com", "node3.example.com"):
            node = unit.cfg.GetNodeInfo(name)
            node.drained, node.master_candidate = True, False
            unit.cfg.Update(node, None)
        found = iallocator.Choose(unit, "hail", "allocate", **_Request())
        assert sorted(found) == ["node2.example.com", "node4.example.com"]

    def test_a_dead_node_is_not_chosen(self, unit):
        unit.rpc.Fail("node_info", "dead", nodes=["node4.example.com"])
        found = iallocator.Choose(unit, "hail", "allocate", **_Request())
        assert "node4.example.com" not in found

    @pytest.mark.parametrize(
        "values", [{"disks": [{"size": 60000, "mode": "rw"}]}, {"memory": 100000}]
    )
    def test_refused(self, unit, values):
        with pytest.raises(errors.OpPrereqError, match="Request failed"):
            iallocator.Choose(unit, "hail", "allocate", **_Request(**values))

    def test_relocate(self, unit):
        (found,) = iallocator.Choose(unit, "hail", "relocate", name="i1.example.com")
        assert found in ("node3.example.com", "node4.example.com")

    def test_relocate_on_shared_storage(self, unit):
        cluster = unit.cfg.GetClusterInfo()
        cluster.shared_file_storage_dir = "/srv/shared"
        unit.cfg.Update(cluster, None)
        unit.world.Run(
            fake.NewCreate("i4.example.com", "node4.example.com", disk_template="sharedfile")
        )
        (found,) = iallocator.Choose(unit, "hail", "relocate", name="i4.example.com")
        assert found != "node4.example.com"

    def test_evacuate(self, unit):
        leaving = ["node1.example.com", "node2.example.com"]
        moves = dict(iallocator.Choose(unit, "hail", "multi-evacuate", evac_nodes=leaving))
        assert sorted(moves) == [f"i{number}.example.com" for number in (1, 2, 3)]
        assert not set(moves.values()) & set(leaving)
