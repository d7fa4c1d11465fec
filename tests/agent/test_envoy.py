"""Weights on a real Envoy while people use it: the same promises as nginx keeps."""

import asyncio
import os
import random
import signal
import socket
import time

import pytest
from chance import split_by_chance
from envoys import EnvoyWorld, envoy_agent, envoy_edge, envoy_process, envoy_settings, envoy_spec
from fake_api import Answer
from hypothesis import given
from hypothesis import strategies as st
from keepalive import Load, fetch_all, versions
from people import PIN, REGIONS, STICKY, get_what_the_reference_says
from proxies import NAMESPACE, app, apps, endpoint_slice, eventually, free_port, service, settled, until
from under_load import TENANTS, begun_after, changes_fail_nothing, nobody_new, share, until_share

from canary_rollout.agent.envoy import _file
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, SERVICES
from canary_rollout.traffic.choice import Asked
from canary_rollout.traffic.envoy.hashing import address_bucket, bucket, xxh64
from canary_rollout.traffic.nginx.hashing import salt_of, tenant_key

pytestmark = pytest.mark.nginx
SALT = salt_of(NAMESPACE, "checkout", "v2")
COHORT = {
    "header": "X-Cohort",
    "values": ["internal", "Friendly"],
    "prefixes": ["beta-", "default.v"],
    "pattern": "Mozilla*(X11)*Firefox/1*",
    "regions": REGIONS,
}
CHOICES = {
    "tenant": ["Acme", "acme", "ACME", "friend@example.com", "a:b", "Bank-1", "tenant-7", ""],
    "pin": ["", "", "", "always", "Always", "never", "NEVER", "maybe"],
    "cohort": ["", "internal", "INTERNAL", "internal2", "beta-7", "beta", "defaultxv2", "Mozilla/5.0 (X11) Gecko Firefox/152", "Mozilla Firefox/1"],
    "region": ["", "eu-west-1", "EU-West-1", "eu-west-11", "us.east", "usxeast", "all"],
}  # fmt: skip


def people(count, seed):
    generator = random.Random(seed)
    for n in range(count):
        said = {name: generator.choice(values) if generator.random() < 0.5 else "" for name, values in CHOICES.items()}
        said["tenant"] = said["tenant"] or f"tenant-{n}"
        yield Asked(**said)


def place(tenant):
    return bucket(SALT, tenant_key(tenant))


