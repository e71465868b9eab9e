"""What the watcher does on every node, be it the master or not."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .. import constants, errors, pathutils, runtime, serializer, ssconf
from ..confd import client as confd_client
from ..hypervisor import GetHypervisor
from ..utils import hooktime, io, net, process, text

#: Seconds to wait for the answers of master candidates.
_CONFD_TIMEOUT: Final = 10

_PROC_DRBD: Final = "/proc/drbd"
_DRBD_VERSION_RE: Final = re.compile(r"version: (\d+)\.(\d+)")
_DRBD_MINOR_RE: Final = re.compile(r"\s*(\d+):\s*(?:cs|st):(\S+)", re.ASCII)
_DRBD_RESOURCE_RE: Final = re.compile(r"resource[0-9]+")
_DRBD_UNCONFIGURED: Final = "Unconfigured"


def EnsureDaemons() -> None:
    """Start what every node runs and what is not there; failures are logged."""
    for name in (constants.NODED, constants.CONFD):
        process.EnsureDaemon(name)


# Hooks


def RunHooks(directory: str) -> None:
    """Run the administrator's scripts; how they end is only logged."""
    if not os.path.isdir(directory):
        return
    timeout = hooktime.ReadTimeout()
    limits = process.PartLimits(
        timeout=timeout,
        total=hooktime.GetDirectoryTimeout(timeout),
        max_output=constants.HOOKS_MAX_OUTPUT,
    )
    for name, status, result in process.RunParts(directory, limits=limits):
        if status == constants.RUNPARTS_SKIP:
            logging.debug("Watcher hook %s: skipped", name)
        elif not isinstance(result, process.RunResult):
            logging.warning("Watcher hook %s could not be run: %s", name, result)
        elif result.failed:
            output = text.SafeEncode(result.output.strip())
            logging.warning(
                "Watcher hook %s failed (%s), output: %s", name, result.fail_reason, output
            )
        else:
            logging.debug("Watcher hook %s: success", name)


# Nodes that were given up


def DescribeRole(answer: confd_client.Answer) -> tuple[int | None, str]:
    """What other master candidates say of this node: its role, None if that can not be relied on,
    and why; pure.
    """
    reply = answer.reply
    if answer.timed_out or reply is None:
        return None, f"only {answer.received} of {answer.sent} master candidates answered"
    if not answer.consistent:
        return None, "master candidates contradict each other"
    if reply.status != constants.CONFD_REPL_STATUS_OK:
        return None, f"they report the error {reply.answer}"
    needed = confd_client.NeededReplies(answer.sent)
    if answer.agreeing < needed:
        return None, f"only {answer.agreeing} of {answer.sent} know the newest configuration"
    return reply.answer, f"{answer.agreeing} of {answer.sent} master candidates agree"


def _AskRole(store: ssconf.SimpleStore, name: str, rt: runtime.Runtime) -> confd_client.Answer:
    """What the other master candidates say of this node.

    Its own copy of the configuration is of no use: nobody brings a new one to a node that was given
    up.

    @raise errors.ConfdClientError: there are no others
    """
    addresses = dict(line.split(None, 1) for line in store.GetNodePrimaryIPList())
    peers = [ip for ip in store.GetMasterCandidatesIPList() if ip != addresses.get(name)]
    hmac_key = rt.files.read(pathutils.CONFD_HMAC_KEY)
    return confd_client.Ask(
        lambda callback: confd_client.ConfdClient(hmac_key, peers, callback, runtime=rt),
        confd_client.ConfdClientRequest(type=constants.CONFD_REQ_NODE_ROLE_BYNAME, query=name),
        coverage=-1,
        timeout=_CONFD_TIMEOUT,
    )


