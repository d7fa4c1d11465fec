"""What is wrong is said in a sentence, the weight stays, and nothing ends in a traceback."""

import asyncio
import json

import pytest
from fake_api import Answer
from operator_world import ROLLOUT, SHOP, World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS, CONFIG_MAPS, DEPLOYMENTS, INGRESSES, SERVICES
from canary_rollout.metrics.errors import UnsafeValueError
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.traffic.port import RouterError

pytestmark = [pytest.mark.looptime]


@pytest.fixture(autouse=True)
def no_traceback(capsys):
    yield
    assert "Traceback" not in capsys.readouterr().out


async def test_a_spec_that_was_stored_although_it_is_not_valid_is_stalled_with_a_sentence():
    world = await World(stages=[{"name": "only", "weight": "5%", "hold": "1m"}]).build()
    async with world.run():
        await world.until(lambda: world.condition("Stalled"))
        assert world.condition("Stalled")["reason"] == "InvalidSpec"
        assert "spec is not valid" in world.message
        assert "100%" in world.message
        await world.edit(stages=ROLLOUT["spec"]["stages"])
        await world.rest("Idle")
        await world.until(lambda: not world.condition("Stalled"))
        await world.release()
        await world.reach("first")


async def test_an_invalid_edit_keeps_the_weight_and_the_rules_of_the_last_valid_spec():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.edit(stages=[{"name": "only", "weight": "5%", "hold": "1m"}])
        await world.until(lambda: world.condition("Stalled"))
        assert "the last valid one counts" in world.message
        await asyncio.sleep(200)
        assert world.weight == 500, "nothing is raised"
        world.numbers.canary["error-rate"] = 0.2
        await world.until(lambda: world.weight == 0, 11)
        await world.rest("RolledBack")


async def test_an_invalid_spec_after_a_restart_keeps_the_weight():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.replicas[-1].end(kill=True)
        await world.edit(stages=[])
        world.start()
        await world.until(lambda: world.condition("Stalled"))
        await asyncio.sleep(100)
        assert world.weight == 500
        assert world.status["rollout"]["wanted"] == "5%"
        await world.edit(stages=ROLLOUT["spec"]["stages"])
        await world.rest("Succeeded")
        assert world.raised == [50, 500, 2500, 10000]


@pytest.mark.parametrize("name", ["checkout", "checkout-canary"])
async def test_a_deployment_that_does_not_exist_is_named(name):
    world = await World().build()
    await world.user.delete(DEPLOYMENTS, SHOP, name)
    async with world.run():
        await world.until(lambda: world.condition("Stalled"))
        assert world.condition("Stalled")["reason"] == "WorkloadMissing"
        assert f"Deployment {name} does not exist in namespace shop" in world.message
        assert world.weight == 0


async def test_a_service_that_does_not_exist_is_named_and_its_coming_is_noticed():
    world = await World().build()
    service = world.look(SERVICES, "checkout-canary")
    await world.user.delete(SERVICES, SHOP, "checkout-canary")
    async with world.run():
        await world.until(lambda: world.condition("Stalled"))
        assert "Service shop/checkout-canary does not exist" in world.message
        await world.release()
        await asyncio.sleep(30)
        assert not world.raised
        await world.user.create(SERVICES, SHOP, {**service, "metadata": {"name": "checkout-canary"}})
        await world.reach("first")


async def test_a_router_whose_kind_the_cluster_does_not_know_is_told_until_it_is_installed():
    world = World(traffic={"ingressNginx": {"ingress": "shop", "controllerVersion": "1.12.1"}})
    world.api.store.unregister(INGRESSES)
    await world.build()
    async with world.run():
        await world.until(lambda: world.condition("Stalled"))
        assert world.condition("Stalled")["reason"] == "RouteRejected"
        assert "does not know Ingress (networking.k8s.io/v1)" in world.message
        world.api.store.register(INGRESSES)
        await world.until(lambda: "Ingress shop/shop does not exist" in world.message, 60)


