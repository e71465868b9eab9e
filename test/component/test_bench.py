"""The bench measures: each row it is asked for has a figure and a floor, and nothing stays behind.

What the figures are is nobody's business here.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import psutil
import pytest

from vc import TREE, CleanEnvironment

BENCH = TREE / "test" / "bench"
#: Cheap ones of each kind: locks, the configuration, jobs on a cluster, daemons.
ROWS = {
    "SharedLock, acquire + release",
    "LockSet of 200, acquire all + release",
    "configuration commit, 100 instances: its lock held",
    "configuration commit, 100 instances: until durable",
    "no-op job, one node, p50",
    "memory of all daemons of one node, 0 instances",
}
PATTERN = "^(" + "|".join(re.escape(name) for name in sorted(ROWS)) + ")$"


def _Argv(directory, *args):
    return [str(BENCH / "run"), f"--dir={directory}", *args]


def _Run(directory, *args):
    return subprocess.run(
        _Argv(directory, *args), env=CleanEnvironment(), capture_output=True, text=True, timeout=200
    )


def _Left(directory):
    """Processes that name the directory in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(directory) in process.environ().get("GANETI_ROOTDIR", ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def on_disk():
    """A directory on a disk: what the bench is for."""
    directory = tempfile.mkdtemp(prefix="bt-", dir="/var/tmp")
    yield directory
    shutil.rmtree(directory)


class TestBench:
    """The table is made by one command."""

    def test_rows_have_figures_and_floors(self, on_disk):
        result = _Run(on_disk, "--quick", f"--only={PATTERN}")
        assert result.returncode == 0, result.stderr
        lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert cells[0] == ["what", "target", "found", "met", "floor", "which floor", "x floor"]
        assert {len(row) for row in cells} == {len(cells[0])}
        table = {row[0]: row for row in cells[2:]}
        assert set(table) == ROWS
        for name, row in table.items():
            for cell in (row[2], row[4], row[6]):
                number = re.match(r"[\d.,]+", cell)
                assert number and float(number[0].replace(",", "")) > 0, f"{name}: {row}"
            assert row[1][0] in "≤≥" and row[3].strip("*") in ("yes", "no"), f"{name}: {row}"
        assert re.search(r"^- machine: .*\d cores, Linux", result.stdout, re.MULTILINE)
        assert re.search(r"^- load before: \d", result.stdout, re.MULTILINE)
        assert os.listdir(on_disk) == [] and _Left(on_disk) == []

    def test_interrupted_run_leaves_nothing(self, on_disk):
        bench = subprocess.Popen(
            _Argv(on_disk, "--only=no-op job, 3 candidates, p50"),
            env=CleanEnvironment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not _Left(on_disk):
            assert time.monotonic() < deadline and bench.poll() is None
            time.sleep(0.05)
        bench.send_signal(signal.SIGINT)
        _, err = bench.communicate(timeout=60)
        assert bench.returncode == 130, err
        assert os.listdir(on_disk) == [] and _Left(on_disk) == []

    def test_list_measures_nothing(self, on_disk):
        result = _Run(on_disk, "--list")
        names = [line.split("  (")[0] for line in result.stdout.splitlines()]
        assert set(names) >= ROWS and len(names) == len(set(names)), names

    def test_wrong_pattern_and_partial_page_are_refused(self, on_disk):
        for args, text in (
            (["--only=nonsense"], "no row has 'nonsense'"),
            (["--only=("], "--only"),
            (["--save", "--quick"], "--save is for the whole table"),
        ):
            result = _Run(on_disk, *args)
            assert (result.returncode, text in result.stderr) == (2, True), result.stderr

    def test_memory_is_no_disk(self):
        if not os.path.ismount("/dev/shm"):
            pytest.skip("/dev/shm is no file system of its own here")
        result = _Run("/dev/shm")
        assert result.returncode == 2 and "is not on a disk" in result.stderr


def test_figures_are_written_with_three_digits(monkeypatch):
    """Pure: how figures are shown, and which way round a ratio goes."""
    monkeypatch.syspath_prepend(str(TREE / "test"))
    from bench import table

    shown = [table.FormatFigure(value) for value in (1234567.8, 999.4, 12.34, 1.234, 0.01234, 0)]
    assert shown == ["1,234,568", "999", "12.3", "1.23", "0.0123", "0"]
    floor = table.Floor("a floor", lambda place, found: 0.0)
    less = table.Row("latency", "ms", 4, lambda place, setting: {}, "x", floor)
    more = table.Row("rate", "/s", 600, lambda place, setting: {}, "x", floor, at_least=True)
    found = [
        (result.met, result.ratio)
        for result in (
            table.Result(less, 3.0, 1.0),
            table.Result(less, 5.0, 0.0),
            table.Result(more, 500.0, 1000.0),
        )
    ]
    assert found == [(True, 3.0), (False, None), (False, 2.0)]
