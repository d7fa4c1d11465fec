"""What a CanaryRollout says, made ready for people and for programs. Pure: an object and the time in, plain values out.

Reads the object field by field instead of through the model, so that it also shows what a newer operator wrote.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic.alias_generators import to_camel

from canary_rollout.cli.session import OPERATOR_PODS
from canary_rollout.kube.port import Object
from canary_rollout.model.commands import EXPIRES_AFTER, read_commands
from canary_rollout.model.conditions import Phase
from canary_rollout.model.units import (
    UnitError,
    format_duration,
    format_instant,
    parse_duration,
    parse_instant,
    parse_weight,
)

UNSEEN: Final = f"no operator has looked at this yet; see whether one runs: `{OPERATOR_PODS}`"
_STOPPED: Final = frozenset({Phase.HALTED, Phase.ROLLING_BACK, Phase.ROLLED_BACK})
_AT_REST: Final = frozenset({Phase.IDLE, Phase.SUCCEEDED})
_MINUTE: Final = 60.0
_OVERDUE: Final = 60.0
"""Seconds after which a change that has not come is worth a question."""
_SILENT: Final = 660.0
"""Seconds without fresher numbers: the operator writes them every five minutes while a revision is under way."""


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage.

    Attributes:
        state: ``done``, ``now``, ``stopped`` (ended here), ``ahead`` or ``off`` (passed over).
        held: seconds the weight has been held in this stage; ``None`` unless it is the present one.
        notes: cohort, gates and approval, in words.
    """

    name: str
    weight: str
    hold: str
    state: str
    held: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One rule's last word: ``pass``, ``fail`` or ``none`` with the reason why there is none."""

    rule: str
    verdict: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StopView:
    """A halt or a pause: why the weight does not rise. ``stage`` and ``weight`` are empty for a pause."""

    reason: str
    rule: str
    message: str
    at: str
    stage: str = ""
    weight: str = ""


@dataclass(frozen=True, slots=True)
class ConditionView:
    """One entry of ``status.conditions``."""

    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class CommandView:
    """The last command that the operator took up."""

    command: str
    accepted: bool
    message: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class WaitingView:
    """A command that was sent and that no operator has taken up yet."""

    command: str
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class HistoryView:
    """How one earlier revision ended."""

    revision: str
    result: str
    reason: str
    message: str
    ended_at: str


