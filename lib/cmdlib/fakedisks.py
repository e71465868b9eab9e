"""Block devices in memory: files, logical volumes and DRBD devices over them, on fake nodes.

A device is known by a key (L{DeviceKey}). What lies below L{SHARED_DIR} is the same on all nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, objects, rpc

#: What nodes find there is the same for all of them.
SHARED_DIR: Final = "/srv/ganeti/shared-file-storage"


@dataclass
class FakeDrbd:
    """A DRBD device on one node.

    @ivar children: keys of its data and metadata volumes; empty: it is diskless
    @ivar network: C{single} or C{dual} with a connection, None without
    @ivar primary: is it open for writing?
    @ivar degraded: is its data not up to date?
    @ivar sync_percent: a synchronisation is under way
    """

    children: list[str] = field(default_factory=list)
    network: str | None = None
    primary: bool = False
    degraded: bool = False
    sync_percent: float | None = None


@dataclass
class DiskStore:
    """The devices of one node.

    @ivar disks: keys of what exists
    @ivar sizes: key -> MiB
    @ivar params: key -> the disk parameters it was created with
    @ivar active: those that are assembled
    @ivar drbd: key -> state of a DRBD device; once created, its metadata exists
    @ivar faulty: is every disk bad?
    @ivar exported: copies that were sent: (key, node, path)
    """

    disks: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    drbd: dict[str, FakeDrbd] = field(default_factory=dict)
    faulty: bool = False
    exported: list[tuple[str, str, str]] = field(default_factory=list)

    def Put(self, disk: objects.Disk) -> None:
        """Have a device with what is below it, active and in good condition."""
        for part in reversed(list(disk.IterTree())):
            key = DeviceKey(part)
            self.disks.add(key)
            self.active.add(key)
            self.sizes[key] = part.size
        if disk.dev_type == constants.LD_DRBD8:
            children = [DeviceKey(child) for child in disk.children or ()]
            self.drbd[DeviceKey(disk)] = FakeDrbd(children, "single")


def DeviceKey(disk: objects.Disk) -> str:
    """What names a device on its node: path of a file, C{vg/lv}, C{drbd<minor>}; pure."""
    if disk.dev_type == constants.LD_FILE:
        return str(disk.logical_id[1])
    if disk.dev_type == constants.LD_LV:
        return f"{disk.logical_id[0]}/{disk.logical_id[1]}"
    assert disk.physical_id is not None, "the physical ids are not set"
    return f"drbd{disk.physical_id[4]}"


def OwnKey(disk: objects.Disk, node: str) -> str:
    """What names a DRBD device on one of its nodes, whosever view the disk has; pure."""
    return f"drbd{disk.logical_id[3 if disk.logical_id[0] == node else 4]}"


def DevicePath(disk: objects.Disk) -> str:
    """Where a device would be in the file system; pure."""
    key = DeviceKey(disk)
    return key if key.startswith("/") else f"/dev/{key}"


class FakeDisks:
    """The calls about block devices; L{cmdlib.fake.FakeNodes} has the rest."""

    def __init__(self) -> None:
        super().__init__()
        #: The directory that all nodes share.
        self.shared = DiskStore()

    def _One(self, call: str, name: str, fn: Callable[[Any], Any]) -> rpc.RpcResult:
        raise NotImplementedError

    def _Many(
        self, call: str, names: Sequence[str], fn: Callable[[Any], Any]
    ) -> dict[str, rpc.RpcResult]:
        raise NotImplementedError

    def _Store(self, node: DiskStore, path: str) -> DiskStore:
        """Where a device or directory of that name is kept."""
        return self.shared if path.startswith(SHARED_DIR + "/") else node

    # Directories

    def call_file_storage_dir_create(self, node: str, path: str) -> rpc.RpcResult:
        return self._One(
            "file_storage_dir_create",
            node,
            lambda item: self._Store(item, path).directories.add(path),
        )

    def call_file_storage_dir_remove(self, node: str, path: str) -> rpc.RpcResult:
        return self._One(
            "file_storage_dir_remove",
            node,
            lambda item: self._Store(item, path).directories.discard(path),
        )

    def call_file_storage_dir_rename(self, node: str, old: str, new: str) -> rpc.RpcResult:
        def Rename(item: DiskStore) -> None:
            store = self._Store(item, old)
            if new in store.directories:
                if old in store.directories:
                    raise LookupError(f"Can't rename directory {old} to {new}: both exist")
                return
            if old not in store.directories:
                raise LookupError(f"Can't rename directory {old}: it is not a directory")
            store.directories.remove(old)
            store.directories.add(new)
            store.disks = {path.replace(old + "/", new + "/") for path in store.disks}
            store.sizes = {
                path.replace(old + "/", new + "/"): store.sizes[path] for path in store.sizes
            }

        return self._One("file_storage_dir_rename", node, Rename)

    # Existence

    def call_blockdev_create(
        self, node: str, disk: objects.Disk, size: int, owner: str, on_primary: bool, info: str
    ) -> rpc.RpcResult:
        def Create(item: DiskStore) -> Any:
            key = DeviceKey(disk)
            store = self._Store(item, key)
            # A mirror that is down is nothing but volumes.
            if key in (item.active if disk.dev_type == constants.LD_DRBD8 else store.disks):
                raise LookupError(f"Can't create {disk.dev_type} disk {key}: File exists")
            if disk.dev_type == constants.LD_DRBD8:
                children = [DeviceKey(child) for child in disk.children or ()]
                self._RequireAll(item, children)
                item.drbd[key] = FakeDrbd(children, "single" if disk.physical_id[1] else None)  # type: ignore[index]
                item.active |= {key, *children}
            store.disks.add(key)
            store.sizes[key] = size
            store.params[key] = dict(disk.params or {})
            return disk.physical_id or disk.logical_id

        return self._One("blockdev_create", node, Create)

    @staticmethod
    def _RequireAll(item: DiskStore, keys: Sequence[str]) -> None:
        missing = [key for key in keys if key not in item.disks]
        if missing:
            raise LookupError(f"Devices are missing: {', '.join(missing)}")

    def call_blockdev_remove(self, node: str, disk: objects.Disk) -> rpc.RpcResult:
        def Remove(item: DiskStore) -> None:
            for part in disk.IterTree():
                key = DeviceKey(part)
                for name, device in list(item.drbd.items()):
                    if key not in device.children:
                        continue
                    if name in item.active:
                        raise LookupError(f"Can't remove {key}: {name} uses it")
                    del item.drbd[name]
                    item.disks.discard(name)
                store = self._Store(item, key)
                store.disks.discard(key)
                item.active.discard(key)
                store.sizes.pop(key, None)
                item.drbd.pop(key, None)

        return self._One("blockdev_remove", node, Remove)

    def call_blockdev_rename(
        self, node: str, devices: Sequence[tuple[objects.Disk, Sequence[Any]]]
    ) -> rpc.RpcResult:
        def Rename(item: DiskStore) -> None:
            for disk, new_id in devices:
                old, new = DeviceKey(disk), "/".join(str(part) for part in new_id)
                if old not in item.disks:
                    raise LookupError(f"Can't rename {old}: it is not there")
                if new in item.disks:
                    raise LookupError(f"Can't rename {old} to {new}: that exists")
                item.disks.remove(old)
                item.disks.add(new)
                item.sizes[new] = item.sizes.pop(old, disk.size)
                if old in item.active:
                    item.active.remove(old)
                    item.active.add(new)
                for device in item.drbd.values():
                    device.children = [new if key == old else key for key in device.children]

        return self._One("blockdev_rename", node, Rename)

    def call_blockdev_grow(self, node: str, disk: objects.Disk, amount: int) -> rpc.RpcResult:
        def Grow(item: DiskStore) -> None:
            # Of a mirror the data grows, its metadata does not.
            data = DeviceKey(disk.children[0] if disk.children else disk)
            self._RequireAll(self._Store(item, data), [data])
            sizes = self._Store(item, data).sizes
            sizes[data] = sizes.get(data, disk.size) + amount
            if disk.children:
                sizes[DeviceKey(disk)] = disk.size + amount

        return self._One("blockdev_grow", node, Grow)

    def call_blockdev_getsizes(self, node: str, disks: Sequence[objects.Disk]) -> rpc.RpcResult:
        def Sizes(item: DiskStore) -> list[int | None]:
            keys = [DeviceKey(disk) for disk in disks]
            sizes = [self._Store(item, key).sizes.get(key) for key in keys]
            return [None if size is None else size << 20 for size in sizes]

        return self._One("blockdev_getsize", node, Sizes)

    def call_blockdev_snapshot(self, node: str, disk: objects.Disk) -> rpc.RpcResult:
        def Snapshot(item: DiskStore) -> str:
            volume = disk
            while volume.dev_type == constants.LD_DRBD8 and volume.children:
                volume = volume.children[0]
            if volume.dev_type != constants.LD_LV:
                raise LookupError(f"{DeviceKey(disk)} has no snapshots")
            self._RequireAll(item, [DeviceKey(volume)])
            name = f"{volume.logical_id[1]}.snap"
            key = f"{volume.logical_id[0]}/{name}"
            item.disks.add(key)
            item.sizes[key] = volume.size
            return name

        return self._One("blockdev_snapshot", node, Snapshot)

    def call_blockdev_export(
        self, node: str, disk: objects.Disk, dest_node: str, dest_path: str, cluster_name: str
    ) -> rpc.RpcResult:
        return self._One(
            "blockdev_export",
            node,
            lambda item: item.exported.append((DeviceKey(disk), dest_node, dest_path)),
        )

    # Use

    def call_blockdev_assemble(
        self, node: str, disk: objects.Disk, owner: str, as_primary: bool
    ) -> rpc.RpcResult:
        def Assemble(item: DiskStore) -> str:
            key = DeviceKey(disk)
            if disk.dev_type == constants.LD_DRBD8:
                device = item.drbd.get(key)
                if device is None:
                    raise LookupError(f"{key} has no valid metadata")
                if key not in item.active:
                    wanted = [DeviceKey(child) for child in disk.children or ()]
                    # Without its volumes it has no disk, but its peer's data.
                    device.children = wanted if set(wanted) <= item.disks else []
                item.active.update(device.children)
                device.network = device.network or ("single" if disk.physical_id[1] else None)  # type: ignore[index]
                device.primary = device.primary or as_primary
            elif key not in self._Store(item, key).disks:
                what = "File" if key.startswith("/") else "Volume"
                raise LookupError(f"{what} {key} does not exist")
            item.active.add(key)
            return DevicePath(disk)

        return self._One("blockdev_assemble", node, Assemble)

    def call_blockdev_shutdown(self, node: str, disk: objects.Disk) -> rpc.RpcResult:
        def Shutdown(item: DiskStore) -> None:
            for part in disk.IterTree():
                key = DeviceKey(part)
                item.active.discard(key)
                if key in item.drbd:
                    item.drbd[key].network, item.drbd[key].primary = None, False

        return self._One("blockdev_shutdown", node, Shutdown)

    def call_blockdev_close(
        self, node: str, instance_name: str, disks: Sequence[objects.Disk]
    ) -> rpc.RpcResult:
        def Close(item: DiskStore) -> None:
            for disk in disks:
                device = item.drbd.get(DeviceKey(disk))
                if device is not None:
                    device.primary = False

        return self._One("blockdev_close", node, Close)

    def call_blockdev_addchildren(
        self, node: str, parent: objects.Disk, disks: Sequence[objects.Disk]
    ) -> rpc.RpcResult:
        def Add(item: DiskStore) -> None:
            device = self._GetDrbd(item, parent)
            keys = [DeviceKey(disk) for disk in disks]
            if device.children:
                raise LookupError(f"{DeviceKey(parent)} has its disk already")
            self._RequireAll(item, keys)
            device.children = keys
            item.active.update(keys)

        return self._One("blockdev_addchildren", node, Add)

    def call_blockdev_removechildren(
        self, node: str, parent: objects.Disk, disks: Sequence[objects.Disk]
    ) -> rpc.RpcResult:
        def Remove(item: DiskStore) -> None:
            self._GetDrbd(item, parent).children = []

        return self._One("blockdev_removechildren", node, Remove)

    @staticmethod
    def _GetDrbd(item: DiskStore, disk: objects.Disk) -> FakeDrbd:
        key = DeviceKey(disk)
        if key not in item.drbd or key not in item.active:
            raise LookupError(f"{key} is not active")
        return item.drbd[key]

    # Condition

    def _Status(self, item: DiskStore, disk: objects.Disk) -> objects.BlockDevStatus | None:
        key = DeviceKey(disk)
        if disk.dev_type == constants.LD_DRBD8:
            device = item.drbd.get(key)
            if device is None or key not in item.active:
                return None
            bad = item.faulty or not device.children
            return objects.BlockDevStatus(
                dev_path=f"/dev/{key}",
                sync_percent=device.sync_percent,
                is_degraded=bad or device.degraded or self._IsAlone(item, key),
                ldisk_status=constants.LDS_FAULTY if bad else constants.LDS_OKAY,
            )
        if key not in self._Store(item, key).disks:
            return None
        return objects.BlockDevStatus(
            dev_path=DevicePath(disk),
            is_degraded=item.faulty,
            ldisk_status=constants.LDS_FAULTY if item.faulty else constants.LDS_OKAY,
        )

    def _IsAlone(self, item: DiskStore, key: str) -> bool:
        """Has a mirror no connection to its other side?"""
        return item.drbd[key].network is None

    def call_blockdev_find(self, node: str, disk: objects.Disk) -> rpc.RpcResult:
        return self._One("blockdev_find", node, lambda item: self._Status(item, disk))

    def call_blockdev_getmirrorstatus(
        self, node: str, disks: Sequence[objects.Disk]
    ) -> rpc.RpcResult:
        def Ask(item: DiskStore) -> list[objects.BlockDevStatus]:
            found = [self._Status(item, disk) for disk in disks]
            if None in found:
                missing = DeviceKey(disks[found.index(None)])
                raise LookupError(f"Can't find device {missing}")
            return [status for status in found if status is not None]

        return self._One("blockdev_getmirrorstatus", node, Ask)

    # Mirrors

    def call_drbd_disconnect_net(
        self, node_list: Sequence[str], nodes_ip: Mapping[str, str], disks: Sequence[objects.Disk]
    ) -> dict[str, rpc.RpcResult]:
        return self._SetNetwork("drbd_disconnect_net", node_list, disks, None)

    def call_drbd_attach_net(
        self,
        node_list: Sequence[str],
        nodes_ip: Mapping[str, str],
        disks: Sequence[objects.Disk],
        instance_name: str,
        multimaster: bool,
    ) -> dict[str, rpc.RpcResult]:
        mode = "dual" if multimaster else "single"
        return self._SetNetwork("drbd_attach_net", node_list, disks, mode)

    def _SetNetwork(
        self, call: str, node_list: Sequence[str], disks: Sequence[objects.Disk], mode: str | None
    ) -> dict[str, rpc.RpcResult]:
        """The disks carry no view of one node here: each node finds its own minor in them."""

        def Set(name: str, item: DiskStore) -> None:
            for disk in disks:
                key = OwnKey(disk, name)
                if key not in item.drbd or key not in item.active:
                    raise LookupError(f"{key} is not active")
                item.drbd[key].network = mode
                if mode == "dual":
                    item.drbd[key].primary = True

        return {
            name: self._One(call, name, lambda item, name=name: Set(name, item))  # type: ignore[misc]
            for name in node_list
        }

    def call_drbd_wait_sync(
        self, node_list: Sequence[str], nodes_ip: Mapping[str, str], disks: Sequence[objects.Disk]
    ) -> dict[str, rpc.RpcResult]:
        def Ask(name: str, item: DiskStore) -> tuple[bool, float | None]:
            keys = [OwnKey(disk, name) for disk in disks]
            percents = [
                item.drbd[key].sync_percent
                for key in keys
                if key in item.drbd and item.drbd[key].sync_percent is not None
            ]
            return not percents, min(percents, default=None)  # type: ignore[type-var]

        return {
            name: self._One("drbd_wait_sync", name, lambda item, name=name: Ask(name, item))  # type: ignore[misc]
            for name in node_list
        }
