"""Every preset of every source against a real Prometheus whose history is known exactly."""

import asyncio

import pytest
from known_metrics import quantile
from metric_requests import make_request, make_spec
from metrics_world import CANARY, LONG_CANARY, LONG_STABLE, MEMBERS, SLOW, STABLE_POD

from canary_rollout.analysis.readings import MeasureKey, ReadingKind
from canary_rollout.metrics.client import PrometheusClient
from canary_rollout.metrics.request import MetricRequest, VersionArm
from canary_rollout.metrics.sampler import PrometheusSampler

pytestmark = [pytest.mark.prometheus, pytest.mark.asyncio(loop_scope="session")]

NORMAL = STABLE_POD.latencies


async def sampled(known, request):
    """The readings of one request, by the measure's name (short range first)."""
    sampler = PrometheusSampler(now=lambda: float(known.end))
    try:
        samples = await sampler.sample(request)
    finally:
        await sampler.close()
    assert samples.at == known.end
    return samples.readings


def only(readings, what, **fields):
    """The one pair of a measure."""
    (pair,) = [
        pair
        for key, pair in readings.items()
        if key.what == what and all(getattr(key, name) == value for name, value in fields.items())
    ]
    return pair


def rule(preset, **more):
    return {"name": "rule", "preset": preset, "above": "1000", "minRequests": 1, **more}


TRUTH = {
    "error-rate": (0.01, 0.05),
    "latency-p50": (quantile(0.5, NORMAL), quantile(0.5, SLOW)),
    "latency-p75": (quantile(0.75, NORMAL), quantile(0.75, SLOW)),
    "latency-p95": (quantile(0.95, NORMAL), quantile(0.95, SLOW)),
    "latency-p99": (quantile(0.99, NORMAL), quantile(0.99, SLOW)),
    "latency-average": (0.2, 0.4),
    "request-rate": (90.0, 10.0),
}


@pytest.mark.parametrize("by", ["pod", "service", "label"])
@pytest.mark.parametrize("preset", TRUTH)
async def test_an_app_preset_gives_the_truth_for_both_versions(known, preset, by):
    arms = {"by": by} | ({"label": "track", "stable": "v1", "canary": "v2"} if by == "label" else {})
    spec = make_spec(known.url, rules=[rule(preset)], arms=arms)
    readings = await sampled(known, make_request(spec))
    stable, canary = only(readings, preset)
    assert (stable.value, canary.value) == pytest.approx(TRUTH[preset], rel=1e-6)
    stable, canary = only(readings, "requests", window=300.0, weighted_only=False)
    assert (stable.value, canary.value) == pytest.approx((90.0 * 300, 10.0 * 300), rel=1e-6)
    stable, canary = only(readings, "requests", weighted_only=True)  # the received share
    assert (stable.value, canary.value) == pytest.approx((90.0 * 300, 10.0 * 300), rel=1e-6)


@pytest.mark.parametrize("preset", TRUTH)
async def test_an_agent_preset_compares_everybody_outside_the_cohort(known, preset):
    raw = {"name": "rule", "preset": preset, "aboveRatio": "9", "minRequests": 1}
    request = make_request(
        make_spec(known.url, rules=[raw], source="agent"),
        stable=VersionArm("checkout", "checkout", revision="r1"),
        canary=VersionArm("checkout-canary", "checkout-canary", revision="r2"),
    )
    readings = await sampled(known, request)
    stable, canary = only(readings, preset)
    assert (stable.value, canary.value) == pytest.approx(TRUTH[preset], rel=1e-6)
    stable, canary = only(readings, "requests", window=300.0)
    assert (stable.value, canary.value) == pytest.approx((27_000, 3_000), rel=1e-6)


async def test_an_absolute_rule_on_the_agents_metrics_counts_cohort_members_too(known):
    request = make_request(
        make_spec(known.url, rules=[rule("error-rate")], source="agent"),
        canary=VersionArm("checkout-canary", "checkout-canary", revision="r2"),
        stable=VersionArm("checkout", "checkout", revision="r1"),
    )
    readings = await sampled(known, request)
    both = (CANARY.failed + MEMBERS.failed) / (CANARY.rate + MEMBERS.rate)
    assert only(readings, "error-rate").canary.value == pytest.approx(both, rel=1e-6)
    assert only(readings, "requests", weighted_only=False).canary.value == pytest.approx(16 * 300, rel=1e-6)
    # The received share is one of everybody else.
    assert only(readings, "requests", weighted_only=True).canary.value == pytest.approx(10 * 300, rel=1e-6)


