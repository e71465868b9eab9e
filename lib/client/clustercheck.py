"""Is everything as it should be? The commands of gnt-cluster that check cluster and disks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from .. import constants, errors
from . import console, failures, jobs, output

_MAX_ERROR_SHOWN: Final = 400

#: What lines of the log of a verification begin with.
_FINDING: Final = "  - "
_NOTE: Final = "  - NOTICE: "
_OUTPUT: Final = "      "

#: Of this the output follows.
_HOOKS: Final = constants.CV_ENODEHOOKS[1]

_SEVERITIES: Final = frozenset([constants.CV_ERROR, constants.CV_WARNING])


def ParseReport(messages: Iterable[str]) -> dict[str, Any]:
    """The log of a verification, with error codes, as data; pure.

    @return: C{problems}: list of C{severity}, C{code}, C{type}, C{item} (None: the cluster),
        C{message} and C{output} (lines of a failed hook script); C{notes}: list of texts
    """
    problems: list[dict[str, Any]] = []
    notes = []
    for message in messages:
        if message.startswith(_NOTE):
            notes.append(message[len(_NOTE) :])
        elif message.startswith(_OUTPUT) and problems and problems[-1]["code"] == _HOOKS:
            problems[-1]["output"].append(message[len(_OUTPUT) :])
        elif message.startswith(_FINDING):
            fields = message[len(_FINDING) :].split(":", 4)
            if len(fields) == 5 and fields[0] in _SEVERITIES:
                severity, code, kind, item, text = fields
                problems.append(
                    {
                        "severity": severity,
                        "code": code,
                        "type": kind,
                        "item": None if kind == constants.CV_TCLUSTER else item,
                        "message": text,
                        "output": [],
                    }
                )
    return {"problems": problems, "notes": notes}


def VerifyCluster(opts: Any, args: list[str]) -> int:
    """Check the cluster; the exit code says whether anything is wrong."""
    from .. import opcodes

    op = opcodes.OpClusterVerify(
        verbose=opts.verbose,
        error_codes=opts.error_codes or opts.as_json,
        debug_simulate_errors=opts.simulate_errors,
        skip_checks=[constants.VERIFY_NPLUSONE_MEM] if opts.skip_nplusone_mem else [],
    )
    if opts.as_json and not opts.dry_run:
        messages: list[str] = []

        def _Collect(serial: int, timestamp: Sequence[int], log_type: str, message: Any) -> None:
            messages.append(console.OneLine(message))

        good = jobs.SubmitOrSend(op, opts, feedback_fn=_Collect)
        output.PrintJson({"good": bool(good), **ParseReport(messages)})
    else:
        good = jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS if good or opts.dry_run else constants.EXIT_FAILURE


def _VolumePath(vg_name: str | None, volume: str) -> str:
    return f"/dev/{volume}" if "/" in volume else f"/dev/{vg_name}/{volume}"


def _ReportMissing(
    name: str, volumes: Sequence[Sequence[str]], bad_nodes: dict[str, str], vg_name: str | None
) -> None:
    if all(node in bad_nodes for node, _ in volumes):
        console.ToStdout(f"Instance {name} cannot be verified as it lives on broken nodes")
        return
    console.ToStdout(f"Instance {name} has missing logical volumes:")
    for node, volume in sorted((node, volume) for node, volume in volumes):
        broken = "broken node " if node in bad_nodes else ""
        console.ToStdout(f"\t{broken}{node} {_VolumePath(vg_name, volume)}")


def VerifyDisks(opts: Any, args: list[str]) -> int:
    """Find disks that are not active, and activate them."""
    from .. import opcodes

    cl = jobs.GetClient()
    op = opcodes.OpClusterVerifyDisks()
    jobs.SetGenericOpcodeOpts([op], opts)
    # Looking is all it does: only the activation is left out then.
    op.dry_run = False
    bad_nodes, inactive, missing = jobs.SubmitOpCode(op, cl)
    code: int = constants.EXIT_SUCCESS
    for node in sorted(bad_nodes):
        error = bad_nodes[node][-_MAX_ERROR_SHOWN:]
        console.ToStdout(f"Error gathering data on node {node}: {error}")
        code = constants.EXIT_FAILURE
    if bad_nodes:
        console.ToStdout("You need to fix these nodes first before fixing instances")
    for name in inactive:
        if name in missing:
            continue
        if opts.dry_run:
            console.ToStdout(f"Would activate disks for instance '{name}'")
            continue
        console.ToStdout(f"Activating disks for instance '{name}'")
        try:
            jobs.SubmitOpCode(opcodes.OpInstanceActivateDisks(instance_name=name), cl, opts=opts)
        except errors.GenericError as err:
            failed, text = failures.FormatError(err)
            code |= failed
            console.ToStderr(f"Error activating disks for instance {name}: {text}")
    if missing:
        vg_name = cl.QueryClusterInfo()["volume_group_name"]
        for name in sorted(missing):
            _ReportMissing(name, missing[name], bad_nodes, vg_name)
        console.ToStdout(
            "You need to run replace_disks for all the above instances, if this message persists"
            " after fixing nodes."
        )
        code |= constants.EXIT_FAILURE
    return code


def RepairDiskSizes(opts: Any, args: list[str]) -> int:
    """Correct the recorded sizes of disks by the real ones."""
    from .. import opcodes

    changes = jobs.SubmitOrSend(opcodes.OpClusterRepairDiskSizes(instances=args), opts)
    for name, disk, size in changes or ():
        console.ToStdout(f"{name}: size of disk {disk} is now {size} MiB")
    return constants.EXIT_SUCCESS
