"""What every router must do, on the real API server with the real CRDs (design invariants 8, 9, 10)."""

import pytest
from route_bench import REVISION, Bench, route, without_server_fields

from canary_rollout.kube.port import FIELD_MANAGER, ConflictError
from canary_rollout.traffic.port import Rejected, Written

pytestmark = pytest.mark.e2e


async def test_every_weight_is_given_exactly_and_reads_back(bench: Bench):
    assert await bench.problems() == []
    for weight in bench.adapter.weights:
        await bench.write(weight)
        assert bench.adapter.share(await bench.live()) == pytest.approx(weight, abs=1e-9)
        view = await bench.seen()
        assert (view.weight, view.revision, view.contested_by, view.outdated) == (weight, REVISION, "", False)


async def test_what_is_written_already_is_not_written_again(bench: Bench):
    for weight in bench.adapter.weights:
        written = await bench.write(weight)
        again = await bench.ensure(route(weight))
        assert again == Written(written.resource_version, changed=False)
        assert (await bench.live())["metadata"]["resourceVersion"] == written.resource_version


async def test_a_new_revision_leaves_a_trace_even_where_the_weight_stays(bench: Bench):
    await bench.write(0)
    before = await bench.seen()
    await bench.write(0, revision="9876543210")
    view = await bench.seen()
    assert (view.weight, view.revision) == (0, "9876543210")
    assert bench.adapter.share(await bench.live()) == 0
    with pytest.raises(ConflictError):  # a raise for the revision before, sent late
        await bench.ensure(route(bench.adapter.weights[1]), fence=before.resource_version)


async def test_of_somebodys_object_only_the_weights_differ_and_our_own_has_no_other_writer(bench: Bench):
    if bench.adapter.owned:
        await bench.write(bench.adapter.weights[1])
        live = await bench.live()
        managers = {entry["manager"] for entry in live["metadata"]["managedFields"]}
        assert managers == {FIELD_MANAGER}
        assert "ownerReferences" not in live["metadata"]
        return
    before = await bench.live()
    for weight in bench.adapter.weights:
        await bench.write(weight)
        live = await bench.live()
        assert bench.adapter.blank(live) == bench.adapter.blank(before)
        mine, theirs = without_server_fields(live), without_server_fields(before)
        assert {**mine, "spec": None} == {**theirs, "spec": None}


async def test_what_cannot_be_expressed_is_refused_with_the_reason(bench: Bench, subtests):
    for refused in bench.adapter.refused:
        with subtests.test(refused.why):
            bench.spec = {**bench.spec, "traffic": bench.adapter.traffic, **refused.spec}
            if refused.manifest is not None:
                await bench.force(refused.manifest)
            before = await bench.client.list_all(bench.adapter.resource, bench.namespace)
            found = await bench.problems()
            assert any(refused.words in text for text in found), found
            after = await bench.client.list_all(bench.adapter.resource, bench.namespace)
            assert after[0] == before[0]
            if refused.manifest is not None:
                await bench.client.delete(bench.adapter.resource, bench.namespace, bench.adapter.name_of)
                if not bench.adapter.owned:
                    await bench.apply(bench.adapter.git(0))
            bench.spec = {**bench.spec, "stages": SOME_STAGES}


SOME_STAGES = [{"name": "some", "weight": "5%", "hold": "1h"}, {"name": "all", "weight": "100%", "hold": "1h"}]


async def test_a_raise_decided_on_an_older_object_is_refused_and_a_lowering_is_not(bench: Bench):
    await bench.write(bench.adapter.weights[1])
    stale = (await bench.seen()).resource_version
    label = {"metadata": {"labels": {"edited": "meanwhile"}}}
    await bench.client.merge_patch(
        bench.adapter.resource, bench.namespace, bench.adapter.name_of, label, manager="somebody"
    )
    router = await bench.refresh()
    with pytest.raises(ConflictError):
        await router.ensure(route(bench.adapter.weights[2]), fence=stale)
    router = bench.router()  # the cache has not seen the edit, and the lowering does not wait for it
    assert isinstance(await router.ensure(route(0), fence=None), Written)
    assert bench.adapter.share(await bench.live()) == 0


