"""A running cluster against what one of release 2.1.8 printed, answered and wrote (BASE1).

The recorded cluster is set up again: one node, the fake hypervisor, three instances. Then what was
asked of it is asked again, in the same order. Names, columns, keys, types, orders, streams and exit
statuses must be the same; wording, times and figures need not. Where this suite does otherwise on
purpose, a table says why.

The tests are one story: each finds what those before it left.
"""

import hashlib
import hmac
import http.client
import json
import re
import shlex
import shutil
import socket
import ssl
import time
from base64 import b64encode

import pytest

from vc import TREE, WaitFor

GOLDEN = TREE / "test/data/golden"
NODE = "node1.example.com"
ONE, TWO, THREE = (f"inst{number}.example.com" for number in (1, 2, 3))

#: What tells every recorded creation from the defaults.
QUIET = ("--no-ip-check", "--no-name-check", f"--node={NODE}", "--os-type=noop")

#: Keys beyond the recorded ones, for clients of later generations and for what the design adds.
LATER_KEYS = {
    "always_failover",
    "cnos",
    "ctime",
    "debug_simulate_errors",
    "default_iallocator",
    "disk.names",
    "disk.spindles",
    "disk.uuids",
    "diskparams",
    "shared_file_storage_dir",
    "group.uuid",
    "ipolicy",
    "master_capable",
    "maxmem",
    "minmem",
    "ndparams",
    "nic.names",
    "nic.networks",
    "nic.networks.names",
    "nic.uuids",
    "oper_vcpus",
    "spfree",
    "spindle_use",
    "sptotal",
    "uuid",
    "vm_capable",
}

#: Parameters of hypervisors, of which there are more.
OF_HYPERVISORS = {"hvparams", "os_hvp"}


def Kind(value):
    """The JSON type of a value; whole numbers are not told from others where both may stand."""
    if isinstance(value, bool):
        return "bool"
    return {int: "number", float: "number", str: "string", type(None): "null"}.get(
        type(value), type(value).__name__
    )


def Differences(old, new, where="$"):
    """Where a value is of another shape than a recorded one: a list of texts.

    Keys that were there must be there; new ones must be known. Each element of a list must look
    like one of the recorded ones. Nothing is said about values that were null or are now; the
    memory of an instance that is stopped is a dash.
    """
    if old is None or new is None:
        return []
    if Kind(old) != Kind(new) and "-" not in (old, new):
        return [f"{where}: {Kind(old)} {old!r} is {Kind(new)} {new!r} now"]
    if isinstance(old, dict):
        found = [f"{where}: {key!r} lacks" for key in sorted(set(old) - set(new))]
        found += [f"{where}: {key!r} is new" for key in sorted(set(new) - set(old) - LATER_KEYS)]
        for key in sorted(set(old) & set(new) - OF_HYPERVISORS):
            found += Differences(old[key], new[key], f"{where}.{key}")
        return found
    if isinstance(old, list) and old:
        if len(old) == len(new):
            pairs = [[before] for before in old]
        else:
            pairs = [old] * len(new)
        found = []
        for number, (candidates, value) in enumerate(zip(pairs, new, strict=True)):
            tries = [Differences(one, value, f"{where}[{number}]") for one in candidates]
            found += min(tries, key=len)
        return found
    return []


def _WriteOs(cluster, name, version, variants=None):
    """An OS definition whose scripts do nothing."""
    directory = cluster.Root() / "srv/ganeti/os" / name
    directory.mkdir()
    for script in ("create", "import", "export", "rename"):
        (directory / script).write_text("#!/bin/sh\nexit 0\n")
        (directory / script).chmod(0o755)
    (directory / "ganeti_api_version").write_text(f"{version}\n")
    if variants:
        (directory / "variants.list").write_text(f"{variants}\n")


