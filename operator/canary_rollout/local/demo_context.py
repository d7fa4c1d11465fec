"""The demo on a cluster of one's own (kind, k3d …), through kubectl and nothing else.

Thin on purpose. It installs the manifests and the examples with the images it is given (build them from ``docker/`` and
load them into the cluster first), and takes away what it created. The load goes through ``kubectl port-forward``, which is a
tunnel to one pod: good enough to watch a rollout, not to count lost connections. Prometheus has to be there already, and has
to scrape pods with ``prometheus.io/scrape`` annotations about every second.
"""

import asyncio
import codecs
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from canary_rollout.local.demo_cast import CONFIG_MAP, STEP, proxy_service
from canary_rollout.local.demo_load import LoadProcess
from canary_rollout.local.demo_measure import Manifest, RolloutLog, RouteLog
from canary_rollout.local.demo_objects import (
    APP_IMAGE,
    CANARY,
    NAMESPACE,
    ROLLOUT,
    Choices,
    chosen,
    chosen_image,
    example,
    parse_documents,
    release_patch,
    share,
)
from canary_rollout.local.errors import LocalClusterError
from canary_rollout.local.progress import Progress, ProgressCallback
from canary_rollout.local.tools import ensure_tool

CRD: Final = "canaryrollouts.canaryrollout.dev"
ESTABLISHED_LOOKS: Final = 120
COMMAND_SECONDS: Final = 180.0
FORWARD_SECONDS: Final = 30.0
_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")
_READ_SIZE = 1 << 16


class Kubectl:
    """kubectl for one context.

    Args:
        program: path of kubectl.
        context: name of a context in the user's kubeconfig.
    """

    def __init__(self, program: Path, context: str) -> None:
        self._command = (str(program), "--context", context)

    async def run(self, *arguments: str, text: str = "", check: bool = True) -> str:
        """Run one command and return its standard output.

        Raises:
            LocalClusterError: it failed, or took more than three minutes.
        """
        process = await self.start(*arguments)
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, errors = await process.communicate(text.encode())
        except TimeoutError:
            raise LocalClusterError(f"kubectl {' '.join(arguments)} took more than {COMMAND_SECONDS:g} s") from None
        finally:
            await end(process)
        if check and process.returncode:
            raise LocalClusterError(f"kubectl {' '.join(arguments)} failed: {errors.decode(errors='replace').strip()}")
        return output.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command that goes on."""
        return await asyncio.create_subprocess_exec(
            *(*self._command, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def until_served(self, crd: str) -> None:
        """Wait until a CustomResourceDefinition's kind is served.

        Not by ``kubectl wait``: that fails on one whose conditions are still null, as they are right after an apply.

        Raises:
            LocalClusterError: it is not within a minute.
        """
        for _ in range(ESTABLISHED_LOOKS):
            found = json.loads(await self.run("get", "crd", crd, "-o", "json"))
            conditions = found.get("status", {}).get("conditions") or []
            if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
                return
            await asyncio.sleep(0.5)
        raise LocalClusterError(f"CustomResourceDefinition {crd} is not established after a minute")

    async def exists(self, kind: str, name: str) -> bool:
        """Whether there is a cluster-scoped object of that name."""
        return bool(await self.run("get", kind, name, "--ignore-not-found", "-o", "name"))

    async def follow(self, kind: str, name: str, take: Callable[[Manifest], None]) -> None:
        """Hand every version of one object to ``take``, for ever."""
        decoder = json.JSONDecoder()
        while True:
            process = await self.start("-n", NAMESPACE, "get", kind, name, "--watch", "-o", "json")
            assert process.stdout is not None  # noqa: S101  # it was started with a pipe
            characters = codecs.getincrementaldecoder("utf-8")()
            rest = ""
            try:
                while chunk := await process.stdout.read(_READ_SIZE):
                    rest = feed(decoder, rest + characters.decode(chunk), take)
            finally:
                await end(process)
            await asyncio.sleep(1.0)  # a watch ends now and then


def feed(decoder: json.JSONDecoder, text: str, take: Callable[[Manifest], None]) -> str:
    """Hand each complete JSON object of ``text`` to ``take``; returns what is left of an incomplete one."""
    while text := text.lstrip():
        try:
            found, end_at = decoder.raw_decode(text)
        except json.JSONDecodeError:
            break
        take(found)
        text = text[end_at:]
    return text


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a command that still runs."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class ContextCast:
    """The cast on somebody's own cluster; made by :func:`context_cast`."""

    def __init__(self, kubectl: Kubectl, context: str, choices: Choices) -> None:
        self._kubectl = kubectl
        self._choices = choices
        self.rollout = RolloutLog()
        self.route = RouteLog()
        # Prometheus cannot be asked from here: its address is one inside the cluster.
        self.prometheus_url = ""
        self.hint = f"kubectl --context {context} -n {NAMESPACE} get canaryrollout {ROLLOUT} -w"
        self.load = LoadProcess(("127.0.0.1", 1))
        self.tasks: list[asyncio.Task[None]] = []

    async def release(self, tag: str) -> None:
        """Give the canary's Deployment another image."""
        image = chosen_image(f"{APP_IMAGE}:{tag}", self._choices.images)
        patch = json.dumps(release_patch(image))
        await self._kubectl.run("-n", NAMESPACE, "patch", "deployment", CANARY, "--type=strategic", "-p", patch)

    async def stable_image(self) -> str:
        """The image stable runs now, under the name the examples know it by."""
        path = "-o=jsonpath={.spec.template.spec.containers[0].image}"
        image = await self._kubectl.run("-n", NAMESPACE, "get", "deployment", ROLLOUT, path)
        return f"{APP_IMAGE}:{image.strip().rpartition(':')[2]}"

    async def pods(self) -> list[Manifest]:
        """The pods of the app and of nginx there are now."""
        found = json.loads(await self._kubectl.run("-n", NAMESPACE, "get", "pods", "-o", "json"))
        return list(found["items"])

    def check(self) -> None:
        """Raise if a watch has ended by itself."""
        for task in self.tasks:
            if task.done():
                task.result()


