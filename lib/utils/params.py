"""Conversion of parameter values to their declared types."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from .. import constants, errors
from . import text

#: Longest piece of a refused value that a message shows.
_SHOWN_CHARS: Final = 80


def _ForceString(value: object) -> str:
    # A false comes from "no_name" on the command line: the parameter is to be empty
    if value is False:
        return ""
    if isinstance(value, str):
        return value
    raise ValueError("a text is needed")


def _Show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."


def _ForceBool(value: object) -> bool:
    if isinstance(value, str) and value:
        word = value.lower()
        if word == constants.VALUE_FALSE:
            return False
        if word == constants.VALUE_TRUE:
            return True
        raise ValueError("'true' or 'false' is needed")
    return bool(value)


def _ForceSize(value: object) -> int:
    try:
        return text.ParseUnit(value)
    except errors.UnitParseError as err:
        raise ValueError(str(err)) from err


def _ForceInt(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise ValueError("an integer is needed")


def _Bounded(value: Any) -> Any:
    # The system's calls take no more
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("the number is too large")
    return value


_CONVERTERS: Final[Mapping[str, Callable[[object], Any]]] = {
    constants.VTYPE_STRING: _ForceString,
    constants.VTYPE_BOOL: _ForceBool,
    constants.VTYPE_SIZE: _ForceSize,
    constants.VTYPE_INT: _ForceInt,
}


def ForceDictType(
    target: dict[str, Any],
    key_types: Mapping[str, str],
    allowed_values: Collection[Any] | None = None,
) -> None:
    """Convert the values of a dictionary of parameters to their declared types, in place.

    Either all are converted or, on an error, none is.

    @param key_types: type (C{VTYPE_*}) of each parameter there is
    @param allowed_values: values that stay as they are, e.g. C{default}
    @raise errors.TypeEnforcementError: no dictionary, an unknown parameter, or a value that can not
      be converted; the text names it
    @raise errors.ProgrammerError: a type that does not exist
    """
    if not isinstance(target, dict):
        raise errors.TypeEnforcementError(f"Expected a dictionary of parameters, got {target!r}")
    allowed = list(allowed_values or ())

    converted: dict[str, Any] = {}
    for name, value in target.items():
        if name not in key_types:
            known = text.CommaJoin(text.NiceSort(key_types)) or "none"
            raise errors.TypeEnforcementError(f"Unknown parameter '{name}'; there are: {known}")
        # The type counts: for Python 0 equals False
        if any(type(value) is type(word) and value == word for word in allowed):
            continue
        try:
            convert = _CONVERTERS[key_types[name]]
        except KeyError:
            raise errors.ProgrammerError(
                f"Parameter '{name}' has the unknown type '{key_types[name]}'"
            ) from None
        try:
            converted[name] = _Bounded(convert(value))
        except ValueError as err:
            raise errors.TypeEnforcementError(
                f"Invalid value {_Show(value)} for parameter '{name}': {err}"
            ) from err
    target.update(converted)
