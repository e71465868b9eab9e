"""The volume group that a cluster is to be made with."""

import json
import os

import pytest

from ganeti import bootstrap, errors, pathutils

MIB = 1024 * 1024


@pytest.fixture
def Group(tmp_path, monkeypatch):
    """Makes the C{vgs} of this host report volume groups: name -> MiB."""

    def Make(**groups):
        os.makedirs(pathutils.LVM_SYSTEM_DIR)
        rows = [{"vg_name": name, "vg_size": str(size * MIB)} for name, size in groups.items()]
        script = tmp_path / "vgs"
        script.write_text(f"#!/bin/sh\necho '{json.dumps({'report': [{'vg': rows}]})}'\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return Make


class TestVolumeGroup:
    def test_good(self, Group):
        Group(xenvg=20480)
        bootstrap._CheckVolumeGroup("xenvg")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("other", "volume group 'other' missing; there are: big, small"),
            ("small", "too small .20480 MiB required, 20479 MiB found"),
        ],
    )
    def test_refused(self, Group, name, text):
        Group(small=20479, big=20480)
        with pytest.raises(errors.OpPrereqError, match=f"{text}.*--no-lvm-storage"):
            bootstrap._CheckVolumeGroup(name)

    def test_lvm_is_not_installed(self, Group, monkeypatch):
        Group()
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(errors.OpPrereqError, match="is lvm2 installed"):
            bootstrap._CheckVolumeGroup("xenvg")

    def test_the_host_of_a_virtual_node_is_not_asked(self):
        with pytest.raises(errors.OpPrereqError, match="there are: none"):
            bootstrap._CheckVolumeGroup("xenvg")
