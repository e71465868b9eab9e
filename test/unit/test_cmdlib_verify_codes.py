"""Cluster verify from the outside: every code, provoked in a cluster of three nodes."""

import os
import re
import shlex

import pytest

from ganeti import constants, objects, opcodes, pathutils
from ganeti.client import clustercheck, gnt_backup, gnt_cluster, gnt_instance, gnt_node
from ganeti.cmdlib import fake, verify_simulation, verify_state
from ganeti.config import fake as config_fake
from ganeti.utils import io, x509

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME = "inst1.example.com"
DAY = 24 * 3600

CODES = {
    value[1]
    for name, value in vars(constants).items()
    if name.startswith("CV_E") and isinstance(value, tuple)
}


def _Write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    io.WriteFile(path, data=data)


def _WriteCertificate(world, path, validity=1000 * DAY):
    pair = x509.GenerateSelfSignedX509Cert(validity=validity, runtime=world.runtime)
    _Write(path, pair.pem)


@pytest.fixture
def world():
    """A cluster with which nothing is wrong."""
    world = fake.NewWorld(3)
    certificates = (pathutils.NODED_CERT_FILE, pathutils.RAPI_CERT_FILE)
    for path in certificates:
        _WriteCertificate(world, path)
    obj = world.cfg.GetClusterInfo()
    obj.modify_etc_hosts = False
    world.cfg.Update(obj, None)
    yield world
    for path in certificates:
        io.RemoveFile(path)


def Verify(world, **options):
    """(result, [(severity, code, item, text)], other lines)."""
    values = {
        "verbose": False,
        "error_codes": True,
        "debug_simulate_errors": False,
        "skip_checks": [],
        **options,
    }
    result = world.Run(opcodes.OpClusterVerify(**values))
    found = [
        (problem["severity"], problem["code"], problem["item"], problem["message"])
        for problem in clustercheck.ParseReport(world.log)["problems"]
    ]
    return result, found, [line for line in world.log if line.startswith("* ")]


def AddInstance(world, disks=(), primary=NODE2, up=True, running=True, **values):
    instance = config_fake.NewInstance(NAME, primary, disks=list(disks), admin_up=up, **values)
    world.cfg.AddInstance(instance, None)
    if running:
        world.rpc.nodes[primary].running[NAME] = 128


def _Volume(name="disk0"):
    return objects.Disk(dev_type="lvm", logical_id=("xenvg", name), size=8, mode="rw")


def _Mirror(secondary=NODE3, port=10900, name="disk0"):
    return config_fake.NewDrbdDisk((NODE2, secondary), port, (port % 100, 0), f"s{port}", name)


def _Answers(key, value, node=NODE2):
    return lambda world: world.rpc.nodes[node].answers.update({key: value})


def _Modify(world, **values):
    obj = world.cfg.GetClusterInfo()
    for name, value in values.items():
        setattr(obj, name, value)
    world.cfg.Update(obj, None)


def _Offline(world, name):
    node = world.cfg.GetNodeInfo(name)
    node.offline, node.master_candidate = True, False
    world.cfg.Update(node, None)


def _Ordinary(world, name):
    _Modify(world, candidate_pool_size=2)
    node = world.cfg.GetNodeInfo(name)
    node.master_candidate = False
    world.cfg.Update(node, None)


# Things that go wrong


def _ConfigurationWrong(world):
    _Modify(world, enabled_hypervisors=["fake", "nosuch"], hvparams={"fake": {}, "nosuch": {}})


def _Expired(world):
    _WriteCertificate(world, pathutils.RAPI_CERT_FILE, validity=DAY)
    world.runtime.clock.Advance(2 * DAY)


def _ExpiresSoon(world):
    _WriteCertificate(world, pathutils.NODED_CERT_FILE, validity=20 * DAY + 60)


def _NoCertificate(world):
    _Write(pathutils.NODED_CERT_FILE, "nothing")


def _Down(world):
    AddInstance(world, running=False)


def _WrongNode(world):
    AddInstance(world)
    world.rpc.nodes[NODE3].running[NAME] = 128


def _BrokenOffMigration(world):
    AddInstance(world, running=False, disk_template="sharedfile")
    world.rpc.nodes[NODE3].running[NAME] = 128


def _PrimaryOffline(world):
    AddInstance(world)
    _Offline(world, NODE2)


def _SecondaryOffline(world):
    AddInstance(world, [_Mirror()], disk_template="drbd", up=False, running=False)
    _PutVolumes(world)
    _Offline(world, NODE3)


