# SPDX-License-Identifier: Apache-2.0
"""A control plane for the agent's tests: real HTTP, told by the test what to desire.

It follows docs/agent-protocol.md to the letter and fails the test when the agent does not: what
it noticed is in `complaints`.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

JOIN_TOKEN = "join-token-of-the-test"


class ControlPlane:
    """One host's view of a control plane. Everything waits on one condition."""

    def __init__(self):
        self.changed = threading.Condition()
        self.revision = 1
        self.instances = {}
        self.observed = {}
        self.observations = 0
        self.events = []
        self.registrations = []
        self.images = {}
        self.image_requests = 0
        self.complaints = []
        self.tokens = set()
        self.away = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        with self.changed:
            self.away = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def go_away(self):
        """From now on requests are refused, long polls included."""
        with self.changed:
            self.away = True
            self.changed.notify_all()

    def come_back(self):
        with self.changed:
            self.away = False

    def desire(self, identity, **fields):
        """Changes what is desired of an instance; state=None forgets it."""
        with self.changed:
            if fields.get("state", "") is None:
                self.instances.pop(identity, None)
            else:
                self.instances.setdefault(identity, {"id": identity, "reboots": 0, "starts": 0})
                self.instances[identity].update(fields)
            self.revision += 1
            self.changed.notify_all()

    def wait(self, what, condition, timeout=60):
        """Waits until condition() holds, which is looked at after each change."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                found = condition()
                if found:
                    return found
                left = deadline - time.monotonic()
                assert left > 0, (f"waited for {what}", self.observed, self.events[-8:])
                self.changed.wait(left)

    def wait_state(self, identity, state, **fields):
        """Waits for an observed state (and other fields); returns what was observed."""
        def there():
            seen = self.observed.get(identity)
            good = seen and seen["state"] == state and all(
                seen.get(name) == value for name, value in fields.items())
            return dict(seen) if good else None
        return self.wait(f"{identity} to be {state} {fields}", there)

    def wait_event(self, identity, kind, after=0):
        def there():
            return next((event for event in self.events if event["sequence"] > after
                         and event["subject"] == identity and event["kind"] == kind), None)
        return self.wait(f"event {kind} of {identity}", there)

    def wait_gone(self, identity):
        self.wait(f"{identity} to be gone", lambda: identity not in self.observed
                  and self.observations > 0)

    def of(self, identity):
        with self.changed:
            return [event for event in self.events if event["subject"] == identity]

    def complain(self, text):
        self.complaints.append(text)

    # What the agent calls; each returns (status, body).

    def register(self, token, body):
        if token != JOIN_TOKEN and token not in self.tokens:
            return 401, {"error": {"code": "unauthenticated", "message": "unknown token"}}
        for name in ("host", "resources", "accel", "agent_version"):
            if name not in body:
                self.complain(f"registration lacks {name}")
        with self.changed:
            self.registrations.append(body)
            issued = f"agent-token-{len(self.registrations)}"
            self.tokens.add(issued)
            self.changed.notify_all()
        return 200, {"host_id": "h-1", "token": issued}

    def desired(self, query):
        revision, wait = int(query["revision"][0]), min(int(query["wait"][0]), 30)
        deadline = time.monotonic() + wait
        with self.changed:
            while self.revision <= revision and not self.away:
                left = deadline - time.monotonic()
                if left <= 0:
                    return 304, None
                self.changed.wait(left)
            if self.away:
                return 503, {"error": {"code": "unavailable", "message": "away"}}
            return 200, {"revision": self.revision, "instances": list(self.instances.values()),
                         "networks": [], "groups": [], "sessions": []}

    def observe(self, body):
        with self.changed:
            self.observed = {item["id"]: item for item in body["instances"]}
            self.observations += 1
            self.changed.notify_all()
        return 200, {}

    def take_events(self, body):
        with self.changed:
            for event in body["events"]:
                known = self.events[-1]["sequence"] if self.events else 0
                if event["sequence"] <= known:
                    continue
                if event["sequence"] != known + 1:
                    self.complain(f"events {known + 1} to {event['sequence'] - 1} are missing")
                self.events.append(event)
            self.changed.notify_all()
            return 200, {"acknowledged": self.events[-1]["sequence"]}

    def answer(self, method, path, token, body):
        url = urlparse(path)
        if self.away:
            return 503, {"error": {"code": "unavailable", "message": "away"}}
        if (method, url.path) == ("POST", "/v1/agent/register"):
            return self.register(token, body)
        if token not in self.tokens:
            return 401, {"error": {"code": "unauthenticated", "message": "unknown token"}}
        if (method, url.path) == ("GET", "/v1/agent/desired"):
            return self.desired(parse_qs(url.query))
        if (method, url.path) == ("POST", "/v1/agent/observed"):
            return self.observe(body)
        if (method, url.path) == ("POST", "/v1/agent/events"):
            return self.take_events(body)
        if method == "GET" and url.path.startswith("/v1/agent/images/"):
            self.image_requests += 1
            image = self.images.get(url.path.rsplit("/", 1)[1])
            return (200, image) if image else (404, {"error": {"code": "not_found",
                                                               "message": "no such image"}})
        self.complain(f"unknown request {method} {path}")
        return 404, {"error": {"code": "not_found", "message": "no such route"}}

    def handler(plane):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self):
                length = int(self.headers.get("Content-Length", 0))
                text = self.rfile.read(length)
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                try:
                    body = json.loads(text) if text else None
                    status, answer = plane.answer(self.command, self.path, token, body)
                except (KeyError, ValueError, TypeError) as wrong:
                    plane.complain(f"{self.command} {self.path}: {wrong!r} in {text[:200]!r}")
                    status, answer = 400, {"error": {"code": "usage", "message": repr(wrong)}}
                data = b"" if answer is None else (
                    answer if isinstance(answer, bytes) else json.dumps(answer).encode())
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = serve

            def log_message(self, *_):
                pass
        return Handler
