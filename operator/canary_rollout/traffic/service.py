"""One Service over the pods of both versions: the weight is the share of pods, dealt out by connection.

The operator scales both Deployments, N pods together, under a field manager of its own. Nothing smaller than one pod of N
can be had, so every weight that is no whole number of pods is refused with the nearest. What the weight means to clients
is weaker than anywhere else: a connection is given to some pod by chance and stays there, so clients that keep theirs
(HTTP/2, gRPC, pools) may send any share of the requests; the share really received is watched.

The order depends on the direction. A raise first makes the canary's pods, and takes stable's away only when those are
ready; until then the share is below the weight. A lowering after a verdict takes the canary's pods away at once while
stable's are made (unless not one pod of stable is ready, which would leave nobody to answer). Any other lowering takes
them away as stable's become ready. So this router has no use for ``workload.canary.scaling``.

What we have to remember is an annotation on the canary's Deployment, written together with its replicas. A weight counts
when the pods of both are ready, the Service's EndpointSlices list them all, and a settling time has passed.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.kube.port import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    FIELD_MANAGER,
    HORIZONTAL_POD_AUTOSCALERS,
    SERVICES,
    Object,
)
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.model.units import FULL, UnitError, format_weight, parse_instant
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import Rejected, RouterContext, RouterError, Watched, Written
from canary_rollout.traffic.services import find_service

MANAGER: Final = f"{FIELD_MANAGER}-route"
"""Field manager under which both Deployments are scaled."""
REVISION: Final = "canaryrollout.dev/revision"
"""Annotation on the canary's Deployment: the revision its pods are scaled for."""
_SERVICE_NAME: Final = "kubernetes.io/service-name"
_CHANGED_AT: Final = "endpoints.kubernetes.io/last-change-trigger-time"
"""Annotation of the EndpointSlice controller: when what it lists changed last."""
_SOMEBODY: Final = "somebody"


@dataclass(frozen=True, slots=True)
class _Pods:
    """One Deployment's pods.

    Attributes:
        asked: ``spec.replicas``.
        ready: available ones.
        observed: whether its controller has seen the present spec.
        there: all that exist, ready or not.
        ours: whether the number is ours.
    """

    asked: int
    ready: int
    observed: bool
    there: int
    ours: bool