@pytest.fixture(scope="module")
def cluster(NewCluster):
    """The recorded cluster."""
    cluster = NewCluster("--nodes=1")
    with (cluster.Root() / "etc/hosts").open("a") as hosts:
        hosts.write(f"{cluster.Address().rpartition('.')[0]}.99\tinst9.example.com\n")
    for link in (cluster.Root() / "srv/ganeti/os").iterdir():
        link.unlink()
    _WriteOs(cluster, "noop", 10)
    _WriteOs(cluster, "debootstrap", 15, "default")
    # A name that is not in use, but known
    with (cluster.Root() / "etc/hosts").open("a") as fobj:
        fobj.write("10.77.20.9 inst9.example.com\n")
    routed = "mode=routed,link=lo"
    for argv in (
        ["-t", "diskless", "-H", "fake", "-B", "memory=64,vcpus=2"]
        + [f"--net=0:ip=10.77.20.5,{routed}", ONE],
        ["-t", "file", "-H", "fake", "-B", "memory=128", "--disk=0:size=16m"]
        + ["--disk=1:size=20m,mode=ro", f"--net=0:ip=10.77.20.6,{routed}"]
        + [f"--net=1:ip=10.77.20.7,mac=aa:00:00:11:22:33,{routed}", TWO],
        ["-t", "diskless", "-H", "fake", "--no-nics", "--no-start", THREE],
    ):
        cluster.Ok("gnt-instance", "add", *QUIET, *argv)
    cluster.Ok("gnt-cluster", "add-tags", "eu")
    cluster.Ok("gnt-node", "add-tags", NODE, "rack:a1")
    cluster.Ok("gnt-instance", "add-tags", ONE, "web", "prod:1")
    cluster.Ok("gnt-instance", "modify", "-B", "memory=96", ONE)
    argv = list(QUIET)
    argv[2] = "--node=nosuch.example.com"
    result = cluster.Run("gnt-instance", "add", *argv, "-t", "diskless", "inst9.example.com")
    assert result.code == 1
    # Up to here every job has the id that it had
    cluster.Ok("gnt-cluster", "modify", "-N", "link=lo", "--uid-pool=1000-1009,2000")
    return cluster


# Commands


class Recorded:
    """One recorded command."""

    def __init__(self, text):
        self.command, _, rest = text.partition("\n")
        output, _, status = rest.rpartition("---- exit status ")
        self.code = int(status)
        self.out, _, self.err = output.partition("---- standard error\n")

    def __repr__(self):
        return self.command


def _Commands():
    # As they were recorded: some leave behind what later ones meet
    names = ("instance-list", "instance-info", "instance-errors", "instance-lifecycle")
    names += ("node", "cluster", "os-backup-debug", "job")
    for name in names:
        text = (GOLDEN / "cli" / f"{name}.txt").read_text()
        for part in re.split(r"(?m)^==== ", text)[1:]:
            yield Recorded(part)


COMMANDS = list(_Commands())

_NORMAL = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\[\d{10}, \d+\]", "TIME"),
    (r"\b\d\.\d{6}\b", "SECONDS"),
    (r"\baa:00:00(:[0-9a-f]{2}){3}\b", "MAC"),
    (r"\b(job|jobs|Job) [1-9]\d*(, \d+)*", r"\1 N"),
    (r"(?m)^\d+: inst", "N: inst"),
    (r"(?m)^(Serial number:) \d+", r"\1 N"),
    (r"sync disks\.|in sync\.", lambda match: match[0][:-1]),
    (r"/usr/share/ganeti/os", "/srv/ganeti/os"),
    # Definitions of API 20 can be used too
    (r"(OS api version): 15", r"\1: 20"),
    (r"web,prod:1", "prod:1,web"),
    # An instance without disks is stored once, as one that is up
    (r"(prod:1,web):\d+:", r"\1:N:"),
    (r"(?m) +$", ""),
    (r" +", " "),
)


def Normal(text, cluster=None):
    """A text without what differs from cluster to cluster and from one moment to the next."""
    if cluster is not None:
        text = text.replace(str(cluster.Root()), "")
        text = text.replace(cluster.Address(), "10.77.0.1")
    for pattern, instead in _NORMAL:
        text = re.sub(pattern, instead, text)
    # Dictionaries have an order now
    return re.sub(
        r"\{([^{}]*)\}", lambda match: f"{{{', '.join(sorted(match[1].split(', ')))}}}", text
    )


# How outputs may differ: each returns what must be the same


def _Same(text):
    return text


def _InAnyOrder(text):
    """Lists were in no order, and are sorted now."""
    return sorted(re.sub(r"inst[^:]+,inst[^:]+", "INSTANCES", text).splitlines())


def _WithoutFigures(text):
    """Memory and disks of machines differ; nodes have a time of creation now."""
    text = re.sub(r"\b\d+(\.\d+)?[MG]?(?=[ :])", "N", text.replace(":N/A:", ":TIME:"))
    return _InAnyOrder(re.sub(r"(N N N) \d+ \d+", r"\1", text))


