"""Entry point of the Web Vitals collector."""

import asyncio
import os
import re
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from canary_rollout.vitals.collector import Collector
from canary_rollout.vitals.counts import Counts

_APP: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9.\[\]:-]{1,253}")
_MOST_APPS: Final = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Collect until SIGTERM. Exits 0 then, 1 when an address is taken, 2 when the command line is wrong."""
    given = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        asyncio.run(_collect(given))
    except OSError as error:
        sys.stderr.write(f"canary-rollout-vitals: cannot listen: choose another --host or --port ({error})\n")
        sys.exit(1)


async def _collect(given: Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    counts = Counts(frozenset(given.apps), time.monotonic)
    ports = (given.port, given.metrics_port)
    async with Collector(counts, frozenset(given.origins), given.host, ports, given.per_second) as collector:
        beacons, metrics = collector.ports
        sys.stderr.write(f"canary-rollout-vitals: beacons on port {beacons}, metrics on port {metrics}\n")
        await stopped.wait()


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Namespace:
    """Read the command line; what it does not say comes from the environment."""
    get = environment.get
    parser = ArgumentParser(prog="canary-rollout-vitals", description="Web Vitals of browsers, for Prometheus.")
    parser.add_argument("--apps", default=get("APPS", ""), help="comma-separated names of the apps that count")
    parser.add_argument(
        "--origins", default=get("ORIGINS", "*"), help="comma-separated pages that may send; default: *"
    )
    parser.add_argument("--host", default=get("BIND_ADDRESS", "0.0.0.0"), help="address of both ports")
    parser.add_argument("--port", type=int, default=int(get("PORT", "8080")), help="port of the beacons")
    parser.add_argument("--metrics-port", type=int, default=int(get("METRICS_PORT", "9102")), help="port of /metrics")
    parser.add_argument(
        "--per-second", type=float, default=float(get("PER_SECOND", "500")), help="most beacons a second"
    )
    given = parser.parse_args(arguments)
    given.apps, given.origins = _listed(given.apps), _listed(given.origins)
    if not given.apps or len(given.apps) > _MOST_APPS or not all(map(_APP.fullmatch, given.apps)):
        parser.error(f"--apps takes 1 to {_MOST_APPS} names of apps, as in --apps checkout,search")
    if not given.origins or not all(map(_ORIGIN.fullmatch, given.origins)):
        parser.error("--origins takes pages' origins, as in https://shop.example, or *")
    return given


def _listed(text: str) -> list[str]:
    return [part for part in (word.strip() for word in text.split(",")) if part]
