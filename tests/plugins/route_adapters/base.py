"""What an adapter says."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from canary_rollout.kube.port import Resource

Manifest = dict[str, Any]
Lists = Callable[[Manifest], list[list[Manifest]]]
"""The lists with weights in an object, or in ``{"spec": …}``."""
FULL = 10_000
STICKY: Manifest = {"header": "X-Tenant-ID"}
STABLE, CANARY, ROLLOUT = "checkout", "checkout-canary", "checkout"


@dataclass(frozen=True)
class Refused:
    """A spec that the router must refuse.

    Attributes:
        why: for the test's name.
        spec: laid over the spec of the suite (top-level fields).
        words: part of the sentence it must say.
        manifest: laid over the user's object instead of the good one.
    """

    why: str
    spec: Manifest
    words: str
    manifest: Manifest | None = None


@dataclass(frozen=True)
class Adapter:
    """One way of using one data plane.

    Attributes:
        name: for the tests' names.
        crds: whose CRDs it needs (:mod:`foreign_crds`).
        resource: kind of the object with the weights.
        traffic: ``spec.traffic``.
        git: the user's manifest as it is in Git, for a share of the canary in basis points (0, or what ``overwrite``
            says); for an ``owned`` object: what somebody who meddles would apply.
        share: the canary's share that an object gives, exactly, in basis points; nothing of the router's own code.
        blank: the object without its weights, for comparison.
        keep: what a GitOps tool with the documented ignore rules applies: the manifest with the live object's weights.
        status: status that the data plane's controller would write for an object now; ``None``: it writes none.
        confirms: Lease by which a proxy's agent would confirm an object in a namespace; ``None``: there are no agents.
        refused: what it must refuse.
        owned: whether the operator creates the object.
        weights: shares that it must give exactly.
        overwrite: share that a manifest in Git without weights means, which a sync puts back; above 500.
        name_of: name of the object.
        contested: whether it is played against somebody who re-applies (those that share all code for it need it once).
        settles: seconds after which a write has settled, beside what is reported: times of writes come in whole seconds.
    """

    name: str
    crds: tuple[str, ...]
    resource: Resource
    traffic: Manifest
    git: Callable[[int], Manifest]
    share: Callable[[Manifest], float]
    blank: Callable[[Manifest], Manifest]
    keep: Callable[[Manifest, Manifest], Manifest]
    status: Callable[[Manifest], Manifest | None] = lambda _: None
    confirms: Callable[[Manifest], Manifest | None] = lambda _: None
    refused: tuple[Refused, ...] = ()
    owned: bool = False
    weights: tuple[int, ...] = (50, 500, 2500, 10_000, 0)
    overwrite: int = 5000
    name_of: str = ROLLOUT
    contested: bool = True
    settles: float = 0.0
    needs: tuple[Manifest, ...] = field(default=())
    """Further objects that must be there first."""


def without_weights(lists: Lists) -> Callable[[Manifest], Manifest]:
    """For :attr:`Adapter.blank`."""

    def blank(obj: Manifest) -> Manifest:
        kept: Manifest = deepcopy({"spec": obj["spec"]})
        for backends in lists(kept):
            for one in backends:
                one.pop("weight", None)
        return kept["spec"]

    return blank


def with_live_weights(lists: Lists) -> Callable[[Manifest, Manifest], Manifest]:
    """For :attr:`Adapter.keep`."""

    def keep(wanted: Manifest, live: Manifest) -> Manifest:
        kept = deepcopy(wanted)
        for backends, there in zip(lists(kept), lists(live), strict=True):
            for one, other in zip(backends, there, strict=True):
                one.pop("weight", None)
                one.update({"weight": other["weight"]} if "weight" in other else {})
        return kept

    return keep


def condition(kind: str, obj: Manifest, message: str = "") -> Manifest:
    """A condition that holds of this very generation."""
    return {
        "type": kind,
        "status": "True",
        "reason": kind,
        "message": message,
        "observedGeneration": obj["metadata"]["generation"],
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def two_stages(weight: str = "5%", **cohort: Any) -> list[Manifest]:
    """A first stage with this weight and cohort, and the last one."""
    people = {"cohort": cohort} if cohort else {}
    return [{"name": "some", "weight": weight, "hold": "1h", **people}, {"name": "all", "weight": "100%", "hold": "1h"}]


def http_service(name: str, app: str, *, port: int = 80) -> Manifest:
    """A Service over the pods of one version."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": port, "targetPort": 8080}]},
    }
