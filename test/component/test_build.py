"""The suite built and installed in the ways that README names, from a tree without git (BASE5)."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import venv

import pytest

from vc import TREE, CleanEnvironment

pytestmark = pytest.mark.timeout(300)


def Lacking(reason):
    """What the machine lacks is a reason to skip, except where it should have been installed."""
    if os.environ.get("GANETI_TEST_INSTALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def Run(*argv, cwd="/", env=None, code=0):
    """Run a command that ends with the given exit code; its output and errors."""
    result = subprocess.run(
        [str(arg) for arg in argv],
        cwd=cwd,
        env=env or CleanEnvironment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = "\n".join(result.stdout.splitlines()[-60:])
    assert result.returncode == code, f"{argv}: exit code {result.returncode}\n{lines}"
    return result.stdout


def Commands(source):
    """Names of the commands and daemons of a tree."""
    paths = [*source.glob("scripts/*"), *source.glob("daemons/ganeti-*")]
    return sorted(path.name for path in paths)


def PackageFiles(directory):
    """Files of a package: name -> is it executable; without what Python or the build added."""
    return {
        str(path.relative_to(directory)): bool(path.stat().st_mode & stat.S_IXUSR)
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "_buildcfg.py"
    }


def InstalledPackage(root):
    """The installed package below a directory."""
    found = [path.parent for path in root.rglob("ganeti/pathutils.py")]
    assert len(found) == 1, found
    return found[0]


def Paths(package, names):
    """Values of the installed pathutils."""
    script = f"from ganeti import pathutils as p; print([getattr(p, name) for name in {names!r}])"
    env = {**CleanEnvironment(), "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    return ast.literal_eval(Run(sys.executable, "-c", script, env=env))


def UseCluster(*programs):
    """A cluster from nothing to nothing, with no other programs than those of some directories."""
    path = ":".join([*map(str, programs), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    env = {**CleanEnvironment(), "PATH": path}
    directory = tempfile.mkdtemp(prefix="vc", dir="/tmp")
    try:

        def Vcluster(command, *args):
            return Run("env", "vcluster", command, "--dir", directory, *args, env=env)

        Vcluster("up", "--nodes=2")
        try:
            # As from a shell of the cluster, where the program must leave the virtual node first.
            Vcluster("exec", "--", "vcluster", "status", "--dir", directory)
            out = Vcluster("exec", "--", "gnt-node", "list", "--no-headers", "-o", "name")
            assert out.split() == ["node1.example.com", "node2.example.com"]
            add = "gnt-instance add --no-name-check --no-ip-check --no-nics -n node2 -t diskless"
            Vcluster("exec", "--", *add.split(), "-o", "noop+default", "instance1.example.com")
            listing = "gnt-instance list --no-headers -o name,status"
            out = Vcluster("exec", "--", *listing.split())
            assert out.split() == ["instance1.example.com", "running"]
        finally:
            Vcluster("down")
        assert not os.path.exists(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tree as people get it, without git and without what was built in it."""
    if not (TREE / ".git").exists():
        pytest.skip("the tree is no clone of the repository, which says what belongs to it")
    target = tmp_path_factory.mktemp("source") / "ganeti"
    # The repository may belong to somebody else than who runs the tests.
    git = ["git", "-c", f"safe.directory={TREE}"]
    for name in Run(*git, "ls-files", "-z", cwd=TREE).rstrip("\0").split("\0"):
        if (TREE / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="module")
def configurable(source):
    """The copy with a configure script."""
    missing = [name for name in ("autoreconf", "automake", "make") if not shutil.which(name)]
    if missing:
        Lacking(f"not installed: {', '.join(missing)}")
    Run("autoreconf", "-i", cwd=source)
    return source


def Configure(tree, directory, *args, python=sys.executable, code=0):
    directory.mkdir(exist_ok=True)
    return Run(tree / "configure", f"PYTHON={python}", *args, cwd=directory, code=code)


@pytest.fixture(scope="module")
def build(configurable, tmp_path_factory):
    """A build outside of the tree, for a prefix that this machine has nothing in."""
    directory = tmp_path_factory.mktemp("build")
    Configure(
        configurable,
        directory,
        f"--prefix={directory}/opt",
        "--sysconfdir=/etc",
        "--localstatedir=/var",
    )
    Run("make", cwd=directory)
    return directory


class TestConfigure:
    """BASE5: configure refuses what could not work, and says why."""

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            (
                "--with-lvm-stripecount=some",
                "--with-lvm-stripecount must be a number of at least 1",
            ),
            ("--with-export-dir", "--with-export-dir needs a value"),
            ("--enable-syslog=maybe", "--enable-syslog takes yes, no or only"),
        ],
    )
    def test_bad_values(self, configurable, tmp_path, option, message):
        assert message in Configure(configurable, tmp_path, option, code=1)

    def test_missing_modules(self, configurable, tmp_path):
        bare = tmp_path / "python-without-packages"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        bare.chmod(0o755)
        out = Configure(configurable, tmp_path, python=bare, code=1)
        assert re.search(r"lacks the modules:.* pycurl .*simplejson; install them", out)
        assert (tmp_path / "Makefile").exists() is False
        Configure(configurable, tmp_path, "--disable-module-check", python=bare)


