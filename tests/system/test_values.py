# SPDX-License-Identifier: Apache-2.0
"""Values between processes on one host, with no daemon: `sosie run`."""

import csv
import fcntl
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import threading
import time

import pytest
from conftest import ROOT

PROGRAMS = os.path.join(ROOT, "build", "tests", "programs")
PYTHON = "/usr/bin/python3"

# Unmodified programs, and what they draw on beyond getrandom().
COMMANDS = {
    "uuidgen": ["uuidgen"],
    "uuidgen-time": ["uuidgen", "-t"],
    "mktemp": ["mktemp", "-u"],
    "shuf": ["shuf", "-i", "1-1000"],
    "date": ["date", "+%N"],
    "openssl": ["openssl", "rand", "-hex", "32"],
    "sqlite3": ["sqlite3", ":memory:", "select hex(randomblob(16)), random()"],
    "perl": ["perl", "-e", 'print rand, " ", time, " $$"'],
    "perl-hash-order": ["perl", "-e", 'print join ",", keys %{{map {$_ => 1} 1..40}}'],
    "perl-fork": ["perl", "-e", 'if ($p = fork) { $w = wait; print "$p $w ", rand, " $$ ",'
                  ' getppid } else { print "$$ ", rand, " "; }'],
    "python": [PYTHON, "-c", "import uuid, random, secrets, time, datetime\n"
               "print(uuid.uuid1(), uuid.uuid4(), random.random(), secrets.token_hex(8),"
               " time.time_ns(), datetime.datetime.now(), hash('x'), object())"],
    "python-children": [PYTHON, "-c", "import os, subprocess\n"
                        "print(os.getpid(), os.getppid(), subprocess.check_output(['uuidgen']))\n"
                        "print(os.popen('date +%N').read()); os.system('uuidgen')"],
    "python-devices": [PYTHON, "-c", "import os\n"
                       "f = open('/dev/urandom', 'rb'); g = open('/dev/random', 'rb')\n"
                       "print(f.read(5), g.read(7), os.urandom(4), os.getrandom(3), f.read(9))"],
    "node": ["/usr/bin/nodejs", "-e", "console.log(require('crypto').randomUUID(), Math.random(),"
             " Date.now())"],
    "bash": ["bash", "-c", "echo $RANDOM $$ $(date +%N) $EPOCHREALTIME; (echo $BASHPID);"
             " head -c 8 /dev/urandom | od -An -tx1; uuidgen | cat"],
    "sh-devices": ["sh", "-c", "od -N8 -An -tx1 /dev/urandom; od -An -tx1 -N4 < /dev/random;"
                   " dd if=/dev/urandom bs=8 count=1 2>/dev/null | od -An -tx1"],
    "threads-and-children": [os.path.join(PROGRAMS, "threads")],
    "pool-of-named-tasks": [os.path.join(PROGRAMS, "lanes")],
}


@pytest.mark.rows("N1", "N2", "N7")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_copies_print_the_same_and_other_groups_others(sosie, command):
    first = sosie.run("run", "-g", "x", "--", *command).stdout
    second = sosie.run("run", "-g", "x", "--", *command).stdout
    other = sosie.run("run", "-g", "y", "--", *command).stdout
    assert first and first == second
    assert first != other
    group = json.loads(sosie.run("group", "show", "x", "--json").stdout)
    assert [member["diverged"] for member in group["members"]] == [None, None]
    assert group["members"][0]["made"] > 0
    assert group["members"][1]["made"] == 0, "the second copy asks for nothing of its own"


@pytest.mark.rows("N2", "N7")
def test_racing_threads_with_children_agree_every_time(sosie, repeat):
    command = [os.path.join(PROGRAMS, "threads")]
    first = sosie.run("run", "-g", "x", "--", *command).stdout
    for _ in range(max(repeat(100), 100)):
        assert sosie.run("run", "-g", "x", "--", *command).stdout == first


@pytest.mark.rows("N1", "N7")
def test_a_handler_never_gets_what_it_interrupted_gets(sosie):
    """A signal handler that draws inside a draw: all values unique, in each copy."""
    for _ in range(3):
        printed = sosie.run("run", "-g", "x", "--", os.path.join(PROGRAMS, "handlers")).stdout
        assert printed.endswith("unique\n")


def waits(stderr):
    return {name: float(seconds) for name, seconds in re.findall(r"(\S+) ([\d.]+)\n", stderr)}


