"""The generated CRD: up to date, structural, and bounded."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from canary_rollout.model import crd
from canary_rollout.model.schema import spec_schema, status_schema

CRD = Path(__file__).parents[2] / "crds" / "canaryrollout.yaml"
SCHEMA = crd.schema()


def nodes(at: str, schema: dict):
    """All parts of a schema with their paths."""
    yield at, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(f"{at}.{name}", child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(f"{at}[]", schema[key])


SETS = crd.rule_set_schema("HaltRuleSet")["properties"]["spec"]
SPEC = dict([*nodes("spec", SCHEMA["properties"]["spec"]), *nodes("set", SETS)])
STATUS = dict(nodes("status", SCHEMA["properties"]["status"]))


def test_the_file_is_what_the_models_say():
    assert crd.main(["--check", str(CRD)]) == 0


def test_a_file_that_is_not_is_told_how_to_become_it(tmp_path, capsys):
    old = tmp_path / "old.yaml"
    old.write_text("kind: Nothing\n")
    assert crd.main(["--check", str(old)]) == 1
    assert "run `make crds`" in capsys.readouterr().err
    assert crd.main(["--check", str(tmp_path / "none.yaml")]) == 1


def test_it_is_printed(capsys):
    assert crd.main([]) == 0
    assert list(yaml.safe_load_all(capsys.readouterr().out)) == crd.definitions()


def structural(part):
    foreign = {"$ref", "anyOf", "oneOf", "allOf", "title", "const"} & set(part)
    return not foreign and ("type" in part) != ("x-kubernetes-int-or-string" in part)


def test_every_part_is_structural():
    assert [at for at, part in (SPEC | STATUS).items() if not structural(part)] == []


def bounded(part):
    if part.get("type") == "string" or "x-kubernetes-int-or-string" in part:
        return "maxLength" in part
    bounds = {"array": {"maxItems"}, "integer": {"minimum", "maximum"}}
    return bounds.get(part.get("type", ""), set()) <= set(part)


def test_every_part_of_the_spec_has_an_upper_bound():
    assert [at for at, part in SPEC.items() if not bounded(part)] == []


@pytest.mark.parametrize("at", [at for at, part in SPEC.items() if "pattern" in part])
def test_every_pattern_is_anchored_in_the_dialect_of_the_api_server(at):
    pattern = SPEC[at]["pattern"]
    assert pattern.startswith("^")
    assert pattern.endswith("$")
    assert r"\z" not in pattern
    assert r"\Z" not in pattern
    # RE2 has no look-around and no back-references.
    assert "(?" not in pattern
    assert not re.search(r"\\[1-9]", pattern)


def test_nothing_in_the_status_could_refuse_what_the_operator_writes():
    refusing = {"pattern", "maxLength", "maxItems", "enum", "default", "x-kubernetes-validations"}
    assert [at for at, part in STATUS.items() if refusing & set(part)] == []


@pytest.mark.parametrize("at", [at for at, part in SPEC.items() if "x-kubernetes-validations" in part])
def test_every_rule_says_in_words_what_is_wrong(at):
    for rule in SPEC[at]["x-kubernetes-validations"]:
        assert 20 < len(rule["message"]) < 300
        assert "\n" not in rule["message"]


def test_a_union_is_refused_because_a_structural_schema_has_none():
    class Odd(BaseModel):
        either: int | str

    with pytest.raises(TypeError, match="give the field one type"):
        spec_schema(Odd)


def test_free_form_parts_keep_what_is_in_them():
    class Free(BaseModel):
        anything: dict[str, object] = {}
        texts: dict[str, str] = {}

    properties = status_schema(Free)["properties"]
    assert properties["anything"]["x-kubernetes-preserve-unknown-fields"] is True
    assert properties["texts"]["additionalProperties"] == {"type": "string"}
