"""The command line of testbeds."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys

from . import host, layout, manager

_DEFAULT_DIRECTORY = "/tmp/testbed"

_DESCRIPTION = """\
A cluster of nodes that are namespaces of this machine: each has addresses, a host name, a hosts
file, an SSH server, a root directory and devices of its own, and reaches the others through a
switch that has no way out. Needs root.
"""


def _Tell(text):
    print(text, file=sys.stderr, flush=True)


def _Networks(text):
    choices = {"primary": (0,), "secondary": (1,), "all": (0, 1)}
    return choices[text]


def _Percent(text):
    value = int(text.rstrip("%"))
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be between 0% and 100%, not {text}")
    return value


def _BuildParser():
    parser = argparse.ArgumentParser(prog="testbed", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def Add(name, text, node=False):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--dir", default=_DEFAULT_DIRECTORY, help="its directory (default: %(default)s)"
        )
        if node:
            command.add_argument("node", metavar="NODE")
        return command

    command = Add("up", "make a testbed and start its nodes")
    command.add_argument("--nodes", type=int, default=3, help="how many (default: 3)")
    command.add_argument(
        "--size",
        default=manager.DEFAULT_SIZE,
        help="limit of the nodes' files, which are in memory (default: %(default)s)",
    )
    Add("down", "end everything and remove all files")
    Add("status", "show the nodes")
    Add("check", "say what this machine lacks for testbeds")
    Add("install", "install the Debian packages that are missing, starting no service")
    command = Add("exec", "run a program on a node: exec NODE -- PROGRAM ARGUMENT...", node=True)
    command.usage = "testbed exec [-h] [--dir DIR] NODE -- PROGRAM ARGUMENT..."
    for name, text in (
        ("cut", "cut a node off from the others"),
        ("slow", "make a node's cables slow or bad, as far as the kernel can"),
    ):
        command = Add(name, text, node=True)
        command.add_argument(
            "--network", choices=("primary", "secondary", "all"), default="all", help="which cable"
        )
        if name == "slow":
            command.add_argument("--delay", help="of packets to the node, e.g. 50ms")
            command.add_argument("--loss", type=_Percent, help="of packets both ways, e.g. 10%%")
            command.add_argument("--rate", help="of packets to the node, e.g. 1mbit")
    Add("mend", "make a node's cables as good as new", node=True)
    Add("kill", "take the power from a node", node=True)
    Add("start", "switch a node on again", node=True)
    Add("console", "show what a node wrote to its console", node=True)
    return parser


def _Up(testbed, opts):
    testbed.Up(opts.nodes, opts.size)
    # A caller who does not want to hear it did not want the testbed either.
    print(f"The testbed in {testbed.directory} is up; root's password: {layout.PASSWORD}")
    return 0


def _Status(testbed, _):
    testbed.HolderPid()
    for node in testbed.layout.nodes:
        pid = testbed.Pid(node)
        state = "down" if pid is None else f"up (process {pid})"
        print(f"{node.name} {node.address} {node.secondary_address} {state}")
    return 0


def _Check(_, __):
    missing = host.Missing()
    for text in missing:
        print(f"lacks {text}")
    if missing:
        return 1
    print("testbeds can run here")
    for what in ("delay", "loss", "rate"):
        lacking = host.Lacks(what)
        print(f"lacks {lacking}" if lacking else f"{what}: yes")
    return 0


def _Install(_, __):
    installed = host.Install()
    if installed:
        print(f"installed {' '.join(installed)}")
    return 0


def _Exec(testbed, opts):
    if not opts.argv:
        raise manager.Error("exec needs a program: testbed exec NODE -- PROGRAM ARGUMENT...")
    return subprocess.run(testbed.Command(opts.node, opts.argv)).returncode


def _Console(testbed, opts):
    with open(f"{testbed.Root(opts.node)}/dev/console", encoding="utf-8") as fobj:
        sys.stdout.write(fobj.read())
    return 0


def _Nothing(fn):
    def Call(testbed, opts):
        fn(testbed, opts)
        return 0

    return Call


_COMMANDS = {
    "up": _Up,
    "down": _Nothing(lambda testbed, _: testbed.Down()),
    "status": _Status,
    "check": _Check,
    "install": _Install,
    "exec": _Exec,
    "console": _Console,
    "cut": _Nothing(lambda testbed, opts: testbed.Cut(opts.node, _Networks(opts.network))),
    "mend": _Nothing(lambda testbed, opts: testbed.Mend(opts.node)),
    "slow": _Nothing(
        lambda testbed, opts: testbed.Slow(
            opts.node, opts.delay, opts.loss, opts.rate, _Networks(opts.network)
        )
    ),
    "kill": _Nothing(lambda testbed, opts: testbed.Kill(opts.node)),
    "start": _Nothing(lambda testbed, opts: testbed.Start(opts.node)),
}


def _Interrupt(number, _):
    raise SystemExit(128 + number)


def Main():
    words = sys.argv[1:]
    # What comes behind belongs to another program.
    end = words.index("--") if "--" in words else len(words)
    opts = _BuildParser().parse_args(words[:end])
    opts.argv = words[end + 1 :]
    if opts.argv and opts.command != "exec":
        _Tell(f"testbed: {opts.command} takes no program to run")
        return 2
    # As Ctrl-C: what was begun is undone.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _Interrupt)
    testbed = manager.Testbed(opts.dir, _Tell)
    try:
        return _COMMANDS[opts.command](testbed, opts)
    except (manager.Error, OSError, subprocess.CalledProcessError) as err:
        _Tell(f"testbed: {err}")
        return 1
    except KeyboardInterrupt:
        _Tell("testbed: interrupted")
        return 130
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.close(1)
        return 1