@pytest.mark.rows("N7")
@pytest.mark.parametrize("offset", ["86400", "-1000"])
def test_a_copy_with_another_monotonic_clock_waits_as_long(sosie, offset):
    """Copies in time namespaces whose clocks are a day ahead, or behind, of the first one's."""
    if os.geteuid() != 0:
        pytest.skip("a time namespace needs root")
    if offset.startswith("-") and time.monotonic() < 1100:
        offset = "-" + str(max(int(time.monotonic()) - 60, 1))
    command = [os.path.join(PROGRAMS, "deadlines")]
    first = sosie.run("run", "-g", "x", "--", *command)
    moved = subprocess.run(
        ["unshare", "-T", "--monotonic", offset, "--boottime", offset,
         os.path.join(ROOT, "build", "bin", "sosie"), "run", "-g", "x", "--", *command],
        env=sosie.environment, capture_output=True, text=True, timeout=60, check=True)
    late = sosie.run("run", "-g", "x", "--", *command)
    assert first.stdout == moved.stdout == late.stdout
    for result in (first, moved, late):
        found = waits(result.stderr)
        assert len(found) == 9
        for name, seconds in found.items():
            # Neither none at all nor for ever: what a wrong clock would give. The bound above
            # is generous for a loaded machine; a day's difference is not in doubt.
            assert 0.15 < seconds < 2, (name, seconds)


@pytest.mark.rows("N7")
def test_python_sleeps_as_long_in_a_copy(sosie):
    """Python sleeps until a point on the monotonic clock that it has read before."""
    script = "import time; time.sleep(0.3); print(time.monotonic_ns(), time.time_ns())"
    command = ["run", "-g", "x", "--", PYTHON, "-c", script]
    first = sosie.run(*command).stdout
    started = time.monotonic()
    moved = subprocess.run(
        ["unshare", "-T", "--monotonic", "86400", os.path.join(ROOT, "build", "bin", "sosie"),
         *command], env=sosie.environment, capture_output=True, text=True, timeout=60, check=True)
    took = time.monotonic() - started
    assert moved.stdout == first
    assert 0.3 < took < 5


@pytest.mark.rows("N2", "N3")
def test_three_copies_started_together_agree(sosie, repeat):
    for run in range(repeat(1000)):
        copies = [sosie.start("run", "-g", f"x{run}", "--", os.path.join(PROGRAMS, "race"), "500")
                  for _ in range(3)]
        printed = [copy.communicate(timeout=60)[0] for copy in copies]
        assert [copy.returncode for copy in copies] == [0, 0, 0]
        assert printed[0] and printed[0] == printed[1] == printed[2]
        sosie.run("group", "remove", "--force", f"x{run}")


@pytest.mark.rows("N3", "N11")
def test_a_killed_copy_hinders_and_changes_nobody(sosie, repeat):
    """kill -9 at a random moment: the others end, agree, and began as the killed one did."""
    chance = random.Random(20260131)
    for run in range(repeat(1000)):
        group = f"x{run}"
        copies = [sosie.start("run", "-g", group, "--", os.path.join(PROGRAMS, "race"), "20000")
                  for _ in range(3)]
        timer = threading.Timer(chance.uniform(0, 0.03), copies[run % 3].kill)
        timer.start()
        printed = [copy.communicate(timeout=60)[0] for copy in copies]
        timer.join()
        killed = printed.pop(run % 3)
        assert printed[0] and printed[0] == printed[1]
        # What it had printed is how the others began; its last line may be torn.
        assert printed[0].startswith(killed[:killed.rfind(b"\n") + 1])
        sosie.run("group", "remove", "--force", group)


@pytest.mark.rows("N4")
def test_sixteen_members_and_a_late_one(sosie):
    command = ["run", "-g", "x", "--", os.path.join(PROGRAMS, "race"), "2000"]
    copies = [sosie.start(*command) for _ in range(16)]
    printed = {copy.communicate(timeout=60)[0].decode() for copy in copies}
    printed.add(sosie.run(*command).stdout)
    assert len(printed) == 1
    members = json.loads(sosie.run("group", "show", "x", "--json").stdout)["members"]
    assert len(members) == 17 and sum(member["values"] > 0 for member in members) == 17


AUDITED = """
import os, time
print(os.getrandom(16).hex())
print(time.clock_gettime_ns(time.CLOCK_REALTIME))
print(os.getpid())
print(os.getrandom(5).hex())
print(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
"""