def _PutVolumes(world):
    for volume in ("disk0.data", "disk0.meta"):
        for name in (NODE2, NODE3):
            world.rpc.nodes[name].lvs[volume] = ("8", False, True)


def _TwoSecondaries(world):
    disks = [_Mirror(), _Mirror(NODE1, 10901, "disk1")]
    AddInstance(world, disks, disk_template="drbd", up=False, running=False)
    _PutVolumes(world)
    for volume in ("disk1.data", "disk1.meta"):
        for name in (NODE1, NODE2):
            world.rpc.nodes[name].lvs[volume] = ("8", False, True)


def _VolumeMissing(world):
    AddInstance(world, [_Volume()], disk_template="plain")


def _MinorInactive(world):
    AddInstance(world, [_Mirror()], disk_template="drbd")
    _PutVolumes(world)
    world.rpc.nodes[NODE3].answers[constants.NV_DRBDLIST] = [0]


def _NoMemory(world):
    AddInstance(world, [_Mirror()], disk_template="drbd", up=False, running=False)
    _PutVolumes(world)
    world.rpc.nodes[NODE3].memory_free = 100


def _FileDiffers(world):
    _Write(pathutils.CONFD_HMAC_KEY, "x")
    world.rpc.nodes[NODE2].checksums[pathutils.CONFD_HMAC_KEY] = "0"


def _FileOfRedistributionMissing(world):
    """RC1: what is sent to all nodes is looked for on all nodes."""
    # What there is says the runtime, what it has in it the disk.
    world.runtime.files.write(pathutils.RAPI_USERS_FILE, b"x")
    _Write(pathutils.RAPI_USERS_FILE, "x")
    world.rpc.nodes[NODE2].checksums[pathutils.RAPI_USERS_FILE] = None


def _CertificateDiffers(world):
    world.rpc.nodes[NODE2].checksums[pathutils.NODED_CERT_FILE] = "0"


def _MissingOnMaster(world):
    world.rpc.nodes[NODE2].checksums[pathutils.CONFD_HMAC_KEY] = "0"


def _OldConfiguration(world):
    _Ordinary(world, NODE3)
    _Write(pathutils.CLUSTER_CONF_FILE, "x")
    world.rpc.nodes[NODE3].checksums[pathutils.CLUSTER_CONF_FILE] = "0"


def _HookFailed(world):
    world.rpc.hook_results[NODE2] = [["10x", constants.HKR_FAIL, "disk\nhot"]]


def _NoHooks(world):
    world.rpc.Cut(NODE2)


_SAME_VERSION = "install the master's version on it and restart its node daemon"
_LVM = (
    "make or enlarge it (vgcreate, vgextend), or do without LVM (gnt-cluster modify"
    " --no-lvm-storage)"
)

