"""``diff``: the same requests to both versions, and what their answers differ in."""

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import click

from canary_rollout.cli.errors import Exit
from canary_rollout.cli.options import SHARE, output_option, rollout_names, target_options
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from canary_rollout.cli.differ.report import Report
    from canary_rollout.cli.differ.requests import Chosen

MOST_SAMPLES: Final = 100_000


@click.command(short_help="The same requests to both versions: what do their answers differ in?")
@click.argument("name", required=False, shell_complete=rollout_names)
@click.option("--stable", metavar="URL", help="Address of stable, instead of the Service of rollout NAME.")
@click.option("--canary", metavar="URL", help="Address of the canary.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of both Services, where they have several.")
@click.option(
    "--requests", metavar="FILE", help="Requests: /path, GET /path or a JSON object on each line; - is stdin."
)
@click.option("--access-log", metavar="FILE", help="Take a sample of this access log (combined or JSON); - is stdin.")
@click.option("--path", "paths", multiple=True, metavar="/PATH", help="One request; may be repeated.")
@click.option("--samples", type=click.IntRange(1, MOST_SAMPLES), default=1000, show_default=True, help="Most requests.")
@click.option("--seed", type=int, default=0, help="Another seed is another sample of the same log.")
@click.option("--tolerance", type=SHARE, default="0.005", show_default=True, help="Numbers this close are the same.")
@click.option("--allow", type=SHARE, default="0", show_default=True, help="Share of the answers that may differ: 0.5%.")
@click.option(
    "--ignore", multiple=True, metavar="PLACE", help="Leave a place out: $.time, items[*].id, **.etag, status."
)
@click.option("--unordered", multiple=True, metavar="PLACE", help="A list whose order does not matter: $.items.")
@click.option(
    "--learn-noise", is_flag=True, help="Ask stable twice, and leave out what differs between its own answers."
)
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="Sent with every request.")
@click.option("--method", "methods", multiple=True, metavar="METHOD", help="Send these too, beside GET and HEAD.")
@click.option("--rate", type=click.FloatRange(0.1, 10_000), default=50.0, show_default=True, help="Requests a second.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests under way.")
@click.option("--timeout", type=click.FloatRange(0.1, 300), default=10.0, show_default=True, help="Seconds per answer.")
@click.option("--ca-file", metavar="FILE", help="Trust these authorities instead of the system's.")
@click.option("--insecure", is_flag=True, help="Take any certificate.")
@click.option("--report", metavar="FILE", help="Write the whole report there, as JSON.")
@click.option("--metrics-file", metavar="FILE", help="Write the result there in Prometheus' text format.")
@click.option("--push", metavar="URL", help="Push the result to this Pushgateway.")
@click.option("--revision", metavar="REV", help="Revision named in what is pushed; default: the rollout's own.")
@output_option
@target_options
@click.pass_context
def diff(ctx: click.Context, /, *, output: str | None, **given: Any) -> int:
    """Send the same requests to stable and canary, and compare what they answer.

    JSON is compared by structure and numbers with a tolerance, everything else byte by byte. By NAME the two Services
    are found (directly inside the cluster, through `kubectl port-forward` outside); --stable and --canary need no
    cluster. Only GET and HEAD are sent unless --method names others.

    Exit code 0: no more answers differ than allowed; 1: more do; 3: stable did not answer, so there is no verdict.
    """
    session = session_of(ctx)
    chosen = _requests(given)
    settings = _settings(given)
    if given["name"] is None:
        import asyncio

        if not settings["stable"] or not settings["canary"]:
            raise click.UsageError("say whom to ask: the NAME of a rollout, or both --stable URL and --canary URL")
        report = asyncio.run(_run(chosen, settings, given))
        where = (session.target.namespace or "", "", given["revision"] or "")
        return _tell(session, report, chosen, {**given, "output": output}, where)

    done: list[int] = []

    async def ask(connection: Connection) -> None:
        where = await _addresses(connection, given)
        async with _reached(session, connection, given, settings):
            report = await _run(chosen, settings, given)
        done.append(_tell(session, report, chosen, {**given, "output": output}, where))

    return session.run(ask) or done[0]


