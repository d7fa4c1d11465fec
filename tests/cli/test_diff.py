"""``diff``: the same requests to two real servers, and what their answers differ in."""

import json
import math
import os
import threading

import pytest
from two_versions import versions

from canary_rollout.kube.port import SERVICES
from canary_rollout.local.ports import free_port

PRICES = {"items": [{"id": 1, "price": 100.0}, {"id": 2, "price": 250}], "currency": "EUR"}


@pytest.fixture
def diff(world):
    """Compare two answers (values, or functions of the path); the result with its report as ``data``."""

    def run(stable, canary, *words, paths=("/a",), stdin=None):
        answers = [answer if callable(answer) else lambda _, answer=answer: answer for answer in (stable, canary)]
        asked = [part for path in paths for part in ("--path", path)]
        with versions(*answers) as servers:
            result = world.run(
                "diff",
                "--stable",
                servers[0].url,
                "--canary",
                servers[1].url,
                *asked,
                *words,
                "-o",
                "json",
                stdin=stdin,
            )
        result.servers = servers
        result.data = json.loads(result.stdout) if result.stdout.startswith("{") else None
        return result

    return run


def with_price(price):
    return {**PRICES, "items": [PRICES["items"][0], {"id": 2, "price": price}]}


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


def test_only_get_and_head_are_sent_unless_other_methods_are_named(diff, tmp_path):
    lines = [
        "/a",
        "HEAD /b",
        "POST /c",
        '{"method": "PUT", "path": "/d", "body": {"x": 1}, "headers": {"X-A": "1"}}',
        "# no",
    ]
    file = tmp_path / "requests.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    safe = diff(PRICES, PRICES, "--requests", str(file), paths=())
    assert [method for method, *_ in sorted(safe.servers[0].seen)] == ["GET", "HEAD"]
    assert "left out: 2 requests that could change something" in safe.stderr
    every = diff(PRICES, PRICES, "--requests", str(file), "--method", "post", "--method", "PUT", paths=())
    seen = {path: (method, headers, body) for method, path, headers, body in every.servers[1].seen}
    assert set(seen) == {"/a", "/b", "/c", "/d"}
    method, headers, body = seen["/d"]
    assert (method, headers["X-A"], headers["Content-Type"], json.loads(body)) == (
        "PUT",
        "1",
        "application/json",
        {"x": 1},
    )


LOG = """\
10.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "GET /cart?id=1%202 HTTP/1.1" 200 12 "-" "curl"
10.0.0.1 - anna [21/Nov/2026:10:00:00 +0000] "POST /buy HTTP/1.1" 200 12 "http://x/" "curl \\"quoted\\""
{"time": "x", "request_method": "GET", "request_uri": "/json?a=b"}
{"request": "HEAD /head HTTP/2.0", "status": 200}
10.0.0.1 - - [21/Nov/2026:10:00:00 +0000] "\\x16\\x03\\x01" 400 0 "-" "-"
"""


def test_an_access_log_is_sampled_whatever_its_format(diff):
    result = diff(PRICES, PRICES, "--access-log", "-", paths=(), stdin=LOG)
    assert sorted(path for _, path, *_ in result.servers[0].seen) == ["/cart?id=1%202", "/head", "/json?a=b"]
    assert "left out: 1 requests" in result.stderr
    assert "left out: 1 lines of the log" in result.stderr


def test_every_line_of_a_long_log_has_the_same_chance(diff):
    log = "\n".join(f'- "GET /{number} HTTP/1.1" 200' for number in range(1000))

    def sample(seed):
        result = diff(
            PRICES,
            PRICES,
            "--access-log",
            "-",
            "--samples",
            "50",
            "--rate",
            "5000",
            "--seed",
            seed,
            paths=(),
            stdin=log,
        )
        return {int(path[1:]) for _, path, *_ in result.servers[0].seen}

    first = sample("1")
    assert len(first) == 50
    assert 300 < sum(first) / 50 < 700
    assert first == sample("1")
    assert first != sample("2")


def test_both_versions_get_the_same_headers(diff):
    result = diff(PRICES, PRICES, "-H", "Host: shop.example", "-H", "Authorization: Bearer x")
    for server in result.servers:
        headers = server.seen[0][2]
        assert (headers["Host"], headers["Authorization"]) == ("shop.example", "Bearer x")


def test_requests_are_limited_in_rate_and_in_how_many_are_under_way(diff):
    block = threading.Event()

    def slow(_):
        block.wait(0.05)
        return PRICES

    paths = [f"/{number}" for number in range(12)]
    result = diff(slow, slow, "--concurrency", "3", "--rate", "1000", paths=paths)
    assert max(server.most_under_way for server in result.servers) <= 3
    took = []
    for _ in range(3):  # after a standstill the requests that were due meanwhile come at once
        times = diff(PRICES, PRICES, "--rate", "40", paths=paths).servers[0].times
        took.append(times[-1] - times[0])
        if took[-1] >= 11 / 40 * 0.9:
            return
    pytest.fail(f"{took} s")


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


