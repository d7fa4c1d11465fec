"""The examples are what they say: valid, complete, and about each other."""

from pathlib import Path

import pytest
import yaml

from canary_rollout.model.routers import ROUTERS
from canary_rollout.model.spec import CanaryRolloutSpec, default_stages

EXAMPLES = Path(__file__).parents[2] / "examples"
ROLLOUTS = sorted(path for path in EXAMPLES.rglob("*.yaml") if "kind: CanaryRollout" in path.read_text())

ROUTES = {
    "service": "Service",
    "ingress": "Ingress",
    "httpRoute": "HTTPRoute",
    "virtualService": "VirtualService",
    "traefikService": "TraefikService",
    "ingressRoute": "IngressRoute",
    "virtualServer": "VirtualServer",
    "httpProxy": "HTTPProxy",
}
"""What a router's settings name, and its kind."""


def documents(path: Path, kind: str = "") -> list[dict]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one and kind in {"", one["kind"]}]


@pytest.mark.parametrize("path", ROLLOUTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_each_canary_rollout_is_valid_and_names_objects_that_the_examples_have(path: Path):
    applied = [one for file in EXAMPLES.rglob("*.yaml") for one in documents(file)]
    present = {(one["kind"], one["metadata"]["name"]) for one in applied}
    for rollout in documents(path, "CanaryRollout"):
        spec = CanaryRolloutSpec.model_validate(rollout["spec"])
        for version in (spec.workload.stable, spec.workload.canary):
            assert ("Service", version.service) in present
            assert ("Deployment", version.deployment) in present
        named = raw["traffic"][spec.traffic.router] if (raw := rollout["spec"])["traffic"].get("custom") is None else {}
        if "create" not in named:
            for field, kind in ROUTES.items():
                assert field not in named or (kind, named[field]) in present


def test_there_is_an_example_for_each_router_and_one_for_the_demo():
    found = {
        CanaryRolloutSpec.model_validate(documents(path, "CanaryRollout")[0]["spec"]).traffic.router
        for path in ROLLOUTS
    }
    assert found >= {*ROUTERS} - {"custom"}
    assert EXAMPLES / "demo" / "canaryrollout.yaml" in ROLLOUTS


def test_the_full_example_shows_the_default_weights():
    spec = CanaryRolloutSpec.model_validate(documents(EXAMPLES / "canaryrollout.yaml")[0]["spec"])
    assert [(stage.weight, stage.hold) for stage in spec.stages] == [
        (stage.weight, stage.hold) for stage in default_stages()
    ]


def test_stable_and_canary_begin_alike_so_that_there_is_nothing_to_roll_out():
    stable, canary = documents(EXAMPLES / "app.yaml", "Deployment")
    del stable["spec"]["template"]["metadata"]["labels"], canary["spec"]["template"]["metadata"]["labels"]
    assert stable["spec"]["template"] == canary["spec"]["template"]
