"""Changes of the configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, cast

from .. import constants, errors, objects, pathutils
from ..runtime import DEFAULT, Runtime
from ..utils import net, uuid
from . import claims, distribution, history, verify
from .engine import CommitEngine, FeedbackFn, Pending
from .past import History
from .reader import ConfigReader
from .reservations import TemporaryReservationManager
from .store import AddMissingUuids, ConfigStore, ParseConfig

#: Ports up to this one, exclusive, are given out.
_PORT_LIMIT: Final = constants.LAST_DRBD_PORT


class _KnownIds(Container[str]):
    """Everything that a new id must not be."""

    def __init__(self, store: ConfigStore, temporary: TemporaryReservationManager[str]) -> None:
        self._store = store
        self._temporary = temporary

    def __contains__(self, item: object) -> bool:
        index = self._store.index
        return (
            item in self._store.nodes
            or item in self._store.instances
            or index.IsClaimed(claims.UUID, item)
            or index.IsClaimed(claims.LV, item)
            or (isinstance(item, str) and self._temporary.Reserved(item))
        )


def _Identified(obj: Any) -> Iterator[Any]:
    """An object and the parts of it that have a UUID."""
    yield obj
    if isinstance(obj, objects.Instance):
        yield from obj.nics or ()
        for disk in obj.disks or ():
            yield from disk.IterTree()


class ConfigWriter(ConfigReader):
    """The configuration in memory, its file, and the copies of it on other nodes.

    Any number of threads may use one object; there is one a process for one file. Getters return
    copies. Every method that changes something returns when the change is on disk and was offered
    once to every node that is to have it; nodes that could not be reached are reported, not waited
    for. All of them raise ConfigurationError if the file can't be written, and then change nothing.

    @ivar write_count: how often this object wrote the file
    @ivar history: what was changed, by whom
    """

    def __init__(
        self,
        cfg_file: str | None = None,
        offline: bool = False,
        runtime: Runtime = DEFAULT,
        distributor: distribution.Distributor | None = None,
        my_hostname: str | None = None,
        history_file: str | None = None,
    ) -> None:
        """Load a configuration; objects without a UUID get one, and the file is written then.

        @param cfg_file: path; None = the usual one
        @param offline: never contact any node
        @param distributor: what contacts them; None = calls to the node daemons
        @param my_hostname: name of this host; None = ask the resolver now, so that no later write
            depends on it
        @param history_file: log of all changes; None = the usual one for the usual configuration,
            and none for others

        Raises: ConfigurationError for what is no configuration, or of another version; OSError if
        it can not be read; ResolverError.
        """
        self._rt = runtime
        path = cfg_file if cfg_file is not None else pathutils.CLUSTER_CONF_FILE
        if offline:
            distributor = None
            myself = my_hostname or ""
        else:
            distributor = distributor or distribution.RpcDistributor()
            myself = my_hostname or net.HostInfo().name

        fingerprint = runtime.files.stat(path)
        data = ParseConfig(runtime.files.read(path), path)
        upgraded = AddMissingUuids(data, runtime)
        if history_file is None and path == pathutils.CLUSTER_CONF_FILE:
            history_file = pathutils.CONFIG_HISTORY_FILE
        log = history.HistoryLog(history_file, runtime) if history_file is not None else None
        self._engine = CommitEngine(
            ConfigStore(data), path, fingerprint, distributor, myself, runtime, log
        )
        self.history = History(self._engine)
        self._temporary_ids: TemporaryReservationManager[str] = TemporaryReservationManager()
        self._temporary_macs: TemporaryReservationManager[str] = TemporaryReservationManager()
        self._temporary_secrets: TemporaryReservationManager[str] = TemporaryReservationManager()
        self._temporary_lvs: TemporaryReservationManager[str] = TemporaryReservationManager()
        #: (node, minor) -> name of the instance that is to get it
        self._temporary_minors: dict[tuple[str, int], str] = {}
        # A copy of the cluster object is out of date if what it says was changed since it was
        # made; the serial number alone also rises for what only ssconf shows.
        self._cluster_since: int = self._engine.store.cluster.serial_no
        for problem in self._FindProblems(path):
            logging.critical("The configuration is not consistent: %s", problem)
        if upgraded:
            self._engine.Rewrite()

    def _FindProblems(self, path: str) -> list[str]:
        try:
            return verify.Verify(self._store, self._store.index)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            # Not only inconsistent, but with a text where a number should be, say.
            raise errors.ConfigurationError(
                f"The configuration {path} has not the expected form:"
                f" {err.__class__.__name__}: {err}"
            ) from err

    @property
    def write_count(self) -> int:
        """How often this object wrote the file."""
        return self._engine.write_count

    def ActingFor(self, job_id: str | None, opcode: str | None) -> AbstractContextManager[None]:
        """Within the block, what this thread changes is noted as the work of that job and opcode.

        @param opcode: its C{OP_ID}
        """
        return self._engine.ActingFor(history.Origin(job_id, opcode))

    def DistributeStale(self) -> set[str]:
        """Try again to serve nodes that could not be reached; to be called now and then.

        @return: names of those that still lack something
        """
        return self._engine.DistributeStale()

    def GetStatistics(self) -> dict[str, int]:
        """Writes, commits, distribution rounds, reservations."""
        statistics = self._engine.GetStatistics()
        with self._engine.lock:
            for name, manager in (
                ("reserved_ids", self._temporary_ids),
                ("reserved_macs", self._temporary_macs),
                ("reserved_secrets", self._temporary_secrets),
                ("reserved_lvs", self._temporary_lvs),
            ):
                statistics[name] = manager.GetStatistics()["resources"]
            statistics["reserved_minors"] = len(self._temporary_minors)
        return statistics

    # Helpers; all with the lock held

    def _Now(self) -> float:
        return self._rt.clock.time()

    def _NewVersion(self, key: claims.Key) -> Any:
        """A copy of a stored object that may be modified and put; its serial is raised."""
        obj: Any = self._store.Copy(key)
        if obj is None:
            raise errors.ConfigurationError(f"Unknown {key.kind} '{key.name}'")
        obj.serial_no = self._engine.NextSerial(key, obj.serial_no)
        obj.mtime = self._Now()
        return obj

    def _NewCluster(self) -> objects.Cluster:
        return cast("objects.Cluster", self._NewVersion(claims.CLUSTER_KEY))

    def _PutPorts(self, pending: Pending, pool: set[int], highest: int) -> None:
        # Ports are no part of what the cluster object says to its readers: no new serial.
        cluster = cast("objects.Cluster", self._store.Copy(claims.CLUSTER_KEY))
        cluster.tcpudp_port_pool = pool
        cluster.highest_used_port = highest
        pending.Put(claims.CLUSTER_KEY, cluster)

    def _EnsureUuids(self, obj: Any, ec_id: str | None) -> None:
        """Give an object and its parts the UUIDs they lack, and check the others.

        Raises: ConfigurationError if a given one is in use.
        """
        known = _KnownIds(self._store, self._temporary_ids)
        seen: set[str] = set()
        for part in _Identified(obj):
            if not part.uuid:
                part.uuid = self._NewUuid()
            elif part.uuid in seen or (ec_id is not None and part.uuid in known):
                raise errors.ConfigurationError(
                    f"Can't add {obj!r}: the UUID {part.uuid} of {part!r} is in use already"
                )
            seen.add(part.uuid)

    def _NewUuid(self) -> str:
        known = _KnownIds(self._store, self._temporary_ids)
        while True:
            candidate = uuid.NewUUID(self._rt)
            if candidate not in known:
                return candidate

    # Reservations

    def GenerateMAC(self, ec_id: str) -> str:
        """A MAC address that nobody has, reserved for an execution context."""
        with self._engine.lock:
            prefix = self._store.cluster.mac_prefix

            def _One() -> str:
                digits = self._rt.random.token_hex(3)
                return ":".join([prefix, digits[0:2], digits[2:4], digits[4:6]])

            return self._temporary_macs.Generate(self._store.index.Values(claims.MAC), _One, ec_id)

    def ReserveMAC(self, mac: str, ec_id: str) -> None:
        """Reserve a given MAC address. Raises ReservationError if it is in use or reserved."""
        self._Reserve(self._temporary_macs, claims.MAC, mac, ec_id)

    def ReserveLV(self, lv_name: str, ec_id: str) -> None:
        """Reserve the name of a volume. Raises ReservationError if it is in use or reserved."""
        self._Reserve(self._temporary_lvs, claims.LV, lv_name, ec_id)

    def _Reserve(
        self, manager: TemporaryReservationManager[str], kind: str, value: str, ec_id: str
    ) -> None:
        with self._engine.lock:
            owners = self._store.index.Values(kind).get(value)
            if owners:
                raise errors.ReservationError(f"The {kind} {value} is in use by {owners[0]}")
            manager.Reserve(ec_id, value)

    def GenerateUniqueID(self, ec_id: str) -> str:
        """A UUID that is no name or id of anything, reserved for an execution context."""
        with self._engine.lock:
            return self._temporary_ids.Generate(
                _KnownIds(self._store, self._temporary_ids),
                lambda: uuid.NewUUID(self._rt),
                ec_id,
            )

    def GenerateDRBDSecret(self, ec_id: str) -> str:
        """A secret that no DRBD disk has, 40 hex digits, reserved for an execution context."""
        with self._engine.lock:
            return self._temporary_secrets.Generate(
                self._store.index.Values(claims.SECRET),
                lambda: uuid.GenerateSecret(runtime=self._rt),
                ec_id,
            )

    def DropECReservations(self, ec_id: str) -> None:
        """Release everything that an execution context reserved."""
        with self._engine.lock:
            for manager in (
                self._temporary_ids,
                self._temporary_macs,
                self._temporary_secrets,
                self._temporary_lvs,
            ):
                manager.DropECReservations(ec_id)

    # DRBD minors

    def ComputeDRBDMap(self) -> dict[str, dict[int, str]]:
        """All nodes, each with its minors in use and reserved, and the instances they are for.

        Raises: ConfigurationError if a minor is used twice.
        """
        with self._engine.lock:
            self._CheckMinors()
            minors = {
                name: {
                    minor: names[0] for minor, names in self._store.index.GetMinors(name).items()
                }
                for name in self._store.nodes
            }
            for (node, minor), instance in self._temporary_minors.items():
                minors.setdefault(node, {})[minor] = instance
            return minors

    def _CheckMinors(self) -> None:
        if self._store.index.HasMinorConflicts():
            problems = [
                verify.FormatConflict(*conflict)
                for conflict in self._store.index.GetConflicts()
                if conflict[0] == claims.MINOR
            ]
            raise errors.ConfigurationError("; ".join(problems))
        for (node, minor), instance in self._temporary_minors.items():
            names = self._store.index.GetMinors(node).get(minor, [instance])
            if names != [instance]:
                raise errors.ConfigurationError(
                    f"DRBD minor {minor} of node {node} is reserved for instance {instance}, but in"
                    f" use by {', '.join(names)}"
                )

    def AllocateDRBDMinor(self, nodes: Sequence[str], instance: str) -> list[int]:
        """Reserve the lowest free minors for an instance.

        They stay reserved until the instance is added or updated, or L{ReleaseDRBDMinors}.

        @param nodes: names; one minor for each entry, a node may be there several times
        @return: minors, in the order of the nodes

        Raises: ConfigurationError for an unknown node, or if any minor is used twice already.
        """
        with self._engine.lock:
            self._CheckMinors()
            unknown = [node for node in nodes if node not in self._store.nodes]
            if unknown:
                raise errors.ConfigurationError(
                    f"Can't allocate a DRBD minor on unknown nodes: {', '.join(unknown)}"
                )
            result = []
            for node in nodes:
                used = self._store.index.GetMinors(node)
                minor = 0
                while minor in used or (node, minor) in self._temporary_minors:
                    minor += 1
                self._temporary_minors[node, minor] = instance
                result.append(minor)
            return result

    def ReleaseDRBDMinors(self, instance: str) -> None:
        """Drop the minors that are reserved for an instance and not configured."""
        with self._engine.lock:
            self._ReleaseMinors(instance)

    def _ReleaseMinors(self, instance: str) -> None:
        for key in [key for key, name in self._temporary_minors.items() if name == instance]:
            del self._temporary_minors[key]

    # Ports

    def AddTcpUdpPort(self, port: int) -> None:
        """Give a port back. Raises ProgrammerError if it is no number."""
        if not isinstance(port, int) or isinstance(port, bool):
            raise errors.ProgrammerError(f"Invalid type passed for port: {port!r}")
        with self._engine.Transaction() as pending:
            cluster = self._store.cluster
            pool = set(cluster.tcpudp_port_pool or ())
            if port not in pool:
                self._PutPorts(pending, pool | {port}, cluster.highest_used_port)

    def AllocatePort(self) -> int:
        """Take a port: one that was given back, else the next one that was never used.

        Raises: ConfigurationError if there are no more.
        """
        with self._engine.Transaction() as pending:
            cluster = self._store.cluster
            pool = set(cluster.tcpudp_port_pool or ())
            highest = cluster.highest_used_port
            used = self._store.index.Values(claims.PORT)
            # The pool itself is an owner of its ports.
            free = [port for port in sorted(pool) if len(used[port]) == 1]
            if free:
                port = free[0]
                pool.discard(port)
            else:
                port = highest + 1
                while port in used:
                    port += 1
                if port >= _PORT_LIMIT:
                    raise errors.ConfigurationError(
                        f"The highest used port is {highest}; there are no ports left below"
                        f" {_PORT_LIMIT}. Remove instances, or give unused ports back"
                    )
                highest = port
            self._PutPorts(pending, pool, highest)
        return port

    # The cluster

    def SetVGName(self, vg_name: str | None) -> None:
        """Set the name of the volume group; None disables LVM."""
        with self._engine.Transaction() as pending:
            cluster = self._NewCluster()
            cluster.volume_group_name = vg_name
            pending.Put(claims.CLUSTER_KEY, cluster)
            self._cluster_since = cluster.serial_no

    # Nodes

    def AddNode(self, node: objects.Node, ec_id: str) -> None:
        """Add a node; the object gets its UUID, serial number and times.

        Raises: ConfigurationError if the name or the UUID is in use.
        """
        key = claims.Key(claims.NODE, node.name)
        with self._engine.Transaction() as pending:
            self._PutNew(pending, key, node, ec_id)
        logging.info("Added node %s to the configuration", node.name)

    def _PutNew(
        self,
        pending: Pending,
        key: claims.Key,
        obj: objects.Node | objects.Instance,
        ec_id: str,
        skipped: int = 0,
    ) -> None:
        """Store a new object.

        @param skipped: how many serial numbers it leaves out
        """
        if self._store.Get(key) is not None:
            raise errors.ConfigurationError(f"There is a {key.kind} '{key.name}' already")
        self._EnsureUuids(obj, ec_id)
        obj.serial_no = self._engine.NextSerial(key, skipped)
        obj.ctime = obj.mtime = self._Now()
        pending.Put(key, obj.Copy())
        pending.Put(claims.CLUSTER_KEY, self._NewCluster())

    def RemoveNode(self, node_name: str) -> None:
        """Remove a node. Raises ConfigurationError if there is none of that name."""
        key = claims.Key(claims.NODE, node_name)
        with self._engine.Transaction() as pending:
            self._CheckKnown(key)
            pending.Remove(key)
            pending.Put(claims.CLUSTER_KEY, self._NewCluster())
        logging.info("Removed node %s from the configuration", node_name)

    def _CheckKnown(self, key: claims.Key) -> None:
        if self._store.Get(key) is None:
            raise errors.ConfigurationError(f"Unknown {key.kind} '{key.name}'")

    def MaintainCandidatePool(
        self, exceptions: Iterable[str] | None = None, pool_size: int | None = None
    ) -> list[objects.Node]:
        """Promote nodes until there are enough master candidates; never demotes.

        @param exceptions: names of nodes to leave alone, and not to count
        @param pool_size: how many are enough; default: what the cluster says
        @return: the nodes that were promoted, to be sent the job queue
        """
        excepted = frozenset(exceptions or ())
        promoted: list[objects.Node] = []
        with self._engine.Transaction() as pending:
            if pool_size is None:
                pool_size = self._store.cluster.candidate_pool_size
            stats = verify.GetCandidateStats(self._store.nodes.values(), pool_size, excepted)
            names = [
                node.name
                for node in self._store.nodes.values()
                if not (node.master_candidate or node.offline or node.drained)
                and node.name not in excepted
            ]
            self._rt.random.shuffle(names)
            for name in names[: max(0, stats.should - stats.now)]:
                key = claims.Key(claims.NODE, name)
                node = self._NewVersion(key)
                node.master_candidate = True
                pending.Put(key, node)
                promoted.append(node.Copy())
            if promoted:
                pending.Put(claims.CLUSTER_KEY, self._NewCluster())
        missing = stats.should - stats.now - len(promoted)
        if missing > 0:
            logging.warning("Can't find %d more nodes to be master candidates", missing)
        return promoted

    # Instances

    def AddInstance(self, instance: objects.Instance, ec_id: str) -> None:
        """Add an instance; the object gets its UUID, serial number and times.

        Minors reserved for it are its own from now on. One that is to run has the serial number
        that it would have if it had been marked so after it was added.

        Raises: ProgrammerError if it is no instance; ConfigurationError if its name, its UUID or
        one of its MACs is in use.
        """
        if not isinstance(instance, objects.Instance):
            raise errors.ProgrammerError(f"Invalid type passed to AddInstance: {instance!r}")
        key = claims.Key(claims.INSTANCE, instance.name)
        with self._engine.Transaction() as pending:
            macs = self._store.index.Values(claims.MAC)
            for nic in instance.nics or ():
                if nic.mac in macs:
                    raise errors.ConfigurationError(
                        f"Can't add instance {instance.name}: its MAC address {nic.mac} is in use"
                        f" by {macs[nic.mac][0]}"
                    )
            self._PutNew(pending, key, instance, ec_id, int(bool(instance.admin_up)))
        self.ReleaseDRBDMinors(instance.name)

    def RemoveInstance(self, instance_name: str) -> None:
        """Remove an instance and give its ports back.

        Raises: ConfigurationError if there is none of that name.
        """
        key = claims.Key(claims.INSTANCE, instance_name)
        with self._engine.Transaction() as pending:
            self._CheckKnown(key)
            ports = {
                claim.value
                for claim in self._store.index.GetClaims(key)
                if claim.kind == claims.PORT
            }
            cluster = self._NewCluster()
            cluster.tcpudp_port_pool = set(cluster.tcpudp_port_pool or ()) | ports
            pending.Remove(key)
            pending.Put(claims.CLUSTER_KEY, cluster)

    def RenameInstance(self, old_name: str, new_name: str) -> None:
        """Give an instance another name; the directory in the ids of file disks follows.

        Raises: ConfigurationError if there is none of the old name, or one of the new name.
        """
        old_key = claims.Key(claims.INSTANCE, old_name)
        new_key = claims.Key(claims.INSTANCE, new_name)
        with self._engine.Transaction() as pending:
            instance = self._NewVersion(old_key)
            if new_name != old_name and self._store.Get(new_key) is not None:
                raise errors.ConfigurationError(f"There is an instance '{new_name}' already")
            instance.name = new_name
            for disk in instance.disks or ():
                if disk.dev_type == constants.LD_FILE:
                    driver, path = disk.logical_id
                    base = os.path.dirname(os.path.dirname(path))
                    new_path = os.path.join(base, new_name, os.path.basename(path))
                    disk.logical_id = disk.physical_id = (driver, new_path)
            pending.Remove(old_key)
            pending.Put(new_key, instance)
            pending.Put(claims.CLUSTER_KEY, self._NewCluster())

    def MarkInstanceUp(self, instance_name: str) -> None:
        """Note that an instance is to run. Raises ConfigurationError if there is none such."""
        self._SetInstanceStatus(instance_name, True)

    def MarkInstanceDown(self, instance_name: str) -> None:
        """Note that an instance is not to run. Raises ConfigurationError if there is none such."""
        self._SetInstanceStatus(instance_name, False)

    def _SetInstanceStatus(self, instance_name: str, status: bool) -> None:
        key = claims.Key(claims.INSTANCE, instance_name)
        with self._engine.Transaction() as pending:
            instance = self._NewVersion(key)
            if instance.admin_up != status:
                instance.admin_up = status
                pending.Put(key, instance)

    # Any object

    def TakeOver(
        self,
        master: str,
        config_serial: int,
        cluster_serial: int,
        feedback_fn: FeedbackFn | None = None,
    ) -> None:
        """Make a node the master, and tell all nodes.

        What an earlier master writes meanwhile, or sends later, has to be the older: nodes go by
        the serial numbers.

        @param config_serial, cluster_serial: other nodes may have such ones, but none above
        @param feedback_fn: gets the texts of what went wrong on the way to other nodes

        Raises: ConfigurationError if there is no such node.
        """
        with self._engine.Transaction(feedback_fn) as pending:
            if master not in self._store.nodes:
                raise errors.ConfigurationError(f"Unknown node '{master}'")
            self._engine.SkipSerials(config_serial, cluster_serial)
            cluster = self._NewCluster()
            cluster.master_node = master
            pending.ask_all = True
            pending.Put(claims.CLUSTER_KEY, cluster)
            self._cluster_since = cluster.serial_no

    def Update(
        self,
        target: objects.Cluster | objects.Node | objects.Instance,
        feedback_fn: FeedbackFn | None = None,
    ) -> None:
        """Store an object that was read here and modified by the caller.

        The caller's object gets the new serial number, so that it can be modified and stored again.
        The cluster's ports are kept as they are here, whatever the object says. To store the
        cluster without any difference is a wish to send everything once more, also to nodes that
        did not answer the last time.

        @param feedback_fn: gets the texts of what went wrong on the way to other nodes

        Raises: ProgrammerError for anything else than a cluster, node or instance;
        ConfigurationError if the object is not known or was changed here since it was read.
        """
        key = _KeyOf(target)
        with self._engine.Transaction(feedback_fn) as pending:
            new = self._Successor(key, target)
            pending.Put(key, new)
            if isinstance(new, objects.Cluster):
                self._KeepPorts(new)
                pending.ask_all = _IsSame(new, self._store.cluster)
                self._cluster_since = new.serial_no
            elif isinstance(new, objects.Node):
                pending.Put(claims.CLUSTER_KEY, self._NewCluster())
            else:
                self._EnsureUuids(new, None)
        if key.kind == claims.INSTANCE:
            self.ReleaseDRBDMinors(key.name)
        _Refresh(target, new)

    def _Successor(
        self, key: claims.Key, target: objects.Cluster | objects.Node | objects.Instance
    ) -> objects.Cluster | objects.Node | objects.Instance:
        """The next version of a stored object, as its caller wants it."""
        stored = self._store.Get(key)
        if stored is None or target.uuid != stored.uuid or target.serial_no is None:
            raise errors.ConfigurationError(
                f"Configuration updated since object has been read or unknown object: {target!r}"
                " is not in the configuration (any more)"
            )
        oldest = stored.serial_no
        if key.kind == claims.CLUSTER:
            # Undone changes may have left it above everything.
            oldest = min(oldest, self._cluster_since)
        if not oldest <= target.serial_no <= stored.serial_no:
            raise errors.ConfigurationError(
                f"Configuration updated since object has been read or unknown object: {target!r}"
                f" was read with serial number {target.serial_no}, it has {stored.serial_no} now;"
                " read it again"
            )
        new = target.Copy()
        new.serial_no = self._engine.NextSerial(key, stored.serial_no)
        new.mtime = self._Now()
        return new

    def _KeepPorts(self, cluster: objects.Cluster) -> None:
        stored = self._store.cluster
        cluster.tcpudp_port_pool = set(stored.tcpudp_port_pool or ())
        cluster.highest_used_port = stored.highest_used_port


def _KeyOf(target: object) -> claims.Key:
    if isinstance(target, objects.Cluster):
        return claims.CLUSTER_KEY
    if isinstance(target, objects.Node):
        return claims.Key(claims.NODE, target.name)
    if isinstance(target, objects.Instance):
        return claims.Key(claims.INSTANCE, target.name)
    raise errors.ProgrammerError(f"Invalid object type ({type(target)}) passed to Update")


def _IsSame(new: objects.Cluster, stored: objects.Cluster) -> bool:
    """Are these versions equal but for what each version has of its own?"""
    own = dict.fromkeys(["serial_no", "mtime"])
    return {**new.ToDict(), **own} == {**stored.ToDict(), **own}


def _Refresh(target: Any, new: Any) -> None:
    """Bring the caller's object up to what was stored of it."""
    target.serial_no = new.serial_no
    target.mtime = new.mtime
    if isinstance(target, objects.Cluster):
        target.tcpudp_port_pool = set(new.tcpudp_port_pool)
        target.highest_used_port = new.highest_used_port
    for mine, stored in zip(_Identified(target), _Identified(new), strict=True):
        mine.uuid = stored.uuid
