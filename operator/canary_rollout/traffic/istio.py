"""Istio: weights of destinations in a VirtualService of the user's.

The two versions are two Services (hosts), or two subsets of one host. Weights are proportions of their sum, which need
not be 100 any more; we write them out of 10,000, so that 0.5 % is exact. A destination without a weight counts as 0
where there are several.

Istio reports nothing that tells when the proxies have it, so a weight counts from a settling time after it was written.
``consistentHash`` chooses a pod inside the version that was chosen already, so tenants cannot be kept on a version.

Source: istio/api b8f8791 (``networking/v1alpha3/virtual_service.proto``), istio/istio 86c9f01
(``pkg/config/validation``, ``pilot/pkg/networking/core/route``).
"""

from collections.abc import Iterator

from canary_rollout.kube.port import VIRTUAL_SERVICES, Object
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, Place, WeightedListRouter, find_split, none_names_both


class IstioRouter(WeightedListRouter):
    """Writes weights for Istio (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.istio
        if settings is None:
            raise RouterError("spec.traffic.istio is missing")
        place = Place(
            VIRTUAL_SERVICES, settings.virtual_service, "traffic.istio.virtualService", ("spec", "http"), "Istio"
        )
        super().__init__(context, place)
        self._settings = settings
        self.settle = settings.settle

    def _sticky_problems(self) -> Iterator[str]:
        if self._context.spec.traffic.sticky is not None:
            yield (
                "Istio chooses the version anew for each request (consistentHash only chooses a pod inside it): remove "
                "traffic.sticky, or put the nginx or envoy router in front of the two Services"
            )

    def _lists(self, obj: Object) -> Lists:
        stable, canary = self._names()
        splits: list[Split] = []
        problems: list[str] = []
        for index, where, destinations in self._routes(obj):
            found = find_split([self._name(one) for one in destinations], stable, canary, where)
            if isinstance(found, str):
                problems += [found] if found else []
                continue
            field = "host" if self._settings.subsets is None else "subset"
            splits.append(
                Split(
                    path=f"/spec/http/{index}/route",
                    stable=found[0],
                    canary=found[1],
                    weights=tuple(int(one.get("weight") or 0) for one in destinations),
                    names=tuple(f"{(one.get('destination') or {}).get(field)}" for one in destinations),
                    where=where,
                    name_at=f"/destination/{field}",
                )
            )
        if not splits and not problems:
            only = self._settings.route
            what = f"http route named {only}" if only is not None else "http route"
            problems.append(none_names_both(self.where, what, stable, canary))
        return Lists(tuple(splits), tuple(problems))

    def _routes(self, obj: Object) -> Iterator[tuple[int, str, list[Object]]]:
        """Index, place for people, and destinations of every http route that may be changed."""
        for index, route in enumerate((obj.get("spec") or {}).get("http") or []):
            name = route.get("name")
            if self._settings.route in {None, name}:
                yield index, f"http route {name or index} of {self.where}", route.get("route") or []

    def _names(self) -> tuple[str, str]:
        """Both versions as :meth:`_name` calls them."""
        services, subsets = self._context.spec.workload, self._settings.subsets
        if subsets is None:
            return services.stable.service, services.canary.service
        return f"subset {subsets.stable} of {subsets.host}", f"subset {subsets.canary} of {subsets.host}"

    def _name(self, weighted: Object) -> str:
        destination = weighted.get("destination") or {}
        host, subset = f"{destination.get('host', '')}", destination.get("subset")
        if self._settings.subsets is not None:
            return f"subset {subset} of {host}"
        # A subset of one of the Services is a part of its pods: its weight is not the version's.
        return self._service(host) if subset is None else ""

    def _service(self, host: str) -> str:
        """Name of the Service of this namespace that a host means; empty for anything else (short names are relative)."""
        name, _, rest = host.partition(".")
        namespace, _, domain = rest.partition(".")
        if not rest:
            return name
        ours = namespace == self._context.namespace
        return name if ours and (not domain or domain == "svc" or domain.startswith("svc.")) else ""
