import pytest

from canary_rollout.local.podstatus import (
    ContainerStatus,
    PodFacts,
    build_status,
    exit_code_of,
    phase,
    running,
    terminated,
    waiting,
)


def container(name="web", **changes):
    return ContainerStatus(name, "web:v1", **changes)


def up(name="web", *, ready=True):
    return container(name, state=running("t0"), ready=ready, started=True)


def ended(code, **changes):
    return container(state=terminated(code, started_at="t0", finished_at="t1"), **changes)


def facts(*main, **changes):
    given = {"initialized": True, "sandbox": True, "init": []} | changes
    return PodFacts(pod_ip="10.244.1.2", host_ip="10.244.0.1", started_at="t0", main=list(main), **given)


def conditions(status):
    return {condition["type"]: condition for condition in status["conditions"]}


def build(pod, *, gates=None, previous=(), now="now"):
    return build_status(pod, gates=gates or {}, previous=previous, now=now)


@pytest.mark.parametrize(("returncode", "code"), [(0, 0), (3, 3), (-9, 137), (-15, 143)])
def test_signals_become_exit_codes_above_128(returncode, code):
    assert exit_code_of(returncode) == code


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (facts(container()), "Pending"),
        (facts(up()), "Running"),
        (facts(up(), container("b")), "Pending"),
        (facts(up(), initialized=False), "Pending"),
        (facts(ended(0, done=True)), "Succeeded"),
        (facts(ended(1, done=True)), "Failed"),
        (facts(ended(1)), "Running"),
        (facts(container(state=waiting("CrashLoopBackOff"), last_state=ended(1).state)), "Running"),
        (facts(container(), initialized=False, failed_init=True), "Failed"),
    ],
)
def test_the_phase_follows_the_containers(pod, expected):
    assert phase(pod) == expected


def test_a_pod_is_ready_when_all_its_containers_and_sidecars_are():
    ready = build(facts(up(), init=[container("side", sidecar=True, ready=True, state=running("t0"))]))
    assert conditions(ready)["Ready"]["status"] == "True"
    unready = build(facts(up(), init=[container("side", sidecar=True, state=running("t0"))]))
    assert conditions(unready)["Ready"]["status"] == "False"
    assert conditions(unready)["Ready"]["message"] == "containers with unready status: [side]"


def test_an_open_readiness_gate_is_needed_for_ready_but_not_for_containers_ready():
    closed = conditions(build(facts(up()), gates={"example.com/gate": "False"}))
    assert closed["Ready"]["status"] == "False"
    assert closed["Ready"]["reason"] == "ReadinessGatesNotReady"
    assert closed["ContainersReady"]["status"] == "True"
    opened = conditions(build(facts(up()), gates={"example.com/gate": "True"}))
    assert opened["Ready"]["status"] == "True"


def test_a_condition_keeps_its_time_until_its_status_changes():
    first = build(facts(up(ready=False)), now="1")
    second = build(facts(up()), previous=first["conditions"], now="2")
    third = build(facts(up()), previous=second["conditions"], now="3")
    assert conditions(first)["Ready"]["lastTransitionTime"] == "1"
    assert conditions(second)["Ready"]["lastTransitionTime"] == "2"
    assert conditions(third)["Ready"]["lastTransitionTime"] == "2"
    assert conditions(third)["Initialized"]["lastTransitionTime"] == "1"


def test_an_old_reason_is_removed_with_its_condition():
    assert conditions(build(facts(up())))["Ready"]["reason"] is None


def test_a_container_killed_for_its_memory_says_so():
    assert terminated(137, started_at="a", finished_at="b", oom=True)["terminated"]["reason"] == "OOMKilled"
    assert terminated(137, started_at="a", finished_at="b")["terminated"]["reason"] == "Error"
    assert terminated(0, started_at="a", finished_at="b")["terminated"]["reason"] == "Completed"


def test_the_pod_has_an_address_only_when_it_was_given_one():
    pod = facts(up())
    assert build(pod)["podIPs"] == [{"ip": "10.244.1.2"}]
    pod.pod_ip = ""
    assert "podIP" not in build(pod)
