"""What a KVM instance was started as: the intent, not the command line.

A command line is right for one QEMU on one node; the next release of QEMU, or the node that a guest
moves to, may want another one for the same guest. So what is kept, and what goes to the target of a
migration, is what the command line was made of. With the type of machine, which QEMU gives a
version for that purpose, the guest sees the same hardware afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import errors, pathutils, serializer
from .kvm_command import DiskSpec, GuestSpec

#: Of the form on disk; a higher one may have more, but nothing may change its meaning.
_FORMAT: Final = 3


@dataclass(frozen=True)
class RuntimeData:
    """What a restart or a migration must give to the guest again.

    @ivar guest: name, memory, disks and so on
    @ivar nics: dictionaries as of C{objects.NIC.ToDict}
    @ivar hvparams: filled hypervisor parameters
    @ivar machine: type of machine with its version; empty: not known, take the default one
    @ivar qemu: version of the QEMU that it was first started with; empty if not known
    """

    guest: GuestSpec
    nics: list[dict[str, Any]]
    hvparams: dict[str, Any]
    machine: str = ""
    qemu: tuple[int, ...] = ()

    def ToDict(self) -> dict[str, Any]:
        """Plain data, from which L{Decode} makes the same again."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    def Encode(self) -> str:
        """Text of the runtime file."""
        return serializer.Dump(self.ToDict())

    def EncodeForNode(self) -> str:
        """The same for another node, which may have other paths if it is a virtual one."""
        return serializer.Dump(pathutils.ToWire(self.ToDict()))


def Decode(
    content: str, hvparams: Mapping[str, Any], describe: Callable[[], GuestSpec]
) -> RuntimeData:
    """Read what L{RuntimeData.Encode} or Ganeti 2.1 wrote.

    2.1 kept a list of three: command line, NICs, parameters. Its command line is for QEMU before
    1.0; of it only the type of machine is used.

    @param hvparams: today's parameters; they fill in those that did not exist then
    @param describe: makes the guest out of the configuration, where the text does not say
    @raise errors.HypervisorError: the text is something else
    """
    try:
        data = serializer.Load(content)
        if isinstance(data, dict):
            return RuntimeData(
                guest=_Guest(data["guest"]),
                nics=[dict(nic) for nic in _List(data["nics"])],
                hvparams={**hvparams, **data["hvparams"]},
                machine=str(data["machine"]),
                qemu=tuple(int(part) for part in _List(data["qemu"])),
            )
        command, nics, up_hvparams = _List(data)[:3]
        return RuntimeData(
            guest=describe(),
            nics=[dict(nic) for nic in _List(nics)],
            hvparams={**hvparams, **up_hvparams},
            machine=_MachineOf([str(word) for word in _List(command)]),
        )
    except (ValueError, TypeError, KeyError) as err:
        raise errors.HypervisorError(f"Can't understand the start-up data: {err!r}") from err


def DecodeFromNode(
    content: str, hvparams: Mapping[str, Any], describe: Callable[[], GuestSpec]
) -> RuntimeData:
    """Read what L{RuntimeData.EncodeForNode}, or a node with Ganeti 2.1, has sent.

    For arguments and errors see L{Decode}.
    """
    try:
        content = serializer.Dump(pathutils.FromWire(serializer.Load(content)))
    except (ValueError, TypeError) as err:
        raise errors.HypervisorError(f"Can't understand the start-up data: {err!r}") from err
    return Decode(content, hvparams, describe)


def DecodeHvParams(content: str, hvparams: Mapping[str, Any]) -> dict[str, Any]:
    """Only the parameters, for which nothing must be known of the instance.

    @raise errors.HypervisorError: the text is something else
    """
    nothing = GuestSpec("", None, 0, 0, ())
    return Decode(content, hvparams, lambda: nothing).hvparams


def _Known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a later version has written may be more."""
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _Guest(values: Mapping[str, Any]) -> GuestSpec:
    known = _Known(GuestSpec, values)
    cdrom = known.get("cdrom")
    return GuestSpec(
        **{
            **known,
            "disks": tuple(_Disk(disk) for disk in _List(known["disks"])),
            "cdrom": None if cdrom is None else _Disk(cdrom),
        }
    )


def _Disk(values: Mapping[str, Any]) -> DiskSpec:
    return DiskSpec(**_Known(DiskSpec, values))


def _MachineOf(command: Sequence[str]) -> str:
    for option, value in zip(command, command[1:], strict=False):
        if option in ("-machine", "-M"):
            return value.partition(",")[0].removeprefix("type=")
    return ""


def _List(value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return value
