"""What every node knows of its cluster: small text files, and a plain reader of the configuration.

L{SimpleStore} reads and writes C{ssconf_<key>} files: one value, or one item a line. The master
sends their contents to all online nodes whenever the cluster object changed, together with the
L{Version} that they are of, and a node refuses what is older than what it has; any program can read
them without asking anybody. L{SimpleConfigReader} is the configuration as confd sees it: the stored
JSON with a few tables, no objects, never written.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from . import constants, errors, pathutils
from .runtime import DEFAULT, FileStat, Runtime

#: How long a writer waits for another one, in seconds.
LOCK_TIMEOUT: Final = 10
#: Permissions of the files.
FILE_MODE: Final = 0o444

#: Beside the values: the version of the cluster that they are of. Kept in a file like them, but no
#: value of its own.
VERSION_KEY: Final = "config_version"

_VALID_KEY_RE: Final = re.compile(r"^[-_a-z0-9]+$")


@dataclass(frozen=True)
class Version:
    """Which state of which cluster values are of.

    @ivar serial_no, mtime, uuid: of the cluster object; mtime in seconds since the epoch
    """

    serial_no: int
    mtime: float
    uuid: str

    def Format(self) -> str:
        """One line."""
        return f"{self.serial_no} {self.mtime!r} {self.uuid}"

    def IsOlder(self, current: Version) -> bool:
        """Is the current version of the same cluster, and newer than this one?

        Both number and time have to say so. A master that was started again with an old copy of
        the configuration counts on from a lower number, but was later.
        """
        return (
            self.uuid == current.uuid
            and self.serial_no < current.serial_no
            and self.mtime <= current.mtime
        )


def ParseVersion(text: str) -> Version | None:
    """What L{Version.Format} made; None if it is something else."""
    try:
        serial_no, mtime, uuid = text.split()
        return Version(int(serial_no), float(mtime), uuid)
    except ValueError:
        return None


class _MasterInfo(Protocol):
    """What L{GetMasterAndMyself} needs: both classes below have it."""

    def GetMasterNode(self) -> str:
        """FQDN of the master."""


def _CheckKey(key: str) -> None:
    # The pattern matters even for a key of the table: the key becomes a file name.
    if key not in constants.SS_ALL or not _VALID_KEY_RE.match(key):
        raise errors.ProgrammerError(f"Invalid key requested from SSConf: {key!r}")


def FormatValue(value: str | None) -> bytes:
    """Content of a file: empty, or with exactly the value's lines and a newline at the end."""
    if not value:
        return b""
    if not value.endswith("\n"):
        value += "\n"
    return value.encode("utf-8")