class ServiceRouter:
    """Scales the two versions behind one Service (:class:`traffic.port.Router`)."""

    def __init__(self, context: RouterContext) -> None:
        settings = context.spec.traffic.service
        if settings is None:
            raise RouterError("spec.traffic.service is missing")
        self._context = context
        self._settings = settings

    @property
    def _names(self) -> tuple[str, str]:
        workload = self._context.spec.workload
        return workload.stable.deployment, workload.canary.deployment

    def capabilities(self) -> Capabilities:
        """One pod of all of them is the smallest weight; pods are made and taken away by the router itself."""
        pods = self._settings.replicas
        step = FULL // pods if FULL % pods == 0 else 1
        return Capabilities(step=step, sticky=False, cohorts=False, proof=Proof.SETTLE, scales=True)

    def watched(self) -> tuple[Watched, ...]:
        """Both Deployments, the Service and its EndpointSlices, and whoever else might scale."""
        namespace, name = self._context.namespace, self._settings.service
        return (
            *(Watched(DEPLOYMENTS, namespace, deployment) for deployment in self._names),
            Watched(SERVICES, namespace, name),
            Watched(ENDPOINT_SLICES, namespace, labels=((_SERVICE_NAME, name),)),
            Watched(HORIZONTAL_POD_AUTOSCALERS, namespace),
        )

    # What stands in the way

    def problems(self) -> list[str]:
        """Why this spec cannot be served by a ratio of pods."""
        return [*self._spec_problems(), *self._service_problems(), *self._scaler_problems()]

    def _spec_problems(self) -> Iterator[str]:
        spec = self._context.spec
        instead = "use a router that looks at requests (nginx, envoy, gatewayAPI)"
        for field, given in (("sticky", spec.traffic.sticky), ("pin", spec.traffic.pin)):
            if given is not None:
                yield f"a Service deals out connections and looks at no request: remove traffic.{field}, or {instead}"
        if spec.traffic.request_headers.baggage:
            yield f"a Service adds no headers: remove traffic.requestHeaders.baggage, or {instead}"
        if spec.workload.canary.scaling is not None:
            yield "the service router scales the canary by the weight: remove workload.canary.scaling"
        for stage in spec.stages:
            if stage.cohort is not None:
                yield f"stage {stage.name}: a Service cannot tell people apart: remove its cohort, or {instead}"
            if text := refusal(stage.weight, self._settings.replicas):
                yield f"stage {stage.name}: {text}"

    def _service_problems(self) -> Iterator[str]:
        try:
            service = find_service(self._context.reader, self._context.namespace, self._settings.service)
        except RouterError as error:
            yield f"traffic.service.service: {error}"
            return
        where = f"Service {self._context.namespace}/{self._settings.service}"
        spec: dict[str, Any] = service.get("spec") or {}
        for field, harmless, why in (
            ("sessionAffinity", "None", "clients stay with the pod they met first, whatever the weight"),
            ("trafficDistribution", None, "near pods are preferred, so each zone or node has a share of its own"),
            ("internalTrafficPolicy", "Cluster", "only pods of the client's own node are asked"),
            ("externalTrafficPolicy", "Cluster", "only pods of the node that was asked answer"),
        ):
            if spec.get(field, harmless) not in {harmless, None}:
                yield f"{where} has {field} {spec[field]}: {why}; remove it, or use another router"
        selector = spec.get("selector") or {}
        if not selector:
            yield f"{where} has no selector: name a Service that selects the pods of both Deployments"
        for name in self._names:
            deployment = self._deployment(name)
            labels = ((((deployment or {}).get("spec") or {}).get("template") or {}).get("metadata") or {}).get(
                "labels"
            )
            if deployment is not None and not selector.items() <= (labels or {}).items():
                yield f"{where} does not select the pods of Deployment {name}: give both versions the labels it selects by"

    def _scaler_problems(self) -> Iterator[str]:
        for scaler in self._context.reader.select(HORIZONTAL_POD_AUTOSCALERS, self._context.namespace, {}):
            target = (scaler.get("spec") or {}).get("scaleTargetRef") or {}
            if target.get("kind") == "Deployment" and target.get("name") in self._names:
                yield (
                    f"HorizontalPodAutoscaler {scaler['metadata']['name']} scales Deployment {target['name']}, and the service "
                    "router makes the weight of the number of pods: delete it, or use another router"
                )

    # Reading

    def _deployment(self, name: str) -> Object | None:
        return self._context.reader.get(DEPLOYMENTS, self._context.namespace, name)

    def observe(self) -> RouteView | None:
        """The share of pods that is asked for, and whether they are all ready and listed."""
        stable, canary = (self._deployment(name) for name in self._names)
        if stable is None or canary is None:
            return None
        before, now = _pods(stable), _pods(canary)
        notes = canary["metadata"].get("annotations") or {}
        weight = share(now.asked, before.asked)
        pending, settled = self._confirmation(before, now)
        waits = settled is not None and self._context.clock.now() < settled
        together = before.asked + now.asked
        return RouteView(
            weight=weight,
            revision=notes.get(REVISION, ""),
            cohort=None,
            confirmed=not pending,
            confirmed_at=None if pending else settled,
            pending=pending,
            latch=None,
            contested_by=_SOMEBODY if REVISION in notes and not (before.ours and now.ours) else "",
            resource_version=f"{canary['metadata'].get('resourceVersion', '')}",
            mode=f"{now.asked} of {together} pods",
            outdated=together != self._settings.replicas,
            carries_latch=False,
            again_at=settled if waits else None,
        )

    def _confirmation(self, stable: _Pods, canary: _Pods) -> tuple[str, float | None]:
        """What is still waited for, and when it has settled."""
        for name, pods in zip(self._names, (stable, canary), strict=True):
            if not pods.observed:
                return f"Deployment {name} is being updated", None
            if (pods.ready, pods.there) != (pods.asked, pods.asked):
                return f"{pods.ready} of {pods.asked} pods of Deployment {name} are ready, {pods.there} are there", None
        slices = self._context.reader.select(
            ENDPOINT_SLICES, self._context.namespace, {_SERVICE_NAME: self._settings.service}
        )
        listed, together = sum(_ready_endpoints(one) for one in slices), stable.asked + canary.asked
        if listed != together:
            return (
                f"Service {self._settings.service} lists {listed} ready pods, and both Deployments have {together}",
                None,
            )
        settled = max((_changed_at(one) for one in slices), default=0.0) + self._settings.settle
        left = settled - self._context.clock.now()
        return (f"all nodes are taken to have it in {left:.0f} s" if left > 0 else ""), settled

    # Writing

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Bring both Deployments one step nearer to the weight; called again until the view says it."""
        weight = validate.whole_number("weight", route.weight, 0, FULL)
        if text := refusal(weight, self._settings.replicas):
            return Rejected(text)
        if route.cohort is not None or route.mirror:
            return Rejected("a Service looks at no request: no cohort and no mirror")
        stable, canary = (self._deployment(name) for name in self._names)
        if stable is None or canary is None:
            if weight == 0 and canary is None:
                return Written("", changed=False)  # no pod of a Deployment that does not exist answers anybody
            return Rejected(
                f"Deployment {self._names[0] if stable is None else self._names[1]} does not exist: create it"
            )
        before, now = _pods(stable), _pods(canary)
        wanted = pods_for(weight, self._settings.replicas)
        asked = self._next(before, now, wanted, at_once=route.latch is not None)
        revision = validate.revision("revision", route.revision)
        said = (canary["metadata"].get("annotations") or {}).get(REVISION) == revision
        bodies: list[Object] = []
        if now.asked != asked[1] or not now.ours or not said or fence is not None:
            bodies.append(self._scaled(self._names[1], asked[1], {"annotations": {REVISION: revision}}, fence))
        if before.asked != asked[0] or not before.ours:
            bodies.append(self._scaled(self._names[0], asked[0], {}, None))
        if fence is None:
            answers = await asyncio.gather(*(self._apply(body) for body in bodies))
        else:  # what the fence refuses must not be half done
            answers = [await self._apply(body) for body in bodies]
        changed = [answer for answer in answers if answer["metadata"]["name"] == self._names[1]]
        latest = (changed or [canary])[0]["metadata"]
        return Written(f"{latest.get('resourceVersion', '')}", changed=bool(answers))

    def _next(self, stable: _Pods, canary: _Pods, wanted: int, *, at_once: bool) -> tuple[int, int]:
        """Pods of stable and canary to ask for now, on the way to ``wanted`` pods of the canary."""
        rest = self._settings.replicas - wanted
        if canary.asked <= wanted:  # a raise: stable gives way when the canary's are ready
            return (rest if canary.ready >= wanted else max(stable.asked, rest)), wanted
        if at_once:  # somebody must answer, were it the condemned version
            return rest, wanted if stable.ready > 0 or wanted > 0 else canary.asked
        missing = max(0, self._settings.replicas - stable.ready)
        return rest, max(wanted, min(canary.asked, missing))

    @staticmethod
    def _scaled(name: str, replicas: int, metadata: Object, fence: str | None) -> Object:
        return {
            "apiVersion": DEPLOYMENTS.api_version,
            "kind": DEPLOYMENTS.kind,
            "metadata": {"name": name, **metadata, **({"resourceVersion": fence} if fence is not None else {})},
            "spec": {"replicas": replicas},
        }

    async def _apply(self, body: Object) -> Object:
        name = body["metadata"]["name"]
        return await self._context.api.apply(DEPLOYMENTS, self._context.namespace, name, body, manager=MANAGER)

    async def release(self) -> None:
        """The pods stay as many as they are; the annotation goes.

        Raises:
            ApiError: the API server could not be reached.
        """
        name = self._names[1]
        canary = self._deployment(name)
        if canary is not None and REVISION in (canary["metadata"].get("annotations") or {}):
            patch = {"metadata": {"annotations": {REVISION: None}}}
            await self._context.api.merge_patch(DEPLOYMENTS, self._context.namespace, name, patch, manager=MANAGER)


def pods_for(weight: int, replicas: int) -> int:
    """The whole number of pods nearest to a weight."""
    return round(weight * replicas / FULL)


def share(canary: int, stable: int) -> int:
    """The canary's share of pods, basis points; never 0 while it has one, never all while stable has one."""
    if canary == 0 or stable == 0:
        return FULL if canary > 0 else 0
    return min(FULL - 1, max(1, round(canary * FULL / (canary + stable))))


