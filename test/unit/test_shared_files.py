"""Disks in a directory that all nodes share: the directory, and what instances there go through."""

import os

import pytest

from ganeti import bootstrap, constants, errors, opcodes, pathutils, ssconf
from ganeti.cmdlib import fake, fakedisks
from ganeti.config import distribution
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3 = (config_fake.NodeName(number) for number in (1, 2, 3))
NAME, NEW_NAME = "inst1.example.com", "inst2.example.com"
SHARED = fakedisks.SHARED_DIR


@pytest.fixture
def world():
    found = fake.NewWorld(3)
    cluster = found.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["fake"]
    cluster.shared_file_storage_dir = None
    found.cfg.Update(cluster, None)
    return found


@pytest.fixture(autouse=True)
def _Names(monkeypatch):
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.98\t{NEW_NAME}\n")
    monkeypatch.setattr("ganeti.utils.net.TcpPing", lambda *args, **kwargs: False)


def Set(world, path=SHARED):
    world.Run(opcodes.OpClusterSetParams(shared_file_storage_dir=path))


def Create(**values):
    return fake.NewCreate(NAME, NODE2, disk_template=constants.DT_SHARED_FILE, **values)


def Warnings(world):
    return [line for line in world.log if "WARNING" in line]


class TestDirectory:
    def test_modify(self, world):
        assert world.cfg.GetSharedFileStorageDir() == ""
        Set(world)
        assert world.cfg.GetSharedFileStorageDir() == SHARED
        assert Warnings(world) == []
        # What the probe made is gone.
        assert world.rpc.shared.directories == set()
        probed = [node for call, node in world.rpc.calls if call == "file_storage_dir_rename"]
        assert sorted(probed) == [NODE2, NODE3]
        Set(world, "")
        assert world.cfg.GetSharedFileStorageDir() == ""

    @pytest.mark.parametrize("path", ["srv/shared", "/srv/../etc", "/srv//shared"])
    def test_refused(self, world, path):
        with pytest.raises(errors.OpPrereqError, match="shared_file_storage_dir") as caught:
            Set(world, path)
        assert caught.value.args[1] == errors.ECODE_INVAL
        with pytest.raises(errors.OpPrereqError, match="Shared file storage"):
            bootstrap.CheckInitSyntax(
                bootstrap.InitParams(
                    cluster_name="c.example.com",
                    enabled_hypervisors=["fake"],
                    shared_file_storage_dir=path,
                )
            )

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_node_that_does_not_share_it(self, world, number):
        """It is told which one, the others are still looked at, and nothing is left."""
        node = (NODE2, NODE3)[number]
        world.rpc.Fail("file_storage_dir_rename", "it is not a directory", nodes=[node])
        Set(world)
        (line,) = Warnings(world)
        assert f"{node} does not share {SHARED}: it is not a directory" in line
        assert world.rpc.shared.directories == set()
        assert world.cfg.GetSharedFileStorageDir() == SHARED

    def test_a_master_without_it(self, world):
        world.rpc.Fail("file_storage_dir_create", "no such directory", nodes=[NODE1])
        Set(world)
        (line,) = Warnings(world)
        assert NODE1 in line
        assert "file_storage_dir_rename" not in [call for call, _ in world.rpc.calls]

    def test_offline_nodes_are_not_asked(self, world):
        node = world.cfg.GetNodeInfo(NODE3)
        node.offline, node.master_candidate = True, False
        world.cfg.Update(node, None)
        Set(world)
        assert Warnings(world) == []
        assert ("file_storage_dir_rename", NODE3) not in world.rpc.calls

    @pytest.mark.parametrize("path", ["/srv/other", "", SHARED + "x"])
    def test_not_away_from_disks(self, world, path):
        Set(world)
        world.Run(Create())
        with pytest.raises(errors.OpPrereqError, match=NAME) as caught:
            Set(world, path)
        assert caught.value.args[1] == errors.ECODE_STATE
        Set(world, os.path.dirname(SHARED))

    def _Ssconf(self, world):
        cfg = world.cfg
        written = distribution.Written(
            config_serial=1,
            cluster=cfg.GetClusterInfo(),
            nodes=cfg.GetAllNodesInfo(),
            node_names=cfg.GetNodeList(),
            instance_names=[],
        )
        return distribution.SsconfValues(written)[constants.SS_SHARED_FILE_STORAGE_DIR]

    def test_ssconf(self, world):
        """Nodes learn it; a cluster without one has what it always had."""
        assert self._Ssconf(world) == ""
        assert "shared_file_storage_dir" not in world.cfg.GetClusterInfo().ToDict()
        Set(world)
        assert self._Ssconf(world) == SHARED
        os.makedirs(pathutils.DATA_DIR, exist_ok=True)
        os.makedirs(pathutils.LOCK_DIR, exist_ok=True)
        store = ssconf.SimpleStore()
        store.WriteFiles({constants.SS_SHARED_FILE_STORAGE_DIR: SHARED})
        assert store.GetSharedFileStorageDir() == SHARED

    def test_init(self):
        """It is mounted by somebody, and never made."""
        bootstrap._CheckSharedDir(None)
        with pytest.raises(errors.OpPrereqError, match="mount it first"):
            bootstrap._CheckSharedDir("/srv/not-there")
        os.makedirs(pathutils.LocalPath("/srv/there"), exist_ok=True)
        bootstrap._CheckSharedDir("/srv/there")


