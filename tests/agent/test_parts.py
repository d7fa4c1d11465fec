"""What the agent writes and reads: files, the last good configuration, what the ConfigMap may say."""

import fnmatch
import re
import stat
from types import SimpleNamespace

import pytest
from fake_api import Answer
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from proxies import (
    ENVIRONMENT,
    World,
    agent_task,
    apps,
    edge,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    settings_for,
    spec_of,
)

from canary_rollout.agent.agent import Agent, renew_interval
from canary_rollout.agent.driver import Desired, Served, Station
from canary_rollout.agent.files import Abilities, build, check_config
from canary_rollout.agent.instruments import Instruments
from canary_rollout.agent.settings import from_environment
from canary_rollout.agent.split import below, glob
from canary_rollout.agent.workspace import Workspace
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, LEASES
from canary_rollout.traffic.nginx.document import DocumentError, WeightsDocument, digest
from canary_rollout.traffic.port import RouterError
from canary_rollout.traffic.registry import _factory

ABILITIES = Abilities(version="1.31.3", njs=True, js_module="", keepalive_min_timeout=True)


def document(**changes):
    values = {
        "namespace": "shop", "rollout": "checkout", "sequence": 1, "weight": 500, "revision": "v2", "stable_revision": "v1",
        "listen": 8080, "stale_after": 120.0, "config": "0" * 64, **changes,
    }  # fmt: skip
    return WeightsDocument(**values)


@given(st.integers(1, 10_000))
def test_the_places_that_a_weight_includes_are_exactly_those_below_it(weight):
    inside = re.compile(below(weight))
    assert all(bool(inside.fullmatch(f"{place:04d}")) == (place < weight) for place in range(10_000))


@given(
    st.from_regex(r"[a-c]{1,3}(\*[a-c]{1,2}){0,4}\*?", fullmatch=True),
    st.text("abc", max_size=12),
)
def test_a_glob_is_what_a_glob_is(pattern, value):
    # Python's re has atomic groups from 3.11 on, as nginx's PCRE has.
    assert bool(re.fullmatch(glob(pattern), value)) == fnmatch.fnmatchcase(value, pattern)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_with_njs_no_weight_changes_any_file(one, other):
    settings = from_environment(ENVIRONMENT)
    built = [build(Desired(document(weight=w), "x"), settings, ABILITIES, "njs", "t") for w in (one, other)]
    assert built[0] == built[1]


def test_in_reload_mode_each_document_is_a_generation_of_its_own():
    settings = from_environment(ENVIRONMENT)
    built = [build(Desired(document(sequence=n), "x"), settings, ABILITIES, "reload", "t") for n in (1, 2)]
    assert built[0].generation != built[1].generation


@pytest.mark.parametrize(
    "text",
    [
        "include /etc/passwd;", "http { include *.conf; }", "load_module x.so;", "http { server { root /; } }",
        "location / { alias /var/run/; }", "env SECRET;", "perl_modules x;", "content_by_lua_block { x }",
        "js_import x from y;", "server { listen 80; }", "upstream a { server unix:/var/run/docker.sock; }", "user root;",
        "error_log /tmp/x;", "pid /tmp/x;", "fastcgi_pass x;", "include\nother.conf;", "include routing.conf other;",
    ],
)  # fmt: skip
def test_an_nginx_conf_that_reaches_for_other_files_or_programs_is_refused(text):
    with pytest.raises(DocumentError):
        check_config(text)


async def test_the_operators_own_nginx_conf_is_accepted():
    world = World()
    async with apps(world):
        await world.route(0)
    check_config(world.config_map()["data"]["nginx.conf"])


