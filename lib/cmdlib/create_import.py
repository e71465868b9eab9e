"""From the description of an export to the instance that is wanted; all pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import constants, errors, objects
from . import create_plan

if TYPE_CHECKING:
    from .. import opcodes


def FillRequest(
    op: opcodes.OpInstanceCreate | Any, export: objects.Export
) -> tuple[create_plan.Request, list[str]]:
    """What was said, and for all that was not what the export says.

    @return: what is wanted, and what somebody should know of it
    @raise errors.OpPrereqError: C{wrong_input}: neither says what is needed, or the export has
        more disks than are wanted
    """
    template = op.disk_template or export.disk_template
    if template is None:
        raise create_plan.Invalid(
            "disk_template is missing: the export does not say which one the instance had"
        )
    hypervisor = op.hypervisor or export.hypervisor
    notes: list[str] = []
    exported_hv = _SelectKnown(export.hvparams, constants.HVS_PARAMETER_TYPES, notes)
    if export.hypervisor is not None and hypervisor != export.hypervisor:
        if exported_hv:
            notes.append(
                f"The export is of the hypervisor {export.hypervisor}: its parameters are not taken"
                f" over for {hypervisor}"
            )
        exported_hv = {}
    exported_hv = {
        key: value for key, value in exported_hv.items() if key not in constants.HVC_GLOBALS
    }
    exported_be = _SelectKnown(export.beparams, constants.BES_PARAMETER_TYPES, notes)
    request = create_plan.Request(
        os_type=export.os,
        disk_template=template,
        disks=create_plan.CheckDiskSettings(op.disks or _GetDisks(template, export)),
        nics=list(op.nics) or [_GetNic(nic) for nic in export.nics or ()],
        hypervisor=hypervisor,
        hvparams={**exported_hv, **op.hvparams},
        beparams={**exported_be, **op.beparams},
    )
    exported = len(export.disks or ())
    if len(request.disks) < exported:
        raise create_plan.Invalid(
            f"disks: the export has {exported}, so the instance needs as many, not only"
            f" {len(request.disks)}"
        )
    return request, notes


def _SelectKnown(
    values: Mapping[str, Any], types: Mapping[str, str], notes: list[str]
) -> dict[str, Any]:
    unknown = sorted(key for key in values if key not in types)
    if unknown:
        notes.append(f"The export has parameters that are not known here: {', '.join(unknown)}")
    return {key: value for key, value in values.items() if key in types}


def _GetDisks(template: str, export: objects.Export) -> list[dict[str, Any]]:
    if template == constants.DT_DISKLESS:
        return []
    if export.disks is None:
        raise create_plan.Invalid("disks are missing: the export does not say which there were")
    disks = []
    for index, disk in enumerate(export.disks):
        if disk.size is None:
            raise create_plan.Invalid(
                f"disk/{index}: the export does not say its size, so all disks must be given"
            )
        disks.append({constants.IDISK_SIZE: disk.size})
    return disks


def _GetNic(nic: Mapping[str, str | None]) -> dict[str, Any]:
    """Settings of an exported network card; its MAC is an explicit wish."""
    settings = {key: value for key, value in nic.items() if value is not None}
    settings.setdefault(constants.INIC_IP, constants.VALUE_NONE)
    return settings


def ListImages(export: objects.Export, directory: str) -> list[str | bool]:
    """For each exported disk the path of its image; false where there is none."""
    return [
        os.path.join(directory, disk.image) if disk.image else False for disk in export.disks or ()
    ]


def TakeMacs(
    nics: Sequence[objects.NIC], export: objects.Export, instance_name: str
) -> list[tuple[int, str]]:
    """MACs that an instance of the same name as the exported one takes over.

    @return: index and MAC, not checked yet, of those that would have got a new one
    """
    if export.name != instance_name:
        return []
    macs = [nic.get("mac") for nic in export.nics or ()]
    return [
        (index, mac)
        for index, (nic, mac) in enumerate(zip(nics, macs, strict=False))
        if mac is not None and nic.mac == constants.VALUE_AUTO
    ]


def CheckSourcePath(src_path: str | None, src_node: str | None, name: str, top: str) -> str:
    """Where the export is: as it was said, or like the instance.

    @param top: directory of all exports
    @return: an absolute path if the node is known; without the name below that directory, to be
        looked for
    @raise errors.OpPrereqError: C{wrong_input}
    """
    path = src_path or name
    if os.path.isabs(path):
        if src_node is None:
            raise create_plan.Invalid(
                f"src_path {path!r} is absolute, so src_node has to say on which node it is"
            )
        return os.path.normpath(path)
    whole = os.path.normpath(os.path.join(top, path))
    if not whole.startswith(top + "/"):
        raise create_plan.Invalid(f"src_path {path!r} leads out of {top}")
    return os.path.relpath(whole, top) if src_node is None else whole


def FindExport(listed: Mapping[str, Sequence[str] | None], path: str) -> str:
    """The node that has an export.

    @param listed: node -> names of its exports; None if it can not tell
    @param path: name of the export
    @raise errors.OpPrereqError: C{wrong_input}: no node that can tell has it
    """
    for node in sorted(listed):
        if path in (listed[node] or ()):
            return node
    silent = sorted(node for node, names in listed.items() if names is None)
    beside = f" ({', '.join(silent)} could not tell)" if silent else ""
    raise errors.OpPrereqError(
        f"No node has an export {path!r}{beside}; 'gnt-backup list' shows all there are",
        errors.ECODE_INVAL,
    )
