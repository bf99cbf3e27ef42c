# SPDX-License-Identifier: Apache-2.0
"""Guests under sosie-vm and sosie-hostd: real QEMU, a guest of one boot sector (guest.S), and a
control plane that the test plays (control_plane.py)."""

import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import BIN, ROOT
from control_plane import JOIN_TOKEN, ControlPlane

DISK = 1 << 20
PATIENCE = 60


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory):
    """A raw disk image with the guest in its boot sector."""
    folder = tmp_path_factory.mktemp("guest")
    source = os.path.join(ROOT, "tests", "system", "guest.S")
    subprocess.run(["gcc", "-m32", "-c", source, "-o", folder / "guest.o"], check=True)
    image = folder / "guest.img"
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", folder / "guest.o", image],
                   check=True)
    assert os.path.getsize(image) == 512
    os.truncate(image, DISK)
    return image


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def alive(pid):
    """Whether a process runs, and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def running_with(word):
    """The processes that have the word in their command lines."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as arguments:
                if word.encode() in arguments.read():
                    found.append(int(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def await_end(pid):
    """Waits for the end of any process, by its pidfd."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"process {pid} does not end"
    finally:
        os.close(pidfd)


def unix_connect(path):
    """Connects to a socket whose path may be too long for one."""
    folder = os.open(os.path.dirname(path), os.O_PATH)
    try:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        connection.settimeout(PATIENCE)
        return connection
    finally:
        os.close(folder)


def peer_pid(connection):
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")


class Console:
    """The interactive console of a guest."""

    def __init__(self, folder):
        self.connection = unix_connect(os.path.join(folder, "console.sock"))

    def send(self, text):
        self.connection.sendall(text.encode())

    def until(self, text):
        seen = b""
        while text.encode() not in seen:
            block = self.connection.recv(4096)
            assert block, f"the console ended before {text!r}: {seen!r}"
            seen += block
        return seen.decode()

    def close(self):
        self.connection.close()


def console_log(folder):
    with open(os.path.join(folder, "console.log"), encoding="ascii") as log:
        return log.read()


def await_console(folder, text):
    """Waits for the text in the log; it is polled, being a file."""
    deadline = time.monotonic() + PATIENCE
    while text not in console_log(folder):
        assert time.monotonic() < deadline, console_log(folder)
        select.select([], [], [], 0.02)


def record_of(folder):
    """The entries of a machine's record."""
    with open(os.path.join(folder, "events"), encoding="utf-8") as lines:
        head, *entries = [json.loads(line) for line in lines]
    assert head["format"] == "sosie-record"
    return entries


def kinds(entries):
    return [entry["data"]["event"] if entry["kind"] == "qmp" else entry["kind"]
            for entry in entries]


class Vm:
    """One sosie-vm, started as the agent would."""

    def __init__(self, folder, image, **spec):
        self.folder = str(folder)
        os.makedirs(self.folder)
        os.chmod(self.folder, 0o711)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", str(image), "-F",
                        "raw", os.path.join(self.folder, "disk.qcow2"), str(DISK)], check=True)
        self.spec = {"version": 1, "id": "i-test", "accel": "tcg", "cpu": "max", "cores": 1,
                     "memory_mib": 32, "image": {"path": str(image), "format": "raw"},
                     "grace_ms": 20000, **spec}
        if os.geteuid() == 0:
            self.spec.setdefault("user", {"uid": 65534, "gid": 65534})
        self.process = self.connection = None

    def start(self):
        """Returns the line that it tells its starter."""
        with open(os.path.join(self.folder, "spec.json"), "w", encoding="utf-8") as file:
            json.dump(self.spec, file)
        ready, theirs = os.pipe()
        self.process = subprocess.Popen(
            [os.path.join(BIN, "sosie-vm"), self.folder, str(theirs)], pass_fds=[theirs],
            stderr=subprocess.PIPE)
        os.close(theirs)
        with os.fdopen(ready, encoding="utf-8") as lines:
            told = json.loads(lines.readline())
        if "running" in told:
            self.connection = unix_connect(os.path.join(self.folder, "vm.sock"))
            self.lines = self.connection.makefile("rw", encoding="utf-8")
        return told

    def ask(self, op, **fields):
        self.lines.write(json.dumps({"op": op, "id": 7, **fields}) + "\n")
        self.lines.flush()
        answer = json.loads(self.lines.readline())
        assert answer["id"] == 7
        return answer

    def wait_event(self, name, times=1):
        """Waits for so many entries by the name that kinds() gives."""
        entries, start = [], 1
        while kinds(entries).count(name) < times:
            answer = self.ask("events", **{"from": start, "wait": True})
            entries += answer["events"]
            start = answer["next"]

    def wait(self):
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process:
            self.process.stderr.close()
        if self.connection:
            self.lines.close()
            self.connection.close()