#: name -> what goes wrong, all that is found: (code, item, text)
CASES = {
    "configuration": (
        _ConfigurationWrong,
        [
            (
                "ECLUSTERCFG",
                None,
                "The enabled hypervisor 'nosuch' is unknown; 'gnt-cluster history' tells when that"
                " was changed, and by which job",
            )
        ],
    ),
    "expired": (
        _Expired,
        [
            (
                "ECLUSTERCERT",
                None,
                re.compile(
                    r"While verifying rapi\.pem: Certificate is expired \(valid from .* UTC to .*"
                    r" UTC\); 'gnt-cluster renew-crypto --new-rapi-certificate' makes a new one"
                ),
            )
        ],
    ),
    "no-certificate": (
        _NoCertificate,
        [
            (
                "ECLUSTERCERT",
                None,
                re.compile(
                    r"Failed to load X509 certificate /.*/server\.pem: .*; 'gnt-cluster"
                    r" renew-crypto --new-cluster-certificate' makes a new one"
                ),
            )
        ],
    ),
    "down": (
        _Down,
        [
            (
                "EINSTANCEDOWN",
                NAME,
                f"Should run on its primary node {NODE2}, but does not; 'gnt-instance startup"
                f" {NAME}' starts it; if it shall not run, say so with 'gnt-instance shutdown"
                f" {NAME}'",
            )
        ],
    ),
    "wrong-node": (
        _WrongNode,
        [
            (
                "EINSTANCEWRONGNODE",
                NAME,
                f"Runs on {NODE3}, its primary node is {NODE2}; stop it there with the"
                " hypervisor's own command; if it ran on both, compare its disks",
            )
        ],
    ),
    "broken-off-migration": (
        _BrokenOffMigration,
        [
            (
                "EINSTANCEDOWN",
                NAME,
                f"Should run on its primary node {NODE2}, but does not; do not start it there, for"
                " it runs elsewhere",
            ),
            (
                "EINSTANCEWRONGNODE",
                NAME,
                f"Runs on {NODE3}, its primary node is {NODE2}; after a migration that broke off,"
                f" 'gnt-instance migrate --cleanup {NAME}' takes over where it runs",
            ),
        ],
    ),
    "primary-offline": (
        _PrimaryOffline,
        [
            (
                "EINSTANCEBADNODE",
                NAME,
                f"Its primary node {NODE2} is marked offline; 'gnt-instance failover"
                f" --ignore-consistency {NAME}' starts it on its secondary node, if it has one",
            )
        ],
    ),
    "secondary-offline": (
        _SecondaryOffline,
        [
            (
                "EINSTANCEBADNODE",
                NAME,
                f"Its secondary node {NODE3} is marked offline; 'gnt-instance replace-disks -n"
                f" NODE {NAME}' gives it another one",
            )
        ],
    ),
    "volume-missing": (
        _VolumeMissing,
        [
            (
                "EINSTANCEMISSINGDISK",
                NAME,
                f"Logical volume disk0 is missing on node {NODE2}; 'gnt-instance recreate-disks"
                f" {NAME}' makes it again, empty, and 'gnt-backup import' takes the content from"
                " an export",
            )
        ],
    ),
    "minor-inactive": (
        _MinorInactive,
        [
            (
                "ENODEDRBD",
                NODE2,
                f"DRBD minor 0 of {NAME} is not active; 'gnt-instance activate-disks {NAME}' brings"
                " it up",
            )
        ],
    ),
    "minor-of-nobody": (
        _Answers(constants.NV_DRBDLIST, [7]),
        [
            (
                "ENODEDRBD",
                NODE2,
                "DRBD minor 7 in use belongs to nobody; take it down with drbdsetup, if no other"
                " cluster or program uses it",
            )
        ],
    ),
    "memory": (
        _NoMemory,
        [
            (
                "ENODEN1",
                NODE3,
                f"Has 100 MiB of memory free, but would need 128 if {NODE2} failed; move instances"
                " away from it, or give some another secondary node",
            )
        ],
    ),
    "file-differs": (
        _FileDiffers,
        [
            (
                "ENODEFILECHECK",
                NODE2,
                f"File {pathutils.CONFD_HMAC_KEY} differs from the master's; 'gnt-cluster"
                f" redist-conf' sends the master's, unless {NODE2} is the one to trust",
            )
        ],
    ),
    "shipped-file-missing": (
        _FileOfRedistributionMissing,
        [
            (
                "ENODEFILECHECK",
                NODE2,
                f"File {pathutils.RAPI_USERS_FILE} is missing; 'gnt-cluster redist-conf' sends the"
                f" master's, unless {NODE2} is the one to trust",
            )
        ],
    ),
    "certificate-differs": (
        _CertificateDiffers,
        [
            (
                "ENODEFILECHECK",
                NODE2,
                f"File {pathutils.NODED_CERT_FILE} differs from the master's; 'gnt-node add"
                f" --readd {NODE2}' sends the master's",
            )
        ],
    ),
    "missing-on-master": (
        _MissingOnMaster,
        [
            (
                "ENODEFILECHECK",
                NODE1,
                f"File {pathutils.CONFD_HMAC_KEY} is missing on the master, but node {NODE2} has"
                f" it; copy it from there, or remove it on {NODE2}",
            )
        ],
    ),
    "old-configuration": (
        _OldConfiguration,
        [
            (
                "ENODEFILECHECK",
                NODE3,
                f"File {pathutils.CLUSTER_CONF_FILE} should not be here, where there is an outdated"
                " copy: the node is no master candidate; remove it, or make the node one with"
                f" 'gnt-node modify -C yes {NODE3}'",
            )
        ],
    ),
    "hook": (
        _HookFailed,
        [("ENODEHOOKS", NODE2, "Script 10x failed, output:")],
    ),
    "node-cut-off": (
        _NoHooks,
        [
            (
                "ENODERPC",
                NODE2,
                re.compile(
                    f"The node can not be asked: .*; start its node daemon, or say that it is away"
                    f" with 'gnt-node modify --offline yes {NODE2}'"
                ),
            ),
            (
                "ENODEHOOKS",
                NODE2,
                re.compile(
                    "Communication failure in hooks execution: .*; see that its node daemon runs,"
                    " and node-daemon.log on it"
                ),
            ),
        ],
    ),
    "hypervisor": (
        _Answers(constants.NV_HYPERVISOR, {"fake": "no directory"}),
        [
            (
                "ENODEHV",
                NODE2,
                "Hypervisor fake: no directory; repair it on the node, or leave it out with"
                " 'gnt-cluster modify --enabled-hypervisors'",
            )
        ],
    ),
    "setup": (
        _Answers(constants.NV_NODESETUP, ["no /sys", "no /proc"]),
        [
            (
                "ENODESETUP",
                NODE2,
                "Node setup: no /sys; no /proc; mount what is missing, also at boot",
            )
        ],
    ),
    "ssh": (
        _Answers(constants.NV_NODELIST, {NODE3: "no route"}),
        [
            (
                "ENODESSH",
                NODE2,
                f"No way to node {NODE3}: no route; check the SSH server of {NODE3}; 'gnt-cluster"
                " redist-conf' sends the known hosts again, 'gnt-node add --readd"
                f" {NODE3}' the keys",
            )
        ],
    ),
    "network": (
        _Answers(constants.NV_NODENETTEST, {NODE3: "primary"}),
        [
            (
                "ENODENET",
                NODE2,
                f"No TCP connection to node {NODE3}: primary; check the node daemon of {NODE3}, and"
                " addresses, routes and firewalls between the two",
            )
        ],
    ),
    "master-ip": (
        _Answers(constants.NV_MASTERIP, False),
        [
            (
                "ENODENET",
                NODE2,
                f"The master IP is not reachable; check that {NODE1} has it, and the routes to it",
            )
        ],
    ),
    "master-ip-of-master": (
        _Answers(constants.NV_MASTERIP, False, NODE1),
        [
            (
                "ENODENET",
                NODE1,
                "The master IP is not reachable from the master itself; restart the master daemon,"
                " which brings the address up",
            )
        ],
    ),
    "group-missing": (
        _Answers(constants.NV_VGLIST, {"other": 100000.0}),
        [("ENODELVM", NODE2, f"Volume group xenvg is missing; {_LVM}")],
    ),
    "group-too-small": (
        _Answers(constants.NV_VGLIST, {"xenvg": 20479.0}),
        [
            (
                "ENODELVM",
                NODE2,
                f"Volume group xenvg has 20479 MiB, at least 20480 are needed; {_LVM}",
            )
        ],
    ),
    "colon": (
        _Answers(constants.NV_PVLIST, [[1.0, "/dev/a:b", "xenvg"]]),
        [
            (
                "ENODELVM",
                NODE2,
                "The physical volume /dev/a:b of xenvg has a colon in its name, which lvcreate can"
                " not take; give the device another name, such as one of /dev/disk/by-id",
            )
        ],
    ),
    "volumes-of-nobody": (
        _Answers(constants.NV_LVLIST, {"old": ["8", False, False]}),
        [
            (
                "ENODEORPHANLV",
                NODE2,
                "Logical volume old belongs to nobody; if nobody needs it, 'lvremove xenvg/old' on"
                " the node removes it",
            )
        ],
    ),
    "unknown-instance": (
        _Answers(constants.NV_INSTANCELIST, ["who.example.com"]),
        [
            (
                "ENODEORPHANINSTANCE",
                NODE2,
                "Runs the unknown instance who.example.com; stop it there with the hypervisor's own"
                " command, unless somebody runs it on purpose",
            )
        ],
    ),
    "protocol": (
        _Answers(constants.NV_VERSION, [29, "2.0.6"]),
        [
            (
                "ENODEVERSION",
                NODE2,
                f"Protocol 29 differs from the master's {constants.PROTOCOL_VERSION};"
                f" {_SAME_VERSION}",
            )
        ],
    ),
    "time": (
        _Answers(constants.NV_TIME, [0, 0]),
        [
            (
                "ENODETIME",
                NODE2,
                re.compile(
                    r"The clock is off by at least [0-9]+\.[0-9] seconds; set it, and have all"
                    r" nodes keep it by NTP"
                ),
            )
        ],
    ),
}

