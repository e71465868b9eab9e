"""ganeti-confd: answers from the configuration over UDP (design: Ganeti Confd).

One asyncio loop with a datagram socket, an inotify descriptor and one timer. What an answer is and
when the configuration is read again is decided in L{ganeti.confd}, which knows none of these.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from .. import constants, errors, pathutils, runtime
from ..confd import reload
from ..confd import server as confd_server
from . import daemon


def _ImportInotify() -> Any:
    # pyinotify knows asyncore too, whose mere import warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import pyinotify
    # Our log is enough, and events left over from a watch that was ended are no news: it warns of
    # each of them.
    pyinotify.log.handlers.clear()
    pyinotify.log.setLevel(logging.ERROR)
    return pyinotify


class DirectoryWatcher:
    """Says when a file was written, replaced or removed, by watching its directory.

    @param on_event: called in the loop with whether the watch still stands
    """

    def __init__(
        self, path: str, on_event: Callable[[bool], object], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._directory, self._name = os.path.split(path)
        self._on_event = on_event
        self._pyinotify = _ImportInotify()
        self._manager = self._pyinotify.WatchManager()
        self._notifier = self._pyinotify.AsyncioNotifier(
            self._manager, loop, default_proc_fun=self._Process
        )
        self._watch: int | None = None
        self._mask: int = (
            self._pyinotify.IN_MOVED_TO
            | self._pyinotify.IN_MOVED_FROM
            | self._pyinotify.IN_CLOSE_WRITE
            | self._pyinotify.IN_DELETE
            | self._pyinotify.IN_MOVE_SELF
            | self._pyinotify.IN_DELETE_SELF
            | self._pyinotify.IN_ONLYDIR
        )

    def Enable(self) -> None:
        """Watch from now on. Raises InotifyError if the directory can not be watched."""
        if self._watch is not None:
            return
        result: dict[str, int] = self._manager.add_watch(self._directory, self._mask)
        watch = result.get(self._directory, -1)
        if watch < 0:
            raise errors.InotifyError(f"Can't watch the directory {self._directory}")
        self._watch = watch

    def Disable(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            watch, self._watch = self._watch, None
            self._manager.rm_watch(watch)

    def Close(self) -> None:
        """Give the inotify descriptor back."""
        self.Disable()
        self._notifier.stop()

    def _Process(self, event: Any) -> None:
        if self._watch is None or event.wd != self._watch:
            # Left over from a watch that was ended.
            return
        if event.mask & (
            self._pyinotify.IN_IGNORED
            | self._pyinotify.IN_DELETE_SELF
            | self._pyinotify.IN_MOVE_SELF
        ):
            if event.mask & self._pyinotify.IN_MOVE_SELF:
                self._manager.rm_watch(self._watch)
            self._watch = None
            self._on_event(False)
        elif event.name == self._name:
            self._on_event(True)


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams to a processor and its answers back."""

    def __init__(self, processor: confd_server.ConfdProcessor) -> None:
        self._processor = processor
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Until Python 3.12 the loops' own class is none of the declared one.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        ip, port = addr[:2]
        try:
            reply = self._processor.ExecQuery(data, ip, port)
        except Exception:  # noqa: BLE001 - one request must not end the daemon
            logging.exception("Error while answering a request from %s:%d", ip, port)
            return
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)

    def error_received(self, exc: Exception) -> None:
        logging.debug("Error on the socket: %s", exc)


class ConfdServer:
    """Ties processor, controller, timer and watcher together, within one loop."""

    def __init__(
        self,
        hmac_key: bytes,
        cfg_file: str = pathutils.CLUSTER_CONF_FILE,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self._rt = rt
        self._cfg_file = cfg_file
        self.processor = confd_server.ConfdProcessor(hmac_key, cfg_file, runtime=rt)
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: DirectoryWatcher | None = None
        self._controller: reload.ReloadController | None = None
        self._transport: asyncio.BaseTransport | None = None

    async def Start(self, bind_address: str, port: int) -> tuple[str, int]:
        """Listen and watch.

        @return: address and port that are listened on
        Raises: OSError if the address can not be had.
        """
        loop = asyncio.get_running_loop()
        self._watcher = DirectoryWatcher(self._cfg_file, self._OnEvent, loop)
        self._controller = reload.ReloadController(self.processor, self._watcher, self._rt.clock)
        self._Schedule(self._controller.Start())
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self.processor),
            local_addr=(bind_address or constants.BIND_ADDRESS_GLOBAL, port),
        )
        address: tuple[str, int] = self._transport.get_extra_info("sockname")
        return address

    def Close(self) -> None:
        """Stop listening and watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._watcher is not None:
            self._watcher.Close()

    def _Schedule(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._OnTimer)

    def _OnTimer(self) -> None:
        assert self._controller is not None
        self._Schedule(self._controller.OnTimer())

    def _OnEvent(self, still_enabled: bool) -> None:
        assert self._controller is not None
        self._Schedule(self._controller.OnEvent(still_enabled))


async def _Serve(options: argparse.Namespace, control: daemon.DaemonControl) -> int:
    server = ConfdServer(runtime.DEFAULT.files.read(pathutils.CONFD_HMAC_KEY))
    try:
        ip, port = await server.Start(options.bind, options.port)
        logging.info("Listening on %s:%d", ip, port)
        control.Started()
        await control.WaitForStop()
    finally:
        server.Close()
    return constants.EXIT_SUCCESS


def CheckConfd(options: argparse.Namespace, args: list[str]) -> int | None:
    """No arguments, and a key."""
    code = daemon.RefuseArguments(options, args)
    if code:
        return code
    if not runtime.DEFAULT.files.exists(pathutils.CONFD_HMAC_KEY):
        sys.stderr.write(
            f"There is no key {pathutils.CONFD_HMAC_KEY}: this host is no node of a cluster yet\n"
        )
        return constants.EXIT_FAILURE
    return None


def ExecConfd(
    options: argparse.Namespace, args: list[str], control: daemon.DaemonControl
) -> int | None:
    """Serve until told to stop."""
    return control.RunAsync(lambda ctl: _Serve(options, ctl))


_DESCRIPTION: Final = "Answers questions about the cluster over UDP, on every master candidate."


def Main(argv: Sequence[str] | None = None) -> int:
    """The daemon."""
    return daemon.GenericMain(
        constants.CONFD,
        daemon.BuildParser(constants.CONFD, _DESCRIPTION),
        daemon.DAEMON_DIRS[constants.CONFD],
        CheckConfd,
        ExecConfd,
        argv=argv,
    )
