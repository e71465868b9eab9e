"""Links from the disks of running instances to their devices.

An instance's virtual machine gets its disks under names that stay the same wherever it runs:
C{<run>/instance-disks/<instance>:<index>}.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Sequence

from .. import errors, objects, pathutils
from ..utils import io


def LinkPath(instance_name: str, index: int, directory: str = pathutils.DISK_LINKS_DIR) -> str:
    """Path of the link of a disk.

    @raise ValueError: the name is none of an instance
    """
    return io.PathJoin(directory, f"{instance_name}:{index}")


def CreateLink(instance_name: str, index: int, dev_path: str) -> str:
    """Point the link of a disk to a device, whatever was there before; its path.

    @raise errors.BlockDeviceError: it can't be made
    """
    try:
        path = LinkPath(instance_name, index)
        _Replace(path, dev_path)
    except (OSError, ValueError) as err:
        raise errors.BlockDeviceError(
            f"Can't create the link of disk {index} of {instance_name}: {err}"
        ) from err
    return path


def _Replace(path: str, target: str) -> None:
    try:
        os.symlink(target, path)
        return
    except OSError as err:
        if err.errno != errno.EEXIST:
            raise
    if os.path.islink(path) and os.readlink(path) == target:
        return
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)


def RemoveLinks(instance_name: str, disks: Sequence[objects.Disk]) -> None:
    """Remove the links of an instance's disks; errors are only logged."""
    for index in range(len(disks)):
        try:
            path = LinkPath(instance_name, index)
            if os.path.islink(path):
                os.unlink(path)
        except (OSError, ValueError):
            logging.exception("Can't remove the link of disk %s of %s", index, instance_name)
