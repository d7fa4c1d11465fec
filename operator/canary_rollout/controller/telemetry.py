"""Where everything that is worth telling goes: metrics, Events, log lines."""

import structlog

from canary_rollout.controller.guard import Guard
from canary_rollout.controller.queue import Key
from canary_rollout.controller.settings import Settings
from canary_rollout.engine.decision import Decision, Note
from canary_rollout.kube.port import Object, Resource
from canary_rollout.metrics.port import NobodyObserves, QueryObserver
from canary_rollout.model.status import CanaryRolloutStatus

log = structlog.get_logger(__name__)


class Telemetries:
    """One object that all the observers' protocols are served by."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guard: Guard | None = None
        self.calls = self
        self.queries: QueryObserver = NobodyObserves()

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """One call to the API server ended."""

    def server_date(self, server: float, sent: float, received: float) -> None:
        """The API server's clock, for the guard."""
        if self.guard is not None:
            self.guard.server_date(server, sent, received)

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """A decision was carried out and persisted."""

    def note(self, rollout: Object, note: Note) -> None:
        """Something worth an Event."""
        log.info(note.message, reason=note.reason, rollout=rollout["metadata"]["name"], warning=note.warning)

    def forgot(self, key: Key) -> None:
        """The rollout is gone."""