def _Names(text):
    """Of a usage text: the commands."""
    return re.findall(r"(?m)^ ([a-z-]+) - ", text)


def _FirstColumns(text):
    return [line.split()[:2] for line in text.splitlines()]


def _Nothing(_):
    return None


def _Fields(text):
    """Of a job's details: the names and the texts of the log, as often as they come."""
    return sorted(re.sub(r": .*", "", line) for line in text.splitlines())


def _Sections(text):
    """Of the verification: its sections and remarks, without what was wrong with that machine."""
    return [line for line in text.splitlines() if "ERROR" not in line]


def _WithoutParameters(text):
    """Of an instance: all but which of its parameters are inherited, at the end."""
    return re.sub(r"(?m)^ +Parameters:\n(?: .*(?:\n|\Z))*", "", text).rstrip("\n")


#: What of an output must be as it was, where it is not all of it.
COMPARED = {
    "gnt-instance info inst2.example.com": _WithoutParameters,
    "gnt-instance info -s inst1.example.com inst3.example.com": _WithoutParameters,
    "gnt-instance": _Names,
    "gnt-instance nosuch": _Names,
    # A command of the virtual node's own instead of an SSH command
    "gnt-instance console --show-cmd inst1.example.com": _Nothing,
    "gnt-node list": _WithoutFigures,
    "gnt-node list-storage --storage-type=file": _FirstColumns,
    "gnt-node list-storage --storage-type=file -o node,type,name,size,used,free,allocatable": (
        _FirstColumns
    ),
    "gnt-cluster verify": _Sections,
    # There, a disk had grown by a defect of the recorded cluster
    "gnt-cluster repair-disk-sizes": _Nothing,
    "gnt-os list": _InAnyOrder,
    "gnt-os list --no-headers": _InAnyOrder,
    "gnt-os diagnose": _InAnyOrder,
    # Asks for a field that exists now
    "gnt-job list --no-headers --separator=: -o id,status,priority,received_ts": _Nothing,
    # In the order of names now
    "gnt-job info 2": _Fields,
    "gnt-job info 9": _Fields,
    "gnt-backup export -n node1.example.com inst3.example.com": _Nothing,
    "gnt-backup remove nosuch": _Nothing,
    # Of jobs that are over it reads first
    "gnt-node failover -f node1.example.com": _InAnyOrder,
}

#: Output beyond the recorded one, at the end.
MORE_OUTPUT = {"gnt-cluster info": "Default disk parameters:"}

#: And in the middle.
MORE_LINES = {
    "gnt-cluster info": (
        " - shared file storage path: /srv/ganeti/shared-file-storage\n",
        " - default instance allocator: (none)\n",
    )
}

#: Exit statuses and error kinds that are others on purpose.
OTHER_STATUS = {
    # Said success though jobs had failed
    "gnt-instance reinstall -f inst3.example.com": 1,
    "gnt-node failover -f node1.example.com": 1,
    "gnt-job cancel 3": 1,
    # An instance without disks can be exported
    "gnt-backup export -n node1.example.com inst3.example.com": 0,
    # That machine's SSH and /proc were wrong
    "gnt-cluster verify": 0,
    "gnt-job list --no-headers --separator=: -o id,status,priority,received_ts": 0,
}
OTHER_ERRORS = {
    # Say what is wrong now
    "gnt-instance add -t file -o noop -n node1.example.com inst9.example.com",
    "gnt-instance add -t file --disk 0:size=abc -o noop -n node1.example.com inst9.example.com",
    "gnt-debug submit-job /nosuch.json",
    "gnt-debug allocator --mode allocate inst9 -d 0",
    # What nodes refuse is a prerequisite that is not met
    "gnt-os modify -H kvm:acpi=false noop",
    # Says now that nothing was archived
    "gnt-job archive 0",
    *OTHER_STATUS,
}


def _Jobs(text):
    """Of a list of jobs: their summaries in order, without jobs that are no longer needed."""
    summaries = [line.split(" ", 2)[2] for line in text.splitlines()[1:]]
    return [text for text in summaries if text != "OS_DIAGNOSE"]


