# SPDX-License-Identifier: Apache-2.0
"""Guest images: built by images/build, started in a real QEMU from their own disk."""

import hashlib
import json
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import time

import pytest

from conftest import ROOT

BUILD = os.path.join(ROOT, "images", "build")
KEPT = os.path.join(ROOT, "build", "images")  # images and downloads, kept between runs
CACHE = os.path.join(KEPT, "cache")
HANG = 600  # seconds after which a guest without KVM on a busy machine counts as hung
PROMPT = rb"sosie-mini:\S+# "


def build(*arguments, **options):
    """Runs images/build to its end; returns the finished process, output as text."""
    return subprocess.run([BUILD, *map(str, arguments), "--cache", CACHE], capture_output=True,
                          text=True, timeout=HANG, check=False, **options)


def kept_image(recipe, *arguments):
    """The image that these arguments make, from an earlier run if the recipe is still the same."""
    digest = hashlib.sha256(repr(arguments).encode())
    for base, folders, files in sorted(os.walk(os.path.join(ROOT, "images"))):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(base, name)
            with open(path, "rb") as file:
                digest.update(os.path.relpath(path, ROOT).encode() + b"\0" + file.read())
    image = os.path.join(KEPT, f"test-{recipe}-{digest.hexdigest()[:16]}.qcow2")
    if not os.path.exists(image):
        os.makedirs(KEPT, exist_ok=True)
        for name in os.listdir(KEPT):
            if name.startswith(f"test-{recipe}-"):
                os.unlink(os.path.join(KEPT, name))
        done = build(recipe, "--output", image, *arguments)
        assert done.returncode == 0, done.stderr
    return image


