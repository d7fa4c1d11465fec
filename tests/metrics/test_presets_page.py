"""docs/presets.md is true: its tables are what the files say, its sets are accepted, its names are the collector's."""

import re
from pathlib import Path

import yaml

from canary_rollout.metrics.presets import prepare, read
from canary_rollout.metrics.presets.page import tables
from canary_rollout.metrics.presets.schema import Formula
from canary_rollout.vitals.beacon import VITALS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_tables_are_what_the_files_say():
    page = (DOCS / "presets.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- tables -->\n(.*?)<!-- end of tables -->", page, re.DOTALL)
    assert shown == tables(), "run `python -m canary_rollout.metrics.presets.page` and put its output between the marks"


def test_every_preset_set_in_the_docs_is_accepted():
    found = 0
    for page in DOCS.glob("*.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for document in yaml.safe_load_all(block):
                if isinstance(document, dict) and document.get("kind") == "ConfigMap":
                    for name, text in document["data"].items():
                        if name.endswith(".yaml") and "measures:" in text:
                            assert prepare(read(text, name)).measures
                            found += 1
    assert found


def test_every_kind_of_formula_is_in_the_docs():
    page = (DOCS / "presets.md").read_text(encoding="utf-8")
    fields = {field.alias for name, field in Formula.model_fields.items() if name not in {"description", "scale"}}
    assert not [kind for kind in fields if f"`{kind}" not in page]


def test_the_buckets_in_the_docs_are_the_collectors():
    page = (DOCS / "web-vitals.md").read_text(encoding="utf-8")
    for vital in VITALS.values():
        assert f"| `{vital.series}` | {', '.join(f'{edge:g}' for edge in vital.buckets)} |" in page
