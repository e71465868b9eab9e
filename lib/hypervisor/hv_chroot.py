"""Instances that are process trees in a changed root directory.

The first disk of an instance is mounted on a directory of its name, and a program on it is called
with C{start} and C{stop}. An instance runs while there is a process that lives in there: has its
root directory on that mount. No other process is ever ended.

Processes are found in /proc, not by fuser: for that, whoever merely looks at the mount from outside
(a shell with its working directory there, a backup) belongs to the instance, and would be ended
with it.

A directory that is mounted is all that is known of an instance; a restarted daemon finds it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from .. import constants, errors, pathutils, runtime
from ..utils import process
from . import hv_base

if TYPE_CHECKING:
    from .. import objects

_ROOT_DIR: Final = pathutils.RUN_GANETI_DIR + "/chroot-hypervisor"
_LOG_DIR: Final = pathutils.LOG_DIR + "/chroot"
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
#: Limits for what the instance's own program does, and for mounting (seconds).
_SCRIPT_TIMEOUT: Final = 600.0
_MOUNT_TIMEOUT: Final = 60.0
#: Seconds in which killed processes are gone.
_KILL_TIMEOUT: Final = 5.0
_POLL: Final = 0.05
#: Lines of a failed program's output that are told.
_TOLD_LINES: Final = 20


# Pure parts


def ParseMounts(text: str) -> list[str]:
    """Mount points in C{/proc/mounts}, in the order in which they were mounted."""
    lines = (line.split(" ") for line in text.splitlines())
    return [_Unescape(fields[1]) for fields in lines if len(fields) > 1]


def _Unescape(path: str) -> str:
    """The kernel writes blanks, line breaks and backslashes as octal numbers."""
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def IsBelow(path: str, directory: str) -> bool:
    """Is it the directory, or anything in it? C{inst1.xy} is not in C{inst1.x}."""
    return (path + "/").startswith(directory.rstrip("/") + "/")


def MountsBelow(mounts: Iterable[str], directory: str) -> list[str]:
    """Mount points in a directory, itself included, in the order in which to unmount them."""
    return [path for path in reversed(list(mounts)) if IsBelow(path, directory)]


def LastLines(output: str) -> str:
    """The end of a program's output, for a message."""
    return "\n".join(output.strip().splitlines()[-_TOLD_LINES:])


def _ReadLog(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as fobj:
            return fobj.read()
    except OSError:
        return ""


# /proc


def ReadMounts() -> list[str]:
    """Mount points of this node.

    @raise errors.HypervisorError: /proc can not be read
    """
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as fobj:
            return ParseMounts(fobj.read())
    except OSError as err:
        raise errors.HypervisorError(f"Can't read the mounts of this node: {err}") from err


def _Links(pid: int) -> Iterable[str]:
    """What files of a process's own root and working directory, program and descriptors are."""
    base = f"/proc/{pid}"
    for name in ("root", "cwd", "exe"):
        yield f"{base}/{name}"
    try:
        descriptors = os.listdir(f"{base}/fd")
    except OSError:
        return
    for name in descriptors:
        yield f"{base}/fd/{name}"


def LivesIn(pid: int, directory: str) -> bool:
    """Does a process have its root directory in that directory?"""
    link = f"/proc/{pid}/root"
    try:
        path = os.readlink(link)
        # A container may have a directory of the same name.
        return IsBelow(path, directory) and os.path.samestat(os.stat(link), os.stat(path))
    except OSError:
        # Ended, a zombie, or a thread of the kernel.
        return False


def ProcessesIn(directory: str) -> list[int]:
    """Processes that live in a directory.

    @raise errors.HypervisorError: /proc can not be read
    """
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError as err:
        raise errors.HypervisorError(f"Can't read the processes of this node: {err}") from err
    return [pid for pid in pids if LivesIn(pid, directory)]


def DescribeUsers(directory: str) -> str:
    """Who uses a directory, for a message; open files and working directories count as well."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        for link in _Links(int(name)):
            try:
                path = os.readlink(link)
            except OSError:
                continue
            if IsBelow(path, directory):
                found.append(f"process {name} ({path})")
                break
    return ", ".join(found) or "no process"


def SendSignal(pid: int, directory: str, signum: int) -> None:
    """Send a signal to a process that lives in a directory; fine if it does not (any more)."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Looked at once more: now the id can't become that of another one.
        if LivesIn(pid, directory):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signum)
    finally:
        os.close(pidfd)


