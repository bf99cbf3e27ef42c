# SPDX-License-Identifier: Apache-2.0
"""sosie-switch with the real parts around it: NIC sockets, Linux network stacks, other switches."""

import contextlib
import http.server
import json
import os
import pwd
import random
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading

import pytest
from conftest import BIN
from wire import (BROADCAST, METADATA_IP, PATIENCE, RESOLVER_IP, RealGuest, ScriptedNic,
                  Switch, arp, dhcp, dhcp_options, ethernet, free_port, icmp_echo, ip4, ip_bytes,
                  local_of, network_of, tcp, udp, wait_for)

MAC_A, IP_A = "52:54:00:00:00:0a", "10.0.0.10"
MAC_B, IP_B = "52:54:00:00:00:0b", "10.0.0.11"
PORT_A, PORT_B = (MAC_A, IP_A, "a"), (MAC_B, IP_B, "b")
EVERYTHING_IN = {"direction": "in"}
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/net/tun"),
                                reason="network namespaces and tap devices need root")


@pytest.fixture
def stage():
    """What is put on it is closed at the end, last first; with a short-named folder."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="sw")
        stack.callback(shutil.rmtree, folder)
        stack.folder = folder

        def nic(name, mac, ip, kind=ScriptedNic):
            made = kind(os.path.join(folder, f"{name}.sock"), mac, ip)
            stack.callback(made.close)
            return made

        def switch(name="net"):
            made = Switch(os.path.join(folder, name))
            stack.callback(made.stop)
            return made.start()

        stack.nic, stack.switch = nic, switch
        yield stack


@pytest.fixture
def pair(stage):
    """Two scripted NICs on one switch, with the default rules."""
    stage.a, stage.b = stage.nic("a", MAC_A, IP_A), stage.nic("b", MAC_B, IP_B)
    stage.net = stage.switch()
    stage.net.configure(network_of(PORT_A, PORT_B), local_of(stage.a, stage.b))
    stage.a.accept()
    stage.b.accept()
    return stage


@pytest.fixture
def web():
    """An HTTP server on the host's loopback; answers with the path that was asked for."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"you asked for {self.path}\n".encode() * 1000
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


# The wire's own services.

@pytest.mark.rows("P5")
def test_arp_is_answered_from_the_mapping_only(pair):
    assert pair.a.resolve(IP_B).arp_mac == pair.b.mac
    router = pair.a.resolve("10.0.0.1").arp_mac
    for service in (METADATA_IP, RESOLVER_IP):
        assert pair.a.resolve(service).arp_mac == router
    # A probe (from 0.0.0.0) for one's own address meets silence, as does a stranger's address.
    for source, target in (("0.0.0.0", IP_A), (IP_A, "10.0.0.99"), (IP_A, "8.8.8.8")):
        pair.a.send(ethernet(BROADCAST, pair.a.mac, 0x0806, arp(1, pair.a.mac, source, target)))
    assert pair.a.barrier() == []
    assert pair.b.barrier() == []  # and none of it was shown to the neighbour


@pytest.mark.rows("P5")
def test_dhcp_gives_the_assigned_address_and_no_other(pair):
    a = pair.a
    a.ask_dhcp(1)
    offer = a.expect(lambda p: p.protocol == 17, "an offer")
    assert (offer.source_port, offer.port, offer.ip_to) == (67, 68, "255.255.255.255")
    options = dhcp_options(offer.data)
    assert options[53] == b"\x02" and offer.data[16:20] == ip_bytes(IP_A)
    assert options[1] == ip_bytes("255.255.255.0") and options[3] == ip_bytes("10.0.0.1")
    assert options[6] == ip_bytes(RESOLVER_IP) and options[12] == b"a"
    assert options[15] == b"default.internal"
    assert struct.unpack("!H", options[26]) == (pair.net.status()["mtu"],)
    assert struct.unpack("!I", options[51]) == (3600,)
    server = bytes([54, 4]) + options[54]
    wanted = bytes([50, 4]) + ip_bytes(IP_A)
    stolen = bytes([50, 4]) + ip_bytes(IP_B)
    for request, kind, address in ((server + wanted, 5, IP_A), (server + stolen, 6, "0.0.0.0")):
        a.ask_dhcp(3, options=request)
        answer = a.expect(lambda p: p.protocol == 17, "an answer")
        assert dhcp_options(answer.data)[53] == bytes([kind])
        assert answer.data[16:20] == ip_bytes(address)
    # To another server, a release, and another station's: no answer.
    a.ask_dhcp(3, options=bytes([54, 4]) + ip_bytes("10.0.0.77") + wanted)
    a.ask_dhcp(7, client=IP_A, options=server)
    a.send(ethernet(BROADCAST, a.mac, 0x0800, ip4("0.0.0.0", "255.255.255.255", 17, udp(
        68, 67, dhcp(1, pair.b.mac)))))
    assert a.barrier() == []
    assert pair.net.count(MAC_A, "malformed") == 1
    a.ask_dhcp(8, client=IP_A)
    informed = a.expect(lambda p: p.protocol == 17, "an answer to INFORM")
    assert dhcp_options(informed.data)[53] == b"\x05" and 51 not in dhcp_options(informed.data)
    assert pair.b.barrier() == []


def dns_query(name, kind=1):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)


@pytest.mark.rows("P5")
def test_names_of_the_network_are_answered(pair):
    answers = {}
    for name in ("b", "B.default.internal", "nobody.default.internal"):
        pair.a.send_ip(ip4(IP_A, RESOLVER_IP, 17, udp(5353, 53, dns_query(name))))
        answers[name] = pair.a.expect(lambda p: p.protocol == 17, "a DNS answer").data
    for name in ("b", "B.default.internal"):
        assert answers[name][:2] == struct.pack("!H", 77)
        assert answers[name][3] & 15 == 0 and answers[name][-4:] == ip_bytes(IP_B)
    assert answers["nobody.default.internal"][3] & 15 == 3
    # The resolver's address is good for names and nothing else.
    pair.a.send_ip(ip4(IP_A, RESOLVER_IP, 6, tcp(4000, 22, SYN)))
    assert pair.a.barrier() == []
    assert pair.net.count(MAC_A, "forbidden") == 1


