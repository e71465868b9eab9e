"""Bringing a cluster up, preparing new nodes, tearing the cluster down.

This code runs in the client, before there is a master daemon or after it has gone. The way to a
host that is to become a node is L{firstcontact}, for those of a virtual cluster a local process.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from . import (
    config,
    constants,
    errors,
    firstcontact,
    hvparams,
    objects,
    pathutils,
    rpc,
    runtime,
    serializer,
    ssconf,
    ssh,
    uidpool,
)
from .cmdlib import instance_checks
from .utils import io, lvm, net, params, process, retry, x509
from .utils.rollback import Rollback
from .utils.uuid import GenerateSecret, NewUUID

FeedbackFn = Callable[[str], object]

#: Seconds to wait for a new node daemon's first answer, and between two tries.
NODED_START_TIMEOUT = 10.0
NODED_START_DELAY = 0.1

#: Three bytes, the first one even (unicast). That it is locally administered is not asked for:
#: clusters with other prefixes exist.
_MAC_PREFIX = re.compile(r"[0-9a-f][02468ace]:[0-9a-f]{2}:[0-9a-f]{2}")


def _NoFeedback(_: str) -> None:
    return None


# Secrets


def GenerateHmacKey(file_name: str, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Write a new confd key: 40 hexadecimal digits and a newline, mode 0400."""
    rt.files.write(file_name, (GenerateSecret() + "\n").encode(), mode=0o400)


def GenerateClusterCrypto(
    new_cluster_cert: bool,
    new_rapi_cert: bool,
    new_confd_hmac_key: bool,
    rapi_cert_pem: str | None = None,
    *,
    nodecert_file: str = pathutils.NODED_CERT_FILE,
    rapicert_file: str = pathutils.RAPI_CERT_FILE,
    hmackey_file: str = pathutils.CONFD_HMAC_KEY,
    names: Sequence[str] = ("ganeti",),
    rt: runtime.Runtime = runtime.DEFAULT,
) -> list[str]:
    """Make the cluster's secrets: those asked for and those that are missing.

    What is overwritten is kept as a backup beside it.

    @param rapi_cert_pem: use this key and certificate for RAPI instead of making them
    @param names: host names and addresses that the certificates are good for, first the cluster's
    @return: paths of the files that were written
    """
    written = []

    def Make(path: str, wanted: bool, fn: Callable[[str], object]) -> None:
        exists = rt.files.exists(path)
        if exists and not wanted:
            return
        if exists:
            io.CreateBackup(path)
        fn(path)
        written.append(path)

    def Certificate(path: str) -> None:
        x509.GenerateSelfSignedSslCert(path, common_name=names[0], alt_names=names[1:])

    def SuppliedRapiCertificate(path: str) -> None:
        assert rapi_cert_pem is not None
        rt.files.write(path, rapi_cert_pem.encode(), mode=0o600)

    Make(nodecert_file, new_cluster_cert, Certificate)
    Make(hmackey_file, new_confd_hmac_key, lambda path: GenerateHmacKey(path, rt))
    Make(
        rapicert_file,
        new_rapi_cert or rapi_cert_pem is not None,
        Certificate if rapi_cert_pem is None else SuppliedRapiCertificate,
    )
    return written


# Cluster init


@dataclass
class InitParams:
    """What a new cluster shall be like; defaults are those of C{gnt-cluster init}.

    @ivar vg_name: volume group, None = no LVM
    @ivar hvparams: hypervisor -> parameters that differ from the built-in defaults
    @ivar uid_pool: list of (lowest, highest) user ids
    """

    cluster_name: str
    mac_prefix: str = constants.DEFAULT_MAC_PREFIX
    master_netdev: str = constants.DEFAULT_BRIDGE
    file_storage_dir: str = pathutils.DEFAULT_FILE_STORAGE_DIR
    shared_file_storage_dir: str | None = None
    candidate_pool_size: int = constants.MASTER_POOL_SIZE_DEFAULT
    secondary_ip: str | None = None
    vg_name: str | None = None
    beparams: Mapping[str, Any] = field(default_factory=dict)
    nicparams: Mapping[str, Any] = field(default_factory=dict)
    hvparams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    enabled_hypervisors: Sequence[str] = (constants.DEFAULT_ENABLED_HYPERVISOR,)
    modify_etc_hosts: bool = True
    modify_ssh_setup: bool = True
    maintain_node_health: bool = False
    uid_pool: Sequence[tuple[int, int]] = ()