@pytest.mark.rows("N1", "N9")
@pytest.mark.parametrize("audit", ["batch", "full"])
def test_the_log_agrees_with_what_the_members_printed(sosie, audit):
    sosie.run("group", "create", "x", "--audit", audit)
    before = time.time()
    printed = {name: sosie.run("run", "-g", "x", "-m", name, "--", PYTHON, "-c", AUDITED)
               .stdout.split() for name in ("a", "b")}
    after = time.time()
    assert printed["a"] == printed["b"]
    for name in ("a", "b"):
        rows = [json.loads(line) for line in
                sosie.run("group", "log", "x", "-m", name, "--json").stdout.splitlines()]
        assert {row["member"] for row in rows} == {name}
        values = {kind: [row["value"] for row in rows if row["kind"] == kind]
                  for kind in {row["kind"] for row in rows}}
        drawn = "".join(values["random"])
        first, realtime, pid, second, boottime = printed["a"]
        assert first + second in drawn
        assert realtime in values["clock.realtime"]
        assert values["pid"] == [pid]
        assert values["clock.boottime"] == [boottime]
        for row in rows:
            seconds = time.mktime(time.strptime(row["time"][:19], "%Y-%m-%dT%H:%M:%S"))
            assert before - 2 < seconds - time.timezone < after + 2
            if audit == "full" and row["kind"] not in ("pid",):
                assert row["uncertainty_ns"] == 0
        # The same as a table for spreadsheets.
        table = list(csv.DictReader(io.StringIO(
            sosie.run("group", "log", "x", "-m", name, "--csv").stdout)))
        assert [(row["kind"], row["ordinal"], row["value"]) for row in table] == \
               [(row["kind"], str(row["ordinal"]), row["value"]) for row in rows]


@pytest.mark.rows("N9")
def test_batches_are_at_most_ten_milliseconds(sosie):
    """While a recorder runs, almost every batch is that young; a late wake-up is stated."""
    sosie.run("run", "-g", "x", "--", PYTHON, "-c",
              "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end:"
              " time.sleep(0.001)")
    rows = [json.loads(line) for line in
            sosie.run("group", "log", "x", "-k", "clock.monotonic", "--json").stdout.splitlines()]
    late = sum(row["uncertainty_ns"] > 10_000_000 for row in rows)
    assert len(rows) > 100
    assert late < len(rows) / 2, f"{late} of {len(rows)} later than 10 ms"


@pytest.mark.rows("N9")
def test_a_torn_journal_is_mended(sosie):
    sosie.run("run", "-g", "x", "-m", "a", "--", "uuidgen")
    before = sosie.run("group", "log", "x", "--json").stdout.splitlines()
    folder = sosie.state / "groups" / "x"
    with open(folder / "recorder.lock", "rb") as lock, open(folder / "journal", "ab") as file:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the recorder has ended, as if it had crashed
        file.write(struct.pack("<II", 400, 12345) + b"torn")
    assert sosie.run("group", "log", "x", "--json").stdout.splitlines() == before
    sosie.run("run", "-g", "x", "-m", "b", "--", "uuidgen")
    after = sosie.run("group", "log", "x", "--json").stdout.splitlines()
    assert after[:len(before)] == before and len(after) == 2 * len(before)


@pytest.mark.rows("N10")
def test_a_copy_that_asks_in_another_order_is_found(sosie):
    script = ("import os, sys, time\nfor i in range(500):\n"
              " if sys.argv[1] == 'other' and i == 250: os.getrandom(8)\n"
              " os.getrandom(8); time.time_ns(); time.monotonic_ns()\n")
    for name, how in (("a", "same"), ("b", "same"), ("c", "other")):
        sosie.run("run", "-g", "x", "-m", name, "--", PYTHON, "-c", script, how)
    members = {member["name"]: member for member in
               json.loads(sosie.run("group", "show", "x", "--json").stdout)["members"]}
    assert members["a"]["diverged"] is None and members["b"]["diverged"] is None
    assert members["c"]["diverged"]["why"] == "order"
    assert members["c"]["diverged"]["lane"] == "python3"
    assert "DIVERGED" in sosie.run("group", "show", "x").stdout


@pytest.mark.rows("N2")
def test_reading_in_pieces_is_the_same_request(sosie):
    def draw(*sizes):
        script = "import os, sys\nfor n in sys.argv[1:]: sys.stdout.write(os.getrandom(int(n)).hex())"
        return sosie.run("run", "-g", "x", "--", PYTHON, "-c", script, *sizes).stdout
    whole = draw(4096)
    assert draw(*[4] * 1024) == whole
    assert draw(1, 479, 1, 480, 2655, 480) == whole
    members = json.loads(sosie.run("group", "show", "x", "--json").stdout)["members"]
    assert all(member["diverged"] is None for member in members)


