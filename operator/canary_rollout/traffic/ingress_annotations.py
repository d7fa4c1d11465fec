"""Annotations of the community ingress-nginx controller: what we write, and what others' mean to it."""

import re
from typing import Final

from canary_rollout.kube.port import FIELD_MANAGER, Object
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.units import FULL, UnitError, parse_instant
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.port import RouterError

PREFIX: Final = "nginx.ingress.kubernetes.io/"
CANARY: Final = PREFIX + "canary"
WEIGHT: Final = PREFIX + "canary-weight"
TOTAL: Final = PREFIX + "canary-weight-total"
BY_HEADER: Final = PREFIX + "canary-by-header"
BY_HEADER_VALUE: Final = PREFIX + "canary-by-header-value"
BY_HEADER_PATTERN: Final = PREFIX + "canary-by-header-pattern"
BY_COOKIE: Final = PREFIX + "canary-by-cookie"
AFFINITY: Final = PREFIX + "affinity"
AFFINITY_CANARY: Final = PREFIX + "affinity-canary-behavior"
PASSTHROUGH: Final = PREFIX + "ssl-passthrough"
BY_KEYS: Final = (BY_HEADER, BY_HEADER_VALUE, BY_HEADER_PATTERN, BY_COOKIE)
CLASS: Final = "kubernetes.io/ingress.class"
REVISION: Final = "canaryrollout.dev/revision"
WRITTEN_AT: Final = "canaryrollout.dev/written-at"
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def cohort_annotations(field: str, cohort: Cohort | None) -> dict[str, str]:
    """What the controller can say about a cohort.

    Raises:
        RouterError: cookies are compared with "always" alone.
    """
    if cohort is None:
        return {}
    if cohort.regions is not None:
        raise RouterError(
            f"{field}.regions: ingress-nginx has one weight for everybody: remove it, or use the nginx router"
        )
    values = tuple(validate.cohort_values(f"{field}.values", cohort.values))
    if cohort.header is None:
        if values != ("always",) or cohort.prefixes or cohort.pattern is not None:
            raise RouterError(
                f'{field}: ingress-nginx compares a cookie with "always" alone, not with anything else: use that one '
                "value, or a header"
            )
        return {BY_COOKIE: validate.header_name(f"{field}.cookie", cohort.cookie)}
    name = {BY_HEADER: validate.header_name(f"{field}.header", cohort.header)}
    if len(values) == 1 and not cohort.prefixes and cohort.pattern is None:
        return {**name, BY_HEADER_VALUE: values[0]}
    anyone = [_literal(value) for value in values]
    anyone += [f"{_literal(prefix)}.*" for prefix in validate.cohort_values(f"{field}.prefixes", cohort.prefixes)]
    if cohort.pattern is not None:
        parts = validate.pattern(f"{field}.pattern", cohort.pattern).split("*")
        anyone.append(".*".join(_literal(part) for part in parts))
    if any(" " in one for one in anyone):
        raise RouterError(f"{field}.pattern: ingress-nginx refuses a space in a pattern: write * in its place")
    return {**name, BY_HEADER_PATTERN: f"^(?:{'|'.join(anyone)})$"}


def _literal(text: str) -> str:
    """``text`` for a regular expression, written with characters that the controller lets through."""
    return re.sub(r"[.()]", lambda found: f"[{found.group()}]", text)


def cohort_of(notes: dict[str, str]) -> Cohort | None:
    """The cohort that the annotations mean; ``None`` for none, or one that we would not have written."""
    if cookie := notes.get(BY_COOKIE):
        return Cohort.model_construct(header=None, cookie=cookie, values=("always",))
    if header := notes.get(BY_HEADER):
        pattern = re.fullmatch(r"\^\(\?:(.*)\)\$", notes.get(BY_HEADER_PATTERN, ""))
        values = pattern.group(1).replace("[.]", ".").split("|") if pattern else [notes.get(BY_HEADER_VALUE, "always")]
        return Cohort.model_construct(header=header, cookie=None, values=tuple(values))
    return None


def weight_of(notes: dict[str, str]) -> int:
    """Basis points as the controller reads the annotations: what does not parse is weight 0, a total up to 100 is 100.

    Never 0 while anybody gets the canary.
    """
    if notes.get(CANARY) != "true":
        return 0
    weight, total = (
        int(notes[key]) if _NUMBER.fullmatch(notes.get(key, "")) else otherwise
        for key, otherwise in ((WEIGHT, 0), (TOTAL, 100))
    )
    return min(FULL, max(1, weight * FULL // max(100, total))) if weight > 0 else 0


def written_at(notes: dict[str, str]) -> float:
    """POSIX seconds of our last write; 0 when the annotation does not say."""
    try:
        return parse_instant(notes.get(WRITTEN_AT))
    except UnitError:
        return 0.0


def foreign_rules(ingress: Object, notes: dict[str, str]) -> list[str]:
    """Annotations about canaries that we did not write."""
    there = ingress["metadata"].get("annotations") or {}
    return [key for key in there if key.startswith((CANARY, AFFINITY)) and key not in notes]


def other_writer(ingress: Object) -> str:
    """A field manager that owns an annotation about canaries and is not ours; empty when there is none."""
    for entry in ingress["metadata"].get("managedFields") or []:
        owned = ((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:annotations") or {}
        if entry.get("manager") != FIELD_MANAGER and any(
            key.startswith((f"f:{CANARY}", f"f:{AFFINITY}")) for key in owned
        ):
            return f"{entry.get('manager')}"
    return ""
