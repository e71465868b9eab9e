"""How a node call fails."""

from __future__ import annotations

import logging
from typing import NoReturn

from .. import errors

RPCFail = errors.RPCFail


def Fail(text: str, *, log: bool = True, exc_info: bool = False) -> NoReturn:
    """End the call with this text as its answer.

    @param log: write it to the log of this node as well
    @param exc_info: log the traceback of the error being handled, too
    """
    if log:
        logging.error("%s", text, exc_info=exc_info)
    raise RPCFail(text)


def NotImplementedCall(name: str) -> NoReturn:
    """Answer to a call that this release declares but has no code for."""
    Fail(f"Call '{name}' is not implemented on this node")
