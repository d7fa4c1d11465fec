"""An upgrade that refuses what an earlier version took: what is stored goes on being watched, judged and lowered."""

import asyncio

import pytest
from operator_world import ROLLOUT, World
from virtual_time import now

from canary_rollout.kube.port import CONFIG_MAPS
from canary_rollout.model.commands import Verb

pytestmark = [pytest.mark.looptime]

METRICS, NGINX = ROLLOUT["spec"]["metrics"], ROLLOUT["spec"]["traffic"]


def asked_with(*headers, **more):
    return {"metrics": {**METRICS, "access": {"headers": list(headers), **more}}}


def told(**traffic):
    return {"traffic": {**NGINX, **traffic}}


PLAIN = {"name": "X-Scope-OrgID", "value": "a"}
STORED = {
    "a secret in plain sight": (asked_with({"name": "X-Api-Key", "value": "abc"}), "put it into a Secret"),
    "credentials in a value": (asked_with({"name": "X-Who", "value": "Bearer abc"}), "put them into a Secret"),
    "a header twice": (asked_with(PLAIN, {"name": "x-scope-orgid", "value": "b"}), "two headers have the same name"),
    "two Authorizations": (
        asked_with(
            {"name": "Authorization", "secretRef": {"name": "s", "key": "k"}},
            basicAuth={"username": "u", "passwordSecretRef": {"name": "s", "key": "k"}},
        ),
        "Authorization is what",
    ),
    "a header that frames": (asked_with({"name": "Host", "value": "prometheus"}), "frames the request"),
    "told by an app's header": (told(requestHeaders={"version": "X-Auth-User"}), "meaning of its own"),
    "answered by a browser's header": (told(responseHeaders={"cohort": "Server-Timing"}), "meaning of its own"),
    "told by the header that pins": (told(pin={"header": "X-Canary-Version"}), "overwritten before the app reads it"),
    "told twice in one": (told(requestHeaders={"cohort": "X-A", "version": "x-a"}), "in different headers"),
}


@pytest.fixture(params=STORED)
def stored(request):
    """(fields of the spec, a word of what is wrong with them)"""
    return STORED[request.param]


async def at_five_percent(fields):
    """A rollout at 5 % whose spec is, since the operator was stopped, one that only an earlier version would have taken."""
    world = await World().build()
    async with world.run():
        await world.serve("second")
    await world.edit(**fields)
    return world


async def test_a_bad_canary_is_rolled_back_and_what_is_to_be_mended_is_told(stored):
    fields, wrong = stored
    world = await at_five_percent(fields)
    async with world.run("operator-1"):
        await world.until(lambda: world.condition("Stalled"), 30)
        assert world.condition("Stalled")["reason"] == "InvalidSpec"
        assert wrong in world.message
        assert "nothing is raised" in world.message
        await asyncio.sleep(600)
        assert world.raised[-1] == 500, "nothing is raised"
        assert world.weight == 500, "nothing is lowered without a reason"
        began = now()
        world.numbers.canary["error-rate"] = 0.9
        await world.until(lambda: world.weight == 0, 11)
        await world.rest("RolledBack")
        assert now() - began < 60


async def test_commands_are_read(stored):
    world = await at_five_percent(stored[0])
    async with world.run("operator-1"):
        await asyncio.sleep(20)
        await world.say(Verb.PAUSE)
        await world.rest("Paused", 10)
        await world.say(Verb.ROLLBACK)
        await world.until(lambda: world.weight == 0, 10)
        await world.rest("RolledBack")


@pytest.mark.parametrize("seen", [True, False])
async def test_a_deletion_takes_the_traffic_back(stored, seen):
    """Also one that was asked for before the new operator had a look."""
    world = await at_five_percent(stored[0])
    if not seen:
        await world.delete()
    async with world.run("operator-1"):
        if seen:
            await asyncio.sleep(20)
            await world.delete()
        await world.until(lambda: not world.exists, 10)
        assert world.weight == 0


async def test_it_goes_on_once_it_is_mended():
    world = await at_five_percent(STORED["told by an app's header"][0])
    async with world.run("operator-1"):
        await world.until(lambda: world.condition("Stalled"), 30)
        assert "X-Auth-User" not in world.look(CONFIG_MAPS, "checkout-nginx")["data"]["nginx.conf"]
        await world.edit(traffic={"requestHeaders": {"version": "X-Release"}})
        await world.rest("Succeeded", 1000)
        assert "X-Release" in world.look(CONFIG_MAPS, "checkout-nginx")["data"]["nginx.conf"]
    assert world.raised == [50, 500, 2500, 10000]


async def test_nothing_is_begun_by_it():
    world = await World(**STORED["a secret in plain sight"][0]).build()
    async with world.run():
        await world.until(lambda: world.condition("Stalled"), 30)
        await world.release()
        await asyncio.sleep(600)
    assert not world.raised


@pytest.mark.parametrize(
    "mangled",
    [
        {"metrics": {"prometheus": "ftp://nobody"}, "stages": []},
        {"traffic": {**NGINX, "requestHeaders": {"version": "a b"}}},
        {"traffic": {**NGINX, "responseHeaders": "X-Version", "pin": {"header": 1}, "sticky": {}}},
    ],
)
async def test_a_deletion_needs_no_more_of_the_spec_than_where_the_route_is(mangled):
    world = await at_five_percent({})
    await world.edit(**mangled)
    await world.delete()
    async with world.run("operator-1"):
        await world.until(lambda: not world.exists, 10)
        assert world.weight == 0
