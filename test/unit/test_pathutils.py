"""Paths below the root of a virtual node, and what virtual nodes tell each other of them."""

import os
import subprocess
import sys

from ganeti import pathutils


class TestRoot:
    """BASE6: every path of a virtual node lies below its root."""

    def test_paths_are_below_the_root(self):
        root = os.environ["GANETI_ROOTDIR"]
        # Not below it: what the configuration stores, a bare name, devices and programs of others.
        others = {"EXPORT_CONF_FILE", "BOOT_ID_FILE", "SYSLOG_SOCKET"}
        others |= {"DEFAULT_FILE_STORAGE_DIR", "DEFAULT_SHARED_FILE_STORAGE_DIR"}
        checked = 0
        for name, value in vars(pathutils).items():
            if name.endswith(("_DIR", "_FILE", "_SOCKET")) and name not in others:
                assert value.startswith(root + "/"), name
                checked += 1
        assert checked > 20

    def test_local_path(self):
        root = pathutils.ROOTDIR
        assert pathutils.LocalPath("/srv/x") == root + "/srv/x"
        assert pathutils.LocalPath(root + "/srv/x") == root + "/srv/x"
        assert pathutils.LocalPath(root + "2/srv/x") == root + root + "2/srv/x"

    def test_other_node(self):
        other = pathutils.VirtualNodeRoot("node2.example.com")
        assert os.path.dirname(other) == os.path.dirname(pathutils.ROOTDIR)
        assert os.path.basename(other) == "node2.example.com"

    def test_relative_root_is_refused(self):
        result = subprocess.run(
            [sys.executable, "-c", "from ganeti import pathutils"],
            env={**os.environ, "GANETI_ROOTDIR": "some/where"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert "GANETI_ROOTDIR='some/where' must be an absolute" in result.stderr


class TestWire:
    """A message names paths of the node that reads it, not of the one that wrote it."""

    def test_round_trip(self):
        root = pathutils.ROOTDIR
        message = [
            root,
            root + "/var/lib",
            root + "x",
            "/srv",
            {root + "/key": [1, None, ("a", root + "/b")]},
        ]
        wire = pathutils.ToWire(message)
        assert wire == [
            "/@root@",
            "/@root@/var/lib",
            root + "x",
            "/srv",
            {"/@root@/key": [1, None, ["a", "/@root@/b"]]},
        ]
        back = pathutils.FromWire(wire)
        assert back[:4] == message[:4]
        assert back[4] == {root + "/key": [1, None, ["a", root + "/b"]]}

    def test_paths_of_another_node(self):
        other = pathutils.VirtualNodeRoot("node2.example.com")
        assert pathutils.FromWire(["/@root@/var", "/srv"], "node2.example.com") == [
            other + "/var",
            "/srv",
        ]
        assert pathutils.AsHere(other + "/var", "node2.example.com") == pathutils.ROOTDIR + "/var"
        assert pathutils.AsHere("/srv", "node2.example.com") == "/srv"
