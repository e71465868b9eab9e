"""The way of a request: from its target and bytes to status, headers and bytes of the answer.

The order of the checks is part of the interface: path (404), method (501), authentication (401),
authorisation (403), body (400), resource. So unknown paths and methods answer without credentials.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Protocol

from .. import serializer
from . import auth, baserlib, connector

JSON_TYPE: Final = "application/json"


@dataclass(frozen=True)
class RawRequest:
    """A request as it came.

    @ivar target: path and query string
    @ivar authorization: the header, None without one
    """

    method: str
    target: str
    authorization: str | None = None
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """An answer; the body is JSON."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Users(Protocol):
    """Who may."""

    def Authenticate(self, name: str, password: str) -> auth.User | None:
        """The user of that name if the password is right."""


def MakeErrorBody(status: HTTPStatus, text: str) -> dict[str, Any]:
    """What is sent with every error."""
    return {
        "code": status.value,
        "message": html.escape(text, quote=False),
        "explain": status.description or status.phrase,
    }


def _MakeResponse(value: Any) -> Response:
    return Response(HTTPStatus.OK.value, serializer.Dump(value, indent=True).encode("ascii"))


def MakeErrorResponse(error: baserlib.HttpError) -> Response:
    """The answer to a request that can't be served."""
    body = serializer.Dump(MakeErrorBody(error.status, error.text), indent=True)
    return Response(error.status.value, body.encode("ascii"), error.headers)


def _Unauthorized() -> baserlib.HttpError:
    return baserlib.HttpError(
        HTTPStatus.UNAUTHORIZED,
        "User name and password are needed, or they are wrong",
        {"WWW-Authenticate": f'Basic realm="{auth.REALM}"'},
    )


class Dispatcher:
    """Answers requests. No state of its own; for use by any number of threads."""

    def __init__(
        self,
        context: baserlib.Context,
        users: Users,
        require_authentication: bool = False,
        mapper: connector.Mapper | None = None,
    ) -> None:
        """Prepare to answer.

        @param require_authentication: is there nothing for requests without a user?
        """
        self._context = context
        self._users = users
        self._require_authentication = require_authentication
        self._mapper = mapper or connector.Mapper()

    def Identify(self, raw: RawRequest) -> auth.User | Response | None:
        """Who sends a request of which the body is still to come; may block.

        @return: None = somebody who did not say; a response = the request will not be served,
            whatever its body
        """
        try:
            _, user = self._Admit(raw)
        except Exception as err:  # noqa: BLE001 - the boundary of a request
            return _ResponseFromError(raw, err)
        return user

    def Begin(self, raw: RawRequest) -> Response | baserlib.LuxiCall:
        """Answer a request, or say which call to the master daemon gives the answer.

        May block. In the second case hand the call's outcome to L{Finish}.
        """
        try:
            result = self._Execute(raw)
        except Exception as err:  # noqa: BLE001 - the boundary of a request
            return _ResponseFromError(raw, err)
        return result if isinstance(result, baserlib.LuxiCall) else _MakeResponse(result)

    def Finish(
        self, raw: RawRequest, call: baserlib.LuxiCall, get_result: Callable[[], Any]
    ) -> Response:
        """The answer to a request from the outcome of its call.

        @param get_result: returns the call's result or raises its error
        """
        try:
            return _MakeResponse(call.finish(get_result()))
        except Exception as err:  # noqa: BLE001 - the boundary of a request
            return _ResponseFromError(raw, err)

    def Handle(self, raw: RawRequest) -> Response:
        """Answer a request, waiting as long as it takes."""
        outcome = self.Begin(raw)
        if isinstance(outcome, Response):
            return outcome

        def _Call() -> Any:
            client = self._context.client_factory()
            try:
                return client.CallMethod(outcome.method, outcome.args)
            finally:
                client.Close()

        return self.Finish(raw, outcome, _Call)

    def _Admit(self, raw: RawRequest) -> tuple[Any, auth.User | None]:
        """What the mapper knows of the target, and the user. Raises HttpError: 400 to 404, 501."""
        found = self._mapper.GetController(raw.target)
        handler = found[0]
        method = raw.method.upper()
        if method not in handler.GetMethods():
            raise baserlib.HttpError(
                HTTPStatus.NOT_IMPLEMENTED, f"Method {method} is unsupported for path {_Path(raw)}"
            )
        return found, self._CheckAccess(handler.GetAccess(method), raw.authorization)

    def _Execute(self, raw: RawRequest) -> Any:
        (handler, items, query), user = self._Admit(raw)
        method = raw.method.upper()
        path = _Path(raw)
        request = baserlib.Request(
            method, path, items, query, _ParseBody(raw.body), authenticated=user is not None
        )
        resource = handler(self._context, request)
        try:
            return getattr(resource, method)()
        finally:
            resource.Close()

    def _CheckAccess(self, access: tuple[str, ...], authorization: str | None) -> auth.User | None:
        """The user who asks, if any. Raises HttpError: 400, 401, 403."""
        if not access and authorization is None and not self._require_authentication:
            return None
        try:
            credentials = auth.ParseBasic(authorization) if authorization is not None else None
        except auth.BadAuthorization as err:
            raise baserlib.BadRequest(str(err)) from None
        user = self._users.Authenticate(*credentials) if credentials is not None else None
        if user is None:
            raise _Unauthorized()
        if access and not user.options.intersection(access):
            raise baserlib.HttpError(
                HTTPStatus.FORBIDDEN,
                f"User {user.name} may not do this: the users file must give one of the options"
                f" {', '.join(access)}",
            )
        return user


def _Path(raw: RawRequest) -> str:
    return raw.target.partition("?")[0]


def _ParseBody(data: bytes) -> Any:
    if not data:
        return baserlib.NO_BODY
    try:
        return serializer.Load(data)
    except ValueError as err:
        raise baserlib.BadRequest(f"The body is not JSON: {err}") from err


def _ResponseFromError(raw: RawRequest, err: Exception) -> Response:
    error = baserlib.ErrorFromException(err)
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logging.error("Error while handling %s %s", raw.method, raw.target, exc_info=err)
    return MakeErrorResponse(error)