async def test_two_that_name_the_same_deployment_are_told_and_the_older_one_goes_on():
    world = await World().build()
    await asyncio.sleep(2)
    twin = {**world.rollout, "metadata": {"name": "twin", "namespace": SHOP}}
    await world.user.create(CANARY_ROLLOUTS, SHOP, twin)
    async with world.run():
        await world.serve("first")
        told = lambda: world.look(CANARY_ROLLOUTS, "twin").get("status", {}).get("message", "")  # noqa: E731
        await world.until(lambda: "already belongs to CanaryRollout checkout" in told())
        await world.rest("Succeeded")
        assert "twin-nginx" not in {key[1] for key in world.api.store._rows[CONFIG_MAPS]}
        assert not [call for call in world.writes(DEPLOYMENTS) if call.at > world.weights[-1][0] + 60]


async def test_a_router_that_cannot_be_built_is_told():
    world = await World().build()
    replica = world.start()

    def broken(_):
        raise RouterError("there is no router 'nginx': installed are none")

    object.__setattr__(replica.operator.reconciler._shell, "router_for", broken)
    try:
        await world.until(lambda: world.condition("Stalled"))
        assert "there is no router" in world.message
        assert world.condition("Stalled")["reason"] == "RouteRejected"
        await world.delete()
        await asyncio.sleep(1)
        assert not world.exists
    finally:
        await world.stop()


async def test_a_name_that_may_not_go_into_a_query_stops_the_raises_and_is_told(monkeypatch):
    world = await World().build()
    async with world.run():
        await world.serve("second")

        def refuse(*_, **__):
            raise UnsafeValueError("pod or ReplicaSet 'x\"}' is not a Kubernetes name and does not go into a query")

        with monkeypatch.context() as patch:
            patch.setattr(MetricRequest, "of", refuse)
            await world.until(lambda: "Prometheus is not asked" in world.message)
            await asyncio.sleep(120)
            assert world.weight == 500
        await world.rest("Succeeded")


@pytest.mark.parametrize("code", [403, 422])
async def test_a_route_that_the_api_server_refuses_is_told(code):
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        match = {"client": "operator", "verb": "patch", "resource": CONFIG_MAPS}
        world.api.fault(Answer(code, "no", "Forbidden" if code == 403 else "Invalid"), times=None, **match)
        await world.release()
        await world.until(lambda: world.condition("Stalled"))
        assert world.condition("Stalled")["reason"] == "RouteRejected"
        assert "configmaps/checkout-nginx" in world.message
        writes = len(world.writes(CANARY_ROLLOUTS))
        await asyncio.sleep(200)
        assert len(world.writes(CANARY_ROLLOUTS)) <= writes + 1, "the same words are not written again"
        world.api.clear_faults()
        await world.reach("first")


async def test_a_deployment_that_may_not_be_written_is_told():
    world = await World().build()
    async with world.run():
        await world.rest("Idle")
        world.api.fault(Answer(422, "no", "Invalid"), times=None, client="operator", verb="patch", resource=DEPLOYMENTS)
        await world.release()
        await world.until(lambda: world.condition("Stalled"))
        assert world.condition("Stalled")["reason"] == "WorkloadNotReady"
        assert "Deployment checkout-canary refused paused" in world.message


MANGLED = {
    "strange words": {"phase": "Dancing", "conditions": "none", "verdicts": 3, "evidence": {"breaches": 7}},
    "strange memory": {"rollout": {"wanted": "a lot", "phase": 12}},
    "no memory": {"rollout": None},
    "strange halts": {"rollout": {"phase": "Nowhere", "halts": ["x", {"revision": 1}]}},
    "strange reason": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "??", "message": "", "lastTransitionTime": "x"}]
    },
}


@pytest.mark.parametrize("status", MANGLED.values(), ids=MANGLED)
async def test_a_status_that_somebody_mangled_does_not_stop_the_operator(status):
    world = await World().build()
    async with world.run():
        await world.serve("second")
        await world.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", {"status": status}, subresource="status")
        await world.rest("Succeeded", 900)
        assert world.image("checkout") == "app:v2"
        assert world.weight == 0


async def test_verdicts_survive_a_mangled_status():
    world = await World().build()
    async with world.run():
        await world.serve("second")
        world.numbers.canary["error-rate"] = 0.2
        await world.rest("RolledBack")
        world.numbers.canary["error-rate"] = 0.0
        body = {"status": {"rollout": {"phase": "Nowhere", "wanted": 12}}}
        await world.user.merge_patch(CANARY_ROLLOUTS, SHOP, "checkout", body, subresource="status")
        await asyncio.sleep(600)
        assert world.weight == 0
        assert world.phase == "RolledBack"


