"""Disks of instances as an operator changes them, on a virtual cluster, in files of one node and in
shared ones; and what is said of those that can not be replaced or converted."""

import pytest

NAME = "disks1.example.com"
DIRECTORIES = {"file": "srv/ganeti/file-storage", "sharedfile": "srv/ganeti/shared-file-storage"}


@pytest.fixture(params=DIRECTORIES)
def template(request, cluster):
    """An instance that is down, of this template, on the second node."""
    cluster.Ok(
        "gnt-instance", "add", "-t", request.param, "--disk", "0:size=16m", "-o", "noop+default",
        "--no-name-check", "--no-ip-check", "--no-start", "-n", "node2.example.com",
        "-B", "vcpus=1", NAME,
    )  # fmt: skip
    yield request.param
    for (name,) in cluster.Table("gnt-instance", "list", "-o", "name"):
        cluster.Run("gnt-instance", "remove", "-f", "--ignore-failures", name)


def Files(cluster, template, name=NAME):
    directory = cluster.Root("node2") / DIRECTORIES[template] / name
    return sorted(path.name for path in directory.glob("*"))


class TestModify:
    """BASE1: disks are added, changed and removed."""

    def test_disks(self, cluster, template):
        out = cluster.Ok("gnt-instance", "modify", "--disk", "add:size=32m,mode=ro", NAME)
        assert "disk/1 -> add:size=32,mode=ro" in out
        assert Files(cluster, template) == ["disk0", "disk1"]
        out = cluster.Ok("gnt-instance", "modify", "--disk", "1:mode=rw", NAME)
        assert "disk.mode/1 -> rw" in out
        out = cluster.Ok("gnt-instance", "modify", "--disk", "remove", NAME)
        assert "disk/1 -> remove" in out
        assert Files(cluster, template) == ["disk0"]
        result = cluster.Run("gnt-instance", "modify", "--disk", "remove", NAME)
        assert result.code == 1
        assert "last disk" in result.err

    def test_inherited(self, cluster, template):
        """PR1: what is inherited is marked, and can be inherited again."""
        cluster.Ok("gnt-instance", "modify", "-B", "memory=256", NAME)
        lines = cluster.Ok("gnt-instance", "info", NAME).splitlines()
        assert "      - memory: 256" in lines
        assert "      - vcpus: 1" in lines
        assert "      - auto_balance: default (True)" in lines
        assert any(line.startswith("      - mode: default (") for line in lines)
        assert any(line.startswith("      - data_flushes: default (") for line in lines)
        cluster.Ok("gnt-instance", "modify", "-B", "memory=default", NAME)
        lines = cluster.Ok("gnt-instance", "info", NAME).splitlines()
        assert any(line.startswith("      - memory: default (") for line in lines)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["replace-disks", "-s"], ["drbd"]),
        (["replace-disks", "-n", "node3"], ["drbd"]),
        (["modify", "-t", "drbd", "-n", "node3"], ["can not be converted to drbd"]),
        (["modify", "-t", "plain"], ["can not be converted to plain"]),
    ],
)
def test_what_files_can_not(cluster, template, command, words):
    result = cluster.Run("gnt-instance", *command, NAME)
    assert result.code == 1
    for word in [template, "wrong_input", *words]:
        assert word in result.err
    assert Files(cluster, template) == ["disk0"]
