"""An HTTP server that answers the presets' instant queries with numbers known beforehand, one series per version."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

VALUES = {
    "stable": {"requests": 19_000, "error": 0.001, "0.5": 0.02, "0.99": 0.2},
    "canary": {"requests": 1_000, "error": 0.074, "0.5": 0.025, "0.99": 12.5},
}


class Answers(BaseHTTPRequestHandler):
    """Answers every instant query of the agent's presets with one series per version."""

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)["query"][0]
        self.server.queries.append(query)
        result = [
            {
                "metric": {"namespace": "shop", "rollout": "checkout", "version": version}
                | self.server.labels.get(version, {}),
                "value": [0, str(values[self._what(query)])],
            }
            for version, values in VALUES.items()
            if self._what(query) not in self.server.silent
        ]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def _what(query):
        for quantile in ("0.99", "0.5"):
            if f"histogram_quantile({quantile}," in query:
                return quantile
        return "error" if "/" in query else "requests"

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def prometheus(silent=(), labels=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.queries, server.silent, server.labels = [], silent, labels or {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