async def test_a_lowering_survives_that_the_object_was_turned_around(bench: Bench):
    if bench.adapter.owned:
        pytest.skip("nobody else writes an object of our own without being noticed: it is written whole")
    await bench.write(bench.adapter.weights[2])
    router = await bench.refresh()
    turned = _turned(await bench.live())
    await bench.client.json_patch(
        bench.adapter.resource,
        bench.namespace,
        bench.adapter.name_of,
        [{"op": "replace", "path": "/spec", "value": turned}],
        manager="somebody",
    )
    assert isinstance(await router.ensure(route(0), fence=None), Written)
    live = await bench.live()
    assert bench.adapter.share(live) == 0
    assert bench.adapter.blank(live) == bench.adapter.blank({"spec": turned})


def _turned(obj):
    """Every list of backends the other way round (they are the lists whose items have weights)."""

    def turn(node):
        if isinstance(node, dict):
            return {key: turn(value) for key, value in node.items()}
        if isinstance(node, list):
            items = [turn(item) for item in node]
            weighted = items and all(isinstance(item, dict) and "weight" in item for item in items)
            return items[::-1] if weighted else items
        return node

    return turn(obj["spec"])


async def test_an_object_that_was_deleted_is_no_traffic_for_the_canary(bench: Bench):
    await bench.write(bench.adapter.weights[1])
    router = await bench.refresh()
    await bench.client.delete(bench.adapter.resource, bench.namespace, bench.adapter.name_of)
    assert isinstance(await router.ensure(route(0), fence=None), Written)
    if bench.adapter.owned:
        assert bench.adapter.share(await bench.live()) == 0
        return
    assert await bench.observe() is None
    assert any("does not exist" in text for text in await bench.problems())
    assert isinstance(await bench.ensure(route(bench.adapter.weights[1])), Rejected)


async def test_a_write_counts_only_once_the_data_plane_has_reported_it(bench: Bench):
    bench.clock.hold()
    await bench.write(bench.adapter.weights[0])
    view = await bench.seen()
    assert not view.confirmed
    assert view.pending
    if (
        not bench.adapter.settles
        and bench.adapter.status({"metadata": {"generation": 1, "name": "x"}, "spec": {}}) is None
    ):
        return
    await bench.report()
    bench.clock.go_on(ahead=bench.adapter.settles)
    view = await bench.seen()
    assert view.confirmed, view.pending
    assert not view.pending
    bench.clock.hold()
    await bench.write(bench.adapter.weights[1])
    assert not (await bench.seen()).confirmed, "what was said of the generation before says nothing of this one"


async def test_an_overwrite_is_noticed_with_its_author(bench: Bench):
    await bench.write(bench.adapter.weights[1])
    for overwrite in (bench.apply, bench.force):
        await overwrite(bench.adapter.git(bench.adapter.overwrite))
        view = await bench.seen()
        assert view.contested_by, "nobody"
        assert view.contested_by != FIELD_MANAGER
        assert view.weight >= bench.adapter.overwrite
        await bench.write(bench.adapter.weights[1])
        assert (await bench.seen()).contested_by == ""


async def test_with_the_documented_ignore_rules_nobody_overwrites(bench: Bench):
    if bench.adapter.owned:
        pytest.skip("an object of the operator's own is in nobody's Git")
    await bench.write(bench.adapter.weights[1])
    before = await bench.seen()
    bench.proved = (before.weight, before.revision)
    for sync in (bench.apply, bench.force):
        await sync(bench.adapter.keep(bench.adapter.git(0), await bench.live()))
        view = await bench.seen()
        assert (view.weight, view.revision, view.contested_by) == (before.weight, before.revision, "")


async def test_release_leaves_the_object_as_it_is(bench: Bench):
    before = None if bench.adapter.owned else await bench.live()
    for weight in bench.adapter.weights[-2:]:
        await bench.write(weight)
        router = await bench.refresh()
        there = await bench.live()
        await router.release()
        assert await bench.live() == there
        if before is not None:
            assert {**without_server_fields(there), "spec": None} == {**without_server_fields(before), "spec": None}