def test_the_hash_is_xxhash64():
    assert [xxh64(text) for text in (b"", b"a", b"abc")] == [0xEF46DB3751D8E999, 0xD24EC4F1A98C6E5B, 0x44BC2CF5AD770999]
    assert xxh64(b"Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1


@given(st.text(max_size=40), st.integers(0, 10_000), st.integers(0, 10_000))
def test_whoever_is_in_at_one_weight_is_in_at_every_higher_one(tenant, one, other):
    low, high = sorted((one, other))
    assert (place(tenant) < low) <= (place(tenant) < high)


async def test_every_request_gets_the_version_and_the_cohort_that_the_reference_says(tmp_path):
    async with envoy_edge(tmp_path / "w", sticky=STICKY, pin=PIN) as proxy:
        await get_what_the_reference_says(proxy, COHORT, people, place)


async def anonymous(port, count):
    return await versions("127.0.0.1", port, ({} for _ in range(count)))


async def test_the_share_is_within_three_sigma_and_exactly_whom_the_hash_says(tmp_path):
    async with envoy_edge(tmp_path / "w") as proxy:
        inside = set()
        for weight in (50, 500, 2500, 7500, 10_000):
            view = await proxy.to(weight)
            assert view.mode == "envoy"
            seen = await versions("127.0.0.1", proxy.port, ({"X-Tenant-ID": f"tenant-{n}"} for n in range(4000)))
            assert seen == ["canary" if place(f"tenant-{n}") < weight else "stable" for n in range(4000)]
            canary = {n for n, version in enumerate(seen) if version == "canary"}
            assert inside <= canary, "a tenant left the canary"
            inside = canary
            assert await split_by_chance(lambda: anonymous(proxy.port, 4000), 4000, weight)


@pytest.mark.parametrize("sticky", [{"header": "X-Tenant-ID"}, {"cookie": "tenant"}], ids=["header", "cookie"])
async def test_lists_of_tenants_may_be_as_long_as_the_resource_takes_them(tmp_path, sticky):
    allowed, denied = ([f"{word}-{n:03d}-".ljust(64, "x") for n in range(256)] for word in ("allowed", "denied"))
    async with envoy_edge(tmp_path / "w", weight=5000, sticky={**sticky, "allow": allowed, "deny": denied}) as proxy:
        for names, version in ((allowed, b"canary"), (denied, b"stable")):
            asked = [{"X-Tenant-ID": name, "Cookie": f"a=b; tenant={name}; c=d"} for name in names]
            answers = await fetch_all("127.0.0.1", proxy.port, asked)
            assert {answer.body for answer in answers} == {version}


async def test_tenants_are_told_apart_by_a_cookie_among_others(tmp_path):
    async with envoy_edge(tmp_path / "w", weight=2500, sticky={"cookie": "tenant", "deny": ["t1", "t2"]}) as proxy:
        asked = [{"Cookie": f"a=b; tenant=t{n}; xtenant=t9"} for n in range(300)]
        seen = await versions("127.0.0.1", proxy.port, asked)
        expected = ["canary" if place(f"t{n}") < 2500 and n not in {1, 2} else "stable" for n in range(300)]
        assert seen == expected
        others = [{"Cookie": "a=b; xtenant=t7"}] * 300
        another = lambda: versions("127.0.0.1", proxy.port, others)  # noqa: E731
        assert await split_by_chance(another, 300, 2500), "another cookie is no tenant"


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1/32",)])
async def test_the_address_decides_where_it_is_told_to_and_cannot_be_forged(tmp_path, trusted):
    told = {"trustedProxies": list(trusted)}
    async with envoy_edge(tmp_path / "w", weight=5000, sticky={"clientIP": True}, envoy_traffic=told) as proxy:
        clients = [f"198.51.100.{n}" for n in range(100)]
        asked = [{"X-Forwarded-For": client, "x-canary-client-address": "forged"} for client in clients]
        answers = await fetch_all("127.0.0.1", proxy.port, asked)
        counted = clients if trusted else ["127.0.0.1"] * 100
        at = [address_bucket(client) if trusted else bucket(SALT, client) for client in counted]
        expected = ["canary" if place < 5000 else "stable" for place in at]
        assert [answer.body.decode() for answer in answers] == expected
        (echo,) = await fetch_all("127.0.0.1", proxy.port, asked[:1], path="/echo")
        assert b"x-canary-client-address" not in echo.body


async def test_twenty_weight_changes_under_load_fail_nothing_and_no_canary_answer_begins_after_the_acknowledgement(
    tmp_path,
):
    async with envoy_edge(tmp_path / "w") as proxy:
        await changes_fail_nothing(proxy, raises=10, requests=100, think=0.002)


async def test_a_dead_canary_is_seen_as_errors_of_its_share_alone(tmp_path):
    settings, port = envoy_settings(tmp_path / "w"), free_port()
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port}))
    async with apps(world), envoy_process(settings), envoy_agent(world, settings) as agent:
        await world.put(SERVICES, service("checkout-canary", "127.0.0.1", free_port()))
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(2500)
        await eventually(lambda: world.view().confirmed)
        answers = await fetch_all("127.0.0.1", port, TENANTS)
        expected = sum(place(f"tenant-{n}") < 2500 for n in range(400))
        assert sum(answer.status == 503 for answer in answers) == expected
        assert {answer.body for answer in answers if answer.status == 200} == {b"stable"}
        errors = lambda: read(agent, "canary_errors_total", version="canary")  # noqa: E731
        await until(errors, lambda found: found >= expected)
        assert await settled(errors) == expected


async def read(agent, name, **labels):
    return counted(await now(agent), name, **labels)


async def now(agent):
    await agent.counting.now()
    return list(agent.counting.collect())


def counted(metrics, name, **labels):
    return sum(s.value for m in metrics for s in m.samples if s.name == name and labels.items() <= s.labels.items())