@pytest.mark.rows("N5")
@pytest.mark.parametrize("policy", ["leave", "kill"])
def test_a_full_segment_never_gives_a_wrong_value(sosie, policy):
    sosie.run("group", "create", "x", "--size", "1M", "--on-full", policy)
    command = ["run", "-g", "x", "--", os.path.join(PROGRAMS, "race"), "200000"]
    first = sosie.run(*command, status=None)
    second = sosie.run(*command, status=None)
    members = json.loads(sosie.run("group", "show", "x", "--json").stdout)["members"]
    assert [member["diverged"]["why"] for member in members] == ["segment-full"] * 2
    expected = -signal.SIGKILL if policy == "kill" else 0
    assert first.returncode == second.returncode == expected
    # As far as the segment reached they agree.
    same = os.path.commonprefix([first.stdout.splitlines(), second.stdout.splitlines()])
    assert len(same) > 100


@pytest.mark.rows("N5")
def test_a_full_disk_is_said_and_nothing_is_left(sosie, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    script = f"""
mount -t tmpfs -o size=1536k none {tmp_path} || exit 99
export SOSIE_STATE_DIR={tmp_path}/state
{ROOT}/build/bin/sosie run -g x -- uuidgen > /dev/null || exit 98
{ROOT}/build/bin/sosie run -g y -- uuidgen
echo status=$?
{ROOT}/build/bin/sosie group list --names
{ROOT}/build/bin/sosie run -g x -- {PROGRAMS}/race 300000 | tail -1
{ROOT}/build/bin/sosie group show x --json
{ROOT}/build/bin/sosie group remove --force x
"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True,
                          timeout=60, check=False)
    assert "No space left on device" in done.stderr and "free some disk space" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["status=125", "x"], done
    # A running member meets the same later: it ends its work, and is known to have left.
    assert lines[2].startswith("300000 ")
    assert '"why": "segment-full"' in done.stdout


def damage(sosie, how):
    sosie.run("run", "-g", "x", "--", "uuidgen")
    path = sosie.state / "groups" / "x" / "segment"
    with open(path.parent / "recorder.lock", "rb") as lock, open(path, "r+b") as file:
        fcntl.flock(lock, fcntl.LOCK_EX)  # nobody has it mapped any more
        if how == "truncated":
            file.truncate(5000)
        elif how == "empty":
            file.truncate(0)
        elif how == "version":
            file.seek(8)
            file.write(struct.pack("<I", 7))
        elif how == "checksum":
            file.seek(100)
            file.write(b"\xff")
        elif how == "other":
            file.write(b"\x7fELF")
    return path


@pytest.mark.rows("N5")
@pytest.mark.parametrize("how, code, text", [
    ("truncated", "corrupt", "truncated"),
    ("empty", "corrupt", "truncated"),
    ("version", "version", "format version 7"),
    ("checksum", "corrupt", "checksum"),
    ("other", "corrupt", "not a value segment"),
])
def test_a_damaged_segment_is_refused_and_left_alone(sosie, how, code, text):
    path = damage(sosie, how)
    size = path.stat().st_size
    refused = sosie.run("run", "-g", "x", "--", "uuidgen", status=125)
    assert text in refused.stderr and refused.stdout == ""
    shown = sosie.run("group", "show", "x", "--json", status=9)
    assert json.loads(shown.stderr)["error"]["code"] == code
    assert path.stat().st_size == size
    assert "x" in sosie.run("group", "list").stdout
    sosie.run("group", "remove", "x", status=9)
    sosie.run("group", "remove", "--force", "x")


@pytest.mark.rows("N7", "P8")
@pytest.mark.parametrize("arguments, status, text", [
    (["run", "--", "uuidgen"], 125, "which group?"),
    (["run", "-g", "../x", "--", "uuidgen"], 125, "no name for a group"),
    (["run", "-g", "x" * 64, "--", "uuidgen"], 125, "no name for a group"),
    (["run", "-g", "x", "-m", "a b", "--", "uuidgen"], 125, "no name for a member"),
    (["run", "-g", "x", "-n", "-1", "--", "uuidgen"], 125, "takes a number"),
    (["run", "-g", "x", "--", "no-such-program"], 127, "not found"),
    (["run", "-g", "x", "--", "/etc/passwd"], 126, "Permission denied"),
    (["run", "-g", "x"], 125, "missing"),
    (["group", "show", "nothing"], 4, "there is no group"),
    (["group", "create", "x", "--size", "12"], 3, "size"),
    (["group", "create", "x", "--size", "lots"], 3, "number of bytes"),
    (["group", "create", "x", "--audit", "some"], 3, "batch or full"),
    (["group", "log", "nothing"], 4, "there is no group"),
    (["group", "dance"], 2, "there is no command 'group dance'"),
    (["dance"], 2, "there is no command"),
    (["group", "list", "--colour"], 2, "unknown option"),
    (["group", "list", "x"], 2, "too many"),
])
def test_bad_input_is_explained_and_changes_nothing(sosie, arguments, status, text):
    done = sosie.run(*arguments, status=status)
    assert text in done.stderr and done.stdout == ""
    assert sosie.run("group", "list", "--names").stdout == ""


@pytest.mark.rows("N7")
def test_static_programs_are_refused(sosie):
    done = sosie.run("run", "-g", "x", "--", "/bin/busybox", "date", status=125)
    assert "statically linked" in done.stderr


@pytest.mark.rows("N7")
def test_set_user_id_programs_stay_unprivileged_and_untouched(sosie, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("making a set-user-ID program needs root")
    os.chmod(tmp_path, 0o755)
    program = tmp_path / "setid"
    shutil.copy(os.path.join(PROGRAMS, "setid"), program)
    program.chmod(0o4755)
    for folder in list(tmp_path.parents)[:3]:
        if str(folder) != "/tmp" and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    state = tmp_path / "nobody"
    state.mkdir()
    os.chown(state, 65534, 65534)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         os.path.join(ROOT, "build", "bin", "sosie"), "run", "-g", "x", "--",
         "sh", "-c", f"id -u; {program}; exec {program}"],
        env={"PATH": os.environ["PATH"], "SOSIE_STATE_DIR": str(state)},
        capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    expected = "uid=65534 euid=65534 preload=- run=- mapped=0"
    assert lines == ["65534", expected, expected], done
    refused = sosie.run("run", "-g", "x", "--", program, status=125)
    assert "set-user-ID" in refused.stderr


@pytest.mark.rows("N7")
def test_signals_and_waiting_use_the_shared_process_ids(sosie):
    """A copy signals itself, its child and its process group by ids that are not its own."""
    script = """
import os, signal, subprocess, sys
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append("usr1"))
os.kill(os.getpid(), signal.SIGUSR1)
child = subprocess.Popen(["sleep", "60"])
same_group = os.getpgid(child.pid) == os.getpgid(0)
os.kill(child.pid, signal.SIGTERM)
print(got, child.wait(), child.pid, os.getpid(), same_group)
pid = os.fork()
if pid == 0:
    os.setpgid(0, 0)
    os._exit(os.getpgrp() == os.getpid())
