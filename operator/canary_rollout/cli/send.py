"""Sends a command (design invariant 11): one annotation, then the operator's answer out of status."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.find import get_rollout
from canary_rollout.cli.session import OPERATOR_PODS, Connection, Tools
from canary_rollout.cli.view import clean
from canary_rollout.kube.port import CANARY_ROLLOUTS, ApiError, Object, Resource, UnavailableError
from canary_rollout.model.commands import Command, CommandArgs, Verb

MANAGER: Final = "kubectl-canary"
"""Field manager of everything this program writes."""
_POLL: Final = 0.2
_SELF: Final = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)


@dataclass(frozen=True, slots=True)
class Sending:
    """How to send: the way to the cluster, and how long to wait for the answer (0: not at all)."""

    connection: Connection
    tools: Tools
    wait: float

    async def verb(self, name: str, verb: Verb, args: CommandArgs) -> int:
        """Send one command about the present revision and wait; the exit code."""
        command = await self.build(verb, revision_of_status(name, await get_rollout(self.connection, name)), args)
        await self.write(name, command)
        return await self.answer(name, command)

    async def build(self, verb: Verb, revision: str, args: CommandArgs) -> Command:
        """A command with an id of its own."""
        # Instants go in as RFC 3339; the model reads them as it will read the annotation.
        from canary_rollout.model.units import format_instant

        return Command.model_validate(
            {
                "verb": verb,
                "id": uuid.uuid4().hex,
                "revision": revision,
                "at": format_instant(self.tools.now()),
                "by": await self._user(),
                "args": args,
            }
        )

    async def write(self, name: str, command: Command) -> None:
        """Put the annotation on the CanaryRollout."""
        key, value = command.annotation()
        await self.annotate(name, {key: value})

    async def annotate(self, name: str, annotations: dict[str, str | None]) -> None:
        """Merge annotations; ``None`` takes one away."""
        body: Object = {"metadata": {"annotations": annotations}}
        await self.connection.api.merge_patch(CANARY_ROLLOUTS, self.connection.namespace, name, body, manager=MANAGER)

    async def answer(self, name: str, command: Command) -> int:
        """Wait until the command is consumed and print what became of it; the exit code."""
        if self.wait <= 0:
            click.echo(f"{command.verb} sent to {name}; `kubectl canary status {name}` shows what becomes of it")
            return Exit.OK
        status = await self.until(name, lambda status: status.get("consumed", {}).get(command.verb) == command.id)
        if status is None:
            raise CliError(
                f"the operator did not answer {command.verb} within {self.wait:g} s; the command stays on {name} and "
                f"counts for a day once an operator reads it; see whether one runs (`{OPERATOR_PODS}`), then `kubectl canary status {name}`",
                Exit.UNREACHABLE,
            )
        return _report(name, command, status.get("lastCommand") or {})

    async def until(self, name: str, done: Callable[[Object], bool]) -> Object | None:
        """Read the status until ``done(status)``; ``None`` when the wait is over first.

        An API server that is away for a moment does not end the wait.
        """
        deadline = self.tools.now() + self.wait
        while True:
            try:
                status = (await get_rollout(self.connection, name)).get("status") or {}
            except UnavailableError:
                if self.tools.now() >= deadline:
                    raise
                status = {}
            if done(status):
                return status
            if self.tools.now() >= deadline:
                return None
            await self.tools.sleep(_POLL)

    async def _user(self) -> str:
        """Who the API server takes us for; empty when it does not say. Only for people to read."""
        try:
            review = await self.connection.api.create(
                _SELF, None, {"apiVersion": _SELF.api_version, "kind": _SELF.kind}
            )
        except ApiError:
            return ""
        name = ((review.get("status") or {}).get("userInfo") or {}).get("username") or ""
        return clean(str(name))[:128]


def revision_of_status(name: str, rollout: Object) -> str:
    """The revision that a command is about: the one people see in status.

    Raises:
        CliError: there is none yet.
    """
    status = rollout.get("status") or {}
    revision = (status.get("rollout") or {}).get("revision") or status.get("revision") or ""
    if not revision:
        raise CliError(
            f"{name} has no rollout yet, so there is nothing to command; "
            f"`kubectl canary start {name} --image IMAGE` starts one, `kubectl canary status {name}` shows what it waits for"
        )
    return str(revision)


def _report(name: str, command: Command, last: Object) -> int:
    """Print the operator's answer; the exit code."""
    if last.get("id") != command.id:
        # Somebody's next command was consumed between two of our looks.
        click.echo(f"{command.verb} was taken up; `kubectl canary status {name}` shows what became of it")
        return Exit.OK
    message = clean(str(last.get("message") or "")) or "no reason given"
    if not last.get("accepted"):
        click.echo(f"{command.verb} refused: {message}", err=True)
        return Exit.REFUSED
    click.echo(f"{command.verb} accepted: {message}")
    return Exit.OK
