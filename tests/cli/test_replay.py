"""``kubectl canary replay``: lines in, verdicts out, by the letter of its format."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from canary_rollout.cli.main import cli
from canary_rollout.cli.replay import replay


def scrapes(rng, until, *, rates, rps, first=0.0, gauge=None, created=None):
    """Cumulative counters of one stable and one canary pod per arm, scraped every 15 s, in order of arrival."""
    totals = {pod: [0, 0] for pod in rps}
    phases = {pod: rng.uniform(0, 15) for pod in rps}
    lines = []
    for number in range(int((until - first) / 15)):
        for pod, phase in sorted(phases.items(), key=lambda item: item[1]):
            ts = first + 15 * number + phase
            served = rng.poisson(rps[pod] * 15)
            totals[pod][0] += served
            totals[pod][1] += rng.binomial(served, rates[pod])
            arm = "canary" if pod.startswith("c") else "stable"
            base = {"ts": round(ts, 3), "arrival": round(ts + 0.2, 3), "arm": arm, "pod": pod}
            if created is not None and pod in created:
                base["created"] = created[pod]
            lines.append({**base, "series": "requests", "value": int(totals[pod][0])})
            if totals[pod][1]:
                lines.append({**base, "series": "errors", "value": int(totals[pod][1])})
    return lines


def service(canary_rate, *, seconds=900, seed=1):
    """A quarter of an hour of stable's history, then a stage of 5 %."""
    rng = np.random.default_rng(seed)
    stable = {f"s{number}": 40.0 for number in range(4)}
    rates = dict.fromkeys(stable, 0.001)
    past = scrapes(rng, 0, rates=rates, rps=stable, first=-900)
    latest = {(line["pod"], line["series"]): line["value"] for line in past}
    now = scrapes(rng, seconds, rates={**rates, "c0": canary_rate}, rps={**stable, "c0": 5.0}, created={"c0": 0.0})
    for line in now:
        line["value"] += latest.get((line["pod"], line["series"]), 0)
    return [*past, {"ts": 0, "weight": 500}, *now]


def run(tmp_path: Path, lines, *options, policy=None):
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    if policy is not None:
        (tmp_path / "policy.yaml").write_text(policy)
        options = (*options, "--policy", str(tmp_path / "policy.yaml"))
    result = CliRunner().invoke(replay, [str(file), *options], standalone_mode=False)
    code = result.return_value if result.exception is None else getattr(result.exception, "code", result.exception)
    return int(code), [json.loads(line) for line in result.stdout.splitlines()], str(result.exception or "")


def test_a_broken_canary_fails_within_a_minute_and_ends_in_one(tmp_path):
    code, out, _ = run(tmp_path, service(0.5), "--tick", "15", "-o", "json")
    fail = next(line for line in out if line.get("verdict") == "fail" and line["rule"] == "error-comparison")
    assert set(fail) == {"ts", "verdict", "rule", "message"}
    assert fail["ts"] <= 60
    assert fail["ts"] % 15 == 0
    assert "false-alarm risk the canary is at least" in fail["message"]
    assert set(out[-1]) == {"gate", "upperErrorRate", "message"}
    assert out[-1]["gate"] == "hold"
    assert code == 1


def test_a_healthy_canary_passes_and_ends_in_nought(tmp_path):
    code, out, _ = run(tmp_path, service(0.001))
    verdicts = [line["verdict"] for line in out if line.get("rule") == "error-comparison"]
    assert verdicts == ["none", "pass"]
    assert out[-1]["gate"] == "promote"
    assert 0 < out[-1]["upperErrorRate"] < 0.01
    assert code == 0


def test_each_line_is_another_verdict_than_the_one_before_of_its_rule(tmp_path):
    _, out, _ = run(tmp_path, service(0.02))
    latest = {}
    for line in out[:-1]:
        assert latest.get(line["rule"]) != line["verdict"]
        latest[line["rule"]] = line["verdict"]


def test_ticks_count_from_the_first_weight(tmp_path):
    lines = service(0.5)
    for line in lines:
        for name in ("ts", "arrival", "created"):
            if name in line:
                line[name] += 1007.5
    _, out, _ = run(tmp_path, lines, "--tick", "10")
    assert all((line["ts"] - 1007.5) % 10 == 0 for line in out[:-1])


def test_the_last_lines_are_judged_although_no_later_one_says_that_their_tick_is_over(tmp_path):
    _, out, _ = run(tmp_path, service(0.5, seconds=60))
    assert max(line["ts"] for line in out[:-1]) <= 60
    assert any(line["verdict"] == "fail" for line in out[:-1])


