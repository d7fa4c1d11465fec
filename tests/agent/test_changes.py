"""Weight changes on a real nginx while people use it."""

import asyncio
import contextlib
import os
import signal
import socket
import time

import aiohttp
import pytest
from fake_api import Answer, FakeServer
from keepalive import KeepAliveConnection, Load, fetch_all
from proxies import (
    HELD,
    World,
    agent_process,
    agent_task,
    app,
    apps,
    edge,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    service,
    settings_for,
    settled,
    spec_of,
    until,
)
from under_load import begun_after, changes_fail_nothing, nobody_new, share, until_share

from canary_rollout.agent.nginx import Nginx
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, SERVICES

pytestmark = pytest.mark.nginx
NAMESPACE = "shop"
TENANTS = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(200)]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_weight_changes_under_load_fail_nothing_and_no_canary_answer_begins_after_the_acknowledgement(tmp_path):
    async with edge(tmp_path / "w") as proxy:
        await changes_fail_nothing(proxy, raises=20, requests=250)


@pytest.mark.slow
async def test_twenty_reloads_under_load_fail_nothing_and_keep_their_acknowledgements(tmp_path):
    async with edge(tmp_path / "w", nginx_traffic={"mode": "reload"}) as proxy:
        await changes_fail_nothing(proxy, raises=10, requests=1000, think=0.005)


async def test_raises_wait_for_each_other_but_a_lowering_overtakes_a_raise_that_waits(tmp_path, monkeypatch):
    def between(seconds):
        monkeypatch.setattr("canary_rollout.agent.proxy.BETWEEN_RELOADS", seconds)

    async with edge(tmp_path / "w", weight=500, nginx_traffic={"mode": "reload"}) as proxy:
        await proxy.to(1000)
        load = Load("127.0.0.1", proxy.port, connections=8, think=0.005)
        load.start()
        for _ in range(3):
            between(1000.0)  # more than anybody here waits for a confirmation
            await proxy.world.route(2500)
            await asyncio.sleep(0.1)
            assert not proxy.world.view().confirmed, "the raise did not wait"
            await proxy.to(0)
            await nobody_new(load, 200)
            between(0.0)
            await proxy.to(1000)
        await load.stop()
        assert load.failures == []


@pytest.mark.parametrize("mode", ["njs", "reload"])
async def test_a_long_request_ends_on_the_version_it_began_on(tmp_path, mode):
    async with edge(tmp_path / "w", weight=10_000, nginx_traffic={"mode": mode}) as proxy:
        connection = KeepAliveConnection("127.0.0.1", proxy.port)
        long = asyncio.create_task(connection.get("/held", TENANTS[0]))
        await eventually(lambda: len(HELD) == 1)
        await proxy.to(0)
        assert await share(proxy.port) == 0
        assert not long.done()
        HELD.answer()
        assert (await long).body == b"canary"
        await connection.close()


async def test_changed_addresses_are_loaded_by_a_reload_that_fails_nothing(tmp_path):
    async with app("third") as port, edge(tmp_path / "w", weight=2500) as proxy:
        load = Load("127.0.0.1", proxy.port, connections=16)
        load.start()
        await proxy.world.put(SERVICES, service("checkout-canary", "127.0.0.1", port))
        assert "address" in proxy.world.view().pending
        await proxy.to(2500)
        await eventually(lambda: any(answer.body == b"third" for answer in load.answers))
        await load.stop()
        assert load.failures == []


async def test_a_bad_configuration_leaves_the_last_good_one_serving_and_says_why(tmp_path, monkeypatch):
    async with edge(tmp_path / "w", weight=2500) as proxy:
        before = await share(proxy.port)
        monkeypatch.setattr(
            "canary_rollout.traffic.nginx.router.render_config", lambda _: "http { no_such_directive on; }\n"
        )
        await proxy.world.route(5000)
        await eventually(lambda: "no_such_directive" in lease_error(proxy))
        assert await share(proxy.port) == before
        assert proxy.agent.ready
        await proxy.world.route(0)  # a lowering does not wait for a good configuration
        await eventually(lambda: lease(proxy)["metadata"]["annotations"]["canaryrollout.dev/weight"] == "0")
        assert await share(proxy.port) == 0


def lease(proxy, pod="edge-1"):
    return proxy.world.api.store.peek(LEASES, NAMESPACE, f"checkout-nginx.{pod}")


def lease_error(proxy):
    return lease(proxy)["metadata"]["annotations"]["canaryrollout.dev/error"]


