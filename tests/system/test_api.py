# SPDX-License-Identifier: Apache-2.0
"""The control plane by its API: a real sosied, real HTTP, agents that speak the protocol."""

import base64
import hashlib
import http.client
import json
import os
import random
import re
import signal
import threading
import time

import pytest
from control import GIB, Agent, Control, Heart, Stream, b64

SOON = 60  # a limit, not a wait: how long something may take that comes at once


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "state", "--rate", "100000", "--host-timeout", "600").start()
    yield made
    try:
        if made.process:
            status = made.stop()
            with open(made.log.name, encoding="utf-8") as log:
                assert status == 0, log.read()
    finally:
        made.close()
        with open(made.log.name, encoding="utf-8") as log:
            text = log.read()
    assert "Sanitizer" not in text and "runtime error" not in text, text


def eventually(check, limit=SOON):
    """Waits until check() is true; for what has no event to wait for."""
    end = time.monotonic() + limit
    while not (found := check()):
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.02)
    return found


def launch(control, name, **fields):
    options = {key: fields.pop(key) for key in ("token", "tenant") if key in fields}
    path = "/v1/instances" + (f"?tenant={options.pop('tenant')}" if "tenant" in options else "")
    return control.must("POST", path, {"name": name, "image": "mini", "memory_mib": 64,
                                       **fields}, status=201, **options)["items"]


# Every route


class World:
    """Two tenants with one of everything each."""

    def __init__(self, control):
        self.control = control
        self.agent = Agent(control, "h1", cores=64, memory=64 * GIB)
        self.things = {}
        for tenant in ("red", "blue"):
            control.must("POST", "/v1/tenants", {"name": tenant})
            query = f"?tenant={tenant}"
            image = control.make_image(tenant=tenant)
            instance = launch(control, "web", tenant=tenant, group="g")[0]
            network = control.must("POST", "/v1/networks" + query,
                                   {"name": "n", "cidr": "10.9.0.0/24"})
            rule = control.must("POST", f"/v1/networks/n/rules{query}",
                                {"direction": "in", "protocol": "tcp", "first_port": 80})
            port = control.must("POST", "/v1/published-ports" + query,
                                {"instance": instance["name"], "port": 80})
            volume = control.must("POST", "/v1/volumes" + query, {"name": "v", "size_mib": 1})
            token = control.must("POST", "/v1/tokens" + query, {"role": "viewer"})
            self.agent.work()
            session = control.must("POST", f"/v1/instances/{instance['id']}/sessions",
                                   {"kind": "exec", "argv": ["true"]})
            group = control.must("GET", f"/v1/groups/g{query}")
            self.things[tenant] = {
                "tenant": control.must("GET", f"/v1/tenants/{tenant}")["id"],
                "image": image["id"], "instance": instance["id"], "network": network["id"],
                "rule": rule["id"], "port": port["id"], "volume": volume["id"],
                "token": token["id"], "session": session["id"], "group": group["id"],
                "host": self.agent.host_id}

    def routes(self):
        document = self.control.must("GET", "/v1/openapi.json")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                yield method.upper(), path, operation

    def path(self, pattern, tenant):
        return re.sub(r"\{(\w+)\}", lambda m: self.things[tenant][m.group(1)], pattern)

    def body(self, operation):
        """Something that the schema allows, as far as a route is to be reached."""
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" not in content:
            return None
        return sample(content["application/json"]["schema"], self.things)

    def revision(self):
        """Of everything but the audit log and what agents say."""
        return [self.control.items(f"/v1/{what}") for what in (
            "tenants", "hosts", "images", "networks", "published-ports", "instances", "volumes",
            "groups")] + [self.control.must("GET", "/v1/sessions")["items"]] + [
                sorted(t["id"] for t in self.control.items("/v1/tokens"))]


def sample(schema, things):
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "object":
        wanted = schema.get("required", [])
        made = {name: sample(schema["properties"][name], things) for name in wanted}
        if "argv" in schema.get("properties", {}):
            made["argv"] = ["true"]
        return made
    if kind == "array":
        return []
    return {"string": "x1", "integer": schema.get("minimum", 1) or 1, "boolean": False}[kind]


def ask(control, method, path, body, token):
    """One request; of a stream only how it begins."""
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=SOON)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.headers["Content-Type"] == "text/event-stream":
            return answer.status, b""
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.rows("P6", "P8")
def test_nobody_gets_anything_from_any_route(control):
    world = World(control)
    before, n = world.revision(), 0
    for token in ("", "sosie_" + "0" * 64, "x" * 200, "' OR 1=1 --"):
        for method, pattern, operation in world.routes():
            path = world.path(pattern, "red")
            status, body = ask(control, method, path, world.body(operation), token)
            assert status == 401, (method, path, status)
            assert json.loads(body)["error"]["code"] == "unauthenticated"
            n += 1
        # Not even which routes there are.
        assert ask(control, "GET", "/v1/nonsense", None, token)[0] == 401
    assert n == 4 * sum(1 for _ in world.routes()) > 200
    assert world.revision() == before


