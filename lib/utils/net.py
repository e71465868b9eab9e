"""Host names, addresses, ports and bridges.

In a virtual cluster the machine's own names mean nothing: a process is the node that
GANETI_HOSTNAME names, the hosts file below its root directory is asked before the system's
resolver, and every address of 127.0.0.0/8 belongs to this machine.
"""

import errno
import ipaddress
import os
import re
import socket
from typing import Final

from .. import constants, errors, pathutils
from . import hosts, io
from .hosts import RemoveEtcHostsEntry, SetEtcHostsEntry

__all__ = [
    "AddHostToEtcHosts",
    "BridgeExists",
    "GetDaemonPort",
    "GetHostInfo",
    "GetSystemHostName",
    "HostInfo",
    "IsLoopback",
    "IsValidIP",
    "OwnIpAddress",
    "RemoveEtcHostsEntry",
    "RemoveHostFromEtcHosts",
    "SetEtcHostsEntry",
    "TcpPing",
]

_VALID_NAME: Final = re.compile(r"[a-z0-9._-]{1,255}")
_SYS_CLASS_NET: Final = "/sys/class/net"


# Names


def GetSystemHostName() -> str:
    """Name of this host (of this node, in a virtual cluster), as it is set, not resolved."""
    if pathutils.IsVirtual():
        name = os.environ.get("GANETI_HOSTNAME")
        if name:
            return name
    return socket.gethostname()


class HostInfo:
    """What a host name resolves to; IPv4 only.

    Attributes: query (the name asked for), name (the canonical one), aliases, ipaddrs, ip (the
    first address).
    """

    def __init__(self, name: str | None = None) -> None:
        """Resolve a name; default is this host.

        Raises: ResolverError(name, code, text), OpPrereqError for an impossible name.
        """
        if name is None:
            name = GetSystemHostName()
        self.query = name
        self.name, self.aliases, self.ipaddrs = _Resolve(self.NormalizeName(name))
        self.ip = self.ipaddrs[0]

    def ShortName(self) -> str:
        """The canonical name up to its first dot."""
        return self.name.partition(".")[0]

    @staticmethod
    def NormalizeName(name: str) -> str:
        """The name in lower case without trailing dots.

        Raises: OpPrereqError (wrong_input) for anything that can't be a host name.
        """
        lower = name.lower()
        # One that begins with a dash would be an option to every program that it is handed to.
        if not _VALID_NAME.fullmatch(lower) or ".." in lower or lower.startswith((".", "-")):
            raise errors.OpPrereqError(f"Invalid name '{name}'", errors.ECODE_INVAL)
        return lower.rstrip(".")


def GetHostInfo(name: str | None = None) -> HostInfo:
    """HostInfo for use in operations.

    Raises: OpPrereqError (resolver_error) if the name does not resolve.
    """
    try:
        return HostInfo(name)
    except errors.ResolverError as err:
        host, code, reason = err.args
        raise errors.OpPrereqError(
            f"The given name ({host}) does not resolve: {reason} (error {code})",
            errors.ECODE_RESOLVER,
        ) from err


_Resolved = tuple[str, list[str], list[str]]


def _Resolve(name: str) -> _Resolved:
    if pathutils.IsVirtual():
        found = _ResolveInHostsFile(name, pathutils.ETC_HOSTS)
        if found is not None:
            return found
    try:
        return socket.gethostbyname_ex(name)
    except socket.gaierror as err:
        raise errors.ResolverError(name, err.errno, err.strerror) from err
    except (OSError, UnicodeError) as err:
        raise errors.ResolverError(name, getattr(err, "errno", None), str(err)) from err


def _ResolveInHostsFile(name: str, file_name: str) -> _Resolved | None:
    try:
        content = io.ReadFile(file_name)
    except FileNotFoundError:
        return None
    addresses: list[str] = []
    names: list[str] = []
    for ip, entry_names in hosts.ParseHosts(content):
        lower = [entry_name.lower() for entry_name in entry_names]
        if name in lower or name == ip:
            addresses.append(ip)
            names.extend(lower)
    if not addresses:
        return None
    return names[0], list(dict.fromkeys(names[1:])), addresses


def AddHostToEtcHosts(hostname: str, file_name: str = pathutils.ETC_HOSTS) -> None:
    """Resolve a name and enter it, with its short name, into the hosts file.

    Raises: ResolverError.
    """
    host = HostInfo(hostname)
    SetEtcHostsEntry(file_name, host.ip, host.name, [host.ShortName()])


def RemoveHostFromEtcHosts(hostname: str, file_name: str = pathutils.ETC_HOSTS) -> None:
    """Take a name and its short name out of the hosts file.

    Raises: ResolverError.
    """
    host = HostInfo(hostname)
    RemoveEtcHostsEntry(file_name, host.name)
    RemoveEtcHostsEntry(file_name, host.ShortName())


# Addresses


def IsValidIP(ip: str) -> bool:
    """Whether the text is an IPv4 address in its usual form."""
    try:
        ipaddress.IPv4Address(ip)
    except ValueError:
        return False
    return True


def IsLoopback(ip: str) -> bool:
    """Whether the text is an address of 127.0.0.0/8."""
    return IsValidIP(ip) and ipaddress.IPv4Address(ip).is_loopback


def OwnIpAddress(ip: str) -> bool:
    """Whether an address belongs to this host; loopback addresses always do."""
    if not IsValidIP(ip):
        return False
    if IsLoopback(ip):
        return True
    # Imported here: listings and the like never ask.
    import psutil

    return any(
        address.family == socket.AF_INET and address.address == ip
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
    )


def TcpPing(
    target: str,
    port: int,
    timeout: float = constants.TCP_PING_TIMEOUT,
    live_port_needed: bool = False,
    source: str | None = None,
) -> bool:
    """Whether a host is reachable by TCP.

    Arguments:
      - target: address or name
      - timeout: seconds
      - live_port_needed: False = a refused connection proves the host alive as well
      - source: own address to connect from; one that this host doesn't have gives False, one that
        can't be used for another reason is ignored
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        if source is not None:
            try:
                sock.bind((source, 0))
            except OSError as err:
                if err.errno == errno.EADDRNOTAVAIL:
                    return False
        sock.settimeout(timeout)
        try:
            sock.connect((_AddressOf(target), port))
        except ConnectionRefusedError:
            return not live_port_needed
        except (OSError, errors.ResolverError, errors.OpPrereqError):
            return False
    return True


def _AddressOf(target: str) -> str:
    return target if IsValidIP(target) else HostInfo(target).ip


def GetDaemonPort(name: str) -> int:
    """Port of a daemon: from the services database, else the default one.

    Raises: ProgrammerError for a daemon without a port.
    """
    if name not in constants.DAEMONS_PORTS:
        raise errors.ProgrammerError(f"Unknown daemon: {name}")
    protocol, default = constants.DAEMONS_PORTS[name]
    try:
        return socket.getservbyname(name, protocol)
    except OSError:
        return default


def BridgeExists(name: str) -> bool:
    """Whether there is a network bridge of that name."""
    return os.path.isdir(os.path.join(_SYS_CLASS_NET, name, "bridge"))
