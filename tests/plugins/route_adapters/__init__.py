"""One small adapter per router: what the conformance suite (tests/traffic/conformance) has to know of a data plane.

A new router is one file here, with a tuple ``ADAPTERS``, and its name in :data:`MODULES`.
"""

from importlib import import_module

from .base import CANARY, ROLLOUT, STABLE, Adapter, Refused, http_service

MODULES = ("gateway_api", "weighted_lists", "own_proxies")

ADAPTERS: tuple[Adapter, ...] = tuple(
    adapter for name in MODULES for adapter in import_module(f"{__name__}.{name}").ADAPTERS
)

__all__ = ["ADAPTERS", "CANARY", "ROLLOUT", "STABLE", "Adapter", "Refused", "http_service"]
