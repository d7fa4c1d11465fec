"""What the community ingress-nginx controller would ignore or misread without telling anybody, found beforehand.

Only Ingresses of the CanaryRollout's own namespace are seen here; one of another namespace with the same host and path is
not. Source: kubernetes/ingress-nginx dbb11b9, ``internal/ingress/controller/controller.go`` (``mergeAlternativeBackends``).
"""

import re
from collections.abc import Iterator
from typing import Final

from canary_rollout.kube.port import DEPLOYMENTS, Object, Reader
from canary_rollout.traffic.ingress_annotations import (
    AFFINITY,
    CANARY,
    CLASS,
    PASSTHROUGH,
)

Place = tuple[str, str, str]
"""Host, path, pathType."""
_CONTROLLER: Final = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}
_TAG: Final = re.compile(r"controller(?:-chroot)?:v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:[-@].*)?")
Version = tuple[int, ...]


def parse_version(text: str) -> Version:
    """``v1.12.1`` as numbers."""
    return tuple(int(part) for part in text.removeprefix("v").split("."))


def running_versions(reader: Reader, namespace: str) -> list[Version]:
    """Versions that the images of the controller's own Deployments name, oldest first; empty where none can be read."""
    found: set[Version] = set()
    for deployment in reader.select(DEPLOYMENTS, namespace, _CONTROLLER):
        template = (deployment.get("spec") or {}).get("template") or {}
        for container in (template.get("spec") or {}).get("containers") or []:
            image = f"{container.get('image', '')}".rpartition("/")[2]  # a registry may have a port of its own
            match = _TAG.fullmatch(image)
            if match is not None:
                found.add(tuple(int(part) for part in match.groups()))
    return sorted(found)


def primary_problems(primary: Object, where: str) -> Iterator[str]:
    """What about the user's own Ingress spoils a canary."""
    notes = primary["metadata"].get("annotations") or {}
    if notes.get(CANARY) == "true":
        yield f"{where} is a canary itself: name the Ingress that routes to the stable Service"
    elif stray := sorted(key for key in notes if key.startswith(CANARY)):
        yield f"{where} has {stray[0]} without being a canary, and the controller refuses it for that: remove it"
    if notes.get(AFFINITY):
        yield (
            f"{where} has {AFFINITY}: clients keep the version they met first, whatever the weight says: remove it, "
            "or use the nginx router"
        )
    if notes.get(PASSTHROUGH) == "true":
        yield f"{where} has {PASSTHROUGH}: requests cannot be told apart inside TLS; remove it, or use another router"


def conflicts(others: list[Object], primary: Object, ours: str, places: set[Place], canary: str) -> Iterator[str]:
    """What makes the controller drop a canary without a word (one for each place; not a primary of the same host).

    Args:
        others: all Ingresses of the namespace.
        primary: the user's Ingress.
        ours: name of the canary Ingress.
        places: where the canary stands.
        canary: its Service.
    """
    hosts, paths = {host for host, _, _ in places}, {(host, path) for host, path, _ in places}
    for other in others:
        metadata = other["metadata"]
        if metadata["name"] == ours or ingress_class(other) != ingress_class(primary):
            continue
        is_canary = (metadata.get("annotations") or {}).get(CANARY) == "true"
        for (host, path, kind), service in backends(other):
            if is_canary and (host, path) in paths:
                yield (
                    f"Ingress {metadata['name']} is a canary for {host}{path} already, and the controller takes one: delete it"
                )
            elif not is_canary and host in hosts and service == canary:
                yield (
                    f"Ingress {metadata['name']} sends {host}{path} to the canary Service {canary} itself; the controller "
                    "ignores a canary then: remove that path or give it a Service of its own"
                )
            elif not is_canary and metadata["name"] != primary["metadata"]["name"] and (host, path, kind) in places:
                yield (
                    f"Ingress {metadata['name']} has {host}{path} ({kind}) as well, and the controller follows the older of "
                    "the two, which may not be the one with the canary: keep one of them"
                )


def ingress_class(ingress: Object) -> str:
    """Which controller an Ingress is for."""
    notes = ingress["metadata"].get("annotations") or {}
    return f"{(ingress.get('spec') or {}).get('ingressClassName') or notes.get(CLASS) or ''}"


def service_of(path: Object) -> str:
    """Name of the Service that a path leads to; empty for anything else."""
    backend = path.get("backend") or {}
    return f"{(backend.get('service') or {}).get('name', '')}"


def backends(ingress: Object) -> Iterator[tuple[Place, str]]:
    """Every place of an Ingress and its Service."""
    for rule in (ingress.get("spec") or {}).get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            yield (rule.get("host") or "", path.get("path") or "/", path.get("pathType") or ""), service_of(path)
