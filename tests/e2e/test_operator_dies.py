"""kill -9 of the operator: what it knew is in the cluster, and whoever comes next goes on from there."""

import time

import pytest
from release_play import HELD_AT_25, LEASE, SYSTEM, stage, told

from canary_rollout.local.demo_measure import BreachPoller, breach_query

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]


async def test_killed_while_the_metric_turns_bad_it_takes_the_traffic_off_as_soon_as_it_is_back(play):
    await play.serve(play.spec(HELD_AT_25), "25%")
    operator = await play.one_operator()
    await operator.kill()
    mark = play.mark
    await play.tell_canary("error_rate=0.3")
    selector = 'namespace="shop",pod=~"checkout-canary-.*"'
    await BreachPoller(
        play.cluster.prometheus_url, breach_query(selector, above=0.01, min_requests=10, window="5s")
    ).run()
    assert play.weight == 2500  # nobody is there to lower it
    lag = play.lag()
    again = await play.start_operator(operator.identity)
    lowered = await play.until_weight(0)
    told(f"start of the operator -> weight 0 seen: {lowered - again.started:.2f} s (asked for: 5 s)")
    assert lowered - again.started < 10 + await play.held_up(lag)
    await play.until(lambda: play.phase == "RolledBack", "the end of the rollback")
    assert play.status["halt"]["rule"] == "error-rate"
    await play.tell_canary("error_rate=0")
    await play.never(lambda: play.weight > 0, "raised after a fail", 6)
    assert play.weights_after(mark) == [0]


async def test_a_second_replica_takes_over_within_the_lease_and_skips_no_stage(play):
    stages = (
        stage("friendly", "5%", "8s"),
        stage("early", "10%", "3s"),
        stage("beta", "25%", "3s"),
        stage("ga", "100%", "2s"),
    )
    operator = await play.one_operator()
    other = await play.start_operator("operator-b")
    await other.ready()
    mark = play.mark
    tag = await play.serve(play.spec(stages), "5%")
    lag = play.lag()
    killed = await operator.kill()
    lease = await play.cluster.admin.wait_for(
        "coordination.k8s.io/v1",
        "Lease",
        LEASE,
        lambda found: found["spec"].get("holderIdentity") == other.identity,
        namespace=SYSTEM,
        timeout=90,
    )
    took = time.monotonic() - killed
    told(f"kill -9 -> Lease taken by the other replica: {took:.1f} s (asked for: 15 s)")
    assert took < 20 + await play.held_up(lag)
    assert lease["spec"]["leaseTransitions"] >= 1
    await play.until(lambda: play.phase == "Succeeded", "the end of the rollout")
    await play.until_weight(0)
    assert [weight for weight in play.weights_after(mark) if weight] == [500, 1000, 2500, 10_000]
    assert (await play.cast.stable_image()).endswith(f":{tag}")
