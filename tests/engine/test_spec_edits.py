"""An edit of the spec while a revision is under way."""

import pytest
from world import World, at_stage, spec, stages

from canary_rollout.model.commands import Verb


@pytest.mark.parametrize(
    "edited",
    [
        stages(("third", {"weight": "60%"})),
        [stage for stage in stages() if stage["name"] != "second"],
        stages(("second", {"enabled": False})),
        stages(("second", {"name": "renamed"})),
        stages(("second", {"weight": "10%"})),
        [stages()[-1]],
        [stages()[0], stages()[-1]],
    ],
)
def test_an_edit_of_the_stages_raises_nothing_by_itself(edited):
    world = at_stage("second").run(30)
    world.spec = spec(stages=edited)
    world.run()
    world.run(29)
    assert (world.weight, world.state.wanted) == (500, 500)
    world.run(61).run()
    assert world.weight > 500, "after a whole hold it goes on"


def test_a_stage_that_is_gone_is_held_anew_as_the_one_below_it():
    world = at_stage("second").run(59)
    world.spec = spec(stages=[stage for stage in stages() if stage["name"] != "second"])
    world.run()
    assert (world.state.stage, world.state.clock.elapsed(world.now)) == ("first", 0.0)
    assert "is gone from the spec" not in world.message
    assert world.run(59).weight == 500
    assert world.run(1).run().weight == 2500


def test_a_renamed_stage_keeps_its_time():
    world = at_stage("second").run(59)
    world.spec = spec(stages=stages(("second", {"name": "zweite"})))
    world.run()
    assert world.state.stage == "zweite"
    assert world.run(1).run().weight == 2500


def test_stages_given_at_the_start_are_not_changed_by_an_edit():
    world = World().run().release()
    world.look()
    world.say(Verb.START, stages=["10%", "100%"], interval="1h").run()
    assert world.weight == 1000
    world.spec = spec(
        stages=stages(("first", {"weight": "50%"}), ("second", {"weight": "60%"}), ("third", {"weight": "70%"}))
    )
    world.run(3590)
    assert world.weight == 1000
    world.run(10).run()
    assert world.weight == 10_000
