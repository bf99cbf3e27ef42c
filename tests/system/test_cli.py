# SPDX-License-Identifier: Apache-2.0
"""The command-line tool against a real control plane, with agents that speak the protocol."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest
from conftest import BIN
from control import GIB, Agent, Control, b64

SOON = 60


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "control", "--rate", "100000", "--host-timeout", "600").start()
    yield made
    try:
        if made.process:
            assert made.stop() == 0
    finally:
        made.close()


@pytest.fixture
def cli(sosie, control):
    sosie.environment.update(SOSIE_API=control.url, SOSIE_TOKEN=control.token)
    return sosie


class Worker:
    """An agent that does what it is told, in the background."""

    def __init__(self, agent):
        self.agent = agent
        self.over = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.over.is_set():
                if self.agent.poll(wait=1) is not None:
                    self.agent.observe()
                    self.serve()
        except Exception as failure:
            self.failure = failure

    def serve(self):
        """Sessions: a program that says its arguments and input, and ends with 7."""
        for session in self.agent.desired["sessions"]:
            path = f"/v1/agent/sessions/{session['id']}"
            call = self.agent.control.call
            taken, data = 0, b""
            while True:
                reply = call("GET", f"{path}/input?offset={taken}&wait=5", token=self.agent.token)
                if reply.status != 200:
                    break
                piece = base64.b64decode(reply.json["data"])
                taken += len(piece)
                data += piece
                if reply.json["eof"] or (session["kind"] == "console" and b"\n" in data):
                    break
            says = " ".join(session.get("argv") or ["console"]).encode() + b"\n"
            says += data
            pieces = [("stdout", says[at:at + 30_000]) for at in range(0, len(says), 30_000)]
            for n, (stream, text) in enumerate([*pieces, ("stderr", b"done\n")]):
                call("POST", f"{path}/output", {"sequence": n, "stream": stream, "data": b64(text)},
                     token=self.agent.token)
            call("POST", f"{path}/output", {"sequence": len(pieces) + 1, "stream": "exit",
                                            "status": 7}, token=self.agent.token)

    def __enter__(self):
        self.thread.start()
        return self.agent

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def table(result):
    return [line.split() for line in result.stdout.splitlines()]


@pytest.mark.rows("P8")
def test_without_a_control_plane_commands_say_what_to_do(sosie):
    for command in (["instance", "list"], ["launch", "x", "--image", "mini"], ["status"],
                    ["host", "show", "h"], ["exec", "i", "--", "true"]):
        status = 125 if command[0] == "exec" else 8
        result = sosie.run(*command, status=status)
        assert "no control plane is known" in result.stderr
        assert "sosie up" in result.stderr
    error = json.loads(sosie.run("instance", "list", "--json", status=8).stderr)["error"]
    assert error["code"] == "unavailable" and "sosie up" in error["hint"]
    sosie.environment.update(SOSIE_API="http://127.0.0.1:1", SOSIE_TOKEN="x")
    assert "not reachable" in sosie.run("host", "list", status=8).stderr
    del sosie.environment["SOSIE_TOKEN"]
    assert "SOSIE_TOKEN" in sosie.run("host", "list", status=2).stderr
    sosie.environment.update(SOSIE_API="ftp://x", SOSIE_TOKEN="x")
    sosie.run("host", "list", status=2)
    # Groups of this machine need no control plane.
    del sosie.environment["SOSIE_API"], sosie.environment["SOSIE_TOKEN"]
    sosie.run("group", "create", "local")
    assert json.loads(sosie.run("group", "list", "--json").stdout)[0]["origin"] == "local"


@pytest.mark.rows("P8")
def test_every_command_explains_itself(sosie):
    overview = sosie.run("--help").stdout
    names = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", overview, re.M)
    for wanted in ("up", "down", "launch", "exec", "events", "status", "host drain",
                   "image import", "image build", "instance console", "instance terminate",
                   "volume create", "network publish", "token create", "group show"):
        assert wanted in names
    for name in names:
        shown = sosie.run(*name.split(), "--help").stdout
        assert f"usage: sosie {name}" in shown
        if name not in ("completion", "version", "help", "up", "down", "status", "events"):
            assert "examples:" in shown, name
    script = sosie.run("completion").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "sosie instance list --names" in script


@pytest.mark.rows("P3", "P8")
def test_an_instances_life_by_commands(cli, control, tmp_path):
    Agent(control, "h2", cores=1)
    with Worker(Agent(control, "h1")):
        image = tmp_path / "mini.raw"
        image.write_bytes(os.urandom(1 << 20))
        shown = json.loads(cli.run("image", "import", image, "--json").stdout)
        assert (shown["name"], shown["state"], shown["size"]) == ("mini", "ready", 1 << 20)
        assert "exists" in cli.run("image", "import", image, status=5).stderr.lower()
        cli.run("image", "import", image, "--name", "x y", status=3)
        cli.run("image", "import", tmp_path / "none", status=None)
        data = tmp_path / "user-data"
        data.write_text("#cloud-config\n")
        made = cli.run("launch", "web", "-i", "mini", "-m", "64M", "--cores", "2", "-p", "8080:80",
                       "--user-data", data).stdout
        assert made == "web is running on h1, address 10.0.0.2\n"
        rows = table(cli.run("instance", "list"))
        assert rows[1][:3] == ["web", "running", "h1"]
        assert cli.run("instance", "list", "--names").stdout == "web\n"
        shown = json.loads(cli.run("instance", "show", "web", "--json").stdout)
        assert shown["memory_mib"] == 64 and shown["published"][0]["host_port"] == 8080
        assert "memory_mib" in cli.run("instance", "show", "web").stdout
        cli.run("instance", "stop", "web")
        assert json.loads(cli.run("instance", "show", "web", "--json").stdout)["state"] == "stopped"
        assert "cannot reboot" in cli.run("instance", "reboot", "web", status=5).stderr
        cli.run("instance", "start", "web")
        done = json.loads(cli.run("instance", "reboot", "web", "--json").stdout)[0]
        assert done["reboots_done"] == 1
        assert "no room" in cli.run("launch", "big", "-i", "mini", "--cores", "9",
                                    status=7).stderr
        assert "not_found" in cli.run("launch", "x", "-i", "none", "--json", status=4).stderr
        cli.run("instance", "show", "none", status=4)
        cli.run("instance", "terminate", "web")
        assert cli.run("instance", "list", "--names").stdout == ""
        kinds = [json.loads(line)["kind"] for line in
                 cli.run("events", "--json").stdout.splitlines()]
        assert kinds[-1] == "instance.terminated" and "instance.launched" in kinds
        assert "online" in cli.run("host", "list").stdout
        cli.run("host", "drain", "h1", "h2")
        assert "draining" in cli.run("launch", "x", "-i", "mini", status=7).stderr
        cli.run("host", "undrain", "h1", "h2")
        status = json.loads(cli.run("status", "--json").stdout)
        assert status["api"] == control.url and status["hosts"] == {"online": 2}
        cli.run("image", "delete", "mini")
        cli.run("launch", "x", "-i", "mini", "--bogus", status=2)
        cli.run("launch", "--image", "mini", status=2)
        cli.run("launch", "x", status=2)


@pytest.mark.rows("P3", "P8")
def test_waiting_ends_with_the_reason(cli, control):
    agent = Agent(control, "h1")
    control.make_image()
    assert "is pending on h1" in cli.run("launch", "web", "-i", "mini", "--no-wait").stdout
    late = cli.run("launch", "slow", "-i", "mini", "--timeout", "1ms", status=8)
    assert "slow is still pending" in late.stderr
    agent.poll()
    for i in agent.desired["instances"]:
        agent.states[i["id"]] = {"state": "failed", "reason": "QEMU is not installed"}
    agent.observe()
    failed = cli.run("instance", "start", "web", status=5)
    assert "web has failed: QEMU is not installed" in failed.stderr
    agent.poll()
    assert agent.find("web")["starts"] == 1, "the host is told that it is tried again"


@pytest.mark.rows("P3", "P8")
def test_programs_run_in_instances(cli, control):
    with Worker(Agent(control, "h1")):
        control.make_image()
        cli.run("launch", "web", "-i", "mini")
        text = os.urandom(70_000)
        process = cli.start("exec", "web", "--", "cat", "-n", "--json", stdin=subprocess.PIPE)
        out, err = process.communicate(text, timeout=SOON)
        assert out == b"cat -n --json\n" + text
        assert (process.returncode, err) == (7, b"done\n")
        with open(os.devnull, "rb") as nothing:
            result = cli.run("instance", "exec", "web", "--", "true", status=7, stdin=nothing)
        assert result.stdout == "true\n"
        process = cli.start("instance", "console", "web", stdin=subprocess.PIPE)
        out, _ = process.communicate(b"hello\n", timeout=SOON)
        assert out == b"console\nhello\n"
        process = cli.start("instance", "console", "web", stdin=subprocess.PIPE)
        out, _ = process.communicate(b"\x1d", timeout=SOON)
        assert (process.returncode, out) == (0, b"")
    cli.run("exec", "none", "--", "true", status=125)
    cli.run("exec", "web", status=None)


@pytest.mark.rows("N6", "P3", "P8")
def test_groups_of_both_kinds_are_shown_with_their_origin(cli, control):
    lost = Agent(control, "h1")
    with Worker(Agent(control, "h2")), Worker(lost):
        control.make_image()
        cli.run("launch", "-i", "mini", "-c", "2", "-g", "web")
    cli.run("run", "-g", "web", "--", "uuidgen")
    cli.run("run", "-g", "mine", "--", "uuidgen")
    origins = {(g["name"], g["origin"]) for g in
               json.loads(cli.run("group", "list", "--json").stdout)}
    assert origins == {("web", "local"), ("mine", "local"), ("web", "control-plane")}
    listed = cli.run("group", "list").stdout
    assert re.search(r"^web +healthy +web-1 ", listed, re.M) and re.search(r"^mine ", listed, re.M)
    both = json.loads(cli.run("group", "show", "web", "--json").stdout)
    assert both["origin"] == "local" and both["members"][0]["made"] > 0
    assert [m["name"] for m in both["control_plane"]["members"]] == ["web-1", "web-2"]
    cli.run("group", "remove", "web")
    lost.states[lost.find(next(i["name"] for i in lost.desired["instances"]))["id"]] = {
        "state": "failed", "reason": "killed"}
    lost.observe()
    shown = json.loads(cli.run("group", "show", "web", "--json").stdout)
    assert (shown["origin"], shown["state"]) == ("control-plane", "degraded")
    text = cli.run("group", "show", "web").stdout
    assert "degraded" in text and "killed" in text and "primary" in text
    assert "still in use" in cli.run("group", "remove", "web", status=5).stderr
    # A control plane that is away hides no local group.
    control.kill()
    result = cli.run("group", "list")
    assert "mine" in result.stdout and "not shown" in result.stderr
    cli.run("group", "show", "none", status=4)


@pytest.mark.rows("P4", "P5", "P6", "P8")
def test_networks_volumes_tenants_and_tokens_by_commands(cli, control):
    with Worker(Agent(control, "h1")):
        control.make_image()
        cli.run("network", "create", "lab", "10.20.0.0/24")
        assert ["lab", "10.20.0.0/24"] == table(cli.run("network", "list"))[-1][:2]
        cli.run("network", "create", "bad", "8.8.8.0/24", status=3)
        cli.run("launch", "web", "-i", "mini", "--network", "lab")
        rule = json.loads(cli.run("network", "allow", "lab", "-p", "80-81", "--from",
                                  "192.0.2.0/24", "--json").stdout)
        assert (rule["first_port"], rule["last_port"]) == (80, 81)
        assert "192.0.2.0/24" in cli.run("network", "rules", "lab").stdout
        cli.run("network", "deny", "lab", rule["id"])
        port = json.loads(cli.run("network", "publish", "web", "8053:53/udp", "--json").stdout)
        assert (port["host_port"], port["protocol"]) == (8053, "udp")
        cli.run("published", "delete", port["id"])
        cli.run("network", "publish", "web", "eighty", status=3)
        cli.run("volume", "create", "data", "--size", "10M", "--instance", "web")
        cli.run("volume", "attach", "data", "web")
        assert "attached" in cli.run("volume", "list").stdout
        cli.run("volume", "delete", "data", status=5)
        cli.run("volume", "detach", "data")
        cli.run("volume", "delete", "data")
        cli.run("tenant", "create", "acme")
        token = cli.run("token", "create", "--role", "viewer", "--tenant", "acme", "--expires",
                        "1h").stdout.strip()
        assert control.get("/v1/whoami", token=token).json["tenant"] == "acme"
        cli.environment["SOSIE_TOKEN"] = token
        assert cli.run("instance", "list", "--names").stdout == ""
        cli.run("instance", "show", "web", status=4)
        cli.run("host", "list", status=6)
        cli.environment["SOSIE_TOKEN"] = "nobody"
        assert "SOSIE_TOKEN" in cli.run("instance", "list", status=6).stderr
        cli.environment["SOSIE_TOKEN"] = control.token
        join = cli.run("token", "create", "--role", "join").stdout.strip()
        Agent(control, "h9", join=join)


@pytest.mark.rows("P8")
def test_events_are_followed_over_a_restart_of_the_reader(cli, control):
    process = cli.start("events", "--follow", "--json")
    control.must("POST", "/v1/networks", {"name": "n1", "cidr": "10.1.0.0/24"})

    def until(name):
        while True:
            event = json.loads(process.stdout.readline())
            if event["data"].get("name") == name:
                return event

    try:
        first = until("n1")
        control.must("POST", "/v1/networks", {"name": "n2", "cidr": "10.1.0.0/24"})
        assert until("n2")["revision"] > first["revision"]
    finally:
        process.kill()
        process.communicate()
    rest = cli.run("events", "--json", "--since", str(first["revision"])).stdout
    assert [json.loads(line)["data"]["name"] for line in rest.splitlines()] == ["n2"]


# up and down, with what stands in for hosts being a script that joins and beats


HOSTD = '''#!/usr/bin/python3
import argparse, json, os, sys, time, urllib.request
p = argparse.ArgumentParser()
for name in ("state", "url", "join-token-file", "name", "accel", "cores", "memory", "disk"):
    p.add_argument("--" + name)
o = p.parse_args()
if os.environ.get("HOSTD_FAILS"):
    sys.exit("no QEMU on this machine")
def call(path, body, token):
    q = urllib.request.Request(o.url + path, json.dumps(body).encode(),
                               {"Authorization": "Bearer " + token})
    return json.load(urllib.request.urlopen(q))
joined = call("/v1/agent/register", {"host": o.name, "accel": o.accel, "resources": {
    "cores": int(o.cores), "memory_bytes": int(o.memory), "disk_bytes": int(o.disk)}},
    open(o.join_token_file).read())
while True:
    call("/v1/agent/observed", {"boot_id": "b", "revision": 0, "instances": []}, joined["token"])
    time.sleep(1)
'''


@pytest.fixture
def installed(sosie, tmp_path):
    """The built programs, and beside them a sosie-hostd that has no guests."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sosie", "sosied"):
        shutil.copy(os.path.join(BIN, name), folder / name)
    (folder / "sosie-hostd").write_text(HOSTD)
    (folder / "sosie-hostd").chmod(0o755)
    started = []

    def start(*arguments, **options):
        options.setdefault("env", sosie.environment)
        process = subprocess.Popen([folder / "sosie", *arguments], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, **options)
        started.append(process)
        return process

    def run(*arguments, status=0):
        process = start(*arguments)
        out, err = process.communicate(timeout=SOON * 2)
        assert process.returncode == status, (arguments, process.returncode, out, err)
        return subprocess.CompletedProcess(arguments, status, out, err)

    sosie.installed, sosie.background = run, start
    yield sosie
    subprocess.run([folder / "sosie", "down"], env=sosie.environment, check=False,
                   capture_output=True)
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def processes(sosie):
    with open(sosie.state / "up" / "processes.json", encoding="utf-8") as file:
        return {p["name"]: p["pid"] for p in json.load(file)["processes"]}


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.rows("P8", "P1")
def test_up_starts_everything_and_down_ends_it(installed):
    result = installed.installed("up", "--hosts", "2", "--detach", "--accel", "tcg")
    assert result.stdout.startswith("2 hosts online, control plane at http://127.0.0.1:")
    assert os.stat(installed.state / "control.json").st_mode & 0o777 == 0o600
    assert not (installed.state / "up" / "join-token").exists()
    names = processes(installed)
    assert set(names) == {"control", "host-1", "host-2"}
    assert installed.installed("host", "list", "--names").stdout == "host-1\nhost-2\n"
    assert "running already" in installed.installed("up", status=5).stderr
    os.kill(names["control"], signal.SIGKILL)
    assert "not reachable" in installed.installed("host", "list", status=8).stderr
    installed.installed("down")
    assert not any(is_alive(pid) for pid in names.values())
    assert not (installed.state / "control.json").exists()
    installed.installed("down", status=4)
    # What was there is there again.
    installed.installed("up", "--hosts", "2", "--detach", "--accel", "tcg")
    assert installed.installed("host", "list", "--names").stdout == "host-1\nhost-2\n"
    installed.installed("down")


