"""Everybody who plays in the demo, on the local cluster: operator, nginx with its agent, the app, Prometheus, load."""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import yaml

from canary_rollout.local.cluster import LocalCluster
from canary_rollout.local.demo_load import LoadProcess
from canary_rollout.local.demo_measure import ROLLOUT_KIND, Manifest, RolloutLog, RouteLog, watch_one
from canary_rollout.local.demo_objects import (
    APP_IMAGE,
    CANARY,
    NAMESPACE,
    ROLLOUT,
    Choices,
    chosen,
    example,
    parse_documents,
    release_patch,
    share,
)
from canary_rollout.local.errors import ApiError, LocalClusterError
from canary_rollout.local.images import ImageSpec
from canary_rollout.local.progress import Progress, ProgressCallback
from canary_rollout.local.tools import ensure_tool

READY_SECONDS: Final = 90.0
CONFIG_MAP: Final = f"{ROLLOUT}-nginx"
STEP: Final = "start the cast"
IMAGES: Final[Mapping[str, ImageSpec]] = {
    APP_IMAGE: ("{python}", "-m", "canary_rollout.local.app"),
    "canary-rollout/operator": ("{python}", "-m", "canary_rollout.controller"),
    "canary-rollout/agent": ("{python}", "-m", "canary_rollout.agent"),
}


class Cast(Protocol):
    """What the story needs, whatever cluster it plays on."""

    rollout: RolloutLog
    route: RouteLog
    load: LoadProcess
    prometheus_url: str
    hint: str

    async def release(self, tag: str) -> None:
        """Give the canary's Deployment another image, as a pipeline would."""
        ...

    async def stable_image(self) -> str:
        """The image stable runs now."""
        ...

    async def pods(self) -> list[Manifest]:
        """The pods of the app and of nginx there are now."""
        ...

    def check(self) -> None:
        """Raise if a part of it has ended by itself."""
        ...


class LocalCast:
    """The cast on a :class:`LocalCluster`; made by :func:`local_cast`."""

    def __init__(self, cluster: LocalCluster, load: LoadProcess) -> None:
        self.cluster = cluster
        self.load = load
        self.rollout = RolloutLog()
        self.route = RouteLog()
        self.prometheus_url = cluster.prometheus_url
        lines = [f"export KUBECONFIG={cluster.kubeconfig}"]
        if shutil.which("kubectl-canary") is None:
            lines.append(f"export PATH={Path(sys.executable).parent}:$PATH")
        self.hint = "\n".join([*lines, f"kubectl canary status {ROLLOUT} -n {NAMESPACE} -w"])
        self._watches: list[asyncio.Task[None]] = []

    def watch(self) -> None:
        """Begin to follow the CanaryRollout and its route."""
        admin = self.cluster.admin
        follow = (
            watch_one(admin, ROLLOUT_KIND, NAMESPACE, ROLLOUT, self.rollout.take),
            watch_one(admin, ("v1", "ConfigMap"), NAMESPACE, CONFIG_MAP, self.route.take),
        )
        self._watches = [asyncio.create_task(one) for one in follow]

    async def release(self, tag: str) -> None:
        """Give the canary's Deployment another image."""
        await self.cluster.admin.patch(
            *("apps/v1", "Deployment", CANARY),
            release_patch(f"{APP_IMAGE}:{tag}"),
            namespace=NAMESPACE,
            patch_type="strategic",
            field_manager="demo-release",
        )

    async def stable_image(self) -> str:
        """The image stable runs now."""
        deployment = await self.cluster.admin.get("apps/v1", "Deployment", ROLLOUT, namespace=NAMESPACE)
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    async def pods(self) -> list[Manifest]:
        """The pods of the app and of nginx there are now."""
        return await self.cluster.admin.list("v1", "Pod", namespace=NAMESPACE)

    def check(self) -> None:
        """Raise if a part of the cluster has ended by itself."""
        self.cluster.check()
        for task in self._watches:
            if task.done():
                task.result()

    async def close(self) -> None:
        """End the load and the watches; the cluster is its own context."""
        await self.load.stop()
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)


@contextlib.asynccontextmanager
async def local_cast(
    choices: Choices, load_options: Sequence[str], progress: ProgressCallback, images: Mapping[str, ImageSpec] = IMAGES
) -> AsyncIterator[LocalCast]:
    """Start a local cluster and everybody in it; all of it is gone afterwards."""
    # kubectl and nginx are small and quick to install, so what is missing is known before the long builds begin.
    for tool in ("kubectl", "nginx"):
        await ensure_tool(tool, progress)
    async with LocalCluster(images=images, progress=progress) as cluster:
        target = await install(cluster, choices, progress)
        cast = LocalCast(cluster, LoadProcess(target, load_options))
        cast.watch()
        try:
            progress(Progress(STEP, "starting the load generator"))
            await cast.load.start()
            yield cast
        finally:
            await cast.close()


