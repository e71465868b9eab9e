"""Every problem that cluster verify can find, in clusters that exist nowhere.

For whoever wants to see the messages, or writes a program that reads them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .. import constants, objects
from . import verify_checks as checks
from .verify_state import Problem, State

_MASTER: Final = "simulated-master"
_NODE: Final = "simulated-node"
_AWAY: Final = "simulated-offline-node"
_INSTANCE: Final = "simulated-instance"
_CONFIG: Final = "/simulated/config.data"
_FILE: Final = "/simulated/file"
_SECRET: Final = "/simulated/secret"
_VG: Final = "simulated-vg"
_NOW: Final = 1_000_000_000


def _GoodAnswer() -> dict[str, Any]:
    return {
        constants.NV_VERSION: [constants.PROTOCOL_VERSION, constants.RELEASE_VERSION],
        constants.NV_HYPERVISOR: {"simulated": None},
        constants.NV_NODESETUP: [],
        constants.NV_NODELIST: {},
        constants.NV_NODENETTEST: {},
        constants.NV_MASTERIP: True,
        constants.NV_FILELIST: {_FILE: "1", _SECRET: "1"},
        constants.NV_TIME: [_NOW, 0],
        constants.NV_INSTANCELIST: [],
        constants.NV_HVINFO: {"memory_free": 4096},
        constants.NV_VGLIST: {_VG: 2 * constants.MIN_VG_SIZE},
        constants.NV_PVLIST: [],
        constants.NV_LVLIST: {},
        constants.NV_DRBDLIST: [],
    }


#: What a node can say that is wrong, each by itself.
_WRONG_ANSWERS: Final[tuple[Mapping[str, Any] | None, ...]] = (
    None,
    {constants.NV_VERSION: None},
    {constants.NV_VERSION: [constants.PROTOCOL_VERSION + 1, "simulated"]},
    {constants.NV_VERSION: [constants.PROTOCOL_VERSION, "simulated"]},
    {constants.NV_HYPERVISOR: None},
    {constants.NV_HYPERVISOR: {"simulated": "simulated error"}},
    {constants.NV_NODESETUP: None},
    {constants.NV_NODESETUP: ["simulated error"]},
    {constants.NV_NODELIST: None},
    {constants.NV_NODELIST: {_MASTER: "simulated error"}},
    {constants.NV_NODENETTEST: None},
    {constants.NV_NODENETTEST: {_MASTER: "simulated error"}},
    {constants.NV_MASTERIP: None},
    {constants.NV_MASTERIP: False},
    {constants.NV_FILELIST: None},
    {constants.NV_FILELIST: {_SECRET: "1"}},
    {constants.NV_FILELIST: {_FILE: "2", _SECRET: "1"}},
    {constants.NV_FILELIST: {_FILE: "1", _SECRET: "2"}},
    {constants.NV_FILELIST: {_FILE: "1", _SECRET: "1", _CONFIG: "1"}},
    {constants.NV_FILELIST: {_FILE: "1", _SECRET: "1", _CONFIG: "2"}},
    {constants.NV_FILELIST: {_FILE: "1", _SECRET: "1", "/simulated/missing-on-master": "1"}},
    {constants.NV_TIME: None},
    {constants.NV_TIME: [_NOW + 1000, 0]},
    {constants.NV_INSTANCELIST: "simulated error"},
    {constants.NV_INSTANCELIST: ["simulated-unknown-instance"]},
    {constants.NV_HVINFO: {}},
    {constants.NV_HVINFO: {"memory_free": "simulated"}},
    {constants.NV_HVINFO: {"memory_free": 1}},
    {constants.NV_VGLIST: None},
    {constants.NV_VGLIST: {"other-vg": 1}},
    {constants.NV_VGLIST: {_VG: "simulated"}},
    {constants.NV_VGLIST: {_VG: 1}},
    {constants.NV_PVLIST: None},
    {constants.NV_PVLIST: [[1, "/dev/simulated:1", _VG]]},
    {constants.NV_LVLIST: "simulated error"},
    {constants.NV_LVLIST: {"simulated-unknown-volume": ["1", False, False]}},
    {constants.NV_DRBDLIST: "simulated error"},
    {constants.NV_DRBDLIST: [7]},
)


def _NewDisk(nodes: tuple[str, str]) -> objects.Disk:
    volume = objects.Disk(dev_type=constants.LD_LV, logical_id=(_VG, "simulated-volume"), size=1)
    return objects.Disk(
        dev_type=constants.LD_DRBD8,
        logical_id=(*nodes, 11000, 0, 0, "simulated"),
        children=[volume],
        size=1,
    )


def _NewState() -> State:
    """Nothing is wrong with it."""
    nodes = {
        name: objects.Node(name=name, master_candidate=False, offline=name == _AWAY, drained=False)
        for name in (_MASTER, _NODE, _AWAY)
    }
    instance = objects.Instance(
        name=_INSTANCE, primary_node=_MASTER, admin_up=False, disks=[], disk_template="diskless"
    )
    return State(
        nodes=nodes,
        instances={_INSTANCE: instance},
        master=_MASTER,
        vg_name=_VG,
        answers={_MASTER: _GoodAnswer(), _NODE: _GoodAnswer()},
        failures={},
        files={_FILE: False, _SECRET: False, _CONFIG: True, "/simulated/missing-on-master": False},
        checksums={_FILE: "1", _SECRET: "1", _CONFIG: "1"},
        drbd_map={},
        window=(_NOW, _NOW),
        backend={_INSTANCE: {constants.BE_AUTO_BALANCE: True, constants.BE_MEMORY: 128}},
        secret=frozenset([_SECRET]),
    )


def _WrongStates() -> Iterator[State]:
    for values in _WRONG_ANSWERS:
        state = _NewState()
        answer = None if values is None else {**_GoodAnswer(), **values}
        state.answers = {**state.answers, _NODE: answer}
        if values is not None and constants.NV_HVINFO in values:
            state.instances[_INSTANCE].disks = [_NewDisk((_MASTER, _NODE))]
            for name in state.answers:
                state.answers[name][constants.NV_LVLIST] = {"simulated-volume": ["1", False, True]}
        yield state
    state = _NewState()
    state.answers = {_MASTER: {**_GoodAnswer(), constants.NV_MASTERIP: False}}
    state.failures = {_NODE: "simulated error"}
    state.instances[_INSTANCE].primary_node = _NODE
    yield state
    state = _NewState()
    state.drbd_map = {_NODE: {0: _INSTANCE, 1: "simulated-unknown-instance"}}
    state.instances[_INSTANCE].admin_up = True
    yield state
    # Instances
    for primary in ("simulated-unknown-node", _AWAY):
        state = _NewState()
        state.instances[_INSTANCE].primary_node = primary
        yield state
    state = _NewState()
    state.instances[_INSTANCE].disks = [_NewDisk((_MASTER, _AWAY)), _NewDisk((_MASTER, _NODE))]
    yield state
    state = _NewState()
    mirrored = copy.deepcopy(state.instances[_INSTANCE])
    mirrored.disk_template = constants.DT_DRBD8
    mirrored.disks = [_NewDisk((_MASTER, _NODE))]
    state.instances = {_INSTANCE: mirrored}
    yield state
    state = _NewState()
    state.answers[_NODE][constants.NV_INSTANCELIST] = [_INSTANCE]
    yield state


def SimulatedProblems() -> Iterator[Problem]:
    """Problems of all kinds, each text once."""
    seen: set[Problem] = set()
    for state in _WrongStates():
        found = [
            problem
            for name in state.nodes
            if not state.nodes[name].offline
            for problem in checks.CheckNode(state, name)
        ]
        for name in state.instances:
            found += checks.CheckInstance(state, name)
        found += checks.CheckOrphanVolumes(state)
        found += checks.CheckOrphanInstances(state)
        found += checks.CheckNPlusOne(state)
        for problem in found:
            if problem not in seen:
                seen.add(problem)
                yield problem
    # These are found by other means than the functions above.
    for code, item in (
        (constants.CV_ECLUSTERCFG, None),
        (constants.CV_ECLUSTERCERT, None),
        (constants.CV_ENODEHOOKS, _NODE),
    ):
        yield Problem(code, item, "Simulated error")
