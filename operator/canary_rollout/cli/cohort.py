"""``cohort``: which tenants a stage will include, before it does."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from canary_rollout.cli.options import output_option, rollout_names, target_options
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from canary_rollout.cli.membership import StageShare, Tenant
    from canary_rollout.kube.port import Object
    from canary_rollout.model.spec import CanaryRolloutSpec, Sticky


@dataclass(frozen=True, slots=True)
class Asked:
    """The rollout that is asked about."""

    namespace: str
    name: str
    revision: str
    spec: "CanaryRolloutSpec"


@click.command(short_help="Which tenants a stage will include, before it does.")
@click.argument("words", nargs=-1, metavar="[NAME] [TENANT…]", shell_complete=rollout_names)
@click.option(
    "--file", "-f", metavar="FILE", help="The manifest, instead of a rollout in the cluster; needs --revision."
)
@click.option(
    "--revision", metavar="REV", help="The revision to be rolled out; default: the one under way, or the canary's."
)
@click.option("--stage", metavar="NAME", help="List this stage's tenants; default: the stage each tenant joins in.")
@click.option(
    "--tenants-file",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Tenants, one a line, perhaps with a comma and how many requests each sends; - is standard input.",
)
@click.option("--names", is_flag=True, help="Print the names alone, one a line, for other programs.")
@output_option
@target_options
@click.pass_context
def cohort(  # noqa: PLR0913, PLR0917 - click hands over what the command line takes
    ctx: click.Context,
    words: tuple[str, ...],
    file: str | None,
    revision: str | None,
    stage: str | None,
    tenants_file: str | None,
    names: bool,
    output: str | None,
) -> int:
    """Show which tenants the stages of rollout NAME (or of the manifest FILE) will include.

    The same hash is computed as in the data plane. It depends on the revision, so that nobody is always the first to be
    hit, and within one revision nobody leaves the canary as the weight rises.
    """
    session = session_of(ctx)
    if file is None:
        if not words:
            raise click.UsageError("say which rollout: its NAME, or -f FILE")
        name, *tenants = words
    else:
        name, tenants = "", list(words)

    def show(asked: Asked) -> None:
        from canary_rollout.cli.membership import place
        from canary_rollout.traffic.nginx.hashing import salt_of

        sticky = _sticky(asked)
        if stage is not None and stage not in [known.name for known in asked.spec.active_stages]:
            known_names = ", ".join(known.name for known in asked.spec.active_stages)
            raise click.UsageError(f"there is no stage {stage}: there are {known_names}")
        listed, requests = _tenants(tenants, tenants_file)
        salt = salt_of(asked.namespace, asked.name, asked.revision)
        found, shares = place(asked.spec, sticky, salt, listed, requests)
        chosen = [tenant for tenant in found if stage is None or stage in tenant.stages]
        if names:
            for tenant in chosen:
                click.echo(tenant.name)
        elif output:
            from canary_rollout.cli.show import print_data

            print_data(_data(asked, chosen, shares), output)
        else:
            _print(session, asked, sticky, stage, chosen, shares)

    if file is not None:
        show(_from_file(file, revision, session.target.namespace))
        return 0

    async def ask(connection: Connection) -> None:
        show(await _from_cluster(connection, name, revision))

    return session.run(ask)


def _from_file(file: str, revision: str | None, namespace: str | None) -> Asked:
    from canary_rollout.cli.manifest import one_rollout
    from canary_rollout.cli.offline import spec_of

    if revision is None:
        raise click.UsageError(
            "who is in depends on the revision: say which with --revision (`kubectl canary status` shows it), "
            "or ask about a rollout in the cluster by its NAME"
        )
    manifest = one_rollout(file)
    return Asked(
        namespace or str(manifest.metadata.get("namespace", "default")),
        str(manifest.metadata.get("name")),
        revision,
        spec_of(manifest),
    )


async def _from_cluster(connection: Connection, name: str, revision: str | None) -> Asked:
    from canary_rollout.cli.find import get_rollout
    from canary_rollout.cli.offline import spec_of_object

    rollout = await get_rollout(connection, name)
    spec = spec_of_object(rollout)
    return Asked(connection.namespace, name, revision or await _revision(connection, rollout, spec), spec)


async def _revision(connection: Connection, rollout: "Object", spec: "CanaryRolloutSpec") -> str:
    """The revision under way; when there is none, the one that the canary's Deployment has."""
    from canary_rollout.cli.view import view_of
    from canary_rollout.kube.port import DEPLOYMENTS
    from canary_rollout.workloads.view import deployment_revision, selector_labels

    view = view_of(rollout, 0.0)
    if view.revision and view.phase not in {"Idle", "Succeeded"}:
        return view.revision
    stable, canary = [
        await connection.api.get(DEPLOYMENTS, connection.namespace, version.deployment)
        for version in (spec.workload.stable, spec.workload.canary)
    ]
    return deployment_revision(canary, selector_labels(stable, canary), spec.workload.identity_paths)


