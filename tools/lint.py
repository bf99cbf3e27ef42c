#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The static gates: layout, floors, clang-tidy, cppcheck.

Each gate says how many files it read, and one that read none fails.
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Which folder of src/ may include which others, besides itself: ARCHITECTURE.md, "Floors".
FLOORS = {
    "base": [],
    "core/platform": ["base"],
    "core/net": ["base"],
    "core/values": ["base"],
    "io": ["base"],
    "store": ["base"],
    "sosied": ["base", "core/", "io", "store"],
    "hostd": ["base", "core/", "io", "lib/values"],
    "valued": ["base", "core/values", "io", "lib/values"],
    "vm": ["base", "io"],
    "switch": ["base", "core/", "io"],
    "lib/values": ["base", "core/values"],
    "guest": ["base", "lib/"],
    "cli": ["base", "core/values", "io", "lib/"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def tracked(*patterns):
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns],
                             cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listing.splitlines() if os.path.exists(os.path.join(ROOT, name))]


def floor_of(path):
    """The longest key of FLOORS that the path (relative to src/) lies under."""
    keys = [key for key in FLOORS if path.startswith(key + "/")]
    return max(keys, key=len) if keys else None


def check_floors():
    files = tracked("src/*.c", "src/*.h")
    bad = []
    for name in files:
        inside = name[len("src/"):]
        floor = floor_of(inside)
        if floor is None:
            bad.append(f"{name}: its folder is on no floor: add it to FLOORS in tools/lint.py")
            continue
        with open(os.path.join(ROOT, name), encoding="utf-8") as source:
            text = source.read()
        for target in INCLUDE.findall(text):
            if "/" not in target or target.startswith("sosie/"):
                continue
            other = floor_of(target)
            allowed = [floor, *FLOORS[floor]]
            if other is None or not any(
                    other == a or (a.endswith("/") and other.startswith(a)) for a in allowed):
                bad.append(f"{name}: {floor} may not include {target}")
    return files, bad


def check_format():
    files = tracked("*.c", "*.h")
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    bad = [line for line in done.stderr.splitlines() if "error:" in line]
    if done.returncode and not bad:
        bad = [done.stderr.strip()]
    return files, bad


def compiled():
    """The C files that are part of the build: what a static analyser can understand."""
    with open(os.path.join(ROOT, "build", "compile_commands.json"), encoding="utf-8") as database:
        entries = json.load(database)
    names = {os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
             for entry in entries if entry["file"].endswith(".c")}
    return sorted(names)


def tidy_one(name):
    done = subprocess.run(["clang-tidy", "-p", "build-clang", "--quiet", "--warnings-as-errors=*",
                           name], cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        return lines or [f"{name}: clang-tidy failed: {done.stderr.strip()}"]
    return []


def check_tidy():
    files = compiled()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        bad = [line for lines in pool.map(tidy_one, files) for line in lines]
    return files, bad


def check_cppcheck():
    files = compiled()
    done = subprocess.run(
        ["cppcheck", "--quiet", "--enable=warning,performance,portability", "--inline-suppr",
         "--error-exitcode=1", "--std=c11", "--suppress=missingIncludeSystem", "--max-configs=1",
         f"-j{os.cpu_count()}", "-D__x86_64__", "-D_GNU_SOURCE", "-Isrc", "-Iinclude",
         "-Itests/unit", "--suppressions-list=tools/cppcheck-suppressions.txt", *files],
        cwd=ROOT, capture_output=True, text=True, check=False)
    bad = done.stderr.splitlines() if done.returncode else []
    return files, bad


def check_tracked_is_compiled():
    """Every C file is part of the build, or the analysers above would not see it."""
    files = tracked("*.c")
    known = set(compiled())
    return files, [f"{name}: in no meson.build" for name in files if name not in known]


GATES = [
    ("floors", check_floors),
    ("clang-format", check_format),
    ("built", check_tracked_is_compiled),
    ("clang-tidy", check_tidy),
    ("cppcheck", check_cppcheck),
]


def main():
    failed = False
    for name, gate in GATES:
        files, bad = gate()
        if not files:
            bad = ["read no file"]
        print(f"{'FAILED' if bad else 'ok':7}{name:14} {len(files)} files read", flush=True)
        for line in bad:
            print("    " + line)
        failed = failed or bool(bad)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
