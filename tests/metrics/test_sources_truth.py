"""Every source and every common preset against a real Prometheus whose history is known exactly."""

import asyncio
import math
from dataclasses import replace

import pytest
from known_metrics import quantile
from metric_requests import make_request, make_spec
from metrics_world import SLOW, STABLE_POD

from canary_rollout.analysis.readings import BEFORE, MeasureKey, ReadingKind
from canary_rollout.metrics.presets import COMMON, load, prepare, read
from canary_rollout.metrics.request import VersionArm
from canary_rollout.metrics.sampler import PrometheusSampler
from canary_rollout.model.metrics import SOURCES

pytestmark = [pytest.mark.prometheus, pytest.mark.asyncio(loop_scope="session")]

NORMAL = STABLE_POD.latencies
BY_VERSION = {"by": "label", "label": "version", "stable": "v1", "canary": "v2"}
METRICS = {
    "nginx-log": {"arms": BY_VERSION},
    "agent": {},
}
TRUTH = {
    "requests": (27_000, 3_000),
    "request-rate": (90.0, 10.0),
    "error-rate": (0.01, 0.05),
    "timeout-rate": (0.01, 0.05),
    "latency-p50": (quantile(0.5, NORMAL), quantile(0.5, SLOW)),
    "latency-p75": (quantile(0.75, NORMAL), quantile(0.75, SLOW)),
    "latency-p90": (quantile(0.9, NORMAL), quantile(0.9, SLOW)),
    "latency-p95": (quantile(0.95, NORMAL), quantile(0.95, SLOW)),
    "latency-p99": (quantile(0.99, NORMAL), quantile(0.99, SLOW)),
    "latency-average": (0.2, 0.4),
}
COMMON_TRUTH = {
    "memory": (0.2, 0.4),
    "memory-bytes": (150.0, 300.0),
    "cpu": (0.15, 0.3),
    "cpu-cores": (0.3, 0.6),
    "cpu-throttled": (0.1, 0.2),
    "restarts": (12.0, 24.0),
    "db-connections": (0.4, 0.8),
    "db-connections-pending": (2.0, 4.0),
    "cache-hit-ratio": (0.9, 0.45),
    "error-logs": (60.0, 120.0),
    "failed-transaction-rate": (0.01, 0.02),
    "denial-rate": (0.1, 0.2),
    "engine-timeout-rate": (0.02, 0.04),
    "data-inconsistencies": (12.0, 24.0),
    "other-version": (0.0, 1.0),
    "lcp-p75": (quantile(0.75, NORMAL), quantile(0.75, SLOW)),
    "inp-p75": (quantile(0.75, NORMAL), quantile(0.75, SLOW)),
    "cls-p75": (quantile(0.75, NORMAL), quantile(0.75, SLOW)),
    "cls-p95": (quantile(0.95, NORMAL), quantile(0.95, SLOW)),
    "page-views": (3000.0, 3000.0),
}


def asking(request, measures, **more):
    """The request with other measures."""
    return replace(request, measures=frozenset(MeasureKey(what, 300.0, **more) for what in measures))


async def sampled(known, *requests):
    """The readings of every request, by measure."""
    sampler = PrometheusSampler(now=lambda: float(known.end))
    try:
        samples = await asyncio.gather(*(sampler.sample(request) for request in requests))
    finally:
        await sampler.close()
    return [{key.what: pair for key, pair in sample.readings.items()} for sample in samples]


def of_source(known, source, **more):
    metrics = METRICS.get(source, {}) | more
    spec = make_spec(known.url, rules=[], source=source, **metrics)
    if source == "agent":
        arms = {"stable": VersionArm("a", "a"), "canary": VersionArm("b", "b", revision="r2")}
        return asking(make_request(spec, **arms), load(source).measures, weighted_only=True)
    return asking(replace(make_request(spec), route="checkout"), load(source).measures)


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "app"])
async def test_every_measure_of_a_source_gives_the_truth_for_both_versions(known, source):
    (readings,) = await sampled(known, of_source(known, source))
    assert readings.keys() == load(source).measures.keys()
    for what, pair in readings.items():
        assert (pair.stable.value, pair.canary.value) == pytest.approx(TRUTH[what], rel=1e-6), what


