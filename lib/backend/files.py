"""Files that the master sends to this node."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .. import errors, hvparams, pathutils, rpc, runtime, serializer, ssconf
from ..utils import filedelta, io
from .base import Fail

#: Further VNC password files lie beside the usual one and are named like this.
_VNC_FILE_RE: Final = re.compile(r"vnc-[\w.-]+", re.ASCII)
#: The serial number of a configuration as it is written: two blanks deep, on a line of its own.
_SERIAL_RE: Final = re.compile(rb'^  "serial_no": ([0-9]+),?$', re.MULTILINE)
#: Likewise its time, and the cluster's UUID: to read all of it as JSON costs a hundred times that.
_MTIME_RE: Final = re.compile(rb'^  "mtime": ([0-9.]+),?$', re.MULTILINE)
_CLUSTER_RE: Final = re.compile(rb'^  "cluster": \{$.*?^  \},?$', re.MULTILINE | re.DOTALL)
_UUID_RE: Final = re.compile(rb'^    "uuid": "([^"\n]+)",?$', re.MULTILINE)

_CONFIG_TURN: Final = runtime.DEFAULT.threads.Lock()


def UploadWhitelist() -> frozenset[str]:
    """Paths of the files that may be sent; the node daemon's own key is never one of them."""
    files = {
        pathutils.CLUSTER_CONF_FILE,
        pathutils.ETC_HOSTS,
        pathutils.SSH_KNOWN_HOSTS_FILE,
        pathutils.VNC_PASSWORD_FILE,
        pathutils.RAPI_CERT_FILE,
        pathutils.RAPI_USERS_FILE,
        pathutils.CONFD_HMAC_KEY,
        pathutils.ANCILLARY_LIST_FILE,
    }
    for paths in hvparams.ANCILLARY_FILES.values():
        files.update(paths)
    return frozenset(files)


def ParseAdminList(content: str) -> list[str]:
    """Files that the administrator wants alike on all nodes: absolute paths, one a line."""
    lines = [line.strip() for line in content.splitlines()]
    return [line for line in lines if io.IsNormAbsPath(line)]


def IsUploadAllowed(path: str, admin_list: Sequence[str] = ()) -> bool:
    """May this file be replaced by one of the master?

    @param admin_list: this node's copy of the administrator's list, see L{ParseAdminList}
    """
    if not io.IsNormAbsPath(path) or path == pathutils.NODED_CERT_FILE:
        return False
    if path in UploadWhitelist():
        return True
    if os.path.dirname(path) == pathutils.CONF_DIR and _VNC_FILE_RE.fullmatch(
        os.path.basename(path)
    ):
        return True
    return any(path in (item, pathutils.LocalPath(item)) for item in admin_list)


def _ReadAdminList() -> list[str]:
    try:
        return ParseAdminList(io.ReadFile(pathutils.ANCILLARY_LIST_FILE))
    except FileNotFoundError:
        return []


def UploadFile(
    path: str,
    encoded: Sequence[Any],
    mode: int,
    uid: int | str,
    gid: int | str,
    atime: float,
    mtime: float,
) -> None:
    """Replace a file by the master's.

    @param encoded: content, see L{rpc.EncodeData}
    @param mode: permissions; other bits are ignored
    @param uid, gid: owner, as number or name
    @param atime, mtime: seconds since the epoch
    @raise RPCFail: the file is not one that the master may send, or is older than what is here
    """
    if not IsUploadAllowed(path, _ReadAdminList()):
        Fail(
            f"File {path!r} may not be sent to this node; to allow it, list it in"
            f" {pathutils.ANCILLARY_LIST_FILE}"
        )
    try:
        content = rpc.DecodeData(encoded)
    except ValueError as err:
        Fail(f"Can't take file {path!r}: {err}")
    owner, group = _FindOwner(uid, gid)
    # Nobody replaces a configuration between another one's look at it and its write.
    with _CONFIG_TURN if path == pathutils.CLUSTER_CONF_FILE else contextlib.nullcontext():
        if path == pathutils.CLUSTER_CONF_FILE:
            _RefuseOlderConfig(content)
        _WriteFile(
            path,
            content,
            mode=mode & 0o7777,
            uid=owner,
            gid=group,
            atime=atime,
            mtime=mtime,
        )


