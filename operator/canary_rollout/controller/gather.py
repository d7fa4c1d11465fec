"""Builds the engine's Observation from the cache. Reads the API only when something moved, or to confirm an absence."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from canary_rollout.controller.memory import Contest, Memory, Pods
from canary_rollout.controller.queue import Key
from canary_rollout.engine.observation import Observation, VersionView
from canary_rollout.kube.cache import SERVICE_NAME_LABEL, Cache
from canary_rollout.kube.compact import compact
from canary_rollout.kube.port import (
    CANARY_ROLLOUTS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    PODS,
    REPLICA_SETS,
    Clock,
    KubeApi,
    NotFoundError,
    Object,
)
from canary_rollout.model.commands import Command, read_commands
from canary_rollout.model.revision import revision_of
from canary_rollout.model.route import RouteView
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import Router
from canary_rollout.workloads.deployments import TEMPLATE_HASH
from canary_rollout.workloads.view import (
    app_version,
    deployment_revision,
    own_pods,
    pod_selector,
    selector_labels,
    version_view,
)

FIRST_ENDPOINTS: Final = 15.0
"""Seconds that a Service's first ready endpoint may come after the first ready pod: another controller writes it."""
Places = AbstractAsyncContextManager[None]
"""Bounds how many list at the same time."""

