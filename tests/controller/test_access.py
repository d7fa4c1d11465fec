"""Credentials and preset sets of a rollout's namespace: read by name, again every minute, and what is missing is said."""

import base64

import pytest
from fake_api import Answer, FakeApi

from canary_rollout.controller.access import FRESH_FOR, LARGEST_SET, Access, of_directory, preset_set
from canary_rollout.kube.port import CONFIG_MAPS, SECRETS
from canary_rollout.metrics.errors import PresetError
from canary_rollout.model.metrics import Metrics

SETS = """
name: ours
description: Counted by our own exporter.
traffic: {requests: our_requests_total, failed: 'our_requests_total{ok="false"}'}
measures:
  adoption: {share: {part: 'feature_used_total{feature="x"}', whole: our_requests_total}}
"""


class Clock:
    time = 1_800_000_000.0

    def now(self):
        return self.time


def metrics(**more):
    return Metrics.model_validate({"prometheus": "http://prometheus:9090", **more})


SECURED = metrics(access={"bearerTokenSecretRef": {"name": "prom", "key": "token"}})


class House:
    """An API server, a clock, and what reads."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.user = self.api.client("user")
        self.clock = Clock()
        self.access = Access(self.api.client("operator"), self.clock)

    async def secret(self, token, name="prom"):
        data = {"token": base64.b64encode(token).decode()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data}
        self.api.store.apply(SECRETS, "shop", name, body, manager="user", force=True)

    async def config_map(self, text, name="presets"):
        metadata = {"name": name, "namespace": "shop"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ours.yaml": text}}
        self.api.store.apply(CONFIG_MAPS, "shop", name, body, manager="user", force=True)

    def reads(self):
        return [call for call in self.api.calls if call.client == "operator"]


async def test_a_rotated_secret_is_picked_up_within_a_minute_and_read_once_meanwhile():
    house = House()
    await house.secret(b"old")
    for _ in range(5):
        granted = await house.access.granted("shop", SECURED)
        assert granted.targets[""].headers == (("Authorization", "Bearer old"),)
    assert len(house.reads()) == 1
    await house.secret(b"new")
    house.clock.time += FRESH_FOR
    granted = await house.access.granted("shop", SECURED)
    assert granted.targets[""].headers == (("Authorization", "Bearer new"),)


async def test_a_secret_that_is_missing_is_said_without_its_content():
    house = House()
    granted = await house.access.granted("shop", SECURED)
    assert granted.targets[""].problem == "Secret prom does not exist: create it, or mend spec.metrics"
    await house.secret(b"late")
    house.clock.time += FRESH_FOR
    assert not (await house.access.granted("shop", SECURED)).targets[""].problem


async def test_a_secret_that_may_not_be_read_says_which_right_is_missing():
    house = House()
    await house.secret(b"mine")
    house.api.fault(Answer(403), times=None, verb="get", resource=SECRETS)
    granted = await house.access.granted("shop", SECURED)
    assert "may not be read by the operator: grant it get on that one Secret" in granted.targets[""].problem


async def test_an_api_server_that_is_away_is_asked_again_at_once():
    house = House()
    await house.secret(b"mine")
    house.api.fault(Answer(503), times=None, verb="get", resource=SECRETS)
    assert "cannot be read" in (await house.access.granted("shop", SECURED)).targets[""].problem
    house.api.clear_faults()
    assert not (await house.access.granted("shop", SECURED)).targets[""].problem


async def test_a_secret_of_another_namespace_is_out_of_reach():
    house = House()
    await house.secret(b"theirs")
    granted = await house.access.granted("other", SECURED)
    assert "does not exist" in granted.targets[""].problem


async def test_a_rollout_without_credentials_reads_nothing():
    house = House()
    await house.access.granted("shop", metrics())
    assert house.reads() == []


async def test_preset_sets_come_from_config_maps_and_the_same_text_is_the_same_set():
    house = House()
    await house.config_map(SETS)
    named = metrics(presets=["presets"], source="custom/ours")
    first = await house.access.granted("shop", named)
    house.clock.time += FRESH_FOR
    second = await house.access.granted("shop", named)
    assert first.own == second.own  # by identity: so rollouts share their queries
    assert first.own[0].measures.keys() >= {"requests", "error-rate", "adoption"}
    assert not first.problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "ConfigMap presets does not exist"),
        ("measures: [", "presets/ours.yaml: not YAML"),
        ("- 1", "a mapping"),
        ("name: ours\nmeasures: {a: {rate: 'x{y=~\"(\"'}}", "is not the name of a series"),
        ("name: ours\nmeasures: {a: {rate: x, gauge: {series: y}}}", "exactly one of"),
        ("name: ours\nmeasures: {a: {rate: 'x) or vector(1'}}", "is not the name of a series"),
        ("name: ours\nmeasures: {a: {template: '{{ 7 * 7 }}'}}", "Extra inputs"),
        ("name: ours\nmeasures: {A: {rate: x}}", "measures.A"),
        ("name: ours\nextends: nothing", "there is no ready-made source 'nothing'"),
        ("name: ours\nalways: 'x=\"1\"} or y{'", "not a list of matchers"),
        ("name: ours\n" + "#" * LARGEST_SET, "characters are more than"),
        ("a: &a [x]\nb: [*a, *a]\nname: 3", "presets presets/ours.yaml"),
    ],
)
async def test_a_preset_set_that_does_not_read_is_said(text, words):
    house = House()
    if text is not None:
        await house.config_map(text)
    granted = await house.access.granted("shop", metrics(presets=["presets"]))
    assert words in granted.problem
    assert granted.own == ()


def test_a_set_may_extend_a_ready_made_one_and_rename_its_labels():
    text = "name: ours\nextends: ingress-nginx\nlabels: {namespace: exported_namespace}"
    presets = preset_set(text, "ours.yaml")
    assert presets.identity.labels == ("exported_namespace", "ingress", "canary")
    assert presets.identity.scope.label == "exported_namespace"
    assert "latency-p99" in presets.measures


def test_sets_of_the_operators_own_directory_are_for_everybody(tmp_path):
    (tmp_path / "ours.yaml").write_text(SETS, encoding="utf-8")
    (tmp_path / "README.md").write_text("not one", encoding="utf-8")
    (presets,) = of_directory(str(tmp_path))
    assert presets.of.name == "ours"
    assert of_directory("") == ()
    (tmp_path / "broken.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(PresetError, match=r"broken\.yaml"):
        of_directory(str(tmp_path))
