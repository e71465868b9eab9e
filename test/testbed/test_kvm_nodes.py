"""KVM on nodes: networks, accounts, consoles, and what happens when QEMU or a daemon dies.

BASE2, BASE3, UP3, PR4.
"""

import re

import pytest
from kvmbed import PATIENCE, STATE, MakeKvmCluster, Pid, Status

from vc import WaitFor

LOCKS = "/var/run/ganeti/uid-pool"

#: The pool's accounts, which exist on the nodes alone.
ACCOUNTS = {6001: "guest-a", 6002: "guest-b", 6003: "guest-c"}


@pytest.fixture(scope="module")
def bed(NewTestbed):
    def _MakeAccounts(bed):
        for node in bed.Nodes():
            for uid, name in ACCOUNTS.items():
                bed.Ok(f"useradd --uid={uid} --no-create-home {name}", node=node)

    bed = MakeKvmCluster(NewTestbed, 2, _MakeAccounts)
    bed.Ok("gnt-cluster modify --uid-pool=6001-6003")
    return bed


def Add(bed, name, net, node="node2", be="memory=128", **hvparams):
    values = "".join(f",{key}={value}" for key, value in hvparams.items())
    bed.Ok(
        f"gnt-instance add --no-ip-check --node={node} --disk-template=file --disk=0:size=16m"
        f" --os-type=busybox-guest+default --net=0:{net} --backend-parameters={be}"
        f" --hypervisor-parameters='kvm:security_model=pool{values}' {name}"
    )


def Uids(bed, pid, node="node2"):
    """All four user-ids of a process."""
    line = bed.Ok(f"grep ^Uid: /proc/{pid}/status", node=node)
    return {int(word) for word in line.split()[1:]}


def Locks(bed, node="node2"):
    return {int(name) for name in bed.Ok(f"ls {LOCKS}", node=node).split()}


def Tap(bed, name, node="node2"):
    return bed.Ok(f"cat {STATE}/nic/{name}.example.com/0", node=node).strip()


def Taps(bed, node="node2"):
    return set(re.findall(r"^\d+: (tap\w+):", bed.Ok("ip -o link", node=node), re.MULTILINE))


def Rules(bed, node="node2"):
    """Interfaces for whose packets there are rules, other than the site's."""
    found = re.findall(r" iif (\S+)", bed.Ok("ip rule", node=node))
    return sorted(name for name in found if name != "br0")


def FilesAbout(bed, name, node="node2"):
    return bed.Ok(f"find {STATE} -name '{name}.example.com*'", node=node).split()


def Answers(bed, address, node="node1"):
    """Does a guest answer, on another node and outside of the cluster?"""
    ping = ["ping", "-c", "1", "-W", "1", address]
    WaitFor(
        lambda: bed.Run(" ".join(ping), node=node).code == 0, PATIENCE, f"{address}, seen by {node}"
    )
    WaitFor(lambda: bed.Outside(*ping)[0] == 0, PATIENCE, f"{address}, seen from outside")
    return True


def KillQemu(bed, name):
    """As the out-of-memory killer does."""
    pid = Pid(bed, name)
    bed.Ok(f"kill -9 {pid}", node="node2")
    WaitFor(
        lambda: not bed.Ok("ps -o pid= -C qemu-system-x86_64 || :", node="node2").count(str(pid)),
        10,
        "the end of QEMU",
    )


