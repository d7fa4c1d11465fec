"""``diff``: which requests are sent, how fast, and what is refused before any is."""

import json
import threading

import pytest
from two_versions import PRICES


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


def test_an_answer_that_takes_too_long_is_none(diff):
    waiting = threading.Event()
    result = diff(PRICES, lambda _: waiting.wait(30.0) or PRICES, "--timeout", "0.2")
    assert result.data["outliers"][0]["canary"] == "no answer within 0.2 s"


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
