# SPDX-License-Identifier: Apache-2.0
"""A control plane for tests: the real sosied over real HTTP, and agents that speak
docs/agent-protocol.md as a host's would, without guests."""

import base64
import http.client
import json
import os
import select
import signal
import subprocess
import threading
import urllib.parse

from conftest import BIN, ROOT

# The sanitised build where there is one: every request then also shows that memory is used rightly.
SOSIED = os.environ.get("SOSIE_TEST_SOSIED") or next(
    path for path in (os.path.join(ROOT, "build-asan", "bin", "sosied"), os.path.join(BIN, "sosied"))
    if os.path.exists(path))
START_LIMIT = 60
CALL_LIMIT = 60
GIB = 1 << 30


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Control:
    """One sosied with a state folder of its own; may be killed and started again."""

    def __init__(self, state, *options):
        self.state = str(state)
        self.options = options
        self.port = 0
        self.process = None
        self.log = open(os.path.join(os.path.dirname(self.state), "sosied.log"), "ab")

    def start(self):
        command = [SOSIED, "--state", self.state, "--listen", f"127.0.0.1:{self.port}",
                   "--admin-token-file", self.token_file, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        ready, _, _ = select.select([self.process.stdout], [], [], START_LIMIT)
        line = self.process.stdout.readline().decode() if ready else ""
        if "listens on" not in line:
            self.kill()
            with open(self.log.name, encoding="utf-8") as log:
                raise AssertionError(f"sosied did not start: {line!r} {log.read()}")
        self.port = int(line.rsplit(":", 1)[1])
        return self

    @property
    def token_file(self):
        return os.path.join(os.path.dirname(self.state), "admin-token")

    @property
    def token(self):
        with open(self.token_file, encoding="utf-8") as file:
            return file.read()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def stop(self):
        """Gracefully; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(START_LIMIT)
        finally:
            self.kill()
        return status

    def close(self):
        self.kill()
        self.log.close()

    def call(self, method, path, body=None, token=None, headers=None, raw=None, timeout=CALL_LIMIT):
        """One request on a connection of its own. token: None is the admin's, "" is nobody's."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        given = dict(headers or {})
        token = self.token if token is None else token
        if token:
            given["Authorization"] = f"Bearer {token}"
        data = raw
        if body is not None:
            data = json.dumps(body)
            given["Content-Type"] = "application/json"
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.call("POST", path, body, **options)

    def delete(self, path, **options):
        return self.call("DELETE", path, **options)

    def must(self, method, path, body=None, status=None, **options):
        reply = self.call(method, path, body, **options)
        good = reply.status == status if status else 200 <= reply.status < 300
        assert good, (method, path, reply.status, reply.body)
        return reply.json if reply.body else None

    def items(self, path, **options):
        """Every item of a list, page by page."""
        found, after = [], ""
        mark = "&" if "?" in path else "?"
        while True:
            page = self.must("GET", f"{path}{mark}limit=100{after}", **options)
            found += page["items"]
            if page["next"] is None:
                return found
            after = "&after=" + urllib.parse.quote(str(page["next"]))

    def make_token(self, role, **fields):
        tenant = fields.pop("tenant", None)
        path = "/v1/tokens" + (f"?tenant={tenant}" if tenant else "")
        return self.must("POST", path, {"role": role, **fields})["token"]

    def make_image(self, name="mini", size=1 << 20, tenant=None, **query):
        query = {key: str(value).lower() for key, value in query.items()}
        if tenant:
            query["tenant"] = tenant
        path = f"/v1/images/{name}/file?{urllib.parse.urlencode(query)}"
        return self.must("PUT", path, raw=os.urandom(512) + bytes(size - 512), status=201)


class Stream:
    """Server-sent events, read one at a time."""

    def __init__(self, control, path, token=None, last=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=CALL_LIMIT)
        headers = {"Authorization": f"Bearer {control.token if token is None else token}"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        self.connection.request("GET", path, headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()

    def next(self):
        """(id, name, data), or None at the stream's end."""
        event = {}
        while True:
            line = self.answer.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            if not line and "data" in event:
                return event.get("id"), event.get("event"), event["data"]
            key, _, value = line.partition(": ")
            if key:
                event[key] = value

    def until(self, kind):
        """Events up to the first of that kind, as JSON."""
        seen = []
        while True:
            event = self.next()
            assert event is not None, f"the stream ended before {kind}"
            seen.append(json.loads(event[2]))
            if event[1] == kind:
                return seen

    def close(self):
        self.connection.close()


class Agent:
    """A host's agent without guests: what is desired is reported as being so."""

    def __init__(self, control, name, cores=4, memory=4 * GIB, disk=64 * GIB, zone="", join=None):
        self.control = control
        self.name = name
        self.resources = {"cores": cores, "memory_bytes": memory, "disk_bytes": disk,
                          "cpu_model": "test"}
        self.zone = zone
        self.revision = 0
        self.desired = None
        self.states = {}  # what is reported instead of what is desired
        join = join or control.must("POST", "/v1/join-tokens")["token"]
        answer = self.register(join)
        self.token, self.host_id = answer["token"], answer["host_id"]
        self.observe()

    def register(self, token, status=200):
        return self.control.must("POST", "/v1/agent/register", {
            "host": self.name, "zone": self.zone, "resources": self.resources, "accel": "tcg",
            "agent_version": "0", "overlay": "192.0.2.1:4789"}, token=token, status=status)

    def poll(self, wait=0, revision=None):
        """The new desired state, or None."""
        known = self.revision if revision is None else revision
        reply = self.control.get(f"/v1/agent/desired?revision={known}&wait={wait}",
                                 token=self.token)
        if reply.status == 304:
            return None
        assert reply.status == 200, reply.body
        self.desired = reply.json
        self.revision = self.desired["revision"]
        return self.desired

    def observe(self, **extra):
        instances = []
        for wanted in (self.desired or {}).get("instances", []):
            instances.append({"id": wanted["id"], "reboots": wanted["reboots"],
                              **self.states.get(wanted["id"],
                                                {"state": wanted["state"], "reason": ""})})
        return self.control.must("POST", "/v1/agent/observed", {
            "boot_id": "b", "revision": self.revision, "instances": instances, **extra},
            token=self.token)

    def work(self):
        """Makes everything desired so, until nothing changes any more."""
        self.observe()
        while self.poll() is not None:
            self.observe()

    def find(self, name):
        return next(i for i in self.desired["instances"] if i["name"] == name)


class Heart:
    """Beats for agents in the background, so that only those that are to be lost fall silent."""

    def __init__(self, *agents, period=0.2):
        self.agents = list(agents)
        self.period = period
        self.over = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.over.wait(self.period):
                for agent in list(self.agents):
                    agent.observe()
        except Exception as failure:  # told by __exit__
            self.failure = failure

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def b64(data):
    return base64.b64encode(data).decode()


__all__ = ["Agent", "Control", "GIB", "Heart", "Reply", "ROOT", "Stream", "b64"]
