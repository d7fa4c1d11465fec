"""A route of the user's: JSON Patch, weights only (and rules for cohort members where that is allowed).

Lists in a route are atomic, so server-side apply of a weight alone is impossible: it would take over the whole list.
A raise is guarded by the resourceVersion, a lowering by the backends' names alone (design invariant 10). Revision and
authorship of the weights are read from the API server's own bookkeeping (:mod:`traffic.foreign`); a verdict cannot be
written here, it is in the CanaryRollout's status alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.kube.port import ConflictError, NotFoundError, Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Route, RouteView
from canary_rollout.model.units import FULL
from canary_rollout.traffic.foreign import Writer, authorship, last_writer, status_written_at
from canary_rollout.traffic.gateway_api_base import UNKNOWN_COHORT, GatewayApiBase
from canary_rollout.traffic.gateway_api_members import RULE_PREFIX, check_size, member_rules
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import Rejected, RouterError, Written
from canary_rollout.traffic.splits import Split, changes, lowers, share_of

_ATTEMPTS: Final = 3
"""Times a lowering is written anew when the user's lists moved under it."""
_DEFAULT_WEIGHT: Final = 1
"""Of a backend that does not say (Gateway API, ``BackendRef.weight``)."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a route says.

    Attributes:
        splits: the lists that name both versions.
        bases: of each, the index of its rule.
        problems: why further rules cannot be served, one sentence each.
    """

    splits: tuple[Split, ...]
    bases: tuple[int, ...]
    problems: tuple[str, ...]