async def test_opentelemetrys_versions_are_told_apart_by_service_version_too(known):
    arms = {"by": "label", "label": "service_version", "stable": "v1", "canary": "v2"}
    (readings,) = await sampled(known, of_source(known, "otel", arms=arms))
    assert (readings["error-rate"].stable.value, readings["error-rate"].canary.value) == pytest.approx((0.01, 0.05))


def of_things(known):
    return make_request(
        make_spec(known.url, rules=[], window="10m"),
        "things",
        stable=VersionArm("checkout", "checkout", frozenset({"checkout-6b7f9c"}), app_version="1.4"),
        canary=VersionArm("checkout-canary", "checkout-canary", frozenset({"checkout-canary-7d8e"}), app_version="1.5"),
    )


@pytest.mark.parametrize("name", COMMON)
async def test_every_common_measure_gives_the_truth_for_both_versions(known, name):
    (readings,) = await sampled(known, asking(of_things(known), load(name).measures))
    for what, pair in readings.items():
        assert (pair.stable.value, pair.canary.value) == pytest.approx(COMMON_TRUTH[what], rel=1e-6), what


async def test_several_replica_sets_of_a_version_are_taken_together(known):
    request = of_things(known)
    both = replace(request.canary, replica_sets=frozenset({"checkout-canary-7d8e", "checkout-canary-gone"}))
    measures = [what for what in COMMON_TRUTH if what != "page-views" and "-p" not in what]
    (readings,) = await sampled(known, asking(replace(request, canary=both), measures))
    for what, pair in readings.items():
        assert pair.canary.value == pytest.approx(COMMON_TRUTH[what][1], rel=1e-6), what


async def test_without_a_version_label_nothing_is_claimed_about_versions(known):
    request = make_request(make_spec(known.url, rules=[]), "things")
    (readings,) = await sampled(known, asking(request, ["other-version", "lcp-p75"]))
    for pair in readings.values():
        assert pair.canary.kind is ReadingKind.EMPTY
        assert "app.kubernetes.io/version" in pair.canary.message


@pytest.mark.parametrize(
    ("matchers", "count"),
    [
        ('category="security",namespace="$namespace"', 1),
        ('category="security"', 2),
        ('category=~"security|capacity",namespace="$namespace"', 2),
        ('category="compliance"', 0),
        ('missing=""', 3),
    ],
)
async def test_firing_alerts_are_counted_by_their_labels(known, matchers, count):
    (readings,) = await sampled(known, asking(of_things(known), [matchers], alerts=True))
    assert readings[matchers].canary.value == count


async def test_what_stable_was_before_the_rollout_is_asked_once(known):
    asked = []

    sampler = PrometheusSampler(now=lambda: float(known.end))
    request = replace(make_request(make_spec(known.url, rules=[])), began=known.end - 200.0)
    request = replace(request, measures=frozenset({MeasureKey("error-rate", 120.0, baseline=BEFORE)}))
    try:
        for _ in range(2):
            (pair,) = (await sampler.sample(request)).readings.values()
            assert (pair.stable.value, pair.canary.value) == pytest.approx((0.01, 0.05), rel=1e-6)
            (server,) = sampler._servers.values()
            real = server.client.query
            server.client.query = lambda text, at, timeout, real=real: asked.append(at) or real(text, at, timeout)
    finally:
        await sampler.close()
    assert known.end - 200.0 not in asked  # only the first time


OWN = """
name: ours
description: An exporter of our own.
traffic:
  requests: denied_total
  failed: denied_total{reason="none"}
measures:
  denied: {rate: denied_total}
  denied-share: {share: {part: denied_total, whole: denied_total}}
  denied-by-query: {promql: 'sum(rate(denied_total{namespace="$namespace",pod=~"$pods"}[$window]))'}
"""


async def test_a_preset_set_of_ones_own_gives_the_truth(known):
    own = (prepare(read(OWN, "ours.yaml")),)
    request = replace(make_request(make_spec(known.url, rules=[], source="custom/ours")), own=own)
    (readings,) = await sampled(
        known, asking(request, ["requests", "error-rate", "denied", "denied-share", "denied-by-query"])
    )
    values = {what: (pair.stable.value, pair.canary.value) for what, pair in readings.items()}
    assert values["denied"] == values["denied-by-query"] == pytest.approx((1.0, 7.0), rel=1e-6)
    assert values["requests"] == pytest.approx((300, 2100), rel=1e-6)
    assert values["error-rate"] == (0.0, 0.0)
    assert values["denied-share"] == (1.0, 1.0)


