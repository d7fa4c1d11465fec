"""Shell completion: of ``kubectl canary`` through kubectl's plugin convention, and of the program under its own name."""

import os
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from canary_rollout.cli.session import Connection, Session
from canary_rollout.errors import CanaryRolloutError

PLUGIN: Final = """#!/bin/sh
# kubectl runs this program to complete `kubectl canary …`. Save it as kubectl_complete-canary on your PATH, executable.
exec kubectl-canary __complete "$@"
"""
_NO_FILES: Final = ":4"
"""cobra's directive "do not offer files instead", which kubectl reads from the last line."""


_HELP: Final = """Print the script that completes this program.

\b
For kubectl's own completion, which then completes `kubectl canary` too:
  kubectl canary completion > ~/.local/bin/kubectl_complete-canary
  chmod +x ~/.local/bin/kubectl_complete-canary

With bash, zsh or fish: the script for the program under its own name, kubectl-canary.
"""


@click.command(short_help="Print a completion script.", help=_HELP)
@click.argument("shell", type=click.Choice(["kubectl", "bash", "zsh", "fish"]), default="kubectl")
def completion(shell: str) -> None:
    """Print the script."""
    if shell == "kubectl":
        click.echo(PLUGIN, nl=False)
        return
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f'no completion for "{shell}": write bash, zsh or fish')
    from canary_rollout.cli.main import COMPLETE_VARIABLE, cli

    click.echo(found(cli, {}, "kubectl-canary", COMPLETE_VARIABLE).source())


@click.command(
    "__complete",
    hidden=True,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def complete(session: Session, words: tuple[str, ...]) -> None:
    """What could follow WORDS, the last of which is still being written; a line each, as kubectl reads it."""
    from canary_rollout.cli.main import cli

    *before, incomplete = words or ("",)
    shell = ShellComplete(cli, {"obj": session}, "kubectl canary", "")
    for item in shell.get_completions(before, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(_NO_FILES)


def rollout_names(session: Session, incomplete: str) -> list[str]:
    """Names of rollouts that begin with ``incomplete``; none when the cluster cannot be asked (a TAB must not fail)."""
    names: list[str] = []

    async def ask(connection: Connection) -> None:
        from canary_rollout.cli.find import list_rollouts

        names.extend(found["metadata"]["name"] for found in await list_rollouts(connection, everywhere=False))

    try:
        session.run(ask)
    except CanaryRolloutError as error:
        if "CANARY_COMPLETION_DEBUG" in os.environ:
            click.echo(f"completion: {error}", err=True)
    return [name for name in names if name.startswith(incomplete)]
