"""Notes about active devices, for people: nothing reads them.

One file a device below C{<run>/bdev-cache}, with its owner, role and name in the instance. Useful
when a node has to be sorted out by hand.
"""

from __future__ import annotations

import logging
import os

from .. import pathutils, runtime
from ..utils import io


class DevCacheManager:
    """Writes and removes the notes; errors are only logged."""

    def __init__(
        self,
        directory: str = pathutils.BDEV_CACHE_DIR,
        rt: runtime.Runtime = runtime.DEFAULT,
    ) -> None:
        self._directory = directory
        self._rt = rt

    def PathFor(self, dev_path: str) -> str:
        """File of a device: its path without C{/dev/}, slashes turned into underscores."""
        name = dev_path.removeprefix("/dev/").replace("/", "_")
        return os.path.join(self._directory, f"bdev_{name}")

    def UpdateCache(
        self, dev_path: str | None, owner: str, on_primary: bool, iv_name: str | None
    ) -> None:
        """Note that a device is active."""
        if dev_path is None:
            logging.error("Device of %s has no path, not noted", owner)
            return
        role = "primary" if on_primary else "secondary"
        line = f"{owner} {role} {iv_name or 'not_visible'}\n"
        try:
            self._rt.files.write(self.PathFor(dev_path), line.encode("utf-8"), durable=False)
        except OSError as err:
            logging.error("Can't note device %s: %s", dev_path, err)

    def RemoveCache(self, dev_path: str | None) -> None:
        """Forget a device."""
        if dev_path is None:
            logging.error("Device without a path, no note to remove")
            return
        try:
            io.RemoveFile(self.PathFor(dev_path))
        except OSError as err:
            logging.error("Can't remove the note about device %s: %s", dev_path, err)