class TestInstance:
    def test_needs_the_directory(self, world):
        with pytest.raises(errors.OpPrereqError, match="--shared-file-storage-dir"):
            world.Run(Create())

    def test_created_once(self, world):
        Set(world)
        world.Run(Create())
        instance = world.cfg.GetInstanceInfo(NAME)
        paths = {disk.logical_id[1] for disk in instance.disks}
        assert paths == {f"{SHARED}/{NAME}/disk0", f"{SHARED}/{NAME}/disk1"}
        assert world.rpc.shared.disks == paths
        assert not instance.secondary_nodes
        assert not any(node.disks for node in world.rpc.nodes.values())
        world.Run(opcodes.OpInstanceRemove(instance_name=NAME, ignore_failures=False))
        assert not world.rpc.shared.disks
        assert not world.rpc.shared.directories

    def test_renamed(self, world):
        Set(world)
        world.Run(Create(start=False))
        world.rpc.calls.clear()
        world.Run(opcodes.OpInstanceRename(instance_name=NAME, new_name=NEW_NAME, ignore_ip=True))
        paths = {f"{SHARED}/{NEW_NAME}/disk0", f"{SHARED}/{NEW_NAME}/disk1"}
        assert world.rpc.shared.disks == paths
        disks = world.cfg.GetInstanceInfo(NEW_NAME).disks
        assert {disk.logical_id[1] for disk in disks} == paths
        renames = [node for call, node in world.rpc.calls if call == "file_storage_dir_rename"]
        assert renames == [NODE2]

    def test_verify(self, world):
        """Neither on its node nor after it has gone to another one is there anything wrong."""
        Set(world)
        world.Run(opcodes.OpClusterVerify(skip_checks=[], verbose=False, error_codes=True,
                                          debug_simulate_errors=False))  # fmt: skip
        before = [line for line in world.log if "ERROR" in line]
        world.Run(Create())
        for target in (None, NODE3):
            if target is not None:
                world.Run(
                    opcodes.OpInstanceMigrate(
                        instance_name=NAME, live=True, cleanup=False, target_node=target
                    )
                )
            world.Run(opcodes.OpClusterVerify(skip_checks=[], verbose=False, error_codes=True,
                                              debug_simulate_errors=False))  # fmt: skip
            found = [line for line in world.log if "ERROR" in line]
            assert [line for line in found if NAME in line] == []
            assert found == before
