"""The first process of a node: makes the machine around itself, then is its init.

usage: node.py HOLDER-PID DIRECTORY NODE-NUMBER SOCKET PYTHON [READ-ONLY-PATH...]

Started on the machine itself; goes into the testbed of the holder and leaves a process there that
reports to the socket, from where it is told when its cables are plugged in. PYTHON is the
interpreter for the suite on the node; the read-only paths are shown in it as they are here.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import traceback
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from bed import layout, namespaces  # noqa: E402

#: What lies there on this machine is none of the nodes' business.
_HIDDEN = (
    "etc/ganeti",
    "etc/ssh",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "srv",
    "tmp",
    "usr/local/bin",
    "usr/local/sbin",
    "usr/share/ganeti",
    "var/lib/ganeti",
    "var/log",
    "var/spool",
    "var/tmp",
)
_MODES = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}

_DEVICES = (
    "fuse",
    "full",
    "kvm",
    "net/tun",
    "null",
    "random",
    "tty",
    "urandom",
    "vhost-net",
    "zero",
)

#: Of the machine's kernel: a node that writes there must not hit the machine.
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_SYSRQ = "/proc/sys/kernel/sysrq"
_SYSRQ_TRIGGER = "/proc/sysrq-trigger"

#: How soon a node knows that nobody has an address (any more): 0.3 seconds instead of 3 for one it
#: has not talked to, some seconds instead of 30 to 60 for one that has gone.
_NEIGHBOURS = {
    "retrans_time_ms": 100,
    "base_reachable_time_ms": 2000,
    "delay_first_probe_time": 1,
}

_SSHD_CONFIG = """\
PermitRootLogin yes
PasswordAuthentication yes
UsePAM no
UseDNS no
PidFile /run/sshd.pid
"""


def _Write(path, content, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(fd, "w", encoding="utf-8") as fobj:
        os.fchmod(fd, mode)
        fobj.write(content)


def _Run(*argv, **kwargs):
    result = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
    )
    if result.returncode:
        raise OSError(f"{' '.join(argv)}: exit code {result.returncode}: {result.stdout.strip()}")
    return result.stdout


# The files of a node, at its first start


def _Shadow(content, password_hash):
    """The password file: root has the testbed's password, nobody else has one; pure."""
    lines = []
    for line in content.splitlines():
        fields = line.split(":")
        fields[1] = password_hash if fields[0] == "root" else "*"
        lines.append(":".join(fields))
    return "\n".join(lines) + "\n"


def _NameService(content):
    """The name service switch: hosts file, then name server; pure."""
    lines = [line for line in content.splitlines() if not line.startswith("hosts:")]
    return "\n".join([*lines, "hosts: files dns"]) + "\n"


def _Read(path):
    with open(path, encoding="utf-8") as fobj:
        return fobj.read()


