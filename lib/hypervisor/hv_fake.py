"""The fake hypervisor: instances are files. For tests and for trying out a cluster.

C{<run>/fake-hypervisor/<instance>} has three lines: 0, memory in MiB, number of vcpus. The format
is that of Ganeti 2.1, on which test suites rely.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import constants, errors, pathutils, runtime
from ..utils import io, text
from . import hv_base, linux

if TYPE_CHECKING:
    from .. import objects

_ROOT_DIR = pathutils.RUN_GANETI_DIR + "/fake-hypervisor"
#: In it; no instance is called so.
_GONE_DIR = ".migrated-away"
#: Environment variable that must be 1 for a powercycle to happen.
ALLOW_POWERCYCLE = "GANETI_FAKE_POWERCYCLE"


class FakeHypervisor(hv_base.BaseHypervisor):
    """Instances that exist in name only."""

    KIND = constants.HT_FAKE
    CAN_MIGRATE = True

    def __init__(self, rt: runtime.Runtime = runtime.DEFAULT, root_dir: str = _ROOT_DIR) -> None:
        super().__init__(rt)
        self._root_dir = root_dir
        try:
            self._rt.files.mkdir(root_dir, 0o755)
        except OSError as err:
            raise errors.HypervisorError(f"Can't make the directory {root_dir}: {err}") from err

    def _Path(self, name: str) -> str:
        return os.path.join(self._root_dir, hv_base.CheckName(name))

    def _IsRunning(self, name: str) -> bool:
        return self._rt.files.exists(self._Path(name))

    def _MarkUp(self, instance: objects.Instance) -> None:
        memory, vcpus = (
            instance.beparams[name] for name in (constants.BE_MEMORY, constants.BE_VCPUS)
        )
        self._rt.files.write(
            self._Path(instance.name), f"0\n{memory}\n{vcpus}\n".encode(), mode=0o644, durable=False
        )
        self._rt.files.remove(self._GonePath(instance.name))

    def _MarkDown(self, name: str) -> None:
        self._rt.files.remove(self._Path(name))

    def ListInstances(self) -> list[str]:
        try:
            names = self._rt.files.listdir(self._root_dir)
        except OSError as err:
            raise errors.HypervisorError(f"Can't list instances: {err}") from err
        # A node daemon that was killed may have left some.
        return [name for name in names if hv_base.IsName(name) and not io.UnfinishedBy(name)]

    def GetInstanceInfo(self, instance_name: str) -> hv_base.InstanceInfo | None:
        if not self._IsRunning(instance_name):
            return None
        try:
            content = self._rt.files.read(self._Path(instance_name))
        except FileNotFoundError:
            return None
        except OSError as err:
            raise errors.HypervisorError(
                f"Can't read the state of instance {instance_name}: {err}"
            ) from err
        lines = [line.strip() for line in content.decode("ascii", "replace").splitlines()]
        lines += [""] * (3 - len(lines))
        return (
            instance_name,
            lines[0],
            text.TryConvert(int, lines[1]),
            text.TryConvert(int, lines[2]),
            hv_base.STATE_BLOCKED,
            "0",
        )

    def GetAllInstancesInfo(self) -> list[hv_base.InstanceInfo]:
        infos = (self.GetInstanceInfo(name) for name in self.ListInstances())
        return [info for info in infos if info is not None]

    def StartInstance(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> None:
        if self._IsRunning(instance.name):
            raise errors.HypervisorError(
                f"Failed to start instance {instance.name}: it is already running"
            )
        try:
            self._MarkUp(instance)
        except OSError as err:
            raise errors.HypervisorError(
                f"Failed to start instance {instance.name}: {err}"
            ) from err

    def StopInstance(
        self,
        instance: objects.Instance | None,
        force: bool = False,
        retry: bool = False,
        name: str | None = None,
    ) -> None:
        name = hv_base.NameToStop(instance, name)
        if not self._IsRunning(name):
            raise errors.HypervisorError(f"Failed to stop instance {name}: it is not running")
        self._MarkDown(name)

    def CleanupInstance(self, instance_name: str) -> None:
        """Stopping has left nothing behind."""

    def RebootInstance(self, instance: objects.Instance) -> None:
        if not self._IsRunning(instance.name):
            raise errors.HypervisorError(
                f"Failed to reboot instance {instance.name}: it is not running"
            )

    def GetNodeInfo(self) -> linux.NodeInfo:
        info = super().GetNodeInfo()
        used = sum(item[2] for item in self.GetAllInstancesInfo() if isinstance(item[2], int))
        info["memory_free"] = max(info["memory_free"] - used, 0)
        return info

    def Verify(self) -> str | None:
        if not self._rt.files.exists(self._root_dir):
            return f"the directory {self._root_dir} of the fake hypervisor does not exist"
        return None

    @classmethod
    def PowercycleNode(cls) -> None:
        if os.environ.get(ALLOW_POWERCYCLE) != "1":
            logging.warning(
                "Powercycle: not done with the fake hypervisor unless %s=1 is set for the node"
                " daemon",
                ALLOW_POWERCYCLE,
            )
            return
        super().PowercycleNode()

    def MigrationInfo(self, instance: objects.Instance) -> str:
        return ""

    def AcceptInstance(self, instance: objects.Instance, info: str, target: str) -> str | None:
        if self._IsRunning(instance.name):
            raise errors.HypervisorError(
                f"Can't accept instance {instance.name}: it is already running here"
            )
        return None

    def MigrateInstance(self, instance: objects.Instance, target: str, live: bool) -> None:
        if not self._IsRunning(instance.name):
            raise errors.HypervisorError(
                f"Can't migrate instance {instance.name}: it is not running"
            )
        logging.debug("Migrating %s to %s (live=%s)", instance.name, target, live)
        # At once. What is left shows that it was here, until somebody says how it went.
        try:
            self._rt.files.rename(self._Path(instance.name), self._GonePath(instance.name), True)
        except OSError as err:
            raise errors.HypervisorError(f"Can't migrate instance {instance.name}: {err}") from err

    def _GonePath(self, name: str) -> str:
        """File of an instance that has migrated away, until the migration is finalized."""
        return os.path.join(self._root_dir, _GONE_DIR, hv_base.CheckName(name))

    def GetMigrationStatus(self, instance: objects.Instance) -> hv_base.MigrationStatus:
        if self._rt.files.exists(self._GonePath(instance.name)):
            size = instance.beparams[constants.BE_MEMORY] * 2**20
            return hv_base.MigrationStatus(constants.MIGRATION_COMPLETED, size, size, 0)
        return hv_base.MigrationStatus(
            constants.MIGRATION_FAILED,
            message="no migration was started"
            if self._IsRunning(instance.name)
            else "the instance is not running",
        )

    def AbortMigration(self, instance: objects.Instance) -> None:
        """Migrations are over as soon as they begin."""
        hv_base.CheckName(instance.name)

    def FinalizeMigrationSource(
        self, instance: objects.Instance, success: bool, live: bool
    ) -> None:
        gone = self._GonePath(instance.name)
        if success:
            self._MarkDown(instance.name)
            self._rt.files.remove(gone)
        elif self._rt.files.exists(gone):
            self._rt.files.rename(gone, self._Path(instance.name))

    def FinalizeMigration(self, instance: objects.Instance, info: str, success: bool) -> None:
        if success:
            self._MarkUp(instance)
        else:
            self._MarkDown(instance.name)
