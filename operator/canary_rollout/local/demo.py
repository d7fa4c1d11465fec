"""``make demo``, ``kubectl canary demo``: watch a good and a broken release, on this machine, without a cluster."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from rich.console import Console

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.local.demo_cast import Cast, local_cast
from canary_rollout.local.demo_context import context_cast
from canary_rollout.local.demo_objects import APP_IMAGE, CANARY, NAMESPACE, Choices
from canary_rollout.local.demo_screen import Screen, make_screen
from canary_rollout.local.demo_story import (
    BROKEN_TAG,
    GOOD_TAG,
    Rule,
    broken_release,
    release,
    restarts,
    settle,
    showing,
)
from canary_rollout.local.demo_summary import Result, summary
from canary_rollout.local.load.__main__ import parse_target

INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "kubectl canary demo",
        description="Start a Kubernetes on this machine (no containers, no root), release a good and a broken version of a "
        "small service under load, and watch what the operator does.",
    )
    made.add_argument("--fast", action="store_true", help="hold each stage for 4 seconds only")
    made.add_argument("--keep", action="store_true", help="keep everything running afterwards, for another terminal")
    made.add_argument("--no-broken", action="store_true", help="only the good release")
    made.add_argument("--mode", choices=["auto", "njs", "reload"], default="auto", help="how nginx takes weights")
    made.add_argument("--rate", type=float, default=400.0, help="requests per second")
    made.add_argument("--tenants", type=int, default=4000, help="number of tenants")
    made.add_argument("--plain", action="store_true", help="lines instead of a live picture")
    own = made.add_argument_group("on a cluster of your own (kind, k3d …)")
    own.add_argument("--context", default="", help="context of your kubeconfig; everything is taken away afterwards")
    own.add_argument("--prometheus", default="", help="address of its Prometheus as pods reach it")
    own.add_argument("--image-operator", default="", help="image built from docker/, reachable by the cluster")
    own.add_argument("--image-agent", default="", help="image built from docker/, reachable by the cluster")
    own.add_argument("--image-app", default="", help="image of the app without a tag; it needs v1, v2 and v3-broken")
    own.add_argument("--load-target", type=parse_target, help="address:port of nginx; default: kubectl port-forward")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    return made


def cast_of(arguments: argparse.Namespace, screen: Screen) -> AbstractAsyncContextManager[Cast]:
    """Everybody who plays, on the local cluster or on one's own."""
    images = {
        f"canary-rollout/{name}": image
        for name, image in (
            ("operator", arguments.image_operator),
            ("agent", arguments.image_agent),
            ("demo-app", arguments.image_app),
        )
        if image
    }
    choices = Choices(mode=arguments.mode, fast=arguments.fast, images=images, prometheus=arguments.prometheus)
    load = ["--rate", str(arguments.rate), "--tenants", str(arguments.tenants), "--canary", CANARY]
    load += ["--cohort-tenants", str(max(1, arguments.tenants // 200))]
    if arguments.context:
        return context_cast(arguments.context, choices, load, screen.progress, arguments.load_target)
    return local_cast(choices, load, screen.progress)


async def play(arguments: argparse.Namespace, screen: Screen, result: Result) -> None:
    """The whole demo; ``result`` is filled on the way, so that what is known outlives a Ctrl-C."""
    began = time.monotonic()
    async with cast_of(arguments, screen) as cast:
        result.setup_seconds = time.monotonic() - began
        screen.say(
            f"{arguments.rate:.0f} requests/s of {arguments.tenants} tenants flow after {result.setup_seconds:.0f} s"
        )
        screen.say(f"in another terminal:\n{cast.hint}")
        title = ["getting ready"]
        async with showing(cast, screen, title):
            await tell(cast, screen, title, result, broken=not arguments.no_broken)
        result.counts = await cast.load.counts()
        result.trouble += await restarts(cast)
        result.total_seconds = time.monotonic() - began
        screen.print(summary(result))
        write_numbers(result, arguments.json)
        if arguments.keep:
            title.append("running until Ctrl-C")
            screen.say("everything keeps running until Ctrl-C")
            async with showing(cast, screen, title):
                await asyncio.Event().wait()


async def tell(cast: Cast, screen: Screen, title: list[str], result: Result, *, broken: bool) -> None:
    """Both releases, one after the other."""
    if not await settle(cast):
        result.trouble.append(f"the operator did not take the CanaryRollout up: {cast.rollout.status or 'no status'}")
        return
    title.append(f"release {GOOD_TAG}: good")
    command(screen, GOOD_TAG)
    result.good = await release(cast, GOOD_TAG)
    screen.say(f"{GOOD_TAG}: {result.good.phase} after {result.good.seconds:.1f} s")
    if not broken or result.problems():
        return
    title.append(f"release {BROKEN_TAG}: fails 30 % of its requests")
    command(screen, BROKEN_TAG)
    result.broken, _ = await broken_release(cast, Rule())
    screen.say(f"{BROKEN_TAG}: {result.broken.phase} after {result.broken.seconds:.1f} s")


def command(screen: Screen, tag: str) -> None:
    """Show what a person would have typed."""
    screen.say(f"$ kubectl -n {NAMESPACE} set image deployment/{CANARY} app={APP_IMAGE}:{tag}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 when both releases ended as they should and nothing was lost, 1 when not, 130 after Ctrl-C."""
    arguments = parser().parse_args(argv)
    console = Console()
    result = Result()

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # asyncio.run made it
        told = [False]

        def end() -> None:
            # Once: a second Ctrl-C must not interrupt the cleaning up.
            if not told[0]:
                told[0] = True
                task.cancel()

        # SIGINT too: asyncio.run leaves it alone where it is ignored, as in a shell's background job.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)
        try:
            await play(arguments, screen, result)
        except* CanaryRolloutError as group:
            result.trouble += [f"{error}" for error in leaves(group)]

    with make_screen(console, plain=arguments.plain) as screen:
        try:
            asyncio.run(run())
        except (KeyboardInterrupt, asyncio.CancelledError):
            screen.say("stopped: nothing is left running, nothing is left behind")
            if result.counts is None:  # before the end of the story
                return INTERRUPTED
    return finish(result, arguments.json, console)


def onwards() -> str:
    """Where to go from here, with the program's path as one can type it."""
    program = Path(sys.executable).parent / "kubectl-canary"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return f"{program} demo --keep stays up for commands of your own: docs/operations.md"


def leaves(group: BaseExceptionGroup[CanaryRolloutError]) -> list[BaseException]:
    """The errors in a group of groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def write_numbers(result: Result, file: Path | None) -> None:
    """Write everything that was found out as JSON."""
    if file is not None:
        file.write_text(json.dumps(result.to_dict(), indent=1) + "\n")


def finish(result: Result, file: Path | None, console: Console) -> int:
    """Write the numbers, say what was wrong, and return the exit code."""
    write_numbers(result, file)
    for problem in result.problems():
        console.print(f"✗ {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    if result.problems():
        return 1
    console.print("✓ all went as it should", style="green", highlight=False)
    console.print(onwards(), style="dim", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