class TestCommands:
    @pytest.mark.parametrize("recorded", COMMANDS, ids=repr)
    def test_as_it_was(self, cluster, recorded):
        command = recorded.command
        result = cluster.Run(*shlex.split(command))
        assert "Traceback" not in result.err
        missing = re.search(r"\S+ (is|are) not implemented\b.*", result.err + result.out)
        if missing:
            pytest.xfail(missing[0])
        assert result.code == OTHER_STATUS.get(command, recorded.code), result.err
        if command not in OTHER_ERRORS:
            assert bool(result.err) == bool(recorded.err), result.err
            kinds = [re.findall(r"error type: (\w+)", text) for text in (recorded.err, result.err)]
            assert kinds[1] == kinds[0]
        before, now = Normal(recorded.out), Normal(result.out, cluster)
        if command in MORE_OUTPUT:
            now, mark, _ = now.partition(MORE_OUTPUT[command])
            assert mark
        for line in MORE_LINES.get(command, ()):
            assert line in now
            now = now.replace(line, "")
        if command == "gnt-job list":
            rest = iter(_Jobs(now))
            assert [text for text in _Jobs(before) if text not in rest] == []
            return
        compare = COMPARED.get(command, _WithoutFigures if "mtotal" in command else _Same)
        assert compare(now) == compare(before)


# LUXI


def _Frames():
    """(title, request text, answer or None)."""
    text = (GOLDEN / "luxi/dialogue.txt").read_text()
    for part in re.split(r"(?m)^==== ", text)[1:]:
        title, _, rest = part.partition("\n")
        request, _, answer = rest.partition("\n<< ")
        closed = answer.startswith("(connection closed")
        yield title, request.removeprefix(">> "), None if closed else json.loads(answer)


#: Requests that are refused now: what is malformed is told before a job is made of it.
REFUSED_NOW = {"submit a job that lacks a required parameter"}
#: Requests that succeed here: the recorded cluster had lost this instance before.
ACCEPTED_NOW = {"one instance, several types"}

#: Types of the fields of an instance that the dialogue asks for.
INSTANCE_TYPES = {
    "name": str,
    "oper_state": bool,
    "oper_ram": int,
    "be/memory": int,
    "tags": list,
    "disk.sizes": list,
    "disk.size/1": int,
    "disk.size/7": type(None),
    "nic.macs": list,
    "nic.ip/1": str,
    "snodes": list,
    "admin_state": bool,
    "beparams": dict,
    "hvparams": dict,
    "network_port": type(None),
    "ctime": float,
    "uuid": str,
    "serial_no": int,
}


class Luxi:
    """A connection to the master daemon, byte by byte."""

    def __init__(self, cluster):
        self._path = str(cluster.Root() / "var/run/ganeti/socket/ganeti-master")
        self._sock = None

    def Send(self, text):
        """Send a frame; the answer, or None if the connection was closed without one."""
        if self._sock is None:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.settimeout(30)
            self._sock.connect(self._path)
        self._sock.sendall(text.encode() + b"\x03")
        data = b""
        while not data.endswith(b"\x03"):
            chunk = self._sock.recv(65536)
            if not chunk:
                self.Close()
                return json.loads(data) if data else None
            data += chunk
        return json.loads(data[:-1])

    def Close(self):
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class TestLuxi:
    def test_dialogue(self, cluster):
        """Every frame is answered with the same keys, types, truth and kind of error."""
        # It had none there
        shutil.rmtree(cluster.Root() / "srv/ganeti/export", ignore_errors=True)
        connection = Luxi(cluster)
        ids = {"9": "9", "99999": "99999"}
        problems = []
        for title, request, recorded in _Frames():
            if "wait for a free worker" in title:
                delay = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "on_master": True}
                busy = {"method": "SubmitManyJobs", "args": [[{**delay, "on_nodes": []}]] * 30}
                assert connection.Send(json.dumps(busy))["success"]
            if '"SetWatcherPause", "args": [1' in request:
                request = re.sub(r"\d{10}", str(int(time.time()) + 60), request)
            request = re.sub(r'"(\d+)"', lambda match: f'"{ids.get(match[1], match[1])}"', request)
            if recorded is not None and "QueryJobs" in request and "unknown" not in title:
                job = ids.get("10")
                WaitFor(lambda job=job: self._HasEnded(connection, job), 10, f"end of {job}")
            answer = connection.Send(request)
            problems += [f"{title}: {text}" for text in self._Compare(title, recorded, answer)]
            self._Learn(recorded, answer, ids)
            if recorded is None:
                # Whether the connection still is of use is the server's choice
                connection.Close()
        assert problems == []

    @staticmethod
    def _HasEnded(connection, job):
        request = {"method": "QueryJobs", "args": [[job], ["status"]]}
        return connection.Send(json.dumps(request))["result"] == [["success"]]

    @staticmethod
    def _Learn(recorded, answer, ids):
        """Remember the ids of new jobs."""
        pairs = []
        if recorded and isinstance(recorded["result"], str) and answer["success"]:
            pairs = [(recorded["result"], answer["result"])]
        for old, new in pairs:
            if old.isdigit():
                ids[old] = new

    @staticmethod
    def _Compare(title, recorded, answer):
        if recorded is None:
            # An answer is better than silence
            return [] if answer is None or answer["success"] is False else ["is accepted"]
        if set(answer) != {"success", "result"}:
            return [f"keys {sorted(answer)}"]
        if title in ACCEPTED_NOW:
            ((*values,),) = answer["result"]
            pairs = zip(INSTANCE_TYPES.items(), values, strict=True)
            return [f"{name} is {v!r}" for (name, kind), v in pairs if type(v) is not kind]
        if title in REFUSED_NOW:
            return [] if answer["success"] is False else ["is accepted"]
        if answer["success"] != recorded["success"]:
            return [f"{recorded} is {answer} now"]
        old, new = recorded["result"], answer["result"]
        if not answer["success"]:
            if isinstance(old, str):
                return [] if new else ["says nothing"]
            same = new[0] == old[0] and new[1][1:] == old[1][1:]
            return [] if same else [f"{old} is {new} now"]
        if isinstance(old, list) and old and isinstance(old[0], bool) and new[0] is not old[0]:
            return [f"{old} is {new} now"]
        if old is None or isinstance(old, bool):
            return [] if new is old else [f"{old} is {new} now"]
        return Differences(old, new)


