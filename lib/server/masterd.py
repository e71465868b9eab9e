"""The master daemon: LUXI front end, job queue, locks and configuration of the cluster.

Starts only where the cluster says that the master is (L{voting}). Everything that touches disks,
instances or other programs is done by node daemons; this one runs several threads and no programs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

from .. import (
    config,
    constants,
    errors,
    jqueue,
    locking,
    objects,
    pathutils,
    rpc,
    ssconf,
    voting,
)
from ..runtime import DEFAULT, Runtime
from ..utils import process
from . import clientops, daemon, luxiserver

_YES: Final = "YES"

#: Seconds between two looks whether another node was made the master.
_ROLE_INTERVAL: Final = 10.0
#: Seconds that giving up the address of the cluster may take.
_STEP_DOWN_TIMEOUT: Final = 10.0
#: Seconds between two tries to serve nodes that could not be reached.
_STALE_NODES_INTERVAL: Final = 10.0


class MasterContext:
    """What there is once in a master daemon (L{cmdlib.base.Context <ganeti.cmdlib.base.Context>}).

    Immutable once it is made; an exception in one of the methods stops its sequence.
    """

    __slots__ = ("cfg", "glm", "jobqueue", "rpc", "runtime")

    cfg: config.ConfigWriter
    glm: locking.GanetiLockManager
    jobqueue: jqueue.JobQueue
    rpc: rpc.RpcRunner
    runtime: Runtime

    def __init__(self, cfg: config.ConfigWriter, rt: Runtime = DEFAULT) -> None:
        """Make locks for all nodes and instances, open the job queue and recover its jobs."""
        self.runtime = rt
        self.cfg = cfg
        self.rpc = rpc.RpcRunner(cfg)
        self.glm = locking.GanetiLockManager(cfg.GetNodeList(), cfg.GetInstanceList(), runtime=rt)
        self.jobqueue = jqueue.JobQueue(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, name):
            raise AttributeError(f"The context's '{name}' can not be replaced")
        object.__setattr__(self, name, value)

    def AddNode(self, node: objects.Node, ec_id: str | None) -> None:
        """Take a new node into the configuration, the queue's copies and the locks."""
        if ec_id is None:
            raise errors.ProgrammerError("Adding a node takes the context id of a job")
        self.cfg.AddNode(node, ec_id)
        self.glm.add(locking.LEVEL_NODE, node.name)
        self.jobqueue.AddNode(node)

    def ReaddNode(self, node: objects.Node) -> None:
        """Bring the copy of the queue on a node in line with the node's role."""
        self.jobqueue.AddNode(node)

    def RemoveNode(self, name: str) -> None:
        """Drop a node from the configuration, the queue's copies and the locks."""
        self.cfg.RemoveNode(name)
        self.jobqueue.RemoveNode(name)
        self.glm.remove(locking.LEVEL_NODE, name)


# The start: may this node be the master?


def _AskNoVoting() -> bool:
    """Does the user really want a master daemon without a vote?"""
    sys.stdout.write(
        "The 'no voting' option has been selected.\n"
        "This is dangerous: the cluster may end up with two masters. Are you sure that no other\n"
        f"node is the master? Type {_YES} in capital letters to go on: "
    )
    sys.stdout.flush()
    return sys.stdin.readline().strip() == _YES


def _Vote(node_list: list[str], myself: str) -> bool:
    rpc.Init()
    try:
        decision = voting.CheckAgreement(node_list, myself)
    finally:
        rpc.Shutdown()
    if decision.outcome is not voting.Outcome.ELECTED:
        sys.stderr.write(
            f"This node may not be the master: {decision.reason}.\nIf the other nodes are down for"
            " good, see --no-voting in ganeti-masterd(8).\n"
        )
        return False
    return True