@pytest.mark.rows("P6", "P8")
def test_no_route_shows_or_changes_another_tenants_things(control):
    world = World(control)
    token = control.make_token("admin", tenant="blue")
    theirs = {value for key, value in world.things["red"].items() if key != "host"}
    before, refused = world.revision(), 0
    for method, pattern, operation in world.routes():
        # An upload's path names what it makes.
        named = "{" in pattern and operation["operationId"] != "images_upload"
        for suffix in ("", "?tenant=red"):
            if not named and method not in ("GET", "HEAD") and not suffix:
                continue  # makes things of its own, which it may
            path = world.path(pattern, "red") + suffix
            status, body = ask(control, method, path, world.body(operation), token)
            if named or (suffix and status != 200):
                assert status in (403, 404), (method, path, status, body)
                refused += 1
            shown = body.decode(errors="replace")
            assert not [thing for thing in theirs if thing in shown and thing not in path], shown
    assert refused > 60
    assert world.revision() == before
    # By name it finds its own, and nothing of theirs.
    assert control.get("/v1/instances/web-1", token=token).json["id"] == \
        world.things["blue"]["instance"]
    for path in ("instances", "networks", "volumes", "groups", "images", "published-ports"):
        for item in control.items(f"/v1/{path}", token=token):
            assert item["id"] not in theirs
    events = control.must("GET", "/v1/events?poll=1&since=0", token=token)["items"]
    assert events and {event["tenant"] for event in events} == {world.things["blue"]["tenant"]}
    audit = control.must("GET", "/v1/audit", token=token)["items"]
    assert audit and {entry["tenant"] for entry in audit} == {world.things["blue"]["tenant"]}


@pytest.mark.rows("P6", "P8")
def test_a_viewer_reads_and_changes_nothing(control):
    world = World(control)
    token = control.make_token("viewer", tenant="red")
    before = world.revision()
    reads = changes = 0
    for method, pattern, operation in world.routes():
        path = world.path(pattern, "red")
        status, body = ask(control, method, path, world.body(operation), token)
        if operation["x-access"] in ("viewer", "any"):
            assert method == "GET" and status == 200, (method, path, status, body)
            reads += 1
        else:
            assert status == 403, (method, path, status, body)
            changes += 1
    assert reads > 15 and changes > 35
    assert world.revision() == before


@pytest.mark.rows("P6")
def test_roles_and_agents_are_kept_apart(control):
    agent = Agent(control, "h1")
    other = Agent(control, "h2")
    operator = control.make_token("operator")
    admin = control.make_token("admin")
    assert control.get("/v1/instances", token=agent.token).status == 403
    assert control.get("/v1/hosts", token=admin).status == 403
    assert control.post("/v1/tokens", {"role": "viewer"}, token=operator).status == 403
    assert control.post("/v1/tokens", {"role": "admin", "provider": True},
                        token=admin).status == 403
    assert control.post("/v1/tenants", {"name": "x"}, token=admin).status == 403
    assert control.post("/v1/images", {"name": "x", "path": "/etc/shadow"},
                        token=admin).status == 403
    assert control.get("/v1/agent/desired", token=control.token).status == 403
    # A host's name is its own, unless somebody with a join token says otherwise.
    other.name = "h1"
    assert other.register(other.token, status=403)["error"]["code"] == "forbidden"
    assert agent.register(agent.token) == {"host_id": agent.host_id, "token": agent.token}
    again = agent.register(control.must("POST", "/v1/join-tokens")["token"])
    assert again["host_id"] == agent.host_id and again["token"] != agent.token
    assert control.get("/v1/agent/desired", token=agent.token).status == 401
    # Expired and revoked.
    listed = control.must("POST", "/v1/tokens", {"role": "viewer"})
    assert control.get("/v1/instances", token=listed["token"]).status == 200
    stream = Stream(control, "/v1/events", token=listed["token"])
    assert control.delete(f"/v1/tokens/{listed['id']}").status == 204
    assert stream.next() is None, "a revoked token's stream ends"
    stream.close()
    assert control.get("/v1/instances", token=listed["token"]).status == 401
    short = control.must("POST", "/v1/tokens", {"role": "viewer", "seconds": 1})["token"]
    eventually(lambda: control.get("/v1/instances", token=short).status == 401)
    # Secrets are told once and kept nowhere.
    assert all("token" not in token for token in control.items("/v1/tokens"))
    with open(os.path.join(control.state, "store.db"), "rb") as store:
        assert operator.encode() not in store.read()


# Bad input


