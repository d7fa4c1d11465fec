"""A route as the engine wants it and as a router sees it: plain values both sides understand."""

from dataclasses import dataclass
from enum import StrEnum

from canary_rollout.model.spec import Cohort


class Proof(StrEnum):
    """What a router can prove about a write (design invariant 9)."""

    ACKED = "acked"
    """Every proxy confirmed by read-back."""
    ACCEPTED = "accepted"
    """The controller reported the generation."""
    SETTLE = "settle"
    """Nothing is reported; a fixed time is waited."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one router can express.

    Attributes:
        step: smallest difference between two weights, basis points (1 = 0.01 %).
        sticky: whether tenants can be kept on a version.
        cohorts: whether people can be routed by header or cookie.
        mirror: whether a share of the requests can be copied to the canary, whose answers nobody gets.
        proof: the strongest proof it gives.
        variants: whether several canaries of one stable can share its route (A/B/n).
        scales: whether the weight is the number of pods, so that the router makes and takes away the canary's itself.
    """

    step: int
    sticky: bool
    cohorts: bool
    proof: Proof
    mirror: bool = False
    variants: bool = False
    scales: bool = False


@dataclass(frozen=True, slots=True)
class Latch:
    """A verdict that keeps a revision at weight 0, as written on the route's own object.

    Attributes:
        revision: the condemned revision.
        rule: name of the rule (or cause) that failed.
        message: one sentence with the numbers.
        at: POSIX seconds.
    """

    revision: str
    rule: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Route:
    """What the data plane should do.

    Attributes:
        weight: the canary's share of everybody outside the cohort, basis points.
        revision: the canary revision this weight is meant for.
        stable_revision: revision named on stable's answers.
        cohort: people sent to the canary on top of the weight; ``None``: nobody.
        latch: a verdict to leave on the route's own object; ``None`` removes an older one.
        mirror: share of the requests that are copied to the canary, basis points; only at weight 0.
    """

    weight: int
    revision: str
    stable_revision: str
    cohort: Cohort | None = None
    latch: Latch | None = None
    mirror: int = 0


@dataclass(frozen=True, slots=True)
class RouteView:
    """What the route says and whether the data plane has it, read from the cache.

    Attributes:
        weight: basis points written now (the object's, whoever wrote it).
        revision: revision the weight was written for, ``""`` when it does not say.
        cohort: cohort written now.
        confirmed: whether the data plane is proved (see ``Proof``) to serve exactly this.
        confirmed_at: POSIX seconds of the last missing confirmation, ``None`` while pending or unknown.
        pending: what is still waited for, one sentence; empty when confirmed.
        latch: verdict found on the object.
        contested_by: field manager or name of somebody who overwrote the weight since our last write; ``""`` for nobody.
        resource_version: of the object that carries the weight; a raise is fenced with it.
        mode: how it is served, for people (``njs``, ``reload``, ``canary Ingress``).
        outdated: whether it must be written again although it says the right weight (the spec or an address changed).
        mirror: share of the requests copied to the canary now, basis points.
        carries_latch: whether the object can carry a verdict; somebody else's cannot.
        again_at: POSIX seconds at which this view changes although no object does (it has settled then); ``None``: never.
    """

    weight: int
    revision: str
    cohort: Cohort | None
    confirmed: bool
    confirmed_at: float | None
    pending: str
    latch: Latch | None
    contested_by: str
    resource_version: str
    mode: str
    outdated: bool = False
    mirror: int = 0
    carries_latch: bool = True
    again_at: float | None = None
