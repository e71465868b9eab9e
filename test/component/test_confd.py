"""Real confd daemons on loopback addresses, and the real client."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeti import constants, serializer
from ganeti.confd import protocol
from ganeti.config import fake
from ganeti.runtime import fake as runtime_fake

_TREE = Path(__file__).resolve().parents[2]
_KEY = b"0123456789abcdef0123456789abcdef01234567\n"
_PORT = 18140


def _Wait(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.02)


def _Document(serial):
    document = fake.NewConfigData(runtime_fake.NewRuntime(), nodes=2)
    document["serial_no"] = serial
    return serializer.Dump(document, indent=True)


class _Node:
    """One node's root directory, and its confd."""

    def __init__(self, tmp_path, number):
        self.address = f"127.77.14.{number}"
        self.root = tmp_path / fake.NodeName(number)
        self.data_dir = self.root / "var" / "lib" / "ganeti"
        self.data_dir.mkdir(parents=True)
        self.key = self.data_dir / "hmac.key"
        self.key.write_bytes(_KEY)
        self.config = self.data_dir / "config.data"
        self.process = None

    def Command(self, *argv):
        env = {
            **os.environ,
            "GANETI_ROOTDIR": str(self.root),
            "GANETI_HOSTNAME": self.root.name,
        }
        return subprocess.Popen(
            [sys.executable, *argv],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def Write(self, serial):
        """As the node daemon does: another file in the place of the old one."""
        new = self.data_dir / "config.data.new"
        new.write_text(_Document(serial))
        new.rename(self.config)

    def Start(self):
        self.process = self.Command(
            str(_TREE / "daemons" / "ganeti-confd"), "-f", "-b", self.address, "-p", str(_PORT)
        )
        # With or without a configuration: the socket is there.
        _Wait(lambda: f"{self.address}:{_PORT}" in self.Log() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def Log(self):
        path = self.root / "var" / "log" / "ganeti" / "conf-daemon.log"
        return path.read_text() if path.exists() else ""

    def Stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=10)
            code, self.process = self.process.returncode, None
            return code
        return None

    def Ask(self, *addresses, query=("ping",)):
        """What confd-client says: exit code, standard output and error."""
        where = [word for address in addresses or (self.address,) for word in ("-a", address)]
        client = self.Command(
            str(_TREE / "tools" / "confd-client"),
            *where,
            *("-p", str(_PORT), "-t", "1", "--json"),
            *query,
        )
        out, err = client.communicate(timeout=20)
        return client.returncode, json.loads(out) if out else None, err

    def Serial(self, seconds=0.5):
        """The serial number that answers carry; None for silence."""
        request = {"protocol": 1, "type": constants.CONFD_REQ_PING, "rsalt": "r"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(seconds)
            sock.sendto(protocol.Pack(request, _KEY, str(int(time.time()))), (self.address, _PORT))
            try:
                reply, _ = protocol.Unpack(sock.recv(65536), _KEY)
            except OSError:
                return None
        return reply["serial"]


@pytest.fixture
def nodes(tmp_path):
    made = [_Node(tmp_path, number) for number in (1, 2)]
    yield made
    for node in made:
        node.Stop()


class TestDaemon:
    def test_changes_are_seen(self, nodes):
        """CF3: within 2 s, one by one and in a burst; a broken file and none are survived."""
        node = nodes[0]
        node.Write(5)
        node.Start()
        assert node.Serial() == 5

        # Still polling
        node.Write(6)
        _Wait(lambda: node.Serial() == 6, 2.5)
        # Quiet for long enough that events count
        time.sleep(4.5)
        node.Write(7)
        began = time.monotonic()
        _Wait(lambda: node.Serial() == 7, 2.5)
        assert time.monotonic() - began < 0.5, "seen by an event, not by looking"
        for serial in range(8, 30):
            node.Write(serial)
            time.sleep(0.01)
        _Wait(lambda: node.Serial() == 29, 2.5)

        node.config.write_text("{ broken")
        _Wait(lambda: node.Serial(0.1) is None, 2.5)
        node.Write(30)
        _Wait(lambda: node.Serial(0.1) == 30, 2.5)
        node.config.unlink()
        _Wait(lambda: node.Serial(0.1) is None, 2.5)
        assert node.Stop() == 0

    def test_node_that_becomes_a_candidate(self, nodes):
        """A node without a configuration is silent until it gets one, then answers at once."""
        node = nodes[0]
        node.Start()
        assert node.Serial(0.3) is None
        time.sleep(2.5)
        node.Write(3)
        _Wait(lambda: node.Serial(0.1) == 3, 2.5)

    def test_several_candidates(self, nodes):
        """CF4, CF5: the newest counts; one that is dead does not matter, master or not."""
        first, second = nodes
        first.Write(5)
        second.Write(6)
        first.Start()
        second.Start()
        code, answer, err = first.Ask(first.address, second.address, query=("master",))
        assert (code, err) == (0, "")
        assert (answer["answer"], answer["serial"]) == (fake.NodeName(1), 6)
        assert (answer["server"], answer["answered"]) == (second.address, 2)
        # The master node is gone.
        first.Stop()
        code, answer, err = second.Ask(first.address, second.address, query=("master",))
        assert (code, answer["serial"], answer["answered"]) == (0, 6, 1)
        assert "1 of 2" in err

    def test_another_key(self, nodes):
        """CF1: who has not the key gets no answer, and does no harm."""
        first, second = nodes
        first.Write(5)
        first.Start()
        second.key.write_bytes(b"another key\n")
        code, answer, err = second.Ask(first.address)
        assert code == 1
        assert answer["answered"] == 0
        assert "None of the 1 candidates" in err
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for junk in (b"", b"x", b"plj0", b"plj0{}", b"\xff" * 60000):
                sock.sendto(junk, (first.address, _PORT))
        assert first.Ask()[0] == 0

    def test_refused_starts(self, nodes):
        node = nodes[0]
        daemon = str(_TREE / "daemons" / "ganeti-confd")
        arguments = node.Command(daemon, "-f", "argument")
        assert (arguments.wait(10), "arguments" in arguments.communicate()[1]) == (1, True)
        node.key.unlink()
        no_key = node.Command(daemon, "-f")
        assert (no_key.wait(10), "hmac.key" in no_key.communicate()[1]) == (1, True)
