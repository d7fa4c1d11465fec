"""Prometheus is away, the canary crashes, an agent is killed: what the operator and nginx do by themselves."""

import asyncio
import signal
import time

import pytest
from release_play import HELD_AT_5, HELD_AT_25, PATIENCE, nothing_lost, second_load, told

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]

AWAY_SECONDS = 20.0
STALE_SECONDS = 3.0


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_prometheus_away_neither_rolls_back_nor_advances_and_the_stage_goes_on_when_it_is_back(play, how):
    """Issue: 2 minutes; here 20 s, which is 20 intervals and longer than both the stage's hold and holdFor."""
    stages = [{"name": "beta", "weight": "25%", "hold": "14s"}, {"name": "ga", "weight": "100%", "hold": "1h"}]
    spec = play.spec(stages, onNoData={"holdFor": "8s", "then": "Pause"})
    await play.serve(spec, "25%")
    prometheus = play.cluster.prometheus
    mark = play.mark
    before = await play.load.counts()
    if how == "stopped":
        await prometheus.stop()
    else:
        prometheus.freeze()  # it takes connections and answers nothing
    away = time.monotonic()
    try:
        said = await play.until(lambda: "no data" in play.status["message"], "status to say that there are no numbers")
        told(f"Prometheus {how} -> said in status: {said - away:.1f} s: {play.status['message']}")
        assert not play.holds("25%")
        await play.until(
            lambda: {one["reason"] for one in play.status["verdicts"] if one["action"]} == {"NoData"},
            "halt rules to say why",
        )
        told(str(play.status["verdicts"]))
        await play.until(lambda: play.phase == "Paused", "a pause after holdFor")
        told(f"after holdFor: {play.status['message']}")
        assert {one["reason"] for one in play.status["conditions"]} == {"PausedNoData"}
        await play.never(
            lambda: play.mark > mark, "a weight was written without data", away + AWAY_SECONDS - time.monotonic()
        )
    finally:
        if how == "stopped":
            await prometheus.start()
        else:
            prometheus.thaw()
    back = time.monotonic()
    resumed = await play.until(lambda: play.phase != "Paused", "the rollout to resume by itself")
    raised = await play.until_weight(10_000)
    told(f"Prometheus back -> resumed {resumed - back:.1f} s, next stage {raised - back:.1f} s")
    assert raised - back > 4  # the hold of 14 s had hardly begun, and stood still meanwhile
    assert play.weights_after(mark) == [10_000]
    assert "halt" not in play.status
    assert nothing_lost(before, await play.load.counts()) == {"transport_errors": 0, "no_app": 0, "not_sent": 0}


async def test_canary_pods_that_crash_lose_their_traffic_at_once_and_for_good_although_they_come_back(play):
    await play.serve(play.spec(HELD_AT_25), "25%")
    mark, crashes, lag = play.mark, len(play.sights.crashes), play.lag()
    await play.tell_canary("crash=true")
    lowered = await play.until_weight(0)
    await play.until(lambda: len(play.sights.crashes) > crashes, "the crash in the pod's status")  # another watch
    crashed = play.sights.crashes[crashes].at
    told(f"pod status seen -> weight 0 seen: {(lowered - crashed) * 1000:.0f} ms (asked for: 300 ms)")
    assert lowered - crashed < 2 + await play.held_up(lag)
    await play.until(lambda: play.phase == "RolledBack", "the end of the rollback")
    assert play.status["halt"]["reason"] == "CanaryCrashed"
    async with asyncio.timeout(PATIENCE):
        while not all(ready(pod) for pod in await play.pods("app=checkout,track=canary")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await play.never(lambda: play.weight > 0, "raised when the pods came back", 5)
    assert play.weights_after(mark) == [0]


def ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


async def test_nginx_serves_stable_by_itself_when_its_agent_is_killed_and_as_wanted_when_it_is_back(play):
    spec = play.spec(HELD_AT_5)
    spec["traffic"]["nginx"]["staleAfter"] = f"{STALE_SECONDS:g}s"
    tag = await play.serve(spec, "5%")
    proxy = (await play.pods("app=checkout-proxy"))[0]
    name, address = proxy["metadata"]["name"], play.cluster.listen_address(proxy["status"]["podIP"])
    canary = f"canary/{tag}"

    async with second_load(address) as load:

        def answers():
            count = load.latest.versions.get(canary)
            return count.answers if count else 0

        await play.until(lambda: answers() > 20, "the canary to be served through this pod")
        # Twice, so that the node waits before it starts it again, as a kubelet does.
        for _ in range(2):
            await play.until(lambda: play.container(name, "agent") is not None, "the agent")
            play.container(name, "agent").send_group(signal.SIGKILL)
            killed = time.monotonic()
            await play.until(lambda: play.container(name, "agent") is None, "the agent's end")
        await asyncio.sleep(STALE_SECONDS + 1.0)
        assert play.container(name, "agent") is None
        counts = await load.counts()
        last = counts.versions[canary].last_begin
        told(
            f"agent killed -> last request that went to the canary: {last - killed:.2f} s (staleAfter {STALE_SECONDS:g} s)"
        )
        assert last - killed < STALE_SECONDS + 0.5
        assert counts.sent > counts.versions[canary].answers
        await play.until(lambda: play.container(name, "agent") is not None, "the agent started again")
        back = time.monotonic()
        seen = answers()
        await play.until(lambda: answers() > seen + 20, "the canary to be served again")
        told(f"agent's process back -> canary served again: {time.monotonic() - back:.1f} s at most")
        final = await load.counts()
    lost = {name: getattr(final, name) for name in ("transport_errors", "no_app", "not_sent")}
    assert lost == {"transport_errors": 0, "no_app": 0, "not_sent": 0}
    assert play.weight == 500
