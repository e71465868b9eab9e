"""Operations on instances with one call to a node going wrong, for tests of each call in turn."""

from ganeti import constants, errors, locking, mcpu, opcodes, rpc
from ganeti.cmdlib import fake, fakedisks
from ganeti.config import fake as config_fake

NODE1, NODE2, NODE3, NODE4 = (config_fake.NodeName(number) for number in (1, 2, 3, 4))
NAME = "inst1.example.com"

#: Ways for a call to go wrong.
REFUSED = "refused"
LOST = "lost"  # done, but the answer is lost
DEAD = "dead"  # not done, and the node does not answer any more
DIES = "dies"  # done and answered, and the node does not answer any more
MODES = [REFUSED, LOST, DEAD]

#: Volumes of instances that a test began with have sizes from here on, which renaming keeps: so
#: they are known again wherever they are.
_FIRST_MARK = 1_000_001


def NewWorld(template, up=True, **values):
    """Four nodes and an instance on the second one; the third has its mirrors."""
    world = fake.NewWorld(4)
    cluster = world.cfg.GetClusterInfo()
    cluster.enabled_hypervisors = ["fake"]
    cluster.volume_group_name = "xenvg"
    cluster.shared_file_storage_dir = fakedisks.SHARED_DIR
    world.cfg.Update(cluster, None)
    more = {"snode": NODE3} if template == constants.DT_DRBD8 else {}
    world.Run(fake.NewCreate(NAME, NODE2, disk_template=template, start=up, **{**more, **values}))
    Mark(world)
    return world


def Mark(world):
    """Mark all volumes and files there are."""
    number = _FIRST_MARK
    for name in sorted(world.rpc.nodes):
        node = world.rpc.nodes[name]
        for key in sorted(node.disks):
            node.sizes[key] = number
            number += 1
    for key in sorted(world.rpc.shared.disks):
        world.rpc.shared.sizes[key] = number
        number += 1


def FindMark(world, node, mark):
    """What a marked volume is called now; None if it is gone."""
    stores = [world.rpc.nodes[node], world.rpc.shared]
    found = [key for store in stores for key in store.disks if store.sizes.get(key) == mark]
    assert len(found) <= 1
    return found[0] if found else None


def Instance(world):
    (instance,) = world.cfg.GetAllInstancesInfo().values()
    return instance


def DataKeys(world, node):
    """Keys of what holds the data of the instance's disks on a node, as configured."""
    keys = []
    for disk in Instance(world).disks:
        data = disk.children[0] if disk.children else disk
        keys.append(fakedisks.DeviceKey(data))
    return keys


def Marks(world, node):
    """Marks of what holds the data of the instance's disks on a node."""
    stores = [world.rpc.nodes[node], world.rpc.shared]
    sizes = {key: size for store in stores for key, size in store.sizes.items()}
    return [sizes[key] for key in DataKeys(world, node)]


def RunAndTell(world, op):
    """Run an operation; its error, if it ended with one, and all that it said."""
    try:
        world.Run(op)
    except (errors.GenericError, mcpu.CancelJob) as err:
        return err, "\n".join([*world.log, *map(str, err.args)])
    return None, "\n".join(world.log)


class Fault:
    """Lets one call of an operation go wrong.

    @ivar hit: the call that did: (call, node)
    """

    def __init__(self, world, number, mode):
        """@param number: which one, from 1; 0: none"""
        self.hit = None
        self.count = 0
        self._world = world
        self._number = number
        self._mode = mode
        self._real = world.rpc._OneStatic
        world.rpc._OneStatic = self._One

    def _One(self, call, name, fn):
        self.count += 1
        if self.count != self._number:
            return self._real(call, name, fn)
        self.hit = call, name
        failed = rpc.RpcResult([False, "it broke"], call=call, node=name)
        if self._mode == REFUSED:
            return failed
        if self._mode == DEAD:
            self._world.rpc.Cut(name)
        result = self._real(call, name, fn)
        if self._mode == DIES:
            self._world.rpc.Cut(name)
        return failed if self._mode == LOST else result

    @property
    def dead(self):
        """The node that does not answer; None: all do."""
        return self.hit[1] if self.hit is not None and self._mode in (DEAD, DIES) else None

    def Stop(self):
        """No other call goes wrong; who is dead stays so."""
        self._world.rpc._OneStatic = self._real

    def End(self):
        """All is well again; a node that was dead has all that was on it."""
        self.Stop()
        if self.hit is not None:
            self._world.rpc.Mend(self.hit[1])


