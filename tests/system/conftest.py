# SPDX-License-Identifier: Apache-2.0
"""What every system test shares.

A system test drives the built programs as a user would, on real parts, and says with
`@pytest.mark.rows("N2", …)` which requirement rows (docs/requirements.md) it shows.
"""

import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "build", "bin")


def known_rows():
    with open(os.path.join(ROOT, "docs", "requirements.md"), encoding="utf-8") as text:
        return re.findall(r"^\| ([NRSMP]\d+) \|", text.read(), re.M)


def pytest_addoption(parser):
    parser.addoption("--row", help="only tests that show this requirement row")
    parser.addoption("--soak", action="store_true", help="the full repetition counts")


def pytest_configure(config):
    config.addinivalue_line("markers", "rows(*names): requirement rows that the test shows")


def rows_of(item):
    return [row for mark in item.iter_markers("rows") for row in mark.args]


def pytest_collection_modifyitems(config, items):
    known = set(known_rows())
    for item in items:
        rows = rows_of(item)
        if not rows or not set(rows) <= known:
            raise pytest.UsageError(f"{item.nodeid}: must name existing requirement rows: {rows}")
    wanted = config.getoption("--row")
    if wanted and wanted not in known:
        raise pytest.UsageError(f"no requirement row {wanted}")
    if wanted:
        items[:] = [item for item in items if wanted in rows_of(item)]


def pytest_report_header(config):
    return "full repetition counts" if config.getoption("--soak") else "a twentieth of the counts"


@pytest.fixture
def repeat(request):
    """repeat(n): the full count n with --soak, else a twentieth of it; both are printed."""
    def count(full):
        reached = full if request.config.getoption("--soak") else max(full // 20, 1)
        print(f"{request.node.name}: {reached} of {full} repetitions")
        return reached
    return count


class Sosie:
    """The command-line tool with a state folder of its own."""

    def __init__(self, state):
        self.state = state
        self.environment = dict(os.environ, SOSIE_STATE_DIR=str(state))

    def start(self, *arguments, **options):
        options.setdefault("env", self.environment)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([os.path.join(BIN, "sosie"), *map(str, arguments)], **options)

    def run(self, *arguments, status=0, timeout=60, **options):
        """Runs to the end, checks the exit status (None: any), returns the process's result."""
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"sosie {arguments} hung: {out!r} {err!r}") from None
        if status is not None:
            assert process.returncode == status, (arguments, process.returncode, out, err)
        return subprocess.CompletedProcess(arguments, process.returncode,
                                           (out or b"").decode(errors="replace"),
                                           (err or b"").decode(errors="replace"))


@pytest.fixture
def sosie(tmp_path):
    return Sosie(tmp_path / "state")
