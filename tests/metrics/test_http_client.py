"""The client of Prometheus over real HTTP: whose fault a refusal is, what an outage is, what is sent."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from canary_rollout.metrics.client import PrometheusClient, refusal, shortened
from canary_rollout.metrics.errors import BadQueryError, OutageError, SlowQueryError


@asynccontextmanager
async def server(handler):
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = PrometheusClient(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        client.close()
        await runner.cleanup()


def answering(status=200, body=None, text=None):
    async def handler(request):
        return web.Response(
            status=status, text=text if text is not None else json.dumps(body), content_type="application/json"
        )

    return handler


def error(kind, message="oh"):
    return {"status": "error", "errorType": kind, "error": message}


@pytest.mark.parametrize(
    ("handler", "expected", "words"),
    [
        (
            answering(400, error("bad_data", 'invalid parameter "query": 1:5: parse error')),
            BadQueryError,
            "parse error",
        ),
        (answering(422, error("execution", 'dup {secret="x"} at {a="b"}')), BadQueryError, "dup {…} at {…}"),
        (answering(503, error("timeout", "query timed out")), SlowQueryError, "query timed out"),
        (answering(503, error("unavailable", "starting")), OutageError, "HTTP 503, starting"),
        (answering(500, text="<html>"), OutageError, "HTTP 500"),
        (answering(400, text="<html>"), OutageError, "HTTP 400"),
        (answering(401, text="no"), OutageError, "HTTP 401"),
        (answering(302, text="elsewhere"), OutageError, "HTTP 302"),
        (answering(200, text="<html>"), OutageError, "not one of Prometheus"),
        (answering(200, {"data": {}}), OutageError, "not one of Prometheus"),
        (answering(200, {"data": None}), OutageError, "not one of Prometheus"),
        (answering(200, {"data": {"result": "x"}}), OutageError, "not one of Prometheus"),
    ],
)
async def test_a_refusal_says_whose_fault_it_is(handler, expected, words):
    async with server(handler) as client:
        with pytest.raises(expected) as caught:
            await asyncio.to_thread(client.query, "up", 1.0, 5.0)
    assert words in str(caught.value)


async def test_a_server_that_does_not_answer_is_given_up_after_the_timeout():
    given_up = asyncio.Event()

    async def handler(request):
        await given_up.wait()
        return web.Response()

    async with server(handler) as client:
        async with asyncio.timeout(60):  # the server would never answer
            with pytest.raises(SlowQueryError, match=r"no answer within 0\.2 s"):
                await asyncio.to_thread(client.query, "up", 1.0, 0.2)
        given_up.set()


async def test_a_server_that_closes_the_connection_is_an_outage():
    async def handler(request):
        request.transport.abort()
        return web.Response()

    async with server(handler) as client:
        with pytest.raises(OutageError, match="no connection"):
            await asyncio.to_thread(client.query, "up", 1.0, 5.0)


def test_a_port_where_nobody_listens_is_an_outage_that_says_so():
    client = PrometheusClient("http://127.0.0.1:9")
    with pytest.raises(OutageError, match=r"no connection \(connection refused\)"):
        client.query("up", 1.0, 5.0)
    client.close()


async def test_short_queries_are_in_the_address_and_long_ones_in_the_body():
    seen = []

    async def handler(request):
        seen.append((request.method, len(request.query_string), dict(await request.post()), dict(request.query)))
        return web.json_response({"data": {"result": []}})

    async with server(handler) as client:
        assert await asyncio.to_thread(client.query, "up", 1.5, 5.0) == []
        assert await asyncio.to_thread(client.query, "x" * 9000, 1.5, 5.0) == []
    (get, post) = seen
    assert (get[0], get[3]) == ("GET", {"query": "up", "time": "1.500", "timeout": "5s"})
    assert (post[0], post[1]) == ("POST", 0)
    assert post[2] == {"query": "x" * 9000, "time": "1.500", "timeout": "5s"}


async def test_credentials_and_proxies_of_the_environment_are_not_used(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seen = []

    async def handler(request):
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"data": {"result": []}})

    async with server(handler) as client:
        await asyncio.to_thread(client.query, "up", 1.0, 5.0)
    assert seen == [None]


def test_messages_are_one_short_line():
    assert shortened("a\n  b") == "a b"
    assert len(shortened("x" * 1000)) == 200
    assert isinstance(refusal(500, b'{"errorType": "internal", "error": "x"}'), OutageError)
