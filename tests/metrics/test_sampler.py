"""Sharing, outages and back-off: what many rollouts that ask at once get, and what they cost."""

import asyncio
import random
import threading
from collections import Counter
from contextlib import asynccontextmanager

from metric_requests import make_request, make_spec

from canary_rollout.analysis.readings import EMPTY, ReadingKind
from canary_rollout.metrics.backoff import LONGEST, SHORTEST, Backoff
from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError
from canary_rollout.metrics.sampler import PrometheusSampler, resolution

RULES = [{"name": "errors", "preset": "error-rate", "above": "1%"}]


class Observer:
    def __init__(self):
        self.outcomes = Counter()

    def query_finished(self, server, outcome, seconds):
        assert seconds >= 0
        self.outcomes[outcome] += 1

    def query_held_back(self, server):
        self.outcomes["held back"] += 1


class Canned:
    """A client that answers at once, from the thread it is asked in; counts, and can be told to fail."""

    def __init__(self, url=""):
        self.url = url
        self.asked = []
        self.lock = threading.Lock()
        self.error = None
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    def query(self, text, at, timeout):
        with self.lock:
            self.asked.append((text, at))
        assert self.gate.wait(10)
        if self.error is not None and self.error[0] in text:
            raise self.error[1]
        return [
            {"metric": {"namespace": "shop", "cr_arm": f"{arm}-"}, "value": [at, value]}
            for arm, value in (("checkout-6b7f9c", "500"), ("checkout-canary-7d8e", "7"))
        ]

    def close(self):
        self.closed = True


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def canned(observer=None):
    client, clock = Canned(), Clock()
    sampler = PrometheusSampler(observer, connect=lambda _: client, now=clock)
    try:
        yield sampler, client, clock
    finally:
        client.gate.set()
        await sampler.close()


def spec(server="http://127.0.0.1:9", **more):
    return make_spec(server, **({"rules": RULES} | more))


def values(samples, what="error-rate"):
    return next([reading.value for reading in pair] for key, pair in samples.readings.items() if key.what == what)


def kinds(samples):
    return {reading.kind for pair in samples.readings.values() for reading in pair}


async def test_all_who_ask_in_a_sub_tick_share_one_answer_and_one_time():
    async with canned() as (sampler, client, clock):
        requests = [make_request(spec(), name=f"app-{number}") for number in range(100)]
        for request in requests:
            sampler.register(request)
        early = await asyncio.gather(*(sampler.sample(request) for request in requests[:50]))
        clock.now = 1000.99
        late = await asyncio.gather(*(sampler.sample(request) for request in requests[50:]))
        assert {samples.at for samples in early + late} == {1000.0}
        assert len(client.asked) == 2
        assert all(values(samples) == [500, 7] for samples in early + late)


async def test_the_next_sub_tick_asks_again_at_its_own_present():
    async with canned() as (sampler, client, clock):
        request = make_request(spec())
        await sampler.sample(request)
        clock.now = 1001.25
        assert (await sampler.sample(request)).at == 1001.25
        assert len(client.asked) == 4


async def test_all_queries_of_a_sub_tick_are_asked_for_the_same_time():
    async with canned() as (sampler, client, clock):
        await sampler.sample(make_request(spec()))
        clock.now = 1000.7
        other = spec(rules=[{"name": "slow", "preset": "latency-p99", "above": "1"}])
        await sampler.sample(make_request(other, name="other"))
        assert {at for _, at in client.asked} == {1000.0}


async def test_a_namespace_that_joins_within_a_sub_tick_leaves_the_others_their_answer():
    async with canned() as (sampler, client, _):
        requests = [make_request(spec(), "shop", name) for name in "abc"]
        for request in requests:
            await sampler.sample(request)
        await sampler.sample(make_request(spec(), "other", "d"))
        assert len(client.asked) == 4
        for request in requests:
            assert values(await sampler.sample(request)) == [500, 7]
        assert len(client.asked) == 4


async def test_one_who_gives_up_waiting_takes_the_answer_from_nobody():
    async with canned() as (sampler, client, _):
        client.gate.clear()
        first = asyncio.ensure_future(sampler.sample(make_request(spec(), name="a")))
        second = asyncio.ensure_future(sampler.sample(make_request(spec(), name="b")))
        await asyncio.sleep(0)
        first.cancel()
        client.gate.set()
        assert values(await second) == [500, 7]
        assert len(client.asked) == 2


async def test_one_broken_query_hurts_only_its_own_rule():
    observer = Observer()
    async with canned(observer) as (sampler, client, clock):
        client.error = ("broken", BadQueryError("1:3: parse error"))
        broken = {"name": "mine", "query": "broken($pods)", "above": "1", "minRequests": 0}
        samples = await sampler.sample(make_request(spec(rules=[*RULES, broken])))
        assert values(samples) == [500, 7]
        (pair,) = (pair for key, pair in samples.readings.items() if key.own)
        assert [reading.kind for reading in pair] == [ReadingKind.BAD_QUERY] * 2
        assert pair.canary.message == "1:3: parse error"
        clock.now += 1
        samples = await sampler.sample(make_request(spec(rules=[*RULES, broken])))
        assert observer.outcomes == {"ok": 4, "bad_query": 2, "held back": 2}
        assert ReadingKind.BAD_QUERY in kinds(samples)


