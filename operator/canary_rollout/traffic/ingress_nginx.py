"""The community ingress-nginx controller: a canary Ingress of ours beside the user's own, which is only read.

The controller reports nothing about what it has taken over, and says its refusals in its own log alone. So everything
it would silently refuse is looked for beforehand (:meth:`IngressNginxRouter.problems`), and a weight counts from a
settling time after it was written.

Weight 0 is ``canary-weight: "0"`` without header or cookie rules: nobody is routed to the canary then, since
``affinity-canary-behavior: legacy`` keeps the controller from ever binding a client to it. It is not
``canary: "false"``: that would make it an ordinary Ingress for the user's host and path, which the controller's
admission webhook refuses, and a rollback must not be refused.

Source: kubernetes/ingress-nginx dbb11b9, ``rootfs/etc/nginx/lua/balancer.lua`` and
``internal/ingress/annotations/canary``.
"""

from collections.abc import Iterator
from typing import Any, Final

from canary_rollout.kube.port import (
    INGRESSES,
    MANAGED_BY,
    OPERATOR,
    ROLLOUT_LABEL,
    SERVICES,
    NotFoundError,
    Object,
)
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.model.routers import IngressNginxTraffic
from canary_rollout.model.units import FULL, format_instant, format_weight
from canary_rollout.traffic import latch
from canary_rollout.traffic.ingress_annotations import (
    AFFINITY,
    AFFINITY_CANARY,
    CANARY,
    CLASS,
    REVISION,
    TOTAL,
    WEIGHT,
    WRITTEN_AT,
    cohort_annotations,
    cohort_of,
    foreign_rules,
    other_writer,
    weight_of,
    written_at,
)
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import Rejected, RouterContext, RouterError, Watched, Written
from canary_rollout.traffic.services import find_service

_TOTAL_SINCE: Final = (1, 7, 0)
"""The controller's first version that honours canary-weight-total for rules (its #9729, #9745)."""

Place = tuple[str, str, str]
"""Host, path, pathType."""