@pytest.mark.rows("P6", "P8")
def test_bad_input_is_told_and_changes_nothing(control):
    Agent(control, "h1", cores=2)
    control.make_image()
    launch(control, "web")
    before = control.items("/v1/instances")

    def refused(status, code, body=None, raw=None, method="POST", path="/v1/instances", **options):
        reply = control.call(method, path, body, raw=raw, **options)
        assert reply.status == status, (body, raw, reply.status, reply.body)
        assert reply.error["code"] == code and reply.error["message"]
        return reply.error["message"]

    good = {"name": "x", "image": "mini"}
    assert "line 1" in refused(400, "usage", raw="{")
    refused(400, "usage", raw="")
    refused(400, "usage", raw=b"\xff\xfe")
    refused(400, "usage", raw='{"name":"x","name":"y"}')
    refused(400, "usage", {"some": "body"}, path="/v1/instances/web/stop")
    refused(422, "invalid", [])
    refused(422, "invalid", raw="[" * 100 + "]" * 100)
    assert "/nmae" in refused(422, "invalid", {**good, "nmae": "x"})
    assert "/image" in refused(422, "invalid", {"name": "x"})
    assert "/cores" in refused(422, "invalid", {**good, "cores": "2"})
    refused(422, "invalid", {**good, "cores": 0})
    refused(422, "invalid", {**good, "count": 65})
    refused(422, "invalid", {**good, "name": "../x"})
    refused(422, "invalid", {**good, "name": "x" * 64})
    refused(422, "invalid", {**good, "spread": "widely"})
    refused(422, "invalid", {**good, "publish": [{"port": 70000}]})
    refused(422, "invalid", {**good, "user_data": "x" * 65537})
    refused(422, "invalid", method="GET", path="/v1/instances?limit=0")
    refused(422, "invalid", method="GET", path="/v1/instances?after=x")
    refused(413, "too_large", raw=b" " * ((1 << 20) + 1))
    refused(404, "not_found", {**good, "image": "none"})
    refused(404, "not_found", {**good, "network": "none"})
    refused(404, "not_found", method="GET", path="/v1/instances/none")
    refused(404, "not_found", method="GET", path="/v1/instances/i-" + "0" * 24)
    refused(404, "not_found", method="PUT", path="/v1/instances")
    refused(404, "not_found", method="GET", path="/v1/instances/%ff%e2")
    refused(409, "conflict", {**good, "name": "web"})
    refused(409, "conflict", {"name": "default", "cidr": "10.1.0.0/24"}, path="/v1/networks")
    refused(422, "invalid", {"name": "n", "cidr": "8.8.8.0/24"}, path="/v1/networks")
    refused(422, "invalid", {"name": "i", "path": "/nowhere"}, path="/v1/images")
    refused(422, "invalid", {"name": "i", "path": "relative"}, path="/v1/images")
    refused(422, "invalid", {"name": "i", "path": "/dev/zero"}, path="/v1/images")
    refused(409, "conflict", method="DELETE", path="/v1/images/mini")
    refused(409, "conflict", method="DELETE", path="/v1/networks/default")
    refused(409, "conflict", method="DELETE", path="/v1/hosts/h1")
    refused(409, "conflict", method="DELETE", path="/v1/tenants/default")
    reason = refused(409, "no_capacity", {**good, "cores": 3})
    assert "h1: 1 cores free" in reason
    assert control.items("/v1/instances") == before
    assert not control.items("/v1/groups")


@pytest.mark.rows("P6")
def test_hostile_images_are_refused_and_leave_no_file(control):
    overlay = bytearray(b"QFI\xfb" + bytes(100))
    overlay[7] = 3
    overlay[8:16] = (512).to_bytes(8, "big")
    overlay[24:32] = (1 << 30).to_bytes(8, "big")
    for raw, query, status in ((bytes(overlay), "", 422), (b"x" * 100, "", 422), (b"", "", 422),
                               (bytes(512), "?format=qcow2", 422), (bytes(512), "?public=1", 403)):
        token = control.make_token("operator")
        reply = control.call("PUT", "/v1/images/bad/file" + query, raw=raw, token=token)
        assert reply.status == status, (query, reply.body)
    # Refused before a byte of it is read, whatever it says it is.
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=SOON)
    connection.putrequest("PUT", "/v1/images/bad/file")
    connection.putheader("Content-Length", str(1 << 40))
    connection.putheader("Authorization", "Bearer nobody")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()
    # One that breaks off.
    connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=SOON)
    connection.putrequest("PUT", "/v1/images/bad/file")
    connection.putheader("Content-Length", str(1 << 20))
    connection.putheader("Authorization", f"Bearer {control.token}")
    connection.endheaders()
    connection.send(bytes(1000))
    folder = os.path.join(control.state, "images")
    eventually(lambda: os.listdir(folder))
    connection.close()
    eventually(lambda: not os.listdir(folder))
    assert not control.items("/v1/images")


