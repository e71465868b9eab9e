"""Names, lists, units, times and quoting: pure functions on text and numbers.

Nothing here touches a file, a clock or the network, so everything may be imported by the
cheapest command.
"""

import math
import re
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from .. import constants, errors

_T = TypeVar("_T")
_R = TypeVar("_R")

#: Sort keys look at this many groups of digits or non-digits; the name itself breaks ties.
_NICE_SORT_GROUPS: Final = 8
_DIGITS_OR_TEXT: Final = re.compile(r"[0-9]+|[^0-9]+")

_SHELL_PARAM: Final = re.compile(r"[-a-zA-Z0-9._+/:%@]+")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")

_UNIT_TEXT: Final = re.compile(r"([.0-9]+)[ \t]*([a-zA-Z]+)?")
#: MiB per unit.
_UNIT_FACTORS: Final = {
    **dict.fromkeys(("m", "mb", "mib"), 1),
    **dict.fromkeys(("g", "gb", "gib"), 1024),
    **dict.fromkeys(("t", "tb", "tib"), 1024 * 1024),
}

_ROMAN: Final = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"),
    (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_ROMAN_MAX: Final = 4999


# Names and lists


def MatchNameComponent(key: str, names: Iterable[str], case_sensitive: bool = True) -> str | None:
    """Find the one name that `key` abbreviates at a dot.

    `test1` and `test1.example` match `test1.example.com`, `test1.ex` does not. An exact member
    always wins; without case sensitivity a single match over the full length wins over longer
    ones.

    Returns: the name as it stands in `names`, or None if no name or several match.
    """
    candidates = list(names)
    if key in candidates:
        return key

    def fold(text: str) -> str:
        return text if case_sensitive else text.upper()

    wanted = fold(key)
    full = [name for name in candidates if fold(name) == wanted]
    partial = [name for name in candidates if fold(name).startswith(wanted + ".")]
    if len(full) == 1:
        return full[0]
    if len(full) + len(partial) == 1:
        return (full + partial)[0]
    return None


def NiceSortKey(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that orders digits inside names by value: node2 before node10.

    Each group carries a tag, so that numbers and text in the same place can be compared
    (numbers come first).
    """
    groups = _DIGITS_OR_TEXT.findall(name)[:_NICE_SORT_GROUPS]
    return (
        tuple(
            (0, int(group), "") if group[0] in "0123456789" else (1, 0, group) for group in groups
        ),
        name,
    )


def NiceSort(names: Iterable[str]) -> list[str]:
    """Sorted list of names with digits ordered by value."""
    return sorted(names, key=NiceSortKey)


def UniqueSequence(seq: Iterable[_T]) -> list[_T]:
    """The elements of `seq` once each, in the order of their first appearance."""
    return list(dict.fromkeys(seq))


def FirstFree(seq: Sequence[int], base: int = 0) -> int | None:
    """First missing number >= base inside an ascending sequence.

    Returns: the number, or None if there is no gap (the next free one is then base + len).
    """
    for index, element in enumerate(seq):
        assert element >= base, f"Element {element} is below the base offset {base}"
        if element > index + base:
            return index + base
    return None


def CommaJoin(items: Iterable[object]) -> str:
    """Texts of the items, joined by comma and blank."""
    return ", ".join(str(item) for item in items)


class FieldSet:
    """A set of field names given as regular expressions, each matching a whole field name."""

    def __init__(self, *patterns: str) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def Extend(self, other: "FieldSet") -> None:
        """Take over the fields of another set."""
        self._patterns.extend(other._patterns)

    def Matches(self, field: str) -> re.Match[str] | None:
        """Match of the first pattern that fits `field`, with its groups, or None."""
        for pattern in self._patterns:
            match = pattern.fullmatch(field)
            if match:
                return match
        return None

    def NonMatching(self, fields: Iterable[str]) -> list[str]:
        """Those of `fields` that are not in the set, in their order."""
        return [field for field in fields if not self.Matches(field)]


# Units and numbers


def ParseUnit(text: object) -> int:
    """Size in MiB, e.g. from `512`, `1.5G` or `2 TiB`; units m, g and t, default MiB.

    The size is rounded up to a whole number and then to the next multiple of four.

    Raises: UnitParseError.
    """
    # Exact arithmetic, imported where it is needed: most commands parse no sizes.
    from fractions import Fraction

    value = str(text)
    match = _UNIT_TEXT.fullmatch(value)
    if not match:
        raise errors.UnitParseError(
            f"Invalid size '{value}': expected a number with an optional unit (m, g or t)"
        )
    number, unit = match.groups()
    factor = _UNIT_FACTORS.get((unit or "m").lower())
    if factor is None:
        raise errors.UnitParseError(
            f"Unknown unit '{unit}' in size '{value}': use m, g or t (MiB, GiB or TiB)"
        )
    try:
        mebibytes = math.ceil(Fraction(number) * factor)
    except ValueError as err:
        raise errors.UnitParseError(f"Invalid number '{number}' in size '{value}'") from err
    return -(-mebibytes // 4) * 4


def FormatUnit(value: float, units: str) -> str:
    """Text of a size.

    Arguments: value in MiB; units `m`, `g` or `t` for a bare number in that unit, `h` for the
    best fitting unit with its letter.

    Raises: ProgrammerError for other units.
    """
    if units not in ("m", "g", "t", "h"):
        raise errors.ProgrammerError(f"Invalid unit specification '{units}': use m, g, t or h")
    suffix = ""
    if units == "h":
        units = "m" if value < 1024 else "g" if value < 1024 * 1024 else "t"
        suffix = units.upper()
    if units == "m":
        return f"{round(value)}{suffix}"
    return f"{value / _UNIT_FACTORS[units]:0.1f}{suffix}"


def BytesToMebibyte(value: float) -> int:
    """Bytes as MiB, rounded to the nearest whole number."""
    return round(value / (1024 * 1024))


def TryConvert(fn: Callable[[Any], _R], value: Any) -> _R | Any:
    """fn(value), or the value itself if the function refuses it."""
    try:
        return fn(value)
    except (ValueError, TypeError):
        return value


def TryToRoman(value: Any, convert: bool = True) -> Any:
    """Roman numeral of a whole number from 1 to 4999; anything else comes back unchanged."""
    if not convert or isinstance(value, bool) or not isinstance(value, int):
        return value
    if not 0 < value <= _ROMAN_MAX:
        return value
    letters = []
    for worth, letter in _ROMAN:
        count, value = divmod(value, worth)
        letters.append(letter * count)
    return "".join(letters)


# Time


def SplitTime(value: float) -> tuple[int, int]:
    """Seconds since the epoch as whole seconds and microseconds."""
    seconds, microseconds = divmod(int(value * 1000000), 1000000)
    assert seconds >= 0, f"Seconds must be positive, are {seconds}"
    return seconds, microseconds


def MergeTime(timetuple: Sequence[int]) -> float:
    """Seconds since the epoch from (seconds, microseconds)."""
    seconds, microseconds = timetuple
    assert seconds >= 0, f"Seconds must be positive, are {seconds}"
    assert 0 <= microseconds <= 999999, f"Microseconds must be 0-999999, are {microseconds}"
    return float(seconds) + float(microseconds) * 0.000001


def FormatTime(value: object) -> str:
    """Local time `YYYY-MM-DD HH:MM:SS` of epoch seconds; `N/A` for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "N/A"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))


