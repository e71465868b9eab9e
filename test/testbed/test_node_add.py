"""gnt-cluster init, and gnt-node add of what can not be a node, over real SSH."""

import pytest

from bed import layout
from realcluster import (
    INIT,
    NODE1,
    NODE4,
    AcceptKey,
    AnswerSsh,
    Config,
    HasNoSecrets,
    HasNothing,
    InitCluster,
    KeyOfHost,
    KnowHost,
)


@pytest.fixture(scope="module")
def master(NewTestbed):
    """A cluster of one node with a network for replication, and three machines without one."""
    master = NewTestbed("--nodes=4")
    InitCluster(master)
    return master


class TestInit:
    """gnt-cluster init on a real machine (BASE1)."""

    def test_master(self, master):
        assert master.Ok("gnt-cluster getmaster") == f"{NODE1}\n"
        assert "192.0.2.1/32" in master.Ok("ip -o addr show dev br0")
        assert master.Problems() == []

    def test_keys(self, master):
        """Root has a key that it accepts itself; the host is known by the cluster's name."""
        assert "node1\n" in master.Ok("gnt-cluster command hostname")
        known = master.Data("known_hosts").read_text()
        assert known == f"cluster.example.com {KeyOfHost(master, 'node1', 'rsa')}\n"

    def test_again(self, master):
        said = master.Fails(f"{INIT} cluster2")
        assert "part of a cluster already" in said

    def test_name_in_use(self, master):
        """Where another cluster answers at its address, a host can not become a master."""
        said = master.Fails(f"{INIT} cluster", node="node4")
        assert "192.0.2.1 (cluster.example.com) answers already" in said
        assert HasNothing(master, "node4")


def Snapshot(bed, node):
    """What root's files and the hosts file of a node are."""
    files = [*(bed.Root(node) / "root/.ssh").glob("*"), bed.Root(node) / "etc/hosts"]
    return {path.name: (path.stat().st_mode, path.read_bytes()) for path in files}


@pytest.fixture
def own_key(master):
    """A machine with a key of root that has nothing to do with clusters."""
    master.Ok("rm -rf ~/.ssh; mkdir -m 700 ~/.ssh", node="node3")
    master.Ok("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519", node="node3")
    master.Ok("echo 'ssh-rsa AAAA somebody' > ~/.ssh/authorized_keys", node="node3")
    return Snapshot(master, "node3")


class TestFailures:
    """What fails half-way leaves the machine as it was."""

    def test_init(self, master, own_key):
        """The master daemon does not start, after all else was done."""
        master.Ok("mkdir -p /run/ganeti && touch /run/ganeti/socket", node="node3")
        said = master.Fails(f"{INIT} cluster2", node="node3")
        assert "Could not start the master daemon" in said
        master.Ok("rm /run/ganeti/socket", node="node3")
        assert Snapshot(master, "node3") == own_key
        HasNoSecrets(master, "node3")
        assert not master.Data("config.data", "node3").exists()
        assert "192.0.2.2/" not in master.Ok("ip -o addr", node="node3")

    def test_node_set_up(self, master, own_key):
        """The new node's daemon does not start."""
        AcceptKey(master, "node3")
        before = Snapshot(master, "node3")
        KnowHost(master, "node3", KeyOfHost(master, "node3"))
        pid_file = "/run/ganeti/ganeti-noded.pid"
        master.Ok(f"rm -f {pid_file}; mkdir -p {pid_file}", node="node3")
        said = master.Fails("gnt-node add -f -s 198.51.100.13 node3")
        assert "Could not start ganeti-noded" in said
        master.Ok(f"rmdir {pid_file}", node="node3")
        assert Snapshot(master, "node3") == before
        HasNoSecrets(master, "node3")


