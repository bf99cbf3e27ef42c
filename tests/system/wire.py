# SPDX-License-Identifier: Apache-2.0
"""Guests as the switch sees them: scripted NICs that speak raw frames, and real Linux stacks.

A NIC is a unix stream socket on which the test listens, as QEMU would; frames have a 4-byte
big-endian length before them.
"""

import contextlib
import ipaddress
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import time

from conftest import BIN, ROOT

PYTHON = "/usr/bin/python3"
PATIENCE = 20  # seconds until something that should happen is given up
BROADCAST = b"\xff" * 6
METADATA_IP = "169.254.169.254"
RESOLVER_IP = "169.254.169.253"


def ip_bytes(text):
    return ipaddress.IPv4Address(text).packed


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def wait_for(condition, what, patience=PATIENCE):
    """Until the condition holds; returns its value."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.01)


# Building and reading frames.

def ethernet(to, source, kind, payload):
    return to + source + struct.pack("!H", kind) + payload


def ip4(source, to, protocol, payload, identification=0, fragment=0):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, fragment, 64,
                         protocol, 0, ip_bytes(source), ip_bytes(to))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def udp(source_port, port, payload):
    return struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def tcp(source_port, port, flags, sequence=1, acknowledged=0):
    return struct.pack("!HHIIBBHHH", source_port, port, sequence, acknowledged, 0x50, flags, 65535,
                       0, 0)


def icmp_echo(kind=8, identifier=7, payload=b"hello"):
    body = struct.pack("!BBHHH", kind, 0, 0, identifier, 1) + payload
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def arp(operation, mac, source, target):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, ip_bytes(source),
                       b"\0" * 6, ip_bytes(target))


def dhcp(kind, mac, transaction=0x1234, client="0.0.0.0", options=b""):
    fixed = struct.pack("!BBBBIHH4s4s4s4s16s64s128sI", 1, 1, 6, 0, transaction, 0, 0x8000,
                        ip_bytes(client), b"", b"", b"", mac, b"", b"", 0x63825363)
    return fixed + bytes([53, 1, kind]) + options + b"\xff"


def dhcp_options(message):
    options, rest = {}, message[240:]
    while rest and rest[0] != 255:
        if rest[0] == 0:
            rest = rest[1:]
            continue
        options[rest[0]] = rest[2:2 + rest[1]]
        rest = rest[2 + rest[1]:]
    return options


class Packet:
    """What the tests look at in a frame."""

    def __init__(self, frame):
        self.frame = frame
        self.to, self.source = frame[:6], frame[6:12]
        self.kind, = struct.unpack("!H", frame[12:14])
        self.arp_operation = self.protocol = None
        if self.kind == 0x0806:
            self.arp_operation, = struct.unpack("!H", frame[20:22])
            self.arp_mac, self.arp_ip = frame[22:28], str(ipaddress.IPv4Address(frame[28:32]))
        if self.kind == 0x0800:
            size, = struct.unpack("!H", frame[16:18])
            self.protocol = frame[23]
            self.ip_source = str(ipaddress.IPv4Address(frame[26:30]))
            self.ip_to = str(ipaddress.IPv4Address(frame[30:34]))
            self.payload = frame[34:14 + size]
            if self.protocol in (6, 17):
                self.source_port, self.port = struct.unpack("!HH", self.payload[:4])
            if self.protocol == 17:
                self.data = self.payload[8:]


class ScriptedNic:
    """QEMU's side of a NIC, and a guest made of raw frames."""

    def __init__(self, path, mac, ip):
        self.path, self.mac_text, self.mac, self.ip = str(path), mac, mac_bytes(mac), ip
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.listener.settimeout(PATIENCE)
        self.stream = None
        self.received = b""
        self.router = None

    def close(self):
        for s in (self.stream, self.listener):
            if s:
                s.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def accept(self):
        if self.stream:
            self.stream.close()
        self.stream, _ = self.listener.accept()
        self.stream.settimeout(PATIENCE)
        self.received = b""
        return self

    def send(self, frame):
        self.stream.sendall(struct.pack("!I", len(frame)) + frame)

    def send_ip(self, packet, to=None):
        self.send(ethernet(to or self.gateway_mac(), self.mac, 0x0800, packet))

    def frames(self, patience):
        """Frames as they come, until none has come for that long."""
        while True:
            while len(self.received) < 4 or len(self.received) < 4 + struct.unpack(
                    "!I", self.received[:4])[0]:
                if not select.select([self.stream], [], [], patience)[0]:
                    return
                data = self.stream.recv(1 << 16)
                if not data:
                    return
                self.received += data
            size, = struct.unpack("!I", self.received[:4])
            frame, self.received = self.received[4:4 + size], self.received[4 + size:]
            yield Packet(frame)

    def expect(self, condition, what):
        for packet in self.frames(PATIENCE):
            if condition(packet):
                return packet
        raise AssertionError(f"{self.ip} never got {what}")

    def resolve(self, ip, source=None):
        self.send(ethernet(BROADCAST, self.mac, 0x0806, arp(1, self.mac, source or self.ip, ip)))
        return self.expect(lambda p: p.arp_operation == 2 and p.arp_ip == ip, f"ARP of {ip}")

    def gateway_mac(self):
        if self.router is None:
            gateway = self.ip.rsplit(".", 1)[0] + ".1"
            self.router = self.resolve(gateway).arp_mac
        return self.router

    def barrier(self):
        """Everything sent before was handled; returns what came meanwhile."""
        gateway, seen = self.ip.rsplit(".", 1)[0] + ".1", []
        self.send(ethernet(BROADCAST, self.mac, 0x0806, arp(1, self.mac, self.ip, gateway)))
        for packet in self.frames(PATIENCE):
            if packet.arp_operation == 2 and packet.arp_ip == gateway:
                return seen
            seen.append(packet)
        raise AssertionError("no answer")

    def ask_dhcp(self, kind, client="0.0.0.0", options=b""):
        self.send(ethernet(BROADCAST, self.mac, 0x0800, ip4(client, "255.255.255.255", 17, udp(
            68, 67, dhcp(kind, self.mac, client=client, options=options)))))


