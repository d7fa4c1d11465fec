"""What a page sends: one JSON object, checked to the last field before it counts.

``{"app": "checkout", "version": "1.5", "vitals": [{"name": "LCP", "value": 2340.5}, {"name": "CLS", "value": 0.02}]}``:
LCP and INP in milliseconds, as the ``web-vitals`` library gives them; CLS has no unit.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.errors import CanaryRolloutError

LARGEST_BODY: Final = 2048
"""Bytes; three vitals take two hundred."""

MOST_VITALS: Final = 8
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class BeaconError(CanaryRolloutError, ValueError):
    """A beacon that is not counted.

    Attributes:
        reason: one word, for the metric.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Vital:
    """One kind of measurement.

    Attributes:
        series: name of its histogram.
        scale: of its unit, so many are one of the histogram's.
        worst: largest value that can be true, in the beacon's unit.
        buckets: upper edges; the limits of "good" and "poor" are among them.
        help: what it is.
    """

    series: str
    scale: float
    worst: float
    buckets: tuple[float, ...]
    help: str


VITALS: Final = {
    "LCP": Vital(
        "web_vitals_lcp_seconds",
        1000.0,
        300_000.0,
        (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0),
        "Largest Contentful Paint. Good up to 2.5 s, poor above 4 s.",
    ),
    "INP": Vital(
        "web_vitals_inp_seconds",
        1000.0,
        60_000.0,
        (0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
        "Interaction to Next Paint. Good up to 0.2 s, poor above 0.5 s.",
    ),
    "CLS": Vital(
        "web_vitals_cls",
        1.0,
        100.0,
        (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0),
        "Cumulative Layout Shift. Good up to 0.1, poor above 0.25.",
    ),
}


@dataclass(frozen=True, slots=True)
class Beacon:
    """One page view's measurements, in the histograms' units."""

    app: str
    version: str
    values: tuple[tuple[str, float], ...]


def parse(body: bytes) -> Beacon:
    """Return what a page sent.

    Raises:
        BeaconError: it is not of that form; nothing of it counts.
    """
    if len(body) > LARGEST_BODY:
        raise BeaconError("size", f"{len(body)} bytes are more than {LARGEST_BODY}")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BeaconError("form", "the body is not JSON") from error
    if not isinstance(raw, dict) or raw.keys() != {"app", "version", "vitals"}:
        raise BeaconError("form", "an object with app, version and vitals was expected")
    for field in ("app", "version"):
        if not isinstance(raw[field], str) or not _NAME.fullmatch(raw[field]):
            raise BeaconError("form", f'{field}: 1 to 64 letters, digits, ".", "_" and "-" were expected')
    vitals = raw["vitals"]
    if not isinstance(vitals, list) or not 0 < len(vitals) <= MOST_VITALS:
        raise BeaconError("form", f"vitals: a list of 1 to {MOST_VITALS} was expected")
    return Beacon(raw["app"], raw["version"], tuple(_value(vital) for vital in vitals))


def _value(raw: Any) -> tuple[str, float]:
    if not isinstance(raw, dict) or raw.keys() != {"name", "value"} or raw["name"] not in VITALS:
        raise BeaconError("form", f"a vital has a name ({', '.join(VITALS)}) and a value")
    vital, value = VITALS[raw["name"]], raw["value"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= vital.worst:
        raise BeaconError("value", f"{raw['name']}: a number from 0 to {vital.worst:g} was expected")
    return raw["name"], value / vital.scale
