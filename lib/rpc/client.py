"""Calling node daemons: results, and a runner with a method for each call.

The methods are made from the table in L{rpc_defs}; nothing about a single call is written here but
for the few whose client does something with its arguments or its answers.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from .. import constants, errors, objects, pathutils, rpc_defs, runtime, serializer
from ..utils import net
from . import encoding

#: Seconds until a connection to a node daemon must stand, TLS included.
CONNECT_TIMEOUT: Final = 5.0

#: Calls that only look, or leave the same behind however often they are made: these may be sent
#: again when a connection breaks.
REPEATABLE: Final = frozenset(
    [
        "all_instances_info",
        "blockdev_assemble",
        "blockdev_close",
        "blockdev_find",
        "blockdev_getmirrorstatus",
        "blockdev_getsize",
        "blockdev_remove",
        "blockdev_shutdown",
        "bridges_exist",
        "config_update",
        "drbd_wait_sync",
        "export_info",
        "export_list",
        "file_storage_dir_create",
        "file_storage_dir_remove",
        "file_storage_dir_rename",
        "finalize_migration",
        "hypervisor_validate_params",
        "iallocator_runner",
        "instance_abort_migration",
        "instance_finalize_migration_src",
        "instance_get_migration_status",
        "instance_info",
        "instance_list",
        "instance_migratable",
        "instance_shutdown",
        "instance_start",
        "jobqueue_purge",
        "jobqueue_rename",
        "jobqueue_set_drain",
        "jobqueue_update",
        "jobqueue_update_many",
        "lv_list",
        "master_info",
        "migration_info",
        "node_has_ip_address",
        "node_info",
        "node_start_master",
        "node_stop_master",
        "node_tcp_ping",
        "node_verify",
        "node_volumes",
        "os_diagnose",
        "os_get",
        "storage_list",
        "upload_file",
        "version",
        "vg_list",
        "write_ssconf_files",
    ]
)

#: Job files of so many bytes are compressed: for smaller ones that costs more than it saves.
_COMPRESS_JOBS_FROM: Final = 8192
#: What a node answers without saying why.
NO_ERROR_TEXT: Final = "No error information"
OFFLINE_TEXT: Final = "Node is marked offline"


class Configuration(Protocol):
    """What the runner must know of the cluster: a part of C{config.ConfigWriter}."""

    def GetNodeInfo(self, node_name: str) -> objects.Node | None:
        """The node of that name, if there is one."""

    def GetMasterNode(self) -> str:
        """Name of the master, the node that calls."""

    def GetClusterInfo(self) -> objects.Cluster:
        """The cluster with its default parameters."""


class RpcResult:
    """Answer of one node to one call.

    @ivar fail_msg: None after a success, else what went wrong
    @ivar payload: what the node answered; None after a failure
    @ivar offline: the node is marked offline and was not asked
    @ivar data: the raw pair C{[success, payload]}, None if there was none
    @ivar call: name of the call
    @ivar node: name of the node
    """

    __slots__ = ("call", "data", "fail_msg", "node", "offline", "payload")

    def __init__(
        self,
        data: Any = None,
        failed: bool = False,
        offline: bool = False,
        call: str | None = None,
        node: str | None = None,
    ) -> None:
        """From what came over the wire.

        @param data: the pair of a node that answered; with C{failed} the text why none did
        """
        self.call = call
        self.node = node
        self.offline = offline
        self.data: Any = None
        self.payload: Any = None
        self.fail_msg: str | None = None
        if offline:
            self.fail_msg = OFFLINE_TEXT
        elif failed:
            self.fail_msg = self._Text(data)
        else:
            self._Accept(data)

    def _Accept(self, data: Any) -> None:
        if not isinstance(data, (list, tuple)):
            self.fail_msg = f"RPC layer error: invalid result type ({type(data).__name__})"
        elif len(data) != 2:
            self.fail_msg = f"RPC layer error: invalid result length ({len(data)}), expected 2"
        elif data[0]:
            self.data = data
            self.payload = data[1]
        else:
            self.data = data
            self.fail_msg = self._Text(data[1])

    @staticmethod
    def _Text(value: Any) -> str:
        return str(value) if value else NO_ERROR_TEXT

    def Raise(self, msg: str | None, prereq: bool = False, ecode: str | None = None) -> None:
        """Nothing after a success, else an error.

        @param msg: what was attempted; None for a text with the names of call and node
        @param prereq: raise OpPrereqError instead of OpExecError
        @param ecode: the error's code
        """
        if self.fail_msg is None:
            return
        if msg:
            text = f"{msg}: {self.fail_msg}"
        else:
            text = f"Call '{self.call}' to node '{self.node}' failed: {self.fail_msg}"
        args = (text,) if ecode is None else (text, ecode)
        if prereq:
            raise errors.OpPrereqError(*args)
        raise errors.OpExecError(*args)

    def __repr__(self) -> str:
        what = "ok" if self.fail_msg is None else repr(self.fail_msg)
        return f"<RpcResult {self.call} {self.node}: {what}>"


# The process's connections


class _Client:
    """The transport of this process, from Init to Shutdown."""

    transport: runtime.Transport | None = None
    #: As whose master this process calls; see L{ClaimMaster}.
    claim: str = ""


def ClaimMaster(name: str, version: str) -> None:
    """Call as the master from now on: nodes refuse to be changed by one that was replaced.

    @param name: of this node
    @param version: of the cluster, as this node has it: L{ssconf.Version.Format}
    """
    from urllib.parse import urlencode

    _Client.claim = "?" + urlencode({"master": name, "version": version})


def Init(rt: runtime.Runtime = runtime.DEFAULT, transport: runtime.Transport | None = None) -> None:
    """Prepare for calls; once in the life of a process, or again after L{Shutdown}.

    @param transport: what carries the requests; default: that of the runtime, else libcurl
    """
    assert _Client.transport is None, "RPC module initialized already"
    transport = transport or rt.transport
    if transport is None:
        # Imported late: the libraries are big, and tests bring a transport of their own.
        from .transport import CurlTransport

        transport = CurlTransport(rt=rt)
    _Client.transport = transport


def Shutdown() -> None:
    """Close all connections; fine if there are none."""
    transport, _Client.transport = _Client.transport, None
    _Client.claim = ""
    if transport is not None:
        transport.Shutdown()


def GetStatistics() -> dict[str, int]:
    """Counters of the transport, if it has any."""
    count = getattr(_Client.transport, "GetStatistics", None)
    return dict(count()) if count is not None else {}


# Addresses


class _Skipped:
    """Why a node is not contacted, in the place of its address."""

    def __init__(self, data: str | None = None, offline: bool = False) -> None:
        self.data = data
        self.offline = offline


_Address = str | _Skipped


def _ResolveByName(node: str) -> _Address:
    try:
        return net.HostInfo(node).ip
    except errors.ResolverError as err:
        return _Skipped(f"Can't resolve the node name {node!r}: {err.args[-1]}")
    except errors.OpPrereqError as err:
        return _Skipped(errors.FormatError(err))


def _ResolveByConfig(cfg: Configuration, node: str) -> _Address:
    """Primary address of a node of the cluster; any other name is asked of the resolver."""
    info = cfg.GetNodeInfo(node)
    if info is None:
        return _ResolveByName(node)
    if info.offline:
        return _Skipped(offline=True)
    return str(info.primary_ip)


# Requests and answers


@functools.cache
def _GetPort() -> int:
    # Looking into the services database costs as much as everything else done here for a call.
    return net.GetDaemonPort(constants.NODED)


def _Execute(
    call: rpc_defs.Call,
    nodes: Sequence[str],
    addresses: Sequence[_Address],
    args: Sequence[Any],
    transport: runtime.Transport | None,
    patience: float | None = None,
) -> dict[str, RpcResult]:
    """Make one call to some nodes in parallel.

    @param patience: seconds to wait for the answers, if that is less than the call may take
    """
    transport = transport or _Client.transport
    assert transport is not None, "RPC module not initialized"
    if len(args) != len(call.args):
        names = ", ".join(arg.name for arg in call.args) or "none"
        raise TypeError(f"{call.method} takes {len(call.args)} arguments ({names}), not {args!r}")
    wire_args = pathutils.ToWire(rpc_defs.EncodeArgs(call.name, args))
    body = serializer.Dump(wire_args).encode("utf-8")
    timeout = call.GetTimeout(args)
    if patience is not None:
        timeout = min(timeout, patience)
    port = _GetPort()

    results: dict[str, RpcResult] = {}
    requests = []
    # A node named twice is asked once
    for node, address in dict(zip(nodes, addresses, strict=True)).items():
        if isinstance(address, _Skipped):
            results[node] = RpcResult(
                data=address.data, failed=True, offline=address.offline, call=call.name, node=node
            )
        else:
            requests.append(
                runtime.HttpRequest(
                    host=address,
                    port=port,
                    method="PUT",
                    path=f"/{call.name}{_Client.claim}",
                    body=body,
                    connect_timeout=CONNECT_TIMEOUT,
                    timeout=timeout,
                    repeatable=call.name in REPEATABLE,
                    tag=node,
                )
            )
    transport.Perform(requests)
    for request in requests:
        results[request.tag] = ParseAnswer(request, call.name)
    # In the order that was asked for
    return {node: results[node] for node in nodes}


def ParseAnswer(request: runtime.HttpRequest, call: str) -> RpcResult:
    """The result out of a finished request."""
    node = str(request.tag)
    if request.status is None:
        return RpcResult(data=request.error, failed=True, call=call, node=node)
    if request.status != HTTPStatus.OK:
        text = f"HTTP error {request.status} {request.reason}".rstrip()
        detail = _PlainText(request.response)
        if detail:
            text += f": {detail}"
        return RpcResult(data=text, failed=True, call=call, node=node)
    try:
        data = serializer.Load(request.response)
    except ValueError as err:
        text = f"RPC layer error: the answer is not JSON: {err}"
        return RpcResult(data=text, failed=True, call=call, node=node)
    result = RpcResult(data=pathutils.FromWire(data, node), call=call, node=node)
    decode = _DECODERS.get(call)
    if decode is not None and result.fail_msg is None:
        result.payload = decode(result.payload)
    return result


def _PlainText(body: bytes) -> str:
    """What a small HTML page says."""
    text = re.sub(r"(?is)<(head|title)\b.*?</\1>|<[^>]*>", " ", body.decode("utf-8", "replace"))
    return " ".join(text.split())[:200]


def _DecodeStatus(payload: Any) -> Any:
    return None if payload is None else objects.BlockDevStatus.FromDict(payload)


def _DecodeStatusList(payload: Any) -> Any:
    return [_DecodeStatus(item) for item in payload]


#: Calls whose answers are more than plain values.
_DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "blockdev_find": _DecodeStatus,
    "blockdev_getmirrorstatus": _DecodeStatusList,
    "os_get": lambda payload: objects.OS.FromDict(payload),
}


# The runner

if TYPE_CHECKING:

    class _HasCalls(type):
        """The methods are made below; a type checker has to be told of them."""

        def __getattr__(cls, name: str) -> Callable[..., Any]: ...

else:
    _HasCalls = type


class RpcRunner(metaclass=_HasCalls):
    """One method C{call_NAME} for each call of L{rpc_defs.CALLS}.

    The first argument is the name of a node (single calls, one L{RpcResult}) or a list of names
    (multi calls, a dictionary from name to L{RpcResult}); then come the call's own arguments, by
    position or by name. Addresses come from the configuration, nodes marked offline are not
    contacted. Objects may be given as they are; instances are sent with all their parameters
    filled in, for a node knows no defaults.

    Static calls need no configuration: they are methods of the class, ask the resolver for
    addresses unless C{address_list} gives them, and are made to offline nodes as well. C{timeout}
    is for who does not want to wait for an answer as long as the call may take.
    C{call_jobqueue_update} and C{call_jobqueue_rename} take that list as their second argument.
    """

    def __init__(self, cfg: Configuration, transport: runtime.Transport | None = None) -> None:
        """A runner for one cluster.

        @param transport: carries this runner's requests instead of the process's own
        """
        self._cfg = cfg
        self._transport = transport

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...

    def _Call(self, call: rpc_defs.Call, nodes: Sequence[str], args: Sequence[Any]) -> Any:
        addresses = [_ResolveByConfig(self._cfg, node) for node in nodes]
        plain = [self._ToPlain(arg) for arg in args]
        return _Execute(call, nodes, addresses, plain, self._transport)

    def _ToPlain(self, value: Any) -> Any:
        """Objects, at any depth, as the dictionaries that travel."""
        if isinstance(value, objects.Instance):
            return self.InstDict(value)
        if isinstance(value, objects.ConfigObject):
            return value.ToDict()
        if isinstance(value, dict):
            return {key: self._ToPlain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._ToPlain(item) for item in value]
        return value

    def InstDict(
        self,
        instance: objects.Instance,
        hvp: Mapping[str, Any] | None = None,
        bep: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """An instance as nodes get it.

        @param hvp: hypervisor parameters that win over all others, for this call only
        @param bep: the same for backend parameters
        """
        cluster = self._cfg.GetClusterInfo()
        result = instance.ToDict()
        result["hvparams"] = {**cluster.FillHV(instance), **(hvp or {})}
        result["beparams"] = {**cluster.FillBE(instance), **(bep or {})}
        defaults = cluster.nicparams[constants.PP_DEFAULT]
        for nic in result["nics"]:
            nic["nicparams"] = objects.FillDict(defaults, nic.get("nicparams") or {})
        for disk in result["disks"]:
            _FillDiskParams(cluster, disk, {})
        return dict(result)

    # Calls with a client side of their own

    def call_instance_start(
        self,
        node: str,
        instance: objects.Instance,
        hvp: Mapping[str, Any] | None = None,
        bep: Mapping[str, Any] | None = None,
    ) -> RpcResult:
        """Start an instance; C{hvp} and C{bep} are parameters for this start only."""
        args = [self.InstDict(instance, hvp, bep)]
        result: RpcResult = self._Call(rpc_defs.CALLS["instance_start"], [node], args)[node]
        return result

    def call_hooks_runner(
        self, node_list: Sequence[str], hpath: str, phase: str, env: Mapping[str, str]
    ) -> dict[str, RpcResult]:
        """Run hook scripts on nodes; the master, this very node, is not called if it has none."""
        call = rpc_defs.CALLS["hooks_runner"]
        spared = set() if _HasHooks(hpath, phase) else {self._cfg.GetMasterNode()}
        nodes = [name for name in node_list if name not in spared]
        results: dict[str, RpcResult] = {}
        if nodes:
            results = self._Call(call, nodes, [hpath, phase, env])
        for name in spared & set(node_list):
            results[name] = RpcResult([True, []], call=call.name, node=name)
        return results

    @classmethod
    def call_upload_file(
        cls,
        node_list: Sequence[str],
        file_name: str,
        address_list: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, RpcResult]:
        """Send a file of this node to others, with its permissions, owner and times.

        @param timeout: seconds to wait for the answers at most
        @raise OSError: it can not be read
        """
        with open(file_name, "rb") as fobj:
            st = os.fstat(fobj.fileno())
            content = fobj.read()
        args = [
            file_name,
            encoding.EncodeData(content),
            st.st_mode & 0o7777,
            *_OwnerNames(st),
            st.st_atime,
            st.st_mtime,
        ]
        return _StaticCall(rpc_defs.CALLS["upload_file"], node_list, address_list, args, timeout)

    @classmethod
    def call_jobqueue_update(
        cls,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        file_name: str,
        content: str | bytes,
    ) -> dict[str, RpcResult]:
        """Write a file of the job queue on other nodes."""
        args = [file_name, encoding.EncodeData(content)]
        return _StaticCall(rpc_defs.CALLS["jobqueue_update"], node_list, address_list, args)

    @classmethod
    def call_jobqueue_update_many(
        cls,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        files: Sequence[tuple[str, bytes]],
    ) -> dict[str, RpcResult]:
        """Write files of the job queue on other nodes: all of them or none, in this order.

        @param files: pairs of path and content
        """
        args = [[[path, encoding.EncodeData(data, _COMPRESS_JOBS_FROM)] for path, data in files]]
        return _StaticCall(rpc_defs.CALLS["jobqueue_update_many"], node_list, address_list, args)

    @classmethod
    def call_jobqueue_rename(
        cls,
        node_list: Sequence[str],
        address_list: Sequence[str] | None,
        rename: Sequence[tuple[str, str]],
    ) -> dict[str, RpcResult]:
        """Rename files of the job queue on other nodes."""
        args = [[list(pair) for pair in rename]]
        return _StaticCall(rpc_defs.CALLS["jobqueue_rename"], node_list, address_list, args)


def _FillDiskParams(
    cluster: objects.Cluster, disk: dict[str, Any], inherited: Mapping[str, Any]
) -> None:
    """Fill the parameters of a disk as it travels; what is below it has the disk's."""
    own = {**inherited, **(disk.get("params") or {})}
    disk["params"] = cluster.SimpleFillDisk(own)
    for child in disk.get("children") or ():
        _FillDiskParams(cluster, child, own)


