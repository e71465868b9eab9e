"""Commands that bring an instance to another node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import constants, errors
from . import instance_select, jobs

if TYPE_CHECKING:
    from .. import opcodes


def _AskAndSubmit(opts: Any, question: str, op: opcodes.OpCode) -> int:
    """Let an instance leave its node if the user agrees; the exit code."""
    cl = jobs.GetClient()
    if not instance_select.MayGoOn(opts, cl, op.instance_name, question):
        return constants.EXIT_FAILURE
    jobs.SubmitOrSend(op, opts, cl)
    return constants.EXIT_SUCCESS


def FailoverInstance(opts: Any, args: list[str]) -> int:
    """Stop an instance and start it on its secondary node."""
    from .. import opcodes

    (name,) = args
    question = f"Failover will happen to instance {name}. It is shut down and started again."
    op = opcodes.OpInstanceFailover(
        instance_name=name,
        ignore_consistency=opts.ignore_consistency,
        shutdown_timeout=opts.shutdown_timeout,
        target_node=opts.node,
        iallocator=opts.iallocator,
    )
    return _AskAndSubmit(opts, question, op)


def MigrateInstance(opts: Any, args: list[str]) -> int:
    """Move a running instance to its secondary node."""
    from .. import opcodes

    (name,) = args
    if opts.cleanup:
        question = (
            f"Instance {name} will be recovered from a failed migration. If the node on which it"
            " runs is not the one that the cluster finds, its data may be damaged: check with the"
            " hypervisor's own tools first."
        )
    else:
        question = (
            f"Instance {name} will be migrated. It goes on running, but if the migration fails"
            " it may be impacted."
        )
    op = opcodes.OpInstanceMigrate(
        instance_name=name,
        live=opts.live,
        cleanup=opts.cleanup,
        target_node=opts.node,
        iallocator=opts.iallocator,
    )
    return _AskAndSubmit(opts, question, op)


def MoveInstance(opts: Any, args: list[str]) -> int:
    """Copy an instance to another node."""
    from .. import opcodes

    (name,) = args
    if opts.node is None:
        raise errors.OpPrereqError(
            "No target node given: say where to move the instance with '-n NODE'",
            errors.ECODE_INVAL,
        )
    question = (
        f"Instance {name} will be moved to {opts.node}. It is shut down while its disks are copied."
    )
    op = opcodes.OpInstanceMove(
        instance_name=name,
        target_node=opts.node,
        shutdown_timeout=opts.shutdown_timeout,
        ignore_consistency=opts.ignore_consistency,
    )
    return _AskAndSubmit(opts, question, op)