async def install(cluster: LocalCluster, choices: Choices, progress: ProgressCallback) -> tuple[str, int]:
    """Apply the project's manifests and the examples, wait until they serve; returns where nginx's Service listens."""
    choices = Choices(
        prometheus=choices.prometheus or cluster.prometheus_url,
        images=choices.images,
        mode=choices.mode,
        fast=choices.fast,
        stages=choices.stages,
    )
    progress(Progress(STEP, "installing the operator from manifests/ (CRD, RBAC, Deployment)"))
    operator = parse_documents(await cluster.kubectl("kustomize", str(share("manifests"))))
    for document in operator:
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 1  # two cores are enough for one, and the demo shows no takeover
    await cluster.admin.apply_all(chosen(operator, choices))
    progress(Progress(STEP, "applying the app, nginx and the CanaryRollout"))
    await cluster.admin.apply_all(chosen(example("app.yaml", "nginx-proxy.yaml"), choices), namespace=NAMESPACE)
    for document in chosen(example("demo/canaryrollout.yaml"), choices):
        await apply_when_known(cluster, document)
    progress(Progress(STEP, "waiting for the operator, nginx and the app to be ready"))
    # nginx is ready once the operator has told it what to serve, so the operator needs no waiting of its own.
    served = [one for one in example("app.yaml", "nginx-proxy.yaml") if one["kind"] == "Deployment"]
    try:
        async with asyncio.TaskGroup() as group:
            for one in served:
                group.create_task(wait_available(cluster, NAMESPACE, one["metadata"]["name"]))
    except* LocalClusterError as errors:
        words = "\n".join([str(error) for error in errors.exceptions])
        told = [
            await _last_words(cluster, one["metadata"]["namespace"], one["metadata"]["name"])
            for one in operator
            if one["kind"] == "Deployment"
        ]
        raise LocalClusterError("\n".join([words, *told])) from None
    return await service_address(cluster, proxy_service(choices))


def proxy_service(choices: Choices) -> str:
    """Name of the Service in front of nginx."""
    rollout = chosen(example("demo/canaryrollout.yaml"), choices)[0]
    return str(rollout["spec"]["traffic"]["nginx"]["service"])


async def apply_when_known(cluster: LocalCluster, document: Manifest) -> None:
    """Apply an object of a kind that was created a moment ago."""
    for _ in range(50):
        try:
            await cluster.admin.apply(document)
        except (LocalClusterError, ApiError) as error:
            if isinstance(error, ApiError) and error.status != 404:
                raise
            await asyncio.sleep(0.1)
        else:
            return
    raise LocalClusterError(f"the API server does not know the kind {document['kind']} five seconds after its CRD")


async def wait_available(cluster: LocalCluster, namespace: str, name: str) -> None:
    """Return when all replicas of a Deployment are available.

    Raises:
        LocalClusterError: they are not in time; the message has the log of one of its pods.
    """

    def available(deployment: Manifest) -> bool:
        return bool((deployment.get("status") or {}).get("availableReplicas", 0) >= deployment["spec"]["replicas"])

    try:
        await cluster.admin.wait_for(
            "apps/v1", "Deployment", name, available, namespace=namespace, timeout=READY_SECONDS, what="available"
        )
    except LocalClusterError as error:
        raise LocalClusterError(f"{error}\n{await _last_words(cluster, namespace, name)}") from error


async def _last_words(cluster: LocalCluster, namespace: str, deployment: str) -> str:
    words = []
    for pod in await cluster.admin.list("v1", "Pod", namespace=namespace):
        name = pod["metadata"]["name"]
        if name.startswith(f"{deployment}-"):
            words.append(yaml.safe_dump((pod.get("status") or {}).get("containerStatuses")))
            words += [
                f"{name} {one['name']}:\n{cluster.pod_log(namespace, name, one['name'])[-3000:]}"
                for one in pod["spec"]["containers"]
            ]
            break
    return "\n".join(words) or f"no pod of {namespace}/{deployment} exists"


async def service_address(cluster: LocalCluster, name: str) -> tuple[str, int]:
    """ClusterIP and first port of a Service."""
    service = await cluster.admin.get("v1", "Service", name, namespace=NAMESPACE)
    return str(service["spec"]["clusterIP"]), int(service["spec"]["ports"][0]["port"])
