"""Bodies of instance creation, in both formats, as parameters of the opcode.

Pure: from the JSON object of the request to the parameters of C{OP_INSTANCE_CREATE}, every field
checked and every unknown one refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .. import constants, errors, ht
from ..utils import params as utils_params
from . import baserlib

_VERSION_KEY: Final = "__version__"

#: Field of format 1 -> parameter of the opcode.
_RENAMED: Final[Mapping[str, str]] = {"name": "instance_name", "os": "os_type"}

#: What is used where the request says nothing.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "force_variant": False,
    "start": True,
    "ip_check": True,
    "name_check": True,
    "wait_for_sync": True,
    "file_driver": constants.FD_LOOP,
    "hvparams": {},
    "beparams": {},
}

_REQUIRED_1: Final = ("mode", "name", "disk_template", "disks", "nics")
#: The rest is in the export.
_REQUIRED_IMPORT: Final = ("mode", "name")
_REQUIRED_0: Final = ("name", "disks", "disk_template", "os")
_OPTIONAL_0: Final = (
    "pnode",
    "snode",
    "iallocator",
    "hypervisor",
    "file_storage_dir",
    "file_driver",
    "start",
    "ip_check",
    "name_check",
)
_NIC_FIELDS_0: Final = ("mac", "ip", "mode", "link", "bridge")
_DEFAULT_MAC: Final = "auto"

_DISK_TYPES: Final[Mapping[str, str]] = {
    **constants.IDISK_PARAMS_TYPES,
    **constants.DPS_PARAMETER_TYPES,
}

_OBJECTS: Final = ht.TListOf(ht.TDict)


def _RequireFields(body: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if body.get(name) is None:
            raise baserlib.BadRequest(f"Required parameter '{name}' is missing")


def _Check(name: str, type_: ht.Type, value: Any) -> Any:
    problem = type_.Problem(value)
    if problem is not None:
        raise baserlib.BadRequest(f"Field '{name}' must be {type_}: {problem}")
    return value


def _ForceTypes(name: str, value: Any, types: Mapping[str, str]) -> dict[str, Any]:
    _Check(name, ht.TDict, value)
    converted = dict(value)
    try:
        utils_params.ForceDictType(converted, types)
    except errors.TypeEnforcementError as err:
        raise baserlib.BadRequest(f"Field '{name}': {err}") from err
    return converted


def _ParseDisk(index: int, disk: Any) -> dict[str, Any]:
    name = f"disks[{index}]"
    # Later clients name what they do not want, too
    given = {key: value for key, value in _Check(name, ht.TDict, disk).items() if value is not None}
    converted = _ForceTypes(name, given, _DISK_TYPES)
    mode = converted.get(constants.IDISK_MODE)
    if mode is not None and mode not in constants.DISK_ACCESS_SET:
        raise baserlib.BadRequest(
            f"Field '{name}': invalid disk mode {ht.Show(mode)}, there are 'ro' and 'rw'"
        )
    if constants.IDISK_ADOPT in converted:
        # The volume's own size will be there
        converted.setdefault(constants.IDISK_SIZE, 0)
    if constants.IDISK_SIZE not in converted:
        raise baserlib.BadRequest(f"Field '{name}': no size given")
    return converted


def _ParseNic(index: int, nic: Any) -> dict[str, Any]:
    name = f"nics[{index}]"
    for key, value in _Check(name, ht.TDict, nic).items():
        if value is None:
            continue
        if key not in constants.INIC_PARAMS:
            raise baserlib.BadRequest(
                f"Field '{name}': unknown parameter {ht.Show(key)} (value {ht.Show(value)}); there"
                f" are {', '.join(sorted(constants.INIC_PARAMS))}"
            )
        _Check(f"{name}.{key}", ht.TString, value)
    return {key: value for key, value in nic.items() if value is not None}


def ParseVersion1(body: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from format 1, advertised as C{instance-create-reqv1}."""
    given = {key: value for key, value in body.items() if key != _VERSION_KEY}
    for field, param in _RENAMED.items():
        if param in given:
            # As the opcode calls it
            if given.get(field) is not None:
                raise baserlib.BadRequest(f"Both '{field}' and '{param}' are given")
            given[field] = given.pop(param)
    if given.get("mode") == constants.INSTANCE_IMPORT:
        _RequireFields(given, _REQUIRED_IMPORT)
        for name in ("disks", "nics"):
            given[name] = [] if given.get(name) is None else given[name]
    else:
        _RequireFields(given, _REQUIRED_1)
    disks, nics = _Check("disks", _OBJECTS, given["disks"]), _Check("nics", _OBJECTS, given["nics"])
    params = {_RENAMED.get(name, name): value for name, value in given.items()}
    params["disks"] = [_ParseDisk(index, disk) for index, disk in enumerate(disks)]
    params["nics"] = [_ParseNic(index, nic) for index, nic in enumerate(nics)]
    _ForceSettings(params)
    return _AddDefaults(params)


def ParseVersion0(body: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from format 0: everything at the top level, one network interface."""
    given = {key: value for key, value in body.items() if key != _VERSION_KEY}
    _RequireFields(given, _REQUIRED_0)
    sizes = _Check("disks", ht.TListOf(ht.TInt), given.pop("disks"))
    params: dict[str, Any] = {
        "mode": constants.INSTANCE_CREATE,
        "instance_name": given.pop("name"),
        "os_type": given.pop("os"),
        "disk_template": given.pop("disk_template"),
        "disks": [{constants.IDISK_SIZE: size} for size in sizes],
    }
    for name in _OPTIONAL_0:
        if name in given:
            params[name] = given.pop(name)
    nic = {"mac": _DEFAULT_MAC}
    for name in _NIC_FIELDS_0:
        value = given.pop(name, None)
        if value is not None:
            nic[name] = value
    params["nics"] = [_ParseNic(0, nic)]
    params["beparams"] = {
        name: given.pop(name) for name in list(given) if name in constants.BES_PARAMETERS
    }
    params["hvparams"] = {
        name: given.pop(name) for name in list(given) if name in constants.HVS_PARAMETERS
    }
    if given:
        name, value = next(iter(given.items()))
        raise baserlib.BadRequest(
            f"Unknown field {ht.Show(name)} (value {ht.Show(value)}); say '{_VERSION_KEY}': 1 for"
            " the present format"
        )
    _ForceSettings(params)
    return _AddDefaults(params)


def _ForceSettings(params: dict[str, Any]) -> None:
    for name, types in (
        ("hvparams", constants.HVS_PARAMETER_TYPES),
        ("beparams", constants.BES_PARAMETER_TYPES),
    ):
        if params.get(name) is not None:
            params[name] = _ForceTypes(name, params[name], types)


def _AddDefaults(params: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None}
    return {**_DEFAULTS, **given}


def ParseCreateBody(body: Any) -> dict[str, Any]:
    """Parameters of C{OP_INSTANCE_CREATE} from the body of a request.

    @raise HttpError: 400, naming field and value; those that the opcode declares and that are not
        looked at here are checked when it is made
    """
    if not isinstance(body, dict):
        raise baserlib.BadRequest(f"The body must be a JSON object, not {ht.Show(body)}")
    version = body.get(_VERSION_KEY, 0)
    if ht.TInt(version) and version == 0:
        return ParseVersion0(body)
    if ht.TInt(version) and version == 1:
        return ParseVersion1(body)
    raise baserlib.BadRequest(
        f"Unsupported request version {ht.Show(version)} in '{_VERSION_KEY}': there are 0 and 1"
    )
