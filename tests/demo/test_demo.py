"""The demo's parts that need no cluster: what it applies, and when it calls itself a failure."""

import argparse
import io
import json
from pathlib import Path

import pytest
from demo_parts import snapshot, text_of
from rich.console import Console

from canary_rollout.local import demo
from canary_rollout.local.demo_context import feed
from canary_rollout.local.demo_measure import Breach, RouteWrite, rollback_times
from canary_rollout.local.demo_objects import Choices, chosen, chosen_image, example, release_patch, share
from canary_rollout.local.demo_story import Release
from canary_rollout.local.demo_summary import Result, summary
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.load import VersionCount

GOOD = Release(
    "v2", "abc", "Succeeded", "done", 30.0, "canary-rollout/demo-app:v2", weights=[RouteWrite(0, "abc", 1, 1)]
)
BROKEN = Release(
    "v3-broken", "def", "RolledBack", "bad", 9.0, weights=[RouteWrite(50, "d", 1, 1), RouteWrite(0, "d", 2, 2)]
)


# --- applying ----------------------------------------------------------------------------------------------------


def test_choices_reach_the_objects_and_leave_the_examples_alone():
    documents = example("app.yaml", "demo/canaryrollout.yaml")
    choices = Choices(
        prometheus="http://127.0.0.1:9", images={"canary-rollout/demo-app": "mine/app"}, mode="reload", fast=True,
        stages=({"name": "beta", "weight": "25%", "hold": "1h"},),
    )  # fmt: skip
    changed = {(one["kind"], one["metadata"]["name"]): one for one in chosen(documents, choices)}
    spec = changed["CanaryRollout", "checkout"]["spec"]
    assert spec["metrics"]["prometheus"] == "http://127.0.0.1:9"
    assert spec["traffic"]["nginx"]["mode"] == "reload"
    assert [(stage["name"], stage["hold"]) for stage in spec["stages"]] == [("beta", "4s")]
    containers = changed["Deployment", "checkout"]["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "mine/app:v1"
    assert documents == example("app.yaml", "demo/canaryrollout.yaml")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("mine/app", "mine/app:v3"),
        ("mine/app:dev", "mine/app:dev"),
        ("host:5000/app", "host:5000/app:v3"),
        ("", "a/b:v3"),
    ],
)
def test_an_image_keeps_its_tag_unless_another_is_given(wanted: str, expected: str):
    assert chosen_image("a/b:v3", {"a/b": wanted}) == expected


def test_a_release_changes_the_image_and_nothing_else():
    assert release_patch("x:v2")["spec"]["template"]["spec"]["containers"] == [{"name": "app", "image": "x:v2"}]


def test_a_missing_directory_is_said():
    with pytest.raises(LocalClusterError, match="no nonsense/"):
        share("nonsense")


def test_objects_are_read_from_a_stream_however_it_is_cut():
    found: list[dict] = []
    decoder, rest = json.JSONDecoder(), ""
    text = '{"a": "}{"}\n{\n "b": [1]\n}\n'
    for character in text:
        rest = feed(decoder, rest + character, found.append)
    assert found == [{"a": "}{"}, {"b": [1]}]
    assert rest == ""


# --- judging -----------------------------------------------------------------------------------------------------


def test_all_well_is_no_problem():
    result = Result(good=GOOD, broken=BROKEN, counts=snapshot(sent=100))
    assert result.problems() == []
    assert result.to_dict()["ok"] is True
    json.dumps(result.to_dict())


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (Result(), "never began"),
        (Result(good=Release("v2", phase="Paused", message="waits")), "ended Paused instead of Succeeded: waits"),
        (Result(good=Release("v2", phase="Succeeded", stable_image="x:v1")), "stable runs x:v1"),
        (Result(good=GOOD, broken=Release("v3", phase="Succeeded")), "instead of RolledBack"),
        (
            Result(good=GOOD, broken=Release("v3", phase="RolledBack", weights=[RouteWrite(50, "a", 1, 1)])),
            "still has a weight of 50",
        ),
        (Result(good=GOOD, counts=snapshot(transport_errors=1, transport_kinds={"reset": 1})), "1 transport errors"),
        (Result(good=GOOD, counts=snapshot(no_app=2, no_app_statuses={"502": 2})), "2 answers that no application"),
        (Result(good=GOOD, counts=snapshot(not_sent=3)), "3 requests could not be sent"),
        (Result(good=GOOD, trouble=["the API server is gone"]), "the API server is gone"),
    ],
)
def test_each_thing_that_goes_wrong_makes_the_demo_a_failure(result: Result, word: str):
    assert len(result.problems()) == 1
    assert word in result.problems()[0]
    assert demo.finish(result, None, Console(file=io.StringIO())) == 1


def test_the_summary_has_the_numbers(tmp_path: Path):
    broken = Release(**{name: getattr(BROKEN, name) for name in BROKEN.__slots__})
    broken.halt = {"rule": "error-rate", "message": "30 % of 50 requests failed"}
    broken.times = rollback_times(
        Breach(1004.0, 1003.9, 0.3),
        RouteWrite(0, "b", 1005.0, 1005.1),
        VersionCount(20, 6, 1, 1, 5.5, 5.5, 1.0),
        1000.0,
    )
    result = Result(
        good=GOOD, broken=broken, counts=snapshot(sent=4711, harmed_tenants=3, tenants=900), total_seconds=70
    )
    text = text_of(summary(result))
    for part in ("v2", "Succeeded", "0.5% → 0%", "30 % of 50 requests failed", "1.50 s", "4711", "3 of 900", "20, 6"):
        assert part in text
    file = tmp_path / "numbers.json"
    assert demo.finish(result, file, Console(file=io.StringIO())) == 0
    assert json.loads(file.read_text())["broken"]["times"]["breach_to_last_request"] == 1.5


def test_the_command_line_says_what_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        demo.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--fast", "--keep", "--no-broken", "--context", "--json", "--image-operator"):
        assert option in shown


def test_errors_are_taken_out_of_groups_of_groups():
    first, second = LocalClusterError("one"), LocalClusterError("two")
    group = ExceptionGroup("", [first, ExceptionGroup("", [second])])
    assert demo.leaves(group) == [first, second]


def test_a_cluster_of_ones_own_needs_to_be_told_where_its_prometheus_is(capsys: pytest.CaptureFixture[str]):
    assert demo.main(["--context", "nobody", "--plain"]) == 1
    assert "name your Prometheus" in " ".join(capsys.readouterr().out.split())


def test_the_load_target_is_an_address_and_a_port():
    assert demo.parser().parse_args(["--load-target", "127.0.0.1:80"]).load_target == ("127.0.0.1", 80)
    with pytest.raises(argparse.ArgumentTypeError, match="is not address:port"):
        demo.parse_target("80")
