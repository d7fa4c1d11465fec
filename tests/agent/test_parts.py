"""The agent's parts by themselves: settings, files, what nginx can do, its log, its parent."""

import asyncio
import fnmatch
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fake_api import Answer
from hypothesis import given
from hypothesis import strategies as st
from keepalive import Load
from proxies import (
    WITHIN,
    World,
    agent_task,
    apps,
    edge,
    endpoint_slice,
    eventually,
    free_port,
    nginx_process,
    settings_for,
    settled,
    spec_of,
    until,
)

from canary_rollout.agent.accesslog import MOST_SERIES, RequestCounter, Tail
from canary_rollout.agent.agent import renew_interval
from canary_rollout.agent.driver import Desired
from canary_rollout.agent.errors import LoadError
from canary_rollout.agent.files import Abilities, build, check_config
from canary_rollout.agent.follow import Backoff
from canary_rollout.agent.nginx import Nginx
from canary_rollout.agent.settings import SettingsError, find_nginx, from_environment
from canary_rollout.agent.split import below, glob
from canary_rollout.agent.workspace import Workspace
from canary_rollout.kube.port import CONFIG_MAPS, ENDPOINT_SLICES, LEASES
from canary_rollout.traffic.nginx.document import DocumentError, WeightsDocument, digest
from canary_rollout.traffic.port import RouterError
from canary_rollout.traffic.registry import _factory

ENVIRONMENT = {
    "NAMESPACE": "shop",
    "POD_NAME": "edge-1",
    "CONFIGMAP": "checkout-nginx",
    "WORK_DIR": "work",
    "NGINX": "/bin/nginx",
}
ABILITIES = Abilities(version="1.31.3", njs=True, js_module="", keepalive_min_timeout=True)


def document(**changes):
    values = {
        "namespace": "shop", "rollout": "checkout", "sequence": 1, "weight": 500, "revision": "v2", "stable_revision": "v1",
        "listen": 8080, "stale_after": 120.0, "config": "0" * 64, **changes,
    }  # fmt: skip
    return WeightsDocument(**values)


# Settings


def test_outside_a_cluster_everything_listens_on_loopback():
    settings = from_environment(ENVIRONMENT)
    assert settings.bind == ("127.0.0.1",)
    assert settings.control == "127.0.0.1:8079"
    assert settings.port == 9113
    assert settings.work.is_absolute()
    assert 1 <= settings.workers <= 8


