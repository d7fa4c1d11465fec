"""The whole operator, on the fake API server, in virtual time."""

import pytest
from operator_world import World

pytestmark = [pytest.mark.looptime]


async def test_a_good_release_goes_through_all_stages_and_becomes_stable():
    world = await World().build()
    async with world.run():
        await world.until(lambda: world.phase == "Idle")
        await world.release()
        await world.until(lambda: world.phase == "Succeeded")
    assert [weight for _, weight, _ in world.weights if weight] == [50, 500, 2500, 10000]
    assert world.weight == 0
    assert world.deployment("checkout")["spec"]["template"]["spec"]["containers"][0]["image"] == "app:v2"
    assert not world.deployment("checkout-canary")["spec"].get("paused")
