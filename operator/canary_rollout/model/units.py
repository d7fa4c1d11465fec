"""Weights, percents, durations and instants: what people write, and the numbers inside.

Outside: quoted strings (``"0.5%"``, ``"1h30m"``, ``"1.10"``, RFC 3339). Inside: integer basis
points (0..10000), seconds as float, plain floats, POSIX seconds. No floats cross the API, because
YAML, JSON and Go disagree about them.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.model.cel import KEY, Rule, literal, quoted

FULL: Final = 10_000
"""100 % in basis points."""

WEIGHT_PATTERN: Final = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)%$"
DURATION_PATTERN: Final = r"^([0-9]{1,5}d)?([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?([0-9]{1,7}ms)?$"
"""Units in falling order, each at most once; bounded so that CEL's 64-bit nanoseconds hold the sum."""
NUMBER_PATTERN: Final = r"^[0-9]{1,9}(\.[0-9]{1,6})?%?$"
_DURATION_WANTED: Final = (
    'a duration: write whole numbers with the units d, h, m, s and ms, largest first, in quotes, as in "90s" or "1h30m"'
)
_NUMBER_WANTED: Final = 'a number: write digits, at most six decimals and perhaps "%", in quotes, as in "1.10" or "1%"'
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class UnitError(CanaryRolloutError, ValueError):
    """A weight, duration or number that cannot be read; the message names both readings where two are possible."""


def parse_weight(value: object) -> int:
    """Basis points of a weight as people write it: ``"0.5%"`` -> 50.

    An ``int`` that is already in basis points passes only through :func:`weight_from_basis_points`;
    here a bare number is refused, since 25 could mean 25 % or 25 basis points.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= FULL:
        readings = [f'"{value}%"'] if value <= 100 else []
        readings.append(f'"{format_weight(value)}"')
        raise UnitError(
            f"weight {value} could mean {value} % or {value} basis points: write {' or '.join(readings)}, in quotes"
        )
    if not isinstance(value, str):
        raise UnitError(f'weight {value!r} is no string: write a percentage in quotes, as in "0.5%"')
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", value):
        raise UnitError(f'weight "{value}" has no unit: write "{value}%"')
    if not re.fullmatch(WEIGHT_PATTERN.strip("^$"), value):
        raise UnitError(
            f'weight {value[:24]!r} is not a percentage: write "0%" to "100%" with at most two decimals, as in "0.5%"'
        )
    return int(Decimal(value[:-1]) * 100)


def format_weight(basis_points: int) -> str:
    """``50`` -> ``"0.5%"``; the shortest form that :func:`parse_weight` reads back exactly."""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + "%" if rest else f"{whole}%"


def parse_duration(value: object) -> float:
    """Seconds of a duration: ``"1h30m"`` -> 5400.0."""
    if not isinstance(value, str) or not value or not re.fullmatch(DURATION_PATTERN.strip("^$"), value):
        raise UnitError(f"duration {str(value)[:24]!r} is not {_DURATION_WANTED}")
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
        raise UnitError(f"number {str(value)[:24]!r} is not {_NUMBER_WANTED}")
    return float(Decimal(value[:-1]) / 100) if value.endswith("%") else float(value)


def format_number(value: float) -> str:
    """The shortest decimal string with at most six places that reads back as the same quantity."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


_YEAR_9999: Final = 253_370_764_800.0


