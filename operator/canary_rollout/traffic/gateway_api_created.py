"""A route that the operator creates and owns whole: server-side apply under one field manager.

It has no owner reference: deleting the CanaryRollout must leave traffic on stable, not take the route away. What was
written is said once more in an annotation of ours, with a digest of the spec: so an overwrite is noticed whoever made
it, and a verdict outlives the CanaryRollout's status.
"""

import hashlib
import json
from typing import Any, Final

from canary_rollout.kube.port import FIELD_MANAGER, MANAGED_BY, OPERATOR, ROLLOUT_LABEL, ConflictError, Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.plain import parse_json
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.model.routers import GatewayApiTraffic, OwnedRoute
from canary_rollout.model.units import FULL
from canary_rollout.traffic import latch
from canary_rollout.traffic.foreign import last_writer
from canary_rollout.traffic.gateway_api_base import confirmation, place_of, sticky_problems
from canary_rollout.traffic.gateway_api_render import Backends, render
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.object_router import UNKNOWN_COHORT, ObjectRouter, resource_version
from canary_rollout.traffic.port import Rejected, RouterContext, RouterError, Written
from canary_rollout.traffic.services import service_port

WRITTEN: Final = "canaryrollout.dev/written"
"""Annotation: what the route says, as JSON, with a digest of its spec."""
_ATTEMPTS: Final = 2
"""Times a fenced lowering is sent anew."""


class CreatedRouteRouter(ObjectRouter):
    """Writes a route of our own (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext, settings: GatewayApiTraffic, create: OwnedRoute) -> None:
        super().__init__(context, place_of(settings))
        self._settle = settings.settle
        self._create = create

    def capabilities(self) -> Capabilities:
        """0.01 % steps; the controller reports which generation it has taken."""
        proof = Proof.ACCEPTED if self._settle is None else Proof.SETTLE
        return Capabilities(step=1, sticky=False, cohorts=True, proof=proof, mirror=True)

    def problems(self) -> list[str]:
        """Why the route cannot be written."""
        found = [*sticky_problems(self._context.spec), *self._service_problems()]
        there = self._object()
        if there is not None and not self._is_ours(there):
            found.append(
                f"{self.where} exists and is not ours: delete or rename it, or drop traffic.gatewayAPI.create to have only "
                "its weights changed"
            )
        try:
            backends = self._backends()
        except RouterError as error:
            return [*dict.fromkeys([*found, f"{error}"])]
        for name, cohort in self._stage_cohorts():
            try:
                self._spec(Route(1, "", "", cohort), backends)
            except RouterError as error:
                found.append(f"stage {name}: {error}")
        return found

    def _is_ours(self, route: Object) -> bool:
        labels = route["metadata"].get("labels") or {}
        return (labels.get(MANAGED_BY), labels.get(ROLLOUT_LABEL)) == (OPERATOR, self._context.name)

    # Reading

    def observe(self) -> RouteView | None:
        """The route as the cache has it; ``None`` when it does not exist."""
        there = self._object()
        if there is None:
            return None
        written = _written(there)
        intact = written is not None and written.get("digest") == _digest(there.get("spec") or {})
        ours = intact and written is not None
        weight, mirror = (
            (int(written["weight"]), int(written["mirror"]))
            if ours and written
            else _found(there, self._context.spec.workload.canary.service)
        )
        cohort = _cohort(written, there) if written is not None else UNKNOWN_COHORT
        outdated = not intact or self._outdated(written or {})
        confirmed = confirmation(there, self._writer(there), self._settle, self._context.clock.now())
        pending = confirmed.pending
        if outdated:
            pending = f"{self.where} is to be written again: " + (
                "somebody else changed it" if not intact else "the spec or a Service has changed"
            )
        return RouteView(
            weight=weight,
            revision=f"{written['revision']}" if ours and written else "",
            cohort=cohort,
            confirmed=not pending,
            confirmed_at=None if pending else confirmed.at,
            pending=pending,
            latch=latch.from_object(there),
            contested_by="" if intact else _other_writer(there),
            again_at=confirmed.again_at,
            resource_version=resource_version(there),
            mode=self._place.resource.kind,
            outdated=outdated,
            mirror=mirror,
        )

    def _outdated(self, written: dict[str, Any]) -> bool:
        try:
            route = Route(
                int(written["weight"]),
                f"{written['revision']}",
                f"{written['stable']}",
                _cohort_of(written),
                mirror=int(written["mirror"]),
            )
            return _digest(self._spec(route, self._backends())) != f"{written['digest']}"
        except RouterError:
            return False  # nothing better can be written; problems() says why

    def _backends(self) -> Backends:
        services, reader = self._context.spec.workload, self._context.reader
        stable, canary = (
            (name, service_port(reader, self._context.namespace, name, self._create.port))
            for name in (services.stable.service, services.canary.service)
        )
        return Backends(stable, canary)

    # Writing

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the whole route; nothing when the cache already shows exactly this.

        A lowering goes through even where a Service is gone: with the ports that are there.
        """
        there = self._object()
        if there is not None and not self._is_ours(there):
            return Rejected(f"{self.where} exists and is not ours: delete or rename it")
        try:
            spec = self._spec(route, self._backends_for(there, lowering=fence is None))
        except RouterError as error:
            return Rejected(f"{error}")
        notes = {WRITTEN: _note(route, _digest(spec))}
        if route.latch is not None:
            notes[latch.LATCH] = latch.to_annotation(route.latch)
        if there is not None and _says(there, spec, notes):
            return Written(resource_version(there), changed=False)
        metadata: Object = {
            "name": self._place.name,
            "namespace": self._context.namespace,
            "labels": {MANAGED_BY: OPERATOR, ROLLOUT_LABEL: self._context.name},
            "annotations": notes,
        }
        if fence is not None:
            metadata["resourceVersion"] = fence
        body = {
            "apiVersion": self._place.resource.api_version,
            "kind": self._place.resource.kind,
            "metadata": metadata,
            "spec": spec,
        }
        answer = await self._apply(body, route)
        return Written(resource_version(answer), changed=True)

    async def _apply(self, body: Object, route: Route) -> Object:
        """Write it. A fenced lowering is sent again when the object moved meanwhile, as long as it still is a lowering."""
        for _ in range(_ATTEMPTS):
            try:
                return await self._context.api.apply(
                    self._place.resource, self._context.namespace, self._place.name, body
                )
            except ConflictError:
                there = await self._context.api.get(self._place.resource, self._context.namespace, self._place.name)
                weight, mirror = _found(there, self._context.spec.workload.canary.service)
                if route.cohort is not None or weight <= route.weight or mirror < route.mirror:
                    raise  # what was decided on is gone
                body["metadata"]["resourceVersion"] = there["metadata"].get("resourceVersion", "")
        return await self._context.api.apply(self._place.resource, self._context.namespace, self._place.name, body)

    def _spec(self, route: Route, backends: Backends) -> Object:
        traffic = self._context.spec.traffic
        weight = validate.whole_number("weight", route.weight, 0, FULL)
        mirror = validate.whole_number("mirror", route.mirror, 0, FULL)
        cohort = validate.cohort("cohort", route.cohort) if weight > 0 else None
        checked = Route(
            weight,
            validate.revision("revision", route.revision),
            validate.revision("stable revision", route.stable_revision),
            cohort,
            mirror=mirror,
        )
        return render(self._place.resource, self._create, traffic, checked, backends)

    def _backends_for(self, there: Object | None, *, lowering: bool) -> Backends:
        try:
            return self._backends()
        except RouterError:
            found = _backends_in(there, self._context.spec.workload) if there is not None and lowering else None
            if found is None:
                raise
            return found

    async def release(self) -> None:
        """Leave the route: it is what sends people to stable, and its verdicts must not be forgotten."""


