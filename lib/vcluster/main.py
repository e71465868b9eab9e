"""The command C{vcluster}: a cluster of several nodes on this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from .. import constants, errors, pathutils
from . import demo, guest, manager
from . import layout as vlayout
from .manager import VirtualCluster

EXIT_OK = constants.EXIT_SUCCESS


class _Progress:
    """Prints each step with the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{self.Elapsed():6.1f}s] {text}", flush=True)

    def Elapsed(self) -> float:
        return time.monotonic() - self._start


def _Parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def Add(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--dir",
            default=manager.DefaultDirectory(),
            help="directory of the cluster (default: %(default)s)",
        )
        return sub

    for name, text in (
        ("up", "make a cluster and start it"),
        ("demo", "make a cluster, put instances on it, show what to try"),
    ):
        sub = Add(name, text)
        sub.add_argument("--nodes", type=int, default=3, help="number of nodes (default: 3)")
        sub.add_argument(
            "--hypervisor",
            default=constants.HT_FAKE,
            help="fake (no virtual machines) or kvm (real ones, needs QEMU); default: fake",
        )
        sub.add_argument(
            "--install",
            action="store_true",
            help="install the Debian packages that lack (as root)",
        )
    down = Add("down", "stop the cluster and remove its files")
    down.add_argument("--keep-logs", action="store_true", help="keep the logs of the daemons")
    Add("status", "show nodes, daemons and the state of the cluster")
    env = Add("env", "print shell commands that bring the cluster's commands in reach")
    env.add_argument("--node", help="as on this node instead of the first")
    execute = Add("exec", "run a command as on a node of the cluster")
    execute.add_argument("--node", help="as on this node instead of the master")
    execute.add_argument("argv", nargs="+", metavar="CMD", help="the command, after --")
    kill = Add("kill", "end all daemons of a node at once")
    kill.add_argument("node", help="name of the node")
    start = Add("start", "start the daemons of a node")
    start.add_argument("node", help="name of the node")
    return parser


def _Load(opts: argparse.Namespace) -> VirtualCluster:
    return VirtualCluster(manager.Load(os.path.abspath(opts.dir)), _Progress())


def _MakeCluster(opts: argparse.Namespace, progress: _Progress) -> VirtualCluster:
    directory = os.path.abspath(opts.dir)
    vlayout.CheckLayout(directory, opts.nodes, opts.hypervisor)
    booted = None
    if opts.hypervisor == constants.HT_KVM:
        booted = guest.Prepare(opts.install, progress)
    network = vlayout.ChooseNetwork(directory, manager.IsAddressFree)
    layout = vlayout.Layout(directory, network, opts.nodes, opts.hypervisor)
    cluster = VirtualCluster(layout, progress, booted)
    cluster.Up()
    progress(f"The cluster {layout.cluster_name} of {opts.nodes} nodes is up")
    return cluster


def _Up(opts: argparse.Namespace) -> int:
    cluster = _MakeCluster(opts, _Progress())
    where = shlex.quote(cluster.layout.directory)
    print(f'Its commands in your shell: eval "$({manager.PROGRAM} env --dir {where})"')
    return EXIT_OK


def _Demo(opts: argparse.Namespace) -> int:
    progress = _Progress()
    cluster = _MakeCluster(opts, progress)
    try:
        demo.CreateInstances(cluster, progress)
        demo.WaitForConfd(cluster, progress)
        progress("Done")
        print("\n".join(demo.Describe(cluster)))
    except BaseException:
        where = shlex.quote(cluster.layout.directory)
        print(f"The cluster is still up; remove it with: {manager.PROGRAM} down --dir {where}")
        raise
    return EXIT_OK


def _Down(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    kept = cluster.Down(opts.keep_logs)
    print(f"The virtual cluster in {cluster.layout.directory} is gone")
    for path in kept:
        print(f"Kept: {path}")
    return EXIT_OK


def _Status(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    layout = cluster.layout
    print(f"{layout.cluster_name} ({layout.hypervisor}) in {layout.directory}")
    for node in layout.nodes:
        daemons = ", ".join(f"{name} ({pid})" for name, pid in cluster.DaemonPids(node).items())
        print(f"  {node.name}  {node.address}  {daemons or 'no daemon runs'}")
    return EXIT_OK


def _Env(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    node = cluster.layout.FindNode(opts.node) if opts.node else None
    for name, value in cluster.Environment(node).items():
        print(f"export {name}={shlex.quote(value)}")
    return EXIT_OK


def _MasterOf(cluster: VirtualCluster) -> vlayout.VirtualNode:
    name = cluster.RunOrFail(["gnt-cluster", "getmaster"]).strip()
    return cluster.layout.FindNode(name)


def _Exec(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    node = cluster.layout.FindNode(opts.node) if opts.node else _MasterOf(cluster)
    env = {**os.environ, **cluster.Environment(node)}
    program = shutil.which(opts.argv[0], path=env["PATH"])
    if program is None:
        raise errors.OpPrereqError(
            f"There is no command {opts.argv[0]!r} on the path of {node.name}", errors.ECODE_INVAL
        )
    return subprocess.run([program, *opts.argv[1:]], env=env, check=False).returncode


def _Kill(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    node = cluster.layout.FindNode(opts.node)
    killed = cluster.Kill(node)
    print(f"{node.name}: killed {', '.join(killed) or 'nothing, no daemon ran'}")
    return EXIT_OK


def _Start(opts: argparse.Namespace) -> int:
    cluster = _Load(opts)
    node = cluster.layout.FindNode(opts.node)
    print(f"{node.name}: {', '.join(cluster.Start(node)) or 'no daemon'} running")
    return EXIT_OK


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": _Up,
    "demo": _Demo,
    "down": _Down,
    "status": _Status,
    "env": _Env,
    "exec": _Exec,
    "kill": _Kill,
    "start": _Start,
}


def Main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is that of the command for C{exec}, else 0 or 1."""
    if pathutils.IsVirtual():
        # Called from a shell of a virtual node: this program is none of its processes.
        env = {key: value for key, value in os.environ.items() if key not in vlayout.ENVIRONMENT}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
    opts = _Parser().parse_args(argv)
    try:
        return _COMMANDS[opts.command](opts)
    except BrokenPipeError:
        # Nobody reads on; what was asked for has been done, or is reported by its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return constants.EXIT_FAILURE
    except (errors.GenericError, OSError) as err:
        print(f"vcluster {opts.command}: {errors.FormatError(err)}", file=sys.stderr)
        return constants.EXIT_FAILURE
    except KeyboardInterrupt:
        print(f"vcluster {opts.command}: interrupted", file=sys.stderr)
        return constants.EXIT_FAILURE
