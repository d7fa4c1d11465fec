"""The ratio of pods behind one Service: what can be had, what spoils it, and what is written to whom."""

import pytest
from fake_api import FakeApi
from hypothesis import given, settings
from hypothesis import strategies as st
from proxies import NAMESPACE, StoreReader
from weighted_objects import TurnedClock

from canary_rollout.kube.port import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HORIZONTAL_POD_AUTOSCALERS,
    SERVICES,
    ConflictError,
)
from canary_rollout.model.route import Latch
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.units import format_instant
from canary_rollout.traffic.port import Rejected, Route, RouterContext, Written
from canary_rollout.traffic.registry import router_for
from canary_rollout.traffic.service import pods_for, refusal, share

LATCH = Latch("v2", "error-rate", "too many", 1_000_000.0)
LABELS = {"app": "checkout"}


class Pods:
    """Two Deployments, a Service over both, and pods that are ready when told."""

    def __init__(self):
        self.clock = TurnedClock()
        self.api = FakeApi(wall=self.clock.now)
        self.traffic = {"service": {"service": "shop", "replicas": 20}}
        self.workload = {
            "stable": {"service": "checkout", "deployment": "checkout"},
            "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
        }
        self.stages = [{"name": "first", "weight": "5%", "hold": "1m"}, {"name": "all", "weight": "100%", "hold": "1m"}]

    async def put(self, resource, name, body):
        metadata = {"name": name, **body.pop("metadata", {})}
        await self.api.client("user").apply(resource, NAMESPACE, name, {"metadata": metadata, **body}, manager="user")

    async def build(self):
        await self.put(SERVICES, "shop", {"spec": {"clusterIP": "10.96.0.1", "selector": LABELS}})
        for name, replicas in (("checkout", 20), ("checkout-canary", 0)):
            track = {**LABELS, "track": name}
            template = {"metadata": {"labels": track}, "spec": {"containers": [{"name": "app", "image": "app:v1"}]}}
            spec = {"replicas": replicas, "selector": {"matchLabels": track}, "template": template}
            await self.put(DEPLOYMENTS, name, {"spec": spec})
        await self.all_ready()
        return self

    async def ready(self, name, number):
        found = self.api.store.peek(DEPLOYMENTS, NAMESPACE, name)
        status = {
            "observedGeneration": found["metadata"]["generation"],
            "replicas": found["spec"]["replicas"],
            "availableReplicas": number,
        }
        self.api.store.merge_patch(
            DEPLOYMENTS, NAMESPACE, name, {"status": status}, subresource="status", manager="kcm"
        )
        counts = [
            (self.api.store.peek(DEPLOYMENTS, NAMESPACE, one).get("status") or {}).get("availableReplicas", 0)
            for one in ("checkout", "checkout-canary")
        ]
        endpoints = [{"addresses": [f"10.0.0.{n}"], "conditions": {"ready": True}} for n in range(sum(counts))]
        metadata = {
            "labels": {"kubernetes.io/service-name": "shop"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": format_instant(self.clock.time)},
        }
        await self.put(ENDPOINT_SLICES, "shop-1", {"metadata": metadata, "endpoints": endpoints})

    async def all_ready(self):
        for name, number in zip(("checkout", "checkout-canary"), self.asked, strict=True):
            await self.ready(name, number)

    @property
    def asked(self):
        found = [self.api.store.peek(DEPLOYMENTS, NAMESPACE, name) for name in ("checkout", "checkout-canary")]
        return tuple(one["spec"]["replicas"] for one in found)

    def router(self):
        spec = {
            "workload": self.workload,
            "traffic": self.traffic,
            "metrics": {"prometheus": "http://prometheus:9090"},
            "stages": self.stages,
        }
        model = CanaryRolloutSpec.model_validate(spec)
        client, reader = self.api.client("operator"), StoreReader(self.api)
        return router_for(RouterContext(NAMESPACE, "checkout", "uid", model, client, reader, self.clock))

    async def route(self, weight, fence=None, revision="v2", **more):
        answer = await self.router().ensure(Route(weight, revision, "v1", **more), fence=fence)
        assert isinstance(answer, Written), answer
        return answer


@pytest.fixture
async def there():
    return await Pods().build()


async def test_it_is_found_by_its_name_and_says_what_it_can(there):
    router = there.router()
    assert router.problems() == []
    can = router.capabilities()
    assert (can.step, can.scales, can.sticky, can.cohorts) == (500, True, False, False)


async def test_a_raise_makes_the_canarys_pods_first_and_stable_gives_way_when_they_are_ready(there):
    await there.route(0)
    await there.route(2500, fence=there.router().observe().resource_version)
    assert there.asked == (20, 5)
    assert there.router().observe().weight == 2000, "5 of 25: less than asked for"
    await there.ready("checkout-canary", 3)
    await there.route(2500)
    assert there.asked == (20, 5)
    await there.ready("checkout-canary", 5)
    await there.route(2500)
    assert there.asked == (15, 5)
    view = there.router().observe()
    assert (view.weight, view.revision, view.mode, view.confirmed) == (2500, "v2", "5 of 20 pods", False)


async def test_a_weight_counts_when_all_pods_are_ready_listed_and_settled(there):
    await there.route(2500)
    await there.ready("checkout-canary", 5)
    await there.route(2500)
    await there.ready("checkout", 16)
    assert "16 of 15 pods of Deployment checkout are ready" in there.router().observe().pending
    await there.all_ready()
    view = there.router().observe()
    assert (view.confirmed, view.again_at) == (False, 1_000_005.0)
    there.clock.time += 5
    view = there.router().observe()
    assert (view.confirmed, view.confirmed_at, view.again_at) == (True, 1_000_005.0, None)


async def test_pods_that_the_service_does_not_list_are_waited_for(there):
    await there.route(0)
    assert "Deployment checkout-canary is being updated" in there.router().observe().pending
    await there.all_ready()
    there.clock.time += 60
    assert there.router().observe().confirmed
    there.api.store.delete(ENDPOINT_SLICES, NAMESPACE, "shop-1")
    assert "lists 0 ready pods" in there.router().observe().pending


async def test_a_verdict_takes_the_canary_away_at_once(there):
    await there.route(2500)
    await there.all_ready()
    await there.route(2500)
    await there.route(0, latch=LATCH)
    assert there.asked == (20, 0)


async def test_a_verdict_at_100_per_cent_leaves_somebody_to_answer_until_stable_has_a_pod(there):
    await there.route(10_000)
    await there.all_ready()
    await there.route(10_000)
    assert there.asked == (0, 20)
    await there.all_ready()
    await there.route(0, latch=LATCH)
    assert there.asked == (20, 20)
    await there.ready("checkout", 1)
    await there.route(0, latch=LATCH)
    assert there.asked == (20, 0)


async def test_the_way_back_without_a_verdict_goes_pod_by_pod(there):
    await there.route(10_000)
    await there.all_ready()
    await there.route(10_000)
    await there.all_ready()
    for ready, left in ((0, 20), (7, 13), (19, 1), (20, 0)):
        await there.route(0)
        await there.ready("checkout", ready)
        await there.route(0)
        assert there.asked == (20, left)


async def test_a_raise_that_lost_its_fence_changes_neither(there):
    await there.route(0)
    version = there.router().observe().resource_version
    there.api.store.merge_patch(DEPLOYMENTS, NAMESPACE, "checkout-canary", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ConflictError):
        await there.route(500, fence=version)
    assert there.asked == (20, 0)


async def test_repeating_writes_nothing_and_a_new_revision_is_noted(there):
    await there.route(0)
    calls = len(there.api.calls_of("operator", "patch"))
    assert not (await there.route(0)).changed
    assert len(there.api.calls_of("operator", "patch")) == calls
    await there.route(0, revision="v3")
    assert there.router().observe().revision == "v3"


async def test_only_replicas_and_one_annotation_are_ours(there):
    await there.route(500)
    for name in ("checkout", "checkout-canary"):
        found = there.api.store.peek(DEPLOYMENTS, NAMESPACE, name)
        ours = [
            one["fieldsV1"] for one in found["metadata"]["managedFields"] if one["manager"].startswith("canary-rollout")
        ]
        assert [list(one["f:spec"]) for one in ours] == [["f:replicas"]]


async def test_somebody_who_scales_is_noticed(there):
    await there.route(500)
    assert there.router().observe().contested_by == ""
    there.api.store.merge_patch(DEPLOYMENTS, NAMESPACE, "checkout", {"spec": {"replicas": 3}}, manager="kubectl")
    view = there.router().observe()
    assert (view.contested_by, view.weight) == ("somebody", 2500)
    await there.ready("checkout", 3)
    await there.route(500)
    assert there.asked[0] >= 19
    assert there.router().observe().contested_by == ""


async def test_releasing_leaves_the_pods_and_takes_the_annotation(there):
    await there.route(500)
    before = there.asked
    await there.router().release()
    assert there.asked == before
    found = there.api.store.peek(DEPLOYMENTS, NAMESPACE, "checkout-canary")
    assert "canaryrollout.dev/revision" not in (found["metadata"].get("annotations") or {})


async def test_what_a_ratio_of_pods_cannot_say_is_refused_with_the_nearest(there):
    there.stages = [
        {"name": "first", "weight": "0.5%", "hold": "1m"},
        {"name": "second", "weight": "12%", "hold": "1m"},
        {"name": "all", "weight": "100%", "hold": "1m"},
    ]
    first, second = there.router().problems()
    assert "0.5% of 20 pods is no whole number of pods: choose 5% (1 of 20 pods)" in first
    assert first.endswith("set traffic.service.replicas to 200")
    assert "choose 10% (2 of 20 pods) or 15% (3 of 20 pods)" in second
    answer = await there.router().ensure(Route(50, "v2", "v1"), fence=None)
    assert isinstance(answer, Rejected)
    assert there.asked == (20, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sessionAffinity", "ClientIP"),
        ("trafficDistribution", "PreferClose"),
        ("internalTrafficPolicy", "Local"),
        ("externalTrafficPolicy", "Local"),
    ],
)
async def test_a_service_that_prefers_some_pods_is_refused(there, field, value):
    await there.put(SERVICES, "shop", {"spec": {"clusterIP": "10.96.0.1", "selector": LABELS, field: value}})
    [said] = there.router().problems()
    assert f"Service shop/shop has {field} {value}" in said


