"""The largest status there can be: as many rules, gates, gauges, pods and tenants as the model allows, all of them failing."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from judged import pair, samples
from operator_world import World
from small_specs import make_spec

from canary_rollout.analysis.comparing import policy_of
from canary_rollout.analysis.evidence import LARGEST_SEEN, Evidence
from canary_rollout.analysis.fitting import LARGEST_CHECKPOINT, encoded
from canary_rollout.analysis.readings import CounterReadings, CounterSample
from canary_rollout.analysis.rules import assess
from canary_rollout.controller.running import MOST_WEIGHTS, begin, restored
from canary_rollout.engine import fitting
from canary_rollout.engine.decision import Decision
from canary_rollout.engine.fitting import LARGEST_STATUS, fitted
from canary_rollout.engine.report import Facts, report
from canary_rollout.kube.port import CANARY_ROLLOUTS
from canary_rollout.model.conditions import Phase, Reason
from canary_rollout.model.effective import MOST_RULES, resolve
from canary_rollout.model.schema import spec_schema
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus, RolloutState

EPOCH = 1_800_000_000.0
ROOM = 2400
"""Bytes that hold the status of a small rollout without its comparison, and not with it."""
EDGES = (0.05, 0.1, 0.25, 0.5, 1.0, math.inf)
TAILS = (0.4, 0.2, 0.1, 0.03, 0.004, 0.0)
SCHEMA = spec_schema(CanaryRolloutSpec)["properties"]


def most(*path: str) -> int:
    """The ``maxItems`` of a list in the CRD."""
    node = {"properties": SCHEMA}
    for part in path:
        node = node["properties"][part]
        last, node = node, node.get("items", node)
    return int(last["maxItems"])


def rule(name, **more):
    return {
        "name": f"{name}-{'n' * 50}",
        "query": f"{name}($pods)",
        "above": "0",
        "for": "24h",
        "minRequests": 0,
        **more,
    }


def gate(name):
    return {"name": f"{name}-{'n' * 50}", "query": f"{name}($pods)", "max": "1", "for": "24h", "minRequests": 0}


def largest_spec() -> CanaryRolloutSpec:
    """As many rules and gates as the CRD lets through, each with a series of its own and a ``for``."""
    raw = make_spec(rules=[], source="agent").model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["haltRules"] = [rule(f"r{number:02d}") for number in range(most("haltRules"))]
    first, last = raw["stages"]
    first["haltRules"] = [rule(f"s{number}") for number in range(most("stages", "haltRules"))]
    first["exit"] = [gate(f"x{number}") for number in range(most("stages", "exit"))]
    last["entry"] = [gate(f"e{number}") for number in range(most("stages", "entry"))]
    raw["traffic"]["sticky"] = {"header": "X-Tenant-ID"}
    raw["analysis"] = {"maxErrorRate": "20%", "certify": "1%"}
    raw["defaultHaltRules"] = True
    spec = resolve(CanaryRolloutSpec.model_validate(raw), lambda _: "none").spec
    # Sets can bring it to as many as there may be.
    more = tuple(replace_name(spec.halt_rules[-1], number) for number in range(MOST_RULES - len(spec.halt_rules)))
    return spec.model_copy(update={"halt_rules": (*spec.halt_rules, *more)})


def replace_name(found, number):
    return found.model_copy(update={"name": f"more-{number}-{'n' * 40}", "query": f"more_{number}($pods)"})


def ticks(rng, count, first):
    """Counters of 64 pods a version and 500 buckets of tenants; the canary fails half of everything and is slow."""
    totals: dict[tuple[str, str, str, float | None], float] = {}

    def add(arm, pod, series, value, le=None):
        key = (arm, pod, series, le)
        totals[key] = totals.get(key, 0.0) + value

    for number in range(count):
        for arm, buckets, fails, slower in (("stable", range(50, 500), 0.003, 1.0), ("canary", range(50), 0.5, 2.2)):
            for bucket in buckets:
                asked = int(rng.integers(800, 1200))
                add(arm, f"bucket:{bucket}", "requests", asked)
                add(arm, f"bucket:{bucket}", "errors", rng.binomial(asked, fails))
            for pod in range(64):
                asked = int(rng.integers(4000, 6000))
                add(arm, f"{arm}-{pod}", "requests", asked)
                for edge, tail in zip(EDGES, TAILS, strict=True):
                    add(
                        arm,
                        f"{arm}-{pod}",
                        "latency_bucket",
                        asked - rng.binomial(asked, min(1.0, tail * slower)),
                        edge,
                    )
        at = first + 10.0 * number
        found = [CounterSample(arm, pod, series, value, le) for (arm, pod, series, le), value in totals.items()]
        found += [
            CounterSample(arm, f"{arm}-{pod}", f"gauge:{name}", 0.2 * (pod + 1) * (3 if arm == "canary" else 1))
            for arm in ("stable", "canary")
            for pod in range(64)
            for name in ("memory", "cpu")
        ]
        yield CounterReadings(at, tuple(found), tenants=True)


async def compared(spec):
    """A comparison of everything at once, after its restarts and a fail of every test."""
    policy = policy_of(spec)
    running = begin(policy, 10.0, EPOCH)
    rng = np.random.default_rng(3)
    past = [replace(found, at=EPOCH - 60.0 * (90 - number)) for number, found in enumerate(ticks(rng, 90, EPOCH))]
    await running.learn(past, sticky=True)
    running.weights = [(EPOCH + 10 * number, 500 + number) for number in range(MOST_WEIGHTS)]
    await running.feed(list(ticks(rng, 90, EPOCH)), sticky=True)
    return running


@pytest.fixture(scope="module")
def largest():
    """The largest spec, its comparison and the evidence of an evaluation at which all of it fails."""
    spec = largest_spec()
    running = asyncio.run(compared(spec))
    given = samples(spec, EPOCH, own=pair(0.0, 9.0), error_rate=pair(0.0, 0.5))
    found = running.compared(running.through)
    seen = frozenset(f"of-old~{number:08x}" for number in range(LARGEST_SEEN - 80))
    evidence = Evidence(seen_canary=seen, seen_stable=frozenset(name[::-1] for name in seen))
    assessment, evidence = assess(spec, spec.stages[0], given, evidence, EPOCH, found)
    return spec, running, assessment, evidence


def test_the_lists_that_fill_a_status_are_bounded_by_the_crd():
    assert (most("haltRules"), most("stages"), most("stages", "haltRules")) == (32, 32, 8)
    assert (most("stages", "exit"), most("stages", "entry"), most("haltRuleSets")) == (16, 8, 8)


def test_the_largest_checkpoint_fits_and_has_all_evidence(largest):
    _, running, _, _ = largest
    written = running.checkpoint().written()
    assert encoded(written) <= LARGEST_CHECKPOINT
    assert "left" not in written
    fails = [found.rule for found in running.tests if found.outcome == "fail"]
    assert len(fails) >= 4
    again = restored(running.policy, 10.0, json.loads(json.dumps(written)))
    assert again.weights == running.weights


def reported(largest, message, words=None):
    """The status after that evaluation, as it would be without any bound, and as it is written."""
    spec, _, assessment, evidence = largest
    if words is not None:
        assessment = replace(assessment, rules=tuple(replace(found, message=words) for found in assessment.rules))
    state = RolloutState(phase=Phase.PROGRESSING, revision="0123456789", stage=spec.stages[0].name, wanted=500)
    decision = Decision(state, (), False, (), None, None, False, None, None, Reason.NO_DATA, message, True, True)
    status = report(CanaryRolloutStatus(), decision, Facts(spec, 7, None, assessment, evidence.to_dict(), EPOCH))
    return fitted(status)


@pytest.mark.thorough
def test_the_largest_status_fits(largest):
    _, _, assessment, evidence = largest
    assert len(assessment.rules) == MOST_RULES + 8
    status, left = reported(largest, "m" * 5000)
    assert encoded(status.to_dict()) <= LARGEST_STATUS
    assert status.verdicts
    assert Evidence.from_dict(status.evidence).seen_stable == evidence.seen_stable
    assert reported(largest, "m" * 5000) == (status, left), "the same is left out every time"


def test_texts_that_are_not_ascii_do_not_make_it_larger(largest):
    status, _ = reported(largest, "ü" * 5000, "ü" * 5000)
    assert encoded(status.to_dict()) <= LARGEST_STATUS


async def released(*, killed):
    """A whole release under the comparison: its status writes, what was left out of them, and its weights."""
    world = await World(analysis={}).build()
    async with world.run():
        await world.serve("first")
        if killed:
            await world.reach("second")
            await world.restart()
        await world.rest("Succeeded", 1800)
    writes = [call for call in world.writes(CANARY_ROLLOUTS) if call.subresource == "status"]
    return world, len(writes), {part for parts in world.told.left for part in parts}


@pytest.mark.looptime
async def test_a_status_without_room_is_written_as_often_and_says_what_it_lacks(monkeypatch):
    _, often, left = await released(killed=False)
    assert left == set()
    monkeypatch.setattr(fitting, "LARGEST_STATUS", ROOM)
    world, written, left = await released(killed=False)
    assert (written, left) == (often, {"comparison"})
    assert encoded(world.status) <= ROOM
    assert world.raised == [50, 500, 2500, 10000]


@pytest.mark.looptime
async def test_a_restart_without_the_evidence_there_was_no_room_for_ends_well(monkeypatch):
    monkeypatch.setattr(fitting, "LARGEST_STATUS", ROOM)
    world, _, left = await released(killed=True)
    assert left == {"comparison"}
    assert world.raised == [50, 500, 2500, 10000]
