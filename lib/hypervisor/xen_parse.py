"""What Xen's C{xl} answers, as values. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .. import errors
from . import hv_base, linux

DOM0_NAME: Final = "Domain-0"
#: Name of a domain that has none (yet, or any more).
_NO_NAME: Final = "(null)"
#: While a domain migrates there are two of it, and one has a name with such an end.
INCOMING: Final = "--incoming"
MIGRATED_AWAY: Final = "--migratedaway"


@dataclass(frozen=True)
class Domain:
    """A line of C{xl list}.

    @ivar memory: MiB
    @ivar state: letters of C{rbpscd} (running, blocked, paused, shutdown, crashed, dying) or dashes
    @ivar cpu_time: seconds
    """

    name: str
    domid: int
    memory: int
    vcpus: int
    state: str
    cpu_time: float

    def ToInfo(self) -> hv_base.InstanceInfo:
        """As hypervisors tell about instances."""
        return (self.name, self.domid, self.memory, self.vcpus, self.state, self.cpu_time)


def ParseList(text: str) -> list[Domain]:
    """Domains that C{xl list} tells of; those without a name are left out.

    @raise errors.HypervisorError: names the line that is not as expected
    """
    header, *lines = text.splitlines() or [""]
    if header.split()[:2] != ["Name", "ID"]:
        raise errors.HypervisorError(f"Can't understand the header of xl list: {header!r}")
    domains = (_ParseDomain(line) for line in lines if line.strip())
    return [domain for domain in domains if domain.name != _NO_NAME]


def _ParseDomain(line: str) -> Domain:
    try:
        name, domid, memory, vcpus, state, cpu_time = line.split()
        return Domain(name, int(domid), int(memory), int(vcpus), state, float(cpu_time))
    except ValueError as err:
        raise errors.HypervisorError(
            f"Can't understand a line of xl list: {line!r}: {err}"
        ) from err


def Find(domains: Iterable[Domain], name: str) -> Domain | None:
    """The domain of exactly that name."""
    return next((domain for domain in domains if domain.name == name), None)


def IsInstance(domain: Domain) -> bool:
    """Is it an instance, not the node itself or the other half of a migration?"""
    return domain.name != DOM0_NAME and not domain.name.endswith((INCOMING, MIGRATED_AWAY))


def IsSuspended(domain: Domain) -> bool:
    """Has its execution ended, though the domain is there?"""
    return "s" in domain.state


def HasRebooted(before: Domain, now: Domain | None) -> bool:
    """Is a domain another one than before? None: it can't be seen at the moment."""
    return now is not None and (now.domid != before.domid or now.cpu_time < before.cpu_time)


#: Line of C{xl info} -> key of our own.
_INFO_KEYS: Final = {
    "memory": "memory_total",
    "total_memory": "memory_total",
    "free_memory": "memory_free",
    "nr_cpus": "cpu_total",
    "nr_nodes": "cpu_nodes",
}


def ParseInfo(text: str) -> linux.NodeInfo:
    """Memory (MiB) and processors of a node, from C{xl info}.

    @return: as L{linux.GetNodeInfo}, without memory_dom0; what is not told is left out
    @raise errors.HypervisorError: a number is none
    """
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            values[name.strip()] = value.strip()
    result = {
        key: _Number(name, values[name]) for name, key in _INFO_KEYS.items() if name in values
    }
    topology = [values.get(name) for name in ("nr_cpus", "cores_per_socket", "threads_per_core")]
    if None not in topology:
        cpus, cores, threads = (_Number("topology", value or "") for value in topology)
        if cores * threads > 0:
            # Some processors may be switched off.
            result["cpu_sockets"] = max(cpus // (cores * threads), 1)
    return result


def _Number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise errors.HypervisorError(
            f"Can't understand xl info: {name} is {value!r}, not a number"
        ) from None
