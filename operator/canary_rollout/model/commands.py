"""Commands: annotations with a unique id, bound to a revision, consumed once (design invariant 11).

``command.canaryrollout.dev/<verb>: '{"id": "…", "revision": "…", "at": "…", "by": "…", "args": {…}}'``. One annotation per
verb, so that two different commands in quick succession both arrive. GitOps tools leave annotations alone that are not
in Git, and a replay of an old one is recognised by its id.
"""

import json
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.model.plain import parse_json
from canary_rollout.model.units import Instant

PREFIX: Final = "command.canaryrollout.dev/"
EXPIRES_AFTER: Final = 86_400.0
"""Seconds after which a command that was not consumed (and an approval not used) no longer counts."""


class Verb(StrEnum):
    """What a person can say."""

    START = "start"
    SET_WEIGHT = "set-weight"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETRY = "retry"
    RESET = "reset"


class CommandError(CanaryRolloutError):
    """An annotation that is no command; the message says which and what to write instead."""


class CommandArgs(BaseModel):
    """Arguments; which of them count depends on the verb."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Annotated[str, StringConstraints(max_length=7)] | None = Field(None, description="start, set-weight.")
    stages: tuple[Annotated[str, StringConstraints(max_length=7)], ...] = Field((), max_length=32)
    interval: Annotated[str, StringConstraints(max_length=24)] | None = Field(
        None, description="start: hold of each stage."
    )
    full: bool = Field(default=False, description="promote: to 100 % at once.")
    reason: Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*\z")] = ""


class Command(BaseModel):
    """One command as read from an annotation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verb: Verb
    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{8,64}\z")]
    revision: Annotated[str, StringConstraints(pattern=r"^[a-f0-9]{10}\z")]
    at: Instant
    by: Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\z")] = ""
    args: CommandArgs = Field(default_factory=CommandArgs)

    def annotation(self) -> tuple[str, str]:
        """Key and value of the annotation."""
        body = self.model_dump(mode="json", exclude={"verb"}, exclude_defaults=True)
        return PREFIX + self.verb, json.dumps(body, sort_keys=True)


def read_commands(annotations: dict[str, str]) -> tuple[list[Command], list[CommandError]]:
    """All commands among ``annotations``, oldest first, and what could not be read as one."""
    commands: list[Command] = []
    errors: list[CommandError] = []
    for key, value in annotations.items():
        if not key.startswith(PREFIX):
            continue
        try:
            commands.append(_read(key.removeprefix(PREFIX), value))
        except (ValidationError, ValueError, TypeError) as error:
            errors.append(
                CommandError(
                    f"annotation {key[:80]} is no command ({_why(error)[:160]}); send it with `kubectl canary`, or see docs/commands.md"
                )
            )
    return sorted(commands, key=lambda command: (command.at, command.id)), errors


def _read(verb: str, value: str) -> Command:
    body = parse_json(value)
    if not isinstance(body, dict):
        raise TypeError("its value is no JSON object")
    return Command.model_validate({**body, "verb": verb})


def _why(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
