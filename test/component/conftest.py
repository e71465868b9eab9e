"""Virtual clusters for component tests: made and driven as a user would, from the outside."""

import shutil
import tempfile

import pytest

from vc import Cluster


@pytest.fixture(scope="session")
def NewCluster():
    """Makes virtual clusters; all are taken down in the end."""
    made = []

    def Make(*args, timeout=180):
        directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
        cluster = Cluster(directory)
        made.append(cluster)
        result = cluster.Vcluster("up", *args, timeout=timeout)
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
    found = item.funcargs.get("cluster") if hasattr(item, "funcargs") else None
    if report.failed and isinstance(found, Cluster):
        report.sections.append(("logs of the cluster", found.Logs()))
