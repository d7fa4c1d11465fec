"""The pieces of YAML on the pages about our own proxies are accepted, and a router has nothing against them."""

import re
from pathlib import Path

import pytest
import yaml
from envoys import EnvoyWorld
from proxies import NAMESPACE, World, service, spec_of

from canary_rollout.kube.port import SERVICES
from canary_rollout.model.spec import CanaryRolloutSpec

DOCS = Path(__file__).parents[2] / "docs"
LAST = {"name": "everybody", "weight": "100%", "hold": "1h"}


def pieces():
    for page in ("stickiness.md", "envoy.md", "nginx-proxy.md"):
        blocks = re.findall(r"^```yaml\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            piece = yaml.safe_load(block)
            if "kind" not in piece:  # a whole object, such as a Role
                yield pytest.param(piece, id=f"{page}-{number}")


@pytest.mark.parametrize("piece", list(pieces()))
async def test_every_piece_of_a_spec_on_a_page_is_served(piece):
    assert set(piece) <= {"traffic", "stages"}
    base = spec_of().model_dump(mode="json", by_alias=True, exclude_none=True)
    if "stages" in piece:
        piece = {"stages": [*piece["stages"], LAST]}
    spec = CanaryRolloutSpec.model_validate({**base, **piece})
    world = (EnvoyWorld if spec.traffic.envoy is not None else World)(spec=spec)
    proxies = (spec.traffic.envoy or spec.traffic.nginx).service or "edge"
    for name in ("checkout", "checkout-canary", proxies):
        await world.put(SERVICES, service(name, "10.96.0.1", 80))
        status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
        await world.api.client("cloud").merge_patch(SERVICES, NAMESPACE, name, {"status": status}, subresource="status")
    assert world.router().problems() == []
    for stage in spec.stages:
        await world.route(stage.weight, cohort=stage.cohort)
        assert world.view().cohort == (stage.cohort if stage.weight else None)
