#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints, requirement row by requirement row, which test shows it, and which rows none does."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Collector:
    """A pytest plugin that notes the rows of every collected test."""

    def __init__(self):
        self.shown = {}

    def pytest_collection_finish(self, session):
        for item in session.items:
            for mark in item.iter_markers("rows"):
                for row in mark.args:
                    name = item.nodeid.split("::", 1)[-1].split("[")[0]
                    names = self.shown.setdefault(row, [])
                    if name not in names:
                        names.append(name)


def main():
    try:
        import pytest
    except ImportError:
        sys.exit("rows: python3-pytest is missing: run ./dev build once")
    sys.path.insert(0, os.path.join(ROOT, "tests", "system"))
    sys.dont_write_bytecode = True
    collector = Collector()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        kept, sys.stdout = sys.stdout, nowhere
        try:
            status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider",
                                  os.path.join(ROOT, "tests", "system")], plugins=[collector])
        finally:
            sys.stdout = kept
    if status != 0:
        return subprocess.call([sys.executable, "-m", "pytest", "--collect-only", "-q",
                                os.path.join(ROOT, "tests", "system")]) or 1
    from conftest import known_rows
    rows = known_rows()
    for row in rows:
        print(f"{row:4} {', '.join(collector.shown.get(row, ['- (no test yet)']))}")
    print(f"{sum(row in collector.shown for row in rows)} of {len(rows)} rows have a test;"
          " a row with one may still be incomplete: docs/requirements.md says how far it is")
    return 0


if __name__ == "__main__":
    sys.exit(main())
