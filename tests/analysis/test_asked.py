"""What a rule asks is worked out once for all rollouts that ask it alike."""

from metric_requests import make_spec

from canary_rollout.analysis.asked import asked_by
from canary_rollout.model.halt_rules import default_halt_rules


def test_a_standard_rule_is_worked_out_once_for_all_rollouts_with_the_same_window():
    rollouts = [make_spec(f"http://prometheus-{number}:9090", window="1m", interval="10s") for number in range(3)]
    for rule in default_halt_rules():
        first, *others = [asked_by(rule, spec.metrics) for spec in rollouts]
        assert all(other is first for other in others)


def test_another_window_or_source_is_asked_otherwise():
    rule = default_halt_rules()[0]
    minute, hour = (make_spec(window=window).metrics for window in ("1m", "1h"))
    istio = make_spec(window="1m", source="istio").metrics
    assert [asked_by(rule, metrics).window for metrics in (minute, hour)] == [60.0, 3600.0]
    assert asked_by(rule, istio).fingerprint != asked_by(rule, minute).fingerprint
