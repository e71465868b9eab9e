"""KVM: each instance is a QEMU process of its own, which outlives the node daemon.

Everything that is known about an instance lies in files (L{kvm_files}), so that a restarted daemon
goes on where its predecessor stopped. The command line is built in L{kvm_command}; a running QEMU
is asked and told in QMP (L{kvm_qmp}).

A guest is started paused, its network and VNC password are set up, then it goes on. Of two sets of
parameters, those the guest was started with and those configured now, what the guest can see
follows the former and what it can't see (user, chroot, VNC password) the latter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors, pathutils, runtime
from ..utils import process
from . import (
    hv_base,
    kvm_accel,
    kvm_capabilities,
    kvm_command,
    kvm_files,
    kvm_migration,
    kvm_net,
    kvm_qmp,
    kvm_runtime,
    kvm_security,
    kvm_stream,
    linux,
)

if TYPE_CHECKING:
    from .. import objects

#: QEMU has allocated the guest's memory and opened its devices within this time (seconds).
_START_TIMEOUT: Final = 120.0
#: TERM becomes KILL after that many seconds.
_KILL_TIMEOUT: Final = 30.0
#: The same for one without a guest, which has nothing to lose.
_KILL_WAITING_TIMEOUT: Final = 2.0
#: A soft reboot waits that long for the guest to shut down by itself (seconds).
_REBOOT_SHUTDOWN_TIMEOUT: Final = 60.0
_REBOOT_POLL: Final = 0.2


class KVMHypervisor(hv_base.BaseHypervisor):
    """Instances as QEMU processes.

    Invariant: an instance whose C{starting} file names a process that lives is being started; one
    whose C{starting} file names a dead process was never allowed to run, and does not count as
    running.
    """

    KIND = constants.HT_KVM
    CAN_MIGRATE = True

    def __init__(
        self,
        rt: runtime.Runtime = runtime.DEFAULT,
        root_dir: str = kvm_files.ROOT_DIR,
        log_dir: str = kvm_files.LOG_DIR,
        kill: Callable[..., None] = process.KillProcess,
        cert_file: str = pathutils.NODED_CERT_FILE,
    ) -> None:
        super().__init__(rt)
        self._root_dir = root_dir
        self._log_dir = log_dir
        self._kill = kill
        self._cert_file = cert_file
        for path, mode in kvm_files.Directories(root_dir, log_dir):
            hv_base.MakeDirectories([path], mode)

    def _Paths(self, name: str) -> kvm_files.Paths:
        return kvm_files.Paths(hv_base.CheckName(name), self._root_dir, self._log_dir)

    def _Qmp(self, paths: kvm_files.Paths) -> kvm_qmp.QmpClient:
        return kvm_qmp.QmpClient(paths.qmp, rt=self._rt)

    # What runs

    def _IsHalfStarted(self, paths: kvm_files.Paths) -> bool:
        """Did the daemon that was starting the instance die before it let the guest run?"""
        starter = process.ReadPidFile(paths.starting)
        return starter > 0 and not process.IsProcessAlive(starter)

    def _FindRunning(self, paths: kvm_files.Paths) -> kvm_files.QemuProcess | None:
        found = kvm_files.FindProcess(paths)
        if found is None or self._IsHalfStarted(paths) or not self._HasGuest(paths):
            return None
        return found

    def _HasGuest(self, paths: kvm_files.Paths) -> bool:
        """Is the guest in the QEMU that runs here? While it migrates there is one on each node."""
        target, source = self._Target(paths), self._Source(paths)
        try:
            if target.Expected():
                return target.HasArrived()
            if source.IsLeaving():
                return not source.HasLeft()
        except kvm_qmp.QmpError as err:
            logging.warning("Can't ask the migrating instance %s: %s", paths.name, err)
            # Where it was before.
            return not target.Expected()
        return True

    def _RunningProcesses(self) -> list[kvm_files.QemuProcess]:
        directory = kvm_files.PidDir(self._root_dir)
        try:
            names = sorted(os.listdir(directory))
        except OSError as err:
            raise errors.HypervisorError(f"Can't list instances: {err}") from err
        found = (self._FindRunning(self._Paths(name)) for name in names if hv_base.IsName(name))
        return [item for item in found if item is not None]

    @staticmethod
    def _Info(found: kvm_files.QemuProcess) -> hv_base.InstanceInfo:
        return (found.name, found.pid, found.memory, found.vcpus, hv_base.STATE_BLOCKED, "0")

    def ListInstances(self) -> list[str]:
        return [found.name for found in self._RunningProcesses()]

    def GetInstanceInfo(self, instance_name: str) -> hv_base.InstanceInfo | None:
        found = self._FindRunning(self._Paths(instance_name))
        return None if found is None else self._Info(found)

    def GetAllInstancesInfo(self) -> list[hv_base.InstanceInfo]:
        return [self._Info(found) for found in self._RunningProcesses()]

    def GetNodeInfo(self) -> linux.NodeInfo:
        info = super().GetNodeInfo()
        # What the guests use is the instances', not the node's own.
        guests = sum(linux.ResidentMebibytes(found.pid) for found in self._RunningProcesses())
        info["memory_dom0"] = max(info["memory_dom0"] - guests, 0)
        return info

    def Verify(self) -> str | None:
        try:
            kvm_capabilities.Probe(self._rt)
        except errors.HypervisorError as err:
            return str(err)
        return None

    # Start

    def StartInstance(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> None:
        paths = self._Paths(instance.name)
        self._MakeRoom(paths)
        caps = kvm_capabilities.Probe(self._rt)
        guest = _DescribeGuest(instance, block_devices)
        data = kvm_runtime.RuntimeData(
            guest=guest,
            nics=[nic.ToDict() for nic in instance.nics],
            hvparams=self._PinAccelerator(caps, instance.hvparams),
            machine=caps.machine,
            qemu=caps.version,
        )
        self._Execute(instance, paths, caps, data)

    def _Accelerator(self, caps: kvm_capabilities.Capabilities, hvp: Mapping[str, Any]) -> str:
        return kvm_accel.Choose(
            hvp[constants.HV_KVM_FLAG],
            lambda: kvm_accel.KvmWorks(self._rt, caps, self._root_dir),
        )

    def _PinAccelerator(
        self, caps: kvm_capabilities.Capabilities, hvp: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The parameters with the choice made: a guest can not migrate from one to the other."""
        uses_kvm = self._Accelerator(caps, hvp) == kvm_accel.KVM
        flag = constants.HT_KVM_ENABLED if uses_kvm else constants.HT_KVM_DISABLED
        return {**hvp, constants.HV_KVM_FLAG: flag}

    def _MakeRoom(self, paths: kvm_files.Paths) -> None:
        """Refuse to start what runs; remove what is left of what does not."""
        for path in (paths.monitor, paths.qmp, paths.serial):
            kvm_qmp.CheckSocketPath(path)
        found = self._FindRunning(paths)
        if found is not None:
            raise errors.HypervisorError(
                f"Failed to start instance {paths.name}: it is already running (process"
                f" {found.pid})"
            )
        # It may have died, or the node daemon have died while it was starting or migrating.
        self.CleanupInstance(paths.name)

    def _Execute(
        self,
        instance: objects.Instance,
        paths: kvm_files.Paths,
        caps: kvm_capabilities.Capabilities,
        data: kvm_runtime.RuntimeData,
        listen: Callable[[kvm_qmp.QmpClient, int], None] | None = None,
    ) -> None:
        """Run QEMU and let the guest go once everything around it is there.

        @param listen: instead of that, make it wait for a guest that migrates to here; arguments:
          a session, the process
        """
        conf_hvp, up_hvp = instance.hvparams, data.hvparams
        password = None
        if up_hvp[constants.HV_VNC_BIND_ADDRESS] and conf_hvp[constants.HV_VNC_PASSWORD_FILE]:
            password = kvm_files.ReadPassword(_NodePath(conf_hvp[constants.HV_VNC_PASSWORD_FILE]))
        nics = [kvm_net.NicSpec.FromDict(nic) for nic in data.nics]
        reason = kvm_net.UserNetworkReason(nics)
        if reason is not None:
            logging.warning(
                "Instance %s gets user-mode networking on this virtual node: %s",
                paths.name,
                reason,
            )
        backend = kvm_command.NET_TAP if reason is None else kvm_command.NET_USER
        if data.machine:
            caps = dataclasses.replace(caps, machine=data.machine)
        accelerator = self._Accelerator(caps, up_hvp)
        command = [
            *kvm_command.BuildMachine(caps, paths, _Refresh(data.guest), up_hvp, accelerator),
            *kvm_command.BuildNics(caps, [nic.mac for nic in nics], up_hvp, backend),
        ]
        # From here on there are files.
        chroot = None
        if conf_hvp[constants.HV_USE_CHROOT]:
            chroot = paths.chroot
            hv_base.MakeDirectories([chroot], 0o700)
        self._rt.files.write(paths.runtime, data.Encode().encode())
        self._rt.files.write(paths.starting, f"{os.getpid()}\n".encode(), durable=False)
        try:
            with kvm_security.ProcessUser(self._rt, paths, conf_hvp) as user:
                incoming = None if listen is None else "defer"
                argv = [*command, *kvm_command.BuildExecution(caps, user, chroot, incoming)]
                try:
                    pid = self._Run(paths, argv)
                    with self._SetUp(
                        instance, paths, password, nics if reason is None else []
                    ) as qmp:
                        if listen is None:
                            qmp.Execute("cont")
                        else:
                            listen(qmp, pid)
                except BaseException:
                    self._KillIfRuns(paths)
                    raise
        except BaseException:
            # Nothing may claim that an instance runs here; the start-up data is of no use either.
            self._RemoveFiles(paths)
            raise
        self._rt.files.remove(paths.starting)

    def _Run(self, paths: kvm_files.Paths, argv: list[str]) -> int:
        """Start QEMU; its process."""
        result = self._rt.processes.run(argv, timeout=_START_TIMEOUT)
        if result.failed:
            raise errors.HypervisorError(
                f"Failed to start instance {paths.name}: QEMU failed ({result.fail_reason}):"
                f" {result.output.strip() or kvm_files.LogTail(paths.log)}"
            )
        found = kvm_files.FindProcess(paths)
        if found is None:
            raise errors.HypervisorError(
                f"Failed to start instance {paths.name}: QEMU has ended at once:"
                f" {result.output.strip() or kvm_files.LogTail(paths.log)}"
            )
        return found.pid

    @contextlib.contextmanager
    def _SetUp(
        self,
        instance: objects.Instance,
        paths: kvm_files.Paths,
        password: str | None,
        taps: Sequence[kvm_net.NicSpec],
    ) -> Iterator[kvm_qmp.QmpClient]:
        """Connect a paused guest's network and close its VNC; a session to let it run."""
        with self._Qmp(paths) as qmp:
            if password is not None:
                qmp.Execute("set_password", {"protocol": "vnc", "password": password})
            if taps:
                self._ConnectNics(instance, paths, taps, qmp.ExecuteHmp("info network"))
            yield qmp

    def _ConnectNics(
        self,
        instance: objects.Instance,
        paths: kvm_files.Paths,
        taps: Sequence[kvm_net.NicSpec],
        network: str,
    ) -> None:
        interfaces = kvm_net.ParseHmpNetwork(network)
        self._rt.files.mkdir(paths.nics, 0o755)
        for index, nic in enumerate(taps):
            if index not in interfaces:
                raise errors.HypervisorError(
                    f"QEMU does not tell the interface of network card {index} of instance"
                    f" {paths.name}: {network!r}"
                )
            self._rt.files.write(
                f"{paths.nics}/{index}", f"{interfaces[index]}\n".encode(), durable=False
            )
            kvm_net.Setup(
                self._rt,
                paths.name,
                sorted(instance.GetTags()),
                nic,
                interfaces[index],
                self._NetworkLock(),
            )

    def _NetworkLock(self) -> str:
        return f"{self._root_dir}/network.lock"

    # Stop

    def StopInstance(
        self,
        instance: objects.Instance | None,
        force: bool = False,
        retry: bool = False,
        name: str | None = None,
    ) -> None:
        if name is not None and not force:
            raise errors.HypervisorError(
                f"Instance {name} can not be shut down cleanly knowing its name only; use force"
            )
        name = hv_base.NameToStop(instance, name)
        paths = self._Paths(name)
        found = kvm_files.FindProcess(paths)
        if found is None:
            return
        if force or self._FindRunning(paths) is None or not self._HasAcpi(paths, instance):
            self._kill(found.pid, timeout=_KILL_TIMEOUT)
            return
        try:
            self._PowerDown(paths)
        except kvm_qmp.QmpError as err:
            # It may have ended meanwhile; or QEMU hangs, and who asks will lose patience and use
            # force, which needs nothing of QEMU.
            logging.warning("Can't press the power button of instance %s: %s", name, err)

    def _HasAcpi(self, paths: kvm_files.Paths, instance: objects.Instance | None) -> bool:
        hvp: Mapping[str, Any] = {} if instance is None else instance.hvparams
        try:
            hvp = kvm_runtime.DecodeHvParams(self._ReadRuntime(paths), hvp)
        except errors.HypervisorError as err:
            logging.warning("Instance %s: %s; using its configuration", paths.name, err)
        return bool(hvp.get(constants.HV_ACPI))

    def _PowerDown(self, paths: kvm_files.Paths) -> None:
        with self._Qmp(paths) as qmp:
            qmp.Execute("system_powerdown")

    def _KillIfRuns(self, paths: kvm_files.Paths, timeout: float = _KILL_TIMEOUT) -> None:
        found = kvm_files.FindProcess(paths)
        if found is not None:
            self._kill(found.pid, timeout=timeout)

    def CleanupInstance(self, instance_name: str) -> None:
        paths = self._Paths(instance_name)
        found = kvm_files.FindProcess(paths)
        if found is not None:
            if self._FindRunning(paths) is not None:
                raise errors.HypervisorError(
                    f"Can't clean up after instance {instance_name}: it still runs (process"
                    f" {found.pid})"
                )
            logging.warning(
                "Instance %s was left half started or half migrated as process %d; ending that one",
                paths.name,
                found.pid,
            )
            self._kill(found.pid, timeout=_KILL_TIMEOUT)
        kvm_security.ReleaseUid(self._rt, paths)
        self._RemoveFiles(paths)

    def _RemoveFiles(self, paths: kvm_files.Paths) -> None:
        """Remove all that was kept about an instance that does not run."""
        vnc_socket = self._VncSocket(paths)
        for path in (
            paths.pid,
            paths.monitor,
            paths.qmp,
            paths.serial,
            paths.runtime,
            paths.starting,
            paths.incoming,
            paths.outgoing,
            *((vnc_socket,) if vnc_socket else ()),
        ):
            self._rt.files.remove(path)
        self._RemoveNics(paths)
        kvm_stream.RemoveKey(paths)
        kvm_security.RemoveChroot(self._rt, paths, kvm_files.QuarantineDir(self._root_dir))

    def _RemoveNics(self, paths: kvm_files.Paths) -> None:
        try:
            interfaces = [
                self._rt.files.read(f"{paths.nics}/{name}").decode().strip()
                for name in os.listdir(paths.nics)
            ]
            kvm_net.CleanUp(self._rt, [name for name in interfaces if name], self._NetworkLock())
        except FileNotFoundError:
            return
        except (OSError, errors.GenericError) as err:
            # The next one with such an interface removes them.
            logging.warning("Can't remove routing rules of instance %s: %s", paths.name, err)
        shutil.rmtree(paths.nics, ignore_errors=True)

    def _VncSocket(self, paths: kvm_files.Paths) -> str | None:
        try:
            hvp = kvm_runtime.DecodeHvParams(self._ReadRuntime(paths), {})
        except errors.HypervisorError:
            return None
        address = hvp.get(constants.HV_VNC_BIND_ADDRESS)
        return f"{address}/{paths.name}.vnc" if address and address.startswith("/") else None

    # Reboot

    def RebootInstance(self, instance: objects.Instance) -> None:
        paths = self._Paths(instance.name)
        if self._FindRunning(paths) is None:
            raise errors.HypervisorError(
                f"Failed to reboot instance {instance.name}: it is not running"
            )
        data = self._LoadRuntime(paths, instance)
        caps = kvm_capabilities.Probe(self._rt)
        self.StopInstance(instance)
        if not self._WaitUntilGone(paths, _REBOOT_SHUTDOWN_TIMEOUT):
            logging.warning(
                "Instance %s has not shut down within %d seconds; rebooting it by force",
                instance.name,
                _REBOOT_SHUTDOWN_TIMEOUT,
            )
            self.StopInstance(instance, force=True)
        self.CleanupInstance(instance.name)
        self._Execute(instance, paths, caps, data)

    # Migration

    def _Target(self, paths: kvm_files.Paths) -> kvm_migration.Target:
        return kvm_migration.Target(paths, self._rt, lambda: self._Qmp(paths))

    def _Source(self, paths: kvm_files.Paths) -> kvm_migration.Source:
        return kvm_migration.Source(paths, self._rt, lambda: self._Qmp(paths))

    def _MigrationKey(self, name: str) -> str:
        try:
            content = self._rt.files.read(self._cert_file)
        except OSError as err:
            raise errors.HypervisorError(f"Can't read the cluster's certificate: {err}") from err
        return kvm_stream.DeriveKey(content.decode("ascii", "replace"), name)

    def MigrationInfo(self, instance: objects.Instance) -> str:
        paths = self._Paths(instance.name)
        if self._FindRunning(paths) is None:
            raise errors.HypervisorError(f"Instance {instance.name} is not running")
        return self._LoadRuntime(paths, instance).EncodeForNode()

    def AcceptInstance(self, instance: objects.Instance, info: str, target: str) -> str | None:
        paths = self._Paths(instance.name)
        key = self._MigrationKey(instance.name)
        data = kvm_runtime.DecodeFromNode(info, instance.hvparams, lambda: _DescribeGuest(instance))
        if data.guest.name != instance.name:
            raise errors.HypervisorError(
                f"What the source sent is about {data.guest.name}, not {instance.name}"
            )
        self._MakeRoom(paths)
        waiting = self._Target(paths)
        waiting.Announce()
        port = instance.hvparams[constants.HV_MIGRATION_PORT]
        endpoints: list[str] = []
        self._Execute(
            instance,
            paths,
            kvm_capabilities.Probe(self._rt),
            data,
            lambda qmp, pid: endpoints.append(waiting.Listen(qmp, pid, target, port, key)),
        )
        return endpoints[0]

    def FinalizeMigration(self, instance: objects.Instance, info: str, success: bool) -> None:
        paths = self._Paths(instance.name)
        if success:
            waiting = self._Target(paths)
            waiting.WaitUntilRunning(lambda: kvm_files.FindProcess(paths) is not None)
            waiting.Forget()
            return
        if self._FindRunning(paths) is not None:
            raise errors.HypervisorError(
                f"instance {instance.name} has arrived and runs here, so that it must not go on"
                " anywhere else"
            )
        self._KillIfRuns(paths, _KILL_WAITING_TIMEOUT)
        self.CleanupInstance(instance.name)

    def MigrateInstance(self, instance: objects.Instance, target: str, live: bool) -> None:
        paths = self._Paths(instance.name)
        found = self._FindRunning(paths)
        if found is None:
            raise errors.HypervisorError(f"instance {instance.name} is not running")
        key = self._MigrationKey(instance.name)
        self._Source(paths).Start(found.pid, target, live, instance.hvparams, key)

    def GetMigrationStatus(self, instance: objects.Instance) -> hv_base.MigrationStatus:
        paths = self._Paths(instance.name)
        # Of one that came here from elsewhere QEMU says the same for ever as of one that has left.
        if not self._Source(paths).IsLeaving():
            return hv_base.MigrationStatus(
                constants.MIGRATION_FAILED, message="no migration away from here was started"
            )
        return self._Source(paths).Status(kvm_files.FindProcess(paths) is not None)

    def AbortMigration(self, instance: objects.Instance) -> None:
        source = self._Source(self._Paths(instance.name))
        if source.IsLeaving():
            source.Cancel()

    def FinalizeMigrationSource(
        self, instance: objects.Instance, success: bool, live: bool
    ) -> None:
        paths = self._Paths(instance.name)
        leaving = self._Source(paths)
        if not success:
            if kvm_files.FindProcess(paths) is None:
                self.CleanupInstance(instance.name)
                raise errors.HypervisorError(f"instance {instance.name} has ended here")
            leaving.GoOn()
            return
        if kvm_files.FindProcess(paths) is not None:
            try:
                has_left = leaving.HasLeft()
            except kvm_qmp.QmpError as err:
                logging.warning("Instance %s does not say whether it left: %s", paths.name, err)
                has_left = leaving.IsLeaving()
            if not has_left:
                raise errors.HypervisorError(f"instance {instance.name} still runs here")
            self._KillIfRuns(paths)
        self.CleanupInstance(instance.name)

    def _WaitUntilGone(self, paths: kvm_files.Paths, timeout: float) -> bool:
        deadline = self._rt.clock.monotonic() + timeout
        while kvm_files.FindProcess(paths) is not None:
            if self._rt.clock.monotonic() >= deadline:
                return False
            self._rt.clock.sleep(_REBOOT_POLL)
        return True

    def _LoadRuntime(
        self, paths: kvm_files.Paths, instance: objects.Instance
    ) -> kvm_runtime.RuntimeData:
        return kvm_runtime.Decode(
            self._ReadRuntime(paths), instance.hvparams, lambda: _DescribeGuest(instance)
        )

    def _ReadRuntime(self, paths: kvm_files.Paths) -> str:
        try:
            return self._rt.files.read(paths.runtime).decode("utf-8", "replace")
        except OSError as err:
            raise errors.HypervisorError(
                f"Can't read the start-up data of instance {paths.name}: {err}"
            ) from err


