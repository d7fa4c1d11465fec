"""Which tenants a weight sends to the canary: nginx's own hash in Python, to predict and list them before it happens.

nginx computes two buckets of 1/100 with ``split_clients`` (MurmurHash2, 32 bit, seed 0): one over
``salt|hi|key`` and one over ``salt|lo|key``; together they are a number 0..9999 that is compared with the weight in
basis points. Both modes of the agent use the same two buckets, so that changing the mode moves nobody, and a tenant
that is in at one weight is in at every higher one.

Source: nginx ``src/core/ngx_murmurhash.c`` and ``src/http/modules/ngx_http_split_clients_module.c``.
"""

from bisect import bisect_right
from typing import Final

from canary_rollout.model.units import FULL

_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_THRESHOLDS: Final = tuple(_MASK * percent * 100 // FULL for percent in range(1, 100))
"""Upper ends of the first 99 buckets, computed as nginx does; the 100th takes the rest."""


def murmur2(data: bytes) -> int:
    """MurmurHash2 with seed 0, as nginx computes it: 0..2^32-1."""
    h = len(data) & _MASK
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def bucket(salt: str, key: str) -> int:
    """The bucket 0..9999 of one key, which is served by the canary exactly when it is below the weight.

    Args:
        salt: as written in the route (see :func:`salt_of`).
        key: what nginx hashes: :func:`tenant_key` for a tenant; the client's address without a tenant.
    """
    hi, lo = (bisect_right(_THRESHOLDS, murmur2(f"{salt}|{part}|{key}".encode())) for part in ("hi", "lo"))
    return hi * 100 + lo


def tenant_key(tenant: str) -> str:
    """What is hashed for a tenant; the prefix keeps a tenant named like an address apart from that address."""
    return f"t:{tenant}"


def salt_of(namespace: str, rollout: str, revision: str) -> str:
    """The salt of one revision's rollout.

    Constant for one revision (nobody leaves the canary as the weight rises), different for the next one and for other
    applications (nobody is always the first to be hit).
    """
    return f"{namespace}/{rollout}/{revision}"


def predicted_canary(salt: str, tenant: str, weight: int) -> bool:
    """Whether ``tenant`` is served by the canary at ``weight`` basis points."""
    return bucket(salt, tenant_key(tenant)) < weight
