"""Makes testbeds, changes them and removes them."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from . import host, layout
from .layout import Layout

_HERE = os.path.dirname(os.path.abspath(__file__))

#: Seconds for a node to be up, and for processes to be gone.
_BOOT_TIMEOUT = 60
_KILL_TIMEOUT = 30

#: Limit of all files of all nodes together; they are in memory.
DEFAULT_SIZE = "4g"


class Error(Exception):
    """What the user has to know."""


def _StartTime(pid):
    """When a process started (opaque), None if there is none: tells it from a later namesake."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as fobj:
            fields = fobj.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _IsAlive(entry):
    return entry is not None and _StartTime(entry["pid"]) == entry["started"]


def _Entry(pid):
    return {"pid": pid, "started": _StartTime(pid)}


def _KillAndWait(entry):
    """KILL a process by its id and see it gone."""
    if not _IsAlive(entry):
        return
    # The descriptor is for this very process, whoever has its number later.
    fd = os.pidfd_open(entry["pid"])
    try:
        if _IsAlive(entry):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        deadline = time.monotonic() + _KILL_TIMEOUT
        while _IsAlive(entry):
            if time.monotonic() > deadline:
                raise Error(f"Process {entry['pid']} does not end")
            time.sleep(0.005)
    finally:
        os.close(fd)


def SuitePython():
    """The interpreter of the tree's virtual environment, which is made if there is none."""
    result = subprocess.run(
        [os.path.join(layout.TREE, "tools", "setup-venv")], stdout=subprocess.PIPE, text=True
    )
    if result.returncode:
        raise Error("There is no Python environment for the suite")
    return result.stdout.strip()


def _ReadOnlyPaths(python):
    """What nodes see of this machine wherever it is: the tree and the interpreters."""
    real = os.path.realpath(python)
    prefixes = {os.path.dirname(os.path.dirname(real)), os.path.realpath(sys.base_prefix)}
    return [layout.TREE, *sorted(prefixes - {"/usr", "/"})]