@pytest.mark.rows("P2")
def test_images_are_kept_by_digest_and_given_to_the_hosts_that_need_them(control, tmp_path):
    agent, other = Agent(control, "h1"), Agent(control, "h2")
    data = random.Random(1).randbytes(3 << 20)
    image = control.must("PUT", "/v1/images/mini/file", raw=data, status=201)
    assert image["sha256"] == hashlib.sha256(data).hexdigest()
    assert image["state"] == "ready" and image["size"] == len(data)
    assert control.get("/v1/agent/images/mini", token=agent.token).status == 404
    launch(control, "web", token=None)
    placed = agent if control.get("/v1/instances/web").json["host"] == "h1" else other
    free = other if placed is agent else agent
    reply = control.get("/v1/agent/images/mini", token=placed.token)
    assert reply.status == 200 and reply.body == data
    again = control.call("GET", "/v1/agent/images/mini", token=placed.token,
                         headers={"If-None-Match": reply.headers["ETag"]})
    assert again.status == 304
    assert control.get("/v1/agent/images/mini", token=free.token).status == 404
    # Registered where it lies.
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    events = Stream(control, "/v1/events")
    made = control.must("POST", "/v1/images", {"name": "local", "path": str(path)}, status=202)
    assert made["state"] == "importing"
    events.until("image.ready")
    events.close()
    assert control.get("/v1/images/local").json["sha256"] == image["sha256"]
    assert control.delete("/v1/images/local").status == 204
    assert path.exists(), "what was only registered is not removed"
    placed.work()
    control.must("DELETE", "/v1/instances/web")
    placed.work()
    assert control.delete("/v1/images/mini").status == 204
    assert not os.listdir(os.path.join(control.state, "images"))


# Instances and agents


@pytest.mark.rows("P1", "P3")
def test_what_is_asked_for_reaches_the_host_and_what_it_says_comes_back(control):
    agent = Agent(control, "h1")
    control.make_image()
    assert not agent.poll()["instances"], "what is known to be nothing is told too"
    assert agent.poll() is None, "and once"
    waiting = threading.Thread(target=lambda: agent.poll(wait=30))
    waiting.start()
    launch(control, "web", cores=2, memory_mib=128, user_data="#cloud-config\n",
           publish=[{"port": 80}])
    waiting.join(SOON)
    assert not waiting.is_alive()
    wanted = agent.find("web")
    assert (wanted["cores"], wanted["memory_mib"], wanted["state"]) == (2, 128, "running")
    assert wanted["user_data"] == "#cloud-config\n" and wanted["nics"][0]["ip"] == "10.0.0.2"
    network = agent.desired["networks"][0]
    assert network["ports"][0]["host"] == "192.0.2.1:4789"
    assert network["publish"][0]["ip"] == "10.0.0.2" and len(network["key"]) == 64
    host = control.get("/v1/hosts/h1").json
    assert host["free"]["cores"] == 2

    web = control.get("/v1/instances/web").json
    assert web["state"] == "pending"
    agent.work()
    assert control.get("/v1/instances/web").json["state"] == "running"
    for action, state, reboots in (("reboot", "running", 1), ("stop", "stopped", 1),
                                   ("start", "running", 1)):
        control.must("POST", f"/v1/instances/web/{action}", status=202)
        agent.work()
        shown = control.get("/v1/instances/web").json
        assert (shown["state"], shown["reboots_done"]) == (state, reboots)
    control.must("POST", "/v1/instances/web/stop", status=202)
    assert control.post("/v1/instances/web/reboot").status == 409
    # Room is kept until nothing is left on the host.
    control.must("DELETE", "/v1/instances/web", status=202)
    assert control.get("/v1/instances/web").json["state"] == "terminating"
    assert control.post("/v1/instances/web/start").status == 409
    assert control.get("/v1/hosts/h1").json["free"]["cores"] == 2
    agent.work()
    assert control.get("/v1/instances/web").status == 404
    assert control.get("/v1/hosts/h1").json["free"]["cores"] == 4
    assert not agent.desired["instances"] and not agent.desired["networks"]
    kinds = [e["kind"] for e in control.must("GET", "/v1/events?poll=1")["items"]]
    for kind in ("instance.launched", "instance.running", "instance.reboot", "instance.stopped",
                 "instance.terminated"):
        assert kind in kinds


@pytest.mark.rows("P1", "P8")
def test_changes_from_an_old_view_are_refused(control):
    agent = Agent(control, "h1")
    control.make_image()
    launch(control, "web")
    agent.work()
    seen = control.get("/v1/instances/web").headers["ETag"]
    control.must("POST", "/v1/instances/web/reboot", headers={"If-Match": seen})
    late = control.post("/v1/instances/web/stop", headers={"If-Match": seen})
    assert late.status == 409 and late.error["code"] == "conflict"
    assert control.get("/v1/instances/web").json["desired"] == "running"
    assert control.delete("/v1/networks/default", headers={"If-Match": '"1"'}).status == 409


@pytest.mark.rows("P1")
def test_racing_launches_never_overbook(control):
    """Many clients at once ask for more than there is."""
    agents = [Agent(control, f"h{i}", cores=5) for i in range(3)]
    control.make_image()
    outcomes = []

    def one(k):
        for n in range(4):
            outcomes.append(control.post("/v1/instances", {
                "name": f"w{k}-{n}", "image": "mini", "memory_mib": 16}).status)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [201] * 15 + [409] * 9
    assert [host["free"]["cores"] for host in control.items("/v1/hosts")] == [0, 0, 0]
    for agent in agents:
        agent.work()
    placed = [i for agent in agents for i in agent.desired["instances"]]
    assert len(placed) == 15 and len({i["nics"][0]["ip"] for i in placed}) == 15
    assert len({i["nics"][0]["mac"] for i in placed}) == 15
    # A draining host takes nothing, and says so.
    control.must("POST", "/v1/hosts/h0/drain")
    refused = control.post("/v1/instances", {"name": "x", "image": "mini"})
    assert "h0: draining" in refused.error["message"]
    assert control.must("POST", "/v1/hosts/h0/undrain")["state"] == "online"


