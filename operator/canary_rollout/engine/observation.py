"""What the engine is told: everything it may use to decide, gathered by the shell at one moment."""

from dataclasses import dataclass

from canary_rollout.analysis.verdict import Assessment
from canary_rollout.model.commands import Command
from canary_rollout.model.route import RouteView


@dataclass(frozen=True, slots=True)
class VersionView:
    """One Deployment as the cluster reports it.

    Attributes:
        exists: whether the Deployment is there (an absence is confirmed by a live GET before it gets here).
        revision: hash of its pod template (see ``model.revision``); empty when it does not exist.
        replicas: pods it is asked to have.
        available: pods that are ready for long enough.
        observed: whether its controller has seen the present spec.
        settled: whether exactly the asked number of pods, all of the present template, are available; of no pods at all
            only where the route's weight is their number (``Observation.scales``) and the template's are ready to be made.
        leaving: pods that are being deleted and still there; 0 where the cluster does not count them (before 1.35).
        paused: ``spec.paused``.
        paused_by_us: whether our field manager owns ``spec.paused``.
        crash: what is wrong with its pods (crash loop, out of memory, no longer ready), one sentence; empty if nothing.
    """

    exists: bool = False
    revision: str = ""
    replicas: int = 0
    available: int = 0
    observed: bool = False
    settled: bool = False
    leaving: int = 0
    paused: bool = False
    paused_by_us: bool = False
    crash: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The world at one moment.

    Attributes:
        stable: stable's Deployment.
        canary: the canary's Deployment.
        route: the route as the cache has it; ``None`` when there is none.
        problems: why this rollout cannot be served (objects missing, router refuses…), one sentence each.
        assessment: verdicts of this evaluation; ``None`` when nothing was evaluated now.
        commands: commands not yet consumed, oldest first.
        at_start: whether this process decides about this rollout for the first time (under this Lease term).
        watched_from: POSIX seconds since when it does; ``None`` when that does not matter. What nobody watched could not
            bring enough requests, so it is not held against a stage.
        no_raise: why no raise may be sent now (Lease about to run out, clock skew); empty if it may.
        reassert_at: POSIX seconds before which a weight that somebody lowered is not written again.
        failing_before: rules whose last recorded verdict is fail (an Alert is told once).
        step: smallest difference between two weights that the router can express, basis points.
        scales: whether the weight is the number of the canary's pods, so that it has none at weight 0.
    """

    stable: VersionView
    canary: VersionView
    route: RouteView | None
    problems: tuple[str, ...] = ()
    assessment: Assessment | None = None
    commands: tuple[Command, ...] = ()
    at_start: bool = False
    watched_from: float | None = None
    no_raise: str = ""
    reassert_at: float = 0.0
    failing_before: frozenset[str] = frozenset()
    step: int = 1
    scales: bool = False