@contextlib.asynccontextmanager
async def context_cast(
    context: str,
    choices: Choices,
    load_options: Sequence[str],
    progress: ProgressCallback,
    target: tuple[str, int] | None = None,
) -> AsyncIterator[ContextCast]:
    """Install everything into the cluster of ``context``, and take it away again afterwards.

    Args:
        context: name of a context in the user's kubeconfig.
        choices: images and Prometheus' address as seen from inside the cluster.
        load_options: for the load generator.
        progress: told what is going on.
        target: where nginx can be reached from here; ``None``: through ``kubectl port-forward``.
    """
    if not choices.prometheus:
        raise LocalClusterError(
            f"on the cluster of context {context} name your Prometheus as its pods reach it: "
            "--prometheus http://prometheus.monitoring:9090"
        )
    kubectl = Kubectl(await ensure_tool("kubectl", progress), context)
    if await kubectl.exists("namespace", NAMESPACE):
        raise LocalClusterError(
            f"context {context} has a namespace {NAMESPACE} already, which the demo would overwrite: "
            f"delete it first (kubectl --context {context} delete namespace {NAMESPACE})"
        )
    documents = chosen(example("app.yaml", "nginx-proxy.yaml", "demo/canaryrollout.yaml"), choices)
    if await kubectl.exists("crd", CRD):
        progress(Progress(STEP, "the operator is installed in this cluster already: it is used, and left as it is"))
    else:
        operator = parse_documents(await kubectl.run("kustomize", str(share("manifests"))))
        documents = chosen(operator, choices) + documents
    cast = ContextCast(kubectl, context, choices)
    try:
        await _install(kubectl, documents, progress)
        async with _forwarded(kubectl, proxy_service(choices), target) as reachable:
            cast.load = LoadProcess(reachable, load_options)
            cast.tasks = [
                asyncio.create_task(kubectl.follow("canaryrollout", ROLLOUT, cast.rollout.take)),
                asyncio.create_task(kubectl.follow("configmap", CONFIG_MAP, cast.route.take)),
            ]
            await cast.load.start()
            yield cast
    finally:
        for task in cast.tasks:
            task.cancel()
        await asyncio.gather(*cast.tasks, return_exceptions=True)
        await cast.load.stop()
        progress(Progress(STEP, f"taking away what the demo put into the cluster of context {context}"))
        await asyncio.shield(_take_away(kubectl, documents))


async def _install(kubectl: Kubectl, documents: Sequence[Manifest], progress: ProgressCallback) -> None:
    progress(Progress(STEP, "installing the operator, the app and nginx"))
    first = [one for one in documents if one["kind"] in {"Namespace", "CustomResourceDefinition"}]
    rest = [one for one in documents if one not in first]
    await _apply(kubectl, first)
    if any(one["kind"] == "CustomResourceDefinition" for one in first):
        await kubectl.until_served(CRD)
    await _apply(kubectl, rest)
    progress(Progress(STEP, "waiting for the operator, nginx and the app to be ready"))
    for one in rest:
        if one["kind"] == "Deployment":
            namespace, name = one["metadata"].get("namespace", NAMESPACE), one["metadata"]["name"]
            await kubectl.run("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=150s")


async def _apply(kubectl: Kubectl, documents: Sequence[Manifest]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})
    await kubectl.run("apply", "--server-side", "--field-manager=canary-rollout-demo", "-f", "-", text=text)


async def _take_away(kubectl: Kubectl, documents: Sequence[Manifest]) -> None:
    # The CanaryRollout first, while its operator still runs and can let go of its finalizer.
    await kubectl.run(
        "-n", NAMESPACE, "delete", "canaryrollout", ROLLOUT, "--ignore-not-found", "--timeout=60s", check=False
    )
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(reversed(documents))})
    await kubectl.run("delete", "--ignore-not-found", "--timeout=120s", "-f", "-", text=text, check=False)


@contextlib.asynccontextmanager
async def _forwarded(kubectl: Kubectl, service: str, target: tuple[str, int] | None) -> AsyncIterator[tuple[str, int]]:
    """Where nginx can be reached from here."""
    if target is not None:
        yield target
        return
    process = await kubectl.start("-n", NAMESPACE, "port-forward", f"service/{service}", ":80")
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    try:
        try:
            async with asyncio.timeout(FORWARD_SECONDS):
                found = _FORWARDING.search(await process.stdout.readline())
        except TimeoutError:
            raise LocalClusterError(f"kubectl port-forward said nothing for {FORWARD_SECONDS:g} s") from None
        if found is None:
            raise LocalClusterError("kubectl port-forward did not say where it listens")
        # It writes a line for each connection, and stops when nobody reads them.
        reading = asyncio.create_task(_read_away(process.stdout))
        yield "127.0.0.1", int(found.group(1))
        reading.cancel()
    finally:
        await end(process)


async def _read_away(stream: asyncio.StreamReader) -> None:
    while await stream.read(_READ_SIZE):
        pass
