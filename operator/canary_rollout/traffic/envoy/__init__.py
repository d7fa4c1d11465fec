"""A plain Envoy: the operator writes a ConfigMap, the agent beside each Envoy makes its files of it and confirms by a Lease."""

from canary_rollout.traffic.envoy.router import EnvoyRouter

__all__ = ["EnvoyRouter"]
