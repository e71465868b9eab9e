"""Answers from the configuration over UDP, from every master candidate, master or not.

L{protocol} is what a datagram looks like, L{querylib} what can be asked, L{server} how a request
becomes an answer, L{reload} when the configuration is read again, L{client} how to ask several
candidates and whom to believe. None but the client knows of sockets (design: Ganeti Confd).
"""

from __future__ import annotations

from .protocol import PackMagic, UnpackMagic

__all__ = ["PackMagic", "UnpackMagic"]
