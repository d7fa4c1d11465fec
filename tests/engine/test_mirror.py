"""A stage that copies requests to the canary before anybody is served by it."""

from dataclasses import replace

import pytest
from pydantic import ValidationError
from world import FAIL, V2, V3, World, spec

from canary_rollout.model.commands import Verb
from canary_rollout.model.conditions import Phase
from canary_rollout.model.spec import Stage

COPIES = {"name": "copies", "weight": "0%", "mirror": "10%", "hold": "60s"}
FIRST = {"name": "first", "weight": "0.5%", "hold": "60s"}
ALL = {"name": "all", "weight": "100%", "hold": "60s"}


def mirroring() -> World:
    world = World(spec=spec(stages=[COPIES, FIRST, ALL])).run()
    return world.release().run()


def split(world: World) -> tuple[int, int]:
    return world.route.weight, world.route.mirror


def test_requests_are_copied_for_a_whole_hold_before_anybody_is_served():
    world = mirroring()
    assert (split(world), world.state.stage) == ((0, 1000), "copies")
    assert world.canary.paused, "its template is held as under any traffic"
    assert "Copying 10% of the requests in stage copies" in world.message
    world.run(59.0)
    assert split(world) == (0, 1000)
    world.run(1.0).run()
    assert (split(world), world.state.stage) == ((50, 0), "first")


def test_a_failing_rule_ends_the_copying_and_condemns_the_revision():
    world = mirroring()
    world.rules = FAIL
    world.run()
    assert split(world) == (0, 0)
    assert world.state.halt_of(V2).rule == "error-rate"
    assert world.state.phase in {Phase.ROLLING_BACK, Phase.ROLLED_BACK}


def test_a_new_revision_gets_no_copies_before_its_own_stage():
    world = mirroring()
    world.release(V3)
    world.look()
    world.look()
    assert split(world) == (0, 0)
    world.run(60.0)
    world.run()
    assert (split(world), world.state.revision) == ((0, 1000), V3)


def test_weight_0_by_command_ends_the_copying_until_resume():
    world = mirroring()
    world.run(60.0).run()
    world.say(Verb.SET_WEIGHT, weight="0%").run()
    assert split(world) == (0, 0)
    world.say(Verb.RESUME).run()
    assert split(world) == (50, 0)


def test_a_share_that_somebody_raised_is_corrected_at_once():
    world = mirroring()
    world.version += 1
    world.route = replace(world.route, mirror=10_000, contested_by="kubectl-edit", resource_version=str(world.version))
    world.look()
    assert split(world)[1] <= 1000


def test_a_pause_keeps_copying():
    world = mirroring()
    world.say(Verb.PAUSE).run(300.0)
    assert (split(world), world.state.phase) == ((0, 1000), Phase.PAUSED)
    world.say(Verb.RESUME).run(70.0)
    world.run()
    assert split(world) == (50, 0)


def test_the_spec_s_pause_lets_no_copying_begin():
    world = World(spec=spec(stages=[COPIES, FIRST, ALL], paused=True)).run()
    world.release().run(600.0)
    assert split(world) == (0, 0)


@pytest.mark.parametrize(
    "stage", [{**FIRST, "mirror": "10%"}, {**COPIES, "mirror": "0%"}, {"name": "x", "weight": "0%", "hold": "1m"}]
)
def test_copies_are_for_weight_0_and_weight_0_is_for_copies(stage):
    with pytest.raises(ValidationError, match="mirror"):
        Stage.model_validate(stage)
