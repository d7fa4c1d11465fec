"""Rules for people: cohorts, clients that pin a version, and regions, as rules beside the one with the weights.

In Gateway API one more header in a match makes a rule more specific, so these win over the rule they are made from
wherever they stand; among themselves the first in the list wins (``HTTPRouteRule.matches``, precedence).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Traffic
from canary_rollout.model.units import FULL
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import RouterError

_MATCHES_PER_RULE: Final = 64
_MATCHES_PER_ROUTE: Final = 127
_RULES_PER_ROUTE: Final = 16
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DELICATE: Final = re.compile(r"[^A-Za-z0-9 _/-]")

Condition = Object
"""One entry of ``matches[].headers``."""


def weighted(stable: Sequence[Object], canary: Sequence[Object], weight: int) -> list[Object]:
    """Both versions, weights out of 10,000."""
    return [
        *({**backend, "weight": FULL - weight} for backend in stable),
        *({**backend, "weight": weight} for backend in canary),
    ]


def member_rules(
    base: Object, name: str, traffic: Traffic, cohort: Cohort | None, versions: tuple[Object, Object], *, full: bool
) -> list[Object]:
    """The rules that stand beside ``base`` while the canary serves.

    Args:
        base: the rule with the weights; its path, filters and timeouts are kept.
        name: how the names of the rules begin.
        traffic: who may pin a version.
        cohort: of the stage.
        versions: stable's backend and the canary's, without weights.
        full: whether the weight is 100 %, which is every region's too then.

    Raises:
        RouterError: what cannot be expressed, and why.
    """
    regex = traffic.gateway_api is not None and traffic.gateway_api.regular_expressions
    stable, canary = versions
    only_canary, only_stable = [{**canary, "weight": 1}], [{**stable, "weight": 1}]
    found: list[Object] = []
    if traffic.pin is not None:
        header = validate.header_name("traffic.pin.header", traffic.pin.header)
        found += _rules(base, name, "pin-canary", [exact(header, traffic.pin.canary)], only_canary)
        found += _rules(base, name, "pin-stable", [exact(header, traffic.pin.stable)], only_stable)
    if cohort is not None:
        found += _rules(base, name, "cohort", _conditions(cohort, regex=regex), only_canary)
        for number, region in enumerate(cohort.regions.weights if cohort.regions is not None else ()):
            header = validate.header_name("cohort.regions.header", cohort.regions.header if cohort.regions else None)
            backends = weighted([stable], [canary], FULL if full else region.weight)
            found += _rules(base, name, f"region-{number}", [exact(header, region.value)], backends)
    return found


def check_size(rules: Sequence[Object]) -> None:
    """Raise RouterError when a route with these rules is more than Gateway API takes."""
    matches = sum(max(1, len(rule.get("matches") or ())) for rule in rules)
    if len(rules) > _RULES_PER_ROUTE or matches > _MATCHES_PER_ROUTE:
        raise RouterError(
            f"the route would have {len(rules)} rules with {matches} matches, and Gateway API takes {_RULES_PER_ROUTE} with "
            f"{_MATCHES_PER_ROUTE}: name fewer paths, values or regions"
        )


def exact(header: str, value: str) -> Condition:
    """A header that is exactly ``value``."""
    if not _VALUE.fullmatch(value):
        raise validate.UnsafeValueError(
            f"value of {header}", value, "letters, digits, '.', '_' and '-', 1 to 64 of them"
        )
    return {"type": "Exact", "name": header, "value": value}


def _conditions(cohort: Cohort, *, regex: bool) -> list[Condition]:
    """Conditions any of which makes a request the cohort's."""
    if cohort.header is None and cohort.cookie is None:
        return []
    people = cohort.prefixes or cohort.pattern is not None or cohort.cookie is not None
    if people and not regex:
        what = "by cookie" if cohort.cookie is not None else "by prefix or pattern"
        raise RouterError(
            f"a cohort {what} needs headers to be matched by regular expression, which Gateway API leaves to the "
            "implementation: set traffic.gatewayAPI.regularExpressions to true where yours can, or name values of a header"
        )
    if cohort.cookie is not None:
        name = validate.header_name("cohort.cookie", cohort.cookie)
        anyone = "|".join(_alternatives(cohort))
        return [
            {
                "type": "RegularExpression",
                "name": "Cookie",
                "value": f"^(?:.*; ?)?{_literal(name)}=(?:{anyone})(?:;.*)?$",
            }
        ]
    header = validate.header_name("cohort.header", cohort.header)
    found = [exact(header, value) for value in cohort.values]
    if rest := _patterns(cohort):
        found.append({"type": "RegularExpression", "name": header, "value": f"^(?:{'|'.join(rest)})$"})
    return found


def _alternatives(cohort: Cohort) -> list[str]:
    values = validate.cohort_values("cohort.values", cohort.values) if cohort.values else ()
    return [*(_literal(value) for value in values), *(part.replace(".*", "[^;]*") for part in _patterns(cohort))]


def _patterns(cohort: Cohort) -> list[str]:
    prefixes = validate.cohort_values("cohort.prefixes", cohort.prefixes) if cohort.prefixes else ()
    found = [f"{_literal(prefix)}.*" for prefix in prefixes]
    if cohort.pattern is not None:
        found.append(
            ".*".join(_literal(part) for part in validate.pattern("cohort.pattern", cohort.pattern).split("*"))
        )
    return found


def _literal(text: str) -> str:
    """``text`` for a regular expression, in the part that every dialect shares."""
    return _DELICATE.sub(lambda found: f"[{found.group()}]", text)


def _rules(
    base: Object, name: str, kind: str, conditions: Sequence[Condition], backends: Iterable[Object]
) -> list[Object]:
    matches = [
        {**match, "headers": [*_others(match, condition), condition]}
        for match in base.get("matches") or [{}]
        for condition in conditions
    ]
    chunks = [matches[at : at + _MATCHES_PER_RULE] for at in range(0, len(matches), _MATCHES_PER_RULE)]
    return [
        {
            **base,
            "name": f"{name}-{kind}" + (f"-{number}" if number else ""),
            "matches": chunk,
            "backendRefs": [dict(backend) for backend in backends],
        }
        for number, chunk in enumerate(chunks)
    ]


def _others(match: Object, condition: Condition) -> list[Object]:
    there = list(match.get("headers") or [])
    if any(f"{one.get('name')}".lower() == condition["name"].lower() for one in there):
        raise RouterError(
            f"the rule matches on header {condition['name']} already, and Gateway API looks at one condition for each "
            "header: use another header"
        )
    return there
