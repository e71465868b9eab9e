"""Testbeds for tests: nodes with networks, SSH servers and files of their own."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from bed import host
from realcluster import RealCluster

HERE = Path(__file__).parent

#: Seconds that a test may take, the making of its testbed included, on a machine that does more.
TIMEOUT = 240


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def _Missing():
    missing = host.Missing()
    if missing and os.environ.get("GANETI_TEST_INSTALL") == "1" and os.geteuid() == 0:
        subprocess.run([HERE / "testbed", "install"], check=True)
        missing = host.Missing()
    return missing


@pytest.fixture(scope="session")
def NewTestbed():
    """Makes testbeds; all are taken down in the end."""
    missing = _Missing()
    if missing:
        pytest.skip("a testbed can not run here, lacking " + "; ".join(missing))
    made = []

    def Make(*args):
        cluster = RealCluster(tempfile.mkdtemp(prefix="testbed", dir="/tmp"))
        made.append(cluster)
        cluster.Up(*args)
        return cluster

    yield Make
    for cluster in made:
        cluster.Testbed("down")
        shutil.rmtree(cluster.directory, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if not report.failed:
        return
    found = {id(value): value for value in getattr(item, "funcargs", {}).values()}
    for value in found.values():
        if isinstance(value, RealCluster) and os.path.exists(value.directory):
            report.sections.append((f"logs of {value.directory}", value.Logs()))