# Text


def SafeEncode(text: str | bytes) -> str:
    r"""Printable ASCII form of a text, for logs and messages; idempotent.

    Tab, newline and carriage return become \t, \n and \r, other control characters and foreign
    bytes \xNN, other characters outside ASCII \uNNNN. Quotes and backslashes stay as they are,
    so the result can't be decoded again without doubt.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "surrogateescape")
    return "".join(_EncodeCharacter(char) for char in text)


_NAMED_CONTROLS: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def _EncodeCharacter(char: str) -> str:
    code = ord(char)
    if 32 <= code < 127:
        return char
    if char in _NAMED_CONTROLS:
        return _NAMED_CONTROLS[char]
    if 0xDC80 <= code <= 0xDCFF:
        # a byte that was no text, carried by the surrogateescape error handler
        return f"\\x{code - 0xDC00:02x}"
    if code < 256:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def UnescapeAndSplit(text: str, sep: str = ",") -> list[str]:
    """Split at a one-character separator that is not escaped by a backslash.

    Backslash-x stands for x, whatever x is; a lone backslash at the end stands for itself.
    """
    parts = [""]
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and position + 1 < len(text):
            position += 1
            parts[-1] += text[position]
        elif char == sep:
            parts.append("")
        else:
            parts[-1] += char
        position += 1
    return parts


class LineSplitter:
    """Collects pieces of text and hands out whole lines, without their line ends.

    Lines are delivered by Flush(); Close() delivers also the unfinished last one.
    """

    def __init__(self, line_fn: Callable[..., object], *args: object) -> None:
        self._line_fn = line_fn
        self._args = args
        self._buffer = ""
        self._lines: list[str] = []

    def Write(self, data: str) -> None:
        """Take a piece of text."""
        *complete, self._buffer = (self._buffer + data).split("\n")
        self._lines.extend(complete)

    def Flush(self) -> None:
        """Deliver the lines that are complete."""
        lines, self._lines = self._lines, []
        for line in lines:
            self._line_fn(line.rstrip("\r\n"), *self._args)

    def Close(self) -> None:
        """Deliver everything that is left."""
        self.Flush()
        rest, self._buffer = self._buffer, ""
        if rest:
            self._line_fn(rest.rstrip("\r\n"), *self._args)

    write = Write
    flush = Flush
    close = Close


# Shell


def ShellQuote(value: str) -> str:
    """The text as one word of a shell command."""
    return shlex.quote(value)


def ShellQuoteArgs(args: Iterable[str]) -> str:
    """The texts as words of a shell command."""
    return shlex.join(args)


def IsValidShellParam(word: str) -> bool:
    """Whether the word means itself in every place of a shell command."""
    return bool(_SHELL_PARAM.fullmatch(word))


def BuildShellCmd(template: str, *words: object) -> str:
    """Put words into a %-template of a shell command.

    Raises: ProgrammerError if a word contains anything but letters, digits and -._+/:%@
    """
    for word in words:
        if not IsValidShellParam(str(word)):
            raise errors.ProgrammerError(
                f"Shell argument '{word}' contains characters that are not allowed"
            )
    return template % words


def IsPluginName(name: str) -> bool:
    """Whether the name is one of a script: letters, digits, `_` and `-` only."""
    return bool(constants.EXT_PLUGIN_MASK.match(name))


def NormalizeAndValidateMac(mac: str) -> str:
    """The MAC address in lower case.

    Raises: OpPrereqError (wrong_input) unless it is six pairs of hexadecimal digits.
    """
    lower = mac.lower()
    if not _MAC.fullmatch(lower):
        raise errors.OpPrereqError(
            f"Invalid MAC address '{mac}': expected six pairs of hexadecimal digits"
            " separated by colons",
            errors.ECODE_INVAL,
        )
    return lower