_REASSERT_FIRST = 1.0
_REASSERT_LONGEST = 60.0


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Gathers for any rollout.

    Attributes:
        api: for confirming absences and listing pods.
        cache: everything else.
        clock: wall time.
        no_raise: why no raise may be sent now, empty if it may.
        term: number of the present Lease term.
        owner: the CanaryRollout that a Deployment belongs to (the oldest that names it).
    """

    api: KubeApi
    cache: Cache
    clock: Clock
    no_raise: Callable[[], str]
    term: Callable[[], int]
    owner: Callable[[str, str], Key | None]

    async def observe(self, key: Key, memory: Memory, spec: CanaryRolloutSpec, router: Router) -> Observation:
        """The world as far as this rollout goes. Raises ApiError when the API is needed and does not answer."""
        namespace = key[0]
        stable_name, canary_name = spec.workload.stable.deployment, spec.workload.canary.deployment
        stable = await self._deployment(namespace, stable_name)
        canary = await self._deployment(namespace, canary_name)
        labels = selector_labels(stable, canary)
        serving_since = memory.state.serving_since
        route = router.observe()
        _note_contest(memory.contest, route, memory, self.clock.now())
        canary_pods = await self._pods(namespace, canary, memory)
        can, revision = router.capabilities(), _revision(memory, spec, canary, labels)
        paths, but_for = spec.workload.identity_paths, labels | {TEMPLATE_HASH}
        made = can.scales and await self._made(
            namespace, memory, canary, lambda template: revision_of(template, but_for, paths) == revision
        )
        seen = version_view(canary, revision, canary_pods, serving_since, may_be_empty=made)
        return Observation(
            stable=version_view(stable, _revision(memory, spec, stable, labels), (), None, may_be_empty=can.scales),
            canary=replace(
                seen, crash=seen.crash or self._unreachable(namespace, spec, seen, memory, scales=can.scales)
            ),
            route=route,
            problems=(*_spec_problems(memory), *self._problems(key, spec, stable, canary, router)),
            assessment=memory.assessment,
            commands=self._commands(key, memory),
            at_start=memory.term != self.term(),
            watched_from=self.clock.now() if memory.term != self.term() else memory.watched_from,
            no_raise=self.no_raise(),
            reassert_at=memory.contest.reassert_at,
            failing_before=frozenset(verdict.rule for verdict in memory.status.verdicts if verdict.verdict == "fail"),
            step=can.step,
            scales=can.scales,
        )

    async def _made(
        self, namespace: str, memory: Memory, canary: Object | None, is_it: Callable[[Object], bool]
    ) -> bool:
        """Whether pods of the canary's present template (``is_it``) would be made if it were given some now.

        While a Deployment is paused, pods are made of the last template that it was not paused for.
        """
        if canary is None or int(canary.get("spec", {}).get("replicas", 1)) > 0:
            return False
        name, version = canary["metadata"]["name"], canary["metadata"].get("resourceVersion", "")
        known = memory.pods.get(place := f"replicasets/{name}")
        if known is None or known.version != version:
            found, _ = await self.api.list_all(REPLICA_SETS, namespace, labels=pod_selector(canary))
            own = (
                one for one in found if any(by["name"] == name for by in one["metadata"].get("ownerReferences") or ())
            )
            known = memory.pods[place] = Pods(version, tuple(one["spec"]["template"] for one in own))
        return any(is_it(template) for template in known.items)

    def _unreachable(
        self, namespace: str, spec: CanaryRolloutSpec, canary: VersionView, memory: Memory, *, scales: bool
    ) -> str:
        """Why nobody reaches pods that are ready: the Service's own EndpointSlices list none of them.

        Where the router makes the canary's first pods itself (``scales``), their endpoints come a moment after they are ready
        (another controller writes them) and are waited for: who is not listed gets no request meanwhile. Everywhere else a
        raise would send requests to nobody, so it counts at once, and so do endpoints that were there and are gone.
        """
        service = spec.workload.canary.service
        slices = self.cache.select(ENDPOINT_SLICES, namespace, {SERVICE_NAME_LABEL: service})
        if not slices or canary.available == 0:
            memory.reached, memory.unreached_since = False, None
            return ""
        if any(_has_ready(endpoint_slice) for endpoint_slice in slices):
            memory.reached, memory.unreached_since = True, None
            return ""
        now = self.clock.now()
        if memory.unreached_since is None:
            memory.unreached_since = now
        if scales and not memory.reached and now - memory.unreached_since < FIRST_ENDPOINTS:
            return ""
        return f"Service {service} has no ready endpoint although {canary.available} pods are ready; mend its selector"

    async def _deployment(self, namespace: str, name: str) -> Object | None:
        found = self.cache.get(DEPLOYMENTS, namespace, name)
        if found is not None:
            return found
        try:  # nothing is concluded from an absence that only the cache claims
            return await self.api.get(DEPLOYMENTS, namespace, name)
        except NotFoundError:
            return None

    async def _pods(
        self, namespace: str, deployment: Object | None, memory: Memory, places: Places | None = None
    ) -> tuple[Object, ...]:
        """Pods of a Deployment, listed again whenever it moved; a list waits for one of ``places``."""
        if deployment is None:
            return ()
        name, version = deployment["metadata"]["name"], deployment["metadata"].get("resourceVersion", "")
        known = memory.pods.get(name)
        if known is None or known.version != version:
            async with places or nullcontext():
                items, _ = await self.api.list_all(PODS, namespace, labels=pod_selector(deployment))
            own = own_pods(deployment, items)
            known = memory.pods[name] = Pods(version, tuple(compact(PODS, pod) for pod in own))
        return known.items

    async def pods_of_both(
        self, namespace: str, spec: CanaryRolloutSpec, memory: Memory, places: Places | None = None
    ) -> tuple[tuple[Object, ...], ...]:
        """Pods of stable and canary, for asking Prometheus; ``places`` for those that must be listed."""
        names = (spec.workload.stable.deployment, spec.workload.canary.deployment)
        found = [await self._deployment(namespace, name) for name in names]
        return tuple([await self._pods(namespace, deployment, memory, places) for deployment in found])

    async def versions_of_both(self, namespace: str, spec: CanaryRolloutSpec) -> tuple[str, str]:
        """What stable's and the canary's pod templates say which version they are; empty where they do not."""
        workload = spec.workload
        stable = await self._deployment(namespace, workload.stable.deployment)
        canary = await self._deployment(namespace, workload.canary.deployment)
        return app_version(stable), app_version(canary)

    def _problems(
        self, key: Key, spec: CanaryRolloutSpec, stable: Object | None, canary: Object | None, router: Router
    ) -> list[str]:
        found = [
            f"Deployment {name} does not exist in namespace {key[0]}; create it, or mend spec.workload.{role}.deployment"
            for role, name, deployment in (
                ("stable", spec.workload.stable.deployment, stable),
                ("canary", spec.workload.canary.deployment, canary),
            )
            if deployment is None
        ]
        return found + self._taken(key, spec, router) + _cannot_mirror(spec, router) + router.problems()

    def _taken(self, key: Key, spec: CanaryRolloutSpec, router: Router) -> list[str]:
        """Deployments that are another CanaryRollout's. One stable for several canaries is fine where the route can do it."""
        found: list[str] = []
        for name in (spec.workload.stable.deployment, spec.workload.canary.deployment):
            owner = self.owner(key[0], name)
            if owner is None or owner == key:
                continue
            why = "two cannot move the same one: delete one of them"
            if name == spec.workload.stable.deployment:
                if self._same_route(key, owner, spec.traffic.router, name) and router.capabilities().variants:
                    continue
                why += ", or have both name the very same route of yours, where the router can split it among several canaries"
            found.append(f"Deployment {name} already belongs to CanaryRollout {owner[1]}, which is older; {why}")
        return found

    def _same_route(self, key: Key, other: Key, router: str, stable: str) -> bool:
        """Whether both have this stable and name the same place, as written."""
        specs = [(self.cache.get(CANARY_ROLLOUTS, *one) or {}).get("spec") or {} for one in (key, other)]
        places = [(one.get("traffic") or {}).get(router) for one in specs]
        stables = [((one.get("workload") or {}).get("stable") or {}).get("deployment") for one in specs]
        return places[0] is not None and places[0] == places[1] and stables == [stable, stable]

    def _commands(self, key: Key, memory: Memory) -> tuple[Command, ...]:
        rollout = self.cache.get(CANARY_ROLLOUTS, *key)
        annotations = (rollout or {}).get("metadata", {}).get("annotations") or {}
        commands, errors = read_commands(annotations)
        memory.unreadable = frozenset(str(error) for error in errors)
        consumed = memory.status.consumed
        return tuple(command for command in commands if consumed.get(command.verb) != command.id)