def parse_instant(value: object) -> float:
    """POSIX seconds of an RFC 3339 timestamp in UTC; POSIX seconds themselves pass."""
    if isinstance(value, float):
        return _within(value)  # already inside units
    if not isinstance(value, str):
        raise UnitError(f"timestamp {value!r} is not a string; write RFC 3339, as in 2026-11-21T10:00:00Z")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise UnitError(f'timestamp "{value}" does not parse; write RFC 3339, as in 2026-11-21T10:00:00Z') from error
    return _within((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def _within(posix: float) -> float:
    # What JSON can say (1e400, NaN) and no calendar can must not be found out where it is written down again.
    if not 0 <= posix < _YEAR_9999:
        raise UnitError(f"timestamp {posix:g} lies outside 1970 to 9998; write RFC 3339, as in 2026-11-21T10:00:00Z")
    return posix


def format_instant(posix: float) -> str:
    """RFC 3339 in UTC with milliseconds, so that a restart resumes on the same tick."""
    return datetime.fromtimestamp(round(posix, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_schema(pattern: str, longest: int, wanted: str) -> dict[str, object]:
    rule = Rule(
        f"self.matches({literal(pattern)})",
        f"this is not {wanted}",
        f"{quoted('self')} + {literal(' is not ' + wanted)}",
    )
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern, KEY: [rule.to_dict()]}


_WEIGHT_RULES: Final = (
    # A bare number passes the schema so that this sentence can be said, instead of "must be of type string".
    Rule(
        "type(self) == string",
        "a bare number has two readings, per cent and basis points (weight: 25 could mean 25 % or 0.25 %): write the one "
        'you mean in quotes, as in "25%" or "0.25%"',
    ),
    Rule(
        "type(self) != string || !self.matches('^[0-9.]+$')",
        'a weight has a unit: write a percentage, as in "0.5%"',
        "'weight \"' + self + '\" has no unit: write \"' + self + '%\"'",
    ),
    Rule(
        f"type(self) != string || self.matches('^[0-9.]+$') || self.matches({literal(WEIGHT_PATTERN)})",
        'this is not a percentage: write "0%" to "100%" with at most two decimals, as in "0.5%"',
        '\'weight "\' + self + \'" is not a percentage: write "0%" to "100%" with at most two decimals, as in "0.5%"\'',
    ),
)


def format_moment(posix: float) -> str:
    """RFC 3339 in UTC to the second, for sentences."""
    return datetime.fromtimestamp(round(posix), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Weight = Annotated[
    int,
    BeforeValidator(parse_weight),
    PlainSerializer(format_weight, return_type=str),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": WEIGHT_PATTERN,
            "maxLength": 7,
            KEY: [rule.to_dict() for rule in _WEIGHT_RULES],
        }
    ),
]
"""Basis points inside, ``"0.5%"`` outside."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_text_schema(DURATION_PATTERN, 24, _DURATION_WANTED)),
]
"""Seconds inside, ``"1h30m"`` outside; ``0s`` is allowed."""


def _at_least_one_second(value: float) -> float:
    if value < 1.0:
        raise UnitError(f'{format_duration(value)} is too short: write "1s" or more')
    return value


_ONE_SECOND_SCHEMA: Final = _text_schema(DURATION_PATTERN, 24, _DURATION_WANTED)
_ONE_SECOND_RULE: Final = Rule(
    "!self.matches('^(0+d)?(0+h)?(0+m)?(0+s)?(0*[0-9]{1,3}ms)?$')",
    'this is too short: write "1s" or more',
    "self + ' is too short: write \"1s\" or more'",
)

SecondOrMore = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(_at_least_one_second),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({**_ONE_SECOND_SCHEMA, KEY: [*_ONE_SECOND_SCHEMA[KEY], _ONE_SECOND_RULE.to_dict()]}),
]
"""Like :data:`Duration`, one second or more."""

Number = Annotated[
    float,
    BeforeValidator(parse_number),
    PlainSerializer(format_number, return_type=str),
    WithJsonSchema(_text_schema(NUMBER_PATTERN, 18, _NUMBER_WANTED)),
]
"""A plain quantity inside, ``"1.10"`` or ``"1%"`` outside."""


def duration_expression(value: str) -> str:
    """CEL expression: milliseconds of a string that matches :data:`DURATION_PATTERN` (CEL itself knows no days).

    ``split`` and ``int`` are what the API server can reckon a bounded cost for; joining strings is not.
    """
    days = f"int({value}.split('d')[0]) * 86400000"
    rest = f"({value}.endsWith('d') ? 0 : duration({value}.split('d')[1]).getMilliseconds())"
    return f"({value}.contains('d') ? {days} + {rest} : duration({value}).getMilliseconds())"


Instant = Annotated[
    float,
    BeforeValidator(parse_instant),
    PlainSerializer(format_instant, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""POSIX seconds inside, RFC 3339 outside."""