@pytest.mark.rows("P8")
def test_up_in_the_foreground_ends_with_an_interrupt(installed):
    process = installed.background("up", "--accel", "tcg")
    assert "1 host online" in process.stdout.readline()
    names = processes(installed)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SOON)
    assert process.returncode == 0
    assert not any(is_alive(pid) for pid in names.values())
    # And tells when one of its processes ends.
    process = installed.background("up", "--accel", "tcg")
    assert "1 host online" in process.stdout.readline()
    names = processes(installed)
    os.kill(names["host-1"], signal.SIGKILL)
    _, err = process.communicate(timeout=SOON)
    assert process.returncode == 8 and "host-1 has ended" in err
    assert not is_alive(names["control"])


@pytest.mark.rows("P8")
def test_up_that_fails_leaves_nothing_running(installed):
    installed.environment["HOSTD_FAILS"] = "1"
    failed = installed.installed("up", "--hosts", "2", "--detach", status=8)
    assert "host-1 has ended: no QEMU on this machine" in failed.stderr
    assert not (installed.state / "up" / "processes.json").exists()
    del installed.environment["HOSTD_FAILS"]
    installed.installed("up", "--hosts", "0", status=3)
    # A stranger that has got the number of one of ours is left alone.
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        installed.installed("up", "--detach", "--accel", "tcg")
        path = installed.state / "up" / "processes.json"
        record = json.loads(path.read_text())
        ours = [p["pid"] for p in record["processes"]]
        record["processes"].append({"name": "host-2", "pid": sleeper.pid, "started": 1})
        path.write_text(json.dumps(record))
        installed.installed("down")
        assert not any(is_alive(pid) for pid in ours)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
