"""The demo's parts that need no cluster: what it measures, shows, applies, and when it calls itself a failure."""

import argparse
import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from canary_rollout.local import demo
from canary_rollout.local.demo_context import feed
from canary_rollout.local.demo_measure import (
    Breach,
    BreachPoller,
    Rate,
    RolloutLog,
    RouteLog,
    RouteWrite,
    breach_query,
    rates,
    rollback_times,
)
from canary_rollout.local.demo_objects import Choices, chosen, chosen_image, example, release_patch, share
from canary_rollout.local.demo_screen import LiveScreen, PlainScreen, make_screen, progress_line
from canary_rollout.local.demo_story import Release, showing
from canary_rollout.local.demo_summary import Result, seconds, summary
from canary_rollout.local.demo_view import Verdict, View, draw, line, view_of
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.load import Snapshot, VersionCount
from canary_rollout.local.load.tally import Tally
from canary_rollout.local.progress import Progress


def snapshot(**changes: object) -> Snapshot:
    empty = Tally("checkout-canary").snapshot(monotonic=10.0, clock_offset=1000.0, elapsed=10.0, connections=4)
    return replace(empty, **changes)


def config_map(weight: int, revision: str, written: str) -> dict:
    return {
        "metadata": {"annotations": {"canaryrollout.dev/written-at": written}},
        "data": {"weights.json": json.dumps({"weight": weight, "revision": revision})},
    }


def rollout(phase: str, weight: str = "0%", **status: object) -> dict:
    stages = [{"name": "first", "weight": "5%"}, {"name": "ga", "weight": "100%"}]
    return {"spec": {"stages": stages}, "status": {"phase": phase, "weight": weight, "message": "why", **status}}


