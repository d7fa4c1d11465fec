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
    where = f"Service {namespace}/{name}"
    spec = routable(reader, namespace, name)
    address = spec.get("clusterIP") or ""
    if address in {"", "None"}:
        raise ServiceUnusableError(f"{where} is headless (it has no ClusterIP): name an ordinary ClusterIP Service")
    return address, _port(spec, where)


def outside_address(reader: Reader, namespace: str, name: str) -> tuple[str, int]:
    """``(address, port)`` at which a Service of type LoadBalancer answers proxies outside the cluster.

    Raises:
        ServiceUnusableError: missing, ExternalName, no load balancer's IP address in its status, no port to choose.
    """
    where = f"Service {namespace}/{name}"
    spec = routable(reader, namespace, name)
    status: dict[str, Any] = find_service(reader, namespace, name).get("status") or {}
    found = [entry["ip"] for entry in (status.get("loadBalancer") or {}).get("ingress") or [] if entry.get("ip")]
    if not found:
        raise ServiceUnusableError(
            f"{where} has no load balancer's IP address in its status yet: make it type LoadBalancer, or use via: clusterIP"
        )
    return f"{found[0]}", _port(spec, where)


def routable(reader: Reader, namespace: str, name: str) -> dict[str, Any]:
    """The spec of a Service that traffic may be sent to.

    Raises:
        ServiceUnusableError: missing, or an ExternalName (it could point anywhere).
    """
    spec: dict[str, Any] = find_service(reader, namespace, name).get("spec") or {}
    where = f"Service {namespace}/{name}"
    if spec.get("type") == "ExternalName":
        raise ServiceUnusableError(f"{where} is an ExternalName: name a Service that selects pods of this namespace")
    return spec


def _port(spec: dict[str, Any], where: str) -> int:
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    if len(ports) > 1:
        ports = [port for port in ports if port.get("name") == "http"]
    if len(ports) != 1:
        raise ServiceUnusableError(f"{where} has no TCP port to choose: keep one port, or name one of them http")
    return int(ports[0]["port"])


def service_port(reader: Reader, namespace: str, name: str, wanted: int | None = None) -> int:
    """The port of a Service that a gateway is to use: ``wanted``, or the only one, or the one named ``http`` or ``grpc``.

    Raises:
        ServiceUnusableError: missing, ExternalName, no such port, or no port to choose.
    """
    where = f"Service {namespace}/{name}"
    spec = routable(reader, namespace, name)
    ports = [port for port in spec.get("ports") or [] if port.get("protocol", "TCP") == "TCP"]
    if wanted is not None:
        if all(port.get("port") != wanted for port in ports):
            raise ServiceUnusableError(f"{where} has no TCP port {wanted}: add it, or correct the port")
        return wanted
    if len(ports) > 1:
        ports = [port for port in ports if port.get("name") in {"http", "grpc"}]
    if len(ports) != 1:
        raise ServiceUnusableError(f"{where} has no TCP port to choose: keep one, name one of them http, or say which")
    return int(ports[0]["port"])
