"""Two operators, one of which acts: takeovers, frozen leaders, lost Leases."""

import asyncio

import pytest
from fake_api import Answer, Hang
from operator_history import History
from operator_replica import Frozen
from operator_world import World
from virtual_time import now

from canary_rollout.controller.lease import LeaseLostError
from canary_rollout.kube.port import CONFIG_MAPS, LEASES

pytestmark = [pytest.mark.looptime]


async def test_the_second_takes_over_within_the_duration_of_the_lease():
    world = await World().build()
    first, second = world.start("one"), None
    try:
        await world.serve("second")
        second = world.start("two")
        await asyncio.sleep(20)
        assert not second.lease.held
        first.kill()
        killed = now()
        world.numbers.canary["error-rate"] = 0.2
        await world.poll(lambda: second.lease.held, 30)
        assert now() - killed <= 15
        await world.until(lambda: world.weight == 0, 12)
        await world.rest("RolledBack")
    finally:
        await world.stop()


async def test_one_that_stops_hands_over_at_once():
    world = await World().build()
    first = world.start("one")
    try:
        await world.serve("second")
        second = world.start("two")
        await asyncio.sleep(5)
        await first.end()
        stopped = now()
        await world.poll(lambda: second.lease.held, 30)
        assert now() - stopped <= 3
        await world.rest("Succeeded")
        assert world.raised == [50, 500, 2500, 10000]
    finally:
        await world.stop()


@pytest.mark.parametrize("verdict", ["good", "bad"])
async def test_a_frozen_leader_cannot_land_the_raise_it_was_about_to_send(verdict):
    world = await World().build()
    history = History(world)
    old = Frozen(world.api, "operator")
    first = world.start("one", client=old)
    try:
        await world.serve("first")
        # Frozen between the persisted intent and the route.
        await world.until(lambda: world.state["wanted"] == "5%")
        old.freeze()
        await asyncio.sleep(0)
        assert world.weight == 50
        if verdict == "bad":
            world.numbers.canary["error-rate"] = 0.2
        second = world.start("two")
        await world.poll(lambda: second.lease.held, 40)
        await world.until(lambda: world.weight == (500 if verdict == "good" else 0), 15)
        served, writes, thawed = list(world.weights), len(world.writes(CONFIG_MAPS)), now()
        old.thaw()
        await asyncio.sleep(20)
        late = [call for call in world.writes(CONFIG_MAPS)[writes:] if call.at > thawed - 0.001]
        assert world.weights == served, "whatever came late changed nothing"
        assert first.lost, "it noticed that the Lease is not its own"
        raised = [call for call in late if "resourceVersion" in call.body["metadata"]]
        assert raised, "it was sent, and refused"
        assert '"weight":500' in raised[0].body["data"]["weights.json"].replace(" ", "")
        await world.rest("Succeeded" if verdict == "good" else "RolledBack")
    finally:
        old.thaw()
        await world.stop()
    history.check()


async def test_a_lease_that_cannot_be_renewed_ends_the_process_and_nothing_is_sent_afterwards():
    world = await World().build()
    first = world.start("one")
    try:
        await world.serve("second")
        world.api.fault(Answer(500), times=None, resource=LEASES, name="operator")
        await world.poll(lambda: first.lost, 20)
        await asyncio.wait([first.task], timeout=5)
        error = first.task.exception()
        assert error is not None
        assert error.subgroup(LeaseLostError)
        calls = len(world.api.calls_of("operator"))
        await asyncio.sleep(60)
        assert len(world.api.calls_of("operator")) == calls
        assert world.weight == 500
    finally:
        await world.stop()


async def test_a_lease_that_somebody_took_ends_the_process():
    world = await World().build()
    first = world.start("one")
    try:
        await world.serve("first")
        await world.user.merge_patch(
            LEASES, "system", "operator", {"spec": {"holderIdentity": "two", "acquireTime": None}}
        )
        await world.poll(lambda: first.lost, 10)
        assert "taken by two" in first.lost[0]
    finally:
        await world.stop()


async def test_no_raise_is_sent_while_the_lease_may_have_run_out():
    world = await World().build()
    first = world.start("one")
    try:
        entered = await world.serve("first")
        await asyncio.sleep(55)
        world.api.fault(Hang(), times=None, resource=LEASES, name="operator")
        await asyncio.sleep(4.5)
        first.lease._renewed -= 6  # as if the last renewals had been late
        assert not first.lease.valid()
        assert "Lease may have run out" in first.guard.refusal()
        await asyncio.sleep(2)
        assert now() - entered > 60
        assert world.state["wanted"] == "0.5%"
        assert world.weight == 50
    finally:
        await world.stop()


async def test_a_standby_writes_nothing():
    world = await World().build()
    world.start("one")
    try:
        await world.serve("first")
        standby = Frozen(world.api, "standby")
        world.start("two", client=standby)
        await world.rest("Succeeded")
        assert not [call for call in world.api.calls_of("standby") if call.verb not in {"get", "list", "watch"}]
    finally:
        await world.stop()
