"""Measure what the heart of the suite costs, beside what the machine asks at least.

Prints a table in Markdown: each figure, its target, and a floor that was measured in the same run.
Daemons run in virtual clusters in a temporary directory, which must be on a disk.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
if __name__ == "__main__":
    # These modules are the package "bench".
    sys.path[0] = os.path.dirname(HERE)

from bench import place as bench_place  # noqa: E402
from bench import (  # noqa: E402
    rows_calls,
    rows_config,
    rows_daemons,
    rows_guests,
    rows_instances,
    rows_jobs,
    rows_locking,
    rows_migration,
    rows_nodes,
    table,
)

RESULTS = os.path.join(HERE, "RESULTS.md")

#: Every row, in the order of the table.
ROWS: list[table.Row] = [
    *rows_jobs.ROWS,
    *rows_locking.ROWS,
    *rows_config.ROWS,
    *rows_daemons.ROWS,
    *rows_calls.ROWS,
    *rows_instances.ROWS,
    *rows_guests.ROWS,
    *rows_nodes.ROWS,
    *rows_migration.ROWS,
]


def InOrder(rows: Sequence[table.Row]) -> list[table.Row]:
    """In the order in which they are measured: those of one cluster together."""
    return sorted(rows, key=lambda row: (row.setting or table.Setting(0), not row.fresh))


class Run:
    """Measures rows; each measurement is done once, for all rows that it has figures for."""

    def __init__(self, place: bench_place.Place) -> None:
        self._place = place
        self._start = time.monotonic()
        self._found: dict[Any, Mapping[str, float] | Exception] = {}
        self._floors: dict[Any, float] = {}

    def Tell(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:5.0f}s] {text}", file=sys.stderr, flush=True)

    def _Find(self, row: table.Row) -> Mapping[str, float]:
        key = (row.measure, row.setting)
        if key not in self._found:
            try:
                self._found[key] = row.measure(self._place, row.setting)
            except Exception as err:  # noqa: BLE001 - the other rows can be measured all the same
                self._found[key] = err
        found = self._found[key]
        if isinstance(found, Exception):
            raise found
        return found

    def Measure(self, row: table.Row) -> table.Result:
        """One row."""
        try:
            found = self._Find(row)
            key = (row.floor, row.measure, row.setting)
            if key not in self._floors:
                self._floors[key] = row.floor.measure(self._place, found)
            floor = self._floors[key]
        except Exception as err:  # noqa: BLE001 - the other rows can be measured all the same
            text = " ".join(str(err).split()) or type(err).__name__
            self.Tell(f"{row.name}: failed: {text}")
            return table.Result(row, error=text if len(text) < 100 else f"...{text[-97:]}")
        finally:
            self._place.Sweep()
        result = table.Result(row, found[row.key], floor)
        self.Tell(f"{row.name}: {table.FormatFigure(result.value)} {row.unit}")
        return result


def _Commit() -> str:
    argv = ["git", "-C", HERE, "-c", f"safe.directory={os.path.dirname(os.path.dirname(HERE))}"]
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [*argv, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()
    return ""


def _Interrupt(number: int, frame: object) -> None:
    # Once is enough: what is being removed must be removed to the end.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _Child(module: str, function: str, arguments: str) -> int:
    result = getattr(importlib.import_module(f"bench.{module}"), function)(*json.loads(arguments))
    print(json.dumps(result))
    return 0


def _Parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test/bench/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="show the rows, measure nothing")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose name has this expression")
    parser.add_argument("--quick", action="store_true", help="few rounds: figures are rough")
    parser.add_argument("--save", action="store_true", help=f"write the page {RESULTS}, too")
    parser.add_argument(
        "--dir", default="/var/tmp", help="where the data goes meanwhile (default: %(default)s)"
    )
    return parser


def Main(argv: Sequence[str]) -> int:
    """Entry point; exit code 1 if a row has no figure, 130 after an interrupt."""
    if argv[:1] == ["--child"]:
        return _Child(*argv[1:])
    parser = _Parser()
    opts = parser.parse_args(argv)
    if opts.save and (opts.only or opts.quick):
        parser.error("--save is for the whole table, without --only and --quick")
    try:
        pattern = re.compile(opts.only or "", re.IGNORECASE)
    except re.error as err:
        parser.error(f"--only {opts.only!r} is no regular expression: {err}")
    rows = [row for row in ROWS if pattern.search(row.name)]
    if not rows:
        parser.error(f"no row has {opts.only!r} in its name; see --list")
    if opts.list:
        for row in rows:
            print(f"{row.name}  ({table.FormatTarget(row)}; floor: {row.floor.name})")
        return 0
    if not bench_place.IsDisk(table.FileSystemOf(opts.dir)):
        parser.error(f"{opts.dir} is not on a disk but on {table.FileSystemOf(opts.dir)}: --dir")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # As under nohup.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _Interrupt)
    machine = table.DescribeMachine(opts.dir)
    place = bench_place.Place(opts.dir, opts.quick)
    run = Run(place)
    place.progress = run.Tell
    try:
        results = {row.name: run.Measure(row) for row in InOrder(rows)}
    except KeyboardInterrupt:
        run.Tell("interrupted: everything is removed")
        return 130
    finally:
        place.Close()
    notes = ["quick: few rounds of few jobs, figures are rough"] if opts.quick else []
    machine = dataclasses.replace(
        machine, load_after=table.FormatLoad(), commit=_Commit(), notes=notes
    )
    ordered = [results[row.name] for row in rows]
    page = table.FormatPage(machine, ordered)
    print(page, end="")
    if opts.save:
        with open(RESULTS, "w", encoding="utf-8") as fobj:
            fobj.write(page)
    return 1 if any(result.error for result in ordered) else 0


if __name__ == "__main__":
    sys.exit(Main(sys.argv[1:]))
