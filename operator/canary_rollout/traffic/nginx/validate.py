"""The last gate before a value reaches nginx, JSON that nginx reads, or an annotation (design invariant 12).

The model has refused the same values at admission; this is asked again because an older object, a webhook that was
off or a bug above must not turn into configuration. ``nginx -t`` is no such gate: it accepted 10 of 20 hostile values.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.headers import is_reserved
from canary_rollout.model.routing import Pin
from canary_rollout.traffic.port import RouterError

_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REVISION: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9 ._/()-]{1,64}(\*[A-Za-z0-9 ._/()-]{1,64}){0,4}\*?")
_PATH: Final = re.compile(r"(/[A-Za-z0-9_-]{1,64}){1,4}")


EVERYONE: Final = "everyone"
"""The cohort of those who are in none: decided by the weight."""
PINNED: Final = "pinned"
"""The cohort of requests whose client chose the version."""
ALLOWED: Final = "allowed"
"""The cohort of tenants that are always in the canary."""
DENIED: Final = "denied"
"""The cohort of tenants that are never in it below 100 %."""
PATTERN: Final = "pattern"
"""The cohort of those whose value looks like the stage's pattern."""
MIRROR: Final = "mirror"
"""The cohort of copied requests, whose answers nobody gets."""
DIRECT: Final = "direct"
"""The cohort of requests to a direct path."""
REGION: Final = "region-"
"""Begins the cohort of a region with a weight of its own."""
RESERVED: Final = frozenset({EVERYONE, PINNED, ALLOWED, DENIED, PATTERN, MIRROR, DIRECT})


class UnsafeValueError(RouterError):
    """A value that must not reach the data plane; the message names the field, the value and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r:.120} is refused: {allowed}")


def _match(pattern: re.Pattern[str], field: str, value: object, allowed: str) -> str:
    # fullmatch, not $: that would admit a trailing newline.
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise UnsafeValueError(field, value, allowed)
    return value


def header_name(field: str, value: object) -> str:
    """A header's name that nginx can read as ``$http_…``."""
    return _match(_HEADER, field, value, "a header name has letters, digits and '-', starts with a letter, 63 at most")


def own_header_name(field: str, value: object) -> str:
    """A header's name that we may set: none that somebody else relies on."""
    name = header_name(field, value)
    if is_reserved(name):
        raise UnsafeValueError(field, value, "this header has a meaning of its own; choose another, such as X-…")
    return name


def cookie_name(field: str, value: object) -> str:
    """A cookie's name that nginx can read as ``$cookie_…`` (which has no ``-``)."""
    name = header_name(field, value)
    if "-" in name:
        raise UnsafeValueError(field, value, "nginx cannot read cookies with '-' in their name; use letters and digits")
    return name


def cohort_values(field: str, values: Iterable[object]) -> tuple[str, ...]:
    """Values of a cohort, without those that differ only in case (proxies compare them so)."""
    checked = [_match(_VALUE, field, value, "letters, digits, '.', '_' and '-', 1 to 64 of them") for value in values]
    for value in checked:
        if value.lower() in RESERVED or value.lower().startswith(REGION):
            raise UnsafeValueError(
                field, value, "this word names a group of our own, such as those who are in no cohort; choose another"
            )
    different: dict[str, str] = {}
    for value in checked:
        different.setdefault(value.lower(), value)
    return tuple(different.values())


def pattern(field: str, value: object) -> str:
    """A glob: plain characters with ``*`` between them, at most five."""
    return _match(_PATTERN, field, value, "letters, digits, ' ._/()-' and at most five '*' that do not touch")


def cohort(field: str, given: Cohort | None) -> Cohort | None:
    """A cohort with everything in it checked, its values each once."""
    if given is None:
        return None
    if given.header is not None:
        header_name(f"{field}.header", given.header)
    elif given.cookie is not None:
        cookie_name(f"{field}.cookie", given.cookie)
    values = cohort_values(f"{field}.values", given.values)
    prefixes = cohort_values(f"{field}.prefixes", given.prefixes)
    if given.pattern is not None:
        pattern(f"{field}.pattern", given.pattern)
    if given.regions is not None:
        header_name(f"{field}.regions.header", given.regions.header)
        names = [
            _match(_VALUE, f"{field}.regions", region.value, "letters, digits, '.', '_' and '-', 1 to 64 of them")
            for region in given.regions.weights
        ]
        if len({name.lower() for name in names}) != len(names):
            raise UnsafeValueError(
                f"{field}.regions", names, "regions that differ only in case are one: keep one of them"
            )
        for region in given.regions.weights:
            whole_number(f"{field}.regions.weight", region.weight, 0, 10_000)
    return given.model_copy(update={"values": values, "prefixes": prefixes})


def tenants(field: str, values: Iterable[object]) -> tuple[str, ...]:
    """Names of tenants; their case counts, as it does in the hash."""
    allowed = "a letter or digit, then letters, digits, '.', '_', '@', ':' and '-', at most 64 characters"
    return tuple(dict.fromkeys(_match(_TENANT, field, value, allowed) for value in values))


def pin(field: str, given: Pin | None) -> Pin | None:
    """The pin header with two values that differ in more than case."""
    if given is None:
        return None
    header_name(f"{field}.header", given.header)
    for name, value in (("canary", given.canary), ("stable", given.stable)):
        _match(_VALUE, f"{field}.{name}", value, "letters, digits, '.', '_' and '-', 1 to 64 of them")
    if given.canary.lower() == given.stable.lower():
        raise UnsafeValueError(f"{field}.stable", given.stable, "the same value cannot ask for both versions")
    return given


def path(field: str, value: object) -> str:
    """A path of our own before that of the app."""
    return _match(
        _PATH, field, value, "'/' and a word of letters, digits, '_' and '-', one to four times, as in /canary"
    )


def network(field: str, value: object) -> str:
    """An address or a network, as nginx's ``allow`` and ``set_real_ip_from`` take it."""
    try:
        return f"{ipaddress.ip_network(value if isinstance(value, str) else '', strict=False)}"
    except ValueError as error:
        raise UnsafeValueError(field, value, "an address or a network, as in 10.0.0.0/8") from error


def revision(field: str, value: object) -> str:
    """A revision's name, empty when unknown."""
    return _match(_REVISION, field, value, "letters, digits, '.', '_' and '-', 64 at most")


def dns_name(field: str, value: object) -> str:
    """A Kubernetes object's name."""
    return _match(_DNS_NAME, field, value, "a Kubernetes name has lower-case letters, digits, '-' and '.'")


def sha256(field: str, value: object) -> str:
    """64 hexadecimal digits."""
    return _match(_SHA256, field, value, "64 hexadecimal digits")


def whole_number(field: str, value: object, low: int, high: int) -> int:
    """An integer within bounds; ``True`` is none."""
    if type(value) is not int or not low <= value <= high:
        raise UnsafeValueError(field, value, f"a whole number from {low} to {high}")
    return value


def address(field: str, value: object) -> str:
    """An IP address as nginx writes it (IPv6 in brackets)."""
    try:
        parsed = ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise UnsafeValueError(field, value, "an IPv4 or IPv6 address") from error
    if parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified or getattr(parsed, "scope_id", None):
        raise UnsafeValueError(field, value, "the address of a Service, not link-local, multicast or unspecified")
    return f"[{parsed}]" if parsed.version == 6 else f"{parsed}"
