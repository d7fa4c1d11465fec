"""Traefik: weights of Services in a TraefikService (``weighted`` or ``highestRandomWeight``) or an IngressRoute of the user's.

Weights are integers, 1 where there is none, and 0 leaves the entry out altogether, its cookies included: whoever is kept
by a cookie of a Service at weight 0 is decided anew, so a rollback leaves nobody behind. We write them out of 10,000.
``weighted`` deals requests out in turn, not by chance: at 0.5 % the canary sees its first request after about 199
others, counted anew in every proxy and after every change of its configuration.

Tenants can be kept on a version in a TraefikService alone: by ``weighted.sticky.cookie`` (new ones by the weight, known
ones stay), or by ``highestRandomWeight`` (the client's address). Both only ever add to the canary as its weight rises.
The CanaryRollout must say so too, since a split of tenants is judged differently from one of requests.

Traefik's objects have no status, so a weight counts from a settling time after it was written.

Source: traefik/traefik fd5a576, ``pkg/server/service/loadbalancer/{wrr,hrw}`` and
``pkg/provider/kubernetes/crd/kubernetes_http.go``.
"""

from collections.abc import Iterator
from typing import Any, Final

from canary_rollout.kube.port import INGRESS_ROUTES, TRAEFIK_SERVICES, Object
from canary_rollout.model.route import Capabilities, Proof
from canary_rollout.traffic.foreign import Writer, last_writer
from canary_rollout.traffic.object_router import Place
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, WeightedListRouter, find_split, none_names_both

_DEFAULT_WEIGHT: Final = 1


class TraefikRouter(WeightedListRouter):
    """Writes weights for Traefik (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.traefik
        if settings is None:
            raise RouterError("spec.traffic.traefik is missing")
        if settings.ingress_route is not None:
            field, owned = "traffic.traefik.ingressRoute", ("spec", "routes")
            place = Place(INGRESS_ROUTES, settings.ingress_route, field, owned, "Traefik")
        else:
            name, field = f"{settings.traefik_service}", "traffic.traefik.traefikService"
            place = Place(TRAEFIK_SERVICES, name, field, ("spec", "weighted", "services"), "Traefik")
        super().__init__(context, place)
        self.settle = settings.settle

    def capabilities(self) -> Capabilities:
        """0.01 % steps; tenants are kept where the TraefikService keeps them."""
        sticky = self._place.resource == TRAEFIK_SERVICES
        return Capabilities(step=1, sticky=sticky, cohorts=False, proof=Proof.SETTLE, variants=True)

    # Stickiness

    def _sticky_problems(self) -> Iterator[str]:
        sticky = self._context.spec.traffic.sticky
        obj = self._object()
        if self._place.resource == INGRESS_ROUTES:
            if sticky is not None:
                yield (
                    "Traefik keeps tenants by the services of a TraefikService, not by an IngressRoute: name a "
                    "TraefikService in traffic.traefik.traefikService, or remove traffic.sticky"
                )
            return
        cookie, by_address = _cookie(obj or {}), "highestRandomWeight" in ((obj or {}).get("spec") or {})
        if sticky is None:
            yield from self._unsaid(cookie, by_address=by_address)
            return
        if sticky.header is not None:
            yield "Traefik cannot keep tenants by a header: use traffic.sticky.cookie or clientIP, or the nginx router"
        if sticky.allow or sticky.deny:
            yield "Traefik knows no lists of tenants: remove traffic.sticky.allow and deny, or use the nginx router"
        if obj is None:
            return
        if sticky.cookie is not None and sticky.cookie != cookie:
            has = f"has {cookie}" if cookie else "has none"
            yield (
                f"traffic.sticky.cookie is {sticky.cookie}, and {self.where} {has} in spec.weighted.sticky.cookie.name: "
                "write the same name there"
            )
        if sticky.cookie is not None and sticky.fallback != "request":
            yield "Traefik deals clients without a cookie out by the weight: set traffic.sticky.fallback to request"
        if sticky.client_ip and not by_address:
            yield (
                f"traffic.sticky.clientIP needs {self.where} to choose by the client's address: write "
                "spec.highestRandomWeight in place of spec.weighted, or remove it"
            )

    def _unsaid(self, cookie: str, *, by_address: bool) -> Iterator[str]:
        """The object keeps tenants and the CanaryRollout does not say so."""
        if cookie:
            yield (
                f"{self.where} keeps clients by cookie {cookie}, so the canary's share follows the weight slowly: set "
                f"traffic.sticky.cookie to {cookie}, or remove spec.weighted.sticky"
            )
        if by_address:
            yield (
                f"{self.where} chooses by the client's address: set traffic.sticky.clientIP to true, or write "
                "spec.weighted in place of spec.highestRandomWeight"
            )

    # Lists

    def _writer(self, obj: Object) -> Writer:
        if "highestRandomWeight" in (obj.get("spec") or {}):
            return last_writer(obj, "spec", "highestRandomWeight", "services")
        return super()._writer(obj)

    def _lists(self, obj: Object) -> Lists:
        services = self._context.spec.workload
        stable, canary = services.stable.service, services.canary.service
        splits: list[Split] = []
        problems: list[str] = []
        for path, where, backends in self._places(obj):
            found = find_split([self._service(backend) for backend in backends], stable, canary, where)
            if isinstance(found, str):
                problems += [found] if found else []
                continue
            weights = tuple(max(0, int(one.get("weight", _DEFAULT_WEIGHT))) for one in backends)
            names = tuple(f"{one.get('name')}" for one in backends)
            splits.append(Split(path, *found, weights=weights, names=names, where=where))
        if not splits and not problems:
            what = "route" if self._place.resource == INGRESS_ROUTES else "list of weighted services"
            problems.append(none_names_both(self.where, what, stable, canary))
        return Lists(tuple(splits), tuple(problems))

    def _places(self, obj: Object) -> Iterator[tuple[str, str, list[Object]]]:
        """JSON pointer, place for people, and services of every list."""
        spec = obj.get("spec") or {}
        if self._place.resource == INGRESS_ROUTES:
            for index, route in enumerate(spec.get("routes") or []):
                yield f"/spec/routes/{index}/services", f"route {index} of {self.where}", route.get("services") or []
            return
        for kind in ("weighted", "highestRandomWeight"):
            if kind in spec:
                yield f"/spec/{kind}/services", f"spec.{kind} of {self.where}", (spec[kind] or {}).get("services") or []

    def _service(self, backend: Object) -> str:
        """Name of the Service of this namespace that an entry is; empty for anything else."""
        here = backend.get("namespace", self._context.namespace) == self._context.namespace
        return f"{backend.get('name')}" if here and backend.get("kind", "Service") == "Service" else ""


def _cookie(obj: Object) -> str:
    """Name of the cookie by which a TraefikService keeps clients; a cookie without one gets Traefik's own choice."""
    weighted: dict[str, Any] = (obj.get("spec") or {}).get("weighted") or {}
    sticky = weighted.get("sticky") or {}
    if "cookie" not in sticky:
        return ""
    return f"{(sticky.get('cookie') or {}).get('name') or 'of a name that Traefik chooses'}"
