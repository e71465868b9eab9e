"""Makes virtual clusters, stops them, kills and starts their nodes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import psutil

from .. import constants, errors, pathutils, runtime, serializer
from ..utils import process
from . import layout as vlayout
from . import osdefs
from .guest import Guest
from .layout import Layout, VirtualNode

#: Told what happens, one line a step.
ProgressFn = Callable[[str], object]

#: The daemons of a node, in the order in which they are started.
_DAEMONS = ("ganeti-noded", "ganeti-confd", "ganeti-masterd", "ganeti-rapi")

#: Seconds that daemons get to end by themselves.
_STOP_TIMEOUT = 10.0

RAPI_USER = "admin"

#: How this program is called by who reads its messages.
PROGRAM = "tools/vcluster" if pathutils.SOURCE_TREE else "vcluster"


def DefaultDirectory() -> str:
    """Where a virtual cluster lives unless told otherwise."""
    return os.path.join(pathutils.SOURCE_TREE or os.getcwd(), "vcluster")


def IsAddressFree(address: str) -> bool:
    """Does nobody serve a node daemon's port at this address of the loopback range?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, constants.DEFAULT_NODED_PORT))
        except OSError:
            return False
    return True


def Load(directory: str) -> Layout:
    """The virtual cluster in a directory.

    @raise errors.OpPrereqError: there is none
    """
    path = os.path.join(directory, vlayout.STATE_FILE)
    try:
        with open(path, encoding="utf-8") as fobj:
            return vlayout.FromDict(directory, serializer.Load(fobj.read()))
    except FileNotFoundError as err:
        raise errors.OpPrereqError(
            f"There is no virtual cluster in {directory}; make one with: {PROGRAM} up --dir"
            f" {directory}",
            errors.ECODE_NOENT,
        ) from err


