"""Nodes on which guests live: with power that goes, cables that are pulled, mirrors that fall
behind, and migrations that go on whether anybody watches them or not.

What the nodes do is L{cmdlib.fake.FakeNodes}'s. Here is what that one has no notion of: time,
power, and what a kernel refuses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from simdisk import Crash
from simmaster import Violation
from simnodes import DEAD, HANGS, KINDS, SimNodes

from ganeti import constants, locking
from ganeti.cmdlib.fakedisks import SHARED_DIR, DeviceKey, OwnKey

#: What may happen to a node, and what ends it.
POWER_OFF, POWER_ON = "power off", "power on"
CUT, MENDED = "cut", "mended"

#: Seconds that a mirror needs to be in sync again.
_SYNC_TIME = 3.0


@dataclass(frozen=True)
class Event:
    """Something that happens to a node at a time, in seconds."""

    time: float
    what: str
    node: str


def DrawEvents(rng, names, span):
    """Failures of nodes, each with its end.

    @param span: seconds in which they begin
    """
    events = []
    for name in names:
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            start = rng.uniform(0.0, span)
            end = start + rng.uniform(1.0, 40.0)
            first, last = rng.choice([(POWER_OFF, POWER_ON), (POWER_OFF, POWER_ON), (CUT, MENDED)])
            events += [Event(start, first, name), Event(end, last, name)]
    return sorted(events, key=lambda event: event.time)


@dataclass
class Mirror:
    """One DRBD device of two sides.

    @ivar sides: (node, key) of both
    @ivar owner: its instance
    @ivar logical_id: nodes, port and minors, as the configuration has them
    @ivar since: when the sides began to catch up, None: they do not
    """

    sides: tuple[tuple[str, str], tuple[str, str]]
    owner: str
    logical_id: tuple
    since: float | None = None


@dataclass
class Books:
    """What those who watch the nodes note.

    @ivar failures: node -> times at which it lost its power or its cable
    @ivar met: (job, node) of every call that went wrong
    @ivar stale_starts: instances that were started on old data, with the node
    """

    failures: dict[str, list[float]] = field(default_factory=dict)
    met: set[tuple[str, str]] = field(default_factory=set)
    stale_starts: list[tuple[str, str]] = field(default_factory=list)


class GuestNodes(SimNodes):
    """All nodes of a cluster; see the module.

    @ivar dark: nodes without power
    @ivar cut: nodes that nobody reaches, though they go on
    @ivar held: nodes that an administrator keeps switched off
    @ivar mirrors: all there ever were, by both of their sides
    @ivar owners: (node, key of a device) -> instance it was created for
    @ivar now: time of what happened last
    """

    def __init__(self, names, seed):
        super().__init__(names, seed)
        self.latencies = self._rng.choice([[0.002, 0.05], [0.01, 0.3], [0.05, 1.5]])
        #: How often a call goes wrong for no reason.
        self.flaky = self._rng.choice([0.0, 0.0, 0.02, 0.08])
        self.kinds = KINDS
        self.events = []
        self.dark, self.cut, self.held = set(), set(), set()
        self.mirrors = {}
        self.owners = {}
        self.books = Books()
        self.now = 0.0
        #: Seconds that a migration takes.
        self.durations = self._rng.choice([(0.0, 0.1), (0.5, 8.0), (5.0, 40.0)])
        #: Calls until the master dies, None: it does not; before the node does its work, or after.
        self.deadline = None
        self.dies_after = False
        self.die = lambda: None
        self.watch = lambda: None
        self._endpoints = {}
        self._checks = {}

    # What happens by itself

    def Heal(self):
        """Power, cables and calls are well from now on."""
        super().Heal()
        self.Advance()
        self.events = []
        self.flaky = 0.0
        self.dark.clear()
        self.cut.clear()
        self.held.clear()
        self.Advance()

    def Advance(self):
        """Let everything happen that is due, in its order."""
        now = self._rt.clock.monotonic()
        while (due := min(self._Times(), default=math.inf)) <= now:
            self.now = max(self.now, due)
            while self.events and self.events[0].time <= self.now:
                self._Happen(self.events.pop(0))
            self._Tidy()
        self.now = max(self.now, now)
        self._Tidy()

    def _Times(self):
        """When something will happen."""
        yield from (event.time for event in self.events[:1])
        yield from (self._End(leaving) for _, _, leaving in self._Leaving())
        for mirror in self.mirrors.values():
            if mirror.since is not None:
                yield mirror.since + _SYNC_TIME

    def _End(self, leaving):
        """When all of a guest is sent."""
        if not hasattr(leaving, "until"):
            leaving.until = self.now + self._rng.uniform(*self.durations)
        return leaving.until

    def _Leaving(self):
        return [
            (node, name, leaving)
            for node, item in self.nodes.items()
            for name, leaving in item.outgoing.items()
            if leaving.status == constants.MIGRATION_ACTIVE
        ]

    def _Happen(self, event):
        if event.what in (POWER_OFF, CUT):
            self.books.failures.setdefault(event.node, []).append(self.now)
        if event.what == POWER_OFF:
            self.PowerOff(event.node)
        elif event.what == POWER_ON:
            if event.node not in self.held:
                self.dark.discard(event.node)
        elif event.what == CUT:
            self.cut.add(event.node)
        else:
            self.cut.discard(event.node)

    def PowerOff(self, node):
        """What was on the disks stays, all else is gone."""
        item = self.nodes[node]
        self.dark.add(node)
        self.books.failures.setdefault(node, []).append(self.now)
        for volatile in (item.running, item.active, item.paused, item.incoming, item.outgoing):
            volatile.clear()
        for device in item.drbd.values():
            device.network, device.primary = None, False

    def Hold(self, node):
        """Somebody pulls the plug and keeps it."""
        self.Advance()
        self.PowerOff(node)
        self.cut.discard(node)
        self.held.add(node)

    def Release(self, node):
        """The node may be switched on again."""
        self.held.discard(node)
        self.dark.discard(node)

    def _Tidy(self):
        """Whatever follows from what just happened."""
        for item in self.nodes.values():
            item.paused &= item.running.keys()
        for node, name, leaving in self._Leaving():
            if self._End(leaving) <= self.now or name not in self.nodes[node].running:
                self._Look(self.nodes[node], name)
        for key, mirror in self.mirrors.items():
            if key == mirror.sides[0]:
                self._FollowMirror(mirror)

    def _FollowMirror(self, mirror):
        devices = self._Devices(mirror)
        if devices is None:
            mirror.since = None
            return
        connected = self.Connected(mirror)
        for (node, _), mine, other in zip(mirror.sides, devices, devices[::-1], strict=True):
            if not connected and mine.primary and mirror.owner in self.nodes[node].running:
                other.degraded = True
        syncing = connected and any(device.degraded for device in devices)
        if not syncing:
            mirror.since = None
        elif mirror.since is None:
            mirror.since = self.now
        elif self.now >= mirror.since + _SYNC_TIME:
            mirror.since = None
            syncing = False
            for device in devices:
                device.degraded = False
        for device in devices:
            device.sync_percent = 50.0 if syncing else None

    def _Devices(self, mirror):
        devices = [self.nodes[node].drbd.get(key) for node, key in mirror.sides]
        return None if None in devices else devices

    def Connected(self, mirror):
        """Do the two sides see each other, and agree?"""
        devices = self._Devices(mirror)
        if devices is None or not all(
            key in self.nodes[node].active and node not in self.dark | self.cut
            for node, key in mirror.sides
        ):
            return False
        first, second = devices
        if None in (first.network, second.network) or first.network != second.network:
            return False
        if first.degraded and second.degraded:
            # Each has what the other lacks.
            return False
        return first.network == "dual" or not (first.primary and second.primary)

    # How calls go

    def _Kind(self, name):
        if name in self.dark:
            return HANGS if self._rng.random() < 0.3 else DEAD
        if name in self.cut:
            return HANGS
        kind = super()._Kind(name)
        if kind is None and self._rng.random() < self.flaky:
            return self._rng.choice(self.kinds)
        return kind

    def _Answer(self, call, name, payload=None):
        self.Advance()
        result = super()._Answer(call, name, payload)
        self.Advance()
        if result.fail_msg:
            self._Meet(name)
        elif self.dark & {name} or self.cut & {name}:
            # Just now.
            return self._Answer(call, name, payload)
        return result

    def _Lose(self, call, results):
        before = {name: result.fail_msg for name, result in results.items()}
        after = super()._Lose(call, results)
        for name, result in after.items():
            if result.fail_msg and not before[name]:
                self._Meet(name)
        return after

    def _Meet(self, name):
        label = locking.GetOwnerLabel(self._rt)
        self.books.met.add((label.partition("/")[0].removeprefix("Job "), name))

    def _OneStatic(self, call, name, fn):
        def Do(item):
            self._process.CheckAlive()
            self._CountDown(before=True)
            check = self._checks.get(self._rt.threads.get_ident())
            if check is not None:
                check(name, item)
            payload = fn(item)
            self.Advance()
            self.watch()
            self._CountDown(before=False)
            return payload

        return super()._OneStatic(call, name, Do)

    def _One(self, call, name, fn):
        result = super()._One(call, name, fn)
        if result.offline:
            self._Meet(name)
        return result

    def _CountDown(self, before):
        if self.deadline is None or before == self.dies_after:
            return
        self.deadline -= 1
        if self.deadline <= 0:
            self.deadline = None
            self.die()
            raise Crash

    def _Checked(self, check, call, *args):
        """A call that is refused if C{check} raises LookupError."""
        me = self._rt.threads.get_ident()
        self._checks[me] = check
        try:
            return call(*args)
        finally:
            self._checks.pop(me, None)

    # What a node refuses

    def _Know(self, disk, owner):
        if disk.dev_type != constants.LD_DRBD8:
            return
        first, second = disk.logical_id[:2]
        sides = ((first, OwnKey(disk, first)), (second, OwnKey(disk, second)))
        known = self.mirrors.get(sides[0])
        if known is None or (known.owner, known.logical_id) != (owner, disk.logical_id[:5]):
            for side in sides:
                gone = self.mirrors.get(side)
                for old in () if gone is None else gone.sides:
                    self.mirrors.pop(old, None)
            self.mirrors[sides[0]] = self.mirrors[sides[1]] = Mirror(
                sides, owner, disk.logical_id[:5]
            )

    def _InUse(self, node, disk):
        """Does a guest have this device open?"""
        owner = self.owners.get((node, DeviceKey(disk)))
        items = (
            self.nodes.values() if DeviceKey(disk).startswith(SHARED_DIR) else [self.nodes[node]]
        )
        return any(owner in item.running or owner in item.incoming for item in items)

    def call_blockdev_create(self, node, disk, size, owner, on_primary, info):
        def Check(name, item):
            self._Know(disk, owner)
            self.owners[name, DeviceKey(disk)] = owner

        result = self._Checked(
            Check, super().call_blockdev_create, node, disk, size, owner, on_primary, info
        )
        device = self.nodes[node].drbd.get(DeviceKey(disk))
        if disk.dev_type == constants.LD_DRBD8 and device is not None and not on_primary:
            # Nothing is there yet that could be in sync.
            device.degraded = True
        return result

    def call_blockdev_assemble(self, node, disk, owner, as_primary):
        def Check(name, item):
            self._Know(disk, owner)
            mirror = self.mirrors.get((name, DeviceKey(disk)))
            if mirror is None or not as_primary:
                return
            mine, other = self._Devices(mirror) or (None, None)
            if mirror.sides[0][0] != name:
                mine, other = other, mine
            if mine is None:
                return
            if (
                self.Connected(mirror)
                and other.primary
                and not mine.primary
                and mine.network != "dual"
            ):
                raise LookupError(f"{DeviceKey(disk)}: the other side is primary")

        return self._Checked(Check, super().call_blockdev_assemble, node, disk, owner, as_primary)

    def call_blockdev_shutdown(self, node, disk):
        return self._Checked(
            lambda name, _: self._RequireUnused(name, [disk]), super().call_blockdev_shutdown,
            node, disk,
        )  # fmt: skip

    def call_blockdev_close(self, node, instance_name, disks):
        return self._Checked(
            lambda name, _: self._RequireUnused(name, disks), super().call_blockdev_close,
            node, instance_name, disks,
        )  # fmt: skip

    def _RequireUnused(self, node, disks):
        for disk in disks:
            if disk.dev_type == constants.LD_DRBD8 and self._InUse(node, disk):
                raise LookupError(f"{DeviceKey(disk)} is held open")

    def call_blockdev_remove(self, node, disk):
        def Check(name, item):
            if self._InUse(name, disk):
                if disk.dev_type == constants.LD_FILE:
                    raise Violation(f"{DeviceKey(disk)} was removed below a guest on {name}")
                raise LookupError(f"{DeviceKey(disk)} is held open")

        return self._Checked(Check, super().call_blockdev_remove, node, disk)

    def call_instance_start(self, node, instance, hvp=None, bep=None):
        def Check(name, item):
            if instance.name in item.running:
                return
            for disk in instance.disks:
                key = DeviceKey(disk)
                device = item.drbd.get(key)
                if disk.dev_type != constants.LD_DRBD8:
                    if key not in self._Store(item, key).disks:
                        raise LookupError(f"There is no {key}")
                    continue
                if device is None or key not in item.active or not device.primary:
                    raise LookupError(f"{key} can not be opened")
                if device.degraded and not self.Connected(self.mirrors[name, key]):
                    self.books.stale_starts.append((instance.name, name))

        return self._Checked(Check, super().call_instance_start, node, instance, hvp, bep)

    def call_drbd_wait_sync(self, node_list, nodes_ip, disks):
        def Check(name, item):
            for disk in disks:
                mirror = self.mirrors.get((name, OwnKey(disk, name)))
                if mirror is None or not self.Connected(mirror):
                    raise LookupError(f"{OwnKey(disk, name)} is not connected")

        return self._Checked(Check, super().call_drbd_wait_sync, node_list, nodes_ip, disks)

    def _IsAlone(self, item, key):
        (name,) = (name for name, other in self.nodes.items() if other is item)
        mirror = self.mirrors.get((name, key))
        return mirror is None or not self.Connected(mirror)

    # Migrations take their time

    def call_accept_instance(self, node, instance, info, target):
        result = super().call_accept_instance(node, instance, info, target)
        self._endpoints[f"[{target}]:8102"] = node
        return result

    def call_instance_migrate(self, node, instance, target, live):
        def Check(name, item):
            if instance.name in item.outgoing:
                status = item.outgoing[instance.name].status
                if status == constants.MIGRATION_ACTIVE:
                    raise LookupError("It is migrating already")

        return self._Checked(Check, super().call_instance_migrate, node, instance, target, live)

    def _NextWord(self, leaving):
        if self._End(leaving) > self.now:
            return constants.MIGRATION_ACTIVE
        return constants.MIGRATION_COMPLETED

    def _FindWaiting(self, name, leaving):
        node = self._endpoints.get(leaving.target)
        source = next(
            other for other, item in self.nodes.items() if item.outgoing.get(name) is leaving
        )
        if node is None or name not in self.nodes[node].incoming:
            return []
        if {node, source} & (self.dark | self.cut):
            return []
        return [self.nodes[node]]
