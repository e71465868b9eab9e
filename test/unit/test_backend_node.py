"""The node as a whole: master role, joining and leaving, facts, verification, scripts."""

import dataclasses
import errno
import os
import shutil
import threading

import pytest

from ganeti import constants, errors, hypervisor, pathutils, ssconf
from ganeti.backend import hooks, jobqueue, master, node, units, verify
from ganeti.runtime import fake
from ganeti.utils import net, process

MASTER_IP = "192.0.2.200"


@pytest.fixture(autouse=True)
def cluster():
    for path in (
        pathutils.DATA_DIR,
        pathutils.LOCK_DIR,
        pathutils.RUN_GANETI_DIR,
        os.path.dirname(pathutils.ETC_HOSTS),
    ):
        os.makedirs(path, exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w", encoding="ascii") as fobj:
        fobj.write("127.77.0.1 node1.example.com\n127.77.0.2 node2.example.com\n")
    ssconf.SimpleStore().WriteFiles(
        {
            constants.SS_MASTER_NETDEV: "eth0",
            constants.SS_MASTER_IP: MASTER_IP,
            constants.SS_MASTER_NODE: "node1.example.com",
            constants.SS_FILE_STORAGE_DIR: "",
        }
    )
    yield
    shutil.rmtree(pathutils.ROOTDIR)
    os.mkdir(pathutils.ROOTDIR)


@pytest.fixture
def rt():
    return fake.NewRuntime()


class _Net:
    """Who has the cluster address."""

    def __init__(self, monkeypatch):
        self.own = False
        self.answers = False
        monkeypatch.setattr(master.net, "OwnIpAddress", lambda ip: self.own)
        monkeypatch.setattr(master.net, "TcpPing", lambda *args, **kwargs: self.answers)


@pytest.fixture
def network(monkeypatch):
    return _Net(monkeypatch)


def _Commands(rt):
    return [" ".join(call.argv) for call in rt.processes.calls]


class TestMasterInfo:
    """Who this node thinks is the master."""

    def test_complete(self):
        assert master.GetMasterInfo() == ("eth0", MASTER_IP, "node1.example.com")

    def test_incomplete(self):
        os.unlink(pathutils.DATA_DIR + "/ssconf_master_ip")
        with pytest.raises(errors.RPCFail, match="incomplete"):
            master.GetMasterInfo()


class TestDeposedMaster:
    """A master that was replaced changes nothing any more."""

    @pytest.mark.parametrize(
        ("call", "name", "version", "refused"),
        [
            ("upload_file", "node2.example.com", "6 200.0 u", True),
            ("jobqueue_update_many", "node2.example.com", "6 200.0 u", True),
            ("upload_file", "node1.example.com", "6 200.0 u", False),
            # It is this node that does not know yet.
            ("upload_file", "node2.example.com", "8 100.0 u", False),
            ("upload_file", "node2.example.com", "7 100.0 u", False),
            ("upload_file", "node2.example.com", "6 200.0 another", False),
            ("upload_file", "node2.example.com", "x", False),
            ("node_info", "node2.example.com", "6 200.0 u", False),
            ("node_stop_master", "node2.example.com", "6 200.0 u", False),
            ("node_powercycle", "node2.example.com", "6 200.0 u", False),
        ],
    )
    def test_table(self, call, name, version, refused):
        path = pathutils.DATA_DIR + "/ssconf_config_version"
        with open(path, "w") as fobj:
            fobj.write("7 100.0 u\n")
        try:
            problem = master.RefuseDeposed(call, name, version)
            answer = master.AnswerMasterInfo()
        finally:
            os.unlink(path)
        assert (problem is not None) is refused
        assert not refused or "node1.example.com is the master" in problem
        assert answer[2:] == ["node1.example.com", None, "7 100.0 u"]

    def test_nothing_is_known(self):
        assert master.RefuseDeposed("upload_file", "node2.example.com", "1 1.0 u") is None


class TestStartMaster:
    """The cluster address and the daemons; every step is tried."""

    def test_address_is_ours(self, rt, network):
        network.own = True
        master.StartMaster(False, False, rt)
        assert _Commands(rt) == []

    def test_address_is_free(self, rt, network):
        rt.processes.Answer("*")
        master.StartMaster(False, False, rt)
        assert _Commands(rt) == [
            f"ip address add {MASTER_IP}/32 dev eth0 label eth0:0",
            f"arping -q -U -c 3 -I eth0 -s {MASTER_IP} {MASTER_IP}",
        ]

    def test_missing_arping_is_no_failure(self, rt, network):
        rt.processes.Answer("*")
        rt.processes.Answer("arping*", code=1)
        master.StartMaster(False, False, rt)

    def test_someone_else_has_it(self, rt, network):
        """All steps are tried, and reported together."""
        network.answers = True
        rt.processes.Answer("*start-master", code=1, stderr="no luck")
        with pytest.raises(errors.RPCFail) as excinfo:
            master.StartMaster(True, False, rt)
        assert "Someone else has the cluster address" in str(excinfo.value)
        assert "; Can't start the master's daemons" in str(excinfo.value)
        assert "no luck" in str(excinfo.value)

    @pytest.mark.parametrize(
        ("no_voting", "extra"), [(True, "--no-voting --yes-do-it"), (False, "")]
    )
    def test_voting(self, rt, network, no_voting, extra):
        network.own = True
        rt.processes.Answer("*start-master")
        master.StartMaster(True, no_voting, rt)
        (call,) = rt.processes.calls
        assert call.env == {"EXTRA_MASTERD_ARGS": extra}
        assert call.argv == [pathutils.DAEMON_UTIL, "start-master"]

    def test_loopback_address_of_a_virtual_cluster(self, rt):
        """BASE6: needs no rights, runs no program."""
        ssconf.SimpleStore().WriteFiles({constants.SS_MASTER_IP: "127.77.0.100"})
        master.StartMaster(False, False, rt)
        master.StopMaster(False, rt)
        assert _Commands(rt) == []


class TestStopMaster:
    """Failures are only logged."""

    def test_stop(self, rt):
        rt.processes.Answer("*", code=1)
        master.StopMaster(True, rt)
        assert _Commands(rt) == [
            f"ip address del {MASTER_IP}/32 dev eth0",
            f"{pathutils.DAEMON_UTIL} stop-master",
        ]


class TestDemote:
    """Giving up the configuration."""

    @pytest.fixture(autouse=True)
    def config(self):
        with open(pathutils.CLUSTER_CONF_FILE, "w", encoding="ascii") as fobj:
            fobj.write("{}")

    def _SetMaster(self, name):
        ssconf.SimpleStore().WriteFiles({constants.SS_MASTER_NODE: name})

    def _Files(self):
        return [name for name in os.listdir(pathutils.DATA_DIR) if name.startswith("config.data")]

    def test_refused_on_the_master(self, rt):
        with pytest.raises(errors.RPCFail, match="is the master"):
            master.DemoteFromMC(rt)
        assert self._Files() == ["config.data"]

    def test_refused_with_a_master_daemon(self, rt):
        self._SetMaster("node2.example.com")
        rt.processes.Answer("*check ganeti-masterd")
        with pytest.raises(errors.RPCFail, match="master daemon runs"):
            master.DemoteFromMC(rt)

    def test_leaves_a_backup(self):
        self._SetMaster("node2.example.com")
        processes = fake.FakeProcesses()
        processes.Answer("*check ganeti-masterd", code=1)
        from ganeti import runtime

        master.DemoteFromMC(runtime.Runtime(**{**vars(runtime.DEFAULT), "processes": processes}))
        (name,) = self._Files()
        assert name.startswith("config.data.backup-")

    def test_disk_is_full(self, rt, monkeypatch):
        """An old configuration is not kept in use for want of room for its backup."""
        self._SetMaster("node2.example.com")
        rt.processes.Answer("*check ganeti-masterd", code=1)

        def Fail(fd, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", Fail)
        master.DemoteFromMC(rt)
        (name,) = self._Files()
        assert name.startswith("config.data.backup-")


class TestLeaveCluster:
    """Everything of the cluster goes, then the daemon."""

    def test_leave(self, rt):
        rt.processes.Answer("*")
        jobqueue.InitQueue()
        for path in (
            pathutils.CLUSTER_CONF_FILE,
            pathutils.NODED_CERT_FILE,
            pathutils.RAPI_CERT_FILE,
            pathutils.CONFD_HMAC_KEY,
            pathutils.QUEUE_DIR + "/job-1",
        ):
            with open(path, "w", encoding="ascii"):
                pass
        with pytest.raises(errors.QuitGanetiException) as excinfo:
            node.LeaveCluster(False, rt)
        assert excinfo.value.args == (True, "Shutdown scheduled")
        assert os.listdir(pathutils.DATA_DIR) == ["queue"]
        assert sorted(os.listdir(pathutils.QUEUE_DIR)) == ["archive", "journal", "lock"]
        assert os.listdir(pathutils.JOB_QUEUE_JOURNAL_DIR) == []
        assert _Commands(rt) == [f"{pathutils.DAEMON_UTIL} stop ganeti-confd"]

    def test_with_ssh(self, rt, monkeypatch, tmp_path):
        names = [tmp_path / name for name in ("key", "key.pub", "authorized_keys")]
        names[0].write_text("private")
        names[1].write_text("ssh-ed25519 AAAA root@c\n")
        names[2].write_text("ssh-rsa BBBB other\nssh-ed25519 AAAA root@c\n")
        monkeypatch.setattr(node.ssh, "GetUserFiles", lambda user: tuple(map(str, names)))
        rt.processes.Answer("*", code=1)
        with pytest.raises(errors.QuitGanetiException):
            node.LeaveCluster(True, rt)
        assert [name.exists() for name in names] == [False, False, True]
        assert names[2].read_text() == "ssh-rsa BBBB other\n"


class TestAddNode:
    """Keys of the cluster."""

    @pytest.fixture
    def reload(self, monkeypatch):
        calls = []
        monkeypatch.setattr(
            node.master, "RunDaemonUtil", lambda action, *args: calls.append(action)
        )
        os.makedirs(pathutils.SSH_CONFIG_DIR)
        return calls

    def test_empty_keys_are_not_written(self, reload):
        node.AddNode("", "", "rsa", "rsapub", "user", "ssh-ed25519 AAAA root@c\n")
        names = sorted(os.listdir(pathutils.SSH_CONFIG_DIR))
        assert names == ["ssh_host_rsa_key", "ssh_host_rsa_key.pub"]
        modes = [os.stat(f"{pathutils.SSH_CONFIG_DIR}/{name}").st_mode & 0o777 for name in names]
        assert modes == [0o600, 0o644]
        private, public, authorized = node.ssh.GetUserFiles("root")
        # Below the root of this virtual node, never the user's own
        assert private.startswith(pathutils.ROOTDIR)
        with open(authorized, encoding="ascii") as fobj:
            assert fobj.read() == "ssh-ed25519 AAAA root@c\n"
        assert reload == ["reload-ssh-keys"]

    def test_reload_fails(self, reload, monkeypatch):
        monkeypatch.setattr(node.master, "RunDaemonUtil", lambda *args: "no sshd")
        with pytest.raises(errors.RPCFail, match="no sshd"):
            node.AddNode("", "", "", "", "", "")


class TestFacts:
    """node_info and what it is made of."""

    def test_cluster_without_lvm(self, rt):
        assert node.volumes.GetVolumeGroupInfo(None, rt) == {"vg_size": None, "vg_free": None}
        assert rt.processes.calls == []

    def test_node_info(self, rt):
        info = node.GetNodeInfo(None, "fake", rt)
        assert {"vg_size", "vg_free", "bootid", "memory_total", "memory_free", "cpu_total"} <= set(
            info
        )
        assert info["memory_total"] > 0
        assert len(info["bootid"]) == 36

    def test_unknown_hypervisor(self, rt):
        with pytest.raises(errors.RPCFail, match="vmware"):
            node.GetNodeInfo(None, "vmware", rt)

    def test_validate(self):
        with pytest.raises(errors.RPCFail):
            node.ValidateHVParams("xen-pvm", {"kernel_path": "/no/such/file"})
        node.ValidateHVParams("fake", {})

    @pytest.mark.parametrize("name", ["a/b", "..", "", "x" * 16, "a\nb"])
    def test_impossible_bridge(self, name):
        with pytest.raises(errors.RPCFail, match="Invalid bridge"):
            node.BridgesExist([name])

    def test_missing_bridges(self):
        node.BridgesExist([])
        with pytest.raises(errors.RPCFail, match="no-such-br0, no-such-br1"):
            node.BridgesExist(["no-such-br0", "no-such-br1"], virtual=False)
        # A virtual node has none of its own.
        node.BridgesExist(["no-such-br0"], virtual=True)

    def test_delay(self, rt):
        node.TestDelay(1.5, rt)
        assert rt.clock.sleeps == [1.5]
        with pytest.raises(errors.RPCFail, match="-1"):
            node.TestDelay(-1, rt)


class TestPowercycle:
    """NA3: answers first, needs nothing of the disk."""

    def test_powercycle(self, rt, monkeypatch):
        done = threading.Event()

        class _Class:
            @classmethod
            def PowercycleNode(cls):
                done.set()

        monkeypatch.setattr(hypervisor, "GetHypervisorClass", lambda kind: _Class)
        assert node.PowercycleNode("kvm", rt) == "Reboot scheduled in 5 seconds"
        assert done.wait(10)
        assert rt.clock.sleeps == [5.0]

    def test_touches_no_file(self, rt, monkeypatch):
        """With every open() failing."""
        done = threading.Event()
        hypervisor.Preload()
        monkeypatch.setattr(
            hypervisor.GetHypervisorClass("fake"),
            "PowercycleNode",
            classmethod(lambda cls: done.set()),
        )

        def Fail(*args, **kwargs):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            for name in ("open", "stat", "listdir", "mkdir"):
                patch.setattr(os, name, Fail)
            patch.setattr("builtins.open", Fail)
            assert "scheduled" in node.PowercycleNode("fake", rt)
            assert done.wait(10)

    def test_no_thread_left(self, rt, monkeypatch):
        """Better without an answer than not at all."""
        done = []

        class _Class:
            @classmethod
            def PowercycleNode(cls):
                done.append(cls)

        class _Threads:
            def start(self, *args, **kwargs):
                raise RuntimeError("can't start new thread")

        monkeypatch.setattr(hypervisor, "GetHypervisorClass", lambda kind: _Class)
        node.PowercycleNode("kvm", dataclasses.replace(rt, threads=_Threads()))
        assert done == [_Class]

    def test_unknown_hypervisor(self, rt):
        with pytest.raises(errors.HypervisorError):
            node.PowercycleNode("vmware", rt)


def _Verify(key, parameter, rt):
    return verify.VerifyNode({key: parameter}, "cluster.example.com", rt)[key]


class TestVerify:
    """Each check under its key."""

    def test_only_what_is_asked_for(self, rt):
        assert verify.VerifyNode({}, "c", rt) == {}
        assert set(verify.VerifyNode({"version": None, "later": 1}, "c", rt)) == {"version"}

    def test_every_key_is_known(self):
        assert set(verify._CHECKS) == set(constants.NV_ALL)

    def test_version(self, rt):
        assert _Verify("version", None, rt) == (30, "2.1.8")

    def test_time(self, rt):
        rt.clock.now = 1.5
        assert _Verify("time", None, rt) == (int(fake.EPOCH) + 1, 500000)

    def test_files(self, rt, tmp_path):
        (tmp_path / "a").write_text("abc")
        paths = [str(tmp_path / name) for name in ("a", "missing")] + [str(tmp_path)]
        assert _Verify("filelist", paths, rt) == {
            paths[0]: "a9993e364706816aba3e25717850c26c9cd0d89d"
        }

    def test_hypervisors(self, rt, monkeypatch):
        class _Broken:
            def Verify(self):
                raise errors.HypervisorError("no module")

        class _Good:
            def Verify(self):
                return None

        found = {"kvm": _Broken(), "fake": _Good()}
        monkeypatch.setattr(hypervisor, "GetHypervisor", lambda kind: found[kind])
        result = _Verify("hypervisor", ["kvm", "fake"], rt)
        assert result["fake"] is None
        assert "no module" in result["kvm"]

    def test_instances(self, rt):
        assert _Verify("instancelist", ["fake"], rt) == []
        assert "vmware" in _Verify("instancelist", ["vmware"], rt)

    def test_hypervisor_info(self, rt):
        assert _Verify("hvinfo", "fake", rt)["memory_free"] > 0
        assert _Verify("hvinfo", "vmware", rt) == {}

    def test_nodes(self, rt, monkeypatch):
        class _Runner:
            def VerifyNodeHostname(self, name):
                return (False, "wrong name") if name == "b" else (True, None)

        monkeypatch.setattr(verify.ssh, "GetRunner", lambda cluster_name: _Runner())
        assert _Verify("nodelist", ["a", "b", "c"], rt) == {"b": "wrong name"}
        assert _Verify("nodelist", [], rt) == {}

    def test_node_net(self, rt, monkeypatch):
        def TcpPing(target, port, source=None, **kwargs):
            assert port == 1811
            assert source == ("127.77.0.1" if target.startswith("127.77.0") else "127.78.0.1")
            return target not in ("127.77.0.2", "127.78.0.3")

        monkeypatch.setattr(verify.net, "TcpPing", TcpPing)
        nodes = [
            (f"node{index}.example.com", f"127.77.0.{index}", f"127.78.0.{index}")
            for index in range(1, 5)
        ]
        result = _Verify("node-net-test", nodes, rt)
        assert sorted(result) == ["node2.example.com", "node3.example.com"]
        assert "primary" in result["node2.example.com"]
        assert "secondary" in result["node3.example.com"]

    def test_not_in_the_list_itself(self, rt):
        result = _Verify("node-net-test", [("other", "127.77.0.9", "127.77.0.9")], rt)
        assert list(result) == ["node1.example.com"]

    @pytest.mark.parametrize(
        ("master_name", "source"), [("node1.example.com", "127.0.0.1"), ("node2.example.com", None)]
    )
    def test_master_ip(self, rt, monkeypatch, master_name, source):
        """The master must own the address, so it asks from where only itself can."""
        seen = []
        monkeypatch.setattr(
            verify.net, "TcpPing", lambda ip, port, source=None: seen.append((ip, source)) or True
        )
        assert _Verify("master-ip", (master_name, MASTER_IP), rt) is True
        assert seen == [(MASTER_IP, source)]

    def test_setup(self):
        def Nothing(path):
            return False

        def Everything(path):
            return True

        assert verify.FindSetupProblems(Everything, Everything) == []
        sysfs, procfs = verify.FindSetupProblems(Nothing, Nothing)
        assert "/sys/block" in sysfs
        assert "/proc/sysrq-trigger" in procfs
        assert len(verify.FindSetupProblems(lambda path: path != "/sys/class/net", Everything)) == 1
        assert len(verify.FindSetupProblems(Everything, Nothing)) == 1
        # A virtual node needs no way to reset the machine.
        assert verify.FindSetupProblems(Everything, Nothing, resettable=False) == []

    def test_my_name_is_the_nodes(self):
        assert net.HostInfo().name == "node1.example.com"


class TestHooks:
    """BASE3: hook scripts."""

    @pytest.fixture
    def base(self, tmp_path):
        (tmp_path / "instance-add-pre.d").mkdir()
        return tmp_path

    def _Script(self, base, name, body, mode=0o755):
        path = base / "instance-add-pre.d" / name
        path.write_text(body)
        path.chmod(mode)

    def _Run(self, base, phase="pre", hpath="instance-add", env=None):
        return hooks.HooksRunner(str(base)).RunHooks(hpath, phase, env or {})

    def test_missing_directory(self, base):
        assert self._Run(base, phase="post") == []
        assert self._Run(base, hpath="node-add") == []

    def test_results_in_order(self, base):
        self._Script(base, "20-good", "#!/bin/sh\necho out; echo err >&2\n")
        self._Script(base, "10-bad", "#!/bin/sh\nprintf 'a\\tb'; exit 1\n")
        self._Script(base, "30-killed", "#!/bin/sh\nkill -9 $$\n")
        self._Script(base, "40-noexec", "", mode=0o644)
        self._Script(base, "50.dotted", "#!/bin/sh\n")
        self._Script(base, "60-broken", "#!/no/such/interpreter\n")
        (base / "instance-add-pre.d" / "70-dir").mkdir()
        self._Script(base, ".hidden", "#!/bin/sh\n")
        results = self._Run(base)
        prefix = "instance-add-pre.d/"
        assert [(script, status) for script, status, _ in results] == [
            (prefix + "10-bad", constants.HKR_FAIL),
            (prefix + "20-good", constants.HKR_SUCCESS),
            (prefix + "30-killed", constants.HKR_FAIL),
            (prefix + "40-noexec", constants.HKR_SKIP),
            (prefix + "50.dotted", constants.HKR_SKIP),
            (prefix + "60-broken", constants.HKR_FAIL),
            (prefix + "70-dir", constants.HKR_SKIP),
        ]
        outputs = [output for _, _, output in results]
        assert outputs[:2] == ["a\\tb", "out\\nerr"]
        assert outputs[3] == ""
        assert outputs[5]

    def test_environment_is_exactly_the_given_one(self, base):
        self._Script(base, "env", "#!/bin/sh\n/usr/bin/env; pwd\n")
        ((_, status, output),) = self._Run(base, env={"GANETI_OP_CODE": "OP_X"})
        lines = set(output.split("\\n"))
        assert status == constants.HKR_SUCCESS
        # The shell itself sets these two
        assert {line for line in lines if not line.startswith(("PWD=", "SHLVL=", "_="))} == {
            "GANETI_OP_CODE=OP_X",
            "/",
        }

    def test_hanging_script(self, base):
        self._Script(
            base, "10-hangs", "#!/bin/sh\necho begun; echo more >&2; sleep 60 & sleep 60\n"
        )
        self._Script(base, "20-good", "#!/bin/sh\necho $GANETI_HOOKS_TIMEOUT\n")
        hangs, good = self._Run(base, env={"GANETI_HOOKS_TIMEOUT": "1"})
        assert hangs == (
            "instance-add-pre.d/10-hangs",
            constants.HKR_FAIL,
            "begun\\nmore\\nended after 1 s (time-out)",
        )
        assert good == ("instance-add-pre.d/20-good", constants.HKR_SUCCESS, "1")

    def test_child_that_keeps_the_output(self, base):
        self._Script(base, "daemon", "#!/bin/sh\necho started; sleep 60 &\n")
        ((_, status, output),) = self._Run(base, env={"GANETI_HOOKS_TIMEOUT": "1"})
        assert status == constants.HKR_FAIL
        assert output.startswith("started\\nthe script was over (exit code 0), but a process")
        assert output.endswith("ended after 1 s (time-out)")

    @pytest.mark.parametrize("value", ["a\0b", "\ud800"], ids=ascii)
    def test_environment_that_no_process_can_have(self, base, value):
        """Not a failure of the call, which would keep nobody from working."""
        self._Script(base, "10", "#!/bin/sh\n")
        ((_, status, output),) = self._Run(base, env={"GANETI_INSTANCE_HV_kernel_args": value})
        assert (status, bool(output)) == (constants.HKR_FAIL, True)

    def test_directory_takes_too_long(self, base):
        limits = process.PartLimits(timeout=100, total=300)
        cut = process.RunResult("x", None, 15, stdout="a\n", timeout=40)
        assert hooks._Judge(constants.RUNPARTS_RUN, cut, limits, "x-pre.d") == (
            constants.HKR_FAIL,
            "a\\nended after 40 s (time-out: all scripts of x-pre.d together may take 300 s)",
        )
        text = "not run: ..."
        assert hooks._Judge(constants.RUNPARTS_ERR, text, limits, "x-pre.d") == (
            constants.HKR_FAIL,
            text,
        )

    def test_endless_output(self, base):
        self._Script(base, "10", "#!/bin/sh\nyes | head -c 5000000\n")
        ((_, status, output),) = self._Run(base)
        assert status == constants.HKR_SUCCESS
        assert "bytes left out" in output
        assert len(output) < 2 * constants.HOOKS_MAX_OUTPUT

    @pytest.mark.parametrize(("hpath", "phase"), [("x", "middle"), ("../x", "pre"), ("", "pre")])
    def test_refused(self, base, hpath, phase):
        with pytest.raises(errors.RPCFail):
            self._Run(base, hpath=hpath, phase=phase)


class TestStorageCalls:
    """SU1: errors of units are failures of calls."""

    def test_errors(self):
        for call in (
            lambda: units.StorageList("file", [["/etc"]], None, ["name"]),
            lambda: units.StorageModify("file", [[]], "x", {"allocatable": True}),
            lambda: units.StorageExecute("file", [[]], "x", "fix-consistency"),
        ):
            with pytest.raises(errors.RPCFail):
                call()

    def test_list(self):
        assert units.StorageList("file", [[]], None, ["name"]) == []
