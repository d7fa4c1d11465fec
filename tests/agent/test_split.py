"""The split that a real nginx makes, in both modes."""

import keepalive
import pytest
from chance import sigmas, split_by_chance
from keepalive import fetch_all
from proxies import NAMESPACE, edge

from canary_rollout.model.spec import Cohort
from canary_rollout.traffic.nginx.hashing import bucket, predicted_canary, salt_of

pytestmark = pytest.mark.nginx

WEIGHTS = [50, 500, 1000, 2500, 5000, 7500, 10_000]
TENANTS = 20_000
ANONYMOUS = 10_000
MODES = ["njs", "reload"]


async def versions(port, headers):
    return await keepalive.versions("127.0.0.1", port, headers)


async def by_chance(port, headers, count, weight):
    return await split_by_chance(lambda: versions(port, [headers] * count), count, weight)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_the_share_of_tenants_and_of_anonymous_requests_is_within_three_sigma_at_every_weight(tmp_path, mode):
    salt = salt_of(NAMESPACE, "checkout", "v2")
    buckets = [bucket(salt, f"t:tenant-{n}") for n in range(TENANTS)]
    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}) as proxy:
        for weight in WEIGHTS:
            view = await proxy.to(weight)
            assert view.mode == mode
            seen = await versions(proxy.port, ({"X-Tenant-ID": f"tenant-{n}"} for n in range(TENANTS)))
            assert seen == ["canary" if own < weight else "stable" for own in buckets], "not what was predicted"
            assert abs(sigmas(seen.count("canary"), TENANTS, weight)) <= 3, (weight, seen.count("canary"))
            assert await by_chance(proxy.port, {}, ANONYMOUS, weight)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_no_tenant_flips_inside_a_stage_or_leaves_the_canary_as_the_weight_rises(tmp_path, mode):
    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}) as proxy:
        inside: set[int] = set()
        for weight in (50, 500, 2500, 7500, 10_000):
            await proxy.to(weight)
            requests = [n for n in range(2000) for _ in range(10)]
            seen = await versions(proxy.port, ({"X-Tenant-ID": f"tenant-{n}"} for n in requests))
            canary = {n for n, version in zip(requests, seen, strict=True) if version == "canary"}
            stable = {n for n, version in zip(requests, seen, strict=True) if version == "stable"}
            assert not canary & stable, "a tenant was served by both"
            assert inside <= canary, "a tenant left the canary"
            inside = canary


async def test_without_the_header_the_client_address_decides_when_told_so(tmp_path):
    sticky = {"header": "X-Tenant-ID", "fallback": "clientIP"}
    async with edge(tmp_path / "w", weight=5000, sticky=sticky) as proxy:
        seen = set(await versions(proxy.port, ({} for _ in range(300))))
        expected = "canary" if bucket(salt_of(NAMESPACE, "checkout", "v2"), "127.0.0.1") < 5000 else "stable"
        assert seen == {expected}


async def test_an_empty_tenant_header_falls_back_like_an_absent_one(tmp_path):
    async with edge(tmp_path / "w", weight=50) as proxy:
        assert await by_chance(proxy.port, {"X-Tenant-ID": ""}, 2000, 50)


@pytest.mark.parametrize("mode", MODES)
async def test_tenants_are_told_apart_by_a_cookie(tmp_path, mode):
    async with edge(tmp_path / "w", weight=2500, sticky={"cookie": "tenant"}, nginx_traffic={"mode": mode}) as proxy:
        seen = await versions(proxy.port, ({"Cookie": f"a=b; tenant=t{n}"} for n in range(500)))
        salt = salt_of(NAMESPACE, "checkout", "v2")
        assert seen == ["canary" if predicted_canary(salt, f"t{n}", 2500) else "stable" for n in range(500)]


@pytest.mark.parametrize("mode", MODES)
async def test_without_stickiness_each_request_is_decided_anew(tmp_path, mode):
    async with edge(tmp_path / "w", weight=5000, sticky=None, nginx_traffic={"mode": mode}) as proxy:
        assert await by_chance(proxy.port, {"X-Tenant-ID": "one"}, 2000, 5000)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("key", ["header", "cookie"])
async def test_cohort_members_come_on_top_of_the_weight_and_nobody_is_in_at_weight_zero(tmp_path, mode, key):
    values = ("internal", "Friendly", "default", "hostnames", "include", "volatile", "a" * 64)
    cohort = Cohort.model_validate({key: "X-Cohort" if key == "header" else "cohort", "values": values})

    def asks(value, n):
        member = {"X-Cohort": value} if key == "header" else {"Cookie": f"cohort={value}"}
        return {"X-Tenant-ID": f"tenant-{n}", **member}

    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}) as proxy:
        await proxy.to(50, cohort=cohort)
        for value in (*values, "INTERNAL"):
            answers = await fetch_all("127.0.0.1", proxy.port, (asks(value, n) for n in range(20)))
            assert {a.body for a in answers} == {b"canary"}, value
            assert {a.headers["x-canary-cohort"].lower() for a in answers} == {value.lower()}
        for value in ("internal2", "interna", "", "~.*", "a" * 65, "m|x", "route", "number", "everyone", "v:internal"):
            answers = await fetch_all("127.0.0.1", proxy.port, (asks(value, n) for n in range(20)))
            assert sum(a.body == b"canary" for a in answers) <= 2, value
            assert {a.headers["x-canary-cohort"] for a in answers} == {"everyone"}
        await proxy.to(0, cohort=cohort)
        seen = await versions(proxy.port, (asks("internal", n) for n in range(200)))
        assert set(seen) == {"stable"}


@pytest.mark.parametrize("mode", MODES)
async def test_client_and_app_are_told_version_and_cohort_and_cannot_choose_them(tmp_path, mode):
    async with edge(tmp_path / "w", weight=10_000, nginx_traffic={"mode": mode}) as proxy:
        forged = {"X-Canary-Version": "forged", "X-Canary-Cohort": "forged"}
        (answer,) = await fetch_all("127.0.0.1", proxy.port, [forged], connections=1)
        assert answer.headers["x-canary-version"] == "v2"
        assert answer.headers["x-canary-cohort"] == "everyone"
        (echo,) = await fetch_all("127.0.0.1", proxy.port, [forged], connections=1, path="/echo")
        assert b"X-Canary-Version: v2" in echo.body
        assert b"forged" not in echo.body


async def test_the_headers_can_be_renamed_and_switched_off(tmp_path):
    headers = {"cohort": "", "version": "X-Release"}
    async with edge(tmp_path / "w", weight=10_000, response_headers=headers) as proxy:
        (answer,) = await fetch_all("127.0.0.1", proxy.port, [{}], connections=1)
        assert answer.headers["x-release"] == "v2"
        assert "x-canary-cohort" not in answer.headers
