"""Names of the rules for people that are added to a user's own route, which say whose they are.

Several CanaryRollouts may share one route (several apps, or several canaries of one), and each must find, renew and take
away its own rules alone: ``canaryrollout-3f9a1c.0-cohort`` is that of the CanaryRollout whose name hashes to 3f9a1c.
"""

import re
from collections.abc import Collection
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.traffic.foreign import hash_of

PREFIX: Final = "canaryrollout-"
"""Names of all rules that any CanaryRollout adds begin so."""
_OWNED: Final = re.compile(rf"{PREFIX}[0-9a-f]{{6}}\.")


def prefix_of(rollout: str) -> str:
    """How the names of one CanaryRollout's rules begin."""
    return f"{PREFIX}{hash_of(rollout)}."


def added(rule: Object) -> bool:
    """Whether some CanaryRollout added this rule."""
    return f"{rule.get('name') or ''}".startswith(PREFIX)


def added_by(rule: Object, rollout: str, backends: Collection[str], versions: Collection[str]) -> bool:
    """Whether this CanaryRollout added the rule.

    Args:
        rule: of a route.
        rollout: name of the CanaryRollout.
        backends: what the rule leads to.
        versions: stable and canary, named alike. Names of an earlier version did not say whose they are: those rules
            are known by leading nowhere else.
    """
    name = f"{rule.get('name') or ''}"
    if name.startswith(PREFIX) and not _OWNED.match(name):
        return set(backends) <= set(versions)
    return name.startswith(prefix_of(rollout))