def _HasHooks(hpath: str, phase: str) -> bool:
    """May there be scripts on this node? Only a node can tell of itself."""
    return os.path.isdir(os.path.join(pathutils.HOOKS_BASE_DIR, f"{hpath}-{phase}.d"))


def _OwnerNames(st: os.stat_result) -> tuple[int | str, int | str]:
    """User and group by name: the numbers may mean somebody else on another node."""
    import grp
    import pwd

    user: int | str = st.st_uid
    group: int | str = st.st_gid
    try:
        user = pwd.getpwuid(st.st_uid).pw_name
        group = grp.getgrgid(st.st_gid).gr_name
    except KeyError:
        pass
    return user, group


def _StaticCall(
    call: rpc_defs.Call,
    nodes: Sequence[str],
    address_list: Sequence[str] | None,
    args: Sequence[Any],
    timeout: float | None = None,
) -> dict[str, RpcResult]:
    addresses: list[_Address]
    if address_list is None:
        addresses = [_ResolveByName(node) for node in nodes]
    else:
        assert len(address_list) == len(nodes), "Each node needs exactly one address"
        addresses = list(address_list)
    return _Execute(call, nodes, addresses, args, None, timeout)


def _BindArgs(call: rpc_defs.Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call in their order, as Python would find them."""
    names = [arg.name for arg in call.args]
    rest = dict(kwargs)
    bound = list(args)
    for name in names[len(args) :]:
        if name not in rest:
            _RefuseArgs(call, f"{name} is missing")
        bound.append(rest.pop(name))
    if rest or len(bound) > len(names):
        _RefuseArgs(call, "too many or unknown ones were given")
    return bound


def _RefuseArgs(call: rpc_defs.Call, why: str) -> NoReturn:
    names = ", ".join(arg.name for arg in call.args) or "none"
    raise TypeError(f"Arguments of {call.method} are {names}: {why}")


def _MakeMethod(call: rpc_defs.Call) -> Any:
    multi = call.kind == rpc_defs.MULTI

    def Method(self: RpcRunner, where: Any, *args: Any, **kwargs: Any) -> Any:
        nodes = where if multi else [where]
        results = self._Call(call, nodes, _BindArgs(call, args, kwargs))
        return results if multi else results[where]

    def StaticMethod(
        where: Any,
        *args: Any,
        address_list: Sequence[str] | None = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        nodes = where if multi else [where]
        results = _StaticCall(call, nodes, address_list, _BindArgs(call, args, kwargs), timeout)
        return results if multi else results[where]

    function: Callable[..., Any] = StaticMethod if call.static else Method
    function.__name__ = call.method
    function.__qualname__ = f"RpcRunner.{call.method}"
    function.__doc__ = f"{call.doc}."
    return staticmethod(function) if call.static else function


def _AddMethods() -> None:
    for call in rpc_defs.CALLS.values():
        if call.method not in vars(RpcRunner):
            setattr(RpcRunner, call.method, _MakeMethod(call))


_AddMethods()
