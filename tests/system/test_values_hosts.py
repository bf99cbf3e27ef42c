# SPDX-License-Identifier: Apache-2.0
"""Values between hosts: two state folders, a sosie-valued each, a TCP link between them."""

import contextlib
import json
import os
import random
import re
import secrets
import socket
import subprocess
import time

import pytest
from conftest import BIN, ROOT, Sosie

PROGRAMS = os.path.join(ROOT, "build", "tests", "programs")
PYTHON = "/usr/bin/python3"


class Host:
    """A state folder and its value daemon."""

    def __init__(self, folder, key):
        self.folder = folder
        folder.mkdir()
        self.key = key
        self.sosie = Sosie(folder)
        self.daemon = None
        self.port = None

    def serve(self, port=0):
        """Be the source; the port is known when this returns."""
        self._start("--listen", f"127.0.0.1:{port}")
        line = self.daemon.stdout.readline().decode()
        self.port = int(re.fullmatch(r"listening on 127.0.0.1:(\d+)\n", line).group(1))

    def follow(self, source):
        self._start("--source", f"127.0.0.1:{source.port}")
        self.wait_for(b"running")

    def _start(self, *role):
        self.daemon = subprocess.Popen(
            [os.path.join(BIN, "sosie-valued"), "--state", self.folder, "--group", "g",
             "--key-file", self.key, *role], stdout=subprocess.PIPE,
            stderr=open(self.folder / "daemon.log", "ab"))

    def log(self):
        return (self.folder / "daemon.log").read_bytes()

    def wait_for(self, text, timeout=20):
        end = time.monotonic() + timeout
        while text not in self.log():
            assert self.daemon.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.005)

    def stop(self, how="terminate"):
        if self.daemon and self.daemon.poll() is None:
            getattr(self.daemon, how)()
        if self.daemon:
            self.daemon.wait(timeout=20)
            self.daemon.stdout.close()
        self.daemon = None

    def run(self, *command, **options):
        return self.sosie.run("run", "-g", "g", "--", *command, **options).stdout

    def start(self, *command):
        return self.sosie.start("run", "-g", "g", "--", *command)


@pytest.fixture
def hosts(tmp_path):
    """Two hosts, the first the source and the second following it."""
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32) + "\n")
    pair = [Host(tmp_path / name, key) for name in ("a", "b")]
    try:
        pair[0].serve()
        pair[1].follow(pair[0])
        pair[1].wait_for(b"connected to the source")
        yield pair
    finally:
        for host in pair:
            host.stop("kill")


COMMANDS = [
    ["uuidgen"], ["uuidgen", "-t"], ["shuf", "-i", "1-1000"], ["date", "+%N"],
    ["perl", "-e", 'print rand, " ", time, " $$ ", getppid'],
    [PYTHON, "-c", "import uuid, random, time; print(uuid.uuid1(), uuid.uuid4(), random.random(),"
     " time.time_ns(), hash('x'), object())"],
    ["bash", "-c", "echo $RANDOM $$ $(date +%N); head -c 8 /dev/urandom | od -An -tx1"],
    [os.path.join(PROGRAMS, "threads")], [os.path.join(PROGRAMS, "lanes")],
]


@pytest.mark.rows("N2", "N3", "N7")
@pytest.mark.parametrize("first", [0, 1], ids=["source-first", "follower-first"])
def test_programs_on_two_hosts_print_the_same(hosts, first):
    for command in COMMANDS:
        assert hosts[first].run(*command) == hosts[1 - first].run(*command) != "", command
    for host in hosts:
        shown = json.loads(host.sosie.run("group", "show", "g", "--json").stdout)["members"]
        assert [member["diverged"] for member in shown] == [None] * len(COMMANDS)


@pytest.mark.rows("N2", "N3")
def test_copies_that_race_across_hosts_agree(hosts, repeat):
    """Both start at once; now one is ahead, now the other: a follower that is ahead asks."""
    for run in range(repeat(400)):
        command = [os.path.join(PROGRAMS, "race"), "300"]
        copies = [host.sosie.start("run", "-g", "g", "-n", str(run), "--", *command)
                  for host in hosts for _ in range(2)]
        printed = [copy.communicate(timeout=60)[0] for copy in copies]
        assert [copy.returncode for copy in copies] == [0] * 4
        assert printed[0] and len(set(printed)) == 1


@pytest.mark.rows("N7")
def test_a_follower_with_another_clock_waits_as_long(hosts):
    if os.geteuid() != 0:
        pytest.skip("a time namespace needs root")
    command = [os.path.join(PROGRAMS, "deadlines")]
    ahead = subprocess.run(
        ["unshare", "-T", "--monotonic", "86400", "--boottime", "86400",
         os.path.join(BIN, "sosie"), "run", "-g", "g", "--", *command],
        env=hosts[1].sosie.environment, capture_output=True, text=True, timeout=60, check=True)
    plain = hosts[0].sosie.run("run", "-g", "g", "--", *command)
    assert ahead.stdout == plain.stdout
    for stderr in (ahead.stderr, plain.stderr):
        found = re.findall(r"(\S+) ([\d.]+)\n", stderr)
        assert len(found) == 9 and all(0.15 < float(took) < 2 for _, took in found), found


