"""Xen, paravirtual and hardware virtual machines, with the toolstack C{xl}.

The configuration of an instance is C{/etc/xen/<instance>}, where administrators look for it. It is
written when the instance starts, readable for root alone since it may contain the VNC password, and
stays until the instance has stopped: one that does not stop can still be looked after with it.

Both kinds share the domains of a node: each lists those of the other one, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .. import constants, errors, pathutils, runtime
from ..utils import process, retry
from . import hv_base, linux, xen_config, xen_migration, xen_parse

if TYPE_CHECKING:
    from .. import objects

_CONFIG_DIR: Final = pathutils.AddRoot("/etc/xen")
_RUN_DIR: Final = pathutils.RUN_GANETI_DIR + "/xen-hypervisor"

#: Seconds for a command that only asks or tells, and for one that makes a domain.
_COMMAND_TIMEOUT: Final = 60.0
_CREATE_TIMEOUT: Final = 600.0
#: The tools of Xen fail while others use them: delay and limit of time of further attempts.
_LIST_RETRY: Final = (1.0, 5.0)
#: Of looking whether an instance has rebooted.
_REBOOT_RETRY: Final = (1.0, 600.0)
#: Of looking whether a migrating instance has come.
_ARRIVAL_RETRY: Final = (0.2, 60.0)


class _XenHypervisor(hv_base.BaseHypervisor):
    """What both kinds have in common."""

    CAN_MIGRATE = True
    #: Arguments of C{xl shutdown} and C{xl reboot} before the name.
    _TELL_OPTIONS: tuple[str, ...] = ()

    def __init__(
        self,
        rt: runtime.Runtime = runtime.DEFAULT,
        config_dir: str = _CONFIG_DIR,
        run_dir: str = _RUN_DIR,
        cert_file: str = pathutils.NODED_CERT_FILE,
        processes: xen_migration.Processes | None = None,
    ) -> None:
        super().__init__(rt)
        self._config_dir = config_dir
        self._run_dir = run_dir
        self._cert_file = cert_file
        self._processes = processes

    # Names and files

    @staticmethod
    def _CheckName(name: str) -> str:
        """A name that C{xl} can only take for that of an instance.

        @raise errors.HypervisorError: it can not be used
        """
        hv_base.CheckName(name)
        if name.isdigit():
            raise errors.HypervisorError(f"Instance name {name!r}: xl would take it for an id")
        if name == xen_parse.DOM0_NAME or name.endswith(
            (xen_parse.INCOMING, xen_parse.MIGRATED_AWAY)
        ):
            raise errors.HypervisorError(f"Instance name {name!r} has a meaning of its own in Xen")
        return name

    def _ConfigFile(self, name: str) -> str:
        return f"{self._config_dir}/{self._CheckName(name)}"

    def _WriteConfig(self, name: str, content: str) -> None:
        try:
            self._rt.files.write(
                self._ConfigFile(name), content.encode("utf-8", "surrogateescape"), mode=0o600
            )
            # Instances are started by Ganeti, not when the node does.
            self._rt.files.remove(f"{self._config_dir}/auto/{name}")
        except OSError as err:
            raise errors.HypervisorError(
                f"Can't write the configuration of {name} for Xen: {err}"
            ) from err

    def _RemoveConfig(self, name: str) -> None:
        try:
            self._rt.files.remove(self._ConfigFile(name))
        except OSError as err:
            logging.warning("Can't remove the Xen configuration of %s: %s", name, err)

    def _BuildConfig(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> str:
        raise NotImplementedError

    # Commands

    def _Xl(self, *args: str, timeout: float = _COMMAND_TIMEOUT) -> process.RunResult:
        try:
            return self._rt.processes.run(["xl", *args], timeout=timeout)
        except errors.OpExecError as err:
            raise errors.HypervisorError(f"Can't run xl: {err}") from err

    def _Tell(self, what: str, *args: str, timeout: float = _COMMAND_TIMEOUT) -> str:
        """Run a command that must succeed; its output.

        @param what: what it is for, to begin the message with
        """
        result = self._Xl(*args, timeout=timeout)
        if result.failed:
            raise errors.HypervisorError(
                f"{what} failed ({result.fail_reason}): {result.output.strip()}"
            )
        return result.stdout

    # What runs

    def _List(self) -> list[xen_parse.Domain]:
        """All domains that have a name.

        @raise errors.HypervisorError: xl does not tell, also not after some attempts
        """

        def Ask() -> list[xen_parse.Domain]:
            result = self._Xl("list")
            if result.failed:
                raise retry.RetryAgain(result)
            return xen_parse.ParseList(result.stdout)

        try:
            domains: list[xen_parse.Domain] = retry.Retry(
                Ask,
                *_LIST_RETRY,
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        except retry.RetryTimeout as err:
            result = err.args[0]
            raise errors.HypervisorError(
                f"xl list failed ({result.fail_reason}): {result.output.strip()}"
            ) from err
        return domains

    def _Find(self, name: str) -> xen_parse.Domain | None:
        self._CheckName(name)
        return xen_parse.Find(self._List(), name)

    def ListInstances(self) -> list[str]:
        return [domain.name for domain in self._List() if xen_parse.IsInstance(domain)]

    def GetInstanceInfo(self, instance_name: str) -> hv_base.InstanceInfo | None:
        # That of the node itself may be asked for.
        hv_base.CheckName(instance_name)
        found = xen_parse.Find(self._List(), instance_name)
        return None if found is None else found.ToInfo()

    def GetAllInstancesInfo(self) -> list[hv_base.InstanceInfo]:
        return [domain.ToInfo() for domain in self._List() if xen_parse.IsInstance(domain)]

    def GetNodeInfo(self) -> linux.NodeInfo:
        info = xen_parse.ParseInfo(self._Tell("Asking Xen about this node", "info"))
        dom0 = xen_parse.Find(self._List(), xen_parse.DOM0_NAME)
        if dom0 is not None:
            info["memory_dom0"] = dom0.memory
        return info

    def Verify(self) -> str | None:
        try:
            self._Tell("xl info", "info")
        except errors.HypervisorError as err:
            return str(err)
        return None

    # Start and stop

    def StartInstance(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> None:
        name = instance.name
        found = self._Find(name)
        if found is not None:
            raise errors.HypervisorError(
                f"Failed to start instance {name}: it is already running (domain {found.domid})"
            )
        self._WriteConfig(name, self._BuildConfig(instance, block_devices))
        try:
            self._Tell(
                f"Starting instance {name}",
                "create",
                self._ConfigFile(name),
                timeout=_CREATE_TIMEOUT,
            )
        except errors.HypervisorError:
            # What is half there needs its configuration to be looked after.
            if self._Find(name) is None:
                self._RemoveConfig(name)
            raise

    def StopInstance(
        self,
        instance: objects.Instance | None,
        force: bool = False,
        retry: bool = False,
        name: str | None = None,
    ) -> None:
        name = hv_base.NameToStop(instance, name)
        self._CheckName(name)
        command = ["destroy", name] if force else ["shutdown", *self._TELL_OPTIONS, name]
        try:
            self._Tell(f"Stopping instance {name}", *command)
        except errors.HypervisorError:
            if self._Find(name) is not None:
                raise
            logging.info("Instance %s has ended before it was told to", name)

    def CleanupInstance(self, instance_name: str) -> None:
        found = self._Find(instance_name)
        if found is not None:
            raise errors.HypervisorError(
                f"Can't clean up after instance {instance_name}: it still runs (domain"
                f" {found.domid})"
            )
        self._Incoming(instance_name).Stop()
        self._Outgoing(instance_name).Forget()
        self._RemoveConfig(instance_name)

    def RebootInstance(self, instance: objects.Instance) -> None:
        name = instance.name
        before = self._Find(name)
        if before is None:
            raise errors.HypervisorError(f"Failed to reboot instance {name}: it is not running")
        self._Tell(f"Rebooting instance {name}", "reboot", *self._TELL_OPTIONS, name)

        def Look() -> None:
            if not xen_parse.HasRebooted(before, self._Find(name)):
                raise retry.RetryAgain

        try:
            retry.Retry(
                Look,
                *_REBOOT_RETRY,
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        except retry.RetryTimeout as err:
            raise errors.HypervisorError(
                f"Failed to reboot instance {name}: it was told to, but did not within"
                f" {_REBOOT_RETRY[1]:g} seconds"
            ) from err

    # Migration

    def _Incoming(self, name: str) -> xen_migration.Incoming:
        return xen_migration.Incoming(
            self._rt, self._run_dir, self._CheckName(name), self._cert_file, self._processes
        )

    def _Outgoing(self, name: str) -> xen_migration.Outgoing:
        return xen_migration.Outgoing(
            self._rt, self._run_dir, self._CheckName(name), self._cert_file, self._processes
        )

    def MigrationInfo(self, instance: objects.Instance) -> str:
        try:
            content = self._rt.files.read(self._ConfigFile(instance.name))
        except OSError as err:
            raise errors.HypervisorError(
                f"Can't read the Xen configuration of {instance.name}: {err}"
            ) from err
        return content.decode("utf-8", "surrogateescape")

    def AcceptInstance(self, instance: objects.Instance, info: str, target: str) -> str | None:
        name = instance.name
        if self._Find(name) is not None:
            raise errors.HypervisorError(f"Can't accept instance {name}: it is running here")
        incoming = self._Incoming(name)
        incoming.Stop()
        self._DestroyHalf(name + xen_parse.INCOMING)
        hv_base.MakeDirectories([self._run_dir], 0o750)
        return incoming.Listen(target, instance.hvparams[constants.HV_MIGRATION_PORT])

    def _DestroyHalf(self, full_name: str) -> None:
        """Remove what a migration has left behind."""
        left = xen_parse.Find(self._List(), full_name)
        if left is not None:
            logging.warning("Removing domain %s, left behind by a migration", left)
            self._Tell(f"Removing {full_name}", "destroy", str(left.domid))

    def FinalizeMigration(self, instance: objects.Instance, info: str, success: bool) -> None:
        name = instance.name
        if not success:
            self._Incoming(name).Stop()
            if self._Find(name) is not None:
                raise errors.HypervisorError(
                    f"Instance {name} has arrived here all the same; it must not go on where it"
                    " came from"
                )
            self._DestroyHalf(name + xen_parse.INCOMING)
            self._RemoveConfig(name)
            return

        def Look() -> None:
            if self._Find(name) is None:
                raise retry.RetryAgain

        try:
            retry.Retry(
                Look,
                *_ARRIVAL_RETRY,
                wait_fn=self._rt.clock.sleep,
                time_fn=self._rt.clock.monotonic,
            )
        except retry.RetryTimeout as err:
            raise errors.HypervisorError(
                f"Instance {name} was sent here but does not run here"
            ) from err
        self._WriteConfig(name, info)
        self._Incoming(name).Stop()

    def MigrateInstance(self, instance: objects.Instance, target: str, live: bool) -> None:
        name = instance.name
        if not live:
            raise errors.HypervisorError(
                f"Can't migrate instance {name}: xl can only migrate it while it runs (live); else"
                " fail it over"
            )
        if self._Find(name) is None:
            raise errors.HypervisorError(f"Can't migrate instance {name}: it is not running")
        hv_base.MakeDirectories([self._run_dir], 0o750)
        address, port = xen_migration.ParseEndpoint(
            target, instance.hvparams[constants.HV_MIGRATION_PORT]
        )
        self._Outgoing(name).Send(self._ConfigFile(name), address, port)

    def GetMigrationStatus(self, instance: objects.Instance) -> hv_base.MigrationStatus:
        return self._Outgoing(instance.name).Status()

    def AbortMigration(self, instance: objects.Instance) -> None:
        self._Outgoing(instance.name).Cancel()

    def FinalizeMigrationSource(
        self, instance: objects.Instance, success: bool, live: bool
    ) -> None:
        name = instance.name
        outgoing = self._Outgoing(name)
        # Whatever was decided, it is decided now.
        outgoing.Cancel()
        if success:
            for left in (name, name + xen_parse.MIGRATED_AWAY):
                self._DestroyHalf(left)
            self._RemoveConfig(name)
        else:
            self._GoOn(name)
        outgoing.Forget()

    def _GoOn(self, name: str) -> None:
        """Let an instance run here again whose migration has failed."""
        domains = self._List()
        domain = xen_parse.Find(domains, name)
        if domain is not None and not xen_parse.IsSuspended(domain):
            return
        if domain is None:
            domain = xen_parse.Find(domains, name + xen_parse.MIGRATED_AWAY)
            if domain is None:
                raise errors.HypervisorError(
                    f"Instance {name} does not run here any more; start it again"
                )
            self._Tell(f"Giving {name} its name back", "rename", str(domain.domid), name)
        # Of later releases of Xen only.
        result = self._Xl("resume", str(domain.domid))
        if result.failed:
            raise errors.HypervisorError(
                f"Instance {name} is here, but was suspended by its migration, and xl can't resume"
                f" it ({result.output.strip()}); reboot it with type hard"
            )

    @classmethod
    def PowercycleNode(cls) -> None:
        try:
            super().PowercycleNode()
        except errors.HypervisorError as err:
            logging.error("%s", err)
        if not pathutils.IsVirtual():
            # The hypervisor needs nothing of a Linux that may be broken.
            cls()._Tell("Restarting this node", "debug-keys", "R")


class XenPvmHypervisor(_XenHypervisor):
    """Xen with paravirtual instances."""

    KIND = constants.HT_XEN_PVM

    def _BuildConfig(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> str:
        return xen_config.PvmConfig(_DescribeGuest(instance, block_devices), instance.hvparams)


class XenHvmHypervisor(_XenHypervisor):
    """Xen with hardware virtual instances."""

    KIND = constants.HT_XEN_HVM
    # Guests without drivers for Xen understand the power button.
    _TELL_OPTIONS = ("-F",)

    def _BuildConfig(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> str:
        return xen_config.HvmConfig(
            _DescribeGuest(instance, block_devices),
            instance.hvparams,
            self._ReadPassword(instance.hvparams[constants.HV_VNC_PASSWORD_FILE]),
        )

    def _ReadPassword(self, path: str) -> str:
        try:
            content = self._rt.files.read(path)
            return content.decode("utf-8").rstrip()
        except (OSError, UnicodeDecodeError) as err:
            # Without what was read: that is secret.
            reason = err.strerror if isinstance(err, OSError) else "it is no UTF-8"
            raise errors.HypervisorError(
                f"Can't read the VNC password file {path}: {reason}"
            ) from None


def _DescribeGuest(
    instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
) -> xen_config.GuestSpec:
    """What the configuration says of an instance."""
    return xen_config.GuestSpec(
        name=instance.name,
        memory=instance.beparams[constants.BE_MEMORY],
        vcpus=instance.beparams[constants.BE_VCPUS],
        disks=[
            xen_config.DiskSpec(
                path,
                disk.logical_id[0] if disk.dev_type == constants.LD_FILE else None,
                disk.mode == constants.DISK_RDWR,
            )
            for disk, path in block_devices
        ],
        nics=[
            xen_config.NicSpec(
                nic.mac,
                nic.ip,
                nic.nicparams[constants.NIC_LINK]
                if nic.nicparams[constants.NIC_MODE] == constants.NIC_MODE_BRIDGED
                else None,
            )
            for nic in instance.nics
        ],
        network_port=instance.network_port,
    )