def MaintainHealth(rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """End what runs on this node if the cluster has given it up, and wants that.

    Otherwise an instance that was moved elsewhere could go on here once the node comes back.
    """
    store = ssconf.SimpleStore(runtime=rt)
    try:
        if not store.GetMaintainNodeHealth():
            return
        name = net.HostInfo().name
        if store.GetMasterCandidates() == [name]:
            # Nobody else could say anything.
            return
        answer = _AskRole(store, name, rt)
        hypervisors = store.GetHypervisorList()
    except (errors.GenericError, OSError, ValueError) as err:
        logging.warning("Can't find out the role of this node: %s", err)
        return
    role, why = DescribeRole(answer)
    if role is None:
        logging.warning("The role of this node is not clear: %s", why)
    elif role == constants.CONFD_NODE_ROLE_OFFLINE:
        logging.info("This node is offline (%s): ending everything that runs here", why)
        _StopInstances(hypervisors)
        _StopDrbd(rt)


def _StopInstances(hypervisors: Iterable[str]) -> None:
    for kind in hypervisors:
        try:
            hypervisor = GetHypervisor(kind)
            names = hypervisor.ListInstances()
        except (errors.HypervisorError, OSError) as err:
            logging.error("Can't list the %s instances: %s", kind, errors.FormatError(err))
            continue
        for name in names:
            logging.warning("Stopping the %s instance %s", kind, name)
            try:
                hypervisor.StopInstance(None, force=True, name=name)
            except (errors.HypervisorError, OSError) as err:
                logging.error("Can't stop instance %s: %s", name, errors.FormatError(err))


def FindDrbdDevices(proc_drbd: str) -> tuple[tuple[int, int], list[int]]:
    """Version of DRBD, and minors that are in use; pure.

    @param proc_drbd: content of the file of this name
    """
    match = _DRBD_VERSION_RE.search(proc_drbd)
    version = (int(match.group(1)), int(match.group(2))) if match else (8, 0)
    minors = [
        int(found.group(1))
        for found in map(_DRBD_MINOR_RE.match, proc_drbd.splitlines())
        if found and found.group(2) != _DRBD_UNCONFIGURED
    ]
    return version, minors


def _StopDrbd(rt: runtime.Runtime) -> None:
    try:
        version, minors = FindDrbdDevices(io.ReadFile(_PROC_DRBD))
    except FileNotFoundError:
        return
    except OSError as err:
        logging.error("Can't find out which DRBD devices are in use: %s", err)
        return
    for argv in _DownCommands(version, minors, rt):
        logging.warning("Shutting down DRBD: %s", " ".join(argv))
        _RunDrbd(argv, rt)


def _DownCommands(
    version: tuple[int, int], minors: Iterable[int], rt: runtime.Runtime
) -> Iterator[list[str]]:
    if version < (8, 4):
        yield from (["drbdsetup", f"/dev/drbd{minor}", "down"] for minor in minors)
    elif version < (9, 0):
        yield from (["drbdsetup", "down", f"resource{minor}"] for minor in minors)
    else:
        # Its file in /proc knows no devices any more.
        yield from (["drbdsetup", "down", name] for name in _ListDrbdResources(rt))


def _ListDrbdResources(rt: runtime.Runtime) -> list[str]:
    output = _RunDrbd(["drbdsetup", "status", "--json"], rt)
    try:
        names = [resource["name"] for resource in serializer.Load(output or "[]")]
    except (KeyError, TypeError, ValueError) as err:
        logging.error("Can't understand what drbdsetup says of its resources: %s", err)
        return []
    return [name for name in names if _DRBD_RESOURCE_RE.fullmatch(name)]


def _RunDrbd(argv: Sequence[str], rt: runtime.Runtime) -> str:
    try:
        result = rt.processes.run(argv)
    except (errors.OpExecError, OSError) as err:
        logging.error("%s: %s", " ".join(argv), errors.FormatError(err))
        return ""
    if result.failed:
        logging.error("%s: %s: %s", result.cmd, result.fail_reason, result.output.strip())
        return ""
    return result.stdout
