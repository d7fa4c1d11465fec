"""What the rules remember between two evaluations: bounded, persisted, the same after a restart.

Instants and durations are kept to the millisecond, which is what status can hold, so that evidence that was
written and read back leads to the same verdicts as evidence that never left memory.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

from canary_rollout.analysis.errors import EvidenceError
from canary_rollout.analysis.readings import MeasureKey
from canary_rollout.model.metrics import Metrics
from canary_rollout.model.units import UnitError, format_instant, parse_instant

LONGEST_GAP: Final = 3.0
"""In intervals. Two samples further apart than this say nothing about the time between them."""

LARGEST_SEEN: Final = 128
"""Measures remembered as seen, per version. Above it, those that the spec no longer names are forgotten."""

LARGEST_RULES: Final = 96
"""Rules, and gates, accepted from status; a rollout has at most 64 rules and 8 more in a stage."""


OF_ALERT: Final = "!"
"""Begins the fingerprint of a rule about alerts."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule's breach that has not been broken by a clean sample.

    Attributes:
        of: fingerprint of what the rule asks; a rule that was edited starts afresh.
        since: POSIX seconds of the first breaching sample.
        seconds: time covered by breaching samples so far. Time without samples is not in it.
        judged_at: POSIX seconds of the latest breaching sample.
    """

    of: str
    since: float
    seconds: float
    judged_at: float

    def written(self) -> str:
        """The JSON form: fingerprint and milliseconds in one short text, since a status can hold many."""
        return f"{self.of} {self.since * 1000:.0f} {self.seconds * 1000:.0f} {self.judged_at * 1000:.0f}"

    def extended(self, at: float, longest_gap: float) -> "Breach":
        """Return this breach after one more breaching sample.

        The time since the latest breaching sample counts if it is at most ``longest_gap`` seconds; otherwise nobody
        looked in between, and only what was looked at counts. The same sample given twice counts once.
        """
        step = at - self.judged_at
        if step < -longest_gap:  # the clock was set back; measure from here
            return replace(self, since=min(self.since, at), judged_at=at)
        counted = step if 0 < step <= longest_gap else 0.0
        return replace(self, seconds=round(self.seconds + counted, 3), judged_at=max(at, self.judged_at))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Persisted state of a rollout's rules, for one revision.

    Attributes:
        breaches: by rule name (:func:`short`), the rules that are breached.
        seen_canary: identities (:func:`identity`) of the measures the canary has had a value of.
        seen_stable: the same for stable.
        fresh_after: POSIX seconds; windows that reach back before it are not judged. ``None``: all are.
        evaluated_through: evaluation time of the latest samples in here.
        held: by gate, how long those with a ``for`` have held without a break (the same arithmetic as a breach).
        muted: rules about alerts that fired when somebody resumed; each counts again once it has stopped.
        comparison: checkpoint of the sequential comparison, as it wrote it; JSON.
    """

    breaches: Mapping[str, Breach] = field(default_factory=dict)
    seen_canary: frozenset[str] = frozenset()
    seen_stable: frozenset[str] = frozenset()
    fresh_after: float | None = None
    evaluated_through: float | None = None
    held: Mapping[str, Breach] = field(default_factory=dict)
    muted: frozenset[str] = frozenset()
    comparison: Mapping[str, Any] = field(default_factory=dict)

    def restarted(self, at: float) -> "Evidence":
        """Return evidence that starts afresh: no breach, and no verdict from a window that reaches back before ``at``.

        For retry, reset and resume, and for a new revision where the series do not tell revisions apart (the agent's).
        What the app has had stays known, so that data that was lost does not look like data that never was.
        """
        return replace(
            self,
            breaches={},
            held={},
            muted=self.muted.union(name for name, breach in self.breaches.items() if breach.of.startswith(OF_ALERT)),
            comparison={},
            fresh_after=round(at, 3),
        )

    def of_new_revision(self, at: float, *, apart: bool) -> "Evidence":
        """Return evidence for a new canary revision.

        What stable has had stays known; the new canary has had nothing yet, so that its first quiet minutes are too few
        requests and not lost data.

        Args:
            at: POSIX seconds.
            apart: whether the series tell the canary's revisions apart (``arms.by: pod``, or the agent's with the
                revision named); then no window holds an older one's requests, and verdicts need not wait for a full one.
        """
        return Evidence(
            seen_stable=self.seen_stable,
            fresh_after=None if apart else round(at, 3),
            evaluated_through=self.evaluated_through,
        )

    def afresh(self, metrics: Metrics, *, new_revision: bool, at: float) -> "Evidence":
        """Return evidence for a new beginning at a time (POSIX seconds): of the rules alone, or of another revision.

        Series by pod, and the agent's, begin with their revision; others still hold the one before.
        """
        if not new_revision:
            return self.restarted(at)
        return self.of_new_revision(at, apart=metrics.source == "agent" or metrics.arms.by == "pod")

    def saw(self, canary: Iterable[str], stable: Iterable[str], named: frozenset[str]) -> "Evidence":
        """Return this evidence with measures that had a value; ``named`` are those the spec still asks for."""
        return replace(
            self,
            seen_canary=_bounded(self.seen_canary.union(canary), named),
            seen_stable=_bounded(self.seen_stable.union(stable), named),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form for status: strings and lists only, empty parts left out."""
        raw: dict[str, Any] = {}
        for part, breaches in (("breaches", self.breaches), ("held", self.held)):
            if breaches:
                raw[part] = {name: breach.written() for name, breach in sorted(breaches.items())}
        if self.muted:
            raw["muted"] = sorted(self.muted)
        if self.comparison:
            raw["comparison"] = dict(self.comparison)
        both = self.seen_canary & self.seen_stable
        for part, seen in (("seen", both), ("seenCanary", self.seen_canary), ("seenStable", self.seen_stable)):
            if names := sorted(seen if seen is both else seen - both):
                raw[part] = names
        if self.fresh_after is not None:
            raw["freshAfter"] = format_instant(self.fresh_after)
        if self.evaluated_through is not None:
            raw["evaluatedThrough"] = format_instant(self.evaluated_through)
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Evidence":
        """Return the evidence that :meth:`to_dict` wrote; ``{}`` gives empty evidence.

        Raises:
            EvidenceError: somebody else wrote it; the caller should say so and start with ``restarted``.
        """
        try:
            breaches, held = (
                {str(name): _breach(part) for name, part in _bounded_items(raw.get(kind, {}))}
                for kind in ("breaches", "held")
            )
            seen = _strings(raw.get("seen", []))
            return cls(
                breaches=breaches,
                held=held,
                muted=_strings(raw.get("muted", [])),
                comparison=dict(raw.get("comparison", {})),
                seen_canary=seen | _strings(raw.get("seenCanary", [])),
                seen_stable=seen | _strings(raw.get("seenStable", [])),
                fresh_after=_instant(raw.get("freshAfter")),
                evaluated_through=_instant(raw.get("evaluatedThrough")),
            )
        except (UnitError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvidenceError(
                f"evidence in status does not read: {error}; use retry or reset to begin anew"
            ) from error


@lru_cache(8192)
def identity(key: MeasureKey) -> str:
    """Return a short name for what a measure asks for, whatever its window."""
    return short("@".join(part for part in (key.what, key.baseline, key.source, key.server) if part))


def short(name: str) -> str:
    """Return a name of at most 16 characters that stands for ``name``: status is small, and names can be long."""
    return name if len(name) <= _SHORT and " " not in name else f"{name[:7]}~{crc32(name.encode()):08x}"


_SHORT: Final = 16


def _bounded(seen: frozenset[str], named: frozenset[str]) -> frozenset[str]:
    if len(seen) <= LARGEST_SEEN:
        return seen
    return frozenset(sorted(seen & named)[:LARGEST_SEEN])


def _bounded_items(raw: Any) -> Iterable[tuple[str, Any]]:
    if len(raw) > LARGEST_RULES:
        raise TypeError(f"breaches has {len(raw)} entries, at most {LARGEST_RULES} were ever written")
    items: Iterable[tuple[str, Any]] = raw.items()
    return items


def _breach(raw: str) -> Breach:
    of, *numbers = raw.split(" ")
    since, seconds, judged_at = (int(number) / 1000 for number in numbers)
    return Breach(of=of[:16], since=parse_instant(since), seconds=seconds, judged_at=parse_instant(judged_at))


def _instant(raw: object) -> float | None:
    return None if raw is None else parse_instant(raw)


def _strings(raw: Any) -> frozenset[str]:
    if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
        raise TypeError(f"a list of strings was expected, found {raw!r:.80}")
    return frozenset(sorted(raw)[:LARGEST_SEEN])
