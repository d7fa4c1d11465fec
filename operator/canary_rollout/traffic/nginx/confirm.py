"""Whether every proxy serves exactly what the ConfigMap says, from EndpointSlices and the agents' Leases."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.traffic.nginx.ack import Ack
from canary_rollout.traffic.nginx.document import RouteDocument

CLOCK_MARGIN: Final = 5.0
"""Seconds by which a node's clock may differ from ours before taking "its lease is over" for a proof would be wrong."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The answer for all proxies together.

    Attributes:
        confirmed: every proxy that may get traffic serves the document.
        at: POSIX seconds at which the last of them did; ``None`` while pending.
        pending: who is missing and why, one sentence; empty when confirmed.
        mode: ``njs``, ``reload``, both, or empty when no proxy has said.
    """

    confirmed: bool
    at: float | None
    pending: str
    mode: str


def serving_pods(slices: Iterable[Object]) -> set[str]:
    """Names of the pods that may still answer a request: ready, serving or terminating."""
    pods: set[str] = set()
    for endpoint_slice in slices:
        for endpoint in endpoint_slice.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            # Absent means true for ready and serving (discovery.k8s.io/v1), and false for terminating.
            alive = conditions.get("ready", True) or conditions.get("serving", True) or conditions.get("terminating")
            target = endpoint.get("targetRef") or {}
            if alive and target.get("kind") == "Pod":
                pods.add(target["name"])
    return pods


def _missing(document: RouteDocument, identity: str, ack: Ack | None, now: float) -> tuple[str, float]:
    """Why one proxy does not serve the document (empty: it does) and since when it does."""
    if ack is None:
        return "has no agent that reports", 0.0
    if ack.applied != identity:
        if document.weight == document.mirror == 0 and ack.lapses() and now > ack.expires + CLOCK_MARGIN:
            return "", ack.expires
        return (f"refused it: {ack.error}" if ack.error else f"still serves {ack.applied or 'nothing'}"), 0.0
    if now > ack.expires and document.leased:
        return "has not heard from its agent and serves stable", 0.0
    return "", ack.applied_at


def confirm(
    document: RouteDocument, pods: set[str], acks: Mapping[str, Ack], now: float, kind: str = "nginx"
) -> Confirmation:
    """Compare ``document`` with what the agents of ``pods`` (and of named proxies) say at ``now`` (POSIX seconds)."""
    modes = sorted({ack.mode for pod, ack in acks.items() if pod in pods and ack.mode})
    mode = " and ".join(modes)
    if not pods:
        return Confirmation(confirmed=False, at=None, pending=f"no {kind} pod is ready yet", mode=mode)
    identity = document.identity
    answers = {pod: _missing(document, identity, acks.get(pod), now) for pod in sorted(pods)}
    if waiting := [f"{pod} {why}" for pod, (why, _) in answers.items() if why]:
        more = f" (and {len(waiting) - 3} more)" if len(waiting) > 3 else ""
        pending = f"waiting for {len(waiting)} of {len(pods)} {kind} pods: {'; '.join(waiting[:3])}{more}"
        return Confirmation(confirmed=False, at=None, pending=pending, mode=mode)
    return Confirmation(confirmed=True, at=max(at for _, at in answers.values()), pending="", mode=mode)