async def test_an_address_in_use_is_noticed_although_nginx_accepted_the_configuration(tmp_path, monkeypatch):
    async with edge(tmp_path / "w", weight=2500) as proxy:
        monkeypatch.setattr("canary_rollout.agent.proxy.TAKE_OVER", 2.0)
        before = await share(proxy.port)
        listening = {"service": "edge", "listen": proxy.settings.port}  # the agent's own port
        proxy.world.spec = spec_of(nginx=listening)
        await proxy.world.route(2500)
        await eventually(lambda: "did not take the configuration over" in lease_error(proxy))
        assert await share(proxy.port) == before


async def test_nginx_restarted_gets_its_weight_back_and_never_a_wrong_one(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port}))
    async with apps(world), agent_task(world, settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with nginx_process(settings):
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            before = await share(port)
        await eventually(lambda: not answers(port))
        async with nginx_process(settings):
            await eventually(lambda: answers(port))
            assert await share(port) == before, "what it starts with is what it had"
            await asyncio.sleep(1.5)
            await eventually(lambda: world.view().confirmed)
            assert await share(port) == before


async def test_the_agent_killed_leaves_nginx_serving_which_returns_to_stable_by_itself_when_the_lease_ends(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    lease = 8.0  # renewed every two seconds: what is left of it is longer than a machine stands still
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port, "staleAfter": f"{lease:g}s"}))
    async with apps(world), FakeServer(world.api) as server, nginx_process(settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        load = Load("127.0.0.1", port, connections=8, think=0.01)
        async with agent_process(server, settings) as agent:
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            confirmed = time.monotonic()
            load.start()
            await eventually(lambda: bool(begun_after(load, confirmed + lease + 0.3)))  # so it was renewed
            agent.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await agent.wait()
            await eventually(lambda: bool(begun_after(load, killed + 0.3)))  # for as long as the lease holds
            await asyncio.sleep(killed + lease + 0.3 - time.monotonic())
            await nobody_new(load, 200)
        async with agent_process(server, settings):
            back = time.monotonic()
            await eventually(lambda: bool(begun_after(load, back)))
            await eventually(lambda: world.view().confirmed)
        await load.stop()
        assert load.failures == []


async def test_cut_off_from_the_api_server_a_weight_ends_with_its_lease_and_comes_back(tmp_path):
    listening = {"staleAfter": "2s"}
    async with edge(tmp_path / "w", weight=2500, nginx_traffic=listening) as proxy:
        await until_share(proxy, lambda found: found > 0)
        proxy.world.api.fault(Answer(503), times=None, client="edge-1")
        await asyncio.sleep(2.6)
        assert await share(proxy.port) == 0
        proxy.world.api.clear_faults()
        await until_share(proxy, lambda found: found > 0)
        await proxy.confirmed()


async def test_a_full_weight_is_no_lease_and_stays_when_everybody_is_gone(tmp_path):
    async with edge(tmp_path / "w", weight=10_000, nginx_traffic={"staleAfter": "1s"}) as proxy:
        proxy.world.api.fault(Answer(503), times=None, client="edge-1")
        await asyncio.sleep(1.6)
        assert await share(proxy.port) == 1


async def test_in_reload_mode_the_parent_of_nginx_ends_a_weight_whose_lease_is_over(tmp_path):
    async with edge(tmp_path / "w", weight=2500, nginx_traffic={"mode": "reload", "staleAfter": "4s"}) as proxy:
        await until_share(proxy, lambda found: found > 0)
        proxy.world.api.fault(Answer(503), times=None, client="edge-1")
        await until_share(proxy, lambda found: found == 0)
        await eventually(lambda: not proxy.world.view().confirmed)
        proxy.world.api.clear_faults()
        await until_share(proxy, lambda found: found > 0)


async def test_a_weight_somebody_edits_by_hand_counts_only_when_it_is_zero(tmp_path):
    async with edge(tmp_path / "w", weight=2500) as proxy:
        before = await share(proxy.port)
        text = proxy.world.config_map()["data"]["weights.json"]
        edited = text.replace('"weight": 2500', '"weight": 9000')
        await proxy.world.api.client("kubectl").merge_patch(
            CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"data": {"weights.json": edited}}, manager="kubectl-edit"
        )
        await eventually(lambda: "checksums" in lease_error(proxy))
        view = proxy.world.view()
        assert (view.weight, view.contested_by, view.confirmed) == (9000, "kubectl-edit", False)
        assert await share(proxy.port) == before
        edited = text.replace('"weight": 2500', '"weight": 0')
        await proxy.world.api.client("kubectl").merge_patch(
            CONFIG_MAPS, NAMESPACE, "checkout-nginx", {"data": {"weights.json": edited}}, manager="kubectl-edit"
        )
        await eventually(lambda: lease(proxy)["metadata"]["annotations"]["canaryrollout.dev/weight"] == "0")
        assert await share(proxy.port) == 0
        await proxy.to(2500)
        assert await share(proxy.port) == before
        assert proxy.world.view().contested_by == ""


