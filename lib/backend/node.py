"""This node as a whole: joining and leaving a cluster, facts about it, its network, powercycle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, hypervisor, pathutils, runtime, ssh
from ..utils import io, net, text
from . import jobqueue, master, volumes
from .base import Fail
from .cleaning import CleanDirectory

#: Seconds between the answer to a powercycle request and the powercycle.
POWERCYCLE_DELAY: Final = 5.0


def GetProtocolVersion() -> int:
    """Version of the protocol that this node daemon speaks."""
    return constants.PROTOCOL_VERSION


def TestDelay(duration: float, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Sleep for so many seconds."""
    if duration < 0:
        Fail(f"Invalid delay {duration}: it must not be negative")
    rt.clock.sleep(duration)


# Joining and leaving


def AddNode(dsa: str, dsapub: str, rsa: str, rsapub: str, sshkey: str, sshpub: str) -> None:
    """Install the SSH keys of the cluster: those of the host, and root's own.

    Keys that are empty do not exist (any more: DSA) and are not written.

    @raise RPCFail: the SSH daemon could not be told, or a file not be written
    """
    host_keys = [
        (pathutils.SSH_HOST_RSA_PRIV, rsa, 0o600),
        (pathutils.SSH_HOST_RSA_PUB, rsapub, 0o644),
        (pathutils.SSH_HOST_DSA_PRIV, dsa, 0o600),
        (pathutils.SSH_HOST_DSA_PUB, dsapub, 0o644),
    ]
    try:
        private, public, authorized = ssh.GetUserFiles(constants.GANETI_RUNAS, mkdir=True)
        user_keys = [(private, sshkey, 0o600), (public, sshpub, 0o600)]
        for path, content, mode in host_keys + user_keys:
            if content:
                io.WriteFile(path, data=content, mode=mode)
        if sshpub:
            ssh.AddAuthorizedKey(authorized, sshpub)
    except (OSError, errors.GenericError) as err:
        Fail(f"Can't install the SSH keys of the cluster: {err}", exc_info=True)
    problem = master.RunDaemonUtil("reload-ssh-keys", runtime.DEFAULT)
    if problem is not None:
        Fail(f"Can't make the SSH daemon load its new keys: {problem}")


def LeaveCluster(modify_ssh_setup: bool, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Remove everything of the cluster from this node, and end the daemon.

    @raise errors.QuitGanetiException: done; always, unless a check fails first
    """
    CleanDirectory(pathutils.DATA_DIR)
    try:
        jobqueue.JobQueuePurge()
    except errors.GenericError as err:
        # What matters more comes below: the secrets.
        logging.error("Can't remove the job queue: %s", err)
    if modify_ssh_setup:
        _RemoveUserKeys()
    for path in (
        pathutils.CONFD_HMAC_KEY,
        pathutils.RAPI_CERT_FILE,
        pathutils.NODED_CERT_FILE,
    ):
        try:
            io.RemoveFile(path)
        except OSError as err:
            logging.error("Can't remove %s: %s", path, err)
    problem = master.RunDaemonUtil("stop", rt, args=[constants.CONFD])
    if problem is not None:
        logging.error("Can't stop %s: %s", constants.CONFD, problem)
    raise errors.QuitGanetiException(True, "Shutdown scheduled")


def _RemoveUserKeys() -> None:
    try:
        private, public, authorized = ssh.GetUserFiles(constants.GANETI_RUNAS)
        try:
            ssh.RemoveAuthorizedKey(authorized, io.ReadFile(public))
        except FileNotFoundError as err:
            logging.warning("No SSH key to remove: %s", err)
        io.RemoveFile(private)
        io.RemoveFile(public)
    except (OSError, errors.GenericError) as err:
        logging.error("Can't remove the SSH keys of the cluster: %s", err)


# Facts


def GetNodeInfo(
    vg_name: str | None, hypervisor_type: str, rt: runtime.Runtime = runtime.DEFAULT
) -> dict[str, Any]:
    """Disk space (MiB), memory (MiB), processors and boot id of this node.

    @raise RPCFail: the hypervisor can not be asked
    """
    result: dict[str, Any] = dict(volumes.GetVolumeGroupInfo(vg_name, rt))
    try:
        info = hypervisor.GetHypervisor(hypervisor_type).GetNodeInfo()
    except errors.HypervisorError as err:
        Fail(f"Can't get facts about this node from hypervisor {hypervisor_type}: {err}")
    result.update(info or {})
    result["bootid"] = io.ReadFile(pathutils.BOOT_ID_FILE).strip()
    return result


def ValidateHVParams(hypervisor_type: str, hvparams: dict[str, Any]) -> None:
    """Check on this node what filled hypervisor parameters refer to.

    @raise RPCFail: names the parameter
    """
    try:
        hypervisor.GetHypervisorClass(hypervisor_type).ValidateParameters(hvparams)
    except errors.HypervisorError as err:
        # The user's mistake, or another node's: nothing for this node's log.
        Fail(str(err), log=False)


# Network


def TcpPing(
    source: str | None, target: str, port: int, timeout: float, live_port_needed: bool
) -> bool:
    """Can this node connect from its address C{source} to a target?"""
    return net.TcpPing(
        target,
        port,
        timeout=timeout,
        live_port_needed=live_port_needed,
        source=source or None,
    )


def HasIpAddress(address: str) -> bool:
    """Is it an address of this node?"""
    return net.OwnIpAddress(address)


def BridgesExist(bridges: Sequence[str], virtual: bool = pathutils.IsVirtual()) -> None:
    """Make sure that these network bridges exist.

    @param virtual: is this a virtual node? It has no bridges of its own, and its guests get a
        network of QEMU's where there is none.
    @raise RPCFail: names those that do not
    """
    invalid = [name for name in bridges if not _IsInterfaceName(name)]
    if invalid:
        Fail(f"Invalid bridge name(s): {text.CommaJoin(invalid)}")
    missing = [name for name in bridges if not net.BridgeExists(name)]
    if missing and not virtual:
        Fail(f"Missing bridge(s): {text.CommaJoin(missing)}")


def _IsInterfaceName(name: str) -> bool:
    """May it name a network interface? It becomes part of a path."""
    return 0 < len(name) < 16 and "/" not in name and name not in (".", "..") and name.isprintable()


# Power


def PowercycleNode(hypervisor_type: str, rt: runtime.Runtime = runtime.DEFAULT) -> str:
    """Reset this node in a few seconds, after the answer has left.

    NA3: must work when the system disk fails every read and write, so nothing here opens a file,
    imports a module or starts a program.
    """
    cls = hypervisor.GetHypervisorClass(hypervisor_type)

    def Powercycle() -> None:
        rt.clock.sleep(POWERCYCLE_DELAY)
        try:
            cls.PowercycleNode()
        except Exception:  # noqa: BLE001 - boundary of a thread
            logging.exception("Powercycle failed")

    try:
        rt.threads.start(Powercycle, name="Powercycle")
    except RuntimeError:
        logging.exception("There is no thread for it: not answering, but doing it now")
        Powercycle()
    return f"Reboot scheduled in {POWERCYCLE_DELAY:g} seconds"
