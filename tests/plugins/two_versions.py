"""Two real HTTP servers that answer alike or not, and remember what they were asked."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICES = {"items": [{"id": 1, "price": 100.0}, {"id": 2, "price": 250}], "currency": "EUR"}


def with_price(price):
    """:data:`PRICES` with another price of the second item."""
    return {**PRICES, "items": [PRICES["items"][0], {"id": 2, "price": price}]}


class Version(ThreadingHTTPServer):
    """One version; ``answer(path)`` returns a body (JSON unless bytes), or (status, headers, body)."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.seen = []
        self.times = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    def handle_error(self, request, client_address):
        """A client that hangs up is no error of ours."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with server.lock:
            server.seen.append((self.command, self.path, dict(self.headers), body))
            server.times.append(time.monotonic())
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            answer = server.answer(self.path)
            status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
            if not isinstance(body, bytes):
                headers, body = {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        finally:
            with server.lock:
                server.under_way -= 1

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - the base class names them

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def versions(stable, canary):
    """Two servers, running."""
    servers = [Version(answer) for answer in (stable, canary)]
    threads = [
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True) for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield servers
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
