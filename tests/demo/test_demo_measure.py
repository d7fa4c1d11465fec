"""What the demo measures: routes, breaches and rates, on one clock."""

import asyncio
import json

from demo_parts import rollout, snapshot

from canary_rollout.local.demo_measure import (
    Breach,
    BreachPoller,
    Rate,
    RolloutLog,
    RouteLog,
    RouteWrite,
    breach_query,
    rates,
    rollback_times,
)
from canary_rollout.local.demo_summary import seconds
from canary_rollout.local.load import VersionCount


def config_map(weight: int, revision: str, written: str) -> dict:
    return {
        "metadata": {"annotations": {"canaryrollout.dev/written-at": written}},
        "data": {"weights.json": json.dumps({"weight": weight, "revision": revision})},
    }


def test_the_route_log_keeps_each_change_once_with_the_operators_own_time():
    log = RouteLog()
    for one in (
        {"metadata": {}},
        config_map(0, "a", "2026-11-21T10:00:00.000Z"),
        config_map(50, "a", "2026-11-21T10:00:01.500Z"),
        config_map(50, "a", "2026-11-21T10:00:09.000Z"),
        config_map(0, "a", "2026-11-21T10:00:10.000Z"),
    ):
        log.take(one)
    assert [write.weight for write in log.writes] == [0, 50, 0]
    assert log.writes[2].written_at - log.writes[1].written_at == 8.5


def test_only_a_fall_from_above_zero_is_a_lowering():
    log = RouteLog(
        [RouteWrite(0, "a", 1, 1), RouteWrite(0, "b", 2, 2), RouteWrite(50, "b", 3, 3), RouteWrite(0, "b", 4, 4)]
    )
    assert log.lowered_to_zero(0).written_at == 4
    assert log.lowered_to_zero(5) is None


def test_the_three_logs_are_put_on_one_clock():
    canary = VersionCount(answers=20, errors=6, first_error=1.0, last_end=5.5)
    times = rollback_times(Breach(1004.0, 1003.9, 0.3), RouteWrite(0, "b", 1005.0, 1005.1), canary, 1000.0)
    assert times.first_failure_to_write == 4.0
    assert times.breach_to_write == 1.0
    assert times.breach_to_last_request == 1.5
    assert times.write_to_last_request == 0.5
    assert (times.answers, times.failed_answers, times.breach_value) == (20, 6, 0.3)


def test_what_was_not_seen_is_not_made_up():
    times = rollback_times(None, None, None, 1000.0)
    assert times.breach_to_last_request is None
    assert times.first_failure_to_write is None
    assert seconds(None) == "not seen"
    assert seconds(-0.25) == "0.25 s before"


async def test_waiting_for_a_status_ends_when_it_comes_and_when_it_does_not():
    log = RolloutLog()
    waiting = asyncio.create_task(log.wait(lambda seen: seen.phase == "Succeeded", 5))
    await asyncio.sleep(0)
    log.take(rollout("Progressing", "5%", stage="first (1/2)", revision="abc"))
    log.take(rollout("Succeeded"))
    assert await waiting
    assert not await log.wait(lambda seen: seen.phase == "Paused", 0.01)
    assert [(moment.phase, moment.weight) for moment in log.moments] == [("Progressing", 500), ("Succeeded", 0)]


async def test_the_poller_goes_on_until_prometheus_answers_a_breach():
    answers = [
        b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        b'{"status":"error"}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}}',
    ]
    served = 0

    async def prometheus(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        body = answers[min(served, 2)]  # an answer that came too late is asked for again
        served += 1
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(prometheus, "127.0.0.1", 0)
    poller = BreachPoller(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "up")
    breach = await asyncio.wait_for(poller.run(), 60)
    server.close()
    for _ in range(10):
        await asyncio.sleep(0.002)
    assert breach.value == 0.25
    assert poller.asked == served >= 3
    assert breach.asked_at <= breach.at


def test_the_breach_query_asks_for_the_rate_and_for_enough_requests():
    query = breach_query('pod=~"a-.*"', above=0.01, min_requests=10, window="10s")
    assert 'http_requests_total{pod=~"a-.*",status=~"5.."}[10s]' in query
    assert "> 0.01" in query
    assert ">= 10" in query


def test_rates_are_differences_over_time():
    before = snapshot(versions={"stable/v1": VersionCount(answers=100, errors=1)})
    now = snapshot(
        monotonic=12.0,
        versions={"stable/v1": VersionCount(answers=300, errors=5), "canary/v2": VersionCount(answers=4)},
    )
    assert rates(before, now) == {"stable/v1": Rate(100.0, 2.0, 300, 5), "canary/v2": Rate(2.0, 0.0, 4, 0)}
