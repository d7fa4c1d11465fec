"""The last gate before a value reaches nginx, JSON that nginx reads, or an annotation (design invariant 12).

The model has refused the same values at admission; this is asked again because an older object, a webhook that was
off or a bug above must not turn into configuration. ``nginx -t`` is no such gate: it accepted 10 of 20 hostile values.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from canary_rollout.traffic.port import RouterError

_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REVISION: Final = re.compile(r"[A-Za-z0-9._-]{0,64}")
_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_RESERVED_HEADERS: Final = frozenset(
    {
        *("connection", "content-encoding", "content-length", "content-type", "cookie", "date", "expect", "host"),
        *("keep-alive", "location", "proxy-authenticate", "proxy-authorization", "set-cookie", "te", "trailer"),
        *("transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-proto", "x-request-id"),
    }
)


EVERYONE: Final = "everyone"
"""The cohort of those who are in none: decided by the weight."""


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
    """A header's name that we may set: none that frames or routes a message."""
    name = header_name(field, value)
    if name.lower() in _RESERVED_HEADERS:
        raise UnsafeValueError(
            field, value, "this header has a meaning of its own in HTTP; choose another, such as X-…"
        )
    return name


def cookie_name(field: str, value: object) -> str:
    """A cookie's name that nginx can read as ``$cookie_…`` (which has no ``-``)."""
    name = header_name(field, value)
    if "-" in name:
        raise UnsafeValueError(field, value, "nginx cannot read cookies with '-' in their name; use letters and digits")
    return name


def cohort_values(field: str, values: Iterable[object]) -> tuple[str, ...]:
    """Values of a cohort, without those that differ only in case (nginx compares them so)."""
    checked = [_match(_VALUE, field, value, "letters, digits, '.', '_' and '-', 1 to 64 of them") for value in values]
    if reserved := [value for value in checked if value.lower() == EVERYONE]:
        raise UnsafeValueError(field, reserved[0], "this word names those who are in no cohort; choose another")
    different: dict[str, str] = {}
    for value in checked:
        different.setdefault(value.lower(), value)
    return tuple(different.values())


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
