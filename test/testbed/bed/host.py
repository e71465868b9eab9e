"""What this machine can do: each thing that is missing has a name, by which tests skip."""

import os
import shutil
import subprocess
import sys

from . import namespaces

#: Program -> Debian package.
_PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "pivot_root": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "start-stop-daemon": "dpkg",
}
#: What Debian needs for all that a testbed can do.
PACKAGES = (
    "iproute2",
    "iputils-arping",
    "iputils-ping",
    "nftables",
    "openssh-client",
    "openssh-server",
    "openssl",
    "socat",
)
_POLICY = "/usr/sbin/policy-rc.d"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_TRY = "import sys; sys.path.insert(0, sys.argv[1]); from bed import host; host.{}()"


def _Try(function, *argv):
    """Run a function of this module in a process of its own; what it says if it fails, or ""."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    argv = [sys.executable, "-c", _TRY.format(function), package, *argv]
    result = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = result.stdout.strip().splitlines() or [f"exit code {result.returncode}"]
    return lines[-1] if result.returncode else ""


def TryNamespaces():
    """Can a process have all these namespaces, and mount in them?"""
    namespaces.Unshare(namespaces.ALL)
    namespaces.MakePrivate()


def TryOverlay():
    """Can the root file system be shown with changes on top?"""
    TryNamespaces()
    namespaces.Mount("testbed", "/mnt", "tmpfs")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/mnt/{name}")
    data = "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work"
    namespaces.Mount("overlay", "/mnt/root", "overlay", data=data)
    os.setxattr("/mnt/upper", "trusted.overlay.opaque", b"y")


def _TryIp(*lines):
    TryNamespaces()
    result = subprocess.run(["sh", "-ec", "\n".join(lines)], capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr.strip().splitlines()[-1])


def TryNetwork():
    """Are there bridges and cables?"""
    _TryIp("ip link add test0 type bridge", "ip link add test1 type veth peer name test2")


def TryNetem():
    """Can the kernel delay packets?"""
    _TryIp("tc qdisc add dev lo root netem delay 10ms loss 1%")


def TryLoss():
    """Can the switch lose packets?"""
    _TryIp(
        "nft 'add table bridge t; add chain bridge t f { type filter hook forward priority 0; };"
        " add rule bridge t f oifname lo numgen random mod 100 < 10 drop'"
    )


def TryRate():
    """Can the switch send slowly?"""
    _TryIp("tc qdisc add dev lo root tbf rate 1mbit burst 32k latency 100ms")


def Missing():
    """What a testbed needs and this machine lacks, one text each."""
    if sys.platform != "linux":
        return ["Linux"]
    if os.geteuid() != 0:
        return ["root rights"]
    missing = [
        f"the program {name} (Debian package {package})"
        for name, package in _PROGRAMS.items()
        if shutil.which(name, path=_PATH) is None
    ]
    if missing:
        return missing
    if not os.path.exists("/etc/init.d/ssh"):
        missing.append("/etc/init.d/ssh (Debian package openssh-server)")
    for function, name in (
        ("TryNamespaces", "namespaces (network, UTS, IPC, mount, PID)"),
        ("TryOverlay", "overlay of the root file system (CONFIG_OVERLAY_FS)"),
        ("TryNetwork", "bridges and veth devices (CONFIG_BRIDGE, CONFIG_VETH)"),
    ):
        reason = _Try(function)
        if reason:
            return [*missing, f"{name}: {reason}"]
    return missing


def _IsInstalled(package):
    result = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True
    )
    # A removed one is "deinstall ok config-files".
    return result.stdout.startswith("install ok installed")


def Install():
    """Install the packages that are missing (Debian, as root), without starting any service.

    @return: names of the packages
    """
    missing = [name for name in PACKAGES if not _IsInstalled(name)]
    if not missing:
        return missing
    own_policy = not os.path.lexists(_POLICY)
    if own_policy:
        # This machine's own SSH server is not our business: it may not run, or run otherwise.
        with open(_POLICY, "w", encoding="ascii") as fobj:
            os.fchmod(fobj.fileno(), 0o755)
            fobj.write("#!/bin/sh\nexit 101\n")
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for argv in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            subprocess.run(
                ["apt-get", "-q", *argv], env=environment, stdout=subprocess.DEVNULL, check=True
            )
    finally:
        if own_policy:
            os.unlink(_POLICY)
    return missing


def Lacks(what):
    """What is missing for something extra: "" or a text.

    @param what: "delay", "loss" or "rate"
    """
    if what in ("delay", "loss") and not _Try("TryNetem"):
        return ""
    function, name = {
        "delay": ("TryNetem", "sch_netem (CONFIG_NET_SCH_NETEM) to delay packets"),
        "loss": (
            "TryLoss",
            "sch_netem or nft numgen for bridges (package nftables) to lose packets",
        ),
        "rate": ("TryRate", "sch_tbf (CONFIG_NET_SCH_TBF) to slow a cable"),
    }[what]
    reason = _Try(function)
    return f"{name}: {reason}" if reason else ""


def HasNetem():
    """Does this machine's kernel have the network emulator?"""
    return not _Try("TryNetem")