def CountCalls(prepare, make_op):
    """How many calls an operation makes that nothing keeps from succeeding."""
    world = prepare()
    fault = Fault(world, 0, None)
    err, text = RunAndTell(world, make_op())
    assert err is None, text
    fault.End()
    return fault.count


def EachFault(prepare, make_op, mode, check):
    """Run an operation as often as it makes calls, each time with another one going wrong.

    @param check: gets world, fault, error and all that was said
    """
    for number in range(1, CountCalls(prepare, make_op) + 1):
        world = prepare()
        fault = Fault(world, number, mode)
        err, text = RunAndTell(world, make_op())
        try:
            check(world, fault, err, text)
        except (AssertionError, errors.GenericError) as bad:
            raise AssertionError(
                f"call {number} {fault.hit}: {bad!r}\n--- ended with {err!r}\n{text}"
            ) from bad


def ExpectedKeys(world):
    """Node -> the devices that it has by the configuration; those of shared files: C{shared}."""
    found = {name: set() for name in [*world.rpc.nodes, "shared"]}
    instance = Instance(world)
    for disk in instance.disks:
        for node in disk.GetNodes(instance.primary_node):
            world.cfg.SetDiskID(disk, node)
            shared = instance.disk_template == constants.DT_SHARED_FILE
            keys = {fakedisks.DeviceKey(part) for part in disk.IterTree()}
            found["shared" if shared else node] |= keys
    return found


def ActualKeys(world):
    """Node -> the devices that it has; DRBD devices that are down count for nothing."""
    found = {"shared": set(world.rpc.shared.disks)}
    for name, node in world.rpc.nodes.items():
        found[name] = {
            key for key in node.disks if not key.startswith("drbd") or key in node.active
        }
    return found


def FindLeaks(world):
    """(node, device) of what there is on nodes that the configuration does not know."""
    expected = ExpectedKeys(world)
    return sorted(
        (name, key) for name, keys in ActualKeys(world).items() for key in keys - expected[name]
    )


def CheckNoHarm(world):
    """What must hold at any time: of locks, configuration, reservations and ports."""
    for info in world.master.glm.GetLockInfo():
        assert not info["owners"], info
        assert not info["pending"], info
    names = world.master.glm._names(locking.LEVEL_INSTANCE)
    assert sorted(names) == sorted(world.cfg.GetInstanceList())
    assert world.cfg.VerifyConfig() == []
    reserved = {
        key: value
        for key, value in world.cfg.GetStatistics().items()
        if key.startswith("reserved_") and value
    }
    assert not reserved, reserved
    instance, cluster = Instance(world), world.cfg.GetClusterInfo()
    ports = {disk.logical_id[2] for disk in instance.disks if disk.dev_type == constants.LD_DRBD8}
    ports |= {instance.network_port} - {None}
    pool = set(cluster.tcpudp_port_pool)
    assert not ports & pool, "a port is used and free"
    assert ports | pool == set(range(11000, cluster.highest_used_port + 1)), "a port is lost"
    running = sorted(name for name, node in world.rpc.nodes.items() if node.running)
    assert running == ([instance.primary_node] if instance.admin_up else []), running


def CheckMirrors(world):
    """All mirrors of the instance have both sides, connected, with the volumes as configured."""
    instance = Instance(world)
    for disk in instance.disks:
        for name in disk.GetNodes(instance.primary_node):
            node = world.rpc.nodes[name]
            world.cfg.SetDiskID(disk, name)
            for child in disk.children:
                assert fakedisks.DeviceKey(child) in node.disks, f"{name}: {child.logical_id}"
            key = fakedisks.DeviceKey(disk)
            if not instance.admin_up:
                assert key not in node.active, f"{disk.iv_name} is active on {name}"
                continue
            device = node.drbd[key]
            assert key in node.active, f"{disk.iv_name} is not active on {name}"
            assert device.network == "single", f"{disk.iv_name} is not connected on {name}"
            assert device.children == [fakedisks.DeviceKey(child) for child in disk.children]
            assert device.primary == (name == instance.primary_node)


def ActivateDisks():
    return opcodes.OpInstanceActivateDisks(instance_name=NAME, ignore_size=False)