def _Prereq(text: str, code: str = errors.ECODE_INVAL) -> errors.OpPrereqError:
    return errors.OpPrereqError(text, code)


def CheckInitSyntax(ip: InitParams) -> InitParams:
    """The checks that need nothing but the parameters; pure.

    @return: the same with all parameter dictionaries complete and of their declared types
    @raise errors.OpPrereqError: C{wrong_input}, naming parameter and value
    """
    hypervisors = list(ip.enabled_hypervisors)
    unknown = [kind for kind in hypervisors if kind not in constants.HYPER_TYPES]
    if not hypervisors:
        raise _Prereq("At least one hypervisor must be enabled (--enabled-hypervisors)")
    if unknown or len(set(hypervisors)) != len(hypervisors):
        raise _Prereq(
            f"Enabled hypervisors {','.join(hypervisors)!r}: each must be one of"
            f" {', '.join(sorted(constants.HYPER_TYPES))}, and none twice"
        )
    if not _MAC_PREFIX.fullmatch(ip.mac_prefix.lower()):
        raise _Prereq(
            f"MAC prefix {ip.mac_prefix!r} must be three bytes like"
            f" {constants.DEFAULT_MAC_PREFIX}, the first one even (unicast)"
        )
    if ip.candidate_pool_size < 1:
        raise _Prereq(f"Candidate pool size must be at least 1, not {ip.candidate_pool_size}")
    if ip.secondary_ip is not None and not net.IsValidIP(ip.secondary_ip):
        raise _Prereq(f"Secondary IP {ip.secondary_ip!r} is no IPv4 address")
    if ip.file_storage_dir and not io.IsNormAbsPath(ip.file_storage_dir):
        raise _Prereq(
            f"File storage directory {ip.file_storage_dir!r} must be an absolute, normalized path"
        )
    if ip.shared_file_storage_dir and not io.IsNormAbsPath(ip.shared_file_storage_dir):
        raise _Prereq(
            f"Shared file storage directory {ip.shared_file_storage_dir!r} must be an absolute,"
            " normalized path"
        )
    if not re.fullmatch(r"[^/\s]{1,15}", ip.master_netdev) or ip.master_netdev in (".", ".."):
        raise _Prereq(f"Master network device {ip.master_netdev!r} is no name of a device")
    uidpool.CheckUidPool(ip.uid_pool)
    unknown = [kind for kind in ip.hvparams if kind not in constants.HYPER_TYPES]
    if unknown:
        raise _Prereq(f"Parameters for unknown hypervisor {unknown[0]!r}")

    all_hvparams = {}
    for kind in sorted(constants.HYPER_TYPES):
        filled = objects.FillDict(constants.HVC_DEFAULTS[kind], dict(ip.hvparams.get(kind, {})))
        _ForceTypes(filled, constants.HVS_PARAMETER_TYPES, f"hypervisor {kind}")
        try:
            hvparams.CheckParameterSyntax(kind, filled)
        except errors.HypervisorError as err:
            raise _Prereq(f"Parameters of hypervisor {kind}: {err}") from err
        all_hvparams[kind] = filled
    beparams = objects.FillDict(constants.BEC_DEFAULTS, dict(ip.beparams))
    _ForceTypes(beparams, constants.BES_PARAMETER_TYPES, "backend")
    instance_checks.CheckBeParams("backend", beparams)
    nicparams = objects.FillDict(constants.NICC_DEFAULTS, dict(ip.nicparams))
    _ForceTypes(nicparams, constants.NICS_PARAMETER_TYPES, "network")
    try:
        objects.NIC.CheckParameterSyntax(nicparams)
    except errors.ConfigurationError as err:
        raise _Prereq(f"Network parameters: {err}") from err
    return InitParams(
        **{
            **vars(ip),
            "mac_prefix": ip.mac_prefix.lower(),
            "hvparams": all_hvparams,
            "beparams": beparams,
            "nicparams": nicparams,
        }
    )


