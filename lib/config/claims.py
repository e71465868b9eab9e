"""What each object claims for itself alone, and who claims what.

MACs, ports, DRBD minors, addresses, ids: most rules of the configuration are of the form "no two
may have the same". Each object is turned into a list of claims by a pure function; the index keeps
them by value, so that a change costs what the changed object claims, not what the cluster has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from .. import constants, objects

# Kinds of objects
CLUSTER: Final = "cluster"
NODE: Final = "node"
INSTANCE: Final = "instance"


class Key(NamedTuple):
    """Identity of an object of the configuration; the cluster's name is empty."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


CLUSTER_KEY: Final = Key(CLUSTER, "")

# Kinds of claims, in the words of messages
MAC: Final = "MAC address"
PORT: Final = "port"
MINOR: Final = "DRBD minor"
IP: Final = "IP address"
LOGICAL_ID: Final = "logical id"
PHYSICAL_ID: Final = "physical id"
UUID: Final = "UUID"
LV: Final = "logical volume"
SECRET: Final = "DRBD secret"  # noqa: S105 - no secret itself

#: What only one object may have, once. Volumes of equal names may lie on different nodes.
EXCLUSIVE: Final = frozenset([MAC, PORT, MINOR, IP, LOGICAL_ID, PHYSICAL_ID, UUID])


class Claim(NamedTuple):
    """One thing that an object claims.

    @ivar value: a MINOR is (node name, number)
    @ivar detail: which part of the object it is for
    """

    kind: str
    value: Any
    detail: str = ""


_Identified = objects.Cluster | objects.Node | objects.Instance | objects.NIC | objects.Disk


def _UuidClaims(obj: _Identified, detail: str = "") -> Iterator[Claim]:
    if obj.uuid:
        yield Claim(UUID, obj.uuid, detail)


def ClusterClaims(cluster: objects.Cluster) -> list[Claim]:
    """Claims of the cluster object."""
    claims = list(_UuidClaims(cluster))
    if cluster.master_ip:
        claims.append(Claim(IP, cluster.master_ip, "cluster IP"))
    claims.extend(Claim(PORT, port, "free ports") for port in cluster.tcpudp_port_pool or ())
    return claims


def NodeClaims(node: objects.Node) -> list[Claim]:
    """Claims of a node."""
    claims = list(_UuidClaims(node))
    if node.primary_ip:
        claims.append(Claim(IP, node.primary_ip, "primary IP"))
    if node.secondary_ip and node.secondary_ip != node.primary_ip:
        claims.append(Claim(IP, node.secondary_ip, "secondary IP"))
    return claims


def InstanceClaims(instance: objects.Instance, default_nicparams: Mapping[str, Any]) -> list[Claim]:
    """Claims of an instance.

    @param default_nicparams: of the cluster; they decide on which link an address is
    """
    claims = list(_UuidClaims(instance))
    if instance.network_port:
        claims.append(Claim(PORT, instance.network_port, "network port"))
    for idx, nic in enumerate(instance.nics or ()):
        claims.extend(_NicClaims(nic, f"NIC {idx}", default_nicparams))
    for idx, disk in enumerate(instance.disks or ()):
        detail = f"disk {idx}"
        if disk.dev_type in constants.LDS_DRBD and disk.logical_id[2] is not None:
            claims.append(Claim(PORT, disk.logical_id[2], detail))
        claims.extend(_DiskClaims(disk, detail))
    return claims


def _NicClaims(
    nic: objects.NIC, detail: str, default_nicparams: Mapping[str, Any]
) -> Iterator[Claim]:
    yield from _UuidClaims(nic, detail)
    if nic.mac:
        yield Claim(MAC, nic.mac, detail)
    if nic.ip:
        params = {**default_nicparams, **(nic.nicparams or {})}
        link = params.get(constants.NIC_LINK)
        if params.get(constants.NIC_MODE) == constants.NIC_MODE_ROUTED:
            yield Claim(IP, f"route:{link}/{nic.ip}", detail)
        else:
            yield Claim(IP, f"bridge:{link}/{nic.ip}", detail)


def _DiskClaims(disk: objects.Disk, detail: str) -> Iterator[Claim]:
    yield from _UuidClaims(disk, detail)
    if disk.logical_id:
        yield Claim(LOGICAL_ID, tuple(disk.logical_id), detail)
    if disk.physical_id:
        yield Claim(PHYSICAL_ID, tuple(disk.physical_id), detail)
    if disk.dev_type == constants.LD_LV:
        yield Claim(LV, disk.logical_id[1], detail)
    elif disk.dev_type in constants.LDS_DRBD:
        node_a, node_b, _, minor_a, minor_b, secret = disk.logical_id
        for node, minor in ((node_a, minor_a), (node_b, minor_b)):
            if minor is not None:
                yield Claim(MINOR, (node, minor), detail)
        if secret:
            yield Claim(SECRET, secret, detail)
    for child in disk.children or ():
        yield from _DiskClaims(child, detail)