class SimpleStore:
    """The ssconf files of this node.

    @param cfg_location: directory of the files; None = the usual one
    @param lock_file: what writers lock; None = the usual one
    """

    def __init__(
        self,
        cfg_location: str | None = None,
        lock_file: str | None = None,
        runtime: Runtime = DEFAULT,
    ) -> None:
        self._rt = runtime
        self._cfg_dir = cfg_location if cfg_location is not None else pathutils.DATA_DIR
        self._lock_file = lock_file if lock_file is not None else pathutils.SSCONF_LOCK_FILE

    def KeyToFilename(self, key: str) -> str:
        """Path of the file of a key; ProgrammerError for a key that is not of the table."""
        _CheckKey(key)
        return f"{self._cfg_dir}/{pathutils.SSCONF_PREFIX}{key}"

    def GetFileList(self) -> list[str]:
        """Paths of all ssconf files, whether they exist or not."""
        return [self.KeyToFilename(key) for key in sorted(constants.SS_ALL)]

    def WriteFiles(self, values: Mapping[str, str | None]) -> None:
        """Write the files of these keys, each atomically, under the lock of all writers.

        Files that have their content already are left alone: most of them never change, and each
        one written costs two syncs. None counts as an empty value.

        @param values: with L{VERSION_KEY} they are only written if they are not older than what is
            there
        Raises: ProgrammerError for an unknown key, ConfigurationError for an old version (nothing
        is written then); LockError if another writer keeps the lock for longer than 10 s; OSError.
        """
        wanted = {
            self.KeyToFilename(key): FormatValue(value)
            for key, value in values.items()
            if key != VERSION_KEY
        }
        version = ParseVersion(values.get(VERSION_KEY) or "")
        with self._Locked():
            if version is not None:
                self._RefuseOlder(version, values.get(constants.SS_MASTER_NODE))
            for path, data in sorted(wanted.items()):
                if not self._HasContent(path, data):
                    self._rt.files.write(path, data, mode=FILE_MODE)
            if version is not None:
                # Should a power failure take it, older values are taken once more.
                data = FormatValue(version.Format())
                self._rt.files.write(self._version_file, data, mode=FILE_MODE, durable=False)

    @property
    def _version_file(self) -> str:
        return f"{self._cfg_dir}/{pathutils.SSCONF_PREFIX}{VERSION_KEY}"

    def GetVersion(self) -> Version | None:
        """What the files are of; None if that is not known."""
        try:
            data = self._rt.files.read(self._version_file)
        except OSError:
            return None
        return ParseVersion(data.decode("utf-8", "replace"))

    def _RefuseOlder(self, version: Version, master: str | None) -> None:
        current = self.GetVersion()
        if current is None:
            return
        if version.IsOlder(current):
            raise errors.ConfigurationError(
                f"The ssconf files of this node are of version {current.serial_no} of the cluster,"
                f" which is newer than version {version.serial_no} that was sent; if an old one was"
                f" restored on purpose, remove {self._version_file} from this node"
            )
        deposed = None if master is None else self.ExplainDeposed(master, version)
        if deposed is not None:
            raise errors.ConfigurationError(deposed)

    def ExplainDeposed(self, master: str, version: Version) -> str | None:
        """Who is the master in the place of one that was; None if that still is, or none is known.

        A new master counts on from above all serial numbers that it knows of; the times of one that
        was cut off, and went on changing things, say nothing.

        @param master: who thinks to be the master
        @param version: that it has of the cluster
        """
        current = self.GetVersion()
        if current is None or version.uuid != current.uuid:
            return None
        if version.serial_no >= current.serial_no:
            return None
        try:
            name = self.GetMasterNode()
        except errors.ConfigurationError:
            return None
        if name == master:
            return None
        return (
            f"{name} is the master by version {current.serial_no} of the cluster; {master}, with"
            f" version {version.serial_no}, is not any more"
        )

    def _HasContent(self, path: str, data: bytes) -> bool:
        try:
            current = self._rt.files.stat(path)
            return current.mode & 0o7777 == FILE_MODE and self._rt.files.read(path) == data
        except OSError:
            return False

    @contextmanager
    def _Locked(self) -> Iterator[None]:
        from .utils import filelock

        with filelock.FileLock.Open(self._lock_file, runtime=self._rt) as lock:
            lock.Exclusive(timeout=LOCK_TIMEOUT)
            yield

    def _Read(self, key: str) -> str:
        try:
            data = self._rt.files.read(self.KeyToFilename(key))
        except OSError as err:
            raise errors.ConfigurationError(f"Can't read from the ssconf file: {err}") from err
        return data.decode("utf-8").rstrip("\n")

    def _ReadLines(self, key: str) -> list[str]:
        return self._Read(key).splitlines()

    def GetClusterName(self) -> str:
        """FQDN of the cluster."""
        return self._Read(constants.SS_CLUSTER_NAME)

    def GetFileStorageDir(self) -> str:
        """Base directory of file disks; empty if there is none."""
        return self._Read(constants.SS_FILE_STORAGE_DIR)

    def GetSharedFileStorageDir(self) -> str:
        """Base directory of the file disks that all nodes share; empty if there is none."""
        if not self._rt.files.exists(self.KeyToFilename(constants.SS_SHARED_FILE_STORAGE_DIR)):
            # Written by a version that did not know it
            return ""
        return self._Read(constants.SS_SHARED_FILE_STORAGE_DIR)

    def GetMasterIP(self) -> str:
        """The cluster's IP address, which the master node holds."""
        return self._Read(constants.SS_MASTER_IP)

    def GetMasterNetdev(self) -> str:
        """Network device of the cluster IP."""
        return self._Read(constants.SS_MASTER_NETDEV)

    def GetMasterNode(self) -> str:
        """FQDN of the master."""
        return self._Read(constants.SS_MASTER_NODE)

    def GetMasterCandidates(self) -> list[str]:
        """Names of the master candidates, master included."""
        return self._ReadLines(constants.SS_MASTER_CANDIDATES)

    def GetMasterCandidatesIPList(self) -> list[str]:
        """Primary IPs of the master candidates, in the order of their names."""
        return self._ReadLines(constants.SS_MASTER_CANDIDATES_IPS)

    def GetNodeList(self) -> list[str]:
        """Names of all nodes."""
        return self._ReadLines(constants.SS_NODE_LIST)

    def GetNodePrimaryIPList(self) -> list[str]:
        """Lines C{name ip}."""
        return self._ReadLines(constants.SS_NODE_PRIMARY_IPS)

    def GetNodeSecondaryIPList(self) -> list[str]:
        """Lines C{name ip}."""
        return self._ReadLines(constants.SS_NODE_SECONDARY_IPS)

    def GetClusterTags(self) -> list[str]:
        """Tags of the cluster."""
        return self._ReadLines(constants.SS_CLUSTER_TAGS)

    def GetHypervisorList(self) -> list[str]:
        """Enabled hypervisors, default first."""
        return self._ReadLines(constants.SS_HYPERVISOR_LIST)

    def GetMaintainNodeHealth(self) -> bool:
        """May the watcher act on what confd says about this node?"""
        return self._Read(constants.SS_MAINTAIN_NODE_HEALTH) == "True"

    def GetUidPool(self) -> str:
        """The user-id pool as text, one id or C{low-high} a line."""
        return self._Read(constants.SS_UID_POOL)


