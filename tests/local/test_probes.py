import asyncio

import aiohttp
import pytest
from aiohttp import web

from canary_rollout.local.errors import ContainerConfigError
from canary_rollout.local.probes import Prober, ProbeTiming, Thresholds, check_probe


def changes(probe, results, *, initially=None):
    thresholds = Thresholds(ProbeTiming.of(probe), state=initially)
    return [thresholds.count(success=result) for result in results]


def test_a_probe_without_numbers_has_kubernetes_defaults():
    assert ProbeTiming.of({}) == ProbeTiming(0, 10, 1, 1, 3)


def test_one_success_is_enough_and_three_failures_in_a_row_are_needed():
    assert changes({}, [True, False, False, True, False, False, False, False]) == [
        True, None, None, None, None, None, False, None,
    ]  # fmt: skip


def test_the_success_threshold_counts_successes_in_a_row():
    probe = {"successThreshold": 2, "failureThreshold": 1}
    assert changes(probe, [True, False, True, True], initially=True) == [None, False, None, True]


def test_the_initial_state_is_not_announced():
    assert changes({"failureThreshold": 1}, [False, False], initially=False) == [None, None]


async def no_exec(_command, _seconds):
    raise AssertionError("runs no command")


@pytest.fixture
async def server():
    async def answer(request):
        if request.path == "/slow":
            await asyncio.sleep(1)
        if request.headers.get("X-Key") == "1":
            return web.Response(status=204)
        return web.Response(status=int(request.path.removeprefix("/") or 200))

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site._server.sockets[0].getsockname()[1]
    await runner.cleanup()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(("path", "passes"), [("/200", True), ("302", True), ("/404", False), ("/500", False)])
async def test_http_answers_below_400_pass(server, session, path, passes):
    container = {"name": "c", "ports": [{"name": "http", "containerPort": server}]}
    prober = Prober(session, container, "127.0.0.1", no_exec)
    passed, why = await prober.ask({"httpGet": {"port": "http", "path": path}})
    assert passed is passes
    assert passes or "statuscode" in why


async def test_http_headers_are_sent(server, session):
    prober = Prober(session, {"name": "c"}, "127.0.0.1", no_exec)
    headers = [{"name": "X-Key", "value": "1"}]
    assert (await prober.ask({"httpGet": {"port": server, "path": "/500", "httpHeaders": headers}}))[0]


async def test_an_answer_that_takes_too_long_fails(server, session):
    prober = Prober(session, {"name": "c"}, "127.0.0.1", no_exec)
    assert await prober.ask({"httpGet": {"port": server, "path": "/slow"}, "timeoutSeconds": 0.1}) == (
        False,
        "no answer within 0.1 s",
    )


async def test_a_port_that_nobody_listens_on_fails(unused_port, session):
    prober = Prober(session, {"name": "c"}, "127.0.0.1", no_exec)
    for handler in ("httpGet", "tcpSocket"):
        assert not (await prober.ask({handler: {"port": unused_port}}))[0]


@pytest.fixture
def unused_port():
    from canary_rollout.local.ports import free_port

    return free_port()


async def test_a_tcp_port_that_is_open_passes(server, session):
    assert (await Prober(session, {"name": "c"}, "127.0.0.1", no_exec).ask({"tcpSocket": {"port": server}}))[0]


@pytest.mark.parametrize(("code", "passes"), [(0, True), (1, False)])
async def test_a_command_passes_with_exit_code_0(session, code, passes):
    async def run(_command, _seconds):
        return code

    assert (await Prober(session, {"name": "c"}, "", run).ask({"exec": {"command": ["x"]}}))[0] is passes


def test_an_unknown_port_name_and_an_unknown_handler_are_refused():
    with pytest.raises(ContainerConfigError, match="'metrics'"):
        Prober(None, {"name": "c"}, "", no_exec).port("metrics")
    with pytest.raises(ContainerConfigError, match="httpGet, tcpSocket and exec"):
        check_probe({"name": "c", "livenessProbe": {"grpc": {"port": 1}}}, "livenessProbe")