def refusal(weight: int, replicas: int) -> str:
    """Why a weight cannot be had with so many pods, and the nearest; empty when it can (to less than 0.01 %)."""
    if share(pods := pods_for(weight, replicas), replicas - pods) == weight:
        return ""
    below = weight * replicas // FULL
    nearest = [f"{format_weight(share(n, replicas - n))} ({n} of {replicas} pods)" for n in (below, below + 1) if n > 0]
    enough = next((n for n in range(replicas + 1, FULL + 1) if weight * n % FULL == 0), FULL)
    return (
        f"{format_weight(weight)} of {replicas} pods is no whole number of pods: choose {' or '.join(nearest)}, or set "
        f"traffic.service.replicas to {enough}"
    )


def _pods(deployment: Object) -> _Pods:
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    observed = int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0))
    return _Pods(
        asked=int(spec.get("replicas", 1)),
        ready=int(status.get("availableReplicas") or 0),
        observed=observed,
        there=int(status.get("replicas") or 0),
        ours=any(
            entry.get("manager") == MANAGER and "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
            for entry in deployment["metadata"].get("managedFields") or ()
        ),
    )


def _ready_endpoints(endpoint_slice: Object) -> int:
    """Endpoints that get new connections (``ready`` absent means true, discovery.k8s.io/v1)."""
    return sum(bool((one.get("conditions") or {}).get("ready", True)) for one in endpoint_slice.get("endpoints") or ())


def _changed_at(endpoint_slice: Object) -> float:
    try:
        return parse_instant((endpoint_slice["metadata"].get("annotations") or {}).get(_CHANGED_AT))
    except UnitError:
        return 0.0