@dataclass
class _Tables:
    """Everything L{SimpleConfigReader} looks up, built whole before it replaces the old one."""

    data: dict[str, Any]
    #: link -> {ip: instance name}
    ip_to_instance: dict[str, dict[str, str]] = field(default_factory=dict)
    #: link -> ips in the order of instances and their NICs
    link_ips: dict[str, list[str]] = field(default_factory=dict)
    node_ips: list[str] = field(default_factory=list)
    candidate_ips: list[str] = field(default_factory=list)


def _DefaultNicParams(data: Mapping[str, Any]) -> dict[str, Any]:
    stored = data["cluster"].get("nicparams", {}).get(constants.PP_DEFAULT, {})
    return {**constants.NICC_DEFAULTS, **stored}


def _BuildTables(data: Any) -> _Tables:
    """Check the form of a parsed configuration and make the tables of it.

    Raises: KeyError, TypeError, AttributeError or ValueError where the form is wrong.
    """
    if int(data["serial_no"]) < 0 or not data["cluster"]["master_node"]:
        raise ValueError("serial_no or master_node has no usable value")
    tables = _Tables(data)
    default_link = _DefaultNicParams(data)[constants.NIC_LINK]
    for name, instance in sorted(data["instances"].items()):
        for nic in instance.get("nics") or []:
            ip = nic.get("ip")
            if not ip:
                continue
            link = (nic.get("nicparams") or {}).get(constants.NIC_LINK) or default_link
            tables.ip_to_instance.setdefault(link, {})[ip] = name
            tables.link_ips.setdefault(link, []).append(ip)
    for _, node in sorted(data["nodes"].items()):
        tables.node_ips.append(node["primary_ip"])
        if node.get("master_candidate", False):
            tables.candidate_ips.append(node["primary_ip"])
    return tables