# Who may send what to whom.

@pytest.mark.rows("P5", "P6")
def test_spoofed_and_strange_frames_are_dropped_and_counted(pair):
    a, b, net = pair.a, pair.b, pair.net
    net.configure(network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]), local_of(a, b))
    good = ip4(IP_A, IP_B, 17, udp(1, 2, b"x"))
    router = a.gateway_mac()
    cases = [
        ("spoofed_mac", ethernet(b.mac, b"\x52\x54\0\0\0\x99", 0x0800, good)),
        ("spoofed_mac", ethernet(BROADCAST, a.mac, 0x0806, arp(2, b.mac, IP_B, IP_A))),
        ("spoofed_ip", ethernet(b.mac, a.mac, 0x0800, ip4("10.0.0.77", IP_B, 17,
                                                          udp(1, 2, b"x")))),
        ("spoofed_ip", ethernet(BROADCAST, a.mac, 0x0806, arp(2, a.mac, IP_B, IP_A))),
        ("malformed", ethernet(b.mac, a.mac, 0x0800, good[:25])),
        ("malformed", b"\0" * 5),
        ("unsupported", ethernet(b.mac, a.mac, 0x86DD, b"\x60" + b"\0" * 39)),
        ("unsupported", ethernet(b.mac, a.mac, 0x0800, b"\x46" + good[1:] + b"\0" * 8)),
        ("group_address", ethernet(BROADCAST, a.mac, 0x0800,
                                   ip4(IP_A, "10.0.0.255", 17, udp(1, 2, b"x")))),
        ("group_address", ethernet(b"\x01\0\x5e\0\0\x01", a.mac, 0x0800,
                                   ip4(IP_A, "224.0.0.1", 2, b"\0" * 8))),
        ("unknown_destination", ethernet(router, a.mac, 0x0800,
                                         ip4(IP_A, "10.0.0.99", 17, udp(1, 2, b"x")))),
        ("unknown_destination", ethernet(b"\x52\x54\0\0\0\x77", a.mac, 0x0800, good)),
        ("forbidden", ethernet(router, a.mac, 0x0800,
                               ip4(IP_A, "127.0.0.1", 17, udp(1, 2, b"x")))),
        ("forbidden", ethernet(router, a.mac, 0x0800,
                               ip4(IP_A, "169.254.1.1", 17, udp(1, 2, b"x")))),
    ]
    expected = {}
    for counter, frame in cases:
        a.send(frame)
        expected[counter] = expected.get(counter, 0) + 1
    a.barrier()
    counters = net.nic(MAC_A)["counters"]
    assert {name: counters[name] for name in expected} == expected
    assert b.barrier() == []
    a.send(ethernet(b.mac, a.mac, 0x0800, good))
    assert b.expect(lambda p: p.protocol == 17, "the honest frame").source == a.mac


@pytest.mark.rows("P5")
def test_frames_beyond_the_mtu_are_refused_with_a_hint(pair):
    mtu = pair.net.status()["mtu"]
    pair.net.configure(network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]),
                       local_of(pair.a, pair.b))
    pair.a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, b"x" * (mtu - 28))), to=pair.b.mac)
    assert len(pair.b.expect(lambda p: p.protocol == 17, "the longest").frame) == mtu + 14
    pair.a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, b"x" * (mtu - 27))), to=pair.b.mac)
    hint = pair.a.expect(lambda p: p.protocol == 1, "fragmentation needed")
    assert hint.payload[:2] == b"\x03\x04" and struct.unpack("!H", hint.payload[6:8]) == (mtu,)
    assert pair.net.count(MAC_A, "too_big") == 1
    assert pair.b.barrier() == []


@pytest.mark.rows("P5")
def test_security_groups_let_answers_in_and_nothing_else(pair):
    a, b, net = pair.a, pair.b, pair.net
    # b's group is closed: nothing from a arrives.
    a.send_ip(ip4(IP_A, IP_B, 6, tcp(4000, 80, SYN)), to=b.mac)
    a.send_ip(ip4(IP_A, IP_B, 17, udp(4000, 53, b"q")), to=b.mac)
    a.send_ip(ip4(IP_A, IP_B, 1, icmp_echo()), to=b.mac)
    a.barrier()
    assert b.barrier() == []
    assert net.count(MAC_B, "denied_in") == 3
    # What b asks, a's answers reach: but a's group is closed too, so that b's question needs a rule.
    rules = [{"direction": "in", "protocol": "tcp", "ports": "80-81", "cidr": f"{IP_B}/32",
              "target": f"{IP_A}/32"}]
    net.configure(network_of(PORT_A, PORT_B, rules=rules), local_of(a, b))
    b.send_ip(ip4(IP_B, IP_A, 6, tcp(4000, 81, SYN)), to=a.mac)
    assert a.expect(lambda p: p.protocol == 6, "the question").port == 81
    a.send_ip(ip4(IP_A, IP_B, 6, tcp(81, 4000, SYN_ACK)), to=b.mac)
    assert b.expect(lambda p: p.protocol == 6, "the answer").source_port == 81
    # Neighbouring ports are no answers.
    a.send_ip(ip4(IP_A, IP_B, 6, tcp(81, 4001, SYN_ACK)), to=b.mac)
    b.send_ip(ip4(IP_B, IP_A, 6, tcp(4000, 82, SYN)), to=a.mac)
    a.barrier()
    assert b.barrier() == [] and a.barrier() == []
    # When the rule goes, so does the connection that it allowed.
    net.configure(network_of(PORT_A, PORT_B), local_of(a, b))
    assert net.nic(MAC_A)["firewall"]["revoked"] == 1
    b.send_ip(ip4(IP_B, IP_A, 6, tcp(4000, 81, ACK)), to=a.mac)
    b.barrier()
    assert a.barrier() == []
    # Going out can be denied too.
    net.configure(network_of(PORT_A, PORT_B, rules=[
        {"direction": "out", "action": "deny", "protocol": "udp"}, EVERYTHING_IN]),
        local_of(a, b))
    a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, b"x")), to=b.mac)
    a.barrier()
    assert net.count(MAC_A, "denied_out") == 1
    a.send_ip(ip4(IP_A, IP_B, 1, icmp_echo()), to=b.mac)
    assert b.expect(lambda p: p.protocol == 1, "the echo request")


