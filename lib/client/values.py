"""The small languages inside of options and arguments: pure functions from text to values.

What is wrong with a C{key=value} list or an C{ident:key=value} group is an
L{errors.ParameterError}, what is wrong with an argument an L{errors.OpPrereqError}; both name the
option or the argument, and the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .. import constants, errors
from ..utils import text

#: In front of a name: false for a parameter, no such group.
_PREFIX_NO: Final = "no_"
#: In front of a name: no value of its own any more.
_PREFIX_NONE: Final = "-"

#: What the limits of an instance are, the master says; but no typing error shall fill the memory.
_MAX_INDEX: Final = 1000

#: Seconds of the suffixes of a time.
_TIME_SUFFIXES: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_BOOLEANS: Final = {"yes": True, "true": True, "no": False, "false": False}


# Values of options


def ParseBool(option: str, value: str) -> bool:
    """C{yes}, C{no}, C{true} or C{false} in any case.

    @raise errors.ParameterError: something else
    """
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise errors.ParameterError(f"{option}: '{value}' is neither 'yes' nor 'no'") from None


def _SplitName(word: str) -> tuple[str, Any]:
    """A name without its prefix, and what the prefix says (True for none)."""
    if word.startswith(_PREFIX_NO):
        return word[len(_PREFIX_NO) :], False
    if word.startswith(_PREFIX_NONE):
        return word[len(_PREFIX_NONE) :], None
    return word, True


def ParseKeyVal(option: str, value: str) -> dict[str, Any]:
    """The dictionary of C{key=value,key,no_key,-key}.

    A key alone is True, with C{no_} it is False, with C{-} None. A backslash before a comma (or any
    other character) makes it an ordinary one.

    @raise errors.ParameterError: a key twice, or none at all before a C{=}
    """
    result: dict[str, Any] = {}
    if not value:
        return result
    for element in text.UnescapeAndSplit(value, ","):
        key, separator, setting = element.partition("=")
        content: Any = setting
        if not separator:
            key, content = _SplitName(element)
        if not key:
            raise errors.ParameterError(f"{option}: no name in '{element}' of '{value}'")
        if key in result:
            raise errors.ParameterError(f"{option}: '{key}' is given twice in '{value}'")
        result[key] = content
    return result


def ParseIdentKeyVal(option: str, value: str) -> tuple[str, Any]:
    """Name and dictionary of C{ident:key=value,...}.

    C{no_ident} gives False and C{-ident} None in the place of the dictionary.

    @raise errors.ParameterError: such a prefix together with parameters, or what L{ParseKeyVal}
        finds
    """
    ident, _, rest = value.partition(":")
    name, meaning = _SplitName(ident)
    # "-1" is no request to drop "1" anywhere, but it is one by the rule, as "-kvm" is
    if meaning is True:
        return name, ParseKeyVal(option, rest)
    if rest:
        raise errors.ParameterError(
            f"{option}: '{ident}' removes '{name}', so nothing can follow it, as in '{value}'"
        )
    return name, meaning


def MergeIdents(groups: Iterable[tuple[str, Any]] | None) -> dict[str, Any]:
    """The map of a list of C{ident:key=value} groups; of two with one name the last one counts."""
    return dict(groups or ())


def CheckHvParamGroups(groups: Iterable[tuple[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """The map of hypervisor to its parameters of C{-H} options.

    @raise errors.OpPrereqError: C{wrong_input}, a hypervisor was named with C{no_} or C{-}
    """
    merged = MergeIdents(groups)
    for name, params in merged.items():
        if not isinstance(params, dict):
            raise errors.OpPrereqError(
                f"-H: hypervisor '{name}' can not be taken away; name its parameters, as in"
                f" '{name}:parameter=value'",
                errors.ECODE_INVAL,
            )
    return merged


# Arguments


def ParseTimespec(value: str) -> int:
    """Seconds of C{30}, C{30s}, C{5m}, C{2h}, C{1d} or C{4w}.

    @raise errors.OpPrereqError: C{wrong_input}
    """
    number, factor = value, 1
    if value and value[-1] in _TIME_SUFFIXES:
        number, factor = value[:-1], _TIME_SUFFIXES[value[-1]]
    try:
        return int(number) * factor
    except ValueError:
        raise errors.OpPrereqError(
            f"Invalid time '{value}': give a whole number with one of the units"
            f" {', '.join(_TIME_SUFFIXES)}, or of seconds",
            errors.ECODE_INVAL,
        ) from None


def SplitNodeOption(value: str | None) -> tuple[str | None, str | None]:
    """Primary and secondary node of C{node[:node]}."""
    if value and ":" in value:
        primary, _, secondary = value.partition(":")
        return primary, secondary
    return value, None


def ParseFields(selected: str | None, default: Sequence[str]) -> list[str]:
    """The fields of a listing: C{a,b} instead of the default ones, C{+a,b} in addition to them."""
    if selected is None:
        return list(default)
    if selected.startswith("+"):
        return [*default, *selected[1:].split(",")]
    return selected.split(",")


def ParseIntList(what: str, value: str) -> list[int]:
    """Numbers separated by commas.

    @raise errors.OpPrereqError: C{wrong_input}, naming C{what} and the value
    """
    try:
        return [int(number) for number in value.split(",")]
    except ValueError:
        raise errors.OpPrereqError(
            f"Invalid {what} '{value}': give whole numbers separated by commas", errors.ECODE_INVAL
        ) from None


def ParseSize(what: str, value: object) -> int:
    """MiB of a size such as C{512m} or C{1.5g}, rounded up to a multiple of four.

    @raise errors.OpPrereqError: C{wrong_input}, naming C{what} and the value
    """
    try:
        return text.ParseUnit(value)
    except errors.UnitParseError as err:
        raise errors.OpPrereqError(f"{what}: {err}", errors.ECODE_INVAL) from err


def ParseIndexedGroups(option: str, groups: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The list of C{N:key=value} groups by their numbers; missing numbers are empty dictionaries.

    @raise errors.OpPrereqError: C{wrong_input}, a number is none, negative, far too large, or named
        with C{no_}
    """
    by_index: dict[int, dict[str, Any]] = {}
    for ident, params in groups:
        try:
            index = int(ident)
        except ValueError:
            index = -1
        if index < 0 or not isinstance(params, dict):
            raise errors.OpPrereqError(
                f"{option}: '{ident}' is no index; give a number from 0, as in"
                f" '{option} 0:key=value'",
                errors.ECODE_INVAL,
            )
        if index > _MAX_INDEX:
            raise errors.OpPrereqError(
                f"{option}: the index {ident} is too large; they count from 0 without gaps",
                errors.ECODE_INVAL,
            )
        by_index[index] = params
    if not by_index:
        return []
    return [by_index.get(index, {}) for index in range(max(by_index) + 1)]


def ForceTypes(
    values: dict[str, Any], types: Mapping[str, str], reset: bool = False
) -> dict[str, Any]:
    """Parameters from the command line with the values that their declared types ask for.

    @param reset: C{default} and None (C{-key}) say that a value shall be the default again; it is
        C{default} in the result
    @raise errors.TypeEnforcementError: an unknown name, or a value that does not fit
    """
    from ..utils import params

    result = dict(values)
    if not reset:
        params.ForceDictType(result, types)
        return result
    for name, value in values.items():
        if value is None or (isinstance(value, str) and value.lower() == constants.VALUE_DEFAULT):
            result[name] = constants.VALUE_DEFAULT
    params.ForceDictType(result, types, allowed_values=[constants.VALUE_DEFAULT])
    return result
