"""The examples of the routers are taken by the routers, and the table of all routers says what they say of themselves."""

from pathlib import Path

import pytest
import yaml
from fake_api import FakeApi
from proxies import NAMESPACE, StoreReader, WallClock, service

from canary_rollout.kube.port import DEPLOYMENTS, SERVICES, Resource
from canary_rollout.model.routers import ROUTERS
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.units import format_weight
from canary_rollout.traffic.port import Route, RouterContext, Written
from canary_rollout.traffic.registry import router_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ("istio", "traefik", "f5-virtual-server", "contour", "service", "ingress-nginx")


def deployment(name: str) -> dict:
    track = {"app": "checkout", "track": "canary" if name.endswith("canary") else "stable"}
    template = {"metadata": {"labels": track}, "spec": {"containers": [{"name": "app", "image": "app:v1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": track}, "template": template}
    return {"metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_router_takes_its_example_and_writes_its_first_weight(name):
    api = FakeApi()
    user = api.client("user")
    for number, one in enumerate(("checkout", "checkout-canary")):
        await user.apply(SERVICES, NAMESPACE, one, service(one, f"10.96.0.{number + 1}", 80), manager="user")
        await user.apply(DEPLOYMENTS, NAMESPACE, one, deployment(one), manager="user")
    kinds = {(one.api_version, one.kind): one for one in api.store.resources}
    spec = None
    for document in yaml.safe_load_all((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8")):
        if document["kind"] == "CanaryRollout":
            spec = CanaryRolloutSpec.model_validate(document["spec"])
            continue
        kind: Resource = kinds[document["apiVersion"], document["kind"]]
        await user.apply(kind, NAMESPACE, document["metadata"]["name"], document, manager="user")
    assert spec is not None
    context = RouterContext(NAMESPACE, "checkout", "uid", spec, api.client("operator"), StoreReader(api), WallClock())
    router = router_for(context)
    assert router.problems() == []
    for weight in (0, spec.stages[0].weight):
        assert isinstance(await router.ensure(Route(weight, "v2", "v1"), fence=None), Written)
    view = router.observe()
    assert view is not None
    assert view.revision == "v2"
    assert 0 < view.weight <= spec.stages[0].weight


SETTINGS = {
    "nginx": {"service": "edge"},
    "envoy": {"service": "edge"},
    "ingressNginx": {"ingress": "shop", "controllerVersion": "1.12.1"},
    "gatewayAPI, your route": {"httpRoute": "shop"},
    "gatewayAPI, `create`": {"httpRoute": "shop", "create": {"parentRefs": [{"name": "front"}]}},
    "istio": {"virtualService": "shop"},
    "traefik, TraefikService": {"traefikService": "shop"},
    "traefik, IngressRoute": {"ingressRoute": "shop"},
    "virtualServer": {"virtualServer": "shop"},
    "contour": {"httpProxy": "shop"},
    "service": {"service": "shop", "replicas": 20},
}
COLUMNS = ("sticky", "cohorts", "mirror", "variants")


def table() -> dict[str, dict[str, str]]:
    """Rows of the table in docs/routers.md by the router's name."""
    text = (ROOT / "docs" / "routers.md").read_text(encoding="utf-8")
    lines = text[text.index("| `traffic:` |") :].partition("\n\n")[0].splitlines()
    rows = [line.removeprefix("| ").removesuffix(" |") for line in lines if not line.startswith("|---")]
    cells = [[cell.strip() for cell in row.split(" | ")] for row in rows]
    return {cell[0]: dict(zip(("name", "step", *COLUMNS, "proof"), cell, strict=True)) for cell in cells[1:]}


def test_the_table_has_every_router():
    assert {name.partition(",")[0] for name in table()} == set(ROUTERS) - {"custom"}
    assert set(table()) == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_says_of_a_router_what_it_says_of_itself(name):
    spec = CanaryRolloutSpec.model_validate(
        {
            "workload": {
                "stable": {"service": "checkout", "deployment": "checkout"},
                "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
            },
            "traffic": {name.partition(",")[0]: SETTINGS[name]},
            "metrics": {"prometheus": "http://prometheus:9090"},
        }
    )
    api = FakeApi()
    context = RouterContext(NAMESPACE, "checkout", "uid", spec, api.client(), StoreReader(api), WallClock())
    can = router_for(context).capabilities()
    said = table()[name]
    assert said["step"].startswith(format_weight(can.step))
    for column in COLUMNS:
        assert said[column].startswith("yes") == getattr(can, column), column
    assert said["proof"].startswith(can.proof)
