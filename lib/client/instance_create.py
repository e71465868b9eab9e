"""From the command line, or a file of specifications, to the opcode that creates an instance.

Shared by C{gnt-instance add}, C{gnt-instance batch-create} and C{gnt-backup import}. All functions
are pure but for L{ReadSpecs}; nothing here talks to the master daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .. import constants, errors
from ..utils import text
from . import options, values

if TYPE_CHECKING:
    from .. import opcodes

#: What C{add} and C{import} have in common.
COMMON_OPTS: Final = (
    options.BACKEND_OPT,
    options.DISK_OPT,
    options.DISK_TEMPLATE_OPT,
    options.FILESTORE_DIR_OPT,
    options.FILESTORE_DRIVER_OPT,
    options.HYPERVISOR_OPT,
    options.IALLOCATOR_OPT,
    options.NET_OPT,
    options.NODE_PLACEMENT_OPT,
    options.NOIPCHECK_OPT,
    options.NONAMECHECK_OPT,
    options.NONICS_OPT,
    options.NWSYNC_OPT,
    options.OS_SIZE_OPT,
    *options.JOB_OPTS,
)


def _Untyped(fn: Callable[[], Any]) -> Any:
    """The value of a function; its prerequisite errors are without an error type.

    The type says who must act. Here it never is anybody but who typed the command.
    """
    try:
        return fn()
    except errors.OpPrereqError as err:
        raise errors.OpPrereqError(err.args[0]) from err


def _BuildHypervisor(opts: Any) -> tuple[str | None, dict[str, Any]]:
    if not opts.hypervisor:
        return None, {}
    name, params = opts.hypervisor
    if not isinstance(params, dict):
        raise errors.OpPrereqError(
            f"-H: hypervisor '{name}' can not be taken away; name the wanted one, as in"
            " '-H kvm:acpi=true'"
        )
    return name, params


def BuildNics(opts: Any, mode: str) -> list[dict[str, Any]]:
    """Network interfaces from C{--net} and C{--no-nics}.

    Without either, a new instance gets one with all defaults, an imported one what it had.
    """
    if opts.nics:
        nics: list[dict[str, Any]] = _Untyped(lambda: values.ParseIndexedGroups("--net", opts.nics))
        return nics
    if opts.no_nics or mode == constants.INSTANCE_IMPORT:
        return []
    return [{}]


def _BuildDisk(index: int, disk: Mapping[str, Any], mode: str) -> dict[str, Any]:
    result = dict(disk)
    size = result.get(constants.IDISK_SIZE)
    adopt = result.get(constants.IDISK_ADOPT)
    if size is not None and adopt is not None:
        raise errors.OpPrereqError(
            f"--disk {index}: there can be a size ('{size}') or a volume to adopt ('{adopt}'), but"
            " not both"
        )
    if size is not None:
        result[constants.IDISK_SIZE] = values.ParseSize(f"--disk {index}", size)
    elif adopt is not None:
        if mode == constants.INSTANCE_IMPORT:
            raise errors.OpPrereqError(
                f"--disk {index}: volumes can not be adopted for an import, give a size"
            )
        # The master daemon puts the volume's own size there
        result[constants.IDISK_SIZE] = 0
    else:
        raise errors.OpPrereqError(
            f"--disk {index}: no size given; say '--disk {index}:size=SIZE' (disks are numbered"
            " from 0 without gaps)"
        )
    return result


def BuildDisks(opts: Any, mode: str) -> list[dict[str, Any]]:
    """Disks from C{--disk} and C{-s}."""
    given = bool(opts.disks) or opts.sd_size is not None
    if opts.disk_template == constants.DT_DISKLESS:
        if given:
            raise errors.OpPrereqError("A diskless instance can have no disks: leave out --disk/-s")
        return []
    if opts.disks and opts.sd_size is not None:
        raise errors.OpPrereqError(
            "Give either the disks (--disk) or the size of the only one (-s)"
        )
    if opts.sd_size is not None:
        return [{constants.IDISK_SIZE: opts.sd_size}]
    if not opts.disks:
        if mode == constants.INSTANCE_CREATE:
            raise errors.OpPrereqError(
                "No disk information specified: give '--disk 0:size=SIZE' or '-s SIZE'"
            )
        return []
    groups = values.ParseIndexedGroups("--disk", opts.disks)
    return [_BuildDisk(index, disk, mode) for index, disk in enumerate(groups)]


def BuildCreateOp(opts: Any, name: str, mode: str) -> opcodes.OpInstanceCreate:
    """The opcode that C{add} or C{import} with these options submits.

    @param mode: C{create} or C{import}
    @raise errors.OpPrereqError: something is missing or does not fit, always without error type
    @raise errors.TypeEnforcementError: a parameter that there is not, or with a wrong value
    """
    from .. import opcodes

    pnode, snode = values.SplitNodeOption(opts.node)
    hypervisor, hvparams = _BuildHypervisor(opts)
    nics = BuildNics(opts, mode)
    disks = _Untyped(lambda: BuildDisks(opts, mode))
    beparams = values.ForceTypes(opts.beparams, constants.BES_PARAMETER_TYPES)
    hvparams = values.ForceTypes(hvparams, constants.HVS_PARAMETER_TYPES)
    creating = mode == constants.INSTANCE_CREATE
    return opcodes.OpInstanceCreate(
        instance_name=name,
        mode=mode,
        disks=disks,
        nics=nics,
        disk_template=opts.disk_template,
        pnode=pnode,
        snode=snode,
        iallocator=opts.iallocator,
        ip_check=opts.ip_check,
        name_check=opts.name_check,
        wait_for_sync=opts.wait_for_sync,
        file_storage_dir=opts.file_storage_dir,
        file_driver=opts.file_driver,
        hypervisor=hypervisor,
        hvparams=hvparams,
        beparams=beparams,
        start=opts.start if creating else False,
        os_type=opts.os if creating else None,
        force_variant=opts.force_variant if creating else False,
        no_install=opts.no_install if creating else False,
        src_node=None if creating else opts.src_node,
        src_path=None if creating else opts.src_dir,
        identify_defaults=False if creating else opts.identify_defaults,
    )


# Many instances from a file

_SPEC_DEFAULTS: Final[Mapping[str, Any]] = {
    "disk_size": [20 * 1024],
    "backend": {},
    "hypervisor": None,
    "hvparams": {},
    "primary_node": None,
    "secondary_node": None,
    "iallocator": None,
    "nics": None,
    "start": True,
    "ip_check": True,
    "name_check": True,
    "file_storage_dir": None,
    "file_driver": constants.FD_LOOP,
    "force_variant": False,
}
_SPEC_REQUIRED: Final = ("os", "template")
#: Fields that describe the only network interface.
_SPEC_NIC: Final = ("ip", "mac", "mode", "link", "bridge")
_SPEC_FIELDS: Final = frozenset([*_SPEC_DEFAULTS, *_SPEC_REQUIRED, *_SPEC_NIC])


def FindUnknownFields(spec: Mapping[str, Any]) -> list[str]:
    """Fields of a specification that mean nothing."""
    return sorted(name for name in spec if name not in _SPEC_FIELDS)


def _SpecNics(name: str, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    single = {field: spec[field] for field in _SPEC_NIC if field in spec}
    nics = spec.get("nics")
    if nics is None:
        return [single]
    if single:
        raise _SpecError(
            name, f"'nics' can not be given together with {text.CommaJoin(sorted(single))}"
        )
    if not isinstance(nics, list) or not all(isinstance(nic, dict) for nic in nics):
        raise _SpecError(name, f"'nics' must be a list of objects, not {nics!r}")
    return nics


def _SpecError(name: str, problem: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(f"Instance '{name}': {problem}", errors.ECODE_INVAL)


def _SpecDisks(name: str, sizes: Any) -> list[dict[str, Any]]:
    if not isinstance(sizes, list):
        raise _SpecError(name, f"'disk_size' must be a list of sizes, not {sizes!r}")
    disks = []
    for size in sizes:
        try:
            disks.append({constants.IDISK_SIZE: text.ParseUnit(size)})
        except errors.UnitParseError as err:
            raise _SpecError(name, f"'disk_size': {err}") from err
    return disks


def _SpecParams(name: str, field: str, given: Any, types: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _SpecError(name, f"'{field}' must be an object, not {given!r}")
    try:
        return values.ForceTypes(given, types)
    except errors.TypeEnforcementError as err:
        raise _SpecError(name, f"'{field}': {err}") from err


def BuildBatchOp(name: str, given: Any) -> opcodes.OpInstanceCreate:
    """The opcode for one entry of a batch.

    @raise errors.OpPrereqError: C{wrong_input}, naming instance and field
    """
    from .. import opcodes

    if not isinstance(given, dict):
        raise _SpecError(name, f"the specification must be an object, not {given!r}")
    for field in _SPEC_REQUIRED:
        if given.get(field) is None:
            raise _SpecError(name, f'Required field "{field}" is missing.')
    spec: dict[str, Any] = {**_SPEC_DEFAULTS, **given}
    if spec["primary_node"] is not None and spec["iallocator"] is not None:
        raise _SpecError(name, "only one of 'primary_node' and 'iallocator' can be given")
    if (
        spec["primary_node"] is not None
        and spec["template"] in constants.DTS_NET_MIRROR
        and spec["secondary_node"] is None
    ):
        raise _SpecError(name, f"template {spec['template']} needs a 'secondary_node'")
    op = opcodes.OpInstanceCreate(
        instance_name=name,
        mode=constants.INSTANCE_CREATE,
        disks=_SpecDisks(name, spec["disk_size"]),
        disk_template=spec["template"],
        os_type=spec["os"],
        pnode=spec["primary_node"],
        snode=spec["secondary_node"],
        nics=_SpecNics(name, spec),
        start=spec["start"],
        ip_check=spec["ip_check"],
        name_check=spec["name_check"],
        wait_for_sync=True,
        iallocator=spec["iallocator"],
        hypervisor=spec["hypervisor"],
        hvparams=_SpecParams(name, "hvparams", spec["hvparams"], constants.HVS_PARAMETER_TYPES),
        beparams=_SpecParams(name, "backend", spec["backend"], constants.BES_PARAMETER_TYPES),
        file_storage_dir=spec["file_storage_dir"],
        file_driver=spec["file_driver"],
        force_variant=spec["force_variant"],
    )
    try:
        op.Validate()
    except errors.OpPrereqError as err:
        raise _SpecError(name, str(err.args[0])) from err
    return op


class SpecFileError(Exception):
    """A file of specifications that can not be read."""


def ReadSpecs(path: str) -> dict[str, Any]:
    """The specifications of a file by instance name, in natural order of the names.

    @raise SpecFileError: it is missing, no JSON, or no JSON object
    """
    from .. import serializer

    try:
        with open(path, "rb") as fobj:
            specs = serializer.Load(fobj.read())
    except (OSError, ValueError) as err:
        raise SpecFileError(f"Can't parse the instance definition file: {err}") from err
    if not isinstance(specs, dict):
        raise SpecFileError(
            "The instance definition file must have a JSON object of instance names and their"
            " specifications"
        )
    return {name: specs[name] for name in text.NiceSort(specs)}
