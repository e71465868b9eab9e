"""ganeti-watcher: one run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from .. import constants, errors, luxi, masterfailover, pathutils, runtime, ssconf
from ..client import values
from ..utils import io, log, process
from . import decide, node
from .master import MasterDuty
from .state import StateFile

PROGRAM: Final = "ganeti-watcher"
#: What C{--job-age} is without one.
_JOB_AGE: Final = "6h"
_HOOKS_DIR: Final = os.path.join(pathutils.HOOKS_BASE_DIR, constants.HOOKS_NAME_WATCHER)


def BuildParser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Keeps this node's daemons running; on the master also the instances.",
        epilog="Run it every few minutes on every node, from cron or by a timer.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s (ganeti) {constants.RELEASE_VERSION}"
    )
    parser.add_argument(
        "-d", "--debug", action="store_true", help="log everything, to standard error as well"
    )
    parser.add_argument(
        "-A",
        "--job-age",
        metavar="AGE",
        type=_ParseAge,
        default=_JOB_AGE,
        help="archive jobs that ended that long ago, such as 90m or 2d (default: %(default)s)",
    )
    parser.add_argument(
        "--ignore-pause", action="store_true", help="run although the watcher is paused"
    )
    parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
    return parser


def _ParseAge(value: str) -> int:
    try:
        return values.ParseTimespec(value)
    except errors.OpPrereqError as err:
        raise argparse.ArgumentTypeError(str(err.args[0])) from err


# Connecting


def _TimeOf(path: str, rt: runtime.Runtime) -> float | None:
    try:
        return rt.files.stat(path).mtime
    except OSError:
        return None


def _FindReasonToWait(rt: runtime.Runtime) -> str | None:
    """Why the master daemon, which does not serve, is to be left alone for now."""
    stopped = None
    if not rt.files.exists(pathutils.MASTER_SOCKET):
        # It removes its socket when it ends in good order, and nothing else is in that directory.
        # One that was killed leaves it there; after a boot there is no directory.
        stopped = _TimeOf(pathutils.SOCKET_DIR, rt)
    begun = _TimeOf(masterfailover.FAILOVER_FILE, rt)
    return decide.FindReasonToWait(rt.clock.time(), begun, stopped)


def _Connect(rt: runtime.Runtime) -> luxi.Client | int:
    """A connection to the master daemon, which is started if it died; or an exit code."""
    try:
        return luxi.Client()
    except luxi.NoMasterError:
        pass
    reason = _FindReasonToWait(rt)
    if reason is not None:
        logging.warning("The master daemon does not serve, but %s", reason)
        return constants.EXIT_SUCCESS
    logging.warning("The master daemon does not serve, starting it")
    if not process.EnsureDaemon(constants.MASTERD):
        return constants.EXIT_FAILURE
    return luxi.Client()


# A run


def RunOnNode(rt: runtime.Runtime) -> None:
    """What is done on every node."""
    node.EnsureDaemons()
    node.RunHooks(_HOOKS_DIR)
    node.MaintainHealth(rt)


def RunOnMaster(state_file: StateFile, myself: str, job_age: int, rt: runtime.Runtime) -> int:
    """What is done on the master.

    @return: the exit code
    """
    cl = _Connect(rt)
    if isinstance(cl, int):
        return cl
    with cl:
        process.EnsureDaemon(constants.RAPI)
        (master,) = cl.QueryConfigValues(["master_node"])
        if master != myself:
            logging.error("This is %s, but the configured master is %s", myself, master)
            return constants.EXIT_NOTMASTER
        state = state_file.Load()
        try:
            MasterDuty(cl, state, rt).Run(job_age)
        except (errors.JobQueueFull, errors.JobQueueDrainError) as err:
            # Attempts that were made count all the same.
            logging.error("No jobs can be submitted: %s", errors.FormatError(err))
        state_file.Save(state)
    return constants.EXIT_SUCCESS


def Run(options: argparse.Namespace, rt: runtime.Runtime = runtime.DEFAULT) -> int:
    """One run.

    @return: the exit code
    """
    until = io.ReadWatcherPauseFile(pathutils.WATCHER_PAUSEFILE, rt.clock.time())
    if until is not None and not options.ignore_pause:
        logging.debug("The watcher is paused until %s", until)
        return constants.EXIT_SUCCESS
    try:
        state_file = StateFile.Open()
    except BlockingIOError:
        logging.error(
            "%s is locked: another watcher is still at work, or something keeps it waiting",
            pathutils.WATCHER_STATEFILE,
        )
        return constants.EXIT_FAILURE
    with state_file:
        RunOnNode(rt)
        master, myself = ssconf.GetMasterAndMyself()
        if master != myself:
            state_file.Touch()
            return constants.EXIT_SUCCESS
        return RunOnMaster(state_file, myself, options.job_age, rt)


def _Guarded(options: argparse.Namespace) -> int:
    """A run with its errors as exit codes, and in the log."""
    try:
        return Run(options)
    except errors.ConfigurationError as err:
        logging.warning("This node is in no cluster: %s", errors.FormatError(err))
        return constants.EXIT_SUCCESS
    except errors.ResolverError as err:
        logging.error("Can't resolve the name of this node: %s", errors.FormatError(err))
        return constants.EXIT_NODESETUP_ERROR
    except (errors.GenericError, OSError) as err:
        logging.error("%s: %s", type(err).__name__, errors.FormatError(err))
        return constants.EXIT_FAILURE
    except Exception:
        # The boundary of the process: cron tells nobody what is on standard error.
        logging.exception("Unexpected error")
        return constants.EXIT_FAILURE


def Main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit code."""
    options: Any = BuildParser().parse_args(argv)
    if options.args:
        sys.stderr.write(f"{PROGRAM} takes no arguments, but there is '{options.args[0]}'\n")
        return constants.EXIT_FAILURE
    if not os.path.exists(pathutils.NODED_CERT_FILE):
        # Installed, but in no cluster (yet): cron runs it all the same.
        return constants.EXIT_SUCCESS
    log.SetupLogging(
        pathutils.LOG_WATCHER,
        debug=options.debug,
        stderr_logging=options.debug,
        program=PROGRAM,
    )
    return _Guarded(options)