def DefaultNicParams(cluster: objects.Cluster) -> dict[str, Any]:
    """NIC parameters of NICs that have none of their own."""
    stored = (cluster.nicparams or {}).get(constants.PP_DEFAULT, {})
    return {**constants.NICC_DEFAULTS, **stored}


class Owner(NamedTuple):
    """Who claims something, and what for."""

    key: Key
    detail: str

    def __str__(self) -> str:
        return f"{self.key} ({self.detail})" if self.detail else str(self.key)


class ClaimIndex:
    """All claims, by value and by object.

    Invariant: C{_owners} lists exactly the claims of C{_claims}, and C{_conflicts} exactly the
    exclusive ones with several owners. Has no lock of its own.
    """

    def __init__(self) -> None:
        self._claims: dict[Key, list[Claim]] = {}
        self._owners: dict[str, dict[Any, list[Owner]]] = {}
        self._conflicts: set[tuple[str, Any]] = set()
        #: node -> minor -> names of instances
        self._minors: dict[str, dict[int, list[str]]] = {}

    def Set(self, key: Key, claims: list[Claim]) -> None:
        """Replace everything an object claims; an empty list forgets it."""
        for claim in self._claims.pop(key, ()):
            self._Drop(key, claim)
        for claim in claims:
            self._Add(key, claim)
        if claims:
            self._claims[key] = claims

    def _Add(self, key: Key, claim: Claim) -> None:
        owners = self._owners.setdefault(claim.kind, {}).setdefault(claim.value, [])
        owners.append(Owner(key, claim.detail))
        if claim.kind in EXCLUSIVE and len(owners) > 1:
            self._conflicts.add((claim.kind, claim.value))
        if claim.kind == MINOR:
            node, minor = claim.value
            self._minors.setdefault(node, {}).setdefault(minor, []).append(key.name)

    def _Drop(self, key: Key, claim: Claim) -> None:
        by_value = self._owners[claim.kind]
        owners = by_value[claim.value]
        owners.remove(Owner(key, claim.detail))
        if len(owners) < 2:
            self._conflicts.discard((claim.kind, claim.value))
        if not owners:
            del by_value[claim.value]
        if claim.kind == MINOR:
            node, minor = claim.value
            names = self._minors[node][minor]
            names.remove(key.name)
            if not names:
                del self._minors[node][minor]
                if not self._minors[node]:
                    del self._minors[node]

    def GetClaims(self, key: Key) -> list[Claim]:
        """Everything an object claims."""
        return list(self._claims.get(key, ()))

    def Values(self, kind: str) -> Mapping[Any, list[Owner]]:
        """Everything of that kind that is claimed; a live view."""
        return self._owners.setdefault(kind, {})

    def IsClaimed(self, kind: str, value: Any) -> bool:
        """Does any object claim it?"""
        return value in self.Values(kind)

    def GetMinors(self, node: str) -> Mapping[int, list[str]]:
        """Minors in use on a node, each with the names of its instances; a live view."""
        return self._minors.get(node, {})

    def HasMinorConflicts(self) -> bool:
        """Is any minor of any node used twice?"""
        return any(kind == MINOR for kind, _ in self._conflicts)

    def GetConflicts(self, keys: Iterable[Key] | None = None) -> list[tuple[str, Any, list[Owner]]]:
        """What is claimed more often than it may: (kind, value, owners).

        @param keys: only what one of these objects claims; None = all
        """
        if keys is None:
            wanted = self._conflicts
        elif not self._conflicts:
            return []
        else:
            claimed = {
                (claim.kind, claim.value) for key in keys for claim in self._claims.get(key, ())
            }
            wanted = self._conflicts & claimed
        found = [(kind, value, list(self._owners[kind][value])) for kind, value in wanted]
        return sorted(found, key=lambda item: (item[0], str(item[1])))

    def GetState(self) -> dict[str, Any]:
        """Everything as plain data, for comparison."""
        return {
            "claims": {key: sorted(map(str, claims)) for key, claims in self._claims.items()},
            "owners": {
                (kind, value): sorted(map(str, owners))
                for kind, by_value in self._owners.items()
                for value, owners in by_value.items()
            },
            "conflicts": set(self._conflicts),
            "minors": {
                (node, minor): sorted(names)
                for node, minors in self._minors.items()
                for minor, names in minors.items()
            },
        }
