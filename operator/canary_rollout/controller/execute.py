"""Carries out what the engine decided. Every action is safe to repeat; a failing one is raised and tried again."""

from dataclasses import dataclass
from typing import assert_never

from canary_rollout.engine.decision import (
    Action,
    CopyTemplate,
    HoldPause,
    Lower,
    Raise,
    ReleasePause,
    RestoreStable,
    ScaleCanary,
)
from canary_rollout.errors import CanaryRolloutError
from canary_rollout.traffic.port import Rejected, Router
from canary_rollout.workloads.deployments import Workloads


class RouteRejectedError(CanaryRolloutError):
    """The router cannot or may not write this route."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Actions of one rollout.

    Attributes:
        router: the rollout's router.
        workloads: its Deployments.
    """

    router: Router
    workloads: Workloads

    async def carry_out(self, action: Action) -> None:
        """Do one thing.

        Raises:
            RouteRejectedError: the router refuses.
            WorkloadError: a Deployment cannot be brought where it should be.
            ApiError: the API server refused or did not answer.
        """
        match action:
            case Lower(route, fence) | Raise(route, fence):
                self._accepted(await self.router.ensure(route, fence=fence))
            case HoldPause():
                await self.workloads.hold_pause()
            case ReleasePause():
                await self.workloads.release_pause()
            case ScaleCanary(replicas):
                await self.workloads.scale_canary(replicas)
            case CopyTemplate(revision):
                await self.workloads.copy_to_stable(revision)
            case RestoreStable(revision):
                await self.workloads.restore_stable(revision)
            case _:
                assert_never(action)

    @staticmethod
    def _accepted(answer: object) -> None:
        if isinstance(answer, Rejected):
            raise RouteRejectedError(answer.reason)
