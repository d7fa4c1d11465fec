"""``diff``: what the answers of two real servers differ in, and how that is told."""

import json
import math

import pytest
from two_versions import PRICES, versions, with_price

from canary_rollout.local.ports import free_port


def test_equal_answers_pass(diff):
    result = diff(PRICES, {"currency": "EUR", "items": PRICES["items"]})
    assert (result.exit_code, result.data["verdict"], result.data["differentShare"]) == (0, "pass", 0.0)
    assert sum(bucket["count"] for bucket in result.data["histogram"]) == 4


@pytest.mark.parametrize(
    ("price", "code"), [(251, 0), (251.25, 0), (252, 1), (-250, 1), ("250", 1), (None, 1), (True, 1)]
)
def test_numbers_are_the_same_within_the_tolerance(diff, price, code):
    assert diff(PRICES, with_price(price)).exit_code == code


def test_a_difference_is_told_with_its_place_its_values_and_how_far_apart_they_are(diff):
    result = diff(PRICES, with_price(500))
    (outlier,) = result.data["outliers"]
    assert outlier == {
        "request": "GET /a",
        "place": "$.items[1].price",
        "kind": "number",
        "stable": "250",
        "canary": "500",
        "relative": 0.5,
    }
    assert result.data["places"] == [{"place": "$.items[*].price", "kind": "number", "requests": 1}]
    assert {bucket["upTo"]: bucket["count"] for bucket in result.data["histogram"]}[0.5] == 1


@pytest.mark.parametrize(
    ("canary", "place", "kind"),
    [
        ({"items": PRICES["items"]}, "$.currency", "missing"),
        ({**PRICES, "new": 1}, "$.new", "added"),
        ({**PRICES, "items": PRICES["items"][:1]}, "$.items", "length"),
        ({**PRICES, "currency": "USD"}, "$.currency", "value"),
        ({**PRICES, "items": {}}, "$.items", "type"),
        ((500, {}, PRICES), "status", "value"),
        ((200, {"Content-Type": "text/html"}, json.dumps(PRICES).encode()), "content-type", "value"),
        (b"<html>", "content-type", "value"),
        ((200, {"Content-Type": "application/json"}, b"{broken"), "body", "value"),
    ],
)
def test_structure_status_and_type_count_as_well(diff, canary, place, kind):
    result = diff(PRICES, canary)
    assert result.exit_code == 1
    assert (place, kind) in [(entry["place"], entry["kind"]) for entry in result.data["places"]]


def test_redirects_are_compared_and_not_followed(diff):
    def to(where):
        return lambda _: (302, {"Location": where}, b"")

    assert diff(to("/x"), to("/x")).exit_code == 0
    moved = diff(to("/x"), to("/y"))
    assert [entry["place"] for entry in moved.data["places"]] == ["location"]
    assert len(moved.servers[1].seen) == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 1),
        (("--ignore", "$.items[*].price"), 0),
        (("--ignore", "items[1].price"), 0),
        (("--ignore", "**.price"), 0),
        (("--ignore", "items"), 0),
        (("--ignore", "items[0].price"), 1),
        (("--ignore", "*.price"), 1),
        (("--tolerance", "60%"), 0),
        (("--allow", "100%"), 0),
    ],
)
def test_places_can_be_left_out(diff, words, code):
    assert diff(PRICES, with_price(500), *words).exit_code == code


def test_a_list_may_come_in_any_order_where_that_is_said(diff):
    turned = {**PRICES, "items": [{"id": 2, "price": 250.5}, {"id": 1, "price": 100.0}]}
    assert diff(PRICES, turned).exit_code == 1
    assert diff(PRICES, turned, "--unordered", "$.items").exit_code == 0
    wrong = {**PRICES, "items": [{"id": 2, "price": 999}, {"id": 1, "price": 100.0}]}
    assert [o["place"] for o in diff(PRICES, wrong, "--unordered", "$.items").data["outliers"]] == ["$.items[1].price"]


