"""gnt-os: the operating systems that instances can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants
from ..utils import text
from . import console, jobs, main, options, output, parser, values

#: What a node says of one OS: path, is it valid, why not, variants.
_Entry = Sequence[Any]


def GetVariantNames(name: str, variants: Sequence[str]) -> list[str]:
    """What an OS is called when an instance is made: with each of its variants, if it has any."""
    return [f"{name}+{variant}" for variant in variants] or [name]


def _Diagnose(fields: Sequence[str]) -> list[Any]:
    from .. import opcodes

    rows = jobs.SubmitOpCode(opcodes.OpOsDiagnose(output_fields=list(fields), names=[]))
    return sorted(rows, key=lambda row: text.NiceSortKey(row[0]))


def ListOS(opts: Any, args: list[str]) -> int:
    """List the operating systems that all nodes have."""
    rows = _Diagnose(["name", "valid", "variants"])
    names = [
        [full]
        for name, valid, variants in rows
        if valid
        for full in GetVariantNames(name, variants)
    ]
    if not rows:
        console.ToStderr("There are no operating systems on the nodes")
        return constants.EXIT_FAILURE
    columns = output.Columns({"name": output.Column("Name")})
    for line in output.GenerateTable(columns, ["name"], names, headers=not opts.no_headers):
        console.ToStdout(line)
    return constants.EXIT_SUCCESS


def FormatNodeEntries(node: str, entries: Sequence[_Entry]) -> list[str]:
    """What a node has of one OS: what it would use, then what that one hides."""
    if not entries:
        return [f"  Node: {node}, status: OS not found"]
    lines = []
    for index, (path, valid, problem, variants) in enumerate(entries):
        status = "valid" if valid else f"invalid - {problem}"
        if index == 0:
            lines.append(
                f"  Node: {node}, status: {status} (path: {path}) [variants:"
                f" {text.CommaJoin(variants)}]"
            )
        else:
            lines.append(f"    [hidden] path: {path}, status: {status}")
    return lines


def FormatDiagnosis(
    name: str, variants: Sequence[str], per_node: Mapping[str, Sequence[_Entry]]
) -> tuple[str, list[str]]:
    """Status of an OS on the whole cluster, and the lines that tell about it."""
    good = [node for node, entries in per_node.items() if entries and entries[0][1]]
    bad = [node for node in per_node if node not in good]
    status = "partial valid" if good and bad else "valid" if good else "invalid"
    lines = [f"OS: {name} [global status: {status}]"]
    if variants:
        lines.append(f"  Variants: [{text.CommaJoin(variants)}]")
    for node in text.NiceSort(good) + text.NiceSort(bad):
        lines += FormatNodeEntries(node, per_node[node])
    return status, [*lines, ""]


def DiagnoseOS(opts: Any, args: list[str]) -> int:
    """Say for each operating system and node what is there and what is wrong with it."""
    rows = _Diagnose(["name", "valid", "variants", "node_status"])
    if not rows:
        console.ToStderr("There are no operating systems on the nodes")
        return constants.EXIT_FAILURE
    code: int = constants.EXIT_SUCCESS
    for name, _, variants, per_node in rows:
        status, lines = FormatDiagnosis(name, variants, per_node)
        if status != "valid":
            code = constants.EXIT_FAILURE
        for line in lines:
            console.ToStdout(line)
    return code


def _OsParams(groups: Sequence[tuple[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """The opcode's values of C{-H} options: C{-kvm} takes all parameters of that one away."""
    params: dict[str, dict[str, Any] | None] = {}
    given = []
    for name, value in groups:
        if value is None:
            params[name] = None
        else:
            given.append((name, value))
    params.update(values.CheckHvParamGroups(given))
    return params


def ModifyOS(opts: Any, args: list[str]) -> int:
    """Set hypervisor parameters for one operating system, or take them back."""
    if not opts.hvparams:
        console.ToStderr("Please give at least one hypervisor parameter (-H).")
        return constants.EXIT_FAILURE
    from .. import opcodes

    op = opcodes.OpClusterSetParams(os_hvp={args[0]: _OsParams(opts.hvparams)})
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS


COMMANDS: Final[dict[str, parser.Command]] = {
    "list": parser.Command(
        ListOS, parser.ARGS_NONE, (options.NOHDR_OPT,), "",
        "Lists all valid operating systems on the cluster",
    ),
    "diagnose": parser.Command(
        DiagnoseOS, parser.ARGS_NONE, (), "", "Diagnose all operating systems"
    ),
    "modify": parser.Command(
        ModifyOS, parser.ARGS_ONE_OS, (options.HVLIST_OPT, *options.JOB_OPTS),
        "-H <hypervisor>:<parameter>=<value|default>... | -H -<hypervisor>... <os>",
        "Modify the hypervisor parameters of instances with this operating system",
    ),
}  # fmt: skip


def Main() -> int:
    """Run gnt-os."""
    return main.GenericMain(COMMANDS)
