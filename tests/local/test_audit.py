import json

from canary_rollout.local.audit import Call, count_calls

ALICE, BOB = "system:serviceaccount:a:alice", "bob"


def event(user, verb, resource, stage="ResponseComplete", subresource=""):
    reference = {"resource": resource} | ({"subresource": subresource} if subresource else {})
    return json.dumps({"user": {"username": user}, "verb": verb, "stage": stage, "objectRef": reference}) + "\n"


def test_calls_are_counted_by_user_verb_and_resource(tmp_path):
    log = tmp_path / "audit.log"
    log.write_text(
        event(ALICE, "patch", "canaryrollouts", subresource="status") * 2
        + event(BOB, "get", "pods")
        + json.dumps({"user": {"username": BOB}, "verb": "get", "stage": "ResponseComplete"})
        + "\n"
    )
    assert count_calls(log) == {
        Call(ALICE, "patch", "canaryrollouts/status"): 2,
        Call(BOB, "get", "pods"): 1,
        Call(BOB, "get", ""): 1,
    }
    assert count_calls(log, user=ALICE) == {Call(ALICE, "patch", "canaryrollouts/status"): 2}


def test_a_watch_counts_once_and_from_its_start(tmp_path):
    log = tmp_path / "audit.log"
    log.write_text(event(BOB, "watch", "pods", "ResponseStarted"))
    assert count_calls(log) == {Call(BOB, "watch", "pods"): 1}
    with log.open("a") as file:
        file.write(event(BOB, "watch", "pods"))
    assert count_calls(log) == {Call(BOB, "watch", "pods"): 1}


def test_counting_can_begin_at_an_offset_and_leaves_a_line_that_is_being_written(tmp_path):
    log = tmp_path / "audit.log"
    log.write_text(event(BOB, "get", "pods"))
    offset = log.stat().st_size
    with log.open("a") as file:
        file.write(event(BOB, "list", "pods") + event(BOB, "get", "nodes")[:-5])
    assert count_calls(log, offset=offset) == {Call(BOB, "list", "pods"): 1}
