"""What is added to a VirtualService where that is allowed, on the real CRD: it is taken, read back, and gone without a trace."""

import pytest
import pytest_asyncio
from foreign_crds import available
from route_adapters import ADAPTERS, ROLLOUT
from route_bench import Bench, route

from canary_rollout.kube.client import Client
from canary_rollout.traffic.member_names import prefix_of

pytestmark = pytest.mark.e2e

PEOPLE = {"header": "X-Cohort", "values": ["internal"], "prefixes": ["beta-"], "pattern": "Mozilla*"}
REGIONS = {"header": "X-Region", "weights": [{"value": "eu-west-1", "weight": "12.5%"}]}


@pytest_asyncio.fixture(loop_scope="session")
async def istio(local_cluster, real_crds, client: Client, namespace) -> Bench:
    if not available("istio"):
        pytest.skip("the CRDs of istio are neither beside the checkout nor in a Go module")
    made = Bench(local_cluster, client, namespace, next(one for one in ADAPTERS if one.name == "istio"))
    settings = made.spec["traffic"]["istio"] | {"cohortRules": True, "mirror": True}
    made.spec["traffic"] = {"istio": settings, "pin": {"header": "X-Canary"}}
    stages = [{**made.spec["stages"][0], "cohort": {**PEOPLE, "regions": REGIONS}}, made.spec["stages"][1]]
    made.spec["stages"] = stages
    await made.set_up()
    return made


async def test_people_and_mirrors_come_and_go(istio: Bench):
    assert await istio.problems() == []
    await istio.write(0)
    before = istio.adapter.blank(await istio.live())
    cohort = istio.router()._context.spec.stages[0].cohort
    await istio.ensure(route(0, mirror=50))
    assert (await istio.seen()).mirror == 50
    await istio.ensure(route(500, cohort=cohort))
    view = await istio.seen()
    assert (view.weight, view.mirror, view.cohort, view.outdated, view.contested_by) == (500, 0, cohort, False, "")
    names = [http.get("name", "") for http in (await istio.live())["spec"]["http"]]
    assert [name.partition(".")[2] for name in names if name.startswith(prefix_of(ROLLOUT))] == [
        *("pay-pin-canary", "pay-pin-stable", "pay-cohort", "pay-region-0"),
        *("2-pin-canary", "2-pin-stable", "2-cohort", "2-region-0"),
    ]
    await istio.ensure(route(0))
    assert istio.adapter.blank(await istio.live()) == before
