"""A testbed seen from the outside: its command, and commands on its nodes."""

import json
import os
import subprocess
from pathlib import Path

from bed import layout, manager
from terminal import Terminal
from vc import CleanEnvironment, Result, WaitFor

TESTBED = Path(__file__).parent / "testbed"

#: Makes a cluster of real nodes that can do without LVM.
INIT = "gnt-cluster init --no-lvm-storage --master-netdev=br0 --enabled-hypervisors=fake"

NODE1, NODE2, NODE3, NODE4 = (f"node{i}.example.com" for i in range(1, 5))

#: What makes a machine a node, in its data directory.
SECRETS = ("server.pem", "rapi.pem", "hmac.key")


class RealCluster:
    """The testbed in a directory."""

    def __init__(self, directory):
        self.directory = str(directory)
        self._manager = manager.Testbed(self.directory)

    def Testbed(self, command, *args, timeout=120):
        """Run a command of the testbed's program."""
        return Result(
            subprocess.run(
                self.Argv(command, *args),
                env=CleanEnvironment(),
                capture_output=True,
                text=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        )

    def Argv(self, command, *args):
        return [str(TESTBED), command, "--dir", self.directory, *args]

    def Do(self, command, *args):
        """A command of the testbed's program that must succeed; what it prints."""
        result = self.Testbed(command, *args)
        assert result.code == 0, f"testbed {command} {args}: {result.out}{result.err}"
        # Process ids may be others now.
        self._manager = manager.Testbed(self.directory)
        return result.out

    def Up(self, *args):
        return self.Do("up", *args)

    def Nodes(self):
        """Short names of all machines."""
        return [node.short_name for node in self._manager.layout.nodes]

    def Powered(self):
        """Short names of the machines that are on."""
        return [n.short_name for n in self._manager.layout.nodes if self._manager.Pid(n)]

    # On a node

    def Command(self, *argv, node="node1"):
        """Arguments that run a program on a node; a single text is for its shell."""
        return self._manager.Command(node, ["sh", "-c", argv[0]] if len(argv) == 1 else argv)

    def Run(self, *argv, node="node1", timeout=60, stdin=""):
        """Run a program on a node."""
        return Result(
            subprocess.run(
                self.Command(*argv, node=node),
                capture_output=True,
                text=True,
                timeout=timeout,
                input=stdin,
            )
        )

    def Ok(self, *argv, **kwargs):
        """Run a program that must succeed; its standard output."""
        result = self.Run(*argv, **kwargs)
        assert result.code == 0, f"{argv}: {result.code}\n{result.out}\n{result.err}"
        return result.out

    def Fails(self, *argv, **kwargs):
        """Run a program that must fail; all that it says."""
        result = self.Run(*argv, **kwargs)
        assert result.code != 0, f"{argv}: {result.out}\n{result.err}"
        return result.out + result.err

    def At(self, *argv, node="node1"):
        """A user at a terminal of a node."""
        return Terminal(self.Command(*argv, node=node))

    def Root(self, node="node1"):
        """The files of a running node."""
        return Path(self._manager.Root(node))

    def Outside(self, *argv):
        """Run a program on a machine that is no node: the switch; its result."""
        result = self._manager.RunInSwitch(*argv, check=False, timeout=60)
        return result.returncode, result.stdout

    def OutsideCommand(self, *argv):
        """Arguments that run a program there."""
        return ["nsenter", "-t", str(self._manager.HolderPid()), "-n", "--", *argv]

    def Data(self, name, node="node1"):
        return self.Root(node) / "var/lib/ganeti" / name

    def Listing(self, command, fields, what=""):
        """A listing without headers, as rows of fields."""
        out = self.Ok(f"{command} list{what} --no-headers --separator='|' -o {fields}")
        return [line.split("|") for line in out.splitlines()]

    def WaitForDaemon(self, name, node):
        """Return once a daemon of a node serves."""
        WaitFor(
            lambda: self.Run(f"daemon-util check {name}", node=node).code == 0,
            what=f"{name} on {node}",
        )

    def Problems(self):
        """What gnt-cluster verify finds, without what this machine's kernel can not have."""
        result = self.Run("gnt-cluster verify --error-codes")
        lines = result.out.splitlines()
        found = [line for line in lines if " - ERROR" in line or " - WARNING" in line]
        if not os.path.exists("/proc/sysrq-trigger"):
            # CONFIG_MAGIC_SYSRQ
            found = [line for line in found if ":ENODESETUP:" not in line]
        elif not found:
            assert result.code == 0, result.out
        assert lines, result.err
        return found

    def Logs(self):
        """The end of every log of the running nodes, for a failed test."""
        parts = []
        for node in self._manager.layout.nodes:
            if self._manager.Pid(node) is None:
                parts.append(f"== {node.name} is down")
                continue
            root = self.Root(node.short_name)
            for path in sorted(root.glob("var/log/ganeti/*.log")) + [root / "var/log/boot.log"]:
                lines = path.read_text(errors="replace").splitlines()[-25:]
                parts.append(f"== {node.short_name}: {path.name}\n" + "\n".join(lines))
        return "\n".join(parts)


def AnswerSsh(terminal, known=False, password=layout.PASSWORD):
    """Answer what is asked at a first contact."""
    if not known:
        terminal.Expect(r"authenticity of host '\S+")
        terminal.Expect(r"Its key: ED25519 SHA256:\S+")
        terminal.Expect(r"y/\[n\]")
        terminal.Type("y")
    if password is not None:
        terminal.Expect("password: ")
        terminal.Type(password)


def AddNode(cluster, name, *options, **answers):
    """Add a node as a user at a terminal does; what was said."""
    terminal = cluster.At("gnt-node", "add", *options, name)
    try:
        if "--readd" not in options:
            terminal.Expect(f"Make {name}.example.com a node of this cluster")
            terminal.Type("y")
        AnswerSsh(terminal, **answers)
        code = terminal.Wait()
    finally:
        terminal.Close()
    assert code == 0, terminal.text
    return terminal.text


def Config(cluster, node="node1"):
    return json.loads(cluster.Data("config.data", node).read_text())


def InitCluster(bed, init=INIT):
    """A cluster on node1, with its network for replication."""
    bed.Ok(f"{init} --secondary-ip=198.51.100.11 cluster")


def KeyOfHost(bed, node, kind="ed25519"):
    return " ".join((bed.Root(node) / f"etc/ssh/ssh_host_{kind}_key.pub").read_text().split()[:2])


def KnowHost(bed, node, key):
    """Let root of the master know a host by a key, and no other."""
    path = bed.Root("node1") / "root/.ssh/known_hosts"
    path.write_text(f"{node}.example.com,{node} {key}\n" if key else "")


def AcceptKey(bed, node):
    """Let the master's root in without a password, as an administrator would prepare it."""
    key = (bed.Root("node1") / "root/.ssh/id_ed25519.pub").read_text()
    directory = bed.Root(node) / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "authorized_keys").write_text(key)


