"""Options and arguments that many commands share."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from canary_rollout.cli.session import WAIT, session_of

if TYPE_CHECKING:
    from canary_rollout.metrics.presets import Presets

Command = TypeVar("Command", bound=Callable[..., Any])


def _store(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Put a global option where the session reads it; the one nearest to the end of the line wins."""
    if value is not None and param.name is not None:
        setattr(session_of(ctx).target, param.name, value)


def target_options(command: Command) -> Command:
    """``--kubeconfig``, ``--context``, ``-n``: on the group and again on every command, as kubectl takes them anywhere."""
    for decorate in (
        click.option("--kubeconfig", metavar="FILE", expose_value=False, callback=_store, help="The kubeconfig file."),
        click.option(
            "--context", metavar="NAME", expose_value=False, callback=_store, help="The kubeconfig's context to use."
        ),
        click.option(
            "--namespace",
            "-n",
            metavar="NAME",
            expose_value=False,
            callback=_store,
            help="The namespace; default: the context's.",
        ),
    ):
        command = decorate(command)
    return command


def _wait(ctx: click.Context, _param: click.Parameter, value: float | bool | None) -> None:
    """``--wait 30`` or ``--no-wait``, whichever comes last."""
    if value is not None and value is not False:
        session_of(ctx).wait = 0.0 if value is True else value


def wait_options(command: Command) -> Command:
    """``--wait SECONDS`` and ``--no-wait``."""
    for decorate in (
        click.option(
            "--wait",
            type=click.FloatRange(0, 3600),
            metavar="SECONDS",
            expose_value=False,
            callback=_wait,
            help=f"How long to wait for the operator's answer; default {WAIT:g}.",
        ),
        click.option("--no-wait", is_flag=True, expose_value=False, callback=_wait, help="Send it and do not wait."),
    ):
        command = decorate(command)
    return command


def rollout_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Completes the name of a rollout from the cluster."""
    from canary_rollout.cli import completion

    return completion.rollout_names(session_of(ctx), incomplete)


def name_argument(command: Command) -> Command:
    """The CanaryRollout's name."""
    return click.argument("name", shell_complete=rollout_names)(command)


def output_option(command: Command) -> Command:
    """``-o json|yaml``."""
    kinds = click.Choice(["json", "yaml"])
    return click.option("--output", "-o", type=kinds, help="Print data for programs instead of text.")(command)


class WeightType(click.ParamType[str]):
    """A share of the traffic such as ``0.5%``; the sign is required, because a bare 10 could be basis points."""

    name = "weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The weight in its shortest form; refuses what no router can express."""
        from canary_rollout.model.units import UnitError, format_weight, parse_weight

        try:
            return format_weight(parse_weight(value))
        except UnitError as error:
            self.fail(_bare(value) or str(error), param, ctx)


def _bare(value: str) -> str:
    """The question to ask about a number without a sign; empty when ``value`` is none."""
    from canary_rollout.model.units import format_weight

    digits = value.strip()
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > 6:
        return ""
    readings = [f'"{digits}%" for {digits} per cent of the traffic'] if float(digits) <= 100 else []
    if digits.isdigit() and int(digits) <= 10_000:
        readings.append(f'"{format_weight(int(digits))}" for {digits} basis points')
    return f'weight "{value}" has no unit: write {" or ".join(readings)}' if readings else ""


WEIGHT = WeightType()


class DurationType(click.ParamType[str]):
    """A duration such as ``90s`` or ``1h30m``; handed on as it was written."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same text, once it is known to parse."""
        from canary_rollout.model.units import UnitError, parse_duration

        try:
            parse_duration(value)
        except UnitError as error:
            self.fail(str(error), param, ctx)
        return str(value)


DURATION = DurationType()


class ShareType(click.ParamType[float]):
    """A share such as ``0.5%`` or ``0.005``; 0..1 inside."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share as a number 0..1."""
        if isinstance(value, float):
            return value
        from canary_rollout.model.units import UnitError, parse_number

        try:
            share = parse_number(value)
        except UnitError as error:
            self.fail(str(error), param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{value} is no share: write 0 to 1, or 0% to 100%", param, ctx)
        return share


SHARE = ShareType()


def own_presets(files: "Iterable[str]") -> "list[Presets]":
    """Preset sets of the user's own, ready to be asked.

    Raises:
        CliError: a file cannot be read, or is no preset set.
    """
    from pathlib import Path

    from canary_rollout.cli.errors import CliError, Exit
    from canary_rollout.metrics.errors import PresetError
    from canary_rollout.metrics.presets import prepare, read

    found = []
    for file in files:
        try:
            found.append(prepare(read(Path(file).read_text(encoding="utf-8"), file)))
        except PresetError as error:
            raise CliError(str(error), Exit.USAGE) from error
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"{file} cannot be read: {error}", Exit.USAGE) from error
    return found


def prometheus_options(command: Command) -> Command:
    """Which Prometheus to ask, and with which credentials."""
    for decorate in (
        click.option("--prometheus", metavar="URL", help="Ask this Prometheus instead of the one in the spec."),
        click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with every query."),
        click.option("--bearer-token-file", metavar="FILE", help="Send the token in this file."),
        click.option("--ca-file", metavar="FILE", help="Trust these authorities instead of the system's."),
        click.option("--insecure", is_flag=True, help="Take any certificate."),
        click.option("--presets", multiple=True, metavar="FILE", help="Presets of your own (a YAML file)."),
    ):
        command = decorate(command)
    return command


def point_in_time(text: str, now: float, option: str) -> float:
    """POSIX seconds of ``2026-11-21T10:00:00Z``, ``now``, or so long ago, as in ``24h``.

    Raises:
        click.UsageError: it is none of these.
    """
    from canary_rollout.model.units import UnitError, parse_duration, parse_instant

    if text == "now":
        return now
    try:
        return now - parse_duration(text.removesuffix(" ago"))
    except UnitError:
        pass
    try:
        return parse_instant(text)
    except UnitError as error:
        raise click.UsageError(f"{option}: {error}; or how long ago, as in 24h") from error
