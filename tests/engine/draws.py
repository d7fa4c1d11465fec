"""What a random world is drawn from: stages and specs, what evaluations say, commands' weights."""

from dataclasses import replace

from cluster_parts import Gates
from hypothesis import strategies as st
from world import spec, verdict

from canary_rollout.analysis.verdict import Lack, Outcome
from canary_rollout.model.spec import Action

STAGES = spec().stages
COHORT = {"header": "X-Cohort", "values": ["internal"]}
GATE = [{"preset": "latency-p75", "maxRatio": "1.10"}]


def stage(name, weight, hold="60s", **more):
    return {"name": name, "weight": weight, "hold": hold, **more}


ALL = stage("all", "100%")
STAGE_LISTS = (
    [stage("first", "0.5%"), stage("second", "5%"), stage("third", "25%"), ALL],
    [stage("first", "0.5%", cohort=COHORT), stage("second", "5%", exit=GATE), stage("third", "25%"), ALL],
    [stage("first", "0.5%"), stage("third", "25%"), ALL],
    [stage("second", "5%"), ALL],
    [stage("first", "1%"), stage("second", "10%"), stage("third", "30%", hold="10s"), ALL],
    [stage("eins", "0.5%"), stage("zwei", "5%"), stage("drei", "25%"), stage("vier", "100%")],
    [stage("third", "0.5%"), stage("second", "5%"), stage("first", "25%"), ALL],
    [stage("first", "0.5%", approval="required"), stage("second", "5%", approval="required"), ALL],
    [stage("first", "0.5%"), stage("second", "5%", enabled=False), stage("third", "25%"), ALL],
    [stage("first", "0.5%", hold="0s"), stage("second", "5%", hold="200s"), ALL],
    [ALL],
    [stage("copies", "0%", mirror="10%"), stage("first", "0.5%"), ALL],
    [stage("first", "0.5%", entry=GATE), stage("second", "5%", entry=GATE, exit=GATE), ALL],
)
SPECS = [
    spec(stages=stages, paused=paused, workload={**spec().workload.model_dump(mode="json", by_alias=True), **more})
    for stages in STAGE_LISTS
    for paused in (False, False, False, False, True)
    for more in (
        {"promotion": "CopyTemplate"},
        {"promotion": "Manual"},
        {
            "canary": {
                "service": "shop-canary",
                "deployment": "shop-canary",
                "scaling": {"replicas": 3, "idleReplicas": 0},
            }
        },
    )
]
ASKS = SPECS[7 * 15]
numbers = st.integers(0, len(SPECS) - 1)

OUTCOMES = {
    "pass": verdict(),
    "fail": verdict(Outcome.FAIL),
    "no data": verdict(Outcome.NONE, lack=Lack.NO_DATA),
    "too few": verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH),
    "too few in the window": replace(verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH), few=True),
    "not applicable": verdict(Outcome.NONE, lack=Lack.NOT_APPLICABLE),
    "breached, not for long": verdict(Outcome.NONE, lack=Lack.NOT_ENOUGH, since=1.0),
    "pause": verdict(Outcome.FAIL, rule="p99", action=Action.PAUSE),
    "alert": verdict(Outcome.FAIL, rule="denials", action=Action.ALERT),
}
rules = st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=3).map(
    lambda names: tuple(OUTCOMES[name] for name in names)
)
OF_GATES = [
    (),
    (),
    (verdict(rule="latency-p75", action=None),),
    (verdict(Outcome.FAIL, rule="latency-p75", action=None),),
    (verdict(Outcome.NONE, rule="latency-p75", action=None, lack=Lack.NO_DATA),),
    (verdict(Outcome.NONE, rule="latency-p75", action=None, lack=Lack.NOT_APPLICABLE),),
]
OF_TESTS = [
    (),
    (verdict(rule="error-comparison"),),
    (verdict(Outcome.NONE, rule="error-comparison", lack=Lack.NOT_ENOUGH),),
    (verdict(Outcome.NONE, rule="error-comparison", lack=Lack.NO_DATA),),
    (verdict(Outcome.FAIL, rule="latency-comparison", action=Action.PAUSE),),
    (verdict(Outcome.FAIL, rule="gauge-comparison", action=Action.ALERT),),
]
OF_PROMOTION = [
    None,
    None,
    verdict(rule="promotion", action=None),
    verdict(Outcome.NONE, rule="promotion", action=None, lack=Lack.NOT_ENOUGH),
]
exits = st.one_of(
    st.builds(Gates, st.sampled_from(OF_GATES)),
    st.builds(
        Gates,
        st.sampled_from(OF_GATES),
        st.sampled_from(OF_GATES),
        st.sampled_from(OF_TESTS),
        st.sampled_from(OF_PROMOTION),
    ),
)
GOOD, BAD = (OUTCOMES["pass"],), (OUTCOMES["fail"],)
single = st.sampled_from(sorted(OUTCOMES)).map(lambda name: (OUTCOMES[name],))
mostly_good = st.just(GOOD) | st.just(GOOD) | single
revisions = st.sampled_from(["a" * 10, "b" * 10, "c" * 10])
weights = st.sampled_from(["0%", "0.5%", "1%", "5%", "10%", "25%", "60%", "100%"])
