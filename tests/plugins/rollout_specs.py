"""Specs at random: right ones, and ones with one part replaced by something that may be anything."""

from typing import Any

from hypothesis import strategies as st
from rollouts import changed

from canary_rollout.model.units import FULL, format_duration, format_number, format_weight

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
NUMBERS = st.integers(1, 10**6).map(lambda value: format_number(value / 1000))
DURATIONS = st.integers(1, 10**6).map(format_duration)
MEASURES = st.one_of(
    st.fixed_dictionaries({"preset": st.sampled_from(["error-rate", "latency-p99", "request-rate"])}),
    st.fixed_dictionaries({"query": st.text(min_size=1, max_size=30)}),
)


def one_of_fields(*names: str):
    return st.sampled_from(names).flatmap(lambda name: st.fixed_dictionaries({name: NUMBERS}))


@st.composite
def stage_lists(draw):
    weights = [*sorted(draw(st.sets(st.integers(1, FULL - 1), max_size=4))), FULL]
    stages = []
    for at, weight in enumerate(weights):
        gates = draw(st.lists(st.tuples(MEASURES, one_of_fields("max", "min", "maxRatio")), max_size=2))
        stage = {
            "name": f"s{at}",
            "weight": format_weight(weight),
            "hold": draw(DURATIONS),
            "exit": [{"name": f"g{index}", **measure, **bound} for index, (measure, bound) in enumerate(gates)],
            "enabled": weight == FULL or draw(st.booleans()),
        }
        if draw(st.booleans()):
            stage["cohort"] = {draw(st.sampled_from(["header", "cookie"])): "X-Cohort", "values": ["internal", "a.b_c"]}
        stages.append(stage)
    return stages


@st.composite
def specs(draw):
    rules = draw(st.lists(st.tuples(MEASURES, one_of_fields("above", "below", "aboveRatio"), DURATIONS), max_size=3))
    spec = changed(
        {
            "stages": draw(stage_lists()),
            "haltRules": [
                {"name": f"r{at}", **measure, **bound, "for": lasting}
                for at, (measure, bound, lasting) in enumerate(rules)
            ],
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
