"""Rows of the table, and how they are written down; nothing here measures anything."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .place import Place


@dataclass(frozen=True, order=True)
class Setting:
    """A virtual cluster in which something is measured.

    @ivar nodes: all of them are master candidates
    @ivar instances: how many there are in the configuration
    @ivar megabytes: rather than by their number, as many as make the file that big
    """

    nodes: int = 1
    megabytes: float = 0
    instances: int = 0


@dataclass(frozen=True)
class Floor:
    """The least that something could cost here and now.

    @ivar name: what it is
    @ivar measure: its figure, in the unit of the row; gets what the row's measurement found
    """

    name: str
    measure: Callable[[Place, Mapping[str, float]], float]


def Beside(name: str, key: str) -> Floor:
    """A floor that the measurement found itself, in turn with the rest: both met the same noise."""
    return Floor(name, lambda _, found: found[key])


#: Figures that are found together, by key.
Measure = Callable[["Place", "Setting | None"], Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """A figure, how to find it, and what it is compared with.

    @ivar target: None = there is none; C{at_least}: the figure is better the greater it is
    @ivar key: which of the measurement's figures
    @ivar fresh: it wants daemons that did little before
    """

    name: str
    unit: str
    target: float | None
    measure: Measure
    key: str
    floor: Floor
    setting: Setting | None = None
    at_least: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a row; C{error} if there is no figure."""

    row: Row
    value: float = 0.0
    floor: float = 0.0
    error: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the cost of the floor; None if that was nothing."""
        over, under = (self.floor, self.value) if self.row.at_least else (self.value, self.floor)
        return over / under if under else None

    @property
    def met(self) -> bool | None:
        """Is the target met? None if there is none."""
        if self.row.target is None:
            return None
        if self.row.at_least:
            return self.value >= self.row.target
        return self.value <= self.row.target


@dataclass(frozen=True)
class Machine:
    """Where and when the figures were found."""

    date: str
    cpu: str
    cores: int
    kernel: str
    python: str
    file_system: str
    load_before: str
    load_after: str = ""
    commit: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def FormatFigure(value: float) -> str:
    """Three digits that count, but no fraction of thousands."""
    if value >= 1000:
        return f"{value:,.0f}"
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}"


def FormatTarget(row: Row) -> str:
    """With its direction."""
    if row.target is None:
        return "-"
    text = f"{row.target:,.0f}" if row.target >= 1000 else f"{row.target:g}"
    return f"{'≥' if row.at_least else '≤'} {text} {row.unit}"


HEADER = ("what", "target", "found", "met", "floor", "which floor", "x floor")


def FormatRow(result: Result) -> list[str]:
    """The cells."""
    row = result.row
    if result.error:
        return [row.name, FormatTarget(row), f"failed: {result.error}", "no", "-", "-", "-"]
    met = {None: "-", True: "yes", False: "**no**"}[result.met]
    ratio = result.ratio
    return [
        row.name,
        FormatTarget(row),
        f"{FormatFigure(result.value)} {row.unit}".strip(),
        met,
        f"{FormatFigure(result.floor)} {row.unit}".strip(),
        row.floor.name,
        "-" if ratio is None else FormatFigure(ratio),
    ]


def FormatTable(results: Iterable[Result]) -> str:
    """As Markdown, in columns that can also be read as they are."""
    rows = [list(HEADER), *(FormatRow(result) for result in results)]
    rows = [[cell.replace("|", "/").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {2, 4, 6}

    def _Line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 1) + (":" if i in right else "-") for i, width in enumerate(widths)
    )
    return "\n".join([_Line(rows[0]), f"|{rule}|", *map(_Line, rows[1:])]) + "\n"


def FormatMachine(machine: Machine) -> str:
    """As a list."""
    lines = [
        f"date: {machine.date}" + (f", commit {machine.commit}" if machine.commit else ""),
        f"machine: {machine.cpu}, {machine.cores} cores, {machine.kernel}, {machine.python}",
        f"data on: {machine.file_system}",
        f"load before: {machine.load_before}"
        + (f"; after: {machine.load_after}" if machine.load_after else ""),
        *machine.notes,
    ]
    return "".join(f"- {line}\n" for line in lines)


def FormatPage(machine: Machine, results: Sequence[Result]) -> str:
    """The page that is kept."""
    missed = sum(bool(result.error) or result.met is False for result in results)
    return (
        "# What it costs\n\n"
        "Written by `test/bench/run --save`; do not edit. Targets are for 2 cores. A floor is\n"
        "what the machine asked for the same bytes or the same round trip in the same run; the\n"
        "last column is how many times that the figure costs. Nothing is asserted: who else uses\n"
        "the machine shows.\n"
        "\n"
        f"{FormatMachine(machine)}\n{FormatTable(results)}\n"
        f"{missed} of {len(results)} rows miss their target.\n"
    )


def _ReadLines(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as fobj:
        return fobj.read().splitlines()


def FileSystemOf(path: str) -> str:
    """Type and device of the file system with this path."""
    path = os.path.realpath(path)
    best = ("", "?", "?")
    for line in _ReadLines("/proc/mounts"):
        device, point, kind = line.split()[:3]
        # The last one of equal length covers those before it.
        if len(point) >= len(best[0]) and (path + "/").startswith(point.rstrip("/") + "/"):
            best = (point, kind, device)
    return f"{best[1]} on {best[2]}"


def FormatLoad() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def DescribeMachine(directory: str) -> Machine:
    """This one, now, with its data in that directory."""
    models = [line for line in _ReadLines("/proc/cpuinfo") if re.match("model name|Model", line)]
    return Machine(
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        cpu=models[0].split(":", 1)[1].strip() if models else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"Python {platform.python_version()}",
        file_system=FileSystemOf(directory),
        load_before=FormatLoad(),
    )