def test_in_a_cluster_it_listens_on_the_pods_addresses_and_the_control_address_stays_loopback():
    settings = from_environment({**ENVIRONMENT, "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert settings.bind[0] == "0.0.0.0"
    assert settings.control.startswith("127.0.0.1:")


def test_pods_on_one_machine_are_told_apart_by_their_loopback_address():
    settings = from_environment({**ENVIRONMENT, "BIND_ADDRESS": "127.244.0.7", "CONTROL_PORT": "9001"})
    assert (settings.bind, settings.control) == (("127.244.0.7",), "127.244.0.7:9001")
    assert from_environment({**ENVIRONMENT, "BIND_ADDRESS": "::1"}).bind == ("[::1]",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NAMESPACE": ""}, "not set: NAMESPACE"),
        ({"POD_NAME": "", "WORK_DIR": ""}, "POD_NAME, WORK_DIR"),
        ({"BIND_ADDRESS": "example.com"}, "no IP address"),
        ({"BIND_ADDRESS": "127.0.0.1; x"}, "no IP address"),
        ({"CONTROL_PORT": "80"}, "no port"),
        ({"METRICS_PORT": "٣٠٠٠"}, "no port"),
        ({"NGINX_WORKERS": "0"}, "no number"),
        ({"NGINX_WORKERS": "many"}, "no number"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(change, said):
    with pytest.raises(SettingsError, match=said):
        from_environment({**ENVIRONMENT, **change})


@pytest.mark.parametrize("arguments", [["run"], ["nginx"], ["run", "--work-dir", "x", "--bind-address", "x"]])
def test_the_command_says_in_one_sentence_what_is_missing(arguments, tmp_path):
    clean = {key: value for key, value in os.environ.items() if key not in ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-m", "canary_rollout.agent", *arguments],
        env=clean, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("canary-rollout-agent: ")
    assert "Traceback" not in done.stderr


def test_renewals_leave_room_for_two_that_fail():
    assert renew_interval(120) == 30
    assert renew_interval(4) == 1
    assert renew_interval(86_400) == 30


def test_pauses_grow_to_a_bound_and_begin_anew_after_a_success():
    backoff = Backoff(longest=2.0)
    pauses = [backoff.pause() for _ in range(10)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(pause <= 2.0 for pause in pauses)
    assert pauses[-1] >= 1.0
    backoff.reset()
    assert backoff.pause() <= 0.1


# Files


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


# What nginx can do


@pytest.mark.nginx
async def test_this_nginx_has_njs_and_spares_kept_connections(tmp_path):
    abilities = await Nginx(find_nginx(None), tmp_path).abilities()
    assert (abilities.njs, abilities.js_module, abilities.keepalive_min_timeout) == (True, "", True)


def old_nginx(tmp_path, version="1.22.1", njs=False, modules=""):
    """A real nginx that pretends to be an older build without njs."""
    path = tmp_path / "nginx"
    refuse = (
        "" if njs else 'grep -q js_import "$dir$conf" && { echo "[emerg] unknown directive js_import" >&2; exit 1; }'
    )
    path.write_text(f"""#!/bin/sh
if [ "$1" = -V ]; then echo "nginx version: nginx/{version} {modules}" >&2; exit 0; fi
if [ "$1" = -t ]; then dir=$3; conf=$5; {refuse or ":"}
grep -q keepalive_min_timeout "$dir"/conf/*/local-http.conf 2>/dev/null && {{ echo "[emerg] unknown directive" >&2; exit 1; }}
fi
exec {find_nginx(None)} "$@"
""")
    path.chmod(0o755)
    return str(path)


@pytest.mark.nginx
async def test_an_nginx_without_njs_is_served_by_reloads_by_itself_and_says_so(tmp_path):
    async with edge(tmp_path / "w", nginx=old_nginx(tmp_path), weight=2500) as proxy:
        view = proxy.world.view()
        assert (view.mode, view.confirmed, view.weight) == ("reload", True, 2500)


@pytest.mark.nginx
async def test_njs_asked_for_and_missing_is_refused_with_what_to_do(tmp_path):
    settings, port = settings_for(tmp_path / "w", nginx=old_nginx(tmp_path)), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port, "mode": "njs"}))
    async with apps(world), agent_task(world, settings) as agent:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(0)
        await eventually(lambda: "use mode auto or reload" in world.view().pending)
        assert not agent.ready


async def test_an_nginx_that_is_no_program_is_said(tmp_path):
    with pytest.raises(LoadError, match="does not run"):
        await Nginx(str(tmp_path / "nothing"), tmp_path).abilities()


# Starting without the API server


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


# The log


def test_lines_become_counts_errors_and_latency():
    counter = RequestCounter()
    counter.rollout = "checkout"
    counter.tenants.begin("v2")
    counter.count(b"canary everyone v2 200 0.004 v2 0042\ncanary everyone v2 503 0.2 v2 0049\n")
    counter.count(b"stable internal v1 499 3.0 v2 9999\nstable everyone v1 200 0.1 v1 9998\n")
    counter.count(b"  400 0.000 - -\nnonsense\ncanary everyone v2 200 zero v2 0042\ncanary everyone v2 200 0.1 v2 x\n")
    found = {(s.name, *sorted(s.labels.items())): s.value for metric in counter.collect() for s in metric.samples}
    canary = (("cohort", "everyone"), ("revision", "v2"), ("rollout", "checkout"), ("version", "canary"))
    stable = (("cohort", "internal"), ("revision", "v1"), ("rollout", "checkout"), ("version", "stable"))
    assert found["canary_requests_total", *canary] == 2
    assert found["canary_errors_total", *canary] == 1
    assert found["canary_errors_total", *stable] == 0, "499 is the client's own doing"
    assert found["canary_latency_seconds_sum", *canary] == pytest.approx(0.204)
    assert found["canary_agent_malformed_lines_total",] == 4
    bucket = (("bucket", "4"), ("revision", "v2"), ("rollout", "checkout"), ("version", "canary"))
    assert found["canary_bucket_requests_total", *bucket] == 2
    assert found["canary_bucket_errors_total", *bucket] == 1
    assert len([key for key in found if key[0] == "canary_bucket_requests_total"]) == 1, "members, and other orders"


def test_another_revision_begins_the_buckets_of_tenants_anew_and_they_stay_bounded():
    counter = RequestCounter()
    for revision in range(20):
        counter.tenants.begin(f"r{revision}")
        for place in range(10_000):
            counter.count(f"canary everyone r{revision} 200 0.1 r{revision} {place:04d}\n".encode())
            counter.count(f"stable everyone old{revision % 7} 200 0.1 r{revision} {place:04d}\n".encode())
    requests = next(metric for metric in counter.collect() if metric.name == "canary_bucket_requests")
    assert len(requests.samples) == 2 * 1000
    assert {sample.value for sample in requests.samples} == {10}


def test_old_revisions_make_room():
    counter = RequestCounter()
    for n in range(MOST_SERIES + 50):
        counter.prepare("everyone", "canary", f"r{n}")
    requests = next(iter(counter.collect()))
    assert len(requests.samples) == MOST_SERIES


def inode(path):
    return path.stat().st_ino


def test_a_tail_loses_no_line_over_pieces_and_renames(tmp_path):
    path = tmp_path / "access.log"
    tail = Tail(path, chunk=64)
    expected, seen = [], b""
    assert tail.read() == b""
    generator = random.Random(7)
    for rename in range(3):
        with path.open("ab", buffering=0) as file:
            for n in range(50):
                line = f"line {rename} {n} {'x' * generator.randint(0, 90)}\n".encode()
                expected.append(line)
                cut = generator.randint(0, len(line))
                file.write(line[:cut])
                seen += tail.read()
                file.write(line[cut:])
            aside = tail.rename()
            file.write(b"late line\n")
            expected.append(b"late line\n")
            while piece := tail.read():
                seen += piece
            while piece := tail.read():
                seen += piece
        tail.next_file(aside)
    tail.close()
    assert seen == b"".join(expected)


@pytest.mark.nginx
async def test_the_log_is_begun_anew_under_load_and_every_request_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setattr("canary_rollout.agent.accesslog.LARGEST_LOG", 20_000)
    async with edge(tmp_path / "w", weight=2500) as proxy:
        load = Load("127.0.0.1", proxy.port, connections=8, think=0.002)
        load.start()
        first = inode(tmp_path / "w/log/access.log")
        await asyncio.sleep(8)
        await eventually(
            lambda: (tmp_path / "w/log/access.log").exists() and inode(tmp_path / "w/log/access.log") != first
        )
        seen = len(load.answers)
        await eventually(lambda: len(load.answers) > seen + 500)
        await load.stop()
        assert load.failures == []

        async def counted():
            await proxy.agent.counting.now()
            requests = next(iter(proxy.agent.counting.counter.collect()))
            return {sample.labels["version"]: sample.value for sample in requests.samples}

        of = {version: sum(a.body == version.encode() for a in load.answers) for version in ("stable", "canary")}
        await until(counted, lambda found: sum(found.values()) >= len(load.answers))
        assert await settled(counted) == of


# nginx's parent


def blocks(pid, number):
    """Whether a process has blocked a signal, to ask for it in its own time."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:")]
    return bool(mask >> (number - 1) & 1)


async def test_told_to_stop_before_there_is_anything_to_run_the_parent_just_ends(tmp_path):
    settings = settings_for(tmp_path / "w")
    async with nginx_process(settings) as process:
        await eventually(lambda: blocks(process.pid, signal.SIGTERM))
        process.terminate()
        assert await asyncio.wait_for(process.wait(), WITHIN) == 0


@pytest.mark.nginx
async def test_nginx_killed_ends_its_parent_so_that_the_container_is_restarted(tmp_path):
    settings, port = settings_for(tmp_path / "w"), free_port()
    world = World(spec=spec_of(nginx={"service": "edge", "listen": port}))
    async with apps(world), agent_task(world, settings), nginx_process(settings) as parent:
        await world.put(ENDPOINT_SLICES, endpoint_slice("edge", {"edge-1": {"ready": True}}))
        await world.route(0)
        await eventually(lambda: world.view().confirmed)
        master = Nginx(settings.nginx, settings.work).master()
        assert master is not None
        os.kill(master, signal.SIGKILL)
        assert await asyncio.wait_for(parent.wait(), WITHIN) == 128 + signal.SIGKILL


@pytest.mark.nginx
async def test_an_unreadable_note_about_the_lease_changes_nothing(tmp_path):
    async with edge(tmp_path / "w", weight=2500, nginx_traffic={"mode": "reload"}) as proxy:
        target = Workspace(tmp_path / "w").target()
        for note in (
            "",
            "{",
            json.dumps({"until": 0, "fallback": "conf/none"}),
            json.dumps({"until": "x", "fallback": 3}),
        ):
            (tmp_path / "w/deadman.json").write_text(note)
            await asyncio.sleep(0.7)
            assert Workspace(tmp_path / "w").target() == target
        assert proxy.world.view().confirmed


# What the ConfigMap may say


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
