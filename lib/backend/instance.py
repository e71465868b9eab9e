"""Instances on this node: starting, stopping, listing, moving."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from .. import constants, errors, hypervisor, objects, runtime
from ..utils import retry
from . import blockdev, disklinks
from .base import Fail

_T = TypeVar("_T")

#: While an instance shuts down: seconds between looks (first, factor, longest), and between
#: repetitions of the request.
_LOOK_DELAYS: Final = (0.05, 1.5, 1.0)
_ASK_AGAIN_AFTER: Final = 5.0
#: Seconds that a killed instance may take to be gone.
_KILL_GRACE: Final = 1.0

BlockDevices = list[tuple[objects.Disk, str]]


# Looking


def GetInstanceList(hypervisor_list: Iterable[str]) -> list[str]:
    """Names of the running instances of some hypervisors.

    @raise RPCFail: one of them can't be asked
    """
    names: list[str] = []
    for kind in hypervisor_list:
        try:
            names.extend(hypervisor.GetHypervisor(kind).ListInstances())
        except errors.HypervisorError as err:
            Fail(f"Can't list the instances of hypervisor {kind}: {err}", exc_info=True)
    return names


def GetInstanceInfo(name: str, hypervisor_type: str) -> dict[str, Any]:
    """Memory (MiB), state and CPU time of an instance; empty if it does not run."""
    try:
        info = hypervisor.GetHypervisor(hypervisor_type).GetInstanceInfo(name)
    except errors.HypervisorError as err:
        Fail(f"Can't ask hypervisor {hypervisor_type} about {name}: {err}")
    if info is None:
        return {}
    return {"memory": info[2], "state": info[4], "time": info[5]}


def GetAllInstancesInfo(hypervisor_list: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Memory (MiB), CPUs, state and CPU time of each running instance.

    @raise RPCFail: a hypervisor can't be asked, or two disagree about an instance
    """
    result: dict[str, dict[str, Any]] = {}
    for kind in hypervisor_list:
        try:
            infos = hypervisor.GetHypervisor(kind).GetAllInstancesInfo()
        except errors.HypervisorError as err:
            Fail(f"Can't list the instances of hypervisor {kind}: {err}", exc_info=True)
        for name, _, memory, vcpus, state, times in infos or []:
            value = {"memory": memory, "vcpus": vcpus, "state": state, "time": times}
            other = result.get(name)
            # Two kinds may see the same machines (Xen's do); then they must agree on what is fixed.
            if other and any(other[key] != value[key] for key in ("memory", "vcpus")):
                Fail(f"Instance {name} runs twice on this node, with different parameters")
            result[name] = value
    return result


def GetInstanceMigratable(instance: objects.Instance) -> None:
    """Make sure that an instance runs and has the links of its disks.

    @raise RPCFail: it can't be migrated
    """
    _RequireRunning(instance)
    for index in range(len(instance.disks)):
        path = disklinks.LinkPath(instance.name, index)
        if not os.path.islink(path):
            Fail(f"Instance {instance.name} can't be migrated: the link {path} is missing")


def _IsRunning(instance: objects.Instance) -> bool:
    return instance.name in GetInstanceList([instance.hypervisor])


def _RequireRunning(instance: objects.Instance) -> None:
    if not _IsRunning(instance):
        Fail(f"Instance {instance.name} is not running")


# Starting and stopping


def StartInstance(instance: objects.Instance) -> None:
    """Start an instance whose disks are assembled; one that runs is fine.

    @raise RPCFail: that failed
    """
    if _IsRunning(instance):
        logging.info("Instance %s is running already, not started", instance.name)
        return
    try:
        block_devices = _GatherAndLinkBlockDevs(instance)
        hypervisor.GetHypervisor(instance.hypervisor).StartInstance(instance, block_devices)
    except errors.BlockDeviceError as err:
        Fail(f"Block device error: {err}", exc_info=True)
    except errors.HypervisorError as err:
        disklinks.RemoveLinks(instance.name, instance.disks)
        Fail(f"Hypervisor error: {err}", exc_info=True)