def test_an_answer_that_takes_too_long_is_none(diff):
    waiting = threading.Event()
    result = diff(PRICES, lambda _: waiting.wait(30.0) or PRICES, "--timeout", "0.2")
    assert result.data["outliers"][0]["canary"] == "no answer within 0.2 s"


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path", "/a"], "both --stable URL and --canary URL"),
        (["--stable", "http://h", "--canary", "http://h"], "say what to send"),
        (["--stable", "http://u:p@h", "--canary", "http://h", "--path", "/"], "without credentials"),
        (["--stable", "ftp://h", "--canary", "http://h", "--path", "/"], "this is no address"),
        (["--path", "a b"], "is no HTTP method"),
        (["--path", "a"], "is no path"),
        (["--path", "http://elsewhere/"], "is no path"),
        (["-H", "X", "--path", "/"], "write Name: value"),
        (["-H", "X: a\nY: b", "--path", "/"], "is no header"),
        (["--tolerance", "2", "--path", "/"], "is no share"),
        (["--requests", "missing", "--stable", "http://h", "--canary", "http://h"], "missing cannot be read"),
    ],
)
def test_a_wrong_command_line_sends_nothing_and_says_what_to_write(world, words, said):
    result = world.run("diff", *words)
    assert (result.exit_code, said in result.stderr.replace("\n", " ")) == (2, True), result.stderr


def test_a_line_of_the_list_that_is_no_request_is_named(world):
    result = world.run("diff", "--stable", "http://h", "--canary", "http://h", "--requests", "-", stdin="/a\nGET\n")
    assert (result.exit_code, "-:2: 'GET' is no path" in result.stderr) == (2, True)


@pytest.fixture
def forwarding(world, tmp_path, monkeypatch):
    """A ``kubectl`` on PATH that says what it was asked, and forwards as ``program`` (a shell script) says."""

    def put(program):
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{program}\n', encoding="utf-8")
        kubectl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        for name in ("checkout", "checkout-canary"):
            world.api.put(
                SERVICES, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}}
            )
        return tmp_path / "asked"

    return put


def test_by_name_the_two_services_are_reached_through_kubectl(world, forwarding, make):
    with versions(lambda _: PRICES, lambda _: with_price(500)) as (stable, canary):
        asked = forwarding(
            f'case "$*" in *canary*) port={canary.server_port};; *) port={stable.server_port};; esac\n'
            'echo "Forwarding from 127.0.0.1:$port -> 80"\nexec sleep 30'
        )
        result = world.run("diff", "checkout", "--path", "/a", "--context", "prod", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["outliers"][0]["canary"] == "500"
    lines = asked.read_text().splitlines()
    options = "--namespace=shop --context=prod port-forward --address=127.0.0.1"
    assert lines == [f"{options} service/checkout :80", f"{options} service/checkout-canary :80"]


def test_inside_the_cluster_the_services_are_asked_directly(world, monkeypatch):
    asked = []

    async def ask_both(requests, settings, rules):
        asked.append((settings.stable, settings.canary))
        return []

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setattr("canary_rollout.cli.differ.run.ask_both", ask_both)
    for name in ("checkout", "checkout-canary"):
        world.api.put(SERVICES, {"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": [{"port": 8080}]}})
    assert world.run("diff", "checkout", "--path", "/a").exit_code == 3
    assert asked == [("http://checkout.shop.svc:8080", "http://checkout-canary.shop.svc:8080")]


def test_what_kubectl_says_is_passed_on_when_it_cannot_forward(world, forwarding):
    forwarding("echo 'error: no pods' >&2; exit 1")
    result = world.run("diff", "checkout", "--path", "/a")
    assert (result.exit_code, "to Service checkout: error: no pods" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("ports", "words", "said"),
    [
        ([], [], "there is no Service checkout in namespace shop"),
        ([80, 81], [], "has the ports [80, 81]: say which with --port"),
        ([80], ["--port", "81"], "has no port 81; it has 80"),
    ],
)
def test_a_service_or_port_that_is_not_there_is_named(world, ports, words, said):
    if ports:
        spec = {"ports": [{"port": port} for port in ports]}
        world.api.put(SERVICES, {"metadata": {"name": "checkout", "namespace": "shop"}, "spec": spec})
    result = world.run("diff", "checkout", "--path", "/a", *words)
    assert said in result.stderr


def test_numbers_of_every_size_are_compared_without_overflow():
    from canary_rollout.cli.differ.compare import relative_difference

    assert relative_difference(1e308, -1e308) == 2.0
    assert relative_difference(10**400, 1.0) == 2.0
    assert relative_difference(math.inf, 1.0) == 2.0
    assert relative_difference(math.nan, math.nan) == 0.0
    assert relative_difference(0, 0.0) == 0.0
    assert relative_difference(0, 1e-300) == 1.0
