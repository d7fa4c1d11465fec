"""nginx itself: what it can do, and the process that is its parent."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
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
    spec_of,
)

from canary_rollout.agent.errors import LoadError
from canary_rollout.agent.nginx import Nginx
from canary_rollout.agent.settings import find_nginx
from canary_rollout.agent.workspace import Workspace
from canary_rollout.kube.port import ENDPOINT_SLICES


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


SIGTIMEDWAIT = {"128", "137"}
"""Its number among the system calls, on x86-64 and on arm64."""


def waits_for_signals(pid):
    """Whether a process asks for its signals in its own time. While it waits, the kernel shows none of them as blocked."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in SIGTIMEDWAIT


async def test_told_to_stop_before_there_is_anything_to_run_the_parent_just_ends(tmp_path):
    settings = settings_for(tmp_path / "w")
    async with nginx_process(settings) as process:
        await eventually(lambda: waits_for_signals(process.pid))
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
