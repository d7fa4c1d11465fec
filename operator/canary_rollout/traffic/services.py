"""Where a Service answers: its ClusterIP and the port to use. Only Services of the CanaryRollout's own namespace."""

from typing import Any

from canary_rollout.kube.port import SERVICES, Object, Reader
from canary_rollout.traffic.port import RouterError


class ServiceUnusableError(RouterError):
    """A Service that cannot be routed to; the message says which, why and what to do."""


def find_service(reader: Reader, namespace: str, name: str) -> Object:
    """The Service from the cache.

    Raises:
        ServiceUnusableError: there is none.
    """
    service = reader.get(SERVICES, namespace, name)
    if service is None:
        raise ServiceUnusableError(f"Service {namespace}/{name} does not exist: create it or correct the name")
    return service


def cluster_address(reader: Reader, namespace: str, name: str) -> tuple[str, int]:
    """``(ClusterIP, port)`` of a Service.

    The port is the only one, or the one named ``http``.

    Raises:
        ServiceUnusableError: missing, ExternalName (it could point anywhere), headless, or no port to choose.
    """
    spec: dict[str, Any] = find_service(reader, namespace, name).get("spec") or {}
    where = f"Service {namespace}/{name}"
    if spec.get("type") == "ExternalName":
        raise ServiceUnusableError(f"{where} is an ExternalName: name a Service that selects pods of this namespace")
    address = spec.get("clusterIP") or ""
    if address in {"", "None"}:
        raise ServiceUnusableError(f"{where} is headless (it has no ClusterIP): name an ordinary ClusterIP Service")
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    if len(ports) > 1:
        ports = [port for port in ports if port.get("name") == "http"]
    if len(ports) != 1:
        raise ServiceUnusableError(f"{where} has no TCP port to choose: keep one port, or name one of them http")
    return address, int(ports[0]["port"])
