"""Parameters of a cluster on the command line: C{gnt-cluster modify}, and what C{init} takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from . import console, jobs, values

#: What C{gnt-cluster info} shows where there are no allocators.
NO_ALLOCATORS: Final = "(none)"


def _ResetTo(
    params: dict[str, Any], types: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Typed parameters, with built-in defaults for those that shall have them again."""
    typed = values.ForceTypes(params, types, reset=True)
    return {
        name: defaults.get(name) if value == constants.VALUE_DEFAULT else value
        for name, value in typed.items()
    }


def HvParams(groups: Sequence[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
    """Typed hypervisor parameters of C{-H} options."""
    return {
        # An unknown hypervisor has no defaults; who checks the rest says that it is unknown
        kind: _ResetTo(
            params,
            constants.HVS_PARAMETER_TYPES,
            constants.HVC_DEFAULTS.get(kind, {}),
        )
        for kind, params in values.CheckHvParamGroups(groups).items()
    }


def BeParams(opts: Any) -> dict[str, Any]:
    """Typed backend parameters of C{-B}."""
    return _ResetTo(opts.beparams, constants.BES_PARAMETER_TYPES, constants.BEC_DEFAULTS)


def NicParams(opts: Any) -> dict[str, Any]:
    """Typed NIC parameters of C{-N}."""
    return _ResetTo(opts.nicparams, constants.NICS_PARAMETER_TYPES, constants.NICC_DEFAULTS)


def DiskParams(opts: Any) -> dict[str, Any]:
    """Typed disk parameters of C{-D}."""
    return _ResetTo(opts.diskparams, constants.DPS_PARAMETER_TYPES, constants.DPC_DEFAULTS)


def SplitNames(value: str) -> list[str]:
    """The names of a comma separated list, which may have blanks."""
    return [name.strip() for name in value.split(",") if name.strip()]


def CheckVgOptions(opts: Any) -> bool:
    """Do the two options about LVM go together? If not, the user is told."""
    if opts.vg_name is not None and not opts.lvm_storage:
        console.ToStderr("Options --no-lvm-storage and --vg-name conflict.")
        return False
    if opts.vg_name is not None and not opts.vg_name.strip():
        raise errors.OpPrereqError(
            "-g: the name of the volume group is empty; use --no-lvm-storage to do without LVM",
            errors.ECODE_INVAL,
        )
    return True


def _UidRanges(value: str | None) -> list[list[int]] | None:
    if value is None:
        return None
    from .. import uidpool

    return [list(pair) for pair in uidpool.ParseUidPool(value)]


def ParseAllocators(given: Sequence[str] | None) -> Any:
    """The opcode's value for C{--default-iallocator [MODE:]NAME[,NAME...]} options.

    Each may have several groups with blanks between them, as C{gnt-cluster info} shows them.

    @raise errors.OpPrereqError: C{wrong_input}, an unknown mode
    """
    if not given:
        return None
    groups = [group for value in given for group in value.split() or [""]]
    if groups in ([""], [NO_ALLOCATORS]):
        return ""
    by_mode: dict[str, list[str]] = {}
    for group in groups:
        mode, separator, names = group.rpartition(":")
        scripts = SplitNames(names)
        if not separator and len(groups) == 1 and len(scripts) <= 1:
            return scripts[0] if scripts else ""
        if separator and mode not in constants.VALID_IALLOCATOR_MODES:
            raise errors.OpPrereqError(
                f"--default-iallocator {group}: '{mode}' is none of the modes"
                f" {', '.join(sorted(constants.VALID_IALLOCATOR_MODES))}",
                errors.ECODE_INVAL,
            )
        for one in [mode] if separator else sorted(constants.VALID_IALLOCATOR_MODES):
            by_mode[one] = scripts
    return by_mode


def SetClusterParams(opts: Any, args: list[str]) -> int:
    """Change parameters of the cluster."""
    given = (
        opts.vg_name, opts.enabled_hypervisors, opts.uid_pool, opts.add_uids, opts.remove_uids,
        opts.candidate_pool_size, opts.maintain_node_health, opts.default_iallocator or None,
        opts.shared_file_storage_dir,
        opts.hvparams or None, opts.beparams or None, opts.nicparams or None,
        opts.diskparams or None, None if opts.lvm_storage else False,
    )  # fmt: skip
    if all(value is None for value in given):
        console.ToStderr("Please give at least one of the parameters.")
        return constants.EXIT_FAILURE
    if not CheckVgOptions(opts):
        return constants.EXIT_FAILURE
    enabled = opts.enabled_hypervisors
    diskparams = DiskParams(opts)
    from .. import opcodes

    op = opcodes.OpClusterSetParams(
        vg_name=opts.vg_name if opts.lvm_storage else "",
        enabled_hypervisors=None if enabled is None else SplitNames(enabled),
        hvparams=HvParams(opts.hvparams),
        os_hvp=None,
        beparams=BeParams(opts),
        nicparams=NicParams(opts),
        candidate_pool_size=opts.candidate_pool_size,
        maintain_node_health=opts.maintain_node_health,
        uid_pool=_UidRanges(opts.uid_pool),
        add_uids=_UidRanges(opts.add_uids),
        remove_uids=_UidRanges(opts.remove_uids),
    )
    if opts.shared_file_storage_dir is not None:
        op.shared_file_storage_dir = opts.shared_file_storage_dir
    if diskparams:
        op.diskparams = diskparams
    if opts.default_iallocator:
        op.default_iallocator = ParseAllocators(opts.default_iallocator)
    jobs.SubmitOrSend(op, opts)
    return constants.EXIT_SUCCESS
