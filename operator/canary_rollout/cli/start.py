"""``start``: sets the canary's image, and before that says how this revision is to be rolled out."""

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.options import DURATION, WEIGHT, name_argument, target_options, wait_options
from canary_rollout.cli.session import Connection, Session, session_of
from canary_rollout.cli.verbs import arguments

if TYPE_CHECKING:
    from canary_rollout.cli.send import Sending
    from canary_rollout.kube.port import Object
    from canary_rollout.model.commands import Command, CommandArgs

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``start`` was asked for. ``args`` is ``None`` when the spec's own stages are to be used."""

    image: str
    container: str
    args: "CommandArgs | None"


@dataclass(frozen=True, slots=True)
class Change:
    """The patch of the canary's Deployment, and the revision it makes; ``stable`` is stable's revision."""

    deployment: str
    operations: "list[Object]"
    before: str
    revision: str
    stable: str


@click.command(short_help="Roll a new image out.")
@name_argument
@click.option("--image", required=True, metavar="IMAGE", help="The image of the new version.")
@click.option("--container", default="", metavar="NAME", help="Which container; needed where the pod has several.")
@click.option("--weight", type=WEIGHT, help="Go to this share of the traffic and pause there.")
@click.option(
    "--stages", metavar="LIST", help="Stages of this revision in per cent instead of the spec's: 10,25,50,100."
)
@click.option("--interval", type=DURATION, help="With --stages: how long each is held; default 10m.")
@wait_options
@target_options
@click.pass_context
def start(
    ctx: click.Context,
    *,
    name: str,
    image: str,
    container: str,
    weight: str | None,
    stages: str | None,
    interval: str | None,
) -> int:
    """Set the canary's image in rollout NAME, which starts a rollout of it."""
    if not _IMAGE.fullmatch(image):
        raise click.UsageError(f"{image[:60]!r} is no image: write it as in shop/checkout:1.4.2")
    if weight is not None and stages is not None:
        raise click.UsageError(
            "--weight goes to one weight and pauses, --stages goes through several: give one of them"
        )
    if interval is not None and stages is None:
        raise click.UsageError("--interval is the hold of each of --stages: give --stages as well, or leave it out")
    return run(session_of(ctx), name, Plan(image, container, _args(weight, stages, interval)))


def _args(weight: str | None, stages: str | None, interval: str | None) -> "CommandArgs | None":
    if weight is not None:
        return arguments(weight=weight)
    if stages is None:
        return None
    hold = interval or "10m"
    return arguments(stages=_stages(stages, hold), interval=hold)


def _stages(text: str, interval: str) -> tuple[str, ...]:
    """``"10,25,50,100"`` as weights; here a bare number is per cent, as the option says.

    Raises:
        click.UsageError: a weight does not parse, they do not rise, or the last is not 100 %.
    """
    from canary_rollout.model.spec import stages_from_weights
    from canary_rollout.model.units import UnitError, format_weight, parse_weight

    try:
        written = [part.strip() for part in text.split(",")]
        weights = tuple(format_weight(parse_weight(part if part.endswith("%") else f"{part}%")) for part in written)
        stages_from_weights(weights, interval)
    except (UnitError, ValueError) as error:
        raise click.UsageError(f'--stages "{text[:80]}": {error}; write them as in 10,25,50,100') from error
    return weights


def run(session: Session, name: str, plan: Plan) -> int:
    """Command first (it waits at the operator until its revision appears), then the image; the exit code."""

    async def work(connection: Connection) -> int:
        from canary_rollout.cli.find import get_rollout
        from canary_rollout.cli.send import Sending
        from canary_rollout.model.commands import Verb

        sending = Sending(connection, session.tools, session.wait)
        rollout = await get_rollout(connection, name)
        change = await _dry_run(connection, name, plan, rollout)
        _startable(name, plan, change, rollout)
        command = await sending.build(Verb.START, change.revision, plan.args) if plan.args is not None else None
        if command is not None:
            await sending.write(name, command)
        await _patch(sending, name, change, command)
        click.echo(f"{change.deployment}: {change.before} -> {plan.image}, revision {change.revision}")
        if command is not None:
            return await sending.answer(name, command)
        return await _seen(sending, name, change.revision)

    return session.run(work)


async def _dry_run(connection: Connection, name: str, plan: Plan, rollout: "Object") -> Change:
    """The patch and the revision it would make, as the API server itself would store it (defaults, webhooks)."""
    from canary_rollout.cli.send import MANAGER
    from canary_rollout.kube.port import DEPLOYMENTS
    from canary_rollout.workloads.view import deployment_revision, selector_labels

    workload = rollout["spec"]["workload"]
    deployment = workload["canary"]["deployment"]
    current = await _deployment(connection, f"the canary of {name}", deployment)
    stable = await _deployment(connection, f"stable of {name}", workload["stable"]["deployment"])
    operations, before = _operations(name, plan, deployment, current)
    after = await connection.api.json_patch(
        DEPLOYMENTS, connection.namespace, deployment, copy.deepcopy(operations), manager=MANAGER, dry_run=True
    )
    paths = tuple(workload.get("identityPaths") or ())
    labels = selector_labels(stable, after)
    made, served = (deployment_revision(one, labels, paths) for one in (after, stable))
    return Change(deployment, operations, before, made, served)


