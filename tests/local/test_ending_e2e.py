"""Whatever ends the owner of a cluster, nothing of it is left."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from local_cluster import eventually

from canary_rollout.local.watchdog import MARKER_VARIABLE

pytestmark = [pytest.mark.e2e]

OWNER = """
import asyncio, os, signal, sys
from canary_rollout.local.cluster import LocalCluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background begins with it ignored
POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
    # One that leaves its process group: only the marker in its environment finds it.
    "spec": {"containers": [{"name": "c", "image": "sh", "command": ["sh", "-c", "setsid sleep 1000 & sleep 1000"]}]},
}
async def main():
    async with LocalCluster(images={"sh": []}) as cluster:
        await cluster.admin.create(POD)
        await cluster.admin.wait_for(
            "v1", "Pod", "p", lambda one: one["status"].get("phase") == "Running", namespace="default")
        print(cluster.table.marker, cluster.run_dir, flush=True)
        await asyncio.sleep(1000)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(0)
"""


def marked(marker):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"{MARKER_VARIABLE}={marker}".encode() in environment:
                found.append(entry.name)
    return found


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_nothing_is_left_of_a_cluster_whose_owner_was_ended(ending):
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdout=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        async with asyncio.timeout(300):
            marker, run_dir = (await owner.stdout.readline()).decode().split()
        # etcd, API server, controller manager, proxy, Prometheus, sh, two sleeps: the last a moment after the pod "runs".
        await eventually(lambda: len(marked(marker)) >= 7, "everybody up")
        owner.send_signal(ending)
        await owner.wait()
        await eventually(lambda: not marked(marker) and not Path(run_dir).exists(), "cleaned up")
    finally:
        if owner.returncode is None:
            owner.kill()
            await owner.wait()
