# SPDX-License-Identifier: Apache-2.0
"""Real virtual machines for tests: QEMU under TCG, the image `mini`, and the host's end of the
guest agent's port (src/guest/protocol.h)."""

import contextlib
import fcntl
import hashlib
import os
import select
import socket
import struct
import subprocess
import time

from conftest import BIN, ROOT

IMAGES = os.path.join(ROOT, "build", "images")
HELLO, EXEC, INPUT, SIGNAL, STARTED, OUTPUT, EXITED, FAILED = range(1, 9)
PROGRAMS = os.path.join(ROOT, "build", "tests", "programs")

# What the image gets beside its packages.
ADDED = {
    os.path.join(BIN, "sosie-guest"): "/usr/bin/sosie-guest",
    os.path.join(ROOT, "build", "lib", "libsosie-preload.so"):
        "/usr/lib/sosie/libsosie-preload.so",
    **{os.path.join(PROGRAMS, name): f"/usr/bin/{name}"
       for name in ("threads", "race", "deadlines", "handlers", "swaps")},
}


def mini_image():
    """The image, built when the programs in it or its recipe have changed; a lock serialises."""
    digest = hashlib.sha256()
    sources = [*ADDED]
    for folder, _, names in os.walk(os.path.join(ROOT, "images")):
        sources += [os.path.join(folder, name) for name in names if not name.endswith(".pyc")]
    for path in sorted(sources):
        with open(path, "rb") as file:
            digest.update(path.encode() + b"\0" + file.read())
    os.makedirs(IMAGES, exist_ok=True)
    image = os.path.join(IMAGES, f"test-mini-{digest.hexdigest()[:16]}.qcow2")
    with open(os.path.join(IMAGES, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(image):
            command = [os.path.join(ROOT, "images", "build"), "mini", "--output", image,
                       "--cache", os.path.join(IMAGES, "cache")]
            for source, target in ADDED.items():
                command += ["--add", f"{source}:{target}:755"]
            subprocess.run(command, check=True, capture_output=True, timeout=500)
    return image


class Guest:
    """A running machine. Use as a context: it is ended whatever happens."""

    def __init__(self, folder, segment=None, memory=256):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.segment = segment
        self.memory = memory
        self.process = self.port = None
        self.sessions = 0
        self.received = b""

    def __enter__(self):
        disk = self.folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                        mini_image(), disk], check=True)
        command = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max",
            "-m", str(self.memory), "-smp", "1,maxcpus=2", "-nodefaults", "-display", "none",
            "-sandbox", "on", "-drive", f"file={disk},if=virtio",
            "-serial", f"file:{self.folder}/console.log",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=guest,path={self.folder}/guest.sock,server=on,wait=off",
            "-device", "virtserialport,chardev=guest,name=org.sosie.guest.0",
        ]
        if self.segment:
            size = os.stat(self.segment).st_size
            command += ["-object", "memory-backend-file,id=values,share=on,"
                        f"mem-path={self.segment},size={size}",
                        "-device", "ivshmem-plain,memdev=values"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stderr=open(self.folder / "qemu.log", "wb"))
        try:
            self.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.port:
            self.port.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def console(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    def connect(self, timeout=90):
        """Until the agent answers: HELLO is sent again, since QEMU drops what comes too early."""
        end = time.monotonic() + timeout
        while True:
            assert self.process.poll() is None, (self.folder / "qemu.log").read_text()
            assert time.monotonic() < end, self.console()[-2000:]
            if not self.port:
                port = socket.socket(socket.AF_UNIX)
                try:
                    port.connect(str(self.folder / "guest.sock"))
                    self.port = port
                except OSError:
                    port.close()
                    time.sleep(0.02)
                    continue
            self._send(HELLO, 0)
            answer = self._receive(0.3)
            if answer and answer[0] == HELLO:
                self.version, self.shared = struct.unpack("<IB", answer[2][:5])
                # Answers to the greetings before this one.
                while self._receive(0.3):
                    pass
                return

    def _send(self, kind, session, payload=b""):
        self.port.sendall(struct.pack("<IBI", len(payload) + 5, kind, session) + payload)

    def _receive(self, timeout):
        """One frame (type, session, payload), or None when there is none in time."""
        end = time.monotonic() + timeout
        while True:
            if len(self.received) >= 4:
                length = struct.unpack("<I", self.received[:4])[0]
                if len(self.received) >= 4 + length:
                    frame = self.received[4:4 + length]
                    self.received = self.received[4 + length:]
                    kind, session = struct.unpack("<BI", frame[:5])
                    return kind, session, frame[5:]
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.port], [], [], left)[0]:
                return None
            data = self.port.recv(65536)
            assert data, "QEMU has closed the port"
            self.received += data

    def start(self, *command, member=None, run=0):
        """Starts a program; member: the name under which it joins the group, "" for any."""
        self.sessions += 1
        name = (member or "").encode()
        self._send(EXEC, self.sessions,
                   struct.pack("<BIB", member is not None, run, len(name)) + name +
                   b"".join(word.encode() + b"\0" for word in command))
        return self.sessions

    def finish(self, session, timeout=60):
        """(status, stdout, stderr) of a started program; a signal is a negative status."""
        streams = {1: b"", 2: b""}
        end = time.monotonic() + timeout
        while True:
            frame = self._receive(max(end - time.monotonic(), 0))
            assert frame, ("no answer", streams, self.console()[-2000:])
            kind, number, payload = frame
            if number != session:
                continue
            if kind == OUTPUT:
                streams[payload[0]] += payload[1:]
            elif kind == EXITED:
                status = -payload[1] if payload[0] else payload[1]
                return status, streams[1].decode(), streams[2].decode()
            elif kind == FAILED:
                return None, "", payload.decode()

    def run(self, *command, member=None, run=0, status=0, timeout=60):
        """Runs to the end and returns standard output."""
        result = self.finish(self.start(*command, member=member, run=run), timeout)
        assert result[0] == status, (command, result)
        return result[1]