# Somebody else writes the route


async def foreign(world, weight, manager="kubectl-edit"):
    text = world.look(CONFIG_MAPS, "checkout-nginx")["data"]["weights.json"]
    body = {"data": {"weights.json": json.dumps({**json.loads(text), "weight": weight})}}
    await world.user.merge_patch(CONFIG_MAPS, SHOP, "checkout-nginx", body, manager=manager)


def route_writes(world, since):
    return [call.at - since for call in world.writes(CONFIG_MAPS, since=since)]


async def test_a_weight_that_somebody_raised_is_corrected_at_once():
    world = await World(latency=0.01).build()
    async with world.run():
        await world.serve("second")
        for _ in range(5):
            began = now()
            await foreign(world, 9000)
            await asyncio.sleep(1)
            assert len(route_writes(world, began)) == 1
            assert route_writes(world, began)[0] < 0.3
        assert world.weight == 500


async def test_a_weight_that_somebody_lowered_is_contested_and_corrected_with_patience():
    world = await World(latency=0.01).build()
    async with world.run():
        await world.serve("third")
        began = now()
        await foreign(world, 100)
        await world.until(lambda: world.condition("RouteContested"))
        assert "kubectl-edit" in world.condition("RouteContested")["message"]

        async def insist():
            while True:
                route = world.look(CONFIG_MAPS, "checkout-nginx")
                if json.loads(route["data"]["weights.json"])["weight"] != 100:
                    await foreign(world, 100)
                await asyncio.sleep(0.5)

        quarrel = asyncio.create_task(insist())
        await asyncio.sleep(600)
        quarrel.cancel()
        times = route_writes(world, began)
        assert 3 < len(times) < 25
        assert max(later - earlier for earlier, later in zip(times[-5:], times[-4:], strict=False)) >= 55
        assert world.state["stage"] == "third"
        assert world.status["rollout"].get("clock", {}).get("heldMs", 0) < 60_000
        await world.rest("Succeeded")


async def test_a_clock_that_disagrees_with_the_api_server_stops_raises_and_says_so():
    world = await World().build()
    replica = world.start()
    try:
        await world.serve("first")
        replica.wall.ahead = 30
        await asyncio.sleep(100)
        assert world.weight == 50
        await world.until(lambda: world.condition("Ready")["reason"] == "ClockSkew")
        assert "check NTP" in world.message
        world.numbers.canary["error-rate"] = 0.2
        await world.until(lambda: world.weight == 0, 11)
    finally:
        await world.stop()


async def test_a_clock_that_leaps_ahead_for_a_while_shortens_no_hold_and_no_drain():
    world = await World().build()
    replica = world.start()
    try:
        began = await world.serve("second")
        replica.wall.ahead = 3600
        await asyncio.sleep(10)
        await foreign(world, 300)  # stops the stage's time, which is then written down
        await world.until(lambda: world.state["clock"].get("heldMs", 0) > 0, 5)
        assert world.state["clock"]["heldMs"] < 15_000
        await asyncio.sleep(5)
        replica.wall.ahead = 0
        assert await world.reach("third") - began >= 60
        replica.wall.ahead = 3600
        world.numbers.canary["error-rate"] = 0.2
        down = await world.until(lambda: world.weight == 0, 30)
        assert await world.rest("RolledBack") - down >= 29
    finally:
        await world.stop()


async def test_a_release_that_was_seen_by_a_clock_that_ran_ahead_is_watched_from_its_first_request():
    world = await World().build()
    replica = world.start()
    try:
        await world.rest("Idle")
        await asyncio.sleep(10)
        replica.wall.ahead = 3600
        await world.release()
        await world.rest("Preparing")
        await asyncio.sleep(5)
        replica.wall.ahead = 0
        await world.reach("first")
        world.numbers.canary["error-rate"] = 0.2
        await world.until(lambda: world.weight == 0, 25)
    finally:
        await world.stop()


async def test_a_namespace_that_is_gone_with_its_rights_holds_up_no_other():
    world = World(namespaces=(SHOP, "gone"))
    world.api.fault(Answer(403, "namespaces is forbidden"), times=None, namespace="gone")
    await world.build()
    async with world.run():
        await world.serve("first")
        world.numbers.canary["error-rate"] = 0.2
        await world.until(lambda: world.weight == 0, 30)