async def test_the_config_map_deleted_leaves_the_last_weight_for_one_lease_and_the_proxy_ready(tmp_path):
    async with edge(tmp_path / "w", weight=2500, nginx_traffic={"staleAfter": "6s"}) as proxy:
        await until_share(proxy, lambda found: found > 0)
        await proxy.world.api.client("kubectl").delete(CONFIG_MAPS, NAMESPACE, "checkout-nginx")
        assert await share(proxy.port) > 0
        await until_share(proxy, lambda found: found == 0)
        assert proxy.agent.ready


async def test_a_watch_that_is_gone_is_begun_anew(tmp_path):
    async with edge(tmp_path / "w", weight=0) as proxy:
        proxy.world.api.gone_watches()
        await proxy.to(2500)
        assert await share(proxy.port) > 0


async def test_sigterm_lets_requests_under_way_end(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port}))
    async with apps(world), agent_task(world, settings), nginx_process(settings, drain=5.0) as nginx:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(0)
        await eventually(lambda: world.view().confirmed)
        connection = KeepAliveConnection("127.0.0.1", port)
        long = asyncio.create_task(connection.get("/held"))
        await eventually(lambda: len(HELD) == 1)
        nginx.terminate()
        await asyncio.sleep(0.2)
        assert await share(port) == 0, "still accepted while endpoints are updated"
        await eventually(lambda: not answers(port))
        assert not long.done()
        HELD.answer()
        assert (await long).body == b"stable"
        await connection.close()
        assert await nginx.wait() == 0


async def test_the_share_really_served_is_counted_per_version_with_errors_and_latency(tmp_path):
    async with edge(tmp_path / "w", weight=2500) as proxy:
        answers = await fetch_all("127.0.0.1", proxy.port, TENANTS)
        broken = await fetch_all("127.0.0.1", proxy.port, TENANTS[:50], path="/broken")
        canary = sum(answer.headers["x-canary-version"] == "v2" for answer in answers + broken)
        url = f"http://127.0.0.1:{proxy.settings.port}"
        async with aiohttp.ClientSession() as session:

            async def samples():
                async with session.get(f"{url}/metrics") as response:
                    return [
                        line
                        for line in (await response.text()).splitlines()
                        if line.startswith("canary_requests_total")
                    ]

            await until(samples, lambda found: sum(float(line.split()[-1]) for line in found) >= len(answers + broken))
            await settled(samples, quiet=0.5)
            async with session.get(f"{url}/metrics") as response:
                text = await response.text()
            for path in ("/readyz", "/healthz"):
                async with session.get(url + path) as response:
                    assert response.status == 200
        labels = 'cohort="everyone",revision="v2",rollout="checkout",version="canary"'
        assert f"canary_requests_total{{{labels}}} {canary:.1f}" in text
        errors = sum(answer.headers["x-canary-version"] == "v2" for answer in broken)
        assert errors > 0
        assert f"canary_errors_total{{{labels}}} {errors:.1f}" in text
        assert f"canary_latency_seconds_count{{{labels}}} {canary:.1f}" in text
        assert "canary_agent_malformed_lines_total 0.0" in text


@pytest.fixture
def orphans(tmp_path):
    """Ends an nginx that was started to outlive its agent."""
    yield
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.killpg(int((tmp_path / "w/run/supervisor.pid").read_text()), signal.SIGKILL)


@pytest.mark.usefixtures("orphans")
async def test_an_nginx_that_the_agent_started_outlives_it_is_adopted_and_ends_with_the_order_to_stop(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port}))
    nginx = Nginx(settings.nginx, settings.work)
    async with apps(world), FakeServer(world.api) as server:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with agent_process(server, settings, "--exec-nginx") as agent:
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
            before, master = await share(port), nginx.master()
            load = Load("127.0.0.1", port, connections=4, think=0.01)
            load.start()
            agent.send_signal(signal.SIGKILL)
            await agent.wait()
        await asyncio.sleep(0.5)
        assert nginx.master() == master
        async with agent_process(server, settings, "--exec-nginx") as agent:
            await world.route(5000)
            await eventually(lambda: world.view().confirmed)
            assert nginx.master() == master, "adopted, not started anew"
            assert await share(port) > before
            await load.stop()
            assert load.failures == []
            agent.terminate()
            assert await asyncio.wait_for(agent.wait(), 30) == 0
        assert nginx.master() is None