@pytest.mark.rows("P5")
def test_a_guest_that_does_not_read_hinders_nobody(pair):
    a, b, net = pair.a, pair.b, pair.net
    net.configure(network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]), local_of(a, b))
    big = ip4(IP_A, IP_B, 17, udp(1, 2, b"x" * 1300))
    a.gateway_mac()
    # b takes in nothing, until its queue in the switch and the socket are full.
    while net.count(MAC_B, "queue_full") == 0:
        for _ in range(200):
            a.send_ip(big, to=b.mac)
        assert a.barrier() == []  # a is served all the same
    assert net.nic(MAC_B)["connected"]
    # When it reads again it gets what was kept, each frame whole, and then new ones.
    got = sum(1 for p in b.frames(0.5) if p.protocol == 17 and len(p.data) == 1300)
    assert got >= (1 << 20) // (1300 + 46) - 1
    a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, b"new")), to=b.mac)
    assert b.expect(lambda p: p.protocol == 17, "a new frame").data == b"new"


@pytest.mark.rows("P5")
def test_an_impossible_frame_length_ends_the_connection_only(pair):
    pair.a.stream.sendall(struct.pack("!I", 1 << 30))
    pair.a.accept()
    assert pair.a.resolve(IP_B).arp_mac == pair.b.mac
    assert pair.net.count(MAC_A, "broken_stream") == 1
    assert pair.net.count(MAC_A, "connects") == 2
    assert pair.net.count(MAC_B, "connects") == 1


@pytest.mark.rows("P5")
def test_a_killed_switch_goes_on_without_its_agent(pair):
    a, b, net = pair.a, pair.b, pair.net
    net.configure(network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]), local_of(a, b))
    for _ in range(3):
        net.kill()
        net.start()  # nobody configures it
        a.accept()
        b.accept()
        a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, b"x")), to=b.mac)
        assert b.expect(lambda p: p.protocol == 17, "a frame").data == b"x"
    assert net.status()["revision"] == 2


@pytest.mark.rows("P5")
def test_a_reconfiguration_disturbs_no_other_nic(pair):
    a, b, net = pair.a, pair.b, pair.net
    c = pair.nic("c", "52:54:00:00:00:0c", "10.0.0.12")
    port_c = (c.mac_text, c.ip, "c")
    net.configure(network_of(PORT_A, PORT_B, port_c), local_of(a, b))
    assert "error" not in net.ask("nic-add", nic={"mac": c.mac_text, "socket": c.path})
    c.accept()
    assert c.resolve(IP_A).arp_mac == a.mac
    assert "error" not in net.ask("nic-remove", mac=c.mac_text)
    assert [n["mac"] for n in net.status()["nics"]] == [MAC_A, MAC_B]
    assert net.ask("nic-remove", mac=c.mac_text)["error"]["code"] == "not_found"
    assert net.count(MAC_A, "connects") == net.count(MAC_B, "connects") == 1
    # An agent's restart is a new connection to the control socket, no more.
    assert a.resolve(IP_B).arp_mac == b.mac


def without(document, *path):
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return copy


def changed(document, value, *path):
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copy


@pytest.mark.rows("P5")
def test_a_bad_configuration_is_refused_and_changes_nothing(pair):
    net = pair.net
    good = {"revision": 9, "network": network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]),
            "local": local_of(pair.a, pair.b)}
    before = net.status()
    bad = [
        without(good, "revision"), without(good, "network"), without(good, "network", "cidr"),
        without(good, "network", "ports", 0), without(good, "local", "nics", 0, "socket"),
        changed(good, "10.0.0.0/33", "network", "cidr"),
        changed(good, "10.0.0.1/24", "network", "cidr"),
        changed(good, "10.0.1.1", "network", "gateway"),
        changed(good, "ab", "network", "key"), changed(good, 1 << 24, "network", "vni"),
        changed(good, IP_B, "network", "ports", 0, "ip"),
        changed(good, MAC_B, "network", "ports", 0, "mac"),
        changed(good, "10.0.0.1", "network", "ports", 0, "ip"),
        changed(good, "10.0.0.255", "network", "ports", 0, "ip"),
        changed(good, "010.0.0.5", "network", "ports", 0, "ip"),
        changed(good, "ff:ff:ff:ff:ff:ff", "network", "ports", 0, "mac"),
        changed(good, "example.com:1", "network", "ports", 0, "host"),
        changed(good, MAC_B, "local", "nics", 0, "mac"),
        changed(good, "x" * 108, "local", "nics", 0, "socket"),
        changed(good, {"instance_id": "i/1"}, "local", "nics", 0, "metadata"),
        changed(good, [{"direction": "up"}], "network", "rules"),
        changed(good, [{"direction": "in", "ports": "90-80"}], "network", "rules"),
        changed(good, [EVERYTHING_IN] * 513, "network", "rules"),
        changed(good, [{"host_port": 0, "ip": IP_A, "port": 1}], "network", "publish"),
        changed(without(good, "network", "key"), "127.0.0.1:0", "local", "overlay"),
    ]
    for config in bad:
        answer = net.ask("configure", config=config)
        assert "error" in answer, config
        assert answer["error"]["code"] in ("invalid", "too_large"), answer
    assert net.ask_raw(b"{")["error"]["code"] == "usage"
    assert net.ask("dance")["error"]["code"] == "usage"
    assert net.ask("configure", config=dict(good, revision=0))["error"]["code"] == "conflict"
    after = net.status()
    assert after["revision"] == before["revision"]
    assert [n["counters"]["connects"] for n in after["nics"]] == [1, 1]


