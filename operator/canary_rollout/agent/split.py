"""The values of ``routing-reload.conf``: who is in, as lines of nginx's ``map``. With njs, ``canary.js`` says the same."""

import re
from dataclasses import dataclass

from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.units import FULL
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.document import WeightsDocument
from canary_rollout.traffic.nginx.render import cookie_variable, header_variable

_DIGIT = "[0-9]"


@dataclass(frozen=True, slots=True)
class Lines:
    """What the template is filled with.

    Attributes:
        cohort_variable: nginx variable that tells cohort members; empty without a cohort.
        members: (key of the map, name of the cohort) in order of precedence.
        region_variable: nginx variable that names the region; empty without regions.
        regions: (value, name of its cohort).
        splits: (regular expression over ``<place>:<region>``, group) in order of precedence.
    """

    cohort_variable: str
    members: list[tuple[str, str]]
    region_variable: str
    regions: list[tuple[str, str]]
    splits: list[tuple[str, str]]


def below(weight: int) -> str:
    """A regular expression for the four digits of every place below ``weight`` (1..10000 basis points)."""
    if weight >= FULL:
        return _DIGIT * 4
    digits = f"{weight:04d}"
    parts = [
        digits[:place] + (f"[0-{int(digit) - 1}]" if digit != "1" else "0") + _DIGIT * (3 - place)
        for place, digit in enumerate(digits)
        if digit != "0"
    ]
    return f"(?:{'|'.join(parts)})"


def glob(pattern: str) -> str:
    """A regular expression for a glob, whose time is linear: each piece is taken at its first place and never given back."""
    first, *rest = pattern.split("*")
    if not rest:
        return re.escape(first)
    *middle, last = rest
    return re.escape(first) + "".join(f"(?>.*?{re.escape(piece)})" for piece in middle) + ".*" + re.escape(last)


def region_label(value: str) -> str:
    """Name of a region's cohort."""
    return f"{validate.REGION}{value}"


def _members(cohort: Cohort) -> list[tuple[str, str]]:
    exact = [(f"v:{value}", value) for value in cohort.values]
    prefixes = [(f"~*^v:{re.escape(prefix)}", prefix) for prefix in cohort.prefixes]
    globs = [(f"~*^v:{glob(cohort.pattern)}$", validate.PATTERN)] if cohort.pattern is not None else []
    return [*exact, *prefixes, *globs]


def lines(document: WeightsDocument) -> Lines:
    """The lines for one document.

    Raises:
        UnsafeValueError: a value that must not reach nginx.
    """
    cohort = validate.cohort("cohort", document.cohort)
    splits, regions = [], []
    cohort_variable = region_variable = ""
    if cohort is not None and cohort.header is not None:
        cohort_variable = header_variable("cohort.header", cohort.header)
    elif cohort is not None and cohort.cookie is not None:
        cohort_variable = cookie_variable("cohort.cookie", cohort.cookie)
    if cohort is not None and cohort.regions is not None:
        region_variable = header_variable("cohort.regions.header", cohort.regions.header)
        for region in cohort.regions.weights:
            name = re.escape(region.value)
            regions.append((region.value, region_label(region.value)))
            if region.weight > 0:
                splits.append((f"~*^{below(region.weight)}:{name}$", "canary"))
            splits.append((f"~*^{_DIGIT * 4}:{name}$", "stable"))
    if document.weight > 0:
        splits.append((f"~^{below(document.weight)}:", "canary"))
    return Lines(cohort_variable, _members(cohort) if cohort is not None else [], region_variable, regions, splits)