class Guest:
    """A QEMU of our own with the serial console and QMP on sockets in a folder."""

    def __init__(self, folder, image, *arguments, size=None):
        folder.mkdir(exist_ok=True)
        disk = folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image,
                        str(disk), *([size] if size else [])], check=True)
        self.read = b""
        console, qmp = self._listen(folder / "console"), self._listen(folder / "qmp")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "256",
             "-smp", "1,maxcpus=2", "-nodefaults", "-no-user-config", "-display", "none",
             "-serial", f"unix:{folder}/console", "-qmp", f"unix:{folder}/qmp",
             "-drive", f"if=virtio,file={disk}", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            self.console, self.qmp = self._accept(console), self._accept(qmp)
            self.command("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _listen(path):
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(1)
        server.settimeout(60)
        return server

    @staticmethod
    def _accept(server):
        with server:
            connection = server.accept()[0]
        connection.settimeout(HANG)
        return connection

    def command(self, name, **arguments):
        line = json.dumps({"execute": name, "arguments": arguments})
        self.qmp.sendall(line.encode() + b"\n")

    def wait_for(self, pattern):
        """Reads the console up to the pattern; returns the match and forgets what was before."""
        deadline = time.monotonic() + HANG
        with selectors.DefaultSelector() as selector:
            selector.register(self.console, selectors.EVENT_READ)
            while not (match := re.search(pattern, self.read)):
                ready = selector.select(max(deadline - time.monotonic(), 0))
                data = self.console.recv(65536) if ready else b""
                assert data, f"{pattern} did not come: {self.read[-2000:].decode(errors='replace')}"
                self.read += data
        self.read = self.read[match.end():]
        return match

    def run(self, command, status=0):
        """Runs a line in the shell on the console; returns what it printed."""
        # Quoted apart, so that the shell's echo of the line is not taken for the marks.
        self.console.sendall(f"echo be''gin; {command}; echo en''d $?\n".encode())
        match = self.wait_for(rb"(?s)\bbegin\r*\n(.*?)end (\d+)\r*\n")
        output = match[1].decode(errors="replace").replace("\r", "")
        assert int(match[2]) == status, (command, match[2], output)
        return output

    def wait_for_end(self):
        """Waits until QEMU has ended by itself; returns its exit status."""
        return self.process.wait(HANG)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for connection in ("console", "qmp"):
            if hasattr(self, connection):
                getattr(self, connection).close()


@pytest.fixture
def guest(tmp_path):
    """guest(image, …): starts a guest that ends with the test."""
    started = []

    def start(image, *arguments, **options):
        one = Guest(tmp_path / f"guest{len(started)}", image, *arguments, **options)
        started.append(one)
        return one
    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def mini():
    return kept_image("mini")


@pytest.fixture(scope="session")
def debian():
    return kept_image("debian", "--package", "cloud-init", "--package", "dosfstools")


def boot_mini(guest, image, *arguments):
    one = guest(image, *arguments)
    one.wait_for(rb"sosie-mini: up")
    one.wait_for(PROMPT)
    return one


@pytest.mark.rows("P2")
def test_mini_runs_real_programs(mini, guest):
    one = boot_mini(guest, mini, "-device", "virtio-serial", "-device", "virtio-rng-pci",
                    "-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n")
    first, second = one.run("uuidgen").strip(), one.run("uuidgen").strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", first) and first != second
    assert re.fullmatch(r"\d{9}\n", one.run("date +%N"))
    assert sorted(one.run("shuf -i 1-9").split()) == list("123456789")
    assert re.fullmatch(r"[0-9a-f]{16}\n", one.run("openssl rand -hex 8"))
    # A preload library reaches only into programs that the dynamic linker starts.
    for program in ("uuidgen", "date", "shuf", "mktemp", "openssl", "sh"):
        assert "libc.so.6" in one.run(f"/lib64/ld-linux-x86-64.so.2 --list /usr/bin/{program}")
    loaded = one.run("lsmod")
    for module in ("virtio_blk", "virtio_net", "virtio_console", "virtio_rng"):
        assert re.search(f"^{module} ", loaded, re.M), loaded
    # The lease is asked for in the background.
    one.run("for i in $(seq 300); do ifconfig eth0 | grep -q 'inet addr' && break; sleep 0.2; done")
    assert "inet addr:10.0.2.15" in one.run("ifconfig eth0")


@pytest.mark.rows("P2")
def test_mini_keeps_files_over_a_reboot_and_powers_off(mini, guest):
    one = boot_mini(guest, mini)
    one.run("echo kept >/root/file")
    one.console.sendall(b"reboot\n")
    one.wait_for(rb"sosie-mini: up")
    one.wait_for(PROMPT)
    assert one.run("cat /root/file") == "kept\n"
    assert "1" in one.run("dmesg | grep -c 'EXT4-fs (vda2): mounted'")
    assert one.run("dmesg | grep -c 'recovery complete'", status=1) == "0\n"
    one.run("echo again >/root/file")
    one.command("send-key", keys=[{"type": "qcode", "data": key}
                                  for key in ("ctrl", "alt", "delete")])
    one.wait_for(rb"sosie-mini: up")
    one.wait_for(PROMPT)
    assert one.run("cat /root/file") == "again\n"
    one.command("system_powerdown")
    assert one.wait_for_end() == 0


@pytest.mark.rows("P2")
def test_mini_starts_an_added_agent(tmp_path, guest):
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\necho agent-was-here >/dev/console\nexec sleep 1000\n")
    image = tmp_path / "own.qcow2"
    done = build("mini", "--output", image, "--hostname", "other", "--size", "64M",
                 "--add", f"{agent}:/bin/sosie-guest:755")
    assert done.returncode == 0, done.stderr
    one = guest(image)
    one.wait_for(rb"agent-was-here")
    one.wait_for(rb"other:\S+# ")
    assert one.run("hostname; stat -c %a:%u /usr/bin/sosie-guest") == "other\n755:0\n"
    assert sorted(os.listdir(tmp_path)) == ["agent", "guest0", "own.json", "own.qcow2"]


@pytest.mark.rows("P2")
def test_manifest_and_equal_input_equal_image(tmp_path):
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    images = [tmp_path / "a.qcow2", tmp_path / "b.qcow2"]
    for image in images:
        done = build("mini", "--output", image, env=environment)
        assert done.returncode == 0, done.stderr
    data = images[0].read_bytes()
    assert data == images[1].read_bytes()
    assert len(data) < 64 << 20
    manifest = json.loads((tmp_path / "a.json").read_text())
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest["size"] == len(data)
    assert manifest["built_at"] == "2023-11-14T22:13:20Z"
    assert manifest["name"] == "a" and manifest["recipe"] == "mini"
    assert f"linux-image-{manifest['kernel']}" in manifest["packages"]
    assert {"busybox-static", "libc6", "uuid-runtime"} <= set(manifest["packages"])


@pytest.mark.rows("P2")
@pytest.mark.parametrize("arguments, status, said", [
    (["floppy", "--output", "x.qcow2"], 2, "invalid choice: 'floppy'"),
    (["mini"], 2, "--output"),
    (["mini", "--output", "x.img"], 2, "must end in .qcow2"),
    (["mini", "--output", "x.qcow2", "--package", "perl"], 2, "use debian"),
    (["mini", "--output", "x.qcow2", "--size", "9Q"], 2, "a size is"),
    (["mini", "--output", "x.qcow2", "--hostname", "a b"], 2, "host name"),
    (["mini", "--output", "x.qcow2", "--add", "/nowhere:/x"], 2, "no such file"),
    (["mini", "--output", "x.qcow2", "--add", "/bin/sh:/a/../b"], 2, "expected FILE"),
    (["mini", "--output", "x.qcow2", "--size", "30M"], 1, "give a larger --size"),
    (["mini", "--output", "x.qcow2", "--suite", "nosuch"], 1, "no suite nosuch"),
    (["mini", "--output", "/proc/x.qcow2"], 1, "cannot write in /proc"),
    (["mini", "--output", "/dev/null/x.qcow2"], 1, "cannot write in /dev/null"),
    (["debian", "--output", "x.qcow2", "--package", "no-such-package"], 1,
     "no such package in bookworm: no-such-package"),
    (["debian", "--output", "x.qcow2", "--package", "-oEvil"], 2, "--package"),
])
def test_bad_input_is_refused_and_leaves_nothing(tmp_path, arguments, status, said):
    done = build(*arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.rows("P2")
def test_full_disk_is_said_and_leaves_nothing(tmp_path):
    limit = 20 << 20

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    done = build("mini", "--output", "x.qcow2", cwd=tmp_path, preexec_fn=small_files)
    assert done.returncode == 1
    assert re.search(r"File too large|limit on the size of a file", done.stderr), done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.rows("P2")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing_and_keeps_the_old_image(tmp_path, number):
    image = tmp_path / "x.qcow2"
    image.write_text("the old one")
    with subprocess.Popen([BUILD, "mini", "--output", image, "--cache", CACHE],
                          stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "unpacking" in line:
                process.send_signal(number)
                break
        said = process.stderr.read()
        assert process.wait(HANG) == 130, said
    assert os.listdir(tmp_path) == ["x.qcow2"]
    assert image.read_text() == "the old one"


def make_seed(folder):
    """A NoCloud seed: a FAT disk called CIDATA with the instance's data."""
    seed = folder / "seed.img"
    (folder / "meta-data").write_text("instance-id: i-1\nlocal-hostname: seeded\n")
    (folder / "user-data").write_text(
        "#cloud-config\n"
        "runcmd:\n"
        "  - [sh, -c, 'echo seed-$(hostname)-$(df --output=size -BM / | tail -n1 | tr -d \" M\")"
        " >/dev/ttyS0']\n"
        # As after an update: the boot partition's copy differs from the system's own.
        "  - mount /boot/loader && echo >>/boot/loader/initrd.img && umount /boot/loader\n"
        "  - /usr/lib/sosie/copy-kernel\n"
        "  - mount /boot/loader\n"
        "  - [sh, -c, 'cmp /initrd.img /boot/loader/initrd.img && cmp /vmlinuz"
        " /boot/loader/vmlinuz; echo copied-$? >/dev/ttyS0']\n")
    with open(seed, "wb") as file:
        file.truncate(2 << 20)
    subprocess.run(["mformat", "-i", seed, "-v", "CIDATA", "::"], check=True)
    subprocess.run(["mcopy", "-i", seed, folder / "meta-data", folder / "user-data", "::"],
                   check=True)
    return seed


@pytest.mark.rows("P2")
def test_debian_boots_grows_and_obeys_cloud_init(debian, guest, tmp_path):
    seed = make_seed(tmp_path)
    one = guest(debian, "-m", "512", "-drive", f"if=virtio,format=raw,readonly=on,file={seed}",
                "-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n",
                size="3G")
    one.wait_for(rb"(sosie-debian|seeded) login: ")
    match = one.wait_for(rb"seed-(\w+)-(\d+)\r")
    assert match[1] == b"seeded"
    assert int(match[2]) > 2600  # MiB: the image's own disk has 2048
    assert one.wait_for(rb"copied-(\d+)")[1] == b"0"
    one.command("system_powerdown")
    assert one.wait_for_end() == 0
    with open(debian[:-len(".qcow2")] + ".json", encoding="utf-8") as file:
        manifest = json.load(file)
    assert {"cloud-init", "dosfstools", "systemd-sysv"} <= set(manifest["packages"])