# Real network stacks.

INSTANCES = {
    IP_A: {"instance_id": "i-a", "user_data": "#!/bin/sh\necho a\n",
           "public_keys": ["ssh-ed25519 AAAA a@example"]},
    IP_B: {"instance_id": "i-b", "hostname": "bee", "user_data_base64": "AAECAwQ=",
           "token_required": True},
}


@pytest.fixture
def real(stage):
    """Two Linux network stacks on one switch, configured by a real DHCP client."""
    stage.a = stage.nic("a", MAC_A, IP_A, RealGuest)
    stage.b = stage.nic("b", MAC_B, IP_B, RealGuest)
    stage.net = stage.switch()
    stage.local = local_of(stage.a, stage.b, metadata=INSTANCES)
    stage.net.configure(network_of(PORT_A, PORT_B), stage.local)
    for guest, name in ((stage.a, "a"), (stage.b, "b")):
        bound = guest.configure_by_dhcp(stage.folder)
        assert bound == [name, "default.internal", RESOLVER_IP, "3600"]
    return stage


@needs_root
@pytest.mark.rows("P5", "P6", "P2")
def test_metadata_is_told_by_the_nic_and_with_session_tokens(real):
    a, b, url = real.a, real.b, f"http://{METADATA_IP}"
    assert a.curl(f"{url}/latest/meta-data/instance-id") == "i-a"
    assert a.curl(f"{url}/2009-04-04/meta-data/local-hostname") == "a"
    assert a.curl(f"{url}/latest/meta-data/local-ipv4") == IP_A
    assert a.curl(f"{url}/latest/meta-data/mac") == MAC_A
    assert a.curl(f"{url}/latest/meta-data/public-keys/") == "0=key-0"
    assert a.curl(f"{url}/latest/meta-data/public-keys/0/openssh-key") == \
        INSTANCES[IP_A]["public_keys"][0]
    assert a.curl(f"{url}/latest/user-data") == INSTANCES[IP_A]["user_data"]
    assert "public-keys/" in a.curl(f"{url}/latest/meta-data/").splitlines()
    # cloud-init's NoCloud.
    assert a.curl(f"{url}/nocloud/meta-data") == (
        "instance-id: i-a\nlocal-hostname: a\n"
        'public-keys: ["ssh-ed25519 AAAA a@example"]\n')
    assert a.curl(f"{url}/nocloud/user-data") == INSTANCES[IP_A]["user_data"]
    # Tokens: required for b, valid for b alone.
    code = ("-o", "/dev/null", "-w", "%{http_code}")
    assert b.curl(*code, f"{url}/latest/meta-data/instance-id") == "401"
    put = ("-X", "PUT", "-H", "X-aws-ec2-metadata-token-ttl-seconds: 60")
    token = b.curl(*put, f"{url}/latest/api/token")
    given = ("-H", f"X-aws-ec2-metadata-token: {token}")
    assert b.curl(*given, f"{url}/latest/meta-data/instance-id") == "i-b"
    assert b.curl(*given, f"{url}/latest/meta-data/hostname") == "bee"
    assert b.run("sh", "-c", f"curl -sS --noproxy '*' -H '{given[1]}' {url}/latest/user-data"
                 " | od -An -tx1").stdout.split() == ["00", "01", "02", "03", "04"]
    assert a.curl(*code, *given, f"{url}/latest/meta-data/instance-id") == "401"
    assert b.curl(*code, *put, "-H", "X-Forwarded-For: 1.2.3.4",
                  f"{url}/latest/api/token") == "403"
    for path, status in (("/latest/meta-data/nothing", "404"), ("/latest/meta-data/public-keys/9", "404"),
                         ("/other/", "404"), ("/latest/api/token", "404")):
        assert a.curl(*code, f"{url}{path}") == status
    # Whatever source address a makes up, it gets nobody else's data: here, none at all.
    a.run("ip", "addr", "add", f"{IP_B}/32", "dev", "tap0")
    a.run("curl", "-sS", "--noproxy", "*", "--interface", IP_B, "--connect-timeout", "2",
          f"{url}/latest/meta-data/instance-id", status=28)
    assert real.net.count(MAC_A, "spoofed_ip") > 0


@needs_root
@pytest.mark.rows("P5")
def test_the_way_out_leads_to_the_host_only_when_told_to(real, web):
    url = f"http://10.0.0.1:{web}/x"
    # By default the host's loopback is out of reach, by whatever name.
    for address in ("10.0.0.1", "127.0.0.1"):
        refused = real.a.run("curl", "-sS", "--noproxy", "*", "--interface", "tap0",
                             "--connect-timeout", "2", f"http://{address}:{web}/x", status=None)
        assert refused.returncode in (7, 28), refused
    real.net.configure(network_of(PORT_A, PORT_B), dict(real.local, host_loopback=True))
    assert real.a.curl(url).splitlines() == ["you asked for /x"] * 1000
    # ICMP: the router answers.
    real.a.run("ping", "-c", "1", "-W", "5", "10.0.0.1")
    # A security group that lets nothing out.
    real.net.configure(network_of(PORT_A, PORT_B, rules=[{"direction": "out", "action": "deny"}]),
                       dict(real.local, host_loopback=True))
    real.a.run("curl", "-sS", "--noproxy", "*", "--connect-timeout", "1", url, status=28)
    assert real.net.count(MAC_A, "denied_out") > 0