class UsersRouteRouter(GatewayApiBase):
    """Writes weights in a route that is the user's (:class:`traffic.port.Router`)."""

    # What stands in the way

    def problems(self) -> list[str]:
        """Why this route cannot be used as it is."""
        found = [*self._common_problems(), *self._cohort_problems()]
        route = self._object()
        if route is None:
            field = "httpRoute" if self._settings.http_route is not None else "grpcRoute"
            return [*found, f"{self.where} does not exist: create it, or correct traffic.gatewayAPI.{field}"]
        read = self._read(route)
        return [*found, *read.problems, *(text for split in read.splits if (text := split.problem()))]

    def _cohort_problems(self) -> Iterator[str]:
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
                    rules = _users_rules(route)
                    check_size([*rules, *self._members(route, self._read(route), cohort)])
            except RouterError as error:
                yield f"stage {name}: {error}"

    # Reading

    def _read(self, route: Object) -> _Read:
        splits: list[Split] = []
        bases: list[int] = []
        problems: list[str] = []
        only = self._settings.rule
        for index, rule in enumerate((route.get("spec") or {}).get("rules") or []):
            name = rule.get("name")
            if f"{name or ''}".startswith(RULE_PREFIX) or (only is not None and name != only):
                continue
            found = self._split(index, rule)
            if isinstance(found, Split):
                splits.append(found)
                bases.append(index)
            elif found:
                problems.append(found)
        if not splits and not problems:
            services = self._context.spec.workload
            which = f"has no rule named {only} with" if only is not None else "has no rule that names"
            problems.append(
                f"{self.where} {which} the Services {services.stable.service} and {services.canary.service}: add the rule, or "
                "correct the names"
            )
        return _Read(tuple(splits), tuple(bases), tuple(problems))

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

    def observe(self) -> RouteView | None:
        """The route as the cache has it; ``None`` when it does not exist."""
        route = self._object()
        if route is None:
            return None
        read, writer = self._read(route), _writer(route)
        weight = share_of(read.splits)
        revision, contested_by = authorship(writer, self._context, weight)
        cohort = self._cohort(route, read, weight)
        uneven = not all(split.gives(weight) for split in read.splits)
        pending = self._not_accepted(route)
        if uneven:
            pending = f"not all rules of {self.where} say exactly that share; it is to be written again"
        return RouteView(
            weight=weight,
            revision=revision,
            cohort=cohort,
            confirmed=not pending,
            confirmed_at=None if pending else status_written_at(route),
            pending=pending,
            latch=None,
            contested_by=contested_by,
            again_at=self._again_at(route),
            resource_version=f"{route['metadata'].get('resourceVersion', '')}",
            mode=f"your {self.resource.kind}",
            outdated=uneven or cohort is UNKNOWN_COHORT,
            carries_latch=False,
        )

    def _cohort(self, route: Object, read: _Read, weight: int) -> Cohort | None:
        """The cohort that our rules for people say: one of this spec's, or one that equals none."""
        there = _our_rules(route)
        if not there and (weight == 0 or self._context.spec.traffic.pin is None):
            return None
        for candidate in (None, *(cohort for _, cohort in self._stage_cohorts())):
            try:
                if self._members(route, read, candidate) == there:
                    return candidate
            except RouterError:
                continue  # cannot be expressed, so it is not what is there
        return UNKNOWN_COHORT if there else None

    def _members(self, route: Object, read: _Read, cohort: Cohort | None) -> list[Object]:
        """Our rules for people beside each rule with weights."""
        rules, found = route["spec"]["rules"], list[Object]()
        for split, index in zip(read.splits, read.bases, strict=True):
            backends = rules[index]["backendRefs"]
            versions = _unweighted(backends[split.stable]), _unweighted(backends[split.canary])
            found += member_rules(rules[index], index, self._context.spec.traffic, cohort, versions)
        return found

    # Writing

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the weights; nothing when they are there already, written by us for this revision.

        A lowering is tried again on what the API server has now when that moved meanwhile, as long as it still is one.
        """
        there = self._object()
        for attempt in range(_ATTEMPTS):
            if there is None:
                if route.weight == 0 and route.cohort is None:
                    return Written("", changed=False)  # nobody gets the canary by a route that does not exist
                return Rejected(f"{self.where} does not exist: create it")
            try:
                operations, manager = self._operations(there, route, fence)
            except RouterError as error:
                return Rejected(f"{error}")
            if not operations:
                return Written(f"{there['metadata'].get('resourceVersion', '')}", changed=False)
            try:
                answer = await self._context.api.json_patch(
                    self.resource, self._context.namespace, self.name, operations, manager=manager
                )
            except NotFoundError:
                there = None
            except ConflictError as conflict:
                if attempt == _ATTEMPTS - 1:
                    raise
                there, fence = await self._moved(conflict, route, fence)
            else:
                return Written(f"{answer['metadata'].get('resourceVersion', '')}", changed=True)
        return Rejected(f"{self.where} is gone: create it again")

    async def _moved(self, conflict: ConflictError, route: Route, fence: str | None) -> tuple[Object, str | None]:
        """What is there now, and the fence for it; raises the conflict when that is no lowering of it any more.

        A lowering must not wait for a back-off because the controller's report, or another overwrite, came between.
        """
        there: Object = await self._context.api.get(self.resource, self._context.namespace, self.name)
        if fence is None:
            return there, fence
        if route.cohort is not None or not lowers(self._read(there).splits, route.weight):
            raise conflict
        return there, f"{there['metadata'].get('resourceVersion', '')}"

    def _operations(self, there: Object, route: Route, fence: str | None) -> tuple[list[Object], str]:
        """The JSON Patch and the name to send it under."""
        read, writer = self._read(there), _writer(there)
        if route.weight > share_of(read.splits) and read.problems:
            raise RouterError(read.problems[0])
        manager = writer.manager(self._context.name, route.revision)
        weight = validate.whole_number("weight", route.weight, 0, FULL)
        members = self._member_changes(there, read, route)
        trace = authorship(writer, self._context, share_of(read.splits))[0] != route.revision
        operations = [*changes(read.splits, weight, trace=trace and not members), *members]
        if operations and fence is not None:
            operations.insert(0, {"op": "test", "path": "/metadata/resourceVersion", "value": fence})
        return operations, manager

    def _member_changes(self, there: Object, read: _Read, route: Route) -> list[Object]:
        """Operations that leave exactly the wanted rules for people: ours at the end, everybody else's untouched."""
        present = _our_rules(there)
        wanted: Sequence[Object] = []
        if route.weight > 0 and self._settings.cohort_rules:
            wanted = self._members(there, read, route.cohort)
            check_size([*_users_rules(there), *wanted])
        elif route.weight > 0 and route.cohort is not None:
            raise RouterError("traffic.gatewayAPI.cohortRules is not true: no rules for people are added to your route")
        if present == wanted:
            return []
        found: list[Object] = []
        for index, rule in reversed(list(enumerate(there["spec"]["rules"]))):
            if _is_ours(rule):
                path = f"/spec/rules/{index}"
                found += [
                    {"op": "test", "path": f"{path}/name", "value": rule["name"]},
                    {"op": "remove", "path": path},
                ]
        return found + [{"op": "add", "path": "/spec/rules/-", "value": rule} for rule in wanted]

    async def release(self) -> None:
        """Nothing of ours is left: the weights stay as they are, and rules for people go with the last of the weight."""


def _writer(route: Object) -> Writer:
    return last_writer(route, "spec", "rules")


def _unweighted(backend: Object) -> Object:
    return {key: value for key, value in backend.items() if key != "weight"}


def _is_ours(rule: Object) -> bool:
    return f"{rule.get('name') or ''}".startswith(RULE_PREFIX)


def _our_rules(route: Object) -> list[Any]:
    return [rule for rule in (route.get("spec") or {}).get("rules") or [] if _is_ours(rule)]


def _users_rules(route: Object) -> list[Any]:
    return [rule for rule in (route.get("spec") or {}).get("rules") or [] if not _is_ours(rule)]
