"""The reference page: its tables are up to date, and every example on it is accepted."""

import re
from pathlib import Path

import pytest
import yaml
from rollouts import GOOD

from canary_rollout.model import docs
from canary_rollout.model.spec import CanaryRolloutSpec

PAGE = Path(__file__).parents[2] / docs.PAGE
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def test_the_page_is_what_the_models_say():
    assert docs.page(TEXT) == TEXT, "run `make crds` and commit the result"


def test_the_page_is_checked_and_written_from_the_top_of_the_checkout(tmp_path, monkeypatch):
    (tmp_path / docs.PAGE).parent.mkdir(parents=True)
    (tmp_path / docs.PAGE).write_text(f"intro\n{docs.BEGIN}old\n{docs.END}outro\n")
    monkeypatch.chdir(tmp_path)
    assert docs.main(["--check"]) == 1
    assert docs.main(["--write"]) == 0
    assert docs.main(["--check"]) == 0
    written = (tmp_path / docs.PAGE).read_text()
    assert written.startswith("intro\n")
    assert written.endswith("outro\n")


def test_every_object_has_a_table():
    assert {"### `spec.stages[]`", "### `spec.stages[].exit[]`", "### `status.rollout.clock`"} <= set(TEXT.splitlines())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_every_example_is_accepted(example):
    parsed = yaml.safe_load(example)
    CanaryRolloutSpec.model_validate(parsed["spec"] if "spec" in parsed else {**GOOD["spec"], **parsed})


def test_there_are_examples():
    assert len(EXAMPLES) == 3
