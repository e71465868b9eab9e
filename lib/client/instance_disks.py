"""Commands on the disks of an instance."""

from __future__ import annotations

from typing import Any

from .. import constants, errors
from . import console, jobs, values


def ActivateDisks(opts: Any, args: list[str]) -> int:
    """Make the disks of an instance accessible and say where."""
    from .. import opcodes

    op = opcodes.OpInstanceActivateDisks(instance_name=args[0], ignore_size=opts.ignore_size)
    # Nothing after a dry run
    for node, name, path in jobs.SubmitOrSend(op, opts) or ():
        console.ToStdout(f"{node}:{name}:{path}")
    return constants.EXIT_SUCCESS


def DeactivateDisks(opts: Any, args: list[str]) -> int:
    """Shut the disks of a stopped instance down."""
    from .. import opcodes

    jobs.SubmitOrSend(opcodes.OpInstanceDeactivateDisks(instance_name=args[0]), opts)
    return constants.EXIT_SUCCESS


def RecreateDisks(opts: Any, args: list[str]) -> int:
    """Make the lost disks of an instance again."""
    from .. import opcodes

    disks: list[int] = []
    if opts.disks is not None:
        try:
            disks = [int(number) for number in opts.disks.split(",")]
        except ValueError:
            console.ToStderr(
                f"Invalid disks value: '{opts.disks}': give whole numbers separated by commas"
            )
            return constants.EXIT_FAILURE
    jobs.SubmitOrSend(opcodes.OpInstanceRecreateDisks(instance_name=args[0], disks=disks), opts)
    return constants.EXIT_SUCCESS


def GrowDisk(opts: Any, args: list[str]) -> int:
    """Make a disk bigger."""
    from .. import opcodes

    name, index, amount = args
    try:
        disk = int(index)
    except ValueError:
        raise errors.OpPrereqError(
            f"Invalid disk index '{index}': give a whole number from 0", errors.ECODE_INVAL
        ) from None
    op = opcodes.OpInstanceGrowDisk(
        instance_name=name,
        disk=disk,
        amount=values.ParseSize(f"Amount to add to disk {disk}", amount),
        wait_for_sync=opts.wait_for_sync,
    )
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


def ChooseReplaceMode(opts: Any) -> str:
    """The mode of replacing disks that the options ask for.

    @raise errors.OpPrereqError: C{wrong_input}, not exactly one
    """
    new_secondary = opts.dst_node is not None or opts.iallocator is not None
    asked = [
        mode
        for mode, wanted in (
            (constants.REPLACE_DISK_PRI, opts.on_primary),
            (constants.REPLACE_DISK_SEC, opts.on_secondary),
            (constants.REPLACE_DISK_AUTO, opts.auto),
            (constants.REPLACE_DISK_CHG, new_secondary),
        )
        if wanted
    ]
    if len(asked) != 1 or (opts.dst_node is not None and opts.iallocator is not None):
        raise errors.OpPrereqError(
            "Say where to replace disks by exactly one of -p (on the primary node), -s (on the"
            " secondary node), -a (wherever they are faulty), -n NODE or -I ALLOCATOR (on a new"
            " secondary node)",
            errors.ECODE_INVAL,
        )
    if opts.auto and opts.disks is not None:
        raise errors.OpPrereqError(
            f"-a finds the disks itself: leave out --disks {opts.disks}", errors.ECODE_INVAL
        )
    return asked[0]


def ReplaceDisks(opts: Any, args: list[str]) -> int:
    """Replace disks of an instance."""
    from .. import opcodes

    disks = [] if opts.disks is None else values.ParseIntList("disks (--disks)", opts.disks)
    op = opcodes.OpInstanceReplaceDisks(
        instance_name=args[0],
        disks=disks,
        remote_node=opts.dst_node,
        mode=ChooseReplaceMode(opts),
        iallocator=opts.iallocator,
        early_release=opts.early_release,
    )
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS
