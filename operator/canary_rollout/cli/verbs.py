"""The commands that people send about the present revision."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from canary_rollout.cli.errors import CliError
from canary_rollout.cli.options import WEIGHT, name_argument, target_options, wait_options
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from canary_rollout.model.commands import CommandArgs

Command = TypeVar("Command", bound=Callable[..., Any])


def reason_option(command: Command) -> Command:
    """``--reason TEXT``, kept in status and events."""
    return click.option("--reason", default="", metavar="TEXT", help="Why; kept in status and events.")(command)


def arguments(**given: Any) -> "CommandArgs":
    """The command's arguments, checked.

    Raises:
        click.UsageError: the reason is too long or not one line.
    """
    from pydantic import ValidationError

    from canary_rollout.model.commands import CommandArgs

    try:
        return CommandArgs.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(str(part) for part in first["loc"])
        raise click.UsageError(
            f"{where} {str(first['input'])[:60]!r} cannot be sent: {first['msg']}; write at most 256 characters in one line"
        ) from error


def send(session: Session, name: str, verb: str, args: "CommandArgs") -> int:
    """Send ``verb`` and report the answer; the exit code."""

    async def work(connection: Connection) -> int:
        from canary_rollout.cli.send import Sending
        from canary_rollout.model.commands import Verb

        return await Sending(connection, session.tools, session.wait).verb(name, Verb(verb), args)

    return session.run(work)


def _simple(verb: str, short: str, text: str) -> click.Command:
    """A command without arguments of its own."""

    @click.command(verb, short_help=short, help=text)
    @name_argument
    @wait_options
    @target_options
    @click.pass_context
    def command(ctx: click.Context, name: str) -> int:
        return send(session_of(ctx), name, verb, arguments())

    return command


def _reasoned(verb: str, short: str, text: str) -> click.Command:
    """A command that takes a reason."""

    @click.command(verb, short_help=short, help=text)
    @name_argument
    @reason_option
    @wait_options
    @target_options
    @click.pass_context
    def command(ctx: click.Context, name: str, reason: str) -> int:
        return send(session_of(ctx), name, verb, arguments(reason=reason))

    return command


pause = _reasoned(
    "pause",
    "Hold the weight until somebody says resume.",
    "Hold rollout NAME at its present weight until `resume`. Halt rules keep watching and still roll back.",
)
resume = _simple(
    "resume",
    "Go on after a pause.",
    "Let rollout NAME go on after a pause: one by command, by a rule, or for want of data. "
    "The stage's clock goes on from where it stood.",
)
approve = _simple(
    "approve",
    "Say yes to the stage that waits for approval.",
    "Approve the stage that rollout NAME waits to begin. The approval is for this revision and this stage, and expires "
    "after a day.",
)
rollback = _reasoned(
    "rollback",
    "Take all traffic off the canary now, and stay there.",
    "Take all traffic off the canary of rollout NAME at once. Requests under way end where they began. "
    "The revision stays at 0 % until `retry`.",
)
retry = _simple(
    "retry",
    "Try a revision again that was stopped.",
    "Lift what stopped the revision of rollout NAME and begin again with the first stage.",
)
reset = _simple(
    "reset",
    "Forget the evidence so far and judge anew.",
    "Forget what the rules of rollout NAME have seen so far. The weight stays; verdicts rest on new samples only.",
)


@click.command("set-weight", short_help="Send this share of the traffic to the canary.")
@name_argument
@click.argument("weight", type=WEIGHT)
@wait_options
@target_options
@click.pass_context
def set_weight(ctx: click.Context, name: str, weight: str) -> int:
    """Send WEIGHT of the traffic, such as 10% or 0.5%, to the canary of rollout NAME, and pause there.

    The smallest step is 0.01%. Raising a revision that was stopped is refused: `retry` lifts the stop first.
    """
    return send(session_of(ctx), name, "set-weight", arguments(weight=weight))


@click.command(short_help="Go to the next stage now; --full: to 100 % at once.")
@name_argument
@click.option("--full", is_flag=True, help="To 100 % at once; asks for the rollout's name.")
@click.option("--yes", "-y", is_flag=True, help="With --full: do not ask.")
@wait_options
@target_options
@click.pass_context
def promote(ctx: click.Context, name: str, full: bool, yes: bool) -> int:
    """End the present stage of rollout NAME now and go to the next one.

    With --full the canary gets all traffic at once: no stage limits the harm any more, though halt rules keep watching.
    """
    session = session_of(ctx)
    if yes and not full:
        raise click.UsageError("--yes answers the question of --full; a plain promote asks none, so leave it out")
    if full and not yes:
        _confirm(session, name)
    return send(session, name, "promote", arguments(full=full))


def _confirm(session: Session, name: str) -> None:
    """Have the name typed.

    Raises:
        CliError: it was not, or nobody can be asked.
    """
    if not session.tools.interactive():
        raise CliError(
            f"promote --full gives the canary of {name} all traffic at once and there is nobody to ask: add --yes"
        )
    click.echo(f"This gives the canary of {name} all traffic at once, past every stage that is left.", err=True)
    typed = click.prompt("Type the rollout's name to go on", default="", show_default=False, err=True)
    if typed.strip() != name:
        raise CliError(f'"{typed}" is not "{name}": nothing was sent')
