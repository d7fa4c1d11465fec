"""The program as kubectl runs it, against a real API server: what the in-memory one of the other tests cannot prove."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from canary_rollout.local.cluster import LocalCluster
from canary_rollout.local.controlplane import StaticUser
from canary_rollout.model.commands import read_commands

pytestmark = pytest.mark.e2e

BIN = Path(sys.executable).parent
CRD = Path(__file__).parents[2] / "crds" / "canaryrollout.yaml"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: 0
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: app, image: "shop/checkout:1.0"}}]}}
---
"""
ROLLOUT = """
apiVersion: canaryrollout.dev/v1alpha1
kind: CanaryRollout
metadata: {name: checkout, namespace: shop}
spec:
  workload:
    stable: {service: checkout, deployment: checkout}
    canary: {service: checkout-canary, deployment: checkout-canary}
  traffic: {nginx: {service: edge}}
  metrics: {prometheus: "http://127.0.0.1:9"}
"""


class Shell:
    """Runs programs with the cluster's kubeconfig and the program's directory on PATH."""

    def __init__(self, kubeconfig, home):
        self.env = {
            "PATH": f"{home}:{BIN}:{os.environ['PATH']}",
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            "COLUMNS": "80",
        }

    async def __call__(self, *words, stdin=None, code=0):
        out, err, ended = await self.run(*words, stdin=stdin)
        assert ended == code, (out, err)
        assert "Traceback" not in err
        return out, err

    async def until(self, *words):
        """Repeat until it succeeds: a new kind is served a moment after its definition is stored."""
        for _ in range(240):
            out, err, ended = await self.run(*words)
            if ended == 0:
                return
            await asyncio.sleep(0.25)
        raise AssertionError((out, err))

    async def run(self, *words, stdin=None):
        process = await asyncio.create_subprocess_exec(
            *words,
            env=self.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate((stdin or "").encode()), 120)
        return out.decode(), err.decode(), process.returncode


async def test_kubectl_canary_on_a_real_api_server(tmp_path):
    nobody = StaticUser("nobody")
    async with LocalCluster(users=[nobody], with_prometheus=False) as cluster:
        cluster.controlplane.kubeconfig(tmp_path / "config", namespace="shop")
        cluster.controlplane.kubeconfig(tmp_path / "nobody", token=nobody.token, user="nobody", namespace="shop")
        shell = Shell(tmp_path / "config", tmp_path)

        _, said = await shell("kubectl", "canary", "list", code=1)
        assert "the operator is not installed" in said
        _, said = await shell("kubectl", "canary", "status", "checkout", code=1)
        assert "the operator is not installed" in said

        await shell("kubectl", "create", "namespace", "shop")
        await shell("kubectl", "apply", "-f", str(CRD))
        await shell.until("kubectl", "get", "canaryrollouts")
        objects = "".join(DEPLOYMENT.format(name=name) for name in ("checkout", "checkout-canary")) + ROLLOUT
        await shell("kubectl", "apply", "-f", "-", stdin=objects)

        await reading(shell, tmp_path)
        await looking(shell)
        revision = await starting(shell)
        await commanding(shell, revision)
        await watching(shell)


async def reading(shell, tmp_path):
    out, _ = await shell("kubectl", "canary", "status", "checkout")
    assert "no operator has looked at this yet" in out
    assert "internal-test" in out, "the default stages come from the API server"
    _, said = await shell("kubectl", "canary", "status", "chekout", code=1)
    assert "did you mean checkout?" in said
    _, said = await shell("kubectl", "canary", "pause", "checkout", code=1)
    assert "no rollout yet" in said
    _, said = await shell("kubectl", "canary", "list", "--kubeconfig", str(tmp_path / "nobody"), code=1)
    assert "lacks a right" in said
    _, said = await shell("kubectl", "canary", "list", "--context", "elsewhere", code=2)
    assert "elsewhere" in said

    script, _ = await shell("kubectl", "canary", "completion")
    plugin = tmp_path / "kubectl_complete-canary"
    plugin.write_text(script)
    plugin.chmod(0o755)
    out, _ = await shell("kubectl", "__complete", "canary", "pause", "ch")
    assert out.splitlines()[0] == "checkout"