def test_an_outage_of_the_scrapes_is_neither_pass_nor_fail(tmp_path):
    lines = [line for line in service(0.001, seconds=1800) if not 600 < line["ts"] < 1200]
    code, out, _ = run(tmp_path, lines)
    verdicts = [(line["ts"], line["verdict"]) for line in out if line.get("rule") == "error-comparison"]
    assert [verdict for _, verdict in verdicts] == ["none", "pass", "none", "pass"]
    assert 640 <= verdicts[2][0] <= 680
    assert 1200 <= verdicts[3][0] <= 1230
    assert code == 0


def test_a_gap_of_years_is_passed_over_at_once(tmp_path):
    lines = service(0.001, seconds=1800)
    for line in lines:
        if line["ts"] > 900:
            for name in ("ts", "arrival"):
                if name in line:
                    line[name] += 1e9
    code, out, _ = run(tmp_path, lines)
    verdicts = [(line["ts"], line["verdict"]) for line in out if line.get("rule") == "error-comparison"]
    assert [verdict for _, verdict in verdicts[-2:]] == ["none", "pass"]
    assert 930 <= verdicts[-2][0] <= 990
    assert verdicts[-1][0] > 1e9
    assert code == 0


def test_nothing_but_history_holds(tmp_path):
    code, out, _ = run(tmp_path, [line for line in service(0.001) if line["ts"] < 0])
    assert out == [out[-1]]
    assert out[-1]["gate"] == "hold"
    assert code == 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{nonsense\n", "not JSON"),
        ("[1, 2]\n", "a JSON object was expected"),
        ('{"ts": "soon", "weight": 5}\n', "ts is 'soon'"),
        ('{"weight": 5}\n', "ts is None"),
        ('{"ts": 1, "weight": 0.5}\n', "weight 0.5"),
        ('{"ts": 1, "weight": 10001}\n', "weight 10001"),
        ('{"ts": 1, "arm": "blue", "pod": "a", "series": "requests", "value": 1}\n', "arm is 'blue'"),
        ('{"ts": 1, "arm": "canary", "series": "requests", "value": 1}\n', "pod is None"),
        ('{"ts": 1, "arm": "canary", "pod": "a", "series": "rps", "value": 1}\n', "series is 'rps'"),
        ('{"ts": 1, "arm": "canary", "pod": "a", "series": "latency_bucket", "value": 1}\n', "le is None"),
        ('{"ts": 1, "arm": "canary", "pod": "a", "series": "requests", "value": "many"}\n', "value is 'many'"),
        ('{"ts": 1e300, "weight": 5}\n', "ts is 1e+300"),
        ('{"ts": NaN, "weight": 5}\n', "ts is nan"),
        (f'{{"ts": 1{"0" * 400}, "weight": 5}}\n', "ts is 1000"),
        ("[" * 100_000 + "\n", "not JSON"),
    ],
)
def test_bad_input_ends_in_two_and_names_the_line(tmp_path, line, problem):
    code, _, said = run(tmp_path, [*service(0.001)[:3], line])
    assert code == 2
    assert said.startswith("line 4: ")
    assert problem in said


def test_a_value_that_is_no_number_in_the_scrape_is_left_out_and_no_bad_input(tmp_path):
    lines = service(0.001)
    spoiled = ['{"ts": 30, "arm": "canary", "pod": "c0", "series": "requests", "value": NaN}\n']
    spoiled += ['{"ts": 31, "arm": "stable", "pod": "s0", "series": "requests", "value": -4}\n']
    spoiled += [f'{{"ts": 31, "arm": "stable", "pod": "s1", "series": "requests", "value": 1{"0" * 400}}}\n']
    place = next(number for number, line in enumerate(lines) if line["ts"] > 31)
    code, _, _ = run(tmp_path, [*lines[:place], *spoiled, *lines[place:]])
    assert code == 0


def test_empty_lines_and_an_empty_file_are_fine(tmp_path):
    code, out, _ = run(tmp_path, ["\n", "  \n"])
    assert code == 0
    assert out[-1]["gate"] == "hold"


def test_the_policy_can_switch_a_test_to_alert_or_loosen_it(tmp_path):
    code, out, _ = run(tmp_path, service(0.5), policy='analysis: {tolerance: "100", falseRollbackRate: "0.1%"}\n')
    first = next(line for line in out if line.get("verdict") == "fail" and line["rule"] == "error-comparison")
    assert "0.1 % false-alarm risk" in first["message"]
    assert code == 1


RULES = """
haltRules:
  - {name: error-rate, preset: error-rate, above: "10%", for: 1m, window: 1m, minRequests: 50, action: Rollback}
  - {name: too-many, preset: request-rate, above: "1000", minRequests: 0, action: Alert}
  - {name: odd, query: "sum(x)", above: "1", minRequests: 0, action: Pause}
"""