def HasNothing(bed, node):
    """Has a machine no secret, no key and no daemon of a cluster?"""
    key = bed.Root(node) / "root/.ssh/id_ed25519"
    assert not key.exists()
    return HasNoSecrets(bed, node)


def HasNoSecrets(bed, node):
    """Has a machine no secret and no daemon of a cluster?"""
    assert not [name for name in SECRETS if bed.Data(name, node).exists()]
    WaitFor(
        lambda: "ganeti-" not in bed.Ok("ps -e -o args=", node=node),
        timeout=10,
        what=f"the end of the daemons on {node}",
    )
    return True


def MakeCluster(bed, *nodes, init=INIT):
    """A cluster of node1 and these; root can log in on all machines by a key, and knows theirs."""
    InitCluster(bed, init)
    known = ""
    for node in bed.Nodes()[1:]:
        AcceptKey(bed, node)
        known += f"{node}.example.com {KeyOfHost(bed, node)}\n"
    (bed.Root("node1") / "root/.ssh/known_hosts").write_text(known)
    for node in nodes:
        bed.Ok("gnt-node", "add", "-f", f"--secondary-ip=198.51.100.1{node[-1]}", node)


def SameFiles(bed, node, *names):
    """Has a node these files of the data directory as the master has them?"""
    return all(bed.Data(name, node).read_bytes() == bed.Data(name).read_bytes() for name in names)


class Started:
    """An operation that runs."""

    #: Seconds in which one ends after a node that it needs died.
    SOON = 60

    def __init__(self, bed, *argv, node="node1"):
        self._said = ""
        self._proc = subprocess.Popen(
            bed.Command(*argv, node=node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def Expect(self, beginning):
        """Return once it says a line that begins so."""
        for line in self._proc.stdout:
            self._said += line
            if line.startswith(beginning):
                return
        raise AssertionError(f"the operation did not say {beginning!r}:\n{self._said}")

    def Wait(self):
        """Its end, which comes soon; (exit code, what it said)."""
        self._said += self._proc.communicate(timeout=self.SOON)[0]
        return self._proc.returncode, self._said

    def Runs(self):
        return self._proc.poll() is None