async def test_a_slow_query_holds_back_nobody_else():
    observer = Observer()
    async with canned(observer) as (sampler, client, clock):
        client.error = ("status", SlowQueryError("no answer within 5 s"))
        await sampler.sample(make_request(spec()))
        clock.now += 1
        samples = await sampler.sample(make_request(spec()))
        assert values(samples, "requests") == [500, 7]
        assert values(samples) == [None, None]
        assert observer.outcomes == {"ok": 2, "slow": 1, "held back": 1}


async def test_an_outage_holds_back_all_queries_and_ends_by_itself():
    observer = Observer()
    async with canned(observer) as (sampler, client, clock):
        client.error = ("", OutageError("no connection (connection refused)"))
        samples = await sampler.sample(make_request(spec()))
        assert kinds(samples) == {ReadingKind.UNAVAILABLE}
        clock.now += 1
        await sampler.sample(make_request(spec()))
        assert (len(client.asked), observer.outcomes["held back"]) == (2, 2)
        client.error = None
        async with asyncio.timeout(60):
            while kinds(samples) != {ReadingKind.VALUE}:
                await asyncio.sleep(0.05)
                clock.now += 1
                samples = await sampler.sample(make_request(spec()))
        assert len(client.asked) == 4


async def test_an_answer_that_is_no_vector_is_an_outage():
    async with canned() as (sampler, client, _):
        client.query = lambda *_: [{"surprise": 1}]
        assert kinds(await sampler.sample(make_request(spec()))) == {ReadingKind.UNAVAILABLE}


async def test_the_last_rollout_of_a_server_closes_it():
    async with canned() as (sampler, client, _):
        requests = [make_request(spec(), name=name) for name in "ab"]
        for request in requests:
            sampler.register(request)
        sampler.unregister(requests[0].key)
        assert not client.closed
        sampler.unregister(requests[1].key)
        sampler.unregister(requests[1].key)
        assert client.closed


async def test_a_query_that_is_given_up_before_it_was_sent_leaves_nobody_waiting():
    async with canned() as (sampler, _, _):
        request = make_request(spec())
        asked = asyncio.create_task(sampler.sample(request))
        await asyncio.sleep(0)  # its queries are about to be sent
        sampler.unregister(request.key)
        async with asyncio.timeout(60):
            samples = await asked
    assert {pair.canary.value for pair in samples.readings.values()} == {None}


async def test_a_rollout_that_moves_to_another_server_is_asked_there():
    clients = {}
    sampler = PrometheusSampler(connect=lambda target: clients.setdefault(target.url, Canned(target.url)), now=Clock())
    try:
        await sampler.sample(make_request(spec("http://a:1")))
        await sampler.sample(make_request(spec("http://b:1")))
    finally:
        await sampler.close()
    assert (clients["http://a:1"].closed, len(clients["http://b:1"].asked)) == (True, 2)


async def test_versions_that_prometheus_does_not_know_are_empty():
    async with canned() as (sampler, _, _):
        samples = await sampler.sample(make_request(spec(), canary=frozenset({"checkout-canary-new"})))
        (pair,) = (pair for key, pair in samples.readings.items() if key.what == "error-rate")
        assert (pair.stable.value, pair.canary) == (500, EMPTY)


async def test_closing_wakes_those_who_wait():
    async with canned() as (sampler, client, _):
        client.gate.clear()
        waiting = asyncio.ensure_future(sampler.sample(make_request(spec())))
        await asyncio.sleep(0.05)
        await sampler.close()
        assert kinds(await waiting) == {ReadingKind.UNAVAILABLE}


def test_sub_ticks_are_a_tenth_of_the_interval_within_bounds():
    assert [resolution(interval) for interval in (0.5, 1, 10, 30, 3600)] == [0.1, 0.1, 1.0, 3.0, 5.0]


def test_back_off_doubles_with_jitter_up_to_a_bound_and_ends_with_a_success():
    backoff = Backoff(jitter=random.Random(7))
    now, pauses = 0.0, []
    for _ in range(12):
        backoff.failed(now, "down")
        assert backoff.holds(now)
        backoff.failed(now, "a second query that was under way")
        pauses.append(backoff.until - now)
        now = backoff.until
        assert not backoff.holds(now)
    for number, pause in enumerate(pauses):
        longest = min(LONGEST, SHORTEST * 2**number)
        assert longest / 2 <= pause <= longest
    assert (backoff.failures, backoff.reason) == (12, "down")
    backoff.succeeded()
    assert (backoff.failures, backoff.holds(0.0)) == (0, False)


async def test_what_is_remembered_of_broken_queries_is_bounded(monkeypatch):
    monkeypatch.setattr("canary_rollout.metrics.server.LARGEST_HELD_BACK", 3)
    async with canned() as (sampler, client, _):
        client.error = ("broken", BadQueryError("1:3: parse error"))
        for number in range(6):
            query = {"name": "mine", "query": f"broken{number}", "above": "1", "minRequests": 0}
            await sampler.sample(make_request(spec(rules=[query]), name=f"app-{number}"))
        (remembered,) = (server._held_back for server in sampler._servers.values())
        assert list(remembered) == ["broken3", "broken4", "broken5"]
