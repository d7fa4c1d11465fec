"""Kubernetes Events: delivered beside the work, counted instead of repeated, never in the way."""

import asyncio

import pytest
from fake_api import Answer, FakeApi, Hang
from under_way import under_way

from canary_rollout.controller.instruments import Instruments
from canary_rollout.controller.recorder import Recorder
from canary_rollout.kube.port import EVENTS
from canary_rollout.model.conditions import Reason

pytestmark = [pytest.mark.looptime]


class LoopClock:
    def now(self):
        return 1_800_000_000 + asyncio.get_running_loop().time()


def rollout(name="checkout", uid="u1"):
    return {
        "apiVersion": "canaryrollout.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
    }


class World:
    def __init__(self):
        self.api = FakeApi()
        self.instruments = Instruments()
        self.recorder = Recorder(self.api.client(), self.instruments, instance="pod-1", clock=LoopClock())

    def events(self):
        return self.api.store.list_objects(EVENTS, "shop")["items"]

    def failures(self, why):
        return self.instruments.registry.get_sample_value("canary_rollout_event_failures_total", {"why": why})

    def running(self):
        return under_way(self.recorder.run())


@pytest.fixture
def world():
    return World()


async def test_an_event_says_who_what_and_why(world):
    async with world.running():
        world.recorder.event(rollout(), Reason.RULE_FAILED, "error-rate is 3 %, limit 1 %", warning=True)
        await world.recorder.flush()
    [event] = world.events()
    assert (event["reason"], event["type"], event["note"]) == ("RuleFailed", "Warning", "error-rate is 3 %, limit 1 %")
    assert event["regarding"]["name"] == "checkout"
    assert event["regarding"]["kind"] == "CanaryRollout"
    assert event["reportingController"] == "canaryrollout.dev/operator"
    assert event["reportingInstance"] == "pod-1"
    assert event["action"]
    assert event["eventTime"].endswith("Z")
    assert event["metadata"]["name"].startswith("checkout.")


async def test_a_repeat_counts_up_its_series(world):
    async with world.running():
        for _ in range(4):
            world.recorder.event(rollout(), Reason.NO_DATA, "Prometheus is down")
            await asyncio.sleep(20)
    [event] = world.events()
    assert event["series"]["count"] == 4
    assert event["series"]["lastObservedTime"] > event["eventTime"]
    assert len(world.api.calls_of("operator", "patch")) <= 2, "a series is updated every half minute, not each time"


async def test_different_notes_are_different_events(world):
    async with world.running():
        world.recorder.event(rollout(), Reason.STAGE_STARTED, "5%")
        world.recorder.event(rollout(), Reason.STAGE_STARTED, "25%")
        world.recorder.event(rollout("other", "u2"), Reason.STAGE_STARTED, "25%")
        await world.recorder.flush()
    assert len(world.events()) == 3


async def test_after_a_while_a_repeat_is_a_new_event(world):
    async with world.running():
        world.recorder.event(rollout(), Reason.NO_DATA, "again")
        await asyncio.sleep(700)
        world.recorder.event(rollout(), Reason.NO_DATA, "again")
        await world.recorder.flush()
    assert len(world.events()) == 2


async def test_an_outage_is_waited_out_and_what_is_refused_is_counted(world):
    world.api.fault(Answer(503), times=2)
    async with world.running():
        world.recorder.event(rollout(), Reason.PROMOTED, "done")
        await world.recorder.flush(60)
        assert len(world.events()) == 1
        world.api.fault(Answer(403, "events is forbidden"))
        world.recorder.event(rollout(), Reason.PROMOTED, "done too")
        await world.recorder.flush()
    assert len(world.events()) == 1
    assert world.failures("refused") == 1


async def test_a_dead_api_server_costs_the_event_and_nothing_else(world):
    world.api.fault(Hang(), times=None)
    async with world.running():
        world.recorder.event(rollout(), Reason.PROMOTED, "done")
        await world.recorder.flush(1)
        await asyncio.sleep(300)
    assert world.failures("unavailable") == 1


async def test_an_object_that_talks_too_much_is_cut_short(world):
    async with world.running():
        for n in range(40):
            world.recorder.event(rollout(), Reason.STAGE_HELD, f"note {n}")
        world.recorder.event(rollout("quiet", "u2"), Reason.STAGE_HELD, "heard")
        await world.recorder.flush()
        assert len(world.events()) == 26
        assert world.failures("spam") == 15
        await asyncio.sleep(31)
        world.recorder.event(rollout(), Reason.STAGE_HELD, "heard again")
        await world.recorder.flush()
    assert len(world.events()) == 27


async def test_a_full_queue_never_blocks(world):
    for n in range(1010):
        world.recorder.event(rollout("x", f"u{n}"), Reason.STAGE_HELD, "note")
    assert world.failures("full") == 10


async def test_a_long_note_is_cut(world):
    async with world.running():
        world.recorder.event(rollout(), Reason.STAGE_HELD, "x" * 3000)
        await world.recorder.flush()
    assert len(world.events()[0]["note"]) == 1024
