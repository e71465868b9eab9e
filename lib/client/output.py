"""Listings: columns, units, tables and JSON.

A listing is a table of its columns by field (L{Column}); fields, headers, alignment, units and the
text of each value come from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from ..utils import text
from . import console, values

#: Text of what the master daemon could not tell.
UNKNOWN: Final = "?"
#: Text of what there is not.
NOTHING: Final = "-"

Formatter = Callable[[Any], Any]


def FormatPlain(value: Any) -> Any:
    """A value as it is; a question mark for none."""
    return UNKNOWN if value is None else value


def FormatDash(value: Any) -> Any:
    """A value as it is; a dash for none."""
    return NOTHING if value is None else value


def FormatList(value: Any) -> Any:
    """The elements with commas between them."""
    return UNKNOWN if value is None else ",".join(str(element) for element in value)


def FormatYN(value: Any) -> Any:
    """Y or N."""
    return UNKNOWN if value is None else "Y" if value else "N"


def FormatTime(value: Any) -> str:
    """Local time, N/A for none."""
    return text.FormatTime(value)


def FormatTimestamp(value: Any) -> str:
    """Local time with microseconds of [seconds, microseconds]; a question mark for none."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return UNKNOWN
    seconds, microseconds = value
    return f"{text.FormatTime(int(seconds))}.{int(microseconds):06d}"


class Column:
    """How a field is printed.

    @ivar header: None: the field's own name
    @ivar numeric: align it at the right
    @ivar unit: a size in MiB
    @ivar format: from raw value to text, or to a number if the column has a unit
    """

    __slots__ = ("format", "header", "numeric", "unit")

    def __init__(
        self,
        header: str | None = None,
        format: Formatter = FormatPlain,  # noqa: A002 - as a keyword it reads best
        *,
        numeric: bool = False,
        unit: bool = False,
    ) -> None:
        self.header = header
        self.format = format
        self.numeric = numeric or unit
        self.unit = unit


class Columns:
    """The columns of a listing.

    Fields that it does not know are asked for all the same: the master daemon knows better, and
    says what is wrong.
    """

    def __init__(
        self, columns: Mapping[str, Column], patterns: Sequence[tuple[str, Column]] = ()
    ) -> None:
        """@param patterns: columns of fields with a changing part, by regular expressions"""
        self.columns = dict(columns)
        self._patterns = tuple(patterns)

    def Get(self, field: str) -> Column:
        """The column of a field."""
        column = self.columns.get(field)
        if column is not None:
            return column
        for pattern, candidate in self._patterns:
            if re.fullmatch(pattern, field):
                return candidate
        return Column()


def FormatCell(column: Column, value: Any, units: str, roman: bool) -> str:
    """The text of one value."""
    shown = column.format(value)
    if column.unit and isinstance(shown, (int, float)) and not isinstance(shown, bool):
        return text.FormatUnit(shown, units)
    return str(text.TryToRoman(shown, roman))


def FormatTable(
    headers: Sequence[str] | None,
    numeric: Sequence[bool],
    rows: Sequence[Sequence[str]],
    separator: str | None,
) -> list[str]:
    """The lines of a table.

    Without separator, columns are as wide as their widest cell and one blank apart; what is not
    numeric is aligned at the left, and as last column not filled up (but for the header).
    """
    if separator is not None:
        lines = [] if headers is None else [separator.join(headers)]
        return lines + [separator.join(row) for row in rows]
    every = ([] if headers is None else [headers]) + list(rows)
    widths = [max((len(row[i]) for row in every), default=0) for i in range(len(numeric))]

    def Line(row: Sequence[str], fill: bool) -> str:
        last = len(row) - 1
        return " ".join(
            cell.rjust(widths[i])
            if numeric[i]
            else cell.ljust(widths[i])
            if fill or i < last
            else cell
            for i, cell in enumerate(row)
        )

    lines = [] if headers is None else [Line(headers, True)]
    return lines + [Line(row, False) for row in rows]


def ChooseUnits(units: str | None, separator: str | None) -> str:
    """The unit of a listing: what was asked for, else one for people or one for programs."""
    if units is not None:
        return units
    return "m" if separator else "h"


def GenerateTable(
    columns: Columns,
    fields: Sequence[str],
    rows: Sequence[Sequence[Any] | None],
    headers: bool = True,
    separator: str | None = None,
    units: str | None = None,
    roman: bool = False,
) -> list[str]:
    """The lines of a listing.

    @param rows: raw values in the order of the fields; None for something that was not found
    """
    shown = [columns.Get(field) for field in fields]
    unit = ChooseUnits(units, separator)
    cells = [
        [NOTHING] * len(fields)
        if row is None
        else [
            FormatCell(column, value, unit, roman) for column, value in zip(shown, row, strict=True)
        ]
        for row in rows
    ]
    titles = [
        field if column.header is None else column.header
        for field, column in zip(fields, shown, strict=True)
    ]
    return FormatTable(
        titles if headers else None, [column.numeric for column in shown], cells, separator
    )


def GenerateJson(fields: Sequence[str], rows: Sequence[Sequence[Any] | None]) -> str:
    """A listing as JSON: for each row an object with the raw values by field, null for one that
    was not found."""
    from .. import serializer

    objects = [None if row is None else dict(zip(fields, row, strict=True)) for row in rows]
    return serializer.Dump(objects, indent=True).rstrip("\n")


def PrintJson(document: Any) -> None:
    """Print something as JSON for programs."""
    from .. import serializer

    console.ToStdout(serializer.Dump(document, indent=True).rstrip("\n"))


def PrintList(
    columns: Columns, fields: Sequence[str], rows: Sequence[Sequence[Any] | None], opts: Any
) -> None:
    """Print a listing as its options (L{options.LIST_OPTS}, units and roman) ask for."""
    if opts.output_format == "json":
        console.ToStdout(GenerateJson(fields, rows))
        return
    lines = GenerateTable(
        columns,
        fields,
        rows,
        headers=not opts.no_headers,
        separator=opts.separator,
        units=getattr(opts, "units", None),
        roman=getattr(opts, "roman_integers", False),
    )
    for line in lines:
        console.ToStdout(line)


def GenericList(
    columns: Columns,
    default_fields: Sequence[str],
    query: Callable[[list[str]], Sequence[Sequence[Any] | None]],
    opts: Any,
) -> int:
    """Ask for the fields that the options select and print them; the exit code."""
    if getattr(opts, "do_locking", False):
        console.ToStderr("Note: --sync has no effect, listings need no locks")
    fields = values.ParseFields(opts.output, default_fields)
    PrintList(columns, fields, query(fields), opts)
    return 0


def DescribeFields(columns: Columns, default_fields: Collection[str]) -> str:
    """The sentence of a command's description that names its fields."""
    return (
        f"The available fields are: {', '.join(sorted(columns.columns))}."
        f" The default field list is (in order): {', '.join(default_fields)}."
    )
