"""What the parts report reaches the metrics, the Events and the guard."""

import time

import pytest
from fake_api import FakeApi

from canary_rollout.controller.guard import Guard
from canary_rollout.controller.instruments import Instruments
from canary_rollout.controller.observers import CallTelemetry, OperatorTelemetry
from canary_rollout.controller.recorder import Recorder
from canary_rollout.engine.decision import Note
from canary_rollout.kube.port import CONFIG_MAPS
from canary_rollout.model.conditions import Reason

pytestmark = [pytest.mark.looptime]


class Fence:
    def valid(self):
        return True


async def test_the_servers_clock_reaches_the_guard_with_every_call():
    calls = CallTelemetry(Instruments())
    client = FakeApi().client(observer=calls)
    await client.list_all(CONFIG_MAPS)
    guard = calls.guard = Guard(Fence(), wall=time.time, mono=time.monotonic)
    await client.list_all(CONFIG_MAPS)
    assert guard.clock_ok()
    client.skew = 60.0
    await client.list_all(CONFIG_MAPS)
    assert guard.skew() == pytest.approx(-60, abs=1.5)
    labels = {"verb": "list", "resource": "configmaps", "code": "200"}
    registry = calls._instruments.registry
    assert registry.get_sample_value("canary_rollout_api_requests_total", labels) == 3


async def test_a_note_becomes_an_event_and_a_line():
    instruments = Instruments()
    recorder = Recorder(FakeApi().client(), instruments, instance="pod-1")
    telemetry = OperatorTelemetry(instruments, recorder)
    rollout = {"metadata": {"name": "checkout", "namespace": "shop", "uid": "u"}}
    telemetry.note(rollout, Note(Reason.RULE_FAILED, "error-rate is 3 %", warning=True))
    assert instruments.registry.get_sample_value("canary_rollout_events_total", {"reason": "RuleFailed"}) == 1
    telemetry.forgot(("shop", "checkout"))
