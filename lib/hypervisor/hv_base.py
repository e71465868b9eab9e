"""What every hypervisor can do, as the node daemon (and, for class methods, the master) sees it."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from .. import errors, ht, hvconsole, hvparams, pathutils, runtime
from . import linux

if TYPE_CHECKING:
    from .. import objects

#: (name, id, memory in MiB, vcpus, state, seconds of CPU time). The state is written as Xen does:
#: five characters, at the positions of C{rbpsc} (running, blocked, paused, shutdown, crashed).
InstanceInfo = tuple[str, int | str, int | str, int | str, str, float | str]

#: A disk and the path of its device or file on this node.
BlockDevice = tuple["objects.Disk", str]

#: State of an instance of which nothing is known but that it runs.
STATE_BLOCKED = "---b-"


def IsName(name: str) -> bool:
    """Could that be the name of an instance?"""
    return ht.TInstanceName(name)


def CheckName(instance_name: str) -> str:
    """The name of an instance, which files of the node are called after.

    @raise errors.HypervisorError: it could lead to another directory, or to no file at all
    """
    problem = ht.TInstanceName.Problem(instance_name)
    if problem is not None:
        raise errors.HypervisorError(problem)
    return instance_name


@dataclass(frozen=True)
class MigrationStatus:
    """How far a migration is.

    @ivar status: one of C{constants.MIGRATION_STATUSES}
    @ivar transferred_ram: bytes sent so far
    @ivar total_ram: bytes of memory that the guest has
    @ivar downtime: how long the guest stood still (completed) or is expected to, in milliseconds
    @ivar message: for people; why it failed, what is going on
    """

    status: str
    transferred_ram: int | None = None
    total_ram: int | None = None
    downtime: float | None = None
    message: str = ""

    def ToDict(self) -> dict[str, Any]:
        """As it goes over the wire."""
        return dataclasses.asdict(self)


def NameToStop(instance: objects.Instance | None, name: str | None) -> str:
    """The name of the instance that C{StopInstance} was given one way or the other; pure."""
    if name is not None:
        return name
    if instance is None:
        raise errors.ProgrammerError("StopInstance needs an instance or a name")
    return instance.name


class BaseHypervisor:
    """Interface of all hypervisors.

    Making an instance may make directories on the node; the class methods have no side effects and
    serve the master as well. Methods that a kind does not have raise L{errors.HypervisorError}.
    """

    #: Name of this kind, e.g. C{xen-pvm}.
    KIND: ClassVar[str]
    #: Whether instances can be moved while they run.
    CAN_MIGRATE: ClassVar[bool] = False

    def __init__(self, rt: runtime.Runtime = runtime.DEFAULT) -> None:
        self._rt = rt

    @classmethod
    def _NotPossible(cls, operation: str) -> NoReturn:
        raise errors.HypervisorError(f"Hypervisor {cls.KIND}: {operation} is not possible")

    # Life of an instance

    def StartInstance(
        self, instance: objects.Instance, block_devices: Sequence[BlockDevice]
    ) -> None:
        """Start an instance with filled parameters; its disks are there."""
        self._NotPossible("starting an instance")

    def StopInstance(
        self,
        instance: objects.Instance | None,
        force: bool = False,
        retry: bool = False,
        name: str | None = None,
    ) -> None:
        """Try once to stop an instance; fine if it does not run (any more).

        @param force: end it at once instead of asking it to shut down
        @param retry: this is not the first attempt
        @param name: stop the instance of this name, of which nothing else is known
        """
        self._NotPossible("stopping an instance")

    def CleanupInstance(self, instance_name: str) -> None:
        """Remove what is left on the node of an instance that has ended."""
        self._NotPossible("cleaning up after an instance")

    def RebootInstance(self, instance: objects.Instance) -> None:
        """Restart a running instance with the parameters that it was started with."""
        self._NotPossible("rebooting an instance")

    # What runs here

    def ListInstances(self) -> list[str]:
        """Names of the running instances."""
        self._NotPossible("listing instances")

    def GetInstanceInfo(self, instance_name: str) -> InstanceInfo | None:
        """Facts about a running instance; None if it does not run."""
        self._NotPossible("asking about an instance")

    def GetAllInstancesInfo(self) -> list[InstanceInfo]:
        """Facts about all running instances."""
        self._NotPossible("asking about instances")

    def GetNodeInfo(self) -> linux.NodeInfo:
        """Memory (MiB) and processors of the node; keys as in L{linux.GetNodeInfo}."""
        return linux.GetNodeInfo()

    def Verify(self) -> str | None:
        """None if the hypervisor can be used, else what is wrong."""
        self._NotPossible("checking the hypervisor")

    # Migration, in this order:
    #   source  MigrationInfo
    #   target  AcceptInstance
    #   source  MigrateInstance, then GetMigrationStatus until it is over (or AbortMigration)
    #   target  FinalizeMigration
    #   source  FinalizeMigrationSource
    # The last two may be called at any time and again. After a failure, too, the target comes
    # first: the source may go on only once it is certain that the guest does not run there.

    def MigrationInfo(self, instance: objects.Instance) -> str:
        """Text that the target node needs to accept the instance."""
        self._NotPossible("preparing a migration")

    def AcceptInstance(self, instance: objects.Instance, info: str, target: str) -> str | None:
        """Prepare this node to receive an instance, which does not count as running meanwhile.

        @param info: what L{MigrationInfo} returned on the source
        @param target: address of this node on which to wait
        @return: what L{MigrateInstance} must get as its target; None: the address alone will do
        """
        self._NotPossible("accepting a migrating instance")

    def FinalizeMigration(self, instance: objects.Instance, info: str, success: bool) -> None:
        """The migration to this node is over: keep the instance, or clean up after a failure.

        @param success: True: wait until the instance runs here; False: end what waits for it
        @raise errors.HypervisorError: it does not run; or, after a failure, it is not certain that
          it does not run (it has arrived all the same): then it must not go on at the source
        """
        self._NotPossible("ending a migration")

    def MigrateInstance(self, instance: objects.Instance, target: str, live: bool) -> None:
        """Start to move a running instance to another node.

        @param target: what L{AcceptInstance} returned there, or only the node's address
        @param live: let the guest run meanwhile; else it is stopped first
        """
        self._NotPossible("migrating an instance")

    def GetMigrationStatus(self, instance: objects.Instance) -> MigrationStatus:
        """How far the migration away from here is.

        Does not raise because of what may have befallen the instance; that is C{failed}.
        """
        self._NotPossible("asking about a migration")

    def AbortMigration(self, instance: objects.Instance) -> None:
        """Cancel the migration away from here; the guest goes on running here.

        One that is completed stays so: ask L{GetMigrationStatus} afterwards.
        """
        self._NotPossible("cancelling a migration")

    def FinalizeMigrationSource(
        self, instance: objects.Instance, success: bool, live: bool
    ) -> None:
        """The migration away from here is over.

        @param success: True: it runs on the target, remove it here; False: it must go on here (and
          does no longer exist on the target)
        @param live: as for L{MigrateInstance}
        """
        self._NotPossible("ending a migration")

    # Class methods: no access to a node needed, but for ValidateParameters and PowercycleNode

    @classmethod
    def GetShellCommandForConsole(
        cls, instance: objects.Instance, hvparams_: Mapping[str, Any], beparams: Mapping[str, Any]
    ) -> str:
        """Shell command to run on the primary node, with a terminal, as the console."""
        return hvconsole.GetShellCommand(cls.KIND, instance, hvparams_)

    @classmethod
    def GetAncillaryFiles(cls) -> list[str]:
        """Files that must be equal on all nodes."""
        return list(hvparams.ANCILLARY_FILES[cls.KIND])

    @classmethod
    def CheckParameterSyntax(cls, hvparams_: Mapping[str, Any]) -> None:
        """Check filled parameters without looking at a node.

        @raise errors.HypervisorError: names the parameter and the value
        """
        hvparams.CheckParameterSyntax(cls.KIND, hvparams_)

    @classmethod
    def ValidateParameters(cls, hvparams_: Mapping[str, Any]) -> None:
        """Check on this node what filled parameters refer to (files, directories, users).

        @raise errors.HypervisorError: names the parameter and the value
        """
        hvparams.ValidateParameters(cls.KIND, hvparams_)

    @classmethod
    def PowercycleNode(cls) -> None:
        """Restart this node at once, without shutdown."""
        if pathutils.IsVirtual():
            # The machine belongs to somebody who only tries out a cluster.
            logging.warning(
                "Powercycle: this is a virtual node (%s), the machine is left alone",
                pathutils.ROOTDIR,
            )
            return
        linux.Powercycle()


def MakeDirectories(paths: Sequence[str], mode: int = 0o755) -> None:
    """Make directories that a hypervisor keeps its state in.

    @raise errors.HypervisorError: one can not be made
    """
    for path in paths:
        try:
            os.makedirs(path, mode, exist_ok=True)
        except OSError as err:
            raise errors.HypervisorError(f"Can't make the directory {path}: {err}") from err
