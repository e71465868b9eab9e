"""Who gets the configuration after it was written, and what they get.

Master candidates get what has changed of the file (L{filedelta}), or the whole of it where that is
not known to fit; all online nodes get the ssconf values. How things get there is a L{Distributor};
who has what is kept in a L{DistributionState}, so that a node that could not be reached is known to
be stale and gets its copy with the next round, whatever that is for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from .. import constants, objects, ssconf, uidpool
from ..utils import filedelta

#: node name -> why it did not get something; None = it did
Results = dict[str, str | None]


#: Seconds that a change waits for the answers of nodes: one that hangs, with a dead disk, say, must
#: not hold up the cluster.
COMMIT_TIMEOUT: Final = 10.0
#: Seconds for the tries that nobody waits for.
RETRY_TIMEOUT: Final = 60.0


class Distributor(Protocol):
    """Carries things to nodes, to all of them at once."""

    def UploadConfig(self, path: str, addresses: Mapping[str, str], timeout: float) -> Results:
        """Bring this host's file of that name to these nodes.

        @param addresses: node name -> address
        @param timeout: seconds to wait for their answers
        """

    def UpdateConfig(
        self, change: filedelta.Delta, addresses: Mapping[str, str], timeout: float
    ) -> tuple[Results, set[str]]:
        """Have these nodes, which have the base of a delta, change their copies.

        @return: results, and the names of those that answered that they need the whole file
        """

    def WriteSsconf(
        self, values: Mapping[str, str], addresses: Mapping[str, str], timeout: float
    ) -> Results:
        """Have the ssconf files of these nodes written."""


class RpcDistributor:
    """L{Distributor} by calls to the node daemons, this host's own included."""

    def UploadConfig(self, path: str, addresses: Mapping[str, str], timeout: float) -> Results:
        # The RPC client is only needed by who distributes: tools that work offline do without.
        from .. import rpc

        names = list(addresses)
        try:
            results = rpc.RpcRunner.call_upload_file(
                names, path, address_list=[addresses[name] for name in names], timeout=timeout
            )
        except OSError as err:
            # The change is made; that it can not be read here is no reason to say it was not.
            return dict.fromkeys(names, f"{path} can't be read to be sent: {err}")
        return _Failures(results)

    def UpdateConfig(
        self, change: filedelta.Delta, addresses: Mapping[str, str], timeout: float
    ) -> tuple[Results, set[str]]:
        from .. import rpc

        names = list(addresses)
        results = rpc.RpcRunner.call_config_update(
            names,
            [change.base_serial, change.serial],
            list(change.instructions),
            change.checksum,
            address_list=[addresses[name] for name in names],
            timeout=timeout,
        )
        return _Failures(results), {
            name for name, result in results.items() if result.fail_msg and result.data is not None
        }

    def WriteSsconf(
        self, values: Mapping[str, str], addresses: Mapping[str, str], timeout: float
    ) -> Results:
        from .. import rpc

        names = list(addresses)
        return _Failures(
            rpc.RpcRunner.call_write_ssconf_files(
                names,
                dict(values),
                address_list=[addresses[name] for name in names],
                timeout=timeout,
            )
        )


def _Failures(results: Mapping[str, Any]) -> Results:
    return {name: result.fail_msg for name, result in results.items()}


@dataclass(frozen=True)
class Written:
    """What the last write of the configuration holds, as far as distribution needs it.

    @ivar node_names, instance_names: in natural order
    """

    config_serial: int
    cluster: objects.Cluster
    nodes: Mapping[str, objects.Node]
    node_names: Sequence[str]
    instance_names: Sequence[str]


