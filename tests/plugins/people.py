"""People as a rule may treat them one by one, asked on a real proxy and decided by `traffic/choice.py`."""

from collections.abc import Callable, Iterable

from keepalive import fetch_all
from proxies import Edge

from canary_rollout.model.cohorts import Cohort
from canary_rollout.model.routing import Pin, Sticky
from canary_rollout.traffic.choice import Asked, Rules, decide

STICKY = {
    "header": "X-Tenant-ID",
    "allow": ["Acme", "friend@example.com", "a:b"],
    "deny": ["acme", "Bank-1", "tenant-7"],
}
PIN = {"header": "X-Canary", "canary": "always", "stable": "never"}
REGIONS = {
    "header": "X-Region",
    "weights": [
        {"value": "eu-west-1", "weight": "60%"},
        {"value": "us.east", "weight": "0%"},
        {"value": "all", "weight": "100%"},
    ],
}


def headers(asked: Asked) -> dict[str, str]:
    """What such a person sends."""
    named = {"X-Tenant-ID": asked.tenant, "X-Canary": asked.pin, "X-Cohort": asked.cohort, "X-Region": asked.region}
    return {name: value for name, value in named.items() if value}


def rules(weight: int, cohort: dict[str, object]) -> Rules:
    """Of :data:`STICKY` and :data:`PIN`, with a cohort as soon as the canary serves."""
    served = Cohort.model_validate(cohort) if weight else None
    return Rules(weight, Sticky.model_validate(STICKY), Pin.model_validate(PIN), served)


async def get_what_the_reference_says(
    proxy: Edge,
    cohort: dict[str, object],
    people: Callable[[int, int], Iterable[Asked]],
    place: Callable[[str], int],
) -> None:
    """At every weight, 600 people (``people(count, seed)``) get version, label and revision by their ``place`` and the rules."""
    for weight in (0, 50, 2500, 10_000):
        said = rules(weight, cohort)
        await proxy.to(weight, cohort=said.cohort)
        asked = list(people(600, weight))
        answers = await fetch_all("127.0.0.1", proxy.port, map(headers, asked))
        for one, answer in zip(asked, answers, strict=True):
            version, label = decide(said, one, lambda one=one: place(one.tenant))
            seen = (answer.body.decode(), answer.headers["x-canary-cohort"], answer.headers["x-canary-version"])
            assert seen == (version, label, "v2" if version == "canary" else "v1"), (weight, one)
