"""A router of somebody else's, found by its entry point: the example, installed beside the operator."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from fake_api import FakeApi
from proxies import NAMESPACE, StoreReader, WallClock

from canary_rollout.kube.port import CONFIG_MAPS, ConflictError
from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.route import Latch
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic import registry
from canary_rollout.traffic.port import Rejected, Route, RouterContext, RouterError

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom-router"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What pip leaves behind: the module and its dist-info."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    name, points = project["project"]["name"], project["project"]["entry-points"][registry.GROUP]
    info = tmp_path / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 0.1.0\n")
    lines = [f"{point} = {target}" for point, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *lines, ""]))
    module = EXAMPLE / "weights_in_a_configmap.py"
    (tmp_path / module.name).write_text(module.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._factory.cache_clear()
    yield
    sys.modules.pop("weights_in_a_configmap", None)
    registry._factory.cache_clear()


def router(api, **changes):
    rollout = yaml.safe_load((EXAMPLE / "rollout.yaml").read_text())
    model = CanaryRolloutSpec.model_validate({**rollout["spec"], "stages": STAGES, **changes})
    client, reader = api.client("operator"), StoreReader(api)
    return registry.router_for(RouterContext(NAMESPACE, "checkout", "uid", model, client, reader, WallClock()))


STAGES = [{"name": "some", "weight": "0.5%", "hold": "1m"}, {"name": "all", "weight": "100%", "hold": "1m"}]


async def test_the_example_serves_a_rollout(installed):
    api = FakeApi()
    made = router(api)
    assert made.problems() == []
    assert made.observe() is None
    first = await made.ensure(Route(0, "v2", "v1"), fence=None)
    await made.ensure(Route(50, "v2", "v1"), fence=first.resource_version)
    view = router(api).observe()
    assert (view.weight, view.revision, view.confirmed) == (50, "v2", True)
    assert not (await made.ensure(Route(50, "v2", "v1"), fence=None)).changed
    with pytest.raises(ConflictError):
        await made.ensure(Route(500, "v2", "v1"), fence=first.resource_version)
    verdict = Latch("v2", "error-rate", "too many", 1_000_000.0)
    await made.ensure(Route(0, "v2", "v1", latch=verdict), fence=None)
    assert (router(api).observe().weight, router(api).observe().latch) == (0, verdict)
    api.store.merge_patch(CONFIG_MAPS, NAMESPACE, "checkout-weights", {"data": {"weight": "lots"}})
    assert router(api).observe().weight == 0
    await made.release()
    assert api.store.peek(CONFIG_MAPS, NAMESPACE, "checkout-weights")


async def test_the_example_refuses_what_it_cannot_do(installed):
    cohort = {"header": "X-Cohort", "values": ["internal"]}
    stages = [{**STAGES[0], "cohort": cohort}, STAGES[1]]
    assert "stage some" in router(FakeApi(), stages=stages).problems()[0]
    answer = await router(FakeApi()).ensure(Route(50, "v2", "v1", cohort=Cohort.model_validate(cohort)), fence=None)
    assert isinstance(answer, Rejected)


@pytest.mark.parametrize("value", ["../../etc", "a\n", "", "UPPER", "a b", "${x}"])
def test_the_example_checks_its_settings_itself(installed, value):
    traffic = {"custom": {"router": "configmap", "settings": [{"name": "configMap", "value": value}]}}
    with pytest.raises(RouterError, match="wants one setting"):
        router(FakeApi(), traffic=traffic)


def test_a_router_that_is_not_installed_is_named_beside_those_that_are():
    registry._factory.cache_clear()
    with pytest.raises(RouterError, match="there is no router 'configmap': installed are contour, envoy"):
        router(FakeApi())
