"""Calling node daemons, client side.

L{client} has the runner and its results, L{transport} the connections, L{encoding} the form in
which file contents travel.
"""

from .client import (
    CONNECT_TIMEOUT,
    ClaimMaster,
    GetStatistics,
    Init,
    ParseAnswer,
    RpcResult,
    RpcRunner,
    Shutdown,
)
from .encoding import DecodeData, EncodeData

__all__ = [
    "CONNECT_TIMEOUT",
    "DecodeData",
    "EncodeData",
    "GetStatistics",
    "ClaimMaster",
    "Init",
    "ParseAnswer",
    "RpcResult",
    "RpcRunner",
    "Shutdown",
]
