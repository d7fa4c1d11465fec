"""Pods, Deployments and Services for the tests of the node, and ways to wait for them."""

import asyncio

import aiohttp

WITHIN = 120.0
"""Seconds for what must come anyway, on however slow a machine."""

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow"):
            time.sleep(float(self.path.split("=")[1]))  # in a pod's own process, and thread: the slow request itself
        body = {
            "/metrics": "demo_requests_total 7\\n",
            "/env": "\\n".join(f"{k}={v}" for k, v in os.environ.items()),
        }.get(self.path, os.environ["HOSTNAME"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("serving as", os.environ["HOSTNAME"], flush=True)
http.server.ThreadingHTTPServer((os.environ["BIND_ADDRESS"], 8080), Handler).serve_forever()
"""


def pod(namespace, name, **spec):
    """A Pod; one web server unless it is told otherwise."""
    containers = spec.pop("containers", None) or [{"name": "web", "image": "web:v1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "version": "v1"}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 5, **spec},
    }


def shell(script, **container):
    """A container that runs a script."""
    return {"name": "main", "image": "sh", "command": ["sh", "-c", script], **container}


def deployment(namespace, replicas=2, **template_metadata):
    """A Deployment of the web server."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "version": "v1"}, **template_metadata},
                "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "containers": [
                        {
                            "name": "web",
                            "image": "web:v1",
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1},
                        }
                    ],
                },
            },
        },
    }


def service(namespace):
    """Its Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }


def container_state(found, index=0):
    """What the status says of a container."""
    statuses = (found.get("status") or {}).get("containerStatuses") or [{}]
    return statuses[index]


def is_ready(found):
    conditions = (found.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def wait_pod(cluster, namespace, name, predicate, what):
    return await cluster.admin.wait_for("v1", "Pod", name, predicate, namespace=namespace, what=what, timeout=WITHIN)


async def wait_deployment(cluster, namespace, replicas=2):
    await cluster.admin.wait_for(
        "apps/v1",
        "Deployment",
        "web",
        lambda found: found["status"].get("readyReplicas") == replicas,
        namespace=namespace,
        what="ready",
        timeout=WITHIN,
    )


async def fetch(url, **kwargs):
    async with aiohttp.ClientSession() as session, session.get(url, **kwargs) as response:
        return await response.text()


async def wait_answer(url, text):
    """Ask on new connections until the answer is this; the proxy follows the EndpointSlice in its own time."""
    async with asyncio.timeout(60):
        while True:
            try:
                if await fetch(url, headers={"Connection": "close"}) == text:
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
