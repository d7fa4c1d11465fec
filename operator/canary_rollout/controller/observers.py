"""What the operator tells the world, as the objects its parts report to: metrics, Events, log lines, the guard's clock."""

from typing import Final

import structlog

from canary_rollout.controller.guard import Guard
from canary_rollout.controller.instruments import Instruments
from canary_rollout.controller.queue import Key
from canary_rollout.controller.recorder import Recorder
from canary_rollout.engine.decision import Decision, Note
from canary_rollout.kube.port import Object, Resource
from canary_rollout.model.status import CanaryRolloutStatus

log: Final = structlog.get_logger(__name__)


class OperatorTelemetry:
    """Passes on to the metrics, the Events and the log; none of them blocks."""

    def __init__(self, instruments: Instruments, recorder: Recorder) -> None:
        self._instruments = instruments
        self._recorder = recorder

    def decided(self, rollout: Object, status: CanaryRolloutStatus, decision: Decision) -> None:
        """A decision was carried out and persisted."""
        metadata = rollout["metadata"]
        self._instruments.decided((metadata["namespace"], metadata["name"]), status, decision)

    def note(self, rollout: Object, note: Note) -> None:
        """Something worth an Event and a log line."""
        metadata = rollout["metadata"]
        write = log.warning if note.warning else log.info
        write(note.message, namespace=metadata["namespace"], rollout=metadata["name"], reason=str(note.reason))
        self._recorder.event(rollout, note.reason, note.message, warning=note.warning)

    def left_out(self, rollout: Object, parts: tuple[str, ...]) -> None:
        """Parts of the evidence that the status had no room for."""
        metadata = rollout["metadata"]
        for part in parts:
            self._instruments["canary_rollout_evidence_left_out_total"].labels(part).inc()
        log.warning(
            "no room in the status for all evidence; what is left out begins anew after a restart",
            namespace=metadata["namespace"],
            rollout=metadata["name"],
            parts=", ".join(parts),
        )

    def forgot(self, key: Key) -> None:
        """The rollout is gone."""
        self._instruments.forgot(key)


class CallTelemetry:
    """:class:`kube.client.CallObserver`: counts calls, and tells the guard the server's clock once there is a guard."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self.guard: Guard | None = None

    def call(self, verb: str, resource: Resource, code: int, seconds: float) -> None:
        """One call has ended."""
        self._instruments.call(verb, resource, code, seconds)

    def server_date(self, server: float, sent: float, received: float) -> None:
        """The API server's clock."""
        if self.guard is not None:
            self.guard.server_date(server, sent, received)
