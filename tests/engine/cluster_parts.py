"""What a cluster for the state machines is made of: Deployments whose pods are replaced, and what an evaluation says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from canary_rollout.analysis.verdict import Verdict
from canary_rollout.engine.observation import VersionView
from canary_rollout.model.conditions import Phase

SERVING = frozenset(
    {Phase.PROGRESSING, Phase.PAUSED, Phase.AWAITING_APPROVAL, Phase.PROMOTING, Phase.AWAITING_PROMOTION}
)
DAY = 86_400.0


def shorter(exact: float) -> float:
    """Status holds milliseconds; a hold may be short by that much."""
    return exact - 0.002


@dataclass
class Deployment:
    """A Deployment whose controller replaces pods when told to go on, unless it is paused."""

    template: str
    pods: frozenset[str] = frozenset()
    replicas: int = 2
    ready: bool = True
    crash: str = ""
    paused: bool = False
    paused_by_us: bool = False
    exists: bool = True
    observed: bool = True

    def __post_init__(self) -> None:
        self.pods = self.pods or frozenset({self.template})

    def change(self, template: str) -> None:
        self.template = template
        self._replace_some()

    def pause(self, *, by_us: bool) -> None:
        self.paused, self.paused_by_us = True, by_us

    def go_on(self) -> None:
        self.paused = self.paused_by_us = False
        self._replace_some()

    def _replace_some(self) -> None:
        if not self.paused:
            self.pods |= {self.template}

    def replace_all(self) -> None:
        if not self.paused:
            self.pods = frozenset({self.template})

    @property
    def settled(self) -> bool:
        return (
            self.exists
            and self.observed
            and self.ready
            and not self.crash
            and self.replicas > 0
            and self.pods == {self.template}
        )

    def view(self) -> VersionView:
        if not self.exists:
            return VersionView()
        available = 0 if not self.ready else self.replicas - (1 if self.crash else 0)
        return VersionView(
            exists=True,
            revision=self.template,
            replicas=self.replicas,
            available=max(0, available),
            observed=self.observed,
            settled=self.settled,
            paused=self.paused,
            paused_by_us=self.paused_by_us,
            crash=self.crash,
        )


Effect = Callable[[Any, bool], None]
"""One API call of a decision: told the cluster and whether it lands late."""


@dataclass(frozen=True)
class Gates:
    """What an evaluation says beside the halt rules."""

    exits: tuple[Verdict, ...] = ()
    entries: tuple[Verdict, ...] = ()
    tests: tuple[Verdict, ...] = ()
    promotion: Verdict | None = None


NO_GATES = Gates()