def text_of(what: object, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


GOOD = Release(
    "v2", "abc", "Succeeded", "done", 30.0, "canary-rollout/demo-app:v2", weights=[RouteWrite(0, "abc", 1, 1)]
)
BROKEN = Release(
    "v3-broken", "def", "RolledBack", "bad", 9.0, weights=[RouteWrite(50, "d", 1, 1), RouteWrite(0, "d", 2, 2)]
)


# --- measuring ---------------------------------------------------------------------------------------------------


def test_the_route_log_keeps_each_change_once_with_the_operators_own_time():
    log = RouteLog()
    for one in (
        {"metadata": {}},
        config_map(0, "a", "2026-11-21T10:00:00.000Z"),
        config_map(50, "a", "2026-11-21T10:00:01.500Z"),
        config_map(50, "a", "2026-11-21T10:00:09.000Z"),
        config_map(0, "a", "2026-11-21T10:00:10.000Z"),
    ):
        log.take(one)
    assert [write.weight for write in log.writes] == [0, 50, 0]
    assert log.writes[2].written_at - log.writes[1].written_at == 8.5


def test_only_a_fall_from_above_zero_is_a_lowering():
    log = RouteLog(
        [RouteWrite(0, "a", 1, 1), RouteWrite(0, "b", 2, 2), RouteWrite(50, "b", 3, 3), RouteWrite(0, "b", 4, 4)]
    )
    assert log.lowered_to_zero(0).written_at == 4
    assert log.lowered_to_zero(5) is None


def test_the_three_logs_are_put_on_one_clock():
    canary = VersionCount(answers=20, errors=6, first_error=1.0, last_end=5.5)
    times = rollback_times(Breach(1004.0, 1003.9, 0.3), RouteWrite(0, "b", 1005.0, 1005.1), canary, 1000.0)
    assert times.first_failure_to_write == 4.0
    assert times.breach_to_write == 1.0
    assert times.breach_to_last_request == 1.5
    assert times.write_to_last_request == 0.5
    assert (times.answers, times.failed_answers, times.breach_value) == (20, 6, 0.3)


def test_what_was_not_seen_is_not_made_up():
    times = rollback_times(None, None, None, 1000.0)
    assert times.breach_to_last_request is None
    assert times.first_failure_to_write is None
    assert seconds(None) == "not seen"
    assert seconds(-0.25) == "0.25 s before"


async def test_waiting_for_a_status_ends_when_it_comes_and_when_it_does_not():
    log = RolloutLog()
    waiting = asyncio.create_task(log.wait(lambda seen: seen.phase == "Succeeded", 5))
    await asyncio.sleep(0)
    log.take(rollout("Progressing", "5%", stage="first (1/2)", revision="abc"))
    log.take(rollout("Succeeded"))
    assert await waiting
    assert not await log.wait(lambda seen: seen.phase == "Paused", 0.01)
    assert [(moment.phase, moment.weight) for moment in log.moments] == [("Progressing", 500), ("Succeeded", 0)]


async def test_the_poller_goes_on_until_prometheus_answers_a_breach():
    answers = [
        b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        b'{"status":"error"}',
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"0.25"]}]}}',
    ]
    served = 0

    async def prometheus(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        body = answers[min(served, 2)]  # an answer that came too late is asked for again
        served += 1
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(prometheus, "127.0.0.1", 0)
    poller = BreachPoller(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "up")
    breach = await asyncio.wait_for(poller.run(), 60)
    server.close()
    for _ in range(10):
        await asyncio.sleep(0.002)
    assert breach.value == 0.25
    assert poller.asked == served >= 3
    assert breach.asked_at <= breach.at


def test_the_breach_query_asks_for_the_rate_and_for_enough_requests():
    query = breach_query('pod=~"a-.*"', above=0.01, min_requests=10, window="10s")
    assert 'http_requests_total{pod=~"a-.*",status=~"5.."}[10s]' in query
    assert "> 0.01" in query
    assert ">= 10" in query


def test_rates_are_differences_over_time():
    before = snapshot(versions={"stable/v1": VersionCount(answers=100, errors=1)})
    now = snapshot(
        monotonic=12.0,
        versions={"stable/v1": VersionCount(answers=300, errors=5), "canary/v2": VersionCount(answers=4)},
    )
    assert rates(before, now) == {"stable/v1": Rate(100.0, 2.0, 300, 5), "canary/v2": Rate(2.0, 0.0, 4, 0)}


# --- showing -----------------------------------------------------------------------------------------------------


def test_a_frame_tells_stage_weight_rates_verdicts_and_what_comes_next():
    status = rollout(
        "Progressing",
        "5%",
        stage="first (1/2)",
        verdicts=[{"rule": "error-rate", "verdict": "pass", "message": "0.1 %"}],
    )
    view = view_of(
        "release v2",
        status,
        {"canary/v2": Rate(20, 8, 40, 16), "stable/v1": Rate(380, 0, 900, 0)},
        snapshot(sent=940),
        "hint",
    )
    shown = text_of(draw(view))
    for part in (
        "release v2",
        "Progressing",
        "● first 5%",
        "· ga 100%",
        "why",
        "canary  v2",
        "40.0 %",
        "error-rate",
        "940 requests",
        "hint",
    ):
        assert part in shown
    assert "Progressing" in line(view)
    assert "canary/v2 20/s (8.0 errors/s)" in line(view)


def test_a_rules_name_is_not_said_twice():
    status = rollout("Progressing", verdicts=[{"rule": "errors", "verdict": "pass", "message": "errors: 0 % of 9"}])
    assert text_of(draw(view_of("t", status, {}, None, ""))).count("errors") == 1


def test_a_hint_takes_one_row_of_the_picture():
    shown = text_of(draw(view_of("t", rollout("Progressing"), {}, None, "export X\nkubectl canary")))
    assert "export X" in shown
    assert "kubectl canary" not in shown


async def test_what_goes_wrong_behind_the_picture_ends_what_waits_before_it():
    def broken() -> None:
        raise OSError("the watch broke")

    cast = SimpleNamespace(
        check=broken, load=SimpleNamespace(history=[]), rollout=SimpleNamespace(rollout={}), hint="", route=RouteLog()
    )
    limit = asyncio.timeout(60)

    async def wait() -> None:
        async with limit, showing(cast, SimpleNamespace(show=lambda _: None), ["t"]):
            await asyncio.Event().wait()

    with pytest.raises(OSError, match="the watch broke"):
        await wait()
    assert not limit.expired()


def test_a_route_that_somebody_mangled_is_no_write():
    log = RouteLog()
    log.take({"metadata": {}, "data": {"weights.json": "[" * 100_000}})
    assert log.writes == []


def test_a_frame_before_the_operators_first_word_is_drawn_too():
    assert "waiting" in text_of(draw(view_of("getting ready", {}, {}, None, "")))
    assert "waiting" in text_of(draw(view_of("t", rollout("", "soon"), {}, None, "")))


def test_plain_output_says_changes_at_once_and_repeats_nothing():
    out = io.StringIO()
    with PlainScreen(Console(file=out, width=200)) as screen:
        view = View("t", "Progressing", "first", weight=500, message="holding")
        for _ in range(3):
            screen.show(view)
        screen.show(View("t", "RolledBack", "", weight=0, message="because"))
        screen.progress(Progress("build controlplane", "net/http", 5, 100))
        screen.progress(Progress("build controlplane", "net/url", 6, 100))
        screen.print("table")
    text = out.getvalue()
    assert text.count("holding") == 1
    assert text.count("5%") == 1
    assert "RolledBack" in text
    assert "because" in text
    assert "5/100 packages" in text
    assert "6/100" not in text


def test_a_terminal_gets_a_picture_and_a_file_gets_lines():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    screen = make_screen(terminal)
    assert isinstance(screen, LiveScreen)
    with screen:
        screen.progress(Progress("start cluster", "starting", 0, 0))
        screen.show(View("release v2", "Progressing", weight=500, verdicts=[Verdict("error-rate", "fail", "30 %")]))
        screen.say("a line that stays")
        screen.print("and another")
    assert "a line that stays" in terminal.file.getvalue()
    assert isinstance(make_screen(terminal, plain=True), PlainScreen)
    assert isinstance(make_screen(Console(file=io.StringIO())), PlainScreen)


def test_progress_counts_packages_and_time():
    assert (
        progress_line(Progress("build prometheus", "tsdb", 7, 900), 61.4)
        == "build prometheus 7/900 packages (61 s): tsdb"
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
