"""Which tenants a weight sends to the canary in Envoy: its own hash in Python, to predict and list them before it happens.

Envoy hashes ``<salt>|<key>`` with xxHash64 (seed 0) and takes it modulo 10,000 as the tenant's place; the canary is the
first of the weighted clusters, so whoever is in at one weight is in at every higher one. Salt and key are those of
``traffic/nginx/hashing.py``; the function is not, so the two proxies order the same tenants differently.

Source: Envoy ``source/common/http/hash_policy.cc``, ``source/common/router/weighted_cluster_specifier.cc``;
xxHash ``doc/xxhash_spec.md``.
"""

from typing import Final

from canary_rollout.model.units import FULL

_MASK: Final = 2**64 - 1
_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotate((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK


def _lane(data: bytes, start: int, size: int = 8) -> int:
    return int.from_bytes(data[start : start + size], "little")


def xxh64(data: bytes) -> int:
    """XxHash64 with seed 0: 0..2^64-1."""
    at = 0
    if len(data) >= 32:
        lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        while at + 32 <= len(data):
            lanes = [_round(lane, _lane(data, at + 8 * number)) for number, lane in enumerate(lanes)]
            at += 32
        h = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            h = ((h ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        h = _P5
    h = (h + len(data)) & _MASK
    while at + 8 <= len(data):
        h = (_rotate(h ^ _round(0, _lane(data, at)), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= len(data):
        h = (_rotate(h ^ (_lane(data, at, 4) * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        h = _rotate(h ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    h = (h ^ (h >> 33)) * _P2 & _MASK
    h = (h ^ (h >> 29)) * _P3 & _MASK
    return h ^ (h >> 32)


def bucket(salt: str, key: str) -> int:
    """The place 0..9999 of one key, which is served by the canary exactly when it is below the weight.

    Args:
        salt: ``traffic.nginx.hashing.salt_of`` of the revision.
        key: ``traffic.nginx.hashing.tenant_key`` of a tenant; the client's address without a tenant.
    """
    return xxh64(f"{salt}|{key}".encode()) % FULL


def address_bucket(address: str) -> int:
    """The place of a client's address where ``trustedProxies`` are named: Envoy hashes it without a salt there."""
    return xxh64(address.encode()) % FULL