#: The same, of things that are no errors.
WARNINGS = {
    "expires-soon": (
        _ExpiresSoon,
        "ECLUSTERCERT",
        None,
        "While verifying server.pem: Certificate expires in about 20 days; 'gnt-cluster"
        " renew-crypto --new-cluster-certificate' makes a new one",
    ),
    "release": (
        _Answers(constants.NV_VERSION, [constants.PROTOCOL_VERSION, "2.1.0"]),
        "ENODEVERSION",
        NODE2,
        f"Release 2.1.0 differs from the master's {constants.RELEASE_VERSION}; {_SAME_VERSION}",
    ),
    "two-secondaries": (
        _TwoSecondaries,
        "EINSTANCELAYOUT",
        NAME,
        f"Has more than one secondary node: {NODE1}, {NODE3}; give all disks the same one with"
        f" 'gnt-instance replace-disks -n NODE {NAME}'",
    ),
}


@pytest.fixture(autouse=True)
def clean_files():
    yield
    for path in (
        pathutils.CONFD_HMAC_KEY,
        pathutils.RAPI_USERS_FILE,
        pathutils.CLUSTER_CONF_FILE,
    ):
        io.RemoveFile(path)


class TestCodes:
    """BASE1: every code is reported, with its object, what is wrong and what to do."""

    def test_healthy(self, world):
        AddInstance(world)
        result, found, headers = Verify(world)
        assert (result, found) == (True, [])
        assert headers == [
            "* Verifying global settings",
            "* Gathering data (3 nodes)",
            "* Verifying node status",
            "* Verifying instance status",
            "* Verifying orphan volumes",
            "* Verifying orphan instances",
            "* Verifying N+1 Memory redundancy",
            "* Other Notes",
            "* Hooks Results",
        ]

    @pytest.mark.parametrize("name", sorted(CASES))
    def test_error(self, world, name):
        provoke, expected = CASES[name]
        provoke(world)
        result, found, _ = Verify(world)
        assert result is False
        assert len(found) == len(expected), found
        for (severity, code, item, text), (wanted, of, message) in zip(
            found, expected, strict=True
        ):
            assert (severity, code, item) == ("ERROR", wanted, of)
            if isinstance(message, re.Pattern):
                assert message.fullmatch(text), text
            else:
                assert text == message

    @pytest.mark.parametrize("name", sorted(WARNINGS))
    def test_warning(self, world, name):
        provoke, code, item, message = WARNINGS[name]
        provoke(world)
        assert Verify(world)[:2] == (True, [("WARNING", code, item, message)])

    def test_all_of_them(self):
        tested = {code for _, expected in CASES.values() for code, _, _ in expected}
        tested |= {code for _, code, _, _ in WARNINGS.values()}
        assert tested == CODES

    def test_output_of_hooks(self, world):
        _HookFailed(world)
        Verify(world, error_codes=False)
        index = world.log.index(f"  - ERROR: node {NODE2}: Script 10x failed, output:")
        assert world.log[index + 1 : index + 3] == ["      disk", "      hot"]


