"""The Lease under virtual time: never two valid holders, whatever the API server and the processes do."""

import asyncio
import random
from contextlib import suppress

import looptime
import pytest
from fake_api import Answer, Drop, FakeApi, Hang, Slow
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_rollout.controller.lease import Lease, LeaseLostError, LeaseTimes
from canary_rollout.kube.port import LEASES

pytestmark = [pytest.mark.looptime]

NS, NAME = "canary-system", "operator"


def now():
    return asyncio.get_running_loop().time()


class Replica:
    """One process: its Lease, and a clock that can be frozen with it."""

    def __init__(self, api, identity, **options):
        self.frozen = 0.0
        self.lost = []
        self.lease = Lease(
            api.client(identity),
            namespace=NS,
            name=NAME,
            identity=identity,
            on_lost=self.lost.append,
            mono=now,
            rng=random.Random(identity),
            **options,
        )
        self.task = asyncio.create_task(self._live())

    async def _live(self):
        await self.lease.acquire()
        with suppress(LeaseLostError):
            await self.lease.keep()

    async def stop(self, *, release=False):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        if release:
            await self.lease.release()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - virtual time makes polling free and exact
        await asyncio.sleep(0.05)


@pytest.fixture
def api():
    return FakeApi()


def stored(api):
    return api.store.get(LEASES, NS, NAME)["spec"]


async def test_the_first_candidate_creates_the_lease_and_renews_it(api):
    one = Replica(api, "one")
    await asyncio.sleep(1)
    assert one.lease.valid()
    assert one.lease.held
    assert one.lease.term == 1
    first = stored(api)
    assert (first["holderIdentity"], first["leaseDurationSeconds"], first["leaseTransitions"]) == ("one", 15, 0)
    api.calls.clear()
    await asyncio.sleep(60)
    assert one.lease.valid()
    assert 24 <= len(api.calls) <= 30, "one call per renewal, every 2 to 2.4 s"
    assert stored(api)["acquireTime"] == first["acquireTime"]
    await one.stop()