@contextlib.contextmanager
def _Locked(directory: str) -> Iterator[IO[str]]:
    """Nobody else makes or removes a cluster in this directory meanwhile."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, vlayout.LOCK_FILE), "w", encoding="utf-8") as fobj:
        try:
            fcntl.flock(fobj, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise errors.OpPrereqError(
                f"Somebody else is making or removing the virtual cluster in {directory} just now",
                errors.ECODE_STATE,
            ) from err
        yield fobj


class VirtualCluster:
    """Handle of one virtual cluster."""

    def __init__(
        self,
        layout: Layout,
        progress: ProgressFn = lambda _: None,
        guest: Guest | None = None,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        """@param guest: what new clusters of the kvm hypervisor boot"""
        self.layout = layout
        self._progress = progress
        self._guest = guest
        self._rt = rt

    # Commands

    def Environment(self, node: VirtualNode | None = None) -> dict[str, str]:
        """Environment of a shell on a node (default: the first one) with the commands in reach."""
        env = self.layout.Environment(node or self.layout.nodes[0])
        path = [pathutils.DAEMONDIR, pathutils.TOOLSDIR, os.path.dirname(sys.executable)]
        if pathutils.SOURCE_TREE:
            path.insert(0, os.path.join(pathutils.SOURCE_TREE, "scripts"))
        return {**env, "PATH": ":".join([*path, os.environ.get("PATH", os.defpath)])}

    def Run(self, argv: Sequence[str], node: VirtualNode | None = None) -> process.RunResult:
        """Run a command as on a node; its result, failed or not."""
        return self._rt.processes.run(
            ["env", *argv], env=self.Environment(node), cwd=self.layout.directory
        )

    def RunOrFail(self, argv: Sequence[str], node: VirtualNode | None = None) -> str:
        """Run a command as on a node.

        @return: its standard output
        @raise errors.OpExecError: it failed, with its output
        """
        result = self.Run(argv, node)
        if result.failed:
            raise errors.OpExecError(
                f"{' '.join(argv)}: {result.fail_reason}\n{result.output.strip()}"
            )
        return result.stdout

    # Life

    def Up(self) -> None:
        """Make the cluster and start it.

        What was begun and failed is removed again, except for the logs.

        @raise errors.OpPrereqError: there is one already
        @raise errors.OpExecError: a step failed
        """
        directory = self.layout.directory
        with _Locked(directory):
            if os.path.exists(self.layout.state_file):
                raise errors.OpPrereqError(
                    f"There is a virtual cluster in {directory} already; see it with"
                    f" '{PROGRAM} status --dir {directory}', remove it with"
                    f" '{PROGRAM} down --dir {directory}'",
                    errors.ECODE_EXISTS,
                )
            foreign = sorted(set(os.listdir(directory)) - {vlayout.LOCK_FILE, "logs"})
            if foreign:
                raise errors.OpPrereqError(
                    f"{directory} holds other files ({foreign[0]}, ...): choose an empty or new"
                    " directory with --dir",
                    errors.ECODE_STATE,
                )
            try:
                self._Make()
            except BaseException:
                self._progress("It failed: removing what was made, keeping the logs")
                self._Remove(keep_logs=True)
                raise

    def _Make(self) -> None:
        for node in self.layout.nodes:
            self._MakeRoot(node)
        with open(self.layout.state_file, "w", encoding="utf-8") as fobj:
            fobj.write(serializer.Dump(self.layout.ToDict(), indent=True))
        first = self.layout.nodes[0]
        self._progress(f"gnt-cluster init {self.layout.cluster_name} on {first.name}")
        self.RunOrFail(self._InitCommand(), first)
        for node in self.layout.nodes[1:]:
            self._progress(f"gnt-node add {node.name}")
            self.RunOrFail(["gnt-node", "add", "--no-ssh-key-check", node.name], first)

    def _InitCommand(self) -> list[str]:
        argv = [
            "gnt-cluster",
            "init",
            "--no-etc-hosts",
            "--no-ssh-init",
            "--no-lvm-storage",
            "--master-netdev=lo",
            f"--shared-file-storage-dir={pathutils.DEFAULT_SHARED_FILE_STORAGE_DIR}",
            f"--enabled-hypervisors={self.layout.hypervisor}",
            "--nic-parameters=mode=bridged,link=xen-br0",
        ]
        if self._guest is not None:
            argv.append(f"--hypervisor-parameters={osdefs.KvmParameters(self._guest)}")
        return [*argv, self.layout.cluster_name]

    def _MakeRoot(self, node: VirtualNode) -> None:
        root = self.layout.Root(node)
        for path in (
            os.path.dirname(pathutils.ETC_HOSTS),
            pathutils.CONF_DIR,
            pathutils.DATA_DIR,
            pathutils.LOG_DIR,
            pathutils.RUN_DIR,
            pathutils.DEFAULT_FILE_STORAGE_DIR,
        ):
            os.makedirs(root + path, exist_ok=True)
        self._ShareDirectory(root + pathutils.DEFAULT_SHARED_FILE_STORAGE_DIR)
        files = {pathutils.ETC_HOSTS: self.layout.HostsFile()}
        if node == self.layout.nodes[0]:
            password = self._rt.random.token_hex(8)
            files[pathutils.RAPI_USERS_FILE] = f"{RAPI_USER} {password} write\n"
        for path, content in files.items():
            self._rt.files.write(root + path, content.encode(), mode=0o600)
        osdefs.Install(root + pathutils.OS_SEARCH_PATH[0])

    def _ShareDirectory(self, path: str) -> None:
        """Let a node have the directory that all nodes share."""
        os.makedirs(self.layout.shared_dir, exist_ok=True)
        if not os.path.islink(path):
            os.symlink(self.layout.shared_dir, path)

    def RapiPassword(self) -> str:
        """Password of the RAPI user."""
        path = self.layout.Root(self.layout.nodes[0]) + pathutils.RAPI_USERS_FILE
        with open(path, encoding="utf-8") as fobj:
            return fobj.read().split()[1]

    def Down(self, keep_logs: bool = False) -> list[str]:
        """Stop everything and remove all files.

        @return: paths that were kept
        """
        with _Locked(self.layout.directory):
            return self._Remove(keep_logs)

    def _Remove(self, keep_logs: bool) -> list[str]:
        directory = self.layout.directory
        self._EndProcesses(self.Processes(), _STOP_TIMEOUT)
        kept = []
        for node in self.layout.nodes:
            root = self.layout.Root(node)
            logs = root + pathutils.LOG_DIR
            if keep_logs and os.path.isdir(logs):
                target = os.path.join(directory, "logs", node.name)
                shutil.rmtree(target, ignore_errors=True)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.move(logs, target)
                kept.append(target)
            if os.path.isdir(root):
                shutil.rmtree(root)
        if os.path.isdir(self.layout.shared_dir):
            shutil.rmtree(self.layout.shared_dir)
        for name in (vlayout.STATE_FILE, vlayout.LOCK_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
        if not kept:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return kept

    # Nodes

    def Processes(self, node: VirtualNode | None = None) -> list[psutil.Process]:
        """Every process of a node, or of all nodes: those whose environment names its root."""
        nodes = self.layout.nodes if node is None else [node]
        roots = {self.layout.Root(item) for item in nodes}
        found = []
        for proc in psutil.process_iter():
            try:
                if proc.pid != os.getpid() and proc.environ().get("GANETI_ROOTDIR") in roots:
                    found.append(proc)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def DaemonPids(self, node: VirtualNode) -> dict[str, int]:
        """The daemons that run on a node: name -> process id."""
        directory = self.layout.Root(node) + pathutils.RUN_GANETI_DIR
        pids = {}
        for name in _DAEMONS:
            pid = process.GetPidFileHolder(os.path.join(directory, f"{name}.pid"))
            if pid:
                pids[name] = pid
        return pids

    def Kill(self, node: VirtualNode) -> list[str]:
        """End all daemons of a node at once, as a crash would; its instances run on.

        @return: names of the daemons that were killed
        """
        pids = self.DaemonPids(node)
        for pid in pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        psutil.wait_procs(
            [psutil.Process(pid) for pid in pids.values() if psutil.pid_exists(pid)], timeout=5
        )
        return list(pids)

    def Start(self, node: VirtualNode) -> list[str]:
        """Start the daemons that a node should have and that do not run.

        @return: names of the daemons that run now
        """
        result = self.Run([pathutils.DAEMON_UTIL, "start-all"], node)
        if result.failed:
            raise errors.OpExecError(
                f"Not all daemons of {node.name} could be started: {result.output.strip()}"
            )
        return list(self.DaemonPids(node))

    @staticmethod
    def _EndProcesses(procs: Sequence[psutil.Process], timeout: float) -> None:
        for proc in procs:
            with contextlib.suppress(psutil.NoSuchProcess):
                proc.terminate()
        _, alive = psutil.wait_procs(procs, timeout=timeout)
        for proc in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                proc.kill()
        psutil.wait_procs(alive, timeout=timeout)
