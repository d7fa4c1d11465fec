"""What the engine's decisions are carried out on where there is no cluster: every weight is there at once, nothing else moves."""

from dataclasses import dataclass

from canary_rollout.engine.decision import Action, Decision, HoldPause, Lower, Raise, ReleasePause
from canary_rollout.model.route import RouteView


@dataclass(slots=True)
class Instant:
    """A data plane that has every weight at once, and a canary's Deployment that is held and let go.

    Attributes:
        mode: what the route says of how it is written.
        route: the route as it would be found; ``None`` before the first write.
        paused: whether the canary's Deployment is held.
    """

    mode: str
    route: RouteView | None = None
    paused: bool = False

    def do(self, action: Action, now: float) -> bool:
        """Carry an action out at a time (POSIX seconds); ``False`` when it is about something else."""
        match action:
            case Lower(route) | Raise(route, _):
                self.route = RouteView(
                    weight=route.weight,
                    revision=route.revision,
                    cohort=route.cohort,
                    confirmed=True,
                    confirmed_at=now,
                    pending="",
                    latch=route.latch,
                    contested_by="",
                    resource_version=str(int(self.route.resource_version) + 1 if self.route else 1),
                    mode=self.mode,
                    mirror=route.mirror,
                )
            case HoldPause() | ReleasePause():
                self.paused = isinstance(action, HoldPause)
            case _:
                return False
        return True


def at_rest(decision: Decision, now: float) -> bool:
    """Whether nothing is left to do and nothing is due at this time (POSIX seconds)."""
    return not decision.actions and (decision.wake_at is None or decision.wake_at > now)
