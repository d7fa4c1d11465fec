"""``status`` and ``list``."""

import json
from typing import TYPE_CHECKING

import click

from canary_rollout.cli.options import name_argument, output_option, target_options
from canary_rollout.cli.session import Connection, session_of

if TYPE_CHECKING:
    from canary_rollout.cli.view import RolloutView


@click.command(short_help="Where a rollout is, why, and what happens next.")
@name_argument
@click.option("--watch", "-w", is_flag=True, help="Stay, and follow every change. Ctrl-C ends it.")
@output_option
@target_options
@click.pass_context
def status(ctx: click.Context, name: str, watch: bool, output: str | None) -> int:
    """Show where rollout NAME is, why, and what happens next."""
    session = session_of(ctx)
    if watch and output:
        raise click.UsageError("--watch draws for people; for programs use `kubectl get canaryrollout NAME -w -o json`")

    async def show(connection: Connection) -> None:
        from canary_rollout.cli.find import get_rollout
        from canary_rollout.cli.view import view_of

        if watch:
            from canary_rollout.cli.follow import follow

            await follow(connection, session.tools, name)
            return
        view = view_of(await get_rollout(connection, name), session.tools.now())
        if output:
            print_data(view.to_dict(), output)
            return
        from canary_rollout.cli.render import rollout

        console = session.tools.console()
        console.print(rollout(view, session.tools.now(), console))

    return session.run(show)


@click.command("list", short_help="All rollouts of a namespace, or of all with -A.")
@click.option("--all-namespaces", "-A", "everywhere", is_flag=True, help="Of all namespaces.")
@output_option
@target_options
@click.pass_context
def list_(ctx: click.Context, everywhere: bool, output: str | None) -> int:
    """List the rollouts of the namespace."""
    session = session_of(ctx)

    async def show(connection: Connection) -> None:
        from canary_rollout.cli.find import list_rollouts
        from canary_rollout.cli.view import view_of

        now = session.tools.now()
        views = [view_of(found, now) for found in await list_rollouts(connection, everywhere=everywhere)]
        if output:
            print_data([view.to_dict() for view in views], output)
            return
        _print_table(views, connection.namespace, everywhere=everywhere)

    def _print_table(views: "list[RolloutView]", namespace: str, *, everywhere: bool) -> None:
        from canary_rollout.cli.render import table_of

        if not views:
            where = "any namespace" if everywhere else f"namespace {namespace}; -A lists those of all"
            click.echo(f"no CanaryRollout in {where}", err=True)
            return
        console = session.tools.console()
        console.print(table_of(views, session.tools.now(), console.width, everywhere=everywhere))

    return session.run(show)


def print_data(data: object, kind: str) -> None:
    """Print as JSON or YAML."""
    if kind == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
