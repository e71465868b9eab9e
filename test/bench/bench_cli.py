#!/usr/bin/env python3
"""What a command costs: a listing and a job on a virtual cluster, beside the interpreter alone.

usage: bench_cli.py [RUNS]    (in the tree, with the virtual environment's python)

Prints a table in the form that is kept in doc/benchmarks.md.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "component"))

from vc import CleanEnvironment, Cluster  # noqa: E402

JOB = """
import time
from ganeti import luxi, opcodes
client = luxi.Client()
times = []
for _ in range(RUNS):
    start = time.perf_counter()
    op = opcodes.OpTestDelay(duration=0, on_master=False, on_nodes=[])
    job, previous = client.SubmitJob([op]), None
    while previous != ["success"]:
        previous, _ = client.WaitForJobChange(job, ["status"], previous, None)
    times.append(time.perf_counter() - start)
times.sort()
print(times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000)
"""


def Measure(argv, env, runs):
    """Median wall time of a command in milliseconds."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1000


def Main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    floor = Measure([sys.executable, "-c", "pass"], CleanEnvironment(), runs)
    print("| what | ms | times the floor |")
    print("|---|---|---|")
    print(f"| python3 -c pass (the floor of a command) | {floor:.0f} | 1.0 |")
    for nodes in (1, 3):
        with tempfile.TemporaryDirectory(prefix="vc", dir="/tmp") as directory:
            cluster = Cluster(directory)
            try:
                result = cluster.Vcluster("up", f"--nodes={nodes}")
                if result.code:
                    sys.exit(result.err)
                if nodes == 1:
                    for argv in (["gnt-instance", "list"], ["gnt-cluster", "version"]):
                        found = Measure(argv, cluster.env, runs)
                        print(f"| {' '.join(argv)} | {found:.0f} | {found / floor:.1f} |")
                code = JOB.replace("RUNS", str(runs * 20))
                median, worst = map(float, cluster.Ok(sys.executable, "-c", code).split())
                where = f"{nodes} node{'s' if nodes > 1 else ''}"
                print(f"| no-op job, submit to success, {where}: p50 / p99 |", end="")
                print(f" {median:.1f} / {worst:.1f} | - |")
            finally:
                cluster.Vcluster("down")
                os.makedirs(directory, exist_ok=True)


if __name__ == "__main__":
    Main()
