"""Every path of the suite, in one place.

Build-time values come from C{_buildcfg.py}, which configure writes; without it the usual places of
a package installed below /usr are used. C{GANETI_ROOTDIR} moves every path below a root directory,
so that several nodes can live on one machine (a virtual cluster); this module and L{utils.net} are
the only ones that know of it. All values are computed once, at import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final


def _Build(name: str, default: Any) -> Any:
    return _BUILD.get(name, default)


def _LoadBuildConfig() -> dict[str, Any]:
    # A plain import would make every tool of a source tree complain about a module that is only
    # there after configure.
    try:
        with open(
            os.path.join(os.path.dirname(__file__), "_buildcfg.py"), encoding="utf-8"
        ) as fobj:
            source = fobj.read()
    except FileNotFoundError:
        return {}
    values: dict[str, Any] = {}
    exec(compile(source, "_buildcfg.py", "exec"), values)  # noqa: S102 - our own file
    return values


_BUILD: Final = _LoadBuildConfig()


def BuildValue(name: str, default: Any) -> Any:
    """A value chosen by configure that is no path; the default where it was not run."""
    return _Build(name, default)


#: Root below which all paths lie; empty on a real node.
ROOTDIR: Final[str] = os.environ.get("GANETI_ROOTDIR", "").rstrip("/")

if ROOTDIR and not (os.path.isabs(ROOTDIR) and os.path.normpath(ROOTDIR) == ROOTDIR):
    sys.exit(f"GANETI_ROOTDIR={ROOTDIR!r} must be an absolute, normalized path")


def IsVirtual() -> bool:
    """Is this process a node of a virtual cluster (every path below a root of its own)?"""
    return bool(ROOTDIR)


def VirtualNodeRoot(node_name: str) -> str:
    """Root directory of another node of the same virtual cluster: a sibling of ours."""
    return os.path.join(os.path.dirname(ROOTDIR), node_name)


def AddRoot(path: str) -> str:
    """The path as it is on this node: below the root of a virtual node."""
    return ROOTDIR + path


def LocalPath(path: str) -> str:
    """A path out of the configuration, as it is on this node.

    The configuration is the same on all nodes and so names its directories without any root; what
    lies below our root already is left alone.
    """
    return path if not ROOTDIR or (path + "/").startswith(ROOTDIR + "/") else ROOTDIR + path


#: Stands for the root directory in what virtual nodes tell each other.
_ROOT_MARK: Final = "/@root@"


def ToWire(value: Any) -> Any:
    """Replace our own root in a message for another virtual node; real nodes send it unchanged.

    Every text, also in lists and as key or value of dictionaries, that is a path below our root.
    """
    return _MapTexts(value, _MarkRoot) if ROOTDIR else value


def FromWire(value: Any, node_name: str | None = None) -> Any:
    """The inverse of L{ToWire}, on the node that got the message.

    @param node_name: whose paths they are; default: they are meant for this node
    """
    if not ROOTDIR:
        return value
    root = ROOTDIR if node_name is None else VirtualNodeRoot(node_name)
    return _MapTexts(value, lambda text: _Replace(text, _ROOT_MARK, root))


def AsHere(path: str, node_name: str) -> str:
    """A path of another node as the same one of this node; real nodes have the same paths."""
    return _Replace(path, VirtualNodeRoot(node_name), ROOTDIR) if ROOTDIR else path


def _MarkRoot(text: str) -> str:
    return _Replace(text, ROOTDIR, _ROOT_MARK)


def _Replace(path: str, old: str, new: str) -> str:
    """Another root for a path below the old one; other texts stay."""
    return new + path[len(old) :] if (path + "/").startswith(old + "/") else path


def _MapTexts(value: Any, fn: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return fn(value)
    if isinstance(value, dict):
        return {_MapTexts(key, fn): _MapTexts(item, fn) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_MapTexts(item, fn) for item in value]
    return value


PREFIX: Final[str] = _Build("PREFIX", "/usr")
LOCALSTATEDIR: Final = AddRoot(_Build("LOCALSTATEDIR", "/var"))
SYSCONFDIR: Final = AddRoot(_Build("SYSCONFDIR", "/etc"))

#: The source tree this process runs from; empty when the suite is installed.
_TREE = os.path.dirname(os.path.dirname(os.path.abspath(os.path.realpath(__file__))))
SOURCE_TREE: Final[str] = (
    _TREE if os.path.exists(os.path.join(_TREE, "daemons", "daemon-util")) else ""
)

_PIP_DAEMON_UTIL: Final = "ganeti-daemon-util"


def _PipScripts() -> str:
    """Where pip put our executables: beside the interpreter of a virtual environment."""
    beside = os.path.dirname(sys.executable)
    if os.path.exists(os.path.join(beside, _PIP_DAEMON_UTIL)):
        return beside
    import sysconfig  # a millisecond or more that a virtual environment does not need

    user = sysconfig.get_preferred_scheme("user")
    for place in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", user)):
        if os.path.exists(os.path.join(place, _PIP_DAEMON_UTIL)):
            return place
    return beside


# Executables of the suite: in the source tree, where configure was told, or where pip put them
# (under names of their own).
SBINDIR: Final = os.path.join(PREFIX, "sbin")
PKGLIBDIR: Final = os.path.join(_Build("LIBDIR", os.path.join(PREFIX, "lib")), "ganeti")
if SOURCE_TREE:
    DAEMONDIR = os.path.join(SOURCE_TREE, "daemons")
    DAEMON_UTIL = os.path.join(DAEMONDIR, "daemon-util")
    TOOLSDIR = os.path.join(SOURCE_TREE, "tools")
    NODE_SETUP = os.path.join(TOOLSDIR, "node-setup")
elif _BUILD:
    DAEMONDIR = SBINDIR
    DAEMON_UTIL = os.path.join(PKGLIBDIR, "daemon-util")
    TOOLSDIR = os.path.join(PKGLIBDIR, "tools")
    NODE_SETUP = os.path.join(TOOLSDIR, "node-setup")
else:
    DAEMONDIR = TOOLSDIR = _PipScripts()
    DAEMON_UTIL = os.path.join(DAEMONDIR, _PIP_DAEMON_UTIL)
    NODE_SETUP = os.path.join(DAEMONDIR, "ganeti-node-setup")

# State that must survive
DATA_DIR: Final = LOCALSTATEDIR + "/lib/ganeti"
CLUSTER_CONF_FILE: Final = DATA_DIR + "/config.data"
CONFIG_HISTORY_FILE: Final = DATA_DIR + "/config.history"
NODED_CERT_FILE: Final = DATA_DIR + "/server.pem"
RAPI_CERT_FILE: Final = DATA_DIR + "/rapi.pem"
CONFD_HMAC_KEY: Final = DATA_DIR + "/hmac.key"
RAPI_USERS_FILE: Final = DATA_DIR + "/rapi_users"
SSH_KNOWN_HOSTS_FILE: Final = DATA_DIR + "/known_hosts"
SSCONF_PREFIX: Final = "ssconf_"
WATCHER_STATEFILE: Final = DATA_DIR + "/watcher.data"
WATCHER_PAUSEFILE: Final = DATA_DIR + "/watcher.pause"

QUEUE_DIR: Final = DATA_DIR + "/queue"
JOB_QUEUE_LOCK_FILE: Final = QUEUE_DIR + "/lock"
JOB_QUEUE_VERSION_FILE: Final = QUEUE_DIR + "/version"
JOB_QUEUE_SERIAL_FILE: Final = QUEUE_DIR + "/serial"
JOB_QUEUE_DRAIN_FILE: Final = QUEUE_DIR + "/drain"
JOB_QUEUE_ARCHIVE_DIR: Final = QUEUE_DIR + "/archive"
JOB_QUEUE_JOURNAL_DIR: Final = QUEUE_DIR + "/journal"

# State of this boot
RUN_DIR: Final = LOCALSTATEDIR + "/run"
RUN_GANETI_DIR: Final = RUN_DIR + "/ganeti"
BDEV_CACHE_DIR: Final = RUN_GANETI_DIR + "/bdev-cache"
DISK_LINKS_DIR: Final = RUN_GANETI_DIR + "/instance-disks"
UIDPOOL_LOCKDIR: Final = RUN_GANETI_DIR + "/uid-pool"
INSTANCE_UPFILE: Final = RUN_GANETI_DIR + "/instance-status"
SOCKET_DIR: Final = RUN_GANETI_DIR + "/socket"
MASTER_SOCKET: Final = SOCKET_DIR + "/ganeti-master"
QUERY_SOCKET: Final = SOCKET_DIR + "/ganeti-query"
LOCK_DIR: Final = LOCALSTATEDIR + "/lock"
SSCONF_LOCK_FILE: Final = LOCK_DIR + "/ganeti-ssconf.lock"

# Logs
LOG_DIR: Final = LOCALSTATEDIR + "/log/ganeti"
LOG_OS_DIR: Final = LOG_DIR + "/os"
LOG_WATCHER: Final = LOG_DIR + "/watcher.log"
LOG_COMMANDS: Final = LOG_DIR + "/commands.log"
LOG_BURNIN: Final = LOG_DIR + "/burnin.log"
LOG_CLEANER_DIR: Final = LOG_DIR + "/cleaner"
DAEMONS_LOGFILES: Final = {
    "ganeti-noded": LOG_DIR + "/node-daemon.log",
    "ganeti-masterd": LOG_DIR + "/master-daemon.log",
    "ganeti-rapi": LOG_DIR + "/rapi-daemon.log",
    "ganeti-confd": LOG_DIR + "/conf-daemon.log",
    "ganeti-nld": LOG_DIR + "/nl-daemon.log",
}

# Configuration by the administrator
CONF_DIR: Final = SYSCONFDIR + "/ganeti"
HOOKS_BASE_DIR: Final = CONF_DIR + "/hooks"
#: Seconds that a hook script may take.
HOOKS_TIMEOUT_FILE: Final = HOOKS_BASE_DIR + "/timeout"
#: Seconds that a script of an OS definition may take on this node.
OS_TIMEOUT_FILE: Final = CONF_DIR + "/os-timeout"
VNC_PASSWORD_FILE: Final = CONF_DIR + "/vnc-cluster-password"
KVM_NETWORK_SCRIPT: Final = CONF_DIR + "/kvm-vif-bridge"
ANCILLARY_LIST_FILE: Final = CONF_DIR + "/ancillary-files"
DAEMONS_DEFAULTS_FILE: Final = SYSCONFDIR + "/default/ganeti"
ETC_HOSTS: Final = AddRoot("/etc/hosts")
SSH_CONFIG_DIR: Final = AddRoot(_Build("SSH_CONFIG_DIR", "/etc/ssh"))
SSH_HOST_RSA_PRIV: Final = SSH_CONFIG_DIR + "/ssh_host_rsa_key"
SSH_HOST_RSA_PUB: Final = SSH_HOST_RSA_PRIV + ".pub"
SSH_HOST_DSA_PRIV: Final = SSH_CONFIG_DIR + "/ssh_host_dsa_key"
SSH_HOST_DSA_PUB: Final = SSH_HOST_DSA_PRIV + ".pub"
SSH_HOST_ED25519_PRIV: Final = SSH_CONFIG_DIR + "/ssh_host_ed25519_key"
SSH_HOST_ED25519_PUB: Final = SSH_HOST_ED25519_PRIV + ".pub"
#: Of LVM; of its own for a virtual node, which has no LVM without it.
LVM_SYSTEM_DIR: Final = AddRoot("/etc/lvm")
SSH_INITD_SCRIPT: Final[str] = _Build("SSH_INITD_SCRIPT", "/etc/init.d/ssh")

# Data of instances
EXPORT_DIR: Final = AddRoot(_Build("EXPORT_DIR", "/srv/ganeti/export"))
EXPORT_CONF_FILE: Final = "config.ini"
OS_SEARCH_PATH: Final[list[str]] = [
    AddRoot(path) for path in _Build("OS_SEARCH_PATH", ["/srv/ganeti/os", "/usr/share/ganeti/os"])
]
#: Goes into the configuration: see L{LocalPath}.
#: Where a directory that all nodes share is expected; used only when the cluster is told so.
DEFAULT_SHARED_FILE_STORAGE_DIR: Final = "/srv/ganeti/shared-file-storage"
DEFAULT_FILE_STORAGE_DIR: Final[str] = _Build(
    "DEFAULT_FILE_STORAGE_DIR", "/srv/ganeti/file-storage"
)
ENABLE_FILE_STORAGE: Final[bool] = _Build("ENABLE_FILE_STORAGE", True)
IALLOCATOR_SEARCH_PATH: Final[list[str]] = [
    AddRoot(path)
    for path in _Build("IALLOCATOR_SEARCH_PATH", [os.path.join(PKGLIBDIR, "iallocators")])
]

# Devices and programs of others: never below the root of a virtual node
DEV_CONSOLE: Final = "/dev/console"
SYSLOG_SOCKET: Final = "/dev/log"
KVM_PATH: Final[str] = _Build("KVM_PATH", "/usr/bin/kvm")
QEMU_PATHS: Final = (KVM_PATH, "/usr/bin/qemu-system-x86_64")
SOCAT_PATH: Final[str] = _Build("SOCAT_PATH", "/usr/bin/socat")
IP_PATH: Final[str] = _Build("IP_PATH", "ip")
XEN_BOOTLOADER: Final[str] = _Build("XEN_BOOTLOADER", "")
XEN_KERNEL: Final[str] = _Build("XEN_KERNEL", "/boot/vmlinuz-2.6-xenU")
XEN_INITRD: Final[str] = _Build("XEN_INITRD", "/boot/initrd-2.6-xenU")
BOOT_ID_FILE: Final = "/proc/sys/kernel/random/boot_id"


def DaemonPidFile(name: str) -> str:
    """Path of the pid file of a daemon, e.g. C{ganeti-noded}."""
    return f"{RUN_GANETI_DIR}/{name}.pid"
