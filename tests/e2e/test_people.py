"""What people do to a rollout that serves: delete it, write nonsense into it, and every command of ``kubectl canary``."""

import asyncio

import pytest
from release_play import CANARY, HELD_AT_5, HELD_AT_25, NAMESPACE, PATIENCE, ROLLOUT, nothing_lost, stage, told

from canary_rollout.local.demo_measure import ROLLOUT_KIND

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]


async def test_deleting_it_in_a_stage_leaves_traffic_on_stable_and_the_canarys_deployment_free(play):
    tag = await play.serve(play.spec(HELD_AT_25), "25%")
    admin = play.cluster.admin
    deployment = await admin.get("apps/v1", "Deployment", CANARY, namespace=NAMESPACE)
    assert deployment["spec"]["paused"] is True
    async with asyncio.timeout(PATIENCE):
        while f"canary/{tag}" not in (before := await play.load.counts()).versions:  # noqa: ASYNC110  # nothing would set an event
            await asyncio.sleep(0.1)
    await admin.delete(*ROLLOUT_KIND, ROLLOUT, namespace=NAMESPACE)
    await admin.wait_gone(*ROLLOUT_KIND, ROLLOUT, namespace=NAMESPACE, timeout=PATIENCE)
    await play.until_weight(0)
    deployment = await admin.get("apps/v1", "Deployment", CANARY, namespace=NAMESPACE)
    assert not deployment["spec"].get("paused")
    now = await play.until_nobody_new(f"canary/{tag}")
    await asyncio.sleep(2)
    later = await play.load.counts()
    assert later.sent > now.sent
    assert later.versions[f"canary/{tag}"].answers == now.versions[f"canary/{tag}"].answers
    assert nothing_lost(before, later) == {"transport_errors": 0, "no_app": 0, "not_sent": 0}


async def test_pods_of_a_revision_that_was_rolled_back_answer_nothing_of_the_next_ones_share(play):
    """They end gracefully for a while after the next ones are ready, and nginx keeps connections to them."""
    old = await play.serve(play.spec(HELD_AT_25), "25%")
    await play.canary("rollback", ROLLOUT, "--reason", "not this one")
    await play.until(lambda: play.phase == "RolledBack", "the rollback")
    before = await play.until_nobody_new(f"canary/{old}")
    new = await play.serve(play.spec(HELD_AT_25), "25%")
    await play.until(lambda: f"canary/{new}" in play.load.latest.versions, "the next one to answer")
    await asyncio.sleep(1.5)
    after = await play.load.counts()
    assert after.versions[f"canary/{new}"].answers > 0
    assert after.versions[f"canary/{old}"].answers == before.versions[f"canary/{old}"].answers > 0
    assert nothing_lost(before, after) == {"transport_errors": 0, "no_app": 0, "not_sent": 0}


async def test_a_service_that_does_not_exist_is_named_and_nothing_is_raised_until_it_is_mended(play):
    spec = play.spec(HELD_AT_25)
    spec["workload"]["canary"]["service"] = "chekout-canary"
    before, mark = play.log.revision, play.mark
    await play.apply(spec)
    await play.release()
    await play.until(lambda: "chekout-canary" in play.status.get("message", ""), "status to name the Service")
    told(play.status["message"])
    assert "does not exist" in play.status["message"]
    assert "create it or correct the name" in play.status["message"]
    await play.never(lambda: play.weight > 0, "raised to a Service that does not exist", 3)
    await play.apply(play.spec(HELD_AT_25))
    await play.until(lambda: play.log.revision != before and play.holds("25%"), "the rollout to go on")
    assert [weight for weight in play.weights_after(mark) if weight] == [2500]


async def test_a_query_that_does_not_parse_is_told_and_holds_the_stage_until_it_is_mended(play):
    rule = {"name": "mine", "query": 'sum(rate(http_requests_total{pod=~"$pods"}[$window])', "above": "1000000"}
    stages = [stage("friendly", "5%", "2s"), stage("beta", "25%", "1h"), stage("ga", "100%", "1h")]
    spec = play.spec(stages)
    mended = play.spec(stages)
    spec["haltRules"] = [*spec["haltRules"], {**rule, "for": "0s", "minRequests": 0}]
    mended["haltRules"] = [*mended["haltRules"], {**rule, "query": rule["query"] + ")", "for": "0s", "minRequests": 0}]
    mark = play.mark
    await play.apply(spec)
    await play.release()

    def verdict():
        return next((one for one in play.status.get("verdicts") or [] if one["rule"] == "mine"), {"message": ""})

    await play.until(lambda: "parse" in verdict()["message"], "a verdict that names the mistake")
    told(f"{verdict()['message']} | {play.status['message']}")
    assert "correct it in the spec" in verdict()["message"]
    assert verdict()["verdict"] == "none"
    await play.never(lambda: play.weight > 500, "raised past a rule that cannot be judged", 5)
    await play.apply(mended)
    await play.until(lambda: play.holds("25%"), "the rollout to go on")
    assert [weight for weight in play.weights_after(mark) if weight] == [500, 2500]


async def test_every_command_of_kubectl_canary_against_the_running_operator(play):
    await play.serve(play.spec(HELD_AT_5), "5%")
    mark = play.mark
    before = await play.load.counts()
    await play.canary("pause", ROLLOUT, "--reason", "lunch")
    await play.until(lambda: play.phase == "Paused", "the pause")
    assert "lunch" in play.status["message"] + str(play.status["rollout"]["pause"])
    await play.canary("resume", ROLLOUT)
    await play.until(lambda: play.holds("5%"), "the stage to go on")
    await play.canary("set-weight", ROLLOUT, "10%")
    await play.until_weight(1000)
    said = await play.canary("set-weight", ROLLOUT, "101%", code=2)
    told(said.strip().splitlines()[-1])
    await play.canary("rollback", ROLLOUT, "--reason", "the colours are wrong")
    await play.until(lambda: play.phase == "RolledBack", "the rollback")
    assert "the colours are wrong" in play.status["halt"]["message"]
    said = await play.canary("set-weight", ROLLOUT, "10%", code=1)
    told(said.strip().splitlines()[-1])
    assert "retry" in said
    await play.until_weight(0)
    await play.canary("retry", ROLLOUT)
    await play.until(lambda: play.holds("5%"), "the second try")
    assert play.weights_after(mark) == [1000, 0, 500]
    shown = await play.canary("status", ROLLOUT)
    assert "friendly" in shown
    assert "5%" in shown
    await play.canary("versions", ROLLOUT)
    await play.canary("promote", ROLLOUT, "--full", "--yes")
    await play.until(lambda: play.holds("100%"), "everything on the canary")
    assert nothing_lost(before, await play.load.counts()) == {"transport_errors": 0, "no_app": 0, "not_sent": 0}
