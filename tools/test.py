#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every test and says how many passed and failed.

Unit tests are cmocka programs: each is run plain, with address and undefined-behaviour
sanitizers, and, those named in THREADED, with the thread sanitizer. System tests are pytest.
A test program that ends without a count, or a folder without one, is a failure: a runner that
finds nothing must not report success.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNIT_TIME_LIMIT = 300
# Unit tests that start threads: run under ThreadSanitizer too.
THREADED = {"values"}

SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


class Count:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0


def run_unit_program(path, only, count):
    """Runs one cmocka program and adds its cases to the count."""
    environment = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", **SANITIZER_ENVIRONMENT)
    if only:
        environment["CMOCKA_TEST_FILTER"] = f"*{only}*"
    started = time.monotonic()
    try:
        done = subprocess.run([path], env=environment, capture_output=True, text=True,
                              errors="replace", timeout=UNIT_TIME_LIMIT, check=False)
        output, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as late:
        output, status = str(late), -1
    passed = len(re.findall(r"^ok \d+", output, re.M))
    failed = len(re.findall(r"^not ok \d+", output, re.M))
    skipped = len(re.findall(r"^ok \d+.*# SKIP", output, re.M))
    if (status != 0 and failed == 0) or (passed + failed == 0 and not only):
        failed += 1  # died half-way, or ran nothing
    count.passed += passed - skipped
    count.failed += failed
    count.skipped += skipped
    verdict = "ok" if failed == 0 else "FAILED"
    print(f"{verdict:7}{os.path.relpath(path, ROOT):34} {passed:4} cases"
          f" {time.monotonic() - started:6.1f} s", flush=True)
    if failed:
        print(output)


def run_units(only, count):
    for build in ("build", "build-asan", "build-tsan"):
        folder = os.path.join(ROOT, build, "tests", "unit")
        names = sorted(n for n in os.listdir(folder) if n.startswith("test-") and "." not in n)
        if not names:
            print(f"FAILED no unit tests in {folder}")
            count.failed += 1
        for name in names:
            if build == "build-tsan" and name[len("test-"):] not in THREADED:
                continue
            run_unit_program(os.path.join(folder, name), only, count)


def run_system(arguments, count):
    with tempfile.TemporaryDirectory() as scratch:
        report = os.path.join(scratch, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                   f"--junitxml={report}", os.path.join(ROOT, "tests", "system")]
        if arguments.row:
            command += ["--row", arguments.row]
        if arguments.only:
            command += ["-k", arguments.only]
        if arguments.soak:
            command += ["--soak"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        if not os.path.exists(report):
            count.failed += 1
            return
        total = failed = skipped = 0
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
        if status not in (0, 5) and failed == 0:
            failed += 1
        count.passed += max(total - failed - skipped, 0)
        count.failed += failed
        count.skipped += skipped


def main():
    parser = argparse.ArgumentParser(prog="./dev test")
    parser.add_argument("--row", help="only tests that show this requirement row")
    parser.add_argument("--only", help="only tests whose name contains this")
    parser.add_argument("--unit", action="store_true", help="only unit tests")
    parser.add_argument("--system", action="store_true", help="only system tests")
    parser.add_argument("--soak", action="store_true", help="the full repetition counts")
    arguments = parser.parse_args()
    count = Count()
    if not arguments.system and not arguments.row:
        run_units(arguments.only, count)
    if not arguments.unit:
        run_system(arguments, count)
    if count.passed + count.failed == 0:
        print("no test matches")
        count.failed += 1
    skipped = f", {count.skipped} skipped" if count.skipped else ""
    print(f"{count.passed} passed, {count.failed} failed{skipped}")
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