def _MakeFiles(upper, node, python):
    """What makes this node another machine than its host."""
    for name in _HIDDEN:
        path = os.path.join(upper, name)
        os.makedirs(path)
        os.chmod(path, _MODES.get(name, 0o755))
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    os.chmod(upper, 0o755)
    etc = os.path.join(upper, "etc")
    name = node.name
    _Write(f"{etc}/hostname", f"{node.short_name}\n")
    _Write(f"{etc}/hosts", f"127.0.0.1\tlocalhost\n{node.address}\t{name} {node.short_name}\n")
    _Write(f"{etc}/machine-id", uuid.uuid4().hex + "\n")
    server = f"{layout.PRIMARY}.{layout.SWITCH}"
    _Write(
        f"{etc}/resolv.conf",
        f"search {layout.DOMAIN}\nnameserver {server}\noptions timeout:1 attempts:2\n",
    )
    _Write(f"{etc}/nsswitch.conf", _NameService(_Read("/etc/nsswitch.conf")))
    hashed = _Run("openssl", "passwd", "-6", "-stdin", input=layout.PASSWORD + "\n").strip()
    _Write(f"{etc}/shadow", _Shadow(_Read("/etc/shadow"), hashed), 0o600)
    for name in ("sshd_config", "ssh_config", "moduli"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"/etc/ssh/{name}", f"{etc}/ssh/{name}")
    # Read before anything else of the distribution's file, and the first word counts.
    _Write(
        f"{etc}/ssh/sshd_config",
        _SSHD_CONFIG + _Read(f"{etc}/ssh/sshd_config").replace("\nInclude ", "\n#Include "),
    )
    for kind, bits in (("rsa", "2048"), ("ecdsa", "256"), ("ed25519", "256")):
        path = f"{etc}/ssh/ssh_host_{kind}_key"
        comment = f"root@{node.short_name}"
        _Run("ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-C", comment, "-f", path)
    # The suite's programs, and an interpreter that finds its libraries.
    _Write(f"{upper}/usr/local/bin/python3", f'#!/bin/sh\nexec {python} "$@"\n', 0o755)
    for directory in ("scripts", "daemons"):
        for name in os.listdir(os.path.join(layout.TREE, directory)):
            os.symlink(os.path.join(layout.TREE, directory, name), f"{upper}/usr/local/sbin/{name}")
    definitions = os.path.join(layout.TREE, "lib", "vcluster", "definitions")
    os.mkdir(f"{upper}/usr/share/ganeti/os")
    for name in os.listdir(definitions):
        os.symlink(os.path.join(definitions, name), f"{upper}/usr/share/ganeti/os/{name}")


# The machine, at every start


def _MakeDevices(root, console):
    dev = f"{root}/dev"
    namespaces.Mount("dev", dev, "tmpfs", namespaces.MS_NOSUID, "mode=0755,size=1m")
    for name in ("net", "pts", "shm"):
        os.mkdir(f"{dev}/{name}")
    for name in _DEVICES:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(f"/dev/{name}")
            os.mknod(f"{dev}/{name}", stat.S_IFCHR | 0o666, found.st_rdev)
            os.chmod(f"{dev}/{name}", 0o666)
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        os.symlink(target, f"{dev}/{name}")
    namespaces.Mount("devpts", f"{dev}/pts", "devpts", data="newinstance,ptmxmode=0666,mode=0620")
    namespaces.Mount("shm", f"{dev}/shm", "tmpfs", data="mode=1777,size=64m")
    _Write(f"{dev}/console", "")
    namespaces.Bind(console, f"{dev}/console")


def _GuardKernel(root):
    """Hide from the node what belongs to the machine's one kernel."""
    run = f"{root}/run"
    # Another one at every start: it is how others see that a node was started again.
    _Write(f"{run}/testbed/boot_id", f"{uuid.uuid4()}\n", 0o444)
    _Write(f"{run}/testbed/sysrq", "")
    os.mkfifo(f"{run}/testbed/sysrq-trigger", 0o200)
    for path, name in (
        (_BOOT_ID, "boot_id"),
        (_SYSRQ, "sysrq"),
        (_SYSRQ_TRIGGER, "sysrq-trigger"),
    ):
        # Not every kernel has all of them.
        if os.path.exists(root + path):
            namespaces.Bind(f"{run}/testbed/{name}", root + path)


