"""What a pod's status says, built from what its containers do. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Manifest = dict[str, Any]


def timestamp(moment: datetime | None = None) -> str:
    """Write a time as the API does, in whole seconds of UTC."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting(reason: str, message: str = "") -> Manifest:
    """Return the state of a container that does not run (yet)."""
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def running(started_at: str) -> Manifest:
    """Return the state of a container that runs."""
    return {"running": {"startedAt": started_at}}


def terminated(exit_code: int, *, started_at: str, finished_at: str, oom: bool = False, message: str = "") -> Manifest:
    """Return the state of a container that has ended.

    Args:
        exit_code: as a shell shows it (128 + signal number).
        started_at: when the process began.
        finished_at: when it ended.
        oom: it was killed for its memory.
        message: for a person.
    """
    reason = "OOMKilled" if oom else ("Completed" if exit_code == 0 else "Error")
    state: Manifest = {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": started_at,
        "finishedAt": finished_at,
    }
    if message:
        state["message"] = message
    return {"terminated": state}


def exit_code_of(returncode: int) -> int:
    """Map Python's returncode (minus the signal) to a container's exit code (128 + signal)."""
    return 128 - returncode if returncode < 0 else returncode


@dataclass
class ContainerStatus:
    """One container's part of the status.

    Attributes:
        name: of the container.
        image: as the spec gives it.
        state: one of the states above.
        last_state: that of its previous run; empty when there was none.
        restarts: how often it was started again.
        ready: readiness probe passed (or there is none) and it runs.
        started: startup probe passed (or there is none) and it runs.
        container_id: changes with every run.
        sidecar: an init container with ``restartPolicy: Always``.
        done: it has ended and will not be started again.
    """

    name: str
    image: str
    state: Manifest = field(default_factory=lambda: waiting("ContainerCreating"))
    last_state: Manifest = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""
    sidecar: bool = False
    done: bool = False

    @property
    def exit_code(self) -> int | None:
        """Exit code when it has ended, else None."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def manifest(self) -> Manifest:
        """Return the entry for ``containerStatuses``."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": f"local://{self.image}",
            "containerID": self.container_id,
            "state": self.state,
            "lastState": self.last_state,
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.started,
        }


@dataclass
class PodFacts:
    """What a status is built from.

    Attributes:
        pod_ip: address as the API shows it; empty before it has one.
        host_ip: the node's.
        started_at: when the node took the pod.
        init: init containers, sidecars included, in order.
        main: the containers.
        initialized: all init containers have ended well (sidecars: started).
        sandbox: volumes are there, so containers may start.
        failed_init: an init container failed for good.
    """

    pod_ip: str
    host_ip: str
    started_at: str
    init: Sequence[ContainerStatus]
    main: Sequence[ContainerStatus]
    initialized: bool = False
    sandbox: bool = False
    failed_init: bool = False


def phase(facts: PodFacts) -> str:
    """Return the pod's phase."""
    if facts.failed_init:
        return "Failed"
    if facts.main and all(container.done for container in facts.main):
        return "Succeeded" if all(container.exit_code == 0 for container in facts.main) else "Failed"
    begun = facts.initialized and all(
        "waiting" not in container.state or container.last_state for container in facts.main
    )
    return "Running" if begun else "Pending"


def build_status(
    facts: PodFacts,
    *,
    gates: Mapping[str, str],
    previous: Sequence[Manifest],
    now: str,
) -> Manifest:
    """Return the pod's ``status``.

    Args:
        facts: what is the case.
        gates: condition type -> its status now, for each of the pod's readinessGates.
        previous: the conditions as they were, for their lastTransitionTime.
        now: the time that a changed condition gets.
    """
    status: Manifest = {
        "phase": phase(facts),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": facts.started_at,
        "conditions": _conditions(facts, gates, previous, now),
        "containerStatuses": [container.manifest() for container in facts.main],
    }
    if facts.pod_ip:
        status |= {"podIP": facts.pod_ip, "podIPs": [{"ip": facts.pod_ip}]}
    if facts.init:
        status["initContainerStatuses"] = [container.manifest() for container in facts.init]
    return status


def _conditions(facts: PodFacts, gates: Mapping[str, str], previous: Sequence[Manifest], now: str) -> list[Manifest]:
    """The pod's conditions; one whose status did not change keeps its lastTransitionTime."""
    current = phase(facts)
    unready = [container.name for container in [*facts.main, *_sidecars(facts)] if not container.ready]
    finished = current in {"Succeeded", "Failed"}
    if finished:
        not_ready = ("PodCompleted" if current == "Succeeded" else "PodFailed", "")
    else:
        not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    containers_ready = not unready and not finished
    closed = [gate for gate, status in gates.items() if status != "True"]
    conditions = [
        _condition("PodReadyToStartContainers", holds=facts.sandbox),
        _condition("Initialized", holds=facts.initialized, reason="ContainersNotInitialized"),
        _condition("Ready", holds=containers_ready and not closed, reason=not_ready[0], message=not_ready[1]),
        _condition("ContainersReady", holds=containers_ready, reason=not_ready[0], message=not_ready[1]),
        _condition("PodScheduled", holds=True),
    ]
    if containers_ready and closed:
        conditions[2] |= {
            "reason": "ReadinessGatesNotReady",
            "message": f"readiness gates not open: {' '.join(closed)}",
        }
    before = {condition["type"]: condition for condition in previous}
    for condition in conditions:
        known = before.get(condition["type"])
        unchanged = known is not None and known["status"] == condition["status"]
        condition["lastTransitionTime"] = known["lastTransitionTime"] if known is not None and unchanged else now
    return conditions


def _sidecars(facts: PodFacts) -> list[ContainerStatus]:
    return [container for container in facts.init if container.sidecar]


def _condition(kind: str, *, holds: bool, reason: str = "", message: str = "") -> Manifest:
    condition: Manifest = {"type": kind, "status": "True" if holds else "False"}
    # Explicit nulls: a strategic merge patch would keep a reason that is no longer true.
    condition["reason"] = None if holds or not reason else reason
    condition["message"] = None if holds or not message else message
    return condition