def _GatherAndLinkBlockDevs(instance: objects.Instance) -> BlockDevices:
    """Open the disks of an instance and make their links: (disk, path of the link) each."""
    block_devices = []
    for index, disk in enumerate(instance.disks):
        device = blockdev.OpenRealBD(disk)
        if device.dev_path is None:
            raise errors.BlockDeviceError(f"Disk {index} of {instance.name} has no path")
        block_devices.append((disk, disklinks.CreateLink(instance.name, index, device.dev_path)))
    return block_devices


def InstanceShutdown(
    instance: objects.Instance, timeout: float, rt: runtime.Runtime = runtime.DEFAULT
) -> None:
    """Ask an instance to shut down and wait for it; end it by force after the time-out.

    @param timeout: seconds; 0 = ask once, then force
    @raise RPCFail: it still runs
    """
    hyper = hypervisor.GetHypervisor(instance.hypervisor)
    if not _IsRunning(instance):
        logging.info("Instance %s is not running, not shut down", instance.name)
        # It may have died.
        _CleanUp(instance, hyper)
        return
    asking = _Asking(instance, hyper, rt.clock.monotonic)
    try:
        retry.Retry(
            asking,
            _LOOK_DELAYS,
            timeout,
            wait_fn=rt.clock.sleep,
            time_fn=rt.clock.monotonic,
        )
    except retry.RetryTimeout:
        logging.error("Shutdown of %s was not successful, ending it by force", instance.name)
        _ForceStop(instance, hyper, rt)
    _CleanUp(instance, hyper)


def _CleanUp(instance: objects.Instance, hyper: Any) -> None:
    """Remove what is left on this node of an instance that does not run."""
    try:
        hyper.CleanupInstance(instance.name)
    except errors.HypervisorError as err:
        logging.warning("Can't clean up after instance %s: %s", instance.name, err)
    disklinks.RemoveLinks(instance.name, instance.disks)


class _Asking:
    """One try after the other to make an instance stop by itself.

    Looks often, since most are gone soon, and repeats the request only now and then.
    """

    def __init__(self, instance: objects.Instance, hyper: Any, now: Callable[[], float]) -> None:
        self._instance = instance
        self._hyper = hyper
        self._now = now
        self._asked_at: float | None = None

    def __call__(self) -> None:
        if not _IsRunning(self._instance):
            return
        now = self._now()
        if self._asked_at is None or now - self._asked_at >= _ASK_AGAIN_AFTER:
            retried = self._asked_at is not None
            self._asked_at = now
            self._Ask(retried)
            if not _IsRunning(self._instance):
                return
        raise retry.RetryAgain

    def _Ask(self, retried: bool) -> None:
        try:
            self._hyper.StopInstance(self._instance, retry=retried)
        except errors.HypervisorError as err:
            # It may have gone while it was asked to go.
            if _IsRunning(self._instance):
                Fail(f"Can't stop instance {self._instance.name}: {err}")


def _ForceStop(instance: objects.Instance, hyper: Any, rt: runtime.Runtime) -> None:
    try:
        hyper.StopInstance(instance, force=True)
    except errors.HypervisorError as err:
        if _IsRunning(instance):
            Fail(f"Can't force instance {instance.name} to stop: {err}")
    if not _IsRunning(instance):
        return
    rt.clock.sleep(_KILL_GRACE)
    if _IsRunning(instance):
        Fail(f"Can't shut down instance {instance.name} even by force")


