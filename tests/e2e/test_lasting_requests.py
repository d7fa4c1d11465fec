"""A request that began on a version ends there, whatever happens to the weight meanwhile."""

import asyncio

import pytest
from release_play import HELD_AT_25, ROLLOUT, stage, told

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]

LASTING = 20
"""Seconds."""


async def test_a_request_that_began_on_the_canary_before_a_rollback_ends_there(play):
    tag = await play.serve(play.spec(HELD_AT_25), "25%")
    tenants = await play.canarys_tenants(tag, 3, 100)
    seen = len(play.load.singles)
    for tenant in tenants:
        await play.load.single(f"/slow?seconds={LASTING}", tenant)
    await play.load.counts()  # all are on their way
    await asyncio.sleep(1)
    await play.canary("rollback", ROLLOUT, "--reason", "a story")
    lowered = await play.until_weight(0)
    await play.until(lambda: play.phase == "RolledBack", "the end of the rollback")
    await play.until(lambda: len(play.load.singles) == seen + len(tenants), "the long requests to end")
    found = play.load.singles[seen:]
    assert [(one["kind"], one["version"]) for one in found] == [("ok", tag)] * len(tenants)
    assert all(one["begin"] < lowered < one["end"] for one in found)
    told(
        f"{len(found)} requests of {LASTING} s ended on the canary {min(one['end'] for one in found) - lowered:.1f} s after weight 0"
    )


async def test_requests_that_began_on_either_version_before_a_promotion_end_there(play):
    old = (await play.cast.stable_image()).rpartition(":")[2]
    tag = await play.serve(play.spec([stage("half", "50%"), stage("ga", "100%", "8s")]), "50%")
    before = await play.load.counts()
    canarys = await play.canarys_tenants(tag, 3, 60)
    seen = len(play.load.singles)
    stables = [one["tenant"] for one in play.load.singles if one.get("version") == old][-3:]
    for tenant in canarys + stables:
        await play.load.single(f"/slow?seconds={LASTING}", tenant)
    await play.load.counts()  # all are on their way
    await asyncio.sleep(1)
    await play.canary("promote", ROLLOUT)
    await play.until(lambda: play.weight == 10_000, "everything on the canary")
    seen_full = len(play.load.singles)
    late = len(canarys)
    for tenant in canarys:
        await play.load.single(f"/slow?seconds={LASTING}", tenant)
    returned = await play.until_weight(0)
    await play.until(lambda: play.phase == "Succeeded", "the end of the rollout")
    await play.until(lambda: len(play.load.singles) == seen + 2 * late + len(stables), "the long requests to end")
    found = {one["begin"]: one for one in play.load.singles[seen:]}
    assert all(one["kind"] == "ok" for one in found.values()), found
    assert all(one["version"] == tag for one in found.values() if one["tenant"] in canarys), found
    assert all(one["version"] == old for one in found.values() if one["tenant"] in stables), found
    assert (await play.cast.stable_image()).endswith(f":{tag}")
    after = await play.load.counts()
    assert (after.transport_errors, after.no_app) == (before.transport_errors, before.no_app)
    longest = max(one["end"] for one in found.values()) - returned
    told(
        f"{len(found)} requests of {LASTING} s, the last one ended {longest:+.1f} s after the return to stable ({seen_full=})"
    )
