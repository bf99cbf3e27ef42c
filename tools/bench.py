#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures, always with the peer in the same run: what counts is the ratio.

usage: ./dev bench [NAME ...]

Each figure is the median of ROUNDS rounds in which Sosie and its peer take turns. A table goes to
standard output, the same as JSON to build/bench/NAME.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SOSIE = os.path.join(ROOT, "build", "bin", "sosie")
ROUNDS = 7
COUNT = 1_000_000


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def bench_values():
    """V1, V2: a value through the preload library against the system's own."""
    program = os.path.join(ROOT, "build", "bench", "bench-values")
    rows = []
    for row, kind, what, peer, targets in (
            ("V1", "random", "8 random bytes", "getrandom(2)", (0.10, 0.05)),
            ("V2", "clock", "a clock reading", "clock_gettime() in the vDSO", (2.0, 0.5))):
        times = {"peer": [], "first": [], "duplicate": []}
        with tempfile.TemporaryDirectory() as state:
            environment = dict(os.environ, SOSIE_STATE_DIR=state)
            for number in range(ROUNDS):
                command = [program, kind, str(COUNT)]
                member = [SOSIE, "run", "-g", f"g{number}", "--", *command]
                times["peer"].append(float(run(command, environment)))
                times["first"].append(float(run(member, environment)))
                times["duplicate"].append(float(run(member, environment)))
        for role, target in zip(("first", "duplicate"), targets):
            ratios = [ours / peers for ours, peers in zip(times[role], times["peer"])]
            rows.append({
                "id": row, "what": f"{what}, {role} asker", "peer": peer,
                "ns": statistics.median(times[role]),
                "peer_ns": statistics.median(times["peer"]),
                "ratio": statistics.median(ratios), "ratio_min": min(ratios),
                "ratio_max": max(ratios), "target": target,
                "met": statistics.median(ratios) <= target})
    return rows


BENCHES = {"values": bench_values}


def main():
    names = sys.argv[1:] or list(BENCHES)
    for name in names:
        if name not in BENCHES:
            sys.exit(f"bench: there is no '{name}'; there are: {', '.join(BENCHES)}")
    for name in names:
        rows = BENCHES[name]()
        print(f"{name}: medians of {ROUNDS} rounds, {COUNT:,} requests each")
        print(f"{'':4}{'what':34}{'ns':>9}{'peer ns':>10}  {'ratio (min-max)':24}{'target':>8}")
        for row in rows:
            spread = f"{row['ratio']:.3f} ({row['ratio_min']:.3f}-{row['ratio_max']:.3f})"
            print(f"{row['id']:4}{row['what']:34}{row['ns']:9.2f}{row['peer_ns']:10.2f}  "
                  f"{spread:24}{row['target']:8.2f}  {'met' if row['met'] else 'MISSED'}"
                  f"  against {row['peer']}")
        folder = os.path.join(ROOT, "build", "bench")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as out:
            json.dump({"bench": name, "rounds": ROUNDS, "count": COUNT, "rows": rows}, out, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
