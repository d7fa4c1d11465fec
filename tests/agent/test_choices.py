"""Who gets which version on a real nginx, in both modes, is exactly what `traffic/choice.py` says."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keepalive import fetch_all
from people import PIN, REGIONS, STICKY, get_what_the_reference_says, rules
from proxies import NAMESPACE, edge, settled, spec_of

from canary_rollout.traffic.choice import Asked, decide
from canary_rollout.traffic.nginx.hashing import bucket, salt_of, tenant_key

MODES = ["njs", "reload"]
SALT = salt_of(NAMESPACE, "checkout", "v2")
COHORT = {
    "header": "X-Cohort",
    "values": ["internal", "Friendly", "default", "hostnames"],
    "prefixes": ["beta-", "default.v"],
    "pattern": "Mozilla*Firefox/1*",
    "regions": REGIONS,
}
TENANTS = [
    "Acme",
    "acme",
    "ACME",
    "friend@example.com",
    "a:b",
    "Bank-1",
    "bank-1",
    "tenant-7",
    "Acme|Acme",
    ",a=x|x",
    "d=acme",
]
COHORTS = [
    "", "internal", "INTERNAL", "internal2", "friendly", "default", "hostnames", "beta-7", "BETA-x", "beta", "default.v2",
    "Mozilla/5.0 (X11) Gecko Firefox/152", "mozilla firefox/1", "Mozilla Firefox/2", "xMozilla Firefox/1", "~^.*", "v:internal",
]  # fmt: skip
REGIONS = ["", "eu-west-1", "EU-West-1", "eu-west-11", "us.east", "usxeast", "all", "0000", "9999:all"]
PINS = ["", "", "", "always", "Always", "never", "NEVER", "maybe", "default"]


def people(count, seed):
    generator = random.Random(seed)
    for n in range(count):
        tenant = generator.choice(TENANTS) if generator.random() < 0.3 else f"tenant-{n}"
        rare = generator.random() < 0.5
        yield Asked(
            tenant,
            generator.choice(PINS) if rare else "",
            generator.choice(COHORTS) if generator.random() < 0.4 else "",
            generator.choice(REGIONS),
        )


def place(tenant):
    return bucket(SALT, tenant_key(tenant))


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_every_request_gets_the_version_and_the_cohort_that_the_reference_says(tmp_path, mode):
    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}, sticky=STICKY, pin=PIN) as proxy:
        await get_what_the_reference_says(proxy, COHORT, people, place)


@given(st.integers(0, 9_999), st.integers(1, 9_999), st.integers(1, 9_999), st.integers(0, 100_000))
def test_whoever_is_in_the_canary_stays_in_as_the_weight_rises(at, one, other, seed):
    low, high = sorted((one, other))
    (asked,) = people(1, seed)
    before, _ = decide(rules(low, COHORT), asked, lambda: at)
    after, _ = decide(rules(high, COHORT), asked, lambda: at)
    assert not (before == "canary" and after == "stable")


@given(st.integers(0, 9_999), st.integers(0, 100_000))
def test_nobody_is_in_at_zero_and_everybody_who_does_not_ask_for_stable_at_full(at, seed):
    (asked,) = people(1, seed)
    assert decide(rules(0, COHORT), asked, lambda: at) == ("stable", "everyone")
    version, _ = decide(rules(10_000, COHORT), asked, lambda: at)
    assert version == ("stable" if asked.pin.lower() == "never" else "canary")


@given(st.integers(0, 9_999), st.integers(0, 10_000), st.sampled_from(STICKY["deny"]), st.sampled_from(PINS + COHORTS))
def test_a_denied_tenant_is_never_in_below_full_whatever_else_it_says(at, weight, tenant, word):
    version, _ = decide(rules(weight, COHORT), Asked(tenant, word, word, "all"), lambda: at)
    assert version == ("canary" if weight == 10_000 and word.lower() != "never" else "stable")


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_the_address_decides_where_it_is_told_to(tmp_path, mode):
    told = {"mode": mode, "trustedProxies": ["127.0.0.1"]}
    async with edge(tmp_path / "w", weight=5000, sticky={"clientIP": True}, nginx_traffic=told) as proxy:
        clients = [f"198.51.100.{n}" for n in range(200)]
        asked = [{"X-Forwarded-For": f"10.9.9.9, {client}"} for client in clients]
        answers = await fetch_all("127.0.0.1", proxy.port, asked)
        expected = ["canary" if bucket(SALT, client) < 5000 else "stable" for client in clients]
        assert [answer.body.decode() for answer in answers] == expected


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_the_app_is_told_by_headers_and_by_baggage_and_the_client_by_names_of_its_own(tmp_path, mode):
    told = {"cohort": "X-Group", "version": "", "baggage": True}
    async with edge(
        tmp_path / "w",
        nginx_traffic={"mode": mode},
        request_headers=told,
        response_headers={"cohort": "", "version": "X-By"},
    ) as proxy:
        await proxy.to(10_000)
        asked = [{"X-Group": "forged", "baggage": "userId=7,serverNode=DF%2028"}, {}]
        with_baggage, without = await fetch_all("127.0.0.1", proxy.port, asked, connections=1, path="/echo")
        assert b"baggage: userId=7,serverNode=DF%2028,canary.cohort=everyone,canary.version=v2" in with_baggage.body
        assert b"baggage: canary.cohort=everyone,canary.version=v2" in without.body
        assert b"X-Group: everyone" in with_baggage.body
        assert b"forged" not in with_baggage.body
        assert b"X-Canary-Version" not in with_baggage.body
        assert with_baggage.headers["x-by"] == "v2"
        assert not {"x-canary-cohort", "x-group"} & set(with_baggage.headers)


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_direct_paths_lead_to_one_version_for_those_who_may_and_never_to_a_canary_that_does_not_serve(
    tmp_path, mode
):
    direct = {
        "mode": mode,
        "directPaths": {"stable": "/stable", "canary": "/try/canary", "allowFrom": ["127.0.0.1/32"]},
    }
    async with edge(tmp_path / "w", weight=50, nginx_traffic=direct) as proxy:
        paths = ["/try/canary/echo", "/stable/echo", "/stable", "/try/canary/"]
        found = {path: (await fetch_all("127.0.0.1", proxy.port, [{}], path=path))[0] for path in paths}
        assert found["/try/canary/echo"].body.startswith(b"GET /echo HTTP/1.1")
        assert b"X-Canary-Version: v2" in found["/try/canary/echo"].body
        assert found["/try/canary/"].body == b"canary"
        assert found["/stable/echo"].body.startswith(b"GET /echo HTTP/1.1")
        assert found["/stable/echo"].headers["x-canary-version"] == "v1"
        assert found["/stable/echo"].headers["x-canary-cohort"] == "direct"
        assert found["/stable"].status == 200, "the app's own path"
        await proxy.to(0)
        (answer,) = await fetch_all("127.0.0.1", proxy.port, [{}], path="/try/canary/")
        assert answer.status == 503
        proxy.world.spec = spec_of(
            nginx={"service": "edge", "listen": proxy.port, "directPaths": {"allowFrom": ["198.51.100.0/24"]}}
        )
        await proxy.to(10_000)
        for path in ("/canary/", "/stable/"):
            (answer,) = await fetch_all("127.0.0.1", proxy.port, [{}], path=path)
            assert answer.status == 403


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_a_share_of_the_requests_is_copied_to_the_canary_and_everybody_is_answered_by_stable(tmp_path, mode):
    stages = [
        {"name": "shadow", "weight": "0%", "mirror": "30%", "hold": "1m"},
        {"name": "all", "weight": "100%", "hold": "1m"},
    ]
    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}) as proxy:
        spec = proxy.world.spec.model_dump(mode="json", by_alias=True)
        proxy.world.spec = type(proxy.world.spec).model_validate({**spec, "stages": stages})
        view = await proxy.to(0, mirror=3000)
        assert (view.weight, view.mirror) == (0, 3000)
        answers = await fetch_all("127.0.0.1", proxy.port, ({"X-Tenant-ID": f"t{n}"} for n in range(2000)))
        assert {answer.body for answer in answers} == {b"stable"}
        assert {answer.headers["x-canary-version"] for answer in answers} == {"v1"}
        assert 500 < await copied(proxy) < 700, "30 % of 2000 are 600, three sigma 62"
        before = await copied(proxy)
        await proxy.to(0)
        await fetch_all("127.0.0.1", proxy.port, ({} for _ in range(200)))
        assert await copied(proxy) == before
        await proxy.to(2500)
        answers = await fetch_all("127.0.0.1", proxy.port, ({"X-Tenant-ID": f"t{n}"} for n in range(200)))
        assert {answer.body for answer in answers} == {b"stable", b"canary"}
        assert await copied(proxy) == before


async def copied(proxy):
    """Copies that the canary has answered, as the agent counts them, when it has counted them all."""
    return await settled(lambda: copied_so_far(proxy))


async def copied_so_far(proxy):
    await proxy.agent.counting.now()
    requests = next(iter(proxy.agent.counting.counter.collect()))
    found = [sample for sample in requests.samples if sample.labels["cohort"] == "mirror"]
    assert all(sample.labels["version"] == "canary" and sample.labels["revision"] == "v2" for sample in found)
    return sum(sample.value for sample in found)


@pytest.mark.nginx
@pytest.mark.parametrize("mode", MODES)
async def test_requests_are_counted_by_bucket_of_tenants_from_weight_zero_on(tmp_path, mode):
    async with edge(tmp_path / "w", nginx_traffic={"mode": mode}) as proxy:
        tenants = [f"tenant-{n}" for n in range(300)]
        for weight in (0, 2500):
            await proxy.to(weight)
            await fetch_all("127.0.0.1", proxy.port, ({"X-Tenant-ID": tenant} for tenant in tenants))
        await fetch_all("127.0.0.1", proxy.port, ({} for _ in range(100)))
        await copied(proxy)  # so that all are counted
        places = [bucket(SALT, tenant_key(tenant)) for tenant in tenants]
        found = counted(proxy)
        expected: dict[tuple[str, str], int] = {}
        for at in places:
            for weight in (0, 2500):
                key = ("canary" if at < weight else "stable", f"{at // 10}")
                expected[key] = expected.get(key, 0) + 1
        assert found == expected, "and nothing of those without a tenant"


def counted(proxy):
    metric = next(
        one for one in proxy.agent.counting.counter.collect() if re.fullmatch("canary_bucket_requests", one.name)
    )
    return {(sample.labels["version"], sample.labels["bucket"]): sample.value for sample in metric.samples}
