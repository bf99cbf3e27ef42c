# SPDX-License-Identifier: Apache-2.0
"""Values in real virtual machines: QEMU guests that share their group's memory by ivshmem."""

import json
import os
import re
import secrets
import struct
import subprocess
import time

import pytest
from conftest import ROOT, Sosie
from guest import EXEC, EXITED, FAILED, HELLO, INPUT, OUTPUT, SIGNAL, Guest
from test_values_hosts import Host

PROGRAMS = os.path.join(ROOT, "build", "tests", "programs")

COMMANDS = [
    ["uuidgen"], ["uuidgen", "-t"], ["mktemp", "-u"], ["shuf", "-i", "1-100"], ["date", "+%N"],
    ["threads"], ["bash", "-c", "echo $RANDOM $$ $(date +%N) $PPID; od -N8 -tx1 /dev/urandom"],
]


def make_group(sosie):
    """A group whose memory a guest can have: all of it is there from the start."""
    sosie.run("group", "create", "g", "--size", "64M", "--whole")
    return sosie.state / "groups" / "g" / "segment"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """One guest on one host, for the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("machine")
    sosie = Sosie(folder / "state")
    with Guest(folder / "guest", make_group(sosie)) as guest:
        guest.sosie = sosie
        yield guest


@pytest.mark.rows("N2", "N7")
def test_a_guest_and_a_process_on_its_host_get_the_same(machine):
    """One group, one copy in a machine and one beside it; the guest asks first, then the host."""
    first = machine.run("race", "500", member="in-guest")
    assert first == machine.sosie.run("run", "-g", "g", "-m", "on-host", "--",
                                      os.path.join(PROGRAMS, "race"), "500").stdout
    second = machine.sosie.run("run", "-g", "g", "-n", "1", "--",
                               os.path.join(PROGRAMS, "threads")).stdout
    assert second == machine.run("threads", member="in-guest", run=1)
    members = json.loads(machine.sosie.run("group", "show", "g", "--json").stdout)["members"]
    assert [member["diverged"] for member in members] == [None] * 4


@pytest.mark.rows("N9")
def test_the_log_tells_what_a_guest_was_given(machine):
    printed = machine.run("bash", "-c", "od -An -v -tx1 -N16 /dev/urandom; date +%s%N",
                          member="logged").split()
    rows = [json.loads(line) for line in
            machine.sosie.run("group", "log", "g", "-m", "logged", "--json").stdout.splitlines()]
    values = [row["value"] for row in rows]
    assert "".join(printed[:16]) in values and printed[16] in values
    end = time.monotonic() + 20
    while time.monotonic() < end:
        members = json.loads(machine.sosie.run("group", "show", "g", "--json").stdout)["members"]
        if [m["state"] for m in members if m["name"] == "logged"] == ["ended"]:
            break
    else:
        pytest.fail("a program that has ended in the guest counts as running")


@pytest.mark.rows("N7")
def test_a_guest_waits_as_long_as_its_host(machine):
    session = machine.start("deadlines", member="waits")
    status, printed, errors = machine.finish(session)
    host = machine.sosie.run("run", "-g", "g", "--", os.path.join(PROGRAMS, "deadlines"))
    assert status == 0 and printed == host.stdout
    found = re.findall(r"(\S+) ([\d.]+)\n", errors)
    assert len(found) == 9 and all(0.15 < float(took) < 5 for _, took in found), found


@pytest.mark.rows("N3", "N7")
def test_no_swap_is_lost_between_guest_and_host(tmp_path):
    """Compare-and-swaps on one word, by a processor that QEMU makes up and by a real one."""
    count = 100_000_000
    shared = tmp_path / "shared"
    with open(shared, "wb") as file:
        file.truncate(1 << 20)
    with Guest(tmp_path / "guest", shared) as guest:
        window = guest.run("sh", "-c", "for d in /sys/bus/pci/devices/*; do"
                           " ! grep -q 0x1110 $d/device || echo $d/resource2; done").strip()
        session = guest.start("swaps", window, "2", str(count))
        ours = subprocess.run([os.path.join(PROGRAMS, "swaps"), shared, "2", str(count)],
                              capture_output=True, text=True, timeout=900, check=True).stdout
        status, theirs, _ = guest.finish(session, timeout=900)
    assert status == 0
    with open(shared, "rb") as file:
        counter = struct.unpack("<Q", file.read(8))[0]
    found = [re.fullmatch(r"(\d+) swaps, (\d+) attempts lost\n", text) for text in (ours, theirs)]
    swaps, lost = zip(*[(int(match.group(1)), int(match.group(2))) for match in found])
    print(f"swaps: host {swaps[0]}, guest {swaps[1]}; attempts lost: {lost[0]}, {lost[1]}")
    assert count <= counter == sum(swaps)
    assert min(swaps) > 0 and sum(lost) > 0, "they did not race"


@pytest.mark.rows("N2", "N3", "N6", "N7", "N11")
def test_two_machines_on_two_hosts(tmp_path):
    """The same programs in two machines, each on a host of its own, give the same; then the
    primary's machine and its host's value daemon are killed, and the other goes on."""
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    hosts = [Host(tmp_path / name, key) for name in ("a", "b")]
    segments = [make_group(host.sosie) for host in hosts]
    try:
        hosts[0].serve()
        hosts[1].follow(hosts[0])
        with Guest(tmp_path / "guest-a", segments[0]) as first, \
                Guest(tmp_path / "guest-b", segments[1]) as second:
            guests = [first, second]
            for number, command in enumerate(COMMANDS):
                # Now one machine asks first, now the other, now both at once.
                order = guests if number % 2 else guests[::-1]
                printed = [guest.run(*command, member="copy") for guest in order]
                assert printed[0] == printed[1] != "", command
            for run in range(1, 4):
                sessions = [guest.start("race", "300", member="copy", run=run) for guest in guests]
                results = [guest.finish(session) for guest, session in zip(guests, sessions)]
                assert results[0] == results[1] and results[0][0] == 0
            first.process.kill()
            hosts[0].stop("kill")
            hosts[1].stop("terminate")
            hosts[1].serve()
            assert second.run("race", "300", member="copy", run=1) == results[0][1] or \
                second.run("race", "300", member="copy", run=3) == results[0][1]
            new = second.run("uuidgen", member="copy", run=9)
            assert re.fullmatch(r"[0-9a-f-]{36}\n", new)
            # What the survivor was given is what any later copy gets.
            later = hosts[1].sosie.run("run", "-g", "g", "-n", "9", "--", "uuidgen").stdout
            assert later == new
        for host in hosts[1:]:
            shown = json.loads(host.sosie.run("group", "show", "g", "--json").stdout)["members"]
            assert all(member["diverged"] is None for member in shown)
    finally:
        for host in hosts:
            host.stop("kill")


@pytest.mark.rows("P3")
def test_the_agent_runs_programs_and_tells_their_ends(machine):
    assert machine.finish(machine.start("sh", "-c", "echo out; echo err >&2; exit 7")) == \
        (7, "out\n", "err\n")
    assert machine.finish(machine.start("no-such-program"))[0] == 127
    assert machine.finish(machine.start("sh", "-c", "kill -KILL $$"))[0] == -9
    session = machine.start("sh", "-c", "read line; echo got $line; cat | wc -c")
    machine._send(INPUT, session, b"words\n" + b"x" * 30000)
    machine._send(INPUT, session)
    assert machine.finish(session) == (0, "got words\n30000\n", "")
    session = machine.start("sleep", "1000")
    machine._send(SIGNAL, session, bytes([15]))
    assert machine.finish(session)[0] == -15
    # More output than fits between the two at once, from two programs side by side.
    sessions = [machine.start("sh", "-c", f"yes {word} | head -c 300000") for word in "ab"]
    lengths = {number: 0 for number in sessions}
    ended = 0
    while ended < 2:
        kind, number, payload = machine._receive(60)
        if kind == OUTPUT:
            lengths[number] += len(payload) - 1
        ended += kind == EXITED
    assert list(lengths.values()) == [300000, 300000]


@pytest.mark.rows("P3")
def test_the_agent_survives_nonsense(machine):
    for payload in (b"", b"\1", struct.pack("<BIB", 1, 0, 200), struct.pack("<BIB", 0, 0, 0),
                    struct.pack("<BIB", 0, 0, 0) + b"no end",
                    struct.pack("<BIB", 1, 0, 3) + b"a b" + b"true\0",
                    struct.pack("<BIB", 0, 0, 0) + b"x\0" * 300):
        machine._send(EXEC, 900, payload)
        kind, session, text = machine._receive(20)
        assert (kind, session) == (FAILED, 900) and text
    machine._send(77, 5, b"unknown")
    machine._send(INPUT, 901, b"nobody's")
    machine._send(SIGNAL, 901, b"\x09")
    assert machine.run("echo", "well") == "well\n"
    # A host that died in the middle of a frame and came again.
    session = machine.start("sleep", "1000")
    assert machine._receive(20)[0] != EXITED
    machine.port.sendall(struct.pack("<IB", 60000, EXEC))
    machine.port.close()
    machine.port = None
    machine.received = b""
    machine.connect()
    assert machine.shared == 1
    assert machine.run("sh", "-c", "pidof sleep || echo none") == "none\n"
    assert session != machine.sessions and HELLO == 1
