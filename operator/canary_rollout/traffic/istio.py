"""Istio: weights of destinations in a VirtualService of the user's.

The two versions are two Services (hosts), or two subsets of one host. Weights are proportions of their sum, which need
not be 100 any more; we write them out of 10,000, so that 0.5 % is exact. A destination without a weight counts as 0
where there are several.

What is more than weights is only ever added where the CanaryRollout allows it: http routes for people (``cohortRules``),
and mirrors to the canary (``mirror``). Both are recognised again by their form, and go when they are not wanted.

Istio reports nothing that tells when the proxies have it, so a weight counts from a settling time after it was written.
``consistentHash`` chooses a pod inside the version that was chosen already, so tenants cannot be kept on a version.

Source: istio/api b8f8791 (``networking/v1alpha3/virtual_service.proto``), istio/istio 86c9f01
(``pkg/config/validation``, ``pilot/pkg/networking/core/route``).
"""

from collections.abc import Iterator
from dataclasses import replace

from canary_rollout.kube.port import VIRTUAL_SERVICES, Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Capabilities, Route, RouteView
from canary_rollout.model.units import FULL
from canary_rollout.traffic.istio_members import member_routes
from canary_rollout.traffic.member_names import added, added_by, prefix_of
from canary_rollout.traffic.object_router import Place
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, WeightedListRouter, find_split, none_names_both, removals


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

    def capabilities(self) -> Capabilities:
        """0.01 % steps; people and mirrors where they may be added."""
        settings = self._settings
        return replace(super().capabilities(), cohorts=settings.cohort_rules, mirror=settings.mirror)

    def _sticky_problems(self) -> Iterator[str]:
        if self._context.spec.traffic.sticky is not None:
            yield (
                "Istio chooses the version anew for each request (consistentHash only chooses a pod inside it): remove "
                "traffic.sticky, or put the nginx or envoy router in front of the two Services"
            )

    def _people_problems(self) -> Iterator[str]:
        traffic = self._context.spec.traffic
        if not self._settings.cohort_rules:
            for text in super()._people_problems():
                yield text.replace(": remove", ": set traffic.istio.cohortRules to true, or remove", 1)
            return
        if traffic.request_headers.baggage:
            yield f"traffic.requestHeaders.baggage needs headers to be added, and {self.where} is yours: remove it"
        obj = self._object()
        for stage in self._context.spec.stages if obj is not None else ():
            try:
                self._members(obj or {}, stage.cohort, full=False)
            except RouterError as error:
                yield f"stage {stage.name}: {error}"

    def _spec_problems(self) -> Iterator[str]:
        obj = self._object()
        if obj is not None and self._settings.mirror:
            yield from (text for split in self._lists(obj).splits if (text := self._mirror_problem(obj, split)))

    def _mirror_problem(self, obj: Object, split: Split) -> str:
        """Why no mirror can be added to a route: it has one that is not in our form."""
        route = obj["spec"]["http"][split.rule]
        if not any(field in route for field in ("mirror", "mirrors")) or self._mirrored(obj, split) is not None:
            return ""
        return f"{split.where} has a mirror of its own, and one route can have one: remove it, or traffic.istio.mirror"

    # Reading

    def observe(self) -> RouteView | None:
        """The VirtualService as the cache has it, with the mirrors we added."""
        view, obj = super().observe(), self._object()
        if view is None or obj is None:
            return view
        shares = [self._mirrored(obj, split) or 0 for split in self._lists(obj).splits]
        return replace(view, mirror=max(shares, default=0), outdated=view.outdated or len(set(shares)) > 1)

    def _mirrored(self, obj: Object, split: Split) -> int | None:
        """The share of a route's requests that are copied to the canary, in the form we write; ``None``: another, or none."""
        route = obj["spec"]["http"][split.rule]
        mirrors = route.get("mirrors") or []
        if len(mirrors) != 1 or "mirror" in route or self._name(mirrors[0]) != self._names()[1]:
            return None
        value = (mirrors[0].get("percentage") or {}).get("value", 100)
        return round(float(value) * 100)

    def _is_ours(self, route: Object) -> bool:
        backends = {self._name(one) for one in route.get("route") or []}
        return added_by(route, self._context.name, backends, self._names())

    def _people(self, obj: Object) -> list[Object]:
        return [route for route in (obj.get("spec") or {}).get("http") or [] if self._is_ours(route)]

    def _people_for(self, obj: Object, cohort: Cohort | None, *, full: bool) -> list[Object]:
        return [route for _, routes in self._members(obj, cohort, full=full) for route in routes]

    def _members(self, obj: Object, cohort: Cohort | None, *, full: bool) -> list[tuple[int, list[Object]]]:
        """Of every http route with weights: its index, and the routes for people that belong before it."""
        found = []
        for split in self._lists(obj).splits:
            index = split.rule
            base = {key: value for key, value in obj["spec"]["http"][index].items() if key != "mirrors"}
            stable, canary = (
                {key: value for key, value in base["route"][at].items() if key != "weight"}
                for at in (split.stable, split.canary)
            )
            name = base.get("name") or sum(not added(one) for one in obj["spec"]["http"][:index])
            place = f"{prefix_of(self._context.name)}{name}"
            found.append(
                (
                    index,
                    member_routes(
                        base, place, self._context.spec.traffic, cohort, stable=stable, canary=canary, full=full
                    ),
                )
            )
        return found

    # Writing

    def _additions(self, there: Object, lists: Lists, route: Route) -> list[Object]:
        if route.cohort is not None and not self._settings.cohort_rules:
            return super()._additions(there, lists, route)
        if route.mirror and not self._settings.mirror:
            return super()._additions(there, lists, route)
        return [*self._mirror_changes(there, lists, route.mirror), *self._member_changes(there, route)]

    def _mirror_changes(self, there: Object, lists: Lists, share: int) -> list[Object]:
        found: list[Object] = []
        for split in lists.splits if self._settings.mirror else ():
            http, path = there["spec"]["http"][split.rule], f"/spec/http/{split.rule}/mirrors"
            if (self._mirrored(there, split) or 0) == share:
                continue
            if share and (text := self._mirror_problem(there, split)):
                raise RouterError(text)
            if "mirrors" in http:
                found.append({"op": "test", "path": path, "value": http["mirrors"]})
                found.append({"op": "remove", "path": path})
            if share:
                mirror = {
                    "destination": http["route"][split.canary]["destination"],
                    "percentage": {"value": share / 100},
                }
                found.append({"op": "add", "path": path, "value": [mirror]})
        return found

    def _member_changes(self, there: Object, route: Route) -> list[Object]:
        """Operations that leave exactly the wanted routes for people, each right before its own; everybody else's stay."""
        if not self._settings.cohort_rules:
            return []
        https = there["spec"].get("http") or []
        wanted = self._members(there, route.cohort, full=route.weight >= FULL) if route.weight > 0 else []
        if self._people(there) == [http for _, routes in wanted for http in routes]:
            return []
        found = removals("/spec/http", https, self._is_ours)
        for index, routes in reversed(wanted):
            before = sum(self._is_ours(http) for http in https[:index])
            found += [{"op": "add", "path": f"/spec/http/{index - before}", "value": http} for http in reversed(routes)]
        return found

    # Lists

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
            if self._settings.route in {None, name} and not added(route):
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
