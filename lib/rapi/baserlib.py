"""What the resources of the API have in common: requests, errors, and how opcodes are made.

A resource is a class with a method for each HTTP method it knows. It gets a L{Request}, talks to
the master daemon through C{self.client} and returns what is to be sent as JSON, or a L{LuxiCall}
where the answer takes its time. Everything a user did wrong is an L{HttpError}.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Final

from .. import constants, errors, ht, luxi, opcodes, runtime

#: Options of users.
ACCESS_READ: Final = "read"
ACCESS_WRITE: Final = "write"

#: Seconds that a request waits for the job it needs the result of.
JOB_TIMEOUT: Final = 60.0
#: What a request without a body has.
NO_BODY: Final[Any] = None

Row = Sequence[Any]


class HttpError(Exception):
    """A request that can't be served.

    @ivar status: of the answer
    @ivar text: what is wrong; the status' own phrase if there is nothing more to say
    @ivar headers: of the answer, beside the usual ones
    """

    def __init__(
        self, status: HTTPStatus, text: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text or status.phrase)
        self.status = status
        self.text = text or status.phrase
        self.headers: Mapping[str, str] = headers or {}


def BadRequest(text: str) -> HttpError:
    """The user's fault."""
    return HttpError(HTTPStatus.BAD_REQUEST, text)


def NotFound(text: str = "") -> HttpError:
    """There is no such thing."""
    return HttpError(HTTPStatus.NOT_FOUND, text)


@dataclass(frozen=True)
class Request:
    """What a resource gets to see of a request.

    @ivar items: the variable parts of the path
    @ivar query: arguments of the query string; those without a value are not in it
    @ivar body: the JSON value of the body, L{NO_BODY} without one
    @ivar authenticated: did a valid user ask?
    """

    method: str
    path: str
    items: tuple[str, ...] = ()
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Any = NO_BODY
    authenticated: bool = False


@dataclass(frozen=True)
class LuxiCall:
    """A call to the master daemon that may take its time, and what to make of its result.

    A resource returns it instead of waiting itself, so that no thread has to.
    """

    method: str
    args: Sequence[Any]
    finish: Callable[[Any], Any]


class TokenBucket:
    """So many at once, then so many per second; for the jobs that anonymous requests make.

    C{_lock} guards all fields. Invariant: 0 <= tokens <= burst.
    """

    def __init__(
        self, burst: int, per_second: float, rt: runtime.Runtime = runtime.DEFAULT
    ) -> None:
        self._burst = burst
        self._per_second = per_second
        self._rt = rt
        self._lock = rt.threads.Lock()
        self._tokens = float(burst)
        self._last = rt.clock.monotonic()

    def Take(self) -> bool:
        """Take one; False if there is none."""
        with self._lock:
            now = self._rt.clock.monotonic()
            refill = (now - self._last) * self._per_second
            self._tokens = min(float(self._burst), self._tokens + refill)
            self._last = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


@dataclass(frozen=True)
class Context:
    """What resources need of the world.

    @ivar client_factory: makes a connection to the master daemon
    @ivar cluster_tags: reads the tags of the cluster without the master daemon
    @ivar anonymous_jobs: bounds the jobs that requests without a user may make
    """

    client_factory: Callable[[], Any]
    cluster_tags: Callable[[], list[str]]
    anonymous_jobs: TokenBucket
    runtime: runtime.Runtime = runtime.DEFAULT


# Query arguments


def ParseInt(name: str, value: str) -> int:
    """An integer from a query argument. Raises HttpError (400) naming argument and value."""
    try:
        return int(value)
    except ValueError:
        raise BadRequest(
            f"Invalid value {ht.Show(value)} for the '{name}' parameter: an integer is needed"
        ) from None


def ParseFlag(name: str, value: str) -> bool:
    """A yes or no from a query argument: 0 is no, other integers are yes."""
    return bool(ParseInt(name, value))


def ParseText(_name: str, value: str) -> str:
    """A text from a query argument."""
    return value


def ParseIntList(name: str, value: str) -> list[int]:
    """Integers with commas between."""
    return [ParseInt(name, part) for part in value.split(",")]


ArgParser = Callable[[str, str], Any]


@dataclass(frozen=True)
class Arg:
    """A query argument that is a parameter of an opcode.

    @ivar name: in the query string
    @ivar parse: makes a value of its text
    @ivar param: name of the opcode's parameter, if it is another one
    """

    name: str
    parse: ArgParser
    param: str = ""


# Resources