def _ForceTypes(target: dict[str, Any], types: Mapping[str, str], what: str) -> None:
    try:
        params.ForceDictType(target, types)
    except errors.TypeEnforcementError as err:
        raise _Prereq(f"Parameters of {what}: {err}") from err


@dataclass(frozen=True)
class _Place:
    """What the checks found out about this host and the names."""

    node_name: str
    primary_ip: str
    secondary_ip: str
    cluster_name: str
    cluster_ip: str


def _CheckPlace(ip: InitParams) -> _Place:
    """The checks that look at this host and the network."""
    host = net.GetHostInfo()
    if net.IsLoopback(host.ip) and not pathutils.IsVirtual():
        raise _Prereq(
            f"This host's name {host.name!r} resolves to {host.ip}, which no other node can reach:"
            f" give it its real address in {pathutils.ETC_HOSTS} or in the DNS",
            errors.ECODE_ENVIRON,
        )
    if not net.OwnIpAddress(host.ip):
        raise _Prereq(
            f"This host's name {host.name!r} resolves to {host.ip}, which is not an address of"
            " this host",
            errors.ECODE_ENVIRON,
        )
    cluster = net.GetHostInfo(net.HostInfo.NormalizeName(ip.cluster_name))
    if net.TcpPing(
        cluster.ip, constants.DEFAULT_NODED_PORT, timeout=5, live_port_needed=pathutils.IsVirtual()
    ):
        raise _Prereq(
            f"The cluster's address {cluster.ip} ({cluster.name}) answers already: is there another"
            " cluster of that name?",
            errors.ECODE_NOTUNIQUE,
        )
    secondary_ip = ip.secondary_ip or host.ip
    if not net.OwnIpAddress(secondary_ip):
        raise _Prereq(
            f"Secondary IP {secondary_ip} is not an address of this host", errors.ECODE_ENVIRON
        )
    if not os.path.isdir(f"/sys/class/net/{ip.master_netdev}"):
        raise _Prereq(
            f"There is no network device {ip.master_netdev!r} on this host (--master-netdev)"
        )
    if ip.vg_name is not None:
        # Without LVM there is no volume group to find; the node's storage code knows how to look.
        _CheckVolumeGroup(ip.vg_name)
    return _Place(host.name, host.ip, secondary_ip, cluster.name, cluster.ip)


def _CheckVolumeGroup(vg_name: str) -> None:
    hint = " (--no-lvm-storage makes a cluster without LVM)"
    try:
        records = lvm.Report("vgs", ("vg_name", "vg_size"))
        groups = {record["vg_name"]: int(lvm.ToMebibytes(record["vg_size"])) for record in records}
    except errors.LVMError as err:
        raise _Prereq(f"Volume group {vg_name!r} can not be used: {err}{hint}") from err
    problem = lvm.CheckVolumeGroupSize(groups, vg_name, constants.MIN_VG_SIZE)
    if problem is not None:
        there = ", ".join(sorted(groups)) or "none"
        raise _Prereq(f"{problem}; there are: {there}{hint}")


