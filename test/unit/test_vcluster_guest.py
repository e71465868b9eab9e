"""The guest of virtual clusters and tests: fetched by itself, also where apt has no index yet."""

import os

import pytest

from ganeti import errors
from ganeti.vcluster import guest


class Machine:
    """A machine on which building works once the index of packages is there."""

    def __init__(self, monkeypatch, tmp_path, index=False):
        self.index = index
        self.runs = []
        monkeypatch.setenv("GANETI_GUEST_CACHE", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(guest.platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(guest.shutil, "which", lambda name: f"/bin/{name}")
        monkeypatch.setattr(guest, "_Build", self._Build)
        monkeypatch.setattr(guest, "_Run", self._Run)

    def _Build(self, directory):
        if not self.index:
            raise guest.Unavailable("apt-cache knows no linux-image-cloud-amd64")
        directory.mkdir()

    def _Run(self, argv, cwd=None):
        self.runs.append(argv)
        self.index = True
        return ""


class TestIndex:
    def test_fetched_if_it_is_missing(self, monkeypatch, tmp_path):
        machine = Machine(monkeypatch, tmp_path)
        found = guest.Prepare(install=True)
        assert machine.runs == [["apt-get", "update"]]
        assert found.kernel.startswith(str(tmp_path))
        assert guest.Prepare(install=False) == found

    def test_left_alone_if_it_is_there(self, monkeypatch, tmp_path):
        machine = Machine(monkeypatch, tmp_path, index=True)
        guest.Prepare(install=True)
        assert machine.runs == []

    @pytest.mark.parametrize(("install", "uid"), [(False, 0), (True, 1000)])
    def test_reason_is_named(self, monkeypatch, tmp_path, install, uid):
        machine = Machine(monkeypatch, tmp_path)
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        with pytest.raises(errors.OpPrereqError, match="linux-image-cloud-amd64"):
            guest.Prepare(install=install)
        assert machine.runs == []
