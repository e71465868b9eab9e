"""Programs that feed each other, without a shell.

The outcome of every one counts, not that of the last alone: an image that was read to half its
length and compressed well is no image.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Final

from .. import errors
from . import child, loglimit, process, text

#: Bytes of what a program says of its troubles that are kept, in memory and in a log file.
_MAX_OUTPUT: Final = 16384
_MAX_LOG: Final = 16 * 2**20
_LOG_MODE: Final = 0o600


@dataclass(frozen=True)
class Stage:
    """One of the programs.

    @ivar name: what it is to people, e.g. "the export script"
    @ivar argv: program and arguments
    @ivar env: variables added to our environment
    @ivar reset_env: start from an empty environment
    @ivar log: file that its standard error is appended to, and its standard output, too, if it is
        the last one; default: the end of its standard error is kept for the message
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    reset_env: bool = False
    cwd: str = "/"
    log: str | None = None


@dataclass(frozen=True)
class StageResult:
    """How a program ended.

    @ivar code: exit code, or minus the number of a signal
    @ivar said: the end of what it said on its standard error, unless that went to a file
    """

    stage: Stage
    code: int
    said: str = ""
    timed_out: bool = False

    def Describe(self) -> str:
        """What happened to it, for people."""
        if self.timed_out:
            how = "took too long and was ended"
        elif self.code < 0:
            how = f"was ended by signal {-self.code}"
        else:
            how = f"ended with exit code {self.code}"
        return f"{self.stage.name} {how}" + (f": {self.said}" if self.said else "")


def DescribeFailure(results: Sequence[StageResult]) -> str | None:
    """What went wrong in a pipeline; None if nothing; pure.

    Who only found its reader gone is not to blame, if somebody else is.
    """
    failed = [result for result in results if result.code != 0 or result.timed_out]
    causes = [result for result in failed if result.code != -signal.SIGPIPE or result.timed_out]
    if not failed:
        return None
    return "; ".join(result.Describe() for result in causes or failed)


def FormatPipeline(stages: Sequence[Stage]) -> str:
    """The programs as a shell would have them, for people; pure."""
    return " | ".join(text.ShellQuoteArgs(stage.argv) for stage in stages)


def Run(stages: Sequence[Stage], timeout: float | None = None) -> list[StageResult]:
    """Run programs, each of which reads what the one before it writes, until all have ended.

    The first one reads nothing. Each is in a session of its own, which is ended with it when its
    time is over.

    @param timeout: seconds for all
    @raise errors.OpExecError: a program does not exist
    """
    shown = FormatPipeline(stages)
    logging.debug("Pipeline %s", shown)
    with contextlib.ExitStack() as stack:
        procs = _Start(stages, stack)
        with ThreadPoolExecutor(len(procs)) as pool:
            outcomes = [pool.submit(_Communicate, proc, log, timeout) for proc, log in procs]
            results = [
                StageResult(
                    stage,
                    outcome.result().code,
                    outcome.result().stderr.decode("utf-8", "replace").strip(),
                    outcome.result().timed_out,
                )
                for stage, outcome in zip(stages, outcomes, strict=True)
            ]
    failure = DescribeFailure(results)
    if failure is not None:
        logging.debug("Pipeline %s failed: %s", shown, failure)
    return results


def _Communicate(
    proc: subprocess.Popen[bytes], log: IO[bytes] | None, timeout: float | None
) -> child.Outcome:
    if log is None:
        return child.Communicate(proc, None, timeout, _MAX_OUTPUT)
    limit = loglimit.LogLimit(log.fileno(), _MAX_LOG)
    outcome = child.Communicate(proc, None, timeout, _MAX_OUTPUT, watch=limit.Check)
    limit.Check()
    return outcome


#: A program that was started, and its log file if it has one.
_Started = tuple[subprocess.Popen[bytes], IO[bytes] | None]


def _Start(stages: Sequence[Stage], stack: contextlib.ExitStack) -> list[_Started]:
    procs: list[_Started] = []
    source: IO[bytes] | int = subprocess.DEVNULL
    try:
        for index, stage in enumerate(stages):
            last = index == len(stages) - 1
            log = stack.enter_context(_OpenLog(stage.log))
            with _NoSuchProgram(stage):
                proc = subprocess.Popen(
                    list(stage.argv),
                    stdin=source,
                    stdout=(log or subprocess.DEVNULL) if last else subprocess.PIPE,
                    stderr=log or subprocess.PIPE,
                    cwd=stage.cwd,
                    env=process.BuildCmdEnvironment(stage.env, stage.reset_env),
                    start_new_session=True,
                )
            procs.append((proc, log))
            if not isinstance(source, int):
                # The next one has it: with our copy open, its writer would never see it go.
                source.close()
            if not last:
                assert proc.stdout is not None
                source, proc.stdout = proc.stdout, None
    except BaseException:
        if not isinstance(source, int):
            source.close()
        for proc, _ in procs:
            # It has hardly begun: there is nobody else in its session yet.
            proc.kill()
            proc.wait()
            if proc.stderr is not None:
                proc.stderr.close()
        raise
    return procs


@contextlib.contextmanager
def _OpenLog(path: str | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    # Also for reading: who limits it has to.
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _LOG_MODE)
    with os.fdopen(fd, "a+b", buffering=0) as fobj:
        yield fobj


@contextlib.contextmanager
def _NoSuchProgram(stage: Stage) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as err:
        raise errors.OpExecError(f"Can't execute '{stage.argv[0]}': not found") from err
