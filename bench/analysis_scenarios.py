"""What a benchmarked service is like: traffic, errors, accidents; healthy and broken ones.

Every name is a scenario of `make bench-analysis` (`SCENARIOS="batch-50 broken-2000-25-1"`, or `healthy`, `broken`,
`late`, `latency`, `memory`, `odd`, `all`). Rates are fractions, weights basis points, times seconds.
"""

from dataclasses import dataclass, replace
from itertools import product

HOUR = 3600.0
FOUR_STAGES = ((50, HOUR), (500, HOUR), (2500, HOUR), (10_000, HOUR))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of service and rollout. `error_rate` is both arms'; `broken_rate` the canary's from `onset` on.

    `bursts`: "" independent errors, "batch" 10-50 within a second on one pod, "sticky" the next 10-50 requests of a pod fail.
    `extra_bursts`: the share of requests that fail in bursts; the rest of `error_rate` stays independent.
    """

    name: str
    rps: float
    stages: tuple[tuple[int, float], ...] = FOUR_STAGES
    error_rate: float = 0.001
    broken_rate: float | None = None
    onset: float = 0.0
    bursts: str = ""
    burst_sizes: tuple[int, int] = (10, 50)
    outages_per_hour: float = 0.0
    worse: float = 1.0  # the canary's harmless ratio
    realised: float = 1.0  # share really received over the configured one
    uneven: bool = False  # pods with 1/4 to 4 times the traffic, one of them with three times the errors
    season: float = 0.0  # the error rate of both arms swings by this factor within the hour
    restarts: float = 0.0  # per pod and hour
    canary_restarts: float = 0.0
    lost: float = 0.005  # share of scrapes that fail
    late: float = 0.0  # share of scrapes that arrive a scrape or more late
    scrape: float = 15.0
    slow_pod: float = 0.0  # one stable pod is scraped at this interval
    history: float = 6 * HOUR
    stable_pods: int = 10
    dies: float | None = None  # when a stable pod vanishes
    silent: tuple[float, float] | None = None  # no traffic at all between these times
    latency: str = ""  # "" no buckets, "same", or what the canary has: "x1.25", "1%+1s"
    other_buckets: bool = False
    memory: float | None = None  # the canary's working set over stable's; None: no gauge
    leak: float = 0.0  # growth of the canary's working set per hour
    group: str = "healthy"

    @property
    def length(self) -> float:
        """Seconds of the whole rollout."""
        return sum(seconds for _, seconds in self.stages)

    @property
    def broken(self) -> bool:
        """Whether something should be found."""
        return (
            self.broken_rate is not None or self.latency not in {"", "same"} or (self.memory or 1) > 1 or self.leak > 0
        )


def _healthy() -> list[Scenario]:
    out: list[Scenario] = []
    for rps in (50.0, 2000.0):
        base = Scenario("", rps)
        kinds = {
            "independent": base,
            "batch": replace(base, bursts="batch"),
            "sticky": replace(base, bursts="sticky"),
            "outages": replace(base, outages_per_hour=0.7),
            "both-2pc": replace(base, error_rate=0.02),
            "both-0.001pc": replace(base, error_rate=0.00001),
            "benign-1.2x": replace(base, worse=1.2),
            "uneven": replace(base, uneven=True),
            "uneven-batch": replace(base, uneven=True, bursts="batch"),
            "share-27-for-25": replace(base, realised=1.08),
            "restarts": replace(base, restarts=2.0, lost=0.05, late=0.02),
            "season": replace(base, season=5.0),
            "batch-2pc": replace(base, bursts="batch", error_rate=0.02),
            "batch-and-outages": replace(base, bursts="batch", outages_per_hour=2.0),
        }
        out += [replace(scenario, name=f"{kind}-{rps:.0f}") for kind, scenario in kinds.items()]
    return out


def _no_history() -> list[Scenario]:
    return [
        Scenario(f"{bursts or 'independent'}-{rps:.0f}-no-history", rps, bursts=bursts, history=0.0, group="no-history")
        for rps in (50.0, 2000.0)
        for bursts in ("", "batch", "sticky")
    ]


def _broken() -> list[Scenario]:
    cells = product((50.0, 2000.0), (50, 500, 2500), (0.002, 0.005, 0.01, 0.02, 0.05, 0.5, 1.0))
    return [
        Scenario(
            f"broken-{rps:.0f}-{weight / 100:g}-{rate * 100:g}", rps, ((weight, HOUR),), broken_rate=rate, group=group
        )
        for rps, weight, rate in cells
        for group in ("broken" if rate in {0.01, 0.05, 0.5, 1.0} else "slight",)
    ]


def _new_service() -> list[Scenario]:
    """The broken ones, on a service without any history."""
    return [
        replace(scenario, name=f"new-{scenario.name}", history=0.0, group="new")
        for scenario in _broken()
        if scenario.group == "broken"
    ]


def _late() -> list[Scenario]:
    cells = product((50.0, 2000.0), (50, 500, 2500), (0.01, 0.05, 1.0))
    return [
        Scenario(
            f"late-{rps:.0f}-{weight / 100:g}-{rate * 100:g}",
            rps,
            stages=((weight, HOUR),),
            broken_rate=rate,
            onset=HOUR / 2,
            group="late",
        )
        for rps, weight, rate in cells
    ]


def _bursty() -> list[Scenario]:
    cells = product(("batch", "sticky"), (50.0, 2000.0), (50, 500, 2500), (0.05, 1.0))
    return [
        Scenario(
            f"{bursts}-broken-{rps:.0f}-{weight / 100:g}-{rate * 100:g}",
            rps,
            stages=((weight, HOUR),),
            broken_rate=rate,
            bursts=bursts,
            group="bursty",
        )
        for bursts, rps, weight, rate in cells
    ]


def _rollouts() -> list[Scenario]:
    """Whole rollouts of four hours that are broken from the start: what an operator's user sees."""
    return [
        Scenario(f"rollout-{rps:.0f}-{rate * 100:g}", rps, broken_rate=rate, group="rollouts")
        for rps, rate in product((50.0, 2000.0), (0.005, 0.01, 0.02, 0.05, 0.5, 1.0))
    ]


