"""Routes for people in an Istio VirtualService: cohorts, clients that pin a version, and regions, before the one with weights.

Istio takes the first http route that matches, so ours stand right before the route they are made from. They keep everything
of it but its name, its matches and its destinations.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Traffic
from canary_rollout.model.units import FULL
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import RouterError

_DELICATE: Final = re.compile(r"[^A-Za-z0-9 _/-]")
Condition = tuple[str, Object]
"""A header's name in small letters, as Istio wants it, and what its value must be."""


def member_routes(
    base: Object, place: str, traffic: Traffic, cohort: Cohort | None, *, stable: Object, canary: Object, full: bool
) -> list[Object]:
    """The http routes that stand before ``base`` while the canary serves, in their order.

    Args:
        base: the route with the weights.
        place: how the names of ours begin.
        traffic: who may pin a version.
        cohort: of the stage.
        stable: stable's entry in ``base``, without a weight.
        canary: the canary's.
        full: whether the weight is 100 %, which is every region's too then.

    Raises:
        RouterError: what cannot be expressed, and why.
    """
    found: list[Object] = []
    if traffic.pin is not None:
        header = validate.header_name("traffic.pin.header", traffic.pin.header).lower()
        for kind, value, entry in (("canary", traffic.pin.canary, canary), ("stable", traffic.pin.stable, stable)):
            found.append(_route(base, f"{place}-pin-{kind}", [_exact(header, "traffic.pin", value)], [entry]))
    if cohort is not None and (cohort.header is not None or cohort.cookie is not None):
        found.append(_route(base, f"{place}-cohort", list(_conditions(cohort)), [canary]))
    if cohort is not None and cohort.regions is not None:
        header = validate.header_name("cohort.regions.header", cohort.regions.header).lower()
        for number, region in enumerate(cohort.regions.weights):
            weight = FULL if full else region.weight
            split = [{**stable, "weight": FULL - weight}, {**canary, "weight": weight}]
            condition = _exact(header, "cohort.regions", region.value)
            found.append(_route(base, f"{place}-region-{number}", [condition], split))
    return found


def _exact(header: str, field: str, value: str) -> Condition:
    (checked,) = validate.cohort_values(field, [value])
    return header, {"exact": checked}


def _conditions(cohort: Cohort) -> Iterator[Condition]:
    """Conditions any of which makes a request the cohort's."""
    values = validate.cohort_values("cohort.values", cohort.values)
    prefixes = validate.cohort_values("cohort.prefixes", cohort.prefixes)
    pattern = validate.pattern("cohort.pattern", cohort.pattern) if cohort.pattern is not None else None
    if cohort.header is not None:
        header = validate.header_name("cohort.header", cohort.header).lower()
        yield from ((header, {"exact": value}) for value in values)
        yield from ((header, {"prefix": prefix}) for prefix in prefixes)
        if pattern is not None:
            yield header, {"regex": _glob(pattern, ".*")}
        return
    name = validate.header_name("cohort.cookie", cohort.cookie)
    anyone = [_literal(value) for value in values] + [f"{_literal(prefix)}[^;]*" for prefix in prefixes]
    anyone += [_glob(pattern, "[^;]*")] if pattern is not None else []
    yield "cookie", {"regex": f"^(?:.*; ?)?{_literal(name)}=(?:{'|'.join(anyone)})(?:;.*)?$"}


def _glob(pattern: str, anything: str) -> str:
    return anything.join(_literal(part) for part in pattern.split("*"))


def _literal(text: str) -> str:
    return _DELICATE.sub(lambda found: f"[{found.group()}]", text)


def _route(base: Object, name: str, conditions: Sequence[Condition], entries: Sequence[Object]) -> Object:
    matches = [
        {**match, "headers": {**_free(match, header), header: condition}}
        for match in base.get("match") or [{}]
        for header, condition in conditions
    ]
    return {**base, "name": name, "match": matches, "route": [dict(entry) for entry in entries]}


def _free(match: Object, header: str) -> Object:
    there: Object = match.get("headers") or {}
    if any(one.lower() == header for one in there):
        raise RouterError(
            f"the http route matches on header {header} already: use another header for the cohort or the pin"
        )
    return there