def CheckAgreement(node_list: list[str], myself: str) -> bool:
    """Do the other nodes agree that this node is the master?

    Asks in a process of its own: it needs threads, which must not be there when a daemon detaches.

    @raise errors.GenericError: that process died
    """
    return process.RunInSeparateProcess(_Vote, node_list, myself)


def ReadNodeList(myself: str) -> list[str]:
    """Names of all nodes, from this node's configuration.

    @raise errors.ConfigurationError: it is not usable, or that of another master: the daemon would
        tell all nodes that there is another one, and leave the cluster without any
    @raise OSError: it can not be read
    """
    cfg = config.ConfigWriter(offline=True)
    if cfg.GetMasterNode() != myself:
        raise errors.ConfigurationError(
            f"This node, {myself}, is the master, but its {pathutils.CLUSTER_CONF_FILE} says that"
            f" {cfg.GetMasterNode()} is. Restore the right file from another master candidate, or"
            " make this node the master with 'gnt-cluster masterfailover'"
        )
    return cfg.GetNodeList()


def CheckMasterd(options: argparse.Namespace, args: list[str]) -> int | None:
    """Check function: refuses where this node is not, or may not be, the master (JQ5)."""
    code = daemon.RefuseArguments(options, args)
    if code:
        return code
    ssconf.CheckMaster(options.debug)
    if options.no_voting and not (options.yes_do_it or _AskNoVoting()):
        return constants.EXIT_FAILURE
    try:
        myself = ssconf.SimpleStore().GetMasterNode()
        node_list = ReadNodeList(myself)
        agreed = options.no_voting or CheckAgreement(node_list, myself)
    except (errors.GenericError, OSError) as err:
        sys.stderr.write(f"The master daemon can't be started: {errors.FormatError(err)}\n")
        return constants.EXIT_FAILURE
    return None if agreed else constants.EXIT_FAILURE


# Serving


def _ActivateMasterIp() -> None:
    """Bring the cluster's address up on this node; without it the daemon still works."""
    master = ssconf.SimpleStore().GetMasterNode()
    result = rpc.RpcRunner.call_node_start_master(master, False, False)
    if result.fail_msg:
        logging.error("Can not activate the master's IP address: %s", result.fail_msg)


def _MakeContext() -> MasterContext:
    _ActivateMasterIp()
    context = MasterContext(config.ConfigWriter())
    context.jobqueue.Start()
    return context


async def _ServeStaleNodes(context: MasterContext, executor: Executor) -> None:
    """Again and again bring configuration and ssconf to nodes that could not be reached."""
    loop = asyncio.get_running_loop()
    known: set[str] = set()
    while True:
        try:
            stale = await loop.run_in_executor(executor, context.cfg.DistributeStale)
        except Exception:  # noqa: BLE001 - a duty for life: one failure must not be its end
            logging.exception("Can not serve the nodes without the newest configuration")
        else:
            if stale != known:
                names = ", ".join(sorted(stale)) or "none any more"
                logging.info("Nodes without the newest configuration: %s", names)
            known = stale
        await asyncio.sleep(_STALE_NODES_INTERVAL)


def _FindSuccessor(context: MasterContext) -> str | None:
    """Who was made the master in the place of this node, as far as can be known here."""
    store = ssconf.SimpleStore()
    master, myself = store.GetMasterNode(), context.cfg.GetMasterNode()
    if master != myself:
        return master
    others = [name for name in store.GetMasterCandidates() if name != myself]
    if not others:
        return None
    answers = rpc.RpcRunner.call_master_info(others)
    return voting.FindSuccessor(answers, myself, store.GetVersion())