class ChrootManager(hv_base.BaseHypervisor):
    """Hypervisor of chroots."""

    KIND = constants.HT_CHROOT

    def __init__(
        self,
        rt: runtime.Runtime = runtime.DEFAULT,
        root_dir: str = _ROOT_DIR,
        log_dir: str = _LOG_DIR,
    ) -> None:
        super().__init__(rt)
        self._root_dir = root_dir
        self._log_dir = log_dir
        hv_base.MakeDirectories([root_dir])
        hv_base.MakeDirectories([log_dir], 0o750)
        # As it is in /proc.
        self._real_root = os.path.realpath(root_dir)

    def _Dir(self, name: str) -> str:
        """Where an instance is mounted."""
        return f"{self._real_root}/{hv_base.CheckName(name)}"

    def _IsLive(self, directory: str, mounts: Iterable[str]) -> bool:
        return directory in mounts and bool(ProcessesIn(directory))

    def _Run(self, argv: Sequence[str], timeout: float) -> process.RunResult:
        try:
            return self._rt.processes.run(argv, timeout=timeout)
        except errors.OpExecError as err:
            raise errors.HypervisorError(str(err)) from err

    # What runs

    def ListInstances(self) -> list[str]:
        mounts = set(ReadMounts())
        try:
            names = sorted(os.listdir(self._real_root))
        except OSError as err:
            raise errors.HypervisorError(f"Can't list instances: {err}") from err
        return [
            name for name in names if hv_base.IsName(name) and self._IsLive(self._Dir(name), mounts)
        ]

    def GetInstanceInfo(self, instance_name: str) -> hv_base.InstanceInfo | None:
        if not self._IsLive(self._Dir(instance_name), ReadMounts()):
            return None
        return self._Info(instance_name)

    @staticmethod
    def _Info(name: str) -> hv_base.InstanceInfo:
        # They have what the node has.
        return (name, 0, 0, 0, hv_base.STATE_BLOCKED, 0.0)

    def GetAllInstancesInfo(self) -> list[hv_base.InstanceInfo]:
        return [self._Info(name) for name in self.ListInstances()]

    def Verify(self) -> str | None:
        if not os.path.isdir(self._root_dir):
            return f"the directory {self._root_dir} of the chroot hypervisor does not exist"
        return None

    # Start and stop

    def StartInstance(
        self, instance: objects.Instance, block_devices: Sequence[hv_base.BlockDevice]
    ) -> None:
        name, directory = instance.name, self._Dir(instance.name)
        mounts = ReadMounts()
        if self._IsLive(directory, mounts):
            raise errors.HypervisorError(
                f"Failed to start instance {name}: it is already running in {directory}"
            )
        if not block_devices:
            raise errors.HypervisorError(
                f"Failed to start instance {name}: a chroot needs a disk, this instance has none"
            )
        # Those of a start that failed before, or of a run that nobody has cleaned up after.
        self._Unmount(directory, mounts)
        hv_base.MakeDirectories([directory])
        disk, path = block_devices[0]
        options = [] if disk.mode == constants.DISK_RDWR else ["-o", "ro"]
        result = self._Run(["mount", *options, "--", path, directory], _MOUNT_TIMEOUT)
        if result.failed:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
            raise errors.HypervisorError(
                f"Failed to start instance {name}: its disk {path} can not be mounted"
                f" ({result.fail_reason}): {LastLines(result.output)}"
            )
        try:
            self._CallInit(instance, directory, "start")
            if not ProcessesIn(directory):
                raise errors.HypervisorError(
                    f"Failed to start instance {name}: its program"
                    f" {instance.hvparams[constants.HV_INIT_SCRIPT]} has left no process that runs"
                )
        except BaseException:
            self._UndoStart(directory)
            raise

    def _CallInit(self, instance: objects.Instance, directory: str, what: str) -> None:
        """Call the instance's own program.

        Its output goes to a file: what it starts goes on writing to it.

        @raise errors.HypervisorError: it failed; the text ends with its last lines
        """
        script = instance.hvparams[constants.HV_INIT_SCRIPT]
        log = f"{self._log_dir}/{instance.name}-{what}.log"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        try:
            result = self._rt.processes.run(
                ["chroot", directory, script, what],
                env=_ENVIRONMENT,
                reset_env=True,
                timeout=_SCRIPT_TIMEOUT,
                output=log,
            )
        except (errors.OpExecError, OSError) as err:
            raise errors.HypervisorError(
                f"Failed to {what} instance {instance.name}: {err}"
            ) from err
        if result.failed:
            raise errors.HypervisorError(
                f"Failed to {what} instance {instance.name}: its program {script} failed"
                f" ({result.fail_reason}): {result.output}{LastLines(_ReadLog(log))}"
            )

    def _UndoStart(self, directory: str) -> None:
        """End and unmount what an init program that failed has begun with."""
        try:
            self._KillAll(directory)
            self._Unmount(directory, ReadMounts())
        except errors.HypervisorError as err:
            logging.warning("Can't undo the failed start in %s: %s", directory, err)

    def StopInstance(
        self,
        instance: objects.Instance | None,
        force: bool = False,
        retry: bool = False,
        name: str | None = None,
    ) -> None:
        name = hv_base.NameToStop(instance, name)
        directory = self._Dir(name)
        if not self._IsLive(directory, ReadMounts()):
            return
        if force:
            self._KillAll(directory)
            return
        if not retry:
            if instance is None:
                raise errors.HypervisorError(
                    f"Instance {name} can not be shut down cleanly knowing its name only; use force"
                )
            self._CallInit(instance, directory, "stop")
        for pid in ProcessesIn(directory):
            SendSignal(pid, directory, signal.SIGTERM)

    def _KillAll(self, directory: str) -> None:
        """End all processes of an instance.

        @raise errors.HypervisorError: some do not end
        """
        deadline = self._rt.clock.monotonic() + _KILL_TIMEOUT
        while pids := ProcessesIn(directory):
            # Again: some may have started others meanwhile.
            for pid in pids:
                SendSignal(pid, directory, signal.SIGKILL)
            if self._rt.clock.monotonic() > deadline:
                raise errors.HypervisorError(
                    f"Processes in {directory} can not be ended: {', '.join(map(str, pids))}"
                )
            self._rt.clock.sleep(_POLL)

    def CleanupInstance(self, instance_name: str) -> None:
        directory = self._Dir(instance_name)
        if not os.path.isdir(directory):
            return
        mounts = ReadMounts()
        if self._IsLive(directory, mounts):
            raise errors.HypervisorError(
                f"Can't clean up after instance {instance_name}: there are processes in it"
            )
        self._Unmount(directory, mounts)
        try:
            os.rmdir(directory)
        except OSError as err:
            # It may hold what somebody wrote there while nothing was mounted.
            logging.warning("Can't remove the directory %s: %s", directory, err)

    def _Unmount(self, directory: str, mounts: Iterable[str]) -> None:
        """Unmount a directory and all that is mounted in it.

        @raise errors.HypervisorError: something is left
        """
        failure = ""
        for path in MountsBelow(mounts, directory):
            result = self._Run(["umount", "--", path], _MOUNT_TIMEOUT)
            if result.failed:
                failure = LastLines(result.output)
        left = MountsBelow(ReadMounts(), directory)
        if left:
            raise errors.HypervisorError(
                f"Can't unmount {', '.join(left)}: {failure}; used by {DescribeUsers(directory)}"
            )

    def RebootInstance(self, instance: objects.Instance) -> None:
        raise errors.HypervisorError(
            f"Failed to reboot instance {instance.name}: a chroot has no reboot of its own; use"
            " the type hard"
        )
