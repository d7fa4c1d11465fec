"""``python -m canary_rollout.local`` as a person types it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from canary_rollout.local.tools import ensure_tool


async def start(*arguments):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "canary_rollout.local",
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(os.environ),
    )


@pytest.mark.e2e
async def test_up_prints_what_another_terminal_needs_and_ctrl_c_leaves_nothing():
    command = await start("up", "--image", "web=sleep 1000")
    try:
        kubeconfig = None
        async with asyncio.timeout(300):
            while kubeconfig is None:
                line = (await command.stdout.readline()).decode()
                assert line, "it ended"
                if "export KUBECONFIG=" in line:
                    kubeconfig = line.strip().partition("=")[2]
        kubectl = await asyncio.create_subprocess_exec(
            str(await ensure_tool("kubectl")),
            "run",
            "web",
            "--image=web",
            env={**os.environ, "KUBECONFIG": kubeconfig},
            stdout=subprocess.PIPE,
        )
        assert b"pod/web created" in (await kubectl.communicate())[0]
        command.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(command.communicate(), 60)
    finally:
        if command.returncode is None:
            command.kill()
            await command.wait()
    assert output.decode().endswith("stopped\n")
    assert command.returncode == 0
    assert not await asyncio.to_thread(Path(kubeconfig).parent.exists)


async def test_a_command_for_an_image_must_be_given():
    command = await start("up", "--image", "web")
    output, _ = await command.communicate()
    assert command.returncode == 2
    assert b"write NAME=COMMAND" in output


@pytest.mark.e2e
async def test_fetch_names_every_part_and_how_long_it_took():
    command = await start("fetch")
    output, _ = await command.communicate()
    assert command.returncode == 0
    lines = output.decode().splitlines()
    for part in ("control plane", "prometheus", "nginx", "kubectl"):
        assert any(line.startswith(f"{part}: ") and line.endswith(" s)") for line in lines)