def _MakeMachine(base, node, python, read_only):
    root, upper, work = (os.path.join(base, name) for name in ("root", "upper", "work"))
    if not os.path.exists(upper):
        for path in (root, work, upper):
            os.makedirs(path)
        _MakeFiles(upper, node, python)
        _Write(f"{base}/console", "")
    namespaces.MakePrivate()
    namespaces.Mount("overlay", root, "overlay", data=f"lowerdir=/,upperdir={upper},workdir={work}")
    namespaces.Mount("proc", f"{root}/proc", "proc")
    namespaces.Mount("sysfs", f"{root}/sys", "sysfs", namespaces.MS_RDONLY)
    namespaces.Mount("run", f"{root}/run", "tmpfs", data="mode=0755,size=64m")
    for name in ("lock", "sshd", "old"):
        os.mkdir(f"{root}/run/{name}")
    _MakeDevices(root, f"{base}/console")
    _GuardKernel(root)
    shared = os.path.join(os.path.dirname(base), layout.SHARED_DIR)
    for path in (shared, root + layout.SHARED_PATH):
        os.makedirs(path, exist_ok=True)
    namespaces.Bind(shared, root + layout.SHARED_PATH)
    for path in read_only:
        os.makedirs(root + path, exist_ok=True)
        namespaces.Bind(path, root + path, read_only=True)
    os.chdir(root)
    _Run("pivot_root", ".", "run/old")
    os.chdir("/")
    namespaces.Detach("/run/old")
    os.rmdir("/run/old")


def _MakeNetwork(node):
    socket.sethostname(node.short_name)
    first, second = (node.HardwareAddress(network) for network in (0, 1))
    lines = [
        "link set lo up",
        f"link set eth0 address {first}",
        f"link add br0 address {first} type bridge forward_delay 0",
        "link set eth0 master br0 up",
        "link set br0 up",
        f"addr add {node.address}/24 brd + dev br0",
        f"link set eth1 address {second} up",
        f"addr add {node.secondary_address}/24 brd + dev eth1",
    ]
    _Run("ip", "-batch", "-", input="\n".join(lines))
    for device in ("br0", "eth1"):
        for name, value in _NEIGHBOURS.items():
            with open(f"/proc/sys/net/ipv4/neigh/{device}/{name}", "w", encoding="ascii") as fobj:
                fobj.write(f"{value}\n")


def _StartServices():
    """As the init system of a distribution would."""
    _Run("/etc/init.d/ssh", "start", stdin=subprocess.DEVNULL)
    with open("/var/log/boot.log", "a", encoding="utf-8") as log:
        # Nobody waits for it: masters may vote for a minute.
        subprocess.Popen(
            ["sh", "-c", "daemon-util check-config && exec daemon-util start-all"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _Reap():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _BeInit():
    """Take care of orphans, for ever; or until the node is told to reset itself."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Open for writing as well: it never ends.
    trigger = os.open("/run/testbed/sysrq-trigger", os.O_RDWR)
    _Reap()
    while True:
        ready = select.select([wake_read, trigger], [], [])[0]
        if wake_read in ready:
            os.read(wake_read, 4096)
            _Reap()
        if trigger in ready and set(os.read(trigger, 4096)) & set(b"bo"):
            return


def _Boot(directory, node, address, python, read_only):
    os.setsid()
    report = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    report.connect(address)
    # The other end learns our process id by itself, and answers once the cables are there.
    if report.recv(10) != b"plugged\n":
        return
    os.environ.clear()
    os.environ.update(PATH=layout.SEARCH_PATH, HOME="/root", LANG="C.UTF-8")
    os.umask(0o022)
    try:
        base = os.path.join(directory, layout.NODES_DIR, node.short_name)
        _MakeMachine(base, node, python, read_only)
        _MakeNetwork(node)
        _StartServices()
    except Exception:  # noqa: BLE001 - goes to who started us
        report.sendall(traceback.format_exc().encode())
        return
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    report.sendall(b"ready\n")
    report.close()
    _BeInit()


def Main():
    holder, directory, number, address, python, *read_only = sys.argv[1:]
    node = layout.Node(int(number))
    # One child for each step that takes effect in children only.
    namespaces.Enter(holder, "pid", "mnt", "ipc", "uts")
    if os.fork():
        os._exit(0)
    namespaces.Unshare(namespaces.ALL)
    if os.fork():
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _Boot(directory, node, address, python, read_only)


if __name__ == "__main__":
    Main()