def _sticky(asked: Asked) -> "Sticky":
    from canary_rollout.cli.errors import CliError
    from canary_rollout.cli.membership import HASHES

    traffic = asked.spec.traffic
    if traffic.sticky is None:
        raise CliError(
            f"{asked.name} decides every request by itself, so no tenant belongs to a stage: traffic.sticky names the header "
            "that keeps tenants on a version"
        )
    if traffic.router not in HASHES:
        raise CliError(
            f"{traffic.router} keeps tenants by means of its own, or not at all, so who is in cannot be told; "
            f"{' and '.join(HASHES)} can"
        )
    return traffic.sticky


def _tenants(words: list[str], file: str | None) -> tuple[list[str], dict[str, float]]:
    """The tenants, each once, in the order given; and what they send, where the file says."""
    from canary_rollout.cli.errors import CliError, Exit

    names = dict.fromkeys(words)
    requests: dict[str, float] = {}
    if file is not None:
        try:
            with click.open_file(file, encoding="utf-8") as stream:
                lines = stream.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"{file} cannot be read: {error}", Exit.USAGE) from error
        for number, line in enumerate(lines, 1):
            name, comma, count = (part.strip() for part in line.partition(","))
            if not name or name.startswith("#"):
                continue
            names[name] = None
            if comma:
                try:
                    requests[name] = max(0.0, float(count))
                except ValueError as error:
                    raise CliError(f"{file}:{number}: {count!r} is no number of requests", Exit.USAGE) from error
    return list(names), requests


def _data(asked: Asked, tenants: "list[Tenant]", shares: "list[StageShare]") -> dict[str, Any]:
    from canary_rollout.model.units import format_weight

    return {
        "namespace": asked.namespace,
        "name": asked.name,
        "revision": asked.revision,
        "stages": [
            {
                "name": share.stage.name,
                "weight": format_weight(share.stage.weight),
                "tenants": share.tenants,
                "share": share.share,
                **({} if share.requests is None else {"requestShare": share.requests}),
                "joined": share.joined,
                "left": list(share.left),
            }
            for share in shares
        ],
        "tenants": [
            {
                "name": tenant.name,
                "position": tenant.position,
                "stages": list(tenant.stages),
                "joins": tenant.joins,
                "why": tenant.why,
            }
            for tenant in tenants
        ],
    }


def _print(  # noqa: PLR0917 - one table after another
    session: Session,
    asked: Asked,
    sticky: "Sticky",
    stage: str | None,
    tenants: "list[Tenant]",
    shares: "list[StageShare]",
) -> None:
    from canary_rollout.cli.view import clean

    console = session.tools.console()
    told = "the client's address" if sticky.client_ip else f"{sticky.header or f'cookie {sticky.cookie}'}"
    console.print(f"{asked.namespace}/{asked.name}, revision {asked.revision}, tenants by {told}\n")
    console.print(_stages(stage, shares))
    if tenants:
        console.print()
        console.print(_listed(tenants))
    for line in _notes(asked, sticky, shares):
        click.echo(clean(line), err=True)


def _stages(stage: str | None, shares: "list[StageShare]") -> "RenderableType":
    """The table of stages; ``stage`` is pointed at."""
    from canary_rollout.cli.render import grid
    from canary_rollout.model.units import format_weight

    weighed = any(share.requests is not None for share in shares)
    titles = ["  STAGE", "WEIGHT", "TENANTS", "SHARE", *(["REQUESTS"] if weighed else []), "NEW", "LEAVE"]
    rows = [
        [
            f"{'>' if share.stage.name == stage else ' '} {share.stage.name}",
            format_weight(share.stage.weight),
            str(share.tenants),
            f"{share.share:.2%}",
            *([f"{share.requests:.2%}" if share.requests is not None else "-"] if weighed else []),
            f"+{share.joined}",
            str(len(share.left)),
        ]
        for share in shares
    ]
    return grid(titles, rows, right=titles[1:])


def _listed(tenants: "list[Tenant]") -> "RenderableType":
    from canary_rollout.cli.render import grid
    from canary_rollout.cli.view import clean

    rows = [[clean(tenant.name), str(tenant.position), tenant.joins or "-", tenant.why or "-"] for tenant in tenants]
    return grid(["TENANT", "POSITION", "JOINS IN", "BY"], rows, right=["POSITION"])


def _notes(asked: Asked, sticky: "Sticky", shares: "list[StageShare]") -> list[str]:
    """What the table does not say."""
    from canary_rollout.cli.membership import same_key

    notes = [
        f"{share.stage.name}: {', '.join(share.left[:5])}{' …' if len(share.left) > 5 else ''} would leave the canary, since "
        "the stage before names them and this one does not"
        for share in shares
        if share.left
    ]
    for stage in asked.spec.active_stages:
        if stage.cohort is not None and not same_key(stage, sticky):
            by = stage.cohort.header or (f"cookie {stage.cohort.cookie}" if stage.cohort.cookie else "region")
            notes.append(f"{stage.name}: on top come the requests of its cohort, told by {by}, whoever's they are")
    return notes