async def _addresses(connection: Connection, given: dict[str, Any]) -> tuple[str, str, str]:
    """Namespace, name and revision of the rollout; its Services are put where addresses are missing."""
    from canary_rollout.cli.find import get_rollout
    from canary_rollout.cli.view import view_of

    rollout = await get_rollout(connection, given["name"])
    for version in ("stable", "canary"):
        given[f"{version}_service"] = rollout["spec"]["workload"][version]["service"]
    return connection.namespace, given["name"], given["revision"] or view_of(rollout, 0.0).revision


@contextlib.asynccontextmanager
async def _reached(
    session: Session, connection: Connection, given: dict[str, Any], settings: dict[str, Any]
) -> "AsyncIterator[None]":
    from canary_rollout.cli.differ.services import reach

    async with contextlib.AsyncExitStack() as stack:
        for version in ("stable", "canary"):
            if not settings[version]:
                service = given[f"{version}_service"]
                way = reach(connection, session.target, service, given["port"])
                settings[version] = await stack.enter_async_context(way)
        yield


async def _run(chosen: "Chosen", settings: dict[str, Any], given: dict[str, Any]) -> "Report":
    from canary_rollout.cli.differ.compare import Rules
    from canary_rollout.cli.differ.report import summed_up
    from canary_rollout.cli.differ.run import Settings, ask_both

    rules = Rules(given["tolerance"], given["ignore"], given["unordered"])
    return summed_up(await ask_both(chosen.requests, Settings(**settings), rules), given["allow"])


def _requests(given: dict[str, Any]) -> "Chosen":
    from canary_rollout.cli.differ.requests import SAFE, Chosen, from_list, from_log, from_paths

    sources = [option for option in ("requests", "access_log", "paths") if given[option]]
    if len(sources) != 1:
        raise click.UsageError("say what to send: one of --requests FILE, --access-log FILE and --path /PATH")
    methods = SAFE | {method.upper() for method in given["methods"]}
    if given["paths"]:
        return Chosen(from_paths(given["paths"]))
    read = from_list if given["requests"] else from_log
    chosen = read(given["requests"] or given["access_log"], given["samples"], methods, given["seed"])
    if not chosen.requests:
        left_out = (
            f"; {chosen.unsafe} were left out for their method (--method POST sends them)" if chosen.unsafe else ""
        )
        raise click.UsageError(f"there is no request to send in {given[sources[0]]}{left_out}")
    return chosen


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    from canary_rollout.cli.differ.requests import check_header

    headers = {}
    for header in given["headers"]:
        name, colon, value = header.partition(":")
        try:
            check_header(name if colon else header, value.strip())
        except ValueError as error:
            raise click.UsageError(f"--header: {error}") from error
        if not colon:
            raise click.UsageError(f"--header: {name[:60]!r} is no header: write Name: value")
        headers[name] = value.strip()
    for option in ("stable", "canary", "push"):
        if given[option] and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", given[option]):
            raise click.UsageError(f"--{option}: this is no address: write http://host:port without credentials")
    return {
        "stable": given["stable"],
        "canary": given["canary"],
        "headers": headers,
        "rate": given["rate"],
        "concurrency": given["concurrency"],
        "timeout": given["timeout"],
        "noise": given["learn_noise"],
        "verify": not given["insecure"],
        "ca_file": given["ca_file"],
    }


def _tell(
    session: Session,
    report: "Report",
    chosen: "Chosen",
    given: dict[str, Any],
    where: tuple[str, str, str],
) -> int:
    """Print it, write it, push it; the exit code."""
    import json

    from canary_rollout.cli.differ.screen import draw
    from canary_rollout.cli.show import print_data

    if given["report"]:
        _write(given["report"], json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if given["metrics_file"]:
        _write(given["metrics_file"], report.to_metrics(*where))
    if given["output"]:
        print_data(report.to_dict(), given["output"])
    else:
        draw(session.tools.console(), report)
    if chosen.unsafe:
        click.echo(
            f"left out: {chosen.unsafe} requests that could change something; --method NAME sends them", err=True
        )
    if chosen.unreadable:
        click.echo(f"left out: {chosen.unreadable} lines of the log that hold no request", err=True)
    if given["push"]:
        from canary_rollout.cli.differ.push import push

        push(given["push"], report.to_metrics(*where), where)
    return {"pass": Exit.OK, "fail": Exit.REFUSED, "none": Exit.UNREACHABLE}[report.verdict]


def _write(file: str, text: str) -> None:
    from canary_rollout.cli.errors import CliError

    try:
        with click.open_file(file, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise CliError(f"{file} cannot be written: {error.strerror}", Exit.USAGE) from error