def _latency() -> list[Scenario]:
    cells = product((50.0, 2000.0), (50, 500, 2500), ("same", "x1.25", "x1.5", "x2", "x5", "1%+1s", "5%+1s"))
    return [
        Scenario(
            f"latency-{rps:.0f}-{weight / 100:g}-{shift}",
            rps,
            stages=((weight, HOUR),),
            latency=shift,
            history=HOUR,
            group="latency",
        )
        for rps, weight, shift in cells
    ]


def _memory() -> list[Scenario]:
    base = Scenario("", 50.0, stages=((2500, HOUR),), history=2 * HOUR, group="memory", memory=1.0)
    kinds = {
        "same": base,
        "x1.1": replace(base, memory=1.1),
        "x1.25": replace(base, memory=1.25),
        "x1.5": replace(base, memory=1.5),
        "x2": replace(base, memory=2.0),
        "leak-30": replace(base, stages=((2500, 2 * HOUR),), leak=0.3),
        "leak-50": replace(base, stages=((2500, 2 * HOUR),), leak=0.5),
        "leak-100": replace(base, stages=((2500, 2 * HOUR),), leak=1.0),
        "no-leak": replace(base, stages=((2500, 2 * HOUR),)),
    }
    return [replace(scenario, name=f"memory-{kind}") for kind, scenario in kinds.items()]


def _odd() -> list[Scenario]:
    """Healthy ones nobody tuned for."""
    out: list[Scenario] = []
    for rps in (50.0, 2000.0):
        base = Scenario("", rps, group="odd")
        kinds = {
            "one-stable-pod": replace(base, stable_pods=1),
            "one-stable-pod-batch": replace(base, stable_pods=1, bursts="batch"),
            "two-stable-pods-sticky": replace(base, stable_pods=2, bursts="sticky"),
            "canary-restarts-each-minute": replace(base, canary_restarts=60.0),
            "slow-pod": replace(base, slow_pod=30.0, outages_per_hour=2.0),
            "stable-pod-dies": replace(base, dies=1.5 * HOUR),
            "traffic-stops": replace(base, silent=(1.2 * HOUR, 1.6 * HOUR)),
            "weight-each-minute": replace(
                base, stages=tuple(((50, 500, 2500, 5000, 1000)[minute % 5], 60.0) for minute in range(240))
            ),
            "other-buckets": replace(base, latency="same", other_buckets=True, history=HOUR),
            "bursts-100-to-200": replace(base, bursts="batch", burst_sizes=(100, 200)),
            "bursts-10-to-50-2pc-uneven": replace(base, bursts="sticky", error_rate=0.02, uneven=True),
            "scraped-each-minute": replace(base, scrape=60.0, outages_per_hour=2.0),
            "outages-often": replace(base, outages_per_hour=10.0),
            "share-half": replace(base, realised=0.5),
            "late-samples": replace(base, late=0.2, outages_per_hour=2.0),
            "mostly-canary": replace(base, stages=((9000, 2 * HOUR), (9900, 2 * HOUR)), outages_per_hour=2.0),
            "everything": replace(
                base,
                bursts="sticky",
                outages_per_hour=2.0,
                uneven=True,
                restarts=1.0,
                lost=0.1,
                late=0.05,
                season=3.0,
                realised=1.1,
                slow_pod=30.0,
                dies=2.5 * HOUR,
                history=3 * HOUR,
            ),
            "scraped-each-5s": replace(base, scrape=5.0, outages_per_hour=2.0, bursts="batch"),
        }
        out += [replace(scenario, name=f"{kind}-{rps:.0f}") for kind, scenario in kinds.items()]
    return out


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for family in (_healthy, _no_history, _broken, _new_service, _late, _bursty, _rollouts, _latency, _memory, _odd)
    for scenario in family()
}
GROUPS = tuple(dict.fromkeys(scenario.group for scenario in SCENARIOS.values()))


def select(words: list[str]) -> list[Scenario]:
    """Scenarios by name, by group, by the beginning of a name (`batch-`), or `all`; SystemExit names an unknown word."""
    chosen: dict[str, Scenario] = {}
    for word in words:
        found = [
            scenario
            for name, scenario in SCENARIOS.items()
            if word in {"all", name, scenario.group} or (word.endswith("-") and name.startswith(word))
        ]
        if not found:
            raise SystemExit(f"no scenario or group is called {word!r}; groups: {', '.join(GROUPS)}, all")
        chosen.update({scenario.name: scenario for scenario in found})
    return list(chosen.values())