async def test_the_agents_revisions_are_told_apart_where_they_are_named(known):
    spec = make_spec(known.url, rules=[rule("request-rate")], source="agent")
    for revision, rate in (("r2", 10 + 6), ("r1", 20)):
        request = MetricRequest.of(
            "shop", "checkout", spec, spec.stages[0], frozenset(), frozenset(), revisions=("r1", revision)
        )
        pair = only(await sampled(known, request), "request-rate")
        assert (pair.stable.value, pair.canary.value) == pytest.approx((90, rate), rel=1e-6)


async def test_without_revisions_the_agents_revisions_are_taken_together(known):
    readings = await sampled(known, make_request(make_spec(known.url, rules=[rule("request-rate")], source="agent")))
    assert only(readings, "request-rate").canary.value == pytest.approx(10 + 6 + 20, rel=1e-6)


@pytest.mark.parametrize(("source", "namespace", "name"), [("app", "fresh", "any"), ("agent", "shop", "healthy")])
async def test_requests_without_any_failed_series_have_an_error_rate_of_zero(known, source, namespace, name):
    spec = make_spec(known.url, rules=[rule("error-rate")], source=source)
    readings = await sampled(known, make_request(spec, namespace, name))
    assert [reading.value for reading in only(readings, "error-rate")] == [0.0, 0.0]


@pytest.mark.parametrize("preset", [preset for preset in TRUTH if preset != "request-rate"])
@pytest.mark.parametrize(("source", "namespace", "name"), [("app", "quiet", "any"), ("agent", "shop", "idle")])
async def test_an_idle_version_has_no_value_but_a_count_of_zero(known, source, namespace, name, preset):
    spec = make_spec(known.url, rules=[rule(preset)], source=source)
    readings = await sampled(known, make_request(spec, namespace, name))
    assert [reading.kind for reading in only(readings, preset)] == [ReadingKind.EMPTY] * 2
    assert [reading.value for reading in only(readings, "requests", window=300.0, weighted_only=False)] == [0.0, 0.0]


@pytest.mark.parametrize("source", ["app", "agent"])
async def test_an_app_nobody_scrapes_has_nothing(known, source):
    spec = make_spec(known.url, rules=[rule("error-rate")], source=source)
    readings = await sampled(known, make_request(spec, "nowhere", "nothing"))
    assert {reading.kind for pair in readings.values() for reading in pair} == {ReadingKind.EMPTY}


async def test_the_status_label_is_the_users(known):
    right = make_spec(known.url, rules=[rule("error-rate")], statusLabel="code")
    readings = await sampled(known, make_request(right, "code"))
    assert only(readings, "error-rate").canary.value == pytest.approx(0.01, rel=1e-6)


async def test_pods_with_cut_off_names_are_told_apart(known):
    spec = make_spec(known.url, rules=[rule("latency-p95")])
    request = make_request(spec, "long", stable=frozenset({LONG_STABLE}), canary=frozenset({LONG_CANARY}))
    pair = only(await sampled(known, request), "latency-p95")
    assert [pair.stable.value, pair.canary.value] == pytest.approx(TRUTH["latency-p95"], rel=1e-6)


async def test_several_replica_sets_of_one_version_are_measured_together(known):
    spec = make_spec(known.url, rules=[rule("latency-p95"), rule("error-rate", name="errors")])
    sets = frozenset({"checkout-canary-7d8e", "checkout-canary-old1"})
    readings = await sampled(known, make_request(spec, canary=sets))
    assert only(readings, "error-rate").canary.value == pytest.approx(20.5 / 30, rel=1e-6)
    mixed = [(10 * slow + 20 * old) / 30 for slow, old in zip(SLOW, (0, 0, 0, 0, 0, 1), strict=True)]
    assert only(readings, "latency-p95").canary.value == pytest.approx(quantile(0.95, mixed), rel=1e-6)


async def test_pods_given_by_name_are_measured_and_no_others(known):
    canary = VersionArm("checkout-canary", "checkout-canary", pods=frozenset({"checkout-canary-7d8e-ccccc"}))
    spec = make_spec(known.url, rules=[rule("error-rate")])
    assert only(await sampled(known, make_request(spec, canary=canary)), "error-rate").canary.value == pytest.approx(
        0.05
    )


async def test_a_version_without_pods_has_no_data(known):
    spec = make_spec(known.url, rules=[rule("error-rate")])
    readings = await sampled(known, make_request(spec, canary=frozenset()))
    pair = only(readings, "error-rate")
    assert (pair.stable.value, pair.canary.kind) == (pytest.approx(0.01), ReadingKind.EMPTY)


def own(query, **more):
    return {"name": "mine", "query": query, "above": "5", "minRequests": 0, **more}


