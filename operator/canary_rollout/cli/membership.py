"""Which tenants each stage of a rollout includes: pure, by the hash of the data plane (traffic/nginx/hashing.py)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from canary_rollout.model.spec import CanaryRolloutSpec, Stage, Sticky
from canary_rollout.model.units import FULL
from canary_rollout.traffic.choice import member
from canary_rollout.traffic.envoy import hashing as envoy
from canary_rollout.traffic.nginx import hashing as nginx

Bucket = Callable[[str, str], int]
"""Place 0..9999 of a key under a salt."""

HASHES: Final[Mapping[str, Bucket]] = {"nginx": nginx.bucket, "envoy": envoy.bucket}
"""By router, the hash by which it keeps tenants. The others keep them by means that only they know, or not at all."""

HASH: Final = "hash"
ALLOWED: Final = "allow"
DENIED: Final = "deny"
COHORT: Final = "cohort"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant and where it stands.

    Attributes:
        name: as its requests name it.
        position: its place 0..9999 in the hash; it is served by the canary at every weight (basis points) above it.
        requests: how much of the traffic it sends, in any unit; ``None`` when unknown.
        stages: names of the stages that include it, in order.
        why: what the earliest of them is due to: ``hash``, ``allow``, ``deny`` (only at 100 %) or ``cohort``.
    """

    name: str
    position: int
    requests: float | None
    stages: tuple[str, ...]
    why: str

    @property
    def joins(self) -> str:
        """The first stage that includes it; empty when none does."""
        return self.stages[0] if self.stages else ""


@dataclass(frozen=True, slots=True)
class StageShare:
    """What one stage includes of the tenants given.

    Attributes:
        tenants: how many.
        share: of all tenants given, 0..1.
        requests: of all requests given, 0..1; ``None`` when requests are unknown.
        joined: how many are new against the stage before.
        left: names of those who were in the stage before and are not in this one.
    """

    stage: Stage
    tenants: int
    share: float
    requests: float | None
    joined: int
    left: tuple[str, ...]


def place(
    spec: CanaryRolloutSpec, sticky: Sticky, salt: str, names: Sequence[str], requests: Mapping[str, float]
) -> tuple[list[Tenant], list[StageShare]]:
    """Every tenant's stages, in the order given, and every active stage's share.

    Args:
        spec: the rollout.
        sticky: how tenants are told apart (``traffic.sticky``).
        salt: of the revision (``traffic.nginx.hashing.salt_of``).
        names: the tenants, each once.
        requests: what they send; may lack some or all.
    """
    position = _positions(spec, sticky, salt)
    tenants = [_tenant(spec, sticky, name, position(name), requests.get(name)) for name in names]
    shares: list[StageShare] = []
    before: frozenset[str] = frozenset()
    all_requests = sum(requests.values())
    for stage in spec.active_stages:
        inside = frozenset(tenant.name for tenant in tenants if stage.name in tenant.stages)
        weighed = sum(requests.get(name, 0.0) for name in inside)
        shares.append(
            StageShare(
                stage,
                len(inside),
                len(inside) / len(names) if names else 0.0,
                weighed / all_requests if all_requests > 0 else None,
                len(inside - before),
                tuple(sorted(before - inside)),
            )
        )
        before = inside
    return tenants, shares


def _positions(spec: CanaryRolloutSpec, sticky: Sticky, salt: str) -> Callable[[str], int]:
    """Place of each tenant by the router's own hash."""
    bucket = HASHES[spec.traffic.router]
    if not sticky.client_ip:
        return lambda name: bucket(salt, nginx.tenant_key(name))
    proxies = spec.traffic.envoy.trusted_proxies if spec.traffic.envoy is not None else ()
    return envoy.address_bucket if proxies else lambda address: bucket(salt, address)


def _tenant(spec: CanaryRolloutSpec, sticky: Sticky, name: str, position: int, requests: float | None) -> Tenant:
    reasons = {stage.name: _reason(stage, sticky, name, position) for stage in spec.active_stages}
    stages = tuple(stage for stage, reason in reasons.items() if reason)
    denied = name in sticky.deny
    return Tenant(name, position, requests, stages, DENIED if denied else reasons[stages[0]] if stages else "")


def _reason(stage: Stage, sticky: Sticky, name: str, position: int) -> str:
    """Why a stage includes a tenant; empty when it does not. Deny is stronger than allow; at 100 % everybody is in."""
    if stage.weight >= FULL:
        return HASH
    if name in sticky.deny:
        return ""
    if name in sticky.allow:
        return ALLOWED
    if position < stage.weight:
        return HASH
    return COHORT if in_cohort(stage, sticky, name) else ""


def in_cohort(stage: Stage, sticky: Sticky, name: str) -> bool:
    """Whether the stage's cohort includes a tenant by its name: only known where both look at the same header or cookie."""
    cohort = stage.cohort
    if cohort is None or not same_key(stage, sticky):
        return False
    return member(cohort, name) != ""


def same_key(stage: Stage, sticky: Sticky) -> bool:
    """Whether the stage's cohort is told by what names the tenants."""
    cohort = stage.cohort
    if cohort is None:
        return False
    header = cohort.header is not None and (sticky.header or "").lower() == cohort.header.lower()
    return header or (cohort.cookie is not None and cohort.cookie == sticky.cookie)
