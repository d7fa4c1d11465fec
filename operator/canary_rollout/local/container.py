"""Runs one container of a pod as a local process: starts, probes, restarts and stops it."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backoff import INITIAL_SECONDS, BackOff
from .errors import ContainerConfigError, ImageUnknownError
from .images import Image, command_line, find_image, split_reference
from .podenv import PathRewriter, expand, parse_quantity, rewrite_all
from .podstatus import ContainerStatus, exit_code_of, running, terminated, timestamp, waiting
from .probes import Prober, ProbeTiming, Thresholds, check_probe
from .process import ChildProcess, tail

if TYPE_CHECKING:
    from .pod import PodRunner

Manifest = dict[str, Any]

CONFIG_RETRY_SECONDS = 1.0
DEFAULT_GRACE_SECONDS = 30
START_ERROR_EXIT_CODE = 128
HOOK_MINIMUM_SECONDS = 2.0
log = logging.getLogger(__name__)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Launch:
    """What starting a container once takes."""

    image: Image
    argv: list[str]
    environment: dict[str, str]
    cwd: Path
    rewrite: PathRewriter = field(repr=False)


class ContainerRunner:
    """One container, over all its restarts.

    Args:
        pod: the pod it belongs to.
        spec: its part of the pod's spec.
        init: it is an init container.
    """

    def __init__(self, pod: "PodRunner", spec: Manifest, *, init: bool = False) -> None:
        self.pod = pod
        self.spec = spec
        self.name = str(spec["name"])
        sidecar = init and spec.get("restartPolicy") == "Always"
        self.status = ContainerStatus(self.name, str(spec["image"]), sidecar=sidecar)
        if init:
            self.status.state = waiting("PodInitializing")
        self.policy = self._restart_policy(init=init, sidecar=sidecar)
        self.process: ChildProcess | None = None
        self.started = asyncio.Event()
        self._launch: Launch | None = None
        self._stopping = asyncio.Event()
        self._out_of_memory = False
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        self.memory_limit = parse_quantity(limit) if limit else None

    def _restart_policy(self, *, init: bool, sidecar: bool) -> str:
        policy = str(self.pod.spec.get("restartPolicy") or "Always")
        if sidecar:
            return "Always"
        return "OnFailure" if init and policy == "Always" else policy

    # -- running ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until the container has ended for good: by its restart policy, or because it was stopped."""
        restart, pull = BackOff(self.pod.node.time_scale), BackOff(self.pod.node.time_scale, first=INITIAL_SECONDS)
        while not self._stopping.is_set():
            try:
                self._launch = self._prepare()
            except ImageUnknownError as error:
                await self._wait_for_image(str(error), pull)
                continue
            except ContainerConfigError as error:
                self.status.state = waiting("CreateContainerConfigError", str(error))
                self.pod.publish()
                await self._pause(CONFIG_RETRY_SECONDS)
                continue
            began = time.monotonic()
            code = await self._run_once(self._launch)
            if self._stopping.is_set() or not self._restarts_after(code):
                break
            await self._wait_for_restart(restart.next(time.monotonic() - began))
        self.status.done = True
        self.status.ready = self.status.started = False
        self.pod.publish()

    def _restarts_after(self, code: int) -> bool:
        return self.policy == "Always" or (self.policy == "OnFailure" and code != 0)

    async def _wait_for_image(self, message: str, back_off: BackOff) -> None:
        self.status.state = waiting("ErrImagePull", message)
        await self.pod.flush()
        delay = back_off.next()
        self.pod.node.warn(self.pod.manifest, "Failed", f"Failed to pull image: {message}")
        self.status.state = waiting("ImagePullBackOff", f"Back-off pulling image {self.status.image!r}: {message}")
        self.pod.publish()
        await self._pause(delay * self.pod.node.time_scale)

    async def _wait_for_restart(self, delay: float) -> None:
        # Both states are worth seeing: that it ended, and that it now waits.
        await self.pod.flush()
        self.status.last_state = self.status.state
        if delay > 0:
            pod = self.pod.manifest["metadata"]
            message = (
                f"back-off {delay:g}s restarting failed container={self.name} "
                f"pod={pod['name']}_{pod['namespace']}({pod['uid']})"
            )
            self.status.state = waiting("CrashLoopBackOff", message)
            self.pod.publish()
            self.pod.node.warn(self.pod.manifest, "BackOff", message)
            await self._pause(delay * self.pod.node.time_scale)
        if not self._stopping.is_set():
            self.status.restarts += 1

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _prepare(self) -> Launch:
        reference = self.status.image
        image = find_image(self.pod.node.images, reference)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            check_probe(self.spec, probe)
        rewrite = PathRewriter(self.pod.mounts(self.spec))
        cwd = self.pod.container_directory(self.name)
        cwd.mkdir(parents=True, exist_ok=True)
        if self.spec.get("workingDir"):
            cwd = Path(rewrite(self.spec["workingDir"]))
        _, tag = split_reference(reference)
        given = self.pod.base_environment(cwd)
        base = given | dict(image.env) | {"IMAGE": reference, "IMAGE_TAG": tag}
        # What the node itself says (the interpreter, KUBECONFIG) are paths of this machine already: a mount at /tmp or
        # /work must not redirect them.
        environment = {
            name: value if given.get(name) == value else rewrite(value)
            for name, value in self.pod.environment_builder().build(self.spec, base).items()
        }
        inside = replace(
            image,
            entrypoint=[*image.entrypoint[:1], *rewrite_all(image.entrypoint[1:], rewrite)],
            cmd=rewrite_all(image.cmd, rewrite),
        )
        command, args = (rewrite_all(self.spec.get(key) or [], rewrite) for key in ("command", "args"))
        argv = command_line(inside, reference, command, args)
        if not argv:
            raise ContainerConfigError(f"image {reference!r} has no entrypoint: give the container a command")
        argv = [expand(word, environment) for word in argv]
        return Launch(image, argv, environment, cwd, rewrite)

    async def _run_once(self, launch: Launch) -> int:
        began = timestamp()
        output = self.pod.log_path(self.name, self.status.restarts)
        try:
            process = self.pod.node.table.start(
                launch.argv, name=f"{self.pod.key} {self.name}", env=launch.environment, cwd=launch.cwd, log=output
            )
        except OSError as error:
            state = terminated(START_ERROR_EXIT_CODE, started_at=began, finished_at=timestamp(), message=str(error))
            state["terminated"]["reason"] = "StartError"
            self.status.state = state
            self.pod.publish()
            return START_ERROR_EXIT_CODE
        self.process = process
        self._out_of_memory = False
        self.status.container_id = f"local://{process.pid}"
        self.status.state = running(began)
        self.status.started = "startupProbe" not in self.spec
        self.status.ready = self.status.started and "readinessProbe" not in self.spec
        if self.status.started:
            self.started.set()
        self.pod.publish()
        probes = asyncio.create_task(self._probe(process, launch), name=f"probes of {process.name}")
        try:
            code = exit_code_of(await process.wait())
        finally:
            probes.cancel()
            await self._report_probes(probes)
        self.process = None
        self.status.ready = self.status.started = False
        message = tail(output) if code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" else ""
        self.status.state = terminated(
            code, started_at=began, finished_at=timestamp(), oom=self._out_of_memory, message=message
        )
        self.pod.publish()
        return code

    async def _report_probes(self, probes: "asyncio.Task[None]") -> None:
        (result,) = await asyncio.gather(probes, return_exceptions=True)
        if result is not None and not isinstance(result, asyncio.CancelledError):
            log.error("the probes of %s/%s failed", self.pod.key, self.name, exc_info=result)

    # -- probes -----------------------------------------------------------------------------------------------------

    async def _probe(self, process: ChildProcess, launch: Launch) -> None:
        async def run(command: Sequence[str], seconds: float) -> int:
            return await self._exec(command, launch, seconds)

        prober = Prober(self.pod.node.http, self.spec, self.pod.listen_address, run)
        began = time.monotonic()
        startup = check_probe(self.spec, "startupProbe")
        if startup:
            async for passed, why in _results(prober, startup, began, initially=None):
                if not passed:
                    await self._kill_unhealthy(process, startup, f"Startup probe failed: {why}")
                    return
                break
            self.status.started = True
            self.status.ready = "readinessProbe" not in self.spec
            self.started.set()
            self.pod.publish()
        async with asyncio.TaskGroup() as group:
            liveness, readiness = check_probe(self.spec, "livenessProbe"), check_probe(self.spec, "readinessProbe")
            if liveness:
                group.create_task(self._watch_liveness(prober, liveness, began, process))
            if readiness:
                group.create_task(self._watch_readiness(prober, readiness, began))

    async def _watch_liveness(self, prober: Prober, probe: Manifest, began: float, process: ChildProcess) -> None:
        async for passed, why in _results(prober, probe, began, initially=True):
            if not passed and not self._stopping.is_set():
                await self._kill_unhealthy(process, probe, f"Liveness probe failed: {why}")
                return

    async def _watch_readiness(self, prober: Prober, probe: Manifest, began: float) -> None:
        async for passed, why in _results(prober, probe, began, initially=None):
            self.status.ready = passed
            self.pod.publish()
            if not passed:
                self.pod.node.warn(self.pod.manifest, "Unhealthy", f"Readiness probe failed: {why}")

    async def _kill_unhealthy(self, process: ChildProcess, probe: Manifest, why: str) -> None:
        self.pod.node.warn(self.pod.manifest, "Unhealthy", f"{why}; container {self.name} will be restarted")
        grace = probe.get("terminationGracePeriodSeconds") or self.pod.spec.get("terminationGracePeriodSeconds")
        await self._terminate(process, float(grace or DEFAULT_GRACE_SECONDS))

    async def _exec(self, command: Sequence[str], launch: Launch, seconds: float) -> int:
        argv = rewrite_all(command, launch.rewrite)
        child = self.pod.node.table.start(argv, name=f"{self.pod.key} exec", env=launch.environment, cwd=launch.cwd)
        try:
            async with asyncio.timeout(seconds):
                return await child.wait()
        finally:
            child.send_group(signal.SIGKILL)

    # -- ending -----------------------------------------------------------------------------------------------------

    def memory_in_use(self) -> int:
        """Anonymous memory of the container's main process, in bytes; 0 when it does not run."""
        process = self.process
        if process is None:
            return 0
        try:
            _, resident, shared, *_ = Path(f"/proc/{process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return (int(resident) - int(shared)) * PAGE_BYTES

    def kill_for_memory(self) -> None:
        """Do what the kernel does to a container above its limit."""
        if self.process is not None:
            self._out_of_memory = True
            self.process.send_group(signal.SIGKILL)

    def kill(self) -> None:
        """End it now and for good."""
        self._stopping.set()
        if self.process is not None:
            self.process.send_group(signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> None:
        """End it for good: preStop hook, the stop signal, SIGKILL when the grace period is over."""
        self._stopping.set()
        process = self.process
        if process is not None:
            deadline = time.monotonic() + grace_seconds
            await self._pre_stop(grace_seconds)
            await self._terminate(process, max(deadline - time.monotonic(), HOOK_MINIMUM_SECONDS))

    async def _terminate(self, process: ChildProcess, grace_seconds: float) -> None:
        lifecycle = self.spec.get("lifecycle") or {}
        own = self._launch.image.stop_signal if self._launch is not None else "SIGTERM"
        process.send(signal.Signals[lifecycle.get("stopSignal") or own])
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            process.send_group(signal.SIGKILL)
            await process.wait()

    async def _pre_stop(self, grace_seconds: float) -> None:
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if not hook or self._launch is None:
            return
        try:
            async with asyncio.timeout(grace_seconds):
                if "sleep" in hook:
                    await asyncio.sleep(float(hook["sleep"]["seconds"]))
                elif "exec" in hook:
                    await self._exec(hook["exec"]["command"], self._launch, grace_seconds)
                else:
                    prober = Prober(self.pod.node.http, self.spec, self.pod.listen_address, _no_exec)
                    await prober.ask({"httpGet": hook["httpGet"], "timeoutSeconds": grace_seconds})
        except (TimeoutError, OSError) as error:
            self.pod.node.warn(self.pod.manifest, "FailedPreStopHook", f"preStop of {self.name}: {error!r}")


async def _no_exec(_command: Sequence[str], _seconds: float) -> int:
    raise ContainerConfigError("an httpGet hook runs no command")


async def _results(
    prober: Prober, probe: Manifest, began: float, *, initially: bool | None
) -> AsyncIterator[tuple[bool, str]]:
    """Yield each change of a probe's state, and why; ``began`` is when the container started (monotonic)."""
    timing = ProbeTiming.of(probe)
    thresholds = Thresholds(timing, state=initially)
    await asyncio.sleep(max(began + timing.initial_delay - time.monotonic(), 0))
    while True:
        asked = time.monotonic()
        passed, why = await prober.ask(probe)
        if thresholds.count(success=passed) is not None:
            yield passed, why
        await asyncio.sleep(max(asked + timing.period - time.monotonic(), 0))