def test_noise_is_what_stable_itself_does_not_repeat(diff):
    count = iter(range(1_000_000))

    def noisy(price):
        return lambda _: {"at": next(count) * 1000, "price": price, "trace": {"id": f"x{next(count)}"}}

    assert diff(noisy(10), noisy(10)).exit_code == 1
    assert diff(noisy(10), noisy(10), "--learn-noise").exit_code == 0
    real = diff(noisy(10), noisy(12), "--learn-noise")
    assert [entry["place"] for entry in real.data["places"]] == ["$.price"]


def test_the_share_that_differs_is_held_against_what_is_allowed(diff):
    paths = [f"/{number}" for number in range(20)]
    canary = lambda path: with_price(500) if path == "/7" else PRICES  # noqa: E731
    assert diff(PRICES, canary, "--allow", "5%", paths=paths).exit_code == 0
    result = diff(PRICES, canary, "--allow", "4.9%", paths=paths)
    assert result.exit_code == 1
    assert result.data["message"] == "1 of 20 answers differ (5.00%), allowed 4.90%"


def closed_port():
    return f"http://127.0.0.1:{free_port()}"


def test_a_canary_that_does_not_answer_differs(world):
    with versions(lambda _: PRICES, lambda _: PRICES) as (stable, _):
        result = world.run("diff", "--stable", stable.url, "--canary", closed_port(), "--path", "/a", "-o", "json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["canarySilent"], data["outliers"][0]["kind"]) == (1, 1, "no answer")


def test_a_stable_that_does_not_answer_says_nothing_about_the_canary(world, make):
    with versions(lambda _: PRICES, lambda _: PRICES) as (_, canary):
        result = world.run("diff", "--stable", closed_port(), "--canary", canary.url, "--path", "/a")
    assert result.exit_code == 3
    said = "NO VERDICT nothing could be compared, because stable answered none of 1 requests: no connection"
    assert make["words"](result.stdout).startswith(said)


def test_people_get_a_verdict_a_histogram_and_the_worst(world, make):
    with versions(lambda _: PRICES, lambda _: with_price(500)) as (stable, canary):
        result = world.run("diff", "--stable", stable.url, "--canary", canary.url, "--path", "/a")
    text = make["words"](result.stdout)
    assert result.stdout.startswith("FAIL  1 of 1 answers differ (100.00%), allowed 0.00%")
    assert "$.items[1].price number: stable 250, canary 500 (50.00% apart)" in text
    assert "equal 3" in text
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_the_report_and_the_metrics_are_written_and_pushed_for_a_gate(diff, tmp_path):
    with versions(lambda _: (202, {}, b""), lambda _: b"") as (gateway, _):
        result = diff(
            PRICES,
            PRICES,
            "--report",
            str(tmp_path / "r.json"),
            "--metrics-file",
            str(tmp_path / "r.prom"),
            "--push",
            gateway.url,
            "--revision",
            "abc",
        )
    assert json.loads((tmp_path / "r.json").read_text()) == result.data
    text = (tmp_path / "r.prom").read_text()
    assert 'canary_diff_different_ratio{rollout_namespace="",rollout="",revision="abc"} 0\n' in text
    ((method, path, _, body),) = gateway.seen
    assert (method, path, body.decode()) == ("PUT", "/metrics/job/canary-diff", text)


def test_a_pushgateway_that_refuses_is_an_error(diff):
    with versions(lambda _: (400, {}, b"no"), lambda _: b"") as (gateway, _):
        result = diff(PRICES, PRICES, "--push", gateway.url)
    assert (result.exit_code, "refused the result: HTTP 400 no" in result.stderr) == (3, True)


def test_numbers_of_every_size_are_compared_without_overflow():
    from canary_rollout.cli.differ.compare import relative_difference

    assert relative_difference(1e308, -1e308) == 2.0
    assert relative_difference(10**400, 1.0) == 2.0
    assert relative_difference(math.inf, 1.0) == 2.0
    assert relative_difference(math.nan, math.nan) == 0.0
    assert relative_difference(0, 0.0) == 0.0
    assert relative_difference(0, 1e-300) == 1.0