@pytest.fixture
def make_vm(tmp_path, guest_image):
    made = []

    def make(**spec):
        made.append(Vm(tmp_path / f"vm{len(made)}", guest_image, **spec))
        return made[-1]
    yield make
    for vm in made:
        vm.close()


@pytest.mark.rows("P3")
def test_a_machine_runs_reboots_and_says_why_it_ended(make_vm):
    vm = make_vm(nics=[{"mac": "52:54:00:12:34:56"}])
    assert vm.start() == {"running": True}
    status = vm.ask("status")["status"]
    assert status["state"] == "running" and alive(status["pid"]) and not status["paused"]
    console, second = Console(vm.folder), Console(vm.folder)
    await_console(vm.folder, "boot 0001\n")
    console.send("hello")
    assert second.until("hello"), "everybody attached sees the guest's output"
    console.send("r")
    console.until("boot 0002\n")
    console.send("t")
    console.until("boot 0003\n")
    assert vm.ask("reboot", count=1) == {"id": 7}
    console.until("boot 0004\n")
    assert vm.ask("reboot", count=1) == {"id": 7}, "the same reboot is not done again"
    # The NIC's socket: QEMU listens, and again when a peer has left.
    for times in range(1, 3):
        unix_connect(os.path.join(vm.folder, "nic0.sock")).close()
        vm.wait_event("NETDEV_STREAM_DISCONNECTED", times)
    assert vm.ask("stop") == {"id": 7}
    assert vm.wait() == 0
    entries = record_of(vm.folder)
    assert [entry["sequence"] for entry in entries] == list(range(1, len(entries) + 1))
    names = kinds(entries)
    assert names[:4] == ["starting", "started", "RESUME", "running"]
    assert names.count("reboot-requested") == 1
    assert [name for name in names if name in ("stop-requested", "SHUTDOWN", "ended")] == [
        "stop-requested", "SHUTDOWN", "ended"]
    assert entries[-1]["data"] == {"cause": "stopped", "failure": False,
                                   "reason": "stopped on request", "status": 0}
    assert not alive(status["pid"])
    assert console_log(vm.folder).count("boot ") == 4
    assert sorted(os.listdir(vm.folder)) == ["console.log", "disk.qcow2", "events", "spec.json"]
    console.close()
    second.close()
    # The disk and the record go on at the next start.
    assert vm.start() == {"running": True}
    await_console(vm.folder, "boot 0005\n")
    console = Console(vm.folder)
    console.send("p")
    assert vm.wait() == 0
    console.close()
    assert record_of(vm.folder)[-1]["data"]["cause"] == "guest-power-off"


@pytest.mark.rows("P3")
def test_force_ends_a_guest_that_does_not_listen(make_vm):
    vm = make_vm(grace_ms=200)
    vm.start()
    console = Console(vm.folder)
    await_console(vm.folder, "boot 0001\n")
    console.send("d")
    console.until("D")
    vm.ask("reboot", count=1)
    console.until("boot 0002\n")
    assert "reboot-forced" in kinds(record_of(vm.folder))
    console.send("d")
    console.until("D")
    vm.ask("stop")
    assert vm.wait() == 0
    console.close()
    assert record_of(vm.folder)[-1]["data"]["cause"] == "forced"
    assert "stop-forced" in kinds(record_of(vm.folder))