async def looking(shell):
    """Before anything is leapt at: what is asked of the cluster is answered by it."""
    out, _ = await shell("kubectl", "canary", "validate", "-", stdin=ROLLOUT)
    assert "stdin:2: checkout is valid" in out
    out, _ = await shell("kubectl", "canary", "check", "checkout", "--stage", "friendly", "-o", "json", code=3)
    assert json.loads(out)["verdict"] == "none"
    out, _ = await shell("kubectl", "canary", "health", "checkout", "--once", code=3)
    assert "no verdict" in out
    _, said = await shell("kubectl", "canary", "cohort", "checkout", "acme", code=1)
    assert "decides every request by itself" in said
    sticky = '{"spec": {"traffic": {"sticky": {"header": "X-Tenant-ID"}}}}'
    await shell("kubectl", "patch", "crl", "checkout", "--type=merge", "-p", sticky)
    out, _ = await shell("kubectl", "canary", "cohort", "checkout", "acme", "-o", "json")
    assert json.loads(out)["tenants"][0]["stages"][-1] == "ga"
    _, said = await shell("kubectl", "canary", "diff", "checkout", "--path", "/", code=1)
    assert "there is no Service checkout in namespace shop" in said


async def starting(shell):
    """Without an operator nobody answers, but the annotation and the image are there and belong together."""
    _, said = await shell(
        *("kubectl", "canary", "start", "checkout", "--image", "shop/checkout:2.0", "--weight", "10%", "--wait", "1"),
        code=3,
    )
    assert "the operator did not answer start within 1 s" in said
    rollout = json.loads((await shell("kubectl", "get", "canaryrollout", "checkout", "-o", "json"))[0])
    (command,), errors = read_commands(rollout["metadata"]["annotations"])
    assert errors == []
    assert command.args.weight == "10%"
    assert command.by == "canary-rollout-local-admin"
    out, _ = await shell("kubectl", "get", "deployment", "checkout-canary", "--show-managed-fields", "-o", "json")
    found = json.loads(out)
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "shop/checkout:2.0"
    assert "kubectl-canary" in {entry["manager"] for entry in found["metadata"]["managedFields"]}
    _, said = await shell("kubectl", "canary", "start", "checkout", "--image", "shop/checkout:2.0", code=1)
    assert "has image shop/checkout:2.0 already" in said
    return command.revision


async def commanding(shell, revision):
    """Somebody plays the operator through the status subresource."""
    patch = {"status": {"phase": "Progressing", "revision": revision, "rollout": {"revision": revision}}}
    await patch_status(shell, patch)
    waiting = asyncio.create_task(shell("kubectl", "canary", "pause", "checkout", "--reason", "lunch", code=1))
    command = None
    while command is None:
        await asyncio.sleep(0.2)
        annotations = yaml.safe_load((await shell("kubectl", "get", "crl", "checkout", "-o", "yaml"))[0])["metadata"]
        commands, _ = read_commands(annotations["annotations"])
        command = next((found for found in commands if found.verb == "pause"), None)
    assert (command.revision, command.args.reason) == (revision, "lunch")
    answer = {
        "id": command.id,
        "command": "pause",
        "at": "2025-11-21T10:00:00Z",
        "accepted": False,
        "message": "no lunch",
    }
    await patch_status(shell, {"status": {"lastCommand": answer, "consumed": {"pause": command.id}}})
    _, said = await waiting
    assert "pause refused: no lunch" in said


async def watching(shell):
    """``-w`` sees a change through a watch that is limited to the one object, and ends when it is deleted."""
    process = await asyncio.create_subprocess_exec(
        *("kubectl-canary", "status", "checkout", "-w"),
        env=shell.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        first = await asyncio.wait_for(process.stdout.readline(), 60)
        assert b"Progressing" in first
        await patch_status(shell, {"status": {"message": "something new"}})
        assert b"something new" in await asyncio.wait_for(process.stdout.readline(), 60)
        await shell("kubectl", "delete", "canaryrollout", "checkout")
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert b"was deleted" in err
        assert process.returncode == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def patch_status(shell, patch):
    words = ("kubectl", "patch", "canaryrollout", "checkout", "--subresource=status", "--type=merge", "-p")
    await shell(*words, json.dumps(patch))
