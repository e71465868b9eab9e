"""The way of a Xen guest from one node to another: C{xl migrate} and what carries its stream.

C{xl} pipes the stream through a command. Here that is socat on both sides, with TLS, where both
ends show the cluster's certificate: no other machine can send a guest, or receive one, and nobody
can read its memory on the way. socat runs as root beside the guest, not as the guest, so that the
certificate's key is in good hands.

What must be known between two calls of the node daemon lies in files:

NAME.listener   target: process group that waits for the guest
NAME.listen-log target: what it said
NAME.sender     source: process that runs C{xl migrate}
NAME.transport  source: process that carries the stream, started by C{xl}
NAME.log        source: what C{xl} said
NAME.status     source: exit code of C{xl migrate}; there is none before it has ended
NAME.cancelled  source: it was told to end
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .. import constants, errors, pathutils, runtime
from ..utils import process, text
from .hv_base import MigrationStatus

#: So many ports from migration_port on are tried.
PORTS: Final = 64
#: Seconds until a process that was started says that it listens.
_LISTEN_TIMEOUT: Final = 10.0
#: Seconds after the transport was cut in which C{xl} lets the guest go on.
_CANCEL_TIMEOUT: Final = 60.0
_POLL: Final = 0.1
#: End of the identity of a process that does not run.
_ENDED: Final = " ended"
_LOG_LINES: Final = 5

#: Starts a program that goes on without us; arguments: command, file for its output.
Start = Callable[[list[str], str], int]

#: $1 configuration, $2 instance, $3 transport, $4 log, $5 status. The status appears as a whole.
_SEND_SCRIPT: Final = (
    'xl migrate -s "" -C "$1" "$2" "$3" >"$4" 2>&1 </dev/null; echo $? >"$5.new"; mv "$5.new" "$5"'
)


# Pure parts


def FormatEndpoint(address: str, port: int) -> str:
    """An address with a port."""
    return f"{address}:{port}"


def ParseEndpoint(endpoint: str, port: int) -> tuple[str, int]:
    """(address, port) of what L{FormatEndpoint} made, or of a mere address.

    @param port: the one to use if there is none in the text
    """
    address, colon, number = endpoint.partition(":")
    return address, int(number) if colon else port


def _Tls(cert_file: str) -> str:
    # Every node has the same certificate, which is its own authority; names are not looked at.
    return f"cert={cert_file},cafile={cert_file},verify=1"


def ListenCommand(address: str, port: int, cert_file: str) -> list[str]:
    """Command that waits for a guest and hands it to C{xl migrate-receive}."""
    # fork: somebody who only looks whether the port is open must not use it up.
    listen = f"OPENSSL-LISTEN:{port},bind={address},reuseaddr,fork,{_Tls(cert_file)}"
    return [pathutils.SOCAT_PATH, "-d", "-d", listen, "EXEC:xl migrate-receive"]


def Transport(address: str, port: int, cert_file: str, pid_file: str) -> str:
    """Shell command that C{xl} is to send a guest through."""
    connect = f"OPENSSL:{address}:{port},commonname=,no-sni=1,{_Tls(cert_file)}"
    command = text.ShellQuoteArgs([pathutils.SOCAT_PATH, "STDIO", connect])
    return f"echo $$ >{text.ShellQuote(pid_file)}; exec {command}"


def IsListening(log: str) -> bool:
    """Does socat say in its log that it waits for connections?"""
    return re.search(r"\slistening on\s", log) is not None


def Judge(
    status: str | None, is_alive: bool, was_started: bool, was_cancelled: bool, log: str
) -> MigrationStatus:
    """What to say of a migration.

    @param status: exit code that C{xl migrate} left behind, None: none
    @param is_alive: does it still run?
    @param log: what it said
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", log) if line.strip()]
    message = "; ".join(lines[-_LOG_LINES:])
    if status is None and is_alive:
        return MigrationStatus(
            constants.MIGRATION_ACTIVE, message=lines[-1] if lines else "xl migrate has started"
        )
    if status is None:
        what = (
            "xl migrate has ended without a result" if was_started else "no migration was started"
        )
        return MigrationStatus(
            constants.MIGRATION_FAILED, message=": ".join(filter(None, (what, message)))
        )
    if status.strip() == "0":
        return MigrationStatus(constants.MIGRATION_COMPLETED)
    if was_cancelled:
        return MigrationStatus(constants.MIGRATION_CANCELLED, message=message)
    return MigrationStatus(
        constants.MIGRATION_FAILED, message=message or f"xl migrate ended with {status.strip()}"
    )


# Effects


def StartDetached(argv: list[str], output: str) -> int:
    """Start a program that goes on without us, in a process group of its own; its id."""
    return process.StartDaemonProcess(argv, output=output)


@dataclass(frozen=True)
class Processes:
    """How processes that outlive a call are found and ended. For tests to replace."""

    start: Start = StartDetached
    kill_group: Callable[[int, int], None] = os.killpg

    @staticmethod
    def IsAlive(identity: str) -> bool:
        """Does the process that L{Identify} told of still run?"""
        return identity == Identify(_Pid(identity)) and not identity.endswith(_ENDED)


def Identify(pid: int) -> str:
    """What a process is known by: its id, which is used again, and when it was started.

    Its command line will not do: for a moment after it was started there is none.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as fobj:
            # The name before may have any characters.
            fields = fobj.read().rpartition(")")[2].split()
    except OSError:
        return f"{pid}{_ENDED}"
    return f"{pid}{_ENDED}" if fields[0] in "ZX" else f"{pid} {fields[19]}"


def _IsTransport(pid: int) -> bool:
    """Is that socat, as L{Transport} starts it? For looking again and again."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as fobj:
            return b"\0OPENSSL:" in fobj.read()
    except OSError:
        return False


