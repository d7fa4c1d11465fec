"""Two answers compared: JSON by structure, numbers with a tolerance. Pure."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from canary_rollout.model.plain import parse_json

MOST: Final = 50
"""Differences kept of one pair of answers."""
LARGEST_UNORDERED: Final = 2000
"""Elements of a list compared in any order (each with each); a longer one is compared in order."""
SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version answered.

    Attributes:
        status: HTTP status; 0 when there was no answer.
        body: its body, decompressed; ``None`` when it was too large to keep.
        content_type: media type without parameters, in lower case.
        location: where a redirect leads, without the version's own address.
        seconds: from sending to the last byte.
        error: why there was no answer; empty when there was one.
    """

    status: int
    body: bytes | None = b""
    content_type: str = ""
    location: str = ""
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which two answers differ.

    Attributes:
        path: ``status``, ``content-type``, ``location``, ``body``, or a place in the JSON such as ``$.items[3].price``.
        kind: ``value``, ``number``, ``type``, ``missing`` (on the canary), ``added`` (by the canary), ``length``,
            ``no answer``.
        stable: stable's value, shortened.
        canary: the canary's value, shortened.
        relative: for numbers, the difference as a share of the larger one, 0..2; else ``None``.
    """

    path: str
    kind: str
    stable: str
    canary: str
    relative: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as the same.

    Attributes:
        tolerance: two numbers whose difference is at most this share of the larger one are the same.
        ignore: patterns of places that are not compared, as in ``$.meta.time`` or ``items[*].id``.
        unordered: patterns of lists whose order does not matter.
    """

    tolerance: float = 0.005
    ignore: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()


@dataclass(slots=True)
class Comparison:
    """What two answers differ in.

    Attributes:
        differences: those that count, at most :data:`MOST`.
        numbers: relative difference of every pair of numbers that was compared, within tolerance or not.
        places: general places (indexes as ``*``) of all that differs, within tolerance or not: what noise is told by.
    """

    differences: list[Difference] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    places: set[str] = field(default_factory=set)


def compare(stable: Answer, canary: Answer, rules: Rules, noise: frozenset[str] = frozenset()) -> Comparison:
    """Compare two answers to the same request; ``noise`` are general places in which stable differs from itself."""
    found = Comparison()
    walk = _Walk(rules, noise, found)
    if canary.error:
        found.differences.append(Difference("status", "no answer", str(stable.status), canary.error))
        return found
    for path, ours, theirs in (
        ("status", stable.status, canary.status),
        ("content-type", stable.content_type, canary.content_type),
        ("location", stable.location, canary.location),
    ):
        if ours != theirs:
            walk.differ(path, "value", ours, theirs)
    if stable.body is None or canary.body is None:
        if stable.body is not canary.body:
            walk.differ("body", "length", _size(stable.body), _size(canary.body))
        return found
    if stable.body != canary.body:
        ours, theirs = _json(stable), _json(canary)
        if ours is not _NOT_JSON and theirs is not _NOT_JSON:
            walk.values("$", ours, theirs)
        else:
            walk.differ("body", "value", stable.body, canary.body)
    elif (same := _json(stable)) is not _NOT_JSON:
        found.numbers += [0.0] * _numbers_in(same)
    return found


def general(path: str) -> str:
    """A place with its list indexes as ``*``."""
    return re.sub(r"\[\d+\]", "[*]", path)


class _NotJson:
    pass


_NOT_JSON: Final = _NotJson()


def _json(answer: Answer) -> Any:
    """The body as JSON; where the media type is another one, or it does not parse, it is compared byte by byte."""
    if answer.content_type and not answer.content_type.endswith(("json", "text/plain")):
        return _NOT_JSON
    try:
        return parse_json(answer.body or b"")
    except ValueError:
        return _NOT_JSON


def _size(body: bytes | None) -> str:
    return "too large to compare" if body is None else f"{len(body)} bytes"