@pytest.mark.rows("P1", "P3", "P8")
def test_a_group_survives_the_loss_of_its_primary_and_of_a_host(tmp_path):
    control = Control(tmp_path / "state", "--rate", "100000", "--host-timeout", "2").start()
    try:
        lost, left = Agent(control, "h1"), Agent(control, "h2")
        control.make_image()
        refused = control.post("/v1/instances", {"name": "big", "image": "mini", "count": 3,
                                                 "group": "big"})
        assert refused.error["code"] == "no_capacity"
        assert "has a member of the group" in refused.error["message"]
        assert not control.items("/v1/groups"), "a refused launch leaves no group"
        with Heart(lost, left) as heart:
            events = Stream(control, "/v1/events")
            made = launch(control, "web", count=2, group="g")
            assert {i["host"] for i in made} == {"h1", "h2"}
            for agent in (lost, left):
                agent.work()
            group = control.get("/v1/groups/g").json
            assert (group["state"], group["primary"], group["epoch"]) == ("healthy", "web-1", 1)
            first = lost if group["source"] == "h1" else left
            second = left if first is lost else lost
            assert first.find("web-1")["group"]["source"] is True
            assert second.find("web-2")["group"]["source"] is False

            # Its machine dies; its host lives on, and with it the values' source.
            first.states[first.find("web-1")["id"]] = {
                "state": "failed", "reason": "QEMU was killed by signal 9"}
            first.observe()
            group = control.get("/v1/groups/g").json
            assert (group["state"], group["primary"], group["source"], group["epoch"]) == (
                "degraded", "web-2", first.name, 2)
            assert "signal 9" in group["reason"]
            member = next(m for m in group["members"] if m["name"] == "web-1")
            assert member["lost"] and member["state"] == "failed"
            second.poll()
            assert second.desired["groups"][0]["epoch"] == 2

            # It comes back and leads no more; then its host falls silent.
            first.states.clear()
            first.observe()
            group = control.get("/v1/groups/g").json
            assert (group["state"], group["primary"]) == ("healthy", "web-2")
            heart.agents.remove(first)
            seen = events.until("instance.unknown")
            assert [e for e in seen if e["kind"] == "host.offline"]
            events.close()
            group = control.get("/v1/groups/g").json
            assert (group["state"], group["source"]) == ("degraded", second.name)
            assert "not heard of" in group["reason"]
            assert control.get("/v1/instances/web-1").json["state"] == "unknown"
            assert control.get(f"/v1/hosts/{first.name}").json["state"] == "offline"
            # Nothing is started elsewhere, for it may be running on.
            assert control.get("/v1/instances/web-1").json["host"] == first.name
            second.poll()
            assert [i["name"] for i in second.desired["instances"]] == ["web-2"]

            # Only a person who knows that it is off may say so.
            assert control.post(f"/v1/hosts/{second.name}/fence").status == 409
            outcome = control.must("POST", f"/v1/hosts/{first.name}/fence")
            assert outcome["instances"][0]["outcome"] == "failed", "no host is left for the spread"
            assert control.get("/v1/agent/desired", token=first.token).status == 401
            assert "off for good" in control.get("/v1/instances/web-1").json["reason"]
            third = Agent(control, "h3")
            heart.agents.append(third)
            control.must("POST", "/v1/instances/web-1/start")
            third.work()
            second.work()
            group = control.get("/v1/groups/g").json
            assert (group["state"], group["primary"]) == ("healthy", "web-2")
            assert {m["host"] for m in group["members"]} == {"h3", second.name}
            assert control.delete(f"/v1/hosts/{first.name}").status == 204
        assert control.stop() == 0
    finally:
        control.close()


@pytest.mark.rows("P1", "P3")
def test_a_fenced_hosts_instances_start_elsewhere(tmp_path):
    control = Control(tmp_path / "state", "--host-timeout", "1").start()
    try:
        lost = Agent(control, "h1")
        control.make_image()
        for name in ("run", "halt", "end"):
            launch(control, name)
        lost.work()
        control.must("POST", "/v1/instances/halt/stop")
        control.must("DELETE", "/v1/instances/end")
        other = Agent(control, "h2")
        with Heart(other):
            eventually(lambda: control.get("/v1/hosts/h1").json["state"] == "offline")
            done = control.must("POST", "/v1/hosts/h1/fence")["instances"]
            assert {i["name"]: i["outcome"] for i in done} == {
                "run": "started elsewhere", "halt": "stopped", "end": "terminated"}
            other.work()
            assert [i["name"] for i in other.desired["instances"]] == ["run"]
            assert control.get("/v1/instances/end").status == 404
            assert control.get("/v1/instances/halt").json["host"] is None
            assert control.get("/v1/hosts/h1").json["free"]["cores"] == 4
            # Back again, it is nobody until it joins, and then has nothing to run.
            assert control.get("/v1/agent/desired", token=lost.token).status == 401
            back = Agent(control, "h1")
            assert not back.poll(revision=0)["instances"]
        assert control.stop() == 0
    finally:
        control.close()


