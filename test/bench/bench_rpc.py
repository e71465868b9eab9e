"""Figures of node calls: latency of one, throughput of many, against the floor of plain sockets.

Starts a node daemon on a loopback address, below the root directory of this process.
"""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

from ganeti import constants, pathutils, rpc
from ganeti.rpc.transport import CurlTransport
from ganeti.utils import x509

from . import floors

NODE = "node1.example.com"
ADDRESS = "127.77.21.1"
NODED = Path(__file__).resolve().parents[2] / "daemons" / "ganeti-noded"
#: About the size of a request and an answer on the wire.
REQUEST, ANSWER = b"q" * 180, b"a" * 200
#: Nodes that are asked at once.
MANY = 30


def _Median(fn, rounds):
    """Milliseconds."""
    floors.Times(fn, 20)
    return floors.Median(fn, rounds) * 1e3


def Serve(sock):
    with sock:
        while sock.recv(65536):
            sock.sendall(ANSWER)


def TlsFloor(rounds):
    """Milliseconds of a round trip over one TLS connection, without HTTP."""
    server_context, client_context = _MakeContexts()
    listener = socket.create_server((ADDRESS, 0))

    def Accept():
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Serve(server_context.wrap_socket(peer, server_side=True))

    threading.Thread(target=Accept, daemon=True).start()
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client = client_context.wrap_socket(client)

    def Call():
        client.sendall(REQUEST)
        client.recv(65536)

    result = _Median(Call, rounds)
    client.close()
    listener.close()
    return result


def _MakeContexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pathutils.NODED_CERT_FILE)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


def _StartNoded():
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS))
    Path(pathutils.ETC_HOSTS).write_text(f"{ADDRESS} {NODE}\n", encoding="ascii")
    x509.GenerateSelfSignedSslCert(pathutils.NODED_CERT_FILE)
    daemon = subprocess.Popen([sys.executable, NODED, "-f", "-b", ADDRESS])
    while True:
        with socket.socket() as sock:
            if sock.connect_ex((ADDRESS, constants.DEFAULT_NODED_PORT)) == 0:
                return daemon
        time.sleep(0.05)


def Calls(rounds):
    """Milliseconds of calls, each after a warm-up; and calls a second of 25 threads."""
    daemon = _StartNoded()
    rpc.Init(transport=CurlTransport())
    path = os.path.join(pathutils.QUEUE_DIR, "job-1")
    names = [f"n{number}" for number in range(MANY)]

    def _Version():
        return rpc.RpcRunner.call_version(["n"], address_list=[ADDRESS])

    try:
        result = _Version()["n"]
        if result.fail_msg:
            raise RuntimeError(result.fail_msg)
        found = {
            "floor": TlsFloor(rounds),
            "version": _Median(_Version, rounds),
            "update": _Median(
                lambda: rpc.RpcRunner.call_jobqueue_update(["n"], [ADDRESS], path, "x" * 2000),
                rounds,
            ),
            "write": floors.Median(
                lambda: floors.WriteDurably(os.path.join(pathutils.DATA_DIR, "f"), b"x" * 2000),
                rounds,
            )
            * 1e3,
            "many": _Median(
                lambda: rpc.RpcRunner.call_version(names, address_list=[ADDRESS] * MANY),
                max(5, rounds // 5),
            ),
        }
        found["write"] += found["floor"]
        found["floor many"] = found["floor"] * MANY
        count = rounds * 8
        start = time.perf_counter()
        with futures.ThreadPoolExecutor(25) as pool:
            list(pool.map(lambda _: _Version(), range(count)))
        found["rate"] = count / (time.perf_counter() - start)
        found["floor rate"] = 1e3 / found["floor"]
        return found
    finally:
        rpc.Shutdown()
        daemon.terminate()
        daemon.wait()
