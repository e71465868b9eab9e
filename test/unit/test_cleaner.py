"""The cleaner: what is old enough, and what it never touches (BASE3)."""

import logging
import os
import pathlib
import re

import pytest

from ganeti import pathutils
from ganeti.runtime import fake
from ganeti.watcher import cleaner

DAY = 86400
NOW = 1_800_000_000.0


class TestRules:
    @pytest.mark.parametrize(
        ("days", "old"), [(0, False), (21, False), (21.99, False), (22, True), (400, True)]
    )
    def test_age(self, days, old):
        """More than 21 whole days."""
        assert cleaner.IsOld(NOW - days * DAY, NOW) is old

    def test_logs(self):
        names = [f"cleaner-2026-{month:02}-01T01_45.9.log" for month in range(1, 60)]
        others = ["cleaner-x", "watcher.log"]
        assert cleaner.FindOldLogs([*reversed(names), *others]) == names[:9]
        assert cleaner.FindOldLogs(names[:50]) == []

    def test_name(self):
        assert re.fullmatch(r"cleaner-\d{4}-\d\d-\d\dT\d\d_\d\d\.77\.log", cleaner.LogName(NOW, 77))


class TestRun:
    @pytest.fixture(autouse=True)
    def _Quiet(self):
        yield
        root = logging.getLogger()
        for handler in list(root.handlers):
            if isinstance(handler, logging.FileHandler):
                root.removeHandler(handler)
                handler.close()

    @pytest.fixture
    def archive(self):
        path = pathlib.Path(pathutils.JOB_QUEUE_ARCHIVE_DIR)
        path.mkdir(parents=True)
        os.makedirs(pathutils.LOG_DIR)
        pathlib.Path(f"{pathutils.DATA_DIR}/ssconf_master_node").write_text("n\n")
        return path

    def _Main(self, *args):
        rt = fake.NewRuntime()
        rt.clock.Advance(NOW - rt.clock.time())
        return cleaner.Main(args, rt)

    def _Old(self, path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (NOW - 30 * DAY, NOW - 30 * DAY))
        return path

    def test_archive(self, archive):
        old = [self._Old(archive / "0" / "job-1"), self._Old(archive / "12" / "job-120001")]
        kept = [self._Old(archive / "job-5"), archive / "0" / "link", archive / "0" / "job-2"]
        kept[1].symlink_to(kept[0])
        os.utime(kept[1], (1, 1), follow_symlinks=False)
        kept[2].write_text("")
        os.utime(kept[2], (NOW, NOW))
        assert self._Main() == 0
        assert not [path for path in old if path.exists()]
        assert all(path.exists() for path in kept)
        (log,) = pathlib.Path(pathutils.LOG_CLEANER_DIR).iterdir()
        lines = log.read_text().splitlines()
        assert lines[0].startswith("Cleaner started at ")
        assert sorted(lines[1:]) == sorted(f"Removed {path}" for path in old)

    def test_no_cluster(self, archive):
        old = self._Old(archive / "0" / "job-1")
        os.unlink(f"{pathutils.DATA_DIR}/ssconf_master_node")
        assert self._Main() == 0
        assert old.exists()

    def test_no_archive(self):
        assert self._Main() == 0

    def test_parts(self, archive):
        old = self._Old(archive / "0" / "job-1")
        assert self._Main("node") == 0
        assert old.exists()
        assert self._Main("master") == 0
        assert not old.exists()

    @pytest.mark.parametrize("args", [["all"], ["node", "master"], ["--nosuch"]])
    def test_usage(self, args, capsys):
        assert self._Main(*args) == 1
        assert "Usage" in capsys.readouterr().err
        assert not os.path.exists(pathutils.LOG_CLEANER_DIR)

    def test_version(self, capsys):
        assert self._Main("--version") == 0
        assert capsys.readouterr().out.startswith("ganeti-cleaner (ganeti) ")
