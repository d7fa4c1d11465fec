"""Entry point of ``kubectl canary`` (kubectl runs the program ``kubectl-canary`` that it finds on PATH)."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from canary_rollout import __version__
from canary_rollout.cli.errors import Exit, explain
from canary_rollout.cli.options import target_options
from canary_rollout.errors import CanaryRolloutError

COMPLETE_VARIABLE: Final = "_KUBECTL_CANARY_COMPLETE"
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "status": ("show:status", "Where a rollout is, why, and what happens next."),
    "list": ("show:list_", "All rollouts of a namespace, or of all with -A."),
    "versions": ("versions:versions", "Stable and canary side by side: share, requests, errors, latency."),
    "start": ("start:start", "Roll a new image out."),
    "set-weight": ("verbs:set_weight", "Send this share of the traffic to the canary."),
    "pause": ("verbs:pause", "Hold the weight until somebody says resume."),
    "resume": ("verbs:resume", "Go on after a pause."),
    "approve": ("verbs:approve", "Say yes to the stage that waits for approval."),
    "promote": ("verbs:promote", "Go to the next stage now; --full: to 100 % at once."),
    "rollback": ("verbs:rollback", "Take all traffic off the canary now, and stay there."),
    "retry": ("verbs:retry", "Try a revision again that was stopped."),
    "reset": ("verbs:reset", "Forget the evidence so far and judge anew."),
    "validate": ("validate:validate", "Look at manifests without a cluster: every problem with its line."),
    "presets": ("presets:presets", "Ready-made measures, where each is found, and its PromQL."),
    "replay": ("replay:replay", "Recorded scrapes through the comparison: what would it have said, and when?"),
    "cohort": ("cohort:cohort", "Which tenants a stage will include, before it does."),
    "plan": ("plan:plan", "What a rollout will see and can find out, stage by stage."),
    "backtest": (
        "backtest:backtest",
        "What would have happened: the past from Prometheus through the same engine.",
    ),
    "check": ("check:check", "Every gate and rule of a stage evaluated now, with the numbers; for CI."),
    "health": ("health:health", "Live numbers of both versions, rules, trend and anomalies."),
    "diff": ("diff:diff", "The same requests to both versions: what do their answers differ in?"),
    "demo": ("demo:demo", "Watch a good and a bad release on this machine, without a cluster."),
    "completion": ("completion:completion", "Print a completion script."),
    "__complete": ("completion:complete", ""),
}
"""Command: where it is (module of this package, attribute) and its line in ``--help``; hidden without a line."""
SECTIONS: Final = (
    ("Seeing", ("status", "list", "versions", "check", "health")),
    (
        "Commanding",
        ("start", "set-weight", "pause", "resume", "approve", "promote", "rollback", "retry", "reset"),
    ),
    ("Looking before you leap", ("validate", "plan", "backtest", "cohort", "diff", "presets", "replay")),
    ("More", ("demo", "completion")),
)
"""How ``--help`` groups them."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order a person needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"canary_rollout.cli.{module}"), attribute)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Also names the commands that come close to a mistyped one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f'there is no command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The table of commands, without importing them."""
        width = max(map(len, COMMANDS)) + 2
        for title, names in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width - 2), COMMANDS[name][1]) for name in names])

    def main(  # type: ignore[override]  # click overloads main by standalone_mode; this one always ends the process
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - click's signature
        **extra: Any,
    ) -> None:
        """Run and end the process with an exit code of :class:`Exit`; errors are one sentence on stderr."""
        try:
            code = super().main(args, prog_name, complete_var or COMPLETE_VARIABLE, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            code = Exit.USAGE
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "kubectl canary"
            click.echo(f"error: {error.format_message()}\nSee `{where} --help`.", err=True)
            code = Exit.USAGE
        except click.ClickException as error:
            click.echo(f"error: {error.format_message()}", err=True)
            code = Exit.REFUSED
        except click.Abort:
            code = Exit.INTERRUPTED
        except CanaryRolloutError as error:
            sentence, code = explain(error)
            click.echo(f"error: {sentence}", err=True)
        sys.exit(int(code) if isinstance(code, int) else 0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@target_options
@click.version_option(__version__, prog_name="kubectl-canary", message="%(prog)s %(version)s")
def cli() -> None:
    """See what a CanaryRollout does, and tell it what to do.

    Every command that changes something writes one annotation and waits for the operator's answer.
    In a hurry: `status NAME` says why it does not move or was taken back, `rollback NAME` takes all traffic off it.
    """


def main() -> None:
    """Run; the process ends with an exit code of :class:`canary_rollout.cli.errors.Exit`."""
    cli.main(prog_name="kubectl canary")