class _Walk:
    """Walks two JSON values side by side."""

    def __init__(self, rules: Rules, noise: frozenset[str], found: Comparison) -> None:
        self._tolerance = rules.tolerance
        self._ignore = [_pattern(text) for text in rules.ignore]
        self._unordered = [_pattern(text) for text in rules.unordered]
        self._noise = noise
        self._found = found

    def differ(self, path: str, kind: str, stable: Any, canary: Any, relative: float | None = None) -> None:
        """Note a difference, unless it is to be ignored."""
        if _matches(self._ignore, path):
            return
        self._found.places.add(general(path))
        if general(path) not in self._noise and len(self._found.differences) < MOST:
            self._found.differences.append(Difference(path, kind, _shown(stable), _shown(canary), relative))

    def values(self, path: str, stable: Any, canary: Any) -> None:
        """Compare two values at one place."""
        if _matches(self._ignore, path) or general(path) in self._noise:
            return
        if _is_number(stable) and _is_number(canary):
            self._numbers(path, stable, canary)
        elif isinstance(stable, dict) and isinstance(canary, dict):
            self._mappings(path, stable, canary)
        elif isinstance(stable, list) and isinstance(canary, list):
            self._lists(path, stable, canary)
        elif type(stable) is not type(canary):
            self.differ(path, "type", stable, canary)
        elif stable != canary:
            self.differ(path, "value", stable, canary)

    def _numbers(self, path: str, stable: float, canary: float) -> None:
        relative = relative_difference(stable, canary)
        if general(path) not in self._noise:
            self._found.numbers.append(relative)
        if relative > self._tolerance:
            self.differ(path, "number", stable, canary, relative)
        elif relative > 0:
            self._found.places.add(general(path))

    def _mappings(self, path: str, stable: Mapping[str, Any], canary: Mapping[str, Any]) -> None:
        for key in stable:
            here = f"{path}.{key}"
            if key in canary:
                self.values(here, stable[key], canary[key])
            else:
                self.differ(here, "missing", stable[key], "")
        for key in canary:
            if key not in stable:
                self.differ(f"{path}.{key}", "added", "", canary[key])

    def _lists(self, path: str, stable: Sequence[Any], canary: Sequence[Any]) -> None:
        if len(stable) != len(canary):
            self.differ(path, "length", f"{len(stable)} elements", f"{len(canary)} elements")
        elif _matches(self._unordered, path) and len(stable) <= LARGEST_UNORDERED:
            self._any_order(path, stable, canary)
        else:
            for index, (ours, theirs) in enumerate(zip(stable, canary, strict=True)):
                self.values(f"{path}[{index}]", ours, theirs)

    def _any_order(self, path: str, stable: Sequence[Any], canary: Sequence[Any]) -> None:
        """Pair every element with the first equal one that is left; only what finds no partner is compared in order."""
        left = list(canary)
        alone = []
        for index, ours in enumerate(stable):
            place = f"{path}[{index}]"
            partner = next((at for at, theirs in enumerate(left) if self._same(place, ours, theirs)), None)
            if partner is None:
                alone.append((place, ours))
            else:
                self.values(place, ours, left.pop(partner))
        for (place, ours), theirs in zip(alone, left, strict=True):
            self.values(place, ours, theirs)

    def _same(self, path: str, stable: Any, canary: Any) -> bool:
        trial = Comparison()
        rules = Rules(self._tolerance)
        walk = _Walk(rules, self._noise, trial)
        walk._ignore, walk._unordered = self._ignore, self._unordered
        walk.values(path, stable, canary)
        return not trial.differences


def relative_difference(stable: float, canary: float) -> float:
    """``|a - b| / max(|a|, |b|)``, 0..2; 2 where it cannot be told (infinities, NaN)."""
    if stable == canary:
        return 0.0
    try:
        ours, theirs = float(stable), float(canary)
    except OverflowError:
        return 2.0
    if math.isnan(ours) and math.isnan(theirs):
        return 0.0
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return 2.0
    scale = max(abs(ours), abs(theirs))
    # Each by itself: the difference of two huge numbers of different sign is infinite, half of the smallest number is 0.
    return abs(ours / scale - theirs / scale) if scale else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_numbers_in(item) for item in value.values())
    if isinstance(value, list):
        return sum(_numbers_in(item) for item in value)
    return int(_is_number(value))


def _shown(value: Any) -> str:
    """A value for people: shortened, without control characters."""
    if isinstance(value, bytes):
        text = value[: 2 * SHOWN].decode("utf-8", "replace")
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of places: ``*`` is any key, ``[*]`` any index, ``**`` anything; ``$.`` in front may be left out."""
    text = text if text.startswith("$") or text in _OUTSIDE else f"$.{text}"
    parts = re.split(r"(\*\*|\[\*\]|\*)", text)
    words = {"**": r".*", "[*]": r"\[\d+\]", "*": r"[^.\[\]]+"}
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))


_OUTSIDE: Final = ("status", "content-type", "location", "body")


def _matches(patterns: Iterable[re.Pattern[str]], path: str) -> bool:
    return any(pattern.fullmatch(path) for pattern in patterns)


BUCKETS: Final = (0.0, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, math.inf)
"""Upper ends of the histogram of relative differences."""


def histogram(numbers: Iterable[float]) -> list[tuple[float, int]]:
    """Upper end and count of each bucket of :data:`BUCKETS`."""
    counts = [0] * len(BUCKETS)
    for number in numbers:
        counts[next(place for place, end in enumerate(BUCKETS) if number <= end)] += 1
    return list(zip(BUCKETS, counts, strict=True))


def worst_first(pairs: Iterable[tuple[str, Comparison]]) -> Iterator[tuple[str, Difference]]:
    """Every difference with its request: what is no number first, then the largest."""
    every = [(request, difference) for request, comparison in pairs for difference in comparison.differences]
    yield from sorted(every, key=lambda item: -(3.0 if item[1].relative is None else item[1].relative))