# Remote API


class Exchange:
    """A recorded request with its answer."""

    def __init__(self, text):
        head, *sections = re.split(r"(?m)^---- ", text)
        self.method, self.target, *note = head.split(None, 2)
        self.anonymous = bool(note and "no Authorization" in note[0])
        self.body = None
        if sections[0].startswith("request body\n"):
            self.body = sections.pop(0).removeprefix("request body\n").strip()
        first, _, rest = sections[0].partition("\n")
        self.status = int(first.split()[0]) if first[0].isdigit() else None
        lines = rest.split("\n")
        self.answer = json.loads("\n".join(lines[3:])) if self.status else None

    def __repr__(self):
        return f"{self.method} {self.target} {self.body or ''}"


EXCHANGES = [
    Exchange(part) for part in (GOLDEN / "rapi/dialogue.txt").read_text().split("==== ")[1:]
]

#: Answers that are to the letter what they were.
LITERAL = {"/", "/2", "/version", "/2/nodes", "/2/nodes/node1.example.com/role"}

#: What was an accident then: the daemon got itself in trouble, or hung up.
OTHER_ANSWER = {("GET", "/2/jobs/2/wait"): 400}


@pytest.fixture(scope="module")
def password(cluster):
    return cluster.Data("rapi_users").read_text().split()[1]


@pytest.fixture(scope="module")
def context(cluster):
    return ssl.create_default_context(cafile=str(cluster.Data("rapi.pem")))