async def test_a_second_candidate_waits_and_takes_over_within_the_duration(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    two = Replica(api, "two")
    await asyncio.sleep(30)
    assert not two.lease.held
    assert two.lease.holder == "one"
    await one.stop()  # killed: nothing is released
    died = now()
    await until(two.lease.valid)
    assert 10 < now() - died <= 15
    assert stored(api)["leaseTransitions"] == 1
    await two.stop()


@pytest.mark.parametrize("age", [0.0, 0.7, 1.4, 2.1])
async def test_a_takeover_is_over_within_the_duration_whenever_the_holder_dies(api, age):
    one = Replica(api, "one")
    two = Replica(api, "two")
    await asyncio.sleep(60)
    renewed = len([call for call in api.calls if call.verb == "patch"])
    await until(lambda: len([call for call in api.calls if call.verb == "patch"]) > renewed)
    holder, other = (one, two) if one.lease.held else (two, one)
    await asyncio.sleep(age)
    await holder.stop()
    died = now()
    await until(other.lease.valid)
    assert now() - died <= 15
    await other.stop()


async def test_a_released_lease_is_taken_at_once(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    two = Replica(api, "two")
    await asyncio.sleep(5)
    await one.stop(release=True)
    assert not one.lease.valid()
    released = now()
    await until(two.lease.valid)
    assert now() - released <= 2.5
    await two.stop()


async def test_a_renewal_that_was_cancelled_on_its_way_does_not_keep_the_lease_from_being_released(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    api.fault(Slow(2.0), times=1, verb="patch")
    await until(lambda: [call for call in api.calls if call.verb == "patch"][-1:] and not api.faults.rules[-1].times)
    await one.stop(release=True)  # the renewal has taken effect, its answer is on the way
    assert stored(api)["holderIdentity"] == ""


async def test_a_restarted_container_takes_its_own_lease_back_at_once(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    await one.stop()
    again = Replica(api, "one")
    await asyncio.sleep(0.1)
    assert again.lease.valid()
    assert stored(api)["leaseTransitions"] == 0
    await again.stop()


async def test_an_older_process_of_the_same_identity_loses(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    again = Replica(api, "one")
    await asyncio.sleep(5)
    assert one.lost == ["taken by one"]
    assert not one.lease.valid()
    assert again.lease.valid()
    assert one.task.done()
    await again.stop()


async def test_a_short_outage_is_survived_and_a_long_one_is_not(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    rule = api.fault(Answer(503), times=None)
    await asyncio.sleep(6)
    rule.times = 0
    assert one.lease.valid()
    await asyncio.sleep(5)
    assert one.lease.valid()
    rule.times = None
    began = now()
    await until(lambda: one.lost)
    assert now() - began <= 10 + 2.5 + 2.4
    assert one.lost == ["not renewed for 10 s"]
    await one.stop()


async def test_a_hanging_call_does_not_cost_the_lease(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    api.fault(Hang(), verb="patch")
    await asyncio.sleep(20)
    assert one.lease.valid()
    assert not one.lost
    await one.stop()


async def test_a_renewal_without_an_answer_that_took_effect_is_recognized(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    api.fault(Drop(after_effect=True), verb="patch")
    await asyncio.sleep(20)
    assert one.lease.valid()
    assert not one.lost
    await one.stop()


async def test_a_deleted_lease_is_lost(api):
    one = Replica(api, "one")
    await asyncio.sleep(5)
    api.store.delete(LEASES, NS, NAME)
    await asyncio.sleep(3)
    assert one.lost == ["the Lease was deleted"]
    await one.stop()


async def test_an_outage_at_the_start_is_waited_out(api):
    api.fault(Answer(500), times=4)
    api.fault(Hang(), times=1)
    one = Replica(api, "one")
    await asyncio.sleep(30)
    assert one.lease.valid()
    await one.stop()


async def test_of_two_that_create_at_once_one_wins(api):
    one, two = Replica(api, "one"), Replica(api, "two")
    await asyncio.sleep(5)
    assert [one.lease.valid(), two.lease.valid()].count(True) == 1
    await one.stop()
    await two.stop()


async def test_a_frozen_process_is_not_valid_from_the_moment_it_thaws(api):
    loop = asyncio.get_running_loop()
    jump = 0.0
    lost = []
    lease = Lease(
        api.client("one"), namespace=NS, name=NAME, identity="one", mono=lambda: loop.time() + jump, on_lost=lost.append
    )
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    await asyncio.sleep(5)
    assert lease.valid()
    jump = 60.0
    assert not lease.valid()
    await asyncio.sleep(3)
    assert lost == ["not renewed for 10 s"]
    assert not [call for call in api.calls if call.at > 5 and call.verb == "patch"], "nothing is written any more"
    with pytest.raises(LeaseLostError, match="must end and start again"):
        await keeping


async def test_an_answer_that_comes_after_a_freeze_does_not_count_from_its_arrival(api):
    loop = asyncio.get_running_loop()
    jump = 0.0
    lease = Lease(api.client("one"), namespace=NS, name=NAME, identity="one", mono=lambda: loop.time() + jump)
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    api.fault(Slow(1), verb="patch")
    await asyncio.sleep(2.5)
    jump = 60.0  # frozen between the request and its answer
    with pytest.raises(LeaseLostError):
        await keeping
    assert not lease.valid()


async def test_release_after_loss_writes_nothing(api):
    one = Replica(api, "one")
    await asyncio.sleep(1)
    api.fault(Answer(503), times=None)
    await asyncio.sleep(20)
    await one.stop()
    api.calls.clear()
    await one.lease.release()
    assert api.calls == []


async def test_a_release_that_fails_is_not_raised(api):
    one = Replica(api, "one")
    await asyncio.sleep(1)
    api.fault(Answer(503), times=None)
    await one.stop(release=True)
    assert not one.lease.held


def test_lease_times_must_rise():
    with pytest.raises(ValueError, match="retry < renew_deadline < duration - "):
        LeaseTimes(duration=10, renew_deadline=10)


_FAULTS = st.lists(
    st.tuples(
        st.floats(0, 120),
        st.sampled_from(["one", "two", "three"]),
        st.sampled_from([Answer(503), Answer(409), Hang(), Hang(True), Drop(), Drop(True), Slow(2.5), Slow(9)]),
        st.integers(1, 6),
    ),
    max_size=12,
)
_DEATHS = st.lists(
    st.tuples(
        st.floats(0, 120), st.sampled_from(["one", "two", "three"]), st.sampled_from(["kill", "stop", "restart"])
    ),
    max_size=5,
)


@pytest.mark.thorough
@settings(max_examples=20, deadline=None)
@given(faults=_FAULTS, deaths=_DEATHS)
def test_never_are_two_replicas_valid_at_once(faults, deaths):
    async def scenario():
        api = FakeApi(latency=0.01)
        replicas = {identity: Replica(api, identity) for identity in ("one", "two", "three")}
        everybody = list(replicas.values())
        plan = sorted(
            [(at, "fault", who, what, times) for at, who, what, times in faults]
            + [(at, what, who, None, 0) for at, who, what in deaths],
            key=lambda step: step[0],
        )
        while now() < 150:
            while plan and plan[0][0] <= now():
                _, what, who, fault, times = plan.pop(0)
                if what == "fault":
                    api.fault(fault, times=times, client=who)
                    continue
                await replicas[who].stop(release=what == "stop")
                # The process is gone: its memory is too, so nothing it believed counts any more.
                everybody.remove(replicas[who])
                if what == "restart":
                    replicas[who] = Replica(api, who)
                    everybody.append(replicas[who])
                else:
                    replicas[who] = Replica(api, f"{who}-again")
                    everybody.append(replicas[who])
            assert sum(replica.lease.valid() for replica in everybody) <= 1
            await asyncio.sleep(0.25)
        api.clear_faults()
        for identity in list(replicas):
            if replicas[identity].lost:
                everybody.remove(replicas[identity])
                replicas[identity] = Replica(api, identity)
                everybody.append(replicas[identity])
        await asyncio.sleep(40)
        assert sum(replica.lease.valid() for replica in everybody) == 1, "and once the trouble is over there is one"
        for replica in everybody:
            await replica.stop()

    loop = looptime.patch_event_loop(asyncio.new_event_loop(), _enabled=True)
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