# -- raw counters ------------------------------------------------------------------------------------------------------


async def raw(known, request, at):
    sampler = PrometheusSampler(now=lambda: float(known.end))
    try:
        request = replace(request, compared=True)
        now = await sampler.counters(request, at)
        past = await sampler.counters_between(request, at - 100, at, 10.0)
        return now, past
    finally:
        await sampler.close()


def summed(readings, arm, series, le=None):
    return sum(
        sample.value for sample in readings.samples if (sample.arm, sample.series, sample.le) == (arm, series, le)
    )


@pytest.mark.parametrize("source", SOURCES)
async def test_raw_counters_of_every_source_rise_as_the_traffic_does(known, source):
    end = float(known.end)
    now, past = await raw(
        known, of_source(known, source) if source != "app" else make_request(make_spec(known.url)), end
    )
    assert now.complete
    assert [tick.at for tick in past] == [end - 100 + 10 * number for number in range(11)]
    assert sorted(past[-1].samples) == sorted(now.samples)  # a replay is what the ticks were
    for arm, requests, errors in (("stable", 9000, 90), ("canary", 1000, 50)):
        rose = summed(past[-1], arm, "requests") - summed(past[0], arm, "requests")
        failed = summed(past[-1], arm, "errors") - summed(past[0], arm, "errors")
        assert (rose, failed) == pytest.approx((requests, errors), rel=1e-6)
        if load(source).of.traffic.latency:
            below = summed(past[-1], arm, "latency_bucket", 0.25) - summed(past[0], arm, "latency_bucket", 0.25)
            share = sum((NORMAL if arm == "stable" else SLOW)[:3])
            assert below == pytest.approx(requests * share, rel=1e-6)
            everything = summed(past[-1], arm, "latency_bucket", math.inf)
            assert everything - summed(past[0], arm, "latency_bucket", math.inf) == pytest.approx(requests, rel=1e-6)


async def test_raw_counters_are_told_apart_by_pod(known):
    now, _ = await raw(known, make_request(make_spec(known.url, rules=[])), float(known.end))
    pods = {(sample.arm, sample.pod) for sample in now.samples if sample.series == "errors"}
    assert pods == {
        ("stable", "checkout-6b7f9c-aaaaa"),
        ("stable", "checkout-6b7f9c-bbbbb"),
        ("canary", "checkout-canary-7d8e-ccccc"),
    }


async def test_gauges_of_pods_are_shares_of_their_limits(known):
    now, _ = await raw(known, of_things(known), float(known.end))
    values = {(sample.pod, sample.series): sample.value for sample in now.samples if sample.series.startswith("gauge:")}
    assert values["checkout-canary-7d8e-bbbbb", "gauge:memory"] == pytest.approx(0.4)
    assert values["checkout-canary-7d8e-bbbbb", "gauge:cpu"] == pytest.approx(0.4)


async def test_a_sticky_rollouts_requests_are_counted_by_bucket_of_tenants(known):
    """Stable's of all its revisions, the canary's of the one that is rolled out."""
    request = replace(of_source(known, "agent"), tenants=True)
    now, past = await raw(known, request, float(known.end))
    assert now.tenants
    rose = {}
    for arm, bucket in (("stable", "70"), ("stable", "71"), ("canary", "7")):
        for series in ("requests", "errors"):
            first, last = (
                sum(
                    sample.value
                    for sample in tick.samples
                    if (sample.arm, sample.pod, sample.series) == (arm, f"bucket:{bucket}", series)
                )
                for tick in (past[0], past[-1])
            )
            rose[arm, bucket, series] = last - first
    assert rose == pytest.approx(
        {
            ("stable", "70", "requests"): 500,
            ("stable", "70", "errors"): 40,
            ("stable", "71", "requests"): 200,
            ("stable", "71", "errors"): 0,
            ("canary", "7", "requests"): 300,
            ("canary", "7", "errors"): 100,
        }
    )
    assert not [sample for sample in now.samples if sample.pod == "bucket:8"]  # another revision's


async def test_a_source_of_nobody_says_so_and_counts_nothing(known):
    request = make_request(make_spec(known.url, rules=[], source="custom/nobody"))
    now, past = await raw(known, request, float(known.end))
    assert (now.complete, now.samples) == (False, ())
    assert "custom/nobody" in now.message
    assert not past[-1].complete
