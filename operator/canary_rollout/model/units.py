"""Weights, percents, durations and instants: what people write, and the numbers inside.

Outside: quoted strings (``"0.5%"``, ``"1h30m"``, ``"1.10"``, RFC 3339). Inside: integer basis
points (0..10000), seconds as float, plain floats, POSIX seconds. No floats cross the API, because
YAML, JSON and Go disagree about them.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from canary_rollout.errors import CanaryRolloutError

FULL: Final = 10_000
"""100 % in basis points."""

WEIGHT_PATTERN: Final = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$"
DURATION_PATTERN: Final = r"^([0-9]{1,6}(ms|s|m|h|d)){1,5}$"
NUMBER_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,6})?%?$"
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class UnitError(CanaryRolloutError, ValueError):
    """A weight, duration or number that cannot be read; the message names both readings where two are possible."""


def parse_weight(value: object) -> int:
    """Basis points of a weight as people write it: ``"0.5%"`` -> 50.

    An ``int`` that is already in basis points passes only through :func:`weight_from_basis_points`;
    here a bare number is refused, since 25 could mean 25 % or 25 basis points.
    """
    if not isinstance(value, str):
        raise UnitError(f'weight {value!r} has no unit: write "{value}%" for per cent of the traffic, in quotes')
    if not re.fullmatch(WEIGHT_PATTERN.strip("^$"), value):
        hint = "" if value.endswith("%") else f' (did you mean "{value}%"?)'
        raise UnitError(f'weight "{value}" is not a percentage between "0%" and "100%" with at most two decimals{hint}')
    return int(Decimal(value[:-1]) * 100)


def format_weight(basis_points: int) -> str:
    """``50`` -> ``"0.5%"``; the shortest form that :func:`parse_weight` reads back exactly."""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + "%" if rest else f"{whole}%"


def parse_duration(value: object) -> float:
    """Seconds of a duration: ``"1h30m"`` -> 5400.0."""
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN.strip("^$"), value):
        raise UnitError(
            f'duration {value!r} does not parse: write numbers with units ms, s, m, h, d, as in "90s" or "1h30m"'
        )
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"([0-9]+)(ms|s|m|h|d)", value))


def format_duration(seconds: float) -> str:
    """``5400`` -> ``"1h30m"``; milliseconds are kept, anything finer is dropped."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_number(value: object) -> float:
    """A quantity: ``"1.10"`` -> 1.1, ``"1%"`` -> 0.01."""
    if not isinstance(value, str) or not re.fullmatch(NUMBER_PATTERN.strip("^$"), value):
        raise UnitError(f'number {value!r} does not parse: write it in quotes, as in "1.10" or "1%"')
    return float(Decimal(value[:-1]) / 100) if value.endswith("%") else float(value)


def format_number(value: float) -> str:
    """The shortest decimal string with at most six places that reads back as the same quantity."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def parse_instant(value: object) -> float:
    """POSIX seconds of an RFC 3339 timestamp in UTC."""
    if not isinstance(value, str):
        raise UnitError(f"timestamp {value!r} is not a string; write RFC 3339, as in 2026-11-21T10:00:00Z")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise UnitError(f'timestamp "{value}" does not parse; write RFC 3339, as in 2026-11-21T10:00:00Z') from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def format_instant(posix: float) -> str:
    """RFC 3339 in UTC with milliseconds, so that a restart resumes on the same tick."""
    return datetime.fromtimestamp(round(posix, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Weight = Annotated[
    int,
    BeforeValidator(parse_weight),
    PlainSerializer(format_weight, return_type=str),
    WithJsonSchema({"type": "string", "pattern": WEIGHT_PATTERN, "maxLength": 7}),
]
"""Basis points inside, ``"0.5%"`` outside."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 24}),
]
"""Seconds inside, ``"1h30m"`` outside."""

Number = Annotated[
    float,
    BeforeValidator(parse_number),
    PlainSerializer(format_number, return_type=str),
    WithJsonSchema({"type": "string", "pattern": NUMBER_PATTERN, "maxLength": 18}),
]
"""A plain quantity inside, ``"1.10"`` or ``"1%"`` outside."""

Instant = Annotated[
    float,
    BeforeValidator(parse_instant),
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""POSIX seconds inside, RFC 3339 outside."""