class TestRapi:
    @pytest.mark.parametrize("exchange", EXCHANGES, ids=repr)
    def test_dialogue(self, cluster, password, context, exchange):
        connection = http.client.HTTPSConnection(
            cluster.Address(), 5080, timeout=30, context=context
        )
        headers = {}
        if not exchange.anonymous:
            headers["Authorization"] = "Basic " + b64encode(f"admin:{password}".encode()).decode()
        connection.request(exchange.method, exchange.target, exchange.body, headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()

        expected = OTHER_ANSWER.get((exchange.method, exchange.target), exchange.status or 400)
        assert answer.status == expected, document
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Connection"] == "close"
        assert answer.headers["Server"].startswith("Ganeti ")
        if answer.status != 200:
            assert set(document) == {"code", "message", "explain"}
            assert document["code"] == answer.status
            if exchange.status == answer.status:
                assert document["explain"] == exchange.answer["explain"]
        elif exchange.target in LITERAL and exchange.method == "GET":
            assert document == exchange.answer
        elif exchange.target == "/2/features":
            # There are more now
            assert set(exchange.answer) <= set(document)
        else:
            assert Differences(exchange.answer, document) == []

    def test_the_jobs_did_what_they_should(self, cluster):
        """Not just ids: the tags are there, the dry run left nothing, the rest is as before."""

        def AllEnded():
            rows = cluster.Table("gnt-job", "list", "-o", "status")
            return not {"queued", "waiting", "running"} & {row[0] for row in rows}

        WaitFor(AllEnded, 20, "the end of all jobs")
        assert cluster.Ok("gnt-cluster", "list-tags").split() == ["b", "eu"]
        rows = cluster.Table("gnt-instance", "list", "-o", "name")
        assert rows == [[ONE], [TWO], [THREE]]
        # The master can not be taken offline
        assert cluster.Table("gnt-node", "list", "-o", "role") == [["M"]]


# Datagrams


class TestConfd:
    """CF2: all recorded queries, signed anew."""

    def _Ask(self, cluster, message):
        key = cluster.Data("hmac.key").read_bytes()
        salt = str(int(time.time()))
        digest = hmac.new(key, (salt + message).encode(), hashlib.sha1).hexdigest()
        envelope = {"msg": message, "salt": salt, "hmac": digest}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.sendto(b"plj0" + json.dumps(envelope).encode(), (cluster.Address(), 1814))
            try:
                data = sock.recv(65536)
            except TimeoutError:
                return None
        assert data.startswith(b"plj0")
        answer = json.loads(data[4:])
        signed = (answer["salt"] + answer["msg"]).encode()
        assert answer["hmac"] == hmac.new(key, signed, hashlib.sha1).hexdigest()
        return answer["salt"], json.loads(answer["msg"])

    def test_dialogue(self, cluster):
        serial = cluster.Config()["serial_no"]
        ping = json.dumps({"protocol": 1, "type": 0, "rsalt": "x"})
        WaitFor(lambda: self._Ask(cluster, ping)[1]["serial"] == serial, 10, "confd's serial")
        asked = 0
        for part in re.split(r"(?m)^==== ", (GOLDEN / "confd/dialogue.txt").read_text())[1:]:
            title, sent, *received = part.strip().splitlines()
            if not sent.startswith(">> plj0{") or "<< plj0" not in "".join(received):
                # Messages that got no answer are wrong in the envelope: tested elsewhere
                continue
            message = json.loads(sent.removeprefix(">> plj0"))["msg"]
            salt, answer = self._Ask(cluster, message)
            recorded = json.loads(received[0].removeprefix("<< plj0"))
            expected = json.loads(recorded["msg"])
            text = json.dumps(answer).replace(cluster.Address(), "10.77.0.1")
            master_ip = cluster.Config()["cluster"]["master_ip"]
            answer = json.loads(text.replace(master_ip, "10.77.0.2"))
            assert salt == recorded["salt"]
            assert answer.pop("serial") == serial
            expected.pop("serial")
            assert answer == expected, title
            asked += 1
        assert asked > 10


# Files


def _Line(text):
    """How a job is written: one line of JSON with sorted keys."""
    return json.dumps(json.loads(text), sort_keys=True) + "\n"


class TestFiles:
    """BASE4: what older and other programs read."""

    def test_configuration(self, cluster):
        text = (GOLDEN / "state/config.data").read_text()
        assert Differences(json.loads(text), cluster.Config()) == []
        for one in (text, cluster.Data("config.data").read_text()):
            assert json.dumps(json.loads(one), indent=2, sort_keys=True) == one.rstrip("\n")

    @pytest.mark.parametrize("number", [2, 3, 9])
    def test_job(self, cluster, number):
        text = (GOLDEN / f"state/queue/job-{number}").read_text()
        now = cluster.Data(f"queue/job-{number}").read_text()
        assert _Line(text) == text
        assert _Line(now).replace(" ", "") == now.replace(" ", "")
        assert Differences(json.loads(text), json.loads(now)) == []

    def test_queue(self, cluster):
        assert re.fullmatch(r"\d+\n", cluster.Data("queue/serial").read_text())
        assert cluster.Data("queue/version").read_text() == "1\n"

    @pytest.mark.parametrize(
        "path", sorted((GOLDEN / "state").glob("ssconf_*")), ids=lambda path: path.name
    )
    def test_ssconf(self, cluster, path):
        text = cluster.Data(path.name).read_text()
        text = text.replace(cluster.Address(), "10.77.0.1")
        text = text.replace(cluster.Config()["cluster"]["master_ip"], "10.77.0.2")
        assert sorted(text.splitlines()) == sorted(path.read_text().splitlines())
        assert cluster.Data(path.name).stat().st_mode & 0o777 == 0o444
