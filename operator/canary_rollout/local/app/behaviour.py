"""How the app behaves: from its environment, and changed by ``/control`` while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from canary_rollout.errors import CanaryRolloutError

BROKEN_TAG = "-broken"
BROKEN_ERROR_RATE = 0.3
MAX_SLOW_SECONDS = 600.0


class BehaviourError(CanaryRolloutError):
    """A setting that cannot be read; the message names it and what it may be."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the app does with a request.

    Attributes:
        error_rate: share of the requests answered with 500, 0..1.
        latency: mean time a request takes, seconds; each takes between half and one and a half times that.
        ready: what ``/healthz`` says.
        crash_after: seconds after which the process ends with exit code 1; 0: never.
        lame_duck: seconds after SIGTERM in which new connections are still accepted.
    """

    error_rate: float = 0.0
    latency: float = 0.0
    ready: bool = True
    crash_after: float = 0.0
    lame_duck: float = 2.0


def version_of(environment: Mapping[str, str]) -> str:
    """The version the app says it is: ``VERSION``, else the tag of its image."""
    return environment.get("VERSION") or environment.get("IMAGE_TAG") or "unknown"


def from_environment(environment: Mapping[str, str]) -> Behaviour:
    """Behaviour as the environment asks for it; a version with ``-broken`` in its name is broken unless told otherwise.

    Raises:
        BehaviourError: a value is no number or out of range.
    """
    broken = BROKEN_ERROR_RATE if BROKEN_TAG in version_of(environment) else 0.0
    return Behaviour(
        error_rate=_number("ERROR_RATE", environment.get("ERROR_RATE", ""), broken, 1.0),
        latency=_number("LATENCY_MS", environment.get("LATENCY_MS", ""), 0.0, 60_000.0) / 1000,
        crash_after=_number("CRASH_AFTER", environment.get("CRASH_AFTER", ""), 0.0, 86_400.0),
        lame_duck=_number("LAME_DUCK", environment.get("LAME_DUCK", ""), 2.0, 600.0),
    )


def changed(behaviour: Behaviour, settings: Mapping[str, str]) -> Behaviour:
    """The behaviour after ``/control?error_rate=…&latency_ms=…&ready=…``; what is not named stays.

    Raises:
        BehaviourError: an unknown setting, or a value out of range.
    """
    for name, value in settings.items():
        match name:
            case "error_rate":
                behaviour = replace(behaviour, error_rate=_number(name, value, 0.0, 1.0))
            case "latency_ms":
                behaviour = replace(behaviour, latency=_number(name, value, 0.0, 60_000.0) / 1000)
            case "ready":
                behaviour = replace(behaviour, ready=_truth(name, value))
            case "crash":
                _truth(name, value)
            case _:
                raise BehaviourError(f"unknown setting {name[:40]!r}: use error_rate, latency_ms, ready or crash")
    return behaviour


def _number(name: str, text: str, default: float, maximum: float) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= maximum:
        raise BehaviourError(f"{name}={text[:40]!r} is no number between 0 and {maximum:g}")
    return value


def _truth(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise BehaviourError(f"{name}={text[:40]!r} is neither true nor false")
    return text == "true"
