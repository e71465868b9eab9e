"""The description of an exported instance: an INI file beside the images of its disks.

Its form is that of Ganeti 2.1, so that exports can be taken along. Values are texts; what was not
set is the text C{None}. Readers of INI files may take a percent sign for the begin of a reference,
so each one is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import constants, errors
from .transport import SerializableConfigParser

VERSION: Final = 0

_EXPORT: Final = "export"
_INSTANCE: Final = "instance"
_HYPERVISOR: Final = "hypervisor"
_BACKEND: Final = "backend"

_NONE: Final = "None"
_NIC_KEYS: Final = ("mac", "ip", "mode", "link")
#: Backend parameters that older exports have among those of the instance.
_OLD_BACKEND: Final = (constants.BE_MEMORY, constants.BE_VCPUS, constants.BE_AUTO_BALANCE)
#: Line breaks and their like: what a reader might take for the end of a value.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class ExportedDisk:
    """A disk of an export.

    @ivar size: MiB; None if it is not known
    @ivar image: name of the file in the directory of the export; None if there is none
    """

    size: int | None
    image: str | None


@dataclass(frozen=True)
class Export:
    """What is known of an exported instance.

    @ivar timestamp: seconds since the epoch
    @ivar source: node that it was exported on
    @ivar nics: what is known of C{mac}, C{ip}, C{mode} and C{link} of each network card; None where
        nothing is said of network cards at all
    @ivar disks: None where nothing is said of disks at all
    @ivar hvparams: as texts, unless made by others than L{ParseExport}; likewise C{beparams}
    """

    os: str
    name: str | None = None
    disk_template: str | None = None
    hypervisor: str | None = None
    nics: tuple[Mapping[str, str | None], ...] | None = None
    disks: tuple[ExportedDisk, ...] | None = None
    hvparams: Mapping[str, Any] = field(default_factory=dict)
    beparams: Mapping[str, Any] = field(default_factory=dict)
    timestamp: int = 0
    source: str | None = None


# Writing


def FormatExport(export: Export) -> str:
    """The text of the file; pure.

    @raise errors.ConfigurationError: a value has a line break in it
    """
    nics, disks = export.nics or (), export.disks or ()
    instance: dict[str, Any] = {
        "name": export.name,
        constants.BE_MEMORY: export.beparams.get(constants.BE_MEMORY),
        constants.BE_VCPUS: export.beparams.get(constants.BE_VCPUS),
        "disk_template": export.disk_template,
        "hypervisor": export.hypervisor,
    }
    for index, nic in enumerate(nics):
        instance.update({f"nic{index}_{key}": nic.get(key) for key in _NIC_KEYS})
    if export.nics is not None:
        instance["nic_count"] = len(nics)
    saved = [(index, disk) for index, disk in enumerate(disks) if disk.image is not None]
    for index, disk in saved:
        instance[f"disk{index}_ivname"] = f"disk/{index}"
        instance[f"disk{index}_dump"] = disk.image
        instance[f"disk{index}_size"] = disk.size
    if export.disks is not None:
        instance["disk_count"] = len(saved)
    parser = SerializableConfigParser()
    _AddSection(
        parser,
        _EXPORT,
        {
            "version": VERSION,
            "timestamp": export.timestamp,
            "source": export.source,
            "os": export.os,
            "compression": "gzip",
        },
    )
    _AddSection(parser, _INSTANCE, instance)
    _AddSection(parser, _HYPERVISOR, export.hvparams)
    _AddSection(parser, _BACKEND, export.beparams)
    return parser.Dumps()


def _AddSection(parser: SerializableConfigParser, name: str, values: Mapping[str, Any]) -> None:
    parser.add_section(name)
    for key, value in values.items():
        text = str(value)
        if _CONTROL.search(text) or _CONTROL.search(key):
            raise errors.ConfigurationError(
                f"An export can not describe {key}={text!r}: there is a line break in it"
            )
        parser.set(name, key, text.replace("%", "%%"))


# Reading


def _Broken(problem: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(
        f"The description of the export can not be used: {problem}", errors.ECODE_ENVIRON
    )


def ParseExport(text: str) -> Export:
    """What a description says; what it does not say is None; pure.

    @raise errors.OpPrereqError: C{environment_error}: it is no description of an export, of
        another version, or says what can not be; C{wrong_state} if the number of network cards is
        none
    """
    try:
        parser = SerializableConfigParser.Loads(text)
    except errors.ConfigurationError as err:
        raise _Broken(str(err)) from err
    if parser.defaults():
        raise _Broken("it has a section of defaults, which no export has")
    if not parser.has_section(_EXPORT):
        raise _Broken(f"it has no section [{_EXPORT}]")
    export = _GetSection(parser, _EXPORT)
    version = export.get("version")
    if version is None or version.strip() != str(VERSION):
        raise _Broken(f"its version is {version!r}, but only {VERSION} is known")
    if export.get("os") is None:
        raise _Broken("it does not say which OS the instance has")
    instance = _GetSection(parser, _INSTANCE)
    if parser.has_section(_BACKEND):
        beparams = _GetSection(parser, _BACKEND)
    else:
        beparams = {key: instance[key] for key in _OLD_BACKEND if key in instance}
    stamp = export.get("timestamp", "")
    return Export(
        os=export["os"],
        name=instance.get("name"),
        disk_template=instance.get("disk_template"),
        hypervisor=instance.get("hypervisor"),
        nics=_ParseNics(instance),
        disks=_ParseDisks(instance),
        hvparams=_GetSection(parser, _HYPERVISOR),
        beparams=beparams,
        timestamp=int(stamp) if re.fullmatch(r"[0-9]{1,12}", stamp) else 0,
        source=export.get("source"),
    )


def _GetSection(parser: SerializableConfigParser, name: str) -> dict[str, str]:
    """What is set in a section, if it is there."""
    if not parser.has_section(name):
        return {}
    items = parser.items(name)
    return {key: value.replace("%%", "%") for key, value in items if value != _NONE}


def _ParseNics(instance: Mapping[str, str]) -> tuple[dict[str, str | None], ...] | None:
    if "nic_count" not in instance:
        return None
    text = instance["nic_count"]
    if not _NUMBER.fullmatch(text) or int(text) > constants.MAX_NICS:
        raise errors.OpPrereqError(
            f"The description of the export can not be used: nic_count is {text!r}, no number up"
            f" to {constants.MAX_NICS}",
            errors.ECODE_STATE,
        )
    return tuple(
        {key: instance.get(f"nic{index}_{key}") for key in _NIC_KEYS} for index in range(int(text))
    )


def _ParseDisks(instance: Mapping[str, str]) -> tuple[ExportedDisk, ...] | None:
    """Disks up to the last one that is described.

    The count is that of the disks that were saved: in between may be some that were not.
    """
    if "disk_count" not in instance:
        return None
    text = instance["disk_count"]
    if not _NUMBER.fullmatch(text):
        raise _Broken(f"disk_count is {text!r}, no number")
    described = [
        int(match[1]) + 1
        for match in (re.fullmatch(r"disk([0-9]{1,9})_(?:size|dump)", key) for key in instance)
        if match
    ]
    count = max([int(text), *described])
    if count > constants.MAX_DISKS:
        raise _Broken(f"it has {count} disks, more than the {constants.MAX_DISKS} possible")
    return tuple(
        ExportedDisk(_ParseSize(instance, index), _ParseImage(instance, index))
        for index in range(count)
    )


def _ParseSize(instance: Mapping[str, str], index: int) -> int | None:
    text = instance.get(f"disk{index}_size")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not int(text):
        raise _Broken(f"disk{index}_size is {text!r}, no number of MiB")
    return int(text)


def _ParseImage(instance: Mapping[str, str], index: int) -> str | None:
    name = instance.get(f"disk{index}_dump")
    if name and ("/" in name or name.startswith(".") or _CONTROL.search(name)):
        raise _Broken(f"disk{index}_dump is {name!r}, no name of a file beside it")
    return name or None