@pytest.mark.rows("P1", "P8")
def test_agents_events_are_taken_down_once(control):
    agent = Agent(control, "h1")
    control.make_image()
    instance = launch(control, "web")[0]
    batch = [{"sequence": n, "time_ns": 1, "kind": "guest.note", "subject": instance["id"],
              "data": {"n": n}} for n in (1, 2, 5)]

    def send(events):
        return control.must("POST", "/v1/agent/events", {"events": events}, token=agent.token)

    assert send(batch) == {"acknowledged": 5}
    assert send(batch) == {"acknowledged": 5}, "a lost answer is asked for again"
    assert send(batch[1:] + [{**batch[0], "sequence": 6, "subject": "i-" + "0" * 24}]) == {
        "acknowledged": 6}
    notes = [e for e in control.must("GET", "/v1/events?poll=1")["items"]
             if e["kind"] == "guest.note"]
    assert [e["data"]["data"]["n"] for e in notes] == [1, 2, 5, 1]
    assert notes[0]["subject"] == instance["id"] and notes[0]["tenant"]
    assert notes[3]["subject"] == agent.host_id and notes[3]["tenant"] is None
    # What is another host's is not believed.
    other = Agent(control, "h2")
    control.must("POST", "/v1/agent/observed", {
        "boot_id": "b", "revision": 9, "instances": [
            {"id": instance["id"], "state": "failed"}]}, token=other.token)
    assert control.get("/v1/instances/web").json["state"] == "pending"


@pytest.mark.rows("P3", "P8")
def test_a_program_runs_in_an_instance_by_a_session(control):
    agent = Agent(control, "h1")
    control.make_image()
    launch(control, "web")
    path = "/v1/instances/web/sessions"
    assert control.post(path, {"kind": "exec", "argv": ["cat"]}).status == 409
    agent.work()
    assert control.post(path, {"kind": "exec"}).status == 422
    revision = agent.revision
    session = control.must("POST", path, {"kind": "exec", "argv": ["cat", "-"]})["id"]
    desired = agent.poll(wait=30)
    assert desired["revision"] > revision
    assert desired["sessions"][0]["argv"] == ["cat", "-"]
    served = f"/v1/agent/sessions/{session}"
    output = Stream(control, f"/v1/sessions/{session}/output")
    data = random.Random(2).randbytes(300_000)
    sent = taken = sequence = 0
    back = b""
    # Like cat: what comes in goes out.
    while True:
        while sent < len(data):
            piece = data[sent:sent + 50_000]
            reply = control.post(f"/v1/sessions/{session}/input", {
                "data": b64(piece), "eof": sent + len(piece) == len(data)})
            if reply.status == 429:
                break
            assert reply.status == 200
            sent += len(piece)
        got = control.must("GET", f"{served}/input?offset={taken}&wait=30", token=agent.token)
        again = control.must("GET", f"{served}/input?offset={taken}", token=agent.token)
        assert again["data"] == got["data"], "what was not acknowledged is given again"
        piece = base64.b64decode(got["data"])
        taken += len(piece)
        report = {"sequence": sequence, "stream": "stdout", "data": got["data"]}
        for _ in range(2):  # the second time it is known
            assert control.must("POST", f"{served}/output", report, token=agent.token) == {
                "acknowledged": sequence}
        sequence += 1
        event = output.next()
        assert event[:2] == (str(sequence - 1), "stdout")
        back += base64.b64decode(event[2])
        if got["eof"]:
            break
    assert back == data
    gap = control.post(f"{served}/output", {"sequence": sequence + 1, "stream": "stdout"},
                       token=agent.token)
    assert gap.status == 409
    output.close()
    eventually(lambda: control.post(f"{served}/output", {
        "sequence": sequence, "stream": "exit", "status": 3}, token=agent.token).status == 200)

    def reopened():
        try:
            return Stream(control, f"/v1/sessions/{session}/output", last=sequence - 2)
        except AssertionError:
            return None  # the control plane has not noticed yet that the reader is gone

    output = eventually(reopened)
    assert output.next()[1] == "stdout", "a reader that comes back gets what it has not seen"
    last = output.next()
    assert (last[1], json.loads(last[2])["status"]) == ("exit", 3)
    assert output.next() is None
    output.close()
    assert not agent.poll(revision=0)["sessions"], "what has ended is served no more"
    assert control.delete(f"/v1/sessions/{session}").status == 204
    assert control.get(f"{served}/input?offset=0", token=agent.token).status == 404