print(os.waitpid(pid, 0) == (pid, 256), os.waitstatus_to_exitcode(0))
"""
    command = ["run", "-g", "x", "--", PYTHON, "-c", script]
    first = sosie.run(*command).stdout
    # Another process has the first copy's ids by now, or none: both must be left in peace.
    decoy = subprocess.Popen(["sleep", "60"])
    try:
        for _ in range(5):
            assert sosie.run(*command).stdout == first
        assert decoy.poll() is None
    finally:
        decoy.kill()
        decoy.wait()
    assert re.fullmatch(r"\['usr1'\] -15 \d+ \d+ True\nTrue 0\n", first), first


@pytest.mark.rows("N7")
def test_the_exit_status_and_signals_are_the_programs_own(sosie):
    sosie.run("run", "-g", "x", "--", "sh", "-c", "exit 42", status=42)
    sosie.run("run", "-g", "x", "--", "sh", "-c", "kill -TERM $$", status=-signal.SIGTERM)
    process = sosie.start("run", "-g", "x", "--", "sleep", "60")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


@pytest.mark.rows("P8")
def test_help_completion_and_version(sosie):
    overview = sosie.run("--help").stdout
    for word in ("run", "group log", "exit statuses"):
        assert word in overview
    for command in re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", overview, re.M):
        if command in ("help",):
            continue
        text = sosie.run(*command.split(), "--help").stdout
        assert text.startswith(text.splitlines()[0]) and f"usage: sosie {command}" in text
    script = sosie.run("completion").stdout
    sosie.run("run", "-g", "finished", "--", "true")
    done = subprocess.run(
        ["bash", "-c", script + "\nCOMP_WORDS=(sosie group show fin); COMP_CWORD=3\n"
         "_sosie; echo \"${COMPREPLY[@]}\"; COMP_WORDS=(sosie gr); COMP_CWORD=1; _sosie;"
         " echo \"${COMPREPLY[@]}\""],
        env=dict(sosie.environment, PATH=os.path.join(ROOT, "build", "bin") + ":" +
                 os.environ["PATH"]),
        capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["finished", "group"]
