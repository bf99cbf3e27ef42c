#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""./dev demo: two virtual machines on two hosts get the same values; one is killed, one goes on.

Both hosts are on this machine: a state folder and a sosie-valued each, with a TCP link between
them. The machines are real (QEMU, the image `mini`), the programs in them are Debian's own, and
what is printed is what they printed.
"""

import contextlib
import os
import pathlib
import secrets
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tests", "system"))

from guest import Guest, mini_image  # noqa: E402
from test_values_hosts import Host  # noqa: E402

COMMANDS = [
    ["uuidgen"],
    ["date", "+%T.%N"],
    ["shuf", "-i", "1-49", "-n", "6"],
    ["openssl", "rand", "-hex", "16"],
    ["bash", "-c", "echo $RANDOM $RANDOM, process $$"],
]


def say(text=""):
    print(text, flush=True)


@contextlib.contextmanager
def step(what):
    """Prints what is done and how long it took."""
    print(f"{what} ...", end=" ", flush=True)
    started = time.monotonic()
    yield
    print(f"{time.monotonic() - started:.1f} s", flush=True)


def show(title, command, outputs):
    text = " ".join(command if len(command) < 3 or command[1] != "-c" else command[2:])
    say(f"$ {text}")
    for name, output in outputs:
        say(f"    {name:10} {' '.join(output.split())}")
    verdict = len({output for _, output in outputs}) == 1 and outputs[0][1] != ""
    say(f"    {'the same' if verdict else 'DIFFERENT'}{title}")
    return verdict


def main():
    same = True
    with tempfile.TemporaryDirectory(prefix="sosie-demo-") as scratch, \
            contextlib.ExitStack() as cleanup:
        folder = pathlib.Path(scratch)
        key = folder / "key"
        key.write_text(secrets.token_hex(32), encoding="ascii")
        with step("image: Debian's kernel and a few of its programs"):
            mini_image()
        hosts = [Host(folder / name, key) for name in ("host-1", "host-2")]
        for host in hosts:
            host.sosie.run("group", "create", "g", "--size", "64M", "--whole")
            cleanup.callback(host.stop, "kill")
        with step("two hosts: a value daemon each, the second following the first"):
            hosts[0].serve()
            hosts[1].follow(hosts[0])
            hosts[1].wait_for(b"connected to the source")
        with step("two machines, started from nothing, without KVM"):
            machines = [cleanup.enter_context(
                Guest(folder / name, host.sosie.state / "groups" / "g" / "segment"))
                for name, host in zip(("machine-1", "machine-2"), hosts)]
        say()
        for number, command in enumerate(COMMANDS):
            order = [0, 1] if number % 2 == 0 else [1, 0]
            outputs = sorted((f"machine-{i + 1}", machines[i].run(*command, member="copy"))
                             for i in order)
            same &= show(f" (machine-{order[0] + 1} asked first)", command, outputs)
        say()
        say("machine-1 and the value daemon of its host are killed; host-2 becomes the source")
        machines[0].process.kill()
        hosts[0].stop("kill")
        hosts[1].stop("terminate")
        hosts[1].serve()
        started = time.monotonic()
        after = machines[1].run("uuidgen", member="copy", run=1)
        say(f"$ uuidgen\n    machine-2  {after.strip()}"
            f"    answered {time.monotonic() - started:.2f} s later")
        new = hosts[1].sosie.run("run", "-g", "g", "-m", "new-copy", "-n", "1", "--",
                                 "uuidgen").stdout
        same &= show(": a new copy of it on host-2 catches up", ["uuidgen"],
                     [("machine-2", after), ("new copy", new)])
        say()
        say("what machine-2 was given, from its host's journal (sosie group log, the last lines):")
        log = hosts[1].sosie.run("group", "log", "g", "-m", "copy").stdout.splitlines()
        say("\n".join(line[:118] for line in log[:1] + log[-6:]))
    say()
    say("every value was the same in both machines" if same else "the machines DIFFERED")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
