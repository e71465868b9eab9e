"""What the doors do with connections, without a network: see also the component tests."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from ganeti.server import httpserver


async def _Answer(request):
    return web.Response(text="fine")


def _Server(**limits):
    return httpserver.HttpServer(_Answer, None, httpserver.Limits(**limits))


class TestHandshakes:
    """A connection is given back however its handshake ends."""

    def test_stopped_before_it_began(self):
        async def _Run():
            server = _Server()
            ours, theirs = socket.socketpair()
            server._Admit(ours, "192.0.2.1")
            # Nothing of the task has run yet.
            await server.Stop(0)
            assert ours.fileno() == -1
            assert theirs.recv(1) == b""
            theirs.close()
            statistics = server.GetStatistics()
            assert (statistics["connections"], statistics["handshakes"]) == (0, 0)

        asyncio.run(_Run())

    def test_made_room_for_another(self):
        async def _Run():
            server = _Server(handshakes_per_source=1)
            pairs = [socket.socketpair() for _ in range(3)]
            for ours, _ in pairs:
                server._Admit(ours, "192.0.2.1")
            await asyncio.sleep(0.01)
            statistics = server.GetStatistics()
            assert (statistics["connections"], statistics["dropped"]) == (1, 2)
            assert [ours.fileno() == -1 for ours, _ in pairs[:2]] == [True, True]
            await server.Stop(0)
            assert server.GetStatistics()["connections"] == 0
            for _, theirs in pairs:
                theirs.close()

        asyncio.run(_Run())
