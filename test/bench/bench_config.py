#!/usr/bin/env python3
"""What a change of the configuration costs, against the floor: writing and syncing the same bytes.

    python test/bench/bench_config.py [--sizes 100,1000,10000] [--rounds N] [--dir DIR]

For each number of instances:

- C{load}: open the file;
- C{first write}: every object is serialised once;
- C{no history}: MarkInstanceUp and -Down in turn, one thread, by a writer that keeps no log;
- C{commit}: the same with the history, as the master does it;
- C{floor}: write, sync and rename of a file of that size, sync of the directory;
- C{memory}: the commit without the disk (what is left is verifying, serialising, joining);
- C{added}: what the history adds to a commit, and C{in memory}, without the disk;
- C{16 threads}: seconds a commit when 16 threads commit at once, and how many shared a write;
- C{get one}, C{get all}: copies handed out;
- C{minor}: AllocateDRBDMinor.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

_MAX_DRBD = 3000


def _Median(fn: Any, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _Build(count: int) -> bytes:
    from ganeti import objects, serializer
    from ganeti.config import fake
    from ganeti.runtime import fake as runtime_fake

    document = fake.NewConfigData(runtime_fake.NewRuntime(), nodes=20, candidates=10)
    serial = 0
    for number in range(count):
        pair = fake.NodeName(number % 20 + 1), fake.NodeName((number + 7) % 20 + 1)
        name = f"inst{number}.example.com"
        minors = (number // 20 * 2, number // 20 * 2 + 1)
        drbd = fake.NewDrbdDisk(pair, 11000 + number, minors, f"secret{number}", name)
        instance = fake.NewInstance(
            name,
            pair[0],
            uuid=f"uuid-{number}",
            serial_no=1,
            disk_template="drbd",
            nics=[
                objects.NIC(
                    mac=f"aa:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
                    nicparams={},
                    uuid=f"nic-{number}",
                )
            ],
            # There are ports for some thousand DRBD disks; the others have two volumes.
            disks=[drbd] if number < _MAX_DRBD else drbd.children,
        ).ToDict()
        for disk in instance["disks"]:
            for part in (disk, *disk.get("children", ())):
                serial += 1
                part["uuid"] = f"disk-{serial}"
        document["instances"][name] = instance
    document["cluster"]["highest_used_port"] = 11000 + min(count, _MAX_DRBD)
    return serializer.Dump(document, indent=True).encode("utf-8")


def _Medians(fns: Sequence[Any], rounds: int) -> list[float]:
    """Of several actions in turn, so that all meet the same noise."""
    times: list[list[float]] = [[] for _ in fns]
    for _ in range(rounds):
        for fn, seen in zip(fns, times, strict=True):
            start = time.perf_counter()
            fn()
            seen.append(time.perf_counter() - start)
    return [statistics.median(seen) for seen in times]


class _Flip:
    """Marks an instance up and down in turn."""

    def __init__(self, writer: Any, name: str) -> None:
        self._writer = writer
        self._name = name
        self._up = False

    def __call__(self) -> None:
        self._up = not self._up
        mark = self._writer.MarkInstanceUp if self._up else self._writer.MarkInstanceDown
        with self._writer.ActingFor("1234", "OP_INSTANCE_STARTUP"):
            mark(self._name)


def Measure(count: int, rounds: int, directory: str) -> dict[str, str]:
    """All figures for one number of instances."""
    from ganeti import config
    from ganeti.runtime import DEFAULT
    from ganeti.runtime import fake as runtime_fake

    content = _Build(count)
    path = os.path.join(directory, "config.data")
    DEFAULT.files.write(path, content)

    start = time.perf_counter()
    cfg = config.ConfigWriter(path, offline=True, history_file=os.path.join(directory, "history"))
    load = time.perf_counter() - start
    start = time.perf_counter()
    cfg.AllocatePort()
    first = time.perf_counter() - start

    name = f"inst{count // 2}.example.com"
    bare_path = os.path.join(directory, "bare.data")
    DEFAULT.files.write(bare_path, content)
    bare = config.ConfigWriter(bare_path, offline=True)
    bare.AllocatePort()
    size = os.path.getsize(path)
    floor_path = os.path.join(directory, "floor")
    commit, without, floor = _Medians(
        [
            _Flip(cfg, name),
            _Flip(bare, name),
            lambda: DEFAULT.files.write(floor_path, content),
        ],
        rounds,
    )

    in_memory = []
    for log in ("history", None):
        rt = runtime_fake.NewRuntime()
        rt.files.write(path, content)
        writer = config.ConfigWriter(path, offline=True, runtime=rt, history_file=log)
        writer.AllocatePort()
        in_memory.append(_Flip(writer, name))
    memory, memory_without = _Medians(in_memory, rounds)

    before = cfg.GetStatistics()
    per_thread = max(2, rounds // 4)

    def _Ports() -> None:
        for _ in range(per_thread):
            cfg.AddTcpUdpPort(cfg.AllocatePort())

    threads = [threading.Thread(target=_Ports) for _ in range(16)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    after = cfg.GetStatistics()
    commits = after["commits"] - before["commits"]
    shared = commits / max(1, after["writes"] - before["writes"])

    get_one = _Median(lambda: cfg.GetInstanceInfo(name), rounds)
    cfg.GetAllInstancesInfo()
    get_all = _Median(cfg.GetAllInstancesInfo, max(3, rounds // 10))
    minor = _Median(lambda: cfg.AllocateDRBDMinor(["node1.example.com"], "x"), 3)
    cfg.ReleaseDRBDMinors("x")
    return {
        "instances": str(count),
        "size": f"{size / 1e6:.1f} MB",
        "load": f"{load * 1e3:.0f} ms",
        "first write": f"{first * 1e3:.0f} ms",
        "no history": f"{without * 1e3:.2f} ms",
        "commit": f"{commit * 1e3:.2f} ms",
        "floor": f"{floor * 1e3:.2f} ms",
        "ratio": f"{commit / floor:.2f}",
        "memory": f"{memory * 1e3:.2f} ms",
        "added": f"{(commit - without) * 1e3:.2f} ms ({(commit / without - 1) * 100:.0f} %)",
        "in memory": f"{(memory - memory_without) * 1e3:.2f} ms",
        "16 threads": f"{elapsed / commits * 1e3:.2f} ms ({shared:.1f} a write)",
        "get one": f"{get_one * 1e6:.0f} us",
        "get all": f"{get_all * 1e3:.1f} ms",
        "minor": f"{minor * 1e6:.0f} us",
    }


def Main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dir", default=None, help="where to write (default: a temporary place)")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} CPUs")
    rows = []
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory(dir=options.dir) as directory:
            rows.append(Measure(int(size), options.rounds, directory))
    for key in rows[0]:
        print(f"{key:12}" + "".join(f"{row[key]:>24}" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(Main())
