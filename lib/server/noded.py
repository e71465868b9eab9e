"""The node daemon: carries out on its node what the master asks for.

NA1: memory is locked (L{daemon.GenericMain} does it). NA2: what can not be logged to the file goes
to the console. NA3: everything that a powercycle needs is in memory before the first request.
"""

from __future__ import annotations

import argparse
import functools
import logging
import threading
from collections.abc import Sequence
from typing import Final

from .. import backend, constants, errors, runtime
from . import daemon
from .rpcserver import RpcServer

#: Stacks are locked in memory as a whole, so the usual eight MiB for each thread are too much.
_THREAD_STACK: Final = 1024 * 1024


def _InitQueue() -> None:
    """Make the queue's files; a broken file system is no reason not to serve.

    @raise errors.JobQueueError, ValueError: the queue is not one that this release may touch
    """
    try:
        backend.InitQueue()
    except errors.JobQueueError:
        raise
    except (OSError, errors.GenericError):
        logging.critical("Can't initialize the job queue; going on without", exc_info=True)


async def _Serve(server: RpcServer, address: str, port: int, control: daemon.DaemonControl) -> None:
    await server.Start(address, port)
    logging.info("Serving node calls on %s port %s", address or "all addresses", port)
    control.Started()
    try:
        await control.WaitForStop()
    finally:
        await server.Stop()


def ExecNoded(
    options: argparse.Namespace, args: list[str], control: daemon.DaemonControl
) -> int | None:
    """Serve until told to stop."""
    backend.Preload()
    _InitQueue()
    daemon.RemoveUnfinishedFiles()
    server = RpcServer(
        answer=backend.Answer,
        on_quit=control.RequestStop,
        cert_file=options.ssl_cert if options.ssl else None,
        key_file=options.ssl_key if options.ssl else None,
        rt=runtime.DEFAULT,
        check_master=backend.RefuseDeposed,
    )
    try:
        return control.RunAsync(functools.partial(_Serve, server, options.bind, options.port))
    finally:
        backend.FinishQueue()


def Main(argv: Sequence[str] | None = None) -> int:
    """Entry point of C{ganeti-noded}; exit code."""
    threading.stack_size(_THREAD_STACK)
    return daemon.GenericMain(
        constants.NODED,
        daemon.BuildParser(constants.NODED, "Node daemon: serves the calls of the master."),
        daemon.DAEMON_DIRS[constants.NODED],
        daemon.RefuseArguments,
        ExecNoded,
        console_logging=True,
        argv=argv,
    )