@pytest.mark.rows("P3")
@pytest.mark.parametrize("number,cause,reason", [
    (signal.SIGKILL, "qemu-killed", "QEMU was killed by signal 9"),
    (signal.SIGTERM, "qemu-signalled", "QEMU was asked to end by a signal"),
    (signal.SIGSEGV, "qemu-killed", "QEMU was killed by signal 11"),
])
def test_the_end_of_qemu_is_told_apart(make_vm, number, cause, reason):
    vm = make_vm()
    vm.start()
    os.kill(vm.ask("status")["status"]["pid"], number)
    assert vm.wait() == 0
    end = record_of(vm.folder)[-1]
    assert end["kind"] == "ended" and end["data"]["failure"]
    assert (end["data"]["cause"], end["data"]["reason"]) == (cause, reason)


@pytest.mark.rows("P3")
def test_qemu_does_not_outlive_its_supervisor(make_vm):
    """As documented: a guest whose ends nobody would write down is ended by the kernel."""
    vm = make_vm()
    vm.start()
    qemu = vm.ask("status")["status"]["pid"]
    assert alive(qemu)
    pidfd = os.pidfd_open(qemu)
    vm.process.kill()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "QEMU runs on without a supervisor"
    os.close(pidfd)
    assert kinds(record_of(vm.folder))[-1] == "running"


@pytest.mark.rows("P3")
def test_a_machine_that_cannot_start_says_why(make_vm):
    vm = make_vm(cpu="no-such-model")
    told = vm.start()
    assert "no-such-model" in told["error"]["message"], told
    vm.wait()
    assert record_of(vm.folder)[-1]["data"]["cause"] == "qemu-not-started"
    vm.spec["cpu"] = "max"
    vm.spec["image"]["path"] = "/nowhere.img"
    assert "/nowhere.img" in vm.start()["error"]["message"]
    assert vm.wait() == 1
    for field, value in [("cores", 0), ("accel", "xen"), ("cpu", "max -S"), ("version", 2),
                         ("nics", [{"mac": "53:54:00:12:34:56"}]), ("unknown", 1),
                         ("memory_mib", "64")]:
        broken = make_vm(**{field: value})
        told = broken.start()
        assert f"/{field}" in told["error"]["message"], told
        assert broken.wait() == 1
        assert not os.path.exists(os.path.join(broken.folder, "events"))


@pytest.mark.rows("P3")
def test_only_one_supervisor_holds_a_machine(make_vm):
    vm = make_vm()
    vm.start()
    second = subprocess.run([os.path.join(BIN, "sosie-vm"), vm.folder], capture_output=True,
                            text=True, timeout=PATIENCE, check=False)
    assert second.returncode == 1 and "in use by another process" in second.stderr
    assert vm.ask("status")["status"]["state"] == "running"


@pytest.mark.rows("P3")
def test_qemu_runs_without_rights(make_vm):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    vm = make_vm()
    vm.start()
    with open(f"/proc/{vm.ask('status')['status']['pid']}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    owned = {name for name in os.listdir(vm.folder)
             if os.stat(os.path.join(vm.folder, name)).st_uid == 65534}
    assert owned == {"disk.qcow2", "console.log"}


@pytest.mark.rows("P3")
def test_shared_memory_is_the_file_that_was_named(make_vm, tmp_path):
    shared = tmp_path / "segment"
    shared.write_bytes(bytes(1 << 20))
    vm = make_vm(shared={"path": str(shared), "bytes": 1 << 20})
    assert vm.start() == {"running": True}
    with open(f"/proc/{vm.ask('status')['status']['pid']}/maps", encoding="utf-8") as maps:
        assert any(line.rstrip().endswith(str(shared)) and "rw-s" in line for line in maps)