async def test_a_service_that_does_not_select_both_is_refused(there):
    await there.put(SERVICES, "shop", {"spec": {"clusterIP": "10.96.0.1", "selector": {"track": "checkout"}}})
    [said] = there.router().problems()
    assert "does not select the pods of Deployment checkout-canary" in said


async def test_whoever_else_scales_is_refused(there):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}
    await there.put(HORIZONTAL_POD_AUTOSCALERS, "busy", {"spec": {"scaleTargetRef": target, "maxReplicas": 30}})
    assert "HorizontalPodAutoscaler busy scales Deployment checkout" in there.router().problems()[0]
    there.workload["canary"]["scaling"] = {"replicas": 3}
    assert any("remove workload.canary.scaling" in text for text in there.router().problems())


async def test_what_needs_requests_to_be_looked_at_is_refused(there):
    there.traffic |= {"sticky": {"clientIP": True}, "pin": {"header": "X-Canary"}}
    there.stages[0]["cohort"] = {"header": "X-Cohort", "values": ["internal"]}
    said = " ".join(there.router().problems())
    assert "remove traffic.sticky" in said
    assert "remove traffic.pin" in said
    assert "stage first: a Service cannot tell people apart" in said


async def test_a_deployment_that_is_gone_needs_no_lowering(there):
    there.api.store.delete(DEPLOYMENTS, NAMESPACE, "checkout-canary")
    assert there.router().observe() is None
    assert not (await there.route(0)).changed
    assert isinstance(await there.router().ensure(Route(500, "v2", "v1"), fence=None), Rejected)


@settings(deadline=None)
@given(replicas=st.integers(1, 10_000), weight=st.integers(0, 10_000))
def test_a_weight_is_taken_exactly_when_the_pods_say_it_and_a_refusal_names_one_that_is(replicas, weight):
    pods = pods_for(weight, replicas)
    said = refusal(weight, replicas)
    if not said:
        assert abs(pods / replicas - weight / 10_000) < 0.0001
        assert share(pods, replicas - pods) == weight
    else:
        assert "choose" in said


@settings(deadline=None)
@given(replicas=st.integers(2, 500), pods=st.integers(0, 500))
def test_every_share_of_pods_can_be_asked_for_as_it_is_shown(replicas, pods):
    pods = min(pods, replicas)
    assert refusal(share(pods, replicas - pods), replicas) == ""