async def test_the_share_really_served_is_counted_per_version_and_arm_through_a_restart_of_envoy(tmp_path):
    settings, port = envoy_settings(tmp_path / "w"), free_port()
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port}, pin=PIN))
    canary = stable = chosen = 0
    async with apps(world), envoy_agent(world, settings) as agent:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(2500)
        for _ in range(2):
            async with envoy_process(settings):
                await eventually(lambda: world.view().confirmed and listening(port))
                answers = await fetch_all("127.0.0.1", port, TENANTS)
                canary += sum(answer.body == b"canary" for answer in answers)
                stable += sum(answer.body == b"stable" for answer in answers)
                await fetch_all("127.0.0.1", port, [{"X-Canary": "always"}] * 50)
                chosen += 50
                answered = lambda: read(agent, "canary_requests_total")  # noqa: E731
                of = canary + stable + chosen
                await until(answered, lambda found, of=of: found >= of)
                await settled(answered)  # and Envoy has said how long it runs, by which the next one is told from it
        metrics = await now(agent)
        everyone = {"cohort": "everyone", "rollout": "checkout"}
        assert counted(metrics, "canary_requests_total", version="canary", revision="v2", **everyone) == canary
        assert counted(metrics, "canary_requests_total", version="stable", revision="v1", **everyone) == stable
        assert counted(metrics, "canary_requests_total", version="canary", cohort="chosen") == chosen
        assert counted(metrics, "canary_latency_seconds_count", version="canary", **everyone) == canary
        assert agent.ready


def lease(proxy):
    return proxy.world.api.store.peek(LEASES, NAMESPACE, "checkout-envoy.edge-1")["metadata"]["annotations"]


async def test_cut_off_from_the_api_server_a_weight_ends_with_its_lease_and_comes_back(tmp_path):
    async with envoy_edge(tmp_path / "w", weight=2500, envoy_traffic={"staleAfter": "3s"}) as proxy:
        await until_share(proxy, lambda found: found > 0)
        proxy.world.api.fault(Answer(503), times=None, client="edge-1")
        await until_share(proxy, lambda found: found == 0)
        await eventually(lambda: not proxy.world.view().confirmed)
        proxy.world.api.clear_faults()
        await until_share(proxy, lambda found: found > 0)
        await proxy.confirmed()


