"""docs/analysis.md is true: what it shows is what comes out."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from canary_rollout.analysis.sequential import Policy, State, Test
from canary_rollout.cli.replay import replay
from canary_rollout.model.comparison import Analysis

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "analysis.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_samples_on_the_page_give_the_verdicts_on_the_page(tmp_path):
    (tmp_path / "samples.jsonl").write_text(blocks("jsonl")[0], encoding="utf-8")
    command, _, said = blocks("console")[0].partition("\n")
    assert command == "$ kubectl canary replay samples.jsonl --tick 15"
    result = CliRunner().invoke(replay, [str(tmp_path / "samples.jsonl"), "--tick", "15"], standalone_mode=False)
    assert result.stdout == said
    assert result.return_value == 1


def test_the_program_on_the_page_prints_what_the_page_says():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(blocks("python")[0], "docs/analysis.md", "exec"), {})
    assert out.getvalue() == blocks("text")[0]


def test_the_settings_on_the_page_are_accepted():
    for block in blocks("yaml"):
        Analysis.model_validate(yaml.safe_load(block)["analysis"])


@pytest.mark.parametrize("test", list(Test))
def test_every_test_is_on_the_page(test):
    assert f"| `{test.value}` |" in PAGE


@pytest.mark.parametrize("state", [state for state in State if state is not State.OFF])
def test_every_state_is_on_the_page(state):
    assert f"| `{state.value}` |" in PAGE


def test_the_defaults_on_the_page_are_the_defaults():
    policy = Policy()
    defaults = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", PAGE, re.MULTILINE))
    assert defaults["falseRollbackRate"] == f"{policy.false_rollback_rate:.0%}"
    assert defaults["tolerance"] == f"{policy.tolerance:g}"
    assert defaults["floor"] == f"{policy.floor:.1%}"
    assert defaults["minRequests"] == f"{policy.min_requests}"
