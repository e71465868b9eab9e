"""Virtual clusters for component tests: made and driven as a user would, from the outside."""

import shutil
import tempfile
from pathlib import Path

import pytest
from kvmlab import GuestAssets, NewLab  # noqa: F401 - fixtures

from vc import Cluster

HERE = Path(__file__).parent

#: What C{vcluster up --hypervisor=kvm} says where virtual machines can not run.
NO_GUEST = "No guest can run here"


#: Seconds that a test may take, the making of its cluster included, on a machine that does more.
TIMEOUT = 240


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT))


@pytest.fixture(scope="session")
def NewCluster():
    """Makes virtual clusters; all are taken down in the end."""
    made = []

    def Make(*args, timeout=180):
        directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
        cluster = Cluster(directory)
        made.append(cluster)
        result = cluster.Vcluster("up", *args, timeout=timeout)
        if NO_GUEST in result.err:
            pytest.skip(f"{result.err.strip()} (GANETI_TEST_INSTALL=1 lets the tests install it)")
        assert result.code == 0, f"{result.out}\n{result.err}\n{cluster.Logs()}"
        return cluster

    yield Make
    for cluster in made:
        cluster.Vcluster("down")
        shutil.rmtree(cluster.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(NewCluster):
    """A cluster of three nodes with the fake hypervisor, shared by the tests of a module."""
    return NewCluster("--nodes=3")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if not report.failed:
        return
    found = {id(value): value for value in getattr(item, "funcargs", {}).values()}
    for value in found.values():
        if isinstance(value, Cluster):
            report.sections.append((f"logs of {value.directory}", value.Logs()))