def test_halt_rules_of_the_policy_are_judged_over_the_same_counts(tmp_path):
    code, out, _ = run(tmp_path, service(0.5), policy=RULES)
    fail = next(line for line in out if line.get("verdict") == "fail" and line["rule"] == "error-rate")
    assert 75 <= fail["ts"] <= 150
    assert "requests failed in 1m" in fail["message"]
    verdicts = {line["rule"]: line["verdict"] for line in out[:-1]}
    assert verdicts["too-many"] == "pass"
    assert verdicts["odd"] == "none"
    assert code == 1


def test_a_halt_rule_alone_can_end_in_one(tmp_path):
    policy = """
analysis: {enabled: false}
haltRules: [{name: error-rate, preset: error-rate, above: "0.01%", unlessStableToo: false, for: 1m, minRequests: 0}]
"""
    code, out, _ = run(tmp_path, service(0.02), policy=policy)
    assert {line["rule"] for line in out[:-1]} == {"error-rate"}
    assert code == 1


def test_a_halt_rule_that_failed_and_passed_again_still_ends_in_one_and_holds(tmp_path):
    lines = service(0.001, seconds=1500)
    for line in lines:  # one error a second, a fifth of the requests, for five minutes
        if line.get("pod") == "c0" and line["series"] == "errors":
            line["value"] += int(min(max(line["ts"] - 300, 0), 300))
    policy = "analysis: {enabled: false}\nhaltRules: [{name: e, preset: error-rate, above: '2%', window: 1m, for: 1m}]"
    code, out, _ = run(tmp_path, lines, policy=policy)
    verdicts = [line["verdict"] for line in out if line.get("rule") == "e"]
    assert "fail" in verdicts
    assert verdicts[-1] == "pass"
    assert code == 1
    assert out[-1]["gate"] == "hold"
    assert out[-1]["message"].startswith("e: ")


def test_a_rule_that_only_alerts_holds_nothing(tmp_path):
    policy = (
        "analysis: {enabled: false}\n"
        "haltRules: [{name: e, preset: error-rate, above: '2%', window: 1m, for: 1m, action: Alert}]"
    )
    code, out, _ = run(tmp_path, service(0.2), policy=policy)
    assert code == 1
    assert out[-1]["gate"] == "promote"


def test_a_tick_that_is_no_number_ends_in_two(tmp_path):
    assert run(tmp_path, service(0.001), "--tick", "nan")[0] == 2


def test_without_a_policy_no_threshold_is_judged(tmp_path):
    _, out, _ = run(tmp_path, service(0.5))
    rules = {line["rule"] for line in out[:-1]}
    assert all("comparison" in rule or rule == "received-share" for rule in rules)


def buckets(lines, slower):
    """The same scrapes with a histogram: 5 % above 0.25 s, on the canary ``slower`` times as many."""
    for line in lines:
        yield line
        if line.get("series") == "requests":
            share = 0.05 * (slower if line["arm"] == "canary" else 1)
            for le, value in (
                (0.1, 0.5 * line["value"]),
                (0.25, (1 - share) * line["value"]),
                (1.0, line["value"]),
                ("+Inf", line["value"]),
            ):
                yield {**line, "series": "latency_bucket", "le": le, "value": int(value)}


def test_a_slower_canary_fails_the_latency_test_and_a_quantile_rule(tmp_path):
    policy = """
haltRules: [{name: p95, preset: latency-p95, aboveRatio: "1.5", for: 1m, window: 2m, minRequests: 50, action: Pause}]
"""
    code, out, _ = run(tmp_path, list(buckets(service(0.001), 6)), policy=policy)
    failed = {line["rule"] for line in out[:-1] if line["verdict"] == "fail"}
    assert {"latency-comparison", "p95"} <= failed
    assert code == 1


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("analysis: {tolerance: tight}\n", "tolerance"),
        ("stages: []\n", "may have analysis and haltRules, found stages"),
        ("analysis: [\n", "no YAML"),
        ("- 1\n", "found [1]"),
    ],
)
def test_a_policy_that_does_not_read_ends_in_two(tmp_path, policy, problem):
    code, _, said = run(tmp_path, service(0.001)[:5], policy=policy)
    assert code == 2
    assert problem in said


def test_the_command_is_registered_and_reads_standard_input():
    result = CliRunner().invoke(cli, ["replay", "-"], input='{"ts": 0, "weight": 50}\n', standalone_mode=False)
    assert json.loads(result.stdout.splitlines()[-1])["gate"] == "hold"
