"""``demo``: hands over to the local room, which is imported only here, by name (the operator never imports it)."""

import importlib

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Watch a good and a bad release on this machine, without a cluster.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> int:
    """Start a Kubernetes on this machine and watch a good and a bad release; all ARGUMENTS go to the demo."""
    main = importlib.import_module("canary_rollout.local.demo").main
    return int(main(list(arguments)) or 0)
