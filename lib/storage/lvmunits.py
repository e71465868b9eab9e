"""Storage units of LVM: physical volumes and volume groups, all of a node listed by one command."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from .. import constants, errors
from ..utils import lvm, text
from .unitbase import CheckFields, Row, StorageUnit


class _Field(NamedTuple):
    """A field of a unit.

    @ivar sources: fields of LVM that it is made of
    @ivar compute: its value from a record that has these
    """

    sources: tuple[str, ...]
    compute: Callable[[lvm.Record], Any]


def _Text(source: str) -> _Field:
    return _Field((source,), lambda record: record[source])


def _Size(source: str) -> _Field:
    return _Field((source,), lambda record: round(lvm.ToMebibytes(record[source])))


class _LvmUnit(StorageUnit):
    """Units that a command of LVM lists."""

    #: Command that lists them.
    _COMMAND: ClassVar[str]
    #: Field -> how it is found.
    _FIELDS: ClassVar[Mapping[str, _Field]]

    @staticmethod
    def _NameProblem(name: str) -> str | None:
        """Why something can't be the name of a unit; it must never be taken for an option."""
        raise NotImplementedError

    def _CheckName(self, name: str) -> None:
        problem = self._NameProblem(name)
        if problem is not None:
            raise errors.StorageError(
                f"{name!r} is no storage unit of type {self.type_name!r}: {problem}"
            )

    def List(self, name: str | None, fields: Sequence[str]) -> list[Row]:
        """One row for each unit of this node, or for the one of that name; one command in all."""
        CheckFields(self.type_name, fields, self._FIELDS)
        if name is not None:
            self._CheckName(name)
        wanted = [self._FIELDS[field] for field in fields]
        sources = text.UniqueSequence([source for item in wanted for source in item.sources])
        if not sources:
            # LVM must be asked for something, if only to learn how many there are.
            sources = list(self._FIELDS[constants.SF_NAME].sources)
        names = [] if name is None else [name]
        try:
            records = lvm.Report(self._COMMAND, sources, names, self._rt)
            return [[item.compute(record) for item in wanted] for record in records]
        except errors.LVMError as err:
            raise errors.StorageError(
                f"Can't list storage units of type {self.type_name!r}: {err}"
            ) from err

    def _Run(self, argv: Sequence[str], what: str) -> None:
        try:
            lvm.RunOrFail(argv, what, self._rt)
        except errors.LVMError as err:
            raise errors.StorageError(str(err)) from err


def _GetAllocatable(record: lvm.Record) -> bool:
    attr = record["pv_attr"]
    if not attr:
        logging.warning("LVM reports no attributes of a physical volume, taken as unallocatable")
    return lvm.IsAllocatable(attr)


class PhysicalVolumeUnit(_LvmUnit):
    """Physical volumes; whether new extents may be put on one can be changed (SU2).

    One whose device is missing is called C{[unknown]} by LVM and is not allocatable, whatever its
    permission says.
    """

    type_name = constants.ST_LVM_PV
    _COMMAND = "pvs"
    _FIELDS: ClassVar[Mapping[str, _Field]] = {
        constants.SF_NAME: _Text("pv_name"),
        constants.SF_SIZE: _Size("pv_size"),
        constants.SF_USED: _Size("pv_used"),
        constants.SF_FREE: _Size("pv_free"),
        constants.SF_ALLOCATABLE: _Field(("pv_attr",), _GetAllocatable),
    }

    @staticmethod
    def _NameProblem(name: str) -> str | None:
        return None if name.startswith("/") else "physical volumes are named by absolute paths"

    def Modify(self, name: str, changes: Mapping[str, Any]) -> None:
        """Allow or forbid LVM to put new extents on a physical volume."""
        unknown = sorted(set(changes) - constants.MODIFIABLE_STORAGE_FIELDS[self.type_name])
        if unknown:
            raise errors.StorageError(
                f"Of a storage unit of type {self.type_name!r} {', '.join(unknown)} can't be"
                " changed"
            )
        if constants.SF_ALLOCATABLE not in changes:
            return
        self._CheckName(name)
        allocatable = changes[constants.SF_ALLOCATABLE]
        if not isinstance(allocatable, bool):
            raise errors.StorageError(f"allocatable must be true or false, not {allocatable!r}")
        self._Run(
            ["pvchange", "--allocatable", "y" if allocatable else "n", name],
            f"Making {name} {'' if allocatable else 'un'}allocatable",
        )


#: Fields of a volume group that tell whether it is whole.
_MISSING_COUNT: Final = "vg_missing_pv_count"


class VolumeGroupUnit(_LvmUnit):
    """Volume groups; one that has lost a device can be made consistent again (SU3)."""

    type_name = constants.ST_LVM_VG
    _COMMAND = "vgs"
    _FIELDS: ClassVar[Mapping[str, _Field]] = {
        constants.SF_NAME: _Text("vg_name"),
        constants.SF_SIZE: _Size("vg_size"),
        # The difference of what is shown, so that the columns add up.
        constants.SF_USED: _Field(
            ("vg_size", "vg_free"),
            lambda record: (
                round(lvm.ToMebibytes(record["vg_size"]))
                - round(lvm.ToMebibytes(record["vg_free"]))
            ),
        ),
        constants.SF_FREE: _Size("vg_free"),
        constants.SF_ALLOCATABLE: _Field((), lambda _: True),
    }

    @staticmethod
    def _NameProblem(name: str) -> str | None:
        return lvm.CheckVolumeName(name)

    def Execute(self, name: str, operation: str) -> None:
        """Repair a volume group: forget its missing devices.

        Logical volumes that had a part on one of them are lost already and removed with them; LVM
        changes nothing in a group that still has any. Whether they may be lost is for the caller to
        know. A group that is whole is left as it is.
        """
        if operation != constants.SO_FIX_CONSISTENCY:
            super().Execute(name, operation)
        self._CheckName(name)
        try:
            outputs = []
            # Without force first: only what is empty goes, and nothing is asked of a whole group.
            for force in ([], ["--force", "--yes"]):
                result = lvm.Run(["vgreduce", "--removemissing", *force, name], self._rt)
                outputs.append(result.output.strip())
                logging.info("Repair of %s: %s", name, outputs[-1])
                missing = self._CountMissing(name, outputs)
                if not missing:
                    return
        except errors.LVMError as err:
            raise errors.StorageError(f"Can't repair volume group {name}: {err}") from err
        raise errors.StorageError(
            f"Volume group {name} still misses {missing} physical volume(s) after its repair:"
            f" {' / '.join(outputs)}"
        )

    def _CountMissing(self, name: str, outputs: Sequence[str]) -> int:
        try:
            (record,) = lvm.Report("vgs", ("vg_name", _MISSING_COUNT), [name], self._rt)
            return int(record[_MISSING_COUNT])
        except (errors.LVMError, ValueError) as err:
            raise errors.LVMError(f"{err}; the repair said: {' / '.join(outputs)}") from err
