"""``presets``: what can be asked, and the very query that is sent for it."""

import json

import pytest
import yaml

from canary_rollout.metrics.plan import Plan
from canary_rollout.metrics.presets import catalogue
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.standard_rules import STANDARD_RULES

OWN = """\
name: tills
source: false
measures:
  open-tills: {gauge: {series: tills_open, across: sum}, description: Tills that are open.}
"""


def test_every_preset_of_the_catalogue_is_listed_within_eighty_columns(world):
    result = world.run("presets")
    assert result.exit_code == 0
    assert {entry.name for entry in catalogue()} <= set(result.stdout.split())
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert world.targets == []


def test_every_preset_has_a_query_that_names_its_series(world):
    data = json.loads(world.run("presets", "-o", "json").stdout)
    assert len(data) == len(catalogue())
    for entry in data:
        assert not entry["promql"].startswith("#"), entry
        assert any(series in entry["promql"] for series in entry["series"]), entry


def test_the_query_shown_for_a_manifest_is_the_one_the_operator_sends(world, tmp_path, make):
    world.put(make["rollout"](metrics={"prometheus": "http://127.0.0.1:9", "source": "agent"}))
    raw = world.rollout()
    (tmp_path / "rollout.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    shown = world.run("presets", "error-rate", "--source", "agent", "-f", str(tmp_path / "rollout.yaml")).stdout
    spec = CanaryRolloutSpec.model_validate(raw["spec"])
    plan = Plan()
    plan.add(MetricRequest.of("shop", "checkout", spec, None, frozenset(), frozenset()))
    assert shown.splitlines()[-1].strip() in plan.texts()


def test_the_window_is_the_one_that_is_asked_for(world):
    assert "[90s]" in (text := world.run("presets", "latency-p99", "--source", "app", "--window", "90s").stdout) or (
        "[1m30s]" in text
    )


def test_presets_of_ones_own_are_listed_too(world, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN.replace("source: false\n", ""), encoding="utf-8")
    result = world.run("presets", "open-tills", "--presets", str(tmp_path / "own.yaml"))
    assert result.exit_code == 0, result.output
    assert "open-tills of tills: Tills that are open." in result.stdout
    assert "sum by (namespace, cr_arm)" in result.stdout


def test_standard_rules_ask_for_presets_that_are_there():
    names = {entry.name for entry in catalogue()} | {"traffic-share"}
    missing = [rule["name"] for rule in STANDARD_RULES if "preset" in rule and rule["preset"] not in names]
    assert missing == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eror-rate"], "did you mean error-rate"),
        (["--source", "istoi"], "did you mean istio"),
        (["--source", "zzz"], "there is no source zzz: there are"),
        (["--presets", "missing.yaml"], "missing.yaml cannot be read"),
        (["--window", "5"], "duration"),
    ],
)
def test_a_name_that_is_none_comes_with_those_that_are_close(world, words, said):
    result = world.run("presets", *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
