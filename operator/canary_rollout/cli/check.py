"""``check``: every gate and rule of a stage, evaluated now."""

from typing import TYPE_CHECKING, Any

import click

from canary_rollout.cli.options import (
    name_argument,
    output_option,
    prometheus_options,
    target_options,
)
from canary_rollout.cli.session import Connection, Session, session_of

if TYPE_CHECKING:
    from canary_rollout.analysis.verdict import Assessment
    from canary_rollout.cli.asking import Subject
    from canary_rollout.cli.evaluate import Line
    from canary_rollout.model.spec import Stage


@click.command(short_help="Every gate and rule of a stage evaluated now, with the numbers; for CI.")
@name_argument
@click.option("--stage", metavar="NAME", help="This stage; default: the present one, else the first.")
@prometheus_options
@output_option
@target_options
@click.pass_context
def check(ctx: click.Context, /, *, name: str, stage: str | None, output: str | None, **given: Any) -> int:
    """Evaluate every gate and rule of a stage of rollout NAME now, as the operator would.

    Alerts and dry runs are shown and do not decide; inactive rules neither.

    Exit code 0: everything that could stop or hold the rollout passes; 1: something fails or is breached; 3: something
    has no verdict (too few requests, no data), or there is no answer.
    """
    session = session_of(ctx)
    done: list[int] = []

    async def ask(connection: Connection) -> None:
        from canary_rollout.cli.errors import Exit
        from canary_rollout.cli.evaluate import Evaluator, outcome_of, stage_named

        subject = await subject_named(connection, name, given)
        asked = stage_named(subject, stage)
        evaluator = Evaluator(subject, asked)
        async with session.tools.sampler() as sampler:
            assessment = await evaluator.now(sampler, session.tools.now())
        lines = evaluator.lines(assessment)
        verdict = outcome_of(lines)
        if output:
            from canary_rollout.cli.show import print_data

            print_data(_data(subject, asked, verdict, assessment, lines), output)
        else:
            draw(session, subject, asked, verdict, lines)
        if subject.problem:
            click.echo(subject.problem, err=True)
        done.append({"pass": Exit.OK, "fail": Exit.REFUSED, "none": Exit.UNREACHABLE}[verdict])

    return session.run(ask) or done[0]


async def subject_named(connection: Connection, name: str, given: dict[str, Any]) -> "Subject":
    """The rollout of this name, with its effective spec, its pods and its credentials."""
    from dataclasses import replace

    from canary_rollout.cli.asking import Login, effective, subject_of_cluster
    from canary_rollout.cli.find import get_rollout
    from canary_rollout.cli.offline import spec_of_object

    rollout = await get_rollout(connection, name)
    spec, problem = await effective(connection, spec_of_object(rollout))
    subject = await subject_of_cluster(connection, rollout, spec, Login.of(given))
    return replace(subject, problem=problem or subject.problem)


def standing(subject: "Subject") -> str:
    """Why there is little to ask about now; empty while a revision serves."""
    from canary_rollout.cli.view import clean, serves_nothing

    phase = clean(str(subject.status.get("phase") or "")) or "Unknown"
    if not serves_nothing(phase):
        return ""
    return (
        f"The rollout is {phase}: its canary serves nothing, so little can be said of it now. "
        f"`kubectl canary status {subject.name}` says how that came."
    )


def _data(
    subject: "Subject", stage: "Stage | None", verdict: str, assessment: "Assessment", lines: "list[Line]"
) -> dict[str, Any]:
    from canary_rollout.model.units import format_instant

    return {
        "namespace": subject.namespace,
        "name": subject.name,
        "phase": str(subject.status.get("phase") or "Unknown"),
        "stage": stage.name if stage is not None else None,
        "at": format_instant(assessment.at),
        "verdict": verdict,
        "checks": [line.to_dict() for line in lines],
        **({"problem": subject.problem} if subject.problem else {}),
    }


def draw(session: Session, subject: "Subject", stage: "Stage | None", verdict: str, lines: "list[Line]") -> None:
    """The verdict, and a line for each check that says something."""
    from rich.text import Text

    from canary_rollout.cli.evaluate import Word
    from canary_rollout.cli.render import grid
    from canary_rollout.cli.view import clean

    styles = {Word.PASS: "green", Word.FAIL: "bold red", Word.BREACHED: "bold red", Word.NONE: "yellow"}
    words = {"pass": ("PASS", "bold green"), "fail": ("FAIL", "bold red"), "none": ("NO VERDICT", "bold yellow")}
    console = session.tools.console()
    where = f"stage {stage.name}" if stage is not None else "no stage"
    console.print(Text(f"{subject.namespace}/{subject.name}, {where}: ") + Text(*words[verdict]))
    if at_rest := standing(subject):
        console.print(Text(at_rest, "yellow"))
    console.print()
    rows: list[list[str | Text]] = []
    for line in lines:
        if line.word is not Word.INACTIVE:
            only_told = "" if line.decides or line.word is Word.PASS else " (only told)"
            kind = line.kind.partition(" of ")[0]
            word = Text(f"{line.word.value}{only_told}", styles[line.word])
            rows.append([kind, line.verdict.rule, word, clean(line.message)])
    console.print(grid(["KIND", "NAME", "VERDICT", "NUMBERS"], rows))
    inactive = [line.verdict.rule for line in lines if line.word is Word.INACTIVE]
    if inactive:
        console.print(Text(f"inactive: {', '.join(inactive)}", "dim"))