async def _WatchRole(context: MasterContext, executor: Executor) -> None:
    """Return once another node was made the master, as when this one was cut off for a while."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_ROLE_INTERVAL)
        try:
            successor = await loop.run_in_executor(executor, _FindSuccessor, context)
        except Exception:  # noqa: BLE001 - to know nothing is no reason to end
            logging.exception("Can not find out whether this node is still the master")
            continue
        if successor is not None:
            logging.critical(
                "%s was made the master: this master daemon ends at once, with the jobs that it"
                " runs",
                successor,
            )
            return


async def _StepDown(context: MasterContext, executor: Executor) -> None:
    """End like after a power cut: whatever jobs go on to do is not this node's to do any more."""
    context.jobqueue.PrepareShutdown()
    myself = context.cfg.GetMasterNode()
    stop = asyncio.get_running_loop().run_in_executor(
        executor, rpc.RpcRunner.call_node_stop_master, myself, False
    )
    done, _ = await asyncio.wait([stop], timeout=_STEP_DOWN_TIMEOUT)
    problem = stop.result().fail_msg if done else "the node daemon does not answer"
    if problem:
        logging.error("Can not give up the cluster's address: %s", problem)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pathutils.MASTER_SOCKET)
    logging.shutdown()
    os._exit(constants.EXIT_NOTMASTER)


async def _Main(control: daemon.DaemonControl) -> int:
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(constants.CLIENT_REQUEST_WORKERS, "ClientReq")
    # Whoever waits for nodes waits here, where a node that hangs holds up nobody else.
    node_executor = ThreadPoolExecutor(constants.CLIENT_REQUEST_WORKERS, "ClientNodeReq")
    # Before anything else: clients that come while jobs are loaded wait and are served then.
    sock = luxiserver.Listen(pathutils.MASTER_SOCKET)
    context: MasterContext | None = None
    try:
        context = await loop.run_in_executor(executor, _MakeContext)
        ops = clientops.ClientOps(context, executor, node_executor)
        server = luxiserver.LuxiServer(ops.Call, executor)
        await server.Start(sock)
        control.Started()
        duty = asyncio.create_task(_ServeStaleNodes(context, node_executor))
        role = asyncio.create_task(_WatchRole(context, node_executor))
        stop = asyncio.create_task(control.WaitForStop())
        await asyncio.wait([role, stop], return_when=asyncio.FIRST_COMPLETED)
        duty.cancel()
        if not stop.done():
            await _StepDown(context, node_executor)
        role.cancel()
        # New jobs are refused, those that wait stay for the next start; running opcodes are waited
        # for below.
        context.jobqueue.PrepareShutdown()
        ops.End()
        await server.Stop()
    finally:
        sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pathutils.MASTER_SOCKET)
        if context is not None:
            await loop.run_in_executor(None, context.jobqueue.Shutdown)
        for pool in (executor, node_executor):
            pool.shutdown(wait=False, cancel_futures=True)
    return constants.EXIT_SUCCESS


def _ClaimMaster() -> None:
    """Make nodes that know of a later master refuse what this one asks for."""
    store = ssconf.SimpleStore()
    version = store.GetVersion()
    # That of the start is enough: who replaces this node counts on from above it.
    if version is not None:
        rpc.ClaimMaster(store.GetMasterNode(), version.Format())


def ExecMasterd(
    _options: argparse.Namespace, _args: list[str], control: daemon.DaemonControl
) -> int:
    """Serve until told to stop."""
    daemon.RemoveUnfinishedFiles()
    rpc.Init()
    _ClaimMaster()
    try:
        return control.RunAsync(_Main)
    finally:
        rpc.Shutdown()


def Main() -> int:
    """Entry point of ganeti-masterd."""
    parser = daemon.BuildParser(constants.MASTERD, "Ganeti master daemon")
    parser.add_argument(
        "--no-voting",
        action="store_true",
        help="do not ask the other nodes whether this one is the master",
    )
    parser.add_argument(
        "--yes-do-it", action="store_true", help="with --no-voting: do not ask the user either"
    )
    return daemon.GenericMain(
        constants.MASTERD,
        parser,
        daemon.DAEMON_DIRS[constants.MASTERD],
        CheckMasterd,
        ExecMasterd,
    )
