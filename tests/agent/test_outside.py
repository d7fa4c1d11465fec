"""nginx outside the cluster: named proxies, each with an agent that holds a kubeconfig."""

import pytest
from fake_api import FakeServer
from keepalive import fetch_all
from proxies import World, agent_process, apps, eventually, free_port, nginx_process, settings_for, spec_of

from canary_rollout.kube.port import SERVICES

pytestmark = pytest.mark.nginx
TENANTS = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(200)]


async def test_every_named_proxy_must_confirm_and_one_that_is_gone_is_named(tmp_path):
    first, second = settings_for(tmp_path / "a", "vm-1"), settings_for(tmp_path / "b", "vm-2")
    port = free_port()
    world = World(
        spec=spec_of(nginx={"proxies": ["vm-1", "vm-2"], "via": "loadBalancer", "listen": port, "staleAfter": "3s"})
    )
    async with apps(world), FakeServer(world.api) as server:
        for name in ("checkout", "checkout-canary"):
            status = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
            await world.api.client("cloud").merge_patch(
                SERVICES, "shop", name, {"status": status}, subresource="status"
            )
        async with nginx_process(first), agent_process(server, first):
            await world.route(0)
            await eventually(lambda: "vm-2 has no agent" in world.view().pending and "vm-1" not in world.view().pending)
            async with agent_process(server, second):  # beside an nginx that is not started: nothing can be proved
                await world.route(2500)
                await eventually(lambda: "waiting for 1 of 2 nginx pods: vm-2" in world.view().pending)
                answers = await fetch_all("127.0.0.1", port, TENANTS)
                assert {answer.body for answer in answers} == {b"stable", b"canary"}
            world.spec = spec_of(nginx={"proxies": ["vm-1"], "via": "loadBalancer", "listen": port, "staleAfter": "3s"})
            await eventually(lambda: world.view().confirmed)
