"""Who gets which version, as every proxy of ours decides it: the reference for njs, reload mode and Envoy.

The order, in which the first that speaks decides:

1. weight 0, or the proxy's lease is over: stable, for everybody
2. the pin header asks for stable: stable
3. the tenant is denied: stable (below 100 %)
4. the pin header asks for the canary: canary
5. the tenant is allowed: canary
6. the cohort's value, prefix or pattern: canary
7. the region has a weight of its own: the tenant's place in the hash is compared with that weight
8. the place in the hash is compared with the stage's weight (at 100 %: canary)

Values, prefixes, patterns, regions and the pin ignore case; tenants do not, as their hash does not.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Pin, Sticky
from canary_rollout.model.units import FULL
from canary_rollout.traffic.nginx import validate


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request says; empty for what it does not.

    Attributes:
        tenant: value of the sticky header or cookie.
        pin: value of the pin header.
        cohort: value of the cohort's header or cookie.
        region: value of the region header.
    """

    tenant: str = ""
    pin: str = ""
    cohort: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides: of the spec (``sticky``, ``pin``) and of the stage (``weight`` in basis points, ``cohort``)."""

    weight: int
    sticky: Sticky | None = None
    pin: Pin | None = None
    cohort: Cohort | None = None


def like(value: str, pattern: str) -> bool:
    """Whether a value looks like a glob (``*`` is anything), ignoring case."""
    pieces = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    return re.fullmatch(pieces, value, re.IGNORECASE) is not None


def member(cohort: Cohort | None, value: str) -> str:
    """Name of the cohort a value belongs to; empty for none."""
    if cohort is None or not value:
        return ""
    if found := next((one for one in cohort.values if one.lower() == value.lower()), ""):
        return found
    if found := next((one for one in cohort.prefixes if value.lower().startswith(one.lower())), ""):
        return found
    return validate.PATTERN if cohort.pattern is not None and like(value, cohort.pattern) else ""


def _region(cohort: Cohort | None, value: str) -> tuple[str, int | None]:
    regions = cohort.regions.weights if cohort is not None and cohort.regions is not None else ()
    for region in regions:
        if region.value.lower() == value.lower():
            return f"{validate.REGION}{region.value}", region.weight
    return validate.EVERYONE, None


def decide(  # noqa: PLR0911 - one return for each rule, in their order
    rules: Rules, asked: Asked, place: Callable[[], int]
) -> tuple[str, str]:
    """``(version, cohort)``: ``stable`` or ``canary``, and the group the request is counted in.

    Args:
        rules: what decides.
        asked: the request.
        place: the request's place 0..9999 in the hash; asked for only where the weight decides.
    """
    weight, sticky, pin = rules.weight, rules.sticky, rules.pin
    if weight == 0:
        return "stable", validate.EVERYONE
    full = weight >= FULL
    if pin is not None and asked.pin.lower() == pin.stable.lower():
        return "stable", validate.PINNED
    if sticky is not None and asked.tenant in sticky.deny:
        return ("canary" if full else "stable"), validate.DENIED
    if pin is not None and asked.pin.lower() == pin.canary.lower():
        return "canary", validate.PINNED
    if sticky is not None and asked.tenant in sticky.allow:
        return "canary", validate.ALLOWED
    if label := member(rules.cohort, asked.cohort):
        return "canary", label
    label, own = _region(rules.cohort, asked.region)
    share = FULL if full else weight if own is None else own
    return ("canary" if share >= FULL or place() < share else "stable"), label
