"""The recorded dialogue of a 2.1 cluster, played against the resources and a master in memory."""

import base64
import json
import re
from pathlib import Path

import pytest

from ganeti import constants
from ganeti.rapi import auth, baserlib, dispatch, fake
from ganeti.runtime import fake as fake_runtime

DIALOGUE = Path(__file__).parents[1] / "data" / "golden" / "rapi" / "dialogue.txt"
USER = "admin"
PASSWORD = "secret"

#: Answers that differ on purpose: the server of old got itself in trouble there.
DIFFERENT_STATUS = {("GET", "/2/jobs/2/wait"): 400}

#: Moved on while the dialogue was recorded.
VOLATILE_KEYS = {"mtime", "mfree"}

#: Keys beyond the recorded ones, for clients of later generations.
LATER_KEYS = {
    "ipolicy",
    "cnos",
    "group.uuid",
    "master_capable",
    "ndparams",
    "spfree",
    "sptotal",
    "vm_capable",
    "disk.names",
    "disk.spindles",
    "nic.names",
    "nic.networks",
    "nic.networks.names",
    "oper_vcpus",
    "always_failover",
    "maxmem",
    "minmem",
    "spindle_use",
}


class Exchange:
    """One request and its answer."""

    def __init__(self, text):
        head, *sections = re.split(r"(?m)^---- ", text)
        self.method, self.target, *note = head.split(None, 2)
        self.anonymous = bool(note and "no Authorization" in note[0])
        self.body = b""
        if sections[0].startswith("request body\n"):
            self.body = sections.pop(0).removeprefix("request body\n").strip().encode()
        first, _, rest = sections[0].partition("\n")
        self.status = int(first.split()[0]) if first[0].isdigit() else None
        lines = rest.split("\n")
        self.headers = dict(line.split(": ", 1) for line in lines[:3] if ": " in line)
        self.answer = json.loads("\n".join(lines[3:])) if self.status else None
        self.text = "\n".join(lines[3:]).rstrip("\n") + "\n"

    def __repr__(self):
        return f"{self.method} {self.target}"


def _ReadDialogue():
    return [Exchange(part) for part in DIALOGUE.read_text().split("==== ")[1:]]


EXCHANGES = _ReadDialogue()


def _Find(method, target):
    return next(e for e in EXCHANGES if (e.method, e.target) == (method, target))


@pytest.fixture
def master():
    found = fake.FakeMaster()
    found.info = _Find("GET", "/2/info").answer
    found.instances = _Find("GET", "/2/instances?bulk=1").answer
    found.nodes = _Find("GET", "/2/nodes?bulk=1").answer
    recorded = {
        job["id"]: job
        for job in (_Find("GET", "/2/jobs/2").answer, _Find("GET", "/2/jobs/9").answer)
    }
    ids = [entry["id"] for entry in _Find("GET", "/2/jobs").answer]
    # The queue's own order is by number
    found.jobs = [recorded.get(job_id, {"id": job_id}) for job_id in sorted(ids, key=int)]
    found.next_job_id = 1000
    found.results = lambda ops: (
        constants.JOB_STATUS_SUCCESS,
        [[["noop", True, []], ["debootstrap", True, ["default"]], ["broken", False, []]]],
    )
    return found


@pytest.fixture
def dispatcher(master):
    rt = fake_runtime.NewRuntime()
    rt.files.write("/users", f"{USER} {PASSWORD} write\n".encode())
    context = baserlib.Context(
        client_factory=master.Connect,
        cluster_tags=lambda: ["eu", "b"],
        anonymous_jobs=baserlib.TokenBucket(5, 1.0, rt),
        runtime=rt,
    )
    return dispatch.Dispatcher(context, auth.UsersFile(["/users"], rt))


def _Send(dispatcher, exchange):
    header = None
    if not exchange.anonymous:
        header = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    return dispatcher.Handle(
        dispatch.RawRequest(exchange.method, exchange.target, header, exchange.body)
    )


def _Comparable(value):
    if isinstance(value, dict):
        return {
            key: None if key in VOLATILE_KEYS else _Comparable(item)
            for key, item in value.items()
            if key not in LATER_KEYS
        }
    if isinstance(value, list):
        return [_Comparable(item) for item in value]
    return value


def test_the_whole_dialogue_is_read():
    assert len(EXCHANGES) == 48
    assert sum(1 for exchange in EXCHANGES if exchange.status == 200) > 30


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[f"{n}-{e}" for n, e in enumerate(EXCHANGES)])
def test_dialogue(exchange, dispatcher, master):
    """BASE1: same status, same keys, same values, same form."""
    recorded_id = exchange.answer if isinstance(exchange.answer, str) else ""
    if recorded_id.isdigit():
        master.next_job_id = int(recorded_id)

    answer = _Send(dispatcher, exchange)

    # What was dropped without an answer is a bad request now
    expected = DIFFERENT_STATUS.get((exchange.method, exchange.target), exchange.status or 400)
    assert answer.status == expected
    value = json.loads(answer.body)
    if answer.status != 200:
        assert set(value) == {"code", "message", "explain"}
        assert value["code"] == answer.status
        assert isinstance(value["message"], str) and value["message"]
        if answer.status == exchange.status:
            assert value["explain"] == exchange.answer["explain"]
        return
    if exchange.target == "/2/features":
        # There are more by now.
        assert value[: len(exchange.answer)] == exchange.answer
        return
    assert _Comparable(value) == _Comparable(exchange.answer)
    if value == exchange.answer:
        assert answer.body.decode("ascii") == exchange.text
    assert master.open_clients == 0


def test_what_the_recorded_creation_submits(dispatcher, master):
    """The job of the recorded creation has the opcode that the recorded cluster made of it."""
    exchange = next(e for e in EXCHANGES if e.target == "/2/instances" and b"inst7" in e.body)
    _Send(dispatcher, exchange)
    ((op,),) = master.submitted
    recorded = _Find("GET", "/2/jobs/2").answer["ops"][0]
    assert op["OP_ID"] == recorded["OP_ID"]
    assert op["instance_name"] == "inst7.example.com"
    assert op["start"] is False
    # Nothing that the recorded opcode does not have
    assert set(op) <= set(recorded)


def test_dry_run_of_the_recorded_creation(dispatcher, master):
    exchange = _Find("POST", "/2/instances?dry-run=1")
    _Send(dispatcher, exchange)
    assert master.submitted[0][0]["dry_run"] is True