class IngressNginxRouter:
    """Writes weights for the community ingress-nginx controller (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.ingress_nginx
        if settings is None:
            raise RouterError("spec.traffic.ingressNginx is missing")
        self._context = context
        self._settings: IngressNginxTraffic = settings

    @property
    def name(self) -> str:
        """Name of the canary Ingress."""
        return f"{self._context.name}-canary"

    def capabilities(self) -> Capabilities:
        """0.01 % steps where the controller's version is known to honour them, else whole per cent; nothing is proved."""
        return Capabilities(step=1 if self._fine() else 100, sticky=False, cohorts=True, proof=Proof.SETTLE)

    def _fine(self) -> bool:
        given = self._settings.controller_version
        return given is not None and tuple(int(part) for part in given.removeprefix("v").split(".")) >= _TOTAL_SINCE

    # What stands in the way

    def problems(self) -> list[str]:
        """Why the controller would refuse or ignore what we write, which it says to nobody."""
        found = [*self._spec_problems()]
        try:
            primary = self._primary()
            rules = self._rules(primary)
        except RouterError as error:
            return [*found, f"{error}"]
        return [*found, *self._primary_problems(primary), *self._conflicts(rules)]

    def _spec_problems(self) -> Iterator[str]:
        spec = self._context.spec
        if spec.traffic.sticky is not None:
            yield (
                "ingressNginx decides each request by itself and cannot keep tenants on a version: remove traffic.sticky, "
                "or use the nginx router"
            )
        for stage in spec.stages:
            if stage.weight % self.capabilities().step:
                yield (
                    f"stage {stage.name}: {format_weight(stage.weight)} is no whole per cent, and controllers before 1.7.0 "
                    f"would serve {format_weight(min(FULL, stage.weight * 100))} instead: name the controller's version in "
                    f"traffic.ingressNginx.controllerVersion, or choose {format_weight(max(100, stage.weight // 100 * 100))}"
                )
            try:
                cohort_annotations(f"stage {stage.name}: cohort", stage.cohort)
            except RouterError as error:
                yield f"{error}"

    def _primary_problems(self, primary: Object) -> Iterator[str]:
        notes = primary["metadata"].get("annotations") or {}
        where = f"Ingress {self._context.namespace}/{self._settings.ingress}"
        if notes.get(CANARY) == "true":
            yield f"{where} is a canary itself: name the Ingress that routes to the stable Service"
        if notes.get(AFFINITY):
            yield (
                f"{where} has {AFFINITY}: clients keep the version they met first, whatever the weight says: remove it, "
                "or use the nginx router"
            )
        ours = self._ours()
        if ours is not None and (ours["metadata"].get("labels") or {}).get(ROLLOUT_LABEL) != self._context.name:
            yield f"Ingress {self._context.namespace}/{self.name} exists and is not ours: rename or delete it"

    def _conflicts(self, rules: list[Object]) -> Iterator[str]:
        """What makes the controller drop a canary without a word (one canary per place; not a primary of the same host)."""
        places = {place for place, _ in _backends({"spec": {"rules": rules}})}
        hosts = {host for host, _, _ in places}
        canary = self._context.spec.workload.canary.service
        for other in self._context.reader.select(INGRESSES, self._context.namespace, {}):
            metadata = other["metadata"]
            if metadata["name"] == self.name:
                continue
            is_canary = (metadata.get("annotations") or {}).get(CANARY) == "true"
            for place, service in _backends(other):
                if is_canary and place in places:
                    yield (
                        f"Ingress {metadata['name']} is a canary for {place[0]}{place[1]} already, and the controller takes "
                        "one: delete it"
                    )
                elif not is_canary and place[0] in hosts and service == canary:
                    yield (
                        f"Ingress {metadata['name']} sends {place[0]}{place[1]} to the canary Service {canary} itself; the "
                        "controller ignores a canary then: remove that path or give it a Service of its own"
                    )

    def watched(self) -> tuple[Watched, ...]:
        """All Ingresses of the namespace (conflicts), and both Services."""
        namespace, services = self._context.namespace, self._context.spec.workload
        return (
            Watched(INGRESSES, namespace),
            Watched(SERVICES, namespace, services.stable.service),
            Watched(SERVICES, namespace, services.canary.service),
        )

    # Reading

    def _ours(self) -> Object | None:
        return self._context.reader.get(INGRESSES, self._context.namespace, self.name)

    def _primary(self) -> Object:
        name = self._settings.ingress
        primary = self._context.reader.get(INGRESSES, self._context.namespace, name)
        if primary is None:
            raise RouterError(f"Ingress {self._context.namespace}/{name} does not exist: create it or correct the name")
        return primary

    def observe(self) -> RouteView | None:
        """The canary Ingress as the cache has it; settled when long enough has passed since it was written."""
        ours = self._ours()
        if ours is None:
            return None
        notes = ours["metadata"].get("annotations") or {}
        foreign = other_writer(ours)
        outdated = self._outdated(ours)
        settled = written_at(notes) + self._settings.settle
        now = self._context.clock.now()
        if foreign:
            pending = f"the canary Ingress was changed by {foreign}"
        elif outdated:
            pending = "the user's Ingress has changed; the canary Ingress is to be written again"
        elif now < settled:
            pending = f"the controller reports nothing; taken to have it in {settled - now:.0f} s"
        else:
            pending = ""
        return RouteView(
            weight=weight_of(notes),
            revision=notes.get(REVISION, ""),
            cohort=cohort_of(notes),
            confirmed=not pending,
            confirmed_at=settled if not pending else None,
            pending=pending,
            latch=latch.from_object(ours),
            contested_by=foreign,
            resource_version=ours["metadata"].get("resourceVersion", ""),
            mode="canary Ingress",
            outdated=outdated,
            again_at=settled if now < settled else None,
        )

    def _outdated(self, ours: Object) -> bool:
        try:
            primary = self._primary()
            wanted = self._spec(primary, self._rules(primary))
        except RouterError:
            return False  # nothing better can be written; problems() says why
        spec = ours.get("spec") or {}
        return {key: spec.get(key) for key in wanted} != wanted

    def _rules(self, primary: Object) -> list[Object]:
        """The user's rules that lead to stable, leading to the canary instead; host, path and type unchanged."""
        services = self._context.spec.workload
        rules: list[Object] = []
        for rule in (primary.get("spec") or {}).get("rules") or []:
            paths = [
                {**path, "backend": {"service": {"name": services.canary.service, "port": self._port(path)}}}
                for path in (rule.get("http") or {}).get("paths") or []
                if _service(path) == services.stable.service
            ]
            if paths:
                rules.append({**({"host": rule["host"]} if rule.get("host") else {}), "http": {"paths": paths}})
        if not rules:
            raise RouterError(
                f"Ingress {self._context.namespace}/{self._settings.ingress} has no rule for the stable Service "
                f"{services.stable.service} (a default backend cannot have a canary): add one, or correct the name"
            )
        return rules

    def _port(self, path: Object) -> dict[str, Any]:
        """The canary Service's port that corresponds to stable's in this path."""
        name = self._context.spec.workload.canary.service
        canary = find_service(self._context.reader, self._context.namespace, name)
        port: dict[str, Any] = path["backend"]["service"].get("port") or {}
        offered = (canary.get("spec") or {}).get("ports") or []
        wanted = port.get("name") or port.get("number")
        if not any(wanted in {one.get("name"), one.get("port")} for one in offered):
            raise RouterError(
                f"Service {self._context.namespace}/{name} has no port {wanted}, which stable is called on: add it"
            )
        return dict(port)

    @staticmethod
    def _spec(primary: Object, rules: list[Object]) -> Object:
        name = (primary.get("spec") or {}).get("ingressClassName")
        return {**({"ingressClassName": name} if name else {}), "rules": rules}

    # Writing

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write the route; nothing when the cache already shows exactly this.

        A lowering goes through even where the user's Ingress or a Service is gone: with the rules that are there.
        """
        ours = self._ours()
        if ours is not None and (ours["metadata"].get("labels") or {}).get(ROLLOUT_LABEL) != self._context.name:
            return Rejected(
                f"Ingress {self._context.namespace}/{self.name} exists and is not ours: rename or delete it"
            )
        try:
            spec = self._spec_for(ours, lowering=fence is None)
            notes = self._annotations(route)
        except RouterError as error:
            return Rejected(f"{error}")
        if ours is not None and self._says(ours, notes, spec):
            return Written(ours["metadata"].get("resourceVersion", ""), changed=False)
        metadata: Object = {
            "name": self.name,
            "namespace": self._context.namespace,
            "labels": {MANAGED_BY: OPERATOR, ROLLOUT_LABEL: self._context.name},
            "annotations": {**notes, WRITTEN_AT: format_instant(self._context.clock.now())},
        }
        if fence is not None:
            metadata["resourceVersion"] = fence
        body = {"apiVersion": INGRESSES.api_version, "kind": INGRESSES.kind, "metadata": metadata, "spec": spec}
        answer = await self._context.api.apply(INGRESSES, self._context.namespace, self.name, body)
        if foreign := foreign_rules(answer, notes):
            # Somebody else's header or cookie rule sends people to the canary whatever the weight: an apply leaves it.
            patch = {"metadata": {"annotations": dict.fromkeys(foreign)}}
            answer = await self._context.api.merge_patch(INGRESSES, self._context.namespace, self.name, patch)
        return Written(answer["metadata"].get("resourceVersion", ""), changed=True)

    def _spec_for(self, ours: Object | None, *, lowering: bool) -> Object:
        try:
            primary = self._primary()
            return self._spec(primary, self._rules(primary))
        except RouterError:
            if ours is None or not lowering:
                raise
            kept = ours.get("spec") or {}
            return {key: kept[key] for key in ("ingressClassName", "rules") if key in kept}

    @staticmethod
    def _says(ours: Object, notes: dict[str, str], spec: Object) -> bool:
        there = {
            key: value
            for key, value in (ours["metadata"].get("annotations") or {}).items()
            if key.startswith((CANARY, AFFINITY, "canaryrollout.dev/", CLASS)) and key != WRITTEN_AT
        }
        return there == notes and {key: (ours.get("spec") or {}).get(key) for key in spec} == spec

    def _annotations(self, route: Route) -> dict[str, str]:
        weight = validate.whole_number("weight", route.weight, 0, FULL)
        if weight % self.capabilities().step:
            raise RouterError(
                f"weight {format_weight(weight)} is no whole per cent: name the controller's version (1.7.0 or later) in "
                "traffic.ingressNginx.controllerVersion"
            )
        notes = {
            CANARY: "true",
            # Never binds a client to the canary, so that weight 0 means nobody.
            AFFINITY_CANARY: "legacy",
            REVISION: validate.revision("revision", route.revision),
        }
        # Versions that ignore the total read whole per cent right when there is none.
        notes |= {WEIGHT: f"{weight}", TOTAL: f"{FULL}"} if self._fine() else {WEIGHT: f"{weight // 100}"}
        if weight > 0:
            notes |= cohort_annotations("cohort", route.cohort)
        if route.latch is not None:
            notes[latch.LATCH] = latch.to_annotation(route.latch)
        if (ingress_class := self._class_annotation()) is not None:
            notes[CLASS] = ingress_class
        return notes

    def _class_annotation(self) -> str | None:
        primary = self._context.reader.get(INGRESSES, self._context.namespace, self._settings.ingress) or {
            "metadata": {}
        }
        return (primary["metadata"].get("annotations") or {}).get(CLASS)

    async def release(self) -> None:
        """Delete the canary Ingress, which is ours alone, unless it serves: then it stays as it is.

        Raises:
            ApiError: the API server could not be reached.
        """
        ours = self._ours()
        if ours is None or (ours["metadata"].get("labels") or {}).get(ROLLOUT_LABEL) != self._context.name:
            return
        if weight_of(ours["metadata"].get("annotations") or {}) == 0:
            try:
                await self._context.api.delete(INGRESSES, self._context.namespace, self.name)
            except NotFoundError:
                return


def _service(path: Object) -> str:
    backend = path.get("backend") or {}
    return f"{(backend.get('service') or {}).get('name', '')}"


def _backends(ingress: Object) -> Iterator[tuple[Place, str]]:
    for rule in (ingress.get("spec") or {}).get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            yield (rule.get("host") or "", path.get("path") or "/", path.get("pathType") or ""), _service(path)
