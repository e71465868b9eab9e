"""Make this machine a node: what C{gnt-node add} runs on the new node.

One JSON document comes on standard input, so that no secret is ever on a command line::

    {"cluster_name": "c.example.com", "protocol": 30, "node_name": "node2.example.com",
     "files": {"server.pem": "...", "rapi.pem": "...", "hmac.key": "..."}}

The files are written to the data directory, readable by root alone from their first byte; then the
daemons of a node are started. Everything is checked before anything is written.

With the one argument C{--undo} it takes that back, unless this machine has become a node.
"""

from __future__ import annotations

import sys
from typing import Any

from .. import constants, errors, pathutils, runtime, serializer
from ..utils import net, process
from ..utils.rollback import Rollback

#: The secrets that a node needs before its daemon can be talked to.
FILES = {
    "server.pem": pathutils.NODED_CERT_FILE,
    "rapi.pem": pathutils.RAPI_CERT_FILE,
    "hmac.key": pathutils.CONFD_HMAC_KEY,
}

#: The argument that takes back a set-up.
UNDO = "--undo"

_DAEMONS = ("ganeti-noded", "ganeti-confd")


def CheckRequest(request: object, own_name: str, own_cluster: str | None) -> dict[str, str]:
    """Check the document; pure.

    @param own_name: name of this host
    @param own_cluster: the cluster that this host belongs to already, None if to none
    @return: path -> content of the files to write
    @raise errors.OpPrereqError: the document is not one, or not for this host
    """
    if not isinstance(request, dict):
        raise errors.OpPrereqError("The request must be a JSON object", errors.ECODE_INVAL)
    for name, kind in (("cluster_name", str), ("node_name", str), ("protocol", int)):
        if not isinstance(request.get(name), kind):
            raise errors.OpPrereqError(
                f"{name!r} must be a value of type {kind.__name__}, not {request.get(name)!r}",
                errors.ECODE_INVAL,
            )
    if request["protocol"] != constants.PROTOCOL_VERSION:
        raise errors.OpPrereqError(
            f"The master speaks protocol {request['protocol']}, this host"
            f" {constants.PROTOCOL_VERSION}: install the same release on both",
            errors.ECODE_ENVIRON,
        )
    if request["node_name"] != own_name:
        raise errors.OpPrereqError(
            f"This host calls itself {own_name!r}, not {request['node_name']!r}: its host name"
            " must be the name under which it is added",
            errors.ECODE_INVAL,
        )
    if own_cluster not in (None, request["cluster_name"]):
        raise errors.OpPrereqError(
            f"This host is a node of the cluster {own_cluster!r} already", errors.ECODE_STATE
        )
    return _CheckFiles(request.get("files"))


def _CheckFiles(files: Any) -> dict[str, str]:
    if not isinstance(files, dict) or set(files) != set(FILES):
        raise errors.OpPrereqError(
            f"'files' must have exactly the keys {', '.join(sorted(FILES))}", errors.ECODE_INVAL
        )
    for name, content in files.items():
        if not isinstance(content, str) or not content.endswith("\n"):
            raise errors.OpPrereqError(
                f"The content of {name} must be text that ends with a newline", errors.ECODE_INVAL
            )
    return {FILES[name]: content for name, content in files.items()}


def _OwnCluster(rt: runtime.Runtime) -> str | None:
    path = f"{pathutils.DATA_DIR}/{pathutils.SSCONF_PREFIX}cluster_name"
    try:
        return rt.files.read(path).decode().strip() or None
    except FileNotFoundError:
        return None


def SetupNode(request: object, rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Write the node's secrets and start its daemons.

    A host that was no node before, and on which they do not start, keeps nothing.

    @raise errors.OpPrereqError: the request is refused, nothing was changed
    @raise errors.OpExecError: a daemon did not start
    """
    own_cluster = _OwnCluster(rt)
    files = CheckRequest(request, net.GetHostInfo().name, own_cluster)
    rt.files.mkdir(pathutils.DATA_DIR, 0o755)
    with Rollback(lambda text: print(text, file=sys.stderr)) as undo:
        for path, content in sorted(files.items()):
            if own_cluster is None:
                undo.Add(f"remove {path}", rt.files.remove, path)
            rt.files.write(path, content.encode(), mode=0o400)
        for name in _DAEMONS:
            # Restarted, not just started: one that runs holds the secrets of before.
            _DaemonUtil("stop", name)
            if own_cluster is None:
                undo.Add(f"stop {name}", _DaemonUtil, "stop", name)
            result = _DaemonUtil("start", name)
            if result.failed:
                raise errors.OpExecError(
                    f"Could not start {name}: {result.fail_reason}: {result.output.strip()}"
                )
        undo.Commit()


def UndoSetup(rt: runtime.Runtime = runtime.DEFAULT) -> None:
    """Stop the daemons and remove the secrets of a machine that did not become a node.

    @raise errors.OpExecError: a daemon does not stop; then the files are gone all the same
    """
    if _OwnCluster(rt) is not None:
        return
    failed = [name for name in reversed(_DAEMONS) if _DaemonUtil("stop", name).failed]
    for path in FILES.values():
        if rt.files.exists(path):
            rt.files.remove(path)
    if failed:
        raise errors.OpExecError(f"Could not stop {' and '.join(failed)}")


def _DaemonUtil(action: str, name: str) -> process.RunResult:
    return process.RunCmd([pathutils.DAEMON_UTIL, action, name])


def Main() -> int:
    """Read the request from standard input; exit status 0 or, with the reason on stderr, 1."""
    try:
        if sys.argv[1:] == [UNDO]:
            UndoSetup()
            return constants.EXIT_SUCCESS
        SetupNode(serializer.Load(sys.stdin.read()))
    except ValueError as err:
        print(f"The request is no JSON document: {err}", file=sys.stderr)
        return constants.EXIT_FAILURE
    except (errors.GenericError, OSError) as err:
        print(errors.FormatError(err), file=sys.stderr)
        return constants.EXIT_FAILURE
    return constants.EXIT_SUCCESS
