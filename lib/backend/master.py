"""The master role on this node: its address, its daemons, and giving up a master candidate."""

from __future__ import annotations

import logging
from typing import Final

from .. import constants, errors, pathutils, rpc_defs, runtime, ssconf
from ..utils import io, net
from . import files
from .base import Fail

#: Seconds that starting or stopping daemons may take.
_DAEMON_TIMEOUT = 120.0


def GetMasterInfo(store: ssconf.SimpleStore | None = None) -> tuple[str, str, str]:
    """Network device, cluster address and master node, as this node knows them.

    @raise RPCFail: it does not know them
    """
    store = store or ssconf.SimpleStore()
    try:
        return store.GetMasterNetdev(), store.GetMasterIP(), store.GetMasterNode()
    except errors.ConfigurationError as err:
        Fail(f"Cluster configuration incomplete: {err}", exc_info=True)


def AnswerMasterInfo() -> list[str | None]:
    """What L{GetMasterInfo} says, and how new it is.

    @return: device, address, master; the version of this node's configuration, and that of its
        ssconf files (L{ssconf.Version.Format}), None for what it does not have
    @raise RPCFail: this node does not know its master
    """
    store = ssconf.SimpleStore()
    versions = (files.GetConfigVersion(), store.GetVersion())
    return [
        *GetMasterInfo(store),
        *(None if version is None else version.Format() for version in versions),
    ]


#: What a master that was replaced may still ask for: to be one no longer, and a reset.
_FOR_ANYBODY: Final = frozenset(["node_stop_master", "node_powercycle"])


def RefuseDeposed(
    name: str, master: str, version: str, store: ssconf.SimpleStore | None = None
) -> str | None:
    """Why a call is not to be carried out; None if it is.

    A master that was cut off while another one was made goes on with its jobs until it finds out;
    then it must not change anything any more.

    @param name: of the call
    @param master: who calls as the master
    @param version: that it has of the cluster, see L{ssconf.Version.Format}
    """
    if rpc_defs.CALLS[name].read_only or name in _FOR_ANYBODY:
        return None
    claimed = ssconf.ParseVersion(version)
    if claimed is None:
        return None
    return (store or ssconf.SimpleStore()).ExplainDeposed(master, claimed)


def StartMaster(
    start_daemons: bool,
    no_voting: bool,
    rt: runtime.Runtime = runtime.DEFAULT,
    store: ssconf.SimpleStore | None = None,
) -> None:
    """Bring up the cluster address on this node and, if asked, the master's daemons.

    All steps are tried; what fails is reported together.

    @param no_voting: start the master daemon without asking the other nodes
    @raise RPCFail: something failed
    """
    netdev, master_ip, _ = GetMasterInfo(store)
    problems = []
    problem = _ActivateMasterIp(master_ip, netdev, rt)
    if problem is not None:
        problems.append(problem)
    if start_daemons:
        extra = "--no-voting --yes-do-it" if no_voting else ""
        problem = RunDaemonUtil("start-master", rt, {"EXTRA_MASTERD_ARGS": extra})
        if problem is not None:
            problems.append(f"Can't start the master's daemons: {problem}")
    if problems:
        Fail("; ".join(problems))


def _ActivateMasterIp(master_ip: str, netdev: str, rt: runtime.Runtime) -> str | None:
    """Give this node the cluster address; what went wrong, None if nothing did."""
    if net.OwnIpAddress(master_ip):
        # Loopback addresses, which virtual clusters have, belong to every process anyway.
        logging.debug("The cluster address %s is up already", master_ip)
        return None
    if net.TcpPing(master_ip, constants.DEFAULT_NODED_PORT, timeout=constants.TCP_PING_TIMEOUT):
        return f"Someone else has the cluster address {master_ip}"
    command = [
        *(pathutils.IP_PATH, "address", "add", f"{master_ip}/32"),
        *("dev", netdev, "label", f"{netdev}:0"),
    ]
    problem = _Run(command, rt)
    if problem is not None:
        return f"Can't activate the cluster address {master_ip} on {netdev}: {problem}"
    # Tell the neighbours. It matters only after a failover, and not every host has the program.
    problem = _Run(["arping", "-q", "-U", "-c", "3", "-I", netdev, "-s", master_ip, master_ip], rt)
    if problem is not None:
        logging.warning("Can't announce the cluster address %s: %s", master_ip, problem)
    return None


def StopMaster(
    stop_daemons: bool,
    rt: runtime.Runtime = runtime.DEFAULT,
    store: ssconf.SimpleStore | None = None,
) -> None:
    """Take the cluster address and, if asked, the master's daemons down; failures are logged."""
    netdev, master_ip, _ = GetMasterInfo(store)
    if not net.IsLoopback(master_ip):
        command = [pathutils.IP_PATH, "address", "del", f"{master_ip}/32", "dev", netdev]
        problem = _Run(command, rt)
        if problem is not None:
            logging.error("Can't remove the cluster address %s: %s", master_ip, problem)
    if stop_daemons:
        problem = RunDaemonUtil("stop-master", rt)
        if problem is not None:
            logging.error("Can't stop the master's daemons: %s", problem)


def DemoteFromMC(
    rt: runtime.Runtime = runtime.DEFAULT, store: ssconf.SimpleStore | None = None
) -> None:
    """Give up the copy of the configuration, leaving a backup.

    @raise RPCFail: this node is the master
    """
    store = store or ssconf.SimpleStore()
    master, myself = ssconf.GetMasterAndMyself(store)
    if master == myself:
        Fail("This node is the master: it stays a master candidate")
    if RunDaemonUtil("check", rt, args=[constants.MASTERD]) is None:
        Fail("The master daemon runs on this node, which should not be the master: not demoted")
    try:
        # Takes no room: a full disk must not keep an old configuration in use.
        io.MoveToBackup(pathutils.CLUSTER_CONF_FILE)
    except OSError as err:
        Fail(f"Can't make a backup of {pathutils.CLUSTER_CONF_FILE}: {err}", exc_info=True)


def RunDaemonUtil(
    action: str,
    rt: runtime.Runtime,
    env: dict[str, str] | None = None,
    args: list[str] | None = None,
) -> str | None:
    """Why daemon-util failed; None if it did not."""
    return _Run([pathutils.DAEMON_UTIL, action, *(args or [])], rt, env)


def _Run(command: list[str], rt: runtime.Runtime, env: dict[str, str] | None = None) -> str | None:
    try:
        result = rt.processes.run(command, env=env, timeout=_DAEMON_TIMEOUT)
    except (errors.OpExecError, OSError) as err:
        return str(err)
    if not result.failed:
        return None
    return f"{result.fail_reason}: {result.output.strip()}".rstrip(": ")
