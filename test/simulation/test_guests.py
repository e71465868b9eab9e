"""Instances through the lives of masters and the deaths of nodes, thousands of times.

They are created, started, failed over, migrated, moved and removed by several jobs at once, while
nodes lose power or are cut off, calls get lost before or after their work, jobs are cancelled and
masters killed. A failure names its seed; C{GUEST_SEEDS=1234:1235 test/run simulation -k guests}
tells that story again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from unittest import mock

import pytest
from simlives import GuestWorld

from ganeti import constants, opcodes
from ganeti.cmdlib import (
    disk_ops,
    instance_checks,
    instance_migration,
    instance_target,
    migration_cleanup,
    migration_disks,
    migration_rules,
)
from ganeti.config import writer

FIRST, _, _END = os.environ.get("GUEST_SEEDS", "0:100").partition(":")
CHUNK = 20
CHUNKS = [
    (start, min(start + CHUNK, int(_END or int(FIRST) + 1)))
    for start in range(int(FIRST), int(_END or int(FIRST) + 1), CHUNK)
]


@contextlib.contextmanager
def _Quiet():
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.timeout(180)
class TestGuests:
    """An instance runs once, where the configuration says, or somebody is told what to do."""

    @pytest.mark.parametrize(("first", "end"), CHUNKS)
    def test_worlds(self, first, end):
        with _Quiet():
            for seed in range(first, end):
                GuestWorld(seed).Run()

    def test_everything_happens(self):
        """The worlds are worth their time."""
        found, deaths, failures = set(), 0, 0
        with _Quiet():
            for seed in range(25):
                world = GuestWorld(seed)
                world.Run()
                deaths += world.deaths
                failures += sum(map(len, world.nodes.books.failures.values()))
                for job in world.life._AllJobs():
                    found |= {(type(op.input), op.status) for op in job.ops}
        assert deaths > 5
        assert failures > 10
        assert found >= {
            (op, status)
            for op in (
                opcodes.OpInstanceCreate,
                opcodes.OpInstanceFailover,
                opcodes.OpInstanceMigrate,
                opcodes.OpInstanceMove,
            )
            for status in (constants.OP_STATUS_SUCCESS, constants.OP_STATUS_ERROR)
        }
        assert (opcodes.OpInstanceMigrate, constants.OP_STATUS_CANCELED) in found

    def test_replay(self):
        """The same seed is the same story."""
        stories = []
        with _Quiet():
            for _ in range(2):
                world = GuestWorld(11)
                world.Run()
                stories.append(
                    (world.life.sim.now, [job.Serialize() for job in world.life._AllJobs()])
                )
        assert stories[0] == stories[1]


# Planted bugs


def _Plant(target, name, new):
    @contextlib.contextmanager
    def Planted():
        with mock.patch.object(target, name, new):
            yield

    return Planted


def _NotHere(_lu, _instance):
    """Nobody looks whether a migration was left unfinished."""


def _GoneAnyway(_lu, _instance, _timeout, _ignore):
    """A source that can not be asked is taken as dead."""
    _lu.rpc.call_instance_shutdown(_instance.primary_node, _instance, _timeout)
    return False


_real_go_on = instance_migration._Migration._GoOnAtSource


@contextlib.contextmanager
def _GoesOnAtSource():
    """A guest that was sent away is let go on at the source all the same."""
    place = migration_rules.Place.SOURCE
    with (
        mock.patch.object(migration_rules, "Locate", lambda *_: place),
        mock.patch.object(
            instance_migration._Migration,
            "_GoOnAtSource",
            lambda self, _ended: _real_go_on(self, True),
        ),
    ):
        yield


def _EndsNothing(_self):
    """A migration that is given up is not cancelled, and what waits is not ended."""
    return migration_rules.Place.SOURCE


def _NoPrimary(_lu, instance, node, _feedback_fn):
    """Where it is now is not written down."""
    instance.primary_node = node


def _ClosesNothing(_self, nodes, wait=False):
    """The side that was left stays open."""
    return []


def _NoWords(_self):
    """Nobody is told what to do."""
    return "somebody should look at it"


def _KeepsLeftovers(_self, others, here):
    """What a migration left on the nodes stays."""
    return []


def _StopsAnyOfThem(self):
    """That it runs nowhere is taken for granted by who tidies up."""
    return [self._instance.primary_node]


_real_remove = disk_ops.RemoveDisks


def _RemovesOnPrimary(lu, instance, target_node=None, skip=()):
    """The mirrors on the other node are forgotten."""
    return _real_remove(lu, instance, target_node or instance.primary_node, skip)


def _KeepsPorts(_self, _port):
    """Ports of what could not be created are gone."""


def _KeepsMinors(_self, _instance):
    """Minors of what could not be created stay reserved."""


class _Few(GuestWorld):
    """One instance, no failures, little of what else is done to it."""

    TEMPLATES: tuple[str, ...] = (constants.DT_DRBD8, constants.DT_SHARED_FILE)
    DEATHS = 0
    WORK: tuple[str, ...] = ()

    def __init__(self, seed):
        super().__init__(seed)
        self.deaths, self.jobs = self.DEATHS, 10
        self.maker.Choose(self.TEMPLATES, self.WORK)
        self.nodes.events = []
        self.nodes.flaky = 0.0


class Orphans(_Few):
    """Masters die in migrations, and the next ones are asked for other things."""

    DEATHS = 1
    WORK = ("Migrate", "Migrate", "Startup", "Shutdown", "Remove", "Failover")

    def __init__(self, seed):
        super().__init__(seed)
        self.nodes.durations = (3.0, 9.0)


class Second(_Few):
    """Migrations are cancelled when they are almost over."""

    WORK = ("Migrate",)

    def __init__(self, seed):
        super().__init__(seed)
        self.nodes.durations = (0.5, 4.0)
        self.nodes.latencies = [0.5, 1.5]
        self.cancels = 0.5


class Shaky(_Few):
    """Calls of failovers go wrong, before or after they did their work."""

    WORK = ("Failover",)

    def __init__(self, seed):
        super().__init__(seed)
        self.nodes.flaky = 0.1


#: What is planted, and within how many worlds it is to be found.
PLANTS = {
    "unfinished": (_Plant(instance_checks, "CheckAtHome", _NotHere), 60, Orphans),
    "gone anyway": (_Plant(instance_target, "StopOnSource", _GoneAnyway), 60, Shaky),
    "goes on": (_GoesOnAtSource, 60, Second),
    "ends nothing": (_Plant(instance_migration._Migration, "_Settle", _EndsNothing), 60, Second),
    "no primary": (_Plant(instance_target, "SetPrimary", _NoPrimary), 20),
    "closes nothing": (_Plant(migration_disks.MigrationDisks, "CloseOn", _ClosesNothing), 20),
    "no words": (_Plant(instance_migration._Migration, "_advice", property(_NoWords)), 200),
    "leftovers": (_Plant(migration_cleanup.Cleanup, "_RemoveLeftovers", _KeepsLeftovers), 100),
    "runs at home": (_Plant(migration_cleanup.Cleanup, "_FindRunning", _StopsAnyOfThem), 100),
    "half removed": (_Plant(disk_ops, "RemoveDisks", _RemovesOnPrimary), 20),
    "ports": (_Plant(writer.ConfigWriter, "AddTcpUdpPort", _KeepsPorts), 100),
    "minors": (_Plant(writer.ConfigWriter, "ReleaseDRBDMinors", _KeepsMinors), 100),
}


def FindSeed(plant, limit, world=GuestWorld):
    """The first world that the planted bug breaks, and how; None if it survives all of them."""
    with _Quiet(), plant():
        for seed in range(limit):
            try:
                world(seed).Run()
            except Exception as err:  # noqa: BLE001 - in whatever way it shows
                assert f"{world.__name__}({seed})" in err.__notes__
                return seed, err
    return None


@pytest.mark.timeout(180)
class TestPlanted:
    """A bug in any of these does not stay unseen."""

    @pytest.mark.parametrize("name", PLANTS)
    def test_is_found(self, name):
        assert FindSeed(*PLANTS[name]) is not None

    @pytest.mark.parametrize("world", [Orphans, Second, Shaky])
    def test_nothing_planted(self, world):
        """It is the plant that breaks them."""
        assert FindSeed(contextlib.nullcontext, 5, world) is None
