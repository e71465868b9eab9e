"""What an error means to a person and to the exit code of a command.

One table from class of error to text; nothing else in the client knows these texts. Modules whose
errors can be shown here are not imported for it: a listing that fails must not load the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .. import constants, errors, luxi

_PREREQ: Final = "Failure: prerequisites not met for this operation:"


class JobSubmittedException(Exception):  # noqa: N818 - no failure: it ends the command early
    """A job was submitted and nobody waits for it; argument: its id."""


class JobsGoOn(Exception):  # noqa: N818 - no failure of the jobs
    """The user interrupted the wait for jobs; arguments: their ids."""


def _Text(err: BaseException) -> str:
    return errors.FormatError(err)


def _Prereq(err: BaseException) -> str:
    if len(err.args) >= 2 and err.args[1]:
        return f"{_PREREQ}\nerror type: {err.args[1]}, error details:\n{err.args[0]}"
    return f"{_PREREQ}\n{_Text(err)}"


def _HooksAbort(err: BaseException) -> str:
    lines = ["Failure: hooks execution failed:"]
    results: Any = err.args[0] if err.args else ()
    if isinstance(results, str):
        return f"{lines[0]}\n  {results}"
    for node, script, output in results:
        if output:
            lines.append(f"  node: {node}, script: {script}, output: {output}")
        else:
            lines.append(f"  node: {node}, script: {script} (no output)")
    return "\n".join(lines)


def _Resolver(err: BaseException) -> str:
    from ..utils import net

    name = str(err.args[0]) if err.args else ""
    if name == net.GetSystemHostName():
        return f"Failure: can't resolve my own hostname ('{name}')"
    return f"Failure: can't resolve hostname '{name}'"


def _JobsGoOn(err: BaseException) -> str:
    if not err.args:
        return "Interrupted."
    if len(err.args) == 1:
        job = err.args[0]
        return (
            f"Interrupted; job {job} goes on. 'gnt-job watch {job}' follows it,"
            f" 'gnt-job cancel {job}' ends it if it has not started yet."
        )
    ids = " ".join(str(job) for job in err.args)
    return (
        f"Interrupted; jobs {ids} go on. 'gnt-job list {ids}' shows them,"
        f" 'gnt-job cancel {ids}' ends those that have not started yet."
    )


#: The first class that fits counts.
_TEXTS: Final[tuple[tuple[type[BaseException], Callable[[BaseException], str]], ...]] = (
    (
        errors.ConfigurationError,
        lambda err: f"Corrupt configuration file: {_Text(err)}\nAborting.",
    ),
    (errors.HooksAbort, _HooksAbort),
    (errors.HooksFailure, lambda err: f"Failure: hooks general failure: {_Text(err)}"),
    (errors.ResolverError, _Resolver),
    (errors.OpPrereqError, _Prereq),
    (errors.OpExecError, lambda err: f"Failure: command execution error:\n{_Text(err)}"),
    (errors.TagError, lambda err: f"Failure: invalid tag(s) given:\n{_Text(err)}"),
    (
        errors.JobQueueDrainError,
        lambda err: "Failure: the job queue is marked for drain and doesn't accept new requests",
    ),
    (
        errors.JobQueueFull,
        lambda err: (
            "Failure: the job queue is full and doesn't accept new job submissions until old jobs"
            " are archived"
        ),
    ),
    (errors.TypeEnforcementError, lambda err: f"Parameter Error: {_Text(err)}"),
    (
        errors.ParameterError,
        lambda err: f"Failure: unknown/wrong parameter name '{_Text(err)}'",
    ),
    (
        luxi.NoMasterError,
        lambda err: (
            "Cannot communicate with the master daemon.\nIs it running and listening for"
            " connections?"
        ),
    ),
    (
        luxi.PermissionError,
        lambda err: (
            "This user may not talk to the master daemon: its socket"
            f" {_Text(err)} is for root alone."
        ),
    ),
    (
        luxi.TimeoutError,
        lambda err: f"Timeout while talking to the master daemon. Error:\n{_Text(err)}",
    ),
    (
        luxi.ProtocolError,
        lambda err: f"Unhandled protocol error while talking to the master daemon:\n{_Text(err)}",
    ),
    (errors.OpCodeUnknown, lambda err: f"Failure: {_Text(err)}"),
    (errors.GenericError, lambda err: f"Unhandled Ganeti error: {_Text(err)}"),
    (JobSubmittedException, lambda err: f"JobID: {err.args[0]}"),
    (JobsGoOn, _JobsGoOn),
    (KeyboardInterrupt, lambda err: "Interrupted."),
)

_EXIT_CODES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.ConfigurationError, constants.EXIT_USAGE),
    (JobSubmittedException, constants.EXIT_SUCCESS),
)

#: Errors that have a text here; anything else is a mistake of the program.
KNOWN: Final = (errors.GenericError, JobSubmittedException, JobsGoOn, KeyboardInterrupt)


def FormatError(err: BaseException) -> tuple[int, str]:
    """Exit code and text of an error.

    @return: the text has no newline at the end
    """
    code = next((code for cls, code in _EXIT_CODES if isinstance(err, cls)), constants.EXIT_FAILURE)
    for cls, describe in _TEXTS:
        if isinstance(err, cls):
            return code, describe(err)
    return code, f"Unhandled exception: {err.__class__.__name__}: {err}"