class Testbed:
    """Handle of the testbed in a directory."""

    def __init__(self, directory, progress=lambda _: None):
        self.directory = os.path.abspath(directory)
        self._progress = progress
        self._state = None
        self._dirty = False

    # State

    @property
    def state_file(self):
        return os.path.join(self.directory, layout.STATE_FILE)

    @property
    def state(self):
        if self._state is None:
            try:
                with open(self.state_file, encoding="utf-8") as fobj:
                    self._state = json.load(fobj)
            except FileNotFoundError:
                raise Error(
                    f"There is no testbed in {self.directory}; make one with: testbed up --dir"
                    f" {self.directory}"
                ) from None
        return self._state

    def _Save(self):
        temporary = self.state_file + ".new"
        with open(temporary, "w", encoding="utf-8") as fobj:
            json.dump(self._state, fobj, indent=2)
        os.rename(temporary, self.state_file)

    @property
    def layout(self):
        return Layout(self.directory, self.state["nodes"])

    def FindNode(self, name):
        try:
            return self.layout.FindNode(name)
        except LookupError as err:
            raise Error(str(err)) from None

    @contextlib.contextmanager
    def _Locked(self):
        """Nobody else changes this testbed meanwhile."""
        path = os.path.join(self.directory, layout.LOCK_FILE)
        try:
            fobj = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise Error(f"There is no testbed in {self.directory}") from None
        with fobj:
            fcntl.flock(fobj, fcntl.LOCK_EX)
            self._state = None
            yield

    def Pid(self, node):
        """Process id of a node's first process on this machine, None if the node is down."""
        entry = self.state["processes"].get(node.short_name)
        return entry["pid"] if _IsAlive(entry) else None

    def _RunningPid(self, node):
        pid = self.Pid(node)
        if pid is None:
            raise Error(
                f"{node.short_name} is down; start it with: testbed start {node.short_name}"
            )
        return pid

    # All of it

    def Up(self, node_count, size=DEFAULT_SIZE):
        """Make a testbed and start its nodes; whatever happens, no half of one is left."""
        missing = host.Missing()
        if missing:
            raise Error("A testbed can not run here, lacking " + "; ".join(missing))
        if not 1 <= node_count <= layout.MAX_NODES:
            raise Error(f"--nodes must be between 1 and {layout.MAX_NODES}, not {node_count}")
        python = SuitePython()
        existed = os.path.isdir(self.directory)
        if existed and os.listdir(self.directory):
            raise Error(f"{self.directory} is not empty: is there a testbed in it already?")
        holder = None
        try:
            for name in (layout.BOOT_DIR, layout.NODES_DIR):
                os.makedirs(os.path.join(self.directory, name))
            with self._Locked():
                holder = self._StartHolder(size)
                self._state = {
                    "version": layout.STATE_VERSION,
                    "nodes": node_count,
                    "python": python,
                    "netem": host.HasNetem(),
                    "processes": {"holder": _Entry(holder.pid)},
                }
                self._Save()
                self._StartNodes(self.layout.nodes)
                holder.Keep()
        except BaseException:
            if holder is not None:
                holder.End()
            self._RemoveFiles(keep_directory=existed)
            raise

    def _StartHolder(self, size):
        return _Holder(self.directory, size)

    def Down(self):
        """End all processes and remove all files; no testbed is all right too."""
        if not os.path.isdir(self.directory):
            return
        if not os.path.exists(self.state_file):
            # Nothing was made, or it was never finished and ended by itself.
            ours = {layout.LOCK_FILE, layout.BOOT_DIR, layout.NODES_DIR}
            if set(os.listdir(self.directory)) - ours:
                raise Error(f"There is no testbed in {self.directory}")
        else:
            with self._Locked():
                # The kernel ends everything else with it.
                _KillAndWait(self.state["processes"]["holder"])
        self._RemoveFiles()

    def _RemoveFiles(self, keep_directory=False):
        for name in (layout.STATE_FILE, f"{layout.STATE_FILE}.new", layout.LOCK_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.directory, name))
        # Empty but for what a crash has left: the nodes' files were never in this file system.
        for name in (layout.BOOT_DIR, layout.NODES_DIR):
            shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
        if not keep_directory:
            with contextlib.suppress(OSError):
                os.rmdir(self.directory)

    # Nodes

    def Start(self, name):
        """Switch a node on."""
        with self._Locked():
            node = self.FindNode(name)
            if self.Pid(node) is not None:
                raise Error(f"{node.short_name} is up already")
            self._StartNodes([node])

    def _StartNodes(self, nodes):
        boots = [(node, _Boot(self, node)) for node in nodes]
        try:
            for node, boot in boots:
                self._state["processes"][node.short_name] = _Entry(boot.Begin())
            self._Save()
            for node, boot in boots:
                boot.Finish()
                self._progress(f"{node.name} is up: {node.address}, {node.secondary_address}")
        finally:
            for _, boot in boots:
                boot.Close()

    def Kill(self, name):
        """Take the power from a node: every process ends at once; its files stay."""
        with self._Locked():
            node = self.FindNode(name)
            pid = self._RunningPid(node)
            # First of all: the kernel takes its time to remove the node's end.
            self._UnplugCables(node)
            _KillAndWait(self.state["processes"][node.short_name])
            del pid

    def HolderPid(self):
        entry = self.state["processes"]["holder"]
        if not _IsAlive(entry):
            raise Error(
                f"The testbed in {self.directory} has died; remove it with: testbed down --dir"
                f" {self.directory}"
            )
        return entry["pid"]

    def RunInSwitch(self, *argv, check=True, **kwargs):
        """Run a program of this machine in the network namespace of the switch."""
        result = subprocess.run(
            ["nsenter", "-t", str(self.HolderPid()), "-n", "--", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kwargs,
        )
        if check and result.returncode:
            raise Error(f"{' '.join(argv)}: {result.stdout.strip()}")
        return result

    def _PlugCables(self, node, pid):
        self._UnplugCables(node)
        lines = []
        for network in (0, 1):
            port = node.Port(network)
            lines += [
                f"link add {port} type veth peer name eth{network} netns {pid}",
                f"link set {port} master lan{network} up",
            ]
        self.RunInSwitch("ip", "-batch", "-", input="\n".join(lines))

    def _UnplugCables(self, node):
        self._ClearLoss(node)
        for network in (0, 1):
            self.RunInSwitch("ip", "link", "del", node.Port(network), check=False)

    # The network

    def Cut(self, name, networks=(0, 1)):
        """Cut a node off: its cables are there, but nothing comes through."""
        self._SetPorts(name, networks, "down")

    def _SetPorts(self, name, networks, state):
        with self._Locked():
            node = self.FindNode(name)
            self._RunningPid(node)
            for network in networks:
                self.RunInSwitch("ip", "link", "set", node.Port(network), state)

    def Mend(self, name):
        """Make a node's cables as good as new."""
        with self._Locked():
            node = self.FindNode(name)
            self._RunningPid(node)
            self._ClearLoss(node)
            for network in (0, 1):
                port = node.Port(network)
                self.RunInSwitch("tc", "qdisc", "del", "dev", port, "root", check=False)
                self.RunInSwitch("ip", "link", "set", port, "up")

    def Slow(self, name, delay=None, loss=None, rate=None, networks=(0, 1)):
        """Make a node's cables worse; what is not given is as good as new.

        @param delay: of packets to the node, as tc writes it (50ms)
        @param loss: percent of the packets to the node, and from it
        @param rate: to the node, as tc writes it (1mbit)
        """
        wanted = {"delay": delay, "loss": loss, "rate": rate}
        for what, value in wanted.items():
            lacking = host.Lacks(what) if value is not None else ""
            if lacking:
                raise Error(f"This machine lacks {lacking}")
        netem = self.state["netem"]
        if rate is not None and (delay is not None or (loss is not None and netem)) and not netem:
            raise Error("--rate and --delay do not go together")
        self.Mend(name)
        with self._Locked():
            node = self.FindNode(name)
            options = []
            if netem:
                options += ["delay", delay] if delay is not None else []
                options += ["loss", f"{loss}%"] if loss is not None else []
                options += ["rate", rate] if rate is not None else []
            for network in networks:
                qdisc = ["tc", "qdisc", "replace", "dev", node.Port(network), "root"]
                if options:
                    self.RunInSwitch(*qdisc, "netem", *options)
                elif rate is not None:
                    self.RunInSwitch(
                        *qdisc, "tbf", "rate", rate, "burst", "32k", "latency", "100ms"
                    )
            if loss is not None and not netem:
                self._SetLoss(node, loss, networks)

    def _SetLoss(self, node, percent, networks):
        table = f"loss{node.number}"
        rules = [
            f"add table bridge {table}",
            f"add chain bridge {table} f {{ type filter hook forward priority 0; }}",
            f"add chain bridge {table} i {{ type filter hook input priority 0; }}",
            f"add chain bridge {table} o {{ type filter hook output priority 0; }}",
        ]
        for network in networks:
            port = node.Port(network)
            drop = f"numgen random mod 100 < {percent} drop"
            rules += [
                f"add rule bridge {table} {chain} {key} {port} {drop}"
                for chain, key in (
                    ("f", "iifname"),
                    ("f", "oifname"),
                    ("i", "iifname"),
                    ("o", "oifname"),
                )
            ]
        self.RunInSwitch("nft", "-f", "-", input="\n".join(rules) + "\n")

    def _ClearLoss(self, node):
        if shutil.which("nft"):
            table = f"loss{node.number}"
            self.RunInSwitch("nft", "delete", "table", "bridge", table, check=False)

    # What runs on a node

    def Command(self, name, argv):
        """Arguments that run a program on a node, from here."""
        pid = self._RunningPid(self.FindNode(name))
        environment = [f"PATH={layout.SEARCH_PATH}", "HOME=/root", "USER=root", "LANG=C.UTF-8"]
        environment.append(f"TERM={os.environ.get('TERM', 'dumb')}")
        enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p"]
        return [*enter, "--", "/usr/bin/env", "-i", "-C", "/root", *environment, *argv]

    def Root(self, name):
        """Where the files of a running node can be seen from here."""
        return f"/proc/{self._RunningPid(self.FindNode(name))}/root"


class _Holder:
    """The holder of a testbed in the making."""

    def __init__(self, directory, size):
        argv = [sys.executable, "-I", "-S", os.path.join(_HERE, "holder.py"), directory, size]
        self._proc = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            text=True,
            start_new_session=True,
        )
        first = self._proc.stdout.readline()
        if not first.strip().isdigit():
            raise Error(f"The testbed did not begin: {first}{self._proc.stdout.read()}")
        self.pid = int(first)
        self._entry = _Entry(self.pid)
        self._proc.wait()
        second = self._proc.stdout.readline()
        if second != "ready\n":
            self.End()
            raise Error(f"The testbed did not begin: {second}{self._proc.stdout.read()}")

    def Keep(self):
        """From now on it lives without us."""
        self._proc.stdin.write("keep\n")
        self._proc.stdin.flush()
        self._Close()

    def End(self):
        """It dies now, and everything with it."""
        _KillAndWait(self._entry)
        self._Close()

    def _Close(self):
        for stream in (self._proc.stdin, self._proc.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class _Boot:
    """A node on its way up."""

    def __init__(self, testbed, node):
        self._testbed = testbed
        self._node = node
        # In a place that the node's process has before it has one of its own, and never shown on
        # the node itself.
        self._address = testbed.layout.Path(layout.BOOT_DIR, node.short_name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._address)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = None
        self._listener.bind(self._address)
        self._listener.listen(1)
        self._listener.settimeout(_BOOT_TIMEOUT)
        python = testbed.state["python"]
        argv = [sys.executable, "-I", "-S", os.path.join(_HERE, "node.py")]
        argv += [str(testbed.HolderPid()), testbed.directory, str(node.number), self._address]
        argv += [python, *_ReadOnlyPaths(python)]
        self._proc = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )

    def Begin(self):
        """Plug the cables into the new node; the process id of its first process."""
        self._proc.wait()
        if self._proc.returncode:
            raise self._Failure(self._proc.stdout.read().decode())
        try:
            self._connection = self._listener.accept()[0]
        except TimeoutError:
            raise self._Failure("its first process does not report") from None
        self._connection.settimeout(_BOOT_TIMEOUT)
        peer = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = struct.unpack("iII", peer)[0]
        self._testbed._PlugCables(self._node, pid)
        self._connection.sendall(b"plugged\n")
        return pid

    def Finish(self):
        """Return once the node is up."""
        data = b""
        with contextlib.suppress(TimeoutError):
            while chunk := self._connection.recv(4096):
                data += chunk
        if data != b"ready\n":
            raise self._Failure(data.decode() or "its first process died")

    def _Failure(self, text):
        return Error(f"{self._node.short_name} did not start: {text.strip()}")

    def Close(self):
        for item in (self._connection, self._listener, self._proc.stdout):
            if item is not None:
                item.close()
