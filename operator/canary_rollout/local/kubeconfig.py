"""kubeconfig files, written so that only their owner reads them."""

import base64
import os
from pathlib import Path

import yaml

CONTEXT_NAME = "canary-rollout-local"


def write_kubeconfig(path: Path, *, server: str, ca: bytes, token: str, user: str, namespace: str = "default") -> Path:
    """Write a kubeconfig with one context and return its path.

    Args:
        path: file to write, mode 0600.
        server: URL of the API server.
        ca: its certificate authority, PEM.
        token: bearer token.
        user: name of the user entry; only a label.
        namespace: the context's namespace.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CONTEXT_NAME,
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [
            {"name": CONTEXT_NAME, "context": {"cluster": CONTEXT_NAME, "user": user, "namespace": namespace}}
        ],
        "current-context": CONTEXT_NAME,
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False))
    return path


def write_private(path: Path, content: str) -> None:
    """Write a file that nobody else may read, from its first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