def SsconfValues(written: Written) -> dict[str, str]:
    """All ssconf values, and the version of the cluster that they are of."""
    cluster = written.cluster
    version = ssconf.Version(cluster.serial_no, cluster.mtime or 0.0, cluster.uuid)
    ordered = [written.nodes[name] for name in written.node_names]
    candidates = [node for node in ordered if node.master_candidate]

    def _Lines(lines: Iterable[str]) -> str:
        return "\n".join(lines)

    return {
        ssconf.VERSION_KEY: version.Format(),
        constants.SS_CLUSTER_NAME: cluster.cluster_name or "",
        constants.SS_CLUSTER_TAGS: _Lines(sorted(cluster.tags or ())),
        constants.SS_FILE_STORAGE_DIR: cluster.file_storage_dir or "",
        constants.SS_SHARED_FILE_STORAGE_DIR: cluster.shared_file_storage_dir or "",
        constants.SS_MASTER_CANDIDATES: _Lines(node.name for node in candidates),
        constants.SS_MASTER_CANDIDATES_IPS: _Lines(node.primary_ip for node in candidates),
        constants.SS_MASTER_IP: cluster.master_ip or "",
        constants.SS_MASTER_NETDEV: cluster.master_netdev or "",
        constants.SS_MASTER_NODE: cluster.master_node or "",
        constants.SS_NODE_LIST: _Lines(node.name for node in ordered),
        constants.SS_NODE_PRIMARY_IPS: _Lines(f"{node.name} {node.primary_ip}" for node in ordered),
        constants.SS_NODE_SECONDARY_IPS: _Lines(
            f"{node.name} {node.secondary_ip}" for node in ordered
        ),
        constants.SS_OFFLINE_NODES: _Lines(node.name for node in ordered if node.offline),
        constants.SS_ONLINE_NODES: _Lines(node.name for node in ordered if not node.offline),
        constants.SS_INSTANCE_LIST: _Lines(written.instance_names),
        constants.SS_RELEASE_VERSION: constants.RELEASE_VERSION,
        constants.SS_HYPERVISOR_LIST: _Lines(cluster.enabled_hypervisors or ()),
        constants.SS_MAINTAIN_NODE_HEALTH: str(bool(cluster.maintain_node_health)),
        constants.SS_UID_POOL: uidpool.FormatUidPool(cluster.uid_pool or [], separator="\n"),
    }


def CandidateAddresses(nodes: Iterable[objects.Node], myself: str) -> dict[str, str]:
    """Primary IPs of the master candidates other than this host."""
    return {
        node.name: node.primary_ip
        for node in nodes
        if node.master_candidate and node.name != myself
    }


def OnlineAddresses(nodes: Iterable[objects.Node]) -> dict[str, str]:
    """Primary IPs of all nodes that are not offline, this host included."""
    return {node.name: node.primary_ip for node in nodes if not node.offline}


@dataclass(frozen=True)
class Plan:
    """One round: what goes to whom. Empty addresses = nothing to do.

    @ivar nodes: the nodes as they are configured
    @ivar skipped: candidates that lack the configuration, but are left to a later round, and why
    """

    config_serial: int
    config_addresses: Mapping[str, str]
    cluster_serial: int
    ssconf_addresses: Mapping[str, str]
    ssconf_values: Mapping[str, str]
    nodes: Mapping[str, objects.Node]
    skipped: Mapping[str, str]

    def Having(self, state: DistributionState, serial: int) -> set[str]:
        """Those who are to get the configuration and have this version of it."""
        return {name for name in self.config_addresses if state.config.get(name) == serial}


@dataclass(frozen=True)
class Report:
    """What a round could not do, as texts for the log and for whoever caused it."""

    config_problems: tuple[str, ...] = ()
    ssconf_problems: tuple[str, ...] = ()


#: What no serial number is.
_NEVER: Final = -1


@dataclass
class DistributionState:
    """Which node has which serial number, as far as is known.

    Has no lock of its own.

    @ivar config: candidate -> serial of the last configuration it took
    @ivar ssconf: node -> cluster serial of the last ssconf values it took
    @ivar failed: node that did not take what it was sent last -> the node as it was configured
        then, and what went wrong
    @ivar retried: nodes that are being tried again, by who has the time to wait for them
    """

    config: dict[str, int] = field(default_factory=dict)
    ssconf: dict[str, int] = field(default_factory=dict)
    failed: dict[str, tuple[objects.Node, str]] = field(default_factory=dict)
    retried: frozenset[str] = frozenset()

    def StaleConfig(self, addresses: Mapping[str, str], serial: int) -> dict[str, str]:
        """Those candidates that do not have this configuration."""
        return {
            name: address
            for name, address in addresses.items()
            if self.config.get(name, _NEVER) < serial
        }

    def StaleSsconf(self, addresses: Mapping[str, str], serial: int) -> dict[str, str]:
        """Those nodes that do not have the ssconf values of this cluster serial."""
        return {
            name: address
            for name, address in addresses.items()
            if self.ssconf.get(name, _NEVER) < serial
        }

    def Shunned(self, nodes: Mapping[str, objects.Node], ask_all: bool) -> set[str]:
        """Names of the nodes that a round for a change leaves alone: those that did not answer
        the last time, unless they were configured anew since.

        @param ask_all: only those that are being tried anyway
        """
        if ask_all:
            return set(self.retried)
        # Stored objects are replaced, never modified: another object is another configuration.
        failed = {name for name, (node, _) in self.failed.items() if nodes.get(name) is node}
        return failed | self.retried

    def Record(self, plan: Plan, config_results: Results, ssconf_results: Results) -> Report:
        """Take over the results of a round."""
        for results, serials, serial in (
            (config_results, self.config, plan.config_serial),
            (ssconf_results, self.ssconf, plan.cluster_serial),
        ):
            for name, problem in results.items():
                if problem is None:
                    serials[name] = serial
                    self.failed.pop(name, None)
        for name, problem in [*config_results.items(), *ssconf_results.items()]:
            if problem is not None:
                self.failed[name] = (plan.nodes[name], problem)
        self.failed = {name: item for name, item in self.failed.items() if name in plan.nodes}
        problems = {
            name: problem for name, problem in config_results.items() if problem is not None
        }
        return Report(
            tuple(
                f"Node {name} did not get the configuration: {problem}"
                for name, problem in sorted({**problems, **plan.skipped}.items())
            ),
            tuple(
                f"Node {name} did not get the ssconf files: {problem}"
                for name, problem in sorted(ssconf_results.items())
                if problem is not None
            ),
        )

    def GetStale(self, written: Written, myself: str) -> set[str]:
        """Names of the nodes that lack something that was written."""
        addresses = CandidateAddresses(written.nodes.values(), myself)
        return {
            *self.StaleConfig(addresses, written.config_serial),
            *self.StaleSsconf(OnlineAddresses(written.nodes.values()), written.cluster.serial_no),
        }