@pytest.mark.rows("P3")
def test_nonsense_on_the_control_socket_is_answered(make_vm):
    vm = make_vm()
    vm.start()
    for request, says in [({"op": "dance"}, "no operation"), ({"op": 5}, "/op"),
                          ({"op": "events"}, "/from"), ({"op": "reboot"}, "/count"),
                          ({"op": "stop", "force": 1}, "/force")]:
        assert says in vm.ask(**request)["error"]["message"]
    other = unix_connect(os.path.join(vm.folder, "vm.sock"))
    other.sendall(b"\xff\x00 no JSON\n")
    assert other.recv(100) == b"", "who speaks no JSON is left"
    other.close()
    assert vm.ask("status")["status"]["state"] == "running"


class Agent:
    """sosie-hostd on a state folder."""

    def __init__(self, folder, plane):
        self.state = str(folder)
        self.plane = plane
        self.token = os.path.join(os.path.dirname(self.state), "join-token")
        with open(self.token, "w", encoding="ascii") as file:
            file.write(JOIN_TOKEN + "\n")
        self.process = None

    def start(self, *options):
        self.process = subprocess.Popen(
            [os.path.join(BIN, "sosie-hostd"), "--state", self.state, "--url", self.plane.url,
             "--name", "host-1", "--zone", "here", "--accel", "tcg", "--heartbeat", "200ms",
             "--grace", "20s", "--join-token-file", self.token, *options])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def folder(self, identity):
        return os.path.join(self.state, "instances", identity)

    def vm_pid(self, identity):
        connection = unix_connect(os.path.join(self.folder(identity), "vm.sock"))
        with connection:
            return peer_pid(connection)

    def close(self):
        """Ends the agent, and then whatever guest it has left."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        folder = os.path.join(self.state, "instances")
        for identity in os.listdir(folder) if os.path.isdir(folder) else []:
            try:
                pid = self.vm_pid(identity)
            except OSError:
                continue
            os.kill(pid, signal.SIGKILL)
            await_end(pid)


@pytest.fixture
def plane():
    control_plane = ControlPlane()
    yield control_plane
    control_plane.close()
    assert not control_plane.complaints


@pytest.fixture
def agent(tmp_path, plane):
    made = Agent(tmp_path / "state", plane)
    yield made
    made.close()


@pytest.fixture
def wanted(guest_image):
    """What is desired of an instance of the test's guest."""
    return {"name": "web", "tenant": "default", "cores": 1, "memory_mib": 32, "disk_bytes": DISK,
            "image": {"name": "guest", "sha256": sha256_of(guest_image),
                      "path": str(guest_image)},
            "nics": [{"network": "n-1", "mac": "52:54:00:00:00:01", "ip": "10.0.0.5"}]}


def check_events(plane, identity, folder=None):
    """No event lost or doubled: the machine's own record came as it is, in order."""
    shipped = [event for event in plane.of(identity)
               if event["kind"] not in ("instance.adopted", "instance.failed",
                                        "instance.supervisor-lost", "instance.removed")]
    if folder:
        entries = record_of(folder)
        plane.wait("all events", lambda: sum(
            event["subject"] == identity and event["time_ns"] == entries[-1]["time_ns"]
            for event in plane.events))
        shipped = [event for event in plane.of(identity) if event["kind"] not in (
            "instance.adopted", "instance.failed", "instance.supervisor-lost")]
        assert [(event["kind"], event["time_ns"]) for event in shipped] == [
            ("instance." + entry["kind"], entry["time_ns"]) for entry in entries]
    times = [event["time_ns"] for event in shipped]
    assert times == sorted(times) and len(set(times)) == len(times)
    return shipped


