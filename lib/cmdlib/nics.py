"""Network cards of an instance: from what the user said to what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import constants, errors, objects
from ..utils import net, text
from . import base


def _Invalid(where: str, message: str) -> errors.OpPrereqError:
    return errors.OpPrereqError(f"{where}: {message}", errors.ECODE_INVAL)


def CheckNicSettings(where: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of what was said of a NIC; pure.

    @param where: e.g. "nic/0", for the message
    @return: a copy, with C{bridge} turned into C{link}, and C{none} for that into an empty text
    @raise errors.OpPrereqError: C{wrong_input}
    """
    nic = base.ForceTypes(where, settings, constants.INIC_PARAMS_TYPES)
    bridge = nic.pop(constants.INIC_BRIDGE, None)
    if bridge is not None:
        if constants.INIC_LINK in nic:
            raise _Invalid(where, "give either 'bridge' or 'link', not both")
        if nic.get(constants.INIC_MODE) == constants.NIC_MODE_ROUTED:
            raise _Invalid(where, "a routed NIC has no 'bridge'")
        nic[constants.INIC_LINK] = bridge
    if nic.get(constants.INIC_LINK, "").lower() == constants.VALUE_NONE:
        nic[constants.INIC_LINK] = ""
    return nic


def ParseIp(where: str, value: str, name_ip: str | None) -> str | None:
    """The IP of a NIC; pure.

    @param value: C{none}, C{auto} (that of the instance's name) or an IPv4 address
    @param name_ip: what the name resolved to; None if it was not checked
    @raise errors.OpPrereqError: C{wrong_input}
    """
    if value.lower() == constants.VALUE_NONE:
        return None
    if value.lower() == constants.VALUE_AUTO:
        if name_ip is None:
            raise _Invalid(where, "ip=auto needs the check of the instance's name")
        return name_ip
    if not net.IsValidIP(value):
        raise _Invalid(where, f"ip: {value!r} is no IPv4 address")
    return value


def CheckNic(where: str, ip: str | None, filled: Mapping[str, Any]) -> None:
    """Check a NIC as a whole, with filled parameters; pure.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    try:
        objects.NIC.CheckParameterSyntax(filled)
    except errors.ConfigurationError as err:
        raise _Invalid(where, str(err)) from err
    if filled[constants.NIC_MODE] == constants.NIC_MODE_ROUTED and ip is None:
        raise _Invalid(where, "a routed NIC needs an IP")


def CheckBridgeMode(where: str, settings: Mapping[str, Any], filled: Mapping[str, Any]) -> None:
    """Check that no bridge was named for a NIC that is routed, be it by default; pure.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    routed = filled[constants.NIC_MODE] == constants.NIC_MODE_ROUTED
    if routed and settings.get(constants.INIC_BRIDGE) is not None:
        raise _Invalid(where, "a routed NIC has no 'bridge'")


def NormalizeMac(where: str, value: str) -> str:
    """A MAC as it is stored, or C{auto} or C{generate}.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    if value.lower() in (constants.VALUE_AUTO, constants.VALUE_GENERATE):
        return value.lower()
    try:
        return text.NormalizeAndValidateMac(value)
    except errors.OpPrereqError as err:
        raise _Invalid(where, f"mac: {err.args[0]}") from err


def ResolveMac(lu: base.LogicalUnit, where: str, value: str) -> str:
    """Generate a MAC, or reserve the one asked for, until the job ends.

    @raise errors.OpPrereqError: C{resource_not_unique}
    """
    ec_id = lu.proc.GetECId()
    if value in (constants.VALUE_AUTO, constants.VALUE_GENERATE):
        return lu.cfg.GenerateMAC(ec_id)
    try:
        lu.cfg.ReserveMAC(value, ec_id)
    except errors.ReservationError as err:
        raise errors.OpPrereqError(
            f"{where}: the MAC {value} is in use in this cluster", errors.ECODE_NOTUNIQUE
        ) from err
    return value


def BuildNewNic(
    where: str,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
    name_ip: str | None,
    first: bool = False,
) -> tuple[objects.NIC, dict[str, Any]]:
    """A NIC of a new instance, whose MAC may still be C{auto}; pure.

    @param defaults: NIC parameters of the cluster
    @param first: the first NIC, if routed, has the address of the name unless told otherwise
    @return: the NIC with what differs from the defaults, and its filled parameters
    @raise errors.OpPrereqError: C{wrong_input}
    """
    nic = CheckNicSettings(where, settings)
    own = {
        key: nic[key]
        for key in (constants.NIC_MODE, constants.NIC_LINK)
        if nic.get(key) is not None
    }
    filled = objects.FillDict(defaults, own)
    CheckBridgeMode(where, settings, filled)
    routed = filled[constants.NIC_MODE] == constants.NIC_MODE_ROUTED
    default_ip = constants.VALUE_AUTO if routed and first else constants.VALUE_NONE
    ip = ParseIp(where, nic.get(constants.INIC_IP, default_ip), name_ip)
    CheckNic(where, ip, filled)
    mac = NormalizeMac(where, nic.get(constants.INIC_MAC, constants.VALUE_AUTO))
    return objects.NIC(mac=mac, ip=ip, nicparams=own), filled
