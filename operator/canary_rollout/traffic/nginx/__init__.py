"""Our own nginx: the operator renders a ConfigMap, the agent beside each nginx applies it and confirms by a Lease."""

from canary_rollout.traffic.nginx.router import NginxRouter

__all__ = ["NginxRouter"]