@dataclass(frozen=True, slots=True)
class RolloutView:
    """Everything ``status`` shows. Weights as ``"5%"``, instants as RFC 3339, both empty when unknown.

    Attributes:
        doubt: why it seems that no operator looks at this now; empty when nothing points to that.
    """

    namespace: str
    name: str
    created_at: str
    phase: str
    message: str
    stage: str
    weight: str
    confirmed_weight: str
    revision: str
    stable_revision: str
    router: str
    next_change: str
    outdated: bool
    stages: tuple[StageView, ...]
    verdicts: tuple[VerdictView, ...]
    inactive_rules: tuple[str, ...]
    halt: StopView | None
    pause: StopView | None
    conditions: tuple[ConditionView, ...]
    last_command: CommandView | None
    waiting_commands: tuple[WaitingView, ...]
    doubt: str
    history: tuple[HistoryView, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``-o json``: camelCase keys, absent instead of null."""
        shaped: dict[str, Any] = _camel(asdict(self))
        return shaped


def view_of(rollout: Object, now: float) -> RolloutView:
    """The view of one CanaryRollout at ``now`` (POSIX seconds)."""
    metadata, spec, status = (_mapping(rollout.get(part)) for part in ("metadata", "spec", "status"))
    memory = _mapping(status.get("rollout"))
    seen, generation = status.get("observedGeneration", 0), metadata.get("generation", 0)
    return RolloutView(
        namespace=_text(metadata, "namespace"),
        name=_text(metadata, "name"),
        created_at=_text(metadata, "creationTimestamp"),
        phase=_text(status, "phase") or "Unknown",
        message=_text(status, "message") or ("" if status else UNSEEN),
        stage=_text(status, "stage"),
        weight=_text(status, "weight") or "0%",
        confirmed_weight=_text(memory, "confirmed") or "0%",
        revision=_text(status, "revision"),
        stable_revision=_text(memory, "stableRevision"),
        router=_text(status, "router"),
        next_change=_text(status, "nextChange"),
        outdated=bool(status) and isinstance(seen, int) and isinstance(generation, int) and seen < generation,
        stages=_stages(spec, status, now),
        verdicts=tuple(
            VerdictView(*(_text(entry, key) for key in ("rule", "verdict", "reason", "message")))
            for entry in _mappings(status.get("verdicts"))
        ),
        inactive_rules=tuple(clean(str(rule)) for rule in status.get("inactiveRules") or ()),
        halt=_stop(status.get("halt")),
        pause=_stop(memory.get("pause")),
        conditions=tuple(
            ConditionView(*(_text(entry, key) for key in ("type", "status", "reason", "message", "lastTransitionTime")))
            for entry in _mappings(status.get("conditions"))
        ),
        last_command=_command(status.get("lastCommand")),
        waiting_commands=_waiting(_mapping(metadata.get("annotations")), status, now),
        doubt=_doubt(status, now),
        history=tuple(
            HistoryView(*(_text(entry, key) for key in ("revision", "result", "reason", "message", "endedAt")))
            for entry in _mappings(status.get("history"))
        ),
    )


def serves_nothing(phase: str) -> bool:
    """Whether a canary in this phase gets no traffic, and will not get any before somebody does something."""
    return phase in _STOPPED or phase in _AT_REST


def clean(text: str) -> str:
    """``text`` without control characters: what stands in an object must not drive the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def ago(instant: str, now: float) -> str:
    """``"3h12m ago"``; empty when the instant is unknown."""
    at = instant_of(instant)
    return "" if at is None else f"{about(max(0.0, now - at))} ago"


def about(seconds: float) -> str:
    """A duration for people: seconds below an hour, minutes below two days, else hours."""
    fine = 1.0 if seconds < 60 * _MINUTE else _MINUTE if seconds < 48 * 60 * _MINUTE else 60 * _MINUTE
    return format_duration(seconds // fine * fine)


def instant_of(text: str) -> float | None:
    """POSIX seconds, or ``None`` when there is no readable instant."""
    try:
        return parse_instant(text) if text else None
    except UnitError:
        return None


def share_of(weight: str) -> float:
    """0..1 of a weight such as ``"5%"``; 0 when it cannot be read."""
    try:
        return parse_weight(weight) / 10_000
    except UnitError:
        return 0.0


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as ``"1h"``; 0 when it cannot be read."""
    try:
        return parse_duration(duration)
    except UnitError:
        return 0.0


def _stages(spec: Object, status: Object, now: float) -> tuple[StageView, ...]:
    memory = _mapping(status.get("rollout"))
    stages = _mappings(memory.get("override")) or _mappings(spec.get("stages"))
    phase = _text(status, "phase")
    halted = _mapping(status.get("halt")) if phase in _STOPPED else {}
    current = _text(halted, "stage") or _text(memory, "stage")
    names = [_text(stage, "name") for stage in stages]
    place = names.index(current) if current in names and phase not in _AT_REST else -1
    return tuple(
        StageView(
            name=names[index],
            weight=_text(stage, "weight"),
            hold=_text(stage, "hold"),
            state=_state(index, place, phase, enabled=stage.get("enabled") is not False),
            held=_held(memory, now) if index == place and phase not in _STOPPED else None,
            notes=_notes(stage),
        )
        for index, stage in enumerate(stages)
    )


def _state(index: int, place: int, phase: str, *, enabled: bool) -> str:
    if not enabled:
        return "off"
    if phase == Phase.SUCCEEDED:
        return "done"
    if index == place:
        return "stopped" if phase in _STOPPED else "now"
    return "done" if index < place else "ahead"


def _held(memory: Object, now: float) -> float:
    """Seconds the present weight has been held."""
    clock = _mapping(memory.get("clock"))
    before = clock.get("heldMs")
    since = instant_of(_text(clock, "since"))
    running = max(0.0, now - since) if since is not None else 0.0
    return (before / 1000 if isinstance(before, int) else 0.0) + running


def _notes(stage: Object) -> tuple[str, ...]:
    notes = []
    cohort = _mapping(stage.get("cohort"))
    if cohort:
        notes.append(_cohort(cohort))
    listed = (("entry", "entry gate"), ("exit", "exit gate"), ("haltRules", "own halt rule"))
    counts = [(len(_mappings(stage.get(key))), word) for key, word in listed]
    notes += [f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count]
    if mirror := _text(stage, "mirror"):
        notes.append(f"copies of {mirror}")
    if stage.get("approval"):
        notes.append("needs approval")
    return tuple(notes)


def _cohort(cohort: Object) -> str:
    """Who is in it: values, prefixes, the pattern, regions with their weights."""
    told = [clean(str(value)) for value in cohort.get("values") or ()]
    told += [f"{clean(str(prefix))}*" for prefix in cohort.get("prefixes") or ()]
    told += [pattern] if (pattern := _text(cohort, "pattern")) else []
    parts = []
    if told:
        parts.append(f"cohort {_text(cohort, 'header') or 'cookie ' + _text(cohort, 'cookie')}: {', '.join(told)}")
    regions = _mapping(cohort.get("regions"))
    weights = ", ".join(f"{_text(one, 'value')} {_text(one, 'weight')}" for one in _mappings(regions.get("weights")))
    if weights:
        parts.append(f"regions {_text(regions, 'header')}: {weights}")
    return ", ".join(parts) or "a cohort"


def _stop(raw: Any) -> StopView | None:
    entry = _mapping(raw)
    if not entry:
        return None
    return StopView(*(_text(entry, key) for key in ("reason", "rule", "message", "at", "stage", "weight")))


def _command(raw: Any) -> CommandView | None:
    entry = _mapping(raw)
    if not entry:
        return None
    return CommandView(
        command=_text(entry, "command"),
        accepted=entry.get("accepted") is True,
        message=_text(entry, "message"),
        by=_text(entry, "by"),
        at=_text(entry, "at"),
    )


def _waiting(annotations: Object, status: Object, now: float) -> tuple[WaitingView, ...]:
    """Commands on the object that are still valid and whose ids no operator has recorded, oldest first."""
    consumed = _mapping(status.get("consumed"))
    heard = {*consumed.values(), *(_mapping(status.get("rollout")).get("heard") or ())}
    commands, _ = read_commands({key: str(value) for key, value in annotations.items()})
    return tuple(
        WaitingView(command.verb, clean(command.by), format_instant(command.at))
        for command in commands
        if command.id not in heard and now - command.at < EXPIRES_AFTER
    )


def _doubt(status: Object, now: float) -> str:
    """What in the status points to an operator that is not at work."""
    phase = _text(status, "phase")
    if not status or phase in _AT_REST or phase in _STOPPED:
        return ""
    due = instant_of(_text(status, "nextChange"))
    if due is not None and now - due > _OVERDUE:
        return f"what was due {about(now - due)} ago has not come"
    through = instant_of(_text(status, "evaluatedThrough"))
    if through is not None and now - through > _SILENT:
        return f"the last numbers are {about(now - through)} old"
    return ""


def _mapping(raw: Any) -> Object:
    return raw if isinstance(raw, dict) else {}


def _mappings(raw: Any) -> list[Object]:
    return [entry for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []


def _text(entry: Object, key: str) -> str:
    value = entry.get(key)
    return clean(str(value)) if value is not None else ""


def _camel(value: Any) -> Any:
    """Keys in camelCase, without what is absent."""
    if isinstance(value, dict):
        return {to_camel(key): _camel(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, (list, tuple)):
        return [_camel(entry) for entry in value]
    return value