class TestRefused:
    """gnt-node add of what can not be a node: nothing is left there, and the text says why."""

    def Add(self, master, *args, code=1):
        terminal = master.At("gnt-node", "add", "--force", *args)
        try:
            yield terminal
            assert terminal.Wait() == code, terminal.text
        finally:
            terminal.Close()

    def test_unknown_name(self, master):
        assert "(nobody) does not resolve" in master.Fails("gnt-node add -f nobody")

    def test_unreachable(self, master):
        """A host that is there in name only."""
        said = master.Fails("gnt-node add -f -s 198.51.100.99 ghost")
        assert "No way to ghost.example.com by SSH as root" in said
        assert "No route to host" in said

    def test_without_terminal(self, master):
        """Nobody can say whether an unknown host key is right."""
        said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        assert "there is no terminal to ask whether it is the right one" in said
        assert "--no-ssh-key-check" in said
        KnowHost(master, "node4", KeyOfHost(master, "node4"))
        said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        assert "it takes none of root's keys, and nobody gave a password" in said
        KnowHost(master, "node4", None)
        assert HasNothing(master, "node4")

    def test_host_key_not_confirmed(self, master):
        """The key is shown, and the user's word counts."""
        for terminal in self.Add(master, "-s", "198.51.100.14", "node4"):
            shown = terminal.Expect(r"Its key: ED25519 (SHA256:\S+)").group(1)
            real = master.Ok("ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub", node="node4")
            assert shown == real.split()[1]
            terminal.Expect(r"y/\[n\]")
            terminal.Type("n")
            terminal.Expect("was not confirmed")
        assert HasNothing(master, "node4")

    def test_host_key_changed(self, master):
        """Another key than the one that root knows: no question, no password, no way."""
        KnowHost(master, "node4", KeyOfHost(master, "node2"))
        said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        assert "ITS HOST KEY HAS CHANGED" in said
        command = "ssh-keygen -R node4.example.com -f /root/.ssh/known_hosts"
        assert f"{command}, then try again" in said
        master.Ok(command)
        said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        assert "is not known here" in said
        assert HasNothing(master, "node4")
        KnowHost(master, "node4", None)

    def test_wrong_password(self, master):
        for terminal in self.Add(master, "-s", "198.51.100.14", "node4"):
            AnswerSsh(terminal, password="wrong")
            for _ in range(2):
                terminal.Expect("please try again")
                terminal.Expect("password: ")
                terminal.Type("wrong")
            terminal.Expect(r"No way to node4\.example\.com by SSH as root")
            terminal.Expect("Permission denied")
        assert HasNothing(master, "node4")

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ("", "every node needs one"),
            ("-s 198.51.100.300", "is no IPv4 address"),
            ("-s 198.51.100.77", "does not answer at its secondary IP"),
            ("-s 198.51.100.11", "belongs to node node1.example.com already"),
            ("--readd", "not in the cluster"),
        ],
    )
    def test_checked_first(self, master, options, text):
        """What the master can tell is told before anybody is asked for a password."""
        assert text in master.Fails(f"gnt-node add -f {options} node4")
        assert HasNothing(master, "node4")

    def test_foreign_secondary_address(self, master):
        """Found only when the node has the secrets: they are taken back."""
        AcceptKey(master, "node4")
        KnowHost(master, "node4", KeyOfHost(master, "node4"))
        said = master.Fails("gnt-node add -f -s 198.51.100.12 node4")
        assert "does not have the secondary IP 198.51.100.12" in said
        assert "Could not" not in said
        assert HasNothing(master, "node4")
        assert (master.Root("node4") / "root/.ssh/authorized_keys").read_text() == ""
        assert len(Config(master)["nodes"]) == len(master.Listing("gnt-node", "name"))

    def test_daemon_behind_a_firewall(self, master):
        """It never answers: what nobody could take back by a call goes the way it came."""
        AcceptKey(master, "node4")
        KnowHost(master, "node4", KeyOfHost(master, "node4"))
        # Hashed, as the SSH client of Debian writes it.
        master.Ok("ssh-keygen -q -H; rm ~/.ssh/known_hosts.old")
        assert "node4" not in (master.Root("node1") / "root/.ssh/known_hosts").read_text()
        chain = "type filter hook input priority 0; tcp dport 1811 reject;"
        master.Ok(f"nft 'table ip a {{ chain b {{ {chain} }}; }}'", node="node4")
        try:
            said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        finally:
            master.Ok("nft delete table ip a", node="node4")
        assert "did not answer within 10 seconds" in said
        assert "node4.example.com keeps nothing of the set-up" in said
        assert HasNothing(master, "node4")

    def test_suite_not_installed(self, master):
        AcceptKey(master, "node4")
        KnowHost(master, "node4", KeyOfHost(master, "node4"))
        tools = f"{layout.TREE}/tools"
        master.Ok(f"mount -t tmpfs none {tools}", node="node4")
        try:
            said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        finally:
            master.Ok(f"umount {tools}", node="node4")
        assert "is the suite installed there, at the same place as here?" in said
        assert HasNothing(master, "node4")

    def test_node_of_another_cluster(self, master):
        """It stays what it is; and after its cluster has gone it can join (BASE1: destroy)."""
        AcceptKey(master, "node4")
        KnowHost(master, "node4", KeyOfHost(master, "node4"))
        master.Ok(f"{INIT} --no-ssh-init cluster2", node="node4")
        said = master.Fails("gnt-node add -f -s 198.51.100.14 node4")
        assert "node of the cluster 'cluster2.example.com' already" in said
        assert master.Ok("gnt-cluster getmaster", node="node4") == f"{NODE4}\n"
        master.Ok("gnt-cluster destroy --yes-do-it", node="node4")
        assert HasNothing(master, "node4")
        assert "192.0.2.2/" not in master.Ok("ip -o addr", node="node4")
