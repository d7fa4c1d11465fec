"""``start``: the command first, then the image, both about the revision that the API server itself computed."""

import pytest

from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, ConflictError, InvalidError
from canary_rollout.model.commands import PREFIX
from canary_rollout.workloads.view import deployment_revision, selector_labels

NEW = "shop/checkout:2.0"


def canary(world, name="checkout-canary"):
    return world.api.objects[DEPLOYMENTS.plural, "shop", name]


def revision(world):
    labels = selector_labels(canary(world, "checkout"), canary(world))
    return deployment_revision(canary(world), labels, ())


def writes(world):
    return [(verb, plural) for verb, plural, _ in world.api.calls if verb in {"patch", "dry-run"}]


def test_weight_is_sent_about_the_revision_that_the_new_image_makes(world):
    result = world.run("start", "checkout", "--image", NEW, "--weight", "10%")
    assert result.exit_code == 0
    assert world.sent.args.weight == "10%"
    assert world.sent.revision == revision(world)
    assert f"shop/checkout:1.0 -> {NEW}" in result.stdout


def test_the_command_is_there_before_the_image_changes(world):
    world.run("start", "checkout", "--image", NEW, "--weight", "10%")
    assert writes(world) == [
        ("dry-run", DEPLOYMENTS.plural),
        ("patch", CANARY_ROLLOUTS.plural),
        ("patch", DEPLOYMENTS.plural),
    ]


def test_stages_are_per_cent_with_or_without_the_sign(world):
    world.run("start", "checkout", "--image", NEW, "--stages", "0.5,10%, 100", "--interval", "90s")
    assert world.sent.args.stages == ("0.5%", "10%", "100%")
    assert world.sent.args.interval == "90s"


def test_stages_are_held_ten_minutes_unless_told_otherwise(world):
    world.run("start", "checkout", "--image", NEW, "--stages", "10,100")
    assert world.sent.args.interval == "10m"


def test_plain_start_changes_the_image_and_waits_for_the_new_revision(world):
    tick = world.operator.tick

    def take_up():
        tick()
        world.rollout()["status"] |= {"revision": revision(world), "message": "preparing"}

    world.operator.tick = take_up
    result = world.run("start", "checkout", "--image", NEW)
    assert result.exit_code == 0
    assert "preparing" in result.stdout
    assert "annotations" not in world.rollout()["metadata"]
    assert canary(world)["spec"]["template"]["spec"]["containers"][0]["image"] == NEW


def test_plain_start_without_an_operator_ends_with_three(world):
    result = world.run("start", "checkout", "--image", NEW)
    assert result.exit_code == 3
    assert "the image is set" in result.stderr


def test_plain_start_need_not_wait(world):
    assert world.run("start", "checkout", "--image", NEW, "--no-wait").exit_code == 0
    assert world.slept == 0


def test_of_several_containers_one_has_to_be_named(world, make):
    world.put(make["deployment"]("checkout-canary", containers=("app", "log")))
    result = world.run("start", "checkout", "--image", NEW, "--no-wait")
    assert result.exit_code == 2
    assert "--container" in result.stderr
    assert "app, log" in result.stderr
    assert world.run("start", "checkout", "--image", NEW, "--container", "log", "--no-wait").exit_code == 0
    images = [container["image"] for container in canary(world)["spec"]["template"]["spec"]["containers"]]
    assert images == ["shop/checkout:1.0", NEW]


def test_a_container_that_is_not_there_is_refused(world):
    result = world.run("start", "checkout", "--image", NEW, "--container", "web")
    assert result.exit_code == 2
    assert "it has app" in result.stderr


def test_the_image_it_has_already_starts_nothing(world):
    result = world.run("start", "checkout", "--image", "shop/checkout:1.0", "--weight", "10%")
    assert result.exit_code == 1
    assert "set-weight" in result.stderr
    assert writes(world) == []


def test_a_canary_that_does_not_exist_is_named(world, make):
    world.put(make["rollout"](name="cart"))
    result = world.run("start", "cart", "--image", NEW)
    assert result.exit_code == 1
    assert "cart-canary" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--stages", "10,5,100"],
        ["--stages", "10,50"],
        ["--stages", "0,100"],
        ["--stages", "x"],
        ["--stages", ""],
        ["--stages", "10,100", "--interval", "soon"],
        ["--interval", "10m"],
        ["--weight", "10%", "--stages", "10,100"],
        ["--weight", "10"],
    ],
)
def test_stages_and_weights_that_make_no_sense_are_refused_before_anything_is_asked(world, words):
    result = world.run("start", "checkout", "--image", NEW, *words)
    assert result.exit_code == 2
    assert world.api.calls == []


@pytest.mark.parametrize("image", ["", "a b", "x\ny", "-v", "a;b", "x" * 600])
def test_what_is_no_image_is_refused(world, image):
    result = world.run("start", "checkout", f"--image={image}")
    assert result.exit_code == 2
    assert world.api.calls == []


def test_when_somebody_else_was_faster_the_command_is_taken_back(world):
    real = world.api.json_patch

    async def lose(*given, dry_run=False, **more):
        if not dry_run:
            raise ConflictError("test does not hold", status=422)
        return await real(*given, dry_run=True, **more)

    world.api.json_patch = lose
    result = world.run("start", "checkout", "--image", NEW, "--weight", "10%")
    assert result.exit_code == 1
    assert "somebody else changed checkout-canary" in result.stderr
    assert PREFIX + "start" not in world.rollout()["metadata"]["annotations"]
    assert world.operator.seen == []


def test_an_image_the_server_refuses_takes_the_command_back_too(world):
    world.api.fail["patch", DEPLOYMENTS.plural] = InvalidError("denied by policy", status=422)
    result = world.run("start", "checkout", "--image", NEW, "--weight", "10%")
    assert result.exit_code == 1
    assert "denied by policy" in result.stderr
    assert world.rollout()["metadata"]["annotations"] == {}


def test_when_it_is_not_known_whether_the_image_arrived_the_command_stays(world, make):
    world.api.fail["patch", DEPLOYMENTS.plural] = make["unavailable"]()
    assert world.run("start", "checkout", "--image", NEW, "--weight", "10%").exit_code == 3
    assert PREFIX + "start" in world.rollout()["metadata"]["annotations"]


@pytest.mark.parametrize("words", [(), ("--weight", "10%")])
def test_a_revision_that_was_stopped_before_is_refused_before_anything_is_written(world, words):
    canary(world)["spec"]["template"]["spec"]["containers"][0]["image"] = NEW
    halt = {"revision": revision(world), "reason": "RuleFailed", "message": "7.4% failed"}
    canary(world)["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/checkout:1.0"
    world.rollout()["status"]["rollout"]["halts"] = [halt]
    result = world.run("start", "checkout", "--image", NEW, *words)
    assert result.exit_code == 1
    assert "was stopped before (7.4% failed), and nothing was changed" in result.stderr
    assert "set image deployment/checkout-canary app=shop/checkout:2.0`, then `kubectl canary retry" in result.stderr
    assert writes(world) == [("dry-run", DEPLOYMENTS.plural)]


def test_a_plan_for_what_stable_runs_already_is_refused_before_anything_is_written(world):
    canary(world)["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/checkout:0.9"
    result = world.run("start", "checkout", "--image", "shop/checkout:1.0", "--weight", "10%")
    assert result.exit_code == 1
    assert "what stable runs already" in result.stderr
    assert writes(world) == [("dry-run", DEPLOYMENTS.plural)]
