"""Specs at random: right ones, and ones with one part replaced by something that may be anything."""

from typing import Any

from hypothesis import strategies as st
from rollouts import changed

from canary_rollout.model.units import FULL, format_duration, format_number, format_weight

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
NUMBERS = st.integers(1, 10**6).map(lambda value: format_number(value / 1000))
DURATIONS = st.integers(1, 10**6).map(format_duration)
MEASURES = st.one_of(
    st.fixed_dictionaries(
        {"preset": st.sampled_from(["error-rate", "latency-p99", "request-rate", "my-own"])},
        optional={"source": st.sampled_from(["app", "istio", "mine/shop"]), "server": NAMES, "window": st.just("2m")},
    ),
    st.fixed_dictionaries({"query": st.text(min_size=1, max_size=30)}),
)


BASELINES = st.sampled_from(
    [{"from": "Stable"}, {"from": "BeforeRollout"}, {"from": "SameHour"}, {"from": "Fixed", "value": "1.5"}]
)
ALERTS = st.fixed_dictionaries(
    {"labels": st.dictionaries(st.sampled_from(["severity", "team"]), st.sampled_from(["a", "1|2"]), min_size=1)},
    optional={"anyNamespace": st.booleans()},
)


@st.composite
def one_of_fields(draw, *names: str):
    """A bound; a ratio may have a baseline."""
    name = draw(st.sampled_from(names))
    bound: dict[str, Any] = {name: draw(NUMBERS)}
    if name.endswith("Ratio") and draw(st.booleans()):
        bound["baseline"] = draw(BASELINES)
    return bound


@st.composite
def measured(draw, *bounds: str):
    """What is measured and held against what."""
    if draw(st.integers(0, 4)) == 0:
        return {"alert": draw(ALERTS)}
    return {**draw(MEASURES), **draw(one_of_fields(*bounds))}


@st.composite
def rule_lists(draw, longest: int, prefix: str = "r"):
    """Whole rules, and ones that change or switch off a standard one."""
    rules = [
        {"name": f"{prefix}{at}", **draw(measured("above", "below", "aboveRatio", "belowRatio", "aboveSigma"))}
        for at in range(draw(st.integers(0, longest)))
    ]
    for rule in rules:
        rule |= {"for": draw(DURATIONS), "dryRun": draw(st.booleans())}
    if draw(st.booleans()):
        rules.append({"name": "error-rate", "above": draw(NUMBERS)})
    if draw(st.booleans()):
        rules.append({"name": draw(st.sampled_from(["cpu", "of-a-set"])), "enabled": False})
    return rules


def gate_lists(longest: int, prefix: str):
    gates = st.lists(measured("max", "min", "maxRatio", "minRatio", "maxSigma"), max_size=longest)
    return gates.map(lambda found: [{"name": f"{prefix}{at}", "for": "1h", **gate} for at, gate in enumerate(found)])


@st.composite
def stage_lists(draw):
    weights = [*sorted(draw(st.sets(st.integers(1, FULL - 1), max_size=4))), FULL]
    stages = []
    for at, weight in enumerate(weights):
        stage = {
            "name": f"s{at}",
            "weight": format_weight(weight),
            "hold": draw(DURATIONS),
            "entry": draw(gate_lists(1, "e")),
            "exit": draw(gate_lists(2, "g")),
            "haltRules": draw(rule_lists(1, "s")),
            "enabled": weight == FULL or draw(st.booleans()),
        }
        if draw(st.booleans()):
            stage["cohort"] = {draw(st.sampled_from(["header", "cookie"])): "X-Cohort", "values": ["internal", "a.b_c"]}
        stages.append(stage)
    return stages


@st.composite
def specs(draw):
    spec = changed(
        {
            "stages": draw(stage_lists()),
            "haltRules": draw(rule_lists(2)),
            "defaultHaltRules": draw(st.booleans()),
            "haltRuleSets": draw(st.lists(st.just({"name": "gold", "variables": {"tier": "a b"}}), max_size=2)),
            "analysis": draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "tolerance": st.sampled_from(["1", "1.25", "100"]),
                        "certify": st.just("0.5%"),
                        "actions": st.just({"latency": "Rollback"}),
                    },
                )
            ),
            "metrics.interval": draw(DURATIONS),
            "paused": draw(st.booleans()),
            "workload.stable.service": draw(NAMES.filter(lambda name: name not in {"checkout-canary", "edge"})),
        }
    )["spec"]
    if draw(st.booleans()):
        spec["traffic"]["sticky"] = {"header": "X-Tenant-ID"}
    return spec


JUNK = st.sampled_from(
    [
        "", "5%", "100%", "0%", "25", "1h", "0s", "999ms", "1d", "1.5", "-1", "a b", "X-A", "checkout", "edge", "required",
        "Pause", "error-rate", "http://p:9090", "/spec/a", 0, 1, 5, 70_000, -1, 0.5, True, False, [], {}, ["x"], {"x": "y"},
    ]
)  # fmt: skip


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all parts of a spec."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, child in children for place in ((*at, key), *places(child, (*at, key)))]


@st.composite
def spoilt_specs(draw: st.DrawFn) -> dict[str, Any]:
    """A right spec with one part replaced (which may leave it right)."""
    spec = draw(specs())
    *parents, last = draw(st.sampled_from(places(spec)))
    node: Any = spec
    for parent in parents:
        node = node[parent]
    node[last] = draw(JUNK)
    return spec