@pytest.mark.rows("N3")
@pytest.mark.parametrize("victim", ["source", "follower"])
def test_a_broken_link_costs_no_value(hosts, victim):
    """The daemon of one side is killed again and again while copies run on both."""
    source, follower = hosts
    chance = random.Random(20260131)
    command = [os.path.join(PROGRAMS, "race"), "8000"]
    copies = [host.start(*command) for host in hosts]
    for _ in range(5):
        time.sleep(chance.uniform(0.01, 0.05))
        if victim == "source":
            source.stop("kill")
            source.serve(source.port)
        else:
            follower.stop("kill")
            follower.follow(source)
    printed = [copy.communicate(timeout=60)[0] for copy in copies]
    assert printed[0] and printed[0] == printed[1]
    assert b"values here that the source does not have" not in follower.log()


@pytest.mark.rows("N3", "N11")
def test_a_follower_that_becomes_the_source_goes_on(hosts):
    """The source's host is lost under a copy that waits for it; its own host takes over."""
    source, follower = hosts
    rounds = 1000000
    copies = [host.start(os.path.join(PROGRAMS, "race"), str(rounds)) for host in hosts]
    time.sleep(0.1)
    source.stop("kill")
    copies[0].kill()
    lost = copies[0].communicate()[0]
    time.sleep(0.5)
    assert copies[1].poll() is None, "it waits for its source"
    follower.stop("terminate")
    follower.serve()
    survivor = copies[1].communicate(timeout=120)[0]
    assert copies[1].returncode == 0
    # Commit mode async: they agree as far as the log had come, and the survivor went on alone.
    ours, theirs = survivor.splitlines(), lost.splitlines()[:-1]
    same = os.path.commonprefix([ours, theirs])
    assert len(same) > 0 and len(ours) == rounds // 100
    # A copy that starts now gets what the survivor got, to the last value.
    assert follower.run(os.path.join(PROGRAMS, "race"), str(rounds)).encode() == survivor


@pytest.mark.rows("N3")
def test_without_a_source_a_follower_serves_what_it_has(hosts):
    source, follower = hosts
    have = source.run("uuidgen")
    end = time.monotonic() + 20
    while follower.sosie.run("group", "list", "--json").stdout.count('"joined": 0') and \
            time.monotonic() < end:
        time.sleep(0.01)
        if follower.run("uuidgen") == have:
            break
    source.stop("kill")
    assert follower.run("uuidgen") == have
    waiting = follower.start("date", "+%N")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0.5)
    source.serve(source.port)
    out = waiting.communicate(timeout=20)[0].decode()
    assert out == source.run("date", "+%N")


@pytest.mark.rows("N3")
def test_strangers_are_refused(hosts, tmp_path):
    source = hosts[0]
    wrong = tmp_path / "wrong"
    wrong.write_text(secrets.token_hex(32))
    with contextlib.ExitStack() as cleanup:
        stranger = Host(tmp_path / "c", wrong)
        cleanup.callback(stranger.stop, "kill")
        stranger.follow(source)
        # Either end may find it out first; the other sees the connection closed.
        end = time.monotonic() + 20
        while b"does not hold the key" not in source.log() + stranger.log():
            assert time.monotonic() < end, source.log() + stranger.log()
            time.sleep(0.01)
        assert b"connected to the source" not in stranger.log()
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n" * 20, os.urandom(100000), b"\0" * 60):
            with socket.create_connection(("127.0.0.1", source.port)) as peer:
                with contextlib.suppress(OSError):
                    peer.sendall(rubbish)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(4096):
                        pass
        assert hosts[0].run("uuidgen") == hosts[1].run("uuidgen")


@pytest.mark.rows("P8")
@pytest.mark.parametrize("arguments, status, text", [
    (["--group", "g"], 2, "needs --group"),
    (["--group", "g", "--key-file", "/nowhere", "--listen", "127.0.0.1:0"], 4, "/nowhere"),
    (["--group", "g", "--key-file", "/etc/hostname", "--listen", "127.0.0.1:0"], 3, "digits"),
    (["--group", "../g", "--key-file", "KEY", "--listen", "127.0.0.1:0"], 3, "no name"),
    (["--group", "g", "--key-file", "KEY", "--listen", "here"], 2, "ADDRESS:PORT"),
    (["--group", "g", "--key-file", "KEY", "--listen", "127.0.0.1:99999"], 2, "ADDRESS:PORT"),
])
def test_a_wrong_command_line_is_explained(tmp_path, arguments, status, text):
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    done = subprocess.run(
        [os.path.join(BIN, "sosie-valued"), "--state", tmp_path / "s",
         *[str(key) if argument == "KEY" else argument for argument in arguments]],
        capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status and text in done.stderr, done
