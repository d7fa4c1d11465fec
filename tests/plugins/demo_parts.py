"""What the tests of the demo's parts are made of."""

import io
from dataclasses import replace

from rich.console import Console

from canary_rollout.local.load import Snapshot
from canary_rollout.local.load.tally import Tally


def snapshot(**changes: object) -> Snapshot:
    """Ten seconds of load."""
    empty = Tally("checkout-canary").snapshot(monotonic=10.0, clock_offset=1000.0, elapsed=10.0, connections=4)
    return replace(empty, **changes)


def rollout(phase: str, weight: str = "0%", **status: object) -> dict:
    """A CanaryRollout in a phase."""
    stages = [{"name": "first", "weight": "5%"}, {"name": "ga", "weight": "100%"}]
    return {"spec": {"stages": stages}, "status": {"phase": phase, "weight": weight, "message": "why", **status}}


def text_of(what: object, width: int = 110) -> str:
    """What a terminal shows of it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()