class ResourceBase:
    """Base of all resources.

    @cvar GET_ACCESS: who may call that method: users with any of these options, everybody if there
        are none; the same for PUT, POST and DELETE
    """

    GET_ACCESS: ClassVar[tuple[str, ...]] = ()
    PUT_ACCESS: ClassVar[tuple[str, ...]] = (ACCESS_WRITE,)
    POST_ACCESS: ClassVar[tuple[str, ...]] = (ACCESS_WRITE,)
    DELETE_ACCESS: ClassVar[tuple[str, ...]] = (ACCESS_WRITE,)

    def __init__(self, context: Context, request: Request) -> None:
        self.context = context
        self.request = request

    @functools.cached_property
    def client(self) -> Any:
        """The connection to the master daemon, made when it is first needed."""
        return self.context.client_factory()

    def Close(self) -> None:
        """Give the connection back, if there is one."""
        if "client" in self.__dict__:
            self.client.Close()

    @classmethod
    def GetAccess(cls, method: str) -> tuple[str, ...]:
        """Options that let a user call a method; nothing if everybody may."""
        access: tuple[str, ...] = getattr(cls, f"{method}_ACCESS")
        return access

    @classmethod
    def GetMethods(cls) -> list[str]:
        """The HTTP methods that this resource has."""
        return [method for method in SUPPORTED_METHODS if hasattr(cls, method)]

    # Arguments

    def GetArg(self, name: str, default: str | None = None) -> str | None:
        """The (first) value of a query argument."""
        values = self.request.query.get(name)
        return values[0] if values else default

    def GetFlag(self, name: str, default: bool = False) -> bool:
        """The value of a query argument that is 0 or 1."""
        value = self.GetArg(name)
        return default if value is None else ParseFlag(name, value)

    def GetRequiredArg(self, name: str) -> str:
        """The value of a query argument that has to be there. Raises HttpError (400) if not."""
        value = self.GetArg(name)
        if value is None:
            raise BadRequest(f"Missing the required '{name}' parameter")
        return value

    def UseBulk(self) -> bool:
        """Are whole dictionaries wanted?"""
        return self.GetFlag("bulk")

    def UseLocking(self) -> bool:
        """Is a query with locks wanted?"""
        return self.GetFlag("lock")

    def IsDryRun(self) -> bool:
        """Is nothing to be changed?"""
        return self.GetFlag("dry-run")

    def RefuseDryRun(self, why: str) -> None:
        """Answer 400 to a dry run that could not be one, instead of doing the thing."""
        if self.IsDryRun():
            raise BadRequest(f"'dry-run' can't be honoured here: {why}")

    def GetBodyObject(self) -> dict[str, Any]:
        """The body, an object; empty if there is none."""
        body = self.request.body
        if body is NO_BODY:
            return {}
        if not isinstance(body, dict):
            raise BadRequest(f"The body must be a JSON object, not {ht.Show(body)}")
        return body

    # Opcodes and jobs

    def MakeOp(
        self,
        cls: type[opcodes.OpCode],
        fixed: Mapping[str, Any],
        args: Iterable[Arg] = (),
        body: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> opcodes.OpCode:
        """An opcode from the parts of a request, checked field by field.

        @param fixed: parameters that the path or the method says
        @param args: query arguments that are parameters
        @param body: parameters from the body; None = the body of the request
        @param defaults: parameters that are used if the request does not have them
        @raise HttpError: 400, naming field and value
        """
        given = dict(self.GetBodyObject() if body is None else body)
        for arg in args:
            value = self.GetArg(arg.name)
            if value is None:
                continue
            param = arg.param or arg.name
            if param in given:
                raise BadRequest(
                    f"'{arg.name}' is both in the query string and in the body; give it once"
                )
            given[param] = arg.parse(arg.name, value)
        for name, value in fixed.items():
            if name in given and given[name] != value:
                raise BadRequest(
                    f"Field '{name}' of the body is {ht.Show(given[name])}, but the request is"
                    f" about {ht.Show(value)}"
                )
        if self.IsDryRun():
            given["dry_run"] = True
        self._AddReason(given)
        data = {**(defaults or {}), **given, **fixed, "OP_ID": cls.OP_ID}
        return LoadOp(data)

    def _AddReason(self, params: dict[str, Any]) -> None:
        reason = self.GetArg("reason")
        if reason is not None and "reason" not in params:
            now = int(self.context.runtime.clock.time() * 10**9)
            params["reason"] = [["gnt:client:rapi", reason, now]]

    def SubmitJob(self, *ops: opcodes.OpCode) -> Any:
        """Submit one job; its id."""
        return self.client.SubmitJob([op.__getstate__() for op in ops])

    def LimitAnonymous(self) -> None:
        """Refuse a request without a user if there were too many that made a job."""
        if not self.request.authenticated and not self.context.anonymous_jobs.Take():
            raise HttpError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many anonymous requests that need a job: try later or as a user",
                {"Retry-After": "1"},
            )

    def RunJob(self, op: opcodes.OpCode) -> Any:
        """Submit a job of one opcode, wait for its end; the opcode's result.

        @raise HttpError: 504 if it takes too long
        @raise errors.GenericError: what the opcode raised
        """
        job_id = self.SubmitJob(op)
        clock = self.context.runtime.clock
        deadline = clock.monotonic() + JOB_TIMEOUT
        known: list[Any] | None = None
        while True:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise HttpError(
                    HTTPStatus.GATEWAY_TIMEOUT, f"Job {job_id} took longer than {JOB_TIMEOUT:.0f} s"
                )
            change = self.client.WaitForJobChangeOnce(job_id, ["status"], known, None, left)
            if change is None:
                raise errors.JobLost(f"Job {job_id} is not there any more")
            if change == constants.JOB_NOTCHANGED:
                continue
            known = list(change[0])
            if known[0] in constants.JOBS_FINALIZED:
                break
        rows = self.client.QueryJobs([job_id], ["status", "opresult"])
        if not rows or rows[0] is None:
            raise errors.JobLost(f"Job {job_id} is not there any more")
        status, results = rows[0]
        if status != constants.JOB_STATUS_SUCCESS:
            for result in results:
                errors.MaybeRaise(result)
            raise errors.OpExecError(f"Job {job_id} ended as {status}: {results}")
        return results[0]