def _cannot_mirror(spec: CanaryRolloutSpec, router: Router) -> list[str]:
    """Stages that copy requests, on a data plane that cannot."""
    if router.capabilities().mirror:
        return []
    return [
        f"stage {stage.name}: router {spec.traffic.router} cannot copy requests to the canary; remove the stage, or its "
        "mirror and give it a weight"
        for stage in spec.active_stages
        if stage.mirrors
    ]


def _spec_problems(memory: Memory) -> list[str]:
    """What is wrong with what the user wrote, although there is an older spec to go on with."""
    if memory.spec_error:
        return [f"spec is not valid, nothing is raised and the last valid one counts: {memory.spec_error}"]
    return [*memory.set_problems, *([memory.check_error] if memory.check_error else [])]


def _revision(memory: Memory, spec: CanaryRolloutSpec, deployment: Object | None, labels: frozenset[str]) -> str:
    """The Deployment's revision; hashing is remembered, since status changes do not change it."""
    if deployment is None:
        return ""
    metadata, paths = deployment["metadata"], spec.workload.identity_paths
    of = (metadata.get("uid"), metadata.get("generation"), labels, paths)
    known = memory.revisions.get(metadata["name"])
    if known is None or known[0] != of:
        known = memory.revisions[metadata["name"]] = (of, deployment_revision(deployment, labels, paths))
    return known[1]


def _has_ready(endpoint_slice: Object) -> bool:
    """Whether a slice has an endpoint that gets new connections (``ready`` absent means true, discovery.k8s.io/v1)."""
    found = endpoint_slice.get("endpoints") or ()
    return any((endpoint.get("conditions") or {}).get("ready", True) for endpoint in found)


def _note_contest(contest: Contest, route: RouteView | None, memory: Memory, now: float) -> None:
    """Count foreign writes that lowered the weight; each is answered later than the one before."""
    lowered = route is not None and bool(route.contested_by) and route.weight < memory.state.wanted
    if route is None or not lowered:
        if contest.times and now > contest.reassert_at + _REASSERT_LONGEST:
            contest.times = 0
        return
    if route.resource_version != contest.seen_version:
        contest.seen_version = route.resource_version
        contest.times += 1
        contest.reassert_at = now + min(_REASSERT_LONGEST, _REASSERT_FIRST * 2.0 ** min(contest.times - 1, 10))
