"""Figures of node calls: latency of one, throughput of many, against the floor of plain sockets.

Run it by hand: C{python test/bench/bench_rpc.py}. Starts a node daemon on a loopback address.
"""

import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

ROOT = tempfile.mkdtemp(prefix="bench-rpc-")
NODE = "node1.example.com"
ADDRESS = "127.77.21.1"
os.environ["GANETI_ROOTDIR"] = os.path.join(ROOT, NODE)
os.environ["GANETI_HOSTNAME"] = NODE

from ganeti import constants, pathutils, rpc  # noqa: E402 - the root directory comes first
from ganeti.rpc.transport import CurlTransport  # noqa: E402
from ganeti.utils import x509  # noqa: E402

NODED = Path(__file__).resolve().parents[2] / "daemons" / "ganeti-noded"
ROUNDS = 500
#: About the size of a request and an answer on the wire.
REQUEST, ANSWER = b"q" * 180, b"a" * 200


def Measure(fn, rounds=ROUNDS):
    """Median and 95th percentile in microseconds."""
    for _ in range(20):
        fn()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        fn()
        times.append((time.perf_counter() - start) * 1e6)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.95)]


def Serve(sock):
    with sock:
        while sock.recv(65536):
            sock.sendall(ANSWER)


def PlainFloor(context_pair=None):
    """A round trip over one connection, without HTTP, with or without TLS."""
    listener = socket.create_server((ADDRESS, 0))

    def Accept():
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Serve(peer if context_pair is None else context_pair[0].wrap_socket(peer, server_side=True))

    threading.Thread(target=Accept, daemon=True).start()
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context_pair is not None:
        client = context_pair[1].wrap_socket(client)

    def Call():
        client.sendall(REQUEST)
        client.recv(65536)

    result = Measure(Call)
    client.close()
    listener.close()
    return result


def MakeContexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pathutils.NODED_CERT_FILE)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


def StartNoded():
    os.makedirs(pathutils.DATA_DIR)
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS))
    Path(pathutils.ETC_HOSTS).write_text(f"{ADDRESS} {NODE}\n", encoding="ascii")
    x509.GenerateSelfSignedSslCert(pathutils.NODED_CERT_FILE)
    daemon = subprocess.Popen([sys.executable, NODED, "-f", "-b", ADDRESS])
    while True:
        with socket.socket() as sock:
            if sock.connect_ex((ADDRESS, constants.DEFAULT_NODED_PORT)) == 0:
                return daemon
        time.sleep(0.05)


def Show(what, median, high, floor):
    print(f"{what:44} {median:9.0f} us   95% {high:9.0f} us   {median / floor:6.1f} x floor")


def Main():
    daemon = StartNoded()
    transport = CurlTransport()
    rpc.Init(transport=transport)
    where = {"address_list": [ADDRESS]}
    try:
        plain, tls = PlainFloor(), PlainFloor(MakeContexts())
        floor = tls[0]
        Show("plain socket round trip", *plain, floor)
        Show("TLS socket round trip (floor)", *tls, floor)
        Show("version", *Measure(lambda: rpc.RpcRunner.call_version(["n"], **where)), floor)
        path = pathutils.QUEUE_DIR + "/job-1"
        job = "x" * 2000
        update = Measure(
            lambda: rpc.RpcRunner.call_jobqueue_update(["n"], [ADDRESS], path, job), 200
        )
        Show("jobqueue_update, 2 kB, synced", *update, floor)
        rpc_once = Measure(
            lambda: rpc.RpcRunner.call_node_leave_cluster("n", "no bool", **where), 200
        )
        Show("refused call on a new connection", *rpc_once, floor)
        names = [f"n{number}" for number in range(30)]
        many = Measure(lambda: rpc.RpcRunner.call_version(names, address_list=[ADDRESS] * 30), 50)
        Show("version of 30 nodes at once", *many, floor)

        start = time.perf_counter()
        with futures.ThreadPoolExecutor(25) as pool:
            list(pool.map(lambda _: rpc.RpcRunner.call_version(["n"], **where), range(2000)))
        rate = 2000 / (time.perf_counter() - start)
        print(f"{'calls of 25 threads':44} {rate:9.0f} per second")
        print(transport.GetStatistics())
    finally:
        rpc.Shutdown()
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    Main()
