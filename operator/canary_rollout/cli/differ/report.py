"""What all the outcomes say together: verdict, histogram, places, outliers. Pure."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from canary_rollout.cli.differ.compare import Answer, Difference, general, histogram, worst_first
from canary_rollout.cli.differ.run import Outcome

OUTLIERS: Final = 10
PLACES: Final = 20


@dataclass(frozen=True, slots=True)
class Times:
    """How long one version took, seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one ``diff``.

    Attributes:
        verdict: ``pass``, ``fail`` or ``none`` (nothing could be compared).
        message: why, in one sentence.
        asked: requests that were sent.
        compared: those that stable answered.
        different: those whose answers differ.
        allowed: the share that may differ, 0..1.
        canary_silent: those that stable answered and the canary did not (part of ``different``).
        stable_silent: those that stable did not answer; they say nothing.
        histogram: relative differences of all numbers compared: upper end of each bucket and how many.
        places: general place, kind, in how many requests, by frequency.
        outliers: request and difference, the worst first.
        times: of stable and of the canary; ``None`` when nothing was answered.
    """

    verdict: str
    message: str
    asked: int
    compared: int
    different: int
    allowed: float
    canary_silent: int
    stable_silent: int
    histogram: list[tuple[float, int]]
    places: list[tuple[str, str, int]]
    outliers: list[tuple[str, Difference]]
    times: tuple[Times | None, Times | None]

    @property
    def share(self) -> float:
        """The share of the compared requests whose answers differ, 0..1; NaN when none was compared."""
        return self.different / self.compared if self.compared else math.nan

    def to_dict(self) -> dict[str, Any]:
        """For ``-o json``, ``--report`` and other programs."""
        return {
            "verdict": self.verdict,
            "message": self.message,
            "asked": self.asked,
            "compared": self.compared,
            "different": self.different,
            **({"differentShare": self.share} if self.compared else {}),
            "allowedShare": self.allowed,
            "canarySilent": self.canary_silent,
            "stableSilent": self.stable_silent,
            "histogram": [
                {"upTo": "infinity" if math.isinf(end) else end, "count": count} for end, count in self.histogram
            ],
            "places": [{"place": place, "kind": kind, "requests": count} for place, kind, count in self.places],
            "outliers": [_outlier(request, difference) for request, difference in self.outliers],
            "seconds": {
                version: {"p50": times.p50, "p95": times.p95, "p99": times.p99}
                for version, times in zip(("stable", "canary"), self.times, strict=True)
                if times is not None
            },
        }

    def to_metrics(self, namespace: str, name: str, revision: str) -> str:
        """In Prometheus' text format, for a Pushgateway or node_exporter's textfile collector."""
        labels = f'rollout_namespace="{namespace}",rollout="{name}",revision="{revision}"'
        lines = [
            "# HELP canary_diff_requests Requests compared by the last kubectl canary diff.",
            "# TYPE canary_diff_requests gauge",
            f"canary_diff_requests{{{labels}}} {self.compared}",
            "# HELP canary_diff_passed Whether the last kubectl canary diff passed.",
            "# TYPE canary_diff_passed gauge",
            f"canary_diff_passed{{{labels}}} {int(self.verdict == 'pass')}",
        ]
        if self.compared:
            lines += [
                "# HELP canary_diff_different_ratio Share of the requests whose answers differ, 0..1.",
                "# TYPE canary_diff_different_ratio gauge",
                f"canary_diff_different_ratio{{{labels}}} {self.share:.9g}",
            ]
        return "\n".join([*lines, ""])


def summed_up(outcomes: Sequence[Outcome], allowed: float) -> Report:
    """The report of all outcomes.

    Args:
        outcomes: one per request.
        allowed: the share of the requests whose answers may differ, 0..1.
    """
    pairs = [(str(one.request), one.comparison) for one in outcomes if one.comparison is not None]
    different = sum(bool(comparison.differences) for _, comparison in pairs)
    silent = len(outcomes) - len(pairs)
    verdict, message = _verdict(outcomes, len(pairs), different, allowed)
    return Report(
        verdict=verdict,
        message=message,
        asked=len(outcomes),
        compared=len(pairs),
        different=different,
        allowed=allowed,
        canary_silent=sum(bool(one.canary.error) for one in outcomes if one.comparison is not None),
        stable_silent=silent,
        histogram=histogram(number for _, comparison in pairs for number in comparison.numbers),
        places=_places(pairs_of_differences=[comparison.differences for _, comparison in pairs]),
        outliers=_outliers(worst_first(pairs)),
        times=(_times([one.stable for one in outcomes]), _times([one.canary for one in outcomes])),
    )


def _verdict(outcomes: Sequence[Outcome], compared: int, different: int, allowed: float) -> tuple[str, str]:
    if not compared:
        reasons = Counter(one.stable.error for one in outcomes)
        why = f": {reasons.most_common(1)[0][0]}" if reasons else ": there was nothing to send"
        return "none", f"nothing could be compared, because stable answered none of {len(outcomes)} requests{why}"
    share = different / compared
    words = f"{different} of {compared} answers differ ({share:.2%}), allowed {allowed:.2%}"
    silent = len(outcomes) - compared
    if silent:
        words += f"; {silent} more were not answered by stable and say nothing"
    if compared < len(outcomes) / 2 and share <= allowed:
        return "none", f"{words}, which is most of them: no verdict"
    return ("fail" if share > allowed else "pass"), words


def _places(pairs_of_differences: Sequence[Sequence[Difference]]) -> list[tuple[str, str, int]]:
    counts = Counter(
        place
        for differences in pairs_of_differences
        for place in {(general(difference.path), difference.kind) for difference in differences}
    )
    return [(place, kind, count) for (place, kind), count in counts.most_common(PLACES)]


def _outliers(every: Any) -> list[tuple[str, Difference]]:
    """The worst, at most one per request and general place, so that one bad list does not fill the page."""
    found: dict[tuple[str, str], tuple[str, Difference]] = {}
    for request, difference in every:
        found.setdefault((request, general(difference.path)), (request, difference))
        if len(found) >= OUTLIERS:
            break
    return list(found.values())


def _times(answers: Sequence[Answer]) -> Times | None:
    taken = sorted(answer.seconds for answer in answers if not answer.error)
    if not taken:
        return None
    if len(taken) == 1:
        return Times(taken[0], taken[0], taken[0])
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return Times(cuts[49], cuts[94], cuts[98])


def _outlier(request: str, difference: Difference) -> dict[str, Any]:
    return {
        "request": request,
        "place": difference.path,
        "kind": difference.kind,
        "stable": difference.stable,
        "canary": difference.canary,
        **({} if difference.relative is None else {"relative": difference.relative}),
    }
