"""The prediction of who is in; that nginx agrees is tested in tests/agent/test_split.py."""

from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from canary_rollout.traffic.nginx.hashing import bucket, murmur2, predicted_canary, salt_of, tenant_key


def test_murmur2_stays_what_it_was_when_it_agreed_with_nginx():
    # One vector per length modulo 4 that matters; agreement with a running nginx is tested in tests/agent/test_split.py.
    seen = [murmur2(data) for data in (b"", b"a", b"tenant-1", b"shop/checkout/v2|hi|t:tenant-7")]
    assert seen == [0, 2456313694, 4114203396, 2686652684]


@given(st.text(max_size=40), st.integers(0, 10_000), st.integers(0, 10_000))
def test_whoever_is_in_at_one_weight_is_in_at_every_higher_one(tenant, one, other):
    low, high = sorted((one, other))
    assert predicted_canary("s", tenant, low) <= predicted_canary("s", tenant, high)


@given(st.text(max_size=40), st.text(max_size=40))
def test_nobody_is_in_at_zero_and_everybody_at_full(salt, tenant):
    assert not predicted_canary(salt, tenant, 0)
    assert predicted_canary(salt, tenant, 10_000)


def test_every_bucket_of_a_hundred_gets_its_share():
    counts = [0] * 100
    for n in range(20_000):
        counts[bucket("salt", tenant_key(f"tenant-{n}")) // 100] += 1
    deviation = sqrt(20_000 * 0.01 * 0.99)
    assert max(abs(count - 200) for count in counts) < 5 * deviation


def test_another_revision_tries_other_tenants_first():
    one, other = salt_of("shop", "checkout", "v2"), salt_of("shop", "checkout", "v3")
    tenants = [f"tenant-{n}" for n in range(5000)]
    first = {tenant for tenant in tenants if predicted_canary(one, tenant, 500)}
    second = {tenant for tenant in tenants if predicted_canary(other, tenant, 500)}
    assert len(first & second) < len(first) / 4


def test_a_tenant_named_like_an_address_is_not_that_address():
    assert tenant_key("10.0.0.1") != "10.0.0.1"