async def test_the_agent_gone_envoy_returns_to_stable_by_itself_before_the_lease_is_over(tmp_path):
    settings, port = envoy_settings(tmp_path / "w"), free_port()
    lease = 12.0  # Envoy looks eight times in vain before it ends it: a machine that stands still is no reason
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port, "staleAfter": f"{lease:g}s"}))
    async with apps(world), envoy_process(settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with envoy_agent(world, settings):
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            load = Load("127.0.0.1", port, connections=8, think=0.01)
            load.start()
            await asyncio.sleep(1.0)
        gone = time.monotonic()
        await eventually(lambda: bool(begun_after(load, gone + 0.3)))  # a restart of the agent moves nobody
        await asyncio.sleep(gone + lease - time.monotonic())
        over = time.monotonic()
        await nobody_new(load, 100)
        async with envoy_agent(world, settings):
            await eventually(lambda: bool(begun_after(load, over)))
            await eventually(lambda: world.view().confirmed)
        await load.stop()
        assert load.failures == []


async def test_a_full_weight_is_no_lease_and_stays_when_everybody_is_gone(tmp_path):
    settings, port = envoy_settings(tmp_path / "w"), free_port()
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port, "staleAfter": "1s"}))
    async with apps(world), envoy_process(settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with envoy_agent(world, settings):
            await world.route(10_000)
            await eventually(lambda: world.view().confirmed)
        await asyncio.sleep(1.6)
        assert await share(port) == 1


async def test_a_file_that_envoy_rejects_leaves_the_last_good_one_serving_and_says_why(tmp_path, monkeypatch):
    async with envoy_edge(tmp_path / "w", weight=2500) as proxy:
        before = await share(proxy.port)
        good = _file(proxy.settings.work, "rds").read_text()
        real = __import__("canary_rollout.agent.envoy", fromlist=["Routes"]).Routes

        class Broken(real):
            def configuration(self):
                return {**super().configuration(), "virtual_hosts": [{"name": "all", "domains": []}]}

        monkeypatch.setattr("canary_rollout.agent.envoy.Routes", Broken)
        await proxy.world.route(5000)
        await eventually(lambda: "Envoy rejected its rds" in lease(proxy)["canaryrollout.dev/error"])
        assert "Envoy rejected its rds" in proxy.world.view().pending
        assert await share(proxy.port) == before
        assert _file(proxy.settings.work, "rds").read_text() == good
        assert proxy.agent.ready


async def test_changed_addresses_and_a_new_revision_fail_nothing(tmp_path):
    async with app("third") as port, envoy_edge(tmp_path / "w", weight=2500) as proxy:
        load = Load("127.0.0.1", proxy.port, connections=16, think=0.002)
        load.start()
        await proxy.world.put(SERVICES, service("checkout-canary", "127.0.0.1", port))
        assert "address" in proxy.world.view().pending
        await proxy.to(0)
        await proxy.to(0, revision="v3")
        await proxy.to(2500, revision="v3")
        await eventually(lambda: any(answer.body == b"third" for answer in load.answers))
        await load.stop()
        assert load.failures == []


async def test_a_weight_somebody_edits_by_hand_counts_only_when_it_is_zero(tmp_path):
    async with envoy_edge(tmp_path / "w", weight=2500) as proxy:
        before = await share(proxy.port)
        text = proxy.world.config_map()["data"]["envoy.json"]
        client = proxy.world.api.client("kubectl")
        for weight in (9000, 0):
            edited = {"data": {"envoy.json": text.replace('"weight": 2500', f'"weight": {weight}')}}
            await client.merge_patch(CONFIG_MAPS, NAMESPACE, "checkout-envoy", edited, manager="kubectl-edit")
            if weight:
                await eventually(lambda: "checksum" in lease(proxy)["canaryrollout.dev/error"])
                view = proxy.world.view()
                assert (view.weight, view.contested_by, view.confirmed) == (9000, "kubectl-edit", False)
                assert await share(proxy.port) == before
        await eventually(lambda: lease(proxy)["canaryrollout.dev/weight"] == "0")
        assert await share(proxy.port) == 0
        await proxy.to(2500)
        assert await share(proxy.port) == before


async def test_the_app_is_told_by_headers_and_by_baggage_and_the_client_by_names_of_its_own(tmp_path):
    told = {"cohort": "X-Group", "version": "", "baggage": True}
    answered = {"cohort": "", "version": "X-By"}
    async with envoy_edge(tmp_path / "w", request_headers=told, response_headers=answered) as proxy:
        await proxy.to(10_000)
        asked = [{"X-Group": "forged", "baggage": "userId=7"}]
        (echo,) = await fetch_all("127.0.0.1", proxy.port, asked, connections=1, path="/echo")
        lines = [line for line in echo.body.lower().split(b"\r\n") if line.startswith(b"baggage")]
        assert lines == [b"baggage: userid=7", b"baggage: canary.cohort=everyone,canary.version=v2"]
        assert b"x-group: everyone" in echo.body.lower()
        assert b"forged" not in echo.body
        assert echo.headers["x-by"] == "v2"
        assert "x-canary-cohort" not in echo.headers


async def test_a_share_of_the_requests_is_copied_to_the_canary_and_everybody_is_answered_by_stable(tmp_path):
    async with envoy_edge(tmp_path / "w") as proxy:
        view = await proxy.to(0, mirror=3000)
        assert (view.weight, view.mirror) == (0, 3000)
        answers = await fetch_all("127.0.0.1", proxy.port, ({"X-Tenant-ID": f"t{n}"} for n in range(2000)))
        assert {answer.body for answer in answers} == {b"stable"}
        mirrored = lambda: read(proxy.agent, "canary_requests_total", cohort="mirror")  # noqa: E731
        copies = await settled(mirrored)
        assert 500 < copies < 700, "30 % of 2000 are 600, three sigma 62"
        await proxy.to(0)
        await fetch_all("127.0.0.1", proxy.port, ({} for _ in range(200)))
        assert await settled(mirrored) == copies


async def test_envoy_killed_comes_back_with_what_it_had(tmp_path):
    settings, port = envoy_settings(tmp_path / "w"), free_port()
    world = EnvoyWorld(spec=envoy_spec(envoy={"service": "edge", "listen": port}))
    async with apps(world), envoy_agent(world, settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with envoy_process(settings) as process:
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            before = await share(port)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        async with envoy_process(settings):
            await eventually(lambda: listening(port))
            await eventually(lambda: world.view().confirmed)
            assert await share(port) == before


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
