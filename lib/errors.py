"""All exceptions of the suite: one root, one child for each outside world.

What the user did wrong is an L{OpPrereqError} with one of the C{ECODE_*} codes and is found before
anything is changed. What the world did is an error that names the node, the command and its output.
A programming mistake is a L{ProgrammerError} (or an AssertionError) and ends the job, not the
daemon.

Errors travel: a L{GenericError} crosses LUXI, RPC and the job files as C{[class name, [args...]]}
(L{EncodeException}) and is raised again as the same class on the other side (L{MaybeRaise}). Only
classes of this module are ever looked up by a name that came from outside.
"""

from __future__ import annotations

from typing import Any, Final

# Error codes of OpPrereqError: who must act, and on what.

#: The name does not resolve.
ECODE_RESOLVER: Final = "resolver_error"
#: Not enough memory or disk, or the allocator found no place.
ECODE_NORES: Final = "insufficient_resources"
#: A wrong argument.
ECODE_INVAL: Final = "wrong_input"
#: The object is in the wrong state for this.
ECODE_STATE: Final = "wrong_state"
#: No such object.
ECODE_NOENT: Final = "unknown_entity"
#: The object exists already.
ECODE_EXISTS: Final = "already_exists"
#: A MAC, an address, ... is in use elsewhere.
ECODE_NOTUNIQUE: Final = "resource_not_unique"
#: An internal inconsistency.
ECODE_FAULT: Final = "internal_error"
#: A node or a file is not as it has to be.
ECODE_ENVIRON: Final = "environment_error"

ECODE_ALL: Final = frozenset(
    [
        ECODE_RESOLVER,
        ECODE_NORES,
        ECODE_INVAL,
        ECODE_STATE,
        ECODE_NOENT,
        ECODE_EXISTS,
        ECODE_NOTUNIQUE,
        ECODE_FAULT,
        ECODE_ENVIRON,
    ]
)


class GenericError(Exception):
    """Root of all errors of the suite; the arguments must survive JSON."""


class LVMError(GenericError):
    """A problem with LVM."""


class LockError(GenericError):
    """A lock vanished, is unknown or exists twice: caused by concurrency, not by a mistake."""


class HypervisorError(GenericError):
    """A hypervisor refused, failed or could not be asked."""


class ProgrammerError(GenericError):
    """A mistake in this suite's own code."""


class BlockDeviceError(GenericError):
    """A block device or disk file failed."""


class ConfigurationError(GenericError):
    """The configuration is missing, broken, foreign or newer than what the caller read."""


class ReservationError(GenericError):
    """A resource is in use or reserved by somebody else."""


class RemoteError(GenericError):
    """A remote operation failed."""


class SignatureError(GenericError):
    """A signed message has a wrong signature or a wrong form."""


class ParameterError(GenericError):
    """A parameter of a command has a wrong name or value."""


class OpPrereqError(GenericError):
    """The checks of an operation failed; nothing was changed.

    Arguments: the text and one of the C{ECODE_*} codes.
    """


class OpExecError(GenericError):
    """The work of an operation failed; parts of it may have been done."""


class OpCodeUnknown(GenericError):
    """There is no logical unit for this opcode."""


class JobLost(GenericError):
    """A job is not in the queue any more."""


class JobFileCorrupted(GenericError):
    """A job file can not be read as a job."""


class ResolverError(GenericError):
    """A host name does not resolve; arguments: name, code, text."""


class HooksFailure(GenericError):
    """Hooks could not be run at all."""


class HooksAbort(HooksFailure):
    """Pre hooks refused the operation; argument: list of (node, script, output)."""


class UnitParseError(GenericError):
    """A size could not be parsed."""


class TypeEnforcementError(GenericError):
    """A parameter value can not be converted to its declared type."""


class SshKeyError(GenericError):
    """A problem with an SSH key."""


class TagError(GenericError):
    """A tag is invalid, missing, or one too many."""


class CommandError(GenericError):
    """An external command failed."""


class StorageError(GenericError):
    """A storage unit operation failed."""


class InotifyError(GenericError):
    """A file could not be watched."""


class JobQueueError(GenericError):
    """The job queue is unusable or refuses."""


class JobQueueDrainError(JobQueueError):
    """The job queue is drained and takes no new jobs."""


class JobQueueFull(JobQueueError):
    """The job queue has reached its hard limit."""


class ConfdRequestError(GenericError):
    """A confd request is invalid or asks for something that is not there."""


class ConfdMagicError(GenericError):
    """A datagram does not start with the confd magic."""


class ConfdClientError(GenericError):
    """A confd client was used wrongly or has nobody to ask."""


class UdpDataSizeError(GenericError):
    """A datagram would be too big."""


class NoCtypesError(GenericError):
    """Memory can not be locked: the C library can not be called."""


class RPCFail(GenericError):
    """A node call failed; the argument is the text for the caller."""


class QuitGanetiException(Exception):  # noqa: N818 - the name is part of the interface
    """The node daemon must end after answering; arguments: status, payload of the answer."""


def _Subclasses(root: type[GenericError]) -> dict[str, type[GenericError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_Subclasses(child))
    return found


#: The only classes that may be raised because their name came over a wire.
_BY_NAME: Final = _Subclasses(GenericError)


def GetErrorClass(name: str) -> type[GenericError] | None:
    """The error class of that name, None if there is none."""
    return _BY_NAME.get(name)


def EncodeException(err: BaseException) -> list[Any]:
    """The wire form of an error: C{[class name, [args...]]}."""
    return [err.__class__.__name__, list(err.args)]


def GetEncodedError(value: object) -> tuple[type[GenericError], tuple[Any, ...]] | None:
    """Class and arguments if the value is the wire form of a known error, else None."""
    if not (isinstance(value, (list, tuple)) and len(value) == 2):
        return None
    name, args = value
    if not (isinstance(name, str) and isinstance(args, (list, tuple))):
        return None
    cls = GetErrorClass(name)
    if cls is None:
        return None
    return cls, tuple(args)


def MaybeRaise(value: object) -> None:
    """Raise the error whose wire form the value is; return if it is none."""
    found = GetEncodedError(value)
    if found is not None:
        cls, args = found
        raise cls(*args)


def FormatError(err: BaseException) -> str:
    """One readable text for an error, without its class: what a log line or a node answer shows."""
    if isinstance(err, OpPrereqError) and err.args:
        return str(err.args[0])
    if len(err.args) == 1:
        return str(err.args[0])
    return str(err) or err.__class__.__name__
