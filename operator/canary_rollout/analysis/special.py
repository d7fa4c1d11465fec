"""Rules whose numbers are not one series against one bound: alerts, the share received, and the question put to the comparison."""

from canary_rollout.analysis.findings import OUTAGES, Finding, nothing, outage
from canary_rollout.analysis.readings import Pair, ReadingKind
from canary_rollout.analysis.sequential import State, Test, TestVerdict
from canary_rollout.analysis.verdict import Lack, Outcome
from canary_rollout.analysis.wording import quantity
from canary_rollout.model.presets import TRAFFIC_SHARE
from canary_rollout.model.spec import Action, AlertSelector, BaselineFrom, Gate, HaltRule, Stage
from canary_rollout.model.units import FULL, format_number, format_weight


def asks_comparison(measure: HaltRule | Gate) -> bool:
    """Return whether a rule is about "N times stable's errors": a question for the sequential test, not for a raw quotient."""
    return (
        isinstance(measure, HaltRule)
        and measure.preset == "error-rate"
        and measure.above_ratio is not None
        and measure.baseline_from is BaselineFrom.STABLE
    )


def asks_share(measure: HaltRule | Gate) -> bool:
    """Return whether a rule is about the share of the requests that the canary received."""
    return measure.preset == TRAFFIC_SHARE


def find_alert(selector: AlertSelector, pair: Pair, *, known: bool, muted: bool) -> Finding:
    """Alerts that fire now and did not when the rollout began.

    Args:
        selector: which alerts.
        pair: the canary's reading is how many fire, stable's how many of them did when the rollout began.
        known: whether those of then do not count.
        muted: whether it fired when somebody resumed; then it counts again once it has stopped.
    """
    if pair.canary.kind in OUTAGES:
        return outage(pair.canary)
    firing = pair.canary.value or 0.0  # an answer without series: no such alert
    if known and pair.stable.kind is ReadingKind.UNAVAILABLE and firing:
        return nothing(Lack.NO_DATA, f"whether it fired before the rollout began is unknown: {pair.stable.message}")
    old = min(firing, pair.stable.value or 0.0) if known else 0.0
    labels = ", ".join(f"{name}={value}" for name, value in sorted(selector.labels.items()))
    before = f", {old:.0f} of them since before the rollout began" if old else ""
    fire = "1 alert with {} fires" if firing == 1 else f"{firing:.0f} alerts with {{}} fire"
    text = (fire if firing else "no alert with {} fires").format(labels) + before
    if muted and firing > old:
        return Finding(None, Lack.NOT_APPLICABLE, f"{text}; it already did at resume", firing, old or None, None, 0.0)
    if firing and firing <= old:
        return Finding(None, Lack.NOT_APPLICABLE, text, firing, old, None, 0.0)
    return Finding(firing > old, None, text, firing, old or None, None, 0.0)


def find_share(rule: HaltRule | Gate, limit: float, pair: Pair, stage: Stage | None, *, countable: bool) -> Finding:
    """How far the share of the requests that the canary received is from its weight.

    Args:
        rule: the rule.
        limit: largest distance, as a share of the weight.
        pair: requests of both versions in the window.
        stage: the stage; its weight is what should have been received.
        countable: whether requests are what the weight distributes (no tenants, no cohort that is not told apart).
    """
    weight = stage.weight if stage is not None else 0
    if finding := _no_share(rule, pair, weight, countable=countable):
        return finding
    stable, received = pair.stable.value or 0.0, pair.canary.value or 0.0
    total, wanted = stable + received, weight / FULL
    away = abs(received / total / wanted - 1)
    breached = away > limit
    text = (
        f"the canary received {received / total:.2%} of {total:.0f} requests at a weight of {format_weight(weight)}, "
        f"{'more' if breached else 'not more'} than {quantity(rule, limit)} away from it"
    )
    return Finding(breached, None, text, away, None, received, limit)


def _no_share(rule: HaltRule | Gate, pair: Pair, weight: int, *, countable: bool) -> Finding | None:
    """Why nothing can be said about the share received."""
    stable, canary = pair.stable.value, pair.canary.value
    enough = ((stable or 0.0) + (canary or 0.0)) * weight / FULL >= rule.min_requests
    lost = next((reading for reading in pair if reading.kind in OUTAGES), None)
    not_applicable = (
        (not 0 < weight < FULL, "all requests go to one version in this stage"),
        (not countable, "tenants and cohorts are not distributed like requests in this stage"),
        (lost is None and stable is None, "this app has never had a request count of stable"),
    )
    for speaks, text in not_applicable:
        if speaks:
            return nothing(Lack.NOT_APPLICABLE, text)
    if lost is not None:
        return outage(lost)
    if not enough:
        wanted = f"{rule.min_requests} requests at {format_weight(weight)}"
        text = f"there were too few requests to expect {wanted}"
        return Finding(None, Lack.NOT_ENOUGH, text, requests=canary, few=True)
    if canary is None:
        return nothing(Lack.NO_DATA, f"nobody counts requests of the canary, though stable had {stable:.0f}")
    return None


def find_in_comparison(
    rule: HaltRule, ratio: float, tests: tuple[TestVerdict, ...] | None, wanted: Action = Action.ROLLBACK
) -> Finding:
    """Whether the canary fails ``ratio`` times as often as stable: the error test must have said so, and the rates too.

    Args:
        rule: the rule.
        ratio: its bound.
        tests: the comparison's verdicts; ``None``: it is off.
        wanted: what the error test does where nothing speaks against it. Where it pauses itself instead (tenants stay, and
            nobody counted their past), its evidence must not roll back by way of a rule.
    """
    test = next((test for test in tests or () if test.rule == Test.ERRORS), None)
    if tests is None:
        return nothing(Lack.NOT_APPLICABLE, "asked of the sequential comparison, which is off (analysis.enabled)")
    if test is None or test.state in {State.OFF, State.NO_CONTROL, State.SHARED}:
        return nothing(Lack.NOT_APPLICABLE, "asked of the sequential comparison, which has nothing to compare here")
    if test.state in {State.NO_DATA, State.NO_TRAFFIC}:
        return nothing(Lack.NO_DATA, test.message, test.requests)
    if (test.requests or 0.0) < rule.min_requests:
        text = f"the canary had {test.requests or 0:.0f} of the {rule.min_requests} requests needed in this stage"
        return Finding(None, Lack.NOT_ENOUGH, text, requests=test.requests, few=True)
    if test.outcome is Outcome.FAIL and wanted is rule.action is Action.ROLLBACK is not test.action:
        return nothing(Lack.NOT_APPLICABLE, f"{test.rule} pauses on this and does not roll back", test.requests)
    canary, stable = test.canary or 0.0, test.stable or 0.0
    times = f"{format_number(ratio)} times stable's {quantity(rule, stable)}"
    text = f"{quantity(rule, canary)} of {test.requests or 0:.0f} requests failed"
    above = canary > ratio * stable
    breached = above and test.outcome is Outcome.FAIL
    how = f"above {times}" if above else f"not above {times}"
    chance = "" if not above else ", and not by chance" if breached else ", perhaps by chance"
    return Finding(breached, None, f"{text}, {how}{chance}", canary, stable, test.requests, ratio * stable)