# A web server that answers with its client's address, and a name server with one answer.
WORLD = """
import http.server, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("192.0.2.2", 53))
def answer():
    while True:
        query, client = names.recvfrom(2000)
        names.sendto(query[:2] + bytes.fromhex("81800001000100000000") + query[12:]
                     + bytes.fromhex("c00c000100010000003c0004c6336407"), client)
threading.Thread(target=answer, daemon=True).start()
server = http.server.HTTPServer(("192.0.2.2", 8000), Handler)
print("ready")
server.serve_forever()
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
s.sendto(bytes.fromhex(sys.argv[1]), ("169.254.169.253", 53))
print(socket.inet_ntoa(s.recv(2000)[-4:]))
"""


@needs_root
@pytest.mark.rows("P5")
def test_the_way_out_reaches_other_machines(stage):
    """The switch runs in a namespace of its own, whose other end of a cable is the world."""
    host, world = f"sosie{os.getpid()}h", f"sosie{os.getpid()}w"
    for name in (host, world):
        subprocess.run(["ip", "netns", "add", name], check=True)
        stage.callback(subprocess.run, ["ip", "netns", "delete", name], check=True)
    subprocess.run(["ip", "link", "add", "up0", "netns", host, "type", "veth", "peer", "name",
                    "up0", "netns", world], check=True)
    for name, address in ((host, "192.0.2.1/24"), (world, "192.0.2.2/24")):
        subprocess.run(["ip", "-n", name, "addr", "add", address, "dev", "up0"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "up0", "up"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    # The resolver of the switch's host is in the world; `ip netns exec` puts the file in place.
    resolver = f"/etc/netns/{host}"
    os.makedirs(resolver)
    stage.callback(shutil.rmtree, resolver)
    with open(f"{resolver}/resolv.conf", "w", encoding="utf-8") as out:
        out.write("nameserver 192.0.2.2\n")
    # Unprivileged echo requests, as distributions allow them.
    subprocess.run(["ip", "netns", "exec", host, "sh", "-c",
                    "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range"], check=True)
    server = subprocess.Popen(["ip", "netns", "exec", world, "/usr/bin/python3", "-u", "-c", WORLD],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def end_server():
        server.kill()
        server.wait()
        server.stdout.close()

    stage.callback(end_server)
    assert server.stdout.readline() == b"ready\n"
    a = stage.nic("a", MAC_A, IP_A, RealGuest)
    net = Switch(os.path.join(stage.folder, "net"), namespace=host)
    stage.callback(net.stop)
    net.start()
    net.configure(network_of(PORT_A), dict(local_of(a), forbidden=["192.0.2.128/25"]))
    a.configure_by_dhcp(stage.folder)
    assert a.curl("http://192.0.2.2:8000/") == "192.0.2.1"
    asked = a.run("/usr/bin/python3", "-c", ASK, dns_query("www.example.com").hex())
    assert asked.stdout.strip() == "198.51.100.7"
    a.run("ping", "-c", "1", "-W", "5", "192.0.2.2")
    a.run("curl", "-sS", "--noproxy", "*", "--connect-timeout", "1", "http://192.0.2.129:8000/",
          status=28)
    assert net.count(MAC_A, "forbidden") > 0


@needs_root
@pytest.mark.rows("P5")
def test_published_ports_lead_to_the_guest(real, tmp_path):
    with open(tmp_path / "page", "w", encoding="utf-8") as page:
        page.write("published\n" * 5000)
    tcp_port, udp_port = free_port(), free_port(socket.SOCK_DGRAM)
    server = real.b.start("/usr/bin/python3", "-u", "-m", "http.server", "-d", str(tmp_path), "80")
    echo = real.b.start(
        "/usr/bin/python3", "-u", "-c", "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7)); print('ready')\n"
        "while True: m, a = s.recvfrom(2000); s.sendto(m[::-1], a)")

    def end(process):
        process.kill()
        process.communicate()

    real.callback(end, server)
    real.callback(end, echo)
    assert "Serving" in server.stdout.readline() and echo.stdout.readline() == "ready\n"
    publish = [{"host_port": tcp_port, "ip": IP_B, "port": 80, "protocol": "tcp"},
               {"host_port": udp_port, "ip": IP_B, "port": 7, "protocol": "udp"}]
    local = dict(real.local, publish_address="127.0.0.1")
    # A port that is taken is told, and does not stand in the others' way; when it becomes free
    # it is taken.
    taken = socket.socket()
    taken.bind(("127.0.0.1", tcp_port))
    taken.listen()
    status = real.net.configure(network_of(PORT_A, PORT_B, publish=publish), local)
    assert [bool(p["error"]) for p in status["publish"]] == [True, False]
    taken.close()
    wait_for(lambda: not real.net.status()["publish"][0]["error"], "the port to be taken")
    got = subprocess.run(["curl", "-sS", "--noproxy", "*", "--max-time", "20",
                          f"http://127.0.0.1:{tcp_port}/page"], capture_output=True, text=True,
                         check=True).stdout
    assert got == "published\n" * 5000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.sendto(b"hello", ("127.0.0.1", udp_port))
        assert s.recv(100) == b"olleh"
    # The neighbour is not "outside": for it b stays closed.
    real.a.run("curl", "-sS", "--noproxy", "*", "--connect-timeout", "1", f"http://{IP_B}/page",
               status=28)
    # Withdrawn, nobody listens any more.
    real.net.configure(network_of(PORT_A, PORT_B), local)
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", tcp_port)) != 0


@needs_root
@pytest.mark.rows("P5")
def test_connections_outlive_the_switch(real, tmp_path):
    """kill -9 in the middle of a transfer between two guests: it goes on, and is whole."""
    data = random.Random(3).randbytes(20 << 20)
    with open(tmp_path / "data", "wb") as out:
        out.write(data)
    real.net.configure(network_of(PORT_A, PORT_B, rules=[EVERYTHING_IN]), real.local)
    server = real.b.start("/usr/bin/python3", "-u", "-m", "http.server", "-d", str(tmp_path), "80")
    try:
        assert "Serving" in server.stdout.readline()
        fetch = real.a.start("curl", "-sS", "--noproxy", "*", "--max-time", "60", "-o",
                             str(tmp_path / "copy"), f"http://{IP_B}/data")
        wait_for(lambda: os.path.exists(tmp_path / "copy") and
                 os.path.getsize(tmp_path / "copy") > 0, "the transfer to begin")
        real.net.kill()
        assert fetch.poll() is None
        real.net.start()
        out, err = fetch.communicate(timeout=90)
        assert fetch.returncode == 0, (out, err)
        with open(tmp_path / "copy", "rb") as copy:
            assert copy.read() == data
    finally:
        server.kill()
        server.communicate()


@pytest.mark.rows("P5")
def test_qemu_itself_is_served_and_found_again(stage):
    """A real machine whose firmware (iPXE) asks for its address, and a switch that is killed."""
    path, console = os.path.join(stage.folder, "nic0.sock"), os.path.join(stage.folder, "console")
    net = stage.switch()
    net.configure(network_of(PORT_A), {"nics": [{"mac": MAC_A, "socket": path}]})
    machine = subprocess.Popen([
        "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35,graphics=off", "-m", "64",
        "-nodefaults", "-display", "none", "-serial", f"file:{console}", "-boot", "n",
        "-netdev", f"stream,id=n0,server=on,addr.type=unix,addr.path={path}",
        "-device", f"virtio-net-pci,netdev=n0,mac={MAC_A}"])
    try:
        wait_for(lambda: net.nic(MAC_A)["connected"], "QEMU to be found")
        net.kill()
        net.start()
        wait_for(lambda: net.nic(MAC_A)["connected"], "QEMU to be found again")

        def has_address():
            assert machine.poll() is None
            with open(console, encoding="utf-8", errors="replace") as text:
                return f"{IP_A}/255.255.255.0 gw 10.0.0.1" in text.read()

        wait_for(has_address, "the firmware to get its address", patience=240)
        assert net.count(MAC_A, "services") >= 2
    finally:
        machine.kill()
        machine.wait()


# The overlay.

class Middle:
    """Between two switches: passes their packets on, and can do to them what an attacker could."""

    def __init__(self):
        self.toward_a, self.toward_b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                                        for _ in range(2))
        for s in (self.toward_a, self.toward_b):
            s.bind(("127.0.0.1", 0))
        self.recorded = []  # (direction, packet)
        self.tamper = None
        self.lock = threading.Lock()
        self.stopping, self.stop_end = socket.socketpair()
        self.thread = None

    def name(self, s):
        return f"127.0.0.1:{s.getsockname()[1]}"

    @property
    def as_b(self):
        """What a takes for b."""
        return self.name(self.toward_a)

    @property
    def as_a(self):
        return self.name(self.toward_b)

    def start(self, a, b):
        self.address = {self.toward_a: a, self.toward_b: b}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            ready, _, _ = select.select([self.toward_a, self.toward_b, self.stopping], [], [])
            if self.stopping in ready:
                return
            for s in ready:
                packet = s.recv(65536)
                other = self.toward_b if s is self.toward_a else self.toward_a
                with self.lock:
                    self.recorded.append((other, packet))
                    if self.tamper:
                        packet = self.tamper(packet)
                other.sendto(packet, self.address[other])

    def inject(self, s, packet):
        s.sendto(packet, self.address[s])

    def close(self):
        self.stop_end.send(b"x")
        if self.thread:
            self.thread.join()
        for s in (self.toward_a, self.toward_b, self.stopping, self.stop_end):
            s.close()


def listening(switch):
    host, port = switch.status()["overlay"]["listen"].rsplit(":", 1)
    return host, int(port)


@pytest.fixture
def hosts(stage):
    """Two switches of one network as on two hosts, with somebody between them."""
    stage.middle = Middle()
    stage.callback(stage.middle.close)
    stage.net_a, stage.net_b = stage.switch("net-a"), stage.switch("net-b")

    def connect(kind, **more):
        stage.a = stage.nic("a", MAC_A, IP_A, kind)
        stage.b = stage.nic("b", MAC_B, IP_B, kind)
        stage.network_a = network_of(PORT_A, (*PORT_B, stage.middle.as_b), **more)
        stage.network_b = network_of((*PORT_A, stage.middle.as_a), PORT_B, **more)
        stage.local_a = local_of(stage.a, overlay="127.0.0.1:0", metadata=INSTANCES)
        stage.local_b = local_of(stage.b, overlay="127.0.0.1:0", metadata=INSTANCES)
        stage.net_a.configure(stage.network_a, stage.local_a)
        stage.net_b.configure(stage.network_b, stage.local_b)
        stage.middle.start(listening(stage.net_a), listening(stage.net_b))

    def proven():
        return all(n.status()["overlay"]["peers"] and n.status()["overlay"]["peers"][0]["proven"]
                   for n in (stage.net_a, stage.net_b))

    stage.connect, stage.proven = connect, proven
    return stage


@needs_root
@pytest.mark.rows("P5")
def test_real_network_stacks_meet_over_the_overlay(hosts, tmp_path):
    hosts.connect(RealGuest, rules=[EVERYTHING_IN])
    for guest in (hosts.a, hosts.b):
        guest.configure_by_dhcp(hosts.folder)
    wait_for(hosts.proven, "both switches to believe each other")
    hosts.a.run("ping", "-c", "3", "-i", "0.2", "-W", "5", IP_B)
    # The longest packet fits without being fragmented; one byte more does not leave the guest.
    mtu = hosts.net_a.status()["mtu"]
    hosts.a.run("ping", "-c", "1", "-W", "5", "-M", "do", "-s", str(mtu - 28), IP_B)
    hosts.a.run("ping", "-c", "1", "-W", "5", "-M", "do", "-s", str(mtu - 27), IP_B, status=1)
    # Fragmented by the guest itself, it arrives all the same.
    hosts.a.run("ping", "-c", "1", "-W", "5", "-M", "dont", "-s", "5000", IP_B)
    data = random.Random(4).randbytes(5 << 20)
    with open(tmp_path / "data", "wb") as out:
        out.write(data)
    server = hosts.b.start("/usr/bin/python3", "-u", "-m", "http.server", "-d", str(tmp_path), "80")
    try:
        assert "Serving" in server.stdout.readline()
        hosts.a.curl("-o", str(tmp_path / "copy"), f"http://{IP_B}/data")
    finally:
        server.kill()
        server.communicate()
    with open(tmp_path / "copy", "rb") as copy:
        assert copy.read() == data
    # Nothing of it could be read or was longer than the host's network takes.
    with hosts.middle.lock:
        packets = [packet for _, packet in hosts.middle.recorded]
    assert max(map(len, packets)) <= 1500 - 48
    assert not any(b"HTTP" in packet or ip_bytes(IP_A) in packet for packet in packets)
    assert hosts.net_b.overlay("forged") == hosts.net_b.overlay("replayed") == 0


def send_across(hosts, data):
    hosts.a.send_ip(ip4(IP_A, IP_B, 17, udp(1, 2, data)), to=hosts.b.mac)
    hosts.a.barrier()


def arrives(hosts, data):
    send_across(hosts, data)
    return hosts.b.expect(lambda p: p.protocol == 17, "the frame").data == data


@pytest.fixture
def scripted_hosts(hosts):
    hosts.connect(ScriptedNic, rules=[EVERYTHING_IN])
    hosts.a.accept()
    hosts.b.accept()
    hosts.a.gateway_mac()
    wait_for(hosts.proven, "both switches to believe each other")
    return hosts


@pytest.mark.rows("P5", "P6")
def test_tampered_and_replayed_packets_are_dropped_and_counted(scripted_hosts):
    hosts, middle, net_b = scripted_hosts, scripted_hosts.middle, scripted_hosts.net_b
    assert arrives(hosts, b"first")
    with middle.lock:
        data = [packet for s, packet in middle.recorded if s is middle.toward_b and packet[1] == 1]
    # Again, as it was.
    middle.inject(middle.toward_b, data[-1])
    wait_for(lambda: net_b.overlay("replayed") == 1, "the replay to be counted")
    # Every byte of it changed, one at a time. Version, kind, key and reserved byte are looked at
    # before the seal is; the rest breaks it.
    packet = data[-1]
    for at in range(len(packet)):
        middle.inject(middle.toward_b, packet[:at] + bytes([packet[at] ^ 0x80]) + packet[at + 1:])
        if at % 32 == 31:
            wait_for(lambda n=at: sum(net_b.overlay(c) for c in (
                "forged", "malformed", "unknown_key")) == n + 1, "the forgeries to be counted")
    for size in (0, 1, 27, 43, 44, len(packet) - 1):
        middle.inject(middle.toward_b, packet[:size])
    wait_for(lambda: sum(net_b.overlay(c) for c in ("forged", "malformed", "unknown_key")) ==
             len(packet) + 6, "all forgeries to be counted")
    # From elsewhere it is not even opened.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(packet, listening(net_b))
        wait_for(lambda: net_b.overlay("unknown_peer") == 1, "the stranger to be counted")
    assert hosts.b.barrier() == []
    assert arrives(hosts, b"second")


@pytest.mark.rows("P5", "P6")
def test_what_an_earlier_process_sent_cannot_be_played_to_a_later_one(scripted_hosts):
    hosts, middle = scripted_hosts, scripted_hosts.middle
    assert arrives(hosts, b"first")
    with middle.lock:
        recorded = [packet for s, packet in middle.recorded if s is middle.toward_b]
    # The receiver forgets everything, and moves to another port.
    hosts.net_b.kill()
    hosts.net_b.start()
    hosts.b.accept()
    middle.address[middle.toward_b] = listening(hosts.net_b)
    wait_for(hosts.proven, "the two to believe each other again")
    assert arrives(hosts, b"second")
    before = hosts.net_b.overlay("received")
    replayed = hosts.net_b.overlay("replayed")
    for packet in recorded:
        middle.inject(middle.toward_b, packet)
    wait_for(lambda: hosts.net_b.overlay("replayed") == replayed + len(recorded),
             "the replays to be counted")
    # The sender forgets everything: its earlier packets are a stranger's now.
    proofs = hosts.net_b.overlay("proofs")
    hosts.net_a.kill()
    hosts.net_a.start()
    hosts.a.accept()
    middle.address[middle.toward_a] = listening(hosts.net_a)
    wait_for(lambda: hosts.net_b.overlay("proofs") == proofs + 1, "b to believe the new process")
    assert arrives(hosts, b"third")
    unproven = hosts.net_b.overlay("unproven")
    for packet in recorded:
        middle.inject(middle.toward_b, packet)
    expected = sum(packet[1] in (1, 4) for packet in recorded)  # DATA, PROOF
    wait_for(lambda: hosts.net_b.overlay("unproven") == unproven + expected,
             "the old process's packets to be counted")
    assert hosts.net_b.overlay("proofs") == proofs + 1
    assert hosts.net_b.overlay("received") == before + 1
    assert hosts.b.barrier() == []
    assert arrives(hosts, b"fourth")


@pytest.mark.rows("P5", "P6")
def test_keys_rotate_without_loss_and_wrong_ones_open_nothing(scripted_hosts):
    hosts = scripted_hosts
    old, new = {"id": 0, "key": "ab" * 32}, {"id": 1, "key": "cd" * 32}

    def use(net, network, local, *keys):
        net.configure(dict({k: v for k, v in network.items() if k != "key"}, keys=list(keys)),
                      dict(local))

    for keys_a, keys_b in (((old, new), (old, new)), ((new, old), (old, new)),
                           ((new, old), (new, old)), ((new,), (new,))):
        use(hosts.net_a, hosts.network_a, hosts.local_a, *keys_a)
        use(hosts.net_b, hosts.network_b, hosts.local_b, *keys_b)
        assert arrives(hosts, b"under whichever key")
    use(hosts.net_a, hosts.network_a, hosts.local_a, old)
    unknown = hosts.net_b.overlay("unknown_key")
    send_across(hosts, b"under a key that is gone")
    wait_for(lambda: hosts.net_b.overlay("unknown_key") > unknown, "the packet to be counted")
    use(hosts.net_a, hosts.network_a, hosts.local_a, {"id": 1, "key": "ee" * 32})
    forged = hosts.net_b.overlay("forged")
    send_across(hosts, b"under a wrong key")
    wait_for(lambda: hosts.net_b.overlay("forged") > forged, "the packet to be counted")
    assert hosts.b.barrier() == []
    # The right key and another network's number.
    use(hosts.net_a, dict(hosts.network_a, vni=4098), hosts.local_a, new)
    send_across(hosts, b"of another network")
    wait_for(lambda: hosts.net_b.overlay("wrong_vni") == 1, "the packet to be counted")
    assert hosts.b.barrier() == []


@pytest.mark.rows("P5", "P6")
def test_a_host_cannot_speak_for_addresses_that_are_not_on_it(scripted_hosts):
    hosts = scripted_hosts
    # For b's switch, a's address is on some other host now, say after a move.
    elsewhere = dict(hosts.network_b)
    elsewhere["ports"] = [dict(hosts.network_b["ports"][0], host="127.0.0.1:9"),
                          {"mac": "52:54:00:00:00:0c", "ip": "10.0.0.12", "hostname": "c",
                           "host": hosts.middle.as_a}, hosts.network_b["ports"][1]]
    hosts.net_b.configure(elsewhere, hosts.local_b)
    send_across(hosts, b"x")
    wait_for(lambda: hosts.net_b.status()["counters"]["overlay_spoofed"] == 1,
             "the frame to be counted")
    assert hosts.b.barrier() == []


def process_status(net):
    with open(f"/proc/{net.process.pid}/status", encoding="utf-8") as text:
        return dict(line.rstrip("\n").split(":\t", 1) for line in text)


@pytest.mark.rows("P5")
def test_the_switch_runs_without_rights(stage):
    fields = process_status(stage.switch())
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}


@needs_root
@pytest.mark.rows("P5")
def test_the_switch_becomes_another_user(stage):
    nobody = pwd.getpwnam("nobody")
    os.chmod(stage.folder, 0o711)
    a = stage.nic("a", MAC_A, IP_A)
    os.chown(a.path, nobody.pw_uid, nobody.pw_gid)
    net = Switch(os.path.join(stage.folder, "net"), options=("--user", "nobody"))
    os.chown(net.folder, nobody.pw_uid, nobody.pw_gid)
    stage.callback(net.stop)
    net.start()
    fields = process_status(net)
    assert fields["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert fields["Gid"].split() == [str(nobody.pw_gid)] * 4 and not fields["Groups"].strip()
    net.configure(network_of(PORT_A), local_of(a))
    assert a.accept().resolve(METADATA_IP).arp_mac == a.gateway_mac()
    kept = os.stat(os.path.join(net.folder, "config.json"))
    assert kept.st_uid == nobody.pw_uid and kept.st_mode & 0o777 == 0o600
    missing = subprocess.run([os.path.join(BIN, "sosie-switch"), "--user", "no-such-user",
                              stage.folder], capture_output=True, check=False)
    assert missing.returncode == 4 and b"no-such-user" in missing.stderr


def mutations(seed, count, nic):
    """Frames of every kind that the switch parses, with a few bytes changed, cut or repeated."""
    rng = random.Random(seed)
    router = nic.gateway_mac()
    templates = [
        ethernet(BROADCAST, nic.mac, 0x0806, arp(1, nic.mac, IP_A, IP_B)),
        ethernet(BROADCAST, nic.mac, 0x0800, ip4("0.0.0.0", "255.255.255.255", 17, udp(
            68, 67, dhcp(1, nic.mac, options=bytes([50, 4]) + ip_bytes(IP_A))))),
        ethernet(router, nic.mac, 0x0800, ip4(IP_A, RESOLVER_IP, 17, udp(
            5353, 53, dns_query("b.default.internal")))),
        ethernet(router, nic.mac, 0x0800, ip4(IP_A, METADATA_IP, 6, tcp(4000, 80, SYN))),
        ethernet(router, nic.mac, 0x0800, ip4(IP_A, IP_B, 1, icmp_echo(3) + ip4(
            IP_B, IP_A, 17, udp(1, 2, b"12345678")))),
        ethernet(router, nic.mac, 0x0800, ip4(IP_A, IP_B, 17, udp(1, 2, b"x" * 64), 5, 0x2000)),
    ]
    for _ in range(count):
        frame = bytearray(rng.choice(templates))
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(12, len(frame))] = rng.choice((0, 1, 0x45, 0x7f, 0x80, 0xff))
        if rng.random() < 0.2:
            del frame[rng.randrange(len(frame)):]
        yield bytes(frame)


@pytest.mark.rows("P5")
def test_mutated_frames_through_the_whole_switch(pair, repeat):
    """The same through all of it; the forwarding core alone gets 10^5 under sanitizers."""
    a, net = pair.a, pair.net
    count = repeat(100000)
    sent = 0
    for frame in mutations(1, count, a):
        a.send(frame)
        sent += 1
        if sent % 500 == 0:
            a.barrier()
    a.barrier()
    counters = net.nic(MAC_A)["counters"]
    assert counters["from_frames"] >= sent
    assert all(counters[name] > 0 for name in ("malformed", "unsupported", "spoofed_ip",
                                               "services", "metadata"))
    assert pair.a.resolve(IP_B).arp_mac == pair.b.mac
    assert net.count(MAC_A, "connects") == 1