QUERIES = {
    "pods": 'sum(rate(denied_total{namespace="$namespace",pod=~"$pods"}[$window]))',
    "quotes": "sum(rate(denied_total{namespace='${namespace}',pod=~'${pods}'}[${window}]))",
    "raw": "sum(rate(denied_total{namespace=`$namespace`,pod=~`$pods`}[$window]))",
    "deployment": 'sum(rate(denied_total{pod=~"$deployment-[a-z0-9]+-[a-z0-9]{5}"}[5m]))',
}


@pytest.mark.parametrize("name", QUERIES)
async def test_a_query_of_ones_own_gives_the_truth_for_both_versions(known, name):
    readings = await sampled(known, make_request(make_spec(known.url, rules=[own(QUERIES[name])])))
    pair = only(readings, QUERIES[name])
    assert [pair.stable.value, pair.canary.value] == pytest.approx([1.0, 7.0], rel=1e-6)


async def test_a_query_that_does_not_tell_the_versions_apart_has_no_stable(known):
    query = "sum(rate(denied_total[5m]))"
    pair = only(await sampled(known, make_request(make_spec(known.url, rules=[own(query)]))), query)
    assert pair.canary.value == pytest.approx(8.0)
    assert pair.stable.kind is ReadingKind.ABSENT


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("sum(rate(denied_total{", ReadingKind.BAD_QUERY, "parse error"),
        (
            "denied_total + on(namespace) http_requests_total",
            ReadingKind.BAD_QUERY,
            "duplicate series for the match group {…}",
        ),
        ("rate(denied_total[5m])", ReadingKind.BAD_QUERY, "2 series"),
        ("denied_total[5m]", ReadingKind.BAD_QUERY, "range"),
        ("vector(0) / 0", ReadingKind.NOT_A_NUMBER, ""),
        ("vector(1) / 0", ReadingKind.NOT_A_NUMBER, ""),
        ("scalar(vector(3))", ReadingKind.VALUE, ""),
        ("denied_total{pod='none'}", ReadingKind.EMPTY, ""),
    ],
)
async def test_what_a_query_of_ones_own_answers_hurts_only_itself(known, query, kind, words):
    spec = make_spec(known.url, rules=[own(query), rule("error-rate")])
    readings = await sampled(known, make_request(spec))
    reading = only(readings, query).canary
    assert reading.kind is kind
    assert words in reading.message
    assert "\n" not in reading.message
    assert only(readings, "error-rate").canary.value == pytest.approx(0.05, rel=1e-6)


async def test_a_long_query_goes_into_the_body_of_a_post(known):
    client = PrometheusClient(known.url)
    try:
        # A depth of thousands of operators is slow in itself; a long list of names is what rollouts make.
        names = "|".join(f"no-such-pod-{number}" for number in range(4000))
        text = f'count(denied_total{{pod!~"{names}"}})'
        assert len(text) > 60_000
        (series,) = client.query(text, known.end, 5)
    finally:
        client.close()
    assert series["value"] == [known.end, "2"]


async def test_many_rollouts_share_the_queries_of_one(known):
    asked = []

    class Counting(PrometheusClient):
        def query(self, text, at, timeout):
            asked.append(text)
            return super().query(text, at, timeout)

    spec = make_spec(known.url, rules=[rule("error-rate"), rule("latency-p99", name="slow")])
    sampler = PrometheusSampler(connect=Counting, now=lambda: float(known.end))
    requests = [make_request(spec, namespace, name) for namespace in ("shop", "fresh") for name in "abcdefgh"]
    try:
        for request in requests:
            sampler.register(request)
        found = [await sampler.sample(request) for request in requests]
    finally:
        await sampler.close()
    key = MeasureKey("error-rate", 300.0)
    rates = [samples.pair(key).canary.value for samples in found]
    assert rates == pytest.approx([0.05] * 8 + [0.0] * 8)
    assert len(asked) == 3  # errors, p99, requests


async def test_a_frozen_prometheus_gives_no_readings_and_they_come_back_by_themselves(known):
    clock = [float(known.end)]
    spec = make_spec(known.url, rules=[rule("error-rate")], timeout="1s", interval="1s")
    sampler = PrometheusSampler(now=lambda: clock[0])
    try:
        known.server.freeze()
        readings = (await sampler.sample(make_request(spec))).readings
        assert {reading.kind for pair in readings.values() for reading in pair} == {ReadingKind.UNAVAILABLE}
        assert only(readings, "error-rate").canary.message == "no answer within 1 s"
        known.server.thaw()
        async with asyncio.timeout(120):
            while only(readings, "error-rate").canary.kind is ReadingKind.UNAVAILABLE:
                await asyncio.sleep(0.05)
                clock[0] += 0.1  # not past the end of what is known, however long it takes
                readings = (await sampler.sample(make_request(spec))).readings
    finally:
        known.server.thaw()
        await sampler.close()
    assert only(readings, "error-rate").canary.value == pytest.approx(0.05, rel=0.1)
