"""When a step counts: every proxy that may get a request has said that it serves exactly this."""

from dataclasses import replace

import pytest
from proxies import endpoint_slice

from canary_rollout.traffic.nginx.ack import Ack, AckError, from_lease, lease_name, to_lease
from canary_rollout.traffic.nginx.confirm import CLOCK_MARGIN, confirm, serving_pods
from canary_rollout.traffic.nginx.document import WeightsDocument

NOW = 1_000_000.0
DOCUMENT = WeightsDocument(
    namespace="shop", rollout="checkout", sequence=7, weight=500, revision="v2", listen=8080, stale_after=120.0,
    config="0" * 64,
)  # fmt: skip
ZERO = DOCUMENT.model_copy(update={"weight": 0, "sequence": 8})


def ack(pod="a", document=DOCUMENT, **changes):
    made = Ack(
        pod=pod, config_map="checkout-nginx", rollout="checkout", applied=document.identity, applied_at=NOW - 5,
        config=document.config, mode="njs", weight=document.weight, error="", nginx_version="1.31.3", renewed=NOW - 10,
        duration=120,
    )  # fmt: skip
    return replace(made, **changes)


def test_all_acknowledged_is_confirmed_since_the_last_of_them():
    answer = confirm(DOCUMENT, {"a", "b"}, {"a": ack(), "b": ack("b", applied_at=NOW - 1)}, NOW)
    assert (answer.confirmed, answer.at, answer.pending, answer.mode) == (True, NOW - 1, "", "njs")


def test_one_that_is_missing_holds_the_step_and_is_named():
    answer = confirm(DOCUMENT, {"a", "b"}, {"a": ack()}, NOW)
    assert not answer.confirmed
    assert answer.at is None
    assert "b has no agent that reports" in answer.pending
    assert "1 of 2" in answer.pending


def test_a_refusal_is_passed_on_in_nginxs_words():
    old = ack(applied="6.0000", error="nginx -t refused it: no_such_directive")
    assert "no_such_directive" in confirm(DOCUMENT, {"a"}, {"a": old}, NOW).pending


def test_no_proxy_at_all_is_not_confirmed():
    answer = confirm(DOCUMENT, set(), {}, NOW)
    assert not answer.confirmed
    assert "no nginx pod" in answer.pending


def test_the_same_sequence_with_other_content_is_not_this_one():
    other = DOCUMENT.model_copy(update={"weight": 600})
    assert other.sequence == DOCUMENT.sequence
    assert not confirm(DOCUMENT, {"a"}, {"a": ack(document=other)}, NOW).confirmed


def test_an_acknowledgement_of_somebody_who_is_no_endpoint_counts_for_nothing():
    assert confirm(DOCUMENT, {"a"}, {"a": ack(), "gone": ack("gone", applied="")}, NOW).confirmed


def test_a_proxy_whose_agent_fell_silent_serves_stable_so_its_weight_is_no_longer_confirmed():
    silent = ack(renewed=NOW - 200)
    answer = confirm(DOCUMENT, {"a"}, {"a": silent}, NOW)
    assert not answer.confirmed
    assert "serves stable" in answer.pending


def test_full_weight_outlives_its_agent():
    full = DOCUMENT.model_copy(update={"weight": 10_000})
    assert confirm(full, {"a"}, {"a": ack(document=full, renewed=NOW - 9999)}, NOW).confirmed


def test_a_lease_that_is_over_proves_weight_zero_but_only_after_the_clocks_margin():
    silent = ack(renewed=NOW - 120 - CLOCK_MARGIN + 1)
    assert not confirm(ZERO, {"a"}, {"a": silent}, NOW).confirmed
    assert confirm(ZERO, {"a"}, {"a": silent}, NOW + 2).confirmed


def test_a_proxy_at_full_weight_never_lapses_so_its_silence_proves_nothing():
    full = DOCUMENT.model_copy(update={"weight": 10_000})
    silent = ack(document=full, renewed=NOW - 99_999)
    assert not confirm(ZERO, {"a"}, {"a": silent}, NOW).confirmed


def test_ready_serving_and_terminating_endpoints_count_and_those_not_yet_started_do_not():
    pods = {
        "ready": {"ready": True},
        "silent": {},  # conditions absent mean ready
        "serving": {"ready": False, "serving": True, "terminating": True},
        "terminating": {"ready": False, "serving": False, "terminating": True},
        "starting": {"ready": False, "serving": False, "terminating": False},
    }
    assert serving_pods([endpoint_slice("edge", pods)]) == {"ready", "silent", "serving", "terminating"}
    assert serving_pods([{"endpoints": None}]) == set()


def test_a_lease_says_what_the_agent_said():
    said = ack(error="x" * 900)
    lease = to_lease(said, "shop", "uid-1")
    assert from_lease(lease) == replace(said, error="x" * 500)
    assert lease["metadata"]["ownerReferences"][0]["name"] == "a"
    assert lease["spec"]["renewTime"].endswith("000Z")


def test_a_lease_of_somebody_else_is_none_of_ours():
    with pytest.raises(AckError, match="kube-controller"):
        from_lease({"metadata": {"name": "kube-controller"}, "spec": {"holderIdentity": "x"}})


def test_lease_names_stay_within_what_kubernetes_takes():
    names = {lease_name("c" * 200, "p" * 100 + str(n)) for n in range(5)}
    assert len(names) == 5
    assert all(len(name) <= 253 for name in names)
