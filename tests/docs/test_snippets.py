"""Every snippet in the docs is true: YAML is accepted, commands exist, files that are linked are there."""

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from rollouts import GOOD

from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.halt_rules import default_halt_rules
from canary_rollout.model.rule_sets import HaltRuleSetSpec
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.units import format_duration

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MAKE = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [
        body
        for language, body in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if language in languages
    ]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_canaryrollout_in_the_docs_is_valid(page):
    for block in blocks(page, "yaml"):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") == "CanaryRollout":
                CanaryRolloutSpec.model_validate(document["spec"])
            elif isinstance(document, dict) and document.get("kind") in {"HaltRuleSet", "ClusterHaltRuleSet"}:
                HaltRuleSetSpec.model_validate(document["spec"])


FIELDS = {field.alias for field in CanaryRolloutSpec.model_fields.values()}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_part_of_a_spec_in_the_docs_is_valid(page):
    for block in blocks(page, "yaml"):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.keys() <= FIELDS:
                stages = document.get("stages") or ()
                if stages and stages[-1]["weight"] != "100%":  # the page shows the first ones
                    document["stages"] = [*stages, {"name": "the-rest", "weight": "100%", "hold": "1h"}]
                CanaryRolloutSpec.model_validate({**GOOD["spec"], **document})


def test_the_standard_rules_are_on_their_page_with_their_numbers():
    page = (ROOT / "docs" / "halt-rules.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \| (.*) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    told = {name: (lasting, requests, action) for name, _, lasting, requests, action in rows}
    assert told == {
        rule.name: (
            format_duration(rule.for_) if rule.for_ else "at once",
            str(rule.min_requests) if rule.min_requests and rule.alert is None else "none",
            rule.action.value,
        )
        for rule in default_halt_rules()
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_yaml_block_parses(page):
    for block in blocks(page, "yaml"):
        list(yaml.safe_load_all(block))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_make_target_in_the_docs_exists(page):
    for block in blocks(page, "console", "sh", "bash"):
        for target in re.findall(r"^\$ make ([a-z-]+)", block, re.MULTILINE):
            assert target in MAKE, target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_kubectl_canary_command_in_the_docs_exists(page):
    from canary_rollout.cli.main import cli

    for block in blocks(page, "console", "sh", "bash"):
        for line in re.findall(r"^\$ kubectl canary (.*)$", block, re.MULTILINE):
            words = [word for word in line.split() if not word.startswith("-")]
            names = [word for word in words if word in cli.list_commands(None)]
            assert names, line
            assert CliRunner().invoke(cli, [names[0], "--help"]).exit_code == 0, line


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_the_docs_link_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_test_or_source_that_a_table_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"`((?:tests|bench|operator|examples|docs|manifests|docker|helm)/[\w./-]+)`", text):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/*.yaml")), ids=named)
def test_every_example_is_valid(path):
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert document["kind"]
        if document["kind"] == "CanaryRollout":
            CanaryRolloutSpec.model_validate(document["spec"])
        elif document["kind"] in {"HaltRuleSet", "ClusterHaltRuleSet"}:
            HaltRuleSetSpec.model_validate(document["spec"])


def test_alerts_ask_for_metrics_and_phases_that_there_are():
    groups = yaml.safe_load((ROOT / "examples" / "alerts.yaml").read_text(encoding="utf-8"))["spec"]["groups"]
    asked = " ".join(rule["expr"] for group in groups for rule in group["rules"])
    exported = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bcanary_\w+", asked))
    assert len(names) > 4
    assert [name for name in sorted(names) if f"| `{name}` |" not in exported] == []
    phases = "|".join(re.findall(r'phase=~"([\w|]+)"', asked)).split("|")
    assert set(phases) <= {phase.value for phase in Phase}


def test_the_reasons_of_the_operations_page_are_those_of_the_status():
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \|", page, re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert len(told) > 20
    assert told <= {reason.value for reason in Reason}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_place_inside_a_page_that_the_docs_link_to_is_there(page):
    for target, place in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        linked = (page.parent / target) if target else page
        titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}
        assert place in anchors, f"{target}#{place}"