class TestBridged:
    """instance1: on the bridge, under a user of the pool, locked into an empty directory."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def one(cls, bed):
        Add(
            bed,
            "instance1",
            "mode=bridged,link=br0",
            use_chroot=True,
            kernel_args="quiet panic=1 addr=192.0.2.101/24",
        )

    def test_answers_on_the_network(self, bed):
        assert Answers(bed, "192.0.2.101")
        assert bed.Ok("ls /sys/class/net/br0/brif", node="node2").split() == [
            "eth0",
            Tap(bed, "instance1"),
        ]

    def test_console_over_ssh(self, bed):
        """BASE3: what is typed is answered by the guest; Ctrl-] leaves it."""
        terminal = bed.At("gnt-instance", "console", "instance1")
        try:
            terminal.Type("")
            terminal.Type("echo $(hostname) is $((6 * 7))")
            terminal.Expect(r"instance1\.example\.com is 42", PATIENCE)
            assert "socat" in bed.Ok("ps -e -o args=", node="node2")
            # It got what it has, and wrote it where it should: on its disk.
            terminal.Type("echo boot$(dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -n1)")
            terminal.Expect(r"boot1\s", PATIENCE)
            terminal.Type("\x1d")
            assert terminal.Wait() == 0
        finally:
            terminal.Close()

    def test_user_and_chroot(self, bed):
        """UP3: root only opened what it has; the process is somebody else's, for good."""
        pid = Pid(bed, "instance1")
        (uid,) = Uids(bed, pid)
        assert uid in ACCOUNTS
        assert Locks(bed) == {uid}
        chroot = bed.Ok(f"readlink /proc/{pid}/root", node="node2").strip()
        assert f"/var{chroot}" == f"{STATE}/chroot/instance1.example.com"
        disk = "/srv/ganeti/file-storage/instance1.example.com"
        owners = bed.Ok(f"stat -c '%u %a' {disk}/* /var/log/ganeti/kvm/*", node="node2")
        assert set(owners.split("\n")) <= {"0 600", "0 640", "0 644", ""}

    def test_another_one_gets_another_user(self, bed):
        Add(bed, "instance2", "mode=bridged,link=br0", be="memory=16", kernel_path="")
        uids = [Uids(bed, Pid(bed, name)) for name in ("instance1", "instance2")]
        assert len(uids[0] | uids[1]) == 2
        assert Locks(bed) == uids[0] | uids[1]
        bed.Ok("gnt-instance shutdown --timeout=0 instance2")
        assert Locks(bed) == uids[0]
        bed.Ok("gnt-instance remove -f instance2")

    def test_outlives_its_daemon(self, bed):
        pid, locks = Pid(bed, "instance1"), Locks(bed)
        bed.Ok("daemon-util stop ganeti-noded", node="node2")
        bed.Ok("daemon-util start ganeti-noded", node="node2")
        bed.WaitForDaemon("ganeti-noded", "node2")
        assert Status(bed, "instance1") == "running"
        assert (Pid(bed, "instance1"), Locks(bed)) == (pid, locks)
        assert Answers(bed, "192.0.2.101")

    def test_leaves_nothing(self, bed):
        bed.Ok("gnt-instance shutdown instance1", timeout=120)
        assert Status(bed, "instance1") == "ADMIN_down"
        assert (Locks(bed), Taps(bed), FilesAbout(bed, "instance1")) == (set(), set(), [])
        bed.Ok("gnt-instance remove -f instance1")


class TestRouted:
    """instance3: routed by the node, in a table of the site; its QEMU dies again and again."""

    TABLE = 77

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def three(cls, bed):
        # What an administrator sets up for routed instances.
        bed.Ok(
            f"ip rule add iif br0 table {cls.TABLE}; cd /proc/sys/net/ipv4/conf/br0;"
            " echo 1 > forwarding; echo 1 > proxy_arp; echo 0 > ../../neigh/br0/proxy_delay",
            node="node2",
        )
        Add(
            bed,
            "instance3",
            f"mode=routed,link={cls.TABLE},ip=192.0.2.103",
            kernel_args="quiet panic=1 addr=192.0.2.103/24",
        )

    def test_answers_on_the_network(self, bed):
        assert Answers(bed, "192.0.2.103")
        tap = Tap(bed, "instance3")
        assert Rules(bed) == [tap]
        assert bed.Ok(f"ip route show table {self.TABLE}", node="node2").split() == [
            *("192.0.2.103", "dev", tap, "proto", "static", "scope", "link")
        ]
        settings = f"cd /proc/sys/net; cat ipv[46]/conf/{tap}/forwarding ipv4/conf/{tap}/proxy_arp"
        assert set(bed.Ok(settings, node="node2").split()) == {"1"}

    def test_dead_one_is_seen_and_starts_again(self, bed):
        KillQemu(bed, "instance3")
        assert Status(bed, "instance3") == "ERROR_down"
        assert Taps(bed) == set()
        assert len(Rules(bed)) == 1, "the kernel removes rules by itself: nothing to test"
        bed.Ok("gnt-instance startup instance3")
        assert Status(bed, "instance3") == "running"
        assert Rules(bed) == [Tap(bed, "instance3")]
        assert Locks(bed) == Uids(bed, Pid(bed, "instance3"))

    def test_name_of_its_interface_goes_to_another_one(self, bed):
        """The rules of a dead one do not catch the packets of who comes next."""
        tap = Tap(bed, "instance3")
        KillQemu(bed, "instance3")
        Add(bed, "instance4", "mode=bridged,link=br0", be="memory=16", kernel_path="")
        assert Tap(bed, "instance4") == tap
        assert Rules(bed) == []
        bed.Ok("gnt-instance shutdown --timeout=0 instance4")
        bed.Ok("gnt-instance remove -f instance4")

    def test_dead_one_is_shut_down(self, bed):
        bed.Ok("gnt-instance startup instance3")
        KillQemu(bed, "instance3")
        assert (len(Rules(bed)), len(Locks(bed))) == (1, 1)
        bed.Ok("gnt-instance shutdown instance3")
        assert Status(bed, "instance3") == "ADMIN_down"
        assert (Rules(bed), Locks(bed)) == ([], set())
        assert FilesAbout(bed, "instance3") == []