def InstanceReboot(
    instance: objects.Instance,
    reboot_type: str,
    shutdown_timeout: float,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Reboot a running instance.

    @param reboot_type: C{soft} = by the hypervisor; C{hard} = shut down and start again. The
      master's third type, C{full}, is shutting down and starting including the disks.
    @raise RPCFail: it does not run, or that failed
    """
    _RequireRunning(instance)
    if reboot_type == constants.INSTANCE_REBOOT_SOFT:
        hyper = hypervisor.GetHypervisor(instance.hypervisor)
        try:
            hyper.RebootInstance(instance)
        except errors.HypervisorError as err:
            Fail(f"Can't reboot instance {instance.name}: {err}")
    elif reboot_type == constants.INSTANCE_REBOOT_HARD:
        InstanceShutdown(instance, shutdown_timeout, rt)
        StartInstance(instance)
    else:
        Fail(f"Reboot type {reboot_type!r} is not one of a node")


# Migration


def _Ask(kind: str, what: str, fn: Callable[[Any], _T]) -> _T:
    """Something of a hypervisor.

    @raise RPCFail: it refuses
    """
    try:
        return fn(hypervisor.GetHypervisor(kind))
    except errors.HypervisorError as err:
        Fail(f"{what}: {err}", exc_info=True)


def MigrationInfo(instance: objects.Instance) -> str:
    """What the hypervisor of the target must know of a running instance."""
    return _Ask(
        instance.hypervisor,
        f"Can't prepare the migration of {instance.name}",
        lambda hyper: str(hyper.MigrationInfo(instance)),
    )


def AcceptInstance(instance: objects.Instance, info: Any, target: str) -> str | None:
    """Prepare this node to receive an instance at its address C{target}.

    @return: what L{MigrateInstance} needs as target on the other node; None: the address will do
    """
    try:
        _GatherAndLinkBlockDevs(instance)
    except errors.BlockDeviceError as err:
        Fail(f"Can't accept instance {instance.name}: block device error: {err}", exc_info=True)
    endpoint: str | None = _Ask(
        instance.hypervisor,
        f"Can't accept instance {instance.name}",
        lambda hyper: hyper.AcceptInstance(instance, info, target),
    )
    return endpoint


def FinalizeMigration(instance: objects.Instance, info: Any, success: bool) -> None:
    """Finish a migration to this node, or tidy up after one that failed.

    @raise RPCFail: it does not run; or, after a failure, it may: it must not go on at the source
    """
    _Ask(
        instance.hypervisor,
        f"Can't finish the migration of {instance.name}",
        lambda hyper: hyper.FinalizeMigration(instance, info, success),
    )
    if not success:
        disklinks.RemoveLinks(instance.name, instance.disks)


def MigrateInstance(instance: objects.Instance, target: str, live: bool) -> None:
    """Start to move a running instance to another node.

    @param target: what L{AcceptInstance} answered there, or that node's address
    """
    _Ask(
        instance.hypervisor,
        f"Can't migrate instance {instance.name}",
        lambda hyper: hyper.MigrateInstance(instance, target, live),
    )


def GetMigrationStatus(instance: objects.Instance) -> dict[str, Any]:
    """How far the migration away from this node is: see L{hypervisor.hv_base.MigrationStatus}."""
    return _Ask(
        instance.hypervisor,
        f"Can't ask about the migration of {instance.name}",
        lambda hyper: dict(hyper.GetMigrationStatus(instance).ToDict()),
    )


def AbortMigration(instance: objects.Instance) -> None:
    """Cancel the migration away from this node, unless it is over."""
    _Ask(
        instance.hypervisor,
        f"Can't cancel the migration of {instance.name}",
        lambda hyper: hyper.AbortMigration(instance),
    )


def FinalizeMigrationSource(instance: objects.Instance, success: bool, live: bool) -> None:
    """Remove an instance that has migrated away, or let it go on here after a failure."""
    _Ask(
        instance.hypervisor,
        f"Can't finish the migration of {instance.name} on the node it left",
        lambda hyper: hyper.FinalizeMigrationSource(instance, success, live),
    )
    if success:
        disklinks.RemoveLinks(instance.name, instance.disks)
