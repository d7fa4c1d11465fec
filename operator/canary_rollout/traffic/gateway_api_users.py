"""A route of the user's: weights only (and rules for cohort members where that is allowed)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Capabilities, Route
from canary_rollout.model.routers import GatewayApiTraffic
from canary_rollout.model.units import FULL
from canary_rollout.traffic.foreign import Writer
from canary_rollout.traffic.gateway_api_base import confirmation, place_of, sticky_problems
from canary_rollout.traffic.gateway_api_members import check_size, member_rules
from canary_rollout.traffic.member_names import added, added_by, prefix_of
from canary_rollout.traffic.object_router import Confirmation
from canary_rollout.traffic.port import RouterContext, RouterError
from canary_rollout.traffic.splits import Split
from canary_rollout.traffic.weighted_lists import Lists, WeightedListRouter, removals

_DEFAULT_WEIGHT: Final = 1
"""Of a backend that does not say (Gateway API, ``BackendRef.weight``)."""


class UsersRouteRouter(WeightedListRouter):
    """Writes weights in a route that is the user's (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext, settings: GatewayApiTraffic) -> None:
        super().__init__(context, place_of(settings))
        self._settings = settings
        self.settle = settings.settle

    def capabilities(self) -> Capabilities:
        """0.01 % steps, and people; the controller reports which generation it has taken."""
        return replace(super().capabilities(), cohorts=True)

    # What stands in the way

    def _sticky_problems(self) -> Iterator[str]:
        yield from sticky_problems(self._context.spec)

    def _people_problems(self) -> Iterator[str]:
        route = self._object()
        if not self._settings.cohort_rules:
            advice = (
                "set traffic.gatewayAPI.cohortRules to true to have rules for them added to your route, or let the "
                "operator create the route (traffic.gatewayAPI.create)"
            )
            if self._context.spec.traffic.pin is not None:
                yield f"traffic.pin needs rules of its own: {advice}"
            for name, cohort in self._stage_cohorts():
                if cohort is not None:
                    yield f"stage {name}: a cohort needs rules of its own: {advice}"
            return
        for name, cohort in self._stage_cohorts():
            try:
                if route is not None:
                    check_size([*self._others(route), *self._people_for(route, cohort, full=False)])
            except RouterError as error:
                yield f"stage {name}: {error}"

    # Reading

    def _lists(self, obj: Object) -> Lists:
        splits: list[Split] = []
        problems: list[str] = []
        only = self._settings.rule
        for index, rule in enumerate(_rules(obj)):
            if added(rule) or (only is not None and rule.get("name") != only):
                continue
            found = self._split(index, rule)
            if isinstance(found, Split):
                splits.append(found)
            elif found:
                problems.append(found)
        if not splits and not problems:
            services = self._context.spec.workload
            which = f"has no rule named {only} with" if only is not None else "has no rule that names"
            problems.append(
                f"{self.where} {which} the Services {services.stable.service} and {services.canary.service}: add the rule, or "
                "correct the names"
            )
        return Lists(tuple(splits), tuple(problems))

    def _split(self, index: int, rule: Object) -> Split | str:
        """The rule's list, or why it cannot be used; empty when it does not concern us."""
        services, backends = self._context.spec.workload, rule.get("backendRefs") or []
        names = [self._service(backend) for backend in backends]
        stable, canary = services.stable.service, services.canary.service
        where = f"rule {rule.get('name') or index} of {self.where}"
        if stable not in names:
            return ""  # somebody's own rule for the canary alone is theirs
        if names.count(stable) > 1 or names.count(canary) > 1:
            return f"{where} names a Service twice: weights cannot be told apart then; name each once"
        if canary not in names:
            return (
                f"{where} sends requests to {stable} alone: add the backend {canary} with weight 0 to it, or name the one "
                "rule to change in traffic.gatewayAPI.rule"
            )
        return Split(
            path=f"/spec/rules/{index}/backendRefs",
            stable=names.index(stable),
            canary=names.index(canary),
            weights=tuple(int(backend.get("weight", _DEFAULT_WEIGHT)) for backend in backends),
            names=tuple(f"{backend.get('name')}" for backend in backends),
            where=where,
        )

    def _service(self, backend: Object) -> str:
        """Name of the Service of this namespace that a backend is; empty for anything else."""
        here = backend.get("namespace", self._context.namespace) == self._context.namespace
        service = backend.get("kind", "Service") == "Service" and backend.get("group", "") in {"", "core"}
        return f"{backend.get('name')}" if here and service else ""

    def _confirmation(self, obj: Object, writer: Writer) -> Confirmation:
        return confirmation(obj, writer, self.settle, self._context.clock.now())

    def _is_ours(self, rule: Object) -> bool:
        services = self._context.spec.workload
        backends = {self._service(backend) for backend in rule.get("backendRefs") or []}
        return added_by(rule, self._context.name, backends, {services.stable.service, services.canary.service})

    def _others(self, route: Object) -> list[Object]:
        """The user's rules, and those that other CanaryRollouts have added."""
        return [rule for rule in _rules(route) if not self._is_ours(rule)]

    def _people(self, obj: Object) -> list[Object]:
        return [rule for rule in _rules(obj) if self._is_ours(rule)]

    def _people_for(self, obj: Object, cohort: Cohort | None, *, full: bool) -> list[Object]:
        """Our rules for people beside each rule with weights."""
        rules, found = _rules(obj), list[Object]()
        prefix = prefix_of(self._context.name)
        for split in self._lists(obj).splits:
            base = rules[split.rule]
            versions = (
                _unweighted(base["backendRefs"][split.stable]),
                _unweighted(base["backendRefs"][split.canary]),
            )
            found += member_rules(
                base, f"{prefix}{split.rule}", self._context.spec.traffic, cohort, versions, full=full
            )
        return found

    # Writing

    def _additions(self, there: Object, lists: Lists, route: Route) -> list[Object]:
        """Operations that leave exactly the wanted rules for people: ours at the end, everybody else's untouched."""
        del lists
        wanted: list[Object] = []
        if route.weight > 0 and self._settings.cohort_rules:
            wanted = self._people_for(there, route.cohort, full=route.weight >= FULL)
            check_size([*self._others(there), *wanted])
        elif route.weight > 0 and route.cohort is not None:
            raise RouterError("traffic.gatewayAPI.cohortRules is not true: no rules for people are added to your route")
        if self._people(there) == wanted:
            return []
        added = [{"op": "add", "path": "/spec/rules/-", "value": rule} for rule in wanted]
        return [*removals("/spec/rules", _rules(there), self._is_ours), *added]


def _rules(route: Object) -> list[Object]:
    found: list[Object] = (route.get("spec") or {}).get("rules") or []
    return found


def _unweighted(backend: Object) -> Object:
    return {key: value for key, value in backend.items() if key != "weight"}