def test_secrets_and_configurations_are_readable_by_their_owner_alone(tmp_path):
    workspace = Workspace(tmp_path / "w")
    workspace.prepare()
    assert workspace.token() == workspace.token()
    assert len(workspace.token()) == 48
    target = workspace.stage({"nginx.conf": "x"}, "{}")
    for path in (tmp_path / "w/token", tmp_path / "w" / target / "nginx.conf"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_old_configurations_go_and_the_current_one_stays(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.prepare()
    first = workspace.stage({"nginx.conf": "1"}, "{}")
    workspace.point(first)
    for n in range(10):
        workspace.stage({"nginx.conf": str(n)}, "{}")
    workspace.prune()
    assert workspace.target() == first
    assert len(list((tmp_path / "conf").iterdir())) == 5
    assert (tmp_path / "current/nginx.conf").read_text() == "1"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1', "null"])
def test_a_broken_note_of_an_earlier_run_is_as_good_as_none(tmp_path, text):
    workspace = Workspace(tmp_path)
    workspace.prepare()
    for name in ("last-good.json", "deadman.json"):
        (tmp_path / name).write_text(text)
    assert workspace.last_good() is None
    assert workspace.renewed() == 0.0


@pytest.mark.nginx
async def test_without_the_api_server_an_agent_begins_with_the_last_good_configuration(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port}))
    async with apps(world), nginx_process(settings):
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        async with agent_task(world, settings):
            await world.route(2500)
            await eventually(lambda: world.view().confirmed)
        world.api.fault(Answer(503), times=None, client="edge-1")
        async with agent_task(world, settings) as agent:
            await eventually(lambda: agent.ready)


@pytest.mark.nginx
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("nginx.conf"), "no nginx.conf yet"),
        (lambda data: data.update({"weights.json": "{"}), "no JSON"),
        (lambda data: data.update({"nginx.conf": "http {}"}), "checksums do not hold"),
        (lambda data: data.update({"weights.json": document(namespace="other", config=digest("x")).dump(), "nginx.conf": "x"}),
         "is for namespace other"),
        (lambda data: data.update({"weights.json": document(config=digest("user root;")).dump(), "nginx.conf": "user root;"}),
         "only the agent's own files may"),
    ],
)  # fmt: skip
async def test_a_config_map_that_does_not_fit_is_not_applied_and_the_lease_says_why(tmp_path, change, said):
    async with edge(tmp_path / "w", weight=2500) as proxy:
        found = proxy.world.config_map()
        change(found["data"])
        client = proxy.world.api.client("somebody")
        await client.delete(CONFIG_MAPS, "shop", "checkout-nginx")
        await client.create(
            CONFIG_MAPS, "shop", {"metadata": {"name": "checkout-nginx", "namespace": "shop"}, "data": found["data"]}
        )
        lease = lambda: proxy.world.api.store.peek(LEASES, "shop", "checkout-nginx.edge-1")["metadata"]["annotations"]  # noqa: E731
        await eventually(lambda: said in lease()["canaryrollout.dev/error"])
        assert lease()["canaryrollout.dev/weight"] == "2500"
        assert proxy.agent.ready


def test_a_router_that_nobody_installed_is_said_with_those_that_are():
    with pytest.raises(RouterError, match=r"no router 'nowhere': installed are .*nginx"):
        _factory("nowhere")


@pytest.mark.parametrize(("told", "asked"), [(600.0, 10.0), (10.0, 600.0)])
async def test_the_lease_never_says_that_it_is_over_before_the_proxy_thinks_so(tmp_path, told, asked):
    world = World()
    settings = settings_for(tmp_path / "w")
    desired = [Desired(document(stale_after=seconds, config=digest("x")), "x") for seconds in (told, asked)]
    proxy = SimpleNamespace(served=Served(desired[0], "njs", 1.0, "g", proved=True), version="1.31.3")
    station = Station(settings, Workspace(settings.work), Instruments(CollectorRegistry()))
    agent = Agent(world.api.client("edge-1"), station, proxy, None)
    agent._desired = desired[1]  # refused by the proxy, or not there yet
    await agent._write_lease(2_000_000_000.0)
    lease = world.api.store.peek(LEASES, "shop", "checkout-nginx.edge-1")
    assert lease["spec"]["leaseDurationSeconds"] == 600
    assert renew_interval(agent._stale_after()) == 2.5, "and is renewed as often as the shorter one asks for"
