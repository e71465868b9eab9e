"""The parser of the real xl reads what Ganeti writes for it (BASE2). No Xen is needed for that.

GANETI_TEST_XL=DIR: Debian's xen-utils-4.17 and its libraries, unpacked below DIR; or
GANETI_TEST_INSTALL=1: get and unpack them (nothing is installed). Else this is skipped.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONFIGS = sorted((HERE.parent / "data" / "xen").glob("*.cfg"))
LINKS = "/var/run/ganeti/instance-disks/inst1.example.com"

PACKAGES = [
    "xen-utils-4.17",
    "libxenmisc4.17",
    "libxentoolcore1",
    "libxentoollog1",
    "libxenstore4",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libyajl2",
    "libnl-route-3-200",
    "libnl-3-200",
    "libfdt1",
]


def Unpack(directory):
    """Get the packages as anybody would, without installing them."""
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES], cwd=directory, capture_output=True, timeout=120
    )
    if done.returncode != 0:
        pytest.skip(f"xl can not be had: {done.stderr.decode()[-500:]}")
    for package in directory.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory / "root"], check=True)
    return directory / "root"


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """Runs xl create -n on a file: what xl has understood."""
    work = tmp_path_factory.mktemp("xl")
    if "GANETI_TEST_XL" in os.environ:
        root = Path(os.environ["GANETI_TEST_XL"])
    elif os.environ.get("GANETI_TEST_INSTALL") == "1" and shutil.which("apt-get"):
        root = Unpack(work)
    else:
        pytest.skip("GANETI_TEST_XL does not say where xl is (GANETI_TEST_INSTALL=1 gets it)")
    program = next(root.glob("usr/lib/xen-*/bin/xl"), None)
    if program is None or not shutil.which("gcc"):
        pytest.skip(f"no xl below {root}, or no gcc")
    shim = work / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, HERE / "xen_shim.c", "-ldl"], check=True)
    libraries = {path.parent for path in root.glob("usr/lib/**/lib*.so.*")}
    env = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)), "LD_PRELOAD": str(shim)}

    def Run(path):
        done = subprocess.run(
            [program, "create", "-n", path], env=env, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
        return json.loads(done.stdout), warnings

    return Run


class TestXlReads:
    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_without_a_warning(self, xl, path):
        found, warnings = xl(path)
        assert warnings == []
        assert found["c_info"]["name"] == "inst1.example.com"
        assert found["c_info"]["type"] == ("pv" if path.stem.startswith("pvm") else "hvm")
        assert found["b_info"]["max_memkb"] == 512 * 1024
        assert found["b_info"]["max_vcpus"] == 2

    def test_pvm(self, xl):
        found, _ = xl(HERE.parent / "data" / "xen" / "pvm-full.cfg")
        assert found["b_info"]["cmdline"] == "root=/dev/xvda1 ro init='/bin/a b' x=\\\""
        assert found["b_info"]["ramdisk"] == "/boot/initrd"
        assert [
            (disk["pdev_path"], disk["vdev"], bool(disk.get("readwrite")))
            for disk in found["disks"]
        ] == [
            (f"{LINKS}:0", "xvda", True),
            (f"{LINKS}:1", "xvdb", False),
            (f"{LINKS}:2", "xvdc", True),
        ]
        assert [(nic["mac"], nic.get("ip"), nic.get("bridge")) for nic in found["nics"]] == [
            ("aa:00:00:00:00:01", "192.0.2.1", "xen-br0"),
            ("aa:00:00:00:00:02", "192.0.2.2", None),
            ("aa:00:00:00:00:03", None, "xen-br1"),
        ]

    def test_bootloader(self, xl):
        found, _ = xl(HERE.parent / "data" / "xen" / "pvm-bootloader.cfg")
        assert found["b_info"]["bootloader"] == "/usr/bin/pygrub"
        assert found["b_info"]["bootloader_args"] == ["--entry", "1", "-q"]

    def test_hvm(self, xl):
        found, _ = xl(HERE.parent / "data" / "xen" / "hvm-full.cfg")
        hvm = found["b_info"]["type.hvm"]
        assert hvm["firmware"] == "/usr/lib/xen/boot/hvmloader"
        assert hvm["vnc"] == {
            "enable": "True",
            "listen": "127.0.0.1",
            "passwd": "se'cr\\et",
            "display": 5107,
            "findunused": "False",
        }
        assert (hvm["boot"], hvm["pae"], found["b_info"]["acpi"]) == ("dcn", "False", "False")
        assert [(disk["vdev"], bool(disk.get("is_cdrom"))) for disk in found["disks"]] == [
            ("hda", False),
            ("hdb", False),
            ("hdc", False),
            ("hdd", True),
        ]
        assert found["disks"][3]["pdev_path"] == "/srv/isos/a, b.iso"
        assert {nic["nictype"] for nic in found["nics"]} == {"vif"}