class TestInstall:
    """BASE5: make install gives a suite that works without the tree it came from."""

    def test_cluster_of_the_installed_suite(self, build, source):
        Run("make", "install", cwd=build)
        prefix = build / "opt"
        assert PackageFiles(InstalledPackage(prefix)) == PackageFiles(source / "lib")
        sbin = sorted(path.name for path in (prefix / "sbin").iterdir())
        assert sbin == Commands(source)
        for path in (prefix / "sbin").iterdir():
            assert path.read_text().startswith(f"#!{sys.executable}\n"), path
        UseCluster(prefix / "sbin", prefix / "lib/ganeti/tools")

    def test_uninstall(self, build):
        Run("make", "install", f"DESTDIR={build}/root", cwd=build)
        Run("make", "uninstall", f"DESTDIR={build}/root", cwd=build)
        assert [path for path in (build / "root").rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def distcheck(build):
    """The archive, and what was said while it was built from: (path, output)."""
    out = Run("make", "distcheck", "CHECKED=test/unit/test_pathutils.py", cwd=build)
    (archive,) = build.glob("ganeti-*.tar.gz")
    return archive, out


class TestDist:
    """BASE5: the archive of make dist is complete."""

    def test_distcheck(self, distcheck):
        """Built from the archive, in a read-only tree: check, install, uninstall, dist again."""
        _, out = distcheck
        assert "archives ready for distribution" in out
        assert re.search(r"^\d+ passed", out, re.MULTILINE)

    def test_usual_prefixes(self, distcheck, tmp_path):
        """What configure is told is what the installed suite goes by."""
        archive, _ = distcheck
        Run("tar", "xf", archive, cwd=tmp_path)
        (tree,) = tmp_path.iterdir()
        directory = tmp_path / "build"
        Configure(
            tree,
            directory,
            "--prefix=/usr",
            "--sysconfdir=/etc",
            "--localstatedir=/var",
            "--with-export-dir=/srv/exports",
            "--with-os-search-path=/srv/os,/usr/share/os",
            "--with-file-storage-dir=no",
        )
        Run("make", "install", f"DESTDIR={directory}/root", cwd=directory)
        root = directory / "root"
        found = Paths(
            InstalledPackage(root),
            [
                "SOURCE_TREE",
                "DAEMONDIR",
                "DAEMON_UTIL",
                "TOOLSDIR",
                "NODE_SETUP",
                "CLUSTER_CONF_FILE",
                "HOOKS_BASE_DIR",
                "EXPORT_DIR",
                "OS_SEARCH_PATH",
                "IALLOCATOR_SEARCH_PATH",
                "ENABLE_FILE_STORAGE",
                "DEFAULT_FILE_STORAGE_DIR",
            ],
        )
        assert found == [
            "",
            "/usr/sbin",
            "/usr/lib/ganeti/daemon-util",
            "/usr/lib/ganeti/tools",
            "/usr/lib/ganeti/tools/node-setup",
            "/var/lib/ganeti/config.data",
            "/etc/ganeti/hooks",
            "/srv/exports",
            ["/srv/os", "/usr/share/os"],
            ["/usr/lib/ganeti/iallocators"],
            False,
            "",
        ]
        for name in ("/usr/lib/ganeti/daemon-util", "/usr/lib/ganeti/tools/node-setup"):
            assert os.access(f"{root}{name}", os.X_OK), name


@pytest.fixture(scope="module")
def environment(source, tmp_path_factory):
    """A virtual environment with the suite in it, and nothing else than what it asks for."""
    directory = tmp_path_factory.mktemp("pip") / "venv"
    venv.create(directory, with_pip=True)
    pip = [directory / "bin/pip", "--disable-pip-version-check"]
    probe = [*pip, "download", "-q", "--no-deps", "-d", directory, "simplejson"]
    result = subprocess.run(probe, capture_output=True, text=True)
    if result.returncode:
        Lacking(f"no package index in reach: {result.stderr.strip().splitlines()[-1]}")
    Run(*pip, "install", "-q", ".", cwd=source)
    return directory


class TestPip:
    """BASE5: pip install gives the package, the commands and the daemons."""

    def test_package(self, environment, source):
        assert PackageFiles(InstalledPackage(environment)) == PackageFiles(source / "lib")

    def test_commands(self, environment, source):
        commands = Commands(source)
        for name in [*commands, "ganeti-daemon-util", "ganeti-node-setup", "vcluster"]:
            assert os.access(environment / "bin" / name, os.X_OK), name
        for name in commands:
            assert Run(environment / "bin" / name, "--version").startswith(name), name

    def test_paths(self, environment):
        script = "from ganeti import pathutils as p; print(p.DAEMON_UTIL, p.NODE_SETUP)"
        out = Run(environment / "bin/python", "-c", script)
        assert out.split() == [
            f"{environment}/bin/ganeti-daemon-util",
            f"{environment}/bin/ganeti-node-setup",
        ]

    def test_cluster(self, environment):
        UseCluster(environment / "bin")

    def test_without_a_virtual_environment(self, environment, tmp_path):
        """The interpreter is elsewhere than the scripts: as of pip install --user."""
        package = InstalledPackage(environment)
        scripts = tmp_path / "bin"
        scripts.mkdir()
        (scripts / "ganeti-daemon-util").touch()
        env = {**CleanEnvironment(), "PYTHONUSERBASE": str(tmp_path)}
        script = (
            f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
            "from ganeti import pathutils as p; print(p.DAEMON_UTIL)"
        )
        out = Run(sys.executable, "-c", script, env=env)
        assert out.strip() == f"{scripts}/ganeti-daemon-util"
