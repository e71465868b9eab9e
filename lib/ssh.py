"""Commands and files on other nodes, as root, with the key of the cluster.

L{SshRunner} uses the OpenSSH client. L{VirtualRunner} has the same interface for the nodes of a
virtual cluster: these live on this machine, so a command for one of them is run here with the
environment of that node. L{GetRunner} chooses; nobody else needs to know.

All nodes of a cluster share a host key, known by the cluster's name; so a node is trusted from the
moment it joined, whatever address it has.
"""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Final, Protocol

from . import constants, errors, pathutils, runtime
from .utils import io, net, process, text

#: Seconds that Run waits for a connection.
CONNECT_TIMEOUT: Final = 10
#: Then a host is asked for a sign of life so often (seconds), and given up after so many in vain.
_ALIVE_INTERVAL: Final = 10
_ALIVE_COUNT: Final = 3
#: What the OpenSSH client exits with when it could not run the command.
SSH_FAILED: Final = 255


class SshRunner:
    """Runs commands on, and copies files to, the nodes of a cluster."""

    #: Prints the name of the node it is run on.
    _HOSTNAME_COMMAND = "hostname --fqdn"

    def __init__(self, cluster_name: str) -> None:
        self.cluster_name = cluster_name

    def _BuildOptions(
        self,
        batch: bool,
        ask_key: bool,
        use_cluster_key: bool,
        strict_host_check: bool,
        private_key: str | None = None,
        quiet: bool = True,
        connect_timeout: int | None = None,
    ) -> list[str]:
        if batch and ask_key:
            raise errors.ProgrammerError("SSH can't ask about host keys in batch mode")
        options = [
            "-oEscapeChar=none",
            "-oHashKnownHosts=no",
            # Files that are only read. Nothing is written down: the keys of a host that becomes a
            # node are replaced.
            f"-oGlobalKnownHostsFile={pathutils.SSH_KNOWN_HOSTS_FILE}",
            "-oUserKnownHostsFile=/dev/null",
            "-oCheckHostIp=no",
        ]
        if use_cluster_key:
            options.append(f"-oHostKeyAlias={self.cluster_name}")
        if quiet:
            # What is run and waited for says why it can not be reached.
            options.append("-q" if connect_timeout is None else "-oLogLevel=ERROR")
        if private_key:
            options += [f"-i{private_key}", "-oIdentitiesOnly=yes"]
        if connect_timeout is not None:
            options += [
                f"-oConnectTimeout={connect_timeout}",
                f"-oServerAliveInterval={_ALIVE_INTERVAL}",
                f"-oServerAliveCountMax={_ALIVE_COUNT}",
            ]
        if batch:
            options.append("-oBatchMode=yes")
        check = "ask" if ask_key else "yes" if strict_host_check else "no"
        options.append(f"-oStrictHostKeyChecking={check}")
        return options

    def BuildCmd(
        self,
        hostname: str,
        user: str,
        command: str,
        batch: bool = True,
        ask_key: bool = False,
        tty: bool = False,
        use_cluster_key: bool = True,
        strict_host_check: bool = True,
        private_key: str | None = None,
        quiet: bool = True,
        connect_timeout: int | None = None,
    ) -> list[str]:
        """Arguments that run a shell command on a host.

        Arguments:
          - command: one text, for the shell of the user over there
          - batch: never ask anything (then host keys are strictly checked or not at all)
          - ask_key: ask the user about unknown host keys
          - tty: give the command a terminal
          - use_cluster_key: look the host key up under the name of the cluster
          - strict_host_check: refuse unknown host keys
          - private_key: file with the key to use
          - quiet: no warnings of the SSH client; with a time-out still its errors
          - connect_timeout: seconds; default is that of the SSH client, which then never notices
            either that the host has gone silent later on

        Raises: ProgrammerError for batch with ask_key.
        """
        options = self._BuildOptions(
            batch,
            ask_key,
            use_cluster_key,
            strict_host_check,
            private_key,
            quiet,
            connect_timeout,
        )
        terminal = ["-t", "-t"] if tty else []
        return ["ssh", *options, *terminal, f"{user}@{hostname}", command]

    def BuildStreamCmd(self, node: str, command: str) -> list[str]:
        """Arguments that run a shell command on a node, as a part of a pipeline."""
        return self.BuildCmd(node, constants.GANETI_RUNAS, command, connect_timeout=CONNECT_TIMEOUT)

    def Run(
        self,
        hostname: str,
        user: str,
        command: str,
        batch: bool = True,
        ask_key: bool = False,
        tty: bool = False,
        use_cluster_key: bool = True,
        strict_host_check: bool = True,
        private_key: str | None = None,
        quiet: bool = True,
        input: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> process.RunResult:
        """Run a shell command on a host; see BuildCmd.

        Without batch the user may be asked for passwords on the terminal.

        Arguments: input = its standard input; timeout = seconds for all of it.
        """
        argv = self.BuildCmd(
            hostname,
            user,
            command,
            batch=batch,
            ask_key=ask_key,
            tty=tty,
            use_cluster_key=use_cluster_key,
            strict_host_check=strict_host_check,
            private_key=private_key,
            quiet=quiet,
            connect_timeout=CONNECT_TIMEOUT,
        )
        return process.RunCmd(argv, input=input, timeout=timeout, interactive=not batch)

    def BuildCopyCmd(self, node: str, filename: str) -> list[str]:
        """Arguments that copy a file to the same path on a node."""
        options = self._BuildOptions(
            batch=True,
            ask_key=False,
            use_cluster_key=True,
            strict_host_check=True,
            connect_timeout=CONNECT_TIMEOUT,
        )
        host = f"[{node}]" if ":" in node else node
        return ["scp", "-p", *options, filename, f"{host}:{filename}"]

    def PathOnNode(self, node: str, filename: str) -> str:
        """What a path of this node is called on another one, for use in a command there."""
        return filename

    def CopyFileToNode(self, node: str, filename: str) -> str | None:
        """Copy a file to the same path on a node, with its permissions and times.

        Returns: None, or why it did not work.
        """
        if not os.path.isabs(filename):
            return f"File {filename} must be an absolute path"
        if not os.path.isfile(filename):
            return f"File {filename} does not exist"
        result = process.RunCmd(self.BuildCopyCmd(node, filename))
        if not result.failed:
            return None
        problem = result.output.strip() or result.fail_reason
        logging.error("Copy of %s to node %s failed: %s", filename, node, problem)
        return problem

    def VerifyNodeHostname(self, node: str) -> tuple[bool, str | None]:
        """Whether a node can be reached, and calls itself by the name that we know it by.

        Returns: (True, None), or (False, text).
        """
        result = self.Run(node, constants.GANETI_RUNAS, self._HOSTNAME_COMMAND, quiet=False)
        return CheckHostnameResult(node, result)


def CheckHostnameResult(node: str, result: process.RunResult) -> tuple[bool, str | None]:
    """Judge the answer of a node that was asked for its name; pure."""
    if result.failed:
        output = result.output.strip()
        detail = f": {output}" if output else f": {result.fail_reason} (no output)"
        return False, f"ssh problem{detail}"
    remote = result.stdout.strip()
    if remote == node:
        return True, None
    problem = "hostname mismatch"
    if remote and node.startswith(remote + "."):
        problem = "hostname not FQDN"
    return False, f"{problem}: expected {node} but got {remote}"


class VirtualRunner(SshRunner):
    """SshRunner for a virtual cluster: everything happens on this machine, without SSH."""

    _HOSTNAME_COMMAND = 'printf "%s\\n" "$GANETI_HOSTNAME"'

    def BuildCmd(
        self,
        hostname: str,
        user: str,
        command: str,
        batch: bool = True,
        ask_key: bool = False,
        tty: bool = False,
        use_cluster_key: bool = True,
        strict_host_check: bool = True,
        private_key: str | None = None,
        quiet: bool = True,
        connect_timeout: int | None = None,
    ) -> list[str]:
        """Arguments that run a shell command as the given node; most options mean nothing here.

        A node without a root directory behaves like a host that can't be reached.
        """
        if batch and ask_key:
            raise errors.ProgrammerError("SSH can't ask about host keys in batch mode")
        name = _NodeName(hostname)
        root = pathutils.VirtualNodeRoot(name)
        if not os.path.isdir(root):
            message = f"ssh: connect to host {hostname}: there is no virtual node in {root}"
            return ["sh", "-c", f"echo {text.ShellQuote(message)} >&2; exit {SSH_FAILED}"]
        return ["env", *VirtualEnvironment(name, root), "sh", "-c", command]

    def BuildCopyCmd(self, node: str, filename: str) -> list[str]:
        """Arguments that copy a file to the same place below the root directory of a node."""
        return ["cp", "-p", "--", filename, self.PathOnNode(node, filename)]

    def PathOnNode(self, node: str, filename: str) -> str:
        """The same place below the root directory of that node."""
        return pathutils.VirtualNodeRoot(_NodeName(node)) + _WithoutRoot(filename)

    def CopyFileToNode(self, node: str, filename: str) -> str | None:
        """Copy a file to the same place below the root directory of a node."""
        target = self.PathOnNode(node, filename)
        if os.path.exists(target) and os.path.exists(filename):
            if os.path.samefile(filename, target):
                return None
            # A read-only file is replaced, as root would do on a real node.
            io.RemoveFile(target)
        return super().CopyFileToNode(node, filename)


def VirtualEnvironment(name: str, root: str) -> list[str]:
    """Variables that make a process one of the given virtual node, in the form NAME=value.

    The interpreter that runs us comes first in the search path, so that the executables of the
    suite find its libraries.
    """
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    search_path = text.UniqueSequence([os.path.dirname(sys.executable), *path])
    return [
        f"GANETI_ROOTDIR={root}",
        f"GANETI_HOSTNAME={name}",
        f"PATH={os.pathsep.join(search_path)}",
    ]


def _NodeName(hostname: str) -> str:
    """Full name of a virtual node given by name, short name or address."""
    try:
        return net.HostInfo(hostname).name
    except (errors.ResolverError, errors.OpPrereqError):
        return hostname


def _WithoutRoot(filename: str) -> str:
    """A path of this virtual node without the root directory."""
    root = pathutils.ROOTDIR
    return filename.removeprefix(root) if filename.startswith(root + "/") else filename


def GetRunner(cluster_name: str) -> SshRunner:
    """The way to other nodes that this cluster has."""
    return VirtualRunner(cluster_name) if pathutils.IsVirtual() else SshRunner(cluster_name)


# Files


def GetUserFiles(
    user: str, mkdir: bool = False, key_type: str = constants.SSH_USER_KEY_TYPE
) -> tuple[str, str, str]:
    """(private key, public key, authorized keys) of a user.

    Arguments: mkdir = make the directory (mode 0700) if it is missing; key_type as in the names of
    the files (C{ed25519}, C{rsa}, C{dsa}).

    Raises: OpExecError if the user has no home directory, or no directory for such files in it.
    """
    home = io.GetHomeDir(user)
    if not home:
        raise errors.OpExecError(f"Cannot resolve home directory of user '{user}'")
    directory = os.path.join(pathutils.AddRoot(home), ".ssh")
    if mkdir and not os.path.lexists(directory):
        io.Makedirs(os.path.dirname(directory), mode=0o700)
        io.EnsureDirs([(directory, 0o700)])
    elif not os.path.isdir(directory):
        raise errors.OpExecError(f"Path {directory} is not a directory")
    private = os.path.join(directory, f"id_{key_type}")
    return private, f"{private}.pub", os.path.join(directory, "authorized_keys")


def AddAuthorizedKey(file_name: str, key: str) -> None:
    """Add a public key to a file of authorized keys, unless it is there already.

    The file is made if it is missing; white space does not tell keys apart.
    """
    lines = _ReadKeyLines(file_name)
    if key.split() in (line.split() for line in lines):
        return
    _WriteKeyLines(file_name, [*lines, key.strip()])


def RemoveAuthorizedKey(file_name: str, key: str) -> None:
    """Remove all lines with a public key from a file of authorized keys; the others stay."""
    words = key.split()
    lines = _ReadKeyLines(file_name)
    kept = [line for line in lines if line.split() != words]
    if kept != lines:
        _WriteKeyLines(file_name, kept)


def _ReadKeyLines(file_name: str) -> list[str]:
    try:
        return io.ReadFile(file_name).splitlines()
    except FileNotFoundError:
        return []


def _WriteKeyLines(file_name: str, lines: Iterable[str]) -> None:
    # Replaced as a whole: an interrupted write must not lock the administrator out.
    data = "".join(f"{line}\n" for line in lines)
    io.WriteFile(file_name, data=data, mode=0o600, keep_owner=True)


class _HostKeySource(Protocol):
    def GetClusterName(self) -> str: ...

    def GetHostKey(self) -> str: ...


def FormatKnownHosts(cluster_name: str, keys: Iterable[tuple[str, str]]) -> str:
    """Content of the cluster's known_hosts file from (type, base64 text) of its host keys."""
    return "".join(f"{cluster_name} {key_type} {key}\n" for key_type, key in keys)


def WriteKnownHostsFile(
    cfg: _HostKeySource, file_name: str, runtime: runtime.Runtime = runtime.DEFAULT
) -> None:
    """Write the cluster's host key for the SSH client (mode 0600)."""
    content = FormatKnownHosts(cfg.GetClusterName(), [("ssh-rsa", cfg.GetHostKey())])
    runtime.files.write(file_name, content.encode("ascii"), mode=0o600)