def MakePlan(
    state: DistributionState, written: Written, myself: str, ask_all: bool = False
) -> Plan:
    """Decide who needs what, for a change that somebody waits for.

    A node that could not be reached must not slow down every later change: it is left to the
    rounds of L{MakeRetryPlan}.

    @param ask_all: ask it all the same, once
    """
    shunned = state.Shunned(written.nodes, ask_all)
    plan = _MakePlan(state, written, myself, lambda name: name not in shunned)
    stale = state.StaleConfig(
        CandidateAddresses(written.nodes.values(), myself), written.config_serial
    )
    skipped = {
        name: f"{state.failed[name][1]}; it is tried again in the background"
        for name in stale
        if name in shunned and name in state.failed
    }
    return dataclasses.replace(plan, skipped=skipped)


def MakeRetryPlan(state: DistributionState, written: Written, myself: str) -> Plan:
    """Decide who of those that could not be reached needs what."""
    names = state.failed.keys() - state.retried
    return _MakePlan(state, written, myself, lambda name: name in names)


def _MakePlan(
    state: DistributionState, written: Written, myself: str, is_asked: Callable[[str], bool]
) -> Plan:
    def _Asked(addresses: Mapping[str, str]) -> dict[str, str]:
        return {name: address for name, address in addresses.items() if is_asked(name)}

    nodes = written.nodes.values()
    serial = written.cluster.serial_no
    ssconf_addresses = state.StaleSsconf(_Asked(OnlineAddresses(nodes)), serial)
    return Plan(
        config_serial=written.config_serial,
        config_addresses=state.StaleConfig(
            _Asked(CandidateAddresses(nodes, myself)), written.config_serial
        ),
        cluster_serial=serial,
        ssconf_addresses=ssconf_addresses,
        # Made of every node and instance: only if somebody gets them.
        ssconf_values=SsconfValues(written) if ssconf_addresses else {},
        nodes=written.nodes,
        skipped={},
    )


def Carry(
    distributor: Distributor,
    path: str,
    plan: Plan,
    timeout: float,
    change: filedelta.Delta | None = None,
    having: Container[str] = (),
) -> tuple[Results, Results]:
    """Do a round: the configuration first, so that no node names a master who lacks it.

    A node that did not take the configuration is not asked again in the same round: a dead one
    costs one time-out.

    @param timeout: seconds to wait for the answers to each of the two
    @param change: what makes this configuration of another one
    @param having: names of those who have that other one
    """
    config_results = _CarryConfig(distributor, path, plan.config_addresses, timeout, change, having)
    failed = {name for name, problem in config_results.items() if problem is not None}
    addresses = {
        name: address for name, address in plan.ssconf_addresses.items() if name not in failed
    }
    ssconf_results: Results = {}
    if addresses:
        ssconf_results = distributor.WriteSsconf(plan.ssconf_values, addresses, timeout)
    return config_results, ssconf_results


def _CarryConfig(
    distributor: Distributor,
    path: str,
    addresses: Mapping[str, str],
    timeout: float,
    change: filedelta.Delta | None,
    having: Container[str],
) -> Results:
    results: Results = {}
    whole = dict(addresses)
    if change is not None:
        some = {name: address for name, address in addresses.items() if name in having}
        if some:
            results, unfit = distributor.UpdateConfig(change, some, timeout)
            whole = {
                name: address
                for name, address in addresses.items()
                if name not in some or name in unfit
            }
    if whole:
        results = {**results, **distributor.UploadConfig(path, whole, timeout)}
    return results