def UpdateConfig(
    serials: Sequence[int], instructions: Sequence[str | Sequence[int]], checksum: int
) -> None:
    """Change this node's copy of the configuration.

    @param serials: of the version that this must be, and of the one that it becomes
    @param instructions, checksum: see L{utils.filedelta}
    @raise RPCFail: this node has another version, and needs the whole file
    """
    path = pathutils.CLUSTER_CONF_FILE
    with _CONFIG_TURN:
        try:
            old = io.ReadBinary(path)
        except FileNotFoundError:
            Fail(f"There is no {path} to be changed")
        base, serial = serials
        if ConfigSerial(old) != base:
            Fail(f"{path} is not configuration {base}")
        content = filedelta.Apply(instructions, old, checksum)
        if content is None or ConfigSerial(content) != serial:
            Fail(f"{path} is not the configuration {base} that was changed")
        _RefuseOlderConfig(content)
        st = os.stat(path)
        _WriteFile(path, content, mode=st.st_mode & 0o7777, uid=st.st_uid, gid=st.st_gid)


def _WriteFile(path: str, content: bytes, **values: Any) -> None:
    try:
        io.WriteFile(path, data=content, **values)
    except OSError as err:
        Fail(f"Can't write {path}: {err.strerror or err}")


def _RefuseOlderConfig(content: bytes) -> None:
    """A master that was cut off must not overwrite what the present one wrote.

    @raise RPCFail: this node has a later state of the same cluster
    """
    try:
        current = io.ReadBinary(pathutils.CLUSTER_CONF_FILE)
    except FileNotFoundError:
        return
    if IsOlderConfig(content, current):
        Fail(
            f"This node has configuration {ConfigSerial(current)} of the cluster, which is newer"
            f" than configuration {ConfigSerial(content)} that was sent; if an old one was"
            f" restored on purpose, remove {pathutils.CLUSTER_CONF_FILE} from this node"
        )


def IsOlderConfig(new: bytes, current: bytes) -> bool:
    """Are both configurations of the same cluster, and is the new one the older?"""
    new_serial, current_serial = ConfigSerial(new), ConfigSerial(current)
    if new_serial is None or current_serial is None or new_serial >= current_serial:
        return False
    uuid = _ClusterUuid(new)
    return uuid is not None and uuid == _ClusterUuid(current)


def ConfigSerial(content: bytes) -> int | None:
    """Serial number of a configuration; None if it has none."""
    match = _SERIAL_RE.search(content)
    if match is not None:
        return int(match.group(1))
    serial = _LoadDict(content).get("serial_no")
    return serial if isinstance(serial, int) else None


def ParseConfigVersion(content: bytes) -> ssconf.Version | None:
    """Which state of which cluster a configuration is; None if it does not say."""
    cluster = _CLUSTER_RE.search(content)
    found = (
        _SERIAL_RE.search(content),
        _MTIME_RE.search(content),
        cluster and _UUID_RE.search(cluster.group(0)),
    )
    if all(found):
        values = [match.group(1).decode("ascii", "replace") for match in found if match]
    else:
        data = _LoadDict(content)
        values = [data.get("serial_no"), data.get("mtime") or 0, _ClusterUuid(content)]
    return ssconf.ParseVersion(" ".join(map(str, values)))


def GetConfigVersion() -> ssconf.Version | None:
    """Which state of the configuration this node has; None if it has none."""
    try:
        return ParseConfigVersion(io.ReadBinary(pathutils.CLUSTER_CONF_FILE))
    except OSError:
        return None


def _ClusterUuid(content: bytes) -> Any:
    cluster = _LoadDict(content).get("cluster")
    return cluster.get("uuid") if isinstance(cluster, dict) else None


def _LoadDict(content: bytes) -> dict[str, Any]:
    try:
        value = serializer.Load(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _FindOwner(uid: int | str, gid: int | str) -> tuple[int, int]:
    if os.geteuid() != 0:
        # A virtual cluster of an ordinary user: everything is that user's.
        return -1, -1
    import grp
    import pwd

    return (
        _FindId(uid, lambda name: pwd.getpwnam(name).pw_uid, "user"),
        _FindId(gid, lambda name: grp.getgrnam(name).gr_gid, "group"),
    )


def _FindId(value: int | str, find: Callable[[str], int], what: str) -> int:
    if isinstance(value, int):
        return value
    try:
        return find(value)
    except KeyError:
        Fail(f"There is no {what} {value!r} on this node")


def WriteSsconfFiles(values: Mapping[str, str], store: ssconf.SimpleStore | None = None) -> None:
    """Write the simple configuration files.

    @param values: those of the keys, and the version that they are of (L{ssconf.VERSION_KEY})
    @raise RPCFail: they are older than what is here, or can not be written
    @raise errors.ProgrammerError: unknown key
    @raise errors.LockError: another writer keeps the lock for too long
    """
    try:
        (store or ssconf.SimpleStore()).WriteFiles(values)
    except errors.ConfigurationError as err:
        Fail(errors.FormatError(err))
    except OSError as err:
        where = err.filename or f"the {pathutils.SSCONF_PREFIX} files in {pathutils.DATA_DIR}"
        Fail(f"Can't write {where}: {err.strerror or err}")
