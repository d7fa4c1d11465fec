"""Where the canary has its traffic: remembered in status, so that a spec that names another place leaves nothing at the old one.

A person may move a rollout to another route, other Services or another canary while a revision serves; also while no
operator runs. What still gave the canary traffic there would be watched by nobody, and its pods be taken away under it.
"""

from typing import Any, Final

from pydantic import ValidationError

from canary_rollout.analysis.fitting import encoded
from canary_rollout.kube.port import SERVICES, Object
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.stored import STORED
from canary_rollout.traffic.port import Router, Watched

LARGEST: Final = 1024
"""Bytes of a place as JSON; one that takes more is remembered by the process alone."""
NOBODY_ASKS: Final = {"prometheus": "http://localhost"}
"""Where numbers come from in a spec that nothing but a lowering is done by: nobody looks at any."""
_WHO: Final[dict[str, Any]] = {"stable": {"service", "deployment"}, "canary": {"service", "deployment"}}


def place_of(spec: CanaryRolloutSpec) -> Object:
    """What a lowering needs of a spec: its Deployments and Services, and its router; empty where that is too long."""
    traffic = spec.traffic.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    router = spec.traffic.router
    workload = spec.workload.model_dump(mode="json", by_alias=True, include=_WHO)
    place = {"workload": workload, "traffic": {router: traffic.get(router, {})}}
    return place if encoded(place) <= LARGEST else {}


def spec_of_place(place: Object) -> CanaryRolloutSpec | None:
    """A spec to lower by at a place that was remembered; ``None`` when there is none, or somebody has mangled it."""
    if not place:
        return None
    try:
        return CanaryRolloutSpec.model_validate({**place, "metrics": NOBODY_ASKS}, context=STORED)
    except (ValidationError, TypeError):
        return None


def written_by(router: Router) -> frozenset[Watched]:
    """The objects that a router may write."""
    return frozenset(item for item in router.watched() if item.name is not None and item.resource != SERVICES)


def has_moved(before: Router, old: CanaryRolloutSpec, after: Router | None, new: CanaryRolloutSpec) -> bool:
    """Whether what ``before`` has written is no longer what ``after`` writes (``None``: it cannot be built).

    In somebody's own object the canary's share stands beside the names of Services, in rules that the spec chooses: under
    other names the very same object says nothing about the canary any more, and goes on sending people to the old one.
    """
    if after is None or written_by(before) != written_by(after):
        return True
    view = before.observe()
    by_name = view is not None and not view.carries_latch and not before.capabilities().scales
    return by_name and place_of(old) != place_of(new)