@pytest.mark.rows("P1")
def test_a_host_registers_with_what_it_has(plane, agent):
    agent.start()
    told = plane.wait("the registration", lambda: plane.registrations and plane.registrations[0])
    assert told["host"] == "host-1" and told["zone"] == "here" and told["accel"] == "tcg"
    resources = told["resources"]
    assert resources["cores"] == len(os.sched_getaffinity(0))
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        assert resources["memory_bytes"] == int(meminfo.readline().split()[1]) * 1024
    with open("/proc/cpuinfo", encoding="ascii") as cpuinfo:
        assert f": {resources['cpu_model']}\n" in cpuinfo.read()
    free = os.statvfs(agent.state)
    assert resources["disk_bytes"] <= free.f_blocks * free.f_frsize
    plane.wait("heartbeats", lambda: plane.observations >= 3)
    with open(os.path.join(agent.state, "agent.json"), encoding="utf-8") as file:
        assert json.load(file)["host_id"] == "h-1"
    assert os.stat(os.path.join(agent.state, "agent.json")).st_mode & 0o77 == 0
    # Known from now on by its own token; offered resources may be a part.
    agent.kill()
    os.unlink(agent.token)
    agent.process = subprocess.Popen(
        [os.path.join(BIN, "sosie-hostd"), "--state", agent.state, "--url", plane.url, "--name",
         "host-1", "--accel", "tcg", "--cores", "1", "--memory", "512M", "--disk", "1G"])
    plane.wait("another registration", lambda: len(plane.registrations) == 2)
    again = plane.registrations[1]["resources"]
    assert (again["cores"], again["memory_bytes"], again["disk_bytes"]) == (1, 512 << 20, 1 << 30)
    second = subprocess.run([os.path.join(BIN, "sosie-hostd"), "--state", agent.state, "--url",
                             plane.url, "--accel", "tcg"], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    assert second.returncode == 5 and "another agent" in second.stderr


@pytest.mark.rows("P3")
def test_the_life_of_an_instance(plane, agent, wanted):
    agent.start()
    plane.desire("i-1", state="running", **wanted)
    seen = plane.wait_state("i-1", "running")
    folder = agent.folder("i-1")
    qemu = plane.wait("its pid", lambda: plane.observed["i-1"]["pid"])
    assert alive(qemu), seen
    await_console(folder, "boot 0001\n")
    plane.desire("i-1", reboots=1)
    await_console(folder, "boot 0002\n")
    plane.wait_state("i-1", "running", reboots=1)
    plane.desire("i-1", state="stopped")
    seen = plane.wait_state("i-1", "stopped")
    assert seen["reason"] == "stopped on request" and seen["pid"] == 0 and not alive(qemu)
    plane.desire("i-1", state="running")
    plane.wait_state("i-1", "running")
    await_console(folder, "boot 0003\n")
    # A guest that powers off stays so, until a start is asked for.
    console = Console(folder)
    console.send("p")
    seen = plane.wait_state("i-1", "stopped")
    console.close()
    assert seen["reason"] == "guest powered off"
    seen = plane.observations
    plane.wait("some heartbeats", lambda: plane.observations > seen + 3)
    plane.wait_state("i-1", "stopped", reason="guest powered off")
    plane.desire("i-1", starts=1)
    plane.wait_state("i-1", "running", starts=1)
    await_console(folder, "boot 0004\n")
    plane.desire("i-1", state="absent")
    plane.wait_state("i-1", "absent")
    plane.wait_event("i-1", "instance.removed")
    assert not os.path.exists(folder)
    check_events(plane, "i-1")
    plane.desire("i-1", state=None)
    plane.wait_gone("i-1")


@pytest.mark.rows("P3")
def test_a_killed_qemu_is_noticed_at_once(plane, agent, wanted):
    # No heartbeat will bring the news.
    agent.start("--heartbeat", "1h")
    plane.desire("i-1", state="running", **wanted)
    plane.wait_state("i-1", "running")
    vm = agent.vm_pid("i-1")
    os.kill(plane.wait("its pid", lambda: plane.observed["i-1"]["pid"]), signal.SIGKILL)
    seen = plane.wait_state("i-1", "failed")
    assert seen["reason"] == "QEMU was killed by signal 9" and seen["pid"] == 0
    assert not alive(vm), "the supervisor ends when all is written down"
    end = plane.wait_event("i-1", "instance.ended")
    assert end["data"]["cause"] == "qemu-killed"
    check_events(plane, "i-1", agent.folder("i-1"))
    plane.desire("i-1", starts=1)
    plane.wait_state("i-1", "running")
    await_console(agent.folder("i-1"), "boot 000")


@pytest.mark.rows("P3")
def test_a_killed_supervisor_takes_its_guest_along(plane, agent, wanted):
    agent.start()
    plane.desire("i-1", state="running", **wanted)
    plane.wait_state("i-1", "running")
    qemu = plane.wait("its pid", lambda: plane.observed["i-1"]["pid"])
    os.kill(agent.vm_pid("i-1"), signal.SIGKILL)
    seen = plane.wait_state("i-1", "failed")
    assert "sosie-vm was killed" in seen["reason"] and not alive(qemu)
    plane.wait_event("i-1", "instance.supervisor-lost")
    plane.desire("i-1", starts=1)
    plane.wait_state("i-1", "running")
    # The same while there is no agent: the next one finds it out.
    vm = agent.vm_pid("i-1")
    agent.kill()
    os.kill(vm, signal.SIGKILL)
    await_end(vm)
    agent.start()
    assert "sosie-vm was killed" in plane.wait_state("i-1", "failed", starts=1)["reason"]
    plane.wait_event("i-1", "instance.supervisor-lost",
                     plane.wait_event("i-1", "instance.supervisor-lost")["sequence"])
    plane.desire("i-1", state="absent")
    plane.wait_state("i-1", "absent")


@pytest.mark.rows("P3")
def test_a_killed_agent_is_followed_by_one_that_adopts(plane, agent, wanted, repeat):
    agent.start()
    plane.desire("i-1", state="running", **wanted)
    plane.wait_state("i-1", "running")
    folder = agent.folder("i-1")
    vm = agent.vm_pid("i-1")
    qemu = plane.wait("its pid", lambda: plane.observed["i-1"]["pid"])
    console = Console(folder)
    boots = 1
    await_console(folder, "boot 0001\n")
    for turn in range(max(repeat(60), 3)):
        agent.kill()
        # What happens meanwhile is not lost: a reset of the guest's own.
        console.send("r")
        boots += 1
        console.until(f"boot {boots:04x}\n")
        assert alive(qemu) and alive(vm)
        agent.start()
        # At some moments it is killed again before it has come far.
        if turn % 3 == 1:
            console.send("r")
            boots += 1
            console.until(f"boot {boots:04x}\n")
            continue
        adopted = sum(event["kind"] == "instance.adopted" for event in plane.of("i-1"))
        plane.wait("the adoption", lambda n=adopted: sum(
            event["kind"] == "instance.adopted" for event in plane.events) > n)
        plane.wait_state("i-1", "running", pid=qemu)
    assert agent.vm_pid("i-1") == vm
    # An end while nobody is there is told by the next agent.
    agent.kill()
    console.send("p")
    await_end(vm)
    console.close()
    agent.start()
    seen = plane.wait_state("i-1", "stopped")
    assert seen["reason"] == "guest powered off"
    check_events(plane, "i-1", folder)


@pytest.mark.rows("P3")
def test_guests_go_on_while_the_control_plane_is_away(plane, agent, wanted):
    agent.start()
    plane.desire("i-1", state="running", **wanted)
    plane.wait_state("i-1", "running")
    folder = agent.folder("i-1")
    await_console(folder, "boot 0001\n")
    plane.go_away()
    before = len(plane.of("i-1"))
    console = Console(folder)
    for boot in range(2, 6):
        console.send("r")
        console.until(f"boot {boot:04x}\n")
    # Also an agent that is new, and has never heard what is desired, leaves them alone.
    agent.kill()
    agent.start()
    console.send("r")
    console.until("boot 0006\n")
    console.close()
    assert len(plane.of("i-1")) == before
    plane.come_back()
    plane.wait("the events", lambda: len(plane.events) > before + 5)
    plane.wait_state("i-1", "running")
    plane.desire("i-1", state="stopped")
    plane.wait_state("i-1", "stopped")
    check_events(plane, "i-1", folder)


@pytest.mark.rows("P3")
def test_a_bad_instance_fails_alone_and_leaves_nothing(plane, agent, wanted):
    agent.start()
    bad = {
        "i-cores": ({"cores": 0}, "/cores"),
        "i-digest": ({"image": {**wanted["image"], "sha256": "0" * 64}}, "SHA-256"),
        "i-path": ({"image": {**wanted["image"], "path": "/nowhere.img"}}, "/nowhere.img"),
        "i-small": ({"disk_bytes": 512}, "needs a disk of"),
        "i-state": ({"state": "dancing"}, "none of"),
        "../escape": ({}, None),
    }
    for identity, (change, _) in bad.items():
        plane.desire(identity, **{"state": "running", **wanted, **change})
    plane.desire("i-good", state="running", **wanted)
    plane.wait_state("i-good", "running")
    for identity, (_, says) in bad.items():
        if says:
            seen = plane.wait_state(identity, "failed")
            assert says in seen["reason"], seen
            assert not os.path.exists(agent.folder(identity))
    assert "../escape" not in plane.observed
    assert os.listdir(os.path.join(agent.state, "instances")) == ["i-good"]
    # What only QEMU finds out: the disk stays, for another start.
    plane.desire("i-cpu", state="running", **{**wanted, "cpu": "no-such-model"})
    assert "no-such-model" in plane.wait_state("i-cpu", "failed")["reason"]
    plane.desire("i-cpu", cpu="max", starts=1)
    plane.wait_state("i-cpu", "running")
    # Corrected ones are made.
    plane.desire("i-cores", cores=1)
    plane.wait_state("i-cores", "running")
    for identity in (*bad, "i-good", "i-cpu"):
        plane.desire(identity, state=None)
    plane.wait("all to be gone", lambda: not plane.observed)
    assert os.listdir(os.path.join(agent.state, "instances")) == []


@pytest.mark.rows("P2", "P3")
def test_an_image_is_fetched_once_and_checked(plane, agent, wanted, guest_image):
    plane.images["guest"] = guest_image.read_bytes()
    plane.images["other"] = b"something else" * 1024
    fetched = {"name": "guest", "sha256": wanted["image"]["sha256"]}
    agent.start()
    plane.desire("i-1", state="stopped", **{**wanted, "image": fetched})
    plane.desire("i-2", state="stopped", **{**wanted, "image": fetched})
    plane.desire("i-3", state="running",
                 **{**wanted, "image": {"name": "other", "sha256": "1" * 64}})
    plane.wait_state("i-1", "stopped", reason="made ready")
    plane.wait_state("i-2", "stopped", reason="made ready")
    assert "SHA-256" in plane.wait_state("i-3", "failed")["reason"]
    assert plane.image_requests == 2
    assert sorted(os.listdir(os.path.join(agent.state, "images"))) == [
        fetched["sha256"], fetched["sha256"] + ".json"]
    plane.desire("i-2", state="running")
    plane.wait_state("i-2", "running")
    await_console(agent.folder("i-2"), "boot 0001\n")
    # An image that has been tampered with since is noticed before a guest runs on it.
    cached = os.path.join(agent.state, "images", fetched["sha256"])
    with open(cached, "r+b") as file:
        file.seek(DISK - 1)
        file.write(b"x")
    plane.desire("i-1", state="running")
    assert "SHA-256" in plane.wait_state("i-1", "failed")["reason"]


@pytest.mark.rows("P3")
def test_a_full_disk_fails_with_the_reason_and_leaves_nothing(plane, agent, wanted):
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    os.makedirs(agent.state)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "none", agent.state], check=True)
    try:
        agent.start()
        plane.wait("the registration", lambda: plane.registrations)
        ballast = os.path.join(agent.state, "ballast")
        free = os.statvfs(agent.state)
        with open(ballast, "wb") as file:
            file.write(bytes(free.f_bavail * free.f_frsize - 100000))
        plane.desire("i-1", state="running", **wanted)
        seen = plane.wait_state("i-1", "failed")
        assert "No space left on device" in seen["reason"], seen
        assert os.listdir(os.path.join(agent.state, "instances")) == []
        os.unlink(ballast)
        plane.desire("i-1", starts=1)
        plane.wait_state("i-1", "running")
        plane.desire("i-1", state="absent")
        plane.wait_state("i-1", "absent")
    finally:
        agent.close()
        subprocess.run(["umount", agent.state], check=True)