#: The HTTP methods that resources may have; others are 501 everywhere.
SUPPORTED_METHODS: Final = ("GET", "PUT", "POST", "DELETE")


def LoadOp(data: Mapping[str, Any]) -> opcodes.OpCode:
    """Make an opcode of its serialised form. Raises HttpError (400) naming field and value."""
    try:
        return opcodes.OpCode.LoadOpCode(dict(data))
    except errors.OpPrereqError as err:
        raise BadRequest(err.args[0]) from err


# Answers


def BuildUriList(ids: Iterable[Any], uri_format: str, keys: tuple[str, str]) -> list[Any]:
    """A list of things and where they are.

    @param uri_format: with one C{%s} for the id
    @param keys: what to call id and URI
    """
    return [{keys[0]: item, keys[1]: uri_format % item} for item in ids]


def MapFields(names: Sequence[str], row: Row) -> dict[str, Any]:
    """Names and values as a dictionary."""
    if len(names) != len(row):
        raise HttpError(
            HTTPStatus.BAD_GATEWAY,
            f"The master daemon answered {len(row)} values for {len(names)} fields",
        )
    return dict(zip(names, row, strict=True))


def MapBulkFields(rows: Iterable[Row], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Each row as a dictionary."""
    return [MapFields(fields, row) for row in rows]


#: Statuses of errors that the master daemon answers with; the first that fits counts.
_ERROR_STATUS: Final[tuple[tuple[type[Exception], HTTPStatus], ...]] = (
    (luxi.TimeoutError, HTTPStatus.GATEWAY_TIMEOUT),
    (luxi.ProtocolError, HTTPStatus.BAD_GATEWAY),
    (errors.JobQueueDrainError, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.JobQueueFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.TypeEnforcementError, HTTPStatus.BAD_REQUEST),
)
_ECODE_STATUS: Final[Mapping[str, HTTPStatus]] = {
    errors.ECODE_INVAL: HTTPStatus.BAD_REQUEST,
    errors.ECODE_RESOLVER: HTTPStatus.BAD_REQUEST,
    errors.ECODE_NOENT: HTTPStatus.NOT_FOUND,
}


def ErrorFromException(err: Exception) -> HttpError:
    """What to answer when something went wrong on the way."""
    if isinstance(err, HttpError):
        return err
    if isinstance(err, luxi.NoMasterError):
        return HttpError(
            HTTPStatus.BAD_GATEWAY, "The master daemon can't be reached: is ganeti-masterd running?"
        )
    text = errors.FormatError(err) if isinstance(err, errors.GenericError) else str(err)
    if isinstance(err, errors.OpPrereqError):
        code = err.args[1] if len(err.args) > 1 else None
        status = _ECODE_STATUS.get(str(code), HTTPStatus.INTERNAL_SERVER_ERROR)
        return HttpError(status, str(err.args[0]) if err.args else text)
    for cls, status in _ERROR_STATUS:
        if isinstance(err, cls):
            return HttpError(status, text)
    return HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, text)