def _CheckFileStorageDir(path: str) -> None:
    """Check that it is a directory, or can be made, as far as this can be told without trying."""
    if not path:
        return
    local = there = pathutils.LocalPath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise _Prereq(
            f"File storage directory {local} can not be made: {there} is no directory",
            errors.ECODE_ENVIRON,
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise _Prereq(
            f"File storage directory {local} can not be made or used: {there} is not writable",
            errors.ECODE_ENVIRON,
        )


def _CheckSharedDir(path: str | None) -> None:
    """Check that it is there: it is somebody else's, mounted for all nodes, and never made."""
    if not path:
        return
    local = pathutils.LocalPath(path)
    if not os.path.isdir(local) or not os.access(local, os.W_OK | os.X_OK):
        raise _Prereq(
            f"Shared file storage directory {local} is not there or not writable; mount it first,"
            " here and on all nodes",
            errors.ECODE_ENVIRON,
        )


def _MakeFileStorageDir(path: str) -> None:
    if not path:
        return
    local = pathutils.LocalPath(path)
    try:
        io.Makedirs(local, 0o750)
    except OSError as err:
        raise _Prereq(
            f"File storage directory {local} can not be made: {err.strerror}",
            errors.ECODE_ENVIRON,
        ) from err
    if not os.path.isdir(local):
        raise _Prereq(f"File storage directory {local} is no directory", errors.ECODE_ENVIRON)


def _CheckInit(ip: InitParams, rt: runtime.Runtime) -> tuple[InitParams, _Place]:
    """All checks of the init of a cluster, which change nothing.

    @return: the complete parameters, and what was found out about this host
    @raise errors.OpPrereqError: refused
    """
    if rt.files.exists(pathutils.CLUSTER_CONF_FILE):
        raise _Prereq(
            f"This host is part of a cluster already ({pathutils.CLUSTER_CONF_FILE} exists)",
            errors.ECODE_STATE,
        )
    ip = CheckInitSyntax(ip)
    place = _CheckPlace(ip)
    _CheckFileStorageDir(ip.file_storage_dir)
    _CheckSharedDir(ip.shared_file_storage_dir)
    _ReadHostKey(ip.modify_ssh_setup, rt)
    return ip, place


def DryInitCluster(ip: InitParams, rt: runtime.Runtime = runtime.DEFAULT) -> list[str]:
    """Make all checks of L{InitCluster}, and nothing else.

    @return: what it would do, in lines for people
    @raise errors.OpPrereqError: it would refuse
    """
    return DescribeInit(*_CheckInit(ip, rt), rt)


def DescribeInit(ip: InitParams, place: _Place, rt: runtime.Runtime) -> list[str]:
    """What the init of a cluster would do on this host, whose checks have passed."""
    node, exists = place.node_name, rt.files.exists
    made = []
    local_dir = pathutils.LocalPath(ip.file_storage_dir) if ip.file_storage_dir else None
    if local_dir is not None and not os.path.isdir(local_dir):
        made.append(f"the directory {local_dir}")
    for path, anew in (
        (pathutils.NODED_CERT_FILE, True),
        (pathutils.CONFD_HMAC_KEY, False),
        (pathutils.RAPI_CERT_FILE, False),
    ):
        if not exists(path):
            made.append(path)
        elif anew:
            made.append(f"{path} again, with a copy of the one that is there")
    if ip.modify_etc_hosts:
        made.append(f"an entry for {node} in {pathutils.ETC_HOSTS}")
    if ip.modify_ssh_setup:
        made.append("a new SSH key of root that all nodes accept, with a copy of the one before")
    if exists(pathutils.SSH_HOST_RSA_PUB):
        made.append(f"{pathutils.SSH_KNOWN_HOSTS_FILE} with the key of this host")
    storage = "no LVM" if ip.vg_name is None else f"volume group {ip.vg_name}"
    made.append(
        f"{pathutils.CLUSTER_CONF_FILE}: hypervisors {', '.join(ip.enabled_hypervisors)},"
        f" {storage}, up to {ip.candidate_pool_size} master candidates"
    )
    addresses = " and ".join(dict.fromkeys([place.primary_ip, place.secondary_ip]))
    return [
        f"Dry run of the init of cluster {place.cluster_name}: all checks passed, nothing was"
        " changed",
        f"  master and only node: {node} with the address {addresses}",
        f"  address of the cluster: {place.cluster_ip} on {ip.master_netdev}",
        f"  hooks that would run after it: cluster-init post on {node}",
        "  could not be checked: that the daemons start, and that the address comes up",
        "  would make:",
        *(f"    {item}" for item in made),
        "  would start, after stopping what runs of them: ganeti-noded, ganeti-confd,"
        " ganeti-masterd, ganeti-rapi",
    ]


def InitCluster(
    ip: InitParams,
    feedback_fn: FeedbackFn = _NoFeedback,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Make this host the first node, and the master, of a new cluster.

    What was begun and failed is undone, so that the next try finds a clean host.

    @raise errors.OpPrereqError: refused, nothing was changed
    @raise errors.OpExecError: failed and undone
    """
    ip, place = _CheckInit(ip, rt)
    _MakeFileStorageDir(ip.file_storage_dir)
    rt.files.mkdir(pathutils.DATA_DIR)
    rt.files.mkdir(pathutils.RUN_GANETI_DIR)

    with Rollback(feedback_fn) as undo:
        before = set(rt.files.listdir(pathutils.DATA_DIR))
        undo.Add("remove the new cluster's files", _RemoveNewFiles, before, rt)
        feedback_fn("Making certificates and keys")
        names = [place.cluster_name, place.cluster_ip, place.node_name, place.primary_ip]
        GenerateClusterCrypto(True, False, False, names=names, rt=rt)
        for name in ("ganeti-noded", "ganeti-confd"):
            feedback_fn(f"Starting {name}")
            undo.Add(f"stop {name}", _StopDaemon, name)
            # One that runs already holds the secrets of before.
            _StopDaemon(name)
            _StartDaemon(name)
        rpc.Init()
        undo.Add("close connections", rpc.Shutdown)
        WaitForNodeDaemon(place.node_name, place.primary_ip, rt)
        if ip.modify_etc_hosts:
            undo.Add(f"restore {pathutils.ETC_HOSTS}", _Restorer(pathutils.ETC_HOSTS))
            net.AddHostToEtcHosts(place.node_name)
        if ip.modify_ssh_setup:
            _SetupUserKey(undo, rt)
        host_key = _SetupKnownHosts(place.cluster_name, ip.modify_ssh_setup, rt)
        feedback_fn("Writing the configuration")
        _WriteConfiguration(ip, place, host_key, rt)
        feedback_fn("Starting the master daemon")
        undo.Add("stop the master daemon", _StopMaster, place.node_name)
        result = rpc.RpcRunner.call_node_start_master(place.node_name, True, False)
        result.Raise("Could not start the master daemon")
        undo.Commit()
    rpc.Shutdown()


def _RemoveNewFiles(before: set[str], rt: runtime.Runtime) -> None:
    for name in rt.files.listdir(pathutils.DATA_DIR):
        path = os.path.join(pathutils.DATA_DIR, name)
        if name not in before and not os.path.isdir(path):
            rt.files.remove(path)


def _StartDaemon(name: str) -> None:
    result = process.RunCmd([pathutils.DAEMON_UTIL, "start", name])
    if result.failed:
        raise errors.OpExecError(
            f"Could not start {name}: {result.fail_reason}: {result.output.strip()}; its log is"
            f" {pathutils.DAEMONS_LOGFILES[name]}"
        )


def _StopDaemon(name: str) -> None:
    process.RunCmd([pathutils.DAEMON_UTIL, "stop", name])


def _StopMaster(node_name: str) -> None:
    rpc.RpcRunner.call_node_stop_master(node_name, True)


def WaitForNodeDaemon(
    node_name: str, address: str | None = None, rt: runtime.Runtime = runtime.DEFAULT
) -> None:
    """Return once the node's daemon answers.

    @raise errors.OpExecError: it does not within L{NODED_START_TIMEOUT} seconds, or speaks another
        protocol
    """

    def Ask() -> int:
        addresses = None if address is None else [address]
        result = rpc.RpcRunner.call_version([node_name], address_list=addresses)[node_name]
        if result.fail_msg:
            raise retry.RetryAgain(result.fail_msg)
        version: int = result.payload
        return version

    try:
        version = retry.Retry(
            Ask,
            NODED_START_DELAY,
            NODED_START_TIMEOUT,
            wait_fn=rt.clock.sleep,
            time_fn=rt.clock.monotonic,
        )
    except retry.RetryTimeout as err:
        raise errors.OpExecError(
            f"The node daemon on {node_name} did not answer within {NODED_START_TIMEOUT:.0f}"
            f" seconds: {err}; its log is {pathutils.DAEMONS_LOGFILES['ganeti-noded']} there"
        ) from err
    if version != constants.PROTOCOL_VERSION:
        raise errors.OpExecError(
            f"The node daemon on {node_name} speaks protocol {version}, this host"
            f" {constants.PROTOCOL_VERSION}"
        )


def _Restorer(path: str) -> Callable[[], object]:
    """What makes a file what it is now; nothing if it is not there."""
    try:
        mode = os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        return lambda: io.RemoveFile(path)
    before = io.ReadBinary(path)
    return lambda: io.WriteFile(path, data=before, mode=mode, keep_owner=True)


def _SetupUserKey(undo: Rollback, rt: runtime.Runtime) -> None:
    """Give root a key that all nodes accept."""
    private, public, authorized = ssh.GetUserFiles(constants.GANETI_RUNAS, mkdir=True)
    for path in (private, public, authorized):
        undo.Add(f"restore {path}", _Restorer(path))
    for path in (private, public):
        if rt.files.exists(path):
            backup = io.CreateBackup(path)
            undo.Add(f"remove {backup}", rt.files.remove, backup)
            rt.files.remove(path)
    key_type = constants.SSH_USER_KEY_TYPE
    result = process.RunCmd(["ssh-keygen", "-t", key_type, "-f", private, "-q", "-N", ""])
    if result.failed:
        raise errors.OpExecError(f"Could not make an SSH key: {result.output.strip()}")
    ssh.AddAuthorizedKey(authorized, io.ReadFile(public))


def _ReadHostKey(needed: bool, rt: runtime.Runtime) -> str:
    """The base64 part of this host's RSA key; empty if there is none.

    @param needed: False = this host may do without an SSH server, as virtual nodes do
    @raise errors.OpPrereqError: there is none, or it is no key
    """
    path = pathutils.SSH_HOST_RSA_PUB
    if not rt.files.exists(path):
        if needed:
            raise _Prereq(
                f"This host has no {path}: install an SSH server, or use --no-ssh-init",
                errors.ECODE_ENVIRON,
            )
        return ""
    host_key = rt.files.read(path).decode().split()
    if len(host_key) < 2:
        raise _Prereq(f"{path} is no SSH public key", errors.ECODE_ENVIRON)
    return host_key[1]


def _SetupKnownHosts(cluster_name: str, needed: bool, rt: runtime.Runtime) -> str:
    """Write down the key by which SSH clients know all nodes of the cluster.

    @return: that of L{_ReadHostKey}, for the configuration
    """
    host_key = _ReadHostKey(needed, rt)
    if host_key:
        content = ssh.FormatKnownHosts(cluster_name, [("ssh-rsa", host_key)])
        rt.files.write(pathutils.SSH_KNOWN_HOSTS_FILE, content.encode(), mode=0o600)
    return host_key


def BuildConfiguration(
    ip: InitParams, place: _Place, host_key: str, now: float
) -> objects.ConfigData:
    """The configuration of a new cluster of one node; pure but for its UUIDs."""
    cluster = objects.Cluster(
        tags=set(),
        serial_no=1,
        rsahostkeypub=host_key,
        highest_used_port=constants.FIRST_DRBD_PORT - 1,
        tcpudp_port_pool=set(),
        mac_prefix=ip.mac_prefix,
        volume_group_name=ip.vg_name,
        master_node=place.node_name,
        master_ip=place.cluster_ip,
        master_netdev=ip.master_netdev,
        cluster_name=place.cluster_name,
        file_storage_dir=ip.file_storage_dir,
        shared_file_storage_dir=ip.shared_file_storage_dir,
        enabled_hypervisors=list(ip.enabled_hypervisors),
        beparams={constants.PP_DEFAULT: dict(ip.beparams)},
        nicparams={constants.PP_DEFAULT: dict(ip.nicparams)},
        hvparams={kind: dict(values) for kind, values in ip.hvparams.items()},
        candidate_pool_size=ip.candidate_pool_size,
        modify_etc_hosts=ip.modify_etc_hosts,
        modify_ssh_setup=ip.modify_ssh_setup,
        maintain_node_health=ip.maintain_node_health,
        uid_pool=[list(pair) for pair in ip.uid_pool],
        uuid=NewUUID(),
        ctime=now,
        mtime=now,
    )
    node = objects.Node(
        tags=set(),
        name=place.node_name,
        primary_ip=place.primary_ip,
        secondary_ip=place.secondary_ip,
        serial_no=1,
        master_candidate=True,
        offline=False,
        drained=False,
        uuid=NewUUID(),
        ctime=now,
        mtime=now,
    )
    return objects.ConfigData(
        version=constants.CONFIG_VERSION,
        cluster=cluster,
        nodes={node.name: node},
        instances={},
        serial_no=1,
        ctime=now,
        mtime=now,
    )


def _WriteConfiguration(ip: InitParams, place: _Place, host_key: str, rt: runtime.Runtime) -> None:
    data = BuildConfiguration(ip, place, host_key, rt.clock.time())
    text = serializer.Dump(data.ToDict(), indent=True)
    rt.files.write(pathutils.CLUSTER_CONF_FILE, text.encode(), mode=0o600)
    cfg = config.ConfigWriter()
    # The first save of the writer is what brings the ssconf files to the node.
    cfg.Update(cfg.GetClusterInfo(), logging.warning)


# Nodes


@contextmanager
def _FirstContact(
    cluster_name: str, node: str, ssh_key_check: bool, user: firstcontact.User
) -> Iterator[Callable[[str, str], process.RunResult]]:
    """Connect to a host that is no node yet.

    @return: runs a shell command there, from (command, standard input)
    """
    if pathutils.IsVirtual():
        runner = ssh.GetRunner(cluster_name)
        yield lambda command, text: runner.Run(node, constants.GANETI_RUNAS, command, input=text)
        return
    target = firstcontact.Target(node, net.GetHostInfo(node).ip)
    with firstcontact.Connect(target, user, ssh_key_check) as host:
        yield host.Run


def SetupNodeDaemon(
    cluster_name: str,
    node: str,
    ssh_key_check: bool = True,
    user: firstcontact.User = firstcontact.NOBODY,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Bring the cluster's secrets to a host and start its node daemon.

    The host must have this suite installed at the same place. If its daemon does not answer, it
    keeps nothing, unless it was a node before.

    @param ssh_key_check: a host key that root of this host knows is right, another one than that
        is refused, and the user is asked about one of an unknown host; False = accept any
    @param user: who is asked, also for a password if none of root's keys is accepted
    @raise errors.OpExecError: the host can not be reached, refuses, or its daemon does not answer
    """
    from .tools import node_setup

    request = {
        "cluster_name": cluster_name,
        "node_name": node,
        "protocol": constants.PROTOCOL_VERSION,
        "files": {name: _ReadSecret(path, rt) for name, path in sorted(node_setup.FILES.items())},
    }
    with _FirstContact(cluster_name, node, ssh_key_check, user) as run_fn:
        result = run_fn(pathutils.NODE_SETUP, serializer.Dump(request))
        if result.failed:
            raise errors.OpExecError(DescribeSetupFailure(node, result))
        try:
            WaitForNodeDaemon(node, rt=rt)
        except errors.OpExecError as err:
            # Nobody could take it back by a call to the daemon.
            raise errors.OpExecError(f"{err}; {_TakeBack(run_fn, node)}") from err


def _TakeBack(run_fn: Callable[[str, str], process.RunResult], node: str) -> str:
    """Take back what the set-up of a node did, over the same connection; the outcome in words."""
    from .tools import node_setup

    try:
        result = run_fn(f"{pathutils.NODE_SETUP} {node_setup.UNDO}", "")
    except errors.OpExecError as err:
        problem = str(err)
    else:
        if not result.failed:
            return f"{node} keeps nothing of the set-up, unless it was a node before"
        problem = result.output.strip() or result.fail_reason
    return f"what {node} got could not be taken back ({problem}): {_REMAINS}"


#: What a shell exits with if it can not run or find a program.
_NO_PROGRAM = (126, 127)
_REMAINS = f"make sure that it runs no node daemon and has no {pathutils.NODED_CERT_FILE}"


def DescribeSetupFailure(node: str, result: process.RunResult) -> str:
    """Say why a host could not be set up as a node; pure."""
    output = result.output.strip() or result.fail_reason
    if result.exit_code in _NO_PROGRAM:
        return (
            f"Could not set up {node}: {output}; is the suite installed there, at the same place"
            " as here?"
        )
    return f"Could not set up {node}: {output}"


def UndoNodeSetup(node: str, address: str, rt: runtime.Runtime = runtime.DEFAULT) -> str | None:
    """Take back what L{SetupNodeDaemon} did, as far as the node still has a node daemon.

    @return: what could not be done, in words
    """

    def Ask() -> str:
        # The SSH keys are those of the job that adds the node, which takes them back itself.
        problem = rpc.RpcRunner.call_node_leave_cluster(node, False).fail_msg
        port = net.GetDaemonPort(constants.NODED)
        # A host that answers, but not at this port, has lost its daemon with all it had: the job
        # was here before us.
        if problem and not (
            net.TcpPing(address, port) and not net.TcpPing(address, port, live_port_needed=True)
        ):
            raise retry.RetryAgain(problem)
        return ""

    try:
        retry.Retry(
            Ask,
            NODED_START_DELAY,
            NODED_START_TIMEOUT,
            wait_fn=rt.clock.sleep,
            time_fn=rt.clock.monotonic,
        )
    except retry.RetryTimeout as err:
        return f"Could not take back what {node} got ({err}); {_REMAINS}"
    return None


def _ReadSecret(path: str, rt: runtime.Runtime) -> str:
    """A file of the cluster's secrets; its last line is complete, be it supplied by a user."""
    try:
        content = rt.files.read(path).decode()
    except FileNotFoundError as err:
        raise errors.OpExecError(
            f"{path} is missing: run this on the master, or make it with 'gnt-cluster renew-crypto'"
        ) from err
    return content if content.endswith("\n") else content + "\n"


# The end


def FinalizeClusterDestroy(master: str) -> list[str]:
    """The last step of destroying a cluster, after its master daemon has done its part.

    @return: what could not be done, in words
    """
    modify_ssh_setup = config.ConfigWriter(offline=True).GetClusterInfo().modify_ssh_setup
    problems = []
    result = rpc.RpcRunner.call_node_stop_master(master, True)
    if result.fail_msg:
        problems.append(f"Could not stop the master daemon: {result.fail_msg}")
    result = rpc.RpcRunner.call_node_leave_cluster(master, modify_ssh_setup)
    if result.fail_msg:
        problems.append(f"Could not clean up {master}: {result.fail_msg}")
    for problem in problems:
        logging.warning("%s", problem)
    return problems


def GetMaster() -> str:
    """Name of the master node, as this node knows it.

    @raise errors.ConfigurationError: this host is in no cluster
    """
    return ssconf.SimpleStore().GetMasterNode()