@pytest.mark.rows("P3")
def test_output_that_nobody_reads_is_held_back(control):
    agent = Agent(control, "h1")
    control.make_image()
    launch(control, "web")
    agent.work()
    session = control.must("POST", "/v1/instances/web/sessions",
                           {"kind": "console"})["id"]
    chunk, n = b64(bytes(30_000)), 0
    while True:
        reply = control.post(f"/v1/agent/sessions/{session}/output", {
            "sequence": n, "stream": "stdout", "data": chunk}, token=agent.token)
        if reply.status != 200:
            break
        n += 1
    assert reply.status == 429 and 20 < n < 40
    output = Stream(control, f"/v1/sessions/{session}/output")
    for k in range(n):
        assert output.next()[0] == str(k)
    eventually(lambda: control.post(f"/v1/agent/sessions/{session}/output", {
        "sequence": n, "stream": "stdout", "data": chunk}, token=agent.token).status == 200)
    output.close()


# Networks and volumes


@pytest.mark.rows("P5", "P4")
def test_networks_rules_and_published_ports(control):
    agent = Agent(control, "h1")
    control.make_image()
    control.must("POST", "/v1/networks", {"name": "small", "cidr": "10.7.0.0/29"})
    launch(control, "web", count=3, network="small", cores=1)
    full = control.post("/v1/instances", {"name": "x", "image": "mini", "network": "small",
                                          "count": 3, "memory_mib": 16})
    assert full.status == 409
    control.must("POST", "/v1/networks/small/rules", {
        "direction": "in", "protocol": "tcp", "first_port": 80, "last_port": 81,
        "remote": "192.0.2.0/24"})
    rule = control.must("POST", "/v1/networks/small/rules",
                        {"direction": "in", "protocol": "icmp"})
    assert control.post("/v1/networks/small/rules", {
        "direction": "in", "protocol": "icmp", "first_port": 1}).status == 422
    agent.poll()
    network = next(n for n in agent.desired["networks"] if n["name"] == "small")
    assert network["rules"][0] == {"direction": "in", "protocol": "tcp", "ports": "80-81",
                                   "cidr": "192.0.2.0/24"}
    assert len(network["rules"]) == 2
    assert control.delete(f"/v1/networks/small/rules/{rule['id']}").status == 204
    agent.poll()
    network = next(n for n in agent.desired["networks"] if n["name"] == "small")
    assert len(network["rules"]) == 1
    port = control.must("POST", "/v1/published-ports", {"instance": "web-1", "port": 80,
                                                        "host_port": 8080})
    taken = control.post("/v1/published-ports", {"instance": "web-2", "port": 80,
                                                 "host_port": 8080})
    assert taken.status == 409 and "8080" in taken.error["message"]
    assert control.post("/v1/published-ports", {"instance": "web-1", "port": 80,
                                                "host_port": 22}).status == 422
    agent.poll()
    network = next(n for n in agent.desired["networks"] if n["name"] == "small")
    assert network["publish"] == [{"host_port": 8080, "ip": "10.7.0.2", "port": 80,
                                   "protocol": "tcp"}]
    assert control.delete(f"/v1/published-ports/{port['id']}").status == 204
    assert agent.poll() is not None


@pytest.mark.rows("P4")
def test_volumes_reserve_room(control):
    agent = Agent(control, "h1", disk=4 * GIB)
    control.make_image()
    launch(control, "web")
    agent.work()
    free = control.get("/v1/hosts/h1").json["free"]["disk_bytes"]
    volume = control.must("POST", "/v1/volumes", {"name": "v", "size_mib": 2048})
    assert volume["host"] == "h1"
    assert control.get("/v1/hosts/h1").json["free"]["disk_bytes"] == free - 2 * GIB
    refused = control.post("/v1/volumes", {"name": "w", "size_mib": 4096})
    assert refused.error["code"] == "no_capacity"
    assert control.must("POST", "/v1/volumes/v/attach", {"instance": "web"})["state"] == "attached"
    assert control.post("/v1/volumes/v/attach", {"instance": "web"}).status == 409
    assert control.delete("/v1/volumes/v").status == 409
    control.must("POST", "/v1/volumes/v/detach")
    assert control.delete("/v1/volumes/v").status == 204
    assert control.get("/v1/hosts/h1").json["free"]["disk_bytes"] == free


# Lists, limits, feeds, crashes


@pytest.mark.rows("P8")
def test_lists_come_in_pages(control):
    Agent(control, "h1", cores=64)
    control.make_image()
    launch(control, "w", count=23, memory_mib=16)
    seen, after = [], ""
    while True:
        page = control.must("GET", f"/v1/instances?limit=5{after}")
        assert len(page["items"]) <= 5
        seen += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert sorted(seen) == sorted(f"w-{n}" for n in range(1, 24))
    assert control.must("GET", "/v1/status")["instances"] == {"pending": 23}
    capacity = control.must("GET", "/v1/capacity")
    assert capacity["available"]["cores"] == 64 - 23


