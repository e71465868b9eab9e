"""Live migration of KVM guests between two nodes.

The target starts a QEMU that waits for the memory of the guest; the source's QEMU is told to send
it, is watched, and ends when the guest runs over there. All that must be known meanwhile lies in
files beside the other ones of the instance, so that it does not matter which process of the node
daemon goes on:

conf/NAME.incoming on the target, until somebody has said how it went; its QEMU counts as running
  only once the guest does
conf/NAME.outgoing on the source, likewise: L{Outgoing}; once all is sent, its QEMU does not count
  as running any more
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .. import constants, errors, runtime, serializer
from . import kvm_files, kvm_stream
from .hv_base import MigrationStatus
from .kvm_qmp import QmpClient, QmpCommandError, QmpError

#: Seconds without a byte sent, or without an answer of QEMU, after which it has failed.
STALL_LIMIT: Final = 60.0
#: The same while the guest already stands still.
SWITCH_LIMIT: Final = 15.0
SILENCE_LIMIT: Final = 30.0
#: It does not converge if, after that many seconds, so many times what the first pass over the
#: memory took has been sent again (at least: that many bytes).
CONVERGENCE_TIME: Final = 60.0
CONVERGENCE_FACTOR: Final = 3
CONVERGENCE_BYTES: Final = 256 * 2**20
#: A migration is cancelled within that many seconds, and the guest runs again.
_CANCEL_TIMEOUT: Final = 15.0
_CANCEL_GRACE: Final = 2.0
#: After all is sent the guest runs on the target within that many seconds.
_ARRIVAL_TIMEOUT: Final = 60.0
_POLL: Final = 0.02
_FD_NAME: Final = "migration"

#: Of QEMU's migration status.
_OVER: Final = frozenset(["none", "completed", "failed", "cancelled"])
#: Of the state of a QEMU to which the guest comes, before it runs there. Paused is one that was
#: stopped for its migration.
_NOT_YET: Final = frozenset(["inmigrate", "prelaunch", "paused"])
#: The guest stands still while the last of it is sent.
_SWITCHING: Final = "finish-migrate"
#: The guest has been sent away completely.
_GONE: Final = "postmigrate"

Connect = Callable[[], QmpClient]
#: Address and port -> a socket connected to there.
Dial = Callable[[str, int], socket.socket]


def _Prepare(qmp: QmpClient) -> None:
    # The source then knows that the target has understood everything before it says "completed".
    wanted = [{"capability": "return-path", "state": True}]
    qmp.Execute("migrate-set-capabilities", {"capabilities": wanted})


# What is known about a migration away from here


@dataclass(frozen=True)
class Outgoing:
    """A migration away from this node. Times are of the monotonic clock, in seconds.

    @ivar was_paused: the guest did not run before; else a paused one must go on after a failure
    @ivar transferred: bytes, the last time that the number had changed
    @ivar moved_at: when that was
    @ivar first_pass: bytes that were sent when all memory had been sent once
    @ivar silent_since: QEMU has not answered since then
    @ivar complete: all was sent; stays so, whatever becomes of this QEMU
    """

    target: str
    was_paused: bool
    started: float
    moved_at: float
    transferred: int = 0
    first_pass: int | None = None
    silent_since: float | None = None
    complete: bool = False

    def Encode(self) -> str:
        """Text of the file."""
        return serializer.Dump(dataclasses.asdict(self))

    @staticmethod
    def Decode(text: str) -> Outgoing | None:
        """Read it again; None if it is something else."""
        try:
            return Outgoing(**serializer.Load(text))
        except (ValueError, TypeError):
            return None


def _Number(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value >= 0 else None


def _MiB(value: int | None) -> str:
    return "?" if value is None else f"{value / 2**20:.0f}"


def Judge(
    answer: Mapping[str, Any], note: Outgoing, now: float, state: str = "running"
) -> tuple[MigrationStatus, Outgoing]:
    """What QEMU's answer to C{query-migrate} means, and what to remember for the next time.

    @param state: what it says that the machine does
    """
    status = str(answer.get("status", "none"))
    ram = answer.get("ram") or {}
    transferred, total = _Number(ram.get("transferred")), _Number(ram.get("total"))
    remaining = _Number(ram.get("remaining"))

    if transferred is not None and transferred != note.transferred:
        note = dataclasses.replace(note, transferred=transferred, moved_at=now)
    if note.first_pass is None and (_Number(ram.get("dirty-sync-count")) or 0) > 1:
        note = dataclasses.replace(note, first_pass=transferred)
    note = dataclasses.replace(note, silent_since=None)

    def _Say(what: str, message: str = "") -> tuple[MigrationStatus, Outgoing]:
        downtime = answer.get("downtime", answer.get("expected-downtime"))
        return MigrationStatus(what, transferred, total, downtime, message), note

    if status == "completed":
        note = dataclasses.replace(note, complete=True)
        return _Say(constants.MIGRATION_COMPLETED)
    if status in ("cancelled", "cancelling"):
        return _Say(constants.MIGRATION_CANCELLED, "it was cancelled")
    if status == "failed":
        return _Say(
            constants.MIGRATION_FAILED, str(answer.get("error-desc", "QEMU does not say why"))
        )
    if status == "none":
        return _Say(constants.MIGRATION_FAILED, "no migration was started")
    # All else, also what a later QEMU may call it, is on the way, as long as it moves.
    standstill = now - note.moved_at
    if standstill >= (SWITCH_LIMIT if state == _SWITCHING else STALL_LIMIT):
        return _Say(
            constants.MIGRATION_FAILED,
            f"nothing was sent to {note.target} for {standstill:.0f} seconds (status {status},"
            f" {_MiB(transferred or 0)} MiB sent)",
        )
    if note.first_pass is not None and now - note.started >= CONVERGENCE_TIME:
        again = note.transferred - note.first_pass
        if again >= CONVERGENCE_FACTOR * max(note.first_pass, CONVERGENCE_BYTES):
            return _Say(
                constants.MIGRATION_FAILED,
                f"it does not converge: after the first pass over the memory {_MiB(again)} MiB were"
                f" sent and {_MiB(remaining)} MiB are left; the guest changes memory faster than it"
                f" is sent (raise {constants.HV_MIGRATION_BANDWIDTH} or"
                f" {constants.HV_MIGRATION_DOWNTIME}, or migrate without keeping it running)",
            )
    return _Say(constants.MIGRATION_ACTIVE, f"{status}, {_MiB(remaining)} MiB left")


def JudgeSilence(problem: str, note: Outgoing, now: float) -> tuple[MigrationStatus, Outgoing]:
    """The same if QEMU did not answer, though its process is there."""
    since = now if note.silent_since is None else note.silent_since
    note = dataclasses.replace(note, silent_since=since)
    failed = now - since >= SILENCE_LIMIT
    status = constants.MIGRATION_FAILED if failed else constants.MIGRATION_ACTIVE
    return MigrationStatus(status, note.transferred, None, None, problem), note


# The two ends


class _End:
    def __init__(self, paths: kvm_files.Paths, rt: runtime.Runtime, connect: Connect) -> None:
        self._paths = paths
        self._rt = rt
        self._connect = connect

    def State(self) -> str:
        """What QEMU says that the machine does, e.g. C{running}.

        @raise QmpError: it does not say
        """
        with self._connect() as qmp:
            return _State(qmp)

    def _Sleep(self) -> None:
        self._rt.clock.sleep(_POLL)

    def _ForgetKey(self) -> None:
        kvm_stream.RemoveKey(self._paths)
        try:
            with self._connect() as qmp:
                kvm_stream.DropKey(qmp)
        except QmpError as err:
            logging.warning("Can't take the key from instance %s: %s", self._paths.name, err)


def _State(qmp: QmpClient) -> str:
    return str(qmp.Execute("query-status")["status"])


class Target(_End):
    """The node that a guest comes to."""

    def Announce(self) -> None:
        """To be called before QEMU is started: it is no running instance."""
        self._rt.files.write(self._paths.incoming, b"", durable=False)

    def Expected(self) -> bool:
        """Has nobody said how the migration to here went?"""
        return self._rt.files.exists(self._paths.incoming)

    def Listen(self, qmp: QmpClient, pid: int, address: str, port: int, key: str) -> str:
        """Make a QEMU with C{-incoming defer} wait for the guest.

        @return: what the source needs, see L{kvm_stream.ParseEndpoint}
        @raise errors.HypervisorError: that failed
        """
        place = kvm_stream.KeyPlace.Of(self._paths, pid)
        place.Write(self._rt, key)
        _Prepare(qmp)
        # It reads the file when the source comes.
        kvm_stream.UseKey(qmp, place, "server")
        last = min(port + kvm_stream.PORTS - 1, 65535)
        first = kvm_stream.FormatEndpoint(address, port)
        qmp.Execute("migrate-incoming", {"uri": f"tcp:{first},to={last}"})
        answer = qmp.Execute("query-migrate")
        try:
            (listening,) = answer["socket-address"]
            return kvm_stream.FormatEndpoint(address, int(listening["port"]))
        except (KeyError, TypeError, ValueError):
            raise QmpError(f"QEMU does not say where it listens: {answer!r}") from None

    def HasArrived(self) -> bool:
        """Does the guest run here? Also if nobody has said so yet.

        @raise QmpError: QEMU does not say
        """
        return self.State() not in _NOT_YET

    def WaitUntilRunning(self, is_alive: Callable[[], bool]) -> None:
        """Wait for a guest of which everything was sent, and make sure that it runs.

        @raise errors.HypervisorError: it has ended, or does not run within some time
        """
        deadline = self._rt.clock.monotonic() + _ARRIVAL_TIMEOUT
        while True:
            if not is_alive():
                raise errors.HypervisorError(
                    f"QEMU has ended: {kvm_files.LogTail(self._paths.log) or 'it does not say why'}"
                )
            seen = "?"
            try:
                with self._connect() as qmp:
                    seen = _State(qmp)
                    if seen == "paused":
                        # It was stopped for its migration.
                        qmp.Execute("cont")
                    elif seen not in _NOT_YET:
                        return
            except QmpError as err:
                seen = str(err)
            if self._rt.clock.monotonic() >= deadline:
                raise errors.HypervisorError(
                    f"the guest does not run {_ARRIVAL_TIMEOUT:.0f} seconds after it was sent"
                    f" (state: {seen})"
                )
            self._Sleep()

    def Forget(self) -> None:
        """It runs here and is an instance like any other."""
        self._ForgetKey()
        self._rt.files.remove(self._paths.incoming)


class Source(_End):
    """The node that a guest leaves."""

    def __init__(
        self,
        paths: kvm_files.Paths,
        rt: runtime.Runtime,
        connect: Connect,
        dial: Dial = kvm_stream.ConnectTo,
    ) -> None:
        super().__init__(paths, rt, connect)
        self._dial = dial

    def Note(self) -> Outgoing | None:
        """What is known about a migration; None if there is none."""
        try:
            content = self._rt.files.read(self._paths.outgoing)
        except OSError:
            return None
        return Outgoing.Decode(content.decode("utf-8", "replace"))

    def _Remember(self, note: Outgoing) -> None:
        self._rt.files.write(self._paths.outgoing, note.Encode().encode(), durable=False)

    def IsLeaving(self) -> bool:
        """Has nobody said how the migration away from here went?"""
        return self._rt.files.exists(self._paths.outgoing)

    def HasLeft(self) -> bool:
        """Has everything been sent, so that the guest does not run here any more?

        @raise QmpError: QEMU does not say
        """
        return self.State() == _GONE

    def Start(self, pid: int, target: str, live: bool, hvp: Mapping[str, Any], key: str) -> None:
        """Begin to send the guest.

        @param target: see L{kvm_stream.ParseEndpoint}
        @param hvp: today's parameters
        @raise errors.HypervisorError: nothing was started, the guest goes on
        """
        address, port = kvm_stream.ParseEndpoint(target, hvp[constants.HV_MIGRATION_PORT])
        endpoint = kvm_stream.FormatEndpoint(address, port)
        place = kvm_stream.KeyPlace.Of(self._paths, pid)
        with contextlib.closing(self._dial(address, port)) as stream, self._connect() as qmp:
            state = _State(qmp)
            if state in ("inmigrate", _GONE, _SWITCHING):
                raise errors.HypervisorError(f"it does not run here (state: {state})")
            if str(qmp.Execute("query-migrate").get("status", "none")) not in _OVER:
                raise errors.HypervisorError("another migration is under way")
            now = self._rt.clock.monotonic()
            self._Remember(Outgoing(endpoint, state == "paused", now, now))
            try:
                place.Write(self._rt, key)
                _Prepare(qmp)
                kvm_stream.UseKey(qmp, place, "client")
                kvm_stream.RemoveKey(self._paths)
                parameters = {
                    "max-bandwidth": hvp[constants.HV_MIGRATION_BANDWIDTH] * 2**20,
                    "downtime-limit": hvp[constants.HV_MIGRATION_DOWNTIME],
                    # It has to be there, though keys have no names of hosts.
                    "tls-hostname": address,
                }
                qmp.Execute("migrate-set-parameters", parameters)
                if not live:
                    qmp.Execute("stop")
                qmp.GiveFile(_FD_NAME, stream.fileno())
                qmp.Execute("migrate", {"uri": f"fd:{_FD_NAME}"})
            except BaseException as err:
                self._Undo(qmp, state, isinstance(err, QmpCommandError))
                raise

    def _Undo(self, qmp: QmpClient, state: str, is_certain: bool) -> None:
        """Let the guest go on after a start that failed.

        @param is_certain: QEMU has answered all that it was told
        """
        kvm_stream.RemoveKey(self._paths)
        try:
            if state == "running" and _State(qmp) == "paused":
                qmp.Execute("cont")
        except QmpError as err:
            # The file stays: whoever ends the migration tries again.
            logging.error("Instance %s may stand still: %s", self._paths.name, err)
        else:
            if is_certain:
                self._rt.files.remove(self._paths.outgoing)

    def Status(self, is_alive: bool) -> MigrationStatus:
        """How far it is.

        @param is_alive: is there a process?
        """
        note = self.Note()
        if note is not None and note.complete:
            return MigrationStatus(constants.MIGRATION_COMPLETED, note.transferred)
        if not is_alive:
            tail = kvm_files.LogTail(self._paths.log)
            return MigrationStatus(
                constants.MIGRATION_FAILED, message=f"QEMU has ended on the source: {tail}"
            )
        now = self._rt.clock.monotonic()
        known = note or Outgoing("?", False, now, now)
        try:
            with self._connect() as qmp:
                answer = qmp.Execute("query-migrate")
                state = _State(qmp)
        except QmpError as err:
            status, known = JudgeSilence(str(err), known, now)
        else:
            status, known = Judge(answer, known, now, state)
        if note is not None and self.IsLeaving():
            self._Remember(known)
        return status

    def Cancel(self) -> None:
        """Stop sending, and let the guest go on, unless everything has been sent.

        @raise errors.HypervisorError: it goes on, or QEMU does not say
        """
        deadline = self._rt.clock.monotonic() + _CANCEL_TIMEOUT
        with self._connect() as qmp:
            status = self._CancelWith(qmp, deadline)
            if status != "completed":
                self._LetRun(qmp, deadline)

    def _CancelWith(self, qmp: QmpClient, deadline: float) -> str:
        asked_at = None
        while True:
            status = str(qmp.Execute("query-migrate").get("status", "none"))
            if status in _OVER:
                return status
            now = self._rt.clock.monotonic()
            if asked_at is None:
                qmp.Execute("migrate_cancel")
                asked_at = now
            elif status == "cancelling" and now - asked_at >= _CANCEL_GRACE:
                # It waits for the other end, which must be ended, too; but it sends nothing more.
                return status
            self._CheckTime(deadline, f"the migration can not be cancelled (status: {status})")
            self._Sleep()

    def _CheckTime(self, deadline: float, problem: str) -> None:
        if self._rt.clock.monotonic() >= deadline:
            raise errors.HypervisorError(f"{problem} within {_CANCEL_TIMEOUT:.0f} seconds")

    def _LetRun(self, qmp: QmpClient, deadline: float) -> None:
        note = self.Note()
        while True:
            state = _State(qmp)
            if state == _GONE or (state == "paused" and note is not None and not note.was_paused):
                qmp.Execute("cont")
            elif state != _SWITCHING:
                return
            self._CheckTime(deadline, f"the guest does not go on (state: {state})")
            self._Sleep()

    def GoOn(self) -> None:
        """The guest stays here. It must be certain that it does not run on the target.

        @raise errors.HypervisorError: it does not run
        """
        deadline = self._rt.clock.monotonic() + _CANCEL_TIMEOUT
        with self._connect() as qmp:
            self._CancelWith(qmp, deadline)
            self._LetRun(qmp, deadline)
        self.Forget()

    def Forget(self) -> None:
        """The migration is over, and the guest is still here."""
        self._ForgetKey()
        self._rt.files.remove(self._paths.outgoing)
