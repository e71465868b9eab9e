"""The command that changes the parameters and devices of an instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import constants, errors
from . import console, jobs, values


def BuildDeviceChanges(option: str, groups: Sequence[tuple[str, Any]]) -> list[list[Any]]:
    """Changes of disks or NICs as the opcode has them: list of [add, remove or index, settings].

    @raise errors.OpPrereqError: C{wrong_input}
    """
    changes: list[list[Any]] = []
    for ident, settings in groups:
        if not isinstance(settings, dict):
            raise errors.OpPrereqError(
                f"{option}: '{ident}' can not be taken away like this; say '{option} remove'",
                errors.ECODE_INVAL,
            )
        where: Any = ident
        if ident not in constants.DDMS_VALUES:
            try:
                where = int(ident)
            except ValueError:
                raise errors.OpPrereqError(
                    f"{option}: '{ident}' is neither 'add' nor 'remove' nor an index",
                    errors.ECODE_INVAL,
                ) from None
        changes.append([where, dict(settings)])
    return changes


def BuildDiskChanges(groups: Sequence[tuple[str, Any]]) -> list[list[Any]]:
    """The same for disks, with sizes in MiB."""
    changes = BuildDeviceChanges("--disk", groups)
    for where, settings in changes:
        size = settings.get(constants.IDISK_SIZE)
        if where != constants.DDM_ADD:
            continue
        if size is None:
            raise errors.OpPrereqError(
                "--disk add: no size given; say '--disk add:size=SIZE'", errors.ECODE_INVAL
            )
        settings[constants.IDISK_SIZE] = values.ParseSize("--disk add", size)
    return changes


def BuildNicChanges(groups: Sequence[tuple[str, Any]]) -> list[list[Any]]:
    """The same for network interfaces."""
    changes = BuildDeviceChanges("--net", groups)
    for where, settings in changes:
        for name in (constants.INIC_LINK, constants.INIC_BRIDGE):
            value = settings.get(name)
            if isinstance(value, str) and value.lower() == constants.VALUE_NONE:
                raise errors.OpPrereqError(
                    f"--net {where}: there is always a {name}; '{name}=default' sets that of the"
                    " cluster",
                    errors.ECODE_INVAL,
                )
    return changes


def _FormatChanges(name: str, changes: Sequence[Sequence[Any]]) -> list[str]:
    return [
        f"Modified instance {name}",
        *(f" - {param:<5} -> {value}" for param, value in changes),
        "Please don't forget that most parameters take effect only at the next start of the"
        " instance.",
    ]


def SetInstanceParams(opts: Any, args: list[str]) -> int:
    """Change an instance."""
    from .. import opcodes

    (name,) = args
    wanted = (opts.nics, opts.disks, opts.disk_template, opts.hvparams, opts.beparams, opts.os)
    if not any(wanted):
        console.ToStderr("Please give at least one of the parameters.")
        return constants.EXIT_FAILURE
    if opts.disk_template in constants.DTS_NET_MIRROR and not opts.node:
        console.ToStderr(
            f"Conversion to the disk template {opts.disk_template} needs a secondary node: name it"
            " with '-n NODE'"
        )
        return constants.EXIT_FAILURE
    op = opcodes.OpInstanceSetParams(
        instance_name=name,
        nics=BuildNicChanges(opts.nics),
        disks=BuildDiskChanges(opts.disks),
        disk_template=opts.disk_template,
        remote_node=opts.node,
        hvparams=values.ForceTypes(opts.hvparams, constants.HVS_PARAMETER_TYPES, reset=True),
        beparams=values.ForceTypes(opts.beparams, constants.BES_PARAMETER_TYPES, reset=True),
        os_name=opts.os,
        force_variant=opts.force_variant,
        force=opts.force,
    )
    changes = jobs.SubmitOrSend(op, opts)
    if changes:
        for line in _FormatChanges(name, changes):
            console.ToStdout(line)
    return constants.EXIT_SUCCESS
