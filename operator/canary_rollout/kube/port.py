"""What the rooms ask of the Kubernetes API: plain dicts, typed errors, no typed models (they cost a second and 60 MB)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from canary_rollout.errors import CanaryRolloutError

Object = dict[str, Any]
"""A Kubernetes object as the API server sends it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API addresses it. ``group`` is empty for core/v1."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apps/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection or of one object."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.extend(part for part in (self.plural, name, subresource) if part is not None)
        return "/".join(parts)


CANARY_ROLLOUTS: Final = Resource("canaryrollout.dev", "v1alpha1", "canaryrollouts", "CanaryRollout")
HALT_RULE_SETS: Final = Resource("canaryrollout.dev", "v1alpha1", "haltrulesets", "HaltRuleSet")
CLUSTER_HALT_RULE_SETS: Final = Resource(
    "canaryrollout.dev", "v1alpha1", "clusterhaltrulesets", "ClusterHaltRuleSet", namespaced=False
)
DEPLOYMENTS: Final = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
PODS: Final = Resource("", "v1", "pods", "Pod")
SERVICES: Final = Resource("", "v1", "services", "Service")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
INGRESSES: Final = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
HTTP_ROUTES: Final = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GRPC_ROUTES: Final = Resource("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute")
VIRTUAL_SERVICES: Final = Resource("networking.istio.io", "v1", "virtualservices", "VirtualService")
TRAEFIK_SERVICES: Final = Resource("traefik.io", "v1alpha1", "traefikservices", "TraefikService")
INGRESS_ROUTES: Final = Resource("traefik.io", "v1alpha1", "ingressroutes", "IngressRoute")
VIRTUAL_SERVERS: Final = Resource("k8s.nginx.org", "v1", "virtualservers", "VirtualServer")
HTTP_PROXIES: Final = Resource("projectcontour.io", "v1", "httpproxies", "HTTPProxy")
HORIZONTAL_POD_AUTOSCALERS: Final = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
"""Label on every object the operator or an agent creates; its value is :data:`OPERATOR`."""
OPERATOR: Final = "canary-rollout"
ROLLOUT_LABEL: Final = "canaryrollout.dev/rollout"
"""Label that names the CanaryRollout an object belongs to (same namespace)."""
FIELD_MANAGER: Final = "canary-rollout"


class ApiError(CanaryRolloutError):
    """The API server said no, or could not be reached.

    Attributes:
        status: HTTP status, 0 when there was no answer.
        reason: the API's own reason word (``Conflict``), empty when there was none.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class NotFoundError(ApiError):
    """404: the object (or its kind) does not exist."""


class ConflictError(ApiError):
    """409, or a JSON Patch ``test`` that did not hold: somebody else was faster."""


class InvalidError(ApiError):
    """400, 422: the object was refused; repeating will not help."""


class ForbiddenError(ApiError):
    """401, 403: rights are missing; the message names the verb and the resource."""


class GoneError(ApiError):
    """410: the watch or list continues from a resourceVersion that is no longer kept."""


class UnavailableError(ApiError):
    """429, 5xx, a timeout or no connection: worth repeating.

    Attributes:
        retry_after: seconds the server asked to wait; 0 when it did not say.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after = retry_after


class KubeApi(Protocol):
    """Every call has a timeout; none retries by itself (callers know what a repeat means)."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object. Raises NotFoundError."""
        ...

    async def list_all(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """All objects (``namespace=None``: of all namespaces) and the list's resourceVersion; pages by itself."""
        ...

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create; ConflictError when it exists."""
        ...

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        manager: str = FIELD_MANAGER,
        force: bool = True,
    ) -> Object:
        """Server-side apply under one field manager. ``metadata.resourceVersion`` in ``body`` fences it."""
        ...

    async def merge_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
    ) -> Object:
        """JSON merge patch. ``metadata.resourceVersion`` in ``body`` fences it."""
        ...

    async def json_patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        operations: list[Object],
        *,
        subresource: str | None = None,
        manager: str = FIELD_MANAGER,
        dry_run: bool = False,
    ) -> Object:
        """JSON patch; a ``test`` that does not hold raises ConflictError. ``dry_run``: the answer is made, nothing is stored."""
        ...

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> None:
        """Delete; an object that is already gone is fine."""
        ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str = "",
        fields: str = "",
        timeout: float = 290.0,
    ) -> AsyncIterator[tuple[str, Object]]:
        """``(ADDED|MODIFIED|DELETED|BOOKMARK, object)`` until the server ends it. Raises GoneError, UnavailableError."""
        ...


class Reader(Protocol):
    """Reads the cache; never the network."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object as last seen, or ``None``. Do not change it."""
        ...

    def select(self, resource: Resource, namespace: str | None, labels: Mapping[str, str]) -> list[Object]:
        """All cached objects of the namespace that carry all of ``labels``. Do not change them."""
        ...


class Clock(Protocol):
    """Wall time, so that tests can turn it."""

    def now(self) -> float:
        """POSIX seconds."""
        ...