@pytest.mark.rows("P6", "P8")
def test_a_token_that_asks_too_often_is_slowed_and_others_are_not(tmp_path):
    control = Control(tmp_path / "state", "--rate", "5").start()
    try:
        admin, other = control.token, None
        statuses = []
        other = control.make_token("viewer")
        while 429 not in statuses:
            reply = control.get("/v1/whoami", token=admin)
            statuses.append(reply.status)
            assert len(statuses) < 10_000
        assert reply.headers["Retry-After"] == "1"
        assert reply.error["code"] == "rate_limited"
        assert control.get("/v1/whoami", token=other).status == 200
        assert control.stop() == 0
    finally:
        control.close()


@pytest.mark.rows("P8")
def test_the_event_feed_resumes_where_it_broke_off(control):
    """Read in pieces over many connections, the feed is the same as in one."""
    whole = Stream(control, "/v1/events")
    total = 300

    def write():
        for n in range(total):
            control.must("POST", "/v1/networks", {"name": f"n{n}", "cidr": "10.5.0.0/24"})

    writer = threading.Thread(target=write)
    writer.start()
    expected, pieces, last = [], [], None
    while len(expected) < total:
        event = whole.next()
        expected.append(int(event[0]))
    whole.close()
    writer.join()
    rng = random.Random(3)
    last = expected[0] - 1
    while not pieces or pieces[-1] != expected[-1]:
        stream = Stream(control, "/v1/events", last=last)
        for _ in range(rng.randrange(1, 60)):
            last = int(stream.next()[0])
            pieces.append(last)
            if last == expected[-1]:
                break
        stream.close()
    assert pieces == expected
    assert control.call("GET", "/v1/events?poll=1",
                        headers={"Last-Event-ID": "x"}).status == 422


@pytest.mark.rows("P6")
def test_every_change_is_in_the_audit_log(control):
    operator = control.make_token("operator")
    control.must("POST", "/v1/networks", {"name": "n", "cidr": "10.5.0.0/24"}, token=operator)
    assert control.post("/v1/tokens", {"role": "viewer"}, token=operator).status == 403
    assert control.delete("/v1/networks/n", token=operator).status == 204
    assert control.get("/v1/networks", token=operator).status == 200
    entries = control.must("GET", "/v1/audit")["items"]
    mine = [(e["method"], e["path"], e["status"]) for e in entries if e["role"] == "operator"]
    assert mine == [("POST", "/v1/networks", 201), ("POST", "/v1/tokens", 403),
                    ("DELETE", "/v1/networks/n", 204)]
    assert all(e["remote"].startswith("127.0.0.1:") and e["time"] for e in entries)


@pytest.mark.rows("P7", "P8")
def test_what_was_acknowledged_survives_kill_9(control, repeat):
    """Killed at random moments under clients that write; started again on the same port."""
    Agent(control, "h1", cores=10_000, memory=1 << 44, disk=1 << 44)
    control.make_image()
    rng = random.Random(int(os.environ.get("SOSIE_SEED", "7")))
    acknowledged, unknown = set(), set()
    over, lock, counter = threading.Event(), threading.Lock(), iter(range(10**9))

    def write():
        while not over.is_set():
            with lock:
                name = f"w{next(counter)}"
            try:
                reply = control.post("/v1/instances", {"name": name, "image": "mini",
                                                       "memory_mib": 16, "network": "wide"})
                assert reply.status == 201, reply.body
                acknowledged.add(name)
            except (OSError, http.client.HTTPException):
                unknown.add(name)

    control.must("POST", "/v1/networks", {"name": "wide", "cidr": "10.64.0.0/16"})
    token = control.token
    Control.token.fget.__get__(control)  # read once: the file is not made anew
    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    rounds = repeat(100)
    try:
        for _ in range(rounds):
            goal = len(acknowledged) + rng.randrange(1, 20)
            eventually(lambda goal=goal: len(acknowledged) >= goal)
            os.kill(control.process.pid, signal.SIGKILL)
            control.kill()
            control.start()
            assert control.token == token
    finally:
        over.set()
        for writer in writers:
            writer.join()
    found = {item["name"] for item in control.items("/v1/instances")}
    assert acknowledged <= found, sorted(acknowledged - found)
    assert found <= acknowledged | unknown
    host = control.get("/v1/hosts/h1").json
    assert host["free"]["cores"] == 10_000 - len(found), "rooms and instances agree"
    assert len(acknowledged) >= rounds
    print(f"{rounds} kills, {len(acknowledged)} acknowledged, {len(unknown)} cut off,"
          f" {len(found)} found")


@pytest.mark.rows("P6", "P8")
def test_one_state_folder_serves_one_process_and_unix_sockets_work(control, tmp_path):
    second = Control(control.state)
    with pytest.raises(AssertionError, match="another sosied uses"):
        second.start()
    second.close()
    control.stop()
    assert os.stat(control.token_file).st_mode & 0o777 == 0o600
    assert os.stat(control.state).st_mode & 0o777 == 0o700
    control.start()
    assert control.get("/v1/whoami").status == 200