def _startable(name: str, plan: Plan, change: Change, rollout: "Object") -> None:
    """Refuse, before anything is written, what the operator would never begin.

    Raises:
        CliError: the revision was stopped before, or a plan is given for what stable runs already.
    """
    from canary_rollout.cli.view import clean

    status = rollout.get("status") or {}
    halts = [*((status.get("rollout") or {}).get("halts") or ()), *([status["halt"]] if status.get("halt") else ())]
    halt = next((halt for halt in halts if halt.get("revision") == change.revision), None)
    if halt is not None:
        raise CliError(
            f"{plan.image} makes revision {change.revision}, which was stopped before "
            f"({clean(str(halt.get('message') or halt.get('reason') or ''))}), and nothing was changed. To try it again: "
            f"`kubectl set image deployment/{change.deployment} {change.operations[0]['value']}={plan.image}`, then `kubectl canary retry {name}`"
        )
    if plan.args is not None and change.revision == change.stable:
        raise CliError(
            f"{plan.image} makes the canary what stable runs already (revision {change.stable}): there is nothing to "
            "roll out, and nothing was changed; without --weight and --stages the image alone is set"
        )


async def _deployment(connection: Connection, whose: str, deployment: str) -> "Object":
    from canary_rollout.kube.port import DEPLOYMENTS, NotFoundError

    try:
        return await connection.api.get(DEPLOYMENTS, connection.namespace, deployment)
    except NotFoundError as error:
        where = f"which is not in namespace {connection.namespace}"
        raise CliError(f"{whose} is Deployment {deployment}, {where}: create it first") from error


def _operations(name: str, plan: Plan, deployment: str, current: "Object") -> "tuple[list[Object], str]":
    """The JSON patch, guarded by ``test`` against somebody else's change, and the image before it."""
    containers: list[dict[str, Any]] = current["spec"]["template"]["spec"]["containers"]
    names = [container["name"] for container in containers]
    if not plan.container and len(names) > 1:
        raise click.UsageError(
            f"{deployment} has {len(names)} containers: name one with --container ({', '.join(names)})"
        )
    if plan.container and plan.container not in names:
        raise click.UsageError(f'{deployment} has no container "{plan.container}": it has {", ".join(names)}')
    index = names.index(plan.container) if plan.container else 0
    before = str(containers[index].get("image", ""))
    if before == plan.image:
        raise CliError(
            f"{deployment} has image {plan.image} already, so there is no new version to start; "
            f"`kubectl canary set-weight {name} 10%` changes its weight, `kubectl canary retry {name}` tries it again"
        )
    path = f"/spec/template/spec/containers/{index}"
    operations: list[Object] = [
        {"op": "test", "path": f"{path}/name", "value": names[index]},
        {"op": "test", "path": f"{path}/image", "value": before},
        {"op": "replace", "path": f"{path}/image", "value": plan.image},
    ]
    return operations, before


async def _patch(sending: "Sending", name: str, change: Change, command: "Command | None") -> None:
    """Set the image. When that is refused for good, take back the command that waits for its revision."""
    from canary_rollout.cli.send import MANAGER
    from canary_rollout.kube.port import DEPLOYMENTS, ApiError, ConflictError, UnavailableError

    connection = sending.connection
    try:
        await connection.api.json_patch(
            DEPLOYMENTS, connection.namespace, change.deployment, change.operations, manager=MANAGER
        )
    except UnavailableError:
        raise  # perhaps it did arrive, so the command stays
    except ApiError as error:
        if command is not None:
            await sending.annotate(name, {command.annotation()[0]: None})
        if isinstance(error, ConflictError):
            raise CliError(
                f"somebody else changed {change.deployment} at the same time, so nothing was started: look, then repeat"
            ) from error
        raise


async def _seen(sending: "Sending", name: str, revision: str) -> int:
    """Wait until the operator has taken the new revision up; the exit code."""
    from canary_rollout.cli.view import clean

    if sending.wait <= 0:
        return Exit.OK
    status = await sending.until(name, lambda status: status.get("revision") == revision)
    if status is None:
        raise CliError(
            f"the image is set, but the operator did not take revision {revision} up within {sending.wait:g} s; "
            f"`kubectl canary status {name}` shows whether it waits for an earlier one",
            Exit.UNREACHABLE,
        )
    click.echo(clean(str(status.get("message") or "the rollout has begun")))
    return Exit.OK