def _Pid(identity: str) -> int:
    number = identity.partition(" ")[0]
    return int(number) if number.isdigit() else 0


class _Files:
    """The files of one instance's migration."""

    def __init__(self, rt: runtime.Runtime, directory: str, name: str) -> None:
        self._rt = rt
        self._prefix = f"{directory}/{name}"

    def Path(self, what: str) -> str:
        return f"{self._prefix}.{what}"

    def Read(self, what: str) -> str | None:
        try:
            return self._rt.files.read(self.Path(what)).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as err:
            raise errors.HypervisorError(f"Can't read the state of a migration: {err}") from err

    def Write(self, what: str, content: str = "") -> None:
        try:
            self._rt.files.write(self.Path(what), content.encode(), durable=False)
        except OSError as err:
            raise errors.HypervisorError(f"Can't write the state of a migration: {err}") from err

    def Remove(self, *names: str) -> None:
        for what in names:
            self._rt.files.remove(self.Path(what))


class _End:
    """What both ends of a migration have."""

    def __init__(
        self,
        rt: runtime.Runtime,
        directory: str,
        name: str,
        cert_file: str = pathutils.NODED_CERT_FILE,
        processes: Processes | None = None,
    ) -> None:
        self._rt = rt
        self._name = name
        self._cert_file = cert_file
        self._processes = processes or Processes()
        self._files = _Files(rt, directory, name)


class Incoming(_End):
    """A guest that is to come here."""

    def Listen(self, address: str, port: int) -> str:
        """Wait for the guest, in a process of its own; what the source needs to find it.

        @raise errors.HypervisorError: no port is free, or socat does not work
        """
        self.Stop()
        problem = ""
        for candidate in range(port, min(port + PORTS, 65536)):
            self._files.Remove("listen-log")
            argv = ListenCommand(address, candidate, self._cert_file)
            try:
                pid = self._processes.start(argv, self._files.Path("listen-log"))
            except errors.OpExecError as err:
                raise errors.HypervisorError(f"Can't wait for {self._name}: {err}") from err
            self._files.Write("listener", Identify(pid))
            if self._WaitUntilListening(pid):
                return FormatEndpoint(address, candidate)
            problem = (self._files.Read("listen-log") or "").strip()
            self.Stop()
            if "Address already in use" not in problem:
                break
        raise errors.HypervisorError(
            f"Can't wait for {self._name} at {address}, port {port} and following: {problem}"
        )

    def _WaitUntilListening(self, pid: int) -> bool:
        deadline = self._rt.clock.monotonic() + _LISTEN_TIMEOUT
        while self._rt.clock.monotonic() < deadline:
            # In this order: it may have ended after it said so, but not without that.
            alive = process.IsProcessAlive(pid)
            if IsListening(self._files.Read("listen-log") or ""):
                return True
            if not alive:
                return False
            self._rt.clock.sleep(_POLL / 10)
        return False

    def Stop(self) -> None:
        """Wait no longer; a transfer that goes on is cut."""
        identity = self._files.Read("listener") or ""
        if self._processes.IsAlive(identity):
            with contextlib.suppress(ProcessLookupError):
                self._processes.kill_group(_Pid(identity), signal.SIGKILL)
        self._files.Remove("listener", "listen-log")


class Outgoing(_End):
    """A guest that is to leave."""

    def Send(self, config_file: str, address: str, port: int) -> None:
        """Start to send the guest.

        @raise errors.HypervisorError: it can't be started, or is under way
        """
        if self._IsAlive():
            raise errors.HypervisorError(f"Instance {self._name} is migrating already")
        self.Forget()
        transport = Transport(address, port, self._cert_file, self._files.Path("transport"))
        argv = ["sh", "-c", _SEND_SCRIPT, "sh", config_file, self._name, transport]
        argv += [self._files.Path("log"), self._files.Path("status")]
        try:
            pid = self._processes.start(argv, os.devnull)
        except errors.OpExecError as err:
            raise errors.HypervisorError(f"Can't migrate {self._name}: {err}") from err
        self._files.Write("sender", Identify(pid))

    def _IsAlive(self) -> bool:
        return self._processes.IsAlive(self._files.Read("sender") or "")

    def Status(self) -> MigrationStatus:
        """How far it is."""
        # In this order: it may end in between, and leaves its status before it does.
        alive = self._IsAlive()
        return Judge(
            self._files.Read("status"),
            alive,
            self._files.Read("sender") is not None,
            self._files.Read("cancelled") is not None,
            self._files.Read("log") or "",
        )

    def Cancel(self) -> None:
        """End it, unless it is over.

        Only the transport is ended: C{xl} then makes the guest go on, which it would not do if it
        were ended itself.

        @raise errors.HypervisorError: C{xl} does not end
        """
        if self.Status().status != constants.MIGRATION_ACTIVE:
            return
        self._files.Write("cancelled")
        deadline = self._rt.clock.monotonic() + _CANCEL_TIMEOUT
        while self.Status().status == constants.MIGRATION_ACTIVE:
            pid = _Pid((self._files.Read("transport") or "").strip())
            if _IsTransport(pid):
                process.KillProcess(pid, timeout=0)
            if self._rt.clock.monotonic() > deadline:
                raise errors.HypervisorError(
                    f"xl does not end the migration of {self._name} though its connection was cut"
                )
            self._rt.clock.sleep(_POLL)

    def Forget(self) -> None:
        """Remove what is known about it."""
        self._files.Remove("sender", "transport", "log", "status", "cancelled")
