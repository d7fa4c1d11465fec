"""The rollouts that the known Prometheus has seen, and what is true about them."""

from collections.abc import Iterator
from dataclasses import dataclass

from known_metrics import Traffic, agent, app, line

from canary_rollout.local.prometheus import Prometheus

SLOW = (0.1, 0.2, 0.2, 0.3, 0.1, 0.1)

STABLE_POD = Traffic(45.0, 0.45)
CANARY = Traffic(10.0, 0.5, SLOW, 0.4)
OLD_CANARY = Traffic(20.0, 20.0, (0.0, 0.0, 0.0, 0.0, 0.0, 1.0), 3.0)
HEALTHY = Traffic(9.0)
IDLE = Traffic(0.0)
MEMBERS = Traffic(6.0, 3.0, (0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0.9)

LONG_STABLE = f"{'s' * 50}-5d4c3b2a19"
LONG_CANARY = f"{'c' * 50}-9f8e7d6c5b"


@dataclass(frozen=True)
class Known:
    """Where the Prometheus is, the time at which its history ends, and the server itself."""

    url: str
    end: int
    server: Prometheus


def pod(namespace: str, name: str, service: str, **more: str) -> dict[str, str]:
    """The labels that Prometheus' Kubernetes discovery puts on a pod's series."""
    return {"namespace": namespace, "pod": name, "service": service, **more}


def proxy(
    version: str, cohort: str, revision: str, rollout: str = "checkout", namespace: str = "shop"
) -> dict[str, str]:
    """The labels of the agent's series."""
    return {
        "namespace": namespace,
        "pod": "proxy-5f6d-zzzzz",
        "rollout": rollout,
        "version": version,
        "cohort": cohort,
        "revision": revision,
    }


def WORLD(end: int) -> Iterator[str]:  # noqa: N802
    """Every sample there is."""
    for name in ("aaaaa", "bbbbb"):
        yield from app(pod("shop", f"checkout-6b7f9c-{name}", "checkout", track="v1"), STABLE_POD, end)
    yield from app(pod("shop", "checkout-canary-7d8e-ccccc", "checkout-canary", track="v2"), CANARY, end)
    # The same Deployment's revision before, and others that must not be mixed in.
    yield from app(pod("shop", "checkout-canary-old1-ddddd", "elsewhere", track="v0"), OLD_CANARY, end)
    yield from app(pod("shop", "checkout-canary-7d8e-x-eeeee", "elsewhere", track="v2"), OLD_CANARY, end)
    yield from app(pod("other", "checkout-canary-7d8e-ccccc", "checkout-canary", track="v2"), OLD_CANARY, end)
    for name in ("6b7f9c-aaaaa", "canary-7d8e-ccccc"):
        yield from app(pod("fresh", f"checkout-{name}", name.split("-")[0]), HEALTHY, end)
        yield from app(pod("quiet", f"checkout-{name}", name.split("-")[0]), IDLE, end)
        yield from app(pod("code", f"checkout-{name}", name.split("-")[0]), STABLE_POD, end, status_label="code")
    # Kubernetes cuts the first part of a pod's name to 58 characters.
    yield from app(pod("long", f"{LONG_STABLE}-"[:58] + "aaaaa", "long"), STABLE_POD, end)
    yield from app(pod("long", f"{LONG_CANARY}-"[:58] + "bbbbb", "long-canary"), CANARY, end)

    yield from agent(proxy("stable", "everyone", "r1"), Traffic(90.0, 0.9), end)
    yield from agent(proxy("canary", "everyone", "r2"), CANARY, end)
    yield from agent(proxy("canary", "internal", "r2"), MEMBERS, end)
    yield from agent(
        proxy("canary", "everyone", "r1"),
        OLD_CANARY,
        end,
    )
    yield from agent(proxy("stable", "everyone", "r1", "healthy"), HEALTHY, end)
    yield from agent(proxy("canary", "everyone", "r2", "healthy"), HEALTHY, end)
    yield from agent(proxy("stable", "everyone", "r1", "idle"), IDLE, end)
    yield from agent(proxy("canary", "everyone", "r2", "idle"), IDLE, end)
    for name, denied in (("checkout-6b7f9c-aaaaa", 1.0), ("checkout-canary-7d8e-ccccc", 7.0)):
        yield from line("denied_total", pod("shop", name, "checkout"), denied, end)
