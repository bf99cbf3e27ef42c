# SPDX-License-Identifier: Apache-2.0
"""The test runner itself: what fails must make it fail, and finding nothing is a failure too."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

PASSING = "#!/bin/sh\necho 'ok 1 - works'\n"
FAILING = "#!/bin/sh\necho 'ok 1 - works'\necho 'not ok 2 - broken'\nexit 1\n"
DYING = "#!/bin/sh\necho 'ok 1 - works'\nkill -SEGV $$\n"
SILENT = "#!/bin/sh\nexit 0\n"
GOOD = "import pytest\n@pytest.mark.rows('N1')\ndef test_good():\n    assert 1 + 1 == 2\n"
BROKEN = "import pytest\n@pytest.mark.rows('N1')\ndef test_broken():\n    assert 1 + 1 == 3\n"
ROWLESS = "def test_without_a_row():\n    pass\n"


def run(folder, unit, system):
    """Runs the runner over a tree with one unit program and one system test file."""
    for build in ("build", "build-asan", "build-tsan"):
        units = folder / build / "tests" / "unit"
        units.mkdir(parents=True)
        (units / "test-x").write_text(unit)
        (units / "test-x").chmod(0o755)
    for name in ("tools/test.py", "tests/system/conftest.py", "docs/requirements.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(ROOT, name), folder / name)
    (folder / "tests" / "system" / "test_it.py").write_text(system)
    done = subprocess.run([sys.executable, folder / "tools" / "test.py"], capture_output=True,
                          text=True, timeout=120, check=False)
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.rows("P8")
@pytest.mark.parametrize("unit, system, status, last", [
    (PASSING, GOOD, 0, "3 passed, 0 failed"),
    (FAILING, GOOD, 1, "3 passed, 2 failed"),
    (DYING, GOOD, 1, "3 passed, 2 failed"),
    (SILENT, GOOD, 1, "1 passed, 2 failed"),
    (PASSING, BROKEN, 1, "2 passed, 1 failed"),
    (PASSING, ROWLESS, 1, "2 passed, 1 failed"),
], ids=["all-good", "unit-fails", "unit-dies", "unit-is-silent", "system-fails", "row-missing"])
def test_a_broken_assertion_fails_the_run(tmp_path, unit, system, status, last):
    assert run(tmp_path, unit, system) == (status, last)
