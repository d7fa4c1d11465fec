"""A spec that names another place than the one acted on last: nothing of us stays at the old one."""

from typing import Final, Protocol

from canary_rollout.controller.execute import Executor, RouteRejectedError
from canary_rollout.controller.farewell import stable_only
from canary_rollout.controller.memory import Memory
from canary_rollout.controller.persist import key_of
from canary_rollout.controller.place import has_moved, place_of, spec_of_place
from canary_rollout.controller.shell import Shell
from canary_rollout.engine.decision import Lower
from canary_rollout.kube.cache import SERVICE_NAME_LABEL
from canary_rollout.kube.port import DEPLOYMENTS, ENDPOINT_SLICES, Object
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus
from canary_rollout.traffic.port import Router, RouterError, Watched
from canary_rollout.workloads.deployments import Workloads
from canary_rollout.workloads.view import holds_pause

UNPRIMED: Final = 0.2
"""Seconds until a rollout whose objects are not listed yet is looked at again."""
_CANNOT_LIST: Final = ("(404", "(403")
"""How an answer reads that no waiting changes: the kind's CRD is not installed, or the operator may not list it."""


class StatusWriter(Protocol):
    """Writes a status."""

    async def __call__(self, rollout: Object, status: CanaryRolloutStatus, *, fenced: bool) -> None:
        """``fenced``: not when the object moved since it was read."""
        ...


def read_by(router: Router, namespace: str, spec: CanaryRolloutSpec) -> tuple[Watched, ...]:
    """Everything that a look at a rollout reads: what its router does, its Deployments, the canary's endpoints."""
    names = (spec.workload.stable.deployment, spec.workload.canary.deployment)
    endpoints = Watched(ENDPOINT_SLICES, namespace, labels=((SERVICE_NAME_LABEL, spec.workload.canary.service),))
    return (*router.watched(), *(Watched(DEPLOYMENTS, namespace, name) for name in names), endpoints)


def cannot_list(missing: list[str]) -> bool:
    """Whether something that is not listed yet never will be: its kind is not there, or not ours to read."""
    return any(code in words for words in missing for code in _CANNOT_LIST)


async def leave_old_place(
    shell: Shell, rollout: Object, memory: Memory, spec: CanaryRolloutSpec, *, write: StatusWriter
) -> float | None:
    """Leave the place acted on last, by this process or one before it, if ``spec`` names another.

    Waits for nothing of the new place, which may not even exist. Returns seconds until the next look, ``None`` to go on.

    Raises:
        RouterError, RouteRejectedError: the old place cannot be read or lowered.
        ApiError: the API server refused or did not answer.
    """
    old = memory.acted_on or spec_of_place(memory.status.place)
    if old is None or old is spec:
        return None
    key, namespace = key_of(rollout), rollout["metadata"]["namespace"]
    before = shell.router(rollout, memory, old)
    watched = read_by(before, namespace, old)
    known = not shell.needs.absent(watched)  # nobody gets the canary by a kind that does not exist
    if known:
        shell.needs.need(key, watched)
        if missing := shell.needs.missing(watched):
            if cannot_list(missing):
                raise RouterError("; ".join(missing))
            return UNPRIMED
    if known and has_moved(before, old, _built(shell, rollout, memory, spec), spec):
        await _lower(shell, memory, before, Workloads(shell.api, namespace, old))
    canary = old.workload.canary.deployment
    if canary != spec.workload.canary.deployment:
        deployment = shell.cache.get(DEPLOYMENTS, namespace, canary)
        if deployment is not None and holds_pause(deployment):
            await Workloads(shell.api, namespace, old).release_pause()
    place, known_place = place_of(spec), memory.status.place
    if known_place and known_place != place:  # before anything is done there: the next process has to know
        await write(rollout, memory.status.model_copy(update={"place": place}), fenced=True)
    memory.acted_on = spec
    return 0.0 if known_place and known_place != place else None


async def _lower(shell: Shell, memory: Memory, before: Router, workloads: Workloads) -> None:
    view = before.observe()
    if view is not None and view.weight >= memory.state.confirmed:
        memory.term = shell.term()  # found as it was left: what the new place says is no verdict that was lost
    try:
        await Executor(before, workloads).carry_out(Lower(stable_only(memory.state, "")))
    except RouteRejectedError:
        if view is not None:
            raise
        # What was ours there is gone, or another rollout's by now: nothing of us is left that could be lowered.
    await before.release()


def _built(shell: Shell, rollout: Object, memory: Memory, spec: CanaryRolloutSpec) -> Router | None:
    """The router of a spec, ``None`` when there is no such thing."""
    try:
        return shell.router(rollout, memory, spec)
    except RouterError:
        return None
