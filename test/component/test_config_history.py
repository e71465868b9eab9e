"""The history of the configuration of a living cluster, as its operator sees it."""

import json

import pytest

from vc import WaitFor


def _History(cluster, *args):
    """Rows of [serial, job, opcode, what was changed]."""
    out = cluster.Ok(
        "gnt-cluster", "history", "--no-headers", "--separator=|",
        "--output=serial,job,opcode,changes", *args,
    )  # fmt: skip
    return [line.split("|") for line in out.splitlines()]


def _Tag(cluster, tag, name="web"):
    cluster.Ok("gnt-instance", "add-tags", name, tag)


def _Refused(cluster, *args):
    result = cluster.Run("gnt-cluster", "history", *args)
    assert (result.code, result.out) == (1, ""), result.err
    return result.err


@pytest.fixture(scope="module")
def files(cluster):
    """Serial number -> content of the file: after each step of the life of an instance."""
    kept = {}

    def _Do(*argv):
        cluster.Ok(*argv)
        content = cluster.Data("config.data").read_text()
        kept[json.loads(content)["serial_no"]] = content

    _Do("gnt-cluster", "modify", "-B", "vcpus=2")
    _Do(
        "gnt-instance", "add", "-n", "node2", "-t", "file", "-s", "10M", "-o", "noop+default",
        "--no-start", "--no-name-check", "--no-ip-check", "web",
    )  # fmt: skip
    _Do("gnt-instance", "modify", "-B", "memory=256", "web")
    _Do("gnt-instance", "add-tags", "web", "fast")
    _Do("gnt-instance", "remove", "-f", "web")
    _Do(
        "gnt-instance", "add", "-n", "node1", "-t", "diskless", "-o", "noop+default",
        "--no-start", "--no-name-check", "--no-ip-check", "web",
    )  # fmt: skip
    return kept


class TestOperator:
    """Who changed what, and what it was like."""

    def test_list(self, cluster, files):
        assert [row[2:] for row in _History(cluster, "--object=web")] == [
            ["INSTANCE_CREATE", "instance web (added)"],
            ["INSTANCE_SET_PARAMS", "instance web"],
            ["TAGS_SET", "instance web"],
            ["INSTANCE_REMOVE", "instance web (removed)"],
            ["INSTANCE_CREATE", "instance web (added)"],
        ]
        jobs = dict(cluster.Table("gnt-job", "list", "-o", "id,summary"))
        for _, job, opcode, _ in _History(cluster):
            assert (job, opcode) == ("-", "-") or jobs[job].startswith(opcode)

    def test_since(self, cluster, files):
        serials = [row[0] for row in _History(cluster)]
        assert [row[0] for row in _History(cluster, f"--since={serials[-2]}")] == serials[-2:]
        assert [row[0] for row in _History(cluster, "--since=1h")] == serials
        assert _History(cluster, "--since=2100-01-01") == []

    def test_show(self, cluster, files):
        serial, job, *_ = _History(cluster, "--object=web")[1]
        out = cluster.Ok("gnt-cluster", "history", "--show", serial)
        assert f"\nBy job {job}, INSTANCE_SET_PARAMS:\n  instance web:\n" in out
        assert "\n    beparams/memory: (unset) -> 256\n" in out

    def test_at(self, cluster, files):
        for serial, content in files.items():
            assert cluster.Ok("gnt-cluster", "history", "--at", str(serial)) == content

    def test_unknown(self, cluster, files):
        newest = max(files)
        assert f"the newest one is {newest}" in _Refused(cluster, "--show", str(newest + 1))
        assert f"there is no {newest + 1} yet" in _Refused(cluster, "--at", str(newest + 1))
        assert "only to 1 of " in _Refused(cluster, "--at=0")

    def test_nobody_else_may_read_it(self, cluster, files):
        assert cluster.Data("config.history").stat().st_mode & 0o077 == 0


class TestDamage:
    """The log may be cut, dirty or gone: the cluster works, and says what it does not know."""

    def test_master_killed(self, cluster, files):
        before = _History(cluster)
        cluster.Ok("sh", "-c", "kill -9 $(cat $GANETI_ROOTDIR/var/run/ganeti/ganeti-masterd.pid)")
        with cluster.Data("config.history").open("ab") as log:
            log.write(b"half a rec")
        cluster.Ok("daemon-util", "start", "ganeti-masterd")
        WaitFor(lambda: cluster.Run("gnt-cluster", "history").code == 0, what="the master")
        assert _History(cluster)[: len(before)] == before
        _Tag(cluster, "killed")
        assert _History(cluster)[-1][2:] == ["TAGS_SET", "instance web"]
        assert b"half a rec" not in cluster.Data("config.history").read_bytes()

    def test_cut(self, cluster, files):
        _Tag(cluster, "lost")
        log = cluster.Data("config.history")
        serial = _History(cluster)[-1][0]
        log.write_bytes(log.read_bytes()[:-5])
        # The first one after it notices; its own record comes with the next.
        for tag in ("noticed", "good"):
            _Tag(cluster, tag)
        result = cluster.Run("gnt-cluster", "history", f"--since={serial}")
        assert result.code == 0
        assert f"Note: change {serial} is missing" in result.err
        assert len(result.out.splitlines()) == 3

    def test_removed(self, cluster, files):
        cluster.Data("config.history").unlink()
        assert cluster.Run("gnt-cluster", "history").err == "Note: the history has no change\n"
        assert "does not reach back" in _Refused(cluster, "--at", "2")
        for tag in ("first", "second"):
            _Tag(cluster, tag)
        assert [row[2] for row in _History(cluster)] == ["TAGS_SET", "TAGS_SET"]
        serial = int(_History(cluster)[0][0])
        document = json.loads(cluster.Ok("gnt-cluster", "history", "--at", str(serial - 1)))
        assert "first" not in document["instances"]["web"]["tags"]
