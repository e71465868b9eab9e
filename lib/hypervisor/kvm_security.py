"""Whom a QEMU process belongs to, and what it can see: accounts of the user-id pool, and cages.

Should a guest break out of its machine, it is in a process that may do next to nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
from collections.abc import Iterator, Mapping
from typing import Any

from .. import constants, errors, runtime, uidpool
from . import kvm_files


@contextlib.contextmanager
def ProcessUser(
    rt: runtime.Runtime, paths: kvm_files.Paths, hvp: Mapping[str, Any]
) -> Iterator[str | None]:
    """Account for the process to be started inside of the context; None: stay root.

    An id of the pool is locked until the process runs and has been written down; if it could not be
    started the id goes back.

    @param hvp: filled parameters as they are configured now
    """
    model = hvp[constants.HV_SECURITY_MODEL]
    if model == constants.HT_SM_USER:
        yield hvp[constants.HV_SECURITY_DOMAIN]
        return
    if model != constants.HT_SM_POOL:
        yield None
        return
    uid = uidpool.RequestUnusedUid(_PoolUids(), rt)
    try:
        yield _AccountName(uid.GetUid())
        rt.files.write(paths.uid, f"{uid.AsStr()}\n".encode(), mode=0o644)
    except BaseException:
        # By now the process has ended, if it had started at all.
        uidpool.ReleaseUid(uid)
        raise
    uid.Unlock()


def ReleaseUid(rt: runtime.Runtime, paths: kvm_files.Paths) -> None:
    """Give the id of an instance that does not run any more back to the pool, if it had one."""
    try:
        content = rt.files.read(paths.uid)
    except FileNotFoundError:
        return
    try:
        uidpool.ReleaseUid(int(content))
    except (ValueError, errors.LockError) as err:
        logging.warning(
            "Can't give the user-id of instance %s back to the pool (%s): %s",
            paths.name,
            paths.uid,
            err,
        )
    rt.files.remove(paths.uid)


def RemoveChroot(rt: runtime.Runtime, paths: kvm_files.Paths, quarantine_dir: str) -> None:
    """Remove the directory that a process was locked into; one with something in it is kept."""
    try:
        os.rmdir(paths.chroot)
    except FileNotFoundError:
        return
    except OSError:
        # Whatever got in there is evidence; nobody but an administrator should delete it.
        stamp = int(rt.clock.time())
        name = "-".join((paths.name, str(stamp), rt.random.token_hex(2)))
        target = os.path.join(quarantine_dir, name)
        os.rename(paths.chroot, target)
        logging.warning(
            "The chroot of instance %s was not empty; it was moved to %s", paths.name, target
        )


def _PoolUids() -> set[int]:
    # Imported late: only instances of this security model need it.
    from .. import ssconf

    pool = uidpool.ParseUidPool(ssconf.SimpleStore().GetUidPool(), separator="\n")
    return set(uidpool.ExpandUidPool(pool))


def _AccountName(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        raise errors.HypervisorError(
            f"The user-id pool has the id {uid}, for which there is no account on this node"
        ) from None