class TestOptions:
    def test_no_nplus1_mem(self, world):
        _NoMemory(world)
        result, found, headers = Verify(world, skip_checks=["nplusone_mem"])
        assert (result, found) == (True, [])
        assert "* Verifying N+1 Memory redundancy" not in headers

    def test_verbose(self, world):
        AddInstance(world)
        _Ordinary(world, NODE2)
        _Offline(world, NODE3)
        _, _, headers = Verify(world, verbose=True)
        for line in (
            f"* Verifying node {NODE1} (master)",
            f"* Verifying node {NODE2} (regular)",
            f"* Skipping offline node {NODE3}",
            f"* Verifying instance {NAME}",
        ):
            assert line in headers
        assert "  - NOTICE: 1 offline node(s) found." in world.log

    def test_hooks_of_an_offline_node(self, world):
        """They change nothing, neither for better nor for worse."""
        _Offline(world, NODE3)
        assert Verify(world)[0] is True
        _Down(world)
        assert Verify(world)[0] is False

    def test_simulated(self, world):
        result, found, _ = Verify(world, debug_simulate_errors=True)
        assert result is False
        assert {code for _, code, _, _ in found} == CODES


class TestAdvice:
    """Every problem says what to do, and the commands that it names exist."""

    PROBLEMS = [
        problem
        for problem in verify_simulation.SimulatedProblems()
        if problem.message != "Simulated error"
    ]

    @pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.message[:40])
    def test_there_is_one(self, problem):
        assert problem.advice
        assert verify_state.FormatProblem(problem, True).endswith(f"; {problem.advice}")

    def test_commands(self):
        programs = {
            "gnt-backup": gnt_backup,
            "gnt-cluster": gnt_cluster,
            "gnt-instance": gnt_instance,
            "gnt-node": gnt_node,
        }
        advice = {problem.advice for problem in self.PROBLEMS}
        advice |= {text for _, expected in CASES.values() for _, _, text in expected}
        texts = " ".join(item.pattern if isinstance(item, re.Pattern) else item for item in advice)
        named = set(re.findall(r"'(gnt-[^']*)'", texts))
        assert len(named) > 8
        for command in sorted(named):
            program, name, *rest = shlex.split(command)
            known = programs[program].COMMANDS[name]
            flags = {flag for option in known.opts for flag in option.flags}
            assert {word for word in rest if word.startswith("-")} <= flags, command
