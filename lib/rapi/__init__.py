"""The remote HTTP API, version 2: resources, users, and a client.

L{connector} is the table of resources, C{rlib_*} what each does, L{dispatch} the way of a request
from its bytes to those of the answer, L{auth} who may. None of them knows sockets: the server is
L{ganeti.server.rapi}. L{client} stands alone and needs nothing else of the suite.
"""
