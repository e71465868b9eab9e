"""Renaming instances of every disk template, with each call to a node going wrong in turn."""

import os

import callfaults as cf
import pytest

from ganeti import errors, opcodes, pathutils
from ganeti.cmdlib import fakedisks

NEW_NAME = "inst2.example.com"
TEMPLATES = ["plain", "drbd", "file", "sharedfile", "diskless"]


def Rename():
    return opcodes.OpInstanceRename(instance_name=cf.NAME, new_name=NEW_NAME, ignore_ip=True)


@pytest.fixture(autouse=True)
def _Names():
    os.makedirs(os.path.dirname(pathutils.ETC_HOSTS), exist_ok=True)
    with open(pathutils.ETC_HOSTS, "w") as fobj:
        fobj.write(f"192.0.2.98\t{NEW_NAME}\n")


def NewWorld(template):
    if template == "diskless":
        return cf.NewWorld(template, up=False, disks=[])
    return cf.NewWorld(template, up=False)


def CheckData(world, marks):
    """The data is where the configuration says."""
    cf.CheckNoHarm(world)
    instance = cf.Instance(world)
    for mark, disk in zip(marks, instance.disks, strict=True):
        data = disk.children[0] if disk.children else disk
        assert cf.FindMark(world, instance.primary_node, mark) == fakedisks.DeviceKey(data)
    assert cf.FindLeaks(world) == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_renames(template):
    """BASE1: files follow the name; volumes keep theirs."""
    world = NewWorld(template)
    old = cf.Instance(world)
    marks = cf.Marks(world, cf.NODE2)
    world.Run(Rename())
    new = cf.Instance(world)
    assert (new.name, new.uuid) == (NEW_NAME, old.uuid)
    CheckData(world, marks)
    for index, disk in enumerate(new.disks):
        if template in ("file", "sharedfile"):
            assert disk.logical_id[1].endswith(f"/{NEW_NAME}/disk{index}")
        else:
            assert disk.logical_id == old.disks[index].logical_id
    assert world.rpc.nodes[cf.NODE2].scripts[-1] == ("rename", NEW_NAME)
    for node in [*world.rpc.nodes.values(), world.rpc.shared]:
        assert not node.active
    world.Run(opcodes.OpInstanceStartup(instance_name=NEW_NAME, force=False))
    if template == "drbd":
        cf.CheckMirrors(world)


@pytest.mark.parametrize("mode", cf.MODES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_each_call(template, mode):
    """It has the old name or the new one, with all its data; and the job says so."""
    marks = cf.Marks(NewWorld(template), cf.NODE2)

    def Check(world, fault, err, text):
        name = cf.Instance(world).name
        if fault.dead is None:
            CheckData(world, marks)
        if err is not None and name == NEW_NAME:
            assert f"{NEW_NAME} now" in text
        fault.End()
        if name == cf.NAME:
            assert err is not None
            world.Run(Rename())
        assert cf.Instance(world).name == NEW_NAME
        CheckData(world, marks)
        world.Run(opcodes.OpInstanceStartup(instance_name=NEW_NAME, force=False))

    cf.EachFault(lambda: NewWorld(template), Rename, mode, Check)


def test_does_not_run():
    world = cf.NewWorld("drbd")
    with pytest.raises(errors.OpPrereqError, match="shutdown"):
        world.Run(Rename())