@pytest.mark.rows("P3")
def test_what_is_not_desired_is_cleaned_away(plane, agent, wanted):
    agent.start()
    plane.desire("i-1", state="running", **wanted)
    plane.wait_state("i-1", "running")
    qemu = plane.wait("its pid", lambda: plane.observed["i-1"]["pid"])
    agent.kill()
    # Left by an agent that was killed while it made something ready.
    half = agent.folder("i-half")
    os.makedirs(half)
    shutil.copy(os.path.join(agent.folder("i-1"), "disk.json"), half)
    plane.desire("i-1", state=None)
    agent.start()
    plane.wait("all to be gone", lambda: plane.observations and not plane.observed and
               plane.registrations and len(plane.registrations) == 2)
    assert not alive(qemu)
    assert os.listdir(os.path.join(agent.state, "instances")) == []


@pytest.mark.rows("P1")
def test_several_agents_live_on_one_machine(tmp_path, wanted):
    planes = [ControlPlane(), ControlPlane()]
    agents = []
    try:
        for number, each in enumerate(planes):
            (tmp_path / f"{number}").mkdir()
            agents.append(Agent(tmp_path / f"{number}" / "state", each))
            agents[-1].start()
            each.desire("i-1", state="running", **wanted)
        for each, of in zip(planes, agents):
            each.wait_state("i-1", "running")
            await_console(of.folder("i-1"), "boot 0001\n")
        agents[0].kill()
        planes[1].desire("i-1", state="stopped")
        planes[1].wait_state("i-1", "stopped")
        assert alive(agents[0].vm_pid("i-1"))
    finally:
        for each in agents:
            each.close()
        for each in planes:
            each.close()
            assert not each.complaints


