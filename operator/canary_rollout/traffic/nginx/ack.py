"""What an agent says about its nginx, on one Lease per nginx pod: the contract between agent and operator.

``renewTime`` plus ``leaseDurationSeconds`` is exactly the moment until which this nginx may serve a weight below
100 %: the agent extends the lease inside nginx only after the API server has accepted the renewal.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.port import LEASES, MANAGED_BY, OPERATOR, ROLLOUT_LABEL, Object
from canary_rollout.model.units import FULL, UnitError, format_instant, parse_instant

PREFIX: Final = "canaryrollout.dev/"
CONFIG_MAP: Final = PREFIX + "config-map"
APPLIED: Final = PREFIX + "applied"
APPLIED_AT: Final = PREFIX + "applied-at"
CONFIG_SHA256: Final = PREFIX + "config-sha256"
MODE: Final = PREFIX + "mode"
WEIGHT: Final = PREFIX + "weight"
ERROR: Final = PREFIX + "error"
NGINX_VERSION: Final = PREFIX + "nginx-version"


class AckError(CanaryRolloutError):
    """A Lease that no agent wrote."""


@dataclass(frozen=True, slots=True)
class Ack:
    """One proxy's word.

    Attributes:
        pod: name of the nginx pod.
        config_map: ConfigMap it follows.
        rollout: CanaryRollout named there, ``""`` before the first load.
        applied: identity of the document that every worker serves, ``""`` before the first.
        applied_at: POSIX seconds.
        config: SHA-256 of the ``nginx.conf`` in use.
        mode: ``njs`` or ``reload``, ``""`` before the first load.
        weight: basis points in use.
        error: why a newer document is not applied, ``""`` when there is none.
        nginx_version: such as ``1.31.3``.
        renewed: POSIX seconds of the renewal.
        duration: seconds the renewal holds.
    """

    pod: str
    config_map: str
    rollout: str
    applied: str
    applied_at: float
    config: str
    mode: str
    weight: int
    error: str
    nginx_version: str
    renewed: float
    duration: int

    @property
    def expires(self) -> float:
        """POSIX seconds after which this nginx serves stable unless it is at 100 %."""
        return self.renewed + self.duration

    def lapses(self) -> bool:
        """Whether the weight it serves ends by itself when the Lease does."""
        return self.weight < FULL


def lease_name(config_map: str, pod: str) -> str:
    """Name of the Lease of one proxy; within the 253 characters a name may have."""
    name = f"{config_map}.{pod}"
    return name if len(name) <= 253 else f"{name[:200]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _micro_time(posix: float) -> str:
    return format_instant(posix)[:-1] + "000Z"


def to_lease(ack: Ack, namespace: str, pod_uid: str) -> Object:
    """The Lease as the agent applies it. The pod owns it, so it goes with the pod."""
    annotations = {
        CONFIG_MAP: ack.config_map,
        APPLIED: ack.applied,
        APPLIED_AT: format_instant(ack.applied_at),
        CONFIG_SHA256: ack.config,
        MODE: ack.mode,
        WEIGHT: f"{ack.weight}",
        ERROR: ack.error[:500],
        NGINX_VERSION: ack.nginx_version,
    }
    metadata: dict[str, Any] = {
        "name": lease_name(ack.config_map, ack.pod),
        "namespace": namespace,
        "labels": {MANAGED_BY: OPERATOR, **({ROLLOUT_LABEL: ack.rollout} if ack.rollout else {})},
        "annotations": annotations,
    }
    if pod_uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Pod", "name": ack.pod, "uid": pod_uid}]
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": metadata,
        "spec": {
            "holderIdentity": ack.pod,
            "leaseDurationSeconds": ack.duration,
            "renewTime": _micro_time(ack.renewed),
        },
    }


def from_lease(lease: Object) -> Ack:
    """Read an agent's Lease.

    Raises:
        AckError: names the Lease and the field.
    """
    metadata, spec = lease.get("metadata", {}), lease.get("spec", {})
    notes = metadata.get("annotations", {})
    try:
        return Ack(
            pod=spec["holderIdentity"],
            config_map=notes[CONFIG_MAP],
            rollout=metadata.get("labels", {}).get(ROLLOUT_LABEL, ""),
            applied=notes[APPLIED],
            applied_at=parse_instant(notes[APPLIED_AT]),
            config=notes[CONFIG_SHA256],
            mode=notes[MODE],
            weight=int(notes[WEIGHT]),
            error=notes[ERROR],
            nginx_version=notes[NGINX_VERSION],
            renewed=parse_instant(spec["renewTime"]),
            duration=int(spec["leaseDurationSeconds"]),
        )
    except (KeyError, ValueError, UnitError) as error:
        raise AckError(f"Lease {metadata.get('name')} is no agent's: {error!r}") from error