class SimpleConfigReader:
    """The stored configuration, read-only, without the objects.

    Loads at construction. All methods raise ConfigurationError only while loading; a failed
    L{Reload} leaves the old content in place. Names must be full names.

    @param file_name: path of the configuration; None = the usual one
    """

    def __init__(self, file_name: str | None = None, runtime: Runtime = DEFAULT) -> None:
        self._rt = runtime
        self._file_name = file_name if file_name is not None else pathutils.CLUSTER_CONF_FILE
        self._last: FileStat | None = None
        self._tables: _Tables
        self.Reload(force=True)

    def Reload(self, force: bool = False) -> bool:
        """Read the file again if it changed: other inode, size or mtime.

        An older mtime counts as well: a clock may have been set back meanwhile.

        @return: whether the file was read
        """
        current = self._Stat()
        last = self._last
        if not force and last is not None and not _IsOther(current, last):
            return False
        tables = self._Load()
        # The stat of before the read: should the file change in between, it is read once more.
        self._tables, self._last = tables, current
        return True

    def _Stat(self) -> FileStat:
        try:
            return self._rt.files.stat(self._file_name)
        except OSError as err:
            raise errors.ConfigurationError(
                f"Cannot stat the configuration file {self._file_name}: {err}"
            ) from err

    def _Load(self) -> _Tables:
        # simplejson takes its time to import; users of SimpleStore do not need it.
        from . import serializer

        try:
            data = serializer.Load(self._rt.files.read(self._file_name))
        except OSError as err:
            raise errors.ConfigurationError(
                f"Cannot read the configuration file {self._file_name}: {err}"
            ) from err
        except ValueError as err:
            raise errors.ConfigurationError(
                f"The configuration file {self._file_name} is not JSON: {err}"
            ) from err
        try:
            return _BuildTables(data)
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise errors.ConfigurationError(
                f"The configuration file {self._file_name} has not the form of a cluster"
                f" configuration: {err.__class__.__name__}: {err}"
            ) from err

    def _Cluster(self, key: str, default: Any = "") -> Any:
        return self._tables.data["cluster"].get(key, default)

    def GetClusterName(self) -> str:
        """FQDN of the cluster."""
        return str(self._Cluster("cluster_name"))

    def GetHostKey(self) -> str:
        """The cluster's public SSH host key."""
        return str(self._Cluster("rsahostkeypub"))

    def GetMasterNode(self) -> str:
        """FQDN of the master."""
        return str(self._Cluster("master_node"))

    def GetMasterIP(self) -> str:
        """The cluster's IP address."""
        return str(self._Cluster("master_ip"))

    def GetMasterNetdev(self) -> str:
        """Network device of the cluster IP."""
        return str(self._Cluster("master_netdev"))

    def GetFileStorageDir(self) -> str:
        """Base directory of file disks."""
        return str(self._Cluster("file_storage_dir"))

    def GetNodeList(self) -> list[str]:
        """Names of all nodes."""
        return list(self._tables.data["nodes"])

    def GetConfigSerialNo(self) -> int:
        """Serial number of the whole configuration: what confd answers carry."""
        return int(self._tables.data["serial_no"])

    def GetClusterSerialNo(self) -> int:
        """Serial number of the cluster object."""
        return int(self._Cluster("serial_no", 0))

    def GetDefaultNicParams(self) -> dict[str, Any]:
        """Cluster-wide NIC parameters."""
        return _DefaultNicParams(self._tables.data)

    def GetDefaultNicLink(self) -> str:
        """Link of NICs that name none."""
        return str(self.GetDefaultNicParams()[constants.NIC_LINK])

    def GetNodeStatusFlags(self, node: str) -> tuple[bool, bool, bool] | None:
        """(master_candidate, drained, offline); None for an unknown node."""
        found = self._tables.data["nodes"].get(node)
        if found is None:
            return None
        return (
            bool(found.get("master_candidate", False)),
            bool(found.get("drained", False)),
            bool(found.get("offline", False)),
        )

    def GetInstanceByLinkIp(self, ip: str, link: str | None) -> str | None:
        """Name of the instance with that address on that link; no link = the default one."""
        return self._tables.ip_to_instance.get(link or self.GetDefaultNicLink(), {}).get(ip)

    def GetNodePrimaryIp(self, node: str) -> str | None:
        """Primary IP of a node; None if unknown."""
        found = self._tables.data["nodes"].get(node, {}).get("primary_ip")
        return found if found is None else str(found)

    def GetInstancePrimaryNode(self, instance: str) -> str | None:
        """Name of the instance's primary node; None if unknown."""
        found = self._tables.data["instances"].get(instance, {}).get("primary_node")
        return found if found is None else str(found)

    def GetNodesPrimaryIps(self) -> list[str]:
        """Primary IPs of all nodes."""
        return list(self._tables.node_ips)

    def GetMasterCandidatesPrimaryIps(self) -> list[str]:
        """Primary IPs of the master candidates, master included."""
        return list(self._tables.candidate_ips)

    def GetInstancesIps(self, link: str | None) -> list[str]:
        """Addresses of all NICs on that link; no link = the default one."""
        return list(self._tables.link_ips.get(link or self.GetDefaultNicLink(), []))


def _IsOther(current: FileStat, last: FileStat) -> bool:
    return current.inode != last.inode or current.size != last.size or current.mtime != last.mtime


def GetMasterAndMyself(ss: _MasterInfo | None = None) -> tuple[str, str]:
    """Name of the master node and of this host.

    Raises: ConfigurationError if the master is not known here, ResolverError if the own name does
    not resolve.
    """
    from .utils import net

    if ss is None:
        ss = SimpleStore()
    return ss.GetMasterNode(), net.HostInfo().name


def CheckMaster(debug: bool, ss: _MasterInfo | None = None) -> None:
    """Return if this host is the master, else end the process.

    Exit codes: EXIT_NODESETUP_ERROR if this node is not set up, EXIT_NOTMASTER if another node is
    the master.

    @param debug: say so on standard error if this is not the master
    """
    try:
        master, myself = GetMasterAndMyself(ss)
    except errors.ConfigurationError as err:
        print(f"Cluster configuration incomplete: {errors.FormatError(err)}")
        sys.exit(constants.EXIT_NODESETUP_ERROR)
    except errors.ResolverError as err:
        sys.stderr.write(f"Cannot resolve my own name ({err.args[0]})\n")
        sys.exit(constants.EXIT_NODESETUP_ERROR)
    if myself == master:
        return
    logging.debug("The master is %s, this is %s", master, myself)
    if debug:
        sys.stderr.write("Not master, exiting.\n")
    sys.exit(constants.EXIT_NOTMASTER)