def _DescribeGuest(
    instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice] | None = None
) -> kvm_command.GuestSpec:
    """The guest as the configuration has it.

    @param block_devices: default: the disks' links, which a running instance has
    """
    if block_devices is None:
        block_devices = [
            (disk, f"{pathutils.DISK_LINKS_DIR}/{instance.name}:{index}")
            for index, disk in enumerate(instance.disks)
        ]
    cdrom = instance.hvparams[constants.HV_CDROM_IMAGE_PATH]
    return kvm_command.GuestSpec(
        name=instance.name,
        uuid=instance.uuid,
        memory=instance.beparams[constants.BE_MEMORY],
        vcpus=instance.beparams[constants.BE_VCPUS],
        disks=tuple(
            kvm_command.DiskSpec(
                path=path,
                is_block=_IsBlockDevice(path),
                is_shared=disk.dev_type in constants.LDS_BLOCK
                or instance.disk_template in constants.DTS_EXT_MIRROR,
                read_only=disk.mode != constants.DISK_RDWR,
            )
            for disk, path in block_devices
        ),
        cdrom=kvm_command.DiskSpec(cdrom, _IsBlockDevice(cdrom)) if cdrom else None,
        network_port=instance.network_port,
    )


def _Refresh(guest: kvm_command.GuestSpec) -> kvm_command.GuestSpec:
    """The same guest with its disks as this node has them now."""
    return dataclasses.replace(
        guest,
        disks=tuple(
            dataclasses.replace(disk, is_block=_IsBlockDevice(disk.path)) for disk in guest.disks
        ),
    )


def _IsBlockDevice(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError as err:
        raise errors.HypervisorError(f"Can't use the disk {path}: {err}") from err


def _NodePath(path: str) -> str:
    """A path out of the configuration; on a virtual node below its root, if it is there."""
    local = pathutils.LocalPath(path)
    return local if os.path.exists(local) else path
