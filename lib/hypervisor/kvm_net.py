"""The node's end of the network cards of KVM instances: bridges, routes, the site's own script."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, pathutils, runtime
from ..utils import filelock

_SCRIPT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds to wait for the lock; it is held for a few commands.
_LOCK_TIMEOUT: Final = 60.0


@dataclass(frozen=True)
class NicSpec:
    """A network card and how it is to be connected."""

    mac: str
    ip: str | None
    mode: str
    link: str | None

    @staticmethod
    def FromDict(nic: Mapping[str, Any]) -> NicSpec:
        """From a dictionary as of C{objects.NIC.ToDict}, with filled parameters."""
        params = nic.get("nicparams") or {}
        return NicSpec(
            mac=nic["mac"],
            ip=nic.get("ip") or None,
            mode=params.get(constants.NIC_MODE, constants.NIC_MODE_BRIDGED),
            link=params.get(constants.NIC_LINK) or None,
        )


def ScriptEnvironment(
    instance_name: str, tags: Iterable[str], nic: NicSpec, interface: str
) -> dict[str, str]:
    """Environment of the site's network script."""
    env = {
        "PATH": _SCRIPT_PATH,
        "INSTANCE": instance_name,
        "MAC": nic.mac,
        "MODE": nic.mode,
        "INTERFACE": interface,
    }
    if nic.ip:
        env["IP"] = nic.ip
    if nic.link:
        env["LINK"] = nic.link
        if nic.mode == constants.NIC_MODE_BRIDGED:
            env["BRIDGE"] = nic.link
    tag_list = list(tags)
    if tag_list:
        env["TAGS"] = " ".join(tag_list)
    return env


def SetupCommands(
    nic: NicSpec, interface: str, instance_name: str, ip_path: str = pathutils.IP_PATH
) -> list[list[str]]:
    """Commands that connect an interface, for sites without a script of their own.

    @raise errors.HypervisorError: a routed card without address, a mode that does not exist
    """
    commands = [[ip_path, "link", "set", "dev", interface, "up"]]
    if nic.mode == constants.NIC_MODE_BRIDGED:
        if not nic.link:
            raise errors.HypervisorError(
                f"Instance {instance_name}: the bridged NIC {nic.mac} has no link (bridge)"
            )
        return [*commands, [ip_path, "link", "set", "dev", interface, "master", nic.link]]
    if nic.mode != constants.NIC_MODE_ROUTED:
        raise errors.HypervisorError(
            f"Instance {instance_name}: the NIC {nic.mac} has the unknown mode {nic.mode!r}"
        )
    if not nic.ip:
        raise errors.HypervisorError(
            f"Instance {instance_name}: the routed NIC {nic.mac} needs an IP address"
        )
    route = [ip_path, "route", "replace", nic.ip]
    if nic.link:
        commands.append([ip_path, "rule", "add", "dev", interface, "table", nic.link])
        route += ["table", nic.link]
    return [*commands, [*route, "proto", "static", "dev", interface]]


def ProxySettings(interface: str, proc: str = "/proc/sys/net") -> list[str]:
    """Kernel settings to be 1 for a routed interface, so that the node answers for the guest."""
    return [
        f"{proc}/{family}/conf/{interface}/{setting}"
        for family, setting in (
            ("ipv4", "proxy_arp"),
            ("ipv4", "forwarding"),
            ("ipv6", "proxy_ndp"),
            ("ipv6", "forwarding"),
        )
    ]


def Setup(
    rt: runtime.Runtime,
    instance_name: str,
    tags: Sequence[str],
    nic: NicSpec,
    interface: str,
    lock_file: str,
    script: str = pathutils.KVM_NETWORK_SCRIPT,
) -> None:
    """Connect an interface: by the site's script where there is one, else as the mode says.

    @param lock_file: of this node's interfaces
    @raise errors.HypervisorError: a command failed
    """
    with _Locked(rt, lock_file):
        # The kernel takes routes away with the interface, but not rules: who had an interface of
        # this name before may have left some.
        _DeleteRules(rt, interface)
    if os.path.isfile(script) and os.access(script, os.X_OK):
        env = ScriptEnvironment(instance_name, tags, nic, interface)
        _Run(rt, instance_name, (script, interface), env)
        return
    for argv in SetupCommands(nic, interface, instance_name):
        _Run(rt, instance_name, argv, None)
    if nic.mode == constants.NIC_MODE_ROUTED:
        _SetProxy(interface)


def CleanUp(
    rt: runtime.Runtime, interfaces: Iterable[str], lock_file: str, sysfs: str = "/sys/class/net"
) -> None:
    """Remove what is left of interfaces that went away with their QEMU."""
    with _Locked(rt, lock_file):
        for interface in interfaces:
            # Otherwise another instance has got this name by now, with rules of its own.
            if not os.path.exists(f"{sysfs}/{interface}"):
                _DeleteRules(rt, interface)


@contextlib.contextmanager
def _Locked(rt: runtime.Runtime, lock_file: str) -> Iterator[None]:
    """Nobody else cleans up: whose interface exists by now keeps the rules that it adds later."""
    with filelock.FileLock.Open(lock_file, rt) as lock:
        lock.Exclusive(timeout=_LOCK_TIMEOUT)
        yield


def _DeleteRules(rt: runtime.Runtime, interface: str) -> None:
    # One at a time; the last one fails.
    while not rt.processes.run([pathutils.IP_PATH, "rule", "del", "dev", interface]).failed:
        pass


def _Run(
    rt: runtime.Runtime, instance_name: str, argv: Sequence[str], env: dict[str, str] | None
) -> None:
    result = rt.processes.run(list(argv), env=env)
    if result.failed:
        raise errors.HypervisorError(
            f"Can't connect a network card of instance {instance_name}: {result.cmd} failed"
            f" ({result.fail_reason}): {result.output.strip()}"
        )


def _SetProxy(interface: str) -> None:
    for path in ProxySettings(interface):
        # A node may have no IPv6.
        if not os.path.isdir(os.path.dirname(path)):
            continue
        try:
            with open(path, "w", encoding="ascii") as fobj:
                fobj.write("1\n")
        except OSError as err:
            raise errors.HypervisorError(f"Can't set {path} to 1: {err}") from err


def ParseHmpNetwork(text: str) -> dict[int, str]:
    """Interface of each card out of the human monitor's C{info network}."""
    interfaces: dict[int, str] = {}
    for line in text.splitlines():
        name, colon, facts = line.strip().lstrip("\\ ").partition(":")
        if not colon or not name.startswith("net") or not name[3:].isdigit():
            continue
        for fact in facts.strip().split(","):
            key, _, value = fact.partition("=")
            if key == "ifname" and value:
                interfaces[int(name[3:])] = value
    return interfaces


def UserNetworkReason(nics: Sequence[NicSpec]) -> str | None:
    """Why cards must be connected inside of QEMU; None if taps can be used.

    Only nodes of a virtual cluster do without taps: on a real node a guest without the network
    that it was promised is an error.
    """
    if not nics or not pathutils.IsVirtual():
        return None
    if os.geteuid() != 0:
        return "not running as root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun can not be opened"
    for nic in nics:
        if nic.mode == constants.NIC_MODE_BRIDGED and not os.path.exists(
            f"/sys/class/net/{nic.link}/bridge"
        ):
            return f"there is no bridge {nic.link}"
    return None
