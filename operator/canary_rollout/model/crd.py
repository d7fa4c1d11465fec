"""The CustomResourceDefinitions, generated: ``python -m canary_rollout.model.crd [--check FILE]``."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.rule_sets import CLUSTER, CLUSTER_PLURAL, NAMESPACED, NAMESPACED_PLURAL, HaltRuleSetSpec
from canary_rollout.model.schema import Schema, spec_schema, status_schema
from canary_rollout.model.spec import GROUP, KIND, PLURAL, VERSION, CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus

LONGEST_NAME: Final = 50
"""Objects named after a CanaryRollout add a suffix, and labels end at 63 characters."""

_HEADER: Final = "# Generated from operator/canary_rollout/model by `make crds`; edit the models, not this file.\n"
_COLUMNS: Final = (
    ("Phase", "string", ".status.phase", 0, "Where the rollout is."),
    ("Stage", "string", ".status.stage", 0, "Stage and its place."),
    ("Weight", "string", ".status.weight", 0, "The canary's share of the traffic."),
    ("Message", "string", ".status.message", 0, "Where the rollout is, why, and what happens next."),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
    ("Revision", "string", ".status.revision", 1, "Revision being rolled out, or the last one that was."),
    ("Router", "string", ".status.router", 1, "Router and how it serves."),
    ("Next change", "string", ".status.nextChange", 1, "When something changes next if nothing goes wrong."),
)
_SET_COLUMNS: Final = (
    ("Description", "string", ".spec.description", 0, "What the rules are for."),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)
_NAME_RULE: Final = Rule(
    f"size(self.metadata.name) <= {LONGEST_NAME}",
    f"the name has at most {LONGEST_NAME} characters, because other objects are named after it: choose a shorter one",
)


def schema() -> Schema:
    """``openAPIV3Schema`` of the whole object."""
    status = status_schema(CanaryRolloutStatus)
    conditions = status["properties"]["conditions"]
    # kstatus and `kubectl wait` read them by type; server-side apply then merges them by type as well.
    conditions.update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    conditions["items"]["required"] = ["type", "status"]
    return {
        "description": "CanaryRollout moves traffic from a stable version to a canary step by step, asks Prometheus all "
        "the time whether the canary is worse, and takes the traffic off it by itself when it is.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                **spec_schema(CanaryRolloutSpec),
                "description": "What you want: two versions, one router, stages, and what stops the rollout.",
            },
            "status": {**status, "description": "What the operator says and remembers."},
        },
        cel.KEY: [_NAME_RULE.to_dict()],
    }


def rule_set_schema(kind: str) -> Schema:
    """``openAPIV3Schema`` of a set of halt rules."""
    where = "the rollouts of its namespace" if kind == NAMESPACED else "the rollouts of every namespace"
    return {
        "description": f"{kind} holds halt rules that {where} refer to by name (haltRuleSets).",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**spec_schema(HaltRuleSetSpec), "description": "The rules, and what each reference fills in."},
        },
    }


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition of a rollout."""
    names = {"kind": KIND, "plural": PLURAL, "shortNames": ["crl"], "categories": ["all", "canary"]}
    version = {
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
        "schema": {"openAPIV3Schema": schema()},
    }
    return _definition(names, "Namespaced", version)


def rule_set_definition(kind: str, plural: str, short: str) -> dict[str, Any]:
    """The CustomResourceDefinition of one of the two kinds of rule sets."""
    names = {"kind": kind, "plural": plural, "shortNames": [short], "categories": ["canary"]}
    version = {
        "additionalPrinterColumns": [_column(*column) for column in _SET_COLUMNS],
        "schema": {"openAPIV3Schema": rule_set_schema(kind)},
    }
    return _definition(names, "Namespaced" if kind == NAMESPACED else "Cluster", version)


def definitions() -> list[dict[str, Any]]:
    """All of them."""
    return [
        definition(),
        rule_set_definition(NAMESPACED, NAMESPACED_PLURAL, "hrs"),
        rule_set_definition(CLUSTER, CLUSTER_PLURAL, "chrs"),
    ]


def _definition(names: dict[str, Any], scope: str, version: dict[str, Any]) -> dict[str, Any]:
    kind, plural = names["kind"], names["plural"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": names["shortNames"],
                "categories": names["categories"],
            },
            "versions": [{"name": VERSION, "served": True, "storage": True, **version}],
        },
    }


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        column["priority"] = priority
    if description:
        column["description"] = description
    return column


class _Plain(yaml.SafeDumper):
    """No anchors: people and tools read the file as it stands."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # the signature is PyYAML's
        return True


def render() -> str:
    """The definitions as YAML, the same text every time."""
    dumped = yaml.dump_all(definitions(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
    return _HEADER + dumped


def main(arguments: list[str] | None = None) -> int:
    """Print the definition, write it to a file, or compare it with one; returns the exit code."""
    return generate("python -m canary_rollout.model.crd", render(), Path("crds/canaryrollout.yaml"), arguments)


def generate(program: str, text: str, default: Path, arguments: list[str] | None) -> int:
    """The command line of a generator: print ``text``, ``--write [FILE]`` it, or ``--check [FILE]``; the exit code."""
    parser = argparse.ArgumentParser(prog=program, description="Generate a file from the models.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, nargs="?", const=default, metavar="FILE", help=f"default: {default}")
    what.add_argument("--check", type=Path, nargs="?", const=default, metavar="FILE", help="exit 1 if it differs")
    options = parser.parse_args(arguments)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
        return 0
    if options.check is None:
        sys.stdout.write(text)
        return 0
    if options.check.is_file() and options.check.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{options.check} is not what the models say: run `make crds` and commit the result\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
