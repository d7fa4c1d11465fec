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
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.model.routers import IngressNginxTraffic
from canary_rollout.model.units import FULL, format_instant, format_weight
from canary_rollout.traffic import latch
from canary_rollout.traffic.ingress_annotations import (
    AFFINITY,
    AFFINITY_CANARY,
    BY_KEYS,
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
from canary_rollout.traffic.ingress_review import (
    Version,
    backends,
    conflicts,
    parse_version,
    primary_problems,
    running_versions,
    service_of,
)
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import Rejected, RouterContext, RouterError, Watched, Written
from canary_rollout.traffic.services import find_service

_TOTAL_SINCE: Final = (1, 7, 0)
"""The controller's first version that honours canary-weight-total for rules (its #9729, #9745)."""


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
        """Whether every controller there is honours the total: by their images where those can be read, else as told."""
        given = self._settings.controller_version
        versions = self._running() or ([parse_version(given)] if given is not None else [])
        return bool(versions) and versions[0] >= _TOTAL_SINCE

    def _running(self) -> list[Version]:
        return running_versions(self._context.reader, self._settings.controller_namespace)

    # What stands in the way

    def problems(self) -> list[str]:
        """Why the controller would refuse or ignore what we write, which it says to nobody."""
        found = [*self._spec_problems(), *self._version_problems()]
        try:
            primary = self._primary()
            rules = self._rules(primary)
        except RouterError as error:
            return [*found, f"{error}"]
        return [*found, *self._primary_problems(primary), *self._conflicts(primary, rules)]

    def _spec_problems(self) -> Iterator[str]:
        spec = self._context.spec
        if spec.traffic.sticky is not None:
            yield (
                "ingressNginx decides each request by itself and cannot keep tenants on a version: remove traffic.sticky, "
                "or use the nginx router"
            )
        if spec.traffic.pin is not None:
            yield (
                "ingressNginx has one header rule, which the cohorts use: remove traffic.pin and name a cohort by that header "
                f"({spec.traffic.pin.header}: {spec.traffic.pin.canary}), or use the nginx router"
            )
        if spec.traffic.request_headers.baggage:
            yield "ingressNginx tells the app nothing: remove traffic.requestHeaders.baggage, or use the nginx router"
        for stage in spec.stages:
            if stage.weight % self.capabilities().step:
                yield (
                    f"stage {stage.name}: {format_weight(stage.weight)} is no whole per cent, and controllers before 1.7.0 "
                    f"would serve {format_weight(min(FULL, stage.weight * 100))} instead: {self._advice()}, or choose "
                    f"{format_weight(max(100, stage.weight // 100 * 100))}"
                )
            try:
                cohort_annotations(f"stage {stage.name}: cohort", stage.cohort)
            except RouterError as error:
                yield f"{error}"

    def _advice(self) -> str:
        if running := self._running():
            return f"update the controller, which is {'.'.join(str(part) for part in running[0])}"
        return "name the controller's version in traffic.ingressNginx.controllerVersion"

    def _version_problems(self) -> Iterator[str]:
        given, running = self._settings.controller_version, self._running()
        if given is not None and running and parse_version(given) not in running:
            yield (
                f"traffic.ingressNginx.controllerVersion is {given}, and the image of the controller in namespace "
                f"{self._settings.controller_namespace} says {'.'.join(str(part) for part in running[0])}: remove the field"
            )

    def _primary_problems(self, primary: Object) -> Iterator[str]:
        yield from primary_problems(primary, f"Ingress {self._context.namespace}/{self._settings.ingress}")
        ours = self._ours()
        if ours is not None and (ours["metadata"].get("labels") or {}).get(ROLLOUT_LABEL) != self._context.name:
            yield f"Ingress {self._context.namespace}/{self.name} exists and is not ours: rename or delete it"

    def _conflicts(self, primary: Object, rules: list[Object]) -> Iterator[str]:
        places = {place for place, _ in backends({"spec": {"rules": rules}})}
        others = self._context.reader.select(INGRESSES, self._context.namespace, {})
        return conflicts(others, primary, self.name, places, self._context.spec.workload.canary.service)

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
            cohort=self._cohort(notes),
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

    def _cohort(self, notes: dict[str, str]) -> Cohort | None:
        """The cohort that the annotations say: one of the stages', else as well as it can be read."""
        there = {key: notes[key] for key in BY_KEYS if key in notes}
        for stage in self._context.spec.stages:
            try:
                if stage.cohort is not None and cohort_annotations("cohort", stage.cohort) == there:
                    return stage.cohort
            except RouterError:
                continue  # cannot be expressed, so it is not what is there
        return cohort_of(notes)

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
                if service_of(path) == services.stable.service
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