class RealGuest:
    """A Linux network stack: a namespace whose tap device is tied to the NIC's socket."""

    made = 0

    def __init__(self, path, mac, ip):
        RealGuest.made += 1
        self.path, self.mac_text, self.ip = str(path), mac, ip
        self.namespace = f"sosie{os.getpid()}g{RealGuest.made}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        self.relay = None
        try:
            self.relay = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, PYTHON,
                 os.path.join(ROOT, "tests", "system", "tap_relay.py"), self.path],
                stdout=subprocess.PIPE)
            assert self.relay.stdout.readline() == b"ready\n"
            self.run("ip", "link", "set", "tap0", "address", mac)
            self.run("ip", "link", "set", "lo", "up")
            self.run("ip", "link", "set", "tap0", "up")
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.relay:
            self.relay.kill()
            self.relay.wait()
            self.relay.stdout.close()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=True)

    def start(self, *command, **options):
        return subprocess.Popen(["ip", "netns", "exec", self.namespace, *command],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                **options)

    def run(self, *command, status=0, timeout=60):
        done = subprocess.run(["ip", "netns", "exec", self.namespace, *command],
                              capture_output=True, text=True, timeout=timeout, check=False)
        if status is not None:
            assert done.returncode == status, (command, done.returncode, done.stdout, done.stderr)
        return done

    def configure_by_dhcp(self, folder):
        """A real client gets the address, and does with it what a distribution's script does."""
        script = os.path.join(folder, f"{self.namespace}.script")
        with open(script, "w", encoding="utf-8") as out:
            out.write('#!/bin/sh\n[ "$1" = bound ] || exit 0\n'
                      'ip link set "$interface" mtu "$mtu"\n'
                      'ip addr add "$ip/$mask" dev "$interface"\n'
                      'ip route add default via "$router"\n'
                      'echo "$hostname $domain $dns $lease" > "$0.bound"\n')
        os.chmod(script, 0o755)
        self.run(shutil.which("busybox"), "udhcpc", "-i", "tap0", "-n", "-q", "-f", "-t", "10",
                 "-T", "2", "-O", "mtu", "-s", script)
        with open(script + ".bound", encoding="utf-8") as text:
            return text.read().split()

    def curl(self, *arguments, status=0):
        return self.run("curl", "-sS", "--noproxy", "*", "--max-time", "20", *arguments,
                        status=status).stdout


class Switch:
    """sosie-switch with a folder of its own."""

    def __init__(self, folder, namespace=None, options=()):
        self.folder = str(folder)
        os.makedirs(self.folder, exist_ok=True)
        self.command = [*(["ip", "netns", "exec", namespace] if namespace else []),
                        os.path.join(BIN, "sosie-switch"), *options, self.folder]
        self.process = None
        self.revision = 0

    def start(self):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(self.command, stderr=self.log)
        wait_for(self.connects, "the control socket")
        return self

    def connects(self):
        assert self.process.poll() is None, self.read_log()
        try:
            self.control().close()
        except OSError:
            return False
        return True

    def read_log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as log:
            return log.read()

    def control(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        here = os.open(self.folder, os.O_PATH)
        try:
            s.connect(f"/proc/self/fd/{here}/switch.sock")
        except OSError:
            s.close()
            raise
        finally:
            os.close(here)
        s.settimeout(PATIENCE)
        return s

    def ask_raw(self, line):
        with self.control() as s, s.makefile("rb") as answers:
            s.sendall(line + b"\n")
            return json.loads(answers.readline())

    def ask(self, operation, **fields):
        return self.ask_raw(json.dumps({"op": operation, **fields}).encode())

    def configure(self, network, local):
        self.revision += 1
        answer = self.ask("configure", config={"revision": self.revision, "network": network,
                                               "local": local})
        assert "error" not in answer, answer
        return answer

    def status(self):
        return self.ask("status")

    def nic(self, mac):
        return next(n for n in self.status()["nics"] if n["mac"] == mac)

    def count(self, mac, counter):
        return self.nic(mac)["counters"][counter]

    def overlay(self, counter):
        return self.status()["overlay"]["counters"][counter]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        """SIGTERM ends it cleanly."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        status = self.process.wait(timeout=PATIENCE)
        self.log.close()
        assert status == 0, (status, self.read_log())
        assert not os.path.exists(os.path.join(self.folder, "switch.sock"))


def network_of(*ports, key="ab" * 32, **more):
    """A network's part of the configuration; ports: (mac, ip, hostname[, overlay address])."""
    return {"id": "n-1", "name": "default", "cidr": "10.0.0.0/24", "gateway": "10.0.0.1",
            "vni": 4097, "domain": "default.internal", "key": key,
            "ports": [dict(zip(("mac", "ip", "hostname", "host"), port)) for port in ports],
            **more}


def local_of(*nics, metadata=None, **more):
    return {"nics": [{"mac": nic.mac_text, "socket": nic.path,
                      **({"metadata": metadata[nic.ip]} if metadata else {})} for nic in nics],
            **more}


def free_port(kind=socket.SOCK_STREAM):
    """A port of the loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