def _written(route: Object) -> dict[str, Any] | None:
    """Our annotation; ``None`` when it is missing or somebody mangled it."""
    text = (route["metadata"].get("annotations") or {}).get(WRITTEN)
    try:
        raw = parse_json(text) if text is not None else None
    except ValueError:
        return None
    if not isinstance(raw, dict) or any(type(raw.get(key)) is not int for key in ("weight", "mirror")):
        return None
    return raw if all(key in raw for key in ("revision", "stable", "digest")) else None


def _note(route: Route, digest: str) -> str:
    cohort = route.cohort.model_dump(mode="json", by_alias=True, exclude_none=True) if route.cohort else None
    said = {"weight": route.weight, "mirror": route.mirror, "revision": route.revision, "stable": route.stable_revision}
    return json.dumps({**said, "cohort": cohort if route.weight > 0 else None, "digest": digest}, sort_keys=True)


def _cohort_of(written: dict[str, Any]) -> Cohort | None:
    """The cohort we wrote; what does not read is no cohort anybody wants."""
    raw = written.get("cohort")
    if raw is None:
        return None
    try:
        return Cohort.model_validate(raw)
    except ValueError:
        return UNKNOWN_COHORT


def _cohort(written: dict[str, Any], route: Object) -> Cohort | None:
    """The cohort in force: what we wrote; in somebody else's version nobody, unless a rule looks at headers."""
    if written.get("digest") == _digest(route.get("spec") or {}):
        return _cohort_of(written)
    rules = (route.get("spec") or {}).get("rules") or []
    by_header = any(match.get("headers") for rule in rules for match in rule.get("matches") or [])
    return UNKNOWN_COHORT if by_header else None


def _found(route: Object, canary: str) -> tuple[int, int]:
    """Weight and mirrored share that somebody else's version of our route gives the canary, at the most, basis points."""
    weights, mirrors = [0], [0]
    for rule in (route.get("spec") or {}).get("rules") or []:
        numbers = [(one.get("name") == canary, int(one.get("weight", 1))) for one in rule.get("backendRefs") or []]
        total, share = sum(number for _, number in numbers), sum(number for ours, number in numbers if ours)
        weights.append(max(1, round(share * FULL / total)) if share else 0)
        mirrors += [FULL for one in rule.get("filters") or [] if one.get("type") == "RequestMirror"]
    return max(weights), max(mirrors)


def _digest(spec: Object) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def _says(there: Object, spec: Object, notes: dict[str, str]) -> bool:
    present = there["metadata"].get("annotations") or {}
    same = all(present.get(key) == notes.get(key) for key in (WRITTEN, latch.LATCH))
    return same and _digest(there.get("spec") or {}) == _digest(spec)


def _other_writer(route: Object) -> str:
    writers = [last_writer(route, "spec", part).name for part in ("rules", "hostnames", "parentRefs")]
    return next((name for name in writers if name != FIELD_MANAGER), writers[0])


def _backends_in(route: Object, workload: Any) -> Backends | None:
    """Ports that our route names now."""
    ports = {
        f"{backend.get('name')}": backend.get("port")
        for rule in (route.get("spec") or {}).get("rules") or []
        for backend in rule.get("backendRefs") or []
    }
    names = (workload.stable.service, workload.canary.service)
    if not all(type(ports.get(name)) is int for name in names):
        return None
    stable, canary = ((name, int(ports[name] or 0)) for name in names)
    return Backends(stable, canary)