@pytest.mark.rows("P1")
def test_an_unknown_token_is_said_and_tried_again(plane, agent):
    with open(agent.token, "w", encoding="ascii") as file:
        file.write("wrong\n")
    agent.start()
    agent.kill()
    nobody = subprocess.run([os.path.join(BIN, "sosie-hostd"), "--state", agent.state, "--url",
                             plane.url, "--accel", "tcg"], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    assert nobody.returncode == 2 and "not registered" in nobody.stderr
    with open(agent.token, "w", encoding="ascii") as file:
        file.write(JOIN_TOKEN)
    agent.start()
    plane.wait("the registration", lambda: plane.registrations)
    # The control plane has forgotten the agent's token: the join token is the way back.
    with plane.changed:
        plane.tokens.clear()
    plane.wait("another registration", lambda: len(plane.registrations) == 2)


@pytest.mark.rows("P1", "P3")
def test_the_accelerator_is_found_out_by_running_a_guest(tmp_path):
    started = time.monotonic()
    done = subprocess.run([os.path.join(BIN, "sosie-hostd"), "--probe-accel"],
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    verdict, reason = done.stdout.strip().split(": ", 1)
    assert verdict in ("tcg", "kvm") and len(reason) > 10
    if not os.path.exists("/dev/kvm"):
        assert reason == "this host has no /dev/kvm"
    print(f"verdict {verdict} after {time.monotonic() - started:.1f} s: {reason}")
    assert not running_with("isa-debug-exit"), "the test guest is left running"
    # An agent keeps the verdict.
    token = tmp_path / "join"
    token.write_text("x")
    plane = ControlPlane()
    agent = Agent(tmp_path / "state", plane)
    try:
        agent.start("--accel", "auto")
        told = plane.wait("the registration", lambda: plane.registrations and
                          plane.registrations[0])
        assert told["accel"] == verdict
        with open(os.path.join(agent.state, "accel.json"), encoding="utf-8") as file:
            kept = json.load(file)
        assert (kept["accel"], kept["reason"]) == (verdict, reason)
    finally:
        agent.close()
        plane.close()
