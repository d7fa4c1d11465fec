"""A verdict as an annotation on the route's own object, so that it survives the loss of the CanaryRollout's status."""

import json
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.model.plain import parse_json
from canary_rollout.model.route import Latch
from canary_rollout.model.units import UnitError, format_instant, parse_instant

LATCH: Final = "canaryrollout.dev/latch"


def to_annotation(latch: Latch) -> str:
    """JSON of one verdict; the message is cut at 1,000 characters."""
    return json.dumps(
        {
            "revision": latch.revision,
            "rule": latch.rule,
            "message": latch.message[:1000],
            "at": format_instant(latch.at),
        }
    )


def from_object(obj: Object) -> Latch | None:
    """The verdict on ``obj``; ``None`` when there is none.

    One that somebody has mangled still condemns: it comes back with what could be read, never as "no verdict".
    """
    text = (obj.get("metadata", {}).get("annotations") or {}).get(LATCH)
    if text is None:
        return None
    try:
        raw = parse_json(text)
        return Latch(f"{raw['revision']}", f"{raw['rule']}", f"{raw['message']}", parse_instant(raw["at"]))
    except (ValueError, KeyError, TypeError, UnitError):
        return Latch("", "unreadable", f"the annotation {LATCH} does not parse: {text:.200}", 0.0)
